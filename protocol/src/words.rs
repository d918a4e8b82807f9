//! Words and numbers of a command line: all there is to its grammar.
//!
//! Only the space parts words; any other byte, control characters too, belongs to the word it stands in.

use crate::exptime::Exptime;
use crate::scan;

/// A cursor over the words of a text.
#[derive(Debug, Clone)]
pub(crate) struct Words<'b> {
    rest: &'b [u8],
}

impl<'b> Words<'b> {
    pub(crate) fn new(text: &'b [u8]) -> Self {
        Words { rest: text }
    }

    /// What lies behind the words taken so far.
    pub(crate) fn rest(&self) -> &'b [u8] {
        self.rest
    }

    /// The next word, if it is likely a key: long enough to be looked at by eight bytes at a time.
    #[inline]
    pub(crate) fn next_key(&mut self) -> Option<&'b [u8]> {
        let text = skip_spaces(self.rest);
        self.take(text, scan::find(b' ', text))
    }

    #[inline]
    fn take(&mut self, text: &'b [u8], space: Option<usize>) -> Option<&'b [u8]> {
        let (word, rest) = text.split_at(space.unwrap_or(text.len()));
        self.rest = rest;
        if word.is_empty() { None } else { Some(word) }
    }
}

impl<'b> Iterator for Words<'b> {
    type Item = &'b [u8];

    /// The next word; made for short ones.
    #[inline]
    fn next(&mut self) -> Option<&'b [u8]> {
        let text = skip_spaces(self.rest);
        self.take(text, text.iter().position(|&b| b == b' '))
    }
}

/// The flags of a meta command: each one's letter, and what stands right behind it.
#[inline]
pub(crate) fn flags(text: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    Words::new(text).filter_map(|word| word.split_first().map(|(&flag, token)| (flag, token)))
}

/// `text` without the spaces it begins with.
#[inline]
pub(crate) fn skip_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

/// `text` without its last word, and that word, which is empty if there is none.
pub(crate) fn split_last(mut text: &[u8]) -> (&[u8], &[u8]) {
    while let [rest @ .., b' '] = text {
        text = rest;
    }
    text.split_at(
        text.iter()
            .rposition(|&b| b == b' ')
            .map_or(0, |space| space + 1),
    )
}

/// True if the last word is `noreply`.
#[inline]
pub(crate) fn ends_with_noreply(text: &[u8]) -> bool {
    !text.is_empty() && split_last(text).1 == b"noreply"
}

/// A decimal number of digits alone: no sign, no blanks.
#[inline]
pub(crate) fn parse_u64(text: &[u8]) -> Option<u64> {
    /// A number of so many digits always fits.
    const SAFE_DIGITS: usize = 19;
    if text.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for (at, &byte) in text.iter().enumerate() {
        let digit = u64::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        number = if at < SAFE_DIGITS {
            number * 10 + digit
        } else {
            number.checked_mul(10)?.checked_add(digit)?
        };
    }
    Some(number)
}

/// As [`parse_u64`], for 32 bits.
#[inline]
pub(crate) fn parse_u32(text: &[u8]) -> Option<u32> {
    u32::try_from(parse_u64(text)?).ok()
}

/// Whether this is a 0 behind a minus sign.
#[cold]
pub(crate) fn is_minus_0(text: &[u8]) -> bool {
    matches!(text, [b'-', digits @ ..] if parse_u64(digits) == Some(0))
}

/// A decimal number that may begin with `-`.
#[inline]
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    match text {
        [b'-', digits @ ..] => 0i64.checked_sub_unsigned(parse_u64(digits)?),
        digits => i64::try_from(parse_u64(digits)?).ok(),
    }
}

/// An expiry time.
#[inline]
pub(crate) fn parse_exptime(text: &[u8]) -> Option<Exptime> {
    parse_i64(text).map(Exptime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parted_by_spaces_alone() {
        let words: Vec<_> = Words::new(b"  a bc\t \r d ").collect();
        assert_eq!(words, [&b"a"[..], b"bc\t", b"\r", b"d"]);
        let mut keys = Words::new(b" key  1 2");
        assert_eq!(keys.next_key(), Some(&b"key"[..]));
        assert_eq!(keys.rest(), b"  1 2");
        assert_eq!(Words::new(b"   ").next_key(), None);
    }

    #[test]
    fn last_words() {
        assert_eq!(split_last(b" a b  "), (&b" a "[..], &b"b"[..]));
        assert_eq!(split_last(b"a"), (&b""[..], &b"a"[..]));
        assert_eq!(split_last(b"  "), (&b""[..], &b""[..]));
        assert!(ends_with_noreply(b" 1 noreply ") && !ends_with_noreply(b" 1 noreplyx"));
    }

    #[test]
    fn numbers() {
        let u64_vectors: [(&[u8], Option<u64>); 10] = [
            (b"0", Some(0)),
            (b"007", Some(7)),
            (b"9999999999999999999", Some(9_999_999_999_999_999_999)),
            (b"18446744073709551615", Some(u64::MAX)),
            (
                b"00000000000000000000000018446744073709551615",
                Some(u64::MAX),
            ),
            (b"18446744073709551616", None),
            (b"99999999999999999999", None),
            (b"", None),
            (b"-1", None),
            (b"1x", None),
        ];
        for (text, number) in u64_vectors {
            assert_eq!(parse_u64(text), number, "{}", text.escape_ascii());
        }
        let i64_vectors: [(&[u8], Option<i64>); 9] = [
            (b"-0", Some(0)),
            (b"-1", Some(-1)),
            (b"9223372036854775807", Some(i64::MAX)),
            (b"-9223372036854775808", Some(i64::MIN)),
            (b"9223372036854775808", None),
            (b"-9223372036854775809", None),
            (b"-", None),
            (b"--1", None),
            (b"+1", None),
        ];
        for (text, number) in i64_vectors {
            assert_eq!(parse_i64(text), number, "{}", text.escape_ascii());
        }
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(parse_u32(b"4294967296"), None);
    }
}
