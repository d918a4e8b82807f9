//! A server of a test as the client names it.

use ketch_client::Node;
use ketch_testing::Server;

pub trait AsNode {
    /// The node that the server is.
    fn node(&self) -> Node;
}

impl AsNode for Server {
    fn node(&self) -> Node {
        match self.socket_path() {
            Some(path) => Node::unix(path.to_str().expect("text")),
            None => Node::new("127.0.0.1", self.port()),
        }
    }
}
