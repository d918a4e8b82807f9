//! Writes that do not look at what is there, of one key or many: to all copies at once.
//!
//! ```text
//!  each key:  writers --request to each--> ok: acknowledged         enough acknowledged: result
//!                             |   refused: not acknowledged         not enough left to hope for: error
//!                             '-- failed: pause, the same node again, until it is ejected: then its stand-in
//! ```
//!
//! W1. A copy that could not be written is told to its node's member, which deletes the key there as soon as it answers. Those
//!     that are still under way when enough have acknowledged are watched (see [`Unawaited`]), and not repeated.
//! W2. The result is an error if fewer copies took the write than were asked for; then it may be on some of them.
//! W3. A `delete` looks at all copies once more when all have answered, and others know of those it went around (W5): a read may have
//!     found the key on one that was not deleted yet, or could not be, and given it to those that were (see [`Read`](super::Read), D4).
//!     What a repair has stored (see [`repairs`](crate::repairs)) is deleted, by CAS, and the copies are looked at again; what somebody
//!     has stored since stays. So a lock that is released and taken again stays taken. Where the key was before a change of the ring
//!     is looked at too: others may not know of the change yet.
//! W6. An `add` that follows a decision, and finds the key, looks at what is there: what a repair has given is the decided value
//!     itself. An `add` in vain is taken back from the copies that took it, and from those that repairs have given it.
//! W5. A write that goes around an ejected node tells other clients so, and is acknowledged when they know; it is an error if its
//!     time is over before (see [`notices`](crate::notices)).
//! W4. While a change of the ring is fresh, whatever is done to a key deletes it where only the placement before has it, or is
//!     told to that node's member: what is old is not found there later. A `delete` waits for that, and is an error if such
//!     a node cannot be reached but may still be asked; for others the new owners' answers are enough, which hide it. Where earlier
//!     placements had it (T5 of [`routing`](crate::routing)), it is deleted too.
//! W8. A write that was under way when the nodes changed went where the key was. A read may have carried what was there before to the
//!     key's new place meanwhile: so it is done there too before it is told done (see [`follow`](crate::calls::follow)).
//! W7. The next change may bring the key back to such a place. So the write waits for these deletes, for a while; those that are
//!     under way longer are watched, and what is written there waits until they are answered, lest it be deleted in their place.

mod command;
mod leave;
mod look;
mod send;

pub use command::{Command, Entry, Replaced};

use std::sync::Arc;
use std::time::Instant;

use super::{Context, Later};
use crate::error::{Error, Failure, Result};
use crate::metrics::Op;
use crate::options::Ack;
use crate::reply::{Broken, Reply};
use crate::request::StoreMode;
use crate::routing::{Nodes, Ring};
use crate::unawaited::{Does, Unawaited};
use crate::value::{Item, Payload};
use crate::{FEW, Operation, Todo};
use command::{DELETE, Kept};

/// What the copies said, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// A copy did it; the others, if any, had nothing to do it to.
    pub done: bool,
    /// A copy had the key already (mode add).
    pub opposed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Write<'a> {
    context: Context,
    command: Command,
    entries: Vec<Entry<'a>>,
    /// Expiry times by entry, for a store whose entries differ in them; empty otherwise.
    exptimes: Vec<i32>,
    states: Vec<State>,
    unresolved: usize,
    /// Copies to be written in the next step.
    due: Vec<Target>,
    later: Later<Target>,
    sent: Vec<Sent>,
    /// A copy that is not to be written, since it has decided.
    decider: Option<usize>,
    /// Only this copy is to be written.
    only: Option<usize>,
    /// Only those copies are that have none by this ring.
    beside: Option<Arc<Ring>>,
    /// The keys stay where they were before a change of the ring.
    leaves_before: bool,
    /// Nothing is written: the entries are deleted where these copies took them, under which CAS uniques, and where repairs have given
    /// them (W6).
    takes_back: Option<Vec<(usize, u64)>>,
    begun: bool,
    /// Until when the write is held, so that other clients know (W5).
    held_until: Option<Instant>,
    /// Debts that copies pay by what is sent to them now, by entry and node.
    pays: Vec<(u32, u16, u64)>,
    /// Places that keys have left, and that are to answer (W7), and until when they are waited for.
    left: usize,
    patience: Option<Instant>,
}

/// One copy of one entry.
#[derive(Debug, Clone, Copy)]
struct Target {
    entry: u32,
    node: u16,
    part: Part,
}

/// What an exchange is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The write itself.
    Copy,
    /// To delete the key where it was before a change of the ring (W4).
    Before,
    /// To delete it where it was before an earlier one.
    Former,
    /// To look whether it is there again (W3).
    Look,
    /// To ask whether a note says that a repair has stored it.
    Noted,
    /// To delete what is there again.
    Undo,
    /// To tell other clients of an ejected node (W5). It has no entries.
    Notice,
}

/// Those of entries.
const PARTS: [Part; 6] = [
    Part::Copy,
    Part::Before,
    Part::Former,
    Part::Look,
    Part::Noted,
    Part::Undo,
];

/// How often a delete looks at copies that change under its eyes.
const LOOKS_MAX: u8 = 8;

#[derive(Debug, Clone, Default)]
struct State {
    /// Nodes that were chosen.
    targets: Nodes,
    acknowledged: u8,
    wanted: u8,
    /// Copies that may still acknowledge.
    hoped: u8,
    attempts: u8,
    /// Places before a change that are to answer first.
    places_before: u8,
    /// One of them could not be reached.
    left_behind: bool,
    /// Copies, and places before, that have answered a delete; and that one of them had the key.
    answered: Nodes,
    had: bool,
    /// Copies that have the key that is to be added (W6).
    opposing: Nodes,
    took: Vec<(usize, u64)>,
    /// What a copy, or a place before, has is not known.
    unheard: bool,
    /// How often the copies were looked at again (W3), and how many answers of the present step are to come.
    looks: u8,
    looking: u8,
    looked_at: Nodes,
    /// What the look saw whose storing is not clear, and what is to be undone.
    seen: Vec<Seen>,
    undoing: Vec<Seen>,
    written: Written,
    error: Option<Error>,
    result: Option<Result<Written>>,
}

/// What a copy had when all of them had been deleted.
#[derive(Debug, Clone)]
struct Seen {
    node: u16,
    unique: u64,
    item: Item,
}

#[derive(Debug)]
struct Sent {
    node: usize,
    part: Part,
    entries: Vec<u32>,
    answered: usize,
}

impl<'a> Write<'a> {
    /// Writes `entries`, whose keys were checked.
    pub fn new(context: Context, entries: Vec<Entry<'a>>, command: Command) -> Self {
        Write {
            command,
            states: entries.iter().map(|_| State::default()).collect(),
            unresolved: entries.len(),
            due: Vec::new(),
            later: Later::new(),
            sent: Vec::with_capacity(FEW),
            decider: None,
            only: None,
            beside: None,
            leaves_before: false,
            takes_back: None,
            begun: false,
            held_until: None,
            pays: Vec::new(),
            left: 0,
            patience: None,
            entries,
            exptimes: Vec::new(),
            context,
        }
    }

    /// Stores `entries`, each with its expiry time.
    pub fn each_until(
        context: Context,
        entries: Vec<Entry<'a>>,
        mode: StoreMode,
        exptimes: Vec<i32>,
    ) -> Self {
        let command = Command::Store { mode, exptime: 0 };
        debug_assert_eq!(entries.len(), exptimes.len());
        Write {
            exptimes,
            ..Write::new(context, entries, command)
        }
    }

    /// What is done with this entry.
    fn command(&self, at: usize) -> Command {
        match (self.command, self.exptimes.get(at)) {
            (Command::Store { mode, .. }, Some(&exptime)) => Command::Store { mode, exptime },
            (command, _) => command,
        }
    }

    /// The copies of a key beside `decider`, which has taken the write already.
    pub fn beside(context: Context, entry: Entry<'a>, command: Command, decider: usize) -> Self {
        let mut write = Write::new(context, vec![entry], command);
        write.decider = Some(decider);
        write
    }

    /// The same, but the key stays where it was before a change of the ring: a repair looks there before it confirms what has decided.
    pub fn leaving_before(mut self) -> Self {
        self.leaves_before = true;
        self
    }

    /// Writes nothing, but tells other clients of the key's nodes that are ejected, and waits until they know (W5).
    pub fn telling(context: Context, entry: Entry<'a>) -> Self {
        let mut write = Write::new(context, vec![entry], DELETE);
        write.resolve(0, Ok(Written::default()));
        write
    }

    /// Does what was done by the ring `old` on the nodes where the keys are at home by now and were not then (W8).
    pub fn following(context: Context, replaced: &'a Replaced, old: Arc<Ring>) -> Self {
        let entry = |(key, bytes, flags): &'a Kept| {
            let (bytes, flags) = (&**bytes, *flags);
            let value = Payload { bytes, flags };
            Entry { key, value }
        };
        let entries = replaced.entries.iter().map(entry).collect();
        let mut write = Write::new(context, entries, replaced.command);
        write.exptimes = replaced.exptimes.clone();
        write.beside = Some(old);
        write
    }

    /// Takes an `add` of `entry` back, which was in vain (W6); `took` is what it [`took`](Self::took).
    pub fn taking_back(context: Context, entry: Entry<'a>, took: Vec<(usize, u64)>) -> Self {
        let mut write = Write::new(context, vec![entry], DELETE);
        write.takes_back = Some(took);
        write
    }

    /// The nodes that took the only entry, with the CAS uniques that they told.
    pub fn took(&mut self) -> Vec<(usize, u64)> {
        std::mem::take(&mut self.states[0].took)
    }

    /// One copy of a key only.
    pub fn only(context: Context, entry: Entry<'a>, command: Command, node: usize) -> Self {
        let mut write = Write::new(context, vec![entry], command);
        write.only = Some(node);
        write
    }

    /// A key that is not to be written, because of this error.
    pub fn refuse(&mut self, entry: usize, error: Error) {
        self.resolve(entry, Err(error));
    }

    /// True if all copies are to be written, wherever they are.
    fn is_whole(&self) -> bool {
        self.only.is_none() && self.beside.is_none()
    }

    /// The results, in the order of the entries.
    pub fn finish(self) -> impl Iterator<Item = Result<Written>> {
        self.states.into_iter().map(|State { result, error, .. }| {
            result.unwrap_or_else(|| Err(error.unwrap_or(Error::Timeout)))
        })
    }

    fn resolve(&mut self, entry: usize, result: Result<Written>) {
        let slot = &mut self.states[entry].result;
        if slot.is_none() {
            *slot = Some(result);
            self.unresolved -= 1;
        }
    }

    /// Chooses the copies of every key.
    fn begin(&mut self, now: Instant) {
        let (ring, options) = (self.context.ring.clone(), self.context.options.clone());
        let (ring, options) = (&*ring, &*options);
        let copies = ring.copies(options);
        let is_whole = self.is_whole();
        for at in 0..self.entries.len() {
            let state = &mut self.states[at];
            if state.result.is_some() {
                continue;
            }
            let key = self.entries[at].key;
            if self.takes_back.is_some() {
                self.look(at, ring.writers(key, now, options), None);
                continue;
            }
            if let Some(node) = self.only {
                state.targets.push(node);
                state.wanted = 1;
            } else if let Some(old) = &self.beside {
                state.targets = ring.takers_beside(key, old, options);
                state.wanted = state.targets.len() as u8;
            } else {
                state.targets = ring.writers(key, now, options);
                state.wanted = options.ack.wanted(copies) as u8;
                if options.ack_live {
                    state.wanted = state.wanted.min(state.targets.len().max(1) as u8);
                }
                state.unheard = self.command.is_delete() && !ring.is_whole(key, options);
            }
            for node in state.targets.iter() {
                if self.decider == Some(node) {
                    state.acknowledged = 1;
                } else {
                    state.hoped += 1;
                    self.due.push(Target {
                        entry: at as u32,
                        node: node as u16,
                        part: Part::Copy,
                    });
                }
            }
            if self.decider.is_some() && state.acknowledged == 0 {
                // The decider was ejected meanwhile; it has taken the write all the same.
                state.acknowledged = 1;
            }
            if self.beside.is_some() && state.targets.is_empty() {
                self.resolve(at, Ok(Written::default()));
                continue;
            }
            let mut told = state.targets;
            if is_whole && !self.leaves_before && ring.has_before() {
                for node in ring.before_only(key, &state.targets, now, options).iter() {
                    if !ring.members[node].is_in() {
                        ring.members[node].missed(key, now, options);
                        continue;
                    }
                    told.push(node);
                    state.places_before += u8::from(self.command.is_delete());
                    self.left += usize::from(!self.command.is_delete());
                    self.due.push(Target {
                        entry: at as u32,
                        node: node as u16,
                        part: Part::Before,
                    });
                }
            }
            if is_whole {
                for node in ring.former_only(key, &told, now, options).iter() {
                    let part = Part::Former;
                    let (entry, node) = (at as u32, node as u16);
                    self.left += 1;
                    self.due.push(Target { entry, node, part });
                }
            }
            self.settle(at);
        }
    }

    /// Resolves a key if it can be.
    fn settle(&mut self, at: usize) {
        let state = &self.states[at];
        let own = self.is_whole() && self.decider.is_none();
        if own && self.context.options.ack == Ack::None && !state.targets.is_empty() {
            // It will be sent.
            let written = Written {
                done: true,
                ..state.written
            };
            return self.resolve(at, Ok(written));
        }
        if state.acknowledged >= state.wanted && state.wanted > 0 {
            if state.places_before > 0 {
                return;
            }
            if state.left_behind
                && let Some(error) = state.error.clone()
            {
                return self.resolve(at, Err(error));
            }
            if self.is_looked_at(at) {
                return;
            }
            let state = &self.states[at];
            let written = state.written;
            // Whether a delete found anything is known when one copy had it, or all have answered.
            if written.done || state.hoped == 0 || !self.command_tells() {
                self.resolve(at, Ok(written));
            }
        } else if state.acknowledged + state.hoped < state.wanted || state.wanted == 0 {
            let error = match state.error.clone() {
                Some(error) => error,
                None if state.targets.is_empty() || state.wanted == 0 => Error::NoNode,
                None => Error::Copies {
                    acknowledged: usize::from(state.acknowledged),
                    wanted: usize::from(state.wanted),
                },
            };
            self.resolve(at, Err(error));
        }
    }

    /// True if the places that keys have left have answered, or are waited for no longer (W7).
    fn all_have_left(&mut self, now: Instant, todo: &mut Todo) -> bool {
        if self.left == 0 || self.context.options.ack == Ack::None {
            return true;
        }
        let patience = self.context.patience(now, 1);
        let until = *self.patience.get_or_insert(patience);
        todo.wake(until);
        now >= until
    }

    /// True if the answers tell more than that it was done.
    fn command_tells(&self) -> bool {
        matches!(
            self.command,
            Command::Delete { .. }
                | Command::Touch { .. }
                | Command::Store {
                    mode: StoreMode::Add,
                    ..
                }
        )
    }
}

impl Operation for Write<'_> {
    fn step(&mut self, now: Instant, todo: &mut Todo) {
        todo.wake_at = None;
        if !self.begun {
            self.begun = true;
            self.begin(now);
        }
        self.later.take(now, &mut self.due);
        self.send_due(now, todo);
        if self.is_whole() {
            self.post_notices(now, todo);
        }
        todo.wake(self.later.next().unwrap_or(self.context.deadline));
        todo.all_needed = self.context.options.ack == Ack::All;
        let held = self.held_until.filter(|&until| now < until);
        if let Some(until) = held {
            todo.wake(until);
        }
        todo.wake(self.context.deadline);
        let is_over = now >= self.context.deadline;
        if is_over && held.is_some() {
            self.leave_untold();
        }
        let is_resolved = self.unresolved == 0 && held.is_none();
        todo.done = is_over || (is_resolved && self.all_have_left(now, todo));
    }

    fn on_reply(
        &mut self,
        id: u32,
        reply: Reply,
        last: bool,
        now: Instant,
    ) -> std::result::Result<(), Broken> {
        let sent = &mut self.sent[id as usize];
        let (node, part) = (sent.node, sent.part);
        if sent.part == Part::Notice {
            return Ok(());
        }
        let &at = sent.entries.get(sent.answered).ok_or(Broken)?;
        let at = at as usize;
        let state = &mut self.states[at];
        let mut acknowledged = true;
        let is_missing = reply == Reply::Missing && self.command.is_delete();
        let pays = part == Part::Copy && (matches!(reply, Reply::Ok(_)) || is_missing);
        match reply {
            _ if part == Part::Former => {}
            Reply::Ok(meta) if part == Part::Look => self.see(at, node, meta),
            Reply::Ok(_) if part == Part::Noted && self.command.is_delete() => {
                let noted = state.seen.iter().find(|one| usize::from(one.node) == node);
                state.undoing.extend(noted.cloned());
            }
            Reply::Ok(_) if part == Part::Noted => {}
            Reply::Missing if matches!(part, Part::Look | Part::Noted) => {
                state.written.opposed |= !self.command.is_delete()
            }
            Reply::Ok(meta) => {
                if meta.cas != 0 {
                    state.took.push((node, meta.cas));
                }
                state.written.done |= sent.part == Part::Copy || self.command.is_delete();
                state.had = true;
            }
            Reply::NotStored if self.decider.is_some() => state.opposing.push(node),
            Reply::NotStored => state.written.opposed = true,
            Reply::Missing | Reply::Exists => {}
            Reply::Refused(refusal) => {
                state.error = Some(self.context.refused(node, refusal));
                state.left_behind |= sent.part == Part::Before;
                state.unheard = true;
                acknowledged = false;
            }
            _ => return Err(Broken),
        }
        if pays {
            self.pay(at, node);
        }
        let (sent, state) = (&mut self.sent[id as usize], &mut self.states[at]);
        sent.answered += 1;
        match sent.part {
            Part::Copy => {
                state.acknowledged += u8::from(acknowledged);
                state.hoped -= 1;
                state.answered.push(node);
                self.settle(at);
            }
            Part::Before if self.command.is_delete() => {
                state.places_before -= 1;
                state.answered.push(node);
                self.settle(at);
            }
            Part::Before | Part::Former => self.left -= 1,
            Part::Look | Part::Noted | Part::Undo => self.looked(at, part, now),
            Part::Notice => {}
        }
        if last {
            self.context.worked(node);
        }
        Ok(())
    }

    fn on_failure(&mut self, id: u32, failure: Failure, now: Instant) {
        let sent = &mut self.sent[id as usize];
        let node = sent.node;
        self.context.failed(node, failure, now);
        let (entries, part) = (std::mem::take(&mut sent.entries), sent.part);
        for &at in &entries[sent.answered..] {
            let at = at as usize;
            match part {
                Part::Copy => self.failed(at, node, failure, now),
                Part::Before => self.failed_before(at, node, failure, now),
                Part::Former | Part::Look | Part::Noted | Part::Undo | Part::Notice => {
                    self.leave(part, at, node, now)
                }
            }
        }
    }

    fn abandon(&mut self, now: Instant) -> Vec<(u32, Unawaited)> {
        let Context { ring, options, .. } = &self.context;
        // Repetitions that nobody waits for are left to the node's member.
        for (_, Target { entry, node, .. }) in self.later.0.drain(..) {
            let key = self.entries[entry as usize].key;
            ring.members[usize::from(node)].unsure(key, now, options);
        }
        let mut watches = Vec::new();
        for (id, sent) in self.sent.iter().enumerate() {
            let entries = &sent.entries[sent.answered.min(sent.entries.len())..];
            if !entries.is_empty() {
                let keys = entries.iter().map(|&at| self.entries[at as usize].key);
                let does = match sent.part {
                    Part::Before | Part::Former => Does::Clears,
                    _ => Does::Writes,
                };
                let member = ring.members[sent.node].clone();
                let watch = Unawaited::new(member, options.clone(), does, keys);
                watches.push((id as u32, watch));
            }
        }
        watches
    }

    fn deadline(&self) -> Instant {
        self.context.deadline
    }

    fn replaced(&self) -> Option<Replaced> {
        let entries = self.entries.iter().map(|entry| {
            let Payload { bytes, flags } = entry.value;
            (entry.key.into(), bytes.into(), flags)
        });
        (self.command.replaces() && self.only.is_none()).then(|| Replaced {
            command: self.command,
            entries: entries.collect(),
            exptimes: self.exptimes.clone(),
        })
    }

    fn op(&self) -> Op {
        match self.command {
            Command::Store { .. } => Op::Store,
            Command::Delete { .. } => Op::Delete,
            Command::Touch { .. } => Op::Touch,
            Command::Count(_) => Op::Count,
        }
    }
}
