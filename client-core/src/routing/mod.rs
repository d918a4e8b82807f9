//! Which nodes an operation goes to, and in what order.
//!
//! ```text
//!  continuum.walk(key):   A  B  C  D  E                 copies(2), B ejected:   writes  A  C   (rehash)   A   (fail-fast)
//!                         '--'- where the key lives                             reads   A  C
//!  zones a a b b c:       A  .  C                       copies in different zones come first
//! ```
//!
//! A ring never changes: a change of the nodes makes a new one, which shares the members that stay. For a while it
//! remembers the placement before it, so that a read that misses can ask where the key was (dual read).
//!
//! T1. A node's word about a key is worth more or less (see `Trust`); a read asks those first whose word is worth most, and a
//!     node that this client owes a delete of the key is not asked at all.
//! T2. What a key's own node says, hit or miss, is final against less trusted ones: these are asked only if no such node answers.
//!     (But for the place where the key was before a change, which is asked as well.) Others are believed if they have the
//!     key; that they lack it says nothing.
//! T3. Each node that may hold a key, and does not take a write of it, is owed a delete: the ejected ones that the write
//!     passes, and those that hold the key for others. So what a client reads is never older than what it wrote.
//! T4. What a node holds for others is deleted when their owners are back and settled, by the ring of that moment.
//! T5. What an earlier placement left on a node is deleted there by whatever is done to the key, long after it is asked no more: a key
//!     that comes back to the node, as where one is added and taken away again, does not bring back what it was before.

mod change;
mod failing;
mod hot;
mod layout;
mod nodes;
mod readers;
#[cfg(test)]
mod tests;
mod told;

pub use nodes::Nodes;
pub use readers::Readers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::health::{Member, Standing};
use super::notices::Notices;
use super::options::{Ack, ClientOptions, OnEjection, Reads};
use crate::node::Node;
use hot::Hot;
use layout::Layout;
use readers::Trust;

/// One snapshot of the cluster.
#[derive(Debug)]
pub struct Ring {
    /// All nodes that may be asked: those of the placement, then those that only the placement before had.
    pub members: Vec<Arc<Member>>,
    /// How many of them are those of the placement.
    own: usize,
    /// Taken to eject a node: how many may go is decided one by one.
    ejecting: Mutex<()>,
    layout: Arc<Layout>,
    /// The placement before, in indices of `members`, and how long it is asked.
    before: Option<(Layout, Instant)>,
    /// Earlier placements, the newest first, and until when what is done to keys is told their nodes (T5). `GONE` is who left.
    former: Vec<(Layout, Instant)>,
    /// Some node may hold keys for others: from then on, writes look.
    strays: Arc<AtomicBool>,
    hot: Arc<Hot>,
    notices: Arc<Notices>,
    /// The nodes of the placement, in the order of their identities.
    circle: Vec<u16>,
    chance: AtomicU64,
}

/// True if the copies of a hot key are to share its reads. Where not all copies have taken a write when it is done, a client
/// that reads another one than before could miss what it wrote.
pub fn spreads_hot_keys(options: &ClientOptions) -> bool {
    options.copies > 1 && options.ack == Ack::All && options.reads != Reads::Spread
}

impl Ring {
    /// The first snapshot. `seed` is where chance begins.
    pub fn new(nodes: &[Node], options: &ClientOptions, seed: u64) -> Self {
        let (members, indices) = gather(nodes, &[]);
        Ring {
            circle: circle(&members, &indices),
            own: members.len(),
            ejecting: Mutex::default(),
            members,
            layout: Arc::new(Layout::new(nodes, indices, options)),
            before: None,
            former: Vec::new(),
            strays: Arc::default(),
            hot: Arc::default(),
            notices: Arc::default(),
            chance: AtomicU64::new(seed),
        }
    }

    /// The nodes that have keys now.
    pub fn current(&self) -> impl Iterator<Item = usize> + '_ {
        self.layout.members.iter().map(|&index| usize::from(index))
    }

    /// On how many nodes a key lives.
    pub fn copies(&self, options: &ClientOptions) -> usize {
        options.copies.min(self.layout.members.len())
    }

    /// The nodes that take a write, the one that decides first: that is the first whose word counts most. Every node that
    /// may have the key, and does not take the write, is told that it misses it (T3).
    pub fn writers(&self, key: &[u8], now: Instant, options: &ClientOptions) -> Nodes {
        let own = self.own(key, options);
        let all_in = own.iter().all(|node| self.members[node].is_in());
        let writers = if all_in {
            own
        } else {
            let live = self.live(&self.layout, own, key, options);
            for node in self.passed_over(key, &own, &live, options).iter() {
                self.members[node].missed(key, now, options);
            }
            for node in live.iter().filter(|&node| !own.contains(node)) {
                self.members[node].strayed(key, options);
            }
            live
        };
        if self.strays.load(Ordering::Relaxed) {
            for (node, member) in self.members.iter().enumerate() {
                if member.stands_in(key) && !writers.contains(node) {
                    member.settled_in(key);
                    member.missed(key, now, options);
                }
            }
        }
        if !all_in {
            self.strays.store(true, Ordering::Relaxed);
        }
        if writers.len() < 2 {
            return writers;
        }
        if all_in && self.all_vouch(&writers, key, now) {
            return writers;
        }
        let places = (&own, &self.before(key, now, options));
        writers.sorted_by_key(|node| {
            let trust = self.trust(node, key, places, now);
            trust.unwrap_or(Trust::Doubted)
        })
    }

    /// The nodes that a write would go to now, in no order of worth, and without telling those that it would pass over.
    pub fn takers(&self, key: &[u8], options: &ClientOptions) -> Nodes {
        self.live(&self.layout, self.own(key, options), key, options)
    }

    /// True if none of the nodes that a key lives on is ejected.
    pub fn is_whole(&self, key: &[u8], options: &ClientOptions) -> bool {
        self.ejected(key, options).is_empty()
    }

    /// Those of the nodes that a key lives on that are ejected.
    pub fn ejected(&self, key: &[u8], options: &ClientOptions) -> Nodes {
        let mut ejected = Nodes::default();
        // As a rule none is, and the key need not be looked for.
        if self.members.iter().all(|member| member.is_in()) {
            return ejected;
        }
        let own = self.own(key, options);
        let out = own.iter().filter(|&node| !self.members[node].is_in());
        out.for_each(|node| ejected.push(node));
        ejected
    }

    /// The ejected nodes that a write passes on its way to those that take it.
    fn passed_over(&self, key: &[u8], own: &Nodes, live: &Nodes, options: &ClientOptions) -> Nodes {
        let mut passed = Nodes::default();
        let ejected = |node: usize| !self.members[node].is_in();
        own.iter()
            .filter(|&node| ejected(node))
            .for_each(|node| passed.push(node));
        let mut left = match options.on_ejection {
            OnEjection::FailFast => 0,
            // It found too few, so it passed all others.
            OnEjection::Rehash if live.len() < own.len() => usize::MAX,
            OnEjection::Rehash => live.len(),
        };
        for node in self.layout.walk(key) {
            if left == 0 {
                break;
            }
            if live.contains(node) {
                left -= 1;
            } else if ejected(node) && !passed.contains(node) {
                passed.push(node);
            }
        }
        passed
    }

    /// The nodes a key lives on when all are well.
    fn own(&self, key: &[u8], options: &ClientOptions) -> Nodes {
        let copies = self.copies(options);
        self.layout.copies(key, copies, &self.members, |_| true)
    }

    /// `node` is given `key`, which may not be its own.
    pub fn given(&self, node: usize, key: &[u8], options: &ClientOptions) {
        if !self.own(key, options).contains(node) {
            self.members[node].strayed(key, options);
            self.strays.store(true, Ordering::Relaxed);
        }
    }

    /// What `node`, one that `own` a key or another, says of it is worth, if the key was at `before` until a change that is fresh;
    /// `None` if it is not to be asked.
    fn trust(
        &self,
        node: usize,
        key: &[u8],
        (own, before): (&Nodes, &Nodes),
        now: Instant,
    ) -> Option<Trust> {
        let (member, copies) = (&self.members[node], own.len());
        let is_new = || !before.is_empty() && !before.contains(node);
        match member.standing(now) {
            Standing::Ejected => None,
            _ if member.owes(key) => None,
            Standing::Settling => Some(Trust::Doubted),
            _ if copies > 1 && member.is_doubted(now) => Some(Trust::Doubted),
            Standing::Live if own.contains(node) && is_new() => Some(Trust::New),
            Standing::Live if own.contains(node) => Some(Trust::Own),
            Standing::Live => Some(Trust::StandIn),
        }
    }

    /// True if what `node` says of `key` may be given to other nodes.
    pub fn vouches(&self, node: usize, key: &[u8], now: Instant) -> bool {
        let member = &self.members[node];
        member.standing(now) == Standing::Live && !member.is_doubted(now) && !member.owes(key)
    }

    /// True if the word of all of `nodes`, whose own the key is, is worth the same, as it is as a rule.
    fn all_vouch(&self, nodes: &Nodes, key: &[u8], now: Instant) -> bool {
        self.before.is_none() && nodes.iter().all(|node| self.vouches(node, key, now))
    }

    /// The nodes that a read asks.
    pub fn readers(&self, key: &[u8], now: Instant, options: &ClientOptions) -> Readers {
        self.readers_of(key, now, options, (options.reads == Reads::Spread, false))
    }

    /// The node that a read of each of `keys` asks first, where a key lives on one node: [`Ring::readers`] of many keys at once.
    pub fn first_readers(
        &self,
        keys: &[&[u8]],
        now: Instant,
        options: &ClientOptions,
    ) -> Vec<Option<usize>> {
        let first = |key: &[u8]| self.readers(key, now, options).order.first();
        if self.copies(options) != 1 || self.before.is_some() {
            return keys.iter().map(|key| first(key)).collect();
        }
        let mut nodes = Vec::with_capacity(keys.len());
        self.layout.owners(keys, |owner| {
            let (key, member) = (keys[nodes.len()], &self.members[owner]);
            nodes.push(match member.is_in() && !member.owes(key) {
                true => Some(owner),
                false => first(key),
            });
        });
        nodes
    }

    /// The same for a read that asks for nothing but the value: copies in the client's zone come first, and while the key is hot any.
    pub fn readers_of_value(&self, key: &[u8], now: Instant, options: &ClientOptions) -> Readers {
        let is_hot = spreads_hot_keys(options) && self.hot.is_hot(key, now);
        let is_spread = is_hot || options.reads == Reads::Spread;
        self.readers_of(key, now, options, (is_spread, !is_hot))
    }

    /// A node said that `key` is hot.
    pub fn note_hot(&self, key: &[u8], now: Instant) {
        self.hot.note(key, now);
    }

    fn readers_of(
        &self,
        key: &[u8],
        now: Instant,
        options: &ClientOptions,
        (is_spread, by_zone): (bool, bool),
    ) -> Readers {
        let copies = self.copies(options);
        if copies == 1
            && self.before.is_none()
            && let Some(owner) = self.layout.owner(key)
            && self.members[owner].is_in()
            && !self.members[owner].owes(key)
        {
            return Readers::own(Nodes::one(owner));
        }
        let own = self.own(key, options);
        let mut live = self.live(&self.layout, own, key, options);
        let count = live.len();
        if is_spread && count > 1 {
            live.rotate((self.random() % count as u64) as usize);
        }
        if by_zone
            && count > 1
            && let Some(zone) = &options.zone
        {
            let is_near = |node: &usize| self.members[*node].node.zone.as_deref() == Some(zone);
            let mut near_first = Nodes::default();
            let near = live.iter().filter(is_near);
            let far = live.iter().filter(|node| !is_near(node));
            near.chain(far).for_each(|node| near_first.push(node));
            live = near_first;
        }
        if live.iter().all(|node| own.contains(node)) && self.all_vouch(&live, key, now) {
            return Readers::own(live);
        }
        let mut readers = Readers::default();
        let before = self.before(key, now, options);
        for node in live.iter() {
            match self.trust(node, key, (&own, &before), now) {
                Some(trust) => readers.push(node, trust),
                None => readers.owing = true,
            }
            if own.contains(node) && self.members[node].standing(now) == Standing::Settling {
                readers.settling.push(node);
            }
        }
        for node in before.iter() {
            if live.contains(node) {
                continue;
            }
            match self.trust(node, key, (&own, &before), now) {
                Some(Trust::Doubted) => readers.push(node, Trust::Doubted),
                Some(_) => readers.push(node, Trust::Before),
                None => {}
            }
        }
        readers
    }

    /// `own` without ejected nodes, and their stand-ins if there are to be any.
    fn live(&self, layout: &Layout, own: Nodes, key: &[u8], options: &ClientOptions) -> Nodes {
        let is_in = |node: usize| self.members[node].is_in();
        if own.iter().all(is_in) {
            return own;
        }
        match options.on_ejection {
            OnEjection::Rehash => layout.copies(key, own.len(), &self.members, is_in),
            OnEjection::FailFast => {
                let mut live = Nodes::default();
                own.iter()
                    .filter(|&node| is_in(node))
                    .for_each(|node| live.push(node));
                live
            }
        }
    }

    /// True if more than one node may have `key`.
    pub fn has_others(&self, key: &[u8], now: Instant, options: &ClientOptions) -> bool {
        self.readers(key, now, options).order.len() > 1
    }

    /// Any number (SplitMix64).
    pub fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .chance
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Indices in the order of the members' identities, each once.
fn circle(members: &[Arc<Member>], indices: &[u16]) -> Vec<u16> {
    let mut circle = indices.to_vec();
    circle.sort_by_key(|&index| members[usize::from(index)].identity);
    circle.dedup();
    circle
}

/// The members for `nodes`, taken from `old` where the name is known, and for each node the index of its member.
fn gather(nodes: &[Node], old: &[Arc<Member>]) -> (Vec<Arc<Member>>, Vec<u16>) {
    let old: HashMap<&str, &Arc<Member>> =
        old.iter().map(|member| (&*member.name, member)).collect();
    let mut members: Vec<Arc<Member>> = Vec::new();
    let mut indices = Vec::new();
    for node in nodes {
        let fresh = Member::new(node.clone());
        let index = match members.iter().position(|member| member.name == fresh.name) {
            Some(index) => index,
            None => {
                // Same name, but the zone may have changed: then it begins anew.
                let known = old
                    .get(&*fresh.name)
                    .filter(|member| member.node.zone == fresh.node.zone);
                members.push(known.map_or_else(|| Arc::new(fresh), |member| Arc::clone(member)));
                members.len() - 1
            }
        };
        indices.push(index as u16);
    }
    (members, indices)
}
