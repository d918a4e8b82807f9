//! Keys that wait on disk while the target cannot be reached, in files of a few megabytes.
//!
//! ```text
//!  append --> buffer --flush--> 00000007.spool (written)   00000006.spool   00000005.spool (read) --> next
//!                                                                             removed when all of it is done
//! ```
//!
//! A record: length of what follows (4 bytes), FNV-1a of it (4), `d` or `v`, the source's address and a line feed, the key.
//!
//! Sp1. A record that was flushed is given by [`next`](Spool::next), in this process or the next one, until
//!      [`done`](Spool::done) has been told of it. It may be given twice, by two processes.
//! Sp2. The files take no more than the bound, and a file that cannot be written is an error of `append` or `flush`: then the caller
//!      deals with all that the spool had in another way, and [`clear`](Spool::clear)s it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::audit::fnv;

/// The size at which another file is begun, unless the bound is small.
const FILE_LEN: u64 = 4 << 20;
/// Bytes that are written together.
const BUFFER_LEN: usize = 64 << 10;
/// The longest record: an address and a key.
const RECORD_LEN_MAX: usize = 4096;

/// What is kept of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the spool, from 1 on.
    pub number: u64,
    /// The target is to have the value of this source; without, the key is to go.
    pub value: bool,
    pub source: String,
    pub key: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    len: u64,
    /// The number of its last record; 0 while it has none.
    last: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    bytes_max: u64,
    /// In their order; the last is written to if `writing` says so.
    segments: VecDeque<Segment>,
    writing: Option<File>,
    buffer: Vec<u8>,
    /// The number of the last record that was appended, and of the last that was read.
    appended: u64,
    read: u64,
    /// The file that is read, what was read of it, and how much of that is given.
    reading: Option<(u64, Vec<u8>, usize)>,
    name: u64,
    /// Of all files.
    bytes: u64,
    /// The number of the last record whose file is removed.
    gone: u64,
}

impl Spool {
    /// The spool in this directory, which is made if it is not there. What is in it is given first. The second is false if some of it is
    /// damaged, so that records are missing that were there.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<(Spool, bool)> {
        fs::create_dir_all(dir)?;
        let mut names: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let stem = path.file_name().and_then(|name| name.to_str());
            let number = stem.and_then(|name| name.strip_suffix(".spool")?.parse().ok());
            if let Some(number) = number {
                names.push((number, path));
            }
        }
        names.sort_unstable();
        let mut spool = Spool {
            dir: dir.to_owned(),
            bytes_max,
            segments: VecDeque::new(),
            writing: None,
            buffer: Vec::new(),
            appended: 0,
            read: 0,
            reading: None,
            name: names.last().map_or(0, |(number, _)| *number),
            bytes: 0,
            gone: 0,
        };
        let mut whole = true;
        let count = names.len();
        for (at, (_, path)) in names.into_iter().enumerate() {
            let bytes = fs::read(&path)?;
            let mut rest = &bytes[..];
            while let Some((_, behind)) = record(rest) {
                spool.appended += 1;
                rest = behind;
            }
            // A crash may cut the last file: what is missing then is behind the cursor.
            whole &= rest.is_empty() || at + 1 == count;
            let before = spool.segments.back().map_or(0, |segment| segment.last);
            if spool.appended == before {
                fs::remove_file(&path)?;
                continue;
            }
            spool.bytes += bytes.len() as u64;
            spool.segments.push_back(Segment {
                path,
                len: bytes.len() as u64,
                last: spool.appended,
            });
        }
        Ok((spool, whole))
    }

    /// True if all that was appended was read.
    pub fn is_read(&self) -> bool {
        self.read == self.appended
    }

    /// The number of the last record that was read.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Records that wait to be read.
    pub fn len(&self) -> u64 {
        self.appended - self.read
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.buffer.len() as u64
    }

    /// One more record, at the end.
    pub fn append(&mut self, value: bool, source: &str, key: &[u8]) -> io::Result<()> {
        let len = 1 + source.len() + 1 + key.len();
        if self.bytes() + len as u64 + 8 > self.bytes_max {
            return Err(io::Error::other("it is full"));
        }
        let begin = self.buffer.len();
        self.buffer.extend_from_slice(&(len as u32).to_le_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.push(if value { b'v' } else { b'd' });
        self.buffer.extend_from_slice(source.as_bytes());
        self.buffer.push(b'\n');
        self.buffer.extend_from_slice(key);
        let hash = fnv(&self.buffer[begin + 8..]) as u32;
        self.buffer[begin + 4..begin + 8].copy_from_slice(&hash.to_le_bytes());
        self.appended += 1;
        if self.buffer.len() >= BUFFER_LEN {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what was appended.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file_len = FILE_LEN.min(self.bytes_max / 4).max(1);
        let full = self.segments.back().is_none_or(|last| last.len >= file_len);
        if self.writing.is_none() || full {
            if let Some(file) = self.writing.take() {
                file.sync_data()?;
            }
            self.name += 1;
            let path = self.dir.join(format!("{:08}.spool", self.name));
            self.writing = Some(File::create(&path)?);
            self.segments.push_back(Segment {
                path,
                len: 0,
                last: 0,
            });
        }
        if let (Some(file), Some(segment)) = (&mut self.writing, self.segments.back_mut()) {
            file.write_all(&self.buffer)?;
            segment.len += self.buffer.len() as u64;
            segment.last = self.appended;
        }
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// The file to be synced before a cursor may leave what was appended behind.
    pub fn to_sync(&self) -> io::Result<Option<File>> {
        self.writing.as_ref().map(File::try_clone).transpose()
    }

    /// The oldest record that was not yet given.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            if self.is_read() {
                return Ok(None);
            }
            self.flush()?;
            if let Some((_, bytes, at)) = &mut self.reading
                && let Some((found, rest)) = record(&bytes[*at..])
            {
                *at = bytes.len() - rest.len();
                self.read += 1;
                return Ok(Some(Record {
                    number: self.read,
                    ..found
                }));
            }
            self.read_on()?;
        }
    }

    /// Reads what the file that is read has got since, or the next one.
    fn read_on(&mut self) -> io::Result<()> {
        let next = self
            .segments
            .iter()
            .find(|segment| segment.last > self.read);
        let Some(segment) = next else {
            // Counted, but not to be found.
            self.read = self.appended;
            return Err(io::Error::other("records are missing"));
        };
        let bytes = fs::read(&segment.path)?;
        // Which of its records were given: all from its first to `read`.
        let place = self.segments.iter().position(|one| one.last > self.read);
        let before = place.and_then(|place| place.checked_sub(1));
        let first = before.map_or(self.gone, |before| self.segments[before].last);
        let mut at = 0;
        for _ in first..self.read {
            match record(&bytes[at..]) {
                Some((_, rest)) => at = bytes.len() - rest.len(),
                None => break,
            }
        }
        if record(&bytes[at..]).is_none() {
            self.read = segment.last;
            self.reading = None;
            return Err(io::Error::other("a file of it is damaged"));
        }
        self.reading = Some((segment.last, bytes, at));
        Ok(())
    }

    /// All records up to this number are done: files of which nothing is left go.
    pub fn done(&mut self, number: u64) {
        while let Some(first) = self.segments.front()
            && first.last <= number.min(self.read)
        {
            let is_written = self.segments.len() == 1 && self.writing.is_some();
            if is_written && !(self.is_read() && self.buffer.is_empty()) {
                return;
            }
            if is_written {
                self.writing = None;
            }
            if let Some(first) = self.segments.pop_front() {
                // One that stays is given again to the next process, which does no harm.
                let _ = fs::remove_file(&first.path);
                self.bytes -= first.len;
                self.gone = first.last;
            }
        }
    }

    /// Drops all of it.
    pub fn clear(&mut self) {
        for segment in self.segments.drain(..) {
            let _ = fs::remove_file(&segment.path);
        }
        self.writing = None;
        self.reading = None;
        self.buffer.clear();
        self.bytes = 0;
        self.read = self.appended;
        self.gone = self.appended;
    }
}

/// The first record of `bytes`, and what follows it; `None` if it is not there in full.
fn record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (hash, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > RECORD_LEN_MAX {
        return None;
    }
    let (body, rest) = rest.split_at_checked(len)?;
    if fnv(body) as u32 != u32::from_le_bytes(*hash) {
        return None;
    }
    let (kind, body) = body.split_first()?;
    let end = body.iter().position(|&b| b == b'\n')?;
    let record = Record {
        number: 0,
        value: *kind == b'v',
        source: String::from_utf8(body[..end].to_vec()).ok()?,
        key: body[end + 1..].to_vec(),
    };
    Some((record, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("ketch-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn key(n: u64) -> Vec<u8> {
        let mut key = n.to_le_bytes().to_vec();
        key.resize(200, b'\n');
        key
    }

    #[test]
    fn what_is_appended_is_read_in_its_order_and_its_files_go() {
        let dir = Dir::new("spool");
        let (mut spool, whole) = Spool::open(&dir.0, 1 << 20).unwrap();
        assert!(whole && spool.is_read());
        let (mut put, mut got) = (0, 0);
        let mut rng = ketch_testing::Rng::from_env("KETCH_RELAY_SEED");
        for _ in 0..2000 {
            for _ in 0..rng.below(20) {
                put += 1;
                spool.append(put % 2 == 0, "a:1", &key(put)).unwrap();
            }
            for _ in 0..rng.below(25) {
                let Some(record) = spool.next().unwrap() else {
                    break;
                };
                got += 1;
                assert_eq!((record.number, record.value), (got, got % 2 == 0));
                assert_eq!((record.source.as_str(), record.key), ("a:1", key(got)));
            }
            assert_eq!(spool.len(), put - got);
            spool.done(got.saturating_sub(rng.below(50)));
        }
        while spool.next().unwrap().is_some() {}
        spool.done(put);
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
        assert_eq!(spool.bytes(), 0);
    }

    #[test]
    fn another_process_goes_on_and_the_bound_holds() {
        let dir = Dir::new("respool");
        let mut put = 0;
        {
            let (mut spool, _) = Spool::open(&dir.0, 100_000).unwrap();
            while spool.append(false, "a", &key(put + 1)).is_ok() {
                put += 1;
            }
            assert!(spool.bytes() <= 100_000 && put > 400, "{put}");
            spool.flush().unwrap();
            for _ in 0..300 {
                spool.next().unwrap().unwrap();
            }
            spool.done(250);
        }
        // The end of the last file is cut: that record alone is missing, and whoever wrote it knows.
        let mut names: Vec<_> = fs::read_dir(&dir.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        let last = fs::read(names.last().unwrap()).unwrap();
        fs::write(names.last().unwrap(), &last[..last.len() - 1]).unwrap();
        let (mut spool, whole) = Spool::open(&dir.0, 100_000).unwrap();
        assert!(whole);
        let mut keys = Vec::new();
        while let Some(record) = spool.next().unwrap() {
            keys.push(record.key);
        }
        assert!(keys.len() as u64 >= put - 250 - 1);
        assert_eq!(keys.last().unwrap(), &key(put - 1));
        spool.append(true, "b", b"more").unwrap();
        assert_eq!(spool.next().unwrap().unwrap().key, b"more");
        spool.clear();
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
        spool.append(true, "b", b"again").unwrap();
        assert_eq!(spool.next().unwrap().unwrap().key, b"again");
        assert!(spool.next().unwrap().is_none());
    }

    #[test]
    fn damage_is_noticed() {
        let dir = Dir::new("damaged");
        {
            let (mut spool, _) = Spool::open(&dir.0, 1 << 20).unwrap();
            for n in 0..3000 {
                spool.append(false, "a", &key(n)).unwrap();
            }
            spool.flush().unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(&dir.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        assert!(names.len() > 1);
        let mut bytes = fs::read(&names[0]).unwrap();
        bytes[1000] ^= 1;
        fs::write(&names[0], bytes).unwrap();
        let (_, whole) = Spool::open(&dir.0, 1 << 20).unwrap();
        assert!(!whole);
    }
}
