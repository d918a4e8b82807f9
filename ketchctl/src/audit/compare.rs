//! What the copies of a key say when they are laid beside each other. Pure.

use std::time::Duration;

use crate::copy::source::Found;

/// Times to live that differ by no more than this are alike: nodes count whole seconds, each by its own clock.
const TTL_SLACK: Duration = Duration::from_secs(3);

/// What was found of a key, place by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No place has it any more.
    Gone,
    /// One place alone has it: nothing to compare.
    Alone,
    /// All that have it have the same value and client flags.
    Agree {
        /// They do not live equally long.
        ttl_differs: bool,
    },
    /// Two places have other values, or other client flags.
    Differ,
    /// A place has it stale, or holds its place for who computes it.
    Unfinished,
    /// A place refused to tell.
    Refused,
}

/// Compares what the places have.
pub fn verdict<'f>(found: impl IntoIterator<Item = &'f Found>) -> Verdict {
    let mut first: Option<(&[u8], u32, Option<Duration>)> = None;
    let (mut compared, mut differ, mut ttl_differs, mut unfinished) = (false, false, false, false);
    for found in found {
        match found {
            Found::Gone => {}
            Found::Unfinished => unfinished = true,
            Found::Refused(_) => return Verdict::Refused,
            Found::Item {
                value, flags, ttl, ..
            } => match first {
                None => first = Some((value, *flags, *ttl)),
                Some((other, other_flags, other_ttl)) => {
                    compared = true;
                    differ |= other != value || other_flags != *flags;
                    ttl_differs |= ttls_differ(other_ttl, *ttl);
                }
            },
        }
    }
    match (first, differ, compared) {
        (_, true, _) => Verdict::Differ,
        _ if unfinished => Verdict::Unfinished,
        (None, ..) => Verdict::Gone,
        (Some(_), _, false) => Verdict::Alone,
        (Some(_), _, true) => Verdict::Agree { ttl_differs },
    }
}

fn ttls_differ(a: Option<Duration>, b: Option<Duration>) -> bool {
    match (a, b) {
        (None, None) => false,
        (Some(a), Some(b)) => a.abs_diff(b) > TTL_SLACK,
        _ => true,
    }
}

/// The CAS unique that each place has. Of another place it says nothing; of the same one it tells whether the item has changed.
pub fn uniques<'f>(found: impl IntoIterator<Item = &'f Found>) -> Vec<u64> {
    let cas = |found: &Found| match found {
        Found::Item { cas, .. } => *cas,
        _ => 0,
    };
    found.into_iter().map(cas).collect()
}

/// How many nines a share has: 0.9995 has three. `None` if nothing is amiss.
pub fn nines(good: u64, bad: u64) -> Option<u32> {
    if bad == 0 {
        return None;
    }
    let mut nines = 0;
    let all = u128::from(good) + u128::from(bad);
    // bad / all <= 10^-(nines + 1), in whole numbers.
    let mut scaled = u128::from(bad) * 10;
    while scaled <= all {
        nines += 1;
        scaled *= 10;
    }
    Some(nines)
}

/// FNV-1a with 64 bits.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whether a key is in a sample of about `share` of all keys. Where the key lies has no say, so all places sample alike.
pub fn is_sampled(key: &[u8], share: f64) -> bool {
    // Stirred once more: the upper bits alone are not even for short keys.
    let hash = fnv(key);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = hash ^ (hash >> 33);
    share >= 1.0 || (hash >> 11) as f64 / ((1u64 << 53) as f64) < share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(value: &str, flags: u32, ttl_s: Option<u64>, cas: u64) -> Found {
        Found::Item {
            value: value.into(),
            flags,
            ttl: ttl_s.map(Duration::from_secs),
            cas,
        }
    }

    #[test]
    fn verdicts() {
        let agree = |ttl_differs| Verdict::Agree { ttl_differs };
        for (found, expected) in [
            (
                vec![item("a", 1, None, 1), item("a", 1, None, 9)],
                agree(false),
            ),
            (
                vec![item("a", 1, Some(60), 1), item("a", 1, Some(62), 1)],
                agree(false),
            ),
            (
                vec![item("a", 1, Some(60), 1), item("a", 1, Some(90), 1)],
                agree(true),
            ),
            (
                vec![item("a", 1, Some(60), 1), item("a", 1, None, 1)],
                agree(true),
            ),
            (
                vec![item("a", 1, None, 1), item("b", 1, None, 1)],
                Verdict::Differ,
            ),
            (
                vec![item("a", 1, None, 1), item("a", 2, None, 1)],
                Verdict::Differ,
            ),
            (vec![item("a", 1, None, 1), Found::Gone], Verdict::Alone),
            (
                vec![item("a", 0, None, 1), Found::Gone, item("a", 0, None, 1)],
                agree(false),
            ),
            (
                vec![
                    item("a", 0, None, 1),
                    Found::Unfinished,
                    item("b", 0, None, 1),
                ],
                Verdict::Differ,
            ),
            (
                vec![item("a", 1, None, 1), Found::Unfinished],
                Verdict::Unfinished,
            ),
            (
                vec![item("a", 1, None, 1), Found::Refused("no".into())],
                Verdict::Refused,
            ),
            (vec![Found::Gone, Found::Gone], Verdict::Gone),
        ] {
            assert_eq!(verdict(&found), expected, "{found:?}");
        }
        assert_eq!(uniques(&[item("a", 0, None, 7), Found::Gone]), [7, 0]);
    }

    #[test]
    fn nines_are_counted_down() {
        for (good, bad, expected) in [
            (5, 0, None),
            (0, 1, Some(0)),
            (8, 2, Some(0)),
            (9, 1, Some(1)),
            (98, 2, Some(1)),
            (99, 1, Some(2)),
            (999_999, 1, Some(6)),
            (u64::MAX - 1, 1, Some(19)),
        ] {
            assert_eq!(nines(good, bad), expected, "{good} {bad}");
        }
    }

    #[test]
    fn samples_are_about_as_large_as_they_are_to_be() {
        let of = |share: f64| {
            let keys = (0..100_000).filter(|n| is_sampled(format!("key:{n}").as_bytes(), share));
            keys.count()
        };
        assert_eq!((of(1.0), of(0.0)), (100_000, 0));
        assert!((9_500..10_500).contains(&of(0.1)), "{}", of(0.1));
        assert!((70..130).contains(&of(0.001)), "{}", of(0.001));
    }
}
