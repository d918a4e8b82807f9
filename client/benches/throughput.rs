//! Keys a second of the blocking client, one thread: `cargo bench -p ketch-client`. The nodes are the original memcached on
//! loopback, or `KETCH_BENCH_NODES=host:port,..`. Key 16 bytes, value 100 bytes, all hits.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ketch_client::{Client, ClientOptions, Node};
use ketch_testing::{Kind, Server};

fn main() {
    let mut servers = Vec::new();
    let nodes = match std::env::var("KETCH_BENCH_NODES") {
        Ok(list) => Node::list(&list).expect("host:port,host:port"),
        Err(_) => {
            servers.extend((0..3).map(|_| Kind::Memcached.start()));
            let ports = servers.iter().map(Server::port);
            ports.map(|port| Node::new("127.0.0.1", port)).collect()
        }
    };
    let client = Client::new(nodes, ClientOptions::default());
    let keys: Vec<String> = (0..10_000).map(|i| format!("key:{i:012}")).collect();
    let value = [b'x'; 100];
    let stored = client.set_multi(keys.iter().map(|key| (key, &value)), None);
    assert!(stored.iter().all(Result::is_ok));
    for batch in [1, 10, 100, 1000] {
        let begun = Instant::now();
        let (mut count, mut at) = (0, 0);
        while begun.elapsed() < Duration::from_secs(2) {
            let asked = &keys[at..at + batch];
            at = (at + batch) % keys.len();
            if let [key] = asked {
                assert!(black_box(client.get(key)).is_ok_and(|item| item.is_some()));
            } else {
                let found = black_box(client.get_multi(asked));
                assert!(found.iter().all(|item| matches!(item, Ok(Some(_)))));
            }
            count += batch;
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        println!("get, {batch:4} keys a batch: {rate:9.0} keys/s");
    }
}
