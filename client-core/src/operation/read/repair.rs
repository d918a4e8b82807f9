//! Copies that missed are given what another has: see D2 to D5 of [`read`](super).

use std::time::Instant;

use super::{Copied, Hit, Part, Read, Sent, State};
use crate::Todo;
use crate::health::Marks;
use crate::operation::Context;
use crate::repairs::{self, MOMENT, MOMENT_S};
use crate::reply::{Refusal, Reply};
use crate::request::{self, Requests, StoreMode, Wanted};
use crate::routing::{Nodes, Ring};
use crate::unawaited::{Does, Unawaited};
use crate::value::{Item, exptime_s};

/// What marks a value that is given to `node` (D6).
fn mark(ring: &Ring, node: u16) -> Option<u64> {
    let member = &ring.members[usize::from(node)];
    (member.marks() == Marks::Taken).then(|| repairs::mark(ring.random()))
}

impl Read<'_> {
    /// Sends what repairs have come to.
    pub(super) fn send_repairs(&mut self, now: Instant, todo: &mut Todo) {
        self.add_copies(now, todo);
        self.look_at_sources(now, todo);
        self.end_repairs(now, todo);
        self.look_at_changed(now, todo);
        self.confirm_changed(now, todo);
    }

    /// An exchange of a repair.
    fn send_part(
        &mut self,
        todo: &mut Todo,
        now: Instant,
        (node, part): (u16, Part),
        request: Requests,
    ) {
        if request.is_empty() {
            return;
        }
        self.repairing += usize::from(self.is_awaited(&part));
        let sent = Sent {
            node: usize::from(node),
            keys: Vec::new(),
            answered: 0,
            refused: None,
            hedge_at: None,
            part,
        };
        self.send(todo, now, request, sent);
    }

    fn is_awaited(&self, part: &Part) -> bool {
        self.await_repairs
            || matches!(
                part,
                Part::VersionFirst
                    | Part::Note(_)
                    | Part::Add(_)
                    | Part::Look(_)
                    | Part::Confirm(_)
                    | Part::Again(_)
            )
    }

    /// The hit of a key.
    fn found(&self, key: u32) -> Option<&Hit> {
        self.states[key as usize]
            .result
            .as_ref()?
            .as_ref()
            .ok()?
            .as_ref()
    }

    /// The time to live that a repair is to have; `None` if it expires now, or nobody knows when.
    fn exptime(&self, hit: &Hit) -> Option<i32> {
        match (self.wanted.touch, hit.ttl) {
            (Some(exptime), _) => Some(exptime),
            (None, Some(-1)) => Some(0),
            (None, Some(left @ 1..)) => Some(exptime_s(left.unsigned_abs(), self.context.unix_s)),
            _ => None,
        }
    }

    fn add_copies(&mut self, now: Instant, todo: &mut Todo) {
        if self.repairs.is_empty() {
            return;
        }
        let mut repairs = std::mem::take(&mut self.repairs);
        repairs.sort_unstable();
        for batch in repairs.chunk_by(|a, b| a.0 == b.0) {
            let to = batch[0].0;
            let marks = self.context.ring.members[usize::from(to)].marks();
            if marks == Marks::Unknown {
                self.repairs.extend_from_slice(batch);
                self.ask_first(to, now, todo);
                continue;
            }
            let origin = self.context.options.origin;
            let mut adds = Requests::new(batch.len(), 0).marked(origin);
            let mut notes = Requests::new(batch.len(), 0);
            let mut touches = Requests::new(batch.len(), 0);
            let (mut copies, mut noted) = (Vec::new(), Vec::new());
            for &(_, key, is_noted) in batch {
                let Some(hit) = self.found(key) else { continue };
                let State {
                    missed, settling, ..
                } = &self.states[key as usize];
                let bytes = self.keys[key as usize];
                let lacks = |nodes: &Nodes| nodes.contains(usize::from(to));
                if let Some(exptime) = self.wanted.touch
                    && !lacks(missed)
                    && !lacks(settling)
                {
                    request::touch(&mut touches, bytes, exptime);
                    continue;
                }
                let Some(exptime) = self.exptime(hit) else {
                    continue;
                };
                match marks {
                    Marks::Refused if !is_noted => {
                        let note = repairs::note_key(bytes, &hit.item);
                        let ttl_s = repairs::note_ttl_s(self.context.options.request_timeout);
                        let (value, mode) = ((&b"1"[..], 0), StoreMode::Set);
                        request::store(
                            &mut notes,
                            note.as_bytes(),
                            value,
                            ttl_s,
                            mode,
                            None,
                            false,
                        );
                        noted.push(key);
                        continue;
                    }
                    _ => {}
                }
                // A node that has no CAS uniques cannot be looked at again.
                let exptime = match (hit.cas, exptime) {
                    (0, exptime) => exptime,
                    (_, 1..MOMENT_S) => exptime,
                    _ => MOMENT_S,
                };
                let value = (&hit.item.value[..], hit.item.flags);
                let mode = StoreMode::Add;
                let Context { ring, options, .. } = &self.context;
                let mark = mark(ring, to);
                request::store_as(&mut adds, bytes, value, exptime, mode, (None, mark), true);
                let unique = mark.unwrap_or_default();
                copies.push(Copied { key, to, unique });
                ring.given(usize::from(to), bytes, options);
            }
            self.send_part(todo, now, (to, Part::Note(noted)), notes);
            self.send_part(todo, now, (to, Part::Add(copies)), adds);
            self.send_part(todo, now, (to, Part::End), touches);
        }
    }

    /// Asks the version of a node that is to be given something, if that is not under way.
    fn ask_first(&mut self, to: u16, now: Instant, todo: &mut Todo) {
        let node = usize::from(to);
        let asks = |sent: &Sent| sent.node == node && sent.part == Part::VersionFirst;
        if !self.sent.iter().any(asks) {
            self.repairing += 1;
            self.ask_for_version(node, Part::VersionFirst, now, todo);
        }
    }

    fn look_at_sources(&mut self, now: Instant, todo: &mut Todo) {
        if self.looks.is_empty() {
            return;
        }
        let mut looks: Vec<(u16, Copied)> = Vec::new();
        for copied in std::mem::take(&mut self.looks) {
            if let Some(hit) = self.found(copied.key)
                && hit.cas != 0
            {
                looks.push((hit.node as u16, copied));
            }
        }
        looks.sort_unstable_by_key(|&(source, copied)| (source, copied.key));
        for batch in looks.chunk_by(|a, b| a.0 == b.0) {
            let copies: Vec<Copied> = batch.iter().map(|&(_, copied)| copied).collect();
            let mut request = Requests::new(copies.len(), 0);
            for copied in &copies {
                request::look(&mut request, self.keys[copied.key as usize]);
            }
            self.send_part(todo, now, (batch[0].0, Part::Look(copies)), request);
        }
    }

    fn end_repairs(&mut self, now: Instant, todo: &mut Todo) {
        if self.verdicts.is_empty() {
            return;
        }
        let mut verdicts = std::mem::take(&mut self.verdicts);
        verdicts.sort_unstable_by_key(|(copied, _)| (copied.to, copied.key));
        for batch in verdicts.chunk_by(|a, b| a.0.to == b.0.to) {
            let origin = self.context.options.origin;
            let mut requests = Requests::new(batch.len(), 0).marked(origin);
            let mut all = Vec::new();
            for &(copied, stays) in batch {
                let Copied { key, unique, .. } = copied;
                let bytes = self.keys[key as usize];
                let hit = self.found(key).filter(|_| stays);
                let unique = Some(unique);
                match hit.and_then(|hit| Some((hit, self.exptime(hit)?))) {
                    Some((hit, exptime)) => {
                        let value = (&hit.item.value[..], hit.item.flags);
                        let (mode, out) = (StoreMode::Set, &mut requests);
                        let unique = (unique, mark(&self.context.ring, batch[0].0.to));
                        request::store_as(out, bytes, value, exptime, mode, unique, false);
                        all.push((copied, true));
                    }
                    None => {
                        request::delete(&mut requests, bytes, unique);
                        all.push((copied, false));
                    }
                }
            }
            let part = Part::Confirm(all);
            self.send_part(todo, now, (batch[0].0.to, part), requests);
        }
    }

    fn look_at_changed(&mut self, now: Instant, todo: &mut Todo) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable_by_key(|copied| (copied.to, copied.key));
        for batch in changed.chunk_by(|a, b| a.to == b.to) {
            let mut request = Requests::new(batch.len(), 0);
            for copied in batch {
                let wanted = Wanted {
                    cas: true,
                    ttl: true,
                    ..Wanted::default()
                };
                request::get(&mut request, self.keys[copied.key as usize], wanted, false);
            }
            self.send_part(
                todo,
                now,
                (batch[0].to, Part::Again(batch.to_vec())),
                request,
            );
        }
    }

    /// What others have made of copies that were not confirmed yet is.
    fn confirm_changed(&mut self, now: Instant, todo: &mut Todo) {
        for (copied, item) in std::mem::take(&mut self.passing) {
            let hit = self.found(copied.key);
            let Some(exptime) = hit.and_then(|hit| self.exptime(hit)) else {
                continue;
            };
            let mut request = Requests::new(1, 0).marked(self.context.options.origin);
            let (key, value) = (
                self.keys[copied.key as usize],
                (&item.value[..], item.flags),
            );
            let unique = (Some(copied.unique), mark(&self.context.ring, copied.to));
            request::store_as(
                &mut request,
                key,
                value,
                exptime,
                StoreMode::Set,
                unique,
                false,
            );
            let part = Part::Confirm(vec![(copied, true)]);
            self.send_part(todo, now, (copied.to, part), request);
        }
    }

    /// A reply to a step of a repair.
    pub(super) fn repaired(&mut self, id: usize, reply: Reply, last: bool, now: Instant) {
        let sent = &mut self.sent[id];
        let (node, at) = (sent.node, sent.answered);
        sent.answered += 1;
        match (&mut sent.part, reply) {
            (Part::Note(keys), Reply::Ok(_)) => self.repairs.push((node as u16, keys[at], true)),
            (Part::Add(copies), Reply::Ok(meta)) => {
                let unique = meta.cas;
                self.looks.push(Copied {
                    unique,
                    ..copies[at]
                });
            }
            (Part::Add(_), Reply::Refused(Refusal::Client(_))) => {
                self.context.ring.members[node].takes_marks(false);
            }
            (Part::Look(copies), reply) => {
                let copied = copies[at];
                let seen = match reply {
                    Reply::Ok(meta) => meta.cas,
                    _ => 0,
                };
                let key = self.keys[copied.key as usize];
                let stays = self.found(copied.key).is_some_and(|hit| hit.cas == seen)
                    && self.context.ring.vouches(node, key, now);
                self.verdicts.push((copied, stays));
            }
            (Part::Confirm(all), Reply::Exists) => {
                let (copied, stays) = all[at];
                self.changed.extend(stays.then_some(copied));
            }
            (Part::Again(copies), Reply::Ok(meta)) => {
                let (copied, unique) = (copies[at], meta.cas);
                if repairs::is_passing(meta.ttl) && unique != 0 {
                    let (value, flags) = (meta.value, meta.flags);
                    let item = Item { value, flags };
                    self.passing.push((Copied { unique, ..copied }, item));
                }
            }
            _ => {}
        }
        if last {
            self.end_part(id);
            self.context.worked(node);
        }
    }

    /// A step of a repair is over.
    pub(super) fn end_part(&mut self, id: usize) {
        let part = std::mem::replace(&mut self.sent[id].part, Part::End);
        self.repairing -= usize::from(self.is_awaited(&part));
    }

    /// Notes what is not confirmed yet, and gives what watches over what is under way.
    pub(super) fn leave_repairs(&self, now: Instant) -> Vec<(u32, Unawaited)> {
        let Context { ring, options, .. } = &self.context;
        let mut watches = Vec::new();
        let unconfirmed_until = |until: Instant, copied: &Copied| {
            let key = self.keys[copied.key as usize];
            let member = &ring.members[usize::from(copied.to)];
            member.is_not_confirmed(key, copied.unique, (now, until), options);
        };
        let unconfirmed = |copied: &Copied| unconfirmed_until(now + MOMENT, copied);
        let verdicts = self.verdicts.iter().map(|(copied, _)| copied);
        let passing = self.passing.iter().map(|(copied, _)| copied);
        let there = self.looks.iter().chain(verdicts);
        there
            .chain(&self.changed)
            .chain(passing)
            .for_each(unconfirmed);
        for (id, sent) in self.sent.iter().enumerate() {
            let (does, keys): (_, Vec<u32>) = match &sent.part {
                Part::Add(copies) => {
                    let copies = copies[sent.answered..].iter();
                    // It may be stored until the time is over, and then lives for its moment.
                    let until = self.context.deadline + MOMENT;
                    let marked = copies.clone().filter(|copied| copied.unique != 0);
                    marked.for_each(|copied| unconfirmed_until(until, copied));
                    (Does::Adds, copies.map(|copied| copied.key).collect())
                }
                Part::Confirm(all) => {
                    let confirmed = all.iter().filter(|(_, stays)| *stays);
                    let keys = confirmed.map(|(copied, _)| copied.key).collect();
                    (Does::Confirms, keys)
                }
                Part::Look(copies) | Part::Again(copies) => {
                    copies[sent.answered..].iter().for_each(unconfirmed);
                    continue;
                }
                _ => continue,
            };
            let member = ring.members[sent.node].clone();
            let keys = keys.iter().map(|&key| self.keys[key as usize]);
            let watch = Unawaited::new(member, options.clone(), does, keys);
            watches.push((id as u32, watch));
        }
        watches
    }
}
