//! What is to be carried over: each key once, in the order in which they fell due, a queue for each node of the target.
//!
//! ```text
//!  push(key, action, mark) --> waiting in its lane --take--> flying --done--> gone
//!           ^  same key: coalesced         ^                   | failed, or pushed again meanwhile
//!           '------------------------------'-------------------'
//! ```
//!
//! Rq1. A key is in flight at most once, so nothing overtakes it on its way.
//! Rq2. A mark (an event of a source) is held from `push` until what was done about its key began after it and is done. Below the
//!      lowest mark of a source all is done: that is what a cursor may say.
//!
//! Pure: time is passed in.
//!
//! Costs: two lookups of a key to push it, one to be done with it; what lies between goes by the entry's number.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A key. It stands in the map and in its lane.
pub type Key = Arc<[u8]>;

/// Bytes that a key takes beside itself, about.
const ENTRY_LEN: usize = 200;
/// The pause after a failure, doubled each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Batches to one node that are under way at a time.
const FLIGHTS_MAX: usize = 64;
/// Batches to one node are so far apart at least, so that what comes meanwhile goes together.
const APART: Duration = Duration::from_millis(3);

/// What is to become of a key in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes.
    Delete,
    /// It gets the value that this source has when it is sent.
    Value(u32),
    /// It was written in both regions, and the changes have crossed: of this source's value and the target's, one stays, which the
    /// relay the other way finds to be the same one.
    Settle(u32),
}

/// An event of a source: its slot, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub slot: usize,
    pub seq: u64,
}

/// A mark that is held: its slot, and its number among those that the slot has held.
#[derive(Debug, Clone, Copy)]
struct Hold {
    slot: usize,
    nth: u64,
}

/// The marks of a slot, in the order of their numbers. One that is let go leaves when all before it have left.
#[derive(Debug, Default)]
struct Held {
    /// How many have left.
    left: u64,
    /// The number of each, and whether it is held still.
    marks: VecDeque<(u64, bool)>,
}

impl Held {
    /// Holds this number, which is above those before it; gives which one it is.
    fn hold(&mut self, seq: u64) -> u64 {
        debug_assert!(self.marks.back().is_none_or(|&(last, _)| last < seq));
        self.marks.push_back((seq, true));
        self.left + self.marks.len() as u64 - 1
    }

    fn let_go(&mut self, nth: u64) {
        if let Some(mark) = self.marks.get_mut((nth - self.left) as usize) {
            mark.1 = false;
        }
        while let Some((_, false)) = self.marks.front() {
            self.marks.pop_front();
            self.left += 1;
        }
    }

    fn first(&self) -> Option<u64> {
        self.marks.front().map(|&(seq, _)| seq)
    }
}

/// The first event of each source that a key is owed for.
#[derive(Debug, Default)]
struct Marks {
    first: Option<Hold>,
    more: Vec<Hold>,
}

impl Marks {
    /// True if there is one of this slot: later ones need not be held.
    fn has(&self, slot: usize) -> bool {
        self.iter().any(|one| one.slot == slot)
    }

    fn add(&mut self, hold: Hold) {
        match self.first {
            None => self.first = Some(hold),
            Some(_) => self.more.push(hold),
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn take(&mut self) -> Marks {
        std::mem::take(self)
    }

    fn iter(&self) -> impl Iterator<Item = Hold> + '_ {
        self.first.iter().chain(&self.more).copied()
    }
}

#[derive(Debug)]
struct Entry {
    key: Key,
    action: Action,
    /// The CAS unique that the last change gave the item at its source; 0 if none is known.
    cas: u64,
    /// What was pushed since it was sent last.
    marks: Marks,
    /// What is on its way.
    flight: Option<Marks>,
    /// When the oldest event came that is not yet on its way.
    since: Instant,
    /// Of the flight.
    flight_since: Instant,
    /// An attempt has failed, whose request may still be somewhere on its way.
    is_doubted: bool,
    lane: usize,
}

/// The way to one node of the target.
#[derive(Debug)]
struct Lane {
    /// The numbers of entries.
    waiting: VecDeque<usize>,
    flights: usize,
    not_before: Instant,
    /// `Some` after a failure, until something succeeds.
    backoff: Option<Duration>,
}

impl Lane {
    fn new(now: Instant) -> Self {
        Lane {
            waiting: VecDeque::new(),
            flights: 0,
            not_before: now,
            backoff: None,
        }
    }
}

/// A key that is on its way, and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub key: Key,
    /// The number of its entry, which stays until the job is done.
    id: usize,
    pub action: Action,
    /// The CAS unique that the last change gave the item at its source; 0 if none is known.
    pub cas: u64,
}

/// What is known of a key that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// When the oldest event came that it was owed for.
    pub since: Instant,
    /// An earlier attempt has failed, and may yet arrive.
    pub is_doubted: bool,
}

/// What a key is pushed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub action: Action,
    /// See [`Job::cas`].
    pub cas: u64,
    pub mark: Mark,
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    ids: HashMap<Key, usize>,
    entries: Vec<Option<Entry>>,
    /// Numbers of entries that are gone.
    free: Vec<usize>,
    lanes: Vec<Lane>,
    held: Vec<Held>,
    bytes: usize,
    next_lane: usize,
    flights: usize,
}

impl Queue {
    pub fn new(lanes: usize, now: Instant) -> Self {
        Queue {
            ids: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            lanes: (0..lanes).map(|_| Lane::new(now)).collect(),
            held: Vec::new(),
            bytes: 0,
            next_lane: 0,
            flights: 0,
        }
    }

    /// A place for marks of one more source.
    pub fn slot(&mut self) -> usize {
        self.held.push(Held::default());
        self.held.len() - 1
    }

    /// Keys that wait or are on their way.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Memory that they take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The lowest event of the slot that is not yet done.
    pub fn first_held(&self, slot: usize) -> Option<u64> {
        self.held[slot].first()
    }

    /// How long the oldest key waits that is not on its way.
    pub fn waits_since(&self) -> Option<Instant> {
        let fronts = self.lanes.iter().filter_map(|lane| lane.waiting.front());
        let since = fronts.filter_map(|&id| self.entries.get(id)?.as_ref());
        since.map(|entry| entry.since).min()
    }

    /// True if the key is here already: to push it takes no memory.
    pub fn has(&self, key: &[u8]) -> bool {
        self.ids.contains_key(key)
    }

    /// Something is to become of a key, for which `mark` is held until it is done; true if the key was here already. Marks of a slot
    /// come in the order of their numbers.
    pub fn push(&mut self, key: &Key, change: Change, lane: usize, now: Instant) -> bool {
        let Change { action, cas, mark } = change;
        let held = &mut self.held[mark.slot];
        if let Some(&id) = self.ids.get(key)
            && let Some(entry) = &mut self.entries[id]
        {
            if entry.marks.is_empty() {
                entry.since = now;
            }
            (entry.action, entry.cas) = (action, cas);
            if !entry.marks.has(mark.slot) {
                let nth = held.hold(mark.seq);
                entry.marks.add(Hold {
                    slot: mark.slot,
                    nth,
                });
            }
            return true;
        }
        let mut marks = Marks::default();
        let nth = held.hold(mark.seq);
        marks.add(Hold {
            slot: mark.slot,
            nth,
        });
        self.bytes += key.len() + ENTRY_LEN;
        let entry = Entry {
            key: key.clone(),
            action,
            cas,
            marks,
            flight: None,
            since: now,
            flight_since: now,
            is_doubted: false,
            lane,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id] = Some(entry);
                id
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        };
        self.lanes[lane].waiting.push_back(id);
        self.ids.insert(key.clone(), id);
        false
    }

    /// Keys of one lane that may go now, at most `most`, and the lane. Each is then [`done`](Self::done) or
    /// [`failed`](Self::failed), and the lane [`landed`](Self::landed).
    pub fn take(&mut self, most: usize, now: Instant) -> Option<(usize, Vec<Job>)> {
        for _ in 0..self.lanes.len() {
            let at = self.next_lane % self.lanes.len();
            self.next_lane = at + 1;
            let lane = &mut self.lanes[at];
            let flights_max = if lane.backoff.is_some() {
                1
            } else {
                FLIGHTS_MAX
            };
            if lane.waiting.is_empty() || lane.flights >= flights_max || lane.not_before > now {
                continue;
            }
            lane.flights += 1;
            self.flights += 1;
            lane.not_before = now + APART;
            let mut jobs = Vec::new();
            while jobs.len() < most {
                let Some(id) = lane.waiting.pop_front() else {
                    break;
                };
                let Some(entry) = &mut self.entries[id] else {
                    continue;
                };
                entry.flight = Some(entry.marks.take());
                entry.flight_since = entry.since;
                jobs.push(Job {
                    key: entry.key.clone(),
                    id,
                    action: entry.action,
                    cas: entry.cas,
                });
            }
            return Some((at, jobs));
        }
        None
    }

    /// Batches that are on their way.
    pub fn flights(&self) -> usize {
        self.flights
    }

    /// When [`take`](Self::take) may give something, if nothing happens before.
    pub fn ready_at(&self) -> Option<Instant> {
        let lanes = self.lanes.iter().filter(|lane| {
            let flights_max = if lane.backoff.is_some() {
                1
            } else {
                FLIGHTS_MAX
            };
            !lane.waiting.is_empty() && lane.flights < flights_max
        });
        lanes.map(|lane| lane.not_before).min()
    }

    /// It is done.
    pub fn done(&mut self, job: &Job) -> Option<Done> {
        let entry = self.entries.get_mut(job.id)?.as_mut()?;
        let flight = entry.flight.take()?;
        let done = Done {
            since: entry.flight_since,
            is_doubted: std::mem::take(&mut entry.is_doubted),
        };
        for hold in flight.iter() {
            self.held[hold.slot].let_go(hold.nth);
        }
        if entry.marks.is_empty() {
            self.bytes -= job.key.len() + ENTRY_LEN;
            self.ids.remove(&job.key);
            self.entries[job.id] = None;
            self.free.push(job.id);
        } else {
            self.lanes[entry.lane].waiting.push_back(job.id);
        }
        Some(done)
    }

    /// It is not done, and goes again; `instead` is what is to be tried then, unless something newer has come.
    pub fn failed(&mut self, job: &Job, instead: Option<Action>) {
        let Some(Some(entry)) = self.entries.get_mut(job.id) else {
            return;
        };
        let Some(flight) = entry.flight.take() else {
            return;
        };
        if entry.marks.is_empty() {
            entry.action = instead.unwrap_or(entry.action);
        }
        entry.is_doubted = true;
        let newer = std::mem::replace(&mut entry.marks, flight);
        for hold in newer.iter() {
            if entry.marks.has(hold.slot) {
                self.held[hold.slot].let_go(hold.nth);
            } else {
                entry.marks.add(hold);
            }
        }
        entry.since = entry.flight_since;
        self.lanes[entry.lane].waiting.push_front(job.id);
    }

    /// What was taken for a lane has come back; whether the node has done anything of it.
    pub fn landed(&mut self, lane: usize, worked: bool, now: Instant) {
        self.flights -= 1;
        let Some(lane) = self.lanes.get_mut(lane) else {
            return;
        };
        lane.flights = lane.flights.saturating_sub(1);
        if worked {
            lane.backoff = None;
        } else {
            let pause = lane
                .backoff
                .map_or(BACKOFF.0, |pause| (2 * pause).min(BACKOFF.1));
            lane.backoff = Some(pause);
            lane.not_before = now + pause;
        }
    }

    /// The target has other nodes: each key goes into the lane that `lane_of` says.
    pub fn regroup(&mut self, lanes: usize, lane_of: impl Fn(&[u8]) -> usize, now: Instant) {
        let old = std::mem::take(&mut self.lanes);
        self.lanes = (0..lanes).map(|_| Lane::new(now)).collect();
        self.next_lane = 0;
        for entry in self.entries.iter_mut().flatten() {
            entry.lane = lane_of(&entry.key);
        }
        for id in old.into_iter().flat_map(|lane| lane.waiting) {
            if let Some(entry) = &self.entries[id] {
                self.lanes[entry.lane].waiting.push_back(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &[u8]) -> Key {
        key.into()
    }

    fn mark(slot: usize, seq: u64) -> Mark {
        Mark { slot, seq }
    }

    fn change(action: Action, mark: Mark) -> Change {
        Change {
            action,
            cas: 0,
            mark,
        }
    }

    fn keys(jobs: &[Job]) -> Vec<&[u8]> {
        jobs.iter().map(|job| &*job.key).collect()
    }

    #[test]
    fn a_key_waits_once_and_is_held_until_it_is_done() {
        let now = Instant::now();
        let mut queue = Queue::new(1, now);
        let slot = queue.slot();
        assert!(!queue.push(&key(b"a"), change(Action::Value(0), mark(slot, 5)), 0, now));
        assert!(!queue.push(&key(b"b"), change(Action::Delete, mark(slot, 6)), 0, now));
        assert!(queue.push(&key(b"a"), change(Action::Delete, mark(slot, 7)), 0, now));
        assert_eq!((queue.len(), queue.first_held(slot)), (2, Some(5)));
        let (lane, jobs) = queue.take(10, now).expect("two");
        assert_eq!(keys(&jobs), [b"a", b"b"]);
        assert_eq!(jobs[0].action, Action::Delete, "the last word counts");
        // What comes meanwhile goes again, and not before the first is back.
        queue.push(&key(b"a"), change(Action::Value(0), mark(slot, 8)), 0, now);
        assert_eq!(queue.take(10, now + APART), None);
        queue.done(&jobs[0]);
        queue.done(&jobs[1]);
        queue.landed(lane, true, now);
        assert_eq!((queue.len(), queue.first_held(slot)), (1, Some(8)));
        let (_, jobs) = queue.take(10, now + APART).expect("a, again");
        assert_eq!(jobs[0].action, Action::Value(0));
        queue.done(&jobs[0]);
        assert_eq!(
            (queue.len(), queue.bytes(), queue.first_held(slot)),
            (0, 0, None)
        );
    }

    #[test]
    fn what_fails_goes_again_and_is_still_held() {
        let now = Instant::now();
        let mut queue = Queue::new(2, now);
        let (one, other) = (queue.slot(), queue.slot());
        queue.push(&key(b"a"), change(Action::Value(0), mark(one, 1)), 1, now);
        let (lane, jobs) = queue.take(10, now).expect("a");
        queue.push(&key(b"a"), change(Action::Delete, mark(other, 9)), 1, now);
        queue.push(&key(b"a"), change(Action::Delete, mark(one, 2)), 1, now);
        queue.failed(&jobs[0], None);
        queue.landed(lane, false, now);
        assert_eq!(
            (queue.first_held(one), queue.first_held(other)),
            (Some(1), Some(9))
        );
        assert_eq!(queue.take(10, now + APART), None, "the node is given time");
        let (_, jobs) = queue.take(10, now + BACKOFF.0).expect("a");
        assert_eq!(jobs[0].action, Action::Delete);
        queue.done(&jobs[0]);
        assert_eq!(
            (queue.first_held(one), queue.first_held(other)),
            (None, None)
        );
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_value_that_is_refused_becomes_a_delete() {
        let now = Instant::now();
        let mut queue = Queue::new(1, now);
        let slot = queue.slot();
        queue.push(&key(b"a"), change(Action::Value(0), mark(slot, 1)), 0, now);
        let (lane, jobs) = queue.take(10, now).expect("a");
        queue.failed(&jobs[0], Some(Action::Delete));
        queue.landed(lane, true, now);
        let (_, jobs) = queue.take(10, now + APART).expect("a");
        assert_eq!(jobs[0].action, Action::Delete);
    }

    /// Whatever happens in whatever order: what is held is what was pushed and not done after it.
    #[test]
    fn marks_against_a_model() {
        let mut rng = ketch_testing::Rng::from_env("KETCH_RELAY_SEED");
        for _ in 0..200 {
            let mut now = Instant::now();
            let mut queue = Queue::new(3, now);
            let slot = queue.slot();
            let mut seq = 0;
            // By key: events not yet covered, and those that were when it took off.
            let mut owed: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
            let mut flying: Vec<(usize, Vec<Job>, Vec<Vec<u64>>)> = Vec::new();
            for _ in 0..300 {
                now += Duration::from_millis(rng.below(50));
                match rng.below(5) {
                    0..=2 => {
                        seq += 1;
                        let key = vec![b'a' + rng.below(12) as u8];
                        let lane = usize::from(key[0]) % 3;
                        let pushed = change(Action::Delete, mark(slot, seq));
                        queue.push(&key[..].into(), pushed, lane, now);
                        owed.entry(key).or_default().push(seq);
                    }
                    3 => {
                        if let Some((lane, jobs)) = queue.take(1 + rng.below(4) as usize, now) {
                            let covered = jobs.iter().map(|job| {
                                owed.get_mut(&*job.key)
                                    .map(std::mem::take)
                                    .unwrap_or_default()
                            });
                            let covered = covered.collect();
                            flying.push((lane, jobs, covered));
                        }
                    }
                    _ if !flying.is_empty() => {
                        let at = rng.below(flying.len() as u64) as usize;
                        let (lane, jobs, covered) = flying.swap_remove(at);
                        let worked = rng.below(2) == 0;
                        for (job, covered) in jobs.iter().zip(covered) {
                            if worked {
                                queue.done(job);
                            } else {
                                queue.failed(job, None);
                                let owed = owed.entry(job.key.to_vec()).or_default();
                                owed.extend(covered);
                            }
                        }
                        queue.landed(lane, worked, now);
                        if rng.below(8) == 0 {
                            queue.regroup(3, |key| usize::from(key[0]) % 3, now);
                        }
                    }
                    _ => {}
                }
                let waiting = owed.values().flatten();
                let under_way = flying
                    .iter()
                    .flat_map(|(_, _, covered)| covered.iter().flatten());
                let first = waiting.chain(under_way).min().copied();
                assert_eq!(queue.first_held(slot), first);
            }
        }
    }
}
