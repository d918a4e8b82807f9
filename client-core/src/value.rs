//! What is stored and what comes back.

use std::borrow::Cow;

use bytes::Bytes;

pub use crate::ttl::exptime_s;

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

    /// The bytes as text, if they are UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.value).ok()
    }

    /// The number that the bytes are, in decimal: a counter, for instance. Spaces around it, which memcached leaves behind a number
    /// that became shorter, do not count.
    pub fn number<T: std::str::FromStr>(&self) -> Option<T> {
        self.text()?.trim().parse().ok()
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
/// Methods take whatever makes one: bytes and text, borrowed or owned; numbers, which are stored as decimal text, so that whole ones can
/// be counted with; an [`Item`]; and `(bytes, flags)`.
///
/// ```
/// use ketch_client::{Item, Value};
///
/// assert_eq!(Value::from("hello").bytes(), b"hello");
/// assert_eq!(Value::from(String::from("hello")), Value::from("hello"));
/// assert_eq!(Value::from(-7).bytes(), b"-7");
/// assert_eq!(Value::from(0.5).bytes(), b"0.5");
/// assert_eq!(Value::from((vec![1, 2], 9)).flags(), 9);
/// assert_eq!(Value::from(Item::new("hello", 3)).flags(), 3);
/// ```
#[derive(Debug, Clone)]
pub struct Value<'a> {
    held: Held<'a>,
    flags: u32,
}

#[derive(Debug, Clone)]
enum Held<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
    /// Decimal text, and its length.
    Number([u8; NUMBER_LEN_MAX], u8),
}

/// The digits of the longest number of 64 bits, or its sign and digits.
const NUMBER_LEN_MAX: usize = 20;

impl Value<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.held {
            Held::Borrowed(bytes) => bytes,
            Held::Owned(bytes) => bytes,
            Held::Number(digits, len) => &digits[..usize::from(*len)],
        }
    }

    /// The client flags, which a node keeps with the value.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    #[doc(hidden)]
    pub fn payload(&self) -> Payload<'_> {
        Payload {
            bytes: self.bytes(),
            flags: self.flags,
        }
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.payload() == other.payload()
    }
}

impl Eq for Value<'_> {}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Value<'a> {
    fn from(bytes: &'a T) -> Self {
        Value::from((bytes, 0))
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<(&'a T, u32)> for Value<'a> {
    fn from((bytes, flags): (&'a T, u32)) -> Self {
        let held = Held::Borrowed(bytes.as_ref());
        Value { held, flags }
    }
}

impl<'a> From<&'a Item> for Value<'a> {
    fn from(item: &'a Item) -> Self {
        Value::from((&item.value, item.flags))
    }
}

impl From<Item> for Value<'_> {
    fn from(item: Item) -> Self {
        let held = Held::Owned(item.value);
        Value {
            held,
            flags: item.flags,
        }
    }
}

macro_rules! owned_values {
    ($($type:ty)*) => {
        $(
            impl From<$type> for Value<'_> {
                fn from(bytes: $type) -> Self {
                    Value::from((bytes, 0))
                }
            }

            impl From<($type, u32)> for Value<'_> {
                fn from((bytes, flags): ($type, u32)) -> Self {
                    Value::from(Item::new(bytes, flags))
                }
            }
        )*
    };
}

owned_values!(Bytes Vec<u8> String);

macro_rules! numbers {
    ($($type:ty)*) => {
        $(
            /// As decimal text.
            impl From<$type> for Value<'_> {
                fn from(number: $type) -> Self {
                    let mut buffer = itoa::Buffer::new();
                    let text = buffer.format(number).as_bytes();
                    let mut digits = [0; NUMBER_LEN_MAX];
                    digits[..text.len()].copy_from_slice(text);
                    let held = Held::Number(digits, text.len() as u8);
                    Value { held, flags: 0 }
                }
            }

            /// As decimal text.
            impl From<$type> for Item {
                fn from(number: $type) -> Self {
                    Item::new(itoa::Buffer::new().format(number).to_owned(), 0)
                }
            }
        )*
    };
}

numbers!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize);

macro_rules! long_numbers {
    ($($type:ty)*) => {
        $(
            /// As decimal text.
            impl From<$type> for Value<'_> {
                fn from(number: $type) -> Self {
                    Value::from(Item::from(number))
                }
            }

            /// As decimal text.
            impl From<$type> for Item {
                fn from(number: $type) -> Self {
                    Item::new(number.to_string(), 0)
                }
            }
        )*
    };
}

// Nodes do not count with these.
long_numbers!(u128 i128 f32 f64);

macro_rules! either_values {
    ($($borrowed:ty)*) => {
        $(
            impl<'a> From<Cow<'a, $borrowed>> for Value<'a> {
                fn from(bytes: Cow<'a, $borrowed>) -> Self {
                    match bytes {
                        Cow::Borrowed(bytes) => Value::from(bytes),
                        Cow::Owned(bytes) => Value::from(bytes),
                    }
                }
            }

            impl From<Box<$borrowed>> for Value<'_> {
                fn from(bytes: Box<$borrowed>) -> Self {
                    Value::from(Item::from(bytes))
                }
            }

            impl From<Box<$borrowed>> for Item {
                fn from(bytes: Box<$borrowed>) -> Self {
                    Item::from(Cow::<$borrowed>::Owned(bytes.into()))
                }
            }

            impl From<Cow<'_, $borrowed>> for Item {
                fn from(bytes: Cow<'_, $borrowed>) -> Self {
                    Item::from(bytes.into_owned())
                }
            }
        )*
    };
}

either_values!(str[u8]);

/// A value as operations send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub struct Payload<'a> {
    pub bytes: &'a [u8],
    /// The client flags.
    pub flags: u32,
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Payload<'a> {
    fn from(bytes: &'a T) -> Self {
        let bytes = bytes.as_ref();
        Payload { bytes, flags: 0 }
    }
}

impl<'a> From<&'a Item> for Payload<'a> {
    fn from(item: &'a Item) -> Self {
        Payload {
            bytes: &item.value,
            flags: item.flags,
        }
    }
}

/// The version of a value, for `cas`. It is worth something only on the node that gave it, so it
/// remembers that node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CasUnique {
    #[doc(hidden)]
    pub number: u64,
    /// The identity of the node, see [`Node`](crate::node::Node).
    #[doc(hidden)]
    pub node: u64,
}

/// What became of a `cas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cas {
    /// The value was as it had been read, and is now the new one.
    Stored,
    /// Someone else has written meanwhile, or another node decides for this key now: read again.
    Conflict,
    /// The key is not there any more.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_bytes_is_a_value() {
        let item = Item {
            value: Bytes::from_static(b"v"),
            flags: 3,
        };
        let owned = vec![b'v'];
        let all: [Value<'_>; 16] = [
            "v".into(),
            b"v".into(),
            (&owned).into(),
            (&item.value).into(),
            owned.clone().into(),
            item.value.clone().into(),
            String::from("v").into(),
            Cow::Borrowed("v").into(),
            Cow::<[u8]>::Owned(owned.clone()).into(),
            Box::<str>::from("v").into(),
            Box::<[u8]>::from(&b"v"[..]).into(),
            ("v", 3).into(),
            (owned.clone(), 3).into(),
            (String::from("v"), 3).into(),
            (&item).into(),
            item.clone().into(),
        ];
        assert!(all.iter().all(|value| value.bytes() == b"v"));
        let flags: Vec<u32> = all.iter().map(Value::flags).collect();
        assert_eq!(flags, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn numbers_are_text() {
        for (value, text) in [
            (Value::from(0), "0"),
            (Value::from(-12_i8), "-12"),
            (Value::from(u64::MAX), "18446744073709551615"),
            (Value::from(i64::MIN), "-9223372036854775808"),
            (
                Value::from(u128::MAX),
                "340282366920938463463374607431768211455",
            ),
            (Value::from(1.25), "1.25"),
        ] {
            assert_eq!(value, Value::from(text));
        }
        assert_eq!(Item::from(42), Item::from("42"));
        assert_eq!(Item::from(-0.1).number(), Some(-0.1));
    }
}
