//! The file of users, a line each:
//!
//! ```text
//!  alice:secret
//!  bob:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$6Z3...
//!  carol:$scrypt$ln=15,r=8,p=1$c2FsdHNhbHQ$pN1...
//! ```
//!
//! A name may stand on several lines, and any of its passwords will do: that is how a password is changed without a
//! moment in which clients fail. As with memcached, every line counts, and every blank of a password: an empty line is an
//! error, and so is a file without a user.
//!
//! Us1. A hash that the file holds is one this server can compute, at no more than [`HASH_BYTES_MAX`].
//! Us2. A plain password is forgotten once its digest is taken.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHashString, PasswordVerifier};
use scrypt::Scrypt;
use subtle::{Choice, ConstantTimeEq};

use super::digest::{Digest, Key};

/// Entries of a file. Each check looks at all of them.
const USERS_MAX: usize = 1024;
/// Bytes of a line without its end.
const LINE_LEN_MAX: usize = 4096;
/// Memory, in bytes, that one hash may take: scrypt at `ln=17,r=8`, as OWASP's cheat sheet on password storage has it.
pub const HASH_MEMORY_MAX: u64 = 128 << 20;
/// Bytes that one hash may write, over all its passes: about half a second of one core.
pub const HASH_BYTES_MAX: u64 = 512 << 20;

/// Hashes of other programs, refused rather than taken for somebody's plain password.
const FOREIGN_HASHES: [&str; 11] = [
    "$1$", "$2a$", "$2b$", "$2x$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$pbkdf2", "$argon2",
];

/// How a line is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `user:password`, as for memcached's `-Y`.
    AuthFile,
    /// `user:password[:realm]`, as in memcached's `MEMCACHED_SASL_PWDB`; empty lines and comments are passed over.
    SaslPwdb,
}

/// The users of a file.
#[derive(Debug, Default)]
pub(super) struct Users {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    user: Box<[u8]>,
    /// `None` for a plain password.
    hash: Option<PasswordHashString>,
    /// Of user and password; of a hashed password, once it was shown.
    digest: OnceLock<Digest>,
}

impl Users {
    pub(super) fn read(path: &Path, format: Format, key: &Key) -> Result<Self, String> {
        let unread = |error| format!("{}: cannot be read: {error}", path.display());
        let bytes_max = (USERS_MAX * LINE_LEN_MAX) as u64;
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unread)?;
        file.take(bytes_max + 1)
            .read_to_end(&mut bytes)
            .map_err(unread)?;
        if bytes.len() as u64 > bytes_max {
            return Err(format!("{}: is no file of users", path.display()));
        }
        Users::parse(&bytes, format, key)
            .map_err(|(line, reason)| format!("{}:{line}: {reason}", path.display()))
    }

    /// The error is the line's number and what is wrong with it.
    pub(super) fn parse(bytes: &[u8], format: Format, key: &Key) -> Result<Self, (usize, String)> {
        let mut entries = Vec::new();
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let is_note = line.is_empty() || line.starts_with(b"#");
            if is_note && (format == Format::SaslPwdb || bytes.is_empty()) {
                continue;
            }
            if entries.len() == USERS_MAX {
                return Err((index + 1, format!("more than {USERS_MAX} users")));
            }
            let entry = Entry::parse(line, format, key);
            entries.push(entry.map_err(|reason| (index + 1, reason))?);
        }
        if entries.is_empty() {
            return Err((1, "has no user; a line is user:password".to_owned()));
        }
        Ok(Users { entries })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn has_hashes(&self) -> bool {
        self.entries.iter().any(|entry| entry.hash.is_some())
    }

    /// Whether this is the digest of a user and a password that belong together, as far as is known without a hash.
    pub(super) fn know(&self, digest: &Digest) -> bool {
        let known = self.entries.iter().filter_map(|entry| entry.digest.get());
        known
            .fold(Choice::from(0), |any, one| any | one.is(digest))
            .into()
    }

    /// Computes the hashes of `user`, or one of another user where this one has none, and remembers `digest` if the
    /// password is right.
    pub(super) fn verify(
        &self,
        user: &[u8],
        password: &[u8],
        digest: Digest,
        hashes: &AtomicU64,
    ) -> bool {
        let hashed = self.entries.iter().filter(|entry| entry.hash.is_some());
        let (own, others): (Vec<_>, Vec<_>) =
            hashed.partition(|entry| entry.user.ct_eq(user).into());
        let right = |entry: &&Entry| {
            hashes.fetch_add(1, Relaxed);
            entry.has_password(password)
        };
        if own.is_empty() {
            // The work is done for its time alone.
            let _ = others.first().is_some_and(right);
            return false;
        }
        let Some(entry) = own.into_iter().find(right) else {
            return false;
        };
        // A hash has one password, so what is there already is the same.
        let _ = entry.digest.set(digest);
        true
    }
}

impl Entry {
    fn parse(line: &[u8], format: Format, key: &Key) -> Result<Self, String> {
        if line.len() > LINE_LEN_MAX {
            return Err(format!("longer than {LINE_LEN_MAX} bytes"));
        }
        if line.contains(&0) {
            return Err("has a byte 0 in it".to_owned());
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let colon = colon.ok_or("must be user:password")?;
        let (user, mut password) = (&line[..colon], &line[colon + 1..]);
        if format == Format::SaslPwdb {
            let realm = password.iter().position(|&byte| byte == b':');
            password = &password[..realm.unwrap_or(password.len())];
        }
        if user.is_empty() || password.is_empty() {
            return Err("neither user nor password may be empty".to_owned());
        }
        let hash = str::from_utf8(password).ok().map(hash).transpose()?;
        let hash = hash.flatten();
        let digest = match hash {
            Some(_) => OnceLock::new(),
            None => OnceLock::from(key.digest(user, password)),
        };
        let user = user.into();
        Ok(Entry { user, hash, digest })
    }

    fn has_password(&self, password: &[u8]) -> bool {
        let Some(hash) = &self.hash else {
            return false;
        };
        let hash = hash.password_hash();
        let (argon2, scrypt): (Argon2<'_>, Scrypt) = (Argon2::default(), Scrypt);
        let ways: [&dyn PasswordVerifier; 2] = [&argon2, &scrypt];
        hash.verify_password(&ways, password).is_ok()
    }
}

/// The hash that `text` stands for, or none if it is a plain password.
fn hash(text: &str) -> Result<Option<PasswordHashString>, String> {
    let is = |prefix: &&str| text.starts_with(*prefix);
    let cost = if is(&"$argon2id$") {
        argon2_cost
    } else if is(&"$scrypt$") {
        scrypt_cost
    } else if let Some(prefix) = FOREIGN_HASHES.iter().find(|prefix| is(prefix)) {
        return Err(format!(
            "{prefix}.. is no hash known here: $argon2id$.. and $scrypt$.. are"
        ));
    } else {
        return Ok(None);
    };
    let broken = || "this hash is cut off or broken".to_owned();
    let hash = PasswordHash::new(text).map_err(|_| broken())?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(broken());
    }
    let (memory, bytes) = cost(&hash).ok_or_else(broken)?;
    if memory > HASH_MEMORY_MAX || bytes > HASH_BYTES_MAX {
        return Err(format!(
            "this hash costs too much: {} MB of memory, {} MB written; at most {} and {}",
            memory >> 20,
            bytes >> 20,
            HASH_MEMORY_MAX >> 20,
            HASH_BYTES_MAX >> 20
        ));
    }
    Ok(Some(hash.serialize()))
}

/// Memory and bytes written.
fn argon2_cost(hash: &PasswordHash<'_>) -> Option<(u64, u64)> {
    let params = argon2::Params::try_from(hash).ok()?;
    let memory = u64::from(params.m_cost()) << 10;
    Some((memory, memory.saturating_mul(params.t_cost().into())))
}

/// Memory and bytes written: scrypt fills its memory once for each of `p`, and reads as much again.
fn scrypt_cost(hash: &PasswordHash<'_>) -> Option<(u64, u64)> {
    let params = scrypt::Params::try_from(hash).ok()?;
    let block = 128 * u64::from(params.r());
    let memory = block.checked_shl(params.log_n().into())?;
    let memory = if memory >> params.log_n() == block {
        memory
    } else {
        u64::MAX
    };
    Some((
        memory,
        memory.saturating_mul(2).saturating_mul(params.p().into()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, format: Format) -> Result<Users, (usize, String)> {
        Users::parse(text.as_bytes(), format, &Key::random())
    }

    #[test]
    fn lines_are_read_as_memcached_reads_them() {
        for (text, count) in [
            ("a:b", 1),
            ("a:b\n", 1),
            ("a:b\r\nc:d\r\n", 2),
            ("a:b:c\n", 1),
            ("# a:b\n", 1),
            ("a:$money$\n", 1),
            ("a:b\na:c\n", 2),
            (&"u:p\n".repeat(USERS_MAX), USERS_MAX),
        ] {
            let users = parse(text, Format::AuthFile).expect(text);
            assert_eq!(users.len(), count, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, reason) in [
            ("", 1, "has no user; a line is user:password"),
            ("\n", 1, "must be user:password"),
            ("a:b\n\nc:d\n", 2, "must be user:password"),
            ("a:b\n# note\n", 2, "must be user:password"),
            ("a:b\nfoo\n", 2, "must be user:password"),
            (":x\n", 1, "neither user nor password may be empty"),
            ("x:\n", 1, "neither user nor password may be empty"),
            ("x:a\0b\n", 1, "has a byte 0 in it"),
            (
                &format!("x:{}", "y".repeat(LINE_LEN_MAX)),
                1,
                "longer than 4096 bytes",
            ),
            (
                &"u:p\n".repeat(USERS_MAX + 1),
                USERS_MAX + 1,
                "more than 1024 users",
            ),
            (
                "a:$2b$10$abc",
                1,
                "$2b$.. is no hash known here: $argon2id$.. and $scrypt$.. are",
            ),
            (
                "a:$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAA",
                1,
                "$argon2.. is no hash known here: $argon2id$.. and $scrypt$.. are",
            ),
            (
                "a:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ",
                1,
                "this hash is cut off or broken",
            ),
            ("a:$argon2id$x", 1, "this hash is cut off or broken"),
            (
                "a:$scrypt$ln=17,r=8,p=3$c2FsdHNhbHQ$AAAAAAAAAAAAAAAA",
                1,
                "this hash costs too much: 128 MB of memory, 768 MB written; at most 128 and 512",
            ),
        ] {
            let found = parse(text, Format::AuthFile).map(|users| users.len());
            assert_eq!(found, Err((line, reason.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn a_sasl_file_may_have_comments_and_realms() {
        let key = Key::random();
        let empty = parse("# users\n\n", Format::SaslPwdb).map(|users| users.len());
        assert_eq!(
            empty,
            Err((1, "has no user; a line is user:password".to_owned()))
        );
        let text = b"# users\n\nann:one:realm\nbob:two\r\n";
        let users = Users::parse(text, Format::SaslPwdb, &key).expect("a good file");
        assert_eq!(users.len(), 2);
        for (user, password, known) in [
            ("ann", "one", true),
            ("bob", "two", true),
            ("ann", "one:realm", false),
            ("ann", "two", false),
            ("", "ann", false),
        ] {
            let digest = key.digest(user.as_bytes(), password.as_bytes());
            assert_eq!(users.know(&digest), known, "{user} {password}");
        }
    }
}
