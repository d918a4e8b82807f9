//! CAS uniques through a proxy: as those of one server, though each node counts for itself.

use std::collections::HashSet;

use ketch_testing::packet::{op, packet, store};
use ketch_testing::{Conn, Server, is_ketch};

use crate::proxy::{file, pool, proxy, proxy_of};

const KEYS: usize = 60;

/// Keys on all nodes, stored.
fn keys(conn: &mut Conn) -> Vec<String> {
    let keys: Vec<String> = (0..KEYS).map(|at| format!("k{at}")).collect();
    for key in &keys {
        conn.round(format!("set {key} 0 0 3\r\none\r\n"), "STORED\r\n");
    }
    keys
}

/// The uniques of a list of keys, in its order.
fn of_list(conn: &mut Conn, verb: &str, keys: &[String]) -> Vec<u64> {
    conn.send(format!("{verb} {}\r\n", keys.join(" ")));
    let unique = |key: &String| {
        let line = conn.expect_line();
        conn.expect("one\r\n");
        assert!(line.starts_with(&format!("VALUE {key} 0 3 ")), "{line}");
        let last = line.rsplit(' ').next().expect("there are words");
        last.parse().expect("a number")
    };
    let uniques = keys.iter().map(unique).collect();
    conn.expect("END\r\n");
    uniques
}

#[test]
fn uniques_are_those_of_one_server() {
    if !is_ketch() {
        return;
    }
    for more in ["", "copies = 2"] {
        let nodes = [(); 3].map(|()| Server::start(&["-t", "1"]));
        let proxy = proxy(&pool(&nodes, more), &[]);
        let mut conn = proxy.connect();
        let keys = keys(&mut conn);
        let uniques = of_list(&mut conn, "gets", &keys);
        assert_eq!(uniques.iter().collect::<HashSet<_>>().len(), KEYS, "{more}");
        assert_eq!(of_list(&mut conn, "gats 0", &keys), uniques, "{more}");
        // Some programs keep no more of them.
        let small = |unique: &u64| *unique < 1 << 31;
        assert!(uniques.iter().all(small), "{uniques:?}");
        let mut binary = proxy.connect();
        for (key, unique) in keys.iter().zip(uniques) {
            // By whatever words it is asked for.
            assert_eq!(conn.cas_of(key), unique);
            conn.round(
                format!("mg {key} Oc1 c v\r\n"),
                format!("VA 3 Oc1 c{unique}\r\none\r\n"),
            );
            conn.round(
                format!("mg {key} k q c\r\nmn\r\n"),
                format!("HD k{key} c{unique}\r\nMN\r\n"),
            );
            let got = binary.ask_packet(&packet(op::GET, key, ""));
            assert_eq!((got.cas, &got.value[..]), (unique, &b"one"[..]));
            conn.send(format!("me {key}\r\n"));
            let told = conn.expect_line();
            if more.is_empty() {
                assert!(told.contains(&format!(" cas={unique} ")), "{told}");
            }
            // It is good for one store, and no other is.
            for wrong in [0, 1, 5, unique + 1, unique - 1] {
                conn.round(format!("cas {key} 0 0 1 {wrong}\r\nx\r\n"), "EXISTS\r\n");
                conn.round(format!("md {key} C{wrong}\r\n"), "EX\r\n");
            }
            conn.round(format!("cas {key} 0 0 3 {unique}\r\ntwo\r\n"), "STORED\r\n");
            conn.round(
                format!("cas {key} 0 0 5 {unique}\r\nthree\r\n"),
                "EXISTS\r\n",
            );
            let unique = conn.cas_of(key);
            let stored = binary.ask_packet(&store(op::SET, key, "three").cas(unique));
            assert_eq!((stored.status, conn.cas_of(key)), (0, stored.cas));
            let late = binary.ask_packet(&store(op::SET, key, "four").cas(unique));
            assert_eq!(late.status, 2, "it has another by now");
            conn.send(format!("ms {key} 4 c C{}\r\nfour\r\n", stored.cas));
            let told = conn.expect_line();
            let unique: u64 = told.trim_start_matches("HD c").parse().expect("a number");
            assert_eq!(conn.cas_of(key), unique);
            conn.round(format!("md {key} C{unique}\r\n"), "HD\r\n");
        }
    }
}

/// Meta flag `E`: a unique that the client names, small as a version or large as a clock, is the unique.
#[test]
fn uniques_that_clients_name_stay_what_they_are() {
    if !is_ketch() {
        return;
    }
    for more in ["", "copies = 2"] {
        let nodes = [(); 2].map(|()| Server::start(&["-t", "1"]));
        let proxy = proxy(&pool(&nodes, more), &[]);
        let mut conn = proxy.connect();
        for (at, named) in [7, 1_700_000_000, 1_700_000_000_000, 1 << 62]
            .into_iter()
            .enumerate()
        {
            let key = format!("k{at}");
            conn.round(
                format!("ms {key} 1 c E{named}\r\n1\r\n"),
                format!("HD c{named}\r\n"),
            );
            conn.round(format!("mg {key} c\r\n"), format!("HD c{named}\r\n"));
            assert_eq!(conn.cas_of(&key), named);
            let next = named + 1;
            conn.round(format!("ms {key} 1 C{next}\r\n2\r\n"), "EX\r\n");
            conn.round(
                format!("ma {key} c C{named} E{next}\r\n"),
                format!("HD c{next}\r\n"),
            );
            // An older one marks it as stale, a later one is refused.
            conn.round(format!("ms {key} 1 I C{named}\r\n3\r\n"), "HD\r\n");
            conn.send(format!("mg {key} v\r\n"));
            assert_eq!(conn.expect_line(), "VA 1 X W");
            conn.expect("3\r\n");
            conn.round(
                format!("md {key}\r\nmg {key} c N30 E{named}\r\n"),
                format!("HD\r\nHD c{named} W\r\n"),
            );
        }
    }
}

#[test]
fn uniques_of_large_values_and_after_a_reload() {
    if !is_ketch() {
        return;
    }
    let nodes = [(); 2].map(|()| Server::start(&["-t", "1"]));
    let path = file(&pool(&nodes, ""));
    let proxy = proxy_of(&path);
    let mut conn = proxy.connect();
    let large = "v".repeat(300_000);
    let keys: Vec<String> = (0..6).map(|at| format!("large{at}")).collect();
    let mut uniques = Vec::new();
    for key in &keys {
        conn.round(
            format!("set {key} 0 0 {}\r\n{large}\r\n", large.len()),
            "STORED\r\n",
        );
        uniques.push(conn.cas_of(key));
    }
    let value = |(key, unique)| format!("VALUE {key} 0 {} {unique}\r\n{large}\r\n", large.len());
    let values: String = keys.iter().zip(&uniques).map(value).collect();
    conn.round(
        format!("gets {}\r\n", keys.join(" ")),
        format!("{values}END\r\n"),
    );
    // A pool that has changed begins anew, with the uniques that it had.
    std::fs::write(&path, pool(&nodes, "retries = 1")).expect("the file is written");
    conn.round("proxy reload\r\n", "OK\r\n");
    for (key, unique) in keys.iter().zip(uniques) {
        assert_eq!(conn.cas_of(key), unique);
        conn.round(format!("cas {key} 0 0 1 {unique}\r\nx\r\n"), "STORED\r\n");
    }
}
