//! The slowest requests of late, and where their time went.
//!
//! ```text
//!  deep in the cache, on the slow path only:   stage::timed(Stage::Lock, || guard = mutex.lock())    thread-local notes
//!  end of a slow turn, in the worker:          stage with the longest time --> a ring a worker
//! ```
//!
//! Sl1. A turn that is not slow costs nothing here: what a stage took is noted in the thread with the time it ended, and
//!      only a slow turn looks for the notes that lie in it. A stage that took long makes its turn suspect.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::latency::Group;
use super::turns_left;
use crate::sys::monotonic_ns;

/// Slow requests remembered a worker.
const RING: usize = 128;
/// Bytes of a line that are kept.
const LINE_SHOWN: usize = 64;

/// Where a request's time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// It had come, and others were served first.
    Turn,
    /// Another thread held its stripe, or a class's lock.
    Lock,
    /// Memory was made free for it by moving a page.
    PageMove,
    /// A large value was copied.
    Copy,
    /// The socket took no more of the reply.
    Socket,
    /// None of these: the commands themselves.
    Work,
}

/// Stages that are timed where they happen, and [`Stage::Work`] for the rest.
const STAGES: usize = 6;

impl Stage {
    const ALL: [Stage; STAGES] = [
        Stage::Turn,
        Stage::Lock,
        Stage::PageMove,
        Stage::Copy,
        Stage::Socket,
        Stage::Work,
    ];

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Turn => "turn",
            Stage::Lock => "lock",
            Stage::PageMove => "page_move",
            Stage::Copy => "copy",
            Stage::Socket => "socket",
            Stage::Work => "work",
        }
    }
}

/// Times of one thread that are remembered; a turn with more of them has several that are long.
const NOTES: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Note {
    stage: Stage,
    ended_ns: u64,
    ns: u64,
}

thread_local! {
    static NOTED: RefCell<VecDeque<Note>> = const { RefCell::new(VecDeque::new()) };
}

/// Does what belongs to a stage, and notes the time it took. For slow paths: it reads the clock twice.
pub fn timed<T>(stage: Stage, work: impl FnOnce() -> T) -> T {
    let began_ns = monotonic_ns();
    let done = work();
    spent(stage, began_ns, monotonic_ns());
    done
}

/// Notes time that a stage took, from and to a moment of [`monotonic_ns`].
pub fn spent(stage: Stage, began_ns: u64, ended_ns: u64) {
    turns_left::stage(began_ns, ended_ns);
    NOTED.with_borrow_mut(|noted| {
        if noted.len() == NOTES {
            noted.pop_front();
        }
        noted.push_back(Note {
            stage,
            ended_ns,
            ns: ended_ns.saturating_sub(began_ns),
        });
    });
}

/// The stage that took most of the time from one moment to another, and how long; in nanoseconds.
pub fn longest(began_ns: u64, ended_ns: u64) -> (Stage, u64) {
    let mut sums = [0u64; STAGES];
    NOTED.with_borrow(|noted| {
        for note in noted.iter().filter(|note| note.ended_ns > began_ns) {
            sums[note.stage as usize] += note.ns;
        }
    });
    let noted: u64 = sums.iter().sum();
    sums[Stage::Work as usize] += ended_ns.saturating_sub(began_ns + noted);
    let of_stage = Stage::ALL.into_iter().zip(sums);
    of_stage
        .max_by_key(|&(_, ns)| ns)
        .expect("there are stages")
}

/// A request that was slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// The server's second.
    pub at_s: u32,
    /// What was asked.
    pub group: Group,
    /// The line that asked for it, or its first bytes: of a turn with several requests that of the first.
    pub line: Vec<u8>,
    /// From the moment the request was known to have come, in nanoseconds.
    pub total_ns: u64,
    /// What took longest of it.
    pub stage: Stage,
    /// How long that took, in nanoseconds.
    pub stage_ns: u64,
}

/// The slow requests of one worker.
#[derive(Debug, Default)]
pub struct SlowRing(VecDeque<Slow>);

impl SlowRing {
    /// Adds one; the oldest makes room.
    pub fn push(&mut self, mut slow: Slow) {
        slow.line.truncate(LINE_SHOWN);
        if self.0.len() == RING {
            self.0.pop_front();
        }
        self.0.push_back(slow);
    }

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl Iterator<Item = &Slow> {
        self.0.iter()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stage_is_named() {
        assert_eq!(longest(0, 1000), (Stage::Work, 1000));
        spent(Stage::Lock, 100, 400);
        spent(Stage::Lock, 500, 800);
        spent(Stage::Copy, 850, 950);
        assert_eq!(longest(0, 1000), (Stage::Lock, 600));
        assert_eq!(longest(450, 1000), (Stage::Lock, 300));
        assert_eq!(longest(1000, 2000), (Stage::Work, 1000), "before this turn");
        for n in 0..100 {
            spent(Stage::Socket, 2000 + n, 2001 + n);
        }
        assert_eq!(longest(2000, 2100).0, Stage::Work, "the last ones only");
        assert_eq!(timed(Stage::PageMove, || 7), 7);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut ring = SlowRing::default();
        for at_s in 0..RING as u32 + 10 {
            ring.push(Slow {
                at_s,
                group: Group::Get,
                line: vec![b'k'; 250],
                total_ns: 1,
                stage: Stage::Work,
                stage_ns: 1,
            });
        }
        let seconds: Vec<u32> = ring.iter().map(|slow| slow.at_s).collect();
        assert_eq!(seconds, (10..RING as u32 + 10).collect::<Vec<_>>());
        assert!(ring.iter().all(|slow| slow.line.len() == LINE_SHOWN));
    }
}
