//! What fits into `-m`, what gives way, and what the server uses beside it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ketch_testing::packet::{
    op::{GET, STAT},
    packet,
};
use ketch_testing::{Conn, Rng, Server, is_ketch, wait_within};

/// The value of key number `i`, of `len` bytes.
fn value(i: u64, len: usize) -> Vec<u8> {
    Rng::new(i).bytes(len)
}

/// What the operator planned for: `-m`, 10 % of it, and 40 MB.
fn rss_kb_max(mb: u64) -> u64 {
    mb * 1024 + mb * 1024 / 10 + 40 * 1024
}

#[track_caller]
fn stays_within(server: &Server, mb: u64) {
    let rss = server.rss_kb();
    assert!(rss < rss_kb_max(mb), "{rss} KB resident with -m {mb}");
}

/// In a small cache values from 2 KB on lie in pieces, and up to 4 KB they are copied together again.
#[test]
fn values_in_pieces_come_back_whole_whoever_asks() {
    let server = Server::start(&["-m", "16"]);
    let (mut conn, mut binary) = (server.connect(), server.connect());
    let lens = (1_950..4_200)
        .step_by(37)
        .chain([2_047, 2_048, 4_095, 4_096]);
    for (i, len) in (0..).zip(lens) {
        let key = format!("k{i}");
        let mut whole = value(i, len);
        assert_eq!(conn.set(&key, &whole), "STORED");
        conn.round(format!("append {key} 0 0 7\r\n at end\r\n"), "STORED\r\n");
        whole.extend(b" at end");
        assert!(conn.get(&key) == Some(whole.clone()), "{len} bytes by get");
        // In one write, so that the replies lie behind each other.
        conn.send(format!("mg {key} v\r\n").repeat(5));
        for _ in 0..5 {
            conn.expect(format!("VA {}\r\n", whole.len()));
            assert!(conn.take(whole.len()) == whole, "{len} bytes by mg");
            conn.expect("\r\n");
        }
        let got = binary.ask_packet(&packet(GET, &key, ""));
        assert!(got.value == whole, "{len} bytes by a binary get");
    }
}

#[test]
fn stores_of_all_sizes_into_64_mb() {
    let server = Server::start(&["-m", "64"]);
    let mut conn = server.connect();
    let mut rng = Rng::from_env("stores_of_all_sizes_into_64_mb");
    let mut lens = HashMap::new();
    for i in 0..4000 {
        // As many small ones as large ones: the exponent is drawn, not the size.
        let limit = 1 << rng.below(20);
        let len = 1 + rng.below(limit.min(500_000)) as usize;
        assert_eq!(
            conn.set(&format!("k{i}"), &value(i, len)),
            "STORED",
            "store {i} of {len} bytes"
        );
        lens.insert(i, len);
        // The one just stored is there, an older one is right or gone.
        assert!(
            conn.get(&format!("k{i}")) == Some(value(i, len)),
            "k{i} of {len} bytes right after its store"
        );
        let old = rng.below(i + 1);
        if let Some(got) = conn.get(&format!("k{old}")) {
            assert!(
                got == value(old, lens[&old]),
                "k{old} came back as another value"
            );
        }
    }
    let there = (0..4000)
        .filter(|i| conn.get(&format!("k{i}")).is_some())
        .count() as u64;
    assert_eq!(conn.stat("curr_items"), there);
    assert!(there > 1000, "{there} of 4000 left in 64 MB");
    stays_within(&server, 64);
}

/// A cache full of one size must take another within seconds; memcached's pages stay where they are for long.
#[test]
fn a_cache_full_of_small_items_takes_large_ones() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-m", "64"]);
    let mut conn = server.connect();
    fill(&mut conn, "small", 100, 600_000);
    assert!(conn.stat("evictions") > 10_000, "64 MB are not full yet");
    let large: Vec<Vec<u8>> = (0..100).map(|i| value(i, 200_000)).collect();
    for (i, value) in large.iter().enumerate() {
        assert_eq!(conn.set(&format!("large{i}"), value), "STORED", "store {i}");
    }
    wait_within(
        "95 of 100 large items are kept",
        Duration::from_secs(10),
        || {
            let mut kept = 0;
            for (i, value) in large.iter().enumerate() {
                let key = format!("large{i}");
                match conn.get(&key) {
                    Some(got) => {
                        assert!(got == *value, "{key} came back as another value");
                        kept += 1;
                    }
                    // A client that misses stores again.
                    None => assert_eq!(conn.set(&key, value), "STORED"),
                }
            }
            kept >= 95
        },
    );
    stays_within(&server, 64);
}

/// And back: large items give way to small ones.
#[test]
fn a_cache_full_of_large_items_takes_small_ones() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-m", "64"]);
    let mut conn = server.connect();
    for i in 0..500 {
        assert_eq!(conn.set(&format!("large{i}"), &value(i, 300_000)), "STORED");
    }
    fill(&mut conn, "small", 100, 100_000);
    wait_within(
        "most of the small items are kept",
        Duration::from_secs(10),
        || {
            let kept = count_kept(&mut conn, "small", 100_000);
            if kept < 90_000 {
                fill(&mut conn, "small", 100, 100_000);
            }
            kept >= 90_000
        },
    );
    stays_within(&server, 64);
}

/// Stores `count` items of `len` bytes, without waiting for each.
#[track_caller]
fn fill(conn: &mut Conn, name: &str, len: usize, count: u64) {
    let body = "v".repeat(len);
    for batch in 0..count.div_ceil(1000) {
        let mut request = String::new();
        for i in batch * 1000..(batch * 1000 + 1000).min(count) {
            request += &format!("set {name}{i} 0 0 {len} noreply\r\n{body}\r\n");
        }
        conn.send(request);
        conn.expect_nothing();
    }
}

fn count_kept(conn: &mut Conn, name: &str, count: u64) -> u64 {
    let mut kept = 0;
    for batch in 0..count.div_ceil(500) {
        let mut request = String::new();
        for i in batch * 500..(batch * 500 + 500).min(count) {
            request += &format!("mg {name}{i} s q\r\n");
        }
        conn.send(request + "mn\r\n");
        while conn.expect_line() != "MN" {
            kept += 1;
        }
    }
    kept
}

/// What `stats` says of the memory is what the system says, whatever fills it.
#[test]
fn stats_account_for_the_resident_memory() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-m", "128", "-t", "2"]);
    let mut conn = server.connect();
    let accounted = |conn: &mut Conn, what: &str| {
        let stats = conn.stats("");
        let parts = [
            "base",
            "arena",
            "table",
            "policy",
            "insight",
            "connection",
            "buffer",
        ];
        let bytes = |part: &str| {
            let value = &stats[&format!("ketch_{part}_bytes")];
            value.parse::<u64>().expect("a number")
        };
        let sum: u64 = parts.into_iter().map(bytes).sum();
        let of_parts = parts.map(|part| format!("{part} {}", bytes(part) >> 10));
        let rss = server.rss_kb() << 10;
        println!(
            "{what}: KB {of_parts:?}, sum {}, resident {}",
            sum >> 10,
            rss >> 10
        );
        assert!(bytes("resident").abs_diff(rss) < 2 << 20);
        // What rustls keeps for a connection, it tells nobody.
        let tls = std::env::var_os("KETCH_TEST_TLS").map_or(0, |_| {
            stats["curr_connections"].parse::<u64>().expect("a number") * (24 << 10)
        });
        assert!(
            // Tables that are all zero yet count and are not resident.
            sum.abs_diff(rss) < (6 << 20) + tls,
            "{what}: {sum} bytes accounted for, {rss} resident"
        );
    };
    accounted(&mut conn, "idle");
    // Full of small items, which need the largest table and policy, and read in part.
    fill(&mut conn, "small", 10, 2_500_000);
    assert!(conn.stat("evictions") > 10_000);
    count_kept(&mut conn, "small", 500_000);
    fill(&mut conn, "small", 10, 500_000);
    accounted(&mut conn, "small items");
    // Pages that change hands, and clients: idle ones, and some in the middle of a value.
    fill(&mut conn, "large", 100_000, 2000);
    let mut clients: Vec<Conn> = (0..400).map(|_| server.connect()).collect();
    for client in &mut clients[..100] {
        client.send(b"set half 0 0 60000\r\n");
        client.send(vec![b'v'; 30_000]);
    }
    accounted(&mut conn, "large items and clients");
    // Clients that ask and do not take the answer.
    let value = vec![b'v'; 3000];
    assert_eq!(conn.set("answer", &value), "STORED");
    let mut clients: Vec<Conn> = (0..400).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("get answer\r\n".repeat(4000));
    }
    accounted(&mut conn, "replies that nobody takes");
}

/// A class that opened since an item was stored has no room for what is to take the item's place; its old class has.
#[test]
fn without_evictions_values_can_be_replaced() {
    // Large values come in pieces, and memory ends in the midst of them.
    // memcached refuses some of these for good.
    let large: &[usize] = match is_ketch() {
        true => &[5000, 100_000, 400_000, 1_000_000],
        false => &[],
    };
    for &size in [100, 1000].iter().chain(large) {
        let server = Server::start(&["-M", "-m", "16"]);
        let mut conn = server.connect();
        let mut rng = Rng::new(1);
        let value = vec![b'v'; size];
        let mut stored = Vec::new();
        let mut refused = 0;
        // In batches: a round trip for each would take longer than all else here.
        let mut keys = 0..;
        while refused < 20 {
            let batch: Vec<String> = keys
                .by_ref()
                .take(if size > 1000 { 1 } else { 100 })
                .map(|n| format!("k{n}"))
                .collect();
            let text = str::from_utf8(&value).expect("letters");
            let stores = batch
                .iter()
                .map(|key| format!("set {key} 0 0 {size}\r\n{text}\r\n"));
            conn.send(stores.collect::<String>());
            for key in batch {
                match conn.expect_line().as_str() {
                    "STORED" => stored.push(key),
                    _ => refused += 1,
                }
            }
        }
        let mut failed = 0;
        for _ in 0..500 {
            let key = &stored[rng.below(stored.len() as u64) as usize];
            failed += usize::from(conn.set(key, &value) != "STORED");
        }
        // The first one, for want of a chunk while the old value lies in the last; it makes room for all others.
        assert!(failed <= 5, "{failed} of 500 overwrites of {size} bytes");
    }
}

/// A value whose memory ends while it comes takes with it nothing that was stored before.
#[test]
fn a_store_for_whose_rest_there_is_no_memory_leaves_the_old_value() {
    // Of memcached, the rest finds room in the pages that it has set aside.
    if !is_ketch() {
        return;
    }
    let requests = [
        (&b"set k 0 0 900000\r\n"[..], true),
        (b"ms k 900000\r\n", true),
        (b"set k 0 0 900000 noreply\r\n", false),
    ];
    for (line, is_answered) in requests {
        let server = Server::start(&["-M", "-m", "16"]);
        let (mut conn, mut slow) = (server.connect(), server.connect());
        assert_eq!(conn.set("k", b"old"), "STORED");
        slow.send(line);
        slow.send(vec![b'v'; 100_000]);
        wait_for_state(&mut conn, "conn_nread", 1);
        let filler = vec![b'f'; 50_000];
        let mut keys = 0..1000;
        let is_full = keys.any(|n| conn.set(&format!("f{n}"), &filler) != "STORED");
        assert!(is_full, "16 MB never filled");
        slow.send(vec![b'v'; 800_000]);
        slow.send("\r\n");
        if is_answered {
            let answer = slow.expect_line();
            assert!(answer.starts_with("SERVER_ERROR "), "{answer}");
        }
        slow.round("mn\r\n", "MN\r\n");
        assert_eq!(conn.get("k").as_deref(), Some(&b"old"[..]), "{line:?}");
    }
}

#[test]
fn without_evictions_a_full_cache_says_so_and_keeps_what_it_has() {
    let server = Server::start(&["-m", "16", "-M"]);
    let mut conn = server.connect();
    let mut stored = Vec::new();
    let mut refused = 0;
    let mut refused_last = (0, 0);
    for i in 0..20_000_u64 {
        let len = 1000 + (i % 7) as usize * 500;
        match conn.set(&format!("k{i}"), &value(i, len)).as_str() {
            "STORED" => stored.push((i, len)),
            "SERVER_ERROR out of memory storing object" => {
                refused += 1;
                refused_last = (i, len);
            }
            other => panic!("{other}"),
        }
        if refused == 200 {
            break;
        }
    }
    assert_eq!(refused, 200, "16 MB never filled");
    assert!(stored.len() > 3000, "full after {} items", stored.len());
    for &(i, len) in &stored {
        assert!(
            conn.get(&format!("k{i}")) == Some(value(i, len)),
            "k{i} was stored, and is lost"
        );
    }
    let stats = conn.stats("");
    assert_eq!(stats["evictions"], "0");
    assert_eq!(stats["curr_items"], stored.len().to_string());
    assert_eq!(stats["store_no_memory"], "200");
    assert_eq!(conn.stats("settings")["evictions"], "off");

    // The body of a refused store is no command. What has been refused for its size is refused again.
    let (i, len) = refused_last;
    let body = &"flush_all\r\n".repeat(len / 11 + 1)[..len];
    for (line, reply) in [
        (
            format!("set k{i} 0 0 {len}"),
            "SERVER_ERROR out of memory storing object\r\n",
        ),
        (format!("set k{i} 0 0 {len} noreply"), ""),
        (
            format!("ms k{i} {len}"),
            "SERVER_ERROR out of memory storing object\r\n",
        ),
        (
            format!("ms k{i} {len} q"),
            "SERVER_ERROR out of memory storing object\r\n",
        ),
    ] {
        conn.round(format!("{line}\r\n{body}\r\n"), reply);
        conn.expect_nothing();
    }
    assert_eq!(conn.stat("curr_items"), stored.len() as u64);
    let (last, len) = *stored.last().expect("thousands of them");
    assert!(conn.get(&format!("k{last}")) == Some(value(last, len)));
    // Space that is given back can be used again, for the same size.
    for &(i, _) in &stored[..500] {
        conn.round(format!("delete k{i}\r\n"), "DELETED\r\n");
    }
    for &(i, len) in &stored[..450] {
        assert_eq!(
            conn.set(&format!("k{i}"), &value(i, len)),
            "STORED",
            "after 500 deletes, store of {len}"
        );
    }
}

#[test]
fn resident_memory_stays_in_its_bounds_under_mixed_load() {
    const MB: u64 = 64;
    let server = Server::start(&["-m", "64", "-c", "2000"]);
    let _idle: Vec<Conn> = (0..300)
        .map(|_| {
            let mut conn = server.connect();
            conn.expect_nothing();
            conn
        })
        .collect();
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        for id in 0..4 {
            let (server, stop, done) = (&server, &stop, &done);
            scope.spawn(move || {
                let mut conn = server.connect();
                let mut rng = Rng::new(id);
                let filler = vec![b'f'; 600_000];
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("k{}", rng.below(200_000));
                    match rng.below(20) {
                        0..=9 => {
                            let limit = 1 << (4 + rng.below(16));
                            let len = rng.below(limit) as usize;
                            assert_eq!(conn.set(&key, &filler[..len]), "STORED", "{len} bytes");
                        }
                        10 => drop(conn.ask(format!("delete {key}\r\n"))),
                        11 => drop(conn.ask(format!("append {key} 0 0 5\r\nabcde\r\n"))),
                        12 => {
                            let mut request = "get".to_string();
                            for _ in 0..50 {
                                request += &format!(" k{}", rng.below(200_000));
                            }
                            conn.send(request + "\r\nmn\r\n");
                            conn.read_until(b"END\r\nMN\r\n");
                        }
                        13 => conn = server.connect(),
                        _ => drop(conn.get(&key)),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut highest = 0;
        wait_within("40,000 requests are done", Duration::from_secs(60), || {
            highest = highest.max(server.rss_kb());
            assert!(
                highest < rss_kb_max(MB),
                "{highest} KB resident with -m {MB}"
            );
            done.load(Ordering::Relaxed) > 40_000
        });
        stop.store(true, Ordering::Relaxed);
        println!(
            "{highest} KB resident at most with -m {MB}, {} allowed",
            rss_kb_max(MB)
        );
    });
    stays_within(&server, MB);
}

/// Tiny items need the most of everything that is not a value.
#[test]
fn a_million_tiny_items() {
    let server = Server::start(&["-m", "128"]);
    let mut conn = server.connect();
    fill(&mut conn, "t", 4, 1_000_000);
    stays_within(&server, 128);
    let kept = count_kept(&mut conn, "t", 1_000_000);
    assert_eq!(conn.stat("curr_items"), kept);
    // All fit into ketch's headers; memcached needs more for each.
    let want = if is_ketch() { 1_000_000 } else { 900_000 };
    assert!(
        kept >= want,
        "{kept} of a million items of 4 bytes in 128 MB"
    );
}

#[test]
fn what_is_read_outlives_what_is_not() {
    let server = Server::start(&["-m", "32"]);
    let mut conn = server.connect();
    for i in 0..200 {
        assert_eq!(conn.set(&format!("hot{i}"), &value(i, 1000)), "STORED");
    }
    // Four times as much as fits, while the hot ones are read now and then.
    for round in 0..120_u64 {
        let mut request = String::new();
        for i in 0..1000 {
            request += &format!(
                "set cold{} 0 0 1000 noreply\r\n{}\r\n",
                round * 1000 + i,
                "c".repeat(1000)
            );
        }
        conn.send(request);
        conn.expect_nothing();
        for i in 0..200 {
            let _ = conn.get(&format!("hot{i}"));
        }
    }
    let kept = (0..200)
        .filter(|i| conn.get(&format!("hot{i}")) == Some(value(*i, 1000)))
        .count();
    assert!(kept >= 190, "{kept} of 200 hot items left");
    assert!(conn.stat("evictions") > 50_000);
}

#[test]
fn larger_items_where_they_are_allowed() {
    let server = Server::start(&["-m", "256", "-I", "16m"]);
    let mut conn = server.connect();
    assert_eq!(
        conn.stats("settings")["item_size_max"],
        (16 << 20).to_string()
    );
    for len in [1 << 20, 3_000_000, 9_999_999, 16_000_000] {
        let big = value(len as u64, len);
        assert_eq!(conn.set("big", &big), "STORED", "{len} bytes");
        assert!(conn.get("big").as_ref() == Some(&big), "{len} bytes");
        conn.send([b"append big 0 0 3\r\nend\r\n".as_slice(), b"mg big s\r\n"].concat());
        conn.expect(format!("STORED\r\nHD s{}\r\n", len + 3));
    }
    assert_eq!(
        conn.set("bigger", &vec![b'b'; 16 << 20]),
        "SERVER_ERROR object too large for cache"
    );
    conn.expect_nothing();
}

#[test]
fn smaller_items_where_it_is_so_ordered() {
    let server = Server::start(&["-I", "512k"]);
    let mut conn = server.connect();
    assert_eq!(conn.stats("settings")["item_size_max"], "524288");
    assert_eq!(conn.set("k", &vec![b'x'; 500_000]), "STORED");
    assert_eq!(
        conn.set("k", &vec![b'x'; 524_288]),
        "SERVER_ERROR object too large for cache"
    );
    assert_eq!(conn.get("k"), None);
}

/// Waits until so many connections are in this state.
#[track_caller]
fn wait_for_state(conn: &mut Conn, state: &str, count: usize) {
    wait_within(state, Duration::from_secs(60), || {
        let conns = conn.stats("conns");
        conns.values().filter(|found| *found == state).count() >= count
    });
}

/// What 300 clients make the server hold by asking for large replies and not reading them, in megabytes: then, when each
/// reply was built whole, and now.
///
/// ```text
///  request                          one reply        then    now
///  stats detail dump                2 MB            1_176      0   four at a time; with all 65,536 prefixes 4.8 GB then
///  stats conns                      55 KB              14     19   200 bytes a connection: of 2,000 each 435 then, 85 now
///  stats conns, in binary           70 KB              29     14
///  stats items, stats slabs         up to 200 KB       20     20   with 255 classes
///  get of 100 values of 2 KB        200 KB             19     19
///  config get cluster               32 KB              19     19
///  lru_crawler metadump             1.8 MB             16      0   four at a time
///  stats cachedump                  500 KB             19      0   four at a time
/// ```
///
/// The rest is never large: `stats`, `stats settings` and replies about one key have a few kilobytes, values of 4 KB and
/// more stay in their items, and what is pipelined behind a full output is not executed.
#[test]
fn replies_that_nobody_reads_are_not_kept_whole() {
    if !is_ketch() {
        // memcached builds them whole.
        return;
    }
    const DEAF: usize = 300;
    /// A full output, a step's lines above it, and what its room was rounded up to.
    const KEPT_KB_MAX: u64 = 80;
    const PREFIXES: usize = 8192;
    let server = Server::start_unix(&["-m", "64", "-c", "2000", "-f", "1.05", "-D", ":"]);
    let mut conn = server.connect();
    conn.round("stats detail off\r\n", "OK\r\n");
    let mut len = 1;
    while len < 30_000 {
        assert_eq!(conn.set(&format!("len{len}"), &value(1, len)), "STORED");
        len += len / 20 + 1;
    }
    assert_eq!(conn.set("k", &value(2, 2000)), "STORED");
    let list = "n".repeat(32 << 10);
    conn.round(
        format!("config set cluster 0 {}\r\n{list}\r\n", list.len()),
        "STORED\r\n",
    );
    let items: String = (0..20_000)
        .map(|i| format!("set item:{i} 0 0 1 noreply\r\nx\r\n"))
        .collect();
    conn.round(items + "mn\r\n", "MN\r\n");
    conn.round("stats detail on\r\n", "OK\r\n");
    for i in 0..PREFIXES {
        conn.send(format!("get {}{i:05}:\r\n", "p".repeat(240)));
        conn.expect("END\r\n");
    }
    conn.round("stats detail off\r\n", "OK\r\n");

    let stat_conns = packet(STAT, "conns", "").bytes();
    let all: [(&str, Vec<u8>, usize); 9] = [
        ("stats conns", b"stats conns\r\n".repeat(50), DEAF),
        ("stats items", b"stats items\r\n".repeat(50), DEAF),
        ("stats slabs", b"stats slabs\r\n".repeat(50), DEAF),
        ("stats conns, in binary", stat_conns.repeat(50), DEAF),
        (
            "get of 100 values",
            format!("get{}\r\n", " k".repeat(100)).repeat(8).into(),
            DEAF,
        ),
        (
            "config get cluster",
            b"config get cluster\r\n".repeat(30),
            DEAF,
        ),
        ("stats detail dump", b"stats detail dump\r\n".to_vec(), 4),
        (
            "lru_crawler metadump",
            b"lru_crawler metadump all\r\n".to_vec(),
            4,
        ),
        ("stats cachedump", b"stats cachedump 1 0\r\n".to_vec(), 0),
    ];
    let mut too_much = Vec::new();
    for (what, request, stuck) in all {
        let buffers_kb = |conn: &mut Conn| conn.stat("ketch_buffer_bytes") / 1024;
        let before = (server.rss_kb(), buffers_kb(&mut conn));
        let mut deaf: Vec<Conn> = (0..DEAF).map(|_| server.connect()).collect();
        // All are there before the first asks.
        wait_for_state(&mut conn, "conn_read", DEAF);
        for conn in &mut deaf {
            conn.send(&request);
        }
        wait_for_state(&mut conn, "conn_mwrite", stuck);
        // Memory that was used before does not show as resident, a reply under way does not show in the count.
        let resident = server.rss_kb().saturating_sub(before.0);
        let kept = resident.max(buffers_kb(&mut conn).saturating_sub(before.1));
        println!("{what}: {kept} KB for {DEAF} clients");
        if kept > KEPT_KB_MAX * DEAF as u64 {
            too_much.push((what, kept));
        }
        drop(deaf);
        wait_within("the clients to be gone", Duration::from_secs(60), || {
            conn.stat("curr_connections") < 5
        });
    }
    assert!(too_much.is_empty(), "{too_much:?}");
}
