//! How long a connection may do nothing, how many there may be, and that one hears why it is over.

use ketch_testing::packet::{op::*, packet, store};
use ketch_testing::{Conn, PATIENCE, Server, is_ketch, wait_within};

const REFUSED: &str = "ERROR Too many open connections\r\n";

/// Idle is who owes the next command. Who is in the middle of a value, or slow to take one, is at work.
#[test]
fn idle_is_who_owes_a_command() {
    let server = Server::start(&["-o", "idle_timeout=1", "-t", "2"]);
    let value = vec![b'v'; 900_000];
    assert_eq!(server.connect().set("big", &value), "STORED");
    let open = |bytes: &[u8]| {
        let mut conn = server.connect();
        conn.send(bytes);
        conn
    };
    let ten = store(SET, "c", "0123456789").bytes();
    let (some, rest) = ten.split_at(ten.len() - 4);
    let mut idle: Vec<Conn> = [
        &b""[..],
        b"get a",
        b"get a b",
        &some[..20],
        b"mn\r\n",
        &packet(NOOP, "", "").bytes(),
    ]
    .map(open)
    .into();
    idle[4].expect("MN\r\n");
    assert_eq!(idle[5].expect_packet().show(), "0a 00");
    let mut text = open(b"set a 0 0 10\r\n0123");
    let mut meta = open(b"ms b 10\r\n");
    let mut binary = open(some);
    let mut refused = open(b"set huge 0 0 2000000\r\nabc");
    let mut deaf = open("get big\r\n".repeat(40).as_bytes());

    let mut busy = server.connect();
    wait_within("the idle ones are gone", PATIENCE, || {
        busy.expect_nothing();
        idle.iter().all(|conn| !conn.is_quiet())
    });
    for conn in &mut idle {
        conn.closed();
    }
    // One more second for those that are to stay, to be sent away by mistake.
    let uptime = busy.stat("uptime");
    wait_within("time goes on", PATIENCE, || {
        busy.stat("uptime") > uptime + 1
    });
    assert_eq!(busy.stat("idle_kicks"), 6);
    text.round("456789\r\n", "STORED\r\n");
    meta.round("0123456789\r\n", "HD\r\n");
    binary.send(rest);
    assert_eq!(binary.expect_packet().status, 0);
    let mut left = vec![b'x'; 2_000_000 - 3];
    left.extend_from_slice(b"\r\nmn\r\n");
    refused.round(left, "SERVER_ERROR object too large for cache\r\nMN\r\n");
    for _ in 0..40 {
        deaf.expect("VALUE big 0 900000\r\n");
        assert!(deaf.take(value.len()) == value);
        deaf.expect("\r\nEND\r\n");
    }
}

#[test]
fn nobody_is_idle_on_a_unix_socket() {
    let server = Server::start_unix(&["-o", "idle_timeout=1"]);
    let (mut silent, mut busy) = (server.connect(), server.connect());
    let uptime = busy.stat("uptime");
    wait_within("time goes on", PATIENCE, || {
        busy.stat("uptime") > uptime + 3
    });
    silent.expect_nothing();
    assert_eq!(busy.stat("idle_kicks"), 0);
}

/// Without the option nobody is counted, and the key is not there.
#[test]
fn without_a_timeout_there_are_no_kicks() {
    let server = Server::start(&[]);
    let stats = server.stats("");
    assert!(!stats.contains_key("idle_kicks"));
    assert_eq!(server.stats("settings")["idle_timeout"], "0");
}

/// What a client sends that is hung up on, and what it is told before.
fn last_words() -> Vec<(Vec<u8>, Vec<u8>)> {
    let junk = vec![b'j'; 300_000];
    let reply = |opcode: u8, status: u8, text: &str| {
        let mut reply = vec![
            0x81,
            opcode,
            0,
            0,
            0,
            0,
            0,
            status,
            0,
            0,
            0,
            text.len() as u8,
        ];
        reply.resize(24, 0);
        reply.extend_from_slice(text.as_bytes());
        reply
    };
    let noop = packet(NOOP, "", "").bytes();
    vec![
        (
            packet(GET, "k".repeat(300), &junk).bytes(),
            reply(GET, 4, "Invalid arguments"),
        ),
        (
            packet(GET, "k", &junk).bytes(),
            reply(GET, 4, "Invalid arguments"),
        ),
        (
            [
                packet(GET, "", "").bytes_lying((4, 1, 4), b""),
                junk.clone(),
            ]
            .concat(),
            reply(GET, 0x81, "Unknown command"),
        ),
        ([&noop[..], &junk].concat(), reply(NOOP, 0, "")),
        (
            [b"mn\r\nGET / HTTP/1.1\r\n", &junk[..]].concat(),
            b"MN\r\n".to_vec(),
        ),
        ([b"mn\r\nset ", &junk[..]].concat(), b"MN\r\n".to_vec()),
    ]
}

/// However much a client still has to send: it hears the answer and a proper end, not a reset.
#[test]
fn the_last_words_arrive() {
    if !is_ketch() {
        // memcached closes with unread bytes in the socket, which is a reset.
        return;
    }
    let unix = Server::start_unix(&[]);
    let tcp = Server::start(&[]);
    for server in [&unix, &tcp] {
        for round in 0..10 {
            for (request, reply) in last_words() {
                let mut conn = server.connect();
                conn.note = format!("round {round}: {}", ketch_testing::escape(&request[..30]));
                conn.send(request);
                conn.expect(reply);
                conn.ended();
            }
        }
        wait_within("the places are free", PATIENCE, || {
            server.stat("curr_connections") <= 2
        });
    }
}

/// Who is hung up on and neither goes nor stops sending holds its place for a few seconds, and for a megabyte.
#[test]
fn whoever_does_not_go_is_cut_off() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-c", "8", "-t", "1"]);
    let mut stays: Vec<Conn> = (0..5).map(|_| server.connect()).collect();
    for conn in &mut stays {
        conn.send(packet(GET, "", "").bytes());
        assert_eq!(conn.expect_packet().status, 4);
        conn.ended();
    }
    assert!(
        server
            .stats("conns")
            .values()
            .any(|state| state == "conn_closing")
    );
    let mut sends = server.connect();
    sends.send(packet(GET, "", "").bytes());
    let mut sent = 0;
    while sends.try_send([b'x'; 1000]).is_ok() {
        sent += 1000;
        assert!(sent < 100_000_000, "{sent} bytes were taken");
    }
    wait_within("the places are free", PATIENCE, || {
        server.stat("curr_connections") <= 2
    });
    drop(stays);
}

/// The line why there is no place arrives though the request is there already.
#[test]
fn a_refusal_arrives() {
    if !is_ketch() {
        // memcached needs some of the places for itself, and closes with the request unread.
        return;
    }
    let server = Server::start(&["-c", "4", "-t", "1"]);
    let mut conn = server.connect();
    let taken: Vec<Conn> = (0..3).map(|_| server.connect()).collect();
    assert_eq!(conn.stat("max_connections"), 4);
    wait_within("all places are taken", PATIENCE, || {
        conn.stat("curr_connections") == 4
    });
    for i in 1..=50 {
        let mut refused = server.connect();
        let _ = refused.try_send("get a\r\n");
        refused.expect(REFUSED);
        refused.closed();
        assert_eq!(conn.stat("rejected_connections"), i);
    }
    assert_eq!(conn.stat("total_connections"), 4);
    assert_eq!(conn.stat("listen_disabled_num"), 0);
    assert_eq!(conn.stat("accepting_conns"), 1);
    assert_eq!(conn.stat("time_in_listen_disabled_us"), 0);
    drop(taken);
}

/// `no_maxconns_fast`: nobody is refused, and how long they wait is counted.
#[test]
fn clients_wait_in_the_backlog() {
    if !is_ketch() {
        // memcached waits only when the process has no descriptors left.
        return;
    }
    let server = Server::start(&["-c", "4", "-t", "1", "-o", "no_maxconns_fast"]);
    let mut conn = server.connect();
    let mut taken: Vec<Conn> = (0..3).map(|_| server.connect()).collect();
    for other in &mut taken {
        other.expect_nothing();
    }
    let mut waits = server.connect();
    waits.send("mn\r\n");
    wait_within("nobody is accepted", PATIENCE, || {
        conn.stat("accepting_conns") == 0
    });
    assert_eq!(conn.stat("listen_disabled_num"), 1);
    assert_eq!(conn.stat("curr_connections"), 4);
    assert!(waits.is_quiet());
    taken.pop();
    waits.expect("MN\r\n");
    assert!(conn.stat("time_in_listen_disabled_us") > 0);
    drop((waits, taken));
    wait_within("places are free", PATIENCE, || {
        conn.stat("accepting_conns") == 1
    });
    assert_eq!(conn.stat("rejected_connections"), 0);
    assert_eq!(conn.stat("total_connections"), 5);
    conn.round("stats reset\r\n", "RESET\r\n");
    assert_eq!(conn.stat("listen_disabled_num"), 0);
    assert_eq!(conn.stat("time_in_listen_disabled_us"), 0);
}

/// A process that has no descriptors left leaves clients waiting, and says so.
#[test]
fn clients_wait_for_a_descriptor() {
    if !is_ketch() {
        // memcached takes its backlog away as well, so that not even connecting ends.
        return;
    }
    let server = Server::start(&["-t", "1"]);
    let mut conn = server.connect();
    conn.expect_nothing();
    server.allow_more_files(2);
    let clients: Vec<Conn> = (0..6).map(|_| server.connect()).collect();
    wait_within("nobody is accepted", PATIENCE, || {
        conn.stat("accepting_conns") == 0
    });
    assert!(conn.stat("listen_disabled_num") >= 1);
    assert_eq!(conn.stat("rejected_connections"), 0);
    // A stop interrupts every wait of the server, which must not forget whom it has to look after.
    server.freeze(true);
    server.freeze(false);
    drop(clients);
    wait_within("clients are accepted", PATIENCE, || {
        conn.stat("accepting_conns") == 1
    });
    assert!(conn.stat("time_in_listen_disabled_us") > 0);
    server.connect().expect_nothing();
}
