//! A connection: a stream and the link that tells its bytes apart.

use std::io;
use std::mem;
use std::time::Instant;

use bytes::Bytes;
use rustix::event::PollFlags;

use super::stream::Stream;
use crate::core::link::{Expect, Link};
use crate::core::reply::{Broken, Reply};
use crate::core::watch::Watch;
use crate::error::Failure;

pub(super) struct Connection {
    pub(super) stream: Stream,
    link: Link,
    connecting: bool,
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
    pub(super) fn new(stream: Stream, login: Option<Bytes>, now: Instant) -> Self {
        Connection {
            stream,
            link: Link::new(login),
            connecting: true,
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
                Err(error) => return Err(failure(&error)),
            }
        }
        self.link.send(request.slice(written..), expect);
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
    pub(super) fn disown(&mut self, watch: Option<Watch>) {
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
                Err(error) => return Err(failure(&error)),
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
                Ok(count == len)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(failure(&error)),
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
            while let Some((reply, last)) = self.link.next()? {
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

    /// Reads replies that nobody waits for; false if the connection is of no use any more.
    pub(super) fn read_leftovers(&mut self) -> bool {
        loop {
            match self.read(false) {
                Ok(more) => match self.link.next() {
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

fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        // What rustls has found.
        io::ErrorKind::InvalidData => Failure::SignIn,
        _ => Failure::Closed,
    }
}
