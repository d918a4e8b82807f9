//! Memory kept back for the moment in which the system gives none (`ulimit -v`, a machine that does not overcommit).
//!
//! ```text
//!  alloc -> the system has none -> the spare goes back to it, and alloc asks again -> is_short()
//!             '-- workers close who holds most, the listener takes nobody --> refill() -> no longer short
//! ```
//!
//! A program in Rust ends when an allocation fails. So the first failure costs the spare, and there is time to let go of what clients
//! hold: who has not taken its replies or is in the midst of a request loses its connection, the others go on.
//!
//! Y5. The spare is a block of `LAYOUT` from the system's allocator, or null: whoever swaps it out gives it back, once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr};

/// Enough for some thousand small allocations by each worker, until it has looked after its connections.
const SPARE_BYTES: usize = 8 << 20;
const LAYOUT: Layout = Layout::new::<[u8; SPARE_BYTES]>();

static SPARE: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static SHORT: AtomicBool = AtomicBool::new(false);

/// The system's allocator, with a spare.
#[derive(Debug)]
pub struct Sparing;

// SAFETY: each block is the system's, made and given back with the layout that was asked for.
unsafe impl GlobalAlloc for Sparing {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about `layout` are what the system's allocator asks for.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() && spend() {
            // SAFETY: as above.
            return unsafe { System.alloc(layout) };
        }
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let block = unsafe { System.alloc_zeroed(layout) };
        if block.is_null() && spend() {
            // SAFETY: as in `alloc`.
            return unsafe { System.alloc_zeroed(layout) };
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // SAFETY: the caller's promises about `block`, `layout` and `len` are what the system's allocator asks for.
        let moved = unsafe { System.realloc(block, layout, len) };
        if moved.is_null() && spend() {
            // SAFETY: as above; an attempt that failed has left the block as it was.
            return unsafe { System.realloc(block, layout, len) };
        }
        moved
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's block was made by the system's allocator with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Gives the spare back to the system; false if there is none.
#[cold]
fn spend() -> bool {
    let spare = SPARE.swap(null_mut(), Acquire);
    if spare.is_null() {
        // Another thread may have spent it in this moment.
        return SHORT.load(Relaxed);
    }
    SHORT.store(true, Relaxed);
    // SAFETY: nobody else has it any more, and it was made with this layout (Y5).
    unsafe { System.dealloc(spare, LAYOUT) };
    true
}

/// The system has refused memory, and the spare is gone: what can be let go of must go.
#[inline]
pub fn is_short() -> bool {
    SHORT.load(Relaxed)
}

/// Puts memory aside, at the start and whenever it was spent. True if there was none and there is some now.
pub fn refill() -> bool {
    if !SPARE.load(Relaxed).is_null() {
        return false;
    }
    // SAFETY: the layout is not of size 0.
    let block = unsafe { System.alloc(LAYOUT) };
    if block.is_null() {
        return false;
    }
    let before = SPARE.swap(block, Release);
    if !before.is_null() {
        // SAFETY: another thread has filled it meanwhile; its block is nobody's now (Y5).
        unsafe { System.dealloc(before, LAYOUT) };
    }
    SHORT.swap(false, Relaxed)
}
