//! What callers do to themselves: queues, shared connections, large batches; and how soon all is well again.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::metrics::Recorder;
use ketch_client::{ClientOptions, Error, Failure, Node, SignInError};

use super::Client;
use crate::as_node::AsNode;
use ketch_testing::{KINDS, Kind, PATIENCE, Server, rounds, wait_until};

const MS: Duration = Duration::from_millis(1);

/// A node in this process. `answer` is told how many requests came before on all connections.
struct Fake {
    port: u16,
    accepted: Arc<AtomicUsize>,
}

impl Fake {
    fn start(answer: impl Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (answer, requests) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let counted = accepted.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut client = client.expect("a connection");
                let (answer, requests) = (answer.clone(), requests.clone());
                thread::spawn(move || {
                    let lines = BufReader::new(client.try_clone().expect("a socket")).lines();
                    for line in lines.map_while(Result::ok) {
                        let before = requests.fetch_add(1, Ordering::Relaxed);
                        answer(before, &line, &mut client);
                    }
                });
            }
        });
        Fake { port, accepted }
    }

    fn node(&self) -> Node {
        Node::new("127.0.0.1", self.port)
    }
}

/// Answers `mg KEY .. Otag` with the key, and `mn`.
fn echo(line: &str, to: &mut TcpStream) {
    let words: Vec<&str> = line.split(' ').collect();
    let answer = match words[..] {
        ["mg", key, .., tag] => format!("VA {} f0 {tag}\r\n{key}\r\n", key.len()),
        _ => "MN\r\n".to_owned(),
    };
    let _ = to.write_all(answer.as_bytes());
}

/// How many of `each` gets of as many `threads` fail.
fn failures(client: &Client, threads: usize, each: usize) -> Vec<Error> {
    let workers: Vec<_> = (0..threads)
        .map(|worker| {
            let client = client.clone();
            thread::spawn(move || {
                let mut failures = Vec::new();
                for round in 0..each {
                    let key = format!("k{worker}-{round}");
                    match client.get(&key) {
                        Ok(found) => assert_eq!(found.expect("it is there").value, key),
                        Err(error) => failures.push(error),
                    }
                }
                failures
            })
        })
        .collect();
    let joined = workers.into_iter().map(|worker| worker.join());
    joined
        .flat_map(|failures| failures.expect("it does not panic"))
        .collect()
}

#[test]
fn waiting_for_ones_own_connections_is_no_fault_of_a_node() {
    // 100 callers, 2 connections, 10 ms: the last waits for half a second.
    let nodes = [(); 2].map(|()| {
        Fake::start(|_, line, to| {
            thread::sleep(10 * MS);
            echo(line, to);
        })
    });
    let recorder = Arc::new(Recorder::default());
    let options = ClientOptions::default()
        .attempt_timeout(200 * MS)
        .request_timeout(PATIENCE)
        .pool_connections_max(2)
        .metrics(recorder.clone());
    let client = Client::new(nodes.each_ref().map(Fake::node), options);
    assert_eq!(failures(&client, 100, 3), []);
    for line in recorder.render().lines() {
        let ejections = line.strip_prefix("ketch_client_ejections_total{");
        assert!(
            ejections.is_none_or(|count| count.ends_with(" 0")),
            "{line}"
        );
    }
}

#[test]
fn a_late_reply_is_the_failure_of_its_own_caller() {
    let node = Fake::start(|before, line, to| {
        // One in ten, scattered.
        if (before * 7919) % 104_729 % 10 == 0 {
            thread::sleep(450 * MS);
        }
        echo(line, to);
    });
    let client = Client::new([node.node()], ClientOptions::default());
    let failed = failures(&client, 16, 40).len();
    assert!(failed < 16 * 40 / 50, "{failed} of 640");
}

#[test]
fn where_all_are_down_callers_try_on_and_notice_at_once() {
    for kind in KINDS {
        let mut servers: Vec<Server> = (0..4).map(|_| kind.start()).collect();
        let client = Client::new(servers.iter().map(Server::node), ClientOptions::default());
        let keys: Vec<String> = (0..40).map(|i| format!("key{i}")).collect();
        let all = || {
            keys.iter()
                .filter(|key| client.set(key, "v", None).is_err())
                .count()
        };
        wait_until("all are up", || all() == 0);
        servers.iter_mut().for_each(Server::kill);
        let down = Instant::now();
        while down.elapsed() < rounds(2000, 4000) * MS {
            for key in &keys {
                let error = client.set(key, "v", None).expect_err("all are down");
                assert_ne!(error, Error::NoNode, "{kind:?}: somebody is still asked");
            }
        }
        servers.iter_mut().for_each(Server::restart);
        let back = Instant::now();
        while all() > 0 {}
        let took = back.elapsed();
        assert!(took < 1000 * MS, "{kind:?}: {took:?}");
    }
}

#[test]
fn large_batches_are_answered_piece_by_piece() {
    let keys: Vec<String> = (0..200_000).map(|i| format!("key{i}")).collect();
    for kind in KINDS {
        let servers = [(); 2].map(|()| kind.start());
        let nodes = servers.each_ref().map(Server::node);
        let client = Client::new(nodes, ClientOptions::default());
        let stored = client.set_multi(keys.iter().map(|key| (key, key)), None);
        assert_eq!(stored.len(), keys.len());
        assert_eq!(
            stored.iter().filter(|stored| stored.is_err()).count(),
            0,
            "{kind:?}"
        );
        let found = client.get_multi(&keys);
        assert_eq!(found.len(), keys.len());
        for (key, found) in keys.iter().zip(found) {
            assert_eq!(
                found.expect("up").expect("stored").value,
                *key.as_bytes(),
                "{kind:?}"
            );
        }
        let deleted = client.delete_multi(&keys);
        assert!(deleted.len() == keys.len() && deleted.iter().all(|one| *one == Ok(true)));
    }
}

#[test]
fn a_large_batch_to_nobody_ends_as_a_small_one() {
    let mut server = Kind::Memcached.start();
    let client = Client::new([server.node()], ClientOptions::default());
    client.set("k", "v", None).expect("up");
    server.freeze(true);
    let keys: Vec<String> = (0..50_000).map(|i| format!("key{i}")).collect();
    let begun = Instant::now();
    let found = client.get_multi(&keys);
    assert!(found.len() == keys.len() && found.iter().all(Result::is_err));
    let took = begun.elapsed();
    assert!(took < 4000 * MS, "{took:?}");
    server.freeze(false);
    server.kill();
}

/// Connections that `server` has, without the one that asks.
fn connections(server: &Server) -> usize {
    let stats = server.ask("stats\r\n", "END\r\n");
    let mut lines = stats.lines();
    let count = lines.find_map(|line| line.strip_prefix("STAT curr_connections "));
    count.expect("a count").parse::<usize>().expect("a count")
}

#[test]
fn connections_to_nodes_that_left_are_closed() {
    for (kind, window) in KINDS.into_iter().zip([Duration::ZERO, 300 * MS]) {
        let servers = [(); 2].map(|()| kind.start());
        let nodes = servers.each_ref().map(Server::node);
        let client = Client::new(nodes, ClientOptions::default());
        for i in 0..50 {
            client.set(format!("key{i}"), "v", None).expect("up");
        }
        let used = connections(&servers[1]);
        client.set_nodes([servers[0].node()], window);
        wait_until("the connections are closed", || {
            client.set("k", "v", None).expect("up");
            connections(&servers[1]) < used
        });
    }
}

#[test]
fn a_login_that_is_refused_says_why_and_is_not_tried_with_every_call() {
    let node = Fake::start(|_, _, to| {
        let _ = to.write_all(b"CLIENT_ERROR authentication failure\r\n");
    });
    let options = ClientOptions::default().login("me", "secret");
    let client = Client::new([node.node()], options);
    for _ in 0..50 {
        let error = client.get("k").expect_err("it is refused");
        let Error::Node {
            failure: Failure::SignIn,
            reason: Some(reason @ SignInError::Login { .. }),
            ..
        } = &error
        else {
            panic!("{error:?}");
        };
        let source = std::error::Error::source(&error).expect("a reason");
        assert_eq!(source.to_string(), reason.to_string());
        for text in [error.to_string(), reason.to_string()] {
            assert!(
                text.contains("\"me\": CLIENT_ERROR authentication failure"),
                "{text}"
            );
            assert!(!text.contains("secret"), "{text}");
        }
    }
    let accepted = node.accepted.load(Ordering::Relaxed);
    assert!(accepted <= 10, "{accepted} logins for 50 calls");
}
