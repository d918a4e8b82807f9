//! Items in memory that another process has left: which of the chunks hold one, whole.
//!
//! Nothing there is believed before it was looked at (I7): a header that says LINKED is an item when its class is that of
//! its page, and key and value lie inside its chunks. A process that was killed has linked no item before its last byte was
//! written, and unlinked it before anything of it was overwritten; so what is LINKED and sound has the value that was stored.
//!
//! A continuation of a sound item is marked LINKED until its page is settled, which nothing else ever is.

use std::sync::atomic::Ordering::Relaxed;

use slab_alloc::{ChunkHandle, ClassId, PageId};

use super::{HEADER_BYTES, Items, State, key_offset};

/// The longest key, in bytes.
const KEY_MAX: usize = 250;

impl Items {
    /// True if the chunk, of a page of `class`, says that it is the head of a linked item.
    #[inline]
    pub fn claims_item(&self, handle: ChunkHandle) -> bool {
        self.header(handle).state().is_linked_head()
    }

    /// True if the chunk continues an item.
    pub fn is_continuation(&self, chunk: ChunkHandle) -> bool {
        self.header(chunk).state().has(State::CONTINUATION)
    }

    /// All chunks of a sound item, the head first.
    pub fn chunks(&self, handle: ChunkHandle) -> impl Iterator<Item = ChunkHandle> {
        self.value_pieces_chunks(handle)
    }

    /// True if its key is shown in base64.
    pub fn is_key_binary(&self, handle: ChunkHandle) -> bool {
        self.header(handle).state().has(State::KEY_BINARY)
    }

    /// Says of an item that is in the table and in a list that it is.
    pub fn mark_linked(&self, handle: ChunkHandle) {
        self.header(handle).set_bits(State::LINKED);
    }

    /// Whether a chunk that claims to be an item is one, all of it. Marks the rest of its chain. Nobody else looks at the item
    /// meanwhile; those who look at others may do so at the same time.
    pub fn is_sound(&self, handle: ChunkHandle, class: ClassId) -> bool {
        let header = self.header(handle);
        let state = header.state();
        let chunk_bytes = self.slabs.chunk_bytes(class);
        let key_end = key_offset(state) + header.key_len();
        if !state.has(State::ITEM)
            || header.class() != Some(class)
            || !(1..=KEY_MAX).contains(&header.key_len())
            || key_end > chunk_bytes
        {
            return false;
        }
        let room = chunk_bytes - key_end;
        if !state.has(State::LARGE) {
            return header.value_len() <= room;
        }
        self.refs(handle).store(1, Relaxed);
        let rest = header.value_len().saturating_sub(room);
        let is_whole = self.mark_chain(handle, rest);
        if !is_whole {
            self.clear_chain(handle);
        }
        is_whole
    }

    /// Marks the chunks of a chain that holds `rest` bytes; false if it does not, or is not of that item.
    fn mark_chain(&self, head: ChunkHandle, mut rest: usize) -> bool {
        let mut next = self.chain_start(head);
        while let Some(chunk) = next {
            // Only numbers of chunks that there are may be asked for their header.
            let Some(class) = self.class_of_found(chunk) else {
                return false;
            };
            let header = self.header(chunk);
            let (state, len) = (header.state(), header.value_len());
            // One that is marked already was here before: a chain that goes round.
            if !state.has(State::CONTINUATION)
                || state.has(State::LINKED)
                || header.class() != Some(class)
                || header.continued_head() != Some(head)
                || len == 0
                || len > rest
                || len > self.slabs.chunk_bytes(class) - HEADER_BYTES
            {
                return false;
            }
            header.set_bits(State::LINKED);
            rest -= len;
            next = header.next();
        }
        rest == 0
    }

    /// The class of the page, if a chunk that was handed out begins there.
    pub(super) fn class_of_found(&self, chunk: ChunkHandle) -> Option<ClassId> {
        let page = self.slabs.page_around(chunk)?;
        let class = self.slabs.page_class(page)?;
        let offset = self.slabs.offset_in_page(chunk);
        let chunk_bytes = self.slabs.chunk_bytes(class);
        let handed_out = self.slabs.page_chunks(page).size_hint().0;
        (offset.is_multiple_of(chunk_bytes) && offset / chunk_bytes < handed_out).then_some(class)
    }

    /// Takes the marks off a chain whose item is not kept.
    fn clear_chain(&self, head: ChunkHandle) {
        let mut next = self.chain_start(head);
        while let Some(chunk) = next {
            if self.class_of_found(chunk).is_none() {
                return;
            }
            let header = self.header(chunk);
            let is_own = header.state().has(State::CONTINUATION)
                && header.state().has(State::LINKED)
                && header.continued_head() == Some(head);
            if !is_own {
                return;
            }
            header.clear_bits(State::LINKED);
            next = header.next();
        }
    }

    /// Makes a sound item, or what claimed to be one, nothing. Nobody else looks at it.
    pub fn disown(&self, handle: ChunkHandle, was_sound: bool) {
        if was_sound && self.header(handle).state().has(State::LARGE) {
            self.clear_chain(handle);
        }
        self.header(handle).clear();
    }

    /// Settles a page of a salvaged allocator: sound items and their continuations stay, all else is free. To be called when
    /// every page was looked through.
    pub fn settle(&self, page: PageId) {
        let is_used = |chunk| {
            let header = self.header(chunk);
            let state = header.state();
            if state.has(State::CONTINUATION) && state.has(State::LINKED) {
                header.clear_bits(State::LINKED);
                return true;
            }
            let is_used = state.is_linked_head();
            if !is_used {
                header.clear();
            }
            is_used
        };
        // SAFETY: what is in nobody's hands: no item, and not of an item's chain. Nothing else can have a chunk (I1): nobody
        // was given one by this allocator.
        unsafe { self.slabs.settle(page, is_used) };
    }

    /// A sum over what was written to a page, while nobody uses the items.
    pub fn page_sum(&self, page: PageId) -> u64 {
        // SAFETY: the process that had the memory has ended or is about to, or none has begun: nobody writes (I1).
        unsafe { self.slabs.page_sum(page) }
    }

    /// Makes `new`, an unlinked item of the same key and value, what `old` is but for its place: times, unique, uses, segment.
    pub fn follow_old(&self, new: ChunkHandle, others: &Items, old: ChunkHandle) {
        let (to, from) = (self.header(new), others.header(old));
        to.set_accessed_at(from.accessed_at());
        self.set_cas(new, others.cas(old));
        to.take_over_bits(from.state());
    }

    /// Takes a page of an imported memory away, with all that is left in it.
    pub fn give_page_back(&self, page: PageId) {
        // SAFETY: the items of an older memory are nobody's but the importer's, who is done with this page.
        unsafe { self.slabs.settle(page, |_| false) };
    }
}
