//! What changes on the nodes, as their feeds tell it (docs/invalidation.md).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::Given;
use super::mirror::{Why, Work};
use super::plan::Plan;
use crate::copy::batch::{Listed, decode};
use crate::copy::source::Source;

/// How often a source says that nothing more has happened.
const HEARTBEAT_MS: u32 = 50;
/// The pause before a feed that has ended is asked for again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a heartbeat may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of one source's feed.
#[derive(Debug, Default)]
struct State {
    /// It was begun, or it cannot be.
    is_settled: AtomicBool,
    /// There is one.
    is_there: AtomicBool,
    /// Heartbeats so far.
    beats: AtomicU64,
    /// Something was missed: the source is to be walked again.
    has_gap: AtomicBool,
}

/// The feeds of all nodes.
pub struct Feeds {
    /// Of all nodes of the plan.
    states: Vec<Arc<State>>,
    sources: Vec<usize>,
    end: Arc<AtomicBool>,
}

impl Feeds {
    /// Waits until all that has happened so far was given to the workers; false if something of it may have been missed, and
    /// the sources are to be walked again.
    pub fn catch_up(&self) -> bool {
        let until = Instant::now() + PATIENCE;
        let mut is_whole = true;
        for state in self.sources.iter().map(|&source| &self.states[source]) {
            // The next heartbeat may have been on its way; the one behind it was not.
            let beats = state.beats.load(Relaxed) + 2;
            while state.is_there.load(Relaxed)
                && state.beats.load(Relaxed) < beats
                && Instant::now() < until
            {
                thread::sleep(Duration::from_millis(5));
            }
            is_whole &= state.is_there.load(Relaxed) && state.beats.load(Relaxed) >= beats;
            is_whole &= !state.has_gap.swap(false, Relaxed);
        }
        is_whole
    }

    /// No more of them.
    pub fn end(&self) {
        self.end.store(true, Relaxed);
    }
}

/// Begins to read the feeds, and returns when all of them tell, or cannot.
pub fn begin<'s, 'e: 's>(
    scope: &'s Scope<'s, 'e>,
    plan: &'e Plan,
    given: &'e Given,
    work: &Arc<Work>,
) -> Feeds {
    let end = Arc::new(AtomicBool::new(false));
    let one = |node: usize| {
        let state = Arc::new(State::default());
        let (told, end, work) = (state.clone(), end.clone(), work.clone());
        scope.spawn(move || {
            while !end.load(Relaxed) {
                let read = read(plan, given, node, &work, &told, &end);
                let had_feed = told.is_there.swap(false, Relaxed);
                told.has_gap.store(had_feed, Relaxed);
                told.is_settled.store(true, Relaxed);
                match read {
                    // It has none: the source is walked again instead.
                    Ok(false) => return,
                    _ => thread::sleep(AGAIN),
                }
            }
        });
        state
    };
    let states: Vec<_> = (0..plan.nodes.len()).map(one).collect();
    let until = Instant::now() + PATIENCE;
    while states.iter().any(|state| !state.is_settled.load(Relaxed)) && Instant::now() < until {
        thread::sleep(Duration::from_millis(2));
    }
    Feeds {
        states,
        sources: plan.sources.clone(),
        end,
    }
}

/// Reads one feed until it ends; false if there is none.
fn read(
    plan: &Plan,
    given: &Given,
    node: usize,
    work: &Work,
    state: &State,
    end: &AtomicBool,
) -> io::Result<bool> {
    let mut connection = Source::connect(&plan.nodes[node], &given.access, false)?;
    if connection.ask(&format!("watch feed heartbeat={HEARTBEAT_MS}"))? != "OK" {
        return Ok(false);
    }
    while !end.load(Relaxed) {
        let line = connection.next_line()?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["FEED", ..] => {
                state.is_there.store(true, Relaxed);
                state.is_settled.store(true, Relaxed);
            }
            ["HB", ..] => {
                state.beats.fetch_add(1, Relaxed);
            }
            ["GAP", ..] | [_, _, "flush", ..] => state.has_gap.store(true, Relaxed),
            [_, _, "expire" | "evict", ..] => {}
            [_, _, what, _, key, _, origin, ..] if origin.parse() != Ok(work.origin) => {
                let Some(key) = decode(key.as_bytes()) else {
                    continue;
                };
                let Some(source) = plan.source(&key) else {
                    continue;
                };
                let targets = plan.targets(source, &key);
                if source == node && !targets.is_empty() {
                    work.key(source, Listed::named(key), Why::Changed);
                } else if what == "delete" && targets.contains(&node) {
                    work.key(source, Listed::named(key), Why::Lost);
                }
            }
            _ => {}
        }
    }
    Ok(true)
}
