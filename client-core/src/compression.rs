//! Large values take less room: compressed by the client, marked in a bit of the client flags.
//!
//! ```text
//!  client flags with the bit:   | length as it was, 4 bytes, little end first | LZ4 block |
//! ```
//!
//! Z1. A value that does not shrink by an eighth is stored as it is, without the bit. The bit belongs to the client: it is
//!     taken out of flags that callers give.
//! Z2. Reading allocates what the head says only if that is within [`Compression::value_bytes_max`], and no more than an
//!     LZ4 block of that length can hold: a value made to exhaust memory is an error.
//!
//! Other clients see the compressed bytes. `append` and `prepend` must not be used on values that may be compressed.

#[cfg(feature = "lz4")]
use crate::error::{Error, Result};
#[cfg(feature = "lz4")]
use crate::value::{Item, Payload};

/// The bit of the client flags that marks a compressed value, unless told otherwise: bit 30. The lower bits mean types to
/// many clients, and bit 31 makes the number negative to those that read it signed.
pub const COMPRESSED_FLAG: u32 = 1 << 30;

/// What is compressed, and what is taken for compressed. All clients of a cache must agree on the bit.
#[derive(Debug, Clone)]
#[must_use = "options are of use where they are given to something"]
pub struct Compression {
    #[doc(hidden)]
    pub threshold_bytes: usize,
    #[doc(hidden)]
    pub flag: u32,
    #[doc(hidden)]
    pub value_bytes_max: usize,
}

impl Default for Compression {
    fn default() -> Self {
        Compression {
            threshold_bytes: 2048,
            flag: COMPRESSED_FLAG,
            value_bytes_max: 64 << 20,
        }
    }
}

impl Compression {
    /// Values of more bytes are compressed (2,048).
    pub fn threshold_bytes(mut self, threshold: usize) -> Self {
        self.threshold_bytes = threshold;
        self
    }

    /// The bit of the client flags ([`COMPRESSED_FLAG`]).
    pub fn flag(mut self, flag: u32) -> Self {
        self.flag = flag;
        self
    }

    /// The largest value that is compressed or unpacked, in bytes (64 MiB).
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = bytes;
        self
    }
}

#[cfg(feature = "lz4")]
impl Compression {
    /// The value as it is to be stored, if that is not what it is. Its flags are to be without the bit otherwise.
    #[doc(hidden)]
    pub fn pack(&self, value: Payload<'_>) -> Option<Vec<u8>> {
        let len = value.bytes.len();
        if len <= self.threshold_bytes || len > self.value_bytes_max || self.flag == 0 {
            return None;
        }
        let packed = lz4_flex::block::compress_prepend_size(value.bytes);
        (packed.len() <= len - len / 8).then_some(packed)
    }

    /// A value as it was before it was stored.
    #[doc(hidden)]
    pub fn unpack(&self, item: Item) -> Result<Item> {
        if item.flags & self.flag == 0 || self.flag == 0 {
            return Ok(item);
        }
        let broken = |why: &str| Error::Value(format!("compressed value: {why}").into());
        let (head, block) = item
            .value
            .split_first_chunk()
            .ok_or_else(|| broken("too short"))?;
        let len = u32::from_le_bytes(*head) as usize;
        if len > self.value_bytes_max {
            return Err(broken("larger than value_bytes_max"));
        }
        // One byte of a block stands for 255 bytes at most (LZ4 block format, "matchlength").
        if len > block.len().saturating_mul(255) {
            return Err(broken("its length is a lie"));
        }
        let mut bytes = vec![0; len];
        match lz4_flex::block::decompress_into(block, &mut bytes) {
            Ok(written) if written == len => Ok(Item {
                value: bytes.into(),
                flags: item.flags & !self.flag,
            }),
            _ => Err(broken("it does not unpack")),
        }
    }
}

#[cfg(all(test, feature = "lz4"))]
mod tests {
    use super::*;

    fn packed(compression: &Compression, bytes: &[u8]) -> Option<Item> {
        let packed = compression.pack(bytes.into())?;
        Some(Item::new(packed, 3 | compression.flag))
    }

    #[test]
    fn there_and_back() {
        let compression = Compression::default().threshold_bytes(10);
        for len in [11, 100, 5000, 1 << 20] {
            let bytes: Vec<u8> = (0..len).map(|i| (i / 1000) as u8).collect();
            let Some(item) = packed(&compression, &bytes) else {
                assert!(len < 100);
                continue;
            };
            assert!(item.value.len() < len / 2);
            assert_eq!(compression.unpack(item), Ok(Item::new(bytes, 3)));
        }
    }

    #[test]
    fn what_is_stored_as_it_is() {
        let noise = std::iter::successors(Some(1u64), |x| {
            Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
        });
        let noise: Vec<u8> = noise.map(|x| (x >> 56) as u8).take(10_000).collect();
        let compression = Compression::default().value_bytes_max(20_000);
        for bytes in [&noise[..], &[0; 2048], &[0; 20_001]] {
            assert_eq!(compression.pack(bytes.into()), None);
        }
        assert!(compression.pack((&[0; 2049]).into()).is_some());
        assert_eq!(compression.flag(0).pack((&[0; 2049]).into()), None);
        let plain = Item::new(noise, 3);
        assert_eq!(Compression::default().unpack(plain.clone()), Ok(plain));
    }

    #[test]
    fn values_made_to_do_harm() {
        let compression = Compression::default();
        let unpack = |bytes: Vec<u8>| compression.unpack(Item::new(bytes, COMPRESSED_FLAG));
        let honest = compression.pack((&[7; 5000]).into()).expect("it shrinks");
        for len in 0..honest.len() {
            assert!(unpack(honest[..len].to_vec()).is_err(), "cut at {len}");
        }
        for claim in [0, 4999, 5001, 64 << 20, u32::MAX] {
            let mut liar = honest.clone();
            liar[..4].copy_from_slice(&u32::to_le_bytes(claim));
            assert!(unpack(liar).is_err(), "{claim}");
        }
        // Each byte spoilt: an error or other bytes, never more than was said, and no panic.
        for at in 4..honest.len() {
            for bit in 0..8 {
                let mut spoilt = honest.clone();
                spoilt[at] ^= 1 << bit;
                if let Ok(item) = unpack(spoilt) {
                    assert_eq!(item.value.len(), 5000);
                }
            }
        }
    }
}
