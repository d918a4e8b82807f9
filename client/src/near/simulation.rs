//! A near cache and the feeds of two nodes, in a time of its own and with chance from a seed that is printed: lines come late or never,
//! links break with and without a word, nodes start again, and values are on their way while the events of their keys pass. Whatever
//! happens, no value is given that was overwritten longer ago than the bound, and none at all that was overwritten before the last event
//! that has come, while the feed is there.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use client_core::feed::{Ask, Lost, Reader};
use client_core::routing::Ring;
use client_core::value::{CasUnique, Item};
use ketch_testing::{Rng, rounds};

use super::follow::Told;
use super::{Epoch, Found, Near, NearCache, Route};
use crate::{ClientOptions, Node};

/// How long a value may be given that is another by now.
const BOUND_US: u64 = 200_000;
/// How often nodes say that nothing more has happened.
const BEAT_US: u64 = BOUND_US / 5;
const KEYS: u64 = 12;

/// What a node has, and what it had.
struct Server {
    epoch: u64,
    seq: u64,
    /// What its clock said when the world began.
    clock_ms: u64,
    /// Of each key its versions, and since when: 0 is none.
    history: HashMap<String, Vec<(u64, u64)>>,
    beat_at: u64,
}

impl Server {
    fn version(&self, key: &str) -> u64 {
        let last = self.history.get(key).and_then(|versions| versions.last());
        last.map_or(0, |&(_, version)| version)
    }

    /// Until when a version was the present one; `None` if it is.
    fn over_since(&self, key: &str, version: u64) -> Option<u64> {
        let versions = &self.history[key];
        let at = versions.iter().rposition(|&(_, it)| it == version);
        let next = versions.get(at.expect("a version that was there") + 1);
        next.map(|&(since, _)| since)
    }
}

/// What a feed's connection has under way.
struct Wire {
    /// When each comes.
    bytes: VecDeque<(u64, Vec<u8>)>,
    /// When the request arrives, until then.
    asked_at: Option<u64>,
    count: u64,
    /// Nothing comes any more, and nobody says so.
    is_cut: bool,
}

impl Wire {
    /// A line leaves the node: mostly it is here soon, never before those that left earlier.
    fn send(&mut self, line: String, now: u64, rng: &mut Rng) {
        let late = match rng.below(200) {
            0 => BOUND_US * 2,
            1..10 => BOUND_US / 3,
            _ => rng.below(3000),
        };
        let last = self.bytes.back().map_or(0, |&(at, _)| at);
        if !self.is_cut {
            self.bytes
                .push_back((last.max(now + late), line.into_bytes()));
        }
    }
}

/// One node's feed, as the thread of the near cache has it.
struct Follows {
    told: Told,
    reader: Reader,
    wire: Wire,
    /// When it connects again, if it is not connected.
    open_at: Option<u64>,
}

/// A value on its way.
struct Fetch {
    key: String,
    epoch: Epoch,
    asked_at: u64,
    /// What the node said, once it was asked.
    said: Option<u64>,
    comes_at: u64,
}

struct World {
    begun: Instant,
    now: u64,
    ring: Ring,
    options: ClientOptions,
    near: Near,
    servers: [Server; 2],
    follows: [Follows; 2],
    fetches: Vec<Fetch>,
    versions: u64,
    hits: u64,
    lost: u64,
    unkept: u64,
}

fn ask() -> Ask {
    let bound = Duration::from_micros(BOUND_US);
    Ask::default().silence(bound).behind(bound)
}

impl World {
    fn new(rng: &mut Rng) -> Self {
        let options = ClientOptions::default();
        let ring = Ring::new(&[Node::new("a", 1), Node::new("b", 1)], &options, 1);
        let near = NearCache::new(Duration::from_secs(3600));
        let near = Near::new(near.follow_within(Duration::from_micros(BOUND_US)), None);
        let begun = Instant::now();
        let follows = [0, 1].map(|node: usize| Follows {
            told: Told::new(&near, ring.members[node].identity),
            reader: Reader::new(ask(), None, begun),
            wire: Wire {
                bytes: VecDeque::new(),
                asked_at: Some(1000),
                count: 0,
                is_cut: false,
            },
            open_at: None,
        });
        let servers = [1, 2].map(|epoch| Server {
            epoch,
            seq: rng.below(1000),
            clock_ms: rng.below(100_000),
            history: HashMap::new(),
            beat_at: 0,
        });
        World {
            begun,
            now: 0,
            ring,
            options,
            near,
            servers,
            follows,
            fetches: Vec::new(),
            versions: 0,
            hits: 0,
            lost: 0,
            unkept: 0,
        }
    }

    fn at(&self, us: u64) -> Instant {
        self.begun + Duration::from_micros(us)
    }

    fn home(&self, key: &str) -> usize {
        let takers = self.ring.takers(key.as_bytes(), &self.options);
        takers.first().expect("a node")
    }

    fn ms(&self, node: usize) -> u64 {
        self.servers[node].clock_ms + self.now / 1000
    }

    /// Tells the reader of a node, if the request has arrived.
    fn tell(&mut self, node: usize, line: impl FnOnce(u64, u64) -> String, rng: &mut Rng) {
        let seq = self.servers[node].seq;
        let Follows { wire, open_at, .. } = &mut self.follows[node];
        if wire.asked_at.is_none() && open_at.is_none() {
            wire.count += 1;
            wire.send(line(wire.count, seq), self.now, rng);
        }
    }

    /// Something happens to a key, at its node.
    fn change(&mut self, rng: &mut Rng) {
        let key = format!("key:{}", rng.below(KEYS));
        let node = self.home(&key);
        self.versions += 1;
        let now = self.now;
        let (what, cas, version) = match rng.below(20) {
            0..12 => ("set set", self.versions, self.versions),
            12..15 => ("delete delete", self.servers[node].version(&key), 0),
            15..17 => ("evict set", self.servers[node].version(&key), 0),
            17 => (
                "touch touch",
                self.servers[node].version(&key),
                self.servers[node].version(&key),
            ),
            _ => {
                self.flush(node, now);
                self.servers[node].seq += 1;
                return self.tell(
                    node,
                    |n, seq| format!("{n} {seq} flush flush_all * 0 0\n"),
                    rng,
                );
            }
        };
        let server = &mut self.servers[node];
        server.seq += 1;
        let versions = server.history.entry(key.clone()).or_default();
        if versions.last().is_none_or(|&(_, last)| last != version) {
            versions.push((now, version));
        }
        self.tell(
            node,
            |n, seq| format!("{n} {seq} {what} {key} {cas} 0\n"),
            rng,
        );
    }

    fn flush(&mut self, node: usize, now: u64) {
        for versions in self.servers[node].history.values_mut() {
            versions.push((now, 0));
        }
    }

    /// A link breaks, or a node starts again, or a reader was too slow.
    fn misfortune(&mut self, rng: &mut Rng) {
        let node = rng.below(2) as usize;
        match rng.below(4) {
            0 => self.follows[node].wire.is_cut = true,
            1 => self.follows[node].reader.end(Lost::Closed),
            2 => {
                // What it had is gone, its numbers begin anew, and what was on its way is lost with the connection.
                self.flush(node, self.now);
                let server = &mut self.servers[node];
                (server.epoch, server.seq) = (server.epoch + 2, 0);
                self.follows[node].wire.bytes.clear();
                self.follows[node].reader.end(Lost::Closed);
            }
            _ => {
                // What had not left yet is lost, and said to be.
                self.servers[node].seq += 5;
                let seq = self.servers[node].seq;
                let Follows { wire, open_at, .. } = &mut self.follows[node];
                if wire.asked_at.is_none() && open_at.is_none() {
                    wire.send(format!("GAP {seq}\n"), self.now, rng);
                }
            }
        }
    }

    /// What has come is read, and what is told of it carried out, as the thread does.
    fn read(&mut self, node: usize, rng: &mut Rng) {
        let (us, now) = (self.now, self.at(self.now));
        let follows = &mut self.follows[node];
        if follows.open_at.is_some_and(|at| at <= us) {
            follows.open_at = None;
            follows.reader = Reader::new(ask(), None, now);
            follows.wire = Wire {
                bytes: VecDeque::new(),
                asked_at: Some(us + rng.below(30_000)),
                count: 0,
                is_cut: false,
            };
        }
        if follows.wire.asked_at.is_some_and(|at| at <= us) {
            follows.wire.asked_at = None;
            let ms = self.servers[node].clock_ms + us / 1000;
            let Server { epoch, seq, .. } = self.servers[node];
            let head = format!("OK\r\nFEED {epoch:016x} {seq} {ms}\n");
            follows.wire.send(head, us, rng);
        }
        loop {
            while follows.open_at.is_none()
                && let Some(event) = follows.reader.next(now)
            {
                if follows
                    .told
                    .hear(event, &self.near)
                    .is_some_and(|lost| lost.is_over())
                {
                    self.lost += 1;
                    follows.open_at = Some(us + rng.below(60_000));
                }
            }
            match follows.wire.bytes.front_mut() {
                Some((at, bytes)) if *at <= us && follows.open_at.is_none() => {
                    let space = follows.reader.space();
                    let count = bytes
                        .len()
                        .min(space.len())
                        .min(1 + rng.below(200) as usize);
                    space[..count].copy_from_slice(&bytes[..count]);
                    follows.reader.filled(count);
                    bytes.drain(..count);
                    if bytes.is_empty() {
                        follows.wire.bytes.pop_front();
                    }
                }
                _ => break,
            }
        }
        if follows.open_at.is_none() {
            follows
                .told
                .believe(follows.reader.known_until(), &self.near);
        }
    }

    fn beat(&mut self, node: usize, rng: &mut Rng) {
        if self.servers[node].beat_at > self.now {
            return;
        }
        self.servers[node].beat_at = self.now + BEAT_US;
        let (seq, ms) = (self.servers[node].seq, self.ms(node));
        let Follows { wire, open_at, .. } = &mut self.follows[node];
        if wire.asked_at.is_none() && open_at.is_none() {
            wire.send(format!("HB {} {seq} {ms}\n", wire.count), self.now, rng);
        }
    }

    fn begin_fetch(&mut self, rng: &mut Rng) {
        let key = format!("key:{}", rng.below(KEYS));
        let wait = |rng: &mut Rng| match rng.below(10) {
            0 => rng.below(BOUND_US * 2),
            _ => rng.below(5000),
        };
        let asked_at = self.now + wait(rng);
        self.fetches.push(Fetch {
            epoch: self.near.epoch(key.as_bytes()),
            key,
            asked_at,
            said: None,
            comes_at: asked_at + wait(rng),
        });
    }

    fn fetch_on(&mut self) {
        for mut fetch in std::mem::take(&mut self.fetches) {
            let node = self.home(&fetch.key);
            if fetch.said.is_none() && fetch.asked_at <= self.now {
                fetch.said = Some(self.servers[node].version(&fetch.key));
            }
            match fetch.said {
                Some(0) => {}
                Some(version) if fetch.comes_at <= self.now => {
                    let item = Item::from(version.to_string());
                    let found = Found {
                        key: fetch.key.as_bytes(),
                        item: &item,
                        left: -1,
                        unique: CasUnique {
                            number: version,
                            node: self.ring.members[node].identity,
                        },
                    };
                    let route = Route {
                        ring: &self.ring,
                        options: &self.options,
                    };
                    let now = self.at(self.now);
                    self.near.keep(&found, fetch.epoch, route, now);
                    self.unkept += u64::from(self.near.get(fetch.key.as_bytes(), now).is_none());
                }
                _ => self.fetches.push(fetch),
            }
        }
    }

    /// What is promised.
    fn check(&mut self) {
        let now = self.at(self.now);
        for n in 0..KEYS {
            let key = format!("key:{n}");
            let Some(item) = self.near.get(key.as_bytes(), now) else {
                continue;
            };
            self.hits += 1;
            let version = item.number::<u64>().expect("a version");
            let node = self.home(&key);
            let Some(since) = self.servers[node].over_since(&key, version) else {
                continue;
            };
            let old = self.now - since;
            assert!(
                old < BOUND_US,
                "{key}: {version} is given {old} µs after it was overwritten"
            );
            let follows = &self.follows[node];
            let all_is_read = follows.reader.is_reading()
                && follows.wire.bytes.is_empty()
                && follows.open_at.is_none()
                && !follows.wire.is_cut;
            assert!(!all_is_read, "{key}: {version} is given, and all is read");
        }
    }
}

#[test]
fn nothing_is_given_that_was_overwritten_longer_ago_than_the_bound() {
    let mut rng = Rng::from_env("near cache");
    for _ in 0..rounds(30, 3000) {
        let mut world = World::new(&mut rng);
        for _ in 0..4000 {
            world.now += rng.below(6000);
            for node in 0..2 {
                world.beat(node, &mut rng);
                world.read(node, &mut rng);
            }
            world.fetch_on();
            match rng.below(100) {
                0 => world.misfortune(&mut rng),
                1..40 => world.change(&mut rng),
                _ => world.begin_fetch(&mut rng),
            }
            world.check();
        }
        let World {
            hits, lost, unkept, ..
        } = world;
        assert!(
            hits > 1000 && lost > 5 && unkept > 20,
            "{hits} {lost} {unkept}"
        );
    }
}
