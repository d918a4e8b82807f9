//! MD5 of several short messages side by side (RFC 1321).
//!
//! Each of its 64 steps needs what the one before has made, so a processor waits most of the time while it hashes one message. Those of
//! several messages have nothing to do with each other:
//!
//! ```text
//!  words[3]:   | a's 4th word | b's | c's | d's | e's | f's | g's | h's |     one step works on all of them at once
//! ```
//!
//! Md1. A message that is hashed here fits into one block with its padding.

/// How many are hashed at once.
pub(super) const LANES: usize = 8;
/// The longest message, in bytes: of a block of 64, one byte ends it and eight say how long it is.
pub(super) const LONGEST: usize = 55;

const BLOCK: usize = 64;

/// The same word of each message.
type Lanes = [u32; LANES];

/// The first digits behind the point of the sines of 1 to 64.
const SINES: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

/// The digests as four numbers each, little-endian. What stands in `messages` beyond the last one wanted may be anything; each is at most
/// [`LONGEST`] long.
pub(super) fn md5(messages: [&[u8]; LANES]) -> [[u32; 4]; LANES] {
    let mut words = [[0; LANES]; BLOCK / 4];
    for (lane, message) in messages.into_iter().enumerate() {
        let mut block = [0; BLOCK];
        block[..message.len()].copy_from_slice(message);
        block[message.len()] = 0x80;
        block[BLOCK - 8..].copy_from_slice(&(message.len() as u64 * 8).to_le_bytes());
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            word[lane] = u32::from_le_bytes(bytes.try_into().expect("chunks are of this size"));
        }
    }
    let digest = compress(&words);
    std::array::from_fn(|lane| digest.map(|part| part[lane]))
}

fn compress(words: &[Lanes; BLOCK / 4]) -> [Lanes; 4] {
    const BEGIN: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let mut digest = BEGIN.map(|part| [part; LANES]);
    // Four steps bring each of the four parts back to its name. One loop goes over the lanes, from memory to memory, as the compiler
    // turns it into vectors: it does not where each step makes new lanes, which costs three times as much.
    macro_rules! round {
        ($from:literal, $mix:expr, $word:expr, $turns:expr) => {
            for at in (0..16).step_by(4) {
                let words = [0, 1, 2, 3].map(|step| &words[$word(at + step) % 16]);
                let sines = [0, 1, 2, 3].map(|step| SINES[$from + at + step]);
                let [of_a, of_b, of_c, of_d] = &mut digest;
                for lane in 0..LANES {
                    let [one, two, three, four] = words.map(|word| word[lane]);
                    let (a, b, c, d) = (of_a[lane], of_b[lane], of_c[lane], of_d[lane]);
                    let a = step(a, b, $mix(b, c, d), (one, sines[0]), $turns[0]);
                    let d = step(d, a, $mix(a, b, c), (two, sines[1]), $turns[1]);
                    let c = step(c, d, $mix(d, a, b), (three, sines[2]), $turns[2]);
                    let b = step(b, c, $mix(c, d, a), (four, sines[3]), $turns[3]);
                    (of_a[lane], of_b[lane], of_c[lane], of_d[lane]) = (a, b, c, d);
                }
            }
        };
    }
    round!(
        0,
        |x: u32, y: u32, z: u32| z ^ (x & (y ^ z)),
        |i| i,
        [7, 12, 17, 22]
    );
    round!(
        16,
        |x: u32, y: u32, z: u32| y ^ (z & (x ^ y)),
        |i| 5 * i + 1,
        [5, 9, 14, 20]
    );
    round!(
        32,
        |x: u32, y: u32, z: u32| x ^ y ^ z,
        |i| 3 * i + 5,
        [4, 11, 16, 23]
    );
    round!(
        48,
        |x: u32, y: u32, z: u32| y ^ (x | !z),
        |i| 7 * i,
        [6, 10, 15, 21]
    );
    for (part, begin) in digest.iter_mut().zip(BEGIN) {
        *part = part.map(|lane| lane.wrapping_add(begin));
    }
    digest
}

/// `first` of the four parts, as one step changes it: `next` is the part after it, `mixed` what the other three make.
#[inline(always)]
fn step(first: u32, next: u32, mixed: u32, (word, sine): (u32, u32), turns: u32) -> u32 {
    let sum = first.wrapping_add(mixed).wrapping_add(word);
    sum.wrapping_add(sine).rotate_left(turns).wrapping_add(next)
}
