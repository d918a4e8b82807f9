//! Takes a snapshot: the cache's items into a file, step by step, while the server goes on.
//!
//! Items are put into blocks by how long ago they were asked for, so that a reader finds the recent ones together: batches
//! are parted by quartiles of a sample.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use snapshot_file::{BLOCK_BYTES_MAX, Batch, FileHead, FileKind, Meta, Stamp, Writer};

use super::files::Files;
use crate::cache::{Cache, CopiedValue, CopyCursor, ITEMS_A_STEP, LARGE_VALUE_MIN, PinnedValue};
use crate::clock::{Clock, RelTime};
use crate::sys::Queueing;

/// Batches by age.
const AGES: usize = 4;
/// Memory that a snapshot takes beside the cache: the batches, a block of a long value, a compressed one, and what a step
/// holds.
pub const MEMORY_BYTES: usize = 8 << 20;
const _: () = assert!((AGES + 3) * BLOCK_BYTES_MAX <= MEMORY_BYTES);

/// What a step may add of small items: with less room than that a batch is written before it.
const STEP_BYTES_MAX: usize = 2 * ITEMS_A_STEP * (LARGE_VALUE_MIN + 300);
/// Stripes that are looked at for a sample of ages.
const SAMPLE_STRIPES: usize = 64;

/// Steps between two looks at whether others want the processor: some hundred microseconds.
const STEPS_A_LOOK: u32 = 64;
/// A snapshot rests so many times as long as it has waited for a processor. Where turns are 3 ms, it has a tenth of one then.
const REST: u32 = 8;
/// But no longer at a time: where many wait, it is to end all the same.
const REST_MAX: Duration = Duration::from_millis(50);

/// How a snapshot is to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Bytes a second at most; 0 is as fast as it goes.
    pub rate_bytes: usize,
    /// Blocks are compressed.
    pub compressed: bool,
    /// Others are served meanwhile, who come first.
    pub makes_way: bool,
    /// The log's first segment that is newer.
    pub segment: u64,
}

/// What a snapshot has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Items in it.
    pub items: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took.
    pub time: Duration,
}

/// Takes a snapshot, and puts it in the place of the last one. Stops with an error when `goes_on` says so.
pub(super) fn take(
    cache: &Cache,
    clock: &Clock,
    files: &Files,
    manner: Manner,
    goes_on: &dyn Fn() -> bool,
) -> io::Result<Taken> {
    let file = files.create_new()?;
    let taken = write(cache, clock, file, manner, goes_on).and_then(|(taken, file)| {
        file.sync_all()?;
        files.put_in_place()?;
        Ok(taken)
    });
    if taken.is_err() {
        files.remove_new();
    }
    taken
}

/// Writes all items to `out`.
fn write<W: Write>(
    cache: &Cache,
    clock: &Clock,
    out: W,
    manner: Manner,
    goes_on: &dyn Fn() -> bool,
) -> io::Result<(Taken, W)> {
    let began = Instant::now();
    let epoch_unix_s = clock.unix(RelTime(0));
    let flush_due = cache.flush_due(clock.now()).map(|due| clock.unix(due));
    let head = FileHead {
        kind: FileKind::Snapshot,
        segment: manner.segment,
        created_unix_s: u64::try_from(clock.unix(clock.now())).unwrap_or_default(),
        follows_gap: false,
        flush_due_unix_s: flush_due.map_or(0, |at| u64::try_from(at).unwrap_or_default()),
    };
    let stamp = || Stamp {
        epoch_unix_s,
        cas_last: cache.last_cas(),
    };
    let mut writer = Writer::begin(out, &head, manner.compressed)?;
    let mut taken = Taken::default();
    let bounds = age_bounds(cache, clock.now());
    let mut batches: [Batch; AGES] = std::array::from_fn(|_| Batch::with_room());
    let mut cursor = CopyCursor::default();
    let mut large: Vec<(Vec<u8>, Meta, PinnedValue<'_>)> = Vec::new();
    let mut way = manner.makes_way.then(Way::begin);
    loop {
        for batch in &mut batches {
            if !batch.has_room(0, STEP_BYTES_MAX) {
                writer.block(batch, stamp())?;
                pace(began, writer.bytes(), manner.rate_bytes, goes_on);
            }
        }
        let mut spilled = Vec::new();
        let done = cache.copy_step(&mut cursor, clock.now(), |item, value| {
            let meta = item.meta();
            taken.items += 1;
            match value {
                CopiedValue::Large(value) => large.push((item.key().to_vec(), meta, value)),
                CopiedValue::Small(value) => {
                    let batch = &mut batches[age_of(meta.accessed_at, &bounds)];
                    if batch.has_room(item.key().len(), value.len()) {
                        let pieces = std::iter::once(value);
                        batch.item(item.key(), &meta, value.len() as u32, pieces);
                    } else {
                        spilled.push((item.key().to_vec(), meta, value.to_vec()));
                    }
                }
            }
        });
        for (key, meta, value) in spilled {
            let batch = &mut batches[age_of(meta.accessed_at, &bounds)];
            if !batch.has_room(key.len(), value.len()) {
                writer.block(batch, stamp())?;
            }
            batch.item(&key, &meta, value.len() as u32, std::iter::once(&value[..]));
        }
        for (key, meta, value) in large.drain(..) {
            let len = value.unsent_len();
            let batch = &mut batches[age_of(meta.accessed_at, &bounds)];
            if !batch.has_room(key.len(), len) {
                writer.block(batch, stamp())?;
                pace(began, writer.bytes(), manner.rate_bytes, goes_on);
            }
            let pieces = value.unsent(usize::MAX);
            if batch.has_room(key.len(), len) {
                batch.item(&key, &meta, len as u32, pieces);
            } else {
                writer.long(&key, &meta, len as u32, pieces, stamp())?;
            }
        }
        if done {
            break;
        }
        if let Some(way) = &mut way {
            way.make(goes_on);
        }
        if !goes_on() {
            return Err(io::Error::other("the server stops"));
        }
    }
    for batch in &mut batches {
        writer.block(batch, stamp())?;
    }
    taken.bytes = writer.bytes() + snapshot_file::HEAD_BYTES as u64;
    let out = writer.end(stamp())?;
    taken.time = began.elapsed();
    Ok((taken, out))
}

/// How a snapshot makes way for those who are served: where it has to wait for a processor, others wait for the one it has.
struct Way {
    queueing: Queueing,
    waited: Duration,
    steps: u32,
}

impl Way {
    fn begin() -> Self {
        let queueing = Queueing::of_this_thread();
        let waited = queueing.waited();
        Way {
            queueing,
            waited,
            steps: 0,
        }
    }

    /// After a step.
    fn make(&mut self, goes_on: &dyn Fn() -> bool) {
        self.steps += 1;
        if self.steps < STEPS_A_LOOK {
            return;
        }
        self.steps = 0;
        let waited = self.queueing.waited();
        let rest = (waited.saturating_sub(self.waited) * REST).min(REST_MAX);
        // What it waits for when it wakes up is not that somebody was in its way for long.
        sleep_until(Instant::now() + rest, goes_on);
        self.waited = self.queueing.waited();
    }
}

/// Sleeps until so many bytes are due.
fn pace(began: Instant, bytes: u64, rate_bytes: usize, goes_on: &dyn Fn() -> bool) {
    if rate_bytes > 0 {
        let due = Duration::from_secs_f64(bytes as f64 / rate_bytes as f64);
        sleep_until(began + due, goes_on);
    }
}

fn sleep_until(until: Instant, goes_on: &dyn Fn() -> bool) {
    const NAP: Duration = Duration::from_millis(50);
    while let left = until.saturating_duration_since(Instant::now())
        && !left.is_zero()
        && goes_on()
    {
        std::thread::sleep(left.min(NAP));
    }
}

/// The batch for an item of that age: 0 is the oldest.
fn age_of(accessed_at: u32, bounds: &[u32; AGES - 1]) -> usize {
    bounds.iter().filter(|&&bound| accessed_at > bound).count()
}

/// The last accesses that part the items into batches of about one size, by a sample.
fn age_bounds(cache: &Cache, now: RelTime) -> [u32; AGES - 1] {
    let mut sample = Vec::new();
    let mut cursor = CopyCursor::default();
    let stripes = cache.stripes();
    for stripe in (0..stripes).step_by((stripes / SAMPLE_STRIPES).max(1)) {
        cursor.go_to_stripe(stripe);
        cache.copy_step(&mut cursor, now, |item, _| {
            sample.push(item.accessed_at().0)
        });
    }
    sample.sort_unstable();
    std::array::from_fn(|n| {
        let at = sample.len() * (n + 1) / AGES;
        sample.get(at).copied().unwrap_or_default()
    })
}
