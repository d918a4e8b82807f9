//! A proxy as commands and reports see it.

use std::fmt;

/// Who passes on what the server is asked.
pub trait Proxying: fmt::Debug + Send + Sync {
    /// Reads the file of routes again. The error is one line; then all stays as it was.
    fn reload(&self) -> Result<(), String>;

    /// What it has counted, and what there is now.
    fn figures(&self) -> Vec<(String, u64)>;
}
