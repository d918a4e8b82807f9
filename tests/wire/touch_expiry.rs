//! touch, exptimes, flush_all: when an item is there and when it is not.
//!
//! What takes time is tested with ketch's test clock (`-o debugtime`): the command `debugtime p` stops the clock,
//! `debugtime N` moves it, so that nothing here waits. A memcached as distributions build it has no such clock; these
//! tests pass it over.

use std::time::Duration;

use ketch_testing::{Conn, Server, Vector, both, is_ketch, newer, ours, run_vectors, wait_within};

const NAMES_THE_FAULT: &str = "1.6.18 answers a plain ERROR to a line with too few words";

const ALIKE: &str = "memcached refuses here what it takes in a set";

const VECTORS: &[Vector] = &[
    both("touch a 0\r\n", "NOT_FOUND\r\n"),
    both("touch a 0 noreply\r\n", ""),
    both(
        "set a 5 0 1\r\nx\r\ntouch a 100\r\nget a\r\nmg a t\r\n",
        "STORED\r\nTOUCHED\r\nVALUE a 5 1\r\nx\r\nEND\r\nHD t{100}\r\n",
    ),
    both(
        "set a 0 100 1\r\nx\r\ntouch a 0\r\nmg a t\r\n",
        "STORED\r\nTOUCHED\r\nHD t-1\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\ntouch a -1\r\nget a\r\ntouch a 0\r\n",
        "STORED\r\nTOUCHED\r\nEND\r\nNOT_FOUND\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\ntouch a 50 noreply\r\nmg a t\r\n",
        "STORED\r\nHD t{50}\r\n",
    ),
    both("touch a x\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
    both("touch a x noreply\r\n", ""),
    newer(
        NAMES_THE_FAULT,
        "touch\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "touch a\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    // Below 0: gone at once, for every verb that comes after.
    both(
        "set a 0 -1 1\r\nx\r\nget a\r\nmg a\r\n",
        "STORED\r\nEND\r\nEN\r\n",
    ),
    both(
        "set a 0 -1 1\r\n1\r\nincr a 1\r\ntouch a 0\r\ndelete a\r\n",
        "STORED\r\nNOT_FOUND\r\nNOT_FOUND\r\nNOT_FOUND\r\n",
    ),
    both(
        "set a 0 -1 1\r\nx\r\nreplace a 0 0 1\r\ny\r\nappend a 0 0 1\r\ny\r\ncas a 0 0 1 1\r\ny\r\nadd a 0 0 1\r\ny\r\nget a\r\n",
        "STORED\r\nNOT_STORED\r\nNOT_STORED\r\nNOT_FOUND\r\nSTORED\r\nVALUE a 0 1\r\ny\r\nEND\r\n",
    ),
    both(
        "set a 0 -2147483648 1\r\nx\r\nget a\r\n",
        "STORED\r\nEND\r\n",
    ),
    // 30 days are the longest time; above it the number is a point in time, and this one lies in 1970.
    both(
        "set a 0 2592000 1\r\nx\r\nmg a t\r\n",
        "STORED\r\nHD t{2592000}\r\n",
    ),
    both("set a 0 2592001 1\r\nx\r\nmg a t\r\n", "STORED\r\nEN\r\n"),
    both(
        "set a 0 2147483647 1\r\nx\r\nmg a t\r\n",
        "STORED\r\nHD t{n}\r\n",
    ),
    // One reading everywhere: from thirty days before 2^32 on, the low 32 bits with their sign.
    both(
        "set a 0 4294967295 1\r\nx\r\nget a\r\nadd a 0 4294967295 1\r\nx\r\nget a\r\nset b 0 4292375296 1\r\nx\r\nget b\r\n",
        "STORED\r\nEND\r\nSTORED\r\nEND\r\nSTORED\r\nEND\r\n",
    ),
    both(
        "set a 0 4294967396 1\r\nx\r\nmg a t\r\nset a 0 4294967296 1\r\nx\r\nmg a t\r\nset a 0 9223372036854775807 1\r\nx\r\nget a\r\n",
        "STORED\r\nHD t{100}\r\nSTORED\r\nHD t-1\r\nSTORED\r\nEND\r\n",
    ),
    newer(
        "1.6.18 takes what does not fit into 64 bits for the nearest that does",
        "set a 0 9223372036854775808 1\r\nx\r\nget a\r\n",
        "CLIENT_ERROR bad command line format\r\nEND\r\n",
    ),
    ours(
        ALIKE,
        "ms a 1 T4294967295\r\nx\r\nmg a\r\nms a 1 T4294967396\r\nx\r\nmg a t\r\nmg a T4294967397\r\nmg a t\r\ntouch a 4294967398\r\nmg a t\r\n",
        "HD\r\nEN\r\nHD\r\nHD t{100}\r\nHD\r\nHD t{101}\r\nTOUCHED\r\nHD t{102}\r\n",
    ),
    ours(
        ALIKE,
        "set a 0 0 1\r\n1\r\ngat 4294967396 a\r\nma a T4294967397 t\r\nmd a x T4294967396\r\nmg a t\r\ntouch a 4294967295\r\nget a\r\nma a N4294967395 t v\r\n",
        "STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\nHD t{101}\r\nHD\r\nHD t{100}\r\nTOUCHED\r\nEND\r\nVA 1 t{99}\r\n0\r\n",
    ),
    newer(
        ALIKE,
        "touch a 9223372036854775808\r\ngat 9223372036854775808 a\r\nmg a T-9223372036854775809\r\n",
        "CLIENT_ERROR invalid exptime argument\r\nCLIENT_ERROR invalid exptime argument\r\nCLIENT_ERROR bad token in command line format\r\n",
    ),
    ours(
        "memcached cuts these too, to times that nobody meant",
        "set a 0 -4294967296 1\r\nx\r\nget a\r\nset a 0 -9223372036854775808 1\r\nx\r\nget a\r\n",
        "STORED\r\nEND\r\nSTORED\r\nEND\r\n",
    ),
    // Moments after January 2038.
    ours(
        "memcached takes them for negative ones in text",
        "set a 0 2147483648 1\r\nx\r\nmg a v\r\ntouch a 4292375295\r\nget a\r\nms a 1 T3000000000\r\ny\r\nget a\r\n",
        "STORED\r\nVA 1\r\nx\r\nTOUCHED\r\nVALUE a 0 1\r\nx\r\nEND\r\nHD\r\nVALUE a 0 1\r\ny\r\nEND\r\n",
    ),
    // flush_all: what was there is gone, what comes after is there, in the same second too.
    both(
        "set a 0 0 1\r\nx\r\nflush_all\r\nget a\r\n",
        "STORED\r\nOK\r\nEND\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\nflush_all\r\nset a 0 0 1\r\ny\r\nget a\r\n",
        "STORED\r\nOK\r\nSTORED\r\nVALUE a 0 1\r\ny\r\nEND\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\nflush_all\r\nadd a 0 0 1\r\ny\r\nget a\r\nmg a v\r\n",
        "STORED\r\nOK\r\nSTORED\r\nVALUE a 0 1\r\ny\r\nEND\r\nVA 1\r\ny\r\n",
    ),
    both(
        "set a 0 0 1\r\n1\r\nflush_all\r\nincr a 1\r\nappend a 0 0 1\r\nx\r\ntouch a 0\r\nmd a\r\ndelete a\r\n",
        "STORED\r\nOK\r\nNOT_FOUND\r\nNOT_STORED\r\nNOT_FOUND\r\nNF\r\nNOT_FOUND\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\nflush_all noreply\r\nget a\r\n",
        "STORED\r\nEND\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\nflush_all 0\r\nget a\r\n",
        "STORED\r\nOK\r\nEND\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\nflush_all 0 noreply\r\nget a\r\n",
        "STORED\r\nEND\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\nflush_all x\r\nget a\r\n",
        "STORED\r\nCLIENT_ERROR invalid exptime argument\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\nflush_all\r\nflush_all\r\nset b 0 0 1\r\nx\r\nget a b\r\n",
        "STORED\r\nOK\r\nOK\r\nSTORED\r\nVALUE b 0 1\r\nx\r\nEND\r\n",
    ),
];

#[test]
fn vectors() {
    run_vectors(&Server::start(&[]), VECTORS);
}

#[test]
fn an_absolute_exptime() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let now = conn.stat("time");
    for (offset, there) in [(-10_i64, false), (-1, false), (1000, true)] {
        let at = now as i64 + offset;
        conn.round(format!("set a 0 {at} 1\r\nx\r\n"), "STORED\r\n");
        assert_eq!(
            conn.get("a").is_some(),
            there,
            "exptime {offset} s from now"
        );
        conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
        conn.round(format!("touch a {at}\r\n"), "TOUCHED\r\n");
        assert_eq!(
            conn.get("a").is_some(),
            there,
            "touched to {offset} s from now"
        );
    }
    let left: u64 = conn.ask("mg a t\r\n")["HD t".len()..]
        .parse()
        .expect("a time to live");
    assert!((995..=1001).contains(&left), "{left} s instead of 1000");
}

/// A server whose clock stands still until it is told otherwise.
struct Clock {
    server: Server,
    conn: Conn,
}

impl Clock {
    /// None when the program under test has no test clock.
    fn start(args: &[&str]) -> Option<Clock> {
        if !is_ketch() {
            return None;
        }
        let server = Server::start(&[&["-o", "debugtime"], args].concat());
        let mut conn = server.connect();
        conn.round("debugtime p\r\n", "OK\r\n");
        Some(Clock { server, conn })
    }

    #[track_caller]
    fn advance(&mut self, seconds: i64) {
        self.conn
            .round(format!("debugtime {seconds}\r\n"), "OK\r\n");
    }

    #[track_caller]
    fn is_there(&mut self, key: &str) -> bool {
        self.conn.get(key).is_some()
    }
}

#[test]
fn without_the_option_there_is_no_test_clock() {
    let server = Server::start(&[]);
    server
        .connect()
        .round("debugtime 1\r\nmn\r\n", "ERROR\r\nMN\r\n");
}

#[test]
fn an_item_lives_to_the_second() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    clock.conn.round(
        "set a 0 10 1\r\nx\r\nset b 0 11 1\r\nx\r\nset c 0 0 1\r\nx\r\n",
        "STORED\r\nSTORED\r\nSTORED\r\n",
    );
    for left in (1..=10).rev() {
        clock.conn.round("mg a t u\r\n", format!("HD t{left}\r\n"));
        clock.advance(1);
    }
    clock.conn.round(
        "mg a t\r\nmg b t\r\nmg c t\r\nget a b c\r\n",
        "EN\r\nHD t1\r\nHD t-1\r\nVALUE b 0 1\r\nx\r\nVALUE c 0 1\r\nx\r\nEND\r\n",
    );
    clock.advance(1);
    assert!(!clock.is_there("b"));
    clock.advance(10_000_000);
    assert!(clock.is_there("c"), "exptime 0 is forever");
}

#[test]
fn an_expired_item_is_no_item() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    let verbs = [
        ("get a\r\n", "END\r\n"),
        ("gat 100 a\r\n", "END\r\n"),
        ("touch a 100\r\n", "NOT_FOUND\r\n"),
        ("delete a\r\n", "NOT_FOUND\r\n"),
        ("incr a 1\r\n", "NOT_FOUND\r\n"),
        ("replace a 0 0 1\r\ny\r\n", "NOT_STORED\r\n"),
        ("append a 0 0 1\r\ny\r\n", "NOT_STORED\r\n"),
        ("prepend a 0 0 1\r\ny\r\n", "NOT_STORED\r\n"),
        ("cas a 0 0 1 1\r\ny\r\n", "NOT_FOUND\r\n"),
        ("add a 0 0 1\r\ny\r\n", "STORED\r\n"),
        ("mg a v\r\n", "EN\r\n"),
        ("mg a N30 v\r\n", "VA 0 W\r\n\r\n"),
        ("ms a 1 MR\r\ny\r\n", "NS\r\n"),
        ("ms a 1 MA\r\ny\r\n", "NS\r\n"),
        ("ms a 1 C1\r\ny\r\n", "NF\r\n"),
        ("ms a 1 ME\r\ny\r\n", "HD\r\n"),
        ("md a\r\n", "NF\r\n"),
        ("md a I\r\n", "NF\r\n"),
        ("ma a\r\n", "NF\r\n"),
        ("ma a N0 J7 v\r\n", "VA 1\r\n7\r\n"),
        ("me a\r\n", "EN\r\n"),
    ];
    for (request, reply) in verbs {
        clock.conn.round("set a 0 10 1\r\n5\r\n", "STORED\r\n");
        clock.advance(10);
        clock.conn.round(request, reply);
        // The next one begins without an item.
        clock.conn.ask("md a\r\n");
    }
    clock.conn.expect_nothing();
}

#[test]
fn what_moves_an_exptime_and_what_leaves_it() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    let keeps = [
        "append a 0 900 1\r\n1\r\n",
        "prepend a 0 900 1\r\n1\r\n",
        "incr a 1\r\n",
        "decr a 1\r\n",
        "ma a\r\n",
        "get a\r\n",
        "gets a\r\n",
        "mg a\r\n",
        "mg a R1\r\n",
    ];
    for request in keeps {
        clock.conn.round("set a 0 10 1\r\n5\r\n", "STORED\r\n");
        clock.advance(5);
        clock.conn.send(request);
        clock.conn.send("mn\r\n");
        clock.conn.read_until(b"MN\r\n");
        clock.conn.round("mg a t\r\n", "HD t5\r\n");
        clock.advance(5);
        assert!(
            !clock.is_there("a"),
            "{request:?} made the item live longer"
        );
    }
    let moves = [
        "touch a 20\r\n",
        "gat 20 a\r\n",
        "gats 20 a\r\n",
        "mg a T20\r\n",
        "ma a T20\r\n",
        "set a 0 20 1\r\n5\r\n",
        "replace a 0 20 1\r\n5\r\n",
        "ms a 1 T20\r\n5\r\n",
    ];
    for request in moves {
        clock.conn.round("set a 0 10 1\r\n5\r\n", "STORED\r\n");
        clock.advance(5);
        clock.conn.send(request);
        clock.conn.send("mn\r\n");
        clock.conn.read_until(b"MN\r\n");
        clock.advance(19);
        clock.conn.round("mg a t\r\n", "HD t1\r\n");
        clock.advance(1);
        assert!(
            !clock.is_there("a"),
            "{request:?} made the item live too long"
        );
    }
}

#[test]
fn flush_all_with_a_delay() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    clock
        .conn
        .round("set old 0 0 1\r\nx\r\nflush_all 10\r\n", "STORED\r\nOK\r\n");
    clock.advance(5);
    clock.conn.round(
        "set between 0 0 1\r\nx\r\nget old\r\n",
        "STORED\r\nVALUE old 0 1\r\nx\r\nEND\r\n",
    );
    clock.advance(3);
    assert!(
        clock.is_there("old") && clock.is_there("between"),
        "two seconds too early"
    );
    clock.advance(2);
    assert!(
        !clock.is_there("old") && !clock.is_there("between"),
        "not flushed in time"
    );
    clock.conn.round(
        "set new 0 0 1\r\nx\r\nget new\r\n",
        "STORED\r\nVALUE new 0 1\r\nx\r\nEND\r\n",
    );
    clock.advance(1000);
    assert!(clock.is_there("new"), "flushed twice");
}

#[test]
fn flush_all_at_a_point_in_time() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    let now = clock.conn.stat("time");
    clock.conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    clock
        .conn
        .round(format!("flush_all {}\r\n", now + 100), "OK\r\n");
    clock.advance(98);
    assert!(clock.is_there("a"));
    clock.advance(3);
    assert!(!clock.is_there("a"));
}

#[test]
fn a_second_flush_all_takes_the_place_of_one_that_waits() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    clock.conn.round(
        "set a 0 0 1\r\nx\r\nflush_all 10\r\nflush_all 100\r\n",
        "STORED\r\nOK\r\nOK\r\n",
    );
    clock.advance(50);
    assert!(clock.is_there("a"));
    clock.advance(51);
    assert!(!clock.is_there("a"));
}

#[test]
fn a_flush_all_at_once_takes_the_place_of_one_that_waits() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    clock
        .conn
        .round("flush_all 10\r\nflush_all\r\n", "OK\r\nOK\r\n");
    clock.conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    clock.advance(100);
    assert!(clock.is_there("a"));
}

#[test]
fn an_absolute_exptime_meets_the_moved_clock() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    clock.advance(5000);
    let now = clock.conn.stat("time");
    clock
        .conn
        .round(format!("set a 0 {} 1\r\nx\r\n", now + 60), "STORED\r\n");
    clock.conn.round("mg a t\r\n", "HD t60\r\n");
    clock.advance(60);
    assert!(!clock.is_there("a"));
}

#[test]
fn last_access_is_counted_in_seconds() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    clock.conn.round(
        "set a 0 0 1\r\nx\r\nmg a l h u\r\n",
        "STORED\r\nHD l0 h0\r\n",
    );
    clock.advance(100);
    clock
        .conn
        .round("mg a l u\r\nmg a l\r\n", "HD l100\r\nHD l100\r\n");
    clock.advance(70);
    // Seen 70 s ago; an access is noted once a minute at most.
    clock.conn.round("mg a l h\r\n", "HD l70 h1\r\n");
}

/// Nobody asks for them again; the memory comes back all the same.
#[test]
fn expired_items_are_found_by_themselves() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    let mut stores = String::new();
    for i in 0..1000 {
        stores += &format!("set short{i} 0 10 4 noreply\r\n{i:04}\r\n");
        stores += &format!("set long{i} 0 0 4 noreply\r\n{i:04}\r\n");
    }
    clock.conn.round(stores + "mn\r\n", "MN\r\n");
    assert_eq!(clock.conn.stat("curr_items"), 2000);
    clock.advance(11);
    clock.conn.round("debugtime r\r\n", "OK\r\n");
    let server = &clock.server;
    wait_within("the expired half has gone", Duration::from_secs(75), || {
        server.stat("curr_items") == 1000
    });
    for i in (0..1000).step_by(113) {
        assert!(clock.is_there(&format!("long{i}")), "long{i}");
    }
}

#[test]
fn a_crawl_finds_expired_items_at_once() {
    let Some(mut clock) = Clock::start(&[]) else {
        return;
    };
    let mut stores = String::new();
    for i in 0..500 {
        stores += &format!(
            "set short{i} 0 10 4 noreply\r\n{i:04}\r\nset long{i} 0 0 4 noreply\r\n{i:04}\r\n"
        );
    }
    clock.conn.round(stores + "mn\r\n", "MN\r\n");
    clock.advance(10);
    clock.conn.round("lru_crawler crawl all\r\n", "OK\r\n");
    let server = &clock.server;
    wait_within(
        "the crawler has taken the expired half",
        Duration::from_secs(10),
        || server.stat("curr_items") == 500,
    );
}
