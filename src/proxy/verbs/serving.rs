//! A pool, as requests are carried out over it.

use client_core::operation::Context;
use client_core::value::CasUnique;

use crate::proxy::carry::{Over, Seat, carry};

/// Reads that find no node that answers are misses, if the pool says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) misses: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Serving<'a> {
    pub(super) seat: &'a Seat,
    pub(super) over: &'a Over,
    pub(super) policy: Policy,
}

impl Serving<'_> {
    pub(super) fn context(&self) -> Context {
        self.seat.context(self.over)
    }

    pub(super) async fn carry<O: client_core::Operation>(&self, mut operation: O) -> O {
        carry(self.seat, self.over, &mut operation).await;
        operation
    }

    /// The CAS unique of a node as a client is told it: worth nothing for another node.
    pub(super) fn unique(&self, number: u64, node: usize) -> u64 {
        number ^ self.salt(node)
    }

    pub(super) fn salt(&self, node: usize) -> u64 {
        // Few bits, as nodes count from 1 and some programs keep 32.
        const BITS: u64 = (1 << 24) - 1;
        match self.over.pool.options.copies {
            1 => 0,
            _ => self.over.now.ring.members[node].identity & BITS,
        }
    }

    /// What a client compares, at the node that decides now.
    pub(super) fn compared(&self, key: &[u8], unique: u64) -> CasUnique {
        let ring = &self.over.now.ring;
        let decider = ring.writers(key, self.seat.now(), &self.over.pool.options);
        let decider = decider.first().unwrap_or(0);
        let members = &ring.members;
        CasUnique {
            number: unique ^ self.salt(decider.min(members.len().saturating_sub(1))),
            node: members.get(decider).map_or(0, |member| member.identity),
        }
    }
}
