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

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::health::{Member, Standing};
use super::options::{COPIES_MAX, ClientOptions, OnEjection, Reads};
use crate::Node;
use crate::continuum::Continuum;

/// A few nodes, by index in the ring: the copies of a key, and as many of the placement before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Nodes {
    len: u8,
    nodes: [u16; NODES_MAX],
}

const NODES_MAX: usize = 2 * COPIES_MAX;

impl Nodes {
    fn one(node: usize) -> Self {
        let mut one = Nodes::default();
        one.push(node);
        one
    }

    pub(crate) fn push(&mut self, node: usize) {
        if self.len() < NODES_MAX {
            self.nodes[self.len()] = node as u16;
            self.len += 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(crate) fn contains(&self, node: usize) -> bool {
        self.iter().any(|one| one == node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.nodes[..self.len()]
            .iter()
            .map(|&node| usize::from(node))
    }

    pub(crate) fn first(&self) -> Option<usize> {
        self.iter().next()
    }

    /// All but `other`.
    pub(crate) fn without(&self, other: usize) -> Nodes {
        let mut rest = Nodes::default();
        let others = self.iter().filter(|&node| node != other);
        others.for_each(|node| rest.push(node));
        rest
    }

    /// The first that is not in `others`.
    pub(crate) fn first_beside(&self, others: &Nodes) -> Option<usize> {
        self.iter().find(|&node| !others.contains(node))
    }
}

/// One snapshot of the cluster.
#[derive(Debug)]
pub(crate) struct Ring {
    /// All nodes that may be asked: those of the placement, then those that only the placement before had.
    pub(crate) members: Vec<Arc<Member>>,
    /// How many of them are those of the placement.
    own: usize,
    /// Taken to eject a node: how many may go is decided one by one.
    ejecting: Mutex<()>,
    layout: Arc<Layout>,
    /// The placement before, in indices of `members`, and how long it is asked.
    before: Option<(Layout, Instant)>,
    chance: AtomicU64,
}

#[derive(Debug, Clone)]
struct Layout {
    continuum: Continuum,
    /// From the continuum's index to the ring's.
    members: Vec<u16>,
    zoned: bool,
}

impl Layout {
    fn new(nodes: &[Node], members: Vec<u16>, options: &ClientOptions) -> Self {
        Layout {
            continuum: Continuum::new(options.placement, nodes),
            members,
            zoned: nodes.iter().any(|node| node.zone.is_some()),
        }
    }

    fn owner(&self, key: &[u8]) -> Option<usize> {
        let index = self.continuum.locate(key)?;
        Some(usize::from(self.members[index]))
    }

    fn walk(&self, key: &[u8]) -> impl Iterator<Item = usize> {
        self.continuum
            .walk(key)
            .map(|index| usize::from(self.members[index]))
    }

    /// The first `copies` nodes for which `fit` holds, in different zones as far as there are such.
    fn copies(
        &self,
        key: &[u8],
        copies: usize,
        members: &[Arc<Member>],
        fit: impl Fn(usize) -> bool,
    ) -> Nodes {
        let mut chosen = Nodes::default();
        if copies == 1
            && let Some(owner) = self.owner(key)
            && fit(owner)
        {
            return Nodes::one(owner);
        }
        if self.zoned && copies > 1 {
            for node in self.walk(key).filter(|&node| fit(node)) {
                let zone = &members[node].node.zone;
                if chosen.contains(node) {
                    continue;
                }
                if zone.is_none() || !chosen.iter().any(|other| members[other].node.zone == *zone) {
                    chosen.push(node);
                }
                if chosen.len() == copies {
                    return chosen;
                }
            }
        }
        for node in self.walk(key).filter(|&node| fit(node)) {
            if chosen.len() >= copies {
                break;
            }
            if !chosen.contains(node) {
                chosen.push(node);
            }
        }
        chosen
    }
}

impl Ring {
    /// The first snapshot. `seed` is where chance begins.
    pub(crate) fn new(nodes: &[Node], options: &ClientOptions, seed: u64) -> Self {
        let (members, indices) = gather(nodes, &[]);
        Ring {
            own: members.len(),
            ejecting: Mutex::default(),
            members,
            layout: Arc::new(Layout::new(nodes, indices, options)),
            before: None,
            chance: AtomicU64::new(seed),
        }
    }

    /// The snapshot after this one; until `dual_until`, what is missing is looked for where this one had it.
    pub(crate) fn after(
        &self,
        nodes: &[Node],
        options: &ClientOptions,
        dual_until: Instant,
    ) -> Self {
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
        Ring {
            own,
            ejecting: Mutex::default(),
            members,
            layout: Arc::new(Layout::new(nodes, indices, options)),
            before: Some((before, dual_until)),
            chance: AtomicU64::new(self.random()),
        }
    }

    /// True if the placement before is not asked any more.
    #[inline]
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        self.before.as_ref().is_none_or(|(_, until)| *until <= now)
    }

    /// True if it knows of a placement before.
    #[inline]
    pub(crate) fn has_before(&self) -> bool {
        self.before.is_some()
    }

    /// The same, without the placement before and the nodes that only it has.
    pub(crate) fn settled(&self) -> Self {
        Ring {
            members: self.members[..self.own].to_vec(),
            own: self.own,
            ejecting: Mutex::default(),
            layout: self.layout.clone(),
            before: None,
            chance: AtomicU64::new(self.random()),
        }
    }

    /// The nodes that have keys now.
    pub(crate) fn current(&self) -> impl Iterator<Item = usize> + '_ {
        self.layout.members.iter().map(|&index| usize::from(index))
    }

    /// On how many nodes a key lives.
    pub(crate) fn copies(&self, options: &ClientOptions) -> usize {
        options.copies.min(self.layout.members.len())
    }

    /// The nodes that take a write, the one that decides first. An ejected node among the key's own misses it.
    pub(crate) fn writers(&self, key: &[u8], now: Instant, options: &ClientOptions) -> Nodes {
        let copies = self.copies(options);
        let own = self.layout.copies(key, copies, &self.members, |_| true);
        if own.iter().all(|node| self.members[node].is_in()) {
            return own;
        }
        for node in own.iter().filter(|&node| !self.members[node].is_in()) {
            self.members[node].missed(key, now, options);
        }
        let live = self.live(&self.layout, own, key, options);
        live.iter().for_each(|node| self.given(node, key, options));
        live
    }

    /// `node` is given `key`, which may not be its own.
    pub(crate) fn given(&self, node: usize, key: &[u8], options: &ClientOptions) {
        let copies = self.copies(options);
        if !self
            .layout
            .copies(key, copies, &self.members, |_| true)
            .contains(node)
        {
            self.members[node].strayed(key, options);
        }
    }

    /// An exchange with `node` failed by its fault: perhaps it is ejected. Of the nodes of the placement, at most a share
    /// ([`eject_share`](ClientOptions::eject_share)) is out at a time, and never the last: where most seem to be down, it is
    /// more likely that the network is, or this process, and who keeps trying notices first when it is over.
    pub(crate) fn failed(&self, node: usize, now: Instant, options: &ClientOptions) -> bool {
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
    pub(crate) fn worked(&self, node: usize, options: &ClientOptions) {
        if self.members[node].worked(options) {
            self.members.iter().for_each(|member| member.hurry(options));
        }
    }

    /// A probe of `node` was not answered. While there is no node to ask, probes are the only way back: they come often.
    pub(crate) fn probe_failed(&self, node: usize, now: Instant, options: &ClientOptions) {
        let all_out = self.members[..self.own].iter().all(|one| !one.is_in());
        let at_most = match all_out {
            true => options.probe_after,
            false => options.probe_after_max,
        };
        self.members[node].probe_failed(now, options, self.random(), at_most);
    }

    /// Counts the failures of `node` that nobody waited for; see [`Member::tend`].
    pub(crate) fn tend(&self, node: usize, now: Instant, options: &ClientOptions) {
        let failed = || self.failed(node, now, options);
        self.members[node].tend(now, options, failed);
    }

    /// A probe of `node` was answered.
    pub(crate) fn probe_answered(
        &self,
        node: usize,
        now: Instant,
        options: &ClientOptions,
    ) -> bool {
        let back = self.members[node].probe_answered(now, options);
        if back {
            self.members.iter().for_each(|member| member.hurry(options));
        }
        if self.members.iter().all(|member| member.is_in()) {
            self.members
                .iter()
                .for_each(|member| member.sweep(now, options));
        }
        back
    }

    /// Those of `nodes` that settle: they are given what is read elsewhere.
    pub(crate) fn settling(&self, nodes: &Nodes, now: Instant) -> Nodes {
        let mut settling = Nodes::default();
        let settles = |&node: &usize| self.members[node].standing(now) == Standing::Settling;
        nodes
            .iter()
            .filter(settles)
            .for_each(|node| settling.push(node));
        settling
    }

    /// The nodes that a read asks, in this order, and how many of them are the key's own (behind them is where it was).
    pub(crate) fn readers(
        &self,
        key: &[u8],
        now: Instant,
        options: &ClientOptions,
    ) -> (Nodes, usize) {
        let copies = self.copies(options);
        if copies == 1
            && self.before.is_none()
            && let Some(owner) = self.layout.owner(key)
            && self.members[owner].is_in()
        {
            return (Nodes::one(owner), 1);
        }
        let own = self.layout.copies(key, copies, &self.members, |_| true);
        let mut nodes = self.live(&self.layout, own, key, options);
        let count = nodes.len();
        let listed = &mut nodes.nodes[..count];
        if options.reads == Reads::Spread && count > 1 {
            listed.rotate_left((self.random() % count as u64) as usize);
        }
        if count > 1 {
            listed.sort_by_key(|&node| {
                self.members[usize::from(node)].standing(now) == Standing::Settling
            });
        }
        for node in self.before(key, now, options).iter() {
            if !nodes.contains(node) && self.members[node].is_in() {
                nodes.push(node);
            }
        }
        (nodes, count)
    }

    /// Where the key was before the last change, while that is fresh.
    pub(crate) fn before(&self, key: &[u8], now: Instant, options: &ClientOptions) -> Nodes {
        match &self.before {
            Some((before, until)) if now < *until => {
                let copies = options.copies.min(before.members.len());
                before.copies(key, copies, &self.members, |_| true)
            }
            _ => Nodes::default(),
        }
    }

    /// Those of [`before`](Self::before) that are not among `nodes`.
    pub(crate) fn before_only(
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
    pub(crate) fn everywhere(&self, now: Instant) -> Vec<usize> {
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
    pub(crate) fn has_others(&self, key: &[u8], now: Instant, options: &ClientOptions) -> bool {
        self.readers(key, now, options).0.len() > 1
    }

    /// Any number (SplitMix64).
    pub(crate) fn random(&self) -> u64 {
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
                assert_eq!(ring.readers(&key, now, &options).0.len(), 1, "one is tried");
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
            let (readers, own) = after.readers(&key, now, &options);
            let moved = **was == gone.address();
            assert_eq!((readers.len(), own), (1 + usize::from(moved), 1));
            assert_eq!(after.readers(&key, until, &options).0.len(), 1);
        }
        assert_eq!(after.everywhere(now).len(), 4);
        assert_eq!(after.everywhere(until).len(), 3);
        // The same list again, without a window: what is gone is let go.
        let settled = after.after(&fewer, &options, now);
        assert_eq!(settled.everywhere(now).len(), 3);
        assert_eq!(settled.members.len(), 3);
    }
}
