//! incr and decr.

use ketch_testing::{Server, Vector, both, newer, ours, run_vectors};

const NAMES_THE_FAULT: &str = "1.6.18 answers a plain ERROR to a line with too few words";
const BEGINS_WITH: &str =
    "memcached takes the number that a value begins with, and what follows is lost";
const NOT_A_NUMBER: &str =
    "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";

const VECTORS: &[Vector] = &[
    both("incr n 1\r\n", "NOT_FOUND\r\n"),
    both("decr n 1\r\n", "NOT_FOUND\r\n"),
    both("incr n 1 noreply\r\ndecr n 1 noreply\r\n", ""),
    both(
        "set n 0 0 1\r\n5\r\nincr n 1\r\ndecr n 2\r\nget n\r\n",
        "STORED\r\n6\r\n4\r\nVALUE n 0 1\r\n4\r\nEND\r\n",
    ),
    both(
        "set n 0 0 1\r\n5\r\nincr n 1 noreply\r\ndecr n 3 noreply\r\nget n\r\n",
        "STORED\r\nVALUE n 0 1\r\n3\r\nEND\r\n",
    ),
    both(
        "set n 0 0 1\r\n5\r\nincr n 0\r\ndecr n 0\r\n",
        "STORED\r\n5\r\n5\r\n",
    ),
    // A longer number makes a longer value; flags and exptime stay.
    both(
        "set n 7 100 2\r\n99\r\nincr n 1\r\nget n\r\nmg n t\r\n",
        "STORED\r\n100\r\nVALUE n 7 3\r\n100\r\nEND\r\nHD t{100}\r\n",
    ),
    // A shorter one is padded with blanks in the item, not in the reply.
    both(
        "set n 0 0 2\r\n10\r\ndecr n 1\r\nget n\r\n",
        "STORED\r\n9\r\nVALUE n 0 2\r\n9 \r\nEND\r\n",
    ),
    both(
        "set n 0 0 2\r\n10\r\ndecr n 1\r\nincr n 1\r\nget n\r\n",
        "STORED\r\n9\r\n10\r\nVALUE n 0 2\r\n10\r\nEND\r\n",
    ),
    both(
        "set n 0 0 3\r\n100\r\ndecr n 200\r\nget n\r\n",
        "STORED\r\n0\r\nVALUE n 0 3\r\n0  \r\nEND\r\n",
    ),
    // decr stops at 0, incr wraps at 2^64.
    both(
        "set n 0 0 1\r\n5\r\ndecr n 18446744073709551615\r\n",
        "STORED\r\n0\r\n",
    ),
    both(
        "set n 0 0 20\r\n18446744073709551614\r\nincr n 1\r\nincr n 1\r\n",
        "STORED\r\n18446744073709551615\r\n0\r\n",
    ),
    both(
        "set n 0 0 1\r\n1\r\nincr n 18446744073709551615\r\n",
        "STORED\r\n0\r\n",
    ),
    both(
        "set n 0 0 1\r\n2\r\nincr n 18446744073709551614\r\n",
        "STORED\r\n0\r\n",
    ),
    both(
        "set n 0 0 20\r\n18446744073709551615\r\ndecr n 1\r\n",
        "STORED\r\n18446744073709551614\r\n",
    ),
    // What counts as a number.
    both(
        "set n 0 0 20\r\n00000000000000000005\r\nincr n 1\r\n",
        "STORED\r\n6\r\n",
    ),
    both("set n 0 0 2\r\n1 \r\nincr n 1\r\n", "STORED\r\n2\r\n"),
    both("set n 0 0 4\r\n1   \r\ndecr n 1\r\n", "STORED\r\n0\r\n"),
    ours(
        BEGINS_WITH,
        "set n 0 0 3\r\n1 2\r\nincr n 1\r\n",
        NOT_A_NUMBER,
    ),
    ours(
        BEGINS_WITH,
        "set n 0 0 2\r\n 1\r\nincr n 1\r\n",
        NOT_A_NUMBER,
    ),
    ours(
        BEGINS_WITH,
        "set n 0 0 2\r\n+1\r\nincr n 1\r\n",
        NOT_A_NUMBER,
    ),
    ours(
        BEGINS_WITH,
        "set n 0 0 2\r\n1\t\r\nincr n 1\r\n",
        NOT_A_NUMBER,
    ),
    ours(
        BEGINS_WITH,
        "set n 0 0 2\r\n1\n\r\nincr n 1\r\n",
        NOT_A_NUMBER,
    ),
    ours(
        BEGINS_WITH,
        "set n 0 0 2\r\n-0\r\nincr n 1\r\n",
        NOT_A_NUMBER,
    ),
    ours(
        BEGINS_WITH,
        "set n 3 0 13\r\n2 years later\r\nincr n 1\r\ndecr n 1 noreply\r\nma n N0 J5\r\nget n\r\n",
        "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\nVALUE n 3 13\r\n2 years later\r\nEND\r\n",
    ),
    both(
        "set n 0 0 20\r\n18446744073709551616\r\nincr n 1\r\n",
        NOT_A_NUMBER,
    ),
    both("set n 0 0 0\r\n\r\nincr n 1\r\n", NOT_A_NUMBER),
    both("set n 0 0 1\r\nx\r\nincr n 1\r\n", NOT_A_NUMBER),
    both("set n 0 0 2\r\n1a\r\nincr n 1\r\n", NOT_A_NUMBER),
    both("set n 0 0 2\r\n-1\r\nincr n 1\r\n", NOT_A_NUMBER),
    both("set n 0 0 3\r\n1.5\r\nincr n 1\r\n", NOT_A_NUMBER),
    both("set n 0 0 1\r\nx\r\ndecr n 1\r\n", NOT_A_NUMBER),
    both(
        "set n 0 0 1\r\nx\r\ndecr n 1 noreply\r\nget n\r\n",
        "STORED\r\nVALUE n 0 1\r\nx\r\nEND\r\n",
    ),
    // What counts as a delta.
    both(
        "incr n x\r\n",
        "CLIENT_ERROR invalid numeric delta argument\r\n",
    ),
    both(
        "incr n -1\r\n",
        "CLIENT_ERROR invalid numeric delta argument\r\n",
    ),
    both(
        "incr n 1x\r\n",
        "CLIENT_ERROR invalid numeric delta argument\r\n",
    ),
    both(
        "decr n 18446744073709551616\r\n",
        "CLIENT_ERROR invalid numeric delta argument\r\n",
    ),
    both("incr n x noreply\r\n", ""),
    newer(
        NAMES_THE_FAULT,
        "incr\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "incr n\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "decr n\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    // Nothing of an item that cannot be counted is changed.
    both(
        "set n 3 0 3\r\nabc\r\nincr n 1\r\nget n\r\n",
        "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\nVALUE n 3 3\r\nabc\r\nEND\r\n",
    ),
];

#[test]
fn vectors() {
    run_vectors(&Server::start(&[]), VECTORS);
}

#[test]
fn a_number_that_grows_through_all_lengths() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("set n 0 0 1\r\n1\r\n", "STORED\r\n");
    let mut model: u64 = 1;
    while let Some(next) = model.checked_mul(10) {
        conn.round(
            format!("incr n {}\r\n", next - model),
            format!("{next}\r\n"),
        );
        model = next;
        let text = model.to_string();
        conn.round(
            "get n\r\n",
            format!("VALUE n 0 {}\r\n{text}\r\nEND\r\n", text.len()),
        );
    }
    conn.round("decr n 9999999999999999999\r\n", "1\r\n");
    assert_eq!(
        conn.get("n").map(|value| value.len()),
        Some(20),
        "padded to the length it had"
    );
}

#[test]
fn a_value_of_any_size_can_be_asked() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    for size in [21, 1000, 100_000, 1_000_000] {
        assert_eq!(conn.set("n", &vec![b'7'; size]), "STORED");
        conn.round("incr n 1\r\n", NON_NUMERIC);
        assert_eq!(conn.set("n", &vec![b' '; size]), "STORED");
        conn.round("decr n 1\r\n", NON_NUMERIC);
    }
    conn.expect_nothing();
}
