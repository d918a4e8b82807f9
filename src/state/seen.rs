//! The one place that is told of each request about a key, when it is done and its stripe is let go.
//!
//! Counters by verb and class, and counts by prefix, are fed from here. Whoever else wants to know what goes on among the
//! keys is told here too, and nowhere else.

use super::shared::Ctx;
use crate::cache::{ClassId, ITEM_HEAD_BYTES, KeyHash, Lookup, Segment};
use crate::keyspace::latency::Group;
use crate::keyspace::misses::Miss;
use crate::keyspace::{self, Asked, Ended, Wanted};

/// What was asked of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Its value, or what there is to know about its item.
    Get,
    /// The same with a new expiry.
    GetAndTouch,
    /// A new expiry alone.
    Touch,
    /// To store something.
    Set,
    /// To take its item away, or to keep it as stale.
    Delete,
    /// To count up.
    Incr,
    /// To count down.
    Decr,
}

impl Verb {
    /// The commands that are timed together.
    #[inline(always)]
    fn group(self) -> Group {
        match self {
            Verb::Get | Verb::GetAndTouch => Group::Get,
            Verb::Touch => Group::Touch,
            Verb::Set => Group::Set,
            Verb::Delete => Group::Delete,
            Verb::Incr | Verb::Decr => Group::Arith,
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was an item, in this segment.
    Hit(Segment),
    /// There was none, and the reader's lease made an empty one.
    Created(Segment),
    /// There was none; never [`Lookup::Found`].
    Miss(Lookup),
    /// It is done: stored, deleted, counted.
    Done,
    /// It was not done, for a reason that is no miss: a condition did not hold, the item is only marked.
    Not,
    /// There was no memory, or it would be too large.
    Refused,
}

/// A request that is done.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'k> {
    /// What was asked.
    pub verb: Verb,
    /// The key's hash in the cache.
    pub key_hash: KeyHash,
    /// The key, as it is stored.
    pub key: &'k [u8],
    /// How it ended.
    pub outcome: Outcome,
    /// The class of the item that was read, changed or made, if there is one.
    pub class: Option<ClassId>,
    /// Bytes of its value.
    pub bytes: u32,
}

impl Ctx<'_> {
    /// Tells of a request that is done. To be called without the key's stripe.
    #[inline(always)]
    pub fn note(&self, seen: &Seen<'_>) {
        self.count(seen);
        let hash = seen.key_hash.0;
        match self.observer.wants(hash) {
            Wanted::Nothing => {}
            // By value: what is kept of a request for the few that are looked at is kept in registers.
            Wanted::Look => self.look(*seen),
            Wanted::Follow if is_hit(seen) => self.observer.follow_hit(hash, item_bytes(seen)),
            Wanted::Follow => self.follow(*seen),
        }
        let prefixes = &self.shared.prefixes;
        match seen.verb {
            Verb::Get | Verb::GetAndTouch => {
                prefixes.count_get(seen.key, matches!(seen.outcome, Outcome::Hit(_)));
            }
            Verb::Set => prefixes.count_set(seen.key),
            Verb::Delete => prefixes.count_delete(seen.key),
            // As in memcached, they know no others.
            Verb::Touch | Verb::Incr | Verb::Decr => {}
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&self, seen: Seen<'_>) {
        let asked = Asked {
            group: seen.verb.group(),
            hash: seen.key_hash.0,
            key: seen.key,
        };
        self.observer.look(asked, self.ended(&seen), self.now.0);
    }

    #[cold]
    #[inline(never)]
    fn follow(&self, seen: Seen<'_>) {
        self.observer.follow(seen.key_hash.0, self.ended(&seen));
    }

    /// What the keyspace makes of it.
    fn ended(&self, seen: &Seen<'_>) -> Ended {
        let outcome = match (seen.verb, seen.outcome) {
            _ if is_hit(seen) => keyspace::Outcome::Hit,
            (Verb::Get | Verb::GetAndTouch, Outcome::Miss(lookup)) => {
                keyspace::Outcome::Miss(self.cache.why_missing(seen.key_hash, lookup))
            }
            (Verb::Get | Verb::GetAndTouch, Outcome::Created(_)) => {
                keyspace::Outcome::Miss(Miss::NeverSeen)
            }
            (Verb::Set | Verb::Incr | Verb::Decr, Outcome::Done) => keyspace::Outcome::Stored,
            (Verb::Delete, Outcome::Done) => keyspace::Outcome::Deleted,
            _ => keyspace::Outcome::Other,
        };
        let bytes = match outcome {
            keyspace::Outcome::Hit | keyspace::Outcome::Stored => item_bytes(seen),
            _ => 0,
        };
        Ended { outcome, bytes }
    }

    #[inline(always)]
    fn count(&self, seen: &Seen<'_>) {
        let general = &self.stats.general;
        // Class 0 holds no items.
        let class = &self.stats.classes[seen.class.map_or(0, ClassId::index)];
        match (seen.verb, seen.outcome) {
            (Verb::Get, Outcome::Hit(segment) | Outcome::Created(segment)) => {
                general.cmd_get.inc();
                class.get_hits.inc();
                match segment {
                    Segment::Hot => class.hits_to_hot.inc(),
                    Segment::Warm => class.hits_to_warm.inc(),
                    Segment::Cold => class.hits_to_cold.inc(),
                    Segment::Temp => class.hits_to_temp.inc(),
                }
            }
            (Verb::Get, Outcome::Miss(lookup)) => {
                general.cmd_get.inc();
                general.get_misses.inc();
                general.count_miss(self.cache.why_missing(seen.key_hash, lookup));
                match lookup {
                    Lookup::Expired => general.get_expired.inc(),
                    Lookup::Flushed => general.get_flushed.inc(),
                    Lookup::Found | Lookup::Missing => {}
                }
            }
            // Counted as a touch alone, as memcached does.
            (Verb::GetAndTouch | Verb::Touch, Outcome::Hit(_) | Outcome::Created(_)) => {
                general.cmd_touch.inc();
                general.touch_hits.inc();
                class.touch_hits.inc();
            }
            (Verb::GetAndTouch | Verb::Touch, Outcome::Miss(_)) => {
                general.cmd_touch.inc();
                general.touch_misses.inc();
            }
            (Verb::Set, Outcome::Refused) => {}
            (Verb::Set, _) => class.cmd_set.inc(),
            (Verb::Delete, Outcome::Done) => class.delete_hits.inc(),
            (Verb::Delete, Outcome::Miss(_)) => general.delete_misses.inc(),
            (Verb::Incr, Outcome::Done) => class.incr_hits.inc(),
            (Verb::Incr, Outcome::Miss(_)) => general.incr_misses.inc(),
            (Verb::Decr, Outcome::Done) => class.decr_hits.inc(),
            (Verb::Decr, Outcome::Miss(_)) => general.decr_misses.inc(),
            _ => {}
        }
    }
}

/// Whether a value was read. A touch alone says nothing of the keys.
#[inline(always)]
fn is_hit(seen: &Seen<'_>) -> bool {
    matches!(seen.outcome, Outcome::Hit(_)) && seen.verb != Verb::Touch
}

/// Bytes of the item with header and key.
#[inline(always)]
fn item_bytes(seen: &Seen<'_>) -> u32 {
    seen.bytes + (seen.key.len() + ITEM_HEAD_BYTES) as u32
}
