//! What a log leaves when its process is killed, or its machine, at any point between a ring and a segment.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::log::Log;
use super::replay::{Replayed, replay};
use super::segments::Segments;
use super::tests::{Folder, seen, store};
use crate::cache::testing::small_cache;
use crate::clock::RelTime;
use crate::events::RingId;
use crate::settings::{LogSync, Settings};
use crate::state::{Settle, Shared};

/// A server with a log, whose thread that moves events on never comes.
struct Logged {
    folder: Folder,
    shared: Shared,
    log: Log,
}

fn server(boot_id: u64) -> Shared {
    let mut shared = Shared::new(Settings::default(), small_cache(64), |_| {});
    shared.clock.pause(true);
    shared.boot_id = boot_id;
    shared
}

/// The files of a log, by name.
type Files = BTreeMap<PathBuf, Vec<u8>>;

impl Logged {
    fn begin() -> Self {
        let (folder, shared) = (Folder::new(), server(7));
        let segments = Segments::at(&folder.0.join("log"));
        let log = Log::begin(segments, LogSync::Second, 1, false, &shared).unwrap();
        Logged {
            folder,
            shared,
            log,
        }
    }

    fn store(&self, keys: std::ops::Range<u32>, value: &str) {
        for key in keys {
            let (key, now) = (format!("k{key}"), self.shared.clock.now());
            store(
                &self.shared.cache,
                &key,
                value.as_bytes(),
                RelTime::NEVER,
                now,
            );
        }
    }

    fn move_on(&self) {
        self.log.settle(&self.shared);
    }

    fn files(&self) -> Files {
        let paths = fs::read_dir(&self.folder.0)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        paths
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.0.join(format!("log.{suffix}"))
    }

    /// What a server finds that starts with these files: the values by key, and what came of replaying. Twice, as the second
    /// finds what the first has moved.
    #[track_caller]
    fn found(&self, files: &Files, boot_id: u64) -> (BTreeMap<String, String>, Replayed) {
        let folder = Folder::new();
        for (path, bytes) in files {
            fs::write(folder.0.join(path.file_name().unwrap()), bytes).unwrap();
        }
        let segments = Segments::at(&folder.0.join("log"));
        let mut again = (0..2).map(|_| {
            let shared = server(boot_id);
            let replayed = replay(&segments, Some(1), &shared).unwrap();
            let items = seen(&shared.cache, &shared.clock).into_iter();
            let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
            let items: BTreeMap<_, _> = items.map(|(key, what)| (key, text(what.0))).collect();
            (items, replayed)
        });
        let (first, second) = (again.next().unwrap(), again.next().unwrap());
        assert_eq!(first.0, second.0);
        assert_eq!(first.1.events, second.1.events);
        first
    }
}

/// So many keys have this value, by the number of the key.
fn counts(items: &BTreeMap<String, String>) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for value in items.values() {
        *counts.entry(&value[..]).or_default() += 1;
    }
    counts
}

/// Rf1 and Rf2.
#[test]
fn what_was_told_is_in_the_ring_or_in_the_segment() {
    let logged = Logged::begin();
    logged.store(0..10, "one");
    let (items, replayed) = logged.found(&logged.files(), 7);
    assert_eq!((items.len(), replayed.events, replayed.gaps), (10, 10, 0));
    let before = logged.files();
    logged.move_on();
    logged.store(5..12, "two");
    let (items, replayed) = logged.found(&logged.files(), 7);
    assert_eq!(counts(&items), [("one", 5), ("two", 7)].into());
    assert_eq!((replayed.events, replayed.gaps), (17, 0));
    // Killed between the segment's write and the ring's room being given back.
    let mut files = logged.files();
    files.insert(logged.path("ring"), before[&logged.path("ring")].clone());
    let (items, replayed) = logged.found(&files, 7);
    assert_eq!((items.len(), replayed.events, replayed.gaps), (10, 10, 0));
    // Killed in the middle of that write: the ring has it all.
    let segment = files.get_mut(&logged.path("1")).unwrap();
    segment.truncate(segment.len() - 3);
    let (items, replayed) = logged.found(&files, 7);
    assert_eq!((items.len(), replayed.events, replayed.gaps), (10, 10, 0));
    assert_eq!(replayed.torn_bytes, 0);
}

#[test]
fn a_ring_goes_round_and_what_it_cannot_take_is_written_in_order() {
    let logged = Logged::begin();
    let events = logged.shared.cache.events();
    let mut expected = BTreeMap::new();
    for round in 0..3000u32 {
        let value = format!("{round}-").repeat(1 + round as usize * 7 % 300);
        logged.store(round % 17..round % 17 + 1, &value);
        expected.insert(format!("k{}", round % 17), value);
        if events.is_unsettled(RingId::COMMON) {
            logged.move_on();
        }
    }
    // Larger than a ring takes.
    let large = "x".repeat(600_000);
    logged.store(3..4, &large);
    assert!(events.is_unsettled(RingId::COMMON));
    logged.store(4..5, "behind");
    logged.move_on();
    logged.store(5..6, "last");
    expected.extend(
        [("k3", &large[..]), ("k4", "behind"), ("k5", "last")]
            .map(|(key, value)| (key.into(), value.into())),
    );
    let (items, replayed) = logged.found(&logged.files(), 7);
    assert!(items == expected);
    assert_eq!((replayed.events, replayed.gaps), (3003, 0));
}

/// What is neither in the segment nor in the ring was acknowledged: what is older does not come back.
#[test]
fn damage_after_a_crash_is_a_gap() {
    let logged = Logged::begin();
    logged.store(0..10, "old");
    logged.move_on();
    logged.store(5..10, "new");
    let files = logged.files();
    let mut torn = files.clone();
    torn.get_mut(&logged.path("1")).unwrap().pop();
    let (items, replayed) = logged.found(&torn, 7);
    assert_eq!((items.len(), replayed.gaps), (0, 1));
    let ring = &files[&logged.path("ring")];
    for at in ring
        .windows(3)
        .enumerate()
        .filter(|(_, bytes)| *bytes == b"new")
        .map(|(at, _)| at)
    {
        let mut flipped = files.clone();
        flipped.get_mut(&logged.path("ring")).unwrap()[at] ^= 1;
        let (items, replayed) = logged.found(&flipped, 7);
        assert_eq!((items.len(), replayed.gaps), (0, 1), "{at}");
    }
    // Rf4.
    for at in (0..snapshot_file::HEAD_BYTES).step_by(5) {
        let mut flipped = files.clone();
        flipped.get_mut(&logged.path("ring")).unwrap()[at] ^= 1;
        let (items, replayed) = logged.found(&flipped, 7);
        assert_eq!((items.len(), replayed.gaps), (0, 1), "{at}");
    }
    let mut never_written = files.clone();
    never_written.get_mut(&logged.path("ring")).unwrap()[..snapshot_file::HEAD_BYTES].fill(0);
    let (items, replayed) = logged.found(&never_written, 7);
    assert_eq!((counts(&items), replayed.gaps), ([("old", 10)].into(), 0));
    // All of it is in the segment, whose last block does not hold: that is no torn end.
    logged.move_on();
    let mut flipped = logged.files();
    let segment = flipped.get_mut(&logged.path("1")).unwrap();
    let at = segment.windows(3).rposition(|bytes| bytes == b"new");
    segment[at.unwrap()] ^= 1;
    let (items, replayed) = logged.found(&flipped, 7);
    assert_eq!((items.len(), replayed.gaps), (0, 1));
    // No segment is left of those that a snapshot tells of.
    let (items, replayed) = logged.found(&Files::new(), 7);
    assert_eq!((items.len(), replayed.gaps, replayed.next), (0, 1, 2));
}

/// Rf3: the ring's pages may be newer than the segment, or older, or of several moments.
#[test]
fn after_a_power_cut_only_what_goes_on_without_a_gap_counts() {
    let logged = Logged::begin();
    logged.store(0..10, "one");
    logged.move_on();
    let first = logged.files();
    logged.store(0..5, "two");
    let second = logged.files();
    logged.move_on();
    logged.store(0..3, "three");
    let third = logged.files();
    let mix = |ring: &Files, segment: &Files| {
        let of = |files: &Files, name| (logged.path(name), files[&logged.path(name)].clone());
        Files::from([of(ring, "ring"), of(segment, "1")])
    };
    let found = |files: &Files| {
        let (items, replayed) = logged.found(files, 8);
        assert_eq!(replayed.gaps, 0);
        let counts: Vec<_> = counts(&items)
            .into_iter()
            .map(|(value, n)| (value.to_owned(), n))
            .collect();
        counts
    };
    let one_two = [("one".to_owned(), 5), ("two".to_owned(), 5)];
    assert_eq!(found(&mix(&second, &first)), one_two, "it goes on");
    assert_eq!(
        found(&mix(&third, &first)),
        [("one".to_owned(), 10)],
        "a hole"
    );
    assert_eq!(found(&mix(&second, &third)), one_two, "moved already");
    let ring = &second[&logged.path("ring")];
    // Events of 64 bytes each from the ring's beginning on: of the second five, the third is damaged.
    let at = ring
        .windows(3)
        .enumerate()
        .filter(|(_, bytes)| *bytes == b"two")
        .nth(2)
        .unwrap()
        .0;
    let mut damaged = mix(&second, &first);
    damaged.get_mut(&logged.path("ring")).unwrap()[at] ^= 1;
    assert_eq!(
        found(&damaged),
        [("one".to_owned(), 8), ("two".to_owned(), 2)]
    );
}

/// Killed when a segment is ended and the next has no name yet.
#[test]
fn what_is_told_between_two_segments_comes_back() {
    let logged = Logged::begin();
    logged.store(0..10, "one");
    logged.log.cut(&logged.shared).unwrap();
    logged.store(5..10, "two");
    let mut files = logged.files();
    let (items, _) = logged.found(&files, 7);
    assert_eq!(counts(&items), [("one", 5), ("two", 5)].into());
    files.remove(&logged.path("2")).unwrap();
    for boot_id in [7, 8] {
        let (items, replayed) = logged.found(&files, boot_id);
        assert_eq!(counts(&items), [("one", 5), ("two", 5)].into());
        assert_eq!((replayed.events, replayed.gaps), (15, 0));
    }
}

#[test]
fn a_ring_of_anything_ends_no_start() {
    let logged = Logged::begin();
    logged.store(0..10, "one");
    let files = logged.files();
    let whole = &files[&logged.path("ring")];
    let mut rng = crate::cache::testing::Rng::new(1);
    for len in [0, 5, 64, 4096, 5000, whole.len() - 1] {
        let mut cut = files.clone();
        cut.insert(logged.path("ring"), whole[..len].to_vec());
        logged.found(&cut, 7);
    }
    // Positions and events, where they lie.
    for _ in 0..20 {
        let mut other = files.clone();
        let ring = other.get_mut(&logged.path("ring")).unwrap();
        let used = whole
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte != 0)
            .map(|(at, _)| at);
        let used: Vec<usize> = used.collect();
        for _ in 0..3 {
            ring[used[rng.below(used.len())]] ^= 1 << rng.below(8);
        }
        for boot_id in [7, 8] {
            let (items, _) = logged.found(&other, boot_id);
            assert!(items.values().all(|value| value == "one"));
        }
    }
}
