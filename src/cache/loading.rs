//! Items that were written down, put back as they were: with their CAS unique, their age and their place in the LRU.

use super::at::At;
use super::eviction::Policy;
use super::item::{AllocError, ItemSpec, NewItem, Segment, State};
use super::store::Cache;
use super::table::Probe;
use crate::clock::RelTime;
use crate::keyspace::misses::Gone;

/// What an item is to be like.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'k> {
    /// What it is made from.
    pub spec: ItemSpec<'k>,
    /// Its CAS unique.
    pub cas: u64,
    /// When it was last asked for.
    pub accessed_at: RelTime,
    /// It was read since it was stored.
    pub is_fetched: bool,
    /// It was marked stale.
    pub is_stale: bool,
    /// A client holds the lease to fetch it anew.
    pub is_win_sent: bool,
    /// The LRU segment it was in; where none is known, the policy decides.
    pub segment: Option<Segment>,
    /// Its reads since the policy last looked, 0 to 3.
    pub uses: u8,
}

impl Cache {
    /// Makes ready for so many items of so many bytes together, which come as fast as they are taken.
    pub fn expect(&self, items: u64, bytes: u64) {
        /// What an item takes at least, and a record of one.
        const LEAST_BYTES: u64 = 32;
        let fit = (self.limit_bytes() as u64).min(bytes) / LEAST_BYTES;
        self.table.expect(items.min(fit) as usize);
        self.items.slabs().fill_pages(true);
    }

    /// They have come.
    pub fn expect_no_more(&self) {
        self.items.slabs().fill_pages(false);
    }

    /// An item of that kind, whose value is yet to be written.
    pub fn begin_saved(&self, saved: &Saved<'_>, at: At) -> Result<NewItem<'_>, AllocError> {
        self.create(&saved.spec, at)
    }

    /// Puts it in the place of its key.
    pub fn put_saved(&self, item: NewItem<'_>, saved: &Saved<'_>, probe: Probe, at: At) {
        let mut entry = self.entry(probe.of(saved.spec.key), at);
        let hit = entry.put(item, Some(saved.cas));
        let (handle, header) = (hit.handle(), hit.header());
        header.set_accessed_at(saved.accessed_at);
        let mut bits = State::of_uses(u16::from(saved.uses.min(3)));
        for (is_set, bit) in [
            (saved.is_fetched, State::FETCHED),
            (saved.is_stale, State::STALE),
            (saved.is_win_sent, State::WIN_SENT),
        ] {
            bits = if is_set { bits | bit } else { bits };
        }
        header.set_bits(bits);
        if let Some(segment) = saved.segment
            // Of one order for all items the place is not to be had from elsewhere.
            && self.tuning.policy() != Policy::Ttl
            && header.state().segment() != segment
        {
            let mut lru = self.lru(self.class_of(handle));
            lru.segments.shift(&self.items, handle, segment);
        }
    }

    /// Changes all but the value of an item that is there.
    pub fn change_saved(&self, saved: &Saved<'_>, at: At) {
        let mut entry = self.entry(self.sought(saved.spec.key), at);
        let Some(hit) = entry.found() else {
            return;
        };
        hit.touch(saved.spec.expires_at);
        hit.set_cas(Some(saved.cas));
        let header = hit.header();
        for (is_set, bit) in [
            (saved.is_stale, State::STALE),
            (saved.is_win_sent, State::WIN_SENT),
        ] {
            if is_set {
                header.set_bits(bit);
            } else {
                header.clear_bits(bit);
            }
        }
        header.set_accessed_at(saved.accessed_at.max(header.accessed_at()));
    }

    /// Takes all items out, those of this moment too.
    pub fn unlink_all(&self) {
        for stripe in 0..self.table.stripes() {
            let mut guard = self.table.lock_stripe(stripe);
            for (hash, handle) in guard.entries() {
                if let Some((slot, _)) = guard.find(hash, |at| at == handle) {
                    self.departed.note(hash.0, Gone::Flushed);
                    self.unlink(&mut guard, hash, slot, handle);
                }
            }
        }
    }

    /// Sees to it that no CAS unique up to `last` is given out any more.
    pub fn pass_cas(&self, last: u64) {
        self.stores.pass(&self.table, last);
    }

    /// A CAS unique that all given out so far do not exceed.
    pub fn last_cas(&self) -> u64 {
        self.stores.highest()
    }
}
