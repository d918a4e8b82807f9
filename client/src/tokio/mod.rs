//! The async client, for tokio.
//!
//! ```text
//!  AsyncClient::get ... -> client_core::calls (arguments -> operation) -> drive (in the caller's task) -> result
//!                                                                    |       ^
//!                                                                    v       | mailbox
//!  pool, one a node:  lanes, each a connection and the task that owns it; shared by all callers
//! ```
//!
//! Requests of all tasks go in order over few connections, so that many are written and read at once.

mod behind;
mod drive;
mod driver;
mod front;
mod lane;
mod load;
mod mailbox;
mod pool;
mod resolve;
mod solo;
mod stream;
mod warm;
pub(crate) mod write;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use crate::front::call;
use crate::shared::Shared;
use crate::topology::{FollowOptions, Source, SourceError};
use crate::{IntoNodes, Node, NodeError};
use client_core::Operation;
use client_core::calls::Call;
use client_core::operation::Context;
use client_core::options::ClientOptions;
use pool::Pool;

/// Now, by the runtime's clock.
fn now() -> Instant {
    ::tokio::time::Instant::now().into_std()
}

/// Many nodes as one cache, for tasks of a tokio runtime with time and I/O enabled. Cheap to clone; all clones share
/// connections and what is known of the nodes.
///
/// Keys are any bytes. What values may be says [`Value`](crate::Value), and times to live [`Ttl`](crate::Ttl).
///
/// A method's future may be dropped at any point. What it has sent is carried out and its replies are thrown away; as
/// after an error, a write may have been done or not, and with copies perhaps on some of them. Who must know spawns the
/// write as a task of its own.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use ketch_client::{AsyncClient, ClientOptions, Node};
///
/// let nodes = Node::list("cache1:11211,cache2:11211,cache3:11211")?;
/// let client = AsyncClient::new(nodes, ClientOptions::default().copies(2));
/// client.set("greeting", "hello", Duration::from_secs(60)).await?;
/// if let Some(item) = client.get("greeting").await? {
///     assert_eq!(&item.value[..], b"hello");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AsyncClient {
    shared: Arc<Shared<Pool>>,
    /// The client's, or in a view of it what it has in their place.
    options: Arc<ClientOptions>,
}

impl AsyncClient {
    /// A client of `nodes`. Connections are made when they are needed. For a list in text, `"cache1,cache2:11212"`, see
    /// [`with_nodes`](Self::with_nodes).
    pub fn new(nodes: impl IntoIterator<Item = Node>, options: ClientOptions) -> Self {
        let nodes: Vec<Node> = nodes.into_iter().collect();
        AsyncClient::of(Shared::new(&nodes, options))
    }

    /// A client of the nodes that `nodes` names: a list with commas between them, a list of texts, an address, `(host, port)`, ..
    ///
    /// ```
    /// use ketch_client::{AsyncClient, ClientOptions};
    ///
    /// let client = AsyncClient::with_nodes("cache1,cache2:11212", ClientOptions::default())?;
    /// let client = AsyncClient::with_nodes([("cache1", 11211), ("cache2", 11212)], ClientOptions::default())?;
    /// let client: AsyncClient = "cache1,cache2:11212".parse()?;
    /// # Ok::<(), ketch_client::NodeError>(())
    /// ```
    pub fn with_nodes(
        nodes: impl IntoNodes,
        options: ClientOptions,
    ) -> std::result::Result<Self, NodeError> {
        Ok(AsyncClient::new(nodes.into_nodes()?, options))
    }

    /// A client of the nodes that `source` tells, now and from then on: a thread asks again at the source's interval, and
    /// changes the nodes while operations go on, as [`set_nodes`](Self::set_nodes) does. Whatever the source fails to tell, or
    /// if it has no nodes to tell, the nodes stay. The thread ends with the last clone of the client.
    ///
    /// The first list is waited for here: in a task, by way of `spawn_blocking`, if the source may take long.
    ///
    /// ```no_run
    /// use ketch_client::topology::{FollowOptions, NodeFile};
    /// use ketch_client::{AsyncClient, ClientOptions};
    ///
    /// let nodes = NodeFile::new("/etc/cache-nodes");
    /// let client = AsyncClient::follow(nodes, ClientOptions::default(), FollowOptions::default())?;
    /// # Ok::<(), ketch_client::topology::SourceError>(())
    /// ```
    pub fn follow(
        source: impl Source + 'static,
        options: ClientOptions,
        follow: FollowOptions,
    ) -> std::result::Result<Self, SourceError> {
        let shared = Shared::follow(source, options, follow, now)?;
        Ok(AsyncClient::of(shared))
    }

    pub(crate) async fn call<O: Operation + Send, F: FnOnce(O) -> R, R>(
        &self,
        begin: impl FnOnce(Context) -> Call<O, F>,
    ) -> R {
        call(self, begin).await
    }

    /// The result of what is written over a front.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        work.await
    }

    /// The same client, with other options for its operations.
    pub(crate) fn with_options(&self, options: Arc<ClientOptions>) -> Self {
        AsyncClient {
            shared: self.shared.clone(),
            options,
        }
    }

    fn of(shared: Arc<Shared<Pool>>) -> Self {
        let options = shared.options.clone();
        AsyncClient { shared, options }
    }
}

impl FromStr for AsyncClient {
    type Err = NodeError;

    /// A client of a list of nodes with commas between them, with the options as they are by default.
    fn from_str(nodes: &str) -> std::result::Result<Self, NodeError> {
        AsyncClient::with_nodes(nodes, ClientOptions::default())
    }
}

/// The nodes and the options.
impl fmt::Debug for AsyncClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.shared.snapshot();
        let nodes: Vec<String> = snapshot.nodes.iter().map(Node::to_string).collect();
        let mut debug = f.debug_struct("AsyncClient");
        debug.field("nodes", &nodes).field("options", &self.options);
        debug.finish()
    }
}

/// What a client knows is whole after a panic: locks that were held then are taken all the same.
impl UnwindSafe for AsyncClient {}

/// See `UnwindSafe`.
impl RefUnwindSafe for AsyncClient {}
