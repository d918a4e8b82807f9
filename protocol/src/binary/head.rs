//! What begins each packet.

/// The first byte of each request, and so of a connection that speaks binary.
pub const MAGIC_REQUEST: u8 = 0x80;
/// The first byte of each reply.
pub const MAGIC_REPLY: u8 = 0x81;
/// Bytes of a header.
pub const HEADER_LEN: usize = 24;

/// What a reply repeats of its request, and whether the nominal one is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BinaryHead {
    /// As it was sent, quiet or not.
    pub opcode: u8,
    /// True for the quiet opcodes.
    pub quiet: bool,
    /// The client's word for the request, given back as it came.
    pub opaque: u32,
}
