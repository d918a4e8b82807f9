//! Changes of the nodes: what comes after a ring, and where keys were before it.
//!
//! ```text
//!  former (told of writes, an hour)  <--  before (asked too, for its window)  <--  the placement
//! ```

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::layout::Layout;
use super::{Nodes, Ring, circle, gather};
use crate::health::Member;
use crate::node::Node;
use crate::options::ClientOptions;

/// In a former placement, a node that is not in the ring any more.
const GONE: u16 = u16::MAX;
/// How many former placements are known, and how long after reads are done with them.
const FORMER_MAX: usize = 4;
const FORMER_FOR: Duration = Duration::from_secs(3600);

impl Ring {
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
        let former = self.former.iter().filter(|(_, until)| now < *until);
        // The one before is among them when its window is over.
        let over = |until: Instant| until <= now && now < until + FORMER_FOR;
        let before = self.before.iter().filter(|(_, until)| over(*until));
        let mut others = Nodes::default();
        for (layout, _) in before.chain(former) {
            let is_there = |node: usize| node < self.own;
            let copies = options.copies.min(layout.members.len());
            let had = layout.copies(key, copies, &self.members, is_there);
            others.add_all(&had, nodes);
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

    /// True if what is done to keys is to be told nodes that had them long ago (T5).
    #[inline]
    pub fn has_former(&self, now: Instant) -> bool {
        self.former.iter().any(|(_, until)| now < *until)
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
        others.add_all(&self.before(key, now, options), nodes);
        others
    }

    /// The nodes that a write of the key goes to, but for those that it goes to by the ring `old`.
    pub fn takers_beside(&self, key: &[u8], old: &Ring, options: &ClientOptions) -> Nodes {
        let had = old.takers(key, options);
        let is_old = |node: &usize| {
            let member = &self.members[*node];
            had.iter()
                .any(|old_node| Arc::ptr_eq(&old.members[old_node], member))
        };
        let takers = self.takers(key, options);
        Nodes::of(takers.iter().filter(|node| !is_old(node)))
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
}
