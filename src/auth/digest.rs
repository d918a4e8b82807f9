//! A user and a password as 32 bytes that tell nothing about them, but to this process.

use std::fmt;

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use rand_core::{OsRng, RngCore};
use subtle::{Choice, ConstantTimeEq};

/// A key that is drawn at the start and never leaves the process.
pub(super) struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    pub(super) fn random() -> Self {
        let mut key = [0; 32];
        OsRng.fill_bytes(&mut key);
        Key(key)
    }

    pub(super) fn digest(&self, user: &[u8], password: &[u8]) -> Digest {
        let mut mac = Blake2sMac256::new(&self.0.into());
        // The length keeps "ab", "c" apart from "a", "bc".
        mac.update(&(user.len() as u64).to_le_bytes());
        mac.update(user);
        mac.update(password);
        Digest(mac.finalize_fixed().into())
    }
}

/// Compared in constant time.
pub(super) struct Digest([u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

impl Digest {
    pub(super) fn is(&self, other: &Digest) -> Choice {
        self.0.ct_eq(&other.0)
    }
}
