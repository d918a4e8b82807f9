//! What is known of a request before it is executed, so that what it needs comes from memory meanwhile.

use protocol::{BinaryAdmin, BinaryVerb, Key, Parsed, Request};

use crate::cache::{Ahead, Probe};
use crate::command::retrieval;
use crate::state::Ctx;

/// Commands parsed ahead, so that their keys' cache misses overlap.
pub(super) const COMMANDS_AHEAD: usize = 16;

/// What is known of a request before it is executed.
#[derive(Clone, Copy, Default)]
pub(super) struct Plan {
    /// Its key, if it has exactly one.
    pub(super) ahead: Option<Ahead>,
    /// Where a store's data block begins.
    pub(super) block: usize,
    /// Where the next request begins.
    pub(super) end: usize,
}

impl Plan {
    /// What is known of where its item is.
    #[inline]
    pub(super) fn probe(&self) -> Option<Probe> {
        self.ahead.as_ref().map(Ahead::probe)
    }

    /// Plans what was parsed at `start`; false if it is not about keys, or not all there. If its key was looked for
    /// already, that is `foreseen`.
    #[inline(always)]
    pub(super) fn make(
        &mut self,
        ctx: Ctx<'_>,
        parsed: &Parsed<'_>,
        input: &[u8],
        start: usize,
        foreseen: Option<Ahead>,
    ) -> bool {
        let Parsed::Complete { request, consumed } = parsed else {
            return false;
        };
        self.block = start + *consumed;
        self.end = self.block;
        let key = match request {
            Request::Get(get) if !get.last => return false,
            Request::Get(get) if get.single => Key::plain(get.keys.0),
            Request::Store(store) => {
                let end = usize::try_from(store.block_len()).ok();
                match end.and_then(|len| self.block.checked_add(len)) {
                    Some(end) if end <= input.len() => self.end = end,
                    _ => return false,
                }
                store.key
            }
            Request::Delete(delete) => delete.key,
            Request::Arith(arith) => arith.key,
            Request::Touch(touch) => touch.key,
            Request::MetaGet(get) => get.key,
            Request::MetaDebug(key) => *key,
            Request::BinaryGet(get) => get.key,
            Request::Get(_)
            | Request::MetaNoop
            | Request::BinaryAdmin(BinaryAdmin {
                verb: BinaryVerb::Noop,
                ..
            }) => {
                self.ahead = None;
                return true;
            }
            Request::Admin(_)
            | Request::BinaryAdmin(_)
            | Request::Sasl(_)
            | Request::ConfigSet(_) => return false,
        };
        let unlinks = matches!(request, Request::Store(_) | Request::Delete(_));
        let look = || retrieval::with_bytes(key, |key| ctx.cache.look_ahead(key, unlinks));
        self.ahead = Some(foreseen.unwrap_or_else(look));
        true
    }
}
