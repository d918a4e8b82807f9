//! Who takes snapshots, and when: every interval, when one is asked for, and at the end.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::files::{Files, Locked};
use super::load::{self, Loaded};
use super::log::Log;
use super::replay::{self, Replayed};
use super::segments::{OpenSegment, Segments};
use super::take::{self, Manner, Taken};
use crate::settings::{LogSync, Settings};
use crate::state::{Carried, Figure, Shared};

/// Keeps the cache in a file.
#[derive(Debug)]
pub struct Keeper {
    files: Files,
    locks: [Option<Locked>; 2],
    interval: Option<Duration>,
    manner: Manner,
    /// The log's files, if there is to be one.
    segments: Option<(Segments, LogSync)>,
    log: OnceLock<Arc<Log>>,
}

/// What a snapshot says that no log belongs to: none of what lies there is newer.
const NO_SEGMENT: u64 = u64::MAX;

impl Keeper {
    /// One for the file of the settings, if they name one. To be called when privileges are dropped. The error is one
    /// line: another server has the file, or nothing can be made where it is to be. Of the lock files that a
    /// server before shares, its own are `found`.
    pub fn open(
        settings: &Settings,
        found: &mut Vec<(PathBuf, File)>,
    ) -> Result<Option<Self>, String> {
        let Some(path) = &settings.snapshot.file else {
            return Ok(None);
        };
        let files = Files::at(path);
        let lock = files
            .lock(found)
            .map_err(|reason| format!("-o snapshot={reason}"))?;
        let log_lock = match &settings.log.file {
            Some(path) => Some(
                Files::at(path)
                    .lock(found)
                    .map_err(|reason| format!("-o log={reason}"))?,
            ),
            None => None,
        };
        Ok(Some(Keeper {
            files,
            locks: [Some(lock), log_lock],
            interval: match settings.snapshot.interval_s {
                0 => None,
                seconds => Some(Duration::from_secs(seconds.into())),
            },
            manner: Manner {
                rate_bytes: settings.snapshot.rate_bytes,
                compressed: settings.snapshot.compressed,
                makes_way: true,
                segment: NO_SEGMENT,
            },
            segments: settings
                .log
                .file
                .as_ref()
                .map(|path| (Segments::at(path), settings.log.sync)),
            log: OnceLock::new(),
        }))
    }

    /// Loads what an earlier server has kept, and tells of it. A snapshot that cannot be loaded stays where it is until the
    /// next one takes its place, and the cache is empty. The error is one line: the log cannot be read or begun.
    /// Where the cache `is_warm`, it is newer than all of this: nothing is loaded, and a snapshot is taken soon.
    pub fn load(&self, shared: &Shared, is_warm: bool) -> Result<Option<Arc<Log>>, String> {
        self.files.remove_new();
        if is_warm {
            shared
                .carried
                .tell([("snapshot", Figure::Text("not needed".into()))]);
            return self.begin_anew(shared);
        }
        let (cache, clock, carried) = (&shared.cache, &shared.clock, &shared.carried);
        let threads = shared.settings.threads;
        let mut first = None;
        match load::load(&self.files, cache, clock, threads) {
            Ok(None) => carried.tell([("snapshot", Figure::Text("none".into()))]),
            Ok(Some(loaded)) => {
                first = Some(loaded.segment);
                self.tell_loaded(&loaded);
                tell(carried, &loaded);
            }
            Err(reason) => {
                log::error!("-o snapshot={reason}: nothing of it is loaded");
                carried.tell([("snapshot", Figure::Text(reason))]);
            }
        }
        let Some((segments, sync)) = &self.segments else {
            return Ok(None);
        };
        let told = |reason: &dyn std::fmt::Display| format!("-o log: {reason}");
        let replayed = match first {
            Some(NO_SEGMENT) => {
                let next = segments.numbers().map_err(|error| told(&error))?;
                Replayed {
                    next: next.last().map_or(1, |last| last + 1),
                    ..Replayed::default()
                }
            }
            first => replay::replay(segments, first, shared).map_err(|reason| told(&reason))?,
        };
        if replayed.gaps > 0 {
            let (gaps, dropped) = (replayed.gaps, replayed.dropped);
            log::warn!(
                "-o log: events are missing in {gaps} places; {dropped} items from before are dropped, as they may be outdated"
            );
        }
        if replayed.torn_bytes > 0 {
            let torn = replayed.torn_bytes;
            log::warn!("-o log: its last {torn} bytes are torn, and left out");
        }
        tell_replayed(carried, &replayed);
        let log = Log::begin(segments.clone(), *sync, replayed.next, false, shared)
            .map_err(|error| told(&error))?;
        if first == Some(NO_SEGMENT)
            && let Err(error) = log.remove_below(replayed.next)
        {
            log::warn!("-o log: older files stay: {error}");
        }
        let log = Arc::new(log);
        let _ = self.log.set(log.clone());
        Ok(Some(log))
    }

    /// The lock files, for another process.
    pub fn share_locks(&self) -> io::Result<Vec<(PathBuf, File)>> {
        self.locks.iter().flatten().map(Locked::share).collect()
    }

    /// Goes on where a server before, which nobody else follows, has left off: in its segment of the log, if there is one, or in a
    /// new log with a snapshot to come.
    pub fn go_on(
        &self,
        shared: &Shared,
        segment: Option<OpenSegment>,
    ) -> Result<Option<Arc<Log>>, String> {
        let Some((segments, sync)) = &self.segments else {
            return Ok(None);
        };
        match segment.filter(|segment| segments.is_of(segment)) {
            Some(segment) => {
                let log = Arc::new(Log::go_on(segments.clone(), *sync, segment, shared));
                let _ = self.log.set(log.clone());
                Ok(Some(log))
            }
            None => self.begin_anew(shared),
        }
    }

    /// Where the log is, for another process; none if it is off.
    pub fn leave_log(&self, shared: &Shared) -> Option<OpenSegment> {
        self.log.get().and_then(|log| log.leave(shared))
    }

    /// The log, if there is one.
    pub fn log(&self) -> Option<&Arc<Log>> {
        self.log.get()
    }

    /// Begins a log over a cache that came from elsewhere, whose snapshot is yet to be taken.
    fn begin_anew(&self, shared: &Shared) -> Result<Option<Arc<Log>>, String> {
        let Some((segments, sync)) = &self.segments else {
            return Ok(None);
        };
        let told = |error: io::Error| format!("-o log: {error}");
        let next = segments.numbers().map_err(told)?;
        let next = next.last().map_or(1, |last| last + 1);
        let log = Log::begin(segments.clone(), *sync, next, true, shared).map_err(told)?;
        let log = Arc::new(log);
        let _ = self.log.set(log.clone());
        // Without it what is in the cache now would be lost with the memory file.
        let _ = shared.saving.ask();
        Ok(Some(log))
    }

    fn tell_loaded(&self, loaded: &Loaded) {
        let path = self.files.path().display();
        let (items, seconds) = (loaded.items, loaded.time.as_secs_f64());
        log::info!("{path}: {items} items loaded in {seconds:.3} s");
        if loaded.is_cut {
            log::warn!("{path}: it is cut, and loaded up to its last whole block");
        }
        if loaded.blocks_lost > 0 {
            let lost = loaded.blocks_lost;
            log::warn!("{path}: {lost} blocks are damaged or missing, and left out");
        }
        let (no_room, too_large) = (loaded.no_room, loaded.too_large);
        if no_room > 0 {
            log::warn!(
                "{path}: {no_room} items do not fit -m: those used least recently are left out"
            );
        }
        if too_large > 0 {
            log::warn!("{path}: {too_large} items are larger than -I allows, and left out");
        }
    }

    /// Takes snapshots as they come due, until no more are to be.
    pub fn run(&self, shared: &Shared) {
        let saving = &shared.saving;
        loop {
            let until = self.interval.map(|interval| Instant::now() + interval);
            if !saving.wait(until) {
                return;
            }
            self.take(shared, self.manner, &|| !saving.is_over());
        }
    }

    /// Takes the last one, when nobody stores any more: as fast as it goes.
    pub fn take_last(&self, shared: &Shared) {
        let manner = Manner {
            rate_bytes: 0,
            makes_way: false,
            ..self.manner
        };
        self.take(shared, manner, &|| true);
        if let Some(log) = self.log.get() {
            log.finish(shared);
        }
    }

    fn take(&self, shared: &Shared, manner: Manner, goes_on: &dyn Fn() -> bool) {
        let path = self.files.path().display();
        let (clock, saving) = (&shared.clock, &shared.saving);
        match self.try_take(shared, manner, goes_on) {
            Ok(Taken { items, bytes, time }) => {
                let seconds = time.as_secs_f64();
                log::info!("{path}: {items} items, {bytes} bytes written in {seconds:.3} s");
                saving.done(|report| {
                    report.written += 1;
                    report.last_unix_s = u64::try_from(clock.unix(clock.now())).unwrap_or_default();
                    report.last_items = items;
                    report.last_bytes = bytes;
                    report.last_time = time;
                    report.last_error.clear();
                });
            }
            Err(_) if !goes_on() => saving.done(|_| ()),
            Err(error) => {
                log::error!("{path}: no snapshot: {error}; the last one stays");
                saving.done(|report| {
                    report.failed += 1;
                    report.last_error = error.to_string();
                });
            }
        }
    }

    fn try_take(
        &self,
        shared: &Shared,
        mut manner: Manner,
        goes_on: &dyn Fn() -> bool,
    ) -> io::Result<Taken> {
        let log = self.log.get();
        if let Some(log) = log {
            manner.segment = log.cut(shared)?;
        }
        let (cache, clock) = (&shared.cache, &shared.clock);
        let taken = take::take(cache, clock, &self.files, manner, goes_on)?;
        if let Some(log) = log
            && let Err(error) = log.remove_below(manner.segment)
        {
            log::warn!("-o log: older files stay: {error}");
        }
        Ok(taken)
    }
}

fn tell_replayed(carried: &Carried, replayed: &Replayed) {
    carried.tell([
        ("log_segments", Figure::Count(replayed.segments)),
        ("log_events", Figure::Count(replayed.events)),
        ("log_gaps", Figure::Count(replayed.gaps)),
        ("log_dropped", Figure::Count(replayed.dropped)),
        ("log_torn_bytes", Figure::Bytes(replayed.torn_bytes)),
        ("log_time", Figure::Time(replayed.time)),
    ]);
}

fn tell(carried: &Carried, loaded: &Loaded) {
    carried.tell([
        ("snapshot", Figure::Text("loaded".into())),
        ("snapshot_items", Figure::Count(loaded.items)),
        ("snapshot_bytes", Figure::Bytes(loaded.bytes)),
        ("snapshot_expired", Figure::Count(loaded.expired)),
        ("snapshot_no_room", Figure::Count(loaded.no_room)),
        ("snapshot_too_large", Figure::Count(loaded.too_large)),
        ("snapshot_incomplete", Figure::Count(loaded.incomplete)),
        ("snapshot_blocks_lost", Figure::Count(loaded.blocks_lost)),
        (
            "snapshot_bytes_skipped",
            Figure::Bytes(loaded.bytes_skipped),
        ),
        ("snapshot_cut", Figure::Count(loaded.is_cut.into())),
        ("snapshot_time", Figure::Time(loaded.time)),
    ]);
}
