//! The short form of fuzzing: the seeds, and what comes of changing them here and there. `KETCH_FUZZ_RUNS` says how many
//! changed ones each target gets, `KETCH_SEED` which.

use std::fs;
use std::path::Path;

use crate::targets::ALL;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % count.max(1)
    }
}

fn variable(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: no number"))
    })
}

/// A seed with a few bytes changed, doubled, dropped, or put in from another.
fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(24)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let to = (from + random.below(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => bytes.splice(at..at, *b"\r\n").for_each(drop),
        }
    }
    bytes
}

#[test]
fn what_is_promised_of_any_bytes_holds() {
    let (runs, seed) = (variable("KETCH_FUZZ_RUNS", 1000), variable("KETCH_SEED", 1));
    std::thread::scope(|scope| {
        for (name, run) in ALL {
            scope.spawn(move || {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("seeds")
                    .join(name);
                let mut paths: Vec<_> = fs::read_dir(&folder)
                    .unwrap_or_else(|error| panic!("{folder:?}: {error}"))
                    .map(|entry| entry.expect("a file").path())
                    .collect();
                paths.sort();
                let seeds: Vec<_> = paths
                    .iter()
                    .map(|path| fs::read(path).expect("a seed"))
                    .collect();
                assert!(!seeds.is_empty(), "{name} has no seeds");
                let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
                seeds.iter().for_each(|bytes| run(bytes));
                for nth in 0..runs {
                    let bytes = changed(&seeds, &mut random);
                    let broken = std::panic::catch_unwind(|| run(&bytes)).is_err();
                    assert!(
                        !broken,
                        "{name}: KETCH_SEED={seed}, input {nth}: {:?}",
                        bytes.escape_ascii().to_string()
                    );
                }
            });
        }
    });
}
