//! Rings of bytes in a file that is mapped: one thread writes, another reads, and what was written is in the page cache at once,
//! without a call of the system, so that it outlives the process.
//!
//! Q1. Positions count bytes since the beginning. `moved <= told <= moved + len`; a byte lies at its position modulo `len`.
//! Q2. The writer writes from `told` to below `moved + len`. The reader reads from `moved` to where `told` was when it looked.
//!     So nobody reads what is being written, and nobody writes what is being read.
//! Q3. A position is stored behind what it tells of, in memory and in the file: a process that is killed leaves whole what lies
//!     between the two in the file.
//! Q4. Only memory's positions are believed: the file's are for who comes after a crash.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

use super::check;

/// Where a ring lies in its file.
#[derive(Debug, Clone, Copy)]
pub struct RingPlace {
    /// Where its positions are kept: told, then moved.
    pub positions_at: usize,
    /// Where it begins.
    pub ring_at: usize,
}

/// What was mapped.
#[derive(Debug)]
struct Mapped {
    start: NonNull<u8>,
    len: usize,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and nobody has a place in it any more: all who had one held this.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[derive(Debug)]
struct Ring {
    mapped: Mapping,
    place: RingPlace,
    len: u64,
    told: AtomicU64,
    moved: AtomicU64,
    /// The reader was asked to come, and has not been there since.
    is_asked: AtomicBool,
}

type Mapping = Arc<Mapped>;

// SAFETY: a mapping belongs to the process. Its positions are atomic, and its bytes are the writer's or the reader's (Q2), of
// which there is one each.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Ring {
    #[inline]
    fn at(&self, position: u64) -> NonNull<u8> {
        let offset = self.place.ring_at + (position & (self.len - 1)) as usize;
        // SAFETY: a ring lies inside of its mapping ([`map_rings`]).
        unsafe { self.mapped.start.add(offset) }
    }

    /// The file's copy of a position: 0 is told, 1 is moved.
    #[inline]
    fn copy(&self, nth: usize) -> &AtomicU64 {
        let at = self.place.positions_at + nth * size_of::<AtomicU64>();
        // SAFETY: inside of the mapping, aligned ([`map_rings`]), and used as an atomic alone.
        unsafe { self.mapped.start.add(at).cast().as_ref() }
    }
}

/// Who writes to a ring.
#[derive(Debug)]
pub struct RingWriter {
    ring: Arc<Ring>,
    told: u64,
}

/// What came of writing to a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// There is no room for it, and nothing was written.
    Full,
    /// It was written.
    Written,
    /// It was written, and the reader should come soon. Said once until it has.
    HalfFull,
}

/// Who reads from a ring.
#[derive(Debug)]
pub struct RingReader {
    ring: Arc<Ring>,
    moved: u64,
    up_to: u64,
}

impl RingWriter {
    /// Writes `head` and `record` behind what was written, whole and without a break: where the ring ends before, a word of zeros
    /// says so. What is larger than a quarter of the ring finds no room.
    #[inline]
    pub fn tell(&mut self, head: &[u8; 16], record: &[u8]) -> Told {
        let ring = &*self.ring;
        let len = (head.len() + record.len()).next_multiple_of(8) as u64;
        let to_end = ring.len - (self.told & (ring.len - 1));
        let skipped = if len > to_end { to_end } else { 0 };
        let begin = self.told + skipped;
        let used = begin + len - ring.moved.load(Acquire);
        if len > ring.len / 4 || used > ring.len {
            return Told::Full;
        }
        // SAFETY: from `told` to below `moved + len` the bytes are the writer's (Q2). All positions are multiples of 8, so
        // there is room for a word before the ring's end; `begin + len` is not beyond it.
        unsafe {
            if skipped > 0 {
                ring.at(self.told).cast::<u64>().write(0);
            }
            let to = ring.at(begin);
            ptr::copy_nonoverlapping(head.as_ptr(), to.as_ptr(), head.len());
            let to = to.add(head.len());
            ptr::copy_nonoverlapping(record.as_ptr(), to.as_ptr(), record.len());
        }
        self.told = begin + len;
        ring.told.store(self.told, Release);
        ring.copy(0).store(self.told, Release);
        if used >= ring.len / 2 && !ring.is_asked.load(Relaxed) {
            ring.is_asked.store(true, Relaxed);
            return Told::HalfFull;
        }
        Told::Written
    }
}

impl RingReader {
    /// Looks how far the writer is.
    pub fn look(&mut self) {
        self.up_to = self.ring.told.load(Acquire);
    }

    /// What was written, up to where it looked: to the ring's end, and from its beginning on.
    pub fn bytes(&self) -> [&[u8]; 2] {
        let (from, ring) = (self.moved, &*self.ring);
        let len = (self.up_to - from) as usize;
        let to_end = (ring.len - (from & (ring.len - 1))) as usize;
        let first = len.min(to_end);
        // SAFETY: from `moved` to `up_to` the bytes are the reader's, as long as it does not say that it is done (Q2).
        unsafe {
            [
                slice::from_raw_parts(ring.at(from).as_ptr(), first),
                slice::from_raw_parts(ring.at(0).as_ptr(), len - first),
            ]
        }
    }

    /// Gives the writer the room of what was read.
    pub fn done(&mut self) {
        self.moved = self.up_to;
        self.ring.is_asked.store(false, Relaxed);
        self.ring.copy(1).store(self.moved, Release);
        self.ring.moved.store(self.moved, Release);
    }
}

/// Maps rings of `ring_len` bytes, a power of two, in a file that is empty, and makes it `file_len` bytes long, with its pages in
/// memory. Refused where a page that was written once may have no place on the disk later.
pub fn map_rings(
    file: &File,
    file_len: usize,
    places: &[RingPlace],
    ring_len: usize,
) -> io::Result<Vec<(RingWriter, RingReader)>> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    assert!(ring_len.is_power_of_two() && ring_len >= 4096);
    for place in places {
        let positions_end = place.positions_at + 2 * size_of::<AtomicU64>();
        assert!(place.positions_at.is_multiple_of(8) && positions_end <= file_len);
        assert!(place.ring_at.is_multiple_of(8) && place.ring_at + ring_len <= file_len);
    }
    if !overwrites_in_place(file)? {
        return Err(io::Error::other(
            "this file system may need more space for what is overwritten",
        ));
    }
    let mut at = 0;
    while at < file_len {
        let now = ZEROS.len().min(file_len - at);
        file.write_all_at(&ZEROS[..now], at as u64)?;
        at += now;
    }
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            file_len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | POPULATE,
            file.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start: NonNull<u8> =
        NonNull::new(start.cast()).expect("the kernel does not map address 0 unasked");
    // SAFETY: what was just mapped. Where it may not stay in memory it comes back when it is touched.
    unsafe { libc::mlock(start.as_ptr().cast(), file_len) };
    let mapped = Arc::new(Mapped {
        start,
        len: file_len,
    });
    let ring = |&place| {
        let ring = Arc::new(Ring {
            mapped: mapped.clone(),
            place,
            len: ring_len as u64,
            told: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            is_asked: AtomicBool::new(false),
        });
        let writer = RingWriter {
            ring: ring.clone(),
            told: 0,
        };
        let reader = RingReader {
            ring,
            moved: 0,
            up_to: 0,
        };
        (writer, reader)
    };
    Ok(places.iter().map(ring).collect())
}

#[cfg(target_os = "linux")]
const POPULATE: libc::c_int = libc::MAP_POPULATE;
#[cfg(not(target_os = "linux"))]
const POPULATE: libc::c_int = 0;

/// Whether a block of a file stays where it is when it is written again. Where it does not, a full disk would end the process by
/// SIGBUS. What lies below an overlay nobody tells; it seldom is one of those.
#[cfg(target_os = "linux")]
fn overwrites_in_place(file: &File) -> io::Result<bool> {
    /// ext2 to ext4, XFS, tmpfs, overlays: numbers of linux/magic.h.
    const KNOWN: [u32; 4] = [0xef53, 0x5846_5342, 0x0102_1994, 0x794c_7630];
    // SAFETY: plain numbers, for which zeros are a value.
    let mut told: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor of ours, and a place for the answer.
    check(unsafe { libc::fstatfs(file.as_raw_fd(), &mut told) })?;
    Ok(KNOWN.contains(&(told.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn overwrites_in_place(_file: &File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(count: usize, len: usize) -> (File, Vec<(RingWriter, RingReader)>) {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .open(std::env::temp_dir())
            .expect("a file");
        let places: Vec<RingPlace> = (0..count)
            .map(|nth| RingPlace {
                positions_at: 4096 * nth,
                ring_at: 4096 * count + nth * len,
            })
            .collect();
        let mapped = map_rings(&file, count * (4096 + len), &places, len).expect("rings");
        (file, mapped)
    }

    use std::os::unix::fs::OpenOptionsExt;

    /// Q2 and Q3, with a reader that comes when it likes.
    #[test]
    fn what_is_written_is_read_in_order_and_nothing_else() {
        let (file, mut rings) = rings(2, 4096);
        let (mut writer, mut reader) = rings.remove(1);
        const COUNT: u64 = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 1..=COUNT {
                    let record = vec![n as u8; (n * 7 % 300) as usize];
                    let mut head = [0; 16];
                    head[..8].copy_from_slice(&n.to_le_bytes());
                    head[8..].copy_from_slice(&(record.len() as u64).to_le_bytes());
                    while writer.tell(&head, &record) == Told::Full {
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 1;
            while expected <= COUNT {
                reader.look();
                for mut part in reader.bytes() {
                    while let Some((number, rest)) = part.split_first_chunk()
                        && u64::from_le_bytes(*number) != 0
                    {
                        assert_eq!(u64::from_le_bytes(*number), expected);
                        let (len, rest) = rest.split_first_chunk().unwrap();
                        let len = u64::from_le_bytes(*len) as usize;
                        assert_eq!(len as u64, expected * 7 % 300);
                        assert!(rest[..len].iter().all(|&byte| byte == expected as u8));
                        part = &rest[len.next_multiple_of(8)..];
                        expected += 1;
                    }
                }
                reader.done();
            }
        });
        let mut copies = [0; 16];
        file.read_exact_at(&mut copies, 4096).unwrap();
        assert_eq!(copies[..8], copies[8..], "all that was told was moved");
        assert_ne!(copies[..8], [0; 8]);
    }

    #[test]
    fn what_finds_no_room_is_not_written_and_the_reader_is_asked_once() {
        let (_file, mut rings) = rings(1, 4096);
        let (mut writer, mut reader) = rings.remove(0);
        assert_eq!(writer.tell(&[1; 16], &[1; 1100]), Told::Full, "too large");
        let told: Vec<Told> = (0..5).map(|_| writer.tell(&[1; 16], &[1; 1000])).collect();
        use Told::{Full, HalfFull, Written};
        assert_eq!(told, [Written, Written, HalfFull, Written, Full]);
        reader.look();
        assert_eq!(reader.bytes().map(<[u8]>::len), [4 * 1016, 0]);
        reader.done();
        assert_eq!(writer.tell(&[1; 16], &[1; 1000]), Written);
        reader.look();
        assert_eq!(reader.bytes().map(<[u8]>::len), [32, 1016]);
    }
}
