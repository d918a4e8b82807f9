//! The async client beside the crates `async-memcached` (a connection a task) and `memcache` (a thread and a connection a
//! task), against one Debian memcached on loopback: `cargo run --release`, in this folder. `ROUNDS` (7), `ROUND_MS` (400) and
//! `TASKS` (1,16,128) are taken from the environment.
//!
//! Key 16 bytes, value 100 bytes, 10,000 keys, all hits, two runtime threads. The clients take turns, round by round; told is
//! the median of the rounds, in operations a second (a `get_multi` of 100 keys is one).

use std::env;
use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_memcached::AsciiProtocol;
use ketch_client::{AsyncClient, ClientOptions, Node};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const BATCH: usize = 100;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Get,
    Set,
    GetMulti,
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start() -> Server {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = socket.local_addr().expect("it is bound").port();
        drop(socket);
        let mut command = Command::new("memcached");
        command.args(["-l", "127.0.0.1", "-U", "0", "-u", "root", "-t", "2", "-p"]);
        let child = command.arg(port.to_string()).spawn();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        Server {
            child: child.expect("memcached is installed"),
            address: format!("127.0.0.1:{port}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What all clients are given.
struct Bench {
    address: String,
    keys: Vec<String>,
    value: [u8; 100],
    round: Duration,
    runtime: Runtime,
}

/// Operations a second of `tasks`, each of which counted its own.
fn rate(counts: impl IntoIterator<Item = usize>, begun: Instant) -> f64 {
    counts.into_iter().sum::<usize>() as f64 / begun.elapsed().as_secs_f64()
}

fn ketch(bench: &Arc<Bench>, deed: Deed, tasks: usize) -> f64 {
    let nodes = Node::list(&bench.address).expect("an address");
    bench.runtime.block_on(async {
        let client = AsyncClient::new(nodes, ClientOptions::default());
        client.get(&bench.keys[0]).await.expect("up");
        let begun = Instant::now();
        let mut set = JoinSet::new();
        for task in 0..tasks {
            let (bench, client) = (bench.clone(), client.clone());
            set.spawn(async move {
                let mut count = 0;
                while begun.elapsed() < bench.round {
                    let at = (task * 977 + count * BATCH) % bench.keys.len();
                    let key = &bench.keys[at];
                    match deed {
                        Deed::Get => assert!(client.get(key).await.expect("up").is_some()),
                        Deed::Set => client.set(key, &bench.value, None).await.expect("up"),
                        Deed::GetMulti => {
                            let at = at.min(bench.keys.len() - BATCH);
                            let found = client.get_multi(&bench.keys[at..at + BATCH]).await;
                            assert!(found.iter().all(|item| matches!(item, Ok(Some(_)))));
                        }
                    }
                    count += 1;
                }
                count
            });
        }
        rate(set.join_all().await, begun)
    })
}

fn async_memcached(bench: &Arc<Bench>, deed: Deed, tasks: usize) -> f64 {
    bench.runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..tasks {
            let client = async_memcached::Client::new(format!("tcp://{}", bench.address)).await;
            clients.push(client.expect("up"));
        }
        let begun = Instant::now();
        let mut set = JoinSet::new();
        for (task, mut client) in clients.into_iter().enumerate() {
            let bench = bench.clone();
            set.spawn(async move {
                let mut count = 0;
                while begun.elapsed() < bench.round {
                    let at = (task * 977 + count * BATCH) % bench.keys.len();
                    let key = &bench.keys[at];
                    match deed {
                        Deed::Get => assert!(client.get(key).await.expect("up").is_some()),
                        Deed::Set => {
                            let set = client.set(key, &bench.value[..], None, None);
                            set.await.expect("up");
                        }
                        Deed::GetMulti => {
                            let at = at.min(bench.keys.len() - BATCH);
                            let found = client.get_multi(&bench.keys[at..at + BATCH]).await;
                            assert_eq!(black_box(found.expect("up")).len(), BATCH);
                        }
                    }
                    count += 1;
                }
                count
            });
        }
        rate(set.join_all().await, begun)
    })
}

fn memcache(bench: &Arc<Bench>, deed: Deed, tasks: usize) -> f64 {
    let url = format!("memcache://{}?tcp_nodelay=true", bench.address);
    let client = memcache::Client::with_pool_size(url, tasks as u32).expect("up");
    let begun = Instant::now();
    let counts = thread::scope(|scope| {
        let run = |task: usize| {
            let client = client.clone();
            move || {
                let mut count = 0;
                while begun.elapsed() < bench.round {
                    let at = (task * 977 + count * BATCH) % bench.keys.len();
                    let key = &bench.keys[at];
                    match deed {
                        Deed::Get => {
                            let found: Option<Vec<u8>> = client.get(key).expect("up");
                            assert!(black_box(found).is_some());
                        }
                        Deed::Set => client.set(key, &bench.value[..], 0).expect("up"),
                        Deed::GetMulti => {
                            let at = at.min(bench.keys.len() - BATCH);
                            let keys = bench.keys[at..at + BATCH].iter();
                            let keys: Vec<&str> = keys.map(String::as_str).collect();
                            let found = client.gets::<Vec<u8>>(&keys).expect("up");
                            assert_eq!(black_box(found).len(), BATCH);
                        }
                    }
                    count += 1;
                }
                count
            }
        };
        let threads: Vec<_> = (0..tasks).map(|task| scope.spawn(run(task))).collect();
        let counts = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        counts.collect::<Vec<usize>>()
    });
    rate(counts, begun)
}

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// How many tasks there are: `TASKS` (1,16,128).
fn tasks() -> Vec<usize> {
    let tasks = env::var("TASKS").unwrap_or("1,16,128".to_owned());
    let tasks = tasks.split(',').map(|text| text.parse().expect("a number"));
    tasks.collect()
}

fn main() {
    let server = Server::start();
    let bench = Arc::new(Bench {
        address: server.address.clone(),
        keys: (0..10_000).map(|i| format!("key:{i:012}")).collect(),
        value: [b'x'; 100],
        round: Duration::from_millis(number("ROUND_MS", 400) as u64),
        runtime: Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime"),
    });
    let filler = ketch_client::Client::new(
        Node::list(&bench.address).expect("an address"),
        ClientOptions::default(),
    );
    let entries = bench.keys.iter().map(|key| (key, &bench.value));
    assert!(filler.set_multi(entries, None).iter().all(Result::is_ok));
    type Run = fn(&Arc<Bench>, Deed, usize) -> f64;
    let clients: [(&str, Run); 3] = [
        ("ketch-client", ketch),
        ("async-memcached", async_memcached),
        ("memcache", memcache),
    ];
    println!(
        "operations/s          tasks {}",
        clients.map(|(name, _)| format!("{name:>16}")).join("")
    );
    for deed in [Deed::Get, Deed::Set, Deed::GetMulti] {
        for tasks in tasks() {
            let mut rates = vec![Vec::new(); clients.len()];
            for _ in 0..number("ROUNDS", 7) {
                for (rates, (_, run)) in rates.iter_mut().zip(clients) {
                    rates.push(run(&bench, deed, tasks));
                }
            }
            let medians = rates.into_iter().map(|mut rates| {
                rates.sort_by(f64::total_cmp);
                format!("{:16.0}", rates[rates.len() / 2])
            });
            let name = format!("{deed:?}");
            println!("{name:<20} {tasks:6} {}", medians.collect::<String>());
        }
    }
}
