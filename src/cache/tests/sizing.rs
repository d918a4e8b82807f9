//! Slab classes follow the sizes of the items: what fits is opened, what is not used is closed again.

use super::*;
use crate::cache::Maintainer;
use crate::cache::testing::{Rng, cache_in_small_pages, small_cache};

const MEGABYTES: usize = 32;

/// Stores items with values of the lengths that `len` draws until the cache has been filled `times` over, a step of the
/// maintainer for each fiftieth.
fn fill(
    cache: &Cache,
    maintainer: &mut Maintainer,
    times: usize,
    mut len: impl FnMut(&mut Rng) -> usize,
) {
    let mut rng = Rng::new(times as u64);
    let bytes = value(1, 40_000);
    let (mut stored, mut n) = (0, 0u64);
    for step in 1..=50 * times {
        while stored < step * (MEGABYTES << 20) / 50 {
            let len = len(&mut rng);
            let key = format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            set(cache, key.as_bytes(), &bytes[..len], RelTime(10)).unwrap();
            stored += len + 48;
            n += 1;
        }
        maintainer.step(cache, At::new(RelTime(10)));
    }
    check(cache);
}

/// The part of the memory limit that items asked for, and the part of the chunks in use.
fn use_made(cache: &Cache) -> (f64, f64) {
    let reports = cache.class_reports(RelTime(10));
    let requested: u64 = reports.iter().map(|report| report.mem_requested).sum();
    let chunks: usize = reports
        .iter()
        .map(|report| report.slabs.used_chunks * report.slabs.chunk_bytes)
        .sum();
    (
        requested as f64 / (MEGABYTES << 20) as f64,
        requested as f64 / chunks as f64,
    )
}

fn open_classes(cache: &Cache) -> usize {
    let slabs = cache.items.slabs();
    slabs
        .classes()
        .filter(|&class| slabs.is_open(class))
        .count()
}

#[test]
fn items_of_one_size_get_chunks_of_that_size() {
    for len in [16, 100, 500, 1000, 2000] {
        let cache = small_cache(MEGABYTES);
        let before = open_classes(&cache);
        fill(&cache, &mut Maintainer::default(), 2, |_| len);
        let (made, _) = use_made(&cache);
        assert!(made > 0.96, "values of {len} use {made:.3}");
        assert!(open_classes(&cache) <= before + 2);
    }
}

#[test]
fn items_of_all_sizes_waste_less_than_10_percent() {
    let cache = small_cache(MEGABYTES);
    // As many items of 20 to 40 bytes as of 40 to 80, and so on up to 5 KB.
    fill(&cache, &mut Maintainer::default(), 4, |rng| {
        let octave = 20 << rng.below(8);
        octave + rng.below(octave)
    });
    let (of_all, of_chunks) = use_made(&cache);
    assert!(
        of_all > 0.90 && of_chunks > 0.90,
        "{of_all:.3} {of_chunks:.3}"
    );
    assert!(open_classes(&cache) < 120, "{}", open_classes(&cache));
}

#[test]
fn a_class_that_is_not_used_any_more_closes() {
    let cache = small_cache(MEGABYTES);
    let before = open_classes(&cache);
    let maintainer = &mut Maintainer::default();
    fill(&cache, maintainer, 2, |_| 500);
    let class = cache.items.class_for(&spec(&[0; 16], 500)).unwrap();
    fill(&cache, maintainer, 4, |_| 900);
    assert!(!cache.items.slabs().is_open(class));
    assert!(open_classes(&cache) <= before + 2);
    let (made, _) = use_made(&cache);
    assert!(made > 0.96, "{made:.3}");
}

/// The part of the memory limit that holds keys and values, when twice its bytes were stored by somebody so fast that the
/// maintainer never comes by.
fn held(cache: &Cache, mut len: impl FnMut(&mut Rng) -> usize) -> f64 {
    let megabytes = cache.items.slabs().limit_bytes() >> 20;
    let mut rng = Rng::new(7);
    let bytes = value(1, 1 << 20);
    let (mut stored, mut sizes) = (0, Vec::new());
    while stored < megabytes << 21 {
        let len = len(&mut rng);
        let key = format!("{:016x}", sizes.len());
        set(cache, key.as_bytes(), &bytes[..len], RelTime(10)).unwrap();
        stored += len + key.len();
        sizes.push(len + key.len());
    }
    let is_there = |n: usize| holds(cache, format!("{n:016x}").as_bytes(), RelTime(10));
    let there = (0..sizes.len()).filter(|&n| is_there(n));
    let held: usize = there.map(|n| sizes[n]).sum();
    check(cache);
    held as f64 / (megabytes << 20) as f64
}

/// Each item has a header of 32 bytes, of 40 where its value is large. But for those, what one size or any mix of large ones
/// leaves empty is a few percent, at small limits too.
#[test]
fn memory_is_full_of_keys_and_values_whatever_their_size() {
    let one_size = [
        100, 200, 500, 1000, 1500, 2000, 2500, 3000, 3800, 4096, 5500, 7500, 10_000, 12_000,
        17_000, 23_000, 28_000, 33_000, 100_000,
    ];
    for (name, megabytes) in [("8 MB in small pages", 8), ("16 MB", 16)] {
        let cache = || match megabytes {
            8 => cache_in_small_pages(megabytes),
            _ => small_cache(megabytes),
        };
        for len in one_size {
            let held = held(&cache(), |_| len);
            let bar = 0.96 * (16 + len) as f64 / (48 + len) as f64;
            assert!(held > bar, "{name} hold {held:.3} of {len}");
        }
        for (low, high, bar) in [(4_000, 40_000, 0.92), (10_000, 100_000, 0.92)] {
            let held = held(&cache(), |rng| low + rng.below(high - low));
            assert!(held > bar, "{name}: {held:.3} of {low} to {high}");
        }
    }
}

/// Of sizes from 1 byte to 1 MB, each octave as likely, few bytes are in small items: those share pages, instead of one for each
/// class.
#[test]
fn few_small_items_share_pages() {
    let held = held(&small_cache(16), |rng| {
        let octave = 1 << rng.below(20);
        octave + rng.below(octave)
    });
    println!("{held:.3}");
    assert!(held > 0.92, "{held:.3}");
}
