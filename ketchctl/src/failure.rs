//! Why a command ended early.

use std::io;

/// What a command tells `main` when it did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// `--help`: this text was asked for.
    Help(String),
    /// The words of the command line are wrong.
    Usage(String),
    /// Reading or writing failed. A reader of our output who has seen enough is no failure.
    Io(io::Error),
}

impl Failure {
    /// The words of the command line are wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Failure::Usage(text.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<getopts::Fail> for Failure {
    fn from(fail: getopts::Fail) -> Self {
        Failure::Usage(fail.to_string())
    }
}
