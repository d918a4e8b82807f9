//! What other clients are told of nodes, and by which: see [`notices`](crate::notices).

use std::time::Instant;

use super::{Nodes, Ring};
use crate::health::{Marks, Member};
use crate::notices::WITNESSES;
use crate::options::ClientOptions;

impl Ring {
    /// Those of the nodes that a key lives on that others are to be told of: the ejected ones, and those that fail.
    pub fn noticed(&self, key: &[u8], now: Instant, options: &ClientOptions) -> Nodes {
        let mut noticed = Nodes::default();
        let is_noticed = |member: &Member| !member.is_in() || member.is_failing(now, options);
        if options.copies < 2 || !self.members.iter().any(|member| is_noticed(member)) {
            return noticed;
        }
        let own = self.own(key, options);
        let those = own.iter().filter(|&node| is_noticed(&self.members[node]));
        those.for_each(|node| noticed.push(node));
        noticed
    }

    /// True if the caller is to ask what other clients tell of nodes.
    pub fn asks_for_notices(&self, now: Instant, options: &ClientOptions) -> bool {
        // Also where repairs carry over what moved: whether they can be marked there is asked with it.
        let unknown = |node: usize| self.members[node].marks() == Marks::Unknown;
        let asks = options.copies > 1 || (self.has_before() && self.current().any(unknown));
        asks && self.circle.len() > 1 && self.notices.is_due(now)
    }

    /// True if other clients do not know yet which of the nodes that `key` lives on are ejected.
    pub fn is_to_be_told(&self, key: &[u8], now: Instant, options: &ClientOptions) -> bool {
        if options.copies < 2 || self.members.iter().all(|member| member.is_in()) {
            return false;
        }
        let ejected = self.ejected(key, options);
        let held = |node: usize| {
            self.members[node]
                .held_until(now)
                .is_none_or(|until| now < until)
        };
        ejected.iter().any(held)
    }

    /// The nodes that a notice about `node` is on.
    pub fn witnesses(&self, node: usize) -> impl Iterator<Item = usize> {
        let at = self.circle.iter().position(|&one| usize::from(one) == node);
        let others = self.circle.len().saturating_sub(1);
        let count = at.map_or(0, |_| WITNESSES.min(others));
        let at = at.unwrap_or(0);
        let next = (1..=count).map(move |step| self.circle[(at + step) % self.circle.len()]);
        next.map(usize::from)
    }

    /// The nodes that `witness` has the notices of.
    pub fn witnessed(&self, witness: usize) -> impl Iterator<Item = usize> {
        let nodes = self.circle.iter().map(|&node| usize::from(node));
        nodes.filter(move |&node| self.witnesses(node).any(|one| one == witness))
    }
}
