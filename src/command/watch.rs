//! `watch`: hands the connection over to who writes down what happens.

use protocol::ErrorLine;

use super::output::Output;
use super::owed::AdminOutcome;
use crate::events::{self, Refusal};
use crate::state::Ctx;

/// Begins to watch, or answers why not.
pub(super) fn execute(ctx: Ctx<'_>, words: &[&[u8]], out: &mut Output<'_>) -> AdminOutcome {
    let refusal = if ctx.shared.settings.watch_enabled {
        let watch = events::parse(words.iter().copied());
        let places = &ctx.cache.events().places;
        let taken = watch.and_then(|watch| places.take(&watch).map(|place| (watch, place)));
        match taken {
            Ok((watch, place)) => return AdminOutcome::Watch(Box::new(watch), place),
            Err(refusal) => refusal,
        }
    } else {
        return refused(ErrorLine::WatchNotAllowed, out);
    };
    let error = match refusal {
        Refusal::Word => ErrorLine::Error,
        Refusal::Value => ErrorLine::BadFormat,
        Refusal::TooMany => ErrorLine::WatcherTooMany,
    };
    refused(error, out)
}

fn refused(error: ErrorLine, out: &mut Output<'_>) -> AdminOutcome {
    out.error(error);
    AdminOutcome::Done
}
