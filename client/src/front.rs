//! What the blocking and the async client are to all that they have in common.
//!
//! ```text
//!  methods, values, load:  async fn over a Front  --drive, until, finish, spawn-->  blocking: waits within
//!                                                                                   tokio: waits as futures do
//! ```
//!
//! What is written over a front is written once, as async functions. The blocking front does not let its futures wait: they
//! block the thread instead, so that [`done`] is all the runtime it needs.
//!
//! E1. The future of a front may be dropped at any point. What must not end half way goes to [`Front::finish`].
//! E2. Whoever waits for other callers does so by [`Front::until`], so never without end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::{Instant, SystemTime};

use crate::shared::Shared;
use crate::snapshot::{NodePool, Snapshot};
use crate::values::Values;
use client_core::Operation;
use client_core::calls::{self, Call};
use client_core::error::Result;
use client_core::operation::{Context, Replaced};
use client_core::options::ClientOptions;
use client_core::routing::Ring;

/// See the module. A clone is the same client.
pub(crate) trait Front: Clone + Send + Sync + 'static {
    type Pool: NodePool;

    /// How many values are refreshed behind their callers at a time; beyond that, callers do it themselves.
    const REFRESHES_MAX: usize;

    fn shared(&self) -> &Shared<Self::Pool>;

    /// The time, by the clock that `until` goes by.
    fn now(&self) -> Instant;

    /// Does what is due at a node of the ring beside the callers' operations: a probe, if it is ejected, or a look for replies
    /// that nobody waits for.
    fn tend(pool: &Self::Pool, ring: &Arc<Ring>, node: usize, now: Instant);

    /// Carries out an operation, over the nodes as they were when it began.
    fn drive<O: Operation + Send>(
        &self,
        operation: &mut O,
        snapshot: &Snapshot<Self::Pool>,
    ) -> impl Future<Output = ()> + Send;

    /// Waits for what other callers do, until `at` at most.
    fn until<T: Send>(
        &self,
        at: Instant,
        event: impl Future<Output = T> + Send,
    ) -> impl Future<Output = Option<T>> + Send;

    /// Does `work`, and once begun to its end, even if nobody waits for that any more.
    fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send;

    /// Does `work` behind the caller. If that cannot be, it is dropped.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static);

    /// The client's options, or what a view of it has in their place.
    fn options(&self) -> &Arc<ClientOptions> {
        &self.shared().options
    }

    fn values(&self) -> &Values {
        &self.shared().values
    }

    /// The nodes as they are now.
    fn ring(&self) -> Arc<Ring> {
        self.shared().snapshot().ring.clone()
    }
}

/// Has a front do what a method stands for.
pub(crate) async fn call<F: Front, O: Operation + Send, D: FnOnce(O) -> R, R>(
    front: &F,
    begin: impl FnOnce(Context) -> Call<O, D>,
) -> R {
    let options = front.options();
    let now = front.now();
    let snapshot = front.shared().begin(now);
    for (node, pool) in snapshot.pools.iter().enumerate() {
        F::tend(pool, &snapshot.ring, node, now);
    }
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let unix_s = unix.unwrap_or_default().as_secs();
    let context = Context::new(snapshot.ring.clone(), options.clone(), now, unix_s);
    let Call {
        mut operation,
        finish,
    } = begin(context);
    #[cfg(feature = "tracing")]
    let op = operation.op();
    let driven = front.drive(&mut operation, &snapshot);
    #[cfg(feature = "tracing")]
    let driven = crate::span::spanned(op, driven);
    driven.await;
    if !Arc::ptr_eq(&snapshot.ring, &front.ring())
        && let Some(replaced) = operation.replaced()
    {
        follow(front, &replaced, snapshot, (operation.deadline(), unix_s)).await;
    }
    finish(operation)
}

/// The nodes changed while something was replaced on those of `old`.
async fn follow<F: Front>(
    front: &F,
    replaced: &Replaced,
    mut old: Arc<Snapshot<F::Pool>>,
    (deadline, unix_s): (Instant, u64),
) {
    loop {
        let snapshot = front.shared().snapshot();
        if Arc::ptr_eq(&snapshot.ring, &old.ring) {
            return;
        }
        let (ring, options) = (snapshot.ring.clone(), front.options().clone());
        let mut context = Context::new(ring, options, front.now(), unix_s);
        context.deadline = deadline;
        let mut operation = calls::follow(context, replaced, old.ring.clone());
        front.drive(&mut operation, &snapshot).await;
        old = snapshot;
    }
}

/// Keys in a piece of a batch: more than that are worth less and less, and take a node longer than an attempt may.
const PIECE_KEYS_MAX: usize = 2_000;
/// Bytes of keys and values in a piece, unless it is one.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// Has a front do for many items what a method stands for: in pieces, one after the other, each with the time of an operation. Where all
/// of a piece fails by its nodes, what is left would too, and is not tried. `bytes` is how many an item is sent as.
pub(crate) async fn call_many<F: Front, T, O, D, R>(
    front: &F,
    mut items: Vec<T>,
    bytes: impl Fn(&T) -> usize,
    begin: impl Fn(Context, Vec<T>) -> Call<O, D>,
) -> Vec<Result<R>>
where
    O: Operation + Send,
    D: FnOnce(O) -> Vec<Result<R>>,
{
    let mut results = Vec::new();
    loop {
        let mut room = PIECE_BYTES_MAX;
        let fits = items.iter().take(PIECE_KEYS_MAX).take_while(|item| {
            let fits = room > 0;
            room = room.saturating_sub(bytes(item));
            fits
        });
        let rest = items.split_off(fits.count());
        let of_piece = call(front, |context| begin(context, items)).await;
        if rest.is_empty() && results.is_empty() {
            return of_piece;
        }
        let broken = |result: &Result<R>| matches!(result, Err(error) if error.is_unavailable());
        let hopeless = match of_piece.first() {
            Some(Err(error)) if of_piece.iter().all(broken) => Some(error.clone()),
            _ => None,
        };
        results.extend(of_piece);
        if let Some(error) = hopeless {
            results.extend(rest.iter().map(|_| Err(error.clone())));
            return results;
        }
        if rest.is_empty() {
            return results;
        }
        items = rest;
    }
}

/// What is done at the end, even if a future is dropped half way: what was sent may be carried out all the same.
pub(crate) struct OnDrop<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The result of a future that does not wait.
pub(crate) fn done<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Task::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("the blocking front waits within"),
    }
}
