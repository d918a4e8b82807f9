//! What one process leaves to another: before the pause, and in it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::net::{Carried, Sockets};
use crate::packing::{Packer, Unpacker};
use crate::snapshot::OpenSegment;

/// What is handed over while the one before still serves: copies of descriptors.
#[derive(Debug)]
pub struct Estate {
    /// Listeners and UDP sockets.
    pub sockets: Sockets,
    /// A service manager has bound the listeners.
    pub is_handed_over: bool,
    /// HTTP listeners.
    pub http: Vec<OwnedFd>,
    /// The memory, unless it is the process's own.
    pub memory: Option<File>,
    /// The memory's name, if it has one (`-e`).
    pub memory_path: Option<PathBuf>,
    /// Lock files, which stay locked while somebody has them.
    pub locks: Vec<(PathBuf, File)>,
    /// The doorbell, and the address that it is known by.
    pub doorbell: Option<(String, OwnedFd)>,
}

fn pack_path(path: Option<&Path>, to: &mut Packer) {
    to.bytes(path.map_or(b"", |path| path.as_os_str().as_encoded_bytes()));
}

fn unpack_path(from: &mut Unpacker<'_>) -> Option<Option<PathBuf>> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = from.bytes()?;
    let path = std::ffi::OsStr::from_bytes(bytes);
    Some((!bytes.is_empty()).then(|| path.into()))
}

impl Estate {
    /// The message, and the descriptors that go with it.
    pub(super) fn pack(&self) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
        let mut to = Packer::default();
        let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
        let Sockets { tcp, unix, udp } = &self.sockets;
        for list in [tcp, unix, udp, &self.http] {
            to.size(list.len());
            fds.extend(list.iter().map(AsFd::as_fd));
        }
        to.number(self.is_handed_over);
        to.number(self.memory.is_some());
        pack_path(self.memory_path.as_deref(), &mut to);
        fds.extend(self.memory.as_ref().map(AsFd::as_fd));
        to.size(self.locks.len());
        for (path, file) in &self.locks {
            pack_path(Some(path), &mut to);
            fds.push(file.as_fd());
        }
        let address = self.doorbell.as_ref().map_or("", |(address, _)| address);
        to.bytes(address.as_bytes());
        fds.extend(self.doorbell.as_ref().map(|(_, socket)| socket.as_fd()));
        (to.into_bytes(), fds)
    }

    /// What a message says; none if that cannot be.
    pub(super) fn unpack(bytes: &[u8], fds: Vec<OwnedFd>) -> Option<Self> {
        let from = &mut Unpacker::new(bytes);
        let mut fds = fds.into_iter();
        let mut lists = [const { Vec::new() }; 4];
        for list in &mut lists {
            for _ in 0..from.number::<usize>()? {
                list.push(fds.next()?);
            }
        }
        let [tcp, unix, udp, http] = lists;
        let is_handed_over = from.flag()?;
        let has_memory = from.flag()?;
        let memory_path = unpack_path(from)?;
        let memory = match has_memory {
            true => Some(fds.next()?.into()),
            false => None,
        };
        let mut locks = Vec::new();
        for _ in 0..from.number::<usize>()? {
            locks.push((unpack_path(from)??, fds.next()?.into()));
        }
        let address = from.text()?.to_owned();
        let doorbell = match address.is_empty() {
            true => None,
            false => Some((address, fds.next()?)),
        };
        Some(Estate {
            sockets: Sockets { tcp, unix, udp },
            is_handed_over,
            http,
            memory,
            memory_path,
            locks,
            doorbell,
        })
    }
}

/// What is handed over when nobody serves any more.
#[derive(Debug, Default)]
pub struct Rest {
    /// The connections.
    pub conns: Vec<Carried>,
    /// Connections with TLS, which were ended.
    pub ended: usize,
    /// The cluster's node list that clients get, if there is one.
    pub cluster: Option<(u32, Vec<u8>)>,
    /// Where the log goes on.
    pub log: Option<OpenSegment>,
    /// A snapshot was being written, or was asked for.
    pub wants_snapshot: bool,
    /// When the last command was answered, on the machine's monotonic clock, in nanoseconds.
    pub paused_ns: u64,
}

impl Rest {
    /// The message, and the descriptors that go with it.
    pub(super) fn pack(&self) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
        let mut to = Packer::default();
        let mut fds = Vec::with_capacity(self.conns.len() + 1);
        to.number(self.paused_ns).size(self.ended);
        to.number(self.wants_snapshot);
        to.number(self.cluster.is_some());
        if let Some((flags, list)) = &self.cluster {
            to.number(*flags).bytes(list);
        }
        to.number(self.log.is_some());
        if let Some(log) = &self.log {
            to.number(log.number).number(log.bytes);
            to.number(log.blocks)
                .number(log.events)
                .number(log.follows_gap);
            fds.push(log.file.as_fd());
        }
        to.size(self.conns.len());
        for conn in &self.conns {
            to.bytes(&conn.packed);
            fds.push(conn.socket.as_fd());
        }
        (to.into_bytes(), fds)
    }

    /// What a message says; none if that cannot be.
    pub(super) fn unpack(bytes: &[u8], fds: Vec<OwnedFd>) -> Option<Self> {
        let from = &mut Unpacker::new(bytes);
        let mut fds = fds.into_iter();
        let mut rest = Rest {
            paused_ns: from.number()?,
            ended: from.number()?,
            wants_snapshot: from.flag()?,
            ..Rest::default()
        };
        if from.flag()? {
            rest.cluster = Some((from.number()?, from.bytes()?.to_vec()));
        }
        if from.flag()? {
            rest.log = Some(OpenSegment {
                number: from.number()?,
                bytes: from.number()?,
                blocks: from.number()?,
                events: from.number()?,
                follows_gap: from.flag()?,
                file: fds.next()?.into(),
            });
        }
        for _ in 0..from.number::<usize>()? {
            rest.conns.push(Carried {
                packed: from.bytes()?.to_vec(),
                socket: fds.next()?,
            });
        }
        Some(rest)
    }
}
