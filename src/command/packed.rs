//! Parts of requests that wait, for another process.

use protocol::BinaryHead;

use crate::packing::{Packer, Unpacker};

/// Writes down the head of a packet, if there is one.
pub fn pack_head(head: Option<BinaryHead>, to: &mut Packer) {
    to.number(head.is_some());
    if let Some(head) = head {
        to.number(head.opcode).number(head.quiet);
        to.number(head.opaque);
    }
}

/// The head that was written down, if there was one.
pub fn unpack_head(from: &mut Unpacker<'_>) -> Option<Option<BinaryHead>> {
    Some(if from.flag()? {
        Some(BinaryHead {
            opcode: from.number()?,
            quiet: from.flag()?,
            opaque: from.number()?,
        })
    } else {
        None
    })
}
