//! The figures about one thing, on their way into a sink.

use std::time::Duration;

use super::sink::{Key, Of, Sink, Value};

/// Writes figures that are all about the same.
pub(super) struct Figures<'s> {
    pub(super) of: Of,
    pub(super) sink: &'s mut dyn Sink,
}

impl Figures<'_> {
    fn put(&mut self, name: &str, value: Value<'_>) {
        self.sink.stat(Key { of: self.of, name }, value);
    }

    pub(super) fn count(&mut self, name: &str, count: impl TryInto<u64>) {
        self.put(name, Value::Count(whole(count)));
    }

    pub(super) fn number(&mut self, name: &str, number: impl Into<i64>) {
        self.put(name, Value::Number(number.into()));
    }

    pub(super) fn bytes(&mut self, name: &str, bytes: impl TryInto<u64>) {
        self.put(name, Value::Bytes(whole(bytes)));
    }

    pub(super) fn seconds(&mut self, name: &str, seconds: impl TryInto<u64>) {
        self.put(name, Value::Seconds(whole(seconds)));
    }

    pub(super) fn time(&mut self, name: &str, time: Duration) {
        self.put(name, Value::Time(time));
    }

    pub(super) fn ratio(&mut self, name: &str, ratio: f64, digits: usize) {
        self.put(name, Value::Ratio(ratio, digits));
    }

    pub(super) fn switch(&mut self, name: &str, on: bool) {
        self.put(name, Value::Switch(on));
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.put(name, Value::Text(text));
    }

    /// Things that never happen here.
    pub(super) fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.count(name, 0u64);
        }
    }
}

/// What counts is never below 0, nor above 2^64.
fn whole(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or_default()
}

/// Writes each field of a struct under its own name.
macro_rules! counts {
    ($figures:expr, $from:expr, $($name:ident)*) => {
        $($figures.count(stringify!($name), $from.$name);)*
    };
}

pub(super) use counts;
