//! A request whose data block comes in pieces.

/// Bytes of a data block that are made room for at a time.
const BLOCK_ROOM: usize = 64 << 10;

/// A request whose data block has not come whole.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) bytes: Vec<u8>,
    pub(super) filled: usize,
    pub(super) len: usize,
}

impl Coming {
    pub(super) fn is_whole(&self) -> bool {
        self.filled == self.len
    }

    /// Room for what is to come, as it comes.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.bytes.len() == self.filled {
            let more = (self.len - self.filled).min(BLOCK_ROOM.max(self.filled / 2));
            self.bytes.resize(self.filled + more, 0);
        }
        &mut self.bytes[self.filled..]
    }

    pub(super) fn take(&mut self, input: &[u8]) -> usize {
        let n = input.len().min(self.len - self.filled);
        self.bytes.truncate(self.filled);
        self.bytes.extend_from_slice(&input[..n]);
        self.filled += n;
        n
    }
}
