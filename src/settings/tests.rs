//! Tables: options and what they change, options and the line that refuses them, files against the command line.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;

use super::conf_file;
use super::extended::{EXTENDED, is_extended};
use super::opt::{Kind, Opt};
use super::options::OPTIONS;
use super::*;
use crate::knobs::{Knob, Knobs};

/// Parses `line`, cut at spaces.
fn start(line: &str) -> Result<Start, String> {
    let args = line.split_whitespace().map(str::to_owned);
    parse(args, &|_| None, None).map_err(|err| err.to_string())
}

fn settings(line: &str) -> Result<Settings, String> {
    match start(line)? {
        Start::Run(settings) => Ok(*settings),
        Start::Print(text) => panic!("{line:?} prints {text:?}"),
    }
}

/// The settings of the words of `line`, which has `|` between them.
fn barred(line: &str) -> Result<Settings, String> {
    let args = line.split('|').map(str::to_owned);
    match parse(args, &|_| None, None).map_err(|err| err.to_string())? {
        Start::Run(settings) => Ok(*settings),
        Start::Print(text) => panic!("{line:?} prints {text:?}"),
    }
}

fn addrs(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|addr| addr.parse().unwrap()).collect()
}

fn listens(line: &str) -> Vec<Vec<SocketAddr>> {
    let listen = settings(line)
        .unwrap_or_else(|err| panic!("{line}: {err}"))
        .listen;
    listen.into_iter().map(|entry| entry.addrs).collect()
}

/// A file of this process and test alone, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn file(name: &str, text: &str) -> Self {
        let name = format!("ketch-settings-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Scratch(path)
    }

    fn option(&self) -> String {
        format!("--config {}", self.0.display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// How an option stands on a command line.
fn written(opt: &Opt, value: &str) -> String {
    match (is_extended(opt), value) {
        (true, "") => format!("-o {}", opt.long),
        (true, _) => format!("-o {}={value}", opt.long),
        (false, "") => format!("--{}", opt.long),
        (false, _) => format!("--{} {value}", opt.long),
    }
}

#[test]
fn each_option_changes_its_setting() {
    type Change = fn(&mut Settings);
    let table: &[(&str, Change)] = &[
        ("", |_| ()),
        ("-A", |s| s.shutdown_command = true),
        ("--enable-shutdown", |s| s.shutdown_command = true),
        ("-U 0", |_| ()),
        ("-U0", |_| ()),
        ("--udp-port=0", |_| ()),
        ("-a 0777", |s| s.unix_mask = 0o777),
        ("--unix-mask=660", |s| s.unix_mask = 0o660),
        ("-d", |s| s.daemon = true),
        ("-r", |s| s.coredumps = true),
        ("-u root", |s| s.user = Some("root".into())),
        ("-u memcache -u nobody", |s| s.user = Some("nobody".into())),
        ("-m 128", |s| s.memory_limit_bytes = 128 << 20),
        ("-m128", |s| s.memory_limit_bytes = 128 << 20),
        ("-m 64 -m 32", |s| s.memory_limit_bytes = 32 << 20),
        ("--memory-limit=262144", |s| {
            s.memory_limit_bytes = 256 << 30
        }),
        ("--memory-limit 1024", |s| s.memory_limit_bytes = 1 << 30),
        ("-M", |s| s.knobs.set(Knob::Evictions, 0)),
        ("-c 1", |s| s.conns_max = 1),
        ("-c1000000", |s| s.conns_max = 1_000_000),
        ("-k", |s| s.lock_memory = true),
        ("-v", |s| s.verbosity = 1),
        ("-vv", |s| s.verbosity = 2),
        ("-vvv", |s| s.verbosity = 3),
        ("-v -v --verbose", |s| s.verbosity = 3),
        ("-vM", |s| {
            s.verbosity = 1;
            s.knobs.set(Knob::Evictions, 0)
        }),
        ("-P /run/x.pid", |s| s.pid_file = Some("/run/x.pid".into())),
        ("-P x.pid", |s| s.pid_file = Some("x.pid".into())),
        ("-e /dev/shm/x", |s| {
            s.memory_file = Some("/dev/shm/x".into())
        }),
        ("--logfile /var/log/x", |s| {
            s.log_file = Some("/var/log/x".into())
        }),
        ("-f 1.3", |s| {
            (s.growth_factor, s.fixed_classes) = (1.3, true)
        }),
        ("-f 2", |s| (s.growth_factor, s.fixed_classes) = (2.0, true)),
        ("-n 100", |s| {
            (s.chunk_bytes_min, s.fixed_classes) = (100, true)
        }),
        ("-L", |s| s.huge_pages = true),
        ("-D /", |s| {
            (s.prefix_delimiter, s.detail_enabled) = (b'/', true)
        }),
        ("-t 256", |s| s.threads = 256),
        ("-R 1", |s| s.reqs_per_event = 1),
        ("-C", |s| s.cas = false),
        ("-b 8675", |s| s.backlog = 8675),
        ("-B auto", |_| ()),
        ("-N 0", |_| ()),
        ("-I 2m", |s| s.item_bytes_max = 2 << 20),
        ("-I 2M", |s| s.item_bytes_max = 2 << 20),
        ("-I 2097152", |s| s.item_bytes_max = 2 << 20),
        ("-I 512k", |s| s.item_bytes_max = 512 << 10),
        ("-m 2048 -I 1024m", |s| {
            (s.memory_limit_bytes, s.item_bytes_max) = (2 << 30, 1 << 30);
        }),
        ("-I 1k", |s| {
            (s.item_bytes_max, s.slab_chunk_bytes_max) = (1 << 10, 1 << 10)
        }),
        ("-m 1 -I 512k", |s| {
            (s.memory_limit_bytes, s.item_bytes_max) = (1 << 20, 512 << 10)
        }),
        ("-F", |s| s.flush_enabled = false),
        ("-X", |s| s.dump_enabled = false),
        ("-W", |s| s.watch_enabled = false),
        ("-o maxconns_fast", |_| ()),
        ("-o no_maxconns_fast", |s| s.maxconns_fast = false),
        ("-o no_maxconns_fast -o maxconns_fast", |_| ()),
        ("-o hashpower=12", |s| s.hashpower_init = 12),
        ("-o hashpower=32", |s| s.hashpower_init = 32),
        ("-o no_hashexpand", |s| s.hash_expand = false),
        ("-o hash_algorithm=jenkins", |s| {
            s.hash_algorithm = "jenkins"
        }),
        ("-o hash_algorithm=xxh3", |s| s.hash_algorithm = "xxh3"),
        ("-o tail_repair_time=10", |s| s.tail_repair_time_s = 10),
        ("-o slab_reassign", |_| ()),
        ("-o no_slab_reassign", |s| {
            s.knobs.set(Knob::SlabReassign, 0)
        }),
        ("-o slab_automove", |_| ()),
        ("-o slab_automove=0", |s| s.knobs.set(Knob::SlabAutomove, 0)),
        ("-o slab_automove=2", |s| s.knobs.set(Knob::SlabAutomove, 2)),
        ("-o no_slab_automove", |s| {
            s.knobs.set(Knob::SlabAutomove, 0)
        }),
        ("-o slab_automove_ratio=0.5", |s| {
            s.knobs.set(Knob::SlabAutomoveRatio, 500)
        }),
        ("-o slab_automove_window=1800", |s| {
            s.knobs.set(Knob::SlabAutomoveWindow, 1800)
        }),
        ("-o slab_automove_freeratio=.02", |s| {
            s.knobs.set(Knob::SlabAutomoveFreeratio, 20)
        }),
        ("-o slab_sizes=100-200-300", |s| {
            s.slab_sizes = vec![100, 200, 300]
        }),
        ("-o slab_chunk_max=16", |s| {
            s.slab_chunk_bytes_max = 16 << 10
        }),
        ("-o slab_chunk_max=1024", |s| {
            s.slab_chunk_bytes_max = 1 << 20
        }),
        ("-o no_chunked_items", |s| s.slab_chunk_bytes_max = 1 << 20),
        ("-o no_chunked_items -I 512k", |s| {
            (s.item_bytes_max, s.slab_chunk_bytes_max) = (512 << 10, 512 << 10);
        }),
        ("-o lru_crawler", |_| ()),
        ("-o no_lru_crawler", |s| s.knobs.set(Knob::LruCrawler, 0)),
        ("-o lru_crawler_sleep=0", |s| {
            s.knobs.set(Knob::LruCrawlerSleep, 0)
        }),
        ("-o lru_crawler_sleep=1000000", |s| {
            s.knobs.set(Knob::LruCrawlerSleep, 1_000_000)
        }),
        ("-o lru_crawler_tocrawl=5", |s| {
            s.knobs.set(Knob::LruCrawlerTocrawl, 5)
        }),
        ("-o lru_maintainer", |_| ()),
        ("-o no_lru_maintainer", |s| {
            s.knobs.set(Knob::LruMaintainer, 0);
            s.knobs.set(Knob::LruSegmented, 0)
        }),
        ("-o hot_lru_pct=1,warm_lru_pct=79", |s| {
            s.knobs.set(Knob::HotLruPct, 1);
            s.knobs.set(Knob::WarmLruPct, 79)
        }),
        ("-o hot_max_factor=0.1", |s| {
            s.knobs.set(Knob::HotMaxFactor, 100)
        }),
        ("-o warm_max_factor=3", |s| {
            s.knobs.set(Knob::WarmMaxFactor, 3000)
        }),
        ("-o temporary_ttl=61", |s| {
            s.knobs.set(Knob::TemporaryTtl, 61)
        }),
        ("-o leave_share=0.5", |s| s.register.leave_share = Some(0.5)),
        ("-o idle_timeout=3", |s| s.idle_timeout_s = 3),
        ("-o body_timeout=5", |s| s.body_timeout_s = 5),
        ("-o body_timeout=0", |s| s.body_timeout_s = 0),
        ("-o watcher_logbuf_size=8", |s| {
            s.watcher_logbuf_bytes = 8 << 10
        }),
        ("-o feed_ring=2", |s| s.feed_ring_bytes = 2 << 20),
        ("-o worker_logbuf_size=16", |s| {
            s.worker_logbuf_bytes = 16 << 10
        }),
        ("-o read_buf_mem_limit=1", |s| {
            s.read_buf_mem_limit_bytes = 1 << 20
        }),
        ("-o track_sizes", |s| s.track_sizes = true),
        ("-o modern", |_| ()),
        ("-o inline_ascii_resp", |_| ()),
        ("-o no_inline_ascii_resp", |_| ()),
        ("-o relaxed_privileges", |_| ()),
        ("-o no_drop_privileges", |_| ()),
        ("-o debugtime", |s| s.debugtime = true),
        (
            "-o track_sizes,idle_timeout=3,no_hashexpand -o debugtime",
            |s| {
                (s.track_sizes, s.idle_timeout_s) = (true, 3);
                (s.hash_expand, s.debugtime) = (false, true);
            },
        ),
        ("-o ,track_sizes,,debugtime,", |s| {
            (s.track_sizes, s.debugtime) = (true, true)
        }),
        ("-o idle_timeout=3,idle_timeout=4", |s| s.idle_timeout_s = 4),
    ];
    for (line, change) in table {
        let mut expected = settings("").unwrap();
        change(&mut expected);
        let mut parsed = settings(line).unwrap_or_else(|err| panic!("{line}: refused: {err}"));
        // What has no effect says so.
        parsed
            .notices
            .retain(|notice| !notice.contains("no effect"));
        assert_eq!(parsed, expected, "{line}");
    }
}

#[test]
fn no_modern_is_a_flat_cache_that_later_options_can_refine() {
    let s = settings("-o no_modern").unwrap();
    for knob in [
        Knob::LruSegmented,
        Knob::LruMaintainer,
        Knob::LruCrawler,
        Knob::SlabReassign,
        Knob::SlabAutomove,
    ] {
        assert_eq!(s.knobs.get(knob), 0, "{knob:?}");
    }
    assert!(!s.maxconns_fast);
    assert_eq!(s.hash_algorithm, "jenkins");
    let s = settings("-o no_modern,lru_crawler,slab_automove=2").unwrap();
    let knob = |knob| s.knobs.get(knob);
    assert_eq!((knob(Knob::LruCrawler), knob(Knob::LruSegmented)), (1, 0));
    assert_eq!(knob(Knob::SlabAutomove), 2);
}

/// Parses words that no splitting at blanks would make.
fn words(words: &[&str]) -> Result<Settings, String> {
    let args = words.iter().map(|word| (*word).to_owned());
    match parse(args, &|_| None, None).map_err(|err| err.to_string())? {
        Start::Run(settings) => Ok(*settings),
        Start::Print(text) => panic!("{words:?} prints {text:?}"),
    }
}

#[test]
fn options_and_values_may_share_a_word() {
    // One word each, and the line that says the same.
    let table: &[(&[&str], &str)] = &[
        (&["-m 8192"], "-m 8192"),
        (&["-m  8192 "], "-m 8192"),
        (&[" -m 8192"], "-m 8192"),
        (&["-m", " 8192"], "-m 8192"),
        (&["-I 5m"], "-I 5m"),
        (&["-o modern"], ""),
        (&["-o modern,track_sizes"], "-o track_sizes"),
        (
            &["-o", "modern, track_sizes , idle_timeout = 5"],
            "-o track_sizes,idle_timeout=5",
        ),
        (&["--extended=modern,track_sizes"], "-o track_sizes"),
        (&["--extended modern,track_sizes"], "-o track_sizes"),
        (&["--memory-limit 64", "-v"], "-m 64 -v"),
        (&["--memory-limit=64", "--threads= 2"], "-m 64 -t 2"),
        (&["-l 127.0.0.1", "-p 7"], "-l 127.0.0.1 -p 7"),
        (&["-vm 65"], "-v -m 65"),
        (&["-m=65", "-vt=2"], "-m 65 -v -t 2"),
        (&["-vvm65"], "-vv -m 65"),
        (&["-Mvm", "65"], "-M -v -m 65"),
        (&["-v ", "-M"], "-v -M"),
        (&["", "-m", "65", " ", ""], "-m 65"),
        (&["-m", "65", "--"], "-m 65"),
        (&["memcached", "-m", "65"], "-m 65"),
        (&["ketch", "-m 65"], "-m 65"),
        // Only one of memcached's names begins so.
        (&["--memory-l", "65"], "-m 65"),
        (&["--con=50"], "-c 50"),
        (&["--lo"], "-k"),
        (&["--thr 2"], "-t 2"),
        (&["--prot=ascii"], "-B ascii"),
        (&["--conf", "/dev/null"], ""),
        (&["--memory_limit=65"], "-m 65"),
        (&["--napi_ids=0"], ""),
    ];
    for (of_words, line) in table {
        let mut expected = settings(line).unwrap();
        if of_words.iter().any(|word| word.contains("-l ")) {
            expected.listen_given = Some("127.0.0.1".to_owned());
        }
        let parsed = words(of_words).unwrap_or_else(|err| panic!("{of_words:?}: {err}"));
        assert_eq!(parsed, expected, "{of_words:?}");
    }
}

/// As Kubernetes, compose files and shells write them: for each option the five forms are one.
#[test]
fn every_option_takes_its_value_in_every_form() {
    for opt in OPTIONS {
        let value = match (opt.long, &opt.kind) {
            (_, Kind::Flag(_) | Kind::NotBuilt { .. }) | ("config" | "extended" | "print", _) => {
                continue;
            }
            ("listen", _) => "127.0.0.1",
            ("slab-growth-factor", _) => "1.5",
            ("slab-min-size", _) => "72",
            ("prefix-delimiter", _) => "/",
            ("unix-mask", _) => "660",
            ("protocol", _) => "ascii",
            ("max-item-size", _) => "2m",
            ("unix-socket" | "pidfile" | "auth-file" | "logfile", _) => "/tmp/x",
            ("log-format", _) => "json",
            ("user", _) => "nobody",
            _ => "100",
        };
        let reference = words(&[&format!("--{}={value}", opt.long)]).unwrap();
        let mut forms = vec![
            vec![format!("--{} {value}", opt.long)],
            vec![format!("--{}", opt.long), value.to_owned()],
        ];
        if !opt.short.is_empty() {
            forms.push(vec![format!("-{} {value}", opt.short)]);
            forms.push(vec![format!("-{}{value}", opt.short)]);
            forms.push(vec![format!("-{}", opt.short), value.to_owned()]);
            forms.push(vec![format!("-Mv{} {value}", opt.short)]);
        }
        for form in &forms {
            let form: Vec<_> = form.iter().map(String::as_str).collect();
            let mut parsed = words(&form).unwrap_or_else(|err| panic!("{form:?}: {err}"));
            if form[0].starts_with("-Mv") {
                parsed.knobs = Knobs::default();
                parsed.verbosity = 0;
            }
            // These name the words that were written.
            parsed.notices.clone_from(&reference.notices);
            assert_eq!(parsed, reference, "{form:?}");
        }
    }
}

#[test]
fn sizes_have_units() {
    type Get = fn(&Settings) -> usize;
    type Row = (&'static str, Get, &'static [(&'static str, usize)]);
    const K: usize = 1 << 10;
    let table: &[Row] = &[
        (
            "-m ",
            |s| s.memory_limit_bytes,
            &[
                ("64", 64 * K * K),
                ("64m", 64 * K * K),
                ("256M", 256 * K * K),
                ("1g", K * K * K),
                ("1G", K * K * K),
                ("65536k", 64 * K * K),
                ("2GB", 2 * K * K * K),
                ("512Mi", 512 * K * K),
                ("512MiB", 512 * K * K),
            ],
        ),
        (
            "-c ",
            |s| s.conns_max,
            &[("100", 100), ("100k", 100_000), ("1M", 1_000_000)],
        ),
        (
            "-I ",
            |s| s.item_bytes_max,
            &[("2m", 2 * K * K), ("512K", 512 * K), ("4096", 4096)],
        ),
        ("-n ", |s| s.chunk_bytes_min, &[("1k", K), ("72", 72)]),
        ("-b ", |s| s.backlog as usize, &[("4k", 4000), ("0", 0)]),
        (
            "-o slab_chunk_max=",
            |s| s.slab_chunk_bytes_max,
            &[("16", 16 * K), ("512k", 512 * K), ("1m", K * K)],
        ),
        (
            "-o watcher_logbuf_size=",
            |s| s.watcher_logbuf_bytes,
            &[("8", 8 * K), ("1m", K * K)],
        ),
        (
            "-o feed_ring=",
            |s| s.feed_ring_bytes,
            &[("8", 8 * K * K), ("1g", K * K * K)],
        ),
        (
            "-o worker_logbuf_size=",
            |s| s.worker_logbuf_bytes,
            &[("8", 8 * K), ("1M", K * K)],
        ),
        (
            "-o read_buf_mem_limit=",
            |s| s.read_buf_mem_limit_bytes,
            &[("8", 8 * K * K), ("1g", K * K * K)],
        ),
        (
            "-o lru_crawler_tocrawl=",
            |s| s.knobs.get(Knob::LruCrawlerTocrawl) as usize,
            &[("8", 8), ("10k", 10_000)],
        ),
        (
            "-o ssl_wbuf_size=",
            |s| s.tls.wbuf_bytes,
            &[("8", 8 * K), ("64k", 64 * K)],
        ),
    ];
    for (option, get, values) in table {
        for (value, expected) in *values {
            let line = format!("{option}{value}");
            match settings(&line) {
                Ok(parsed) => assert_eq!(get(&parsed), *expected, "{line}"),
                Err(err) => assert!(*expected == 0, "{err}"),
            }
        }
    }
    assert_eq!(
        settings("-o slab_sizes=96-1k-16k").unwrap().slab_sizes,
        [96, 1024, 16384]
    );
}

#[test]
fn likely_slips_are_named() {
    let table: &[(&[&str], &str)] = &[
        (
            &["-m 64 -c 100"],
            "-m 64 -c 100: memory limit must be 1 to 262144 MB, or a number with k, m or g behind it; \
             each option must be a word of its own",
        ),
        (&["-d -v"], "-d -v: each option must be a word of its own"),
        (&["-v 2"], "-v 2: -v takes no value"),
        (&["-v=2"], "-v=2: -v takes no value"),
        (&["-M64"], "-M64: -M takes no value"),
        (
            &["-l", "127.0.0.1", "127.0.0.2"],
            "127.0.0.2: not an option; addresses have commas between them",
        ),
        (
            &["-o modern track_sizes"],
            "-o modern track_sizes: unknown option; options have commas between them",
        ),
        (&["-d", "now"], "now: not an option; -d takes no value"),
        (
            &["-t", "-c", "100"],
            "100: not an option; -c stands where a value should",
        ),
        (
            &["-t", "-v"],
            "-t -v: threads must be 1 to 256; the next option stands where the value should",
        ),
        (
            &["-memory-limit=64"],
            "-memory-limit=64: unknown option; did you mean --memory-limit?",
        ),
        (
            &["-port", "7"],
            "-port: unknown option; did you mean --port?",
        ),
        (
            &["--memroy-limit=64"],
            "--memroy-limit=64: unknown option; did you mean --memory-limit?",
        ),
        (
            &["--track_sizes"],
            "--track_sizes: unknown option; did you mean -o track_sizes?",
        ),
        (
            &["--mem", "64"],
            "--mem: cut too short: --memory-limit or --memory-file",
        ),
        (
            &["-o", "modren"],
            "-o modren: unknown option; did you mean -o modern?",
        ),
        (
            &["-o", "conn-limit=5"],
            "-o conn-limit=5: unknown option; did you mean --conn-limit?",
        ),
        (
            &["-o", "modern,", "track_sizes"],
            "track_sizes: not an option; a blank after a comma?",
        ),
        (
            &["-l", "127.0.0.1,", "::1"],
            "::1: not an option; a blank after a comma?",
        ),
        (
            &["modern"],
            "modern: not an option; did you mean -o modern?",
        ),
        (
            &["\u{2013}m", "64"],
            "\u{2013}m: not an option; it begins with another sign than -",
        ),
        (
            &["-T", "4"],
            "-T: unknown option; did you mean -t (threads)?",
        ),
        (
            &["-m", "64", "--", "-v", "x"],
            "x: not an option; -v takes no value",
        ),
    ];
    for (line, expected) in table {
        assert_eq!(words(line).err().as_deref(), Some(*expected), "{line:?}");
    }
}

#[test]
fn what_has_no_effect_says_so_and_starts() {
    for (line, label) in [
        ("-o resp_obj_mem_limit=5", "-o resp_obj_mem_limit=5"),
        ("-o resp_obj_mem_limit=-5", "-o resp_obj_mem_limit=-5"),
        ("-o resp_obj_mem_limit=lots", "-o resp_obj_mem_limit=lots"),
        ("-o resp_obj_mem_limit", "-o resp_obj_mem_limit"),
        ("-o ssl_kernel_tls,", "-o ssl_kernel_tls"),
        ("-o drop_privileges", "-o drop_privileges"),
        ("-o sock_cookie_id=3", "-o sock_cookie_id=3"),
        ("-N 2", "-N 2"),
        ("--napi-ids=8", "--napi-ids=8"),
    ] {
        let notices = settings(line).unwrap_or_else(|err| panic!("{err}")).notices;
        let [notice] = &notices[..] else {
            panic!("{line}: {notices:?}")
        };
        let told = format!("{label}: accepted, no effect: ");
        assert!(notice.starts_with(&told), "{notice}");
    }
    // What "stats settings" shows and nothing else does.
    for (given, why) in [
        ("tail_repair_time=20", "no item is stuck"),
        ("slab_automove_window=20", "pages move by"),
        ("slab_automove_freeratio=0.02", "pages are freed when"),
        ("lru_crawler_tocrawl=7", "the crawler looks at all"),
        ("read_buf_mem_limit=9", "the connections of"),
    ] {
        let notices = settings(&format!("-o {given}")).unwrap().notices;
        let told = format!("-o {given}: told in \"stats settings\", no effect: {why}");
        assert!(
            notices.len() == 1 && notices[0].starts_with(&told),
            "{notices:?}"
        );
    }
    let built =
        "-o slab_automove=2,slab_automove_ratio=0.5,lru_crawler_sleep=9,lru_crawler_tocrawl=0";
    assert!(settings(built).unwrap().notices.is_empty());
    assert!(
        settings("-N 0 -o resp_obj_mem_limit=0")
            .unwrap()
            .notices
            .is_empty()
    );
    let notices = settings("-o drop_privileges=1").unwrap().notices;
    assert!(
        notices[0].starts_with("-o drop_privileges=1: accepted, no effect"),
        "{notices:?}"
    );
}

/// What memcached starts with, and means less than it says: it starts here too, and the log tells what it means.
#[test]
fn what_says_more_than_it_means_starts_with_a_notice() {
    type Holds = fn(&Settings) -> bool;
    let table: &[(&str, Holds, &str)] = &[
        (
            "-o modern=1",
            |s| s.knobs.get(Knob::SlabReassign) == 1,
            "-o modern=1: takes no value",
        ),
        (
            "-o slab_reassign=0",
            |s| s.knobs.get(Knob::SlabReassign) == 1,
            "-o slab_reassign=0: takes no value",
        ),
        (
            "-o ssl_session_cache=1",
            |s| s.tls.session_cache,
            "-o ssl_session_cache=1: takes no value",
        ),
        (
            "--verbose=2",
            |s| s.verbosity == 1,
            "--verbose=2: takes no value",
        ),
        (
            "-D ab",
            |s| s.prefix_delimiter == b'a' && s.detail_enabled,
            "-D ab: one byte ends a prefix, so a does",
        ),
        (
            "-D \u{e4}",
            |s| s.prefix_delimiter == 0xc3 && s.detail_enabled,
            "-D \u{e4}: one byte ends a prefix, so \\xc3 does",
        ),
        (
            "-n 1048576",
            |s| s.chunk_bytes_min == 1 << 20 && s.fixed_classes,
            "-n 1048576: chunks have 524288 bytes at most, so all have them",
        ),
        (
            "-n 65537 -o slab_chunk_max=32",
            |s| s.chunk_bytes_min == 65537 && s.slab_chunk_bytes_max == 32 << 10,
            "-n 65537: chunks have 32768 bytes at most, so all have them",
        ),
        (
            "-o ssl_min_version=0",
            |s| s.tls.min_version == TlsVersion::V1_2,
            "-o ssl_min_version: TLS 1.2 is the oldest",
        ),
        (
            "-o ssl_min_version=1",
            |s| s.tls.min_version == TlsVersion::V1_2,
            "-o ssl_min_version: TLS 1.2 is the oldest",
        ),
    ];
    for (line, holds, notice) in table {
        let settings = settings(line).unwrap_or_else(|err| panic!("{line}: {err}"));
        assert!(holds(&settings), "{line}");
        let told = settings.notices.iter().any(|told| told.starts_with(notice));
        assert!(told, "{line}: {:?}", settings.notices);
    }
}

/// memcached passes over an address that an earlier `-l` has.
#[test]
fn an_address_that_is_given_again_is_listened_on_once() {
    for (line, count) in [
        ("-l 127.0.0.1 -l 127.0.0.1", 1),
        ("-l 127.0.0.1,127.0.0.1", 1),
        ("-l 127.0.0.1,::1 -l ::1 -l 127.0.0.2", 3),
        ("-l 127.0.0.10 -l 127.0.0.1", 2),
        ("-l 127.0.0.1 -l 127.0.0.1;::1", 2),
        ("-l 127.0.0.1 -l 127.0.0.1:11212", 2),
    ] {
        assert_eq!(settings(line).unwrap().listen.len(), count, "{line}");
    }
}

/// memcached reads the number that a value begins with: what it starts with starts here, and is the same number.
#[test]
fn what_follows_a_number_is_read_over_with_a_notice() {
    type Holds = fn(&Settings) -> bool;
    let table: &[(&str, Holds, &str)] = &[
        ("-m|64x", |s| s.memory_limit_bytes == 64 << 20, "64"),
        ("-m|64 x", |s| s.memory_limit_bytes == 64 << 20, "64"),
        (
            "--memory-limit=64%",
            |s| s.memory_limit_bytes == 64 << 20,
            "64",
        ),
        ("-c|1024,5", |s| s.conns_max == 1024, "1024"),
        ("-t|4x", |s| s.threads == 4, "4"),
        ("-t|1.5", |s| s.threads == 1, "1"),
        ("-p|11212;", |s| s.tcp_port == 11212, "11212"),
        ("-p|+7", |s| s.tcp_port == 7, ""),
        ("-U|off", |s| s.udp_port == 0, "0"),
        ("-a|888", |s| s.unix_mask == 0, "0"),
        ("-a|0666x", |s| s.unix_mask == 0o666, "0666"),
        ("-a|1777", |s| s.unix_mask == 0o777, ""),
        ("-b|-2", |s| s.backlog == i32::MAX, ""),
        ("-f|1.25x", |s| s.growth_factor == 1.25, "1.25"),
        ("-f|1000", |s| s.growth_factor == 1000.0, ""),
        ("-n|48b", |s| s.chunk_bytes_min == 48, "48"),
        ("-n|300000", |s| s.slab_chunk_bytes_max == 1 << 19, ""),
        ("-I|1048576x", |s| s.item_bytes_max == 1 << 20, "1048576"),
        ("-R|20/s", |s| s.reqs_per_event == 20, "20"),
        ("-o|hashpower=20x", |s| s.hashpower_init == 20, "20"),
        ("-o|idle_timeout=60s", |s| s.idle_timeout_s == 60, "60"),
        ("-o|idle_timeout=-5", |s| s.idle_timeout_s == 0, ""),
        ("-I|+2m", |s| s.item_bytes_max == 2 << 20, ""),
        (
            "-o|slab_chunk_max=+16",
            |s| s.slab_chunk_bytes_max == 16 << 10,
            "",
        ),
        (
            "-o|slab_chunk_max=16 x",
            |s| s.slab_chunk_bytes_max == 16 << 10,
            "16",
        ),
        ("-o|ssl_verify_mode=1 x", |s| s.tls.verify_mode == 1, "1"),
        ("-o|ssl_keyformat=+1", |_| true, ""),
        ("-o|idle_timeout=-1", |s| s.idle_timeout_s == 0, ""),
        (
            "-o|temporary_ttl=-1",
            |s| s.knobs.get(Knob::TemporaryTtl) == 0,
            "",
        ),
        (
            "-o|temporary_ttl=60s",
            |s| s.knobs.get(Knob::TemporaryTtl) == 60,
            "60",
        ),
        (
            "-o|slab_automove=off",
            |s| s.knobs.get(Knob::SlabAutomove) == 0,
            "0",
        ),
        (
            "-o|slab_automove_ratio=1",
            |s| s.knobs.get(Knob::SlabAutomoveRatio) == 1000,
            "",
        ),
        (
            "-o|slab_automove_freeratio=0",
            |s| s.knobs.get(Knob::SlabAutomoveFreeratio) == 0,
            "",
        ),
        (
            "-o|hot_max_factor=0.5x",
            |s| s.knobs.get(Knob::HotMaxFactor) == 500,
            "0.5",
        ),
        ("-o|ssl_wbuf_size=0", |s| s.tls.wbuf_bytes == 1 << 10, ""),
        ("-o|ssl_wbuf_size=4096", |s| s.tls.wbuf_bytes == 1 << 20, ""),
    ];
    for (line, holds, number) in table {
        let settings = barred(line).unwrap_or_else(|err| panic!("{line}: {err}"));
        assert!(holds(&settings), "{line}");
        let read_as = format!("read as {number}, as memcached reads it");
        let told = settings.notices.iter().any(|told| told.contains(&read_as));
        assert_eq!(told, !number.is_empty(), "{line}: {:?}", settings.notices);
    }
}

/// A comma belongs to the value that was read over, but for the one that ends an option in a list.
#[test]
fn what_is_told_of_a_value_names_it_as_it_was_written() {
    for (line, told) in [
        ("-m|64,", "-m 64,: read as 64, as memcached reads it"),
        ("-m64,", "-m64,: read as 64, as memcached reads it"),
        (
            "--conn-limit=1024,",
            "--conn-limit=1024,: read as 1024, as memcached reads it",
        ),
        ("-f|1.25,", "-f 1.25,: read as 1.25, as memcached reads it"),
        ("-N|2,", "-N 2,: accepted, no effect"),
        (
            "-o|idle_timeout=60x,",
            "-o idle_timeout=60x: read as 60, as memcached reads it",
        ),
        (
            "-o|track_sizes=1,,modern",
            "-o track_sizes=1: takes no value",
        ),
        ("-o|ssl_key=,", "-o ssl_key=: an empty value"),
    ] {
        let notices = barred(line)
            .unwrap_or_else(|err| panic!("{line}: {err}"))
            .notices;
        assert!(
            notices.len() == 1 && notices[0].starts_with(told),
            "{line}: {notices:?}"
        );
    }
}

/// Numbers as people write them.
#[test]
fn numbers_may_have_blanks_fractions_and_signs() {
    type Holds = fn(&Settings) -> bool;
    let table: &[(&str, Holds)] = &[
        ("-m|64 MB", |s| s.memory_limit_bytes == 64 << 20),
        ("-m|64.0", |s| s.memory_limit_bytes == 64 << 20),
        ("-m|1.5g", |s| s.memory_limit_bytes == 1536 << 20),
        ("-I|0.5m", |s| s.item_bytes_max == 512 << 10),
        ("-c|2.5k", |s| s.conns_max == 2500),
        ("-b|-1", |s| s.backlog == i32::MAX),
        ("-o|hot_lru_pct=25%", |s| s.knobs.get(Knob::HotLruPct) == 25),
        ("-o|watcher_logbuf_size=0", |s| s.watcher_logbuf_bytes == 0),
        ("-I|2m|-o|no_chunked_items", |s| {
            s.slab_chunk_bytes_max == 1 << 20 && s.item_bytes_max == 2 << 20
        }),
    ];
    for (line, holds) in table {
        let settings = barred(line).unwrap_or_else(|err| panic!("{line}: {err}"));
        assert!(holds(&settings), "{line}");
    }
    for value in [
        "1.5", "1..5g", ".g", "1.g", "1.5.5g", "-0.5g", "1,5g", "1.5gg", "inf", "NaN",
    ] {
        assert!(barred(&format!("-I|{value}")).is_err(), "-I {value}");
    }
}

#[test]
fn without_l_a_container_listens_on_all_addresses() {
    let listens = |line: &str, variable: Option<&str>, container| {
        let env = |name: &str| {
            variable
                .filter(|_| name == "KETCH_LISTEN")
                .map(str::to_owned)
        };
        let args = line.split_whitespace().map(str::to_owned);
        match parse(args, &env, container) {
            Ok(Start::Run(s)) => s
                .listen
                .iter()
                .flat_map(|one| one.addrs.clone())
                .collect::<Vec<_>>(),
            other => panic!("{line}: {other:?}"),
        }
    };
    let loopback = addrs(&["127.0.0.1:11211", "[::1]:11211"]);
    let all = addrs(&["0.0.0.0:11211", "[::]:11211"]);
    let own = addrs(&["10.0.0.1:11211"]);
    let engine = Some("/.dockerenv");
    assert_eq!(listens("", None, None), loopback);
    assert_eq!(listens("", None, engine), all);
    assert_eq!(listens("-l 10.0.0.1", None, engine), own);
    for container in [None, engine] {
        assert_eq!(listens("", Some("10.0.0.1"), container), own);
        assert_eq!(listens("-l 10.0.0.1", Some("*"), container), own);
        assert_eq!(listens("", Some("0.0.0.0;::"), container), all);
    }
    assert_eq!(listens("", Some(""), None), loopback);
    assert_eq!(listens("-p 0", None, engine), []);

    let env = |_: &str| Some("nowhere:x".to_owned());
    let err = parse(std::iter::empty(), &env, None).unwrap_err();
    assert_eq!(
        err.to_string(),
        "KETCH_LISTEN=nowhere:x: port must be 0 to 65535"
    );
}

#[test]
fn listens_on_loopback_unless_told_where() {
    let table: &[(&str, &[&[&str]])] = &[
        ("", &[&["127.0.0.1:11211", "[::1]:11211"]]),
        ("-p 11300", &[&["127.0.0.1:11300", "[::1]:11300"]]),
        ("-p11300 -U0", &[&["127.0.0.1:11300", "[::1]:11300"]]),
        ("--port=11300", &[&["127.0.0.1:11300", "[::1]:11300"]]),
        ("-p -1", &[&["127.0.0.1:0", "[::1]:0"]]),
        ("-p 0", &[]),
        ("-p 0 -l 127.0.0.1", &[]),
        ("-s /tmp/x", &[]),
        ("-s /tmp/x -l 127.0.0.1 -p 11300", &[]),
        ("-l 10.0.0.1", &[&["10.0.0.1:11211"]]),
        ("-l 10.0.0.1 -p 11300", &[&["10.0.0.1:11300"]]),
        ("-l 10.0.0.1:11400 -p 11300", &[&["10.0.0.1:11400"]]),
        ("-l 10.0.0.1:0", &[&["10.0.0.1:0"]]),
        (
            "-l 10.0.0.1,10.0.0.2:1",
            &[&["10.0.0.1:11211"], &["10.0.0.2:1"]],
        ),
        (
            "-l 10.0.0.1;10.0.0.2:1,",
            &[&["10.0.0.1:11211"], &["10.0.0.2:1"]],
        ),
        (
            "-l 10.0.0.1, -l 10.0.0.2",
            &[&["10.0.0.1:11211"], &["10.0.0.2:11211"]],
        ),
        ("-l ::1", &[&["[::1]:11211"]]),
        ("-l [::1]", &[&["[::1]:11211"]]),
        ("-l [::1]:11400", &[&["[::1]:11400"]]),
        ("-l fe80::1:2", &[&["[fe80::1:2]:11211"]]),
        ("-l 0.0.0.0", &[&["0.0.0.0:11211"]]),
        ("-l ::", &[&["[::]:11211"]]),
        ("-l *", &[&["0.0.0.0:11211", "[::]:11211"]]),
        ("-l notls:10.0.0.1:1", &[&["10.0.0.1:1"]]),
    ];
    for (line, expected) in table {
        let expected: Vec<_> = expected.iter().map(|list| addrs(list)).collect();
        assert_eq!(listens(line), expected, "{line}");
    }
    assert!(
        listens("-l localhost:7")[0]
            .iter()
            .all(|a| a.ip().is_loopback() && a.port() == 7)
    );
}

#[test]
fn a_listener_speaks_tls_as_its_entry_or_the_server_says() {
    let tls = |line: &str| {
        let s = settings(line).unwrap_or_else(|err| panic!("{line}: {err}"));
        s.listen.iter().map(|l| l.tls).collect::<Vec<_>>()
    };
    let (ignored, optional, required) = (
        Some(ClientCert::Ignored),
        Some(ClientCert::Optional),
        Some(ClientCert::Required),
    );
    assert_eq!(tls("-l 127.0.0.1,notls:127.0.0.2"), [None, None]);
    for (options, default) in [
        ("-Z -o ssl_chain_cert=x,ssl_key=y", ignored),
        ("-o ssl_chain_cert=x --enable-ssl", ignored),
        (
            "-Z -o ssl_chain_cert=x,ssl_ca_cert=z,ssl_verify_mode=1",
            optional,
        ),
        (
            "-Z -o ssl_chain_cert=x,ssl_ca_cert=z,ssl_verify_mode=2",
            required,
        ),
        (
            "-Z -o ssl_chain_cert=x,ssl_ca_cert=z,ssl_verify_mode=3",
            required,
        ),
    ] {
        assert_eq!(tls(options), [default]);
        let line = "-l notls:127.0.0.1,127.0.0.2,tag[x]:btls:127.0.0.3";
        assert_eq!(tls(&format!("{options} {line}")), [None, default, ignored]);
    }
    let line = "-Z -o ssl_chain_cert=x,ssl_ca_cert=z -l mtls:127.0.0.1:1,127.0.0.1:2";
    assert_eq!(tls(line), [required, ignored]);
}

#[test]
fn tls_options_without_tls_leave_a_notice() {
    let notices = |line: &str| settings(line).unwrap().notices;
    assert!(notices("-Z -o ssl_chain_cert=x").is_empty());
    assert!(notices("-o ssl_chain_cert=x,ssl_key=y")[0].contains("without -Z"));
    assert!(notices("-Z -o ssl_chain_cert=x -s /tmp/x")[0].contains("unix socket"));
    for (line, told) in [
        ("-o ssl_verify_mode=1", "who shows one is refused"),
        ("-o ssl_verify_mode=2", "nobody can connect"),
        ("-o ssl_verify_mode=3", "nobody can connect"),
        ("-l mtls:127.0.0.1", "nobody can connect"),
    ] {
        let told_of = notices(&format!("-Z -o ssl_chain_cert=x {line}"));
        assert!(told_of[0].contains(told), "{line}: {told_of:?}");
        assert_eq!(
            notices(&format!("-Z -o ssl_chain_cert=x,ssl_ca_cert=y {line}")),
            [""; 0]
        );
    }
}

#[test]
fn a_listen_entry_names_its_protocol_and_tag() {
    let s = settings("-l proto[ascii]:tag[in]:127.0.0.1:1,tag[x]:notls:[::1]:2,127.0.0.2").unwrap();
    let told: Vec<_> = s
        .listen
        .iter()
        .map(|l| (l.protocol, l.tag.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (WireProtocol::Ascii, Some("in")),
            (WireProtocol::Auto, Some("x")),
            (WireProtocol::Auto, None)
        ]
    );
    let s = settings("-B ascii -l proto[auto]:127.0.0.1 -l 127.0.0.2").unwrap();
    assert_eq!(s.protocol, WireProtocol::Ascii);
    assert_eq!(s.listen[0].protocol, WireProtocol::Auto);
    assert_eq!(s.listen[1].protocol, WireProtocol::Ascii);
    let s = settings("-B binary -l proto[ascii]:127.0.0.1,127.0.0.2").unwrap();
    assert_eq!(s.protocol, WireProtocol::Binary);
    assert_eq!(s.listen[0].protocol, WireProtocol::Ascii);
    assert_eq!(s.listen[1].protocol, WireProtocol::Binary);
}

#[test]
fn what_was_given_is_kept_for_stats() {
    assert_eq!(settings("").unwrap().listen_given, None);
    let s = settings("-l 127.0.0.1 -l ::1,localhost -p -1").unwrap();
    assert_eq!(s.listen_given.as_deref(), Some("127.0.0.1,::1,localhost"));
    assert_eq!(s.tcp_port, -1);
    assert_eq!(
        settings("-s /tmp/x").unwrap().unix_socket,
        Some("/tmp/x".into())
    );
}

#[test]
fn udp_listens_where_tcp_does_and_moves_it_along() {
    let ports = |listen: &[Listen]| -> Vec<u16> {
        let addrs = listen.iter().flat_map(|listen| &listen.addrs);
        addrs.map(|addr| addr.port()).collect()
    };
    let table: &[(&str, &[u16], &[u16])] = &[
        ("", &[11211, 11211], &[]),
        ("-U 0", &[11211, 11211], &[]),
        ("-U 7", &[7, 7], &[7, 7]),
        ("-U 7 -p 8", &[8, 8], &[7, 7]),
        ("-U 7 -p 0", &[], &[7, 7]),
        ("-U 0 -p 8", &[8, 8], &[]),
        ("-p 8", &[8, 8], &[]),
        ("-U -1", &[0, 0], &[0, 0]),
        ("-U -1 -p 8", &[8, 8], &[0, 0]),
        ("-U 7 -U 0", &[11211, 11211], &[]),
        ("-U 7 -l 127.0.0.1", &[7], &[7]),
        ("-U 7 -p 8 -l 127.0.0.1,[::1]:9", &[8, 9], &[7, 9]),
        ("-U 7 -s /tmp/x", &[], &[]),
    ];
    for (line, tcp, udp) in table {
        let s = settings(line).unwrap();
        assert_eq!(ports(&s.listen), *tcp, "{line}");
        assert_eq!(ports(&s.udp_listen), *udp, "{line}");
    }
    let s = settings("-U 7").unwrap();
    assert_eq!((s.tcp_port, s.udp_port), (7, 7));
    assert!(
        s.udp_listen[0]
            .addrs
            .iter()
            .all(|addr| addr.ip().is_loopback())
    );
}

#[test]
fn each_refusal_is_one_line_with_option_value_and_range() {
    let table = &[
        ("-t 0", "-t 0: threads must be 1 to 256"),
        ("--threads=257", "--threads=257: threads must be 1 to 256"),
        ("-t four", "-t four: threads must be 1 to 256"),
        (
            "-c 0",
            "-c 0: connections must be 1 to 16777216, or a number with k, m or g behind it",
        ),
        (
            "-c -1",
            "-c -1: connections must be 1 to 16777216, or a number with k, m or g behind it",
        ),
        ("-p -2", "-p -2: port must be -1 to 65535"),
        ("-p 65536", "-p 65536: port must be -1 to 65535"),
        ("-U 65536", "-U 65536: UDP port must be -1 to 65535"),
        ("-U -2", "-U -2: UDP port must be -1 to 65535"),
        (
            "-Y /x -U 1",
            "-U 1: there is no login over UDP: -U must be 0 with -S or -Y",
        ),
        (
            "-U 1 -S",
            "-U 1: there is no login over UDP: -U must be 0 with -S or -Y",
        ),
        (
            "-m 0",
            "-m 0: memory limit must be 1 to 262144 MB, or a number with k, m or g behind it",
        ),
        (
            "-m 262145",
            "-m 262145: memory limit must be 1 to 262144 MB, or a number with k, m or g behind it",
        ),
        (
            "-m 1",
            "-m 1: memory limit must be at least twice the item size, -I 1024k",
        ),
        ("-f 1", "-f 1: growth factor must be above 1"),
        ("-f NaN", "-f NaN: growth factor must be above 1"),
        ("-f inf", "-f inf: growth factor must be above 1"),
        (
            "-n 0",
            "-n 0: chunk size must be 1 to 1073741824 bytes, or a number with k, m or g behind it",
        ),
        (
            "-I 1000",
            "-I 1000: item size must be 1k to 1024m: bytes, or a number with k, m or g behind it",
        ),
        (
            "-I 1025m",
            "-I 1025m: item size must be 1k to 1024m: bytes, or a number with k, m or g behind it",
        ),
        (
            "-I 2g",
            "-I 2g: item size must be 1k to 1024m: bytes, or a number with k, m or g behind it",
        ),
        (
            "-I k",
            "-I k: item size must be 1k to 1024m: bytes, or a number with k, m or g behind it",
        ),
        (
            "-I 18446744073709551615m",
            "-I 18446744073709551615m: item size must be 1k to 1024m: bytes, or a number with k, m or g behind it",
        ),
        (
            "-I 256m",
            "-I 256m: item size must be at most half of the memory limit, -m 64",
        ),
        (
            "-I 256m -m 64",
            "-I 256m: item size must be at most half of the memory limit, -m 64",
        ),
        (
            "-R 0",
            "-R 0: requests per event must be 1 to 2147483647, or a number with k, m or g behind it",
        ),
        ("-B http", "-B http: protocol must be ascii, binary or auto"),
        (
            "-S -B ascii",
            "-S: this login is for one protocol alone: -B must be binary",
        ),
        (
            "-S -B auto",
            "-S: this login is for one protocol alone: -B must be binary",
        ),
        (
            "-S -l proto[ascii]:127.0.0.1",
            "-l proto[ascii]:127.0.0.1: with -S or -Y the protocol must be that of the login, binary",
        ),
        (
            "-Y /etc/auth -B auto",
            "-Y /etc/auth: this login is for one protocol alone: -B must be ascii",
        ),
        (
            "-B binary -Y /etc/auth",
            "-Y /etc/auth: this login is for one protocol alone: -B must be ascii",
        ),
        (
            "-Y /etc/auth -l 127.0.0.1 -l proto[auto]:127.0.0.2",
            "-l proto[auto]:127.0.0.2: with -S or -Y the protocol must be that of the login, ascii",
        ),
        (
            "-Z",
            "-Z: needs -o ssl_chain_cert=FILE, and ssl_key=FILE if the key is not in it",
        ),
        (
            "-Z -o ssl_key=x",
            "-Z: needs -o ssl_chain_cert=FILE, and ssl_key=FILE if the key is not in it",
        ),
        (
            "-o ssl_chain_cert",
            "-o ssl_chain_cert: certificate file must not be empty",
        ),
        (
            "-o ssl_keyformat=2",
            "-o ssl_keyformat=2: ssl_keyformat must be PEM (or 1); convert the key: openssl pkey -inform DER -in KEY -out NEW",
        ),
        (
            "-o ssl_verify_mode=4",
            "-o ssl_verify_mode=4: ssl_verify_mode must be 0 to 3",
        ),
        (
            "-o ssl_min_version=4",
            "-o ssl_min_version=4: ssl_min_version must be 0 to 3",
        ),
        (
            "-o ssl_ciphers",
            "-o ssl_ciphers: cipher list must not be empty",
        ),
        (
            "-o ext_path=x:1g",
            "-o ext_path=x:1g: not built yet: external storage",
        ),
        (
            "-o proxy_arg=x",
            "-o proxy_arg=x: not built yet: a proxy that runs Lua",
        ),
        (
            "-o proxy_config=x -U 11211",
            "-U 11211: UDP must be off, -U 0, with -o proxy_config",
        ),
        (
            "-o eviction=mru",
            "-o eviction=mru: eviction must be one of s3fifo, slru, lru, lfu, fifo, random, ttl",
        ),
        ("-o foo", "-o foo: unknown option"),
        ("-o foo=1", "-o foo=1: unknown option"),
        ("-o track_sizes,foo", "-o foo: unknown option"),
        (
            "-o hashpower=11",
            "-o hashpower=11: hashpower must be 12 to 32",
        ),
        (
            "-o hashpower=33",
            "-o hashpower=33: hashpower must be 12 to 32",
        ),
        ("-o hashpower", "-o hashpower: hashpower must be 12 to 32"),
        (
            "-o hashpower=x",
            "-o hashpower=x: hashpower must be 12 to 32",
        ),
        (
            "-o slab_automove_freeratio=0.5x",
            "-o slab_automove_freeratio=0.5x: slab_automove_freeratio must be a number from 0 on",
        ),
        (
            "-o hash_algorithm=md5",
            "-o hash_algorithm=md5: hash_algorithm must be jenkins, murmur3 or xxh3",
        ),
        (
            "-o tail_repair_time=9",
            "-o tail_repair_time=9: tail_repair_time must be 10 to 2147483647 seconds, or 0 for never",
        ),
        (
            "-o slab_automove=3",
            "-o slab_automove=3: slab_automove must be 0 to 2",
        ),
        (
            "-o slab_automove_ratio=1.1",
            "-o slab_automove_ratio=1.1: slab_automove_ratio must be above 0 and at most 1",
        ),
        (
            "-o slab_automove_window=2",
            "-o slab_automove_window=2: slab_automove_window must be 3 to 1800",
        ),
        (
            "-o slab_chunk_max=1025",
            "-o slab_chunk_max=1025: slab_chunk_max must be 1 to 1024 KB, or a number with k, m or g behind it",
        ),
        (
            "-I 16k -o slab_chunk_max=32",
            "-o slab_chunk_max=32: slab_chunk_max must be at most the item size, -I 16k",
        ),
        (
            "-o slab_sizes=100-104",
            "-o slab_sizes=100-104: slab sizes must be 1 to 62 ascending numbers of bytes, 8 apart, \
             as in 96-144-200",
        ),
        (
            "-o slab_sizes=20-100",
            "-o slab_sizes=20-100: slab sizes must be 48 to 32768 bytes",
        ),
        (
            "-o slab_sizes=100-500000",
            "-o slab_sizes=100-500000: slab sizes must be 48 to 32768 bytes",
        ),
        (
            "-o lru_crawler_sleep=1000001",
            "-o lru_crawler_sleep=1000001: lru_crawler_sleep must be 0 to 1000000 microseconds",
        ),
        (
            "-o hot_lru_pct=80",
            "-o hot_lru_pct=80: hot_lru_pct must be 1 to 79 percent",
        ),
        (
            "-o hot_lru_pct=50",
            "-o hot_lru_pct=50: hot_lru_pct and warm_lru_pct must not exceed 80 together",
        ),
        (
            "-o hot_lru_pct=40,warm_lru_pct=41",
            "-o warm_lru_pct=41: hot_lru_pct and warm_lru_pct must not exceed 80 together",
        ),
        (
            "-o hot_max_factor=0",
            "-o hot_max_factor=0: hot_max_factor must be above 0",
        ),
        (
            "-o idle_timeout",
            "-o idle_timeout: idle_timeout must be 0 to 2147483647 seconds",
        ),
        (
            "-o watcher_logbuf_size=64x",
            "-o watcher_logbuf_size=64x: watcher_logbuf_size must be 0 to 1048576 KB, or a number with k, m or g behind it",
        ),
        (
            "-o idle_timeout=99999999999",
            "-o idle_timeout=99999999999: idle_timeout must be 0 to 2147483647 seconds",
        ),
        (
            "-o body_timeout=1m",
            "-o body_timeout=1m: body_timeout must be 0 to 2147483647 seconds",
        ),
        (
            "-l 127.0.0.1:99999",
            "-l 127.0.0.1:99999: port must be 0 to 65535",
        ),
        (
            "-l ::1,[::1]x",
            "-l ::1,[::1]x: [::1]x: port must be 0 to 65535",
        ),
        ("-l ,", "-l ,: address must be HOST[:PORT]"),
        ("-l :11211", "-l :11211: address must be HOST[:PORT]"),
        (
            "-l btls:127.0.0.1",
            "-l btls:127.0.0.1: btls: and mtls: need -Z",
        ),
        (
            "-l mtls:127.0.0.1",
            "-l mtls:127.0.0.1: btls: and mtls: need -Z",
        ),
        (
            "-l proto[x]:127.0.0.1",
            "-l proto[x]:127.0.0.1: protocol must be ascii, binary or auto",
        ),
        (
            "-l tag[]:127.0.0.1",
            "-l tag[]:127.0.0.1: address must be HOST[:PORT], behind proto[NAME]: or tag[NAME]:",
        ),
        ("-q", "-q: unknown option"),
        ("--frobnicate", "--frobnicate: unknown option"),
        ("-m", "-m: needs a value"),
        ("--daemon=1", "--daemon=1: takes no value"),
        ("-m 64 128", "128: not an option"),
        (
            "--config /no/such/file",
            "--config /no/such/file: cannot be read: No such file or directory (os error 2)",
        ),
    ];
    for (line, expected) in table {
        match start(line) {
            Err(err) => assert_eq!(err, *expected, "{line}"),
            Ok(_) => panic!("{line}: accepted"),
        }
    }
}

#[test]
fn a_name_that_does_not_resolve_is_refused() {
    let err = start("-l fooble").err().unwrap();
    assert!(
        err.starts_with("-l fooble: address must be an IP address or a name that resolves ("),
        "{err}"
    );
}

#[test]
fn values_that_no_shell_word_can_be_split_into() {
    let refused = |args: &[&str]| {
        let args = args.iter().map(|arg| arg.to_string());
        parse(args, &|_| None, None)
            .err()
            .map(|err| err.to_string())
    };
    assert_eq!(
        refused(&["-I", "6\n4"]).unwrap(),
        "-I 6\\n4: item size must be 1k to 1024m: bytes, or a number with k, m or g behind it"
    );
    assert_eq!(refused(&["-o", ""]), None);
    let long = "x".repeat(108);
    assert!(
        refused(&["-s", &long])
            .unwrap()
            .ends_with("unix socket path must be 1 to 107 bytes")
    );
    assert_eq!(refused(&["-s", &long[1..]]), None);
}

/// `-P "$PIDFILE"` where there is no such variable. Where memcached starts with it, the option counts as not given.
#[test]
fn an_empty_value_counts_as_not_given() {
    let start = |args: &[&str]| {
        let args = args.iter().map(|arg| arg.to_string());
        parse(args, &|_| None, None).map_err(|err| err.to_string())
    };
    for option in [
        "-p",
        "-U",
        "-s",
        "-a",
        "-l",
        "-P",
        "-b",
        "-u",
        "--port",
        "--pidfile",
        "--listen",
        "--unix-socket",
        "--user",
    ] {
        let Ok(Start::Run(settings)) = start(&[option, ""]) else {
            panic!("{option}: {:?}", start(&[option, ""]))
        };
        let notice = format!("{option}: an empty value, so it counts as not given");
        assert_eq!(settings.notices, [notice]);
        let settings = Settings {
            notices: Vec::new(),
            ..*settings
        };
        assert_eq!(Ok(settings), self::settings(""), "{option}");
    }
    for list in [
        "idle_timeout=",
        "temporary_ttl=",
        "lru_crawler_sleep=",
        "ssl_chain_cert=",
        "ssl_key=",
        "ssl_ciphers=",
        "ssl_ca_cert=",
    ] {
        let Ok(Start::Run(settings)) = start(&["-o", list]) else {
            panic!("{list}: {:?}", start(&["-o", list]))
        };
        let notice = format!("-o {list}: an empty value, so it counts as not given");
        assert_eq!(settings.notices, [notice]);
        // Without `=` the value was forgotten.
        start(&["-o", list.trim_end_matches('=')]).expect_err(list);
    }
    // An earlier one that is not empty holds.
    let Ok(Start::Run(settings)) = start(&["-p", "7", "-p", "", "-l", "", "-l", "127.0.0.1"])
    else {
        panic!()
    };
    assert_eq!((settings.tcp_port, settings.listen.len()), (7, 1));
    // memcached does not start with these either.
    for option in [
        "-m", "-c", "-f", "-n", "-t", "-R", "-B", "-I", "-Y", "-e", "-D",
    ] {
        start(&[option, ""]).expect_err(option);
    }
}

#[test]
fn every_option_of_memcached_is_known() {
    let known: HashSet<_> = OPTIONS
        .iter()
        .chain(EXTENDED.iter())
        .map(|opt| opt.long)
        .collect();
    assert_eq!(
        known.len(),
        OPTIONS.len() + EXTENDED.len(),
        "a name is in the tables twice"
    );
    let letters: HashSet<_> = OPTIONS.iter().map(|opt| opt.short).collect();
    for letter in "pUsaAlDdrumMckvhiVPfnLtRCbBISFXWYeZNo".chars() {
        assert!(letters.contains(&*letter.to_string()), "-{letter}");
    }
    for name in "port udp-port unix-socket unix-mask enable-shutdown listen daemon enable-coredumps user memory-limit \
        disable-evictions conn-limit lock-memory verbose help license version pidfile slab-growth-factor slab-min-size \
        enable-largepages threads max-reqs-per-event disable-cas listen-backlog protocol max-item-size enable-sasl \
        disable-flush-all disable-dumping disable-watch auth-file memory-file enable-ssl extended napi-ids maxconns_fast \
        no_maxconns_fast hashpower no_hashexpand hash_algorithm tail_repair_time slab_reassign no_slab_reassign \
        slab_automove no_slab_automove slab_automove_ratio slab_automove_window slab_automove_freeratio slab_sizes \
        slab_chunk_max no_chunked_items lru_crawler no_lru_crawler lru_crawler_sleep lru_crawler_tocrawl lru_maintainer \
        no_lru_maintainer hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor temporary_ttl idle_timeout \
        watcher_logbuf_size worker_logbuf_size read_buf_mem_limit track_sizes modern no_modern inline_ascii_resp \
        no_inline_ascii_resp resp_obj_mem_limit drop_privileges no_drop_privileges sock_cookie_id relaxed_privileges \
        ssl_chain_cert ssl_key ssl_keyformat ssl_verify_mode ssl_ciphers ssl_ca_cert ssl_wbuf_size ssl_session_cache \
        ssl_kernel_tls ssl_min_version ext_path ext_page_size ext_wbuf_size ext_threads ext_io_depth ext_item_size \
        ext_item_age ext_low_ttl ext_recache_rate ext_compact_under ext_drop_under ext_max_frag ext_max_sleep \
        ext_drop_unread proxy_config proxy_arg proxy_uring proxy_memprofile"
        .split_whitespace()
    {
        assert!(known.contains(name), "{name}");
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let mut count = 0;
    for opt in OPTIONS.iter().chain(EXTENDED.iter()) {
        if let Kind::NotBuilt { value, what } = opt.kind {
            let line = written(opt, if value.is_empty() { "" } else { "7" });
            let err = start(&line)
                .err()
                .unwrap_or_else(|| panic!("{line}: accepted"));
            assert!(err.ends_with(&format!(": not built yet: {what}")), "{err}");
            assert!(opt.help.is_empty(), "{} is in the help text", opt.long);
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn defaults_told_are_the_defaults_taken() {
    for opt in OPTIONS.iter().chain(EXTENDED.iter()) {
        if let Kind::Value { default, .. } = opt.kind
            && !default.is_empty()
        {
            let line = written(opt, default);
            assert_eq!(settings(&line), settings(""), "{line}");
        }
    }
}

#[test]
fn help_names_what_works_and_nothing_else() {
    for line in ["-h", "--help", "-t 0 -h", "-vh"] {
        let Ok(Start::Print(text)) = start(line) else {
            panic!("{line} does not print")
        };
        for opt in OPTIONS
            .iter()
            .chain(EXTENDED.iter())
            .filter(|opt| !opt.help.is_empty())
        {
            let lines = text.lines().filter(|line| line.contains(opt.help)).count();
            assert!(lines >= 1 && text.contains(opt.long), "{}", opt.long);
        }
        let text = text.to_lowercase();
        assert!(text.contains("unix-socket") && text.contains("sasl"));
        assert!(text.contains("enable-ssl"));
        for word in ["ext_path", "proxy_arg", "no_drop_privileges", "debugtime"] {
            assert!(!text.contains(word), "{word}");
        }
    }
}

#[test]
fn version_and_license_are_printed() {
    let printed = |line: &str| match start(line) {
        Ok(Start::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    };
    let version = printed("-V");
    let (own, compatible) = version.split_once(" (").unwrap();
    assert_eq!(compatible, "memcached 1.6.45 compatible)\n");
    let numbers = own.strip_prefix("ketch ").unwrap();
    assert_eq!(
        numbers
            .split('.')
            .filter(|n| n.parse::<u32>().is_ok())
            .count(),
        3,
        "{version}"
    );
    assert_eq!(printed("--version"), version);
    // Each is read by some tool: the version anywhere in the first line, or a line that begins with it.
    let help = printed("-h");
    assert_eq!(help.lines().next(), Some(version.trim_end()));
    assert!(help.contains("\nmemcached 1.6.45"), "{help}");
    assert!(printed("-i").contains("Redistribution and use in source and binary forms"));
}

#[test]
fn the_environment_names_files() {
    let env = |name: &str| match name {
        "MEMCACHED_PORT_FILENAME" => Some("/tmp/ports".to_owned()),
        "MEMCACHED_SASL_PWDB" => Some("/tmp/users".to_owned()),
        _ => None,
    };
    let Ok(Start::Run(s)) = parse(std::iter::empty(), &env, None) else {
        panic!()
    };
    assert_eq!(s.port_file, Some("/tmp/ports".into()));
    assert_eq!(s.sasl_pwdb, Some("/tmp/users".into()));
    assert!(
        !s.sasl && s.auth_file.is_none(),
        "the variable alone asks for no login"
    );
}

#[test]
fn a_daemon_gets_absolute_paths() {
    let here = std::env::current_dir().unwrap();
    let s = settings("-d -P x.pid -s x.sock --logfile /var/log/x -Y x.users").unwrap();
    assert_eq!(s.auth_file, Some(here.join("x.users")));
    assert_eq!(s.pid_file, Some(here.join("x.pid")));
    assert_eq!(s.unix_socket, Some(here.join("x.sock")));
    assert_eq!(s.log_file, Some("/var/log/x".into()));
}

#[test]
fn a_line_of_a_config_file_is_an_option_and_its_value() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        ("   ", &[]),
        ("# -m 64", &[]),
        ("  #-m 64", &[]),
        ("-m 64", &["-m", "64"]),
        ("  -m\t 64  ", &["-m", "64"]),
        ("-m64", &["-m64"]),
        ("--memory-limit=64", &["--memory-limit=64"]),
        ("--memory-limit 64", &["--memory-limit", "64"]),
        ("-m 64 # megabytes", &["-m", "64"]),
        ("-m 64# megabytes", &["-m", "64# megabytes"]),
        ("-D#", &["-D#"]),
        ("-m \"64\"", &["-m", "64"]),
        ("-m\"64\"", &["-m64"]),
        ("'-m 64'", &["-m 64"]),
        ("--memory-limit='64' # MB", &["--memory-limit=64"]),
        ("-P \"/run/a # b\" # c", &["-P", "/run/a # b"]),
        ("-P /run/it's", &["-P", "/run/it's"]),
        ("-m 64 -c 1024 -d", &["-m", "64", "-c 1024", "-d"]),
        ("-o a, b", &["-o", "a, b"]),
        ("-p -1", &["-p", "-1"]),
        ("-P /run/my pid", &["-P", "/run/my pid"]),
        (
            "logfile /var/log/memcached.log",
            &["--logfile", "/var/log/memcached.log"],
        ),
        ("-m 64\r", &["-m", "64"]),
    ];
    for (line, words) in table {
        assert_eq!(conf_file::words(line), *words, "{line:?}");
    }
}

#[test]
fn the_command_line_wins_over_the_file() {
    let text = "# Debian's file\n-d\nlogfile /var/log/memcached.log\n# -v\n-vv\n-m 128\n--port=11300\n-u memcache\n\
        -l 10.0.0.1\n-l ::1\n-o idle_timeout=5,track_sizes\n-P /run/memcached/memcached.pid\n";
    let file = Scratch::file("debian", text);

    let s = settings(&file.option()).unwrap();
    assert!(s.daemon && s.track_sizes);
    assert_eq!(
        (s.memory_limit_bytes, s.tcp_port, s.verbosity),
        (128 << 20, 11300, 2)
    );
    assert_eq!(s.log_file, Some("/var/log/memcached.log".into()));
    assert_eq!(s.listen_given.as_deref(), Some("10.0.0.1,::1"));
    assert_eq!(s.listen[1].addrs, addrs(&["[::1]:11300"]));

    for line in [
        "-m 32 -l 127.0.0.1 -v -o idle_timeout=6 CONF",
        "CONF -m 32 -l 127.0.0.1 -v -o idle_timeout=6",
    ] {
        let s = settings(&line.replace("CONF", &file.option())).unwrap();
        assert_eq!(
            (s.memory_limit_bytes, s.verbosity, s.idle_timeout_s),
            (32 << 20, 1, 6)
        );
        assert_eq!(
            (s.listen_given.as_deref(), s.listen.len()),
            (Some("127.0.0.1"), 1)
        );
        assert_eq!((s.tcp_port, s.user.as_deref()), (11300, Some("memcache")));
        assert!(s.track_sizes);
    }
}

#[test]
fn errors_of_a_file_tell_the_line() {
    let table = [
        ("-m 64\n\n-t 0\n", "3: -t 0: threads must be 1 to 256"),
        ("-m", "1: -m: needs a value"),
        ("-d now", "1: now: not an option; -d takes no value"),
        ("port 11211", "1: port: not an option; did you mean --port?"),
        (
            "--prt=11211",
            "1: --prt=11211: unknown option; did you mean --port?",
        ),
        ("-o a,b", "1: -o a: unknown option"),
        ("-h", "1: -h: has no place in a config file"),
        ("--config x", "1: --config x: has no place in a config file"),
        (
            "# big\n-I 256m",
            "2: -I 256m: item size must be at most half of the memory limit, -m 64",
        ),
        ("-l btls:x", "1: -l btls:x: btls: and mtls: need -Z"),
    ];
    for (text, expected) in table {
        let file = Scratch::file("errors", text);
        let err = start(&file.option())
            .err()
            .unwrap_or_else(|| panic!("{text:?}: accepted"));
        assert_eq!(err, format!("{}:{expected}", file.0.display()));
    }
}

#[test]
fn the_example_file_shows_every_option_with_its_default() {
    let example = include_str!("../../memcached.conf.example");
    assert_eq!(
        example
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with('#')),
        None,
        "all of the example is commented out"
    );
    let mut shown = HashSet::new();
    for line in example.lines().filter(|line| line.starts_with("#-")) {
        let line = &line[1..];
        // TLS and the log do not go alone.
        let besides = match line {
            "-Z" => "\n-o ssl_chain_cert=x",
            _ if line.starts_with("-o log=") => "\n-o snapshot=x",
            _ => "",
        };
        let file = Scratch::file("example", &format!("{line}{besides}"));
        let parsed = settings(&file.option()).unwrap_or_else(|err| panic!("{err}"));
        let given = given::split(&conf_file::words(line), None).unwrap();
        let [one] = &given[..] else {
            panic!("{line}: not one option")
        };
        assert!(shown.insert(one.opt.long), "{line}: shown twice");
        if let Kind::Value { default, .. } = one.opt.kind
            && !default.is_empty()
        {
            assert_eq!(one.value, default, "{line}");
            assert_eq!(Ok(parsed), settings(""), "{line}");
        }
    }
    let on_the_command_line_alone = ["help", "license", "version", "config", "extended"];
    for opt in OPTIONS
        .iter()
        .chain(EXTENDED.iter())
        .filter(|opt| !opt.help.is_empty())
    {
        assert!(
            shown.contains(opt.long) || on_the_command_line_alone.contains(&opt.long),
            "{} is not in the example",
            opt.long
        );
    }
}

#[test]
fn a_login_has_its_protocol() {
    for (line, protocol) in [
        ("", WireProtocol::Auto),
        ("-Y /etc/auth", WireProtocol::Ascii),
        ("-Y /etc/auth -B ascii -U 0", WireProtocol::Ascii),
        ("-S", WireProtocol::Binary),
        ("-S -B binary", WireProtocol::Binary),
        ("-S -Y /etc/auth", WireProtocol::Ascii),
    ] {
        let settings = settings(line).expect(line);
        assert_eq!(settings.protocol, protocol, "{line}");
        assert!(settings.listen.iter().all(|one| one.protocol == protocol));
        assert_eq!(settings.sasl, line.contains("-S"));
        assert_eq!(settings.auth_file.is_some(), line.contains("-Y"));
    }
}
