//! What other clients tell of nodes: see [`notices`](crate::notices).

use std::time::Instant;

use bytes::Bytes;

use super::{Part, Read, Sent};
use crate::expect::Expect;
use crate::health::Marks;
use crate::notices;
use crate::reply::Reply;
use crate::request::{self, Requests, StoreMode, Wanted};
use crate::{Exchange, Todo};

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
                    ring.members[usize::from(node)].noticed(now);
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
            if ring.members[witness].marks() == Marks::Unknown {
                self.asking += 1;
                self.ask_for_version(witness, Part::Version, now, todo);
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

    /// Asks a node's version, and so whether what repairs store there can be marked (D6).
    pub(super) fn ask_for_version(
        &mut self,
        node: usize,
        part: Part,
        now: Instant,
        todo: &mut Todo,
    ) {
        todo.send.push(Exchange {
            id: self.sent.len() as u32,
            node,
            request: Bytes::from_static(request::VERSION),
            expect: Expect::Lines { ended: false },
            deadline: self.context.attempt_deadline(now),
            repeatable: true,
            must_send: false,
        });
        self.sent.push(Sent {
            node,
            keys: Vec::new(),
            answered: 0,
            refused: None,
            hedge_at: None,
            part,
        });
    }

    /// What a node answers to that.
    pub(super) fn heard_version(&mut self, id: usize, reply: Reply, last: bool) {
        let sent = &mut self.sent[id];
        let member = &self.context.ring.members[sent.node];
        match reply {
            Reply::Line(line) => member.takes_marks(takes_marks(&line)),
            // A proxy perhaps.
            Reply::Refused(_) => member.takes_marks(false),
            _ => {}
        }
        if last && sent.part == Part::Version {
            sent.part = Part::End;
            self.asking -= 1;
        } else if last {
            self.end_part(id);
        }
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

/// Whether a server of this version (`VERSION 1.6.45`) can be given CAS uniques: memcached since 1.6.27.
fn takes_marks(line: &[u8]) -> bool {
    let numbers = line.strip_prefix(b"VERSION ").unwrap_or_default();
    let numbers = String::from_utf8_lossy(numbers);
    let mut numbers = numbers.split('.').map(|number| number.trim().parse().ok());
    let mut next = || numbers.next().flatten().unwrap_or(0);
    (next(), next(), next()) >= (1, 6, 27)
}

#[cfg(test)]
mod tests {
    #[test]
    fn marks_are_given_to_servers_that_know_them() {
        for (line, takes) in [
            ("VERSION 1.6.45", true),
            ("VERSION 1.6.27", true),
            ("VERSION 1.10.0", true),
            ("VERSION 2.0.0", true),
            ("VERSION 1.6.18", false),
            ("VERSION 1.5.99", false),
            ("VERSION 1.6.x", false),
            ("VERSION twemproxy", false),
            ("OK", false),
        ] {
            assert_eq!(super::takes_marks(line.as_bytes()), takes, "{line}");
        }
    }
}
