//! What a command about the server leaves to its connection.

use super::dump::Dump;
use super::report::Running;
use crate::events::{Taken, Watch};

/// What a connection does next.
#[derive(Debug)]
pub(super) enum AdminOutcome {
    /// Goes on; all is answered.
    Done,
    /// Closes.
    Close,
    /// Steps through a dump, which answers.
    Dump(Dump),
    /// The same with a report.
    Report(Running),
    /// Is handed over to who serves watchers, with its place among them.
    Watch(Box<Watch>, Taken),
}
