//! A key too hot for one node: its copies share the reads, by the word of the nodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::{Ack, Client};
use ketch_testing::{Kind, PATIENCE, Server};

use crate::as_node::AsNode;
use crate::patience::patient;

const KEYS: usize = 2000;

fn ring(kind: Kind) -> (Vec<Server>, Client) {
    let servers: Vec<Server> = (0..4).map(|_| kind.start()).collect();
    let options = patient().copies(4).ack(Ack::All);
    let client = Client::new(servers.iter().map(Server::node), options);
    client.set("hot", "0", None).expect("up");
    for n in 0..KEYS {
        client.set(key(n), "v", None).expect("up");
    }
    (servers, client)
}

fn key(n: usize) -> String {
    format!("key:{n}")
}

/// Reads, half of them of the hot key.
fn read(client: &Client, reads: usize, seed: usize) {
    for n in 0..reads {
        let other = (seed + n).wrapping_mul(7919) % KEYS;
        let found = if n % 2 == 0 {
            client.get("hot")
        } else {
            client.get(key(other))
        };
        assert!(found.expect("up").is_some());
    }
}

/// The part of the reads that each node gets while `work` is done.
fn shares(servers: &[Server], work: impl FnOnce()) -> Vec<f64> {
    let count = || -> Vec<u64> { servers.iter().map(|it| it.stat("cmd_get")).collect() };
    let before = count();
    work();
    let reads: Vec<u64> = count().iter().zip(&before).map(|(a, b)| a - b).collect();
    let all = reads.iter().sum::<u64>() as f64;
    reads.into_iter().map(|reads| reads as f64 / all).collect()
}

/// The node of the hot key, and its part of the reads.
fn busiest(shares: &[f64]) -> (usize, f64) {
    let pairs = shares.iter().copied().enumerate();
    pairs.max_by(|a, b| a.1.total_cmp(&b.1)).expect("nodes")
}

#[test]
fn a_hot_key_is_read_from_all_its_copies() {
    let (servers, client) = ring(Kind::Ketch);
    // So few reads make nothing hot.
    let (node, before) = busiest(&shares(&servers, || read(&client, 4000, 0)));
    assert!(before > 0.54, "{before}");
    let (is_over, began) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        for seed in 0..3 {
            let (client, is_over) = (client.clone(), &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    read(&client, 100, seed * 1000);
                }
            });
        }
        let mut after = 1.0;
        // Its part of the other keys is not the hot key's affair: where it has more than a quarter of them, that comes on top.
        while after > before - 0.33 && began.elapsed() < PATIENCE {
            after = shares(&servers, || thread::sleep(Duration::from_millis(500)))[node];
        }
        eprintln!("from {before:.3} to {after:.3} in {:?}", began.elapsed());
        // Who writes reads what was written, whichever copy is asked.
        let stale = (1..500).map(|n| n.to_string()).find(|value| {
            client.set("hot", value, None).expect("up");
            let item = client.get("hot").expect("up").expect("it is there");
            item.value != value.as_bytes()
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(after <= before - 0.33, "{before} {after}");
        assert_eq!(stale, None);
    });
}

/// Nodes that do not know the flag read over it.
#[test]
fn stock_nodes_are_asked_as_before() {
    let (servers, client) = ring(Kind::Memcached);
    let (_, before) = busiest(&shares(&servers, || read(&client, 20_000, 0)));
    assert!(before > 0.54, "{before}");
}
