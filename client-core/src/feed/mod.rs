//! Reads a `watch feed`: bytes of a connection in, what happened to items out. It knows whether anything was missed.
//!
//! ```text
//!  Ask ---request()--> node
//!  node --bytes--> space() .. filled(n) --> next(now) --> Began | Change | Beat | Lost(why)
//!                                              '--> place(): go on behind it, on another connection
//! ```
//!
//! Fr1. Every [`Change`] behind [`Reader::place`] is given, in order, or a [`Lost`] comes first. Who is told of one drops all it
//!     holds that came by this feed.
//! Fr2. The same bytes give the same events, however they were cut into reads.
//! Fr3. Memory is bounded by the buffer: a longer line is no line of a feed.
//! Fr4. What is over stays over: behind a [`Lost`] of which [`Lost::is_over`] is true comes nothing.
//! Fr5. What happened before [`Reader::known_until`] has been given. It is counted from when the request was sent, by the node's own
//!     clock, so that lines that wait on their way do not make it look newer than it is.
//!
//! docs/invalidation.md has the lines, and what a node promises.

mod line;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use memchr::memchr;

use self::line::{Found, Line, Named};
use crate::options::Login;
use crate::request;

/// Bytes of the buffer: many lines.
const BUFFER_LEN: usize = 64 << 10;
/// The longest line, in bytes: a key of 250 bytes takes three for each, and some words may yet come.
const LINE_LEN_MAX: usize = 4096;
/// The shortest and the longest time between heartbeats that nodes take, in milliseconds.
const HEARTBEAT_MS: (u128, u128) = (10, 3_600_000);
/// Heartbeats in the time after which silence is too long.
const BEATS: u32 = 5;

/// A place in a node's feed: behind the event of this number, in this epoch. Written `EPOCH:SEQ`, as `from=` has it.
///
/// ```
/// use ketch_client::feed::Place;
///
/// let place: Place = "00c0ffee00c0ffee:17".parse()?;
/// assert_eq!((place.seq, place.to_string().as_str()), (17, "00c0ffee00c0ffee:17"));
/// # Ok::<(), ketch_client::feed::NoPlace>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Another one for each start of a server.
    pub epoch: u64,
    /// The number of the last event that was seen.
    pub seq: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.epoch, self.seq)
    }
}

/// The text is no [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPlace;

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a place in a feed is written EPOCH:SEQ")
    }
}

impl std::error::Error for NoPlace {}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (epoch, seq) = text.split_once(':').ok_or(NoPlace)?;
        Ok(Place {
            epoch: line::hex(epoch.as_bytes()).ok_or(NoPlace)?,
            seq: line::number(seq.as_bytes()).ok_or(NoPlace)?,
        })
    }
}

/// How keys are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// By their bytes.
    #[default]
    Text,
    /// By FNV-1a with 64 bits: shorter lines.
    Hash,
}

/// What is asked of a node, and when its silence is too long.
#[derive(Debug, Clone)]
pub struct Ask {
    pub(crate) prefix: Box<[u8]>,
    pub(crate) form: Form,
    pub(crate) from: Option<Place>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) silence: Duration,
    pub(crate) behind: Option<Duration>,
}

impl Default for Ask {
    fn default() -> Self {
        Ask {
            prefix: Box::default(),
            form: Form::Text,
            from: None,
            heartbeat: None,
            silence: Duration::from_secs(5),
            behind: None,
        }
    }
}

impl Ask {
    /// Only keys that begin so. Flushes are told in any case.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = prefix.as_ref().into();
        self
    }

    /// How keys are named (by their bytes).
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Goes on behind this place. Without it, the feed begins now.
    pub fn from(mut self, place: impl Into<Option<Place>>) -> Self {
        self.from = place.into();
        self
    }

    /// How long nothing may be heard (5 s), before it is [`Lost::Silent`].
    pub fn silence(mut self, bound: Duration) -> Self {
        self.silence = bound;
        self
    }

    /// How far behind the present the reader may be, before it is [`Lost::Behind`] (any time). Lines that wait somewhere on their way
    /// are no silence, but tell of the past.
    pub fn behind(mut self, bound: Duration) -> Self {
        self.behind = Some(bound);
        self
    }

    /// How often the node is to say that nothing more has happened (a fifth of the shorter bound).
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = Some(every);
        self
    }

    fn heartbeat_ms(&self) -> u128 {
        let bound = self
            .behind
            .map_or(self.silence, |bound| bound.min(self.silence));
        let every = self.heartbeat.unwrap_or(bound / BEATS);
        every.as_millis().clamp(HEARTBEAT_MS.0, HEARTBEAT_MS.1)
    }

    /// The bytes to send first: the login, if there is one, and the command.
    pub fn request(&self, login: Option<&Login>) -> Vec<u8> {
        let mut bytes = login.map_or(Vec::new(), |login| {
            request::login(&login.user, &login.password)
        });
        bytes.extend_from_slice(b"watch feed");
        if !self.prefix.is_empty() {
            bytes.extend_from_slice(b" prefix=");
            protocol::uri_encode(&self.prefix, &mut bytes);
        }
        if self.form == Form::Hash {
            bytes.extend_from_slice(b" form=hash");
        }
        if let Some(place) = self.from {
            bytes.extend_from_slice(format!(" from={place}").as_bytes());
        }
        bytes.extend_from_slice(
            format!(" heartbeat={} clock=ms\r\n", self.heartbeat_ms()).as_bytes(),
        );
        bytes
    }
}

/// What comes of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'r> {
    /// The node has taken the reader on: all that happens behind this place is told. If the place is not the one that was asked for,
    /// a [`Lost`] follows.
    Began(Place),
    /// Something has become of items.
    Change(Change<'r>),
    /// All up to this place is told.
    Beat(Place),
    /// Something is missed, or may be: whoever holds anything by this feed drops it.
    Lost(Lost),
}

/// Something that has become of an item, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'r> {
    /// Its number in the node's epoch.
    pub seq: u64,
    /// What it is.
    pub what: What,
    /// What the node was doing, in its word: the command, or `upkeep`.
    pub cause: &'r str,
    /// Whom it has become of.
    pub key: Key<'r>,
    /// The CAS unique: the new one of what was stored or touched, the old one of what is gone, 0 if there is none.
    pub cas: u64,
    /// What the writer said of where it comes from (the meta flag `L`), 0 if nothing.
    pub origin: u16,
}

/// What has become of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// It was stored, or its value changed.
    Set,
    /// A client wanted it to go, whether it was there or not.
    Delete,
    /// All but its value may have changed.
    Touch,
    /// Its time had run out.
    Expire,
    /// It gave way to others.
    Evict,
    /// All items are gone.
    Flush,
    /// Something that this reader does not know: the item may be another.
    Other,
}

/// Whom something has become of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'r> {
    /// The key's bytes.
    Text(&'r [u8]),
    /// Its hash.
    Hash(u64),
    /// All items.
    All,
}

/// Why something is missed, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lost {
    /// The node says so: the reader was too slow, or comes back too late.
    Gap,
    /// The node has started again.
    Epoch,
    /// Numbers do not follow each other: lines are gone.
    Hole,
    /// Nothing was heard for longer than [`Ask::silence`] or [`Ask::behind`] allows.
    Silent,
    /// What was heard is older than [`Ask::behind`] allows.
    Behind,
    /// Something came that no feed has.
    Garbage,
    /// A line is longer than any of a feed.
    LongLine,
    /// The connection has ended.
    Closed,
    /// No connection was to be had.
    Connect,
    /// The node wants a login, or another one, or its certificate does not hold.
    SignIn,
    /// The node has as many readers as it takes.
    Full,
    /// The node has no feed: it does not know the command, or forbids it.
    NoFeed,
}

impl Lost {
    /// True if nothing more comes: a new connection goes on from [`Reader::place`]. Behind the others the feed goes on.
    pub fn is_over(self) -> bool {
        !matches!(self, Lost::Gap | Lost::Epoch)
    }

    /// One word for it, as metrics have it.
    pub fn word(self) -> &'static str {
        match self {
            Lost::Gap => "gap",
            Lost::Epoch => "epoch",
            Lost::Hole => "hole",
            Lost::Silent => "silent",
            Lost::Behind => "behind",
            Lost::Garbage => "garbage",
            Lost::LongLine => "long_line",
            Lost::Closed => "closed",
            Lost::Connect => "connect",
            Lost::SignIn => "sign_in",
            Lost::Full => "full",
            Lost::NoFeed => "no_feed",
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::Gap => "the node's ring has gone on without this reader",
            Lost::Epoch => "the node has started again",
            Lost::Hole => "the numbers of the events have a hole",
            Lost::Silent => "nothing was heard for too long",
            Lost::Behind => "what is heard is too old",
            Lost::Garbage => "something came that no feed has",
            Lost::LongLine => "a line came that is too long",
            Lost::Closed => "the connection has ended",
            Lost::Connect => "no connection",
            Lost::SignIn => "the node does not let us in",
            Lost::Full => "the node has too many readers",
            Lost::NoFeed => "the node has no feed",
        })
    }
}

impl std::error::Error for Lost {}

/// What the next line is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The answer to the login.
    Login,
    /// `OK`.
    Answer,
    /// `FEED`.
    Head,
    /// Anything that follows.
    Feed,
    /// Nothing any more.
    Over,
}

/// What a line makes of a reader.
#[derive(Debug)]
enum Step {
    Began(Place),
    /// A change, where its line begins in the buffer, and whom it is about.
    Change(usize, Found, Named),
    Beat(Place),
    Lost(Lost),
}

/// See the module.
#[derive(Debug)]
pub struct Reader {
    ask: Ask,
    stage: Stage,
    /// What is not yet read is in `buffer[read..filled]`.
    buffer: Box<[u8]>,
    read: usize,
    filled: usize,
    /// Where the key of the last change is decoded to.
    key: Vec<u8>,
    place: Option<Place>,
    /// The next event, if it is known already.
    ready: Option<Step>,
    /// Events that came on this connection.
    count: u64,
    /// What was asked for is not what it begins with, of which the caller is to be told.
    pending: Option<Lost>,
    /// It was told of it; the `GAP` of the node that says the same is none more.
    excused: bool,
    sent_at: Instant,
    heard_at: Instant,
    /// When a heartbeat came last.
    beat_at: Instant,
    /// The node's clock at the begin, in milliseconds.
    began_ms: Option<u64>,
    known_until: Option<Instant>,
}

impl Reader {
    /// For a connection on which [`Ask::request`] is sent at `now`, or later; `login` as it was there.
    pub fn new(ask: Ask, login: Option<&Login>, now: Instant) -> Self {
        Reader {
            stage: login.map_or(Stage::Answer, |_| Stage::Login),
            buffer: vec![0; BUFFER_LEN].into(),
            read: 0,
            filled: 0,
            key: Vec::new(),
            place: ask.from,
            ready: None,
            count: 0,
            pending: None,
            excused: false,
            sent_at: now,
            heard_at: now,
            beat_at: now,
            began_ms: None,
            known_until: None,
            ask,
        }
    }

    /// Room for what comes next. There is always some, if [`next`](Self::next) was asked until it gave nothing.
    pub fn space(&mut self) -> &mut [u8] {
        // What is ready to be given lies where it is.
        if self.read > 0 && self.ready.is_none() {
            self.buffer.copy_within(self.read..self.filled, 0);
            self.filled -= self.read;
            self.read = 0;
        }
        &mut self.buffer[self.filled..]
    }

    /// So many bytes of the room were filled.
    pub fn filled(&mut self, count: usize) {
        self.filled += count;
    }

    /// The place behind what was given last: to go on from on another connection. `None` if there was none yet. Behind a
    /// [`Lost`] that is over, nothing was missed after all if the next connection begins at this very place.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// All that happened before this moment was given (Fr5); `None` before the feed has begun.
    pub fn known_until(&self) -> Option<Instant> {
        self.known_until
    }

    /// True if the node has taken it on, and nothing has ended it since.
    pub fn is_reading(&self) -> bool {
        self.stage == Stage::Feed
    }

    /// True if nothing more comes.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// When [`next`](Self::next) is to be asked if nothing comes before.
    pub fn due_at(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let silent = self.heard_at + self.ask.silence;
        let behind = self.known_until.zip(self.ask.behind);
        Some(behind.map_or(silent, |(at, bound)| silent.min(at + bound)))
    }

    /// The connection has ended so, or was never made: of which [`next`](Self::next) tells, unless all was over before.
    pub fn end(&mut self, why: Lost) {
        if let Some(step) = self.over(why) {
            self.ready.get_or_insert(step);
        }
    }

    /// The next event of what has come, or what the time says. The time counts only where there is nothing to read: a caller that was
    /// slow itself reads first.
    pub fn next(&mut self, now: Instant) -> Option<Event<'_>> {
        if !self.has_next(now) {
            return None;
        }
        let (begin, change, named) = match self.ready.take()? {
            Step::Change(begin, change, named) => (begin, change, named),
            Step::Began(place) => return Some(Event::Began(place)),
            Step::Beat(place) => return Some(Event::Beat(place)),
            Step::Lost(why) => return Some(Event::Lost(why)),
        };
        let cause = &self.buffer[begin + change.cause.start..begin + change.cause.end];
        Some(Event::Change(Change {
            seq: change.seq,
            what: change.what,
            cause: std::str::from_utf8(cause).unwrap_or_default(),
            key: match named {
                Named::InRoom => Key::Text(&self.key),
                Named::Hash(hash) => Key::Hash(hash),
                Named::All => Key::All,
            },
            cas: change.cas,
            origin: change.origin,
        }))
    }

    /// Whether there is an event to give.
    pub fn has_next(&mut self, now: Instant) -> bool {
        if self.ready.is_none() {
            self.ready = self.step(now);
        }
        self.ready.is_some()
    }

    /// Reads lines up to one that the caller is to know of.
    fn step(&mut self, now: Instant) -> Option<Step> {
        loop {
            if self.stage == Stage::Over {
                return None;
            }
            if let Some(why) = self.pending.take() {
                return Some(Step::Lost(why));
            }
            let rest = &self.buffer[self.read..self.filled];
            let seen = &rest[..rest.len().min(LINE_LEN_MAX)];
            let Some(len) = memchr(b'\n', seen) else {
                if rest.len() >= LINE_LEN_MAX {
                    return self.over(Lost::LongLine);
                }
                return self.look_at_time(now);
            };
            let (begin, end) = (self.read, self.read + len);
            self.read = end + 1;
            self.heard_at = self.heard_at.max(now);
            let step = match self.stage {
                Stage::Feed => self.take(begin, end, now),
                _ => self.begin(begin, end),
            };
            match step {
                Ok(None) => {}
                Ok(Some(step)) => return Some(step),
                Err(why) => return self.over(why),
            }
        }
    }

    /// Takes in a line of the feed.
    fn take(&mut self, begin: usize, end: usize, now: Instant) -> Result<Option<Step>, Lost> {
        let bytes = &self.buffer[begin..end];
        let line = Line::parse(bytes).ok_or(Lost::Garbage)?;
        let place = self.place.as_mut().ok_or(Lost::Garbage)?;
        let has_all = self.ask.prefix.is_empty();
        match line {
            Line::Change { n, change } => {
                let next = place.seq.checked_add(1);
                let follows = if has_all {
                    Some(change.seq) == next
                } else {
                    change.seq > place.seq
                };
                if !follows || Some(n) != self.count.checked_add(1) {
                    return Err(Lost::Hole);
                }
                let named = line::key(&bytes[change.key.clone()], self.ask.form, &mut self.key);
                let named = named.ok_or(Lost::Garbage)?;
                // Only what is all understood has been seen: from there on it can be asked for again.
                self.count = n;
                place.seq = change.seq;
                self.excused = false;
                Ok(Some(Step::Change(begin, change, named)))
            }
            Line::Beat { n, seq, ms } => {
                if n != self.count || seq < place.seq || (has_all && seq != place.seq) {
                    return Err(Lost::Hole);
                }
                place.seq = seq;
                let place = *place;
                self.excused = false;
                self.hear(ms, now);
                if self.is_behind(now) {
                    return Err(Lost::Behind);
                }
                Ok(Some(Step::Beat(place)))
            }
            Line::Gap { seq } => {
                if seq < place.seq {
                    return Err(Lost::Hole);
                }
                place.seq = seq;
                let is_excused = std::mem::take(&mut self.excused);
                Ok((!is_excused).then_some(Step::Lost(Lost::Gap)))
            }
        }
    }

    /// Takes in a line before the feed itself; gives where it begins.
    fn begin(&mut self, begin: usize, end: usize) -> Result<Option<Step>, Lost> {
        let line = &self.buffer[begin..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match (self.stage, line) {
            (Stage::Login, b"STORED") => {
                self.stage = Stage::Answer;
                Ok(None)
            }
            (Stage::Login, _) => Err(Lost::SignIn),
            (Stage::Answer, b"OK") => {
                self.stage = Stage::Head;
                Ok(None)
            }
            (Stage::Answer, b"CLIENT_ERROR unauthenticated") => Err(Lost::SignIn),
            (Stage::Answer, _) if line.starts_with(b"WATCHER_TOO_MANY") => Err(Lost::Full),
            (Stage::Answer, b"ERROR") => Err(Lost::NoFeed),
            (Stage::Answer, _)
                if line.starts_with(b"CLIENT_ERROR") || line.starts_with(b"SERVER_ERROR") =>
            {
                Err(Lost::NoFeed)
            }
            (Stage::Head, _) => {
                let (place, ms) = line::head(line).ok_or(Lost::Garbage)?;
                match self.ask.from {
                    Some(from) if from.epoch != place.epoch => self.pending = Some(Lost::Epoch),
                    Some(from) if from != place => self.pending = Some(Lost::Gap),
                    _ => {}
                }
                self.excused = self.pending.is_some();
                self.place = Some(place);
                self.began_ms = ms;
                self.known_until = Some(self.sent_at);
                self.stage = Stage::Feed;
                Ok(Some(Step::Began(place)))
            }
            _ => Err(Lost::Garbage),
        }
    }

    /// A heartbeat was sent when the node's clock said `ms`.
    fn hear(&mut self, ms: Option<u64>, now: Instant) {
        let sent_at = match (ms, self.began_ms) {
            (Some(ms), Some(began_ms)) => {
                // What the node said first, it said when the request was there already.
                let since = Duration::from_millis(ms.saturating_sub(began_ms));
                let sent_at = self.sent_at.checked_add(since);
                sent_at.map_or(now, |sent_at| sent_at.min(now))
            }
            _ => now,
        };
        self.beat_at = now;
        self.known_until = self.known_until.max(Some(sent_at));
    }

    fn is_behind(&self, now: Instant) -> bool {
        let known = self.known_until.zip(self.ask.behind);
        known.is_some_and(|(at, bound)| now.saturating_duration_since(at) >= bound)
    }

    fn look_at_time(&mut self, now: Instant) -> Option<Step> {
        if now.saturating_duration_since(self.heard_at) >= self.ask.silence {
            return self.over(Lost::Silent);
        }
        if self.is_behind(now) {
            let is_silent = self.heard_at <= self.beat_at;
            return self.over(if is_silent {
                Lost::Silent
            } else {
                Lost::Behind
            });
        }
        None
    }

    fn over(&mut self, why: Lost) -> Option<Step> {
        let before = std::mem::replace(&mut self.stage, Stage::Over);
        (before != Stage::Over).then_some(Step::Lost(why))
    }
}
