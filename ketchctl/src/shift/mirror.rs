//! The threads that make new owners of keys have what the old ones have.
//!
//! ```text
//!  Job::Key ----by hash----> worker: what the source has now    --stored by us, and changed since--> ms C(ours)
//!                                                               --not stored by us----------------> ms, by add or set
//!                                                               --gone, or stale------------------> md C(ours)
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::Given;
use super::plan::{Plan, name};
use crate::copy::batch::{Batch, Limit, Listed, put_command};
use crate::copy::pace::Pace;
use crate::copy::source::{Found, Source};
use crate::copy::tally::Tally;
use crate::copy::transfer::plain;

/// Keys that wait for a worker.
const WAITING: usize = 4096;
/// How often a batch is tried, each time on new connections, and the pause between, longer each time.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// The CAS unique of what is not ours.
const NOT_OURS: u64 = 0;

/// What a worker is to do.
pub enum Job {
    /// Look at a key of a source again.
    Key {
        source: usize,
        listed: Listed,
        why: Why,
    },
    /// This walk begins.
    Begin(u32),
    /// Look at all keys again that were stored and not met on this walk.
    Sweep(u32),
    /// Delete what was stored.
    TakeBack,
    /// Delete at the sources what has moved.
    Clean,
    /// Say that all before is done.
    Done(SyncSender<()>),
}

/// Why a key is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was met on the first walk.
    Walked,
    /// It may have changed at its source.
    Changed,
    /// A client has deleted it where it will live: those that follow rings do so where keys were before.
    Lost,
}

/// What was done after a key was first stored.
#[derive(Debug, Default)]
pub struct Changes {
    pub changed: AtomicU64,
    pub gone: AtomicU64,
    pub taken_back: AtomicU64,
    pub cleaned: AtomicU64,
}

/// What the workers share.
pub struct Mirror<'p> {
    plan: &'p Plan,
    given: &'p Given,
    pace: Mutex<Pace>,
    limit: Limit,
    tally: &'p Tally,
    changes: &'p Changes,
    /// Clients may have written at the new owners: what is there already stays.
    moved: &'p AtomicBool,
    /// What our own changes are marked with.
    pub origin: u16,
}

/// The workers' ears.
pub struct Work {
    workers: Vec<SyncSender<Job>>,
    hasher: RandomState,
    /// What our own changes are marked with.
    pub origin: u16,
}

impl Work {
    /// Gives a key to its worker.
    pub fn key(&self, source: usize, listed: Listed, why: Why) {
        let at = self.hasher.hash_one(&listed.key) as usize % self.workers.len();
        let job = Job::Key {
            source,
            listed,
            why,
        };
        // A worker is there as long as there is work.
        let _ = self.workers[at].send(job);
    }

    /// Tells all workers something.
    pub fn all(&self, job: impl Fn() -> Job) {
        for worker in &self.workers {
            let _ = worker.send(job());
        }
    }

    /// Waits until all that was given is done.
    pub fn wait(&self) {
        let (done, all_done) = sync_channel(self.workers.len());
        self.all(|| Job::Done(done.clone()));
        drop(done);
        while all_done.recv().is_ok() {}
    }
}

impl<'p> Mirror<'p> {
    pub fn new(
        plan: &'p Plan,
        given: &'p Given,
        pace: Pace,
        tally: &'p Tally,
        changes: &'p Changes,
        moved: &'p AtomicBool,
    ) -> Self {
        let random = RandomState::new().hash_one(0);
        Mirror {
            limit: pace.batch_limit(),
            pace: Mutex::new(pace),
            origin: (random % u64::from(u16::MAX)) as u16 + 1,
            plan,
            given,
            tally,
            changes,
            moved,
        }
    }

    /// Starts the workers, which end when the work is dropped.
    pub fn begin<'s, 'e: 's>(&'e self, scope: &'s Scope<'s, 'e>) -> Work {
        let worker = |_| {
            let (sender, jobs) = sync_channel(WAITING);
            scope.spawn(move || Worker::new(self).run(&jobs));
            sender
        };
        Work {
            workers: (0..self.given.workers).map(worker).collect(),
            hasher: RandomState::new(),
            origin: self.origin,
        }
    }
}

/// What we have stored of a key.
struct Held {
    source: usize,
    /// Its CAS unique at the source.
    cas: u64,
    /// Where it was stored, and its CAS unique there.
    copies: Vec<(usize, u64)>,
    /// The walk that it was met on last.
    walk: u32,
}

struct Worker<'m> {
    mirror: &'m Mirror<'m>,
    connections: HashMap<usize, Source>,
    held: HashMap<Vec<u8>, Held>,
    walk: u32,
}

/// A key and what is to become of it at a node.
struct Put {
    key: usize,
    node: usize,
    /// Ours there, if it is.
    ours: Option<u64>,
    /// What is there already stays.
    adds: bool,
    /// The first time.
    is_new: bool,
}

impl<'m> Worker<'m> {
    fn new(mirror: &'m Mirror<'m>) -> Self {
        Worker {
            mirror,
            connections: HashMap::new(),
            held: HashMap::new(),
            walk: 0,
        }
    }

    fn run(&mut self, jobs: &Receiver<Job>) {
        let mut next = jobs.recv().ok();
        while let Some(job) = next.take() {
            match job {
                Job::Key {
                    source,
                    listed,
                    why,
                } => {
                    let mut batch = Batch::default();
                    let mut reasons = vec![why];
                    let pushed = batch.push(listed, self.mirror.limit);
                    pushed.expect("an empty batch takes any");
                    // What else waits, as far as it is of the same kind.
                    while let Ok(job) = jobs.try_recv() {
                        match job {
                            Job::Key {
                                source: other,
                                listed,
                                why,
                            } if other == source && !batch.keys.contains(&listed.key) => {
                                match batch.push(listed, self.mirror.limit) {
                                    Ok(()) => reasons.push(why),
                                    Err(listed) => {
                                        next = Some(Job::Key {
                                            source,
                                            listed,
                                            why,
                                        });
                                        break;
                                    }
                                }
                            }
                            other => {
                                next = Some(other);
                                break;
                            }
                        }
                    }
                    self.pace(&batch);
                    self.sync(source, &batch, &reasons);
                }
                Job::Begin(walk) => self.walk = walk,
                Job::Sweep(walk) => self.again(|held| held.walk < walk),
                Job::TakeBack => self.take_back(),
                Job::Clean => self.clean(),
                Job::Done(done) => {
                    let _ = done.send(());
                }
            }
            if next.is_none() {
                next = jobs.recv().ok();
            }
        }
    }

    fn pace(&self, batch: &Batch) {
        let now = Instant::now();
        let mut pace = self
            .mirror
            .pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let start = pace.book(now, batch.keys.len(), batch.bytes);
        drop(pace);
        thread::sleep(start.saturating_duration_since(now));
    }

    /// Looks at the keys again that were stored, and of which `wanted` is true.
    fn again(&mut self, wanted: impl Fn(&Held) -> bool) {
        let mut of_source: HashMap<usize, Vec<Vec<u8>>> = HashMap::new();
        for (key, held) in &self.held {
            if wanted(held) {
                of_source.entry(held.source).or_default().push(key.clone());
            }
        }
        for (source, keys) in of_source {
            let mut batch = Batch::default();
            for key in keys {
                if let Err(listed) = batch.push(Listed::named(key), self.mirror.limit) {
                    // The batch is full: this key begins the next one.
                    self.sync(source, &batch, &[]);
                    batch = Batch::default();
                    let pushed = batch.push(listed, self.mirror.limit);
                    pushed.expect("an empty batch takes any");
                }
            }
            self.sync(source, &batch, &[]);
        }
    }

    /// Does something with the connection to a node, on a new one if the old one fails.
    fn with<T>(
        &mut self,
        node: usize,
        mut what: impl FnMut(&mut Source) -> io::Result<T>,
    ) -> io::Result<T> {
        let mirror = self.mirror;
        let mut attempt = 1;
        loop {
            let connection = match self.connections.remove(&node) {
                Some(connection) => Ok(connection),
                None => Source::connect(&mirror.plan.nodes[node], &mirror.given.access, false)
                    .map(|source| source.mark(mirror.origin)),
            };
            let result = connection.and_then(|mut connection| {
                let done = what(&mut connection)?;
                self.connections.insert(node, connection);
                Ok(done)
            });
            match result {
                Err(_) if attempt < ATTEMPTS => {
                    thread::sleep(PAUSE * attempt);
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn fail(&self, node: usize, count: usize, error: &io::Error) {
        let why = format!("{}: {}", name(&self.mirror.plan.nodes[node]), plain(error));
        self.mirror.tally.fail(count, why);
    }

    /// Makes the new owners of these keys have what their source has.
    fn sync(&mut self, source: usize, batch: &Batch, reasons: &[Why]) {
        let mirror = self.mirror;
        let found = match self.with(source, |connection| connection.fetch(batch)) {
            Ok(found) => found,
            Err(error) => return self.fail(source, batch.keys.len(), &error),
        };
        let mut puts: HashMap<usize, Vec<Put>> = HashMap::new();
        let mut deletes = Vec::new();
        for (at, (key, found)) in batch.keys.iter().zip(&found).enumerate() {
            let was_walked = reasons.get(at) == Some(&Why::Walked);
            if reasons.get(at) == Some(&Why::Lost) {
                match self.held.get_mut(key) {
                    // Once clients look for it there, one that deletes it there means it.
                    Some(held) if !mirror.moved.load(Relaxed) => {
                        if matches!(found, Found::Item { .. }) {
                            held.copies.clear();
                        }
                    }
                    _ => continue,
                }
            }
            let first = !self.held.contains_key(key);
            let uncounted = |counter: &AtomicU64| {
                if was_walked && first {
                    Tally::add(counter, 1);
                }
            };
            match found {
                Found::Item { cas, .. } => {
                    let held = self.held.entry(key.clone()).or_insert_with(|| Held {
                        source,
                        cas: 0,
                        copies: Vec::new(),
                        walk: 0,
                    });
                    held.walk = self.walk;
                    if held.cas == *cas && !held.copies.is_empty() {
                        continue;
                    }
                    held.cas = *cas;
                    let moved = mirror.moved.load(Relaxed);
                    for node in mirror.plan.targets(source, key) {
                        let ours = held.copies.iter().find(|(at, _)| *at == node);
                        let ours = ours.map(|(_, cas)| *cas);
                        let is_new = first && ours.is_none();
                        // Before the ring changes nobody else has a say there.
                        let ours = ours.filter(|_| moved);
                        if ours != Some(NOT_OURS) {
                            let put = Put {
                                key: at,
                                node,
                                ours,
                                adds: moved,
                                is_new,
                            };
                            puts.entry(node).or_default().push(put);
                        }
                    }
                }
                Found::Gone => {
                    uncounted(&mirror.tally.gone);
                    deletes.push(key.clone());
                }
                Found::Unfinished => {
                    uncounted(&mirror.tally.unfinished);
                    deletes.push(key.clone());
                }
                Found::Refused(line) => {
                    mirror
                        .tally
                        .fail(1, format!("a source refuses a key: {line}"));
                }
            }
        }
        for (node, puts) in puts {
            self.put(node, batch, &found, &puts);
        }
        self.delete(&deletes);
    }

    /// Stores what was found at one node.
    fn put(&mut self, node: usize, batch: &Batch, found: &[Found], puts: &[Put]) {
        let mirror = self.mirror;
        let mut request = Vec::new();
        for put in puts {
            let Found::Item {
                value, flags, ttl, ..
            } = &found[put.key]
            else {
                continue;
            };
            // A time to live of 0 is for ever.
            let ttl = ttl.map_or(0, |ttl| ttl.as_secs().max(1));
            let how = match put.ours {
                Some(cas) => format!(" C{cas}"),
                None if put.adds => " ME".to_owned(),
                None => String::new(),
            };
            let flags = format!("{} T{ttl} F{flags} c{how} L{}", value.len(), mirror.origin);
            put_command(&mut request, "ms", &batch.keys[put.key], &flags);
            request.extend_from_slice(value);
            request.extend_from_slice(b"\r\n");
        }
        let replies = self.with(node, |connection| connection.round(&request, puts.len()));
        let replies = match replies {
            Ok(replies) => replies,
            Err(error) => return self.fail(node, puts.len(), &error),
        };
        let mut again = Vec::new();
        for (put, reply) in puts.iter().zip(&replies) {
            if reply.starts_with("NF") {
                // Its source has changed, and ours is gone: a client that goes by the ring before has deleted it there.
                again.push(Put { ours: None, ..*put });
                continue;
            }
            let key = &batch.keys[put.key];
            let len = match &found[put.key] {
                Found::Item { value, .. } => value.len(),
                _ => 0,
            };
            let cas = match reply.split(' ').next() {
                Some("HD") => {
                    match put.is_new {
                        true => {
                            Tally::add(&mirror.tally.copied, 1);
                            Tally::add(&mirror.tally.bytes, len);
                        }
                        false => Tally::add(&mirror.changes.changed, 1),
                    }
                    let cas = reply.split(' ').find_map(|word| word.strip_prefix('c'));
                    cas.and_then(|cas| cas.parse().ok()).unwrap_or(NOT_OURS)
                }
                Some("NS" | "EX") => {
                    if put.is_new {
                        Tally::add(&mirror.tally.present, 1);
                    }
                    NOT_OURS
                }
                _ => {
                    let node = name(&mirror.plan.nodes[put.node]);
                    mirror.tally.fail(1, format!("{node}: {reply}"));
                    NOT_OURS
                }
            };
            if let Some(held) = self.held.get_mut(key) {
                held.copies.retain(|(at, _)| *at != put.node);
                held.copies.push((put.node, cas));
            }
        }
        if !again.is_empty() {
            self.put(node, batch, found, &again);
        }
    }

    /// Deletes copies that are ours; how many there were.
    fn delete_copies(&mut self, keys: &[Vec<u8>]) -> usize {
        let mut of_node: HashMap<usize, (Vec<u8>, usize)> = HashMap::new();
        for key in keys {
            let Some(held) = self.held.remove(key) else {
                continue;
            };
            for (node, cas) in held.copies {
                if cas != NOT_OURS {
                    let (request, count) = of_node.entry(node).or_default();
                    let flags = format!("C{cas} L{}", self.mirror.origin);
                    put_command(request, "md", key, &flags);
                    *count += 1;
                }
            }
        }
        self.round_of(of_node)
    }

    /// Sends what deletes, and counts what was deleted.
    fn round_of(&mut self, of_node: HashMap<usize, (Vec<u8>, usize)>) -> usize {
        let mut deleted = 0;
        for (node, (request, count)) in of_node {
            match self.with(node, |connection| connection.round(&request, count)) {
                Ok(replies) => {
                    deleted += replies
                        .iter()
                        .filter(|reply| reply.starts_with("HD"))
                        .count()
                }
                Err(error) => self.fail(node, count, &error),
            }
        }
        deleted
    }

    fn delete(&mut self, keys: &[Vec<u8>]) {
        let deleted = self.delete_copies(keys);
        Tally::add(&self.mirror.changes.gone, deleted);
    }

    fn take_back(&mut self) {
        let keys: Vec<Vec<u8>> = self.held.keys().cloned().collect();
        for keys in keys.chunks(256) {
            let deleted = self.delete_copies(keys);
            Tally::add(&self.mirror.changes.taken_back, deleted);
        }
    }

    /// Deletes at the sources what has not changed there since it was stored elsewhere.
    fn clean(&mut self) {
        let plan = self.mirror.plan;
        let moved: Vec<(usize, Vec<u8>, u64)> = self
            .held
            .iter()
            .filter(|(key, held)| plan.leaves(held.source, key))
            .map(|(key, held)| (held.source, key.clone(), held.cas))
            .collect();
        for moved in moved.chunks(256) {
            let mut of_node: HashMap<usize, (Vec<u8>, usize)> = HashMap::new();
            for (source, key, cas) in moved {
                let (request, count) = of_node.entry(*source).or_default();
                let flags = format!("C{cas} L{}", self.mirror.origin);
                put_command(request, "md", key, &flags);
                *count += 1;
            }
            let deleted = self.round_of(of_node);
            Tally::add(&self.mirror.changes.cleaned, deleted);
        }
    }
}
