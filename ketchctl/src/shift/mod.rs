//! `ketchctl drain` and `ketchctl rebalance`: keys go to their new owners before clients look for them there.
//!
//! ```text
//!  each source:  walk (metadump) --+--> keys, by their hash --> workers: fetch (mg), store where it will live (ms)
//!                watch feed -------'         ring changes         '- again for each key that changes meanwhile
//!
//!  walk --> follow --> the ring changes --> follow until all clients know --> (rebalance) delete what has moved
//! ```
//!
//! What is stored at a new owner is ours for as long as its CAS unique is the one that we were told: so what we bring is never
//! newer than what a client has written there, and what changes or goes at the source changes or goes there.
//!
//! Sh1. All work on a key is one worker's, in the order in which it was seen: a change that comes after a fetch is fetched again.
//! Sh2. A copy is changed or deleted only by its CAS unique. What a client has written at the new owner stays.
//! Sh3. A shift that is broken off before the ring changes takes back what it has stored.

pub mod drain;
mod feed;
mod mirror;
pub mod place;
mod plan;
pub mod rebalance;
mod walk;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use getopts::{Matches, Options};
use ketch_client::{COPIES_MAX, ClientOptions, Node};

use crate::access::{self, Access};
use crate::cluster::{self, Cluster};
use crate::copy::pace::Pace;
use crate::copy::{self, progress, tally::Tally};
use crate::failure::Failure;
use crate::{signals, units, words};

use mirror::Mirror;
use place::Rings;
use plan::Plan;

/// The longest a request takes unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long what changes is followed after the ring has changed: clients that follow etcd know within milliseconds.
const SETTLE: Duration = Duration::from_secs(5);
/// How long somebody may take to change a list that we cannot.
const WAIT: Duration = Duration::from_secs(600);
/// Threads that fetch and store.
const WORKERS: usize = 2;

/// What both commands are told.
pub struct Given {
    source: String,
    access: Access,
    options: ClientOptions,
    copies: usize,
    settle: Duration,
    wait: Duration,
    rates: (Option<f64>, Option<f64>),
    workers: usize,
    dry_run: bool,
    progress: bool,
}

fn options() -> Options {
    let mut options = Options::new();
    options.optmulti("s", "servers", "where the nodes are listed", "SOURCE");
    cluster::placement_options(&mut options);
    cluster::copies_option(&mut options);
    options
        .optflag("n", "dry-run", "say what would move, and change nothing")
        .optopt(
            "",
            "settle",
            "how long changes are followed once the ring has changed: until the last client knows (default 5s; clients that ask for \
             \"config get cluster\" each minute: 70s)",
            "TIME",
        )
        .optopt(
            "",
            "wait",
            "how long to wait until somebody has changed a list that only people change (default 10m)",
            "TIME",
        )
        .optopt("", "rate", "at most so many items in a second, like 5000 or 20k", "N")
        .optopt("", "byte-rate", "at most so many bytes in a second, like 10m", "N")
        .optopt("", "workers", &format!("threads that copy (default {WORKERS})"), "N")
        .optflag("", "progress", "print progress even if there is no terminal");
    access::options(&mut options);
    options
}

impl Given {
    fn from(matches: &Matches) -> Result<Given, Failure> {
        let sources = matches.opt_strs("servers");
        let source = match &sources[..] {
            [source] => source.clone(),
            [] => return Err(Failure::usage("--servers is missing")),
            all if all.iter().any(|one| cluster::is_source(one)) => {
                return Err(Failure::usage("--servers: it takes one source"));
            }
            all => all.join(","),
        };
        let copies = words::option(matches, "copies", 1, |text| {
            text.parse()
                .ok()
                .filter(|copies| (1..=COPIES_MAX).contains(copies))
        })?;
        let rate = |name: &str, step: f64| {
            words::option(matches, name, None, |text| {
                let rate = units::quantity(text, step).filter(|rate| *rate >= 1.0);
                rate.map(Some)
            })
        };
        let placement = cluster::placement(matches)?;
        Ok(Given {
            source,
            access: access::from(matches)?.or_within(matches, TIMEOUT),
            options: ClientOptions::default().placement(placement).copies(copies),
            copies,
            settle: words::option(matches, "settle", SETTLE, units::duration)?,
            wait: words::option(matches, "wait", WAIT, units::duration)?,
            rates: (rate("rate", 1000.0)?, rate("byte-rate", 1024.0)?),
            workers: words::option(matches, "workers", WORKERS, |text| {
                text.parse()
                    .ok()
                    .filter(|workers| (1..=64).contains(workers))
            })?,
            dry_run: matches.opt_present("dry-run"),
            progress: matches.opt_present("progress") || std::io::stderr().is_terminal(),
        })
    }
}

/// One change of a ring.
struct Shift<'a> {
    given: &'a Given,
    /// The nodes by which keys are placed now, and those by which they are to be.
    before: Vec<Node>,
    after: Vec<Node>,
    /// Nodes whose keys may move.
    sources: Vec<Node>,
    /// A key that a new owner has already is older than what we bring: no client has looked for it there yet.
    overwrite: bool,
    /// What has moved is deleted where it was, in the end.
    clean: bool,
}

/// How a change of the ring went.
pub enum Changed {
    /// All that follow the ring know, or will soon.
    Done,
    /// Nobody has changed the list as long as we waited.
    NotSeen(String),
}

impl Shift<'_> {
    /// Carries it out; `change` changes the ring, or waits until somebody has. It is told when to give up waiting.
    fn run(
        &self,
        change: impl FnOnce(&AtomicBool) -> Result<Changed, Failure>,
    ) -> Result<(), Failure> {
        let given = self.given;
        let stop = signals::seen()?;
        let plan = Plan::new(&self.before, &self.after, &self.sources, &given.options);
        if given.dry_run {
            return walk::count(&plan, given, &stop);
        }
        let tally = Tally::default();
        let changes = mirror::Changes::default();
        let moved = AtomicBool::new(!self.overwrite);
        let pace = Pace::new(given.rates.0, given.rates.1);
        let mirror = Mirror::new(&plan, given, pace, &tally, &changes, &moved);
        let expected = copy::expected(&Cluster::of(plan.source_nodes()), &given.access);
        say(&format!(
            "copying: {} of about {} items, to where they will live",
            plan.sources_named(),
            units::grouped(expected)
        ))?;
        let (mut outcome, mut has_changed) = (Ok(()), false);
        let begun = Instant::now();
        thread::scope(|scope| {
            let work = Arc::new(mirror.begin(scope));
            let feeds = feed::begin(scope, &plan, given, &work);
            let mut follow = walk::Walk {
                plan: &plan,
                given,
                work: &work,
                tally: &tally,
                feeds: &feeds,
                stop: &stop,
                walks: 0,
            };
            progress::around(&tally, expected, given.progress, || follow.first());
            outcome = say(&tally.summary(begun.elapsed()));
            let is_whole = || tally.complaints().is_empty() && !stop.load(Relaxed);
            if outcome.is_ok() && is_whole() {
                follow.catch_up();
            }
            if outcome.is_ok() && is_whole() {
                // From here on clients may write there before we know.
                moved.store(true, Relaxed);
                // What was begun before that would overwrite what they write.
                work.wait();
                outcome = change(&stop).and_then(|changed| {
                    has_changed = true;
                    if let Changed::NotSeen(advice) = changed {
                        say(&advice)?;
                    }
                    self.settle(&mut follow, &changes, &stop)
                });
            } else if outcome.is_ok() {
                follow.take_back();
                outcome = say(&format!(
                    "the ring is as it was; {} copies were taken back",
                    units::grouped(changes.taken_back.load(Relaxed))
                ));
            }
            feeds.end();
        });
        outcome?;
        let complaints = tally.complaints();
        complaints
            .iter()
            .for_each(|line| eprintln!("ketchctl: {line}"));
        match complaints.is_empty() && has_changed {
            true => Ok(()),
            false => Err(Failure::Told),
        }
    }

    /// Follows what changes until all clients know, then deletes what has moved.
    fn settle(
        &self,
        follow: &mut walk::Walk<'_, '_>,
        changes: &mirror::Changes,
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        let settle = self.given.settle;
        say(&format!(
            "following what changes for another {}",
            seconds(settle)
        ))?;
        let until = Instant::now() + settle;
        while Instant::now() < until && !stop.load(Relaxed) {
            thread::sleep((until - Instant::now()).min(Duration::from_millis(50)));
        }
        follow.catch_up();
        if self.clean && !stop.load(Relaxed) {
            follow.clean();
        }
        let count = |count: &AtomicU64| units::grouped(count.load(Relaxed));
        let mut line = format!(
            "done: {} keys changed meanwhile, {} went",
            count(&changes.changed),
            count(&changes.gone)
        );
        if self.clean {
            line += &format!(
                "; {} that have moved were deleted where they were",
                count(&changes.cleaned)
            );
        }
        say(&line)
    }
}

/// A time in words.
fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs_f64())
}

/// One line on standard output.
fn say(line: &str) -> Result<(), Failure> {
    words::print(format!("{line}\n"))
}

/// The nodes a source lists now, and those that stand by.
fn listed(given: &Given) -> Result<Rings, Failure> {
    Rings::open(&given.source, &given.access)
}
