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
mod machine;
mod spare;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr as SocketAddrUnix, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::low_level;

pub use clock::{TickMeter, boot_id, boot_ms, monotonic_ns, ns_of, ticks, ticks_of};
pub use machine::{Rusage, container, memory, memory_limit, resident_bytes, rusage};
pub use spare::{Sparing, is_short, refill};

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

/// Ends being root, if this process is: it becomes `user`, for good. Without a user it stays root, with a warning; `-u
/// root` stays root without one. Who is not root keeps what they have.
pub fn drop_root(user: Option<&str>) -> Result<(), String> {
    if !is_root() {
        return Ok(());
    }
    let Some(name) = user else {
        log::warn!("running as root; name another user with -u, or -u root to mean it");
        return Ok(());
    };
    let user = User::find(name)?;
    if user.uid == 0 {
        return Ok(());
    }
    let refused = |err| format!("-u {name}: cannot become this user: {err}");
    // The last type of initgroups differs between systems.
    let grouped = match &user.name {
        // SAFETY: the name is a string ending in NUL that lives through the call.
        Some(name) => unsafe { libc::initgroups(name.as_ptr(), user.gid as _) },
        // SAFETY: one group, read from our own memory.
        None => unsafe { libc::setgroups(1, &user.gid) },
    };
    check(grouped).map_err(refused)?;
    // The group goes first: after setuid there is no right to change it.
    // SAFETY: plain numbers.
    check(unsafe { libc::setgid(user.gid) }).map_err(refused)?;
    // SAFETY: plain numbers.
    check(unsafe { libc::setuid(user.uid) }).map_err(refused)
}

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

/// Whether `uid` is root, or the user that this process is, or will be when it has become `user`.
pub fn is_own_user(uid: u32, user: Option<&str>) -> bool {
    let becomes = || user.and_then(|name| User::find(name).ok());
    uid == 0 || uid == effective_uid() || becomes().is_some_and(|user| user.uid == uid)
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

fn is_root() -> bool {
    effective_uid() == 0
}

fn effective_uid() -> libc::uid_t {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { libc::geteuid() }
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

struct User {
    /// None for one that only has a number.
    name: Option<CString>,
    uid: libc::uid_t,
    gid: libc::gid_t,
}

impl User {
    fn find(name: &str) -> Result<User, String> {
        /// An entry of the user database is a few hundred bytes; its strings go here.
        const ENTRY_BYTES: usize = 16 << 10;
        let unknown = || format!("-u {name}: no such user");
        let name = CString::new(name).map_err(|_| unknown())?;
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut strings = vec![0; ENTRY_BYTES];
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are to our own memory of the length given, and outlive the call.
        let failed = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                strings.as_mut_ptr(),
                strings.len(),
                &mut found,
            )
        };
        if failed != 0 || found.is_null() {
            // Containers have users that are in no database; their group has the same number.
            let number = name.to_str().ok().and_then(|name| name.parse().ok());
            return number.ok_or_else(unknown).map(|uid| User {
                name: None,
                uid,
                gid: uid,
            });
        }
        // SAFETY: a non-null `found` points to `entry`, filled in. Its strings are not looked at.
        let entry = unsafe { entry.assume_init() };
        Ok(User {
            name: Some(name),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
        })
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

/// What the service manager has for this process.
#[derive(Debug, Default)]
pub struct HandedOver {
    /// The sockets that it listens on.
    pub sockets: Vec<OwnedFd>,
    /// The memory that a server before has given it to keep ([`Manager::keep`]).
    pub memory: Option<File>,
}

/// The name that memory is kept by.
const KEPT_MEMORY: &str = "ketch-memory";

/// What the service manager hands over: as many descriptors as `LISTEN_FDS` says, from descriptor 3 on, if `LISTEN_PID` is ours,
/// with the names in `LISTEN_FDNAMES` (sd_listen_fds(3)). To be called once, before threads and before a fork.
pub fn handed_over() -> io::Result<HandedOver> {
    const FIRST: RawFd = 3;
    let mut handed_over = HandedOver::default();
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(process::id()) {
        return Ok(handed_over);
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(FILES_HANDED_OVER_MAX);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    for index in 0..count {
        let fd = FIRST + index as RawFd;
        // SAFETY: a plain number; the call fails for one that is no open descriptor.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        // SAFETY: it is open, and by the protocol of LISTEN_FDS it was given to this process and to nobody in it before.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if names.next() == Some(KEPT_MEMORY) {
            handed_over.memory = Some(fd.into());
        } else {
            handed_over.sockets.push(fd);
        }
    }
    Ok(handed_over)
}

/// More sockets are handed over to nobody: a bound on what a variable says.
const FILES_HANDED_OVER_MAX: u32 = 64;

/// The service manager that wants to know when the server is ready (sd_notify(3)).
pub struct Manager {
    address: SocketAddrUnix,
}

impl Manager {
    /// The one whose address the environment has in `NOTIFY_SOCKET`. A process that inherited the variable from the one
    /// that the manager has started (`SYSTEMD_EXEC_PID`) has none.
    pub fn of_environment() -> Option<Self> {
        let started = std::env::var("SYSTEMD_EXEC_PID").unwrap_or_default();
        if started.parse().is_ok_and(|pid: u32| pid != process::id()) {
            return None;
        }
        let address = std::env::var_os("NOTIFY_SOCKET")?;
        let address = match address.as_bytes() {
            [b'/', ..] => SocketAddrUnix::from_pathname(&address).ok()?,
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => {
                use std::os::linux::net::SocketAddrExt;
                SocketAddrUnix::from_abstract_name(name).ok()?
            }
            _ => return None,
        };
        Some(Manager { address })
    }

    /// Tells it a state, such as `READY=1`.
    pub fn tell(&self, state: &str) -> io::Result<()> {
        self.tell_with(state, &[])
    }

    /// Gives it memory to keep while this process is not there, in the place of what it has: the next one gets it
    /// ([`HandedOver::memory`]). It keeps it where the unit says so (FileDescriptorStoreMax=).
    pub fn keep(&self, memory: &File) -> io::Result<()> {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={KEPT_MEMORY}"))?;
        let state = format!("FDSTORE=1\nFDNAME={KEPT_MEMORY}\nFDPOLL=0");
        self.tell_with(&state, &[memory.as_fd()])
    }

    fn tell_with(&self, state: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.address)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let slices = [io::IoSlice::new(state.as_bytes())];
        sendmsg(&socket, &slices, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
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

fn is_alive(pid: u32) -> bool {
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
