//! A connection: a stream and the link that tells its bytes apart.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::stream::Stream;
use client_core::error::Failure;
use client_core::expect::Expect;
use client_core::health::Member;
use client_core::link::Link;
use client_core::options::ClientOptions;
use client_core::reply::{Broken, Reply};
use client_core::unawaited::Unawaited;

pub(super) struct Connection {
    pub(super) stream: Stream,
    link: Link,
    /// Whose it is.
    of: (Arc<Member>, Arc<ClientOptions>),
    connecting: bool,
    /// Bytes have come since that was asked last.
    progressed: bool,
    /// It has served an exchange before.
    pub(super) reused: bool,
    /// When it was given back to the pool.
    pub(super) idle_since: Instant,
}

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    Now(PollFlags),
    /// All is sent, and something to read is worth a short wait.
    Soon,
}

impl Ready {
    /// For nothing.
    pub(super) const NOT: Ready = Ready::Now(PollFlags::empty());
}

impl Connection {
    pub(super) fn new(
        stream: Stream,
        login: Option<Bytes>,
        of: (Arc<Member>, Arc<ClientOptions>),
        now: Instant,
    ) -> Self {
        Connection {
            stream,
            of,
            link: Link::new(login),
            connecting: true,
            progressed: false,
            reused: false,
            idle_since: now,
        }
    }

    /// Begins an exchange, and writes as much of it as the socket takes.
    pub(super) fn begin(&mut self, request: &Bytes, expect: Expect) -> Result<(), Failure> {
        // Most are written as a whole, and need not be kept.
        let mut written = 0;
        while written < request.len() && self.is_sent() {
            match self.stream.write(&request[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(&error)),
            }
        }
        self.link.send(request.slice(written..), expect);
        self.progressed = false;
        Ok(())
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> PollFlags {
        if self.is_sent() {
            PollFlags::IN
        } else {
            PollFlags::IN | PollFlags::OUT
        }
    }

    /// True if the kernel has all that is to be sent.
    pub(super) fn is_sent(&self) -> bool {
        !self.connecting && self.link.unsent().is_empty() && !self.stream.wants_write()
    }

    /// See [`Link::reusable`].
    pub(super) fn reusable(&self) -> bool {
        self.is_sent() && self.link.reusable()
    }

    /// See [`Link::settled`].
    pub(super) fn settled(&self) -> bool {
        self.link.settled()
    }

    /// See [`Link::heard`].
    pub(super) fn heard(&self) -> bool {
        self.link.heard()
    }

    /// See [`Link::disown`].
    pub(super) fn disown(&mut self, watch: Option<Unawaited>) {
        self.link.disown(watch);
    }

    /// See [`Link::is_watched`].
    pub(super) fn is_watched(&self) -> bool {
        self.link.is_watched()
    }

    /// Writes as much as the socket takes; called when it may take something.
    fn write(&mut self) -> Result<(), Failure> {
        if self.connecting {
            self.stream.connected().map_err(|_| Failure::Connect)?;
            self.connecting = false;
        }
        while !self.link.unsent().is_empty() || self.stream.wants_write() {
            match self.stream.write(self.link.unsent()) {
                Ok(0) => {}
                Ok(count) => self.link.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(&error)),
            }
        }
        Ok(())
    }

    /// Reads what has come, or with `wait` what comes soon; true if there may be more.
    fn read(&mut self, wait: bool) -> Result<bool, Failure> {
        let room = self.link.space();
        let len = room.len();
        match self.stream.read(room, wait) {
            Ok(0) => Err(Failure::Closed),
            Ok(count) => {
                self.link.filled(count);
                self.progressed = true;
                Ok(count == len)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// Goes on with the exchange as far as `ready` allows; true when its last reply has come.
    pub(super) fn advance(
        &mut self,
        ready: Ready,
        mut on_reply: impl FnMut(Reply, bool) -> Result<(), Broken>,
    ) -> Result<bool, Failure> {
        let mut wait = ready == Ready::Soon;
        if let Ready::Now(ready) = ready {
            if ready.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP) {
                self.write()?;
            }
            if self.connecting || !ready.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP)
            {
                return Ok(false);
            }
        }
        loop {
            let more = self.read(mem::take(&mut wait))?;
            while let Some((reply, last)) = self
                .link
                .next_reply()
                .map_err(|failure| self.told(failure))?
            {
                on_reply(reply, last).map_err(|Broken| Failure::Garbage)?;
                if last {
                    return Ok(true);
                }
            }
            if !more {
                return Ok(false);
            }
        }
    }

    /// Goes on as far as it goes without waiting, whatever it is ready for; true when the last reply has come.
    pub(super) fn look(
        &mut self,
        on_reply: impl FnMut(Reply, bool) -> Result<(), Broken>,
    ) -> Result<bool, Failure> {
        let mut fds = [PollFd::new(&self.stream, self.interest())];
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ready = match poll(&mut fds, Some(&zero)) {
            Ok(1..) => fds[0].revents(),
            _ => PollFlags::empty(),
        };
        self.advance(Ready::Now(ready), on_reply)
    }

    /// True if something has come since this was asked last.
    pub(super) fn has_progressed(&mut self) -> bool {
        mem::take(&mut self.progressed)
    }

    /// A failure of the link: of a refused login, the node's member is told.
    fn told(&self, failure: Failure) -> Failure {
        if failure == Failure::SignIn
            && let Some(line) = self.link.refused_login()
        {
            let (member, options) = &self.of;
            member.no_login(line, options, Instant::now());
        }
        failure
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let (member, options) = &self.of;
        match error.kind() {
            // What rustls has found.
            io::ErrorKind::InvalidData => member.no_tls(error, options, Instant::now()),
            _ => Failure::Closed,
        }
    }

    /// Reads replies that nobody waits for; false if the connection is of no use any more.
    pub(super) fn read_leftovers(&mut self) -> bool {
        loop {
            match self.read(false) {
                Ok(more) => match self.link.next_reply() {
                    Ok(None) if more => {}
                    Ok(None) => return true,
                    // Nothing can be the current exchange's: there is none.
                    Ok(Some(_)) | Err(_) => return false,
                },
                Err(_) => return false,
            }
        }
    }
}
