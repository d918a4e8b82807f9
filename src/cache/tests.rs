//! The whole store under test: against a model, under pressure, over time, by several threads.
//!
//! ```text
//!  tests/model.rs      random steps against a HashMap; nothing leaks, nothing is lost but what was evicted
//!  tests/pinned.rs     a value being sent stays as it is, whatever happens to its item
//!  tests/pressure.rs   sizes change, memory does not: who gives way, and how much is moved for it
//!  tests/sizing.rs     slab classes follow the sizes of the items
//!  tests/time.rs       what has expired goes by itself; what is read often stays
//!  tests/turns.rs      a verb that makes an item, in a model, in any order of threads
//!  tests/threads.rs    all of it at once
//! ```
//!
//! Values are made from a stamp, so that each tells by itself whether it is whole.

mod model;
mod pinned;
mod pressure;
mod restart;
mod sizing;
mod threads;
mod time;
mod turns;

use std::collections::HashMap;

use slab_alloc::{ClassId, Config, Sizes};

use super::{AllocError, At, Cache, CacheConfig, Hit, ItemSpec, NewItem};
use crate::clock::RelTime;

/// A value of `len` bytes that only this stamp makes. Its period is a prime, so that pieces in the wrong order show.
fn value(stamp: u64, len: usize) -> Vec<u8> {
    const PERIOD: usize = 251;
    let mut x = stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let block: Vec<u8> = (0..PERIOD)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 24) as u8
        })
        .collect();
    let mut value = block.repeat(len.div_ceil(PERIOD));
    value.truncate(len);
    value
}

/// What the tests' caches are made from, to be changed.
fn config(megabytes: usize) -> CacheConfig {
    let sizes = Sizes::Growth {
        chunk_min: 80,
        growth_factor: 1.25,
        chunk_max: 128 << 10,
    };
    CacheConfig {
        slabs: Config {
            page_bytes: 1 << 20,
            limit_bytes: megabytes << 20,
            sizes,
        },
        use_cas: true,
        item_bytes_max: 1 << 20,
        hash_power: 16,
        hash_expand: true,
        threads: 2,
        knobs: crate::knobs::Knobs::default(),
    }
}

fn spec(key: &[u8], value_len: usize) -> ItemSpec<'_> {
    ItemSpec {
        key,
        key_binary: false,
        client_flags: 0,
        expires_at: RelTime::NEVER,
        value_len: value_len as u32,
    }
}

fn create<'c>(
    cache: &'c Cache,
    spec: &ItemSpec<'_>,
    bytes: &[u8],
    now: RelTime,
) -> Result<NewItem<'c>, AllocError> {
    let mut new = cache.create(spec, At::new(now))?;
    assert_eq!(new.write(bytes), bytes.len());
    assert!(new.spare().is_empty());
    Ok(new)
}

/// Stores a value that never expires.
fn set(cache: &Cache, key: &[u8], bytes: &[u8], now: RelTime) -> Result<(), AllocError> {
    let new = create(cache, &spec(key, bytes.len()), bytes, now)?;
    cache.entry(cache.sought(key), At::new(now)).put(new, None);
    Ok(())
}

/// The value of a key, without a bump.
fn get(cache: &Cache, key: &[u8], now: RelTime) -> Option<Vec<u8>> {
    let entry = cache.entry(cache.sought(key), At::new(now));
    entry
        .item()
        .map(|item| item.value_pieces().collect::<Vec<_>>().concat())
}

fn holds(cache: &Cache, key: &[u8], now: RelTime) -> bool {
    cache
        .entry(cache.sought(key), At::new(now))
        .item()
        .is_some()
}

/// Reads a key as a client would; false on a miss.
fn read(cache: &Cache, key: &[u8], now: RelTime) -> bool {
    let mut entry = cache.entry(cache.sought(key), At::new(now));
    entry.found().inspect(Hit::bump).is_some()
}

/// Items evicted so far, in all classes.
fn evicted(cache: &Cache) -> u64 {
    cache
        .class_reports(RelTime(2))
        .iter()
        .map(|report| report.lru.evicted)
        .sum()
}

fn items_linked(cache: &Cache) -> usize {
    cache
        .class_reports(RelTime(2))
        .iter()
        .flat_map(|report| report.counts)
        .sum()
}

/// Checks table, LRUs and allocator, and that the allocator lost no chunk: nothing may be in hands meanwhile.
fn check(cache: &Cache) {
    cache.check_invariants();
    cache.items.slabs().check_invariants();
    assert_eq!(
        chunks_linked(cache),
        chunks_used(cache),
        "chunks of items, chunks in use"
    );
}

/// The chunks of all linked items, by class.
fn chunks_linked(cache: &Cache) -> HashMap<ClassId, usize> {
    let (items, slabs) = (&cache.items, cache.items.slabs());
    let mut linked = HashMap::new();
    for stripe in 0..cache.table.stripes() {
        for (_, head) in cache.table.lock_stripe(stripe).entries() {
            let ends =
                std::iter::successors(items.chain_start(head), |&chunk| items.header(chunk).next());
            for chunk in std::iter::once(head).chain(ends) {
                *linked.entry(slabs.class_of(chunk)).or_default() += 1;
            }
        }
    }
    linked
}

fn chunks_used(cache: &Cache) -> HashMap<ClassId, usize> {
    let slabs = cache.items.slabs();
    let used = slabs
        .classes()
        .map(|class| (class, slabs.class_stats(class).used_chunks));
    used.filter(|&(_, used)| used > 0).collect()
}

/// Removes every item, and checks that this gives everything back.
fn empty(cache: &Cache) {
    for stripe in 0..cache.table.stripes() {
        let mut guard = cache.table.lock_stripe(stripe);
        for (hash, handle) in guard.entries() {
            let (slot, _) = guard.find(hash, |at| at == handle).unwrap();
            cache.unlink(&mut guard, hash, slot, handle);
        }
    }
    check(cache);
    assert_eq!(chunks_used(cache), HashMap::new());
    assert!(
        cache
            .class_reports(RelTime(2))
            .iter()
            .all(|report| report.mem_requested == 0)
    );
    assert_eq!(cache.table_shape().items, 0);
}
