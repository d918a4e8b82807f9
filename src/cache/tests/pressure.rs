//! Sizes change, memory does not: who gives way, and how much is moved for it.

use super::*;
use crate::cache::Maintainer;
use crate::cache::testing::{Rng, small_cache};
use crate::knobs::Knob;
use std::time::{Duration, Instant};

const MEGABYTES: usize = 64;

/// Prints what a test cost in page moves.
fn report(name: &str, cache: &Cache, took: Duration) {
    let moves = cache.move_stats();
    println!("{name}: {} evicted, {moves:?}, {took:?}", evicted(cache));
}

fn key(kind: &str, n: usize) -> Vec<u8> {
    format!("{kind} {n}").into_bytes()
}

/// Stores `count` values of `len` bytes and gives how many of them are there afterwards.
fn store(
    cache: &Cache,
    kind: &str,
    count: usize,
    len: usize,
    now: impl Fn(usize) -> RelTime,
) -> usize {
    let start = Instant::now();
    let bytes = value(len as u64, len);
    for n in 0..count {
        set(cache, &key(kind, n), &bytes, now(n)).unwrap();
    }
    let (took, now) = (start.elapsed(), now(count));
    let kept = (0..count)
        .filter(|&n| holds(cache, &key(kind, n), now))
        .count();
    report(&format!("{kept} of {count} {kind}"), cache, took);
    kept
}

/// How time passes from the first kind of items to the second.
const PAUSES: [u32; 3] = [0, 1, 100];

#[test]
fn a_cache_full_of_small_items_takes_large_ones() {
    for pause in PAUSES {
        println!("{pause} s later");
        let cache = small_cache(MEGABYTES);
        store(&cache, "small", 400_000, 100, |_| RelTime(10));
        let kept = store(&cache, "large", 100, 200_000, |_| RelTime(10 + pause));
        assert!(kept >= 95, "{kept} of 100 large items kept");
        cache.check_invariants();
    }
}

#[test]
fn a_cache_full_of_large_items_takes_small_ones() {
    for pause in PAUSES {
        println!("{pause} s later");
        let cache = small_cache(MEGABYTES);
        store(&cache, "large", 400, 200_000, |_| RelTime(10));
        let kept = store(&cache, "small", 100_000, 100, |_| RelTime(10 + pause));
        assert!(kept >= 95_000, "{kept} of 100000 small items kept");
        cache.check_invariants();
    }
}

/// Of the newest items, `budget` bytes of them, how many percent are there: by number, as the larger are to go sooner.
fn newest_kept(cache: &Cache, stored: &[(Vec<u8>, usize)], budget: usize, now: RelTime) -> usize {
    let (mut total, mut newest, mut kept) = (0, 0, 0);
    for (key, len) in stored.iter().rev() {
        total += len;
        if total > budget {
            break;
        }
        newest += 1;
        kept += usize::from(holds(cache, key, now));
    }
    kept * 100 / newest
}

/// A stream of items of all sizes, each stored once.
fn mixed(
    seed: u64,
    stores: usize,
    len: impl Fn(&mut Rng) -> usize,
    now: impl Fn(usize) -> RelTime,
) -> usize {
    println!("seed {seed}");
    let cache = small_cache(MEGABYTES);
    let mut rng = Rng::new(seed);
    let mut stored = Vec::new();
    let start = Instant::now();
    for n in 0..stores {
        let len = len(&mut rng);
        let key = key("mixed", n);
        set(&cache, &key, &value(n as u64, len), now(n)).unwrap();
        stored.push((key, len));
    }
    let took = start.elapsed();
    let now = now(stores);
    report("mixed", &cache, took);
    let bytes: usize = stored.iter().map(|(_, len)| len).sum();
    let kept: usize = stored
        .iter()
        .filter(|(key, _)| holds(&cache, key, now))
        .map(|(_, len)| len)
        .sum();
    let shares = [30, 50, 60, 70]
        .map(|pct| newest_kept(&cache, &stored, (MEGABYTES << 20) / 100 * pct, now));
    println!(
        "{} MB stored, {} MB kept; kept of the newest 30, 50, 60, 70 % of memory: {shares:?}",
        bytes >> 20,
        kept >> 20
    );
    assert!(kept > (MEGABYTES << 20) / 100 * 88, "memory is full");
    cache.check_invariants();
    shares[2]
}

fn any_len(rng: &mut Rng) -> usize {
    rng.below(500 << 10) + 1
}

/// Each order of magnitude as likely.
fn any_magnitude(rng: &mut Rng) -> usize {
    let bits = rng.below(20);
    (rng.below(1 << bits) + 1).min(500 << 10)
}

#[test]
fn a_mixed_load_always_finds_room_and_keeps_the_newest() {
    let mut shares = Vec::new();
    for seed in 1..3 {
        shares.push(mixed(seed, 4000, any_len, |_| RelTime(10)));
        shares.push(mixed(seed, 4000, any_len, |n| RelTime(10 + n as u32 / 20)));
        shares.push(mixed(seed, 20_000, any_magnitude, |_| RelTime(10)));
        shares.push(mixed(seed, 20_000, any_magnitude, |n| {
            RelTime(10 + n as u32 / 100)
        }));
    }
    assert!(shares.iter().all(|&share| share >= 80), "{shares:?}");
}

/// What a chain could not get must not stay behind.
#[test]
fn an_item_that_finds_no_room_leaves_nothing() {
    let cache = small_cache(1);
    for n in 0..50u32 {
        let result = set(&cache, &n.to_le_bytes(), &value(1, 900_000), RelTime(10));
        assert!(result.is_ok() || n > 0, "{result:?}");
        cache.items.slabs().check_invariants();
    }
    cache.tuning.set(Knob::Evictions, 0);
    for n in 50..100u32 {
        let result = set(&cache, &n.to_le_bytes(), &value(1, 900_000), RelTime(10));
        assert_eq!(result, Err(AllocError::OutOfMemory));
        check(&cache);
    }
    empty(&cache);
}

/// A hopeless request does not cost the others their place.
#[test]
fn an_item_larger_than_the_memory_evicts_nobody() {
    let cache = Cache::new(&CacheConfig {
        item_bytes_max: 8 << 20,
        ..config(2)
    })
    .unwrap();
    for n in 0..1000u32 {
        set(&cache, &n.to_le_bytes(), b"value", RelTime(10)).unwrap();
    }
    let refused = |len| cache.create(&spec(b"key", len), At::new(RelTime(10))).err();
    assert_eq!(refused(3 << 20), Some(AllocError::OutOfMemory));
    assert_eq!(refused(9 << 20), Some(AllocError::TooLarge));
    assert_eq!((evicted(&cache), items_linked(&cache)), (0, 1000));
}

/// Without CAS uniques, ages are known by the second only.
#[test]
fn without_cas_a_change_of_sizes_is_followed_within_seconds() {
    let cache = Cache::new(&CacheConfig {
        use_cas: false,
        ..config(MEGABYTES)
    })
    .unwrap();
    store(&cache, "small", 400_000, 100, |_| RelTime(10));
    let kept = store(&cache, "large", 100, 200_000, |_| RelTime(13));
    assert!(kept >= 95, "{kept} of 100 large items kept");
    let kept = store(&cache, "other", 50_000, 300, |_| RelTime(16));
    assert!(kept >= 47_500, "{kept} of 50000 others kept");
    cache.check_invariants();
}

#[test]
fn a_lower_limit_is_reached_and_a_higher_one_used() {
    let cache = small_cache(MEGABYTES);
    let mut maintainer = crate::cache::Maintainer::default();
    store(&cache, "small", 300_000, 100, |_| RelTime(10));
    store(&cache, "large", 100, 200_000, |_| RelTime(11));
    cache.set_limit_bytes(4 << 20);
    let mut steps = 0;
    while cache.items.slabs().over_limit() > 0 {
        maintainer.step(&cache, At::new(RelTime(12)));
        steps += 1;
        assert!(
            steps < 200,
            "{} pages too many",
            cache.items.slabs().over_limit()
        );
    }
    println!("{steps} steps");
    check(&cache);
    set(&cache, b"large", &value(1, 200_000), RelTime(12)).unwrap();
    set(&cache, b"small", &value(1, 100), RelTime(12)).unwrap();
    assert!(holds(&cache, b"large", RelTime(12)) && holds(&cache, b"small", RelTime(12)));
    cache.set_limit_bytes(MEGABYTES << 20);
    let before = evicted(&cache);
    store(&cache, "more", 300_000, 100, |_| RelTime(13));
    assert_eq!(evicted(&cache), before);
    empty(&cache);
}

#[test]
fn small_chunks_chain_what_does_not_fit() {
    for chunk_max in [1024, 2048, 4096] {
        let mut config = config(32);
        config.slabs.sizes = Sizes::Growth {
            chunk_min: 80,
            growth_factor: 1.25,
            chunk_max,
        };
        let cache = Cache::new(&config).unwrap();
        let key = |len: usize| (len as u64).to_le_bytes();
        for len in (1..5000).step_by(37) {
            set(&cache, &key(len), &value(len as u64, len), RelTime(10)).unwrap();
        }
        for len in (1..5000).step_by(37) {
            let found = get(&cache, &key(len), RelTime(10)).unwrap();
            assert!(found == value(len as u64, len), "{len}");
        }
        empty(&cache);
    }
}

/// Where the shares of the classes are right, pages stay where they are.
#[test]
fn a_steady_load_moves_few_pages() {
    for tick in [100, 10_000] {
        let cache = small_cache(16);
        let mut rng = Rng::new(3);
        let start = Instant::now();
        let mut moved_before = 0;
        for n in 0..400_000u32 {
            let len = 12 + rng.below(300);
            let now = RelTime(10 + n / tick);
            set(&cache, &n.to_le_bytes(), &[1; 312][..len], now).unwrap();
            if n == 200_000 {
                moved_before = cache.move_stats().moved;
            }
        }
        report("steady", &cache, start.elapsed());
        assert!(evicted(&cache) > 200_000);
        let moved = cache.move_stats().moved - moved_before;
        assert!(moved < 40, "{moved} of 256 pages moved");
    }
}

/// What append, incr and their like do: the new item is made while its key is locked.
#[test]
fn an_item_grows_in_a_full_cache_while_its_key_is_locked() {
    let cache = small_cache(MEGABYTES);
    store(&cache, "small", 400_000, 100, |_| RelTime(10));
    let now = RelTime(12);
    let grown = b"grown";
    set(&cache, grown, &value(0, 10), now).unwrap();
    for len in (1..40).map(|n| n * n * 600) {
        let probe = cache.probe(grown);
        let entry = cache.entry(probe.of(grown), At::new(now));
        let (entry, made) = entry.update(grown, |entry, room| {
            let Ok(mut new) = room.create(entry, &spec(grown, len))? else {
                return Ok(false);
            };
            new.write(&value(len as u64, len));
            assert!(entry.item().is_some(), "nobody else changed it");
            entry.put(new, None);
            Ok(true)
        });
        drop(entry);
        assert!(made, "there is room for {len} bytes");
        assert_eq!(get(&cache, grown, now).unwrap(), value(len as u64, len));
    }
    cache.check_invariants();
}

/// Nothing that was not written can be sent.
#[test]
#[should_panic(expected = "1 bytes of a value were not written")]
fn an_item_that_is_not_written_to_its_end_is_refused() {
    let cache = small_cache(MEGABYTES);
    let now = RelTime(12);
    let mut new = cache.create(&spec(b"key", 100_000), At::new(now)).unwrap();
    new.write(&[1; 99_999]);
    let mut entry = cache.entry(cache.sought(b"key"), At::new(now));
    entry.put(new, Some(1));
}

/// Pages that moved while the sizes of what is stored change by a fifth to and fro, and how many stores were refused.
fn moved_under_changing_sizes(turn: impl Fn(&Cache)) -> (u64, usize) {
    let cache = small_cache(4);
    turn(&cache);
    let mut maintainer = Maintainer::default();
    let (mut rng, mut refused) = (Rng::new(8), 0);
    for n in 0..120_000u32 {
        let lens = if n / 20_000 % 2 == 0 { 0..5 } else { 4..9 };
        let len = 100 + 25 * (lens.start + rng.below(lens.len()));
        let now = RelTime(10 + n / 1000);
        refused += usize::from(set(&cache, &n.to_le_bytes(), &[1; 400][..len], now).is_err());
        if n % 100 == 0 {
            maintainer.step(&cache, At::new(now));
        }
    }
    cache.check_invariants();
    (cache.move_stats().moved, refused)
}

#[test]
fn automove_says_when_pages_move() {
    let [never, on_need, eager] = [0, 1, 2].map(|level| {
        moved_under_changing_sizes(|cache| cache.tuning.set(Knob::SlabAutomove, level))
    });
    println!("{never:?} {on_need:?} {eager:?}");
    assert_eq!(never, (0, 0), "not even for a store, and none is refused");
    assert!(on_need.0 > 0 && on_need.1 == 0);
    assert!(eager.0 > 2 * on_need.0 && eager.1 == 0);
}

#[test]
fn automove_ratio_says_how_near_costs_may_be() {
    let ratio = |milli| {
        moved_under_changing_sizes(move |cache| {
            cache.tuning.set(Knob::SlabAutomoveRatio, milli);
        })
    };
    let (far, near) = (ratio(100), ratio(990));
    println!("{far:?} {near:?}");
    assert!(near.0 > far.0 + far.0 / 4);
}

/// Where pages do not move, a class that is opened might never get one.
#[test]
fn no_class_opens_where_pages_do_not_move() {
    for (level, opens) in [(0, false), (1, true)] {
        let cache = small_cache(16);
        cache.tuning.set(Knob::SlabAutomove, level);
        let open = |cache: &Cache| {
            let slabs = cache.items.slabs();
            slabs
                .classes()
                .filter(|&class| slabs.is_open(class))
                .count()
        };
        let before = open(&cache);
        // Items that are a little larger than the chunks of an open class.
        let slabs = cache.items.slabs();
        let mut chunks = slabs.classes().filter(|&class| slabs.is_open(class));
        let below = chunks.find(|&class| slabs.chunk_bytes(class) >= 150);
        let item_bytes = slabs.chunk_bytes(below.unwrap()) + 8;
        let len = item_bytes - cache.item_bytes(&spec(&[0; 4], 0));
        let mut maintainer = Maintainer::default();
        for n in 0..60_000u32 {
            set(&cache, &n.to_le_bytes(), &[1; 400][..len], RelTime(10)).unwrap();
            if n % 1000 == 0 {
                maintainer.step(&cache, At::new(RelTime(10)));
            }
        }
        assert_eq!(open(&cache) > before, opens);
    }
}

/// Where pages do not move, or nothing is evicted, what the first item of a size takes lies beyond the limit.
#[test]
fn a_size_that_is_new_to_a_full_cache_is_stored() {
    let now = RelTime(10);
    for may_evict in [true, false] {
        let cache = small_cache(4);
        cache.tuning.set(Knob::SlabAutomove, 0);
        cache.tuning.set(Knob::Evictions, u32::from(may_evict));
        let full = (0..100_000u32).any(|n| {
            let refused = set(&cache, &n.to_le_bytes(), &[1; 100], now).is_err();
            refused || evicted(&cache) > 0
        });
        let slabs = cache.items.slabs();
        assert!(full && slabs.beyond_limit() == 0);
        let lens = [10, 1000, 5000, 50_000, 200_000];
        for len in lens {
            let key = (len as u64).to_le_bytes();
            set(&cache, &key, &value(len as u64, len), now).unwrap();
            assert_eq!(get(&cache, &key, now).unwrap(), value(len as u64, len));
        }
        let beyond = slabs.beyond_limit();
        let one_item = cache.item_bytes_max() / slabs.page_bytes() + 2;
        assert!(beyond >= lens.len() && beyond <= slabs.classes().count() + one_item);
        // The page stays: the maintainer takes none of these away.
        let mut maintainer = Maintainer::default();
        maintainer.step(&cache, At::new(now));
        assert_eq!((slabs.beyond_limit(), slabs.over_limit()), (beyond, 0));
        // A class whose page is full evicts there, or is refused: it gets no second one.
        for n in 0..20_000u64 {
            let stored = set(&cache, &n.to_be_bytes(), &[1; 1000], now);
            assert!(stored.is_ok() || !may_evict);
        }
        assert_eq!(slabs.beyond_limit(), beyond);
        cache.check_invariants();
        // What comes free goes back, and then there is nothing beyond the limit.
        empty(&cache);
        assert_eq!(slabs.beyond_limit(), 0);
    }
}

/// A chained item costs its bytes too: of two sizes stored in turn, more of the smaller stay.
#[test]
fn of_large_items_the_smaller_stay_longer() {
    let cache = small_cache(MEGABYTES);
    let class = |len| cache.items.class_for(&spec(&[0; 8], len)).unwrap();
    assert_ne!(class(70_000), class(600_000));
    assert_eq!(class(70_000), class(100_000));
    let (small, large) = (value(1, 70_000), value(2, 600_000));
    for n in 0..2000 {
        set(&cache, &key("small", n), &small, RelTime(10)).unwrap();
        set(&cache, &key("large", n), &large, RelTime(10)).unwrap();
    }
    let kept = |kind| {
        let is_there = |&n: &usize| holds(&cache, &key(kind, n), RelTime(10));
        (0..2000).filter(is_there).count()
    };
    let (small, large) = (kept("small"), kept("large"));
    println!("{small} of 70,000 and {large} of 600,000 bytes");
    assert!(small > 3 * large && large > 10, "{small} and {large}");
    check(&cache);
}
