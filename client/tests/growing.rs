//! The hit ratio through the addition of a node, with the dual read and without: the figures of the example
//! `growing_a_ring`.

#[allow(dead_code, reason = "the servers are the tests' own")]
#[path = "../examples/growing_a_ring.rs"]
mod example;
mod support;

use std::time::Duration;

use example::{SLICES_AFTER, SLICES_BEFORE, hit_ratios};
use ketch_client::{ClientOptions, Node};
use support::{KINDS, PATIENCE, Server};

#[test]
fn with_the_dual_read_a_new_node_costs_no_misses() {
    // A busy machine is no failure.
    let patient = ClientOptions::default()
        .request_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .connect_timeout(PATIENCE);
    for kind in KINDS {
        let servers: Vec<Server> = (0..5).map(|_| Server::start(kind)).collect();
        let nodes: Vec<Node> = servers.iter().map(Server::node).collect();
        let with = hit_ratios(&nodes, Duration::from_secs(600), patient.clone());
        assert_eq!(
            with,
            [100.0; SLICES_BEFORE + SLICES_AFTER],
            "{kind:?}: no miss at all"
        );
        // The nodes forget, and the same without: every key of the new node is missed once.
        for server in &servers {
            server.ask("flush_all\r\n", "OK\r\n");
        }
        let without = hit_ratios(&nodes, Duration::ZERO, patient.clone());
        let (before, after) = without.split_at(SLICES_BEFORE);
        assert_eq!(before, [100.0; SLICES_BEFORE]);
        let missed: f64 = after.iter().map(|ratio| 100.0 - ratio).sum();
        assert!(
            after[0] < 98.0 && missed > 10.0,
            "{kind:?}: the load would not show misses: {after:?}"
        );
    }
}
