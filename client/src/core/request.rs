//! Requests as bytes: meta commands, and classic text where meta has no word.
//!
//! All functions append to the buffer of a node, so that a batch is one buffer, whatever its number of keys.

use std::slice;

use protocol::{KEY_LEN_MAX, Key, base64};

use crate::error::KeyFault;

/// How a store treats what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreMode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

/// What a read asks for beside value and client flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wanted {
    pub cas: bool,
    pub ttl: bool,
    /// The item's new expiry time.
    pub touch: Option<i32>,
    /// For how long a missing item is created, and how much time must be left that nobody is told to compute it anew.
    pub lease: Option<(i32, i32)>,
}

/// Counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub down: bool,
    pub delta: u64,
    /// Initial value and expiry time of a counter that is missing.
    pub create: Option<(u64, i32)>,
}

/// Whether `key` can be sent; `long_binary` as in the options.
pub(crate) fn check_key(key: &[u8], long_binary: bool) -> Result<(), KeyFault> {
    match key.len() {
        0 => Err(KeyFault::Empty),
        1..=KEY_LEN_MAX => {
            let encoded_len = key.len().div_ceil(3) * 4;
            if encoded_len > KEY_LEN_MAX && !long_binary && is_binary(key) {
                return Err(KeyFault::TooLongInBase64);
            }
            Ok(())
        }
        _ => Err(KeyFault::TooLong),
    }
}

/// `mg`. With `index`, a batch's: a miss is not answered, a hit tells the index.
pub(crate) fn get(out: &mut Vec<u8>, key: &[u8], wanted: Wanted, index: Option<u32>) {
    out.extend_from_slice(b"mg ");
    let binary = put_key(out, key);
    out.extend_from_slice(b" v f");
    put_binary(out, binary);
    if wanted.cas {
        out.extend_from_slice(b" c");
    }
    if wanted.ttl {
        out.extend_from_slice(b" t");
    }
    if let Some(exptime) = wanted.touch {
        put(out, b" T", exptime);
    }
    if let Some((lease, recache)) = wanted.lease {
        put(out, b" N", lease);
        put(out, b" R", recache);
    }
    if let Some(index) = index {
        put(out, b" q O", index);
    }
    out.extend_from_slice(b"\r\n");
}

/// One more key of a classic `get`, which the end of the line completes. A node works less on it than on as many `mg`.
/// The key needs no base64.
pub(crate) fn get_plain(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(if out.is_empty() { &b"get "[..] } else { b" " });
    out.extend_from_slice(key);
}

/// True if `key` can only be sent in base64.
pub(crate) fn is_binary(key: &[u8]) -> bool {
    // Without an end before the last byte, many are looked at together.
    let odd = |byte: &u8| u8::from(Key::plain(slice::from_ref(byte)).needs_base64());
    key.iter().fold(0, |all, byte| all | odd(byte)) != 0
}

/// `ms`. With `compare`, only if the item's CAS unique is this; with `want_cas`, the answer tells the new one.
pub(crate) fn store(
    out: &mut Vec<u8>,
    key: &[u8],
    (value, flags): (&[u8], u32),
    exptime: i32,
    mode: StoreMode,
    compare: Option<u64>,
    want_cas: bool,
) {
    out.reserve(key.len() + value.len() + 64);
    out.extend_from_slice(b"ms ");
    let binary = put_key(out, key);
    put(out, b" ", value.len());
    put_binary(out, binary);
    if exptime != 0 {
        put(out, b" T", exptime);
    }
    if flags != 0 {
        put(out, b" F", flags);
    }
    match mode {
        StoreMode::Set => {}
        StoreMode::Add => out.extend_from_slice(b" ME"),
        StoreMode::Replace => out.extend_from_slice(b" MR"),
        StoreMode::Append => out.extend_from_slice(b" MA"),
        StoreMode::Prepend => out.extend_from_slice(b" MP"),
    }
    if let Some(unique) = compare {
        put(out, b" C", unique);
    }
    if want_cas {
        out.extend_from_slice(b" c");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// `md`; with `compare`, only if the item's CAS unique is this.
pub(crate) fn delete(out: &mut Vec<u8>, key: &[u8], compare: Option<u64>) {
    out.extend_from_slice(b"md ");
    let binary = put_key(out, key);
    put_binary(out, binary);
    if let Some(unique) = compare {
        put(out, b" C", unique);
    }
    out.extend_from_slice(b"\r\n");
}

/// A new expiry time, by `mg` without a value.
pub(crate) fn touch(out: &mut Vec<u8>, key: &[u8], exptime: i32) {
    out.extend_from_slice(b"mg ");
    let binary = put_key(out, key);
    put_binary(out, binary);
    put(out, b" T", exptime);
    out.extend_from_slice(b"\r\n");
}

/// `ma`; the answer carries the number and the time to live.
pub(crate) fn count(out: &mut Vec<u8>, key: &[u8], count: Count) {
    out.extend_from_slice(b"ma ");
    let binary = put_key(out, key);
    put_binary(out, binary);
    out.extend_from_slice(if count.down { b" MD" } else { b" MI" });
    put(out, b" D", count.delta);
    if let Some((initial, exptime)) = count.create {
        put(out, b" J", initial);
        put(out, b" N", exptime);
    }
    out.extend_from_slice(b" v t\r\n");
}

/// `mn`, answered behind all that was asked before.
pub(crate) fn noop(out: &mut Vec<u8>) {
    out.extend_from_slice(b"mn\r\n");
}

/// The login of ASCII authentication, which is a store of the token under any key.
pub(crate) fn login(user: &str, password: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b"set auth 0 0 ", user.len() + 1 + password.len());
    for part in ["\r\n", user, " ", password, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    out
}

/// Appends the key, in base64 if it needs to be, and tells whether it does.
fn put_key(out: &mut Vec<u8>, key: &[u8]) -> bool {
    let binary = is_binary(key);
    if binary {
        base64::encode(key, out);
    } else {
        out.extend_from_slice(key);
    }
    binary
}

fn put_binary(out: &mut Vec<u8>, binary: bool) {
    if binary {
        out.extend_from_slice(b" b");
    }
}

fn put(out: &mut Vec<u8>, before: &[u8], number: impl itoa::Integer) {
    out.extend_from_slice(before);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).expect("these are text")
    }

    #[test]
    fn requests_on_the_wire() {
        let all = Wanted {
            cas: true,
            ttl: true,
            touch: Some(60),
            lease: None,
        };
        let lease = Wanted {
            lease: Some((5, 11)),
            ..Wanted::default()
        };
        let up = Count {
            down: false,
            delta: 3,
            create: None,
        };
        let down = Count {
            down: true,
            delta: u64::MAX,
            create: Some((10, 60)),
        };
        let set = |mode, compare, want_cas| {
            text(|o| store(o, b"k", (b"v\r\n", 7), 30, mode, compare, want_cas))
        };
        for (sent, wire) in [
            (
                text(|o| get(o, b"k", Wanted::default(), None)),
                "mg k v f\r\n",
            ),
            (text(|o| get(o, b"k", lease, None)), "mg k v f N5 R11\r\n"),
            (
                text(|o| get(o, b"k", all, Some(12))),
                "mg k v f c t T60 q O12\r\n",
            ),
            (
                text(|o| get(o, b"\x01", all, None)),
                "mg AQ== v f b c t T60\r\n",
            ),
            (
                set(StoreMode::Set, None, false),
                "ms k 3 T30 F7\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Add, None, true),
                "ms k 3 T30 F7 ME c\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Set, Some(9), false),
                "ms k 3 T30 F7 C9\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Append, None, false),
                "ms k 3 T30 F7 MA\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Prepend, None, false),
                "ms k 3 T30 F7 MP\r\nv\r\n\r\n",
            ),
            (
                set(StoreMode::Replace, None, false),
                "ms k 3 T30 F7 MR\r\nv\r\n\r\n",
            ),
            (
                text(|o| store(o, b"a b", (b"", 0), 0, StoreMode::Set, None, false)),
                "ms YSBi 0 b\r\n\r\n",
            ),
            (text(|o| delete(o, b"k", None)), "md k\r\n"),
            (text(|o| delete(o, b" ", Some(5))), "md IA== b C5\r\n"),
            (text(|o| touch(o, b"k", 0)), "mg k T0\r\n"),
            (text(|o| count(o, b"k", up)), "ma k MI D3 v t\r\n"),
            (
                text(|o| count(o, b"k", down)),
                "ma k MD D18446744073709551615 J10 N60 v t\r\n",
            ),
            (text(noop), "mn\r\n"),
            (
                text(|o| o.extend(login("me", "secret"))),
                "set auth 0 0 9\r\nme secret\r\n",
            ),
        ] {
            assert_eq!(sent, wire);
        }
    }

    #[test]
    fn keys_that_cannot_be_sent() {
        let binary = [0; 250];
        for (key, long, result) in [
            (&b""[..], true, Err(KeyFault::Empty)),
            (&[b'k'; 250], false, Ok(())),
            (&[b'k'; 251], true, Err(KeyFault::TooLong)),
            (&[0xff; 250], false, Ok(())),
            (&binary[..186], false, Ok(())),
            (&binary[..187], false, Err(KeyFault::TooLongInBase64)),
            (&binary, true, Ok(())),
        ] {
            assert_eq!(check_key(key, long), result, "{} bytes", key.len());
        }
    }
}
