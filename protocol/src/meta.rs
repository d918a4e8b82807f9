//! The meta commands: two letters, a key, then flags.
//!
//! ```text
//!  ms key 5 T60 c q Oabc\r\n
//!     |   |  `-------------- flags: one letter each, some with a token right behind it
//!     |   `----------------- ms only: the length of the data block
//!     `--------------------- the key, base64 if there is a flag b
//! ```
//!
//! All commands know the same letters: one that means nothing to a command is checked and then has no effect.
//!
//! M1. Each letter occurs at most once: a few fields hold what the flags say, and a reply walks their text again.
//! M2. A repeated or unknown letter ends the reading at once. A token that is no number is noted and the reading goes
//!     on; of several such faults the last is answered, except that a bad `F` never displaces another.
//! M3. Errors are answered even under `q`.

use crate::refusal::{Refusal, block, value_length};
use crate::words::{self, Words, parse_exptime, parse_u32, parse_u64};
use crate::{
    Arith, Delete, ErrorLine, Exptime, KEY_LEN_MAX, Key, META_TOKENS_MAX, MetaGet, MetaTokens,
    OPAQUE_LEN_MAX, ReplyMode, Request, Store, StoreMode, base64,
};

/// What the flags of one request say.
#[derive(Debug, Default)]
struct Flags {
    base64: bool,
    want_value: bool,
    no_bump: bool,
    quiet: bool,
    invalidate: bool,
    drop_value: bool,
    opaque_too_long: bool,
    client_flags: u32,
    touch: Option<Exptime>,
    vivify: Option<Exptime>,
    recache: Option<Exptime>,
    compare_cas: Option<u64>,
    new_cas: Option<u64>,
    delta: Option<u64>,
    initial: u64,
    /// The first byte behind `M`; a space if there is none.
    mode: Option<u8>,
}

/// `mg K f*`.
#[inline]
pub(crate) fn get(rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let key = words.next_key().ok_or(ErrorLine::BadFormat)?;
    let text = words::skip_spaces(words.rest());
    if key.len() <= KEY_LEN_MAX
        && let Some(request) = get_bare(key, text)
    {
        return Ok(request);
    }
    let (key, flags) = preparse(key, 2, text)?;
    flags.check_opaque()?;
    Ok(Request::MetaGet(MetaGet {
        key,
        want_value: flags.want_value,
        no_bump: flags.no_bump,
        touch: flags.touch,
        vivify: flags.vivify,
        recache: flags.recache,
        new_cas: flags.new_cas,
        known_cas: flags.compare_cas,
        tokens: MetaTokens {
            text,
            quiet: flags.quiet,
            bare: false,
        },
    }))
}

/// `mg K f*` of a key that fits, with flags that are letters alone.
#[inline(always)]
pub(crate) fn get_bare<'b>(key: &'b [u8], text: &'b [u8]) -> Option<Request<'b>> {
    let letters = bare_letters(text)?;
    Some(Request::MetaGet(MetaGet {
        key: Key::plain(key),
        want_value: letters & bit(b'v') != 0,
        no_bump: letters & bit(b'u') != 0,
        touch: None,
        vivify: None,
        recache: None,
        new_cas: None,
        known_cas: None,
        tokens: MetaTokens {
            text,
            quiet: letters & bit(b'q') != 0,
            bare: true,
        },
    }))
}

/// `ms K LEN f*`.
#[inline]
pub(crate) fn set(rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let (Some(key), Some(value_len)) = (words.next_key(), words.next()) else {
        return Err(ErrorLine::BadFormat.into());
    };
    let value_len = value_length(value_len)?;
    let text = words::skip_spaces(words.rest());
    stored(key, value_len, text).map_err(|error| Refusal::Answer {
        error,
        quiet: false,
        skip: block(value_len),
    })
}

/// The part of `ms` where every fault leaves a data block to skip.
#[inline]
fn stored<'b>(key: &'b [u8], value_len: u32, text: &'b [u8]) -> Result<Request<'b>, ErrorLine> {
    let (key, flags) = preparse(key, 3, text)?;
    let mode = match flags.mode {
        None | Some(b'S') => StoreMode::Set,
        Some(b'E') => StoreMode::Add,
        Some(b'A') => StoreMode::Append,
        Some(b'P') => StoreMode::Prepend,
        Some(b'R') => StoreMode::Replace,
        Some(_) => return Err(ErrorLine::StoreMode),
    };
    flags.check_opaque()?;
    // A replace that compares is a set that compares: either needs the item to be there.
    let mode = match mode {
        StoreMode::Replace if flags.compare_cas.is_some() => StoreMode::Set,
        mode => mode,
    };
    let extends = matches!(mode, StoreMode::Append | StoreMode::Prepend);
    Ok(Request::Store(Store {
        key,
        mode,
        client_flags: flags.client_flags,
        exptime: flags.touch.unwrap_or(Exptime::NEVER),
        value_len,
        // 0 is no unique: set compares it in vain, append and prepend do not compare.
        compare_cas: flags
            .compare_cas
            .filter(|&cas| mode == StoreMode::Set || extends && cas != 0),
        new_cas: flags.new_cas,
        invalidate: flags.invalidate && flags.compare_cas.is_some() && mode == StoreMode::Set,
        vivify: flags.vivify.filter(|_| extends),
        reply: ReplyMode::Meta(MetaTokens {
            text,
            quiet: flags.quiet,
            bare: false,
        }),
    }))
}

/// `md K f*`.
pub(crate) fn delete(rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let key = words.next_key().ok_or(ErrorLine::BadFormat)?;
    let text = words::skip_spaces(words.rest());
    let (key, flags) = preparse(key, 2, text)?;
    flags.check_opaque()?;
    Ok(Request::Delete(Delete {
        key,
        compare_cas: flags.compare_cas,
        new_cas: flags.new_cas,
        invalidate: flags.invalidate,
        touch: flags.touch,
        drop_value: flags.drop_value,
        client_flags: flags.client_flags,
        reply: ReplyMode::Meta(MetaTokens {
            text,
            quiet: flags.quiet,
            bare: false,
        }),
    }))
}

/// `ma K f*`. One error line stands for all faults of its key and flags.
pub(crate) fn arith(rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let key = words.next_key().ok_or(ErrorLine::BadFormat)?;
    let text = words::skip_spaces(words.rest());
    let (key, flags) = preparse(key, 2, text).map_err(|_| ErrorLine::InvalidOrDuplicateFlag)?;
    let decrement = match flags.mode {
        None | Some(b'I' | b'+') => false,
        Some(b'D' | b'-') => true,
        Some(_) => return Err(ErrorLine::ArithMode.into()),
    };
    flags.check_opaque()?;
    Ok(Request::Arith(Arith {
        key,
        decrement,
        delta: flags.delta.unwrap_or(1),
        vivify: flags.vivify,
        initial: flags.initial,
        touch: flags.touch,
        compare_cas: flags.compare_cas.filter(|&cas| cas != 0),
        new_cas: flags.new_cas,
        want_value: flags.want_value,
        reply: ReplyMode::Meta(MetaTokens {
            text,
            quiet: flags.quiet,
            bare: false,
        }),
    }))
}

/// `me K [b]`. Other words are ignored.
pub(crate) fn debug(rest: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut words = Words::new(rest);
    let text = words.next_key().ok_or(ErrorLine::BadFormat)?;
    let base64 = words.next() == Some(b"b");
    let fits = if base64 {
        decodes(text)
    } else {
        text.len() <= KEY_LEN_MAX
    };
    if fits {
        Ok(Request::MetaDebug(Key { text, base64 }))
    } else {
        Err(ErrorLine::BadFormat.into())
    }
}

/// Reads the flags and judges the key by them. `words_before` are the words before the flags, the command's name too.
#[inline]
fn preparse<'b>(
    key: &'b [u8],
    words_before: usize,
    text: &'b [u8],
) -> Result<(Key<'b>, Flags), ErrorLine> {
    if key.len() > KEY_LEN_MAX && !fits_decoded(key, text) {
        return Err(ErrorLine::BadFormat);
    }
    // Every word takes a byte at least, so that most requests need no count.
    let words_left = META_TOKENS_MAX - words_before;
    if text.len() > words_left && Words::new(text).nth(words_left).is_some() {
        return Err(ErrorLine::TooManyFlags);
    }
    let mut flags = Flags::default();
    let mut fault = None;
    let mut seen = 0u64;
    for (flag, token) in words::flags(text) {
        let bit = match flag {
            64..127 => bit(flag),
            _ => return Err(ErrorLine::InvalidFlag),
        };
        if seen & bit != 0 {
            return Err(ErrorLine::DuplicateFlag);
        }
        seen |= bit;
        match flag {
            b'v' => flags.want_value = true,
            b'q' => flags.quiet = true,
            b'c' | b'f' | b'h' | b'k' | b'l' | b's' | b't' | b'P' | b'L' => {}
            b'O' => flags.opaque_too_long = token.len() > OPAQUE_LEN_MAX,
            b'T' => flags.touch = exptime(token, &mut fault),
            b'F' => match parse_u32(token) {
                Some(client_flags) => flags.client_flags = client_flags,
                None => fault = fault.or(Some(ErrorLine::BadFormat)),
            },
            b'N' => flags.vivify = exptime(token, &mut fault),
            b'R' => flags.recache = exptime(token, &mut fault),
            b'C' => flags.compare_cas = number(token, ErrorLine::BadToken, &mut fault),
            b'E' => flags.new_cas = number(token, ErrorLine::BadToken, &mut fault),
            b'D' => flags.delta = number(token, ErrorLine::DeltaValue, &mut fault),
            b'J' => {
                let initial = number(token, ErrorLine::InitialValue, &mut fault);
                flags.initial = initial.unwrap_or(0);
            }
            b'M' => flags.mode = Some(token.first().copied().unwrap_or(b' ')),
            b'I' => flags.invalidate = true,
            b'u' => flags.no_bump = true,
            b'x' => flags.drop_value = true,
            b'b' => {
                flags.base64 = true;
                if !decodes(key) {
                    fault = Some(ErrorLine::KeyDecoding);
                }
            }
            _ => return Err(ErrorLine::InvalidFlag),
        }
    }
    match fault {
        None => Ok((
            Key {
                text: key,
                base64: flags.base64,
            },
            flags,
        )),
        Some(error) => Err(error),
    }
}

/// A letter's bit: all lie in 64..127.
const fn bit(letter: u8) -> u64 {
    1 << (letter - 64)
}

/// What most `mg` say, read in one go: letters that need no token and no check, a space between them; the bits of those
/// that are there. `None` if there is anything else.
#[inline]
fn bare_letters(text: &[u8]) -> Option<u64> {
    const BARE: u64 = bit(b'c')
        | bit(b'f')
        | bit(b'h')
        | bit(b'k')
        | bit(b'l')
        | bit(b'q')
        | bit(b's')
        | bit(b't')
        | bit(b'u')
        | bit(b'v');
    let mut seen = 0;
    for word in text.chunks(2) {
        let letter = word[0];
        let known = letter.is_ascii_lowercase() && bit(letter) & BARE & !seen != 0;
        if !known || word.get(1).is_some_and(|&space| space != b' ') {
            return None;
        }
        seen |= bit(letter);
    }
    Some(seen)
}

impl Flags {
    fn check_opaque(&self) -> Result<(), ErrorLine> {
        if self.opaque_too_long {
            Err(ErrorLine::OpaqueTooLong)
        } else {
            Ok(())
        }
    }
}

/// True if the text of a key is longer than a key, but only because it is base64.
#[cold]
fn fits_decoded(key: &[u8], text: &[u8]) -> bool {
    base64::decoded_len(key) <= KEY_LEN_MAX && Words::new(text).any(|word| word[0] == b'b')
}

fn decodes(key: &[u8]) -> bool {
    base64::decode(key, &mut [0; KEY_LEN_MAX]).is_some()
}

fn exptime(token: &[u8], fault: &mut Option<ErrorLine>) -> Option<Exptime> {
    let exptime = parse_exptime(token);
    if exptime.is_none() {
        *fault = Some(ErrorLine::BadToken);
    }
    exptime
}

fn number(token: &[u8], error: ErrorLine, fault: &mut Option<ErrorLine>) -> Option<u64> {
    let number = parse_u64(token);
    if number.is_none() {
        *fault = Some(error);
    }
    number
}
