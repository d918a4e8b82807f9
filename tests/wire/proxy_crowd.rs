//! Many clients of a proxy at once, some of whom do not send, or do not read: nobody else pays for it, and memory has a bound.

use std::io::{Read, Write};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ketch_testing::{Conn, PATIENCE, Server, is_ketch, wait_within};

use crate::proxy::{false_node, pool, pool_of, proxy};

/// A node that is slow, on a machine that is busy, is no failed one.
const PATIENT: &str =
    "attempt_timeout_ms = 60000\nrequest_timeout_ms = 60000\nconnect_timeout_ms = 60000";

/// Bytes of a value of those that hold much.
const LARGE: usize = 900_000;

/// The head of a store, whose value is to follow.
fn head(at: usize) -> String {
    format!("set k{at} 0 0 {LARGE}\r\n")
}

/// Somebody else is served meanwhile.
fn others_are_served(conn: &mut Conn) {
    for round in 0..20 {
        let value = "v".repeat(5000 + round);
        conn.round(
            format!("set other 0 0 {}\r\n{value}\r\nget other\r\n", value.len()),
            format!(
                "STORED\r\nVALUE other 0 {}\r\n{value}\r\nEND\r\n",
                value.len()
            ),
        );
    }
}

#[test]
fn values_that_are_half_sent_have_a_bound() {
    if !is_ketch() {
        return;
    }
    let node = Server::start(&["-t", "1", "-m", "1024"]);
    // With 64 MB three quarters are the most.
    let proxy = proxy(&pool([&node], PATIENT), &["-c", "2048", "-m", "64"]);
    let before = proxy.rss_kb();
    let half = vec![b'x'; LARGE / 2];
    let mut slow: Vec<Conn> = (0..300).map(|_| proxy.connect()).collect();
    for (at, conn) in slow.iter_mut().enumerate() {
        conn.send(head(at));
        conn.send(&half);
    }
    others_are_served(&mut proxy.connect());
    let grown = proxy.rss_kb().saturating_sub(before);
    assert!(grown < 90_000, "{grown} KB");
    let (mut stored, mut refused) = (0, 0);
    for conn in &mut slow {
        conn.send(&half);
        match &conn.ask("\r\n")[..] {
            "STORED" => stored += 1,
            "SERVER_ERROR out of memory storing object" => refused += 1,
            other => panic!("{other}"),
        }
        conn.round("get none\r\n", "END\r\n");
    }
    assert!(stored > 20 && refused > 20, "{stored}, {refused}");
}

/// What many clients store through a proxy before two nodes that stand still: the memory that it takes meanwhile, in KB, and what
/// each client is told in the end. If all that they send is read, whatever is kept of it, that is waited for.
fn before_frozen_nodes(
    memory: &str,
    copies: usize,
    (request, replies): (&[u8], usize),
    all_is_read: bool,
) -> (u64, Vec<String>) {
    let nodes = [(); 2].map(|()| Server::start(&["-t", "1", "-m", "1024"]));
    let more = format!("copies = {copies}\n{PATIENT}");
    let proxy = proxy(
        &pool(&nodes, &more),
        &["-t", "1", "-c", "2048", "-m", memory],
    );
    // The connections are there.
    others_are_served(&mut proxy.connect());
    let before = proxy.rss_kb();
    nodes.iter().for_each(|node| node.freeze(true));
    let mut writers = Vec::new();
    for _ in 0..250 {
        let conn = proxy.connect();
        let (mut writer, request) = (conn.clone_for_writing(), request.to_vec());
        writers.push((conn, thread::spawn(move || writer.send(request))));
    }
    // What does not wait for a node is answered.
    let mut other = proxy.connect();
    let begun = Instant::now();
    let mut grown = 0;
    let is_read = |writers: &[(Conn, thread::JoinHandle<()>)]| {
        !all_is_read || writers.iter().all(|(_, writer)| writer.is_finished())
    };
    while begun.elapsed() < Duration::from_secs(2) || !is_read(&writers) {
        assert!(begun.elapsed() < PATIENCE, "not all is read");
        other.round("mn\r\n", "MN\r\n");
        grown = grown.max(proxy.rss_kb().saturating_sub(before));
        thread::sleep(Duration::from_millis(20));
    }
    nodes.iter().for_each(|node| node.freeze(false));
    let mut told = Vec::new();
    for (mut conn, writer) in writers {
        told.extend((0..replies).map(|_| conn.expect_line()));
        writer.join().expect("all was sent");
    }
    (grown, told)
}

/// Values that have come whole, and clients that come back with more.
#[test]
fn values_that_wait_for_nodes_have_a_bound() {
    if !is_ketch() {
        return;
    }
    let large = [head(1).as_bytes(), &vec![b'x'; LARGE], b"\r\n"].concat();
    // Who lags gives way until a quarter is held, which is 35 values.
    let (grown, told) = before_frozen_nodes("128", 1, (&large, 1), true);
    assert!(grown < 150_000, "{grown} KB");
    let stored = told.iter().filter(|line| *line == "STORED").count();
    let refused = told.iter().filter(|line| line.contains("out of memory"));
    assert!(stored > 20, "{stored}");
    assert_eq!(stored + refused.count(), told.len(), "{told:?}");

    // Of small ones nobody is refused: who sends more waits.
    let small = format!("set k 0 0 8000\r\n{}\r\n", "x".repeat(8000));
    let (grown, told) = before_frozen_nodes("64", 2, (small.repeat(50).as_bytes(), 50), false);
    assert!(grown < 120_000, "{grown} KB");
    assert!(told.iter().all(|line| line == "STORED"), "{:?}", told[0]);
}

#[test]
fn replies_that_nobody_takes_have_a_bound() {
    if !is_ketch() {
        return;
    }
    let node = Server::start(&["-t", "1"]);
    // With 8 MB, 6 are the most.
    let proxy = proxy(
        &pool([&node], PATIENT),
        &["-t", "1", "-c", "2048", "-m", "8"],
    );
    let mut conn = proxy.connect();
    assert_eq!(conn.set("large", &vec![b'x'; LARGE]), "STORED");
    let mut greedy: Vec<Conn> = (0..40).map(|_| proxy.connect()).collect();
    for conn in &mut greedy {
        // More than the socket takes: kernels buffer some megabytes.
        conn.send("get large\r\n".repeat(30));
    }
    wait_within("somebody has to go", PATIENCE, || {
        others_are_served(&mut conn);
        proxy.stat("ketch_readers_given_way") > 30
    });
    // Who reads has all of it.
    let mut reader = proxy.connect();
    for _ in 0..30 {
        assert_eq!(reader.get("large").map(|value| value.len()), Some(LARGE));
    }
}

/// A reply that has come while the proxy was busy with other clients, more than one poll tells of, is not late.
#[test]
fn a_reply_that_stands_behind_many_clients_is_in_time() {
    if !is_ketch() {
        return;
    }
    const TIMEOUT: Duration = Duration::from_secs(2);
    let ((asked, is_asked), (reply, to_reply)) = (mpsc::channel(), mpsc::channel());
    let to_reply = Mutex::new(to_reply);
    let port = false_node(move |mut stream| {
        let mut buffer = [0; 4096];
        let mut seen = Vec::new();
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..n]);
            if seen.ends_with(b"get first\r\n") {
                // To the trace of the proxy, and to the client.
                let _ = stream.write_all(b"END\r\nEND\r\n");
            } else if seen.ends_with(b"get slow\r\n") {
                asked.send(()).expect("the test waits");
                let to_reply = to_reply.lock().expect("nobody panics");
                to_reply.recv().expect("the test says when");
                let _ = stream.write_all(b"END\r\n");
            }
        }
    });
    let more = format!("attempt_timeout_ms = {}", TIMEOUT.as_millis());
    let proxy = proxy(&pool_of([port], &more), &["-t", "1", "-c", "2048"]);
    let mut others: Vec<Conn> = (0..600).map(|_| proxy.connect()).collect();
    for conn in &mut others {
        conn.round("mn\r\n", "MN\r\n");
    }
    let mut conn = proxy.connect();
    conn.round("get first\r\n", "END\r\n");
    conn.send("get slow\r\n");
    is_asked.recv_timeout(PATIENCE).expect("the node is asked");
    proxy.freeze(true);
    for conn in &mut others {
        conn.send("mn\r\n");
    }
    reply.send(()).expect("the node waits");
    thread::sleep(TIMEOUT + Duration::from_millis(100));
    proxy.freeze(false);
    conn.expect("END\r\n");
    for conn in &mut others {
        conn.expect("MN\r\n");
    }
}
