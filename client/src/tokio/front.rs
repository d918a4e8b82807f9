//! How the async client carries out what is written over a [`Front`].

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use ::tokio::time::timeout_at;

use super::behind::finish;
use super::pool::Pool;
use super::{AsyncClient, drive};
use crate::front::Front;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use client_core::Operation;
use client_core::options::ClientOptions;
use client_core::routing::Ring;

impl Front for AsyncClient {
    type Pool = Pool;

    /// Each is a task; what they may do to what they load from is the bound.
    const REFRESHES_MAX: usize = 64;

    fn shared(&self) -> &Shared<Pool> {
        &self.shared
    }

    fn options(&self) -> &Arc<ClientOptions> {
        &self.options
    }

    fn now(&self) -> Instant {
        super::now()
    }

    fn tend(pool: &Pool, ring: &Arc<Ring>, node: usize, now: Instant) {
        if pool.member.is_unwell() {
            pool.probe(ring, node, now);
        }
    }

    fn drive<O: Operation + Send>(
        &self,
        operation: &mut O,
        snapshot: &Snapshot<Pool>,
    ) -> impl Future<Output = ()> + Send {
        drive::drive(operation, &snapshot.pools, &self.shared.options)
    }

    async fn until<T: Send>(
        &self,
        at: Instant,
        event: impl Future<Output = T> + Send,
    ) -> Option<T> {
        timeout_at(at.into(), event).await.ok()
    }

    fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        finish(work)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        ::tokio::spawn(work);
    }
}
