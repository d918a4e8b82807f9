//! `watch`: memcached's lines for people, and the feed for readers who must know when they have missed something.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ketch_testing::udp::UdpClient;
use ketch_testing::{Conn, PATIENCE, Rng, Server, is_ketch, wait_within};

/// Begins to watch.
#[track_caller]
fn watch(server: &Server, words: &str) -> Conn {
    let mut watcher = server.connect();
    watcher.round(format!("watch {words}\r\n"), "OK\r\n");
    if !is_ketch() {
        // memcached says so before all its threads know.
        std::thread::sleep(Duration::from_millis(50));
    }
    watcher
}

/// The next line, without its end.
#[track_caller]
fn line(watcher: &mut Conn) -> String {
    let line = watcher.read_until(b"\n");
    String::from_utf8_lossy(&line[..line.len() - 1]).into_owned()
}

/// A line without what differs from run to run: time, number, descriptor, port; and without the class, which is one's own.
#[track_caller]
fn plain(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let (seconds, us) = words[0]
        .strip_prefix("ts=")
        .and_then(|ts| ts.split_once('.'))
        .unwrap_or_else(|| panic!("{line}"));
    assert!(seconds.parse::<u64>().is_ok() && us.parse::<u32>().is_ok_and(|us| us < 1_000_000));
    let gid = words[1].strip_prefix("gid=").map(str::parse::<u64>);
    assert!(matches!(gid, Some(Ok(1..))), "{line}");
    let own = ["cfd=", "rport=", "clsid="];
    let kept = words[2..]
        .iter()
        .filter(|word| !own.iter().any(|own| word.starts_with(own)));
    kept.copied().collect::<Vec<_>>().join(" ")
}

#[test]
fn requests_are_shown_in_memcacheds_words() {
    let server = Server::start(&[]);
    let mut watcher = watch(&server, "fetchers mutations deletions");
    let mut conn = server.connect();
    let stored = |key, cmd, ttl, size| {
        format!("type=item_store key={key} status=stored cmd={cmd} ttl={ttl} size={size}")
    };
    let missing = |key| format!("type=item_get key={key} status=not_found size=0");
    let found = |key, size| format!("type=item_get key={key} status=found size={size}");
    let not = |key, status, cmd, size| {
        format!("type=item_store key={key} status={status} cmd={cmd} ttl=0 size={size}")
    };
    let table: Vec<(&str, &str, Vec<String>)> = vec![
        ("get a", "END", vec![missing("a")]),
        (
            "set a 5 0 2|xy",
            "STORED",
            vec![missing("a"), stored("a", "set", 0, 2)],
        ),
        ("get a", "VALUE a 5 2|xy|END", vec![found("a", 2)]),
        (
            "get a b",
            "VALUE a 5 2|xy|END",
            vec![found("a", 2), missing("b")],
        ),
        (
            "add a 0 0 1|x",
            "NOT_STORED",
            vec![found("a", 2), not("a", "not_stored", "add", 1)],
        ),
        (
            "add b 0 0 3|abc",
            "STORED",
            vec![missing("b"), stored("b", "add", 0, 3)],
        ),
        (
            "replace c 0 0 1|x",
            "NOT_STORED",
            vec![missing("c"), not("c", "not_stored", "replace", 1)],
        ),
        (
            "append b 0 0 1|d",
            "STORED",
            vec![found("b", 3), stored("b", "append", 0, 4)],
        ),
        (
            "prepend b 0 0 1|_",
            "STORED",
            vec![found("b", 4), stored("b", "prepend", 0, 5)],
        ),
        (
            "append c 0 0 1|x",
            "NOT_STORED",
            vec![missing("c"), not("c", "not_stored", "append", 1)],
        ),
        (
            "cas b 0 0 1 1|x",
            "EXISTS",
            vec![found("b", 5), not("b", "exists", "cas", 1)],
        ),
        (
            "cas c 0 0 1 1|x",
            "NOT_FOUND",
            vec![missing("c"), not("c", "not_found", "cas", 1)],
        ),
        (
            "set n 0 0 2|10",
            "STORED",
            vec![missing("n"), stored("n", "set", 0, 2)],
        ),
        ("incr n 1", "11", vec![found("n", 2)]),
        ("decr n 1", "10", vec![found("n", 2)]),
        ("incr none 1", "NOT_FOUND", vec![missing("none")]),
        ("touch n 0", "TOUCHED", vec![found("n", 2)]),
        ("gat 0 n", "VALUE n 0 2|10|END", vec![found("n", 2)]),
        (
            "delete n",
            "DELETED",
            vec![found("n", 2), "type=deleted key=n cmd=delete size=2".into()],
        ),
        ("delete n", "NOT_FOUND", vec![missing("n")]),
        (
            "ms m 2|hi",
            "HD",
            vec![missing("m"), stored("m", "set", 0, 2)],
        ),
        (
            "ms m 2 MA|hi",
            "HD",
            vec![found("m", 2), stored("m", "append", 0, 4)],
        ),
        (
            "ms m 1 ME|x",
            "NS",
            vec![found("m", 4), not("m", "not_stored", "add", 1)],
        ),
        (
            "ms m 1 C1|x",
            "EX",
            vec![found("m", 4), not("m", "exists", "cas", 1)],
        ),
        (
            "ms YSBi 2 b|hi",
            "HD",
            vec![missing("a%20b"), stored("a%20b", "set", 0, 2)],
        ),
        ("mg m v", "VA 4|hihi", vec![found("m", 4)]),
        ("mg none v", "EN", vec![missing("none")]),
        ("mg viv N30 v", "VA 0 W|", vec![missing("viv")]),
        ("ma none", "NF", vec![missing("none")]),
        ("md m I", "HD", vec![found("m", 4)]),
        (
            "md m",
            "HD",
            vec![found("m", 4), "type=deleted key=m cmd=md size=4".into()],
        ),
        ("md m", "NF", vec![missing("m")]),
        ("me a", "", vec![found("a", 2)]),
        (
            "set \u{e4}%,/ 0 0 0|",
            "STORED",
            vec![
                missing("%C3%A4%25%2C%2F"),
                stored("%C3%A4%25%2C%2F", "set", 0, 0),
            ],
        ),
    ];
    for (request, reply, lines) in table {
        conn.send(request.replace('|', "\r\n") + "\r\n");
        if reply.is_empty() {
            conn.expect_line();
        } else {
            conn.expect(reply.replace('|', "\r\n") + "\r\n");
        }
        for expected in lines {
            let line = line(&mut watcher);
            assert_eq!(plain(&line), expected, "of {request}");
            assert!(line.contains(" clsid="), "{line}");
        }
    }
    // The longest key, encoded.
    let key = "#".repeat(250);
    conn.round(format!("set {key} 0 100 2\r\nhi\r\n"), "STORED\r\n");
    line(&mut watcher);
    let line = line(&mut watcher);
    assert!(
        line.contains(&format!(" key={} ", "%23".repeat(250))),
        "{line}"
    );
    assert!(
        line.contains(" ttl=100 ") || line.contains(" ttl=99 "),
        "{line}"
    );
    conn.round(
        format!("set big 0 0 2000000\r\n{}\r\n", "x".repeat(2_000_000)),
        "SERVER_ERROR object too large for cache\r\n",
    );
    let line = crate::watch::line(&mut watcher);
    assert!(plain(&line).starts_with("type=item_store key=big status=too_large cmd=set ttl=0"));
}

/// What is asked in binary is shown as the same is in text.
#[test]
fn binary_requests_are_shown() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut watcher = watch(&server, "fetchers mutations deletions");
    let mut feed = subscribe(&server, "");
    let mut conn = server.connect();
    let packet = |opcode: u8, extras: &[u8], key: &str, value: &str| {
        let body = extras.len() + key.len() + value.len();
        let mut packet = vec![
            0x80,
            opcode,
            0,
            key.len() as u8,
            extras.len() as u8,
            0,
            0,
            0,
        ];
        packet.extend((body as u32).to_be_bytes());
        packet.extend([0; 12]);
        [&packet, extras, key.as_bytes(), value.as_bytes()].concat()
    };
    conn.send(packet(1, &[0; 8], "k", "vv"));
    conn.take(24);
    assert_eq!(
        plain(&line(&mut watcher)),
        "type=item_get key=k status=not_found size=0"
    );
    assert_eq!(
        plain(&line(&mut watcher)),
        "type=item_store key=k status=stored cmd=set ttl=0 size=2"
    );
    conn.send(packet(0, &[], "k", ""));
    conn.take(24 + 4 + 2);
    assert_eq!(
        plain(&line(&mut watcher)),
        "type=item_get key=k status=found size=2"
    );
    conn.send(packet(4, &[], "k", ""));
    conn.take(24);
    line(&mut watcher);
    assert_eq!(
        plain(&line(&mut watcher)),
        "type=deleted key=k cmd=delete size=2"
    );
    assert_eq!(event(&mut feed)[2..5], ["set", "set", "k"]);
    assert_eq!(event(&mut feed)[2..5], ["delete", "delete", "k"]);
}

#[test]
fn connections_are_shown() {
    let server = Server::start(&["-o", "idle_timeout=1"]);
    let mut watcher = watch(&server, "connevents");
    let mut conn = server.connect();
    let new = line(&mut watcher);
    assert_eq!(plain(&new), "type=conn_new rip=127.0.0.1 transport=tcp");
    conn.send("quit\r\n");
    let closed = line(&mut watcher);
    assert_eq!(
        plain(&closed),
        "type=conn_close rip=127.0.0.1 transport=tcp reason=normal"
    );
    let of = |line: &str, name: &str| {
        let words = line.split(' ');
        words
            .filter(|word| word.starts_with(name))
            .collect::<String>()
    };
    assert_eq!(of(&new, "cfd="), of(&closed, "cfd="));
    assert_eq!(of(&new, "rport="), of(&closed, "rport="));
    let mut conn = server.connect();
    line(&mut watcher);
    conn.send("GET / HTTP/1.1\r\n");
    conn.closed();
    drop(conn);
    let closed = plain(&line(&mut watcher));
    assert_eq!(
        closed,
        "type=conn_close rip=127.0.0.1 transport=tcp reason=error"
    );
    let idle = server.connect();
    line(&mut watcher);
    let closed = plain(&line(&mut watcher));
    assert_eq!(
        closed,
        "type=conn_close rip=127.0.0.1 transport=tcp reason=idle_timeout"
    );
    drop(idle);
}

#[test]
fn evictions_are_shown() {
    let server = Server::start(&["-m", "8", "-o", "slab_chunk_max=16"]);
    let mut conn = server.connect();
    let value = vec![b'v'; 9000];
    let mut watcher = watch(&server, "evictions");
    for n in 0..3000 {
        conn.set(&format!("k,{n}"), &value);
    }
    let line = plain(&line(&mut watcher));
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(
        (words[0], words[2], words[3]),
        ("type=eviction", "fetch=no", "ttl=-1"),
        "{line}"
    );
    assert!(
        words[1].starts_with("key=k%2C") && words[4].starts_with("la="),
        "{line}"
    );
    assert_eq!(words[5], "size=9000", "{line}");
}

#[test]
fn words_that_are_none_are_refused() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("watch nothing\r\n", "ERROR\r\n");
    conn.round("watch fetchers nothing\r\n", "ERROR\r\n");
    if is_ketch() {
        for words in ["feed fetchers", "feed prefix", "feed what=1"] {
            conn.round(format!("watch {words}\r\n"), "ERROR\r\n");
        }
        for words in [
            "feed form=",
            "feed form=json",
            "feed from=1",
            "feed from=x:1",
            "feed from=1:x",
            "feed from=:",
            "feed from=1:-1",
            "feed from=11111111111111111:1",
            "feed heartbeat=5",
            "feed heartbeat=x",
            "prefix=%4",
            "prefix=%zz",
            "feed prefix=%",
        ] {
            conn.round(
                format!("watch {words}\r\n"),
                "CLIENT_ERROR bad command line format\r\n",
            );
        }
    }
    // The connection is as before.
    conn.round("get a\r\n", "END\r\n");
    // As in memcached, the beginning of a word will do.
    conn.round("watch fet mut\r\n", "OK\r\n");
}

#[test]
fn twenty_may_watch() {
    let server = Server::start(&[]);
    let before = server.connect().stat("curr_connections");
    let mut watchers: Vec<Conn> = (0..20).map(|_| watch(&server, "fetchers")).collect();
    let mut conn = server.connect();
    conn.round(
        "watch\r\n",
        "WATCHER_TOO_MANY log watcher limit reached\r\n",
    );
    conn.round("get key\r\n", "END\r\n");
    for watcher in &mut watchers {
        assert!(line(watcher).contains("key=key"));
    }
    wait_within("all are counted", PATIENCE, || {
        conn.stat("log_watchers") == 20
    });
    assert!(conn.stat("log_watcher_sent") >= 20);
    // One is cut, one closes; their places are free again.
    watchers.remove(3).cut();
    drop(watchers.remove(7));
    wait_within("their places are free", PATIENCE, || {
        conn.stat("log_watchers") == 18
    });
    let mut again = watch(&server, "fetchers");
    conn.round("get other\r\n", "END\r\n");
    while !line(&mut again).contains("key=other") {}
    // Nobody watches any more: nothing is kept, and the places of connections are free.
    drop((watchers, again));
    wait_within("nobody is there", PATIENCE, || {
        conn.stat("log_watchers") == 0
    });
    if is_ketch() {
        let lines = conn.stat("log_worker_written");
        conn.round("get key\r\n", "END\r\n");
        assert_eq!(conn.stat("log_worker_written"), lines);
        wait_within("places are free", PATIENCE, || {
            conn.stat("curr_connections") <= before
        });
    }
}

#[test]
fn a_prefix_chooses_keys() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut watcher = watch(&server, "mutations prefix=user:");
    let mut odd = watch(&server, "prefix=%C3%A4%20b mutations");
    let mut raw = watch(&server, "mutations prefix=\u{e4}");
    let mut conn = server.connect();
    for key in ["user", "item:1", "user:1", "User:2", "user:3"] {
        conn.set(key, b"v");
    }
    // a-umlaut, a blank, b.
    conn.round("ms w6QgYg== 1 b\r\nx\r\n", "HD\r\n");
    assert!(line(&mut watcher).contains("key=user%3A1 "));
    assert!(line(&mut watcher).contains("key=user%3A3 "));
    assert!(line(&mut odd).contains("key=%C3%A4%20b "));
    assert!(line(&mut raw).contains("key=%C3%A4%20b "));
}

#[test]
fn requests_are_shown_as_they_came() {
    if !is_ketch() {
        // memcached has not shown them for years.
        return;
    }
    let server = Server::start(&[]);
    let mut watcher = watch(&server, "rawcmds");
    let mut conn = server.connect();
    conn.round(
        "set a 0 0 1\r\nx\r\nget a\x1b\r\nmg  a  v\nnonsense\r\n",
        "STORED\r\nEND\r\nVA 1\r\nx\r\nERROR\r\n",
    );
    for expected in ["set a 0 0 1", "get a?", "mg  a  v", "nonsense"] {
        let line = line(&mut watcher);
        let (_, shown) = line.split_once(" <").expect("a request");
        let (fd, shown) = shown.split_once(' ').expect("a descriptor");
        assert!(fd.parse::<u32>().is_ok());
        assert_eq!(shown, expected);
    }
}

/// What was asked before on the same connection is answered before.
#[test]
fn replies_come_before_the_lines() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round(
        "set a 0 0 1\r\nx\r\nget a\r\nwatch mutations\r\nget a\r\n",
        "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\nOK\r\n",
    );
    server.connect().set("b", b"v");
    assert!(
        line(&mut conn).contains("key=b "),
        "what follows is not executed"
    );
}

/// Lines of one thread come in the order of their numbers, those of several have to be sorted by them: each is there once, and is the same
/// for whoever watches. Each says when it was.
#[test]
fn lines_of_many_threads_have_their_numbers() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 150;
    let server = Server::start(&["-t", "4"]);
    let mut watchers = [(); 2].map(|()| watch(&server, "fetchers mutations"));
    let now_us = || {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        unix.expect("it is past 1970").as_micros() as u64
    };
    let begun = now_us();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut conn = server.connect();
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    conn.round(format!("set k{client} 0 0 1\r\nx\r\n"), "STORED\r\n");
                    let found = format!("VALUE k{client} 0 1\r\nx\r\nEND\r\n");
                    conn.round(format!("get k{client}\r\n"), &found);
                }
            });
        }
    });
    let ended = now_us();
    let [one, other] = watchers.each_mut().map(|watcher| {
        let lines = (0..3 * CLIENTS * ROUNDS).map(|_| line(watcher));
        lines.collect::<Vec<String>>()
    });
    let mut numbers = BTreeSet::new();
    let mut clients = vec![(0, Vec::new()); CLIENTS];
    for line in &one {
        let words: Vec<&str> = line.split(' ').collect();
        let ts = words[0]
            .strip_prefix("ts=")
            .and_then(|ts| ts.split_once('.'));
        let (seconds, us) = ts.unwrap_or_else(|| panic!("{line}"));
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{line}"));
        let at = number(seconds) * 1_000_000 + number(us);
        // The server makes it of the processor's counter.
        let slack_us = 10_000;
        let within = begun - slack_us..=ended + slack_us;
        assert!(within.contains(&at), "{within:?} {line}");
        let gid = words[1].strip_prefix("gid=").map(number);
        let gid = gid.unwrap_or_else(|| panic!("{line}"));
        assert!(numbers.insert(gid), "twice: {line}");
        let client = words[3].strip_prefix("key=k").map(number);
        let client = client.unwrap_or_else(|| panic!("{line}"));
        let (last, kinds) = &mut clients[client as usize];
        assert!(gid > *last, "after {last}: {line}");
        *last = gid;
        kinds.push(words[2].to_owned());
    }
    for (_, kinds) in clients {
        // A store looks for the old item.
        let round = ["type=item_get", "type=item_store", "type=item_get"];
        assert!(kinds.chunks(3).all(|kinds| kinds == round), "{kinds:?}");
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert!(sorted(one) == sorted(other), "both see the same");
}

/// A watcher that reads nothing holds nobody up, and is told how much it has missed.
#[test]
fn a_watcher_that_does_not_read_slows_nobody() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-o", "watcher_logbuf_size=16,feed_ring=64"]);
    let mut deaf = watch(&server, "fetchers mutations");
    let mut deaf_reader = subscribe(&server, "");
    const EACH: usize = 12_000;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let mut conn = server.connect();
            scope.spawn(move || {
                let key = "x".repeat(200);
                for chunk in 0..EACH / 100 {
                    let requests: String = (0..100)
                        .map(|n| format!("set {key}{writer}:{chunk}:{n} 0 0 1 noreply\r\nx\r\n"))
                        .collect();
                    conn.send(requests + "mn\r\n");
                    conn.expect("MN\r\n");
                }
            });
        }
    });
    println!("{:?}", begun.elapsed());
    let mut conn = server.connect();
    wait_within("lines are skipped", PATIENCE, || {
        conn.stat("log_watcher_skipped") > 0
    });
    let dropped = |conn: &mut Conn| conn.stat("log_worker_dropped");
    // Now it reads: what it gets and what it is told to have missed is all there was.
    let (mut lines, mut skipped) = (0u64, 0u64);
    let mut last = 0;
    loop {
        conn.round("get last\r\n", "END\r\n");
        let line = line(&mut deaf);
        if let Some(count) = line.strip_prefix("skipped=") {
            skipped += count.parse::<u64>().expect("a count");
            continue;
        }
        plain(&line);
        lines += 1;
        last += 1;
        if line.contains("key=last ") {
            break;
        }
    }
    assert!(skipped > 0 && last > 0);
    let written = conn.stat("log_worker_written");
    let all = 2 * 8 * EACH as u64;
    assert!(written + dropped(&mut conn) >= all);
    assert!(
        lines + skipped <= written,
        "{lines} lines, {skipped} skipped of {written}"
    );
    // The reader of the feed lost nothing: it all fits the ring.
    for _ in 0..8 * EACH {
        assert_eq!(event(&mut deaf_reader)[2], "set");
    }
}

#[test]
fn over_udp_it_is_refused() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-U", "0", "-l", "127.0.0.1"]);
    drop(server);
    let server = Server::start(&["-U", "-1"]);
    let mut client = UdpClient::connect(&server);
    for words in ["", " feed", " mutations"] {
        let reply = client.ask(format!("watch{words}\r\n"));
        assert_eq!(reply, b"CLIENT_ERROR not allowed over UDP\r\n");
    }
}

#[test]
fn watching_over_a_unix_socket() {
    let server = Server::start_unix(&[]);
    let mut watcher = watch(&server, "mutations connevents");
    let mut conn = server.connect();
    assert_eq!(
        plain(&line(&mut watcher)),
        "type=conn_new rip=unix transport=local"
    );
    conn.set("a", b"v");
    assert!(line(&mut watcher).contains("type=item_store key=a "));
    if is_ketch() {
        let mut feed = subscribe(&server, "");
        conn.set("b", b"v");
        assert_eq!(event(&mut feed)[2..5], ["set", "set", "b"]);
    }
}

// ---- the feed ------------------------------------------------------------------------------------------------------

/// Begins to read the feed, from now on.
#[track_caller]
pub(crate) fn subscribe(server: &Server, words: &str) -> Conn {
    let mut reader = server.connect();
    begin(&mut reader, words);
    reader
}

/// Gives the epoch and the number that it goes on behind.
#[track_caller]
fn begin(reader: &mut Conn, words: &str) -> (String, u64) {
    reader.round(format!("watch feed {words}\r\n"), "OK\r\n");
    let line = line(reader);
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!((words[0], words.len()), ("FEED", 3), "{line}");
    assert_eq!(words[1].len(), 16, "{line}");
    (words[1].to_owned(), words[2].parse().expect("a number"))
}

/// The words of the next event.
#[track_caller]
fn event(reader: &mut Conn) -> Vec<String> {
    loop {
        let line = line(reader);
        if !line.starts_with("HB ") {
            return line.split(' ').map(str::to_owned).collect();
        }
    }
}

#[test]
fn whatever_changes_an_item_is_an_event() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-o", "debugtime"]);
    let mut reader = server.connect();
    let (_, first) = begin(&mut reader, "");
    let mut conn = server.connect();
    conn.round("debugtime p\r\n", "OK\r\n");
    let mut nth = 0;
    for (request, reply, events) in [
        ("set a 0 0 1|x", "STORED", &[("set", "set", "a")][..]),
        ("add a 0 0 1|x", "NOT_STORED", &[]),
        ("get a", "VALUE a 0 1|x|END", &[]),
        ("add b 0 100 1|x", "STORED", &[("set", "add", "b")]),
        ("replace b 0 0 1|5", "STORED", &[("set", "replace", "b")]),
        ("append b 0 0 1|5", "STORED", &[("set", "append", "b")]),
        ("prepend b 0 0 1|5", "STORED", &[("set", "prepend", "b")]),
        ("incr b 1", "556", &[("set", "incr", "b")]),
        ("decr b 600", "0", &[("set", "decr", "b")]),
        ("touch b 50", "TOUCHED", &[("touch", "touch", "b")]),
        ("gat 50 b", "VALUE b 0 3|0  |END", &[("touch", "gat", "b")]),
        ("mg b T50", "HD", &[("touch", "mg", "b")]),
        ("touch none 50", "NOT_FOUND", &[]),
        ("delete b", "DELETED", &[("delete", "delete", "b")]),
        // It may be elsewhere.
        ("delete b", "NOT_FOUND", &[("delete", "delete", "b")]),
        ("md b", "NF", &[("delete", "md", "b")]),
        ("ms c 1|x", "HD", &[("set", "set", "c")]),
        ("ms c 1 C1|x", "EX", &[]),
        ("md c C1", "EX", &[]),
        ("md c I", "HD", &[("touch", "md", "c")]),
        ("md c x", "HD", &[("set", "md", "c")]),
        ("md c", "HD", &[("delete", "md", "c")]),
        ("mg d N30", "HD W", &[("set", "mg", "d")]),
        ("ma e N0 J5", "HD", &[("set", "incr", "e")]),
        ("ma e MD", "HD", &[("set", "decr", "e")]),
        ("set a 0 0 3000000|", "", &[]),
        ("ms YSBi 1 b|x", "HD", &[("set", "set", "a%20b")]),
        ("flush_all", "OK", &[("flush", "flush_all", "*")]),
        ("get a", "END", &[]),
        ("set f 0 0 1|x", "STORED", &[("set", "set", "f")]),
        ("get f", "VALUE f 0 1|x|END", &[]),
    ] {
        if request.ends_with("3000000|") {
            let value = "x".repeat(3_000_000);
            conn.send(format!("set a 0 0 3000000\r\n{value}\r\n"));
            conn.expect("SERVER_ERROR object too large for cache\r\n");
            let words = event(&mut reader);
            assert_eq!(words[2..5], ["delete", "set", "a"]);
            nth += 1;
            continue;
        }
        conn.send(request.replace('|', "\r\n") + "\r\n");
        if reply.is_empty() {
            conn.expect_nothing();
        } else {
            conn.expect(reply.replace('|', "\r\n") + "\r\n");
        }
        for (what, cause, key) in events {
            let words = event(&mut reader);
            nth += 1;
            assert_eq!(words[2..5], [*what, *cause, *key], "of {request}");
            assert_eq!(words[0], nth.to_string());
            assert_eq!(words[1], (first + nth).to_string());
            assert_eq!(words[6], "0");
        }
    }
    // Uniques are those that readers see.
    let unique = conn.cas_of("f");
    conn.round("delete f\r\n", "DELETED\r\n");
    assert_eq!(event(&mut reader)[5], unique.to_string());
    // Where a change was made first, its client says; memcached ignores the flag.
    conn.round(
        "ms g 1 L7\r\nx\r\nmd g L65535\r\nmd g L65536\r\nmd g L\r\n",
        "HD\r\nHD\r\nNF\r\nNF\r\n",
    );
    let origins: Vec<String> = (0..4).map(|_| event(&mut reader)[6].clone()).collect();
    assert_eq!(origins, ["7", "65535", "0", "0"]);
    // What has expired is told of when somebody notices.
    conn.round("set h 0 5 1\r\nx\r\n", "STORED\r\n");
    event(&mut reader);
    conn.round("debugtime 10\r\n", "OK\r\n");
    conn.round("get h\r\n", "END\r\n");
    let words = event(&mut reader);
    assert_eq!(words[2], "expire");
    assert_eq!(words[4], "h");
    // A flush that is ahead, when its time has come.
    conn.round("set i 0 0 1\r\nx\r\nflush_all 5\r\n", "STORED\r\nOK\r\n");
    event(&mut reader);
    conn.round("set j 0 0 1\r\nx\r\n", "STORED\r\n");
    assert_eq!(event(&mut reader)[4], "j", "not before");
    conn.round("debugtime 10\r\n", "OK\r\n");
    assert_eq!(event(&mut reader)[2..5], ["flush", "upkeep", "*"]);
}

#[test]
fn evicted_items_are_events() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-m", "8"]);
    let mut conn = server.connect();
    let value = vec![b'v'; 9000];
    let mut reader = subscribe(&server, "");
    let mut there: BTreeMap<String, String> = BTreeMap::new();
    for n in 0..3000 {
        conn.set(&format!("k{n}"), &value);
    }
    conn.set("last", b"v");
    let mut evicted = 0;
    loop {
        let words = event(&mut reader);
        match words[2].as_str() {
            "set" if words[4] == "last" => break,
            "set" => drop(there.insert(words[4].clone(), words[5].clone())),
            "evict" => {
                evicted += 1;
                let unique = there.remove(&words[4]);
                assert_eq!(unique.as_ref(), Some(&words[5]), "{words:?}");
            }
            _ => panic!("{words:?}"),
        }
    }
    assert!(evicted > 1000, "{evicted}");
    // What the feed says is there is there, and nothing else.
    for n in 0..3000 {
        let key = format!("k{n}");
        assert_eq!(conn.get(&key).is_some(), there.contains_key(&key), "{key}");
    }
}

#[test]
fn hashes_and_prefixes() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut hashed = subscribe(&server, "form=hash");
    let mut some = subscribe(&server, "prefix=user: heartbeat=50");
    let mut odd = subscribe(&server, "prefix=%C3%A4%20b form=text");
    let mut conn = server.connect();
    conn.set("foobar", b"v");
    conn.set("user:1", b"v");
    conn.round("ms w6QgYg== 1 b\r\nx\r\n", "HD\r\n");
    conn.round("flush_all\r\n", "OK\r\n");
    // The vector of FNV's authors.
    assert_eq!(event(&mut hashed)[4], "85944171f73967e8");
    assert_eq!(
        event(&mut some)[..],
        [
            "1",
            "2",
            "set",
            "set",
            "user%3A1",
            &event(&mut hashed)[5],
            "0"
        ]
    );
    assert_eq!(
        event(&mut some)[..5],
        ["2", "4", "flush", "flush_all", "*"],
        "flushes are for all"
    );
    assert_eq!(event(&mut odd)[..5], ["1", "3", "set", "set", "%C3%A4%20b"]);
    let beat = line(&mut some);
    assert_eq!(beat, "HB 2 4");
}

/// With a clock a reader knows how old a heartbeat is: the clock goes on as the reader's own does.
#[test]
fn heartbeats_tell_the_time_to_who_asks() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    for words in ["clock", "clock=", "clock=s"] {
        let reply = server.connect().ask(format!("watch feed {words}\r\n"));
        assert!(reply.contains("ERROR"), "{words}: {reply}");
    }
    let mut reader = server.connect();
    let begun = Instant::now();
    reader.round("watch feed clock=ms heartbeat=10\r\n", "OK\r\n");
    let head = line(&mut reader);
    let ms = |line: &str| {
        line.split(' ')
            .nth(3)
            .and_then(|word| word.parse::<u64>().ok())
    };
    let first = ms(&head).expect("the time");
    let mut last = first;
    for _ in 0..20 {
        let beat = line(&mut reader);
        let now = ms(&beat).expect("the time");
        assert!(now >= last + 10, "{beat} behind {last}");
        last = now;
    }
    let passed = begun.elapsed().as_millis() as u64;
    // Both clocks are cut to milliseconds, and the server reads its own once a turn.
    assert!(last - first <= passed + 10, "{first} {last} {passed}");
}

/// Comes back to where it was: after a cut, and when too much has happened meanwhile.
#[test]
fn a_reader_comes_back() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-o", "feed_ring=1"]);
    let mut conn = server.connect();
    let mut reader = server.connect();
    let (epoch, _) = begin(&mut reader, "");
    conn.set("a", b"1");
    let seen = event(&mut reader)[1].clone();
    reader.cut();
    conn.set("b", b"1");
    conn.round("delete a\r\n", "DELETED\r\n");
    let mut reader = server.connect();
    assert_eq!(
        begin(&mut reader, &format!("from={epoch}:{seen}")),
        (epoch.clone(), seen.parse().unwrap())
    );
    assert_eq!(event(&mut reader)[..5], ["1", "2", "set", "set", "b"]);
    assert_eq!(event(&mut reader)[..5], ["2", "3", "delete", "delete", "a"]);
    drop(reader);
    // 2 MB of events through a ring of one.
    for n in 0..9000 {
        conn.send(format!("delete {:0>200}:{n} \r\n", n));
        conn.expect("NOT_FOUND\r\n");
    }
    let mut reader = server.connect();
    let (_, last) = begin(&mut reader, &format!("from={epoch}:3"));
    assert_eq!(last, 9003);
    assert_eq!(line(&mut reader), "GAP 9003");
    conn.set("c", b"1");
    assert_eq!(event(&mut reader)[..3], ["1", "9004", "set"]);
    // Another process, another epoch.
    let mut other = server.connect();
    begin(&mut other, "from=1234:9000");
    assert_eq!(line(&mut other), "GAP 9004");
    assert!(conn.stat("ketch_feed_gaps") >= 2);
    assert!(conn.stat("ketch_feed_bytes") <= (1 << 20) + (200 << 10));
}

/// A reader that stops reading is told what it has lost when it goes on.
#[test]
fn a_reader_that_pauses_is_told() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-o", "feed_ring=1"]);
    let mut reader = subscribe(&server, "");
    let mut conn = server.connect();
    // More than the sockets and the ring can hold.
    let key = "k".repeat(200);
    let requests: String = (0..200)
        .map(|n| format!("ms {key}{n} 1 q\r\nx\r\n"))
        .collect();
    wait_within("it has missed something", PATIENCE * 3, || {
        for _ in 0..20 {
            conn.send(&*requests);
        }
        conn.expect_nothing();
        // It looks again only when its socket has room.
        conn.stat("ketch_feed_events") > 200_000
    });
    let (mut n, mut seq, mut gaps) = (0u64, 0u64, 0u64);
    conn.set("last", b"v");
    loop {
        let line = line(&mut reader);
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "GAP" => {
                gaps += 1;
                seq = words[1].parse().unwrap();
            }
            "HB" => {
                assert_eq!((words[1], words[2]), (&*n.to_string(), &*seq.to_string()));
                if seq >= conn.stat("ketch_feed_events") {
                    break;
                }
            }
            _ => {
                n += 1;
                assert_eq!(words[0], n.to_string());
                assert_eq!(
                    words[1],
                    (seq + 1).to_string(),
                    "a hole that nobody told of"
                );
                seq += 1;
            }
        }
    }
    assert!(gaps > 0, "{n} events, up to {seq}");
}

/// Near caches under everything that happens: readers that pause, rings that overflow, cut links, kill -9 and restarts. When all
/// is quiet, what they hold is what the servers hold.
#[test]
fn near_caches_are_never_stale_without_a_word() {
    if !is_ketch() {
        return;
    }
    let mut server = Server::start(&["-o", "feed_ring=1", "-t", "2"]);
    let mut rng = Rng::from_env("KETCH_CHAOS_SEED");
    let rounds = ketch_testing::rounds(4, 100);
    let mut near: Vec<Near> = ["", "a:", "b"].map(Near::new).into();
    let (mut checks, mut kills) = (0, 0);
    for round in 0..rounds * 10 {
        // Each may have dropped all it held just before all was quiet.
        if round >= rounds && checks > 0 {
            break;
        }
        let is_over = AtomicBool::new(false);
        let seed = rng.bits();
        let (server_ref, over) = (&server, &is_over);
        std::thread::scope(|scope| {
            for writer in 0..2u64 {
                scope.spawn(move || {
                    let mut rng = Rng::new(seed ^ writer);
                    let mut conn = server_ref.connect();
                    while !over.load(Relaxed) {
                        let burst = if rng.one_in(40) { 3000 } else { 10 };
                        let mut requests = String::new();
                        for _ in 0..burst {
                            let key = name(&mut rng);
                            requests += &match rng.below(10) {
                                0..5 => format!("ms {key} 3 q\r\n{:03}\r\n", rng.below(1000)),
                                5..7 => format!("md {key} q\r\n"),
                                7 => format!("ma {key} N0 q\r\n"),
                                8 => format!("set {key} 0 0 1 noreply\r\nx\r\n"),
                                _ if rng.one_in(2000) => "flush_all noreply\r\n".to_owned(),
                                _ => format!("md {key}{:0>180} q\r\n", rng.below(1000)),
                            };
                        }
                        conn.send(requests + "mn\r\n");
                        // Errors of `ma` come before.
                        while conn.expect_line() != "MN" {}
                        std::thread::sleep(Duration::from_millis(rng.below(3)));
                    }
                });
            }
            for near in &mut near {
                let seed = rng.bits();
                scope.spawn(move || {
                    let mut rng = Rng::new(seed);
                    let mut conn = server_ref.connect();
                    let end = Instant::now() + Duration::from_millis(700);
                    while Instant::now() < end {
                        near.live(server_ref, &mut conn, &mut rng);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(700));
            is_over.store(true, Relaxed);
        });
        // All is quiet.
        let mut conn = server.connect();
        for near in &mut near {
            near.catch_up(&server, conn.stat("ketch_feed_events"));
            for (key, held) in &near.held {
                let truth = conn.get(key);
                assert_eq!(held, &truth, "stale {key} in round {round}");
                checks += 1;
            }
        }
        if rng.one_in(2) || round == 1 {
            kills += 1;
            near.iter_mut().for_each(|near| near.link = None);
            server.kill();
            server.restart();
        }
    }
    let gaps: u64 = near.iter().map(|near| near.gaps).sum();
    let events: u64 = near.iter().map(|near| near.events).sum();
    println!("{checks} checks, {kills} kills, {gaps} gaps, {events} events");
    assert!(checks > 0 && gaps > 0 && events > 0);
}

fn name(rng: &mut Rng) -> String {
    format!("{}{}", rng.pick(&["a:", "b", "c/"]), rng.below(1000))
}

/// A near cache that follows the feed.
struct Near {
    prefix: &'static str,
    held: HashMap<String, Option<Vec<u8>>>,
    link: Option<(Conn, u64)>,
    seen: Option<(String, u64)>,
    gaps: u64,
    events: u64,
}

impl Near {
    fn new(prefix: &'static str) -> Self {
        Near {
            prefix,
            held: HashMap::new(),
            link: None,
            seen: None,
            gaps: 0,
            events: 0,
        }
    }

    fn live(&mut self, server: &Server, conn: &mut Conn, rng: &mut Rng) {
        self.connect(server);
        if rng.one_in(20) {
            // The link is cut.
            if let Some((link, _)) = self.link.take() {
                link.cut();
            }
            return;
        }
        if rng.one_in(40) {
            // It is at something else.
            std::thread::sleep(Duration::from_millis(50));
        }
        // A fetch: what has come in meanwhile is read behind it, so that no event of before is missed.
        let key = name(rng);
        if key.starts_with(self.prefix) {
            let value = conn.get(&key);
            self.held.insert(key, value);
        }
        for _ in 0..rng.below(200) {
            self.read();
        }
    }

    fn connect(&mut self, server: &Server) {
        if self.link.is_some() {
            return;
        }
        let from = match &self.seen {
            Some((epoch, seq)) => format!("from={epoch}:{seq}"),
            None => String::new(),
        };
        let mut link = server.connect();
        let (epoch, seq) = begin(
            &mut link,
            &format!("prefix={} heartbeat=10 {from}", self.prefix),
        );
        // Another place is a gap already. The line that says so comes later, or never, if the link is cut before.
        let place = Some((epoch, seq));
        if self.seen != place {
            self.held.clear();
        }
        self.seen = place;
        self.link = Some((link, 0));
    }

    /// Reads a line; gives the number of a heartbeat.
    fn read(&mut self) -> Option<u64> {
        let (link, count) = self.link.as_mut()?;
        let line = line(link);
        let words: Vec<&str> = line.split(' ').collect();
        let seen = &mut self.seen.as_mut()?.1;
        match words[0] {
            "GAP" => {
                self.gaps += 1;
                self.held.clear();
                *seen = words[1].parse().expect("a number");
            }
            "HB" => {
                assert_eq!(words[1], count.to_string());
                *seen = words[2].parse().expect("a number");
                return Some(*seen);
            }
            _ => {
                *count += 1;
                self.events += 1;
                assert_eq!(words[0], count.to_string(), "{line}");
                let seq = words[1].parse().expect("a number");
                assert!(seq > *seen, "{line}");
                *seen = seq;
                match words[2] {
                    "flush" => self.held.clear(),
                    _ => {
                        let key = words[4].replace("%3A", ":").replace("%2F", "/");
                        self.held.remove(&key);
                    }
                }
            }
        }
        None
    }

    fn catch_up(&mut self, server: &Server, last: u64) {
        self.connect(server);
        while self.read().is_none_or(|seq| seq < last) {}
    }
}
