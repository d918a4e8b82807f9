//! `/metrics`: what `stats` says under the names that memcached's dashboards know, and ketch's own under `ketch_`.
//!
//! The names, types and meanings beginning with `memcached_` are those of memcached_exporter 0.16, which reads the same
//! figures over the protocol; [`write`] gives each value as `stats` shows it, digit by digit.

use std::collections::BTreeMap;

use super::figures::{Figures, Group};
use super::insight::Insight;
use super::prometheus::Kind::{self, Counter, Gauge, Histogram, Untyped};
use super::prometheus::Text;
use crate::keyspace::latency::Times;
use crate::state::Shared;
use crate::sys;

/// A family of one sample: its name, kind and help, and the key of `stats` it shows.
type Single = (&'static str, Kind, &'static str, &'static str);

const GENERAL: &[Single] = &[
    (
        "memcached_uptime_seconds",
        Untyped,
        "Seconds since the server started.",
        "uptime",
    ),
    (
        "memcached_time_seconds",
        Gauge,
        "The server's clock, in seconds since 1970.",
        "time",
    ),
    (
        "memcached_process_user_cpu_seconds_total",
        Counter,
        "CPU time spent in the program.",
        "rusage_user",
    ),
    (
        "memcached_process_system_cpu_seconds_total",
        Counter,
        "CPU time spent in the kernel for the program.",
        "rusage_system",
    ),
    (
        "memcached_read_bytes_total",
        Counter,
        "Bytes read from clients.",
        "bytes_read",
    ),
    (
        "memcached_written_bytes_total",
        Counter,
        "Bytes sent to clients.",
        "bytes_written",
    ),
    (
        "memcached_accepting_connections",
        Gauge,
        "1 while new connections are accepted.",
        "accepting_conns",
    ),
    (
        "memcached_current_connections",
        Gauge,
        "Connections that are open.",
        "curr_connections",
    ),
    (
        "memcached_connections_total",
        Counter,
        "Connections accepted since the start.",
        "total_connections",
    ),
    (
        "memcached_connections_rejected_total",
        Counter,
        "Connections refused because there were too many.",
        "rejected_connections",
    ),
    (
        "memcached_connections_yielded_total",
        Counter,
        "Times a connection had to let others go first.",
        "conn_yields",
    ),
    (
        "memcached_connections_listener_disabled_total",
        Counter,
        "Times the listener stopped for want of room.",
        "listen_disabled_num",
    ),
    (
        "memcached_current_bytes",
        Gauge,
        "Bytes that items take.",
        "bytes",
    ),
    (
        "memcached_limit_bytes",
        Gauge,
        "Bytes that items may take.",
        "limit_maxbytes",
    ),
    (
        "memcached_current_items",
        Gauge,
        "Items in the cache.",
        "curr_items",
    ),
    (
        "memcached_items_total",
        Counter,
        "Items stored since the start.",
        "total_items",
    ),
    (
        "memcached_items_evicted_total",
        Counter,
        "Live items that gave way to others.",
        "evictions",
    ),
    (
        "memcached_items_reclaimed_total",
        Counter,
        "Stores that took the memory of an item whose time was over.",
        "reclaimed",
    ),
    (
        "memcached_item_too_large_total",
        Counter,
        "Stores refused because of their size.",
        "store_too_large",
    ),
    (
        "memcached_item_no_memory_total",
        Counter,
        "Stores refused for want of memory.",
        "store_no_memory",
    ),
    (
        "memcached_direct_reclaims_total",
        Counter,
        "Times a worker had to evict by itself.",
        "direct_reclaims",
    ),
    (
        "memcached_lru_crawler_starts_total",
        Counter,
        "Walks of the crawler.",
        "lru_crawler_starts",
    ),
    (
        "memcached_lru_crawler_reclaimed_total",
        Counter,
        "Items that the crawler found to be over.",
        "crawler_reclaimed",
    ),
    (
        "memcached_lru_crawler_items_checked_total",
        Counter,
        "Items that the crawler looked at.",
        "crawler_items_checked",
    ),
    (
        "memcached_lru_crawler_moves_to_cold_total",
        Counter,
        "Items moved to the cold segment.",
        "moves_to_cold",
    ),
    (
        "memcached_lru_crawler_moves_to_warm_total",
        Counter,
        "Items moved to the warm segment.",
        "moves_to_warm",
    ),
    (
        "memcached_lru_crawler_moves_within_lru_total",
        Counter,
        "Items moved to the head of their segment.",
        "moves_within_lru",
    ),
    (
        "memcached_round_robin_fallback_total",
        Counter,
        "Connections without a NAPI id.",
        "round_robin_fallback",
    ),
    (
        "memcached_unexpected_napi_ids_total",
        Counter,
        "Connections with an unexpected NAPI id.",
        "unexpected_napi_ids",
    ),
];

const SETTINGS: &[Single] = &[
    (
        "memcached_max_connections",
        Gauge,
        "Connections that may be open.",
        "maxconns",
    ),
    (
        "memcached_lru_crawler_enabled",
        Gauge,
        "1 while the crawler may run.",
        "lru_crawler",
    ),
    (
        "memcached_lru_crawler_sleep",
        Gauge,
        "Microseconds the crawler sleeps between items.",
        "lru_crawler_sleep",
    ),
    (
        "memcached_lru_crawler_to_crawl",
        Gauge,
        "Items the crawler looks at in a walk.",
        "lru_crawler_tocrawl",
    ),
    (
        "memcached_lru_crawler_maintainer_thread",
        Gauge,
        "1 with a maintainer thread.",
        "lru_maintainer_thread",
    ),
    (
        "memcached_lru_crawler_hot_percent",
        Gauge,
        "Per cent of a class that the hot segment may take.",
        "hot_lru_pct",
    ),
    (
        "memcached_lru_crawler_warm_percent",
        Gauge,
        "Per cent of a class that the warm segment may take.",
        "warm_lru_pct",
    ),
    (
        "memcached_lru_crawler_hot_max_factor",
        Gauge,
        "Age of the hot segment, as a factor of the cold one's.",
        "hot_max_factor",
    ),
    (
        "memcached_lru_crawler_warm_max_factor",
        Gauge,
        "Age of the warm segment, as a factor of the cold one's.",
        "warm_max_factor",
    ),
];

/// Of each class, from `stats items`.
const CLASS_ITEMS: &[Single] = &[
    (
        "memcached_slab_current_items",
        Gauge,
        "Items of the class.",
        "number",
    ),
    (
        "memcached_slab_items_age_seconds",
        Gauge,
        "Seconds since the oldest item was asked for.",
        "age",
    ),
    (
        "memcached_slab_hot_items",
        Gauge,
        "Items in the hot segment.",
        "number_hot",
    ),
    (
        "memcached_slab_warm_items",
        Gauge,
        "Items in the warm segment.",
        "number_warm",
    ),
    (
        "memcached_slab_cold_items",
        Gauge,
        "Items in the cold segment.",
        "number_cold",
    ),
    (
        "memcached_slab_temporary_items",
        Gauge,
        "Items in the segment for short times to live.",
        "number_temp",
    ),
    (
        "memcached_slab_hot_age_seconds",
        Gauge,
        "Age of the oldest item in the hot segment.",
        "age_hot",
    ),
    (
        "memcached_slab_warm_age_seconds",
        Gauge,
        "Age of the oldest item in the warm segment.",
        "age_warm",
    ),
    (
        "memcached_slab_mem_requested_bytes",
        Gauge,
        "Bytes that the items of the class asked for.",
        "mem_requested",
    ),
    (
        "memcached_slab_items_crawler_reclaimed_total",
        Counter,
        "Items that the crawler found to be over.",
        "crawler_reclaimed",
    ),
    (
        "memcached_slab_items_evicted_total",
        Counter,
        "Live items that gave way.",
        "evicted",
    ),
    (
        "memcached_slab_items_evicted_nonzero_total",
        Counter,
        "Of these the ones with an expiry.",
        "evicted_nonzero",
    ),
    (
        "memcached_slab_items_evicted_time_seconds",
        Untyped,
        "Seconds since the last evicted item was asked for.",
        "evicted_time",
    ),
    (
        "memcached_slab_items_evicted_unfetched_total",
        Counter,
        "Evicted items that nobody had read.",
        "evicted_unfetched",
    ),
    (
        "memcached_slab_items_expired_unfetched_total",
        Counter,
        "Expired items that nobody had read.",
        "expired_unfetched",
    ),
    (
        "memcached_slab_items_outofmemory_total",
        Counter,
        "Stores that found no memory.",
        "outofmemory",
    ),
    (
        "memcached_slab_items_reclaimed_total",
        Counter,
        "Stores that took the memory of an item whose time was over.",
        "reclaimed",
    ),
    (
        "memcached_slab_items_tailrepairs_total",
        Counter,
        "Items taken from a reader; none ever are.",
        "tailrepairs",
    ),
    (
        "memcached_slab_items_moves_to_cold",
        Untyped,
        "Items moved to the cold segment.",
        "moves_to_cold",
    ),
    (
        "memcached_slab_items_moves_to_warm",
        Untyped,
        "Items moved to the warm segment.",
        "moves_to_warm",
    ),
    (
        "memcached_slab_items_moves_within_lru",
        Untyped,
        "Items moved to the head of their segment.",
        "moves_within_lru",
    ),
];

/// Of each class, from `stats slabs`.
const CLASS_SLABS: &[Single] = &[
    (
        "memcached_slab_chunk_size_bytes",
        Gauge,
        "Bytes of a chunk.",
        "chunk_size",
    ),
    (
        "memcached_slab_chunks_per_page",
        Gauge,
        "Chunks of a page.",
        "chunks_per_page",
    ),
    (
        "memcached_slab_current_pages",
        Gauge,
        "Pages of the class.",
        "total_pages",
    ),
    (
        "memcached_slab_current_chunks",
        Gauge,
        "Chunks of the class.",
        "total_chunks",
    ),
    (
        "memcached_slab_chunks_used",
        Gauge,
        "Chunks in use.",
        "used_chunks",
    ),
    (
        "memcached_slab_chunks_free",
        Gauge,
        "Chunks that are free.",
        "free_chunks",
    ),
    (
        "memcached_slab_chunks_free_end",
        Gauge,
        "Free chunks at the end of the last page.",
        "free_chunks_end",
    ),
];

/// Counters that memcached has no metric for, from `stats`.
const OWN: &[Single] = &[
    (
        "ketch_get_expired_total",
        Counter,
        "Reads that found an item whose time was over.",
        "get_expired",
    ),
    (
        "ketch_get_flushed_total",
        Counter,
        "Reads that found a flushed item.",
        "get_flushed",
    ),
    (
        "ketch_meta_commands_total",
        Counter,
        "Meta commands.",
        "cmd_meta",
    ),
    (
        "ketch_expired_unfetched_total",
        Counter,
        "Expired items that nobody had read.",
        "expired_unfetched",
    ),
    (
        "ketch_evicted_unfetched_total",
        Counter,
        "Evicted items that nobody had read.",
        "evicted_unfetched",
    ),
    (
        "ketch_evicted_active_total",
        Counter,
        "Evicted items that had been asked for lately.",
        "evicted_active",
    ),
    (
        "ketch_auth_commands_total",
        Counter,
        "Logins tried.",
        "auth_cmds",
    ),
    (
        "ketch_auth_errors_total",
        Counter,
        "Logins refused.",
        "auth_errors",
    ),
    (
        "ketch_slab_pages_moved_total",
        Counter,
        "Pages moved from one class to another.",
        "slabs_moved",
    ),
    (
        "ketch_slab_pool_pages",
        Gauge,
        "Pages that no class has.",
        "slab_global_page_pool",
    ),
    (
        "ketch_hash_bytes",
        Gauge,
        "Bytes of the hash table.",
        "hash_bytes",
    ),
    ("ketch_threads", Gauge, "Worker threads.", "threads"),
    (
        "ketch_connections_max_allowed",
        Gauge,
        "Connections that there are descriptors for.",
        "max_connections",
    ),
    (
        "ketch_block_bytes",
        Gauge,
        "Bytes of values that have not come whole.",
        "ketch_block_bytes",
    ),
    (
        "ketch_blocks_timed_out_total",
        Counter,
        "Values given up because they did not come whole in time.",
        "ketch_blocks_timed_out",
    ),
    (
        "ketch_blocks_given_way_total",
        Counter,
        "Unfinished values that gave way to others.",
        "ketch_blocks_given_way",
    ),
    (
        "ketch_unread_bytes",
        Gauge,
        "Bytes of values in items that wait for readers to take them.",
        "ketch_unread_bytes",
    ),
    (
        "ketch_readers_given_way_total",
        Counter,
        "Connections closed because the values they did not take left no memory for a store.",
        "ketch_readers_given_way",
    ),
    (
        "ketch_resident_bytes",
        Gauge,
        "Resident memory.",
        "ketch_resident_bytes",
    ),
    (
        "ketch_machine_bytes",
        Gauge,
        "Memory of the machine, or what its control group allows.",
        "ketch_machine_bytes",
    ),
    (
        "ketch_base_bytes",
        Gauge,
        "Of it what was resident before there was anything to cache.",
        "ketch_base_bytes",
    ),
    (
        "ketch_arena_bytes",
        Gauge,
        "Of it the pages of items.",
        "ketch_arena_bytes",
    ),
    (
        "ketch_beyond_limit_bytes",
        Gauge,
        "Bytes of pages that classes without one took beyond the memory limit.",
        "ketch_beyond_limit_bytes",
    ),
    (
        "ketch_table_bytes",
        Gauge,
        "Of it the hash table.",
        "ketch_table_bytes",
    ),
    (
        "ketch_policy_bytes",
        Gauge,
        "Of it what the eviction policy remembers.",
        "ketch_policy_bytes",
    ),
    (
        "ketch_insight_bytes",
        Gauge,
        "Of it what is kept of keys, latencies and misses.",
        "ketch_insight_bytes",
    ),
    (
        "ketch_connection_bytes",
        Gauge,
        "Of it what connections take.",
        "ketch_connection_bytes",
    ),
    (
        "ketch_buffer_bytes",
        Gauge,
        "Of it input and replies in progress.",
        "ketch_buffer_bytes",
    ),
];

/// Bounds of the histograms, in seconds.
const BOUNDS_S: [f64; 20] = [
    0.000_000_5,
    0.000_001,
    0.000_002,
    0.000_005,
    0.000_01,
    0.000_02,
    0.000_05,
    0.000_1,
    0.000_2,
    0.000_5,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.5,
    1.0,
    10.0,
];

/// Writes all metrics.
pub(super) fn write(figures: &Figures, insight: &Insight, process: &Process) -> String {
    let mut text = Text::default();
    text.single("memcached_up", Gauge, "1: the server answers.", 1);
    text.family(
        "memcached_version",
        Gauge,
        "The memcached that is followed.",
    );
    let version = figures.general.get("version").unwrap_or_default();
    text.sample(&[("version", version)], 1);
    singles(&mut text, &figures.general, GENERAL);
    singles(&mut text, &figures.settings, SETTINGS);
    text.single(
        "memcached_malloced_bytes",
        Gauge,
        "Bytes of all pages.",
        figures.slabs.server.number("total_malloced"),
    );
    commands(&mut text, &figures.general);
    classes(&mut text, figures);
    own(&mut text, figures, insight);
    process.write(&mut text);
    text.finish()
}

/// A value as `stats` shows it; `yes` and `on` are 1. `None` if it is no number.
fn number(value: &str) -> Option<&str> {
    match value {
        "yes" | "on" => Some("1"),
        "no" | "off" => Some("0"),
        value => value
            .parse::<f64>()
            .is_ok_and(f64::is_finite)
            .then_some(value),
    }
}

fn singles(text: &mut Text, group: &Group, families: &[Single]) {
    for &(name, kind, help, key) in families {
        if let Some(value) = group.get(key).and_then(number) {
            text.single(name, kind, help, value);
        }
    }
}

/// Commands of the server by what came of them: the words in `commands_total`, and the keys of `stats`.
const COMMANDS: [(&str, &str, &str); 14] = [
    ("get", "hit", "get_hits"),
    ("get", "miss", "get_misses"),
    ("delete", "hit", "delete_hits"),
    ("delete", "miss", "delete_misses"),
    ("incr", "hit", "incr_hits"),
    ("incr", "miss", "incr_misses"),
    ("decr", "hit", "decr_hits"),
    ("decr", "miss", "decr_misses"),
    ("cas", "hit", "cas_hits"),
    ("cas", "miss", "cas_misses"),
    ("cas", "badval", "cas_badval"),
    ("touch", "hit", "touch_hits"),
    ("touch", "miss", "touch_misses"),
    ("flush", "hit", "cmd_flush"),
];

fn commands(text: &mut Text, general: &Group) {
    let help = "Commands by what came of them.";
    text.family("memcached_commands_total", Counter, help);
    for (command, status, key) in COMMANDS {
        text.sample(
            &[("command", command), ("status", status)],
            general.number(key),
        );
    }
    let compared = ["cas_misses", "cas_hits", "cas_badval"];
    let sets = without(general, "cmd_set", &compared);
    text.sample(&[("command", "set"), ("status", "hit")], sets);
}

/// A count less others, which are counted in it.
fn without(group: &Group, key: &str, others: &[&str]) -> u64 {
    let others: u64 = others.iter().map(|key| group.number(key)).sum();
    group.number(key).saturating_sub(others)
}

fn classes(text: &mut Text, figures: &Figures) {
    let (items, slabs) = (&figures.items.classes, &figures.slabs.classes);
    let families = |text: &mut Text, classes: &BTreeMap<u8, Group>, families: &[Single]| {
        for &(name, kind, help, key) in families {
            let mut samples = classes
                .iter()
                .filter_map(|(class, group)| Some((class, number(group.get(key)?)?)))
                .peekable();
            if samples.peek().is_some() {
                text.family(name, kind, help);
            }
            for (class, value) in samples {
                text.sample(&[("slab", &class.to_string())], value);
            }
        }
    };
    families(text, items, CLASS_ITEMS);
    families(text, slabs, CLASS_SLABS);
    if !items.is_empty() {
        let help = "Hits by segment.";
        text.family("memcached_slab_lru_hits_total", Counter, help);
    }
    for (class, group) in items {
        for (lru, key) in [
            ("hot", "hits_to_hot"),
            ("warm", "hits_to_warm"),
            ("cold", "hits_to_cold"),
            ("temporary", "hits_to_temp"),
        ] {
            let labels = [("slab", &class.to_string()[..]), ("lru", lru)];
            text.sample(&labels, group.number(key));
        }
    }
    if !slabs.is_empty() {
        let help = "Commands by class and by what came of them.";
        text.family("memcached_slab_commands_total", Counter, help);
    }
    for (class, group) in slabs {
        let class = class.to_string();
        let mut sample = |command, status, value| {
            let labels = [
                ("slab", &class[..]),
                ("command", command),
                ("status", status),
            ];
            text.sample(&labels, value);
        };
        for (command, status, key) in [
            ("get", "hit", "get_hits"),
            ("delete", "hit", "delete_hits"),
            ("incr", "hit", "incr_hits"),
            ("decr", "hit", "decr_hits"),
            ("cas", "hit", "cas_hits"),
            ("cas", "badval", "cas_badval"),
            ("touch", "hit", "touch_hits"),
        ] {
            sample(command, status, group.number(key));
        }
        let sets = without(group, "cmd_set", &["cas_hits", "cas_badval"]);
        sample("set", "hit", sets);
    }
}

fn own(text: &mut Text, figures: &Figures, insight: &Insight) {
    let general = &figures.general;
    let version = general.get("ketch_version").unwrap_or_default();
    text.family("ketch_build_info", Gauge, "The version of ketch.");
    text.sample(&[("version", version)], 1);
    singles(text, general, OWN);

    let help = "Time a request took the server, by group of commands.";
    text.family("ketch_request_duration_seconds", Histogram, help);
    for group in &insight.latency {
        histogram(text, &[("command", group.command)], &group.times);
    }
    let help = "Time that requests which had come waited for their turn, of one turn in 64.";
    text.family("ketch_turn_wait_seconds", Histogram, help);
    histogram(text, &[], &insight.wait);

    let help = "Reads that missed, by why the key was not there.";
    text.family("ketch_misses_total", Counter, help);
    for &(reason, count) in &insight.misses {
        text.sample(&[("reason", reason)], count);
    }

    if !insight.hot.is_empty() {
        let help = "Part of all reads, writes or bytes of the last seconds that were of this key.";
        text.family("ketch_hot_key_ratio", Gauge, help);
    }
    for hot in insight.hot.iter().filter(|hot| hot.rank < HOT_SHOWN) {
        let share = f64::from(hot.share_milli) / 1000.0;
        text.sample(&[("by", hot.by), ("key", &hot.key)], share);
    }
    prefixes(text, insight);
    if !insight.what_if.is_empty() {
        let help = "Hit ratio to be expected with so many times the memory.";
        text.family("ketch_expected_hit_ratio", Gauge, help);
    }
    for &(times, ratio) in &insight.what_if {
        text.sample(&[("memory", &times.to_string())], ratio);
    }
}

/// Hot keys that become samples: each name is a series that the reader of the metrics keeps.
const HOT_SHOWN: usize = 10;
/// Prefixes that become samples.
const PREFIXES_SHOWN: usize = 50;

fn prefixes(text: &mut Text, insight: &Insight) {
    let shown = &insight.prefixes[..insight.prefixes.len().min(PREFIXES_SHOWN)];
    if shown.is_empty() {
        return;
    }
    text.family(
        "ketch_prefix_requests_total",
        Counter,
        "Reads that hit or missed, and stores, by key prefix; estimated from a part of them.",
    );
    for prefix in shown {
        for (kind, count) in [
            ("hit", prefix.hits),
            ("miss", prefix.reads - prefix.hits),
            ("store", prefix.stores),
        ] {
            text.sample(&[("prefix", &prefix.name), ("kind", kind)], count);
        }
    }
    text.family(
        "ketch_prefix_bytes",
        Gauge,
        "Bytes of items in the cache by key prefix, when the crawler last walked over them.",
    );
    for prefix in shown {
        if let Some((_, bytes, _)) = prefix.held {
            text.sample(&[("prefix", &prefix.name)], bytes);
        }
    }
}

fn histogram(text: &mut Text, labels: &[(&'static str, &str)], times: &Times) {
    let bound = |bound_s: f64| (bound_s, times.at_most((bound_s * 1e9) as u64));
    let sum_s = times.sum_ns as f64 / 1e9;
    text.histogram(labels, BOUNDS_S.map(bound), times.count(), sum_s);
}

/// What is asked of every process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Process {
    /// In the program and in the kernel for it.
    pub cpu_s: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_fds: u64,
    pub max_fds: u64,
    /// Since 1970.
    pub start_s: f64,
}

impl Process {
    /// Reads what the system tells of this process.
    pub fn read(shared: &Shared) -> Self {
        let usage = sys::rusage();
        let (resident_bytes, virtual_bytes) = sys::memory().unwrap_or_default();
        let (open_fds, max_fds) = sys::open_files();
        let clock = &shared.clock;
        let start_s = clock.unix(clock.now()) - i64::from(clock.uptime_s());
        Process {
            cpu_s: (usage.user + usage.system).as_secs_f64(),
            resident_bytes,
            virtual_bytes,
            open_fds,
            max_fds,
            start_s: start_s as f64,
        }
    }

    fn write(&self, text: &mut Text) {
        text.single(
            "process_cpu_seconds_total",
            Counter,
            "CPU time in all.",
            self.cpu_s,
        );
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory.",
                self.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Address space.",
                self.virtual_bytes,
            ),
            ("process_open_fds", "Descriptors in use.", self.open_fds),
            ("process_max_fds", "Descriptors there may be.", self.max_fds),
        ];
        for (name, help, value) in gauges {
            text.single(name, Gauge, help, value);
        }
        let help = "When the process started, in seconds since 1970.";
        text.single("process_start_time_seconds", Gauge, help, self.start_s);
    }
}
