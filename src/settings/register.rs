//! `-o register` and what goes with it: the ring that the server joins, and as whom.

use ketch_membership::{Member, Registry};

/// The ring to join.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    /// `-o register`: the engine and the ring's name, as [`Registry`] reads it; empty joins none.
    pub url: String,
    /// `-o node_name`: what placement calls this server; its address unless given.
    pub name: Option<String>,
    /// `-o node_address`: where clients reach it, if not where it listens.
    pub address: Option<(String, u16)>,
    /// `-o node_zone`.
    pub zone: Option<String>,
    /// `-o node_weight`.
    pub weight: u32,
    /// `-o node_lease`: seconds after a crash until the others know.
    pub lease_s: u32,
    /// `-o leave_share`: which share of the ring may leave within [`WINDOW`](ketch_membership::WINDOW) without a goodbye, 0 to 1; a third
    /// unless given.
    pub leave_share: Option<f64>,
}

impl Default for Register {
    fn default() -> Self {
        Register {
            url: String::new(),
            name: None,
            address: None,
            zone: None,
            weight: 1,
            lease_s: 2,
            leave_share: None,
        }
    }
}

/// A URL that names an engine.
pub(super) fn url(value: &str) -> Result<String, String> {
    if value.starts_with("k8s://") {
        return Err("Kubernetes lists the pods of a service itself: nobody registers there; clients follow k8s://NAMESPACE/SERVICE".to_owned());
    }
    value.parse::<Registry>().map(|_| value.to_owned())
}

/// A name or zone, as lists of nodes have it.
pub(super) fn word(what: &str, value: &str) -> Result<String, String> {
    let has = |c: char| c.is_control() || c.is_whitespace() || ",|@=/".contains(c);
    match value {
        "" => Err(format!("{what} must not be empty")),
        _ if value.contains(has) || value.len() > 255 => Err(format!(
            "{what} must be a word without , | @ = / and blanks"
        )),
        _ => Ok(value.to_owned()),
    }
}

/// `HOST:PORT`.
pub(super) fn address(value: &str) -> Result<(String, u16), String> {
    Member::split_address(value)
        .map(|(host, port)| (host.to_owned(), port))
        .ok_or_else(|| "node_address must be HOST:PORT, an IPv6 address in brackets".to_owned())
}
