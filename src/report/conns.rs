//! `stats conns`, a connection at a time.

use std::fmt::Display;
use std::sync::atomic::Ordering::Relaxed;

use protocol::reply;

use crate::state::{ConnInfo, ConnState, Ctx};

pub(crate) fn conn_lines(ctx: Ctx<'_>, conn: &ConnInfo, out: &mut Vec<u8>) {
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
