//! What an operation hears: the replies and failures of its exchanges, in the order they came.
//!
//! ```text
//!  lane: Ticket --reply, failure, lost--> Mailbox (one an operation) --> drive
//! ```
//!
//! Mb1. A ticket reports once: all its replies, a failure, or, dropped, that it was lost.
//! Mb2. A mailbox holds no more than its operation asked for; once that is gone, what comes is told to its watches at most.

use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use ::tokio::sync::OwnedSemaphorePermit;

use client_core::Patience;
use client_core::error::Failure;
use client_core::reply::Reply;
use client_core::unawaited::Unawaited;

/// Something that befell an exchange.
pub(super) struct Event {
    pub(super) id: u32,
    pub(super) what: What,
}

pub(super) enum What {
    /// The only reply.
    Reply(Reply),
    /// All replies.
    Replies(Vec<Reply>),
    Failed(Failure),
    /// It waits behind one that is late, and had better not.
    Moved,
    /// The time of its operation is over.
    Over,
    /// Its connection ended, by no fault of its own, before its last reply.
    Lost {
        /// It may have reached the node.
        sent: bool,
    },
}

/// See the module.
#[derive(Default)]
pub(super) struct Mailbox(Mutex<Letters>);

#[derive(Default)]
struct Letters {
    events: Vec<Event>,
    waker: Option<Waker>,
    closed: bool,
    /// What is told of exchanges that nobody waits for, by their ids.
    watches: Vec<(u32, Unawaited)>,
}

impl Letters {
    fn take_watch(&mut self, id: u32) -> Option<Unawaited> {
        let at = self.watches.iter().position(|(other, _)| *other == id)?;
        Some(self.watches.swap_remove(at).1)
    }
}

impl Mailbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn post(&self, event: Event) {
        let mut letters = self.letters();
        if letters.closed {
            if let What::Over = event.what {
                return;
            }
            let watch = letters.take_watch(event.id);
            drop(letters);
            if let Some(watch) = watch {
                match event.what {
                    What::Reply(_) | What::Replies(_) => watch.answered(),
                    What::Failed(failure) => watch.failed(failure),
                    _ => watch.failed(Failure::Closed),
                }
            }
            return;
        }
        if letters.events.is_empty() {
            // Most operations have but one.
            letters.events.reserve_exact(1);
        }
        letters.events.push(event);
        let waker = letters.waker.take();
        drop(letters);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Exchanges the empty `events` for what has come.
    pub(super) fn poll_take(&self, events: &mut Vec<Event>, cx: &Context<'_>) -> Poll<()> {
        let mut letters = self.letters();
        if letters.events.is_empty() {
            letters.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        mem::swap(&mut letters.events, events);
        Poll::Ready(())
    }

    /// What comes next.
    pub(super) async fn take(&self) -> Vec<Event> {
        let mut events = Vec::new();
        poll_fn(|cx| self.poll_take(&mut events, cx)).await;
        events
    }

    /// Nobody reads any more, but these watch.
    pub(super) fn close(&self, watches: Vec<(u32, Unawaited)>) {
        let mut letters = self.letters();
        letters.closed = true;
        letters.watches = watches;
        let unread = mem::take(&mut letters.events);
        letters.waker = None;
        drop(letters);
        for event in unread {
            self.post(event);
        }
    }

    fn is_closed(&self) -> bool {
        self.letters().closed
    }
}

/// What a lane and those who use it both know of it.
#[derive(Default)]
pub(super) struct Gauge {
    /// Weights of the exchanges that are on it.
    pub(super) load: AtomicUsize,
    condemned: AtomicBool,
    stalled: AtomicBool,
}

impl Gauge {
    /// True if no exchange is on it.
    pub(super) fn is_idle(&self) -> bool {
        self.load.load(Ordering::Relaxed) == 0
    }

    /// A reply made no sense to its operation: the lane is not to be used again.
    pub(super) fn condemn(&self) {
        self.condemned.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Relaxed)
    }

    /// Its first exchange is late, or not any more: meanwhile others had better go elsewhere.
    pub(super) fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }
}

/// An exchange's place in its lane, and where to report.
pub(super) struct Ticket {
    mailbox: Arc<Mailbox>,
    gauge: Arc<Gauge>,
    /// One of the exchanges that the node may have outstanding; none for one that is alone on its lane.
    _permit: Option<OwnedSemaphorePermit>,
    id: u32,
    weight: usize,
    pub(super) times: Times,
    /// When it came on its line.
    pub(super) entered: Instant,
    /// Replies before the last.
    early: Vec<Reply>,
    ended: bool,
    /// It was told that its operation's time is over.
    over: bool,
}

/// What an exchange waits for, and how long.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) patience: Patience,
    /// When its operation is over.
    pub(super) limit: Instant,
    /// It may be begun anew elsewhere while it waits: a read, which does no harm if it is carried out late.
    pub(super) movable: bool,
}

impl Ticket {
    pub(super) fn new(
        mailbox: Arc<Mailbox>,
        gauge: Arc<Gauge>,
        permit: Option<OwnedSemaphorePermit>,
        (id, weight, times): (u32, usize, Times),
    ) -> Self {
        gauge.load.fetch_add(weight, Ordering::Relaxed);
        Ticket {
            mailbox,
            gauge,
            _permit: permit,
            id,
            weight,
            entered: times.limit,
            times,
            early: Vec::new(),
            ended: false,
            over: false,
        }
    }

    /// True if nobody waits for it.
    pub(super) fn is_abandoned(&self) -> bool {
        self.ended || self.mailbox.is_closed()
    }

    fn report(&mut self, what: What) {
        if !self.ended {
            self.ended = true;
            self.mailbox.post(Event { id: self.id, what });
        }
    }

    pub(super) fn reply(&mut self, reply: Reply, last: bool) {
        if !last || !self.early.is_empty() {
            if self.early.is_empty() {
                // `weight` is a quarter of a kilobyte: as many keys as fit, or nearly so, but not the memory of very many.
                self.early.reserve((16 * self.weight).min(512));
            }
            self.early.push(reply);
            if last {
                let replies = mem::take(&mut self.early);
                self.report(What::Replies(replies));
            }
        } else {
            self.report(What::Reply(reply));
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.report(What::Failed(failure));
    }

    /// It is to be begun on another lane, if it can be.
    pub(super) fn move_on(&mut self) {
        if self.times.movable {
            self.report(What::Moved);
        }
    }

    /// True if the time of its operation is over, and it is to be told.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.waits() && self.times.limit <= now
    }

    /// True if somebody waits for it who has not been told that the time is over.
    pub(super) fn waits(&self) -> bool {
        !self.ended && !self.over
    }

    /// The time of its operation is over.
    pub(super) fn tell_over(&mut self) {
        self.over = true;
        let what = What::Over;
        self.mailbox.post(Event { id: self.id, what });
    }

    /// Its lane ends.
    pub(super) fn lose(&mut self, sent: bool) {
        self.report(What::Lost { sent });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gauge.load.fetch_sub(self.weight, Ordering::Relaxed);
        self.lose(true);
    }
}
