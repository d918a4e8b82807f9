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
//! The spare is in many blocks: where memory is in pieces, and a large one cannot be had, some of them can.
//!
//! Y5. A place of the spare is a block of `LAYOUT` from the system's allocator, or null: whoever swaps it out gives it back, once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr};

/// All blocks are enough for some thousand small allocations by each worker, until it has looked after its connections; a few
/// are enough to go on.
const BLOCKS: usize = 64;
const BLOCKS_MIN: usize = 8;
const LAYOUT: Layout = Layout::new::<[u8; 128 << 10]>();

static SPARE: [AtomicPtr<u8>; BLOCKS] = [const { AtomicPtr::new(null_mut()) }; BLOCKS];
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
    // Another thread may have spent it in this moment: what is there then is for all.
    let was_short = SHORT.swap(true, Relaxed);
    let mut spent = false;
    for place in &SPARE {
        let block = place.swap(null_mut(), Acquire);
        if !block.is_null() {
            spent = true;
            // SAFETY: nobody else has it any more, and it was made with this layout (Y5).
            unsafe { System.dealloc(block, LAYOUT) };
        }
    }
    spent || was_short
}

/// The system has refused memory, and the spare is gone: what can be let go of must go.
#[inline]
pub fn is_short() -> bool {
    SHORT.load(Relaxed)
}

/// Puts memory aside, at the start and whenever it was spent, as far as there is any. True if it was short and is not any more.
pub fn refill() -> bool {
    let mut blocks = 0;
    for place in &SPARE {
        if place.load(Relaxed).is_null() {
            // SAFETY: the layout is not of size 0.
            let block = unsafe { System.alloc(LAYOUT) };
            if block.is_null() {
                break;
            }
            let before = place.swap(block, Release);
            if !before.is_null() {
                // SAFETY: another thread has filled it meanwhile; its block is nobody's now (Y5).
                unsafe { System.dealloc(before, LAYOUT) };
            }
        }
        blocks += 1;
    }
    blocks >= BLOCKS_MIN && SHORT.swap(false, Relaxed)
}
