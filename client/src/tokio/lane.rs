//! A lane: one connection to a node, and the task that owns it.
//!
//! ```text
//!  submit -> jobs -> link -> one write for all that waits -> socket
//!                                tickets, oldest first  <- replies in the order of the requests
//! ```
//!
//! A caller that goes away leaves its ticket behind, which takes the replies nobody wants: the lane's state does not
//! depend on its callers.
//!
//! N1. Tickets are in the order of the exchanges of the link: a reply belongs to the first.
//! N2. A lane whose first exchange is not answered by its deadline, or whose bytes make no sense, ends. Those behind are
//!     lost, and may be sent again on another lane.
//! N3. Every ticket hears of its end by its deadline: callers need no timers of their own for that.
//!
//! Costs: with many callers a write or read is shared by all that are ready, see [`Line::defers`].

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use ::tokio::sync::mpsc;
use ::tokio::time::{Sleep, sleep_until};
use bytes::Bytes;

use super::mailbox::{Gauge, Ticket};
use super::stream::Stream;
use crate::core::link::{Expect, Link};
use crate::core::reply::{Refusal, Reply};
use crate::error::Failure;

/// Requests in one write.
const SLICES_MAX: usize = 64;

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
}

/// The task's half of a lane.
pub(super) struct Line {
    jobs: mpsc::UnboundedReceiver<Job>,
    gauge: Arc<Gauge>,
    stage: Stage,
    link: Link,
    tickets: VecDeque<Ticket>,
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
enum End {
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
    ) -> Self {
        Line {
            jobs,
            gauge,
            stage: Stage::Connecting(connect),
            link: Link::new(login),
            tickets: VecDeque::new(),
            timer: None,
            armed: None,
            due: None,
            begun: 0,
            ended: 0,
            deferred: false,
            refused: None,
        }
    }

    /// Serves until the connection ends. `on_closed` is called when the node has closed it. Nobody is told before nobody
    /// can come any more: who is told goes to another lane.
    pub(super) async fn run(mut self, on_closed: impl FnOnce()) {
        let end = poll_fn(|cx| match self.poll(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        });
        let failure = match end.await {
            End::Idle => return,
            End::GivenUp => None,
            End::Failed(failure) => Some(failure),
        };
        if failure == Some(Failure::Closed) {
            on_closed();
        }
        self.jobs.close();
        // Not a byte was written of those behind the first that waits.
        let sent = self.tickets.len() - self.link.untouched().min(self.tickets.len());
        for (at, mut ticket) in self.tickets.drain(..).enumerate() {
            match failure {
                Some(failure @ (Failure::Connect | Failure::SignIn)) => ticket.fail(failure),
                Some(failure @ Failure::Garbage) if at == 0 => ticket.fail(failure),
                _ => ticket.lose(at < sent),
            }
        }
        let mut rest = self.refused;
        loop {
            match (&mut rest, failure) {
                (Some(ticket), Some(failure @ (Failure::Connect | Failure::SignIn))) => {
                    ticket.fail(failure)
                }
                (Some(ticket), _) => ticket.lose(false),
                (None, _) => {}
            }
            let Some(job) = self.jobs.recv().await else {
                return;
            };
            rest = Some(job.ticket);
        }
    }

    /// Goes on as far as it goes without waiting.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let now = super::now();
        if self.gauge.is_condemned() {
            return Err(End::GivenUp);
        }
        let orphan = self.take_jobs(now, cx)?;
        if let Stage::Connecting(connect) = &mut self.stage
            && let Poll::Ready(stream) = connect.as_mut().poll(cx)
        {
            self.stage = Stage::Open(stream?);
        }
        if let Stage::Open(_) = self.stage {
            if self.defers() {
                self.deferred = true;
                cx.waker().wake_by_ref();
            } else {
                (self.begun, self.ended, self.deferred) = (0, 0, false);
                self.write(cx)?;
            }
            loop {
                let some = self.read(cx)?;
                // What TLS wants to say, or lets be said now, follows from what came.
                if self.holds_back() || (!self.deferred && self.wants_write()) {
                    self.write(cx)?;
                }
                if !some {
                    break;
                }
            }
        }
        if orphan && self.tickets.is_empty() && !self.wants_write() {
            return Err(End::Idle);
        }
        self.check_deadlines(now, cx)
    }

    /// True if it is better to write after the other tasks that are ready have run: those whose exchanges have just ended
    /// are likely to begin another. Once only, so that nobody waits for who does not.
    fn defers(&self) -> bool {
        self.begun > 0 && self.begun < self.ended && !self.deferred
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
            if job.ticket.deadline <= now {
                job.ticket.fail(Failure::Timeout);
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
            let deadline = job.ticket.deadline;
            self.due = Some(self.due.map_or(deadline, |due| due.min(deadline)));
            self.link.pipeline(job.request, job.expect);
            self.tickets.push_back(job.ticket);
            self.begun += 1;
        }
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
            let mut slices = [IoSlice::new(b""); SLICES_MAX];
            let mut len = 0;
            for (slice, bytes) in slices.iter_mut().zip(self.link.all_unsent()) {
                *slice = IoSlice::new(bytes);
                len += 1;
            }
            match stream.poll_write(cx, &slices[..len]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) if len > 0 => return Ok(()),
                Poll::Ready(Ok(count)) => self.link.sent(count),
                Poll::Ready(Err(error)) => return Err(failure(&error)),
            }
        }
        Ok(())
    }

    /// Reads what has come and hands it out; true if there was something.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut some = false;
        loop {
            let Stage::Open(stream) = &mut self.stage else {
                return Ok(some);
            };
            match stream.poll_read(cx, self.link.space()) {
                Poll::Pending => return Ok(some),
                Poll::Ready(Ok(0)) => return Err(Failure::Closed.into()),
                Poll::Ready(Ok(count)) => {
                    some = true;
                    self.link.filled(count);
                    self.hand_out()?;
                }
                Poll::Ready(Err(error)) => return Err(failure(&error).into()),
            }
        }
    }

    fn hand_out(&mut self) -> Result<(), End> {
        while let Some((reply, last)) = self.link.next()? {
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
            let late = now.max(super::now());
            let failure = match self.stage {
                Stage::Connecting(_) => Failure::Connect,
                Stage::Open(_) => Failure::Timeout,
            };
            for (at, ticket) in self.tickets.iter_mut().enumerate() {
                if ticket.deadline > late {
                    self.due = Some(
                        self.due
                            .map_or(ticket.deadline, |due| due.min(ticket.deadline)),
                    );
                    continue;
                }
                ticket.fail(failure);
                if at == 0 {
                    return Err(match failure {
                        Failure::Connect => End::Failed(failure),
                        _ => End::GivenUp,
                    });
                }
            }
        }
    }
}

fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        // What rustls has found.
        io::ErrorKind::InvalidData => Failure::SignIn,
        _ => Failure::Closed,
    }
}
