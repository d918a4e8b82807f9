//! A lane: one connection to a node, which all clients of a worker share, without its socket.
//!
//! ```text
//!  requests of many clients --> out --(one write for all that is ready)--> node
//!  tickets, oldest first: whose the next reply is    <-- cut by frame.rs -- partial: what has come of it
//! ```
//!
//! Ln1. Tickets are in the order of the requests in `out`, those that were written among them: a reply belongs to the first.
//! Ln2. A lane whose bytes make no sense ends, and all its tickets fail.
//! Ln3. A ticket whose time is over fails alone: its reply is still awaited, and belongs to nobody. A lane on which nothing has
//!     come for as long again ends.
//! Ln4. An idle lane owns no buffer.
//! Ln5. Reads that wait for their replies are remembered as they were sent, so that they can be asked anew when the connection is lost.

use std::collections::VecDeque;
use std::sync::Arc;

use client_core::expect::Expect;
use client_core::health::Member;
use client_core::options::Tls;
use client_core::unawaited::Unawaited;

use super::frame::{Progress, Shape};
use super::plan::Pool;
use super::uniques::Uniques;
use crate::command::Output;
use crate::state::ConnId;

/// Unsent bytes from which on a lane takes no more from clients.
const FULL_BYTES: usize = 1 << 20;
/// Bytes of reads that are remembered without a look at which of them have their replies.
const READS_KEPT: usize = 16 << 10;
/// How much of a reply that has not come whole is made room for at a time.
const ROOM_BYTES: usize = 256 << 10;

/// What is left out of the replies to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hush {
    Nothing,
    /// `EN`: quiet `mg`.
    Miss,
    /// `HD`, and what counting says: the other quiet meta commands.
    Done,
    /// Nothing of a packet with this opcode.
    Loud(u8),
    /// The nominal reply of one that is quiet.
    Quiet(u8),
}

/// Whose a reply is.
#[derive(Debug)]
pub(super) enum Owner {
    Client {
        conn: ConnId,
        number: u32,
        /// Which part of a list of keys; 0 of what is whole.
        part: Option<u16>,
        hush: Hush,
        /// The key's mark, or a packet's opaque.
        mark: u32,
        /// What to answer if nothing comes is a miss, where the pool says so.
        reads: bool,
        /// The reply shows a CAS unique.
        shows_unique: bool,
    },
    Flight {
        op: usize,
        generation: u32,
        flight: u32,
    },
    Probe,
    Login,
    /// Who did not want to hear, or does not wait any more.
    Nobody,
}

/// The replies to a request.
#[derive(Debug)]
pub(super) enum Replies {
    One(Shape),
    /// Of the client's core.
    Some(Expect),
    /// All up to and with `MN`.
    UntilNoop,
}

#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) replies: Replies,
    pub(super) owner: Owner,
    /// When it is late, on the desk's clock.
    pub(super) due_ms: u64,
    /// Where it stands among the lane's reads, and how long it is; 0 of what is not to be asked anew.
    pub(super) read: (u32, u32),
    /// Told of the end of an exchange that nobody waits for.
    pub(super) watch: Option<Unawaited>,
}

/// How far a lane's connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No socket.
    Closed,
    /// Nobody knows yet where its node is: a name is being looked up, until then.
    LookingUp(u64),
    /// It is being connected, until then.
    Connecting(u64),
    /// It takes and gives bytes.
    Open,
}

/// See the module.
#[derive(Debug)]
pub struct Lane {
    pub(super) pool: Arc<Pool>,
    pub(super) member: Arc<Member>,
    /// CAS uniques of its node, as clients know them.
    pub(super) uniques: Uniques,
    pub(super) binary: bool,
    /// Made for one probe.
    pub(super) is_probe: bool,
    /// Its node is gone: it ends with its last ticket.
    pub(super) is_retired: bool,
    /// Its desk's, when it was made.
    pub(super) era: u64,
    /// Requests not yet written.
    pub out: Output<'static>,
    /// Reads that wait for their replies, one after the other, and how many bytes of such were before them (Ln5).
    reads: Vec<u8>,
    reads_gone: u32,
    pub(super) tickets: VecDeque<Ticket>,
    partial: Vec<u8>,
    filled: usize,
    pub(super) progress: Progress,
    pub(super) heard_ms: u64,
    /// How far the connection has come.
    pub stage: Stage,
    /// It is in the list of those that have something to write.
    pub(super) is_dirty: bool,
    /// Its node was misunderstood: it ends with the next look.
    pub(super) is_broken: bool,
    /// Clients that wait for room in `out`.
    pub(super) waiting: Vec<ConnId>,
}

impl Lane {
    pub(super) fn new(pool: Arc<Pool>, member: Arc<Member>, binary: bool, era: u64) -> Self {
        Lane {
            uniques: Uniques::of(&member),
            pool,
            member,
            binary,
            is_probe: false,
            is_retired: false,
            era,
            out: Output::new(),
            reads: Vec::new(),
            reads_gone: 0,
            tickets: VecDeque::new(),
            partial: Vec::new(),
            filled: 0,
            progress: Progress::default(),
            heard_ms: 0,
            stage: Stage::Closed,
            is_dirty: false,
            is_broken: false,
            waiting: Vec::new(),
        }
    }

    /// Remembers what was put into `out` from there on, a read.
    #[inline]
    pub(super) fn remember(&mut self, from: usize) -> (u32, u32) {
        let at = self.reads_gone.wrapping_add(self.reads.len() as u32);
        let read = &self.out.buf[from..];
        self.reads.extend_from_slice(read);
        (at, read.len() as u32)
    }

    /// A read as it was sent.
    pub(super) fn read(&self, (at, len): (u32, u32)) -> &[u8] {
        let from = at.wrapping_sub(self.reads_gone) as usize;
        self.reads
            .get(from..from + len as usize)
            .unwrap_or_default()
    }

    /// Forgets the reads before this ticket, which is the first now.
    #[inline]
    pub(super) fn forget_reads(&mut self) {
        if self.tickets.is_empty() {
            self.reads_gone = self.reads_gone.wrapping_add(self.reads.len() as u32);
            match self.reads.capacity() {
                ..READS_KEPT => self.reads.clear(),
                _ => self.reads = Vec::new(),
            }
        } else if self.reads.len() >= READS_KEPT
            && let Some(first) = self.tickets.iter().find(|ticket| ticket.read.1 > 0)
        {
            let gone = first.read.0.wrapping_sub(self.reads_gone) as usize;
            if gone > self.reads.len() / 2 {
                self.reads.drain(..gone);
                self.reads_gone = self.reads_gone.wrapping_add(gone as u32);
            }
        }
    }

    /// How its node is spoken to by TLS, if it is, and what its certificate is to be for.
    pub fn tls(&self) -> Option<(&Tls, &str)> {
        let tls = self.pool.options.tls.as_ref()?;
        Some((
            tls,
            tls.server_name.as_deref().unwrap_or(&self.member.node.host),
        ))
    }

    pub(super) fn is_full(&self) -> bool {
        self.out.unsent_len() >= FULL_BYTES
    }

    /// Where the next bytes of the socket go, in the middle of a reply that has not come whole.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        if self.filled == 0 {
            return None;
        }
        let wanted = self.progress.wanted.max(self.filled + 1) - self.filled;
        // By a node's word alone no more than this.
        let room = wanted.clamp(LARGE_READ, ROOM_BYTES);
        if self.partial.len() - self.filled < room.min(wanted) {
            self.partial.resize(self.filled + room, 0);
        }
        Some(&mut self.partial[self.filled..])
    }

    /// So many bytes were put there.
    pub(super) fn take_partial(&mut self, came: usize) -> Vec<u8> {
        let mut partial = std::mem::take(&mut self.partial);
        partial.truncate(self.filled + came);
        self.filled = 0;
        partial
    }

    /// What has come of a reply, and is to be continued.
    pub(super) fn keep_partial(&mut self, bytes: Vec<u8>) {
        self.filled = bytes.len();
        self.partial = bytes;
    }

    /// Forgets what was on the connection, which is gone.
    pub(super) fn reset(&mut self) {
        self.out.clear();
        self.out = Output::new();
        self.reads = Vec::new();
        self.partial = Vec::new();
        self.filled = 0;
        self.progress = Progress::default();
        self.stage = Stage::Closed;
        self.is_broken = false;
    }

    pub(super) fn is_partial(&self) -> bool {
        self.filled > 0
    }
}

impl Replies {
    /// What the next of them looks like.
    pub(super) fn shape(&self) -> Shape {
        match self {
            Replies::One(shape) => *shape,
            Replies::Some(_) | Replies::UntilNoop => Shape::Any,
        }
    }
}

impl Ticket {
    /// The opcode that the reply has to have.
    pub(super) fn opcode(&self) -> Option<u8> {
        match self.owner {
            Owner::Client {
                hush: Hush::Quiet(opcode),
                ..
            } => Some(opcode),
            _ => None,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        self.replies.shape()
    }
}

/// The least that is read at a time.
const LARGE_READ: usize = 16 << 10;
