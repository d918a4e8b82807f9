//! A set of slab classes.

use slab_alloc::{CLASSES_MAX, ClassId};

use crate::packing::{Packer, Unpacker};

/// A set of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassMask([u64; CLASSES_MAX / 64]);

impl ClassMask {
    /// Every class.
    pub const ALL: ClassMask = ClassMask([u64::MAX; CLASSES_MAX / 64]);
    /// No class.
    pub const NONE: ClassMask = ClassMask([0; CLASSES_MAX / 64]);

    /// This set and `class`.
    #[must_use]
    pub fn with(mut self, class: ClassId) -> Self {
        self.0[class.index() / 64] |= 1 << (class.index() % 64);
        self
    }

    /// True if `class` is in it.
    pub fn has(&self, class: ClassId) -> bool {
        self.0[class.index() / 64] & 1 << (class.index() % 64) != 0
    }

    /// Writes it down.
    pub fn pack(&self, to: &mut Packer) {
        self.0.iter().for_each(|&word| _ = to.number(word));
    }

    /// The set that was written down.
    pub fn unpack(from: &mut Unpacker<'_>) -> Option<Self> {
        let mut set = ClassMask::NONE;
        for word in &mut set.0 {
            *word = from.number()?;
        }
        Some(set)
    }

    /// Both sets together.
    #[must_use]
    pub fn or(mut self, other: ClassMask) -> Self {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        self
    }
}

impl Default for ClassMask {
    fn default() -> Self {
        ClassMask::NONE
    }
}
