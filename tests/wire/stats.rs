//! stats: the keys that tools look for, and values that move when, and only when, something happens.

use ketch_testing::packet::{count, op::*, packet, store};
use ketch_testing::{
    Conn, PATIENCE, Server, Vector, both, escape, is_ketch, newer, run_vectors, wait_within,
};
use std::collections::{BTreeMap, BTreeSet};

const VECTORS: &[Vector] = &[
    both("stats foo\r\n", "ERROR\r\n"),
    both("stats reset\r\n", "RESET\r\n"),
    both(
        "stats detail\r\n",
        "CLIENT_ERROR usage: stats detail on|off|dump\r\n",
    ),
    both(
        "stats detail foo\r\n",
        "CLIENT_ERROR usage: stats detail on|off|dump\r\n",
    ),
    both("stats detail on\r\nstats detail off\r\n", "OK\r\nOK\r\n"),
    both("stats cachedump\r\n", "CLIENT_ERROR bad command line\r\n"),
    both("stats cachedump 1\r\n", "CLIENT_ERROR bad command line\r\n"),
    both(
        "stats cachedump x 1\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both(
        "stats cachedump 500 10\r\n",
        "CLIENT_ERROR Illegal slab id\r\n",
    ),
    both("stats cachedump 40 10\r\n", "END\r\n"),
    both("stats cachedump 63 10\r\n", "END\r\n"),
    newer(
        "64 is the first class that memcached does not have, and 1.6.18 shows it",
        "stats cachedump 64 0\r\nstats cachedump 200 1\r\nstats cachedump 256 1\r\n",
        "CLIENT_ERROR Illegal slab id\r\nCLIENT_ERROR Illegal slab id\r\nCLIENT_ERROR Illegal slab id\r\n",
    ),
    both("stats sizes\r\n", "STAT sizes_status disabled\r\nEND\r\n"),
    newer(
        "1.6.18 compares the whole word",
        "stats rese\r\n",
        "RESET\r\n",
    ),
];

#[test]
fn vectors() {
    run_vectors(&Server::start(&[]), VECTORS);
}

/// The plain ones, without those of storage on disk, of the proxy and of TLS.
const GENERAL: &str = "pid uptime time version libevent pointer_size rusage_user rusage_system max_connections \
    curr_connections total_connections rejected_connections connection_structures response_obj_oom \
    response_obj_count response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom \
    reserved_fds cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed \
    delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits \
    touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written limit_maxbytes \
    accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields hash_power_level hash_bytes \
    hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues slab_reassign_inline_reclaim \
    slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_running slabs_moved lru_crawler_running \
    lru_crawler_starts lru_maintainer_juggles malloc_fails log_worker_dropped log_worker_written \
    log_watcher_skipped log_watcher_sent log_watchers unexpected_napi_ids round_robin_fallback bytes curr_items \
    total_items slab_global_page_pool expired_unfetched evicted_unfetched evicted_active evictions reclaimed \
    crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru \
    direct_reclaims lru_bumps_dropped";

const SETTINGS: &str = "maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask \
    shutdown_command growth_factor chunk_size num_threads num_threads_per_udp stat_key_prefix detail_enabled \
    reqs_per_event cas_enabled tcp_backlog binding_protocol auth_enabled_sasl auth_enabled_ascii item_size_max \
    maxconns_fast hashpower_init slab_reassign slab_automove slab_automove_ratio slab_automove_window \
    slab_chunk_max lru_crawler lru_crawler_sleep lru_crawler_tocrawl tail_repair_time flush_enabled dump_enabled \
    hash_algorithm lru_maintainer_thread lru_segmented hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor \
    temp_lru temporary_ttl idle_timeout watcher_logbuf_size worker_logbuf_size read_buf_mem_limit track_sizes \
    inline_ascii_response";

const ITEMS: &str = "number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted \
    evicted_nonzero evicted_time outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched \
    evicted_active crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm \
    moves_within_lru direct_reclaims hits_to_hot hits_to_warm hits_to_cold hits_to_temp";

const SLABS: &str = "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end \
    get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits";

/// Keys that came after 1.6.18.
const NEWER: [(&str, &str); 3] = [
    ("", "slab_reassign_last_busy_status"),
    ("", "slab_reassign_busy_nomem"),
    ("settings", "client_flags_size"),
];

#[track_caller]
fn has_keys(stats: &BTreeMap<String, String>, prefix: &str, keys: &str) {
    let missing: Vec<&str> = keys
        .split_whitespace()
        .filter(|key| !stats.contains_key(&format!("{prefix}{key}")))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn every_key_that_tools_look_for() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    has_keys(&conn.stats(""), "", GENERAL);
    has_keys(&conn.stats("settings"), "", SETTINGS);
    let wanted: Vec<&str> = SETTINGS.split_whitespace().collect();
    conn.send("stats settings\r\n");
    let lines: Vec<String> = std::iter::repeat_with(|| conn.expect_line())
        .take_while(|line| line != "END")
        .collect();
    let shown = lines.iter().filter_map(|line| line.split(' ').nth(1));
    let in_order: Vec<&str> = shown.filter(|key| wanted.contains(key)).collect();
    assert_eq!(in_order, wanted, "another order");
    let items = conn.stats("items");
    let class = items
        .keys()
        .next()
        .expect("one class")
        .split(':')
        .nth(1)
        .expect("items:ID:key")
        .to_string();
    has_keys(&items, &format!("items:{class}:"), ITEMS);
    let slabs = conn.stats("slabs");
    has_keys(&slabs, &format!("{class}:"), SLABS);
    has_keys(&slabs, "", "active_slabs total_malloced");
    if is_ketch() {
        for (group, key) in NEWER {
            has_keys(&conn.stats(group), "", key);
        }
    }
}

/// The recorded sections: group, option, keys.
fn recorded_keys() -> Vec<(&'static str, Option<&'static str>, BTreeSet<&'static str>)> {
    let text = include_str!("recorded/stats-keys-1.6.45");
    let sections = text.split("\n[").skip(1);
    sections
        .map(|section| {
            let (head, keys) = section.split_once("]\n").expect("[group option]");
            let (group, option) = match head.split_once(' ') {
                Some((group, option)) => (group, Some(option)),
                None => (head, None),
            };
            let group = if group == "-" { "" } else { group };
            (group, option, keys.split_whitespace().collect())
        })
        .collect()
}

/// `key` with N in the place of a class or a descriptor.
fn without_number(key: &str) -> String {
    let parts = key.split(':');
    let named = parts.map(|part| part.parse::<u32>().map_or(part, |_| "N"));
    named.collect::<Vec<_>>().join(":")
}

/// Every group has memcached's keys and no other, but for those that nobody can take for memcached's.
#[test]
fn the_keys_of_each_group_are_memcacheds() {
    for (group, option, want) in recorded_keys() {
        let args = option.map_or_else(Vec::new, |option| vec!["-o", option]);
        let server = Server::start(&args);
        let mut conn = server.connect();
        conn.round(
            "set a 0 0 1\r\nx\r\nget a\r\n",
            "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
        );
        let stats = conn.stats(group);
        let keys = stats.keys().map(|key| without_number(key));
        let keys: BTreeSet<String> = keys.filter(|key| !key.starts_with("ketch_")).collect();
        // Recorded without TLS, with which memcached has these besides.
        let with_tls = std::env::var_os("KETCH_TEST_TLS").is_some();
        let of_tls = |key: &str| with_tls && (key.starts_with("ssl_") || key.contains("_cert_"));
        let missing: Vec<_> = want.iter().filter(|key| !keys.contains(**key)).collect();
        let extra: Vec<_> = keys
            .iter()
            .filter(|key| !want.contains(&***key) && !of_tls(key))
            .collect();
        if is_ketch() || conn.stats("")["version"] == "1.6.45" {
            assert!(
                missing.is_empty() && extra.is_empty(),
                "stats {group} {option:?}: missing {missing:?}, not memcached's {extra:?}"
            );
        }
    }
}

/// The metrics of one class that the Prometheus memcached_exporter makes of the keys of `stats items`...
const EXPORTED_ITEMS: &str = "number age crawler_reclaimed evicted evicted_nonzero evicted_time evicted_unfetched \
    expired_unfetched outofmemory reclaimed tailrepairs mem_requested moves_to_cold moves_to_warm moves_within_lru \
    number_hot number_warm number_cold number_temp age_hot age_warm hits_to_hot hits_to_warm hits_to_cold hits_to_temp";

/// ...and of `stats slabs`. It gives each metric once a class, or answers 500: what is in both groups is fatal, and what it
/// does not find in the second it takes from the first.
const EXPORTED_SLABS: &str = "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks \
    free_chunks_end mem_requested get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits";

/// The general keys that it cannot do without: each is a number.
const EXPORTED_GENERAL: &str = "uptime time cas_badval cmd_flush cmd_set get_hits get_misses delete_hits delete_misses \
    incr_hits incr_misses decr_hits decr_misses cas_hits cas_misses touch_hits touch_misses rusage_user rusage_system \
    bytes limit_maxbytes curr_items total_items bytes_read bytes_written curr_connections total_connections \
    rejected_connections conn_yields listen_disabled_num evictions reclaimed store_too_large store_no_memory \
    lru_crawler_starts direct_reclaims crawler_items_checked crawler_reclaimed moves_to_cold moves_to_warm \
    moves_within_lru accepting_conns";

/// What the exporter reads of `stats settings`.
const EXPORTED_SETTINGS: &str = "maxconns lru_crawler_sleep lru_crawler_tocrawl hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor";

/// Reads the groups as that exporter and the client below it do, by their rules: keys of a class have one number, values
/// are numbers, no metric comes twice for a class.
#[test]
fn an_exporter_takes_every_group() {
    let server = Server::start(&["-o", "temporary_ttl=30"]);
    let mut conn = server.connect();
    for bytes in [1, 400, 5000, 300_000] {
        assert_eq!(conn.set(&format!("k{bytes}"), &vec![b'v'; bytes]), "STORED");
    }
    let number = |stats: &BTreeMap<String, String>, key: &str| {
        let value = stats.get(key).unwrap_or_else(|| panic!("no {key}"));
        value
            .parse::<f64>()
            .unwrap_or_else(|_| panic!("{key} {value}"))
    };
    let general = conn.stats("");
    for key in EXPORTED_GENERAL.split_whitespace() {
        number(&general, key);
    }
    let settings = conn.stats("settings");
    for key in EXPORTED_SETTINGS.split_whitespace() {
        number(&settings, key);
    }
    for key in ["lru_crawler", "lru_maintainer_thread"] {
        assert_eq!(settings[key], "yes", "{key}");
    }

    let mut seen = BTreeSet::new();
    let mut export = |stats: &BTreeMap<String, String>, prefix: &[&str], known: &str| {
        for key in stats.keys() {
            let parts: Vec<&str> = key.split(':').collect();
            let (class, name) = match parts.strip_prefix(prefix) {
                Some([class, name]) => (*class, *name),
                // Taken for a general key.
                _ if parts.len() == 1 && prefix.is_empty() => continue,
                _ => panic!("{key}: neither PREFIX:CLASS:NAME nor a plain word"),
            };
            assert!(class.parse::<u32>().is_ok(), "{key}");
            let is_known = known.split_whitespace().any(|known| known == name);
            if is_known {
                number(stats, key);
                assert!(
                    seen.insert((class.to_string(), name.to_string())),
                    "{key}: its metric has come already"
                );
            }
            // Of a class it must know all.
            assert!(is_known || !prefix.is_empty(), "{key}: nothing it knows");
        }
    };
    export(&conn.stats("items"), &["items"], EXPORTED_ITEMS);
    let slabs = conn.stats("slabs");
    export(&slabs, &[], EXPORTED_SLABS);
    number(&slabs, "total_malloced");
    let classes: BTreeSet<_> = seen.iter().map(|(class, _)| class.clone()).collect();
    for class in &classes {
        for name in [
            "number",
            "age",
            "mem_requested",
            "chunk_size",
            "used_chunks",
        ] {
            let metric = (class.clone(), name.to_string());
            let is_empty_class = !seen.contains(&(class.clone(), "number".to_string()));
            assert!(
                seen.contains(&metric) || is_empty_class,
                "class {class} has no {name}"
            );
        }
    }
}

/// What a client parses as a number is one.
#[test]
fn values_have_their_types() {
    let server = Server::start(&["-m", "80", "-t", "3", "-c", "500"]);
    let mut conn = server.connect();
    let stats = conn.stats("");
    let words = [
        "version",
        "ketch_version",
        "libevent",
        "rusage_user",
        "rusage_system",
        // Why the last page could not be moved; no reason is one too.
        "slab_reassign_last_busy_status",
    ];
    for (key, value) in &stats {
        if !words.contains(&key.as_str()) {
            value
                .parse::<i64>()
                .unwrap_or_else(|_| panic!("{key} {value}"));
        }
    }
    for key in ["rusage_user", "rusage_system"] {
        let (seconds, micros) = stats[key].split_once('.').expect("seconds.microseconds");
        assert!(
            seconds.parse::<u32>().is_ok() && micros.len() == 6,
            "{key} {}",
            stats[key]
        );
    }
    assert_eq!(stats["pid"], server.pid().to_string());
    assert_eq!(stats["pointer_size"], usize::BITS.to_string());
    assert_eq!(stats["limit_maxbytes"], (80 << 20).to_string());
    assert_eq!(stats["threads"], "3");
    assert_eq!(stats["max_connections"], "500");
    assert_eq!(stats["accepting_conns"], "1");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let time: u64 = stats["time"].parse().expect("a number");
    // memcached counts a clock of whole seconds from its start, and begins at 2.
    assert!(now.abs_diff(time) <= 3, "time {time}, now {now}");
    assert!(
        stats["uptime"]
            .parse::<u64>()
            .is_ok_and(|uptime| uptime < 30),
        "{}",
        stats["uptime"]
    );
    let settings = conn.stats("settings");
    for (key, value) in [
        ("maxbytes", "83886080"),
        ("num_threads", "3"),
        ("maxconns", "500"),
        ("cas_enabled", "yes"),
        ("evictions", "on"),
        ("domain_socket", "NULL"),
        ("item_size_max", "1048576"),
        ("stat_key_prefix", ":"),
        ("inter", "127.0.0.1"),
        ("binding_protocol", "auto-negotiate"),
    ] {
        assert_eq!(settings.get(key).map(String::as_str), Some(value), "{key}");
    }
}

/// The counters that `request` moves, and by how much. Each other one of `WATCHED` must stand still.
struct Move(&'static str, &'static [(&'static str, u64)]);

const WATCHED: &str = "cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed \
    delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits \
    touch_misses store_too_large store_no_memory total_items evictions";

const MOVES: &[Move] = &[
    Move(
        "set a 0 0 1\r\nx\r\n",
        &[("cmd_set", 1), ("total_items", 1)],
    ),
    Move(
        "set n 0 0 1\r\n1\r\n",
        &[("cmd_set", 1), ("total_items", 1)],
    ),
    Move("add a 0 0 1\r\nx\r\n", &[("cmd_set", 1)]),
    Move("replace none 0 0 1\r\nx\r\n", &[("cmd_set", 1)]),
    Move("append none 0 0 1\r\nx\r\n", &[("cmd_set", 1)]),
    Move("get a\r\n", &[("cmd_get", 1), ("get_hits", 1)]),
    Move("get none\r\n", &[("cmd_get", 1), ("get_misses", 1)]),
    Move(
        "get a none a none none\r\n",
        &[("cmd_get", 5), ("get_hits", 2), ("get_misses", 3)],
    ),
    Move("gets a\r\n", &[("cmd_get", 1), ("get_hits", 1)]),
    Move("gat 0 a\r\n", &[("cmd_touch", 1), ("touch_hits", 1)]),
    Move("gat 0 none\r\n", &[("cmd_touch", 1), ("touch_misses", 1)]),
    Move("touch a 0\r\n", &[("cmd_touch", 1), ("touch_hits", 1)]),
    Move("touch none 0\r\n", &[("cmd_touch", 1), ("touch_misses", 1)]),
    Move("delete none\r\n", &[("delete_misses", 1)]),
    Move("incr none 1\r\n", &[("incr_misses", 1)]),
    Move("decr none 1\r\n", &[("decr_misses", 1)]),
    Move("incr a 1\r\n", &[]),
    Move("incr n 1\r\n", &[("incr_hits", 1)]),
    Move("decr n 1\r\n", &[("decr_hits", 1)]),
    Move(
        "cas none 0 0 1 1\r\nx\r\n",
        &[("cmd_set", 1), ("cas_misses", 1)],
    ),
    Move(
        "cas a 0 0 1 18446744073709551615\r\nx\r\n",
        &[("cmd_set", 1), ("cas_badval", 1)],
    ),
    Move("mg a\r\n", &[("cmd_get", 1), ("get_hits", 1)]),
    Move("mg none\r\n", &[("cmd_get", 1), ("get_misses", 1)]),
    Move("mg none q\r\n", &[("cmd_get", 1), ("get_misses", 1)]),
    Move("mg a T0\r\n", &[("cmd_touch", 1), ("touch_hits", 1)]),
    Move("ms a 1\r\nx\r\n", &[("cmd_set", 1), ("total_items", 1)]),
    Move("ms a 1 ME\r\nx\r\n", &[("cmd_set", 1)]),
    Move("md none\r\n", &[("delete_misses", 1)]),
    Move("ma none\r\n", &[("incr_misses", 1)]),
    Move("ma none MD\r\n", &[("decr_misses", 1)]),
    Move("ma n\r\n", &[("incr_hits", 1)]),
    Move("ma n MD\r\n", &[("decr_hits", 1)]),
    Move("me a\r\n", &[("cmd_meta", 1)]),
    Move("me none\r\n", &[("cmd_meta", 1)]),
    Move("version\r\n", &[]),
    Move("nonsense\r\n", &[]),
    Move("md a\r\n", &[("delete_hits", 1)]),
    Move("delete n\r\n", &[("delete_hits", 1)]),
    Move(
        "set e 0 -1 1\r\nx\r\nget e\r\n",
        &[
            ("cmd_set", 1),
            ("total_items", 1),
            ("cmd_get", 1),
            ("get_misses", 1),
            ("get_expired", 1),
        ],
    ),
    Move("flush_all\r\n", &[("cmd_flush", 1)]),
];

fn watched(conn: &mut Conn) -> BTreeMap<String, u64> {
    let stats = conn.stats("");
    WATCHED
        .split_whitespace()
        .map(|key| (key.to_string(), stats[key].parse().expect("a number")))
        .collect()
}

#[test]
fn counters_move_when_something_happens() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let mut before = watched(&mut conn);
    let mut wrong = Vec::new();
    for Move(request, moves) in MOVES {
        conn.send(request);
        conn.send("mn\r\n");
        let reply = conn.read_until(b"MN\r\n");
        // Counted on another connection, which another worker may serve.
        let after = watched(&mut server.connect());
        for (key, now) in &after {
            let want = moves
                .iter()
                .find(|(moved, _)| moved == key)
                .map_or(0, |(_, by)| *by);
            let moved = now - before[key];
            if moved != want {
                let reply = escape(&reply);
                wrong.push(format!(
                    "{key} by {moved} instead of {want} after {request:?}, {reply}"
                ));
            }
        }
        before = after;
    }
    assert!(wrong.is_empty(), "moved:\n  {}", wrong.join("\n  "));
}

#[test]
fn a_value_too_large_is_counted() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    assert_eq!(
        conn.set("big", &vec![b'x'; 1 << 20]),
        "SERVER_ERROR object too large for cache"
    );
    assert_eq!(conn.stat("store_too_large"), 1);
    assert_eq!(conn.stat("total_items"), 0);
}

#[test]
fn reset_clears_counters_and_nothing_else() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round(
        "set a 0 0 1\r\nx\r\nget a\r\nget b\r\ndelete b\r\nincr b 1\r\ntouch a 0\r\n",
        "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\nEND\r\nNOT_FOUND\r\nNOT_FOUND\r\nTOUCHED\r\n",
    );
    let before = conn.stats("");
    conn.round("stats reset\r\n", "RESET\r\n");
    let after = conn.stats("");
    for key in [
        "cmd_get",
        "cmd_set",
        "cmd_touch",
        "get_hits",
        "get_misses",
        "delete_misses",
        "incr_misses",
        "touch_hits",
        "total_items",
    ] {
        assert_eq!(after[key], "0", "{key}");
    }
    for key in [
        "curr_items",
        "bytes",
        "limit_maxbytes",
        "threads",
        "pid",
        "max_connections",
        "curr_connections",
    ] {
        assert_eq!(after[key], before[key], "{key}");
    }
    conn.round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(conn.stat("get_hits"), 1);
}

#[test]
fn items_and_bytes_follow_stores_and_deletes() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    assert_eq!((conn.stat("curr_items"), conn.stat("bytes")), (0, 0));
    for i in 0..100 {
        assert_eq!(conn.set(&format!("k{i:03}"), &[b'v'; 1000]), "STORED");
    }
    assert_eq!(conn.stat("curr_items"), 100);
    let bytes = conn.stat("bytes");
    assert!(
        (100_400..120_000).contains(&bytes),
        "{bytes} for 100 items of 1004"
    );
    // The same again: as many, as large.
    for i in 0..100 {
        assert_eq!(conn.set(&format!("k{i:03}"), &[b'w'; 1000]), "STORED");
    }
    assert_eq!(
        (
            conn.stat("curr_items"),
            conn.stat("bytes"),
            conn.stat("total_items")
        ),
        (100, bytes, 200)
    );
    for i in 0..100 {
        conn.round(format!("delete k{i:03}\r\n"), "DELETED\r\n");
    }
    assert_eq!(
        (
            conn.stat("curr_items"),
            conn.stat("bytes"),
            conn.stat("total_items")
        ),
        (0, 0, 200)
    );
}

#[test]
fn traffic_is_counted() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let value = vec![b'v'; 100_000];
    let (read, written) = (conn.stat("bytes_read"), conn.stat("bytes_written"));
    assert_eq!(conn.set("k", &value), "STORED");
    assert_eq!(conn.get("k"), Some(value));
    let (read, written) = (
        conn.stat("bytes_read") - read,
        conn.stat("bytes_written") - written,
    );
    assert!((100_000..100_500).contains(&read), "{read} bytes read");
    assert!(
        (100_000..110_000).contains(&written),
        "{written} bytes written"
    );
}

#[test]
fn connections_are_counted() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let (open, total) = (
        conn.stat("curr_connections"),
        conn.stat("total_connections"),
    );
    let mut others: Vec<Conn> = (0..20).map(|_| server.connect()).collect();
    for other in &mut others {
        other.expect_nothing();
    }
    assert_eq!(conn.stat("curr_connections"), open + 20);
    assert_eq!(conn.stat("total_connections"), total + 20);
    drop(others);
    wait_within("they are gone", PATIENCE, || {
        conn.stat("curr_connections") == open
    });
    assert_eq!(conn.stat("total_connections"), total + 20);
}

#[test]
fn each_connection_is_listed() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let mut other = server.connect();
    other.expect_nothing();
    let mut conns = conn.stats("conns");
    let has = |conns: &BTreeMap<String, String>, state: &str| {
        conns
            .iter()
            .any(|(key, value)| key.ends_with(":state") && value == state)
    };
    // A connection may still be on its way back to reading.
    wait_within("a client that is being read from", PATIENCE, || {
        conns = conn.stats("conns");
        has(&conns, "conn_read")
    });
    assert!(has(&conns, "conn_listening"), "{conns:?}");
    assert!(has(&conns, "conn_parse_cmd"), "who asks: {conns:?}");
    let port = server.port();
    for (key, value) in &conns {
        let (_, field) = key.split_once(':').expect("FD:field");
        match field {
            "addr" => assert!(value.starts_with("tcp:127.0.0.1:"), "{key} {value}"),
            "listen_addr" => assert_eq!(*value, format!("tcp:127.0.0.1:{port}")),
            "secs_since_last_cmd" => {
                assert!(value.parse::<u64>().is_ok_and(|s| s < 60), "{key} {value}")
            }
            _ => {}
        }
    }
    assert_eq!(
        conns
            .keys()
            .filter(|key| key.ends_with(":listen_addr"))
            .count(),
        2
    );
}

/// Each class's counters sum up to the general ones.
#[test]
fn slabs_and_items_sum_up() {
    let server = Server::start(&["-m", "64"]);
    let mut conn = server.connect();
    for i in 0..3000_usize {
        assert_eq!(
            conn.set(&format!("k{i}"), &vec![b'v'; 1 + (i * 37) % 20_000]),
            "STORED"
        );
    }
    for i in (0..3000).step_by(2) {
        assert!(conn.get(&format!("k{i}")).is_some(), "k{i}");
    }
    for i in (0..3000).step_by(10) {
        conn.round(format!("delete k{i}\r\n"), "DELETED\r\n");
    }
    let general = conn.stats("");
    let sum = |stats: &BTreeMap<String, String>, field: &str| -> u64 {
        let ends = format!(":{field}");
        stats
            .iter()
            .filter(|(key, _)| key.ends_with(&ends))
            .map(|(_, v)| v.parse::<u64>().expect("a number"))
            .sum()
    };
    let (slabs, items) = (conn.stats("slabs"), conn.stats("items"));
    for (field, key) in [
        ("get_hits", "get_hits"),
        ("cmd_set", "cmd_set"),
        ("delete_hits", "delete_hits"),
    ] {
        assert_eq!(sum(&slabs, field).to_string(), general[key], "{field}");
    }
    assert_eq!(sum(&items, "number").to_string(), general["curr_items"]);
    assert_eq!(
        sum(&items, "number"),
        sum(&items, "number_hot") + sum(&items, "number_warm") + sum(&items, "number_cold")
    );
    assert_eq!(sum(&items, "mem_requested").to_string(), general["bytes"]);
    assert!(sum(&slabs, "used_chunks") >= 2700);
    assert_eq!(
        sum(&slabs, "total_chunks"),
        sum(&slabs, "used_chunks") + sum(&slabs, "free_chunks")
    );
    let classes = slabs
        .keys()
        .filter(|key| key.ends_with(":chunk_size"))
        .count();
    assert_eq!(slabs["active_slabs"], classes.to_string());
    let malloced: u64 = slabs["total_malloced"].parse().expect("a number");
    let bytes: u64 = general["bytes"].parse().expect("a number");
    assert!(
        malloced >= bytes && malloced <= 66 << 20,
        "{malloced} for {bytes}"
    );
}

#[test]
fn evictions_are_counted() {
    let server = Server::start(&["-m", "16"]);
    let mut conn = server.connect();
    for i in 0..20_000 {
        assert_eq!(conn.set(&format!("k{i}"), &[b'v'; 2000]), "STORED");
    }
    let stats = conn.stats("");
    let number = |key: &str| stats[key].parse::<u64>().expect("a number");
    let (evictions, items) = (number("evictions"), number("curr_items"));
    assert!(evictions > 5000, "{evictions}");
    assert_eq!(evictions + items, 20_000);
    assert_eq!(number("evicted_unfetched"), evictions, "none has been read");
    let items = conn.stats("items");
    let evicted: u64 = items
        .iter()
        .filter(|(key, _)| key.ends_with(":evicted"))
        .map(|(_, v)| v.parse::<u64>().expect("a number"))
        .sum();
    assert_eq!(evicted, evictions);
}

/// ketch's test clock makes items old without waiting.
#[test]
fn expired_and_flushed_items_are_counted() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-o", "debugtime"]);
    let mut conn = server.connect();
    conn.round("debugtime p\r\n", "OK\r\n");
    conn.round(
        "set read 0 10 1\r\nx\r\nset unread 0 10 1\r\nx\r\nget read\r\n",
        "STORED\r\nSTORED\r\nVALUE read 0 1\r\nx\r\nEND\r\n",
    );
    conn.round("debugtime 10\r\n", "OK\r\n");
    conn.round("get read unread\r\n", "END\r\n");
    let stats = conn.stats("");
    assert_eq!(
        (stats["get_expired"].as_str(), stats["get_misses"].as_str()),
        ("2", "2")
    );
    // One that nobody asks for is found by the crawler.
    conn.round(
        "set forgotten 0 10 1\r\nx\r\ndebugtime 10\r\nlru_crawler crawl all\r\n",
        "STORED\r\nOK\r\nOK\r\n",
    );
    wait_within("the forgotten one is counted", PATIENCE, || {
        conn.stat("expired_unfetched") == 1
    });
    assert_eq!(conn.stat("curr_items"), 0);
    conn.round(
        "set old 0 0 1\r\nx\r\ndebugtime 10\r\nflush_all\r\nget old\r\n",
        "STORED\r\nOK\r\nOK\r\nEND\r\n",
    );
    assert_eq!(conn.stat("get_flushed"), 1);
    assert_eq!(conn.stat("get_misses"), 3);
}

/// Memory or place of the dead that a store took, or that was taken before it had to ask, is reclaimed.
#[test]
fn what_the_dead_leave_is_reclaimed() {
    if !is_ketch() {
        return;
    }
    // By stores alone.
    let server = Server::start(&["-o", "debugtime,no_lru_maintainer,no_lru_crawler"]);
    let mut conn = server.connect();
    conn.round(
        "debugtime p\r\nset a 0 10 1\r\nx\r\nset read 0 10 1\r\nx\r\nget read\r\ndebugtime 10\r\n",
        "OK\r\nSTORED\r\nSTORED\r\nVALUE read 0 1\r\nx\r\nEND\r\nOK\r\n",
    );
    assert_eq!(conn.stat("reclaimed"), 0);
    conn.round(
        "set a 0 0 1\r\nx\r\nadd read 0 0 1\r\nx\r\n",
        "STORED\r\nSTORED\r\n",
    );
    assert_eq!(
        (conn.stat("reclaimed"), conn.stat("expired_unfetched")),
        (2, 1)
    );
    // A store that finds a live item takes nobody's place; who only reads takes none either.
    conn.round(
        "set a 0 0 1\r\nx\r\nset a 0 -1 1\r\nx\r\nget a\r\n",
        "STORED\r\nSTORED\r\nEND\r\n",
    );
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    assert_eq!(conn.stat("reclaimed"), 2);
    conn.round(
        "debugtime 2\r\nflush_all\r\nset a 0 0 1\r\nx\r\n",
        "OK\r\nOK\r\nSTORED\r\n",
    );
    assert_eq!(conn.stat("reclaimed"), 3);
    let items = conn.stats("items");
    let of_class = items.iter().find(|(key, _)| key.ends_with(":reclaimed"));
    assert_eq!(of_class.map(|(_, value)| value.as_str()), Some("3"));

    // Those at the ends of the lists are not left to the crawler.
    let server = Server::start(&["-o", "debugtime"]);
    let mut conn = server.connect();
    conn.round("debugtime p\r\n", "OK\r\n");
    for at in 0..1000 {
        conn.send(format!("set k{at} 0 10 1 noreply\r\nx\r\n"));
    }
    conn.round("debugtime 10\r\n", "OK\r\n");
    wait_within("all are gone", PATIENCE, || conn.stat("curr_items") == 0);
    let (by_tail, by_crawler) = (conn.stat("reclaimed"), conn.stat("crawler_reclaimed"));
    assert_eq!(by_tail + by_crawler, 1000);
    assert!(
        by_tail > by_crawler,
        "{by_tail} at the ends, {by_crawler} by the crawler"
    );
}

/// The age of the oldest item, though nothing has had to go yet.
#[test]
fn the_oldest_item_has_an_age() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-o", "debugtime"]);
    let mut conn = server.connect();
    conn.round(
        "debugtime p\r\nset old 0 0 1\r\nx\r\ndebugtime 7\r\nset new 0 0 1\r\nx\r\ndebugtime 3\r\n",
        "OK\r\nSTORED\r\nOK\r\nSTORED\r\nOK\r\n",
    );
    let items = conn.stats("items");
    let age = items.iter().find(|(key, _)| key.ends_with(":age"));
    assert_eq!(age.map(|(_, value)| value.as_str()), Some("10"));
}

/// Items have whole pages of it; what is shown is what was asked for.
#[test]
fn the_memory_limit_is_shown_to_the_byte() {
    if !is_ketch() {
        // memcached takes megabytes alone.
        return;
    }
    let server = Server::start(&["-m", "65537k"]);
    let mut conn = server.connect();
    let bytes = (65_537 << 10).to_string();
    assert_eq!(conn.stats("settings")["maxbytes"], bytes);
    assert_eq!(conn.stats("")["limit_maxbytes"], bytes);
    conn.round("cache_memlimit 65\r\n", "OK\r\n");
    assert_eq!(conn.stats("settings")["maxbytes"], (65 << 20).to_string());
    // More than was reserved: nothing changes.
    conn.round(
        "cache_memlimit 1000000000\r\n",
        "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n",
    );
    assert_eq!(conn.stats("settings")["maxbytes"], (65 << 20).to_string());
}

/// Fixtures wait for the line.
#[test]
fn each_socket_is_told_of_as_memcached_does() {
    let server = Server::start(&["-vv"]);
    let is_told = || {
        let stderr = server.stderr();
        let mut lines = stderr.lines();
        lines.any(|line| {
            let fd = line
                .strip_prefix('<')
                .and_then(|line| line.strip_suffix(" server listening (auto-negotiate)"));
            fd.is_some_and(|fd| fd.parse::<u32>().is_ok())
        })
    };
    wait_within("<FD server listening (auto-negotiate)", PATIENCE, is_told);
    let server = Server::start(&["-v"]);
    assert!(!server.stderr().contains("server listening"));
}

#[test]
fn sizes_are_a_histogram() {
    let server = Server::start(&["-o", "track_sizes"]);
    let mut conn = server.connect();
    for i in 0..10 {
        conn.round(format!("set k{i} 0 0 1\r\nx\r\n"), "STORED\r\n");
    }
    assert_eq!(conn.set("large", &[b'l'; 5000]), "STORED");
    let sizes = conn.stats("sizes");
    let sizes: Vec<(u64, u64)> = sizes
        .iter()
        .map(|(size, count)| {
            (
                size.parse().expect("a size"),
                count.parse().expect("a count"),
            )
        })
        .collect();
    assert!(sizes.iter().all(|(size, _)| size % 32 == 0), "{sizes:?}");
    assert_eq!(
        sizes.iter().map(|(_, count)| count).sum::<u64>(),
        11,
        "{sizes:?}"
    );
    assert!(
        sizes
            .iter()
            .any(|(size, count)| (5024..5120).contains(size) && *count == 1),
        "{sizes:?}"
    );
    conn.round("delete large\r\n", "DELETED\r\n");
    assert_eq!(conn.stats("sizes").len(), sizes.len() - 1);
}

#[test]
fn detail_counts_by_prefix() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("get foo:before\r\nstats detail on\r\n", "END\r\nOK\r\n");
    conn.round("set foo:a 0 0 1\r\nx\r\nget foo:a\r\nget foo:b\r\ndelete foo:a\r\nget bar:x:y\r\nget plain\r\n", "STORED\r\nVALUE foo:a 0 1\r\nx\r\nEND\r\nEND\r\nDELETED\r\nEND\r\nEND\r\n");
    conn.send("stats detail dump\r\n");
    let text = String::from_utf8(conn.read_until(b"END\r\n")).expect("plain text");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "END",
            "PREFIX bar get 1 hit 0 set 0 del 0",
            "PREFIX foo get 2 hit 1 set 1 del 1"
        ]
    );
    conn.round("stats detail off\r\nget foo:a\r\n", "OK\r\nEND\r\n");
    conn.send("stats detail dump\r\n");
    let again = String::from_utf8(conn.read_until(b"END\r\n")).expect("plain text");
    assert!(again.contains("PREFIX foo get 2 "), "{again}");
}

#[test]
fn detail_with_a_delimiter_of_its_own() {
    let server = Server::start(&["-D", "/"]);
    let mut conn = server.connect();
    conn.round("get a/b\r\nget a:b/c\r\n", "END\r\nEND\r\n");
    conn.send("stats detail dump\r\n");
    let text = String::from_utf8(conn.read_until(b"END\r\n")).expect("plain text");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "END",
            "PREFIX a get 1 hit 0 set 0 del 0",
            "PREFIX a:b get 1 hit 0 set 0 del 0"
        ]
    );
    let settings = conn.stats("settings");
    assert_eq!(
        (
            settings["stat_key_prefix"].as_str(),
            settings["detail_enabled"].as_str()
        ),
        ("/", "yes")
    );
}

/// Every command that reads, stores or deletes by key counts for the prefix, whatever it is written in.
#[test]
fn detail_counts_both_protocols() {
    let server = Server::start(&["-D", "/"]);
    let (mut text, mut binary) = (server.connect(), server.connect());
    text.round(
        "set a/1 0 0 1\r\n1\r\nget a/1\r\n",
        "STORED\r\nVALUE a/1 0 1\r\n1\r\nEND\r\n",
    );
    text.round("gat 0 a/1 a/2\r\n", "VALUE a/1 0 1\r\n1\r\nEND\r\n");
    text.round("touch a/1 0\r\nincr a/1 1\r\n", "TOUCHED\r\n2\r\n");
    text.round("delete a/1\r\ndelete a/1\r\n", "DELETED\r\nNOT_FOUND\r\n");
    let requests = [
        store(SET, "b/1", "1"),
        packet(GET, "b/1", ""),
        packet(GAT, "b/1", "").numbers(&[0]),
        packet(GAT, "b/2", "").numbers(&[0]),
        packet(TOUCH, "b/1", "").numbers(&[0]),
        count(INCR, "b/1", 1, 0, 0),
        packet(APPEND, "b/1", "1"),
        packet(DELETE, "b/1", ""),
        packet(DELETE, "b/1", ""),
    ];
    for request in &requests {
        binary.ask_packet(request);
    }
    let mut dump = binary.ask_packet(&packet(STAT, "detail dump", ""));
    assert_eq!(dump.key, b"detailed");
    binary.expect_packet();
    dump.value.truncate(dump.value.len() - "END\r\n".len());
    let text = String::from_utf8(dump.value).expect("plain text");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    // memcached takes a binary touch for a read, a text one not.
    assert_eq!(
        lines,
        [
            "PREFIX a get 3 hit 2 set 1 del 2",
            "PREFIX b get 4 hit 3 set 2 del 2"
        ]
    );
}

/// As libmemcached's memcdump asks.
#[test]
fn a_tool_that_goes_through_memcacheds_classes_finds_every_item() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let mut names = Vec::new();
    for bytes in [1, 500, 3000, 20_000, 900_000] {
        assert_eq!(conn.set(&format!("k{bytes}"), &vec![b'v'; bytes]), "STORED");
        names.push(format!("k{bytes}"));
    }
    let mut listed = Vec::new();
    for class in 1..=63 {
        conn.send(format!("stats cachedump {class} 0\r\n"));
        let text = String::from_utf8(conn.read_until(b"END\r\n")).expect("plain text");
        let names = text.lines().filter_map(|line| line.split(' ').nth(1));
        listed.extend(names.map(str::to_string));
    }
    listed.sort_unstable();
    names.sort_unstable();
    assert_eq!(listed, names);
}

#[test]
fn cachedump_lists_a_class() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let now = conn.stat("time");
    conn.round(
        "set a 0 0 5\r\nabcde\r\nset b 0 100 5\r\nabcde\r\n",
        "STORED\r\nSTORED\r\n",
    );
    let items = conn.stats("items");
    let class = items
        .keys()
        .next()
        .expect("one class")
        .split(':')
        .nth(1)
        .expect("a class")
        .to_string();
    let mut lines = Vec::new();
    // memcached lists one of the LRUs; right behind a store an item can be in another one.
    wait_within("both are listed", PATIENCE, || {
        conn.send(format!("stats cachedump {class} 10\r\n"));
        let text = String::from_utf8(conn.read_until(b"END\r\n")).expect("plain text");
        lines = text
            .lines()
            .filter(|line| *line != "END")
            .map(str::to_string)
            .collect();
        lines.len() == 2
    });
    lines.sort_unstable();
    assert_eq!(lines[0], "ITEM a [5 b; 0 s]");
    let at = lines[1]
        .strip_prefix("ITEM b [5 b; ")
        .and_then(|rest| rest.strip_suffix(" s]"))
        .expect("ITEM b");
    let at: u64 = at.parse().expect("a point in time");
    assert!((now + 98..now + 104).contains(&at), "{at}, now {now}");
    conn.send(format!("stats cachedump {class} 1\r\n"));
    let text = String::from_utf8(conn.read_until(b"END\r\n")).expect("plain text");
    assert_eq!(text.lines().count(), 2, "one item and END");
}
