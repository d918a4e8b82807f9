//! Several clients over one set of nodes, their operations interleaved message by message.
//!
//! ```text
//!  script: modes, cuts, lists  ---.
//!  clients: one operation each ---+--> queue of events by time --> nodes execute, operations hear
//!                                                                      '--> the judge, at each end of an operation
//! ```
//!
//! A seed repeats exactly: nothing depends on the clock, on other threads, or on the order of a hash map. `trace` is a hash of
//! all that happened; with `KETCH_SIM_TRACE` set it is printed as well.
//!
//! What is not simulated: bytes that come in pieces (the other simulation has that), pools and lanes.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::EPOCH_S;
use super::deeds::{
    self, COUNTERS, Deed, Job, KEYS, LISTS, LOCKS, Outcome, PIECES, REGISTERS, SWAPPED, VALUES,
    names,
};
use super::judge::{Act, Judge};
use super::node::{Mode, SimulatedNode};
use crate::error::Failure;
use crate::link::Link;
use crate::node::Node;
use crate::operation::Context;
use crate::options::ClientOptions;
use crate::request::{NEXT_TAG, StoreMode};
use crate::routing::Ring;
use crate::unawaited::Unawaited;
use crate::value::Cas;
use crate::{Exchange, Todo};

/// One step of a script.
#[derive(Debug, Clone)]
pub enum Step {
    Mode(usize, Mode),
    /// The client cannot reach the node from now on, or can again.
    Cut(usize, usize, bool),
    /// The nodes of all clients, by number, and for how many milliseconds a read looks where keys were. Clients follow one
    /// after the other within this many microseconds.
    List(Vec<usize>, u64, u64),
    /// A copy of each key that some node has is dropped there by chance, as by eviction.
    Evict,
    /// From now on a key may be missing only if some copy of it is missing now.
    Recount,
    /// From now on any key may be missing that is not written after this.
    Unwritten,
}

/// Small, as there are many.
#[derive(Debug)]
enum Event {
    Next(usize),
    Step(Box<Step>),
    Follow(usize, Box<(Vec<usize>, u64)>),
    Wake(usize, u64),
    Arrives(usize, u32),
    Answered(usize, u32),
    Fails(usize, u32, Failure),
    ProbeArrives(usize, Box<(String, Vec<u8>)>),
    ProbeEnds(usize, Box<(String, Option<Vec<u8>>)>),
}

/// An event and its time; of two at the same time, the one that was planned first comes first.
struct Planned {
    at: u64,
    number: u64,
    event: Event,
}

impl Ord for Planned {
    /// The greatest is the next.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

struct Flight {
    exchange: Exchange,
    /// The node's number.
    node: usize,
    link: Link,
    /// What the node answered, while that is on its way.
    answer: Vec<u8>,
    ended: bool,
    watch: Option<Unawaited>,
}

struct Task {
    client: usize,
    /// The snapshot that it began with.
    ring: Arc<Ring>,
    act: Act,
    /// `None` when it is done.
    job: Option<Box<dyn Job>>,
    todo: Todo,
    flights: Vec<Flight>,
    /// Which wake-up counts, and when it comes.
    wake: u64,
    wakes_at: Option<Instant>,
}

struct Client {
    ring: Arc<Ring>,
    options: Arc<ClientOptions>,
    /// Seconds that its clock is ahead.
    skew_s: i64,
    /// What follows from what it was told last.
    then: Option<Deed>,
}

pub struct Fleet {
    seed: u64,
    start: Instant,
    now_us: u64,
    nodes: Vec<SimulatedNode>,
    clients: Vec<Client>,
    cuts: HashSet<(usize, usize)>,
    queue: BinaryHeap<Planned>,
    number: u64,
    /// By number; `None` when they are over.
    tasks: Vec<Option<Box<Task>>>,
    /// Connections without an exchange, whose buffers are taken again.
    idle_links: Vec<Link>,
    pub judge: Judge,
    /// In a hundred operations, how many are for registers.
    pub registers: u64,
    /// A hash of all that happened, if it is `traced`.
    pub trace: u64,
    pub traced: bool,
    told: bool,
    /// In a thousand exchanges, how many are spoilt.
    pub spoilt: u64,
    /// In a thousand requests, how many reach their node up to a tenth of a second late.
    pub late: u64,
    /// The longest pause between a client's operations, in microseconds.
    pub think_us: u64,
    /// In a hundred operations of a key's writer, how many set it and how many delete it.
    pub sets: u64,
    pub deletes: u64,
    pub until_us: u64,
}

impl Fleet {
    /// `clients` clients of the first `listed` of `nodes` nodes.
    pub fn new(
        seed: u64,
        nodes: usize,
        listed: usize,
        clients: usize,
        options: &ClientOptions,
    ) -> Self {
        NEXT_TAG.set(0);
        let list: Vec<Node> = (0..listed).map(node_name).collect();
        let mut fleet = Fleet {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            start: Instant::now(),
            now_us: 0,
            nodes: (0..nodes).map(|_| SimulatedNode::default()).collect(),
            clients: Vec::new(),
            cuts: HashSet::new(),
            queue: BinaryHeap::new(),
            number: 0,
            tasks: Vec::new(),
            idle_links: Vec::new(),
            judge: Judge::new(clients),
            registers: 60,
            trace: 0xcbf2_9ce4_8422_2325,
            traced: false,
            told: std::env::var_os("KETCH_SIM_TRACE").is_some(),
            spoilt: 0,
            late: 0,
            think_us: 20_000,
            sets: 15,
            deletes: 15,
            until_us: 0,
        };
        for client in 0..clients {
            let ring = Ring::new(&list, options, seed + client as u64);
            let skew_s = fleet.chance(5) as i64 - 2;
            fleet.clients.push(Client {
                ring: Arc::new(ring),
                options: Arc::new(options.clone()),
                skew_s,
                then: None,
            });
            fleet.put(client as u64, Event::Next(client));
        }
        fleet
    }

    pub fn chance(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % below
    }

    fn put(&mut self, at: u64, event: Event) {
        self.number += 1;
        let (at, number) = (at.max(self.now_us), self.number);
        self.queue.push(Planned { at, number, event });
    }

    /// All nodes are old memcached.
    pub fn make_old(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.is_old = true);
    }

    /// Has `step` happen at a time.
    pub fn script(&mut self, at_us: u64, step: Step) {
        self.put(at_us, Event::Step(Box::new(step)));
    }

    fn at(&self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }

    fn us(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        since.as_nanos().div_ceil(1000) as u64
    }

    fn now_s(&self) -> u64 {
        EPOCH_S + self.now_us / 1_000_000
    }

    /// Runs to `until_us`.
    pub fn run(&mut self, until_us: u64) {
        self.until_us = until_us;
        while let Some(Planned { at, event, .. }) = self.queue.pop() {
            if at > until_us {
                return;
            }
            self.now_us = at;
            self.note(format_args!("{at} {event:?}"));
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Next(client) => self.begin(client),
            Event::Step(step) => self.script_step(*step),
            Event::Follow(client, change) => {
                let (nodes, window_ms) = *change;
                let list: Vec<Node> = nodes.iter().map(|&node| node_name(node)).collect();
                let until = self.at(self.now_us + window_ms * 1000);
                let client = &mut self.clients[client];
                client.ring = Arc::new(client.ring.after(&list, &client.options, until));
            }
            Event::Wake(task, wake) => {
                let is_due = |task: &mut Box<Task>| {
                    let is_due = task.wake == wake;
                    if is_due {
                        task.wakes_at = None;
                    }
                    is_due
                };
                if self.tasks[task].as_mut().is_some_and(is_due) {
                    self.step(task);
                }
            }
            Event::Arrives(task, flight) => self.arrive(task, flight),
            Event::Answered(task, flight) => self.answered(task, flight),
            Event::Fails(task, flight, failure) => self.failed(task, flight, failure),
            Event::ProbeArrives(client, probe) => {
                let (name, request) = *probe;
                let (node, now_s) = (node_number(&name), self.now_s());
                let reached = !self.cuts.contains(&(client, node));
                let answer = (reached && self.nodes[node].mode == Mode::Up)
                    .then(|| self.nodes[node].execute(&request, now_s));
                let back = match answer {
                    Some(_) => self.now_us + self.delay(),
                    // It refuses, or says nothing.
                    None => self.now_us + [1_000, 300_000][self.chance(2) as usize],
                };
                self.put(back, Event::ProbeEnds(client, Box::new((name, answer))));
            }
            Event::ProbeEnds(client, probe) => {
                let (name, answer) = *probe;
                let now = self.at(self.now_us);
                let Client { ring, options, .. } = &self.clients[client];
                let (ring, options) = (ring.clone(), options.clone());
                let mut members = ring.members.iter();
                // Who left the list is of no interest any more.
                if let Some(node) = members.position(|member| *member.name == *name) {
                    match answer {
                        Some(_) => drop(ring.probe_answered(node, now, &options)),
                        None => ring.probe_failed(node, now, &options),
                    }
                }
            }
        }
    }

    /// Takes into the trace what happens.
    fn note(&mut self, what: fmt::Arguments<'_>) {
        if !self.traced && !self.told {
            return;
        }
        struct Hash(u64);

        impl fmt::Write for Hash {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for byte in text.bytes() {
                    self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
                Ok(())
            }
        }

        let mut hash = Hash(self.trace);
        fmt::write(&mut hash, what).expect("a hash takes all");
        self.trace = hash.0;
        if self.told {
            println!("{what}");
        }
    }

    fn delay(&mut self) -> u64 {
        50 + self.chance(1500)
    }

    fn script_step(&mut self, step: Step) {
        let now_s = self.now_s();
        match step {
            Step::Mode(node, mode) => self.nodes[node].set_mode(mode, now_s),
            Step::Cut(client, node, cut) => {
                if cut {
                    self.cuts.insert((client, node));
                } else {
                    self.cuts.remove(&(client, node));
                }
            }
            Step::List(nodes, window_ms, within_us) => {
                for client in 0..self.clients.len() {
                    let at = self.now_us + self.chance(within_us + 1);
                    let change = Box::new((nodes.clone(), window_ms));
                    self.put(at, Event::Follow(client, change));
                }
            }
            Step::Evict => {
                for (number, key) in names().keys.iter().enumerate() {
                    let key = key.as_bytes();
                    let nodes = 0..self.nodes.len();
                    let holders = nodes.filter(|&node| self.nodes[node].live(key, now_s).is_some());
                    let holders: Vec<usize> = holders.collect();
                    if holders.len() > 1 {
                        let victim = holders[self.chance(holders.len() as u64) as usize];
                        self.nodes[victim].items.remove(key);
                        self.judge.evicted(number);
                    }
                }
            }
            Step::Unwritten => self.judge.unwritten(self.now_us),
            Step::Recount => {
                for key in 0..KEYS {
                    let now = self.at(self.now_us);
                    let Client { ring, options, .. } = &self.clients[0];
                    let bytes = names().keys[key].as_bytes();
                    let writers = ring.writers(bytes, now, options);
                    let mut holds = |node: usize| {
                        let node = node_number(&ring.members[node].name);
                        self.nodes[node].live(bytes, now_s).is_some()
                    };
                    let held = writers.iter().filter(|&node| holds(node)).count();
                    self.judge.thin[key] = held < ring.copies(options);
                }
            }
        }
    }

    /// The next operation of a client, with the probes that callers carry along.
    fn begin(&mut self, client: usize) {
        self.probe(client);
        let deed = match self.clients[client].then.take() {
            Some(deed) => deed,
            None => self.choose(client),
        };
        self.start(client, deed);
    }

    fn one_of(&mut self, keys: std::ops::Range<usize>) -> usize {
        keys.start + self.chance(keys.len() as u64) as usize
    }

    fn choose(&mut self, client: usize) -> Deed {
        if self.chance(100) < self.registers {
            return self.choose_register(client);
        }
        let reads = self.chance(4) == 0;
        match self.chance(4) {
            0 => match self.one_of(COUNTERS) {
                key if reads => Deed::Get(key),
                key => match self.chance(5) {
                    0 => Deed::CountMulti,
                    _ => Deed::Count(key, self.chance(3) == 0),
                },
            },
            1 => match self.one_of(SWAPPED) {
                key if reads => Deed::Get(key),
                key => Deed::Gets(key),
            },
            2 => match (self.one_of(LISTS), self.judge.pieces(client)) {
                (key, number) if !reads && number < PIECES => {
                    let modes = [StoreMode::Append, StoreMode::Prepend];
                    Deed::Piece(key, modes[self.chance(2) as usize], number)
                }
                (key, _) => Deed::Get(key),
            },
            _ => match self.one_of(LOCKS) {
                key if self.judge.holds(client, key) => Deed::Unlock(key),
                key => Deed::Lock(key),
            },
        }
    }

    fn choose_register(&mut self, client: usize) -> Deed {
        let key = self.one_of(REGISTERS);
        let full = |key: usize| self.judge.next_value(key) >= VALUES;
        let own: Vec<usize> = REGISTERS
            .filter(|&key| self.judge.is_own(client, key) && !full(key))
            .collect();
        let (kind, many) = (self.chance(100), self.chance(5) == 0);
        let writes = own.contains(&key);
        match kind {
            kind if writes && kind < self.sets => {
                let next = |&key: &usize| (key, self.judge.next_value(key));
                match many {
                    true => Deed::SetMulti(own.iter().map(next).collect()),
                    false => Deed::Set(key, self.judge.next_value(key)),
                }
            }
            kind if writes && kind < self.sets + self.deletes => match many {
                true => Deed::DeleteMulti(own),
                false => Deed::Delete(key),
            },
            _ if many => Deed::GetMulti,
            _ => Deed::Get(key),
        }
    }

    /// What the client does next, since it was told this.
    fn follow_up(&self, act: &Act, outcome: &Outcome) -> Option<Deed> {
        match (&act.deed, outcome) {
            (&Deed::Gets(key), Outcome::Versioned(Ok(found))) => Some(match found {
                None => Deed::First(key),
                Some((text, unique)) => {
                    let number: usize = text.parse().ok()?;
                    (number + 1 < VALUES).then_some(Deed::Swap(key, *unique, number + 1))?
                }
            }),
            (&Deed::Swap(key, ..), Outcome::Swapped(Ok(Cas::Conflict))) => Some(Deed::Gets(key)),
            (&Deed::Piece(key, mode, _), Outcome::Wrote(wrote))
                if mode != StoreMode::Add && wrote[0] == Ok(false) =>
            {
                let number = self.judge.pieces(act.client);
                (number < PIECES).then_some(Deed::Piece(key, StoreMode::Add, number))
            }
            _ => None,
        }
    }

    /// Begins an operation.
    fn start(&mut self, client: usize, deed: Deed) {
        let Client {
            ring,
            options,
            skew_s,
            ..
        } = &self.clients[client];
        let ring = ring.clone();
        let unix_s = self.now_s().saturating_add_signed(*skew_s);
        let now = self.at(self.now_us);
        let context = Context::new(ring.clone(), options.clone(), now, unix_s);
        self.note(format_args!("client {client}: {deed:?}"));
        let job = deeds::begin(context, client, &deed);
        let act = self.judge.begins(client, deed, self.now_us);
        self.run_job(client, ring, act, job);
    }

    fn run_job(&mut self, client: usize, ring: Arc<Ring>, act: Act, job: Box<dyn Job>) {
        self.tasks.push(Some(Box::new(Task {
            client,
            ring,
            act,
            job: Some(job),
            todo: Todo::default(),
            flights: Vec::new(),
            wake: 0,
            wakes_at: None,
        })));
        self.step(self.tasks.len() - 1);
    }

    fn probe(&mut self, client: usize) {
        let now = self.at(self.now_us);
        let Client { ring, options, .. } = &self.clients[client];
        let (ring, options) = (ring.clone(), options.clone());
        for (node, member) in ring.members.iter().enumerate() {
            if !member.is_unwell() {
                continue;
            }
            ring.tend(node, now, &options);
            if let Some(request) = member.probe_due(now) {
                let at = self.now_us + self.delay();
                let name = member.name.to_string();
                let probe = Box::new((name, request.to_vec()));
                self.put(at, Event::ProbeArrives(client, probe));
            }
        }
    }

    /// Steps an operation, sends what it wants to be sent, and judges it when it is done.
    fn step(&mut self, id: usize) {
        let now = self.at(self.now_us);
        let Some(mut task) = self.tasks[id].take() else {
            return;
        };
        let Some(job) = &mut task.job else {
            self.keep(id, task);
            return;
        };
        job.operation().step(now, &mut task.todo);
        for exchange in std::mem::take(&mut task.todo.send) {
            let mut link = self.idle_links.pop().unwrap_or_else(|| Link::new(None));
            link.send(exchange.request.clone(), exchange.expect);
            link.sent(exchange.request.len());
            let flight = task.flights.len() as u32;
            let deadline = self.us(exchange.deadline);
            let mut at = self.now_us + self.delay();
            if self.late > 0 && self.chance(1000) < self.late {
                at += self.chance(100_000);
            }
            if at >= deadline {
                self.put(deadline, Event::Fails(id, flight, Failure::Timeout));
            }
            self.put(at, Event::Arrives(id, flight));
            let node = node_number(&task.ring.members[exchange.node].name);
            task.flights.push(Flight {
                exchange,
                node,
                link,
                answer: Vec::new(),
                ended: false,
                watch: None,
            });
        }
        if task.todo.done {
            let mut job = task.job.take().expect("it runs");
            for (exchange, watch) in job.operation().abandon(now) {
                let flights = &mut task.flights;
                let flight = flights.iter_mut().find(|one| one.exchange.id == exchange);
                let flight = flight.expect("what is watched is under way");
                assert!(!flight.ended, "what is watched is under way");
                flight.watch = Some(watch);
            }
            // What need not be sent is not, by half.
            for flight in &mut task.flights {
                if !flight.exchange.must_send && self.seed & 1 == 0 {
                    flight.ended = true;
                }
            }
            let (replaced, outcome) = (job.operation().replaced(), job.finish());
            let ring = self.clients[task.client].ring.clone();
            if !Arc::ptr_eq(&ring, &task.ring)
                && let Some(replaced) = replaced
            {
                let act = task.act.clone();
                let begun = self.at(act.begun);
                let Client { options, .. } = &self.clients[task.client];
                let mut context = Context::new(ring.clone(), options.clone(), now, self.now_s());
                context.deadline = begun + options.request_timeout;
                let job = deeds::follow(context, replaced, task.ring.clone(), outcome);
                self.run_job(task.client, ring, act, job);
                return self.keep(id, task);
            }
            let took = self.now_us - task.act.begun;
            let limit = self.clients[task.client].options.request_timeout;
            assert!(took <= limit.as_micros() as u64, "took {took} us");
            let now_us = self.now_us;
            self.note(format_args!("{now_us} {:?}: {outcome:?}", task.act));
            self.judge.ended(&task.act, &outcome, self.now_us);
            self.clients[task.client].then = self.follow_up(&task.act, &outcome);
            let pause = self.chance(self.think_us) * self.chance(3).min(1);
            self.put(self.now_us + pause, Event::Next(task.client));
        } else {
            let wake_at = task.todo.wake_at.expect("there is a deadline");
            if task.wakes_at != Some(wake_at) {
                task.wake += 1;
                task.wakes_at = Some(wake_at);
                self.put(self.us(wake_at), Event::Wake(id, task.wake));
            }
        }
        self.keep(id, task);
    }

    fn keep(&mut self, id: usize, task: Box<Task>) {
        if task.job.is_some() || task.flights.iter().any(|flight| !flight.ended) {
            self.tasks[id] = Some(task);
        }
    }

    fn arrive(&mut self, id: usize, at: u32) {
        let Some(task) = &self.tasks[id] else {
            return;
        };
        let flight = &task.flights[at as usize];
        if flight.ended {
            return;
        }
        let (client, node) = (task.client, flight.node);
        let request = flight.exchange.request.clone();
        let deadline = self.us(flight.exchange.deadline);
        let back = self.now_us + self.delay();
        // Most are answered in time, so that the queue need not hold a deadline for each.
        let is_silent = self.cuts.contains(&(client, node)) || self.nodes[node].mode == Mode::Hung;
        if self.now_us < deadline && (is_silent || back >= deadline) {
            self.put(deadline, Event::Fails(id, at, Failure::Timeout));
        }
        if self.cuts.contains(&(client, node)) {
            // Refused by half; otherwise nothing comes, and the deadline tells.
            if self.chance(2) == 0 {
                self.put(back, Event::Fails(id, at, Failure::Connect));
            }
            return;
        }
        match self.nodes[node].mode {
            Mode::Crashed | Mode::CutOff => {
                self.put(back, Event::Fails(id, at, Failure::Connect));
            }
            Mode::Hung => {
                if self.chance(2) == 0 {
                    self.nodes[node].waiting.push(request);
                }
            }
            Mode::Up => {
                let (kind, now_s) = (self.chance(1000), self.now_s());
                if kind >= self.spoilt {
                    let answer = self.nodes[node].execute(&request, now_s);
                    self.note(format_args!(
                        "node {node}: {request:?} {:?}",
                        Bytes::copy_from_slice(&answer)
                    ));
                    let task = self.tasks[id].as_mut().expect("just seen");
                    task.flights[at as usize].answer = answer;
                    return self.put(back, Event::Answered(id, at));
                }
                if kind.is_multiple_of(2) {
                    self.nodes[node].execute(&request, now_s);
                }
                let failure = [Failure::Closed, Failure::Garbage][(kind / 2 % 2) as usize];
                self.put(back, Event::Fails(id, at, failure));
            }
        }
    }

    fn answered(&mut self, id: usize, at: u32) {
        let now = self.at(self.now_us);
        let Some(task) = &mut self.tasks[id] else {
            return;
        };
        let flight = &mut task.flights[at as usize];
        if flight.ended {
            return;
        }
        let answer = std::mem::take(&mut flight.answer);
        let mut bytes = &answer[..];
        while !bytes.is_empty() {
            let space = flight.link.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            flight.link.filled(count);
            bytes = &bytes[count..];
            while !flight.ended
                && let Some((reply, last)) = flight.link.next_reply().expect("nodes answer well")
            {
                flight.ended |= last;
                if let Some(job) = &mut task.job {
                    let told = job
                        .operation()
                        .on_reply(flight.exchange.id, reply, last, now);
                    told.expect("nodes answer what was asked");
                }
            }
        }
        if flight.link.settled() && flight.link.reusable() {
            self.idle_links
                .push(std::mem::replace(&mut flight.link, Link::new(None)));
        }
        if let Some(watch) = flight.watch.take() {
            watch.answered();
        }
        self.step(id);
    }

    fn failed(&mut self, id: usize, at: u32, failure: Failure) {
        let now = self.at(self.now_us);
        let Some(task) = &mut self.tasks[id] else {
            return;
        };
        let flight = &mut task.flights[at as usize];
        if std::mem::replace(&mut flight.ended, true) {
            return;
        }
        if let Some(watch) = flight.watch.take() {
            watch.failed(failure);
        }
        if let Some(job) = &mut task.job {
            job.operation().on_failure(flight.exchange.id, failure, now);
        }
        self.step(id);
    }
}

fn node_name(node: usize) -> Node {
    Node::new(format!("node{node}"), 11211)
}

fn node_number(name: &str) -> usize {
    let host = name.split(':').next().expect("a name");
    host["node".len()..].parse().expect("a number")
}
