//! Requests about the server as a whole: what a proxy and its nodes say together.

use bytes::Bytes;
use protocol::{reply, text};

use super::ProxySession;
use super::step::Step;
use crate::command::{Output, general_figures};
use crate::proxy::desk::Desk;
use crate::proxy::verbs::Job;
use crate::state::Ctx;

/// Bytes of a line that begins with `proxy`.
const PROXY_LINE_MAX: usize = 256;

impl<'c> ProxySession<'c> {
    /// `proxy reload`: when nothing is owed any more.
    pub(super) fn command(&mut self, desk: &mut Desk, input: &[u8], out: &mut Output<'c>) -> Step {
        let Some(len) = text::line_len(input) else {
            return match input.len() {
                ..PROXY_LINE_MAX => Step::More,
                _ => Step::Taken(input.len()),
            };
        };
        if !self.owed.is_empty() {
            return Step::Wait;
        }
        match input[..len].trim_ascii_end() {
            b"proxy reload" => match desk.reload() {
                Ok(()) => out.bytes(reply::OK),
                Err(reason) => {
                    log::error!("proxy reload: the routes stay as they were: {reason}");
                    let line = format!("SERVER_ERROR {}\r\n", reason.replace(['\r', '\n'], " "));
                    out.bytes(line.as_bytes());
                }
            },
            _ => out.error(protocol::ErrorLine::Error),
        }
        Step::Taken(len)
    }

    /// `flush_all`, to all nodes of all pools.
    pub(super) fn flush(
        &mut self,
        desk: &mut Desk,
        line: Bytes,
        head: Option<protocol::BinaryHead>,
        replies: bool,
        out: &mut Output<'c>,
    ) {
        let mut others = desk.pools_to_flush();
        if others.is_empty() {
            return;
        }
        let first = desk.course_over(others.remove(0));
        let job = Job::Flush {
            line,
            others,
            head,
            replies,
        };
        // Also where no reply is wanted: what the client stores next comes behind it.
        self.begin(desk, first, job, out);
        self.is_serial = true;
    }

    /// `stats`: what the server says of itself, and of items what the nodes say together. Of a group that is about items, what each
    /// node says.
    pub(super) fn stats(
        &mut self,
        ctx: Ctx<'c>,
        desk: &mut Desk,
        group: &[u8],
        head: Option<protocol::BinaryHead>,
        out: &mut Output<'c>,
    ) {
        let mut others = desk.all_pools();
        if others.is_empty() {
            return;
        }
        let first = desk.course_over(others.remove(0));
        let (own, group) = match group {
            b"" => (general_figures(ctx), None),
            group => (
                Vec::new(),
                Some(String::from_utf8_lossy(group).into_owned()),
            ),
        };
        let job = Job::Stats {
            own,
            group,
            others,
            head,
        };
        self.begin(desk, first, job, out);
        self.is_serial = true;
    }
}
