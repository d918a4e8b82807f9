//! The replies of one wakeup: bytes, and between them large values that stay where they are.
//!
//! ```text
//!  buf:   VALUE a 0 3\r\nabc\r\nVALUE big 0 900000\r\n|\r\nEND\r\n
//!                                                     ^ pin: (offset in buf, PinnedValue or Bytes)
//! ```
//!
//! O1. Pins are in the order of their offsets.
//! O2. A session stops filling an output that is [`Output::is_full`]; so what waits for a peer that does not read is
//!     bounded, and large values wait as references.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use protocol::{ErrorLine, Fault, binary};

use crate::cache::{Cache, PinnedValue};
use crate::packing::{Packer, Unpacker};

/// Bytes copied for one connection before it has to take some: replies of one wakeup rarely get there.
const COPIED_BYTES_MAX: usize = 32 << 10;
/// Bytes referred to for one connection before it has to take some.
const PINNED_BYTES_MAX: usize = 1 << 20;
/// Pieces given to one `writev`.
const SLICES_MAX: usize = 64;

/// What is sent from where it lies.
#[derive(Debug)]
enum Pin<'c> {
    /// A value in its item.
    Item(PinnedValue<'c>),
    /// Bytes that others may have too.
    Shared(Bytes),
}

impl Pin<'_> {
    fn slices<'s>(&'s self, slices: &mut Vec<IoSlice<'s>>, room: usize) {
        match self {
            Pin::Item(value) => slices.extend(value.unsent(room).map(IoSlice::new)),
            Pin::Shared(bytes) => slices.push(IoSlice::new(bytes)),
        }
    }

    /// Notes that `n` bytes were written, of this and what is behind it; gives those that are behind it.
    fn advance(&mut self, n: usize) -> usize {
        match self {
            Pin::Item(value) => value.advance(n),
            Pin::Shared(bytes) => {
                let own = n.min(bytes.len());
                bytes.advance(own);
                n - own
            }
        }
    }

    fn is_sent(&self) -> bool {
        match self {
            Pin::Item(value) => value.is_sent(),
            Pin::Shared(bytes) => bytes.is_empty(),
        }
    }
}

/// Replies not yet written.
#[derive(Debug, Default)]
pub struct Output<'c> {
    /// The copied bytes.
    pub buf: Vec<u8>,
    /// Bytes of `buf` already written.
    written: usize,
    pins: VecDeque<(usize, Pin<'c>)>,
    /// Bytes of pins: in items, and others.
    pinned_bytes: usize,
    shared_bytes: usize,
}

impl<'c> Output<'c> {
    /// An empty output.
    pub fn new() -> Self {
        Output::default()
    }

    /// Adds bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Adds an error line.
    pub fn error(&mut self, error: ErrorLine) {
        self.bytes(error.line());
    }

    /// Adds the answer to a request that is refused, if one is wanted.
    pub fn answer(&mut self, refusal: Option<Fault>) {
        match refusal {
            None => {}
            Some(Fault::Line(line)) => self.error(line),
            Some(Fault::Status(head, status)) => binary::error(&mut self.buf, head, status),
        }
    }

    /// Adds a large value without copying it.
    pub fn value(&mut self, value: PinnedValue<'c>) {
        self.pinned_bytes += value.unsent_len();
        self.pins.push_back((self.buf.len(), Pin::Item(value)));
    }

    /// Adds bytes without copying them.
    pub fn shared(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.shared_bytes += bytes.len();
            self.pins.push_back((self.buf.len(), Pin::Shared(bytes)));
        }
    }

    /// Adds all that another holds, which is empty then.
    pub fn append(&mut self, other: &mut Output<'c>) {
        if self.is_empty() && self.buf.capacity() <= other.buf.capacity() {
            self.clear();
            std::mem::swap(self, other);
            return;
        }
        let moved = self.buf.len().wrapping_sub(other.written);
        self.bytes(&other.buf[other.written..]);
        let pins = other.pins.drain(..);
        self.pins
            .extend(pins.map(|(at, pin)| (at.wrapping_add(moved), pin)));
        self.pinned_bytes += other.pinned_bytes;
        self.shared_bytes += other.shared_bytes;
        other.clear();
    }

    /// All that is to be written, in one piece.
    pub fn into_bytes(self) -> Bytes {
        if self.pins.is_empty() && self.written == 0 {
            return self.buf.into();
        }
        let mut all = Vec::with_capacity(self.unsent_len());
        let mut rest = self;
        while !rest.is_empty() {
            let mut slices = Vec::new();
            rest.slices(&mut slices);
            let from = all.len();
            slices.iter().for_each(|slice| all.extend_from_slice(slice));
            let taken = all.len() - from;
            rest.advance(taken);
        }
        all.into()
    }

    /// Bytes not yet written.
    pub fn unsent_len(&self) -> usize {
        self.buf.len() - self.written + self.pinned_bytes + self.shared_bytes
    }

    /// True if nothing is left to write.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.written == self.buf.len() && self.pins.is_empty()
    }

    /// True if the peer has to take some of it first.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.buf.len() - self.written >= COPIED_BYTES_MAX
            || self.pinned_bytes + self.shared_bytes >= PINNED_BYTES_MAX
    }

    /// The next pieces to write, in order.
    pub fn slices<'s>(&'s self, slices: &mut Vec<IoSlice<'s>>) {
        let mut at = self.written;
        for (offset, value) in &self.pins {
            if *offset > at {
                slices.push(IoSlice::new(&self.buf[at..*offset]));
                at = *offset;
            }
            if slices.len() >= SLICES_MAX {
                return;
            }
            value.slices(slices, SLICES_MAX - slices.len());
            // What does not fit now comes with the next write: it must not be overtaken.
            if slices.len() >= SLICES_MAX {
                return;
            }
        }
        if at < self.buf.len() {
            slices.push(IoSlice::new(&self.buf[at..]));
        }
    }

    /// Bytes of values in items that it refers to and that are not sent.
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Bytes of memory it takes. Values it refers to in items are the cache's.
    pub fn kept_bytes(&self) -> usize {
        self.buf.capacity() + self.shared_bytes
    }

    /// True if there are only copied bytes: one plain write will do.
    pub fn plain(&self) -> Option<&[u8]> {
        self.pins.is_empty().then(|| &self.buf[self.written..])
    }

    /// Notes that `n` bytes were written; true if these were the last.
    #[inline]
    pub fn advance(&mut self, n: usize) -> bool {
        let behind_pins = if self.pins.is_empty() {
            n
        } else {
            self.advance_pins(n)
        };
        self.written += behind_pins;
        let is_done = self.is_empty();
        if is_done {
            // Of pins there is none left to count.
            self.buf.clear();
            self.written = 0;
        }
        is_done
    }

    /// The same as far as there are pins; gives the bytes that were written behind the last.
    fn advance_pins(&mut self, mut n: usize) -> usize {
        while n > 0 {
            let Some((offset, pin)) = self.pins.front_mut() else {
                break;
            };
            let copied = (*offset - self.written).min(n);
            self.written += copied;
            n -= copied;
            if n == 0 {
                break;
            }
            let beyond = pin.advance(n);
            match pin {
                Pin::Item(_) => self.pinned_bytes -= n - beyond,
                Pin::Shared(_) => self.shared_bytes -= n - beyond,
            }
            n = beyond;
            if !pin.is_sent() {
                break;
            }
            self.pins.pop_front();
        }
        n
    }

    /// Writes down what is not written yet, for another process, which has the values' memory.
    pub fn pack(mut self, to: &mut Packer) {
        self.copy_shared();
        to.bytes(&self.buf[self.written..]).size(self.pins.len());
        for (offset, pin) in self.pins {
            if let Pin::Item(value) = pin {
                to.size(offset - self.written);
                value.pack(to);
            }
        }
    }

    /// Copies what it shares with others to where it stands.
    fn copy_shared(&mut self) {
        if self.shared_bytes == 0 {
            return;
        }
        let (mut buf, mut at, mut pins) = (Vec::new(), self.written, VecDeque::new());
        for (offset, pin) in self.pins.drain(..) {
            buf.extend_from_slice(&self.buf[at..offset]);
            at = offset;
            match pin {
                Pin::Shared(bytes) => buf.extend_from_slice(&bytes),
                item => pins.push_back((buf.len(), item)),
            }
        }
        buf.extend_from_slice(&self.buf[at..]);
        (self.buf, self.written, self.pins, self.shared_bytes) = (buf, 0, pins, 0);
    }

    /// Goes on with what another process has not written.
    pub fn unpack(cache: &'c Cache, from: &mut Unpacker<'_>) -> Option<Self> {
        let mut out = Output::new();
        let buf = from.bytes()?;
        for _ in 0..from.number::<usize>()? {
            let offset: usize = from.number()?;
            if !(out.buf.len()..=buf.len()).contains(&offset) {
                return None;
            }
            out.bytes(&buf[out.buf.len()..offset]);
            out.value(cache.unpack_pinned(from)?);
        }
        let copied = out.buf.len();
        out.bytes(&buf[copied..]);
        Some(out)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.written = 0;
        self.pins.clear();
        (self.pinned_bytes, self.shared_bytes) = (0, 0);
    }
}
