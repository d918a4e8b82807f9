//! Cache-aside with tokio: many tasks read through one cache before a slow store.
//!
//! `cargo run -p ketch-client --features tokio --example cache_aside_async [host:port,..]` (without nodes it starts one).

mod servers;

use std::time::Duration;

use ketch_client::{AsyncClient, ClientOptions, Node};
use servers::Server;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const TTL: Duration = Duration::from_secs(60);

/// What takes long.
async fn load(user: u32) -> String {
    sleep(Duration::from_millis(50)).await;
    format!("user {user}, as the store has it")
}

/// The cache first, then the store. A cache that is down only costs time: what it cannot tell is loaded.
async fn user(cache: &AsyncClient, user: u32) -> String {
    let key = format!("user:{user}");
    match cache.get(&key).await {
        Ok(Some(item)) => return String::from_utf8_lossy(&item.value).into_owned(),
        Ok(None) => {}
        Err(error) => eprintln!("{key} is loaded: {error}"),
    }
    let value = load(user).await;
    if let Err(error) = cache.set(&key, &value, TTL).await {
        eprintln!("{key} is not cached: {error}");
    }
    value
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (nodes, _server) = match std::env::args().nth(1) {
        Some(list) => (Node::list(&list)?, None),
        None => {
            let server = Server::start();
            (vec![server.node.clone()], Some(server))
        }
    };
    // A clone is the same client: connections are shared by all tasks.
    let cache = AsyncClient::new(nodes, ClientOptions::default());
    for round in ["first", "second"] {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for id in 0..1000 {
            let cache = cache.clone();
            tasks.spawn(async move { user(&cache, id % 100).await });
        }
        tasks.join_all().await;
        println!(
            "{round} round: 1000 reads of 100 users in {:?}",
            begun.elapsed()
        );
    }
    Ok(())
}
