//! What the checks of the Rust clients share: counting and comparing.

use std::fmt::{self, Debug, Display, Formatter};

/// Counts the checks that a client has passed; the first that it does not pass ends it.
#[derive(Debug, Default)]
pub struct Checks {
    count: usize,
}

impl Checks {
    /// Counts one check: `got` must be a success with this value.
    #[track_caller]
    pub fn same<T: PartialEq + Debug, E: Debug>(&mut self, got: Result<T, E>, want: T) {
        self.count += 1;
        match got {
            Ok(got) => assert_eq!(got, want),
            Err(error) => panic!("{error:?}, want {want:?}"),
        }
    }

    /// Counts one check: `got` must be an error with `word` in it.
    #[track_caller]
    pub fn refused<T: Debug, E: Debug>(&mut self, got: Result<T, E>, word: &str) {
        self.count += 1;
        let got = format!("{got:?}");
        assert!(
            got.starts_with("Err(") && got.contains(word),
            "{got}, want {word}"
        );
    }
}

impl Display for Checks {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{} checks", self.count)
    }
}

/// Bytes that look random, the same in every run.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 900_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}
