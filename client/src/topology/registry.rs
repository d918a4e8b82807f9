//! A ring in etcd or Consul, or a service of Kubernetes: who joins is in it within milliseconds, who is gone is out when its lease has ended.

use std::time::Duration;

use ketch_membership::Registry;

use super::{Source, SourceError};
use crate::Node;

/// How often it is asked even if it tells of no change.
const INTERVAL: Duration = Duration::from_secs(60);

/// The members of a ring that servers have joined (`-o register` of ketch), or that others have written down; or the ready pods of a
/// service of Kubernetes.
///
/// Placement goes by the members' names, so that one that comes back at another address keeps its keys. While the engine is
/// away, or tells of nobody, the nodes stay as they are; of more members than a third that leave within half a minute, the
/// others stay until it is over, as a list that falls apart is rarely true.
///
/// ```no_run
/// use ketch_client::topology::{FollowOptions, RegisteredNodes};
/// use ketch_client::{Client, ClientOptions};
///
/// let ring: RegisteredNodes = "etcd://10.0.0.1:2379/cache".parse()?;
/// let client = Client::follow(ring, ClientOptions::default(), FollowOptions::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RegisteredNodes {
    registry: Registry,
    revision: u64,
}

impl RegisteredNodes {
    /// Whether a text is meant for this: `etcd://..`, `consul://..` or `k8s://..`.
    pub fn is_meant_by(text: &str) -> bool {
        Registry::is_meant_by(text)
    }
}

impl std::str::FromStr for RegisteredNodes {
    type Err = SourceError;

    fn from_str(url: &str) -> Result<Self, SourceError> {
        let registry = url.parse().map_err(SourceError::Registry)?;
        Ok(RegisteredNodes {
            registry,
            revision: 0,
        })
    }
}

impl Source for RegisteredNodes {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        let told = |error: ketch_membership::Error| match error {
            ketch_membership::Error::Empty => SourceError::Empty,
            error => SourceError::Registry(error.to_string()),
        };
        let listing = self.registry.ring().map_err(told)?;
        self.revision = listing.revision;
        let node = |member: ketch_membership::Member| {
            let node = Node::new(member.host.clone(), member.port).with_weight(member.weight);
            let node = match member.name == member.address() {
                true => node,
                false => node.with_name(member.name),
            };
            match member.zone {
                Some(zone) => node.with_zone(zone),
                None => node,
            }
        };
        Ok(listing.members.into_iter().map(node).collect())
    }

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    fn leave_share(&mut self, share: f64) {
        self.registry.leave_share(share);
    }

    fn wait(&mut self, at_most: Duration) -> Option<bool> {
        match self.registry.changed_since(self.revision, at_most) {
            Ok(changed) => Some(changed),
            // It is asked again, which tells what is wrong.
            Err(_) => {
                std::thread::sleep(at_most.min(Duration::from_millis(500)));
                Some(true)
            }
        }
    }
}
