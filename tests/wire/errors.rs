//! Lines that are no commands: what is answered, and when the server hangs up instead.

use ketch_testing::{Server, Vector, both, is_ketch, newer, run_vectors};

const EMPTY_LINE: &str = "1.6.18 answers a plain ERROR to an empty line";
const TOO_SHORT: &str = "1.6.18 answers a plain ERROR to a line of one letter";

const VECTORS: &[Vector] = &[
    both("foo\r\n", "ERROR\r\n"),
    both("foo bar\r\n", "ERROR\r\n"),
    both("foo bar baz qux noise noise\r\n", "ERROR\r\n"),
    both("SET a 0 0 1\r\n", "ERROR\r\n"),
    both("sett a 0 0 1\r\n", "ERROR\r\n"),
    both("foo\n", "ERROR\r\n"),
    both("12345\r\n", "ERROR\r\n"),
    newer(
        "1.6.18 skips a space before the command",
        " version\r\n",
        "ERROR\r\n",
    ),
    newer(
        EMPTY_LINE,
        "\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(EMPTY_LINE, "\n", "CLIENT_ERROR bad command line format\r\n"),
    newer(
        TOO_SHORT,
        "a\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both("mx\r\n", "ERROR\r\n"),
    both("gett a\r\n", "ERROR\r\n"),
    both("ge a\r\n", "ERROR\r\n"),
    both("\u{fc}\u{fc}\u{fc}\r\n", "ERROR\r\n"),
    // The connection goes on; what follows is answered.
    both(
        "foo\r\nset a 0 0 1\r\nx\r\nbar\r\nget a\r\n",
        "ERROR\r\nSTORED\r\nERROR\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    ),
    both("incr\u{1}a 1\r\nmn\r\n", "ERROR\r\nMN\r\n"),
    // A key whose name is a request line is a key.
    both("get / HTTP/1.1\r\n", "END\r\n"),
    both(
        "set HTTP/1.1 0 0 1\r\nx\r\nget HTTP/1.1\r\n",
        "STORED\r\nVALUE HTTP/1.1 0 1\r\nx\r\nEND\r\n",
    ),
];

#[test]
fn vectors() {
    run_vectors(&Server::start(&[]), VECTORS);
}

#[test]
fn a_browser_is_hung_up_on() {
    let server = Server::start(&[]);
    let requests = [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
        "POST /foo HTTP/1.0\r\nContent-Length: 11\r\n\r\nflush_all\r\n",
        "OPTIONS * HTTP/2\r\n",
    ];
    let mut other = server.connect();
    other.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    for request in requests {
        let mut conn = server.connect();
        conn.send(request);
        conn.closed();
        // What came before is answered first.
        let mut conn = server.connect();
        conn.send(format!("mn\r\n{request}"));
        let answers = conn.read_to_end();
        assert!(
            answers == b"MN\r\n" || !is_ketch() && answers.is_empty(),
            "{}",
            ketch_testing::escape(&answers)
        );
    }
    other.round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn four_kilobytes_of_blanks_are_hung_up_on() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.send(" ".repeat(4096));
    conn.closed();
    // The same before a word that would be allowed to be long.
    let mut conn = server.connect();
    conn.send(" ".repeat(4096) + "get ");
    conn.closed();
}

#[test]
fn a_line_without_an_end_is_hung_up_on() {
    let server = Server::start(&[]);
    for start in [
        "", "set ", "ms ", "delete ", "stats ", "x", "getx ", "version ",
    ] {
        let mut conn = server.connect();
        let line = format!("{start}{}", "x".repeat(2048 - start.len()));
        // As much as a line may have, and no more is asked for.
        conn.send(&line);
        conn.send("yyyy");
        conn.closed();
    }
    // In pieces, each of them short.
    let mut conn = server.connect();
    for _ in 0..30 {
        if conn.try_send("z".repeat(100)).is_err() {
            break;
        }
    }
    conn.closed();
}

#[test]
fn a_line_just_within_its_limit_is_answered() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    for len in [100, 1000, 2000, 2044] {
        conn.send("x".repeat(len));
        conn.send("\r\nmn\r\n");
        conn.expect("ERROR\r\nMN\r\n");
        conn.send(format!("delete {}", "x".repeat(len - 7)));
        conn.send("\r\n");
        if len > 257 {
            conn.expect("CLIENT_ERROR bad command line format\r\n");
        } else {
            conn.expect("NOT_FOUND\r\n");
        }
    }
}

#[test]
fn a_get_may_be_as_long_as_it_likes() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let verbs: &[&str] = if is_ketch() {
        &["get", "gets", "gat 0", "gats 0"]
    } else {
        // memcached hangs up on the two others, for no reason that a client could know.
        &["get", "gets"]
    };
    for verb in verbs {
        for pieces in [1, 2, 7] {
            let keys = " some:key:that:is:not:there".repeat(5000 / pieces);
            conn.send(verb);
            for _ in 0..pieces {
                conn.send(&keys);
            }
            conn.send(" a\r\nmn\r\n");
            let cas = if verb.contains("ts") { " {n}" } else { "" };
            conn.expect_like(&format!("VALUE a 0 1{cas}\r\nx\r\nEND\r\nMN\r\n"));
        }
    }
}

#[test]
fn a_get_without_an_end_has_a_limit_too() {
    if !is_ketch() {
        // memcached buffers it without a bound.
        return;
    }
    let server = Server::start(&[]);
    let before = server.rss_kb();
    let mut conn = server.connect();
    let keys = " some:key:that:is:not:there".repeat(40_000);
    conn.send("get");
    for _ in 0..200 {
        // Hung up on, answered with an error, or swallowed: all right, as long as it is not kept.
        if conn.try_send(&keys).is_err() {
            break;
        }
    }
    server.connect().round("mn\r\n", "MN\r\n");
    let grown = server.rss_kb().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KB for one line");
}

#[test]
fn a_thousand_faults_in_one_write() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let request = "nonsense here\r\nincr a x\r\ntouch a x\r\nmg a v v\r\nget a\r\n".repeat(1000);
    let reply = "ERROR\r\nCLIENT_ERROR invalid numeric delta argument\r\nCLIENT_ERROR invalid exptime argument\r\n\
                 CLIENT_ERROR duplicate flag\r\nEND\r\n";
    conn.round(request, reply.repeat(1000));
    conn.expect_nothing();
}

/// A first byte of 0x80 chooses the binary protocol; with it forbidden the connection is of no use.
#[test]
fn control_bytes_do_no_harm() {
    let server = Server::start(&[]);
    for first in (0..=255u8).filter(|&byte| byte != 0x80 && byte != b'\n') {
        let mut conn = server.connect();
        conn.send([&[first, first, first, first][..], b"\r\nmn\r\n"].concat());
        let line = conn.expect_line();
        assert_eq!(line, "ERROR", "{first:#x}");
        conn.expect("MN\r\n");
    }
}
