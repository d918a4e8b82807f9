//! Many clients, slow clients, clients that vanish: what each costs, and that the others do not notice.

use std::thread;
use std::time::{Duration, Instant};

use ketch_testing::{Conn, PATIENCE, Rng, Server, allow_files, is_ketch, wait_within};

#[test]
fn five_thousand_idle_clients() {
    allow_files(12_000);
    let server = Server::start(&["-c", "6000"]);
    let mut conn = server.connect();
    conn.round("set k 0 0 5\r\nvalue\r\n", "STORED\r\n");
    let mut clients: Vec<Conn> = (0..200).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.expect_nothing();
    }
    let before = server.rss_kb();
    while clients.len() < 5200 {
        let mut client = server.connect();
        // Each has been busy once: what it used then must be given back.
        client.round("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
        clients.push(client);
    }
    // memcached may count its listening socket, too.
    assert!((5201..=5203).contains(&conn.stat("curr_connections")));
    let bytes = (server.rss_kb().saturating_sub(before)) * 1024 / 5000;
    println!("{bytes} bytes of resident memory for each idle connection");
    if is_ketch() {
        assert!(bytes < 1024, "{bytes} bytes for each idle connection");
    }
    for client in &mut clients {
        client.round("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
    }
    drop(clients);
    wait_within("all have been closed", PATIENCE, || {
        server.open_files() < 200
    });
}

#[test]
fn one_client_too_many_is_told_so() {
    let server = Server::start(&["-c", "64", "-t", "2"]);
    // The first one asks for the numbers and holds one of the places.
    let mut conn = server.connect();
    let mut places = None;
    for round in 0..3 {
        let refused_before = conn.stat("rejected_connections");
        let taken_before = conn.stat("total_connections");
        let clients: Vec<Conn> = (0..200).map(|_| server.connect()).collect();
        let mut refused = 0;
        wait_within("each has been taken or refused", PATIENCE, || {
            refused = conn.stat("rejected_connections") - refused_before;
            let quiet = clients.iter().filter(|client| client.is_quiet()).count() as u64;
            // Those that nobody has accepted yet are quiet too.
            let taken = conn.stat("total_connections") - taken_before;
            taken + refused == 200 && quiet + refused == 200
        });
        let mut taken = 1;
        for mut client in clients {
            if client.is_quiet() {
                client.expect_nothing();
                taken += 1;
            } else {
                client.expect("ERROR Too many open connections\r\n");
                client.closed();
            }
        }
        if is_ketch() {
            assert!((60..=64).contains(&taken), "{taken} places of 64");
            assert_eq!(
                *places.get_or_insert(taken),
                taken,
                "places lost in round {round}"
            );
        } else {
            // memcached keeps some back for itself, and counts a client late.
            assert!((32..=150).contains(&taken), "{taken} places of 64");
        }
        wait_within("the places are free again", PATIENCE, || {
            conn.stat("curr_connections") <= 3
        });
    }
}

#[test]
fn twenty_thousand_connects_and_cuts() {
    let server = Server::start(&["-c", "2000"]);
    let mut conn = server.connect();
    conn.round("set k 0 0 5\r\nvalue\r\n", "STORED\r\n");
    churn(&server, 100);
    wait_within("the first ones are gone", PATIENCE, || {
        conn.stat("curr_connections") <= 4
    });
    let (files, rss) = (server.open_files(), server.rss_kb());
    churn(&server, 4975);
    wait_within("all are gone", PATIENCE, || {
        conn.stat("curr_connections") <= 4
    });
    wait_within("their sockets as well", PATIENCE, || {
        server.open_files() <= files
    });
    let grown = server.rss_kb().saturating_sub(rss);
    assert!(grown < 8 * 1024, "{grown} KB for connections that are gone");
    conn.round("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
    server
        .connect()
        .round("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
}

/// Four threads that connect `rounds` times each, and leave at all possible moments.
fn churn(server: &Server, rounds: u64) {
    thread::scope(|scope| {
        for id in 0..4 {
            scope.spawn(move || {
                for i in 0..rounds {
                    let mut conn = server.connect();
                    match (i + id) % 7 {
                        0 => {}
                        1 => conn.send("get k"),
                        2 => conn.send("set half 0 0 5000\r\nabc"),
                        3 => conn.send("get k\r\n"),
                        4 => conn.round("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n"),
                        5 => conn.send("get k\r\n".repeat(100)),
                        _ => conn.send("quit\r\n"),
                    }
                    if i % 2 == 0 {
                        conn.cut();
                    }
                }
            });
        }
    });
}

#[test]
fn a_thousand_clients_send_a_byte_at_a_time() {
    allow_files(12_000);
    let server = Server::start(&["-c", "2000"]);
    let mut clients: Vec<(Conn, Vec<u8>, String)> = (0..1000)
        .map(|i| {
            let request = format!("set key:{i:04} {i} 0 9\r\nvalue{i:04}\r\nget key:{i:04}\r\nmg key:{i:04} v f\r\n");
            let reply = format!("STORED\r\nVALUE key:{i:04} {i} 9\r\nvalue{i:04}\r\nEND\r\nVA 9 f{i}\r\nvalue{i:04}\r\n");
            (server.connect(), request.into_bytes(), reply)
        })
        .collect();
    let longest = clients
        .iter()
        .map(|(_, request, _)| request.len())
        .max()
        .expect("a thousand of them");
    for at in 0..longest {
        for (client, request, _) in &mut clients {
            if let Some(byte) = request.get(at) {
                client.send([*byte]);
            }
        }
    }
    for (client, _, reply) in &mut clients {
        client.expect(&*reply);
        client.expect_nothing();
    }
}

/// The value of number `i`: no two alike, each position tells where it belongs.
fn numbered(i: usize, len: usize) -> Vec<u8> {
    Rng::new(i as u64).bytes(len)
}

#[test]
fn a_peer_that_does_not_read_costs_no_copies() {
    const COUNT: usize = 120;
    const SIZE: usize = 900_000;
    let server = Server::start(&["-m", "256", "-I", "2m"]);
    let mut writer = server.connect();
    for i in 0..COUNT {
        assert_eq!(writer.set(&format!("big{i}"), &numbered(i, SIZE)), "STORED");
    }
    for i in 0..100 {
        assert_eq!(
            writer.set(&format!("small{i}"), format!("{i:03}").as_bytes()),
            "STORED"
        );
    }
    let before = server.rss_kb();

    let mut deaf = server.connect();
    let mut request = String::new();
    for i in 0..COUNT / 2 {
        request += &format!("get big{i}\r\n");
    }
    request += "get";
    for i in COUNT / 2..COUNT {
        request += &format!(" big{i}");
    }
    deaf.send(request + "\r\nget small7\r\n");

    // The others are served as before, by each of the workers.
    let mut others: Vec<Conn> = (0..8).map(|_| server.connect()).collect();
    let begin = Instant::now();
    for round in 0..200 {
        for other in &mut others {
            let i = round % 100;
            other.round(
                format!("get small{i}\r\n"),
                format!("VALUE small{i} 0 3\r\n{i:03}\r\nEND\r\n"),
            );
        }
    }
    let took = begin.elapsed();
    assert!(
        took < Duration::from_secs(5),
        "1600 gets took {took:?} beside a peer that does not read"
    );
    let grown = server.rss_kb().saturating_sub(before);
    println!(
        "{grown} KB for {} MB of replies that nobody reads",
        COUNT * SIZE / 1_000_000
    );
    assert!(
        grown < 10 * 1024,
        "{grown} KB for replies that nobody reads"
    );

    // Every byte is right when they are read after all.
    for i in 0..COUNT {
        deaf.expect(format!("VALUE big{i} 0 {SIZE}\r\n"));
        assert!(deaf.take(SIZE) == numbered(i, SIZE), "big{i}");
        deaf.expect("\r\n");
        if i < COUNT / 2 || i == COUNT - 1 {
            deaf.expect("END\r\n");
        }
    }
    deaf.expect("VALUE small7 0 3\r\n007\r\nEND\r\n");
    deaf.expect_nothing();
}

/// Deaf ones that go away: what was held for them is free again.
#[test]
fn peers_that_never_read_leave_nothing_behind() {
    let server = Server::start(&["-m", "64"]);
    let mut conn = server.connect();
    for i in 0..10 {
        assert_eq!(
            conn.set(&format!("big{i}"), &numbered(i, 900_000)),
            "STORED"
        );
    }
    let before = server.rss_kb();
    let mut deaf: Vec<Conn> = (0..40).map(|_| server.connect()).collect();
    for client in &mut deaf {
        client.send("get big0 big1 big2 big3 big4 big5 big6 big7 big8 big9\r\n".repeat(10));
    }
    // Replaced while they are held: the old ones live until the last reader has gone.
    for i in 0..10 {
        assert_eq!(
            conn.set(&format!("big{i}"), &numbered(i + 10, 900_000)),
            "STORED"
        );
    }
    let grown = server.rss_kb().saturating_sub(before);
    // The arena had not been touched before by the second ten.
    assert!(
        grown < 24 * 1024,
        "{grown} KB for replies that nobody reads"
    );
    drop(deaf);
    wait_within("they are gone", PATIENCE, || {
        conn.stat("curr_connections") <= 4
    });
    for i in 0..10 {
        assert!(
            conn.get(&format!("big{i}")) == Some(numbered(i + 10, 900_000)),
            "big{i}"
        );
    }
    for i in 0..10 {
        conn.round(format!("delete big{i}\r\n"), "DELETED\r\n");
    }
    assert_eq!((conn.stat("curr_items"), conn.stat("bytes")), (0, 0));
    wait_within("no chunk is held", PATIENCE, || used_chunks(&mut conn) == 0);
}

fn used_chunks(conn: &mut Conn) -> u64 {
    let slabs = conn.stats("slabs");
    slabs
        .iter()
        .filter(|(key, _)| key.ends_with(":used_chunks"))
        .map(|(_, v)| v.parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn promised_bodies_that_never_come_do_not_stop_the_others() {
    let server = Server::start(&["-m", "64"]);
    let mut conn = server.connect();
    let mut promising: Vec<Conn> = (0..300).map(|_| server.connect()).collect();
    for (i, client) in promising.iter_mut().enumerate() {
        let line = match i % 3 {
            0 => format!("set promised{i} 0 0 1000000\r\n"),
            1 => format!("ms promised{i} 1000000\r\n"),
            _ => format!("set promised{i} 0 0 1000000\r\nonly these"),
        };
        client.send(line);
    }
    for i in 0..3000 {
        assert_eq!(
            conn.set(&format!("k{i}"), &numbered(i, 100)),
            "STORED",
            "store {i}"
        );
        assert!(conn.get(&format!("k{i}")) == Some(numbered(i, 100)), "k{i}");
    }
    // The last one's body comes after all.
    let mut late = server.connect();
    late.send("set late 0 0 200\r\n");
    conn.expect_nothing();
    late.send(numbered(5, 200));
    late.send("\r\n");
    late.expect("STORED\r\n");
    assert!(conn.get("late") == Some(numbered(5, 200)));
    drop(promising);
    wait_within("the promising ones are gone", PATIENCE, || {
        conn.stat("curr_connections") <= 5
    });
    wait_within("what was kept for them is free", PATIENCE, || {
        used_chunks(&mut conn) == conn.stat("curr_items")
    });
}

#[test]
fn stores_cut_off_half_way_leak_nothing() {
    let server = Server::start(&["-m", "64"]);
    let mut conn = server.connect();
    conn.round("set keep 0 0 5\r\nvalue\r\n", "STORED\r\n");
    assert_eq!(conn.set("victim", b"old"), "STORED");
    cut_off(&server, 100);
    wait_within("the first ones are gone", PATIENCE, || {
        conn.stat("curr_connections") <= 4
    });
    let state = |conn: &mut Conn| {
        (
            conn.stat("curr_items"),
            conn.stat("bytes"),
            used_chunks(conn),
        )
    };
    wait_within("nothing is left of them", PATIENCE, || {
        state(&mut conn).2 == 2
    });
    let (before, rss) = (state(&mut conn), server.rss_kb());
    // Not so many at a time that one of them finds no memory: a `set` that is refused takes the old item along.
    for _ in 0..30 {
        cut_off(&server, 100);
        wait_within("they are gone", PATIENCE, || {
            conn.stat("curr_connections") <= 4
        });
    }
    wait_within("nothing is left of them", PATIENCE, || {
        state(&mut conn) == before
    });
    let grown = server.rss_kb().saturating_sub(rss);
    assert!(grown < 64 * 1024 + 10_240, "{grown} KB");
    conn.round(
        "get keep victim\r\n",
        "VALUE keep 0 5\r\nvalue\r\nVALUE victim 0 3\r\nold\r\nEND\r\n",
    );
    // All the memory can be used for items again.
    for i in 0..600 {
        assert_eq!(
            conn.set(&format!("k{i}"), &numbered(i, 100_000)),
            "STORED",
            "store {i}"
        );
    }
}

/// `count` clients that vanish in the middle of a body, in all sizes.
fn cut_off(server: &Server, count: u64) {
    let mut rng = Rng::new(11);
    let filler = vec![b'f'; 700_000];
    for i in 0..count {
        let len = match i % 4 {
            0 => 50,
            1 => 5000,
            2 => 30_000,
            _ => 700_000,
        };
        let part = rng.below(if i % 4 == 3 && i % 20 != 3 {
            20_000
        } else {
            len
        }) as usize;
        let mut conn = server.connect();
        let verb = rng.pick(&["set", "add", "append", "ms"]);
        let line = if verb == "ms" {
            format!("ms victim {len}\r\n")
        } else {
            format!("{verb} victim 0 0 {len}\r\n")
        };
        let _ = conn.try_send([line.as_bytes(), &filler[..part]].concat());
        if i % 2 == 0 {
            conn.cut();
        }
    }
}

/// A client that says that it will send no more still gets its answers.
#[test]
fn answers_after_the_end_of_input() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("set k 0 0 5\r\nvalue\r\n", "STORED\r\n");
    conn.send("get k\r\n".repeat(500));
    conn.end_of_input();
    conn.expect("VALUE k 0 5\r\nvalue\r\nEND\r\n".repeat(500));
    conn.closed();
}

/// A client that floods has its turn, and so have the others.
#[test]
fn a_flood_does_not_starve_the_others() {
    let server = Server::start(&["-t", "1"]);
    let mut conn = server.connect();
    conn.round("set k 0 0 5\r\nvalue\r\n", "STORED\r\n");
    let mut flood = server.connect();
    let mut flood_in = flood.clone_for_writing();
    thread::scope(|scope| {
        const BATCHES: usize = 60;
        scope.spawn(move || {
            let batch = "get k\r\n".repeat(20_000);
            for _ in 0..BATCHES {
                flood_in.send(&batch);
            }
        });
        scope.spawn(move || {
            let reply = "VALUE k 0 5\r\nvalue\r\nEND\r\n".repeat(20_000);
            for _ in 0..BATCHES {
                flood.expect(&reply);
            }
        });
        for _ in 0..200 {
            let begin = Instant::now();
            conn.round("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
            let took = begin.elapsed();
            assert!(
                took < Duration::from_secs(1),
                "{took:?} for one get beside a flood"
            );
        }
    });
}

#[test]
fn a_unix_socket_serves_the_same() {
    let server = Server::start_unix(&[]);
    let mut conn = server.connect();
    conn.round(
        "set k 0 0 5\r\nvalue\r\nget k\r\n",
        "STORED\r\nVALUE k 0 5\r\nvalue\r\nEND\r\n",
    );
    let value = numbered(1, 1_000_000);
    assert_eq!(conn.set("big", &value), "STORED");
    for _ in 0..5 {
        assert!(server.connect().get("big").as_ref() == Some(&value));
    }
    conn.send("nonsense\r\nquit\r\n");
    conn.expect("ERROR\r\n");
    conn.closed();
}

/// The server hangs up on a client that has been idle for longer than it was told to allow.
#[test]
fn idle_clients_can_be_sent_away() {
    let server = Server::start(&["-o", "idle_timeout=1"]);
    let mut idle = server.connect();
    idle.expect_nothing();
    let mut busy = server.connect();
    let begin = Instant::now();
    wait_within("the idle one has been sent away", PATIENCE, || {
        busy.expect_nothing();
        !idle.is_quiet()
    });
    assert!(
        begin.elapsed() > Duration::from_millis(500),
        "sent away at once"
    );
    idle.closed();
    busy.expect_nothing();
    assert_eq!(busy.stat("idle_kicks"), 1);
}

/// Short commands that come together are answered together: what `-R` cuts off costs a write. But nobody keeps a worker.
#[test]
fn a_pipeline_of_short_commands_is_not_cut() {
    if !is_ketch() {
        return;
    }
    let yields = |args: &[&str], gets: usize| {
        let server = Server::start(args);
        let mut conn = server.connect();
        conn.send("get k\r\n".repeat(gets));
        conn.expect("END\r\n".repeat(gets));
        conn.stat("conn_yields")
    };
    assert_eq!(yields(&["-t", "1"], 500), 0);
    assert!(yields(&["-t", "1"], 4000) > 0);
    assert!(yields(&["-t", "1", "-R", "1"], 500) > 0);
}

/// Clients that are ready at the same time are read from before the first is answered. Whatever each of them is at, it gets
/// its own replies, all of them.
#[test]
fn clients_that_come_together_get_their_own() {
    const CLIENTS: usize = 40;
    let server = Server::start(&["-t", "1"]);
    let mut rng = Rng::from_env("TOGETHER_SEED");
    let value = |client: usize, version: usize, len: usize| numbered(client * 1000 + version, len);
    let mut clients: Vec<Conn> = (0..CLIENTS).map(|_| server.connect()).collect();
    let mut held = vec![(0, 100); CLIENTS];
    for (client, conn) in clients.iter_mut().enumerate() {
        let stored = conn.set(&format!("key{client}"), &value(client, 0, 100));
        assert_eq!(stored, "STORED");
    }
    for round in 1..60 {
        let mut owed: Vec<Vec<u8>> = vec![Vec::new(); CLIENTS];
        let mut rest: Vec<Vec<u8>> = vec![Vec::new(); CLIENTS];
        let mut gone = [false; CLIENTS];
        // What all send while the server stands still, it finds in one poll.
        server.freeze(true);
        for (client, conn) in clients.iter_mut().enumerate() {
            let (version, len) = held[client];
            let get = format!("get key{client}\r\n").into_bytes();
            let mut hit = format!("VALUE key{client} 0 {len}\r\n").into_bytes();
            hit.extend(value(client, version, len));
            hit.extend(b"\r\nEND\r\n");
            // Most ask one thing at a time: those are read from ahead.
            match rng.below(16) {
                0 => {
                    conn.send(get.repeat(20));
                    owed[client] = hit.repeat(20);
                }
                1 => {
                    let len = [0, 10, 100, 5000, 30_000][rng.below(5) as usize];
                    let mut set = format!("set key{client} 0 0 {len}\r\n").into_bytes();
                    set.extend(value(client, round, len));
                    set.extend(b"\r\n");
                    rest[client] = set.split_off(rng.below(set.len() as u64 + 1) as usize);
                    conn.send(set);
                    owed[client] = b"STORED\r\n".to_vec();
                    held[client] = (round, len);
                }
                2 => {
                    let cut = rng.below(get.len() as u64) as usize;
                    conn.send(&get[..cut]);
                    rest[client] = get[cut..].to_vec();
                    owed[client] = hit;
                }
                3 => {
                    conn.send("nonsense\r\n");
                    owed[client] = b"ERROR\r\n".to_vec();
                }
                4 => {
                    conn.send(get);
                    conn.end_of_input();
                    (owed[client], gone[client]) = (hit, true);
                }
                5 => {
                    conn.send("quit\r\n");
                    gone[client] = true;
                }
                6 => {
                    let gone = std::mem::replace(conn, server.connect());
                    gone.clone_for_writing().send(get);
                    gone.cut();
                }
                7 => {}
                _ => {
                    conn.send(get);
                    owed[client] = hit;
                }
            }
        }
        server.freeze(false);
        for (client, conn) in clients.iter_mut().enumerate() {
            if !rest[client].is_empty() {
                conn.send(&rest[client]);
            }
            conn.expect(&owed[client]);
            if gone[client] {
                conn.closed();
                *conn = server.connect();
            }
        }
    }
}
