//! Clients that do the worst a client can: what others feel of it, and what the server is left with.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use ketch_testing::{Conn, PATIENCE, Server, is_ketch, wait_within};

/// What 500 small gets take beside all else that goes on: the longest, and that which 99 in 100 do not pass.
fn felt_by_others(conn: &mut Conn) -> (Duration, Duration) {
    conn.round("set small 0 0 5\r\nvalue\r\n", "STORED\r\n");
    let mut took: Vec<Duration> = (0..500)
        .map(|_| {
            let begin = Instant::now();
            conn.round("get small\r\n", "VALUE small 0 5\r\nvalue\r\nEND\r\n");
            begin.elapsed()
        })
        .collect();
    took.sort();
    (took[499], took[494])
}

fn used_chunks(conn: &mut Conn) -> u64 {
    let slabs = conn.stats("slabs");
    let used = slabs
        .iter()
        .filter(|(key, _)| key.ends_with(":used_chunks"));
    used.map(|(_, count)| count.parse::<u64>().expect("a number"))
        .sum()
}

/// 260,000 keys in one `get`, and then some 30 MB of keys whose line never ends: each is answered as it is read, and
/// neither is kept.
#[test]
fn a_list_of_keys_without_end() {
    if !is_ketch() {
        // memcached keeps the line whole, and closes above 64 KB of it without a space.
        return;
    }
    const KEYS: usize = 260_000;
    let server = Server::start(&["-t", "1"]);
    let mut conn = server.connect();
    for n in 0..10 {
        assert_eq!(conn.set(&format!("key{n}"), b"value"), "STORED");
    }
    let before = server.rss_kb();
    let mut reader = server.connect();
    let mut writer = reader.clone_for_writing();
    let request: String = (0..KEYS).map(|n| format!(" key{}", n % 20)).collect();
    let sending = std::thread::spawn(move || {
        writer.send(format!("get{request}\r\nmn\r\n"));
        writer
    });
    let ten: String = (0..10)
        .map(|n| format!("VALUE key{n} 0 5\r\nvalue\r\n"))
        .collect();
    for _ in 0..KEYS / 20 {
        reader.expect(&*ten);
    }
    reader.expect("END\r\nMN\r\n");
    let mut writer = sending.join().expect("all is sent");
    println!("others: {:?}", felt_by_others(&mut conn));

    writer.send("get");
    let misses = " none".repeat(20_000);
    for _ in 0..300 {
        writer.send(&misses);
    }
    println!("others: {:?}", felt_by_others(&mut conn));
    let grown = server.rss_kb().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KB for a list of keys");
    writer.send(" key3\r\n");
    reader.expect("VALUE key3 0 5\r\nvalue\r\nEND\r\n");
}

/// What is no list of keys and has no newline is cut off after a megabyte, of the gigabyte that is sent. A key without an
/// end in a list of keys is passed over for as long as it comes, and nothing of it is kept.
#[test]
fn a_gigabyte_without_a_newline() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-t", "1"]);
    let mut conn = server.connect();
    conn.expect_nothing();
    let before = server.rss_kb();
    let part = vec![b'x'; 1 << 20];
    for begin in ["", "set k 0 0 ", "mg k ", "lru_crawler ", "\u{1}"] {
        let mut sender = server.connect();
        sender.send(begin);
        let sent = (0..1024)
            .take_while(|_| sender.try_send(&part).is_ok())
            .count();
        // What the two sockets hold is not yet read.
        assert!(sent < 64, "{begin}: {sent} MB were taken");
    }
    let mut sender = server.connect();
    sender.send("get ");
    for _ in 0..100 {
        sender.send(&part);
    }
    println!("others: {:?}", felt_by_others(&mut conn));
    let grown = server.rss_kb().saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KB for lines without an end");
    sender.send("\r\nmn\r\n");
    sender.expect_like("CLIENT_ERROR {*}\r\nMN\r\n");
    drop(sender);
    wait_within("they are gone", PATIENCE, || {
        conn.stat("curr_connections") == 1
    });
}

/// A hundred clients ask for a hundred values of 900 KB each, and read none of them.
#[test]
fn a_hundred_readers_of_ninety_megabytes() {
    const CLIENTS: usize = 100;
    const VALUES: usize = 100;
    let server = Server::start(&["-m", "256", "-t", "2"]);
    let mut conn = server.connect();
    let value = vec![b'v'; 900_000];
    for n in 0..VALUES {
        assert_eq!(conn.set(&format!("big{n}"), &value), "STORED");
    }
    let before = server.rss_kb();
    let list: String = (0..VALUES).map(|n| format!(" big{n}")).collect();
    let mut deaf: Vec<Conn> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut deaf {
        client.send(format!("get{list}\r\nmn\r\n"));
    }
    let (longest, p99) = felt_by_others(&mut conn);
    let grown = server.rss_kb().saturating_sub(before);
    println!("{grown} KB, others waited for {p99:?}, once {longest:?}");
    if is_ketch() {
        assert!(grown < 16 << 10, "{grown} KB for replies that nobody reads");
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    // One of them reads after all.
    let mut reads = deaf.swap_remove(CLIENTS / 2);
    for n in 0..VALUES {
        reads.expect(format!("VALUE big{n} 0 900000\r\n"));
        assert!(reads.take(value.len()) == value, "big{n}");
        reads.expect("\r\n");
    }
    reads.expect("END\r\nMN\r\n");
    drop(deaf);
    wait_within("they are gone", PATIENCE, || {
        conn.stat("curr_connections") <= 4
    });
}

/// Readers that take nothing keep the values they asked for in memory. When a store finds none for that, they give way; one
/// that reads goes on, and so do those that hold little.
#[test]
fn readers_that_take_nothing_give_way_to_stores() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-m", "64", "-t", "2"]);
    let mut conn = server.connect();
    let value = vec![b'v'; 900_000];
    for n in 0..80 {
        assert_eq!(conn.set(&format!("big{n}"), &value), "STORED");
    }
    // Each of the values that are there is held by somebody.
    let there: Vec<usize> = (0..80)
        .filter(|n| conn.get(&format!("big{n}")).is_some())
        .collect();
    let mut deaf: Vec<Conn> = there.iter().map(|_| server.connect()).collect();
    for (n, client) in there.iter().zip(&mut deaf) {
        let list = format!(" big{n}").repeat(30);
        client.send(format!("get{list}\r\n"));
    }
    wait_within("all of them wait to be read", PATIENCE, || {
        let conns = conn.stats("conns");
        let writing = conns.values().filter(|state| *state == "conn_mwrite");
        writing.count() == there.len()
    });
    let mut stored_in_row = 0;
    let mut keys = 0..;
    wait_within("stores find memory again", PATIENCE, || {
        let line = conn.set(&format!("new{}", keys.next().unwrap_or(0)), &value);
        let is_stored = line == "STORED";
        assert!(is_stored || line.starts_with("SERVER_ERROR "), "{line}");
        stored_in_row = if is_stored { stored_in_row + 1 } else { 0 };
        stored_in_row == 200
    });
    let gone = conn.stat("ketch_readers_given_way");
    let all = there.len() as u64;
    assert!((1..all).contains(&gone), "{gone} of {all} have given way");
    println!(
        "{gone} readers have given way, {} stores were refused",
        conn.stat("store_no_memory")
    );
    drop(deaf);
    wait_within("nothing is held", PATIENCE, || {
        conn.stat("ketch_unread_bytes") == 0
    });
}

/// Clients that are cut in whatever state a connection can be leave nothing behind: no chunk, no buffer, no place.
#[test]
fn clients_cut_in_every_state() {
    if !is_ketch() {
        return;
    }
    const EACH: usize = 10;
    let server = Server::start(&["-m", "64", "-c", "2000"]);
    let mut conn = server.connect();
    for n in 0..20 {
        assert_eq!(conn.set(&format!("big{n}"), &vec![b'b'; 900_000]), "STORED");
    }
    for n in 0..2000 {
        conn.send(format!("set item{n} 0 0 5 noreply\r\nvalue\r\n"));
    }
    conn.expect_nothing();
    let items = conn.stat("curr_items");
    let some_kb = "x".repeat(3000);
    let large: String = (0..20).map(|n| format!(" big{n}")).collect();
    let states: [(&str, String); 14] = [
        ("nothing asked", String::new()),
        ("half a line", "get item".to_owned()),
        (
            "half a list of keys",
            format!("get{}", " item1".repeat(1000)),
        ),
        ("half a header", "\u{0}".to_owned()),
        ("a block, not begun", "set item1 0 0 100\r\n".to_owned()),
        (
            "a block of one chunk",
            format!("set item2 0 0 5000\r\n{some_kb}"),
        ),
        ("a chained block", format!("ms item3 900000\r\n{some_kb}")),
        (
            "a block that grows an item",
            format!("append big1 0 0 9000\r\n{some_kb}"),
        ),
        (
            "a block that is too large",
            format!("set none 0 0 9000000\r\n{some_kb}"),
        ),
        (
            "a list of nodes",
            format!("config set cluster 0 9000\r\n{some_kb}"),
        ),
        (
            "values that it does not read",
            format!("get{large}\r\n").repeat(5),
        ),
        (
            "lines that it does not read",
            "get item1 item2 item3\r\n".repeat(3000),
        ),
        ("a dump", "lru_crawler metadump all\r\n".to_owned()),
        ("a report", "stats conns\r\n".repeat(100)),
    ];
    for round in 0..4 {
        let mut clients = Vec::new();
        for _ in 0..EACH {
            for (state, bytes) in &states {
                let mut client = server.connect();
                client.note = (*state).to_owned();
                // Who does not read cannot send all of a long pipeline.
                let _ = client.try_send(bytes);
                clients.push(client);
            }
        }
        conn.round("get item5\r\n", "VALUE item5 0 5\r\nvalue\r\nEND\r\n");
        for (nth, client) in clients.into_iter().enumerate() {
            match (nth + round) % 2 {
                0 => client.cut(),
                _ => drop(client),
            }
        }
        wait_within("they are gone", PATIENCE, || {
            conn.stat("curr_connections") == 1
        });
        let stats = conn.stats("");
        for kept in ["ketch_block_bytes", "read_buf_bytes"] {
            assert_eq!(stats[kept], "0", "round {round}: {kept}");
        }
    }
    assert_eq!(conn.stat("curr_items"), items);
    // Of the four places for dumps none was kept.
    assert_eq!(conn.ask("lru_crawler metadump all\r\n"), "OK");
    conn.read_until(b"END\r\n");
    conn.round("flush_all\r\n", "OK\r\n");
    for n in 0..20 {
        assert_eq!(conn.get(&format!("big{n}")), None);
    }
    for n in 0..2000 {
        conn.send(format!("get item{n}\r\n"));
        conn.expect("END\r\n");
    }
    wait_within("no chunk is held", PATIENCE, || {
        used_chunks(&mut conn) == conn.stat("curr_items")
    });
}

/// When the system gives no memory, those who do not take their replies are closed for it, and the others go on.
#[test]
fn a_server_without_memory_keeps_those_who_hold_none() {
    if !is_ketch() {
        // memcached closes others: whoever happens to need memory.
        return;
    }
    // With one heap there is nothing set aside for each thread.
    let heap = [("MALLOC_ARENA_MAX", "1")];
    let server = Server::start_in(&heap, &["-m", "64", "-t", "2", "-c", "4000"]);
    let mut good = server.connect();
    let value = "x".repeat(3900);
    good.round(format!("set some 0 0 3900\r\n{value}\r\n"), "STORED\r\n");
    server.allow_more_memory(16 << 20);
    let mut bad = Vec::new();
    let refused = |good: &mut Conn| good.stat("response_obj_oom");
    // Each keeps some 300 KB of copies, once the socket has its share: 3,000 of them would be a gigabyte.
    while refused(&mut good) == 0 {
        assert!(bad.len() < 3000, "memory without end");
        // Who comes while there is none is closed.
        let Some(mut conn) = server.try_connect() else {
            continue;
        };
        let _ = conn.try_send("get some\r\n".repeat(2000));
        bad.push(conn);
    }
    for _ in 0..100 {
        good.round(
            "get some\r\n",
            format!("VALUE some 0 3900\r\n{value}\r\nEND\r\n"),
        );
    }
    drop(bad);
    wait_within("a new client is taken", PATIENCE, || {
        let conn = server.try_connect();
        conn.is_some_and(|mut conn| {
            conn.try_send("version\r\n").is_ok() && conn.try_line().is_some()
        })
    });
    good.round("set other 0 0 1\r\n1\r\n", "STORED\r\n");
}

/// Little address space at the start: what is not needed now is not reserved.
#[test]
fn a_server_starts_where_addresses_are_few() {
    let program = std::env::temp_dir().join(format!("ketch-test-{}-few", std::process::id()));
    for megabytes in [160u32, 200, 300, 500, 1000] {
        let binary = ketch_testing::binary();
        let script = format!(
            "#!/bin/sh\nexec prlimit --as={} {} \"$@\"\n",
            u64::from(megabytes) << 20,
            binary.display()
        );
        std::fs::write(&program, script).expect("a script");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a script");
        let server = Server::start_program(&program, &["-m", "64", "-t", "2"]);
        server.connect().round("set a 0 0 1\r\n1\r\n", "STORED\r\n");
    }
    let _ = std::fs::remove_file(&program);
}
