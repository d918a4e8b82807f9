//! What a parser of lines says of a line that is no request, and of the data block behind it.

use crate::error::ErrorLine;
use crate::limits::{ITEM_LEN_MAX, VALUE_LEN_MAX};
use crate::request::Skip;
use crate::words::{self, parse_u32};

/// Why a line is not a request.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Close the connection.
    HangUp,
    /// Answer a line: the fields of [`Parsed::Invalid`](crate::Parsed::Invalid).
    Answer {
        error: ErrorLine,
        quiet: bool,
        skip: Skip,
    },
}

impl From<ErrorLine> for Refusal {
    fn from(error: ErrorLine) -> Self {
        Refusal::Answer {
            error,
            quiet: false,
            skip: Skip::None,
        }
    }
}

/// The length of a data block. One beyond [`VALUE_LEN_MAX`] is refused, loudly as in memcached.
#[inline]
pub(crate) fn value_length(word: &[u8]) -> Result<u32, Refusal> {
    match parse_u32(word) {
        Some(len) if len <= VALUE_LEN_MAX => Ok(len),
        _ if word.iter().all(u8::is_ascii_digit) => Err(Refusal::Answer {
            error: ErrorLine::BadFormat,
            quiet: false,
            skip: Skip::All,
        }),
        _ if words::is_minus_0(word) => Ok(0),
        _ => Err(ErrorLine::BadFormat.into()),
    }
}

/// A data block of `value_len` bytes with its line end, to be skipped.
pub(crate) fn block(value_len: u32) -> Skip {
    if value_len > ITEM_LEN_MAX {
        Skip::All
    } else {
        Skip::Bytes(u64::from(value_len) + 2)
    }
}
