//! What a client is owed: replies in the order of its requests, some of which have not come yet.
//!
//! ```text
//!  requests:   1      2        3      4                     held: what came before its turn
//!  slots:    [ ready ][ awaited ][ held ][ gather: parts of 3 nodes, 1 missing ]
//!               '--> ready: goes out with the next write
//! ```
//!
//! Ow1. Slots are in the order of the requests; what stands before the first that is awaited is in `ready`, in order.
//! Ow2. Each slot is answered once. What comes for a slot that is gone is dropped.

use std::collections::VecDeque;

use bytes::Bytes;

use super::frame::Block;
use crate::command::Output;

/// Bytes from which on a reply is referred to instead of copied.
pub(super) const LARGE: usize = 4 << 10;
/// Buffers larger than this are not kept for others.
const SPARE_BYTES_MAX: usize = 64 << 10;
/// Buffers that are kept.
const SPARES_MAX: usize = 64;

/// A reply, or a part of it.
#[derive(Debug)]
pub(super) enum Piece<'b> {
    Copied(&'b [u8]),
    Shared(Bytes),
}

impl Piece<'_> {
    /// No bytes: the reply was not wanted.
    pub(super) const NONE: Piece<'static> = Piece::Copied(b"");

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Piece::Copied(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes().len()
    }

    fn put(self, out: &mut Output<'_>) {
        match self {
            Piece::Copied(bytes) => out.bytes(bytes),
            Piece::Shared(bytes) => out.shared(bytes),
        }
    }
}

/// Buffers that wait for the next who needs one: who owes nothing owns none.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Vec<u8>>);

impl Spares {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < SPARES_MAX && (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

#[derive(Debug)]
enum Slot {
    Awaited,
    /// At this place of `held`, so many bytes.
    Held(u32, u32),
    Shared(Bytes),
    Output(Box<Output<'static>>),
    Gather(Box<Gather>),
}

/// The parts of a reply to a list of keys, from several nodes.
#[derive(Debug)]
pub(super) struct Gather {
    /// The keys' marks, and the part each comes with.
    order: Vec<(u32, u16)>,
    parts: Vec<Part>,
    missing: usize,
    /// The list ends with it: `END` is owed.
    is_last: bool,
    /// A part failed, and this is answered instead.
    failure: Option<&'static [u8]>,
}

#[derive(Debug, Default)]
struct Part {
    bytes: Bytes,
    blocks: Vec<Block>,
    next: usize,
}

impl Gather {
    /// Keys' marks with their parts, so many of which are to come. `failure`: some keys are not asked for.
    pub(super) fn new(
        order: Vec<(u32, u16)>,
        parts: usize,
        is_last: bool,
        failure: Option<&'static [u8]>,
    ) -> Self {
        Gather {
            order,
            parts: (0..parts).map(|_| Part::default()).collect(),
            missing: parts,
            is_last,
            failure,
        }
    }

    /// The values in the order of the keys. `failed` is what an earlier piece of the same list came to, and what this one has: the
    /// last tells.
    fn put(mut self, out: &mut Output<'_>, failed: &mut Option<&'static [u8]>) {
        *failed = failed.or(self.failure);
        if failed.is_some() {
            if self.is_last {
                out.bytes(failed.take().unwrap_or_default());
            }
            return;
        }
        for (mark, part) in self.order {
            let part = &mut self.parts[usize::from(part)];
            if let Some(block) = part.blocks.get(part.next)
                && block.mark == mark
            {
                part.next += 1;
                let range = block.start as usize..block.end as usize;
                match range.len() {
                    LARGE.. => out.shared(part.bytes.slice(range)),
                    _ => out.bytes(&part.bytes[range]),
                }
            }
        }
        if self.is_last {
            out.bytes(protocol::reply::END);
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Owed<'c> {
    /// The number of the first slot.
    first: u32,
    slots: VecDeque<Slot>,
    ready: Output<'c>,
    held: Vec<u8>,
    /// Bytes in slots that are not in `held`.
    aside: usize,
    /// Bytes that a reply usually has, smoothed.
    usual: usize,
    /// What a piece of a long list of keys came to that could not be answered.
    failed: Option<&'static [u8]>,
    /// It is in the list of those that are to have a turn.
    pub(super) woken: bool,
}

/// What a reply is taken to have before any has come.
const USUAL_BYTES: usize = 16 << 10;

impl<'c> Owed<'c> {
    pub(super) fn new() -> Self {
        Owed {
            usual: USUAL_BYTES,
            ..Owed::default()
        }
    }

    /// Bytes that wait here, or are to be expected.
    pub(super) fn expected_bytes(&self) -> usize {
        self.bytes() + self.slots.len() * self.usual
    }

    fn note(&mut self, len: usize) {
        // A large one is believed at once, small ones by and by.
        self.usual = (self.usual - self.usual / 8 + len / 8).max(len);
    }

    /// How many replies are owed that have not come in their turn.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes that wait here.
    pub fn bytes(&self) -> usize {
        self.ready.unsent_len() + self.held.len() + self.aside
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Moves what is ready to the output of the turn.
    pub(super) fn move_ready(&mut self, out: &mut Output<'c>, spares: &mut Spares) {
        if !self.ready.is_empty() {
            out.append(&mut self.ready);
            spares.give(std::mem::take(&mut self.ready.buf));
        }
    }

    /// The number of the next reply that will be awaited.
    pub(super) fn next(&self) -> u32 {
        self.first.wrapping_add(self.slots.len() as u32)
    }

    /// True if this reply has not had its turn.
    pub(super) fn awaits(&self, number: u32) -> bool {
        self.index(number).is_some()
    }

    /// One more reply is awaited: its number.
    pub(super) fn await_one(&mut self) -> u32 {
        self.push(Slot::Awaited)
    }

    pub(super) fn await_parts(&mut self, gather: Gather, spares: &mut Spares) -> u32 {
        let number = self.push(Slot::Gather(Box::new(gather)));
        // It may be of no parts.
        self.advance(spares);
        number
    }

    fn push(&mut self, slot: Slot) -> u32 {
        let number = self.next();
        self.slots.push_back(slot);
        number
    }

    /// A reply that is known at once.
    pub(super) fn reply(&mut self, bytes: &[u8], out: &mut Output<'c>) {
        if self.slots.is_empty() {
            out.bytes(bytes);
        } else {
            let slot = self.hold(bytes);
            self.push(slot);
        }
    }

    fn hold(&mut self, bytes: &[u8]) -> Slot {
        let at = self.held.len();
        self.held.extend_from_slice(bytes);
        Slot::Held(at as u32, bytes.len() as u32)
    }

    fn index(&self, number: u32) -> Option<usize> {
        let index = number.wrapping_sub(self.first) as usize;
        (index < self.slots.len()).then_some(index)
    }

    /// The reply to a request has come.
    pub(super) fn answer(&mut self, number: u32, piece: Piece<'_>, spares: &mut Spares) {
        let Some(index) = self.index(number) else {
            return;
        };
        self.note(piece.len());
        if index == 0 {
            self.make_ready(spares);
            piece.put(&mut self.ready);
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
            return self.advance(spares);
        }
        self.slots[index] = match piece {
            Piece::Copied(bytes) => self.hold(bytes),
            Piece::Shared(bytes) => {
                self.aside += bytes.len();
                Slot::Shared(bytes)
            }
        };
    }

    /// The same, put together already.
    pub(super) fn answer_output(
        &mut self,
        number: u32,
        output: Output<'static>,
        spares: &mut Spares,
    ) {
        if let Some(index) = self.index(number) {
            self.note(output.unsent_len());
            self.aside += output.unsent_len();
            self.slots[index] = Slot::Output(Box::new(output));
            self.advance(spares);
        }
    }

    /// A part has come of a reply to a list of keys.
    pub(super) fn answer_part(
        &mut self,
        number: u32,
        part: u16,
        (bytes, blocks): (Bytes, &[Block]),
        spares: &mut Spares,
    ) {
        let Some(gather) = self.gather(number) else {
            return;
        };
        let place = &mut gather.parts[usize::from(part)];
        (place.bytes, place.blocks) = (bytes, blocks.to_vec());
        gather.missing -= 1;
        let len = place.bytes.len();
        self.aside += len;
        self.note(len);
        self.advance(spares);
    }

    /// A part will not come. It counts as misses, or the whole reply is `failure`.
    pub(super) fn fail_part(
        &mut self,
        number: u32,
        failure: Option<&'static [u8]>,
        spares: &mut Spares,
    ) {
        let Some(gather) = self.gather(number) else {
            return;
        };
        gather.missing -= 1;
        gather.failure = gather.failure.or(failure);
        self.advance(spares);
    }

    fn gather(&mut self, number: u32) -> Option<&mut Gather> {
        let index = self.index(number)?;
        match &mut self.slots[index] {
            Slot::Gather(gather) if gather.missing > 0 => Some(gather),
            _ => None,
        }
    }

    fn make_ready(&mut self, spares: &mut Spares) {
        if self.ready.buf.capacity() == 0 {
            self.ready.buf = spares.take();
        }
    }

    /// Takes what has its turn now.
    fn advance(&mut self, spares: &mut Spares) {
        while let Some(slot) = self.slots.front() {
            match slot {
                Slot::Awaited => return,
                Slot::Gather(gather) if gather.missing > 0 => return,
                _ => {}
            }
            self.make_ready(spares);
            match self.slots.pop_front().expect("just seen") {
                Slot::Held(at, len) => {
                    let range = at as usize..(at + len) as usize;
                    self.ready.bytes(&self.held[range]);
                }
                Slot::Shared(bytes) => {
                    self.aside -= bytes.len();
                    self.ready.shared(bytes);
                }
                Slot::Output(mut output) => {
                    self.aside -= output.unsent_len();
                    self.ready.append(&mut output);
                }
                Slot::Gather(gather) => {
                    let bytes = gather.parts.iter().map(|part| part.bytes.len());
                    self.aside -= bytes.sum::<usize>();
                    gather.put(&mut self.ready, &mut self.failed);
                }
                Slot::Awaited => unreachable!("just seen"),
            }
            self.first = self.first.wrapping_add(1);
        }
        // Nothing is held any more.
        self.held.clear();
        if self.held.capacity() > LARGE {
            self.held = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(owed: &mut Owed<'_>) -> String {
        let mut out = Output::new();
        owed.move_ready(&mut out, &mut Spares::default());
        let mut all = Vec::new();
        let mut slices = Vec::new();
        out.slices(&mut slices);
        slices.iter().for_each(|slice| all.extend_from_slice(slice));
        String::from_utf8(all).expect("these are text")
    }

    #[test]
    fn replies_leave_in_the_order_of_the_requests() {
        let (mut owed, mut spares) = (Owed::default(), Spares::default());
        let [a, b, c, d] = [(); 4].map(|()| owed.await_one());
        owed.reply(b"now", &mut Output::new());
        owed.answer(c, Piece::Copied(b"c"), &mut spares);
        owed.answer(b, Piece::Shared(Bytes::from_static(b"b")), &mut spares);
        assert_eq!(
            (taken(&mut owed), owed.len(), owed.bytes()),
            (String::new(), 5, 5)
        );
        owed.answer(a, Piece::NONE, &mut spares);
        assert_eq!((taken(&mut owed), owed.len()), ("bc".to_owned(), 2));
        let mut output = Output::new();
        output.bytes(b"d");
        owed.answer_output(d, output, &mut spares);
        owed.answer(d, Piece::Copied(b"again"), &mut spares);
        assert_eq!((taken(&mut owed), owed.bytes()), ("dnow".to_owned(), 0));
        let mut out = Output::new();
        owed.reply(b"MN", &mut out);
        assert_eq!((&out.buf[..], owed.len()), (&b"MN"[..], 0));
    }

    #[test]
    fn values_of_several_nodes_come_in_the_order_of_the_keys() {
        let (mut owed, mut spares) = (Owed::default(), Spares::default());
        // a and c are one node's, b and d the other's; c is missing.
        let order = vec![(1, 0), (2, 1), (3, 0), (4, 1)];
        let number = owed.await_parts(Gather::new(order, 2, true, None), &mut spares);
        let block = |start, mark| Block {
            start,
            end: start + 1,
            mark,
        };
        let both = (Bytes::from_static(b"bd"), &[block(0, 2), block(1, 4)][..]);
        owed.answer_part(number, 1, both, &mut spares);
        assert_eq!(taken(&mut owed), "");
        let one = (Bytes::from_static(b"a"), &[block(0, 1)][..]);
        owed.answer_part(number, 0, one, &mut spares);
        assert_eq!(
            (taken(&mut owed), owed.bytes()),
            ("abdEND\r\n".to_owned(), 0)
        );
        for (failure, told) in [(None, "END\r\n"), (Some(&b"no"[..]), "no")] {
            let number = owed.await_parts(Gather::new(vec![(1, 0)], 1, true, None), &mut spares);
            owed.fail_part(number, failure, &mut spares);
            assert_eq!(taken(&mut owed), told);
        }
    }
}
