//! A set of slab classes.

use slab_alloc::{CLASSES_MAX, ClassId};

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
