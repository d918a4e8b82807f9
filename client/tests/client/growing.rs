//! The hit ratio through the addition of a node, with the dual read and without: the figures of the example
//! `growing_a_ring`.

#[allow(dead_code, reason = "the servers are the tests' own")]
#[path = "../../examples/growing_a_ring.rs"]
mod example;
use std::time::Duration;

use crate::as_node::AsNode;
use crate::patience::patient;
use example::{SLICES_AFTER, SLICES_BEFORE, hit_ratios};
use ketch_client::{Client, Node};
use ketch_testing::{KINDS, Server, wait_until};

#[test]
fn with_the_dual_read_a_new_node_costs_no_misses() {
    for kind in KINDS {
        let servers: Vec<Server> = (0..5).map(|_| kind.start()).collect();
        let nodes: Vec<Node> = servers.iter().map(Server::node).collect();
        let with = hit_ratios(&nodes, Duration::from_secs(600), patient());
        assert_eq!(
            with,
            [100.0; SLICES_BEFORE + SLICES_AFTER],
            "{kind:?}: no miss at all"
        );
        // The nodes forget, and the same without: every key of the new node is missed once.
        for server in &servers {
            server.ask("flush_all\r\n", "OK\r\n");
        }
        let without = hit_ratios(&nodes, Duration::ZERO, patient());
        let (before, after) = without.split_at(SLICES_BEFORE);
        assert_eq!(before, [100.0; SLICES_BEFORE]);
        let missed: f64 = after.iter().map(|ratio| 100.0 - ratio).sum();
        assert!(
            after[0] < 98.0 && missed > 10.0,
            "{kind:?}: the load would not show misses: {after:?}"
        );
    }
}

#[test]
fn what_was_overwritten_or_deleted_is_not_found_where_it_was() {
    for kind in KINDS {
        let servers: Vec<Server> = (0..4).map(|_| kind.start()).collect();
        let nodes: Vec<Node> = servers.iter().map(Server::node).collect();
        let client = Client::new(nodes[..3].to_vec(), patient());
        let keys: Vec<String> = (0..300).map(|i| format!("key{i}")).collect();
        let stored = client.set_multi(keys.iter().map(|key| (key, "old")), None);
        assert!(stored.iter().all(Result::is_ok));
        client.set_nodes(nodes, Duration::from_secs(60));
        let (overwritten, deleted) = keys.split_at(200);
        let (one_by_one, together) = overwritten.split_at(100);
        for key in one_by_one {
            client.set(key, "new", None).expect("up");
        }
        let stored = client.set_multi(together.iter().map(|key| (key, "new")), None);
        assert!(stored.iter().all(Result::is_ok));
        assert!(
            client
                .delete_multi(deleted)
                .iter()
                .all(|done| *done == Ok(true))
        );
        let holds_old = |key: &String| {
            let old = Some("old".to_owned());
            servers.iter().any(|server| server.holds(key) == old)
        };
        assert!(!deleted.iter().any(holds_old), "{kind:?}: a delete is done");
        wait_until("the old values go", || !overwritten.iter().any(holds_old));
        // The new node forgets what it has: then it is a miss, and nothing else.
        let moved: Vec<&String> = overwritten
            .iter()
            .filter(|key| servers[3].holds(key).is_some())
            .collect();
        assert!(moved.len() > 10, "{kind:?}: {}", moved.len());
        servers[3].ask("flush_all\r\n", "OK\r\n");
        for key in moved {
            assert_eq!(client.get(key), Ok(None), "{kind:?}");
        }
    }
}
