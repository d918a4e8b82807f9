//! Locks, rate limits, streams and the state of nodes: in the failures they are made for, against a node in memory, stock memcached
//! and ketch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::testing::TestNode;
use ketch_client::{ClientOptions, NodeEvent, NodeState, RateLimit, Reads};

use super::Client;
use crate::as_node::AsNode;
use crate::patience::{against_all, patient};
use ketch_testing::{KINDS, PATIENCE, Server, wait_until};

const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_lock_has_one_holder_until_it_is_released() {
    against_all(|node| {
        let client = Client::new([node.clone()], patient());
        let other = Client::new([node], patient());
        let lock = client.lock("l", MINUTE).expect("up").expect("free");
        assert!(other.lock("l", MINUTE).expect("up").is_none());
        assert!(
            client.lock("l", MINUTE).expect("up").is_none(),
            "nor for itself"
        );
        assert_eq!(lock.is_held(), Ok(true));
        assert!(lock.left() > MINUTE - 20 * S && lock.left() <= MINUTE);
        let first = lock.token();
        assert_eq!(lock.release(), Ok(true));
        let lock = other.lock("l", MINUTE).expect("up").expect("free");
        assert!(lock.token() > first);
        // Nobody comes within a moment, and somebody as soon as it is released.
        assert!(
            client
                .lock_within("l", MINUTE, S / 20)
                .expect("up")
                .is_none()
        );
        thread::scope(|scope| {
            let waits = scope.spawn(|| client.lock_within("l", MINUTE, PATIENCE));
            assert_eq!(lock.release(), Ok(true));
            let lock = waits
                .join()
                .expect("no panic")
                .expect("up")
                .expect("released");
            assert!(lock.token() > first + 1);
        });
    });
}

/// A holder is paused beyond its lease: it can neither renew nor release what is another's by then, nor pass its fence.
#[test]
fn a_holder_that_is_paused_is_fenced_off() {
    fn paused(client: &Client, wait: impl Fn()) {
        let mut paused = client.lock("l", S).expect("up").expect("free");
        assert_eq!(paused.fence("fence"), Ok(true));
        wait();
        wait_until("its own clock says so too", || paused.left().is_zero());
        assert_eq!(
            paused.renew(MINUTE),
            Ok(false),
            "nobody has it, but it was lost"
        );
        let mut next = client
            .lock("l", MINUTE)
            .expect("up")
            .expect("its lease is over");
        assert!(next.token() > paused.token());
        assert_eq!(paused.is_held(), Ok(false));
        assert_eq!(paused.renew(MINUTE), Ok(false));
        assert_eq!(next.fence("fence"), Ok(true));
        assert_eq!(paused.fence("fence"), Ok(false));
        assert_eq!(next.fence("fence"), Ok(true), "again");
        assert_eq!(paused.release(), Ok(false));
        assert_eq!(next.is_held(), Ok(true), "it is left alone");
        assert_eq!(next.renew(MINUTE), Ok(true));
        assert_eq!(next.release(), Ok(true));
    }
    let node = TestNode::start();
    let client = Client::new([node.node()], patient());
    paused(&client, || {
        node.pass(5 * S);
    });
    // A counter that was lost goes on above what it was.
    let before = client.lock("l", S).expect("up").expect("free").token();
    node.clear();
    assert!(client.lock("l", S).expect("up").expect("free").token() > before);
    for kind in KINDS {
        let server = kind.start();
        let client = Client::new([server.node()], patient());
        paused(&client, || {
            wait_until("the lease is over", || server.holds("l").is_none());
        });
    }
}

/// Whatever many callers do at once, no two hold the lock, and tokens grow with each holder.
#[test]
fn no_two_hold_a_lock() {
    const CALLERS: u64 = 8;
    const TIMES: u64 = 5;
    against_all(|node| {
        let held = AtomicBool::new(false);
        let last = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    let client = Client::new([node.clone()], patient());
                    for _ in 0..TIMES {
                        let lock = client.lock_within("l", MINUTE, 3 * MINUTE);
                        let lock = lock.expect("up").expect("its turn comes");
                        assert!(!held.swap(true, Ordering::SeqCst), "another holds it");
                        assert!(last.swap(lock.token(), Ordering::SeqCst) < lock.token());
                        held.store(false, Ordering::SeqCst);
                        assert_eq!(lock.release(), Ok(true));
                    }
                });
            }
        });
    });
}

/// Versions come from the copy that decides, whichever copy other reads ask.
#[test]
fn locks_and_changes_with_reads_that_are_spread() {
    for kind in KINDS {
        let servers = [kind.start(), kind.start(), kind.start()];
        for reads in [Reads::Spread, Reads::Hedged(S / 1000)] {
            let options = patient().copies(3).reads(reads);
            let client = Client::new(servers.iter().map(Server::node), options);
            for i in 0..10 {
                let key = format!("{kind:?}{reads:?}{i}").replace(' ', "");
                let lock = client.lock(&key, MINUTE).expect("up").expect("free");
                assert_eq!(lock.fence("fence"), Ok(true));
                assert_eq!(lock.release(), Ok(true), "{kind:?} {reads:?}");
                let lock = client.lock(&key, MINUTE).expect("up").expect("released");
                assert_eq!(lock.release(), Ok(true));
                let mut changes = 0;
                client.set(&key, "old", MINUTE).expect("up");
                let changed = client.update(&key, MINUTE, |_| {
                    changes += 1;
                    Some("new")
                });
                assert_eq!((changed, changes), (Ok(Some("new".into())), 1));
            }
        }
    }
}

/// Many clients at once: never more than the limit, and not a single one less where each is counted once.
#[test]
fn rate_limits_hold_for_many_clients_at_once() {
    const LIMIT: u64 = 100;
    // Three days: none ends in the middle of the test, but by a rare chance.
    let window = Duration::from_secs(1 << 18);
    against_all(|node| {
        for limit in [
            RateLimit::fixed(LIMIT, window),
            RateLimit::sliding(LIMIT, window),
        ] {
            let allowed = AtomicU64::new(0);
            let key = format!("{limit:?}").replace(' ', "");
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let client = Client::new([node.clone()], patient());
                        for _ in 0..25 {
                            let taken = client.rate_limit(&key, limit).expect("up");
                            allowed.fetch_add(u64::from(taken.allowed), Ordering::Relaxed);
                        }
                    });
                }
            });
            let client = Client::new([node.clone()], patient());
            let mut allowed = allowed.into_inner();
            assert!(allowed <= LIMIT, "{allowed} with {limit:?}");
            // Those that were refused have left nothing behind.
            loop {
                let taken = client.rate_limit(&key, limit).expect("up");
                if !taken.allowed {
                    assert!(taken.wait > Duration::ZERO && taken.left == 0);
                    break;
                }
                allowed += 1;
            }
            assert_eq!(allowed, LIMIT, "{limit:?}");
            assert!(client.rate_limit("other", limit).expect("up").allowed);
        }
    });
}

#[test]
fn a_window_that_is_over_counts_no_more() {
    let node = TestNode::start();
    let client = Client::new([node.node()], patient());
    for limit in [RateLimit::fixed(2, S / 5), RateLimit::sliding(2, S / 5)] {
        let begun = Instant::now();
        let mut allowed = 0;
        wait_until("the next windows have come", || {
            let taken = client.rate_limit("k", limit).expect("up");
            assert!(taken.allowed || taken.wait <= 2 * S / 5, "{limit:?}");
            allowed += u32::from(taken.allowed);
            allowed == 6
        });
        // Six in three windows, of which the first may have been at its end.
        assert!(begun.elapsed() > S / 5, "{limit:?}: {:?}", begun.elapsed());
    }
}

#[test]
fn streams_read_batch_by_batch() {
    let node = TestNode::start();
    let client = Client::new([node.node()], patient());
    let keys: Vec<String> = (0..250).map(|i| format!("k{i}")).collect();
    let _ = client.set_multi(keys.iter().step_by(2).map(|key| (key, key)), 60);
    let before = node.commands();
    let mut stream = client.get_stream(&keys).batch(100);
    let (key, found) = stream.next().expect("the first");
    assert_eq!((&key[..], found), ("k0", Ok(Some("k0".into()))));
    let one_batch = node.commands() - before;
    assert!((100..110).contains(&one_batch), "{one_batch}");
    let rest: HashMap<_, _> = stream.map(|(key, found)| (key.clone(), found)).collect();
    assert_eq!(rest.len(), 249);
    assert_eq!(rest["k1"], Ok(None));
    assert_eq!(rest["k248"], Ok(Some("k248".into())));
    assert!(client.get_stream(&[] as &[&str]).next().is_none());
}

#[test]
fn nodes_that_fail_are_told_of() {
    // The last one that lives is never ejected.
    let (node, other) = (TestNode::start(), TestNode::start());
    let (sender, events) = mpsc::channel();
    let sender = Mutex::new(sender);
    let options = ClientOptions::default()
        .probe_after(S / 100)
        .retry_pause(S / 1000)
        .on_node_event(move |event| {
            let sender = sender.lock().expect("nobody panics with it");
            sender.send(event).expect("the test listens");
        });
    let client = Client::new([node.node(), other.node()], options);
    let state = || client.node_states()[0].1;
    let keys: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
    for key in &keys {
        client.set(key, "v", 60).expect("up");
    }
    assert_eq!(state(), NodeState::Live);
    node.cut_off();
    wait_until("the node is ejected", || {
        keys.iter().for_each(|key| drop(client.get(key)));
        state() == NodeState::Ejected
    });
    let name = node.address().to_string();
    assert_eq!(
        events.try_recv(),
        Ok(NodeEvent::Ejected(name.as_str().into()))
    );
    node.come_back();
    wait_until("the node is back", || {
        keys.iter().for_each(|key| drop(client.get(key)));
        state() != NodeState::Ejected
    });
    assert_eq!(state(), NodeState::Settling);
    let told = events.recv_timeout(PATIENCE);
    assert_eq!(told, Ok(NodeEvent::Returned(name.as_str().into())));
}
