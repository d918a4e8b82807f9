//! The threads that read: one follows the feed of each source.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::feed::{Ask, Change, Event, Feed, Key, Lost, Place, What};

use super::state::{Began, Incoming};
use super::{OnGap, Relay};
use crate::audit::fnv;
use crate::json;

/// Events that are handed on together.
const BATCH: usize = 512;
/// How often a thread looks whether the relay ends.
const LOOK: Duration = Duration::from_millis(100);
/// Heartbeats that a node is asked for: how exactly the lag is known.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Silence after which a connection is given up.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a change may be on its way, for one that comes the other way to be known as crossing it.
const CROSSED: Duration = Duration::from_secs(120);
/// Keys that are remembered for that: some 8 MB.
const CARRIED_MAX: usize = 200_000;
/// What the keys of markers end with, by which clients know what they have written away from home: theirs to deal with.
pub const MARKER: &[u8] = b"~away";

/// What an event asks of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Nothing: what is there is as good as before.
    Nothing,
    /// The key's value is another: it goes, or the new one comes.
    Value,
    /// The key goes.
    Delete,
    /// All keys go.
    Flush,
}

/// What is carried over, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carries {
    /// Values come along, not only the news that they are old.
    pub values: bool,
    /// What was stored is none of the target's business.
    pub deletes_only: bool,
}

/// What `change` asks of the target. What another relay has marked is not of this region.
pub fn asks(change: &Change<'_>, carries: Carries) -> Asks {
    let key = match change.key {
        Key::Text(key) => key,
        Key::Hash(_) | Key::All => b"",
    };
    if change.origin != 0 || key.ends_with(MARKER) {
        return Asks::Nothing;
    }
    match change.what {
        What::Flush => Asks::Flush,
        What::Delete => Asks::Delete,
        What::Expire | What::Evict => Asks::Nothing,
        What::Set if carries.deletes_only => Asks::Nothing,
        What::Set => Asks::Value,
        // `md I` marks an item as stale: that is how some invalidate.
        What::Touch if change.cause == "md" => Asks::Value,
        What::Touch if carries.values && !carries.deletes_only => Asks::Value,
        What::Touch => Asks::Nothing,
        // What it is only later versions know.
        _ => Asks::Delete,
    }
}

/// Follows one source until it has left the ring, or the relay ends.
pub fn run(relay: &Relay, id: usize) {
    let (node, place) = {
        let state = relay.lock();
        let source = &state.sources[id];
        (source.node.clone(), source.read)
    };
    let ask = Ask::default()
        .prefix(&relay.settings.prefix)
        .from(place)
        .silence(SILENCE)
        .heartbeat(HEARTBEAT);
    let address = node.address();
    let mut feed = Feed::new(node, &relay.from_options, ask);
    let mut follower = Follower {
        relay,
        id,
        address,
        epoch: place.map_or(0, |place| place.epoch),
        batch: Vec::new(),
        lines: String::new(),
        is_cut: false,
        is_told: false,
        carried: Carried::default(),
    };
    while !relay.is_stopping() {
        let wait = if follower.is_idle() {
            LOOK
        } else {
            Duration::ZERO
        };
        match feed.next(wait) {
            Some(Event::Change(change)) => {
                follower.change(&change);
                if follower.batch.len() >= BATCH || follower.lines.len() > 64 << 10 {
                    follower.hand_on();
                }
            }
            Some(Event::Began(place)) => follower.began(place),
            Some(Event::Beat(place)) => {
                follower.hand_on();
                let known_until = feed.known_until();
                let source = &mut relay.lock().sources[id];
                source.read = Some(place);
                source.known_until = known_until.or(source.known_until);
            }
            Some(Event::Lost(why)) => follower.lost(why),
            // Whatever has come is dealt with: time to look at what all threads share.
            None => {
                follower.hand_on();
                let mut state = relay.lock();
                let source = &mut state.sources[id];
                if source.is_gone {
                    break;
                }
                if let Some(known_until) = feed.known_until() {
                    source.known_until = Some(known_until);
                }
            }
        }
    }
    follower.hand_on();
}

struct Follower<'r> {
    relay: &'r Relay,
    id: usize,
    address: String,
    epoch: u64,
    /// What is not yet handed on.
    batch: Vec<Incoming>,
    /// The same events as lines of JSON.
    lines: String,
    /// The connection is lost, which was told.
    is_cut: bool,
    /// The gap of which the feed is about to tell.
    is_told: bool,
    /// What was changed here, where values are carried over.
    carried: Carried,
}

/// The keys that were carried over last, by their hashes: those of the last [`CROSSED`] at least, unless they are too many.
#[derive(Default)]
struct Carried {
    young: HashSet<u64>,
    old: HashSet<u64>,
    since: Option<Instant>,
}

impl Carried {
    fn note(&mut self, key: &[u8], now: Instant) {
        let since = *self.since.get_or_insert(now);
        if self.young.len() >= CARRIED_MAX || now.saturating_duration_since(since) >= CROSSED {
            self.old = std::mem::take(&mut self.young);
            self.since = Some(now);
        }
        self.young.insert(fnv(key));
    }

    fn has(&self, key: &[u8]) -> bool {
        let hash = fnv(key);
        self.young.contains(&hash) || self.old.contains(&hash)
    }
}

impl Follower<'_> {
    fn is_idle(&self) -> bool {
        self.batch.is_empty() && self.lines.is_empty()
    }

    fn began(&mut self, place: Place) {
        self.hand_on();
        self.is_told = false;
        self.epoch = place.epoch;
        let on_gap = self.relay.settings.on_gap;
        let began = self.relay.lock().began(self.id, place, on_gap);
        if std::mem::take(&mut self.is_cut) {
            self.relay.say(&format!("{}: followed again", self.address));
        }
        // The feed tells of it too, behind this; but the place must not be believed until then.
        self.is_told = began == Began::Elsewhere;
        match began {
            Began::There => {}
            Began::Elsewhere => self.gap("it does not go on where it was read last"),
            Began::Joined => self.gap(
                "it has joined the ring: what was written there before it was followed is not known",
            ),
        }
    }

    fn lost(&mut self, why: Lost) {
        self.hand_on();
        if !why.is_over() {
            if !std::mem::take(&mut self.is_told) {
                self.gap(&why.to_string());
            }
            return;
        }
        self.relay.counts.reconnects.fetch_add(1, Relaxed);
        if !self.is_cut {
            self.is_cut = true;
            let text = format!("{}: {why}; trying again", self.address);
            self.relay.say(&text);
        }
    }

    fn gap(&mut self, why: &str) {
        let Relay {
            counts, settings, ..
        } = self.relay;
        counts.gaps.fetch_add(1, Relaxed);
        let act = match (&self.relay.to, settings.on_gap) {
            (None, _) => "whoever reads the lines drops all they hold",
            (_, OnGap::Stop) => "the relay stops, as --on-gap says",
            (_, OnGap::Flush) => "the target is flushed",
            (_, OnGap::DeletePrefix) if settings.prefix.is_empty() => {
                "all keys of the target are deleted"
            }
            (_, OnGap::DeletePrefix) => "all keys of the target with the prefix are deleted",
        };
        eprintln!("ketchctl: GAP at {}: {why}; {act}", self.address);
        if settings.json {
            let lines = event_line(
                &self.address,
                self.epoch,
                "gap",
                &[("why", json::string(why))],
            );
            self.relay.write_lines(&lines);
        }
        match (&self.relay.to, settings.on_gap) {
            (None, _) => {}
            (_, OnGap::Stop) => self.relay.fail(format!("{}: {why}", self.address)),
            _ => self.relay.lock().purge.want(false),
        }
    }

    fn change(&mut self, change: &Change<'_>) {
        self.is_told = false;
        let place = Place {
            epoch: self.epoch,
            seq: change.seq,
        };
        let Relay {
            counts, settings, ..
        } = self.relay;
        counts.read.fetch_add(1, Relaxed);
        if settings.json {
            self.lines
                .push_str(&change_line(&self.address, self.epoch, change));
        }
        if self.relay.to.is_none() {
            // Only lines: the place is that of the last one.
            self.batch.clear();
            self.batch.push(Incoming {
                place,
                key: [].into(),
                value: false,
                crossed: false,
                cas: 0,
            });
            return;
        }
        match (asks(change, settings.carries), change.key) {
            (Asks::Flush, _) => {
                self.hand_on();
                counts.flushes.fetch_add(1, Relaxed);
                self.relay.say(&format!(
                    "{}: was flushed; the target's keys are deleted",
                    self.address
                ));
                let mut state = self.relay.lock();
                state.purge.want(true);
                state.sources[self.id].read = Some(place);
            }
            (Asks::Nothing, Key::Text(key)) if self.has_crossed(change, key) => {
                self.batch.push(Incoming {
                    place,
                    key: key.into(),
                    value: true,
                    crossed: true,
                    cas: 0,
                });
            }
            (asks @ (Asks::Value | Asks::Delete), Key::Text(key)) => {
                if settings.carries.values {
                    self.carried.note(key, Instant::now());
                }
                self.batch.push(Incoming {
                    place,
                    key: key.into(),
                    value: asks == Asks::Value && settings.carries.values,
                    crossed: false,
                    cas: if asks == Asks::Value { change.cas } else { 0 },
                });
            }
            _ => {
                counts.passed.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether another relay has stored here what was changed here a moment ago, so that its value may be on its way there.
    fn has_crossed(&self, change: &Change<'_>, key: &[u8]) -> bool {
        let is_stored = matches!(change.what, What::Set | What::Touch) && change.origin != 0;
        is_stored && self.relay.settings.carries.values && self.carried.has(key)
    }

    /// Hands on what was read: lines first, as the cursor counts them as written.
    fn hand_on(&mut self) {
        if !self.lines.is_empty() {
            let lines = std::mem::take(&mut self.lines);
            self.relay.write_lines(&lines);
        }
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let Relay { counts, .. } = self.relay;
        if self.relay.to.is_none() {
            let last = batch.last().map(|event| event.place);
            self.relay.lock().sources[self.id].read = last;
            return;
        }
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let accepted = {
                let mut state = self.relay.lock();
                let was_idle = state.queue.waits_since().is_none();
                let accepted = state.accept(self.id, rest, Instant::now());
                if was_idle {
                    self.relay.work.notify_one();
                }
                accepted
            };
            counts.coalesced.fetch_add(accepted.coalesced, Relaxed);
            counts.spooled.fetch_add(accepted.spooled, Relaxed);
            counts
                .overflows
                .fetch_add(u64::from(accepted.overflowed), Relaxed);
            rest = &rest[accepted.count..];
            if !rest.is_empty() {
                // The source's own ring keeps what is not read.
                if self.relay.is_stopping() {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// An event as a line of JSON.
fn change_line(node: &str, epoch: u64, change: &Change<'_>) -> String {
    let what = match change.what {
        What::Set => "set",
        What::Delete => "delete",
        What::Touch => "touch",
        What::Expire => "expire",
        What::Evict => "evict",
        What::Flush => "flush",
        _ => "other",
    };
    let mut more = vec![
        ("seq", change.seq.to_string()),
        ("cause", json::string(change.cause)),
    ];
    if let Key::Text(key) = change.key {
        // Any byte may stand in a key, and not in a text.
        more.push(match std::str::from_utf8(key) {
            Ok(key) => ("key", json::string(key)),
            Err(_) => {
                let mut encoded = Vec::new();
                protocol::base64::encode(key, &mut encoded);
                let encoded = String::from_utf8_lossy(&encoded).into_owned();
                ("key_base64", json::string(&encoded))
            }
        });
    }
    more.push(("cas", change.cas.to_string()));
    more.push(("origin", change.origin.to_string()));
    event_line(node, epoch, what, &more)
}

fn event_line(node: &str, epoch: u64, what: &str, more: &[(&str, String)]) -> String {
    let mut line = String::new();
    // Writing into a String cannot fail.
    let _ = write!(
        line,
        "{{\"node\":{},\"epoch\":\"{epoch:016x}\",\"event\":\"{what}\"",
        json::string(node)
    );
    for (name, value) in more {
        let _ = write!(line, ",\"{name}\":{value}");
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(what: What, cause: &'static str, key: &'static [u8], origin: u16) -> Change<'static> {
        Change {
            seq: 7,
            what,
            cause,
            key: if key == b"*" {
                Key::All
            } else {
                Key::Text(key)
            },
            cas: 9,
            origin,
        }
    }

    #[test]
    fn what_events_ask_of_the_target() {
        let deletes = |values| Carries {
            values,
            deletes_only: true,
        };
        let all = |values| Carries {
            values,
            deletes_only: false,
        };
        for (change, plain, only, with_values) in [
            (
                change(What::Set, "set", b"a", 0),
                Asks::Value,
                Asks::Nothing,
                Asks::Value,
            ),
            (
                change(What::Delete, "delete", b"a", 0),
                Asks::Delete,
                Asks::Delete,
                Asks::Delete,
            ),
            (
                change(What::Delete, "delete", b"a", 3),
                Asks::Nothing,
                Asks::Nothing,
                Asks::Nothing,
            ),
            (
                change(What::Set, "set", b"a~away", 0),
                Asks::Nothing,
                Asks::Nothing,
                Asks::Nothing,
            ),
            (
                change(What::Touch, "touch", b"a", 0),
                Asks::Nothing,
                Asks::Nothing,
                Asks::Value,
            ),
            (
                change(What::Touch, "md", b"a", 0),
                Asks::Value,
                Asks::Value,
                Asks::Value,
            ),
            (
                change(What::Expire, "get", b"a", 0),
                Asks::Nothing,
                Asks::Nothing,
                Asks::Nothing,
            ),
            (
                change(What::Evict, "set", b"a", 0),
                Asks::Nothing,
                Asks::Nothing,
                Asks::Nothing,
            ),
            (
                change(What::Flush, "flush_all", b"*", 0),
                Asks::Flush,
                Asks::Flush,
                Asks::Flush,
            ),
            (
                change(What::Other, "new", b"a", 0),
                Asks::Delete,
                Asks::Delete,
                Asks::Delete,
            ),
        ] {
            assert_eq!(asks(&change, all(false)), plain, "{change:?}");
            assert_eq!(asks(&change, deletes(false)), only, "{change:?}");
            assert_eq!(asks(&change, all(true)), with_values, "{change:?}");
        }
    }

    #[test]
    fn events_as_lines() {
        assert_eq!(
            change_line("a:1", 0xc0ffee, &change(What::Set, "cas", b"k \"1\"", 0)),
            "{\"node\":\"a:1\",\"epoch\":\"0000000000c0ffee\",\"event\":\"set\",\"seq\":7,\"cause\":\"cas\",\
             \"key\":\"k \\\"1\\\"\",\"cas\":9,\"origin\":0}\n"
        );
        let line = change_line("a", 1, &change(What::Delete, "md", b"\xff", 2));
        assert!(line.contains("\"key_base64\":\"/w==\""), "{line}");
        let line = change_line("a", 1, &change(What::Flush, "flush_all", b"*", 0));
        assert!(!line.contains("key"), "{line}");
    }
}
