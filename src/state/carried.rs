//! What was carried over the start of the server from files, figure by figure, told by whoever did it (`stats restart`).

use std::time::Duration;

use parking_lot::Mutex;

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub enum Figure {
    /// So many of something.
    Count(u64),
    /// Bytes.
    Bytes(u64),
    /// How long something took.
    Time(Duration),
    /// A reason, a name.
    Text(String),
}

/// All of them, in the order in which they were told.
#[derive(Debug, Default)]
pub struct Carried(Mutex<Vec<(&'static str, Figure)>>);

impl Carried {
    /// Adds figures. A source's names begin with a word of its own.
    pub fn tell(&self, figures: impl IntoIterator<Item = (&'static str, Figure)>) {
        self.0.lock().extend(figures);
    }

    /// All so far.
    pub fn figures(&self) -> Vec<(&'static str, Figure)> {
        self.0.lock().clone()
    }
}
