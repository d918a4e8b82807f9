//! How a conversation goes on.

use protocol::GetVerb;

/// How far a step came.
pub(super) enum Step {
    /// So many bytes are done with.
    Taken(usize),
    /// More input is needed.
    More,
    /// Replies are to come first.
    Wait,
}

/// A long list of keys, of which the rest is to come.
#[derive(Debug)]
pub(super) struct List {
    pub(super) verb: GetVerb,
    /// Whether a key was among the pieces.
    pub(super) any: bool,
}
