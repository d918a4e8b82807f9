//! An item on its way into the cache.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use slab_alloc::{ChunkHandle, ClassId};

use super::{AllocError, HEADER_BYTES, Items};
use crate::packing::{Packer, Unpacker};

/// An item that only its owner knows: its value is being written, in order. Dropped unlinked, it is freed.
pub struct NewItem<'c> {
    items: &'c Items,
    handle: ChunkHandle,
    /// The chunk being filled, and where in it the unwritten bytes of its part of the value lie.
    chunk: ChunkHandle,
    unwritten_here: Range<usize>,
    /// Bytes of the value that are not written yet.
    unwritten: usize,
    /// The last chunk of the chain, and the bytes of the value that have no chunk yet.
    last: ChunkHandle,
    missing: usize,
}

impl<'c> NewItem<'c> {
    /// Takes over an item whose first chunk is made, which has `place` for its value or the beginning of it.
    #[inline]
    pub(super) fn of(
        items: &'c Items,
        handle: ChunkHandle,
        value_len: usize,
        place: Range<usize>,
    ) -> Self {
        NewItem {
            items,
            handle,
            chunk: handle,
            unwritten: value_len,
            last: handle,
            missing: value_len - place.len(),
            unwritten_here: place,
        }
    }
}

impl NewItem<'_> {
    /// Adds the next chunk to the chain; false if all of the value has its place.
    pub fn extend(
        &mut self,
        alloc: impl FnOnce(ClassId) -> Option<ChunkHandle>,
    ) -> Result<bool, AllocError> {
        if self.missing == 0 {
            return Ok(false);
        }
        let (items, slabs) = (self.items, &self.items.slabs);
        let class = items.piece_class(HEADER_BYTES + self.missing, self.value_len());
        let chunk = alloc(class).ok_or(AllocError::OutOfMemory)?;
        // It may be a larger one, if there was no other.
        let class = slabs.class_of(chunk);
        let len = self.missing.min(slabs.chunk_bytes(class) - HEADER_BYTES);
        items
            .header(chunk)
            .begin_continuation(class, self.handle, len);
        if self.last == self.handle {
            items.chain(self.handle).store(chunk.to_raw(), Relaxed);
        } else {
            items.header(self.last).set_next(Some(chunk));
        }
        self.last = chunk;
        self.missing -= len;
        Ok(true)
    }

    /// The item's handle.
    pub fn handle(&self) -> ChunkHandle {
        self.handle
    }

    /// Bytes of the whole value.
    pub fn value_len(&self) -> usize {
        self.items.header(self.handle).value_len()
    }

    /// The class of its (head) chunk.
    pub fn class(&self) -> ClassId {
        self.items
            .header(self.handle)
            .class()
            .expect("an item has a class")
    }

    /// The value's pieces in order.
    pub fn value_pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.items.value_pieces(self.handle)
    }

    /// The next unwritten bytes of the value, as many as lie in one piece; empty when the value is complete, or its
    /// next chunk is yet to be added.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        while self.unwritten_here.is_empty()
            && let Some(next) = self.items.chunk_after(self.chunk)
        {
            self.chunk = next;
            self.unwritten_here = self.items.value_range(next);
        }
        let place = self.unwritten_here.clone();
        let header = self.items.header(self.chunk);
        self.items.assert_inside(header, place.end);
        // SAFETY: nobody but the owner knows the item (I1), and the range lies inside the chunk (I7).
        unsafe {
            let slabs = &self.items.slabs;
            slabs.bytes_mut(self.chunk, place.start, place.len())
        }
    }

    /// Notes that the first `n` bytes of [`NewItem::spare`] are written.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.unwritten_here.len());
        self.unwritten_here.start += n;
        self.unwritten -= n;
    }

    /// Writes the next bytes of the value; gives how many fitted.
    pub fn write(&mut self, mut bytes: &[u8]) -> usize {
        let mut written = 0;
        while !bytes.is_empty() {
            let spare = self.spare();
            let n = spare.len().min(bytes.len());
            if n == 0 {
                break;
            }
            spare[..n].copy_from_slice(&bytes[..n]);
            self.advance(n);
            bytes = &bytes[n..];
            written += n;
        }
        written
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.items.key(self.handle)
    }

    /// Hands the item over to the table and the LRU. Panics if its value is not written to the last byte.
    pub fn into_handle(self) -> ChunkHandle {
        assert!(
            self.unwritten == 0,
            "{} bytes of a value were not written",
            self.unwritten
        );
        let handle = self.handle;
        std::mem::forget(self);
        handle
    }
}

impl NewItem<'_> {
    /// Gives up the item for its chunks, which are the caller's from now on.
    pub(super) fn into_chunks(self) -> Vec<ChunkHandle> {
        let chunks = self.items.value_pieces_chunks(self.handle).collect();
        std::mem::forget(self);
        chunks
    }
}

impl<'c> NewItem<'c> {
    /// Writes down what it is for another process, which has the item's memory, and leaves the item to it.
    pub fn pack(self, to: &mut Packer) {
        let Range { start, end } = self.unwritten_here;
        for handle in [self.handle, self.chunk, self.last] {
            to.number(handle.to_raw());
        }
        for size in [start, end, self.unwritten, self.missing] {
            to.size(size);
        }
        std::mem::forget(self);
    }

    /// Goes on with what another process has written down of an item that lies in `items`.
    pub fn unpack(items: &'c Items, from: &mut Unpacker<'_>) -> Option<Self> {
        let handle = items.unpack_handle(from)?;
        let chunk = items.unpack_handle(from)?;
        let last = items.unpack_handle(from)?;
        let unwritten_here = from.number()?..from.number()?;
        let (unwritten, missing) = (from.number()?, from.number()?);
        let is_inside = unwritten_here.start <= unwritten_here.end
            && unwritten_here.end <= items.value_range(chunk).end
            && unwritten_here.len() <= unwritten;
        is_inside.then_some(NewItem {
            items,
            handle,
            chunk,
            unwritten_here,
            unwritten,
            last,
            missing,
        })
    }
}

impl Drop for NewItem<'_> {
    fn drop(&mut self) {
        self.items.release(self.handle);
    }
}

impl fmt::Debug for NewItem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewItem({:?})", self.handle)
    }
}
