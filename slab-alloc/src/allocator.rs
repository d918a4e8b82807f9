//! The allocator itself: chunks of a class given and taken back. Its invariants (S1 to S4) stand at the head of the crate.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::arena::Arena;
use crate::class::{ClassId, ClassTable, Sizes};
use crate::handle::ChunkHandle;
use crate::layout::{HEADER_BYTES, HEADER_ZEROED, PAGE_BYTES_MAX};
use crate::page::{PageId, PageList, Pages};
use crate::pool::{Pool, Taken};
use crate::reserved::Atomics;

/// What an allocator is built from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The size of a page: a power of two from 4096 to [`PAGE_BYTES_MAX`], no smaller than the largest chunk. Small pages
    /// waste less in classes that hold little; large ones cost less where there is much memory.
    pub page_bytes: usize,
    /// How much memory the pages of all classes may take; rounded down to pages, but at least one.
    pub limit_bytes: usize,
    /// The chunk sizes.
    pub sizes: Sizes,
}

/// What a class has, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClassStats {
    /// The size of its chunks, in bytes.
    pub chunk_bytes: usize,
    /// How many of them a page holds.
    pub chunks_per_page: usize,
    /// Its pages, with those that are draining.
    pub total_pages: usize,
    /// How many of its pages are draining. Their unused chunks count neither as free nor as fresh.
    pub draining_pages: usize,
    /// Chunks in someone's hands.
    pub used_chunks: usize,
    /// Chunks that were freed and wait in a free list.
    pub free_chunks: usize,
    /// Chunks that were never handed out since their page got its class.
    pub fresh_chunks: usize,
}

/// The allocator. Shared by reference between threads.
pub struct SlabAllocator {
    pub(crate) arena: Arena,
    pub(crate) pages: Pages,
    pub(crate) pool: Pool,
    pub(crate) table: ClassTable,
    /// By class; index 0 is unused.
    pub(crate) classes: Box<[Class]>,
    /// How often a page went to a class.
    attached: AtomicUsize,
    /// Pages are filled as soon as they are taken ([`Self::fill_pages`]).
    pub(crate) fills_pages: AtomicBool,
}

/// The changing part of a class, apart from its neighbours so that their locks share no cache line.
#[repr(align(128))]
pub(crate) struct Class {
    pub(crate) chunks_per_page: u32,
    pub(crate) state: Mutex<ClassState>,
}

/// What the lock of a class guards, beside the state of the class's pages.
#[derive(Default)]
pub(crate) struct ClassState {
    pub(crate) partial: PageList,
    pub(crate) pages: usize,
    pub(crate) draining_pages: usize,
    pub(crate) used: usize,
    pub(crate) free: usize,
    pub(crate) fresh: usize,
}

impl Class {
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, ClassState> {
        self.state.lock()
    }
}

/// Where a class that has no chunk left may get a page from.
#[derive(Clone, Copy)]
enum NextPage {
    None,
    WithinLimit,
    /// Within the limit, if it is not the class's first.
    ButFirst,
    /// Beyond the limit, if the class has fewer pages than that.
    Beyond {
        pages_min: usize,
    },
}

impl SlabAllocator {
    /// Reserves the arena. Fails on sizes that make no sense (`InvalidInput`), and when the system
    /// has no room for the limit.
    pub fn new(config: &Config) -> io::Result<Self> {
        Self::with_reservation(config, usize::MAX)
    }

    /// As `new`, with a bound on the pages to reserve beyond the limit.
    pub(crate) fn with_reservation(config: &Config, reserve_pages_max: usize) -> io::Result<Self> {
        let page_bytes = config.page_bytes;
        if !page_bytes.is_power_of_two() || !(4096..=PAGE_BYTES_MAX).contains(&page_bytes) {
            let reason = "a page must have a power of two of bytes, 4096 to 1048576";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let limit = (config.limit_bytes / page_bytes).max(1);
        let arena = Arena::reserve(page_bytes, limit, reserve_pages_max)?;
        let pages = Pages::new(arena.pages_max() + 1)?;
        let pool = Pool::new(limit.min(arena.pages_max()));
        Self::of(arena, pages, pool, &config.sizes)
    }

    /// No class has a page yet.
    pub(crate) fn of(arena: Arena, pages: Pages, pool: Pool, sizes: &Sizes) -> io::Result<Self> {
        let page_bytes = arena.page_bytes();
        let table = ClassTable::new(sizes, arena.granule(), page_bytes)?;
        let unused = std::iter::once(0);
        let chunks_per_page = table
            .classes()
            .map(|class| page_bytes / table.chunk_bytes(class));
        let classes = unused
            .chain(chunks_per_page)
            .map(|chunks| Class {
                chunks_per_page: chunks as u32,
                state: Mutex::default(),
            })
            .collect();
        Ok(Self {
            arena,
            pages,
            pool,
            table,
            classes,
            attached: AtomicUsize::new(0),
            fills_pages: AtomicBool::new(false),
        })
    }

    /// Asks for huge pages behind the arena. An error means that the system has none to offer; the
    /// arena works on without.
    pub fn advise_huge(&self) -> io::Result<()> {
        self.arena.advise_huge()
    }

    /// Keeps the arena in memory as it gets touched. Where the process may not lock all that is
    /// reserved, what lies within the present limit is locked; an error means that it cannot be.
    pub fn lock_memory(&self) -> io::Result<()> {
        self.arena.lock(self.pool.limit())
    }

    #[inline]
    pub(crate) fn class(&self, class: ClassId) -> &Class {
        &self.classes[class.index()]
    }

    // --- chunks ---

    /// A chunk of the class. A fresh one has a header of zeros, another what `free` found in it but
    /// for the first 4 bytes. `None`: the class has none left and the limit allows no further page.
    #[inline]
    pub fn alloc(&self, class: ClassId) -> Option<ChunkHandle> {
        self.alloc_from(class, NextPage::WithinLimit)
    }

    /// As [`Self::alloc`], unless it takes the first page of the class.
    pub fn alloc_but_first(&self, class: ClassId) -> Option<ChunkHandle> {
        self.alloc_from(class, NextPage::ButFirst)
    }

    /// As [`Self::alloc`], but only from the pages that the class has.
    pub fn alloc_without_page(&self, class: ClassId) -> Option<ChunkHandle> {
        self.alloc_from(class, NextPage::None)
    }

    /// As [`Self::alloc`], but a class of fewer than `pages_min` pages gets one even beyond the limit.
    /// Such a page does not count in [`Self::over_limit`].
    pub fn alloc_beyond_limit(&self, class: ClassId, pages_min: usize) -> Option<ChunkHandle> {
        self.alloc_from(class, NextPage::Beyond { pages_min })
    }

    #[inline]
    fn alloc_from(&self, class: ClassId, next: NextPage) -> Option<ChunkHandle> {
        let slab = self.class(class);
        let mut state = slab.lock();
        let page = match state.partial.head() {
            Some(page) => page,
            None => match next {
                NextPage::None => return None,
                NextPage::ButFirst if state.pages == 0 => return None,
                NextPage::Beyond { pages_min } if state.pages < pages_min => {
                    self.add_page_beyond(class, &mut state)?
                }
                NextPage::WithinLimit | NextPage::ButFirst | NextPage::Beyond { .. } => {
                    self.add_page(class, &mut state)?
                }
            },
        };
        let meta = &self.pages[page.index()];
        let chunk = match meta.free_head() {
            Some(chunk) => {
                let next = ChunkHandle::from_raw(self.link(chunk).load(Ordering::Relaxed));
                if let Some(next) = next {
                    self.arena.prefetch(next, HEADER_BYTES);
                }
                meta.set_free_head(next);
                state.free -= 1;
                chunk
            }
            None => {
                let index = meta.fresh.get();
                let offset = index as usize * self.chunk_bytes(class);
                let chunk = self.arena.chunk_at(page, offset);
                self.zero_header(chunk);
                meta.fresh.set(index + 1);
                state.fresh -= 1;
                chunk
            }
        };
        let used = meta.used.get() + 1;
        meta.used.set(used);
        state.used += 1;
        if used == slab.chunks_per_page {
            state.partial.remove(&self.pages, page);
        }
        Some(chunk)
    }

    /// Takes a chunk back. Its first 4 bytes are overwritten, the rest of it is left alone.
    ///
    /// # Safety
    /// The chunk came from [`Self::alloc`] and has not been freed since; nobody else uses it as
    /// theirs, and no slice of it is alive.
    #[inline]
    pub unsafe fn free(&self, chunk: ChunkHandle) {
        let page = self.page_of(chunk);
        let meta = &self.pages[page.index()];
        let class = self.class_of(chunk);
        let slab = self.class(class);
        let mut state = slab.lock();
        let used = meta.used.get();
        debug_assert!(
            self.arena
                .offset_in_page(chunk)
                .is_multiple_of(self.chunk_bytes(class))
        );
        debug_assert!(used > 0, "freed once more than handed out");

        self.link(chunk).store(
            meta.free_head().map_or(0, ChunkHandle::to_raw),
            Ordering::Relaxed,
        );
        meta.set_free_head(Some(chunk));
        meta.used.set(used - 1);
        state.used -= 1;
        if meta.draining() {
            return;
        }
        state.free += 1;
        if used == slab.chunks_per_page {
            state.partial.push(&self.pages, page);
        }
        if used == 1 {
            let kept = self.remove_page(page, class, &mut state);
            drop(state);
            if !kept {
                self.release(page);
            }
        }
    }

    #[inline]
    pub(crate) fn link(&self, chunk: ChunkHandle) -> &AtomicU32 {
        self.arena.header(chunk, 0)
    }

    fn zero_header(&self, chunk: ChunkHandle) {
        for offset in (0..HEADER_ZEROED).step_by(8) {
            self.arena
                .header::<AtomicU64>(chunk, offset)
                .store(0, Ordering::Relaxed);
        }
    }

    /// The class of a chunk in someone's hands, without a lock. Panics when the chunk's page has no
    /// class, which can only be if nobody holds the chunk.
    #[inline]
    pub fn class_of(&self, chunk: ChunkHandle) -> ClassId {
        self.page_class(self.page_of(chunk))
            .expect("a page with chunks in use has a class (S1)")
    }

    /// The page of a chunk.
    #[inline]
    pub fn page_of(&self, chunk: ChunkHandle) -> PageId {
        self.arena.page_of(chunk)
    }

    /// The page that any handle would lie in, if there is such a page.
    pub fn page_around(&self, handle: ChunkHandle) -> Option<PageId> {
        self.arena.page_around(handle)
    }

    /// How far into its page a chunk begins, in bytes.
    pub fn offset_in_page(&self, chunk: ChunkHandle) -> usize {
        self.arena.offset_in_page(chunk)
    }

    /// The address of a chunk. Panics outside of the arena.
    #[inline]
    pub fn ptr(&self, chunk: ChunkHandle) -> NonNull<u8> {
        self.arena.ptr(chunk)
    }

    /// A part of a chunk, to read.
    ///
    /// # Safety
    /// The part lies within the chunk, which is not freed while the slice lives; nobody writes to
    /// the part meanwhile, be it through a header word.
    #[inline]
    pub unsafe fn bytes(&self, chunk: ChunkHandle, offset: usize, len: usize) -> &[u8] {
        debug_assert!(offset + len <= self.chunk_bytes(self.class_of(chunk)));
        // SAFETY: inside the chunk, hence inside its page (S3) and the mapping (A1); the caller
        // keeps writers away. Every byte of the mapping is initialized.
        unsafe { std::slice::from_raw_parts(self.ptr(chunk).add(offset).as_ptr(), len) }
    }

    /// A part of a chunk, to write.
    ///
    /// # Safety
    /// The part lies within the chunk, which is not freed while the slice lives; nobody else reads
    /// or writes the part meanwhile, be it through a header word.
    #[inline]
    #[expect(
        clippy::mut_from_ref,
        reason = "the caller answers for it; a chunk is not `self`"
    )]
    pub unsafe fn bytes_mut(&self, chunk: ChunkHandle, offset: usize, len: usize) -> &mut [u8] {
        debug_assert!(offset + len <= self.chunk_bytes(self.class_of(chunk)));
        // SAFETY: inside the chunk, hence inside its page (S3) and the mapping (A1); the caller
        // keeps everyone else away. Every byte of the mapping is initialized.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(chunk).add(offset).as_ptr(), len) }
    }

    /// A part of a chunk's header, made of atomics: safe with any handle inside the arena, but
    /// telling only of a chunk that somebody holds. Panics unless it is aligned and lies within the
    /// first [`HEADER_BYTES`].
    #[inline]
    pub fn header<T: Atomics>(&self, chunk: ChunkHandle, offset: usize) -> &T {
        self.arena.header(chunk, offset)
    }

    /// Asks the processor to fetch a chunk, or the first `bytes_max` bytes of a larger one. Any handle will do.
    #[inline]
    pub fn prefetch(&self, chunk: ChunkHandle, bytes_max: usize) {
        let page = self.arena.page_around(chunk);
        // Without a class it is nobody's chunk by now.
        if let Some(class) = page.and_then(|page| self.page_class(page)) {
            let bytes = self.chunk_bytes(class).min(bytes_max);
            self.arena.prefetch(chunk, bytes);
        }
    }

    /// Asks the processor to fetch a chunk's header. Any handle will do.
    #[inline]
    pub fn prefetch_header(&self, chunk: ChunkHandle) {
        self.arena.prefetch(chunk, HEADER_BYTES);
    }

    /// Asks the processor to fetch the chunk that a header word of `chunk`, at `offset`, names. Any handle inside the arena
    /// will do.
    #[inline]
    pub fn prefetch_linked(&self, chunk: ChunkHandle, offset: usize) {
        self.arena.prefetch_linked(chunk, offset);
    }

    // --- pages ---

    /// Runs `look` while the page is held to its class, if that is `class`: until `look` returns, none of its chunks becomes
    /// another class's, where others would write anything over what are header words now. The header words of
    /// [`Self::page_chunks`] can be read then, whoever has them in hands. `look` must neither alloc nor free.
    #[inline]
    pub fn hold_page<R>(
        &self,
        page: PageId,
        class: ClassId,
        look: impl FnOnce() -> R,
    ) -> Option<R> {
        let _held = self.class(class).lock();
        (self.page_class(page) == Some(class)).then(look)
    }

    /// A page from the pool for a class that has no chunk left.
    fn add_page(&self, class: ClassId, state: &mut ClassState) -> Option<PageId> {
        // In a full cache this is asked for every store: look before taking the pool's lock.
        if self.pool.available() == 0 {
            return None;
        }
        let taken = self.pool.take(&self.pages)?;
        self.attach_taken(taken, class, state)
    }

    fn add_page_beyond(&self, class: ClassId, state: &mut ClassState) -> Option<PageId> {
        let taken = self.pool.take_beyond(&self.pages)?;
        self.attach_taken(taken, class, state)
    }

    /// `None`: there is no memory for the page.
    fn attach_taken(&self, taken: Taken, class: ClassId, state: &mut ClassState) -> Option<PageId> {
        let Taken { page, is_bare } = taken;
        if is_bare && self.arena.wants_backing() && self.arena.back_page(page).is_err() {
            self.pool.refuse(&self.pages, page);
            return None;
        }
        if self.fills_pages.load(Ordering::Relaxed) {
            self.arena.populate_page(page);
        }
        self.attach(page, class, state);
        Some(page)
    }

    /// Says whether pages are about to be filled as they are taken, so that the memory of each is had at once.
    pub fn fill_pages(&self, are_filled: bool) {
        self.fills_pages.store(are_filled, Ordering::Relaxed);
    }

    /// Lets memory be asked for again that a file system did not have.
    pub fn ask_for_memory_again(&self) {
        self.pool.ask_again();
    }

    /// Takes a page without used chunks off its class and gives it to the pool. `false`: it is to
    /// be released, once the lock of the class is dropped.
    #[must_use]
    fn remove_page(&self, page: PageId, class: ClassId, state: &mut ClassState) -> bool {
        let meta = &self.pages[page.index()];
        state.partial.remove(&self.pages, page);
        state.free -= meta.fresh.get() as usize;
        state.fresh -= (self.class(class).chunks_per_page - meta.fresh.get()) as usize;
        self.detach(page, class, state);
        self.pool.give(&self.pages, page)
    }

    /// Makes an empty page one of the class's, all of its chunks fresh.
    pub(crate) fn attach(&self, page: PageId, class: ClassId, state: &mut ClassState) {
        let meta = &self.pages[page.index()];
        meta.set_class(Some(class));
        self.attached.fetch_add(1, Ordering::Relaxed);
        state.pages += 1;
        state.fresh += self.class(class).chunks_per_page as usize;
        state.partial.push(&self.pages, page);
    }

    /// Takes an empty page, that is on no list and in no count of chunks, off its class.
    pub(crate) fn detach(&self, page: PageId, class: ClassId, state: &mut ClassState) {
        let meta = &self.pages[page.index()];
        let written = meta.fresh.get() * self.chunk_bytes(class) as u32;
        meta.touched.set(meta.touched.get().max(written));
        meta.set_class(None);
        meta.set_free_head(None);
        meta.fresh.set(0);
        state.pages -= 1;
    }

    /// Gives back the memory of a page that the pool did not keep. Call it without a lock.
    pub(crate) fn release(&self, page: PageId) {
        // SAFETY: the page has no class, so none of its chunks is in anyone's hands (S1), and as it
        // is on no list (L1) nobody can make it a class's before it is in the released list.
        unsafe { self.arena.release_page(page) };
        self.pool.released(&self.pages, page);
    }

    /// Changes the limit, rounded down to pages but at least one, at most what is reserved; returns
    /// what it is now, in bytes. Idle pages above a lower limit are released here; pages in use
    /// stay until they are drained or emptied: see [`Self::over_limit`].
    pub fn set_limit(&self, bytes: usize) -> usize {
        let pages = (bytes / self.page_bytes()).clamp(1, self.arena.pages_max());
        self.pool.set_limit(pages);
        while let Some(page) = self.pool.take_surplus(&self.pages) {
            self.release(page);
        }
        pages * self.page_bytes()
    }

    /// How many pages of classes are too many under the present limit, but for those that were
    /// taken beyond it.
    pub fn over_limit(&self) -> usize {
        let allowed = self.pool.limit() + self.pool.beyond();
        self.pool.assigned().saturating_sub(allowed)
    }

    /// How many pages of classes were taken beyond the limit, and still lie there.
    pub fn beyond_limit(&self) -> usize {
        self.pool.beyond()
    }

    // --- what there is ---

    /// The smallest open class whose chunks hold `bytes`; `None` above the largest chunk.
    #[inline]
    pub fn class_for(&self, bytes: usize) -> Option<ClassId> {
        self.table.class_for(bytes)
    }

    /// The smallest class whose chunks hold `bytes`, open or not; `None` above the largest chunk.
    pub fn exact_class_for(&self, bytes: usize) -> Option<ClassId> {
        self.table.exact_class_for(bytes)
    }

    /// True if [`Self::class_for`] names this class.
    pub fn is_open(&self, class: ClassId) -> bool {
        self.table.is_open(class)
    }

    /// Opens or closes a class for [`Self::class_for`]; what it holds stays, and the largest stays open.
    pub fn set_open(&self, class: ClassId, is_open: bool) {
        self.table.set_open(class, is_open);
    }

    /// The size of the chunks of a class, in bytes. Panics when there is no such class.
    #[inline]
    pub fn chunk_bytes(&self, class: ClassId) -> usize {
        self.table.chunk_bytes(class)
    }

    /// All classes, smallest chunks first.
    pub fn classes(&self) -> impl DoubleEndedIterator<Item = ClassId> + use<> {
        self.table.classes()
    }

    /// The class of the largest chunks.
    pub fn largest(&self) -> ClassId {
        self.table.largest()
    }

    /// That class's twin of this number, from 1, or the last there is below; 0 is the class itself.
    pub fn twin(&self, number: u32) -> ClassId {
        self.table.twin(number)
    }

    /// True if the class has a page.
    pub fn has_pages(&self, class: ClassId) -> bool {
        self.class(class).lock().pages > 0
    }

    /// True if some classes are closed, so that chunks need not fit closely.
    pub fn has_closed(&self) -> bool {
        let mut classes = self.classes();
        classes.any(|class| class < self.largest() && !self.is_open(class))
    }

    /// What a class has. Panics when there is no such class.
    pub fn class_stats(&self, class: ClassId) -> ClassStats {
        let slab = self.class(class);
        let state = slab.lock();
        ClassStats {
            chunk_bytes: self.chunk_bytes(class),
            chunks_per_page: slab.chunks_per_page as usize,
            total_pages: state.pages,
            draining_pages: state.draining_pages,
            used_chunks: state.used,
            free_chunks: state.free,
            fresh_chunks: state.fresh,
        }
    }

    /// The limit, in bytes.
    pub fn limit_bytes(&self) -> usize {
        self.pool.limit() * self.page_bytes()
    }

    /// Resident pages of no class.
    pub fn pool_pages(&self) -> usize {
        self.pool.idle()
    }

    /// Pages of classes and resident pages of no class.
    pub fn pages_total(&self) -> usize {
        self.pool.assigned() + self.pool.idle()
    }

    /// How often a page went to a class, of the pool or of another: what grows when the shares of the classes change.
    #[inline]
    pub fn pages_attached(&self) -> usize {
        self.attached.load(Ordering::Relaxed)
    }

    /// How many pages classes could still get: idle ones, and those that the limit still allows.
    pub fn available_pages(&self) -> usize {
        self.pool.available()
    }

    /// The size of a page, in bytes.
    pub fn page_bytes(&self) -> usize {
        self.arena.page_bytes()
    }

    /// The unit of handles, in bytes: chunk sizes are multiples of it.
    pub fn granule_bytes(&self) -> usize {
        self.arena.granule()
    }

    /// An upper bound of the arena's resident memory: for each page, up to the last chunk handed
    /// out since the page was last released. Looks at every page: for statistics, not for requests.
    /// Huge pages are not in it: they come in pieces of 2 MB.
    pub fn arena_bytes_touched(&self) -> usize {
        let touched = |page: PageId| {
            let meta = &self.pages[page.index()];
            let chunk_bytes = meta.class().map_or(0, |class| self.chunk_bytes(class));
            (meta.fresh.get() as usize * chunk_bytes).max(meta.touched.get() as usize)
        };
        self.pool
            .ever_used()
            .map(|page| touched(page).min(self.page_bytes()))
            .sum()
    }
}
