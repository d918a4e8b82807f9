//! The segments of a log: how they are named, made and left.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshot_file::{FileHead, FileKind, Stamp, Writer};

use crate::clock::{Clock, RelTime};
use crate::state::Shared;
use crate::sys;

/// The files of a log: its name, a point, and a number.
#[derive(Debug, Clone)]
pub struct Segments {
    pub(super) path: PathBuf,
}

impl Segments {
    /// The segments of the log at `path`.
    pub fn at(path: &Path) -> Self {
        Segments { path: path.into() }
    }

    pub(super) fn name(&self, number: u64) -> PathBuf {
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
    pub(super) fn prepare(
        &self,
        number: u64,
        follows_gap: bool,
        clock: &Clock,
    ) -> io::Result<Segment> {
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
    pub(super) fn adopt(&self, number: u64) -> io::Result<()> {
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

    /// The file of the rings.
    pub(super) fn ring_name(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".ring");
        name.into()
    }

    pub(super) fn new_name(&self) -> PathBuf {
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
    /// Events in it.
    pub events: u64,
    /// As its head says.
    pub follows_gap: bool,
    /// The file, at its end.
    pub file: File,
}

/// A file that is written to through a shared handle.
#[derive(Debug)]
pub(super) struct ToFile(pub(super) Arc<File>);

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
pub(super) struct Segment {
    /// As its head says.
    pub(super) follows_gap: bool,
    pub(super) file: Arc<File>,
    pub(super) writer: Writer<ToFile>,
}

/// What blocks tell of this moment.
pub(super) fn stamp(shared: &Shared) -> Stamp {
    Stamp {
        epoch_unix_s: shared.clock.unix(RelTime(0)),
        cas_last: shared.cache.last_cas(),
    }
}
