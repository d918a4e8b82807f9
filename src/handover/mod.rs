//! A server goes on in another process (`--takeover`, SIGUSR2): its listeners, its memory, its clients.
//!
//! ```text
//!  the one before                                              the one that takes over
//!  doorbell: a unix socket by the name of its address  <-------- knocks: Hello
//!  Estate: listeners, UDP sockets, HTTP, memory, locks  ------->  options checked against it, ports bound that are not there
//!                                                      <-------- Ready (or its end: nothing has happened)
//!  background threads end, then listener and workers,
//!  each connection written down                 -- the pause --
//!  Rest: connections, the log's segment, cluster list   ------->  attaches the memory, starts its threads behind a gate
//!                                                      <-------- Attached
//!  Go                                                   ------->
//!                                                      <-------- Serving: said before the gate opens
//!  ends without touching anything                                 gate open
//! ```
//!
//! Ho1. Exactly one of the two serves. The new one serves when its Serving has been taken by the socket; the one before ends when it
//!      has read it. Whoever does not find the other there goes on, or ends, by itself.
//! Ho2. Until then the one before keeps all that it has: sockets, connections as it has written them down, the memory. It goes on
//!      with them as the new one would have, when that one has ended: it is killed if it does not answer in time
//!      ([`ANSWER_WITHIN`]), and its end is awaited, as both write to the same memory.
//! Ho3. Where the one before crashes meanwhile, the new one goes on with what it has: with all of it, or with the memory alone, which it
//!      looks through as after any crash. Where the new one ends, the one before goes on with everything (Ho2).
//! Ho4. The new one removes, renames and writes no file before it serves, but its own log.
//! Ho5. Only processes of the same user, or of root, are spoken with, as the kernel tells who they are.
//! Ho6. What stands in a message is written by [`crate::packing`]; [`FORMAT`] changes with it, and who does not know the other's
//!      leaves everything as it is.
//! Ho7. Of several who knock one has the estate at a time. Where it takes over, the others are sent away by it, and knock again: at it.
//!     Nobody else may take the end of the one before for a crash.

mod channel;
mod estate;
mod predecessor;
mod successor;

use std::time::Duration;

pub use estate::{Estate, Rest};
pub use predecessor::Predecessor;
pub use successor::{Doorbell, Successor, launch};

/// The number of what is written in messages.
const FORMAT: u32 = 3;
/// How long the one before waits, while nobody serves, for an answer that takes the other some milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long either waits for the other while clients are served.
const PREPARE_WITHIN: Duration = Duration::from_secs(60);
/// How long a process that does not answer any more may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// The variable that says whom to take over from, where that is not told by the address.
const FROM_VARIABLE: &str = "KETCH_TAKEOVER_FROM";

/// The name of the doorbell of the server that has `address`, among the machine's abstract unix sockets.
fn doorbell_name(address: &str) -> String {
    format!("ketch/takeover/{address}")
}
