//! Verbs that make a new item from what they find: `append`, `incr`, `md x` and their like.
//!
//! Memory for the new item may have to be made, by evictions and page moves that need stripes themselves, so that nobody
//! can wait for it with a stripe locked. Such a verb therefore runs in turns:
//!
//! ```text
//!  open the entry --> the verb reads, then asks Room::create --> chunks at hand --> it writes, and puts the item
//!       ^                                     |
//!       |                               none: Shortage; nothing is changed yet
//!       |                                     v
//!       `--- the chunks are the room's <-- drop the entry, make an item of that size
//! ```
//!
//! U1. What a verb has read is of the entry it is given: nothing of an earlier turn is used in a later one but chunks.
//! U2. A verb changes nothing, counts nothing and answers nothing before [`Room::create`] has given it the item.
//! U3. A room ends after [`TURNS`] turns, or when no memory can be made: from then on `create` refuses.

use super::at::At;
use super::entry::Entry;
use super::item::{AllocError, ItemSpec, NewItem, Spare};
use super::store::{Cache, Lookup};
use super::table::Probe;

/// Turns a verb gets. Another one is only needed if other clients have changed the item's size between two turns, so that it
/// needs chunks of a class that neither the room nor the class itself has. What a turn has found stays in the room, so
/// that it soon has some of all: no more than the largest item takes and a chunk of each class.
const TURNS: u32 = 32;

/// The memory that a verb may use while its entry is open.
#[derive(Debug)]
pub struct Room<'c> {
    spare: Spare<'c>,
    turns_left: u32,
}

/// No chunk is at hand: to be handed back by the verb, which then runs anew.
#[derive(Debug)]
#[must_use]
pub struct Shortage {
    /// What it wanted, but for the key.
    wanted: ItemSpec<'static>,
}

impl<'c> Room<'c> {
    fn new(cache: &'c Cache) -> Self {
        Room {
            spare: Spare::none(&cache.items),
            turns_left: TURNS,
        }
    }

    /// As [`Cache::create`], while `entry` is open. The outer error says that the verb has to run once more; the inner one
    /// is final.
    pub fn create(
        &mut self,
        entry: &Entry<'c>,
        spec: &ItemSpec<'_>,
    ) -> Result<Result<NewItem<'c>, AllocError>, Shortage> {
        #[cfg(test)]
        if self.turns_left == TURNS && super::testing::wants_second_turn() {
            let wanted = ItemSpec { key: b"", ..*spec };
            return Err(Shortage { wanted });
        }
        let (cache, at) = (entry.cache, entry.at);
        let created = self
            .spare
            .create(spec, |class| cache.alloc_at_hand(class, at));
        match created {
            Err(AllocError::OutOfMemory) if self.turns_left > 0 => {
                let wanted = ItemSpec { key: b"", ..*spec };
                Err(Shortage { wanted })
            }
            final_word => Ok(final_word),
        }
    }

    /// Makes what was wanted; no entry is open.
    fn refill(&mut self, cache: &'c Cache, spec: &ItemSpec<'_>, at: At) {
        let had_spare = !self.spare.is_empty();
        self.turns_left -= 1;
        match cache.create_from(&mut self.spare, spec, at) {
            Ok(item) => self.spare.keep(item),
            Err(_) => {
                self.spare = Spare::none(&cache.items);
                // What was at hand, and of no use, may be what is lacking: then it is worth another turn.
                if !had_spare {
                    self.turns_left = 0;
                }
            }
        }
    }
}

impl<'c> Entry<'c> {
    /// Runs `verb` on this entry, of `key`, and again on the entry that is there by then as long as memory is short. Gives
    /// the entry of the last turn, still open, and what the verb says.
    pub fn update<R>(
        mut self,
        key: &[u8],
        mut verb: impl FnMut(&mut Entry<'c>, &mut Room<'c>) -> Result<R, Shortage>,
    ) -> (Entry<'c>, R) {
        let mut room = Room::new(self.cache);
        loop {
            match verb(&mut self, &mut room) {
                Ok(done) => return (self, done),
                Err(Shortage { wanted }) => {
                    self = self.reopen(&mut room, &ItemSpec { key, ..wanted });
                }
            }
        }
    }

    /// Drops the entry, makes room, and opens it anew.
    #[cold]
    fn reopen(self, room: &mut Room<'c>, spec: &ItemSpec<'_>) -> Entry<'c> {
        let (cache, hash, at) = (self.cache, self.hash, self.at);
        let (before, died_unfetched) = (self.lookup, self.died_unfetched);
        drop(self);
        room.refill(cache, spec, at);
        #[cfg(test)]
        super::testing::between_turns();
        let mut entry = cache.entry(Probe::new(hash).of(spec.key), at);
        // What the first turn found dead, it has taken out itself.
        if entry.lookup == Lookup::Missing && matches!(before, Lookup::Expired | Lookup::Flushed) {
            (entry.lookup, entry.died_unfetched) = (before, died_unfetched);
        }
        entry
    }
}
