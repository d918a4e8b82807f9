//! What other clients tell of nodes: see [`notices`](crate::notices).

use std::time::Instant;

use super::{Part, Read, Sent};
use crate::Todo;
use crate::notices;
use crate::reply::Reply;
use crate::request::{self, Requests, StoreMode, Wanted};

impl Read<'_> {
    /// Asks the witnesses of all nodes whether other clients have them ejected, and tells them so of those that this client has.
    pub(super) fn ask_for_notices(&mut self, now: Instant, todo: &mut Todo) {
        let ring = self.context.ring.clone();
        for witness in ring.current().filter(|&node| ring.members[node].is_in()) {
            let (mut others, mut asked) = (Vec::new(), Vec::new());
            for node in ring.witnessed(witness) {
                let member = &ring.members[node];
                if member.is_in() || !member.is_owed() {
                    asked.push(node as u16);
                } else {
                    others.push(node as u16);
                }
            }
            let mut request = Requests::new(asked.len() + others.len(), 0);
            let count = asked.len();
            for (at, &node) in others.iter().chain(&asked).enumerate() {
                let key = notices::key(ring.members[usize::from(node)].identity);
                if at < others.len() {
                    let mode = StoreMode::Set;
                    let value = (&b"1"[..], 0);
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
                } else {
                    let last = at + 1 == others.len() + count;
                    request::get(&mut request, key.as_bytes(), Wanted::default(), !last);
                }
            }
            if request.is_empty() {
                continue;
            }
            let places = others.iter().map(|_| u16::MAX).chain(asked);
            let part = Part::Notices(places.collect());
            self.asking += 1;
            let sent = Sent {
                node: witness,
                keys: Vec::new(),
                answered: 0,
                refused: None,
                hedge_at: None,
                part,
            };
            self.send(todo, now, request, sent);
        }
        self.asked_until = Some(now + notices::PATIENCE);
    }

    /// A reply of a witness.
    pub(super) fn heard(&mut self, id: usize, reply: Reply, last: bool, now: Instant) {
        let sent = &mut self.sent[id];
        if let (Part::Notices(nodes), Reply::Ok(meta)) = (&sent.part, &reply) {
            let place = match meta.tag {
                _ if last => nodes.len().checked_sub(1),
                place => place.map(|place| place as usize),
            };
            // Those that were told, not asked, have no node.
            let node = place.and_then(|place| nodes.get(place));
            if let Some(member) =
                node.and_then(|&node| self.context.ring.members.get(usize::from(node)))
            {
                member.doubt(now + notices::BELIEVED);
            }
        }
        if last {
            let node = sent.node;
            sent.part = Part::End;
            self.asking -= 1;
            self.context.worked(node);
        }
    }
}
