//! Cache-aside: ask the cache, else the database, and leave what it said in the cache; after a change, delete.
//! `cargo run --example cache_aside [host:port,..]` (without nodes it starts one).

mod servers;

use std::time::Duration;

use ketch_client::{Client, ClientOptions, Error, Node};
use servers::Server;

/// How long a user may be out of date if a delete gets lost.
const TTL: Duration = Duration::from_secs(300);

/// The slow and true place of all users.
struct Database {
    name: String,
    reads: u32,
}

/// The user's name. A broken cache is slow, not an error.
fn user(client: &Client, database: &mut Database, id: u64) -> String {
    let key = format!("user:{id}");
    match client.get(&key) {
        Ok(Some(item)) => return String::from_utf8_lossy(&item.value).into_owned(),
        Ok(None) => {}
        Err(error) => eprintln!("get {key}: {error}"),
    }
    database.reads += 1;
    let name = database.name.clone();
    // `add`, not `set`: if someone has stored the user meanwhile, theirs is no older than ours.
    if let Err(error) = client.add(&key, &name, TTL) {
        eprintln!("add {key}: {error}");
    }
    name
}

/// First the database, then the cache. An error here is one to care about: the old name would stay for up to `TTL`.
fn rename(client: &Client, database: &mut Database, id: u64, name: &str) -> Result<(), Error> {
    database.name = name.to_owned();
    client.delete(format!("user:{id}"))?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (nodes, _server) = match std::env::args().nth(1) {
        Some(list) => (Node::list(&list)?, None),
        None => {
            let server = Server::start();
            (vec![server.node.clone()], Some(server))
        }
    };
    let client = Client::new(nodes, ClientOptions::default());
    let mut database = Database {
        name: "Ada".to_owned(),
        reads: 0,
    };
    client.delete("user:1")?;
    for _ in 0..1000 {
        assert_eq!(user(&client, &mut database, 1), "Ada");
    }
    rename(&client, &mut database, 1, "Grace")?;
    for _ in 0..1000 {
        assert_eq!(user(&client, &mut database, 1), "Grace");
    }
    println!("2000 requests, {} reads of the database", database.reads);
    Ok(())
}
