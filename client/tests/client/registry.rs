//! A client that follows a ring in a real etcd.

use std::time::{Duration, Instant};

use ketch_client::topology::{FollowOptions, RegisteredNodes};
use ketch_client::{Client, ClientOptions};
use ketch_membership::{Enrolment, Member};
use ketch_testing::{Etcd, PATIENCE, Server, wait_within};

fn nodes(client: &Client) -> Vec<String> {
    let mut names: Vec<String> = client.nodes().iter().map(|node| node.to_string()).collect();
    names.sort();
    names
}

fn enrol(etcd: &Etcd, name: &str, server: &Server) -> Enrolment {
    let member = Member::new(name, "127.0.0.1", server.port());
    Enrolment::begin(
        etcd.url("ring").parse().unwrap(),
        member,
        Duration::from_secs(2),
    )
    .unwrap()
}

#[test]
fn who_joins_a_ring_is_asked_at_once() {
    let etcd = Etcd::start();
    let servers = [Server::start(&[]), Server::start(&[])];
    let _a = enrol(&etcd, "a", &servers[0]);
    let source = || etcd.url("ring").parse::<RegisteredNodes>().unwrap();
    wait_within("the first is there", PATIENCE, || {
        let follow = FollowOptions::default();
        Client::follow(source(), ClientOptions::default(), follow).is_ok()
    });
    let client =
        Client::follow(source(), ClientOptions::default(), FollowOptions::default()).unwrap();
    let a = format!("a=127.0.0.1:{}", servers[0].port());
    assert_eq!(nodes(&client), std::slice::from_ref(&a));
    client.set("key", "value", None).unwrap();

    let began = Instant::now();
    let second = enrol(&etcd, "b", &servers[1]);
    let b = format!("b=127.0.0.1:{}", servers[1].port());
    wait_within("both are in the ring", PATIENCE, || {
        nodes(&client) == [a.clone(), b.clone()]
    });
    println!("up -> in the client's ring: {:?}", began.elapsed());
    drop(second);
    wait_within("it has left", PATIENCE, || {
        nodes(&client) == std::slice::from_ref(&a)
    });
    assert!(
        client
            .get("key")
            .unwrap()
            .is_some_and(|item| &item.value[..] == b"value")
    );
}
