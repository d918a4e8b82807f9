//! version, verbosity, quit, shutdown, cache_memlimit, slabs, lru, lru_crawler, and what a start option can forbid.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ketch_testing::packet::{op::STAT, packet};
use ketch_testing::{
    Conn, PATIENCE, Server, Vector, both, is_ketch, newer, run_vectors, wait_within,
};

const NAMES_THE_FAULT: &str = "1.6.18 answers a plain ERROR to a line with too few words";

const VECTORS: &[Vector] = &[
    both("version\r\n", "VERSION {*}\r\n"),
    both("version foo\r\n", "VERSION {*}\r\n"),
    both("verbosity 0\r\n", "OK\r\n"),
    both("verbosity 0 noreply\r\n", ""),
    both(
        "verbosity x\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "verbosity\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        "1.6.18 writes ERROR first",
        "shutdown\r\n",
        "SERVER_ERROR: shutdown not enabled\r\n",
    ),
    newer(
        "1.6.18 writes ERROR first",
        "shutdown graceful\r\n",
        "SERVER_ERROR: shutdown not enabled\r\n",
    ),
    both("cache_memlimit\r\n", "ERROR\r\n"),
    both("cache_memlimit x\r\n", "ERROR\r\n"),
    both(
        "cache_memlimit 1\r\n",
        "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n",
    ),
    both(
        "cache_memlimit 7\r\n",
        "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n",
    ),
    both(
        "cache_memlimit 2000000000\r\n",
        "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n",
    ),
    both("slabs\r\n", "ERROR\r\n"),
    both("slabs foo\r\n", "ERROR\r\n"),
    both("slabs automove\r\n", "ERROR\r\n"),
    both(
        "slabs automove 0\r\nslabs automove 2\r\nslabs automove 1\r\n",
        "OK\r\nOK\r\nOK\r\n",
    ),
    both("slabs automove 3\r\n", "ERROR\r\n"),
    both(
        "slabs automove foo\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both("slabs automove ratio 0.8\r\n", "OK\r\n"),
    both("slabs automove ratio x\r\n", "ERROR\r\n"),
    newer(
        "1.6.18 does not know freeratio",
        "slabs automove freeratio 0.01\r\n",
        "OK\r\n",
    ),
    newer(
        "1.6.18 does not know window",
        "slabs automove window 10\r\n",
        "OK\r\n",
    ),
    both("slabs reassign\r\n", "ERROR\r\n"),
    both("slabs reassign 1\r\n", "ERROR\r\n"),
    both(
        "slabs reassign x y\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both(
        "slabs reassign 1 1\r\n",
        "SAME src and dst class are identical\r\n",
    ),
    both(
        "slabs reassign 1 500\r\n",
        "BADCLASS invalid src or dst class id\r\n",
    ),
    both("lru\r\n", "ERROR\r\n"),
    both("lru foo\r\n", "ERROR\r\n"),
    both("lru tune\r\n", "ERROR\r\n"),
    both("lru tune x y z w\r\n", "ERROR\r\n"),
    both(
        "lru tune 50 50 0.1 2.0\r\n",
        "ERROR hot and warm pcts must not exceed 80\r\n",
    ),
    both(
        "lru tune 10 25 -1 2.0\r\n",
        "ERROR hot/warm age factors must be greater than 0\r\n",
    ),
    both("lru tune 20 40 0.2 2.0\r\n", "OK\r\n"),
    both("lru mode foo\r\n", "ERROR\r\n"),
    both("lru mode flat\r\nlru mode segmented\r\n", "OK\r\nOK\r\n"),
    both("lru temp_ttl x\r\n", "ERROR\r\n"),
    both("lru temp_ttl 61\r\nlru temp_ttl -1\r\n", "OK\r\nOK\r\n"),
    both("lru_crawler\r\n", "ERROR\r\n"),
    both("lru_crawler foo\r\n", "ERROR\r\n"),
    both("lru_crawler crawl\r\n", "ERROR\r\n"),
    both("lru_crawler tocrawl 0\r\n", "OK\r\n"),
    both(
        "lru_crawler tocrawl x\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both("lru_crawler sleep 100\r\n", "OK\r\n"),
    both(
        "lru_crawler sleep 2000000\r\n",
        "CLIENT_ERROR sleep must be one second or less\r\n",
    ),
    both(
        "lru_crawler sleep x\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both("lru_crawler metadump\r\n", "ERROR\r\n"),
    newer(
        "1.6.18 does not know mgdump",
        "lru_crawler mgdump\r\n",
        "ERROR\r\n",
    ),
];

#[test]
fn vectors() {
    run_vectors(&Server::start(&[]), VECTORS);
}

#[test]
fn the_version_is_three_numbers() {
    let server = Server::start(&[]);
    let line = server.connect().ask("version\r\n");
    let version = line.strip_prefix("VERSION ").expect("VERSION");
    let numbers: Vec<&str> = version.split('.').collect();
    assert_eq!(numbers.len(), 3, "{version}");
    for number in numbers {
        number
            .parse::<u32>()
            .unwrap_or_else(|_| panic!("a client throws on {version}"));
    }
    assert_eq!(server.stats("")["version"], version);
}

#[test]
fn quit_answers_what_came_before_and_closes() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.send("quit\r\n");
    conn.closed();
    let mut conn = server.connect();
    conn.send("set a 0 0 1\r\nx\r\nget a\r\nquit\r\nget a\r\n");
    conn.expect("STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    conn.closed();
    // A large reply on its way is written to its end.
    let mut conn = server.connect();
    let value = vec![b'v'; 900_000];
    assert_eq!(conn.set("big", &value), "STORED");
    conn.send("get big\r\n".repeat(8) + "quit\r\n");
    for _ in 0..8 {
        conn.expect("VALUE big 0 900000\r\n");
        assert!(conn.take(900_000) == value);
        conn.expect("\r\nEND\r\n");
    }
    conn.closed();
}

#[test]
fn shutdown_ends_the_server_where_it_is_allowed() {
    for command in ["shutdown\r\n", "shutdown graceful\r\n"] {
        let mut server = Server::start(&["-A"]);
        let mut conn = server.connect();
        conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
        if is_ketch() {
            conn.round("shutdown foo\r\n", "CLIENT_ERROR invalid shutdown mode\r\n");
        }
        conn.send(command);
        let status = server.wait_exit(Duration::from_secs(5));
        assert!(
            status.success(),
            "{command:?} ended the server with {status}"
        );
    }
}

#[test]
fn cache_memlimit_moves_the_limit() {
    let server = Server::start(&["-m", "64"]);
    let mut conn = server.connect();
    for mb in [128, 100, 64, 16, 64] {
        conn.round(format!("cache_memlimit {mb}\r\n"), "OK\r\n");
        assert_eq!(conn.stat("limit_maxbytes"), mb << 20);
        assert_eq!(conn.stats("settings")["maxbytes"], (mb << 20).to_string());
    }
    conn.round("cache_memlimit 64 noreply\r\n", "");
    conn.expect_nothing();
}

#[test]
fn more_memory_holds_more_items() {
    let server = Server::start(&["-m", "16"]);
    let mut conn = server.connect();
    let value = vec![b'v'; 10_000];
    let mut kept = Vec::new();
    for limit in [16, 48] {
        conn.round(format!("cache_memlimit {limit}\r\n"), "OK\r\n");
        for i in 0..5000 {
            assert_eq!(conn.set(&format!("k{i}"), &value), "STORED");
        }
        kept.push(conn.stat("curr_items"));
    }
    assert!(kept[1] > 2 * kept[0], "{kept:?} items in 16 and 48 MB");
}

#[test]
fn settings_show_what_commands_change() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round(
        "lru tune 15 35 0.5 3.0\r\nlru mode flat\r\nlru temp_ttl 33\r\n",
        "OK\r\nOK\r\nOK\r\n",
    );
    conn.round("lru_crawler sleep 77\r\nlru_crawler tocrawl 9\r\nslabs automove 2\r\nslabs automove ratio 0.5\r\nverbosity 1\r\n", "OK\r\nOK\r\nOK\r\nOK\r\nOK\r\n");
    let settings = conn.stats("settings");
    let want = [
        ("hot_lru_pct", "15"),
        ("warm_lru_pct", "35"),
        ("hot_max_factor", "0.50"),
        ("warm_max_factor", "3.00"),
        ("lru_segmented", "no"),
        ("temp_lru", "yes"),
        ("temporary_ttl", "33"),
        ("lru_crawler_sleep", "77"),
        ("lru_crawler_tocrawl", "9"),
        ("slab_automove", "2"),
        ("slab_automove_ratio", "0.50"),
        ("verbosity", "1"),
    ];
    for (key, value) in want {
        assert_eq!(settings.get(key).map(String::as_str), Some(value), "{key}");
    }
    conn.round("lru temp_ttl -1\r\nlru mode segmented\r\n", "OK\r\nOK\r\n");
    let settings = conn.stats("settings");
    assert_eq!(
        (
            settings["temp_lru"].as_str(),
            settings["lru_segmented"].as_str()
        ),
        ("no", "yes")
    );
}

#[test]
fn the_crawler_can_be_switched_off_and_on() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("lru_crawler disable\r\n", "OK\r\n");
    wait_within("the crawler has stopped", PATIENCE, || {
        conn.stats("settings")["lru_crawler"] == "no"
    });
    conn.round(
        "lru_crawler crawl all\r\n",
        "CLIENT_ERROR lru crawler disabled\r\n",
    );
    conn.round(
        "lru_crawler metadump all\r\n",
        "CLIENT_ERROR lru crawler disabled\r\n",
    );
    conn.round("lru_crawler enable\r\n", "OK\r\n");
    wait_within("the crawler runs again", PATIENCE, || {
        conn.stats("settings")["lru_crawler"] == "yes"
    });
    conn.round("lru_crawler crawl 400\r\n", "BADCLASS invalid class id\r\n");
    conn.round("lru_crawler crawl x\r\n", "BADCLASS invalid class id\r\n");
}

/// One metadump: the lines by key.
#[track_caller]
fn metadump(conn: &mut Conn, which: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    conn.send(format!("lru_crawler metadump {which}\r\n"));
    let text = String::from_utf8(conn.read_until(b"END\r\n")).expect("keys are encoded");
    let mut lines = text.lines().peekable();
    // 1.6.18 leaves it out.
    let begins = lines.next_if_eq(&"OK").is_some();
    assert!(begins || !is_ketch(), "{text}");
    let mut items = BTreeMap::new();
    for line in lines.take_while(|line| *line != "END") {
        // As memcached has it since it shows the client flags.
        assert!(line.ends_with(' ') || !is_ketch(), "{line}");
        let fields = line
            .split_whitespace()
            .map(|field| field.split_once('=').expect("key=value"));
        let mut fields: BTreeMap<String, String> = fields
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let key = fields.remove("key").expect("a key");
        assert!(items.insert(key, fields).is_none(), "a key twice: {line}");
    }
    items
}

/// A walk along the LRUs may miss an item that moves meanwhile: asks again until it has `count`.
#[track_caller]
fn settled_metadump(
    conn: &mut Conn,
    which: &str,
    count: usize,
) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut items = BTreeMap::new();
    wait_within("a metadump with every item", PATIENCE, || {
        items = metadump(conn, which);
        items.len() == count
    });
    items
}

#[test]
fn metadump_lists_every_item_once() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let now = conn.stat("time");
    conn.round("set plain 7 0 5\r\nabcde\r\nset lives 0 1000 1\r\nx\r\nset a%b 0 0 1\r\nx\r\nget lives\r\n", "STORED\r\nSTORED\r\nSTORED\r\nVALUE lives 0 1\r\nx\r\nEND\r\n");
    conn.round(
        "set gone 0 -1 1\r\nx\r\nset deleted 0 0 1\r\nx\r\ndelete deleted\r\n",
        "STORED\r\nSTORED\r\nDELETED\r\n",
    );
    let cas = conn.cas_of("plain");
    let items = settled_metadump(&mut conn, "all", 3);
    let keys: BTreeSet<&str> = items.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        BTreeSet::from(["plain", "lives", "a%25b"]),
        "{items:?}"
    );
    let plain = &items["plain"];
    assert_eq!(plain["exp"], "-1");
    assert_eq!(plain["cas"], cas.to_string());
    assert_eq!(items["lives"]["fetch"], "yes");
    assert_eq!(items["a%25b"]["fetch"], "no");
    let exp: u64 = items["lives"]["exp"].parse().expect("a point in time");
    assert!((now + 998..now + 1005).contains(&exp), "{exp}, now {now}");
    for fields in items.values() {
        let la: u64 = fields["la"].parse().expect("a point in time");
        assert!((now - 2..now + 5).contains(&la), "{la}, now {now}");
        assert!(
            fields["cls"].parse::<u64>().is_ok_and(|class| class > 0),
            "{fields:?}"
        );
        assert!(
            fields["size"].parse::<u64>().is_ok_and(|size| size > 5),
            "{fields:?}"
        );
    }
    if is_ketch() {
        assert_eq!(plain["flags"], "7", "1.6.18 does not print it");
    }
    // The connection goes on.
    conn.round("get plain\r\n", "VALUE plain 7 5\r\nabcde\r\nEND\r\n");
    // By class, and by walking the table.
    let class = plain["cls"].clone();
    let in_class = items
        .values()
        .filter(|fields| fields["cls"] == class)
        .count();
    assert!(settled_metadump(&mut conn, &class, in_class).contains_key("plain"));
    assert_eq!(metadump(&mut conn, "hash").len(), 3);
    conn.round(
        "lru_crawler metadump foo\r\n",
        "BADCLASS invalid class id\r\n",
    );
    conn.round(
        "lru_crawler metadump 400\r\n",
        "BADCLASS invalid class id\r\n",
    );
}

#[test]
fn metadump_of_50_000_items_while_others_are_served() {
    let server = Server::start(&["-m", "128"]);
    let mut conn = server.connect();
    let mut stores = String::new();
    for i in 0..50_000 {
        stores += &format!("set item:{i} 0 0 5 noreply\r\n{i:05}\r\n");
    }
    conn.round(stores + "mn\r\n", "MN\r\n");
    let mut other = server.connect();
    conn.send("lru_crawler metadump hash\r\n");
    for i in (0..50_000).step_by(100) {
        other.round(
            format!("get item:{i}\r\n"),
            format!("VALUE item:{i} 0 5\r\n{i:05}\r\nEND\r\n"),
        );
    }
    let text = String::from_utf8(conn.read_until(b"END\r\n")).expect("plain text");
    let keys: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("key=")?.split(' ').next())
        .collect();
    assert_eq!(keys.len(), 50_000);
}

const BUSY: &str = "BUSY currently processing crawler request\r\n";

/// Four dumps that nobody reads, of more than the socket takes; on a unix socket, whose buffer does not grow. They wait for
/// their places.
fn four_deaf_dumps(server: &Server) -> Vec<Conn> {
    let deaf = |_| {
        let mut conn = server.connect();
        wait_within("a place for a dump", PATIENCE, || {
            conn.ask("lru_crawler metadump all\r\n") == "OK"
        });
        conn
    };
    (0..4).map(deaf).collect()
}

/// Waits until so many connections have replies that nobody takes: only then does time run out for them.
#[track_caller]
fn wait_for_stalls(conn: &mut Conn, count: usize) {
    wait_within("the peers' buffers to be full", PATIENCE, || {
        let conns = conn.stats("conns");
        let stalled = conns.iter().filter(|(_, value)| *value == "conn_mwrite");
        stalled.count() >= count
    });
}

#[track_caller]
fn wait_for_a_place(conn: &mut Conn) {
    wait_within("a place for a dump", PATIENCE, || {
        conn.ask("stats detail dump\r\n") == "END"
    });
}

#[test]
fn four_dumps_run_at_a_time() {
    if !is_ketch() {
        // memcached runs one crawler, and builds the other dumps at once.
        return;
    }
    const ITEMS: usize = 30_000;
    let server = Server::start_unix(&["-m", "64", "-o", "debugtime,track_sizes"]);
    let mut conn = server.connect();
    let stores: String = (0..ITEMS)
        .map(|i| format!("set item:{i} 0 0 5 noreply\r\n{i:05}\r\n"))
        .collect();
    conn.round(stores + "mn\r\n", "MN\r\n");
    let mut deaf = four_deaf_dumps(&server);
    for request in [
        "lru_crawler metadump all",
        "lru_crawler mgdump hash",
        "stats cachedump 1 0",
        "stats sizes",
        "stats detail dump",
    ] {
        conn.round(format!("{request}\r\nmn\r\n"), format!("{BUSY}MN\r\n"));
    }
    let mut binary = server.connect();
    for group in ["sizes", "detail dump"] {
        let reply = binary.ask_packet(&packet(STAT, group, ""));
        assert_eq!(
            (reply.status, &reply.value[..]),
            (0x85, &b"Busy"[..]),
            "{group}"
        );
    }
    // Reports are no dumps.
    assert!(conn.stats("items").len() > 10);
    assert!(conn.stats("conns").len() > 10);

    // A client that goes leaves its place, a dump that is complete as well.
    drop(deaf.pop());
    wait_for_a_place(&mut conn);
    wait_for_a_place(&mut conn);
    let text = deaf[0].read_until(b"\nEND\r\n");
    assert_eq!(text.split(|&byte| byte == b'\n').count(), ITEMS + 2);
    wait_for_a_place(&mut conn);
    drop(deaf);
    wait_for_a_place(&mut conn);

    // Clients that take nothing lend theirs, and have what they asked for when they read on.
    let mut deaf = four_deaf_dumps(&server);
    wait_for_stalls(&mut conn, 4);
    conn.round("stats detail dump\r\n", BUSY);
    conn.round(
        "debugtime 4\r\nstats detail dump\r\n",
        format!("OK\r\n{BUSY}"),
    );
    conn.round("debugtime 2\r\n", "OK\r\n");
    wait_for_a_place(&mut conn);
    let others = four_deaf_dumps(&server);
    // There is no place for them.
    conn.round("stats detail dump\r\n", BUSY);
    let mut first = deaf.remove(0);
    let reader = std::thread::spawn(move || first.read_until(b"\nEND\r\n"));
    drop(others);
    for conn in &mut deaf {
        let text = conn.read_until(b"\nEND\r\n");
        assert_eq!(text.split(|&byte| byte == b'\n').count(), ITEMS + 2);
    }
    let text = reader.join().expect("the rest of a dump");
    assert_eq!(text.split(|&byte| byte == b'\n').count(), ITEMS + 2);
}

#[test]
fn lru_mode_flat_stands_in_for_a_policy_of_several_segments() {
    if !is_ketch() {
        // The option and the line of the settings are ketch's own.
        return;
    }
    for (name, flat) in [("s3fifo", "lru"), ("lfu", "lru"), ("ttl", "ttl")] {
        let server = Server::start(&["-o", &format!("eviction={name}")]);
        let mut conn = server.connect();
        assert_eq!(conn.stats("settings")["ketch_eviction"], name);
        conn.round("lru mode flat\r\n", "OK\r\n");
        assert_eq!(conn.stats("settings")["ketch_eviction"], flat);
        conn.round("lru mode segmented\r\n", "OK\r\n");
        assert_eq!(conn.stats("settings")["ketch_eviction"], name);
    }
}

#[test]
fn mgdump_lists_keys_for_mg() {
    if !is_ketch() {
        // 1.6.18 does not know it.
        return;
    }
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("lru_crawler mgdump all\r\n", "OK\r\nEN\r\n");
    conn.round(
        "set plain 0 0 1\r\nx\r\nms AAEC 1 b\r\nx\r\n",
        "STORED\r\nHD\r\n",
    );
    conn.send("lru_crawler mgdump all\r\n");
    let text = String::from_utf8(conn.read_until(b"EN\r\n")).expect("keys are encoded");
    let lines: BTreeSet<&str> = text
        .lines()
        .filter(|line| !["OK", "EN"].contains(line))
        .collect();
    assert_eq!(lines, BTreeSet::from(["mg plain", "mg AAEC b"]), "{text}");
    // They are commands: sent back, they hit.
    for line in lines {
        conn.round(format!("{line}\r\n"), "HD\r\n");
    }
}

#[test]
fn flush_all_can_be_forbidden() {
    let server = Server::start(&["-F"]);
    let mut conn = server.connect();
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    conn.round(
        "flush_all\r\nflush_all 0\r\n",
        "CLIENT_ERROR flush_all not allowed\r\nCLIENT_ERROR flush_all not allowed\r\n",
    );
    // 1.6.45 forbids it before it counts the words.
    let too_many = match !is_ketch() && server.is_current() {
        true => "CLIENT_ERROR flush_all not allowed\r\n",
        false => "ERROR\r\n",
    };
    conn.round(
        "flush_all noreply\r\nflush_all x\r\nflush_all 1 2 3\r\nmn\r\n",
        format!("CLIENT_ERROR flush_all not allowed\r\n{too_many}MN\r\n"),
    );
    // What was asked for is counted.
    assert_eq!(conn.stat("cmd_flush"), 4);
    conn.round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(conn.stats("settings")["flush_enabled"], "no");
}

#[test]
fn dumps_can_be_forbidden() {
    let server = Server::start(&["-X"]);
    let mut conn = server.connect();
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    conn.round(
        "lru_crawler metadump all\r\n",
        "ERROR metadump not allowed\r\n",
    );
    if is_ketch() {
        conn.round(
            "lru_crawler mgdump all\r\n",
            "ERROR key dump not allowed\r\n",
        );
    }
    conn.round(
        "stats cachedump 1 10\r\n",
        "CLIENT_ERROR stats cachedump not allowed\r\n",
    );
    if is_ketch() {
        // 1.6.18 allows it.
        conn.round(
            "stats detail on\r\n",
            "CLIENT_ERROR stats detail not allowed\r\n",
        );
    }
    assert_eq!(conn.stats("settings")["dump_enabled"], "no");
}

#[test]
fn watching_can_be_forbidden() {
    let server = Server::start(&["-W"]);
    let mut conn = server.connect();
    conn.round("watch\r\n", "CLIENT_ERROR watch commands not allowed\r\n");
    conn.expect_nothing();
}

#[test]
fn page_moves_can_be_forbidden() {
    let server = Server::start(&["-o", "no_slab_reassign"]);
    let mut conn = server.connect();
    conn.round(
        "slabs reassign 1 2\r\n",
        "CLIENT_ERROR slab reassignment disabled\r\n",
    );
    assert_eq!(conn.stats("settings")["slab_reassign"], "no");
}

#[test]
fn a_page_moves_by_hand() {
    let server = Server::start(&["-m", "64", "-o", "no_slab_automove"]);
    let mut conn = server.connect();
    let value = vec![b'v'; 1000];
    for i in 0..5000 {
        assert_eq!(conn.set(&format!("small{i}"), &value), "STORED");
    }
    assert_eq!(conn.set("other", &[b'o'; 20_000]), "STORED");
    // The class of the small ones has pages to spare, that of the other one.
    let classes = metadump(&mut conn, "hash");
    let (from, to) = (
        classes["small1"]["cls"].clone(),
        classes["other"]["cls"].clone(),
    );
    let pages = |conn: &mut Conn, class: &str| -> u64 {
        conn.stats("slabs")[&format!("{class}:total_pages")]
            .parse()
            .expect("a number")
    };
    // Items of the page that moves may be saved onto another page of their class, a new one even.
    let before = pages(&mut conn, &to);
    assert_eq!(conn.ask(format!("slabs reassign {from} {to}\r\n")), "OK");
    wait_within("the page has moved", PATIENCE, || {
        pages(&mut conn, &to) == before + 1
    });
    wait_within("it is counted", PATIENCE, || conn.stat("slabs_moved") >= 1);
    // Nothing is torn: what is left is right.
    for i in 0..5000 {
        let got = conn.get(&format!("small{i}"));
        assert!(got.is_none() || got.as_ref() == Some(&value), "small{i}");
    }
    assert_eq!(conn.get("other"), Some(vec![b'o'; 20_000]));
}
