//! Bytes that make no sense, by the thousand: the server stays, and answers a fresh client right after each batch.
//!
//! Each stream comes from a printed seed (`KETCH_SEED=n` repeats it). It is sent in random pieces, ended, and
//! its answers are read until the server hangs up, which it must.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ketch_testing::{PATIENCE, Rng, Server, escape, wait_within};

/// Lines that are right, to be spoiled. `watch` is left out: such a connection notices the end of its input late.
const CORPUS: &[&str] = &[
    "get a\r\n",
    "gets a b c\r\n",
    "get a b c d e f g h i j k l m n o p q r s t u v w x y z aa bb cc\r\n",
    "gat 100 a b\r\n",
    "gats 0 a\r\n",
    "set a 0 0 5\r\nhello\r\n",
    "set b 4294967295 100 0\r\n\r\n",
    "set c 0 -1 3 noreply\r\nabc\r\n",
    "add d 1 2592000 10\r\n0123456789\r\n",
    "replace a 0 0 3\r\nxyz\r\n",
    "append a 0 0 3\r\n+++\r\n",
    "prepend a 0 0 3 noreply\r\n---\r\n",
    "cas a 0 0 3 12345\r\nabc\r\n",
    "cas a 0 0 3 1 noreply\r\nabc\r\n",
    "set n 0 0 2\r\n10\r\n",
    "incr n 1\r\n",
    "decr n 18446744073709551615\r\n",
    "incr n 5 noreply\r\n",
    "touch a 100\r\n",
    "touch a 0 noreply\r\n",
    "delete a\r\n",
    "delete b noreply\r\n",
    "flush_all\r\n",
    "flush_all 0 noreply\r\n",
    "version\r\n",
    "verbosity 0\r\n",
    "stats\r\n",
    "stats settings\r\n",
    "stats items\r\n",
    "stats slabs\r\n",
    "stats conns\r\n",
    "stats sizes\r\n",
    "stats detail on\r\n",
    "stats detail dump\r\n",
    "stats cachedump 1 10\r\n",
    "stats reset\r\n",
    "mn\r\n",
    "mg a\r\n",
    "mg a v s t c f l h k O123 q\r\n",
    "mg Zm9v b v k\r\n",
    "mg a N30 R10 T50 v t\r\n",
    "ms a 5\r\nhello\r\n",
    "ms a 5 T100 F7 c k O9 q\r\nhello\r\n",
    "ms Zm9v 2 b MA N20\r\nxx\r\n",
    "ms a 3 C100 I MS\r\nabc\r\n",
    "ms a 3 E5000\r\nabc\r\n",
    "md a\r\n",
    "md a I T30 q\r\n",
    "md a x C5 O1 k\r\n",
    "ma n\r\n",
    "ma n N0 J13 D2 MD T10 v t c k q\r\n",
    "me a\r\n",
    "me Zm9v b\r\n",
    "lru_crawler metadump all\r\n",
    "lru_crawler mgdump all\r\n",
    "lru_crawler crawl all\r\n",
    "lru tune 10 25 0.1 2.0\r\n",
    "slabs reassign 1 2\r\n",
    "slabs automove 1\r\n",
    "cache_memlimit 64\r\n",
    "quit\r\n",
    // A few of the binary protocol: get, set with its extras, noop, and a header that promises too much.
    "\u{80}",
];

const BINARY: &[&[u8]] = &[
    b"\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00a",
    b"\x80\x01\x00\x01\x08\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
      \x00\x00\x00\x00\x00\x00\x00\x00ax",
    b"\x80\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x80\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x80\x05\x00\x01\x14\x00\x00\x00\x00\x00\x00\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
      \x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00n",
    b"\x80\x01\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "250",
    "251",
    "2047",
    "2048",
    "65535",
    "65536",
    "1048575",
    "1048576",
    "1048577",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "-9223372036854775808",
    "1e9",
    "0x10",
    "",
    "NaN",
];

const LETTERS: &[u8] = b" \r\n0189agmsetdqvNTkO-\x00\x80\xff";

/// One stream: lines of the corpus, most of them spoiled.
fn stream(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    match rng.below(12) {
        0 => {
            // Noise.
            let len = rng.below(3000) as usize;
            bytes = rng.bytes(len);
        }
        1 => {
            // Noise of letters that occur in commands.
            for _ in 0..rng.below(2000) {
                bytes.push(LETTERS[rng.below(LETTERS.len() as u64) as usize]);
            }
        }
        2 => {
            for _ in 0..1 + rng.below(10) {
                bytes.extend_from_slice(rng.pick(BINARY));
            }
            spoil(rng, &mut bytes);
        }
        _ => {
            for _ in 0..1 + rng.below(30) {
                let mut line = rng.pick(CORPUS).as_bytes().to_vec();
                if rng.one_in(3) {
                    spoil(rng, &mut line);
                }
                if rng.one_in(5) {
                    line = other_number(rng, &line);
                }
                bytes.extend_from_slice(&line);
            }
        }
    }
    bytes
}

/// Changes, cuts, doubles or inserts a few bytes.
fn spoil(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        let to = (at + rng.below(8) as usize).min(bytes.len());
        match rng.below(7) {
            0 if at < bytes.len() => bytes[at] = rng.bits() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 => drop(bytes.drain(at..to)),
            3 => bytes.insert(at, b" \r\n\x00"[rng.below(4) as usize]),
            4 => {
                let part = bytes[at..to].to_vec();
                bytes.splice(at..at, part);
            }
            5 => bytes.truncate(at),
            _ => {
                let len = rng.below(300) as usize;
                bytes.splice(at..at, vec![b'k'; len]);
            }
        }
    }
}

/// Puts a number of another kind in the place of one.
fn other_number(rng: &mut Rng, line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line).into_owned();
    let words: Vec<&str> = text.split(' ').collect();
    let at = rng.below(words.len() as u64) as usize;
    let mut words: Vec<String> = words.into_iter().map(str::to_string).collect();
    if at > 0 {
        let letter: String = words[at]
            .chars()
            .take_while(|c| c.is_ascii_alphabetic())
            .collect();
        let end = if words[at].contains("\r\n") {
            "\r\n"
        } else {
            ""
        };
        words[at] = format!("{letter}{}{end}", rng.pick(NUMBERS));
    }
    words.join(" ").into_bytes()
}

/// What the server counts as connections when there is one client.
fn connections_alone(server: &Server) -> u64 {
    server.connect().stat("curr_connections")
}

#[track_caller]
fn answers_right(server: &Server, round: u64, alone: u64) {
    let mut conn = server.connect();
    // Streams that were cut may still be at work, and one of them may have said `flush_all 2`.
    wait_within("no other client is left", PATIENCE, || {
        conn.stat("curr_connections") == alone
    });
    conn.round("flush_all\r\n", "OK\r\n");
    let key = format!("fresh{round}");
    conn.round(
        format!("set {key} 5 0 9\r\nvalue{:04}\r\n", round % 10_000),
        "STORED\r\n",
    );
    conn.round(
        format!("get {key}\r\nmg {key} v\r\ndelete {key}\r\n"),
        format!(
            "VALUE {key} 5 9\r\nvalue{0:04}\r\nEND\r\nVA 9\r\nvalue{0:04}\r\nDELETED\r\n",
            round % 10_000
        ),
    );
    conn.expect_nothing();
}

#[test]
fn no_stream_of_bytes_brings_it_down() {
    let mut server = Server::start(&["-m", "64"]);
    let alone = connections_alone(&server);
    let mut rng = Rng::from_env("no_stream_of_bytes_brings_it_down");
    for round in 0..200 {
        for _ in 0..50 {
            let bytes = stream(&mut rng);
            let mut conn = server.connect();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let len = 1 + rng.below(rest.len() as u64) as usize;
                // The server may have hung up by now.
                if conn.try_send(&rest[..len]).is_err() {
                    break;
                }
                rest = &rest[len..];
            }
            match rng.below(4) {
                0 => conn.cut(),
                1 => {}
                _ => {
                    conn.end_of_input();
                    let closed = catch_unwind(AssertUnwindSafe(|| conn.read_to_end()));
                    assert!(
                        closed.is_ok(),
                        "round {round}: not closed after {}",
                        escape(&bytes)
                    );
                }
            }
        }
        assert!(server.is_alive(), "the server ended in round {round}");
        answers_right(&server, round, alone);
    }
    let mut conn = server.connect();
    wait_within(
        "every connection is closed",
        Duration::from_secs(10),
        || conn.stat("curr_connections") <= 4,
    );
    let rss = server.rss_kb();
    assert!(rss < (64 + 6 + 40) * 1024, "{rss} KB after nonsense");
}

/// Long streams over few connections, so that one bad line meets the next.
#[test]
fn no_long_stream_brings_it_down() {
    let mut server = Server::start(&["-m", "64"]);
    let alone = connections_alone(&server);
    let mut rng = Rng::from_env("no_long_stream_brings_it_down");
    for round in 0..60 {
        let mut conn = server.connect();
        conn.expect_nothing();
        let mut reader_gone = false;
        for _ in 0..40 {
            let bytes = stream(&mut rng);
            if conn.try_send(&bytes).is_err() {
                reader_gone = true;
                break;
            }
        }
        if !reader_gone && rng.one_in(2) {
            conn.end_of_input();
            conn.read_to_end();
        }
        drop(conn);
        assert!(server.is_alive(), "the server ended in round {round}");
        answers_right(&server, round, alone);
    }
}

/// Many bad clients at once, while a good one is served without a flaw.
#[test]
fn nonsense_beside_sense() {
    let server = Server::start(&["-m", "64"]);
    let alone = connections_alone(&server);
    let seed = Rng::from_env("nonsense_beside_sense").bits();
    std::thread::scope(|scope| {
        for id in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut rng = Rng::new(seed.wrapping_add(id));
                for _ in 0..200 {
                    let mut conn = server.connect();
                    let _ = conn.try_send(stream(&mut rng));
                }
            });
        }
        let mut conn = server.connect();
        for i in 0..3000 {
            let key = format!("good{}", i % 50);
            // The others may flush at any time, but never mix anything up.
            conn.round(format!("set {key} 0 0 6\r\nv{i:05}\r\n"), "STORED\r\n");
            if let Some(value) = conn.get(&key) {
                assert_eq!(value, format!("v{i:05}").as_bytes());
            }
        }
    });
    answers_right(&server, 0, alone);
}
