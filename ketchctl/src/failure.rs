//! Why a command ended early.

use std::io;

/// What a command tells `main` when it did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// `--help`: this text was asked for.
    Help(String),
    /// The words of the command line are wrong.
    Usage(String),
    /// It could not be done.
    Failed(String),
    /// It could not be done, and why was told already.
    Told,
    /// The key is not there, or is there when it must not.
    Missed(String),
    /// Reading or writing failed. A reader of our output who has seen enough is no failure.
    Io(io::Error),
}

impl Failure {
    /// The words of the command line are wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Failure::Usage(text.into())
    }

    /// It could not be done.
    pub fn failed(text: impl Into<String>) -> Self {
        Failure::Failed(text.into())
    }
}

/// One line on standard error about a node.
pub fn tell(node: &str, error: &ketch_client::Error) {
    eprintln!("ketchctl: {}", of_node(node, error));
}

/// What is wrong with a node, which is named.
pub fn of_node(node: &str, error: &ketch_client::Error) -> String {
    if let ketch_client::Error::Refused { line, .. } = error
        && &**line == "ERROR"
    {
        return format!("{node}: it does not know what it was asked: it must be ketch");
    }
    let told = error.to_string();
    // Most errors name the node themselves.
    let named = format!("{node}: ");
    format!("{named}{}", told.strip_prefix(&named).unwrap_or(&told))
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<ketch_client::Error> for Failure {
    fn from(error: ketch_client::Error) -> Self {
        match error {
            ketch_client::Error::Key(_) => Failure::Usage(error.to_string()),
            error => Failure::Failed(error.to_string()),
        }
    }
}

impl From<getopts::Fail> for Failure {
    fn from(fail: getopts::Fail) -> Self {
        Failure::Usage(fail.to_string())
    }
}
