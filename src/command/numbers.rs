//! Numbers as words of commands.

use std::str::FromStr;

use crate::knobs::in_milli;

/// A decimal number: no plus sign, no word like `inf`.
pub(super) fn number<T: FromStr>(word: &[u8]) -> Option<T> {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    if !digits
        .first()
        .is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.')
    {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// A ratio in thousandths.
pub(super) fn milli(word: &[u8]) -> Option<u32> {
    number::<f64>(word)
        .filter(|ratio| *ratio >= 0.0)
        .map(in_milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain() {
        assert_eq!(number::<u32>(b"12"), Some(12));
        assert_eq!(number::<i32>(b"-12"), Some(-12));
        assert_eq!(number::<f64>(b"-.5"), Some(-0.5));
        for word in [&b"+1"[..], b"1x", b"", b"-", b"4294967296", b"-1"] {
            assert_eq!(number::<u32>(word), None, "{}", word.escape_ascii());
        }
        for word in [&b"inf"[..], b"-inf", b"nan", b"1e"] {
            assert_eq!(number::<f64>(word), None, "{}", word.escape_ascii());
        }
    }
}
