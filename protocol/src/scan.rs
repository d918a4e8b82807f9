//! Where a word or a line ends. Most end soon, so that the first bytes are looked at here, eight at a time: a call to memchr
//! costs as much as eighty bytes do. What is longer is memchr's.

use memchr::{memchr, memchr3};

/// So many bytes are looked at before memchr is asked.
const NEAR: usize = 64;
/// 1 in each byte.
const ONES: u64 = u64::MAX / 255;

/// The first place of `byte`.
#[inline]
pub(crate) fn find(byte: u8, text: &[u8]) -> Option<usize> {
    let (near, far) = halves(text);
    let marks = |word: u64| below(word ^ (ONES * u64::from(byte)), 1);
    first(near, marks).or_else(|| memchr(byte, far).map(|at| NEAR + at))
}

/// Where a word ends: the first space, the first byte of the line end, or another control character.
#[inline]
pub(crate) fn word_end(text: &[u8]) -> Option<usize> {
    let (near, far) = halves(text);
    let marks = |word| below(word, b' ' + 1);
    first(near, marks).or_else(|| memchr3(b' ', b'\r', b'\n', far).map(|at| NEAR + at))
}

#[inline(always)]
fn halves(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.len().min(NEAR))
}

/// The highest bit of each byte of `word` that is less than `end`, which is 128 at most. Of those above the first such byte
/// it may say so wrongly.
#[inline(always)]
fn below(word: u64, end: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(end)) & !word & (ONES << 7)
}

/// The first byte that `marks` marks by its highest bit.
#[inline(always)]
fn first(text: &[u8], marks: impl Fn(u64) -> u64) -> Option<usize> {
    let within = |word: &[u8; 8]| match marks(u64::from_le_bytes(*word)) {
        0 => None,
        marked => Some(marked.trailing_zeros() as usize / 8),
    };
    let mut at = 0;
    while let Some(word) = text[at..].first_chunk() {
        if let Some(found) = within(word) {
            return Some(at + found);
        }
        at += 8;
    }
    match text.last_chunk() {
        // The rest, with some that were looked at before it.
        Some(word) => within(word).map(|found| text.len() - 8 + found),
        None => text.iter().position(|&byte| marks(byte.into()) & 0x80 != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All bytes, in all places of texts of all short lengths, among bytes that are nearly found.
    #[test]
    fn what_is_found_is_the_first() {
        for len in 0..150 {
            for fill in [b'!', b'~', 0x80, 0xa0, 0xff] {
                let mut text = vec![fill; len];
                assert_eq!((find(b'\n', &text), word_end(&text)), (None, None));
                for at in 0..len {
                    text[at..].fill(b'\n');
                    assert_eq!(find(b'\n', &text), Some(at));
                    assert_eq!(word_end(&text), Some(at));
                    text[at] = b' ';
                    assert_eq!(find(b' ', &text), Some(at));
                    assert_eq!(word_end(&text), Some(at));
                    text[at..].fill(fill);
                }
            }
        }
        for byte in 0..=u8::MAX {
            let text = [b'a', b'a', b'a', byte, b'a', b'a', b'a', b'a', b'a'];
            assert_eq!(word_end(&text), (byte <= b' ').then_some(3));
            assert!(find(byte, &text).is_some());
        }
    }
}
