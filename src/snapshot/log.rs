//! The log: what happened to items since a snapshot began, in segments.
//!
//! ```text
//!  LOG.3 [End]   LOG.4 [End]   LOG.5 ..          a snapshot begins: LOG.5 is begun; it is in place: LOG.3 and LOG.4 go
//!                              ^ one block a commit: all that all workers have told so far
//! ```
//!
//! A worker commits before the replies of its turn leave (`events::Settle`): it writes what all rings hold with one
//! `write`, so that those who waited meanwhile find their events written. So a process that is killed loses nothing that
//! was acknowledged, as the page cache has it. A `write` and no mapping of the file: where the disk is full it is an error, and no
//! signal in the middle of a store.
//!
//! Lg1. Blocks are in the order of each key's events (Ev3), and a segment's blocks are numbered without a gap.
//! Lg2. All but the last segment end with an End block. Of the last one a torn tail is dropped: it was not acknowledged.
//! Lg3. After an error nothing more is written to a segment, and nobody tells events any more, until a snapshot begins the next
//!     one. That one says that it follows a gap: what was loaded before it is dropped when it is replayed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use snapshot_file::{Block, BlockKind, FileHead, FileKind, Reader, Stamp, Writer};

use super::files::Shared as SharedFile;
use super::load::Loader;
use crate::cache::Cache;
use crate::clock::{Clock, RelTime};
use crate::events::{Audience, Drained};
use crate::settings::LogSync;
use crate::state::{LogReport, Settle, Shared};
use crate::sys;

/// The least that makes a segment long, in bytes.
const SEGMENT_BYTES_MIN: u64 = 64 << 20;
/// How often it is synced with `log_sync=second`.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The files of a log: its name, a point, and a number.
#[derive(Debug, Clone)]
pub struct Segments {
    path: PathBuf,
}

impl Segments {
    /// The segments of the log at `path`.
    pub fn at(path: &Path) -> Self {
        Segments { path: path.into() }
    }

    fn name(&self, number: u64) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }

    /// The numbers of those there are, in order.
    pub fn numbers(&self) -> io::Result<Vec<u64>> {
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let file = self.path.file_name().unwrap_or_default();
        let mut numbers = Vec::new();
        for entry in fs::read_dir(dir.unwrap_or(Path::new(".")))? {
            let name = entry?.file_name();
            let number: Option<u64> = name
                .as_encoded_bytes()
                .strip_prefix(file.as_encoded_bytes())
                .and_then(|rest| rest.strip_prefix(b"."))
                .and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes those below `number`.
    pub fn remove_below(&self, number: u64) -> io::Result<()> {
        for older in self.numbers()?.into_iter().take_while(|&at| at < number) {
            fs::remove_file(self.name(older))?;
        }
        Ok(())
    }

    /// Makes a segment that is none yet: its name is that of none.
    fn prepare(&self, number: u64, follows_gap: bool, clock: &Clock) -> io::Result<Segment> {
        let path = self.new_name();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = Arc::new(sys::create_private(&path)?);
        let head = FileHead {
            kind: FileKind::Log,
            segment: number,
            created_unix_s: u64::try_from(clock.unix(clock.now())).unwrap_or_default(),
            flush_due_unix_s: 0,
            follows_gap,
        };
        let writer = Writer::begin(ToFile(file.clone()), &head, false)?;
        file.sync_all()?;
        Ok(Segment {
            follows_gap,
            file,
            writer,
        })
    }

    /// Gives what was prepared its name.
    fn adopt(&self, number: u64) -> io::Result<()> {
        fs::rename(self.new_name(), self.name(number))
    }

    /// Whether a segment that is open elsewhere is one of these.
    pub fn is_of(&self, segment: &OpenSegment) -> bool {
        use std::os::unix::fs::MetadataExt;
        let named = fs::symlink_metadata(self.name(segment.number));
        let same = |named: &fs::Metadata, open: &fs::Metadata| {
            (named.dev(), named.ino()) == (open.dev(), open.ino())
        };
        named
            .ok()
            .zip(segment.file.metadata().ok())
            .is_some_and(|(named, open)| same(&named, &open))
    }

    fn new_name(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        name.into()
    }
}

/// The log's segment that is written to, as it is left to another process.
#[derive(Debug)]
pub struct OpenSegment {
    /// Its number.
    pub number: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Blocks in it.
    pub blocks: u64,
    /// As its head says.
    pub follows_gap: bool,
    /// The file, at its end.
    pub file: File,
}

/// A file that is written to through a shared handle.
#[derive(Debug)]
struct ToFile(Arc<File>);

impl io::Write for ToFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        (&*self.0).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The segment that is written to.
#[derive(Debug)]
struct Segment {
    /// As its head says.
    follows_gap: bool,
    file: Arc<File>,
    writer: Writer<ToFile>,
}

#[derive(Debug)]
struct Writing {
    /// None after an error (Lg3).
    segment: Option<Segment>,
    /// The number of the segment to come.
    next: u64,
    drained: Drained,
    report: LogReport,
    /// Something was written that is not synced yet.
    is_dirty: bool,
    synced_at: Instant,
}

/// The log of a server.
#[derive(Debug)]
pub struct Log {
    segments: Segments,
    sync: LogSync,
    writing: Mutex<Writing>,
    /// Bytes of a segment from which on a snapshot is asked for.
    segment_bytes_max: u64,
}

impl Log {
    /// Begins segment `next`, behind those that were replayed, or after a gap.
    pub(super) fn begin(
        segments: Segments,
        sync: LogSync,
        next: u64,
        follows_gap: bool,
        shared: &Shared,
    ) -> io::Result<Self> {
        let segment = segments.prepare(next, follows_gap, &shared.clock)?;
        segments.adopt(next)?;
        sys::sync_directory_of(&segments.path)?;
        shared.cache.events().listen(Audience::LOG, true);
        Ok(Log {
            segments,
            sync,
            writing: Mutex::new(Writing {
                next: next + 1,
                report: LogReport {
                    is_on: true,
                    segment: next,
                    ..LogReport::default()
                },
                segment: Some(segment),
                drained: Drained::default(),
                is_dirty: false,
                synced_at: Instant::now(),
            }),
            segment_bytes_max: (shared.cache.limit_bytes() as u64).max(SEGMENT_BYTES_MIN),
        })
    }

    /// Goes on in a segment that another process has left, as if it were the same.
    pub(super) fn go_on(
        segments: Segments,
        sync: LogSync,
        left: OpenSegment,
        shared: &Shared,
    ) -> Self {
        let file = Arc::new(left.file);
        shared.cache.events().listen(Audience::LOG, true);
        Log {
            segments,
            sync,
            writing: Mutex::new(Writing {
                next: left.number + 1,
                report: LogReport {
                    is_on: true,
                    segment: left.number,
                    segment_bytes: left.bytes,
                    ..LogReport::default()
                },
                segment: Some(Segment {
                    follows_gap: left.follows_gap,
                    writer: Writer::go_on(ToFile(file.clone()), left.bytes, left.blocks),
                    file,
                }),
                drained: Drained::default(),
                is_dirty: true,
                synced_at: Instant::now(),
            }),
            segment_bytes_max: (shared.cache.limit_bytes() as u64).max(SEGMENT_BYTES_MIN),
        }
    }

    /// Writes all that was told, when nobody tells any more, and says where another process can go on; none if it is off.
    pub(super) fn leave(&self, shared: &Shared) -> Option<OpenSegment> {
        let mut writing = self.writing.lock();
        writing.write(shared, self.sync);
        let number = writing.report.segment;
        let segment = writing.segment.as_ref()?;
        Some(OpenSegment {
            number,
            bytes: segment.writer.bytes(),
            blocks: segment.writer.blocks(),
            follows_gap: segment.follows_gap,
            file: segment.file.try_clone().ok()?,
        })
    }

    /// Has events told again in a cache that goes on with that of before.
    pub fn listen_in(&self, shared: &Shared) {
        let is_on = self.writing.lock().segment.is_some();
        shared.cache.events().listen(Audience::LOG, is_on);
    }

    /// Begins another segment, for a snapshot that is about to begin; gives its number. Workers wait no longer than for what
    /// was written since a moment ago to be synced.
    pub(super) fn cut(&self, shared: &Shared) -> io::Result<u64> {
        let events = shared.cache.events();
        // Nobody but the caller begins segments.
        let (before, next) = {
            let writing = self.writing.lock();
            let file = writing.segment.as_ref().map(|segment| segment.file.clone());
            (file, writing.next)
        };
        let new = self
            .segments
            .prepare(next, before.is_none(), &shared.clock)?;
        if let Some(before) = before {
            before.sync_data()?;
        }
        let mut writing = self.writing.lock();
        // Where it was off: what is not told from now on, the snapshot will see.
        events.listen(Audience::LOG, true);
        writing.write(shared, self.sync);
        if let Some(segment) = writing.segment.take() {
            let ended = segment.writer.end(stamp(shared));
            if let Err(error) = ended.and_then(|file| file.0.sync_data()) {
                writing.stop(&error, shared);
                return Err(error);
            }
        } else if !new.follows_gap {
            // It was stopped a moment ago, and the new one does not say so.
            let error = io::Error::other("the log was stopped meanwhile");
            writing.stop(&error, shared);
            return Err(error);
        }
        if let Err(error) = self.segments.adopt(next) {
            writing.stop(&error, shared);
            return Err(error);
        }
        writing.segment = Some(new);
        writing.next += 1;
        writing.report.is_on = true;
        writing.report.segment = next;
        writing.report.segment_bytes = 0;
        writing.report.last_error.clear();
        if self.sync == LogSync::Always {
            sys::sync_directory_of(&self.segments.path)?;
        }
        drop(writing);
        sys::sync_directory_of(&self.segments.path)?;
        Ok(next)
    }

    /// Removes the segments that a snapshot has taken the place of.
    pub(super) fn remove_below(&self, number: u64) -> io::Result<()> {
        self.segments.remove_below(number)
    }

    /// Writes what nobody waits for, and syncs once a second; to be called some times a second.
    pub fn tick(&self, shared: &Shared) {
        let mut writing = self.writing.lock();
        writing.write(shared, self.sync);
        let is_due = writing.is_dirty
            && self.sync == LogSync::Second
            && writing.synced_at.elapsed() >= SYNC_EVERY;
        let file = writing
            .segment
            .as_ref()
            .filter(|_| is_due)
            .map(|segment| segment.file.clone());
        let is_long = writing.report.segment_bytes > self.segment_bytes_max;
        if file.is_some() {
            writing.is_dirty = false;
            writing.synced_at = Instant::now();
        }
        drop(writing);
        if is_long {
            // Where one is being written already, its turn comes again.
            let _ = shared.saving.ask();
        }
        // Nobody waits for this one.
        if let Some(file) = file {
            let synced = file.sync_data();
            let mut writing = self.writing.lock();
            writing.report.syncs += 1;
            if let Err(error) = synced {
                writing.stop(&error, shared);
            }
        }
    }

    /// Writes and syncs all that was told, when nobody tells any more.
    pub fn finish(&self, shared: &Shared) {
        let mut writing = self.writing.lock();
        writing.write(shared, self.sync);
        if let Some(segment) = &writing.segment
            && let Err(error) = segment.file.sync_all()
        {
            writing.stop(&error, shared);
        }
    }
}

impl Settle for Log {
    fn settle(&self, shared: &Shared) {
        // Who held the lock meanwhile has written what this thread has told.
        self.writing.lock().write(shared, self.sync);
    }

    fn report(&self) -> LogReport {
        self.writing.lock().report.clone()
    }
}

impl Writing {
    fn write(&mut self, shared: &Shared, sync: LogSync) {
        if !shared.cache.events().drain_log(&mut self.drained) {
            return;
        }
        let Some(segment) = &mut self.segment else {
            return;
        };
        let before = segment.writer.bytes();
        let mut written = segment
            .writer
            .records(self.drained.records(), stamp(shared));
        let bytes = segment.writer.bytes() - before;
        if sync == LogSync::Always && written.is_ok() {
            written = segment.file.sync_data();
            self.report.syncs += 1;
        }
        self.drained.shrink();
        self.report.commits += 1;
        self.report.bytes += bytes;
        self.report.segment_bytes += bytes;
        self.is_dirty = true;
        if let Err(error) = written {
            self.stop(&error, shared);
        }
    }

    /// Writes no more (Lg3).
    fn stop(&mut self, error: &io::Error, shared: &Shared) {
        shared.cache.events().listen(Audience::LOG, false);
        self.segment = None;
        self.report.is_on = false;
        self.report.stops += 1;
        self.report.last_error = error.to_string();
        log::error!(
            "-o log: {error}: nothing more is logged until a snapshot can be written; the cache goes on"
        );
    }
}

fn stamp(shared: &Shared) -> Stamp {
    Stamp {
        epoch_unix_s: shared.clock.unix(RelTime(0)),
        cas_last: shared.cache.last_cas(),
    }
}

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
    cache: &Cache,
    clock: &Clock,
) -> Result<Replayed, String> {
    let began = Instant::now();
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
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
        self.done.torn_bytes = reader.file_bytes() - end;
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
