//! Three nodes, two copies of each key, and one node killed under load: nothing is lost, and hardly anyone waits.
//! `cargo run --example three_nodes_two_copies`

mod servers;

use std::time::{Duration, Instant};

use ketch_client::{Ack, Client, ClientOptions};
use servers::Server;

const KEYS: usize = 1000;

/// Reads every key; how many were found, how many failed, and the longest read.
fn read_all(client: &Client) -> (usize, usize, Duration) {
    let (mut found, mut failed, mut longest) = (0, 0, Duration::ZERO);
    for at in 0..KEYS {
        let begun = Instant::now();
        match client.get(format!("key:{at}")) {
            Ok(Some(_)) => found += 1,
            Ok(None) => {}
            Err(_) => failed += 1,
        }
        longest = longest.max(begun.elapsed());
    }
    (found, failed, longest)
}

fn main() -> ketch_client::Result<()> {
    let mut servers: Vec<Server> = (0..3).map(|_| Server::start()).collect();
    let nodes: Vec<_> = servers.iter().map(|server| server.node.clone()).collect();
    // A write is done when both copies have it; a read asks the first live one.
    let options = ClientOptions::default().copies(2).ack(Ack::All);
    let client = Client::new(nodes, options);
    for at in 0..KEYS {
        client.set(format!("key:{at}"), "value", Duration::from_secs(600))?;
    }
    let (found, failed, longest) = read_all(&client);
    println!("three nodes: {found} of {KEYS} found, {failed} errors, the longest read {longest:?}");

    // Killed as by `kill -9`.
    drop(servers.remove(0));
    let (found, failed, longest) = read_all(&client);
    println!("two nodes:   {found} of {KEYS} found, {failed} errors, the longest read {longest:?}");
    assert_eq!((found, failed), (KEYS, 0), "the other copy answers");

    // What is written now has its two copies on the nodes that live.
    for at in 0..KEYS {
        client.set(format!("key:{at}"), "newer", Duration::from_secs(600))?;
    }
    println!("two nodes:   {KEYS} keys written again");
    Ok(())
}
