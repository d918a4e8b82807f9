//! What routes of a proxy do beside passing on: other pools for keys whose nodes fail, that move, or that are watched; and what they refuse.

use std::io::Read;

use std::time::{Duration, Instant};

use ketch_testing::packet::{op, packet, store};
use ketch_testing::tls::Authority;
use ketch_testing::{Conn, PATIENCE, Server, is_ketch, wait_within};

use crate::proxy::{false_node, file, pool_of, proxy, proxy_of};
use crate::tls::Files;

fn node() -> Server {
    Server::start(&["-t", "1"])
}

/// A pool of this name of these ports, with these words beside.
fn named(name: &str, ports: &[u16], more: &str) -> String {
    let pool = pool_of(ports.iter().copied(), more);
    pool.replace("[pools.main]", &format!("[pools.{name}]"))
}

/// The pools, and one route to the first with these words.
fn routes(pools: &[String], words: &str) -> String {
    format!("{}[[routes]]\npool = \"main\"\n{words}\n", pools.concat())
}

fn figure(proxy: &Server, name: &str) -> u64 {
    let figures = proxy.stats("proxy");
    let figure = figures.get(name).unwrap_or_else(|| panic!("no {name}"));
    figure.parse().expect("it is a number")
}

/// Seconds that a key has left on a server; -1 without end.
fn ttl(server: &Server, key: &str) -> i64 {
    let line = server.connect().ask(format!("mg {key} t\r\n"));
    let left = line
        .strip_prefix("HD t")
        .unwrap_or_else(|| panic!("{key}: {line}"));
    left.parse().expect("it is a number")
}

const QUICK: &str = "attempt_timeout_ms = 150\nprobe_after_ms = 50\nsettle_ms = 200";

#[test]
fn keys_of_a_node_that_is_away_are_in_the_gutter_for_a_while() {
    if !is_ketch() {
        return;
    }
    let [a, b, spare] = [(); 3].map(|()| node());
    let pools = [
        named("main", &[a.port(), b.port()], QUICK),
        named("spare", &[spare.port()], ""),
    ];
    let proxy = proxy(&routes(&pools, "gutter = \"spare\"\ngutter_ttl_s = 5"), &[]);
    let mut conn = proxy.connect();
    let keys: Vec<String> = (0..40).map(|at| format!("k{at}")).collect();
    for key in &keys {
        conn.round(format!("set {key} 3 0 3\r\nold\r\n"), "STORED\r\n");
    }
    assert!(keys.iter().all(|key| spare.holds(key).is_none()));
    // It keeps what it has, and says nothing.
    a.freeze(true);
    let of_a = |key: &&String| b.holds(key).is_none();
    let (of_a, of_b): (Vec<&String>, Vec<&String>) = keys.iter().partition(of_a);
    assert!(of_a.len() > 5 && of_b.len() > 5, "{}", of_a.len());
    for (at, key) in of_a.iter().enumerate() {
        conn.round(
            format!("set {key} 3 {} 3\r\nnew\r\n", at % 2 * 1000),
            "STORED\r\n",
        );
        let value = format!("VALUE {key} 3 3\r\nnew\r\nEND\r\n");
        conn.round(format!("get {key}\r\n"), value);
        assert!((1..=5).contains(&ttl(&spare, key)), "{key}");
    }
    // All kinds, and lists over both pools.
    conn.round(format!("delete {}\r\n", of_a[0]), "DELETED\r\n");
    conn.round(format!("get {}\r\n", of_a[0]), "END\r\n");
    conn.round(format!("touch {} 0\r\n", of_a[1]), "TOUCHED\r\n");
    assert!((1..=5).contains(&ttl(&spare, of_a[1])));
    conn.round(format!("ms {} 1 I T900\r\nx\r\n", of_a[1]), "HD\r\n");
    assert!((1..=5).contains(&ttl(&spare, of_a[1])));
    conn.round(
        format!("ms {} 1 T900 c q\r\n5\r\nmn\r\n", of_a[1]),
        "MN\r\n",
    );
    conn.round(format!("incr {} 2\r\n", of_a[1]), "7\r\n");
    conn.round(format!("append {} 0 0 1\r\n!\r\n", of_a[2]), "STORED\r\n");
    conn.round(
        format!("gat 0 {}\r\n", of_a[2]),
        format!("VALUE {} 3 4\r\nnew!\r\nEND\r\n", of_a[2]),
    );
    assert!((1..=5).contains(&ttl(&spare, of_a[2])));
    conn.round(
        format!(
            "set {} 0 0 5 noreply\r\nquiet\r\nget {} {}\r\n",
            of_a[3], of_a[3], of_b[0]
        ),
        format!(
            "VALUE {} 0 5\r\nquiet\r\nVALUE {} 3 3\r\nold\r\nEND\r\n",
            of_a[3], of_b[0]
        ),
    );
    let mut binary = proxy.connect();
    assert_eq!(
        binary.ask_packet(&store(op::SET, of_a[4], "packet")).status,
        0
    );
    let value = binary.ask_packet(&packet(op::GET, of_a[4], ""));
    assert_eq!((value.status, &value.value[..]), (0, &b"packet"[..]));
    assert!(figure(&proxy, "gutter_requests") > 10);
    // It is back: what was there before is not.
    a.freeze(false);
    wait_within("the node is back", PATIENCE, || {
        conn.set("any", b"1") == "STORED"
            && proxy
                .stats("proxy")
                .iter()
                .all(|(name, value)| !name.ends_with(":is_in") || value == "1")
    });
    for key in &of_a {
        assert_ne!(conn.get(key).as_deref(), Some(&b"old"[..]), "{key}");
    }
    conn.round(format!("set {} 0 0 4\r\nback\r\n", of_a[5]), "STORED\r\n");
    wait_within("it is asked itself", PATIENCE, || {
        conn.set(of_a[5], b"back");
        a.holds(of_a[5]).is_some()
    });
    // Something may be in the gutter yet: a write takes it with it.
    assert_eq!(spare.holds(of_a[5]), None);
}

#[test]
fn a_read_that_was_under_way_is_asked_anew() {
    if !is_ketch() {
        return;
    }
    let mut node = node();
    let more =
        "attempt_timeout_ms = 5000\nrequest_timeout_ms = 9000\nretries = 50\nretry_pause_ms = 30";
    let proxy = proxy(&pool_of([node.port()], more), &["-t", "1"]);
    let (mut conn, mut binary) = (proxy.connect(), proxy.connect());
    conn.round(
        "set k 0 0 1\r\nx\r\nget k j\r\n",
        "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n",
    );
    node.freeze(true);
    conn.send("get k\r\nget k j\r\nmg k v q\r\nmg k v\r\nset k 0 0 1\r\ny\r\n");
    binary.send(packet(op::GET, "k", "").bytes());
    wait_within("they are under way", PATIENCE, || {
        figure(&proxy, "req_active") >= 6
    });
    node.kill();
    node.restart();
    // A write may have been carried out, and is not done twice.
    conn.expect("END\r\nEND\r\nEN\r\nSERVER_ERROR backend\r\n");
    assert_eq!(binary.expect_packet().status, 1, "it is not found");
    assert_eq!(figure(&proxy, "reads_repeated"), 5);
    assert_eq!(figure(&proxy, "conn_errors"), 1);
}

#[test]
fn a_new_pool_is_warmed_by_the_old_one() {
    if !is_ketch() {
        return;
    }
    let [new, old] = [(); 2].map(|()| node());
    let pools = [
        named("main", &[new.port()], ""),
        named("old", &[old.port()], ""),
    ];
    let proxy = proxy(&routes(&pools, "warm = \"old\""), &[]);
    let (mut conn, mut before) = (proxy.connect(), old.connect());
    for at in 0..12 {
        before.round(format!("set k{at} 7 500 2\r\n10\r\n"), "STORED\r\n");
    }
    before.round("set for_ever 0 0 1\r\nx\r\n", "STORED\r\n");
    conn.round(
        "get k0 none k1\r\n",
        "VALUE k0 7 2\r\n10\r\nVALUE k1 7 2\r\n10\r\nEND\r\n",
    );
    assert_eq!(new.holds("k0").as_deref(), Some("10"));
    assert!((400..=500).contains(&ttl(&new, "k0")));
    conn.round("get for_ever\r\n", "VALUE for_ever 0 1\r\nx\r\nEND\r\n");
    assert_eq!(ttl(&new, "for_ever"), -1);
    assert_eq!(figure(&proxy, "warm_hits"), 3);
    // What depends on the value finds it; and who changes it leaves nothing old behind.
    conn.round("incr k2 5\r\n", "15\r\n");
    conn.round("append k3 0 0 1\r\n1\r\n", "STORED\r\n");
    conn.round("add k4 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    conn.round("ma k5 N0 J1 v\r\n", "VA 2\r\n11\r\n");
    conn.round("touch k6 900\r\n", "TOUCHED\r\n");
    conn.round(
        "mg k7 v f t\r\n",
        format!("VA 2 f7 t{}\r\n10\r\n", ttl(&old, "k7")),
    );
    let unique = conn.cas_of("k8");
    conn.round(format!("cas k8 0 0 1 {unique}\r\n9\r\n"), "STORED\r\n");
    conn.round("delete k9\r\n", "DELETED\r\n");
    conn.round("get k2 k3 k4 k8 k9\r\n",
        "VALUE k2 7 2\r\n15\r\nVALUE k3 7 3\r\n101\r\nVALUE k4 7 2\r\n10\r\nVALUE k8 0 1\r\n9\r\nEND\r\n");
    for key in ["k2", "k3", "k8", "k9"] {
        assert_eq!(old.holds(key), None, "{key}");
    }
    // Who reads the old pool finds what is set.
    conn.round("set k10 1 0 3\r\nnew\r\n", "STORED\r\n");
    assert_eq!(
        (old.holds("k10"), new.holds("k10")),
        (Some("new".into()), Some("new".into()))
    );
    new.connect().round("delete k10\r\n", "DELETED\r\n");
    conn.round(
        "set k10 1 0 4\r\nlast\r\nget k10\r\n",
        "STORED\r\nVALUE k10 1 4\r\nlast\r\nEND\r\n",
    );
}

#[test]
fn keys_move_to_another_pool_by_and_by() {
    if !is_ketch() {
        return;
    }
    let [from, to] = [(); 2].map(|()| node());
    let pools = [
        named("main", &[from.port()], ""),
        named("to", &[to.port()], ""),
    ];
    // From 2020 to 2033: about half of them have moved.
    let words = "migrate_to = \"to\"\nmigrate_begin = 2020-01-01T00:00:00Z\nmigrate_end = 2033-06-01T00:00:00Z";
    let path = file(&routes(&pools, words));
    let proxy = proxy_of(&path);
    let mut conn = proxy.connect();
    let keys: Vec<String> = (0..60).map(|at| format!("k{at}")).collect();
    for key in &keys {
        from.connect().set(key, b"old");
    }
    let list = format!("get {}\r\n", keys.join(" "));
    conn.send(&list);
    let all = conn.read_until(b"END\r\n");
    assert_eq!(all.windows(3).filter(|part| part == b"old").count(), 60);
    let moved = |key: &&String| to.holds(key).is_some();
    let count = keys.iter().filter(moved).count();
    assert!((15..=45).contains(&count), "{count} of 60 have moved");
    // What is written is nowhere else.
    for key in &keys {
        conn.round(format!("set {key} 0 0 3\r\nnew\r\n"), "STORED\r\n");
    }
    for key in &keys {
        let there = (from.holds(key), to.holds(key));
        let new = Some("new".to_owned());
        assert!(
            there == (None, new.clone()) || there == (new, None),
            "{key}: {there:?}"
        );
        conn.round(format!("delete {key}\r\n"), "DELETED\r\n");
        assert_eq!((from.holds(key), to.holds(key)), (None, None));
    }
    // It is over: all have moved.
    for key in &keys {
        from.connect().set(key, b"late");
    }
    let words = words.replace("2033", "2021");
    std::fs::write(&path, routes(&pools, &words)).expect("it is written");
    conn.round("proxy reload\r\n", "OK\r\n");
    for key in &keys {
        assert_eq!(conn.get(key).as_deref(), Some(&b"late"[..]));
        assert!(to.holds(key).is_some(), "{key}");
    }
}

#[test]
fn a_key_that_is_split_has_several_names() {
    if !is_ketch() {
        return;
    }
    let nodes = [(); 2].map(|()| node());
    let ports: Vec<u16> = nodes.iter().map(Server::port).collect();
    let pools = [named("main", &ports, "")];
    let more = "split = 4\nsplit_ttl_s = 30\nprefix = \"hot:\"\n[[routes]]\npool = \"main\"";
    let proxy = proxy(&routes(&pools, more), &[]);
    let mut conn = proxy.connect();
    let names = || {
        let names = ["hot:a", "hot:a#split1", "hot:a#split2", "hot:a#split3"];
        names.map(|name| nodes.iter().find_map(|node| node.holds(name)))
    };
    let all = |value: &str| [(); 4].map(|()| Some(value.to_owned()));
    conn.round("set hot:a 5 0 3\r\none\r\n", "STORED\r\n");
    assert_eq!(names(), all("one"));
    for _ in 0..20 {
        conn.round("get hot:a\r\n", "VALUE hot:a 5 3\r\none\r\nEND\r\n");
    }
    // What depends on the value is done to the key itself, and the others follow.
    conn.round("append hot:a 0 0 1\r\n!\r\n", "STORED\r\n");
    assert_eq!(names()[1..], [None, None, None]);
    for _ in 0..40 {
        conn.round("get hot:a cold\r\n", "VALUE hot:a 5 4\r\none!\r\nEND\r\n");
    }
    assert_eq!(names(), all("one!"));
    let ttls: Vec<i64> = nodes
        .iter()
        .filter(|node| node.holds("hot:a#split1").is_some())
        .map(|node| ttl(node, "hot:a#split1"))
        .collect();
    assert!((1..=30).contains(&ttls[0]), "{ttls:?}");
    conn.round("delete hot:a\r\n", "DELETED\r\n");
    assert_eq!(names(), [None, None, None, None]);
    // A key too long for other names is itself; others are not split.
    let long = format!("hot:{}", "x".repeat(246));
    assert_eq!(conn.set(&long, b"1"), "STORED");
    assert_eq!(conn.get(&long).as_deref(), Some(&b"1"[..]));
    conn.set("cold", b"1");
    assert!(nodes.iter().all(|node| node.holds("cold#split1").is_none()));
}

#[test]
fn a_shadow_pool_sees_its_share_and_holds_nobody_up() {
    if !is_ketch() {
        return;
    }
    let [main, shadow] = [(); 2].map(|()| node());
    let hanging = false_node(|mut stream| {
        // It takes what comes, and never answers.
        let mut buffer = [0; 65536];
        while let Ok(1..) = stream.read(&mut buffer) {}
    });
    let deaf = false_node(|_stream| std::thread::sleep(Duration::from_secs(600)));
    let pools = [
        named("main", &[main.port()], ""),
        named("shadow", &[shadow.port()], ""),
        named("hanging", &[hanging, deaf], ""),
    ];
    let more = "shadow = \"shadow\"\nshadow_percent = 50\nprefix = \"half:\"\n\
                [[routes]]\npool = \"main\"\nprefix = \"hang:\"\nshadow = \"hanging\"\n[[routes]]\npool = \"main\"";
    let proxy = proxy(&routes(&pools, more), &["-t", "1"]);
    let mut conn = proxy.connect();
    for at in 0..100 {
        conn.round(format!("set half:{at} 0 0 1\r\nx\r\n"), "STORED\r\n");
    }
    let shadowed = || {
        (0..100)
            .filter(|at| shadow.holds(&format!("half:{at}")).is_some())
            .count()
    };
    wait_within("the shadow has its share", PATIENCE, || {
        (30..=70).contains(&shadowed())
    });
    let before = shadow.stat("cmd_get");
    conn.send(format!(
        "get {}\r\n",
        (0..100).map(|at| format!("half:{at} ")).collect::<String>()
    ));
    let all = conn.read_until(b"END\r\n");
    assert_eq!(all.iter().filter(|&&byte| byte == b'x').count(), 100);
    wait_within("reads are sent as well", PATIENCE, || {
        shadow.stat("cmd_get") > before + 30
    });
    // A pool that hangs, or does not even read: nobody waits for it, and it takes no memory.
    let value = "v".repeat(100_000);
    let before = proxy.rss_kb();
    let begun = Instant::now();
    for at in 0..1000 {
        conn.send(format!(
            "set hang:{} 0 0 {}\r\n{value}\r\n",
            at % 50,
            value.len()
        ));
        conn.expect("STORED\r\n");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    let grown = proxy.rss_kb().saturating_sub(before);
    assert!(grown < 60_000, "{grown} KB");
    assert!(figure(&proxy, "shadow_dropped") > 100);
    assert_eq!(figure(&proxy, "conn_errors"), 0);
}

#[test]
fn deletes_are_told_to_other_pools() {
    if !is_ketch() {
        return;
    }
    let [main, east, west] = [(); 3].map(|()| node());
    let pools = [
        named("main", &[main.port()], ""),
        named("east", &[east.port()], ""),
        named(
            "west",
            &[west.port()],
            "attempt_timeout_ms = 100\nrequest_timeout_ms = 200",
        ),
    ];
    let more = "delete_to = [\"east\", \"west\"]\n[[routes]]\nprefix = \"s:\"\npool = \"main\"\n\
                delete_to = [\"east\", \"west\"]\ndelete_on_store = true\ndelete_ack = true";
    let proxy = proxy(&routes(&pools, more), &["-t", "1"]);
    let mut conn = proxy.connect();
    let put = |key: &str| {
        for node in [&main, &east, &west] {
            node.connect().set(key, b"1");
        }
    };
    let there = |key: &str| [&main, &east, &west].map(|node| node.holds(key).is_some());
    for (request, reply) in [
        ("delete a\r\n", "DELETED\r\n"),
        ("md a\r\n", "HD\r\n"),
        ("delete a noreply\r\nmn\r\n", "MN\r\n"),
        ("md a q\r\nmn\r\n", "MN\r\n"),
    ] {
        put("a");
        conn.round(request, reply);
        wait_within("it is deleted everywhere", PATIENCE, || {
            there("a") == [false; 3]
        });
    }
    put("a");
    conn.round("set a 0 0 1\r\n2\r\n", "STORED\r\n");
    assert_eq!(there("a"), [true; 3], "a store is none");
    put("s:a");
    conn.round("delete s:a\r\n", "DELETED\r\n");
    assert_eq!(there("s:a"), [false; 3], "it is acknowledged");
    put("s:a");
    conn.round("incr s:a 1\r\n", "2\r\n");
    assert_eq!(there("s:a"), [true, false, false]);
    put("s:a");
    let mut binary = proxy.connect();
    assert_eq!(binary.ask_packet(&store(op::SET, "s:a", "x")).status, 0);
    assert_eq!(there("s:a"), [true, false, false]);
    assert!(figure(&proxy, "fan_out_deletes") >= 8);
    // A region that does not answer: who waits for it is told, who does not is not held up.
    west.freeze(true);
    conn.round("delete s:a\r\n", "SERVER_ERROR backend\r\n");
    conn.round("delete s:a noreply\r\nmn\r\n", "MN\r\n");
    let begun = Instant::now();
    for at in 0..3000 {
        conn.send(format!("delete k{at}\r\n"));
    }
    for _ in 0..3000 {
        conn.expect("NOT_FOUND\r\n");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert!(figure(&proxy, "fan_out_dropped") > 0);
    west.freeze(false);
}

#[test]
fn a_prefix_has_its_rate() {
    if !is_ketch() {
        return;
    }
    let node = node();
    let pools = [named("main", &[node.port()], "")];
    // Hardly any comes back while the test runs.
    let more = "requests_per_s = 0.01\nburst = 5\nprefix = \"slow:\"\n[[routes]]\npool = \"main\"\n\
        [[routes]]\npool = \"main\"\nprefix = \"none:\"\nrequests_per_s = 0.01\nburst = 1";
    let proxy = proxy(&routes(&pools, more), &[]);
    let mut conn = proxy.connect();
    conn.round(
        "set slow:a 0 0 1\r\nx\r\nget slow:a slow:b\r\nmn\r\n",
        "STORED\r\nVALUE slow:a 0 1\r\nx\r\nEND\r\nMN\r\n",
    );
    // A list with one of them is refused whole, whatever else is in it; and takes nothing.
    conn.round(
        "get a slow:a slow:b slow:c\r\nget a\r\n",
        "SERVER_ERROR busy\r\nEND\r\n",
    );
    conn.round("get slow:a slow:b\r\n", "VALUE slow:a 0 1\r\nx\r\nEND\r\n");
    const BUSY: &str = "SERVER_ERROR busy\r\n";
    // The body of a store goes with it, at whatever byte it is cut.
    conn.send("set slow:a 0 0 40\r\nflush_all\r\nset b 0 0 1\r\n");
    assert!(conn.is_quiet());
    conn.send("b\r\n0123456789012\r\n");
    conn.round("get b\r\n", format!("{BUSY}END\r\n"));
    conn.round("set slow:a 0 0 1 noreply\r\nx\r\nmn\r\n", "MN\r\n");
    for request in [
        "get slow:a",
        "gets slow:a slow:b",
        "mg slow:a v",
        "mg slow:a v q",
        "md slow:a q",
        "ma slow:a q",
        "delete slow:a",
        "incr slow:a 1",
        "touch slow:a 1",
        "gat 1 slow:a",
        "ms slow:a 3 q\r\nabc",
        "mg c2xvdzph b v",
    ] {
        conn.round(format!("{request}\r\n"), BUSY);
    }
    conn.round(
        "delete slow:a noreply\r\nincr slow:a 1 noreply\r\nmn\r\n",
        "MN\r\n",
    );
    // A list of more than fits into a buffer is told at its end, once.
    let list: String = (0..3000).map(|at| format!("slow:{at} ")).collect();
    conn.round(format!("get a {list}\r\nmn\r\n"), format!("{BUSY}MN\r\n"));
    // More than it ever holds passes when all of it is there.
    conn.round("get none:1 none:2 none:3\r\n", "END\r\n");
    conn.round("get none:1\r\n", BUSY);
    let mut binary = proxy.connect();
    for request in [
        packet(op::GET, "slow:a", ""),
        packet(op::GETKQ, "slow:a", ""),
        store(op::SET, "slow:a", "12"),
        store(op::SETQ, "slow:a", "12"),
        packet(op::DELETEQ, "slow:a", ""),
    ] {
        assert_eq!(binary.ask_packet(&request).status, 0x85, "{request:?}");
    }
    assert_eq!(binary.ask_packet(&packet(op::NOOP, "", "")).status, 0);
    assert!(figure(&proxy, "limited") > 15);
    assert!(figure(&proxy, "route:slow::limited") > 15);
}

#[test]
fn a_user_has_its_rate() {
    if !is_ketch() {
        return;
    }
    let node = node();
    let users = file("batch:secret\nweb:secret\n");
    let text = format!(
        "[users.batch]\nrequests_per_s = 0.01\nburst = 3\n{}",
        pool_of([node.port()], "")
    );
    let mut proxy = proxy(&text, &["-Y", &users.display().to_string()]);
    let log_in = |proxy: &Server, user: &str| {
        let mut conn = proxy.connect();
        let token = format!("{user} secret");
        conn.round(
            format!("set k 0 0 {}\r\n{token}\r\n", token.len()),
            "STORED\r\n",
        );
        conn
    };
    let (mut batch, mut web) = (log_in(&proxy, "batch"), log_in(&proxy, "web"));
    for _ in 0..10 {
        web.round("get a\r\n", "END\r\n");
    }
    batch.round(
        "get a\r\nget a b\r\nget a\r\n",
        "END\r\nEND\r\nSERVER_ERROR busy\r\n",
    );
    log_in(&proxy, "batch").round("flush_all\r\n", "SERVER_ERROR busy\r\n");
    assert_eq!(web.ask("get a\r\n"), "END");
    // Who is taken over stays who it is.
    let mut waiting = log_in(&proxy, "batch");
    proxy.take_over(&[]);
    waiting.round(
        "get a\r\nget b\r\nget c\r\nget d\r\n",
        "END\r\nEND\r\nEND\r\nSERVER_ERROR busy\r\n",
    );
}

#[test]
fn what_is_read_only_is_not_changed() {
    if !is_ketch() {
        return;
    }
    let [main, other] = [(); 2].map(|()| node());
    let pools = [
        named("main", &[main.port()], ""),
        named("other", &[other.port()], ""),
    ];
    let more = "prefix = \"ro:\"\nread_only = true\n[[routes]]\npool = \"main\"\nprefix = \"rd:\"\nread_only = true\nallow_deletes = true\n\
                [[routes]]\npool = \"other\"";
    let proxy = proxy(&routes(&pools, more), &[]);
    for key in ["ro:a", "rd:a"] {
        main.connect().set(key, b"1");
    }
    let mut conn = proxy.connect();
    const REFUSED: &str = "SERVER_ERROR read only\r\n";
    conn.round(
        "get ro:a x rd:a\r\n",
        "VALUE ro:a 0 1\r\n1\r\nVALUE rd:a 0 1\r\n1\r\nEND\r\n",
    );
    for request in [
        "set ro:a 0 0 1\r\nx",
        "add ro:b 0 0 1\r\nx",
        "ms ro:a 1 q\r\nx",
        "md ro:a q",
        "delete ro:a",
        "incr ro:a 1",
        "touch ro:a 1",
        "gat 1 ro:a",
        "mg ro:a v T9",
        "mg ro:b N9 v",
        "ma ro:a q",
        "set rd:a 0 0 1\r\nx",
        "gat 1 x ro:a",
    ] {
        conn.round(format!("{request}\r\n"), REFUSED);
    }
    conn.round(
        "set ro:a 0 0 1 noreply\r\nx\r\ndelete ro:a noreply\r\nmn\r\n",
        "MN\r\n",
    );
    let mut binary = proxy.connect();
    assert_ne!(binary.ask_packet(&store(op::SETQ, "ro:a", "x")).status, 0);
    assert_ne!(binary.ask_packet(&packet(op::DELETE, "ro:a", "")).status, 0);
    conn.round("set x 0 0 1\r\nx\r\nflush_all\r\n", "STORED\r\nOK\r\n");
    assert_eq!(conn.get("x"), None);
    conn.round("mg ro:a v\r\n", "VA 1\r\n1\r\n");
    conn.round("delete rd:a\r\n", "DELETED\r\n");
    assert!(figure(&proxy, "read_only_refused") > 12);
    // Where there is nothing else, nothing is flushed.
    let only = crate::proxy::proxy(&routes(&pools[..1], "read_only = true"), &[]);
    only.connect().round("flush_all\r\n", REFUSED);
    assert_eq!(main.holds("ro:a").as_deref(), Some("1"));
}

#[test]
fn reads_ask_the_own_zone_first() {
    if !is_ketch() {
        return;
    }
    let [a, b] = [(); 2].map(|()| node());
    let text = format!(
        "zone = \"b\"\n[pools.main]\nnodes = [\"127.0.0.1:{}@a\", \"127.0.0.1:{}@b\"]\ncopies = 2\n",
        a.port(),
        b.port()
    );
    let proxy = proxy(&text, &["-t", "1"]);
    let mut conn = proxy.connect();
    for at in 0..50 {
        conn.set(&format!("k{at}"), b"1");
    }
    let before = [a.stat("get_hits"), b.stat("get_hits")];
    for at in 0..50 {
        assert_eq!(conn.get(&format!("k{at}")).as_deref(), Some(&b"1"[..]));
    }
    assert_eq!(a.stat("get_hits") - before[0], 0);
    assert_eq!(b.stat("get_hits") - before[1], 50);
    // Without it the other zone answers.
    let mut b = b;
    b.kill();
    for at in 0..50 {
        assert_eq!(conn.get(&format!("k{at}")).as_deref(), Some(&b"1"[..]));
    }
}

/// Keys that leave a node and come back to it: what they were in between is not found again.
#[test]
fn keys_that_come_back_are_not_what_they_were() {
    if !is_ketch() {
        return;
    }
    let [a, b] = [(); 2].map(|()| node());
    let nodes = file("");
    let list = |both: bool| {
        let mut text = format!("127.0.0.1:{}\n", a.port());
        if both {
            text += &format!("127.0.0.1:{}\n", b.port());
        }
        std::fs::write(&nodes, text).expect("the list is written");
    };
    list(false);
    let text = format!(
        "[pools.main]\nsource = \"file://{}\"\ndual_read_s = 0\n",
        nodes.display()
    );
    let proxy = proxy(&text, &["-t", "1"]);
    let mut conn = proxy.connect();
    let keys: Vec<String> = (0..30).map(|at| format!("k{at}")).collect();
    wait_within("the node is known", PATIENCE, || {
        conn.set("k0", b"old") == "STORED"
    });
    keys.iter()
        .for_each(|key| assert_eq!(conn.set(key, b"old"), "STORED"));
    list(true);
    wait_within("the other node is known", PATIENCE, || {
        figure(&proxy, "backend_total") == 2
    });
    let mut binary = proxy.connect();
    for (at, key) in keys.iter().enumerate() {
        match at % 3 {
            0 => assert_eq!(conn.set(key, b"new"), "STORED"),
            1 => assert_eq!(binary.ask_packet(&store(op::SET, key, "new")).status, 0),
            _ => _ = conn.ask(format!("delete {key}\r\n")),
        }
    }
    list(false);
    wait_within("it is gone again", PATIENCE, || {
        figure(&proxy, "backend_total") == 1
    });
    for key in &keys {
        assert_ne!(conn.get(key).as_deref(), Some(&b"old"[..]), "{key}");
    }
}

/// Requests are under way while pools go and come: all are answered, and nobody falls.
#[test]
fn routes_are_read_again_while_requests_are_under_way() {
    if !is_ketch() {
        return;
    }
    let [a, b] = [(); 2].map(|()| node());
    let silent = false_node(|mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer) {}
    });
    let quick = "attempt_timeout_ms = 400\nrequest_timeout_ms = 600";
    let zz = named("zz", &[silent], quick);
    let copies = named("yy", &[a.port(), silent], &format!("{quick}\ncopies = 2"));
    let main = named("main", &[a.port()], "");
    let more =
        "[[routes]]\nprefix = \"z:\"\npool = \"zz\"\n[[routes]]\nprefix = \"y:\"\npool = \"yy\"";
    let path = file(&routes(&[main.clone(), zz, copies], more));
    let proxy = Server::start(&["-t", "2", "-o", &format!("proxy_config={}", path.display())]);
    let mut conns: Vec<Conn> = (0..6).map(|_| proxy.connect()).collect();
    for (at, conn) in conns.iter_mut().enumerate() {
        conn.send(format!(
            "get z:{at}\r\nset y:{at} 0 0 1\r\nx\r\nget m:{at} z:{at} y:{at}\r\nmn\r\n"
        ));
    }
    // Of each client two reads and a copy of the store wait for the silent node.
    wait_within("all are under way", PATIENCE, || {
        figure(&proxy, "req_active") >= 18
    });
    // A pool that sorts before all others, and two that are gone.
    let aa = named("aa", &[b.port()], "");
    std::fs::write(
        &path,
        routes(&[main, aa], "[[routes]]\nprefix = \"z:\"\npool = \"aa\""),
    )
    .expect("it is written");
    let mut asks = proxy.connect();
    asks.round("proxy reload\r\n", "OK\r\n");
    for conn in &mut conns {
        let all = conn.read_until(b"MN\r\n");
        let all = String::from_utf8_lossy(&all).into_owned();
        assert!(all.starts_with("SERVER_ERROR backend\r\n"), "{all}");
    }
    // What was kept goes on; all workers do.
    for at in 0..8 {
        let mut conn = proxy.connect();
        conn.round(
            format!("set z:{at} 0 0 1\r\nx\r\nget z:{at}\r\n"),
            format!("STORED\r\nVALUE z:{at} 0 1\r\nx\r\nEND\r\n"),
        );
        assert!(b.holds(&format!("z:{at}")).is_some());
    }
}

#[test]
fn lists_over_pools_that_fail_are_answered_once() {
    if !is_ketch() {
        return;
    }
    let node = node();
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port();
    for words in ["", "copies = 2"] {
        let pools = [
            named("main", &[node.port()], ""),
            named("gone", &[gone], &format!("{words}\nretries = 0")),
        ];
        let more = "[[routes]]\nprefix = \"gone:\"\npool = \"gone\"";
        let proxy = proxy(&routes(&pools, more), &[]);
        let mut conn = proxy.connect();
        conn.set("a", b"1");
        conn.round(
            "get gone:1 a gone:2 a\r\nget a\r\n",
            "SERVER_ERROR backend\r\nVALUE a 0 1\r\n1\r\nEND\r\n",
        );
        let list: String = (0..3000).map(|at| format!("a{at} ")).collect();
        conn.send(format!("get gone:1 {list} a\r\nmn\r\n"));
        conn.expect("SERVER_ERROR backend\r\nMN\r\n");
    }
}

#[test]
fn nodes_are_spoken_to_by_tls() {
    if !is_ketch() {
        return;
    }
    let authority = Authority::new("test root");
    let files = Files::of(&authority);
    let stranger = Files::of(&Authority::new("another root"));
    let (dir, other) = (files.0.display(), stranger.0.display());
    // They ask for a certificate.
    let options = files.options("ssl_verify_mode=2");
    let node = || Server::start(&["-Z", "-l", "notls:127.0.0.1:0", "-o", &options]);
    let nodes = [node(), node()];
    let ports = || nodes.iter().map(|node| node.ports()[0]);
    let plain = |node: &Server| node.ports()[1];
    let good = format!(
        "tls = true\ntls_ca = \"{dir}/ca.pem\"\ntls_name = \"localhost\"\ntls_cert = \"{dir}/cert.pem\"\ntls_key = \"{dir}/key.pem\""
    );
    for more in ["", "\ncopies = 2"] {
        let proxy = proxy(&pool_of(ports(), &format!("{good}{more}")), &[]);
        let mut conn = proxy.connect();
        let large = "x".repeat(900_000);
        for at in 0..6 {
            assert_eq!(conn.set(&format!("k{at}"), large.as_bytes()), "STORED");
        }
        conn.send("get k0 k1 k2 none k3 k4 k5\r\n");
        let all = conn.read_until(b"END\r\n");
        assert!(all.len() > 6 * large.len(), "{}", all.len());
        // Many small ones in one go.
        for round in 0..20 {
            let sets: String = (0..200)
                .map(|at| format!("set s{at} 0 0 3\r\n{:03}\r\n", round))
                .collect();
            conn.send(sets);
            conn.expect("STORED\r\n".repeat(200));
            let gets: String = (0..200).map(|at| format!("get s{at}\r\n")).collect();
            conn.send(gets);
            let want = |at| format!("VALUE s{at} 0 3\r\n{round:03}\r\nEND\r\n");
            conn.expect((0..200).map(want).collect::<String>());
        }
        let mut binary = proxy.connect();
        assert_eq!(binary.ask_packet(&store(op::SET, "b", "1")).status, 0);
        assert_eq!(
            &binary.ask_packet(&packet(op::GET, "b", "")).value[..],
            b"1"
        );
        assert_eq!(figure(&proxy, "node_sign_in_fails"), 0);
    }
    // Another name, another authority, no certificate, no TLS at all: the node fails, and the log says why.
    for (words, port, told) in [
        (
            good.replace("localhost", "elsewhere"),
            nodes[0].ports()[0],
            "elsewhere",
        ),
        (
            good.replace(&format!("tls_ca = \"{dir}"), &format!("tls_ca = \"{other}")),
            nodes[0].ports()[0],
            "TLS with",
        ),
        (
            good.lines().take(3).collect::<Vec<_>>().join("\n"),
            nodes[0].ports()[0],
            "TLS with",
        ),
        (good.clone(), plain(&nodes[0]), "TLS with"),
    ] {
        let proxy = proxy(&pool_of([port], &words), &[]);
        let mut conn = proxy.connect();
        conn.round("get k\r\n", "SERVER_ERROR backend\r\n");
        conn.round("set k 0 0 1\r\nx\r\n", "SERVER_ERROR backend\r\n");
        assert!(figure(&proxy, "node_sign_in_fails") > 0, "{words}");
        assert!(proxy.stderr().contains(told), "{words}: {}", proxy.stderr());
    }
    // Faults of the file.
    let path = file(&pool_of(ports(), &good));
    let proxy = proxy_of(&path);
    let mut conn = proxy.connect();
    for (words, told) in [
        ("tls = true".to_owned(), "pools.main.tls_ca: is not there"),
        (
            good.replace("tls = true", "tls = false"),
            "pools.main.tls_ca: has no meaning without tls = true",
        ),
        (
            good.lines().take(4).collect::<Vec<_>>().join("\n"),
            "pools.main.tls_cert: goes with tls_key",
        ),
        (good.replace("ca.pem", "none.pem"), "none.pem: No such file"),
        (
            good.replace(
                &format!("tls_key = \"{dir}"),
                &format!("tls_key = \"{other}"),
            ),
            "pools.main.tls_key: ",
        ),
    ] {
        std::fs::write(&path, pool_of(ports(), &words)).expect("it is written");
        conn.send("proxy reload\r\n");
        let line = conn.expect_line();
        assert!(line.contains(told), "{words}: {line}");
    }
    assert_eq!(conn.set("k", b"1"), "STORED");
    // Files that have changed are taken up, though the words are as they were.
    std::fs::write(&path, pool_of(ports(), &good)).expect("it is written");
    std::fs::copy(stranger.0.join("ca.pem"), files.0.join("ca.pem")).expect("it is copied");
    conn.round("proxy reload\r\n", "OK\r\n");
    conn.round("get k\r\n", "SERVER_ERROR backend\r\n");
}

#[test]
fn faults_of_routes_are_told_with_their_words() {
    if !is_ketch() {
        return;
    }
    let pools = [named("main", &[1], ""), named("b", &[2], "")];
    let path = file(&routes(&pools, ""));
    let proxy = proxy_of(&path);
    let mut conn = proxy.connect();
    for (words, told) in [
        (
            "gutter = \"c\"",
            "gutter: there is no pool \"c\"; pools are",
        ),
        (
            "gutter = \"main\"",
            "gutter: is the pool of the route itself",
        ),
        (
            "gutter_ttl_s = 5",
            "gutter_ttl_s: has no meaning without gutter",
        ),
        (
            "gutter = \"b\"\ngutter_ttl_s = 0",
            "gutter_ttl_s: must be seconds",
        ),
        (
            "migrate_to = \"b\"",
            "migrate_begin: is not there: it must be a date and time with its offset",
        ),
        (
            "migrate_to = \"b\"\nmigrate_begin = 2026-01-01T00:00:00Z\nmigrate_end = 2025-01-01T00:00:00Z",
            "migrate_end: must be later",
        ),
        (
            "migrate_to = \"b\"\nmigrate_begin = 2026-01-01\nmigrate_end = 3",
            "migrate_begin: must be a date and time",
        ),
        ("split = 1", "split: must be a number from 2 to 64"),
        ("delete_to = \"b\"", "delete_to: must be a list of pools"),
        (
            "delete_ack = true",
            "delete_ack: has no meaning without delete_to",
        ),
        (
            "shadow = \"b\"\nshadow_percent = 101",
            "shadow_percent: must be a number from 0 to 100",
        ),
        (
            "requests_per_s = 0",
            "requests_per_s: must be a number above 0",
        ),
        ("burst = 4", "burst: has no meaning without requests_per_s"),
        (
            "allow_deletes = true",
            "allow_deletes: has no meaning without read_only",
        ),
        ("read_only = 1", "read_only: must be true or false"),
        (
            "gutterr = \"b\"",
            "gutterr: no word of this file; known are prefix, pool, gutter",
        ),
        (
            "[users.a]\nburst = 1",
            "burst: has no meaning without requests_per_s",
        ),
        ("[users.a]", "users.a.requests_per_s: is not there"),
    ] {
        std::fs::write(&path, routes(&pools, words)).expect("it is written");
        conn.send("proxy reload\r\n");
        let line = conn.expect_line();
        assert!(
            line.starts_with("SERVER_ERROR") && line.contains(told),
            "{words}: {line}"
        );
    }
    assert_eq!(figure(&proxy, "config_reload_fails"), 18);
}
