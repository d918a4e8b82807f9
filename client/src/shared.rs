//! What all clones of a client share.
//!
//! ```text
//!  Client ..\                options, snapshot of nodes and pools, values
//!  Client --- Arc<Shared> --<
//!  Client ../                ^-- set_nodes, by hand or by the thread that follows a source
//! ```

use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::Node;
use crate::near::Route;
use crate::near::follow::Follower;
use crate::observe::observed;
use crate::snapshot::{NodePool, Snapshot};
use crate::topology::follow::{self, Following};
use crate::topology::{FollowOptions, Source, SourceError, Topology};
use crate::values::Values;
use client_core::options::ClientOptions;

/// See the module.
pub(crate) struct Shared<P> {
    pub(crate) options: Arc<ClientOptions>,
    snapshot: RwLock<Arc<Snapshot<P>>>,
    pub(crate) values: Values,
    /// Whose the connections are.
    process: AtomicU32,
    parting: Mutex<()>,
    /// Ends the thread that follows the feeds of the nodes, if there is one.
    feeds: Option<Follower>,
    /// Ends the thread that follows the source of the nodes, if there is one.
    _following: Option<Following>,
    /// The client was closed: it has no nodes any more.
    closed: AtomicBool,
}

impl<P: NodePool> Shared<P> {
    pub(crate) fn new(nodes: &[Node], options: ClientOptions) -> Arc<Self> {
        Shared::led(nodes, options, None)
    }

    fn led(nodes: &[Node], options: ClientOptions, following: Option<Following>) -> Arc<Self> {
        let options = Arc::new(observed(options));
        let snapshot = Snapshot::new(nodes, &options);
        let values = Values::new(options.clone());
        let near = values.near.as_ref().filter(|near| near.follows());
        let feeds = near.and_then(|near| {
            let ring = snapshot.ring.clone();
            Follower::start(near.clone(), ring, options.clone())
                .inspect_err(|error| log::warn!("the near cache keeps nothing: {error}"))
                .ok()
        });
        Arc::new(Shared {
            snapshot: RwLock::new(Arc::new(snapshot)),
            values,
            options,
            feeds,
            process: AtomicU32::new(process::id()),
            parting: Mutex::default(),
            _following: following,
            closed: AtomicBool::new(false),
        })
    }

    /// With the nodes that `source` tells, now and as long as there is a client.
    pub(crate) fn follow(
        mut source: impl Source + 'static,
        options: ClientOptions,
        follow: FollowOptions,
        now: fn() -> Instant,
    ) -> Result<Arc<Self>, SourceError> {
        let begun = now();
        source.adopt(&options);
        let mut topology = Topology::new(source, begun)?;
        if let Some(interval) = follow.refresh_every {
            topology = topology.every(interval, begun);
        }
        let (guard, gone) = follow::guard();
        let shared = Shared::led(topology.nodes(), options, Some(guard));
        let client = Arc::downgrade(&shared);
        follow::spawn(topology, follow.dual_read, gone, move |nodes, dual_read| {
            if let Some(client) = client.upgrade() {
                client.set_nodes(nodes, dual_read, now());
            }
        })?;
        Ok(shared)
    }

    pub(crate) fn set_nodes(&self, nodes: &[Node], dual_read: Duration, now: Instant) {
        let mut snapshot = self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock, so that no list comes after the end.
        let nodes = if self.closed.load(Ordering::Relaxed) {
            &[]
        } else {
            nodes
        };
        *snapshot = Arc::new(snapshot.after(nodes, &self.options, dual_read, now));
        self.turn(&snapshot);
    }

    /// The nodes are others: so are the feeds.
    fn turn(&self, snapshot: &Snapshot<P>) {
        if let (Some(feeds), Some(near)) = (&self.feeds, &self.values.near) {
            feeds.turn(&snapshot.ring);
            near.turn(Route {
                ring: &snapshot.ring,
                options: &self.options,
            });
        }
    }

    /// Leaves all nodes, for good.
    pub(crate) fn close(&self, now: Instant) {
        self.closed.store(true, Ordering::Relaxed);
        self.set_nodes(&[], Duration::ZERO, now);
    }

    /// The nodes as they are now, for an operation that begins. After a `fork()`, the child leaves the connections to its
    /// parent: both would read each other's replies.
    pub(crate) fn begin(&self, now: Instant) -> Arc<Snapshot<P>> {
        let mut snapshot = self.snapshot();
        if snapshot.ring.has_before() && snapshot.ring.is_settled(now) {
            self.settle(now);
            snapshot = self.snapshot();
        }
        // A system call, but there is no other way to learn of it.
        let process = process::id();
        if self.process.load(Ordering::Acquire) != process {
            let _parting = self.parting.lock().unwrap_or_else(PoisonError::into_inner);
            if self.process.load(Ordering::Acquire) != process {
                for pool in &snapshot.pools {
                    pool.member().part();
                    pool.part();
                }
                self.process.store(process, Ordering::Release);
            }
        }
        snapshot
    }

    /// The time is over in which nodes that left are asked.
    fn settle(&self, now: Instant) {
        let snapshot = self.snapshot.write();
        let mut snapshot = snapshot.unwrap_or_else(PoisonError::into_inner);
        if let Some(settled) = snapshot.settled(&self.options, now) {
            *snapshot = Arc::new(settled);
            self.turn(&snapshot);
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot<P>> {
        let snapshot = self.snapshot.read();
        snapshot.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
