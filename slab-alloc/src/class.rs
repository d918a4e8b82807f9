//! Slab classes: which chunk sizes there are, and which of them an object of so many bytes gets.
//!
//! ```text
//!  bytes    0 ..      8192 ..                    chunk_max
//!           | small[]      | large[] + short scan |
//!           one entry for  one entry for every KB: the first class
//!           every 8 bytes  that could do; step on until it holds
//! ```
//!
//! C1. Sizes grow strictly from class 1 to that of the largest chunk; each is a multiple of the granule, at least
//!     `HEADER_BYTES` and at most a page. Behind it there may be twins: classes of the same size, that no number of bytes
//!     leads to. Who takes chunks for things of different kinds has a class for each kind.
//! C2. `small[i]` is the first class of at least `8 * i` bytes, `large[i]` of at least `1024 * i`;
//!     0 where no class is large enough.
//! C3. `serving[c]` is the first open class that is at least `c`. The largest class is always open.
//!
//! With [`Sizes::Adaptive`] there are far more classes than are good to use at once: each class that
//! holds anything has a page that is half empty on the mean. So only some are open, and what would
//! go to a closed one goes to the next larger that is not. Which to open, those tell who see what
//! lies in the chunks.
//!
//! Costs: a lookup is two loads below 8 KB; above, a step more for each class that begins within the
//! same KB, which the usual growth factors keep at one or two.

use std::io;
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::layout::{HEADER_BYTES, PAGE_BYTES_MAX};

/// The length of an array indexed by class, the unused index 0 included.
pub const CLASSES_MAX: usize = 256;

/// The most classes that an operator may ask for, as in memcached.
const GIVEN_MAX: usize = 63;

/// The name of a slab class: 1 to 255, smallest chunks first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClassId(NonZeroU8);

impl ClassId {
    /// The class of that number, if a class can have it.
    #[inline]
    pub fn new(number: u8) -> Option<Self> {
        NonZeroU8::new(number).map(Self)
    }

    /// The number, 1 to 255.
    #[inline]
    pub fn get(self) -> u8 {
        self.0.get()
    }

    /// The number as an index into an array of [`CLASSES_MAX`].
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0.get())
    }
}

/// How the chunk sizes are chosen. All sizes are in bytes, and rounded up to the granule.
#[derive(Clone, Debug)]
pub enum Sizes {
    /// From `chunk_min` on, each class larger by `growth_factor`. When [`GIVEN_MAX`] classes do not
    /// get there the last gap is a wide one.
    Growth {
        /// The smallest chunk.
        chunk_min: usize,
        /// The ratio of neighbours; above 1.
        growth_factor: f64,
        /// The largest chunk; at most a page.
        chunk_max: usize,
    },
    /// From `chunk_min` on in steps of a few percent; open at first are classes that are each larger by `growth_factor` at least, and the powers of two, of which chains are made.
    Adaptive {
        /// The smallest chunk.
        chunk_min: usize,
        /// The least ratio of neighbours among the classes open at first; above 1.
        growth_factor: f64,
        /// The largest chunk; at most a page.
        chunk_max: usize,
        /// How many twins the largest class has.
        twins: usize,
    },
    /// Exactly these, all open: those of a file that was found.
    Exact(Vec<usize>),
    /// An explicit list, strictly growing; `chunk_max` is added when the list ends below it.
    List {
        /// The chunk sizes.
        sizes: Vec<usize>,
        /// The largest chunk; at most a page.
        chunk_max: usize,
    },
}

impl Sizes {
    /// The size of each class, the first at index 0 (C1), with this granule and pages of this size. Fails on sizes that
    /// make no sense.
    pub fn chunk_sizes(&self, granule: usize, page_bytes: usize) -> io::Result<Vec<usize>> {
        let (sizes, chunk_max) = match *self {
            Sizes::Growth {
                chunk_min,
                growth_factor,
                chunk_max,
            } => {
                check_factor(growth_factor)?;
                let chunk_max = chunk_max.next_multiple_of(granule);
                (
                    grow(chunk_min, growth_factor, chunk_max, granule, page_bytes),
                    chunk_max,
                )
            }
            Sizes::Adaptive {
                chunk_min,
                growth_factor,
                chunk_max,
                twins,
            } => {
                check_factor(growth_factor)?;
                let chunk_max = chunk_max.next_multiple_of(granule);
                let mut sizes = fine(chunk_min, chunk_max, granule, page_bytes);
                sizes.extend(std::iter::repeat_n(chunk_max, twins));
                (sizes, chunk_max)
            }
            Sizes::Exact(ref sizes) => {
                let is_whole = |size: &usize| size.is_multiple_of(granule);
                let chunk_max = sizes.last().copied().unwrap_or_default();
                if !sizes.iter().all(is_whole) {
                    return Err(invalid("chunk sizes must be multiples of the granule"));
                }
                (sizes.clone(), chunk_max)
            }
            Sizes::List {
                ref sizes,
                chunk_max,
            } => {
                let chunk_max = chunk_max.next_multiple_of(granule);
                let mut sizes: Vec<usize> = sizes
                    .iter()
                    .map(|size| size.next_multiple_of(granule))
                    .collect();
                if sizes.last() != Some(&chunk_max) {
                    sizes.push(chunk_max);
                }
                (sizes, chunk_max)
            }
        };
        if chunk_max > page_bytes {
            return Err(invalid("the largest chunk must fit in a page"));
        }
        if sizes.first().is_none_or(|&size| size < HEADER_BYTES) {
            return Err(invalid("the smallest chunk must hold a header of 32 bytes"));
        }
        let may_have_twins = matches!(self, Sizes::Adaptive { .. } | Sizes::Exact(_));
        if !sizes.is_sorted_by(|&a, &b| a < b || (a == chunk_max && b == a && may_have_twins)) {
            return Err(invalid("chunk sizes must grow from class to class"));
        }
        if sizes.len() > self.count_max() {
            return Err(invalid("there can be no more than 63 slab classes"));
        }
        Ok(sizes)
    }

    fn count_max(&self) -> usize {
        match self {
            Sizes::Adaptive { .. } | Sizes::Exact(_) => CLASSES_MAX - 1,
            Sizes::Growth { .. } | Sizes::List { .. } => GIVEN_MAX,
        }
    }

    /// Which of the classes of these `sizes` are open at first.
    fn open(&self, sizes: &[usize]) -> Vec<bool> {
        let Sizes::Adaptive { growth_factor, .. } = *self else {
            return vec![true; sizes.len()];
        };
        let mut last = 0;
        let mut open: Vec<bool> = sizes
            .iter()
            .map(|&size| {
                let opens = size.is_power_of_two() || size as f64 >= last as f64 * growth_factor;
                if opens {
                    last = size;
                }
                opens
            })
            .collect();
        let largest = sizes.partition_point(|size| Some(size) < sizes.last());
        open[largest] = true;
        open[largest + 1..].fill(false);
        open
    }
}

fn check_factor(factor: f64) -> io::Result<()> {
    if factor.is_nan() || factor <= 1.0 {
        return Err(invalid("the growth factor must be above 1"));
    }
    Ok(())
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// The sizes from `chunk_min` by `factor` up to exactly `chunk_max`.
fn grow(
    chunk_min: usize,
    factor: f64,
    chunk_max: usize,
    granule: usize,
    page_bytes: usize,
) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut size = chunk_min.max(HEADER_BYTES).next_multiple_of(granule);
    // Stop where the next class would be the last one anyway, and leave room for that one.
    while size as f64 * factor <= chunk_max as f64 && sizes.len() < GIVEN_MAX - 1 {
        let fitted = fit_to_page(size, granule, page_bytes);
        if fitted >= chunk_max {
            break;
        }
        sizes.push(fitted);
        let next = (fitted as f64 * factor) as usize;
        size = next.next_multiple_of(granule).max(fitted + granule);
    }
    sizes.push(chunk_max);
    sizes
}

/// All the sizes that may be worth a class, `chunk_min` to `chunk_max`: every granule up to 1 KB, then 32 to the
/// octave up to 4 KB, 16 up to 8 KB, 8 above, each as large as so many of a page can be; and from a sixteenth of a page on, the
/// even parts of it.
fn fine(chunk_min: usize, chunk_max: usize, granule: usize, page_bytes: usize) -> Vec<usize> {
    let step = |size: usize| {
        let octave = 1 << size.ilog2();
        let step = match octave {
            0..1024 => 8,
            1024..4096 => octave / 32,
            4096..8192 => octave / 16,
            _ => octave / 8,
        };
        step.max(granule)
    };
    let mut sizes = Vec::new();
    let mut size = chunk_min.max(HEADER_BYTES).next_multiple_of(granule);
    while size < chunk_max && size <= page_bytes / 16 {
        let step = step(size);
        // Below, what a page has left over is less than a step.
        if size > page_bytes.isqrt() * 4 {
            size = even_part(size, granule, page_bytes);
        }
        sizes.push(size);
        size = (size + 1).next_multiple_of(step);
    }
    for parts in (1..16).rev() {
        let part = page_bytes / parts / granule * granule;
        if part >= size && part < chunk_max {
            sizes.push(part);
        }
    }
    sizes.push(chunk_max);
    sizes
}

/// A large chunk takes what its page would leave over at the end: 150,000 bytes go six to a page,
/// so they may as well be 174,760. Below a sixteenth of a page the tail is too small to matter.
fn fit_to_page(size: usize, granule: usize, page_bytes: usize) -> usize {
    if size <= page_bytes / 16 || size > page_bytes {
        return size;
    }
    even_part(size, granule, page_bytes)
}

/// The largest size of which a page holds as many as of this.
fn even_part(size: usize, granule: usize, page_bytes: usize) -> usize {
    let even = page_bytes / (page_bytes / size);
    even - even % granule
}

/// Up to here, in bytes, a class is found by one load.
const SMALL_MAX: usize = 8192;

/// The chunk sizes of all classes, and the way from a number of bytes to a class.
pub(crate) struct ClassTable {
    /// By class; index 0 is unused and 0.
    sizes: Vec<u32>,
    small: Box<[u8; SMALL_MAX / 8 + 1]>,
    large: Box<[u8; PAGE_BYTES_MAX / 1024 + 1]>,
    serving: Box<[AtomicU8; CLASSES_MAX]>,
    /// By class; what `serving` is made from.
    open: Mutex<Vec<bool>>,
    largest: ClassId,
}

impl ClassTable {
    pub(crate) fn new(sizes: &Sizes, granule: usize, page_bytes: usize) -> io::Result<Self> {
        let resolved = sizes.chunk_sizes(granule, page_bytes)?;
        let first_of = |bytes: usize| {
            let below = resolved.partition_point(|&size| size < bytes);
            if below < resolved.len() {
                below as u8 + 1
            } else {
                0
            }
        };
        let small = Box::new(std::array::from_fn(|i| first_of(8 * i)));
        let large = Box::new(std::array::from_fn(|i| first_of(1024 * i)));
        let open = std::iter::once(false).chain(sizes.open(&resolved));
        let open = Mutex::new(open.collect());
        let chunk_max = resolved.last().copied().unwrap_or_default();
        let largest = ClassId::new(first_of(chunk_max)).expect("there is at least one class");
        let sizes = std::iter::once(0)
            .chain(resolved.iter().map(|&size| size as u32))
            .collect();
        let table = Self {
            sizes,
            small,
            large,
            serving: Box::new(std::array::from_fn(|_| AtomicU8::new(0))),
            open,
            largest,
        };
        table.set_open(table.largest(), true);
        Ok(table)
    }

    /// The smallest open class whose chunks hold `bytes`.
    #[inline]
    pub(crate) fn class_for(&self, bytes: usize) -> Option<ClassId> {
        self.serving(self.exact_class_for(bytes)?)
    }

    /// The smallest open class that is at least `class`.
    #[inline]
    fn serving(&self, class: ClassId) -> Option<ClassId> {
        ClassId::new(self.serving[class.index()].load(Relaxed))
    }

    /// True if `class` is open.
    pub(crate) fn is_open(&self, class: ClassId) -> bool {
        self.serving(class) == Some(class)
    }

    /// Opens or closes a class; the largest stays open.
    pub(crate) fn set_open(&self, class: ClassId, is_open: bool) {
        let mut open = self.open.lock();
        open[class.index()] = is_open || class == self.largest();
        let mut serving = 0;
        for class in (1..open.len()).rev() {
            if open[class] {
                serving = class as u8;
            }
            self.serving[class].store(serving, Relaxed);
        }
    }

    /// The smallest class, open or not, whose chunks hold `bytes`.
    #[inline]
    pub(crate) fn exact_class_for(&self, bytes: usize) -> Option<ClassId> {
        if bytes <= SMALL_MAX {
            return ClassId::new(self.small[bytes.div_ceil(8)]);
        }
        if bytes > PAGE_BYTES_MAX {
            return None;
        }
        let first = usize::from(self.large[bytes / 1024]);
        if first == 0 {
            return None;
        }
        (first..self.sizes.len())
            .find(|&class| self.sizes[class] as usize >= bytes)
            .and_then(|class| ClassId::new(class as u8))
    }

    /// Panics when there is no such class.
    #[inline]
    pub(crate) fn chunk_bytes(&self, class: ClassId) -> usize {
        self.sizes[class.index()] as usize
    }

    /// All classes, smallest chunks first.
    pub(crate) fn classes(&self) -> impl DoubleEndedIterator<Item = ClassId> + use<> {
        (1..self.sizes.len()).filter_map(|class| ClassId::new(class as u8))
    }

    /// The class of the largest chunks.
    pub(crate) fn largest(&self) -> ClassId {
        self.largest
    }

    /// Its twin of this number, from 1, or the last there is below; 0 is the class itself.
    pub(crate) fn twin(&self, number: u32) -> ClassId {
        let last = self.sizes.len() - 1;
        let class = (self.largest.index() + number as usize).min(last);
        ClassId::new(class as u8).unwrap_or(self.largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(chunk_min: usize, growth_factor: f64, chunk_max: usize) -> Sizes {
        Sizes::Growth {
            chunk_min,
            growth_factor,
            chunk_max,
        }
    }

    /// Every size must satisfy C1, and every number of bytes get what a plain scan would give it.
    fn check(sizes: &Sizes, granule: usize, chunk_max: usize) -> ClassTable {
        let table = ClassTable::new(sizes, granule, PAGE_BYTES_MAX).unwrap();
        let all = &table.sizes[1..];
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        assert!(
            all.iter()
                .all(|&size| (size as usize).is_multiple_of(granule)),
            "{all:?}"
        );
        assert!(all[0] as usize >= HEADER_BYTES && all.len() <= sizes.count_max());
        assert_eq!(*all.last().unwrap() as usize, chunk_max);
        assert_eq!(table.largest().index(), all.len());
        assert_eq!(table.classes().count(), all.len());
        let mut naive = 0;
        for bytes in 0..=chunk_max {
            while (all[naive] as usize) < bytes {
                naive += 1;
            }
            let class = table.exact_class_for(bytes).unwrap();
            assert_eq!(class.index(), naive + 1, "{bytes} bytes in {all:?}");
            assert!(table.chunk_bytes(class) >= bytes);
        }
        for bytes in [chunk_max + 1, PAGE_BYTES_MAX + 1, usize::MAX] {
            assert_eq!(table.class_for(bytes), None, "{bytes} bytes");
        }
        table
    }

    #[test]
    fn lookup_agrees_with_a_scan_for_every_byte() {
        for factor in [1.01, 1.05, 1.08, 1.16, 1.25, 1.5, 2.0, 10.0, 1000.0] {
            for chunk_max in [1024, 16 * 1024, 512 * 1024, 1_000_000, PAGE_BYTES_MAX] {
                check(&growth(80, factor, chunk_max), 8, chunk_max);
            }
        }
        check(&growth(1, 1.25, 512 * 1024), 8, 512 * 1024);
        check(&growth(600, 1.25, 512 * 1024), 64, 512 * 1024);
        check(&growth(48, 1.02, 512 * 1024), 1024, 512 * 1024);
        // A largest chunk below the smallest is the only class.
        assert_eq!(check(&growth(96, 1.25, 64), 8, 64).largest().get(), 1);
    }

    #[test]
    fn lookup_agrees_with_a_scan_for_lists() {
        let list = |sizes: &[usize], chunk_max| Sizes::List {
            sizes: sizes.to_vec(),
            chunk_max,
        };
        check(&list(&[96], 96), 8, 96);
        check(
            &list(&[50, 100, 9000, 9008, 9016, 9500, 20_000], 512 * 1024),
            8,
            512 * 1024,
        );
        let crowded: Vec<usize> = (0..62).map(|i| 10_000 + 8 * i).collect();
        assert_eq!(
            check(&list(&crowded, PAGE_BYTES_MAX), 8, PAGE_BYTES_MAX)
                .largest()
                .get(),
            63
        );
    }

    #[test]
    fn memcacheds_defaults_make_its_classes_up_to_a_sixteenth_of_a_page() {
        let table = ClassTable::new(&growth(96, 1.25, 512 * 1024), 8, PAGE_BYTES_MAX).unwrap();
        let small = [
            96, 120, 152, 192, 240, 304, 384, 480, 600, 752, 944, 1184, 1480, 1856, 2320,
        ];
        assert_eq!(table.sizes[1..=15], small);
        // From there on sizes are rounded up to even parts of a page.
        let parts = |class: &u32| PAGE_BYTES_MAX / *class as usize;
        let large: Vec<usize> = table.sizes[30..].iter().map(parts).collect();
        assert_eq!(large, [15, 11, 8, 6, 4, 3, 2]);
    }

    #[test]
    fn large_chunks_leave_no_tail_in_their_page() {
        let table = ClassTable::new(&growth(96, 1.16, 512 * 1024), 8, PAGE_BYTES_MAX).unwrap();
        for &size in table.sizes[1..]
            .iter()
            .filter(|&&size| size as usize > PAGE_BYTES_MAX / 16)
        {
            let tail = PAGE_BYTES_MAX % size as usize;
            assert!(tail < 8 * 16, "{size} leaves {tail}");
        }
        assert_eq!(fit_to_page(150_000, 8, PAGE_BYTES_MAX), 174_760);
        assert_eq!(
            fit_to_page(PAGE_BYTES_MAX, 8, PAGE_BYTES_MAX),
            PAGE_BYTES_MAX
        );
    }

    #[test]
    fn no_number_of_bytes_leads_to_a_twin() {
        let sizes = Sizes::Adaptive {
            chunk_min: 40,
            growth_factor: 1.25,
            chunk_max: 32 << 10,
            twins: 3,
        };
        let table = ClassTable::new(&sizes, 8, 64 << 10).unwrap();
        let largest = table.largest();
        assert_eq!(table.classes().count(), largest.index() + 3);
        for bytes in 0..=32 << 10 {
            assert!(table.class_for(bytes).unwrap() <= largest, "{bytes}");
            assert!(table.exact_class_for(bytes).unwrap() <= largest, "{bytes}");
        }
        assert_eq!(table.twin(0), largest);
        assert_eq!(table.twin(2).index(), largest.index() + 2);
        assert_eq!(table.twin(9).index(), largest.index() + 3);
        assert!(!table.is_open(table.twin(1)) && table.is_open(largest));
        assert_eq!(table.chunk_bytes(table.twin(1)), 32 << 10);
    }

    #[test]
    fn what_cannot_be_a_table_is_refused() {
        let refused = |sizes: Sizes| {
            ClassTable::new(&sizes, 8, PAGE_BYTES_MAX)
                .err()
                .unwrap()
                .to_string()
        };
        let list = |sizes: Vec<usize>| Sizes::List {
            sizes,
            chunk_max: 512 * 1024,
        };
        assert!(refused(growth(96, 1.0, 4096)).contains("growth factor"));
        assert!(refused(growth(96, f64::NAN, 4096)).contains("growth factor"));
        assert!(refused(growth(96, 1.25, PAGE_BYTES_MAX + 8)).contains("fit in a page"));
        assert!(refused(growth(96, 1.25, 16)).contains("header"));
        assert!(refused(list(vec![24, 96])).contains("header"));
        assert!(refused(list(vec![96, 96])).contains("grow"));
        assert!(refused(list(vec![97, 104])).contains("grow"));
        assert!(refused(list(vec![96, 600 * 1024])).contains("grow"));
        assert!(refused(list((0..63).map(|i| 96 + 8 * i).collect())).contains("63"));
    }
}
