//! Who may use the cache: users from a file, and the work of checking a password.
//!
//! ```text
//!  user, password --> digest --> compared with every digest known ------------> Yes
//!    |                             | none, and no entry is hashed -------------> No
//!    | its time has not come,      |
//!    v others of its address wait  v
//!   Ticket --> a line for each address --> verifier thread ---> the session is woken
//!                                             | right: the digest is known from now on
//!                                             | wrong: held against the address, and the connection
//! ```
//!
//! A password in the file is plain or a hash that is slow on purpose (`users` says which). Plain ones are kept as
//! digests under a key drawn at each start, so a check of them is one digest and a few comparisons. Slow ones are never
//! computed by a worker: its connections would wait for a stranger's guesses.
//!
//! Au1. A check takes the same work for a known and an unknown user: one digest, compared with all known digests in
//!     constant time; if that fails and the file has hashed passwords, one of them is computed at least, for an unknown
//!     user that of another user, whose outcome is not looked at.
//! Au2. One slow hash is computed at a time, whatever clients ask for, and none costs more than
//!     [`users::HASH_BYTES_MAX`] allows. A connection has at most one in the queue, none once it is closed.
//! Au3. A hashed password that was right is checked like a plain one until the file is read again: clients that all
//!     come back at once do not wait for each other.
//! Au4. A file that cannot be read or understood changes nothing.
//! Au5. Who guesses keeps others waiting for a turn or two, and has few guesses: addresses take turns (`verifier`), wrong
//!     passwords are held against the address they come from (`standing`) and the connection (`peer`).
//!
//! This room knows no socket and no word of a protocol but SASL's PLAIN, which is how it is asked.

mod digest;
mod peer;
mod sasl;
mod standing;
#[cfg(test)]
mod tests;
mod users;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
#[cfg(test)]
use std::time::Duration;
use std::time::Instant;

use digest::Key;
pub use peer::{Peer, Visitor};
pub use sasl::{MECHANISMS, Plain, PlainError};
pub use users::Format;
use users::Users;
#[cfg(test)]
use verifier::Now;
use verifier::{Job, Verifier};
pub use verifier::{Ticket, Verdict};

/// What came of a user and a password.
#[derive(Debug)]
pub enum Check {
    /// They belong together.
    Yes,
    /// They do not.
    No,
    /// The ticket will tell.
    Later(Ticket),
}

/// The users, as the file last told, and the thread that computes their hashes.
#[derive(Debug)]
pub struct Auth {
    /// `None` where nobody may log in.
    file: Option<(PathBuf, Format)>,
    key: Key,
    users: RwLock<Arc<Users>>,
    verifier: Verifier,
    work: Work,
}

/// The work done so far.
#[derive(Debug, Default)]
struct Work {
    digests: AtomicU64,
    hashes: AtomicU64,
}

impl Auth {
    /// The users in the file at `path`. The error names the file and the line.
    pub fn open(path: &Path, format: Format) -> Result<Self, String> {
        let key = Key::random();
        let users = Users::read(path, format, &key)?;
        Ok(Auth::with(Some((path.into(), format)), key, users))
    }

    /// No users: nobody can log in.
    pub fn nobody() -> Self {
        Auth::with(None, Key::random(), Users::default())
    }

    /// These users, of no file. For tests.
    #[cfg(test)]
    pub(crate) fn of(users: &str) -> Self {
        let key = Key::random();
        let users = Users::parse(users.as_bytes(), Format::AuthFile, &key);
        Auth::with(None, key, users.expect("the test's users"))
    }

    fn with(file: Option<(PathBuf, Format)>, key: Key, users: Users) -> Self {
        Auth {
            file,
            key,
            users: RwLock::new(Arc::new(users)),
            verifier: Verifier::default(),
            work: Work::default(),
        }
    }

    /// Reads the file again and gives the number of its entries. Who has logged in stays so; what is waiting to be
    /// checked is checked against the new users.
    pub fn reload(&self) -> Result<usize, String> {
        let Some((path, format)) = &self.file else {
            return Ok(0);
        };
        let users = Users::read(path, *format, &self.key)?;
        let count = users.len();
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
        Ok(count)
    }

    fn users(&self) -> Arc<Users> {
        self.users
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Checks a password, as far as that is quick and it is its turn.
    pub fn check(&self, visitor: &Visitor, user: &[u8], password: &[u8]) -> Check {
        self.check_at(visitor, user, password, Instant::now())
    }

    fn check_at(&self, visitor: &Visitor, user: &[u8], password: &[u8], now: Instant) -> Check {
        let users = self.users();
        if self.verifier.may_look_now(visitor, now) {
            self.work.digests.fetch_add(1, Relaxed);
            if users.know(&self.key.digest(user, password)) {
                return Check::Yes;
            }
            if !users.has_hashes() {
                self.verifier.note_wrong(visitor.peer, now);
                return Check::No;
            }
        }
        Check::Later(self.verifier.queue(visitor, user, password, now))
    }

    /// Checks the passwords that wait, until [`Auth::close`]. A thread's whole life.
    pub fn run_verifier(&self) {
        while let Some(job) = self.verifier.next() {
            self.check_job(&job, Instant::now);
        }
    }

    /// Its answer is told when it is held against its address, so that no more than one is looked at before.
    fn check_job(&self, job: &Job, now: impl Fn() -> Instant) {
        let right = job.check(|user, password| self.verify(user, password));
        if !right {
            self.verifier.note_wrong(job.peer, now());
        }
        job.tell(if right {
            Verdict::Right
        } else {
            Verdict::Wrong
        });
    }

    fn verify(&self, user: &[u8], password: &[u8]) -> bool {
        let users = self.users();
        let digest = self.key.digest(user, password);
        // Another client may have shown the same password in the meantime.
        users.know(&digest) || users.verify(user, password, digest, &self.work.hashes)
    }

    /// Checks all that waits, as if its time had come; gives the time it would have taken. For tests.
    #[cfg(test)]
    pub(crate) fn verify_queued(&self) -> Duration {
        let start = Instant::now();
        let mut now = start;
        while self.verify_next(&mut now) {}
        now - start
    }

    /// Checks what is next, and moves `now` on if it has to wait; false if there is nothing. For tests.
    #[cfg(test)]
    fn verify_next(&self, now: &mut Instant) -> bool {
        loop {
            match self.verifier.next_at(*now) {
                Now::Idle => return false,
                Now::Wait(until) => *now = until,
                Now::Check(job) => {
                    self.check_job(&job, || *now);
                    return true;
                }
            }
        }
    }

    /// Lets passwords be checked again, after [`Auth::close`], by a thread that is yet to be started.
    pub fn open_again(&self) {
        self.verifier.open_again();
    }

    /// Ends the verifier's thread. Who still waits gets no answer.
    pub fn close(&self) {
        self.verifier.close();
    }
}
