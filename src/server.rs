//! Builds the cache, starts the threads, and stops them in order.
//!
//! ```text
//!  bind: ports, port file     start: unix socket, clock, maintainer, workers, listener     stop: listener, workers, the others
//!  as root, where there is a root                as the user of -u                         hand_over: the others, listener, workers
//! ```
//!
//! All threads wait behind a gate until the last of them is there; where another process has served before, until it does not
//! any more ([`crate::handover`]).

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use slab_alloc::{Config, Sizes};

use crate::admin::Admin;
use crate::auth::{Auth, Format};
use crate::cache::{
    At, Cache, CacheConfig, How, ITEM_HEAD_BYTES, Maintainer, Opened, Place, Restart, STEPS_PER_S,
};
use crate::clock::Clock;
use crate::handover::{Doorbell, Estate, Predecessor, Rest, Successor};
use crate::membership::Membership;
use crate::net::{
    Bound, Carried, Handle, Left, Listener, ListenerHandle, Sockets, Tls, Watchers, WatchersHandle,
    Worker,
};
use crate::proxy::Control;
use crate::settings::Settings;
use crate::snapshot::{Keeper, Log};
use crate::state::{CONFIG_LEN_MAX, Certs, Figure, Proxying, Settle, Shared, StopMode, Watcher};
use crate::sys::{self, HandedOver};

/// How often the clock is read: a second is never more than this late.
const CLOCK_TICK: Duration = Duration::from_millis(50);
/// How often the log writes what nobody waits for.
const LOG_TICK: Duration = Duration::from_millis(100);
/// How often what the workers follow is taken from them.
const WATCH_TICK: Duration = Duration::from_millis(100);
/// Table buckets at the start, as a power of two of items (memcached's default).
const HASH_POWER: u32 = 16;
/// Pages that the memory limit is cut into at least, unless they would become smaller than the sizes below.
const PAGES_MIN: usize = 1024;
/// The smallest slab pages, in bytes: from 16 MB on 64 KB, as smaller ones have larger tails; below, where there would be few of
/// them, 32 KB, one of the largest chunks.
const PAGE_BYTES_MIN: [usize; 2] = [32 << 10, 64 << 10];

/// A server with its ports bound.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    auth: Option<Auth>,
    cluster: Option<Vec<u8>>,
    bound: Bound,
    tls: Option<Arc<Tls>>,
    admin: Option<Admin>,
    /// What the service manager has kept of a server before.
    kept_memory: Option<File>,
    /// The server that serves until this one does.
    predecessor: Option<Predecessor>,
    proxy: Option<Arc<Control>>,
}

impl Server {
    /// Binds the ports, and reads users and certificates, whose files may be for root's eyes. The error names the address,
    /// or the file.
    /// `handed_over` is what the service manager has for it ([`sys::handed_over`]), `predecessor` the server that it takes over
    /// from.
    pub fn bind(
        settings: Settings,
        mut handed_over: HandedOver,
        mut predecessor: Option<Predecessor>,
    ) -> Result<Self, String> {
        let (mut sockets, mut http) = (Sockets::default(), Vec::new());
        if let Some(Predecessor { estate, .. }) = &mut predecessor {
            check_takeover(&settings, estate)?;
            sockets = std::mem::take(&mut estate.sockets);
            http = std::mem::take(&mut estate.http);
            if estate.is_handed_over && handed_over.sockets.is_empty() {
                handed_over.sockets.append(&mut sockets.tcp);
                handed_over.sockets.append(&mut sockets.unix);
            }
        }
        let auth = auth(&settings)?;
        let cluster = cluster(&settings)?;
        let proxy = settings
            .proxy_config
            .clone()
            .map(|path| Control::open(path).map_err(|reason| format!("-o proxy_config: {reason}")));
        let proxy = proxy.transpose()?;
        let tls = if settings.tls.enabled {
            Some(Arc::new(Tls::load(&settings.tls, Arc::default())?))
        } else {
            None
        };
        let bound = Bound::bind(&settings, handed_over.sockets, &mut sockets)?;
        let admin = Admin::bind(&settings, tls.clone(), &mut http)?;
        if let Some(predecessor) = &mut predecessor {
            predecessor.estate.sockets = sockets;
        }
        let http_addrs = admin.as_ref().map(Admin::addrs).unwrap_or_default();
        if settings.listen_given.is_none() && !bound.addrs.is_empty() && !bound.is_handed_over {
            match settings.container {
                Some(sign) => log::warn!(
                    "in a container ({sign}) without -l or KETCH_LISTEN, listening on all addresses"
                ),
                None => log::warn!(
                    "without -l only this machine can connect; -l 0.0.0.0 listens on all addresses"
                ),
            }
        }
        for addr in &bound.addrs {
            log::info!("listening on {addr}");
        }
        for addr in &bound.udp_addrs {
            log::info!("listening on UDP {addr}");
        }
        for addr in &http_addrs {
            log::info!("listening on http://{addr}");
        }
        if let Some(path) = &settings.port_file {
            let ports = [
                ("TCP", &bound.addrs[..]),
                ("UDP", &bound.udp_addrs),
                ("HTTP", &http_addrs),
            ];
            let written = sys::write_port_file(path, &ports);
            written.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(Server {
            settings,
            auth,
            cluster,
            bound,
            tls,
            admin,
            kept_memory: handed_over.memory,
            predecessor,
            proxy,
        })
    }

    /// Makes the unix socket, builds the cache and starts the threads. To be called when privileges are dropped: what it
    /// makes belongs to the user who serves, and is made with no more rights than theirs.
    pub fn start(self) -> Result<Running, String> {
        let Server {
            settings,
            auth,
            cluster,
            mut bound,
            tls,
            admin,
            kept_memory,
            mut predecessor,
            proxy,
        } = self;
        let mut estate = predecessor.as_mut().map(|before| &mut before.estate);
        let mut none = Sockets::default();
        let found = estate.as_deref_mut().map(|estate| &mut estate.sockets);
        bound.bind_unix(&settings, found.unwrap_or(&mut none))?;
        let locks = estate.as_deref_mut().map(|estate| &mut estate.locks);
        let keeper = Keeper::open(&settings, locks.unwrap_or(&mut Vec::new()))?;
        let mut memory = match estate.and_then(|estate| estate.memory.take()) {
            Some(file) => Memory::Left(file),
            // What a manager keeps has no name: where there is one, there is newer memory in the file.
            None => match kept_memory.filter(|_| settings.memory_file.is_none()) {
                Some(file) => Memory::Kept(file),
                None => Memory::New,
            },
        };
        // From here on nobody serves, until this process does or the one before goes on.
        let mut rest = None;
        if let Some(predecessor) = &predecessor {
            rest = predecessor.take()?;
            memory = match (memory, &rest) {
                (Memory::Left(file), None) => {
                    log::warn!("--takeover: the server before has crashed");
                    Memory::Kept(file)
                }
                (memory, _) => memory,
            };
        }
        let boot_id = sys::boot_id();
        let begun = begin(&settings, memory, keeper.is_some(), boot_id)?;
        // The memory file has what happened last.
        let is_warm = begun
            .restart
            .as_ref()
            .is_some_and(|restart| restart.how != How::Cold);
        let mut shared = Shared::new(settings, begun.cache, stop_by_client).with_auth(auth);
        (shared.clock, shared.restart, shared.boot_id) = (begun.clock, begun.restart, boot_id);
        let mut log = None;
        if let Some(keeper) = &keeper {
            // Before the first worker runs: who connects meanwhile waits for the first answer.
            log = match &mut rest {
                Some(rest) => keeper.go_on(&shared, rest.log.take())?,
                None => keeper.load(&shared, is_warm)?,
            };
            shared.settler = log.clone().map(|log| log as Arc<dyn Settle>);
        }
        shared.proxy = proxy.clone().map(|proxy| proxy as Arc<dyn Proxying>);
        if let Some(list) = cluster {
            shared.cluster.set(0, &list, false);
        }
        if let Some((flags, list)) = rest.as_ref().and_then(|rest| rest.cluster.as_ref()) {
            shared.cluster.set(*flags, list, false);
        }
        shared.certs = tls.clone().map(|tls| {
            let counters = tls.counters().clone();
            Certs::new(move || tls.reload(), counters, shared.clock.now())
        });
        let shared = Arc::new(shared);
        let keeper = keeper.map(Arc::new);
        let addrs = bound.addrs.clone();
        let address = bound.address();
        let mut estate = self::estate(&shared, &bound, admin.as_ref(), keeper.as_deref())
            .map_err(|error| format!("cannot start: {error}"))?;
        let is_whole = rest.is_some();
        let rest = rest.unwrap_or_default();
        let conns = rest.conns.len();
        let threads = Threads::start(
            shared.clone(),
            bound,
            tls.clone(),
            admin,
            (keeper.clone(), log),
            rest.conns,
            proxy.clone(),
        )
        .map_err(|error| format!("cannot start: {error}"))?;
        if let Some(predecessor) = predecessor.as_ref().filter(|_| is_whole) {
            predecessor.commit()?;
        }
        threads.gate.open();
        if is_whole {
            let pause = Duration::from_nanos(sys::monotonic_ns().saturating_sub(rest.paused_ns));
            log::info!(
                "took over, with {conns} connections ({} with TLS were ended), after a pause of {:.1} ms",
                rest.ended,
                pause.as_secs_f64() * 1000.0
            );
            shared.carried.tell([
                ("takeover_connections", Figure::Count(conns as u64)),
                (
                    "takeover_connections_ended",
                    Figure::Count(rest.ended as u64),
                ),
                ("takeover_pause_time", Figure::Time(pause)),
            ]);
        }
        if rest.wants_snapshot {
            // Where it is asked for already, so much the better.
            let _ = shared.saving.ask();
        }
        let before = predecessor.as_mut().map(|before| &mut before.estate);
        let doorbell = match Doorbell::at(&address, before) {
            Ok(doorbell) => {
                estate.doorbell = doorbell.try_clone().ok();
                Some(Arc::new(doorbell))
            }
            Err(error) => {
                log::info!("no other process can take over: {error}");
                None
            }
        };
        // When it serves: whoever learns of it may come at once.
        let register = &shared.settings.register;
        let membership = (!register.url.is_empty())
            .then(|| Membership::begin(register, &addrs, shared.cluster.clone()))
            .transpose()
            .map_err(|error| format!("-o register={}: {error}", register.url))?;
        Ok(Running {
            shared,
            threads,
            keeper,
            membership,
            tls,
            estate: Arc::new(estate),
            doorbell,
            proxy,
        })
    }
}

/// Where the memory of a server comes from.
enum Memory {
    /// It is to be made, or found where `-e` says.
    New,
    /// The service manager has kept it.
    Kept(File),
    /// A server before has just left it.
    Left(File),
}

/// A cache, how it came up if that is to be told, and its clock.
struct Begun {
    cache: Cache,
    restart: Option<Restart>,
    clock: Clock,
}

/// `has_past`: what is loaded later was asked for before this start.
fn begin(
    settings: &Settings,
    memory: Memory,
    has_past: bool,
    boot_id: u64,
) -> Result<Begun, String> {
    let new_clock = || match has_past {
        true => Clock::with_past(),
        false => Clock::new(),
    };
    let config = cache_config(settings);
    let path = settings.memory_file.as_deref();
    let place = path.map_or(Place::Unnamed, Place::Named);
    let opened = match (memory, path) {
        (Memory::Left(file), _) => take_over(settings, file, boot_id)?,
        (Memory::Kept(file), _) => Cache::open_in(&config, place, file, boot_id)?,
        (Memory::New, Some(path)) => Cache::open(&config, path, boot_id)?,
        (Memory::New, None) => {
            let cache = cache(settings);
            let cache = cache.map_err(|error| format!("cannot reserve memory: {error}"))?;
            return Ok(Begun {
                cache,
                restart: None,
                clock: new_clock(),
            });
        }
    };
    prepare(&opened.cache, settings);
    tell_restart(place, &opened.restart);
    Ok(Begun {
        cache: opened.cache,
        restart: Some(opened.restart),
        clock: opened.now_ms.map_or_else(new_clock, Clock::resume),
    })
}

/// Goes on with the memory that a server before has just left.
pub fn take_over(settings: &Settings, memory: File, boot_id: u64) -> Result<Opened, String> {
    let path = settings.memory_file.as_deref();
    let place = path.map_or(Place::Unnamed, Place::Named);
    Cache::take_over(&cache_config(settings), place, memory, boot_id)
        .map_err(|reason| format!("--takeover: {reason}"))
}

/// Why this server cannot take over what another has; said before anything has happened.
fn check_takeover(settings: &Settings, estate: &Estate) -> Result<(), String> {
    let told = |path: Option<&Path>| match path {
        Some(path) => format!("-e {}", path.display()),
        None => "no -e".to_owned(),
    };
    let (theirs, own) = (&estate.memory_path, &settings.memory_file);
    if theirs != own {
        let (theirs, own) = (told(theirs.as_deref()), told(own.as_deref()));
        return Err(format!(
            "--takeover: the server has {theirs}, and this one {own}: name the same, or stop it first"
        ));
    }
    let memory = estate
        .memory
        .as_ref()
        .ok_or("--takeover: no memory is handed over")?;
    match Cache::cannot_take_over(&cache_config(settings), memory) {
        Some(reason) => Err(format!(
            "--takeover: {reason}: keep these options, or stop the server first, with -e to keep the items"
        )),
        None => Ok(()),
    }
}

/// What another process gets that takes over from this one, but for the doorbell.
fn estate(
    shared: &Shared,
    bound: &Bound,
    admin: Option<&Admin>,
    keeper: Option<&Keeper>,
) -> io::Result<Estate> {
    let memory_file = shared.cache.memory_file();
    let memory = memory_file.map(|memory| memory.image().file().try_clone());
    Ok(Estate {
        sockets: bound.sockets()?,
        is_handed_over: bound.is_handed_over,
        http: admin.map_or(Ok(Vec::new()), Admin::sockets)?,
        memory: memory.transpose()?,
        memory_path: shared.settings.memory_file.clone(),
        locks: keeper.map_or(Ok(Vec::new()), Keeper::share_locks)?,
        doorbell: None,
    })
}

/// `shutdown` takes the way a signal takes.
fn stop_by_client(mode: StopMode) {
    sys::raise(match mode {
        StopMode::Now => sys::Event::Stop,
        StopMode::Graceful => sys::Event::StopGracefully,
    });
}

/// The users, if there is to be a login.
fn auth(settings: &Settings) -> Result<Option<Auth>, String> {
    match (&settings.auth_file, settings.sasl, &settings.sasl_pwdb) {
        (Some(file), ..) => Auth::open(file, Format::AuthFile)
            .map(Some)
            .map_err(|error| format!("-Y {error}")),
        (None, true, Some(file)) => Auth::open(file, Format::SaslPwdb)
            .map(Some)
            .map_err(|error| format!("MEMCACHED_SASL_PWDB {error}")),
        (None, true, None) => {
            log::warn!(
                "-S: nobody can log in without MEMCACHED_SASL_PWDB, which names the file of users"
            );
            Ok(Some(Auth::nobody()))
        }
        (None, false, _) => Ok(None),
    }
}

/// Bytes for key and value in the smallest chunk that a class may open for.
const KEY_AND_VALUE_MIN: usize = 8;
/// The ratio of neighbours among the classes that are open at first. Each that holds anything costs half a page: of values of
/// 1 byte to 1 MB, 16 MB hold 13.3 MB with 1.14, 14.5 with 1.25, 14.9 with 2. But a class that opens late, as the others pay for
/// themselves, finds its items in larger ones: with 1.4 and 2, mixed sizes miss up to 20 % more on a trace of docs/eviction.md.
const GROWTH_AT_FIRST: f64 = 1.25;

/// Octaves of sizes that are told apart above the largest chunk: up to 1 MB, and all beyond. `-I` changes nothing about them, so
/// that a memory file (`-e`) is gone on with whatever it says.
const OCTAVES_ABOVE: usize = 5;

/// The node list to begin with, if there is one.
fn cluster(settings: &Settings) -> Result<Option<Vec<u8>>, String> {
    let Some(file) = &settings.cluster_config else {
        return Ok(None);
    };
    let told =
        |what: &dyn std::fmt::Display| format!("-o cluster_config: {}: {what}", file.display());
    let mut list = Vec::new();
    let opened = File::open(file).map_err(|error| told(&error))?;
    let most = CONFIG_LEN_MAX as u64 + 1;
    opened
        .take(most)
        .read_to_end(&mut list)
        .map_err(|error| told(&error))?;
    if list.len() > CONFIG_LEN_MAX {
        return Err(told(&format_args!("longer than {CONFIG_LEN_MAX} bytes")));
    }
    check_cluster(&list).map_err(|reason| told(&reason))?;
    Ok(Some(list))
}

/// Whether a node list is what clients with auto discovery read: a line with a version, and one with the nodes.
fn check_cluster(list: &[u8]) -> Result<(), String> {
    let text = str::from_utf8(list).map_err(|_| "not a text in UTF-8".to_owned())?;
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default();
    if version.trim().parse::<u64>().is_err() {
        return Err(format!(
            "line 1 must be the list's version, a number, and is {version:?}"
        ));
    }
    let nodes: Vec<_> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    if nodes.is_empty() {
        return Err("line 2 must have the nodes, HOST|IP|PORT with blanks between them".to_owned());
    }
    let is_node = |node: &&str| {
        let parts: Vec<_> = node.split('|').collect();
        // A name that was not looked up has no address.
        let [host, ip, port] = parts[..] else {
            return false;
        };
        let has_ip = ip.is_empty() || ip.parse::<IpAddr>().is_ok();
        !host.is_empty() && has_ip && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if let Some(node) = nodes.iter().find(|node| !is_node(node)) {
        return Err(format!(
            "line 2: a node must be HOST|IP|PORT, and is {node:?}"
        ));
    }
    match lines.find(|line| !line.trim().is_empty()) {
        Some(line) => Err(format!(
            "all nodes must be in line 2, with blanks between them, and there is another line, {line:?}"
        )),
        None => Ok(()),
    }
}

/// Tells how the cache came up.
fn tell_restart(place: Place<'_>, restart: &Restart) {
    let took_ms = restart
        .steps
        .iter()
        .map(|(_, took)| took.as_millis())
        .sum::<u128>();
    let (kept, dropped) = (restart.kept, restart.dropped.iter().sum::<u64>());
    match restart.how {
        // At a level that is always shown: somebody may have counted on the items.
        How::Cold => log::warn!("{place}: starting without items: {}", restart.reason),
        How::Attached => log::info!("{place}: {kept} items are there, after {took_ms} ms"),
        How::Walked | How::Imported => log::warn!(
            "{place}: {kept} items are there and {dropped} were dropped, after {took_ms} ms: {}",
            restart.reason
        ),
    }
}

/// An empty cache as the settings want it. It lies where another process can take it over, unless it is to have huge pages, which
/// that memory seldom gets, or the system does not give such memory.
pub fn cache(settings: &Settings) -> io::Result<Cache> {
    let config = cache_config(settings);
    let unnamed = match settings.huge_pages {
        true => Err(io::ErrorKind::Unsupported.into()),
        false => Cache::unnamed(&config),
    };
    let cache = unnamed.or_else(|_| Cache::new(&config))?;
    prepare(&cache, settings);
    Ok(cache)
}

/// The cache in the file at `path`, as the settings want it, with the items that are there. The error is why the server cannot
/// start.
pub fn open(settings: &Settings, path: &Path, boot_id: u64) -> Result<Opened, String> {
    let opened = Cache::open(&cache_config(settings), path, boot_id)?;
    prepare(&opened.cache, settings);
    Ok(opened)
}

fn cache_config(settings: &Settings) -> CacheConfig {
    let chunk_max = settings.slab_chunk_bytes_max;
    let chunk_min = settings.chunk_bytes_min + ITEM_HEAD_BYTES;
    let growth_factor = settings.growth_factor;
    let sizes = if !settings.slab_sizes.is_empty() {
        Sizes::List {
            sizes: settings.slab_sizes.clone(),
            chunk_max,
        }
    } else if settings.fixed_classes {
        Sizes::Growth {
            chunk_min,
            growth_factor,
            chunk_max,
        }
    } else {
        Sizes::Adaptive {
            chunk_min: ITEM_HEAD_BYTES + KEY_AND_VALUE_MIN,
            growth_factor: GROWTH_AT_FIRST,
            chunk_max,
            twins: OCTAVES_ABOVE,
        }
    };
    CacheConfig {
        slabs: Config {
            page_bytes: page_bytes(settings.memory_limit_bytes, chunk_max),
            limit_bytes: settings.memory_limit_bytes,
            sizes,
        },
        use_cas: settings.cas,
        item_bytes_max: settings.item_bytes_max,
        hash_power: match settings.hashpower_init {
            0 => HASH_POWER,
            power => u32::from(power),
        },
        hash_expand: settings.hash_expand,
        threads: settings.threads,
        knobs: settings.knobs.clone(),
    }
}

/// What of the settings is not fixed when a cache is made.
fn prepare(cache: &Cache, settings: &Settings) {
    cache.events().feed.keep(settings.feed_ring_bytes);
    cache.events().sights.keep(settings.worker_logbuf_bytes);
    if settings.huge_pages
        && let Err(error) = cache.advise_huge()
    {
        log::warn!("-L: no huge pages: {error}");
    }
    if settings.lock_memory
        && let Err(error) = cache.lock_memory()
    {
        log::warn!("-k: the memory of the items is not locked: {error}");
    }
}

/// The size of a slab page. Each class that holds anything has a page of its own that is half empty on the mean, so
/// that with few pages most of them are wasted: with 1 MB pages, 64 MB held 31 MB of values of 1 B to 500 KB, with 64 KB
/// pages 62 MB. From 1 GB on they are memcached's.
fn page_bytes(memory_limit_bytes: usize, chunk_max: usize) -> usize {
    let [least, small] = PAGE_BYTES_MIN;
    let page_bytes_min = if memory_limit_bytes < 16 << 20 {
        least
    } else {
        small
    };
    let by_limit = (memory_limit_bytes / PAGES_MIN).next_power_of_two();
    let by_limit = by_limit.clamp(page_bytes_min, slab_alloc::PAGE_BYTES_MAX);
    by_limit.max(chunk_max.next_power_of_two())
}

/// A server at work.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Threads,
    keeper: Option<Arc<Keeper>>,
    membership: Option<Membership>,
    tls: Option<Arc<Tls>>,
    estate: Arc<Estate>,
    doorbell: Option<Arc<Doorbell>>,
    proxy: Option<Arc<Control>>,
}

/// What came of handing a server over.
#[derive(Debug)]
pub enum Handed {
    /// The other process serves. This one is to end, and to leave everything as it is.
    Over,
    /// It does not, for this reason, and this process serves again.
    Back(Box<Running>, String),
}

impl Running {
    /// Reads users and certificates again. What cannot be read stays as it was. False if there is nothing to read again.
    pub fn reload(&self) -> bool {
        let certs = self.shared.certs.as_ref();
        match certs.map(|certs| certs.refresh(self.shared.clock.now())) {
            Some(Ok(())) => log::info!("SIGHUP: the certificates were read again"),
            Some(Err(reason)) => log::warn!("SIGHUP: {reason}"),
            None => {}
        }
        match self.shared.auth.as_ref().map(Auth::reload) {
            Some(Ok(count)) => log::info!("SIGHUP: {count} users"),
            Some(Err(error)) => log::error!("SIGHUP: the users stay as they were: {error}"),
            None => {}
        }
        match self.proxy.as_ref().map(|proxy| proxy.reload()) {
            Some(Ok(())) => log::info!("SIGHUP: the routes were read again"),
            Some(Err(reason)) => log::error!("SIGHUP: the routes stay as they were: {reason}"),
            None => {}
        }
        self.shared.certs.is_some() || self.shared.auth.is_some() || self.proxy.is_some()
    }

    /// Where those knock who want to take over, and what they get.
    pub fn doorbell(&self) -> Option<(Arc<Doorbell>, Arc<Estate>)> {
        let doorbell = self.doorbell.clone()?;
        Some((doorbell, self.estate.clone()))
    }

    /// The memory, if it has no name by which the next server finds it.
    pub fn unnamed_memory(&self) -> Option<&File> {
        let is_named = self.estate.memory_path.is_some();
        self.estate.memory.as_ref().filter(|_| !is_named)
    }

    /// Lets another process go on in this one's place. The error is why neither can.
    pub fn hand_over(self, successor: Successor) -> Result<Handed, String> {
        let Running {
            shared,
            mut threads,
            keeper,
            membership,
            tls,
            estate,
            doorbell,
            proxy,
        } = self;
        let wants_snapshot = shared.saving.report().is_running;
        shared.saving.close();
        if let Some(auth) = &shared.auth {
            auth.close();
        }
        threads.end_helpers();
        let paused_ns = sys::monotonic_ns();
        let mut stopped = threads
            .end(Handle::leave)
            .ok_or("a thread has panicked, so that nobody can go on")?;
        shared.clock.tick();
        let list = shared.cluster.read();
        let cluster = list
            .as_ref()
            .map(|list| (list.client_flags, list.bytes.to_vec()));
        drop(list);
        let rest = Rest {
            conns: stopped.conns,
            ended: stopped.ended,
            cluster,
            log: keeper.as_ref().and_then(|keeper| keeper.leave_log(&shared)),
            wants_snapshot,
            paused_ns,
        };
        let handed = shared.hand_over().and_then(|()| successor.hand_over(&rest));
        let Err(error) = handed else {
            // It goes on in the ring under the same name.
            std::mem::forget(membership);
            stopped.bound.disclaim();
            return Ok(Handed::Over);
        };
        successor.end();
        let reason = format!("the other process did not take over: {error}");
        // Whatever the other has done to the lists of pages.
        shared.hand_over().map_err(|error| error.to_string())?;
        let settings = &shared.settings;
        let mut config = cache_config(settings);
        // As commands have changed them.
        config.knobs = shared.cache.tuning.all();
        config.slabs.limit_bytes = shared.cache.limit_bytes();
        let path = settings.memory_file.as_deref();
        let place = path.map_or(Place::Unnamed, Place::Named);
        let memory = estate.memory.as_ref().map(File::try_clone);
        let memory = memory
            .ok_or("there is no memory to go on with")?
            .map_err(|error| error.to_string())?;
        let opened = Cache::take_over(&config, place, memory, shared.boot_id)?;
        prepare(&opened.cache, settings);
        let shared = Arc::try_unwrap(shared).map_err(|_| "a thread goes on by itself")?;
        let shared = Arc::new(shared.with_cache(opened.cache));
        if let Some(auth) = &shared.auth {
            auth.open_again();
        }
        let log = keeper.as_ref().and_then(|keeper| keeper.log().cloned());
        if let Some(log) = &log {
            log.listen_in(&shared);
        }
        let threads = Threads::start(
            shared.clone(),
            stopped.bound,
            tls.clone(),
            stopped.admin,
            (keeper.clone(), log),
            rest.conns,
            proxy.clone(),
        )
        .map_err(|error| error.to_string())?;
        threads.gate.open();
        if wants_snapshot {
            let _ = shared.saving.ask();
        }
        let running = Running {
            shared,
            threads,
            keeper,
            membership,
            tls,
            estate,
            doorbell,
            proxy,
        };
        Ok(Handed::Back(Box::new(running), reason))
    }

    /// Ends all threads: nobody is accepted any more, commands in progress are finished, and the connections close. Then
    /// the cache is written to its file, if it has one.
    pub fn stop(self, graceful: bool) {
        log::info!("stopping{}", if graceful { " gracefully" } else { "" });
        let Running {
            shared,
            mut threads,
            keeper,
            membership,
            ..
        } = self;
        // First of all, so that nobody is sent here any more.
        drop(membership);
        if let Some(auth) = &shared.auth {
            auth.close();
        }
        shared.saving.close();
        threads.end_helpers();
        let all_well = threads.end(Handle::stop).is_some();
        if let Some(keeper) = keeper {
            keeper.take_last(&shared);
        }
        if all_well {
            shared.close();
        }
    }
}

/// Something that threads wait for.
#[derive(Debug, Default)]
struct Gate {
    is_open: AtomicBool,
    waiting: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        let _waiting = self.waiting.lock();
        self.is_open.store(true, Relaxed);
        self.opened.notify_all();
    }

    /// Waits until it is open.
    fn wait(&self) {
        while !self.wait_for(Duration::MAX) {}
    }

    /// Waits until it is open, but no longer than this; true if it is.
    fn wait_for(&self, longest: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        if !self.is_open.load(Relaxed) {
            match Instant::now().checked_add(longest) {
                Some(until) => _ = self.opened.wait_until(&mut waiting, until),
                None => self.opened.wait(&mut waiting),
            }
        }
        self.is_open.load(Relaxed)
    }
}

#[derive(Debug)]
struct Threads {
    /// Opened when the threads are to begin.
    gate: Arc<Gate>,
    /// Opened when the helpers are to end, and the clock.
    end_helpers: Arc<Gate>,
    end_clock: Arc<Gate>,
    /// Set when the listener is to end.
    stop: Arc<AtomicBool>,
    listener_handle: ListenerHandle,
    watchers_handle: WatchersHandle,
    watchers: JoinHandle<()>,
    listener: JoinHandle<Bound>,
    handles: Vec<Handle>,
    workers: Vec<JoinHandle<Left>>,
    clock: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    admin: Option<JoinHandle<Admin>>,
    /// What the threads that have ended gave back.
    admin_left: Option<Admin>,
    /// False if a thread has panicked.
    all_well: bool,
}

/// What threads leave that have ended.
struct Stopped {
    bound: Bound,
    admin: Option<Admin>,
    conns: Vec<Carried>,
    ended: usize,
}

impl Threads {
    /// All threads, behind the gate. They go on with `conns`.
    fn start(
        shared: Arc<Shared>,
        mut bound: Bound,
        tls: Option<Arc<Tls>>,
        admin: Option<Admin>,
        (keeper, log): (Option<Arc<Keeper>>, Option<Arc<Log>>),
        conns: Vec<Carried>,
        proxy: Option<Arc<Control>>,
    ) -> io::Result<Self> {
        // A machine that has no more than this has no room for clients either.
        sys::refill();
        let [gate, end_helpers, end_clock] = [(); 3].map(|()| Arc::new(Gate::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let named = |name: String| thread::Builder::new().name(name);
        // Does something again and again, until it is to end.
        let repeat = |name: &str,
                      every: Duration,
                      end: &Arc<Gate>,
                      mut step: Box<dyn FnMut(&Shared) + Send>| {
            let (shared, gate, end) = (shared.clone(), gate.clone(), end.clone());
            named(name.into()).spawn(move || {
                gate.wait();
                loop {
                    step(&shared);
                    if end.wait_for(every) {
                        return;
                    }
                }
            })
        };
        let mut helpers = Vec::new();
        let clock = repeat(
            "clock",
            CLOCK_TICK,
            &end_clock,
            Box::new(|shared| {
                shared.clock.tick();
                if sys::is_short() {
                    shared.unread.wake_all();
                    if sys::refill() {
                        log::warn!(
                            "memory was short: connections that hold some are closed (response_obj_oom, read_buf_oom)"
                        );
                    }
                }
                shared.note_time();
            }),
        )?;
        let mut maintainer = Maintainer::default();
        helpers.push(repeat(
            "maintainer",
            Duration::from_secs(1) / STEPS_PER_S,
            &end_helpers,
            Box::new(move |shared| {
                maintainer.step(&shared.cache, At::new(shared.clock.now()));
            }),
        )?);
        let mut watcher = Watcher::default();
        helpers.push(repeat(
            "watcher",
            WATCH_TICK,
            &end_helpers,
            Box::new(move |shared| watcher.step(shared)),
        )?);
        if let Some(log) = log {
            helpers.push(repeat(
                "log",
                LOG_TICK,
                &end_helpers,
                Box::new(move |shared| log.tick(shared)),
            )?);
        }
        let admin = admin.map(|mut admin| {
            let (shared, gate, end) = (shared.clone(), gate.clone(), end_helpers.clone());
            named("http".into()).spawn(move || {
                gate.wait();
                if let Err(error) = admin.run(&shared, &end.is_open) {
                    log::error!("http: {error}");
                }
                admin
            })
        });
        if let Some(keeper) = keeper {
            let (shared, gate) = (shared.clone(), gate.clone());
            helpers.push(named("snapshot".into()).spawn(move || {
                gate.wait();
                keeper.run(&shared);
            })?);
        }
        if shared.auth.is_some() {
            let (shared, gate) = (shared.clone(), gate.clone());
            helpers.push(named("verifier".into()).spawn(move || {
                gate.wait();
                shared.auth.as_ref().inspect(|auth| auth.run_verifier());
            })?);
        }
        let listener = Listener::new()?;
        let listener_handle = listener.handle();
        let watchers = Watchers::new()?;
        let watchers_handle = watchers.handle();
        let (watching, gate_of_watchers) = (
            (shared.clone(), listener_handle.clone(), stop.clone()),
            gate.clone(),
        );
        let watchers = named("watchers".into()).spawn(move || {
            gate_of_watchers.wait();
            let (shared, listener, stop) = watching;
            let ended = watchers.run(&shared, &listener, &stop);
            ended.expect("a poll only fails by our own fault");
        })?;
        let (mut handles, mut workers) = (Vec::new(), Vec::new());
        for index in 0..shared.settings.threads {
            let (mut worker, handle) =
                Worker::new(index, listener_handle.clone(), watchers_handle.clone())?;
            worker.take_udp(&mut bound, &shared)?;
            worker.take_proxy(proxy.clone());
            let (shared, gate) = (shared.clone(), gate.clone());
            handles.push(handle);
            workers.push(named(format!("worker {index}")).spawn(move || {
                gate.wait();
                worker
                    .run(&shared)
                    .expect("a poll only fails by our own fault")
            })?);
        }
        for (nth, conn) in conns.into_iter().enumerate() {
            handles[nth % handles.len()].go_on(conn);
        }
        let (to, stop_listener, gate_of_all) = (handles.clone(), stop.clone(), gate.clone());
        let listener = named("listener".into()).spawn(move || {
            gate_of_all.wait();
            bound.claim();
            let ended = listener.run(&shared, bound, tls.as_deref(), &to, &stop_listener);
            ended.expect("a poll only fails by our own fault")
        })?;
        Ok(Threads {
            gate,
            end_helpers,
            end_clock,
            stop,
            listener_handle,
            watchers_handle,
            watchers,
            listener,
            handles,
            workers,
            clock,
            helpers,
            admin: admin.transpose()?,
            admin_left: None,
            all_well: true,
        })
    }

    /// Ends the threads that no client waits for.
    fn end_helpers(&mut self) {
        self.end_helpers.open();
        for helper in std::mem::take(&mut self.helpers) {
            self.all_well &= join(helper).is_some();
        }
        if let Some(admin) = self.admin.take() {
            self.admin_left = join(admin);
            self.all_well &= self.admin_left.is_some();
        }
    }

    /// Ends the others, the workers by `end`, so that nobody is served any more. None if a thread has panicked: then nobody knows
    /// in what state it left the rest.
    fn end(mut self, end: impl Fn(&Handle)) -> Option<Stopped> {
        self.stop.store(true, Relaxed);
        self.listener_handle.wake();
        // It ends first, so that workers have been told of all that it has accepted.
        let bound = join(self.listener);
        self.handles.iter().for_each(end);
        let mut left: Vec<Left> = Vec::new();
        for worker in std::mem::take(&mut self.workers) {
            match join(worker) {
                Some(worker) => left.push(worker),
                None => self.all_well = false,
            }
        }
        // Its connections are not carried over: who reads has to learn that it is another server.
        self.watchers_handle.wake();
        self.all_well &= join(self.watchers).is_some();
        self.end_clock.open();
        self.all_well &= join(self.clock).is_some();
        let mut bound = bound.filter(|_| self.all_well)?;
        left.iter_mut().for_each(|left| bound.take_back(left));
        Some(Stopped {
            bound,
            admin: self.admin_left,
            ended: left.iter().map(|left| left.ended).sum(),
            conns: left.into_iter().flat_map(|left| left.conns).collect(),
        })
    }
}

/// Waits for a thread; none if it has panicked.
fn join<R>(thread: JoinHandle<R>) -> Option<R> {
    let left = thread.join();
    if left.is_err() {
        log::error!("a thread has panicked");
    }
    left.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_list_is_what_clients_read() {
        for list in [
            "12\na|10.0.0.1|11211 b.example|10.0.0.2|11212\n",
            "1\na||11211",
            "1\r\na|::1|11211\r\n\r\n",
        ] {
            assert_eq!(check_cluster(list.as_bytes()), Ok(()), "{list:?}");
        }
        for (list, told) in [
            ("", "line 1 must be"),
            ("a|10.0.0.1|11211\n", "line 1 must be"),
            ("-1\na|10.0.0.1|11211\n", "line 1 must be"),
            ("1\n", "line 2 must have the nodes"),
            ("1\n\na|10.0.0.1|11211\n", "line 2 must have the nodes"),
            ("1\na:11211\n", "is \"a:11211\""),
            ("1\na|10.0.0.1|0\n", "is \"a|10.0.0.1|0\""),
            ("1\na|b|11211\n", "is \"a|b|11211\""),
            ("1\n|10.0.0.1|11211\n", "is \"|10.0.0.1|11211\""),
            ("1\na|10.0.0.1|11211,b|10.0.0.2|11211\n", "a node must be"),
            (
                "1\na|10.0.0.1|1\nb|10.0.0.2|1\n",
                "another line, \"b|10.0.0.2|1\"",
            ),
        ] {
            let err = check_cluster(list.as_bytes()).unwrap_err();
            assert!(err.contains(told), "{list:?}: {err}");
        }
        assert!(check_cluster(b"1\na\xff|10.0.0.1|1\n").is_err());
    }
}
