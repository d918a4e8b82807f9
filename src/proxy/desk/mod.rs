//! A worker's part of the proxy: its lanes, what is under way on them, and what its clients are to be told.
//!
//! ```text
//!  session --pass_on--> lanes --(written once a wakeup)--> nodes
//!          --begin----> operations (carry.rs) --exchanges--> lanes
//!  clients' replies  <--deliver-- received(lane, bytes), tick
//! ```
//!
//! De1. What a client sends to one node goes by one lane, so that its order stays. A lane that takes the place of a retired one begins when
//!     that has all its replies.
//! De2. Every ticket ends once: with its reply, or with a failure that its owner is told.
//! De3. The desk owns no socket: who has them asks what is to be written where, and tells what came.
//!
//! greet.rs has what is said first on a lane, operations.rs what goes on over several of them; received.rs gives replies to whom they
//! belong, lost.rs tells who has none, tending.rs is what time brings.

mod beside;
mod greet;
mod lost;
mod operations;
mod parts;
mod received;
mod tending;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use client_core::health::Member;
use client_core::routing::Nodes;
use protocol::{ErrorLine, reply};
use slab::Slab;

pub use self::parts::Clients;
use self::parts::{Op, View, ms, wake};
use super::lane::{Lane, Owner, Replies, Stage, Ticket};
use super::plan::{Control, Plan, Target};
use super::relay::Passed;
use super::replies::Spares;
use super::routes::{Moving, Route};
use super::uniques::Uniques;
use crate::command::Output;
use crate::state::ConnId;

/// How often it is looked who is late.
const TICK_MS: u64 = 10;
/// Where a key goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// To this node of this pool, whose reply is the client's.
    Node(usize, usize),
    /// As this route says, by the client's core.
    Core(Place),
    /// There is no node.
    Nowhere,
}

/// A route, and where its keys are if they move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) route: usize,
    pub(super) moving: Moving,
}

/// See the module.
#[derive(Debug)]
pub struct Desk {
    control: Arc<Control>,
    version: u64,
    plan: Arc<Plan>,
    views: Vec<View>,
    lanes: Slab<Lane>,
    /// How often plan or rings have changed.
    era: u64,
    dirty: Vec<usize>,
    /// Lanes whose sockets are to be closed.
    closed: Vec<usize>,
    ops: Slab<Op>,
    generation: u32,
    due: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    woken: Vec<ConnId>,
    pub(super) spares: Spares,
    /// Operations that nobody waits for, and the bytes of their requests.
    besides: usize,
    beside_bytes: usize,
    /// Bytes of the requests of all operations, and clients that wait until there are less.
    op_bytes: usize,
    waiting: Vec<ConnId>,
    begun: Instant,
    now: Instant,
    now_ms: u64,
    /// By the wall clock, if keys move by it.
    unix_ms: u64,
    ticked_ms: u64,
    /// It sees to nodes that are ejected.
    tends: bool,
}

impl Desk {
    /// That of one worker; the first sees to the nodes.
    pub fn new(control: Arc<Control>, worker: usize) -> Self {
        let now = Instant::now();
        let plan = control.plan();
        let mut desk = Desk {
            version: 0,
            plan,
            control,
            views: Vec::new(),
            lanes: Slab::new(),
            era: 0,
            dirty: Vec::new(),
            closed: Vec::new(),
            ops: Slab::new(),
            generation: 0,
            due: Vec::new(),
            timers: BinaryHeap::new(),
            woken: Vec::new(),
            spares: Spares::default(),
            besides: 0,
            beside_bytes: 0,
            op_bytes: 0,
            waiting: Vec::new(),
            begun: now,
            now,
            now_ms: 0,
            unix_ms: 0,
            ticked_ms: 0,
            tends: worker == 0,
        };
        desk.renew();
        desk
    }

    /// A wakeup of the worker begins.
    pub fn wake(&mut self) {
        self.now = Instant::now();
        self.now_ms = self.now.duration_since(self.begun).as_millis() as u64;
        let is_old = self.version != self.control.version();
        if is_old
            || self
                .views
                .iter()
                .any(|view| view.version != view.pool.version())
        {
            self.renew();
        }
        let mut routes = self.plan.routes.iter();
        if routes.any(|route| route.spec.migration.is_some()) {
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            self.unix_ms = unix.unwrap_or_default().as_millis() as u64;
        }
    }

    /// How long the worker may sleep.
    pub fn sleeps(&self) -> Option<Duration> {
        let is_awaiting = self.lanes.iter().any(|(_, lane)| !lane.tickets.is_empty());
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let timer = timer.map(|at| at.saturating_duration_since(Instant::now()));
        let tick = is_awaiting.then_some(Duration::from_millis(TICK_MS));
        // Nodes that are away are to be probed, lists to be looked at.
        let idle = Duration::from_millis(100);
        timer.into_iter().chain(tick).chain([idle]).min()
    }

    /// Takes over what has changed of plan and rings.
    #[cold]
    fn renew(&mut self) {
        self.era += 1;
        self.version = self.control.version();
        self.plan = self.control.plan();
        let mut old = std::mem::take(&mut self.views);
        // Lanes by their nodes: who stays keeps them.
        let mut kept: HashMap<*const Member, Vec<Option<usize>>> = HashMap::new();
        for view in &mut old {
            let members = view.now.ring.members.iter();
            for (member, lanes) in members.zip(view.lanes.drain(..)) {
                kept.insert(Arc::as_ptr(member), lanes);
            }
        }
        let plan = self.plan.clone();
        for pool in &plan.pools {
            let version = pool.version();
            let now = pool.now();
            let lanes = now.ring.members.iter().map(|member| {
                let lanes = kept.remove(&Arc::as_ptr(member));
                lanes.unwrap_or_else(|| vec![None; 2 * pool.spec.connections])
            });
            self.views.push(View {
                is_plain: pool.options.copies == 1 && !now.ring.has_before(),
                lanes: lanes.collect(),
                pool: pool.clone(),
                version,
                now,
            });
        }
        for lane in kept.into_values().flatten().flatten() {
            self.lanes[lane].is_retired = true;
            if self.lanes[lane].tickets.is_empty() {
                self.close(lane);
            }
        }
    }

    /// The route of a key.
    #[inline]
    pub(super) fn route_of(&self, key: &[u8]) -> Option<usize> {
        let mut routes = self.plan.routes.iter();
        routes.position(|route| key.starts_with(&route.spec.prefix))
    }

    /// A route by its place.
    #[inline]
    pub(super) fn route(&self, at: usize) -> &Route {
        &self.plan.routes[at]
    }

    fn place(&self, route: usize, key: &[u8]) -> Place {
        let moving = self.plan.routes[route].moving(key, self.unix_ms);
        Place { route, moving }
    }

    /// Where a key goes, for a read or a write. Packets have lanes of their own, and the core speaks text: where some requests of a route
    /// are the core's, all that are packets are, so that they stay in order.
    #[inline]
    pub(super) fn way(&self, key: &[u8], writes: bool, is_binary: bool) -> Way {
        let Some(at) = self.route_of(key) else {
            return Way::Nowhere;
        };
        let route = &self.plan.routes[at];
        let pool = route.spec.pool;
        let view = &self.views[pool];
        let is_direct = route.is_direct(writes || is_binary)
            && view.is_plain
            && !((writes || is_binary) && view.now.ring.has_former(self.now))
            // On the lanes for packets nobody logs in.
            && !(is_binary && view.pool.options.login.is_some());
        if !is_direct {
            return Way::Core(self.place(at, key));
        }
        match self.owner(at, key, writes) {
            Some(node) => Way::Node(pool, node),
            None if route.spec.gutter.is_some() => Way::Core(self.place(at, key)),
            None => Way::Nowhere,
        }
    }

    /// Where each key of a list goes, with its route: [`Desk::way`] of all of them at once.
    pub(super) fn ways(&self, keys: &[&[u8]], writes: bool) -> Vec<(Way, usize)> {
        let route_of = |key: &[u8]| self.route_of(key).unwrap_or_default();
        let Some(at) = keys.first().and_then(|key| self.route_of(key)) else {
            return keys.iter().map(|_| (Way::Nowhere, 0)).collect();
        };
        let route = &self.plan.routes[at];
        let view = &self.views[route.spec.pool];
        // Keys of one route are placed together, where each lives on one node.
        let is_plain = !writes && route.is_direct(false) && view.is_plain;
        let is_one_route = || keys.iter().all(|key| self.route_of(key) == Some(at));
        if !is_plain || route.spec.gutter.is_some() || !is_one_route() {
            let way = |key: &&[u8]| (self.way(key, writes, false), route_of(key));
            return keys.iter().map(way).collect();
        }
        let ring = &view.now.ring;
        let nodes = ring.first_readers(keys, self.now, &view.pool.options);
        let way = |node| match node {
            Some(node) => (Way::Node(route.spec.pool, node), at),
            None => (Way::Nowhere, at),
        };
        nodes.into_iter().map(way).collect()
    }

    /// The node that decides for a key, whatever its pool is like.
    pub(super) fn decider(&self, key: &[u8]) -> Way {
        let route = self.route_of(key);
        let node = route.and_then(|at| Some((at, self.owner(at, key, true)?)));
        match node {
            Some((at, node)) => Way::Node(self.plan.routes[at].spec.pool, node),
            None => Way::Nowhere,
        }
    }

    #[inline]
    fn owner(&self, route: usize, key: &[u8], writes: bool) -> Option<usize> {
        let spec = &self.plan.routes[route].spec;
        let view = &self.views[spec.pool];
        let options = match spec.gutter {
            Some(_) => &view.pool.hasty,
            None => &view.pool.options,
        };
        let ring = &view.now.ring;
        if writes {
            return ring.writers(key, self.now, options).first();
        }
        let readers = ring.readers(key, self.now, options);
        let none = Nodes::default();
        readers.next(&none, &none, false)
    }

    /// The lane that this client's requests to a node go by.
    pub(super) fn lane_to(
        &mut self,
        pool: usize,
        node: usize,
        conn: ConnId,
        binary: bool,
    ) -> usize {
        let view = &mut self.views[pool];
        let each = view.pool.spec.connections;
        let place = conn.slot % each + if binary { each } else { 0 };
        let slot = &mut view.lanes[node][place];
        match *slot {
            Some(lane) => lane,
            None => {
                let member = view.now.ring.members[node].clone();
                let pool = view.pool.clone();
                let lane = self.lanes.insert(Lane::new(pool, member, binary, self.era));
                *slot = Some(lane);
                lane
            }
        }
    }

    /// CAS uniques of the lane's node.
    #[inline]
    pub(super) fn uniques_of(&self, lane: usize) -> Uniques {
        self.lanes[lane].uniques
    }

    /// Where requests for this lane are put, before [`Desk::passed`].
    #[inline]
    pub(super) fn out(&mut self, lane: usize) -> &mut Output<'static> {
        let (is_new, is_probe) = {
            let lane = &self.lanes[lane];
            let is_new = lane.stage == Stage::Closed && lane.tickets.is_empty();
            (is_new, lane.is_probe)
        };
        if is_new && !is_probe {
            self.greet(lane);
        }
        &mut self.lanes[lane].out
    }

    /// Reads the file of routes again.
    pub(super) fn reload(&self) -> Result<(), String> {
        self.control.reload()
    }

    /// A request was put into a lane, where its bytes begin at `from`: its reply is this client's.
    #[inline]
    pub(super) fn passed(
        &mut self,
        lane: usize,
        passed: Passed,
        (conn, number): (ConnId, u32),
        part: Option<u16>,
        from: usize,
    ) {
        let owner = match passed.no_reply {
            true => Owner::Nobody,
            false => Owner::Client {
                conn,
                number,
                part,
                hush: passed.hush,
                mark: passed.mark,
                reads: passed.reads,
                shows_unique: passed.shows_unique,
            },
        };
        let due_ms = self.now_ms + ms(self.lanes[lane].pool.options.attempt_timeout);
        let read = match passed.reads {
            true => self.lanes[lane].remember(from),
            false => (0, 0),
        };
        self.push_read(lane, Replies::One(passed.shape), owner, due_ms, read);
    }

    fn push(&mut self, at: usize, replies: Replies, owner: Owner, due_ms: u64) {
        self.push_read(at, replies, owner, due_ms, (0, 0));
    }

    #[inline]
    fn push_read(
        &mut self,
        at: usize,
        replies: Replies,
        owner: Owner,
        due_ms: u64,
        read: (u32, u32),
    ) {
        let lane = &mut self.lanes[at];
        if lane.tickets.is_empty() {
            lane.heard_ms = self.now_ms;
        }
        lane.tickets.push_back(Ticket {
            replies,
            owner,
            due_ms,
            read,
            watch: None,
        });
        if !lane.is_dirty {
            lane.is_dirty = true;
            self.dirty.push(at);
        }
        self.control.counts.active.fetch_add(1, Relaxed);
    }

    /// True if a lane takes no more now; the client is woken when it does.
    pub(super) fn is_full(&mut self, lane: usize, conn: ConnId) -> bool {
        let lane = &mut self.lanes[lane];
        let is_full = lane.is_full();
        if is_full && !lane.waiting.contains(&conn) {
            lane.waiting.push(conn);
        }
        is_full
    }

    /// What is answered where there is no node for a key, as text.
    pub(super) fn nowhere(&self, reads: bool, key: &[u8]) -> &'static [u8] {
        let route = self.route_of(key);
        let pool = route.map(|at| self.plan.routes[at].spec.pool);
        let misses = pool.is_some_and(|at| self.views[at].pool.spec.misses);
        self.control.counts.errors.fetch_add(1, Relaxed);
        match reads && misses {
            true => reply::END,
            false => ErrorLine::Backend.line(),
        }
    }

    pub(super) fn count_requests(&self, count: u64) {
        self.control.counts.requests.fetch_add(count, Relaxed);
    }

    /// Clients that something has come for: each is to have a turn.
    pub fn take_woken<'c>(&mut self, clients: &mut impl Clients<'c>) -> Vec<ConnId> {
        let woken = std::mem::take(&mut self.woken);
        for &conn in &woken {
            if let Some(owed) = clients.owed(conn) {
                owed.woken = false;
            }
        }
        woken
    }

    /// Lanes that have something to be written, or are to be connected first.
    pub fn take_dirty(&mut self) -> Vec<usize> {
        let dirty = std::mem::take(&mut self.dirty);
        for &lane in &dirty {
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.is_dirty = false;
            }
        }
        dirty
    }

    /// Gives back the list of those that had a turn, to be used again; true if nobody is to have one now.
    pub fn give_back(&mut self, mut had: Vec<ConnId>) -> bool {
        let nobody = self.woken.is_empty();
        if nobody {
            had.clear();
            self.woken = had;
        }
        nobody
    }

    /// Lanes whose sockets are to be closed.
    pub fn take_closed(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.closed)
    }

    /// A lane, if it is there.
    pub fn lane(&mut self, at: usize) -> Option<&mut Lane> {
        self.lanes.get_mut(at)
    }

    /// True if a lane is to be connected, and is not yet; one that waits for a retired one (De1) is dirty again when that ends.
    pub fn begins(&self, at: usize) -> bool {
        let lane = &self.lanes[at];
        let is_before = |other: &Lane| {
            other.is_retired
                && other.era < lane.era
                && !other.tickets.is_empty()
                && other.member.name == lane.member.name
        };
        matches!(lane.stage, Stage::Closed | Stage::LookingUp(_))
            && !lane.out.is_empty()
            && (lane.is_probe || !self.lanes.iter().any(|(_, other)| is_before(other)))
    }

    /// Where a lane is to be connected to; if that is not known yet, it is dirty again with the next look.
    pub fn target(&mut self, at: usize) -> Option<Target> {
        let lane = &mut self.lanes[at];
        let now = lane.pool.now();
        let mut members = now.ring.members.iter();
        let node = members.position(|member| Arc::ptr_eq(member, &lane.member));
        let target = node.and_then(|node| now.target(node));
        let until = self.now_ms + ms(lane.pool.options.connect_timeout).max(1);
        lane.stage = match (&target, lane.stage) {
            (Some(_), _) => Stage::Connecting(until),
            (None, Stage::LookingUp(until)) => Stage::LookingUp(until),
            (None, _) => Stage::LookingUp(until),
        };
        target
    }

    /// A lane's socket takes bytes.
    pub fn opened(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        if matches!(lane.stage, Stage::Connecting(_)) {
            lane.stage = Stage::Open;
            lane.heard_ms = self.now_ms;
            self.control.counts.lanes_opened.fetch_add(1, Relaxed);
        }
    }

    /// A lane's bytes were written: who waited for that goes on.
    pub fn drained<'c>(&mut self, at: usize, clients: &mut impl Clients<'c>) {
        let lane = &mut self.lanes[at];
        if lane.waiting.is_empty() || lane.is_full() {
            return;
        }
        for conn in std::mem::take(&mut lane.waiting) {
            if let Some(owed) = clients.owed(conn) {
                wake(&mut self.woken, owed, conn);
            }
        }
    }
}
