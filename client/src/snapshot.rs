//! The nodes as a front sees them at one moment: the ring and, node by node, what holds the connections.
//!
//! ```text
//!  set_nodes: snapshot --after--> snapshot      of nodes that stay, health and pool stay too; swapped as a whole
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Node;
use client_core::health::Member;
use client_core::options::ClientOptions;
use client_core::routing::Ring;

/// The longest dual read: a year.
const DUAL_READ_MAX: Duration = Duration::from_secs(365 * 86_400);

/// The connections of one node.
pub(crate) trait NodePool: Send + Sync + 'static {
    /// None yet; they are made when they are needed.
    fn new(member: Arc<Member>, options: Arc<ClientOptions>) -> Self;

    /// Whose they are.
    fn member(&self) -> &Arc<Member>;

    /// This process is a child of the one whose connections these are: it has none.
    fn part(&self);
}

pub(crate) struct Snapshot<P> {
    /// As they were given.
    pub nodes: Vec<Node>,
    pub ring: Arc<Ring>,
    /// As the ring's members.
    pub pools: Vec<Arc<P>>,
}

impl<P: NodePool> Snapshot<P> {
    pub(crate) fn new(nodes: &[Node], options: &Arc<ClientOptions>) -> Self {
        let ring = Ring::new(nodes, options, RandomState::new().hash_one(0));
        Snapshot::of(nodes, ring, options, &[])
    }

    /// What comes after it with these nodes; for `dual_read` from `now` on, the old place of a key is asked as well.
    pub(crate) fn after(
        &self,
        nodes: &[Node],
        options: &Arc<ClientOptions>,
        dual_read: Duration,
        now: Instant,
    ) -> Self {
        // A window without end, as far as the clock can tell.
        let until = now.checked_add(dual_read).unwrap_or(now + DUAL_READ_MAX);
        let ring = self.ring.after(nodes, options, until);
        let snapshot = Snapshot::of(nodes, ring, options, &self.pools);
        snapshot.settled(options, now).unwrap_or(snapshot)
    }

    /// What comes after it when the old place of a key is not asked any more: what the nodes that left have of connections is
    /// closed, when the last operation that uses them ends.
    pub(crate) fn settled(&self, options: &Arc<ClientOptions>, now: Instant) -> Option<Self> {
        let over = self.ring.has_before() && self.ring.is_settled(now);
        over.then(|| Snapshot::of(&self.nodes, self.ring.settled(), options, &self.pools))
    }

    fn of(nodes: &[Node], ring: Ring, options: &Arc<ClientOptions>, old: &[Arc<P>]) -> Self {
        let old: HashMap<_, _> = old
            .iter()
            .map(|pool| (Arc::as_ptr(pool.member()), pool))
            .collect();
        let pool = |member: &Arc<Member>| match old.get(&Arc::as_ptr(member)) {
            Some(pool) => Arc::clone(pool),
            None => Arc::new(P::new(Arc::clone(member), options.clone())),
        };
        Snapshot {
            nodes: nodes.to_vec(),
            pools: ring.members.iter().map(pool).collect(),
            ring: Arc::new(ring),
        }
    }
}
