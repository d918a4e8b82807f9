//! What the server counts and how it is set, under memcached's names and in their order.
//!
//! ```text
//!  counters --one snapshot a step--> Report --Key, Value--> Sink: lines of text, binary packets, ..
//! ```
//!
//! A name that has no meaning here (another memory of connections, no watchers) is shown with the value it would have if
//! nothing of the kind ever happened: clients look for it.
//!
//! Any number of clients may ask for a report and not read it. So one that grows with what the server holds is written in
//! steps, as its sink is emptied: what waits for a peer is one step's figures, however many classes or connections there
//! are.
//!
//! Rp1. A step writes the figures of [`CLASSES_A_STEP`] classes or [`CONNS_A_STEP`] connections at most. What is told of the
//!      whole server is one step.
//! Rp2. Between steps a report is the number of the class or connection to go on from. Those that come or go meanwhile
//!      may be missed; none is shown twice.
//! Rp3. The figures of a step are of one moment: each counter is read once.

mod classes;
mod conns;
mod figures;
mod general;
mod insight;
mod proxy;
mod restart;
mod settings;
mod sink;

pub(crate) use insight::{Insight, why};
pub(crate) use sink::{Key, Of, Sink, Value};

use crate::state::Ctx;

/// Classes of a step; each has a kilobyte of lines at most.
const CLASSES_A_STEP: usize = 16;
/// Connections of a step; each has some 200 bytes of lines.
pub(crate) const CONNS_A_STEP: usize = 64;

/// Seconds of a step; each has some 100 bytes.
const SECONDS_A_STEP: usize = 60;

/// A report in progress.
#[derive(Debug)]
pub(crate) struct Report {
    kind: Kind,
    /// The number of the class or descriptor that is next.
    next: usize,
}

#[derive(Debug)]
enum Kind {
    General,
    Settings,
    Items,
    Slabs {
        /// Classes shown, and their pages.
        active: usize,
        pages: usize,
    },
    Conns,
    Restart,
    Proxy,
    Insight(Insight),
    /// The second to go on after, none before the first step.
    Record(Option<i64>),
}

impl Report {
    /// The whole server.
    pub(crate) fn general() -> Self {
        Report::of(Kind::General)
    }

    /// What is in force now, commands included.
    pub(crate) fn settings() -> Self {
        Report::of(Kind::Settings)
    }

    /// The classes that hold items.
    pub(crate) fn items() -> Self {
        Report::of(Kind::Items)
    }

    /// The classes that have pages, and those that had some, for what they counted.
    pub(crate) fn slabs() -> Self {
        let (active, pages) = (0, 0);
        Report::of(Kind::Slabs { active, pages })
    }

    /// What goes on among the keys.
    pub(crate) fn insight(insight: Insight) -> Self {
        Report::of(Kind::Insight(insight))
    }

    /// What was kept over the start.
    pub(crate) fn restart() -> Self {
        Report::of(Kind::Restart)
    }

    /// What a proxy passes on.
    pub(crate) fn proxy() -> Self {
        Report::of(Kind::Proxy)
    }

    /// The last minutes, second by second.
    pub(crate) fn record() -> Self {
        Report::of(Kind::Record(None))
    }

    /// The open connections.
    pub(crate) fn conns() -> Self {
        Report::of(Kind::Conns)
    }

    fn of(kind: Kind) -> Self {
        Report { kind, next: 0 }
    }

    /// Goes on; true when the report is complete.
    pub(crate) fn step(&mut self, ctx: Ctx<'_>, sink: &mut dyn Sink) -> bool {
        match self.kind {
            Kind::General => {
                general::general(ctx, sink);
                true
            }
            Kind::Settings => {
                settings::settings(ctx, sink);
                true
            }
            Kind::Restart => {
                restart::restart(ctx, sink);
                true
            }
            Kind::Proxy => {
                proxy::proxy(ctx, sink);
                true
            }
            Kind::Insight(insight) => {
                insight.write(ctx, sink);
                true
            }
            Kind::Record(after) => {
                let last = insight::record(ctx, after, SECONDS_A_STEP, sink);
                self.kind = Kind::Record(last);
                last == after
            }
            Kind::Conns => {
                let conns = ctx.shared.connections.list_from(self.next, CONNS_A_STEP);
                for conn in &conns {
                    self.next = conn.fd as usize + 1;
                    conns::conn(ctx, conn, sink);
                }
                conns.len() < CONNS_A_STEP
            }
            Kind::Items | Kind::Slabs { .. } => self.step_over_classes(ctx, sink),
        }
    }

    fn step_over_classes(&mut self, ctx: Ctx<'_>, sink: &mut dyn Sink) -> bool {
        let sums = ctx.shared.stats.read();
        let reports = ctx.cache.class_reports_from(self.next, ctx.now);
        let mut left = CLASSES_A_STEP;
        for report in reports.take(CLASSES_A_STEP) {
            self.next = report.class.index() + 1;
            left -= 1;
            match &mut self.kind {
                Kind::Slabs { active, pages } => {
                    *active += 1;
                    *pages += report.slabs.total_pages;
                    classes::slab(&sums, &report, sink);
                }
                _ => classes::items(ctx, &sums, &report, sink),
            }
        }
        let done = left > 0;
        if let Kind::Slabs { active, pages } = self.kind
            && done
        {
            general::slabs(ctx, active, pages, sink);
        }
        done
    }
}
