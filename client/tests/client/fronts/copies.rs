//! Copies on several nodes while nodes are killed, restarted and stopped, against stock memcached and ketch.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::{Ack, ClientOptions, Node, OnEjection, Reads};

use super::Client;
use crate::as_node::AsNode;
use crate::patience::patient;
use ketch_testing::{KINDS, Kind, Server, wait_until};

fn servers(kind: Kind, count: usize) -> Vec<Server> {
    (0..count).map(|_| kind.start()).collect()
}

fn client(servers: &[Server], options: ClientOptions) -> Client {
    Client::new(servers.iter().map(Server::node), options)
}

/// Which of `servers` hold `key`.
fn holders(servers: &[Server], key: &str) -> Vec<usize> {
    (0..servers.len())
        .filter(|&at| servers[at].holds(key).is_some())
        .collect()
}

fn text(client: &Client, key: &str) -> Option<String> {
    let item = client.get(key).expect("a copy lives")?;
    Some(String::from_utf8(item.value.to_vec()).expect("text"))
}

#[test]
fn writes_and_deletes_reach_all_copies() {
    for kind in KINDS {
        let servers = servers(kind, 4);
        for ack in [Ack::One, Ack::Quorum, Ack::All] {
            let client = client(&servers, patient().copies(3).ack(ack));
            let keys: Vec<String> = (0..50).map(|i| format!("{ack:?}:{i}")).collect();
            for result in client.set_multi(keys.iter().map(|key| (key, key)), None) {
                result.expect("up");
            }
            for key in &keys {
                wait_until("three copies", || holders(&servers, key).len() == 3);
                assert_eq!(text(&client, key).as_ref(), Some(key));
            }
            assert!(
                client
                    .delete_multi(&keys)
                    .into_iter()
                    .all(|result| result == Ok(true))
            );
            for key in &keys {
                wait_until("no copy", || holders(&servers, key).is_empty());
            }
            client.set("single", "1", None).expect("up");
            wait_until("three copies", || holders(&servers, "single").len() == 3);
            assert_eq!(client.incr("single", 2), Ok(Some(3)));
            assert_eq!(client.append("single", "0"), Ok(true));
            assert_eq!(client.delete("single"), Ok(true));
            wait_until("no copy", || holders(&servers, "single").is_empty());
        }
    }
}

#[test]
fn a_node_killed_under_load_is_hardly_noticed_and_repaired_when_it_is_back() {
    for kind in KINDS {
        for reads in [Reads::First, Reads::Hedged(Duration::from_millis(20))] {
            killed_under_load(kind, reads);
        }
    }
}

fn killed_under_load(kind: Kind, reads: Reads) {
    let mut servers = servers(kind, 5);
    // Bounds for a busy machine: its pauses are no failures.
    let options = ClientOptions::default()
        .copies(2)
        .reads(reads)
        .attempt_timeout(Duration::from_secs(5))
        .connect_timeout(Duration::from_secs(5))
        .request_timeout(Duration::from_secs(10))
        .settle(Duration::from_secs(60));
    let client = client(&servers, options);
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (killed_at, last_error, acknowledged) = thread::scope(|scope| {
        let load = |thread: usize| {
            let (client, stop, rounds) = (client.clone(), &stop, &rounds);
            move || {
                let mut acknowledged: HashMap<String, String> = HashMap::new();
                let (mut last_error, mut slowest) = (None, Duration::ZERO);
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{thread}:{}", i % 500);
                    let value = format!("{key}={i}");
                    let begun = Instant::now();
                    let stored = client.set(&key, &value, None);
                    slowest = slowest.max(begun.elapsed());
                    match stored {
                        Ok(()) => drop(acknowledged.insert(key, value)),
                        Err(_) => {
                            acknowledged.remove(&key);
                            last_error = Some(Instant::now());
                        }
                    }
                    let asked = format!("{thread}:{}", (i * 7) % 500);
                    let begun = Instant::now();
                    let found = client.get(&asked);
                    slowest = slowest.max(begun.elapsed());
                    match found {
                        Ok(found) => {
                            let found = found
                                .map(|item| String::from_utf8(item.value.to_vec()).expect("text"));
                            if let Some(value) = acknowledged.get(&asked) {
                                assert_eq!(found.as_ref(), Some(value), "{kind:?} {reads:?}: lost");
                            }
                        }
                        Err(_) => last_error = Some(Instant::now()),
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                (last_error, acknowledged, slowest)
            }
        };
        let threads: Vec<_> = (0..3).map(|thread| scope.spawn(load(thread))).collect();
        // How long the machine itself does nothing for us.
        let pauses = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                thread::sleep(Duration::from_millis(10));
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        let more = |count: usize| {
            let goal = rounds.load(Ordering::Relaxed) + count;
            wait_until("the load goes on", || {
                rounds.load(Ordering::Relaxed) >= goal
            });
        };
        more(100);
        servers[0].kill();
        let killed_at = Instant::now();
        more(300);
        servers[0].restart();
        // It is taken back: writes reach it again.
        wait_until("the node is taken back", || {
            servers[0].ask("stats\r\n", "END\r\n").lines().any(|line| {
                line.strip_prefix("STAT curr_items ")
                    .is_some_and(|count| count != "0")
            })
        });
        // However slow the machine is.
        wait_until("much is written", || rounds.load(Ordering::Relaxed) > 1000);
        stop.store(true, Ordering::Relaxed);
        let mut last_error = None;
        let mut acknowledged = HashMap::new();
        let pause = pauses.join().expect("it only sleeps");
        for thread in threads {
            let (error, keys, slowest) = thread.join().expect("no acknowledged key is lost");
            // A killed node's connections end at once: not even an attempt's timeout is waited for.
            assert!(
                slowest < Duration::from_secs(4) + 2 * pause,
                "{kind:?} {reads:?}: {slowest:?}"
            );
            last_error = last_error.max(error);
            acknowledged.extend(keys);
        }
        (killed_at, last_error, acknowledged)
    });
    if let Some(at) = last_error {
        assert!(
            at < killed_at + Duration::from_secs(1),
            "{kind:?} {reads:?}: errors for {:?}",
            at - killed_at
        );
    }
    // Read once, every key has its two copies again.
    assert!(
        acknowledged.len() > 500,
        "{kind:?}: {} keys",
        acknowledged.len()
    );
    let keys: Vec<&String> = acknowledged.keys().collect();
    wait_until("the copies are repaired", || {
        for (key, found) in keys.iter().zip(client.get_multi(&keys)) {
            let found = found
                .expect("all are up")
                .expect("nothing acknowledged is lost");
            assert_eq!(
                found.value,
                acknowledged[*key].as_bytes(),
                "{kind:?} {reads:?}"
            );
        }
        let on_first = keys
            .iter()
            .filter(|key| servers[0].holds(key).is_some())
            .count();
        on_first > keys.len() / 5
    });
}

#[test]
fn a_stopped_node_costs_readers_a_hedge_and_no_errors() {
    for kind in KINDS {
        let servers = servers(kind, 3);
        let options = ClientOptions::default()
            .copies(2)
            .reads(Reads::Hedged(Duration::from_millis(5)))
            .attempt_timeout(Duration::from_millis(500))
            .request_timeout(Duration::from_secs(10));
        let client = client(&servers, options);
        let keys: Vec<String> = (0..100).map(|i| format!("key{i}")).collect();
        assert!(
            client
                .set_multi(keys.iter().map(|key| (key, key)), None)
                .iter()
                .all(Result::is_ok)
        );
        servers[1].freeze(true);
        for key in &keys {
            let begun = Instant::now();
            assert_eq!(text(&client, key).as_ref(), Some(key), "{kind:?}");
            assert!(
                begun.elapsed() < Duration::from_millis(400),
                "{kind:?}: {:?}",
                begun.elapsed()
            );
        }
        assert!(
            client
                .get_multi(&keys)
                .iter()
                .all(|found| matches!(found, Ok(Some(_))))
        );
        // Written meanwhile: the stopped node must not come back with what it held.
        for key in &keys {
            client.set(key, "new", None).expect("its stand-in takes it");
        }
        servers[1].freeze(false);
        wait_until("the node is taken back", || {
            client.set("x", "y", None).expect("up");
            keys.iter()
                .all(|key| servers[1].holds(key).is_none_or(|value| value == "new"))
        });
        for key in &keys {
            assert_eq!(text(&client, key).as_deref(), Some("new"), "{kind:?}");
        }
    }
}

/// A way to a server on which what is sent can be lost.
struct Relay {
    port: u16,
    loses: Arc<AtomicBool>,
}

impl Relay {
    fn to(server: &Server) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let loses = Arc::new(AtomicBool::new(false));
        let (loses_too, to) = (loses.clone(), server.port());
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.expect("a connection");
                let mut server = TcpStream::connect(("127.0.0.1", to)).expect("the server is up");
                let mut back = (server.try_clone(), client.try_clone());
                thread::spawn(move || {
                    if let (Ok(from), Ok(to)) = (&mut back.0, &mut back.1) {
                        let _ = std::io::copy(from, to);
                    }
                });
                let loses = loses_too.clone();
                thread::spawn(move || {
                    let (mut bytes, mut lost) = ([0; 4096], false);
                    while let Ok(count @ 1..) = client.read(&mut bytes) {
                        // A connection that has lost something gets nothing more through.
                        lost |= loses.load(Ordering::Relaxed);
                        if !lost {
                            let _ = server.write_all(&bytes[..count]);
                        }
                    }
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        Relay { port, loses }
    }
}

#[test]
fn what_is_lost_on_the_way_unawaited_leaves_nothing_old() {
    for kind in KINDS {
        let servers = servers(kind, 3);
        let relay = Relay::to(&servers[1]);
        let mut nodes: Vec<Node> = servers.iter().map(Server::node).collect();
        nodes[1].port = relay.port;
        let options = patient().attempt_timeout(Duration::from_millis(500));
        let options = options.copies(3).ack(Ack::One);
        let client = Client::new(nodes, options);
        client.set("k", "old", None).expect("up");
        wait_until("three copies", || holders(&servers, "k").len() == 3);
        relay.loses.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        client.set("k", "new", None).expect("two copies take it");
        let took = begun.elapsed();
        wait_until("two have the new value", || {
            [0, 2].map(|at| servers[at].holds("k")) == [Some("new".into()), Some("new".into())]
        });
        assert_eq!(servers[1].holds("k").as_deref(), Some("old"));
        relay.loses.store(false, Ordering::Relaxed);
        // Whatever is done next carries it on, be it that the node itself is not asked.
        wait_until("the old value is gone", || {
            client.delete("other").expect("up");
            servers[1].holds("k").as_deref() != Some("old")
        });
        assert_eq!(text(&client, "k").as_deref(), Some("new"), "{kind:?}");
        assert!(took < Duration::from_secs(5), "{kind:?}: {took:?}");
    }
}

#[test]
fn without_rehashing_a_dead_node_fails_fast() {
    for kind in KINDS {
        let mut servers = servers(kind, 2);
        let client = client(&servers, patient().on_ejection(OnEjection::FailFast));
        let keys: Vec<String> = (0..50).map(|i| format!("key{i}")).collect();
        assert!(
            client
                .set_multi(keys.iter().map(|key| (key, key)), None)
                .iter()
                .all(Result::is_ok)
        );
        let lost: Vec<bool> = keys
            .iter()
            .map(|key| servers[0].holds(key).is_some())
            .collect();
        servers[0].kill();
        let _ = client.get_multi(&keys);
        for (lost, found) in lost.iter().zip(client.get_multi(&keys)) {
            assert_eq!(found.is_err(), *lost, "{kind:?}: {found:?}");
        }
        servers[0].restart();
        wait_until("the node is taken back", || {
            client.get_multi(&keys).iter().all(Result::is_ok)
        });
    }
}

#[test]
fn a_ring_grows_without_misses_while_both_places_are_asked() {
    for kind in KINDS {
        let mut servers = servers(kind, 3);
        let client = client(&servers, patient());
        let keys: Vec<String> = (0..500).map(|i| format!("key{i}")).collect();
        let ttl = Duration::from_secs(1000);
        assert!(
            client
                .set_multi(keys.iter().map(|key| (key, key)), ttl)
                .iter()
                .all(Result::is_ok)
        );
        servers.push(kind.start());
        client.set_nodes(servers.iter().map(Server::node), Duration::from_secs(60));
        let hits = client
            .get_multi(&keys)
            .into_iter()
            .filter(|found| matches!(found, Ok(Some(_))))
            .count();
        assert_eq!(hits, 500, "{kind:?}");
        // What belongs to the new node was carried there, with its time to live.
        wait_until("the keys are carried over", || {
            keys.iter()
                .filter(|key| servers[3].holds(key).is_some())
                .count()
                > 50
        });
        // For a moment only, until its source was looked at again; then for its own time.
        wait_until("one has its time to live", || {
            let _ = client.get_multi(&keys);
            keys.iter().any(|key| {
                let answer = servers[3].ask(&format!("mg {key} t\r\n"), "\r\n");
                let left = answer.trim_end().strip_prefix("HD t");
                let left = left.and_then(|left| left.parse::<u64>().ok());
                left.is_some_and(|left| (900..=1000).contains(&left))
            })
        });
        // Without the second look, misses.
        client.set_nodes(servers[1..].iter().map(Server::node), Duration::ZERO);
        let hits = client
            .get_multi(&keys)
            .into_iter()
            .filter(|found| matches!(found, Ok(Some(_))))
            .count();
        assert!(hits < 450, "{kind:?}: {hits}");
    }
}
