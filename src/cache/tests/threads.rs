//! All of it at once: threads that store, read, remove and pin; one that moves pages; one that walks over everything.

use super::*;
use crate::cache::Policy;
use crate::cache::testing::{Rng, small_cache};
use crate::cache::{ClassMask, Maintainer, PinnedValue, WalkCursor};
use crate::knobs::Knob;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What the threads share.
struct Shared {
    cache: Cache,
    now: AtomicU32,
    done: AtomicBool,
}

impl Shared {
    fn new(megabytes: usize) -> Self {
        Shared {
            cache: small_cache(megabytes),
            now: AtomicU32::new(10),
            done: AtomicBool::new(false),
        }
    }

    fn now(&self) -> RelTime {
        RelTime(self.now.load(Relaxed))
    }
}

/// A value that names its key and length and can be checked by whoever finds it.
fn telling(key: u32, stamp: u32, len: usize) -> Vec<u8> {
    let mut bytes = value(u64::from(stamp) << 32 | u64::from(key), len.max(12));
    bytes[..4].copy_from_slice(&key.to_le_bytes());
    bytes[4..8].copy_from_slice(&stamp.to_le_bytes());
    let len = bytes.len() as u32;
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes
}

fn assert_tells(key: u32, bytes: &[u8]) {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(
        (number(0), number(8)),
        (key, bytes.len() as u32),
        "key and length"
    );
    assert!(
        telling(key, number(4), bytes.len()) == bytes,
        "a torn value of {} bytes",
        bytes.len()
    );
}

/// One worker's life.
fn work(shared: &Shared, seed: u64, keys: usize, steps: usize, len: fn(&mut Rng) -> usize) {
    let cache = &shared.cache;
    let mut rng = Rng::new(seed);
    let mut pinned: Option<(u32, PinnedValue<'_>)> = None;
    for step in 0..steps {
        let now = shared.now();
        let n = rng.below(keys) as u32;
        let key = n.to_le_bytes();
        let probe = cache.probe(&key);
        match rng.below(10) {
            0..5 => {
                let bytes = telling(n, (seed << 24) as u32 | step as u32, len(&mut rng));
                let expires_at = if rng.below(4) == 0 {
                    RelTime(now.0 + 3)
                } else {
                    RelTime::NEVER
                };
                let spec = ItemSpec {
                    expires_at,
                    ..spec(&key, bytes.len())
                };
                let new = create(cache, &spec, &bytes, now)
                    .expect("there is room for all that is in hands");
                cache.entry(probe.of(&key), At::new(now)).put(new, None);
            }
            5..8 => {
                let mut entry = cache.entry(probe.of(&key), At::new(now));
                if let Some(item) = entry.item() {
                    assert_eq!(item.key(), key);
                    assert_tells(n, &item.value_pieces().collect::<Vec<_>>().concat());
                }
                entry.found().inspect(Hit::bump);
            }
            8 => {
                let mut entry = cache.entry(probe.of(&key), At::new(now));
                let large = entry.found().filter(|hit| hit.is_large());
                let next = large.map(|hit| (n, hit.pin()));
                drop(entry);
                if let Some((key, pinned)) = std::mem::replace(&mut pinned, next) {
                    assert_tells(key, &pinned.unsent(usize::MAX).collect::<Vec<_>>().concat());
                }
            }
            _ => cache.entry(probe.of(&key), At::new(now)).remove(),
        }
    }
}

/// The maintainer, on a clock of its own, and clients that ask for page moves.
fn maintain(shared: &Shared, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut maintainer = Maintainer::default();
    while !shared.done.load(Relaxed) {
        shared.now.fetch_add(1, Relaxed);
        for _ in 0..5 {
            let _ = shared.cache.request_page_move(0, rng.below(30) as i32);
            maintainer.step(&shared.cache, At::new(shared.now()));
            std::thread::yield_now();
        }
        shared.cache.request_crawl(ClassMask::ALL);
        let tuning = &shared.cache.tuning;
        if tuning.policy() != Policy::Ttl && rng.below(5) == 0 {
            // All but ttl, which has to know of every touch from the start.
            let policy = Policy::ALL[rng.below(Policy::ALL.len() - 1)];
            tuning.set(Knob::Eviction, policy as u32);
        }
        if rng.below(50) == 0 {
            shared.cache.flush_now(At::new(shared.now()));
        }
    }
}

/// A dump of all keys, again and again.
fn walk(shared: &Shared) {
    while !shared.done.load(Relaxed) {
        let mut cursor = WalkCursor::default();
        while !shared
            .cache
            .show_items(&mut cursor, ClassMask::ALL, 500, shared.now(), |item| {
                assert_eq!(item.key().len(), 4);
                assert!(item.item_bytes() > 36);
                true
            })
        {
            std::thread::yield_now();
        }
    }
}

fn all_at_once(megabytes: usize, keys: usize, steps: usize, len: fn(&mut Rng) -> usize) {
    under(Policy::default(), megabytes, keys, steps, len);
}

fn under(policy: Policy, megabytes: usize, keys: usize, steps: usize, len: fn(&mut Rng) -> usize) {
    let shared = Shared::new(megabytes);
    shared.cache.tuning.set(Knob::Eviction, policy as u32);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| maintain(&shared, 99));
        scope.spawn(|| walk(&shared));
        let workers: Vec<_> = (1..=4)
            .map(|seed| {
                scope.spawn({
                    let shared = &shared;
                    move || work(shared, seed, keys, steps, len)
                })
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        shared.done.store(true, Relaxed);
        assert!(results.iter().all(Result::is_ok), "a worker panicked");
    });
    let cache = &shared.cache;
    println!(
        "{} evicted, {:?}, {:?}",
        evicted(cache),
        cache.move_stats(),
        start.elapsed()
    );
    check(cache);
    empty(cache);
}

fn small(rng: &mut Rng) -> usize {
    12 + rng.below(300)
}

fn any(rng: &mut Rng) -> usize {
    let bits = rng.below(20);
    12 + rng.below(1 << bits).min(500 << 10)
}

#[test]
fn threads_over_few_keys() {
    all_at_once(16, 8, 8000, any);
}

#[test]
fn threads_over_many_keys() {
    all_at_once(24, 20_000, 12_000, any);
}

#[test]
fn threads_over_items_in_the_order_of_their_ends() {
    under(Policy::Ttl, 16, 20_000, 12_000, any);
}

#[test]
fn threads_over_many_small_items() {
    all_at_once(10, 100_000, 40_000, small);
}

/// Sizes that change all the time, so that pages move under everybody's hands.
#[test]
fn threads_between_two_sizes() {
    fn two(rng: &mut Rng) -> usize {
        if rng.below(40) == 0 { 180_000 } else { 100 }
    }
    all_at_once(8, 100_000, 40_000, two);
}

/// Clients that send a body slowly hold a chunk of most pages: the others' stores still find room.
#[test]
fn unfinished_items_in_most_pages_stop_nobody() {
    let cache = small_cache(64);
    let now = RelTime(10);
    let mut unfinished = Vec::new();
    // The class for such items opens after a few pages of them.
    for n in 0..5000u32 {
        set(&cache, &n.to_le_bytes(), &[1; 100], now).unwrap();
    }
    let class = cache.items.class_for(&spec(&[0; 4], 100)).unwrap();
    let per_page = cache.items.slabs().class_stats(class).chunks_per_page;
    let pages = cache.limit_bytes() / cache.items.slabs().page_bytes();
    for n in 0..(pages * per_page) as u32 {
        if n as usize % per_page == 10 && unfinished.len() < pages * 54 / 64 {
            unfinished.push(
                cache
                    .create(&spec(&n.to_le_bytes(), 100), At::new(now))
                    .unwrap(),
            );
        } else {
            set(&cache, &n.to_le_bytes(), &[1; 100], now).unwrap();
        }
    }
    assert_eq!(cache.items.slabs().available_pages(), 0);
    let start = Instant::now();
    for n in 0..100u32 {
        set(&cache, &[n as u8], &value(u64::from(n), 200_000), now).unwrap();
        set(&cache, &(n << 24 | 1).to_le_bytes(), &[1; 100], now).unwrap();
    }
    let kept = (0..100).filter(|&n| holds(&cache, &[n], now)).count();
    println!(
        "{kept} of 100 large kept, {:?}, {:?}",
        cache.move_stats(),
        start.elapsed()
    );
    assert!(kept >= 36, "ten pages of four items are not held");
    for mut new in unfinished {
        assert_eq!(new.write(&[2; 100]), 100);
        let key = new.key().to_vec();
        cache.entry(cache.sought(&key), At::new(now)).put(new, None);
        assert_eq!(get(&cache, &key, now).unwrap(), [2; 100]);
    }
    empty(&cache);
}

/// The same with threads: some hold unfinished items of any size for long, the others fill the cache.
#[test]
fn slow_senders_and_fast_ones() {
    let shared = Shared::new(48);
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        scope.spawn(|| maintain(&shared, 98));
        let slow: Vec<_> = (1..=2u64)
            .map(|seed| {
                let shared = &shared;
                scope.spawn(move || {
                    let mut rng = Rng::new(seed);
                    let mut held: Vec<(NewItem<'_>, u32, Vec<u8>)> = Vec::new();
                    while !shared.done.load(Relaxed) {
                        let n = rng.next() as u32;
                        let bytes = telling(n, 7, any(&mut rng));
                        if let Ok(new) = shared
                            .cache
                            .create(&spec(&n.to_le_bytes(), bytes.len()), At::new(shared.now()))
                        {
                            held.push((new, n, bytes));
                        }
                        if held.len() > 40 {
                            let nth = rng.below(held.len());
                            let (mut new, n, bytes) = held.swap_remove(nth);
                            assert_eq!(new.write(&bytes), bytes.len());
                            let (key, cache) = (n.to_le_bytes(), &shared.cache);
                            cache
                                .entry(cache.sought(&key), At::new(shared.now()))
                                .put(new, None);
                        }
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        let fast: Vec<_> = (3..=4)
            .map(|seed| {
                scope.spawn({
                    let shared = &shared;
                    move || work(shared, seed, 50_000, 6000, any)
                })
            })
            .collect();
        let results: Vec<_> = fast.into_iter().map(|worker| worker.join()).collect();
        shared.done.store(true, Relaxed);
        assert!(results.iter().all(Result::is_ok), "a worker panicked");
        assert!(
            slow.into_iter().all(|slow| slow.join().is_ok()),
            "a slow sender panicked"
        );
    });
    assert!(Instant::now() < deadline, "somebody stood still");
    println!(
        "{} evicted, {:?}",
        evicted(&shared.cache),
        shared.cache.move_stats()
    );
    check(&shared.cache);
    empty(&shared.cache);
}
