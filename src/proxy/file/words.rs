//! Words of a table, each taken out once: what is left is no word of the file.

use toml::{Table, Value};

pub(super) fn nothing_left(of: &str, table: &Table, known: &str) -> Result<(), String> {
    match table.keys().next() {
        None => Ok(()),
        Some(word) => Err(format!(
            "{of}{word}: no word of this file; known are {known}"
        )),
    }
}

/// Takes a word out of a table, if it is there.
pub(super) fn take<T>(
    of: &str,
    table: &mut Table,
    word: &str,
    wanted: &str,
    read: impl FnOnce(Value) -> Option<T>,
) -> Result<Option<T>, String> {
    let Some(value) = table.remove(word) else {
        return Ok(None);
    };
    match read(value) {
        None => Err(format!("{of}{word}: must be {wanted}")),
        value => Ok(value),
    }
}

pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

pub(super) fn within(range: std::ops::RangeInclusive<i64>) -> impl FnOnce(Value) -> Option<i64> {
    move |value| value.as_integer().filter(|number| range.contains(number))
}
