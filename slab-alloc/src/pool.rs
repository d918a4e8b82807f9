//! The page pool: every page that belongs to no class, and the limit on those that may.
//!
//! ```text
//!           take, take_beyond               give, over the limit
//!   never used ---------> assigned to a class --------> released (no memory behind it)
//!                          ^        | give                |
//!                          |        v                     |
//!                          '----- idle (resident)         |
//!                          '------------- take -----------'
//! ```
//!
//! L1. A page is in one of these places, or for a moment in the hands of the one who releases it.
//! L2. assigned + idle <= limit; where the limit was lowered under `assigned`, or pages were taken
//!     beyond it, idle = 0.
//! L3. beyond <= assigned - limit: so many of the pages that are too many were taken beyond the
//!     limit knowingly. They stay with their classes until those give them back.
//!
//! In a file a page may find no memory (`refuse`): from then on classes have the pages they have, until `ask_again`.
//!
//! Idle pages stay resident: a class that gives its only page back and takes it again, once for
//! every item set and deleted, pays two short locks and no system call.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::page::{PageId, PageList, Pages};

/// The pages of no class. The counters are written under the lock and read without it.
pub(crate) struct Pool {
    lists: Mutex<Lists>,
    limit: AtomicUsize,
    assigned: AtomicUsize,
    beyond: AtomicUsize,
    idle: AtomicUsize,
    /// The highest page number ever used.
    high: AtomicUsize,
    /// Pages that classes may have, at most, since there was no memory for more; the limit when all is well.
    granted: AtomicUsize,
}

/// A page for a class.
pub(crate) struct Taken {
    pub(crate) page: PageId,
    /// It has no memory: it is new, or was released.
    pub(crate) is_bare: bool,
}

#[derive(Default)]
struct Lists {
    idle: PageList,
    released: PageList,
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            lists: Mutex::default(),
            limit: AtomicUsize::new(limit),
            assigned: AtomicUsize::new(0),
            beyond: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            high: AtomicUsize::new(0),
            granted: AtomicUsize::new(usize::MAX),
        }
    }

    /// A pool that goes on with pages 1 to `high`, each of which is [`Self::put_back`] or [`Self::keep_assigned`] then.
    pub(crate) fn resumed(limit: usize, high: usize) -> Self {
        let pool = Self::new(limit);
        pool.high.store(high, Relaxed);
        pool
    }

    /// Counts a page that a class has.
    pub(crate) fn keep_assigned(&self) {
        let _lists = self.lock();
        self.assigned.store(self.assigned() + 1, Relaxed);
    }

    /// Takes in a page of no class. `false`: it is to be released, as [`Self::give`] says.
    #[must_use]
    pub(crate) fn put_back(&self, pages: &Pages, page: PageId) -> bool {
        let mut lists = self.lock();
        let has_memory = pages[page.index()].touched.get() > 0;
        if !has_memory {
            lists.released.push(pages, page);
            return true;
        }
        let keep = self.assigned() + self.idle() < self.limit();
        if keep {
            lists.idle.push(pages, page);
            self.idle.store(self.idle() + 1, Relaxed);
        }
        keep
    }

    /// Notes that a page that was taken has no memory, and that there is none for a further one.
    pub(crate) fn refuse(&self, pages: &Pages, page: PageId) {
        let mut lists = self.lock();
        self.assigned.store(self.assigned() - 1, Relaxed);
        self.recount_beyond();
        self.granted.store(self.assigned(), Relaxed);
        pages[page.index()].touched.set(0);
        lists.released.push(pages, page);
    }

    /// Lets memory be asked for again.
    pub(crate) fn ask_again(&self) {
        self.granted.store(usize::MAX, Relaxed);
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, Lists> {
        self.lists.lock()
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    pub(crate) fn assigned(&self) -> usize {
        self.assigned.load(Relaxed)
    }

    pub(crate) fn beyond(&self) -> usize {
        self.beyond.load(Relaxed)
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Relaxed)
    }

    /// How many pages `take` would still give.
    #[inline]
    pub(crate) fn available(&self) -> usize {
        let most = self.limit().min(self.granted.load(Relaxed));
        most.saturating_sub(self.assigned())
    }

    /// All pages that were ever used, whatever became of them.
    pub(crate) fn ever_used(&self) -> impl Iterator<Item = PageId> + use<> {
        (1..=self.high.load(Relaxed) as u32).filter_map(PageId::from_raw)
    }

    /// A page for a class, while the limit allows: an idle one, else one without memory.
    pub(crate) fn take(&self, pages: &Pages) -> Option<Taken> {
        let mut lists = self.lock();
        if self.available() == 0 {
            return None;
        }
        self.take_from(&mut lists, pages)
    }

    /// The same though the limit does not allow it.
    pub(crate) fn take_beyond(&self, pages: &Pages) -> Option<Taken> {
        let mut lists = self.lock();
        let is_beyond = self.available() == 0;
        let taken = self.take_from(&mut lists, pages)?;
        self.beyond
            .store(self.beyond() + usize::from(is_beyond), Relaxed);
        Some(taken)
    }

    fn take_from(&self, lists: &mut Lists, pages: &Pages) -> Option<Taken> {
        let mut is_bare = true;
        let page = if let Some(page) = lists.idle.pop(pages) {
            self.idle.store(self.idle() - 1, Relaxed);
            is_bare = false;
            page
        } else if let Some(page) = lists.released.pop(pages) {
            page
        } else {
            let number = self.high.load(Relaxed) + 1;
            if number >= pages.capacity() {
                // The last ones are on their way to the released list.
                return None;
            }
            self.high.store(number, Relaxed);
            // Page 0 is never used: in a file its state tells this number to whoever goes on.
            pages[0].fresh.set(number as u32);
            // Zeros, unless somebody has written into a file while nobody had it.
            pages[number].set_class(None);
            pages[number].reset_lists();
            pages[number].touched.set(0);
            PageId::from_raw(number as u32).expect("pages are numbered from 1")
        };
        self.assigned.store(self.assigned() + 1, Relaxed);
        Some(Taken { page, is_bare })
    }

    /// Takes a page back from its class. `false`: there are too many, so the caller must have its
    /// memory released and then call [`Self::released`].
    #[must_use]
    pub(crate) fn give(&self, pages: &Pages, page: PageId) -> bool {
        let mut lists = self.lock();
        let keep = self.assigned() + self.idle() <= self.limit();
        self.assigned.store(self.assigned() - 1, Relaxed);
        self.recount_beyond();
        if keep {
            lists.idle.push(pages, page);
            self.idle.store(self.idle() + 1, Relaxed);
        }
        keep
    }

    /// Keeps L3 where there are fewer pages, or more are allowed; the caller holds the lock.
    fn recount_beyond(&self) {
        let too_many = self.assigned().saturating_sub(self.limit());
        self.beyond.store(self.beyond().min(too_many), Relaxed);
    }

    /// Takes a page that has no memory behind it any more.
    pub(crate) fn released(&self, pages: &Pages, page: PageId) {
        let mut lists = self.lock();
        pages[page.index()].touched.set(0);
        lists.released.push(pages, page);
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        let _lists = self.lock();
        self.limit.store(limit, Relaxed);
        self.recount_beyond();
    }

    /// An idle page above the limit, for the caller to release.
    pub(crate) fn take_surplus(&self, pages: &Pages) -> Option<PageId> {
        let mut lists = self.lock();
        if self.assigned() + self.idle() <= self.limit() {
            return None;
        }
        let page = lists.idle.pop(pages)?;
        self.idle.store(self.idle() - 1, Relaxed);
        Some(page)
    }

    /// The lists must agree with the counters, which must obey L1 and L2.
    pub(crate) fn check_invariants(&self, pages: &Pages) {
        let lists = self.lock();
        let idle = lists.idle.iter(pages).count();
        let released = lists.released.iter(pages).count();
        assert_eq!(idle, self.idle(), "idle pages");
        assert_eq!(
            self.assigned() + idle + released,
            self.high.load(Relaxed),
            "L1"
        );
        assert!(idle == 0 || self.assigned() + idle <= self.limit(), "L2");
        let too_many = self.assigned().saturating_sub(self.limit());
        assert!(self.beyond() <= too_many, "L3");
        for page in lists.idle.iter(pages).chain(lists.released.iter(pages)) {
            assert_eq!(
                pages[page.index()].class(),
                None,
                "a page of the pool has no class"
            );
        }
    }
}
