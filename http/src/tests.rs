//! Vectors, each fed whole, split at each byte, and in a row; and bytes that nobody would send.

use crate::{Decoder, Event, Limits, Method, Refusal, Request};

const LIMITS: Limits = Limits {
    head_bytes: 1024,
    body_bytes: 100,
};

/// What pieces become.
fn events<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Vec<Event> {
    let mut decoder = Decoder::new(LIMITS);
    let mut events = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            let fed = decoder.feed(piece);
            assert!(fed.event.is_some() || fed.consumed == piece.len());
            piece = &piece[fed.consumed..];
            events.extend(fed.event);
        }
    }
    events
}

fn whole(bytes: &[u8]) -> Vec<Event> {
    events([bytes])
}

fn request(bytes: &str) -> Request {
    match whole(bytes.as_bytes()).pop() {
        Some(Event::Request(request)) => request,
        other => panic!("{bytes:?}: {other:?}"),
    }
}

fn refusal(bytes: &str) -> Refusal {
    match whole(bytes.as_bytes()).pop() {
        Some(Event::Refused(refusal)) => refusal,
        other => panic!("{bytes:?}: {other:?}"),
    }
}

const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n\r\nGET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "PUT /set HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /set HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /set HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    "PUT /k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
    "PUT /k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n000a \r\n0123456789\r\n0\r\nA: b\r\n\r\n",
    "DELETE /delete?key=a%20b HTTP/1.1\r\nhost:a\r\nConnection: close\r\n\r\n",
    "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://host:80/p?q=1 HTTP/1.1\r\nHost: host\r\n\r\n",
];

const BAD: &[(&str, u16)] = &[
    ("\0\0\0\0\n\n", 400),
    ("GET\r\n\r\n", 400),
    ("GET / \r\n\r\n", 400),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("get a\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        400,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        400,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
        400,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        400,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n",
        413,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n",
        413,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        413,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    ("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        501,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nExpect: the-worst\r\n\r\n",
        417,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n",
        413,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        413,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        400,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n",
        400,
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
        400,
    ),
];

#[test]
fn the_same_however_it_is_cut() {
    let bad = BAD.iter().map(|(bytes, _)| bytes);
    for bytes in GOOD.iter().chain(bad) {
        let bytes = bytes.as_bytes();
        let expected = whole(bytes);
        assert!(!expected.is_empty(), "{bytes:?}");
        for at in 1..bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(events([first, second]), expected, "cut at {at}");
        }
        assert_eq!(events(bytes.chunks(1)), expected, "byte by byte");
    }
}

#[test]
fn requests_in_a_row_are_those_one_by_one() {
    let mut decoder = Decoder::new(LIMITS);
    let one_by_one: Vec<Event> = GOOD
        .iter()
        .flat_map(|bytes| whole(bytes.as_bytes()))
        .collect();
    let row = GOOD.concat();
    assert_eq!(whole(row.as_bytes()), one_by_one);
    assert_eq!(events(row.as_bytes().chunks(7)), one_by_one);
    decoder.feed(row.as_bytes());
}

#[test]
fn what_is_bad_is_refused_with_its_status() {
    for &(bytes, status) in BAD {
        let refusal = refusal(bytes);
        assert_eq!(refusal.status(), status, "{bytes:?}: {}", refusal.reason());
    }
}

#[test]
fn a_request_says_what_was_asked() {
    let get = request("GET /get?key=a%20b+c&x=&key=2 HTTP/1.1\r\nHost: a\r\nACCEPT:  x/y \r\n\r\n");
    assert_eq!((get.method, &get.path[..]), (Method::Get, "/get"));
    assert_eq!(get.parameter("key"), Ok(Some(b"a b c".to_vec())));
    assert_eq!(get.parameter("x"), Ok(Some(vec![])));
    assert_eq!(get.parameter("y"), Ok(None));
    assert_eq!(get.header("accept"), Some(b"x/y".as_slice()));
    assert!(get.keep_alive);
    let bad = request("GET /get?key=%zz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(bad.parameter("key").is_err());
    let chunked = request(GOOD[7]);
    assert_eq!(chunked.body, b"hello world");
    let absolute = request(GOOD[11]);
    assert_eq!((&absolute.path[..], &absolute.query[..]), ("/p", "q=1"));
    assert!(!request(GOOD[9]).keep_alive);
    assert!(!request(GOOD[2]).keep_alive);
    let kept = request("GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n");
    assert!(kept.keep_alive);
}

#[test]
fn dots_are_seen_however_they_are_written() {
    for (path, dots) in [
        ("/a/../b", true),
        ("/..", true),
        ("/%2e%2E/x", true),
        ("/a%2f..%2fb", true),
        ("/a\\..", true),
        ("/.", true),
        ("/a..b", false),
        ("/...", false),
        ("/a.b/", false),
    ] {
        let request = request(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(request.has_dot_segments(), dots, "{path}");
    }
}

#[test]
fn whoever_waits_is_told_to_go_on() {
    assert_eq!(whole(GOOD[5].as_bytes())[0], Event::Continue);
    // With nothing to send there is nothing to wait for.
    assert_eq!(whole(GOOD[6].as_bytes()).len(), 1);
}

#[test]
fn a_head_is_bounded_however_long_it_goes_on() {
    let mut decoder = Decoder::new(LIMITS);
    let mut refused = 0;
    decoder.feed(b"GET / HTTP/1.1\r\n");
    for _ in 0..1 << 20 {
        match decoder.feed(b"A").event {
            Some(Event::Refused(Refusal::HeadTooLarge)) => refused += 1,
            event => assert_eq!(event, None),
        }
    }
    assert_eq!(refused, 1);
    // As many short headers as fit are still too many.
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A:b\r\n".repeat(100));
    assert!(many.len() < LIMITS.head_bytes);
    assert_eq!(refusal(&many), Refusal::HeadTooLarge);
    // Neither do trailers or chunk extensions go on for ever.
    let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailers = format!("{chunked}0\r\n{}", "Abc: def\r\n".repeat(200));
    assert_eq!(refusal(&trailers), Refusal::HeadTooLarge);
    let extension = format!("{chunked}1;{}\r\n", "x".repeat(1000));
    assert_eq!(refusal(&extension).status(), 400);
}

#[test]
fn an_idle_decoder_knows_that_it_is() {
    let mut decoder = Decoder::new(LIMITS);
    assert!(decoder.is_idle());
    decoder.feed(b"\r\n");
    assert!(decoder.is_idle());
    decoder.feed(b"G");
    assert!(!decoder.is_idle());
    decoder.feed(b"ET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(decoder.is_idle());
}

/// Vectors with bytes changed, cut out, doubled, and cut into random pieces: no panic, the same events in any pieces, and
/// a body never above the limit.
#[test]
fn bytes_at_random() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below
    };
    let all: Vec<&str> = GOOD
        .iter()
        .copied()
        .chain(BAD.iter().map(|&(bytes, _)| bytes))
        .collect();
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..=random(3) {
            bytes.extend_from_slice(all[random(all.len())].as_bytes());
        }
        for _ in 0..random(6) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = b"\r\n :;%\0\xff0aZ"[random(11)],
                1 => _ = bytes.remove(at),
                2 => bytes.insert(at, bytes[at]),
                _ => bytes[at] = random(256) as u8,
            }
            if bytes.is_empty() {
                bytes.push(b'G');
            }
        }
        let expected = whole(&bytes);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + random(rest.len().min(40)));
            pieces.push(piece);
            rest = after;
        }
        assert_eq!(
            events(pieces),
            expected,
            "{:?}",
            String::from_utf8_lossy(&bytes)
        );
        for event in expected {
            if let Event::Request(request) = event {
                assert!(request.body.len() <= LIMITS.body_bytes);
                let _ = (request.parameter("key"), request.has_dot_segments());
            }
        }
    }
}
