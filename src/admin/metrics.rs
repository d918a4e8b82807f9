//! `/metrics`: what `stats` says under the names that memcached's dashboards know, and ketch's own under `ketch_`.
//!
//! The names, types and meanings beginning with `memcached_` are those of memcached_exporter 0.16, which reads the same
//! figures over the protocol; [`write`] gives each value as `stats` shows it, digit by digit.

mod families;
mod own;

use std::collections::BTreeMap;

use self::families::{CLASS_ITEMS, CLASS_SLABS, GENERAL, SETTINGS, Single};
use self::own::{OWN, PROXY, RESTART};
use super::figures::{Figures, Group};
use super::insight::Insight;
use super::prometheus::Kind::{Counter, Gauge, Histogram};
use super::prometheus::Text;
use crate::cache::Dropped;
use crate::keyspace::latency::Times;
use crate::state::Shared;
use crate::sys;

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
    restart(&mut text, &figures.restart);
    if figures.proxy.get("backend_total").is_some() {
        singles(&mut text, &figures.proxy, PROXY);
    }
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

/// How the items of the server before came up; nothing without a memory file.
fn restart(text: &mut Text, group: &Group) {
    let Some(how) = group.get("memory_file") else {
        return;
    };
    let help = "How the items of the server before came up.";
    text.family("ketch_restart_info", Gauge, help);
    text.sample(&[("how", how)], 1);
    singles(text, group, RESTART);
    let help = "Items that did not come up, by why.";
    text.family("ketch_restart_items_dropped", Gauge, help);
    for why in Dropped::ALL.map(Dropped::name) {
        let count = group.number(&format!("memory_file_{why}"));
        text.sample(&[("why", why)], count);
    }
    let help = "How long the steps of coming up took.";
    text.family("ketch_restart_step_seconds", Gauge, help);
    for (name, took_s) in group.iter() {
        let step = name.strip_prefix("memory_file_");
        let step = step.and_then(|step| step.strip_suffix("_time"));
        if let Some(step) = step.filter(|&step| step != "down") {
            text.sample(&[("step", step)], took_s);
        }
    }
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
    let help = "Time that requests which had come waited for their turn, of one turn in 128.";
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
    let at_most = times.at_most(BOUNDS_S.map(|bound_s| (bound_s * 1e9) as u64));
    let sum_s = times.sum_ns as f64 / 1e9;
    let buckets = BOUNDS_S.into_iter().zip(at_most);
    text.histogram(labels, buckets, times.count(), sum_s);
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
