//! The reports of `stats` that grow with what the server holds: `stats items`, `stats slabs`, `stats conns`.
//!
//! Any number of clients may ask for one and not read it. So a report is written in steps, as the output is taken: what
//! waits for a peer is one step's lines on top of a full output, however many classes or connections there are.
//!
//! R1. A step writes the lines of [`CLASSES_A_STEP`] classes or [`CONNS_A_STEP`] connections at most.
//! R2. Between steps a report is the number of the class or connection to go on from. Those that come or go meanwhile
//!     may be missed; none is shown twice.

use std::fmt::Display;
use std::sync::atomic::Ordering::Relaxed;

use protocol::reply::{self, END};
use protocol::{BinaryHead, binary};

use super::connections::{ConnInfo, ConnState};
use super::output::Output;
use super::shared::Ctx;
use super::stats::{self, fields};
use crate::cache::{ClassId, ClassReport, LruCounters, Segment};
use crate::stats::Sums;

/// Classes of a step; each has a kilobyte of lines at most.
const CLASSES_A_STEP: usize = 16;
/// Connections of a step; each has some 200 bytes of lines.
const CONNS_A_STEP: usize = 64;

#[derive(Debug)]
enum Kind {
    Items,
    Slabs {
        /// Classes shown, and their pages.
        active: usize,
        pages: usize,
    },
    Conns,
}

/// A report in progress.
#[derive(Debug)]
pub(super) struct Report {
    kind: Kind,
    /// The number of the class or descriptor that is next.
    next: usize,
    /// The head of its packets, if it is binary.
    binary: Option<BinaryHead>,
}

impl Report {
    fn new(kind: Kind, binary: Option<BinaryHead>) -> Self {
        Report {
            kind,
            next: 0,
            binary,
        }
    }

    /// `stats items`: the classes that hold any.
    pub(super) fn items(binary: Option<BinaryHead>) -> Self {
        Report::new(Kind::Items, binary)
    }

    /// `stats slabs`: the classes that have pages, and those that had some, for what they counted.
    pub(super) fn slabs(binary: Option<BinaryHead>) -> Self {
        let (active, pages) = (0, 0);
        Report::new(Kind::Slabs { active, pages }, binary)
    }

    /// `stats conns`.
    pub(super) fn conns(binary: Option<BinaryHead>) -> Self {
        Report::new(Kind::Conns, binary)
    }

    /// Goes on; true when the report is complete.
    pub(super) fn step(&mut self, ctx: Ctx<'_>, out: &mut Output<'_>) -> bool {
        match self.binary {
            None => {
                let done = self.lines(ctx, &mut out.buf);
                if done {
                    out.bytes(END);
                }
                done
            }
            Some(head) => {
                let mut lines = Vec::new();
                let done = self.lines(ctx, &mut lines);
                stats::binary_lines(head, &lines, out);
                if done {
                    binary::stat_end(&mut out.buf, head);
                }
                done
            }
        }
    }

    fn lines(&mut self, ctx: Ctx<'_>, out: &mut Vec<u8>) -> bool {
        if let Kind::Conns = self.kind {
            let conns = ctx.shared.connections.list_from(self.next, CONNS_A_STEP);
            for conn in &conns {
                self.next = conn.fd as usize + 1;
                conn_lines(ctx, conn, out);
            }
            return conns.len() < CONNS_A_STEP;
        }
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
                    slab_lines(&sums, &report, out);
                }
                _ => item_lines(ctx, &sums, &report, out),
            }
        }
        let done = left > 0;
        if let Kind::Slabs { active, pages } = self.kind
            && done
        {
            let bytes = (pages + ctx.cache.pool_pages()) * ctx.cache.page_bytes();
            reply::stat(out, "active_slabs", active);
            reply::stat(out, "total_malloced", bytes);
        }
        done
    }
}

/// Lines whose keys begin with a class: `items:5:`, `5:`.
struct ClassLines<'o> {
    out: &'o mut Vec<u8>,
    prefix: &'static str,
    class: ClassId,
}

impl ClassLines<'_> {
    fn stat(&mut self, key: &str, value: impl Display) {
        let (prefix, class) = (self.prefix, self.class.get());
        reply::stat(self.out, format_args!("{prefix}{class}:{key}"), value);
    }
}

fn item_lines(ctx: Ctx<'_>, sums: &Sums, report: &ClassReport, out: &mut Vec<u8>) {
    if stats::items_of(report) == 0 {
        return;
    }
    let temp = ctx.cache.tuning.temporary_ttl_s.load(Relaxed) >= 0;
    let count = |segment: Segment| report.counts[segment as usize];
    let age = |segment: Segment| report.ages_s[segment as usize];
    let mut lines = ClassLines {
        out,
        prefix: "items:",
        class: report.class,
    };
    lines.stat("number", stats::items_of(report));
    lines.stat("number_hot", count(Segment::Hot));
    lines.stat("number_warm", count(Segment::Warm));
    lines.stat("number_cold", count(Segment::Cold));
    if temp {
        lines.stat("number_temp", count(Segment::Temp));
    }
    lines.stat("age_hot", age(Segment::Hot));
    lines.stat("age_warm", age(Segment::Warm));
    // Of the oldest, wherever the policy keeps it: in memcached COLD has it, as all items come there in time.
    lines.stat("age", report.ages_s.into_iter().max().unwrap_or_default());
    lines.stat("mem_requested", report.mem_requested);
    let lru: LruCounters = report.lru;
    fields!(lines, lru, evicted evicted_nonzero evicted_time outofmemory);
    // Nothing is ever taken from a reader that holds it too long.
    lines.stat("tailrepairs", 0);
    fields!(lines, lru, reclaimed expired_unfetched evicted_unfetched evicted_active
        crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm
        moves_within_lru direct_reclaims);
    let hits = &sums.classes[report.class.index()];
    fields!(lines, hits, hits_to_hot hits_to_warm hits_to_cold hits_to_temp);
}

fn slab_lines(sums: &Sums, report: &ClassReport, out: &mut Vec<u8>) {
    let slabs = report.slabs;
    let total_chunks = slabs.total_pages * slabs.chunks_per_page;
    let mut lines = ClassLines {
        out,
        prefix: "",
        class: report.class,
    };
    lines.stat("chunk_size", slabs.chunk_bytes);
    lines.stat("chunks_per_page", slabs.chunks_per_page);
    lines.stat("total_pages", slabs.total_pages);
    lines.stat("total_chunks", total_chunks);
    lines.stat("used_chunks", slabs.used_chunks);
    lines.stat(
        "free_chunks",
        total_chunks.saturating_sub(slabs.used_chunks),
    );
    // Those never used count as free, as in every memcached since 1.4.
    lines.stat("free_chunks_end", 0);
    let hits = &sums.classes[report.class.index()];
    fields!(lines, hits, get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval
        touch_hits);
}

fn conn_lines(ctx: Ctx<'_>, conn: &ConnInfo, out: &mut Vec<u8>) {
    let state = conn.state();
    let mut stat = |key: &str, value: &dyn Display| {
        reply::stat(out, format_args!("{}:{key}", conn.fd), value);
    };
    let is_udp = conn.addr.starts_with("udp:");
    if is_udp {
        stat("UDP", &"UDP");
    }
    stat("addr", &conn.addr);
    if state != ConnState::Listening && !is_udp {
        stat("listen_addr", &conn.listen_addr);
    }
    stat("state", &state.name());
    let last_command = conn.last_command.load(Relaxed);
    stat(
        "secs_since_last_cmd",
        &ctx.now.0.saturating_sub(last_command),
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::command::testing::Server;

    /// The bytes that one step adds at most: an output that is full takes no more.
    const STEP_BYTES_MAX: usize = 24 << 10;

    /// All of a report, and how many steps it took; each has its bound.
    fn in_steps(server: &Server, mut report: Report) -> (String, usize) {
        let (mut text, mut steps) = (Vec::new(), 0);
        loop {
            let mut out = Output::new();
            let done = report.step(server.shared.ctx(0), &mut out);
            assert!(out.buf.len() <= STEP_BYTES_MAX, "{}", out.buf.len());
            text.extend_from_slice(&out.buf);
            steps += 1;
            if done {
                return (String::from_utf8(text).expect("text"), steps);
            }
        }
    }

    #[test]
    fn connections_are_shown_in_steps_each_once() {
        let server = Server::start();
        let all: BTreeSet<i32> = (0..2000).map(|n| n * 3 + 5).collect();
        for &fd in &all {
            let name: Arc<str> = "tcp:127.0.0.1:11211".into();
            let addr = format!("tcp:127.0.0.1:{}", 20_000 + fd).into();
            let info = ConnInfo::new(fd, addr, name, ConnState::Read, 0);
            server.shared.connections.add(Arc::new(info));
        }
        let (text, steps) = in_steps(&server, Report::conns(None));
        assert!(steps > 2000 / CONNS_A_STEP, "{steps}");
        assert!(text.ends_with("\r\nEND\r\n"));
        let mut shown = Vec::new();
        for line in text.lines().filter(|line| line.contains(":state ")) {
            let fd = line
                .strip_prefix("STAT ")
                .and_then(|rest| rest.split(':').next());
            shown.push(fd.and_then(|fd| fd.parse().ok()).expect("a descriptor"));
        }
        assert_eq!(shown.len(), all.len());
        assert_eq!(shown.into_iter().collect::<BTreeSet<i32>>(), all);
        // A client gets the same.
        assert_eq!(server.ask("stats conns\r\n"), text);
    }

    #[test]
    fn classes_are_shown_in_steps() {
        let server = Server::start();
        let mut len = 1;
        while len < 30_000 {
            server.ask(&format!("set k{len} 0 0 {len}\r\n{}\r\n", "v".repeat(len)));
            len += len / 8 + 1;
        }
        for (report, group) in [
            (Report::items(None), "items"),
            (Report::slabs(None), "slabs"),
        ] {
            let (text, steps) = in_steps(&server, report);
            assert!(steps > 1, "{group}: {steps}");
            assert_eq!(server.ask(&format!("stats {group}\r\n")), text);
        }
    }
}
