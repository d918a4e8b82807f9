//! How a conversation goes on.

/// How far a step came.
pub(super) enum Step {
    /// So many bytes are done with.
    Taken(usize),
    /// More input is needed.
    More,
    /// Replies are to come first.
    Wait,
}
