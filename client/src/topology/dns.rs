//! The addresses of a name, by the system's resolver.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::{Source, SourceError};
use crate::Node;

/// How long addresses are taken to be good: the system's resolver does not say.
pub(super) const DNS_INTERVAL: Duration = Duration::from_secs(30);

/// Which addresses of a name are nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4 if the name has any such address the first time, else IPv6, and the same from then on: a server with both would be
    /// two nodes otherwise, and a question that fails for one of them would make another ring.
    #[default]
    One,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// Each address (A and AAAA records) of a name is a node of weight 1 on the same port. Sorted, as name servers shuffle them.
///
/// How long a question may take is the system's business (`/etc/resolv.conf`).
#[derive(Debug, Clone)]
pub struct DnsAddresses {
    name: String,
    port: u16,
    family: Family,
}

impl DnsAddresses {
    /// The addresses of `name`, with this port.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        DnsAddresses {
            name: name.into(),
            port,
            family: Family::default(),
        }
    }

    /// Which of them.
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }
}

impl Source for DnsAddresses {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        let addresses = (self.name.as_str(), self.port).to_socket_addrs()?;
        let (family, nodes) = nodes(addresses, self.family);
        if !nodes.is_empty() {
            self.family = family;
        }
        Ok(nodes)
    }

    fn interval(&self) -> Option<Duration> {
        Some(DNS_INTERVAL)
    }
}

/// The addresses of a family, and which one that is.
fn nodes(addresses: impl Iterator<Item = SocketAddr>, family: Family) -> (Family, Vec<Node>) {
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    let family = match family {
        Family::One if addresses.iter().any(SocketAddr::is_ipv4) => Family::V4,
        Family::One => Family::V6,
        given => given,
    };
    addresses.retain(|address| address.is_ipv4() == (family == Family::V4));
    addresses.sort_unstable();
    addresses.dedup();
    let node = |address: SocketAddr| Node::new(address.ip().to_string(), address.port());
    (family, addresses.into_iter().map(node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_sorted_each_once() {
        let addresses = [
            "10.0.0.9:1",
            "[2001:db8::2]:1",
            "10.0.0.10:1",
            "10.0.0.9:1",
            "[2001:db8::1]:1",
        ];
        let of = |family, list: &[&str]| {
            let (_, found) = nodes(list.iter().map(|a| a.parse().unwrap()), family);
            found.iter().map(Node::to_string).collect::<Vec<_>>()
        };
        let (v4, v6) = (
            ["10.0.0.9:1", "10.0.0.10:1"],
            ["[2001:db8::1]:1", "[2001:db8::2]:1"],
        );
        assert_eq!(of(Family::One, &addresses), v4);
        assert_eq!(of(Family::V4, &addresses), v4);
        assert_eq!(of(Family::V6, &addresses), v6);
        assert_eq!(of(Family::One, &addresses[1..2]), ["[2001:db8::2]:1"]);
        assert!(of(Family::V4, &addresses[1..2]).is_empty());
    }

    /// The system's resolver, for the two names that need no name server.
    #[test]
    fn names_of_this_machine() {
        let mut source = DnsAddresses::new("localhost", 7).family(Family::V4);
        assert_eq!(source.nodes().unwrap(), [Node::new("127.0.0.1", 7)]);
        let mut source = DnsAddresses::new("192.0.2.7", 7);
        assert_eq!(source.nodes().unwrap(), [Node::new("192.0.2.7", 7)]);
        assert_eq!(source.family, Family::V4, "what it was the first time");
        assert!(DnsAddresses::new("no such name", 7).nodes().is_err());
    }
}
