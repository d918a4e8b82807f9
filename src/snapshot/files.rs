//! The files of a snapshot: how they are named, opened, and put in place.
//!
//! ```text
//!  FILE           the last snapshot      FILE.new    the one that is being written      FILE.lock  locked as long as a server uses FILE
//! ```
//!
//! Fs1. Files are of rights 0600, made by the user who serves, and never through a link.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sys;

/// Where snapshots are.
#[derive(Debug, Clone)]
pub struct Files {
    path: PathBuf,
}

/// The right to use the files, as long as it lives.
#[derive(Debug)]
pub struct Locked {
    path: PathBuf,
    lock: File,
}

impl Locked {
    /// The lock file and a copy of its descriptor: the right stays while either has it.
    pub fn share(&self) -> io::Result<(PathBuf, File)> {
        Ok((self.path.clone(), self.lock.try_clone()?))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Files {
    /// Snapshots at `path`.
    pub fn at(path: &Path) -> Self {
        Files { path: path.into() }
    }

    /// The name of the snapshot.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps other servers away from these files, unless a server before has done so and shares its right, which is `found` then. The
    /// error is one line.
    pub fn lock(&self, found: &mut Vec<(PathBuf, File)>) -> Result<Locked, String> {
        let path = with_suffix(&self.path, ".lock");
        if let Some(nth) = found.iter().position(|(locked, _)| *locked == path) {
            let (path, lock) = found.swap_remove(nth);
            return Ok(Locked { path, lock });
        }
        match sys::lock_file(&path) {
            Ok(Some(lock)) => Ok(Locked { path, lock }),
            Ok(None) => Err(format!(
                "{}: another server uses it ({} is locked)",
                self.path.display(),
                path.display()
            )),
            Err(error) => Err(format!(
                "{}: {}",
                path.display(),
                sys::why_not_made(&path, &error)
            )),
        }
    }

    /// The file that the next snapshot is written to. What an earlier one has left there is removed.
    pub fn create_new(&self) -> io::Result<File> {
        let path = self.new_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sys::create_private(&path),
        }
    }

    /// Puts that file, which is written and synced, in the place of the last snapshot.
    pub fn put_in_place(&self) -> io::Result<()> {
        fs::rename(self.new_path(), &self.path)?;
        sys::sync_directory_of(&self.path)
    }

    /// Removes that file.
    pub fn remove_new(&self) {
        // Where it is not there, or cannot be removed, the next snapshot will find out.
        let _ = fs::remove_file(self.new_path());
    }

    /// Opens the last snapshot; none if there is no file.
    pub fn open(&self) -> io::Result<Option<Shared>> {
        match sys::open_plain(&self.path) {
            Ok(file) => Ok(Some(Shared::of(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn new_path(&self) -> PathBuf {
        with_suffix(&self.path, ".new")
    }
}

/// A file that several threads read, each at a place of its own.
#[derive(Debug, Clone)]
pub struct Shared {
    file: Arc<File>,
    at: u64,
}

impl Shared {
    pub(super) fn of(file: File) -> Self {
        Shared {
            file: Arc::new(file),
            at: 0,
        }
    }
}

impl Read for Shared {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(to, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Shared {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.file.metadata()?.len(), by),
            SeekFrom::Current(by) => (self.at, by),
        };
        self.at = from
            .checked_add_signed(by)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
