//! What is known of a node's addresses, and when its name is to be looked up (again). Who asks carries out the look-up.
//!
//! ```text
//!  answer --30 s, or a connection that cannot be made--> look up --answer--> the next of its addresses
//!                                                           '--error, nothing--> the old ones; again soon
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a name's addresses are used before it is looked up again.
const FRESH: Duration = Duration::from_secs(30);
/// How soon a name is looked up again that has no address, or one that cannot be connected to.
const AGAIN: Duration = Duration::from_millis(100);
/// How often the name of a node is looked up that is ejected: it may have moved.
pub const MOVED: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Addresses {
    known: Vec<SocketAddr>,
    /// The address to try next.
    turn: usize,
    is_name: bool,
    /// When the last look-up began.
    asked: Option<Instant>,
    running: bool,
    /// They are not to be relied on, by what was seen since the last look-up began.
    doubtful: bool,
    /// The last look-up began for that.
    began_in_doubt: bool,
}

impl Addresses {
    /// Of the node at `host` and `port`; nothing is looked up yet.
    pub fn new(host: &str, port: u16) -> Self {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let ip = literal.parse::<IpAddr>();
        Addresses {
            is_name: ip.is_err(),
            known: ip.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(),
            turn: 0,
            asked: None,
            running: false,
            doubtful: false,
            began_in_doubt: false,
        }
    }

    /// True if the caller is to look the name up now, and to tell what was [`found`](Self::found). Good answers are kept for
    /// `fresh` at most.
    pub fn begin_look_up(&mut self, now: Instant, fresh: Duration) -> bool {
        let lasts = match self.doubtful || self.known.is_empty() {
            true => AGAIN,
            false => fresh.min(FRESH),
        };
        let due = |asked| now.saturating_duration_since(asked) >= lasts;
        let begins = self.is_name && !self.running && self.asked.is_none_or(due);
        if begins {
            (self.asked, self.running) = (Some(now), true);
            self.began_in_doubt = std::mem::take(&mut self.doubtful);
        }
        begins
    }

    /// The answer to a look-up; true if the node has moved. Old addresses are better than none.
    pub fn found(&mut self, host: &str, answer: io::Result<Vec<SocketAddr>>) -> bool {
        self.running = false;
        match answer {
            Ok(addrs) if !addrs.is_empty() => {
                let others = addrs.iter().any(|addr| !self.known.contains(addr));
                let moved = others && !self.known.is_empty();
                self.known = addrs;
                // A connection that failed meanwhile went to an address that the answer, which may be older, still has.
                self.doubtful &= !others;
                moved
            }
            Ok(_) => {
                log::warn!("{host}: no address");
                self.forget_look_up();
                false
            }
            Err(error) => {
                log::warn!("{host}: {error}");
                self.forget_look_up();
                false
            }
        }
    }

    /// A look-up ended without an answer.
    pub fn forget_look_up(&mut self) {
        self.running = false;
        self.doubtful |= self.began_in_doubt;
    }

    /// A connection could not be made.
    pub fn doubt(&mut self) {
        self.doubtful = self.is_name;
    }

    /// True if there is none yet, but there may be.
    pub fn is_awaited(&self) -> bool {
        self.running && self.known.is_empty()
    }

    /// The one to try now.
    pub fn next_address(&mut self) -> Option<SocketAddr> {
        let addr = *self.known.get(self.turn % self.known.len().max(1))?;
        self.turn = self.turn.wrapping_add(1);
        Some(addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 11211))
    }

    #[test]
    fn an_address_is_not_looked_up() {
        for host in ["10.0.0.7", "::1", "[::1]"] {
            let mut addresses = Addresses::new(host, 11211);
            assert!(!addresses.begin_look_up(Instant::now(), FRESH));
            addresses.doubt();
            assert!(!addresses.begin_look_up(Instant::now(), FRESH));
            assert!(addresses.next_address().is_some());
        }
    }

    #[test]
    fn a_good_answer_is_kept_until_a_connection_fails() {
        let mut now = Instant::now();
        let mut addresses = Addresses::new("cache", 11211);
        assert!(addresses.begin_look_up(now, FRESH) && addresses.is_awaited());
        assert!(!addresses.begin_look_up(now, FRESH), "one at a time");
        assert!(!addresses.found("cache", Ok(vec![addr(1), addr(2)])));
        assert_eq!(
            [(); 3].map(|()| addresses.next_address()),
            [1, 2, 1].map(|at| Some(addr(at)))
        );
        now += 29_000 * MS;
        assert!(!addresses.begin_look_up(now, FRESH));
        assert!(
            addresses.begin_look_up(now, MOVED),
            "for one that is ejected"
        );
        assert!(
            !addresses.found("cache", Ok(vec![addr(2), addr(1)])),
            "the same"
        );
        // It does not answer there: it is looked up at once.
        now += AGAIN;
        addresses.doubt();
        assert!(addresses.begin_look_up(now, FRESH));
        assert!(
            !addresses.is_awaited() && addresses.next_address().is_some(),
            "meanwhile the old"
        );
        assert!(addresses.found("cache", Ok(vec![addr(3)])), "it has moved");
        assert_eq!(addresses.next_address(), Some(addr(3)));
        assert!(!addresses.begin_look_up(now + AGAIN, FRESH));
        assert!(addresses.begin_look_up(now + FRESH, FRESH));
    }

    #[test]
    fn a_connection_that_fails_during_a_look_up_is_not_forgotten() {
        let mut now = Instant::now();
        let mut addresses = Addresses::new("cache", 11211);
        assert!(addresses.begin_look_up(now, FRESH));
        addresses.found("cache", Ok(vec![addr(1)]));
        now += FRESH;
        assert!(addresses.begin_look_up(now, FRESH));
        addresses.doubt();
        // The name server has not heard of it yet.
        assert!(!addresses.found("cache", Ok(vec![addr(1)])));
        now += AGAIN;
        assert!(addresses.begin_look_up(now, FRESH));
        // Nor do errors end the doubt that it was asked in.
        addresses.doubt();
        addresses.found("cache", Err(io::Error::other("late")));
        now += AGAIN;
        assert!(addresses.begin_look_up(now, FRESH));
        addresses.forget_look_up();
        now += AGAIN;
        assert!(addresses.begin_look_up(now, FRESH));
        // Where it has moved, the doubt was of the address before.
        addresses.doubt();
        assert!(addresses.found("cache", Ok(vec![addr(2)])));
        assert!(!addresses.begin_look_up(now + AGAIN, FRESH));
    }

    #[test]
    fn a_wrong_answer_is_not_kept() {
        let mut now = Instant::now();
        let mut addresses = Addresses::new("cache", 11211);
        let answers = [
            Err(io::Error::other("no such name")),
            Ok(Vec::new()),
            Ok(vec![addr(1)]),
        ];
        for answer in answers {
            assert_eq!(addresses.next_address(), None);
            assert!(addresses.begin_look_up(now, FRESH));
            addresses.found("cache", answer);
            now += AGAIN;
        }
        assert_eq!(addresses.next_address(), Some(addr(1)));
        // One that fails later does not lose what there was.
        assert!(addresses.begin_look_up(now + FRESH, FRESH));
        addresses.found("cache", Ok(Vec::new()));
        assert_eq!(addresses.next_address(), Some(addr(1)));
    }
}
