//! HTTP for operators: figures that agree with `stats`, keys that other protocols see, and whatever nobody should send.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ketch_testing::{PATIENCE, Rng, Server, binary, is_ketch, wait_until};

/// A server with HTTP, and connections to it.
struct Http {
    server: Server,
    port: u16,
}

/// A reply.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Http {
    fn start(args: &[&str]) -> Http {
        let args = [&["--http", "0"], args].concat();
        let server = Server::start(&args);
        let port = server.http_port();
        Http { server, port }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends bytes on a connection of their own, and reads all that comes back until the server closes.
    fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may have hung up before it has read all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut all = Vec::new();
        match stream.read_to_end(&mut all) {
            Ok(_) => all,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => all,
            Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&all)),
        }
    }

    fn request(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Reply {
        let mut bytes = format!(
            "{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        parse(&self.raw(&bytes))
    }

    fn get(&self, target: &str) -> Reply {
        self.request("GET", target, "", b"")
    }

    /// The samples of `/metrics`, by name and labels.
    fn metrics(&self) -> BTreeMap<String, String> {
        let text = self.get("/metrics").text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pair = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.to_owned())
        };
        samples.map(pair).collect()
    }
}

/// A file with this text, of this test alone.
fn scratch_file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ketch-{name}-{}", std::process::id()));
    std::fs::write(&path, text).expect("a file");
    path
}

fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no status: {head:?}"));
    Reply {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    }
}

#[test]
fn it_says_whether_it_is_there() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&[]);
    assert_eq!(http.get("/health").text(), "{\"status\":\"ok\"}\n");
    wait_until("it lets clients in", || http.get("/ready").status == 200);
    let page = http.get("/");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("Content-Type: text/html; charset=utf-8"));
    assert!(page.text().contains("stats.json") && !page.text().contains("src=\"http"));
    let head = http.request("HEAD", "/health", "", b"");
    assert_eq!((head.status, &head.body[..]), (200, &b""[..]));
    assert!(head.head.contains("Content-Length: 16"));
    assert_eq!(http.request("POST", "/metrics", "", b"").status, 405);
}

#[test]
fn keys_are_those_of_the_other_protocols() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&["-I", "1m"]);
    let mut conn = http.server.connect();
    assert_eq!(http.get("/get?key=a").status, 404);
    let body = "{\"key\":\"a\",\"value\":\"h\u{e9}llo\",\"ttl\":60}";
    let set = http.request("PUT", "/set", "", body.as_bytes());
    assert_eq!((set.status, &set.text()[..]), (200, "{\"stored\":true}\n"));
    conn.round("mg a v t\r\n", "VA 6 t60\r\nh\u{e9}llo\r\n");
    let got = http.get("/get?key=a");
    assert_eq!(
        got.text(),
        "{\"key\":\"a\",\"ttl\":60,\"value\":\"h\u{e9}llo\"}\n"
    );
    let bytes = http.request(
        "GET",
        "/get?key=a",
        "Accept: application/octet-stream\r\n",
        b"",
    );
    assert_eq!(bytes.body, "h\u{e9}llo".as_bytes());
    assert_eq!(http.request("DELETE", "/delete?key=a", "", b"").status, 200);
    assert_eq!(http.request("DELETE", "/delete?key=a", "", b"").status, 404);
    conn.round("get a\r\n", "END\r\n");

    // Bytes that are no text, as they are and in base64.
    assert_eq!(
        http.request("PUT", "/b?ttl=0", "", b"\xff\0\r\n").status,
        200
    );
    conn.round("get b\r\n", b"VALUE b 0 4\r\n\xff\0\r\n\r\nEND\r\n");
    assert_eq!(http.get("/b").body, b"\xff\0\r\n");
    assert_eq!(
        http.get("/get?key=b").text(),
        "{\"encoding\":\"base64\",\"key\":\"b\",\"ttl\":-1,\"value\":\"/wANCg==\"}\n"
    );
    let body = b"{\"key\":\"c\",\"value\":\"/wANCg==\",\"encoding\":\"base64\"}";
    assert_eq!(http.request("PUT", "/set", "", body).status, 200);
    assert_eq!(http.get("/c").body, b"\xff\0\r\n");
    assert_eq!(http.request("DELETE", "/c", "", b"").status, 200);

    // A key is percent-encoded; a large value comes whole; an empty one is there.
    assert_eq!(http.request("PUT", "/user%3A1%2Fx", "", b"").status, 200);
    conn.round("get user:1/x\r\n", "VALUE user:1/x 0 0\r\n\r\nEND\r\n");
    let large = Rng::new(1).bytes(900_000);
    assert_eq!(http.request("PUT", "/large", "", &large).status, 200);
    assert_eq!(http.get("/large").body, large);
    let too_large = vec![b'x'; 1 << 20];
    assert_eq!(http.request("PUT", "/large", "", &too_large).status, 413);
    assert_eq!(http.get("/large").status, 404, "it would be stale");

    // Time moves for them as for all.
    assert_eq!(http.request("PUT", "/d?ttl=1", "", b"x").status, 200);
    wait_until("its time is over", || http.get("/d").status == 404);
    // More than thirty days is no date here.
    assert_eq!(http.request("PUT", "/e?ttl=3000000", "", b"x").status, 200);
    assert!(
        http.get("/get?key=e").text().contains("\"ttl\":3000000")
            || http.get("/get?key=e").text().contains("\"ttl\":2999999")
    );
}

#[test]
fn what_is_wrong_is_said() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&[]);
    let long = "k".repeat(251);
    for (method, target, body, status) in [
        ("GET", "/get".to_owned(), "", 400),
        ("GET", "/get?key=".to_owned(), "", 400),
        ("GET", "/get?key=a%20b".to_owned(), "", 400),
        ("GET", "/get?key=a%0d%0a".to_owned(), "", 400),
        ("GET", "/get?key=%zz".to_owned(), "", 400),
        ("GET", format!("/get?key={long}"), "", 400),
        ("GET", format!("/{long}"), "", 400),
        ("GET", "/../etc/passwd".to_owned(), "", 400),
        ("GET", "/%2e%2e/x".to_owned(), "", 400),
        ("PUT", "/set".to_owned(), "", 400),
        ("PUT", "/set".to_owned(), "{", 400),
        ("PUT", "/set".to_owned(), "[1]", 400),
        ("PUT", "/set".to_owned(), "{\"key\":\"a\"}", 400),
        ("PUT", "/set".to_owned(), "{\"key\":1,\"value\":\"x\"}", 400),
        (
            "PUT",
            "/set".to_owned(),
            "{\"key\":\"a\",\"value\":\"x\",\"ttl\":\"1\"}",
            400,
        ),
        (
            "PUT",
            "/set".to_owned(),
            "{\"key\":\"a\",\"value\":\"x\",\"ttl\":1.5}",
            400,
        ),
        (
            "PUT",
            "/set".to_owned(),
            "{\"key\":\"a\",\"value\":\"x\",\"ttl\":-2}",
            400,
        ),
        (
            "PUT",
            "/set".to_owned(),
            "{\"key\":\"a\",\"value\":\"x\",\"tll\":1}",
            400,
        ),
        (
            "PUT",
            "/set".to_owned(),
            "{\"key\":\"a\",\"value\":\"%\",\"encoding\":\"base64\"}",
            400,
        ),
        (
            "PUT",
            "/set".to_owned(),
            "{\"key\":\"a b\",\"value\":\"x\"}",
            400,
        ),
        ("PUT", "/k?ttl=soon".to_owned(), "x", 400),
        ("GET", "/set".to_owned(), "", 405),
        ("BREW", "/k".to_owned(), "", 405),
    ] {
        let reply = http.request(method, &target, "", body.as_bytes());
        assert_eq!(reply.status, status, "{method} {target} {body}: {reply:?}");
        assert!(reply.text().starts_with("{\"error\":\""), "{reply:?}");
    }
    let nested = format!("{}1", "[".repeat(100_000));
    assert_eq!(
        http.request("PUT", "/set", "", nested.as_bytes()).status,
        400
    );
    assert_eq!(http.server.stat("curr_items"), 0);
}

#[test]
fn a_token_keeps_others_out() {
    if !is_ketch() {
        return;
    }
    let file = scratch_file("http-token", "  secret-word\n");
    let http = Http::start(&["--http-token-file", file.to_str().expect("a path")]);
    wait_until("it lets clients in", || http.get("/ready").status == 200);
    for target in ["/health", "/ready", "/"] {
        assert_eq!(http.get(target).status, 200, "{target}");
    }
    for target in ["/metrics", "/stats.json", "/get?key=a", "/a"] {
        let reply = http.get(target);
        assert_eq!(reply.status, 401, "{target}");
        assert!(reply.head.contains("WWW-Authenticate: Bearer"));
        assert!(reply.text().starts_with("{\"error\":"));
        let wrong = http.request("GET", target, "Authorization: Bearer secret-wor\r\n", b"");
        assert_eq!(wrong.status, 401);
    }
    let set = b"{\"key\":\"a\",\"value\":\"x\"}";
    assert_eq!(http.request("PUT", "/set", "", set).status, 401);
    assert_eq!(http.server.stat("curr_items"), 0);
    let token = "Authorization: Bearer secret-word\r\n";
    assert_eq!(http.request("PUT", "/set", token, set).status, 200);
    assert_eq!(http.request("GET", "/a", token, b"").text(), "x");
    assert_eq!(http.request("GET", "/metrics", token, b"").status, 200);
    let foreign = format!("{token}Origin: http://elsewhere.example\r\n");
    assert_eq!(http.request("DELETE", "/a", &foreign, b"").status, 403);
}

/// Of what `stats` says each number is in the metrics, under its name.
#[test]
fn metrics_are_the_figures_of_stats() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&["-o", "temporary_ttl=30"]);
    let mut conn = http.server.connect();
    for n in 0..500 {
        conn.set(&format!("k{n}"), &vec![b'x'; n * 7]);
    }
    conn.round("get k1 nothing\r\n", "VALUE k1 0 7\r\nxxxxxxx\r\nEND\r\n");
    conn.round("set n 0 20 1\r\n1\r\nincr n 1\r\ndecr n 1\r\nincr m 1\r\ntouch n 9\r\ndelete k2\r\ndelete m\r\n",
        "STORED\r\n2\r\n1\r\nNOT_FOUND\r\nTOUCHED\r\nDELETED\r\nNOT_FOUND\r\n");
    let unique = conn.cas_of("n");
    conn.round(
        format!("cas n 0 0 1 {unique}\r\n7\r\ncas n 0 0 1 1\r\n7\r\ncas m 0 0 1 1\r\n7\r\n"),
        "STORED\r\nEXISTS\r\nNOT_FOUND\r\n",
    );
    // The crawler starts by itself, now and then just between the two.
    let (metrics, general) = loop {
        let (before, metrics, after) = (conn.stats(""), http.metrics(), conn.stats(""));
        if before["lru_crawler_starts"] == after["lru_crawler_starts"] {
            break (metrics, after);
        }
    };
    let settings = conn.stats("settings");
    let same = |metric: &str, value: &str| {
        let found = metrics.get(metric).map(String::as_str);
        assert_eq!(found, Some(value), "{metric}");
    };
    for (metric, key) in [
        ("current_items", "curr_items"),
        ("items_total", "total_items"),
        ("current_bytes", "bytes"),
        ("limit_bytes", "limit_maxbytes"),
        ("items_evicted_total", "evictions"),
        ("items_reclaimed_total", "reclaimed"),
        ("current_connections", "curr_connections"),
        ("connections_total", "total_connections"),
        ("connections_rejected_total", "rejected_connections"),
        ("connections_yielded_total", "conn_yields"),
        ("connections_listener_disabled_total", "listen_disabled_num"),
        ("accepting_connections", "accepting_conns"),
        ("item_too_large_total", "store_too_large"),
        ("item_no_memory_total", "store_no_memory"),
        ("direct_reclaims_total", "direct_reclaims"),
        ("lru_crawler_starts_total", "lru_crawler_starts"),
        ("lru_crawler_moves_to_cold_total", "moves_to_cold"),
        ("lru_crawler_moves_to_warm_total", "moves_to_warm"),
        ("commands_total{command=\"get\",status=\"hit\"}", "get_hits"),
        (
            "commands_total{command=\"get\",status=\"miss\"}",
            "get_misses",
        ),
        (
            "commands_total{command=\"delete\",status=\"hit\"}",
            "delete_hits",
        ),
        (
            "commands_total{command=\"delete\",status=\"miss\"}",
            "delete_misses",
        ),
        (
            "commands_total{command=\"incr\",status=\"hit\"}",
            "incr_hits",
        ),
        (
            "commands_total{command=\"incr\",status=\"miss\"}",
            "incr_misses",
        ),
        (
            "commands_total{command=\"decr\",status=\"hit\"}",
            "decr_hits",
        ),
        ("commands_total{command=\"cas\",status=\"hit\"}", "cas_hits"),
        (
            "commands_total{command=\"cas\",status=\"miss\"}",
            "cas_misses",
        ),
        (
            "commands_total{command=\"cas\",status=\"badval\"}",
            "cas_badval",
        ),
        (
            "commands_total{command=\"touch\",status=\"hit\"}",
            "touch_hits",
        ),
        (
            "commands_total{command=\"flush\",status=\"hit\"}",
            "cmd_flush",
        ),
    ] {
        same(&format!("memcached_{metric}"), &general[key]);
    }
    for (metric, key) in [
        ("max_connections", "maxconns"),
        ("lru_crawler_hot_percent", "hot_lru_pct"),
        ("lru_crawler_hot_max_factor", "hot_max_factor"),
        ("lru_crawler_sleep", "lru_crawler_sleep"),
    ] {
        same(&format!("memcached_{metric}"), &settings[key]);
    }
    let number = |key: &str| general[key].parse::<u64>().expect("a number");
    let sets = number("cmd_set") - number("cas_hits") - number("cas_misses") - number("cas_badval");
    same(
        "memcached_commands_total{command=\"set\",status=\"hit\"}",
        &sets.to_string(),
    );
    let slabs = conn.stats("slabs");
    same("memcached_malloced_bytes", &slabs["total_malloced"]);
    let mut classes = 0;
    for (key, value) in &slabs {
        let Some((class, key)) = key.split_once(':') else {
            continue;
        };
        let metric = match key {
            "chunk_size" => "chunk_size_bytes",
            "chunks_per_page" => "chunks_per_page",
            "total_pages" => "current_pages",
            "total_chunks" => "current_chunks",
            "used_chunks" => "chunks_used",
            "free_chunks" => "chunks_free",
            "free_chunks_end" => "chunks_free_end",
            _ => continue,
        };
        classes += 1;
        same(
            &format!("memcached_slab_{metric}{{slab=\"{class}\"}}"),
            value,
        );
    }
    assert!(classes > 20, "{classes}");
    for (key, value) in conn.stats("items") {
        let mut words = key.split(':').skip(1);
        let (Some(class), Some(key)) = (words.next(), words.next()) else {
            panic!("{key}");
        };
        let metric = match key {
            "number" => "current_items",
            "number_hot" => "hot_items",
            "number_warm" => "warm_items",
            "number_cold" => "cold_items",
            "number_temp" => "temporary_items",
            "mem_requested" => "mem_requested_bytes",
            "evicted" => "items_evicted_total",
            "reclaimed" => "items_reclaimed_total",
            "outofmemory" => "items_outofmemory_total",
            _ => continue,
        };
        same(
            &format!("memcached_slab_{metric}{{slab=\"{class}\"}}"),
            &value,
        );
    }
    for name in [
        "memcached_up",
        "process_open_fds",
        "process_resident_memory_bytes",
        "memcached_uptime_seconds",
    ] {
        assert!(metrics.contains_key(name), "{name}");
    }
}

/// Each family has its help and its type, once, before its samples.
#[test]
fn metrics_are_families() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&[]);
    let mut conn = http.server.connect();
    conn.set("user:1\"\\", b"x");
    conn.get("user:1\"\\");
    let text = http.get("/metrics").text();
    let mut families = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            current = rest.split(' ').next().expect("a name").to_owned();
            assert!(
                families.insert(current.clone(), ()).is_none(),
                "twice: {current}"
            );
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(rest.starts_with(&format!("{current} ")), "{line}");
        } else {
            assert!(line.starts_with(&current), "{line} is not of {current}");
            let value = line.rsplit(' ').next().expect("a value");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
    // Debian's package prometheus has it.
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    if let Ok(mut promtool) = promtool {
        let mut stdin = promtool.stdin.take().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("it reads");
        drop(stdin);
        let output = promtool.wait_with_output().expect("it ends");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn what_goes_on_among_the_keys_is_told_alike_everywhere() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&["-m", "64"]);
    let mut conn = http.server.connect();
    conn.set("user:1", b"x");
    for _ in 0..60 {
        conn.get("user:1");
    }
    for _ in 0..5 {
        conn.get("user:none");
    }
    conn.set("page:1", b"y");
    conn.round("delete page:1\r\nget page:1\r\n", "DELETED\r\nEND\r\n");
    conn.round("set gone 0 -1 1\r\nx\r\nget gone\r\n", "STORED\r\nEND\r\n");
    conn.set("flushed", b"z");
    conn.round("flush_all\r\nget flushed\r\n", "OK\r\nEND\r\n");
    let misses = conn.stats("misses");
    let told: Vec<(&str, &str)> = misses
        .iter()
        .map(|(key, value)| (&key[..], &value[..]))
        .collect();
    assert_eq!(
        told,
        [
            ("deleted", "1"),
            ("evicted", "0"),
            ("expired", "1"),
            ("flushed", "1"),
            ("never_seen", "5")
        ]
    );
    let prefixes = conn.stats("prefixes");
    let of_user = &prefixes["user"];
    assert!(
        of_user.starts_with("reads=65 hits=60 stores=1 "),
        "{of_user}"
    );
    assert!(of_user.contains(" never_seen=5 "), "{of_user}");
    assert!(prefixes["page"].contains(" deleted=1 "));
    wait_until("the second is over", || {
        let hot = conn.stats("hotkeys");
        hot.get("reads:0")
            .is_some_and(|line| line.starts_with("key=user:1 "))
    });
    let latency = conn.stats("latency");
    assert_eq!(latency["get:count"], "68");
    let mean: f64 = latency["get:mean_us"].parse().expect("a number");
    assert!(mean > 0.0 && mean < 1e6, "{mean}");
    let json = http.get("/stats.json").text();
    for part in [
        "\"never_seen\":5",
        "\"key\":\"user:1\"",
        "\"prefix\":\"user\"",
        "\"command\":\"get\"",
        "\"what_if\":[{",
    ] {
        wait_until(part, || http.get("/stats.json").text().contains(part));
    }
    assert!(json.contains("\"get_hits\":60"));
    conn.round("stats reset\r\n", "RESET\r\n");
    assert_eq!(conn.stats("latency")["set:count"], "0");
    assert_eq!(conn.stats("misses")["never_seen"], "0");
}

/// A hot key is answered its share of the reads, once a second is over; others are not.
#[test]
fn a_hot_key_says_so() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&[]);
    let mut conn = http.server.connect();
    conn.set("hot", b"x");
    conn.set("cold", b"x");
    let many = "get hot\r\n".repeat(400);
    let replies = "VALUE hot 0 1\r\nx\r\nEND\r\n".repeat(400);
    wait_until("it is hot", || {
        conn.round(&many, &replies);
        conn.ask("mg hot P\r\n").trim_end() != "HD"
    });
    let line = conn.ask("mg hot P k\r\n");
    let share: u32 = line
        .strip_prefix("HD P")
        .and_then(|rest| rest.trim_end().strip_suffix(" khot"))
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{line:?}"));
    assert!((900..=1000).contains(&share), "{share}");
    conn.round("mg cold P\r\n", "HD\r\n");
    conn.round("mg none P\r\n", "EN\r\n");
}

/// Requests in a row, in pieces, with a body that is asked for first, and in chunks.
#[test]
fn requests_come_as_they_like() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&[]);
    let row = "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
        PUT /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12\r\n1\r\n3\r\n0\r\n\r\n\
        GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let all = String::from_utf8_lossy(&http.raw(row.as_bytes())).into_owned();
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 4, "{all}");
    assert!(all.ends_with("\r\n\r\n123"), "{all}");
    let mut stream = http.connect();
    for byte in b"GET /b HTTP/1.0\r\n\r\n" {
        stream.write_all(&[*byte]).expect("it reads");
    }
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .expect("it answers and closes");
    assert_eq!(parse(&bytes).body, b"123");
    let mut stream = http.connect();
    stream
        .write_all(
            b"PUT /c HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        )
        .expect("it reads");
    let mut room = [0; 25];
    stream.read_exact(&mut room).expect("it says go on");
    assert_eq!(&room, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").expect("it reads");
    wait_until("it is stored", || http.get("/c").body == b"abc");
}

#[test]
fn what_nobody_should_send_ends_with_an_error() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&[]);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "a".repeat(1 << 20)
    );
    for (bytes, status) in [
        (long.as_bytes(), 431),
        (&b"get a\r\n\r\n"[..], 400),
        (b"\x80\x00\x00\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ] {
        let reply = parse(&http.raw(bytes));
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.head.contains("Connection: close"));
        assert!(reply.text().starts_with("{\"error\":"));
    }
    assert_eq!(http.get("/health").status, 200);
    // Half a request, and its peer is gone.
    http.raw(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(http.get("/a").status, 404);
}

/// A thousand who say nothing, and one that sends a byte now and then, keep nobody out and cost no more than they may.
#[test]
fn idle_clients_keep_nobody_out() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&[]);
    http.server.allow_more_files(2000);
    let before = http.server.rss_kb();
    let mut idle: Vec<TcpStream> = Vec::new();
    for n in 0..1000 {
        let mut stream = http.connect();
        if n % 2 == 0 {
            stream.write_all(b"GET /hea").expect("it reads");
        }
        idle.push(stream);
        if n % 100 == 99 {
            let asked = Instant::now();
            assert_eq!(http.get("/health").status, 200, "{n}");
            assert!(asked.elapsed() < Duration::from_secs(5));
        }
    }
    assert!(
        http.server.open_files() < 400,
        "{}",
        http.server.open_files()
    );
    assert!(http.server.rss_kb() < before + (20 << 10));
    // The protocol of the cache is none the worse.
    http.server.connect().round("mn\r\n", "MN\r\n");
}

/// Bodies that never end hold no more than 64 MB, all of them together: those that hold most are closed, the others are
/// answered.
#[test]
fn unfinished_bodies_hold_no_more_than_they_may() {
    if !is_ketch() {
        return;
    }
    const CLIENTS: usize = 100;
    let http = Http::start(&[]);
    let before = http.server.rss_kb();
    let part = vec![b'b'; 1_900_000];
    let head = b"PUT /large HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n";
    let mut most = 0;
    let mut open = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = http.connect();
        // One that is closed in the middle of it cannot go on.
        let _ = stream
            .write_all(head)
            .and_then(|()| stream.write_all(&part));
        most = most.max(http.server.rss_kb().saturating_sub(before));
        open.push(stream);
    }
    assert_eq!(http.get("/health").status, 200);
    for stream in &open {
        stream.set_nonblocking(true).expect("a socket");
    }
    let goes_on = |mut stream: &TcpStream| match stream.read(&mut [0; 1]) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    wait_until("those beyond 64 MB are closed", || {
        most = most.max(http.server.rss_kb().saturating_sub(before));
        open.retain(goes_on);
        open.len() <= (64 << 20) / part.len()
    });
    println!("{} of {CLIENTS} are left, {most} KB", open.len());
    assert!(!open.is_empty());
    assert!(most < 100 << 10, "{most} KB");
}

/// A reader of replies who does not read them gets no more, and costs no more than a little.
#[test]
fn who_does_not_read_gets_no_more() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&[]);
    let mut conn = http.server.connect();
    conn.set("large", &vec![b'x'; 1_000_000]);
    let before = http.server.rss_kb();
    let mut stream = http.connect();
    let request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
    stream.write_all(&request).expect("it reads");
    assert_eq!(http.get("/health").status, 200);
    assert!(http.server.rss_kb() < before + (16 << 10));
    // All of them come when they are taken.
    let mut taken = 0;
    let mut room = vec![0; 1 << 16];
    while taken < 50_000_000 {
        taken += stream.read(&mut room).expect("it goes on");
    }
}

#[test]
fn bytes_at_random_do_no_harm() {
    if !is_ketch() {
        return;
    }
    let mut http = Http::start(&[]);
    let mut rng = Rng::from_env("http");
    let seeds = [
        "GET /get?key=a HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /set HTTP/1.1\r\nHost: x\r\nContent-Length: 23\r\n\r\n{\"key\":\"a\",\"value\":\"x\"}",
        "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "DELETE /delete?key=a HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for _ in 0..300 {
        let mut bytes = rng.pick(&seeds).as_bytes().to_vec();
        for _ in 0..rng.below(8) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.below(256) as u8,
                1 => _ = bytes.remove(at),
                _ => bytes.insert(at, b"\r\n \0:%\"{0"[rng.below(9) as usize]),
            }
        }
        http.raw(&bytes);
    }
    assert!(http.server.is_alive());
    assert_eq!(http.get("/health").status, 200);
}

#[test]
fn options_that_do_not_go_together() {
    if !is_ketch() {
        return;
    }
    let ketch = binary();
    let users = scratch_file("http-users", "ann:secret\n");
    let users = users.to_str().expect("a path");
    for (args, reason) in [
        (
            &["--http", "nowhere:x"][..],
            "http must be PORT or HOST:PORT",
        ),
        (&["--http", "0", "--http-tls"], "needs -Z"),
        (&["--http", "0", "-Y", users], "--http-token-file"),
        (
            &["--http", "0", "--http-token-file", "/nonexistent/token"],
            "/nonexistent/token",
        ),
        (&["-m", "auto x"], "memory limit"),
        (&["--log-format", "xml"], "text or json"),
    ] {
        let output = Command::new(&ketch)
            .args(["-p", "0", "-u", "root"])
            .args(args)
            .output()
            .expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && told.contains(reason),
            "{args:?}: {told}"
        );
    }
}

/// A reply that its reader leaves lying is told among the slow ones, and for what.
#[test]
fn a_slow_reader_is_seen_to_be_slow() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-I", "16m", "-m", "64"]);
    let mut conn = server.connect();
    conn.set("large", &vec![b'x'; 12_000_000]);
    let mut reader = server.connect();
    reader.send("get large\r\n");
    wait_until("its reply waits", || {
        let conns = conn.stats("conns");
        conns.values().any(|state| state == "conn_mwrite")
    });
    let since = Instant::now();
    wait_until("it has waited", || {
        since.elapsed() > Duration::from_millis(30)
    });
    reader.take(12_000_000);
    wait_until("it is told", || {
        let slow = conn.stats("slow");
        slow.values().any(|line| line.contains(" stage=socket "))
    });
}

/// Who sends a request by the byte gets ten seconds for it, however many there are, and others are answered meanwhile.
#[test]
fn a_request_by_the_byte_has_its_time() {
    if !is_ketch() {
        return;
    }
    let http = Http::start(&[]);
    let began = Instant::now();
    let mut slow: Vec<TcpStream> = (0..50).map(|_| http.connect()).collect();
    let mut request = b"GET /health HTTP/1.1\r\nHost: ".to_vec();
    request.resize(400, b'x');
    let mut bytes = request.iter();
    // They are closed while bytes still come.
    let mut is_closed = |slow: &mut Vec<TcpStream>| {
        let byte = [*bytes.next().expect("they are closed before all is sent")];
        slow.retain_mut(|stream| stream.write_all(&byte).is_ok());
        slow.is_empty()
    };
    while !is_closed(&mut slow) {
        let asked = Instant::now();
        assert_eq!(http.get("/health").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "others wait");
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(9),
        "{took:?}: they have their time"
    );
}
