//! A lane: one connection to a node, and the task that sees to it.
//!
//! ```text
//!  submit -> jobs -> link -> one write for all that waits -> socket
//!                                tickets, oldest first  <- replies in the order of the requests
//! ```
//!
//! The task reads and writes, unless an exchange is alone on the lane: that its caller may drive itself, see
//! [`solo`](super::solo). A caller that goes away leaves its ticket behind, which takes the replies nobody wants: the lane's
//! state does not depend on its callers.
//!
//! N1. Tickets are in the order of the exchanges of the link: a reply belongs to the first.
//! N2. A lane whose bytes make no sense ends. Those behind are lost, and may be sent again on another lane.
//! N3. The time of an exchange begins when it is the first, and again with each byte that comes: what it waits for others is no
//!     fault of the node. If it is over, the exchange fails, and it alone: the lane lasts as long again, for a late reply.
//! N4. While the first exchange is late by [`STALLED`] of its time, the lane stalls: it is given nothing if another can be, and the
//!     reads on it go to others.
//! N5. Every ticket hears of the end of its operation's time: callers need no timers of their own for that.
//! N6. The line is locked for as long as it takes to go on without waiting. It ends in its task, whoever drove it.
//!
//! Costs: with many callers a write or read is shared by all that are ready, see [`Line::defers`].

mod task;

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use ::tokio::sync::mpsc;
use ::tokio::time::{Sleep, sleep_until};
use bytes::Bytes;

use super::driver::Driver;
use super::mailbox::{Gauge, Ticket};
use super::stream::Stream;
use client_core::error::Failure;
use client_core::expect::Expect;
use client_core::health::Member;
use client_core::link::Link;
use client_core::options::ClientOptions;
use client_core::reply::{Refusal, Reply};
use client_core::{Exchange, Patience};
pub(super) use task::run;

/// A part of an exchange's time, after which those behind it do not wait for it any more. With four in a row late, the fifth
/// is still in time.
const STALLED: u32 = 4;
/// Requests in one write.
const SLICES_MAX: usize = 64;

/// The node's other lanes, and those that may be made.
pub(super) trait Others: Send + Sync {
    /// A lane stalls; true if what is on it can go to another.
    fn divert(&self, now: Instant) -> bool;
}

/// An exchange on its way to a lane.
pub(super) struct Job {
    pub(super) request: Bytes,
    pub(super) expect: Expect,
    pub(super) must_send: bool,
    pub(super) repeatable: bool,
    pub(super) ticket: Ticket,
}

pub(super) type Connect = Pin<Box<dyn Future<Output = Result<Stream, Failure>> + Send>>;

enum Stage {
    Connecting(Connect),
    Open(Stream),
    Over,
}

pub(super) fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection and what is on it.
pub(super) struct Line {
    jobs: mpsc::UnboundedReceiver<Job>,
    gauge: Arc<Gauge>,
    stage: Stage,
    link: Link,
    lanes: Weak<dyn Others>,
    /// Whose it is.
    of: (Arc<Member>, Arc<ClientOptions>),
    tickets: VecDeque<Ticket>,
    /// When something came last.
    heard_at: Instant,
    /// The caller that drives the only exchange itself, if one does.
    pub(super) solo: Option<Driver>,
    solos: u64,
    /// Exchanges in a row that began with no other on the lane.
    pub(super) alone: u32,
    /// Wakes the task.
    task: Option<Waker>,
    /// Why it is to end.
    end: Option<End>,
    timer: Option<Pin<Box<Sleep>>>,
    /// What the timer is set to: no later than any deadline that was looked at.
    armed: Option<Instant>,
    /// The earliest deadline of what has come since.
    due: Option<Instant>,
    /// Exchanges begun, and ended, since the last write.
    begun: usize,
    ended: usize,
    deferred: bool,
    /// What was taken only to see that the node has closed the connection.
    refused: Option<Ticket>,
}

/// Why a lane ends.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// Nobody can send anything any more, and all is answered.
    Idle,
    /// The connection is not used any more, by the fault of one exchange; the others are lost.
    GivenUp,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        End::Failed(failure)
    }
}

impl Line {
    pub(super) fn new(
        jobs: mpsc::UnboundedReceiver<Job>,
        gauge: Arc<Gauge>,
        connect: Connect,
        login: Option<Bytes>,
        lanes: Weak<dyn Others>,
        of: (Arc<Member>, Arc<ClientOptions>),
    ) -> Self {
        Line {
            jobs,
            gauge,
            stage: Stage::Connecting(connect),
            link: Link::new(login),
            lanes,
            of,
            tickets: VecDeque::new(),
            heard_at: super::now(),
            solo: None,
            solos: 0,
            alone: 0,
            task: None,
            end: None,
            timer: None,
            armed: None,
            due: None,
            begun: 0,
            ended: 0,
            deferred: false,
            refused: None,
        }
    }

    /// Goes on as far as it goes without waiting.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let now = super::now();
        let waker = cx.waker();
        if !self.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            self.task = Some(waker.clone());
        }
        if let Some(end) = self.end {
            return Err(end);
        }
        if self.gauge.is_condemned() {
            return Err(End::GivenUp);
        }
        let orphan = self.take_jobs(now, cx)?;
        if orphan || self.tickets.len() > 1 {
            self.take_over();
        }
        if self.solo.is_none() {
            if let Stage::Connecting(connect) = &mut self.stage
                && let Poll::Ready(stream) = connect.as_mut().poll(cx)
            {
                self.stage = Stage::Open(stream?);
            }
            if self.defers() {
                self.deferred = true;
                cx.waker().wake_by_ref();
            } else {
                self.deferred = false;
            }
            self.serve(cx)?;
        }
        if orphan && self.tickets.is_empty() && !self.wants_write() {
            return Err(End::Idle);
        }
        self.check_deadlines(now, cx)
    }

    /// Writes and reads as far as it goes without waiting.
    pub(super) fn serve(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Stage::Open(_) = self.stage else {
            return Ok(());
        };
        if !self.deferred {
            (self.begun, self.ended) = (0, 0);
            self.write(cx)?;
        }
        loop {
            let some = self.read(cx)?;
            // What TLS wants to say, or lets be said now, follows from what came, even if there was nothing in it for us.
            if self.holds_back() || (!self.deferred && self.wants_write()) {
                self.write(cx)?;
            }
            if !some || (self.solo.is_some() && self.tickets.is_empty()) {
                return Ok(());
            }
        }
    }

    /// Takes no more, and tells those on the line of its end; what was taken only to see it is left.
    fn tell(&mut self, failure: Option<Failure>) -> Option<Ticket> {
        self.jobs.close();
        self.take_over();
        // Not a byte was written of those behind the first that waits.
        let sent = self.tickets.len() - self.link.untouched().min(self.tickets.len());
        for (at, mut ticket) in self.tickets.drain(..).enumerate() {
            match failure {
                Some(failure @ (Failure::Connect | Failure::SignIn)) => ticket.fail(failure),
                Some(failure @ Failure::Garbage) if at == 0 => ticket.fail(failure),
                _ => ticket.lose(at < sent),
            }
        }
        self.refused.take()
    }

    /// Why it ended, if another line would end in the same way.
    pub(super) fn ended_by(&self) -> Option<Failure> {
        match self.end {
            Some(End::Failed(failure @ (Failure::Connect | Failure::SignIn))) => Some(failure),
            _ => None,
        }
    }

    /// True if nothing is on the line or about to be, and it is fit for `exchange`.
    pub(super) fn is_free(&self, exchange: &Exchange, now: Instant) -> bool {
        let Stage::Open(stream) = &self.stage else {
            return false;
        };
        self.end.is_none()
            && self.gauge.is_idle()
            && self.link.settled()
            && !self.wants_write()
            && !self.gauge.is_condemned()
            && now < exchange.deadline
            && (exchange.repeatable || stream.is_quiet())
    }

    /// Begins an exchange on a line that is free, for its caller to drive while the task keeps its time. What cannot be
    /// written at once is written when the line is served.
    pub(super) fn begin_solo(&mut self, exchange: &Exchange, ticket: Ticket, now: Instant) -> u64 {
        let request = &exchange.request;
        let mut cx = Context::from_waker(Waker::noop());
        let written = match &mut self.stage {
            Stage::Open(stream) => stream.poll_write(&mut cx, &[IoSlice::new(request)]),
            _ => Poll::Pending,
        };
        if self.armed.is_none_or(|armed| exchange.deadline < armed) {
            self.wake_task();
        }
        let (rest, failed) = match written {
            Poll::Pending => (request.clone(), None),
            Poll::Ready(Ok(count)) => (request.slice(count..), None),
            Poll::Ready(Err(error)) => (request.clone(), Some(self.failure(&error))),
        };
        self.enter(rest, exchange.expect, ticket, now);
        (self.begun, self.ended) = (0, 0);
        self.solos += 1;
        self.solo = Some(Driver {
            id: self.solos,
            waker: None,
        });
        if let Some(failure) = failed {
            self.end_solo(Some(failure.into()));
        }
        self.solos
    }

    pub(super) fn is_driven_by(&self, id: u64) -> bool {
        self.solo.as_ref().is_some_and(|driver| driver.id == id)
    }

    /// Ends the caller's part if there is nothing left to do, or nothing but to end the lane; true if so.
    pub(super) fn went_on(&mut self, result: Result<(), End>) -> bool {
        let over = result.is_err() || self.tickets.is_empty();
        if over {
            self.end_solo(result.err());
        }
        over
    }

    fn end_solo(&mut self, end: Option<End>) {
        self.solo = None;
        if end.is_some() {
            self.end = end;
            self.wake_task();
        }
    }

    /// The task is to go on, and the caller to wait for what comes.
    fn take_over(&mut self) {
        if let Some(waker) = self.solo.take().and_then(|driver| driver.waker) {
            waker.wake();
        }
    }

    /// The caller leaves its exchange to the task.
    pub(super) fn leave_solo(&mut self) {
        self.solo = None;
        self.wake_task();
    }

    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// True if it is better to write after the other tasks that are ready have run: those whose exchanges have just ended
    /// are likely to begin another. Once only, so that nobody waits for who does not.
    fn defers(&self) -> bool {
        let open = matches!(self.stage, Stage::Open(_));
        open && self.begun > 0 && self.begun < self.ended && !self.deferred
    }

    /// Takes what was submitted; true if nothing more will be.
    fn take_jobs(&mut self, now: Instant, cx: &mut Context<'_>) -> Result<bool, Failure> {
        loop {
            let mut job = match self.jobs.poll_recv(cx) {
                Poll::Ready(Some(job)) => job,
                Poll::Ready(None) => return Ok(true),
                Poll::Pending => return Ok(false),
            };
            if job.ticket.is_abandoned() && !job.must_send {
                continue;
            }
            if job.ticket.times.limit <= now {
                job.ticket.fail(Failure::Busy);
                continue;
            }
            // What must not be done twice is not entrusted to a connection that the node has closed.
            if !job.repeatable
                && self.link.settled()
                && let Stage::Open(stream) = &self.stage
                && !stream.is_quiet()
            {
                self.refused = Some(job.ticket);
                return Err(Failure::Closed);
            }
            self.enter(job.request, job.expect, job.ticket, now);
        }
    }

    fn enter(&mut self, unsent: Bytes, expect: Expect, mut ticket: Ticket, now: Instant) {
        ticket.entered = now;
        let patience = ticket.times.patience;
        let due = match self.tickets.is_empty() {
            true => patience.end(now),
            false => now + patience.len() / STALLED,
        };
        self.look_by(due.min(ticket.times.limit));
        let alone = self.tickets.is_empty();
        self.alone = if alone {
            self.alone.saturating_add(1)
        } else {
            0
        };
        self.link.pipeline(unsent, expect);
        self.tickets.push_back(ticket);
        self.begun += 1;
    }

    /// True if what counts as written has not gone to the socket.
    fn holds_back(&self) -> bool {
        matches!(&self.stage, Stage::Open(stream) if stream.wants_write())
    }

    fn wants_write(&self) -> bool {
        self.holds_back() || !self.link.unsent().is_empty()
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        while self.wants_write() {
            let Stage::Open(stream) = &mut self.stage else {
                return Ok(());
            };
            match write_some(stream, &self.link, cx) {
                Poll::Pending => return Ok(()),
                // TLS waits for something to come.
                Poll::Ready(Ok(0)) if !self.link.unsent().is_empty() => return Ok(()),
                Poll::Ready(Ok(count)) => self.link.sent(count),
                Poll::Ready(Err(error)) => return Err(self.failure(&error)),
            }
        }
        Ok(())
    }

    /// Reads something that has come and hands it out; true if there was something.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Stage::Open(stream) = &mut self.stage else {
            return Ok(false);
        };
        match stream.poll_read(cx, self.link.space()) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(Failure::Closed.into()),
            Poll::Ready(Ok(count)) => {
                self.link.filled(count);
                self.heard_at = super::now();
                if self.gauge.is_stalled() {
                    self.gauge.stall(false);
                }
                self.hand_out()?;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(self.failure(&error).into()),
        }
    }

    /// See [`Link::next_reply`].
    fn next(&mut self) -> Result<Option<(Reply, bool)>, Failure> {
        let next = self.link.next_reply();
        if let (Err(Failure::SignIn), Some(line)) = (&next, self.link.refused_login()) {
            let (member, options) = &self.of;
            member.no_login(line, options, super::now());
        }
        next
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let (member, options) = &self.of;
        match error.kind() {
            // What rustls has found.
            io::ErrorKind::InvalidData => member.no_tls(error, options, super::now()),
            _ => Failure::Closed,
        }
    }

    fn hand_out(&mut self) -> Result<(), End> {
        while let Some((reply, last)) = self.next()? {
            let misunderstood = matches!(reply, Reply::Refused(Refusal::Client(_)));
            let ticket = self.tickets.front_mut().expect("one an exchange (N1)");
            ticket.reply(reply, last);
            if last {
                self.tickets.pop_front();
                self.ended += 1;
                // What follows is not to be trusted, and no fault of those it would be for.
                if misunderstood {
                    return Err(End::GivenUp);
                }
            }
        }
        Ok(())
    }

    /// Ends what is overdue, and sees to it that the next deadline is noticed (N3). The timer stays where it is when what
    /// it was for is answered: it goes off once a timeout, not once an exchange.
    fn check_deadlines(&mut self, now: Instant, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if let Some(due) = self.due.take()
                && self.armed.is_none_or(|armed| due < armed)
            {
                self.armed = Some(due);
                match &mut self.timer {
                    Some(timer) => timer.as_mut().reset(due.into()),
                    None => self.timer = Some(Box::pin(sleep_until(due.into()))),
                }
            }
            let (Some(timer), Some(_)) = (&mut self.timer, self.armed) else {
                return Ok(());
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.armed = None;
            let now = now.max(super::now());
            self.look(now, cx)?;
            if let Some(at) = self.next_look(now) {
                self.look_by(at);
            }
        }
    }

    fn look_by(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The patience for the first exchange, and since when the node has kept it waiting.
    fn silence(&self) -> Option<(Patience, Instant)> {
        let first = self.tickets.front()?;
        Some((first.times.patience, first.entered.max(self.heard_at)))
    }

    /// Tells those whose time is over, and has those go elsewhere that wait for one that is late (N3, N4, N5).
    fn look(&mut self, now: Instant, cx: &mut Context<'_>) -> Result<(), End> {
        let Some((patience, since)) = self.silence() else {
            return Ok(());
        };
        let (late, stalled) = self.is_late(patience, since, now);
        let overdue = self.tickets.iter().any(|ticket| ticket.is_overdue(now));
        if self.solo.is_some() && (late || stalled || overdue) {
            // Who drives and is not polled hears nothing, and has not seen what has come meanwhile.
            self.take_over();
            self.serve(cx)?;
            return self.look(now, cx);
        }
        if late {
            if let Stage::Connecting(_) = self.stage {
                return Err(Failure::Connect.into());
            }
            self.gauge.stall(true);
            self.tickets[0].fail(Failure::Timeout);
        }
        if now >= since + 2 * patience.len() {
            return Err(End::GivenUp);
        }
        if stalled {
            self.gauge.stall(true);
            if self.lanes.upgrade().is_some_and(|lanes| lanes.divert(now)) {
                self.tickets.iter_mut().skip(1).for_each(Ticket::move_on);
            }
        }
        let overdue = self.tickets.iter_mut().filter(|one| one.is_overdue(now));
        overdue.for_each(Ticket::tell_over);
        Ok(())
    }

    /// Whether the first exchange's time is over, and whether it keeps others waiting.
    fn is_late(&self, patience: Patience, since: Instant, now: Instant) -> (bool, bool) {
        let stalled = self.tickets.len() > 1 && now >= since + patience.len() / STALLED;
        (now >= patience.end(since), stalled)
    }

    /// When to look again, after now.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let (patience, since) = self.silence()?;
        let part = patience.len() / STALLED;
        let behind = self.tickets.len() > 1;
        let limits = self.tickets.iter().filter(|ticket| ticket.waits());
        let limits = limits.map(|ticket| ticket.times.limit);
        let ends = [patience.end(since), since + 2 * patience.len()];
        let stalls = behind.then(|| (since + part).max(now + part));
        let all = limits.chain(ends).chain(stalls);
        all.filter(|&at| at > now).min()
    }
}

/// Writes as much of what is unsent as goes at once.
fn write_some(stream: &mut Stream, link: &Link, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut unsent = link.all_unsent();
    match (unsent.next(), unsent.next()) {
        (None, _) => stream.poll_write(cx, &[]),
        (Some(only), None) => stream.poll_write(cx, &[IoSlice::new(only)]),
        (Some(first), Some(second)) => {
            let mut slices = [IoSlice::new(b""); SLICES_MAX];
            let rest = [first, second].into_iter().chain(unsent);
            let filled = slices.iter_mut().zip(rest);
            let len = filled
                .map(|(slice, bytes)| *slice = IoSlice::new(bytes))
                .count();
            stream.poll_write(cx, &slices[..len])
        }
    }
}
