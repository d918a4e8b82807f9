//! Whom guesses are counted for: the address that a connection comes from, and the connection itself.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Wrong passwords after which a connection is closed.
const WRONG_MAX: u32 = 10;
/// After its first wrong password a connection waits so long before its next one is looked at, then twice that, and so on ..
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// .. up to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where a connection comes from, as far as one who guesses cannot change it at will.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Nothing is known.
    #[default]
    Unknown,
    /// An IPv4 address.
    V4(u32),
    /// The first half of an IPv6 address: a household or a machine that is rented has all of the second.
    V6(u64),
    /// A user of this machine, over a unix socket.
    User(u32),
}

impl From<IpAddr> for Peer {
    fn from(ip: IpAddr) -> Self {
        // An IPv4 address may be written as one of IPv6.
        match ip.to_canonical() {
            IpAddr::V4(ip) => Peer::V4(ip.to_bits()),
            IpAddr::V6(ip) => Peer::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

/// The pause after wrong password number `wrong`, which doubles from `min` up to `max`.
pub(super) fn pause(wrong: u32, min: Duration, max: Duration) -> Duration {
    let doubled = 1_u32
        .checked_shl(wrong.saturating_sub(1))
        .unwrap_or(u32::MAX);
    min.saturating_mul(doubled).min(max)
}

/// One connection that shows passwords.
#[derive(Debug, Clone, Default)]
pub struct Visitor {
    pub(super) peer: Peer,
    pub(super) wrong: u32,
    /// When its next password may be looked at; none is at once.
    pub(super) not_before: Option<Instant>,
    /// Whose password it has shown last.
    user: Option<Box<[u8]>>,
}

impl Visitor {
    /// One that has shown nothing yet.
    pub fn new(peer: Peer) -> Self {
        Visitor {
            peer,
            ..Visitor::default()
        }
    }

    /// One that has shown so many wrong passwords to a server whose connections this one goes on with.
    pub fn gone_on(peer: Peer, wrong: u32) -> Self {
        Visitor {
            wrong,
            ..Visitor::new(peer)
        }
    }

    /// It shows the password of this user.
    pub fn claims(&mut self, user: &[u8]) {
        self.user = Some(user.into());
    }

    /// Whose password it has shown last, right or wrong.
    pub fn user(&self) -> Option<&[u8]> {
        self.user.as_deref()
    }

    /// Wrong passwords it has shown.
    pub fn wrong(&self) -> u32 {
        self.wrong
    }

    /// Notes that what it has shown was wrong.
    pub fn note_wrong(&mut self) {
        self.wrong += 1;
        self.not_before = Some(Instant::now() + pause(self.wrong, PAUSE_MIN, PAUSE_MAX));
    }

    /// True if it has been wrong so often that it is to be closed.
    pub fn is_to_go(&self) -> bool {
        self.wrong >= WRONG_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_ipv6_address_is_one_peer() {
        let peer = |ip: &str| Peer::from(ip.parse::<IpAddr>().expect("an address"));
        assert_eq!(
            peer("2001:db8:1:2::1"),
            peer("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_ne!(peer("0.0.0.1"), Peer::User(1));
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let ms = Duration::from_millis;
        for (wrong, want) in [
            (1, 10),
            (2, 20),
            (3, 40),
            (7, 640),
            (8, 1000),
            (40, 1000),
            (u32::MAX, 1000),
        ] {
            assert_eq!(pause(wrong, PAUSE_MIN, PAUSE_MAX), ms(want), "{wrong}");
        }
    }
}
