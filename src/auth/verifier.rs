//! The passwords that wait to be checked, and the thread that does it, one at a time.
//!
//! ```text
//!  addresses:   of which no wrong password is remembered   [oldest .. newest]   three turns of four
//!               the others                                 [oldest .. newest]   one of four
//!  of each:     connections that were not wrong yet        [oldest .. newest]   three turns of four
//!               the others                                 [oldest .. newest]   one of four
//!  timers:      connections and addresses that have to wait for their time
//! ```
//!
//! Vf1. A job lives as long as its ticket: what a closed connection asked for is not computed, and its password is
//!     forgotten at once. A line is at most twice as long as there are tickets, and a few.
//! Vf2. A ticket's wake-up is called once, after its answer is there, on the verifier's thread or at once.
//! Vf3. Addresses take turns, however much each has waiting, and so do the connections of one. Those who have shown nothing
//!     wrong so far come first, but for one turn in four.
//! Vf4. The newest and the oldest are taken in turn, of the addresses and of the connections: who comes once does not wait
//!     for all that was there before, as many as they are and wherever they come from, and nobody waits for ever.
//! Vf5. One address has at most [`WAITING_MAX`] waiting. One more, and the oldest is answered that it is too much.
//! Vf6. No password is looked at before its connection's time ([`super::peer`]) nor its address's ([`super::standing`]).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::peer::{Peer, Visitor};
use super::standing::Standings;

/// Below this length nobody looks for jobs that have lost their tickets.
const LINE_LEN_MIN: usize = 64;
/// Passwords of one address that may wait: as many as there are connections by default.
const WAITING_MAX: usize = 1024;
/// One turn in so many is for those who were wrong before, whoever else waits.
const TURNS: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Verifier {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: HashMap<Peer, Line>,
    /// Addresses that are to have a turn.
    turns: Turns<Peer>,
    timers: BinaryHeap<Reverse<Timer>>,
    standings: Standings,
    closed: bool,
}

/// Those who wait for their turn (Vf3, Vf4).
#[derive(Debug)]
struct Turns<T> {
    /// Those who have shown nothing wrong so far.
    good: BothEnds<T>,
    others: BothEnds<T>,
    turn: u32,
}

impl<T> Turns<T> {
    fn push(&mut self, is_good: bool, one: T) {
        let ends = if is_good {
            &mut self.good
        } else {
            &mut self.others
        };
        ends.waiting.push_back(one);
    }

    fn take(&mut self) -> Option<T> {
        self.turn = self.turn.wrapping_add(1);
        let (good, others) = (&mut self.good, &mut self.others);
        if self.turn.is_multiple_of(TURNS) {
            others.take().or_else(|| good.take())
        } else {
            good.take().or_else(|| others.take())
        }
    }

    fn len(&self) -> usize {
        self.good.waiting.len() + self.others.waiting.len()
    }

    fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.good.waiting.retain(&keep);
        self.others.waiting.retain(&keep);
    }

    /// Takes the one who is to give way to a new one.
    fn give_way(&mut self) -> Option<T> {
        let oldest = self.others.waiting.pop_front();
        oldest.or_else(|| self.good.waiting.pop_front())
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Turns {
            good: BothEnds::default(),
            others: BothEnds::default(),
            turn: 0,
        }
    }
}

/// From the oldest to the newest.
#[derive(Debug)]
struct BothEnds<T> {
    waiting: VecDeque<T>,
    newest_next: bool,
}

impl<T> BothEnds<T> {
    fn take(&mut self) -> Option<T> {
        self.newest_next = !self.newest_next;
        if self.newest_next {
            self.waiting.pop_back()
        } else {
            self.waiting.pop_front()
        }
    }
}

impl<T> Default for BothEnds<T> {
    fn default() -> Self {
        BothEnds {
            waiting: VecDeque::new(),
            newest_next: false,
        }
    }
}

/// What waits of one address.
#[derive(Debug, Default)]
struct Line {
    jobs: Turns<Weak<Job>>,
    /// The length at which those that nobody waits for are looked for.
    prune_at: usize,
    /// It stands in one of `turns`, or among the timers.
    scheduled: bool,
}

#[derive(Debug)]
struct Timer {
    at: Instant,
    what: Timed,
}

#[derive(Debug)]
enum Timed {
    Job(Weak<Job>),
    Peer(Peer),
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Now {
    /// This.
    Check(Arc<Job>),
    /// Nothing before this moment.
    Wait(Instant),
    /// Nothing.
    Idle,
}

impl Queue {
    /// Adds a job whose connection's time has come.
    fn add(&mut self, job: &Arc<Job>, now: Instant) {
        let line = self.lines.entry(job.peer).or_default();
        let jobs = &mut line.jobs;
        if jobs.len() >= line.prune_at.max(LINE_LEN_MIN) {
            jobs.retain(|job| job.strong_count() > 0);
            line.prune_at = (2 * jobs.len()).min(WAITING_MAX);
        }
        while jobs.len() >= WAITING_MAX {
            if let Some(oldest) = jobs.give_way().and_then(|job| job.upgrade()) {
                oldest.tell(Verdict::Busy);
            }
        }
        jobs.push(job.is_first, Arc::downgrade(job));
        if !line.scheduled {
            self.schedule(job.peer, now);
        }
    }

    /// Has an address that has jobs wait for its next turn.
    fn schedule(&mut self, peer: Peer, now: Instant) {
        let Some(line) = self.lines.get_mut(&peer) else {
            return;
        };
        if line.jobs.len() == 0 {
            self.lines.remove(&peer);
            return;
        }
        line.scheduled = true;
        match self.standings.ready_at(peer, now) {
            Some(at) => {
                let what = Timed::Peer(peer);
                self.timers.push(Reverse(Timer { at, what }));
            }
            None => {
                let is_good = self.standings.is_good(peer, now);
                self.turns.push(is_good, peer);
            }
        }
    }

    /// The job that is next (Vf3, Vf4).
    fn next(&mut self, now: Instant) -> Now {
        while let Some(Reverse(timer)) = self.timers.pop() {
            if timer.at > now {
                self.timers.push(Reverse(timer));
                break;
            }
            match timer.what {
                Timed::Peer(peer) => self.schedule(peer, now),
                Timed::Job(job) => {
                    if let Some(job) = job.upgrade() {
                        self.add(&job, now);
                    }
                }
            }
        }
        loop {
            let Some(peer) = self.turns.take() else {
                let next = self.timers.peek().map(|Reverse(timer)| timer.at);
                return next.map_or(Now::Idle, Now::Wait);
            };
            let Some(line) = self.lines.get_mut(&peer) else {
                continue;
            };
            line.scheduled = false;
            // A check that was under way when it was scheduled may have been of a wrong password.
            if self.standings.ready_at(peer, now).is_some() {
                self.schedule(peer, now);
                continue;
            }
            while let Some(job) = line.jobs.take() {
                if let Some(job) = job.upgrade() {
                    self.schedule(peer, now);
                    return Now::Check(job);
                }
            }
            self.lines.remove(&peer);
        }
    }
}

/// What is known of a password that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is right.
    Right,
    /// It is not.
    Wrong,
    /// It was not looked at, as too many of its address wait.
    Busy,
}

/// A password to check.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) peer: Peer,
    /// Its connection has shown no wrong password before.
    is_first: bool,
    user: Box<[u8]>,
    password: Password,
    answer: Mutex<Answer>,
}

impl Job {
    /// Whether the password is right.
    pub(super) fn check(&self, verify: impl FnOnce(&[u8], &[u8]) -> bool) -> bool {
        verify(&self.user, &self.password.0)
    }

    /// Answers.
    pub(super) fn tell(&self, verdict: Verdict) {
        let mut answer = lock(&self.answer);
        answer.verdict = Some(verdict);
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
    verdict: Option<Verdict>,
    wake: Option<Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.verdict).finish()
    }
}

/// A panic of another thread leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ticket {
    /// What is known of the password, once it is.
    pub fn answer(&self) -> Option<Verdict> {
        lock(&self.job.answer).verdict
    }

    /// Calls `wake` when the answer is there, instead of what was to be called before.
    pub fn when_answered(&self, wake: Box<dyn FnOnce() + Send>) {
        let mut answer = lock(&self.job.answer);
        if answer.verdict.is_none() {
            answer.wake = Some(wake);
            return;
        }
        drop(answer);
        wake();
    }
}

impl Verifier {
    /// True if a password of this visitor may be looked at now, before all that waits (Vf6).
    pub(super) fn may_look_now(&self, visitor: &Visitor, now: Instant) -> bool {
        if visitor.not_before.is_some_and(|at| at > now) {
            return false;
        }
        let queue = lock(&self.queue);
        !queue.lines.contains_key(&visitor.peer)
            && queue.standings.ready_at(visitor.peer, now).is_none()
    }

    /// Notes a wrong password.
    pub(super) fn note_wrong(&self, peer: Peer, now: Instant) {
        lock(&self.queue).standings.note_wrong(peer, now);
    }

    pub(super) fn queue(
        &self,
        visitor: &Visitor,
        user: &[u8],
        password: &[u8],
        now: Instant,
    ) -> Ticket {
        let job = Arc::new(Job {
            peer: visitor.peer,
            is_first: visitor.wrong == 0,
            user: user.into(),
            password: Password(password.into()),
            answer: Mutex::default(),
        });
        let mut queue = lock(&self.queue);
        match visitor.not_before {
            Some(at) if at > now => {
                let what = Timed::Job(Arc::downgrade(&job));
                queue.timers.push(Reverse(Timer { at, what }));
            }
            _ => queue.add(&job, now),
        }
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
            let now = Instant::now();
            queue = match queue.next(now) {
                Now::Check(job) => return Some(job),
                Now::Wait(until) => {
                    let waited = self.filled.wait_timeout(queue, until - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Now::Idle => {
                    let waited = self.filled.wait(queue);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// What is to be done at a moment. For tests.
    #[cfg(test)]
    pub(super) fn next_at(&self, now: Instant) -> Now {
        lock(&self.queue).next(now)
    }

    /// Jobs in all lines, with those that nobody waits for. For tests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let queue = lock(&self.queue);
        let lines = queue.lines.values().map(|line| line.jobs.len());
        lines.sum::<usize>() + queue.timers.len()
    }

    pub(super) fn close(&self) {
        lock(&self.queue).closed = true;
        self.filled.notify_all();
    }

    pub(super) fn open_again(&self) {
        lock(&self.queue).closed = false;
    }
}
