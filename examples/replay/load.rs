//! What is replayed: who is asked for, and how large each value is.

use std::io::Read;
use std::ops::Range;
use std::process::Command;

use super::families;

/// The largest over the smallest of mixed sizes.
const MIXED_FACTOR: f64 = 80.0;

/// A number from 0 to 1 that depends on `n` alone.
pub fn fraction(n: u64) -> f64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

/// Requests in their order, each an object's id.
pub struct Trace {
    /// For people.
    pub name: String,
    pub requests: Vec<u32>,
    /// Whether an object with this id is asked for.
    there: Vec<bool>,
}

impl Trace {
    /// A file with an id a line, or drawn: `zipf:OBJECTS:THETA:REQUESTS`, `family:NAME`.
    pub fn read(source: &str) -> Trace {
        let family = source.strip_prefix("family:");
        let requests = match (source.strip_prefix("zipf:"), family) {
            (Some(numbers), _) => zipf(numbers),
            (None, Some(name)) => families::draw(name),
            (None, None) => read_file(source),
        };
        let last = *requests.iter().max().expect("a trace has requests");
        let mut there = vec![false; last as usize + 1];
        requests.iter().for_each(|&id| there[id as usize] = true);
        let file = source.rsplit('/').next().unwrap_or(source);
        let name = family.unwrap_or_else(|| file.split(['.', ':']).next().unwrap_or(file));
        let name = name.replace(':', "-");
        Trace {
            name,
            requests,
            there,
        }
    }

    /// Different objects.
    fn objects(&self) -> impl Iterator<Item = u32> {
        (0..self.there.len() as u32).filter(|&id| self.there[id as usize])
    }
}

fn read_file(path: &str) -> Vec<u32> {
    let mut text = String::new();
    if path.ends_with(".xz") {
        let xzcat = Command::new("xzcat").arg(path).output();
        text = String::from_utf8(xzcat.expect("xzcat runs").stdout).expect("a trace is text");
    } else {
        let mut file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        file.read_to_string(&mut text).expect("a trace is text");
    }
    let id = |line: &str| line.trim().parse().expect("an object id");
    text.lines().map(id).collect()
}

/// Draws ids, rank r in proportion to 1 / r^theta, the same for the same numbers.
fn zipf(numbers: &str) -> Vec<u32> {
    let usage = "zipf:OBJECTS:THETA:REQUESTS";
    let numbers: Vec<f64> = numbers
        .split(':')
        .map(|n| n.parse().expect(usage))
        .collect();
    let &[objects, theta, requests] = &numbers[..] else {
        panic!("{usage}");
    };
    let mut sum = 0.0;
    let below: Vec<f64> = (1..=objects as u32)
        .map(|rank| {
            sum += f64::from(rank).powf(-theta);
            sum
        })
        .collect();
    let draw = |n| below.partition_point(|&below| below < fraction(n) * sum) as u32;
    (0..requests as u64).map(draw).collect()
}

/// The key of an object in a part of the trace.
pub fn key(part: usize, id: u32) -> String {
    format!("key{part}:{id:08}")
}

/// How large values are.
pub enum Sizes {
    /// As `--sizes` names them.
    Fixed,
    Mixed,
    /// Bytes from the first to the second, log-uniform; a pair for each of so many equal parts of the trace.
    Ranges(Vec<(f64, f64)>),
}

impl Sizes {
    pub fn parse(text: &str) -> Sizes {
        let range = |part: &str| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            (
                low.parse().expect("bytes"),
                high.parse().expect("LOW-HIGH bytes"),
            )
        };
        match text {
            "fixed" => Sizes::Fixed,
            "mixed" => Sizes::Mixed,
            ranges => Sizes::Ranges(ranges.split('/').map(range).collect()),
        }
    }
}

/// A length for each object, in each part of the trace.
pub struct Lens {
    parts: Vec<Vec<u32>>,
    requests: usize,
    /// Keys and values of the first part.
    pub bytes: usize,
}

impl Lens {
    /// Fixed and mixed sizes are scaled so that 5 % of all bytes are `mb` megabytes.
    pub fn new(trace: &Trace, sizes: &Sizes, mb: usize) -> Lens {
        let mixed = |id: u32| MIXED_FACTOR.powf(fraction(u64::from(id)));
        let scale = |sum: f64| (mb << 20) as f64 * 20.0 / sum;
        let all: Range<u32> = 0..trace.there.len() as u32;
        let parts: Vec<Vec<u32>> = match sizes {
            Sizes::Fixed => {
                let len = scale(trace.objects().count() as f64);
                vec![all.map(|_| len as u32).collect()]
            }
            Sizes::Mixed => {
                let scale = scale(trace.objects().map(mixed).sum());
                vec![all.map(|id| (mixed(id) * scale) as u32).collect()]
            }
            Sizes::Ranges(ranges) => {
                let len = |id: u32, low: f64, high: f64| {
                    (low * (high / low).powf(fraction(u64::from(id)))) as u32
                };
                let part =
                    |&(low, high): &(f64, f64)| all.clone().map(|id| len(id, low, high)).collect();
                ranges.iter().map(part).collect()
            }
        };
        let size = |id: u32| parts[0][id as usize] as usize + key(0, id).len();
        let bytes = trace.objects().map(size).sum();
        Lens {
            parts,
            requests: trace.requests.len(),
            bytes,
        }
    }

    /// The part of the trace that request `n` is in.
    pub fn part(&self, n: usize) -> usize {
        n * self.parts.len() / self.requests
    }

    /// The length of an object's value in a part of the trace.
    pub fn of(&self, id: u32, part: usize) -> usize {
        self.parts[part][id as usize] as usize
    }
}
