//! Chunks at hand.

use std::fmt;

use slab_alloc::{ChunkHandle, ClassId};

use super::{AllocError, ItemSpec, Items, NewItem};

/// Chunks that belong to no item, and only to their owner: a new item can be made from them. The others are freed in the end.
pub struct Spare<'c> {
    items: &'c Items,
    chunks: Vec<ChunkHandle>,
}

impl<'c> Spare<'c> {
    /// No chunk.
    pub fn none(items: &'c Items) -> Self {
        Spare {
            items,
            chunks: Vec::new(),
        }
    }

    /// Makes an item of these chunks, and of what `alloc` finds where they do not suffice. What was found stays here if that is
    /// not enough.
    pub fn create(
        &mut self,
        spec: &ItemSpec<'_>,
        mut alloc: impl FnMut(ClassId) -> Option<ChunkHandle>,
    ) -> Result<NewItem<'c>, AllocError> {
        let items = self.items;
        let mut find = |spare: &mut Self, class| spare.take(class).or_else(|| alloc(class));
        let mut item = items.begin(spec, |class| find(self, class))?;
        loop {
            match item.extend(|class| find(self, class)) {
                Ok(true) => {}
                Ok(false) => return Ok(item),
                Err(error) => {
                    self.keep(item);
                    return Err(error);
                }
            }
        }
    }

    /// Keeps the chunks of an item that is given up.
    pub fn keep(&mut self, item: NewItem<'c>) {
        let chunks = item.into_chunks();
        for &chunk in &chunks {
            // A walk over its page is to see nothing in it (I5).
            self.items.header(chunk).clear();
        }
        self.chunks.extend(chunks);
    }

    fn take(&mut self, class: ClassId) -> Option<ChunkHandle> {
        let slabs = self.items.slabs();
        let fits = |&chunk: &ChunkHandle| slabs.class_of(chunk) == class;
        let at = self.chunks.iter().position(fits)?;
        Some(self.chunks.swap_remove(at))
    }

    /// True if there is no chunk.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        for chunk in self.chunks.drain(..) {
            self.items.give_back(chunk);
        }
    }
}

impl fmt::Debug for Spare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spare({:?})", self.chunks)
    }
}
