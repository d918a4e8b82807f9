//! How long values are. The length belongs to the key's number: it is the same at each store, so a
//! reply's length can be checked without remembering what was stored.

use crate::rng::{mix, scale};

/// A distribution of lengths in bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// Each length from the first to the last equally often.
    Uniform(usize, usize),
    /// Each size with its weight.
    Weighted(Vec<(usize, u64)>),
}

impl Sizes {
    /// Reads `N` or `fixed:N`, `uniform:A-B`, `weighted:N@W,N@W,..`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fault = || format!("{text}: sizes are N, fixed:N, uniform:A-B or weighted:N@W,N@W");
        let number = |word: &str| word.parse::<usize>().map_err(|_| fault());
        match text.split_once(':') {
            None => Ok(Sizes::Fixed(number(text)?)),
            Some(("fixed", n)) => Ok(Sizes::Fixed(number(n)?)),
            Some(("uniform", range)) => {
                let (first, last) = range.split_once('-').ok_or_else(fault)?;
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(fault());
                }
                Ok(Sizes::Uniform(first, last))
            }
            Some(("weighted", list)) => {
                let mut sizes = Vec::new();
                for pair in list.split(',') {
                    let (size, weight) = pair.split_once('@').ok_or_else(fault)?;
                    sizes.push((number(size)?, number(weight)? as u64));
                }
                if sizes.iter().all(|&(_, weight)| weight == 0) {
                    return Err(fault());
                }
                Ok(Sizes::Weighted(sizes))
            }
            Some(_) => Err(fault()),
        }
    }

    /// The length of value `id`.
    #[inline]
    pub fn of(&self, id: u64) -> usize {
        match self {
            Sizes::Fixed(n) => *n,
            Sizes::Uniform(first, last) => {
                first + scale(mix(!id), (last - first + 1) as u64) as usize
            }
            Sizes::Weighted(sizes) => {
                let total = sizes.iter().map(|&(_, weight)| weight).sum();
                let mut at = scale(mix(!id), total);
                for &(size, weight) in sizes {
                    if at < weight {
                        return size;
                    }
                    at -= weight;
                }
                unreachable!("a point below the total falls into one of the weights")
            }
        }
    }

    /// The longest there is.
    pub fn max(&self) -> usize {
        match self {
            Sizes::Fixed(n) => *n,
            Sizes::Uniform(_, last) => *last,
            Sizes::Weighted(sizes) => sizes.iter().map(|&(size, _)| size).max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(Sizes::parse("100"), Ok(Sizes::Fixed(100)));
        assert_eq!(Sizes::parse("fixed:0"), Ok(Sizes::Fixed(0)));
        assert_eq!(Sizes::parse("uniform:10-20"), Ok(Sizes::Uniform(10, 20)));
        assert_eq!(
            Sizes::parse("weighted:10@3,20@1"),
            Ok(Sizes::Weighted(vec![(10, 3), (20, 1)]))
        );
        for wrong in [
            "",
            "x",
            "uniform:20-10",
            "uniform:5",
            "weighted:",
            "weighted:5@0",
            "exp:3",
        ] {
            assert!(Sizes::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn uniform_reaches_both_ends_and_the_middle_evenly() {
        let sizes = Sizes::Uniform(10, 19);
        let mut counts = [0u32; 10];
        for id in 0..100_000 {
            counts[sizes.of(id) - 10] += 1;
        }
        assert!(
            counts.iter().all(|&n| (9_500..10_500).contains(&n)),
            "{counts:?}"
        );
    }

    #[test]
    fn weights_are_kept() {
        let sizes = Sizes::Weighted(vec![(10, 1), (100, 8), (1000, 1)]);
        let count = |size| (0..100_000).filter(|&id| sizes.of(id) == size).count();
        assert!((9_500..10_500).contains(&count(10)));
        assert!((79_000..81_000).contains(&count(100)));
        assert!((9_500..10_500).contains(&count(1000)));
        assert_eq!(sizes.max(), 1000);
    }

    #[test]
    fn a_length_belongs_to_its_id() {
        let sizes = Sizes::Uniform(0, 1_000_000);
        assert!((0..100).all(|id| sizes.of(id) == sizes.of(id)));
    }
}
