//! What changes on the nodes, as their feeds tell it (docs/invalidation.md).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use ketch_client::feed::{Ask, Change, Event, Feed, Key, Lost, What};

use super::Given;
use super::mirror::{Why, Work};
use super::plan::Plan;
use crate::copy::batch::Listed;

/// How often a source says that nothing more has happened.
const HEARTBEAT: Duration = Duration::from_millis(50);
/// How soon it is noticed that nobody wants a feed any more.
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
        scope.spawn(move || follow(plan, given, node, &work, &told, &end));
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

/// Reads the feed of a node until the end, or until it is known that it has none: the source is walked again then.
fn follow(plan: &Plan, given: &Given, node: usize, work: &Work, state: &State, end: &AtomicBool) {
    let ask = Ask::default().heartbeat(HEARTBEAT).silence(PATIENCE);
    let options = given.access.client_options();
    let mut feed = Feed::new(plan.nodes[node].clone(), &options, ask);
    while !end.load(Relaxed) {
        match feed.next(AGAIN) {
            Some(Event::Began(_)) => {
                state.is_there.store(true, Relaxed);
                state.is_settled.store(true, Relaxed);
            }
            Some(Event::Beat(_)) => {
                state.beats.fetch_add(1, Relaxed);
            }
            Some(Event::Change(change)) => changed(plan, node, work, state, &change),
            Some(Event::Lost(why)) if why.is_over() => {
                if state.is_there.swap(false, Relaxed) {
                    state.has_gap.store(true, Relaxed);
                }
                state.is_settled.store(true, Relaxed);
                if why == Lost::NoFeed {
                    return;
                }
            }
            Some(Event::Lost(_)) => state.has_gap.store(true, Relaxed),
            None => {}
        }
    }
}

/// Has the workers look at what has changed, if it is one of the keys that move.
fn changed(plan: &Plan, node: usize, work: &Work, state: &State, change: &Change<'_>) {
    let key = match (change.what, change.key) {
        (What::Expire | What::Evict, _) => return,
        (What::Flush, _) => return state.has_gap.store(true, Relaxed),
        (_, Key::Text(key)) if change.origin != work.origin => key,
        _ => return,
    };
    let Some(source) = plan.source(key) else {
        return;
    };
    let targets = plan.targets(source, key);
    if source == node && !targets.is_empty() {
        work.key(source, Listed::named(key.to_vec()), Why::Changed);
    } else if change.what == What::Delete && targets.contains(&node) {
        work.key(source, Listed::named(key.to_vec()), Why::Lost);
    }
}
