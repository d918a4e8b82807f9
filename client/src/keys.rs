//! Keys as callers give them, and as they are sent.
//!
//! ```text
//!  key --> prefix key                          as a rule, and without a prefix the key itself
//!      '-> prefix sha256:0123..ef              where that is too long (feature `long-keys`, by option)
//! ```
//!
//! K1. Two keys are never sent as the same one: what looks like a hashed key is hashed as well.

use std::borrow::Cow;

use client_core::options::ClientOptions;
#[cfg(feature = "long-keys")]
use client_core::request::check_key;

/// What stands before the digits of a hashed key.
#[cfg(feature = "long-keys")]
const MARK: &[u8] = b"sha256:";
/// The digits of a SHA-256.
#[cfg(feature = "long-keys")]
const DIGITS: usize = 64;

/// `key` as it is sent.
pub(crate) fn sent<'k>(key: &'k [u8], options: &ClientOptions) -> Cow<'k, [u8]> {
    #[cfg(feature = "long-keys")]
    if options.hash_long_keys && needs_hash(key, options) {
        return Cow::Owned(hashed(key, &options.prefix));
    }
    // An empty key stays one, so that it is refused.
    if options.prefix.is_empty() || key.is_empty() {
        return Cow::Borrowed(key);
    }
    Cow::Owned([&options.prefix[..], key].concat())
}

#[cfg(feature = "long-keys")]
fn needs_hash(key: &[u8], options: &ClientOptions) -> bool {
    let looks_hashed = key.len() == MARK.len() + DIGITS && key.starts_with(MARK);
    if looks_hashed {
        return true;
    }
    let len = options.prefix.len() + key.len();
    // No key this short is too long in base64 either.
    if key.is_empty() || len <= protocol::KEY_LEN_MAX / 2 {
        return false;
    }
    let whole = [&options.prefix[..], key].concat();
    check_key(&whole, options.long_binary_keys).is_err()
}

#[cfg(feature = "long-keys")]
fn hashed(key: &[u8], prefix: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};

    let mut sent = [prefix, MARK].concat();
    for byte in Sha256::digest(key) {
        for digit in [byte >> 4, byte & 15] {
            sent.push(b"0123456789abcdef"[usize::from(digit)]);
        }
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_comes_before_the_key() {
        let plain = ClientOptions::default();
        assert!(matches!(sent(b"k", &plain), Cow::Borrowed(b"k")));
        let options = plain.prefix("shop:");
        assert_eq!(*sent(b"k", &options), *b"shop:k");
        assert_eq!(*sent(b"", &options), *b"", "it is refused as empty");
    }

    #[cfg(feature = "long-keys")]
    #[test]
    fn long_keys_are_hashed_and_nothing_else_is_sent_as_one() {
        let options = ClientOptions::default().prefix("p:").hash_long_keys(true);
        let sent = |key: &[u8]| sent(key, &options).into_owned();
        assert_eq!(sent(&[b'k'; 248]).len(), 250);
        let long = sent(&[b'k'; 249]);
        assert_eq!(long.len(), 2 + 7 + 64);
        assert!(long.starts_with(b"p:sha256:"));
        assert_ne!(long, sent(&[b'k'; 250]));
        // `printf '%0300d' 0 | sha256sum`
        let zeros = "p:sha256:b384feb94474000a17205b085aa775b987e743276ec4d73ed2a044217b10cd60";
        assert_eq!(sent(&[b'0'; 300]), zeros.as_bytes());
        // Spaces need base64, which is a third longer.
        assert!(sent(&[b' '; 184]).len() == 186);
        assert!(sent(&[b' '; 190]).starts_with(b"p:sha256:"));
        // Who knows the hash of another's key does not get at its value.
        let forged = &long[2..];
        assert_ne!(sent(forged), long);
    }
}
