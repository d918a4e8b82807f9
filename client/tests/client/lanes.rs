//! What only the async client has: many tasks on few connections, and futures that are dropped half way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::as_node::AsNode;
use crate::patience::patient;
use ketch_client::codec::Raw;
use ketch_client::topology::{FollowOptions, NodeFile};
use ketch_client::{AsyncClient, ClientOptions, Error, Reads};
use ketch_testing::{KINDS, Kind, PATIENCE, Server, wait_until};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, sleep_until, timeout};

fn connections(server: &Server) -> u32 {
    let stats = server.ask("stats\r\n", "END\r\n");
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("STAT total_connections "));
    line.expect("a count").parse().expect("a count")
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Each value tells its key, so that a reply in the wrong hands is seen.
async fn use_and_drop(client: AsyncClient, task: usize) -> usize {
    let mut chance = task as u64;
    let mut dropped = 0;
    for i in 0..1500 {
        let key = format!("{}", random(&mut chance) % 500);
        let patience = Duration::from_micros(random(&mut chance) % 1000);
        let size = 10 + (random(&mut chance) % 2000) as usize;
        let value = format!("{key}:{}", "x".repeat(size));
        let done = match i % 4 {
            0 => timeout(patience, client.set(&key, &value, None))
                .await
                .map(|stored| stored.expect("up")),
            1 => {
                let keys: Vec<String> = (0..20).map(|step| format!("{}", i + step)).collect();
                let found = timeout(patience, client.get_multi(&keys)).await;
                found.map(|found| {
                    for (key, item) in keys.iter().zip(found) {
                        check(key, item.expect("up"));
                    }
                })
            }
            2 => {
                let counter = format!("n{task}");
                let counted = timeout(patience, client.incr_or_create(&counter, 1, 1, None)).await;
                counted.map(|number| assert!(number.expect("up") <= 1500))
            }
            _ => timeout(patience, client.get(&key))
                .await
                .map(|found| check(&key, found.expect("up"))),
        };
        dropped += usize::from(done.is_err());
        // Nobody hurries here: what is asked now belongs to this key, whatever was dropped before.
        if i % 10 == 0 {
            check(&key, client.get(&key).await.expect("up"));
        }
    }
    dropped
}

fn check(key: &str, item: Option<ketch_client::Item>) {
    if let Some(item) = item {
        let text = std::str::from_utf8(&item.value).expect("text");
        assert_eq!(text.split(':').next(), Some(key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_stay_with_their_requests_whatever_is_dropped() {
    for kind in KINDS {
        let servers: Vec<Server> = (0..2).map(|_| kind.start()).collect();
        let options = patient().copies(2).pool_connections_max(2);
        let client = AsyncClient::new(servers.iter().map(Server::node), options);
        let mut tasks = JoinSet::new();
        let begun = Instant::now();
        for task in 0..32 {
            tasks.spawn(use_and_drop(client.clone(), task));
        }
        let dropped: usize = tasks.join_all().await.into_iter().sum();
        assert!(dropped > 1000, "{kind:?}: only {dropped} were dropped");
        // A dropped future costs no connection; probes, some a second, delete what copies may not agree on.
        let probes = 20 + 40 * begun.elapsed().as_secs() as u32;
        for server in &servers {
            let connections = connections(server);
            assert!(connections < probes, "{kind:?}: {connections} of {probes}");
        }
    }
}

/// A caller that is alone drives its exchanges itself: what it leaves behind half way, it finds in order again.
#[tokio::test]
async fn a_lone_caller_may_drop_its_futures_too() {
    for kind in KINDS {
        let server = kind.start();
        let client = AsyncClient::new([server.node()], patient().pool_connections_max(1));
        let large = "x".repeat(500_000);
        client.set("0", "0:", None).await.expect("up");
        let before = connections(&server);
        for i in 0..1000 {
            let key = format!("{}", i % 7);
            let value = format!("{key}:{}", if i % 50 == 0 { &large } else { "" });
            match i % 3 {
                0 => drop(poll_once(&mut Box::pin(client.set(&key, &value, None))).await),
                1 => drop(poll_once(&mut Box::pin(client.get(&key))).await),
                _ => client.set(&key, &value, None).await.expect("up"),
            }
            if i % 4 < 3 {
                check(&key, client.get(&key).await.expect("up"));
            }
        }
        // All on one connection; another one asks.
        assert_eq!(connections(&server) - before, 1, "{kind:?}");
    }
}

/// A stream whose next value nobody waited for goes on where it was.
#[tokio::test]
async fn a_stream_loses_nothing_when_its_future_is_dropped() {
    fn is_stream(_: &impl futures_core::Stream) {}

    for kind in KINDS {
        let server = kind.start();
        let client = AsyncClient::new([server.node()], patient());
        let keys: Vec<String> = (0..500).map(|i| i.to_string()).collect();
        for stored in client
            .set_multi(keys.iter().map(|key| (key, key)), None)
            .await
        {
            stored.expect("up");
        }
        let mut stream = client.get_stream(&keys).batch(7);
        is_stream(&stream);
        let (mut found, mut dropped) = (Vec::new(), 0);
        loop {
            let polled = poll_once(&mut Box::pin(stream.next())).await;
            let next = match polled {
                Some(next) => next,
                None => {
                    dropped += 1;
                    stream.next().await
                }
            };
            let Some((key, item)) = next else { break };
            assert_eq!(item.expect("up").expect("stored").text(), Some(&key[..]));
            found.push(key.clone());
        }
        assert_eq!(found, keys);
        assert!(dropped > 10, "{kind:?}: {dropped}");
    }
}

/// Polls `future` once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

/// A caller that drives its exchange itself and then does not come back to it.
#[tokio::test]
async fn a_future_that_is_not_polled_holds_up_nobody() {
    for kind in KINDS {
        let server = kind.start();
        let options = patient().pool_connections_max(1);
        let client = AsyncClient::new([server.node()], options.clone());
        for i in 0..20 {
            let (key, value) = (format!("{i}"), format!("{i}:"));
            client.set(key, &value, None).await.expect("up");
        }
        let begun = Instant::now();
        for i in 0..20 {
            let (key, other) = (format!("{i}"), format!("{}", (i + 1) % 20));
            let mut held = Box::pin(client.get(&key));
            assert!(poll_once(&mut held).await.is_none());
            check(&other, client.get(&other).await.expect("up"));
            check(&key, held.await.expect("up"));
            // Alone for a while.
            for _ in 0..5 {
                check(&key, client.get(&key).await.expect("up"));
            }
        }
        // What is larger than the sockets take at once goes on without its caller.
        let large = "x".repeat(900_000);
        let keys: Vec<String> = (0..20).map(|i| format!("large{i}")).collect();
        server.freeze(true);
        for key in &keys {
            let mut left = Box::pin(client.set(key, &large, None));
            assert!(poll_once(&mut left).await.is_none());
        }
        server.freeze(false);
        while !server
            .ask("mg large19 s\r\nmn\r\n", "MN\r\n")
            .starts_with("HD")
        {
            assert!(begun.elapsed() < PATIENCE, "{kind:?}: it is not sent");
            sleep(Duration::from_millis(1)).await;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{kind:?}: none waits for its time"
        );
        for _ in 0..5 {
            check("1", client.get("1").await.expect("up"));
        }
        // Its time is over when it is polled again, but the reply was there in time.
        let attempt = Duration::from_millis(300);
        let options = options.attempt_timeout(attempt);
        let client = AsyncClient::new([server.node()], options);
        client.set("up", "", None).await.expect("up");
        let mut was_there_in_time = false;
        for i in 0..20 {
            let counter = format!("n{i}");
            let begun = Instant::now();
            let mut held = Box::pin(client.incr_or_create(&counter, 1, 1, None));
            assert!(poll_once(&mut held).await.is_none());
            while server.holds(&counter).is_none() {
                assert!(begun.elapsed() < PATIENCE, "{kind:?}: it is not sent");
                sleep(Duration::from_millis(1)).await;
            }
            // A machine that is too busy gets another try.
            was_there_in_time = begun.elapsed() < attempt / 2;
            if was_there_in_time {
                sleep_until((begun + attempt * 3 / 2).into()).await;
                assert_eq!(held.await, Ok(1));
                break;
            }
        }
        assert!(was_there_in_time, "{kind:?}: not once in 20 tries");
    }
}

/// The lane's runtime ends while a caller of another one drives it.
#[test]
fn a_runtime_that_ends_takes_its_lanes_along() {
    let runtime = || tokio::runtime::Runtime::new().expect("a runtime");
    let server = Kind::Memcached.start();
    let client = AsyncClient::new([server.node()], patient());
    let (first, second) = (runtime(), runtime());
    first.block_on(client.set("k", "v", None)).expect("up");
    for round in 0..20 {
        let found = second.block_on(client.get("k")).expect("up");
        assert_eq!(found.expect("stored").value, "v", "{round}");
    }
    server.freeze(true);
    second.block_on(async {
        let mut held = Box::pin(client.get("k"));
        assert!(poll_once(&mut held).await.is_none());
        let gone = std::thread::spawn(move || drop(first));
        gone.join().expect("no panic");
        server.freeze(false);
        let found = held.await.expect("another lane").expect("stored");
        assert_eq!(found.value, "v");
    });
}

#[tokio::test]
async fn many_tasks_share_few_connections_in_turn() {
    for kind in KINDS {
        let server = kind.start();
        let options = patient().pool_connections_max(1);
        let client = AsyncClient::new([server.node()], options);
        let mut tasks = JoinSet::new();
        // More than may be outstanding.
        for task in 0..1000 {
            let client = client.clone();
            tasks.spawn(async move {
                let key = format!("{task}");
                client.set(&key, &key, None).await.expect("up");
                let item = client.get(&key).await.expect("up").expect("stored");
                assert_eq!(item.value, key);
            });
        }
        tasks.join_all().await;
        assert!(
            connections(&server) <= 4,
            "{kind:?}: {}",
            connections(&server)
        );
    }
}

/// A node that closes, again and again, under the load of many tasks: whatever has another copy is served, and nothing hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_again_and_again_costs_no_request() {
    for kind in KINDS {
        let mut servers: Vec<Server> = (0..3).map(|_| kind.start()).collect();
        let attempt = PATIENCE / 2;
        let options = ClientOptions::default()
            .copies(2)
            .reads(Reads::Hedged(Duration::from_millis(20)))
            .attempt_timeout(attempt)
            .connect_timeout(attempt)
            .request_timeout(PATIENCE);
        let client = AsyncClient::new(servers.iter().map(Server::node), options);
        let stop = Arc::new(AtomicBool::new(false));
        let (slowest, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..64 {
            let (client, stop) = (client.clone(), stop.clone());
            let (slowest, done) = (slowest.clone(), done.clone());
            tasks.spawn(async move {
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{task}:{}", i % 10);
                    let begun = Instant::now();
                    let set = client.set(&key, &key, None).await;
                    let got = client.get(&key).await;
                    slowest.fetch_max(begun.elapsed().as_millis() as usize, Ordering::Relaxed);
                    set.expect("it has another copy, or a stand-in");
                    let found = got.expect("it has another copy").expect("stored");
                    assert_eq!(found.value, key);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Each time some hundred operations are done meanwhile.
        let more = async || {
            let goal = done.load(Ordering::Relaxed) + 300;
            let reached = async {
                while done.load(Ordering::Relaxed) < goal {
                    yield_now().await;
                }
            };
            timeout(PATIENCE, reached).await.expect("the load goes on");
        };
        for _ in 0..10 {
            more().await;
            servers[0].kill();
            more().await;
            servers[0].restart();
        }
        stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        // A killed node's connections end at once: no attempt's timeout is waited for.
        let slowest = slowest.load(Ordering::Relaxed) as u128;
        assert!(slowest < attempt.as_millis(), "{kind:?}: {slowest} ms");
    }
}

#[tokio::test]
async fn a_client_follows_a_file_of_nodes() {
    let servers: Vec<Server> = (0..2).map(|_| Kind::Memcached.start()).collect();
    let file = std::env::temp_dir().join(format!("ketch-client-lanes-{}", std::process::id()));
    let write = |server: &Server| std::fs::write(&file, format!("127.0.0.1:{}\n", server.port()));
    write(&servers[0]).expect("a file");
    let follow = FollowOptions::default()
        .refresh_every(Duration::from_millis(10))
        .dual_read(Duration::ZERO);
    let client = AsyncClient::follow(NodeFile::new(&file), patient(), follow).expect("a list");
    client.set("k", "v", None).await.expect("up");
    assert_eq!(servers[0].holds("k").as_deref(), Some("v"));
    write(&servers[1]).expect("a file");
    wait_until("the client follows", || {
        client.nodes() == [servers[1].node()]
    });
    assert_eq!(client.get("k").await, Ok(None));
    std::fs::remove_file(&file).expect("it is ours");
}

/// Futures of the client go to other threads, as `tokio::spawn` wants it. Nothing is polled.
#[test]
fn futures_can_be_sent() {
    fn sent<T: Send>(_: T) {}
    let client = AsyncClient::new([], ClientOptions::default());
    let keys = ["k".to_owned()];
    sent(client.get("k"));
    sent(client.get_multi(&keys));
    sent(client.set("k", "v", None));
    sent(client.set_multi([("k".to_owned(), "v")], None));
    sent(client.add("k", "v", None));
    sent(client.delete_multi(&keys));
    sent(client.incr("k", 1));
    sent(client.stats(""));
    let ttl = Duration::from_secs(1);
    let load = async || Ok::<_, std::io::Error>(Some("v"));
    sent(client.get_or_load("k", ttl, load));
    sent(client.get_or_load_detached("k", ttl, load));
    let texts = client.typed(Raw);
    sent(texts.get::<String>("k"));
    sent(texts.get_or_load("k", ttl, async || Ok::<_, Error>(Some("v".to_owned()))));
}
