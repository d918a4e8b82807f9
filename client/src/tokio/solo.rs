//! An exchange alone on its lane, driven by the caller that waits for it: no other task is woken for it.
//!
//! ```text
//!  lane idle, few others lately:  caller writes -- reads in its own poll ----------> reply, lane idle
//!                                               \-- another exchange comes, or the
//!                                                   caller goes away, or is late --> the lane's task goes on
//! ```
//!
//! So1. One drives a line: the caller of `Line::solo`, otherwise the task. Who drives has its waker with the socket.
//! So2. The task can take over at any time, by clearing `Line::solo` and waking the caller, which then waits for its mailbox.
//! So3. The task keeps the time, whoever drives.
//!
//! An idle lane that was left by a caller is not watched. That the node has closed it is seen when the task's timer goes
//! off, at most an attempt's timeout later, or by the next exchange.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use super::lane::{Line, lock};
use super::mailbox::Ticket;
use client_core::Exchange;

/// Exchanges that must have been alone before one is driven by its caller: with several callers, the task has their
/// requests written together.
const ALONE_MIN: u32 = 4;

/// The caller's hold on its exchange. Dropped, it leaves the exchange to the lane's task.
pub(super) struct Solo {
    line: Arc<Mutex<Line>>,
    id: u64,
    over: bool,
}

impl Solo {
    /// Begins an exchange, which was to be begun at `now`, if the line is free for it and its callers are few.
    pub(super) fn begin(
        line: Arc<Mutex<Line>>,
        exchange: &Exchange,
        ticket: impl FnOnce() -> Ticket,
        now: Instant,
    ) -> Option<Solo> {
        let mut locked = line.try_lock().ok()?;
        if locked.alone < ALONE_MIN || !locked.is_free(exchange, now) {
            return None;
        }
        let id = locked.begin_solo(exchange, ticket(), now);
        drop(locked);
        Some(Solo {
            line,
            id,
            over: false,
        })
    }

    /// Goes on with it; ready when there is nothing left for the caller but what its mailbox has, or will have.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.over {
            return Poll::Ready(());
        }
        let mut line = lock(&self.line);
        self.over = !line.is_driven_by(self.id) || {
            let result = line.serve(cx);
            line.went_on(result)
        };
        if self.over {
            return Poll::Ready(());
        }
        let waker = line.solo.as_mut().map(|driver| &mut driver.waker);
        if let Some(waker) = waker
            && !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Solo {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut line = lock(&self.line);
        if line.is_driven_by(self.id) {
            line.leave_solo();
        }
    }
}
