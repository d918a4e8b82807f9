//! What a write sends: to the copies, where keys were before a change, and to witnesses.

use std::time::Instant;

use bytes::Bytes;

use super::command::DELETE;
use super::{Command, PARTS, Part, Sent, Target, Write};
use crate::expect::Expect;
use crate::notices;
use crate::operation::{BLOCKED_PAUSE, Context};
use crate::options::Ack;
use crate::repairs;
use crate::request::{self, LINE_LEN, Requests, StoreMode, Wanted};
use crate::{Exchange, Todo};

impl Write<'_> {
    /// What is due, but for nodes that were ejected meanwhile: those have failed.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Target> {
        let mut live = std::mem::take(&mut self.due);
        if self.context.options.ack != Ack::None {
            self.postpone(&mut live, now);
        }
        let is_in = |context: &Context, node: u16| context.ring.members[usize::from(node)].is_in();
        if live.iter().all(|target| is_in(&self.context, target.node)) {
            return live;
        }
        let mut due = std::mem::take(&mut live);
        while !due.is_empty() {
            for target in due {
                let (at, node) = (target.entry as usize, usize::from(target.node));
                if is_in(&self.context, target.node) {
                    live.push(target);
                } else {
                    self.leave(target.part, at, node, now);
                }
            }
            // Stand-ins.
            due = std::mem::take(&mut self.due);
        }
        live
    }

    /// What would be deleted in the place of what keys had left there before comes later (W7).
    fn postpone(&mut self, targets: &mut Vec<Target>, now: Instant) {
        targets.retain(|target| {
            let member = &self.context.ring.members[usize::from(target.node)];
            let key = self.entries[target.entry as usize].key;
            let goes = target.part != Part::Copy || member.is_cleared(key);
            if !goes {
                self.later.push(now + BLOCKED_PAUSE, *target);
            }
            goes
        });
    }

    /// Notes the debts that are paid by what is sent now.
    fn note_debts(&mut self, targets: &[Target]) {
        for &Target { entry, node, part } in targets {
            let key = self.entries[entry as usize].key;
            if part == Part::Copy
                && let Some(debt) = self.context.ring.members[usize::from(node)].debt(key)
                && self.command.replaces()
            {
                self.pays.push((entry, node, debt));
            }
        }
    }

    /// A copy has taken an entry: what was owed to it before is paid.
    pub(super) fn pay(&mut self, at: usize, node: usize) {
        let of =
            |&(entry, to, _): &(u32, u16, u64)| entry as usize == at && usize::from(to) == node;
        for (_, _, debt) in self.pays.extract_if(.., |one| of(one)) {
            self.context.ring.members[node].paid(self.entries[at].key, debt);
        }
    }

    pub(super) fn send_due(&mut self, now: Instant, todo: &mut Todo) {
        let due = self.take_due(now);
        if due.is_empty() {
            return;
        }
        self.note_debts(&due);
        // A single value that goes to several copies is encoded once.
        if let &[entry] = &self.entries[..] {
            let encoded = |write: &Self, target| {
                let room = entry.byte_count() + LINE_LEN;
                let mut request = Requests::new(1, room).marked(write.context.options.origin);
                write.encode(target, &mut request);
                request.finish()
            };
            let mut request = None;
            for target in due {
                let Target { node, part, .. } = target;
                let request = if part == Part::Copy {
                    let copy = || encoded(self, target);
                    request.get_or_insert_with(copy).clone()
                } else {
                    encoded(self, target)
                };
                let entries = vec![0];
                let sent = Sent {
                    node: usize::from(node),
                    part,
                    entries,
                    answered: 0,
                };
                self.send(todo, now, request, sent);
            }
            return;
        }
        let mut batches: Vec<Option<(Requests, Vec<u32>)>> = Vec::new();
        batches.resize_with(PARTS.len() * self.context.ring.members.len(), || None);
        let (count, origin) = (due.len(), self.context.options.origin);
        for target in due {
            let Target { entry, node, part } = target;
            let batch = &mut batches[PARTS.len() * usize::from(node) + part as usize];
            let (request, entries) =
                batch.get_or_insert_with(|| (Requests::new(count, 0).marked(origin), Vec::new()));
            self.encode(target, request);
            entries.push(entry);
        }
        for (at, batch) in batches.into_iter().enumerate() {
            if let Some((request, entries)) = batch {
                let (node, part) = (at / PARTS.len(), PARTS[at % PARTS.len()]);
                let sent = Sent {
                    node,
                    part,
                    entries,
                    answered: 0,
                };
                self.send(todo, now, request.finish(), sent);
            }
        }
    }

    /// Adds what a copy of an entry is asked.
    fn encode(&self, Target { entry, node, part }: Target, out: &mut Requests) {
        let at = entry as usize;
        let entry = &self.entries[at];
        match part {
            Part::Copy => self.command(at).encode(out, entry),
            Part::Look => {
                let wanted = Wanted {
                    cas: true,
                    ..Wanted::default()
                };
                request::get(out, entry.key, wanted, false);
            }
            Part::Noted => {
                let mut seen = self.states[at].seen.iter();
                let seen = seen.find(|seen| seen.node == node);
                let note = seen.map(|seen| repairs::note_key(entry.key, &seen.item));
                request::look(out, note.unwrap_or_default().as_bytes());
            }
            Part::Undo => {
                let mut seen = self.states[at].undoing.iter();
                let seen = seen.find(|seen| seen.node == node);
                // Nodes without CAS uniques give 0.
                let compare = seen.map(|seen| seen.unique).filter(|&unique| unique != 0);
                Command::Delete { compare }.encode(out, entry);
            }
            Part::Before | Part::Former | Part::Notice => DELETE.encode(out, entry),
        }
    }

    pub(super) fn send(
        &mut self,
        todo: &mut Todo,
        now: Instant,
        (request, expect): (Bytes, Expect),
        sent: Sent,
    ) {
        if !matches!(sent.part, Part::Look | Part::Noted)
            && (self.command.is_delete() || sent.part != Part::Copy)
        {
            let member = &self.context.ring.members[sent.node];
            for &at in &sent.entries {
                member.overtakes(self.entries[at as usize].key);
            }
        }
        todo.send.push(Exchange {
            id: self.sent.len() as u32,
            node: sent.node,
            request,
            expect,
            deadline: self.context.attempt_deadline(now),
            repeatable: sent.part != Part::Copy || self.command.is_repeatable(),
            must_send: true,
        });
        self.sent.push(sent);
    }

    /// Tells other clients of the nodes that the write goes around, or is about to, if that was not done lately.
    pub(super) fn post_notices(&mut self, now: Instant, todo: &mut Todo) {
        let Context { ring, options, .. } = &self.context;
        // As a rule all are well, and the keys need not be looked for.
        if options.copies < 2 || !ring.members.iter().any(|member| member.is_unwell()) {
            return;
        }
        let (ring, options) = (ring.clone(), options.clone());
        for entry in 0..self.entries.len() {
            let noticed = ring.noticed(self.entries[entry].key, now, &options);
            for node in noticed.iter() {
                let member = &ring.members[node];
                if member.is_to_be_noticed(now) {
                    for witness in ring
                        .witnesses(node)
                        .filter(|&one| ring.members[one].is_in())
                    {
                        let mut request = Requests::new(1, 0);
                        let key = notices::key(member.identity);
                        let (value, mode) = ((&b"1"[..], 0), StoreMode::Set);
                        let exptime = notices::TTL_S;
                        request::store(
                            &mut request,
                            key.as_bytes(),
                            value,
                            exptime,
                            mode,
                            None,
                            false,
                        );
                        let sent = Sent {
                            node: witness,
                            part: Part::Notice,
                            entries: Vec::new(),
                            answered: 0,
                        };
                        self.send(todo, now, request.finish(), sent);
                    }
                }
                if !member.is_in() && options.ack != Ack::None {
                    self.held_until = self.held_until.max(member.held_until(now));
                }
            }
        }
    }
}
