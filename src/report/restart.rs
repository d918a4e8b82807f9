//! `stats restart`: what was kept over the start.

use std::time::Duration;

use super::figures::Figures;
use super::sink::{Of, Sink};
use crate::cache::Dropped;
use crate::state::{Ctx, Figure};

/// All of it.
pub(super) fn restart(ctx: Ctx<'_>, sink: &mut dyn Sink) {
    let of = Of::Server;
    let mut figures = Figures { of, sink };
    if let Some(restart) = &ctx.shared.restart {
        figures.text("memory_file", restart.how.name());
        if !restart.reason.is_empty() {
            figures.text("memory_file_reason", &restart.reason);
        }
        figures.count("memory_file_items", restart.kept);
        for (why, count) in Dropped::ALL.iter().zip(restart.dropped) {
            figures.count(&format!("memory_file_{}", why.name()), count);
        }
        let down = Duration::from_millis(restart.down_ms);
        figures.time("memory_file_down_time", down);
        for &(step, took) in &restart.steps {
            figures.time(&format!("memory_file_{step}_time"), took);
        }
    }
    for (name, figure) in ctx.shared.carried.figures() {
        match figure {
            Figure::Count(count) => figures.count(name, count),
            Figure::Bytes(bytes) => figures.bytes(name, bytes),
            Figure::Time(time) => figures.time(name, time),
            Figure::Text(text) => figures.text(name, &text),
        }
    }
}
