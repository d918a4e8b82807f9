//! Who is in a ring of cache servers, as an engine that others run keeps it: etcd, Consul or Kubernetes.
//!
//! ```text
//!  server --Enrolment--> register under a lease, keep it alive, say goodbye -->  etcd   <-- list, wait for a change --Registry-- clients,
//!                                                                                 Consul                                          servers, tools
//! ```
//!
//! Agreement among machines is hard, and the engines have it. ketch adds none of its own: a member is there while its lease
//! lives, and everybody who watches learns of a change within milliseconds.
//!
//! | written | engine | members are |
//! | --- | --- | --- |
//! | `etcd://host:port[,host:port..]/ring` (`;` is as good as `,`) | etcd 3, by its JSON gateway | the keys `ring/NAME` |
//! | `consul://host:port/service` | Consul | the instances of the service whose checks pass |
//! | `k8s://namespace/service[:port]` | Kubernetes | the service's ready endpoints, by the names of their pods |
//!
//! Mb1. A list is whole and of one moment ([`Listing::revision`]), or it is an error.
//! Mb2. Nothing blocks without a bound: each question has a deadline.
//! Mb3. An answer is at most [`ANSWER_BYTES_MAX`] long.

#![forbid(unsafe_code)]

mod consul;
mod enrol;
mod etcd;
mod http;
mod kubernetes;
mod member;
mod steady;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

pub use enrol::{Enrolment, Order, Orders};
pub use member::Member;
pub use steady::{Named, SHARE, Steady, WINDOW};

use consul::Consul;
use etcd::Etcd;
use kubernetes::{Kubernetes, Port};

pub use kubernetes::ApiServer;

/// The longest answer that is read, in bytes: some 100,000 members.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why an engine has not answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be reached, or not in time.
    Unreachable(String),
    /// It answers with an error.
    Refused(String),
    /// Its answer cannot be read.
    Malformed(String),
    /// There is nobody in the list, which no ring is made of.
    Empty,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable(why) => write!(f, "not reached: {why}"),
            Error::Refused(why) => write!(f, "refused: {why}"),
            Error::Malformed(why) => write!(f, "not understood: {why}"),
            Error::Empty => f.write_str("there are no members"),
        }
    }
}

impl std::error::Error for Error {}

/// The members at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// By name, each name once.
    pub members: Vec<Member>,
    /// Members that are there and hold no keys: they have said goodbye, or weigh nothing until they are filled.
    pub standby: Vec<Member>,
    /// The engine's moment; it grows with each change.
    pub revision: u64,
}

/// The members in an engine's answer, as those who ask it over HTTP read it: `engine` is the scheme of a registry, `ring` what stands
/// behind the slash. For the fuzzer.
#[doc(hidden)]
pub fn listed(engine: &str, ring: &str, answer: &str) -> Result<Vec<Member>, Error> {
    let answer =
        serde_json::from_str(answer).map_err(|error| Error::Malformed(error.to_string()))?;
    match engine {
        "etcd" => Ok(etcd::listed(&answer, &format!("{ring}/"))?.0),
        "consul" => Ok(consul::listed(&answer)),
        _ => Ok(kubernetes::listed(&answer, &Port::Any)?.0),
    }
}

/// What an engine does.
trait Engine: fmt::Debug + Send {
    /// All that are written down, in any order, and the moment.
    fn list(&mut self) -> Result<(Vec<Member>, u64), Error>;

    /// Waits until something has changed since the list of `revision`; false if nothing has, for as long as that.
    fn changed_since(&mut self, revision: u64, at_most: Duration) -> Result<bool, Error>;

    /// Writes a member down; it is there until its lease ends. An earlier lease of this engine is let go.
    fn register(&mut self, member: &Member, lease: Duration) -> Result<(), Error>;

    /// Renews the lease; false if it has ended, so that the member has to be registered again.
    fn keep(&mut self) -> Result<bool, Error>;

    /// Says goodbye for a member that is registered; what is written of it ends with the lease.
    fn leave(&mut self, member: &Member) -> Result<(), Error>;

    /// Whether members are written down by themselves, not by the engine.
    fn takes_members(&self) -> bool {
        true
    }

    /// Writes something else down about a member that is there, under the lease that it has.
    fn rewrite(&mut self, member: &Member) -> Result<(), Error>;
}

/// The list of one ring in one engine.
#[derive(Debug)]
pub struct Registry {
    engine: Box<dyn Engine>,
    url: String,
    servers: Vec<String>,
    steady: Steady<Member>,
}

impl Registry {
    /// Whether a text is meant for this: it begins with the scheme of an engine.
    pub fn is_meant_by(text: &str) -> bool {
        SCHEMES.iter().any(|(scheme, _)| {
            text.strip_prefix(scheme)
                .is_some_and(|rest| rest.starts_with("://"))
        })
    }

    /// The ready endpoints of `NAMESPACE/SERVICE[:PORT]`, as this API server lists them.
    pub fn in_kubernetes(service: &str, api: ApiServer) -> Result<Registry, String> {
        let engine = self::service(service, || Ok(api))?;
        Ok(Registry {
            engine: Box::new(engine),
            url: format!("k8s://{service}"),
            servers: Vec::new(),
            steady: Steady::default(),
        })
    }

    /// Whether servers write themselves down in it, or are told that they leave or join.
    pub fn takes_members(&self) -> bool {
        self.engine.takes_members()
    }

    /// The members now.
    pub fn members(&mut self) -> Result<Listing, Error> {
        let (mut all, revision) = self.engine.list()?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        let (members, standby) = all.into_iter().partition(Member::holds_keys);
        Ok(Listing {
            members,
            standby,
            revision,
        })
    }

    /// The ring to use: the members now, and those that have vanished from the list faster than a ring may lose them (a third
    /// within [`WINDOW`], or one). Those that say goodbye may all go. An empty list is an error: whoever has a ring keeps it.
    pub fn ring(&mut self) -> Result<Listing, Error> {
        let listing = self.members();
        let is_there = matches!(&listing, Ok(listing) if !listing.members.is_empty());
        // Pods have no leases that end meanwhile.
        if !is_there && self.engine.takes_members() {
            self.steady.no_list();
        }
        let mut listing = listing?;
        if listing.members.is_empty() {
            return Err(Error::Empty);
        }
        let before = self.steady.missing();
        let now = Instant::now();
        listing.members = self.steady.after(listing.members, &listing.standby, now);
        listing.members.sort_by(|a, b| a.name.cmp(&b.name));
        let missing = self.steady.missing();
        if missing > before {
            log::warn!(
                "{}: {missing} members more than a third have left at once; they stay in the ring for now",
                self.url
            );
        }
        Ok(listing)
    }

    /// Another share of the ring than a third may leave within [`WINDOW`], 0 to 1; but one member may always.
    pub fn leave_share(&mut self, share: f64) {
        self.steady.leave_share(share);
    }

    /// Waits until something has changed since the list of `revision`, or the ring is due to change; false if nothing has, for
    /// as long as that.
    pub fn changed_since(&mut self, revision: u64, at_most: Duration) -> Result<bool, Error> {
        let Some(due_at) = self.steady.due_at() else {
            return self.engine.changed_since(revision, at_most);
        };
        let left = due_at.saturating_duration_since(Instant::now());
        let at_most = at_most.min(left.max(Duration::from_millis(1)));
        Ok(self.engine.changed_since(revision, at_most)? || Instant::now() >= due_at)
    }

    /// Writes something else down about a member that somebody has written down by hand. (A server that has registered itself is
    /// told; it would write its own again.)
    pub fn rewrite(&mut self, member: &Member) -> Result<(), Error> {
        self.engine.rewrite(member)
    }

    /// The engine's servers, `HOST:PORT` each.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// As it was written.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// What makes an engine of what stands behind its scheme, and the servers that are asked.
type Make = fn(&str) -> Result<(Box<dyn Engine>, Vec<String>), String>;

const SCHEMES: &[(&str, Make)] = &[
    ("etcd", |rest| {
        let (servers, ring) = servers_and_ring(rest)?;
        Ok((Box::new(Etcd::new(servers.clone(), ring)), servers))
    }),
    ("consul", |rest| {
        let (servers, ring) = servers_and_ring(rest)?;
        Ok((Box::new(Consul::new(servers.clone(), ring)), servers))
    }),
    ("k8s", |rest| {
        let service = service(rest, ApiServer::from_env)?;
        Ok((Box::new(service), Vec::new()))
    }),
];

const FORM: &str = "it is written etcd://HOST:PORT[,HOST:PORT..]/RING, consul://HOST:PORT/SERVICE or k8s://NAMESPACE/SERVICE[:PORT]";

/// `HOST:PORT[,HOST:PORT..]/RING`.
fn servers_and_ring(text: &str) -> Result<(Vec<String>, String), String> {
    let (servers, ring) = text.split_once('/').ok_or(FORM)?;
    let ring = ring.trim_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if ring.is_empty() || !ring.chars().all(is_plain) {
        return Err(format!(
            "the ring's name {ring:?} is to be of letters, digits and - _ . /; {FORM}"
        ));
    }
    let servers: Vec<String> = servers
        .split([',', ';'])
        .filter(|server| !server.is_empty())
        .map(str::to_owned)
        .collect();
    let has_port = |server: &String| {
        server
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if servers.is_empty() {
        return Err(FORM.to_owned());
    }
    if let Some(server) = servers.iter().find(|server| !has_port(server)) {
        return Err(format!("{server} is to be HOST:PORT; {FORM}"));
    }
    Ok((servers, ring.to_owned()))
}

/// `NAMESPACE/SERVICE[:PORT]`.
fn service(
    text: &str,
    api: impl FnOnce() -> Result<ApiServer, String>,
) -> Result<Kubernetes, String> {
    let (namespace, service) = text.split_once('/').ok_or(FORM)?;
    let (service, port) = match service.split_once(':') {
        Some((service, port)) => (service, Port::read(port)),
        None => (service, Some(Port::Any)),
    };
    let port = port.ok_or_else(|| {
        format!("the port is a number from 1 to 65535, or the name of one; {FORM}")
    })?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    for name in [namespace, service] {
        if name.is_empty() || name.len() > 63 || !name.chars().all(is_plain) {
            return Err(format!(
                "{name:?} is no name of Kubernetes: small letters, digits and -; {FORM}"
            ));
        }
    }
    Kubernetes::new(namespace, service, port, &api()?)
}

impl FromStr for Registry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let Some((_, make)) = SCHEMES.iter().find(|(name, _)| *name == scheme) else {
            return Err(format!("{scheme}:// is no engine that is known; {FORM}"));
        };
        let (engine, servers) = make(rest)?;
        Ok(Registry {
            engine,
            servers,
            url: text.to_owned(),
            steady: Steady::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for good in [
            "etcd://127.0.0.1:2379/ring",
            "etcd://a:1,b:2,[::1]:3/a/b-c",
            "consul://localhost:8500/cache",
        ] {
            assert!(Registry::is_meant_by(good), "{good}");
            assert_eq!(good.parse::<Registry>().unwrap().url(), good);
        }
        for (bad, told) in [
            ("etcd:/a", "it is written"),
            ("zookeeper://a:1/b", "zookeeper:// is no engine"),
            ("etcd://a:1", "it is written"),
            ("etcd://a/ring", "a is to be HOST:PORT"),
            ("etcd://:1/ring", ":1 is to be HOST:PORT"),
            ("etcd:///ring", "it is written"),
            ("etcd://a:1/", "the ring's name"),
            ("etcd://a:1/ri ng", "the ring's name"),
            ("k8s://cache", "it is written"),
            ("k8s:///cache", "\"\" is no name"),
            ("k8s://shop/", "\"\" is no name"),
            ("k8s://Shop/cache", "\"Shop\" is no name"),
            ("k8s://shop/cache:", "the port is"),
            ("k8s://shop/cache:99999", "the port is"),
            ("k8s://shop/cache/x", "\"cache/x\" is no name"),
            ("k8s://shop/cache", "this is no pod of Kubernetes"),
        ] {
            let error = bad.parse::<Registry>().unwrap_err();
            assert!(error.contains(told), "{bad}: {error}");
        }
        assert!(!Registry::is_meant_by("a:11211,b"));
    }
}
