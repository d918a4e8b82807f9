//! Reads of one key or many.
//!
//! ```text
//!  each key:  ask the first reader --hit--> result (and repair of the copies that missed)
//!                  |  ^                 \
//!                  |  '-- next reader <--miss, failure   (a failure without a next reader: pause, the same again)
//!                  '-- no answer for the hedging delay: the next reader as well
//!
//!  a repair:  add at the copy that missed, to live for a moment --> does the source still have it? --> confirm, or undo
//! ```
//!
//! D1. A key has its result from the first hit, or when no copy is left that might have it. What one copy misses is a
//!     miss if the others fail to the end: better that than an error.
//! D2. A repair never replaces a value (mode add), and carries the time to live that is left. Nodes that settle are
//!     repaired by the first hit of a key, whether they were asked or not: nobody knows what they have lost.
//! D3. A key waits for a pause or an answer only while a node is left whose answer would matter (D1).
//! D4. What a repair has added lives for [`MOMENT_S`] at most, until its source was looked at again, and had the same value as
//!     before, and is still to be believed. If not, it is deleted where it was added, unless a newer value is there (CAS). A
//!     `delete` comes a second time after all copies have answered (see [`Write`](super::Write)): either the look came after
//!     the delete at the source, and undoes the repair, or the second delete comes after the add. So a value that was deleted
//!     while it was repaired does not come back, but for the moment between add and look.
//! D5. The read is done when its repairs are, or after [`PATIENCE`](super::PATIENCE), or twice as long as it took itself: a batch has
//!     many. What is still under way then is watched, so that a delete by the same client is not overtaken by it.
//!     What is done to a copy that is not confirmed would end with it: who changes one in place (see [`ViaDecider`](super::ViaDecider))
//!     waits until it is, or deletes it first if its source has not answered by then.
//! D6. What a repair stores is marked, or noted before (see [`repairs`](crate::repairs)): by that the second delete of D4 tells it from
//!     what was stored since.
//! D8. Another client may have counted or appended there before it was confirmed. Then the copy is looked at again, and if it still has
//!     but a moment to live, what it is now is confirmed: the steps of others would end with it.
//! D7. A value that is not confirmed yet is given to nobody: it may be undone, and what was made of it would stay.
//!
//! Costs: one buffer a node and wave, no allocation a key. Batches that want nothing but values go by classic `get`, on which
//! nodes spend less than on as many `mg`.

mod hear;
mod repair;
mod send;

use std::time::Instant;

use super::{Context, Later};
use crate::error::{Error, Failure, Result};
use crate::health::Marks;
use crate::metrics::Op;
use crate::options::Reads;
use crate::repairs;
use crate::reply::{Broken, Meta, Reply};
use crate::request::Wanted;
use crate::routing::Nodes;
use crate::unawaited::Unawaited;
use crate::value::Item;
use crate::{FEW, Operation, Todo};

/// Whether a value that was found is to be computed anew. Only `mg` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recache {
    /// `W`: by who has asked.
    pub won: bool,
    /// `X`: it was marked as stale.
    pub stale: bool,
    /// `Z`: by somebody else.
    pub won_by_other: bool,
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The value.
    pub item: Item,
    /// The CAS unique, as `node` gave it.
    pub cas: u64,
    /// The node's index in the ring.
    pub node: usize,
    /// Seconds left; -1 without end, `None` if it was not asked for.
    pub ttl: Option<i64>,
    /// Whether it is to be computed anew.
    pub recache: Recache,
}

/// See the module.
#[derive(Debug)]
pub struct Read<'a> {
    context: Context,
    wanted: Wanted,
    keys: Vec<&'a [u8]>,
    states: Vec<State>,
    unresolved: usize,
    /// Keys to be asked for in the next step.
    due: Vec<u32>,
    later: Later<u32>,
    sent: Vec<Sent>,
    /// Node and key of values to be given to copies that missed, and whether that was noted there (D6).
    repairs: Vec<(u16, u32, bool)>,
    /// All repairs are waited for, also of nodes that were not asked.
    await_repairs: bool,
    /// Copies that were added: their sources are to be looked at.
    looks: Vec<Copied>,
    /// Copies whose sources were looked at, and whether they may stay.
    verdicts: Vec<(Copied, bool)>,
    /// Copies that others have changed meanwhile; and those that have only a moment to live, with what is there now (D8).
    changed: Vec<Copied>,
    passing: Vec<(Copied, Item)>,
    /// Exchanges with witnesses that are waited for, and until when (see [`notices`](crate::notices)).
    asking: usize,
    asked_until: Option<Instant>,
    begun: bool,
    hears: bool,
    /// Exchanges of repairs that are waited for (D5).
    repairing: usize,
    /// Until when.
    patience: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    /// Nodes that were asked since the last pause, or missed.
    tried: Nodes,
    missed: Nodes,
    settling: Nodes,
    /// A node was not asked, since the key is yet to be deleted there.
    owing: bool,
    pending: u8,
    attempts: u8,
    /// It is asked for by `mg`, though it is in a batch.
    by_meta: bool,
    failure: Option<(u16, Failure)>,
    result: Option<Result<Option<Hit>>>,
}

impl State {
    /// The result where no hit came (D1); `otherwise` if nothing happened at all.
    fn in_the_end(&self, context: &Context, otherwise: Error) -> Result<Option<Hit>> {
        match self.failure {
            _ if !self.missed.is_empty() => Ok(None),
            Some((node, failure)) => Err(context.node_error(usize::from(node), failure)),
            None if self.owing => Ok(None),
            None => Err(otherwise),
        }
    }
}

/// An exchange under way.
#[derive(Debug)]
struct Sent {
    node: usize,
    keys: Vec<u32>,
    /// `keys[..answered]` have their answers.
    answered: usize,
    /// An error line came, and whose it is cannot be told.
    refused: Option<Error>,
    hedge_at: Option<Instant>,
    part: Part,
}

/// What an exchange is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// The reading itself.
    Ask,
    /// To ask a witness for notices about these nodes.
    Notices(Vec<u16>),
    /// To ask its version; and that before a repair, which waits for it.
    Version,
    VersionFirst,
    /// To note that a repair of these keys is about to come, where it cannot be marked.
    Note(Vec<u32>),
    /// A repair's first step: copies are added.
    Add(Vec<Copied>),
    /// Its second: their sources are looked at.
    Look(Vec<Copied>),
    /// Its last: these are confirmed, or undone.
    Confirm(Vec<(Copied, bool)>),
    /// To look at copies that others have changed before they were confirmed (D8).
    Again(Vec<Copied>),
    /// Something that nobody waits for.
    End,
}

/// A value that was given to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copied {
    key: u32,
    to: u16,
    /// There, once it was added.
    unique: u64,
}

impl<'a> Read<'a> {
    /// Reads `keys`, which were checked.
    pub fn new(context: Context, keys: Vec<&'a [u8]>, wanted: Wanted) -> Self {
        Read {
            wanted,
            states: keys.iter().map(|_| State::default()).collect(),
            unresolved: keys.len(),
            due: (0..keys.len() as u32).collect(),
            later: Later::new(),
            sent: Vec::with_capacity(FEW),
            repairs: Vec::new(),
            await_repairs: false,
            looks: Vec::new(),
            verdicts: Vec::new(),
            changed: Vec::new(),
            passing: Vec::new(),
            asking: 0,
            asked_until: None,
            begun: false,
            hears: false,
            repairing: 0,
            patience: None,
            keys,
            context,
        }
    }

    /// All repairs are answered before the read is done.
    pub fn await_repairs(mut self) -> Self {
        self.await_repairs = true;
        self
    }

    /// Witnesses are asked, whether it is time to or not.
    pub fn hearing(mut self) -> Self {
        self.hears = true;
        self
    }

    /// A key that is not to be read, because of this error.
    pub fn refuse(&mut self, key: usize, error: Error) {
        self.resolve(key as u32, Err(error));
        self.due.retain(|&other| other as usize != key);
    }

    /// The results, in the order of the keys.
    pub fn finish(self) -> impl Iterator<Item = Result<Option<Hit>>> {
        let Read {
            context, states, ..
        } = self;
        states
            .into_iter()
            .map(move |mut state| match state.result.take() {
                Some(result) => result,
                None => state.in_the_end(&context, Error::Timeout),
            })
    }

    fn resolve(&mut self, key: u32, result: Result<Option<Hit>>) {
        let slot = &mut self.states[key as usize].result;
        if slot.is_none() {
            *slot = Some(result);
            self.unresolved -= 1;
        }
    }

    /// The next node to ask for `key`, if a miss or failure leaves one.
    fn next_reader(&mut self, key: u32, now: Instant) -> Option<usize> {
        let Context { ring, options, .. } = &self.context;
        let state = &mut self.states[key as usize];
        let readers = if self.wanted.is_value_only() {
            ring.readers_of_value(self.keys[key as usize], now, options)
        } else {
            ring.readers(self.keys[key as usize], now, options)
        };
        if options.copies > 1 && options.read_repair {
            state.settling = readers.settling;
        }
        state.owing = readers.owing;
        let next = readers.next(&state.tried, &state.missed, state.pending > 0)?;
        // Behind a miss come other copies only if they are worth a look.
        let looks_on = options.read_repair || readers.has_before() || state.missed.is_empty();
        looks_on.then_some(next)
    }

    /// The exchange's key that comes `ahead` behind the next unanswered one was found; those before it were not.
    fn hit_ahead(&mut self, id: usize, ahead: usize, meta: Meta, classic: bool, now: Instant) {
        for _ in 0..ahead {
            self.pass_over(id);
        }
        let sent = &mut self.sent[id];
        let (key, node) = (sent.keys[sent.answered], sent.node);
        sent.answered += 1;
        self.hit(key, node, meta, classic, now);
    }

    fn hit(&mut self, key: u32, node: usize, meta: Meta, classic: bool, now: Instant) {
        if meta.is_placeholder() {
            return self.miss(key, node);
        }
        let state = &mut self.states[key as usize];
        if classic && meta.may_be_placeholder() && !state.by_meta {
            // Classic `get` does not tell an empty value from what stands for a value: `mg` does.
            state.by_meta = true;
            state.pending -= 1;
            state.tried = state.tried.without(node);
            self.due.push(key);
            return;
        }
        state.pending -= 1;
        if state.result.is_some() {
            return;
        }
        let (tried, missed, settling) = (state.tried, state.missed, state.settling);
        let Context { ring, options, .. } = &self.context;
        let bytes = self.keys[key as usize];
        // Who is not to be believed yet repairs nobody.
        let lacked = !missed.is_empty() || !settling.is_empty();
        if lacked && ring.vouches(node, bytes, now) && !self.is_unconfirmed(node, &meta) {
            let settling = settling.iter().filter(|&other| {
                !tried.contains(other) && ring.members[other].is_to_be_given(bytes, options)
            });
            let lacking = missed.iter().chain(settling);
            self.repairs
                .extend(lacking.map(|other| (other as u16, key, false)));
        }
        if self.wanted.touch.is_some() {
            let writers = ring.writers(self.keys[key as usize], now, options);
            let others = writers
                .iter()
                .filter(|&other| !tried.contains(other) && !settling.contains(other));
            self.repairs
                .extend(others.map(|other| (other as u16, key, false)));
        }
        if meta.is_hot() {
            self.context.ring.note_hot(self.keys[key as usize], now);
        }
        let Meta {
            value,
            flags,
            cas,
            ttl,
            won,
            stale,
            won_by_other,
            ..
        } = meta;
        let recache = Recache {
            won,
            stale,
            won_by_other,
        };
        let item = Item { value, flags };
        self.resolve(
            key,
            Ok(Some(Hit {
                item,
                cas,
                node,
                ttl,
                recache,
            })),
        );
    }

    /// True if what `node` has may be a repair that is not confirmed (D7). A value that ends within that time is not worth one.
    fn is_unconfirmed(&self, node: usize, found: &Meta) -> bool {
        let unmarked =
            self.context.ring.members[node].marks() == Marks::Taken && !repairs::is_mark(found.cas);
        repairs::is_passing(found.ttl) && !unmarked
    }

    fn miss(&mut self, key: u32, node: usize) {
        let state = &mut self.states[key as usize];
        state.pending -= 1;
        state.missed.push(node);
        if state.result.is_none() && state.pending == 0 {
            self.due.push(key);
        }
    }

    /// No node is left to ask for `key`: the ones that failed are asked again, or there is a result.
    fn exhausted(&mut self, key: u32, now: Instant) {
        let state = &mut self.states[key as usize];
        if state.pending > 0 {
            return;
        }
        if state.failure.is_some()
            && let Some(at) = self.context.retry_at(u32::from(state.attempts), now)
        {
            state.tried = state.missed;
            // The one that failed may be ejected by now, and all others have missed: then there is nobody to wait for.
            if self.next_reader(key, now).is_some() {
                self.later.push(at, key);
                return;
            }
        }
        let state = &self.states[key as usize];
        let result = state.in_the_end(&self.context, Error::NoNode);
        self.resolve(key, result);
    }

    fn failed(&mut self, key: u32, node: usize, failure: Failure) {
        let state = &mut self.states[key as usize];
        state.pending -= 1;
        state.attempts = state.attempts.saturating_add(1);
        state.failure = Some((node as u16, failure));
        if state.result.is_none() && state.pending == 0 {
            self.due.push(key);
        }
    }

    /// The next unanswered key of an exchange missed, or what befell it cannot be told.
    fn pass_over(&mut self, id: usize) {
        let sent = &mut self.sent[id];
        let (key, node) = (sent.keys[sent.answered], sent.node);
        sent.answered += 1;
        match sent.refused.clone() {
            None => self.miss(key, node),
            Some(error) => {
                self.states[key as usize].pending -= 1;
                self.resolve(key, Err(error));
            }
        }
    }

    /// True if repairs are waited for no longer (D5).
    fn is_impatient(&mut self, now: Instant, todo: &mut Todo) -> bool {
        let patience = match self.await_repairs {
            true => self.context.deadline,
            // Copies are added, and then their sources are looked at.
            false => self.context.patience(now, 2),
        };
        let until = *self.patience.get_or_insert(patience);
        todo.wake(until);
        now >= until
    }

    fn hedge(&mut self, now: Instant, todo: &mut Todo) {
        for id in 0..self.sent.len() {
            let Some(at) = self.sent[id].hedge_at else {
                continue;
            };
            if at > now {
                todo.wake(at);
                continue;
            }
            let sent = &mut self.sent[id];
            sent.hedge_at = None;
            for &key in &sent.keys[sent.answered..] {
                let key_at = key as usize;
                if self.states[key_at].result.is_none() && self.states[key_at].pending == 1 {
                    self.due.push(key);
                }
            }
            let Context { ring, options, .. } = &self.context;
            self.due.retain(|&key| {
                let State {
                    tried,
                    missed,
                    pending,
                    ..
                } = &self.states[key as usize];
                *pending == 0 || {
                    let readers = ring.readers(self.keys[key as usize], now, options);
                    readers.next(tried, missed, true).is_some()
                }
            });
        }
    }
}

impl Operation for Read<'_> {
    fn step(&mut self, now: Instant, todo: &mut Todo) {
        todo.wake_at = None;
        if now >= self.context.deadline {
            self.unresolved = 0;
        }
        if !std::mem::replace(&mut self.begun, true)
            && (self.hears
                || self
                    .context
                    .ring
                    .asks_for_notices(now, &self.context.options))
        {
            self.ask_for_notices(now, todo);
        }
        if self.asking > 0
            && let Some(until) = self.asked_until.filter(|&until| now < until)
        {
            todo.all_needed = false;
            todo.wake(until.min(self.context.deadline));
            return;
        }
        if self.unresolved > 0 {
            self.later.take(now, &mut self.due);
            if self.context.options.reads != Reads::First {
                self.hedge(now, todo);
            }
            if !self.due.is_empty() {
                self.send_due(now, todo);
            }
        }
        self.send_repairs(now, todo);
        todo.wake(self.later.next().unwrap_or(self.context.deadline));
        todo.all_needed = !matches!(self.context.options.reads, Reads::Hedged(_));
        todo.done = self.unresolved == 0 && (self.repairing == 0 || self.is_impatient(now, todo));
    }

    fn on_reply(
        &mut self,
        id: u32,
        reply: Reply,
        last: bool,
        now: Instant,
    ) -> std::result::Result<(), Broken> {
        let id = id as usize;
        let sent = &mut self.sent[id];
        let node = sent.node;
        match sent.part {
            Part::Ask => {}
            Part::Notices(_) => {
                self.heard(id, reply, last, now);
                return Ok(());
            }
            Part::Version | Part::VersionFirst => {
                self.heard_version(id, reply, last);
                return Ok(());
            }
            _ => {
                self.repaired(id, reply, last, now);
                return Ok(());
            }
        }
        // Hits come in the order of the keys: what is passed over has missed.
        let mut rest = sent.keys[sent.answered..].iter();
        match reply {
            Reply::Ok(meta) => {
                // The last comes behind what was asked by classic `get`.
                let ahead = match meta.tag {
                    _ if last => rest.len().checked_sub(1),
                    Some(place) => (place as usize).checked_sub(sent.answered),
                    None => None,
                };
                let ahead = ahead.filter(|&ahead| ahead < rest.len());
                self.hit_ahead(id, ahead.ok_or(Broken)?, meta, false, now);
            }
            Reply::Value(found) => {
                let ahead = rest.position(|&key| self.keys[key as usize] == found.key());
                let meta = Meta {
                    flags: found.flags,
                    value: found.into_value(),
                    ..Meta::default()
                };
                self.hit_ahead(id, ahead.ok_or(Broken)?, meta, true, now);
            }
            Reply::Missing if last => {}
            // Behind it comes the last key's.
            Reply::End if !last => {}
            Reply::Refused(refusal) => sent.refused = Some(self.context.refused(node, refusal)),
            _ => return Err(Broken),
        }
        if last {
            while self.sent[id].answered < self.sent[id].keys.len() {
                self.pass_over(id);
            }
            self.sent[id].hedge_at = None;
            self.context.worked(node);
        }
        Ok(())
    }

    fn on_failure(&mut self, id: u32, failure: Failure, now: Instant) {
        let sent = &mut self.sent[id as usize];
        let node = sent.node;
        sent.hedge_at = None;
        self.context.failed(node, failure, now);
        if let Part::Add(copies) = &sent.part {
            // It may still be carried out, when the key is deleted already.
            let Context { ring, options, .. } = &self.context;
            for copied in &copies[sent.answered..] {
                let key = self.keys[copied.key as usize];
                ring.members[node].unsure(key, now, options);
            }
        }
        match sent.part {
            Part::Ask => {}
            Part::Notices(_) | Part::Version => {
                sent.part = Part::End;
                self.asking -= 1;
                return;
            }
            Part::VersionFirst => {
                // Then it is given nothing.
                self.repairs.retain(|&(to, ..)| usize::from(to) != node);
                return self.end_part(id as usize);
            }
            _ => return self.end_part(id as usize),
        }
        let keys = std::mem::take(&mut sent.keys);
        for &key in &keys[sent.answered..] {
            self.failed(key, node, failure);
        }
    }

    fn deadline(&self) -> Instant {
        self.context.deadline
    }

    fn abandon(&mut self, now: Instant) -> Vec<(u32, Unawaited)> {
        self.leave_repairs(now)
    }

    fn op(&self) -> Op {
        Op::Get
    }
}
