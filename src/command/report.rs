//! The reports of `stats` that grow with what the server holds: `stats items`, `stats slabs`, `stats conns`.
//!
//! Any number of clients may ask for one and not read it. So a report is written in steps, as the output is taken: what
//! waits for a peer is one step's lines on top of a full output, however many classes or connections there are.
//!
//! R1. A step writes the lines of [`CLASSES_A_STEP`] classes or [`CONNS_A_STEP`] connections at most.
//! R2. Between steps a report is the number of the class or connection to go on from. Those that come or go meanwhile
//!     may be missed; none is shown twice.

use protocol::reply::{self, END};
use protocol::{BinaryHead, binary};

use super::output::Output;
use crate::report::{conn_lines, item_lines, slab_lines};
use crate::state::Ctx;

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
                binary_lines(head, &lines, out);
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

/// Lines of text, each in its packet.
pub(super) fn binary_lines(head: BinaryHead, lines: &[u8], out: &mut Output<'_>) {
    for line in lines.split(|&byte| byte == b'\n') {
        binary_line(head, line.strip_suffix(b"\r").unwrap_or(line), out);
    }
}

/// A line `STAT key value` in its packet. Other lines are ends, which have one of their own.
fn binary_line(head: BinaryHead, line: &[u8], out: &mut Output<'_>) {
    if let Some(pair) = line.strip_prefix(b"STAT ") {
        let key_len = pair.iter().position(|&byte| byte == b' ');
        let (key, value) = pair.split_at(key_len.unwrap_or(pair.len()));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        binary::stat(&mut out.buf, head, key, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::command::testing::Server;
    use crate::state::{ConnInfo, ConnState};

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
