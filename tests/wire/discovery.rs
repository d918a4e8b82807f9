//! A cluster found by asking its nodes: the client's endpoint against servers that keep the list.

use std::time::Instant;

use ketch_client::Node;
use ketch_client::topology::{ClusterEndpoint, SourceError, Topology};

use ketch_testing::{Server, is_ketch};

/// Gives `server` the list of `nodes` as `version`.
fn tell(server: &Server, version: u32, nodes: &[&Server]) {
    let places = nodes
        .iter()
        .map(|node| format!("localhost|127.0.0.1|{}", node.port()));
    let list = format!("{version}\n{}\n", places.collect::<Vec<_>>().join(" "));
    let mut conn = server.connect();
    conn.send(format!("config set cluster 0 {}\r\n{list}\r\n", list.len()));
    conn.expect("STORED\r\n");
}

#[test]
fn a_cluster_grows_under_its_clients() {
    if !is_ketch() {
        return;
    }
    let (a, b) = (Server::start(&[]), Server::start(&[]));
    let node = |server: &Server| Node::new("127.0.0.1", server.port());
    let endpoint = || ClusterEndpoint::new([node(&a), node(&b)]).by_address(true);
    let mut now = Instant::now();
    let none = Topology::new(endpoint(), now);
    assert!(matches!(none, Err(SourceError::NotServed)), "{none:?}");
    tell(&a, 1, &[&a]);
    let mut topology = Topology::new(endpoint(), now).unwrap();
    assert_eq!(topology.nodes()[..], [node(&a)]);
    let mut refresh = || {
        now = topology.due_at().unwrap();
        let changed = topology.refresh(now).is_ok_and(|changed| changed);
        (changed, topology.version(), topology.nodes().to_vec())
    };
    assert_eq!(refresh(), (false, 1, vec![node(&a)]));
    // Told to one of them is enough if that one is asked first; then the first falls behind, and the other knows better.
    tell(&a, 2, &[&a, &b]);
    assert_eq!(refresh(), (true, 2, vec![node(&a), node(&b)]));
    tell(&b, 3, &[&b]);
    tell(&a, 1, &[&a]);
    assert_eq!(refresh(), (true, 3, vec![node(&b)]));
    // A cluster without a list is no cluster without nodes.
    for server in [&a, &b] {
        let mut conn = server.connect();
        conn.send("config delete cluster\r\n");
        conn.expect("DELETED\r\n");
    }
    assert_eq!(refresh(), (false, 3, vec![node(&b)]));
}
