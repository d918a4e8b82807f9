use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::load::Loaded;
use super::take::{Manner, Taken, take};
use super::*;
use crate::cache::testing::{Rng, small_cache};
use crate::cache::{At, Cache, ItemSpec};
use crate::clock::{Clock, RelTime};

const MANNER: Manner = Manner {
    rate_bytes: 0,
    compressed: false,
    makes_way: true,
    segment: 0,
};

/// A folder of a test's own, removed with what is in it.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ketch-snapshot-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn files(&self) -> Files {
        Files::at(&self.0.join("snapshot"))
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.0.join("snapshot")).unwrap()
    }

    fn put(&self, bytes: &[u8]) {
        fs::write(self.0.join("snapshot"), bytes).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn clock() -> Clock {
    let clock = Clock::with_past();
    clock.pause(true);
    clock
}

pub(super) fn store(cache: &Cache, key: &str, value: &[u8], expires_at: RelTime, now: RelTime) {
    let spec = ItemSpec {
        key: key.as_bytes(),
        key_binary: false,
        client_flags: value.len() as u32 % 3,
        expires_at,
        value_len: value.len() as u32,
    };
    let at = At::new(now);
    let mut item = cache.create(&spec, at).expect("there is room");
    item.write(value);
    cache
        .entry(cache.sought(key.as_bytes()), at)
        .put(item, None);
}

/// What is to be seen of an item: value, client flags, CAS unique, end and last access in seconds from now on.
type Seen = (Vec<u8>, u32, u64, Option<i64>, i64);

pub(super) fn seen(cache: &Cache, clock: &Clock) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    let (mut cursor, now) = (crate::cache::CopyCursor::default(), clock.now());
    let mut keys = Vec::new();
    while !cache.copy_step(&mut cursor, now, |item, _| keys.push(item.key().to_vec())) {}
    for key in keys {
        let entry = cache.entry(cache.sought(&key), At::new(now));
        let item = entry.item().expect("it was shown");
        let value: Vec<u8> = item.value_pieces().flatten().copied().collect();
        let ends = (item.expires_at() != RelTime::NEVER)
            .then(|| i64::from(item.expires_at().0) - i64::from(now.0));
        let accessed = i64::from(item.accessed_at().0) - i64::from(now.0);
        let what = (value, item.client_flags(), item.cas(), ends, accessed);
        all.insert(String::from_utf8(key).unwrap(), what);
    }
    all
}

/// A cache with items of many sizes, ends and ages.
fn filled(clock: &Clock, items: u32) -> Cache {
    let cache = small_cache(64);
    let mut rng = Rng::new(u64::from(items));
    for n in 0..items {
        let len = match n % 100 {
            0 => 200_000 + rng.below(700_000),
            1..=3 => rng.below(40_000),
            _ => rng.below(300),
        };
        let value: Vec<u8> = (0..len).map(|at| (at as u32 ^ n) as u8).collect();
        let now = clock.now();
        let expires_at = match n % 3 {
            0 => RelTime::NEVER,
            _ => RelTime(now.0 + 100 + n),
        };
        let accessed = RelTime(now.0 - rng.below(100_000) as u32);
        store(&cache, &format!("key{n}"), &value, expires_at, accessed);
    }
    cache
}

fn taken(folder: &Folder, cache: &Cache, clock: &Clock, manner: Manner) -> Taken {
    take(cache, clock, &folder.files(), manner, &|| true).expect("the disk takes it")
}

fn loaded(folder: &Folder, cache: &Cache, clock: &Clock) -> Loaded {
    let loaded = load(&folder.files(), cache, clock, 2).expect("it can be read");
    cache.check_invariants();
    loaded.expect("there is a snapshot")
}

#[test]
fn all_items_come_back_as_they_were() {
    for compressed in [false, true] {
        let (folder, clock) = (Folder::new(), clock());
        let cache = filled(&clock, 2000);
        let manner = Manner {
            compressed,
            ..MANNER
        };
        let taken = taken(&folder, &cache, &clock, manner);
        assert_eq!(
            (taken.items, taken.bytes),
            (2000, folder.bytes().len() as u64)
        );
        let again = small_cache(80);
        let loaded = loaded(&folder, &again, &clock);
        assert_eq!(
            (loaded.items, loaded.is_cut, loaded.blocks_lost),
            (2000, false, 0)
        );
        assert!(seen(&again, &clock) == seen(&cache, &clock));
        assert!(again.last_cas() > cache.last_cas());
    }
}

#[test]
fn what_ends_meanwhile_is_left_out() {
    let (folder, clock) = (Folder::new(), clock());
    let cache = filled(&clock, 300);
    taken(&folder, &cache, &clock, MANNER);
    clock.shift(250);
    let again = small_cache(64);
    let loaded = loaded(&folder, &again, &clock);
    let live = seen(&cache, &clock);
    assert_eq!(
        (loaded.items, loaded.items + loaded.expired),
        (live.len() as u64, 300)
    );
    assert!(seen(&again, &clock) == live);
}

#[test]
fn what_does_not_fit_is_what_was_used_least_recently() {
    let (folder, clock) = (Folder::new(), clock());
    let cache = small_cache(64);
    for n in 0..20_000u32 {
        let accessed = RelTime(clock.now().0 - (n * 7919) % 20_000);
        store(
            &cache,
            &format!("k{n}"),
            &[7; 1000],
            RelTime::NEVER,
            accessed,
        );
    }
    let before = seen(&cache, &clock);
    assert_eq!(before.len(), 20_000);
    taken(&folder, &cache, &clock, MANNER);
    let small = small_cache(8);
    let loaded = loaded(&folder, &small, &clock);
    let kept = seen(&small, &clock);
    assert!(kept.len() > 6000, "{}", kept.len());
    assert_eq!(loaded.items + loaded.no_room, 20_000);
    let oldest_kept = kept.values().map(|what| what.4).min().unwrap();
    let newer = before.values().filter(|what| what.4 > oldest_kept).count();
    assert!(kept.len() * 100 >= newer * 95, "{} of {newer}", kept.len());
    // Who comes next displaces the older half first.
    for n in 0..2000 {
        store(
            &small,
            &format!("new{n}"),
            &[7; 1000],
            RelTime::NEVER,
            clock.now(),
        );
    }
    let left = seen(&small, &clock);
    let survive = |recent: bool| {
        let half = kept
            .iter()
            .filter(|(_, what)| (what.4 > oldest_kept / 2) == recent);
        half.filter(|(key, _)| left.contains_key(*key)).count()
    };
    assert!(
        survive(true) > survive(false),
        "{} and {}",
        survive(true),
        survive(false)
    );
}

/// Sn4, at the level of the cache: cut anywhere, or with any bytes changed, only what was stored comes back.
#[test]
fn a_damaged_file_gives_only_what_was_stored() {
    let (folder, clock) = (Folder::new(), clock());
    let cache = filled(&clock, 250);
    for compressed in [false, true] {
        let manner = Manner {
            compressed,
            ..MANNER
        };
        taken(&folder, &cache, &clock, manner);
        let (whole, bytes) = (seen(&cache, &clock), folder.bytes());
        let mut rng = Rng::new(5);
        for round in 0..60 {
            let mut damaged = bytes.clone();
            if round % 2 == 0 {
                damaged.truncate(64 + rng.below(bytes.len() - 64));
            } else {
                for _ in 0..1 + rng.below(3) {
                    let at = 64 + rng.below(bytes.len() - 64);
                    damaged[at] ^= 1 << rng.below(8);
                }
            }
            folder.put(&damaged);
            let again = small_cache(64);
            let loaded = loaded(&folder, &again, &clock);
            let came = seen(&again, &clock);
            assert!(came.iter().all(|(key, what)| whole.get(key) == Some(what)));
            assert_eq!(loaded.items, came.len() as u64);
            assert!(
                loaded.is_cut || loaded.blocks_lost > 0,
                "round {round}: not told"
            );
        }
    }
}

#[test]
fn what_is_no_snapshot_is_refused_with_a_reason() {
    let (folder, clock) = (Folder::new(), clock());
    let cache = small_cache(8);
    let load = || load(&folder.files(), &cache, &clock, 2);
    assert_eq!(load(), Ok(None));
    folder.put(b"#!/bin/sh\n");
    assert!(
        load()
            .unwrap_err()
            .ends_with("too short to be a snapshot or a log")
    );
    folder.put(&[b'x'; 1000]);
    assert!(
        load()
            .unwrap_err()
            .ends_with("neither a snapshot nor a log of ketch")
    );
    fs::remove_file(folder.0.join("snapshot")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.0.join("snapshot")).unwrap();
    assert!(load().unwrap_err().contains("it is a link"));
    fs::remove_file(folder.0.join("snapshot")).unwrap();
    fs::create_dir(folder.0.join("snapshot")).unwrap();
    assert!(load().unwrap_err().contains("not a plain file"));
}

#[test]
fn one_server_at_a_time_has_the_files() {
    let folder = Folder::new();
    let locked = folder.files().lock(&mut Vec::new()).unwrap();
    let refused = folder.files().lock(&mut Vec::new()).unwrap_err();
    assert!(refused.contains("another server uses it"), "{refused}");
    drop(locked);
    assert!(folder.files().lock(&mut Vec::new()).is_ok());
}

/// Sn3.
#[test]
fn a_snapshot_that_fails_leaves_the_last_one() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, clock) = (Folder::new(), clock());
    let cache = filled(&clock, 300);
    taken(&folder, &cache, &clock, MANNER);
    let bytes = folder.bytes();
    let mode = fs::metadata(folder.0.join("snapshot"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // Somebody's link where the next one is to be written.
    let other = folder.0.join("other");
    fs::write(&other, "theirs").unwrap();
    std::os::unix::fs::symlink(&other, folder.0.join("snapshot.new")).unwrap();
    let stopped = take(&cache, &clock, &folder.files(), MANNER, &|| false);
    assert!(stopped.is_err());
    assert!(folder.bytes() == bytes);
    assert!(!folder.0.join("snapshot.new").exists());
    assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
}

/// A delayed flush that was asked for before the snapshot still comes.
#[test]
fn a_flush_that_is_ahead_comes_all_the_same() {
    let (folder, clock) = (Folder::new(), clock());
    let cache = filled(&clock, 50);
    cache.flush_at(RelTime(clock.now().0 + 30), At::new(clock.now()));
    taken(&folder, &cache, &clock, MANNER);
    let again = small_cache(64);
    loaded(&folder, &again, &clock);
    assert_eq!(seen(&again, &clock).len(), 50);
    clock.shift(31);
    assert_eq!(seen(&again, &clock).len(), 0);
}

/// Keys whose items are replaced all the time are in a snapshot taken meanwhile, with a value that they had.
#[test]
fn a_snapshot_under_load_misses_no_key() {
    let (folder, clock) = (Folder::new(), clock());
    let cache = small_cache(64);
    const KEYS: u32 = 4000;
    let put = |n: u32, round: u32| {
        let value = format!("{n}:{round}:").repeat(1 + (n + round) as usize % 40);
        store(
            &cache,
            &format!("k{n}"),
            value.as_bytes(),
            RelTime::NEVER,
            clock.now(),
        );
    };
    (0..KEYS).for_each(|n| put(n, 0));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Relaxed) {
                round += 1;
                (0..KEYS).for_each(|n| put(n, round));
            }
            round
        });
        for _ in 0..10 {
            taken(&folder, &cache, &clock, MANNER);
        }
        stop.store(true, Relaxed);
        writer.join().unwrap()
    });
    assert!(rounds > 1);
    let again = small_cache(64);
    assert_eq!(loaded(&folder, &again, &clock).items, u64::from(KEYS));
    for (key, what) in seen(&again, &clock) {
        let text = String::from_utf8(what.0).unwrap();
        let (n, rest) = text.split_once(':').unwrap();
        let (round, _) = rest.split_once(':').unwrap();
        assert_eq!(key, format!("k{n}"));
        let repeated = 1 + (n.parse::<u32>().unwrap() + round.parse::<u32>().unwrap()) % 40;
        assert_eq!(text, format!("{n}:{round}:").repeat(repeated as usize));
    }
}
