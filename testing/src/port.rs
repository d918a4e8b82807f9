//! Ports of the loopback. A server of a test binds port 0 and says what it got; these are for programs that cannot.

use std::net::TcpListener;

/// A TCP port that was free a moment ago. Another process may take it before it is used: try again then.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("the loopback has ports");
    socket.local_addr().expect("the socket is bound").port()
}

/// An address where nobody listens.
pub fn nobody() -> String {
    format!("127.0.0.1:{}", free_port())
}
