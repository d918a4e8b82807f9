//! Start options: the command line and a config file become one checked [`Settings`].
//!
//! ```text
//!  --config FILE --(conf_file)--> given options --\
//!                                                  +--> apply one by one --> cross checks --> Settings
//!  command line ----(given)-----> given options --/     (options, extended)   (here, listen)
//! ```
//!
//! S1. What [`parse`] lets through is complete and within range; nothing after it checks an option again.
//! S2. Each option is one entry of a table (`options`, `extended`): its names, what it does, its default and its line of
//!     help stand together, and a test holds the defaults told to the defaults taken.
//! S3. The file's options come first and the command line's after them, so the later one wins; `-l` and `-v`, which
//!     add up, are taken from the command line alone when it has any.
//! S4. What memcached knows and ketch does not do yet ends the start with one line; it is never silently ignored.

mod checks;
mod conf_file;
pub(crate) mod extended;
mod given;
mod help;
mod http;
mod listen;
mod nearest;
mod opt;
mod options;
mod pages;
mod register;
mod snapshot;
#[cfg(test)]
mod tests;
mod tls;
mod values;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::knobs::{Knob, Knobs};
use given::Given;
pub use http::{HTTP_CONNS_MAX, Http};
pub use listen::{Listen, WireProtocol};
pub use register::Register;
pub use snapshot::{Log, LogSync, Snapshot};
pub use tls::{ClientCert, Tls, TlsVersion};

/// The memcached whose options and commands these are: what `version` and `stats` answer. Stock clients and tools read it to
/// learn what a server can do (libmemcached's take anything below 1.3 for a server without `noreply`), so ketch's own
/// version would mislead them; that one is in `stats` and `-V`.
pub const MEMCACHED_VERSION: &str = "1.6.45";

/// Descriptors beyond the clients' connections: listeners, files, and room for refusing a connection.
const FILES_RESERVED: usize = 64;
/// The least of them, where there are few.
const FILES_RESERVED_MIN: usize = 24;
/// Descriptors of one worker besides its UDP sockets: its poll and its waker.
const FILES_PER_THREAD: usize = 4;

/// Bytes of one slab page, the upper bound of a chunk.
const PAGE_BYTES: usize = 1 << 20;

/// The largest chunk unless `-o slab_chunk_max` says otherwise. A sixteenth of memcached's: larger items are chained, and
/// a chain wastes at most a part of its last link.
const SLAB_CHUNK_BYTES_MAX: usize = 32 << 10;

/// Every value the server starts from. Sizes are in bytes, times in the unit their name ends in.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where to listen over TCP; empty with `-p 0` or a unix socket.
    pub listen: Vec<Listen>,
    /// Where to listen over UDP; empty with `-U 0` or a unix socket.
    pub udp_listen: Vec<Listen>,
    /// `-l` as given, entries joined by commas; `None` means that `listen` is the default: the loopback addresses, or all
    /// in a container.
    pub listen_given: Option<String>,
    /// What tells that this is a container, where without `-l` all addresses are listened on.
    pub container: Option<&'static str>,
    /// `-p` as given: -1 picks a free port, 0 listens on none.
    pub tcp_port: i32,
    /// `-U` as given: -1 picks a free port, 0 listens on none.
    pub udp_port: i32,
    /// `-s`: the unix socket that takes TCP's place.
    pub unix_socket: Option<PathBuf>,
    /// `-a`: permission bits of the unix socket.
    pub unix_mask: u32,
    /// Where to write the ports that were bound, from the environment's `MEMCACHED_PORT_FILENAME`.
    pub port_file: Option<PathBuf>,
    /// `-B`: what connections may speak unless their listen entry says otherwise.
    pub protocol: WireProtocol,
    /// `-Z` and the `ssl_..` options.
    pub tls: Tls,
    /// `-c`: client connections at one time, as asked for; [`Settings::conns_allowed`] says how many there may be.
    pub conns_max: usize,
    /// How many the process has descriptors for, where they are fewer.
    pub conns_short: Option<usize>,
    /// Answer an error and close when full, instead of leaving the peer in the backlog.
    pub maxconns_fast: bool,
    /// `-b`: length of the listen queue.
    pub backlog: i32,
    /// Close a connection after this long without a command; 0 never does.
    pub idle_timeout_s: u32,
    /// Seconds after which a connection is closed whose data block does not move; 0 is never.
    pub body_timeout_s: u32,
    /// Bound on the memory of all read buffers; 0 is no bound.
    pub read_buf_mem_limit_bytes: usize,

    /// `-t`: worker threads.
    pub threads: usize,
    /// `-R`: commands a connection may run before the next one's turn.
    pub reqs_per_event: u32,

    /// `-m`: bytes for items.
    pub memory_limit_bytes: usize,
    /// `-I`: largest item, header included.
    pub item_bytes_max: usize,
    /// `-f`: size of a slab class over the size of the one before.
    pub growth_factor: f64,
    /// `-n`: least bytes a chunk has for key, value and client flags.
    pub chunk_bytes_min: usize,
    /// Slab classes are those of `-f` and `-n`, because one of them was given; else they follow the items' sizes.
    pub fixed_classes: bool,
    /// Largest chunk; items above it are chained. At most a page and at most `item_bytes_max`.
    pub slab_chunk_bytes_max: usize,
    /// Chunk sizes given one by one, ascending; empty means they come from `growth_factor`.
    pub slab_sizes: Vec<usize>,
    /// `-L`: ask for huge pages behind items and table.
    pub huge_pages: bool,
    /// `-k`: keep all memory out of swap.
    pub lock_memory: bool,
    /// Off with `-C`: items carry no CAS unique.
    pub cas: bool,

    /// What commands turn later: page moves, eviction, crawler.
    pub knobs: Knobs,

    /// The table starts with 2^n buckets; 0 leaves the size to the server.
    pub hashpower_init: u8,
    /// Off with `-o no_hashexpand`: the table keeps its first size.
    pub hash_expand: bool,
    /// The hash asked for, told in `stats settings` and not used otherwise: keys are hashed with ahash.
    pub hash_algorithm: &'static str,
    /// Age after which an item still referenced at an LRU's tail is taken back; 0 never.
    pub tail_repair_time_s: u32,

    /// Keep the item size histogram of `stats sizes`.
    pub track_sizes: bool,

    /// Off with `-F`: `flush_all` is refused.
    pub flush_enabled: bool,
    /// Off with `-X`: cachedump, metadump, mgdump and `stats detail` are refused.
    pub dump_enabled: bool,
    /// Off with `-W`: `watch` is refused.
    pub watch_enabled: bool,
    /// `-Y`: the users who may log in, and nobody else may do anything; with `-S` by SASL, else by a `set`.
    pub auth_file: Option<PathBuf>,
    /// `-S`: users log in by SASL, in the binary protocol.
    pub sasl: bool,
    /// SASL's users without `-Y`, from the environment's `MEMCACHED_SASL_PWDB`.
    pub sasl_pwdb: Option<PathBuf>,

    /// The cache in a file.
    pub snapshot: Snapshot,
    /// What happened since, in another.
    pub log: Log,

    /// `-o cluster_config`: the first value of `config get cluster`.
    pub cluster_config: Option<PathBuf>,

    /// `-A`: the `shutdown` command works.
    pub shutdown_command: bool,
    /// `-o debugtime`: the command that moves the server's clock works. For tests.
    pub debugtime: bool,
    /// Counters by key prefix are kept from the start.
    pub detail_enabled: bool,
    /// `-D`: what ends the prefix of a key.
    pub prefix_delimiter: u8,
    /// Bytes buffered for each watcher.
    pub watcher_logbuf_bytes: usize,
    /// Bytes of log buffered by each worker.
    pub worker_logbuf_bytes: usize,
    /// Bytes of events kept for readers of the feed.
    pub feed_ring_bytes: usize,

    /// How many `-v` there were: 1 events, 2 commands, 3 everything.
    pub verbosity: u8,
    /// `-d`: run in the background.
    pub daemon: bool,
    /// `-P`: where the process id goes.
    pub pid_file: Option<PathBuf>,
    /// The file that the items lie in (`-e`).
    pub memory_file: Option<PathBuf>,
    /// `--takeover`: go on where the server that listens there is.
    pub takeover: bool,
    /// `--logfile`: where the log goes instead of standard error.
    pub log_file: Option<PathBuf>,
    /// `--log-format json`: a JSON object a line.
    pub log_json: bool,
    /// HTTP for operators.
    pub http: Http,
    /// The ring that the server joins.
    pub register: Register,
    /// `-o proxy_config`: the routes of a proxy.
    pub proxy_config: Option<PathBuf>,
    /// `-u`: whom to become when started as root.
    pub user: Option<String>,
    /// `-r`: let the kernel write core files of any size.
    pub coredumps: bool,
    /// What to tell the operator once there is a log.
    pub notices: Vec<String>,
}

impl Default for Settings {
    /// The values without any option. The lists of listeners are empty here: they are resolved last, from all of `-l`, `-p`, `-U` and `-s`.
    fn default() -> Self {
        Settings {
            listen: Vec::new(),
            udp_listen: Vec::new(),
            listen_given: None,
            container: None,
            tcp_port: 11211,
            udp_port: 0,
            unix_socket: None,
            unix_mask: 0o700,
            port_file: None,
            protocol: WireProtocol::Auto,
            tls: Tls::default(),
            conns_max: 1024,
            conns_short: None,
            maxconns_fast: true,
            backlog: 1024,
            idle_timeout_s: 0,
            body_timeout_s: 60,
            read_buf_mem_limit_bytes: 0,
            threads: 4,
            reqs_per_event: 20,
            memory_limit_bytes: 64 << 20,
            item_bytes_max: 1 << 20,
            growth_factor: 1.14,
            chunk_bytes_min: 48,
            fixed_classes: false,
            slab_chunk_bytes_max: SLAB_CHUNK_BYTES_MAX,
            slab_sizes: Vec::new(),
            huge_pages: false,
            lock_memory: false,
            cas: true,
            knobs: Knobs::default(),
            hashpower_init: 0,
            hash_expand: true,
            hash_algorithm: "murmur3",
            tail_repair_time_s: 0,
            track_sizes: false,
            flush_enabled: true,
            dump_enabled: true,
            watch_enabled: true,
            auth_file: None,
            sasl: false,
            sasl_pwdb: None,
            snapshot: Snapshot::default(),
            log: Log::default(),
            cluster_config: None,
            shutdown_command: false,
            debugtime: false,
            detail_enabled: false,
            prefix_delimiter: b':',
            watcher_logbuf_bytes: 256 << 10,
            worker_logbuf_bytes: 64 << 10,
            feed_ring_bytes: 16 << 20,
            verbosity: 0,
            daemon: false,
            pid_file: None,
            memory_file: None,
            takeover: false,
            log_file: None,
            log_json: false,
            http: Http::default(),
            register: Register::default(),
            proxy_config: None,
            user: None,
            coredumps: false,
            notices: Vec::new(),
        }
    }
}

/// What the options ask for.
#[derive(Debug)]
pub enum Start {
    /// Serve with these settings.
    Run(Box<Settings>),
    /// Print this to standard output and end well: `-h`, `-i`, `-V`.
    Print(String),
}

/// Why the options were refused: one line that names the option, its value and what is accepted.
#[derive(Debug)]
pub struct SettingsError {
    /// File and line of the config file; `None` on the command line.
    at: Option<(PathBuf, usize)>,
    /// The option as written, with its value: `-t 0`, `-o slab_automove=3`.
    option: String,
    reason: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value can hold anything, also line ends; the message stays one line.
        if let Some((file, line)) = &self.at {
            write!(f, "{}:{line}: ", file.display().to_string().escape_debug())?;
        }
        write!(
            f,
            "{}: {}",
            self.option.escape_debug(),
            self.reason.escape_debug()
        )
    }
}

impl Error for SettingsError {}

/// Reads the options of `args` (without the program's name) and of the config file they name. `env` looks up the
/// environment; `container` is what tells that this is a container, if anything does.
pub fn parse(
    args: impl Iterator<Item = String>,
    env: &dyn Fn(&str) -> Option<String>,
    container: Option<&'static str>,
) -> Result<Start, SettingsError> {
    let mut args: Vec<_> = args.collect();
    // Images whose entry point is the server are given its name once more: `command: memcached -m 64`.
    if let Some("memcached" | "ketch") = args.first().map(String::as_str) {
        args.remove(0);
    }
    let line = given::split(&args, None)?;
    for (long, text) in [
        ("help", help::text as fn() -> String),
        ("version", help::version),
        ("license", help::license),
    ] {
        if line.iter().any(|given| given.opt.long == long) {
            return Ok(Start::Print(text()));
        }
    }

    if let Some(print) = line.iter().find(|given| given.is("print")) {
        let page = pages::page(&print.value);
        let named = || print.error(format!("page must be one of {}", pages::PAGES.join(", ")));
        return page.map(Start::Print).ok_or_else(named);
    }

    let (config, line): (Vec<_>, Vec<_>) = line.into_iter().partition(|given| given.is("config"));
    let mut given = Vec::new();
    if let Some(config) = config.last() {
        given = conf_file::read(config)?;
        given.retain(|of_file| !of_file.adds_up() || !line.iter().any(|own| of_file.same(own)));
    }
    given.extend(line);
    let mut notices = Vec::new();
    given.retain(|one| match one.left_empty() {
        Some(notice) => {
            notices.push(notice);
            false
        }
        None => true,
    });
    if !given.iter().any(|one| one.is("listen")) {
        let listen = env("KETCH_LISTEN").filter(|value| !value.trim().is_empty());
        given.extend(listen.map(Given::listen_of_environment));
    }

    let mut settings = Settings {
        container,
        port_file: env("MEMCACHED_PORT_FILENAME").map(PathBuf::from),
        sasl_pwdb: env("MEMCACHED_SASL_PWDB").map(PathBuf::from),
        notices,
        ..Settings::default()
    };
    for one in &given {
        one.apply(&mut settings)?;
    }
    settings.finish(&given)?;
    Ok(Start::Run(Box::new(settings)))
}

impl Settings {
    /// Descriptors that are no client's: listeners, files, polls, wakers, UDP sockets, and room for refusing a connection.
    pub fn files_reserved(&self) -> usize {
        let udp_addrs: usize = self
            .udp_listen
            .iter()
            .map(|listen| listen.addrs.len())
            .sum();
        let http = match self.http.listen.len() {
            0 => 0,
            listeners => listeners + HTTP_CONNS_MAX,
        };
        self.threads * (FILES_PER_THREAD + udp_addrs) + FILES_RESERVED + http
    }

    /// The client connections that there may be at one time.
    pub fn conns_allowed(&self) -> usize {
        self.conns_short.unwrap_or(self.conns_max)
    }

    /// The client connections that `files` descriptors are enough for, at most `-c`; `None` if there would be none. What is
    /// reserved besides is less than usual, and still more than the server opens.
    pub fn conns_with(&self, files: usize) -> Option<usize> {
        let listeners: usize = self.listen.iter().map(|one| one.addrs.len()).sum();
        let least = self.files_reserved() - FILES_RESERVED + FILES_RESERVED_MIN + listeners;
        let conns = files.checked_sub(least).filter(|&conns| conns > 0)?;
        Some(conns.min(self.conns_max))
    }

    /// Checks what no option can check alone, and fills in what depends on several.
    fn finish(&mut self, given: &[Given]) -> Result<(), SettingsError> {
        checks::sizes(self, given)?;
        self.check_auth(given)?;
        let pct = |knob| self.knobs.get(knob);
        if pct(Knob::HotLruPct) + pct(Knob::WarmLruPct) > 80 {
            let reason = "hot_lru_pct and warm_lru_pct must not exceed 80 together";
            return Err(blame(given, &["hot_lru_pct", "warm_lru_pct"], reason));
        }
        self.check_udp(given)?;
        self.listen = listen::resolve(self, self.tcp_port, given)?;
        self.udp_listen = listen::resolve(self, self.udp_port, given)?;
        self.check_auth_of_listeners(given)?;
        checks::tls(self, given)?;
        checks::http(self, given)?;
        checks::snapshot(self, given)?;
        checks::register(self, given)?;
        if self.daemon {
            self.make_paths_absolute(given)?;
        }
        Ok(())
    }

    /// `-U` without `-p` moves both. A datagram cannot be encrypted, so beside `-Z` UDP would be a back door.
    fn check_udp(&mut self, given: &[Given]) -> Result<(), SettingsError> {
        let was_given = |long| given.iter().any(|one| one.is(long));
        if self.udp_port != 0 && was_given("enable-ssl") {
            let reason = "UDP must be off, -U 0, with -Z";
            return Err(blame(given, &["udp-port"], reason));
        }
        if self.udp_port != 0 && self.proxy_config.is_some() {
            let reason = "UDP must be off, -U 0, with -o proxy_config";
            return Err(blame(given, &["udp-port"], reason));
        }
        if self.udp_port != 0 && !was_given("port") {
            self.tcp_port = self.udp_port;
        }
        Ok(())
    }

    /// `-o ssl_min_version`: of versions older than TLS 1.2 rustls has none.
    fn accept_min_version(&mut self, asked: Option<TlsVersion>) {
        self.tls.min_version = asked.unwrap_or(TlsVersion::V1_2);
        if asked.is_none() {
            let notice =
                "-o ssl_min_version: TLS 1.2 is the oldest that is spoken, so it is the least";
            self.notices.push(notice.to_owned());
        }
    }

    /// A login of one protocol is none of the other, and a datagram comes from nobody in particular.
    fn check_auth(&mut self, given: &[Given]) -> Result<(), SettingsError> {
        let Some((login, protocol, name)) = self.login() else {
            return Ok(());
        };
        let is_given = |long| given.iter().any(|one| one.is(long));
        if is_given("protocol") && self.protocol != protocol {
            let reason = format!("this login is for one protocol alone: -B must be {name}");
            return Err(blame(given, &[login], reason));
        }
        // memcached has SASL insist on its own protocol, though the login is the other.
        if is_given("protocol") && self.sasl && protocol != WireProtocol::Binary {
            let reason = "SASL is for the binary protocol alone: leave out -S or -B";
            return Err(blame(given, &["enable-sasl"], reason));
        }
        self.protocol = protocol;
        let udp = given.iter().rfind(|one| one.is("udp-port"));
        if let Some(udp) = udp.filter(|udp| udp.value != "0") {
            return Err(udp.error("there is no login over UDP: -U must be 0 with -S or -Y"));
        }
        Ok(())
    }

    fn check_auth_of_listeners(&self, given: &[Given]) -> Result<(), SettingsError> {
        if let Some((_, protocol, name)) = self.login()
            && self.listen.iter().any(|one| one.protocol != protocol)
        {
            let reason = format!("with -S or -Y the protocol must be that of the login, {name}");
            return Err(blame(given, &["listen"], reason));
        }
        Ok(())
    }

    /// The option that asks for a login, and the protocol it is for. With both of them it is the login of `-Y`, as in
    /// memcached.
    fn login(&self) -> Option<(&'static str, WireProtocol, &'static str)> {
        if self.auth_file.is_some() {
            Some(("auth-file", WireProtocol::Ascii, "ascii"))
        } else if self.sasl {
            Some(("enable-sasl", WireProtocol::Binary, "binary"))
        } else {
            None
        }
    }

    /// A daemon works in `/`, its paths were written elsewhere.
    fn make_paths_absolute(&mut self, given: &[Given]) -> Result<(), SettingsError> {
        for (path, long) in [
            (&mut self.unix_socket, "unix-socket"),
            (&mut self.pid_file, "pidfile"),
            (&mut self.memory_file, "memory-file"),
            (&mut self.log_file, "logfile"),
            (&mut self.auth_file, "auth-file"),
            (&mut self.sasl_pwdb, "daemon"),
            (&mut self.cluster_config, "cluster_config"),
            (&mut self.proxy_config, "proxy_config"),
            (&mut self.snapshot.file, "snapshot"),
            (&mut self.log.file, "log"),
            (&mut self.http.token_file, "http-token-file"),
            (&mut self.tls.chain_cert, "ssl_chain_cert"),
            (&mut self.tls.key, "ssl_key"),
            (&mut self.tls.ca_cert, "ssl_ca_cert"),
        ] {
            if let Some(path) = path {
                *path = std::path::absolute(&*path)
                    .map_err(|err| blame(given, &[long], format!("no absolute path: {err}")))?;
            }
        }
        Ok(())
    }
}

/// An error about the last given one of the options named `longs`. One of them was given: their defaults agree.
fn blame(given: &[Given], longs: &[&str], reason: impl Into<String>) -> SettingsError {
    given
        .iter()
        .rfind(|one| longs.iter().any(|long| one.is(long)))
        .expect("the defaults alone pass every check, so an option caused this")
        .error(reason)
}
