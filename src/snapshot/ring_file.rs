//! The file of the log's rings: what was told, and is acknowledged, before it is in a segment.
//!
//! ```text
//!  LOG.ring:  a ring for each thread that tells, its pages made once and used again and again
//!  number of an event:  segment << 36 | which of that segment's events, from 1 on
//! ```
//!
//! Rf1. The numbers in a segment and those behind them in the rings have no gap, but for what was being told when the process was
//!     killed: it was not acknowledged.
//! Rf2. An event leaves its ring when it is in a segment's file. So what a process leaves is in the one, or the other, or both;
//!     the numbers tell.
//! Rf3. After a power cut the rings' pages may be of any time: what goes on without a gap behind the segment is taken, no more.
//! Rf4. A head of zeros, or a file without one, is what a disk has of a file that it never got, so it is as if there were none. Any
//!     other head that does not hold has been changed since: what its rings held is missing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use snapshot_file::{
    BlockKind, FileKind, HEAD_BYTES, Reader, RingEvent, RingHead, Stamp, Writer,
    goes_on_at_beginning,
};

use super::files::Shared as SharedFile;
use super::segments::{self, Segments};
use crate::events::Drained;
use crate::settings::LogSync;
use crate::state::Shared;
use crate::sys::{self, RingPlace, RingWriter};

/// Bits of an event's number that count within its segment: hours of millions a second, and a segment ends when it is larger than
/// the cache.
const EVENT_BITS: u32 = 36;
/// A ring's bytes: some milliseconds of the fastest stores.
const RING_BYTES: usize = 1 << 20;
/// With many threads each has less.
const RING_BYTES_MIN: usize = 1 << 18;
/// What all rings take, as far as the least allows.
const RINGS_BYTES: usize = 8 << 20;

/// The number of the last of so many events of a segment.
pub(super) fn number(segment: u64, events: u64) -> u64 {
    segment << EVENT_BITS | events
}

/// Which of its segment's events has this number.
pub(super) fn events_of(number: u64) -> u64 {
    number & ((1 << EVENT_BITS) - 1)
}

fn segment_of(number: u64) -> u64 {
    number >> EVENT_BITS
}

/// A file of rings that are written to.
#[derive(Debug)]
pub(super) struct RingFile {
    file: File,
    head: RingHead,
}

/// Has events numbered from behind `last`, and written to rings unless each is to be synced or there can be none. Gives what
/// drains them.
pub(super) fn listen(
    segments: &Segments,
    sync: LogSync,
    last: u64,
    shared: &Shared,
) -> (Option<RingFile>, Drained) {
    let made = match sync {
        LogSync::Always => Ok(None),
        LogSync::Second | LogSync::None => RingFile::make(segments, last, shared).map(Some),
    };
    let events = shared.cache.events();
    match made {
        Ok(Some((file, writers, drained))) => {
            events.log_to(writers, last);
            (Some(file), drained)
        }
        without => {
            if let Err(error) = without {
                log::info!("-o log: without rings, so with a write for each turn: {error}");
            }
            remove(segments);
            events.log_to(Vec::new(), last);
            (None, Drained::default())
        }
    }
}

/// Removes the file: nothing that it has is missing elsewhere.
pub(super) fn remove(segments: &Segments) {
    // Where it is not there, so much the better; one that stays holds nothing that is newer.
    let _ = fs::remove_file(segments.ring_name());
}

impl RingFile {
    /// Makes one in the place of any other, whose events are elsewhere.
    fn make(
        segments: &Segments,
        moved: u64,
        shared: &Shared,
    ) -> io::Result<(Self, Vec<RingWriter>, Drained)> {
        let rings = shared.cache.events().log_rings();
        let ring_bytes =
            (RINGS_BYTES / rings.next_power_of_two()).clamp(RING_BYTES_MIN, RING_BYTES);
        let head = RingHead {
            rings: rings as u32,
            ring_bytes: ring_bytes as u32,
            boot_id: shared.boot_id,
            moved,
            epoch_unix_s: segments::stamp(shared).epoch_unix_s,
        };
        let (path, new) = (segments.ring_name(), segments.new_name());
        let _ = fs::remove_file(&new);
        let file = sys::create_private_to_map(&new)?;
        let places: Vec<RingPlace> = (0..head.rings)
            .map(|nth| RingPlace {
                positions_at: head.positions_at(nth) as usize,
                ring_at: head.ring_at(nth) as usize,
            })
            .collect();
        let mapped = sys::map_rings(&file, head.file_bytes() as usize, &places, ring_bytes);
        let made = mapped.and_then(|mapped| {
            file.write_all_at(&head.to_bytes(), 0)?;
            fs::rename(&new, &path)?;
            Ok(mapped)
        });
        let mapped = made.inspect_err(|_| drop(fs::remove_file(&new)))?;
        let (writers, readers) = mapped.into_iter().unzip();
        Ok((RingFile { file, head }, writers, Drained::of(readers)))
    }

    /// Notes that the events up to `number` are in a segment, and what their times count from.
    pub(super) fn moved(&mut self, number: u64, epoch_unix_s: i64) -> io::Result<()> {
        self.head.moved = number;
        self.head.epoch_unix_s = epoch_unix_s;
        self.file.write_all_at(&self.head.to_bytes(), 0)
    }
}

/// What a process has left in its rings.
struct Left {
    head: RingHead,
    /// Its events by number.
    events: Vec<(u64, Vec<u8>)>,
    /// All of it could be read.
    is_whole: bool,
}

impl Left {
    fn read(segments: &Segments, shared: &Shared) -> io::Result<Option<Self>> {
        let file = match sys::open_plain(&segments.ring_name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut head = [0; HEAD_BYTES];
        let len = file.metadata()?.len();
        if len < HEAD_BYTES as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut head, 0)?;
        if head == [0; HEAD_BYTES] {
            return Ok(None);
        }
        let parsed =
            RingHead::parse(&head, len).filter(|head| head.ring_bytes as usize <= RING_BYTES);
        let Some(head) = parsed else {
            log::warn!("-o log: {} is damaged", segments.ring_name().display());
            let head = RingHead {
                rings: 0,
                ring_bytes: 0,
                boot_id: shared.boot_id,
                moved: 0,
                epoch_unix_s: segments::stamp(shared).epoch_unix_s,
            };
            return Ok(Some(Left {
                head,
                events: Vec::new(),
                is_whole: false,
            }));
        };
        let mut left = Left {
            head,
            events: Vec::new(),
            is_whole: true,
        };
        let mut ring = vec![0; head.ring_bytes as usize];
        for nth in 0..head.rings {
            let mut positions = [[0; 8]; 2];
            file.read_exact_at(positions.as_flattened_mut(), head.positions_at(nth))?;
            let [told, moved] = positions.map(u64::from_ne_bytes);
            if told != moved {
                file.read_exact_at(&mut ring, head.ring_at(nth))?;
                left.is_whole &= left.take(&ring, moved, told);
            }
        }
        left.events.sort_unstable_by_key(|&(number, _)| number);
        Ok(Some(left))
    }

    /// Takes the events between two positions; false if there is something else.
    fn take(&mut self, ring: &[u8], from: u64, to: u64) -> bool {
        let len = ring.len() as u64;
        if to.wrapping_sub(from) > len {
            return false;
        }
        let (begin, end) = ((from % len) as usize, (to % len) as usize);
        let parts = if begin < end {
            [&ring[begin..end], &[]]
        } else {
            [&ring[begin..], &ring[..end]]
        };
        for mut part in parts {
            while let Some((event, rest)) = RingEvent::split(part) {
                if !event.holds() {
                    return false;
                }
                self.events.push((event.number, event.record.to_vec()));
                part = rest;
            }
            if !part.is_empty() && !goes_on_at_beginning(part) {
                return false;
            }
        }
        true
    }
}

/// How a segment ends.
struct End {
    bytes: u64,
    blocks: u64,
    events: u64,
    cas_last: u64,
    /// It was ended.
    is_whole: bool,
    /// Bytes behind its last whole block.
    torn_bytes: u64,
}

impl End {
    /// None if it is no segment. Its last block that holds is its end: one that a disk or somebody has changed is as good as torn.
    fn of(segments: &Segments, number: u64) -> io::Result<Option<Self>> {
        let file = SharedFile::of(sys::open_plain(&segments.name(number))?);
        let Ok(mut reader) = Reader::open(file, FileKind::Log)? else {
            return Ok(None);
        };
        let mut end = End {
            bytes: HEAD_BYTES as u64,
            blocks: 0,
            events: 0,
            cas_last: 0,
            is_whole: false,
            torn_bytes: 0,
        };
        let (mut events, mut block) = (0, snapshot_file::Block::default());
        while let Some(found) = reader.find()? {
            if found.head.kind == BlockKind::Records {
                events += u64::from(found.head.count);
            }
            if reader.read(&found, &mut block)? {
                (end.bytes, end.blocks) = (found.end(), found.head.nth + 1);
                (end.events, end.cas_last) = (events, found.head.cas_last);
            }
        }
        end.is_whole = reader.tally.is_whole;
        end.torn_bytes = reader.file_bytes() - end.bytes;
        Ok(Some(end))
    }
}

/// Moves what the rings of an earlier process hold behind its last segment, so that it is replayed with the rest. Gives the bytes
/// of that segment which were torn off, and are nowhere.
pub(super) fn move_left(segments: &Segments, shared: &Shared) -> io::Result<u64> {
    let (Some(last), Some(left)) = (segments.numbers()?.pop(), Left::read(segments, shared)?)
    else {
        return Ok(0);
    };
    let Left {
        head,
        mut events,
        is_whole,
    } = left;
    let is_same_boot = head.boot_id == shared.boot_id;
    let end = End::of(segments, last)?;
    let known = number(last, end.as_ref().map_or(0, |end| end.events));
    // Rf1: what is neither there nor here was acknowledged.
    let is_missing = is_same_boot && (!is_whole || known < head.moved);
    events.retain(|&(number, _)| number > known);
    if !is_same_boot {
        let Some(end) = &end else { return Ok(0) };
        let behind = if end.is_whole {
            number(last + 1, 0)
        } else {
            known
        };
        let goes_on = events.iter().zip(behind + 1..);
        let count = goes_on
            .take_while(|((number, _), next)| number == next)
            .count();
        events.truncate(count);
    }
    if events.is_empty() && !is_missing {
        return Ok(0);
    }
    let (mut torn_bytes, mut cas_last) = (0, 0);
    if let Some(end) = end.filter(|end| !end.is_whole) {
        if !is_same_boot {
            torn_bytes = end.torn_bytes;
        }
        cas_last = end.cas_last;
        let of_it = events.partition_point(|&(number, _)| segment_of(number) <= last);
        let rest = events.split_off(of_it);
        let file = sys::open_plain_to_write(&segments.name(last))?;
        file.set_len(end.bytes)?;
        let mut to = &file;
        io::Seek::seek(&mut to, io::SeekFrom::End(0))?;
        cas_last = write(
            Writer::go_on(to, end.bytes, end.blocks),
            &events,
            &head,
            cas_last,
        )?;
        file.sync_all()?;
        events = rest;
    }
    if !events.is_empty() || is_missing {
        let next = segments.prepare(last + 1, is_missing, &shared.clock)?;
        write(next.writer, &events, &head, cas_last)?;
        next.file.sync_all()?;
        segments.adopt(last + 1)?;
        sys::sync_directory_of(&segments.name(last + 1))?;
    }
    Ok(torn_bytes)
}

/// Writes events to a segment and ends it. Gives the last CAS unique that it tells of.
fn write<W: io::Write>(
    mut to: Writer<W>,
    events: &[(u64, Vec<u8>)],
    head: &RingHead,
    cas_last: u64,
) -> io::Result<u64> {
    let mut records = Vec::new();
    let mut stamp = Stamp {
        epoch_unix_s: head.epoch_unix_s,
        cas_last,
    };
    for (_, record) in events {
        stamp.cas_last = stamp.cas_last.max(snapshot_file::cas_of(record));
        records.extend_from_slice(record);
    }
    to.records(&records, stamp)?;
    to.end(stamp)?;
    Ok(stamp.cas_last)
}
