//! The bytes of one connection: requests out, replies in, and whose reply each is.
//!
//! ```text
//!  exchanges:  [login] [disowned] [disowned] [the current one]     in the order they were sent
//!  replies go to the current one only when all before it have had theirs
//!  a disowned one may have a watch, which is told of the last reply, and dropped with the link
//! ```
//!
//! L1. Replies belong to exchanges in the order of sending; a reply without an exchange breaks the link.
//! L2. A link that broke, or whose node complained of not understanding, is never used again.

use std::collections::VecDeque;

use bytes::Bytes;

use super::reply::{Inbox, Refusal, Reply};
use super::watch::Watch;
use crate::error::Failure;

/// Which replies an exchange has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// So many.
    Count(u32),
    /// All up to and with `MN`.
    Noop,
    /// All up to and with `END`, or one of another kind.
    End,
}

#[derive(Debug)]
enum Owner {
    /// The login, whose reply must be `STORED`.
    Login,
    /// Nobody any more, but perhaps a watch.
    Nobody(Option<Watch>),
    /// The operation that has the connection.
    Current,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    inbox: Inbox,
    out: VecDeque<Bytes>,
    expected: VecDeque<(Expect, Owner)>,
    broken: bool,
    /// Replies that the current exchange has had.
    heard: bool,
}

impl Link {
    /// A new connection, whose first words are `login`.
    pub(crate) fn new(login: Option<Bytes>) -> Self {
        let mut link = Link {
            inbox: Inbox::new(),
            out: VecDeque::new(),
            expected: VecDeque::new(),
            broken: false,
            heard: false,
        };
        if let Some(login) = login {
            link.out.push_back(login);
            link.expected.push_back((Expect::Count(1), Owner::Login));
        }
        link
    }

    /// Begins an exchange. What is left of `request` is yet to be written.
    pub(crate) fn send(&mut self, request: Bytes, expect: Expect) {
        let current = self.expected.back();
        let current = current.is_some_and(|(_, owner)| matches!(owner, Owner::Current));
        debug_assert!(!self.broken && !current, "the link is free");
        self.pipeline(request, expect);
        self.heard = false;
    }

    /// Begins an exchange, perhaps behind others whose replies are wanted too: who does so keeps their order.
    pub(crate) fn pipeline(&mut self, request: Bytes, expect: Expect) {
        if !request.is_empty() {
            self.out.push_back(request);
        }
        self.expected.push_back((expect, Owner::Current));
    }

    /// What is to be written next; empty when all is sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        self.out.front().map_or(b"", |bytes| bytes)
    }

    /// All that is to be written, in order.
    #[cfg(feature = "tokio")]
    pub(crate) fn all_unsent(&self) -> impl Iterator<Item = &[u8]> {
        self.out.iter().map(|bytes| &bytes[..])
    }

    /// How many requests at the end were surely not begun to be written.
    #[cfg(feature = "tokio")]
    pub(crate) fn untouched(&self) -> usize {
        self.out.len().saturating_sub(1)
    }

    /// So many bytes of what is unsent were written.
    pub(crate) fn sent(&mut self, mut count: usize) {
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
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.inbox.space()
    }

    /// See [`Inbox::filled`].
    pub(crate) fn filled(&mut self, count: usize) {
        self.inbox.filled(count);
    }

    /// Nobody waits for the current exchange any more, but perhaps a watch.
    pub(crate) fn disown(&mut self, mut watch: Option<Watch>) {
        for (_, owner) in &mut self.expected {
            if matches!(owner, Owner::Current) {
                *owner = Owner::Nobody(watch.take());
            }
        }
    }

    /// True if an outstanding exchange has a watch.
    pub(crate) fn is_watched(&self) -> bool {
        let mut owners = self.expected.iter().map(|(_, owner)| owner);
        owners.any(|owner| matches!(owner, Owner::Nobody(Some(_))))
    }

    /// True if another exchange may be begun, perhaps behind replies that nobody waits for.
    pub(crate) fn reusable(&self) -> bool {
        !self.broken
            && self.out.is_empty()
            && !self
                .expected
                .iter()
                .any(|(_, owner)| matches!(owner, Owner::Current))
    }

    /// True if no reply is outstanding.
    pub(crate) fn settled(&self) -> bool {
        self.expected.is_empty()
    }

    /// True if the current exchange has had a reply.
    pub(crate) fn heard(&self) -> bool {
        self.heard
    }

    /// The current exchange's next reply, and whether it is the last. Replies of others are dealt with on the way.
    pub(crate) fn next(&mut self) -> Result<Option<(Reply, bool)>, Failure> {
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
            let reply = match self.inbox.next() {
                Ok(Some(reply)) => reply,
                Ok(None) => return Ok(None),
                Err(_) => {
                    self.broken = true;
                    return Err(Failure::Garbage);
                }
            };
            let (expect, owner) = self.expected.front_mut().expect("just seen");
            let last = match expect {
                Expect::Count(left) => {
                    *left -= 1;
                    *left == 0
                }
                Expect::Noop => matches!(reply, Reply::Noop),
                Expect::End => !matches!(reply, Reply::Stat(_) | Reply::Value(_)),
            };
            let (login, current) = (
                matches!(owner, Owner::Login),
                matches!(owner, Owner::Current),
            );
            if last && let Some((_, Owner::Nobody(Some(watch)))) = self.expected.pop_front() {
                watch.answered();
            }
            // What follows a misunderstanding is not to be trusted (L2).
            self.broken = matches!(reply, Reply::Refused(Refusal::Client(_)));
            if current {
                self.heard = true;
                return Ok(Some((reply, last)));
            }
            if login && !matches!(&reply, Reply::Line(line) if line == "STORED") {
                self.broken = true;
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

    const GET: &[u8] = b"mg k v\r\n";

    #[test]
    fn a_login_comes_first_and_must_succeed() {
        for (reply, good) in [
            ("STORED\r\nEN\r\n", true),
            ("CLIENT_ERROR authentication failure\r\n", false),
        ] {
            let mut link = Link::new(Some(Bytes::from_static(b"set auth 0 0 3\r\nu p\r\n")));
            link.send(Bytes::from_static(GET), Expect::Count(1));
            assert!(link.unsent().starts_with(b"set auth"));
            drain(&mut link);
            feed(&mut link, reply.as_bytes());
            let next = link.next();
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
            Bytes::from_static(b"mg a v O1 q\r\nmg b v O2 q\r\nmn\r\n"),
            Expect::Noop,
        );
        assert!(!link.reusable());
        drain(&mut link);
        link.disown(None);
        assert!(link.reusable() && !link.settled());
        link.send(Bytes::from_static(GET), Expect::Count(1));
        drain(&mut link);
        feed(&mut link, b"VA 1 O1\r\nx\r\nMN\r\n");
        assert_eq!(link.next(), Ok(None));
        feed(&mut link, b"EN\r\n");
        assert_eq!(link.next(), Ok(Some((Reply::Missing, true))));
        assert!(link.reusable() && link.settled());
    }

    #[test]
    fn what_nobody_asked_for_breaks_the_link() {
        let mut link = Link::new(None);
        link.send(Bytes::from_static(GET), Expect::Count(1));
        drain(&mut link);
        feed(&mut link, b"EN\r\nEN\r\n");
        assert_eq!(link.next(), Ok(Some((Reply::Missing, true))));
        assert_eq!(link.next(), Err(Failure::Garbage));
        assert!(!link.reusable());
    }

    #[test]
    fn a_misunderstanding_ends_the_use_of_the_link() {
        let mut link = Link::new(None);
        link.send(
            Bytes::from_static(b"ms k 1\r\nv\r\nms l 1\r\nv\r\n"),
            Expect::Count(2),
        );
        drain(&mut link);
        feed(
            &mut link,
            b"CLIENT_ERROR bad command line format\r\nERROR\r\n",
        );
        assert!(matches!(link.next(), Ok(Some((Reply::Refused(_), false)))));
        assert_eq!(link.next(), Err(Failure::Garbage));
        assert!(!link.reusable());
    }
}
