//! Key lists longer than any buffer, as a connection reads them: the same keys in the end, whatever the cuts.

use super::fuzz::Random;
use super::{check, consumed, show};
use crate::text::{parse, parse_keys};
use crate::{KEY_LEN_MAX, LINE_LEN_MAX, Parsed, Request, Skip};

/// Reads `stream` in random pieces through a buffer and tells what a connection would do: a line per key, `END`, and
/// whatever else is answered. Data blocks are none of its business: there are none here.
fn events(stream: &[u8], buffer_bytes: usize, random: &mut Random) -> Vec<String> {
    let mut events = Vec::new();
    let mut buf: Vec<u8> = Vec::new();
    let mut unread = stream;
    let mut verb = None;
    let mut any = false;
    let mut skip_line = false;
    loop {
        if skip_line {
            let end = buf.iter().position(|&b| b == b'\n');
            buf.drain(..end.map_or(buf.len(), |end| end + 1));
            skip_line = end.is_none();
        }
        let parsed = match verb {
            _ if skip_line => Parsed::Incomplete,
            None => parse(&buf),
            Some(verb) => parse_keys(verb, any, &buf),
        };
        let taken = consumed(parsed);
        match parsed {
            Parsed::Complete {
                request: Request::Get(get),
                ..
            } => {
                events.extend(get.keys.iter().map(|key| key.escape_ascii().to_string()));
                verb = (!get.last).then_some(get.verb);
                any = !get.last && (any || get.keys.iter().next().is_some());
                if get.last {
                    events.push(if get.verb.with_cas { "END gets" } else { "END" }.to_string());
                }
            }
            Parsed::Invalid { skip, .. } => {
                events.push(show(parsed).replace(" skip line", ""));
                skip_line = skip == Skip::Line;
                (verb, any) = (None, false);
            }
            Parsed::Complete { .. } => events.push(show(parsed)),
            Parsed::HangUp => {
                events.push("hang up".to_string());
                return events;
            }
            Parsed::Incomplete => {
                if unread.is_empty() {
                    return events;
                }
                assert!(
                    buf.len() < buffer_bytes,
                    "a full buffer must give an answer"
                );
                let room = buffer_bytes - buf.len();
                let len = (1 + random.below(room)).min(unread.len());
                buf.extend_from_slice(&unread[..len]);
                unread = &unread[len..];
            }
        }
        buf.drain(..taken);
    }
}

/// A list of keys of all lengths, a line of `line_bytes` or a little more.
fn list(random: &mut Random, line_bytes: usize) -> (Vec<u8>, Vec<String>) {
    let mut line = random.pick(&["get", "gets"]).to_string();
    let end = if line == "get" { "END" } else { "END gets" };
    let mut keys = Vec::new();
    while line.len() < line_bytes {
        let len = if random.below(20) == 0 {
            KEY_LEN_MAX
        } else {
            1 + random.below(30)
        };
        let key: String = (0..len)
            .map(|_| char::from(random.pick(b"abcxyz019:\t\r")))
            .collect();
        line.push_str(&" ".repeat(1 + random.below(3)));
        line.push_str(&key);
        keys.push(key.as_bytes().escape_ascii().to_string());
    }
    // A key must not end in what could be the line end.
    line.push_str(random.pick(&["", " "]));
    if line.ends_with('\r') {
        line.push(' ');
    }
    line.push_str(random.pick(&["\r\n", "\n"]));
    keys.push(end.to_string());
    (line.into_bytes(), keys)
}

#[test]
fn the_same_keys_whatever_the_cuts() {
    let mut random = Random::new();
    for _ in 0..300 {
        let line_bytes = random.below(5 * LINE_LEN_MAX);
        let (mut stream, mut expected) = list(&mut random, line_bytes);
        if expected.len() == 1 {
            continue;
        }
        stream.extend_from_slice(b"mn\r\n");
        expected.push("mn".to_string());
        for buffer_bytes in [LINE_LEN_MAX + 1, 2 * LINE_LEN_MAX, 16 * LINE_LEN_MAX] {
            assert_eq!(events(&stream, buffer_bytes, &mut random), expected);
        }
    }
}

#[test]
fn a_key_too_long_ends_the_list_with_an_error() {
    let mut random = Random::new();
    for _ in 0..300 {
        let line_bytes = 2 * LINE_LEN_MAX;
        let (good, mut keys) = list(&mut random, line_bytes);
        keys.pop();
        let spaces: Vec<usize> = (0..good.len()).filter(|&at| good[at] == b' ').collect();
        let at = random.pick(&spaces);
        let bad = KEY_LEN_MAX + 1 + random.below(3 * LINE_LEN_MAX);
        let stream = [
            &good[..at],
            b" ",
            &b"X".repeat(bad)[..],
            &good[at..],
            b"mn\r\n",
        ]
        .concat();
        for buffer_bytes in [LINE_LEN_MAX + 1, 3 * LINE_LEN_MAX, 16 * LINE_LEN_MAX] {
            let events = events(&stream, buffer_bytes, &mut random);
            let (tail, before) = (&events[events.len() - 2..], &events[..events.len() - 2]);
            assert_eq!(tail, ["BadFormat", "mn"]);
            assert_eq!(
                before,
                &keys[..before.len()],
                "the keys before it come in order"
            );
        }
    }
}

#[test]
fn the_longest_list_that_is_waited_for() {
    let words = "0123456 ".repeat(LINE_LEN_MAX / 8 - 1);
    let longest = format!("get {words}0123");
    assert_eq!(longest.len(), LINE_LEN_MAX);
    assert_eq!(parse(longest.as_bytes()), Parsed::Incomplete);
    let whole = show(parse(format!("{longest}\n").as_bytes()));
    assert!(whole.ends_with(" key=0123456 key=0123"));
    // One byte more without an end in sight, and the keys that are whole are handed out.
    let longer = format!("{longest}4");
    let parsed = parse(longer.as_bytes());
    assert_eq!(consumed(parsed), LINE_LEN_MAX - 4);
    let whole_keys = whole.strip_suffix(" key=0123").expect("seen above");
    assert_eq!(show(parsed), format!("{whole_keys} unfinished"));
    // A short line with a key too long is answered with the error alone.
    let bad = format!("get {} {}", "a ".repeat(200), "x".repeat(KEY_LEN_MAX + 1));
    check(bad, "BadFormat");
}

#[test]
fn a_list_may_begin_with_more_blanks_than_a_line_has_bytes() {
    let spaces = " ".repeat(3 * LINE_LEN_MAX);
    let mut random = Random::new();
    for (line, answer) in [
        (format!("get{spaces}k\r\n"), &["k", "END"][..]),
        (
            format!("gets{spaces}k{spaces}l \n"),
            &["k", "l", "END gets"],
        ),
        (format!("gat 5{spaces}k\r\n"), &["k", "END"]),
        (format!("get{spaces}\r\n"), &["BadFormat"]),
        (
            format!("get{spaces}\nget a\r\n"),
            &["BadFormat", "a", "END"],
        ),
        (format!("get k{spaces}\r\n"), &["k", "END"]),
        (format!(" get{spaces}k\r\n"), &["hang up"]),
        (format!("touch{spaces}k\r\n"), &["hang up"]),
        (format!("gat x{spaces}k\r\n"), &["hang up"]),
        (spaces.clone(), &["hang up"]),
    ] {
        for buffer_bytes in [LINE_LEN_MAX + 1, LINE_LEN_MAX + 300, 4 * LINE_LEN_MAX] {
            assert_eq!(events(line.as_bytes(), buffer_bytes, &mut random), answer);
        }
    }
}

#[test]
fn the_line_end_is_no_part_of_a_key() {
    let mut random = Random::new();
    let longest = "k".repeat(KEY_LEN_MAX);
    let mut line = "get".to_string();
    let mut expected = Vec::new();
    while line.len() <= 2 * LINE_LEN_MAX {
        line.push(' ');
        line.push_str(&longest);
        expected.push(longest.clone());
    }
    expected.push("END".to_string());
    for end in ["\n", "\r\n", " \r\n"] {
        let stream = format!("{line}{end}");
        for _ in 0..100 {
            assert_eq!(
                events(stream.as_bytes(), LINE_LEN_MAX + 1, &mut random),
                expected
            );
        }
    }
}
