//! The log: what happened to items since a snapshot began, in segments.
//!
//! ```text
//!  LOG.3 [End]   LOG.4 [End]   LOG.5 ..          a snapshot begins: LOG.5 is begun; it is in place: LOG.3 and LOG.4 go
//!                              ^ one block a move: all that all workers have told so far
//! ```
//!
//! What is told goes to a ring in LOG.ring first, a file whose pages are mapped and stay in memory: a copy, and it is in the page
//! cache, so that a process that is killed loses nothing that was acknowledged. A thread moves it to the segment in large writes, when
//! a ring is half full or a tenth of a second has passed. What finds no room in its ring waits in memory, and whoever told it
//! writes all that was told before the replies of the turn leave (`state::Settle`). So does everybody with `log_sync=always`, and
//! where there can be no ring. Segments are written to and never mapped: where the disk is full that is an error, and no signal in
//! the middle of a store.
//!
//! Lg1. Blocks are in the order of each key's events (Ev3), and a segment's blocks are numbered without a gap.
//! Lg2. All but the last segment end with an End block. Of the last one a torn tail is dropped: it was not acknowledged.
//! Lg3. After an error nothing more is written to a segment, and nobody tells events any more, until a snapshot begins the next
//!     one. That one says that it follows a gap: what was loaded before it is dropped when it is replayed.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use snapshot_file::Writer;

use super::ring_file::{self, RingFile};
use super::segments::{OpenSegment, Segment, Segments, ToFile, stamp};
use crate::events::{Audience, Drained};
use crate::settings::LogSync;
use crate::state::{LogReport, Settle, Shared};
use crate::sys;

/// How often what lies in the rings is moved on, at least.
const MOVE_EVERY: Duration = Duration::from_millis(100);
/// The least that makes a segment long, in bytes.
const SEGMENT_BYTES_MIN: u64 = 64 << 20;
/// How often it is synced with `log_sync=second`.
const SYNC_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Writing {
    /// None after an error (Lg3).
    segment: Option<Segment>,
    /// The number of the segment to come.
    next: u64,
    /// None if there can be none.
    rings: Option<RingFile>,
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
        let last = ring_file::number(next, 0);
        let (rings, drained) = ring_file::listen(&segments, sync, last, shared);
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
                rings,
                drained,
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
        let last = ring_file::number(left.number, left.events);
        let (rings, drained) = ring_file::listen(&segments, sync, last, shared);
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
                rings,
                drained,
                is_dirty: true,
                synced_at: Instant::now(),
            }),
            segment_bytes_max: (shared.cache.limit_bytes() as u64).max(SEGMENT_BYTES_MIN),
        }
    }

    /// Writes all that was told, when nobody tells any more, and says where another process can go on; none if it is off.
    pub(super) fn leave(&self, shared: &Shared) -> Option<OpenSegment> {
        let mut writing = self.writing.lock();
        writing.write(shared, self.sync, None);
        let number = writing.report.segment;
        let events = ring_file::events_of(writing.drained.last());
        let segment = writing.segment.as_ref()?;
        Some(OpenSegment {
            number,
            bytes: segment.writer.bytes(),
            blocks: segment.writer.blocks(),
            events,
            follows_gap: segment.follows_gap,
            file: segment.file.try_clone().ok()?,
        })
    }

    /// Has events told again in a cache that goes on with that of before.
    pub fn listen_in(&self, shared: &Shared) {
        let mut writing = self.writing.lock();
        let last = writing.drained.last();
        (writing.rings, writing.drained) =
            ring_file::listen(&self.segments, self.sync, last, shared);
        let is_on = writing.segment.is_some();
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
        writing.write(shared, self.sync, Some(ring_file::number(next, 0)));
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

    /// Moves on what lies in the rings, until no more is to be.
    pub fn run(&self, shared: &Shared, ends: &dyn Fn() -> bool) {
        shared.cache.events().moves_log();
        loop {
            self.tick(shared);
            if ends() {
                return;
            }
            thread::park_timeout(MOVE_EVERY);
        }
    }

    /// Writes what nobody waits for, and syncs once a second.
    fn tick(&self, shared: &Shared) {
        let mut writing = self.writing.lock();
        writing.write(shared, self.sync, None);
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
        writing.write(shared, self.sync, None);
        if let Some(segment) = &writing.segment {
            match segment.file.sync_all() {
                Ok(()) => ring_file::remove(&self.segments),
                Err(error) => writing.stop(&error, shared),
            }
        }
    }
}

impl Settle for Log {
    fn settle(&self, shared: &Shared) {
        // Who held the lock meanwhile has written what this thread has told.
        self.writing.lock().write(shared, self.sync, None);
    }

    fn report(&self) -> LogReport {
        self.writing.lock().report.clone()
    }
}

impl Writing {
    /// Writes all that was told. What is told afterwards is numbered from behind `renumber`, if that is given.
    fn write(&mut self, shared: &Shared, sync: LogSync, renumber: Option<u64>) {
        let events = shared.cache.events();
        let Some(segment) = &mut self.segment else {
            // What was told before the error stays in the rings, for who comes after a crash, until a segment begins without it.
            if renumber.is_some() {
                events.drain_log(&mut self.drained, renumber);
                self.drained.done();
            }
            return;
        };
        if !events.drain_log(&mut self.drained, renumber) {
            return;
        }
        let (before, stamp) = (segment.writer.bytes(), stamp(shared));
        let mut written = segment.writer.records(self.drained.records(), stamp);
        let bytes = segment.writer.bytes() - before;
        if sync == LogSync::Always && written.is_ok() {
            written = segment.file.sync_data();
            self.report.syncs += 1;
        }
        if written.is_ok() {
            let last = self.drained.last();
            self.drained.done();
            if let Some(rings) = &mut self.rings {
                written = rings.moved(last, stamp.epoch_unix_s);
            }
        }
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
