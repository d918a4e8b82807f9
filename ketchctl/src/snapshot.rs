//! `ketchctl snapshot`: writes what a node has into a file, as `-o snapshot` does.
//!
//! ```text
//!  lister: lru_crawler metadump --keys--> [4 batches] --> mg, pipelined --> blocks --> FILE.new --fsync, rename--> FILE
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use getopts::Options;
use ketch_client::Node;
use snapshot_file::{Batch as Block, FileHead, FileKind, Marks, Meta, Stamp, Writer};

use crate::access::{self, Access};
use crate::copy::batch::{Batch, Listed, MAX};
use crate::copy::source::{Found, Line, Source};
use crate::failure::Failure;
use crate::{cluster, units, words};

const USAGE: &str = "usage: ketchctl snapshot -s HOST[:PORT] FILE [options]\n\n\
    Writes the items of one node into FILE, with their client flags, times to live, CAS uniques and ages. FILE can be loaded by\n\
    ketch (-o snapshot=FILE) and by ketchctl load. The node needs lru_crawler metadump and meta commands (ketch, memcached 1.6).\n\
    Its LRU does not count the reads. What is written there meanwhile may be missed; what is stale or leased is left out.\n\
    Exit status 1 if not all could be read; FILE is written only if all could.";

/// The longest a request takes unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Batches that wait.
const WAITING: usize = 4;
/// How often a crawler that is busy is asked, and for how long.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
const BUSY_PATIENCE: Duration = Duration::from_secs(60);

/// Keys to be asked for, and what the list tells of each.
#[derive(Default)]
struct Asked {
    batch: Batch,
    listed: Vec<(u32, bool)>,
}

/// What became of the items.
#[derive(Default)]
struct Tally {
    written: u64,
    bytes: u64,
    gone: u64,
    unfinished: u64,
    refused: u64,
}

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    cluster::nodes_option(&mut options, "s", "servers", "the node");
    options.optflag("", "lz4", "compress the blocks");
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    let [path] = &matches.free[..] else {
        return Err(Failure::usage("snapshot: it takes one file"));
    };
    let nodes = cluster::nodes(&matches, "servers")?;
    let [node] = &nodes[..] else {
        return Err(Failure::usage(
            "snapshot: a file is of one node; --servers names several",
        ));
    };
    let access = access::from(&matches)?.or_within(&matches, TIMEOUT);
    let begun = Instant::now();
    let path = Path::new(path);
    let about_file = |error: io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let (new, file) = create_beside(path).map_err(about_file)?;
    let done = write(node, &access, file, matches.opt_present("lz4"));
    let tally = match done {
        Ok(tally) if tally.refused == 0 => tally,
        Ok(tally) => {
            let _ = fs::remove_file(&new);
            let address = node.address();
            let count = tally.refused;
            return Err(Failure::failed(format!(
                "{address}: it refuses {count} keys that it lists; nothing is written"
            )));
        }
        Err(error) => {
            let _ = fs::remove_file(&new);
            return Err(Failure::failed(format!("{}: {error}", node.address())));
        }
    };
    put_in_place(&new, path).map_err(about_file)?;
    words::print(format!(
        "{} items, {} in {:.1}s; {} gone meanwhile, {} stale or leased\n",
        units::grouped(tally.written),
        units::bytes(tally.bytes as f64),
        begun.elapsed().as_secs_f64(),
        units::grouped(tally.gone),
        units::grouped(tally.unfinished),
    ))
}

/// A file for our own eyes beside `path`. Whatever had its name is removed, so that no link is followed.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    Ok((new, file))
}

fn put_in_place(new: &Path, path: &Path) -> io::Result<()> {
    fs::rename(new, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

fn write(node: &Node, access: &Access, file: File, compressed: bool) -> io::Result<Tally> {
    let mut source = Source::connect(node, access, false)?;
    let head = FileHead {
        kind: FileKind::Snapshot,
        segment: 0,
        created_unix_s: now_unix_s() as u64,
        flush_due_unix_s: 0,
        follows_gap: false,
    };
    let mut writer = Writer::begin(BufWriter::new(file), &head, compressed)?;
    let mut block = Block::with_room();
    let mut tally = Tally::default();
    let mut cas_last = 0;
    let (batches, work) = sync_channel(WAITING);
    let listed = std::thread::scope(|scope| {
        let lister = scope.spawn(move || list(node, access, &batches));
        for asked in work {
            let found = source.fetch(&asked.batch)?;
            // Times are told in seconds left, from now on.
            let now = now_unix_s();
            let items = asked.batch.keys.iter().zip(&asked.listed).zip(found);
            for ((key, &(accessed_at, fetched)), found) in items {
                let (value, flags, ttl, cas) = match found {
                    Found::Item {
                        value,
                        flags,
                        ttl,
                        cas,
                    } => (value, flags, ttl, cas),
                    Found::Gone => {
                        tally.gone += 1;
                        continue;
                    }
                    Found::Unfinished => {
                        tally.unfinished += 1;
                        continue;
                    }
                    Found::Refused(_) => {
                        tally.refused += 1;
                        continue;
                    }
                };
                let needs_base64 = protocol::Key::plain(key).needs_base64();
                let mut marks = if fetched { Marks::FETCHED } else { 0 };
                marks |= if needs_base64 { Marks::KEY_BINARY } else { 0 };
                let ends = |ttl: Duration| now.saturating_add_unsigned(ttl.as_secs());
                let meta = Meta {
                    // Where it is to be in an LRU, the loader decides: WARM, if it was read.
                    marks: Marks(marks).with_place(u8::from(fetched), u8::from(fetched)),
                    client_flags: flags,
                    cas,
                    expires_at: ttl.map_or(0, |ttl| u32::try_from(ends(ttl)).unwrap_or(u32::MAX)),
                    accessed_at,
                };
                cas_last = cas_last.max(cas);
                // The records' times are seconds since 1970.
                let stamp = Stamp {
                    epoch_unix_s: 0,
                    cas_last,
                };
                let len = value.len();
                if !block.has_room(key.len(), len) {
                    writer.block(&mut block, stamp)?;
                }
                let pieces = std::iter::once(&value[..]);
                if block.has_room(key.len(), len) {
                    block.item(key, &meta, len as u32, pieces);
                } else {
                    writer.long(key, &meta, len as u32, pieces, stamp)?;
                }
                tally.written += 1;
                tally.bytes += (key.len() + len) as u64;
            }
        }
        lister
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the list broke off")))
    });
    listed?;
    let stamp = Stamp {
        epoch_unix_s: 0,
        cas_last,
    };
    writer.block(&mut block, stamp)?;
    let mut out = writer.end(stamp)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(tally)
}

/// Sends all keys of `node`.
fn list(node: &Node, access: &Access, batches: &SyncSender<Asked>) -> io::Result<()> {
    let mut connection = Source::connect(node, access, true)?;
    let patient_until = Instant::now() + BUSY_PATIENCE;
    connection.list()?;
    let mut asked = Asked::default();
    loop {
        let listed = match connection.next()? {
            Line::Key(listed) => listed,
            Line::End => break,
            Line::Busy if Instant::now() < patient_until => {
                std::thread::sleep(BUSY_PAUSE);
                connection.list()?;
                continue;
            }
            Line::Busy => return Err(io::Error::other("its crawler is busy")),
        };
        let told = told(&listed);
        if let Err(listed) = asked.batch.push(listed, MAX) {
            if batches.send(std::mem::take(&mut asked)).is_err() {
                // Whoever reads has failed, and says why.
                return Ok(());
            }
            let pushed = asked.batch.push(listed, MAX);
            pushed.expect("an empty batch takes any");
        }
        asked.listed.push(told);
    }
    if !asked.batch.keys.is_empty() {
        let _ = batches.send(asked);
    }
    Ok(())
}

fn told(listed: &Listed) -> (u32, bool) {
    (listed.accessed_unix_s, listed.fetched)
}

fn now_unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}
