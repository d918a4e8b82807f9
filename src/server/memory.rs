//! The cache of a server: of which memory it is made, and what the settings mean for it.

use std::fs::File;
use std::io;
use std::path::Path;

use slab_alloc::{Config, Sizes};

use crate::cache::{Cache, CacheConfig, How, ITEM_HEAD_BYTES, Opened, Place, Restart};
use crate::clock::Clock;
use crate::handover::Estate;
use crate::settings::Settings;

/// Table buckets at the start, as a power of two of items (memcached's default).
const HASH_POWER: u32 = 16;
/// Pages that the memory limit is cut into at least, unless they would become smaller than the sizes below.
const PAGES_MIN: usize = 1024;
/// The smallest slab pages, in bytes: from 32 MB on 64 KB, as smaller ones have larger tails; below, where there would be few of
/// them, 32 KB, one of the largest chunks. In 16 MB, those hold 2 to 4 % more where sizes are mixed.
const PAGE_BYTES_MIN: [usize; 2] = [32 << 10, 64 << 10];
/// The memory limit from which on pages are the larger ones.
const LARGER_PAGES_FROM: usize = 32 << 20;
/// Bytes for key and value in the smallest chunk that a class may open for.
const KEY_AND_VALUE_MIN: usize = 8;
/// The ratio of neighbours among the classes that are open at first. Each that holds anything costs half a page, so it gets its
/// first when that pays (`cache/memory/lodging.rs`). A class that opens late, as the others pay for themselves, finds its items in
/// larger ones: with 1.4 and 2, mixed sizes miss up to 20 % more on a trace of docs/eviction.md.
const GROWTH_AT_FIRST: f64 = 1.14;

/// Octaves of sizes that are told apart above the largest chunk: up to 1 MB, and all beyond. `-I` changes nothing about them, so
/// that a memory file (`-e`) is gone on with whatever it says.
const OCTAVES_ABOVE: usize = 5;

/// Where the memory of a server comes from.
pub(super) enum Memory {
    /// It is to be made, or found where `-e` says.
    New,
    /// The service manager has kept it.
    Kept(File),
    /// A server before has just left it.
    Left(File),
}

/// A cache, how it came up if that is to be told, and its clock.
pub(super) struct Begun {
    pub(super) cache: Cache,
    pub(super) restart: Option<Restart>,
    pub(super) clock: Clock,
}

/// `has_past`: what is loaded later was asked for before this start.
pub(super) fn begin(
    settings: &Settings,
    memory: Memory,
    has_past: bool,
    boot_id: u64,
) -> Result<Begun, String> {
    let new_clock = || match has_past {
        true => Clock::with_past(),
        false => Clock::new(),
    };
    let config = cache_config(settings);
    let path = settings.memory_file.as_deref();
    let place = path.map_or(Place::Unnamed, Place::Named);
    let opened = match (memory, path) {
        (Memory::Left(file), _) => take_over(settings, file, boot_id)?,
        (Memory::Kept(file), _) => Cache::open_in(&config, place, file, boot_id)?,
        (Memory::New, Some(path)) => Cache::open(&config, path, boot_id)?,
        (Memory::New, None) => {
            let cache = cache(settings);
            let cache = cache.map_err(|error| format!("cannot reserve memory: {error}"))?;
            return Ok(Begun {
                cache,
                restart: None,
                clock: new_clock(),
            });
        }
    };
    prepare(&opened.cache, settings);
    tell_restart(place, &opened.restart);
    Ok(Begun {
        cache: opened.cache,
        restart: Some(opened.restart),
        clock: opened.now_ms.map_or_else(new_clock, Clock::resume),
    })
}

/// Goes on with the memory that a server before has just left.
pub fn take_over(settings: &Settings, memory: File, boot_id: u64) -> Result<Opened, String> {
    let path = settings.memory_file.as_deref();
    let place = path.map_or(Place::Unnamed, Place::Named);
    Cache::take_over(&cache_config(settings), place, memory, boot_id)
        .map_err(|reason| format!("--takeover: {reason}"))
}

/// Why this server cannot take over what another has; said before anything has happened.
pub(super) fn check_takeover(settings: &Settings, estate: &Estate) -> Result<(), String> {
    let told = |path: Option<&Path>| match path {
        Some(path) => format!("-e {}", path.display()),
        None => "no -e".to_owned(),
    };
    let (theirs, own) = (&estate.memory_path, &settings.memory_file);
    if theirs != own {
        let (theirs, own) = (told(theirs.as_deref()), told(own.as_deref()));
        return Err(format!(
            "--takeover: the server has {theirs}, and this one {own}: name the same, or stop it first"
        ));
    }
    let memory = estate
        .memory
        .as_ref()
        .ok_or("--takeover: no memory is handed over")?;
    match Cache::cannot_take_over(&cache_config(settings), memory) {
        Some(reason) => Err(format!(
            "--takeover: {reason}: keep these options, or stop the server first, with -e to keep the items"
        )),
        None => Ok(()),
    }
}

/// Tells how the cache came up.
fn tell_restart(place: Place<'_>, restart: &Restart) {
    let took_ms = restart
        .steps
        .iter()
        .map(|(_, took)| took.as_millis())
        .sum::<u128>();
    let (kept, dropped) = (restart.kept, restart.dropped.iter().sum::<u64>());
    match restart.how {
        // At a level that is always shown: somebody may have counted on the items.
        How::Cold => log::warn!("{place}: starting without items: {}", restart.reason),
        How::Attached => log::info!("{place}: {kept} items are there, after {took_ms} ms"),
        How::Walked | How::Imported => log::warn!(
            "{place}: {kept} items are there and {dropped} were dropped, after {took_ms} ms: {}",
            restart.reason
        ),
    }
}

/// An empty cache as the settings want it. It lies where another process can take it over, unless it is to have huge pages, which
/// that memory seldom gets, or the system does not give such memory.
pub fn cache(settings: &Settings) -> io::Result<Cache> {
    let config = cache_config(settings);
    let unnamed = match settings.huge_pages {
        true => Err(io::ErrorKind::Unsupported.into()),
        false => Cache::unnamed(&config),
    };
    let cache = unnamed.or_else(|_| Cache::new(&config))?;
    prepare(&cache, settings);
    Ok(cache)
}

/// The cache in the file at `path`, as the settings want it, with the items that are there. The error is why the server cannot
/// start.
pub fn open(settings: &Settings, path: &Path, boot_id: u64) -> Result<Opened, String> {
    let opened = Cache::open(&cache_config(settings), path, boot_id)?;
    prepare(&opened.cache, settings);
    Ok(opened)
}

pub(super) fn cache_config(settings: &Settings) -> CacheConfig {
    let chunk_max = settings.slab_chunk_bytes_max;
    let chunk_min = settings.chunk_bytes_min + ITEM_HEAD_BYTES;
    let growth_factor = settings.growth_factor;
    let sizes = if !settings.slab_sizes.is_empty() {
        Sizes::List {
            sizes: settings.slab_sizes.clone(),
            chunk_max,
        }
    } else if settings.fixed_classes {
        Sizes::Growth {
            chunk_min,
            growth_factor,
            chunk_max,
        }
    } else {
        Sizes::Adaptive {
            chunk_min: ITEM_HEAD_BYTES + KEY_AND_VALUE_MIN,
            growth_factor: GROWTH_AT_FIRST,
            chunk_max,
            twins: OCTAVES_ABOVE,
        }
    };
    CacheConfig {
        slabs: Config {
            page_bytes: page_bytes(settings.memory_limit_bytes, chunk_max),
            limit_bytes: settings.memory_limit_bytes,
            sizes,
        },
        use_cas: settings.cas,
        item_bytes_max: settings.item_bytes_max,
        hash_power: match settings.hashpower_init {
            0 => HASH_POWER,
            power => u32::from(power),
        },
        hash_expand: settings.hash_expand,
        threads: settings.threads,
        knobs: settings.knobs.clone(),
    }
}

/// What of the settings is not fixed when a cache is made.
pub(super) fn prepare(cache: &Cache, settings: &Settings) {
    cache.events().feed.keep(settings.feed_ring_bytes);
    cache.events().sights.keep(settings.worker_logbuf_bytes);
    if settings.huge_pages
        && let Err(error) = cache.advise_huge()
    {
        log::warn!("-L: no huge pages: {error}");
    }
    if settings.lock_memory
        && let Err(error) = cache.lock_memory()
    {
        log::warn!("-k: the memory of the items is not locked: {error}");
    }
}

/// The size of a slab page. Each class that holds anything has a page of its own that is half empty on the mean, so
/// that with few pages most of them are wasted: with 1 MB pages, 64 MB held 31 MB of values of 1 B to 500 KB, with 64 KB
/// pages 62 MB. From 1 GB on they are memcached's.
fn page_bytes(memory_limit_bytes: usize, chunk_max: usize) -> usize {
    let [least, small] = PAGE_BYTES_MIN;
    let page_bytes_min = if memory_limit_bytes < LARGER_PAGES_FROM {
        least
    } else {
        small
    };
    let by_limit = (memory_limit_bytes / PAGES_MIN).next_power_of_two();
    let by_limit = by_limit.clamp(page_bytes_min, slab_alloc::PAGE_BYTES_MAX);
    by_limit.max(chunk_max.next_power_of_two())
}
