//! A worker: one event loop over the connections that are its own.
//!
//! W1. A connection belongs to one worker from the moment it was accepted to its end.
//! W2. A connection whose turn is over while it has more to do stands in `again`, and gets its next turn after all
//!     others that are ready; the loop does not sleep while somebody stands there. So does a UDP socket.
//! W3. Those who are ready together are read from before the first of them is answered, a group at a time: what one asks
//!     for is on its way from memory while the others are answered. Who sends one request at a time can be helped in no
//!     other way.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crossbeam::channel::Receiver;
use mio::{Events, Poll, Registry, Token, Waker};

use super::bind::Bound;
use super::carried::{Carried, Left};
use super::conn::{Conn, Held, Late, Turn};
use super::conversation::Conversation;
use super::handles::{Handle, ListenerHandle, Message};
use super::slots::Slots;
use super::stream::Stream;
use super::udp::WorkerUdp;
use super::upstream::{LANE_ID_MIN, Upstream};
use super::watchers::{Arrival, WatchersHandle, free_place, show_close};
use crate::command::Output;
use crate::events::{Audience, Closed, Shown};
use crate::proxy::Control;
use crate::settings::WireProtocol;
use crate::state::{ConnId, ConnInfo, Ctx, Shared};
use crate::sys;

/// What one read takes at most, unless it goes into a value: memcached's read buffer.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// Events taken from the poll at once.
const EVENTS_MAX: usize = 256;
/// Connections that are read from before the first of them is answered (W3). 16 were no faster.
const GROUP: usize = 8;
/// How often a worker looks for connections that are late.
const LATE_CHECK: Duration = Duration::from_secs(1);
/// Capacity above which the shared output is given back after a turn.
const OUTPUT_KEPT_BYTES: usize = 256 << 10;

const WAKER: Token = Token(usize::MAX);
/// Ids from here on are UDP sockets, those below are connections.
const UDP_ID_MIN: usize = usize::MAX / 2;

/// A worker, before it runs.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    poll: Poll,
    messages: Receiver<Message>,
    /// The way to itself, for threads that do something on its behalf.
    handle: Handle,
    /// Told when a connection has ended, for a listener that waits for room.
    listener: ListenerHandle,
    watchers: WatchersHandle,
    udp: Option<WorkerUdp>,
    proxy: Option<Arc<Control>>,
}

impl Worker {
    /// Worker number `index`, and the way to reach it.
    pub fn new(
        index: usize,
        listener: ListenerHandle,
        watchers: WatchersHandle,
    ) -> io::Result<(Self, Handle)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (sender, messages) = crossbeam::channel::unbounded();
        let handle = Handle::new(sender, waker);
        Ok((
            Worker {
                index,
                poll,
                messages,
                handle: handle.clone(),
                listener,
                watchers,
                udp: None,
                proxy: None,
            },
            handle,
        ))
    }

    /// Hands it its UDP sockets, if there are any.
    pub fn take_udp(&mut self, bound: &mut Bound, shared: &Shared) -> io::Result<()> {
        self.udp = bound.take_udp(self.index, shared)?;
        for (index, udp) in self
            .udp
            .iter_mut()
            .flat_map(|udp| &mut udp.sockets)
            .enumerate()
        {
            udp.register(self.poll.registry(), Token(UDP_ID_MIN + index), shared)?;
        }
        Ok(())
    }

    /// Makes it pass on what it is asked, to where this says.
    pub fn take_proxy(&mut self, proxy: Option<Arc<Control>>) {
        self.proxy = proxy;
    }

    /// Serves until it is told to stop, or to leave what it has to another process.
    pub fn run(self, shared: &Shared) -> io::Result<Left> {
        let Worker {
            index,
            mut poll,
            messages,
            handle,
            listener,
            watchers,
            udp,
            proxy,
        } = self;
        let mut serving = Serving {
            shared,
            index,
            handle,
            listener: &listener,
            watchers: &watchers,
            registry: poll.registry().try_clone()?,
            conns: Slots::new(),
            udp,
            upstream: proxy.map(|control| Box::new(Upstream::new(control, index))),
            again: VecDeque::new(),
            timed: 0,
            buffers: std::array::from_fn(|_| vec![0; READ_BUFFER_BYTES]),
            out: Output::new(),
        };
        let to_self = serving.handle.clone();
        shared.when_to_give_way(index, move || to_self.send(Message::GiveWay));
        let mut events = Events::with_capacity(EVENTS_MAX);
        let idle_timeout_s = shared.settings.idle_timeout_s;
        let mut late_checked = shared.clock.now();
        let mut is_leaving = false;
        loop {
            let upstream = serving.upstream.as_deref();
            let timeout = if !serving.again.is_empty() || upstream.is_some_and(Upstream::is_busy) {
                Some(Duration::ZERO)
            } else if let Some(upstream) = upstream {
                upstream.desk.sleeps()
            } else if idle_timeout_s > 0 || serving.timed > 0 {
                Some(LATE_CHECK)
            } else {
                None
            };
            match poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            // Those who yielded stand behind those whom this poll found ready.
            let yielded = serving.again.len();
            let ctx = shared.ctx(index);
            let is_for_several = yielded > 0 || events.iter().nth(1).is_some();
            ctx.observer.woke(is_for_several);
            if let Some(upstream) = &mut serving.upstream {
                upstream.desk.wake();
            }
            serving.serve_ready(ctx, &events);
            if events.iter().any(|event| event.token() == WAKER) {
                while let Ok(message) = messages.try_recv() {
                    match message {
                        Message::Serve(stream, info, protocol) => {
                            serving.add(ctx, stream, info, protocol);
                        }
                        Message::Wake(id) => serving.wake(ctx, id),
                        Message::GoOn(carried) => serving.go_on(ctx, carried),
                        Message::GiveWay => serving.give_way(ctx),
                        Message::Stop => return Ok(Left::default()),
                        Message::Leave => {
                            // What was accepted and is yet to come is behind this message, if it is at all.
                            is_leaving = true;
                        }
                    }
                }
            }
            if is_leaving {
                return Ok(serving.leave(ctx, poll.registry()));
            }
            for _ in 0..yielded {
                if let Some(id) = serving.again.pop_front() {
                    ctx.observer.turn_begins();
                    serving.take_turn_again(ctx, id);
                }
            }
            serving.serve_upstream(ctx, &poll, &events);
            if sys::is_short() {
                serving.shed(ctx);
            }
            if ctx.now != late_checked {
                late_checked = ctx.now;
                if idle_timeout_s > 0 || serving.timed > 0 {
                    serving.close_late(ctx, idle_timeout_s);
                    serving.see_to_dumps(ctx);
                }
            }
        }
    }
}

/// A running worker.
struct Serving<'c> {
    shared: &'c Shared,
    index: usize,
    handle: Handle,
    listener: &'c ListenerHandle,
    watchers: &'c WatchersHandle,
    registry: Registry,
    conns: Slots<Conn<'c>>,
    udp: Option<WorkerUdp>,
    /// The way to the nodes, in a proxy.
    upstream: Option<Box<Upstream>>,
    again: VecDeque<usize>,
    /// Connections that are to be looked at once a second.
    timed: usize,
    /// One for each of a group.
    buffers: [Vec<u8>; GROUP],
    /// The replies of the turn in progress.
    out: Output<'c>,
}

impl<'c> Serving<'c> {
    /// Writes down all connections.
    fn leave(mut self, ctx: Ctx<'c>, registry: &Registry) -> Left {
        let mut left = Left::default();
        for conn in self.conns.drain() {
            let info = conn.info.clone();
            conn.forget_buffers(&self.shared.connections);
            match conn.pack(ctx) {
                Some(carried) => left.conns.push(carried),
                None => left.ended += 1,
            }
            self.shared.connections.remove(&info);
            let counts = &self.shared.connections.counts;
            counts.curr_connections.fetch_sub(1, Relaxed);
        }
        let udp = self.udp.take().into_iter().flat_map(|udp| udp.sockets);
        left.udp
            .extend(udp.map(|udp| udp.leave(registry, self.shared)));
        left
    }

    /// Goes on with a connection of another process.
    fn go_on(&mut self, ctx: Ctx<'c>, carried: Carried) {
        let counts = &self.shared.connections.counts;
        counts.curr_connections.fetch_add(1, Relaxed);
        let Some(conn) = Conn::unpack(ctx, carried) else {
            log::error!("a connection that was handed over cannot be read, and is closed");
            return free_place(self.shared, self.listener);
        };
        self.keep(ctx, conn);
    }

    fn add(&mut self, ctx: Ctx<'c>, stream: Stream, info: Arc<ConnInfo>, protocol: WireProtocol) {
        let session = Conversation::speaking(protocol, self.upstream.is_some());
        let mut conn = Conn::new(stream, info, session, ctx.now.0);
        if self.shared.auth.is_some() {
            conn.note_peer();
        }
        self.keep(ctx, conn);
    }

    fn keep(&mut self, ctx: Ctx<'c>, mut conn: Conn<'c>) {
        let id = self.conns.vacant();
        if let Err(error) = conn.stream.register(&self.registry, Token(id)) {
            log::warn!("{}: closed: {error}", conn.info.addr);
            conn.forget_buffers(&self.shared.connections);
            free_place(self.shared, self.listener);
            return;
        }
        if sys::is_short() {
            conn.forget_buffers(&self.shared.connections);
            free_place(self.shared, self.listener);
            return;
        }
        log::debug!(
            "<{} new client connection {} on worker {}",
            conn.info.fd,
            conn.info.addr,
            self.index
        );
        self.shared.connections.add(conn.info.clone());
        let events = ctx.cache.events();
        if events.audience().has(Audience::CONNEVENTS) {
            let (addr, fd) = (conn.info.addr.as_bytes(), conn.info.fd);
            events.sights.show(ctx.ring, &Shown::ConnNew { addr, fd });
        }
        let proof = self.udp.as_ref().zip(conn.stream.peer_ip());
        self.timed += usize::from(conn.is_timed());
        conn.proof = proof.map(|(udp, ip)| udp.peers.prove(ip));
        conn.is_named(self.conns.vacant_id());
        self.conns.insert(conn);
        self.turn(ctx, id);
    }

    /// Gives a turn to all that the poll has found ready.
    fn serve_ready(&mut self, ctx: Ctx<'c>, events: &Events) {
        let is_of_lane = |id: usize| (LANE_ID_MIN..UDP_ID_MIN).contains(&id);
        let mut events = events
            .iter()
            .filter(|event| event.token() != WAKER && !is_of_lane(event.token().0));
        loop {
            let mut group = [0; GROUP];
            let mut count = 0;
            for event in events.by_ref().take(GROUP) {
                let id = event.token().0;
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.readable |= event.is_readable() || event.is_read_closed();
                    conn.half_closed |= event.is_read_closed();
                }
                group[count] = id;
                count += 1;
            }
            let group = &group[..count];
            let read = match count {
                0 => return,
                1 => [0; GROUP],
                _ => self.read_ahead(ctx, group),
            };
            for (place, (&id, read)) in group.iter().zip(read).enumerate() {
                if count > 1 {
                    ctx.observer.turn_begins();
                }
                if id >= UDP_ID_MIN {
                    self.udp_turn(ctx, id, false);
                } else if self.conns.get(id).is_some_and(|conn| !conn.queued) {
                    // The first buffer, which is warm, is free as soon as the first has had its turn.
                    let place = if read > 0 { place } else { 0 };
                    self.turn_with(ctx, id, place, read);
                }
            }
            if count < GROUP {
                return;
            }
        }
    }

    /// Takes in what nodes have sent, gives a turn to the clients that have waited for it, and sends the nodes what all of them
    /// have asked for.
    fn serve_upstream(&mut self, ctx: Ctx<'c>, poll: &Poll, events: &Events) {
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        let lanes = LANE_ID_MIN..UDP_ID_MIN;
        for event in events
            .iter()
            .filter(|event| lanes.contains(&event.token().0))
        {
            upstream.event(ctx, event, &mut self.conns);
        }
        if events.iter().nth(EVENTS_MAX - 1).is_some() {
            upstream.catch_up(ctx, &mut self.conns);
        }
        upstream.read_again(ctx, &mut self.conns);
        upstream.desk.tick(&mut self.conns);
        // What a write finds out may wake others.
        loop {
            let Some(upstream) = &mut self.upstream else {
                return;
            };
            let woken = upstream.desk.take_woken(&mut self.conns);
            for &id in &woken {
                self.wake(ctx, id);
            }
            if let Some(upstream) = &mut self.upstream {
                upstream.flush(ctx, poll.registry(), &mut self.conns);
                if upstream.desk.give_back(woken) {
                    return;
                }
            }
        }
    }

    /// Reads the requests of a group into its buffers and has fetched what they ask for; gives the bytes of each.
    fn read_ahead(&mut self, ctx: Ctx<'c>, group: &[usize]) -> [usize; GROUP] {
        let mut read = [0; GROUP];
        for (place, &id) in group.iter().enumerate() {
            if let Some(conn) = self.conns.get_mut(id) {
                read[place] = conn.read_ahead(ctx, &mut self.buffers[place]);
            }
        }
        for &id in group {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.fetch_ahead(ctx);
            }
        }
        read
    }

    /// Gives a turn to a connection, if it is still there and does not stand in the queue.
    fn wake(&mut self, ctx: Ctx<'c>, id: ConnId) {
        let conn = self.conns.get(id.slot);
        if self.conns.has(id) && conn.is_some_and(|conn| !conn.queued) {
            self.turn(ctx, id.slot);
        }
    }

    fn give_way(&mut self, ctx: Ctx<'c>) {
        let to_close = |(id, conn): (usize, &mut Conn<'c>)| conn.give_way(ctx).then_some(id);
        let ids: Vec<usize> = self.conns.iter_mut().filter_map(to_close).collect();
        for id in ids {
            ctx.stats.general.readers_given_way.inc();
            self.close(ctx, id, Some(Closed::Error));
        }
    }

    /// Closes connections for what they hold: the system has no more memory.
    fn shed(&mut self, ctx: Ctx<'c>) {
        for id in 0..self.conns.end() {
            self.shed_one(ctx, id);
        }
    }

    fn shed_one(&mut self, ctx: Ctx<'c>, id: usize) {
        match self.conns.get(id).and_then(Conn::holds) {
            None => return,
            Some(Held::Replies) => ctx.stats.general.response_obj_oom.inc(),
            Some(Held::Requests) => ctx.stats.general.read_buf_oom.inc(),
        }
        self.close(ctx, id, Some(Closed::Error));
    }

    fn take_turn_again(&mut self, ctx: Ctx<'c>, id: usize) {
        if id >= UDP_ID_MIN {
            self.udp_turn(ctx, id, true);
            return;
        }
        if let Some(conn) = self.conns.get_mut(id)
            && conn.queued
        {
            conn.queued = false;
            self.turn(ctx, id);
        }
    }

    fn turn(&mut self, ctx: Ctx<'c>, id: usize) {
        self.turn_with(ctx, id, 0, 0);
    }

    /// A turn of a connection of which the buffer at `place` holds `read` bytes already.
    fn turn_with(&mut self, ctx: Ctx<'c>, id: usize, place: usize, read: usize) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        let buffer = &mut self.buffers[place][..];
        if read == 0 {
            // What an earlier turn left there is not what this one was asked.
            buffer[0] = 0;
        }
        let was_timed = usize::from(conn.is_timed());
        let desk = self.upstream.as_mut().map(|upstream| &mut upstream.desk);
        let turn = conn.turn(ctx, buffer, read, &mut self.out, desk);
        self.timed = self.timed - was_timed + usize::from(conn.is_timed());
        let now_s = ctx.now.0;
        if let Some(slow) = ctx.observer.turn_done(now_s) {
            ctx.observer.note_slow(slow, &self.buffers[place], now_s);
        }
        match turn {
            Turn::Wait => {}
            Turn::Again => {
                conn.queued = true;
                self.again.push_back(id);
            }
            Turn::Verify => {
                let (handle, name) = (self.handle.clone(), self.conns.id(id));
                let wake = move || {
                    if let Some(id) = name {
                        handle.send(Message::Wake(id));
                    }
                };
                if let Some(conn) = self.conns.get(id) {
                    conn.when_verified(Box::new(wake));
                }
            }
            Turn::Watch => self.hand_over(ctx, id),
            Turn::Close => self.close(ctx, id, None),
        }
        if self.out.buf.capacity() > OUTPUT_KEPT_BYTES {
            self.out = Output::new();
        }
        if sys::is_short() {
            self.shed_one(ctx, id);
        }
    }

    /// A turn of a UDP socket, because its time has come (`again`) or datagrams have.
    fn udp_turn(&mut self, ctx: Ctx<'c>, id: usize, again: bool) {
        let Some(WorkerUdp { sockets, peers }) = &mut self.udp else {
            return;
        };
        let udp = &mut sockets[id - UDP_ID_MIN];
        // One that stands in the queue waits for its turn there.
        if udp.queued != again {
            return;
        }
        udp.queued = udp.turn(ctx, peers, &mut self.out) == Turn::Again;
        if let Some(slow) = ctx.observer.turn_done(ctx.now.0) {
            ctx.observer.note_slow(slow, &[], ctx.now.0);
        }
        if udp.queued {
            self.again.push_back(id);
        }
    }

    /// Takes a connection out.
    fn remove(&mut self, id: usize) -> Conn<'c> {
        let conn = self.conns.remove(id);
        self.timed -= usize::from(conn.is_timed());
        conn.forget_buffers(&self.shared.connections);
        conn
    }

    /// Hands a connection over to who serves watchers. It keeps its place.
    fn hand_over(&mut self, ctx: Ctx<'c>, id: usize) {
        let conn = self.remove(id);
        let info = conn.info.clone();
        if let Some((mut stream, info, watch, place)) = conn.into_watched()
            && stream.deregister(&self.registry).is_ok()
        {
            return self.watchers.hand_over(Arrival {
                stream,
                info,
                watch,
                place,
            });
        }
        show_close(ctx.cache.events(), ctx.ring, &info, Closed::Error);
        self.shared.connections.remove(&info);
        free_place(self.shared, self.listener);
    }

    /// Closes a connection, for this reason or its own.
    fn close(&mut self, ctx: Ctx<'c>, id: usize, reason: Option<Closed>) {
        let conn = self.remove(id);
        log::debug!("<{} connection closed", conn.info.fd);
        let info = conn.info.clone();
        show_close(
            ctx.cache.events(),
            ctx.ring,
            &info,
            reason.unwrap_or(conn.closed),
        );
        self.shared.connections.remove(&info);
        // The socket is closed before the place is given free.
        drop(conn);
        free_place(self.shared, self.listener);
    }

    /// Gives a turn to the dumps that wait for a place.
    fn see_to_dumps(&mut self, ctx: Ctx<'c>) {
        let to_turn = |(id, conn): (usize, &mut Conn<'c>)| conn.see_to_dump(ctx.now).then_some(id);
        let ids: Vec<usize> = self.conns.iter_mut().filter_map(to_turn).collect();
        for id in ids {
            self.turn(ctx, id);
        }
    }

    fn close_late(&mut self, ctx: Ctx<'c>, idle_timeout_s: u32) {
        let lateness = |(id, conn): (usize, &Conn<'_>)| {
            let late = conn.lateness(ctx.now.0, idle_timeout_s)?;
            Some((id, late))
        };
        let all: Vec<(usize, Late)> = self.conns.iter().filter_map(lateness).collect();
        for (id, late) in all {
            let reason = match late {
                Late::Idle => Closed::Idle,
                Late::Deadline => Closed::Error,
            };
            match late {
                Late::Idle => ctx.stats.general.idle_kicks.inc(),
                Late::Deadline => {
                    if let Some(conn) = self.conns.get(id) {
                        conn.count_late(ctx);
                    }
                }
            }
            self.close(ctx, id, Some(reason));
        }
    }
}
