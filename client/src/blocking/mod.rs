//! The blocking client.
//!
//! ```text
//!  Client::get ... -> client_core::calls (arguments -> operation) -> drive (sockets) -> result
//!  snapshot: the ring and, node by node, its pool; swapped as a whole when the nodes change
//! ```
//!
//! There is no thread of its own, but one that follows a source of nodes if the client is to: what must happen beside the callers' operations (probes of ejected nodes, late
//! replies) is carried on a step further by the next operation, whichever it is.

mod connection;
mod drive;
mod front;
mod load;
mod pool;
pub(crate) mod resolve;
pub(crate) mod stream;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use crate::front::{call, done};
use crate::shared::Shared;
use crate::topology::{FollowOptions, Source, SourceError};
pub use crate::typed::Typed;
use crate::{IntoNodes, Node, NodeError};
use client_core::Operation;
use client_core::calls::Call;
use client_core::operation::Context;
use client_core::options::ClientOptions;
use pool::Pool;

/// Many nodes as one cache. Cheap to clone; all clones share connections and what is known of the nodes.
///
/// Keys are any bytes. What values may be says [`Value`](crate::Value), and times to live [`Ttl`](crate::Ttl).
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared<Pool>>,
    /// The client's, or in a view of it what it has in their place.
    options: Arc<ClientOptions>,
}

impl Client {
    /// A client of `nodes`. Connections are made when they are needed. For a list in text, `"cache1,cache2:11212"`, see
    /// [`with_nodes`](Self::with_nodes).
    pub fn new(nodes: impl IntoIterator<Item = Node>, options: ClientOptions) -> Self {
        let nodes: Vec<Node> = nodes.into_iter().collect();
        Client::of(Shared::new(&nodes, options))
    }

    /// A client of the nodes that `nodes` names: a list with commas between them, a list of texts, an address, `(host, port)`, ..
    ///
    /// ```
    /// use ketch_client::{Client, ClientOptions};
    ///
    /// let client = Client::with_nodes("cache1,cache2:11212", ClientOptions::default())?;
    /// let client = Client::with_nodes([("cache1", 11211), ("cache2", 11212)], ClientOptions::default())?;
    /// let client: Client = "cache1,cache2:11212".parse()?;
    /// # Ok::<(), ketch_client::NodeError>(())
    /// ```
    pub fn with_nodes(
        nodes: impl IntoNodes,
        options: ClientOptions,
    ) -> std::result::Result<Self, NodeError> {
        Ok(Client::new(nodes.into_nodes()?, options))
    }

    /// A client of the nodes that `source` tells, now and from then on: a thread asks again at the source's interval, and
    /// changes the nodes while operations go on, as [`set_nodes`](Self::set_nodes) does. Whatever the source fails to tell, or
    /// if it has no nodes to tell, the nodes stay. The thread ends with the last clone of the client.
    ///
    /// ```no_run
    /// use ketch_client::topology::{FollowOptions, NodeFile};
    /// use ketch_client::{Client, ClientOptions};
    ///
    /// let nodes = NodeFile::new("/etc/cache-nodes");
    /// let client = Client::follow(nodes, ClientOptions::default(), FollowOptions::default())?;
    /// # Ok::<(), ketch_client::topology::SourceError>(())
    /// ```
    pub fn follow(
        source: impl Source + 'static,
        options: ClientOptions,
        follow: FollowOptions,
    ) -> std::result::Result<Self, SourceError> {
        let shared = Shared::follow(source, options, follow, Instant::now)?;
        Ok(Client::of(shared))
    }

    pub(crate) fn call<O: Operation + Send, F: FnOnce(O) -> R, R>(
        &self,
        begin: impl FnOnce(Context) -> Call<O, F>,
    ) -> R {
        done(call(self, begin))
    }

    /// The result of what is written over a front.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        done(work)
    }

    /// The same client, with other options for its operations.
    pub(crate) fn with_options(&self, options: Arc<ClientOptions>) -> Self {
        Client {
            shared: self.shared.clone(),
            options,
        }
    }

    fn of(shared: Arc<Shared<Pool>>) -> Self {
        let options = shared.options.clone();
        Client { shared, options }
    }
}

impl FromStr for Client {
    type Err = NodeError;

    /// A client of a list of nodes with commas between them, with the options as they are by default.
    fn from_str(nodes: &str) -> std::result::Result<Self, NodeError> {
        Client::with_nodes(nodes, ClientOptions::default())
    }
}

/// The nodes and the options.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.shared.snapshot();
        let nodes: Vec<String> = snapshot.nodes.iter().map(Node::to_string).collect();
        let mut debug = f.debug_struct("Client");
        debug.field("nodes", &nodes).field("options", &self.options);
        debug.finish()
    }
}

/// What a client knows is whole after a panic: locks that were held then are taken all the same.
impl UnwindSafe for Client {}

/// See `UnwindSafe`.
impl RefUnwindSafe for Client {}
