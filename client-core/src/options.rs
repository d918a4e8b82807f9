//! Every number of the client's policy, in one place, with its unit and its default.

use std::sync::Arc;
use std::time::Duration;

use crate::continuum::Placement;
use crate::metrics::Metrics;
use crate::states::{NodeEvent, Observer};

/// How the client behaves. `ClientOptions::default()` is one copy, rehashing, and deadlines for one data centre.
#[derive(Debug, Clone)]
#[must_use = "options are of use where they are given to something"]
pub struct ClientOptions {
    #[doc(hidden)]
    pub placement: Placement,
    #[doc(hidden)]
    pub copies: usize,
    #[doc(hidden)]
    pub ack: Ack,
    #[doc(hidden)]
    pub ack_live: bool,
    #[doc(hidden)]
    pub reads: Reads,
    #[doc(hidden)]
    pub zone: Option<Arc<str>>,
    #[doc(hidden)]
    pub read_repair: bool,
    #[doc(hidden)]
    pub on_ejection: OnEjection,
    #[doc(hidden)]
    pub request_timeout: Duration,
    #[doc(hidden)]
    pub attempt_timeout: Duration,
    #[doc(hidden)]
    pub connect_timeout: Duration,
    #[doc(hidden)]
    pub retries: u32,
    #[doc(hidden)]
    pub retry_pause: Duration,
    #[doc(hidden)]
    pub eject_after: u32,
    #[doc(hidden)]
    pub eject_window: Duration,
    #[doc(hidden)]
    pub eject_share: f64,
    #[doc(hidden)]
    pub probe_after: Duration,
    #[doc(hidden)]
    pub probe_after_max: Duration,
    #[doc(hidden)]
    pub settle: Duration,
    #[doc(hidden)]
    pub missed_keys_max: usize,
    #[doc(hidden)]
    pub pool_connections_max: usize,
    #[doc(hidden)]
    pub long_binary_keys: bool,
    #[doc(hidden)]
    pub default_ttl: Option<Duration>,
    #[doc(hidden)]
    pub ttl_jitter: f64,
    #[doc(hidden)]
    pub prefix: Arc<[u8]>,
    #[cfg(feature = "long-keys")]
    #[doc(hidden)]
    pub hash_long_keys: bool,
    #[doc(hidden)]
    pub errors_as_misses: bool,
    #[doc(hidden)]
    pub origin: u16,
    #[doc(hidden)]
    pub login: Option<Login>,
    #[doc(hidden)]
    pub metrics: Option<Arc<dyn Metrics>>,
    #[doc(hidden)]
    pub observer: Option<Observer>,
    #[doc(hidden)]
    pub near_cache: Option<NearCache>,
    #[cfg(feature = "lz4")]
    #[doc(hidden)]
    pub compression: Option<crate::compression::Compression>,
    #[cfg(feature = "tls")]
    #[doc(hidden)]
    pub tls: Option<Tls>,
}

/// How many copies must have taken a write before it counts as done. The others are written too, but not waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// None: the write is sent, and nobody waits for it. What becomes of it is not known, so a result of `true` tells nothing; a node
    /// that does not answer has the key deleted later, as for any copy that nobody waited for. Operations that look at what
    /// is there (`add`, `cas`, `incr`, ..) wait for the copy that decides.
    None,
    /// One.
    One,
    /// More than half.
    Quorum,
    /// All: an acknowledged value outlives the loss of all nodes but one of its copies.
    #[default]
    All,
}

impl Ack {
    /// How many of `copies` that is.
    #[doc(hidden)]
    pub fn wanted(self, copies: usize) -> usize {
        match self {
            Ack::None | Ack::One => 1.min(copies),
            Ack::Quorum => copies / 2 + 1.min(copies),
            Ack::All => copies,
        }
    }
}

/// Which copy a read asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// The first live one; the next when it misses or fails.
    #[default]
    First,
    /// Any, by chance: for keys that are too hot for one node. A reader may see one copy's value before another has it.
    Spread,
    /// The first live one, and the next as well if no answer came within this time: the first hit wins.
    Hedged(Duration),
}

/// Where the keys of an ejected node go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnEjection {
    /// To the next live nodes clockwise, until it is back.
    #[default]
    Rehash,
    /// Nowhere: what has no live copy fails at once with [`Error::NoNode`](crate::error::Error::NoNode), and writes count
    /// the ejected copies as not acknowledged.
    FailFast,
}

/// A user of the nodes' ASCII authentication.
#[derive(Clone)]
#[doc(hidden)]
pub struct Login {
    pub user: String,
    #[doc(hidden)]
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

/// How nodes are spoken to by TLS.
#[cfg(feature = "tls")]
#[derive(Debug, Clone)]
#[doc(hidden)]
pub struct Tls {
    #[doc(hidden)]
    pub config: std::sync::Arc<rustls::ClientConfig>,
    #[doc(hidden)]
    pub server_name: Option<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            placement: Placement::default(),
            copies: 1,
            ack: Ack::default(),
            ack_live: false,
            reads: Reads::default(),
            zone: None,
            read_repair: true,
            on_ejection: OnEjection::default(),
            request_timeout: Duration::from_millis(1000),
            attempt_timeout: Duration::from_millis(300),
            connect_timeout: Duration::from_millis(200),
            retries: 2,
            retry_pause: Duration::from_millis(10),
            eject_after: 3,
            eject_window: Duration::from_secs(2),
            eject_share: 0.5,
            probe_after: Duration::from_millis(200),
            probe_after_max: Duration::from_secs(10),
            settle: Duration::from_secs(10),
            missed_keys_max: 10_000,
            pool_connections_max: 16,
            long_binary_keys: false,
            default_ttl: None,
            ttl_jitter: 0.0,
            prefix: Arc::from(&b""[..]),
            #[cfg(feature = "long-keys")]
            hash_long_keys: false,
            errors_as_misses: false,
            origin: 0,
            login: None,
            metrics: None,
            observer: None,
            near_cache: None,
            #[cfg(feature = "lz4")]
            compression: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// The most copies of a key.
pub const COPIES_MAX: usize = 8;

/// A method that sets the field of its name.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $name;
            self
        })*
    };
}

impl ClientOptions {
    setters! {
        /// How many copies must have taken a write (all).
        ack: Ack,
        /// Copies that no live node can take are not waited for: with two nodes, one of them ejected, [`ack`](Self::ack) asks for one (no).
        #[doc(hidden)]
        ack_live: bool,
        /// Which copy a read asks (the first live one).
        reads: Reads,
        /// Whether a copy that missed is given the value another copy had, with the time to live that is left (yes).
        /// With it, a miss on one copy asks the next; without, a miss is a miss.
        read_repair: bool,
        /// Where the keys of an ejected node go (to the next live nodes).
        on_ejection: OnEjection,
        /// The longest an operation takes, all its attempts together (1 s). A large batch goes in pieces, each of which may take
        /// that long.
        request_timeout: Duration,
        /// The longest one attempt waits for its node, from when it has a connection, and again from each part of a reply on, before
        /// the next node, or the same again, is tried (300 ms).
        attempt_timeout: Duration,
        /// The longest a connection takes to be made; it counts into the attempt (200 ms).
        connect_timeout: Duration,
        /// How often a key's failed attempt is repeated, on the same node or the next (2). What must not be done twice
        /// (counting, appending, adding, comparing) is repeated only if it was surely not done.
        retries: u32,
        /// How long to wait before the same node is asked again, half to all of it by chance, doubled each time (10 ms).
        retry_pause: Duration,
        /// How many failures within [`eject_window`](Self::eject_window) eject a node (3).
        eject_after: u32,
        /// See [`eject_after`](Self::eject_after) (2 s).
        eject_window: Duration,
        /// Which share of the nodes may be ejected at a time, 0 to 1 (0.5). One may be where there is another, whatever this
        /// says, and the last one that is in never is: callers go on trying it.
        eject_share: f64,
        /// How long after its ejection a node is probed first, a quarter more or less by chance (200 ms); each probe
        /// that fails doubles it.
        probe_after: Duration,
        /// The longest pause between two probes (10 s).
        probe_after_max: Duration,
        /// How long a node that came back is read last, and given what is read from other copies (10 s). Meanwhile this
        /// and other clients delete on it what was written without it.
        settle: Duration,
        /// For how many keys that were written or deleted without an ejected node this is remembered, so that they are
        /// deleted on it when it is back (10,000 a node). Beyond that number old values may come back with the node.
        missed_keys_max: usize,
        /// How many connections to one node are open at most (16); who finds all of them busy waits.
        pool_connections_max: usize,
        /// Allows keys with spaces or control characters that are longer than 250 bytes in base64, that is 188 to 250
        /// bytes (no). ketch takes them; stock memcached does not, and would run a refused value as commands.
        long_binary_keys: bool,
        /// Gives a miss where a read fails (no): for callers that go on to the source of their data in either case. Metrics count
        /// the failure all the same. A key that cannot be sent stays an error.
        errors_as_misses: bool,
        /// A number that writes carry into the feed of their node (0: none), as docs/invalidation.md has it: what is marked so was not
        /// done by a client of that region, and is not carried to another one. For who copies changes between regions.
        origin: u16,
    }

    /// How long values live for which the caller says `None` (without end).
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl).filter(|ttl| !ttl.is_zero());
        self
    }

    /// The zone that this client is in: reads of values ask copies there first, and then the others (none). As with
    /// [`Reads::Spread`], who reads from another zone may see one copy's value before another has it; keys that are hot are read from all
    /// copies.
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Shortens times to live by chance, by up to this part of them, 0 to 1 (0): so that what is stored together does not expire
    /// together. It holds for what is stored (`set`, `set_multi`, `add`, `replace`, `cas`, `update`, `get_or_load`).
    pub fn ttl_jitter(mut self, part: f64) -> Self {
        self.ttl_jitter = if part.is_finite() {
            part.clamp(0.0, 1.0)
        } else {
            0.0
        };
        self
    }

    /// Puts `prefix` before every key: a namespace of its own on nodes that others use too. It counts into the length of the keys,
    /// and into their placement. `flush_all` empties the nodes, not the namespace.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = prefix.as_ref().into();
        self
    }

    /// Stores keys that are too long to be sent under their SHA-256 (no). Such a key is the prefix, `sha256:` and 64 hexadecimal
    /// digits. All clients that share these keys need the option.
    #[cfg(feature = "long-keys")]
    pub fn hash_long_keys(mut self, hash: bool) -> Self {
        self.hash_long_keys = hash;
        self
    }

    /// How keys are spread over the nodes: a [`Distribution`](crate::continuum::Distribution), or a [`Placement`] with
    /// more to say (Ketama, weighted, as libmemcached does it).
    pub fn placement(mut self, placement: impl Into<Placement>) -> Self {
        self.placement = placement.into();
        self
    }

    /// On how many distinct nodes a key lives, at most [`COPIES_MAX`] (1). Where nodes have zones, copies go to
    /// different zones first.
    pub fn copies(mut self, copies: usize) -> Self {
        self.copies = copies.clamp(1, COPIES_MAX);
        self
    }

    /// Logs in on each connection, for nodes that were started with `-Y`.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let (user, password) = (user.into(), password.into());
        self.login = Some(Login { user, password });
        self
    }

    /// Tells `metrics` what happens; keep a clone of the `metrics::Recorder` to read it.
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Tells `tell` what happens to nodes. It is called in the midst of operations: it must be quick, and must not call the client; to
    /// hand the event on to a channel is what it is for.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use ketch_client::ClientOptions;
    ///
    /// let (sender, events) = mpsc::channel();
    /// let options = ClientOptions::default().on_node_event(move |event| {
    ///     // Nobody may listen any more.
    ///     let _ = sender.send(event);
    /// });
    /// # drop((options, events));
    /// ```
    pub fn on_node_event(mut self, tell: impl Fn(NodeEvent) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer(Arc::new(tell)));
        self
    }

    /// Keeps values in the process for a short time: see [`NearCache`].
    pub fn near_cache(mut self, near: NearCache) -> Self {
        self.near_cache = Some(near);
        self
    }

    /// Compresses large values: see [`Compression`](crate::compression::Compression).
    #[cfg(feature = "lz4")]
    pub fn compression(mut self, compression: crate::compression::Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Speaks TLS to the nodes. Their certificates are checked against the node's host, or against `server_name`.
    #[cfg(feature = "tls")]
    pub fn tls(
        mut self,
        config: std::sync::Arc<rustls::ClientConfig>,
        server_name: Option<String>,
    ) -> Self {
        self.tls = Some(Tls {
            config,
            server_name,
        });
        self
    }
}

/// How much is kept near, and for how long.
#[derive(Debug, Clone, Copy)]
#[must_use = "options are of use where they are given to something"]
pub struct NearCache {
    #[doc(hidden)]
    pub ttl: Duration,
    #[doc(hidden)]
    pub bytes_max: u64,
    #[doc(hidden)]
    pub value_bytes_max: usize,
    /// It follows the nodes' feeds, and believes them for so long.
    #[doc(hidden)]
    pub follow: Option<Duration>,
}

/// How long a near cache believes a feed of which it hears nothing, if nothing else is said.
const FEED_BOUND: Duration = Duration::from_secs(2);
/// The shortest such time: nodes say that nothing happens every 10 ms at most.
const FEED_BOUND_MIN: Duration = Duration::from_millis(50);

impl NearCache {
    /// Keeps values for `ttl`, which bounds how long what others write or delete goes unnoticed.
    pub fn new(ttl: Duration) -> Self {
        NearCache {
            ttl,
            bytes_max: 16 << 20,
            value_bytes_max: 64 << 10,
            follow: None,
        }
    }

    /// Has the nodes tell what others write and delete (`watch feed`), so that it is dropped here within milliseconds; as
    /// [`follow_within`](Self::follow_within) with 2 seconds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ketch_client::near::NearCache;
    /// use ketch_client::{Client, ClientOptions, Node};
    ///
    /// let near = NearCache::new(Duration::from_secs(3600)).follow();
    /// let client = Client::new(Node::list("cache1,cache2")?, ClientOptions::default().near_cache(near));
    /// # Ok::<(), ketch_client::NodeError>(())
    /// ```
    pub fn follow(self) -> Self {
        self.follow_within(FEED_BOUND)
    }

    /// Follows the nodes' feeds, and believes none of which it does not know what was up to so long ago (50 ms at least): whatever happens to
    /// processes and links, a value from here is no older than that, as compared with what its node has. Then what came from that node is
    /// dropped, and nothing of it kept until its feed is there again.
    ///
    /// One connection a node, and one thread a client, whichever front it is. Nodes without a feed (stock memcached, `-W`) are told in the log and
    /// in the metrics; what they gave is kept by its time alone.
    pub fn follow_within(mut self, bound: Duration) -> Self {
        self.follow = Some(bound.max(FEED_BOUND_MIN));
        self
    }

    /// The most memory that it takes, in bytes, about (16 MiB).
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// The largest value that is kept, in bytes (64 KiB).
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = bytes;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_wanted() {
        for (copies, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            assert_eq!(Ack::None.wanted(copies), 1);
            assert_eq!(Ack::One.wanted(copies), 1);
            assert_eq!(Ack::Quorum.wanted(copies), quorum);
            assert_eq!(Ack::All.wanted(copies), copies);
        }
    }
}
