//! What is stored: keys and values, computed from a number, so that nothing has to be remembered to
//! check a reply.
//!
//! ```text
//! key of 20 bytes, id 4711 of at most 7 digits     key:000000000 0004711
//!                                                  | template   | digits |
//! value of id                                      | mix(id), 8 bytes | pattern from (id % OFFSETS) on |
//! ```
//!
//! The stamp in front tells any two values apart (`mix` is a bijection); the pattern behind it is
//! one shared buffer, so writing a value is a copy and checking one is a compare. Both hold any
//! byte, "\r\n" included.

use crate::rng::{Rng, mix};
use crate::sizes::Sizes;

/// Bytes of the stamp.
const STAMP: usize = 8;
/// Places in the pattern where a value may start: few enough that short values stay in a CPU's
/// first-level cache.
const OFFSETS: u64 = 4096;
/// memcached's longest key.
const KEY_LEN_MAX: usize = 250;

/// Keys and values by number.
#[derive(Clone, Debug)]
pub struct Dataset {
    template: Vec<u8>,
    digits: usize,
    sizes: Sizes,
    pattern: Vec<u8>,
}

impl Dataset {
    /// Ids in `0..ids`, keys of `key_len` bytes, values of `sizes`.
    pub fn new(ids: u64, key_len: usize, sizes: Sizes) -> Result<Self, String> {
        let digits = ids.saturating_sub(1).max(1).ilog10() as usize + 1;
        if !(digits..=KEY_LEN_MAX).contains(&key_len) {
            return Err(format!(
                "{ids} keys need {digits} to {KEY_LEN_MAX} bytes, not {key_len}"
            ));
        }
        let mut template = vec![b'0'; key_len];
        let prefix = (key_len - digits).min(4);
        template[..prefix].copy_from_slice(&b"key:"[..prefix]);
        let mut rng = Rng::new(1);
        let pattern_len = sizes.max() + OFFSETS as usize + 8;
        let pattern = (0..pattern_len.div_ceil(8))
            .flat_map(|_| rng.bits().to_le_bytes())
            .collect();
        Ok(Dataset {
            template,
            digits,
            sizes,
            pattern,
        })
    }

    /// The length of each key.
    pub fn key_len(&self) -> usize {
        self.template.len()
    }

    /// Appends the key of `id`.
    #[inline]
    pub fn key_into(&self, mut id: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.template);
        for digit in out[start..].iter_mut().rev().take(self.digits) {
            *digit = b'0' + (id % 10) as u8;
            id /= 10;
        }
    }

    /// Whose key this is; none of ours has no id.
    #[inline]
    pub fn id_of(&self, key: &[u8]) -> Option<u64> {
        let fixed = self.template.len() - self.digits;
        if key.len() != self.template.len() || key[..fixed] != self.template[..fixed] {
            return None;
        }
        key[fixed..].iter().try_fold(0u64, |id, &byte| {
            byte.is_ascii_digit()
                .then(|| id * 10 + u64::from(byte - b'0'))
        })
    }

    /// The length of the value of `id`.
    #[inline]
    pub fn value_len(&self, id: u64) -> usize {
        self.sizes.of(id)
    }

    /// The longest value.
    pub fn value_len_max(&self) -> usize {
        self.sizes.max()
    }

    /// The sizes of values.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Appends the value of `id`.
    #[inline]
    pub fn value_into(&self, id: u64, out: &mut Vec<u8>) {
        let len = self.value_len(id);
        let stamped = len.min(STAMP);
        out.extend_from_slice(&mix(id).to_le_bytes()[..stamped]);
        out.extend_from_slice(&self.pattern(id)[stamped..len]);
    }

    /// Whether `bytes` are what stands in the value of `id` from `at` on.
    #[inline]
    pub fn matches(&self, id: u64, at: usize, bytes: &[u8]) -> bool {
        let end = at + bytes.len();
        if end > self.value_len(id) {
            return false;
        }
        let stamped = STAMP.saturating_sub(at).min(bytes.len());
        let stamp_ok = stamped == 0 || bytes[..stamped] == mix(id).to_le_bytes()[at..at + stamped];
        stamp_ok && bytes[stamped..] == self.pattern(id)[at + stamped..end]
    }

    #[inline]
    fn pattern(&self, id: u64) -> &[u8] {
        &self.pattern[(id % OFFSETS) as usize..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(f: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        f(&mut out);
        out
    }

    #[test]
    fn a_key_leads_back_to_its_id() {
        for key_len in [7, 8, 12, 250] {
            let data = Dataset::new(1_000_001, key_len, Sizes::Fixed(1)).expect("lengths fit");
            for id in [0, 1, 9, 10, 99_999, 1_000_000] {
                let key = bytes(|out| data.key_into(id, out));
                assert_eq!(key.len(), key_len);
                assert_eq!(data.id_of(&key), Some(id));
            }
        }
        let data = Dataset::new(1000, 12, Sizes::Fixed(1)).expect("lengths fit");
        assert_eq!(bytes(|out| data.key_into(471, out)), b"key:00000471");
        for wrong in [&b"key:0000047"[..], b"kez:00000471", b"key:000004x1", b""] {
            assert_eq!(data.id_of(wrong), None);
        }
        assert!(Dataset::new(1_000_001, 6, Sizes::Fixed(1)).is_err());
    }

    #[test]
    fn a_value_matches_itself_in_pieces_and_no_other() {
        for len in [0, 1, 7, 8, 9, 100, 5000] {
            let data = Dataset::new(10_000, 12, Sizes::Fixed(len)).expect("lengths fit");
            // 1 and 4097 start at the same place of the pattern.
            let value = bytes(|out| data.value_into(1, out));
            assert_eq!(value.len(), len);
            for cut in [0, 1, 5, 8, 9, 50, len] {
                let cut = cut.min(len);
                assert!(data.matches(1, 0, &value[..cut]) && data.matches(1, cut, &value[cut..]));
            }
            if len >= 8 {
                assert!(!data.matches(4097, 0, &value));
                assert!(!data.matches(2, 0, &value));
            }
            for at in 0..len.min(40) {
                let mut wrong = value.clone();
                wrong[at] ^= 1;
                assert!(!data.matches(1, 0, &wrong));
            }
            assert!(!data.matches(1, len, b"x"));
        }
    }
}
