//! Keys a second of the blocking client, one thread: `cargo bench -p ketch-client`. The nodes are Debian's memcached on
//! loopback, or `KETCH_BENCH_NODES=host:port,..`. Key 16 bytes, value 100 bytes, all hits.

use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ketch_client::{Client, ClientOptions, Node};

struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(servers: &mut Servers) -> Node {
    let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let port = socket.local_addr().expect("it is bound").port();
    drop(socket);
    let mut command = Command::new("memcached");
    command.args(["-l", "127.0.0.1", "-U", "0", "-u", "root", "-t", "2", "-p"]);
    let child = command.arg(port.to_string()).spawn();
    servers.0.push(child.expect("memcached is installed"));
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    Node::new("127.0.0.1", port)
}

fn main() {
    let mut servers = Servers(Vec::new());
    let nodes = match std::env::var("KETCH_BENCH_NODES") {
        Ok(list) => Node::list(&list).expect("host:port,host:port"),
        Err(_) => (0..3).map(|_| start(&mut servers)).collect(),
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
