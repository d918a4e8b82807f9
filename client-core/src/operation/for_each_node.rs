//! Questions to every node: stats, version, flush_all. Each is asked once, ejected or not. Who has not answered at the deadline is not
//! waited for.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Context;
use crate::error::{Failure, Result};
use crate::expect::Expect;
use crate::metrics::Op;
use crate::reply::{Broken, Reply};
use crate::request::NOOP;
use crate::{Exchange, Operation, Todo};

/// See the module.
#[derive(Debug)]
pub struct ForEachNode {
    context: Context,
    request: Bytes,
    everywhere: bool,
    nodes: Vec<usize>,
    /// By node, as they come.
    answers: Vec<Result<Vec<Bytes>>>,
    /// Places of those that have not answered to the end.
    open: Vec<usize>,
    begun: bool,
}

impl ForEachNode {
    /// Asks every node of the ring; `everywhere`: also those where keys were before a change that is fresh.
    pub fn new(context: Context, request: Bytes, everywhere: bool) -> Self {
        ForEachNode {
            request: [&request, NOOP].concat().into(),
            everywhere,
            nodes: Vec::new(),
            answers: Vec::new(),
            open: Vec::new(),
            begun: false,
            context,
        }
    }

    fn begin(&mut self, now: Instant, todo: &mut Todo) {
        let ring = &self.context.ring;
        self.nodes = if self.everywhere {
            ring.everywhere(now)
        } else {
            ring.current().collect()
        };
        self.answers = self.nodes.iter().map(|_| Ok(Vec::new())).collect();
        self.open = (0..self.nodes.len()).collect();
        for (id, &node) in self.nodes.iter().enumerate() {
            todo.send.push(Exchange {
                id: id as u32,
                node,
                request: self.request.clone(),
                expect: Expect::Lines { ended: false },
                // Statistics of a busy node may take a while.
                deadline: self.context.deadline,
                repeatable: true,
                must_send: false,
            });
        }
    }

    /// The lines each node answered, without `STAT` and `END`.
    pub fn finish(self) -> Vec<(Arc<str>, Result<Vec<Bytes>>)> {
        let ForEachNode {
            context,
            nodes,
            answers,
            ..
        } = self;
        let names = nodes.into_iter().map(|node| context.name(node));
        names.zip(answers).collect()
    }

    fn fail(&mut self, at: usize, failure: Failure) {
        self.answers[at] = Err(self.context.node_error(self.nodes[at], failure));
        self.open.retain(|&other| other != at);
    }
}

impl Operation for ForEachNode {
    fn step(&mut self, now: Instant, todo: &mut Todo) {
        todo.wake_at = Some(self.context.deadline);
        if !std::mem::replace(&mut self.begun, true) {
            self.begin(now, todo);
        }
        if now >= self.context.deadline {
            // A node that is busy with what others asked for may still answer, too late.
            for at in self.open.clone() {
                self.on_failure(at as u32, Failure::Timeout, now);
            }
        }
        todo.done = self.open.is_empty();
    }

    fn on_reply(
        &mut self,
        id: u32,
        reply: Reply,
        last: bool,
        _now: Instant,
    ) -> std::result::Result<(), Broken> {
        let at = id as usize;
        match reply {
            Reply::Stat(line) | Reply::Line(line) => {
                if let Ok(lines) = &mut self.answers[at] {
                    lines.push(line);
                }
            }
            Reply::End | Reply::Noop => {}
            Reply::Refused(refusal) => {
                self.answers[at] = Err(self.context.refused(self.nodes[at], refusal))
            }
            _ => return Err(Broken),
        }
        if last {
            self.open.retain(|&other| other != at);
            self.context.worked(self.nodes[at]);
        }
        Ok(())
    }

    fn on_failure(&mut self, id: u32, failure: Failure, now: Instant) {
        let node = self.nodes[id as usize];
        self.context.failed(node, failure, now);
        self.fail(id as usize, failure);
    }

    fn deadline(&self) -> Instant {
        self.context.deadline
    }

    fn op(&self) -> Op {
        Op::Ask
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::options::ClientOptions;
    use crate::routing::Ring;

    /// Nodes that have not answered at the deadline have timed out, and nothing is to be waited for: who carries the operation out
    /// would wake it for a time that is over, without an end.
    #[test]
    fn an_end_in_any_case() {
        let mut now = Instant::now();
        let nodes = crate::node::Node::list("a,b,c").expect("these are nodes");
        let options = ClientOptions::default();
        let ring = Arc::new(Ring::new(&nodes, &options, 1));
        let context = Context::new(ring, Arc::new(options), now, 0);
        let deadline = context.deadline;
        let mut each = ForEachNode::new(context, Bytes::from_static(b"stats\r\n"), false);
        let mut todo = Todo::default();
        each.step(now, &mut todo);
        assert_eq!((todo.send.len(), todo.done), (3, false));
        assert_eq!(each.on_reply(0, Reply::Noop, true, now), Ok(()));
        each.on_failure(1, Failure::Closed, now);
        now = deadline - Duration::from_millis(1);
        each.step(now, &mut todo);
        assert!(!todo.done && todo.wake_at == Some(deadline));
        each.step(deadline, &mut todo);
        assert!(todo.done);
        let told = each.finish().into_iter().map(|(_, answer)| match answer {
            Err(crate::error::Error::Node { failure, .. }) => Some(failure),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        assert_eq!(told, [None, Some(Failure::Closed), Some(Failure::Timeout)]);
    }
}
