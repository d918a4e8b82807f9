//! Memory from the kernel: address space reserved at once, backed where it is written. All that lies in a mapping lies
//! there by offsets, so that it does not matter where it comes from: from the kernel alone, or from a file ([`Image`]).
//!
//! A1. The mapping is readable and writable from `start` to `start + len` until it is dropped, and
//!     is never moved.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::image::Image;

/// What the kernel keeps in one piece where it can (on x86-64, and on ARM with pages of 4 KB).
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A multiple of the system's page size, wherever this may run.
pub(crate) const SYSTEM_PAGE_BYTES: usize = 64 << 10;

/// Memory of a fixed length and address, given back on drop.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    source: Source,
}

/// Where the memory of a mapping comes from.
enum Source {
    /// The kernel alone: zeros until written.
    Anonymous,
    /// This file, from this offset on: what was written there before, else zeros.
    File(Image, usize),
}

// SAFETY: a mapping belongs to the process, not to a thread (A1); the type itself reads and writes
// nothing of it, except in `release`, which is unsafe.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes, rounded up to system pages but at least one, without asking for memory yet. The byte at `aligned`
    /// begins a huge page, so that no huge page is shared with what lies before it.
    pub(crate) fn reserve(len: usize, aligned: usize) -> io::Result<Self> {
        let len = len.max(1).next_multiple_of(SYSTEM_PAGE_BYTES);
        let reserved = len
            .checked_add(HUGE_PAGE_BYTES)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: an anonymous mapping, at an address of the kernel's choice, touches nothing that
        // exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserved,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = start.cast::<u8>();
        let lead =
            (start.addr() + aligned).next_multiple_of(HUGE_PAGE_BYTES) - (start.addr() + aligned);
        for surplus in [0..lead, lead + len..reserved] {
            if !surplus.is_empty() {
                let from = start.wrapping_add(surplus.start).cast();
                // SAFETY: a part of what was just mapped, outside of what is kept. Should it fail,
                // address space is lost and nothing else.
                unsafe { libc::munmap(from, surplus.len()) };
            }
        }
        let start = NonNull::new(start.wrapping_add(lead))
            .expect("the kernel does not map address 0 unasked");
        let source = Source::Anonymous;
        Ok(Self { start, len, source })
    }

    /// Whether the system would reserve twice as much: `ulimit -v` may leave little, and others want theirs too.
    pub(crate) fn has_room_for_two(len: usize) -> bool {
        len.checked_mul(2)
            .is_some_and(|twice| Mapping::reserve(twice, 0).is_ok())
    }

    /// The part of a file that lies at `start`, `offset` bytes into it.
    pub(crate) fn of_file(image: Image, offset: usize, start: NonNull<u8>, len: usize) -> Self {
        let source = Source::File(image, offset);
        Self { start, len, source }
    }

    /// Whether there is anything to be done before a part is touched for the first time.
    #[inline]
    pub(crate) fn wants_backing(&self) -> bool {
        matches!(&self.source, Source::File(image, _) if image.wants_backing())
    }

    /// Makes sure that the memory of `range` can be written to. Memory of the kernel is what it grants when it is touched.
    pub(crate) fn back(&self, range: Range<usize>) -> io::Result<()> {
        match &self.source {
            Source::Anonymous => Ok(()),
            Source::File(image, offset) => image.back(offset + range.start..offset + range.end),
        }
    }

    /// The same for a part that there must be: if the file has no space for it, it is memory of the process.
    pub(crate) fn back_or_patch(&self, range: Range<usize>) -> io::Result<()> {
        let Source::File(image, offset) = &self.source else {
            return Ok(());
        };
        let in_file = offset + range.start..offset + range.end;
        image
            .back(in_file.clone())
            .or_else(|_| image.patch(in_file))
    }

    /// Makes all of it zeros; only for whoever has nothing in it.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let Source::File(image, offset) = &self.source else {
            return Ok(());
        };
        image.punch(*offset..offset + self.len)
    }

    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Asks for transparent huge pages.
    #[cfg(target_os = "linux")]
    pub(crate) fn advise_huge(&self) -> io::Result<()> {
        // SAFETY: the range is ours (A1), and the advice changes no content.
        check(unsafe { libc::madvise(self.at(0), self.len, libc::MADV_HUGEPAGE) })
    }

    /// Asks for transparent huge pages: not known here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn advise_huge(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Keeps the pages of `range` in memory once they have been touched.
    #[cfg(target_os = "linux")]
    pub(crate) fn lock_on_fault(&self, range: Range<usize>) -> io::Result<()> {
        // SAFETY: the range is ours (A1), and locking changes no content.
        check(unsafe { libc::mlock2(self.at(range.start), range.len(), libc::MLOCK_ONFAULT) })
    }

    /// Keeps the pages of `range` in memory: only known where locking can wait for the first touch.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn lock_on_fault(&self, _range: Range<usize>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Has the kernel give the memory behind `range` at once, instead of page by page as it is touched: a fourth of the time. Where it
    /// does not know how, or has none, it comes when it is touched.
    pub(crate) fn populate(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        // SAFETY: the range is ours (A1), and what is written there stays.
        let _ = check(unsafe {
            libc::madvise(self.at(range.start), range.len(), libc::MADV_POPULATE_WRITE)
        });
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Gives the memory behind `range` back to the kernel; the address space stays, and stays
    /// locked where it was.
    ///
    /// # Safety
    /// Nobody may hold a reference into `range`, or expect to find again what was written there.
    pub(crate) unsafe fn release(&self, range: Range<usize>, locked: bool) -> io::Result<()> {
        let (start, len) = (self.at(range.start), range.len());
        if let Source::File(image, offset) = &self.source {
            return image.punch(offset + range.start..offset + range.end);
        }
        if !locked {
            // SAFETY: the range is ours (A1); the caller vouches that its content is nobody's.
            return check(unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) });
        }
        #[cfg(target_os = "linux")]
        // SAFETY: as above.
        if check(unsafe { libc::madvise(start, len, libc::MADV_DONTNEED_LOCKED) }).is_ok() {
            return Ok(());
        }
        // Before Linux 5.18 the lock must be taken off first.
        // SAFETY: the range is ours (A1), and unlocking changes no content.
        check(unsafe { libc::munlock(start, len) })?;
        // SAFETY: as above.
        check(unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) })?;
        self.lock_on_fault(range)
    }

    /// An address of the mapping, as system calls want it.
    fn at(&self, offset: usize) -> *mut libc::c_void {
        assert!(offset < self.len);
        self.start.as_ptr().wrapping_add(offset).cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if matches!(self.source, Source::File(..)) {
            return; // Who is last to hold the image unmaps it.
        }
        // SAFETY: the range is ours (A1), and references into it borrowed `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Asks the processor to fetch the cache line of `address`, which need not be a valid one.
#[inline]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing as far as the program can tell, and faults on no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
