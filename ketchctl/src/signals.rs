//! Ctrl-C and SIGTERM, for commands that have something to put in order before they end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// From now on the first of them is seen in what this returns; the second ends the program as usual.
pub fn seen() -> io::Result<Arc<AtomicBool>> {
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_default(signal, seen.clone())?;
        signal_hook::flag::register(signal, seen.clone())?;
    }
    Ok(seen)
}
