//! What tests of the client begin with when no node fails.

use ketch_client::testing::TestNode;
use ketch_client::{ClientOptions, Node};
use ketch_testing::{KINDS, PATIENCE};

use crate::as_node::AsNode;

/// Options for tests in which no node fails: a busy machine is no failure.
pub fn patient() -> ClientOptions {
    ClientOptions::default()
        .request_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .connect_timeout(PATIENCE)
}

/// Runs `test` against the node in memory, and against each kind of server.
pub fn against_all(test: impl Fn(Node)) {
    let node = TestNode::start();
    test(node.node());
    for kind in KINDS {
        let server = kind.start();
        test(server.node());
    }
}
