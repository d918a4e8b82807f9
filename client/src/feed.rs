//! What becomes of the items of a node, as it happens: `watch feed` over a connection of its own.
//!
//! ```no_run
//! use std::time::Duration;
//! use ketch_client::feed::{Ask, Event, Feed, Key};
//! use ketch_client::{ClientOptions, Node};
//!
//! let node: Node = "cache1:11211".parse()?;
//! let mut feed = Feed::new(node, &ClientOptions::default(), Ask::default().prefix("user:"));
//! loop {
//!     match feed.next(Duration::from_secs(1)) {
//!         Some(Event::Change(change)) => match change.key {
//!             Key::Text(key) => println!("{:?} {}", change.what, key.escape_ascii()),
//!             _ => println!("all items"),
//!         },
//!         Some(Event::Lost(why)) => println!("drop all you hold: {why}"),
//!         // Where to go on after a restart: Ask::from.
//!         Some(Event::Began(place) | Event::Beat(place)) => println!("up to {place} all is told"),
//!         // Nothing in a second.
//!         None => {}
//!     }
//! }
//! # Ok::<(), ketch_client::NodeError>(())
//! ```
//!
//! A feed connects again by itself, and goes on where it was. What it tells of that is:
//!
//! | what comes | what was missed |
//! | --- | --- |
//! | [`Lost`] that [is over](Lost::is_over), and [`Event::Began`] at the place where it was | nothing; but from the one to the other nothing was known of the node |
//! | [`Event::Began`] at another place, [`Lost`] | something, which nobody can tell any more |
//! | [`Lost::Gap`] in the middle | the same |
//!
//! So a cache, which must know the present, drops all it holds at each [`Lost`]; a copier, which must know all, has missed something
//! only at those that are not over.
//!
//! ```text
//!  link: none --pause over--> connecting --> request sent --> lines -> client_core::feed::Reader -> events
//!          ^------------- Lost: closed, silent, behind, .. --------------------------'
//! ```

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Node;
use crate::blocking::resolve::Resolver;
use crate::blocking::stream::Stream;
pub use client_core::feed::{Ask, Change, Event, Form, Key, Lost, NoPlace, Place, Reader, What};
use client_core::options::ClientOptions;

/// The shortest and the longest pause before a feed connects again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How often it looks whether a name is resolved.
const LOOK: Duration = Duration::from_millis(10);

/// The feed of one node. See [the module](self).
pub struct Feed {
    node: Node,
    options: Arc<ClientOptions>,
    resolver: Resolver,
    ask: Ask,
    reader: Reader,
    /// When bytes came last.
    read_at: Instant,
    link: Option<Link>,
    /// Without a link: when to look for one, since when that was tried, and the pause after that.
    open_at: Instant,
    trying_since: Option<Instant>,
    pause: Duration,
    pause_max: Duration,
    /// It goes on where it was.
    goes_on: bool,
}

/// A connection.
struct Link {
    stream: Stream,
    unsent: Vec<u8>,
    sent: usize,
    is_connecting: bool,
    connect_by: Instant,
}

impl Link {
    /// True if the kernel has all of the request.
    fn is_sent(&self) -> bool {
        !self.is_connecting && self.sent == self.unsent.len() && !self.stream.wants_write()
    }

    /// Writes what the socket takes.
    fn write(&mut self) -> Result<(), Lost> {
        if self.is_connecting {
            self.stream.connected().map_err(|_| Lost::Connect)?;
            self.is_connecting = false;
        }
        while !self.is_sent() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error)),
            }
        }
        Ok(())
    }
}

fn lost(error: &std::io::Error) -> Lost {
    match error.kind() {
        // What rustls has found.
        ErrorKind::InvalidData => Lost::SignIn,
        _ => Lost::Closed,
    }
}

impl Feed {
    /// Of this node, with the login, the TLS and the connect timeout of `options`. It connects when it is first asked.
    pub fn new(node: Node, options: &ClientOptions, ask: Ask) -> Self {
        let now = Instant::now();
        // Nothing is tried yet, so there is nothing to tell of.
        let mut reader = Reader::new(ask.clone(), None, now);
        reader.end(Lost::Closed);
        let _ = reader.next(now);
        Feed {
            resolver: Resolver::new(&node.host, node.port, || ()),
            node,
            options: Arc::new(options.clone()),
            ask,
            reader,
            read_at: now,
            link: None,
            open_at: now,
            trying_since: None,
            pause: PAUSE.0,
            pause_max: PAUSE.1,
            goes_on: true,
        }
    }

    /// Does not go on where it was when it connects again, but begins anew.
    pub(crate) fn anew(mut self) -> Self {
        self.goes_on = false;
        self
    }

    /// The longest pause before it connects again.
    pub(crate) fn pause_at_most(mut self, pause: Duration) -> Self {
        self.pause_max = pause;
        self
    }

    /// Connects at once, if it is not connected.
    pub(crate) fn hurry(&mut self) {
        self.open_at = Instant::now();
        self.pause = PAUSE.0;
    }

    /// Whose it is.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The place behind what was given last, if it has begun: [`Ask::from`] goes on there.
    pub fn place(&self) -> Option<Place> {
        self.reader.place()
    }

    /// All that happened at the node before this moment was given, or a [`Lost`] for it; `None` while there is no connection.
    pub fn known_until(&self) -> Option<Instant> {
        self.link.as_ref().and(self.reader.known_until())
    }

    /// The next event, if there is one within `wait`. What has come is given first, however late the caller is.
    pub fn next(&mut self, wait: Duration) -> Option<Event<'_>> {
        let until = Instant::now().checked_add(wait);
        while !self.has_next() {
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return None;
            }
            let at = self.due_at().min(until.unwrap_or_else(|| self.due_at()));
            self.wait(at.saturating_duration_since(now));
        }
        self.take()
    }

    /// The event that [`has_next`](Self::has_next) has found.
    pub(crate) fn take(&mut self) -> Option<Event<'_>> {
        self.reader.next(self.read_at)
    }

    /// Whether there is an event, perhaps after reading what has come. Does not wait.
    pub(crate) fn has_next(&mut self) -> bool {
        // What has come is read as of then: it is no silence that nobody asked since.
        if self.reader.has_next(self.read_at) {
            return self.seen();
        }
        let now = Instant::now();
        if let Err(why) = self.work(now) {
            self.reader.end(why);
        }
        self.read_at = now;
        self.reader.has_next(now) && self.seen()
    }

    /// There is an event.
    fn seen(&mut self) -> bool {
        if self.reader.is_over() {
            self.link = None;
            self.open_at = Instant::now() + self.pause;
            self.pause = (2 * self.pause).min(self.pause_max);
        } else if self.reader.is_reading() {
            self.pause = PAUSE.0;
        }
        true
    }

    /// When [`has_next`](Self::has_next) is to be asked if the socket has nothing to say before.
    pub(crate) fn due_at(&self) -> Instant {
        match &self.link {
            None => self.open_at,
            Some(link) => {
                let due_at = self.reader.due_at().unwrap_or(self.read_at);
                if link.is_connecting {
                    due_at.min(link.connect_by)
                } else {
                    due_at
                }
            }
        }
    }

    /// The socket, and what to wait for.
    pub(crate) fn socket(&self) -> Option<PollFd<'_>> {
        let link = self.link.as_ref()?;
        let wants = if link.is_sent() {
            PollFlags::IN
        } else if link.is_connecting {
            PollFlags::OUT
        } else {
            PollFlags::IN | PollFlags::OUT
        };
        Some(PollFd::new(&link.stream, wants))
    }

    /// Waits for the socket, for so long at most.
    fn wait(&self, at_most: Duration) {
        let Some(socket) = self.socket() else {
            return std::thread::sleep(at_most);
        };
        // An error (a signal) is as good as nothing ready.
        let _ = poll(&mut [socket], Some(&timespec(at_most)));
    }

    /// Connects, writes and reads, as far as that goes without waiting.
    fn work(&mut self, now: Instant) -> Result<(), Lost> {
        let Some(link) = &mut self.link else {
            return self.open(now);
        };
        if link.is_connecting && !is_writable(&link.stream) {
            if now >= link.connect_by {
                self.resolver.doubt();
                return Err(Lost::Connect);
            }
            return Ok(());
        }
        if !link.is_sent() {
            link.write().inspect_err(|why| {
                if *why == Lost::Connect {
                    self.resolver.doubt();
                }
            })?;
        }
        match link.stream.read(self.reader.space(), false) {
            Ok(0) => Err(Lost::Closed),
            Ok(count) => {
                self.reader.filled(count);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(lost(&error)),
        }
    }

    /// Begins to connect, if it is time for that and the address is known.
    fn open(&mut self, now: Instant) -> Result<(), Lost> {
        if now < self.open_at {
            return Ok(());
        }
        let since = *self.trying_since.get_or_insert(now);
        let place = self.reader.place().filter(|_| self.goes_on);
        let begin = |feed: &mut Self| {
            feed.trying_since = None;
            let ask = match place {
                Some(place) => feed.ask.clone().from(place),
                None => feed.ask.clone(),
            };
            let login = feed.options.login.as_ref();
            let request = ask.request(login);
            feed.reader = Reader::new(ask, login, now);
            request
        };
        let opened = match self.node.socket_path() {
            Some(path) => Stream::open_unix(path),
            None => match self.resolver.next(now, now) {
                Some(addr) => Stream::open(addr, &self.node.host, &self.options),
                None if now.saturating_duration_since(since) < self.options.connect_timeout => {
                    self.open_at = now + LOOK;
                    return Ok(());
                }
                None => {
                    begin(self);
                    return Err(Lost::Connect);
                }
            },
        };
        let unsent = begin(self);
        let stream = opened.map_err(|error| {
            log::debug!("{}: {error}", self.node.address());
            self.resolver.doubt();
            match error.kind() {
                ErrorKind::InvalidInput => Lost::SignIn,
                _ => Lost::Connect,
            }
        })?;
        self.link = Some(Link {
            stream,
            unsent,
            sent: 0,
            is_connecting: true,
            connect_by: now + self.options.connect_timeout,
        });
        Ok(())
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("node", &self.node.address())
            .field("place", &self.place())
            .field("is_connected", &self.link.is_some())
            .finish_non_exhaustive()
    }
}

fn is_writable(stream: &Stream) -> bool {
    let mut socket = [PollFd::new(stream, PollFlags::OUT)];
    poll(&mut socket, Some(&timespec(Duration::ZERO))).is_ok_and(|ready| ready > 0)
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
