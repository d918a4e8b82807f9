//! The options behind `-o`: their table, and those that the table of knobs (`src/knobs.rs`) makes.

use std::sync::LazyLock;

use super::opt::{self, Opt, flag, inert, not_built, value};
use super::values::{Unit, decimal, seconds, size, slab_sizes, text, whole};
use super::{LogSync, PAGE_BYTES, Settings, register, tls};
use crate::knobs::Knob;

/// All extended options, in the order of the help text.
pub(super) static EXTENDED: LazyLock<Vec<Opt>> = LazyLock::new(|| {
    let knobs = Knob::ALL.into_iter().flat_map(opt::of_knob);
    FIRST
        .iter()
        .copied()
        .chain(knobs)
        .chain(REST.iter().copied())
        .collect()
});

static FIRST: &[Opt] = &[
    flag(
        "",
        "maxconns_fast",
        |s| s.maxconns_fast = true,
        "answer an error and close when -c is reached (default)",
    ),
    flag(
        "",
        "no_maxconns_fast",
        |s| s.maxconns_fast = false,
        "let clients wait in the backlog when -c is reached",
    ),
    value(
        "",
        "hashpower",
        ("NUM", "0"),
        |s, v| match v {
            "0" => {
                s.hashpower_init = 0;
                Ok(())
            }
            _ => whole("hashpower", v, 12..=32, "").map(|power| s.hashpower_init = power),
        },
        "start the table with 2^NUM buckets, 12 to 32; 0 leaves it to the server",
    ),
    flag(
        "",
        "no_hashexpand",
        |s| s.hash_expand = false,
        "keep the table at its first size",
    ),
    value(
        "",
        "hash_algorithm",
        ("NAME", "murmur3"),
        |s, v| {
            const NAMES: [&str; 3] = ["jenkins", "murmur3", "xxh3"];
            let known = NAMES.into_iter().find(|name| *name == v);
            known
                .map(|name| s.hash_algorithm = name)
                .ok_or_else(|| "hash_algorithm must be jenkins, murmur3 or xxh3".to_owned())
        },
        "jenkins, murmur3 or xxh3: told in \"stats settings\"; keys are hashed with ahash",
    ),
    value(
        "",
        "tail_repair_time",
        ("SECONDS", "0"),
        |s, v| match v {
            "0" => {
                s.tail_repair_time_s = 0;
                Ok(())
            }
            _ => whole(
                "tail_repair_time",
                v,
                10..=i32::MAX as u32,
                "seconds, or 0 for never",
            )
            .map(|t| s.tail_repair_time_s = t),
        },
        "no item is stuck at an LRU's tail; at least 10, 0 is never",
    )
    .shown_only(),
    value(
        "",
        "slab_sizes",
        ("A-B-C", ""),
        |s, v| slab_sizes(v).map(|sizes| s.slab_sizes = sizes),
        "chunk sizes in bytes, ascending, instead of those -f gives",
    )
    .example("96-144-200-400-1000"),
    value(
        "",
        "slab_chunk_max",
        ("KB", "32"),
        |s, v| {
            size("slab_chunk_max", v, 1..=PAGE_BYTES >> 10, Unit::Kb)
                .map(|bytes| s.slab_chunk_bytes_max = bytes)
        },
        "largest chunk, in kilobytes; larger items are chained (memcached: 512)",
    )
    .more("1 to 1024."),
    flag(
        "",
        "no_chunked_items",
        |s| s.slab_chunk_bytes_max = PAGE_BYTES,
        "chain no items: the largest chunk is a page; what is larger than 1m still is",
    ),
];

/// What stands behind the knobs in the help text.
static REST: &[Opt] = &[
    value(
        "",
        "idle_timeout",
        ("SECONDS", "0"),
        |s, v| {
            seconds("idle_timeout", v).map(|timeout| s.idle_timeout_s = timeout)
        },
        "close connections after this long without a command; 0 is never",
    )
    .more("A connection in the middle of a value, sent or received, is not idle."),
    value(
        "",
        "body_timeout",
        ("SECONDS", "60"),
        |s, v| {
            whole("body_timeout", v, 0..=i32::MAX as u32, "seconds")
                .map(|timeout| s.body_timeout_s = timeout)
        },
        "close connections after this long without a byte of the value they are sending; 0 is never",
    ),
    value(
        "",
        "watcher_logbuf_size",
        ("KB", "256"),
        |s, v| {
            size("watcher_logbuf_size", v, 0..=1 << 20, Unit::Kb)
                .map(|bytes| s.watcher_logbuf_bytes = bytes)
        },
        "lines that wait for a watcher which does not take them; what is more is skipped, and counted",
    ),
    value(
        "",
        "worker_logbuf_size",
        ("KB", "64"),
        |s, v| {
            size("worker_logbuf_size", v, 0..=1 << 20, Unit::Kb)
                .map(|bytes| s.worker_logbuf_bytes = bytes)
        },
        "what a thread may have to show to watchers that is not taken yet; what is more is dropped, and counted",
    ),
    value(
        "",
        "feed_ring",
        ("MB", "16"),
        |s, v| {
            size("feed_ring", v, 1..=1 << 14, Unit::Mb).map(|bytes| s.feed_ring_bytes = bytes)
        },
        "events kept for readers of \"watch feed\" that are slow or come back",
    ),
    value(
        "",
        "read_buf_mem_limit",
        ("MB", "0"),
        |s, v| {
            size("read_buf_mem_limit", v, 0..=256 << 10, Unit::Mb)
                .map(|bytes| s.read_buf_mem_limit_bytes = bytes)
        },
        "the connections of a worker share one buffer",
    )
    .shown_only(),
    value(
        "",
        "cluster_config",
        ("FILE", ""),
        |s, v| text("node list", v).map(|path| s.cluster_config = Some(path)),
        "what \"config get cluster\" answers: a line with a version number, one with HOST|IP|PORT of each node, blanks between",
    )
    .more("\"config set cluster\" changes it while the server runs.")
    .example("/etc/ketch/cluster"),
    value(
        "",
        "snapshot",
        ("FILE", ""),
        |s, v| text("snapshot file", v).map(|path| s.snapshot.file = Some(path)),
        "load the cache from FILE at the start, write it there at the end and at the command \"snapshot\"",
    )
    .more("It is written beside FILE first (FILE.new) and then renamed; FILE.lock keeps other servers away.")
    .example("/var/lib/ketch/snapshot"),
    value(
        "",
        "snapshot_interval",
        ("SECONDS", "0"),
        |s, v| {
            whole("snapshot_interval", v, 0..=i32::MAX as u32, "seconds")
                .map(|interval| s.snapshot.interval_s = interval)
        },
        "write a snapshot this often, too; 0 is never",
    ),
    value(
        "",
        "snapshot_rate",
        ("MB", "0"),
        |s, v| {
            size("snapshot_rate", v, 0..=1 << 20, Unit::Mb)
                .map(|bytes| s.snapshot.rate_bytes = bytes)
        },
        "megabytes a second that a snapshot writes at most while the server runs; 0 is as fast as it goes",
    )
    .more("The snapshot at the end knows no bound."),
    value(
        "",
        "snapshot_compress",
        ("NAME", "none"),
        |s, v| match v {
            "none" => {
                s.snapshot.compressed = false;
                Ok(())
            }
            "lz4" => {
                s.snapshot.compressed = true;
                Ok(())
            }
            _ => Err("snapshot_compress must be none or lz4".to_owned()),
        },
        "none or lz4: how the blocks of a snapshot are compressed",
    ),
    value(
        "",
        "log",
        ("FILE", ""),
        |s, v| text("log file", v).map(|path| s.log.file = Some(path)),
        "write down what changes after a snapshot, in FILE.1, FILE.2 and so on, before it is acknowledged; needs snapshot",
    )
    .more("It is read after the snapshot at the start. A snapshot begins a new file and removes the older ones.")
    .example("/var/lib/ketch/log"),
    value(
        "",
        "log_sync",
        ("WHEN", "second"),
        |s, v| {
            s.log.sync = match v {
                "always" => LogSync::Always,
                "second" => LogSync::Second,
                "none" => LogSync::None,
                _ => return Err("log_sync must be always, second or none".to_owned()),
            };
            Ok(())
        },
        "when the log is on the disk: always (before each answer), second, none (when the system likes)",
    )
    .more("With all three a process that is killed loses nothing it has acknowledged; a power cut takes what was not on the disk."),
    value(
        "",
        "register",
        ("URL", ""),
        |s, v| register::url(v).map(|url| s.register.url = url),
        "join the ring that etcd://HOST:PORT/RING or consul://HOST:PORT/SERVICE keeps, and answer \"config get cluster\" with it",
    )
    .more("Between several servers stands a semicolon. The server serves whether or not they can be reached; it leaves the ring when it stops.")
    .example("etcd://127.0.0.1:2379/cache"),
    value(
        "",
        "node_name",
        ("NAME", ""),
        |s, v| register::word("node_name", v).map(|name| s.register.name = Some(name)),
        "what rings call this server: under it it keeps its keys at another address (its address if not given)",
    )
    .example("cache-1"),
    value(
        "",
        "node_address",
        ("HOST:PORT", ""),
        |s, v| register::address(v).map(|address| s.register.address = Some(address)),
        "where clients reach it, if not where it listens",
    )
    .example("10.0.0.7:11211"),
    value(
        "",
        "node_zone",
        ("ZONE", ""),
        |s, v| register::word("node_zone", v).map(|zone| s.register.zone = Some(zone)),
        "where it stands: copies go to different zones",
    )
    .example("a"),
    value(
        "",
        "node_weight",
        ("NUM", "1"),
        |s, v| whole("node_weight", v, 0..=u32::MAX, "").map(|weight| s.register.weight = weight),
        "its share of the keys relative to the others; 0 waits until \"ketchctl rebalance\" has filled it",
    ),
    value(
        "",
        "node_lease",
        ("SECONDS", "2"),
        |s, v| whole("node_lease", v, 1..=3600, "seconds").map(|lease| s.register.lease_s = lease),
        "how long after a crash it still stands in the ring",
    ),
    value(
        "",
        "leave_share",
        ("SHARE", ""),
        |s, v| decimal("leave_share", v, |share| (0.0..=1.0).contains(&share), "0 to 1").map(|share| s.register.leave_share = Some(share)),
        "which share of the ring may leave within 30 seconds without a goodbye: a third unless given; one always may",
    )
    .more("1 follows the list at once.")
    .example("1"),
    value(
        "",
        "proxy_config",
        ("FILE", ""),
        |s, v| text("file of routes", v).map(|path| s.proxy_config = Some(path)),
        "be a proxy: pass on what clients ask to the nodes that FILE names, which is TOML",
    )
    .more("SIGHUP and \"proxy reload\" read it again, and drop no connection. docs/proxy.md has examples.")
    .example("/etc/ketch/routes.toml"),
    flag(
        "",
        "track_sizes",
        |s| s.track_sizes = true,
        "keep the histogram of \"stats sizes\"",
    ),
    flag("", "modern", |_| (), "accepted, the defaults are that"),
    flag(
        "",
        "no_modern",
        no_modern,
        "as memcached 1.4: flat LRU, no crawler, pages stay in their class",
    ),
    flag("", "inline_ascii_resp", |_| (), "accepted, no effect"),
    flag("", "no_inline_ascii_resp", |_| (), "accepted, no effect"),
    inert(
        "",
        "resp_obj_mem_limit",
        "MB",
        "replies have bounds of their own",
    )
    .example("0"),
    flag("", "relaxed_privileges", |_| (), "accepted, no effect"),
    flag("", "no_drop_privileges", |_| (), ""),
    flag("", "debugtime", |s| s.debugtime = true, ""),
    inert(
        "",
        "drop_privileges",
        "",
        "system calls are not filtered; the unit file packaging/ketch.service lets systemd do that",
    ),
    inert("", "sock_cookie_id", "ID", "sockets are not marked")
    .example("1"),
    value(
        "",
        "ssl_chain_cert",
        ("FILE", ""),
        |s, v| text("certificate file", v).map(|path| s.tls.chain_cert = Some(path)),
        "with -Z: the server's certificate and its chain, PEM",
    )
    .example("/etc/ketch/cert.pem"),
    value(
        "",
        "ssl_key",
        ("FILE", ""),
        |s, v| text("key file", v).map(|path| s.tls.key = Some(path)),
        "its private key, PEM; without it the key is in ssl_chain_cert",
    )
    .example("/etc/ketch/key.pem"),
    value(
        "",
        "ssl_keyformat",
        ("PEM", "PEM"),
        |_, v| tls::key_format(v),
        "format of the key; PEM (or 1) is the only one",
    ),
    value(
        "",
        "ssl_verify_mode",
        ("NUM", "0"),
        |s, v| whole("ssl_verify_mode", v, 0..=3, "").map(|mode| s.tls.verify_mode = mode),
        "clients' certificates: 0 not asked for, 1 checked if given, 2 and 3 required",
    ),
    value(
        "",
        "ssl_ciphers",
        ("LIST", ""),
        |s, v| text("cipher list", v).map(|list| s.tls.ciphers = Some(list)),
        "ciphers of TLS 1.2, as OpenSSL lists them; those that are not spoken are left out, with a warning",
    )
    .more("Those of TLS 1.3 are always offered.")
    .example("HIGH"),
    value(
        "",
        "ssl_ca_cert",
        ("FILE", ""),
        |s, v| text("CA file", v).map(|path| s.tls.ca_cert = Some(path)),
        "the roots that clients' certificates are checked against, PEM",
    )
    .more("A self-signed certificate of a client may stand there itself. Without this file no client certificate holds.")
    .example("/etc/ketch/clients-ca.pem"),
    value(
        "",
        "ssl_wbuf_size",
        ("KB", "16"),
        |s, v| {
            size("ssl_wbuf_size", v, 0..=1 << 20, Unit::Kb).map(|bytes| {
                s.tls.wbuf_bytes = bytes.clamp(1 << 10, 1 << 20);
                if s.tls.wbuf_bytes != bytes {
                    let used = s.tls.wbuf_bytes >> 10;
                    s.notices.push(format!("-o ssl_wbuf_size={v}: {used} KB are used"));
                }
            })
        },
        "output encrypted at once and kept for a slow reader, in kilobytes",
    )
    .more("1 to 1024. As much may wait for a client that reads slowly."),
    flag(
        "",
        "ssl_session_cache",
        |s| s.tls.session_cache = true,
        "let clients resume TLS sessions",
    ),
    inert("", "ssl_kernel_tls", "", "TLS is done in the process"),
    value(
        "",
        "ssl_min_version",
        ("NUM", "2"),
        |s, v| tls::min_version(v).map(|asked| s.accept_min_version(asked)),
        "oldest TLS spoken: 2 is 1.2, 3 is 1.3",
    ),
    not_built("", "ext_path", "FILE", "external storage"),
    not_built("", "ext_page_size", "MB", "external storage"),
    not_built("", "ext_wbuf_size", "MB", "external storage"),
    not_built("", "ext_threads", "NUM", "external storage"),
    not_built("", "ext_io_depth", "NUM", "external storage"),
    not_built("", "ext_item_size", "BYTES", "external storage"),
    not_built("", "ext_item_age", "SECONDS", "external storage"),
    not_built("", "ext_low_ttl", "SECONDS", "external storage"),
    not_built("", "ext_recache_rate", "NUM", "external storage"),
    not_built("", "ext_compact_under", "NUM", "external storage"),
    not_built("", "ext_drop_under", "NUM", "external storage"),
    not_built("", "ext_max_frag", "NUM", "external storage"),
    not_built("", "ext_max_sleep", "US", "external storage"),
    not_built("", "ext_drop_unread", "", "external storage"),
    not_built("", "proxy_arg", "TEXT", "a proxy that runs Lua"),
    not_built("", "proxy_uring", "", "a proxy that runs Lua"),
    not_built("", "proxy_memprofile", "", "a proxy that runs Lua"),
];

/// What memcached's defaults were before version 1.5.
fn no_modern(s: &mut Settings) {
    s.hash_algorithm = "jenkins";
    s.maxconns_fast = false;
    for knob in [
        Knob::SlabReassign,
        Knob::SlabAutomove,
        Knob::LruCrawler,
        Knob::LruMaintainer,
        Knob::LruSegmented,
    ] {
        s.knobs.set(knob, 0);
    }
}

/// Whether this option stands behind `-o`.
pub(super) fn is_extended(opt: &Opt) -> bool {
    EXTENDED.iter().any(|extended| extended.long == opt.long)
}
