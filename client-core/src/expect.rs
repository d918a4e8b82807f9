//! What answers a request.

use super::reply::Reply;

/// Which replies an exchange has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The login's `STORED`.
    Login,
    /// `count` of them, `next` of which have come; the first has tag `first`, each other the next.
    Each {
        /// The tag of the first request.
        first: u32,
        /// How many replies have come.
        next: u32,
        /// How many requests there are.
        count: u32,
    },
    /// Some of `count` that are tagged so, the last in any case.
    Hits {
        /// The tag of the first request.
        first: u32,
        /// The first request that may still be answered, counted from 0.
        next: u32,
        /// How many requests there are.
        count: u32,
    },
    /// `VALUE` of any number, `END`, and one with this tag.
    Values {
        /// The tag of the request at the end.
        tag: u32,
    },
    /// Those, after `END`.
    Last {
        /// The tag of the request.
        tag: u32,
    },
    /// All up to and with `MN`, on a connection that has no other exchange.
    Noop,
    /// `STAT` up to and with `END`, or another line; and `MN`.
    Lines {
        /// The lines are over; what remains is the reply to the request at the end.
        ended: bool,
    },
}

impl Expect {
    /// Takes in a reply with this tag: whether it is the last, and its place in the exchange. `None`: it is none of those.
    pub fn take(&mut self, reply: &Reply, tag: Option<u32>) -> Option<(bool, u32)> {
        let refused = matches!(reply, Reply::Refused(_));
        let tagged = matches!(
            reply,
            Reply::Ok(_) | Reply::Missing | Reply::NotStored | Reply::Exists
        );
        match self {
            Expect::Login => Some((true, 0)),
            Expect::Each { first, next, count } => {
                let place = *next;
                let good = refused || (tagged && tag == Some(first.wrapping_add(place)));
                *next += 1;
                good.then_some((*next >= *count, place))
            }
            // Whose an error is cannot be told.
            Expect::Hits { .. } | Expect::Values { .. } | Expect::Last { .. } if refused => {
                Some((true, 0))
            }
            Expect::Hits { first, next, count } => {
                let place = tag?.wrapping_sub(*first);
                let last = place.checked_add(1)? == *count;
                let good = tagged && place >= *next && place < *count;
                *next = place.saturating_add(1);
                (good && (last || matches!(reply, Reply::Ok(_)))).then_some((last, place))
            }
            Expect::Values { tag } => match reply {
                Reply::Value(_) => Some((false, 0)),
                Reply::End => {
                    *self = Expect::Last { tag: *tag };
                    Some((false, 0))
                }
                _ => None,
            },
            Expect::Last { tag: wanted } => (tagged && tag == Some(*wanted)).then_some((true, 0)),
            Expect::Noop => Some((matches!(reply, Reply::Noop), 0)),
            Expect::Lines { ended } => match reply {
                Reply::Refused(_) => Some((true, 0)),
                Reply::Noop => ended.then_some((true, 0)),
                Reply::Stat(_) if !*ended => Some((false, 0)),
                Reply::Line(_) | Reply::End if !*ended => {
                    *ended = true;
                    Some((false, 0))
                }
                _ => None,
            },
        }
    }

    /// True if an error line leaves in doubt what comes behind it.
    pub fn is_doubtful(&self) -> bool {
        !matches!(self, Expect::Each { .. })
    }
}
