//! Nodes that fail and come back, as far as one node's fate is the others' business.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Ring;
use crate::health::Standing;
use crate::options::ClientOptions;

/// How often it is looked whether stand-ins are still needed, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl Ring {
    /// Looks which keys `node` holds for others that are needed there no more: those whose own nodes are all back, and
    /// settled. They are to be deleted. What has become the node's own by a change of the list stays.
    fn sweep(&self, node: usize, now: Instant, options: &ClientOptions) {
        let member = &self.members[node];
        let settled = |&node: &usize| self.members[node].standing(now) == Standing::Live;
        let mut needed = false;
        for key in member.sweep_due(now) {
            let own = self.own(&key, options);
            if own.contains(node) {
                member.settled_in(&key);
            } else if own.iter().all(|node| settled(&node)) {
                member.settled_in(&key);
                member.missed(&key, now, options);
            } else {
                needed = true;
            }
        }
        if needed {
            member.sweep_by(now + options.settle.max(SWEEP_EVERY));
        }
    }

    /// An exchange with `node` failed by its fault: perhaps it is ejected. Of the nodes of the placement, at most a share
    /// ([`eject_share`](ClientOptions::eject_share)) is out at a time, and never the last: where most seem to be down, it is
    /// more likely that the network is, or this process, and who keeps trying notices first when it is over.
    pub fn failed(&self, node: usize, now: Instant, options: &ClientOptions) -> bool {
        let member = &self.members[node];
        let ejecting = self.ejecting.lock();
        let _ejecting = ejecting.unwrap_or_else(PoisonError::into_inner);
        let may_go = || {
            let out = self.members[..self.own].iter().filter(|one| !one.is_in());
            node >= self.own || out.count() < self.out_max(options)
        };
        let ejected = member.failed(now, options, self.random(), may_go);
        if ejected && let Some(metrics) = &options.metrics {
            metrics.ejected(&member.name);
        }
        ejected
    }

    /// How many nodes may be ejected at a time: one where there is another, and more if the share says so.
    fn out_max(&self, options: &ClientOptions) -> usize {
        let share = (self.own as f64 * options.eject_share.clamp(0.0, 1.0)) as usize;
        share.max(1).min(self.own.saturating_sub(1))
    }

    /// An exchange with `node` ended well. If it had seemed to be down, others may be back as well.
    #[inline]
    pub fn worked(&self, node: usize, options: &ClientOptions) {
        if self.members[node].worked(options) {
            self.members.iter().for_each(|member| member.hurry(options));
        }
    }

    /// A probe of `node` was not answered. While there is no node to ask, probes are the only way back: they come often.
    pub fn probe_failed(&self, node: usize, now: Instant, options: &ClientOptions) {
        let all_out = self.members[..self.own].iter().all(|one| !one.is_in());
        let at_most = match all_out {
            true => options.probe_after,
            false => options.probe_after_max,
        };
        self.members[node].probe_failed(now, options, self.random(), at_most);
    }

    /// Counts the failures of `node` that nobody waited for; see [`Member::tend`].
    pub fn tend(&self, node: usize, now: Instant, options: &ClientOptions) {
        let failed = || self.failed(node, now, options);
        self.members[node].tend(now, options, failed);
        self.sweep(node, now, options);
    }

    /// A probe of `node` was answered.
    pub fn probe_answered(&self, node: usize, now: Instant, options: &ClientOptions) -> bool {
        let back = self.members[node].probe_answered(now, options);
        if back {
            self.members.iter().for_each(|member| member.hurry(options));
            let settled_at = now + options.settle;
            self.members
                .iter()
                .for_each(|member| member.sweep_by(settled_at));
        }
        back
    }
}
