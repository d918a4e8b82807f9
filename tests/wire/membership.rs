//! Servers that join a ring in a real etcd, are killed, drained and cut off from it.

use std::time::{Duration, Instant};

use ketch_testing::{Conn, Etcd, PATIENCE, Server, is_ketch, wait_within};

/// A server that joins the ring under a name.
fn join(etcd: &Etcd, name: &str, more: &str) -> Server {
    let joins = format!("register={},node_name={name}{more}", etcd.url("cache"));
    Server::start(&["-t", "1", "-o", &joins])
}

/// The ports in the list that a server hands out, and the list's version.
fn ring(conn: &mut Conn) -> Option<(u64, Vec<u16>)> {
    conn.send("config get cluster\r\n");
    let line = conn.expect_line();
    if line == "ERROR" {
        return None;
    }
    let len: usize = line.rsplit(' ').next()?.parse().ok()?;
    let list = String::from_utf8(conn.take(len)).expect("a list is text");
    conn.expect("\r\nEND\r\n");
    let (version, nodes) = list.split_once('\n')?;
    let port = |node: &str| node.rsplit('|').next()?.parse::<u16>().ok();
    let mut ports: Vec<u16> = nodes.split_whitespace().filter_map(port).collect();
    ports.sort_unstable();
    Some((version.parse().ok()?, ports))
}

fn ports<'s>(servers: impl IntoIterator<Item = &'s Server>) -> Vec<u16> {
    let mut ports: Vec<u16> = servers.into_iter().map(Server::port).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn servers_join_and_leave_a_ring() {
    if !is_ketch() {
        return;
    }
    let etcd = Etcd::start();
    let a = join(&etcd, "a", "");
    let mut conn = a.connect();
    wait_within("it sees itself", PATIENCE, || ring(&mut conn).is_some());
    let (first, alone) = ring(&mut conn).expect("there is a list");
    assert_eq!(alone, ports([&a]));

    // From the start of a process to its place in the list that another hands out.
    let b = join(&etcd, "b", ",node_zone=left,node_weight=2");
    let up = Instant::now();
    wait_within("both are there", PATIENCE, || {
        ring(&mut conn).is_some_and(|(_, seen)| seen == ports([&a, &b]))
    });
    println!("up -> in the list: {:?}", up.elapsed());
    let (second, _) = ring(&mut conn).expect("there is a list");
    assert!(second > first, "clients believe what has a higher version");
    assert_eq!(conn.stat("ketch_ring_members"), 2);

    // Killed: out when the lease has ended.
    let mut b = b;
    b.kill();
    let killed = Instant::now();
    wait_within("the dead one is out", PATIENCE, || {
        ring(&mut conn).is_some_and(|(_, seen)| seen == ports([&a]))
    });
    println!("killed -> out: {:?}", killed.elapsed());
    assert!(
        killed.elapsed() > Duration::from_millis(500),
        "not by chance"
    );

    // It comes back at another port under its name, and stops as it should: out at once.
    let mut c = join(&etcd, "b", ",node_lease=60");
    wait_within("it is back", PATIENCE, || {
        ring(&mut conn).is_some_and(|(_, seen)| seen == ports([&a, &c]))
    });
    c.signal(libc::SIGTERM);
    wait_within("it has left before its lease", PATIENCE, || {
        ring(&mut conn).is_some_and(|(_, seen)| seen == ports([&a]))
    });
    assert!(c.wait_exit(PATIENCE).success());
}

/// An operator's order moves a server out of the ring and back, and outlives the engine.
#[test]
fn a_server_leaves_and_joins_when_it_is_told_to() {
    if !is_ketch() {
        return;
    }
    let mut etcd = Etcd::start();
    let a = join(&etcd, "a", "");
    let b = join(&etcd, "b", ",node_weight=0");
    let mut conn = a.connect();
    wait_within("a is there", PATIENCE, || ring(&mut conn).is_some());
    assert_eq!(
        ring(&mut conn).map(|(_, seen)| seen),
        Some(ports([&a])),
        "b waits"
    );
    let order = |server: &Server, words: &str, weight: u64| {
        let mut conn = server.connect();
        conn.round(format!("config ring {words}\r\n"), "OK\r\n");
        assert_eq!(conn.stat("ketch_ring_weight"), weight);
    };
    let mut sees = |servers: &[&Server]| {
        let wanted = ports(servers.iter().copied());
        wait_within("the ring is as ordered", PATIENCE, || {
            ring(&mut conn).is_some_and(|(_, seen)| seen == wanted)
        });
    };
    assert_eq!(b.connect().stat("ketch_ring_weight"), 0);
    order(&b, "join", 1);
    sees(&[&a, &b]);
    order(&a, "leave", 0);
    sees(&[&b]);
    // It is registered anew in an engine that knows nothing, and still stands by.
    etcd.kill();
    etcd.wipe();
    etcd.restart();
    let c = join(&etcd, "c", "");
    sees(&[&b, &c]);
    order(&a, "join 3", 3);
    sees(&[&a, &b, &c]);
}

#[test]
fn an_engine_that_is_away_freezes_the_ring() {
    if !is_ketch() {
        return;
    }
    let mut etcd = Etcd::start();
    let servers = ["a", "b", "c"].map(|name| join(&etcd, name, ""));
    let mut conn = servers[0].connect();
    let all = ports(&servers);
    let sees_all = |conn: &mut Conn| ring(conn).is_some_and(|(_, seen)| seen == all);
    wait_within("all are there", PATIENCE, || sees_all(&mut conn));
    etcd.kill();
    wait_within("it is said", PATIENCE, || {
        conn.stat("ketch_ring_frozen") == 1
    });
    assert!(sees_all(&mut conn), "the list stays");
    conn.round(
        "set k 0 0 1\r\nv\r\nget k\r\n",
        "STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n",
    );
    // It comes back and knows nothing: nobody leaves, and all register again.
    etcd.wipe();
    etcd.restart();
    wait_within("it goes on", PATIENCE, || {
        assert!(sees_all(&mut conn), "nobody leaves");
        conn.stat("ketch_ring_frozen") == 0
    });
    let other = join(&etcd, "d", "");
    wait_within("a fourth comes, and the three are there", PATIENCE, || {
        ring(&mut conn).is_some_and(|(_, seen)| seen == ports(servers.iter().chain([&other])))
    });
}

/// An engine that cannot be reached does not keep a server from serving, or from stopping.
#[test]
fn without_an_engine_a_server_serves() {
    if !is_ketch() {
        return;
    }
    let url = format!("register=etcd://{}/cache", ketch_testing::nobody());
    let mut server = Server::start(&["-o", &url]);
    let mut conn = server.connect();
    conn.round("set k 0 0 1\r\nv\r\n", "STORED\r\n");
    conn.round("config get cluster\r\n", "ERROR\r\n");
    wait_within("it says so", PATIENCE, || {
        server.stderr().contains("cannot register")
    });
    server.signal(libc::SIGTERM);
    assert!(server.wait_exit(PATIENCE).success());
}
