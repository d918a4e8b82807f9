//! The queue of passwords whose hashes are to be computed, and the thread that does it, one at a time.
//!
//! V1. A job lives as long as its ticket: what a closed connection asked for is not computed, and its password is
//!     forgotten at once. The queue is at most twice as long as there are tickets, and a few.
//! V2. A ticket's wake-up is called once, after its answer is there, on the verifier's thread or at once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

/// Below this length nobody looks for jobs that have lost their tickets.
const QUEUE_LEN_MIN: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Verifier {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Weak<Job>>,
    /// The length at which those that nobody waits for are looked for.
    prune_at: usize,
    closed: bool,
}

/// A password to check.
#[derive(Debug)]
pub(super) struct Job {
    user: Box<[u8]>,
    password: Password,
    answer: Mutex<Answer>,
}

impl Job {
    /// Checks the password.
    pub(super) fn answer(&self, verify: impl FnOnce(&[u8], &[u8]) -> bool) {
        let right = verify(&self.user, &self.password.0);
        let mut answer = lock(&self.answer);
        answer.right = Some(right);
        let wake = answer.wake.take();
        drop(answer);
        if let Some(wake) = wake {
            wake();
        }
    }
}

/// Kept out of logs.
struct Password(Box<[u8]>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// Stands for a password that is being checked.
#[derive(Debug)]
pub struct Ticket {
    job: Arc<Job>,
}

#[derive(Default)]
struct Answer {
    right: Option<bool>,
    wake: Option<Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.right).finish()
    }
}

/// A panic of another thread leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ticket {
    /// Whether the password was right, once that is known.
    pub fn answer(&self) -> Option<bool> {
        lock(&self.job.answer).right
    }

    /// Calls `wake` when the answer is there, instead of what was to be called before.
    pub fn when_answered(&self, wake: Box<dyn FnOnce() + Send>) {
        let mut answer = lock(&self.job.answer);
        if answer.right.is_none() {
            answer.wake = Some(wake);
            return;
        }
        drop(answer);
        wake();
    }
}

impl Verifier {
    pub(super) fn queue(&self, user: &[u8], password: &[u8]) -> Ticket {
        let job = Arc::new(Job {
            user: user.into(),
            password: Password(password.into()),
            answer: Mutex::default(),
        });
        let mut queue = lock(&self.queue);
        if queue.jobs.len() >= queue.prune_at {
            queue.jobs.retain(|job| job.strong_count() > 0);
            queue.prune_at = (2 * queue.jobs.len()).max(QUEUE_LEN_MIN);
        }
        queue.jobs.push_back(Arc::downgrade(&job));
        drop(queue);
        self.filled.notify_one();
        Ticket { job }
    }

    /// Waits for a job; none when closed.
    pub(super) fn next(&self) -> Option<Arc<Job>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            match queue.jobs.pop_front() {
                Some(job) => {
                    if let Some(job) = job.upgrade() {
                        return Some(job);
                    }
                }
                None => {
                    queue = self
                        .filled
                        .wait(queue)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn try_next(&self) -> Option<Arc<Job>> {
        let mut queue = lock(&self.queue);
        std::iter::from_fn(|| queue.jobs.pop_front()).find_map(|job| job.upgrade())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.queue).jobs.len()
    }

    pub(super) fn close(&self) {
        lock(&self.queue).closed = true;
        self.filled.notify_all();
    }
}
