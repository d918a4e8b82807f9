//! The data block of a store that has not come whole.
//!
//! ```text
//!   little is held by all of them ------> a chunk at once; the socket is read straight into it
//!   more --> staged in a buffer --------> a chunk, when what it holds has really come
//!   too large, no memory, gives way ----> the block is swallowed, the error line follows it
//! ```
//!
//! A chained value gets its chunks one after another, as the ones before fill up.
//!
//! B1. What clients promise but do not send holds at most a sixteenth of the memory limit, all of them together; beyond
//!     that a client holds no more than twice what it has sent. All that blocks hold is in the budget, which may take it
//!     from those who do not move.
//! B2. The block is `Store::block_len` bytes, taken in full whether the store is refused or not; if in text it does not
//!     end with `\r\n` the store is refused and nothing is changed; nor is it by one that is refused in the midst of its
//!     block, unless the item it replaces had made way for it.

use protocol::{ErrorLine, Fault, KeyBuf, Parsed, ReplyMode, Request, Store, binary};

use super::wire::Wire;
use crate::cache::{NewItem, Probe};
use crate::command::output::Output;
use crate::command::retrieval;
use crate::command::storage::{self, Data};
use crate::events::Cause;
use crate::packing::{Packer, Unpacker};
use crate::state::{Ctx, Hold};

#[derive(Debug)]
enum Place<'c> {
    Chunk(NewItem<'c>),
    Staged(Vec<u8>),
}

/// A store whose block is still coming.
#[derive(Debug)]
pub(super) struct Body<'c> {
    store: OwnedStore,
    probe: Probe,
    place: Place<'c>,
    hold: Hold<'c>,
    /// Bytes of the value that have come.
    filled: usize,
    /// Those of them that the budget has not been told of.
    came: usize,
    /// The first byte behind the value, if only that one has come.
    first_of_end: Option<u8>,
}

/// What came of feeding a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// More is needed.
    More,
    /// It is complete and answered.
    Done,
    /// It is refused. So many bytes of it are still to be swallowed; then comes the answer, if one is wanted.
    Refused(u64, Option<Fault>),
}

impl<'c> Body<'c> {
    /// Makes ready for the block of `store`, which was read from `head`. The error is what is to be answered, if an answer is
    /// wanted.
    pub(super) fn begin(
        ctx: Ctx<'c>,
        (wire, head): (Wire, &[u8]),
        store: &Store<'_>,
        probe: Probe,
    ) -> Result<Box<Self>, Option<Fault>> {
        let mut room = KeyBuf::default();
        let key = store.key.bytes(&mut room);
        let spec = storage::spec(ctx, store, key);
        if ctx.cache.item_bytes(&spec) > ctx.cache.item_bytes_max() {
            return Err(storage::refuse(
                ctx,
                store,
                probe.of(key),
                ErrorLine::TooLarge,
            ));
        }
        let mut hold = Hold::new(ctx);
        let place = if hold.take_in_advance(ctx, next_chunk(ctx, store.value_len as usize)) {
            match ctx.cache.begin(&spec, ctx.at(Cause::Set)) {
                Ok(item) => Place::Chunk(item),
                Err(error) => {
                    let error = storage::error_line(error);
                    return Err(storage::refuse(ctx, store, probe.of(key), error));
                }
            }
        } else {
            Place::Staged(Vec::new())
        };
        let store = OwnedStore::new(wire, head, store);
        Ok(Box::new(Body {
            store,
            probe,
            place,
            hold,
            filled: 0,
            came: 0,
            first_of_end: None,
        }))
    }

    /// Writes down what has come, for another process, which has the chunks' memory.
    pub(super) fn pack(self, to: &mut Packer) {
        to.number(self.store.wire == Wire::Binary);
        to.bytes(&self.store.head).size(self.filled);
        to.number(self.first_of_end.map_or(0, |byte| 1 + u64::from(byte)));
        match self.place {
            Place::Staged(staged) => _ = to.number(0u8).bytes(&staged),
            Place::Chunk(item) => {
                to.number(1u8).size(self.hold.bytes());
                item.pack(to);
            }
        }
    }

    /// Goes on where another process was.
    pub(super) fn unpack(ctx: Ctx<'c>, from: &mut Unpacker<'_>) -> Option<Self> {
        let is_binary = from.flag()?;
        let wire = if is_binary { Wire::Binary } else { Wire::Text };
        let head = from.bytes()?;
        let mut parsed = Parsed::Incomplete;
        wire.parse(head, &mut parsed);
        let Parsed::Complete {
            request: Request::Store(store),
            ..
        } = &parsed
        else {
            return None;
        };
        let filled = from.number()?;
        let first_of_end = match from.number::<u16>()? {
            0 => None,
            more => Some(u8::try_from(more - 1).ok()?),
        };
        let mut hold = Hold::new(ctx);
        let place = match from.number::<u8>()? {
            0 => {
                let staged = from.bytes()?.to_vec();
                hold.restage(staged.len());
                Place::Staged(staged)
            }
            1 => {
                hold.retake(from.number()?);
                Place::Chunk(ctx.cache.unpack_new(from)?)
            }
            _ => return None,
        };
        (filled <= store.value_len as usize).then(|| Body {
            probe: retrieval::probe_of(ctx, store.key),
            store: OwnedStore::new(wire, head, store),
            place,
            hold,
            filled,
            came: 0,
            first_of_end,
        })
    }

    /// Where the next bytes from the socket may go directly.
    pub(super) fn spare(&mut self) -> Option<&mut [u8]> {
        match &mut self.place {
            Place::Chunk(item) => Some(item.spare()).filter(|spare| !spare.is_empty()),
            Place::Staged(_) => None,
        }
    }

    /// Notes that `n` bytes came into [`Body::spare`].
    pub(super) fn advance(&mut self, n: usize) {
        if let Place::Chunk(item) = &mut self.place {
            item.advance(n);
            self.filled += n;
            self.came += n;
        }
    }

    /// Ends it, if it holds what others need and does not move: what is left of it, and the answer.
    pub(super) fn give_way(&self, ctx: Ctx<'c>) -> Option<(u64, Option<Fault>)> {
        let must_go = self.hold.must_go();
        must_go.then(|| (self.left(), self.refuse(ctx, ErrorLine::OutOfMemoryStoring)))
    }

    /// Bytes of the block that have not come.
    fn left(&self) -> u64 {
        let taken = self.filled + usize::from(self.first_of_end.is_some());
        self.store.block_len - taken as u64
    }

    /// Takes bytes of the block from `input`; when it is complete, stores and answers.
    pub(super) fn feed(
        &mut self,
        ctx: Ctx<'c>,
        input: &[u8],
        out: &mut Output<'c>,
    ) -> (usize, Fed) {
        let value_len = self.store.value_len as usize;
        let part = &input[..input.len().min(value_len - self.filled)];
        let left = self.left();
        let came = std::mem::take(&mut self.came) + part.len();
        self.hold.came(ctx, came);
        if let Err(error) = self.take(ctx, part) {
            return (0, Fed::Refused(left, self.refuse(ctx, error)));
        }
        let mut taken = part.len();
        if self.filled < value_len {
            return (taken, Fed::More);
        }
        if self.store.end.is_empty() {
            self.complete(ctx, true, out);
            return (taken, Fed::Done);
        }
        let end = match (self.first_of_end, &input[taken..]) {
            (_, []) => return (taken, Fed::More),
            (None, [first]) => {
                self.first_of_end = Some(*first);
                return (taken + 1, Fed::More);
            }
            (None, [first, second, ..]) => {
                taken += 2;
                [*first, *second]
            }
            (Some(first), [second, ..]) => {
                taken += 1;
                [first, *second]
            }
        };
        self.complete(ctx, end == *b"\r\n", out);
        (taken, Fed::Done)
    }

    /// Puts the next bytes of the value where they belong, and makes room for those behind them.
    fn take(&mut self, ctx: Ctx<'c>, part: &[u8]) -> Result<(), ErrorLine> {
        let value_len = self.store.value_len as usize;
        if let Place::Staged(staged) = &mut self.place {
            if !self.hold.stage(ctx, part.len()) {
                return Err(ErrorLine::OutOfMemoryStoring);
            }
            staged.extend_from_slice(part);
            self.filled += part.len();
            // A value of one chunk gets it when it is stored.
            let first_chunk = next_chunk(ctx, value_len);
            if self.filled < first_chunk || self.filled == value_len {
                return Ok(());
            }
            if !self.hold.take(ctx, first_chunk) {
                return Err(ErrorLine::OutOfMemoryStoring);
            }
            let staged = std::mem::take(staged);
            let item = self.store.with(|store| {
                let mut room = KeyBuf::default();
                let spec = storage::spec(ctx, store, store.key.bytes(&mut room));
                ctx.cache.begin(&spec, ctx.at(Cause::Set))
            });
            self.place = Place::Chunk(item.map_err(storage::error_line)?);
            self.hold.unstage();
            return self.fill(ctx, &staged);
        }
        self.filled += part.len();
        self.fill(ctx, part)
    }

    /// Writes into the chunk, and adds the next one when it is full.
    fn fill(&mut self, ctx: Ctx<'c>, mut part: &[u8]) -> Result<(), ErrorLine> {
        let Place::Chunk(item) = &mut self.place else {
            return Ok(());
        };
        let value_len = self.store.value_len as usize;
        loop {
            part = &part[item.write(part)..];
            if !item.spare().is_empty() {
                return Ok(());
            }
            let missing = value_len - (self.filled - part.len());
            if missing == 0 {
                return Ok(());
            }
            if !self.hold.take(ctx, next_chunk(ctx, missing)) {
                return Err(ErrorLine::OutOfMemoryDuringRead);
            }
            match ctx.cache.extend(item, ctx.at(Cause::Set)) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) => {
                    // Another client may be faster with the memory: then there is no item to give up any more.
                    let makes_way = self.store.with(|store| {
                        let mut room = KeyBuf::default();
                        let sought = self.probe.of(store.key.bytes(&mut room));
                        storage::make_way(ctx, store, sought, missing)
                    });
                    if !makes_way {
                        return Err(ErrorLine::OutOfMemoryDuringRead);
                    }
                }
            }
        }
    }

    fn complete(&mut self, ctx: Ctx<'c>, well_ended: bool, out: &mut Output<'c>) {
        let place = std::mem::replace(&mut self.place, Place::Staged(Vec::new()));
        self.store.with(|store| {
            if !well_ended {
                bad_chunk(store, out);
                return;
            }
            match place {
                Place::Chunk(item) => {
                    storage::execute(ctx, store, self.probe, Data::Item(item), out);
                }
                Place::Staged(staged) => {
                    storage::execute(ctx, store, self.probe, Data::Bytes(&staged), out);
                }
            }
        });
    }

    /// Answers a block whose rest will never come.
    pub(super) fn refuse_short(&self, out: &mut Output<'c>) {
        self.store.with(|store| bad_chunk(store, out));
    }

    fn refuse(&self, ctx: Ctx<'c>, error: ErrorLine) -> Option<Fault> {
        self.store.with(|store| {
            let mut room = KeyBuf::default();
            let key = store.key.bytes(&mut room);
            storage::give_up(ctx, store, key, error)
        })
    }
}

/// Bytes of a value that the next chunk takes, where so many are missing.
fn next_chunk(ctx: Ctx<'_>, missing: usize) -> usize {
    missing.min(ctx.cache.chunk_bytes_max())
}

/// Answers a block that does not end where it should.
pub(super) fn bad_chunk(store: &Store<'_>, out: &mut Output<'_>) {
    match store.reply {
        ReplyMode::NoReply => {}
        ReplyMode::Binary(head) => {
            binary::error(&mut out.buf, head, ErrorLine::BadDataChunk.into())
        }
        _ => out.error(ErrorLine::BadDataChunk),
    }
}

/// A store that outlives the read buffer its line came in, as what was sent: it is read again where it is needed, which is
/// when its block has come and not before.
#[derive(Debug)]
struct OwnedStore {
    wire: Wire,
    /// The line, or the packet without its value.
    head: Box<[u8]>,
    value_len: u32,
    block_len: u64,
    /// What the block ends with.
    end: &'static [u8],
}

impl OwnedStore {
    /// A store that was read from `head`.
    fn new(wire: Wire, head: &[u8], store: &Store<'_>) -> Self {
        OwnedStore {
            wire,
            head: head.into(),
            value_len: store.value_len,
            block_len: store.block_len(),
            end: store.block_end(),
        }
    }

    fn with<R>(&self, use_it: impl FnOnce(&Store<'_>) -> R) -> R {
        let mut parsed = Parsed::Incomplete;
        self.wire.parse(&self.head, &mut parsed);
        match &parsed {
            Parsed::Complete {
                request: Request::Store(store),
                ..
            } => use_it(store),
            other => unreachable!("the same bytes were a store before: {other:?}"),
        }
    }
}
