//! Data blocks that do not come: how long they are waited for, and that they take no memory from others.

use std::time::{Duration, Instant};

use ketch_testing::{Conn, PATIENCE, Server, allow_files, is_ketch, wait_within};

/// memcached waits for ever, and lets blocks hold all memory.
fn is_reference() -> bool {
    if !is_ketch() {
        println!("a reference waits for ever");
    }
    !is_ketch()
}

/// `count` connections that promise a megabyte each and send the first `sent` bytes.
fn promise(server: &Server, count: usize, sent: usize) -> Vec<Conn> {
    let body = vec![b'b'; sent];
    (0..count)
        .map(|n| {
            let mut conn = server.connect();
            conn.send([format!("set big{n} 0 0 1000000\r\n").as_bytes(), &body].concat());
            conn
        })
        .collect()
}

/// Stores items of a kilobyte until some 10 MB are in.
fn store_some(conn: &mut Conn) -> usize {
    const ITEMS: usize = 10_000;
    let value = "v".repeat(1000);
    for first in (0..ITEMS).step_by(100) {
        let stores: String = (first..first + 100)
            .map(|n| format!("set item{n} 0 0 1000\r\n{value}\r\n"))
            .collect();
        conn.round(stores, "STORED\r\n".repeat(100));
    }
    conn.stat("curr_items") as usize
}

fn kept(conn: &mut Conn) -> usize {
    conn.stat("curr_items") as usize
}

/// Twice the memory is sent by clients that then stop. Others keep what they have and go on storing.
#[test]
fn thousands_of_unfinished_blocks_take_a_part_of_the_memory() {
    if is_reference() {
        return;
    }
    const CLIENTS: usize = 2500;
    allow_files(2 * CLIENTS as u64 + 200);
    for threads in ["1", "4"] {
        let server = Server::start(&["-m", "16", "-c", "5000", "-t", threads]);
        let mut conn = server.connect();
        let before = store_some(&mut conn);
        let mut stopped = promise(&server, CLIENTS, 16 << 10);
        // Small stores go on at once, whoever waits for what.
        for n in 0..1000 {
            conn.note = format!("{threads} workers, small store {n}");
            conn.round(
                format!("set small{n} 0 0 10\r\n0123456789\r\n"),
                "STORED\r\n",
            );
        }
        let after = kept(&mut conn) - 1000;
        assert!(
            after * 10 > before * 6,
            "{after} of {before} items are left"
        );
        // So do large ones, which come in pieces, once it is clear that the others have stopped.
        let large = vec![b'l'; 500_000];
        wait_within("a large value", PATIENCE, || {
            conn.set("large", &large) == "STORED"
        });
        assert!(conn.get("large").as_ref() == Some(&large));
        for n in 0..20 {
            assert_eq!(conn.set(&format!("large{n}"), &large), "STORED", "{n}");
        }
        assert!(conn.stat("ketch_blocks_given_way") > 0);
        // Who had to give way is told when its block is in, and is in step. Others are stored.
        let rest = vec![b'b'; 1_000_000 - (16 << 10)];
        let gave_way = stopped.iter_mut().any(|client| {
            client.send([&rest[..], b"\r\nmn\r\n"].concat());
            let answer = client.expect_line();
            client.expect("MN\r\n");
            let refused = answer == "SERVER_ERROR out of memory storing object";
            assert!(refused || answer == "STORED", "{answer}");
            refused
        });
        assert!(gave_way, "nobody had to give way");
        // When they have left, nothing of them is.
        drop(stopped);
        wait_within("all is given back", PATIENCE, || {
            conn.stat("ketch_block_bytes") == 0
        });
    }
}

/// A byte now and then is no move that would hold memory against others.
#[test]
fn a_drip_gives_way_to_those_who_move() {
    if is_reference() {
        return;
    }
    let server = Server::start(&["-m", "16", "-t", "2"]);
    let mut conn = server.connect();
    // More than there is memory.
    let mut dripping = promise(&server, 40, 500_000);
    let large = vec![b'l'; 900_000];
    let mut stored = 0;
    wait_within("large values", PATIENCE, || {
        for drip in &mut dripping {
            drip.send(b"d");
        }
        stored += usize::from(conn.set("large", &large) == "STORED");
        stored == 20
    });
    let (held, most) = (conn.stat("ketch_block_bytes"), 16 << 20);
    assert!(held <= most / 4, "{held} of {most} bytes");
}

/// Whoever moves is left alone, as long as nobody needs the memory: at 100 KB a second, and at a byte a second too.
#[test]
fn a_slow_upload_arrives() {
    if is_reference() {
        return;
    }
    let server = Server::start(&["-o", "body_timeout=2"]);
    let (mut slow, mut drip) = (server.connect(), server.connect());
    let started = Instant::now();
    slow.send("set slow 0 0 400000\r\n");
    drip.send("set drip 0 0 5\r\n");
    let part = vec![b's'; 20_000];
    for tick in 0..20 {
        slow.send(&part);
        if tick % 4 == 0 {
            drip.send("d");
        }
        let next = started + Duration::from_millis(200) * (tick + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    slow.round("\r\n", "STORED\r\n");
    drip.round("\r\n", "STORED\r\n");
    assert!(started.elapsed() > Duration::from_secs(3));
    assert_eq!(slow.stat("ketch_blocks_timed_out"), 0);
}

/// A block of which nothing comes any more is closed, whatever it is.
#[test]
fn a_block_that_has_stopped_is_not_waited_for() {
    if is_reference() {
        return;
    }
    let server = Server::start(&["-o", "body_timeout=1", "-t", "2"]);
    let open = |bytes: &[u8]| {
        let mut conn = server.connect();
        conn.send(bytes);
        conn
    };
    let mut stopped = [
        open(b"set a 0 0 10\r\n0123"),
        open(b"set a 0 0 500000\r\n0123"),
        open(b"ms b 10\r\n"),
        open(b"set huge 0 0 2000000\r\nabc"),
        open(b"set a x 0 10\r\nabc"),
        open(b"config set cluster 0 10\r\nabc"),
        open(b"\x80\x01\0\x01\x08\0\0\0\0\0\0\x0f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0kabc"),
    ];
    let mut idle = open(b"get a");
    for conn in &mut stopped {
        conn.closed();
    }
    idle.round("\r\n", "END\r\n");
    assert_eq!(idle.stat("ketch_blocks_timed_out"), 7);
    // What a client sees first is that its socket is closed.
    wait_within("all is given back", PATIENCE, || {
        idle.stat("ketch_block_bytes") == 0
    });
    assert_eq!(idle.stats("settings")["ketch_body_timeout"], "1");
    assert_eq!(
        Server::start(&[]).stats("settings")["ketch_body_timeout"],
        "60"
    );
}

/// 0 is never.
#[test]
fn without_a_timeout_a_block_is_waited_for() {
    if is_reference() {
        return;
    }
    let server = Server::start(&["-o", "body_timeout=0"]);
    let (mut waiting, mut conn) = (server.connect(), server.connect());
    waiting.send("set a 0 0 10\r\n0123");
    let uptime = conn.stat("uptime");
    wait_within("time goes on", PATIENCE, || {
        conn.stat("uptime") > uptime + 2
    });
    waiting.round("456789\r\n", "STORED\r\n");
}
