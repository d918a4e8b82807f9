//! What is shown to watchers: what happened to requests, connections, items that gave way, and what the server does by itself.
//!
//! ```text
//!  worker --show--> its buffer, while there is room --taken, buffer by buffer--> lines, as memcached's `watch` writes them
//! ```
//!
//! Sg1. Nobody waits: what finds no room is counted and forgotten.
//! Sg2. Each has a number (`gid`) that grows in the order in which they were shown.
//!
//! Sg3. Who shows something reads the processor's counter, and no clock: whoever writes the line makes a time of it.
//!
//! Costs: 48 bytes and the text in the buffer, and some 100 instructions.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use super::rings::RingId;
use super::{Audience, Cause};
use crate::sys;

/// Bytes of a buffer, if nothing else is said.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes before the text.
const HEAD: usize = 48;
/// The longest text: what is longer is cut, as in memcached.
const TEXT_MAX: usize = 512;

/// What became of looking a key up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is memcached's word")]
pub enum FetchEnd {
    NotFound,
    Found,
    Flushed,
    Expired,
}

impl FetchEnd {
    const NAMES: [&[u8]; 4] = [b"not_found", b"found", b"flushed", b"expired"];
}

/// How a store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is memcached's word")]
pub enum StoreEnd {
    NotStored,
    Stored,
    Exists,
    NotFound,
    TooLarge,
    NoMemory,
}

impl StoreEnd {
    const NAMES: [&[u8]; 6] = [
        b"not_stored",
        b"stored",
        b"exists",
        b"not_found",
        b"too_large",
        b"no_memory",
    ];
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Closed {
    /// What it sent made no sense, or its socket failed.
    Error,
    /// It was asked for, or the peer had gone.
    Normal,
    /// It was silent for too long.
    Idle,
    /// The server stops.
    Shutdown,
}

impl Closed {
    const NAMES: [&[u8]; 4] = [b"error", b"normal", b"idle_timeout", b"shutdown"];
}

/// The word of that number; `na` is memcached's for what it does not know.
fn name(names: &[&'static [u8]], number: u8) -> &'static [u8] {
    names.get(usize::from(number)).copied().unwrap_or(b"na")
}

/// One of them.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the fields are those of memcached's lines")]
pub enum Shown<'t> {
    /// A key was looked up.
    Get {
        key: &'t [u8],
        end: FetchEnd,
        class: u8,
        size: u32,
    },
    /// A store was asked for, by this command.
    Store {
        key: &'t [u8],
        end: StoreEnd,
        cmd: Cause,
        ttl: u32,
        class: u8,
        size: u32,
    },
    /// An item was deleted.
    Deleted {
        key: &'t [u8],
        cmd: Cause,
        class: u8,
        size: u32,
    },
    /// An item gave way.
    Eviction {
        key: &'t [u8],
        fetched: bool,
        ttl: i64,
        idle: u32,
        class: u8,
        size: u32,
    },
    /// A connection began: from `tcp:IP:PORT`, or `unix`.
    ConnNew { addr: &'t [u8], fd: i32 },
    /// A connection ended.
    ConnClose {
        addr: &'t [u8],
        fd: i32,
        reason: Closed,
    },
    /// A line of a request.
    Raw { line: &'t [u8] },
    /// What TLS has to say of a connection.
    TlsError { message: &'t [u8], fd: i32 },
    /// What the server did by itself, as `type=..` and what follows.
    System { text: &'t [u8] },
}

/// Which kind, in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Get,
    Store,
    Deleted,
    Eviction,
    ConnNew,
    ConnClose,
    Raw,
    TlsError,
    System,
}

impl Kind {
    const ALL: [(Kind, Audience); 9] = [
        (Kind::Get, Audience::FETCHERS),
        (Kind::Store, Audience::MUTATIONS),
        (Kind::Deleted, Audience::DELETIONS),
        (Kind::Eviction, Audience::EVICTIONS),
        (Kind::ConnNew, Audience::CONNEVENTS),
        (Kind::ConnClose, Audience::CONNEVENTS),
        (Kind::Raw, Audience::RAWCMDS),
        (Kind::TlsError, Audience::CONNEVENTS),
        (Kind::System, Audience::SYSEVENTS),
    ];
}

/// A sight as it lies in a buffer.
#[derive(Debug, Default, Clone, Copy)]
struct Head {
    gid: u64,
    ticks: u64,
    ttl: i64,
    fd: i32,
    size: u32,
    idle: u32,
    text_len: u16,
    kind: u8,
    status: u8,
    cmd: u8,
    class: u8,
}

impl Head {
    #[inline(always)]
    fn bytes(&self) -> [u8; HEAD] {
        let words = u32::from_le_bytes([self.kind, self.status, self.cmd, self.class]);
        let numbers = u64::from(self.fd as u32) | u64::from(self.size) << 32;
        let more =
            u64::from(self.idle) | u64::from(self.text_len) << 32 | u64::from(words & 0xffff) << 48;
        // As words: what is put into an array byte by byte is written twice.
        let words = [
            self.gid,
            self.ticks,
            self.ttl as u64,
            numbers,
            more,
            u64::from(words >> 16),
        ];
        let mut to = [0; HEAD];
        for (to, word) in to.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        to
    }

    fn of(from: &[u8; HEAD]) -> Self {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| from[at + n]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|n| from[at + n]));
        Head {
            gid: u64_at(0),
            ticks: u64_at(8),
            ttl: u64_at(16) as i64,
            fd: u32_at(24) as i32,
            size: u32_at(28),
            idle: u32_at(32),
            text_len: u16::from_le_bytes([from[36], from[37]]),
            kind: from[38],
            status: from[39],
            cmd: from[40],
            class: from[41],
        }
    }
}

/// What one thread has shown.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Mutex<Vec<u8>>,
    /// The descriptor of the connection that the thread serves.
    peer: AtomicI32,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// What all threads have shown.
#[derive(Debug)]
pub struct Sights {
    buffers: Box<[CachePadded<Buffer>]>,
    gid: CachePadded<AtomicU64>,
    buffer_bytes_max: AtomicUsize,
    /// Lines that watchers did not get as they were slow.
    pub skipped: AtomicU64,
    /// Lines that watchers got.
    pub sent: AtomicU64,
}

impl Sights {
    pub(super) fn new(threads: usize) -> Self {
        Sights {
            buffers: (0..=threads).map(|_| CachePadded::default()).collect(),
            gid: CachePadded::default(),
            buffer_bytes_max: AtomicUsize::new(BUFFER_BYTES),
            skipped: AtomicU64::default(),
            sent: AtomicU64::default(),
        }
    }

    /// Lets the buffer of each thread have so many bytes.
    pub fn keep(&self, buffer_bytes_max: usize) {
        self.buffer_bytes_max.store(buffer_bytes_max, Relaxed);
    }

    fn buffer(&self, ring: RingId) -> &Buffer {
        &self.buffers[ring.index(self.buffers.len())]
    }

    /// Notes whom the thread serves from now on.
    #[inline]
    pub fn serves(&self, ring: RingId, fd: i32) {
        self.buffer(ring).peer.store(fd, Relaxed);
    }

    /// The number that the next sight gets.
    pub fn next_gid(&self) -> u64 {
        self.gid.load(Relaxed) + 1
    }

    /// Shows something, by the thread of this ring (Sg1). Inlined, so that what is shown is written where it is made.
    #[inline(always)]
    pub fn show(&self, ring: RingId, sight: &Shown<'_>) {
        let buffer = self.buffer(ring);
        let mut head = Head {
            fd: buffer.peer.load(Relaxed),
            ..Head::default()
        };
        let text = head.fill(sight);
        let text = &text[..text.len().min(TEXT_MAX)];
        head.text_len = text.len() as u16;
        let mut bytes = buffer.bytes.lock();
        if bytes.len() + HEAD + text.len() > self.buffer_bytes_max.load(Relaxed) {
            drop(bytes);
            buffer.dropped.fetch_add(1, Relaxed);
            return;
        }
        head.gid = self.gid.fetch_add(1, Relaxed) + 1;
        head.ticks = sys::ticks();
        bytes.extend_from_slice(&head.bytes());
        bytes.extend_from_slice(text);
        drop(bytes);
        buffer.written.fetch_add(1, Relaxed);
    }

    /// Hands out what was shown, as lines: each with what it is for, its number and the key that it is about. `taken` is room
    /// to work in. Gives how many there were.
    pub fn take(
        &self,
        taken: &mut Vec<u8>,
        mut hand_out: impl FnMut(Audience, u64, Option<&[u8]>, &[u8]),
    ) -> usize {
        let (mut line, mut count) = (Vec::new(), 0);
        for buffer in &self.buffers {
            taken.clear();
            std::mem::swap(taken, &mut *buffer.bytes.lock());
            // Read behind all that is taken (Sg3).
            let now = Now::read();
            let mut rest = &taken[..];
            while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
                let head = Head::of(head);
                let Some((text, behind)) = behind.split_at_checked(head.text_len.into()) else {
                    break;
                };
                rest = behind;
                let Some(&(kind, audience)) = Kind::ALL.get(usize::from(head.kind)) else {
                    break;
                };
                line.clear();
                head.write(kind, now.us_at(head.ticks), text, &mut line);
                let is_keyed = matches!(
                    kind,
                    Kind::Get | Kind::Store | Kind::Deleted | Kind::Eviction
                );
                hand_out(audience, head.gid, is_keyed.then_some(text), &line);
                count += 1;
            }
        }
        count
    }

    /// Sights that found room, and those that did not.
    pub fn counts(&self) -> (u64, u64) {
        let sum = |of: fn(&Buffer) -> &AtomicU64| {
            self.buffers
                .iter()
                .map(|buffer| of(buffer).load(Relaxed))
                .sum()
        };
        (sum(|buffer| &buffer.written), sum(|buffer| &buffer.dropped))
    }

    /// Starts counting from 0 again.
    pub fn reset(&self) {
        for buffer in &self.buffers {
            buffer.written.store(0, Relaxed);
            buffer.dropped.store(0, Relaxed);
        }
        self.skipped.store(0, Relaxed);
        self.sent.store(0, Relaxed);
    }
}

impl Head {
    /// Takes what is no text; gives that.
    #[inline(always)]
    fn fill<'t>(&mut self, sight: &Shown<'t>) -> &'t [u8] {
        match *sight {
            Shown::Get {
                key,
                end,
                class,
                size,
            } => {
                (self.kind, self.status) = (Kind::Get as u8, end as u8);
                (self.class, self.size) = (class, size);
                key
            }
            Shown::Store {
                key,
                end,
                cmd,
                ttl,
                class,
                size,
            } => {
                (self.kind, self.status, self.cmd) = (Kind::Store as u8, end as u8, cmd as u8);
                (self.ttl, self.class, self.size) = (ttl.into(), class, size);
                key
            }
            Shown::Deleted {
                key,
                cmd,
                class,
                size,
            } => {
                (self.kind, self.cmd) = (Kind::Deleted as u8, cmd as u8);
                (self.class, self.size) = (class, size);
                key
            }
            Shown::Eviction {
                key,
                fetched,
                ttl,
                idle,
                class,
                size,
            } => {
                (self.kind, self.status) = (Kind::Eviction as u8, fetched.into());
                (self.ttl, self.idle, self.class, self.size) = (ttl, idle, class, size);
                key
            }
            Shown::ConnNew { addr, fd } => {
                (self.kind, self.fd) = (Kind::ConnNew as u8, fd);
                addr
            }
            Shown::ConnClose { addr, fd, reason } => {
                (self.kind, self.fd, self.status) = (Kind::ConnClose as u8, fd, reason as u8);
                addr
            }
            Shown::Raw { line } => {
                self.kind = Kind::Raw as u8;
                line
            }
            Shown::TlsError { message, fd } => {
                (self.kind, self.fd) = (Kind::TlsError as u8, fd);
                message
            }
            Shown::System { text } => {
                self.kind = Kind::System as u8;
                text
            }
        }
    }

    fn cmd(&self) -> &'static [u8] {
        Cause::name_of(self.cmd).as_bytes()
    }

    /// The line, as memcached writes it, of what was shown so many microseconds after 1970.
    fn write(&self, kind: Kind, us: u64, text: &[u8], out: &mut Vec<u8>) {
        let mut say = Saying(out);
        say.word(b"ts=").number(us / 1_000_000);
        // As there, without zeros in front.
        say.word(b".").number(us % 1_000_000);
        say.word(b" gid=").number(self.gid);
        match kind {
            Kind::Get => {
                say.word(b" type=item_get key=").key(text);
                say.word(b" status=")
                    .word(name(&FetchEnd::NAMES, self.status));
                say.word(b" clsid=").number(self.class);
                say.word(b" cfd=").number(self.fd);
                say.word(b" size=").number(self.size);
            }
            Kind::Store => {
                say.word(b" type=item_store key=").key(text);
                say.word(b" status=")
                    .word(name(&StoreEnd::NAMES, self.status));
                say.word(b" cmd=").word(self.cmd());
                say.word(b" ttl=").number(self.ttl);
                say.word(b" clsid=").number(self.class);
                say.word(b" cfd=").number(self.fd);
                say.word(b" size=").number(self.size);
            }
            Kind::Deleted => {
                say.word(b" type=deleted key=").key(text);
                say.word(b" cmd=").word(self.cmd());
                say.word(b" clsid=").number(self.class);
                say.word(b" size=").number(self.size);
            }
            Kind::Eviction => {
                say.word(b" type=eviction key=").key(text);
                say.word(b" fetch=")
                    .word(name(&[b"no", b"yes"], self.status));
                say.word(b" ttl=").number(self.ttl);
                say.word(b" la=").number(self.idle);
                say.word(b" clsid=").number(self.class);
                say.word(b" size=").number(self.size);
            }
            Kind::ConnNew => {
                say.word(b" type=conn_new").peer(text);
                say.word(b" cfd=").number(self.fd);
            }
            Kind::ConnClose => {
                say.word(b" type=conn_close").peer(text);
                say.word(b" reason=")
                    .word(name(&Closed::NAMES, self.status));
                say.word(b" cfd=").number(self.fd);
            }
            Kind::Raw => {
                say.word(b" <").number(self.fd);
                say.word(b" ").text(text);
            }
            Kind::TlsError => {
                say.word(b" type=conntlserr fd=").number(self.fd);
                say.word(b" msg=").text(text);
            }
            Kind::System => {
                say.word(b" ").text(text);
            }
        }
        say.word(b"\n");
    }
}

/// The present, by the processor's counter and by the calendar.
struct Now {
    ticks: u64,
    us: u64,
}

impl Now {
    fn read() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Now {
            ticks: sys::ticks(),
            us: since_1970.map_or(0, |since| since.as_micros() as u64),
        }
    }

    /// When the counter stood there, in microseconds: never after now, as another processor's counter may be ahead.
    fn us_at(&self, ticks: u64) -> u64 {
        let since = sys::ns_of(self.ticks.saturating_sub(ticks)) / 1000;
        self.us.saturating_sub(since)
    }
}

/// A line that is being written.
struct Saying<'o>(&'o mut Vec<u8>);

impl Saying<'_> {
    fn word(&mut self, word: &[u8]) -> &mut Self {
        self.0.extend_from_slice(word);
        self
    }

    fn number(&mut self, number: impl itoa::Integer) -> &mut Self {
        self.word(itoa::Buffer::new().format(number).as_bytes())
    }

    fn key(&mut self, key: &[u8]) -> &mut Self {
        protocol::uri_encode(key, self.0);
        self
    }

    /// What a client may have sent: no byte of it ends the line or moves a terminal's cursor.
    fn text(&mut self, text: &[u8]) -> &mut Self {
        let plain = |&byte: &u8| {
            if byte < b' ' || byte == 0x7f {
                b'?'
            } else {
                byte
            }
        };
        self.0.extend(text.iter().map(plain));
        self
    }

    /// `tcp:IP:PORT`, `tcp:[IP]:PORT` or `unix`.
    fn peer(&mut self, addr: &[u8]) -> &mut Self {
        let tcp = addr.strip_prefix(b"tcp:").and_then(|addr| {
            let colon = addr.iter().rposition(|&byte| byte == b':')?;
            let ip = addr[..colon].strip_prefix(b"[").unwrap_or(&addr[..colon]);
            Some((ip.strip_suffix(b"]").unwrap_or(ip), &addr[colon + 1..]))
        });
        let (ip, port, transport) = match tcp {
            Some((ip, port)) => (ip, port, &b"tcp"[..]),
            None => (&b"unix"[..], &b"0"[..], &b"local"[..]),
        };
        self.word(b" rip=").word(ip).word(b" rport=").word(port);
        self.word(b" transport=").word(transport)
    }
}
