//! The threads of a copy.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, mem};

use ketch_client::continuum::Continuum;
use ketch_client::{Client, Node};

use super::batch::{Batch, Limit};
use super::pace::Pace;
use super::source::{Found, Line, Source};
use super::tally::Tally;
use crate::access::Access;
use crate::cluster::Cluster;

/// Batches of a source that wait for a worker.
const WAITING: usize = 4;
/// How often a batch is fetched before its keys count as failed; each time on a new connection.
const FETCHES: u32 = 3;
/// The pause before the next connection, longer each time.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// After so many batches in a row of which nothing could be copied there is no hope.
const HOPELESS: u32 = 20;
/// How long to wait for a source whose crawler is busy, and how often to ask.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// A copy, as all its threads see it.
pub struct Transfer {
    pub target: Cluster,
    pub client: Client,
    /// Of the targets.
    pub continuum: Continuum,
    /// How the sources are spoken to.
    pub access: Access,
    pub prefix: Vec<u8>,
    pub overwrite: bool,
    /// Threads that read from each source.
    pub workers: usize,
    pub pace: Mutex<Pace>,
    pub batch_limit: Limit,
    pub tally: Tally,
}

impl Transfer {
    /// Copies all of `sources`, side by side.
    pub fn run(&self, sources: &[Node]) {
        let fruitless = AtomicU32::new(0);
        thread::scope(|scope| {
            for source in sources {
                let (batches, work) = sync_channel(WAITING);
                let fruitless = &fruitless;
                scope.spawn(move || {
                    let work = Mutex::new(work);
                    thread::scope(|scope| {
                        for _ in 0..self.workers {
                            scope.spawn(|| self.work(source, &work, fruitless));
                        }
                        if let Err(error) = self.list(source, batches) {
                            let address = source.address();
                            let why = format!(
                                "{address}: its keys could not all be listed: {}",
                                plain(&error)
                            );
                            self.tally.complain(0, why);
                        }
                    });
                });
            }
        });
        if self.tally.hopeless.load(Relaxed) {
            let why = "given up, as nothing could be copied any more".to_owned();
            self.tally.complain(0, why);
        }
    }

    /// Sends all keys of `source` in batches, as many as come.
    fn list(&self, source: &Node, batches: SyncSender<Batch>) -> io::Result<()> {
        let mut batch = Batch::default();
        let result = self.list_into(&mut batch, source, &batches);
        if !batch.keys.is_empty() {
            // There are workers as long as there is a sender.
            let _ = batches.send(batch);
        }
        result
    }

    fn list_into(
        &self,
        batch: &mut Batch,
        source: &Node,
        batches: &SyncSender<Batch>,
    ) -> io::Result<()> {
        let mut connection = Source::connect(source, &self.access, true)?;
        let address = source.address();
        let patient_until = Instant::now() + BUSY_PATIENCE;
        connection.list()?;
        while !self.tally.hopeless.load(Relaxed) {
            let listed = match connection.next()? {
                Line::Key(listed) => listed,
                Line::End => break,
                Line::Busy if Instant::now() < patient_until => {
                    thread::sleep(BUSY_PAUSE);
                    connection.list()?;
                    continue;
                }
                Line::Busy => return Err(io::Error::other("its crawler is busy")),
            };
            if !listed.key.starts_with(&self.prefix) {
                continue;
            }
            Tally::add(&self.tally.listed, 1);
            if self.stays(&address, &listed.key) {
                Tally::add(&self.tally.stays, 1);
            } else if let Err(listed) = batch.push(listed, self.batch_limit) {
                let _ = batches.send(mem::take(batch));
                let pushed = batch.push(listed, self.batch_limit);
                pushed.expect("an empty batch takes any");
            }
        }
        Ok(())
    }

    /// True if the source is the only node that is to have the key.
    fn stays(&self, source: &str, key: &[u8]) -> bool {
        let owner = self.continuum.locate(key).map(|at| &self.target.nodes[at]);
        self.target.copies == 1 && owner.is_some_and(|owner| owner.address() == source)
    }

    /// Fetches and stores batches until there are none.
    fn work(&self, source: &Node, work: &Mutex<Receiver<Batch>>, fruitless: &AtomicU32) {
        let mut connection = None;
        loop {
            let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = next else { return };
            if self.tally.hopeless.load(Relaxed) {
                Tally::add(&self.tally.failed, batch.keys.len());
                continue;
            }
            let now = Instant::now();
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let start = pace.book(now, batch.keys.len(), batch.bytes);
            drop(pace);
            thread::sleep(start.saturating_duration_since(now));
            let came = match self.fetch(source, &mut connection, &batch) {
                Ok(found) => self.store(&batch, found),
                Err(error) => {
                    let why = format!("{}: {}", source.address(), plain(&error));
                    self.tally.fail(batch.keys.len(), why);
                    false
                }
            };
            if came {
                fruitless.store(0, Relaxed);
            } else if fruitless.fetch_add(1, Relaxed) + 1 >= HOPELESS {
                self.tally.hopeless.store(true, Relaxed);
            }
        }
    }

    /// What the source has, on `connection` or new ones.
    fn fetch(
        &self,
        source: &Node,
        connection: &mut Option<Source>,
        batch: &Batch,
    ) -> io::Result<Vec<Found>> {
        let mut attempt = 1;
        loop {
            let result = match connection.take() {
                Some(source) => Ok(source),
                None => Source::connect(source, &self.access, false),
            };
            let result = result.and_then(|mut source| {
                let found = source.fetch(batch)?;
                *connection = Some(source);
                Ok(found)
            });
            match result {
                Err(_) if attempt < FETCHES => {
                    thread::sleep(RECONNECT_PAUSE * attempt);
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Stores what was found; false if nothing of it could be dealt with.
    fn store(&self, batch: &Batch, found: Vec<Found>) -> bool {
        let tally = &self.tally;
        let mut entries = Vec::with_capacity(found.len());
        let mut failed = 0;
        for (key, found) in batch.keys.iter().zip(&found) {
            match found {
                Found::Item {
                    value, flags, ttl, ..
                } => entries.push((key, (value, *flags), *ttl)),
                Found::Gone => Tally::add(&tally.gone, 1),
                Found::Unfinished => Tally::add(&tally.unfinished, 1),
                Found::Refused(line) => {
                    failed += 1;
                    tally.fail(1, format!("a source refuses a key: {line}"));
                }
            }
        }
        let results = self
            .client
            .fill_multi(entries.iter().copied(), self.overwrite);
        for ((_, (value, _), _), result) in entries.iter().zip(results) {
            match result {
                Ok(true) => {
                    Tally::add(&tally.copied, 1);
                    Tally::add(&tally.bytes, value.len());
                }
                Ok(false) => Tally::add(&tally.present, 1),
                Err(error) => {
                    failed += 1;
                    tally.fail(1, error.to_string());
                }
            }
        }
        failed < batch.keys.len()
    }
}

/// The error in words: what sockets call it is hard to understand.
pub fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "the connection was closed".to_owned()
        }
        io::ErrorKind::ConnectionRefused => "cannot connect".to_owned(),
        _ => error.to_string(),
    }
}
