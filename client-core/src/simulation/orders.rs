//! A few operations on one key, their messages carried out in orders of chance: each message that is under way may be the next.
//!
//! ```text
//!  one client deletes the key  ---.
//!  others read it, or add it   ---+--> messages under way --any of them--> its node, or its operation --> more messages
//!                                                 '- slow ones wait for whole chains of others
//! ```
//!
//! The other simulations draw how long each message takes, so that what needs several unlikely orders at once hardly ever comes. Here
//! such orders are what is tried. Nothing fails; time passes only where nothing else is left, and by a few milliseconds. When all
//! is over, and what was to live for a moment is gone, the nodes hold what they are promised to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::EPOCH_S;
use super::deeds::{self, Deed, Job, LOCKS, Outcome, REGISTERS, names};
use super::node::{Item, SimulatedNode};
use crate::Todo;
use crate::link::Link;
use crate::node::Node;
use crate::operation::Context;
use crate::options::{ClientOptions, Reads};
use crate::request::NEXT_TAG;
use crate::routing::Ring;
use crate::unawaited::Unawaited;

/// Milliseconds that an order may take: no attempt fails within it.
const TIME_MS: u64 = 200;

/// What is done, and by which clients.
struct Case {
    nodes: usize,
    copies: usize,
    /// Nodes are memcached before 1.6.27.
    is_old: bool,
    /// By client.
    deeds: Vec<Vec<Deed>>,
}

struct Message {
    task: usize,
    flight: usize,
    /// The answer, if it is on its way back.
    answer: Option<Vec<u8>>,
    slow: bool,
}

struct Task {
    client: usize,
    job: Option<Box<dyn Job>>,
    todo: Todo,
    /// Which node, and its link.
    flights: Vec<(usize, u32, bytes::Bytes, Link, Option<Unawaited>)>,
}

struct Orders {
    seed: u64,
    start: Instant,
    now_us: u64,
    nodes: Vec<SimulatedNode>,
    clients: Vec<(Arc<Ring>, Arc<ClientOptions>)>,
    left: Vec<Vec<Deed>>,
    tasks: Vec<Task>,
    messages: Vec<Message>,
    idle_links: Vec<Link>,
    /// What each operation told, as they ended: its client, its deed.
    told: Vec<(usize, Deed, Outcome)>,
    begun: Vec<Option<Deed>>,
    /// Each message is printed.
    told_of: bool,
}

impl Orders {
    fn new(case: &Case, seed: u64) -> Self {
        NEXT_TAG.set(0);
        let list: Vec<Node> = (0..case.nodes)
            .map(|node| Node::new(format!("node{node}"), 11211))
            .collect();
        let mut nodes: Vec<_> = list.iter().map(|_| SimulatedNode::default()).collect();
        nodes.iter_mut().for_each(|node| node.is_old = case.is_old);
        let clients = (0..case.deeds.len() as u64).map(|client| {
            let reads = [Reads::First, Reads::Spread][((seed + client) % 2) as usize];
            let options = ClientOptions::default().copies(case.copies).reads(reads);
            let ring = Ring::new(&list, &options, seed ^ (client << 32));
            (Arc::new(ring), Arc::new(options))
        });
        Orders {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            start: Instant::now(),
            now_us: 0,
            nodes,
            clients: clients.collect(),
            left: case.deeds.clone(),
            tasks: Vec::new(),
            messages: Vec::new(),
            idle_links: Vec::new(),
            told: Vec::new(),
            begun: vec![None; case.deeds.len()],
            told_of: std::env::var_os("KETCH_SIM_TRACE").is_some(),
        }
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % below
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.now_us)
    }

    /// The nodes that the first client has the key on, the one that decides first.
    fn homes(&self, key: usize) -> Vec<usize> {
        let (ring, options) = &self.clients[0];
        let writers = ring.writers(names().keys[key].as_bytes(), self.now(), options);
        writers.iter().collect()
    }

    /// All of the key's copies hold this, or `some`, by chance.
    fn put(&mut self, key: usize, value: &str, some: bool) {
        let homes = self.homes(key);
        let all = (1 << homes.len()) - 1;
        let which = if some { 1 + self.chance(all) } else { all };
        for (at, home) in homes.into_iter().enumerate() {
            if which >> at & 1 == 1 {
                let node = &mut self.nodes[home];
                node.cas += 1;
                let item = Item {
                    value: value.into(),
                    flags: 0,
                    expires_at: 0,
                    cas: node.cas,
                    won: false,
                };
                node.items.insert(names().keys[key].as_bytes().into(), item);
            }
        }
    }

    /// The clients learn what they ask nodes first.
    fn acquaint(&mut self) {
        let left = std::mem::take(&mut self.left);
        let elsewhere = REGISTERS.end - 1;
        self.left = vec![vec![Deed::Get(elsewhere)]; left.len()];
        while self.go_on() {}
        self.told.clear();
        self.left = left;
    }

    /// One step of one operation; false when all is over.
    fn go_on(&mut self) -> bool {
        let idle = |client: &usize| self.begun[*client].is_none() && !self.left[*client].is_empty();
        let idle: Vec<usize> = (0..self.clients.len()).filter(idle).collect();
        let count = (idle.len() + self.messages.len()) as u64;
        if (count == 0 || self.chance(24) == 0) && self.wake() {
            return true;
        }
        if count == 0 {
            return false;
        }
        let at = self.chance(count) as usize;
        if at < idle.len() {
            self.begin(idle[at]);
            return true;
        }
        let fast: Vec<usize> = (0..self.messages.len())
            .filter(|&at| !self.messages[at].slow)
            .collect();
        let at = match fast.len() as u64 {
            count if count > 0 && self.chance(12) > 0 => fast[self.chance(count) as usize],
            _ => self.chance(self.messages.len() as u64) as usize,
        };
        self.now_us += 1;
        let message = self.messages.swap_remove(at);
        self.carry(message);
        true
    }

    /// Lets time pass until the next operation asked to be woken; false if none did, for the time that there is.
    fn wake(&mut self) -> bool {
        let wake = |task: &Task| task.job.as_ref().and(task.todo.wake_at);
        let next = self.tasks.iter().enumerate();
        let next = next.filter_map(|(at, task)| Some((wake(task)?, at))).min();
        let Some((time, at)) = next else {
            return false;
        };
        let since = time.saturating_duration_since(self.start);
        if since > Duration::from_millis(TIME_MS) {
            return false;
        }
        self.now_us = self.now_us.max(since.as_nanos().div_ceil(1000) as u64);
        self.step(at);
        true
    }

    fn begin(&mut self, client: usize) {
        let deed = self.left[client].remove(0);
        let (ring, options) = self.clients[client].clone();
        let context = Context::new(ring, options, self.now(), EPOCH_S);
        let job = Some(deeds::begin(context, client, &deed));
        self.begun[client] = Some(deed);
        self.tasks.push(Task {
            client,
            job,
            todo: Todo::default(),
            flights: Vec::new(),
        });
        self.step(self.tasks.len() - 1);
    }

    fn step(&mut self, at: usize) {
        let now = self.now();
        let task = &mut self.tasks[at];
        let Some(job) = &mut task.job else { return };
        job.operation().step(now, &mut task.todo);
        for exchange in std::mem::take(&mut task.todo.send) {
            let mut link = self.idle_links.pop().unwrap_or_else(|| Link::new(None));
            link.send(exchange.request.clone(), exchange.expect);
            link.sent(exchange.request.len());
            let flight = self.tasks[at].flights.len();
            let flown = (exchange.node, exchange.id, exchange.request, link, None);
            self.tasks[at].flights.push(flown);
            let slow = self.chance(4) == 0;
            self.messages.push(Message {
                task: at,
                flight,
                answer: None,
                slow,
            });
        }
        let task = &mut self.tasks[at];
        if task.todo.done {
            let mut job = task.job.take().expect("it runs");
            for (id, watch) in job.operation().abandon(now) {
                let flight = task.flights.iter_mut().find(|flight| flight.1 == id);
                flight.expect("what is watched is under way").4 = Some(watch);
            }
            let deed = self.begun[task.client].take().expect("it was begun");
            self.told.push((task.client, deed, job.finish()));
        }
    }

    fn carry(&mut self, message: Message) {
        let Message {
            task: at, flight, ..
        } = message;
        let (now, now_s) = (self.now(), EPOCH_S + self.now_us / 1_000_000);
        let slow = self.chance(4) == 0;
        let task = &mut self.tasks[at];
        let (node, id, request, link, watch) = &mut task.flights[flight];
        let Some(answer) = message.answer else {
            let answer = self.nodes[*node].execute(request, now_s);
            if self.told_of {
                let answer = String::from_utf8_lossy(&answer);
                println!("client {} node {node}: {request:?} {answer:?}", task.client);
            }
            self.messages.push(Message {
                answer: Some(answer),
                slow,
                ..message
            });
            return;
        };
        let space = link.space();
        space[..answer.len()].copy_from_slice(&answer);
        link.filled(answer.len());
        while let Some((reply, last)) = link.next_reply().expect("nodes answer well") {
            if let Some(job) = &mut task.job {
                let told = job.operation().on_reply(*id, reply, last, now);
                told.expect("nodes answer what was asked");
            }
            if last {
                break;
            }
        }
        if link.settled() && link.reusable() {
            self.idle_links
                .push(std::mem::replace(link, Link::new(None)));
        }
        if let Some(watch) = watch.take() {
            watch.answered();
        }
        self.step(at);
    }

    /// What each copy of the key holds when all is over, by client's word for it.
    fn held(&mut self, key: usize) -> Vec<Option<String>> {
        let later = EPOCH_S + 60;
        let key = names().keys[key].as_bytes();
        let text = |item: &mut Item| String::from_utf8(item.value.clone()).expect("text");
        let nodes = self.nodes.iter_mut();
        nodes.map(|node| node.live(key, later).map(text)).collect()
    }
}

/// Runs many orders of a case, from what `begin` leaves; none may end otherwise than `end` says.
fn all(case: &Case, begin: impl Fn(&mut Orders), end: impl Fn(&mut Orders) -> Result<(), String>) {
    let count = std::env::var("KETCH_SIM_SEEDS").ok();
    let count = count.and_then(|count| count.parse().ok()).unwrap_or(20) * 50;
    let only = std::env::var("KETCH_SEED").ok();
    let only: Option<u64> = only.and_then(|seed| seed.parse().ok());
    let mut bad = 0;
    for seed in only.map_or(1..count + 1, |seed| seed..seed + 1) {
        let mut orders = Orders::new(case, seed);
        orders.acquaint();
        begin(&mut orders);
        while orders.go_on() {}
        if let Err(story) = end(&mut orders) {
            bad += 1;
            if bad <= 3 {
                println!("seed {seed}: {story}");
            }
        }
    }
    assert_eq!(bad, 0, "of {count} orders, old: {}", case.is_old);
}

/// A value that was deleted is gone from all copies, whatever reads have given to which of them meanwhile.
#[test]
fn what_is_deleted_while_it_is_repaired_is_gone() {
    let key = REGISTERS.start;
    for (copies, is_old) in [(2, false), (3, false), (2, true), (3, true)] {
        let read = || vec![Deed::Get(key); 4];
        let case = Case {
            nodes: 3,
            copies,
            is_old,
            deeds: vec![vec![Deed::Delete(key)], read(), read(), read()],
        };
        let begin = |orders: &mut Orders| orders.put(key, "key0:0", true);
        all(&case, begin, |orders| {
            let held = orders.held(key);
            match held.iter().all(Option::is_none) {
                true => Ok(()),
                false => Err(format!("{held:?} after {:?}", orders.told)),
            }
        });
    }
}

/// A lock that is released and taken by another at that moment stays taken, whatever reads have given to which copies.
#[test]
fn a_lock_that_is_taken_while_it_is_released_stays_taken() {
    let key = LOCKS.start;
    for (copies, is_old) in [(2, false), (3, false), (2, true), (3, true)] {
        let add = || vec![Deed::Lock(key); 4];
        let case = Case {
            nodes: 3,
            copies,
            is_old,
            deeds: vec![
                vec![Deed::Unlock(key)],
                add(),
                add(),
                vec![Deed::Get(key); 4],
            ],
        };
        let begin = |orders: &mut Orders| orders.put(key, "of0", false);
        all(&case, begin, |orders| {
            let taken = |(client, deed, outcome): &(usize, Deed, Outcome)| {
                let done = matches!(outcome, Outcome::Wrote(wrote) if wrote[0] == Ok(true));
                (matches!(deed, Deed::Lock(_)) && done).then_some(*client)
            };
            let holders: Vec<usize> = orders.told.iter().filter_map(taken).collect();
            let held = orders.held(key);
            let mut copies = held.iter().flatten();
            let right = match holders[..] {
                [] => copies.next().is_none(),
                [holder] => {
                    let name = format!("of{holder}");
                    copies.clone().count() > 0 && copies.all(|copy| *copy == name)
                }
                _ => false,
            };
            match right {
                true => Ok(()),
                false => Err(format!("{held:?} for {holders:?} after {:?}", orders.told)),
            }
        });
    }
}
