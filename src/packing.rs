//! Numbers and bytes one behind the other: what one process writes for the next, which may be another version.
//!
//! ```text
//!  number: 8 bytes, the lowest first        bytes: their count as a number, then they
//! ```
//!
//! A leaf. Who reads finds nothing where the writer has written less, and never reads beyond it.

/// Writes.
#[derive(Debug, Default)]
pub struct Packer(Vec<u8>);

impl Packer {
    /// A number.
    pub fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        self.0.extend(number.into().to_le_bytes());
        self
    }

    /// A length, an index.
    pub fn size(&mut self, size: usize) -> &mut Self {
        self.number(size as u64)
    }

    /// Bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.size(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    /// All that was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what a [`Packer`] has written, in the same order.
#[derive(Debug, Clone, Copy)]
pub struct Unpacker<'b>(&'b [u8]);

impl<'b> Unpacker<'b> {
    /// From the beginning.
    pub fn new(bytes: &'b [u8]) -> Self {
        Unpacker(bytes)
    }

    /// A number, if there is one that fits.
    pub fn number<N: TryFrom<u64>>(&mut self) -> Option<N> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        N::try_from(u64::from_le_bytes(*number)).ok()
    }

    /// A number that is 0 or 1.
    pub fn flag(&mut self) -> Option<bool> {
        match self.number::<u64>()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Option<&'b [u8]> {
        let len = self.number()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Text.
    pub fn text(&mut self) -> Option<&'b str> {
        str::from_utf8(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_more() {
        let mut packer = Packer::default();
        packer.number(7u32).bytes(b"abc").number(true).size(300);
        let bytes = packer.into_bytes();
        let read = |bytes| {
            let mut unpacker = Unpacker::new(bytes);
            let read = (
                unpacker.number::<u32>()?,
                unpacker.text()?,
                unpacker.flag()?,
                unpacker.number::<u64>()?,
            );
            assert_eq!(unpacker.number::<u64>(), None);
            Some(read)
        };
        assert_eq!(read(&bytes), Some((7, "abc", true, 300)));
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), None, "{len}");
        }
        let mut huge = Packer::default();
        huge.number(u64::MAX);
        assert_eq!(Unpacker::new(&huge.into_bytes()).bytes(), None);
        let mut large = Packer::default();
        large.number(256u64);
        let large = large.into_bytes();
        assert_eq!(Unpacker::new(&large).number::<u8>(), None);
        assert_eq!(Unpacker::new(&large).flag(), None);
    }
}
