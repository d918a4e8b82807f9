//! A proxy before real servers: what clients see of it is what they see of one server, until nodes die, lie or say nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ketch_testing::packet::{op, packet, store};
use ketch_testing::{Conn, PATIENCE, Rng, Server, is_ketch, wait_within};

/// A proxy with this file of routes.
pub(crate) fn proxy(routes: &str, more: &[&str]) -> Server {
    let path = file(routes);
    let option = format!("proxy_config={}", path.display());
    let args = [&["-t", "2", "-o", &option], more].concat();
    Server::start(&args)
}

/// A proxy with this file, which the test writes anew.
pub(crate) fn proxy_of(path: &Path) -> Server {
    let option = format!("proxy_config={}", path.display());
    Server::start(&["-t", "1", "-o", &option])
}

pub(crate) fn file(text: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("ketch-proxy-{}-{count}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).expect("the file is written");
    path
}

/// A pool of these servers, with these words beside.
pub(crate) fn pool<'s>(nodes: impl IntoIterator<Item = &'s Server>, more: &str) -> String {
    pool_of(nodes.into_iter().map(Server::port), more)
}

pub(crate) fn pool_of(ports: impl IntoIterator<Item = u16>, more: &str) -> String {
    let nodes = ports
        .into_iter()
        .map(|port| format!("\"127.0.0.1:{port}\""));
    let nodes: Vec<String> = nodes.collect();
    format!("[pools.main]\nnodes = [{}]\n{more}\n", nodes.join(", "))
}

/// Requests of all kinds about few keys, with what a client that speaks text sends around them.
fn some_request(rng: &mut Rng) -> String {
    let key = format!("key:{}", rng.below(12));
    let value = "v".repeat([0, 1, 5, 300, 5000][rng.below(5) as usize]);
    let len = value.len();
    let quiet = rng.pick(&["", " q", " O12 k", " O12 k q"]);
    let noreply = rng.pick(&["", " noreply"]);
    let verb = rng.pick(&["set", "add", "replace", "append", "prepend"]);
    match rng.below(22) {
        0..4 => format!("{verb} {key} 7 0 {len}{noreply}\r\n{value}\r\n"),
        4..7 => format!("get {key}\r\n"),
        7 | 8 => format!("get {key} key:1 absent key:2 key:3 key:1\r\n"),
        9 => format!("delete {key}{noreply}\r\n"),
        10 => format!("set {key} 0 0 2{noreply}\r\n12\r\n"),
        11 => format!("incr {key} 3{noreply}\r\n"),
        12 => format!("touch {key} 100{noreply}\r\n"),
        13 => format!("gat 100 {key} key:4\r\n"),
        14 => format!("mg {key} v f s t{quiet}\r\n"),
        15 => format!("ms {key} {len} T100 F3{quiet}\r\n{value}\r\n"),
        16 => format!("md {key}{quiet}\r\n"),
        17 => format!("ma {key} D2 v{quiet}\r\n"),
        18 => format!("ma {key} N100 J5 v{quiet}\r\n"),
        19 => "mg a2V5OjE= b v k\r\n".to_owned(),
        20 => {
            rng.pick(&["mn", "get", "foo", "set x 0 0", "version", "incr key:1 x"])
                .to_owned()
                + "\r\n"
        }
        _ => format!("set {key} 0 0 1\r\nbad\r\n"),
    }
}

/// The same bytes to a server and to a proxy bring the same bytes back, however they are cut.
fn is_like_one_server(more: &str, seed: u64) {
    let nodes = [(); 3].map(|()| Server::start(&["-t", "1"]));
    let proxy = proxy(&pool(&nodes, more), &[]);
    let one = Server::start(&["-t", "1"]);
    let mut rng = Rng::new(seed);
    for _ in 0..6 {
        let mut script = String::from("flush_all\r\n");
        for _ in 0..120 {
            script.push_str(&some_request(&mut rng));
        }
        script.push_str("get key:1 key:2 key:3\r\nmn\r\n");
        let ask = |server: &Server, rng: &mut Rng| {
            let mut conn = server.connect();
            let mut rest = script.as_bytes();
            let mut writer = conn.clone_for_writing();
            let mut cuts = Vec::new();
            while !rest.is_empty() {
                let some = (1 + rng.below(3000) as usize).min(rest.len());
                cuts.push(&rest[..some]);
                rest = &rest[some..];
            }
            thread::scope(|scope| {
                scope.spawn(move || {
                    for cut in cuts {
                        writer.send(cut);
                    }
                    writer.end_of_input();
                });
                String::from_utf8(conn.read_to_end()).expect("replies are text")
            })
        };
        let (want, got) = (ask(&one, &mut rng), ask(&proxy, &mut rng));
        if got != want {
            let lines = want.lines().zip(got.lines()).enumerate();
            let differs = lines.into_iter().find(|(_, (want, got))| want != got);
            let short = |line: &str| line.chars().take(100).collect::<String>();
            let lines: Vec<String> = script.lines().map(short).collect();
            panic!("{differs:?} after\n{}", lines.join("\n"));
        }
    }
}

#[test]
fn a_proxy_is_like_one_server() {
    if is_ketch() {
        is_like_one_server("", 1);
    }
}

#[test]
fn a_proxy_with_copies_is_like_one_server() {
    if is_ketch() {
        is_like_one_server("copies = 2", 2);
    }
}

#[test]
fn uniques_are_those_of_nodes() {
    if !is_ketch() {
        return;
    }
    for more in ["", "copies = 2"] {
        let nodes = [(); 2].map(|()| Server::start(&["-t", "1"]));
        let proxy = proxy(&pool(&nodes, more), &[]);
        let mut conn = proxy.connect();
        for at in 0..20 {
            let key = format!("k{at}");
            conn.set(&key, b"one");
            let unique = conn.cas_of(&key);
            conn.round(format!("cas {key} 0 0 3 {unique}\r\ntwo\r\n"), "STORED\r\n");
            conn.round(
                format!("cas {key} 0 0 5 {unique}\r\nthree\r\n"),
                "EXISTS\r\n",
            );
            conn.round(
                format!("cas no{key} 0 0 1 {unique}\r\nx\r\n"),
                "NOT_FOUND\r\n",
            );
            assert_eq!(conn.get(&key).as_deref(), Some(&b"two"[..]));
        }
    }
}

#[test]
fn keys_go_to_the_pools_of_their_prefixes() {
    if !is_ketch() {
        return;
    }
    let [a, b] = [(); 2].map(|()| Server::start(&["-t", "1"]));
    let routes = format!(
        "[pools.a]\nnodes = [\"127.0.0.1:{}\"]\n[pools.b]\nnodes = [\"127.0.0.1:{}\"]\n\
         [[routes]]\nprefix = \"\"\npool = \"a\"\n[[routes]]\nprefix = \"b:\"\npool = \"b\"\n",
        a.port(),
        b.port()
    );
    let proxy = proxy(&routes, &[]);
    let mut conn = proxy.connect();
    for key in ["x", "b:x", "b"] {
        conn.set(key, key.as_bytes());
    }
    let holds = |server: &Server| ["x", "b:x", "b"].map(|key| server.holds(key).is_some());
    assert_eq!(
        (holds(&a), holds(&b)),
        ([true, false, true], [false, true, false])
    );
    conn.round(
        "get b:x x nothing b\r\n",
        "VALUE b:x 0 3\r\nb:x\r\nVALUE x 0 1\r\nx\r\nVALUE b 0 1\r\nb\r\nEND\r\n",
    );
    conn.round("flush_all\r\n", "OK\r\n");
    assert_eq!((holds(&a), holds(&b)), ([false; 3], [false; 3]));
}

#[test]
fn large_values_pass_and_too_large_ones_are_refused() {
    if !is_ketch() {
        return;
    }
    let nodes = [(); 2].map(|()| Server::start(&["-t", "1"]));
    let proxy = proxy(&pool(&nodes, ""), &[]);
    let mut conn = proxy.connect();
    let value: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
    for key in ["a", "b", "c", "d"] {
        assert_eq!(conn.set(key, &value), "STORED");
    }
    for key in ["a", "b", "c", "d"] {
        assert!(conn.get(key).as_deref() == Some(&value[..]), "{key}");
    }
    conn.send("get a b c d\r\n");
    let all = conn.read_until(b"END\r\n");
    assert!(all.len() > 4_000_000, "{}", all.len());
    let large = vec![b'x'; 2 << 20];
    conn.send(format!("set a 0 0 {}\r\n", large.len()));
    conn.send(&large);
    conn.send("\r\n");
    conn.expect("SERVER_ERROR object too large for cache\r\n");
    conn.round("get a\r\n", "END\r\n");
}

/// In binary, too, a refused store is told in packets, and takes the old value with it.
#[test]
fn binary_clients_are_refused_in_packets() {
    if !is_ketch() {
        return;
    }
    for more in ["", "copies = 2"] {
        let nodes = [(); 2].map(|()| Server::start(&["-t", "1"]));
        let proxy = proxy(&pool(&nodes, more), &[]);
        let mut conn = proxy.connect();
        let large = vec![b'x'; 2 << 20];
        for round in 0..20 {
            let key = format!("key:{round}");
            assert_eq!(
                conn.ask_packet(&store(op::SET, &key, "value")).status,
                0,
                "{more}"
            );
            assert_eq!(
                conn.ask_packet(&store(op::SET, &key, &large)).status,
                3,
                "{more}"
            );
            let get = packet(op::GET, &key, "");
            assert_eq!(conn.ask_packet(&get).status, 1, "{more}: nothing is left");
        }
    }
}

/// Sets and gets of many clients until they are told to stop: requests, and what was not as it should be.
fn load(
    proxy: &Server,
    stop: &Arc<AtomicBool>,
    clients: usize,
) -> Vec<thread::JoinHandle<(u64, Vec<String>)>> {
    let client = |client: usize| {
        let (mut conn, stop) = (proxy.connect(), stop.clone());
        move || {
            let (mut count, mut faults) = (0, Vec::new());
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("load:{client}:{}", round % 50);
                let value = format!("{round}");
                let stored = conn.set(&key, value.as_bytes());
                if stored != "STORED" {
                    faults.push(format!("set {key}: {stored}"));
                    continue;
                }
                let got = conn
                    .get(&key)
                    .map(|got| String::from_utf8_lossy(&got).into_owned());
                if got.as_ref() != Some(&value) {
                    faults.push(format!("get {key}: {got:?} instead of {value}"));
                }
                count += 2;
            }
            (count, faults)
        }
    };
    (0..clients).map(|at| thread::spawn(client(at))).collect()
}

#[test]
fn a_node_that_is_killed_costs_nothing_where_there_are_copies() {
    if !is_ketch() {
        return;
    }
    // With two nodes nobody stands in for the one that is killed.
    for count in [2, 3] {
        a_killed_node_costs_nothing(count);
    }
}

fn a_killed_node_costs_nothing(count: usize) {
    let nodes = (0..count).map(|_| Server::start(&["-t", "1"]));
    let mut nodes: Vec<Server> = nodes.collect();
    let proxy = proxy(&pool(&nodes, "copies = 2"), &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(&proxy, &stop, 8);
    // A binary set tells the unique, which one node decides.
    let binary = {
        let (mut conn, stop) = (proxy.connect(), stop.clone());
        thread::spawn(move || {
            let mut refused = Vec::new();
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let set = store(op::SET, format!("binary:{}", round % 50), "value");
                let status = conn.ask_packet(&set).status;
                if status != 0 {
                    refused.push((round, status));
                }
            }
            refused
        })
    };
    let served = |more: u64| {
        let before = proxy.stat("cmd_get");
        wait_within("clients are served", PATIENCE, || {
            proxy.stat("cmd_get") > before + more
        });
    };
    served(500);
    nodes[1].kill();
    served(500);
    nodes[1].restart();
    served(500);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (count, faults) = client.join().expect("the client runs");
        assert!(count > 0);
        assert_eq!(faults, Vec::<String>::new());
    }
    assert_eq!(binary.join().expect("the client runs"), Vec::new());
}

/// Something that listens as a node would, and does what it is told with each connection.
pub(crate) fn false_node(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    port
}

#[test]
fn nodes_that_lie_or_say_nothing_are_no_servers() {
    if !is_ketch() {
        return;
    }
    let answers: [&'static [u8]; 8] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"VALUE other 0 1\r\nx\r\nEND\r\n",
        b"VALUE k 0 5\r\nx",
        b"VALUE k 0 99999999999999\r\n",
        b"\xff\xff\xff\xff\r\n",
        b"END\r\nEND\r\nEND\r\n",
        b"VALUE k 0 1\r\nx\r\nVALUE k 0 1\r\nx\r\nEND\r\n",
    ];
    for (answer, more, told) in answers.into_iter().flat_map(|answer| {
        [
            (answer, "", "SERVER_ERROR backend\r\n"),
            (answer, "on_failure = \"miss\"", "END\r\n"),
        ]
    }) {
        let port = false_node(move |mut stream| {
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer) {
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        });
        let more = format!("{more}\nattempt_timeout_ms = 100\n");
        let proxy = proxy(&pool_of([port], &more), &[]);
        let mut conn = proxy.connect();
        let begun = Instant::now();
        // What is an answer, and then something more, is an answer once.
        let told = match answer.starts_with(b"END") {
            true => "END\r\n",
            false => told,
        };
        conn.round("get k\r\n", told);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        conn.send("set k 0 0 1\r\nx\r\n");
        let line = conn.expect_line();
        assert!(line.starts_with("SERVER_ERROR") || line == "END", "{line}");
        conn.round("version\r\n", "VERSION 1.6.45\r\n");
    }
}

#[test]
fn a_slow_node_holds_up_only_who_asks_it() {
    if !is_ketch() {
        return;
    }
    let node = Server::start(&["-t", "1"]);
    let silent = false_node(|mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer) {}
    });
    let routes = format!(
        "[pools.good]\nnodes = [\"127.0.0.1:{}\"]\n[pools.slow]\nnodes = [\"127.0.0.1:{silent}\"]\nattempt_timeout_ms = 3000\nrequest_timeout_ms = 3000\n\
         [[routes]]\nprefix = \"\"\npool = \"good\"\n[[routes]]\nprefix = \"slow:\"\npool = \"slow\"\n",
        node.port()
    );
    let proxy = proxy(&routes, &["-t", "1"]);
    let (mut slow, mut good) = (proxy.connect(), proxy.connect());
    let begun = Instant::now();
    slow.send("get slow:k\r\nget k\r\n");
    for _ in 0..50 {
        good.round("get k\r\n", "END\r\n");
    }
    assert!(
        begun.elapsed() < Duration::from_millis(2900),
        "{:?}",
        begun.elapsed()
    );
    slow.expect("SERVER_ERROR backend\r\nEND\r\n");
}

/// What a client stores before a flush is gone, and what it stores behind it is there, though nobody waits for an answer.
#[test]
fn a_flush_has_its_place_among_what_its_client_asks() {
    if !is_ketch() {
        return;
    }
    let nodes = [(); 2].map(|()| Server::start(&["-t", "1"]));
    let proxy = proxy(&pool(&nodes, "connections = 4"), &["-t", "1"]);
    // Their requests go by different lanes.
    let mut conns: Vec<Conn> = (0..8).map(|_| proxy.connect()).collect();
    for round in 0..40 {
        for conn in &mut conns {
            let keys = |prefix: &str| (0..10).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
            let sets = |prefix: &str| -> String {
                let set = |key: String| format!("set {key} 0 0 1 noreply\r\n1\r\n");
                keys(prefix).into_iter().map(set).collect()
            };
            conn.note = format!("round {round}");
            conn.send(sets("before") + "flush_all noreply\r\n" + &sets("behind"));
            let value = |key: String| format!("VALUE {key} 0 1\r\n1\r\n");
            let found: String = keys("behind").into_iter().map(value).collect();
            let all = [keys("before"), keys("behind")].concat().join(" ");
            conn.round(format!("get {all}\r\n"), found + "END\r\n");
        }
    }
}

/// A node sends the reply to another client, and goes on and on. What it says of itself would stand behind that: it counts as late, and
/// the worker serves the others.
#[test]
fn a_node_that_never_comes_to_its_figures_stops_nobody() {
    if !is_ketch() {
        return;
    }
    let port = false_node(|mut stream| {
        let mut buffer = [0; 4096];
        let mut seen = Vec::new();
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..n]);
            if seen.ends_with(b"get slow\r\n") {
                // To the trace of the proxy, and to the client.
                let _ = stream.write_all(b"END\r\nVALUE slow 0 900000\r\n");
                while stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    });
    let more = "attempt_timeout_ms = 300\nrequest_timeout_ms = 600\n";
    let proxy = proxy(&pool_of([port], more), &["-t", "1"]);
    let (mut slow, mut asks) = (proxy.connect(), proxy.connect());
    slow.send("get slow\r\n");
    slow.expect("SERVER_ERROR backend\r\n");
    for _ in 0..3 {
        asks.send("stats\r\nflush_all\r\n");
        asks.read_until(b"END\r\n");
        assert!(asks.expect_line().starts_with("SERVER_ERROR"));
        slow.round("version\r\n", "VERSION 1.6.45\r\n");
    }
}

#[test]
fn who_does_not_take_replies_is_not_read_from() {
    if !is_ketch() {
        return;
    }
    let node = Server::start(&["-t", "1"]);
    let proxy = proxy(&pool([&node], ""), &["-t", "1"]);
    let mut conn = proxy.connect();
    conn.set("large", &vec![b'x'; 500_000]);
    let before = proxy.rss_kb();
    // 500 MB of replies, if they were all asked for.
    let mut greedy = proxy.connect();
    let mut writer = greedy.clone_for_writing();
    let (told, waits) = mpsc::channel();
    let asking = thread::spawn(move || {
        for _ in 0..1000 {
            if writer.try_send("get large\r\n").is_err() {
                break;
            }
        }
        let _ = told.send(());
    });
    let _ = waits.recv_timeout(Duration::from_secs(1));
    for _ in 0..20 {
        conn.round("get small\r\n", "END\r\n");
    }
    let grown = proxy.rss_kb().saturating_sub(before);
    assert!(grown < 200_000, "{grown} KB for one client");
    let mut taken = 0;
    while taken < 1000 * 500_000 {
        taken += greedy.take(500_000).len();
    }
    asking.join().expect("all was asked");
}

#[test]
fn many_clients_share_few_connections() {
    if !is_ketch() {
        return;
    }
    let nodes = [(); 2].map(|()| Server::start(&["-t", "1"]));
    let proxy = proxy(&pool(&nodes, "connections = 2"), &["-c", "2048"]);
    let mut clients: Vec<Conn> = (0..500).map(|_| proxy.connect()).collect();
    for round in 0..3 {
        for (at, conn) in clients.iter_mut().enumerate() {
            conn.send(format!("set k{at} 0 0 1\r\n{round}\r\nget k{at}\r\n"));
        }
        for (at, conn) in clients.iter_mut().enumerate() {
            conn.expect(format!("STORED\r\nVALUE k{at} 0 1\r\n{round}\r\nEND\r\n"));
        }
    }
    for node in &nodes {
        let open = node.stat("curr_connections");
        // Two workers with two each, and who asks.
        assert!(open <= 5, "{open}");
    }
}

#[test]
fn a_pool_that_has_no_node_is_refused_or_says_so() {
    if !is_ketch() {
        return;
    }
    let path = file("\n");
    let routes = format!("[pools.main]\nsource = \"file://{}\"\n", path.display());
    let proxy = proxy(&routes, &[]);
    let mut conn = proxy.connect();
    conn.round("get k\r\n", "SERVER_ERROR backend\r\n");
    conn.round("get k l m\r\n", "SERVER_ERROR backend\r\n");
    conn.round("set k 0 0 1\r\nx\r\n", "SERVER_ERROR backend\r\n");
    let node = Server::start(&["-t", "1"]);
    std::fs::write(&path, format!("127.0.0.1:{}\n", node.port())).expect("the list is written");
    wait_within("the node is found", PATIENCE, || {
        conn.set("k", b"x") == "STORED"
    });
    // A list that empties changes nothing.
    std::fs::write(&path, "\n").expect("the list is written");
    wait_within("the empty list is told", PATIENCE, || {
        // It was empty at the start too.
        let told = "the nodes stay as they are: no nodes";
        proxy.stderr().matches(told).count() == 2
    });
    conn.round("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn a_file_is_read_again_and_no_connection_is_dropped() {
    if !is_ketch() {
        return;
    }
    let [a, b] = [(); 2].map(|()| Server::start(&["-t", "1"]));
    let path = file(&pool([&a], ""));
    let proxy = proxy_of(&path);
    let mut conn = proxy.connect();
    conn.set("k", b"a");
    std::fs::write(&path, pool([&b], "dual_read_s = 0")).expect("it is written");
    proxy.signal(libc::SIGHUP);
    wait_within("the other node is asked", PATIENCE, || {
        conn.get("k").is_none()
    });
    conn.set("k", b"b");
    assert_eq!(
        (a.holds("k").is_some(), b.holds("k").is_some()),
        (true, true)
    );
    std::fs::write(&path, "[pools.main]\nnodes = []\n").expect("it is written");
    proxy.signal(libc::SIGHUP);
    wait_within("the fault is told", PATIENCE, || {
        proxy
            .stderr()
            .contains("pools.main.nodes: the list is empty")
    });
    assert_eq!(conn.get("k").as_deref(), Some(&b"b"[..]));
}

/// What a client has asked before its pool's words change comes first at the node, though connections are made anew.
#[test]
fn requests_stay_in_order_when_the_file_is_read_again() {
    if !is_ketch() {
        return;
    }
    let ((asks, asked), (answer, answers)) = (mpsc::channel(), mpsc::channel());
    let answers = Mutex::new(answers);
    let port = false_node(move |mut stream| {
        let mut buffer = [0; 4096];
        let mut seen = Vec::new();
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..n]);
            let (what, reply) = match &seen {
                seen if seen.ends_with(b"\r\n1\r\n") => ("set", &b"END\r\nSTORED\r\n"[..]),
                seen if seen.ends_with(b"get k\r\n") => ("get", &b"END\r\nEND\r\n"[..]),
                _ => continue,
            };
            asks.send(what).expect("the test waits");
            if what == "set" {
                let answers = answers.lock().expect("nobody panics");
                answers.recv().expect("the test says when");
            }
            let _ = stream.write_all(reply);
        }
    });
    let words = |ms: u32| {
        pool_of(
            [port],
            &format!("attempt_timeout_ms = {ms}\nrequest_timeout_ms = {ms}"),
        )
    };
    let path = file(&words(20_000));
    let proxy = proxy_of(&path);
    let mut conn = proxy.connect();
    conn.send("set k 0 0 1 noreply\r\n1\r\n");
    assert_eq!(asked.recv_timeout(PATIENCE), Ok("set"));
    std::fs::write(&path, words(30_000)).expect("the file is written");
    proxy.connect().round("proxy reload\r\n", "OK\r\n");
    conn.send("get k\r\n");
    // Time to do it wrong.
    let early = asked.recv_timeout(Duration::from_millis(300));
    assert!(early.is_err(), "{early:?} comes before the answer to set");
    answer.send(()).expect("the node waits");
    assert_eq!(asked.recv_timeout(PATIENCE), Ok("get"));
    conn.expect("END\r\n");
}

#[test]
fn replies_wait_for_a_client_that_has_said_all() {
    if !is_ketch() {
        return;
    }
    let node = Server::start(&["-t", "1"]);
    let proxy = proxy(&pool([&node], ""), &[]);
    for _ in 0..50 {
        let mut conn = proxy.connect();
        conn.send("set a 0 0 1\r\nx\r\nget a\r\n");
        conn.end_of_input();
        assert_eq!(conn.read_to_end(), b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    }
}

#[test]
fn routes_are_read_again_by_a_command_and_figures_are_told() {
    if !is_ketch() {
        return;
    }
    let [a, b] = [(); 2].map(|()| Server::start(&["-t", "1"]));
    let path = file(&pool([&a], ""));
    let proxy = proxy_of(&path);
    let mut conn = proxy.connect();
    conn.set("k", b"a");
    std::fs::write(&path, pool([&a, &b], "copies = 2")).expect("it is written");
    conn.round("proxy reload\r\n", "OK\r\n");
    std::fs::write(&path, "[pools.main]\nnods = []\n").expect("it is written");
    conn.send("proxy reload\r\n");
    let line = conn.expect_line();
    assert!(
        line.starts_with("SERVER_ERROR") && line.contains("pools.main.nodes: is not there"),
        "{line}"
    );
    conn.round("proxy foo\r\n", "ERROR\r\n");
    conn.set("k", b"both");
    assert_eq!(
        (a.holds("k").is_some(), b.holds("k").is_some()),
        (true, true)
    );
    let figures = proxy.stats("proxy");
    for (name, value) in [
        ("config_reloads", "1"),
        ("config_reload_fails", "1"),
        ("backend_total", "2"),
        ("backend_failed", "0"),
        ("conn_errors", "0"),
    ] {
        assert_eq!(figures.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[test]
fn proxies_in_a_circle_do_not_go_round() {
    if !is_ketch() {
        return;
    }
    // Two proxies that lead to each other: the second is started with the port of the first, which learns of it later.
    let node = Server::start(&["-t", "1"]);
    let path = file(&pool([&node], ""));
    let first = proxy_of(&path);
    let second = proxy(&pool([&first], ""), &[]);
    let mut conn = second.connect();
    // A proxy behind a proxy is no circle.
    assert_eq!(conn.set("k", b"x"), "STORED");
    std::fs::write(&path, pool([&second], "dual_read_s = 0")).expect("it is written");
    first.connect().round("proxy reload\r\n", "OK\r\n");
    let mut conn = first.connect();
    let begun = Instant::now();
    for _ in 0..20 {
        conn.send("get k\r\n");
        let line = conn.expect_line();
        assert!(line.starts_with("SERVER_ERROR"), "{line}");
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let told = || {
        first.stats("proxy")["request_failed_depth"] != "0"
            || second.stats("proxy")["request_failed_depth"] != "0"
    };
    wait_within("the circle is noticed", PATIENCE, told);
}

/// Another process takes over: who waits goes on with it, and who is in the midst of a value is told the end. Its rest is never
/// taken for commands.
#[test]
fn a_value_that_is_half_sent_ends_with_its_process() {
    let nodes = [(); 2].map(|()| Server::start(&["-t", "1"]));
    let mut proxy = proxy(&pool(&nodes, ""), &[]);
    let mut idle = proxy.connect();
    assert_eq!(idle.set("keep", b"1"), "STORED");
    let mut half = proxy.connect();
    half.round("mn\r\n", "MN\r\n");
    half.send("set half 0 0 60\r\nget keep\r\n");
    let mut keys = proxy.connect();
    keys.send(format!("get {}", "key ".repeat(9000)));
    wait_within("half a value is read", PATIENCE, || {
        proxy
            .stats("conns")
            .values()
            .any(|state| state == "conn_nread")
    });
    proxy.take_over(&[]);
    assert_eq!(idle.get("keep").as_deref(), Some(&b"1"[..]));
    let _ =
        half.try_send("delete keep\r\nflush_all\r\n0123456789012345678901234567890123456789\r\n");
    assert_eq!(half.try_line(), None, "the rest of a value was answered");
    let _ = keys.try_send("keep\r\n");
    assert_eq!(idle.get("keep").as_deref(), Some(&b"1"[..]));
    assert_eq!(proxy.connect().get("half"), None);
}
