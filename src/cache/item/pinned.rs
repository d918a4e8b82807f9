//! A value on its way to a client.

use std::fmt;

use slab_alloc::ChunkHandle;

use super::Items;
use crate::packing::{Packer, Unpacker};

/// A hold on a large value while it is being sent; the item may be unlinked meanwhile.
pub struct PinnedValue<'c> {
    items: &'c Items,
    handle: ChunkHandle,
    /// The chunk being sent, and how far; none when all is sent.
    chunk: Option<ChunkHandle>,
    sent: usize,
}

impl<'c> PinnedValue<'c> {
    /// Takes over a reference that was counted.
    pub(super) fn of(items: &'c Items, handle: ChunkHandle) -> Self {
        PinnedValue {
            items,
            handle,
            chunk: Some(handle),
            sent: 0,
        }
    }
}

impl PinnedValue<'_> {
    /// Up to `max` pieces of what is still to be sent.
    pub fn unsent(&self, max: usize) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.sent;
        std::iter::successors(self.chunk, |&chunk| self.items.chunk_after(chunk))
            .take(max)
            .map(move |chunk| &self.items.chunk_value(chunk)[std::mem::take(&mut skip)..])
    }

    /// Bytes still to be sent.
    pub fn unsent_len(&self) -> usize {
        if self.chunk == Some(self.handle) {
            return self.items.header(self.handle).value_len() - self.sent;
        }
        self.unsent(usize::MAX).map(<[u8]>::len).sum()
    }

    /// Notes that `n` bytes were sent; gives how many of them were beyond this value.
    pub fn advance(&mut self, mut n: usize) -> usize {
        while let Some(chunk) = self.chunk {
            let left = self.items.chunk_value(chunk).len() - self.sent;
            if n < left {
                self.sent += n;
                return 0;
            }
            n -= left;
            self.sent = 0;
            self.chunk = self.items.chunk_after(chunk);
        }
        n
    }

    /// True when all is sent.
    pub fn is_sent(&self) -> bool {
        self.chunk.is_none()
    }
}

impl<'c> PinnedValue<'c> {
    /// Writes down what it is for another process, which has the item's memory, and leaves the hold to it.
    pub fn pack(self, to: &mut Packer) {
        to.number(self.handle.to_raw());
        to.number(self.chunk.map_or(0, ChunkHandle::to_raw));
        to.size(self.sent);
        std::mem::forget(self);
    }

    /// Goes on with what another process has written down of an item that lies in `items`.
    pub fn unpack(items: &'c Items, from: &mut Unpacker<'_>) -> Option<Self> {
        let handle = items.unpack_handle(from)?;
        let chunk = match from.number::<u32>()? {
            0 => None,
            raw => Some(items.found_handle(raw)?),
        };
        let sent = from.number()?;
        let is_inside = chunk.is_none_or(|chunk| sent <= items.chunk_value(chunk).len());
        is_inside.then_some(PinnedValue {
            items,
            handle,
            chunk,
            sent,
        })
    }
}

impl Drop for PinnedValue<'_> {
    fn drop(&mut self) {
        self.items.release(self.handle);
    }
}

impl fmt::Debug for PinnedValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedValue({:?}, {} sent)", self.handle, self.sent)
    }
}
