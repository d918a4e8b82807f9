//! The hashes of keys and points, and the part of a key that is hashed.

use md5::{Digest, Md5};
use sha1::Sha1;

use super::md5_lanes::{self, LANES, LONGEST};

/// MD5, whole.
pub(super) fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// The four points of an MD5 digest: its bytes 0-3, 4-7, 8-11 and 12-15, each little-endian.
pub(super) fn md5_points(digest: [u8; 16]) -> [u32; 4] {
    let word = |i| u32::from_le_bytes([digest[i], digest[i + 1], digest[i + 2], digest[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}

/// The first point of MD5: where a key stands on an MD5 ring.
pub(super) fn md5_32(bytes: &[u8]) -> u32 {
    md5_points(md5(bytes))[0]
}

/// Fewer than this are hashed one after the other.
const FEW: usize = 3;

/// The points of each of `messages`, in their order: [`md5_points`] of [`md5`], several at a time.
pub(super) fn md5_points_each(messages: &[&[u8]], mut each: impl FnMut([u32; 4])) {
    for messages in messages.chunks(LANES) {
        if messages.len() < FEW || messages.iter().any(|message| message.len() > LONGEST) {
            messages
                .iter()
                .for_each(|message| each(md5_points(md5(message))));
            continue;
        }
        let mut lanes: [&[u8]; LANES] = [b""; LANES];
        lanes[..messages.len()].copy_from_slice(messages);
        let points = md5_lanes::md5(lanes);
        points[..messages.len()]
            .iter()
            .for_each(|points| each(*points));
    }
}

/// The first eight bytes of MD5, little-endian: its lower half is what `ketama` takes for the same key.
pub(super) fn md5_64(bytes: &[u8]) -> u64 {
    let [low, high, _, _] = md5_points(md5(bytes));
    u64::from(low) | u64::from(high) << 32
}

/// Bob Jenkins' one-at-a-time hash ("A hash function for hash table lookup", Dr. Dobb's, 1997); libmemcached's default.
pub(super) fn one_at_a_time(bytes: &[u8]) -> u32 {
    let mut h = 0_u32;
    for &byte in bytes {
        h = h.wrapping_add(byte.into());
        h = h.wrapping_add(h << 10);
        h ^= h >> 6;
    }
    h = h.wrapping_add(h << 3);
    h ^= h >> 11;
    h.wrapping_add(h << 15)
}

/// The first four bytes of SHA-1, big-endian: a point of dalli's ring.
pub(super) fn sha1_32(bytes: &[u8]) -> u32 {
    let digest = Sha1::digest(bytes);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// CRC-32 as in zlib.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// MurmurHash3 (x86, 32 bits, seed 0) by Austin Appleby, of any bytes.
pub(super) fn murmur3_32(bytes: impl Iterator<Item = u8>) -> u32 {
    let mix = |block: u32| {
        let block = block.wrapping_mul(0xcc9e_2d51).rotate_left(15);
        block.wrapping_mul(0x1b87_3593)
    };
    let (mut hash, mut block, mut len) = (0_u32, 0_u32, 0_u32);
    for byte in bytes {
        block |= u32::from(byte) << (len % 4 * 8);
        len = len.wrapping_add(1);
        if len.is_multiple_of(4) {
            hash ^= mix(block);
            hash = hash
                .rotate_left(13)
                .wrapping_mul(5)
                .wrapping_add(0xe654_6b64);
            block = 0;
        }
    }
    // What is left of a block is mixed in without the rotation; nothing changes if nothing is left.
    hash ^= mix(block) ^ len;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// The hash tag of a key: what stands between its first `{` and the first `}` behind it. Keys without one, or with an
/// empty one, are their own tag.
pub(super) fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else {
        return key;
    };
    let inside = &key[open + 1..];
    match inside.iter().position(|&b| b == b'}') {
        None | Some(0) => key,
        Some(close) => &inside[..close],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        assert_eq!(one_at_a_time(b""), 0);
        assert_eq!(one_at_a_time(b"a"), 0xca2e_9442);
        assert_eq!(
            one_at_a_time(b"The quick brown fox jumps over the lazy dog"),
            0x519e_91f5
        );
        // RFC 1321, A.5: MD5("abc") = 900150983cd24fb0 d6963f7d28e17f72.
        assert_eq!(
            md5_points(md5(b"abc")),
            [0x9850_0190, 0xb04f_d23c, 0x7d3f_96d6, 0x727f_e128]
        );
        assert_eq!(md5_64(b"abc"), 0xb04f_d23c_9850_0190);
        // Of all lengths, several at a time.
        let long: Vec<u8> = (0..=255).collect();
        let messages: Vec<&[u8]> = (0..70).map(|len| &long[len..2 * len]).collect();
        for count in 0..messages.len() {
            let mut hashed = Vec::new();
            md5_points_each(&messages[..count], |points| hashed.push(points));
            let want = messages[..count]
                .iter()
                .map(|message| md5_points(md5(message)));
            assert_eq!(hashed, want.collect::<Vec<_>>());
        }
        // FIPS 180, SHA-1("abc") = a9993e36..; the check value of CRC-32; MurmurHash3 as its implementations share it.
        assert_eq!(sha1_32(b"abc"), 0xa999_3e36);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        for (text, hash) in [
            ("", 0),
            ("test", 0xba6b_d213),
            ("Hello, world!", 0xc036_3e43),
            ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
        ] {
            assert_eq!(murmur3_32(text.bytes()), hash, "{text}");
        }
    }

    #[test]
    fn tags() {
        for (key, hashed) in [
            ("{user123}:x", "user123"),
            ("a{b}c{d}", "b"),
            ("a{{b}}", "{b"),
            ("a{}b{c}", "a{}b{c}"),
            ("a}b{c}", "c"),
            ("a{b", "a{b"),
            ("ab}", "ab}"),
            ("", ""),
        ] {
            assert_eq!(tag(key.as_bytes()), hashed.as_bytes(), "{key}");
        }
    }
}
