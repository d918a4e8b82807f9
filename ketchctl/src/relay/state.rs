//! What all threads of a relay share under one lock: the sources, the keys that wait, the spool, the purges.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use client_core::routing::Ring;
use ketch_client::continuum::Placement;
use ketch_client::feed::Place;
use ketch_client::{ClientOptions, Node};

use super::OnGap;
use super::cursor::Cursor;
use super::purge::Purge;
use super::queue::{Action, Change, Key, Mark, Queue};
use super::spool::Spool;

/// When what was sent after a failure is sent once more.
const DOUBT: Duration = Duration::from_secs(5);
/// Memory for keys that wait, in bytes, about.
pub const MEMORY_MAX: usize = 64 << 20;

/// The nodes of the target, and who owns which key.
pub struct Routes {
    pub nodes: Vec<Node>,
    ring: Ring,
    options: ClientOptions,
    now: Instant,
}

impl Routes {
    pub fn new(placement: Placement, copies: usize, nodes: Vec<Node>) -> Self {
        let options = ClientOptions::default().placement(placement).copies(copies);
        Routes {
            ring: Ring::new(&nodes, &options, 0),
            nodes,
            options,
            now: Instant::now(),
        }
    }

    /// The nodes that own a key, as clients of the target see it.
    pub fn owners(&self, key: &[u8]) -> impl Iterator<Item = &Node> {
        let owners: Vec<usize> = self.owner_ids(key).collect();
        owners
            .into_iter()
            .map(|owner| &self.ring.members[owner].node)
    }

    fn owner_ids(&self, key: &[u8]) -> impl Iterator<Item = usize> {
        // Nothing is ever ejected here.
        let owners = self.ring.writers(key, self.now, &self.options);
        (0..owners.len()).filter_map(move |at| owners.iter().nth(at))
    }

    /// The lane of a key: the node that owns it, the first one if it has copies.
    pub fn lane_of(&self, key: &[u8]) -> usize {
        self.owner_ids(key).next().unwrap_or(0)
    }

    /// The node of a lane, if there is any.
    pub fn node_of(&self, lane: usize) -> Option<&Node> {
        self.ring.members.get(lane).map(|member| &member.node)
    }

    /// One for each node, and one if there is none.
    pub fn lanes(&self) -> usize {
        self.ring.members.len().max(1)
    }
}

/// A node whose feed is followed.
pub struct Source {
    pub node: Node,
    pub address: String,
    /// Where its marks are held. Another one for each epoch: numbers begin anew.
    pub slot: usize,
    /// Up to where its events are in the queue, in the spool, or were dealt with.
    pub read: Option<Place>,
    /// It has come while the relay ran, or was away: what it did before is not known.
    pub joined: bool,
    /// All that happened there before this moment was read.
    pub known_until: Option<Instant>,
    /// It is in the ring no more: until when it is followed all the same.
    pub leaves_at: Option<Instant>,
    /// It is not followed any more.
    pub is_gone: bool,
}

/// What is to be done for an event.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub place: Place,
    pub key: Key,
    /// The value is to be read; without, the key is to go.
    pub value: bool,
    /// Another relay has stored it here, what may have crossed a change from here.
    pub crossed: bool,
    /// The CAS unique that the item got; 0 if it is gone.
    pub cas: u64,
}

/// Where a feed begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Began {
    /// Where it was read last, or now if it never was.
    There,
    /// Somewhere else: something was missed.
    Elsewhere,
    /// It was never read, and has a past.
    Joined,
}

/// What became of events that came in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accepted {
    /// So many from the first on. The others have no room now.
    pub count: usize,
    pub coalesced: u64,
    pub spooled: u64,
    /// The spool could not take one.
    pub overflowed: bool,
}

/// See the module.
pub struct State {
    pub queue: Queue,
    pub spool: Option<Spool>,
    /// The slot of the spool's records.
    spool_slot: usize,
    /// Values that were stored after an attempt had failed, and when to send them once more: the earlier one may have waited somewhere
    /// between here and there, and have arrived behind the later one.
    doubts: VecDeque<(Instant, Key, Action)>,
    doubt_mark: Mark,
    pub sources: Vec<Source>,
    pub routes: Routes,
    pub purge: Purge,
    /// Nothing is sent, as a purge is about to begin.
    pub held: bool,
    /// Somebody waits for the next batch to fall due.
    pub has_leader: bool,
    memory_max: usize,
    /// Values are carried over.
    values: bool,
}

impl State {
    pub fn new(routes: Routes, spool: Option<Spool>, memory_max: usize, values: bool) -> Self {
        let mut queue = Queue::new(routes.lanes(), Instant::now());
        State {
            spool_slot: queue.slot(),
            doubts: VecDeque::new(),
            doubt_mark: Mark {
                slot: queue.slot(),
                seq: 0,
            },
            queue,
            spool,
            sources: Vec::new(),
            routes,
            purge: Purge::default(),
            held: false,
            has_leader: false,
            memory_max,
            values,
        }
    }

    /// One more source; gives its number.
    pub fn source(&mut self, node: Node, read: Option<Place>, joined: bool) -> usize {
        let slot = self.queue.slot();
        self.sources.push(Source {
            address: node.address(),
            node,
            slot,
            read,
            joined,
            known_until: None,
            leaves_at: None,
            is_gone: false,
        });
        self.sources.len() - 1
    }

    /// A feed begins at `place`. If that is not where it was read last, something was missed: a purge is owed from the same moment
    /// on from which the new place may be in a cursor, or, with `OnGap::Stop`, the place stays.
    pub fn began(&mut self, source: usize, place: Place, on_gap: OnGap) -> Began {
        let one = &mut self.sources[source];
        let began = match one.read {
            None if one.joined => Began::Joined,
            Some(read) if read != place => Began::Elsewhere,
            _ => Began::There,
        };
        if began != Began::There {
            if on_gap == OnGap::Stop {
                return began;
            }
            self.purge.want(false);
        }
        one.joined = false;
        if one.read.is_none_or(|read| read.epoch != place.epoch) {
            one.slot = self.queue.slot();
        }
        one.read = Some(place);
        began
    }

    /// Events of a source, in their order.
    pub fn accept(&mut self, source: usize, events: &[Incoming], now: Instant) -> Accepted {
        let mut accepted = Accepted::default();
        for event in events {
            let Source { slot, address, .. } = &self.sources[source];
            let has_room = self.queue.bytes() < self.memory_max
                && self.spool.as_ref().is_none_or(Spool::is_read);
            if has_room || self.queue.has(&event.key) {
                let mark = Mark {
                    slot: *slot,
                    seq: event.place.seq,
                };
                // Where values are carried over, the source is asked even of what was deleted: what is sent once more, or late, must
                // not take what was stored since.
                let action = match event.value || self.values {
                    true if event.crossed => Action::Settle(source as u32),
                    true => Action::Value(source as u32),
                    false => Action::Delete,
                };
                let lane = self.routes.lane_of(&event.key);
                let change = Change {
                    action,
                    cas: event.cas,
                    mark,
                };
                let known = self.queue.push(&event.key, change, lane, now);
                accepted.coalesced += u64::from(known);
            } else if self.purge.covers_now() {
                // The purge deletes it.
            } else if let Some(spool) = &mut self.spool {
                // A delete that comes back later must not take what was stored since: then the source is asked.
                match spool.append(self.values, address, &event.key) {
                    Ok(()) => accepted.spooled += 1,
                    Err(error) => {
                        self.overflow(&error);
                        accepted.overflowed = true;
                    }
                }
            } else {
                return accepted;
            }
            accepted.count += 1;
            self.sources[source].read = Some(event.place);
        }
        accepted
    }

    /// What is spooled is given up: all of the target is deleted instead.
    pub fn overflow(&mut self, why: &dyn std::fmt::Display) {
        eprintln!(
            "ketchctl: SPOOL LOST: {why}; what waited in it is deleted in the target, with all else that it may stand for"
        );
        if let Some(spool) = &mut self.spool {
            spool.clear();
        }
        self.purge.want(false);
    }

    /// Brings records of the spool into the queue, as far as there is room; true if there were any.
    pub fn refill(&mut self, now: Instant) -> bool {
        let room = self.memory_max / 2;
        let mut any = false;
        let slot = self.spool_slot;
        while self.queue.bytes() < room {
            let Some(spool) = &mut self.spool else { break };
            let record = match spool.next() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => {
                    self.overflow(&error);
                    break;
                }
            };
            any = true;
            let source = self
                .sources
                .iter()
                .position(|one| one.address == record.source);
            let action = match source {
                Some(source) if record.value => Action::Value(source as u32),
                // Whose value it was is not known any more.
                _ => Action::Delete,
            };
            let mark = Mark {
                slot,
                seq: record.number,
            };
            let lane = self.routes.lane_of(&record.key);
            let change = Change {
                action,
                cas: 0,
                mark,
            };
            self.queue.push(&record.key.into(), change, lane, now);
        }
        if let Some(spool) = &mut self.spool {
            let read = spool.read();
            spool.done(self.queue.first_held(slot).map_or(read, |first| first - 1));
        }
        any
    }

    /// A value was stored after an attempt had failed.
    pub fn doubt(&mut self, key: Key, action: Action, now: Instant) {
        self.doubts.push_back((now + DOUBT, key, action));
    }

    /// Sends what was doubted once more, if it is time for it, or in any case; true if there was something.
    pub fn settle_doubts(&mut self, now: Instant, all: bool) -> bool {
        let mut any = false;
        while self
            .doubts
            .front()
            .is_some_and(|(at, ..)| all || *at <= now)
        {
            let Some((_, key, action)) = self.doubts.pop_front() else {
                break;
            };
            any = true;
            if self.queue.has(&key) {
                continue;
            }
            self.doubt_mark.seq += 1;
            let change = Change {
                action,
                cas: 0,
                mark: self.doubt_mark,
            };
            let lane = self.routes.lane_of(&key);
            self.queue.push(&key, change, lane, now);
        }
        any
    }

    /// What the cursor may say now (Cu1).
    pub fn cursor(&self) -> Cursor {
        let places = self.sources.iter().filter(|source| !source.is_gone);
        let places = places.filter_map(|source| {
            let read = source.read?;
            let seq = match self.queue.first_held(source.slot) {
                Some(first) => first - 1,
                None => read.seq,
            };
            let place = Place { seq, ..read };
            Some((source.address.clone(), place))
        });
        Cursor {
            purge: self.purge.is_owed(),
            places: places.collect(),
        }
    }

    /// How old the oldest is that is not carried over.
    pub fn lag(&self, now: Instant) -> Duration {
        let sources = self.sources.iter().filter(|source| !source.is_gone);
        let known = sources.filter_map(|source| source.known_until);
        let oldest = known.chain(self.queue.waits_since()).min();
        oldest.map_or(Duration::ZERO, |oldest| {
            now.saturating_duration_since(oldest)
        })
    }

    /// The target has these nodes now.
    pub fn set_routes(&mut self, routes: Routes, now: Instant) {
        self.routes = routes;
        let State { routes, queue, .. } = self;
        queue.regroup(routes.lanes(), |key| routes.lane_of(key), now);
    }
}

/// `--spool DIR,MB`.
pub fn parse_spool(text: &str) -> Option<(&Path, u64)> {
    let (dir, mb) = text.rsplit_once(',')?;
    let mb: u64 = mb
        .trim_end_matches("MB")
        .trim_end_matches("mb")
        .parse()
        .ok()?;
    let bytes = mb.checked_mul(1 << 20).filter(|&bytes| bytes > 0)?;
    (!dir.is_empty()).then_some((Path::new(dir), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(spool: Option<Spool>) -> State {
        let nodes = Node::list("a:1,b:1").expect("nodes");
        State::new(
            Routes::new(Placement::default(), 1, nodes),
            spool,
            2000,
            false,
        )
    }

    fn events(seqs: std::ops::Range<u64>) -> Vec<Incoming> {
        seqs.map(|seq| Incoming {
            place: Place { epoch: 1, seq },
            key: format!("key:{seq}").into_bytes().into(),
            value: false,
            crossed: false,
            cas: 0,
        })
        .collect()
    }

    fn all_done(state: &mut State, mut now: Instant) {
        loop {
            now += Duration::from_secs(1);
            state.refill(now);
            let Some((lane, jobs)) = state.queue.take(1000, now) else {
                break;
            };
            for job in &jobs {
                state.queue.done(job);
            }
            state.queue.landed(lane, true, now);
        }
        state.refill(now);
    }

    #[test]
    fn without_a_spool_a_source_waits_for_room() {
        let now = Instant::now();
        let mut state = state(None);
        let node = Node::new("s", 1);
        let source = state.source(node, None, false);
        let began = state.began(source, Place { epoch: 1, seq: 0 }, OnGap::DeletePrefix);
        assert_eq!(began, Began::There);
        let events = events(1..100);
        let accepted = state.accept(source, &events, now);
        assert!((5..20).contains(&accepted.count), "{accepted:?}");
        assert_eq!(state.cursor().places["s:1"].seq, 0, "nothing is done");
        // One that waits already needs no room.
        let again = Incoming {
            place: Place { epoch: 1, seq: 500 },
            ..events[0].clone()
        };
        assert_eq!(state.accept(source, &[again], now).coalesced, 1);
        all_done(&mut state, now);
        assert_eq!(state.cursor().places["s:1"].seq, 500);
    }

    #[test]
    fn the_spool_counts_as_done_and_comes_back() {
        let dir = std::env::temp_dir().join(format!("ketch-state-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let now = Instant::now();
        let (spool, _) = Spool::open(&dir, 1 << 20).expect("a directory");
        let mut one = state(Some(spool));
        let source = one.source(Node::new("s", 1), None, false);
        one.began(source, Place { epoch: 1, seq: 0 }, OnGap::DeletePrefix);
        let accepted = one.accept(source, &events(1..100), now);
        assert_eq!(accepted.count, 99);
        assert!(
            accepted.spooled > 50 && !accepted.overflowed,
            "{accepted:?}"
        );
        assert_eq!(
            one.cursor().places["s:1"].seq,
            0,
            "what is in memory is not done"
        );
        all_done(&mut one, now);
        assert_eq!(one.cursor().places["s:1"].seq, 99);
        assert_eq!(one.spool.as_ref().map(Spool::bytes), Some(0));
        // Too much: all of it is owed to a purge, which the cursor says.
        let (spool, _) = Spool::open(&dir, 4096).expect("a directory");
        one.spool = Some(spool);
        let accepted = one.accept(source, &events(100..1000), now);
        assert!(accepted.overflowed && accepted.count == 900, "{accepted:?}");
        assert!(one.cursor().purge);
        std::fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn another_epoch_is_a_loss_and_its_numbers_begin_anew() {
        let now = Instant::now();
        let mut state = state(None);
        let place = |epoch, seq| Place { epoch, seq };
        let source = state.source(Node::new("s", 1), Some(place(1, 7)), false);
        let began = |state: &mut State, source, place, on_gap| state.began(source, place, on_gap);
        let there = began(&mut state, source, place(1, 7), OnGap::Stop);
        assert_eq!(there, Began::There);
        state.accept(source, &events(8..10), now);
        // Who is to stop leaves the cursor where it was.
        let elsewhere = began(&mut state, source, place(2, 3), OnGap::Stop);
        assert_eq!(elsewhere, Began::Elsewhere);
        assert_eq!(state.cursor().places["s:1"], place(1, 7));
        assert!(!state.cursor().purge);
        began(&mut state, source, place(2, 3), OnGap::DeletePrefix);
        assert_eq!(state.cursor().places["s:1"], place(2, 3));
        assert!(state.cursor().purge);
        let joined = state.source(Node::new("t", 1), None, true);
        let began = state.began(joined, place(9, 0), OnGap::DeletePrefix);
        assert_eq!(began, Began::Joined);
    }

    #[test]
    fn spools_of_the_command_line() {
        assert_eq!(parse_spool("/a,b,64"), Some((Path::new("/a,b"), 64 << 20)));
        assert_eq!(parse_spool("d,1MB"), Some((Path::new("d"), 1 << 20)));
        for wrong in ["d", "d,", ",1", "d,0", "d,x", "d,99999999999999999999"] {
            assert_eq!(parse_spool(wrong), None, "{wrong}");
        }
    }
}
