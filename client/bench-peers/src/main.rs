//! One client in one process, which works when it is told to: `compare.py` starts one of these for each client, and
//! `worker.py` for those of Python, and has them take turns.
//!
//! ```text
//!  bench-peers CLIENT NODES     CLIENT as in `main`, NODES host:port,host:port
//!  "get 10 1 50\n"        ->    reads for 50 ms, ten keys at a time, in one task
//!  "81230 50000813 33512002\n"  keys, nanoseconds, nanoseconds of CPU time of this process
//! ```
//!
//! The deeds are `get` and `set`, of one key or a batch. Key 16 bytes, value 100 bytes, 10,000 keys, all hits.

use std::collections::HashMap;
use std::env;
use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_memcached::AsciiProtocol;
use cpu_time::ProcessTime;
use ketch_client::{AsyncClient, ClientOptions, Node};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

#[derive(Clone, Copy)]
enum Deed {
    Get,
    Set,
}

/// What is to be done.
#[derive(Clone, Copy)]
struct Round {
    deed: Deed,
    batch: usize,
    tasks: usize,
    until: Instant,
}

impl Round {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }
}

struct Data {
    keys: Vec<String>,
    value: [u8; 100],
}

impl Data {
    /// The keys of a task's next operation.
    fn next(&self, round: Round, task: usize, done: usize) -> &[String] {
        let at = (task * 977 + done) % self.keys.len();
        let at = at.min(self.keys.len() - round.batch);
        &self.keys[at..at + round.batch]
    }
}

/// Keys that were seen to.
type Run = Box<dyn FnMut(Round) -> usize>;

fn ketch(data: Arc<Data>, nodes: &str) -> Run {
    let nodes = Node::list(nodes).expect("host:port,host:port");
    let client = ketch_client::Client::new(nodes, ClientOptions::default());
    Box::new(move |round| {
        let mut done = 0;
        while round.goes_on() {
            match (round.deed, data.next(round, 0, done)) {
                (Deed::Get, [key]) => {
                    assert!(black_box(client.get(key)).is_ok_and(|item| item.is_some()));
                }
                (Deed::Get, keys) => {
                    let found = black_box(client.get_multi(keys));
                    assert!(found.iter().all(|item| matches!(item, Ok(Some(_)))));
                }
                (Deed::Set, [key]) => client.set(key, &data.value, None).expect("up"),
                (Deed::Set, keys) => {
                    let entries = keys.iter().map(|key| (key, &data.value));
                    let stored = client.set_multi(entries, None);
                    assert!(stored.iter().all(Result::is_ok));
                }
            }
            done += round.batch;
        }
        done
    })
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

fn ketch_async(data: Arc<Data>, nodes: &str) -> Run {
    let nodes = Node::list(nodes).expect("host:port,host:port");
    let client = AsyncClient::new(nodes, ClientOptions::default());
    let runtime = runtime();
    Box::new(move |round| {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            for task in 0..round.tasks {
                let (data, client) = (data.clone(), client.clone());
                set.spawn(async move {
                    let mut done = 0;
                    while round.goes_on() {
                        match (round.deed, data.next(round, task, done)) {
                            (Deed::Get, [key]) => {
                                assert!(client.get(key).await.expect("up").is_some())
                            }
                            (Deed::Get, keys) => {
                                let found = client.get_multi(keys).await;
                                assert!(found.iter().all(|item| matches!(item, Ok(Some(_)))));
                            }
                            (Deed::Set, [key]) => {
                                client.set(key, &data.value, None).await.expect("up")
                            }
                            (Deed::Set, keys) => {
                                let entries = keys.iter().map(|key| (key, &data.value));
                                let stored = client.set_multi(entries, None).await;
                                assert!(stored.iter().all(Result::is_ok));
                            }
                        }
                        done += round.batch;
                    }
                    done
                });
            }
            set.join_all().await.into_iter().sum()
        })
    })
}

/// As long as an attempt of ketch-client may take.
const LIMIT: Duration = Duration::from_millis(300);

/// The outcome of `deed`; with `limited`, within a time limit.
async fn within<T>(limited: bool, deed: impl Future<Output = T>) -> T {
    if limited {
        timeout(LIMIT, deed).await.expect("in time")
    } else {
        deed.await
    }
}

/// A connection a task. It has no time limits of its own; with `limited`, its caller sets them.
fn async_memcached(data: Arc<Data>, node: &str, limited: bool) -> Run {
    let dsn = format!("tcp://{node}");
    let runtime = runtime();
    let mut idle = Vec::new();
    Box::new(move |round| {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            for task in 0..round.tasks {
                let mut client = match idle.pop() {
                    Some(client) => client,
                    None => async_memcached::Client::new(&dsn).await.expect("up"),
                };
                let data = data.clone();
                set.spawn(async move {
                    let mut done = 0;
                    while round.goes_on() {
                        match (round.deed, data.next(round, task, done)) {
                            (Deed::Get, [key]) => {
                                let found = within(limited, client.get(key)).await;
                                assert!(found.expect("up").is_some());
                            }
                            (Deed::Get, keys) => {
                                let found = within(limited, client.get_multi(keys)).await;
                                let found = found.expect("up");
                                assert_eq!(black_box(found).len(), keys.len());
                            }
                            (Deed::Set, [key]) => {
                                let set = client.set(key, &data.value[..], None, None);
                                within(limited, set).await.expect("up");
                            }
                            (Deed::Set, keys) => {
                                let entries = keys.iter().map(|key| (key, &data.value[..]));
                                let entries: Vec<_> = entries.collect();
                                let set = client.set_multi(&entries, None, None);
                                within(limited, set).await.expect("up");
                            }
                        }
                        done += round.batch;
                    }
                    (client, done)
                });
            }
            let ended = set.join_all().await;
            let counts = ended.into_iter().map(|(client, done)| {
                idle.push(client);
                done
            });
            counts.sum()
        })
    })
}

/// A thread and a connection a task.
fn memcache(data: Arc<Data>, node: &str) -> Run {
    let url = format!("memcache://{node}?tcp_nodelay=true");
    let mut pools = HashMap::new();
    Box::new(move |round| {
        let client = pools.entry(round.tasks).or_insert_with(|| {
            let client = memcache::Client::with_pool_size(&url[..], round.tasks as u32);
            client.expect("up")
        });
        let run = |task: usize| {
            let (data, client) = (&data, &*client);
            move || {
                let mut done = 0;
                while round.goes_on() {
                    let keys = data.next(round, task, done);
                    match (round.deed, keys) {
                        (Deed::Get, [key]) => {
                            let found: Option<Vec<u8>> = client.get(key).expect("up");
                            assert!(black_box(found).is_some());
                        }
                        (Deed::Get, keys) => {
                            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                            let found = client.gets::<Vec<u8>>(&keys).expect("up");
                            assert_eq!(black_box(found).len(), keys.len());
                        }
                        // It has none for many.
                        (Deed::Set, keys) => {
                            for key in keys {
                                client.set(key, &data.value[..], 0).expect("up");
                            }
                        }
                    }
                    done += round.batch;
                }
                done
            }
        };
        thread::scope(|scope| {
            let threads = (0..round.tasks).map(|task| scope.spawn(run(task)));
            let threads: Vec<_> = threads.collect();
            let counts = threads.into_iter().map(|thread| thread.join());
            counts.map(|count| count.expect("no panic")).sum()
        })
    })
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let [_, client, nodes] = &arguments[..] else {
        panic!("bench-peers CLIENT NODES");
    };
    let data = Arc::new(Data {
        keys: (0..10_000).map(|i| format!("key:{i:012}")).collect(),
        value: [b'x'; 100],
    });
    let mut run = match &client[..] {
        "ketch" => ketch(data, nodes),
        "ketch-async" => ketch_async(data, nodes),
        "async-memcached" => async_memcached(data, nodes, false),
        "async-memcached-limited" => async_memcached(data, nodes, true),
        "memcache" => memcache(data, nodes),
        _ => panic!("no such client: {client}"),
    };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let [deed, numbers @ ..] = &words[..] else {
            panic!("a deed");
        };
        let numbers = numbers.iter().map(|word| word.parse().expect("a number"));
        let [batch, tasks, ms]: [usize; 3] = numbers
            .collect::<Vec<usize>>()
            .try_into()
            .expect("batch, tasks, milliseconds");
        let (begun, used) = (Instant::now(), ProcessTime::now());
        let done = run(Round {
            deed: match *deed {
                "get" => Deed::Get,
                "set" => Deed::Set,
                _ => panic!("no such deed: {deed}"),
            },
            batch,
            tasks,
            until: begun + Duration::from_millis(ms as u64),
        });
        let (took, used) = (begun.elapsed(), used.elapsed());
        let mut out = io::stdout().lock();
        writeln!(out, "{done} {} {}", took.as_nanos(), used.as_nanos())?;
        out.flush()?;
    }
    Ok(())
}
