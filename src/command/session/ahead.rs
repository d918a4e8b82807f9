//! What is known of a request before it is executed, so that what it needs comes from memory meanwhile.

use protocol::{BinaryAdmin, BinaryVerb, Key, Parsed, Request};

use crate::cache::Probe;
use crate::command::retrieval;
use crate::state::Ctx;

/// Commands parsed ahead, so that their keys' cache misses overlap.
pub(super) const COMMANDS_AHEAD: usize = 16;

/// The key that a request to come is about, if it is about one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Foreseen(pub(super) Option<Probe>);

impl Foreseen {
    /// Asks for the item.
    pub fn fetch(&mut self, ctx: Ctx<'_>) {
        if let Some(probe) = &mut self.0 {
            ctx.cache.prefetch_item(probe);
        }
    }
}

/// What is known of a request before it is executed.
#[derive(Clone, Copy, Default)]
pub(super) struct Plan {
    /// Of its key, if it has exactly one.
    pub(super) probe: Option<Probe>,
    /// It may take an item out of the cache.
    pub(super) unlinks: bool,
    /// Where a store's data block begins.
    pub(super) block: usize,
    /// Where the next request begins.
    pub(super) end: usize,
}

impl Plan {
    /// Plans what was parsed at `start`; false if it is not about keys, or not all there.
    #[inline(always)]
    pub(super) fn make(
        &mut self,
        ctx: Ctx<'_>,
        parsed: &Parsed<'_>,
        input: &[u8],
        start: usize,
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
                self.probe = None;
                return true;
            }
            Request::Admin(_)
            | Request::BinaryAdmin(_)
            | Request::Sasl(_)
            | Request::ConfigSet(_) => return false,
        };
        let mut probe = retrieval::probe_of(ctx, key);
        ctx.cache.prefetch_bucket(&mut probe);
        self.probe = Some(probe);
        self.unlinks = matches!(request, Request::Store(_) | Request::Delete(_));
        true
    }
}
