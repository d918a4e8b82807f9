//! The task that serves a line.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use super::{End, Line, Stage, lock};
use client_core::error::Failure;

/// Serves a line until its connection ends, and then tells those that were on it. `on_closed` is called when the node has
/// closed it. Nobody is told before nobody can come any more: who is told goes to another lane.
pub(in crate::tokio) async fn run(line: Arc<Mutex<Line>>, on_closed: impl FnOnce()) {
    // With its runtime, the task may be gone at any point.
    let _shut = Shut(&line);
    let end = poll_fn(|cx| {
        let mut line = lock(&line);
        match line.poll(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => {
                line.end = Some(end);
                Poll::Ready(end)
            }
        }
    });
    let failure = match end.await {
        End::Idle => return,
        End::GivenUp => None,
        End::Failed(failure) => Some(failure),
    };
    if failure == Some(Failure::Closed) {
        on_closed();
    }
    let mut rest = lock(&line).tell(failure);
    loop {
        match (&mut rest, failure) {
            (Some(ticket), Some(failure @ (Failure::Connect | Failure::SignIn))) => {
                ticket.fail(failure)
            }
            (Some(ticket), _) => ticket.lose(false),
            (None, _) => {}
        }
        let Some(job) = poll_fn(|cx| lock(&line).jobs.poll_recv(cx)).await else {
            return;
        };
        rest = Some(job.ticket);
    }
}

/// Leaves nobody waiting for a line without a task.
struct Shut<'a>(&'a Mutex<Line>);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        let mut line = lock(self.0);
        line.stage = Stage::Over;
        line.take_over();
        line.tickets.clear();
        line.jobs.close();
        while line.jobs.try_recv().is_ok() {}
    }
}
