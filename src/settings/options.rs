//! The options with a dash: one table for parsing, help and what is not built.

use super::opt::{Opt, flag, inert, value};
use super::values::{
    Unit, decimal, delimiter, item_size, octal_mask, size, text, unix_path, whole,
};
use super::{WireProtocol, http};
use crate::knobs::Knob;
use crate::sys;

/// Of the machine's memory, or its control group's, so much is for items with `-m auto`: the rest is for the table, for
/// connections, and for who else is there.
const AUTO_PERCENT: u64 = 75;
/// The most that `-m` takes, in bytes.
const MEMORY_MAX: u64 = 256 << 30;

fn auto_memory() -> Result<usize, String> {
    let Some((limit, _)) = sys::memory_limit() else {
        return Err(
            "memory limit cannot be auto: the system does not tell how much there is".to_owned(),
        );
    };
    let megabytes = (limit / 100 * AUTO_PERCENT).min(MEMORY_MAX) >> 20;
    Ok((megabytes.max(1) as usize) << 20)
}

/// All options with a dash, in the order of the help text.
pub(super) static OPTIONS: &[Opt] = &[
    value(
        "p",
        "port",
        ("NUM", "11211"),
        |s, v| whole("port", v, -1..=65535, "").map(|port| s.tcp_port = port),
        "TCP port; -1 takes a free one, 0 listens on none",
    ),
    value(
        "U",
        "udp-port",
        ("NUM", "0"),
        |s, v| whole("UDP port", v, -1..=65535, "").map(|port| s.udp_port = port),
        "UDP port, and the TCP port unless -p is given; -1 takes a free one, 0 listens on none",
    )
    .more("See docs/udp.md before opening it to a network."),
    value(
        "s",
        "unix-socket",
        ("FILE", ""),
        |s, v| unix_path(v).map(|path| s.unix_socket = Some(path)),
        "listen on this unix socket, and not over TCP or UDP",
    )
    .more("The directory must be one that the user of -u may write to. A socket that another server answers on is not taken over.")
    .example("/run/ketch/ketch.sock"),
    flag(
        "A",
        "enable-shutdown",
        |s| s.shutdown_command = true,
        "let clients use the \"shutdown\" command",
    ),
    value(
        "a",
        "unix-mask",
        ("MASK", "700"),
        |s, v| octal_mask(v).map(|mask| s.unix_mask = mask),
        "permission bits of the unix socket, in octal",
    ),
    // Resolved at the end, when the port is known.
    value(
        "l",
        "listen",
        ("ADDR", ""),
        |s, v| {
            match &mut s.listen_given {
                Some(list) => {
                    list.push(',');
                    list.push_str(v);
                }
                none => *none = Some(v.to_owned()),
            }
            Ok(())
        },
        "addresses to listen on: [proto[ascii]:][tag[NAME]:]HOST[:PORT], by commas or repeated; if not given loopback, in a container all",
    )
    .more("0.0.0.0 or * opens it to the network. The variable KETCH_LISTEN says it where there is no -l. With -Z an entry may begin with notls: (plain text), btls: (TLS, clients need no certificate) or mtls: (TLS, clients need one).")
    .example("127.0.0.1,::1"),
    flag(
        "d",
        "daemon",
        |s| s.daemon = true,
        "run in the background; return when clients can connect",
    )
    .more("Started by a service manager that wants to be told when it is ready (NOTIFY_SOCKET), it stays in the foreground."),
    flag(
        "r",
        "enable-coredumps",
        |s| s.coredumps = true,
        "let the kernel write core files of any size",
    ),
    value(
        "u",
        "user",
        ("NAME", ""),
        |s, v| text("user", v).map(|name| s.user = Some(name)),
        "when started as root, become this user, by name or number",
    )
    .example("memcache"),
    value(
        "m",
        "memory-limit",
        ("MB", "64"),
        |s, v| {
            if v == "auto" {
                return auto_memory().map(|bytes| s.memory_limit_bytes = bytes);
            }
            size("memory limit", v, 1..=256 << 10, Unit::Mb)
                .map(|bytes| s.memory_limit_bytes = bytes)
        },
        "memory for items, in megabytes, or with k, m, g behind the number; auto: 75 % of what there is",
    )
    .more("auto goes by the machine's memory, or by what the control group allows if that is less. What comes on top: the hash table, connections, and a few MB of the program."),
    flag(
        "M",
        "disable-evictions",
        |s| s.knobs.set(Knob::Evictions, 0),
        "answer an error when memory is full, evict nothing",
    ),
    value(
        "c",
        "conn-limit",
        ("NUM", "1024"),
        |s, v| size("connections", v, 1..=1 << 24, Unit::Count).map(|conns| s.conns_max = conns),
        "client connections at one time; 10k is 10000",
    )
    .more("Each needs a file descriptor: with fewer than that, fewer clients are let in, and the log says how many."),
    flag(
        "k",
        "lock-memory",
        |s| s.lock_memory = true,
        "keep all memory of the process out of swap",
    )
    .more("For another user than root the limit on locked memory must allow it: ulimit -l, LimitMEMLOCK= of systemd."),
    flag(
        "v",
        "verbose",
        |s| s.verbosity = s.verbosity.saturating_add(1),
        "log events; -vv also commands, -vvv everything",
    ),
    flag("h", "help", |_| (), "print this text and exit"),
    flag("i", "license", |_| (), "print the license and exit"),
    flag("V", "version", |_| (), "print the version and exit"),
    value(
        "P",
        "pidfile",
        ("FILE", ""),
        |s, v| text("pid file", v).map(|path| s.pid_file = Some(path)),
        "write the process id here",
    )
    .example("/run/ketch/ketch.pid"),
    value(
        "f",
        "slab-growth-factor",
        ("NUM", ""),
        |s, v| {
            decimal("growth factor", v, |f| f > 1.0, "above 1").map(|f| (s.growth_factor, s.fixed_classes) = (f, true))
        },
        "slab classes that are each larger by this factor, instead of some that follow the sizes of the items",
    )
    .more("Without -f and -n classes open and close as the sizes of the items ask for it.")
    .example("1.14"),
    value(
        "n",
        "slab-min-size",
        ("BYTES", ""),
        |s, v| {
            size("chunk size", v, 1..=1 << 30, Unit::Bytes)
                .map(|bytes| (s.chunk_bytes_min, s.fixed_classes) = (bytes, true))
        },
        "least bytes a chunk has for key, value and flags; then too classes are fixed, -f 1.14 unless given",
    )
    .example("48"),
    flag(
        "L",
        "enable-largepages",
        |s| s.huge_pages = true,
        "ask the kernel for huge pages: faster hits among millions of items, longer pauses while the cache fills",
    ),
    value(
        "D",
        "prefix-delimiter",
        ("CHAR", ""),
        |s, v| {
            delimiter(v).map(|(byte, more)| {
                s.prefix_delimiter = byte;
                s.detail_enabled = true;
                if more {
                    let first = std::ascii::escape_default(byte);
                    s.notices.push(format!("-D {v}: one byte ends a prefix, so {first} does"));
                }
            })
        },
        "what ends a key's prefix in \"stats detail\", instead of \":\"; giving it turns those counters on",
    )
    .more("One character.")
    .example(":"),
    value(
        "t",
        "threads",
        ("NUM", "4"),
        |s, v| whole("threads", v, 1..=256, "").map(|threads| s.threads = threads),
        "worker threads",
    ),
    value(
        "R",
        "max-reqs-per-event",
        ("NUM", "20"),
        |s, v| {
            size("requests per event", v, 1..=i32::MAX as usize, Unit::Count)
                .map(|reqs| s.reqs_per_event = reqs as u32)
        },
        "commands of one connection before the next one's turn",
    ),
    flag(
        "C",
        "disable-cas",
        |s| s.cas = false,
        "keep no CAS unique with items",
    )
    .more("That is 8 bytes less each, and no \"cas\" command."),
    value(
        "b",
        "listen-backlog",
        ("NUM", "1024"),
        |s, v| {
            // The kernel takes a negative backlog for the longest.
            if v.parse::<i32>().is_ok_and(|backlog| backlog < 0) {
                s.backlog = i32::MAX;
                return Ok(());
            }
            size("listen backlog", v, 0..=i32::MAX as usize, Unit::Count)
                .map(|backlog| s.backlog = backlog as i32)
        },
        "length of the listen queue",
    )
    .more("-1 is as long as the kernel has it."),
    value(
        "B",
        "protocol",
        ("NAME", "auto"),
        |s, v| WireProtocol::parse(v).map(|protocol| s.protocol = protocol),
        "protocol of the connections: ascii, binary or auto",
    ),
    value(
        "I",
        "max-item-size",
        ("SIZE", "1m"),
        |s, v| item_size(v).map(|bytes| s.item_bytes_max = bytes),
        "largest item, 1k to 1024m and at most half of -m; bytes without k, m, g",
    ),
    flag(
        "F",
        "disable-flush-all",
        |s| s.flush_enabled = false,
        "refuse \"flush_all\"",
    ),
    flag(
        "X",
        "disable-dumping",
        |s| s.dump_enabled = false,
        "refuse cachedump, metadump, mgdump and \"stats detail\"",
    ),
    flag(
        "W",
        "disable-watch",
        |s| s.watch_enabled = false,
        "refuse \"watch\"",
    ),
    // Read before the others are applied.
    value(
        "",
        "config",
        ("FILE", ""),
        |_, _| Ok(()),
        "read options from this file first, one a line; the command line wins",
    ),
    value(
        "",
        "logfile",
        ("FILE", ""),
        |s, v| text("log file", v).map(|path| s.log_file = Some(path)),
        "append the log to this file instead of standard error",
    )
    .more("\"logfile FILE\", as in Debian's memcached.conf, means the same. SIGHUP opens it anew, for logrotate. Root opens it where root alone can make files; elsewhere the user of -u must be able to.")
    .example("/var/log/ketch.log"),
    value(
        "",
        "log-format",
        ("NAME", "text"),
        |s, v| {
            s.log_json = match v {
                "text" => false,
                "json" => true,
                _ => return Err("log format must be text or json".to_owned()),
            };
            Ok(())
        },
        "lines of the log: text, or json, an object a line",
    ),
    value(
        "",
        "http",
        ("ADDR", ""),
        |s, v| http::listen(v).map(|addrs| s.http.listen = addrs),
        "metrics, health, a page and keys over HTTP, on HOST:PORT; PORT alone is this machine's",
    )
    .more("/metrics for Prometheus, /health and /ready, /stats.json, a page at /, and GET, PUT and DELETE of keys. docs/insight.md has all of it.")
    .example("9150"),
    value(
        "",
        "http-token-file",
        ("FILE", ""),
        |s, v| text("token file", v).map(|path| s.http.token_file = Some(path)),
        "over HTTP let in only who shows the token in this file, as a bearer token",
    )
    .more("/health, /ready and the page without its figures are for anybody. Needed with -S or -Y.")
    .example("/etc/ketch/http-token"),
    flag(
        "",
        "http-tls",
        |s| s.http.tls = true,
        "speak HTTPS, with the certificates of -Z",
    ),
    // Answered before the others are applied.
    value(
        "",
        "print",
        ("PAGE", ""),
        |_, _| Ok(()),
        "",
    ),
    // Split into the options of the extended table before it could be applied.
    value(
        "o",
        "extended",
        ("LIST", ""),
        |_, _| Ok(()),
        "extended options, by commas or repeated; see below",
    ),
    flag(
        "S",
        "enable-sasl",
        |s| s.sasl = true,
        "let in only who logs in by SASL PLAIN; binary protocol alone, no UDP",
    )
    .more("The users are those of the file that the environment names in MEMCACHED_SASL_PWDB, lines USER:PASSWORD[:REALM]. With -Y as well the login is that of -Y."),
    value(
        "Y",
        "auth-file",
        ("FILE", ""),
        |s, v| text("users file", v).map(|path| s.auth_file = Some(path)),
        "let in only users of this file, lines USER:PASSWORD; text protocol alone (with -S too), no UDP",
    )
    .more("A password may be a hash, $argon2id$.. or $scrypt$... Clients log in with a \"set\" of any key whose value is \"USER PASSWORD\". SIGHUP reads the file again.")
    .example("/etc/ketch/users"),
    value(
        "e",
        "memory-file",
        ("FILE", ""),
        |s, v| text("memory file", v).map(|path| s.memory_file = Some(path)),
        "keep the items in this file, on a tmpfs, and go on with them after a restart, a crash included",
    )
    .more("The next server may have other options, -m, -t, -I, -f and the eviction policy among them, and be another version. The time in between counts for the items' lives. See docs/restart.md.")
    .example("/dev/shm/ketch"),
    flag(
        "",
        "takeover",
        |s| s.takeover = true,
        "take over from the server that listens there: its items, its listeners, its clients, who notice nothing",
    )
    .more("If there is none, the server starts as always. The one before goes on if this one cannot. SIGUSR2 has a server start its program again like this. See docs/restart.md."),
    flag(
        "Z",
        "enable-ssl",
        |s| s.tls.enabled = true,
        "encrypt TCP connections with TLS; see ssl_chain_cert and the others below",
    )
    .more("Certificates are read again on SIGHUP and by the command refresh_certs; connections that are open keep the old ones. A client that has not ended its handshake after 60 seconds is closed."),
    inert(
        "N",
        "napi-ids",
        "NUM",
        "connections go to the threads in turn",
    )
    .example("2"),
];
