//! Several clients over one set of nodes, their operations interleaved message by message, and a judge who knows what
//! each key may hold.
//!
//! ```text
//!  script: modes, cuts, lists  ---.
//!  clients: one operation each ---+--> queue of events by time --> nodes execute, operations hear
//!                                                                      '--> the judge, at each end of an operation
//! ```
//!
//! Each key has one writer, whose operations follow each other; every client reads every key. So what a read may find is
//! known: what the last acknowledged write left, and what writes that were not acknowledged, or began before the read
//! ended, may have left since.
//!
//! What is not simulated: bytes that come in pieces (the other simulation has that), pools and lanes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::EPOCH_S;
use super::node::{Mode, SimulatedNode};
use crate::calls::{self, Call};
use crate::error::{Error, Failure};
use crate::link::Link;
use crate::node::Node;
use crate::operation::Context;
use crate::options::ClientOptions;
use crate::routing::Ring;
use crate::unawaited::Unawaited;
use crate::{Exchange, Operation, Todo};

/// Keys there are.
pub const KEYS: usize = 6;
/// Writes that a key may see in one run.
const VALUES: usize = 3000;

/// Keys and values, which operations borrow.
struct Names {
    keys: Vec<String>,
    values: Vec<Vec<String>>,
}

fn names() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| {
        let keys: Vec<String> = (0..KEYS).map(|key| format!("key{key}")).collect();
        let values = |key: &String| (0..VALUES).map(|n| format!("{key}:{n}")).collect();
        Names {
            values: keys.iter().map(values).collect(),
            keys,
        }
    })
}

/// What an operation told its caller.
pub enum Outcome {
    Found(Result<Option<String>, Error>),
    Wrote(Result<(), Error>),
}

/// An operation under way, and what becomes of it.
trait Job {
    fn operation(&mut self) -> &mut dyn Operation;
    fn finish(self: Box<Self>) -> Outcome;
}

struct Made<O, F>(O, F);

impl<O: Operation, F: FnOnce(O) -> Outcome> Job for Made<O, F> {
    fn operation(&mut self) -> &mut dyn Operation {
        &mut self.0
    }

    fn finish(self: Box<Self>) -> Outcome {
        (self.1)(self.0)
    }
}

fn job<O, R, F>(call: Call<O, F>, outcome: fn(R) -> Outcome) -> Box<dyn Job>
where
    O: Operation + 'static,
    R: 'static,
    F: FnOnce(O) -> R + 'static,
{
    let finish = call.finish;
    Box::new(Made(call.operation, move |operation| {
        outcome(finish(operation))
    }))
}

/// What a client does with a key.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    Get,
    /// The value of this number.
    Set(usize),
    Delete,
}

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
}

enum Event {
    Next(usize),
    Step(Step),
    Follow(usize, Vec<usize>, u64),
    Wake(usize, u64),
    Arrives(usize, usize),
    Answered(usize, usize, Vec<u8>),
    Fails(usize, usize, Failure),
    ProbeArrives(usize, String, Vec<u8>),
    ProbeEnds(usize, String, Option<Vec<u8>>),
}

struct Flight {
    exchange: Exchange,
    /// The node's number.
    node: usize,
    link: Link,
    ended: bool,
    watch: Option<Unawaited>,
}

struct Task {
    client: usize,
    /// The snapshot that it began with.
    ring: Arc<Ring>,
    key: usize,
    deed: Deed,
    begun: u64,
    /// `None` when it is done.
    job: Option<Box<dyn Job>>,
    todo: Todo,
    flights: Vec<Flight>,
    /// Which wake-up counts.
    wake: u64,
}

struct Client {
    ring: Arc<Ring>,
    options: Arc<ClientOptions>,
    /// Seconds that its clock is ahead.
    skew_s: i64,
}

/// One write of a key: its number, or a delete.
#[derive(Debug, Clone, Copy)]
struct Written {
    value: Option<usize>,
    begun: u64,
    /// When it was acknowledged.
    acknowledged: Option<u64>,
}

/// What the judge found.
#[derive(Debug, Default, Clone)]
pub struct Verdict {
    pub reads: u64,
    pub writes: u64,
    pub errors: u64,
    pub wrong_key: u64,
    pub lost: u64,
    pub own_stale: u64,
    pub own_back: u64,
    pub others_stale: u64,
    pub others_back: u64,
    /// Deleted values that were seen while a repair was being looked at.
    pub moments: u64,
    /// The first of each kind.
    pub stories: BTreeMap<&'static str, String>,
}

pub struct Fleet {
    seed: u64,
    start: Instant,
    now_us: u64,
    nodes: Vec<SimulatedNode>,
    clients: Vec<Client>,
    cuts: HashSet<(usize, usize)>,
    queue: BTreeMap<(u64, u64), Event>,
    number: u64,
    tasks: HashMap<usize, Task>,
    tasks_begun: usize,
    history: Vec<Vec<Written>>,
    /// A key whose copies are fewer than they should be for a reason that the docs name.
    thin: [bool; KEYS],
    /// Any key may be missing.
    pub may_lose: bool,
    /// For how long after a write was acknowledged another client may see what was before, in microseconds.
    pub grace_us: u64,
    /// For how long after a delete its value may be seen, since a repair may have been under way, in microseconds.
    pub moment_us: u64,
    /// In a thousand exchanges, how many are spoilt.
    pub spoilt: u64,
    /// The longest pause between a client's operations, in microseconds.
    pub think_us: u64,
    /// In a hundred operations of a key's writer, how many set it and how many delete it.
    pub sets: u64,
    pub deletes: u64,
    pub until_us: u64,
    pub verdict: Verdict,
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
        let list: Vec<Node> = (0..listed).map(node_name).collect();
        let mut fleet = Fleet {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            start: Instant::now(),
            now_us: 0,
            nodes: (0..nodes).map(|_| SimulatedNode::default()).collect(),
            clients: Vec::new(),
            cuts: HashSet::new(),
            queue: BTreeMap::new(),
            number: 0,
            tasks: HashMap::new(),
            tasks_begun: 0,
            history: vec![Vec::new(); KEYS],
            thin: [false; KEYS],
            may_lose: false,
            grace_us: 0,
            moment_us: 2_000_000,
            spoilt: 0,
            think_us: 20_000,
            sets: 15,
            deletes: 15,
            until_us: 0,
            verdict: Verdict::default(),
        };
        for client in 0..clients {
            let ring = Ring::new(&list, options, seed + client as u64);
            let skew_s = fleet.chance(5) as i64 - 2;
            fleet.clients.push(Client {
                ring: Arc::new(ring),
                options: Arc::new(options.clone()),
                skew_s,
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
        self.queue.insert((at.max(self.now_us), self.number), event);
    }

    /// Has `step` happen at a time.
    pub fn script(&mut self, at_us: u64, step: Step) {
        self.put(at_us, Event::Step(step));
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
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > until_us {
                return;
            }
            self.now_us = at;
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Next(client) => self.begin(client),
            Event::Step(step) => self.script_step(step),
            Event::Follow(client, nodes, window_ms) => {
                let list: Vec<Node> = nodes.iter().map(|&node| node_name(node)).collect();
                let until = self.at(self.now_us + window_ms * 1000);
                let client = &mut self.clients[client];
                client.ring = Arc::new(client.ring.after(&list, &client.options, until));
            }
            Event::Wake(task, wake) => {
                if self.tasks.get(&task).is_some_and(|task| task.wake == wake) {
                    self.step(task);
                }
            }
            Event::Arrives(task, flight) => self.arrive(task, flight),
            Event::Answered(task, flight, bytes) => self.answered(task, flight, &bytes),
            Event::Fails(task, flight, failure) => self.failed(task, flight, failure),
            Event::ProbeArrives(client, name, request) => {
                let (node, now_s) = (node_number(&name), self.now_s());
                let reached = !self.cuts.contains(&(client, node));
                let answer = (reached && self.nodes[node].mode == Mode::Up)
                    .then(|| self.nodes[node].execute(&request, now_s));
                let back = match answer {
                    Some(_) => self.now_us + self.delay(),
                    // It refuses, or says nothing.
                    None => self.now_us + [1_000, 300_000][self.chance(2) as usize],
                };
                self.put(back, Event::ProbeEnds(client, name, answer));
            }
            Event::ProbeEnds(client, name, answer) => {
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
                    self.put(at, Event::Follow(client, nodes.clone(), window_ms));
                }
            }
            Step::Evict => {
                for key in &names().keys {
                    let holds = |node: &SimulatedNode| node.items.contains_key(key.as_bytes());
                    let count = self.nodes.iter().filter(|node| holds(node)).count() as u64;
                    if count > 1 {
                        let victim = self.chance(count) as usize;
                        let mut holders = self.nodes.iter_mut().filter(|node| holds(node));
                        let holder = holders.nth(victim).expect("counted");
                        holder.items.remove(key.as_bytes());
                    }
                }
            }
            Step::Recount => {
                for key in 0..KEYS {
                    let now = self.at(self.now_us);
                    let Client { ring, options, .. } = &self.clients[0];
                    let bytes = names().keys[key].as_bytes();
                    let writers = ring.writers(bytes, now, options);
                    let holds = |node: usize| {
                        let node = node_number(&ring.members[node].name);
                        self.nodes[node].items.contains_key(bytes)
                    };
                    let held = writers.iter().filter(|&node| holds(node)).count();
                    self.thin[key] = held < ring.copies(options);
                }
            }
        }
    }

    /// The next operation of a client, with the probes that callers carry along.
    fn begin(&mut self, client: usize) {
        self.probe(client);
        let key = self.chance(KEYS as u64) as usize;
        let own = key % self.clients.len() == client;
        let deed = match self.chance(100) {
            kind if own && kind < self.sets && self.history[key].len() < VALUES => {
                Deed::Set(self.history[key].len())
            }
            kind if own && (self.sets..self.sets + self.deletes).contains(&kind) => Deed::Delete,
            _ => Deed::Get,
        };
        self.start(client, key, deed);
    }

    /// Begins an operation.
    pub fn start(&mut self, client: usize, key: usize, deed: Deed) {
        let Client {
            ring,
            options,
            skew_s,
        } = &self.clients[client];
        let ring = ring.clone();
        let unix_s = self.now_s().saturating_add_signed(*skew_s);
        let now = self.at(self.now_us);
        let context = Context::new(ring.clone(), options.clone(), now, unix_s);
        let bytes = names().keys[key].as_bytes();
        let written = |value| Written {
            value,
            begun: self.now_us,
            acknowledged: None,
        };
        let job = match deed {
            Deed::Get => job(calls::get(context, bytes), |found| {
                let text = |item: crate::value::Item| {
                    String::from_utf8(item.value.to_vec()).expect("text")
                };
                Outcome::Found(found.map(|found| found.map(text)))
            }),
            Deed::Set(number) => {
                let value = names().values[key][number].as_str().into();
                let written = written(Some(number));
                self.history[key].push(written);
                job(calls::set(context, bytes, value, None), Outcome::Wrote)
            }
            Deed::Delete => {
                let written = written(None);
                self.history[key].push(written);
                job(calls::delete(context, bytes), |deleted| {
                    Outcome::Wrote(deleted.map(|_| ()))
                })
            }
        };
        let task = self.tasks_begun;
        self.tasks_begun += 1;
        let begun = self.now_us;
        self.tasks.insert(
            task,
            Task {
                client,
                ring,
                key,
                deed,
                begun,
                job: Some(job),
                todo: Todo::default(),
                flights: Vec::new(),
                wake: 0,
            },
        );
        self.step(task);
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
                self.put(at, Event::ProbeArrives(client, name, request.to_vec()));
            }
        }
    }

    /// Steps an operation, sends what it wants to be sent, and judges it when it is done.
    fn step(&mut self, id: usize) {
        let now = self.at(self.now_us);
        let Some(mut task) = self.tasks.remove(&id) else {
            return;
        };
        let Some(job) = &mut task.job else {
            self.keep(id, task);
            return;
        };
        job.operation().step(now, &mut task.todo);
        for exchange in std::mem::take(&mut task.todo.send) {
            let mut link = Link::new(None);
            link.send(exchange.request.clone(), exchange.expect);
            link.sent(exchange.request.len());
            let flight = task.flights.len();
            let at = self.us(exchange.deadline);
            self.put(at, Event::Fails(id, flight, Failure::Timeout));
            let at = self.now_us + self.delay();
            self.put(at, Event::Arrives(id, flight));
            let node = node_number(&task.ring.members[exchange.node].name);
            task.flights.push(Flight {
                exchange,
                node,
                link,
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
            let outcome = job.finish();
            self.judge(&task, outcome);
            let pause = self.chance(self.think_us) * self.chance(3).min(1);
            self.put(self.now_us + pause, Event::Next(task.client));
        } else {
            let wake_at = task.todo.wake_at.expect("there is a deadline");
            task.wake += 1;
            self.put(self.us(wake_at), Event::Wake(id, task.wake));
        }
        self.keep(id, task);
    }

    fn keep(&mut self, id: usize, task: Task) {
        if task.job.is_some() || task.flights.iter().any(|flight| !flight.ended) {
            self.tasks.insert(id, task);
        }
    }

    fn arrive(&mut self, id: usize, at: usize) {
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let flight = &task.flights[at];
        if flight.ended {
            return;
        }
        let (client, node) = (task.client, flight.node);
        let request = flight.exchange.request.clone();
        let back = self.now_us + self.delay();
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
                    return self.put(back, Event::Answered(id, at, answer));
                }
                if kind.is_multiple_of(2) {
                    self.nodes[node].execute(&request, now_s);
                }
                let failure = [Failure::Closed, Failure::Garbage][(kind / 2 % 2) as usize];
                self.put(back, Event::Fails(id, at, failure));
            }
        }
    }

    fn answered(&mut self, id: usize, at: usize, mut bytes: &[u8]) {
        let now = self.at(self.now_us);
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let flight = &mut task.flights[at];
        if flight.ended {
            return;
        }
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
        if let Some(watch) = flight.watch.take() {
            watch.answered();
        }
        self.step(id);
    }

    fn failed(&mut self, id: usize, at: usize, failure: Failure) {
        let now = self.at(self.now_us);
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let flight = &mut task.flights[at];
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

    /// Holds what an operation told against what is known of its key.
    fn judge(&mut self, task: &Task, outcome: Outcome) {
        let (key, now) = (task.key, self.now_us);
        let took = now - task.begun;
        let limit = self.clients[task.client].options.request_timeout;
        assert!(took <= limit.as_micros() as u64, "took {took} us");
        let found = match outcome {
            Outcome::Wrote(result) => {
                self.verdict.writes += 1;
                let written = self.history[key].last_mut().expect("it was begun");
                match result {
                    Ok(()) => {
                        written.acknowledged = Some(now);
                        self.thin[key] = false;
                    }
                    Err(error) => self.err(task, &error),
                }
                return;
            }
            Outcome::Found(Err(error)) => {
                self.verdict.reads += 1;
                return self.err(task, &error);
            }
            Outcome::Found(Ok(found)) => found,
        };
        self.verdict.reads += 1;
        let number = match &found {
            None => None,
            Some(text) => match names().values[key].iter().position(|value| value == text) {
                Some(number) => Some(number),
                None => {
                    self.verdict.wrong_key += 1;
                    let story = format!("{} is {text}", names().keys[key]);
                    self.verdict.stories.entry("wrong key").or_insert(story);
                    return;
                }
            },
        };
        let own = key % self.clients.len() == task.client;
        let since = task
            .begun
            .saturating_sub(if own { 0 } else { self.grace_us });
        let history = &self.history[key];
        let sure = history
            .iter()
            .rposition(|one| one.acknowledged.is_some_and(|at| at <= since));
        let last = sure.and_then(|sure| history[sure].value);
        let later = &history[sure.map_or(0, |sure| sure + 1)..];
        let later = later.iter().filter(|one| one.begun <= now);
        let unsure = later.clone().any(|one| one.acknowledged.is_none());
        if number == last || later.clone().any(|one| one.value == number) {
            return;
        }
        let tale = |history: &[Written]| {
            let from = history.len().saturating_sub(4);
            format!(
                "{} us: client {} reads {} begun {} us: {found:?}, last {last:?} of {:?}",
                now,
                task.client,
                names().keys[key],
                task.begun,
                &history[from..]
            )
        };
        let kind = match (number, last) {
            // What was not acknowledged is deleted everywhere, later or sooner.
            (None, _) if self.may_lose || unsure || self.thin[key] => return,
            (None, _) => {
                self.verdict.lost += 1;
                "lost"
            }
            // What was there within the moment before, by a repair that is not confirmed yet.
            (Some(_), _) if self.was_deleted_lately(key, number, task.begun) => {
                self.verdict.moments += 1;
                return;
            }
            (_, Some(_)) if own => {
                self.verdict.own_stale += 1;
                "own stale"
            }
            (_, None) if own => {
                self.verdict.own_back += 1;
                "own back"
            }
            (_, Some(_)) => {
                self.verdict.others_stale += 1;
                "other's stale"
            }
            (_, None) => {
                self.verdict.others_back += 1;
                "other's back"
            }
        };
        let story = tale(&self.history[key]);
        self.verdict.stories.entry(kind).or_insert(story);
    }

    /// True if `number` was deleted, and that acknowledged, within the moment before `begun`.
    fn was_deleted_lately(&self, key: usize, number: Option<usize>, begun: u64) -> bool {
        let history = &self.history[key];
        let later = history.iter().skip(number.map_or(0, |number| number + 1));
        let ended = later.clone().find(|one| one.acknowledged.is_some());
        ended.is_some_and(|one| {
            let at = one.acknowledged.expect("just seen");
            one.value.is_none() && at + self.moment_us > begun
        })
    }

    fn err(&mut self, task: &Task, error: &Error) {
        self.verdict.errors += 1;
        let story = format!(
            "{} us: {:?} of {}: {error}",
            self.now_us, task.deed, task.key
        );
        self.verdict.stories.entry("error").or_insert(story);
    }
}

fn node_name(node: usize) -> Node {
    Node::new(format!("node{node}"), 11211)
}

fn node_number(name: &str) -> usize {
    let host = name.split(':').next().expect("a name");
    host["node".len()..].parse().expect("a number")
}
