//! Numbers as people write and read them.

use std::time::Duration;

/// `90`, `1.5`, `500ms`, `15m`, `2h`, `7d`: seconds unless a unit says otherwise.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(decimal(digits)? * unit_s).ok()
}

/// `5000`, `1.5k`, `64m`, `1g`: units of 1024 where bytes are meant, of 1000 elsewhere.
pub fn quantity(text: &str, step: f64) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match &text[digits.len()..] {
        "" => 0,
        "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        _ => return None,
    };
    Some(decimal(digits)? * step.powi(power))
}

/// Digits and at most one point; none of what `f64` reads besides.
fn decimal(digits: &str) -> Option<f64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| digits.parse().ok()).flatten()
}

/// Bytes in units of 1024: `512 B`, `1.5 KB`, `64 MB`.
pub fn bytes(count: f64) -> String {
    scaled(count, 1024.0, &[" B", " KB", " MB", " GB", " TB"])
}

/// A number in units of 1000: `999`, `1.5k`, `64M`.
pub fn count(count: f64) -> String {
    scaled(count, 1000.0, &["", "k", "M", "G", "T"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What would be rounded to a full step belongs to the next unit.
    while number >= step - 0.5 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    let places = usize::from(unit > 0 && number < 9.95);
    format!("{number:.places$}{}", units[unit])
}

/// Seconds in the two largest units: `42s`, `3m 20s`, `5h 1m`, `12d 4h`.
pub fn seconds(count: u64) -> String {
    let (minutes, hours, days) = (count / 60, count / 3600, count / 86_400);
    match count {
        0..60 => format!("{count}s"),
        60..3600 => format!("{minutes}m {}s", count % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// A whole number with a separator between thousands.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (text, ms) in [
            ("90", Some(90_000)),
            ("1.5", Some(1500)),
            ("250ms", Some(250)),
            ("15m", Some(900_000)),
            ("2h", Some(7_200_000)),
            ("7d", Some(604_800_000)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("-1", None),
            ("1e3", None),
            ("1w", None),
            ("inf", None),
            ("nan", None),
        ] {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text}");
        }
        for (text, step, number) in [
            ("5000", 1000.0, Some(5000.0)),
            ("1.5k", 1000.0, Some(1500.0)),
            ("2K", 1024.0, Some(2048.0)),
            ("64m", 1024.0, Some(67_108_864.0)),
            ("1x", 1000.0, None),
            ("m", 1000.0, None),
        ] {
            assert_eq!(quantity(text, step), number, "{text}");
        }
    }

    #[test]
    fn what_people_read() {
        for (number, text) in [
            (0.0, "0 B"),
            (1023.0, "1023 B"),
            (1023.6, "1.0 KB"),
            (1536.0, "1.5 KB"),
            (67_108_864.0, "64 MB"),
            (1e20, "90949470 TB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!((count(999.0), count(999.6)), ("999".into(), "1.0k".into()));
        assert_eq!(count(12_345_678.0), "12M");
        for (number, text) in [
            (42, "42s"),
            (200, "3m 20s"),
            (18_060, "5h 1m"),
            (1_051_200, "12d 4h"),
        ] {
            assert_eq!(seconds(number), text);
        }
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(123_456), "123,456");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
