//! What is shown of an item: [`ItemHead`] all but its value, [`ItemView`] all.

use std::ops::Deref;

use slab_alloc::{ChunkHandle, ClassId};

use super::item::{Header, Items, Segment, State};
use crate::clock::RelTime;
use crate::events::{Marks, Meta};

/// A live item, all of it: only an `Entry` shows it, which has its stripe locked.
#[derive(Debug, Clone, Copy)]
pub struct ItemView<'e>(pub(super) ItemHead<'e>);

impl<'e> Deref for ItemView<'e> {
    type Target = ItemHead<'e>;

    #[inline]
    fn deref(&self) -> &ItemHead<'e> {
        &self.0
    }
}

impl<'e> ItemView<'e> {
    /// The value, unless it is large.
    #[inline(always)]
    pub fn value(&self) -> Option<&'e [u8]> {
        self.items.small_value(self.handle, self.header)
    }

    /// The value's pieces in order.
    pub fn value_pieces(&self) -> impl Iterator<Item = &'e [u8]> {
        self.items.value_pieces(self.handle)
    }
}

/// A live item but for its value: what can be read with its stripe locked, or with its LRU.
#[derive(Debug, Clone, Copy)]
pub struct ItemHead<'e> {
    items: &'e Items,
    handle: ChunkHandle,
    header: &'e Header,
}

impl<'e> ItemHead<'e> {
    /// The caller holds the LRU of a linked item for as long as it holds the view.
    #[inline]
    pub(super) fn new(items: &'e Items, handle: ChunkHandle) -> Self {
        ItemHead::of(items, handle, items.header(handle))
    }

    /// The same, of the item's header.
    #[inline]
    pub(super) fn of(items: &'e Items, handle: ChunkHandle, header: &'e Header) -> Self {
        ItemHead {
            items,
            handle,
            header,
        }
    }

    #[inline]
    pub(super) fn handle(&self) -> ChunkHandle {
        self.handle
    }

    #[inline]
    pub(super) fn header(&self) -> &'e Header {
        self.header
    }

    /// The key, 1 to 250 bytes.
    #[inline]
    pub fn key(&self) -> &'e [u8] {
        self.items.key(self.handle)
    }

    /// True if the client that stored it sent the key in base64.
    pub fn key_binary(&self) -> bool {
        self.header.state().has(State::KEY_BINARY)
    }

    /// Bytes of the value.
    #[inline]
    pub fn value_len(&self) -> usize {
        self.header.value_len()
    }

    /// True if the value is sent from where it lies (`Hit::pin`) and may be in pieces.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.header.state().has(State::LARGE)
    }

    /// The client flags.
    #[inline]
    pub fn client_flags(&self) -> u32 {
        self.items.client_flags(self.handle, self.header)
    }

    /// The CAS unique, 0 with `-C`.
    #[inline]
    pub fn cas(&self) -> u64 {
        self.items.cas(self.handle)
    }

    /// When the item ends.
    #[inline]
    pub fn expires_at(&self) -> RelTime {
        self.header.expires_at()
    }

    /// The second of the last access.
    #[inline]
    pub fn accessed_at(&self) -> RelTime {
        self.header.accessed_at()
    }

    /// True if it was read since it was stored.
    pub fn is_fetched(&self) -> bool {
        self.header.state().is_fetched()
    }

    /// True if it was marked stale.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.header.state().has(State::STALE)
    }

    /// True if somebody holds the lease.
    #[inline]
    pub fn is_win_sent(&self) -> bool {
        self.header.state().has(State::WIN_SENT)
    }

    /// What is written down of it, besides key and value.
    pub fn meta(&self) -> Meta {
        let mut marks = 0;
        for (is_set, mark) in [
            (self.key_binary(), Marks::KEY_BINARY),
            (self.is_fetched(), Marks::FETCHED),
            (self.is_stale(), Marks::STALE),
            (self.is_win_sent(), Marks::WIN_SENT),
        ] {
            marks |= if is_set { mark } else { 0 };
        }
        Meta {
            marks: Marks(marks).with_place(self.segment() as u8, self.header.uses() as u8),
            client_flags: self.client_flags(),
            cas: self.cas(),
            expires_at: self.expires_at().0,
            accessed_at: self.accessed_at().0,
        }
    }

    /// The slab class.
    #[inline]
    pub fn class(&self) -> ClassId {
        self.header.class().expect("an item has a class")
    }

    /// The LRU segment it is in.
    #[inline]
    pub fn segment(&self) -> Segment {
        self.header.state().segment()
    }

    /// Bytes the item asked for.
    pub fn item_bytes(&self) -> usize {
        self.items.requested_bytes(self.handle)
    }
}
