//! What time brings: who is late fails, and nodes that are away are probed.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use client_core::error::Failure;
use client_core::health::Member;

use super::parts::{Clients, Read, ms};
use super::{Desk, TICK_MS};
use crate::proxy::lane::{Lane, Owner, Replies, Stage, Ticket};
use crate::proxy::plan::Pool;

impl Desk {
    /// The place of a pool among those that there are, and of a node among its nodes; none if they are gone.
    pub(super) fn node_of(&self, pool: &Arc<Pool>, member: &Arc<Member>) -> Option<(usize, usize)> {
        let mut views = self.views.iter();
        let view = views.position(|view| Arc::ptr_eq(&view.pool, pool))?;
        let mut members = self.views[view].now.ring.members.iter();
        let node = members.position(|other| Arc::ptr_eq(other, member))?;
        Some((view, node))
    }

    #[cold]
    pub(super) fn worked(&self, pool: &Arc<Pool>, member: &Arc<Member>) {
        if let Some((view, node)) = self.node_of(pool, member) {
            let view = &self.views[view];
            view.now.ring.worked(node, &view.pool.options);
        }
    }

    pub(super) fn probed(&self, pool: &Arc<Pool>, member: &Arc<Member>, answered: bool) {
        if let Some((view, node)) = self.node_of(pool, member) {
            let view = &self.views[view];
            let (ring, options) = (&view.now.ring, &view.pool.options);
            if answered {
                ring.probe_answered(node, self.now, options);
            } else {
                ring.probe_failed(node, self.now, options);
                view.now.doubt(node);
            }
        }
    }

    /// Does what is due: who is late fails, operations whose time has come go on, nodes that are away are probed.
    pub fn tick<'c>(&mut self, clients: &mut impl Clients<'c>) {
        while let Some(&Reverse((when, at, generation))) = self.timers.peek()
            && when <= self.now
        {
            self.timers.pop();
            if self
                .ops
                .get(at)
                .is_some_and(|op| op.generation == generation)
            {
                self.make_due(at);
            }
        }
        if self.now_ms - self.ticked_ms >= TICK_MS {
            self.ticked_ms = self.now_ms;
            let lanes: Vec<usize> = self.lanes.iter().map(|(at, _)| at).collect();
            for at in lanes {
                self.look(at, clients);
            }
            if self.tends {
                self.tend();
            }
        }
        self.run(clients);
    }

    /// Looks who of a lane's is late.
    fn look<'c>(&mut self, at: usize, clients: &mut impl Clients<'c>) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        if lane.is_broken {
            return self.failed(at, Failure::Garbage, clients);
        }
        match lane.stage {
            Stage::Connecting(until) | Stage::LookingUp(until) if self.now_ms >= until => {
                return self.failed(at, Failure::Connect, clients);
            }
            Stage::LookingUp(_) if !lane.is_dirty => {
                lane.is_dirty = true;
                self.dirty.push(at);
            }
            _ => {}
        }
        let (pool, member) = (lane.pool.clone(), lane.member.clone());
        let options = &pool.options;
        let timeout_ms = ms(options.attempt_timeout);
        // Who waits for others is in time as long as something comes, but not for ever.
        let patience_ms = ms(options.request_timeout).saturating_sub(timeout_ms);
        let is_silent = self.now_ms >= lane.heard_ms + timeout_ms;
        if !lane.tickets.is_empty() && self.now_ms >= lane.heard_ms + 2 * timeout_ms.max(TICK_MS) {
            return self.failed(at, Failure::Timeout, clients);
        }
        let mut late = Vec::new();
        for ticket in &mut lane.tickets {
            if self.now_ms < ticket.due_ms {
                // Those behind came later.
                if matches!(ticket.replies, Replies::One(_)) {
                    break;
                }
                continue;
            }
            let is_late = is_silent || self.now_ms >= ticket.due_ms + patience_ms;
            if !is_late || matches!(ticket.owner, Owner::Nobody) {
                continue;
            }
            let shape = ticket.replies.shape();
            late.push(Ticket {
                replies: Replies::One(shape),
                owner: std::mem::replace(&mut ticket.owner, Owner::Nobody),
                due_ms: ticket.due_ms,
                read: ticket.read,
                watch: ticket.watch.take(),
            });
        }
        let lane = &self.lanes[at];
        let late: Vec<_> = late
            .into_iter()
            .map(|ticket| (Read::of(lane, &ticket), ticket))
            .collect();
        for (read, ticket) in late {
            self.control.counts.timeouts.fetch_add(1, Relaxed);
            self.fail((&pool, &member), ticket, read, Failure::Timeout, clients);
        }
    }

    /// Sees to nodes that are away, or owed something.
    fn tend(&mut self) {
        for pool in 0..self.views.len() {
            let view = &self.views[pool];
            let (now, options) = (view.now.clone(), view.pool.options.clone());
            for (node, member) in now.ring.members.iter().enumerate() {
                now.ring.tend(node, self.now, &options);
                if !member.is_unwell() {
                    continue;
                }
                if let Some(request) = member.probe_due(self.now) {
                    let pool = self.views[pool].pool.clone();
                    let mut lane = Lane::new(pool, member.clone(), false, self.era);
                    lane.is_probe = true;
                    let at = self.lanes.insert(lane);
                    self.out(at).bytes(&request);
                    let patience = options.connect_timeout + options.attempt_timeout;
                    self.push(
                        at,
                        Replies::UntilNoop,
                        Owner::Probe,
                        self.now_ms + ms(patience),
                    );
                }
            }
        }
    }
}
