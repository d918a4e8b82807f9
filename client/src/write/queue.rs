//! The changes that wait for the store: a queue without threads and without a clock.
//!
//! ```text
//!  push --> order: keys by their turn --due--> batch --> Writer --ok--> written
//!           newest: key -> newest change          ^          |
//!                                                 '-- pause, again ('attempts' times), then each change alone: lost if that fails
//! ```
//!
//! Q1. A key is in `newest` and in `order`, both or neither; at most once in each.
//! Q2. One batch is out at a time, in `batch`, until its end was told. So changes of a key keep their order.
//! Q3. A change of a batch that failed is dropped if a newer one of its key waits.
//! Q4. Turns grow along `order`, and those of the batch and of `alone` are below.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::{Change, WriteBehindOptions, WriteBehindStats};
use client_core::value::Item;

/// What the queue has for whoever writes.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// These are to be written now; how that ended is to be told by [`Queue::ended`].
    Write(Vec<Change>),
    /// Nothing before then, unless something is pushed or flushed.
    At(Instant),
    /// Nothing until something is pushed.
    Nothing,
    /// Nothing any more: it is closed, and empty.
    Over,
}

#[derive(Debug)]
struct Waiting {
    item: Option<Item>,
    turn: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    options: WriteBehindOptions,
    newest: HashMap<Bytes, Waiting>,
    order: VecDeque<(Bytes, Instant)>,
    /// What is out, or is to go out again at `retry_at`, by turn.
    batch: Vec<(u64, Change)>,
    out: bool,
    attempts: u32,
    retry_at: Option<Instant>,
    /// Changes of a batch that was given up, each to be tried once by itself.
    alone: VecDeque<(u64, Change)>,
    turns: u64,
    /// Changes up to this turn do not wait for their delay.
    hurry: u64,
    closed: bool,
    stats: WriteBehindStats,
}

impl Queue {
    pub fn new(options: WriteBehindOptions) -> Self {
        Queue {
            options,
            newest: HashMap::new(),
            order: VecDeque::new(),
            batch: Vec::new(),
            out: false,
            attempts: 0,
            retry_at: None,
            alone: VecDeque::new(),
            turns: 0,
            hurry: 0,
            closed: false,
            stats: WriteBehindStats::default(),
        }
    }

    fn len(&self) -> usize {
        self.newest.len() + self.batch.len() + self.alone.len()
    }

    /// Takes a change; false if there is no room for its key.
    pub fn push(&mut self, key: &[u8], item: Option<Item>, now: Instant) -> bool {
        if let Some(waiting) = self.newest.get_mut(key) {
            waiting.item = item;
            self.stats.changes += 1;
            self.stats.coalesced += 1;
            return true;
        }
        if self.len() >= self.options.queue_max {
            return false;
        }
        let key = Bytes::copy_from_slice(key);
        self.turns += 1;
        let turn = self.turns;
        self.order
            .push_back((key.clone(), now + self.options.delay));
        self.newest.insert(key, Waiting { item, turn });
        self.stats.changes += 1;
        true
    }

    /// The newest change of a key that is not known to be in the store: its value, or that it is deleted.
    pub fn waiting(&self, key: &[u8]) -> Option<Option<Item>> {
        if let Some(waiting) = self.newest.get(key) {
            return Some(waiting.item.clone());
        }
        let given = self.batch.iter().chain(&self.alone);
        let mut of_key = given.filter(|(_, change)| change.key == key);
        of_key.next().map(|(_, change)| change.item.clone())
    }

    /// What is to be done now.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.out {
            return Next::Nothing;
        }
        if let Some(at) = self.retry_at {
            if now < at && !self.closed {
                return Next::At(at);
            }
            let (newest, stats) = (&self.newest, &mut self.stats);
            self.batch.retain(|(_, change)| {
                let superseded = newest.contains_key(&change.key);
                stats.coalesced += u64::from(superseded);
                !superseded
            });
            self.retry_at = None;
        }
        if self.batch.is_empty() {
            self.attempts = 0;
            self.take_batch(now);
        }
        if !self.batch.is_empty() {
            self.out = true;
            return Next::Write(
                self.batch
                    .iter()
                    .map(|(_, change)| change.clone())
                    .collect(),
            );
        }
        match self.order.front() {
            Some((_, due)) => Next::At(*due),
            None if self.closed => Next::Over,
            None => Next::Nothing,
        }
    }

    fn take_batch(&mut self, now: Instant) {
        while let Some((turn, change)) = self.alone.pop_front() {
            if self.newest.contains_key(&change.key) {
                self.stats.coalesced += 1;
                continue;
            }
            // Its last attempt.
            self.attempts = self.options.attempts - 1;
            self.batch.push((turn, change));
            return;
        }
        while let Some((key, due)) = self.order.front() {
            let hurries = self.closed || self.newest[key].turn <= self.hurry;
            // What goes along with a change that is due is not kept back.
            if self.batch.len() == self.options.batch_max
                || (self.batch.is_empty() && *due > now && !hurries)
            {
                break;
            }
            let (key, _) = self.order.pop_front().expect("just seen");
            let Waiting { item, turn } = self.newest.remove(&key).expect("Q1");
            self.batch.push((turn, Change { key, item }));
        }
    }

    /// The writer has come to the end of the batch.
    pub fn ended(&mut self, error: Option<&dyn std::fmt::Display>, now: Instant) {
        self.out = false;
        let Some(error) = error else {
            self.stats.written += self.batch.len() as u64;
            self.batch.clear();
            return;
        };
        self.stats.failures += 1;
        self.attempts += 1;
        if self.attempts < self.options.attempts {
            let doubled = 1 << (self.attempts - 1).min(16);
            let pause = (self.options.retry_pause * doubled).min(self.options.retry_pause_max);
            log::warn!(
                "{} changes could not be written, the next attempt is in {pause:?}: {error}",
                self.batch.len()
            );
            self.retry_at = Some(now + pause);
        } else if let [(_, change)] = &self.batch[..] {
            log::error!("a change of {:?} is lost: {error}", change.key);
            self.stats.lost += 1;
            self.batch.clear();
        } else {
            self.alone.extend(self.batch.drain(..));
        }
    }

    /// Has all that waits now written without delay. Gives what [`is_flushed`](Self::is_flushed) is to be asked with.
    pub fn flush(&mut self) -> u64 {
        self.hurry = self.turns;
        self.turns
    }

    /// True if no change up to this turn waits any more.
    pub fn is_flushed(&self, turn: u64) -> bool {
        let waiting = self.order.front().map(|(key, _)| self.newest[key].turn);
        let given = self.batch.iter().chain(&self.alone).map(|(turn, _)| *turn);
        given.chain(waiting).all(|waiting| waiting > turn)
    }

    /// Nothing is taken any more; what waits is written without delay.
    pub fn close(&mut self) {
        self.closed = true;
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Gives up what waits. Tells how many changes that were.
    pub fn give_up(&mut self) -> usize {
        let lost = self.len();
        self.stats.lost += lost as u64;
        self.newest.clear();
        self.order.clear();
        self.alone.clear();
        self.batch.clear();
        self.retry_at = None;
        lost
    }

    pub fn stats(&self) -> WriteBehindStats {
        WriteBehindStats {
            waiting: self.len() as u64,
            ..self.stats
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn options() -> WriteBehindOptions {
        WriteBehindOptions::default()
            .delay(10 * MS)
            .batch_max(3)
            .queue_max(5)
            .attempts(2)
            .retry_pause(MS, 4 * MS)
    }

    fn written(next: Next) -> Vec<String> {
        let Next::Write(changes) = next else {
            panic!("{next:?}")
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let line = |change: &Change| match &change.item {
            Some(item) => format!("{}={}", text(&change.key), text(&item.value)),
            None => format!("{}-", text(&change.key)),
        };
        changes.iter().map(line).collect()
    }

    fn push(queue: &mut Queue, key: &str, value: &str, now: Instant) -> bool {
        queue.push(key.as_bytes(), Some(value.to_owned().into()), now)
    }

    #[test]
    fn newer_changes_take_the_turn_of_older_ones() {
        let (mut queue, now) = (Queue::new(options()), Instant::now());
        for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("d", "1")] {
            assert!(push(&mut queue, key, value, now));
        }
        assert!(queue.push(b"b", None, now));
        assert_eq!(queue.next(now), Next::At(now + 10 * MS));
        assert_eq!(queue.waiting(b"a"), Some(Some("2".into())));
        assert_eq!(queue.waiting(b"b"), Some(None));
        assert_eq!(queue.waiting(b"z"), None);
        let now = now + 10 * MS;
        assert_eq!(written(queue.next(now)), ["a=2", "b-", "c=1"]);
        // What is out is still waited for, and one batch is out at a time.
        assert_eq!(queue.waiting(b"a"), Some(Some("2".into())));
        assert_eq!(queue.next(now), Next::Nothing);
        assert!(push(&mut queue, "a", "3", now));
        assert!(!push(&mut queue, "e", "1", now), "five keys");
        queue.ended(None, now);
        assert!(push(&mut queue, "e", "1", now));
        assert_eq!(written(queue.next(now)), ["d=1", "a=3", "e=1"]);
        queue.ended(None, now);
        assert_eq!(queue.next(now), Next::Nothing);
        let stats = queue.stats();
        assert_eq!((stats.changes, stats.coalesced, stats.written), (8, 2, 6));
        assert_eq!((stats.lost, stats.waiting), (0, 0));
    }

    #[test]
    fn a_batch_that_fails_is_tried_again_without_what_is_superseded() {
        let (mut queue, now) = (Queue::new(options()), Instant::now());
        push(&mut queue, "a", "1", now);
        push(&mut queue, "b", "1", now);
        let now = now + 10 * MS;
        assert_eq!(written(queue.next(now)), ["a=1", "b=1"]);
        queue.ended(Some(&"no"), now);
        push(&mut queue, "a", "2", now);
        assert_eq!(queue.next(now), Next::At(now + MS));
        assert_eq!(written(queue.next(now + MS)), ["b=1"]);
        queue.ended(None, now);
        assert_eq!(written(queue.next(now + 10 * MS)), ["a=2"]);
    }

    #[test]
    fn one_bad_change_is_lost_alone() {
        let (mut queue, mut now) = (Queue::new(options()), Instant::now());
        for key in ["a", "bad", "c"] {
            push(&mut queue, key, "1", now);
        }
        let target = queue.flush();
        let mut batches = Vec::new();
        loop {
            match queue.next(now) {
                Next::Write(changes) => {
                    let keys: Vec<Bytes> = changes.into_iter().map(|change| change.key).collect();
                    assert!(!queue.is_flushed(target));
                    let fails = keys.iter().any(|key| key == "bad");
                    let error: Option<&dyn std::fmt::Display> =
                        if fails { Some(&"no") } else { None };
                    queue.ended(error, now);
                    batches.push(keys.len());
                }
                Next::At(at) => now = at,
                Next::Nothing => break,
                Next::Over => panic!("it is open"),
            }
        }
        assert_eq!(batches, [3, 3, 1, 1, 1]);
        assert!(queue.is_flushed(target));
        let stats = queue.stats();
        assert_eq!((stats.written, stats.lost, stats.failures), (2, 1, 3));
    }

    #[test]
    fn closed_it_hurries_and_ends() {
        let (mut queue, now) = (Queue::new(options()), Instant::now());
        push(&mut queue, "a", "1", now);
        queue.close();
        assert_eq!(written(queue.next(now)), ["a=1"]);
        queue.ended(Some(&"no"), now);
        assert_eq!(written(queue.next(now)), ["a=1"], "without a pause");
        queue.ended(None, now);
        assert_eq!(queue.next(now), Next::Over);
    }

    /// Random changes, failures and flushes: the store ends as the last changes say, but for what is counted as lost, and each
    /// change is accounted for.
    #[test]
    fn every_change_is_accounted_for() {
        for seed in 1..300_u64 {
            let mut state = seed;
            let mut chance = |below: u64| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) % below
            };
            let (mut queue, mut now) = (Queue::new(options()), Instant::now());
            let mut model: HashMap<String, String> = HashMap::new();
            let mut store: HashMap<Bytes, Bytes> = HashMap::new();
            let mut out: Option<Vec<Change>> = None;
            let mut pushed = 0;
            for step in 0..400 {
                if step == 350 {
                    queue.close();
                }
                match chance(4) {
                    0 | 1 if step < 350 => {
                        let (key, value) = (format!("k{}", chance(8)), step.to_string());
                        if push(&mut queue, &key, &value, now) {
                            model.insert(key, value);
                            pushed += 1;
                        }
                    }
                    2 => now += MS * chance(5) as u32,
                    _ => match out.take() {
                        Some(changes) => {
                            let fails = step < 350 && chance(10) == 0;
                            if !fails {
                                for change in changes {
                                    let item = change.item.expect("nothing is deleted");
                                    store.insert(change.key, item.value);
                                }
                            }
                            let error: Option<&dyn std::fmt::Display> =
                                if fails { Some(&"no") } else { None };
                            queue.ended(error, now);
                        }
                        None => {
                            if let Next::Write(changes) = queue.next(now) {
                                out = Some(changes);
                            }
                        }
                    },
                }
                for (key, value) in &model {
                    if let Some(waiting) = queue.waiting(key.as_bytes()) {
                        assert_eq!(waiting, Some(Item::from(value.clone())), "seed {seed}");
                    }
                }
            }
            let stats = queue.stats();
            assert_eq!((stats.changes, stats.waiting), (pushed, 0), "seed {seed}");
            assert_eq!(stats.coalesced + stats.written + stats.lost, pushed);
            if stats.lost == 0 {
                for (key, value) in &model {
                    assert_eq!(
                        store[key.as_bytes()],
                        value.as_bytes(),
                        "seed {seed}: {key}"
                    );
                }
            }
        }
    }
}
