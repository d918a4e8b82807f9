//! A figure of a report, and whoever writes figures down.
//!
//! A report knows what it tells; a sink knows how that is written: as lines of text, as binary packets, as JSON. So no
//! figure is ever read back from text.

use std::fmt;
use std::time::Duration;

/// What takes a report, a figure at a time.
pub(crate) trait Sink {
    /// Takes one figure.
    fn stat(&mut self, key: Key<'_>, value: Value<'_>);
}

/// What a figure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// The whole server.
    Server,
    /// The items of this class.
    Items(u8),
    /// The chunks of this slab class.
    Slab(u8),
    /// The connection with this descriptor.
    Conn(i32),
}

/// The name of a figure. As text it is memcached's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key<'k> {
    /// What it is about.
    pub of: Of,
    /// Its name among those of the same.
    pub name: &'k str,
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            Of::Server => {}
            Of::Items(class) => write!(f, "items:{class}:")?,
            Of::Slab(class) => write!(f, "{class}:")?,
            Of::Conn(fd) => write!(f, "{fd}:")?,
        }
        f.write_str(self.name)
    }
}

/// A figure. As text it is written as memcached writes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'v> {
    /// So many of something.
    Count(u64),
    /// A number that may be below 0: a port that is closed has -1.
    Number(i64),
    /// Bytes.
    Bytes(u64),
    /// Whole seconds.
    Seconds(u64),
    /// A time that is measured to the microsecond.
    Time(Duration),
    /// A ratio, shown with so many digits behind the point.
    Ratio(f64, usize),
    /// On or off.
    Switch(bool),
    /// A name, an address, a path.
    Text(&'v str),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Count(number) | Value::Bytes(number) | Value::Seconds(number) => {
                write!(f, "{number}")
            }
            Value::Number(number) => write!(f, "{number}"),
            Value::Time(time) => write!(f, "{}.{:06}", time.as_secs(), time.subsec_micros()),
            Value::Ratio(ratio, digits) => write!(f, "{ratio:.digits$}"),
            Value::Switch(on) => f.write_str(if on { "yes" } else { "no" }),
            Value::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_text_they_are_memcacheds() {
        let key = |of, name| Key { of, name }.to_string();
        assert_eq!(key(Of::Server, "pid"), "pid");
        assert_eq!(key(Of::Items(5), "age"), "items:5:age");
        assert_eq!(key(Of::Slab(5), "chunk_size"), "5:chunk_size");
        assert_eq!(key(Of::Conn(31), "addr"), "31:addr");
        for (value, text) in [
            (Value::Count(u64::MAX), "18446744073709551615"),
            (Value::Number(-1), "-1"),
            (Value::Bytes(0), "0"),
            (Value::Seconds(7), "7"),
            (Value::Time(Duration::from_micros(3_000_042)), "3.000042"),
            (Value::Ratio(0.2, 2), "0.20"),
            (Value::Ratio(0.0125, 3), "0.013"),
            (Value::Switch(true), "yes"),
            (Value::Switch(false), "no"),
            (Value::Text("a b"), "a b"),
        ] {
            assert_eq!(value.to_string(), text);
        }
    }
}
