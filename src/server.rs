//! Builds the cache, starts the threads, and stops them in order.
//!
//! ```text
//!  bind: ports, port file     start: unix socket, clock, maintainer, workers, listener     stop: listener, workers, the others
//!  as root, where there is a root                as the user of -u                         hand_over: the others, listener, workers
//! ```
//!
//! All threads wait behind a gate until the last of them is there; where another process has served before, until it does not
//! any more ([`crate::handover`]).

mod memory;
mod node_list;
mod threads;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::Admin;
use crate::auth::{Auth, Format};
use crate::cache::{Cache, How, Place};
use crate::handover::{Doorbell, Estate, Predecessor, Rest, Successor};
use crate::membership::Membership;
use crate::net::{Bound, Handle, Sockets, Tls, load_node_tls};
use crate::proxy::Control;
use crate::settings::Settings;
use crate::snapshot::Keeper;
use crate::state::{Certs, Figure, Proxying, Settle, Shared, StopMode};
use crate::sys::{self, HandedOver};
use memory::{Memory, begin, cache_config, check_takeover, prepare};
pub use memory::{cache, open, take_over};
use node_list::node_list;
use threads::Threads;

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
        let cluster = node_list(&settings)?;
        let proxy = settings.proxy_config.clone().map(|path| {
            Control::open(path, load_node_tls)
                .map_err(|reason| format!("-o proxy_config: {reason}"))
        });
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
        // Now, not a moment later: one that is killed before says in which boot it was.
        shared.note_time();
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
        // Whoever knows that it serves may knock. Until this process has followed another, that one's bell is that one's.
        let mut doorbell = match predecessor {
            Some(_) => None,
            None => bell(&address, None),
        };
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
        if let Some(predecessor) = &mut predecessor {
            doorbell = doorbell.or_else(|| bell(&address, Some(&mut predecessor.estate)));
        }
        estate.doorbell = doorbell.as_ref().and_then(|bell| bell.try_clone().ok());
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
            doorbell: doorbell.map(Arc::new),
            proxy,
        })
    }
}

/// Where others knock; none where the system has nothing of the kind.
fn bell(address: &str, before: Option<&mut Estate>) -> Option<Doorbell> {
    Doorbell::at(address, before)
        .inspect_err(|error| log::info!("no other process can take over: {error}"))
        .ok()
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
