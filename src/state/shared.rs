//! What all commands of all connections share, and the view of it that one wakeup works with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::{fmt, io};

use protocol::{Expiry, Exptime};

use super::budget::Budget;
use super::carried::Carried;
use super::cluster::ClusterConfig;
use super::connections::Registry;
use super::dump_places::DumpPlaces;
use super::proxying::Proxying;
use super::record::Record;
use super::saving::LogReport;
use super::saving::Saving;
use crate::auth::Auth;
use crate::cache::{At, Cache, Restart};
use crate::clock::{Clock, Moment, RelTime};
use crate::events::{By, Cause, RingId};
use crate::keyspace::{Keyspace, Observer, Prefixes};
use crate::settings::Settings;
use crate::stats::{Stats, ThreadStats, TlsCounters};
use crate::sys;

/// How a client asked the server to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// At once.
    Now,
    /// After the connections have been told.
    Graceful,
}

/// TLS as the commands see it.
pub struct Certs {
    reload: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// What its connections count.
    pub counters: Arc<TlsCounters>,
    /// When the files were last read, on the server's clock.
    refreshed_at: AtomicU32,
}

impl Certs {
    /// Certificates that `reload` reads again.
    pub fn new(
        reload: impl Fn() -> Result<(), String> + Send + Sync + 'static,
        counters: Arc<TlsCounters>,
        now: RelTime,
    ) -> Self {
        Certs {
            reload: Box::new(reload),
            counters,
            refreshed_at: AtomicU32::new(now.0),
        }
    }

    /// Reads certificates and keys again, for the connections to come. The error is one line.
    pub fn refresh(&self, now: RelTime) -> Result<(), String> {
        (self.reload)()?;
        self.refreshed_at.store(now.0, Relaxed);
        Ok(())
    }

    /// Seconds since the last time.
    pub fn age_s(&self, now: RelTime) -> u32 {
        now.0.saturating_sub(self.refreshed_at.load(Relaxed))
    }
}

impl fmt::Debug for Certs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certs")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The server as its commands see it.
#[derive(Debug)]
pub struct Shared {
    /// The store.
    pub cache: Cache,
    /// The time.
    pub clock: Clock,
    /// All threads' counters.
    pub stats: Stats,
    /// What the operator asked for.
    pub settings: Settings,
    /// Counts by key prefix (`stats detail`).
    pub prefixes: Prefixes,
    /// What goes on among the keys, always.
    pub keyspace: Keyspace,
    /// The last minutes, second by second.
    pub record: Record,
    /// The places of the dumps that run.
    pub dump_places: DumpPlaces,
    /// The cluster's nodes, for clients that ask for them.
    pub cluster: Arc<ClusterConfig>,
    /// The open connections.
    pub connections: Registry,
    /// Who may use the cache; `None` lets everybody.
    pub auth: Option<Auth>,
    /// `verbosity`, as a command changes it.
    pub verbosity: AtomicU64,
    /// What data blocks that have not come whole may hold.
    pub bodies: Budget,
    /// What values in items may hold that readers have not taken: they cannot be evicted meanwhile.
    pub unread: Budget,
    /// Bytes that were resident before there was anything to cache: the program itself.
    pub base_bytes: u64,
    /// Snapshots: asked for, and what came of them.
    pub saving: Saving,
    /// Who writes down what clients are told, before they are.
    pub settler: Option<Arc<dyn Settle>>,
    /// Who passes on what this server is asked, if it is a proxy.
    pub proxy: Option<Arc<dyn Proxying>>,
    /// What was kept over the start.
    pub carried: Carried,
    /// Stops the server (`shutdown`).
    pub stop: fn(StopMode),
    /// `None` without TLS.
    pub certs: Option<Certs>,
    /// How the cache came up, if it lies in a file.
    pub restart: Option<Restart>,
    /// Which start of the machine this is.
    pub boot_id: u64,
}

impl Shared {
    /// A server's state around its store.
    pub fn new(settings: Settings, cache: Cache, stop: fn(StopMode)) -> Self {
        Shared {
            clock: Clock::new(),
            // One more than workers, for keys over HTTP.
            stats: Stats::new(settings.threads + 1),
            prefixes: Prefixes::new(settings.prefix_delimiter, settings.detail_enabled),
            record: Record::default(),
            keyspace: Keyspace::new(settings.threads + 1, settings.prefix_delimiter),
            dump_places: DumpPlaces::default(),
            cluster: Arc::default(),
            connections: Registry::default(),
            auth: None,
            verbosity: AtomicU64::new(u64::from(settings.verbosity)),
            bodies: Budget::new(settings.threads),
            unread: Budget::new(settings.threads),
            base_bytes: sys::resident_bytes().unwrap_or_default(),
            saving: Saving::new(settings.snapshot.file.is_some()),
            settler: None,
            proxy: None,
            carried: Carried::default(),
            stop,
            certs: None,
            restart: None,
            boot_id: 0,
            cache,
            settings,
        }
    }

    /// Lets nobody in who has not shown a password.
    pub fn with_auth(mut self, auth: Option<Auth>) -> Self {
        self.auth = auth;
        self
    }

    /// The same server around a cache that goes on where the one before was left, with nobody served yet.
    pub fn with_cache(self, cache: Cache) -> Self {
        let threads = self.settings.threads;
        Shared {
            cache,
            bodies: Budget::new(threads),
            unread: Budget::new(threads),
            dump_places: DumpPlaces::default(),
            saving: Saving::new(self.settings.snapshot.file.is_some()),
            ..self
        }
    }

    /// Leaves the memory file to a process that goes on with it at once; when no other thread is at work any more.
    pub fn hand_over(&self) -> io::Result<()> {
        self.cache.hand_over(&self.moment())
    }

    fn moment(&self) -> Moment {
        Moment::read(self.clock.now_ms(), self.boot_id)
    }

    /// Notes in the memory file, if there is one, what the clocks say.
    pub fn note_time(&self) {
        if self.cache.memory_file().is_some() {
            self.cache.note_time(&self.moment());
        }
    }

    /// Leaves the memory file, if there is one, to the next process; when no other thread is at work any more.
    pub fn close(&self) {
        if let Err(error) = self.cache.close(&self.moment()) {
            log::error!("-e: the memory file is not left in order: {error}");
        }
    }

    /// The view of worker `thread` for one wakeup.
    pub fn ctx(&self, thread: usize) -> Ctx<'_> {
        Ctx {
            shared: self,
            cache: &self.cache,
            stats: self.stats.thread(thread),
            observer: self.keyspace.observer(thread),
            now: self.clock.now(),
            ring: RingId(thread as u16),
        }
    }

    /// Starts counting from 0 again: what is an event, not what there is now.
    pub fn reset_counts(&self) {
        self.stats.reset();
        self.prefixes.clear();
        self.keyspace.reset();
        self.cache.reset_counters();
        self.cache.events().sights.reset();
        self.connections.counts.reset();
        if let Some(certs) = &self.certs {
            certs.counters.reset();
        }
    }

    /// Bytes of data blocks that are kept outside of item memory until there is enough of them.
    pub fn staged(&self) -> usize {
        self.bodies.staged()
    }

    /// Has `wake` called when connections of worker `thread` hold what is to give way.
    pub fn when_to_give_way(&self, thread: usize, wake: impl Fn() + Clone + Send + Sync + 'static) {
        self.bodies.wake_by(thread, wake.clone());
        self.unread.wake_by(thread, wake);
    }
}

/// One wakeup of one worker: everything a command needs, and the second it happens in.
#[derive(Debug, Clone, Copy)]
pub struct Ctx<'c> {
    /// The server.
    pub shared: &'c Shared,
    /// Its store.
    pub cache: &'c Cache,
    /// This thread's counters.
    pub stats: &'c ThreadStats,
    /// What this thread sees of the keys.
    pub observer: &'c Observer,
    /// The second.
    pub now: RelTime,
    /// Where this thread tells what it does to items.
    pub ring: RingId,
}

impl Ctx<'_> {
    /// The moment of what is asked of the store now, for this reason.
    #[inline]
    pub fn at(&self, cause: Cause) -> At {
        self.at_from(cause, 0)
    }

    /// The same, of a change that has been made elsewhere already.
    #[inline]
    pub fn at_from(&self, cause: Cause, origin: u16) -> At {
        let by = By {
            ring: self.ring,
            origin,
            cause,
        };
        At { now: self.now, by }
    }

    /// To be called before replies leave: what they acknowledge is written down by then, if it is to be.
    #[inline]
    pub fn settle(&self) {
        if self.cache.events().is_unsettled(self.ring) {
            self.settle_now();
        }
    }

    #[cold]
    fn settle_now(&self) {
        if let Some(settler) = &self.shared.settler {
            settler.settle(self.shared);
        }
    }

    /// The key's part of all reads now in thousandths, 0 if it is not hot.
    pub fn hot_share_milli(&self, key: &[u8]) -> u32 {
        let hash = self.cache.probe(key).of(key).hash().0;
        self.shared.keyspace.hot_now.share_milli(hash)
    }

    /// What a client's exptime means now.
    pub fn expires_at(&self, exptime: Exptime) -> RelTime {
        match exptime.expiry() {
            Expiry::Never => RelTime::NEVER,
            Expiry::AtOnce => RelTime::AT_ONCE,
            Expiry::In(seconds) => RelTime(self.now.0.saturating_add(seconds)),
            Expiry::At(unix_s) => self.shared.clock.expiry_at(unix_s),
        }
    }
}

/// Whoever writes down what clients were told, before they are told it.
pub trait Settle: fmt::Debug + Send + Sync {
    /// Is done, when it returns, with all events that the calling thread has told.
    fn settle(&self, shared: &Shared);

    /// What it has done so far.
    fn report(&self) -> LogReport;
}
