//! Read-through with tokio: a thousand tasks want what is not there. One loads it; as that one is given up, another does.
//!
//! `cargo run -p ketch-client --features tokio --example read_through_async [host:port,..]` (without nodes it starts one)

mod servers;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ketch_client::codec::Raw;
use ketch_client::load::LoadOptions;
use ketch_client::{AsyncClient, ClientOptions, Node};
use servers::Server;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout};

static LOADS: AtomicU32 = AtomicU32::new(0);

/// What takes long.
async fn render(page: u32) -> Result<Option<String>, std::io::Error> {
    LOADS.fetch_add(1, Ordering::Relaxed);
    sleep(Duration::from_millis(200)).await;
    Ok(Some(format!("page {page}, rendered")))
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
    let cache = AsyncClient::new(nodes, ClientOptions::default());
    cache.delete("page:1").await?;
    // Good for a minute, and for five more while one task renders it anew.
    let options = LoadOptions::new(Duration::from_secs(60)).stale(Duration::from_secs(300));
    let page = |patience| {
        let (pages, options) = (cache.typed(Raw), options.clone());
        async move {
            let page = pages.get_or_load("page:1", options, || render(1));
            timeout(patience, page).await
        }
    };
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    // The first is the one that loads, and its patience ends before the page is there.
    tasks.spawn(page(Duration::from_millis(100)));
    while LOADS.load(Ordering::Relaxed) == 0 {
        yield_now().await;
    }
    for _ in 1..1000 {
        tasks.spawn(page(Duration::from_secs(10)));
    }
    let mut served = 0;
    while let Some(page) = tasks.join_next().await {
        match page? {
            Ok(page) => served += u32::from(page?.is_some()),
            Err(late) => println!("one has given up: {late}"),
        }
    }
    let (loads, took) = (LOADS.load(Ordering::Relaxed), begun.elapsed());
    println!("1000 tasks, {served} of them served by {loads} loads in {took:?}");
    Ok(())
}
