//! Values as they are stored: compressed or not, or the mark that there is nothing.

use client_core::error::Result;
use client_core::options::ClientOptions;
use client_core::value::{Item, Payload, Value};

/// The client flags that mark, with an empty value, that there is nothing under this key: bit 29.
pub const NEGATIVE_FLAGS: u32 = 1 << 29;

/// A value as it goes to the nodes.
pub(crate) struct Packed<'v> {
    value: Value<'v>,
    /// In the place of the value's own.
    bytes: Option<Vec<u8>>,
    flags: u32,
}

impl Packed<'_> {
    pub(crate) fn payload(&self) -> Payload<'_> {
        let Payload { bytes, .. } = self.value.payload();
        Payload {
            bytes: self.bytes.as_deref().unwrap_or(bytes),
            flags: self.flags,
        }
    }
}

/// The value as it is stored.
pub(crate) fn pack<'v>(value: Value<'v>, options: &ClientOptions) -> Packed<'v> {
    #[cfg(feature = "lz4")]
    if let Some(compression) = &options.compression {
        let bytes = compression.pack(value.payload());
        let flag = if bytes.is_some() { compression.flag } else { 0 };
        let flags = value.flags() & !compression.flag | flag;
        return Packed {
            value,
            bytes,
            flags,
        };
    }
    #[cfg(not(feature = "lz4"))]
    let _ = options;
    let flags = value.flags();
    Packed {
        value,
        bytes: None,
        flags,
    }
}

/// True for the mark that there is nothing.
pub(crate) fn is_mark(value: &[u8], flags: u32) -> bool {
    flags == NEGATIVE_FLAGS && value.is_empty()
}

/// The value that was stored so; `None` for the mark that there is nothing.
pub(crate) fn open(item: Option<Item>, options: &ClientOptions) -> Result<Option<Item>> {
    let item = item.filter(|item| !is_mark(&item.value, item.flags));
    #[cfg(feature = "lz4")]
    if let (Some(item), Some(compression)) = (&item, &options.compression) {
        return compression.unpack(item.clone()).map(Some);
    }
    #[cfg(not(feature = "lz4"))]
    let _ = options;
    Ok(item)
}
