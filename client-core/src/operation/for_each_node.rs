//! Questions to every node: stats, version, flush_all. Each is asked once, ejected or not.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Context;
use crate::error::{Error, Failure, Result};
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
    open: usize,
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
            open: 0,
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
        self.open = self.nodes.len();
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

    fn fail(&mut self, at: usize, error: Error) {
        self.answers[at] = Err(error);
        self.open -= 1;
    }
}

impl Operation for ForEachNode {
    fn step(&mut self, now: Instant, todo: &mut Todo) {
        todo.wake_at = Some(self.context.deadline);
        if !std::mem::replace(&mut self.begun, true) {
            self.begin(now, todo);
        }
        todo.done = self.open == 0;
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
            self.open -= 1;
            self.context.worked(self.nodes[at]);
        }
        Ok(())
    }

    fn on_failure(&mut self, id: u32, failure: Failure, now: Instant) {
        let node = self.nodes[id as usize];
        self.context.failed(node, failure, now);
        let error = self.context.node_error(node, failure);
        self.fail(id as usize, error);
    }

    fn deadline(&self) -> Instant {
        self.context.deadline
    }

    fn op(&self) -> Op {
        Op::Ask
    }
}
