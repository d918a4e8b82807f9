//! Replays a log over what a snapshot has left.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use snapshot_file::{Block, BlockKind, FileKind, Reader, Stamp, Writer};

use super::files::Shared as SharedFile;
use super::load::{CAS_GAP, Loader};
use super::ring_file;
use super::segments::Segments;
use crate::cache::Cache;
use crate::state::Shared;
use crate::sys;

/// What came of replaying a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Segments replayed.
    pub segments: u64,
    /// Events.
    pub events: u64,
    /// Places where events are missing: all that was loaded before one is dropped.
    pub gaps: u64,
    /// Items that were dropped for it.
    pub dropped: u64,
    /// Bytes at the end of the last segment that are no whole block.
    pub torn_bytes: u64,
    /// The number of the segment to come.
    pub next: u64,
    /// How long it took.
    pub time: Duration,
}

/// Replays the segments from `first` on, or all there are, over what is in the cache. The error is one line.
pub(super) fn replay(
    segments: &Segments,
    first: Option<u64>,
    shared: &Shared,
) -> Result<Replayed, String> {
    let began = Instant::now();
    let (cache, clock) = (&shared.cache, &shared.clock);
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let torn_bytes = ring_file::move_left(segments, shared)
        .map_err(|error| told(&segments.ring_name(), error))?;
    let all = segments
        .numbers()
        .map_err(|error| told(&segments.path, error))?;
    let last = all.last().copied();
    let mut replay = Replay {
        cache,
        loader: Loader::new(cache, clock, i64::MIN),
        done: Replayed {
            next: last
                .map_or(0, |last| last.saturating_add(1))
                .max(first.unwrap_or(1)),
            torn_bytes,
            ..Replayed::default()
        },
        block: Block::default(),
    };
    let mut expected = first;
    for number in all {
        if first.is_some_and(|first| number < first) {
            continue;
        }
        if expected.is_some_and(|expected| expected != number) {
            replay.gap();
        }
        expected = Some(number + 1);
        let path = segments.name(number);
        replay
            .segment(&path, Some(number) == first, Some(number) == last)
            .map_err(|error| told(&path, error))?;
    }
    if last.is_none()
        && let Some(first) = first
    {
        // The segment that the snapshot begins is gone. The next one has another number, so that whoever starts behind this server
        // finds the gap too.
        replay.gap();
        replay.done.next = first.saturating_add(1);
    }
    replay.done.time = began.elapsed();
    Ok(replay.done)
}

struct Replay<'c> {
    cache: &'c Cache,
    loader: Loader<'c>,
    done: Replayed,
    block: Block,
}

impl Replay<'_> {
    /// Events are missing: what was loaded so far may be older than what they said.
    fn gap(&mut self) {
        self.loader.close();
        self.done.gaps += 1;
        self.done.dropped += self.cache.table_shape().items as u64;
        self.cache.unlink_all();
        // Nor do uniques come again that were in them.
        let passed = self.cache.last_cas().saturating_add(CAS_GAP);
        self.cache.pass_cas(passed.min(u64::MAX / 2));
    }

    /// `is_base`: it begins where the snapshot does, which has all that happened before.
    fn segment(&mut self, path: &Path, is_base: bool, is_last: bool) -> io::Result<()> {
        let file = SharedFile::of(sys::open_plain(path)?);
        let mut reader = match Reader::open(file, FileKind::Log)? {
            Ok(reader) => reader,
            Err(snapshot_file::NotOurs::Short) if is_last => {
                // Its making was cut short, so nothing was ever written to it.
                return fs::remove_file(path);
            }
            Err(_) => {
                self.gap();
                return Ok(());
            }
        };
        if reader.head().follows_gap && !is_base {
            self.gap();
        }
        self.done.segments += 1;
        let (mut end, mut blocks, mut cas_last) = (snapshot_file::HEAD_BYTES as u64, 0, 0);
        while let Some(found) = reader.find()? {
            if !reader.read(&found, &mut self.block)? {
                continue;
            }
            if found.head.nth != blocks {
                self.gap();
            }
            if found.head.kind == BlockKind::Records {
                self.loader.close();
            }
            self.loader.block(&self.block, &found.head);
            self.done.events += u64::from(found.head.count);
            (end, blocks) = (found.end(), found.head.nth + 1);
            cas_last = found.head.cas_last;
        }
        self.cache.pass_cas(cas_last.min(u64::MAX / 2));
        if reader.tally.is_whole {
            if reader.blocks_up_to_there() != blocks + 1 {
                self.gap();
            }
            return Ok(());
        }
        if !is_last {
            self.gap();
            return Ok(());
        }
        // A value of which the rest is torn was not acknowledged.
        self.loader.close();
        self.done.torn_bytes += reader.file_bytes() - end;
        finish(path, end, blocks, cas_last)
    }
}

/// Cuts the last segment behind its last whole block, and ends it.
fn finish(path: &Path, end: u64, blocks: u64, cas_last: u64) -> io::Result<()> {
    let file = sys::open_plain_to_write(path)?;
    file.set_len(end)?;
    let mut to = &file;
    io::Seek::seek(&mut to, io::SeekFrom::End(0))?;
    let stamp = Stamp {
        epoch_unix_s: 0,
        cas_last,
    };
    Writer::go_on(to, end, blocks).end(stamp)?;
    file.sync_all()
}
