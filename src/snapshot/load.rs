//! Loads a snapshot into the cache: at another size, with other classes, in another process.
//!
//! The heads of all blocks are read first. If the items are more than fit, a pass over them finds the moment whose later
//! accesses fit; then blocks are loaded from the oldest to the newest, so that the LRUs come out in about the order that they
//! had.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use snapshot_file::{Block, BlockHead, BlockKind, FileKind, Found, Marks, Meta, Reader, Record};

use super::files::{Files, Shared};
use crate::cache::{Ahead, At, Cache, ItemSpec, NewItem, Saved, Segment};
use crate::clock::{Clock, RelTime};

/// CAS uniques passed over, so that none is given out twice that was given out after the snapshot: as many as some minutes of
/// stores take.
pub(super) const CAS_GAP: u64 = 1 << 32;
/// Of the memory limit so much is filled with what a file has, in percent: chunks are larger than their items.
const FILLED_PERCENT: u64 = 90;
/// Records whose buckets are fetched before the first of them is put in.
const AHEAD: usize = 16;
/// Threads at most: beyond that they wait for memory.
const THREADS_MAX: usize = 8;

/// What came of loading a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Items that are in the cache now.
    pub items: u64,
    /// Their keys and values, in bytes.
    pub bytes: u64,
    /// Items whose time had run out.
    pub expired: u64,
    /// Items that did not fit: the least recently used.
    pub no_room: u64,
    /// Items above this server's size limit.
    pub too_large: u64,
    /// Items whose value went on in a block that is lost.
    pub incomplete: u64,
    /// Blocks that were damaged or missing.
    pub blocks_lost: u64,
    /// Bytes that belonged to no block.
    pub bytes_skipped: u64,
    /// The file was not written to its end.
    pub is_cut: bool,
    /// The log's first segment that is newer.
    pub segment: u64,
    /// How long it took.
    pub time: Duration,
}

impl Loaded {
    fn add(&mut self, other: &Loaded) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.expired += other.expired;
        self.no_room += other.no_room;
        self.too_large += other.too_large;
        self.incomplete += other.incomplete;
        self.blocks_lost += other.blocks_lost;
    }
}

/// Loads the snapshot, if there is one. The inner error says why it is none, or cannot be read.
pub fn load(
    files: &Files,
    cache: &Cache,
    clock: &Clock,
    threads: usize,
) -> Result<Option<Loaded>, String> {
    let told = |reason: &dyn std::fmt::Display| format!("{}: {reason}", files.path().display());
    let file = match files.open() {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(None),
        Err(error) => return Err(told(&error)),
    };
    match load_file(&file, cache, clock, threads) {
        Ok(Ok(loaded)) => Ok(Some(loaded)),
        Ok(Err(reason)) => Err(told(&reason)),
        Err(error) => Err(told(&error)),
    }
}

fn open(file: &Shared) -> io::Result<Result<Reader<Shared>, snapshot_file::NotOurs>> {
    Reader::open(file.clone(), FileKind::Snapshot)
}

fn load_file(
    file: &Shared,
    cache: &Cache,
    clock: &Clock,
    threads: usize,
) -> io::Result<Result<Loaded, snapshot_file::NotOurs>> {
    let began = Instant::now();
    let mut reader = match open(file)? {
        Ok(reader) => reader,
        Err(reason) => return Ok(Err(reason)),
    };
    let (mut blocks, mut items, mut raw_bytes, mut cas_last) = (Vec::new(), 0, 0, 0);
    while let Some(found) = reader.find()? {
        items += u64::from(found.head.count);
        raw_bytes += u64::from(found.head.raw_len);
        cas_last = cas_last.max(found.head.cas_last);
        if found.head.kind == BlockKind::Records {
            blocks.push(found);
        }
    }
    let head = reader.head();
    let mut loaded = Loaded {
        blocks_lost: reader.tally.lost,
        bytes_skipped: reader.tally.skipped_bytes,
        is_cut: !reader.tally.is_whole,
        segment: head.segment,
        ..Loaded::default()
    };
    // Before anything is stored: the count is also the clock of stores.
    cache.pass_cas(cas_last.saturating_add(CAS_GAP).min(u64::MAX / 2));
    blocks.sort_by_key(|found| (unix(&found.head, found.head.newest), found.at));
    let room = cache.limit_bytes() as u64 / 100 * FILLED_PERCENT;
    let since = if raw_bytes > room {
        earliest_that_fits(&mut reader, &blocks, room, clock)?
    } else {
        i64::MIN
    };
    cache.expect(items, raw_bytes);
    let next = AtomicUsize::new(0);
    let sum = Mutex::new(io::Result::Ok(Loaded::default()));
    let work = || -> io::Result<Loaded> {
        let mut reader = match open(file)? {
            Ok(reader) => reader,
            Err(reason) => return Err(io::Error::other(reason.to_string())),
        };
        let mut loader = Loader::new(cache, clock, since);
        let mut block = Block::default();
        while let Some(found) = blocks.get(next.fetch_add(1, Relaxed)) {
            load_block(&mut reader, found, &mut block, &mut loader)?;
        }
        loader.loaded.blocks_lost += reader.tally.lost;
        Ok(loader.loaded)
    };
    std::thread::scope(|scope| {
        let run = || {
            let done = work();
            let mut sum = sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match (&mut *sum, done) {
                (Ok(sum), Ok(done)) => sum.add(&done),
                (Ok(_), Err(error)) => *sum = Err(error),
                (Err(_), _) => {}
            }
        };
        for _ in 1..threads.clamp(1, THREADS_MAX).min(blocks.len().max(1)) {
            scope.spawn(run);
        }
        run();
    });
    cache.expect_no_more();
    let sum = sum
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner())?;
    loaded.add(&sum);
    if let Ok(due) = i64::try_from(head.flush_due_unix_s)
        && due > 0
    {
        let due = rel(due, clock);
        cache.flush_at(due, At::new(clock.now()));
    }
    loaded.time = began.elapsed();
    Ok(Ok(loaded))
}

/// Loads a block, and those that its last value goes on in.
fn load_block(
    reader: &mut Reader<Shared>,
    found: &Found,
    block: &mut Block,
    loader: &mut Loader<'_>,
) -> io::Result<()> {
    if !reader.read(found, block)? {
        return Ok(());
    }
    loader.block(block, &found.head);
    let mut behind = *found;
    while loader.is_open() {
        match reader.find_at(behind.end(), behind.head.nth + 1)? {
            Some(next) if next.head.kind == BlockKind::Continued => behind = next,
            _ => break,
        }
        if !reader.read(&behind, block)? {
            break;
        }
        loader.block(block, &behind.head);
    }
    loader.close();
    Ok(())
}

/// A moment of a record in seconds since 1970.
fn unix(head: &BlockHead, time: u32) -> i64 {
    head.epoch_unix_s.saturating_add(time.into())
}

/// A moment on this server's clock; what lies before its beginning is the beginning.
fn rel(unix_s: i64, clock: &Clock) -> RelTime {
    let time = unix_s.saturating_sub(clock.unix(RelTime(0)));
    RelTime(time.clamp(0, u32::MAX.into()) as u32)
}

/// The earliest last access of the items that are loaded, if all from there on are to fit.
fn earliest_that_fits(
    reader: &mut Reader<Shared>,
    blocks: &[Found],
    room: u64,
    clock: &Clock,
) -> io::Result<i64> {
    let now_unix = clock.unix(clock.now());
    let mut bytes_by_access: BTreeMap<i64, u64> = BTreeMap::new();
    let mut block = Block::default();
    for found in blocks {
        if !reader.read(found, &mut block)? {
            continue;
        }
        for record in block.records() {
            if let Record::Item {
                key,
                meta,
                value_len,
                ..
            } = record
                && (meta.expires_at == 0 || unix(&found.head, meta.expires_at) > now_unix)
            {
                let bytes = snapshot_file::RECORD_BYTES + key.len() + value_len as usize;
                let accessed = unix(&found.head, meta.accessed_at);
                *bytes_by_access.entry(accessed).or_default() += bytes as u64;
            }
        }
    }
    let mut sum = 0u64;
    for (&accessed, &bytes) in bytes_by_access.iter().rev() {
        sum = sum.saturating_add(bytes);
        if sum > room {
            return Ok(accessed);
        }
    }
    Ok(i64::MIN)
}

/// Puts records into the cache.
pub(super) struct Loader<'c> {
    cache: &'c Cache,
    clock: &'c Clock,
    now: RelTime,
    /// Items whose last access is earlier are left out.
    since_unix: i64,
    /// An item whose value is not complete yet.
    open: Option<Open<'c>>,
    pub(super) loaded: Loaded,
}

struct Open<'c> {
    item: NewItem<'c>,
    key: Vec<u8>,
    saved: Saved<'static>,
    /// Bytes of the value so far.
    len: u32,
}

impl<'c> Loader<'c> {
    pub(super) fn new(cache: &'c Cache, clock: &'c Clock, since_unix: i64) -> Self {
        Loader {
            cache,
            clock,
            now: clock.now(),
            since_unix,
            open: None,
            loaded: Loaded::default(),
        }
    }

    /// True if a value is not complete.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Gives up a value that is not complete.
    pub(super) fn close(&mut self) {
        self.loaded.incomplete += u64::from(self.open.take().is_some());
    }

    /// Puts in the items of a block, and changes those that it says were changed.
    pub(super) fn block(&mut self, block: &Block, head: &BlockHead) {
        let mut ahead = [Ahead::default(); AHEAD];
        let mut coming = block.records();
        let mut records = block.records();
        loop {
            let mut count = 0;
            for (place, record) in ahead.iter_mut().zip(coming.by_ref()) {
                if let Record::Item { key, .. } = record {
                    *place = self.cache.look_ahead(key, false);
                }
                count += 1;
            }
            if count == 0 {
                return;
            }
            for (place, record) in ahead.iter().zip(records.by_ref().take(count)) {
                self.record(&record, head, place);
            }
        }
    }

    fn record(&mut self, record: &Record<'_>, head: &BlockHead, ahead: &Ahead) {
        match *record {
            Record::Item {
                key,
                meta,
                value_len,
                value,
            } => {
                self.close();
                self.item(key, &meta, (value_len, value), head, ahead);
            }
            Record::Part { offset, value } => self.part(offset, value),
            Record::Delete { key, .. } => {
                let at = At::new(self.now);
                self.cache.entry(self.cache.sought(key), at).remove();
            }
            Record::Touch { key, meta } => {
                let at = At::new(self.now);
                match self.saved(key, &meta, 0, head) {
                    Some(saved) => self.cache.change_saved(&saved, at),
                    // It has ended since.
                    None => self.cache.entry(self.cache.sought(key), at).remove(),
                }
            }
            Record::Flush { at: 0 } => self.cache.unlink_all(),
            Record::Flush { at } => {
                let due = rel(unix(head, at), self.clock);
                self.cache.flush_at(due, At::new(self.now));
            }
        }
    }

    fn item(
        &mut self,
        key: &[u8],
        meta: &Meta,
        (value_len, value): (u32, &[u8]),
        head: &BlockHead,
        ahead: &Ahead,
    ) {
        use crate::cache::AllocError;
        if unix(head, meta.accessed_at) < self.since_unix {
            self.loaded.no_room += 1;
            return;
        }
        let at = At::new(self.now);
        let Some(saved) = self.saved(key, meta, value_len, head) else {
            self.loaded.expired += 1;
            // What was there before is no longer the key's value.
            self.cache.entry(ahead.probe().of(key), at).remove();
            return;
        };
        let mut item = match self.cache.begin_saved(&saved, at) {
            Ok(item) => item,
            Err(error) => {
                match error {
                    AllocError::TooLarge => self.loaded.too_large += 1,
                    AllocError::OutOfMemory => self.loaded.no_room += 1,
                }
                self.cache.entry(ahead.probe().of(key), at).remove();
                return;
            }
        };
        item.write(value);
        if value.len() < value_len as usize {
            self.open = Some(Open {
                item,
                key: key.to_vec(),
                saved: Saved {
                    spec: ItemSpec {
                        key: b"",
                        ..saved.spec
                    },
                    ..saved
                },
                len: value.len() as u32,
            });
            return;
        }
        self.cache.put_saved(item, &saved, ahead.probe(), at);
        self.count(key.len(), value_len);
    }

    fn part(&mut self, offset: u32, value: &[u8]) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        let whole = open.saved.spec.value_len;
        if offset != open.len || value.len() > (whole - open.len) as usize {
            self.loaded.incomplete += 1;
            return;
        }
        open.item.write(value);
        open.len += value.len() as u32;
        if open.len < whole {
            self.open = Some(open);
            return;
        }
        let saved = Saved {
            spec: ItemSpec {
                key: &open.key,
                ..open.saved.spec
            },
            ..open.saved
        };
        let probe = self.cache.probe(&open.key);
        self.cache
            .put_saved(open.item, &saved, probe, At::new(self.now));
        self.count(open.key.len(), whole);
    }

    fn count(&mut self, key_len: usize, value_len: u32) {
        self.loaded.items += 1;
        self.loaded.bytes += key_len as u64 + u64::from(value_len);
    }

    /// The item as this server has it; none if its time has run out.
    fn saved<'k>(
        &self,
        key: &'k [u8],
        meta: &Meta,
        value_len: u32,
        head: &BlockHead,
    ) -> Option<Saved<'k>> {
        let expires_at = match meta.expires_at {
            0 => RelTime::NEVER,
            at => {
                let at = rel(unix(head, at), self.clock);
                if at <= self.now {
                    return None;
                }
                at
            }
        };
        let marks = meta.marks;
        Some(Saved {
            spec: ItemSpec {
                key,
                key_binary: marks.has(Marks::KEY_BINARY),
                client_flags: meta.client_flags,
                expires_at,
                value_len,
            },
            cas: meta.cas,
            accessed_at: rel(unix(head, meta.accessed_at), self.clock).min(self.now),
            is_fetched: marks.has(Marks::FETCHED),
            is_stale: marks.has(Marks::STALE),
            is_win_sent: marks.has(Marks::WIN_SENT),
            segment: match Segment::ALL[usize::from(marks.segment())] {
                // Which items are short-lived is this server's to say.
                Segment::Temp => None,
                segment => Some(segment),
            },
            uses: marks.uses(),
        })
    }
}
