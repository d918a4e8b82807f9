//! The bytes of one connection: requests out, replies in, and whose reply each is.
//!
//! ```text
//!  exchanges:  [login] [disowned] [disowned] [the current one]     in the order they were sent
//!  replies go to the current one only when all before it have had theirs
//!  a disowned one may have a watch, which is told of the last reply, and dropped with the link
//! ```
//!
//! L1. Replies belong to exchanges in the order of sending. What is to have a tag (see [`request`](super::request)) and does not
//!     have that of its request breaks the link, and so does a reply without an exchange: nothing is ever taken for the
//!     answer to something else, whatever a node or a proxy adds, loses or repeats.
//! L2. A link that broke, or whose node complained of not understanding, is never used again.
//! L3. Of what has no tag, a classic `VALUE` tells its key. Error lines and statistics tell nothing: one too many of them is
//!     noticed with the next reply.

use std::collections::VecDeque;

use bytes::Bytes;

use super::expect::Expect;
use super::reply::{Inbox, Refusal, Reply};
use super::unawaited::Unawaited;
use crate::error::Failure;

#[derive(Debug)]
enum Owner {
    /// The login, whose reply must be `STORED`.
    Login,
    /// Nobody any more, but perhaps a watch.
    Nobody(Option<Unawaited>),
    /// The operation that has the connection.
    Current,
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    inbox: Inbox,
    out: VecDeque<Bytes>,
    expected: VecDeque<(Expect, Owner)>,
    broken: bool,
    /// Replies that the current exchange has had.
    heard: bool,
    /// What the node said to a login that failed.
    refused_login: Option<Box<str>>,
}

impl Link {
    /// A new connection, whose first words are `login`.
    pub fn new(login: Option<Bytes>) -> Self {
        let mut link = Link {
            inbox: Inbox::default(),
            out: VecDeque::new(),
            expected: VecDeque::new(),
            broken: false,
            heard: false,
            refused_login: None,
        };
        if let Some(login) = login {
            link.out.push_back(login);
            link.expected.push_back((Expect::Login, Owner::Login));
        }
        link
    }

    /// Begins an exchange. What is left of `request` is yet to be written.
    pub fn send(&mut self, request: Bytes, expect: Expect) {
        let current = self.expected.back();
        let current = current.is_some_and(|(_, owner)| matches!(owner, Owner::Current));
        debug_assert!(!self.broken && !current, "the link is free");
        self.pipeline(request, expect);
        self.heard = false;
    }

    /// Begins an exchange, perhaps behind others whose replies are wanted too: who does so keeps their order.
    pub fn pipeline(&mut self, request: Bytes, expect: Expect) {
        if !request.is_empty() {
            self.out.push_back(request);
        }
        self.expected.push_back((expect, Owner::Current));
    }

    /// What is to be written next; empty when all is sent.
    pub fn unsent(&self) -> &[u8] {
        self.out.front().map_or(b"", |bytes| bytes)
    }

    /// All that is to be written, in order.
    pub fn all_unsent(&self) -> impl Iterator<Item = &[u8]> {
        self.out.iter().map(|bytes| &bytes[..])
    }

    /// How many requests at the end were surely not begun to be written.
    pub fn untouched(&self) -> usize {
        self.out.len().saturating_sub(1)
    }

    /// So many bytes of what is unsent were written.
    pub fn sent(&mut self, mut count: usize) {
        while count > 0 {
            let front = self.out.front_mut().expect("only what is there is sent");
            let some = count.min(front.len());
            let _ = front.split_to(some);
            count -= some;
            if front.is_empty() {
                self.out.pop_front();
            }
        }
    }

    /// See [`Inbox::space`].
    pub fn space(&mut self) -> &mut [u8] {
        self.inbox.space()
    }

    /// See [`Inbox::filled`].
    pub fn filled(&mut self, count: usize) {
        self.inbox.filled(count);
    }

    /// Nobody waits for the current exchange any more, but perhaps a watch.
    pub fn disown(&mut self, mut watch: Option<Unawaited>) {
        for (_, owner) in &mut self.expected {
            if matches!(owner, Owner::Current) {
                *owner = Owner::Nobody(watch.take());
            }
        }
    }

    /// True if an outstanding exchange has a watch.
    pub fn is_watched(&self) -> bool {
        let mut owners = self.expected.iter().map(|(_, owner)| owner);
        owners.any(|owner| matches!(owner, Owner::Nobody(Some(_))))
    }

    /// True if another exchange may be begun, perhaps behind replies that nobody waits for. Bytes that nobody asked for are
    /// none of them.
    pub fn reusable(&self) -> bool {
        !self.broken
            && (self.inbox.is_empty() || !self.expected.is_empty())
            && self.out.is_empty()
            && !self
                .expected
                .iter()
                .any(|(_, owner)| matches!(owner, Owner::Current))
    }

    /// What the node said to the login, if it failed.
    pub fn refused_login(&self) -> Option<&str> {
        self.refused_login.as_deref()
    }

    /// True if no reply is outstanding.
    pub fn settled(&self) -> bool {
        self.expected.is_empty()
    }

    /// True if the current exchange has had a reply.
    pub fn heard(&self) -> bool {
        self.heard
    }

    /// The current exchange's next reply, and whether it is the last. Replies of others are dealt with on the way.
    pub fn next_reply(&mut self) -> Result<Option<(Reply, bool)>, Failure> {
        loop {
            if self.broken {
                return Err(Failure::Garbage);
            }
            if self.expected.is_empty() {
                self.broken = !self.inbox.is_empty();
                if self.broken {
                    return Err(Failure::Garbage);
                }
                return Ok(None);
            }
            let mut reply = match self.inbox.next_reply() {
                Ok(Some(reply)) => reply,
                Ok(None) => return Ok(None),
                Err(_) => {
                    self.broken = true;
                    return Err(Failure::Garbage);
                }
            };
            let (expect, owner) = self.expected.front_mut().expect("just seen");
            let Some((last, place)) = expect.take(&reply, self.inbox.tag()) else {
                self.broken = true;
                return Err(Failure::Garbage);
            };
            if let Reply::Ok(meta) = &mut reply {
                meta.tag = Some(place);
            }
            // What follows a misunderstanding is not to be trusted (L2).
            self.broken = match &reply {
                Reply::Refused(Refusal::Client(_)) => true,
                Reply::Refused(_) => expect.is_doubtful(),
                _ => false,
            };
            let (login, current) = (
                matches!(owner, Owner::Login),
                matches!(owner, Owner::Current),
            );
            if last && let Some((_, Owner::Nobody(Some(watch)))) = self.expected.pop_front() {
                watch.answered();
            }
            if current {
                self.heard = true;
                return Ok(Some((reply, last)));
            }
            if login && !matches!(&reply, Reply::Line(line) if line == "STORED") {
                self.broken = true;
                self.refused_login = Some(match &reply {
                    Reply::Line(line)
                    | Reply::Refused(Refusal::Client(line) | Refusal::Server(line)) => {
                        String::from_utf8_lossy(line).into()
                    }
                    _ => "no answer to a login".into(),
                });
                return Err(Failure::SignIn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(link: &mut Link, bytes: &[u8]) {
        link.space()[..bytes.len()].copy_from_slice(bytes);
        link.filled(bytes.len());
    }

    fn drain(link: &mut Link) {
        while !link.unsent().is_empty() {
            let count = link.unsent().len().min(3);
            link.sent(count);
        }
    }

    const GET: &[u8] = b"mg k v O9\r\n";
    /// What comes after it.
    const ONE: Expect = Expect::Each {
        first: 9,
        next: 0,
        count: 1,
    };

    #[test]
    fn a_login_comes_first_and_must_succeed() {
        for (reply, good) in [
            ("STORED\r\nEN O9\r\n", true),
            ("CLIENT_ERROR authentication failure\r\n", false),
        ] {
            let mut link = Link::new(Some(Bytes::from_static(b"set auth 0 0 3\r\nu p\r\n")));
            link.send(Bytes::from_static(GET), ONE);
            assert!(link.unsent().starts_with(b"set auth"));
            drain(&mut link);
            feed(&mut link, reply.as_bytes());
            let next = link.next_reply();
            assert_eq!(
                next,
                if good {
                    Ok(Some((Reply::Missing, true)))
                } else {
                    Err(Failure::SignIn)
                }
            );
            assert_eq!(link.reusable(), good);
        }
    }

    #[test]
    fn replies_nobody_waits_for_are_not_handed_to_the_next() {
        let mut link = Link::new(None);
        link.send(
            Bytes::from_static(b"mg a v q O1\r\nmg b v O2\r\n"),
            Expect::Hits {
                first: 1,
                next: 0,
                count: 2,
            },
        );
        assert!(!link.reusable());
        drain(&mut link);
        link.disown(None);
        assert!(link.reusable() && !link.settled());
        link.send(Bytes::from_static(GET), ONE);
        drain(&mut link);
        feed(&mut link, b"VA 1 O1\r\nx\r\nEN O2\r\n");
        assert_eq!(link.next_reply(), Ok(None));
        feed(&mut link, b"EN O9\r\n");
        assert_eq!(link.next_reply(), Ok(Some((Reply::Missing, true))));
        assert!(link.reusable() && link.settled());
    }

    #[test]
    fn what_nobody_asked_for_breaks_the_link() {
        let mut link = Link::new(None);
        link.send(Bytes::from_static(GET), ONE);
        drain(&mut link);
        feed(&mut link, b"EN O9\r\nEN O9\r\n");
        assert_eq!(link.next_reply(), Ok(Some((Reply::Missing, true))));
        assert!(!link.reusable(), "there is more than was asked for");
        assert_eq!(link.next_reply(), Err(Failure::Garbage));
        assert!(!link.reusable());
    }

    /// How many replies of the exchange are handed on, and how it ends.
    fn replies(expect: Expect, wire: &str) -> (usize, Result<bool, Failure>) {
        let mut link = Link::new(None);
        link.send(Bytes::from_static(GET), expect);
        drain(&mut link);
        feed(&mut link, wire.as_bytes());
        for count in 0.. {
            match link.next_reply() {
                Ok(Some((_, true))) => return (count + 1, Ok(link.reusable())),
                Ok(Some((_, false))) => {}
                Ok(None) => return (count, Ok(false)),
                Err(failure) => return (count, Err(failure)),
            }
        }
        unreachable!()
    }

    #[test]
    fn a_reply_to_something_else_is_none() {
        const GARBAGE: Result<bool, Failure> = Err(Failure::Garbage);
        let (first, next, count) = (9, 0, 3);
        let each = Expect::Each { first, next, count };
        let hits = Expect::Hits { first, next, count };
        let values = Expect::Values { tag: 9 };
        let lines = Expect::Lines { ended: false };
        for (expect, wire, result) in [
            (ONE, "VA 1 O9\r\nx\r\n", (1, Ok(true))),
            (ONE, "VA 1 O8\r\nx\r\n", (0, GARBAGE)),
            (ONE, "VA 1\r\nx\r\n", (0, GARBAGE)),
            (ONE, "EN\r\n", (0, GARBAGE)),
            (ONE, "VALUE k 0 1\r\nx\r\n", (0, GARBAGE)),
            (ONE, "MN\r\n", (0, GARBAGE)),
            (ONE, "STORED\r\n", (0, GARBAGE)),
            (ONE, "SERVER_ERROR odd\r\n", (1, Ok(true))),
            (each, "HD O9\r\nNS O10\r\nEX O11\r\n", (3, Ok(true))),
            (each, "HD O9\r\nHD O9\r\nHD O10\r\n", (1, GARBAGE)),
            (each, "HD O9\r\nHD O11\r\n", (1, GARBAGE)),
            (each, "SERVER_ERROR odd\r\nHD O9\r\n", (1, GARBAGE)),
            (hits, "VA 0 O10\r\n\r\nEN O11\r\n", (2, Ok(true))),
            (hits, "VA 0 O11\r\n\r\n", (1, Ok(true))),
            (hits, "VA 0 O10\r\n\r\nVA 0 O9\r\n\r\n", (1, GARBAGE)),
            (hits, "EN O10\r\n", (0, GARBAGE)),
            (hits, "MN\r\n", (0, GARBAGE)),
            (hits, "VA 0 O12\r\n\r\n", (0, GARBAGE)),
            (hits, "SERVER_ERROR odd\r\n", (1, Ok(false))),
            (
                values,
                "VALUE k 0 1\r\nx\r\nEND\r\nEN O9\r\n",
                (3, Ok(true)),
            ),
            (values, "END\r\nVALUE k 0 1\r\nx\r\n", (1, GARBAGE)),
            (values, "END\r\nEND\r\n", (1, GARBAGE)),
            (values, "END\r\nEN O8\r\n", (1, GARBAGE)),
            (values, "EN O9\r\n", (0, GARBAGE)),
            (lines, "STAT a 1\r\nEND\r\nMN\r\n", (3, Ok(true))),
            (lines, "OK\r\nMN\r\n", (2, Ok(true))),
            (lines, "MN\r\n", (0, GARBAGE)),
            (lines, "OK\r\nOK\r\n", (1, GARBAGE)),
            (lines, "VA 1 O9\r\nx\r\n", (0, GARBAGE)),
            (lines, "ERROR\r\n", (1, Ok(false))),
        ] {
            assert_eq!(replies(expect, wire), result, "{expect:?} {wire}");
        }
    }

    #[test]
    fn a_misunderstanding_ends_the_use_of_the_link() {
        let mut link = Link::new(None);
        link.send(
            Bytes::from_static(b"ms k 1 O1\r\nv\r\nms l 1 O2\r\nv\r\n"),
            Expect::Each {
                first: 1,
                next: 0,
                count: 2,
            },
        );
        drain(&mut link);
        feed(
            &mut link,
            b"CLIENT_ERROR bad command line format\r\nERROR\r\n",
        );
        assert!(matches!(
            link.next_reply(),
            Ok(Some((Reply::Refused(_), false)))
        ));
        assert_eq!(link.next_reply(), Err(Failure::Garbage));
        assert!(!link.reusable());
    }
}
