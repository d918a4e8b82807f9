//! The data block of a store that has not come whole.
//!
//! ```text
//!   promised bytes within the budget ---> a chunk at once; the socket is read straight into it
//!   beyond it --> staged in a buffer ---> a chunk, when an eighth of what it holds has really come
//!   too large, no memory ---------------> the block is swallowed, the error line follows it
//! ```
//!
//! A chained value gets its chunks one after another, as the ones before fill up.
//!
//! B1. What clients promise but do not send holds at most a sixteenth of the memory limit, all of them together; beyond
//!     that a client holds no more than eight times what it has sent.
//! B2. The block is `Store::block_len` bytes, taken in full whether the store is refused or not; if in text it does not
//!     end with `\r\n` the store is refused and nothing is changed.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use protocol::{ErrorLine, Fault, Key, KeyBuf, MetaTokens, ReplyMode, Store, binary};

use super::output::Output;
use super::shared::Ctx;
use super::storage::{self, Data};
use crate::cache::{NewItem, Probe};

/// The part of the memory limit that promised bodies may hold.
const PROMISED_PART: usize = 16;
/// The part of a first chunk that has to come before a staged body gets it.
const EARNED_PART: usize = 8;
/// The part of the memory limit that staged bodies may hold, and its least size in bytes.
const STAGED_PART: usize = 10;
const STAGED_BYTES_MIN: usize = 8 << 20;

/// A share of one of the budgets, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share<'c> {
    of: &'c AtomicUsize,
    bytes: usize,
}

impl<'c> Share<'c> {
    fn take(of: &'c AtomicUsize, bytes: usize, max: usize) -> Option<Self> {
        if of.fetch_add(bytes, Relaxed) + bytes > max {
            of.fetch_sub(bytes, Relaxed);
            return None;
        }
        Some(Share { of, bytes })
    }

    fn grow(&mut self, bytes: usize, max: usize) -> bool {
        let Some(more) = Share::take(self.of, bytes, max) else {
            return false;
        };
        self.bytes += more.bytes;
        std::mem::forget(more);
        true
    }

    /// Nothing yet of what may be staged.
    pub(super) fn staged(ctx: Ctx<'c>) -> Self {
        let of = &ctx.shared.staged_bytes;
        Share { of, bytes: 0 }
    }

    /// More of it; false if that is too much.
    pub(super) fn stage(&mut self, ctx: Ctx<'_>, bytes: usize) -> bool {
        let max = (ctx.cache.limit_bytes() / STAGED_PART).max(STAGED_BYTES_MIN);
        self.grow(bytes, max)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Relaxed);
    }
}

#[derive(Debug)]
enum Place<'c> {
    Chunk(NewItem<'c>, Option<Share<'c>>),
    Staged(Vec<u8>, Share<'c>),
}

/// A store whose block is still coming.
#[derive(Debug)]
pub(super) struct Body<'c> {
    store: OwnedStore,
    probe: Probe,
    place: Place<'c>,
    /// Bytes of the value that have come.
    filled: usize,
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
    /// Makes ready for the block of `store`. The error is what is to be answered, if an answer is wanted.
    pub(super) fn begin(
        ctx: Ctx<'c>,
        store: &Store<'_>,
        probe: Probe,
    ) -> Result<Box<Self>, Option<Fault>> {
        let mut room: KeyBuf = [0; protocol::KEY_LEN_MAX];
        let key = store.key.bytes(&mut room);
        let spec = storage::spec(ctx, store, key);
        if ctx.cache.item_bytes(&spec) > ctx.cache.item_bytes_max() {
            return Err(storage::refuse(ctx, store, key, probe, ErrorLine::TooLarge));
        }
        let promised_max = (ctx.cache.limit_bytes() / PROMISED_PART).max(1 << 20);
        let first_chunk = (store.value_len as usize).min(ctx.cache.chunk_bytes_max());
        let place = match Share::take(&ctx.shared.promised_bytes, first_chunk, promised_max) {
            Some(share) => match ctx.cache.begin(&spec, ctx.now) {
                Ok(item) => Place::Chunk(item, Some(share)),
                Err(error) => {
                    let error = storage::error_line(error);
                    return Err(storage::refuse(ctx, store, key, probe, error));
                }
            },
            None => Place::Staged(Vec::new(), Share::staged(ctx)),
        };
        let store = OwnedStore::new(store);
        Ok(Box::new(Body {
            store,
            probe,
            place,
            filled: 0,
            first_of_end: None,
        }))
    }

    /// Where the next bytes from the socket may go directly.
    pub(super) fn spare(&mut self) -> Option<&mut [u8]> {
        match &mut self.place {
            Place::Chunk(item, _) => Some(item.spare()).filter(|spare| !spare.is_empty()),
            Place::Staged(..) => None,
        }
    }

    /// Notes that `n` bytes came into [`Body::spare`].
    pub(super) fn advance(&mut self, n: usize) {
        if let Place::Chunk(item, _) = &mut self.place {
            item.advance(n);
            self.filled += n;
        }
    }

    /// Takes bytes of the block from `input`; when it is complete, stores and answers.
    pub(super) fn feed(
        &mut self,
        ctx: Ctx<'c>,
        input: &[u8],
        out: &mut Output<'c>,
    ) -> (usize, Fed) {
        let value_len = self.store.store.value_len as usize;
        let part = &input[..input.len().min(value_len - self.filled)];
        let left = self.store.store.block_len() - self.filled as u64;
        if let Err(error) = self.take(ctx, part) {
            return (0, Fed::Refused(left, self.refuse(ctx, error)));
        }
        let mut taken = part.len();
        if self.filled < value_len {
            return (taken, Fed::More);
        }
        if self.store.store.block_end().is_empty() {
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
        let value_len = self.store.store.value_len as usize;
        if let Place::Staged(staged, share) = &mut self.place {
            if !share.stage(ctx, part.len()) {
                return Err(ErrorLine::OutOfMemoryStoring);
            }
            staged.extend_from_slice(part);
            self.filled += part.len();
            let first_chunk = value_len.min(ctx.cache.chunk_bytes_max());
            if self.filled < value_len && self.filled < first_chunk / EARNED_PART {
                return Ok(());
            }
            let staged = std::mem::take(staged);
            let item = self.store.with(|store| {
                let mut room: KeyBuf = [0; protocol::KEY_LEN_MAX];
                let spec = storage::spec(ctx, store, store.key.bytes(&mut room));
                ctx.cache.begin(&spec, ctx.now)
            });
            self.place = Place::Chunk(item.map_err(storage::error_line)?, None);
            return self.fill(ctx, &staged);
        }
        self.filled += part.len();
        self.fill(ctx, part)
    }

    /// Writes into the chunk, and adds the next one when it is full.
    fn fill(&mut self, ctx: Ctx<'c>, mut part: &[u8]) -> Result<(), ErrorLine> {
        let Place::Chunk(item, _) = &mut self.place else {
            return Ok(());
        };
        loop {
            part = &part[item.write(part)..];
            if !item.spare().is_empty() {
                return Ok(());
            }
            match ctx.cache.extend(item, ctx.now) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) => return Err(ErrorLine::OutOfMemoryDuringRead),
            }
        }
    }

    fn complete(&mut self, ctx: Ctx<'c>, well_ended: bool, out: &mut Output<'c>) {
        let unused = Place::Staged(Vec::new(), Share::staged(ctx));
        let place = std::mem::replace(&mut self.place, unused);
        self.store.with(|store| {
            if !well_ended {
                bad_chunk(store, out);
                return;
            }
            match place {
                Place::Chunk(item, _share) => {
                    storage::execute(ctx, store, self.probe, Data::Item(item), out);
                }
                Place::Staged(staged, _share) => {
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
            let mut room: KeyBuf = [0; protocol::KEY_LEN_MAX];
            let key = store.key.bytes(&mut room);
            storage::refuse(ctx, store, key, self.probe, error)
        })
    }
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

/// A store that outlives the read buffer its line came in.
#[derive(Debug)]
struct OwnedStore {
    /// Its numbers; key and tokens are empty here.
    store: Store<'static>,
    key: Box<[u8]>,
    tokens: Box<[u8]>,
}

impl OwnedStore {
    fn new(store: &Store<'_>) -> Self {
        let (reply, tokens) = match store.reply {
            ReplyMode::Text => (ReplyMode::Text, &b""[..]),
            ReplyMode::NoReply => (ReplyMode::NoReply, &b""[..]),
            ReplyMode::Binary(head) => (ReplyMode::Binary(head), &b""[..]),
            ReplyMode::Meta(tokens) => (
                ReplyMode::Meta(MetaTokens {
                    text: b"",
                    quiet: tokens.quiet,
                    bare: tokens.bare,
                }),
                tokens.text,
            ),
        };
        let key = Key {
            text: b"",
            base64: store.key.base64,
        };
        OwnedStore {
            key: store.key.text.into(),
            tokens: tokens.into(),
            store: Store {
                key,
                reply,
                mode: store.mode,
                client_flags: store.client_flags,
                exptime: store.exptime,
                value_len: store.value_len,
                compare_cas: store.compare_cas,
                new_cas: store.new_cas,
                invalidate: store.invalidate,
                vivify: store.vivify,
            },
        }
    }

    fn with<R>(&self, use_it: impl FnOnce(&Store<'_>) -> R) -> R {
        let reply = match self.store.reply {
            ReplyMode::Meta(tokens) => ReplyMode::Meta(MetaTokens {
                text: &self.tokens,
                quiet: tokens.quiet,
                bare: tokens.bare,
            }),
            other => other,
        };
        use_it(&Store {
            key: Key {
                text: &self.key,
                base64: self.store.key.base64,
            },
            reply,
            ..self.store
        })
    }
}
