//! The service manager that has started this process, if one has.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;

use super::check;

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
    address: SocketAddr,
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
            [b'/', ..] => SocketAddr::from_pathname(&address).ok()?,
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => {
                use std::os::linux::net::SocketAddrExt;
                SocketAddr::from_abstract_name(name).ok()?
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
