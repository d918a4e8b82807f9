//! What a read asks, and how: by classic `get` or by `mg`, one request a node.

use std::time::Instant;

use super::{Part, Read, Sent};
use crate::options::Reads;
use crate::request::{self, Requests, Wanted};
use crate::routing::spreads_hot_keys;
use crate::{Exchange, Todo};

impl Read<'_> {
    /// What is wanted of the next copy that is asked for `key`.
    pub(super) fn wanted(&self, key: u32) -> Wanted {
        let state = &self.states[key as usize];
        let repairs = !state.missed.is_empty() || !state.settling.is_empty();
        Wanted {
            ttl: self.wanted.ttl || repairs,
            cas: self.wanted.cas || repairs,
            ..self.wanted
        }
    }

    /// The same, and whether the key is hot: that is asked by one request of an exchange, where its copies can share the reads.
    fn wanted_with_heat(&self, key: u32) -> Wanted {
        let heat = spreads_hot_keys(&self.context.options) && self.wanted.is_value_only();
        Wanted {
            heat,
            ..self.wanted(key)
        }
    }

    /// Chooses the node to ask for `key`, and how: by classic `get` (plain) or by `mg`.
    pub(super) fn choose(
        &mut self,
        key: u32,
        batched: bool,
        now: Instant,
    ) -> Option<(usize, bool)> {
        if self.states[key as usize].result.is_some() {
            return None;
        }
        let Some(node) = self.next_reader(key, now) else {
            self.exhausted(key, now);
            return None;
        };
        let state = &mut self.states[key as usize];
        state.tried.push(node);
        state.pending += 1;
        let by_meta = !batched || state.by_meta || self.wanted(key) != Wanted::default();
        let plain = !by_meta && !request::is_binary(self.keys[key as usize]);
        Some((node, plain))
    }

    pub(super) fn send_due(&mut self, now: Instant, todo: &mut Todo) {
        let due = std::mem::take(&mut self.due);
        let hedge_at = match self.context.options.reads {
            Reads::Hedged(delay) => Some(now + delay),
            _ => None,
        };
        let sent = |node, keys| Sent {
            node,
            keys,
            answered: 0,
            refused: None,
            hedge_at,
            part: Part::Ask,
        };
        if let &[key] = &due[..] {
            if let Some((node, _)) = self.choose(key, false, now) {
                let bytes = self.keys[key as usize];
                let mut request = Requests::new(1, 0);
                request::get(&mut request, bytes, self.wanted_with_heat(key), false);
                self.send(todo, now, request, sent(node, due));
            }
            return;
        }
        // What comes on one node if the keys are spread evenly and alike.
        let share = due.len() / self.context.ring.members.len().max(1) + 1;
        let key_len = due.first().map_or(0, |&key| self.keys[key as usize].len());
        let room = 32 + share * (key_len + 1);
        // By node, those that go by classic `get` behind the others.
        let mut batches = vec![Vec::new(); 2 * self.context.ring.members.len()];
        for key in due {
            if let Some((node, plain)) = self.choose(key, true, now) {
                let batch: &mut Vec<u32> = &mut batches[2 * node + usize::from(plain)];
                if batch.is_empty() {
                    batch.reserve(share);
                }
                batch.push(key);
            }
        }
        for (at, keys) in batches.into_iter().enumerate() {
            let Some((&last, others)) = keys.split_last() else {
                continue;
            };
            let (node, plain) = (at / 2, at % 2 == 1);
            let mut request = Requests::new(keys.len(), room);
            for &key in others {
                let bytes = self.keys[key as usize];
                if plain {
                    request::get_plain(&mut request, bytes);
                } else {
                    request::get(&mut request, bytes, self.wanted(key), true);
                }
            }
            request::get(
                &mut request,
                self.keys[last as usize],
                self.wanted_with_heat(last),
                false,
            );
            self.send(todo, now, request, sent(node, keys));
        }
    }

    pub(super) fn send(&mut self, todo: &mut Todo, now: Instant, request: Requests, sent: Sent) {
        if let Some(at) = sent.hedge_at {
            todo.wake(at);
        }
        let (request, expect) = request.finish();
        todo.send.push(Exchange {
            id: self.sent.len() as u32,
            node: sent.node,
            request,
            expect,
            deadline: self.context.attempt_deadline(now),
            repeatable: true,
            must_send: !matches!(sent.part, Part::Ask | Part::Notices(_)),
        });
        self.sent.push(sent);
    }
}
