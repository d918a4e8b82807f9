//! Servers that join a ring in a real etcd, are killed, drained and cut off from it.

use std::time::{Duration, Instant};

use ketch_testing::{Conn, Consul, Etcd, Kubernetes, PATIENCE, Server, is_ketch, wait_within};

use crate::proxy::{file, proxy};

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

/// Two of three are killed at once: both leave the list of who was told that they may, and one that of who was not.
#[test]
fn servers_are_told_which_share_of_a_ring_may_leave() {
    if !is_ketch() {
        return;
    }
    let etcd = Etcd::start();
    let steady = join(&etcd, "a", "");
    let follows = join(&etcd, "b", ",leave_share=1");
    let mut killed = ["c", "d"].map(|name| join(&etcd, name, ""));
    let mut conns = [&steady, &follows].map(Server::connect);
    let members = |conn: &mut Conn| conn.stat("ketch_ring_members");
    for conn in &mut conns {
        wait_within("all are there", PATIENCE, || members(conn) == 4);
    }
    killed.iter_mut().for_each(Server::kill);
    let [steady, follows] = &mut conns;
    wait_within("both are out", PATIENCE, || members(follows) == 2);
    wait_within("one is out", PATIENCE, || members(steady) < 4);
    assert_eq!(members(steady), 3);
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

/// A proxy whose nodes are those of a source.
fn proxy_before(source: &str) -> Server {
    proxy(
        &format!("[pools.main]\nsource = \"{source}\"\ncopies = 2\n"),
        &[],
    )
}

fn backends(proxy: &Server) -> u64 {
    proxy.connect().stats("proxy")["backend_total"]
        .parse()
        .expect("a number")
}

/// Neither a connection ends nor anything is said, for longer than the leases last, which end meanwhile.
#[test]
fn an_engine_that_is_cut_off_freezes_the_ring() {
    if !is_ketch() {
        return;
    }
    let etcd = Etcd::start_apart();
    let servers = ["a", "b", "c"].map(|name| join(&etcd, name, ""));
    let proxy = proxy_before(&etcd.url("cache"));
    let mut conns = servers.each_ref().map(Server::connect);
    let all = ports(&servers);
    for conn in &mut conns {
        wait_within("all are there", PATIENCE, || {
            ring(conn).is_some_and(|(_, seen)| seen == all)
        });
    }
    wait_within("the proxy knows them", PATIENCE, || backends(&proxy) == 3);
    let mut client = proxy.connect();
    let mut is_served = |round: u32| {
        for at in 0..30 {
            let stored = format!("set k{at} 0 0 4\r\n{round:04}\r\nget k{at}\r\n");
            client.round(
                stored,
                format!("STORED\r\nVALUE k{at} 0 4\r\n{round:04}\r\nEND\r\n"),
            );
        }
    };
    is_served(0);
    etcd.cut();
    let cut = Instant::now();
    for conn in &mut conns {
        wait_within("it is said", PATIENCE, || {
            conn.stat("ketch_ring_frozen") == 1
        });
    }
    // The leases of 2 seconds are over.
    wait_within("long enough", PATIENCE, || {
        is_served(1);
        cut.elapsed() > Duration::from_secs(4)
    });
    let stays = |conns: &mut [Conn; 3]| {
        for conn in conns {
            assert_eq!(ring(conn).map(|(_, seen)| seen), Some(all.clone()));
        }
        assert_eq!(backends(&proxy), 3);
    };
    stays(&mut conns);
    etcd.mend();
    for at in 0..3 {
        wait_within("it goes on", PATIENCE, || {
            stays(&mut conns);
            conns[at].stat("ketch_ring_frozen") == 0
        });
    }
    is_served(2);
    let other = join(&etcd, "d", "");
    wait_within("a fourth comes", PATIENCE, || {
        ring(&mut conns[0]).is_some_and(|(_, seen)| seen == ports(servers.iter().chain([&other])))
    });
    wait_within("the proxy knows it", PATIENCE, || backends(&proxy) == 4);
}

/// Servers, and a proxy, of a ring that Consul keeps.
#[test]
fn a_ring_in_consul() {
    if !is_ketch() {
        return;
    }
    let consul = Consul::start();
    let join = |name: &str| {
        let joins = format!(
            "register={},node_name={name},node_lease=1",
            consul.url("cache")
        );
        Server::start(&["-t", "1", "-o", &joins])
    };
    let servers = ["a", "b", "c"].map(join);
    let proxy = proxy_before(&consul.url("cache"));
    let mut conn = servers[0].connect();
    let sees = |conn: &mut Conn, who: &[&Server]| {
        let wanted = ports(who.iter().copied());
        wait_within("the ring is these", PATIENCE, || {
            ring(conn).is_some_and(|(_, seen)| seen == wanted)
        });
    };
    let [a, b, c] = &servers;
    sees(&mut conn, &[a, b, c]);
    wait_within("the proxy knows them", PATIENCE, || backends(&proxy) == 3);
    // Killed: out when its check is not passed in time.
    let [a, b, mut c] = servers;
    c.kill();
    sees(&mut conn, &[&a, &b]);
    wait_within("the proxy knows it", PATIENCE, || backends(&proxy) == 2);
    // An agent that begins anew knows nobody: who is there stays, and registers again.
    consul.wipe();
    wait_within("it goes on", PATIENCE, || {
        assert_eq!(backends(&proxy), 2);
        let joined = join("d");
        let is_there = || ring(&mut conn).is_some_and(|(_, seen)| seen.contains(&joined.port()));
        wait_within("another comes", PATIENCE, is_there);
        true
    });
    // One that takes requests and says nothing freezes the ring.
    consul.silence(true);
    wait_within("it is said", PATIENCE, || {
        conn.stat("ketch_ring_frozen") == 1
    });
    consul.silence(false);
    wait_within("it goes on", PATIENCE, || {
        conn.stat("ketch_ring_frozen") == 0
    });
}

/// Processes find the API server of Kubernetes by their environment.
#[test]
fn a_ring_of_pods() {
    if !is_ketch() {
        return;
    }
    let api = Kubernetes::start();
    let nodes = [(); 3].map(|()| Server::start(&["-t", "1"]));
    let pods = |count: usize| {
        let names = ["cache-0", "cache-1", "cache-2"];
        let pods: Vec<(&str, u16)> = names
            .into_iter()
            .zip(nodes.iter().map(Server::port))
            .collect();
        api.pods(&pods[..count]);
    };
    pods(2);
    let path = file("[pools.main]\nsource = \"k8s://shop/cache:cache\"\n");
    let option = format!("proxy_config={}", path.display());
    let (name, value) = api.environment();
    let proxy = Server::start_in(&[(name, &value)], &["-t", "1", "-o", &option]);
    wait_within("the pods are there", PATIENCE, || backends(&proxy) == 2);
    let mut conn = proxy.connect();
    for at in 0..50 {
        assert_eq!(conn.set(&format!("k{at}"), b"v"), "STORED");
    }
    let items = |node: &Server| node.stat("curr_items");
    let (first, second) = (items(&nodes[0]), items(&nodes[1]));
    assert!(
        first > 0 && second > 0 && first + second >= 50,
        "{first}, {second}"
    );
    // Placement goes by the pods' names, which ketch-client knows as well.
    pods(3);
    wait_within("a third pod comes", PATIENCE, || backends(&proxy) == 3);
    for at in 0..50 {
        assert!(
            conn.get(&format!("k{at}")).is_some(),
            "k{at} is found where it was"
        );
    }
    // No pod at all is no list.
    pods(0);
    wait_within("it is said", PATIENCE, || {
        proxy.stderr().contains("stay as they are")
    });
    assert_eq!(backends(&proxy), 3);
    pods(2);
    wait_within("one leaves", PATIENCE, || backends(&proxy) == 2);
}

/// A list that falls apart, in a file: a third of the nodes may leave, unless the pool says otherwise; an empty list is none.
#[test]
fn a_list_that_falls_apart() {
    if !is_ketch() {
        return;
    }
    let nodes = [(); 3].map(|()| Server::start(&["-t", "1"]));
    let line = |node: &Server| format!("127.0.0.1:{}\n", node.port());
    for (word, left) in [("", 2), ("leave_share = 1.0", 1)] {
        let list = file(&nodes.iter().map(line).collect::<String>());
        let source = format!(
            "[pools.main]\nsource = \"file://{}\"\n{word}\n",
            list.display()
        );
        let proxy = proxy(&source, &[]);
        wait_within("all are there", PATIENCE, || backends(&proxy) == 3);
        std::fs::write(&list, line(&nodes[0])).expect("the file is written");
        wait_within("some have left", PATIENCE, || backends(&proxy) == left);
        std::fs::write(&list, "").expect("the file is written");
        wait_within("it is said", PATIENCE, || {
            proxy.stderr().contains("stay as they are")
        });
        assert_eq!(backends(&proxy), left);
        assert_eq!(proxy.connect().set("k", b"v"), "STORED");
    }
}
