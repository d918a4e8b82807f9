//! A cache in the process, before the nodes: for the few keys that are read all the time.
//!
//! ```text
//!  get: near cache --hit, its node's feed is fresh--> value      a write or delete is done: epoch of the key's group + 1, entry removed
//!            | miss                                              an event of a feed comes:  the same
//!            '--> node --> kept if epoch and feeds are what they were before the node was asked
//! ```
//!
//! Ne1. Once a write or a delete through this client (or a clone) has returned, none of its reads gives the old value from
//!     here. What others write is seen after [`NearCache::new`]'s time at most, and no value outlives its time to live by
//!     more than the second that nodes count in.
//! Ne2. Memory is bounded by [`NearCache::bytes_max`]: keys, values, and 160 bytes each.
//! Ne3. With [`NearCache::follow`], a value is given only while all is known that happened at the node it is from up to a moment
//!     that is not longer ago than the bound. When that ends, the entries from this node are worth nothing for ever: their
//!     `Trust` is another one than that of the next feed.
//! Ne4. What was asked for before a feed was armed, or the nodes changed, is not kept: nobody has told what happened meanwhile.
//! Ne5. What a key's own nodes would not tell is not kept: all that a write would go to now have a fresh feed, or none at all.
//!
//! The crate quick_cache evicts, by its variant of Clock-PRO. It brings two crates along where moka brings a dozen.

pub(crate) mod follow;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use client_core::metrics::Metrics;
use client_core::options::ClientOptions;
pub use client_core::options::NearCache;
use client_core::routing::Ring;
use client_core::value::{CasUnique, Item};

/// What an entry costs beside key and value: its handles and the cache's own bookkeeping, about.
const ENTRY_BYTES: usize = 160;
/// Nodes count CAS uniques below this one; above it are those of repairs, which say nothing of what is later.
const COUNTED: u64 = 1 << 63;
/// Groups of keys that share an epoch. With more, a write keeps fewer others from being kept.
const EPOCHS: usize = 256;
/// The same where all writes of all clients are told.
const EPOCHS_FOLLOWED: usize = 16_384;

#[derive(Debug, Clone)]
struct Entry {
    item: Item,
    until: Instant,
    given: Option<Given>,
}

/// Where an entry is from, where that matters.
#[derive(Debug, Clone)]
struct Given {
    cas: u64,
    trust: Arc<Trust>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Box<[u8]>, Entry> for ByBytes {
    fn weight(&self, key: &Box<[u8]>, entry: &Entry) -> u64 {
        (key.len() + entry.item.value.len() + ENTRY_BYTES) as u64
    }
}

/// How long what came from a node may be believed: as its feed says that was armed last.
#[derive(Debug)]
pub(crate) struct Trust {
    /// Its identity.
    node: u64,
    /// In nanoseconds since [`Trusts::begun`]. 0: never again.
    until_ns: AtomicU64,
}

impl Trust {
    /// A node that has no feed is believed without end: the entry's own time alone counts.
    const WITHOUT_END: u64 = u64::MAX;

    fn holds(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.until_ns.store(0, Ordering::Release);
    }
}

/// The nodes' feeds, as far as entries are believed by them.
#[derive(Debug)]
struct Trusts {
    begun: Instant,
    /// By identity.
    nodes: RwLock<HashMap<u64, Arc<Trust>>>,
    /// Counts feeds that were armed, and changes of the nodes.
    armings: AtomicU64,
}

impl Trusts {
    fn ns(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.begun).as_nanos() as u64
    }

    /// That of a node, if it holds now.
    fn of(nodes: &HashMap<u64, Arc<Trust>>, node: u64, now_ns: u64) -> Option<&Arc<Trust>> {
        nodes.get(&node).filter(|trust| trust.holds(now_ns))
    }

    /// That of the node that gave a value, if it holds, and that of all nodes that a write of the key goes to (Ne5).
    fn giver(&self, key: &[u8], node: u64, route: Route<'_>, now: Instant) -> Option<Arc<Trust>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let now_ns = self.ns(now);
        let takers = route.ring.takers(key, route.options);
        let is_told = |taker: usize| {
            let identity = route.ring.members[taker].identity;
            Trusts::of(&nodes, identity, now_ns).is_some()
        };
        let all_told = takers.iter().all(is_told);
        Trusts::of(&nodes, node, now_ns)
            .filter(|_| all_told)
            .cloned()
    }
}

/// How keys find their nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route<'r> {
    pub(crate) ring: &'r Ring,
    pub(crate) options: &'r ClientOptions,
}

/// See the module.
pub(crate) struct Near {
    options: NearCache,
    cache: Cache<Box<[u8]>, Entry, ByBytes>,
    hasher: RandomState,
    /// An entry is put in and taken out under its group's lock, so that none is ever in view that is older than a write.
    epochs: Box<[Mutex<u64>]>,
    /// If it follows.
    trusts: Option<Trusts>,
    metrics: Option<Arc<dyn Metrics>>,
}

/// What is to be had before the node is asked, for [`Near::keep`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch {
    of_group: u64,
    armings: u64,
}

/// What a node said.
#[derive(Debug)]
pub(crate) struct Found<'f> {
    pub(crate) key: &'f [u8],
    pub(crate) item: &'f Item,
    /// Its time to live as the node tells it, in seconds, -1 without end.
    pub(crate) left: i64,
    /// The node, and its version there.
    pub(crate) unique: CasUnique,
}

impl Near {
    pub(crate) fn new(options: NearCache, metrics: Option<Arc<dyn Metrics>>) -> Self {
        let items = (options.bytes_max / (ENTRY_BYTES as u64 + 256)).clamp(16, 1 << 20) as usize;
        let epochs = options.follow.map_or(EPOCHS, |_| EPOCHS_FOLLOWED);
        Near {
            cache: Cache::with_weighter(items, options.bytes_max, ByBytes),
            hasher: RandomState::new(),
            epochs: (0..epochs).map(|_| Mutex::new(0)).collect(),
            trusts: options.follow.map(|_| Trusts {
                begun: Instant::now(),
                nodes: RwLock::default(),
                armings: AtomicU64::new(0),
            }),
            options,
            metrics,
        }
    }

    /// Whether it follows.
    pub(crate) fn follows(&self) -> bool {
        self.trusts.is_some()
    }

    fn group(&self, key: &[u8]) -> MutexGuard<'_, u64> {
        let group = &self.epochs[self.hasher.hash_one(key) as usize % self.epochs.len()];
        group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &[u8], now: Instant) -> Option<Item> {
        let entry = self.cache.get(key)?;
        let is_good = entry.until > now && self.is_believed(&entry, now);
        if !is_good {
            self.cache.remove(key);
            return None;
        }
        Some(entry.item)
    }

    /// Whether the feed of the node that gave it is fresh (Ne3).
    fn is_believed(&self, entry: &Entry, now: Instant) -> bool {
        match (&self.trusts, &entry.given) {
            (Some(trusts), Some(given)) => given.trust.holds(trusts.ns(now)),
            _ => true,
        }
    }

    /// To be called before the node is asked.
    pub(crate) fn epoch(&self, key: &[u8]) -> Epoch {
        let trusts = self.trusts.as_ref();
        Epoch {
            armings: trusts.map_or(0, |trusts| trusts.armings.load(Ordering::Acquire)),
            of_group: *self.group(key),
        }
    }

    /// Keeps what the node said, unless the key was written since `epoch`, or may have been.
    pub(crate) fn keep(&self, found: &Found<'_>, epoch: Epoch, route: Route<'_>, now: Instant) {
        let Found {
            key, item, unique, ..
        } = *found;
        let left = match found.left {
            -1 => self.options.ttl,
            left => self
                .options
                .ttl
                .min(Duration::from_secs(left.max(0).unsigned_abs())),
        };
        if item.value.len() > self.options.value_bytes_max || left.is_zero() {
            return;
        }
        let mut given = None;
        if let Some(trusts) = &self.trusts {
            let Some(trust) = trusts.giver(key, unique.node, route, now) else {
                return;
            };
            let cas = unique.number;
            given = Some(Given { cas, trust });
        }
        // A value of a batch would keep the whole batch in memory.
        let value = Bytes::copy_from_slice(&item.value);
        let entry = Entry {
            item: Item { value, ..*item },
            until: now + left,
            given,
        };
        let group = self.group(key);
        // Looked at behind the trust: if that is a new one, so is this (Ne4).
        let trusts = self.trusts.as_ref();
        let armings = trusts.map_or(0, |trusts| trusts.armings.load(Ordering::Acquire));
        if *group != epoch.of_group || armings != epoch.armings {
            if let (Some(_), Some(metrics)) = (trusts, &self.metrics) {
                metrics.dropped_in_flight();
            }
        } else if !self.has_newer(key, &entry) {
            self.cache.insert(key.into(), entry);
        }
    }

    /// Whether there is a later version from the same node. The key's group is locked.
    fn has_newer(&self, key: &[u8], entry: &Entry) -> bool {
        let Some(given) = &entry.given else {
            return false;
        };
        let newer = |there: &Given| {
            let is_later = there.cas > given.cas && there.cas < COUNTED;
            Arc::ptr_eq(&there.trust, &given.trust) && is_later
        };
        let there = self.cache.peek(key);
        there.is_some_and(|there| there.given.as_ref().is_some_and(newer))
    }

    /// To be called when `key` was written.
    pub(crate) fn forget(&self, key: &[u8]) {
        let mut epoch = self.group(key);
        *epoch += 1;
        self.cache.remove(key);
    }

    /// To be called when everything was written.
    pub(crate) fn clear(&self) {
        for epoch in &self.epochs {
            *epoch.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        self.cache.clear();
    }

    // ---- what feeds tell ------------------------------------------------------------------------------------------

    /// The node of `trust` has stored `key`, with this version, or what it has is another for another reason (`None`).
    fn heard(&self, trust: &Arc<Trust>, key: &[u8], stored: Option<u64>) {
        let mut epoch = self.group(key);
        *epoch += 1;
        // It may be the very version that is here already. Others may be later, whatever their number: clients choose some.
        let is_it = |given: &Given| {
            Arc::ptr_eq(&given.trust, trust) && given.cas < COUNTED && stored == Some(given.cas)
        };
        let there = self.cache.peek(key);
        if there.is_some_and(|there| !there.given.as_ref().is_some_and(is_it)) {
            self.cache.remove(key);
        }
    }

    /// From now on the node tells all that happens, or has told that something is lost: what came from it before is worth nothing.
    /// What it gives from now on is believed as long as the trust that this gives says.
    fn arm(&self, node: u64, until_ns: u64) -> Arc<Trust> {
        let trust = Arc::new(Trust {
            node,
            until_ns: AtomicU64::new(until_ns),
        });
        if let Some(trusts) = &self.trusts {
            trusts.armings.fetch_add(1, Ordering::AcqRel);
            let nodes = trusts.nodes.write();
            let mut nodes = nodes.unwrap_or_else(PoisonError::into_inner);
            if let Some(before) = nodes.insert(node, trust.clone()) {
                before.end();
            }
        }
        trust
    }

    /// All that happened at the node of `trust` up to `known` was told.
    fn believe(&self, trust: &Trust, known: Instant) {
        let bound = self.options.follow.unwrap_or_default();
        if let Some(trusts) = &self.trusts {
            let until_ns = trusts.ns(known + bound);
            trust.until_ns.fetch_max(until_ns, Ordering::AcqRel);
        }
    }

    /// The node has left.
    fn part(&self, node: u64) {
        if let Some(trusts) = &self.trusts {
            let nodes = trusts.nodes.write();
            let mut nodes = nodes.unwrap_or_else(PoisonError::into_inner);
            if let Some(before) = nodes.remove(&node) {
                before.end();
            }
        }
    }

    /// The nodes are others, or another of them is asked: drops what is from a node that a write of the key does not go to.
    pub(crate) fn turn(&self, route: Route<'_>) {
        let Some(trusts) = &self.trusts else {
            return;
        };
        trusts.armings.fetch_add(1, Ordering::AcqRel);
        self.cache.retain(|key, entry| {
            let given = entry.given.as_ref();
            given.is_none_or(|given| {
                let takers = route.ring.takers(key, route.options);
                let is_from = |taker: usize| route.ring.members[taker].identity == given.trust.node;
                given.trust.until_ns.load(Ordering::Relaxed) != 0 && takers.iter().any(is_from)
            })
        });
    }
}
