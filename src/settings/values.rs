//! Reads the value of one option; the error says which values are accepted.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::knobs::{Form, Row, in_milli};

/// A whole number within `range`. `what` names the thing and `unit`, where there is one, what it counts.
pub(super) fn whole<T>(
    what: &str,
    value: &str,
    range: RangeInclusive<T>,
    unit: &str,
) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    match value.parse() {
        Ok(number) if range.contains(&number) && !value.starts_with('+') => Ok(number),
        _ => {
            let space = if unit.is_empty() { "" } else { " " };
            Err(format!(
                "{what} must be {} to {}{space}{unit}",
                range.start(),
                range.end()
            ))
        }
    }
}

/// Seconds; less than 0 asks for none of them, as 0 does.
pub(super) fn seconds(what: &str, value: &str) -> Result<u32, String> {
    match value.parse::<i32>() {
        Ok(less) if less < 0 => Ok(0),
        _ => whole(what, value, 0..=i32::MAX as u32, "seconds"),
    }
}

/// How far into a value C reads it as a number.
#[derive(Clone, Copy)]
pub(super) enum Beginning {
    /// Its digits.
    Whole,
    /// Its digits below 8.
    Octal,
    /// Its digits, unless they make 0.
    Above0,
    /// Its digits and what follows a point.
    Fraction,
    /// Its digits, with a point or without, if nothing or a blank follows.
    UpToBlank,
}

impl Beginning {
    /// The number that `value` begins with, without a `+`; 0 if it begins with none. All of it, if that must not be 0 and is.
    pub fn of(self, value: &str) -> &str {
        if let Beginning::UpToBlank = self {
            let word = value.split_whitespace().next().unwrap_or_default();
            return word.strip_prefix('+').unwrap_or(word);
        }
        let number = self.number_of(value);
        let is_0 = number.bytes().all(|digit| digit == b'0');
        if is_0 && matches!(self, Beginning::Above0) {
            return value;
        }
        number
    }

    fn number_of(self, value: &str) -> &str {
        let value = value.strip_prefix('+').unwrap_or(value);
        let digits = value.strip_prefix('-').unwrap_or(value);
        let is_digit = |c: char| match self {
            Beginning::Octal => c.is_digit(8),
            _ => c.is_ascii_digit(),
        };
        let mut rest = digits.trim_start_matches(is_digit);
        if rest.len() == digits.len() {
            return "0";
        }
        if let (Beginning::Fraction, Some(part)) = (self, rest.strip_prefix('.')) {
            rest = part.trim_start_matches(is_digit);
        }
        &value[..value.len() - rest.len()]
    }
}

/// A finite number that `accepts` agrees to; `range` says in words which ones those are.
pub(super) fn decimal(
    what: &str,
    value: &str,
    accepts: fn(f64) -> bool,
    range: &str,
) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() && accepts(number) => Ok(number),
        _ => Err(format!("{what} must be {range}")),
    }
}

/// The value of a knob, as its row of the table writes it.
pub(super) fn knob(row: &Row, value: &str) -> Result<u32, String> {
    let name = row.option;
    if let (true, Some(number)) = (value.is_empty(), row.bare) {
        return Ok(number);
    }
    match row.form {
        Form::Switch | Form::OnOff => whole(name, value, 0..=1, ""),
        Form::Whole(least, most, unit) => whole(name, value, least..=most, unit),
        Form::Ttl => seconds(name, value),
        Form::Count => size(name, value, 0..=u32::MAX as usize, Unit::Count).map(|n| n as u32),
        Form::Percent(most) => percent(name, value, 1..=most).map(u32::from),
        // What does nothing may be what it likes.
        Form::Ratio { .. } if row.shown_only => {
            decimal(name, value, |r| r >= 0.0, "a number from 0 on").map(in_milli)
        }
        Form::Ratio { to_1: true, .. } => decimal(
            name,
            value,
            |r| r > 0.0 && r <= 1.0,
            "above 0 and at most 1",
        )
        .map(in_milli),
        Form::Ratio { .. } => decimal(name, value, |r| r > 0.0, "above 0").map(in_milli),
        Form::Name(names) => names
            .iter()
            .position(|known| *known == value)
            .map(|place| place as u32)
            .ok_or_else(|| format!("{name} must be one of {}", names.join(", "))),
    }
}

/// A share of a hundred, with or without its sign.
pub(super) fn percent(what: &str, value: &str, range: RangeInclusive<u8>) -> Result<u8, String> {
    let number = value.strip_suffix('%').unwrap_or(value).trim_end();
    whole(what, number, range, "percent")
}

/// Permission bits, written in octal; others than those of owner, group and world are left out.
pub(super) fn octal_mask(value: &str) -> Result<u32, String> {
    match u32::from_str_radix(value, 8) {
        Ok(mask) if !value.starts_with('+') => Ok(mask & 0o777),
        _ => Err("unix socket mask must be 0 to 777, in octal".to_owned()),
    }
}

/// What a number without a unit counts.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unit {
    Bytes,
    Kb,
    Mb,
    /// Things, not bytes: k and m are thousands and millions.
    Count,
}

impl Unit {
    fn scale(self) -> usize {
        match self {
            Unit::Bytes | Unit::Count => 1,
            Unit::Kb => 1 << 10,
            Unit::Mb => 1 << 20,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Unit::Bytes => " bytes",
            Unit::Kb => " KB",
            Unit::Mb => " MB",
            Unit::Count => "",
        }
    }
}

/// A size in bytes, or a count: a number of `unit` within `range`, or one with k, m or g behind it, upper or lower case.
pub(super) fn size(
    what: &str,
    value: &str,
    range: RangeInclusive<usize>,
    unit: Unit,
) -> Result<usize, String> {
    let (least, most) = (range.start() * unit.scale(), range.end() * unit.scale());
    scaled(value, unit)
        .filter(|size| (least..=most).contains(size))
        .ok_or_else(|| {
            let (start, end, name) = (range.start(), range.end(), unit.name());
            format!("{what} must be {start} to {end}{name}, or a number with k, m or g behind it")
        })
}

/// What the unit behind a number multiplies it with; `None` if that is no unit.
fn scale_of(suffix: &str, unit: Unit) -> Option<usize> {
    let step: usize = if unit == Unit::Count { 1000 } else { 1024 };
    match &*suffix.to_ascii_lowercase() {
        "" => Some(unit.scale()),
        "k" | "kb" | "ki" | "kib" => Some(step),
        "m" | "mb" | "mi" | "mib" => Some(step.pow(2)),
        "g" | "gb" | "gi" | "gib" => Some(step.pow(3)),
        _ => None,
    }
}

/// Whether a value ends with digits and a unit behind them.
pub(super) fn has_unit(value: &str) -> bool {
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &value[number.len()..];
    let is_number = number.trim_end().ends_with(|c: char| c.is_ascii_digit());
    is_number && !suffix.is_empty() && scale_of(suffix, Unit::Bytes).is_some()
}

/// The number and its unit multiplied. A fraction, as in `1.5g`, stands for whole bytes below it.
fn scaled(value: &str, unit: Unit) -> Option<usize> {
    let value = value.trim();
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = scale_of(&value[number.len()..], unit)?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = match number.trim_end().split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number.trim_end(), None),
    };
    let whole: usize = whole.parse().ok().filter(|_| digits(whole))?;
    let part = match fraction {
        None => 0,
        // Of a byte, or of a thing, there is no part.
        Some(text) if text.is_empty() || !digits(text) || scale == 1 => return None,
        Some(text) => (format!("0.{text}").parse::<f64>().ok()? * scale as f64) as usize,
    };
    whole.checked_mul(scale)?.checked_add(part)
}

/// Bytes with an optional unit behind them, 1k to 1024m.
pub(super) fn item_size(value: &str) -> Result<usize, String> {
    scaled(value, Unit::Bytes)
        .filter(|bytes| (1 << 10..=1 << 30).contains(bytes))
        .ok_or_else(|| {
            "item size must be 1k to 1024m: bytes, or a number with k, m or g behind it".to_owned()
        })
}

/// Chunk sizes as `96-144-200`: each at least 8 bytes above the one before, as chunks are aligned to 8.
pub(super) fn slab_sizes(value: &str) -> Result<Vec<usize>, String> {
    /// Class 0 is no class, and class ids are below 64; the largest chunk takes the last.
    const SIZES_MAX: usize = 62;
    let reason = || {
        format!(
            "slab sizes must be 1 to {SIZES_MAX} ascending numbers of bytes, 8 apart, as in 96-144-200"
        )
    };
    let sizes = value
        .split('-')
        .map(|size| scaled(size, Unit::Bytes).filter(|size| (1..=1 << 20).contains(size)))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(reason)?;
    let ascends = sizes.windows(2).all(|pair| pair[1] >= pair[0] + 8);
    if ascends && sizes.len() <= SIZES_MAX {
        Ok(sizes)
    } else {
        Err(reason())
    }
}

/// The byte that ends a key's prefix, and whether more stood behind it.
pub(super) fn delimiter(value: &str) -> Result<(u8, bool), String> {
    match value.as_bytes() {
        [byte, rest @ ..] if *byte > b' ' => Ok((*byte, !rest.is_empty())),
        _ => Err("prefix delimiter must be one character".to_owned()),
    }
}

/// A path or a name that is not empty.
pub(super) fn text<T: From<String>>(what: &str, value: &str) -> Result<T, String> {
    if value.is_empty() || value.contains('\0') {
        return Err(format!("{what} must not be empty"));
    }
    Ok(value.to_owned().into())
}

/// A path that fits the kernel's unix socket address: 107 bytes and a NUL.
pub(super) fn unix_path(value: &str) -> Result<std::path::PathBuf, String> {
    if value.len() > 107 {
        return Err("unix socket path must be 1 to 107 bytes".to_owned());
    }
    text("unix socket path", value)
}
