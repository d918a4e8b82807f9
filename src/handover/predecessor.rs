//! The side of the process that takes over.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::channel::{Channel, Kind, Message};
use super::estate::{Estate, Rest};
use super::{ENDS_WITHIN, FORMAT, FROM_VARIABLE, PREPARE_WITHIN, doorbell_name};
use crate::packing::{Packer, Unpacker};
use crate::settings::Settings;
use crate::sys::{self, Process};

/// What comes of a knock.
enum Visit {
    Met(Box<Predecessor>),
    NobodyThere,
    /// It has ended, or another has followed it, without an answer.
    Gone,
}

/// How long to knock where somebody is about to serve, and the pause between.
const KNOCK_WITHIN: Duration = Duration::from_secs(20);
const KNOCK_PAUSE: Duration = Duration::from_millis(10);

/// The server that was there before, and still serves.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    process: Process,
    /// What it leaves.
    pub estate: Estate,
}

impl Predecessor {
    /// Finds the server that has one of the addresses of `settings`; none if nobody has, or it crashes right now. The error is one
    /// line.
    pub fn find(settings: &Settings) -> Result<Option<Self>, String> {
        for address in addresses(settings) {
            let failed = |reason: String| format!("--takeover from {address}: {reason}");
            let until = Instant::now() + KNOCK_WITHIN;
            loop {
                match Self::visit(&address, settings).map_err(failed)? {
                    Visit::Met(predecessor) => return Ok(Some(*predecessor)),
                    Visit::NobodyThere => break,
                    // Whoever has followed it answers next, once it serves.
                    Visit::Gone if Instant::now() < until => std::thread::sleep(KNOCK_PAUSE),
                    Visit::Gone => {
                        return Err(failed("whoever serves there does not answer".into()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Knocks once.
    fn visit(address: &str, settings: &Settings) -> Result<Visit, String> {
        let told = |error: io::Error| error.to_string();
        let Some(socket) = knock(address).map_err(told)? else {
            return Ok(Visit::NobodyThere);
        };
        let channel = Channel::new(socket).map_err(told)?;
        let (uid, pid) = channel.peer().map_err(told)?;
        if !sys::is_own_user(uid, settings.user.as_deref()) {
            return Err(format!("user {uid} answers there, not the server's"));
        }
        let Ok(process) = Process::of(pid) else {
            return Ok(Visit::Gone);
        };
        match ask(&channel) {
            Ok(Some(estate)) => Ok(Visit::Met(Box::new(Predecessor {
                channel,
                process,
                estate,
            }))),
            Ok(None) => Ok(Visit::Gone),
            Err(_) if process.ends_within(ENDS_WITHIN) => Ok(Visit::Gone),
            Err(reason) => Err(reason),
        }
    }

    /// Says that all is ready, and waits for what is left when that server serves no more; none if it has crashed. From here on a
    /// process that takes long is killed.
    pub fn take(&self) -> Result<Option<Rest>, String> {
        let told = |error: io::Error| format!("--takeover: the server before goes on: {error}");
        let sent = self.channel.send(Kind::Ready, b"", &[]);
        let message = match sent.and_then(|()| self.channel.receive()) {
            Ok(message) => expect(message, Kind::Rest)?,
            Err(_) if self.process.ends_within(ENDS_WITHIN) => return Ok(None),
            Err(error) => return Err(told(error)),
        };
        let rest = Rest::unpack(&message.bytes, message.fds);
        rest.map(Some).ok_or_else(|| {
            "--takeover: what the server before hands over cannot be read".to_owned()
        })
    }

    /// Says that all is in place.
    pub fn attached(&self) -> io::Result<()> {
        self.channel.send(Kind::Attached, b"", &[])
    }

    /// Waits until the other lets go.
    pub fn await_go(&self) -> io::Result<()> {
        let message = self.channel.receive()?;
        expect(message, Kind::Go)
            .map(drop)
            .map_err(io::Error::other)
    }

    /// Says that this process serves from now on (Ho1).
    pub fn serving(&self) -> io::Result<()> {
        self.channel.send(Kind::Serving, b"", &[])
    }

    /// All three. After an error this process must not serve.
    pub fn commit(&self) -> Result<(), String> {
        let done = self
            .attached()
            .and_then(|()| self.await_go())
            .and_then(|()| self.serving());
        match done {
            // Nobody serves but who has all of it.
            Err(_) if self.process.ends_within(ENDS_WITHIN) => Ok(()),
            done => done.map_err(|error| format!("--takeover: the server before goes on: {error}")),
        }
    }
}

/// The addresses that a server with these settings would have, as doorbells are named.
fn addresses(settings: &Settings) -> Vec<String> {
    if let Ok(from) = std::env::var(FROM_VARIABLE) {
        return vec![from];
    }
    let tcp = settings.listen.iter().flat_map(|listen| &listen.addrs);
    let unix = settings.unix_socket.iter();
    tcp.map(ToString::to_string)
        .chain(unix.map(|path| path.display().to_string()))
        .collect()
}

#[cfg(target_os = "linux")]
fn knock(address: &str) -> io::Result<Option<UnixStream>> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = SocketAddr::from_abstract_name(doorbell_name(address))?;
    match UnixStream::connect_addr(&name) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn knock(_address: &str) -> io::Result<Option<UnixStream>> {
    Err(io::Error::other("this system hands no memory over"))
}

/// Asks for the estate; none if the other hangs up.
fn ask(channel: &Channel) -> Result<Option<Estate>, String> {
    let told = |error: io::Error| error.to_string();
    channel.patience(PREPARE_WITHIN).map_err(told)?;
    let mut hello = Packer::default();
    hello
        .number(FORMAT)
        .bytes(env!("CARGO_PKG_VERSION").as_bytes());
    let sent = channel.send(Kind::Hello, &hello.into_bytes(), &[]);
    let message = match sent.and_then(|()| channel.receive()) {
        Err(error) if hung_up(&error) => return Ok(None),
        message => expect(message.map_err(told)?, Kind::Estate)?,
    };
    Estate::unpack(&message.bytes, message.fds)
        .map(Some)
        .ok_or_else(|| "what it hands over cannot be read".to_owned())
}

fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn expect(message: Message, kind: Kind) -> Result<Message, String> {
    if message.kind == kind as u32 {
        return Ok(message);
    }
    if message.kind == Kind::Refused as u32 {
        let reason = Unpacker::new(&message.bytes).text().unwrap_or("refused");
        return Err(reason.to_owned());
    }
    Err(format!("an unknown message, {}", message.kind))
}
