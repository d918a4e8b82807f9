//! The operations against a simulated cluster: nodes are hash maps, time is a number, chance comes from a seed.
//!
//! Nodes crash (and come back empty), hang, are cut off (and come back with what they had), and answer with garbage or not
//! at all. `tests` checks what clients are promised after every operation; a seed that failed is printed. Every operation
//! ends by its deadline, and none waits on and on with nothing under way.

#[cfg(test)]
mod deeds;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod many;
pub mod node;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::node::{Mode, SimulatedNode};
use super::calls::{self, Call};
use super::link::Link;
use super::operation::Context;
use super::options::ClientOptions;
use super::routing::Ring;
use super::unawaited::Unawaited;
use super::{Exchange, Operation, Todo};
use crate::error::{Error, Failure};
use crate::node::Node;

/// Unix time at the start.
pub const EPOCH_S: u64 = 1_700_000_000;

/// What happens to an exchange.
enum Event {
    Arrives,
    Answered(Vec<u8>),
    Fails(Failure),
}

/// The cluster, its clock and its chance.
pub struct Simulation {
    seed: u64,
    start: Instant,
    /// Microseconds since the start.
    pub now_us: u64,
    /// By their index in the ring.
    pub nodes: Vec<SimulatedNode>,
    ring: Arc<Ring>,
    options: Arc<ClientOptions>,
    /// Nodes that change their mode at a time.
    changes: Vec<(u64, usize, Mode)>,
    /// What nobody waits for arrives in its own time, perhaps behind later writes; otherwise at once.
    unordered: bool,
    /// Requests that nobody waits for: when each arrives, its node, and what watches over it.
    late: Vec<(u64, usize, Bytes, Option<Unawaited>)>,
    /// Watches whose exchanges get no answer, and when that is noticed.
    unanswered: Vec<(u64, Unawaited)>,
    /// In thousand exchanges, how many are spoilt.
    spoilt: u64,
    /// Other callers use the nodes too: that a node is down may be known, and it ejected, in the midst of an operation.
    crowded: bool,
    /// How long a byte is on its way, in nanoseconds.
    ns_per_byte: u64,
    /// How long the last operation took.
    took: Duration,
}

impl Simulation {
    /// Nodes that are up and empty, under a client with these options.
    pub fn new(seed: u64, nodes: usize, options: ClientOptions) -> Self {
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
            unanswered: Vec::new(),
            unordered: false,
            late: Vec::new(),
            spoilt: 0,
            crowded: false,
            ns_per_byte: 0,
            took: Duration::ZERO,
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % below
    }

    /// The instant at this time.
    pub fn at(&self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }

    /// The time of this instant, in microseconds.
    pub fn us(&self, at: Instant) -> u64 {
        // Rounded up: who is woken at a time is not woken before it.
        at.saturating_duration_since(self.start)
            .as_nanos()
            .div_ceil(1000) as u64
    }

    fn on_its_way_us(&self, bytes: &[u8]) -> u64 {
        bytes.len() as u64 * self.ns_per_byte / 1000
    }

    fn now_s(&self) -> u64 {
        EPOCH_S + self.now_us / 1_000_000
    }

    /// Lets time pass up to `us`.
    pub fn pass(&mut self, us: u64) {
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
        let late = self.late.extract_if(.., |late| late.0 <= now_us);
        let mut late: Vec<_> = late.collect();
        late.sort_by_key(|late| late.0);
        for (at, node, request, watch) in late {
            let node = &mut self.nodes[node];
            match node.mode {
                Mode::Up => {
                    node.execute(&request, now_s);
                    watch.into_iter().for_each(Unawaited::answered);
                    continue;
                }
                Mode::Hung => node.waiting.push(request),
                Mode::Crashed | Mode::CutOff => {}
            }
            let noticed = at + self.options.attempt_timeout.as_micros() as u64;
            self.unanswered.extend(watch.map(|watch| (noticed, watch)));
        }
        self.unanswered.retain(|&(at, _)| at > now_us);
        for node in 0..self.nodes.len() {
            if self.crowded && self.nodes[node].mode != Mode::Up && self.chance(4) == 0 {
                let now = self.at(self.now_us);
                self.ring.failed(node, now, &self.options);
            }
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
            self.ring.tend(at, now, &self.options);
            while member.is_unwell()
                && let Some(request) = member.probe_due(now)
            {
                if node.mode == Mode::Up {
                    assert!(node.execute(&request, now_s).ends_with(b"MN\r\n"));
                    self.ring.probe_answered(at, now, &self.options);
                } else {
                    self.ring.probe_failed(at, now, &self.options);
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
    pub fn drive(&mut self, operation: &mut impl Operation) {
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
        let mut idle_wakes = 0;
        loop {
            let now = self.at(self.now_us);
            operation.step(now, &mut todo);
            // A key of a batch may find that its pause was in vain; then the next key's pause goes on.
            let idle = todo.send.is_empty() && flights.iter().all(|(.., ended)| *ended);
            if !idle {
                idle_wakes = 0;
            }
            for exchange in todo.send.drain(..) {
                assert!(ids.insert(exchange.id), "an id is used once");
                let mut link = Link::new(None);
                link.send(exchange.request.clone(), exchange.expect);
                link.sent(exchange.request.len());
                let delay = 50 + self.chance(1500) + self.on_its_way_us(&exchange.request);
                let flight = flights.len();
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
                idle_wakes += 1;
                assert!(idle_wakes < 8, "it waits for nothing");
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
                                let back = back + self.on_its_way_us(&answer);
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
                        while let Some((reply, last)) =
                            link.next_reply().expect("nodes answer well")
                        {
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
        // What must be sent is sent, and watched.
        let mut late = Vec::new();
        let mut watches: HashMap<u32, Unawaited> = operation
            .abandon(self.at(self.now_us))
            .into_iter()
            .collect();
        for ((at, _), (flight, event)) in queue {
            let spoilt = self.chance(1000) < self.spoilt;
            let (exchange, link, ended) = &mut flights[flight];
            let watch = watches.remove(&exchange.id);
            match event {
                _ if *ended => continue,
                Event::Arrives if exchange.must_send && !spoilt => {
                    let request = exchange.request.clone();
                    let at = if self.unordered { at } else { self.now_us };
                    late.push((at, exchange.node, request, watch));
                }
                Event::Answered(bytes) if watch.is_some() || link.is_watched() => {
                    link.disown(watch);
                    link.space()[..bytes.len()].copy_from_slice(&bytes);
                    link.filled(bytes.len());
                    assert_eq!(link.next_reply(), Ok(None), "nobody is told");
                    *ended = link.settled();
                    continue;
                }
                _ => self.unanswered.extend(watch.map(|watch| (at, watch))),
            }
            *ended = true;
        }
        assert!(watches.is_empty(), "what is watched is under way");
        self.late.append(&mut late);
        self.pass(self.now_us);
        self.took = Duration::from_micros(self.now_us - begun);
        let took = self.took;
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
