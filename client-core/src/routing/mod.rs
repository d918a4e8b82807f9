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

mod hot;
mod layout;
mod nodes;
mod readers;

pub use nodes::Nodes;
pub use readers::Readers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::health::{Marks, Member, Standing};
use super::notices::{Notices, WITNESSES};
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

/// In a former placement, a node that is not in the ring any more.
const GONE: u16 = u16::MAX;
/// How many former placements are known, and how long after reads are done with them.
const FORMER_MAX: usize = 4;
const FORMER_FOR: Duration = Duration::from_secs(3600);

/// How often it is looked whether stand-ins are still needed, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

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

    /// The snapshot after this one; until `dual_until`, what is missing is looked for where this one had it.
    pub fn after(&self, nodes: &[Node], options: &ClientOptions, dual_until: Instant) -> Self {
        let (mut members, indices) = gather(nodes, &self.members);
        let own = members.len();
        let mut before = (*self.layout).clone();
        for index in &mut before.members {
            let member = &self.members[usize::from(*index)];
            let known = members.iter().position(|other| Arc::ptr_eq(other, member));
            let known = known.unwrap_or_else(|| {
                members.push(member.clone());
                members.len() - 1
            });
            *index = known as u16;
        }
        let mut former = self.placements_before();
        for (layout, _) in &mut former {
            for index in &mut layout.members {
                let member = self.members.get(usize::from(*index));
                let known = |other: &Arc<Member>| member.is_some_and(|one| Arc::ptr_eq(other, one));
                *index = members[..own]
                    .iter()
                    .position(known)
                    .map_or(GONE, |at| at as u16);
            }
        }
        Ring {
            circle: circle(&members, &indices),
            own,
            ejecting: Mutex::default(),
            members,
            layout: Arc::new(Layout::new(nodes, indices, options)),
            before: Some((before, dual_until)),
            former,
            strays: self.strays.clone(),
            hot: self.hot.clone(),
            notices: self.notices.clone(),
            chance: AtomicU64::new(self.random()),
        }
    }

    /// The placements before this one, the newest first, and until when what is done to keys is told their nodes.
    fn placements_before(&self) -> Vec<(Layout, Instant)> {
        let before = self.before.as_ref();
        let before = before.map(|(layout, until)| (layout.clone(), *until + FORMER_FOR));
        let all = before.into_iter().chain(self.former.iter().cloned());
        all.take(FORMER_MAX).collect()
    }

    /// Where former placements had the key, but for `nodes` (T5).
    pub fn former_only(
        &self,
        key: &[u8],
        nodes: &Nodes,
        now: Instant,
        options: &ClientOptions,
    ) -> Nodes {
        let mut others = Nodes::default();
        let former = self.former.iter().filter(|(_, until)| now < *until);
        // The one before is among them when its window is over.
        let over = |until: Instant| until <= now && now < until + FORMER_FOR;
        let before = self.before.iter().filter(|(_, until)| over(*until));
        for (layout, _) in before.chain(former) {
            let is_there = |node: usize| node < self.own;
            let copies = options.copies.min(layout.members.len());
            let had = layout.copies(key, copies, &self.members, is_there);
            had.iter().for_each(|node| {
                if !nodes.contains(node) && !others.contains(node) {
                    others.push(node);
                }
            });
        }
        others
    }

    /// True if the placement before is not asked any more.
    #[inline]
    pub fn is_settled(&self, now: Instant) -> bool {
        self.before.as_ref().is_none_or(|(_, until)| *until <= now)
    }

    /// True if it knows of a placement before.
    #[inline]
    pub fn has_before(&self) -> bool {
        self.before.is_some()
    }

    /// The same, without the placement before and the nodes that only it has.
    pub fn settled(&self) -> Self {
        let mut former = self.placements_before();
        let indices = former
            .iter_mut()
            .flat_map(|(layout, _)| &mut layout.members);
        indices
            .filter(|index| usize::from(**index) >= self.own)
            .for_each(|index| *index = GONE);
        Ring {
            circle: self.circle.clone(),
            members: self.members[..self.own].to_vec(),
            own: self.own,
            ejecting: Mutex::default(),
            layout: self.layout.clone(),
            before: None,
            former,
            strays: self.strays.clone(),
            hot: self.hot.clone(),
            notices: self.notices.clone(),
            chance: AtomicU64::new(self.random()),
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

    /// Those of the nodes that a key lives on that others are to be told of: the ejected ones, and those that fail.
    pub fn noticed(&self, key: &[u8], now: Instant, options: &ClientOptions) -> Nodes {
        let mut noticed = Nodes::default();
        let is_noticed = |member: &Member| !member.is_in() || member.is_failing(now, options);
        if options.copies < 2 || !self.members.iter().any(|member| is_noticed(member)) {
            return noticed;
        }
        let own = self.own(key, options);
        let those = own.iter().filter(|&node| is_noticed(&self.members[node]));
        those.for_each(|node| noticed.push(node));
        noticed
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

    /// Looks which keys `node` holds for others that are needed there no more: those whose own nodes are all back, and
    /// settled. They are to be deleted. What has become the node's own by a change of the list stays.
    fn sweep(&self, node: usize, now: Instant, options: &ClientOptions) {
        let member = &self.members[node];
        let settled = |&node: &usize| self.members[node].standing(now) == Standing::Live;
        let mut needed = false;
        for key in member.sweep_due(now) {
            let own = self.own(&key, options);
            if own.contains(node) {
                member.settled_in(&key);
            } else if own.iter().all(|node| settled(&node)) {
                member.settled_in(&key);
                member.missed(&key, now, options);
            } else {
                needed = true;
            }
        }
        if needed {
            member.sweep_by(now + options.settle.max(SWEEP_EVERY));
        }
    }

    /// An exchange with `node` failed by its fault: perhaps it is ejected. Of the nodes of the placement, at most a share
    /// ([`eject_share`](ClientOptions::eject_share)) is out at a time, and never the last: where most seem to be down, it is
    /// more likely that the network is, or this process, and who keeps trying notices first when it is over.
    pub fn failed(&self, node: usize, now: Instant, options: &ClientOptions) -> bool {
        let member = &self.members[node];
        let ejecting = self.ejecting.lock();
        let _ejecting = ejecting.unwrap_or_else(PoisonError::into_inner);
        let may_go = || {
            let out = self.members[..self.own].iter().filter(|one| !one.is_in());
            node >= self.own || out.count() < self.out_max(options)
        };
        let ejected = member.failed(now, options, self.random(), may_go);
        if ejected && let Some(metrics) = &options.metrics {
            metrics.ejected(&member.name);
        }
        ejected
    }

    /// How many nodes may be ejected at a time: one where there is another, and more if the share says so.
    fn out_max(&self, options: &ClientOptions) -> usize {
        let share = (self.own as f64 * options.eject_share.clamp(0.0, 1.0)) as usize;
        share.max(1).min(self.own.saturating_sub(1))
    }

    /// An exchange with `node` ended well. If it had seemed to be down, others may be back as well.
    #[inline]
    pub fn worked(&self, node: usize, options: &ClientOptions) {
        if self.members[node].worked(options) {
            self.members.iter().for_each(|member| member.hurry(options));
        }
    }

    /// A probe of `node` was not answered. While there is no node to ask, probes are the only way back: they come often.
    pub fn probe_failed(&self, node: usize, now: Instant, options: &ClientOptions) {
        let all_out = self.members[..self.own].iter().all(|one| !one.is_in());
        let at_most = match all_out {
            true => options.probe_after,
            false => options.probe_after_max,
        };
        self.members[node].probe_failed(now, options, self.random(), at_most);
    }

    /// Counts the failures of `node` that nobody waited for; see [`Member::tend`].
    pub fn tend(&self, node: usize, now: Instant, options: &ClientOptions) {
        let failed = || self.failed(node, now, options);
        self.members[node].tend(now, options, failed);
        self.sweep(node, now, options);
    }

    /// A probe of `node` was answered.
    pub fn probe_answered(&self, node: usize, now: Instant, options: &ClientOptions) -> bool {
        let back = self.members[node].probe_answered(now, options);
        if back {
            self.members.iter().for_each(|member| member.hurry(options));
            let settled_at = now + options.settle;
            self.members
                .iter()
                .for_each(|member| member.sweep_by(settled_at));
        }
        back
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

    /// True if the caller is to ask what other clients tell of nodes.
    pub fn asks_for_notices(&self, now: Instant, options: &ClientOptions) -> bool {
        // Also where repairs carry over what moved: whether they can be marked there is asked with it.
        let unknown = |node: usize| self.members[node].marks() == Marks::Unknown;
        let asks = options.copies > 1 || (self.has_before() && self.current().any(unknown));
        asks && self.circle.len() > 1 && self.notices.is_due(now)
    }

    /// True if other clients do not know yet which of the nodes that `key` lives on are ejected.
    pub fn is_to_be_told(&self, key: &[u8], now: Instant, options: &ClientOptions) -> bool {
        if options.copies < 2 || self.members.iter().all(|member| member.is_in()) {
            return false;
        }
        let ejected = self.ejected(key, options);
        let held = |node: usize| {
            self.members[node]
                .held_until(now)
                .is_none_or(|until| now < until)
        };
        ejected.iter().any(held)
    }

    /// The nodes that a notice about `node` is on.
    pub fn witnesses(&self, node: usize) -> impl Iterator<Item = usize> {
        let at = self.circle.iter().position(|&one| usize::from(one) == node);
        let others = self.circle.len().saturating_sub(1);
        let count = at.map_or(0, |_| WITNESSES.min(others));
        let at = at.unwrap_or(0);
        let next = (1..=count).map(move |step| self.circle[(at + step) % self.circle.len()]);
        next.map(usize::from)
    }

    /// The nodes that `witness` has the notices of.
    pub fn witnessed(&self, witness: usize) -> impl Iterator<Item = usize> {
        let nodes = self.circle.iter().map(|&node| usize::from(node));
        nodes.filter(move |&node| self.witnesses(node).any(|one| one == witness))
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
        self.readers_of(key, now, options, options.reads == Reads::Spread)
    }

    /// The same for a read that asks for nothing but the value: while the key is hot any copy comes first.
    pub fn readers_of_value(&self, key: &[u8], now: Instant, options: &ClientOptions) -> Readers {
        let is_hot = spreads_hot_keys(options) && self.hot.is_hot(key, now);
        self.readers_of(key, now, options, is_hot || options.reads == Reads::Spread)
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
        is_spread: bool,
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

    /// Where the key was before the last change, while that is fresh.
    pub fn before(&self, key: &[u8], now: Instant, options: &ClientOptions) -> Nodes {
        match &self.before {
            Some((before, until)) if now < *until => {
                let copies = options.copies.min(before.members.len());
                before.copies(key, copies, &self.members, |_| true)
            }
            _ => Nodes::default(),
        }
    }

    /// Those of [`before`](Self::before) that are not among `nodes`.
    pub fn before_only(
        &self,
        key: &[u8],
        nodes: &Nodes,
        now: Instant,
        options: &ClientOptions,
    ) -> Nodes {
        let mut others = Nodes::default();
        let before = self.before(key, now, options);
        let left = before.iter().filter(|&node| !nodes.contains(node));
        left.for_each(|node| others.push(node));
        others
    }

    /// The nodes that have keys now, and while a change is fresh those that had some before it.
    pub fn everywhere(&self, now: Instant) -> Vec<usize> {
        let before = self.before.as_ref().filter(|(_, until)| now < *until);
        let before = before.into_iter().flat_map(|(layout, _)| &layout.members);
        let mut nodes: Vec<usize> = self.current().collect();
        nodes.extend(before.map(|&index| usize::from(index)));
        nodes.sort_unstable();
        nodes.dedup();
        nodes
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// `nodes` as `name@zone`, and on how many of them a key lives.
    fn ring(nodes: &[&str], copies: usize) -> (Ring, ClientOptions, Vec<Node>) {
        let nodes: Vec<Node> = nodes.iter().map(|node| node.parse().unwrap()).collect();
        let options = ClientOptions::default().copies(copies);
        (Ring::new(&nodes, &options, 1), options, nodes)
    }

    fn keys() -> impl Iterator<Item = Vec<u8>> {
        (0..500).map(|i| format!("key{i}").into_bytes())
    }

    /// The names of the nodes that take a write of `key`.
    fn homes(ring: &Ring, options: &ClientOptions, key: &[u8]) -> Vec<String> {
        let writers = ring.writers(key, Instant::now(), options);
        let names = writers.iter().map(|node| ring.members[node].name.clone());
        names.map(|name| name.to_string()).collect()
    }

    /// The zones of the nodes that take a write of `key`.
    fn zones(ring: &Ring, options: &ClientOptions, key: &[u8]) -> Vec<Option<String>> {
        let writers = ring.writers(key, Instant::now(), options);
        let zones = writers
            .iter()
            .map(|node| ring.members[node].node.zone.clone());
        zones.collect()
    }

    fn distinct<T: Ord + Clone>(all: &[T]) -> usize {
        let mut all = all.to_vec();
        all.sort();
        all.dedup();
        all.len()
    }

    #[test]
    fn copies_share_the_reads_of_a_hot_key() {
        let (ring, options, _) = ring(&["a", "b", "c", "d"], 3);
        let now = Instant::now();
        let firsts = |key: &[u8], options: &ClientOptions, now| {
            let first = |_| ring.readers_of_value(key, now, options).order.first();
            distinct(&(0..100).map(first).collect::<Vec<_>>())
        };
        assert_eq!(firsts(b"k", &options, now), 1);
        ring.note_hot(b"k", now);
        assert_eq!(firsts(b"k", &options, now), 3);
        assert_eq!(firsts(b"other", &options, now), 1);
        assert_eq!(firsts(b"k", &options, now + Duration::from_secs(3)), 1);
        // One that waits for fewer copies might miss there what it wrote.
        assert_eq!(firsts(b"k", &options.clone().ack(Ack::Quorum), now), 1);
        // Who asks for more than the value asks the first copy.
        let first = |_| ring.readers(b"k", now, &options).order.first();
        assert_eq!(distinct(&(0..100).map(first).collect::<Vec<_>>()), 1);
    }

    #[test]
    fn at_most_a_share_is_ejected_and_never_the_last() {
        for (nodes, share, out) in [
            (1, 0.5, 0),
            (2, 0.5, 1),
            (3, 0.5, 1),
            (5, 0.5, 2),
            (4, 1.0, 3),
        ] {
            let names: Vec<String> = (0..nodes).map(|at| format!("n{at}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (ring, options, _) = ring(&names, 1);
            let options = options.eject_share(share);
            let now = Instant::now();
            for _ in 0..5 {
                (0..nodes).for_each(|node| {
                    ring.failed(node, now, &options);
                });
            }
            let is_out = |member: &&Arc<Member>| !member.is_in();
            assert_eq!(ring.members.iter().filter(is_out).count(), out, "{nodes}");
            for key in keys() {
                assert_eq!(
                    ring.readers(&key, now, &options).order.len(),
                    1,
                    "one is tried"
                );
            }
        }
    }

    #[test]
    fn copies_are_in_as_many_zones_as_there_are() {
        let racks = ["a1@a", "a2@a", "a3@a", "b1@b", "c1@c", "c2@c"];
        for copies in 1..=6 {
            let (ring, options, _) = ring(&racks, copies);
            for key in keys() {
                let homes = homes(&ring, &options, &key);
                assert_eq!(
                    (homes.len(), distinct(&homes)),
                    (copies, copies),
                    "{homes:?}"
                );
                let zones = zones(&ring, &options, &key);
                assert_eq!(distinct(&zones), copies.min(3), "{zones:?}");
                assert_eq!(
                    distinct(&zones[..copies.min(3)]),
                    copies.min(3),
                    "other zones first: {zones:?}"
                );
            }
        }
    }

    #[test]
    fn a_node_without_a_zone_is_a_zone_of_its_own() {
        let (ring, options, _) = ring(&["a1@a", "a2@a", "x", "y"], 3);
        for key in keys() {
            let zones = zones(&ring, &options, &key);
            let in_a = zones.iter().filter(|zone| zone.is_some()).count();
            assert_eq!(in_a, 1, "{zones:?}");
        }
    }

    #[test]
    fn the_owner_is_the_same_with_zones_and_without() {
        let (zoned, options, _) = ring(&["n1@a", "n2@a", "n3@b", "n4@b"], 2);
        let (plain, _, _) = ring(&["n1", "n2", "n3", "n4"], 2);
        let mut others = 0;
        for key in keys() {
            let (zoned, plain) = (homes(&zoned, &options, &key), homes(&plain, &options, &key));
            assert_eq!(zoned[0], plain[0]);
            others += usize::from(zoned[1] != plain[1]);
        }
        assert!(
            others > 50,
            "{others}: zones change where the second copy is"
        );
    }

    /// With zones, a node that joins takes keys, and what does not go to it stays where it was.
    #[test]
    fn a_node_that_joins_moves_copies_to_itself_only() {
        let old = ["a1@a", "a2@a", "b1@b", "b2@b", "c1@c", "c2@c"];
        let (before, options, nodes) = ring(&old, 2);
        let mut grown = nodes;
        grown.push("b3@b".parse().unwrap());
        let after = before.after(&grown, &options, Instant::now());
        let mut moved = 0;
        for key in keys() {
            let (was, is) = (
                homes(&before, &options, &key),
                homes(&after, &options, &key),
            );
            let new: Vec<&String> = is.iter().filter(|node| !was.contains(node)).collect();
            moved += new.len();
            // Beside the new node only a copy that has to leave its zone to it: one at most.
            assert!(
                new.is_empty() || is.iter().any(|node| node.starts_with("b3:")),
                "{was:?} {is:?}"
            );
            assert!(new.len() <= 2 && zones(&after, &options, &key).len() == 2);
        }
        // Of 1,000 copies a seventh, and those that left.
        assert!((70..300).contains(&moved), "{moved} of 1000 copies moved");
    }

    #[test]
    fn an_ejected_node_is_stood_in_for_from_its_zone_or_another() {
        let (ring, options, _) = ring(&["a1@a", "a2@a", "b1@b", "b2@b"], 2);
        let now = Instant::now();
        for _ in 0..options.eject_after {
            ring.members[0].failed(now, &options, 0, || true);
        }
        assert!(!ring.members[0].is_in());
        for key in keys() {
            let homes = homes(&ring, &options, &key);
            assert_eq!(distinct(&homes), 2);
            assert!(!homes.iter().any(|node| node.starts_with("a1:")));
            let zones = zones(&ring, &options, &key);
            assert_eq!(distinct(&zones), 2, "still in two zones: {homes:?}");
        }
    }

    #[test]
    fn members_stay_through_a_change_and_places_before_are_known_for_a_while() {
        let (ring, options, nodes) = ring(&["n1", "n2", "n3", "n4"], 1);
        let now = Instant::now();
        let until = now + Duration::from_secs(60);
        let mut fewer = nodes.clone();
        let gone = fewer.remove(0);
        let after = ring.after(&fewer, &options, until);
        assert!(after.members.iter().all(|member| {
            let old = ring.members.iter();
            old.filter(|other| Arc::ptr_eq(other, member)).count() == 1
        }));
        for key in keys() {
            let was = ring.writers(&key, now, &options).first().unwrap();
            let was = &ring.members[was].name;
            let before = after.before(&key, now, &options).first().unwrap();
            assert_eq!(&after.members[before].name, was);
            let readers = after.readers(&key, now, &options);
            let moved = **was == gone.address();
            assert_eq!(readers.order.len(), 1 + usize::from(moved));
            assert_eq!(readers.has_before(), moved);
            assert_eq!(after.readers(&key, until, &options).order.len(), 1);
        }
        assert_eq!(after.everywhere(now).len(), 4);
        assert_eq!(after.everywhere(until).len(), 3);
        // The same list again, without a window: what is gone is let go.
        let settled = after.after(&fewer, &options, now);
        assert_eq!(settled.everywhere(now).len(), 3);
        assert_eq!(settled.members.len(), 3);
    }
}
