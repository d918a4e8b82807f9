//! Workers that speak to one server: each knows what its keys hold, and asks in text, meta or binary, many requests at once.

use std::io;
use std::time::Duration;

use ketch_testing::Rng;
use ketch_testing::packet::{op, packet, store};

use crate::Run;
use crate::truth::{State, Truth, value};
use crate::wire::{Wire, is_end};

/// The values of three workers are more than a server holds.
const KEYS: usize = 20_000;
/// Half of all requests are for so many of them.
const HOT: u64 = 200;
const COUNTERS: usize = 20;
const BATCH: u64 = 24;

#[derive(Clone, Copy, PartialEq)]
pub enum Tongue {
    Text,
    Meta,
    Binary,
}

#[derive(Debug)]
pub enum Ask {
    Get,
    Set(u64),
    Delete,
    Touch,
    Incr,
    /// A counter that is to begin at this number.
    Begin(u64),
}

/// What came back for one request.
enum Answer {
    Value(Vec<u8>),
    Number(u64),
    Done,
    Missing,
    /// There was something already.
    Exists,
    /// The server took no value for want of memory, and has none of the key now.
    Refused,
    /// A proxy whose nodes did not answer: it was done or not.
    Failed,
}

/// Runs until the end; counts what it does and reports each value that is not right.
pub fn work(run: &Run, port: u16, tongue: Tongue, number: usize) {
    let mut rng = Rng::new(number as u64 + 1);
    let mut keys: Vec<Truth> = (0..KEYS)
        .map(|key| Truth::new(format!("w{number}:{key}")))
        .chain((0..COUNTERS).map(|key| Truth::new(format!("n{number}:{key}"))))
        .collect();
    let mut wire = None;
    while !run.is_over() {
        let conn = match &mut wire {
            Some(conn) => conn,
            None => match Wire::connect(port) {
                Ok(conn) => wire.insert(conn),
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
            },
        };
        match batch(run, conn, tongue, &mut keys, &mut rng) {
            Ok(()) => run.pause(),
            Err(error) => {
                if !is_end(&error) {
                    run.fault(format!("worker {number} at port {port}: {error}"));
                }
                run.broken();
                wire = None;
            }
        }
        // Servers that restart meet connections that begin anew.
        if rng.one_in(500) {
            wire = None;
        }
    }
}

fn batch(
    run: &Run,
    conn: &mut Wire,
    tongue: Tongue,
    keys: &mut [Truth],
    rng: &mut Rng,
) -> io::Result<()> {
    let mut asks = Vec::new();
    let mut bytes = Vec::new();
    for _ in 0..=rng.below(BATCH) {
        let at = match rng.below(10) {
            0 => KEYS + rng.below(COUNTERS as u64) as usize,
            1..=5 => rng.below(HOT) as usize,
            _ => rng.below(KEYS as u64) as usize,
        };
        // Of one key once in a batch: the truth follows the replies.
        if asks.iter().any(|(asked, _)| *asked == at) {
            continue;
        }
        let key = &mut keys[at];
        let ask = if at >= KEYS {
            match key.possible().next() {
                Some(_) if !key.lapsed => Ask::Incr,
                _ => Ask::Begin(rng.below(1000)),
            }
        } else {
            match rng.below(10) {
                0..=2 => Ask::Set(key.next()),
                3 => Ask::Delete,
                4 => Ask::Touch,
                _ => Ask::Get,
            }
        };
        write(&mut bytes, tongue, &key.name, &ask, asks.len() as u32);
        match ask {
            Ask::Set(version) | Ask::Begin(version) => key.asked(Some(version)),
            Ask::Delete => key.asked(None),
            Ask::Incr => {
                let next: Vec<State> = key.possible().map(|number| Some(number + 1)).collect();
                next.into_iter().for_each(|state| key.asked(state));
            }
            Ask::Get | Ask::Touch => {}
        }
        asks.push((at, ask));
    }
    conn.send(&bytes)?;
    for (at, ask) in &asks {
        let answer = read(conn, tongue)?;
        run.count(1);
        judge(run, &mut keys[*at], ask, answer);
    }
    Ok(())
}

fn judge(run: &Run, key: &mut Truth, ask: &Ask, answer: Answer) {
    match (ask, answer) {
        (Ask::Get, Answer::Value(bytes)) => {
            if let Err(why) = key.allows(&bytes) {
                run.fault(why);
            }
        }
        (Ask::Get | Ask::Touch, Answer::Missing) | (Ask::Touch, Answer::Done) => {}
        (Ask::Set(version) | Ask::Begin(version), Answer::Done) => key.is(Some(*version)),
        (Ask::Set(_), Answer::Refused) => {
            run.refused();
            key.is(None);
        }
        (ask, Answer::Failed) => run.failed(&key.name, ask),
        (Ask::Delete, Answer::Done | Answer::Missing) => key.is(None),
        (Ask::Incr, Answer::Number(number)) => {
            if !key.possible().any(|known| known == number) {
                let known: Vec<u64> = key.possible().collect();
                run.fault(format!(
                    "{}: counted to {number}, not one of {known:?}",
                    key.name
                ));
            }
            key.is(Some(number));
        }
        (Ask::Incr, Answer::Missing) => key.lapsed = true,
        (Ask::Begin(_), Answer::Exists) => key.lapsed = false,
        (_, _) => run.fault(format!(
            "{}: a reply that does not belong to its request",
            key.name
        )),
    }
}

fn write(bytes: &mut Vec<u8>, tongue: Tongue, key: &str, ask: &Ask, opaque: u32) {
    let line = |text: String| [text.as_bytes(), b"\r\n"].concat();
    let block = |head: String, value: &[u8]| [head.as_bytes(), b"\r\n", value, b"\r\n"].concat();
    let request = match (tongue, ask) {
        (Tongue::Text, Ask::Get) => line(format!("get {key}")),
        (Tongue::Meta, Ask::Get) => line(format!("mg {key} v t")),
        (Tongue::Binary, Ask::Get) => packet(op::GET, key, "").opaque(opaque).bytes(),
        (Tongue::Text, Ask::Delete) => line(format!("delete {key}")),
        (Tongue::Meta, Ask::Delete) => line(format!("md {key}")),
        (Tongue::Binary, Ask::Delete) => packet(op::DELETE, key, "").opaque(opaque).bytes(),
        (Tongue::Text, Ask::Touch) => line(format!("touch {key} 3600")),
        (Tongue::Meta, Ask::Touch) => line(format!("mg {key} T3600")),
        (Tongue::Binary, Ask::Touch) => packet(op::TOUCH, key, "")
            .numbers(&[3600])
            .opaque(opaque)
            .bytes(),
        (Tongue::Text, Ask::Incr) => line(format!("incr {key} 1")),
        (Tongue::Meta, Ask::Incr) => line(format!("ma {key} v")),
        (Tongue::Binary, Ask::Incr) => {
            let count = ketch_testing::packet::count(op::INCR, key, 1, 0, u32::MAX);
            count.opaque(opaque).bytes()
        }
        (_, Ask::Set(version)) => {
            let value = value(key, *version);
            match tongue {
                Tongue::Text => block(format!("set {key} 7 3600 {}", value.len()), &value),
                Tongue::Meta => block(format!("ms {key} {} T3600", value.len()), &value),
                Tongue::Binary => store(op::SET, key, value).opaque(opaque).bytes(),
            }
        }
        (_, Ask::Begin(number)) => {
            let number = number.to_string();
            match tongue {
                Tongue::Text => block(format!("add {key} 0 0 {}", number.len()), number.as_bytes()),
                Tongue::Meta => block(format!("ms {key} {} ME", number.len()), number.as_bytes()),
                Tongue::Binary => store(op::ADD, key, number).opaque(opaque).bytes(),
            }
        }
    };
    bytes.extend_from_slice(&request);
}

fn wrong(what: impl std::fmt::Debug) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {what:?}"))
}

fn read(conn: &mut Wire, tongue: Tongue) -> io::Result<Answer> {
    if tongue == Tongue::Binary {
        return read_packet(conn);
    }
    let line = conn.line()?;
    let words: Vec<&str> = line.split(' ').collect();
    let number = |word: &str| word.parse::<usize>().map_err(|_| wrong(&line));
    Ok(match words[..] {
        ["VALUE", _, _, len] => {
            let value = conn.block(number(len)?)?;
            match conn.line()?.as_str() {
                "END" => Answer::Value(value),
                other => return Err(wrong(other)),
            }
        }
        ["VA", len, ..] => {
            let value = conn.block(number(len)?)?;
            let count = std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse().ok());
            match count {
                // Values of other keys begin with their key.
                Some(count) => Answer::Number(count),
                None => Answer::Value(value),
            }
        }
        ["END" | "EN" | "NOT_FOUND" | "NF"] => Answer::Missing,
        ["STORED" | "DELETED" | "TOUCHED" | "HD", ..] => Answer::Done,
        ["NOT_STORED" | "NS", ..] => Answer::Exists,
        ["SERVER_ERROR", "out", ..] => Answer::Refused,
        ["SERVER_ERROR", "backend", ..] => Answer::Failed,
        [digits] => Answer::Number(digits.parse().map_err(|_| wrong(&line))?),
        _ => return Err(wrong(&line)),
    })
}

fn read_packet(conn: &mut Wire) -> io::Result<Answer> {
    let head = conn.take(24)?;
    let number = |at: std::ops::Range<usize>| {
        head[at]
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    if head[0] != 0x81 {
        return Err(wrong(&head));
    }
    let body = conn.take(number(8..12))?;
    let value = &body[number(2..4) + usize::from(head[4])..];
    Ok(match (head[1], number(6..8)) {
        (op::GET, 0) => Answer::Value(value.to_vec()),
        (op::INCR, 0) => Answer::Number(
            value
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        ),
        (_, 0) => Answer::Done,
        (_, 1) => Answer::Missing,
        (_, 2) => Answer::Exists,
        (_, 0x82) => Answer::Refused,
        (_, 0x84..0x87) => Answer::Failed,
        (opcode, status) => return Err(wrong((opcode, status))),
    })
}
