//! A report on its way to a client: lines of text, or binary packets.

use std::fmt::Write;

use protocol::reply::{self, END};
use protocol::{BinaryHead, binary};

use super::output::Output;
use crate::report::{Key, Of, Report, Sink, Value};
use crate::state::Ctx;

/// A report in progress, and how it is written.
#[derive(Debug)]
pub(super) struct Running {
    report: Report,
    /// The head of its packets, if it is binary.
    binary: Option<BinaryHead>,
}

impl Running {
    pub(super) fn new(report: Report, binary: Option<BinaryHead>) -> Self {
        Running { report, binary }
    }

    /// Goes on; true when the report is complete.
    pub(super) fn step(&mut self, ctx: Ctx<'_>, out: &mut Output<'_>) -> bool {
        let done = match self.binary {
            None => self.report.step(ctx, &mut Lines(&mut out.buf)),
            Some(head) => self.report.step(ctx, &mut Packets::new(head, &mut out.buf)),
        };
        if done {
            end(self.binary, out);
        }
        done
    }
}

/// Ends a report, or any reply of `stats`.
pub(super) fn end(binary: Option<BinaryHead>, out: &mut Output<'_>) {
    match binary {
        None => out.bytes(END),
        Some(head) => binary::stat_end(&mut out.buf, head),
    }
}

/// One figure of the server outside of a report.
pub(super) fn stat(binary: Option<BinaryHead>, name: &str, value: Value<'_>, out: &mut Output<'_>) {
    let of = Of::Server;
    let key = Key { of, name };
    match binary {
        None => Lines(&mut out.buf).stat(key, value),
        Some(head) => Packets::new(head, &mut out.buf).stat(key, value),
    }
}

/// The figures of `stats` without a group, for who puts others beside them.
pub fn general_figures(ctx: Ctx<'_>) -> Vec<(String, String)> {
    let mut figures = Collected::default();
    while !Report::general().step(ctx, &mut figures) {}
    figures.0
}

#[derive(Default)]
struct Collected(Vec<(String, String)>);

impl Sink for Collected {
    fn stat(&mut self, key: Key<'_>, value: Value<'_>) {
        self.0.push((key.to_string(), value.to_string()));
    }
}

/// Lines `STAT key value`.
struct Lines<'o>(&'o mut Vec<u8>);

impl Sink for Lines<'_> {
    fn stat(&mut self, key: Key<'_>, value: Value<'_>) {
        reply::stat(self.0, key, value);
    }
}

/// Packets of a key and a value.
struct Packets<'o> {
    head: BinaryHead,
    out: &'o mut Vec<u8>,
    /// Room for the two as text.
    room: (String, String),
}

impl<'o> Packets<'o> {
    fn new(head: BinaryHead, out: &'o mut Vec<u8>) -> Self {
        let room = Default::default();
        Packets { head, out, room }
    }
}

impl Sink for Packets<'_> {
    fn stat(&mut self, key: Key<'_>, value: Value<'_>) {
        let (key_text, value_text) = &mut self.room;
        key_text.clear();
        value_text.clear();
        write!(key_text, "{key}").expect("writing to a String does not fail");
        write!(value_text, "{value}").expect("writing to a String does not fail");
        binary::stat(
            self.out,
            self.head,
            key_text.as_bytes(),
            value_text.as_bytes(),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::command::testing::Server;
    use crate::report::CONNS_A_STEP;
    use crate::state::{ConnInfo, ConnState};

    /// The bytes that one step adds at most: an output that is full takes no more.
    const STEP_BYTES_MAX: usize = 24 << 10;

    /// All of a report, and how many steps it took; each has its bound.
    fn in_steps(server: &Server, report: Report) -> (String, usize) {
        let mut report = Running::new(report, None);
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
        let (text, steps) = in_steps(&server, Report::conns());
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
        for (report, group) in [(Report::items(), "items"), (Report::slabs(), "slabs")] {
            let (text, steps) = in_steps(&server, report);
            assert!(steps > 1, "{group}: {steps}");
            assert_eq!(server.ask(&format!("stats {group}\r\n")), text);
        }
    }
}
