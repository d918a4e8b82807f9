//! `ketchctl load`: fills nodes with what a snapshot holds.

use std::fs::File;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use getopts::Options;
use ketch_client::Client;
use snapshot_file::{Block, FileKind, Meta, Reader, Record};

use crate::failure::Failure;
use crate::{access, cluster, copy, units, words};

const USAGE: &str = "usage: ketchctl load FILE --to LIST [options]\n\n\
    Stores the items of a snapshot on the nodes --to, each on the node that owns it there, with its client flags and the time to\n\
    live that is left. What a node has already stays: it is newer. FILE is of ketch (-o snapshot) or of ketchctl snapshot; the\n\
    nodes may be stock memcached. CAS uniques are the nodes' own. What was stale or leased is left out.\n\
    Damaged blocks are left out and counted; a file that was cut is loaded up to its last whole block.\n\
    Exit status 1 if not all of the file could be read, or not all stored; running it again does no harm.";

/// The longest a request takes unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Items and bytes that are stored together.
const ITEMS_MAX: usize = 1024;
const BYTES_MAX: usize = 1 << 20;
/// The largest value, in bytes; a file that tells of a larger one is wrong.
const VALUE_LEN_MAX: usize = 1 << 30;

/// An item on its way.
struct Item {
    key: Vec<u8>,
    value: Vec<u8>,
    flags: u32,
    ttl: Option<Duration>,
}

#[derive(Default)]
struct Tally {
    stored: u64,
    bytes: u64,
    present: u64,
    expired: u64,
    unfinished: u64,
    failed: u64,
    incomplete: u64,
    first_error: Option<String>,
}

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    cluster::nodes_option(&mut options, "", "to", "the nodes to fill, in their order");
    cluster::placement_options(&mut options);
    cluster::copies_option(&mut options);
    options.optflag("", "overwrite", "what a node has already gives way");
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    let [path] = &matches.free[..] else {
        return Err(Failure::usage("load: it takes one file"));
    };
    let target = cluster::from_of(&matches, "to")?;
    let access = access::from(&matches)?.or_within(&matches, TIMEOUT);
    let about_file = |error: &dyn std::fmt::Display| Failure::failed(format!("{path}: {error}"));
    let file = File::open(path).map_err(|error| about_file(&error))?;
    let mut reader = Reader::open(file, FileKind::Snapshot)
        .map_err(|error| about_file(&error))?
        .map_err(|reason| about_file(&reason))?;
    let client = copy::client(&target, &access);
    let begun = Instant::now();
    let mut loader = Loader {
        client,
        overwrite: matches.opt_present("overwrite"),
        batch: Vec::new(),
        batch_bytes: 0,
        open: None,
        tally: Tally::default(),
    };
    let mut block = Block::default();
    while let Some(found) = reader
        .next(&mut block)
        .map_err(|error| about_file(&error))?
    {
        for record in block.records() {
            loader.record(&record, found.head.epoch_unix_s);
        }
    }
    loader.give_up_open();
    loader.store();
    let (tally, read) = (loader.tally, reader.tally);
    words::print(format!(
        "{} items, {} in {:.1}s; {} were there already, {} expired, {} stale or leased, {} failed\n",
        units::grouped(tally.stored),
        units::bytes(tally.bytes as f64),
        begun.elapsed().as_secs_f64(),
        units::grouped(tally.present),
        units::grouped(tally.expired),
        units::grouped(tally.unfinished),
        units::grouped(tally.failed),
    ))?;
    let mut told = false;
    let mut complain = |is_so: bool, text: String| {
        if is_so {
            eprintln!("ketchctl: {text}");
            told = true;
        }
    };
    complain(
        !read.is_whole,
        format!("{path}: it is cut, and loaded up to its last whole block"),
    );
    complain(
        read.lost > 0,
        format!("{path}: {} blocks are damaged or missing", read.lost),
    );
    complain(
        tally.incomplete > 0,
        format!("{path}: {} values go on in such blocks", tally.incomplete),
    );
    if let Some(error) = &tally.first_error {
        complain(true, error.clone());
    }
    if told { Err(Failure::Told) } else { Ok(()) }
}

struct Loader {
    client: Client,
    overwrite: bool,
    batch: Vec<Item>,
    batch_bytes: usize,
    /// An item whose value is not complete, and the length that it is to have.
    open: Option<(Item, usize)>,
    tally: Tally,
}

impl Loader {
    fn record(&mut self, record: &Record<'_>, epoch_unix_s: i64) {
        match *record {
            Record::Item {
                key,
                meta,
                value_len,
                value,
            } => {
                self.give_up_open();
                let Some(ttl) = self.ttl(&meta, epoch_unix_s) else {
                    return;
                };
                let item = Item {
                    key: key.to_vec(),
                    value: value.to_vec(),
                    flags: meta.client_flags,
                    ttl,
                };
                self.take(item, value_len as usize);
            }
            Record::Part { offset, value } => {
                if let Some((mut item, len)) = self.open.take() {
                    let fits = item.value.len() == offset as usize
                        && item.value.len() + value.len() <= len;
                    if fits {
                        item.value.extend_from_slice(value);
                        self.take(item, len);
                    } else {
                        self.tally.incomplete += 1;
                    }
                }
            }
            // Of a log alone.
            Record::Delete { .. } | Record::Touch { .. } | Record::Flush { .. } => {}
        }
    }

    /// The time that is left; nothing of an item that is not to be loaded.
    fn ttl(&mut self, meta: &Meta, epoch_unix_s: i64) -> Option<Option<Duration>> {
        use snapshot_file::Marks;
        if meta.marks.has(Marks::STALE | Marks::WIN_SENT) {
            self.tally.unfinished += 1;
            return None;
        }
        if meta.expires_at == 0 {
            return Some(None);
        }
        let ends = epoch_unix_s.saturating_add(meta.expires_at.into());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() as i64);
        let left = u64::try_from(ends.saturating_sub(now)).unwrap_or(0);
        if left == 0 {
            self.tally.expired += 1;
            return None;
        }
        Some(Some(Duration::from_secs(left)))
    }

    /// Takes an item, of whose value more may come.
    fn take(&mut self, item: Item, len: usize) {
        if len > VALUE_LEN_MAX {
            self.tally.incomplete += 1;
        } else if item.value.len() < len {
            self.open = Some((item, len));
        } else {
            self.batch_bytes += item.key.len() + item.value.len();
            self.batch.push(item);
            if self.batch.len() >= ITEMS_MAX || self.batch_bytes >= BYTES_MAX {
                self.store();
            }
        }
    }

    fn give_up_open(&mut self) {
        self.tally.incomplete += u64::from(self.open.take().is_some());
    }

    fn store(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let entries = batch
            .iter()
            .map(|item| (&item.key, (&item.value, item.flags), item.ttl));
        let results = self.client.fill_multi(entries, self.overwrite);
        for (item, result) in batch.iter().zip(results) {
            match result {
                Ok(true) => {
                    self.tally.stored += 1;
                    self.tally.bytes += (item.key.len() + item.value.len()) as u64;
                }
                Ok(false) => self.tally.present += 1,
                Err(error) => {
                    self.tally.failed += 1;
                    self.tally.first_error.get_or_insert(error.to_string());
                }
            }
        }
    }
}
