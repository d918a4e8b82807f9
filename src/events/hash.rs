//! The hash by which the feed names keys.

/// FNV-1a with 64 bits (Fowler, Noll and Vo): a few lines in any language, as readers have to compute it too. Keys that were
/// made to collide only make readers drop more than they must.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    key.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::key_hash;

    /// Vectors of the authors' page.
    #[test]
    fn it_is_fnv_1a() {
        assert_eq!(key_hash(b""), 0xcbf29ce484222325);
        assert_eq!(key_hash(b"a"), 0xaf63dc4c8601ec8c);
        assert_eq!(key_hash(b"foobar"), 0x85944171f73967e8);
    }
}
