//! The commands that look into a node: `hot`, `why`, `doctor`, `record`, as processes.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::run::told;
use ketch_testing::{Kind, PATIENCE, Server, wait_within};

fn node(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port())
}

/// While half of what is read is one key, `until` must come about.
fn while_one_key_is_read(server: &Server, what: &str, until: impl FnMut() -> bool) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut conn = server.connect();
            let requests: String = (0..50)
                .map(|n| format!("get front\r\nget o{n}\r\n"))
                .collect();
            let replies = "VALUE front 0 1\r\n1\r\nEND\r\nEND\r\n".repeat(50);
            while !over.load(Relaxed) {
                conn.round(&requests, &replies);
            }
        });
        // A wait that fails must end the other thread too.
        let waited =
            std::panic::catch_unwind(AssertUnwindSafe(|| wait_within(what, PATIENCE, until)));
        over.store(true, Relaxed);
        waited.expect("what was waited for");
    });
}

#[test]
fn why_a_key_is_not_there() {
    let server = Server::start(&["-t", "2"]);
    let mut conn = server.connect();
    for key in ["there", "deleted", "flushed"] {
        conn.set(key, b"1");
    }
    conn.round("delete deleted\r\n", "DELETED\r\n");
    let of = |key: &str| told(&["why", "-s", &node(&server), key]);
    let word = |key: &str| {
        let (status, out, err) = of(key);
        assert_eq!((status, &*err), (0, ""), "{key}");
        let rest = out
            .strip_prefix(&format!("{}: ", node(&server)))
            .expect("it begins with the node");
        rest.split([':', ',', '\n'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(word("there"), "it is there");
    assert_eq!(word("deleted"), "deleted");
    assert_eq!(word("nobody"), "not seen");
    conn.round("flush_all\r\nget flushed\r\n", "OK\r\nEND\r\n");
    assert_eq!(word("flushed"), "flushed");
    // To ask counts nothing.
    assert_eq!(conn.stat("cmd_get"), 1);
}

#[test]
fn a_hot_key_stands_first_and_is_told_by_the_doctor() {
    let server = Server::start(&["-t", "2"]);
    let mut conn = server.connect();
    conn.set("front", b"1");
    let nodes = node(&server);
    while_one_key_is_read(&server, "it is the first of the hot keys", || {
        let (status, out, err) = told(&["hot", "-s", &nodes]);
        assert_eq!((status, &*err), (0, ""));
        let first = out.lines().nth(1).unwrap_or_default();
        first.starts_with("front ") && first.contains(" reads ")
    });
    while_one_key_is_read(&server, "the doctor finds it", || {
        let (status, out, _) = told(&["doctor", "-i", "1", "-s", &nodes]);
        // What is found fault with is no success.
        out.contains("% of the reads are of front") && status == 1
    });
}

#[test]
fn a_healthy_node_has_nothing_to_find_fault_with() {
    let server = Server::start(&["-t", "2"]);
    let (status, out, err) = told(&["doctor", "-i", "0.1", "-s", &node(&server)]);
    assert_eq!((status, &*err), (0, ""));
    assert_eq!(
        out,
        format!("{}: nothing to find fault with\n", node(&server))
    );
}

#[test]
fn the_last_seconds_are_lines_of_numbers() {
    let server = Server::start(&["-t", "2"]);
    let mut conn = server.connect();
    let nodes = node(&server);
    let record = || {
        let (status, out, err) = told(&["record", "-s", &nodes]);
        assert_eq!((status, &*err), (0, ""));
        out
    };
    wait_within("two seconds are recorded", PATIENCE, || {
        conn.set("k", b"1");
        record().lines().count() >= 3
    });
    let out = record();
    let mut lines = out.lines();
    let names: Vec<&str> = lines.next().expect("a head").split(',').collect();
    let mut last = 0;
    for line in lines {
        let numbers: Vec<u64> = line
            .split(',')
            .map(|word| word.parse().expect("a number"))
            .collect();
        assert_eq!(numbers.len(), names.len(), "{line}");
        assert!(numbers[0] > last, "seconds go on: {line}");
        last = numbers[0];
    }
    // Into a file, without a word.
    let path = std::env::temp_dir().join(format!("ketch-test-{}-record", std::process::id()));
    let file = path.display().to_string();
    assert_eq!(
        told(&["record", "-s", &nodes, "-o", &file]),
        (0, String::new(), String::new())
    );
    let written = std::fs::read_to_string(&path).expect("the file");
    assert!(written.starts_with(&names.join(",")), "{written}");
    let _ = std::fs::remove_file(&path);
}

#[test]
fn memcached_is_told_apart() {
    let server = Kind::Memcached.start();
    let nodes = node(&server);
    for words in [
        &["why", "-s", &nodes, "k"][..],
        &["hot", "-s", &nodes],
        &["record", "-s", &nodes],
    ] {
        let (status, _, err) = told(words);
        assert_eq!(status, 1, "{words:?}");
        assert!(
            err.contains(&nodes) && err.contains("must be ketch"),
            "{words:?}: {err}"
        );
    }
    let (status, out, _) = told(&["doctor", "-i", "0.1", "-s", &nodes]);
    assert!(status == 0 || out.starts_with(&nodes), "{out}");
}
