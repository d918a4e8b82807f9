//! The allocator against a model of it, then against threads, then a few stories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::arena::Arena;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose test steps.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        (!choices.is_empty()).then(|| choices[self.below(choices.len())])
    }
}

/// A seed nobody tried before, unless `KETCH_SEED` asks for one that failed.
fn new_seed() -> u64 {
    match std::env::var("KETCH_SEED") {
        Ok(seed) => seed.parse().expect("KETCH_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64,
    }
}

fn allocator(pages: usize, sizes: &[usize]) -> SlabAllocator {
    allocator_of(PAGE_BYTES_MAX, pages, sizes)
}

fn allocator_of(page_bytes: usize, pages: usize, sizes: &[usize]) -> SlabAllocator {
    let chunk_max = *sizes.last().unwrap();
    let sizes = Sizes::List {
        sizes: sizes.to_vec(),
        chunk_max,
    };
    let config = Config {
        page_bytes,
        limit_bytes: pages * page_bytes,
        sizes,
    };
    SlabAllocator::with_reservation(&config, 64).unwrap()
}

fn class(number: u8) -> ClassId {
    ClassId::new(number).unwrap()
}

/// Marks both ends of a chunk, the header through atomics.
fn mark(slabs: &SlabAllocator, chunk: ChunkHandle, value: u64) {
    let chunk_bytes = slabs.chunk_bytes(slabs.class_of(chunk));
    slabs.header::<AtomicU64>(chunk, 8).store(value, Relaxed);
    // SAFETY: the tests own what they mark, and the part is behind the header.
    unsafe { slabs.bytes_mut(chunk, chunk_bytes - 8, 8) }.copy_from_slice(&value.to_le_bytes());
}

fn assert_marked(slabs: &SlabAllocator, chunk: ChunkHandle, value: u64) {
    let chunk_bytes = slabs.chunk_bytes(slabs.class_of(chunk));
    assert_eq!(
        slabs.header::<AtomicU64>(chunk, 8).load(Relaxed),
        value,
        "start of {chunk:?}"
    );
    // SAFETY: the tests own what they marked, and the part is behind the header.
    let end = unsafe { slabs.bytes(chunk, chunk_bytes - 8, 8) };
    assert_eq!(end, value.to_le_bytes(), "end of {chunk:?}");
}

/// What is known of a chunk in hands.
struct Live {
    class: ClassId,
    bytes: usize,
    mark: u64,
}

/// The live chunks by address, and the pages that are draining.
struct Model {
    slabs: SlabAllocator,
    random: Random,
    live: BTreeMap<usize, (ChunkHandle, Live)>,
    draining: BTreeSet<PageId>,
}

impl Model {
    fn new(seed: u64, page_bytes: usize, pages: usize, sizes: &[usize]) -> Self {
        println!("seed {seed}, {pages} pages of {sizes:?}");
        Self {
            slabs: allocator_of(page_bytes, pages, sizes),
            random: Random(seed),
            live: BTreeMap::new(),
            draining: BTreeSet::new(),
        }
    }

    fn run(&mut self, steps: usize, check_every: usize) {
        for step in 0..steps {
            self.step();
            if step.is_multiple_of(check_every) {
                self.check();
            }
        }
        // Everything freed and every drain ended: nothing may be left over.
        for page in std::mem::take(&mut self.draining) {
            self.slabs.cancel_drain(page);
        }
        while let Some(&address) = self.live.keys().next() {
            self.free(address);
        }
        self.check();
        for class in self.slabs.classes() {
            assert_eq!(self.slabs.class_stats(class).used_chunks, 0);
            // Only pages that were handed over and never used may still be the class's.
            while let Some(page) = self.slabs.begin_drain(class) {
                assert!(self.slabs.finish_drain(page));
            }
            let chunk_bytes = self.slabs.chunk_bytes(class);
            let chunks_per_page = self.slabs.page_bytes() / chunk_bytes;
            let nothing = ClassStats {
                chunk_bytes,
                chunks_per_page,
                ..ClassStats::default()
            };
            assert_eq!(self.slabs.class_stats(class), nothing);
        }
        self.check();
        assert_eq!(self.slabs.pages_total(), self.slabs.pool_pages());
        assert_eq!(self.slabs.over_limit(), 0);
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..50 => self.alloc(),
            50..85 => self.free_any(),
            85..88 => self.begin_drain(),
            88..90 => self.begin_drain_page(),
            90..92 => self.empty_draining_page(),
            92..95 => self.finish_drain(),
            95..96 => self.cancel_drain(),
            96..98 => self.alloc_many(),
            98..99 => self.free_page(),
            _ => self.set_limit(),
        }
    }

    fn any_class(&mut self) -> ClassId {
        class(1 + self.random.below(self.slabs.largest().index()) as u8)
    }

    fn alloc(&mut self) {
        let class = self.any_class();
        self.alloc_of(class);
    }

    fn alloc_of(&mut self, class: ClassId) -> bool {
        let before = self.slabs.class_stats(class);
        let available = self.slabs.available_pages();
        let Some(chunk) = self.slabs.alloc(class) else {
            assert_eq!(
                (before.free_chunks, before.fresh_chunks, available),
                (0, 0, 0)
            );
            return false;
        };
        let bytes = self.slabs.chunk_bytes(class);
        let address = self.slabs.ptr(chunk).addr().get();
        let page = self.slabs.page_of(chunk);
        assert_eq!(self.slabs.class_of(chunk), class);
        assert_eq!(ChunkHandle::from_raw(chunk.to_raw()), Some(chunk));
        assert!(
            address.is_multiple_of(self.slabs.granule_bytes()),
            "aligned"
        );
        let last = self.slabs.arena.offset_in_page(chunk) + bytes - 1;
        assert!(last < self.slabs.page_bytes(), "inside its page");
        assert!(
            !self.draining.contains(&page),
            "a draining page gives nothing"
        );
        if let Some((&below, (_, other))) = self.live.range(..=address).next_back() {
            assert!(below + other.bytes <= address, "overlaps the chunk below");
        }
        if let Some((&above, _)) = self.live.range(address..).next() {
            assert!(address + bytes <= above, "overlaps the chunk above");
        }
        if before.free_chunks == 0 {
            let header = (0..HEADER_ZEROED).step_by(8);
            assert!(
                header.into_iter().all(|at| self
                    .slabs
                    .header::<AtomicU64>(chunk, at)
                    .load(Relaxed)
                    == 0)
            );
        }
        let value = self.random.next();
        mark(&self.slabs, chunk, value);
        self.live.insert(
            address,
            (
                chunk,
                Live {
                    class,
                    bytes,
                    mark: value,
                },
            ),
        );
        true
    }

    fn alloc_many(&mut self) {
        let class = self.any_class();
        let count = self.random.below(200);
        let _ = (0..count).all(|_| self.alloc_of(class));
    }

    fn free(&mut self, address: usize) {
        let (chunk, live) = self.live.remove(&address).unwrap();
        assert_marked(&self.slabs, chunk, live.mark);
        // SAFETY: the model had it as live, and has just forgotten it.
        unsafe { self.slabs.free(chunk) };
    }

    fn free_any(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let nth = self.random.below(self.live.len());
        let address = *self.live.keys().nth(nth).unwrap();
        self.free(address);
    }

    fn live_in(&self, page: PageId) -> Vec<usize> {
        let inside = self
            .live
            .iter()
            .filter(|(_, (chunk, _))| self.slabs.page_of(*chunk) == page);
        inside.map(|(&address, _)| address).collect()
    }

    fn any_page(&mut self) -> Option<PageId> {
        let pages: Vec<PageId> = self.slabs.pool.ever_used().collect();
        self.random.of(&pages)
    }

    fn any_draining(&mut self) -> Option<PageId> {
        let pages: Vec<PageId> = self.draining.iter().copied().collect();
        self.random.of(&pages)
    }

    fn free_page(&mut self) {
        let Some(page) = self.any_page() else { return };
        for address in self.live_in(page) {
            self.free(address);
        }
    }

    fn begin_drain(&mut self) {
        let class = self.any_class();
        let pages: Vec<PageId> = self.slabs.class_pages(class).collect();
        let fewest = pages.iter().map(|&page| self.live_in(page).len()).min();
        let page = self.slabs.begin_drain(class);
        assert_eq!(page.map(|page| self.live_in(page).len()), fewest);
        self.draining.extend(page);
    }

    fn begin_drain_page(&mut self) {
        let Some(page) = self.any_page() else { return };
        let can = self.slabs.page_class(page).is_some() && !self.draining.contains(&page);
        assert_eq!(self.slabs.begin_drain_page(page), can);
        if can {
            self.draining.insert(page);
        }
    }

    fn empty_draining_page(&mut self) {
        let Some(page) = self.any_draining() else {
            return;
        };
        for chunk in self.slabs.page_chunks(page).collect::<Vec<_>>() {
            let address = self.slabs.ptr(chunk).addr().get();
            if self.live.contains_key(&address) {
                self.free(address);
            }
        }
        assert_eq!(self.slabs.page_used(page), 0);
    }

    fn finish_drain(&mut self) {
        // Now and then a page that is not draining: it must stay as it is.
        let page = if self.random.below(4) == 0 {
            self.any_page()
        } else {
            self.any_draining()
        };
        let Some(page) = page else { return };
        let can = self.draining.contains(&page) && self.live_in(page).is_empty();
        let kept_total = self.slabs.pages_total();
        if self.random.below(2) == 0 {
            let class = self.any_class();
            assert_eq!(self.slabs.finish_drain_to(page, class), can);
            if can {
                assert_eq!(self.slabs.page_class(page), Some(class));
                assert_eq!(self.slabs.page_chunks(page).count(), 0);
            }
            assert_eq!(self.slabs.pages_total(), kept_total);
        } else {
            let over = self.slabs.over_limit() > 0;
            assert_eq!(self.slabs.finish_drain(page), can);
            if can {
                assert_eq!(self.slabs.page_class(page), None);
            }
            assert_eq!(
                self.slabs.pages_total(),
                kept_total - usize::from(can && over)
            );
        }
        if can {
            self.draining.remove(&page);
        }
    }

    fn cancel_drain(&mut self) {
        let page = if self.random.below(4) == 0 {
            self.any_page()
        } else {
            self.any_draining()
        };
        if let Some(page) = page {
            self.slabs.cancel_drain(page);
            if self.draining.remove(&page) && self.live_in(page).is_empty() {
                assert_eq!(self.slabs.page_class(page), None);
            }
        }
    }

    fn set_limit(&mut self) {
        let bytes = self.random.below(24 * self.slabs.page_bytes());
        let limit = self.slabs.set_limit(bytes);
        assert_eq!(
            limit,
            (bytes / self.slabs.page_bytes()).max(1) * self.slabs.page_bytes()
        );
        assert_eq!(self.slabs.limit_bytes(), limit);
        assert!(self.slabs.pool_pages() == 0 || self.slabs.over_limit() == 0);
    }

    fn check(&self) {
        self.slabs.check_invariants();
        let mut pages = 0;
        for class in self.slabs.classes() {
            let stats = self.slabs.class_stats(class);
            let live = self
                .live
                .values()
                .filter(|(_, live)| live.class == class)
                .count();
            assert_eq!(stats.used_chunks, live, "used chunks of {class:?}");
            let not_draining = self.slabs.class_pages(class).count();
            assert_eq!(stats.total_pages - stats.draining_pages, not_draining);
            pages += stats.total_pages;
        }
        for &page in &self.draining {
            assert!(self.slabs.page_class(page).is_some());
            let named: BTreeSet<ChunkHandle> = self.slabs.page_chunks(page).collect();
            let inside = self.live_in(page);
            assert_eq!(self.slabs.page_used(page) as usize, inside.len());
            assert!(
                inside
                    .iter()
                    .all(|address| named.contains(&self.live[address].0))
            );
        }
        assert_eq!(self.slabs.pages_total(), pages + self.slabs.pool_pages());
        let limit_pages = self.slabs.limit_bytes() / self.slabs.page_bytes();
        assert_eq!(
            self.slabs.available_pages(),
            limit_pages.saturating_sub(pages)
        );
        assert!(
            self.slabs.arena_bytes_touched() <= self.slabs.pages_total() * self.slabs.page_bytes()
        );
    }
}

const LARGE: [usize; 6] = [8192, 20_000, 65_536, 174_760, 512 * 1024, PAGE_BYTES_MAX];
const MIXED: [usize; 5] = [32, 96, 1184, 65_536, 512 * 1024];

#[test]
fn random_steps_agree_with_the_model() {
    for seed in [1, 2, 3, new_seed()] {
        Model::new(seed, PAGE_BYTES_MAX, 12, &LARGE).run(3000, 1);
    }
}

#[test]
fn random_steps_agree_with_the_model_for_small_chunks() {
    for seed in [4, new_seed()] {
        Model::new(seed, PAGE_BYTES_MAX, 6, &MIXED).run(6000, 100);
        Model::new(seed, 64 << 10, 40, &MIXED[..4]).run(6000, 100);
    }
}

/// What the threads do: hold some chunks, each filled with a value of its own, and exchange them.
fn churn(slabs: &SlabAllocator, seed: u64, steps: usize) {
    let mut random = Random(seed);
    let mut held: Vec<(ChunkHandle, u8)> = Vec::new();
    let release = |(chunk, value): (ChunkHandle, u8)| {
        let rest = slabs.chunk_bytes(slabs.class_of(chunk)) - HEADER_BYTES;
        assert_eq!(
            slabs.header::<AtomicU32>(chunk, 16).load(Relaxed),
            u32::from(value)
        );
        // SAFETY: this thread took the chunk and is about to give it back; others look at most at
        // the header.
        let bytes = unsafe { slabs.bytes(chunk, HEADER_BYTES, rest) };
        assert!(
            bytes.iter().all(|&byte| byte == value),
            "someone else wrote into {chunk:?}"
        );
        slabs.header::<AtomicU16>(chunk, 22).store(0, Relaxed);
        // SAFETY: as above; it is out of `held` already.
        unsafe { slabs.free(chunk) };
    };
    for _ in 0..steps {
        let class = class(1 + random.below(slabs.largest().index()) as u8);
        if random.below(100) < 55
            && held.len() < 100
            && let Some(chunk) = slabs.alloc(class)
        {
            assert_eq!(slabs.class_of(chunk), class);
            assert_eq!(
                slabs.header::<AtomicU16>(chunk, 22).load(Relaxed),
                0,
                "free or in hands"
            );
            let value = random.next() as u8;
            slabs
                .header::<AtomicU32>(chunk, 16)
                .store(u32::from(value), Relaxed);
            slabs.header::<AtomicU16>(chunk, 22).store(1, Relaxed);
            let rest = slabs.chunk_bytes(class) - HEADER_BYTES;
            // SAFETY: this thread has just taken the chunk.
            unsafe { slabs.bytes_mut(chunk, HEADER_BYTES, rest) }.fill(value);
            held.push((chunk, value));
        } else if !held.is_empty() {
            let nth = random.below(held.len());
            release(held.swap_remove(nth));
        }
    }
    held.into_iter().for_each(release);
}

#[test]
fn threads_do_not_get_into_each_others_chunks() {
    let seed = new_seed();
    println!("seed {seed}");
    let slabs = Arc::new(allocator(12, &[96, 1184, 20_000, 65_536]));
    let done = Arc::new(AtomicBool::new(false));
    // One thread moves pages and the limit about while the others allocate.
    let mover = {
        let (slabs, done) = (slabs.clone(), done.clone());
        std::thread::spawn(move || {
            let mut random = Random(seed);
            let mut moved = 0;
            while !done.load(Relaxed) {
                slabs.set_limit((4 + random.below(12)) * PAGE_BYTES_MAX);
                let from = class(1 + random.below(4) as u8);
                let to = class(1 + random.below(4) as u8);
                let Some(page) = slabs.begin_drain(from) else {
                    continue;
                };
                // Looks at every header, as someone who empties the page would.
                let used =
                    |&chunk: &ChunkHandle| slabs.header::<AtomicU16>(chunk, 22).load(Relaxed) != 0;
                let _ = slabs.page_chunks(page).filter(used).count();
                let finished = (0..100).any(|_| {
                    std::thread::yield_now();
                    match random.below(2) {
                        0 => slabs.finish_drain(page),
                        _ => slabs.finish_drain_to(page, to),
                    }
                });
                match finished {
                    true => moved += 1,
                    false => slabs.cancel_drain(page),
                }
            }
            moved
        })
    };
    let threads: Vec<_> = (1..=4)
        .map(|thread| {
            let slabs = slabs.clone();
            std::thread::spawn(move || churn(&slabs, seed.wrapping_mul(31) + thread, 8000))
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    done.store(true, Relaxed);
    let moved = mover.join().expect("the mover panicked");
    println!("{moved} pages moved");
    assert!(results.iter().all(Result::is_ok), "a thread panicked");

    slabs.check_invariants();
    for class in slabs.classes() {
        let stats = slabs.class_stats(class);
        assert_eq!((stats.used_chunks, stats.draining_pages), (0, 0));
        let chunks = stats.total_pages * stats.chunks_per_page;
        assert_eq!(stats.free_chunks + stats.fresh_chunks, chunks);
    }
}

#[test]
fn a_page_emptied_by_one_class_serves_another() {
    let slabs = allocator(1, &[96, 512 * 1024]);
    let small: Vec<_> = std::iter::from_fn(|| slabs.alloc(class(1))).collect();
    assert_eq!(small.len(), PAGE_BYTES_MAX / 96);
    assert_eq!((slabs.alloc(class(2)), slabs.available_pages()), (None, 0));
    for chunk in small {
        // SAFETY: just taken.
        unsafe { slabs.free(chunk) };
    }
    assert_eq!((slabs.pool_pages(), slabs.available_pages()), (1, 1));
    assert!(slabs.alloc(class(2)).is_some() && slabs.alloc(class(2)).is_some());
    assert_eq!((slabs.alloc(class(2)), slabs.alloc(class(1))), (None, None));
    slabs.check_invariants();
}

#[test]
fn a_fresh_chunk_of_a_recycled_page_has_a_zero_header() {
    let slabs = allocator(1, &[96, 256, 4096]);
    let chunk = slabs.alloc(class(3)).unwrap();
    // SAFETY: just taken, and nobody else is here.
    unsafe { slabs.bytes_mut(chunk, 0, 4096) }.fill(0xff);
    // SAFETY: as above.
    unsafe { slabs.free(chunk) };
    let mut handed_out = 0;
    while let Some(chunk) = slabs.alloc(class(1)) {
        assert!((0..4).all(|word| slabs.header::<AtomicU64>(chunk, 8 * word).load(Relaxed) == 0));
        handed_out += 1;
    }
    assert_eq!(handed_out, PAGE_BYTES_MAX / 96);
}

#[test]
fn free_touches_the_first_four_bytes_only() {
    let slabs = allocator(1, &[96]);
    let [one, two] = [(); 2].map(|()| slabs.alloc(class(1)).unwrap());
    for chunk in [one, two] {
        // SAFETY: just taken, and nobody else is here.
        unsafe { slabs.bytes_mut(chunk, 0, 96) }.fill(0xee);
        // SAFETY: as above; not used by its owner any more.
        unsafe { slabs.free(chunk) };
    }
    let [again_one, again_two] = [(); 2].map(|()| slabs.alloc(class(1)).unwrap());
    // The page went to the pool in between and came back, so both are fresh in it.
    assert_eq!([again_one, again_two], [one, two]);
    // SAFETY: just taken.
    let rest = unsafe { slabs.bytes(one, HEADER_ZEROED, 64) };
    assert!(rest.iter().all(|&byte| byte == 0xee));

    let keeper = slabs.alloc(class(1)).unwrap();
    // SAFETY: taken above.
    unsafe { slabs.bytes_mut(one, 0, 96) }.fill(0xdd);
    // SAFETY: as above.
    unsafe { slabs.free(one) };
    assert_eq!(
        slabs.alloc(class(1)),
        Some(one),
        "what was freed last comes first"
    );
    // SAFETY: just taken.
    let rest = unsafe { slabs.bytes(one, 4, 92) };
    assert!(rest.iter().all(|&byte| byte == 0xdd));
    assert_ne!(keeper, one);
}

#[test]
fn lowering_the_limit_releases_idle_pages_at_once_and_others_when_emptied() {
    let slabs = allocator(8, &[PAGE_BYTES_MAX]);
    let chunks: Vec<_> = std::iter::from_fn(|| slabs.alloc(class(1))).collect();
    assert_eq!(chunks.len(), 8);
    for &chunk in &chunks {
        mark(&slabs, chunk, 77);
    }
    for &chunk in &chunks[..4] {
        // SAFETY: taken above.
        unsafe { slabs.free(chunk) };
    }
    assert_eq!((slabs.pages_total(), slabs.pool_pages()), (8, 4));
    assert_eq!(slabs.set_limit(3 * PAGE_BYTES_MAX), 3 * PAGE_BYTES_MAX);
    assert_eq!(
        (slabs.pages_total(), slabs.pool_pages(), slabs.over_limit()),
        (4, 0, 1)
    );
    assert_eq!(slabs.arena_bytes_touched(), 4 * PAGE_BYTES_MAX);
    // Nobody's chunk any more, but its header can be looked at: the memory is new.
    assert_eq!(slabs.header::<AtomicU64>(chunks[0], 8).load(Relaxed), 0);
    assert_marked(&slabs, chunks[4], 77);

    assert!(slabs.begin_drain_page(slabs.page_of(chunks[4])));
    // SAFETY: taken above.
    unsafe { slabs.free(chunks[4]) };
    assert!(slabs.finish_drain(slabs.page_of(chunks[4])));
    assert_eq!((slabs.pages_total(), slabs.over_limit()), (3, 0));
    assert_eq!(slabs.alloc(class(1)), None);
    slabs.check_invariants();

    // Raised again, beyond what it was: released pages come back before new ones.
    slabs.set_limit(9 * PAGE_BYTES_MAX);
    let more: Vec<_> = std::iter::from_fn(|| slabs.alloc(class(1))).collect();
    assert_eq!(more.len(), 6);
    assert_eq!(slabs.pool.ever_used().count(), 9);
    slabs.check_invariants();
}

#[test]
fn the_limit_ends_where_the_reservation_ends() {
    let config = |limit_bytes| Config {
        page_bytes: PAGE_BYTES_MAX,
        limit_bytes,
        sizes: Sizes::Growth {
            chunk_min: 96,
            growth_factor: 1.25,
            chunk_max: 512 * 1024,
        },
    };
    let slabs = SlabAllocator::with_reservation(&config(0), 16).unwrap();
    assert_eq!(slabs.limit_bytes(), PAGE_BYTES_MAX, "at least a page");
    assert_eq!(slabs.set_limit(usize::MAX), 15 * PAGE_BYTES_MAX);
    // The limit is reserved whatever the bound.
    let slabs = SlabAllocator::with_reservation(&config(64 << 20), 16).unwrap();
    assert_eq!(slabs.set_limit(usize::MAX), 64 << 20);
    assert_eq!(slabs.set_limit(0), PAGE_BYTES_MAX);

    let slabs = SlabAllocator::new(&config(64 << 20)).unwrap();
    assert_eq!(slabs.granule_bytes(), 8);
    assert_eq!(slabs.set_limit(usize::MAX), (32 << 30) - PAGE_BYTES_MAX);
    let slabs = SlabAllocator::new(&config(33 << 30)).unwrap();
    assert_eq!(slabs.granule_bytes(), 16);
    for class in slabs.classes() {
        assert!(slabs.chunk_bytes(class).is_multiple_of(16));
        let chunk = slabs.alloc(class).unwrap();
        assert_eq!(slabs.class_of(chunk), class);
        mark(&slabs, chunk, 1);
    }
    slabs.check_invariants();
}

#[test]
fn handles_reach_from_the_second_page_to_the_last_header() {
    for limit_pages in [64, 32 << 10, (32 << 10) + 1, 256 << 10] {
        let arena = Arena::reserve(PAGE_BYTES_MAX, limit_pages, usize::MAX).unwrap();
        let granule = if limit_pages <= 32 << 10 {
            8
        } else {
            limit_pages.div_ceil(4096)
        };
        assert_eq!(arena.granule(), granule.next_power_of_two());
        assert!(arena.pages_max() >= limit_pages.min((32 << 10) - 1));
        for number in [1, 2, arena.pages_max() as u32] {
            let page = PageId::from_raw(number).unwrap();
            for offset in [
                0,
                arena.granule(),
                PAGE_BYTES_MAX / 2,
                PAGE_BYTES_MAX - arena.granule(),
            ] {
                let chunk = arena.chunk_at(page, offset);
                assert_eq!(arena.page_of(chunk), page);
                assert_eq!(arena.offset_in_page(chunk), offset);
            }
            let last = arena.chunk_at(page, PAGE_BYTES_MAX - HEADER_BYTES.max(arena.granule()));
            assert_eq!(
                arena
                    .header::<AtomicU64>(last, HEADER_BYTES - 8)
                    .load(Relaxed),
                0
            );
        }
    }
}

#[test]
#[should_panic(expected = "handle outside of the arena")]
fn a_header_that_would_end_outside_of_the_arena_panics() {
    let arena = Arena::reserve(PAGE_BYTES_MAX, 1, usize::MAX).unwrap();
    arena.header::<AtomicU8>(ChunkHandle::from_raw(u32::MAX).unwrap(), 0);
}

#[test]
#[should_panic]
fn a_word_behind_the_header_is_not_reached_by_atomics() {
    let slabs = allocator(1, &[96]);
    let chunk = slabs.alloc(class(1)).unwrap();
    slabs.header::<AtomicU32>(chunk, HEADER_BYTES - 2);
}

#[test]
fn any_handle_can_be_prefetched() {
    let slabs = allocator(1, &[96]);
    for raw in [1, 1 << 20, u32::MAX] {
        let handle = ChunkHandle::from_raw(raw).unwrap();
        slabs.prefetch(handle, usize::MAX);
        slabs.prefetch_header(handle);
    }
    // Nor does it matter what a link says.
    let chunk = slabs.alloc(class(1)).unwrap();
    for link in [0, 1, 1 << 20, u32::MAX] {
        slabs.header::<AtomicU32>(chunk, 4).store(link, Relaxed);
        slabs.prefetch_linked(chunk, 4);
    }
}

#[test]
#[should_panic(expected = "handle outside of the arena")]
fn a_link_outside_of_the_arena_is_not_followed() {
    let slabs = allocator(1, &[96]);
    slabs.prefetch_linked(ChunkHandle::from_raw(u32::MAX).unwrap(), 4);
}

#[test]
fn locked_and_huge_memory_can_be_released_too() {
    let slabs = allocator(4, &[PAGE_BYTES_MAX]);
    // Both depend on the system's settings; an error must leave a working arena.
    println!(
        "huge pages: {:?}, lock: {:?}",
        slabs.advise_huge(),
        slabs.lock_memory()
    );
    let chunks: Vec<_> = std::iter::from_fn(|| slabs.alloc(class(1))).collect();
    for &chunk in &chunks {
        mark(&slabs, chunk, 5);
        // SAFETY: taken above.
        unsafe { slabs.free(chunk) };
    }
    slabs.set_limit(PAGE_BYTES_MAX);
    assert_eq!((slabs.pages_total(), slabs.pool_pages()), (1, 1));
    let released = chunks
        .iter()
        .filter(|&&c| slabs.header::<AtomicU64>(c, 8).load(Relaxed) == 0)
        .count();
    assert_eq!(released, 3, "the kernel took the memory back");
    slabs.check_invariants();
}

// --- in a file ---

fn image_of(len: usize) -> (crate::Image, std::path::PathBuf) {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let nth = MADE.fetch_add(1, Relaxed);
    let name = format!("ketch-slab-alloc-{}-{nth}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = crate::image::open(&path).unwrap();
    (
        crate::Image::map(file, len, crate::Space::Allocated).unwrap(),
        path,
    )
}

#[test]
#[should_panic(expected = "range.end <= self.0.len")]
fn a_part_outside_of_an_image_panics() {
    let (image, path) = image_of(1 << 20);
    std::fs::remove_file(path).unwrap();
    let _ = crate::Reserved::<AtomicU64>::in_image(&image, 1 << 16, 1 << 17);
}

#[test]
fn a_part_without_space_gets_memory_of_the_process() {
    let (image, path) = image_of(1 << 20);
    std::fs::remove_file(path).unwrap();
    let words = crate::Reserved::<AtomicU64>::in_image(&image, 1 << 16, 3 << 13);
    words.back(0..1 << 13).unwrap();
    words[5].store(7, Relaxed);
    assert!(!image.is_patched());
    image.patch(3 << 16..4 << 16).unwrap();
    assert!(image.is_patched());
    let last = words.get((3 << 13) - 1);
    last.store(9, Relaxed);
    assert_eq!(words[5].load(Relaxed), 7);
    assert_eq!(last.load(Relaxed), 9);
}

#[test]
fn an_allocator_goes_on_in_another_mapping() {
    let mut places = crate::Places::for_items(1 << 16, 4 << 20);
    places.arena = (places.states_bytes() + (1 << 16)).next_multiple_of(1 << 16);
    let (image, path) = image_of(places.arena + places.arena_bytes());
    let sizes = Sizes::Exact(vec![64, 1024, 1 << 16]);
    let slabs = SlabAllocator::create(&image, &places, &sizes, 4 << 20).unwrap();
    let class = slabs.class_for(1000).unwrap();
    let chunks: Vec<_> = std::iter::from_fn(|| slabs.alloc(class)).collect();
    assert_eq!(chunks.len(), 64 * 64);
    for &chunk in chunks.iter().step_by(3) {
        // SAFETY: it is ours, and not freed yet.
        unsafe { slabs.free(chunk) };
    }
    slabs.check_invariants();
    let stats = slabs.class_stats(class);
    let sum = slabs.states_sum();
    let page = slabs.page_of(chunks[0]);
    // SAFETY: nobody writes to any page.
    let page_sum = unsafe { slabs.page_sum(page) };
    drop(slabs);
    drop(image);

    let file = crate::image::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let image = crate::Image::map(
        file,
        places.arena + places.arena_bytes(),
        crate::Space::Allocated,
    )
    .unwrap();
    let slabs = SlabAllocator::resume(&image, &places, &sizes, 4 << 20, sum ^ 1).err();
    assert!(slabs.unwrap().to_string().contains("were changed"));
    let slabs = SlabAllocator::resume(&image, &places, &sizes, 4 << 20, sum).unwrap();
    slabs.check_invariants();
    // SAFETY: as above.
    assert_eq!(unsafe { slabs.page_sum(page) }, page_sum);
    slabs
        .header::<AtomicU64>(chunks[1], 8)
        .fetch_xor(1, Relaxed);
    // SAFETY: as above.
    assert_ne!(unsafe { slabs.page_sum(page) }, page_sum);
    assert_eq!(slabs.class_stats(class), stats);
    let again = std::iter::from_fn(|| slabs.alloc(class)).count();
    assert_eq!(again, chunks.len().div_ceil(3));
    let sum = slabs.states_sum();
    drop(slabs);
    // With half of the limit, and with none of the chunks used.
    let slabs = SlabAllocator::resume(&image, &places, &sizes, 2 << 20, sum).unwrap();
    slabs.check_invariants();
    assert_eq!(slabs.over_limit(), 32);
    drop(slabs);
    let slabs = SlabAllocator::salvage(&image, &places, &sizes, 4 << 20).unwrap();
    for page in slabs.page_ids() {
        let keep = page.get().is_multiple_of(2);
        // SAFETY: nobody has any chunk of this allocator.
        unsafe { slabs.settle(page, |_| keep) };
    }
    slabs.check_invariants();
    assert_eq!(slabs.class_stats(class).used_chunks, 32 * 64);
    let other = slabs.class_for(64).unwrap();
    assert!(slabs.alloc(other).is_some());
    slabs.check_invariants();
}
