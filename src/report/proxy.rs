//! `stats proxy`: what a proxy has passed on, and how its nodes are.

use super::figures::Figures;
use super::sink::{Of, Sink};
use crate::state::Ctx;

/// All of it; nothing where there is no proxy.
pub(super) fn proxy(ctx: Ctx<'_>, sink: &mut dyn Sink) {
    let of = Of::Server;
    let mut figures = Figures { of, sink };
    let all = ctx.shared.proxy.as_ref().map(|proxy| proxy.figures());
    for (name, count) in all.unwrap_or_default() {
        figures.count(&name, count);
    }
}
