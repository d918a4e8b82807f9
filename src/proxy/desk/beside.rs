//! What goes to other pools without being waited for, and what is let through at all.
//!
//! Bd1. What nobody waits for is bounded, in number and bytes; what is more is left out, and counted. So a pool that hangs holds up no
//!      client, and takes no memory.

use std::sync::atomic::Ordering::Relaxed;

use protocol::{ErrorLine, Request};

use super::Desk;
use crate::proxy::rates::Bucket;
use crate::proxy::verbs::Job;
use crate::state::ConnId;

/// Bytes of requests under way in operations from which on clients wait with theirs.
const OP_BYTES_MAX: usize = 32 << 20;

impl Desk {
    /// True if there is anything to be refused.
    #[inline]
    pub(in crate::proxy) fn judges(&self) -> bool {
        self.plan.judges
    }

    /// Why these keys may not be asked for, or changed.
    pub(in crate::proxy) fn judge(
        &self,
        user: Option<&[u8]>,
        keys: &[&[u8]],
        changes: bool,
        deletes: bool,
    ) -> Option<ErrorLine> {
        let counts = &self.control.counts;
        let routes = keys.iter().filter_map(|key| self.route_of(key));
        let mut places: Vec<usize> = routes.collect();
        let is_refused = |at: &usize| {
            let spec = &self.plan.routes[*at].spec;
            spec.read_only && changes && !(deletes && spec.allow_deletes)
        };
        if places.iter().any(is_refused) {
            counts.read_only.fetch_add(1, Relaxed);
            return Some(ErrorLine::ReadOnly);
        }
        let is_taken = |bucket: &Bucket, count| bucket.take(count, self.now);
        let mut all = self
            .bucket_of(user)
            .is_none_or(|bucket| is_taken(bucket, keys.len().max(1)));
        places.sort_unstable();
        for run in places.chunk_by(|one, other| one == other) {
            if let Some(bucket) = &self.plan.routes[run[0]].bucket {
                all = all && is_taken(bucket, run.len());
            }
        }
        if !all {
            counts.limited.fetch_add(1, Relaxed);
        }
        (!all).then_some(ErrorLine::Busy)
    }

    /// The same of `flush_all`.
    pub(in crate::proxy) fn judge_flush(&self, user: Option<&[u8]>) -> Option<ErrorLine> {
        if self.pools_to_flush().is_empty() {
            self.control.counts.read_only.fetch_add(1, Relaxed);
            return Some(ErrorLine::ReadOnly);
        }
        self.judge(user, &[], false, false)
    }

    fn bucket_of(&self, user: Option<&[u8]>) -> Option<&Bucket> {
        let user = user?;
        let mut users = self.plan.users.iter();
        let known = users.find(|(name, _)| name.as_bytes() == user)?;
        Some(&known.1)
    }

    /// True if so much is under way that a client had better wait; it is woken when there is less.
    pub(in crate::proxy) fn is_busy(&mut self, conn: ConnId) -> bool {
        let is_busy = self.op_bytes >= OP_BYTES_MAX;
        if is_busy && !self.waiting.contains(&conn) {
            self.waiting.push(conn);
        }
        is_busy
    }

    /// The pool that is to be sent what is asked about a key as well.
    #[inline]
    pub(in crate::proxy) fn shadowed(&self, key: &[u8]) -> Option<usize> {
        match self.plan.shadows {
            true => self.plan.routes[self.route_of(key)?].shadow(key),
            false => None,
        }
    }

    /// Sends a shadow pool what is asked about a key, if that is among its share.
    pub(in crate::proxy) fn shadow(&mut self, key: &[u8], job: impl FnOnce() -> Job) {
        if let Some(pool) = self.shadowed(key) {
            let job = job();
            self.send_shadow(pool, job);
        }
    }

    fn send_shadow(&mut self, pool: usize, job: Job) {
        let counts = self.control.clone();
        match self.beside(pool, job) {
            true => counts.counts.shadowed.fetch_add(1, Relaxed),
            false => counts.counts.shadow_dropped.fetch_add(1, Relaxed),
        };
    }

    /// What a request that is on its way brings to other pools: this one to a shadow pool, and deletes to those that are told.
    pub(in crate::proxy) fn beside_of(
        &mut self,
        key: &[u8],
        request: &Request<'_>,
        shadowed: Option<(usize, Job)>,
    ) {
        if let Some((pool, job)) = shadowed {
            self.send_shadow(pool, job);
        }
        if !self.plan.tells {
            return;
        }
        let Some(route) = self.route_of(key).map(|at| self.plan.routes[at].clone()) else {
            return;
        };
        if route.spec.delete_ack || !route.tells(request) {
            return;
        }
        let key = bytes::Bytes::copy_from_slice(key);
        for &pool in &route.spec.delete_to {
            let counts = self.control.clone();
            match self.beside(pool, Job::Delete(key.clone())) {
                true => counts.counts.fanned_out.fetch_add(1, Relaxed),
                false => counts.counts.fan_out_dropped.fetch_add(1, Relaxed),
            };
        }
    }
}
