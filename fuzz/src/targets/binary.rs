//! The binary parser, held to the same as the text parser.
use crate::parser::holds;

/// The target.
pub fn run(bytes: &[u8]) {
    holds(bytes, protocol::binary::parse);
}
