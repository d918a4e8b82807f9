//! Random bytes and mutated commands from a printed seed: the promises P1 and P2 on input nobody thought of.

use super::{consumed, show};
use crate::text::{parse, parse_keys, parse_line};
use crate::{GetVerb, LINE_LEN_MAX, Parsed, Request};

/// Marsaglia's xorshift64.
pub(super) struct Random(u64);

impl Random {
    /// Seeded by `KETCH_SEED`, or else by the clock; the seed is printed, which a failing test shows.
    pub(super) fn new() -> Self {
        let seed = match std::env::var("KETCH_SEED") {
            Ok(seed) => seed.parse().expect("KETCH_SEED is a decimal number"),
            Err(_) => {
                let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                clock.map_or(1, |since| since.as_nanos() as u64)
            }
        };
        println!("repeat this run with KETCH_SEED={seed}");
        Random(seed | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Lines that cover every command, for mutation.
const LINES: &[&str] = &[
    "get k",
    "gets a bb ccc",
    "gat 30 k",
    "gats -1 a b",
    "set k 1 2 3",
    "set k 4294967295 123456789 1234567890",
    "set k 1 2 3 noreply",
    "add k 1 2 3",
    "replace k 1 2 3",
    "append k 0 0 10",
    "prepend k 0 0 10",
    "cas k 1 2 3 4 noreply",
    "delete k 0 noreply",
    "incr k 18446744073709551615",
    "decr k 1",
    "touch k 30",
    "mg k",
    "mg k v t f",
    "mg Zm9v b c f h k l N30 Oabc q R30 s t T30 u v E5",
    "ms k 10 b c C1 E2 F3 I k MA N4 Oabc q s T5",
    "md k b C1 E2 I k Oabc q T30 x",
    "ma k b C1 c D2 E3 J4 k M- N5 Oabc q t T6 v",
    "me Zm9v b",
    "mn",
    "flush_all 10 noreply",
    "lru_crawler metadump all",
    "GET / HTTP/1.1",
];

/// What the promises say about one buffer.
fn check_promises(buf: &[u8]) {
    let whole = parse(buf);
    assert_eq!(whole, parse_line(buf), "Pl1: {}", buf.escape_ascii());
    match whole {
        Parsed::Complete { .. } | Parsed::Invalid { .. } => {
            assert!(
                (1..=buf.len()).contains(&consumed(whole)),
                "{}",
                buf.escape_ascii()
            );
        }
        Parsed::Incomplete => assert!(buf.len() <= LINE_LEN_MAX && !buf.contains(&b'\n')),
        Parsed::HangUp => {}
    }
    if let Parsed::Complete {
        request: Request::Get(get),
        ..
    } = whole
    {
        assert!(get.keys.iter().all(|key| (1..=250).contains(&key.len())));
    }
    let first_line = buf.iter().position(|&b| b == b'\n').unwrap_or(buf.len());
    let list = buf.starts_with(b"get") || buf.starts_with(b"gat");
    let pieces = first_line > LINE_LEN_MAX && list;
    if !pieces {
        for cut in 0..buf.len() {
            let part = parse(&buf[..cut]);
            assert!(
                part == Parsed::Incomplete || part == whole,
                "{} cut at {cut}: {}",
                buf.escape_ascii(),
                show(part)
            );
        }
    }
    for verb in [GetVerb::GET, GetVerb::GETS] {
        let parsed = parse_keys(verb, buf.contains(&b'a'), buf);
        match parsed {
            Parsed::Incomplete => assert!(buf.len() <= LINE_LEN_MAX && !buf.contains(&b'\n')),
            Parsed::HangUp => panic!("a key list is never hung up on"),
            _ => assert!((1..=buf.len()).contains(&consumed(parsed))),
        }
    }
}

#[test]
fn random_bytes() {
    let mut random = Random::new();
    for _ in 0..3000 {
        let len = random.below(200);
        let buf: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        check_promises(&buf);
    }
}

#[test]
fn random_words() {
    const BYTES: &[u8] = b"  \r\nabgkmsv0159-=CDEFIJLMNOPRSTZ\x00\x7f\xff";
    const NAMES: &[&str] = &[
        "get ", "gets ", "set ", "cas ", "mg ", "ms ", "ma ", "md ", "me ", "",
    ];
    let mut random = Random::new();
    for _ in 0..3000 {
        let mut buf = random.pick(NAMES).as_bytes().to_vec();
        let len = random.below(100);
        buf.extend((0..len).map(|_| random.pick(BYTES)));
        check_promises(&buf);
    }
}

#[test]
fn mutated_commands() {
    let mut random = Random::new();
    for _ in 0..5000 {
        let mut buf = Vec::new();
        for _ in 0..=random.below(3) {
            buf.extend_from_slice(random.pick(LINES).as_bytes());
            buf.extend_from_slice(random.pick(&[&b"\r\n"[..], b"\n"]));
        }
        for _ in 0..random.below(4) {
            let at = random.below(buf.len());
            match random.below(4) {
                0 => buf[at] = random.next() as u8,
                1 => buf.insert(at, random.pick(b" \r\n-09kT\xff")),
                2 => drop(buf.remove(at)),
                _ => {
                    // A word repeated until it outgrows a key, a line or neither.
                    let part = buf[at..].to_vec();
                    let times = random.pick(&[2, 10, 300]);
                    buf.splice(at..at, part.repeat(times).into_iter().take(5000));
                }
            }
            if buf.is_empty() {
                break;
            }
        }
        buf.truncate(3000);
        check_promises(&buf);
    }
}

#[test]
fn long_lines() {
    let mut random = Random::new();
    for _ in 0..60 {
        let mut buf = random.pick(LINES).as_bytes().to_vec();
        let end = LINE_LEN_MAX - 3 + random.below(6);
        let filler = random.pick(&[" ", "x", " x", " noreply", "\r"]);
        while buf.len() < end {
            buf.extend_from_slice(filler.as_bytes());
        }
        buf.truncate(end);
        buf.extend_from_slice(random.pick(&[&b"\r\n"[..], b"\n", b""]));
        check_promises(&buf);
    }
}
