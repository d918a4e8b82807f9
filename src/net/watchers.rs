//! Connections that watch: one thread has them from the moment they asked for it to their end, and writes to them what
//! happens.
//!
//! ```text
//!  worker --hand over--> channel + waker --> [ sights: lines, to each who wants them, while there is room ] --> sockets
//!                                            [ feed: collect, then each reads on from its place           ]
//! ```
//!
//! Wa1. No worker waits for this thread: what it does not take in time, workers drop (sights) or put in order themselves (feed).
//! Wa2. Nobody here waits for a socket: lines for who does not take them are counted as skipped; the place of a slow reader of
//!     the feed stays where it is, until what follows it is gone, and then it is told so.
//! Wa3. What readers send is thrown away; when they close, they are forgotten.
//! Wa4. The feed goes on to be recorded for [`LINGER`] when its last reader has left, so that it can come back.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use mio::{Events, Poll, Token, Waker};
use slab::Slab;

use super::handles::ListenerHandle;
use super::stream::Stream;
use crate::events::{Audience, Closed, Events as Happenings, RingId, Shown, Taken, Watch};
use crate::state::{ConnInfo, ConnState, Shared};

/// How often what has happened is looked for, while it does.
const LOOK: Duration = Duration::from_millis(1);
/// The same when nothing has happened for [`QUIET`].
const LOOK_QUIET: Duration = Duration::from_millis(4);
const QUIET: Duration = Duration::from_secs(1);
/// How long the feed is recorded without a reader.
const LINGER: Duration = Duration::from_secs(60);
/// Bytes written for a reader of the feed at once.
const OUT_BYTES: usize = 64 << 10;
/// Writes to one reader before the others have theirs.
const WRITES: usize = 4;
/// Reads of what is thrown away, in one go.
const READS: usize = 4;
/// Room for the line that tells how many were skipped.
const SKIPPED_BYTES: usize = 32;

const WAKER: Token = Token(usize::MAX);

/// A connection that is handed over.
#[derive(Debug)]
pub(super) struct Arrival {
    pub stream: Stream,
    pub info: Arc<ConnInfo>,
    pub watch: Box<Watch>,
    pub place: Taken,
}

/// The way to reach the thread.
#[derive(Debug, Clone)]
pub struct WatchersHandle {
    sender: Sender<Arrival>,
    waker: Arc<Waker>,
}

impl WatchersHandle {
    pub(super) fn hand_over(&self, arrival: Arrival) {
        if self.sender.send(arrival).is_ok() {
            self.wake();
        }
    }

    /// Lets it look again whether to end.
    pub fn wake(&self) {
        // It fails only when the thread has ended.
        let _ = self.waker.wake();
    }
}

/// The thread, before it runs.
#[derive(Debug)]
pub struct Watchers {
    poll: Poll,
    arrivals: Receiver<Arrival>,
    handle: WatchersHandle,
}

impl Watchers {
    /// Without connections yet.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (sender, arrivals) = crossbeam::channel::unbounded();
        let handle = WatchersHandle { sender, waker };
        Ok(Watchers {
            poll,
            arrivals,
            handle,
        })
    }

    /// The way to reach it.
    pub fn handle(&self) -> WatchersHandle {
        self.handle.clone()
    }

    /// Serves until `stop`. `listener` is told when a connection has ended.
    pub fn run(
        self,
        shared: &Shared,
        listener: &ListenerHandle,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let Watchers {
            mut poll, arrivals, ..
        } = self;
        let mut serving = Serving {
            shared,
            listener,
            happenings: shared.cache.events(),
            watchers: Slab::new(),
            began: Instant::now(),
            moved: Instant::now(),
            forget_feed_at: None,
            again: false,
            taken: Vec::new(),
            line_bytes_max: shared.settings.watcher_logbuf_bytes,
        };
        let mut events = Events::with_capacity(256);
        while !stop.load(Relaxed) {
            match poll.poll(&mut events, serving.timeout()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                if let Some(watcher) = serving.watchers.get_mut(event.token().0) {
                    watcher.is_stuck &= !event.is_writable();
                    watcher.may_read |= event.is_readable() || event.is_read_closed();
                }
            }
            while let Ok(arrival) = arrivals.try_recv() {
                serving.take(&poll, arrival);
            }
            serving.again = false;
            serving.hand_out_sights();
            serving.hand_out_feed();
            serving.see_to_sockets();
        }
        Ok(())
    }
}

/// A connection that watches.
#[derive(Debug)]
struct Watcher {
    stream: Stream,
    info: Arc<ConnInfo>,
    watch: Watch,
    _place: Taken,
    out: Vec<u8>,
    /// Bytes of `out` that are written.
    sent: usize,
    /// The number of the first sight that it gets.
    first_gid: u64,
    /// Lines that it did not get since the last that it got.
    skipped: u64,
    /// Its socket takes nothing.
    is_stuck: bool,
    may_read: bool,
    is_gone: bool,
}

impl Watcher {
    /// Writes what there is to write: all (true), or until the socket takes no more.
    fn flush(&mut self) -> bool {
        while !self.is_stuck && !self.is_gone && self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => self.is_gone = true,
                Ok(n) => self.sent += n,
                Err(error) => self.note(&error),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        if !self.is_gone && !self.is_stuck {
            match self.stream.flush() {
                Ok(all) => self.is_stuck = !all,
                Err(error) => self.note(&error),
            }
        }
        self.out.is_empty() && !self.is_stuck && !self.is_gone
    }

    fn note(&mut self, error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock => self.is_stuck = true,
            ErrorKind::Interrupted => {}
            _ => self.is_gone = true,
        }
    }

    /// Throws away what comes (Wa3).
    fn discard(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..READS {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_gone = true,
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.may_read = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.is_gone = true,
            }
            return;
        }
    }

    /// Gives it a line, or counts it as skipped (Wa2).
    fn offer(&mut self, line: &[u8], bytes_max: usize, happenings: &Happenings) {
        let has_room = |watcher: &Watcher| {
            let waits = watcher.out.len() - watcher.sent;
            waits == 0 || waits + SKIPPED_BYTES + line.len() <= bytes_max
        };
        if !has_room(self) {
            self.flush();
        }
        if self.is_gone || !has_room(self) {
            self.skipped += 1;
            happenings.sights.skipped.fetch_add(1, Relaxed);
            return;
        }
        if self.skipped > 0 {
            let skipped = std::mem::take(&mut self.skipped);
            self.out
                .extend_from_slice(format!("skipped={skipped}\n").as_bytes());
        }
        self.out.extend_from_slice(line);
        happenings.sights.sent.fetch_add(1, Relaxed);
    }
}

/// The thread at work.
struct Serving<'s> {
    shared: &'s Shared,
    listener: &'s ListenerHandle,
    happenings: &'s Happenings,
    watchers: Slab<Watcher>,
    began: Instant,
    /// When something has happened last.
    moved: Instant,
    /// When to end recording the feed, if nobody reads it.
    forget_feed_at: Option<Instant>,
    /// There is more to do at once.
    again: bool,
    taken: Vec<u8>,
    line_bytes_max: usize,
}

impl Serving<'_> {
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        match self.forget_feed_at {
            _ if self.again => Some(Duration::ZERO),
            _ if !self.watchers.is_empty() && now.duration_since(self.moved) < QUIET => Some(LOOK),
            _ if !self.watchers.is_empty() => Some(LOOK_QUIET),
            Some(at) => Some(at.saturating_duration_since(now)),
            None => None,
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn take(&mut self, poll: &Poll, arrival: Arrival) {
        let Arrival {
            mut stream,
            info,
            watch,
            place,
        } = arrival;
        let token = Token(self.watchers.vacant_key());
        if let Err(error) = stream.register(poll.registry(), token) {
            log::warn!("{}: closed: {error}", info.addr);
            return self.forget(&info);
        }
        info.set_state(ConnState::Watch);
        let mut watcher = Watcher {
            stream,
            info,
            watch: *watch,
            _place: place,
            out: Vec::new(),
            sent: 0,
            first_gid: 0,
            skipped: 0,
            is_stuck: false,
            // What came before the registration makes no edge.
            may_read: true,
            is_gone: false,
        };
        let now_ms = self.now_ms();
        let happenings = self.happenings;
        match &mut watcher.watch {
            Watch::Sights(_) => {
                watcher.first_gid = happenings.sights.next_gid();
                watcher.out.extend_from_slice(b"OK\r\n");
            }
            Watch::Feed(feed) => {
                if !happenings.audience().has(Audience::FEED) {
                    happenings.begin_feed();
                }
                self.forget_feed_at = None;
                let last = happenings.feed.collect();
                feed.begin(&happenings.feed, last, now_ms, &mut watcher.out);
            }
        }
        self.moved = Instant::now();
        self.watchers.insert(watcher);
        self.let_listen();
        // Only now, so that whoever reads this is shown what it does next.
        if let Some(watcher) = self.watchers.get_mut(token.0) {
            watcher.flush();
        }
    }

    /// Lets those listen who are wanted by a watcher.
    fn let_listen(&self) {
        let mut wanted = Audience::default();
        for (_, watcher) in &self.watchers {
            if let Watch::Sights(filter) = &watcher.watch {
                wanted = wanted.with(filter.kinds);
            }
        }
        self.happenings.show_only(wanted);
    }

    fn hand_out_sights(&mut self) {
        let (happenings, bytes_max) = (self.happenings, self.line_bytes_max);
        let watchers = &mut self.watchers;
        let is_watched = watchers
            .iter()
            .any(|(_, watcher)| matches!(watcher.watch, Watch::Sights(_)));
        if !is_watched {
            return;
        }
        let count = happenings
            .sights
            .take(&mut self.taken, |kind, gid, key, line| {
                for (_, watcher) in watchers.iter_mut() {
                    if let Watch::Sights(filter) = &watcher.watch
                        && gid >= watcher.first_gid
                        && filter.wants(kind, key)
                    {
                        watcher.offer(line, bytes_max, happenings);
                    }
                }
            });
        if count > 0 {
            self.moved = Instant::now();
        }
    }

    fn hand_out_feed(&mut self) {
        let feed = &self.happenings.feed;
        let now_ms = self.now_ms();
        let mut is_read = false;
        for (_, watcher) in &mut self.watchers {
            if !matches!(watcher.watch, Watch::Feed(_)) {
                continue;
            }
            if !std::mem::replace(&mut is_read, true) {
                feed.collect();
            }
            let mut more = true;
            for _ in 0..WRITES {
                if !watcher.flush() {
                    more = false;
                    break;
                }
                let Watch::Feed(subscription) = &mut watcher.watch else {
                    break;
                };
                more = subscription.write(feed, &mut watcher.out, OUT_BYTES);
                if !watcher.out.is_empty() {
                    self.moved = Instant::now();
                }
                if !more {
                    subscription.beat(now_ms, &mut watcher.out);
                    break;
                }
            }
            self.again |= more;
        }
        if self.forget_feed_at.is_some_and(|at| at <= Instant::now()) {
            self.forget_feed_at = None;
            self.happenings.end_feed();
        }
    }

    fn see_to_sockets(&mut self) {
        let mut gone = Vec::new();
        for (slot, watcher) in &mut self.watchers {
            if watcher.may_read {
                watcher.discard();
                self.again |= watcher.may_read;
            }
            if !watcher.out.is_empty() || watcher.stream.has_unsent() {
                watcher.flush();
            }
            if watcher.is_gone {
                gone.push(slot);
            }
        }
        if gone.is_empty() {
            return;
        }
        for slot in gone {
            let Watcher { stream, info, .. } = self.watchers.remove(slot);
            log::debug!("<{} watcher closed", stream.as_raw_fd());
            // The socket is closed before the place is given free.
            drop(stream);
            self.forget(&info);
        }
        self.let_listen();
        let mut watchers = self.watchers.iter();
        if !watchers.any(|(_, watcher)| matches!(watcher.watch, Watch::Feed(_)))
            && self.happenings.audience().has(Audience::FEED)
        {
            self.forget_feed_at.get_or_insert(Instant::now() + LINGER);
        }
    }

    /// Forgets a connection whose socket is closed.
    fn forget(&self, info: &Arc<ConnInfo>) {
        show_close(self.happenings, RingId::COMMON, info, Closed::Normal);
        self.shared.connections.remove(info);
        free_place(self.shared, self.listener);
    }
}

/// Shows watchers that a connection has ended.
#[inline]
pub(super) fn show_close(happenings: &Happenings, ring: RingId, info: &ConnInfo, reason: Closed) {
    if happenings.audience().has(Audience::CONNEVENTS) {
        let (addr, fd) = (info.addr.as_bytes(), info.fd);
        happenings
            .sights
            .show(ring, &Shown::ConnClose { addr, fd, reason });
    }
}

/// Lets another client in.
pub(super) fn free_place(shared: &Shared, listener: &ListenerHandle) {
    let before = shared
        .connections
        .counts
        .curr_connections
        .fetch_sub(1, Relaxed);
    if before >= shared.settings.conns_allowed() as u64 {
        listener.wake();
    }
}
