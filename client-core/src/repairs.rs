//! How a `delete` tells what a repair has stored from what somebody has stored since.
//!
//! ```text
//!  memcached 1.6.27 and later, ketch:  the item has a CAS unique of the upper half, given by flag `E`: a mark
//!  older memcached:                    beside the item lies a note, `ketch:given:` and a hash of key and value, for some seconds
//! ```
//!
//! Rp1. What a repair stores is marked, or a note was acknowledged by its node before it was sent. Until it is known which of both the
//!     node takes, it is given nothing.
//! Rp2. A note outlives every `delete` that may look for it: what that finds when all copies have been deleted was stored since it began.
//! Rp3. A mark or note stays with what was confirmed. Only what a repair stores has one: any other store gives a CAS unique of the node.

use std::time::Duration;

use crate::value::Item;

/// How long a repair lives that was not confirmed, in seconds: as long as the slowest look takes.
pub const MOMENT_S: i32 = 2;
/// The same.
pub const MOMENT: Duration = Duration::from_secs(MOMENT_S as u64);

/// True if what has so many seconds left ([`Meta::ttl`](crate::reply::Meta::ttl)) may be what a repair has added and not confirmed.
pub fn is_passing(ttl: Option<i64>) -> bool {
    ttl.is_some_and(|left| (0..=i64::from(MOMENT_S)).contains(&left))
}

/// The bit that tells a mark from the CAS uniques that nodes give by themselves, which count up from 1.
const MARK: u64 = 1 << 63;

/// The CAS unique of what a repair stores; `chance` is any number.
pub fn mark(chance: u64) -> u64 {
    chance | MARK
}

/// True if a repair has stored what has this CAS unique.
pub fn is_mark(unique: u64) -> bool {
    unique & MARK != 0
}

/// The key of the note that a repair stores `item` under `key`.
pub fn note_key(key: &[u8], item: &Item) -> String {
    // FNV-1a. The end, of a fixed length, tells where the key ends.
    let bytes = key.iter().chain(&item.value).copied();
    let bytes = bytes
        .chain(item.flags.to_le_bytes())
        .chain((key.len() as u32).to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("ketch:given:{hash:016x}")
}

/// A note's time to live, in seconds, where a `delete` takes at most `request_timeout` (Rp2).
pub fn note_ttl_s(request_timeout: Duration) -> i32 {
    // Nodes count whole seconds, and the last one begins at any time.
    let longest = request_timeout.as_secs().min(3600) as i32 + 1;
    longest + MOMENT_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_about_one_value_of_one_key() {
        let item = |value: &'static str, flags| Item {
            value: value.into(),
            flags,
        };
        let note = note_key(b"lock", &item("mine", 0));
        assert_eq!(note, note_key(b"lock", &item("mine", 0)));
        for other in [
            note_key(b"lock", &item("yours", 0)),
            note_key(b"lock", &item("mine", 1)),
            note_key(b"loc", &item("kmine", 0)),
        ] {
            assert_ne!(note, other);
        }
    }

    #[test]
    fn marks_are_told_from_what_nodes_give() {
        assert!(is_mark(mark(0)) && is_mark(mark(u64::MAX)));
        assert!(!is_mark(0) && !is_mark(u64::MAX >> 1));
    }
}
