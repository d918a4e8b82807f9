//! Whom a read asks, and whom it believes.

use super::nodes::{NODES_MAX, Nodes};

/// How much a node's word about a key is worth, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// The key is its own, and nothing is known against it.
    Own,
    /// The key has become its own by a change of the nodes that is fresh.
    New,
    /// It stands in for one that is ejected.
    StandIn,
    /// The key was its own before a change of the nodes.
    Before,
    /// It was away, and may have missed what nobody has told it yet.
    Doubted,
}

/// The nodes that a read may ask, the most trusted first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readers {
    /// Whom to ask, one after the other.
    pub order: Nodes,
    /// Of each in `order`.
    trust: [Option<Trust>; NODES_MAX],
    /// Nodes that the key is to be given to, though they are not to be believed yet.
    pub settling: Nodes,
    /// A node would be asked if the key were not yet to be deleted there.
    pub owing: bool,
}

impl Readers {
    /// Nodes that the key is the own of, and nothing is known against.
    pub(super) fn own(order: Nodes) -> Self {
        let mut trust = [None; NODES_MAX];
        trust[..order.len()].fill(Some(Trust::Own));
        Readers {
            order,
            trust,
            ..Readers::default()
        }
    }

    pub(super) fn push(&mut self, node: usize, trust: Trust) {
        let len = self.order.len();
        if len == NODES_MAX {
            return;
        }
        let better = |at: &usize| self.trust[*at].is_some_and(|other| other <= trust);
        let at = (0..len).take_while(better).count();
        self.order.insert(at, node);
        self.trust[at..=len].rotate_right(1);
        self.trust[at] = Some(trust);
    }

    fn trust(&self, node: usize) -> Option<Trust> {
        let at = self.order.iter().position(|other| other == node)?;
        self.trust[at]
    }

    /// True if a place before a change is among them.
    pub fn has_before(&self) -> bool {
        self.trust.contains(&Some(Trust::Before))
    }

    /// The next to ask, after those that were `tried`. Of these, some have `missed`: their word is final against less trusted
    /// nodes (T2). `hedged`: others have not answered yet, and only a node whose word is worth as much may be asked as well.
    pub fn next(&self, tried: &Nodes, missed: &Nodes, hedged: bool) -> Option<usize> {
        // Most reads ask one node, and have their answer.
        if tried.is_empty() && missed.is_empty() && !hedged {
            return self.order.first();
        }
        // That a node lacks what is not its own says nothing: it may never have had it.
        let said = |nodes: &Nodes, at_most: Trust| {
            let said = nodes.iter().filter_map(|node| self.trust(node));
            said.filter(|&trust| trust <= at_most).min()
        };
        let final_at = match hedged {
            true => said(tried, Trust::StandIn),
            false => said(missed, Trust::Own),
        };
        let nodes = self
            .order
            .iter()
            .zip(self.trust)
            .filter_map(|(node, trust)| {
                let trust = trust?;
                let may_say = match trust {
                    Trust::Before => !hedged,
                    _ => final_at.is_none_or(|said| trust <= said),
                };
                (may_say && !tried.contains(node)).then_some(node)
            });
        nodes.into_iter().next()
    }
}
