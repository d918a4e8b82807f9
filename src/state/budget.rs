//! What clients may hold who are not done, all of them together: a budget, and who gives way when it is spent. There are two:
//! of data blocks that have not come whole, and of values in items that readers have not taken.
//!
//! ```text
//!  0                     a quarter of the memory limit               three quarters
//!  |  who asks, gets it  |  who lags gives way, then who asks gets it  |  refused
//! ```
//!
//! A client has to keep pace with what it holds: [`PACE`] bytes a second bring it up to the present, and nothing is saved
//! up for later. The milliseconds that it is behind are its lag. So one that has stopped, and one that sends a byte now and
//! then so as not to have stopped, fall behind alike, and whoever has been at it longest is behind most.
//!
//! Bu1. `held` is the sum over all accounts, and what accounts that were asked to go still hold is counted in `leaving`.
//! Bu2. Nobody gives way while less than the quarter is held, however much it lags. Nobody who lags less than [`LAG_MS`]
//!     does at any time.
//! Bu3. What is staged (kept until it fills a first chunk) never holds more than the quarter. So those who have sent next to
//!     nothing get no further than that, however many they are.
//! Bu4. An account that was asked to go is closed by its own worker, which is woken for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The least that the quarter is, in bytes: one item of the default size.
pub(super) const QUARTER_MIN: usize = 1 << 20;
/// Bytes a second with which a client keeps pace.
pub(super) const PACE: u64 = 64 << 10;
/// A lag from which on a client is one that does not move, in milliseconds: a few round trips to the far side of the world.
const LAG_MS: u64 = 500;
/// For so many milliseconds after a search in vain nobody is looked for.
const SEARCH_PAUSE_MS: u64 = 50;

/// The budget.
pub struct Budget {
    pub(super) held: AtomicUsize,
    pub(super) leaving: AtomicUsize,
    /// The part of `held` that is outside of item memory.
    pub(super) staged: AtomicUsize,
    accounts: Mutex<Accounts>,
    /// What wakes each worker.
    wakers: Box<[OnceLock<Waker>]>,
}

type Waker = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(super) struct Accounts {
    pub(super) open: BTreeMap<u64, Arc<Account>>,
    pub(super) next_id: u64,
    /// When nobody was found who lags.
    in_vain_ms: Option<u64>,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("held", &self.held)
            .field("leaving", &self.leaving)
            .field("staged", &self.staged)
            .finish_non_exhaustive()
    }
}

/// What one block or reader holds.
#[derive(Debug)]
pub(super) struct Account {
    /// The worker it is on.
    pub(super) thread: usize,
    pub(super) bytes: AtomicUsize,
    /// The millisecond up to which its client has kept pace.
    pub(super) paid_ms: AtomicU64,
    /// It was asked to go, and then held so many bytes.
    pub(super) must_go: AtomicBool,
    pub(super) asked_for: AtomicUsize,
}

impl Budget {
    /// A budget for the blocks of so many workers.
    pub fn new(threads: usize) -> Self {
        Budget {
            held: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            staged: AtomicUsize::new(0),
            accounts: Mutex::default(),
            wakers: (0..threads).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Has `wake` called when blocks of worker `thread` are to give way.
    pub fn wake_by(&self, thread: usize, wake: impl Fn() + Send + Sync + 'static) {
        // A worker runs once.
        let _ = self.wakers[thread].set(Box::new(wake));
    }

    /// Has all workers look after their connections.
    pub fn wake_all(&self) {
        self.wakers
            .iter()
            .filter_map(OnceLock::get)
            .for_each(|wake| wake());
    }

    /// Bytes that unfinished blocks hold.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Those of them that are outside of item memory.
    pub fn staged(&self) -> usize {
        self.staged.load(Relaxed)
    }

    /// A panic of another thread leaves nothing half done here.
    pub(super) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks those who lag most to go, until no more than a quarter of the memory limit is held. For holders who are let be
    /// until a store finds no memory, as they take what is there already.
    pub fn trim(&self, now_ms: u64, limit_bytes: usize) {
        let quarter = (limit_bytes / 4).max(QUARTER_MIN);
        let staying = self.held().saturating_sub(self.leaving.load(Relaxed));
        if staying > quarter {
            self.make_room(now_ms, staying - quarter, u64::MAX);
        }
    }

    /// Asks those who lag most to go, until `bytes` are on their way back.
    pub(super) fn make_room(&self, now_ms: u64, bytes: usize, asking: u64) {
        let mut accounts = self.accounts();
        let is_too_soon = |in_vain_ms| now_ms.saturating_sub(in_vain_ms) < SEARCH_PAUSE_MS;
        if accounts.in_vain_ms.is_some_and(is_too_soon) {
            return;
        }
        let mut late: Vec<(u64, &Arc<Account>)> = accounts
            .open
            .iter()
            .filter(|(id, account)| **id != asking && !account.must_go.load(Relaxed))
            .filter(|(_, account)| account.bytes.load(Relaxed) > 0)
            .map(|(_, account)| (account.paid_ms.load(Relaxed), account))
            .filter(|(paid_ms, _)| now_ms.saturating_sub(*paid_ms) >= LAG_MS)
            .collect();
        if late.is_empty() {
            accounts.in_vain_ms = Some(now_ms);
            return;
        }
        // Sorted by nothing else, so that of equals the oldest goes first.
        late.sort_by_key(|(paid_ms, _)| *paid_ms);
        let mut to_wake = vec![false; self.wakers.len()];
        let mut freed = 0;
        for (_, account) in late {
            if freed >= bytes {
                break;
            }
            let holds = account.bytes.load(Relaxed);
            account.asked_for.store(holds, Relaxed);
            account.must_go.store(true, Relaxed);
            self.leaving.fetch_add(holds, Relaxed);
            freed += holds;
            to_wake[account.thread] = true;
        }
        drop(accounts);
        for (waker, wanted) in self.wakers.iter().zip(to_wake) {
            if wanted && let Some(wake) = waker.get() {
                wake();
            }
        }
    }
}
