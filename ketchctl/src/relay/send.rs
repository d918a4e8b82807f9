//! The threads that write: each takes a batch of keys of one node of the target, and carries it out.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::{Cas, Error, Node};

use super::follow::MARKER;
use super::queue::{Action, Job};
use super::{Relay, To};
use crate::audit::fnv;
use crate::copy::batch::{Batch, Limit, Listed, MAX, put_command};
use crate::copy::source::{Found, Source};

/// Keys of a batch: a delete is a line. Values are read in batches of `copy`.
const BATCH: usize = 2000;
const VALUES_BATCH: usize = 250;
/// How long a thread sleeps at most when there is nothing to do.
const LOOK: Duration = Duration::from_millis(200);

/// Carries out batches until the relay is over.
pub fn run(relay: &Relay, to: &To) {
    let (mut sources, mut nodes) = (HashMap::new(), HashMap::new());
    if to.copies == 1 && !relay.settings.carries.values {
        open(relay, to, &mut nodes);
    }
    while let Some((lane, node, jobs)) = next(relay) {
        if let Some(pace) = &to.pace {
            let now = Instant::now();
            let mut pace = pace
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let start = pace.book(now, jobs.len(), 0);
            drop(pace);
            thread::sleep(start.saturating_duration_since(now));
        }
        let results = carry(relay, to, (&mut sources, &mut nodes), node.as_ref(), &jobs);
        if relay.settings.markers {
            let done = jobs.iter().zip(&results);
            let done =
                done.filter(|(job, result)| job.cas != 0 && matches!(result, Outcome::Done(_)));
            take_markers(relay, to, &mut nodes, done.map(|(job, _)| job));
        }
        let now = Instant::now();
        let mut worked = true;
        let (mut deleted, mut stored, mut failed, mut slowest) = (0, 0, 0, Duration::ZERO);
        let mut state = relay.lock();
        for (job, result) in jobs.iter().zip(results) {
            match result {
                Outcome::Done(did) => {
                    stored += u64::from(did == Did::Stored);
                    deleted += u64::from(did == Did::Deleted);
                    if let Some(done) = state.queue.done(job) {
                        slowest = slowest.max(now.saturating_duration_since(done.since));
                        if done.is_doubted && relay.settings.carries.values {
                            state.doubt(job.key.clone(), job.action, now);
                        }
                    }
                }
                Outcome::Instead => state.queue.failed(job, Some(Action::Delete)),
                Outcome::Failed => {
                    failed += 1;
                    worked = false;
                    state.queue.failed(job, None);
                }
            }
        }
        state.queue.landed(lane, worked, now);
        drop(state);
        relay.work.notify_one();
        let counts = &relay.counts;
        counts.deleted.fetch_add(deleted, Relaxed);
        counts.stored.fetch_add(stored, Relaxed);
        counts.failed.fetch_add(failed, Relaxed);
        counts
            .slowest_us
            .fetch_max(slowest.as_micros() as u64, Relaxed);
    }
}

/// Connects to the target's nodes before there is anything to send: on a long line the first keys would be late by the round trips that
/// this takes. Where one is not there, the rest is left to when it is needed.
fn open(relay: &Relay, to: &To, nodes: &mut HashMap<String, Source>) {
    let targets = relay.lock().routes.nodes.clone();
    for node in targets {
        match Source::connect(&node, &to.access, false) {
            Ok(connection) => nodes.insert(node.address(), connection),
            Err(_) => break,
        };
    }
}

/// The next batch, with its lane and the node that it is for. One thread at a time waits for the next to fall due; the others wait until there is something for them.
fn next(relay: &Relay) -> Option<(usize, Option<Node>, Vec<Job>)> {
    let most = match relay.settings.carries.values {
        true => VALUES_BATCH,
        false => BATCH,
    };
    let most = match &relay.settings.rate {
        Some(rate) => most.min((rate / 10.0).max(1.0) as usize),
        None => most,
    };
    let mut state = relay.lock();
    let mut leads = false;
    loop {
        if leads {
            state.has_leader = false;
        }
        if relay.is_over() {
            return None;
        }
        let now = Instant::now();
        if !state.held
            && let Some((lane, jobs)) = state.queue.take(most, now)
        {
            let node = state.routes.node_of(lane).cloned();
            drop(state);
            if leads {
                relay.work.notify_one();
            }
            return Some((lane, node, jobs));
        }
        leads = !state.has_leader;
        let wait = match (leads, state.queue.ready_at()) {
            (true, Some(at)) if !state.held => at.saturating_duration_since(now).min(LOOK),
            _ => LOOK,
        };
        state.has_leader = true;
        let waited = relay.work.wait_timeout(state, wait);
        state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
    }
}

/// What was done in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    Deleted,
    Stored,
    /// It is as it should be.
    Nothing,
}

/// What became of a key.
enum Outcome {
    Done(Did),
    /// The value cannot be stored there: the old one must go.
    Instead,
    /// Later.
    Failed,
}

/// Carries out a batch, for `node` as long as keys have no copies; the outcomes are in its order.
fn carry(
    relay: &Relay,
    to: &To,
    (sources, nodes): (&mut HashMap<u32, Source>, &mut HashMap<String, Source>),
    node: Option<&Node>,
    jobs: &[Job],
) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = jobs.iter().map(|_| Outcome::Failed).collect();
    let mut deletes: Vec<usize> = Vec::new();
    let mut by_source: HashMap<u32, Vec<usize>> = HashMap::new();
    let mut crossed: HashMap<u32, Vec<usize>> = HashMap::new();
    for (at, job) in jobs.iter().enumerate() {
        match job.action {
            Action::Delete => deletes.push(at),
            Action::Value(source) => by_source.entry(source).or_default().push(at),
            Action::Settle(source) => crossed.entry(source).or_default().push(at),
        }
    }
    for (source, places) in crossed {
        let found = read(relay, to, sources, source, jobs, places);
        settle(relay, to, jobs, &found, &mut outcomes);
    }
    let mut items: Vec<(usize, Found)> = Vec::new();
    for (source, places) in by_source {
        for (at, found) in read(relay, to, sources, source, jobs, places) {
            match found {
                Found::Item { .. } => items.push((at, found)),
                // What is gone there, or is to be computed anew, must not be believed here.
                Found::Gone | Found::Unfinished | Found::Refused(_) => deletes.push(at),
            }
        }
    }
    if !items.is_empty() {
        let entries = items.iter().filter_map(|(at, found)| match found {
            Found::Item {
                value, flags, ttl, ..
            } => Some((&jobs[*at].key, (value, *flags), *ttl)),
            _ => None,
        });
        let results = to.client.fill_multi(entries, true);
        for ((at, _), result) in items.iter().zip(results) {
            outcomes[*at] = match result {
                Ok(_) => Outcome::Done(Did::Stored),
                Err(error) => {
                    relay.tell_error(&error);
                    match error.is_unavailable() {
                        true => Outcome::Failed,
                        false => Outcome::Instead,
                    }
                }
            };
        }
    }
    if let Some(node) = node
        && to.copies == 1
        && !deletes.is_empty()
    {
        let keys = deletes.iter().map(|&at| &*jobs[at].key);
        match delete_at(relay, to, nodes, node, keys) {
            Ok(0) => {
                for at in deletes.drain(..) {
                    outcomes[at] = Outcome::Done(Did::Deleted);
                }
            }
            // The client finds out which they are.
            Ok(_) => {}
            Err(error) => {
                relay.tell(&node.address(), &error.to_string());
                deletes.clear();
            }
        }
    }
    if !deletes.is_empty() {
        let keys: Vec<_> = deletes.iter().map(|&at| jobs[at].key.clone()).collect();
        for (at, result) in deletes.into_iter().zip(to.client.delete_multi(&keys)) {
            outcomes[at] = match result {
                Ok(_) => Outcome::Done(Did::Deleted),
                // No node can have a key that cannot be sent.
                Err(error @ Error::Key(_)) => {
                    relay.tell_error(&error);
                    relay.counts.refused.fetch_add(1, Relaxed);
                    Outcome::Done(Did::Deleted)
                }
                Err(error) => {
                    relay.tell_error(&error);
                    Outcome::Failed
                }
            };
        }
    }
    outcomes
}

/// Both regions have written these keys, and each has, or may have, the other's value. One of the two stays, the same for the relay the
/// other way: which is by chance, as neither was there first. Where the target's stays, that relay carries it over. What is written
/// meanwhile is an event of its own.
fn settle(
    relay: &Relay,
    to: &To,
    jobs: &[Job],
    found: &[(usize, Found)],
    outcomes: &mut [Outcome],
) {
    let keys: Vec<_> = found.iter().map(|(at, _)| jobs[*at].key.clone()).collect();
    for ((at, ours), theirs) in found.iter().zip(to.client.gets_multi(&keys)) {
        let key = &jobs[*at].key;
        let settled = match (ours, theirs) {
            (
                Found::Item {
                    value, flags, ttl, ..
                },
                Ok(Some((theirs, unique))),
            ) if rank(value, *flags) > rank(&theirs.value, theirs.flags) => {
                let stored = to.client.cas(key, (value, *flags), unique, *ttl);
                stored.map(|stored| stored == Cas::Stored)
            }
            // It stays as it is, or is gone: then it is missed, and not wrong.
            (_, Ok(_)) => Ok(false),
            (_, Err(error)) => Err(error),
        };
        outcomes[*at] = match settled {
            Ok(true) => Outcome::Done(Did::Stored),
            Ok(false) => Outcome::Done(Did::Nothing),
            Err(error) => {
                relay.tell_error(&error);
                match error.is_unavailable() {
                    true => Outcome::Failed,
                    false => Outcome::Done(Did::Nothing),
                }
            }
        };
    }
}

/// Which of two values stays.
fn rank(value: &[u8], flags: u32) -> (u64, &[u8], u32) {
    (fnv(value), value, flags)
}

/// Deletes the keys at their only node, in one go; gives how many it has refused.
fn delete_at<'k>(
    relay: &Relay,
    to: &To,
    nodes: &mut HashMap<String, Source>,
    node: &Node,
    keys: impl Iterator<Item = &'k [u8]>,
) -> io::Result<usize> {
    let flags = format!("L{} q", relay.settings.origin);
    let mut request = Vec::with_capacity(64 << 10);
    for key in keys {
        put_command(&mut request, "md", key, &flags);
    }
    tell(to, nodes, node, &mut request)
}

/// Tells a node quiet requests that may be carried out twice: a connection that was idle may have been closed meanwhile, and then there
/// is a new one.
fn tell(
    to: &To,
    nodes: &mut HashMap<String, Source>,
    node: &Node,
    request: &mut Vec<u8>,
) -> io::Result<usize> {
    let address = node.address();
    let len = request.len();
    if let Some(mut connection) = nodes.remove(&address) {
        match connection.tell(request) {
            Ok(refused) => {
                nodes.insert(address, connection);
                return Ok(refused);
            }
            // It is there, and does not answer.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(error);
            }
            Err(_) => request.truncate(len),
        }
    }
    let mut connection = Source::connect(node, &to.access, false)?;
    let refused = connection.tell(request)?;
    nodes.insert(address, connection);
    Ok(refused)
}

/// Takes away the markers of changes that are done, as far as they are of these changes: whoever has put one reads here again. Where that
/// fails, a marker ends with its time to live.
fn take_markers<'j>(
    relay: &Relay,
    to: &To,
    nodes: &mut HashMap<String, Source>,
    jobs: impl Iterator<Item = &'j Job>,
) {
    let mut requests: HashMap<String, (Node, Vec<u8>)> = HashMap::new();
    {
        let state = relay.lock();
        for job in jobs {
            let marker = [&job.key, MARKER].concat();
            let flags = format!("C{} L{} q", job.cas, relay.settings.origin);
            for node in state.routes.owners(&marker) {
                let request = requests.entry(node.address());
                let (_, request) = request.or_insert_with(|| (node.clone(), Vec::new()));
                put_command(request, "md", &marker, &flags);
            }
        }
    }
    for (address, (node, mut request)) in requests {
        if let Err(error) = tell(to, nodes, &node, &mut request) {
            relay.tell(&address, &format!("markers stay: {error}"));
        }
    }
}

/// What a source has for some of the jobs, now. Of one that cannot be asked nothing is known: that is as good as gone.
fn read(
    relay: &Relay,
    to: &To,
    sources: &mut HashMap<u32, Source>,
    source: u32,
    jobs: &[Job],
    places: Vec<usize>,
) -> Vec<(usize, Found)> {
    let mut found = Vec::with_capacity(places.len());
    let node = relay.lock().sources[source as usize].node.clone();
    let (mut batch, mut of_batch) = (Batch::default(), Vec::new());
    let limit = Limit {
        items: f64::INFINITY,
        ..MAX
    };
    let mut ask = |batch: &mut Batch, of_batch: &mut Vec<usize>| {
        let (batch, of_batch) = (std::mem::take(batch), std::mem::take(of_batch));
        // A connection that was idle may have been closed meanwhile: then once more on a new one.
        for _ in 0..2 {
            let connection = match sources.remove(&source) {
                Some(connection) => Ok(connection),
                None => Source::connect(&node, &to.from_access, false),
            };
            let answer = connection.and_then(|mut connection| {
                let answer = connection.fetch(&batch)?;
                sources.insert(source, connection);
                Ok(answer)
            });
            match answer {
                Ok(answer) => {
                    found.extend(of_batch.iter().copied().zip(answer));
                    return;
                }
                Err(error) => relay.tell(&node.address(), &error.to_string()),
            }
        }
        found.extend(of_batch.into_iter().map(|at| (at, Found::Gone)));
    };
    for at in places {
        let listed = Listed {
            key: jobs[at].key.to_vec(),
            size: 0,
            accessed_unix_s: 0,
            fetched: false,
        };
        if let Err(listed) = batch.push(listed, limit) {
            ask(&mut batch, &mut of_batch);
            let pushed = batch.push(listed, limit);
            pushed.expect("an empty batch takes any");
        }
        of_batch.push(at);
    }
    ask(&mut batch, &mut of_batch);
    found
}
