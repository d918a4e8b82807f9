//! What depends on the present value: add, replace, append, prepend, cas, incr, decr, touch.
//!
//! ```text
//!  prepare: what other clients tell of nodes is asked; they are told of the key's nodes that this one has ejected
//!  decide:  the first live copy is asked --done--> follow: the other copies are brought to the same outcome
//!               |         ^                            '-- add, and another copy had the key: undo, not stored
//!               missing   |
//!               v         |
//!  recover: another copy has it? then the first is given it, and asked again (once)
//! ```
//!
//! | decision | what the other copies get |
//! | --- | --- |
//! | replace, cas | the value, by `set` |
//! | add | the value, by `add`: who finds it there tells that the key exists after all |
//! | append, prepend | the same piece; a copy without the value stays without |
//! | incr, decr | the same step, so that concurrent steps add up on each copy; a copy without the counter begins with the outcome |
//! | touch | the same |
//!
//! A counter is created where no copy has it: the decider is asked to count what is there, and to create it only when the others were
//! asked. While a change of the ring is fresh, what makes a key that is missing (add, counters that are created) looks first
//! where the key was, and a follow-up deletes it there (see [`Write`]).
//!
//! E1. One node decides for a key as long as clients agree which nodes live: what it says is what the caller is told.
//!     So before anything is decided around an ejected node, others are told so, and given the time to hear of it (see
//!     [`notices`](crate::notices)): then they go to the same node.
//! E3. It decides by what stays: what is about to be deleted or confirmed there is waited for, and what will not stay is deleted first.
//! E2. What must not be done twice is repeated only if the request surely was not carried out; otherwise the caller gets
//!     the failure, and with copies the key is deleted on that node once it answers, so that the copies agree again.

use std::time::Instant;

use super::{BLOCKED_PAUSE, Command, Context, Entry, Read, Write, was_not_done};
use crate::error::{Error, Failure, Result};
use crate::metrics::Op;
use crate::repairs;
use crate::reply::{Broken, Meta, Reply, number};
use crate::request::{self, Count, Requests, StoreMode, Wanted};
use crate::routing::Nodes;
use crate::unawaited::Unawaited;
use crate::value::{CasUnique, exptime_s};
use crate::{Exchange, Operation, Todo};

/// What is to be decided.
#[derive(Debug, Clone, Copy)]
pub enum Decision {
    /// Add, replace, append or prepend.
    Store {
        /// `Add`, `Replace`, `Append` or `Prepend`.
        mode: StoreMode,
        /// The time to live, as it is sent.
        exptime: i32,
    },
    /// cas.
    Cas {
        /// What the value came with.
        unique: CasUnique,
        /// The time to live, as it is sent.
        exptime: i32,
    },
    /// incr, decr.
    Count(Count),
    /// touch.
    Touch {
        /// The time to live, as it is sent.
        exptime: i32,
    },
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done; for counters, the number.
    Done(u64),
    /// The key is not there.
    Missing,
    /// The key is there, which is what `add` cannot have.
    Exists,
    /// The value has changed.
    Conflict,
}

/// See the module.
#[derive(Debug)]
pub struct ViaDecider<'a> {
    context: Context,
    entry: Entry<'a>,
    decision: Decision,
    phase: Phase<'a>,
    /// Exchanges of phases that are over have ids below this.
    first_id: u32,
    /// The node that decides.
    decider: usize,
    attempts: u32,
    /// What others tell was asked for, if it was time to.
    heard: bool,
    has_paid: bool,
    recovered: bool,
    /// Copies that took what followed the decision, with its CAS uniques there.
    took: Vec<(usize, u64)>,
    /// Over exchanges of a phase that is over.
    watches: Vec<(u32, Unawaited)>,
    result: Option<Result<Verdict>>,
    /// Whether the CAS unique of what is stored is wanted, and that, once the decider has told it.
    wants_unique: bool,
    unique: u64,
    /// The debt that the decider pays by what it is asked.
    pays: Option<u64>,
}

#[derive(Debug)]
enum Phase<'a> {
    /// Hear what other clients tell of nodes.
    Hear(Box<Read<'a>>),
    /// Tell them which of the key's nodes are ejected.
    Tell(Box<Write<'a>>),
    /// Delete first what the decider should not have (E3).
    Pay(Box<Write<'a>>),
    /// Ask the decider at this time.
    Ask(Option<Instant>),
    Asked,
    /// Look for the value elsewhere, and then ask; if `needed`, only if it was found.
    Recover {
        read: Box<Read<'a>>,
        needed: bool,
    },
    Follow(Box<Write<'a>>, Verdict, u64),
    Undo(Box<Write<'a>>),
    /// What was undone is taken back from copies that repairs have given it.
    TakeBack(Box<Write<'a>>),
}

/// Ids of one phase.
const PHASE_IDS: u32 = 1 << 16;

impl<'a> ViaDecider<'a> {
    /// Decides about `entry`, whose key was checked.
    pub fn new(context: Context, entry: Entry<'a>, decision: Decision) -> Self {
        ViaDecider {
            context,
            entry,
            decision,
            phase: Phase::Ask(None),
            first_id: 0,
            decider: 0,
            attempts: 0,
            heard: false,
            has_paid: false,
            recovered: false,
            took: Vec::new(),
            watches: Vec::new(),
            result: None,
            wants_unique: false,
            unique: 0,
            pays: None,
        }
    }

    /// Has the decider tell the CAS unique of what it stores.
    pub fn with_unique(mut self) -> Self {
        self.wants_unique = true;
        self
    }

    /// That unique, 0 if nothing was stored, and the decider.
    pub fn unique(&self) -> (u64, usize) {
        (self.unique, self.decider)
    }

    /// Nothing is to be decided, because of this error.
    pub fn refuse(&mut self, error: Error) {
        self.result = Some(Err(error));
    }

    /// The result.
    pub fn finish(self) -> Result<Verdict> {
        self.result.unwrap_or(Err(Error::Timeout))
    }

    fn enter(&mut self, phase: Phase<'a>) {
        self.first_id += PHASE_IDS;
        self.phase = phase;
    }

    fn is_repeatable(&self) -> bool {
        matches!(self.decision, Decision::Touch { .. })
    }

    fn ask(&mut self, now: Instant, todo: &mut Todo) {
        let Context { ring, options, .. } = &self.context;
        if !std::mem::replace(&mut self.heard, true) && ring.asks_for_notices(now, options) {
            let read = Read::new(self.context.clone(), Vec::new(), Wanted::default());
            return self.enter(Phase::Hear(Box::new(read.hearing())));
        }
        if ring.is_to_be_told(self.entry.key, now, options) {
            let tell = Write::telling(self.context.clone(), self.entry);
            return self.enter(Phase::Tell(Box::new(tell)));
        }
        let Some(decider) = ring.writers(self.entry.key, now, options).first() else {
            self.result = Some(Err(Error::NoNode));
            return;
        };
        self.decider = decider;
        let member = &ring.members[decider];
        if !member.is_settled_for(self.entry.key) {
            self.phase = Phase::Ask(Some(now + BLOCKED_PAUSE));
            return;
        }
        if !std::mem::replace(&mut self.has_paid, true) {
            let unconfirmed = member.take_unconfirmed(self.entry.key, now);
            let compare = unconfirmed.filter(|_| !member.owes(self.entry.key));
            if member.owes(self.entry.key) || compare.is_some() {
                let (context, entry) = (self.context.clone(), Entry::key(self.entry.key));
                let delete = Write::only(context, entry, Command::Delete { compare }, decider);
                return self.enter(Phase::Pay(Box::new(delete)));
            }
        }
        let creates = matches!(
            self.decision,
            Decision::Store {
                mode: StoreMode::Add,
                ..
            } | Decision::Count(Count {
                create: Some(_),
                ..
            })
        );
        if creates && !self.recovered && ring.readers(self.entry.key, now, options).has_before() {
            return self.recover(false);
        }
        let replaces = match self.decision {
            Decision::Store { mode, .. } => mode.replaces(),
            Decision::Cas { .. } => true,
            Decision::Count(_) | Decision::Touch { .. } => false,
        };
        let debt = ring.members[decider].debt(self.entry.key);
        self.pays = debt.filter(|_| replaces);
        let mut request = Requests::new(1, 0).marked(options.origin);
        let value = (self.entry.value.bytes, self.entry.value.flags);
        let key = self.entry.key;
        match self.decision {
            Decision::Store { mode, exptime } => {
                let is_undone = mode == StoreMode::Add && ring.copies(options) > 1;
                let want_cas = is_undone || self.wants_unique;
                request::store(&mut request, key, value, exptime, mode, None, want_cas);
            }
            Decision::Cas { unique, exptime } => {
                if unique.node != ring.members[decider].identity {
                    self.result = Some(Ok(Verdict::Conflict));
                    return;
                }
                let compare = Some(unique.number);
                request::store(
                    &mut request,
                    key,
                    value,
                    exptime,
                    StoreMode::Set,
                    compare,
                    self.wants_unique,
                );
            }
            Decision::Count(count) => {
                // What the decider lacks another copy may have.
                let looked = self.recovered || ring.copies(options) == 1;
                let create = count.create.filter(|_| looked);
                request::count(
                    &mut request,
                    key,
                    Count { create, ..count },
                    self.wants_unique,
                );
            }
            Decision::Touch { exptime } => request::touch(&mut request, key, exptime),
        }
        self.enter(Phase::Asked);
        let (request, expect) = request.finish();
        todo.send.push(Exchange {
            id: self.first_id,
            node: decider,
            request,
            expect,
            deadline: self.context.attempt_deadline(now),
            repeatable: self.is_repeatable(),
            must_send: true,
        });
    }

    /// The decider has answered.
    fn decided(&mut self, reply: Reply, now: Instant) -> std::result::Result<(), Broken> {
        let is_add = matches!(
            self.decision,
            Decision::Store {
                mode: StoreMode::Add,
                ..
            }
        );
        match reply {
            Reply::Ok(meta) => return self.follow(meta, now),
            Reply::NotStored if is_add => self.result = Some(Ok(Verdict::Exists)),
            Reply::NotStored | Reply::Missing => self.missing(now),
            Reply::Exists => self.result = Some(Ok(Verdict::Conflict)),
            Reply::Refused(refusal) => {
                self.result = Some(Err(self.context.refused(self.decider, refusal)))
            }
            _ => return Err(Broken),
        }
        Ok(())
    }

    fn missing(&mut self, now: Instant) {
        let Context { ring, options, .. } = &self.context;
        let readers = ring.readers(self.entry.key, now, options);
        let worth = readers.has_before() || (options.read_repair && readers.order.len() > 1);
        let creates = matches!(
            self.decision,
            Decision::Count(Count {
                create: Some(_),
                ..
            })
        );
        if creates && !self.recovered {
            return self.recover(false);
        }
        if self.recovered || !worth || matches!(self.decision, Decision::Cas { .. }) {
            self.result = Some(Ok(Verdict::Missing));
            return;
        }
        self.recover(true);
    }

    /// Looks for the value on all nodes that may have it, so that the decider is given it.
    fn recover(&mut self, needed: bool) {
        self.recovered = true;
        let wanted = Wanted {
            ttl: true,
            ..Wanted::default()
        };
        // The decider is asked first, however others read: if it is not, it is not given what it lacks.
        let context = self.context.of_decider();
        let read = Read::new(context, vec![self.entry.key], wanted).await_repairs();
        let read = Box::new(read);
        self.enter(Phase::Recover { read, needed });
    }

    /// The decider has done it: the other copies follow.
    fn follow(&mut self, meta: Meta, now: Instant) -> std::result::Result<(), Broken> {
        self.unique = meta.cas;
        if let Some(debt) = self.pays.take() {
            self.context.ring.members[self.decider].paid(self.entry.key, debt);
        }
        let (mut verdict, set) = (Verdict::Done(0), StoreMode::Set);
        let command = match self.decision {
            Decision::Store {
                mode: StoreMode::Replace,
                exptime,
            }
            | Decision::Cas { exptime, .. } => Command::Store { mode: set, exptime },
            Decision::Store { mode, exptime } => Command::Store { mode, exptime },
            Decision::Touch { exptime } => Command::Touch { exptime },
            Decision::Count(count) => {
                // A number that was counted down may be padded.
                let outcome = number(meta.value.trim_ascii_end())?;
                verdict = Verdict::Done(outcome);
                let left = match meta.ttl {
                    Some(left @ 0..) => exptime_s(left.max(1).unsigned_abs(), self.context.unix_s),
                    _ => 0,
                };
                let create = Some((outcome, left));
                Command::Count(Count { create, ..count })
            }
        };
        let Context { ring, options, .. } = &self.context;
        let mut decider = Nodes::default();
        decider.push(self.decider);
        let before = ring.before_only(self.entry.key, &decider, now, options);
        let former = ring.former_only(self.entry.key, &decider, now, options);
        if ring.copies(options) == 1 && before.is_empty() && former.is_empty() {
            self.result = Some(Ok(verdict));
            return Ok(());
        }
        let mut write = Write::beside(self.context.clone(), self.entry, command, self.decider);
        if repairs::is_passing(meta.ttl) {
            write = write.leaving_before();
        }
        self.enter(Phase::Follow(Box::new(write), verdict, meta.cas));
        Ok(())
    }

    fn take_back(&mut self) {
        let took = std::mem::take(&mut self.took);
        let write = Write::taking_back(self.context.clone(), self.entry, took);
        self.enter(Phase::TakeBack(Box::new(write)));
    }

    /// Nobody waits for the decider's answer any more. As after a failure: what it decided, the others would not follow (E2).
    fn leave_undecided(&self, now: Instant) {
        let Context { ring, options, .. } = &self.context;
        if matches!(self.phase, Phase::Asked) && self.result.is_none() && ring.copies(options) > 1 {
            ring.members[self.decider].unsure(self.entry.key, now, options);
        }
    }

    /// What watches over the exchanges of the present phase that are under way.
    fn abandon_phase(&mut self, now: Instant) -> impl Iterator<Item = (u32, Unawaited)> + use<> {
        let first_id = self.first_id;
        let watches = match &mut self.phase {
            Phase::Recover { read, .. } => read.abandon(now),
            Phase::Follow(write, ..)
            | Phase::Undo(write)
            | Phase::Pay(write)
            | Phase::TakeBack(write) => write.abandon(now),
            Phase::Hear(_) | Phase::Tell(_) | Phase::Ask(_) | Phase::Asked => Vec::new(),
        };
        watches
            .into_iter()
            .map(move |(id, watch)| (first_id + id, watch))
    }

    fn take_watch(&mut self, id: u32) -> Option<Unawaited> {
        let at = self.watches.iter().position(|(other, _)| *other == id)?;
        Some(self.watches.swap_remove(at).1)
    }

    /// Goes on to the next phase when the present one is done.
    fn advance(&mut self, now: Instant) {
        let watches = self.abandon_phase(now);
        self.watches.extend(watches);
        match std::mem::replace(&mut self.phase, Phase::Asked) {
            Phase::Recover { read, needed } => match read.finish().next() {
                Some(Err(error)) => self.result = Some(Err(error)),
                Some(Ok(found)) if found.is_some() || !needed => self.enter(Phase::Ask(Some(now))),
                _ => self.result = Some(Ok(Verdict::Missing)),
            },
            Phase::Follow(mut write, verdict, unique) => {
                self.took = write.took();
                match write.finish().next() {
                    Some(Ok(written))
                        if written.opposed
                            && matches!(
                                self.decision,
                                Decision::Store {
                                    mode: StoreMode::Add,
                                    ..
                                }
                            ) =>
                    {
                        // Nodes without CAS uniques give 0.
                        let compare = (unique != 0).then_some(unique);
                        let entry = Entry::key(self.entry.key);
                        let undo = Write::only(
                            self.context.clone(),
                            entry,
                            Command::Delete { compare },
                            self.decider,
                        );
                        self.enter(Phase::Undo(Box::new(undo)));
                    }
                    Some(Ok(_)) => self.result = Some(Ok(verdict)),
                    Some(Err(error)) => self.result = Some(Err(error)),
                    None => {}
                }
            }
            Phase::TakeBack(_) => self.result = Some(Ok(Verdict::Exists)),
            // If the decider has something else by now, others have put it there since, and on the other copies too: it stays.
            Phase::Undo(_) => self.take_back(),
            Phase::Hear(_) | Phase::Tell(_) | Phase::Pay(_) => self.enter(Phase::Ask(None)),
            phase @ (Phase::Ask(_) | Phase::Asked) => self.phase = phase,
        }
    }

    /// Steps the machine of the present phase; true if it is done.
    fn step_inner(&mut self, now: Instant, todo: &mut Todo) -> bool {
        let begin = todo.send.len();
        match &mut self.phase {
            Phase::Recover { read, .. } | Phase::Hear(read) => read.step(now, todo),
            Phase::Follow(write, ..)
            | Phase::Undo(write)
            | Phase::TakeBack(write)
            | Phase::Pay(write)
            | Phase::Tell(write) => {
                write.step(now, todo);
            }
            Phase::Ask(_) | Phase::Asked => return false,
        }
        for exchange in &mut todo.send[begin..] {
            exchange.id += self.first_id;
        }
        std::mem::take(&mut todo.done)
    }
}

impl Operation for ViaDecider<'_> {
    fn step(&mut self, now: Instant, todo: &mut Todo) {
        todo.done = false;
        loop {
            todo.wake_at = None;
            if self.result.is_none() && now >= self.context.deadline {
                self.leave_undecided(now);
                self.result = Some(Err(Error::Timeout));
            }
            if self.result.is_some() {
                todo.done = true;
                return;
            }
            if self.step_inner(now, todo) {
                self.advance(now);
                continue;
            }
            match self.phase {
                Phase::Ask(Some(at)) if at > now => todo.wake(at),
                Phase::Ask(_) => {
                    self.ask(now, todo);
                    continue;
                }
                _ => {}
            }
            todo.wake(self.context.deadline);
            return;
        }
    }

    fn on_reply(
        &mut self,
        id: u32,
        reply: Reply,
        last: bool,
        now: Instant,
    ) -> std::result::Result<(), Broken> {
        let Some(inner) = id.checked_sub(self.first_id) else {
            // A copy that a phase before did not wait for.
            if last && let Some(watch) = self.take_watch(id) {
                watch.answered();
            }
            return Ok(());
        };
        match &mut self.phase {
            Phase::Asked if self.result.is_none() => {
                self.context.worked(self.decider);
                self.decided(reply, now)
            }
            Phase::Recover { read, .. } | Phase::Hear(read) => {
                read.on_reply(inner, reply, last, now)
            }
            Phase::Follow(write, ..)
            | Phase::Undo(write)
            | Phase::TakeBack(write)
            | Phase::Pay(write)
            | Phase::Tell(write) => write.on_reply(inner, reply, last, now),
            _ => Ok(()),
        }
    }

    fn on_failure(&mut self, id: u32, failure: Failure, now: Instant) {
        let Some(inner) = id.checked_sub(self.first_id) else {
            drop(self.take_watch(id));
            return;
        };
        match &mut self.phase {
            Phase::Asked if self.result.is_none() => {
                let Context { ring, options, .. } = &self.context;
                let decider = self.decider;
                self.context.failed(decider, failure, now);
                self.attempts += 1;
                let again = self.is_repeatable() || was_not_done(failure);
                let member = &ring.members[decider];
                if again {
                    let at = if member.is_in() {
                        self.context.retry_at(self.attempts, now)
                    } else {
                        Some(now)
                    };
                    if at.is_some() {
                        self.phase = Phase::Ask(at);
                        return;
                    }
                } else if ring.copies(options) > 1 {
                    member.unsure(self.entry.key, now, options);
                }
                self.result = Some(Err(self.context.node_error(decider, failure)));
            }
            Phase::Recover { read, .. } | Phase::Hear(read) => {
                read.on_failure(inner, failure, now);
            }
            Phase::Follow(write, ..)
            | Phase::Undo(write)
            | Phase::TakeBack(write)
            | Phase::Pay(write)
            | Phase::Tell(write) => {
                write.on_failure(inner, failure, now);
            }
            _ => {}
        }
    }

    fn abandon(&mut self, now: Instant) -> Vec<(u32, Unawaited)> {
        self.leave_undecided(now);
        let mut watches = std::mem::take(&mut self.watches);
        watches.extend(self.abandon_phase(now));
        watches
    }

    fn deadline(&self) -> Instant {
        self.context.deadline
    }

    fn op(&self) -> Op {
        match self.decision {
            Decision::Store { .. } | Decision::Cas { .. } => Op::Store,
            Decision::Count(_) => Op::Count,
            Decision::Touch { .. } => Op::Touch,
        }
    }
}
