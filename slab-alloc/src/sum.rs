//! A sum over words, by which bytes that somebody else has changed are told from those that were left.
//!
//! Four lanes, each of which takes every fourth word: a step is one-to-one in the word and in the lane, so that a change of one
//! word always changes the sum. It is made for speed, some bytes a clock tick, and not against who can make files of his own.

const LANES: usize = 4;
const FACTORS: [u64; LANES] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
];

/// The sum of these words, which depends on their order.
#[inline]
pub fn sum_of_words(words: impl IntoIterator<Item = u64>) -> u64 {
    let mut lanes = FACTORS;
    let mut words = words.into_iter();
    let mut count = 0u64;
    'all: loop {
        for lane in &mut lanes {
            let Some(word) = words.next() else { break 'all };
            *lane = (*lane ^ word).wrapping_mul(FACTORS[0]).rotate_left(29);
            count += 1;
        }
    }
    let mut sum = count;
    for (lane, factor) in lanes.into_iter().zip(FACTORS) {
        sum = (sum ^ lane).wrapping_mul(factor);
        sum ^= sum >> 31;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::sum_of_words;

    #[test]
    fn a_change_of_any_bit_changes_the_sum() {
        for len in 0..12 {
            let mut words: Vec<u64> = (0..len).map(|n| n * 77).collect();
            let before = sum_of_words(words.iter().copied());
            for at in 0..words.len() {
                for bit in 0..64 {
                    words[at] ^= 1 << bit;
                    assert_ne!(sum_of_words(words.iter().copied()), before);
                    words[at] ^= 1 << bit;
                }
            }
            words.push(0);
            assert_ne!(sum_of_words(words), before, "one word more");
        }
    }
}
