//! Where the list of nodes comes from, and when it is asked for again.
//!
//! ```text
//!  Vec<Node>          never changes
//!  NodeFile           one node a line                        every second
//!  DnsAddresses       A and AAAA records of a name            every 30 seconds
//!  DnsServices        SRV records of a name (feature `srv`)   every 30 seconds      --> Topology: nodes, version
//!  ClusterEndpoint    config get cluster, asked of a node     every 60 seconds
//!  RegisteredNodes    a ring in etcd or Consul, a service     as soon as it changes
//!                     of Kubernetes (feature `registry`)
//! ```
//!
//! [`Client::follow`](crate::Client::follow) keeps a client at what its source says. A [`Source`] says what the nodes are now, and may wait for files and sockets, with a deadline of its own where the system
//! gives it one. A [`Topology`] keeps the last good answer of one source; it has no thread and no clock: whoever owns it calls
//! [`Topology::refresh`] when [`Topology::due_at`] has come, away from the requests.
//!
//! To1. `nodes` is never empty, and is always an answer of the source in full: an error or an empty answer changes nothing.
//! To2. `version` grows by one exactly when `nodes` becomes another list; the order of a list counts, for it decides placement
//!     in some distributions. Sources whose answers have no order sort them.
//! To3. Two refreshes are an interval apart, give or take a tenth: clients that start together do not ask together for ever.

mod dns;
mod endpoint;
mod file;
pub(crate) mod follow;
pub(crate) mod jitter;
mod named;
#[cfg(feature = "registry")]
mod registry;
#[cfg(feature = "srv")]
mod srv;
#[cfg(feature = "registry")]
mod steady;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::dns::{DnsAddresses, Family};
pub use self::endpoint::{ClusterAnswer, ClusterEndpoint, parse_cluster};
pub use self::file::{NodeFile, parse_nodes};
pub use self::follow::FollowOptions;
pub use self::named::{SOURCE_FORMS, source};
#[cfg(feature = "registry")]
pub use self::registry::RegisteredNodes;
#[cfg(feature = "srv")]
pub use self::srv::{DnsServices, parse_services};

use self::jitter::Jitter;
use crate::{ClientOptions, Node, NodeError};

/// Something that knows the nodes.
pub trait Source: Send {
    /// The nodes as they are now, in the order that counts.
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError>;

    /// How long an answer is good for unless the user says otherwise; `None` for ever.
    fn interval(&self) -> Option<Duration>;

    /// Waits until the nodes may have changed, or for so long; true if they may have. `None` from one that is not told of
    /// changes: it is asked at its interval.
    fn wait(&mut self, at_most: Duration) -> Option<bool> {
        let _ = at_most;
        None
    }

    /// Which share of the nodes may leave within half a minute, 0 to 1, where it bounds that.
    fn leave_share(&mut self, share: f64) {
        let _ = share;
    }

    /// What the client that is to follow it speaks with: a source that asks nodes may do as the client does. Called once, first.
    fn adopt(&mut self, options: &ClientOptions) {
        let _ = options;
    }
}

/// A list that does not change.
impl Source for Vec<Node> {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        Ok(self.clone())
    }

    fn interval(&self) -> Option<Duration> {
        None
    }
}

/// A source that was chosen by its name.
impl Source for Box<dyn Source> {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        (**self).nodes()
    }

    fn interval(&self) -> Option<Duration> {
        (**self).interval()
    }

    fn wait(&mut self, at_most: Duration) -> Option<bool> {
        (**self).wait(at_most)
    }

    fn leave_share(&mut self, share: f64) {
        (**self).leave_share(share);
    }

    fn adopt(&mut self, options: &ClientOptions) {
        (**self).adopt(options);
    }
}

/// Why a source has no nodes to tell.
#[derive(Debug)]
#[non_exhaustive]
pub enum SourceError {
    /// The file, or the connection.
    Io(io::Error),
    /// Something in the answer is no node: on this line of a file (from 1), or the place in another list.
    Node {
        /// Which one.
        at: usize,
        /// Why.
        error: NodeError,
    },
    /// There are no nodes in the answer.
    Empty,
    /// More than any list of nodes has.
    TooLarge,
    /// The answer is none of its kind.
    Malformed,
    /// The server asked has no list: none was set, or it does not know the command.
    NotServed,
    /// The server asked wants a login, or another one.
    SignIn,
    /// The name server says so: its response code (3: no such name).
    Dns(u16),
    /// What keeps the ring does not answer, or its address cannot be read.
    Registry(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Io(error) => error.fmt(f),
            SourceError::Node { at, error } => write!(f, "node {at}: {error}"),
            SourceError::Empty => f.write_str("no nodes"),
            SourceError::TooLarge => f.write_str("too large for a list of nodes"),
            SourceError::Malformed => f.write_str("not a list of nodes"),
            SourceError::NotServed => f.write_str("the server has no list of nodes"),
            SourceError::SignIn => f.write_str("the server does not let us in"),
            SourceError::Dns(code) => write!(f, "the name server answers code {code}"),
            SourceError::Registry(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for SourceError {}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        SourceError::Io(error)
    }
}

/// The nodes of a cluster as a source told them last.
///
/// ```
/// use std::time::Instant;
/// use ketch_client::Node;
/// use ketch_client::topology::Topology;
///
/// let topology = Topology::new(Node::list("10.0.0.1,10.0.0.2")?, Instant::now())?;
/// assert_eq!((topology.nodes().len(), topology.version()), (2, 1));
/// assert_eq!(topology.due_at(), None, "this list does not change");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Topology {
    source: Box<dyn Source>,
    nodes: Arc<[Node]>,
    version: u64,
    interval: Option<Duration>,
    due_at: Option<Instant>,
    jitter: Jitter,
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology")
            .field("nodes", &self.nodes)
            .field("version", &self.version)
            .field("due_at", &self.due_at)
            .finish_non_exhaustive()
    }
}

impl Topology {
    /// Asks `source` for the first list, without which there is no cluster; this is version 1.
    pub fn new(source: impl Source + 'static, now: Instant) -> Result<Self, SourceError> {
        let mut source: Box<dyn Source> = Box::new(source);
        let nodes = ask(&mut *source)?;
        let mut topology = Topology {
            interval: source.interval(),
            source,
            nodes: nodes.into(),
            version: 1,
            due_at: None,
            jitter: Jitter::random(),
        };
        topology.schedule(now);
        Ok(topology)
    }

    /// Another interval than the source's own. Not for a list that does not change.
    pub fn every(mut self, interval: Duration, now: Instant) -> Self {
        if self.interval.is_some() {
            self.interval = Some(interval);
            self.schedule(now);
        }
        self
    }

    /// The nodes.
    pub fn nodes(&self) -> &Arc<[Node]> {
        &self.nodes
    }

    /// How many lists there have been.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When to refresh; `None` for a list that does not change.
    pub fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Waits until the source is due to be asked, or for so long. `None` from one that cannot wait; true once it is time for
    /// [`Topology::refresh`]. Blocks: not under a lock, and not in a task.
    pub fn wait(&mut self, at_most: Duration) -> Option<bool> {
        let left = self
            .due_at
            .map(|due_at| due_at.saturating_duration_since(Instant::now()));
        let changed = self.source.wait(at_most.min(left.unwrap_or(at_most)))?;
        let now = Instant::now();
        if changed {
            self.due_at = Some(now);
        }
        Some(self.due_at.is_some_and(|due_at| now >= due_at))
    }

    /// Asks the source again, if it is time; true if the nodes are others than before. After an error they stay, and the next
    /// time comes as after an answer.
    pub fn refresh(&mut self, now: Instant) -> Result<bool, SourceError> {
        if self.due_at.is_none_or(|due_at| now < due_at) {
            return Ok(false);
        }
        let asked = ask(&mut *self.source);
        self.schedule(now);
        let nodes = asked?;
        if nodes[..] == self.nodes[..] {
            return Ok(false);
        }
        self.nodes = nodes.into();
        self.version += 1;
        Ok(true)
    }

    fn schedule(&mut self, now: Instant) {
        let interval = self.interval.map(|interval| self.jitter.around(interval));
        self.due_at = interval.and_then(|interval| now.checked_add(interval));
    }
}

/// An answer that is a list.
fn ask(source: &mut dyn Source) -> Result<Vec<Node>, SourceError> {
    let nodes = source.nodes()?;
    if nodes.is_empty() {
        return Err(SourceError::Empty);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers what it is told to, in turn.
    struct Script(std::vec::IntoIter<Result<&'static str, SourceError>>);

    impl Source for Script {
        fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
            let answer = self
                .0
                .next()
                .expect("asked no more often than the script is long");
            answer.map(|list| Node::list(list).unwrap())
        }

        fn interval(&self) -> Option<Duration> {
            Some(Duration::from_secs(30))
        }
    }

    fn script(answers: Vec<Result<&'static str, SourceError>>) -> Script {
        Script(answers.into_iter())
    }

    #[test]
    fn the_last_good_list_stays() {
        let mut now = Instant::now();
        let answers = script(vec![
            Ok("a,b"),
            Ok("a,b"),
            Err(SourceError::Malformed),
            Ok(""),
            Ok("a,b,c"),
            Err(SourceError::Dns(3)),
            Ok("a,b:11211:2,c"),
            Ok("b:11211:2,a,c"),
        ]);
        let mut topology = Topology::new(answers, now).unwrap();
        let mut seen = Vec::new();
        for _ in 0..7 {
            let due_at = topology.due_at().unwrap();
            let wait = due_at - now;
            assert!((27.0..=33.0).contains(&wait.as_secs_f64()), "{wait:?}");
            let early = due_at - Duration::from_nanos(1);
            assert!(
                !topology.refresh(early).unwrap(),
                "the source is not asked before its time"
            );
            now = due_at;
            let asked = topology.refresh(now).map_err(|error| error.to_string());
            let nodes: Vec<String> = topology
                .nodes()
                .iter()
                .map(|node| node.to_string())
                .collect();
            seen.push((asked, topology.version(), nodes.join(" ")));
        }
        let error = |text: &str| Err(text.to_owned());
        let two = "a:11211 b:11211".to_owned();
        let three = "a:11211 b:11211 c:11211".to_owned();
        assert_eq!(
            seen,
            [
                (Ok(false), 1, two.clone()),
                (error("not a list of nodes"), 1, two.clone()),
                (error("no nodes"), 1, two),
                (Ok(true), 2, three.clone()),
                (error("the name server answers code 3"), 2, three),
                (Ok(true), 3, "a:11211 b:11211:2 c:11211".to_owned()),
                (Ok(true), 4, "b:11211:2 a:11211 c:11211".to_owned()),
            ]
        );
    }

    #[test]
    fn without_a_first_list_there_is_no_topology() {
        let now = Instant::now();
        for answer in [Ok(""), Err(SourceError::TooLarge)] {
            assert!(Topology::new(script(vec![answer]), now).is_err());
        }
        assert!(matches!(
            Topology::new(Vec::<Node>::new(), now),
            Err(SourceError::Empty)
        ));
    }

    #[test]
    fn a_fixed_list_is_never_due() {
        let now = Instant::now();
        let topology = Topology::new(vec![Node::new("a", 1)], now).unwrap();
        let mut topology = topology.every(Duration::from_secs(1), now);
        assert_eq!(topology.due_at(), None);
        assert!(!topology.refresh(now + Duration::from_secs(1000)).unwrap());
    }

    #[test]
    fn another_interval() {
        let now = Instant::now();
        let topology = Topology::new(script(vec![Ok("a")]), now).unwrap();
        let topology = topology.every(Duration::from_secs(1000), now);
        let wait = topology.due_at().unwrap() - now;
        assert!((900.0..=1100.0).contains(&wait.as_secs_f64()), "{wait:?}");
    }
}
