//! What is stored and what comes back.

use std::time::Duration;

use bytes::Bytes;

/// A value as a node keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// The bytes. Values that came in one batch share their memory: what is to be kept for long is better copied.
    pub value: Bytes,
    /// Opaque to the node, kept with the value; 0 unless the writer said otherwise.
    pub flags: u32,
}

impl Item {
    /// A value with client flags.
    pub fn new(value: impl Into<Bytes>, flags: u32) -> Self {
        let value = value.into();
        Item { value, flags }
    }
}

/// What becomes an item without a copy, or nearly so: bytes and text that are owned or live for ever.
macro_rules! items {
    ($($type:ty)*) => {
        $(impl From<$type> for Item {
            fn from(value: $type) -> Self {
                Item::new(value, 0)
            }
        })*
    };
}

items!(Bytes Vec<u8> String &'static str &'static [u8]);

/// A value on its way to the nodes: bytes, and client flags beside them.
///
/// Made from anything that is bytes or text, from `(bytes, flags)` and from an [`Item`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// The client flags.
    pub flags: u32,
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Value<'a> {
    fn from(bytes: &'a T) -> Self {
        let bytes = bytes.as_ref();
        Value { bytes, flags: 0 }
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<(&'a T, u32)> for Value<'a> {
    fn from((bytes, flags): (&'a T, u32)) -> Self {
        let bytes = bytes.as_ref();
        Value { bytes, flags }
    }
}

impl<'a> From<&'a Item> for Value<'a> {
    fn from(item: &'a Item) -> Self {
        Value {
            bytes: &item.value,
            flags: item.flags,
        }
    }
}

/// The version of a value, for [`cas`](crate::Client::cas). It is worth something only on the node that gave it, so it
/// remembers that node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CasUnique {
    pub(crate) number: u64,
    /// The identity of the node, see [`Node`](crate::Node).
    pub(crate) node: u64,
}

/// What became of a [`cas`](crate::Client::cas).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cas {
    /// The value was as it had been read, and is now the new one.
    Stored,
    /// Someone else has written meanwhile, or another node decides for this key now: read again.
    Conflict,
    /// The key is not there any more.
    Missing,
}

/// The longest time that memcached takes as seconds from now; what is longer is sent as an absolute unix time.
const RELATIVE_S_MAX: u64 = 60 * 60 * 24 * 30;

/// The expiry time to send for `ttl` at the unix time `unix_s`: 0 (never) for `None` and zero, fractions of a second
/// rounded up, above 30 days as an absolute time, and at most what 31 bits hold.
pub(crate) fn exptime(ttl: Option<Duration>, unix_s: u64) -> i32 {
    let Some(ttl) = ttl else { return 0 };
    let seconds = ttl
        .as_secs()
        .saturating_add(u64::from(ttl.subsec_nanos() > 0));
    exptime_s(seconds, unix_s)
}

/// As [`exptime`], for whole seconds.
pub(crate) fn exptime_s(seconds: u64, unix_s: u64) -> i32 {
    let sent = if seconds > RELATIVE_S_MAX {
        unix_s.saturating_add(seconds)
    } else {
        seconds
    };
    i32::try_from(sent).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_as_they_are_sent() {
        let now = 1_700_000_000;
        for (ttl, sent) in [
            (None, 0),
            (Some(Duration::ZERO), 0),
            (Some(Duration::from_nanos(1)), 1),
            (Some(Duration::from_millis(1000)), 1),
            (Some(Duration::from_millis(1001)), 2),
            (Some(Duration::from_secs(2_592_000)), 2_592_000),
            (Some(Duration::from_secs(2_592_001)), 1_702_592_001),
            (Some(Duration::MAX), i32::MAX),
        ] {
            assert_eq!(exptime(ttl, now), sent, "{ttl:?}");
        }
    }

    #[test]
    fn whatever_is_bytes_is_a_value() {
        let item = Item {
            value: Bytes::from_static(b"v"),
            flags: 3,
        };
        let owned = vec![b'v'];
        let all: [Value<'_>; 6] = [
            "v".into(),
            b"v".into(),
            (&owned).into(),
            (&item.value).into(),
            ("v", 3).into(),
            (&item).into(),
        ];
        assert!(all.iter().all(|value| value.bytes == b"v"));
        assert_eq!(all.map(|value| value.flags), [0, 0, 0, 0, 3, 3]);
    }
}
