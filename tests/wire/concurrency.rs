//! Many threads over few keys: what they do must add up.

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread;

use ketch_testing::{Conn, Rng, Server};

const THREADS: u64 = 8;

/// Runs `work` on its own connection in each of the threads.
fn in_threads(server: &Server, work: impl Fn(u64, Conn) + Sync) {
    thread::scope(|scope| {
        for id in 0..THREADS {
            let work = &work;
            scope.spawn(move || work(id, server.connect()));
        }
    });
}

#[test]
fn incr_adds_up() {
    let server = Server::start(&["-t", "4"]);
    const ROUNDS: u64 = 3000;
    let mut conn = server.connect();
    for key in 0..3 {
        conn.round(format!("set n{key} 0 0 1\r\n0\r\n"), "STORED\r\n");
    }
    in_threads(&server, |_, mut conn| {
        for i in 0..ROUNDS {
            let answer = conn.ask(format!("incr n{} {}\r\n", i % 3, 1 + i % 3));
            answer.parse::<u64>().expect("a number");
        }
    });
    for key in 0..3 {
        let want = THREADS * ROUNDS / 3 * (1 + key);
        assert_eq!(
            conn.ask(format!("incr n{key} 0\r\n")),
            want.to_string(),
            "n{key}"
        );
    }
    assert_eq!(conn.stat("incr_hits"), THREADS * ROUNDS + 3);
}

#[test]
fn incr_and_ma_hand_out_each_number_once() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("set n 0 0 1\r\n0\r\n", "STORED\r\n");
    let seen = Mutex::new(HashSet::new());
    in_threads(&server, |id, mut conn| {
        for _ in 0..1000 {
            let number = if id % 2 == 0 {
                conn.ask("incr n 1\r\n")
            } else {
                conn.send("ma n v\r\n");
                conn.expect_line();
                conn.expect_line()
            };
            assert!(
                seen.lock().expect("no panic").insert(number.clone()),
                "{number} twice"
            );
        }
    });
    assert_eq!(conn.ask("incr n 0\r\n"), (THREADS * 1000).to_string());
}

#[test]
fn cas_loops_add_up() {
    let server = Server::start(&[]);
    const ROUNDS: u64 = 300;
    let mut conn = server.connect();
    for key in 0..2 {
        conn.round(format!("set n{key} 0 0 1\r\n0\r\n"), "STORED\r\n");
    }
    in_threads(&server, |id, mut conn| {
        let key = format!("n{}", id % 2);
        for _ in 0..ROUNDS {
            loop {
                conn.send(format!("gets {key}\r\n"));
                let line = conn.expect_line();
                let words: Vec<&str> = line.split(' ').collect();
                let (len, cas) = (words[3].parse().expect("a length"), words[4]);
                let value: u64 = String::from_utf8(conn.take(len))
                    .expect("digits")
                    .parse()
                    .expect("digits");
                conn.expect("\r\nEND\r\n");
                let next = (value + 1).to_string();
                match conn
                    .ask(format!("cas {key} 0 0 {} {cas}\r\n{next}\r\n", next.len()))
                    .as_str()
                {
                    "STORED" => break,
                    "EXISTS" => continue,
                    other => panic!("{other}"),
                }
            }
        }
    });
    for key in 0..2 {
        assert_eq!(
            conn.ask(format!("incr n{key} 0\r\n")),
            (THREADS / 2 * ROUNDS).to_string()
        );
    }
    assert_eq!(conn.stat("cas_hits"), THREADS * ROUNDS);
}

#[test]
fn one_add_of_many_is_stored() {
    let server = Server::start(&[]);
    let stored = Mutex::new(0);
    in_threads(&server, |id, mut conn| {
        for i in 0..1000 {
            let answer = conn.ask(format!("add k{i} 0 0 1\r\n{id}\r\n"));
            if answer == "STORED" {
                *stored.lock().expect("no panic") += 1;
            } else {
                assert_eq!(answer, "NOT_STORED");
            }
        }
    });
    assert_eq!(stored.into_inner().expect("no panic"), 1000);
}

#[test]
fn one_delete_of_many_hits() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    for i in 0..1000 {
        conn.round(format!("set k{i} 0 0 1\r\nx\r\n"), "STORED\r\n");
    }
    let deleted = Mutex::new(0);
    in_threads(&server, |_, mut conn| {
        for i in 0..1000 {
            let answer = conn.ask(format!("delete k{i}\r\n"));
            if answer == "DELETED" {
                *deleted.lock().expect("no panic") += 1;
            } else {
                assert_eq!(answer, "NOT_FOUND");
            }
        }
    });
    assert_eq!(deleted.into_inner().expect("no panic"), 1000);
    assert_eq!(conn.stat("curr_items"), 0);
}

#[test]
fn one_lease_of_many_is_won() {
    let server = Server::start(&[]);
    let won = Mutex::new(0);
    in_threads(&server, |_, mut conn| {
        for i in 0..500 {
            let answer = conn.ask(format!("mg k{i} N30 t\r\n"));
            let marks: Vec<&str> = answer
                .split(' ')
                .filter(|word| ["W", "Z"].contains(word))
                .collect();
            assert_eq!(marks.len(), 1, "{answer}");
            *won.lock().expect("no panic") += u64::from(marks == ["W"]);
        }
    });
    assert_eq!(won.into_inner().expect("no panic"), 500);
}

/// Appends of one letter by each thread: all are there, none is torn.
#[test]
fn appends_add_up() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("set text 0 0 0\r\n\r\n", "STORED\r\n");
    in_threads(&server, |id, mut conn| {
        let letter = (b'a' + id as u8) as char;
        for i in 0..200 {
            let verb = if i % 2 == 0 { "append" } else { "prepend" };
            conn.round(
                format!("{verb} text 0 0 2\r\n{letter}{letter}\r\n"),
                "STORED\r\n",
            );
        }
    });
    let text = conn.get("text").expect("it is there");
    assert_eq!(text.len() as u64, THREADS * 400);
    for pair in text.chunks(2) {
        assert_eq!(pair[0], pair[1], "a pair torn apart");
    }
    for id in 0..THREADS {
        let letter = b'a' + id as u8;
        assert_eq!(text.iter().filter(|&&byte| byte == letter).count(), 400);
    }
}

/// Each value says its own key and length and repeats one letter: a reader can tell a mix of two at once.
#[test]
fn readers_see_whole_values() {
    let server = Server::start(&["-m", "64"]);
    in_threads(&server, |id, mut conn| {
        let mut rng = Rng::new(id);
        for _ in 0..1500 {
            let key = format!("key{}", rng.below(12));
            match rng.below(10) {
                0..=3 => {
                    let lens: [u64; 5] = [10, 300, 5000, 60_000, 700_000];
                    let pick = if rng.one_in(20) { 5 } else { 4 };
                    let limit = lens[rng.below(pick) as usize];
                    let len = 1 + rng.below(limit) as usize;
                    let letter = b'a' + rng.below(26) as u8;
                    let mut value = format!("{key} {len} ").into_bytes();
                    value.resize(value.len() + len, letter);
                    assert_eq!(conn.set(&key, &value), "STORED");
                }
                4 => {
                    let answer = conn.ask(format!("delete {key}\r\n"));
                    assert!(answer == "DELETED" || answer == "NOT_FOUND", "{answer}");
                }
                5 => {
                    let answer = conn.ask(format!("touch {key} 1000\r\n"));
                    assert!(answer == "TOUCHED" || answer == "NOT_FOUND", "{answer}");
                }
                _ => {
                    let Some(value) = conn.get(&key) else {
                        continue;
                    };
                    let mut parts = value.splitn(3, |&byte| byte == b' ');
                    assert_eq!(parts.next(), Some(key.as_bytes()), "another key's value");
                    let len = std::str::from_utf8(parts.next().expect("a length")).expect("digits");
                    let text = parts.next().expect("a text");
                    assert_eq!(len, text.len().to_string(), "another length");
                    assert!(
                        text.iter().all(|byte| *byte == text[0]),
                        "two values in one"
                    );
                }
            }
        }
    });
    // When all is quiet the counters agree with what can be fetched.
    let mut conn = server.connect();
    let there = (0..12)
        .filter(|i| conn.get(&format!("key{i}")).is_some())
        .count() as u64;
    assert_eq!(conn.stat("curr_items"), there);
}

/// Stores and flushes at once: after the last flush_all nothing older is left.
#[test]
fn flush_all_among_writers() {
    let server = Server::start(&[]);
    in_threads(&server, |id, mut conn| {
        for i in 0..500 {
            if id == 0 && i % 50 == 0 {
                conn.round("flush_all\r\n", "OK\r\n");
            }
            conn.round(format!("set k{} 0 0 1\r\nx\r\n", i % 20), "STORED\r\n");
        }
    });
    let mut conn = server.connect();
    conn.round("flush_all\r\n", "OK\r\n");
    for i in 0..20 {
        assert_eq!(conn.get(&format!("k{i}")), None, "k{i}");
    }
    conn.round(
        "set k0 0 0 1\r\ny\r\nget k0\r\n",
        "STORED\r\nVALUE k0 0 1\r\ny\r\nEND\r\n",
    );
}
