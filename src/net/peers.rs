//! The addresses that have shown that they are where they say: those with an open TCP connection.
//!
//! Who has taken part in TCP's handshake receives what is sent to their address; the sender of a datagram may have written
//! any address on it. [`super::udp`] asks here before it answers with more than it was asked with.
//!
//! An address stays as long as its connections do, so `-c` bounds the table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

/// The table.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// How many connections each address has.
    open: RwLock<HashMap<IpAddr, usize>>,
}

/// One connection's entry; dropping it takes it back.
#[derive(Debug)]
pub(super) struct Proof {
    peers: Arc<Peers>,
    ip: IpAddr,
}

impl Peers {
    /// Counts a connection from `ip`.
    pub(super) fn prove(self: &Arc<Self>, ip: IpAddr) -> Proof {
        let mut open = self.open.write().expect("no holder of the table panics");
        *open.entry(ip).or_default() += 1;
        drop(open);
        Proof {
            peers: self.clone(),
            ip,
        }
    }

    /// True while `ip` has a connection.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        let open = self.open.read().expect("no holder of the table panics");
        open.contains_key(&ip)
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        let mut open = self
            .peers
            .open
            .write()
            .expect("no holder of the table panics");
        if let Some(count) = open.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_proven_while_one_of_its_connections_lasts() {
        let peers = Arc::new(Peers::default());
        let [a, b] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert!(!peers.has(a));
        let (first, second) = (peers.prove(a), peers.prove(a));
        assert!(peers.has(a) && !peers.has(b));
        drop(first);
        assert!(peers.has(a));
        drop(second);
        assert!(!peers.has(a));
        assert!(peers.open.read().unwrap().is_empty());
    }
}
