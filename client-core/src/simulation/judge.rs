//! Who knows what each key may hold, and holds what clients are told against it.
//!
//! Each register has one writer, whose operations follow each other; every client reads it. So what a read may find is
//! known: what the last acknowledged write left, and what writes that were not acknowledged, or began before the read
//! ended, may have left since. Of the other keys less is known, but for instance: a number is stored by cas once.

use std::collections::{BTreeMap, BTreeSet};

use super::deeds::{BASE, COUNTERS, Deed, KEYS, LISTS, LOCKS, Outcome, REGISTERS, SWAPPED, names};
use crate::error::Error;
use crate::value::Cas;

/// One write of a register: its value's number, or a delete.
#[derive(Debug, Clone, Copy)]
struct Written {
    value: Option<usize>,
    begun: u64,
    /// When it was acknowledged.
    acknowledged: Option<u64>,
    /// A copy was evicted while it was on its way.
    evicted: bool,
}

/// One step of a key that several clients change: by how much, its number, or whose piece.
#[derive(Debug, Clone, Copy)]
struct Step {
    client: usize,
    what: i64,
    acknowledged: Option<u64>,
    /// It surely did nothing.
    in_vain: bool,
}

/// An operation, for the judge.
#[derive(Debug, Clone)]
pub struct Act {
    pub client: usize,
    pub deed: Deed,
    pub begun: u64,
    /// Where its writes are in the histories, by key.
    pub places: Vec<usize>,
}

/// What the judge found.
#[derive(Debug, Default, Clone)]
pub struct Verdict {
    pub reads: u64,
    pub writes: u64,
    pub errors: u64,
    /// Deleted values that were seen while a repair was being looked at.
    pub moments: u64,
    /// Old values where a copy was evicted while the new one was on its way.
    pub evicted_on_the_way: u64,
    /// Reads that missed a key while another client wrote it, and it moved.
    pub missed_moving: u64,
    /// Counters that were ahead, by no more than a step of each other client.
    pub ahead: u64,
    /// Lists with a piece twice, where copies are evicted.
    pub twice: u64,
    /// How often each promise was broken.
    pub broken: BTreeMap<&'static str, u64>,
    /// The first of each kind.
    pub stories: BTreeMap<&'static str, String>,
}

impl Verdict {
    fn breaks(&mut self, kind: &'static str, story: impl FnOnce() -> String) {
        *self.broken.entry(kind).or_default() += 1;
        self.stories.entry(kind).or_insert_with(story);
    }

    /// How often these promises were broken.
    pub fn count(&self, kinds: &[&str]) -> u64 {
        let of = |kind: &&str| self.broken.get(kind).copied().unwrap_or(0);
        kinds.iter().map(of).sum()
    }

    pub fn add(&mut self, other: &Verdict) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.errors += other.errors;
        self.moments += other.moments;
        self.evicted_on_the_way += other.evicted_on_the_way;
        self.missed_moving += other.missed_moving;
        self.ahead += other.ahead;
        self.twice += other.twice;
        for (kind, count) in &other.broken {
            *self.broken.entry(kind).or_default() += count;
        }
        for (kind, story) in &other.stories {
            self.stories.entry(kind).or_insert_with(|| story.clone());
        }
    }
}

/// See the module.
pub struct Judge {
    clients: usize,
    registers: Vec<Vec<Written>>,
    steps: Vec<Vec<Step>>,
    /// Who has a lock, as far as is known.
    holders: Vec<Option<usize>>,
    /// A key whose copies are fewer than they should be for a reason that the docs name.
    pub thin: [bool; KEYS],
    /// Writes that began before this do not change that.
    thin_until: u64,
    /// A key of which nothing is known any more: it may have been lost.
    void: [bool; KEYS],
    /// Any key may be missing.
    pub may_lose: bool,
    /// Keys move to other nodes.
    pub moves: bool,
    /// Copies are evicted all the time.
    pub evicts: bool,
    /// For how long after a delete its value may be seen, since a repair may have been under way, in microseconds.
    pub moment_us: u64,
    pub verdict: Verdict,
}

impl Judge {
    pub fn new(clients: usize) -> Self {
        Judge {
            clients,
            registers: vec![Vec::new(); REGISTERS.end],
            steps: vec![Vec::new(); KEYS],
            holders: vec![None; KEYS],
            thin: [false; KEYS],
            thin_until: 0,
            void: [false; KEYS],
            may_lose: false,
            moves: false,
            evicts: false,
            moment_us: 2_000_000,
            verdict: Verdict::default(),
        }
    }

    pub fn is_own(&self, client: usize, key: usize) -> bool {
        key % self.clients == client
    }

    /// The number of a register's next write.
    pub fn next_value(&self, key: usize) -> usize {
        self.registers[key].len()
    }

    /// How many pieces the client has added.
    pub fn pieces(&self, client: usize) -> usize {
        let steps = LISTS.flat_map(|key| &self.steps[key]);
        steps.filter(|step| step.client == client).count()
    }

    pub fn holds(&self, client: usize, key: usize) -> bool {
        self.holders[key] == Some(client)
    }

    /// A copy of the key was evicted.
    pub fn evicted(&mut self, key: usize) {
        if let Some(last) = self.registers.get_mut(key).and_then(|all| all.last_mut()) {
            last.evicted |= last.acknowledged.is_none();
        }
    }

    /// From now on, any key may be missing that was not written since.
    pub fn unwritten(&mut self, now: u64) {
        self.thin = [true; KEYS];
        self.thin_until = now + 1;
    }

    /// An operation begins.
    pub fn begins(&mut self, client: usize, deed: Deed, now: u64) -> Act {
        let mut write = |key: usize, value| {
            self.registers[key].push(Written {
                value,
                begun: now,
                acknowledged: None,
                evicted: false,
            });
            self.registers[key].len() - 1
        };
        let places = match &deed {
            &Deed::Set(key, value) => vec![write(key, Some(value))],
            Deed::SetMulti(values) => values
                .iter()
                .map(|&(key, value)| write(key, Some(value)))
                .collect(),
            &Deed::Delete(key) => vec![write(key, None)],
            Deed::DeleteMulti(keys) => keys.iter().map(|&key| write(key, None)).collect(),
            &Deed::Count(key, down) => vec![self.step(client, key, if down { -1 } else { 1 })],
            Deed::CountMulti => COUNTERS.map(|key| self.step(client, key, 1)).collect(),
            &Deed::Swap(key, _, number) => vec![self.step(client, key, number as i64)],
            &Deed::First(key) => vec![self.step(client, key, 0)],
            &Deed::Piece(key, _, number) => vec![self.step(client, key, number as i64)],
            &Deed::Unlock(key) => {
                self.holders[key] = None;
                Vec::new()
            }
            _ => Vec::new(),
        };
        Act {
            client,
            deed,
            begun: now,
            places,
        }
    }

    fn step(&mut self, client: usize, key: usize, what: i64) -> usize {
        self.steps[key].push(Step {
            client,
            what,
            acknowledged: None,
            in_vain: false,
        });
        self.steps[key].len() - 1
    }

    /// An operation has ended, and told this.
    pub fn ended(&mut self, act: &Act, outcome: &Outcome, now: u64) {
        let keys = act.deed.keys();
        match outcome {
            Outcome::Found(found) => {
                for (&key, found) in keys.iter().zip(found) {
                    self.verdict.reads += 1;
                    match found {
                        Ok(found) => self.read(act, key, found.as_deref(), now),
                        Err(error) => self.error(act, key, error, now),
                    }
                }
            }
            Outcome::Versioned(found) => {
                self.verdict.reads += 1;
                match found {
                    Ok(found) => {
                        let found = found.as_ref().map(|(text, _)| &**text);
                        self.read(act, keys[0], found, now);
                    }
                    Err(error) => self.error(act, keys[0], error, now),
                }
            }
            Outcome::Wrote(wrote) => {
                for (at, (&key, wrote)) in keys.iter().zip(wrote).enumerate() {
                    self.verdict.writes += 1;
                    match wrote {
                        Ok(done) => self.wrote(act, key, act.places.get(at), *done, now),
                        Err(error) => self.error(act, key, error, now),
                    }
                }
            }
            Outcome::Counted(counted) => {
                for ((&key, &place), counted) in keys.iter().zip(&act.places).zip(counted) {
                    self.verdict.writes += 1;
                    match counted {
                        Ok(number) => {
                            let step = &mut self.steps[key][place];
                            match number {
                                Some(_) => step.acknowledged = Some(now),
                                // There was no counter.
                                None => step.what = 0,
                            }
                            self.counter(act, key, *number, now);
                            self.thin[key] &= number.is_none() || act.begun < self.thin_until;
                        }
                        Err(error) => self.error(act, key, error, now),
                    }
                }
            }
            Outcome::Swapped(swapped) => {
                self.verdict.writes += 1;
                match swapped {
                    Ok(Cas::Stored) => self.won(act, keys[0], act.places[0], now),
                    Ok(_) => self.steps[keys[0]][act.places[0]].in_vain = true,
                    Err(error) => self.error(act, keys[0], error, now),
                }
            }
        }
    }

    fn wrote(&mut self, act: &Act, key: usize, place: Option<&usize>, done: bool, now: u64) {
        match (&act.deed, place) {
            (Deed::Unlock(_), _) => {}
            (Deed::Lock(_), _) if done => {
                if let Some(holder) = self.holders[key].replace(act.client)
                    && !self.void[key]
                    && !self.may_lose
                    && !self.thin[key]
                {
                    self.verdict.breaks("two holders", || {
                        format!(
                            "{now} us: client {} has lock {key} of client {holder}",
                            act.client
                        )
                    });
                }
            }
            (Deed::First(_), Some(&place)) if done => self.won(act, key, place, now),
            (Deed::First(_) | Deed::Piece(..), Some(&place)) => {
                let step = &mut self.steps[key][place];
                (step.acknowledged, step.in_vain) = (Some(now), !done);
            }
            (_, Some(&place)) => {
                self.registers[key][place].acknowledged = Some(now);
                self.thin[key] &= act.begun < self.thin_until;
            }
            _ => {}
        }
    }

    /// A number was stored by cas, or the first by add.
    fn won(&mut self, act: &Act, key: usize, place: usize, now: u64) {
        let number = self.steps[key][place].what;
        let again = self.steps[key]
            .iter()
            .any(|step| step.acknowledged.is_some() && !step.in_vain && step.what == number);
        self.steps[key][place].acknowledged = Some(now);
        if again && !self.void[key] && !self.may_lose && !self.thin[key] {
            self.verdict.breaks("two winners", || {
                format!(
                    "{now} us: client {} begun {} stored {number} of {key} as well",
                    act.client, act.begun
                )
            });
        }
        self.thin[key] &= act.begun < self.thin_until;
    }

    fn error(&mut self, act: &Act, key: usize, error: &Error, now: u64) {
        self.verdict.errors += 1;
        if LOCKS.contains(&key) {
            // Whether it is had, nobody knows.
            self.void[key] = true;
        }
        let story = || format!("{now} us: {:?} of {key}: {error}", act.deed);
        self.verdict.stories.entry("error").or_insert_with(story);
    }

    fn read(&mut self, act: &Act, key: usize, found: Option<&str>, now: u64) {
        match key {
            key if REGISTERS.contains(&key) => self.register(act, key, found, now),
            key if COUNTERS.contains(&key) || SWAPPED.contains(&key) => {
                let number = found.map(|text| text.trim_end().parse::<u64>());
                match number.transpose() {
                    Err(_) => self.wrong_key(key, found),
                    Ok(number) if COUNTERS.contains(&key) => self.counter(act, key, number, now),
                    Ok(number) => self.swapped(act, key, number, now),
                }
            }
            key if LISTS.contains(&key) => self.list(act, key, found, now),
            _ => {}
        }
    }

    fn wrong_key(&mut self, key: usize, found: Option<&str>) {
        self.verdict.breaks("wrong key", || {
            format!("{} is {found:?}", names().keys[key])
        });
    }

    /// True if it is no wonder that the key lacks something.
    fn may_lack(&mut self, key: usize) -> bool {
        let may = self.may_lose || self.thin[key] || self.void[key];
        self.void[key] |= may;
        may
    }

    fn counter(&mut self, act: &Act, key: usize, number: Option<u64>, now: u64) {
        if self.may_lose || self.void[key] {
            return;
        }
        let steps = &self.steps[key];
        let sure = |step: &&Step| step.acknowledged.is_some_and(|at| at <= act.begun);
        let sum: i64 = steps.iter().filter(sure).map(|step| step.what).sum();
        let unsure = || steps.iter().filter(|step| !sure(step));
        let up = unsure().filter(|step| step.what > 0).count() as i64;
        let down = unsure().filter(|step| step.what < 0).count() as i64;
        let Some(number) = number else {
            if steps.iter().any(|step| sure(&step)) && !self.may_lack(key) {
                self.verdict
                    .breaks("counter lost", || format!("{now} us: {key}, {sum} steps"));
            }
            return;
        };
        let is = number as i64 - BASE as i64;
        if (sum - down..=sum + up).contains(&is) || self.may_lack(key) {
            return;
        }
        let ahead = is - (sum + up);
        if (1..self.clients as i64).contains(&ahead) {
            // Clients met a copy that lacked it, at the same moment.
            self.verdict.ahead += 1;
            self.void[key] = true;
            return;
        }
        let kind = match ahead > 0 {
            true => "counter ahead",
            false => "counter behind",
        };
        self.verdict.breaks(kind, || {
            format!(
                "{now} us: client {} {:?} begun {}: {is}, not {} to {}",
                act.client,
                act.deed,
                act.begun,
                sum - down,
                sum + up
            )
        });
        // It stays so.
        self.void[key] = true;
    }

    fn swapped(&mut self, act: &Act, key: usize, number: Option<u64>, now: u64) {
        let won = self.steps[key].iter().filter(|step| !step.in_vain);
        let sure = won.filter(|step| step.acknowledged.is_some_and(|at| at <= act.begun));
        let Some(last) = sure.map(|step| step.what).max() else {
            return;
        };
        if number.is_some_and(|number| number as i64 >= last) || self.may_lack(key) {
            return;
        }
        let is_under_way = |step: &Step| {
            let before = step.acknowledged.is_some_and(|at| at <= act.begun);
            step.client != act.client && !step.in_vain && !before
        };
        if number.is_none() && self.moves && self.steps[key].iter().any(is_under_way) {
            // As in [`Judge::register`]: the key moves while another changes it.
            self.verdict.missed_moving += 1;
            return;
        }
        let kind = match number {
            None => "swapped lost",
            Some(_) => "swapped back",
        };
        self.verdict.breaks(kind, || {
            format!(
                "{now} us: client {} {:?} begun {}: {number:?} of {key}, was {last}",
                act.client, act.deed, act.begun
            )
        });
    }

    fn list(&mut self, act: &Act, key: usize, found: Option<&str>, now: u64) {
        let mut pieces = BTreeSet::new();
        let parts = found.unwrap_or("").split_inclusive('>');
        for piece in parts.filter(|piece| !piece.is_empty()) {
            let before = pieces.len();
            let known = piece.trim_matches(['<', '>']).split_once('.');
            let known = known.and_then(|(client, number)| {
                Some((client.parse::<usize>().ok()?, number.parse::<i64>().ok()?))
            });
            let Some(known) = known else {
                return self.wrong_key(key, found);
            };
            if !pieces.insert(known) && self.evicts {
                // A copy was repaired while the piece was on its way to it.
                self.verdict.twice += 1;
                self.void[key] = true;
                return;
            }
            if pieces.len() <= before {
                self.verdict.breaks("piece twice", || {
                    format!("{now} us: client {} {key}: {piece} {found:?}", act.client)
                });
                self.void[key] = true;
                return;
            }
        }
        if self.may_lose || self.void[key] {
            return;
        }
        let sure = self.steps[key].iter().filter(|step| !step.in_vain);
        let mut sure = sure.filter(|step| step.acknowledged.is_some_and(|at| at <= act.begun));
        let lacking = sure.find(|step| !pieces.contains(&(step.client, step.what)));
        let lacking = lacking.map(|step| (step.client, step.what));
        if let Some(piece) = lacking
            && !self.may_lack(key)
        {
            self.verdict.breaks("piece lost", || {
                format!(
                    "{now} us: client {} begun {}: {key} lacks {piece:?}: {found:?}",
                    act.client, act.begun
                )
            });
            self.void[key] = true;
        }
    }

    fn register(&mut self, act: &Act, key: usize, found: Option<&str>, now: u64) {
        let number = match found {
            None => None,
            Some(text) => match names().value(key, text) {
                Some(number) => Some(number),
                None => return self.wrong_key(key, found),
            },
        };
        let own = self.is_own(act.client, key);
        let history = &self.registers[key];
        let sure = history
            .iter()
            .rposition(|one| one.acknowledged.is_some_and(|at| at <= act.begun));
        let last = sure.and_then(|sure| history[sure].value);
        let later = &history[sure.map_or(0, |sure| sure + 1)..];
        let later = later.iter().filter(|one| one.begun <= now);
        let unsure = later.clone().any(|one| one.acknowledged.is_none());
        if number == last || later.clone().any(|one| one.value == number) {
            return;
        }
        let kind = match (number, last) {
            // What was not acknowledged is deleted everywhere, later or sooner.
            (None, _) if self.may_lose || unsure || self.thin[key] => return,
            // It asked the new owner before a write that was under way with it, and the old one after it.
            (None, _) if self.moves && !own && later.clone().next().is_some() => {
                self.verdict.missed_moving += 1;
                return;
            }
            (None, _) => "lost",
            // What was there within the moment before, by a repair that is not confirmed yet.
            (Some(_), _) if self.has_ended_lately(key, number, act.begun) => {
                self.verdict.moments += 1;
                return;
            }
            // A copy lost the new value before the other had it.
            (Some(_), Some(_)) if self.is_evicted_on_the_way(key, sure) => {
                self.verdict.evicted_on_the_way += 1;
                return;
            }
            (_, Some(_)) if own => "own stale",
            (_, None) if own => "own back",
            (_, Some(_)) => "other's stale",
            (_, None) => "other's back",
        };
        let from = history.len().saturating_sub(4);
        let story = format!(
            "{now} us: client {} reads {} begun {} us: {found:?}, last {last:?} of {:?}",
            act.client,
            names().keys[key],
            act.begun,
            &history[from..]
        );
        self.verdict.breaks(kind, || story);
    }

    /// True if a copy was evicted while the write that is sure, or one after it, was on its way to the others. What is written later
    /// ends it.
    fn is_evicted_on_the_way(&self, key: usize, sure: Option<usize>) -> bool {
        let history = &self.registers[key];
        history[sure.unwrap_or(0)..].iter().any(|one| one.evicted)
    }

    /// True if a repair may have found `number` before it was deleted, or overwritten and then deleted, within the moment before `begun`,
    /// or since; or overwritten, where copies lose values.
    fn has_ended_lately(&self, key: usize, number: Option<usize>, begun: u64) -> bool {
        let history = &self.registers[key];
        let mut later = history.iter().skip(number.map_or(0, |number| number + 1));
        let is_late = |one: &Written| {
            one.acknowledged
                .is_none_or(|at| at + self.moment_us > begun)
        };
        later.any(|one| {
            let ends = one.value.is_none() || (self.evicts && one.acknowledged.is_some());
            ends && is_late(one)
        })
    }
}
