//! `stats conns`, a connection at a time.

use std::sync::atomic::Ordering::Relaxed;

use super::figures::Figures;
use super::sink::{Of, Sink};
use crate::state::{ConnInfo, ConnState, Ctx};

/// One connection or listener.
pub(super) fn conn(ctx: Ctx<'_>, conn: &ConnInfo, sink: &mut dyn Sink) {
    let state = conn.state();
    let of = Of::Conn(conn.fd);
    let mut figures = Figures { of, sink };
    let is_udp = conn.addr.starts_with("udp:");
    if is_udp {
        figures.text("UDP", "UDP");
    }
    figures.text("addr", &conn.addr);
    if state != ConnState::Listening && !is_udp {
        figures.text("listen_addr", &conn.listen_addr);
    }
    figures.text("state", state.name());
    let last_command = conn.last_command.load(Relaxed);
    figures.seconds(
        "secs_since_last_cmd",
        ctx.now.0.saturating_sub(last_command),
    );
}
