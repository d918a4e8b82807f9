//! The state word of an item: sixteen bits, each with its name.
//!
//! ```text
//!  15 14      13     12             11      10 9      8      7       6        5         4      3 2   1        0
//!  flush gen  ITEM   CONTINUATION   CAS     segment   LARGE  FLAGS   BINARY   WIN_SENT  STALE  uses  FETCHED  LINKED
//! ```

use std::fmt;
use std::ops::BitOr;

/// A part of the LRU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "memcached's names, drawn in `segments`")]
pub enum Segment {
    Hot = 0,
    Warm = 1,
    Cold = 2,
    Temp = 3,
}

impl Segment {
    /// All of them, by number.
    pub const ALL: [Segment; 4] = [Segment::Hot, Segment::Warm, Segment::Cold, Segment::Temp];
}

/// A state word, or some bits of one.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct State(u16);

/// Where the bits of the count of uses begin.
const USES_SHIFT: u16 = 2;
/// The same for the segment.
const SEGMENT_SHIFT: u16 = 9;
/// The same for the flush generation.
const GENERATION_SHIFT: u16 = 14;

impl State {
    /// No bit: a chunk that is no item.
    pub const NOTHING: State = State(0);
    /// In the table and in an LRU segment.
    pub const LINKED: State = State(1);
    /// Read at least once since it was stored.
    pub const FETCHED: State = State(1 << 1);
    /// Two bits: reads since the policy last looked, up to three.
    pub const USES: State = State(3 << USES_SHIFT);
    /// Marked stale by `md I` or `ms I`.
    pub const STALE: State = State(1 << 4);
    /// A client holds the lease to recompute it.
    pub const WIN_SENT: State = State(1 << 5);
    /// The key came in base64 and is shown so.
    pub const KEY_BINARY: State = State(1 << 6);
    /// The optional client flags are there.
    pub const HAS_CLIENT_FLAGS: State = State(1 << 7);
    /// The optional reference count and chain are there.
    pub const LARGE: State = State(1 << 8);
    /// Two bits: the LRU segment.
    pub const SEGMENT: State = State(3 << SEGMENT_SHIFT);
    /// The optional CAS unique is there.
    pub const HAS_CAS: State = State(1 << 11);
    /// A continuation chunk of a chained item, not an item.
    pub const CONTINUATION: State = State(1 << 12);
    /// Set in every initialised head, so that its state is never 0.
    pub const ITEM: State = State(1 << 13);
    /// Two bits: the flush generation it was stored in.
    pub const GENERATION: State = State(3 << GENERATION_SHIFT);

    /// The bits by their meaning, in one number: 4 bits each for the place of a bit.
    pub(super) const LAYOUT: u64 = {
        let bits = [
            State::LINKED,
            State::FETCHED,
            State::STALE,
            State::WIN_SENT,
            State::KEY_BINARY,
            State::HAS_CLIENT_FLAGS,
            State::LARGE,
            State::HAS_CAS,
            State::CONTINUATION,
            State::ITEM,
        ];
        let (mut layout, mut at) = (0, 0);
        while at < bits.len() {
            layout = layout << 4 | bits[at].0.trailing_zeros() as u64;
            at += 1;
        }
        let fields =
            (USES_SHIFT as u64) << 8 | (SEGMENT_SHIFT as u64) << 4 | GENERATION_SHIFT as u64;
        layout << 12 | fields
    };

    /// The bits of so many uses, three at most.
    #[inline]
    pub fn of_uses(uses: u16) -> State {
        State(uses << USES_SHIFT)
    }

    /// The bits of a segment.
    #[inline]
    pub fn of_segment(segment: Segment) -> State {
        State((segment as u16) << SEGMENT_SHIFT)
    }

    /// The bits of a flush generation, 0 to 3.
    #[inline]
    pub fn of_generation(generation: u16) -> State {
        State(generation << GENERATION_SHIFT)
    }

    /// A word as it lies in a header.
    #[inline]
    pub(super) fn from_raw(raw: u16) -> State {
        State(raw)
    }

    /// The word as it lies in a header.
    #[inline]
    pub(super) fn to_raw(self) -> u16 {
        self.0
    }

    /// Of these, the bits that are among `bits`.
    #[inline]
    pub(super) fn only(self, bits: State) -> State {
        State(self.0 & bits.0)
    }

    /// True if one of `bits` is set.
    #[inline]
    pub fn has(self, bits: State) -> bool {
        self.0 & bits.0 != 0
    }

    /// The head chunk of an item that is in the table: neither a free chunk, nor an item in somebody's hands, nor a
    /// continuation.
    #[inline]
    pub fn is_linked_head(self) -> bool {
        self.0 & (State::LINKED | State::CONTINUATION).0 == State::LINKED.0
    }

    /// True if it was read since it was stored.
    #[inline]
    pub fn is_fetched(self) -> bool {
        self.has(State::FETCHED)
    }

    /// The segment the item is in; of one that is not linked, that it was in last.
    #[inline]
    pub fn segment(self) -> Segment {
        match (self.0 & State::SEGMENT.0) >> SEGMENT_SHIFT {
            0 => Segment::Hot,
            1 => Segment::Warm,
            2 => Segment::Cold,
            _ => Segment::Temp,
        }
    }

    /// Reads since the policy last looked: 0 to 3.
    #[inline]
    pub fn uses(self) -> u16 {
        (self.0 & State::USES.0) >> USES_SHIFT
    }

    /// The flush generation the item was stored in, 0 to 3.
    #[inline]
    pub fn generation(self) -> u16 {
        (self.0 & State::GENERATION.0) >> GENERATION_SHIFT
    }
}

impl BitOr for State {
    type Output = State;

    #[inline]
    fn bitor(self, other: State) -> State {
        State(self.0 | other.0)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (State::LINKED, "LINKED"),
            (State::FETCHED, "FETCHED"),
            (State::STALE, "STALE"),
            (State::WIN_SENT, "WIN_SENT"),
            (State::KEY_BINARY, "KEY_BINARY"),
            (State::HAS_CLIENT_FLAGS, "HAS_CLIENT_FLAGS"),
            (State::LARGE, "LARGE"),
            (State::HAS_CAS, "HAS_CAS"),
            (State::CONTINUATION, "CONTINUATION"),
            (State::ITEM, "ITEM"),
        ];
        f.write_str("State(")?;
        for (_, name) in names.iter().filter(|(bit, _)| self.has(*bit)) {
            write!(f, "{name} ")?;
        }
        let (segment, uses) = (self.segment(), self.uses());
        write!(
            f,
            "{segment:?} uses={uses} generation={})",
            self.generation()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_one_name() {
        let all = [
            State::LINKED,
            State::FETCHED,
            State::USES,
            State::STALE,
            State::WIN_SENT,
            State::KEY_BINARY,
            State::HAS_CLIENT_FLAGS,
            State::LARGE,
            State::SEGMENT,
            State::HAS_CAS,
            State::CONTINUATION,
            State::ITEM,
            State::GENERATION,
        ];
        let mut seen = State::NOTHING;
        for bits in all {
            assert!(!seen.has(bits), "{bits:?} overlaps");
            seen = seen | bits;
        }
        assert_eq!(seen.to_raw(), u16::MAX);
    }

    #[test]
    fn fields_come_back_and_are_named() {
        for number in 0..4u16 {
            let segment = Segment::ALL[usize::from(number)];
            let state = State::of_segment(segment)
                | State::of_uses(number)
                | State::of_generation(3 - number);
            assert_eq!((state.segment(), state.uses()), (segment, number));
            assert_eq!(state.generation(), 3 - number);
        }
        let linked = State::ITEM | State::LINKED | State::of_segment(Segment::Warm);
        assert_eq!(
            format!("{linked:?}"),
            "State(LINKED ITEM Warm uses=0 generation=0)"
        );
        assert!(linked.is_linked_head() && !(linked | State::CONTINUATION).is_linked_head());
    }
}
