//! What is known of a request before it is executed, so that what it needs comes from memory meanwhile.

use protocol::{BinaryVerb, Parsed, Request};

use super::wire::Wire;
use crate::cache::{Ahead, Probe};
use crate::command::retrieval;
use crate::state::Ctx;

/// Commands parsed ahead, so that their keys' cache misses overlap.
const COMMANDS_AHEAD: usize = 16;

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
    /// Nothing is known but where its line or packet ends.
    #[inline(always)]
    pub(super) fn of(end: usize) -> Self {
        Plan {
            block: end,
            end,
            ..Plan::default()
        }
    }

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
        let Some(key) = request.key() else {
            return goes_along(request);
        };
        if let Some(len) = request.block() {
            let end = usize::try_from(len).ok();
            match end.and_then(|len| self.block.checked_add(len)) {
                Some(end) if end <= input.len() => self.end = end,
                _ => return false,
            }
        }
        let unlinks = matches!(request, Request::Store(_) | Request::Delete(_));
        self.ahead = Some(match foreseen {
            Some(ahead) => ahead,
            None => retrieval::look_ahead(ctx, key, unlinks),
        });
        true
    }
}

/// Requests that were parsed ahead, the first of which is executed when all of them have had fetched what they need.
pub(super) struct Batch<'b> {
    // Apart from each other, so that what the parser answers is written here and not copied again.
    parsed: [Parsed<'b>; COMMANDS_AHEAD],
    plans: [Plan; COMMANDS_AHEAD],
    /// How many there are.
    pub(super) count: usize,
}

impl<'b> Batch<'b> {
    /// One request, which is planned.
    #[inline(always)]
    pub(super) fn after(first: (Parsed<'b>, Plan)) -> Self {
        let mut batch = Batch {
            parsed: [Parsed::Incomplete; COMMANDS_AHEAD],
            plans: [Plan::default(); COMMANDS_AHEAD],
            count: 1,
        };
        (batch.parsed[0], batch.plans[0]) = first;
        batch
    }

    /// Parses what follows in `input`, as far as it can be planned, and asks for the buckets; gives where that ends.
    #[inline(always)]
    pub(super) fn read(&mut self, ctx: Ctx<'_>, wire: Wire, input: &'b [u8]) -> usize {
        let mut end = self.plans[0].end;
        while self.count < COMMANDS_AHEAD && end < input.len() {
            let (parsed, plan) = (&mut self.parsed[self.count], &mut self.plans[self.count]);
            wire.parse(&input[end..], parsed);
            if !plan.make(ctx, parsed, input, end, None) {
                break;
            }
            end = plan.end;
            self.count += 1;
        }
        end
    }

    /// Asks for the items, and for what lies behind them.
    #[inline(always)]
    pub(super) fn fetch(&mut self, ctx: Ctx<'_>) {
        let plans = &mut self.plans[..self.count];
        for _ in 0..Ahead::STEPS {
            for ahead in plans.iter_mut().filter_map(|plan| plan.ahead.as_mut()) {
                ahead.step(ctx.cache);
            }
        }
    }

    /// The requests in order, with what is known of them.
    #[inline(always)]
    pub(super) fn requests(&self) -> impl Iterator<Item = (&Request<'b>, &Plan)> {
        let all = self.parsed.iter().zip(&self.plans[..self.count]);
        all.map(|(parsed, plan)| match parsed {
            Parsed::Complete { request, .. } => (request, plan),
            _ => unreachable!("only whole requests have a plan"),
        })
    }
}

/// True if a request without one key may be parsed ahead and executed in its turn: it changes nothing that those behind it
/// are parsed by.
#[inline(always)]
fn goes_along(request: &Request<'_>) -> bool {
    match request {
        Request::Get(get) => get.last,
        Request::MetaNoop => true,
        Request::BinaryAdmin(admin) => admin.verb == BinaryVerb::Noop,
        _ => false,
    }
}
