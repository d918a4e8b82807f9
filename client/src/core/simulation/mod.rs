//! The operations against a simulated cluster: nodes are hash maps, time is a number, chance comes from a seed.
//!
//! Nodes crash (and come back empty), hang, are cut off (and come back with what they had), and answer with garbage or not
//! at all. `tests` checks what clients are promised after every operation; a seed that failed is printed.

pub(crate) mod node;
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::node::{Mode, SimulatedNode};
use super::calls::{self, Call};
use super::link::Link;
use super::operation::Context;
use super::options::ClientOptions;
use super::routing::Ring;
use super::{Exchange, Operation, Todo};
use crate::Node;
use crate::error::{Error, Failure};

/// Unix time at the start.
pub(crate) const EPOCH_S: u64 = 1_700_000_000;

/// What happens to an exchange.
enum Event {
    Arrives,
    Answered(Vec<u8>),
    Fails(Failure),
}

pub(crate) struct Simulation {
    seed: u64,
    start: Instant,
    pub(crate) now_us: u64,
    pub(crate) nodes: Vec<SimulatedNode>,
    ring: Arc<Ring>,
    options: Arc<ClientOptions>,
    /// Nodes that change their mode at a time.
    changes: Vec<(u64, usize, Mode)>,
    /// In thousand exchanges, how many are spoilt.
    spoilt: u64,
}

impl Simulation {
    pub(crate) fn new(seed: u64, nodes: usize, options: ClientOptions) -> Self {
        let names: Vec<Node> = (0..nodes)
            .map(|i| Node::new(format!("node{i}"), 11211))
            .collect();
        let nodes = names.iter().map(|_| SimulatedNode::default());
        Simulation {
            start: Instant::now(),
            now_us: 0,
            nodes: nodes.collect(),
            ring: Arc::new(Ring::new(&names, &options, seed)),
            options: Arc::new(options),
            changes: Vec::new(),
            spoilt: 0,
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % below
    }

    pub(crate) fn at(&self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }

    pub(crate) fn us(&self, at: Instant) -> u64 {
        // Rounded up: who is woken at a time is not woken before it.
        at.saturating_duration_since(self.start)
            .as_nanos()
            .div_ceil(1000) as u64
    }

    fn now_s(&self) -> u64 {
        EPOCH_S + self.now_us / 1_000_000
    }

    /// Lets time pass up to `us`.
    pub(crate) fn pass(&mut self, us: u64) {
        self.now_us = self.now_us.max(us);
        let (now_us, now_s) = (self.now_us, self.now_s());
        self.changes.sort_by_key(|change| change.0);
        while self
            .changes
            .first()
            .is_some_and(|change| change.0 <= now_us)
        {
            let (_, node, mode) = self.changes.remove(0);
            self.nodes[node].set_mode(mode, now_s);
        }
    }

    /// Lets `ms` pass, with the probes that fall due.
    fn rest(&mut self, ms: u64) {
        let end = self.now_us + ms * 1000;
        while self.now_us < end {
            self.pass((self.now_us + 10_000).min(end));
            self.probe();
        }
    }

    fn probe(&mut self) {
        let (now, now_s) = (self.at(self.now_us), self.now_s());
        for (at, member) in self.ring.members.iter().enumerate() {
            let node = &mut self.nodes[at];
            while member.is_unwell()
                && let Some(request) = member.probe_due(now)
            {
                if node.mode == Mode::Up {
                    assert!(node.execute(&request, now_s).ends_with(b"MN\r\n"));
                    self.ring.probe_answered(at, now, &self.options);
                } else {
                    member.probe_failed(now, &self.options, 1 << 63);
                }
            }
        }
    }

    /// Has an operation carried out by a client that is the only one.
    fn run<O: Operation, F: FnOnce(O) -> R, R>(
        &mut self,
        begin: impl FnOnce(Context) -> Call<O, F>,
    ) -> R {
        self.probe();
        let context = Context::new(
            self.ring.clone(),
            self.options.clone(),
            self.at(self.now_us),
            self.now_s(),
        );
        let Call {
            mut operation,
            finish,
        } = begin(context);
        self.drive(&mut operation);
        finish(operation)
    }

    /// Carries out one operation as a front does, and checks that it ends in time.
    pub(crate) fn drive(&mut self, operation: &mut impl Operation) {
        let begun = self.now_us;
        let mut todo = Todo::default();
        let mut queue: BTreeMap<(u64, u64), (usize, Event)> = BTreeMap::new();
        let mut flights: Vec<(Exchange, Link, bool)> = Vec::new();
        let mut ids = HashSet::new();
        let mut number = 0;
        let mut schedule = |queue: &mut BTreeMap<_, _>, at: u64, flight: usize, event: Event| {
            number += 1;
            queue.insert((at, number), (flight, event));
        };
        loop {
            let now = self.at(self.now_us);
            operation.step(now, &mut todo);
            for exchange in todo.send.drain(..) {
                assert!(ids.insert(exchange.id), "an id is used once");
                let mut link = Link::new(None);
                link.send(exchange.request.clone(), exchange.expect);
                link.sent(exchange.request.len());
                let (flight, delay) = (flights.len(), 50 + self.chance(1500));
                let arrives = self.now_us + delay;
                schedule(
                    &mut queue,
                    self.us(exchange.deadline),
                    flight,
                    Event::Fails(Failure::Timeout),
                );
                schedule(&mut queue, arrives, flight, Event::Arrives);
                flights.push((exchange, link, false));
            }
            if todo.done {
                break;
            }
            let wake_us = self
                .us(todo.wake_at.expect("there is a deadline"))
                .max(self.now_us);
            let Some((&(at, key), _)) = queue.first_key_value().filter(|(key, _)| key.0 <= wake_us)
            else {
                self.pass(wake_us);
                continue;
            };
            let (flight, event) = queue.remove(&(at, key)).expect("just seen");
            self.pass(at);
            let now = self.at(self.now_us);
            if flights[flight].2 {
                continue;
            }
            let (node, id) = (flights[flight].0.node, flights[flight].0.id);
            match event {
                Event::Fails(failure) => {
                    flights[flight].2 = true;
                    operation.on_failure(id, failure, now);
                }
                Event::Arrives => {
                    let back = self.now_us + 50 + self.chance(1500);
                    let request = flights[flight].0.request.clone();
                    match self.nodes[node].mode {
                        Mode::Crashed | Mode::CutOff => {
                            schedule(&mut queue, back, flight, Event::Fails(Failure::Connect));
                        }
                        Mode::Hung => {
                            if self.chance(2) == 0 {
                                self.nodes[node].waiting.push(request);
                            }
                        }
                        Mode::Up => {
                            let kind = self.chance(1000);
                            let now_s = self.now_s();
                            if kind >= self.spoilt {
                                let answer = self.nodes[node].execute(&request, now_s);
                                let split = self.chance(answer.len() as u64 + 1) as usize;
                                schedule(
                                    &mut queue,
                                    back,
                                    flight,
                                    Event::Answered(answer[..split].to_vec()),
                                );
                                schedule(
                                    &mut queue,
                                    back + 9,
                                    flight,
                                    Event::Answered(answer[split..].to_vec()),
                                );
                                continue;
                            }
                            if kind.is_multiple_of(2) {
                                self.nodes[node].execute(&request, now_s);
                            }
                            let failure =
                                [Failure::Closed, Failure::Garbage][(kind / 2 % 2) as usize];
                            schedule(&mut queue, back, flight, Event::Fails(failure));
                        }
                    }
                }
                Event::Answered(mut bytes) => {
                    let (_, link, ended) = &mut flights[flight];
                    while !bytes.is_empty() {
                        let space = link.space();
                        let count = space.len().min(bytes.len());
                        space[..count].copy_from_slice(&bytes[..count]);
                        link.filled(count);
                        bytes.drain(..count);
                        while let Some((reply, last)) = link.next().expect("nodes answer well") {
                            operation
                                .on_reply(id, reply, last, now)
                                .expect("nodes answer what was asked");
                            *ended |= last;
                            if last {
                                break;
                            }
                        }
                    }
                }
            }
        }
        // What must be sent is sent.
        for (_, (flight, event)) in queue {
            let (exchange, ..) = &flights[flight];
            let node = &mut self.nodes[exchange.node];
            if matches!(event, Event::Arrives) && exchange.must_send && node.mode == Mode::Up {
                let now_s = EPOCH_S + self.now_us / 1_000_000;
                node.execute(&exchange.request, now_s);
            }
        }
        let took = Duration::from_micros(self.now_us - begun);
        assert!(took <= self.options.request_timeout, "took {took:?}");
    }

    /// Puts a node before the others; for `ms`, keys are looked for where they were.
    fn grow(&mut self, name: &str, ms: u64) {
        let mut names = vec![Node::new(name, 11211)];
        names.extend(self.ring.members.iter().map(|member| member.node.clone()));
        let until = self.at(self.now_us + ms * 1000);
        self.nodes.insert(0, SimulatedNode::default());
        self.ring = Arc::new(self.ring.after(&names, &self.options, until));
    }

    fn get(&mut self, key: &str) -> Result<Option<String>, Error> {
        let found = self.run(|context| calls::get(context, key.as_bytes()))?;
        Ok(found.map(|item| String::from_utf8(item.value.to_vec()).expect("text")))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        self.run(|context| calls::set(context, key.as_bytes(), value.into(), None))
    }

    fn incr(&mut self, key: &str) -> Result<Option<u64>, Error> {
        self.run(|context| calls::count(context, key.as_bytes(), false, 1, None))
    }

    fn holders(&self, key: &str) -> Vec<usize> {
        let holds = |&node: &usize| self.nodes[node].items.contains_key(key.as_bytes());
        (0..self.nodes.len()).filter(holds).collect()
    }

    /// The nodes that `key` goes to, the one that decides first.
    fn homes(&self, key: &str) -> Vec<usize> {
        self.ring
            .writers(key.as_bytes(), self.at(self.now_us), &self.options)
            .iter()
            .collect()
    }
}
