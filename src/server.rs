//! Builds the cache, starts the threads, and stops them in order.
//!
//! ```text
//!  bind: ports, port file     start: unix socket, clock, maintainer, workers, listener     stop: listener, workers, the others
//!  as root, where there is a root                as the user of -u
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use slab_alloc::{Config, Sizes};

use crate::admin::Admin;
use crate::auth::{Auth, Format};
use crate::cache::{
    At, Cache, CacheConfig, How, ITEM_HEAD_BYTES, Maintainer, Opened, Restart, STEPS_PER_S,
};
use crate::clock::Clock;
use crate::membership::Membership;
use crate::net::{Bound, Handle, Listener, ListenerHandle, Tls, Worker};
use crate::settings::Settings;
use crate::snapshot::{Keeper, Log};
use crate::state::{CONFIG_LEN_MAX, Certs, Settle, Shared, StopMode, Watcher};
use crate::sys;

/// How often the clock is read: a second is never more than this late.
const CLOCK_TICK: Duration = Duration::from_millis(50);
/// How often the log writes what nobody waits for.
const LOG_TICK: Duration = Duration::from_millis(100);
/// How often what the workers follow is taken from them.
const WATCH_TICK: Duration = Duration::from_millis(100);
/// Table buckets at the start, as a power of two of items (memcached's default).
const HASH_POWER: u32 = 16;
/// Pages that the memory limit is cut into at least, unless they would become smaller than the size below.
const PAGES_MIN: usize = 1024;
/// The smallest slab page, in bytes: two of the largest chunks.
const PAGE_BYTES_MIN: usize = 64 << 10;

/// A server with its ports bound.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    auth: Option<Auth>,
    cluster: Option<Vec<u8>>,
    bound: Bound,
    tls: Option<Arc<Tls>>,
    admin: Option<Admin>,
}

impl Server {
    /// Binds the ports, and reads users and certificates, whose files may be for root's eyes. The error names the address,
    /// or the file.
    /// `handed_over` are the sockets that the service manager listens on, if it does ([`sys::handed_over`]).
    pub fn bind(settings: Settings, handed_over: Vec<OwnedFd>) -> Result<Self, String> {
        let auth = auth(&settings)?;
        let cluster = cluster(&settings)?;
        let tls = if settings.tls.enabled {
            Some(Arc::new(Tls::load(&settings.tls, Arc::default())?))
        } else {
            None
        };
        let bound = Bound::bind(&settings, handed_over)?;
        let admin = Admin::bind(&settings, tls.clone())?;
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
        } = self;
        bound.bind_unix(&settings)?;
        let keeper = Keeper::open(&settings)?;
        // What is loaded was asked for before this start.
        let begin = if keeper.is_some() {
            Clock::with_past
        } else {
            Clock::new
        };
        let boot_id = sys::boot_id();
        let (cache, restart, clock) = match &settings.memory_file {
            None => {
                let cache = cache(&settings);
                let cache = cache.map_err(|error| format!("cannot reserve memory: {error}"))?;
                (cache, None, begin())
            }
            Some(path) => {
                let opened = open(&settings, path, boot_id)?;
                tell_restart(path, &opened.restart);
                let clock = opened.now_ms.map_or_else(begin, Clock::resume);
                (opened.cache, Some(opened.restart), clock)
            }
        };
        // The memory file has what happened last.
        let is_warm = restart
            .as_ref()
            .is_some_and(|restart| restart.how != How::Cold);
        let mut shared = Shared::new(settings, cache, stop_by_client).with_auth(auth);
        (shared.clock, shared.restart, shared.boot_id) = (clock, restart, boot_id);
        let mut log = None;
        if let Some(keeper) = &keeper {
            // Before the first worker runs: who connects meanwhile waits for the first answer.
            log = keeper.load(&shared, is_warm)?;
            shared.settler = log.clone().map(|log| log as Arc<dyn Settle>);
        }
        if let Some(list) = cluster {
            shared.cluster.set(0, &list, false);
        }
        shared.certs = tls.clone().map(|tls| {
            let counters = tls.counters().clone();
            Certs::new(move || tls.reload(), counters, shared.clock.now())
        });
        let shared = Arc::new(shared);
        let keeper = keeper.map(Arc::new);
        let kept = (keeper.clone(), log);
        let addrs = bound.addrs.clone();
        let threads = Threads::start(shared.clone(), bound, tls, admin, kept)
            .map_err(|error| format!("cannot start: {error}"))?;
        // When it serves: whoever learns of it may come at once.
        let register = &shared.settings.register;
        let membership = (!register.url.is_empty())
            .then(|| Membership::begin(register, &addrs, shared.clone()))
            .transpose()
            .map_err(|error| format!("-o register={}: {error}", register.url))?;
        Ok(Running {
            shared,
            threads,
            keeper,
            membership,
        })
    }
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
fn tell_restart(path: &Path, restart: &Restart) {
    let took_ms = restart
        .steps
        .iter()
        .map(|(_, took)| took.as_millis())
        .sum::<u128>();
    let (kept, dropped) = (restart.kept, restart.dropped.iter().sum::<u64>());
    let path = path.display();
    match restart.how {
        // At a level that is always shown: somebody may have counted on the items.
        How::Cold => log::warn!("-e {path}: starting without items: {}", restart.reason),
        How::Attached => log::info!("-e {path}: {kept} items are there, after {took_ms} ms"),
        How::Walked | How::Imported => log::warn!(
            "-e {path}: {kept} items are there and {dropped} were dropped, after {took_ms} ms: {}",
            restart.reason
        ),
    }
}

/// An empty cache as the settings want it.
pub fn cache(settings: &Settings) -> io::Result<Cache> {
    let cache = Cache::new(&cache_config(settings))?;
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
            growth_factor,
            chunk_max,
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
    let by_limit = (memory_limit_bytes / PAGES_MIN).next_power_of_two();
    let by_limit = by_limit.clamp(PAGE_BYTES_MIN, slab_alloc::PAGE_BYTES_MAX);
    by_limit.max(chunk_max.next_power_of_two())
}

/// A server at work.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Threads,
    keeper: Option<Arc<Keeper>>,
    membership: Option<Membership>,
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
        self.shared.certs.is_some() || self.shared.auth.is_some()
    }

    /// Ends all threads: nobody is accepted any more, commands in progress are finished, and the connections close. Then
    /// the cache is written to its file, if it has one.
    pub fn stop(self, graceful: bool) {
        log::info!("stopping{}", if graceful { " gracefully" } else { "" });
        let Running {
            shared,
            threads,
            keeper,
            membership,
        } = self;
        // First of all, so that nobody is sent here any more.
        drop(membership);
        if let Some(auth) = &shared.auth {
            auth.close();
        }
        shared.saving.close();
        let all_well = threads.stop();
        if let Some(keeper) = keeper {
            keeper.take_last(&shared);
        }
        if all_well {
            shared.close();
        }
    }
}

#[derive(Debug)]
struct Threads {
    stop: Arc<AtomicBool>,
    listener_handle: ListenerHandle,
    listener: JoinHandle<()>,
    handles: Vec<Handle>,
    workers: Vec<JoinHandle<()>>,
    helpers: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(
        shared: Arc<Shared>,
        mut bound: Bound,
        tls: Option<Arc<Tls>>,
        admin: Option<Admin>,
        (keeper, log): (Option<Arc<Keeper>>, Option<Arc<Log>>),
    ) -> io::Result<Self> {
        // A machine that has no more than this has no room for clients either.
        sys::refill();
        let stop = Arc::new(AtomicBool::new(false));
        let named = |name: String| thread::Builder::new().name(name);
        let mut helpers = Vec::new();
        let clock = (shared.clone(), stop.clone());
        helpers.push(named("clock".into()).spawn(move || {
            let (shared, stop) = clock;
            while !stop.load(Relaxed) {
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
                thread::sleep(CLOCK_TICK);
            }
        })?);
        let maintained = (shared.clone(), stop.clone());
        helpers.push(named("maintainer".into()).spawn(move || {
            let (shared, stop) = maintained;
            let mut maintainer = Maintainer::default();
            while !stop.load(Relaxed) {
                maintainer.step(&shared.cache, At::new(shared.clock.now()));
                thread::sleep(Duration::from_secs(1) / STEPS_PER_S);
            }
        })?);
        let watched = (shared.clone(), stop.clone());
        helpers.push(named("watcher".into()).spawn(move || {
            let (shared, stop) = watched;
            let mut watcher = Watcher::default();
            while !stop.load(Relaxed) {
                watcher.step(&shared);
                thread::sleep(WATCH_TICK);
            }
        })?);
        if let Some(admin) = admin {
            let (shared, stop) = (shared.clone(), stop.clone());
            helpers.push(named("http".into()).spawn(move || {
                if let Err(error) = admin.run(&shared, &stop) {
                    log::error!("http: {error}");
                }
            })?);
        }
        if let Some(keeper) = keeper {
            let shared = shared.clone();
            helpers.push(named("snapshot".into()).spawn(move || {
                keeper.run(&shared);
            })?);
        }
        if let Some(log) = log {
            let (shared, stop) = (shared.clone(), stop.clone());
            helpers.push(named("log".into()).spawn(move || {
                while !stop.load(Relaxed) {
                    log.tick(&shared);
                    thread::sleep(LOG_TICK);
                }
            })?);
        }
        if shared.auth.is_some() {
            let shared = shared.clone();
            helpers.push(named("verifier".into()).spawn(move || {
                shared.auth.as_ref().inspect(|auth| auth.run_verifier());
            })?);
        }
        let listener = Listener::new()?;
        let listener_handle = listener.handle();
        let (mut handles, mut workers) = (Vec::new(), Vec::new());
        for index in 0..shared.settings.threads {
            let (mut worker, handle) = Worker::new(index, listener_handle.clone())?;
            worker.take_udp(&mut bound, &shared)?;
            let shared = shared.clone();
            handles.push(handle);
            workers.push(named(format!("worker {index}")).spawn(move || {
                worker
                    .run(&shared)
                    .expect("a poll only fails by our own fault");
            })?);
        }
        let (to, stop_listener) = (handles.clone(), stop.clone());
        let listener = named("listener".into()).spawn(move || {
            let ended = listener.run(&shared, bound, tls.as_deref(), &to, &stop_listener);
            ended.expect("a poll only fails by our own fault");
        })?;
        Ok(Threads {
            stop,
            listener_handle,
            listener,
            handles,
            workers,
            helpers,
        })
    }

    /// False if a thread has panicked: then nobody knows in what state it left the rest.
    fn stop(self) -> bool {
        self.stop.store(true, Relaxed);
        self.listener_handle.wake();
        self.handles.iter().for_each(Handle::stop);
        let threads = self
            .workers
            .into_iter()
            .chain([self.listener])
            .chain(self.helpers);
        let mut all_well = true;
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread has panicked");
                all_well = false;
            }
        }
        all_well
    }
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
