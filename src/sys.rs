//! What only the operating system can do: background, privileges, limits, signals, pid and port files.
//!
//! One of the three rooms where unsafe code is allowed (the others are `slab-alloc` and `cache/item`): these are calls
//! into libc with plain numbers and buffers of our own; no pointer outlives its call.
//!
//! ```text
//!  daemonize -> limits -> Signals -> (ports) -> drop_root -> PidFile -> (unix socket) -> Background::detach -> ..
//!  no thread yet       |             as root   |  as the user
//! ```
//!
//! Y1. [`daemonize`] runs before any thread is started: only the calling thread lives on in a forked process.
//! Y2. [`Signals::new`] runs after it, and before threads: a signal that comes early is answered, not lost.
//! Y3. The umask belongs to the whole process; [`Umask`] is held for one bind, while no other thread makes files.
//! Y4. Root makes no file where somebody else could have put a link in its place ([`is_roots_own`]), and gives none away:
//!     files are made by the user they belong to.
//!
//! SIGPIPE needs no care: the Rust runtime ignores it, and a write to a closed socket is an ordinary error.

#![allow(unsafe_code)]

mod clock;
mod files;
mod machine;
mod ring;
mod service;
mod spare;
#[cfg(test)]
mod tests;
mod user;

use std::fs::{self, File};
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::low_level;

pub use clock::{TickMeter, boot_id, boot_ms, monotonic_ns, ns_of, ticks, ticks_of};
pub use files::{
    PidFile, create_private, create_private_to_map, is_roots_own, is_socket_bound, lock_file,
    open_plain, open_plain_to_write, open_to_append, sync_directory_of, why_not_made,
    write_port_file,
};
pub use machine::{Queueing, Rusage, container, memory, memory_limit, resident_bytes, rusage};
pub use ring::{RingPlace, RingReader, RingWriter, Told, map_rings};
pub use service::{HandedOver, Manager, handed_over};
pub use spare::{Sparing, is_short, refill};
use user::{User, is_root};
pub use user::{drop_root, is_own_user};

/// The error of an address family that this machine does not have.
pub const EAFNOSUPPORT: i32 = libc::EAFNOSUPPORT;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGINT, SIGTERM: end now.
    Stop,
    /// SIGUSR1: end when the clients are done.
    StopGracefully,
    /// SIGHUP: read again what can be read again.
    Reload,
    /// SIGUSR2: have another process of the program go on.
    TakeOver,
}

/// The signals of this process as a stream of events.
pub struct Signals {
    inner: SignalsInfo,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP.
    pub fn new() -> io::Result<Self> {
        // A file that may not grow is an error of the write, as a full disk is.
        // SAFETY: plain numbers; nothing of ours runs when the signal comes.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        Ok(Signals {
            inner: SignalsInfo::new([SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP])?,
        })
    }

    /// Waits for the next event. Signals of one kind that arrive together count once.
    pub fn wait(&mut self) -> Event {
        let signal = self.inner.forever().next();
        match signal
            .expect("the stream ends only when closed, and we hand out no handle to close it")
        {
            SIGUSR1 => Event::StopGracefully,
            SIGUSR2 => Event::TakeOver,
            SIGHUP => Event::Reload,
            _ => Event::Stop,
        }
    }
}

/// Sends this process the signal for `event`, as the `shutdown` command does; [`Signals::wait`] answers it.
pub fn raise(event: Event) {
    let signal = match event {
        Event::Stop => SIGINT,
        Event::StopGracefully => SIGUSR1,
        Event::Reload => SIGHUP,
        Event::TakeOver => SIGUSR2,
    };
    low_level::raise(signal).expect("raise fails only on numbers that are no signals");
}

/// Which side of the fork this is.
pub enum Fork {
    /// The process that was started. It ends, well if the daemon came up.
    Parent {
        /// Whether the daemon called [`Background::detach`].
        ready: bool,
    },
    /// The daemon.
    Child(Background),
}

/// The daemon's promise to tell its parent when it is ready; dropped, it tells of failure.
pub struct Background {
    parent: PipeWriter,
}

/// Goes on in a forked process with its own session, in `/`, with nothing to read from. The parent waits until the daemon
/// is ready or has ended, so that whoever started it sees its errors and can connect once it returns.
pub fn daemonize() -> io::Result<Fork> {
    let (mut from_child, parent) = io::pipe()?;
    // SAFETY: no other thread exists (Y1), so the child may do everything its parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(from_child);
            // SAFETY: setsid takes no arguments; a fresh child leads no group, so it succeeds.
            unsafe { libc::setsid() };
            std::env::set_current_dir("/")?;
            let null = File::options().read(true).write(true).open("/dev/null")?;
            replace_fd(&null, libc::STDIN_FILENO)?;
            replace_fd(&null, libc::STDOUT_FILENO)?;
            Ok(Fork::Child(Background { parent }))
        }
        _ => {
            drop(parent);
            let ready = from_child.read(&mut [0]).is_ok_and(|count| count == 1);
            Ok(Fork::Parent { ready })
        }
    }
}

impl Background {
    /// Lets the parent go. Standard error is let go too, unless someone wants to read it.
    pub fn detach(mut self, keep_stderr: bool) -> io::Result<()> {
        if !keep_stderr {
            redirect_stderr(&File::options().write(true).open("/dev/null")?)?;
        }
        self.parent.write_all(b".")
    }
}

/// From now on standard error goes to `file`.
pub fn redirect_stderr(file: &File) -> io::Result<()> {
    replace_fd(file, libc::STDERR_FILENO)
}

fn replace_fd(file: &File, fd: libc::c_int) -> io::Result<()> {
    // SAFETY: both are open descriptors; the standard ones are used by number and owned by nobody.
    check(unsafe { libc::dup2(file.as_raw_fd(), fd) })
}

/// Another process, which is never mistaken for a later one of the same number.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    #[cfg(target_os = "linux")]
    fd: OwnedFd,
}

impl Process {
    /// The process of that number.
    #[cfg(target_os = "linux")]
    pub fn of(pid: i32) -> io::Result<Self> {
        // SAFETY: plain numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Process { pid, fd })
    }

    /// The process of that number: not known here.
    #[cfg(not(target_os = "linux"))]
    pub fn of(_pid: i32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends it at once.
    pub fn kill(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        // SAFETY: a descriptor of ours and plain numbers.
        let killed = unsafe {
            let (fd, none) = (self.fd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
            libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0)
        };
        #[cfg(not(target_os = "linux"))]
        let killed = -1;
        check(killed as libc::c_int)
    }

    /// Whether it has ended, or does so within this time.
    pub fn ends_within(&self, time: Duration) -> bool {
        #[cfg(target_os = "linux")]
        {
            let mut asked = libc::pollfd {
                fd: self.fd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let ms = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: one descriptor, in a struct of ours.
            unsafe { libc::poll(&mut asked, 1, ms) == 1 }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = time;
            false
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
type Resource = libc::c_int;

/// Raises the number of open files to `wanted`, or as near as allowed; returns what it is now.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    raise_limit(libc::RLIMIT_NOFILE, wanted)
}

/// Lets the kernel write core files of any size, also after a change of user; an error where it will write none.
pub fn allow_coredumps() -> io::Result<()> {
    if raise_limit(libc::RLIMIT_CORE, libc::RLIM_INFINITY)? == 0 {
        return Err(io::Error::other(
            "the limit on core files is 0 and cannot be raised",
        ));
    }
    // A process that has changed its user writes no core unless it says that it may.
    #[cfg(target_os = "linux")]
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1 as libc::c_ulong, 0, 0, 0) })?;
    Ok(())
}

/// Locks all memory of this process, now and later, as it is touched. To be called as root where there is a root: the
/// limit on locked memory is lifted first, and stays lifted for `user`, who comes after. Where it stays below twice
/// `memory_bytes` nothing is locked, as the allocations to come would fail; but who may lock memory, and stays who they are,
/// has no limit.
pub fn lock_memory(memory_bytes: u64, user: Option<&str>) -> io::Result<()> {
    let limit = raise_limit(libc::RLIMIT_MEMLOCK, libc::RLIM_INFINITY)?;
    let stays = match user {
        Some(name) if is_root() => User::find(name).is_ok_and(|user| user.uid == 0),
        _ => true,
    };
    let is_free = stays && may_lock_memory();
    if !is_free && limit < memory_bytes.saturating_mul(2) {
        let reason = format!(
            "the limit on locked memory is {limit} bytes and cannot be raised (ulimit -l, LimitMEMLOCK=)"
        );
        return Err(io::Error::other(reason));
    }
    // On touch: what is reserved for the cache to grow into would otherwise become memory at once.
    #[cfg(target_os = "linux")]
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    #[cfg(not(target_os = "linux"))]
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE;
    // SAFETY: plain flags.
    check(unsafe { libc::mlockall(flags) })
}

/// Whether this process has Linux's right to lock memory beyond its limit (CAP_IPC_LOCK).
fn may_lock_memory() -> bool {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|rights| u64::from_str_radix(rights.trim(), 16).ok());
    rights.unwrap_or(0) & CAP_IPC_LOCK != 0
}

fn raise_limit(resource: Resource, wanted: libc::rlim_t) -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct is ours and of the type asked for.
    check(unsafe { libc::getrlimit(resource, &mut limit) })?;
    if limit.rlim_cur >= wanted {
        return Ok(limit.rlim_cur);
    }
    // First as root may, the hard limit with the soft one; then up to the hard limit.
    let raised = libc::rlimit {
        rlim_cur: wanted,
        rlim_max: wanted.max(limit.rlim_max),
    };
    let allowed = libc::rlimit {
        rlim_cur: wanted.min(limit.rlim_max),
        rlim_max: limit.rlim_max,
    };
    for new in [raised, allowed] {
        // SAFETY: the struct is ours and only read.
        if unsafe { libc::setrlimit(resource, &new) } == 0 {
            return Ok(new.rlim_cur);
        }
    }
    Ok(limit.rlim_cur)
}

/// The umask that leaves exactly `access` bits; the old one comes back when this is dropped (Y3).
pub struct Umask {
    old: libc::mode_t,
}

impl Umask {
    /// New files get at most the permission bits `access`.
    pub fn allow(access: u32) -> Self {
        let mask = (!access & 0o777) as libc::mode_t;
        // SAFETY: a plain number; umask cannot fail.
        let old = unsafe { libc::umask(mask) };
        Umask { old }
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        // SAFETY: as in `allow`.
        unsafe { libc::umask(self.old) };
    }
}

/// Descriptors that are open and those there may be; 0 where the system does not tell.
pub fn open_files() -> (u64, u64) {
    let open = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
    // Raises nothing, so that it tells.
    let most = raise_open_files(0).unwrap_or(0);
    // The one that the listing itself took is closed again.
    (open.saturating_sub(1), most)
}

/// A libc answer as a result.
fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
