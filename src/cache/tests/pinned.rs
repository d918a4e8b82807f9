//! A value being sent stays as it is, whatever happens to its item meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed};

use super::*;
use crate::cache::testing::{Rng, small_cache};
use crate::cache::{Maintainer, PinnedValue};

const NOW: RelTime = RelTime(10);

/// Lengths of one chunk, of two and of several.
const LENS: [usize; 5] = [4096, 50_000, 131_072, 200_000, 500_000];

fn store_and_pin<'c>(cache: &'c Cache, key: &[u8], stamp: u64, len: usize) -> PinnedValue<'c> {
    set(cache, key, &value(stamp, len), NOW).unwrap();
    cache
        .entry(cache.sought(key), At::new(NOW))
        .found()
        .unwrap()
        .pin()
}

fn unsent(pinned: &PinnedValue<'_>) -> Vec<u8> {
    pinned.unsent(usize::MAX).collect::<Vec<_>>().concat()
}

#[test]
fn a_pinned_value_outlives_removal_and_replacement() {
    let cache = small_cache(16);
    for (stamp, len) in (1..).zip(LENS) {
        let removed = store_and_pin(&cache, b"removed", stamp, len);
        let replaced = store_and_pin(&cache, b"replaced", stamp + 100, len);
        let again = cache
            .entry(cache.sought(b"replaced"), At::new(NOW))
            .found()
            .unwrap()
            .pin();
        cache.entry(cache.sought(b"removed"), At::new(NOW)).remove();
        set(&cache, b"replaced", b"short", NOW).unwrap();
        assert!(!holds(&cache, b"removed", NOW));
        assert_eq!(get(&cache, b"replaced", NOW).unwrap(), b"short");
        assert!(unsent(&removed) == value(stamp, len));
        assert!(unsent(&replaced) == value(stamp + 100, len));
        drop(replaced);
        assert!(
            unsent(&again) == value(stamp + 100, len),
            "the second reader holds it still"
        );
        drop((removed, again));
        check(&cache);
        empty(&cache);
    }
}

#[test]
fn a_pinned_value_outlives_a_flood_and_all_page_moves() {
    let cache = small_cache(16);
    let mut maintainer = Maintainer::default();
    let pinned: Vec<_> = (1..)
        .zip(LENS)
        .map(|(stamp, len)| {
            (
                store_and_pin(&cache, &[stamp as u8], stamp, len),
                value(stamp, len),
            )
        })
        .collect();
    for n in 0..1500u32 {
        let len = [80, 900, 9_000, 70_000, 180_000][n as usize % 5];
        let now = RelTime(NOW.0 + n / 50);
        set(
            &cache,
            format!("flood {n}").as_bytes(),
            &value(1000 + u64::from(n), len),
            now,
        )
        .unwrap();
        if n % 10 == 0 {
            let _ = cache.request_page_move(0, (n / 10 % 20) as i32);
            maintainer.step(&cache, At::new(now));
        }
        if n % 100 == 0 {
            assert!(
                pinned
                    .iter()
                    .all(|(pinned, bytes)| unsent(pinned) == *bytes)
            );
            cache.check_invariants();
        }
    }
    assert!(evicted(&cache) > 0 && cache.move_stats().moved > 0);
    assert!(
        pinned
            .iter()
            .all(|(pinned, bytes)| unsent(pinned) == *bytes)
    );
    drop(pinned);
    empty(&cache);
}

#[test]
fn a_value_is_sent_in_any_steps() {
    let cache = small_cache(4);
    for len in LENS {
        for step in [1000, 4096, 65_536, 131_000, 1 << 20] {
            let mut pinned = store_and_pin(&cache, b"key", 7, len);
            let mut sent = Vec::new();
            while !pinned.is_sent() {
                let pieces = pinned.unsent(2).collect::<Vec<_>>().concat();
                let n = pieces.len().min(step);
                assert!(n > 0);
                sent.extend_from_slice(&pieces[..n]);
                assert_eq!(pinned.advance(n), 0);
                assert_eq!(pinned.unsent_len(), len - sent.len());
            }
            assert!(sent == value(7, len));
            assert_eq!(pinned.advance(5), 5, "nothing is left to count them to");
        }
    }
    empty(&cache);
}

/// A class of one page, its only items pinned: nobody is evicted for nothing, and others find room.
#[test]
fn a_cache_full_of_pinned_values_refuses_and_recovers() {
    let cache = small_cache(2);
    let mut pinned = Vec::new();
    for n in 0..100u32 {
        let key = n.to_le_bytes();
        match set(&cache, &key, &value(1, 100_000), NOW) {
            Ok(()) => pinned.push(
                cache
                    .entry(cache.sought(&key), At::new(NOW))
                    .found()
                    .unwrap()
                    .pin(),
            ),
            Err(error) => assert_eq!(error, AllocError::OutOfMemory),
        }
    }
    assert!(pinned.len() >= 14, "{} pinned", pinned.len());
    assert!(
        pinned
            .iter()
            .all(|pinned| unsent(pinned) == value(1, 100_000))
    );
    drop(pinned);
    set(&cache, b"key", &value(2, 100_000), NOW).unwrap();
    set(&cache, b"small", b"value", NOW).unwrap();
    assert_eq!(get(&cache, b"small", NOW).unwrap(), b"value");
    empty(&cache);
}

/// Whatever a header says of lengths, key and value end within the chunk, or nothing is read.
#[test]
fn any_header_reads_nothing_behind_its_chunk() {
    let cache = small_cache(4);
    let items = &cache.items;
    let slabs = items.slabs();
    let new = cache.create(&spec(b"key", 100), At::new(NOW)).unwrap();
    let handle = new.handle();
    let header = items.header(handle);
    let chunk = slabs.ptr(handle).as_ptr();
    let chunk_bytes = slabs.chunk_bytes(slabs.class_of(handle));
    let chunk = chunk.addr()..chunk.addr() + chunk_bytes;
    let value_len = slabs.header::<AtomicU32>(handle, 16);
    let key_len = slabs.header::<AtomicU8>(handle, 20);
    let state = slabs.header::<AtomicU16>(handle, 22);
    let honest = (
        value_len.load(Relaxed),
        key_len.load(Relaxed),
        state.load(Relaxed),
    );
    let (mut rng, mut refused, mut read) = (Rng::new(3), 0, 0);
    for _ in 0..500 {
        value_len.store((rng.next() >> (32 + rng.below(32))) as u32, Relaxed);
        key_len.store(rng.next() as u8, Relaxed);
        state.store(rng.next() as u16, Relaxed);
        for of_key in [true, false] {
            let part = || match of_key {
                true => Some(items.key(handle)),
                false => items.small_value(handle, header),
            };
            match catch_unwind(AssertUnwindSafe(part)) {
                Ok(None) => {}
                Ok(Some(part)) => {
                    let part = part.as_ptr().addr()..part.as_ptr().addr() + part.len();
                    assert!(chunk.start <= part.start && part.end <= chunk.end);
                    read += 1;
                }
                Err(panic) => {
                    let reason = panic.downcast_ref::<&str>();
                    assert_eq!(reason, Some(&"a part behind its chunk's end"));
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100 && read > 100, "{refused}, {read}");
    value_len.store(honest.0, Relaxed);
    key_len.store(honest.1, Relaxed);
    state.store(honest.2, Relaxed);
    drop(new);
    empty(&cache);
}
