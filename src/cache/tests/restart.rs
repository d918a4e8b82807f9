//! A cache in a file, and the caches that go on with it.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::super::memory_file::layout::{STRIPE_RECORDS, WRITE_MARKS, word};
use super::super::testing::Rng;
use super::super::{Cache, How, Opened, Restart};
use super::*;
use crate::clock::Moment;
use crate::knobs::Knob;

const BOOT: u64 = 7;
/// The longest value of these tests, in bytes: chained.
const LONG: usize = 300_000;

/// A path of a test's own, whose file is removed.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ketch-restart-{}-{}",
            std::process::id(),
            MADE.fetch_add(1, Relaxed)
        );
        Place(std::env::temp_dir().join(name))
    }

    fn open(&self, config: &CacheConfig) -> Opened {
        Cache::open(config, &self.0, BOOT).unwrap()
    }

    fn refusal(&self, config: &CacheConfig) -> String {
        Cache::open(config, &self.0, BOOT).expect_err("refused")
    }

    fn file(&self) -> fs::File {
        fs::File::options()
            .read(true)
            .write(true)
            .open(&self.0)
            .unwrap()
    }

    fn set_word(&self, at: usize, word: u64) {
        self.file()
            .write_all_at(&word.to_ne_bytes(), at as u64 * 8)
            .unwrap();
    }

    fn word(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        self.file()
            .read_exact_at(&mut bytes, at as u64 * 8)
            .unwrap();
        u64::from_ne_bytes(bytes)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.0.with_extension("new"));
    }
}

fn moment(now_s: u64) -> Moment {
    Moment::read(now_s * 1000, BOOT)
}

fn key(n: usize) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

/// The value of a key: of all lengths, some of them chained.
fn value_of(n: usize) -> Vec<u8> {
    let len = if n.is_multiple_of(500) {
        LONG - n
    } else {
        n * 37 % 900
    };
    (0..len).map(|at| (at * 7 + n) as u8).collect()
}

fn fill(cache: &Cache, keys: std::ops::Range<usize>, now: RelTime) {
    for n in keys {
        let key = key(n);
        let value = value_of(n);
        let spec = ItemSpec {
            client_flags: n as u32 % 3,
            key_binary: n.is_multiple_of(5),
            expires_at: if n.is_multiple_of(7) {
                RelTime(1000 + n as u32)
            } else {
                RelTime::NEVER
            },
            ..spec(&key, value.len())
        };
        let new = create(cache, &spec, &value, now).unwrap();
        cache.entry(cache.sought(&key), At::new(now)).put(new, None);
    }
}

/// How many of the keys are there; each must be as it was stored.
fn count(cache: &Cache, keys: std::ops::Range<usize>, now: RelTime) -> usize {
    let there = |&n: &usize| {
        let key = key(n);
        let entry = cache.entry(cache.sought(&key), At::new(now));
        let Some(item) = entry.item() else {
            return false;
        };
        let value = item.value_pieces().collect::<Vec<_>>().concat();
        assert!(value == value_of(n), "the value of {n}");
        assert_eq!(item.client_flags(), n as u32 % 3);
        assert_eq!(item.key_binary(), n.is_multiple_of(5));
        let ends = item.expires_at() != RelTime::NEVER;
        assert_eq!(ends, n.is_multiple_of(7), "the end of {n}");
        true
    };
    keys.filter(there).count()
}

/// The keys of a class in the order of its lists, the oldest first.
fn order(cache: &Cache) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for class in cache.items.slabs().classes() {
        let lru = cache.lru(class);
        for segment in super::super::Segment::ALL {
            let older = |&handle: &slab_alloc::ChunkHandle| cache.items.header(handle).prev();
            let handles = std::iter::successors(lru.segments.tail(segment), older);
            keys.extend(handles.map(|handle| cache.items.key(handle).to_vec()));
        }
    }
    keys
}

/// All keys, after a look that in each list nobody stands before who was asked for in an earlier second. In one second the
/// order is that of the uniques, which is that of the stores for each stripe only.
fn in_order(cache: &Cache) -> std::collections::BTreeSet<Vec<u8>> {
    for class in cache.items.slabs().classes() {
        let lru = cache.lru(class);
        for segment in super::super::Segment::ALL {
            let older = |&handle: &slab_alloc::ChunkHandle| cache.items.header(handle).prev();
            let handles = std::iter::successors(lru.segments.tail(segment), older);
            assert!(handles.is_sorted_by_key(|handle| cache.items.header(handle).accessed_at()));
        }
    }
    order(cache).into_iter().collect()
}

fn uniques(cache: &Cache, keys: std::ops::Range<usize>) -> Vec<Option<u64>> {
    let unique = |n: usize| {
        let key = key(n);
        let entry = cache.entry(cache.sought(&key), At::new(RelTime(10)));
        entry.item().map(|item| item.cas())
    };
    keys.map(unique).collect()
}

const ITEMS: usize = 4000;

/// A cache with all items, and its file.
fn filled() -> (Place, Cache) {
    let place = Place::new();
    let Opened {
        cache,
        restart,
        now_ms,
    } = place.open(&config(64));
    assert_eq!((restart.how, now_ms), (How::Cold, None));
    fill(&cache, 0..ITEMS, RelTime(10));
    check(&cache);
    (place, cache)
}

/// The file of a server that ended in good order.
fn left_clean() -> Place {
    let (place, cache) = filled();
    cache.close(&moment(10)).unwrap();
    place
}

#[track_caller]
fn all_there(place: &Place, config: &CacheConfig, how: How) -> (Cache, Restart) {
    let opened = place.open(config);
    let told = &opened.restart;
    assert_eq!(told.how, how, "{}", told.reason);
    assert_eq!(told.dropped, [0; 5]);
    assert_eq!(told.kept, ITEMS as u64);
    check(&opened.cache);
    assert_eq!(count(&opened.cache, 0..ITEMS, RelTime(10)), ITEMS);
    (opened.cache, opened.restart)
}

#[test]
fn after_a_clean_end_all_is_as_it_was() {
    let (place, cache) = filled();
    for n in (0..ITEMS).step_by(3) {
        read(&cache, &key(n), RelTime(11));
    }
    let before = (order(&cache), uniques(&cache, 0..ITEMS));
    let last = cache.last_cas();
    cache.close(&moment(11)).unwrap();
    drop(cache);
    let (cache, _) = all_there(&place, &config(64), How::Attached);
    let after = (order(&cache), uniques(&cache, 0..ITEMS));
    assert!(after == before);
    assert!(cache.last_cas() >= last && before.1.iter().all(|&cas| cas <= Some(last)));
    // It works on, and can be left again.
    fill(&cache, 0..ITEMS / 2, RelTime(12));
    empty_some(&cache);
    check(&cache);
    cache.close(&moment(12)).unwrap();
    drop(cache);
    let cache = place.open(&config(64)).cache;
    assert_eq!(count(&cache, 0..ITEMS, RelTime(12)), ITEMS - ITEMS / 10);
    check(&cache);
    empty(&cache);
}

fn empty_some(cache: &Cache) {
    for n in (0..ITEMS).step_by(10) {
        let key = key(n);
        cache
            .entry(cache.sought(&key), At::new(RelTime(12)))
            .remove();
    }
}

#[test]
fn other_options_come_up_warm() {
    let place = left_clean();
    let with = |change: &dyn Fn(&mut CacheConfig)| {
        let mut changed = config(64);
        change(&mut changed);
        changed
    };
    for (config, how) in [
        (
            with(&|config| config.slabs.limit_bytes = 200 << 20),
            How::Attached,
        ),
        (
            with(&|config| config.slabs.limit_bytes = 32 << 20),
            How::Attached,
        ),
        (with(&|config| config.threads = 16), How::Attached),
        (
            with(&|config| config.item_bytes_max = 8 << 20),
            How::Attached,
        ),
        (
            with(&|config| config.knobs.set(Knob::Eviction, 3)),
            How::Attached,
        ),
        (
            with(&|config| config.knobs.set(Knob::Eviction, 6)),
            How::Attached,
        ),
        // Another size of pages is for new files.
        (
            with(&|config| config.slabs.page_bytes = 256 << 10),
            How::Attached,
        ),
        (
            with(&|config| config.slabs.limit_bytes = 1 << 30),
            How::Imported,
        ),
        (
            with(&|config| {
                config.slabs.sizes = Sizes::Adaptive {
                    chunk_min: 40,
                    growth_factor: 1.25,
                    chunk_max: 32 << 10,
                    twins: 5,
                };
            }),
            How::Imported,
        ),
        (
            with(&|config| {
                config.slabs.sizes = Sizes::Growth {
                    chunk_min: 96,
                    growth_factor: 1.5,
                    chunk_max: 1 << 20,
                };
            }),
            How::Imported,
        ),
    ] {
        let before = {
            let file = place.word(word::CAS);
            assert!(file >= ITEMS as u64);
            file
        };
        let (cache, restart) = all_there(&place, &config, how);
        assert!(cache.last_cas() >= before, "{}", restart.reason);
        assert_eq!(restart.reason.is_empty(), how == How::Attached);
        cache.close(&moment(10)).unwrap();
    }
}

#[test]
fn an_import_keeps_the_order_and_the_uniques() {
    let (place, cache) = filled();
    fill(&cache, 0..ITEMS / 2, RelTime(11));
    let (before, uniques_before) = (in_order(&cache), uniques(&cache, 0..ITEMS));
    cache.close(&moment(11)).unwrap();
    drop(cache);
    let mut other = config(64);
    // The same classes but for one more at the upper end, so that each list is a list as before.
    other.slabs.sizes = Sizes::Growth {
        chunk_min: 80,
        growth_factor: 1.25,
        chunk_max: 160 << 10,
    };
    let (cache, _) = all_there(&place, &other, How::Imported);
    assert_eq!(uniques(&cache, 0..ITEMS), uniques_before);
    assert!(in_order(&cache) == before);
    assert!(!fs::exists(place.0.with_extension("new")).unwrap());
}

#[test]
fn after_a_crash_the_items_are_found() {
    let (place, cache) = filled();
    fill(&cache, 0..ITEMS / 2, RelTime(11));
    let before = (
        in_order(&cache),
        uniques(&cache, 0..ITEMS),
        cache.last_cas(),
    );
    cache.note_time(&moment(11));
    drop(cache);
    for _ in 0..2 {
        let (cache, restart) = all_there(&place, &config(64), How::Walked);
        assert_eq!(restart.reason, "the server before did not end well");
        assert!(
            (in_order(&cache), uniques(&cache, 0..ITEMS)) == (before.0.clone(), before.1.clone())
        );
        assert!(cache.last_cas() > before.2);
        cache.note_time(&moment(11));
    }
}

#[test]
fn what_was_being_written_is_dropped() {
    let (place, cache) = filled();
    cache.note_time(&moment(10));
    let handle = |n: usize| {
        let key = key(n);
        let guard = cache.table.lock(cache.table.hash(&key));
        let found = guard.find(cache.table.hash(&key), |at| cache.items.key(at) == key);
        (guard.number(), found.unwrap().1)
    };
    // One is changed where it lies; one is stored, and only begun; one is replaced, and both are there.
    let (stripe, changed) = handle(1);
    let old = handle(2).1;
    let new = create(&cache, &spec(&key(2), 400), &[b'n'; 400], RelTime(10))
        .unwrap()
        .into_handle();
    cache.items.set_cas(new, u64::MAX >> 2);
    cache.items.mark_linked(new);
    assert_ne!(cache.class_of(old), cache.class_of(new));
    let begun = cache
        .create(&spec(b"begun", 5000), At::new(RelTime(10)))
        .unwrap();
    std::mem::forget(begun);
    drop(cache);
    place.set_word(WRITE_MARKS + stripe, u64::from(changed.to_raw()));
    let Opened { cache, restart, .. } = place.open(&config(64));
    assert_eq!(restart.how, How::Walked);
    assert_eq!(restart.dropped, [1, 0, 0, 1, 0], "unfinished, .., older");
    check(&cache);
    assert_eq!(get(&cache, &key(1), RelTime(10)), None);
    assert_eq!(get(&cache, b"begun", RelTime(10)), None);
    assert_eq!(get(&cache, &key(2), RelTime(10)), Some(vec![b'n'; 400]));
    assert_eq!(count(&cache, 3..ITEMS, RelTime(10)), ITEMS - 3);
    assert_eq!(place.word(WRITE_MARKS + stripe), 0);
}

#[test]
fn time_goes_on_while_nobody_serves() {
    let (place, cache) = filled();
    let flushed_at = At::new(RelTime(9));
    cache.flush_now(flushed_at);
    let mut stopped = moment(10);
    stopped.boot_ms -= 20_000;
    cache.close(&stopped).unwrap();
    drop(cache);
    let opened = place.open(&config(64));
    let now_ms = opened.now_ms.unwrap();
    assert!((30_000..40_000).contains(&now_ms), "{now_ms}");
    assert!((20_000..30_000).contains(&opened.restart.down_ms));
    let flush = opened.cache.flush.words();
    assert_eq!(flush[0] >> 8, 9, "the flush mark");
    drop(opened);
    // The same after a crash: what has ended meanwhile is not brought back.
    place.set_word(word::NOW_MS, 1_000_000);
    let opened = place.open(&config(64));
    let ended = (0..ITEMS)
        .filter(|n| n.is_multiple_of(7) && 1000 + n <= 1020)
        .count() as u64;
    assert!(opened.restart.dropped[1] >= ended, "{:?}", opened.restart);
    drop(opened);
    // No server gets this old.
    place.set_word(word::NOW_MS, u64::MAX / 2);
    let opened = place.open(&config(64));
    assert_eq!(opened.restart.how, How::Cold);
}

#[test]
fn what_is_not_ours_stays_as_it_is() {
    let place = Place::new();
    fs::write(&place.0, b"a letter to somebody else".repeat(1000)).unwrap();
    let refusal = place.refusal(&config(64));
    assert!(
        refusal.contains("there is something else in it"),
        "{refusal}"
    );
    assert!(fs::read(&place.0).unwrap().starts_with(b"a letter"));
    fs::remove_file(&place.0).unwrap();
    let other = Place::new();
    symlink(&other.0, &place.0).unwrap();
    let refusal = place.refusal(&config(64));
    assert!(refusal.contains("symbolic link"), "{refusal}");
    fs::remove_file(&place.0).unwrap();
    fs::create_dir(&place.0).unwrap();
    place.refusal(&config(64));
    fs::remove_dir(&place.0).unwrap();
    let unwritable = Place(PathBuf::from("/no/such/directory/file"));
    assert!(
        unwritable
            .refusal(&config(64))
            .contains("/no/such/directory/file")
    );
}

#[test]
fn a_file_is_for_one_process_and_for_one_user() {
    let (place, cache) = filled();
    let refusal = place.refusal(&config(64));
    assert!(refusal.contains("another process has it open"), "{refusal}");
    let mode = fs::metadata(&place.0).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(count(&cache, 0..ITEMS, RelTime(10)), ITEMS);
    cache.close(&moment(10)).unwrap();
    drop(cache);
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o644)).unwrap();
    all_there(&place, &config(64), How::Attached);
    let mode = fs::metadata(&place.0).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_cannot_be_used_says_why() {
    for (at, word, why) in [
        (
            word::FORMAT,
            99,
            "it has format 99, and this version knows 1",
        ),
        (word::LAYOUT, 1, "items lie otherwise"),
        (word::PAGES, 77, "its first bytes are damaged"),
        (word::STATE, 0, "nothing was in it yet"),
    ] {
        let place = left_clean();
        place.set_word(at, word);
        let opened = place.open(&config(64));
        assert_eq!(opened.restart.how, How::Cold);
        assert!(
            opened.restart.reason.contains(why),
            "{}",
            opened.restart.reason
        );
        fill(&opened.cache, 0..10, RelTime(2));
        check(&opened.cache);
    }
    // After a power cut.
    let (place, cache) = filled();
    cache.note_time(&Moment {
        boot_id: 8,
        ..moment(10)
    });
    drop(cache);
    let opened = place.open(&config(64));
    assert!(opened.restart.reason.contains("machine was started anew"));
}

#[test]
fn damaged_records_are_not_followed() {
    let mut rng = Rng::new(1);
    for _ in 0..40 {
        let place = left_clean();
        let from = if rng.below(2) == 0 { word::NOW_MS } else { 512 };
        let to = if from == 512 {
            STRIPE_RECORDS + 512
        } else {
            word::RECORDS_SUM + 1
        };
        let at = from + rng.below(to - from);
        let before = place.word(at);
        place.set_word(at, before ^ 1 << rng.below(64));
        let opened = place.open(&config(64));
        let told = &opened.restart;
        assert_eq!(told.how, How::Cold, "word {at}");
        let why = ["records are damaged", "first bytes are damaged"];
        assert!(
            why.iter().any(|why| told.reason.contains(why)),
            "{}",
            told.reason
        );
    }
}

/// Where a file has bytes: its extents, as the file system tells them.
fn extents(place: &Place) -> Vec<std::ops::Range<u64>> {
    use std::os::unix::fs::MetadataExt;
    let file = place.file();
    let len = file.metadata().unwrap().size();
    let mut block = vec![0; 1 << 16];
    let mut extents = Vec::new();
    // Only what is not zeros: the rest is of no use to anybody.
    for at in (0..len).step_by(block.len()) {
        let n = file.read_at(&mut block, at).unwrap();
        if block[..n].iter().any(|&byte| byte != 0) {
            extents.push(at..at + n as u64);
        }
    }
    extents
}

/// Changes so many bytes of a file, anywhere; in holes now and then as well.
fn flip(place: &Place, extents: &[std::ops::Range<u64>], rng: &mut Rng, count: usize) {
    let file = place.file();
    let len = file.metadata().unwrap().len();
    for _ in 0..count {
        let extent = extents[rng.below(extents.len())].clone();
        let at = match rng.below(8) {
            0 => rng.below(len as usize) as u64,
            1 => rng.below(327_680) as u64,
            _ => extent.start + rng.below((extent.end - extent.start) as usize) as u64,
        };
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= 1 + rng.below(255) as u8;
        file.write_all_at(&byte, at).unwrap();
    }
}

/// A file to be copied: its extents with their bytes.
fn content(place: &Place) -> (u64, Vec<(u64, Vec<u8>)>) {
    let file = place.file();
    let read = |extent: std::ops::Range<u64>| {
        let mut bytes = vec![0; (extent.end - extent.start) as usize];
        file.read_exact_at(&mut bytes, extent.start).unwrap();
        (extent.start, bytes)
    };
    let len = file.metadata().unwrap().len();
    (len, extents(place).into_iter().map(read).collect())
}

fn write_content(place: &Place, (len, extents): &(u64, Vec<(u64, Vec<u8>)>)) {
    let file = place.file();
    file.set_len(0).unwrap();
    file.set_len(*len).unwrap();
    for (at, bytes) in extents {
        file.write_all_at(bytes, *at).unwrap();
    }
}

/// Small enough to be tried often.
fn small_config() -> CacheConfig {
    let mut small = config(8);
    small.slabs.page_bytes = 1 << 17;
    small
}

/// Uses a cache whose file was changed: all that it says of `0..FEW` must be true, and it must go on working.
fn try_out(cache: &Cache, must_be_true: bool) -> usize {
    check(cache);
    let there = if must_be_true {
        count(cache, 1..FEW, RelTime(10))
    } else {
        0
    };
    for n in 1..FEW {
        get(cache, &key(n), RelTime(10));
    }
    fill(cache, FEW..FEW + 200, RelTime(11));
    fill(cache, 1..FEW / 2, RelTime(11));
    check(cache);
    there
}

const FEW: usize = 400;

#[test]
fn bytes_changed_in_a_clean_file_are_never_served() {
    let place = Place::new();
    let opened = place.open(&small_config());
    fill(&opened.cache, 1..FEW, RelTime(10));
    opened.cache.close(&moment(10)).unwrap();
    drop(opened);
    let (whole, extents) = (content(&place), extents(&place));
    let mut rng = Rng::new(fuzz_seed());
    let (mut attached, mut walked) = (0, 0);
    for round in 0..fuzz_rounds() {
        write_content(&place, &whole);
        let count = 1 + rng.below(8);
        flip(&place, &extents, &mut rng, count);
        let mut config = small_config();
        if round % 4 == 3 {
            config.slabs.sizes = Sizes::Growth {
                chunk_min: 96,
                growth_factor: 1.5,
                chunk_max: 1 << 17,
            };
        }
        match Cache::open(&config, &place.0, BOOT) {
            Ok(opened) => {
                let there = try_out(&opened.cache, true);
                attached += usize::from(opened.restart.how == How::Attached);
                walked += usize::from(opened.restart.how != How::Attached && there > 0);
                assert!(opened.restart.how != How::Attached || there == FEW - 1);
            }
            Err(refusal) => assert!(
                refusal.contains("there is something else in it"),
                "{refusal}"
            ),
        }
    }
    println!("{attached} attached, {walked} walked or imported with some items");
    assert!(attached > 0 && walked > 0);
}

/// However large the file, what says where its items lie has sums: superblock, records of classes and stripes, page states.
#[test]
fn bytes_changed_in_the_records_of_a_large_file_are_noticed() {
    let place = Place::new();
    let mut config = config(80);
    config.slabs.page_bytes = 1 << 17;
    let opened = place.open(&config);
    fill(&opened.cache, 1..FEW, RelTime(10));
    opened.cache.close(&moment(10)).unwrap();
    drop(opened);
    let whole = content(&place);
    let mut rng = Rng::new(fuzz_seed());
    let mut attached = 0;
    for _ in 0..fuzz_rounds() {
        write_content(&place, &whole);
        // As docs/memory.md draws them; a page state that was never used is all zeros.
        let parts = [0..36_864, 65_536..196_608, 327_680..327_680 + 32 * 30];
        let part = parts[rng.below(parts.len())].clone();
        let at = (part.start + rng.below(part.len())) as u64;
        let mut byte = [0];
        place.file().read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= 1 + rng.below(255) as u8;
        place.file().write_all_at(&byte, at).unwrap();
        match Cache::open(&config, &place.0, BOOT) {
            Ok(opened) => {
                let there = try_out(&opened.cache, true);
                let is_attached = opened.restart.how == How::Attached;
                attached += usize::from(is_attached);
                assert!(!is_attached || there == FEW - 1, "byte {at}");
            }
            Err(refusal) => assert!(
                refusal.contains("there is something else in it"),
                "{refusal}"
            ),
        }
    }
    assert!(attached < fuzz_rounds(), "nothing was noticed");
}

#[test]
fn bytes_changed_after_a_crash_break_nothing() {
    let place = Place::new();
    let opened = place.open(&small_config());
    fill(&opened.cache, 1..FEW, RelTime(10));
    opened.cache.note_time(&moment(10));
    drop(opened);
    let (whole, extents) = (content(&place), extents(&place));
    let mut rng = Rng::new(fuzz_seed());
    let mut walked = 0;
    for _ in 0..fuzz_rounds() {
        write_content(&place, &whole);
        let count = 1 + rng.below(60);
        flip(&place, &extents, &mut rng, count);
        if let Ok(opened) = Cache::open(&small_config(), &place.0, BOOT) {
            try_out(&opened.cache, false);
            walked += usize::from(opened.restart.how == How::Walked);
        }
    }
    assert!(walked > 0);
}

/// The long form: `KETCH_FUZZ_ROUNDS=10000`, another seed each time.
fn fuzz_rounds() -> usize {
    let given = std::env::var("KETCH_FUZZ_ROUNDS").ok();
    given.and_then(|rounds| rounds.parse().ok()).unwrap_or(60)
}

fn fuzz_seed() -> u64 {
    let given = std::env::var("KETCH_FUZZ_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or(5);
    println!("KETCH_FUZZ_SEED={seed}");
    seed
}

#[test]
fn a_file_that_was_cut_is_not_used() {
    let place = left_clean();
    let whole = fs::metadata(&place.0).unwrap().len();
    let mut rng = Rng::new(2);
    for _ in 0..ketch_testing::rounds(20, 100) {
        let place = left_clean();
        let len = match rng.below(3) {
            0 => rng.below(400_000) as u64 / 4096 * 4096,
            1 => rng.below(whole as usize) as u64 / 4096 * 4096,
            _ => rng.below(whole as usize) as u64,
        };
        place.file().set_len(len).unwrap();
        // With less than the magic of it there is nothing that says whose it is.
        match Cache::open(&config(64), &place.0, BOOT) {
            Ok(opened) => {
                assert_eq!(opened.restart.how, How::Cold, "{len} bytes");
                fill(&opened.cache, 0..10, RelTime(2));
                check(&opened.cache);
            }
            Err(refusal) => assert!(len < 80, "{len} bytes: {refusal}"),
        }
    }
}

#[test]
fn a_process_that_ends_while_it_attaches_leaves_what_can_be_walked() {
    let place = left_clean();
    drop(place.open(&config(64)));
    all_there(&place, &config(64), How::Walked);
}

#[test]
fn pages_without_items_give_their_memory_back() {
    use std::os::unix::fs::MetadataExt;
    let (place, cache) = filled();
    cache.note_time(&moment(10));
    for n in 0..ITEMS {
        let key = key(n);
        cache
            .entry(cache.sought(&key), At::new(RelTime(12)))
            .remove();
    }
    drop(cache);
    let before = fs::metadata(&place.0).unwrap().blocks();
    let opened = place.open(&config(64));
    assert_eq!(opened.restart.kept, 0);
    check(&opened.cache);
    let after = fs::metadata(&place.0).unwrap().blocks();
    assert!(after * 2 < before, "{before} blocks, then {after}");
}

#[test]
fn a_cache_without_a_name_is_taken_over() {
    let config = config(16);
    let cache = Cache::unnamed(&config).expect("memory");
    let now = RelTime(100);
    fill(&cache, 0..3000, now);
    let memory = || {
        let memory_file = cache.memory_file().expect("it lies in a file");
        memory_file
            .image()
            .file()
            .try_clone()
            .expect("a descriptor")
    };
    let place = super::super::Place::Unnamed;
    let refused = Cache::take_over(&config, place, memory(), BOOT).expect_err("it is in use");
    assert!(refused.contains("not left in order"), "{refused}");
    // Whoever fails in it leaves what the next one goes on with.
    for _ in 0..3 {
        cache.hand_over(&moment(100)).expect("left");
        let opened = Cache::take_over(&config, place, memory(), BOOT).expect("taken over");
        assert_eq!(opened.restart.how, How::Attached);
        assert_eq!(
            count(&opened.cache, 0..3000, now),
            count(&cache, 0..3000, now)
        );
        opened.cache.check_invariants();
    }
    cache.hand_over(&moment(100)).expect("left");
    let opened = Cache::take_over(&config, place, memory(), BOOT).expect("taken over");
    drop(cache);
    fill(&opened.cache, 3000..6000, now);
    opened.cache.check_invariants();
}
