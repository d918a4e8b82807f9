//! Ports of the loopback. A server of a test binds port 0 and says what it got; these are for programs that cannot.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A TCP port that was free a moment ago. Another process may take it before it is used: try again then.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("the loopback has ports");
    socket.local_addr().expect("the socket is bound").port()
}

static ASKED: AtomicU32 = AtomicU32::new(0);

/// A TCP port that is free, and stays so while its program is away: it lies below those that the system gives to whoever asks
/// for any.
pub fn quiet_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 12_000..32_000;
    let begin = std::process::id().wrapping_mul(7919);
    loop {
        let n = begin.wrapping_add(ASKED.fetch_add(1, Relaxed).wrapping_mul(17));
        let port = (PORTS.start + n % PORTS.len() as u32) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// An address where nobody listens.
pub fn nobody() -> String {
    format!("127.0.0.1:{}", quiet_port())
}
