//! What data blocks that have not come whole may hold, all of them together: a budget, and who gives way when it is spent.
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
//! U1. `held` is the sum over all accounts, and what accounts that were asked to go still hold is counted in `leaving`.
//! U2. Nobody gives way while less than the quarter is held, however much it lags. Nobody who lags less than [`LAG_MS`]
//!     does at any time.
//! U3. What is staged (kept until it fills a first chunk) never holds more than the quarter. So those who have sent next to
//!     nothing get no further than that, however many they are.
//! U4. An account that was asked to go is closed by its own worker, which is woken for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::shared::Ctx;

/// The least that the quarter is, in bytes: one item of the default size.
const QUARTER_MIN: usize = 1 << 20;
/// Bytes a second with which a client keeps pace.
const PACE: u64 = 64 << 10;
/// A lag from which on a client is one that does not move, in milliseconds: a few round trips to the far side of the world.
const LAG_MS: u64 = 500;
/// For so many milliseconds after a search in vain nobody is looked for.
const SEARCH_PAUSE_MS: u64 = 50;

/// The budget.
pub struct Budget {
    held: AtomicUsize,
    leaving: AtomicUsize,
    /// The part of `held` that is outside of item memory.
    staged: AtomicUsize,
    accounts: Mutex<Accounts>,
    /// What wakes each worker.
    wakers: Box<[OnceLock<Waker>]>,
}

type Waker = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Accounts {
    open: BTreeMap<u64, Arc<Account>>,
    next_id: u64,
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

/// What one block holds.
#[derive(Debug)]
struct Account {
    /// The worker it is on.
    thread: usize,
    bytes: AtomicUsize,
    /// The millisecond up to which its client has kept pace.
    paid_ms: AtomicU64,
    /// It was asked to go, and then held so many bytes.
    must_go: AtomicBool,
    asked_for: AtomicUsize,
}

/// A block's share of the budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Hold<'c> {
    budget: &'c Budget,
    account: Arc<Account>,
    id: u64,
    staged: usize,
    /// Bytes that have come and are less than a millisecond's worth.
    change: u64,
}

impl Budget {
    pub(super) fn new(threads: usize) -> Self {
        Budget {
            held: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            staged: AtomicUsize::new(0),
            accounts: Mutex::default(),
            wakers: (0..threads).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Has `wake` called when blocks of worker `thread` are to give way.
    pub(super) fn wake_by(&self, thread: usize, wake: impl Fn() + Send + Sync + 'static) {
        // A worker runs once.
        let _ = self.wakers[thread].set(Box::new(wake));
    }

    /// Bytes that unfinished blocks hold.
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Those of them that are outside of item memory.
    pub(super) fn staged(&self) -> usize {
        self.staged.load(Relaxed)
    }

    /// A panic of another thread leaves nothing half done here.
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks those who lag most to go, until `bytes` are on their way back.
    fn make_room(&self, now_ms: u64, bytes: usize, asking: u64) {
        let mut accounts = self.accounts();
        let is_too_soon = |in_vain_ms| now_ms.saturating_sub(in_vain_ms) < SEARCH_PAUSE_MS;
        if accounts.in_vain_ms.is_some_and(is_too_soon) {
            return;
        }
        let mut late: Vec<(u64, &Arc<Account>)> = accounts
            .open
            .iter()
            .filter(|(id, account)| **id != asking && !account.must_go.load(Relaxed))
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

impl<'c> Hold<'c> {
    /// Nothing yet, of a block that begins to come.
    pub(super) fn new(ctx: Ctx<'c>) -> Self {
        let budget = &ctx.shared.bodies;
        let account = Arc::new(Account {
            thread: ctx.shared.stats.thread_of(ctx.stats),
            bytes: AtomicUsize::new(0),
            paid_ms: AtomicU64::new(ctx.shared.clock.now_ms()),
            must_go: AtomicBool::new(false),
            asked_for: AtomicUsize::new(0),
        });
        let mut accounts = budget.accounts();
        let id = accounts.next_id;
        accounts.next_id += 1;
        accounts.open.insert(id, account.clone());
        drop(accounts);
        Hold {
            budget,
            account,
            id,
            staged: 0,
            change: 0,
        }
    }

    /// True if it was asked to go.
    pub(super) fn must_go(&self) -> bool {
        self.account.must_go.load(Relaxed)
    }

    /// Notes that `bytes` of the block have come.
    pub(super) fn came(&mut self, ctx: Ctx<'_>, bytes: usize) {
        let worth = self.change + bytes as u64 * 1000;
        self.change = worth % PACE;
        let paid_ms = self.account.paid_ms.load(Relaxed) + worth / PACE;
        let paid_ms = paid_ms.min(ctx.shared.clock.now_ms());
        self.account.paid_ms.store(paid_ms, Relaxed);
    }

    /// Room for a chunk of `bytes`, if no more than a sixteenth of the memory limit is held. For those of whom nothing has
    /// come yet.
    pub(super) fn take_in_advance(&mut self, ctx: Ctx<'_>, bytes: usize) -> bool {
        let advance_max = (ctx.cache.limit_bytes() / 16).max(QUARTER_MIN);
        let is_granted = self.budget.held() + bytes <= advance_max;
        if is_granted {
            self.add(bytes);
        }
        is_granted
    }

    /// Room for a chunk of `bytes`; false if there is none.
    pub(super) fn take(&mut self, ctx: Ctx<'_>, bytes: usize) -> bool {
        self.grow(ctx, bytes, 3)
    }

    /// Room for `bytes` outside of item memory; false if there is none.
    pub(super) fn stage(&mut self, ctx: Ctx<'_>, bytes: usize) -> bool {
        let is_granted = self.grow(ctx, bytes, 1);
        if is_granted {
            self.staged += bytes;
            self.budget.staged.fetch_add(bytes, Relaxed);
        }
        is_granted
    }

    /// Gives back what was staged.
    pub(super) fn unstage(&mut self) {
        let bytes = std::mem::take(&mut self.staged);
        self.budget.staged.fetch_sub(bytes, Relaxed);
        self.budget.held.fetch_sub(bytes, Relaxed);
        self.account.bytes.fetch_sub(bytes, Relaxed);
    }

    fn add(&self, bytes: usize) {
        self.account.bytes.fetch_add(bytes, Relaxed);
        self.budget.held.fetch_add(bytes, Relaxed);
    }

    /// Grows by `bytes`, unless more than so many quarters of the memory limit would be held.
    fn grow(&self, ctx: Ctx<'_>, bytes: usize, quarters: usize) -> bool {
        let quarter = (ctx.cache.limit_bytes() / 4).max(QUARTER_MIN);
        let own = self.account.bytes.load(Relaxed);
        self.add(bytes);
        let held = || self.budget.held();
        let staying = || held().saturating_sub(self.budget.leaving.load(Relaxed));
        if staying() > quarter && held() > own + bytes {
            let now_ms = ctx.shared.clock.now_ms();
            // Some more than is needed, so that not every chunk begins a search.
            let wanted = staying() - quarter + quarter / 16;
            self.budget.make_room(now_ms, wanted, self.id);
        }
        // Who is alone may use what there is.
        let is_granted = staying() <= quarter * quarters || held() <= own + bytes;
        if !is_granted {
            self.account.bytes.fetch_sub(bytes, Relaxed);
            self.budget.held.fetch_sub(bytes, Relaxed);
        }
        is_granted
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut accounts = self.budget.accounts();
        accounts.open.remove(&self.id);
        // Under the lock, so that nobody asks it to go meanwhile.
        let asked_for = self.account.asked_for.load(Relaxed);
        self.budget.leaving.fetch_sub(asked_for, Relaxed);
        drop(accounts);
        let bytes = self.account.bytes.load(Relaxed);
        self.budget.held.fetch_sub(bytes, Relaxed);
        self.budget.staged.fetch_sub(self.staged, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Server;

    fn quarter(ctx: Ctx<'_>) -> usize {
        (ctx.cache.limit_bytes() / 4).max(QUARTER_MIN)
    }

    /// As many holds, an eighth of the quarter each.
    fn fill<'c>(ctx: Ctx<'c>, count: usize) -> Vec<Hold<'c>> {
        let fill_one = |_| {
            let mut hold = Hold::new(ctx);
            assert!(hold.take(ctx, quarter(ctx) / 8));
            hold
        };
        (0..count).map(fill_one).collect()
    }

    fn asked(holds: &[Hold<'_>]) -> Vec<usize> {
        let must_go = |(at, hold): (usize, &Hold<'_>)| hold.must_go().then_some(at);
        holds.iter().enumerate().filter_map(must_go).collect()
    }

    #[test]
    fn nobody_gives_way_who_keeps_pace() {
        let server = Server::start();
        let ctx = server.shared.ctx(0);
        let holds = fill(ctx, 24);
        let mut last = Hold::new(ctx);
        assert!(!last.take(ctx, 1), "three quarters are held");
        assert!(!last.stage(ctx, 1), "one quarter is held");
        assert_eq!(asked(&holds), []);
        drop(holds);
        assert_eq!(ctx.shared.bodies.held(), 0);
        assert!(last.stage(ctx, 1) && last.take(ctx, 1));
        last.unstage();
        assert_eq!((ctx.shared.bodies.held(), ctx.shared.staged()), (1, 0));
    }

    #[test]
    fn who_has_stopped_gives_way_and_the_oldest_first() {
        let server = Server::start();
        let mut holds = fill(server.shared.ctx(0), 8);
        server.pass(60);
        let ctx = server.shared.ctx(0);
        assert_eq!(asked(&holds), [], "no matter how long, while there is room");
        // A second's worth is no minute's, and a byte is none.
        holds[1].came(ctx, PACE as usize);
        holds[2].came(ctx, 1);
        holds[3].came(ctx, 60 * PACE as usize);
        let mut new = Hold::new(ctx);
        assert!(new.take(ctx, quarter(ctx) / 8));
        assert_eq!(asked(&holds), [0, 2]);
        assert!(new.stage(ctx, 1), "what they hold is as good as given back");
        holds.remove(2);
        holds.remove(0);
        let rest = quarter(ctx) / 8;
        assert!(new.take(ctx, rest) && new.take(ctx, 4 * rest));
        assert_eq!(asked(&holds), [0, 2, 3, 4, 5], "but not who keeps pace");
    }

    #[test]
    fn nothing_is_saved_up() {
        let server = Server::start();
        let mut holds = fill(server.shared.ctx(0), 8);
        for hold in &mut holds {
            hold.came(server.shared.ctx(0), 1000 * PACE as usize);
        }
        server.pass(1);
        let ctx = server.shared.ctx(0);
        let mut new = Hold::new(ctx);
        assert!(new.take(ctx, 1));
        assert_eq!(asked(&holds), [0]);
    }

    #[test]
    fn a_drip_adds_up_to_its_bytes() {
        let server = Server::start();
        let ctx = server.shared.ctx(0);
        let mut hold = Hold::new(ctx);
        server.pass(10);
        for _ in 0..PACE {
            hold.came(ctx, 1);
        }
        assert_eq!(
            ctx.shared.clock.now_ms() - hold.account.paid_ms.load(Relaxed),
            9000
        );
    }

    #[test]
    fn who_is_alone_may_use_all() {
        let server = Server::start();
        let ctx = server.shared.ctx(0);
        let mut hold = Hold::new(ctx);
        assert!(hold.take(ctx, 5 * quarter(ctx)));
        assert!(hold.stage(ctx, 1));
    }

    #[test]
    fn its_own_worker_is_woken() {
        let server = Server::start();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        server.shared.when_blocks_give_way(0, move || {
            count.fetch_add(1, Relaxed);
        });
        let mut holds = fill(server.shared.ctx(0), 8);
        server.pass(1);
        assert!(holds[7].take(server.shared.ctx(0), 1));
        assert_eq!((asked(&holds), woken.load(Relaxed)), (vec![0], 1));
    }
}
