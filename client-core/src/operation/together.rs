//! Operations on many keys as one: what they send to a node at the same time is one request.
//!
//! ```text
//!  parts  a b c --step--> lines for nodes --by node--> one exchange a node --reply by reply--> a b c
//! ```
//!
//! G1. Each part goes its own way, as if it were alone. So what holds for one key holds for many.
//! G2. What befalls an exchange befalls all parts that it is of, but counts against its node once.
//! G3. A part that is done is told nothing more; over what it left under way, a watch goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::Context;
use crate::error::Failure;
use crate::metrics::Op;
use crate::reply::{Broken, Reply};
use crate::request;
use crate::unawaited::Unawaited;
use crate::{Exchange, Operation, Todo};

/// See the module.
#[derive(Debug)]
pub struct Together<O> {
    parts: Vec<Part<O>>,
    sent: Vec<Sent>,
    /// What a part wants.
    todo: Todo,
    /// What the parts count failures by (G2).
    is_counted: Arc<AtomicBool>,
    op: Op,
    deadline: Instant,
}

#[derive(Debug)]
struct Part<O> {
    operation: O,
    /// Something happened to it.
    due: bool,
    done: bool,
    wake_at: Option<Instant>,
}

#[derive(Debug)]
struct Sent {
    /// Parts, and their names for it, in the order of the replies. One that is alone may have several replies.
    of: Vec<(u32, u32)>,
    answered: usize,
    ended: bool,
    watch: Option<Unawaited>,
}

impl<O: Operation> Together<O> {
    /// An operation for each of `items`, all counted as `op`.
    pub fn new<T>(
        mut context: Context,
        op: Op,
        items: impl IntoIterator<Item = T>,
        begin: impl Fn(Context, T) -> O,
    ) -> Self {
        let is_counted = Arc::new(AtomicBool::new(false));
        context.is_counted = Some(is_counted.clone());
        let part = |item| Part {
            operation: begin(context.clone(), item),
            due: true,
            done: false,
            wake_at: None,
        };
        Together {
            parts: items.into_iter().map(part).collect(),
            sent: Vec::new(),
            todo: Todo::default(),
            is_counted,
            op,
            deadline: context.deadline,
        }
    }

    /// The parts, for their results.
    pub fn finish(self) -> impl Iterator<Item = O> {
        self.parts.into_iter().map(|part| part.operation)
    }

    /// Steps the parts for which it is time; gives what they send, and which are done with that.
    fn step_parts(&mut self, now: Instant) -> (Vec<(u32, Exchange)>, Vec<u32>) {
        let (mut sent, mut done) = (Vec::new(), Vec::new());
        for at in 0..self.parts.len() {
            let part = &mut self.parts[at];
            let woken = part.wake_at.is_some_and(|wake_at| wake_at <= now);
            if part.done || !(part.due || woken) {
                continue;
            }
            part.due = false;
            part.operation.step(now, &mut self.todo);
            part.wake_at = self.todo.wake_at.take();
            part.done = std::mem::take(&mut self.todo.done);
            done.extend(part.done.then_some(at as u32));
            sent.extend(self.todo.send.drain(..).map(|one| (at as u32, one)));
        }
        (sent, done)
    }

    fn send(&mut self, todo: &mut Todo, exchange: Exchange, of: Vec<(u32, u32)>) {
        let id = self.sent.len() as u32;
        todo.send.push(Exchange { id, ..exchange });
        self.sent.push(Sent {
            of,
            answered: 0,
            ended: false,
            watch: None,
        });
    }

    /// What the part at `at` leaves under way is watched from now on (G3).
    fn leave(&mut self, at: u32, now: Instant) {
        for (id, watch) in self.parts[at as usize].operation.abandon(now) {
            let sent = self.sent.iter_mut();
            let mut sent = sent.filter(|sent| !sent.ended && sent.of.contains(&(at, id)));
            if let Some(sent) = sent.next() {
                sent.watch = Some(match sent.watch.take() {
                    Some(others) => others.and(watch),
                    None => watch,
                });
            }
        }
    }
}

/// True if both may be one request.
fn go_together((_, a): &(u32, Exchange), (_, b): &(u32, Exchange)) -> bool {
    let kind = |one: &Exchange| (one.node, one.must_send, one.repeatable, one.deadline);
    let are_lines = [a, b]
        .iter()
        .all(|one| request::is_line(&one.request, one.expect));
    are_lines && kind(a) == kind(b)
}

impl<O: Operation> Operation for Together<O> {
    fn step(&mut self, now: Instant, todo: &mut Todo) {
        let (mut sent, done) = self.step_parts(now);
        // Stable: what goes to a node keeps its order.
        sent.sort_by_key(|(_, one)| {
            let is_line = request::is_line(&one.request, one.expect);
            (one.node, is_line, one.must_send, one.repeatable)
        });
        for batch in sent.chunk_by(go_together) {
            let of = batch.iter().map(|(at, one)| (*at, one.id)).collect();
            let mut exchange = batch[0].1.clone();
            if batch.len() > 1 {
                let lines = batch.iter().map(|(_, one)| &one.request[..]);
                (exchange.request, exchange.expect) = request::together(lines);
            }
            self.send(todo, exchange, of);
        }
        for at in done {
            self.leave(at, now);
        }
        todo.wake_at = None;
        todo.wake(self.deadline);
        let left = || self.parts.iter().filter(|part| !part.done);
        for wake_at in left().filter_map(|part| part.wake_at) {
            todo.wake(wake_at);
        }
        todo.all_needed = true;
        todo.done = left().next().is_none();
    }

    fn on_reply(
        &mut self,
        id: u32,
        reply: Reply,
        last: bool,
        now: Instant,
    ) -> std::result::Result<(), Broken> {
        let sent = &mut self.sent[id as usize];
        let alone = sent.of.len() == 1;
        let &(at, inner) = sent.of.get(sent.answered).ok_or(Broken)?;
        if !alone {
            sent.answered += 1;
        }
        sent.ended = last;
        if last && let Some(watch) = sent.watch.take() {
            watch.answered();
        }
        let part = &mut self.parts[at as usize];
        if part.done {
            return Ok(());
        }
        part.due = true;
        part.operation.on_reply(inner, reply, !alone || last, now)
    }

    fn on_failure(&mut self, id: u32, failure: Failure, now: Instant) {
        let sent = &mut self.sent[id as usize];
        sent.ended = true;
        if let Some(watch) = sent.watch.take() {
            watch.failed(failure);
        }
        let left = sent.of.split_off(sent.answered.min(sent.of.len()));
        for (at, inner) in left {
            let part = &mut self.parts[at as usize];
            if !part.done {
                part.due = true;
                part.operation.on_failure(inner, failure, now);
                self.is_counted.store(true, Ordering::Relaxed);
            }
        }
        self.is_counted.store(false, Ordering::Relaxed);
    }

    fn abandon(&mut self, now: Instant) -> Vec<(u32, Unawaited)> {
        for at in 0..self.parts.len() {
            if !self.parts[at].done {
                self.leave(at as u32, now);
            }
        }
        let sent = self.sent.iter_mut().enumerate();
        sent.filter_map(|(id, sent)| Some((id as u32, sent.watch.take()?)))
            .collect()
    }

    fn op(&self) -> Op {
        self.op
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls;
    use crate::node::Node;
    use crate::options::ClientOptions;
    use crate::reply::Meta;
    use crate::routing::Ring;
    use std::time::Duration;

    fn context(copies: usize, now: Instant) -> Context {
        let nodes: Vec<Node> = (0..3).map(|at| Node::new(format!("n{at}"), 1)).collect();
        let options = ClientOptions::default().copies(copies);
        let ring = Ring::new(&nodes, &options, 1);
        Context::new(Arc::new(ring), Arc::new(options), now, 0)
    }

    fn number(text: &'static str) -> Reply {
        Reply::Ok(Meta {
            value: text.as_bytes().into(),
            ..Meta::default()
        })
    }

    #[test]
    fn a_request_a_node_and_each_key_its_number() {
        let now = Instant::now();
        for copies in [1, 2] {
            let names: Vec<String> = (0..60).map(|at| format!("key{at}")).collect();
            let keys = names.iter().map(|name| name.as_bytes()).collect();
            let mut all = calls::count_multi(context(copies, now), keys, false, 1);
            let (mut todo, mut waves) = (Todo::default(), Vec::new());
            loop {
                all.operation.step(now, &mut todo);
                if todo.done {
                    break;
                }
                // Nobody asks for notices, but the first of them.
                let counts = |one: &Exchange| one.request.starts_with(b"ma ");
                let (counting, others): (Vec<_>, Vec<_>) = todo.send.drain(..).partition(counts);
                waves.extend((!counting.is_empty()).then_some(counting.len()));
                for one in others {
                    let failed = Failure::Busy;
                    all.operation.on_failure(one.id, failed, now);
                }
                for one in counting {
                    let count = one.request.iter().filter(|&&byte| byte == b'\n').count();
                    for at in 0..count {
                        let last = at + 1 == count;
                        let told = all.operation.on_reply(one.id, number("7"), last, now);
                        told.expect("it is one");
                    }
                    let more = all.operation.on_reply(one.id, number("7"), true, now);
                    assert!(count == 1 || more.is_err(), "all were answered");
                }
            }
            assert!(waves.iter().all(|&nodes| nodes <= 3), "{waves:?}");
            assert!(waves.len() <= 2 * copies, "{waves:?}");
            assert_eq!((all.finish)(all.operation), vec![Ok(Some(7)); 60]);
        }
    }

    #[test]
    fn what_befalls_many_counts_once() {
        let now = Instant::now();
        let context = context(1, now);
        let ring = context.ring.clone();
        let names: Vec<String> = (0..60).map(|at| format!("key{at}")).collect();
        let keys = names.iter().map(|name| name.as_bytes()).collect();
        let mut all = calls::count_multi(context, keys, false, 1);
        let mut todo = Todo::default();
        all.operation.step(now, &mut todo);
        assert_eq!(todo.send.len(), 3);
        for one in todo.send.drain(..) {
            all.operation.on_failure(one.id, Failure::Timeout, now);
        }
        assert!(ring.members.iter().all(|member| member.is_in()));
        all.operation
            .step(now + Duration::from_millis(1), &mut todo);
        assert!(todo.done, "it may have been counted");
        let results = (all.finish)(all.operation);
        assert!(results.iter().all(|one| one.is_err()) && results.len() == 60);
    }
}
