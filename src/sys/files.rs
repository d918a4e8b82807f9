//! Files that root makes nowhere where others could put a link, files for their owner's eyes, and those that tell a process id
//! and ports.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use super::check;
use super::user::{effective_uid, is_root};

/// Whether nobody but root, or a group that root has let in, can put a file or a link on the way to the file at `path`, or
/// in its place.
pub fn is_roots_own(path: &Path) -> bool {
    const OTHERS_WRITE: u32 = 0o002;
    /// What lies in such a directory is moved by its owner alone.
    const STICKY: u32 = 0o1000;
    // With all links on the way followed: what is left are directories alone.
    let Ok(dir) = fs::canonicalize(directory_of(path)) else {
        return false;
    };
    dir.ancestors().enumerate().all(|(above, dir)| {
        fs::metadata(dir).is_ok_and(|found| {
            let others_write = found.mode() & OTHERS_WRITE != 0;
            let keeps = above > 0 && found.mode() & STICKY != 0;
            found.uid() == 0 && (!others_write || keeps)
        })
    })
}

/// Opens a file to append to, and makes it if there is none. Root takes no link for it.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let flags = if is_root() { libc::O_NOFOLLOW } else { 0 };
    let mut options = File::options();
    let opened = options
        .append(true)
        .create(true)
        .custom_flags(flags)
        .open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) if is_root() => {
            io::Error::other("it is a link, which root does not follow; name the file itself")
        }
        _ => error,
    })
}

/// Makes a file for its owner's eyes alone, where there is none. A link in its place is no file to write to.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(PRIVATE);
    options.open(path)
}

/// The same, to be mapped.
pub fn create_private_to_map(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(PRIVATE);
    options.open(path)
}

/// Opens a file to read, if it is one: no link, no pipe, no directory.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = options.read(true).custom_flags(flags).open(path);
    plain(opened)
}

/// Opens a file to change it, if it is one.
pub fn open_plain_to_write(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    plain(options.write(true).custom_flags(flags).open(path))
}

/// Locks a file for this process, which is made if there is none; nothing if another process has it locked.
pub fn lock_file(path: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options
        .mode(PRIVATE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = plain(options.open(path))?;
    // SAFETY: an open descriptor of ours.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(()) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sees to it that a file that was made or renamed is found under its name after a power cut.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Rights of files that hold what clients have stored.
const PRIVATE: u32 = 0o600;

fn plain(opened: io::Result<File>) -> io::Result<File> {
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => {
            io::Error::other("it is a link, which is not followed; name the file itself")
        }
        _ => error,
    })?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    Ok(file)
}

/// `error`, which came of making or opening `path`, and where rights were missing, whose rights and on what.
pub fn why_not_made(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let uid = effective_uid();
    // A file of another is in the way of its being opened; a socket is removed, which is the directory's matter.
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            format!("{error}: user {uid} may not write to this file")
        }
        _ => {
            let dir = directory_of(path).display();
            format!("{error}: user {uid} may not write to the directory {dir}")
        }
    }
}

/// Whether a process has bound a unix socket to `path`; `None` where the system does not tell.
pub fn is_socket_bound(path: &Path) -> Option<bool> {
    // Lines end with the path, as it was given to bind.
    let sockets = fs::read("/proc/net/unix").ok()?;
    let wanted = [b" ", path.as_os_str().as_bytes()].concat();
    let mut lines = sockets.split(|byte| *byte == b'\n');
    Some(lines.any(|line| line.ends_with(&wanted)))
}

/// The directory that the file at `path` lies in.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The file that holds our process id; removed when this is dropped.
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the process id to `path`, in one step for those who read it. Warns if the file named another process that
    /// still runs, unless this process takes over from another (`takes_over`).
    pub fn write(path: &Path, takes_over: bool) -> io::Result<Self> {
        let is_other = |&pid: &u32| pid != process::id() && is_alive(pid);
        if let Some(pid) = read_pid(path).filter(|pid| !takes_over && is_other(pid)) {
            log::warn!("{}: held the pid {pid}, which is running", path.display());
        }
        write_then_rename(path, ".tmp", &format!("{}\n", process::id()))?;
        Ok(PidFile {
            path: path.to_owned(),
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // If another server has taken the path meanwhile, the file is its own.
        if read_pid(&self.path) == Some(process::id())
            && let Err(err) = fs::remove_file(&self.path)
        {
            log::warn!("{}: cannot be removed: {err}", self.path.display());
        }
    }
}

fn read_pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

pub(super) fn is_alive(pid: u32) -> bool {
    // 0 and negative numbers mean groups of processes.
    let Some(pid) = libc::pid_t::try_from(pid).ok().filter(|&pid| pid > 0) else {
        return false;
    };
    // SAFETY: plain numbers; signal 0 only asks whether there is such a process.
    let answer = check(unsafe { libc::kill(pid, 0) });
    answer.map_or_else(|err| err.raw_os_error() == Some(libc::EPERM), |()| true)
}

/// Writes the bound ports as the test suites of memcached read them, a line each such as `TCP INET: 11211`; whoever waits
/// for the file sees it whole.
pub fn write_port_file(path: &Path, ports: &[(&str, &[SocketAddr])]) -> io::Result<()> {
    let mut text = String::new();
    for (transport, addrs) in ports {
        for addr in *addrs {
            let family = if addr.is_ipv4() { "INET" } else { "INET6" };
            text.push_str(&format!("{transport} {family}: {}\n", addr.port()));
        }
    }
    write_then_rename(path, ".lck", &text)
}

/// Writes `text` to `path` with `suffix` and renames that to `path`. Nothing is written to what stood there before: it may
/// be a link.
fn write_then_rename(path: &Path, suffix: &str, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create_new(&beside)?.write_all(text.as_bytes())?;
    fs::rename(&beside, path)
}
