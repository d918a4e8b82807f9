//! Copies that cannot be written: another attempt, a stand-in, or a debt (W1, W4, W5).

use std::time::Instant;

use super::{Part, Target, Write};
use crate::error::{Error, Failure};
use crate::operation::{Context, was_not_done};
use crate::options::OnEjection;

impl Write<'_> {
    /// The delete of a key where it was before a change failed.
    pub(super) fn failed_before(&mut self, at: usize, node: usize, failure: Failure, now: Instant) {
        if !self.command.is_delete() {
            return self.leave_before(at, node, now);
        }
        let ring = &self.context.ring;
        let state = &mut self.states[at];
        state.attempts = state.attempts.saturating_add(1);
        let is_in = ring.members[node].is_in();
        if is_in && let Some(retry) = self.context.retry_at(u32::from(state.attempts), now) {
            let target = Target {
                entry: at as u32,
                node: node as u16,
                part: Part::Before,
            };
            self.later.push(retry, target);
            return;
        }
        if is_in {
            state.left_behind = true;
            state.error = Some(self.context.node_error(node, failure));
        }
        self.leave_before(at, node, now);
    }

    /// A target is given up.
    pub(super) fn leave(&mut self, part: Part, at: usize, node: usize, now: Instant) {
        match part {
            Part::Copy => self.do_without(at, node, now),
            Part::Before => self.leave_before(at, node, now),
            Part::Former => {
                self.left -= 1;
                let Context { ring, options, .. } = &self.context;
                ring.members[node].not_left(self.entries[at].key, now, options);
            }
            Part::Notice => {}
            Part::Look | Part::Noted | Part::Undo if !self.command.is_delete() => {
                self.states[at].written.opposed = true;
                self.looked(at, part, now);
            }
            Part::Look | Part::Noted | Part::Undo => {
                let Context { ring, options, .. } = &self.context;
                ring.members[node].unsure(self.entries[at].key, now, options);
                self.looked(at, part, now);
            }
        }
    }

    /// A key is not deleted where it was before a change: its node is to do so later.
    pub(super) fn leave_before(&mut self, at: usize, node: usize, now: Instant) {
        let Context { ring, options, .. } = &self.context;
        ring.members[node].not_left(self.entries[at].key, now, options);
        if self.command.is_delete() {
            self.states[at].places_before -= 1;
            self.states[at].unheard = true;
            self.settle(at);
        } else {
            self.left -= 1;
        }
    }

    /// Others do not know yet of the nodes that were gone around, and the time is over: nothing of that is acknowledged (W5).
    pub(super) fn leave_untold(&mut self) {
        let Context { ring, options, .. } = &self.context;
        for (state, entry) in self.states.iter_mut().zip(&self.entries) {
            if matches!(state.result, Some(Ok(_))) && !ring.is_whole(entry.key, options) {
                let error = state.error.clone().unwrap_or(Error::Timeout);
                state.result = Some(Err(error));
            }
        }
    }

    pub(super) fn failed(&mut self, at: usize, node: usize, failure: Failure, now: Instant) {
        let ring = &self.context.ring;
        let state = &mut self.states[at];
        state.attempts = state.attempts.saturating_add(1);
        state.error = Some(self.context.node_error(node, failure));
        let again = self.command.is_repeatable() || was_not_done(failure);
        if again
            && ring.members[node].is_in()
            && let Some(retry) = self.context.retry_at(u32::from(state.attempts), now)
        {
            let target = Target {
                entry: at as u32,
                node: node as u16,
                part: Part::Copy,
            };
            self.later.push(retry, target);
            return;
        }
        self.do_without(at, node, now);
    }

    /// A copy is not written: a stand-in is, if there is to be one.
    pub(super) fn do_without(&mut self, at: usize, node: usize, now: Instant) {
        let Context { ring, options, .. } = &self.context;
        let key = self.entries[at].key;
        let is_whole = self.is_whole();
        let state = &mut self.states[at];
        ring.members[node].unsure(key, now, options);
        state.hoped -= 1;
        state.unheard = true;
        if is_whole && !ring.members[node].is_in() && options.on_ejection == OnEjection::Rehash {
            let writers = ring.writers(key, now, options);
            if let Some(stand_in) = writers.first_beside(&state.targets)
                && writers.len() > usize::from(state.hoped) + usize::from(state.acknowledged)
            {
                state.targets.push(stand_in);
                state.hoped += 1;
                self.due.push(Target {
                    entry: at as u32,
                    node: stand_in as u16,
                    part: Part::Copy,
                });
            } else if options.ack_live {
                // Nobody is left to take this copy.
                state.wanted = state.wanted.min(writers.len().max(1) as u8);
            }
        }
        self.settle(at);
    }
}
