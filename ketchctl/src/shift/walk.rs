//! The walks over the sources, and what is done between them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::feed::Feeds;
use super::mirror::{Job, Why, Work};
use super::plan::{Plan, name};
use super::{Given, say};
use crate::copy::batch::Listed;
use crate::copy::source::{Line, Source};
use crate::copy::tally::Tally;
use crate::copy::transfer::plain;
use crate::failure::Failure;
use crate::units;

/// How long to wait for a source whose crawler is busy, and how often to ask.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// What keeps the new owners at what the sources have.
pub struct Walk<'a, 'p> {
    pub plan: &'p Plan,
    pub given: &'a Given,
    pub work: &'a Work,
    pub tally: &'a Tally,
    pub feeds: &'a Feeds,
    pub stop: &'a AtomicBool,
    /// How many walks there have been.
    pub walks: u32,
}

impl Walk<'_, '_> {
    /// The walk over all that the sources have.
    pub fn first(&mut self) {
        self.walk(true);
        self.work.wait();
    }

    /// Waits until the new owners have what the sources had when this was called.
    pub fn catch_up(&mut self) {
        if !self.feeds.catch_up() {
            self.walk(false);
            // What was stored and is not met any more is gone.
            let walks = self.walks;
            self.work.all(|| Job::Sweep(walks));
        }
        self.work.wait();
    }

    /// Deletes what was stored.
    pub fn take_back(&mut self) {
        self.work.all(|| Job::TakeBack);
        self.work.wait();
    }

    /// Deletes at the sources what has moved.
    pub fn clean(&mut self) {
        self.work.all(|| Job::Clean);
        self.work.wait();
    }

    fn walk(&mut self, is_first: bool) {
        self.walks += 1;
        let (plan, work, tally) = (self.plan, self.work, self.tally);
        let (given, stop) = (self.given, self.stop);
        let walks = self.walks;
        work.all(|| Job::Begin(walks));
        thread::scope(|scope| {
            for &source in &plan.sources {
                scope.spawn(move || {
                    let each = |listed: Listed| {
                        let moves = !plan.targets(source, &listed.key).is_empty();
                        if is_first {
                            Tally::add(&tally.listed, 1);
                            Tally::add(&tally.stays, usize::from(!moves));
                        }
                        if moves {
                            let why = if is_first { Why::Walked } else { Why::Changed };
                            work.key(source, listed, why);
                        }
                    };
                    if let Err(error) = list(plan, given, source, stop, each) {
                        let node = name(&plan.nodes[source]);
                        let why = plain(&error);
                        tally.complain(
                            0,
                            format!("{node}: its keys could not all be listed: {why}"),
                        );
                    }
                });
            }
        });
    }
}

/// Calls `each` with all keys of a source.
fn list(
    plan: &Plan,
    given: &Given,
    source: usize,
    stop: &AtomicBool,
    mut each: impl FnMut(Listed),
) -> io::Result<()> {
    let mut connection = Source::connect(&plan.nodes[source], &given.access, true)?;
    let patient_until = Instant::now() + BUSY_PATIENCE;
    connection.list()?;
    while !stop.load(Relaxed) {
        match connection.next()? {
            Line::Key(listed) => each(listed),
            Line::End => break,
            Line::Busy if Instant::now() < patient_until => {
                thread::sleep(BUSY_PAUSE);
                connection.list()?;
            }
            Line::Busy => return Err(io::Error::other("its crawler is busy")),
        }
    }
    Ok(())
}

/// Says what would move.
pub fn count(plan: &Plan, given: &Given, stop: &AtomicBool) -> Result<(), Failure> {
    let mut moves: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let mut all = 0u64;
    for &source in &plan.sources {
        let from = name(&plan.nodes[source]);
        let each = |listed: Listed| {
            all += 1;
            for node in plan.targets(source, &listed.key) {
                let way = (from.clone(), name(&plan.nodes[node]));
                let (items, bytes) = moves.entry(way).or_default();
                *items += 1;
                *bytes += listed.size;
            }
        };
        list(plan, given, source, stop, each)
            .map_err(|error| Failure::failed(format!("{from}: {}", plain(&error))))?;
    }
    for ((from, to), (items, bytes)) in &moves {
        let (items, bytes) = (units::grouped(*items), units::bytes(*bytes as f64));
        say(&format!(
            "would copy {items} items, {bytes}, from {from} to {to}"
        ))?;
    }
    let moving: u64 = moves.values().map(|(items, _)| items).sum();
    say(&format!(
        "{} of {} items would move; nothing was changed",
        units::grouped(moving),
        units::grouped(all)
    ))
}
