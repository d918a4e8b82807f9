//! What the store's tests share.

use std::cell::{Cell, RefCell};

use slab_alloc::{Config, Sizes, SlabAllocator};

use super::item::Items;
use super::{Cache, CacheConfig};

/// A small random number generator (xorshift64*), seeded so that a failure can be run again.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn slabs(megabytes: usize) -> Config {
    let sizes = Sizes::Adaptive {
        chunk_min: 40,
        growth_factor: 1.25,
        chunk_max: 32 << 10,
        twins: 5,
    };
    Config {
        page_bytes: 64 << 10,
        limit_bytes: megabytes << 20,
        sizes,
    }
}

/// A bare arena.
pub(crate) fn small_items(megabytes: usize) -> Items {
    Items::new(
        SlabAllocator::new(&slabs(megabytes)).unwrap(),
        true,
        1 << 20,
    )
}

/// A whole cache.
pub(crate) fn small_cache(megabytes: usize) -> Cache {
    small_cache_with(megabytes, true)
}

/// The same, with CAS uniques or without.
pub(crate) fn small_cache_with(megabytes: usize, use_cas: bool) -> Cache {
    cache_in(slabs(megabytes), use_cas)
}

/// One with the small pages that a server has below 32 MB.
pub(crate) fn cache_in_small_pages(megabytes: usize) -> Cache {
    let slabs = Config {
        page_bytes: 32 << 10,
        ..slabs(megabytes)
    };
    cache_in(slabs, true)
}

fn cache_in(slabs: Config, use_cas: bool) -> Cache {
    let config = CacheConfig {
        slabs,
        use_cas,
        item_bytes_max: 1 << 20,
        hash_power: 16,
        hash_expand: true,
        threads: 2,
        knobs: crate::knobs::Knobs::default(),
    };
    Cache::new(&config).unwrap()
}

thread_local! {
    static BETWEEN_TURNS: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    static TURNS: Cell<u64> = const { Cell::new(0) };
}

/// Has `act` run on this thread whenever a verb has no entry open, between two turns (`update`), and has every verb that
/// makes an item take a second turn.
pub(crate) fn set_between_turns(act: impl FnMut() + 'static) {
    BETWEEN_TURNS.set(Some(Box::new(act)));
}

/// No longer.
pub(crate) fn clear_between_turns() {
    BETWEEN_TURNS.set(None);
}

/// Turns that verbs took on this thread beyond their first ones.
pub(crate) fn turns_repeated() -> u64 {
    TURNS.get()
}

/// True if verbs are to take a second turn.
pub(crate) fn wants_second_turn() -> bool {
    BETWEEN_TURNS.with_borrow(Option::is_some)
}

/// Called between two turns.
pub(crate) fn between_turns() {
    TURNS.set(TURNS.get() + 1);
    // Taken out meanwhile: what it does may lack memory too.
    if let Some(mut act) = BETWEEN_TURNS.take() {
        act();
        BETWEEN_TURNS.set(Some(act));
    }
}
