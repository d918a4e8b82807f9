//! The side of the process that serves, and lets another take over.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use super::channel::{Channel, Kind};
use super::estate::{Estate, Rest};
use super::{ANSWER_WITHIN, ENDS_WITHIN, FORMAT, FROM_VARIABLE, PREPARE_WITHIN, doorbell_name};
use crate::packing::{Packer, Unpacker};
use crate::sys::{self, Process};

/// Those who may wait for an answer: one takes over.
const BACKLOG: i32 = 16;
/// A pause after a knock that failed for want of descriptors.
const NO_FILES_PAUSE: Duration = Duration::from_millis(100);

/// Where those knock who want to take over.
#[derive(Debug)]
pub struct Doorbell {
    listener: UnixListener,
    address: String,
}

impl Doorbell {
    /// One for the server that has `address`; or that of the server before, if it had the same.
    #[cfg(target_os = "linux")]
    pub fn at(address: &str, before: Option<&mut Estate>) -> io::Result<Self> {
        use std::os::linux::net::SocketAddrExt;
        let found = before.and_then(|before| before.doorbell.take());
        let listener = match found.filter(|(name, _)| name == address) {
            Some((_, socket)) => {
                // Again, so that those who knock are told that it is this process which listens.
                rustix::net::listen(&socket, BACKLOG)?;
                let listener = UnixListener::from(socket);
                send_away(&listener)?;
                listener
            }
            None => {
                let name = doorbell_name(address);
                let name = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                UnixListener::bind_addr(&name)?
            }
        };
        let address = address.to_owned();
        Ok(Doorbell { listener, address })
    }

    /// One for the server that has `address`.
    #[cfg(not(target_os = "linux"))]
    pub fn at(_address: &str, _before: Option<&mut Estate>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The address that it is known by.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A copy of its descriptor, for the next one.
    pub fn try_clone(&self) -> io::Result<(String, std::os::fd::OwnedFd)> {
        let socket = self.listener.try_clone()?;
        Ok((self.address.clone(), socket.into()))
    }

    /// Answers all who knock, one by one, and gives those to `follow` who are ready to take over: it comes back when one has not
    /// (Ho7). A thread's whole life.
    pub fn answer(&self, estate: &Estate, follow: impl Fn(Successor)) {
        loop {
            let knocked = self.listener.accept();
            let met = match knocked {
                Ok((socket, _)) => Channel::new(socket),
                Err(error) => {
                    log::debug!("takeover: {error}");
                    std::thread::sleep(NO_FILES_PAUSE);
                    continue;
                }
            };
            match met.and_then(|channel| Successor::meet(channel, estate)) {
                Ok(successor) => follow(successor),
                Err(error) => log::warn!("takeover: another process did not take over: {error}"),
            }
        }
    }
}

/// Hangs up on those who knocked at the process before: they know it as the one that answers, and are to knock again.
fn send_away(listener: &UnixListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    while listener.accept().is_ok() {}
    listener.set_nonblocking(false)
}

/// A process that is ready to take over.
#[derive(Debug)]
pub struct Successor {
    channel: Channel,
    process: Process,
}

impl Successor {
    /// Hands the estate over, and waits until the other is ready.
    fn meet(channel: Channel, estate: &Estate) -> io::Result<Self> {
        let (uid, pid) = channel.peer()?;
        let process = Process::of(pid)?;
        if !sys::is_own_user(uid, None) {
            return Err(io::Error::other(format!("it is user {uid}'s")));
        }
        channel.patience(PREPARE_WITHIN)?;
        let hello = channel.receive()?;
        let format = Unpacker::new(&hello.bytes).number::<u32>();
        let reason = if hello.kind != Kind::Hello as u32 || format != Some(FORMAT) {
            Some(
                "the two versions have no format in common: stop the server, with -e to keep the items",
            )
        } else if estate.memory.is_none() {
            Some(
                "its items lie in memory of its own, as with -L: stop the server, with -e to keep the items",
            )
        } else {
            None
        };
        if let Some(reason) = reason {
            let mut told = Packer::default();
            told.bytes(reason.as_bytes());
            channel.send(Kind::Refused, &told.into_bytes(), &[])?;
            return Err(io::Error::other(reason));
        }
        let successor = Successor { channel, process };
        match successor.prepare(estate) {
            Ok(()) => Ok(successor),
            Err(error) => {
                // It has the estate: were this process to crash, it would go on beside the next one.
                successor.end();
                Err(error)
            }
        }
    }

    /// Hands the estate over, and waits until the other has made of it what it can.
    fn prepare(&self, estate: &Estate) -> io::Result<()> {
        let (bytes, fds) = estate.pack();
        self.channel.send(Kind::Estate, &bytes, &fds)?;
        self.expect(Kind::Ready)
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Hands over what is left, and waits until the other serves (Ho1). After an error it does not, and never will.
    pub fn hand_over(&self, rest: &Rest) -> io::Result<()> {
        self.try_hand_over(rest).inspect_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                // It has taken too long. Nobody waits for it to give up.
                let _ = self.process.kill();
            }
        })
    }

    fn try_hand_over(&self, rest: &Rest) -> io::Result<()> {
        self.channel.patience(ANSWER_WITHIN)?;
        let (bytes, fds) = rest.pack();
        self.channel.send(Kind::Rest, &bytes, &fds)?;
        self.expect(Kind::Attached)?;
        self.channel.send(Kind::Go, b"", &[])?;
        self.expect(Kind::Serving).or_else(|error| {
            // Either its word is on the way, or it never will be.
            self.channel.stop_listening();
            self.expect(Kind::Serving).map_err(|_| error)
        })
    }

    fn expect(&self, kind: Kind) -> io::Result<()> {
        let message = self.channel.receive()?;
        if message.kind == kind as u32 {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// Waits until the other has ended, for which it is killed if it has not given up by itself (Ho2).
    pub fn end(self) {
        let pid = self.pid();
        loop {
            // Who closes its end does nothing any more but to end.
            let _ = self.channel.patience(ENDS_WITHIN);
            match self.channel.await_end() {
                Ok(()) => return,
                Err(error) => log::warn!("takeover: process {pid} does not end: {error}"),
            }
            if let Err(error) = self.process.kill() {
                log::warn!("takeover: process {pid} cannot be ended: {error}");
            }
        }
    }
}

/// Starts the program of this process again, as it was started, to take over from it. `program` is its path and `dir` its directory
/// when it was started.
pub fn launch(program: &PathBuf, dir: &PathBuf, address: &str) -> io::Result<Child> {
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    if !args.iter().any(|arg| arg == "--takeover") {
        args.insert(0, "--takeover".into());
    }
    Command::new(program)
        .args(args)
        .current_dir(dir)
        .env(FROM_VARIABLE, address)
        // It is not the process that the manager has started, but will be told to be the one to watch.
        .env_remove("SYSTEMD_EXEC_PID")
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .spawn()
}
