//! The hashes of keys and points, and the part of a key that is hashed.

use md5::{Digest, Md5};

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
