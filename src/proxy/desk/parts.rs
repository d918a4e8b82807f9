//! What a desk is made of.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::{Parsed, Request, binary, text};

use crate::command::Output;
use crate::proxy::carry::Seat;
use crate::proxy::frame::Shape;
use crate::proxy::lane::{Hush, Lane, Owner, Ticket};
use crate::proxy::plan::{Pool, PoolNow};
use crate::proxy::replies::Owed;
use crate::proxy::verbs::Job;
use crate::state::ConnId;

/// Whom replies are for.
pub trait Clients<'c> {
    /// What this client is owed, if it is still there.
    fn owed(&mut self, conn: ConnId) -> Option<&mut Owed<'c>>;
}

pub(super) type Serve = Pin<Box<dyn Future<Output = Output<'static>>>>;

/// Whose reply an operation is: its number, and which part of it, if it is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) conn: ConnId,
    pub(super) number: u32,
    pub(super) part: Option<u16>,
}

/// An operation under way.
pub(super) struct Op {
    pub(super) generation: u32,
    pub(super) future: Serve,
    pub(super) seat: Rc<Seat>,
    pub(super) client: Option<Client>,
    /// Bytes of its request.
    pub(super) bytes: usize,
    /// Exchanges on lanes.
    pub(super) flights: Vec<(u32, usize)>,
    pub(super) is_due: bool,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op").finish_non_exhaustive()
    }
}

/// A pool as the desk sees it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) pool: Arc<Pool>,
    pub(super) version: u64,
    pub(super) now: Arc<PoolNow>,
    /// Keys live on one node, and nobody is asked for them beside it.
    pub(super) is_plain: bool,
    /// Lanes of each node of the ring: those for text, then those for packets.
    pub(super) lanes: Vec<Vec<Option<usize>>>,
}

/// Puts a client into the list of those that are to have a turn.
pub(super) fn wake(woken: &mut Vec<ConnId>, owed: &mut Owed<'_>, conn: ConnId) {
    if !owed.woken {
        owed.woken = true;
        woken.push(conn);
    }
}

/// In milliseconds; what is no time that anybody waits for is ten years.
pub(super) fn ms(time: Duration) -> u64 {
    const MAX: u64 = 10 * 365 * 86_400 * 1000;
    u64::try_from(time.as_millis()).unwrap_or(MAX).min(MAX)
}

/// A read that may be asked anew: its first key, and what is asked.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) key: Vec<u8>,
    pub(super) job: Job,
}

impl Read {
    /// What a lane's ticket asked for, if it is a read, in the words of its client.
    pub(super) fn of(lane: &Lane, ticket: &Ticket) -> Option<Self> {
        let Owner::Client { hush, .. } = ticket.owner else {
            return None;
        };
        let mut bytes = match ticket.read {
            (_, 0) => return None,
            read => lane.read(read).to_vec(),
        };
        let is_packet = ticket.shape() == Shape::Packet;
        match hush {
            Hush::Quiet(opcode) | Hush::Loud(opcode) => *bytes.get_mut(1)? = opcode,
            Hush::Miss => {
                bytes.truncate(bytes.len().saturating_sub(2));
                bytes.extend_from_slice(b" q\r\n");
            }
            Hush::Nothing | Hush::Done => {}
        }
        let bytes = Bytes::from(bytes);
        let parsed = match is_packet {
            true => binary::parse(&bytes),
            false => text::parse(&bytes),
        };
        let Parsed::Complete { request, .. } = parsed else {
            return None;
        };
        match request {
            Request::Get(get) => Some(Read {
                key: get.keys.iter().next()?.to_vec(),
                job: Job::Keys {
                    verb: get.verb,
                    keys: bytes.slice_ref(get.keys.0),
                    is_last: true,
                },
            }),
            request => {
                let mut room = protocol::KeyBuf::default();
                let key = request.key()?.bytes(&mut room).to_vec();
                let job = match is_packet {
                    true => Job::Packet(bytes),
                    false => Job::Text(bytes),
                };
                Some(Read { key, job })
            }
        }
    }
}
