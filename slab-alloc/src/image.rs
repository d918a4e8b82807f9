//! A file that memory lies in, so that it outlives the process: opened, locked, mapped.
//!
//! ```text
//!  file    | head | page states | table | .. | arena ..        what lies where is the owner's to say
//!  memory  | one shared mapping of all of it, of which a [`Mapping`](crate::mapping::Mapping) or a `Reserved` is a part |
//! ```
//!
//! Im1. One process has the file: it is locked (flock) from before it is mapped until it is closed, and the lock goes
//!      with the descriptor.
//! Im2. The mapping has the length of the file, which does not become shorter while it is mapped.
//! Im3. What is written to has space behind it ([`Image::back`] before the first touch): a write never finds the file
//!      system full. A part for which there is no space gets memory that is not the file's (`patch`). Only a file without
//!      a name ([`unnamed`]) needs none of this: it is memory like the process's own, and comes as it is touched.
//! Im4. Bytes of the file are as untrusted as those of a client: the types that are laid over them are [`Atomics`], of
//!      which any bytes are a value, and numbers are checked before they are used.
//!
//! [`Atomics`]: crate::Atomics

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::mapping::{Mapping, SYSTEM_PAGE_BYTES};

/// Opens the file at `path`, or makes it, for this process alone: nobody else may read it, no link is followed, and what
/// belongs to another user, is no plain file, or is open in another process is refused.
pub fn open(path: &Path) -> io::Result<File> {
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP) => refused("it is a symbolic link"),
                Some(libc::ENXIO) => refused("it is no plain file"),
                _ => error,
            })?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(refused("it is no plain file"));
        }
        // SAFETY: asks for a number.
        let own = unsafe { libc::geteuid() };
        if found.uid() != own {
            return Err(refused("it belongs to another user"));
        }
        lock(&file)?;
        // Whoever had it may have put another file in its place meanwhile.
        if std::fs::symlink_metadata(path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (found.dev(), found.ino()))
        {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            file.set_permissions(mode)?;
            return Ok(file);
        }
    }
}

/// A file that has no name and takes no space in a file system: memory that can be handed to another process.
#[cfg(target_os = "linux")]
pub fn unnamed() -> io::Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: a name that ends in 0, and a plain flag.
    let fd = unsafe { libc::memfd_create(c"ketch".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nobody else has.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// A file that has no name: not known here.
#[cfg(not(target_os = "linux"))]
pub fn unnamed() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How a file comes by the space that is written to (Im3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// It is asked for before.
    Allocated,
    /// It comes with the first touch: of a file from [`unnamed`].
    Touched,
}

/// Locks the file for whoever holds this descriptor (Im1).
pub fn lock(file: &File) -> io::Result<()> {
    // SAFETY: an open descriptor.
    let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if locked == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::EWOULDBLOCK) => refused("another process has it open"),
        _ => error,
    })
}

fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// Bytes that the file system can still give; none where it does not say.
pub fn space_left(file: &File) -> Option<u64> {
    // SAFETY: all zeros is a value of this plain struct.
    let mut told: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a struct of ours to write to.
    let asked = unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut told) };
    (asked == 0 && told.f_blocks > 0).then(|| {
        #[allow(
            clippy::useless_conversion,
            reason = "of other widths on other systems"
        )]
        let bytes = u64::from(told.f_bavail).saturating_mul(u64::from(told.f_frsize));
        bytes
    })
}

/// A locked file, mapped. Clones share it; it is closed when the last part of it is gone.
#[derive(Clone, Debug)]
pub struct Image(pub(crate) Arc<FileMap>);

#[derive(Debug)]
pub(crate) struct FileMap {
    file: File,
    start: NonNull<u8>,
    len: usize,
    space: Space,
    /// Some part of it is memory that is not the file's (Im3).
    patched: AtomicBool,
}

// SAFETY: a mapping belongs to the process, not to a thread; what is read and written of it goes through the types laid
// over its parts.
unsafe impl Send for FileMap {}
// SAFETY: as above.
unsafe impl Sync for FileMap {}

impl Image {
    /// Maps a locked file whole; it becomes `len` bytes long, without taking space for them.
    pub fn map(file: File, len: usize, space: Space) -> io::Result<Self> {
        let len = len.max(1).next_multiple_of(SYSTEM_PAGE_BYTES);
        if file.metadata()?.len() < len as u64 {
            file.set_len(len as u64)?;
        }
        // SAFETY: a shared mapping of a descriptor of ours, at an address of the kernel's choice, touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel does not map address 0 unasked");
        let patched = AtomicBool::new(false);
        Ok(Image(Arc::new(FileMap {
            file,
            start,
            len,
            space,
            patched,
        })))
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// False: an image is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The file, for what is read or written beside the mapping.
    pub fn file(&self) -> &File {
        &self.0.file
    }

    /// True if some of the memory is not the file's: then the file lacks that part.
    pub fn is_patched(&self) -> bool {
        self.0.patched.load(Relaxed)
    }

    /// A part of it. Panics outside of it, or off the system's pages.
    pub(crate) fn part(&self, range: Range<usize>) -> Mapping {
        assert!(range.start.is_multiple_of(SYSTEM_PAGE_BYTES) && range.end <= self.0.len);
        // SAFETY: inside the mapping, just checked.
        let start = unsafe { self.0.start.add(range.start) };
        Mapping::of_file(self.clone(), range.start, start, range.len())
    }

    /// True if [`Image::back`] has something to do.
    pub(crate) fn wants_backing(&self) -> bool {
        self.0.space == Space::Allocated
    }

    /// Makes sure of space for `range`, so that a write there cannot fail (Im3).
    pub fn back(&self, range: Range<usize>) -> io::Result<()> {
        if !self.wants_backing() {
            return Ok(());
        }
        self.0.fallocate(0, range.clone()).or_else(|error| {
            if is_unknown(&error) {
                // Nobody has written there yet.
                let zeros = vec![0; SYSTEM_PAGE_BYTES];
                let mut at = range.start;
                while at < range.end {
                    let n = zeros.len().min(range.end - at);
                    self.0.file.write_all_at(&zeros[..n], at as u64)?;
                    at += n;
                }
                return Ok(());
            }
            Err(error)
        })
    }

    /// Gives the space of `range` back; what is read there from then on is zeros.
    pub(crate) fn punch(&self, range: Range<usize>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        #[cfg(not(target_os = "linux"))]
        let mode = 0;
        if mode == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.0.fallocate(mode, range)
    }

    /// Puts memory of the process where there is no space for the file's, in `range`, which nobody has touched yet.
    pub(crate) fn patch(&self, range: Range<usize>) -> io::Result<()> {
        assert!(range.start.is_multiple_of(SYSTEM_PAGE_BYTES) && range.end <= self.0.len);
        let at = self.0.start.as_ptr().wrapping_add(range.start);
        // SAFETY: a part of our own mapping, in which there is nothing yet: nobody finds other bytes there than before.
        let mapped = unsafe {
            libc::mmap(
                at.cast(),
                range.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.0.patched.store(true, Relaxed);
        Ok(())
    }
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
    ) || error.kind() == io::ErrorKind::Unsupported
}

impl FileMap {
    #[cfg(target_os = "linux")]
    fn fallocate(&self, mode: libc::c_int, range: Range<usize>) -> io::Result<()> {
        loop {
            // SAFETY: an open descriptor of ours.
            let done = unsafe {
                libc::fallocate(
                    self.file.as_raw_fd(),
                    mode,
                    range.start as libc::off_t,
                    range.len() as libc::off_t,
                )
            };
            let error = io::Error::last_os_error();
            if done == 0 {
                return Ok(());
            }
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn fallocate(&self, _mode: libc::c_int, _range: Range<usize>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and its parts each hold a share of `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
