//! What becomes of a write that nobody waits for any more.
//!
//! ```text
//!  done (ack one, quorum)  -->  Unawaited -- goes with the exchange --> answered: all is well
//!                                                              '-> dropped: the node's member is told
//! ```
//!
//! While it is under way, a delete of the same key may overtake it, on another connection, and what was deleted would be there
//! again. So the key is deleted once more when it is answered.
//!
//! A delete where a key was before a change of the nodes is watched too: by the next change the key may be there again. Until it is
//! answered, the node is neither asked for the key nor given it.
//!
//! O1. Where an exchange ends without its last reply, be it that a connection is closed, a deadline passes or a process forgets
//!     it, its watch is dropped. So nothing has to be told in each of these places, and none can be forgotten.

use std::sync::Arc;

use super::health::Member;
use super::options::ClientOptions;
use crate::error::Failure;

/// What a request does with a key at its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It may put its value in the place of another.
    Writes,
    /// It puts its value there only if there is none.
    Adds,
    /// It confirms what a repair has added.
    Confirms,
    /// It deletes the key where it was before a change of the nodes.
    Clears,
}

/// See the module.
#[derive(Debug)]
pub struct Unawaited(Option<Box<Watched>>);

#[derive(Debug)]
struct Watched {
    member: Arc<Member>,
    options: Arc<ClientOptions>,
    keys: Vec<(Box<[u8]>, Does)>,
}

impl Unawaited {
    /// Over an exchange with `member` that `does` something with `keys`.
    pub fn new<'k>(
        member: Arc<Member>,
        options: Arc<ClientOptions>,
        does: Does,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Self {
        let keys: Vec<_> = keys.map(|key| (key.into(), does)).collect();
        member.under_way(&keys);
        Unawaited(Some(Box::new(Watched {
            member,
            options,
            keys,
        })))
    }

    /// This one, which is over the keys of the other as well: both are over the same exchange.
    pub fn and(mut self, mut other: Unawaited) -> Self {
        if let (Some(all), Some(more)) = (&mut self.0, other.0.take()) {
            all.keys.extend(more.keys);
        }
        self
    }

    /// It ended without its last reply.
    pub fn failed(mut self, failure: Failure) {
        self.tell(failure.counts());
    }

    fn tell(&mut self, counts: bool) {
        if let Some(watched) = self.0.take() {
            let Watched {
                member,
                options,
                keys,
            } = &*watched;
            member.arrived(keys);
            let keys = keys.iter().map(|(key, does)| (key, *does != Does::Clears));
            member.overlooked(keys, counts, options);
        }
    }

    /// The last reply has come.
    pub fn answered(mut self) {
        if let Some(watched) = self.0.take() {
            let Watched {
                member,
                options,
                keys,
            } = &*watched;
            member.worked(options);
            let overtaken = member.arrived(keys);
            if !overtaken.is_empty() {
                member.overtaken(&overtaken, options);
            }
        }
    }
}

impl Drop for Unawaited {
    fn drop(&mut self) {
        self.tell(true);
    }
}
