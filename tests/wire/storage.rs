//! set, add, replace, append, prepend, cas; what is refused, and that a refused body is never run as commands.

use ketch_testing::{Conn, Rng, Server, Vector, both, is_ketch, newer, ours, run_vectors};

const NAMES_THE_FAULT: &str = "1.6.18 answers a plain ERROR to a line with too few words";
const EMPTY_LINE: &str = "1.6.18 answers a plain ERROR to an empty line";
const SWALLOWS: &str = "1.6.18 runs the body of a store with bad numbers as commands";
const CHECKS_FLAGS: &str = "1.6.18 cuts client flags to 32 bits without a word";

const VECTORS: &[Vector] = &[
    both("set a 0 0 1\r\nx\r\n", "STORED\r\n"),
    both(
        "set a 0 0 1 noreply\r\nx\r\nget a\r\n",
        "VALUE a 0 1\r\nx\r\nEND\r\n",
    ),
    both(
        "set  a  0  0  1 \r\nx\r\nget a\r\n",
        "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    ),
    both(
        "set a 1 0 1\r\nx\r\nset a 2 0 3\r\nnew\r\nget a\r\n",
        "STORED\r\nSTORED\r\nVALUE a 2 3\r\nnew\r\nEND\r\n",
    ),
    both(
        "add a 3 0 1\r\nx\r\nadd a 4 0 1\r\ny\r\nget a\r\n",
        "STORED\r\nNOT_STORED\r\nVALUE a 3 1\r\nx\r\nEND\r\n",
    ),
    both(
        "add a 3 0 1 noreply\r\nx\r\nadd a 4 0 1 noreply\r\ny\r\nget a\r\n",
        "VALUE a 3 1\r\nx\r\nEND\r\n",
    ),
    both("replace a 0 0 1\r\nx\r\nget a\r\n", "NOT_STORED\r\nEND\r\n"),
    both(
        "set a 1 0 1\r\nx\r\nreplace a 2 0 2\r\nyy\r\nget a\r\n",
        "STORED\r\nSTORED\r\nVALUE a 2 2\r\nyy\r\nEND\r\n",
    ),
    both(
        "append a 0 0 1\r\nx\r\nprepend a 0 0 1\r\nx\r\nget a\r\n",
        "NOT_STORED\r\nNOT_STORED\r\nEND\r\n",
    ),
    // append and prepend keep the item's own flags and exptime.
    both(
        "set a 9 100 1\r\nm\r\nappend a 1 1 2\r\nzz\r\nprepend a 2 2 2\r\naa\r\nget a\r\nmg a t s\r\n",
        "STORED\r\nSTORED\r\nSTORED\r\nVALUE a 9 5\r\naamzz\r\nEND\r\nHD t{100} s5\r\n",
    ),
    both(
        "set a 0 0 1\r\nm\r\nappend a 0 0 0\r\n\r\nget a\r\n",
        "STORED\r\nSTORED\r\nVALUE a 0 1\r\nm\r\nEND\r\n",
    ),
    both(
        "append a 0 0 1 noreply\r\nx\r\nreplace a 0 0 1 noreply\r\nx\r\nget a\r\n",
        "END\r\n",
    ),
    both("set a 0 -1 1\r\nx\r\nget a\r\n", "STORED\r\nEND\r\n"),
    both(
        "set a 0 1 1\r\nx\r\nset a 0 -1 1\r\ny\r\nget a\r\n",
        "STORED\r\nSTORED\r\nEND\r\n",
    ),
    // cas
    both("cas a 0 0 1 1\r\nx\r\nget a\r\n", "NOT_FOUND\r\nEND\r\n"),
    both("cas a 0 0 1 1 noreply\r\nx\r\nget a\r\n", "END\r\n"),
    both(
        "set a 0 0 1\r\nx\r\ncas a 0 0 1 18446744073709551615\r\ny\r\nget a\r\n",
        "STORED\r\nEXISTS\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    ),
    both(
        "set a 0 0 1\r\nx\r\ncas a 0 0 1 18446744073709551615 noreply\r\ny\r\nget a\r\n",
        "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    ),
    // The body is bytes; its end is at its length and nowhere else.
    both(
        "set a 0 0 12\r\nget b\r\nget b\r\nget a\r\n",
        "STORED\r\nVALUE a 0 12\r\nget b\r\nget b\r\nEND\r\n",
    ),
    // A body that is too long is refused; what is too much is the next command.
    newer(
        EMPTY_LINE,
        "set a 0 0 1\r\nxyz\r\n",
        "CLIENT_ERROR bad data chunk\r\nCLIENT_ERROR bad command line format\r\n",
    ),
    // An old value stays: the store has not happened.
    both(
        "set a 0 0 1\r\nx\r\nset a 0 0 3\r\nyyyyyyy\r\nget a\r\n",
        "STORED\r\nCLIENT_ERROR bad data chunk\r\nERROR\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "set\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "set a\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "add a 0 0\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both(
        "set a 0 0 -1\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    ours(
        CHECKS_FLAGS,
        "set a 4294967296 0 1\r\nx\r\nget a\r\n",
        "CLIENT_ERROR bad command line format\r\nEND\r\n",
    ),
    newer(
        SWALLOWS,
        "set a -1 0 1\r\nx\r\nget a\r\n",
        "CLIENT_ERROR bad command line format\r\nEND\r\n",
    ),
    newer(SWALLOWS, "set a x 0 1 noreply\r\nx\r\nget a\r\n", "END\r\n"),
];

#[test]
fn vectors() {
    run_vectors(&Server::start(&[]), VECTORS);
}

#[test]
fn cas_stores_once() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("set a 1 0 1\r\nx\r\n", "STORED\r\n");
    let first = conn.cas_of("a");
    conn.round(format!("cas a 2 0 1 {first}\r\ny\r\n"), "STORED\r\n");
    let second = conn.cas_of("a");
    assert!(
        second > first,
        "a CAS unique grows with each store: {first}, {second}"
    );
    conn.round(format!("cas a 3 0 1 {first}\r\nz\r\n"), "EXISTS\r\n");
    conn.round("get a\r\n", "VALUE a 2 1\r\ny\r\nEND\r\n");
    // Every way to change a value changes its CAS unique; a touch and a read do not.
    let mut last = second;
    for change in [
        "append a 0 0 1\r\n1\r\n",
        "prepend a 0 0 1\r\n1\r\n",
        "set a 0 0 1\r\n5\r\n",
        "replace a 0 0 1\r\n5\r\n",
        "incr a 1\r\n",
        "decr a 1\r\n",
    ] {
        conn.ask(change);
        let now = conn.cas_of("a");
        assert!(now != last, "{change:?} left the CAS unique as it was");
        last = now;
    }
    conn.round(
        "touch a 0\r\nget a\r\n",
        "TOUCHED\r\nVALUE a 0 1\r\n5\r\nEND\r\n",
    );
    assert_eq!(conn.cas_of("a"), last);
    conn.round("delete a\r\n", "DELETED\r\n");
    conn.round(format!("cas a 0 0 1 {last}\r\nx\r\n"), "NOT_FOUND\r\n");
}

#[test]
fn without_cas_every_unique_is_0() {
    let server = Server::start(&["-C"]);
    let mut conn = server.connect();
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    conn.round("gets a\r\n", "VALUE a 0 1 0\r\nx\r\nEND\r\n");
    // 0 tells nobody from who stored in between, so no store that compares goes through.
    for request in [
        "cas a 0 0 1 0\r\ny\r\n",
        "cas a 0 0 1 5\r\ny\r\n",
        "cas a 0 0 1 0\r\ny\r\n",
    ] {
        conn.round(request, "EXISTS\r\n");
    }
    conn.round("cas none 0 0 1 0\r\ny\r\n", "NOT_FOUND\r\n");
    for flags in ["C0", "C5", "C0 I", "C5 I", "MR C0"] {
        conn.round(format!("ms a 1 {flags}\r\ny\r\n"), "EX\r\n");
    }
    conn.round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    if is_ketch() {
        // memcached forgets the unique it is to compare and appends.
        conn.round("ms a 1 MA C5\r\ny\r\n", "EX\r\n");
        conn.round("ms a 2 E9\r\nhi\r\nmg a v C0 c\r\n", "HD\r\nHD c0\r\n");
    }
}

#[test]
fn nobody_compares_the_unique_0() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    conn.round("cas a 0 0 1 0\r\ny\r\n", "EXISTS\r\n");
    conn.round("cas none 0 0 1 0\r\ny\r\n", "NOT_FOUND\r\n");
    if is_ketch() {
        // Given by E, which 1.6.18 does not know: still nobody's.
        conn.round(
            "md a I E0\r\ngets a\r\n",
            "HD\r\nVALUE a 0 1 0\r\nx\r\nEND\r\n",
        );
        conn.round("cas a 0 0 1 0\r\ny\r\n", "EXISTS\r\n");
        conn.round("ms a 1 C0\r\ny\r\n", "EX\r\n");
    }
    conn.round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn every_size_from_0_to_1_mb() {
    let server = Server::start(&["-m", "256"]);
    let mut conn = server.connect();
    let mut rng = Rng::from_env("every_size_from_0_to_1_mb");
    let mut sizes: Vec<usize> = (0..300).collect();
    for bits in 9..20 {
        let power = 1 << bits;
        sizes.extend([
            power - 50,
            power - 2,
            power - 1,
            power,
            power + 1,
            power + 2,
        ]);
    }
    sizes.extend([
        16_382, 16_386, 100_000, 524_287, 700_001, 1_000_000, 1_048_000,
    ]);
    for _ in 0..60 {
        sizes.push(rng.below(1_000_000) as usize);
    }
    for size in sizes {
        let value = rng.bytes(size);
        assert_eq!(conn.set("sized", &value), "STORED", "{size} bytes");
        assert!(
            conn.get("sized") == Some(value),
            "another value of {size} bytes came back"
        );
    }
    conn.expect_nothing();
}

#[test]
fn append_and_prepend_grow_an_item_through_all_classes() {
    let server = Server::start(&["-m", "128"]);
    let mut conn = server.connect();
    let mut rng = Rng::new(3);
    let mut model = rng.bytes(10);
    assert_eq!(conn.set("grow", &model), "STORED");
    while model.len() < 900_000 {
        // Steps grow with what is there, so that the walk to 900 KB takes some 60 of them.
        let step = 1 + rng.below(model.len() as u64 / 2 + 4) as usize;
        let part = rng.bytes(step);
        let verb = if rng.one_in(2) { "append" } else { "prepend" };
        conn.send(
            [
                format!("{verb} grow 0 0 {}\r\n", part.len()).as_bytes(),
                &part,
                b"\r\n",
            ]
            .concat(),
        );
        conn.expect("STORED\r\n");
        if verb == "append" {
            model.extend_from_slice(&part);
        } else {
            model.splice(0..0, part);
        }
        assert!(
            conn.get("grow").as_ref() == Some(&model),
            "wrong after a {verb} to {} bytes",
            model.len()
        );
    }
}

#[test]
fn a_value_too_large_is_swallowed_and_the_old_one_is_gone() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let size = 1024 * 1024;
    let body = "flush_all\r\n".repeat(size / 11 + 1);
    let body = &body[..size];
    let stores = [
        (
            format!("set big 0 0 {size}\r\n{body}\r\n"),
            "SERVER_ERROR object too large for cache\r\n",
        ),
        (format!("set big 0 0 {size} noreply\r\n{body}\r\n"), ""),
        (
            format!("ms big {size}\r\n{body}\r\n"),
            "SERVER_ERROR object too large for cache\r\n",
        ),
        (
            format!("ms big {size} q\r\n{body}\r\n"),
            "SERVER_ERROR object too large for cache\r\n",
        ),
    ];
    for (request, reply) in &stores {
        conn.round(
            "set marker 0 0 1\r\nm\r\nset big 0 0 3\r\nold\r\n",
            "STORED\r\nSTORED\r\n",
        );
        conn.round(request, reply);
        conn.round("get marker big\r\n", "VALUE marker 0 1\r\nm\r\nEND\r\n");
    }
    // The other verbs leave the old value: nothing has been said about it that is no longer true.
    for verb in ["add", "replace", "append", "prepend", "cas"] {
        conn.round("set big 0 0 3\r\nold\r\n", "STORED\r\n");
        let unique = if verb == "cas" { " 1" } else { "" };
        conn.round(
            format!("{verb} big 0 0 {size}{unique}\r\n{body}\r\n"),
            "SERVER_ERROR object too large for cache\r\n",
        );
        conn.round(
            "get marker big\r\n",
            "VALUE marker 0 1\r\nm\r\nVALUE big 0 3\r\nold\r\nEND\r\n",
        );
    }
    // A length near 1 GB costs no memory, and a client that gives up half-way harms nobody.
    let before = server.rss_kb();
    conn.send(format!("set big 0 0 1000000000\r\n{body}"));
    server
        .connect()
        .round("get marker\r\n", "VALUE marker 0 1\r\nm\r\nEND\r\n");
    drop(conn);
    let mut conn = server.connect();
    conn.round("get marker\r\n", "VALUE marker 0 1\r\nm\r\nEND\r\n");
    let grown = server.rss_kb().saturating_sub(before);
    assert!(grown < 4096, "{grown} KB for a value that was refused");
}

/// A client that writes all before it reads takes an early answer for that of its next request.
#[test]
fn a_refusal_follows_the_block() {
    if std::env::var_os("KETCH_TEST_TLS").is_some() {
        return println!("under TLS a peer that is silent may still have records to send");
    }
    // One worker, so that who asks next is answered next.
    let server = Server::start(&["-t", "1"]);
    let (mut conn, mut other) = (server.connect(), server.connect());
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    let bad = "CLIENT_ERROR bad command line format\r\n";
    let size = 1 << 20;
    let body = vec![b'x'; size];
    let mut cases = vec![
        ("cas k 0 0 SIZE 1", too_large),
        ("cas k 0 0 SIZE 1 noreply", ""),
    ];
    let verbs = ["set", "add", "replace", "append", "prepend"];
    let lines = verbs.map(|verb| {
        (
            format!("{verb} k 0 0 SIZE"),
            format!("{verb} k 0 0 SIZE noreply"),
        )
    });
    for (line, noreply) in &lines {
        cases.extend([(line.as_str(), too_large), (noreply, "")]);
    }
    for line in ["ms k SIZE", "ms k SIZE q", "ms k SIZE C1", "ms k SIZE MA q"] {
        cases.push((line, too_large));
    }
    let long = "k".repeat(251);
    let (set_long, ms_long) = (format!("set {long} 0 0 SIZE"), format!("ms {long} SIZE"));
    if server.is_current() {
        cases.extend([
            (set_long.as_str(), bad),
            (&ms_long, bad),
            ("set k x 0 SIZE", bad),
            ("set k x 0 SIZE noreply", ""),
            ("cas k 0 0 SIZE", bad),
        ]);
    }
    for (line, reply) in cases {
        conn.note = line.to_owned();
        let line = line.replace("SIZE", &size.to_string());
        conn.send([line.as_bytes(), b"\r\n", &body[..500_000]].concat());
        other.expect_nothing();
        assert!(conn.is_quiet(), "{line}: answered half-way");
        conn.send([&body[500_000..], b"\r"].concat());
        other.expect_nothing();
        assert!(conn.is_quiet(), "{line}: answered before the end");
        conn.round("\nmn\r\n", format!("{reply}MN\r\n"));
    }
}

/// Which old values a store that is too large takes with it: in text those of `set`, in meta all.
#[test]
fn a_value_too_large_for_ms_takes_the_old_one_in_every_mode() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let (size, body) = (1 << 20, "x".repeat(1 << 20));
    for flags in [
        "", "q", "MS", "ME", "MR", "MA", "MP", "C1", "C1 I", "MR C1", "MA C1", "MA N0",
    ] {
        conn.note = flags.to_owned();
        conn.round("set big 0 0 3\r\nold\r\n", "STORED\r\n");
        conn.round(
            format!("ms big {size} {flags}\r\n{body}\r\n"),
            "SERVER_ERROR object too large for cache\r\n",
        );
        conn.round("get big\r\n", "END\r\n");
    }
}

/// Nobody means more than any item can have, and nobody waits for it. What follows may be a block: none of it is run.
#[test]
fn a_length_that_nobody_can_mean_ends_the_connection() {
    if !is_ketch() {
        return println!("memcached waits for 2 GB, or runs the block");
    }
    let server = Server::start(&[]);
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    let bad = "CLIENT_ERROR bad command line format\r\n";
    for (line, reply) in [
        ("set k 0 0 1073741825", too_large),
        ("set k 0 0 1073741825 noreply", ""),
        ("append k 0 0 2147483645", too_large),
        ("ms k 2147483645 q", too_large),
        ("set k 0 0 2147483646", bad),
        ("set k 0 0 2147483647 noreply", bad),
        ("cas k 0 0 4294967295 1", bad),
        ("set k 0 0 18446744073709551616", bad),
        ("add k 0 0 99999999999999999999999999", bad),
        ("ms k 4294967296", bad),
        ("set k x 0 2000000000", bad),
        (
            "ms k 2000000000 Tx",
            "CLIENT_ERROR bad token in command line format\r\n",
        ),
        ("config set cluster 0 2000000000", too_large),
    ] {
        let mut conn = server.connect();
        conn.note = line.to_owned();
        conn.round("set marker 0 0 1\r\nm\r\n", "STORED\r\n");
        conn.round(format!("{line}\r\nflush_all\r\nmn\r\n"), reply);
        conn.closed();
        server
            .connect()
            .round("get marker\r\n", "VALUE marker 0 1\r\nm\r\nEND\r\n");
    }
    // The old value of a set that is too large is gone here too.
    let mut conn = server.connect();
    conn.round("set k 0 0 1\r\nk\r\n", "STORED\r\n");
    conn.round("set k 0 0 2000000000\r\n", too_large);
    conn.closed();
    server.connect().round("get k\r\n", "END\r\n");
}

#[test]
fn append_beyond_the_largest_item_is_refused() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let part = vec![b'p'; 600_000];
    assert_eq!(conn.set("a", &part), "STORED");
    conn.send([b"append a 0 0 600000\r\n", part.as_slice(), b"\r\n"].concat());
    let answer = conn.expect_line();
    assert!(
        answer.starts_with("SERVER_ERROR") || answer == "NOT_STORED",
        "{answer}"
    );
    conn.expect_nothing();
    assert!(
        conn.get("a").is_none_or(|value| value == part),
        "neither the old value nor none"
    );
}

/// Sends a store whose body reads `flush_all`, and shows by a marker that it was not run.
#[track_caller]
fn is_swallowed(conn: &mut Conn, line: &str, reply: &str) {
    conn.round("set marker 0 0 1\r\nm\r\n", "STORED\r\n");
    for cut in [line.len() + 2, 3, line.len() + 1, line.len() + 5] {
        let request = format!("{line}\r\nflush_all\r\n");
        let (first, second) = request.split_at(cut);
        conn.send(first);
        conn.send(second);
        conn.send("get marker\r\n");
        conn.expect_like(&format!("{reply}VALUE marker 0 1\r\nm\r\nEND\r\n"));
    }
    conn.expect_nothing();
}

/// 1.6.18 runs most of these bodies; newer ones swallow most of them. ketch swallows all whose length can be read.
#[test]
fn a_refused_text_store_never_runs_its_body() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let long = "k".repeat(251);
    let longer = "k".repeat(1500);
    let bad = "CLIENT_ERROR bad command line format\r\n";
    for verb in ["set", "add", "replace", "append", "prepend"] {
        is_swallowed(&mut conn, &format!("{verb} {long} 0 0 9"), bad);
        is_swallowed(&mut conn, &format!("{verb} {longer} 0 0 9"), bad);
        is_swallowed(&mut conn, &format!("{verb} a -1 0 9"), bad);
        is_swallowed(&mut conn, &format!("{verb} a x 0 9"), bad);
        is_swallowed(&mut conn, &format!("{verb} a 4294967296 0 9"), bad);
        is_swallowed(&mut conn, &format!("{verb} a 0 x 9"), bad);
        is_swallowed(&mut conn, &format!("{verb} a x 0 9 noreply"), "");
        is_swallowed(&mut conn, &format!("{verb} {long} 0 0 9 noreply"), "");
    }
    is_swallowed(&mut conn, "cas a 0 0 9 x", bad);
    is_swallowed(&mut conn, "cas a 0 0 9 -1", bad);
    is_swallowed(&mut conn, "cas a 0 0 9 18446744073709551616", bad);
    is_swallowed(&mut conn, "cas a 0 0 9", bad);
    is_swallowed(&mut conn, "cas a 0 0 9 x noreply", "");
    is_swallowed(&mut conn, &format!("cas {long} 0 0 9 1"), bad);
    // Refused for what is in the cache, not for the line.
    is_swallowed(&mut conn, "add marker 0 0 9", "NOT_STORED\r\n");
    is_swallowed(&mut conn, "add marker 0 0 9 noreply", "");
    is_swallowed(&mut conn, "replace none 0 0 9", "NOT_STORED\r\n");
    is_swallowed(&mut conn, "append none 0 0 9", "NOT_STORED\r\n");
    is_swallowed(&mut conn, "cas none 0 0 9 5", "NOT_FOUND\r\n");
    is_swallowed(&mut conn, "cas marker 0 0 9 999999999", "EXISTS\r\n");
}

/// Words behind the last one known: stored or refused, but the body is a body.
#[test]
fn a_text_store_with_too_many_words_never_runs_its_body() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut conn = server.connect();
    for line in [
        "set a 0 0 9 foo bar".to_string(),
        format!("set a 0 0 9{}", " w".repeat(300)),
    ] {
        conn.round("set marker 0 0 1\r\nm\r\n", "STORED\r\n");
        conn.send(format!("{line}\r\nflush_all\r\nget marker\r\n"));
        let answer = conn.expect_line();
        assert!(
            ["STORED", "CLIENT_ERROR bad command line format", "ERROR"].contains(&answer.as_str()),
            "{answer}"
        );
        conn.expect("VALUE marker 0 1\r\nm\r\nEND\r\n");
    }
}

#[test]
fn a_refused_meta_store_never_runs_its_body() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let mut cases = vec![
        (
            "ms a 9 MX".to_string(),
            "CLIENT_ERROR invalid mode for ms M token\r\n",
        ),
        (
            "ms a 9 Me".to_string(),
            "CLIENT_ERROR invalid mode for ms M token\r\n",
        ),
        (
            "ms a 9 Tx".to_string(),
            "CLIENT_ERROR bad token in command line format\r\n",
        ),
        (
            "ms a 9 Cx".to_string(),
            "CLIENT_ERROR bad token in command line format\r\n",
        ),
        (
            "ms a 9 Fx".to_string(),
            "CLIENT_ERROR bad command line format\r\n",
        ),
        ("ms a 9 k k".to_string(), "CLIENT_ERROR duplicate flag\r\n"),
        ("ms a 9 z".to_string(), "CLIENT_ERROR invalid flag\r\n"),
        (
            "ms a*b 9 b".to_string(),
            "CLIENT_ERROR error decoding key\r\n",
        ),
        (
            format!("ms a 9 O{}", "o".repeat(32)),
            "CLIENT_ERROR opaque token too long\r\n",
        ),
        (
            format!("ms a 9 q O{}", "o".repeat(32)),
            "CLIENT_ERROR opaque token too long\r\n",
        ),
        ("ms marker 9 ME".to_string(), "NS\r\n"),
        ("ms none 9 MR".to_string(), "NS\r\n"),
        ("ms none 9 C5".to_string(), "NF\r\n"),
        ("ms marker 9 C999999999 q".to_string(), "EX\r\n"),
    ];
    let long = "k".repeat(251);
    let flags = " k s v f t c l h u q P L N1 R1 T1 E1 C1 I x F1";
    if is_ketch() {
        // 1.6.45 has another word for a flag that is no letter, and runs the body.
        cases.push(("ms a 9 ?".to_string(), "CLIENT_ERROR invalid flag\r\n"));
        cases.push(("ms a 9 q ?".to_string(), "CLIENT_ERROR invalid flag\r\n"));
        // 1.6.18 runs these bodies.
        cases.push((
            format!("ms {long} 9"),
            "CLIENT_ERROR bad command line format\r\n",
        ));
        cases.push((
            format!("ms {long} 9 q"),
            "CLIENT_ERROR bad command line format\r\n",
        ));
        // 1.6.18 words it otherwise and runs the body.
        cases.push((
            format!("ms a 9{flags}"),
            "CLIENT_ERROR options flags are too long\r\n",
        ));
        // 1.6.18 does not know E.
        cases.push((
            "ms a 9 Ex".to_string(),
            "CLIENT_ERROR bad token in command line format\r\n",
        ));
    }
    for (line, reply) in &cases {
        is_swallowed(&mut conn, line, reply);
    }
}

#[test]
fn bad_end_of_a_body_stores_nothing() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    for line in ["set a 0 0 3", "set a 0 0 3 noreply", "ms a 3", "ms a 3 q"] {
        // The body is two bytes longer than announced; what stands where its end should be is dropped with it.
        let answer = if line.ends_with("noreply") {
            ""
        } else {
            "CLIENT_ERROR bad data chunk\r\n"
        };
        conn.round_like(
            format!("{line}\r\nabcde\r\nmn\r\n"),
            &format!("{answer}{}MN\r\n", surplus()),
        );
        conn.round("get a\r\n", "END\r\n");
    }
}

/// What the two bytes behind `abcde` cost: they are swallowed as the body's end, so an empty line is left.
fn surplus() -> &'static str {
    if is_ketch() {
        "CLIENT_ERROR bad command line format\r\n"
    } else {
        // 1.6.18 says ERROR, 1.6.45 as ketch.
        "{*}\r\n"
    }
}

#[test]
fn noreply_stores_in_one_write() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let mut batch = String::new();
    for i in 0..2000 {
        batch += &format!("set k{i} 0 0 4 noreply\r\n{i:04}\r\n");
        batch += &format!("append k{i} 0 0 1 noreply\r\n!\r\nadd k{i} 0 0 1 noreply\r\nx\r\n");
    }
    conn.round(batch + "mn\r\n", "MN\r\n");
    for i in (0..2000).step_by(97) {
        assert_eq!(
            conn.get(&format!("k{i}")),
            Some(format!("{i:04}!").into_bytes())
        );
    }
}
