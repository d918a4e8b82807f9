//! The threads of an audit: who lists keys, who reads and compares them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use super::compare::{self, Verdict};
use super::places::Places;
use super::result::Tally;
use crate::access::Access;
use crate::copy::batch::{Batch, Limit, Listed, MAX};
use crate::copy::pace::Pace;
use crate::copy::source::{Found, Line, Source};

/// Batches of a lister that wait for a worker.
const WAITING: usize = 4;
/// Threads that read what a lister lists: a round trip to another region takes its time.
const WORKERS: usize = 3;
/// How often a place is asked before its keys count as not read; each time on a new connection.
const FETCHES: u32 = 3;
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long to wait for a node whose crawler is busy, and how often to ask.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// How many keys that differ wait to be looked at again; then they are looked at before more are listed.
const SUSPECTS_MAX: usize = 10_000;
/// How often a key that was written meanwhile is looked at again.
const LOOKS: usize = 4;

/// An audit, as all its threads see it.
pub struct Walk {
    pub places: Places,
    pub access: Access,
    /// Of all keys, those of the sample.
    pub share: f64,
    pub prefix: Vec<u8>,
    /// Before keys that differ are looked at again.
    pub pause: Duration,
    pub pace: Mutex<Pace>,
    pub limit: Limit,
    pub tally: Tally,
    /// By place: it could not be asked, several times in a row.
    pub down: Vec<AtomicBool>,
    /// What differed.
    pub suspects: Mutex<Vec<Suspect>>,
}

/// A key that differed, and what it was then.
#[derive(Debug)]
pub struct Suspect {
    listed: Listed,
    uniques: Vec<u64>,
}

/// Connections of one thread, by place.
type Connections = HashMap<usize, Source>;

impl Walk {
    /// Compares all keys of the sample.
    pub fn run(&self) {
        thread::scope(|scope| {
            for place in 0..self.places.places.len() {
                let (batches, work) = sync_channel(WAITING);
                scope.spawn(move || {
                    let work = Mutex::new(work);
                    thread::scope(|scope| {
                        for _ in 0..WORKERS {
                            scope.spawn(|| self.work(place, &work));
                        }
                        if let Err(error) = self.list(place, &batches) {
                            let address = &self.places.places[place].address;
                            self.tally.error(format!(
                                "{address}: its keys could not all be listed: {error}"
                            ));
                        }
                        drop(batches);
                    });
                });
            }
        });
        self.look_again(mem::take(&mut *lock(&self.suspects)), &mut HashMap::new());
    }

    /// Sends the keys that `place` has, as far as they are of the sample.
    fn list(&self, place: usize, batches: &SyncSender<Vec<Listed>>) -> io::Result<()> {
        let node = &self.places.places[place].node;
        let mut connection = Source::connect(node, &self.access, true)?;
        let patient_until = Instant::now() + BUSY_PATIENCE;
        connection.list()?;
        // What fits into a batch of requests; the batches themselves are made of it place by place.
        let (mut fitting, mut batch) = (Batch::default(), Vec::new());
        let result = loop {
            let listed = match connection.next() {
                Ok(Line::Key(listed)) => listed,
                Ok(Line::End) => break Ok(()),
                Ok(Line::Busy) if Instant::now() < patient_until => {
                    thread::sleep(BUSY_PAUSE);
                    connection.list()?;
                    continue;
                }
                Ok(Line::Busy) => break Err(io::Error::other("its crawler is busy")),
                Err(error) => break Err(error),
            };
            if !listed.key.starts_with(&self.prefix)
                || !compare::is_sampled(&listed.key, self.share)
            {
                continue;
            }
            if !self.places.of(&listed.key).contains(&place) {
                self.tally.stray();
                continue;
            }
            if let Err(listed) = fitting.push(listed.clone(), self.limit) {
                fitting = Batch::default();
                // There are workers as long as there is a sender.
                let _ = batches.send(mem::take(&mut batch));
                let pushed = fitting.push(listed, self.limit);
                pushed.expect("an empty batch takes any");
            }
            batch.push(listed);
        };
        let _ = batches.send(batch);
        result
    }

    /// Compares batches until there are none.
    fn work(&self, place: usize, work: &Mutex<Receiver<Vec<Listed>>>) {
        let mut connections = HashMap::new();
        loop {
            let next = lock(work).recv();
            let Ok(batch) = next else { return };
            let now = Instant::now();
            let bytes = batch.iter().map(|listed| listed.size).sum();
            let start = lock(&self.pace).book(now, batch.len(), bytes);
            thread::sleep(start.saturating_duration_since(now));
            let Some(found) = self.look(&batch, &mut connections) else {
                continue;
            };
            for (listed, (of_key, found)) in batch.into_iter().zip(found) {
                let first = found.iter().position(|found| *found != Found::Gone);
                // Another place has it too, and deals with it (Au1).
                if first.is_some_and(|first| of_key[first] != place) {
                    continue;
                }
                match compare::verdict(&found) {
                    Verdict::Differ => {
                        let uniques = compare::uniques(&found);
                        lock(&self.suspects).push(Suspect { listed, uniques });
                    }
                    verdict => self.tally.count(verdict, &of_key, &found),
                }
            }
            let mut suspects = lock(&self.suspects);
            if suspects.len() >= SUSPECTS_MAX {
                let full = mem::take(&mut *suspects);
                drop(suspects);
                self.look_again(full, &mut connections);
            }
        }
    }

    /// Looks at keys again that have differed (Au3).
    fn look_again(&self, mut suspects: Vec<Suspect>, connections: &mut Connections) {
        for round in 1..=LOOKS {
            if suspects.is_empty() {
                return;
            }
            thread::sleep(self.pause);
            let mut left = Vec::new();
            for some in batches(suspects) {
                let keys: Vec<Listed> = some.iter().map(|one| one.listed.clone()).collect();
                let Some(found) = self.look(&keys, connections) else {
                    continue;
                };
                for (suspect, (of_key, found)) in some.into_iter().zip(found) {
                    let verdict = compare::verdict(&found);
                    let uniques = compare::uniques(&found);
                    if verdict != Verdict::Differ {
                        self.tally.count(verdict, &of_key, &found);
                    } else if uniques == suspect.uniques {
                        let key = &suspect.listed.key;
                        self.tally.different(&self.places, key, &of_key, &found);
                    } else if round == LOOKS {
                        self.tally.changing();
                    } else {
                        left.push(Suspect { uniques, ..suspect });
                    }
                }
            }
            suspects = left;
        }
    }

    /// What all places have for each key of a batch; `None` if one of them cannot be asked.
    fn look(
        &self,
        keys: &[Listed],
        connections: &mut Connections,
    ) -> Option<Vec<(Vec<usize>, Vec<Found>)>> {
        let mut of_keys: Vec<(Vec<usize>, Vec<Found>)> = Vec::with_capacity(keys.len());
        let mut batches: HashMap<usize, (Batch, Vec<(usize, usize)>)> = HashMap::new();
        for (at, listed) in keys.iter().enumerate() {
            let of_key = self.places.of(&listed.key);
            for (slot, &place) in of_key.iter().enumerate() {
                let (batch, slots) = batches.entry(place).or_default();
                let unbounded = Limit {
                    items: f64::INFINITY,
                    bytes: f64::INFINITY,
                };
                let pushed = batch.push(listed.clone(), unbounded);
                pushed.expect("a part of a batch that fits");
                slots.push((at, slot));
            }
            let nothing = of_key.iter().map(|_| Found::Gone).collect();
            of_keys.push((of_key, nothing));
        }
        for (place, (batch, slots)) in batches {
            match self.fetch(place, &batch, connections) {
                Ok(found) => {
                    for ((at, slot), found) in slots.into_iter().zip(found) {
                        of_keys[at].1[slot] = found;
                    }
                }
                Err(error) => {
                    let address = &self.places.places[place].address;
                    self.tally.failed(keys.len(), format!("{address}: {error}"));
                    return None;
                }
            }
        }
        Some(of_keys)
    }

    fn fetch(
        &self,
        place: usize,
        batch: &Batch,
        connections: &mut Connections,
    ) -> io::Result<Vec<Found>> {
        if self.down[place].load(Relaxed) {
            return Err(io::Error::other(
                "it was down before, and is not asked again",
            ));
        }
        let mut attempt = 1;
        loop {
            let source = match connections.remove(&place) {
                Some(source) => Ok(source),
                None => Source::connect(&self.places.places[place].node, &self.access, false),
            };
            let found = source.and_then(|mut source| {
                let found = source.fetch(batch)?;
                connections.insert(place, source);
                Ok(found)
            });
            match found {
                Err(_) if attempt < FETCHES => {
                    thread::sleep(RECONNECT_PAUSE * attempt);
                    attempt += 1;
                }
                Err(error) => {
                    self.down[place].store(true, Relaxed);
                    return Err(error);
                }
                found => return found,
            }
        }
    }
}

/// In pieces that each fit into a batch of requests.
fn batches(suspects: Vec<Suspect>) -> Vec<Vec<Suspect>> {
    let (mut pieces, mut fitting) = (vec![Vec::new()], Batch::default());
    for suspect in suspects {
        if let Err(listed) = fitting.push(suspect.listed.clone(), MAX) {
            fitting = Batch::default();
            pieces.push(Vec::new());
            let pushed = fitting.push(listed, MAX);
            pushed.expect("an empty batch takes any");
        }
        pieces.last_mut().expect("there is one").push(suspect);
    }
    pieces
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
