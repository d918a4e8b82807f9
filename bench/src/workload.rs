//! What is asked: which commands in which dialect, for which keys, and the bytes of a batch.

use crate::check::Checker;
use crate::dataset::Dataset;
use crate::dialect::{Dialect, retrieve, store};
use crate::rng::{Rng, mix};
use crate::zipf::Zipf;

/// Commands and their shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// The words on the wire.
    pub dialect: Dialect,
    /// Keys one reading command names.
    pub multi: usize,
    /// The share of keys that are stored rather than read, 0 to 1.
    pub writes: f64,
    /// The share of reads that ask for a key that nobody stored.
    pub misses: f64,
}

impl Workload {
    /// The workload that `name` stands for, with its usual `multi` and share of writes.
    pub fn named(name: &str) -> Option<Workload> {
        use Dialect::{Binary, Meta, Text};
        let (dialect, multi, writes) = match name {
            "get" => (Text, 1, 0.0),
            "mget" => (Text, 50, 0.0),
            "set" => (Text, 1, 1.0),
            "mixed" => (Text, 1, 0.1),
            "mg" => (Meta, 1, 0.0),
            "mmg" => (Meta, 32, 0.0),
            "ms" => (Meta, 1, 1.0),
            "meta" => (Meta, 1, 0.1),
            "getkq" => (Binary, 32, 0.0),
            "bset" => (Binary, 1, 1.0),
            "binary" => (Binary, 1, 0.1),
            _ => return None,
        };
        Some(Workload {
            dialect,
            multi,
            writes,
            misses: 0.0,
        })
    }

    /// The names that `named` knows, for messages.
    pub const NAMES: &str = "get mget set mixed mg mmg ms meta getkq bset binary";

    /// The same dialect, storing only: what fills a server before this workload runs.
    pub fn store(self) -> Workload {
        Workload {
            multi: 1,
            writes: 1.0,
            misses: 0.0,
            ..self
        }
    }
}

/// Which key is next.
#[derive(Clone, Debug, PartialEq)]
pub enum Popularity {
    /// Every key alike.
    Uniform,
    /// By Zipf's law with this exponent.
    Zipf(f64),
    /// One after the other, each thread in its own part.
    Sequential,
}

impl Popularity {
    /// Reads `uniform`, `zipf`, `zipf:THETA`, `sequential`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "uniform" => Ok(Popularity::Uniform),
            "sequential" => Ok(Popularity::Sequential),
            "zipf" => Ok(Popularity::Zipf(0.99)),
            _ => match text
                .strip_prefix("zipf:")
                .and_then(|theta| theta.parse().ok())
            {
                Some(theta) if theta > 0.0 && theta < 20.0 => Ok(Popularity::Zipf(theta)),
                _ => Err(format!(
                    "{text}: popularity is uniform, zipf:THETA or sequential"
                )),
            },
        }
    }
}

/// Draws keys for one thread.
#[derive(Clone, Debug)]
pub struct Picker {
    keys: u64,
    rng: Rng,
    order: Order,
}

#[derive(Clone, Debug)]
enum Order {
    Uniform,
    /// Ranks are spread over the ids by a factor that shares no divisor with their count.
    Zipf(Zipf, u64),
    Sequential {
        first: u64,
        next: u64,
        end: u64,
    },
}

impl Picker {
    /// For thread `index` of `threads`; ids in `0..keys`.
    pub fn new(popularity: &Popularity, keys: u64, seed: u64, index: u64, threads: u64) -> Self {
        let order = match popularity {
            Popularity::Uniform => Order::Uniform,
            Popularity::Zipf(theta) => Order::Zipf(Zipf::new(keys, *theta), spread(keys)),
            Popularity::Sequential => {
                let edge = |i| (u128::from(keys) * u128::from(i) / u128::from(threads)) as u64;
                Order::Sequential {
                    first: edge(index),
                    next: edge(index),
                    end: edge(index + 1),
                }
            }
        };
        Picker {
            keys,
            rng: Rng::new(seed.wrapping_mul(1000).wrapping_add(index)),
            order,
        }
    }

    /// How many keys a walk in order has, from start to end.
    pub fn share(&self) -> Option<u64> {
        match self.order {
            Order::Sequential { first, end, .. } => Some(end - first),
            _ => None,
        }
    }

    /// The next id.
    #[inline]
    pub fn next_id(&mut self) -> u64 {
        match &mut self.order {
            Order::Uniform => self.rng.below(self.keys),
            Order::Zipf(zipf, factor) => {
                let rank = zipf.rank(&mut self.rng);
                (u128::from(rank) * u128::from(*factor) % u128::from(self.keys)) as u64
            }
            Order::Sequential { first, next, end } => {
                if next == end {
                    *next = *first;
                }
                *next += 1;
                *next - 1
            }
        }
    }

    #[inline]
    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && (share >= 1.0 || self.rng.unit() < share)
    }
}

/// A factor with which multiplication modulo `n` is a bijection that puts neighbours far apart.
fn spread(n: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut factor = (mix(n) % n).max(1);
    while gcd(factor, n) != 1 {
        factor += 1;
    }
    factor
}

/// Appends up to `commands` commands for at most `keys` keys to `out`, tells `checker` what to
/// expect, and returns the number of keys asked for.
pub fn batch(
    workload: &Workload,
    data: &Dataset,
    picker: &mut Picker,
    (commands, keys): (usize, u64),
    checker: &mut Checker,
    out: &mut Vec<u8>,
) -> u64 {
    let mut left = keys;
    for _ in 0..commands {
        if left == 0 {
            break;
        }
        if picker.chance(workload.writes) {
            let id = picker.next_id();
            store(workload.dialect, data, id, out);
            checker.expect_store(id);
            left -= 1;
        } else {
            let multi = (workload.multi as u64).min(left);
            for _ in 0..multi {
                let stored = !picker.chance(workload.misses);
                let id = picker.next_id();
                checker.expect_key(if stored { id } else { id + picker.keys });
            }
            retrieve(workload.dialect, data, checker.newest(multi as usize), out);
            checker.expect_end(multi > 1 || workload.dialect == Dialect::Binary);
            left -= multi;
        }
    }
    keys - left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::Sizes;

    fn written(name: &str, multi: usize) -> Vec<u8> {
        let data = Dataset::new(1000, 8, Sizes::Fixed(3)).expect("lengths fit");
        let workload = Workload {
            multi,
            ..Workload::named(name).expect("a known name")
        };
        let mut picker = Picker::new(&Popularity::Sequential, 1000, 1, 0, 1);
        let mut checker = Checker::new(workload.dialect, true);
        let mut out = Vec::new();
        assert_eq!(
            batch(
                &workload,
                &data,
                &mut picker,
                (2, 3),
                &mut checker,
                &mut out
            ),
            3.min(2 * multi as u64)
        );
        out
    }

    #[test]
    fn commands_as_they_go_out() {
        assert_eq!(written("get", 1), b"get key:0000\r\nget key:0001\r\n");
        assert_eq!(
            written("mget", 2),
            b"get key:0000 key:0001\r\nget key:0002\r\n"
        );
        assert_eq!(written("mg", 1), b"mg key:0000 k v\r\nmg key:0001 k v\r\n");
        assert_eq!(
            written("mg", 3),
            b"mg key:0000 k q v\r\nmg key:0001 k q v\r\nmg key:0002 k q v\r\nmn\r\n"
        );
        assert!(written("set", 1).starts_with(b"set key:0000 0 0 3\r\n"));
        assert!(written("ms", 1).starts_with(b"ms key:0000 3\r\n"));
        assert_eq!(written("getkq", 3).len(), 3 * (24 + 8) + 24);
        assert_eq!(written("bset", 1).len(), 2 * (24 + 8 + 8 + 3));
    }

    #[test]
    fn popular_keys_are_spread_and_none_is_lost() {
        for n in [1, 2, 10, 1000, 65536, 99_991] {
            let factor = spread(n);
            let mut seen = vec![false; n as usize];
            (0..n).for_each(|rank| seen[(rank * factor % n) as usize] = true);
            assert!(seen.iter().all(|&s| s), "{n}");
        }
    }

    #[test]
    fn a_walk_in_order_meets_each_key_once() {
        let mut seen = vec![0; 100];
        for index in 0..3 {
            let mut picker = Picker::new(&Popularity::Sequential, 100, 1, index, 3);
            for _ in 0..picker.share().expect("it is a walk") {
                seen[picker.next_id() as usize] += 1;
            }
        }
        assert!(seen.iter().all(|&n| n == 1));
    }
}
