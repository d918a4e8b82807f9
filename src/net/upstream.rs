//! The sockets of a worker's lanes: connections to the nodes of a proxy.
//!
//! ```text
//!  desk: what is to be written where  --> sockets, on the worker's poll --> what came --> desk --> clients that are to have a turn
//! ```
//!
//! Up1. A lane is written to once in a wakeup, when all that is ready has been put into it.
//! Up2. Events come at edges: a read that filled its room, or a write that did not end, leaves its mark, and is continued at the
//!      next occasion.
//! Up3. Nobody is late whose reply has come: where more is ready than one poll tells of, nodes may stand behind many clients, and
//!      every lane is looked at before the desk looks who is late.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use client_core::error::Failure;
use client_core::options::Tls;
use mio::event::Event;
use mio::net::{TcpStream, UnixStream};
use mio::{Registry, Token};
use rustls::pki_types::ServerName;

use super::conn::Conn;
use super::slots::Slots;
use super::stream::Stream;
use super::tls_stream::TlsStream;
use crate::proxy::{Clients, Control, Desk, Owed, Stage, Target};
use crate::state::{ConnId, Ctx};
use crate::stats::TlsCounters;

/// Ids from here on are lanes, up to those of UDP sockets.
pub(super) const LANE_ID_MIN: usize = usize::MAX / 4;

/// What one read of a lane takes at most, unless it is in the middle of a large reply.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// Reads of one lane in a wakeup: others are to have their turn.
const READS_MAX: usize = 16;

#[derive(Debug)]
struct Socket {
    stream: Stream,
    readable: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) desk: Desk,
    /// By lane.
    sockets: Vec<Option<Socket>>,
    buffer: Vec<u8>,
    /// Lanes that are to be read from again.
    again: Vec<usize>,
    /// Of TLS to nodes.
    tls: Arc<TlsCounters>,
}

impl<'c> Clients<'c> for Slots<Conn<'c>> {
    fn owed(&mut self, id: ConnId) -> Option<&mut Owed<'c>> {
        if !self.has(id) {
            return None;
        }
        self.get_mut(id.slot)?.owed()
    }
}

impl Upstream {
    pub(super) fn new(control: Arc<Control>, worker: usize) -> Self {
        Upstream {
            desk: Desk::new(control, worker),
            sockets: Vec::new(),
            buffer: vec![0; READ_BUFFER_BYTES],
            again: Vec::new(),
            tls: Arc::default(),
        }
    }

    /// True if there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        !self.again.is_empty()
    }

    /// Takes in what the poll says of a lane.
    pub(super) fn event<'c>(&mut self, ctx: Ctx<'c>, event: &Event, conns: &mut Slots<Conn<'c>>) {
        let at = event.token().0 - LANE_ID_MIN;
        let Some(Some(socket)) = self.sockets.get_mut(at) else {
            return;
        };
        socket.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        if event.is_writable() {
            if !self.is_connected(at, conns) {
                return;
            }
            self.write(ctx, at, conns);
        }
        self.read(ctx, at, conns);
    }

    /// Looks at every lane without being told to (Up3).
    pub(super) fn catch_up<'c>(&mut self, ctx: Ctx<'c>, conns: &mut Slots<Conn<'c>>) {
        for at in 0..self.sockets.len() {
            let (Some(Some(socket)), Some(lane)) = (self.sockets.get_mut(at), self.desk.lane(at))
            else {
                continue;
            };
            if matches!(lane.stage, Stage::Connecting(_)) {
                // Without a peer it is not connected yet. Why one never is comes as its event.
                let is_there =
                    matches!(socket.stream, Stream::Unix(_)) || socket.stream.peer_ip().is_some();
                if !is_there || !self.is_connected(at, conns) {
                    continue;
                }
                self.write(ctx, at, conns);
            }
            if let Some(Some(socket)) = self.sockets.get_mut(at) {
                socket.readable = true;
            }
            self.read(ctx, at, conns);
        }
    }

    /// Whether a lane's socket, which takes bytes now, is connected; a lane whose socket is not fails.
    fn is_connected<'c>(&mut self, at: usize, conns: &mut Slots<Conn<'c>>) -> bool {
        let (Some(Some(socket)), Some(lane)) = (self.sockets.get(at), self.desk.lane(at)) else {
            return false;
        };
        if matches!(lane.stage, Stage::Connecting(_)) {
            if let Some(failure) = socket.stream.connect_failure() {
                log::debug!("proxy: cannot connect: {failure}");
                self.desk.failed(at, Failure::Connect, conns);
                return false;
            }
            self.desk.opened(at);
        }
        true
    }

    /// Reads what has come on a lane.
    fn read<'c>(&mut self, ctx: Ctx<'c>, at: usize, conns: &mut Slots<Conn<'c>>) {
        for _ in 0..READS_MAX {
            // What the desk has closed meanwhile.
            self.close();
            let Some(Some(socket)) = self.sockets.get_mut(at) else {
                return;
            };
            if !socket.readable {
                return;
            }
            let Some(lane) = self.desk.lane(at) else {
                return;
            };
            let room = match lane.room() {
                Some(room) => room,
                None => &mut self.buffer[..],
            };
            let asked = room.len();
            let was_handshaking = socket.stream.is_handshaking();
            let read = socket.stream.read(room);
            let is_greeted = was_handshaking && !socket.stream.is_handshaking();
            match read {
                Ok(0) => return self.desk.failed(at, Failure::Closed, conns),
                Ok(n) => {
                    ctx.stats.general.bytes_read.add(n as u64);
                    socket.readable = n == asked || !socket.stream.is_drained();
                    self.desk.received(at, &mut self.buffer, n, conns);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => socket.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    return self.desk.failed_tls(at, &error, conns);
                }
                Err(error) => {
                    let connecting = matches!(lane.stage, Stage::Connecting(_));
                    log::debug!("proxy: {error}");
                    let failure = match connecting {
                        true => Failure::Connect,
                        false => Failure::Closed,
                    };
                    return self.desk.failed(at, failure, conns);
                }
            }
            if is_greeted {
                self.write(ctx, at, conns);
            }
        }
        if !self.again.contains(&at) {
            self.again.push(at);
        }
    }

    /// Reads on where there was more than one wakeup takes.
    pub(super) fn read_again<'c>(&mut self, ctx: Ctx<'c>, conns: &mut Slots<Conn<'c>>) {
        for at in std::mem::take(&mut self.again) {
            self.read(ctx, at, conns);
        }
    }

    fn close(&mut self) {
        for at in self.desk.take_closed() {
            if let Some(place) = self.sockets.get_mut(at) {
                *place = None;
            }
        }
    }

    /// Writes what the wakeup has put into the lanes, and connects those that are new.
    pub(super) fn flush<'c>(
        &mut self,
        ctx: Ctx<'c>,
        registry: &Registry,
        conns: &mut Slots<Conn<'c>>,
    ) {
        self.close();
        for at in self.desk.take_dirty() {
            if self.desk.lane(at).is_none() {
                continue;
            }
            if self.desk.begins(at) {
                self.connect(at, registry, conns);
            }
            self.write(ctx, at, conns);
        }
        self.close();
    }

    fn connect<'c>(&mut self, at: usize, registry: &Registry, conns: &mut Slots<Conn<'c>>) {
        if self.sockets.len() <= at {
            self.sockets.resize_with(at + 1, || None);
        }
        if self.desk.is_shut(at) {
            return self.desk.failed(at, Failure::SignIn, conns);
        }
        let Some(target) = self.desk.target(at) else {
            // Its name is being looked up: the desk has it asked for again, or fails it when that takes too long.
            return;
        };
        let tls = self.desk.lane(at).and_then(|lane| lane.tls());
        let tls = tls.filter(|_| matches!(target, Target::Tcp(_)));
        let opened = open(&target, tls, &self.tls, Token(LANE_ID_MIN + at), registry);
        match opened {
            Ok(stream) => {
                self.sockets[at] = Some(Socket {
                    stream,
                    readable: false,
                });
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                self.desk.failed_tls(at, &error, conns);
            }
            Err(error) => {
                log::debug!("proxy: cannot connect: {error}");
                self.desk.failed(at, Failure::Connect, conns);
            }
        }
    }

    fn write<'c>(&mut self, ctx: Ctx<'c>, at: usize, conns: &mut Slots<Conn<'c>>) {
        let Some(Some(socket)) = self.sockets.get_mut(at) else {
            return;
        };
        let Some(lane) = self.desk.lane(at) else {
            return;
        };
        if lane.stage != Stage::Open {
            return;
        }
        match socket.stream.flush() {
            // What is not sent yet, or not agreed on, comes first.
            Ok(true) if !socket.stream.is_handshaking() => {}
            Ok(_) => return,
            Err(_) => return self.desk.failed(at, Failure::Closed, conns),
        }
        while !lane.out.is_empty() {
            let written = match lane.out.plain() {
                Some(bytes) => socket.stream.write(bytes),
                None => {
                    let mut slices: Vec<IoSlice<'_>> = Vec::new();
                    lane.out.slices(&mut slices);
                    socket.stream.write_vectored(&slices)
                }
            };
            match written {
                Ok(0) => return self.desk.failed(at, Failure::Closed, conns),
                Ok(n) => {
                    ctx.stats.general.bytes_written.add(n as u64);
                    lane.out.advance(n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.desk.failed(at, Failure::Closed, conns),
            }
        }
        self.desk.drained(at, conns);
    }
}

/// A socket that is being connected.
fn open(
    target: &Target,
    tls: Option<(&Tls, &str)>,
    counters: &Arc<TlsCounters>,
    token: Token,
    registry: &Registry,
) -> io::Result<Stream> {
    let invalid =
        |error: &dyn std::fmt::Display| io::Error::new(ErrorKind::InvalidInput, error.to_string());
    let mut stream = match target {
        Target::Tcp(addr) => {
            let stream = TcpStream::connect(*addr)?;
            stream.set_nodelay(true)?;
            match tls {
                None => Stream::Tcp(stream),
                Some((tls, name)) => {
                    let name = ServerName::try_from(name.to_owned());
                    let name = name.map_err(|error| invalid(&error))?;
                    let (config, counters) = (tls.config.clone(), counters.clone());
                    let stream = TlsStream::connect(stream, config, name, counters);
                    Stream::Tls(stream.map_err(|error| invalid(&error))?)
                }
            }
        }
        Target::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
    };
    stream.register(registry, token)?;
    Ok(stream)
}
