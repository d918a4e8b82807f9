//! Random numbers from a printed seed: `KETCH_SEED=n` repeats a run that failed.

use std::time::{SystemTime, UNIX_EPOCH};

/// How often a random test goes round: `short`, or `long` with `KETCH_LONG` set.
pub fn rounds(short: u32, long: u32) -> u32 {
    match std::env::var_os("KETCH_LONG") {
        Some(_) => long,
        None => short,
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub struct Rng(u64);

impl Rng {
    /// A generator for the test `name`, whose seed is printed with the test's output.
    pub fn from_env(name: &str) -> Rng {
        let seed = match std::env::var("KETCH_SEED") {
            Ok(text) => text.parse().expect("KETCH_SEED is a decimal number"),
            Err(_) => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .expect("a clock after 1970");
                now.as_nanos() as u64
            }
        };
        println!("{name}: repeat this run with KETCH_SEED={seed}");
        Rng(seed)
    }

    /// A generator with a fixed seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// True once in `n` calls on average.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`.
    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// `len` bytes that do not repeat and do not compress: a value that shows a mix-up of chunks.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.bits().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
