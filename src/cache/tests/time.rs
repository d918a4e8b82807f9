//! What has expired goes by itself; what is read often stays.

use super::*;
use crate::cache::Maintainer;
use crate::cache::testing::{Rng, small_cache};
use crate::knobs::Knob;
use std::sync::atomic::Ordering::Relaxed;

/// A second of the maintainer's work.
fn second(maintainer: &mut Maintainer, cache: &Cache, now: RelTime) {
    for _ in 0..crate::cache::maintainer::STEPS_PER_S {
        maintainer.step(cache, At::new(now));
    }
}

fn set_until(cache: &Cache, key: &[u8], expires_at: RelTime, now: RelTime) {
    let new = create(
        cache,
        &ItemSpec {
            expires_at,
            ..spec(key, 40)
        },
        &[7; 40],
        now,
    )
    .unwrap();
    cache.entry(cache.sought(key), At::new(now)).put(new, None);
}

#[test]
fn the_expired_are_reclaimed_within_a_minute_unasked() {
    let cache = small_cache(64);
    let mut maintainer = Maintainer::default();
    let start = RelTime(10);
    for n in 0..200_000u32 {
        let expires_at = if n % 2 == 0 {
            RelTime(start.0 + 5 + n % 20)
        } else {
            RelTime::NEVER
        };
        set_until(&cache, &n.to_le_bytes(), expires_at, start);
    }
    assert_eq!(items_linked(&cache), 200_000);
    for passed in 0..90 {
        second(&mut maintainer, &cache, RelTime(start.0 + passed));
        if passed == 84 {
            break; // A minute after the last of them ended.
        }
    }
    assert_eq!(items_linked(&cache), 100_000);
    assert_eq!(evicted(&cache), 0);
    check(&cache);
}

/// Chunks that are free must not slow the pass over those that are not.
#[test]
fn the_expired_are_reclaimed_within_a_minute_in_a_cache_once_full() {
    let cache = small_cache(64);
    let mut maintainer = Maintainer::default();
    let now = RelTime(10);
    for n in 0..400_000u32 {
        set(&cache, &n.to_le_bytes(), &[7; 40], now).unwrap();
    }
    // Of each page some chunks stay in use, so that none goes back to the pool.
    for n in (0..400_000u32).filter(|n| n % 100 != 0) {
        let key = n.to_le_bytes();
        cache.entry(cache.sought(&key), At::new(now)).remove();
    }
    for n in (0..400_000u32).step_by(100) {
        let key = n.to_le_bytes();
        cache
            .entry(cache.sought(&key), At::new(now))
            .found()
            .unwrap()
            .touch(RelTime(11));
    }
    for passed in 1..=61 {
        second(&mut maintainer, &cache, RelTime(now.0 + passed));
    }
    assert_eq!(items_linked(&cache), 0);
}

#[test]
fn a_crawl_asked_for_takes_one_step() {
    let cache = small_cache(64);
    cache.tuning.set(Knob::LruCrawler, 0);
    cache.tuning.set(Knob::LruMaintainer, 0);
    for n in 0..50_000u32 {
        set_until(&cache, &n.to_le_bytes(), RelTime(20), RelTime(10));
    }
    let mut maintainer = Maintainer::default();
    maintainer.step(&cache, At::new(RelTime(20)));
    assert_eq!(items_linked(&cache), 50_000);
    cache.request_crawl(crate::cache::ClassMask::ALL);
    maintainer.step(&cache, At::new(RelTime(20)));
    assert_eq!(items_linked(&cache), 0);
    empty(&cache);
}

#[test]
fn the_crawler_sleeps_as_long_as_it_is_told() {
    let looked_at = |cache: &Cache| -> u64 {
        let reports = cache.class_reports(RelTime(20));
        reports
            .iter()
            .map(|class| class.lru.crawler_items_checked)
            .sum()
    };
    for asked in [true, false] {
        let cache = small_cache(64);
        cache.tuning.set(Knob::LruCrawler, u32::from(!asked));
        cache.tuning.set(Knob::LruMaintainer, 0);
        for n in 0..50_000u32 {
            set_until(&cache, &n.to_le_bytes(), RelTime(20), RelTime(10));
        }
        let mut maintainer = Maintainer::default();
        // A second for a thousand items: a hundred in each of ten steps.
        cache.tuning.set(Knob::LruCrawlerSleep, 1_000_000);
        if asked {
            cache.request_crawl(crate::cache::ClassMask::ALL);
            // Before the maintainer has seen it: who asks whether the crawl is over must not hear that it is.
            assert!(cache.counters.lru_crawler_running.load(Relaxed));
        }
        second(&mut maintainer, &cache, RelTime(20));
        let slow = looked_at(&cache);
        assert!((900..=1000).contains(&slow), "{slow}, {asked}");
        assert_eq!(cache.counters.lru_crawler_running.load(Relaxed), asked);
        cache.tuning.set(Knob::LruCrawlerSleep, 0);
        second(&mut maintainer, &cache, RelTime(20));
        assert!(looked_at(&cache) >= 20_000);
        assert!(!cache.counters.lru_crawler_running.load(Relaxed));
        assert!(!asked || items_linked(&cache) == 0);
    }
}

/// Reads of the hot set for each store: about five a round of the flat list for each item.
const READS: usize = 3;

/// How much is left of a hot set of a third of the memory, read all the time while twice the memory is stored and
/// never read.
fn hot_set_under_a_scan(segmented: bool) -> usize {
    let cache = small_cache(16);
    cache.tuning.set(Knob::LruSegmented, u32::from(segmented));
    let mut maintainer = Maintainer::default();
    let mut rng = Rng::new(5);
    let bytes = value(1, 200);
    let hot: Vec<Vec<u8>> = (0..20_000u32)
        .map(|n| format!("hot {n}").into_bytes())
        .collect();
    let mut now = RelTime(10);
    for key in &hot {
        set(&cache, key, &bytes, now).unwrap();
    }
    for _ in 0..2 {
        for key in &hot {
            read(&cache, key, now);
        }
    }
    for n in 0..120_000u32 {
        if n % 2000 == 0 {
            now.0 += 1;
            maintainer.step(&cache, At::new(now));
        }
        set(&cache, &n.to_le_bytes(), &bytes, now).unwrap();
        for _ in 0..READS {
            read(&cache, &hot[rng.below(hot.len())], now);
        }
    }
    assert!(evicted(&cache) > 50_000);
    cache.check_invariants();
    hot.iter().filter(|key| holds(&cache, key, now)).count()
}

#[test]
fn a_scan_does_not_push_out_what_is_read_again_and_again() {
    let left = hot_set_under_a_scan(true);
    println!("{left} of 20000 hot items left");
    assert!(left >= 19_000, "{left}");
}

#[test]
fn a_flat_lru_gives_an_active_item_a_second_round() {
    let left = hot_set_under_a_scan(false);
    println!("{left} of 20000 hot items left");
    assert!(left >= 15_000, "{left}");
}

/// More flushes in one second than the state word has generations for.
#[test]
fn each_of_many_flushes_in_a_second_counts() {
    let cache = small_cache(4);
    let now = RelTime(10);
    for n in 0..30u32 {
        set(&cache, &n.to_le_bytes(), b"value", now).unwrap();
        assert_eq!(
            (0..=n)
                .filter(|n| holds(&cache, &n.to_le_bytes(), now))
                .count(),
            1,
            "of {n}"
        );
        cache.flush_now(At::new(now));
        // What is not looked at in between must not come back either.
        if n % 10 == 9 {
            assert!((0..=n).all(|n| !holds(&cache, &n.to_le_bytes(), now)));
        }
    }
    cache.check_invariants();
}

#[test]
fn a_walk_shows_every_item_once_however_often_it_stops() {
    let cache = small_cache(16);
    let now = RelTime(10);
    for n in 0..5000u32 {
        set(&cache, &n.to_le_bytes(), &value(1, n as usize % 700), now).unwrap();
    }
    for budget in [1, 7, 1000, usize::MAX] {
        for take in [1, 100, usize::MAX] {
            let mut seen = std::collections::HashSet::new();
            let mut cursor = crate::cache::WalkCursor::default();
            let mut done = false;
            while !done {
                let mut left = take;
                done = cache.show_items(
                    &mut cursor,
                    crate::cache::ClassMask::ALL,
                    budget,
                    now,
                    |item| {
                        assert!(seen.insert(item.key().to_vec()), "shown twice");
                        left -= 1;
                        left > 0
                    },
                );
            }
            assert_eq!(seen.len(), 5000);
        }
    }
}
