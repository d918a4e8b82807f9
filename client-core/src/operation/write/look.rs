//! The second look of deletes, and of an `add` that follows (W3, W6).

use std::time::Instant;

use super::{Command, LOOKS_MAX, Part, Seen, Target, Write, Written};
use crate::health::Marks;
use crate::operation::Context;
use crate::repairs;
use crate::reply::Meta;
use crate::routing::Nodes;
use crate::value::Item;

impl Write<'_> {
    /// Has copies of a key looked at once more (W3); false if that is done, or not needed.
    pub(super) fn is_looked_at(&mut self, at: usize) -> bool {
        let state = &self.states[at];
        let nodes = match self.command {
            Command::Delete { compare: None } if state.unheard || state.had => state.answered,
            Command::Delete { .. } => Nodes::default(),
            _ => state.opposing,
        };
        if state.hoped == 0 && state.looks == 0 && self.is_whole() && !nodes.is_empty() {
            // When others know of the nodes that the write goes around.
            let until = self.held_until;
            let until = until.filter(|&until| until < self.context.deadline);
            self.look(at, nodes, until);
        }
        self.states[at].looking > 0
    }

    pub(super) fn look(&mut self, at: usize, nodes: Nodes, not_before: Option<Instant>) {
        let state = &mut self.states[at];
        state.looks += 1;
        state.seen.clear();
        state.undoing.clear();
        state.looked_at = nodes;
        self.send_at(not_before, at, nodes, Part::Look);
    }

    /// What a look finds at `node`.
    pub(super) fn see(&mut self, at: usize, node: usize, meta: Meta) {
        let is_placeholder = meta.is_placeholder();
        let marks = self.context.ring.members[node].marks();
        let seen = Seen {
            node: node as u16,
            unique: meta.cas,
            item: Item {
                value: meta.value,
                flags: meta.flags,
            },
        };
        let value = &self.entries[at].value;
        let is_entry = seen.item.value == value.bytes && seen.item.flags == value.flags;
        let adds = !self.command.is_delete();
        let state = &mut self.states[at];
        let is_marked = repairs::is_mark(seen.unique);
        let took = self
            .takes_back
            .as_ref()
            .is_some_and(|took| took.contains(&(node, seen.unique)));
        if (adds || self.takes_back.is_some()) && !is_entry {
            state.written.opposed |= adds;
        } else if (is_marked || took) && !adds {
            state.undoing.push(seen);
        // What stands for a value that somebody loads is no value.
        } else if !is_marked && !is_placeholder && marks != Marks::Taken {
            state.seen.push(seen);
        } else if !is_marked {
            state.written.opposed |= adds;
        }
    }

    pub(super) fn send_at(
        &mut self,
        not_before: Option<Instant>,
        at: usize,
        nodes: Nodes,
        part: Part,
    ) {
        self.states[at].looking = nodes.len() as u8;
        for node in nodes.iter() {
            let target = Target {
                entry: at as u32,
                node: node as u16,
                part,
            };
            match not_before {
                Some(time) => self.later.push(time, target),
                None => self.due.push(target),
            }
        }
    }

    /// A look at a copy, a question for a note, or an undoing, is over.
    pub(super) fn looked(&mut self, at: usize, part: Part, now: Instant) {
        let state = &mut self.states[at];
        state.looking -= 1;
        if state.looking > 0 {
            return;
        }
        let nodes = |seen: &[Seen]| Nodes::of(seen.iter().map(|one| usize::from(one.node)));
        match part {
            Part::Undo => {
                let nodes = state.looked_at;
                return self.look(at, nodes, None);
            }
            Part::Look if !state.seen.is_empty() => {
                let unclear = nodes(&state.seen);
                return self.send_at(None, at, unclear, Part::Noted);
            }
            _ => {}
        }
        let undone = nodes(&state.undoing);
        if undone.is_empty() {
            self.seen_all(at);
        } else if state.looks < LOOKS_MAX {
            self.send_at(None, at, undone, Part::Undo);
        } else {
            for node in undone.iter() {
                let Context { ring, options, .. } = &self.context;
                ring.members[node].unsure(self.entries[at].key, now, options);
            }
            self.seen_all(at);
        }
    }

    /// Nothing is left that a repair has given.
    pub(super) fn seen_all(&mut self, at: usize) {
        match self.takes_back {
            Some(_) => self.resolve(at, Ok(Written::default())),
            None => self.settle(at),
        }
    }
}
