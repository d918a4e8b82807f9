//! Servers for the examples: `KETCH_SERVER`, or the memcached of this machine, on loopback and free ports.

use std::path::PathBuf;

use ketch_client::Node;

/// A server that ends with its value.
pub struct Server {
    _process: ketch_testing::Server,
    pub node: Node,
}

impl Server {
    pub fn start() -> Server {
        let named = std::env::var_os("KETCH_SERVER").map(PathBuf::from);
        let program = named.unwrap_or_else(|| ketch_testing::memcached().to_owned());
        let process = ketch_testing::Server::start_program(&program, &["-t", "2"]);
        Server {
            node: Node::new("127.0.0.1", process.port()),
            _process: process,
        }
    }
}
