//! What a desk is made of.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::command::Output;
use crate::proxy::carry::Seat;
use crate::proxy::plan::{Pool, PoolNow};
use crate::proxy::replies::Owed;
use crate::state::ConnId;

/// Whom replies are for.
pub trait Clients<'c> {
    /// What this client is owed, if it is still there.
    fn owed(&mut self, conn: ConnId) -> Option<&mut Owed<'c>>;
}

pub(super) type Serve = Pin<Box<dyn Future<Output = Output<'static>>>>;

/// An operation under way.
pub(super) struct Op {
    pub(super) generation: u32,
    pub(super) future: Serve,
    pub(super) seat: Rc<Seat>,
    pub(super) client: Option<(ConnId, u32)>,
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

pub(super) fn ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis())
        .unwrap_or(u32::MAX / 4)
        .min(u32::MAX / 4)
}
