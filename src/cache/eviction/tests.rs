//! Each policy by what it promises, on a whole cache; that none loses or leaks anything is shown by `cache::tests::model`.

use super::*;
use crate::cache::testing::{Rng, small_cache};
use crate::cache::{At, Cache, Hit, ItemSpec, Lookup, Maintainer};
use crate::clock::RelTime;
use crate::knobs::Knob;

const VALUE_LEN: u32 = 600;
const NOW: RelTime = RelTime(10);

fn cache(policy: Policy) -> Cache {
    let cache = small_cache(4);
    cache.tuning.set(Knob::Eviction, policy as u32);
    cache
}

fn set_until(cache: &Cache, key: u32, expires_at: RelTime) {
    let key = key.to_le_bytes();
    let spec = ItemSpec {
        key: &key,
        key_binary: false,
        client_flags: 0,
        expires_at,
        value_len: VALUE_LEN,
    };
    let mut new = cache.create(&spec, At::new(NOW)).unwrap();
    new.advance(VALUE_LEN as usize);
    cache.entry(cache.sought(&key), At::new(NOW)).put(new, None);
}

fn set(cache: &Cache, key: u32) {
    set_until(cache, key, RelTime::NEVER);
}

/// A read; true if it found something.
fn get(cache: &Cache, key: u32) -> bool {
    let key = key.to_le_bytes();
    let mut entry = cache.entry(cache.sought(&key), At::new(NOW));
    entry.found().inspect(Hit::bump).is_some()
}

/// True if it is there, without a read.
fn holds(cache: &Cache, key: u32) -> bool {
    let key = key.to_le_bytes();
    cache.entry(cache.sought(&key), At::new(NOW)).lookup() == Lookup::Found
}

fn items(cache: &Cache) -> usize {
    let reports = cache.class_reports(NOW);
    reports
        .iter()
        .map(|report| report.counts.iter().sum::<usize>())
        .sum()
}

/// How many items of `VALUE_LEN` fit.
fn room() -> u32 {
    let cache = cache(Policy::Fifo);
    (0..20_000).for_each(|key| set(&cache, key));
    items(&cache) as u32
}

/// Misses of `requests`, cache-aside.
fn misses(cache: &Cache, requests: impl Iterator<Item = u32>) -> usize {
    let miss = |&key: &u32| {
        let miss = !get(cache, key);
        if miss {
            set(cache, key);
        }
        miss
    };
    requests.filter(miss).count()
}

#[test]
fn names_lead_to_policies() {
    for policy in Policy::ALL {
        assert_eq!(Policy::from_name(policy.name()), Some(policy));
        assert_eq!(Policy::ALL[policy as usize], policy);
    }
    assert_eq!(Policy::from_name("mru"), None);
}

#[test]
fn fifo_keeps_the_newest_read_or_not() {
    let cache = cache(Policy::Fifo);
    for key in 0..20_000 {
        set(&cache, key);
        get(&cache, 0);
    }
    let room = items(&cache) as u32;
    assert!(!holds(&cache, 0));
    assert!((20_000 - room..20_000).all(|key| holds(&cache, key)));
}

#[test]
fn lru_keeps_what_is_read_even_once_a_round() {
    let cache = cache(Policy::Lru);
    let room = room();
    for key in 0..room * 4 {
        if key % (room / 2) == 0 {
            (0..100).for_each(|kept| _ = get(&cache, kept));
        }
        set(&cache, key);
    }
    assert!((0..100).all(|kept| holds(&cache, kept)));
    assert!(!(100..room * 3).any(|key| holds(&cache, key)));
}

#[test]
fn ttl_lets_the_soonest_go_first() {
    let cache = cache(Policy::Ttl);
    let room = room();
    let end = |key: u32| RelTime(100 + key.wrapping_mul(7919) % room);
    (0..room).for_each(|key| set_until(&cache, key, end(key)));
    // One that would be the last gets the soonest end of all, and the other way round.
    let ends: Vec<RelTime> = (0..room).map(end).collect();
    let last = (0..room).max_by_key(|&key| ends[key as usize]).unwrap();
    let first = (0..room).min_by_key(|&key| ends[key as usize]).unwrap();
    for (key, to) in [(last, RelTime(50)), (first, RelTime(99_999))] {
        let key = key.to_le_bytes();
        cache
            .entry(cache.sought(&key), At::new(NOW))
            .found()
            .unwrap()
            .touch(to);
    }
    (0..room / 2).for_each(|key| set(&cache, 100_000 + key));
    assert!(
        (0..room / 2).all(|key| holds(&cache, 100_000 + key)),
        "what never ends goes last"
    );
    assert!(holds(&cache, first) && !holds(&cache, last));
    let others = (0..room).filter(|&key| key != first && key != last);
    let (kept, gone): (Vec<u32>, Vec<u32>) = others.partition(|&key| holds(&cache, key));
    let soonest_kept = kept.iter().map(|&key| ends[key as usize]).min().unwrap();
    assert!(gone.iter().all(|&key| ends[key as usize] <= soonest_kept));
    assert!(gone.len() as u32 >= room / 2 - 2);
    cache.check_invariants();
}

#[test]
fn random_spares_nobody_and_forgets_nobody_at_once() {
    let cache = cache(Policy::Random);
    let room = room();
    (0..room * 2).for_each(|key| set(&cache, key));
    // After one more round, an item is there with a chance of 1/e.
    let kept = (0..room).filter(|&key| holds(&cache, key)).count() as f64 / f64::from(room);
    assert!((0.32..0.42).contains(&kept), "{kept}");
}

/// A hot set of a third of the room, and twice as many keys that are asked for once.
fn hot_set_and_scan(policy: Policy) -> f64 {
    let cache = cache(policy);
    let room = room();
    let mut rng = Rng::new(3);
    let mut hot_misses = 0;
    let hot = room / 3;
    let rounds = room * 12;
    for n in 0..rounds {
        hot_misses += misses(&cache, std::iter::once(rng.below(hot as usize) as u32));
        misses(&cache, [1_000_000 + n * 2, 1_000_001 + n * 2].into_iter());
    }
    cache.check_invariants();
    hot_misses as f64 / f64::from(rounds)
}

#[test]
fn a_scan_costs_the_hot_set_little() {
    let all = Policy::ALL.map(|policy| (policy.name(), hot_set_and_scan(policy)));
    println!("{all:?}");
    let of = |name| all.iter().find(|(known, _)| *known == name).unwrap().1;
    assert!(of("s3fifo") < 0.12 && of("lfu") < 0.12 && of("slru") < 0.2);
    assert!(of("s3fifo") < of("slru") && of("slru") < of("lru") && of("lru") < of("fifo"));
}

/// Each key is asked for a second time when so many others were, in percent of the room, and then never: the share of those that
/// miss, once the cache has had time to learn.
fn second_reads_missed(policy: Policy, distance_pct: u32) -> f64 {
    let cache = cache(policy);
    let room = room();
    let distance = room * distance_pct / 100;
    let mut missed = 0;
    for n in distance..room * 20 {
        misses(&cache, std::iter::once(n));
        let second = misses(&cache, std::iter::once(n - distance));
        missed += if n > room * 10 { second } else { 0 };
    }
    cache.check_invariants();
    missed as f64 / f64::from(room * 10)
}

/// The small queue grows to what a load of recency wants.
#[test]
fn what_comes_back_soon_is_kept_long_enough() {
    let all = [Policy::S3Fifo, Policy::Lru].map(|policy| second_reads_missed(policy, 30));
    println!("{all:?}");
    assert!(all[0] < 0.15 && all[1] < 0.01);
}

/// Of keys that are read twice within moments of their store, a thousand times as many as fit leave those in peace that are asked for
/// again and again.
#[test]
fn reads_right_after_the_store_tell_nothing() {
    let cache = cache(Policy::S3Fifo);
    let room = room();
    let hot = room / 2;
    let mut missed = 0;
    for n in 0..room * 12 {
        let once = 1_000_000 + n;
        misses(&cache, [once, once, once].into_iter());
        if n % 3 == 0 {
            let miss = misses(&cache, std::iter::once((n / 3) % hot));
            missed += if n > room * 4 { miss } else { 0 };
        }
    }
    let missed = missed as f64 / f64::from(room * 8 / 3);
    println!("{missed}");
    assert!(missed < 0.2, "{missed}");
}

/// More than fits, again and again: in order of use, each is evicted just before it is asked for.
#[test]
fn a_loop_is_remembered_in_part() {
    let room = room();
    let missed = Policy::ALL.map(|policy| {
        let requests = (0..room * 15).map(|n| n % (room * 3 / 2));
        let missed = misses(&cache(policy), requests);
        (policy.name(), missed as f64 / f64::from(room * 15))
    });
    println!("{missed:?}");
    let of = |name| missed.iter().find(|(known, _)| *known == name).unwrap().1;
    assert!(of("lru") > 0.99 && of("random") < 0.65 && of("s3fifo") < 0.75);
}

#[test]
fn policies_change_hands_while_items_stay() {
    let cache = cache(Policy::Slru);
    let mut maintainer = Maintainer::default();
    let mut rng = Rng::new(7);
    for step in 0..60_000u32 {
        if step % 1000 == 0 {
            let before = items(&cache);
            let policy = Policy::ALL[rng.below(Policy::ALL.len())];
            cache.tuning.set(Knob::Eviction, policy as u32);
            cache
                .tuning
                .set(Knob::LruSegmented, u32::from(rng.below(3) > 0));
            maintainer.step(&cache, At::new(NOW));
            assert_eq!(items(&cache), before);
            cache.check_invariants();
        }
        let end = if rng.below(2) == 0 {
            RelTime::NEVER
        } else {
            RelTime(11 + rng.below(900) as u32)
        };
        let key = rng.below(12_000) as u32;
        if !get(&cache, key) {
            set_until(&cache, key, end);
        }
        if step % 50 == 0 {
            let key = key.to_le_bytes();
            cache.entry(cache.sought(&key), At::new(NOW)).remove();
        }
    }
    cache.check_invariants();
}
