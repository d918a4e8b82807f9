//! A block's or reader's share of its budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::budget::{Account, Budget, PACE, QUARTER_MIN};
use super::shared::Ctx;

/// A share of a budget, given back when it is dropped.
#[derive(Debug)]
pub struct Hold<'c> {
    budget: &'c Budget,
    account: Arc<Account>,
    id: u64,
    staged: usize,
    /// Bytes that have come and are less than a millisecond's worth.
    change: u64,
}

impl<'c> Hold<'c> {
    /// Nothing yet, of a block that begins to come.
    pub fn new(ctx: Ctx<'c>) -> Self {
        Hold::on(&ctx.shared.bodies, ctx)
    }

    /// Nothing yet, of one who does not read as fast as is answered.
    pub fn of_reader(ctx: Ctx<'c>) -> Self {
        Hold::on(&ctx.shared.unread, ctx)
    }

    fn on(budget: &'c Budget, ctx: Ctx<'c>) -> Self {
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
    pub fn must_go(&self) -> bool {
        self.account.must_go.load(Relaxed)
    }

    /// Notes that so many bytes of items wait for the reader to take them; those that are fewer than before it has taken.
    pub fn waits_for(&mut self, ctx: Ctx<'_>, bytes: usize) {
        let before = self.bytes();
        if before == 0 {
            self.account
                .paid_ms
                .store(ctx.shared.clock.now_ms(), Relaxed);
        }
        if let Some(taken) = before.checked_sub(bytes) {
            self.came(ctx, taken);
            self.account.bytes.fetch_sub(taken, Relaxed);
            self.budget.held.fetch_sub(taken, Relaxed);
        } else {
            self.add(bytes - before);
        }
    }

    /// The same of bytes outside of item memory; false if there is no room for them.
    pub fn keeps_for(&mut self, ctx: Ctx<'_>, bytes: usize) -> bool {
        let before = self.bytes();
        if before == 0 || bytes <= before {
            // It begins now, or has taken some.
            self.waits_for(ctx, bytes.min(before));
        }
        bytes <= before || self.grow(ctx, bytes - before, 3)
    }

    /// Notes that `bytes` of the block have come.
    pub fn came(&mut self, ctx: Ctx<'_>, bytes: usize) {
        let worth = self.change + bytes as u64 * 1000;
        self.change = worth % PACE;
        let paid_ms = self.account.paid_ms.load(Relaxed) + worth / PACE;
        let paid_ms = paid_ms.min(ctx.shared.clock.now_ms());
        self.account.paid_ms.store(paid_ms, Relaxed);
    }

    /// Room for a chunk of `bytes`, if no more than a sixteenth of the memory limit is held. For those of whom nothing has
    /// come yet.
    pub fn take_in_advance(&mut self, ctx: Ctx<'_>, bytes: usize) -> bool {
        let advance_max = (ctx.cache.limit_bytes() / 16).max(QUARTER_MIN);
        let is_granted = self.budget.held() + bytes <= advance_max;
        if is_granted {
            self.add(bytes);
        }
        is_granted
    }

    /// Room for a chunk of `bytes`; false if there is none.
    pub fn take(&mut self, ctx: Ctx<'_>, bytes: usize) -> bool {
        self.grow(ctx, bytes, 3)
    }

    /// Room for `bytes` outside of item memory; false if there is none.
    pub fn stage(&mut self, ctx: Ctx<'_>, bytes: usize) -> bool {
        let is_granted = self.grow(ctx, bytes, 1);
        if is_granted {
            self.staged += bytes;
            self.budget.staged.fetch_add(bytes, Relaxed);
        }
        is_granted
    }

    /// Takes what another process had granted to a block, chunks of it, whatever others hold.
    pub fn retake(&mut self, bytes: usize) {
        self.add(bytes);
    }

    /// The same outside of item memory.
    pub fn restage(&mut self, bytes: usize) {
        self.add(bytes);
        self.staged += bytes;
        self.budget.staged.fetch_add(bytes, Relaxed);
    }

    /// Bytes held, staged ones among them.
    pub fn bytes(&self) -> usize {
        self.account.bytes.load(Relaxed)
    }

    /// Gives back what was staged.
    pub fn unstage(&mut self) {
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
    use crate::cache::testing::small_cache;
    use crate::settings::Settings;
    use crate::state::Shared;

    /// A server with a small cache, whose clock stands still.
    fn server() -> Shared {
        let shared = Shared::new(Settings::default(), small_cache(16), |_| {});
        shared.clock.pause(true);
        shared
    }

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
        let server = server();
        let ctx = server.ctx(0);
        let holds = fill(ctx, 24);
        let mut last = Hold::new(ctx);
        assert!(!last.take(ctx, 1), "three quarters are held");
        assert!(!last.stage(ctx, 1), "one quarter is held");
        assert!(asked(&holds).is_empty());
        drop(holds);
        assert_eq!(ctx.shared.bodies.held(), 0);
        assert!(last.stage(ctx, 1) && last.take(ctx, 1));
        last.unstage();
        assert_eq!((ctx.shared.bodies.held(), ctx.shared.staged()), (1, 0));
    }

    #[test]
    fn who_has_stopped_gives_way_and_the_oldest_first() {
        let server = server();
        let mut holds = fill(server.ctx(0), 8);
        server.clock.shift(60);
        let ctx = server.ctx(0);
        assert!(
            asked(&holds).is_empty(),
            "no matter how long, while there is room"
        );
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
        let server = server();
        let mut holds = fill(server.ctx(0), 8);
        for hold in &mut holds {
            hold.came(server.ctx(0), 1000 * PACE as usize);
        }
        server.clock.shift(1);
        let ctx = server.ctx(0);
        let mut new = Hold::new(ctx);
        assert!(new.take(ctx, 1));
        assert_eq!(asked(&holds), [0]);
    }

    #[test]
    fn a_drip_adds_up_to_its_bytes() {
        let server = server();
        let ctx = server.ctx(0);
        let mut hold = Hold::new(ctx);
        server.clock.shift(10);
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
        let server = server();
        let ctx = server.ctx(0);
        let mut hold = Hold::new(ctx);
        assert!(hold.take(ctx, 5 * quarter(ctx)));
        assert!(hold.stage(ctx, 1));
    }

    #[test]
    fn its_own_worker_is_woken() {
        let server = server();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        server.when_to_give_way(0, move || {
            count.fetch_add(1, Relaxed);
        });
        let mut holds = fill(server.ctx(0), 8);
        server.clock.shift(1);
        assert!(holds[7].take(server.ctx(0), 1));
        assert_eq!((asked(&holds), woken.load(Relaxed)), (vec![0], 1));
    }
}
