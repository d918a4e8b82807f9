//! The text and meta parser: what it says holds of any bytes, however they are cut (P1 and P2 of the crate `protocol`).
use crate::parser::holds;

/// The target.
pub fn run(bytes: &[u8]) {
    holds(bytes, protocol::text::parse);
}
