//! Where a worker keeps its connections: by slot, as the poll names them, and by a name that is never given again.

use slab::Slab;

use crate::state::ConnId;

/// Connections (or what else there is a `T` of), each in its slot.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slab: Slab<(u32, T)>,
    /// Of the next that comes.
    generation: u32,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Slots {
            slab: Slab::new(),
            generation: 0,
        }
    }

    /// The slot that the next one gets.
    pub(super) fn vacant(&self) -> usize {
        self.slab.vacant_key()
    }

    /// The name that it gets.
    pub(super) fn vacant_id(&self) -> ConnId {
        ConnId {
            slot: self.vacant(),
            generation: self.generation,
        }
    }

    /// Puts one in the slot that is [`Slots::vacant`].
    pub(super) fn insert(&mut self, item: T) {
        self.slab.insert((self.generation, item));
        // A name comes again after 2^32 connections of this worker: nobody waits for so long.
        self.generation = self.generation.wrapping_add(1);
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&T> {
        self.slab.get(slot).map(|(_, item)| item)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.slab.get_mut(slot).map(|(_, item)| item)
    }

    /// All slots are below this, used or not.
    pub(super) fn end(&self) -> usize {
        self.slab.capacity()
    }

    /// The name of the one in this slot, for other threads.
    pub(super) fn id(&self, slot: usize) -> Option<ConnId> {
        let &(generation, _) = self.slab.get(slot)?;
        Some(ConnId { slot, generation })
    }

    /// True if the one of this name is still there.
    pub(super) fn has(&self, id: ConnId) -> bool {
        self.id(id.slot) == Some(id)
    }

    pub(super) fn remove(&mut self, slot: usize) -> T {
        self.slab.remove(slot).1
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        self.slab.drain().map(|(_, item)| item)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.slab.iter().map(|(slot, (_, item))| (slot, item))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.slab.iter_mut().map(|(slot, (_, item))| (slot, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_dies_with_its_connection() {
        let mut slots = Slots::new();
        slots.insert("first");
        let slot = slots.vacant();
        slots.insert("gone");
        let gone = slots.id(slot).expect("it is there");
        assert!(slots.has(gone));
        assert_eq!(slots.remove(slot), "gone");
        assert!(!slots.has(gone));
        assert_eq!(slots.vacant(), slot);
        slots.insert("next");
        let next = slots.id(slot).expect("it is there");
        assert_eq!(
            (next.slot, slots.has(next), slots.has(gone)),
            (slot, true, false)
        );
        assert_eq!(slots.get(slot), Some(&"next"));
        assert_eq!(slots.iter().count(), 2);
    }
}
