//! Messages between the two processes, with descriptors.
//!
//! ```text
//!  | kind | bytes | descriptors |  the bytes  | one byte for each 64 descriptors more
//! ```

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors that go with one `sendmsg`.
const FDS_AT_ONCE: usize = 64;
/// The longest message: half-received values outside of item memory are in it.
const BYTES_MAX: usize = 1 << 30;
/// The most descriptors: as many connections as a process may have.
const FDS_MAX: usize = 1 << 20;
const HEAD_BYTES: usize = 12;

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Hello = 1,
    Estate = 2,
    Ready = 3,
    Rest = 4,
    Attached = 5,
    Go = 6,
    Serving = 7,
    /// It cannot be, for the reason that follows.
    Refused = 8,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: u32,
    pub(super) bytes: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// One end of the conversation.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UnixStream,
}

impl Channel {
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        Ok(Channel { socket })
    }

    /// How long a step of sending or receiving may take from now on.
    pub(super) fn patience(&self, within: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(within))?;
        self.socket.set_write_timeout(Some(within))
    }

    pub(super) fn send(&self, kind: Kind, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        let numbers = [kind as u32, bytes.len() as u32, fds.len() as u32];
        for (at, number) in head.chunks_exact_mut(4).zip(numbers) {
            at.copy_from_slice(&number.to_le_bytes());
        }
        let mut chunks = fds.chunks(FDS_AT_ONCE);
        self.send_with(&head, chunks.next().unwrap_or_default())?;
        (&self.socket).write_all(bytes)?;
        for chunk in chunks {
            self.send_with(b".", chunk)?;
        }
        Ok(())
    }

    fn send_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            let slices = [IoSlice::new(bytes)];
            match sendmsg(&self.socket, &slices, &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                // A message of a few bytes goes whole or not at all.
                Ok(_) => return Err(ErrorKind::WriteZero.into()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message; the end of the other is an error.
    pub(super) fn receive(&self) -> io::Result<Message> {
        let mut fds = Vec::new();
        let mut head = [0; HEAD_BYTES];
        self.receive_with(&mut head, &mut fds)?;
        let number = |nth: usize| {
            let bytes = head[nth * 4..].first_chunk().expect("three numbers");
            u32::from_le_bytes(*bytes)
        };
        let (kind, len, count) = (number(0), number(1) as usize, number(2) as usize);
        if len > BYTES_MAX || count > FDS_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::new();
        (&self.socket).take(len as u64).read_to_end(&mut bytes)?;
        while fds.len() < count {
            self.receive_with(&mut [0], &mut fds)?;
        }
        if bytes.len() != len || fds.len() != count {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(Message { kind, bytes, fds })
    }

    fn receive_with(&self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
        let mut at = 0;
        while at < bytes.len() {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut bytes[at..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = match recvmsg(&self.socket, &mut slices, &mut control, flags) {
                Err(rustix::io::Errno::INTR) => continue,
                received => received?,
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    fds.extend(received);
                }
            }
            if received.flags.contains(ReturnFlags::CTRUNC) {
                return Err(io::Error::other(
                    "the limit on open files is too low for all descriptors",
                ));
            }
            if received.bytes == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            at += received.bytes;
        }
        Ok(())
    }

    /// Takes nothing more from the other: what it says from now on it is told to be in vain.
    pub(super) fn stop_listening(&self) {
        // It fails where the other has ended.
        let _ = self.socket.shutdown(std::net::Shutdown::Read);
    }

    /// Waits until the other has ended, and all its memory is gone from it.
    pub(super) fn await_end(&self) -> io::Result<()> {
        let mut rest = [0; 256];
        loop {
            match (&self.socket).read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The user and the process at the other end.
    pub(super) fn peer(&self) -> io::Result<(u32, i32)> {
        let peer = rustix::net::sockopt::socket_peercred(&self.socket)?;
        Ok((peer.uid.as_raw(), peer.pid.as_raw_nonzero().get()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_come_with_all_their_descriptors() {
        let (one, other) = UnixStream::pair().expect("two sockets");
        let (one, other) = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        let null = File::open("/dev/null").expect("it is there");
        for count in [0, 1, FDS_AT_ONCE, 3 * FDS_AT_ONCE + 5] {
            let bytes: Vec<u8> = (0..100_000 * count.min(3)).map(|n| n as u8).collect();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let fds = vec![null.as_fd(); count];
                    one.send(Kind::Rest, &bytes, &fds).expect("sent");
                });
                let message = other.receive().expect("received");
                assert_eq!(message.kind, Kind::Rest as u32);
                assert!(message.bytes == bytes);
                assert_eq!(message.fds.len(), count);
            });
        }
        drop(one);
        let ended = other.receive().expect_err("the other has ended");
        assert_eq!(ended.kind(), ErrorKind::UnexpectedEof);
    }

    /// Ho1: what was sent before the other stopped to listen is found, what comes later is refused.
    #[test]
    fn who_is_no_longer_listened_to_learns_it() {
        let (one, other) = UnixStream::pair().expect("two sockets");
        let (one, other) = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        one.send(Kind::Serving, b"", &[]).expect("sent");
        other.stop_listening();
        assert!(one.send(Kind::Serving, b"", &[]).is_err());
        let found = other.receive().expect("it was there before");
        assert_eq!(found.kind, Kind::Serving as u32);
        assert!(other.receive().is_err());
    }
}
