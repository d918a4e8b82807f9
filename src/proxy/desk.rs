//! A worker's part of the proxy: its lanes, what is under way on them, and what its clients are to be told.
//!
//! ```text
//!  session --pass_on--> lanes --(written once a wakeup)--> nodes
//!          --begin----> operations (carry.rs) --exchanges--> lanes
//!  clients' replies  <--deliver-- received(lane, bytes), tick
//! ```
//!
//! De1. What a client sends to one node goes by one lane, so that its order stays.
//! De2. Every ticket ends once: with its reply, or with a failure that its owner is told.
//! De3. The desk owns no socket: who has them asks what is to be written where, and tells what came.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use client_core::error::Failure;
use client_core::health::Member;
use client_core::reply::whole;
use client_core::request;
use client_core::routing::Nodes;
use protocol::binary::{BinaryHead, HEADER_LEN, Status};
use protocol::{ErrorLine, binary, reply};
use slab::Slab;

use super::carry::{Event, Over, Seat};
use super::frame::{self, Garbage, Shape};
use super::lane::{Hush, Lane, Owner, Replies, Stage, Ticket};
use super::plan::{Control, Plan, Pool, PoolNow, Target};
use super::relay::Passed;
use super::replies::{LARGE, Owed, Piece, Spares};
use super::trace;
use super::verbs::{self, Job};
use crate::command::Output;
use crate::state::ConnId;

/// How often it is looked who is late.
const TICK_MS: u32 = 10;

/// Whom replies are for.
pub trait Clients<'c> {
    /// What this client is owed, if it is still there.
    fn owed(&mut self, conn: ConnId) -> Option<&mut Owed<'c>>;
}

/// Where a key goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// To this node of this pool, whose reply is the client's.
    Node(usize, usize),
    /// To this pool, by the client's core.
    Core(usize),
    /// There is no node.
    Nowhere,
}

type Serve = Pin<Box<dyn Future<Output = Output<'static>>>>;

/// An operation under way.
struct Op {
    generation: u32,
    future: Serve,
    seat: Rc<Seat>,
    client: Option<(ConnId, u32)>,
    /// Exchanges on lanes.
    flights: Vec<(u32, usize)>,
    is_due: bool,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op").finish_non_exhaustive()
    }
}

/// A pool as the desk sees it.
#[derive(Debug)]
struct View {
    pool: Arc<Pool>,
    version: u64,
    now: Arc<PoolNow>,
    /// Keys live on one node, and nobody is asked for them beside it.
    is_plain: bool,
    /// Lanes of each node of the ring: those for text, then those for packets.
    lanes: Vec<Vec<Option<usize>>>,
}

/// See the module.
#[derive(Debug)]
pub struct Desk {
    control: Arc<Control>,
    version: u64,
    plan: Arc<Plan>,
    views: Vec<View>,
    lanes: Slab<Lane>,
    dirty: Vec<usize>,
    /// Lanes whose sockets are to be closed.
    closed: Vec<usize>,
    ops: Slab<Op>,
    generation: u32,
    due: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    woken: Vec<ConnId>,
    pub(super) spares: Spares,
    begun: Instant,
    now: Instant,
    now_ms: u32,
    ticked_ms: u32,
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
            dirty: Vec::new(),
            closed: Vec::new(),
            ops: Slab::new(),
            generation: 0,
            due: Vec::new(),
            timers: BinaryHeap::new(),
            woken: Vec::new(),
            spares: Spares::default(),
            begun: now,
            now,
            now_ms: 0,
            ticked_ms: 0,
            tends: worker == 0,
        };
        desk.renew();
        desk
    }

    /// A wakeup of the worker begins.
    pub fn wake(&mut self) {
        self.now = Instant::now();
        self.now_ms = self.now.duration_since(self.begun).as_millis() as u32;
        let is_old = self.version != self.control.version();
        if is_old
            || self
                .views
                .iter()
                .any(|view| view.version != view.pool.version())
        {
            self.renew();
        }
    }

    /// How long the worker may sleep.
    pub fn sleeps(&self) -> Option<Duration> {
        let is_awaiting = self.lanes.iter().any(|(_, lane)| !lane.tickets.is_empty());
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let timer = timer.map(|at| at.saturating_duration_since(Instant::now()));
        let tick = is_awaiting.then_some(Duration::from_millis(TICK_MS.into()));
        // Nodes that are away are to be probed, lists to be looked at.
        let idle = Duration::from_millis(100);
        timer.into_iter().chain(tick).chain([idle]).min()
    }

    /// Takes over what has changed of plan and rings.
    #[cold]
    fn renew(&mut self) {
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
        for (at, pool) in plan.pools.iter().enumerate() {
            let version = pool.version();
            let now = pool.now();
            let lanes = now.ring.members.iter().map(|member| {
                let lanes = kept.remove(&Arc::as_ptr(member));
                let lanes = lanes.unwrap_or_else(|| vec![None; 2 * pool.spec.connections]);
                for &lane in lanes.iter().flatten() {
                    self.lanes[lane].pool = at;
                }
                lanes
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

    /// The pool of a key.
    #[inline]
    fn pool_of(&self, key: &[u8]) -> Option<usize> {
        let mut routes = self.plan.routes.iter();
        let route = routes.find(|(prefix, _)| key.starts_with(prefix));
        route.map(|(_, pool)| *pool)
    }

    /// Where a key goes, for a read or a write.
    #[inline]
    pub(super) fn way(&self, key: &[u8], writes: bool) -> Way {
        let Some(pool) = self.pool_of(key) else {
            return Way::Nowhere;
        };
        let view = &self.views[pool];
        if !view.is_plain {
            return Way::Core(pool);
        }
        match self.owner(view, key, writes) {
            Some(node) => Way::Node(pool, node),
            None => Way::Nowhere,
        }
    }

    /// The node that decides for a key, whatever its pool is like.
    pub(super) fn decider(&self, key: &[u8]) -> Way {
        match self.pool_of(key) {
            Some(pool) => match self.owner(&self.views[pool], key, true) {
                Some(node) => Way::Node(pool, node),
                None => Way::Nowhere,
            },
            None => Way::Nowhere,
        }
    }

    #[inline]
    fn owner(&self, view: &View, key: &[u8], writes: bool) -> Option<usize> {
        let (ring, options) = (&view.now.ring, &view.pool.options);
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
                let lane = self.lanes.insert(Lane::new(pool, member, binary));
                *slot = Some(lane);
                lane
            }
        }
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

    /// The first words on a connection: a login, and a trace of this proxy.
    #[cold]
    fn greet(&mut self, at: usize) {
        let (lane, now_ms) = (&mut self.lanes[at], self.now_ms);
        let options = &self.views[lane.pool].pool.options;
        let due_ms = now_ms + ms(options.attempt_timeout + options.connect_timeout);
        if let Some(login) = &options.login
            && !lane.binary
        {
            lane.out
                .bytes(&request::login(&login.user, &login.password));
            self.control.counts.active.fetch_add(1, Relaxed);
            lane.tickets.push_back(Ticket {
                replies: Replies::One(Shape::Line),
                owner: Owner::Login,
                due_ms,
                watch: None,
            });
        }
        self.put_trace(at, self.control.id, 1);
    }

    /// Puts a trace into a lane, by which proxies notice that they lead back to themselves.
    fn put_trace(&mut self, at: usize, id: u64, hops: u32) {
        let lane = &mut self.lanes[at];
        let options = &self.views[lane.pool].pool.options;
        let due_ms = self.now_ms + ms(options.attempt_timeout + options.connect_timeout);
        let shape = match lane.binary {
            true => {
                trace::packet(&mut lane.out.buf, id, hops);
                Shape::Packet
            }
            false => {
                trace::line(&mut lane.out.buf, id, hops);
                Shape::Values
            }
        };
        self.push(at, Replies::One(shape), Owner::Nobody, due_ms);
    }

    /// A trace has come from a client. True if it has come in a circle, or too far.
    pub(super) fn traced(&mut self, (id, hops): (u64, u32)) -> bool {
        if id == self.control.id || hops > trace::HOPS_MAX {
            self.control.counts.loops.fetch_add(1, Relaxed);
            log::error!("proxy: proxies lead to each other in a circle: who does is not served");
            return true;
        }
        if self.control.passes(id) {
            let nobody = ConnId {
                slot: 0,
                generation: 0,
            };
            for pool in 0..self.views.len() {
                for node in 0..self.views[pool].now.ring.members.len() {
                    let lane = self.lane_to(pool, node, nobody, false);
                    self.out(lane);
                    self.put_trace(lane, id, hops + 1);
                }
            }
        }
        false
    }

    /// Reads the file of routes again.
    pub(super) fn reload(&self) -> Result<(), String> {
        self.control.reload()
    }

    /// A request was put into a lane: its reply is this client's.
    #[inline]
    pub(super) fn passed(
        &mut self,
        lane: usize,
        passed: Passed,
        (conn, number): (ConnId, u32),
        part: Option<u16>,
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
            },
        };
        let pool = self.lanes[lane].pool;
        let timeout = self.views[pool].pool.options.attempt_timeout;
        self.push(
            lane,
            Replies::One(passed.shape),
            owner,
            self.now_ms + ms(timeout),
        );
    }

    fn push(&mut self, at: usize, replies: Replies, owner: Owner, due_ms: u32) {
        let lane = &mut self.lanes[at];
        if lane.tickets.is_empty() {
            lane.heard_ms = self.now_ms;
        }
        lane.tickets.push_back(Ticket {
            replies,
            owner,
            due_ms,
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
        let misses = self
            .pool_of(key)
            .is_some_and(|at| self.views[at].pool.spec.misses);
        self.control.counts.errors.fetch_add(1, Relaxed);
        match reads && misses {
            true => reply::END,
            false => ErrorLine::Backend.line(),
        }
    }

    pub(super) fn count_requests(&self, count: u64) {
        self.control.counts.requests.fetch_add(count, Relaxed);
    }

    /// Begins an operation of a pool; gives the reply if it is there at once.
    pub(super) fn begin(
        &mut self,
        pool: usize,
        job: Job,
        client: Option<(ConnId, u32)>,
    ) -> Option<Output<'static>> {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seat = Seat::new(self.now, unix.unwrap_or_default().as_secs());
        let view = &self.views[pool];
        let over = Over {
            at: pool,
            pool: view.pool.clone(),
            now: view.now.clone(),
        };
        self.generation = self.generation.wrapping_add(1);
        let op = self.ops.insert(Op {
            generation: self.generation,
            future: Box::pin(verbs::serve(seat.clone(), over, job)),
            seat,
            client,
            flights: Vec::new(),
            is_due: false,
        });
        self.poll(op)
    }

    /// The first pool, and the others as operations see them.
    pub(super) fn all_pools(&self) -> Option<(usize, Vec<Over>)> {
        let over = |(at, view): (usize, &View)| Over {
            at,
            pool: view.pool.clone(),
            now: view.now.clone(),
        };
        let others = self.views.iter().enumerate().skip(1).map(over);
        (!self.views.is_empty()).then(|| (0, others.collect()))
    }

    /// Goes on with an operation as far as it goes.
    fn poll(&mut self, at: usize) -> Option<Output<'static>> {
        let op = &mut self.ops[at];
        op.is_due = false;
        op.seat.set_now(self.now);
        let polled = op
            .future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        let (generation, client) = (op.generation, op.client);
        let slot = client.map_or(0, |(conn, _)| conn.slot);
        for departure in op.seat.take_departures() {
            let exchange = departure.exchange;
            let conn = ConnId {
                slot,
                generation: 0,
            };
            let owner = Owner::Flight {
                op: at,
                generation,
                flight: departure.flight,
            };
            let ring = &self.views[departure.pool].now.ring;
            if exchange.node >= ring.members.len() {
                self.ops[at]
                    .seat
                    .tell(departure.flight, Event::Failed(Failure::Connect));
                self.make_due(at);
                continue;
            }
            let lane = self.lane_to(departure.pool, exchange.node, conn, false);
            let out = self.out(lane);
            match exchange.request.len() {
                LARGE.. => out.shared(exchange.request),
                _ => out.bytes(&exchange.request),
            }
            let left = exchange.deadline.saturating_duration_since(self.now);
            self.push(
                lane,
                Replies::Some(exchange.expect),
                owner,
                self.now_ms + ms(left).max(1),
            );
            self.ops[at].flights.push((departure.flight, lane));
        }
        let op = &mut self.ops[at];
        for (flight, watch) in op.seat.take_watches() {
            let lane = op.flights.iter().find(|(other, _)| *other == flight);
            let lane = lane.map(|(_, lane)| *lane);
            let tickets = lane.and_then(|lane| self.lanes.get_mut(lane));
            let is_of = |ticket: &&mut Ticket| matches!(ticket.owner, Owner::Flight { op, generation: of, flight: other } if (op, of, other) == (at, generation, flight));
            let ticket = tickets.and_then(|lane| lane.tickets.iter_mut().find(is_of));
            match ticket {
                Some(ticket) => ticket.watch = Some(watch),
                None => watch.failed(Failure::Closed),
            }
        }
        let op = &mut self.ops[at];
        let condemned: Vec<usize> = op
            .seat
            .take_condemned()
            .into_iter()
            .filter_map(|flight| op.flights.iter().find(|(other, _)| *other == flight))
            .map(|(_, lane)| *lane)
            .collect();
        let result = match polled {
            Poll::Ready(output) => {
                self.ops.remove(at);
                Some(output)
            }
            Poll::Pending => {
                if let Some(wake_at) = op.seat.wake_at() {
                    self.timers.push(Reverse((wake_at, at, generation)));
                }
                None
            }
        };
        for lane in condemned {
            // Its clients hear of it with the next tick.
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.is_broken = true;
            }
        }
        result
    }

    fn make_due(&mut self, at: usize) {
        if let Some(op) = self.ops.get_mut(at)
            && !op.is_due
        {
            op.is_due = true;
            self.due.push(at);
        }
    }

    /// Goes on with all operations for which something has come.
    fn run<'c>(&mut self, clients: &mut impl Clients<'c>) {
        while let Some(at) = self.due.pop() {
            let Some(op) = self.ops.get_mut(at) else {
                continue;
            };
            let client = op.client;
            if let (Some(output), Some((conn, number))) = (self.poll(at), client)
                && let Some(owed) = clients.owed(conn)
            {
                owed.answer_output(number, output, &mut self.spares);
                wake(&mut self.woken, owed, conn);
            }
        }
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

    /// Where a lane is to be connected to.
    pub fn target(&mut self, at: usize) -> Option<Target> {
        let lane = &mut self.lanes[at];
        let view = &self.views[lane.pool];
        let timeout = view.pool.options.connect_timeout;
        lane.stage = Stage::Connecting(self.now_ms + ms(timeout).max(1));
        let mut members = view.now.ring.members.iter();
        let node = members.position(|member| Arc::ptr_eq(member, &lane.member))?;
        view.now.target(node)
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

    /// Bytes have come from a node: `came` of them, in `buf`, or where [`Lane::room`] said.
    pub fn received<'c>(
        &mut self,
        at: usize,
        buf: &mut [u8],
        came: usize,
        clients: &mut impl Clients<'c>,
    ) {
        let lane = &mut self.lanes[at];
        lane.heard_ms = self.now_ms;
        let result = if lane.is_partial() {
            let partial = lane.take_partial(came);
            self.cut_partial(at, partial, clients)
        } else {
            self.cut(at, &mut buf[..came], clients).map(|used| {
                if used < came
                    && let Some(lane) = self.lanes.get_mut(at)
                {
                    lane.keep_partial(buf[used..came].to_vec());
                }
            })
        };
        if result.is_err() {
            self.control.counts.garbage.fetch_add(1, Relaxed);
            self.failed(at, Failure::Garbage, clients);
        } else if let Some(lane) = self.lanes.get(at)
            && lane.tickets.is_empty()
            && (lane.is_retired || lane.is_probe)
        {
            self.close(at);
        }
        self.run(clients);
    }

    /// Takes the replies from bytes that were kept.
    fn cut_partial<'c>(
        &mut self,
        at: usize,
        mut partial: Vec<u8>,
        clients: &mut impl Clients<'c>,
    ) -> Result<(), Garbage> {
        let lane = &mut self.lanes[at];
        if lane.progress.wanted > partial.len() {
            lane.keep_partial(partial);
            return Ok(());
        }
        if partial.len() < LARGE {
            let used = self.cut(at, &mut partial, clients)?;
            if used < partial.len()
                && let Some(lane) = self.lanes.get_mut(at)
            {
                partial.drain(..used);
                lane.keep_partial(partial);
            }
            return Ok(());
        }
        // A large reply stays where it is; what follows it is copied.
        let shape = lane.tickets.front().map(Ticket::shape).ok_or(Garbage)?;
        let Some(end) = frame::end(shape, &partial, &mut lane.progress)? else {
            lane.keep_partial(partial);
            return Ok(());
        };
        let mut rest = partial[end..].to_vec();
        partial.truncate(end);
        if let Some(opcode) = self.lanes[at].tickets.front().and_then(Ticket::opcode) {
            partial[1] = opcode;
        }
        self.take(at, Piece::Shared(partial.into()), clients)?;
        let used = self.cut(at, &mut rest, clients)?;
        if used < rest.len()
            && let Some(lane) = self.lanes.get_mut(at)
        {
            rest.drain(..used);
            lane.keep_partial(rest);
        }
        Ok(())
    }

    /// Takes all whole replies from the start of `buf`; gives the bytes taken.
    fn cut<'c>(
        &mut self,
        at: usize,
        buf: &mut [u8],
        clients: &mut impl Clients<'c>,
    ) -> Result<usize, Garbage> {
        let mut used = 0;
        while used < buf.len() {
            let Some(lane) = self.lanes.get_mut(at) else {
                return Ok(used);
            };
            // What nobody asked for is no reply.
            let ticket = lane.tickets.front().ok_or(Garbage)?;
            let rest = &mut buf[used..];
            let Some(end) = frame::end(ticket.shape(), rest, &mut lane.progress)? else {
                break;
            };
            if let Some(opcode) = ticket.opcode() {
                rest[1] = opcode;
            }
            self.take(at, Piece::Copied(&rest[..end]), clients)?;
            used += end;
        }
        Ok(used)
    }

    /// One reply, which belongs to the lane's first ticket.
    fn take<'c>(
        &mut self,
        at: usize,
        piece: Piece<'_>,
        clients: &mut impl Clients<'c>,
    ) -> Result<(), Garbage> {
        let lane = &mut self.lanes[at];
        let bytes = match &piece {
            Piece::Copied(bytes) => *bytes,
            Piece::Shared(bytes) => &bytes[..],
        };
        let ticket = lane.tickets.front_mut().ok_or(Garbage)?;
        let is_last = match (&mut ticket.replies, &ticket.owner) {
            (Replies::One(_), Owner::Login) if bytes != reply::STORED => return Err(Garbage),
            (Replies::One(_), _) => true,
            (Replies::UntilNoop, _) => bytes == reply::MN,
            (Replies::Some(expect), _) => {
                let shared = || match &piece {
                    Piece::Copied(bytes) => Bytes::copy_from_slice(bytes),
                    Piece::Shared(bytes) => bytes.clone(),
                };
                let (mut reply, tag) = whole(bytes, shared).map_err(|_| Garbage)?;
                let (last, place) = expect.take(&reply, tag).ok_or(Garbage)?;
                if let client_core::reply::Reply::Ok(meta) = &mut reply {
                    meta.tag = Some(place);
                }
                if let client_core::reply::Reply::Refused(refusal) = &reply
                    && (expect.is_doubtful()
                        || matches!(refusal, client_core::reply::Refusal::Client(_)))
                {
                    lane.is_broken = true;
                }
                if let Owner::Flight {
                    op,
                    generation,
                    flight,
                } = ticket.owner
                    && self
                        .ops
                        .get(op)
                        .is_some_and(|op| op.generation == generation)
                {
                    self.ops[op].seat.tell(flight, Event::Reply(reply, last));
                    if last {
                        self.ops[op].flights.retain(|(other, _)| *other != flight);
                    }
                    if !self.ops[op].is_due {
                        self.ops[op].is_due = true;
                        self.due.push(op);
                    }
                }
                last
            }
        };
        if let Owner::Client {
            conn,
            number,
            part,
            hush,
            mark,
            ..
        } = ticket.owner
        {
            let good = match (ticket.shape(), part) {
                // Without a mark it is about several keys.
                (Shape::Values, None) => match &lane.progress.blocks[..] {
                    [] => true,
                    [block] => mark == 0 || block.mark == mark,
                    _ => mark == 0,
                },
                (Shape::Packet, _) => bytes[12..16] == mark.to_be_bytes(),
                _ => true,
            };
            if !good {
                return Err(Garbage);
            }
            if let Some(owed) = clients.owed(conn) {
                match part {
                    Some(part) if frame::is_refusal(trim(bytes)) => {
                        let _ = part;
                        owed.fail_part(number, Some(ErrorLine::Backend.line()), &mut self.spares);
                    }
                    Some(part) => {
                        let blocks = &lane.progress.blocks;
                        let bytes = match piece {
                            Piece::Copied(bytes) => Bytes::copy_from_slice(bytes),
                            Piece::Shared(bytes) => bytes,
                        };
                        owed.answer_part(number, part, (bytes, blocks), &mut self.spares);
                    }
                    None if is_hushed(hush, bytes) => {
                        owed.answer(number, Piece::NONE, &mut self.spares);
                    }
                    None => owed.answer(number, piece, &mut self.spares),
                }
                wake(&mut self.woken, owed, conn);
            }
        }
        lane.progress.reset();
        if is_last {
            let ticket = lane.tickets.pop_front().expect("just seen");
            self.control.counts.active.fetch_sub(1, Relaxed);
            if let Some(watch) = ticket.watch {
                watch.answered();
            }
            let (pool, member) = (lane.pool, lane.member.clone());
            if let Owner::Probe = ticket.owner {
                self.probed(pool, &member, true);
            } else if member.is_unwell() {
                self.worked(pool, &member);
            }
        }
        Ok(())
    }

    fn node_of(&self, pool: usize, member: &Arc<Member>) -> Option<usize> {
        let mut members = self.views.get(pool)?.now.ring.members.iter();
        members.position(|other| Arc::ptr_eq(other, member))
    }

    #[cold]
    fn worked(&self, pool: usize, member: &Arc<Member>) {
        if let Some(node) = self.node_of(pool, member) {
            let view = &self.views[pool];
            view.now.ring.worked(node, &view.pool.options);
        }
    }

    fn probed(&self, pool: usize, member: &Arc<Member>, answered: bool) {
        if let Some(node) = self.node_of(pool, member) {
            let view = &self.views[pool];
            let (ring, options) = (&view.now.ring, &view.pool.options);
            if answered {
                ring.probe_answered(node, self.now, options);
            } else {
                ring.probe_failed(node, self.now, options);
                view.now.doubt(node);
            }
        }
    }

    /// A lane's connection is lost, or makes no sense.
    pub fn failed<'c>(&mut self, at: usize, failure: Failure, clients: &mut impl Clients<'c>) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        let tickets = std::mem::take(&mut lane.tickets);
        let waiting = std::mem::take(&mut lane.waiting);
        let (pool, member) = (lane.pool, lane.member.clone());
        if !tickets.is_empty() {
            self.control.counts.lanes_failed.fetch_add(1, Relaxed);
            log::debug!("proxy: {}: {failure}", member.name);
        }
        if failure == Failure::Connect
            && let Some(node) = self.node_of(pool, &member)
        {
            self.views[pool].now.doubt(node);
        }
        self.close(at);
        for ticket in tickets {
            self.control.counts.active.fetch_sub(1, Relaxed);
            self.fail(pool, &member, ticket, failure, clients);
        }
        for conn in waiting {
            if let Some(owed) = clients.owed(conn) {
                wake(&mut self.woken, owed, conn);
            }
        }
        self.run(clients);
    }

    /// The socket of a lane is to be closed; the lane is gone if its node is, or it was made for a probe.
    fn close(&mut self, at: usize) {
        self.closed.push(at);
        let lane = &mut self.lanes[at];
        lane.reset();
        if lane.is_retired || lane.is_probe {
            self.lanes.remove(at);
        }
    }

    /// Tells whose a reply would have been that it does not come.
    fn fail<'c>(
        &mut self,
        pool: usize,
        member: &Arc<Member>,
        ticket: Ticket,
        failure: Failure,
        clients: &mut impl Clients<'c>,
    ) {
        if let Some(watch) = ticket.watch {
            watch.failed(failure);
        }
        let shape = ticket.replies.shape();
        match ticket.owner {
            Owner::Nobody | Owner::Login => {}
            Owner::Probe => self.probed(pool, member, false),
            Owner::Flight {
                op,
                generation,
                flight,
            } => {
                if self
                    .ops
                    .get(op)
                    .is_some_and(|op| op.generation == generation)
                {
                    self.ops[op].seat.tell(flight, Event::Failed(failure));
                    self.make_due(op);
                }
            }
            Owner::Client {
                conn,
                number,
                part,
                hush,
                mark,
                reads,
            } => {
                if failure.counts()
                    && let Some(node) = self.node_of(pool, member)
                {
                    let view = &self.views[pool];
                    view.now.ring.failed(node, self.now, &view.pool.options);
                }
                let misses = reads
                    && self
                        .views
                        .get(pool)
                        .is_some_and(|view| view.pool.spec.misses);
                let counts = &self.control.counts;
                match misses {
                    true => counts.misses_made.fetch_add(1, Relaxed),
                    false => counts.errors.fetch_add(1, Relaxed),
                };
                let Some(owed) = clients.owed(conn) else {
                    return;
                };
                let line = ErrorLine::Backend.line();
                if part.is_some() {
                    owed.fail_part(number, (!misses).then_some(line), &mut self.spares);
                } else {
                    let mut room = Vec::new();
                    let bytes = match (shape, misses, hush) {
                        (Shape::Packet, ..) => {
                            failed_packet(&mut room, hush, mark, misses);
                            &room
                        }
                        (Shape::Values, true, _) => reply::END,
                        (Shape::Meta, true, Hush::Miss) => b"",
                        (Shape::Meta, true, _) => b"EN\r\n",
                        _ => line,
                    };
                    owed.answer(number, Piece::Copied(bytes), &mut self.spares);
                }
                wake(&mut self.woken, owed, conn);
            }
        }
    }

    /// Does what is due: who is late fails, operations whose time has come go on, nodes that are away are probed.
    pub fn tick<'c>(&mut self, clients: &mut impl Clients<'c>) {
        while let Some(&Reverse((when, at, generation))) = self.timers.peek()
            && when <= self.now
        {
            self.timers.pop();
            if self
                .ops
                .get(at)
                .is_some_and(|op| op.generation == generation)
            {
                self.make_due(at);
            }
        }
        if self.now_ms.wrapping_sub(self.ticked_ms) >= TICK_MS {
            self.ticked_ms = self.now_ms;
            let lanes: Vec<usize> = self.lanes.iter().map(|(at, _)| at).collect();
            for at in lanes {
                self.look(at, clients);
            }
            if self.tends {
                self.tend();
            }
        }
        self.run(clients);
    }

    /// Looks who of a lane's is late.
    fn look<'c>(&mut self, at: usize, clients: &mut impl Clients<'c>) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        if lane.is_broken {
            return self.failed(at, Failure::Garbage, clients);
        }
        if let Stage::Connecting(until) = lane.stage
            && self.now_ms >= until
        {
            return self.failed(at, Failure::Connect, clients);
        }
        let (pool, member) = (lane.pool, lane.member.clone());
        let options = &self.views[pool].pool.options;
        let timeout_ms = ms(options.attempt_timeout);
        // Who waits for others is in time as long as something comes, but not for ever.
        let patience_ms = ms(options.request_timeout).saturating_sub(timeout_ms);
        let is_silent = self.now_ms >= lane.heard_ms + timeout_ms;
        if !lane.tickets.is_empty() && self.now_ms >= lane.heard_ms + 2 * timeout_ms.max(TICK_MS) {
            return self.failed(at, Failure::Timeout, clients);
        }
        let mut late = Vec::new();
        for ticket in &mut lane.tickets {
            if self.now_ms < ticket.due_ms {
                // Those behind came later.
                if matches!(ticket.replies, Replies::One(_)) {
                    break;
                }
                continue;
            }
            let is_late = is_silent || self.now_ms >= ticket.due_ms + patience_ms;
            if !is_late || matches!(ticket.owner, Owner::Nobody) {
                continue;
            }
            let shape = ticket.replies.shape();
            late.push(Ticket {
                replies: Replies::One(shape),
                owner: std::mem::replace(&mut ticket.owner, Owner::Nobody),
                due_ms: ticket.due_ms,
                watch: ticket.watch.take(),
            });
        }
        for ticket in late {
            self.control.counts.timeouts.fetch_add(1, Relaxed);
            self.fail(pool, &member, ticket, Failure::Timeout, clients);
        }
    }

    /// Sees to nodes that are away, or owed something.
    fn tend(&mut self) {
        for pool in 0..self.views.len() {
            let view = &self.views[pool];
            let (now, options) = (view.now.clone(), view.pool.options.clone());
            for (node, member) in now.ring.members.iter().enumerate() {
                now.ring.tend(node, self.now, &options);
                if !member.is_unwell() {
                    continue;
                }
                if let Some(request) = member.probe_due(self.now) {
                    let mut lane = Lane::new(pool, member.clone(), false);
                    lane.is_probe = true;
                    let at = self.lanes.insert(lane);
                    self.out(at).bytes(&request);
                    let patience = options.connect_timeout + options.attempt_timeout;
                    self.push(
                        at,
                        Replies::UntilNoop,
                        Owner::Probe,
                        self.now_ms + ms(patience),
                    );
                }
            }
        }
    }
}

/// Puts a client into the list of those that are to have a turn.
fn wake(woken: &mut Vec<ConnId>, owed: &mut Owed<'_>, conn: ConnId) {
    if !owed.woken {
        owed.woken = true;
        woken.push(conn);
    }
}

fn ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis())
        .unwrap_or(u32::MAX / 4)
        .min(u32::MAX / 4)
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r\n").unwrap_or(line)
}

/// True for a nominal reply that a quiet request does not want.
fn is_hushed(hush: Hush, reply: &[u8]) -> bool {
    match hush {
        Hush::Nothing | Hush::Loud(_) => false,
        Hush::Miss => reply.starts_with(b"EN"),
        Hush::Done => reply.starts_with(b"HD") || reply.starts_with(b"VA "),
        Hush::Quiet(opcode) => {
            use protocol::binary::opcode::{GATKQ, GATQ, GETKQ, GETQ};
            let status = reply.get(6..8).unwrap_or_default();
            let hidden = match opcode {
                GETQ | GETKQ | GATQ | GATKQ => Status::NotFound,
                _ => Status::Ok,
            };
            reply.len() >= HEADER_LEN && status == (hidden as u16).to_be_bytes()
        }
    }
}

/// A packet that tells that no node has answered.
fn failed_packet(out: &mut Vec<u8>, hush: Hush, opaque: u32, misses: bool) {
    let (opcode, quiet) = match hush {
        Hush::Quiet(opcode) => (opcode, true),
        Hush::Loud(opcode) => (opcode, false),
        _ => (0, false),
    };
    let head = BinaryHead {
        opcode,
        quiet,
        opaque,
    };
    match misses {
        true if quiet => {}
        true => binary::error(out, head, Status::NotFound),
        false => binary::error(out, head, ErrorLine::Backend.into()),
    }
}
