//! `ketchctl audit` as a process, over rings of ketch and stock memcached.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::copy::{client, list, nodes, servers};
use super::run::{stdout, told};
use ketch_client::{Client, ClientOptions};
use ketch_testing::{KINDS, Kind, PATIENCE, Server};

/// The number of a member of a report in JSON.
#[track_caller]
pub fn number(report: &str, name: &str) -> u64 {
    let report: serde_json::Value = serde_json::from_str(report).expect("JSON");
    report[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name}: {report}"))
}

/// Two rings in the words of an option.
fn rings(a: &[Server], b: &[Server]) -> String {
    let plus = |servers: &[Server]| list(servers).replace(',', "+");
    format!("{},{}", plus(a), plus(b))
}

#[track_caller]
fn fill(client: &Client, keys: std::ops::Range<u32>, ttl: Option<Duration>) {
    let keys: Vec<u32> = keys.collect();
    for some in keys.chunks(500) {
        // Among them some that only base64 can carry.
        let entries = some.iter().map(|n| match n % 10 {
            0 => (format!("user {n} \u{e4}"), (format!("value {n}"), *n)),
            _ => (format!("user:{n}"), (format!("value {n}"), *n)),
        });
        let stored = client.set_multi(entries, ttl);
        assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    }
}

#[test]
fn regions_that_are_the_same_and_keys_that_are_not() {
    for (one, other) in [(Kind::Ketch, Kind::Ketch), (Kind::Ketch, Kind::Memcached)] {
        let (a, b) = (servers(one, 2), servers(other, 3));
        let (in_a, in_b) = (client(&a), client(&b));
        for client in [&in_a, &in_b] {
            fill(client, 0..2000, None);
        }
        let rings = rings(&a, &b);
        let words = ["audit", "--rings", &rings, "--pause", "10ms", "--json"];
        let (status, report, errors) = told(&words);
        assert_eq!((status, errors.as_str()), (0, ""), "{report}");
        for (name, expected) in [("keys", 2000), ("agree", 2000), ("differ", 0), ("alone", 0)] {
            assert_eq!(number(&report, name), expected, "{name}: {report}");
        }

        in_b.set("user:1", ("old", 1), None).expect("up");
        in_b.set("user 10 \u{e4}", ("value 10", 11), None)
            .expect("up");
        in_b.touch("user:2", Duration::from_secs(3600)).expect("up");
        in_a.delete("user:3").expect("up");
        in_b.delete("user:4").expect("up");
        in_b.set("mine", "alone", None).expect("up");
        let (status, report, errors) = told(&words);
        assert_eq!((status, errors.as_str()), (1, ""), "{report}");
        for (name, expected) in [
            ("keys", 2001),
            ("agree", 1996),
            ("differ", 2),
            ("nines", 2),
            ("alone", 3),
            ("ttl_differs", 1),
        ] {
            assert_eq!(number(&report, name), expected, "{name}: {report}");
        }
        let (status, text, _) = told(&words[..5]);
        assert_eq!(status, 1);
        for told in [
            "99.8998998 % (2 nines)",
            "differs: user:1\n",
            "differs: user%2010%20%C3%A4\n",
            "bytes=3 ",
            "flags=11 ",
            "time to live differs",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
        assert!(
            !text.contains("user:2\n") && !text.contains("user:3\n"),
            "{text}"
        );
        let (_, text, _) = told(&[&words[..5], &["--show", "1"]].concat());
        assert!(text.contains("and 1 more"), "{text}");
    }
}

#[test]
fn copies_within_a_ring() {
    for kind in KINDS {
        let ring = servers(kind, 3);
        let options = ClientOptions::default().copies(2).request_timeout(PATIENCE);
        let client = Client::new(nodes(&ring), options);
        fill(&client, 0..1000, Some(Duration::from_secs(1000)));
        let list = list(&ring);
        let words = [
            "audit", "--rings", &list, "--copies", "2", "--pause", "0", "--json",
        ];
        let (status, report, errors) = told(&words);
        assert_eq!((status, errors.as_str()), (0, ""), "{report}");
        assert_eq!(number(&report, "agree"), 1000, "{report}");
        assert_eq!(number(&report, "alone"), 0, "{report}");
        // One of its two copies is written as by nobody who knows of the other; the third node's would be a stray.
        let holder = ring.iter().find(|server| server.holds("user:7").is_some());
        let holder = holder.expect("two have it");
        holder.ask("set user:7 0 0 3\r\nold\r\n", "STORED\r\n");
        let other = ring.iter().find(|server| server.holds("user:7").is_none());
        let other = other.expect("one has not");
        other.ask("set user:7 0 0 5\r\nstray\r\n", "STORED\r\n");
        let (status, report, _) = told(&words);
        assert_eq!(status, 1, "{report}");
        assert_eq!(number(&report, "differ"), 1, "{report}");
        assert_eq!(number(&report, "strays"), 1, "{report}");
        assert!(report.contains("\"key\":\"user:7\""), "{report}");
    }
}

#[test]
fn a_sample_is_the_same_on_both_sides() {
    let (a, b) = (servers(Kind::Ketch, 1), servers(Kind::Ketch, 2));
    for servers in [&a, &b] {
        fill(&client(servers), 0..10_000, None);
    }
    let rings = rings(&a, &b);
    let report = stdout(
        &["audit", "--rings", &rings, "--sample", "1k", "--json"],
        "",
    );
    let agree = number(&report, "agree");
    assert!((800..1200).contains(&agree), "{report}");
    assert_eq!(number(&report, "alone"), 0, "{report}");
    let report = stdout(
        &["audit", "--rings", &rings, "--prefix", "user:12", "--json"],
        "",
    );
    // 12, 120s, 1200s without each tenth.
    assert_eq!(number(&report, "agree"), 1 + 9 + 90, "{report}");
}

/// Whoever looks at one side and then at the other while both are written sees what never was a difference.
#[test]
fn keys_that_are_written_meanwhile_are_looked_at_again() {
    let (a, b) = (servers(Kind::Ketch, 1), servers(Kind::Ketch, 1));
    let (in_a, in_b) = (client(&a), client(&b));
    for client in [&in_a, &in_b] {
        fill(client, 0..500, None);
    }
    let rings = rings(&a, &b);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut turn = 0u64;
            while !over.load(Ordering::Relaxed) {
                for n in 0..20 {
                    turn += 1;
                    let key = format!("hot:{n}");
                    in_a.set(&key, turn.to_string(), None).expect("up");
                    in_b.set(&key, turn.to_string(), None).expect("up");
                }
            }
        });
        for _ in 0..5 {
            let words = ["audit", "--rings", &rings, "--pause", "20ms", "--json"];
            let (status, report, errors) = told(&words);
            assert_eq!((status, errors.as_str()), (0, ""), "{report}");
            assert_eq!(number(&report, "differ"), 0, "{report}");
            let looked_at = number(&report, "agree") + number(&report, "changing");
            assert!(looked_at >= 500, "{report}");
        }
        over.store(true, Ordering::Relaxed);
        writer.join().expect("no panic");
    });
}

#[test]
fn a_node_that_is_down_is_told() {
    let (a, mut b) = (servers(Kind::Ketch, 1), servers(Kind::Ketch, 2));
    for servers in [&a, &b] {
        fill(&client(servers), 0..100, None);
    }
    let rings = rings(&a, &b);
    let gone = list(&b[1..]);
    b[1].kill();
    let (status, report, errors) = told(&["audit", "--rings", &rings, "-t", "1", "--json"]);
    assert_eq!(status, 1, "{report}");
    assert!(errors.contains(&gone), "{errors}");
    assert!(number(&report, "failed") > 0, "{report}");
    assert_eq!(number(&report, "differ"), 0, "{report}");
}

#[test]
fn refusals_say_what_is_wrong() {
    for (words, why) in [
        (&["audit"][..], "--rings is missing"),
        (&["audit", "--rings", "a"], "names one ring"),
        (&["audit", "--rings", "a", "--copies", "2"], "two nodes"),
        (&["audit", "--rings", "a:0,b"], "--rings a:0"),
        (&["audit", "--rings", "a,b", "--sample", "0"], "--sample 0"),
        (&["audit", "--rings", "a,b", "c"], "what is c?"),
    ] {
        let (status, _, errors) = told(words);
        assert_eq!(status, 2, "{errors}");
        assert!(errors.contains(why), "{words:?}: {errors}");
    }
}
