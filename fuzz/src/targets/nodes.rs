//! The list of nodes in each form that it comes in: what is read of it are nodes as a user can write them, and nobody but a user names
//! a socket of this machine.

use ketch_client::Node;
use ketch_client::topology::{parse_cluster, parse_nodes, parse_services};
use ketch_membership::listed;

/// The number of the question that name servers answer here.
const ID: u16 = 7;

/// The node as it is written is the node again: lists are passed on as text, from servers to clients and from files to servers.
fn is_read_again(node: &Node) {
    let text = node.to_string();
    assert_eq!(text.parse().as_ref(), Ok(node), "{text:?}");
    assert_eq!(Node::list(&text).as_deref(), Ok(std::slice::from_ref(node)));
}

/// A node that somebody on the network has named.
fn is_of_the_network(node: &Node) {
    is_read_again(node);
    assert_eq!(node.socket_path(), None, "{node}");
    assert_ne!(node.port, 0, "{node}");
}

/// What an option or `Client::new` takes.
fn list(text: &str) {
    let Ok(nodes) = Node::list(text) else {
        return;
    };
    nodes.iter().for_each(is_read_again);
    let words: Vec<String> = nodes.iter().map(Node::to_string).collect();
    assert_eq!(Node::list(&words.join(",")), Ok(nodes));
}

/// A file of lines.
fn file(text: &str) {
    let read = parse_nodes(text);
    let Ok(nodes) = &read else {
        return;
    };
    nodes.iter().for_each(is_read_again);
    let lines: Vec<String> = nodes
        .iter()
        .map(|node| format!(" {node} # one\n\n"))
        .collect();
    assert_eq!(parse_nodes(&lines.concat()).ok().as_ref(), Some(nodes));
}

/// An answer to `config get cluster`, which is whole at its last byte and not before.
fn cluster(bytes: &[u8]) {
    let Ok(Some(answer)) = parse_cluster(bytes) else {
        return;
    };
    for end in 0..bytes.len() {
        let begun = parse_cluster(&bytes[..end]);
        assert!(matches!(begun, Ok(None)), "{end} bytes: {begun:?}");
    }
    for by_address in [false, true] {
        let nodes = answer.clone().into_nodes(by_address);
        assert_eq!(nodes.len(), answer.nodes.len());
        nodes.iter().for_each(is_of_the_network);
    }
}

/// A name server's answer.
fn services(bytes: &[u8]) {
    let Ok(Some(nodes)) = parse_services(bytes, ID) else {
        return;
    };
    nodes.iter().for_each(is_of_the_network);
    assert!(
        nodes
            .iter()
            .all(|node| node.weight > 0 && node.name.is_none() && node.zone.is_none())
    );
    let places: Vec<_> = nodes.iter().map(|node| (&node.host, node.port)).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "each once: {places:?}");
}

/// An answer of an engine: a member as it is written is the node that it is.
fn members(engine: &str, text: &str) {
    let Ok(members) = listed(engine, "ring", text) else {
        return;
    };
    for member in &members {
        let node: Node = member
            .to_string()
            .parse()
            .unwrap_or_else(|error| panic!("{member}: {error}"));
        is_of_the_network(&node);
        assert_eq!(
            (&node.host, node.port, node.weight),
            (&member.host, member.port, member.weight)
        );
        assert_eq!(node.zone, member.zone);
        assert_eq!(node.name.unwrap_or(member.address()), member.name);
    }
}

/// The target. The first byte says which form the rest has.
pub fn run(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    match (form, std::str::from_utf8(rest)) {
        (b'g', _) => cluster(rest),
        (b's', _) => services(rest),
        (b'f', Ok(text)) => file(text),
        (b'e', Ok(text)) => members("etcd", text),
        (b'c', Ok(text)) => members("consul", text),
        (b'k', Ok(text)) => members("k8s", text),
        (_, Ok(text)) => list(text),
        (_, Err(_)) => {}
    }
}
