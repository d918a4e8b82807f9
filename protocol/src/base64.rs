//! Base64 for keys: the standard alphabet of RFC 4648 section 4, padded with `=`.
//!
//! Stricter than memcached in two points, where its decoder takes many texts for one key: a byte outside the alphabet
//! and text behind the padding are refused, not skipped. Bits left over in the last letter are ignored, as there.

use crate::limits::KEY_LEN_MAX;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Stands in [`VALUES`] for a byte outside the alphabet.
const NONE: u8 = 0xff;
/// The six bits of each letter.
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut i = 0;
    while i < ALPHABET.len() {
        values[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    values
};

/// How many bytes `text` decodes to if it is base64 at all.
pub fn decoded_len(text: &[u8]) -> usize {
    let padding = text
        .iter()
        .rev()
        .take(2)
        .take_while(|&&b| b == b'=')
        .count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// Decodes a key into `out` and tells its length; `None` if `text` is no base64 or the key is not 1-250 bytes long.
pub fn decode(text: &[u8], out: &mut [u8; KEY_LEN_MAX]) -> Option<usize> {
    let len = decoded_len(text);
    if !text.len().is_multiple_of(4) || len == 0 || len > KEY_LEN_MAX {
        return None;
    }
    // Whole groups of three first; the last group may be short.
    let (groups, last) = text.split_at(text.len() - 4);
    let (whole, tail) = out.split_at_mut(groups.len() / 4 * 3);
    for (from, to) in groups.chunks_exact(4).zip(whole.chunks_exact_mut(3)) {
        to.copy_from_slice(&group(from)?);
    }
    let tail_len = len - whole.len();
    let mut letters = [b'A'; 4];
    letters[..=tail_len].copy_from_slice(&last[..=tail_len]);
    tail[..tail_len].copy_from_slice(&group(&letters)?[..tail_len]);
    Some(len)
}

/// Three bytes out of four letters.
fn group(letters: &[u8]) -> Option<[u8; 3]> {
    let mut bits = 0u32;
    for &letter in letters {
        let value = VALUES[usize::from(letter)];
        if value == NONE {
            return None;
        }
        bits = bits << 6 | u32::from(value);
    }
    let [_, a, b, c] = bits.to_be_bytes();
    Some([a, b, c])
}

/// Appends `bytes` in base64 to `out`.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= group.len() { letter } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut room = [0; KEY_LEN_MAX];
        let len = decode(text, &mut room)?;
        Some(room[..len].to_vec())
    }

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(bytes, &mut out);
        out
    }

    #[test]
    fn vectors_of_rfc_4648() {
        for (bytes, text) in [
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encoded(bytes.as_bytes()), text.as_bytes());
            assert_eq!(decoded(text.as_bytes()).as_deref(), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn every_length_comes_back() {
        for len in 1..=KEY_LEN_MAX {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37 + len) as u8).collect();
            assert_eq!(decoded(&encoded(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let too_long = encoded(&[7; KEY_LEN_MAX + 1]);
        let no_keys: [&[u8]; 14] = [
            b"",
            b"=",
            b"====",
            b"A===",
            b"A",
            b"AA",
            b"AAA",
            b"AAAAA",
            b"AA=A",
            b"Zg==Zg==",
            b"Zm9v!!!!",
            b"Zm-_",
            b"Zm\n=",
            &too_long,
        ];
        for text in no_keys {
            assert_eq!(decoded(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn bits_left_over_are_ignored() {
        assert_eq!(decoded(b"Zh=="), Some(b"f".to_vec()));
    }
}
