//! Every method, one copy of each key, against stock memcached and ketch.

use std::thread;
use std::time::Duration;

use ketch_client::topology::{ClusterEndpoint, Source, SourceError};
use ketch_client::{Cas, Error, Item, KeyFault, Node};

use super::Client;
use crate::as_node::AsNode;
use crate::patience::patient;
use ketch_testing::{KINDS, Kind, Server, wait_until};

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

/// Servers of each kind, and a client of them.
fn setups(count: usize, options: &[&str]) -> impl Iterator<Item = (Kind, Vec<Server>, Client)> {
    KINDS.into_iter().map(move |kind| {
        let servers: Vec<Server> = (0..count).map(|_| kind.start_with(options)).collect();
        let client = Client::new(servers.iter().map(Server::node), patient());
        (kind, servers, client)
    })
}

fn text(item: Option<Item>) -> Option<String> {
    item.map(|item| String::from_utf8(item.value.to_vec()).expect("text"))
}

#[test]
fn values_and_misses() {
    for (kind, _servers, client) in setups(1, &[]) {
        assert_eq!(client.get("k"), Ok(None), "{kind:?}");
        assert_eq!(client.set("k", "v", None), Ok(()));
        let item = client.get("k").expect("up").expect("stored");
        assert_eq!((&item.value[..], item.flags), (&b"v"[..], 0));
        assert_eq!(client.set("k", (b"\r\n\0", 77), MINUTE), Ok(()));
        let item = client.get("k").expect("up").expect("stored");
        assert_eq!((&item.value[..], item.flags), (&b"\r\n\0"[..], 77));
        assert_eq!(client.delete("k"), Ok(true));
        assert_eq!(client.delete("k"), Ok(false));
        assert_eq!(client.set("k", "", None), Ok(()));
        assert_eq!(text(client.get("k").expect("up")), Some(String::new()));
    }
}

#[test]
fn stores_that_depend_on_what_is_there() {
    for (kind, _servers, client) in setups(1, &[]) {
        assert_eq!(client.replace("k", "v", None), Ok(false), "{kind:?}");
        assert_eq!(client.append("k", "v"), Ok(false));
        assert_eq!(client.prepend("k", "v"), Ok(false));
        assert_eq!(client.add("k", "1", None), Ok(true));
        assert_eq!(client.add("k", "2", None), Ok(false));
        assert_eq!(client.append("k", "2"), Ok(true));
        assert_eq!(client.prepend("k", "0"), Ok(true));
        assert_eq!(client.get("k").map(text), Ok(Some("012".to_owned())));
        assert_eq!(client.replace("k", "3", None), Ok(true));
        assert_eq!(client.get("k").map(text), Ok(Some("3".to_owned())));

        let (item, unique) = client.gets("k").expect("up").expect("stored");
        assert_eq!(&item.value[..], b"3");
        assert_eq!(client.cas("k", "4", unique, None), Ok(Cas::Stored));
        assert_eq!(client.cas("k", "5", unique, None), Ok(Cas::Conflict));
        assert_eq!(client.cas("none", "5", unique, None), Ok(Cas::Missing));
        assert_eq!(client.get("k").map(text), Ok(Some("4".to_owned())));
    }
}

#[test]
fn counters() {
    for (kind, _servers, client) in setups(1, &[]) {
        assert_eq!(client.incr("n", 1), Ok(None), "{kind:?}");
        assert_eq!(client.decr("n", 1), Ok(None));
        assert_eq!(client.incr_or_create("n", 5, 100, MINUTE), Ok(100));
        assert_eq!(client.incr_or_create("n", 5, 100, MINUTE), Ok(105));
        assert_eq!(client.decr("n", 99), Ok(Some(6)));
        assert_eq!(client.incr("n", 1), Ok(Some(7)));
        assert_eq!(client.decr("n", 8), Ok(Some(0)));
        assert_eq!(client.decr_or_create("m", 1, 0, None), Ok(0));
        assert_eq!(client.incr("n", u64::MAX), Ok(Some(u64::MAX)));
        assert_eq!(client.incr("n", 2), Ok(Some(1)));
        assert_eq!(client.set("text", "x", None), Ok(()));
        assert_eq!(client.incr("text", 1), Err(Error::NotANumber));
        assert_eq!(client.get("text").map(text), Ok(Some("x".to_owned())));
    }
}

#[test]
fn times_to_live() {
    for (kind, servers, client) in setups(1, &[]) {
        let left = |key: &str| {
            let answer = servers[0].ask(&format!("mg {key} t\r\n"), "\r\n");
            answer
                .trim_end()
                .strip_prefix("HD t")
                .map(|left| left.parse::<i64>().expect("a number"))
        };
        client.set("never", "v", None).expect("up");
        client.set("zero", "v", Duration::ZERO).expect("up");
        client.set("minute", "v", MINUTE).expect("up");
        client
            .set("year", "v", Duration::from_secs(365 * 86_400))
            .expect("up");
        assert_eq!(
            (left("never"), left("zero")),
            (Some(-1), Some(-1)),
            "{kind:?}"
        );
        assert!((55..=60).contains(&left("minute").expect("stored")));
        assert!((31_535_990..=31_536_001).contains(&left("year").expect("stored")));
        assert_eq!(client.touch("never", MINUTE), Ok(true));
        assert_eq!(client.touch("none", MINUTE), Ok(false));
        assert!((55..=60).contains(&left("never").expect("stored")));
        assert_eq!(
            client.get_and_touch("never", None).map(text),
            Ok(Some("v".to_owned()))
        );
        assert_eq!(left("never"), Some(-1));
        assert_eq!(client.get_and_touch("none", None), Ok(None));
        client
            .set("short", "v", Duration::from_millis(10))
            .expect("up");
        wait_until("the value expires", || client.get("short") == Ok(None));
    }
}

#[test]
fn keys_of_any_bytes() {
    for (kind, servers, _) in setups(1, &[]) {
        let client = Client::new(
            servers.iter().map(Server::node),
            patient().long_binary_keys(kind == Kind::Ketch),
        );
        let long = [b'k'; 250];
        let binary: Vec<u8> = (0..=185).collect();
        let unicode = "ключ";
        for key in [
            &b"a b"[..],
            &long,
            &binary,
            unicode.as_bytes(),
            &[0],
            b"\x7f",
            b"\r\nflush_all",
        ] {
            assert_eq!(client.set(key, key, None), Ok(()), "{kind:?} {key:?}");
            let item = client.get(key).expect("up").expect("stored");
            assert_eq!(&item.value[..], key);
            let found = client.get_multi(&[key, b"none"]);
            assert_eq!(found, [Ok(Some(item)), Ok(None)]);
            assert_eq!(client.touch(key, MINUTE), Ok(true));
            assert_eq!(client.append(key, "1"), Ok(true));
            assert_eq!(client.delete(key), Ok(true));
            assert_eq!(client.incr_or_create(key, 1, 1, None), Ok(1));
        }
        let fault = |fault| Err(Error::Key(fault));
        assert_eq!(client.set("", "", None), fault(KeyFault::Empty));
        assert_eq!(client.get([b'k'; 251]), Err(Error::Key(KeyFault::TooLong)));
        let long_binary = [1; 250];
        match kind {
            Kind::Ketch => assert_eq!(client.set(long_binary, "v", None), Ok(())),
            Kind::Memcached => assert_eq!(
                client.set(long_binary, "v", None),
                fault(KeyFault::TooLongInBase64)
            ),
        }
        // A bad key spoils its own result only.
        let results = client.set_multi([("", "1"), ("good", "2")], None);
        assert_eq!(results, [fault(KeyFault::Empty), Ok(())]);
        assert_eq!(
            client.delete_multi(&["", "good"]),
            [Err(Error::Key(KeyFault::Empty)), Ok(true)]
        );
    }
}

#[test]
fn batches_over_several_nodes() {
    for (kind, servers, client) in setups(3, &[]) {
        let keys: Vec<String> = (0..1000).map(|i| format!("key:{i}")).collect();
        let entries = keys.iter().map(|key| (key, (key, 7)));
        assert!(
            client
                .set_multi(entries, MINUTE)
                .iter()
                .all(|result| result.is_ok()),
            "{kind:?}"
        );
        let mut asked = keys.clone();
        (0..1000).for_each(|i| asked.insert(i * 2, format!("none:{i}")));
        let found = client.get_multi(&asked);
        assert_eq!(found.len(), 2000);
        for (key, found) in asked.iter().zip(found) {
            let item = found.expect("up");
            assert_eq!(item.is_some(), key.starts_with("key"), "{key}");
            if let Some(item) = item {
                assert_eq!((&item.value[..], item.flags), (key.as_bytes(), 7));
            }
        }
        let held = client.stats("").into_iter().map(|(_, stats)| {
            let stats = stats.expect("up");
            let items = stats
                .iter()
                .find(|(key, _)| key == "curr_items")
                .expect("a count");
            items.1.parse::<usize>().expect("a count")
        });
        assert_eq!(held.sum::<usize>(), 1000);
        let deleted = client.delete_multi(&asked);
        for (key, deleted) in asked.iter().zip(deleted) {
            assert_eq!(deleted, Ok(key.starts_with("key")), "{key}");
        }
        assert!(
            client
                .get_multi(&keys)
                .iter()
                .all(|found| *found == Ok(None))
        );
        assert_eq!(client.get_multi::<&str>(&[]), []);
        drop(servers);
    }
}

/// What a node will not buffer must be read while more is written.
#[test]
fn batches_larger_than_all_buffers() {
    for (kind, _servers, client) in setups(2, &["-m", "256"]) {
        let value = vec![b'x'; 200_000];
        let keys: Vec<String> = (0..300).map(|i| format!("large:{i}")).collect();
        let stored = client.set_multi(keys.iter().map(|key| (key, &value)), None);
        assert!(stored.iter().all(|result| result.is_ok()), "{kind:?}");
        let found = client.get_multi(&keys);
        assert!(
            found
                .iter()
                .all(|item| matches!(item, Ok(Some(item)) if item.value == value))
        );
        // Many small requests whose answers are large.
        let again: Vec<&String> = keys.iter().cycle().take(1500).collect();
        let found = client.get_multi(&again);
        assert!(
            found
                .iter()
                .all(|item| matches!(item, Ok(Some(item)) if item.value == value))
        );
        // And many that are refused.
        let many: Vec<String> = (0..100_000).map(|i| format!("{i}")).collect();
        assert!(
            client
                .delete_multi(&many)
                .iter()
                .all(|result| *result == Ok(false))
        );
    }
}

#[test]
fn values_that_are_too_large_or_too_many() {
    for (kind, _servers, client) in setups(1, &["-M", "-m", "8"]) {
        let large = vec![b'x'; 2 << 20];
        assert_eq!(client.set("k", "old", None), Ok(()), "{kind:?}");
        assert!(matches!(
            client.set("k", &large, None),
            Err(Error::TooLarge { .. })
        ));
        assert_eq!(client.get("k"), Ok(None), "nothing old is left");
        let value = vec![b'x'; 100_000];
        let mut results = (0..200).map(|i| client.set(format!("fill:{i}"), &value, None));
        assert!(results.any(|result| matches!(result, Err(Error::Full { .. }))));
        // In a batch too, and without harm to the others.
        let entries = (0..200).map(|i| (format!("fill:{i}"), &value));
        let results = client.set_multi(entries, None);
        assert!(
            results
                .iter()
                .any(|result| matches!(result, Err(Error::Full { .. })))
        );
        assert!(
            client
                .delete_multi(&(0..200).map(|i| format!("fill:{i}")).collect::<Vec<_>>())
                .iter()
                .all(Result::is_ok)
        );
        assert_eq!(client.set("k", "new", None), Ok(()));
    }
}

#[test]
fn questions_to_every_node() {
    for (kind, servers, client) in setups(2, &[]) {
        assert_eq!(client.set("k", "v", None), Ok(()), "{kind:?}");
        for (server, (name, version)) in servers.iter().zip(client.version()) {
            assert_eq!(*name, *format!("127.0.0.1:{}", server.port()));
            assert!(version.expect("up").starts_with("1.6"));
        }
        for (_, stats) in client.stats("settings") {
            assert!(
                stats
                    .expect("up")
                    .iter()
                    .any(|(key, value)| key == "num_threads" && value == "2")
            );
        }
        assert!(
            client
                .stats("items")
                .into_iter()
                .any(|(_, stats)| !stats.expect("up").is_empty())
        );
        assert!(
            client
                .flush_all()
                .into_iter()
                .all(|(_, flushed)| flushed == Ok(()))
        );
        assert_eq!(client.get("k"), Ok(None));
    }
}

#[test]
fn what_is_there_when_the_delay_is_over_is_flushed() {
    for (kind, _servers, client) in setups(2, &[]) {
        let keys: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
        let stored = client.set_multi(keys.iter().map(|key| (key, key)), None);
        assert!(stored.iter().all(Result::is_ok));
        let flushed = client.flush_all_after(Duration::from_millis(1500));
        assert_eq!(flushed.len(), 2);
        assert!(flushed.into_iter().all(|(_, flushed)| flushed == Ok(())));
        let left = |client: &Client| {
            let found = client.get_multi(&keys);
            found.iter().filter(|found| found != &&Ok(None)).count()
        };
        // Two seconds, as nodes count them: the first may be over at once.
        assert_eq!(left(&client), 20, "{kind:?}");
        wait_until("all is forgotten", || left(&client) == 0);
        // What is stored in that very second is forgotten too.
        wait_until("values stay again", || {
            assert_eq!(client.set("k", "v", None), Ok(()));
            text(client.get("k").expect("up")).as_deref() == Some("v")
        });
    }
}

#[test]
fn values_go_through_unix_sockets() {
    for kind in KINDS {
        let servers: Vec<Server> = (0..2).map(|_| kind.start_unix()).collect();
        let list: Vec<String> = servers
            .iter()
            .map(|server| server.node().to_string())
            .collect();
        let nodes = Node::list(&list.join(",")).expect("nodes");
        let client = Client::new(nodes, patient());
        let keys: Vec<String> = (0..50).map(|i| format!("k{i}")).collect();
        // More than a socket buffer holds.
        let large = "x".repeat(300_000);
        let stored = client.set_multi(keys.iter().map(|key| (key, &large)), None);
        assert!(stored.iter().all(Result::is_ok), "{kind:?}: {stored:?}");
        let found = client.get_multi(&keys).into_iter();
        let found = found.filter(|found| matches!(found, Ok(Some(item)) if item.value == large));
        assert_eq!(found.count(), 50, "{kind:?}");
        for (name, stats) in client.stats("") {
            assert!(name.starts_with("unix:/"), "{name}");
            let stats = stats.expect("up");
            let items = stats.iter().find(|(key, _)| key == "curr_items");
            assert_ne!(items.expect("it counts them").1, "0", "{name}");
        }
        let gone = Client::new([Node::unix("/nonexistent/socket")], patient());
        assert!(matches!(gone.get("k"), Err(Error::Node { .. })));
    }
}

#[test]
fn many_threads_share_few_connections() {
    for (kind, servers, _) in setups(2, &[]) {
        let client = Client::new(
            servers.iter().map(Server::node),
            patient().pool_connections_max(2),
        );
        thread::scope(|scope| {
            for thread in 0..8 {
                let client = client.clone();
                scope.spawn(move || {
                    for i in 0..300 {
                        let key = format!("{thread}:{i}");
                        client.set(&key, &key, None).expect("up");
                        let keys: Vec<String> = (0..=i).map(|i| format!("{thread}:{i}")).collect();
                        for (key, found) in keys.iter().zip(client.get_multi(&keys)) {
                            assert_eq!(found.map(text), Ok(Some(key.clone())));
                        }
                    }
                });
            }
        });
        for (_, stats) in client.stats("") {
            let stats = stats.expect("up");
            let total = stats
                .iter()
                .find(|(key, _)| key == "total_connections")
                .expect("a count");
            assert!(
                total.1.parse::<u32>().expect("a count") < 8,
                "{kind:?}: {}",
                total.1
            );
        }
    }
}

#[test]
fn a_restarted_node_is_not_noticed() {
    for (kind, mut servers, client) in setups(1, &[]) {
        for _ in 0..5 {
            assert_eq!(client.set("k", "v", None), Ok(()), "{kind:?}");
            assert_eq!(client.incr_or_create("n", 1, 1, None), Ok(1));
            servers[0].kill();
            servers[0].restart();
            // What may be repeated, and what may not.
            assert_eq!(client.incr("n", 1), Ok(None));
            assert_eq!(client.get("k"), Ok(None));
            servers[0].kill();
            servers[0].restart();
            assert_eq!(client.get("k"), Ok(None));
        }
    }
}

#[test]
fn a_login_is_shown_on_each_connection() {
    let file = std::env::temp_dir().join(format!("ketch-client-users-{}", std::process::id()));
    std::fs::write(&file, "ann:secret\n").expect("a file");
    let path = file.to_str().expect("a plain name");
    for (kind, servers, stranger) in setups(1, &["-Y", path]) {
        let with = |password: &str| {
            Client::new(
                servers.iter().map(Server::node),
                patient().login("ann", password),
            )
        };
        let client = with("secret");
        assert_eq!(client.set("k", "v", None), Ok(()), "{kind:?}");
        assert_eq!(client.get_multi(&["k", "l"]).len(), 2);
        assert_eq!(client.get("k").map(text), Ok(Some("v".to_owned())));
        assert!(matches!(stranger.get("k"), Err(Error::Refused { .. })));
        let wrong = with("wrong");
        assert!(matches!(
            wrong.get("k"),
            Err(Error::Node { .. } | Error::NoNode)
        ));
    }
    // So it is where the list of the nodes is asked for.
    let config = std::env::temp_dir().join(format!("ketch-client-list-{}", std::process::id()));
    std::fs::write(&config, "3\na.example||11211\n").expect("a file");
    let cluster_config = format!("cluster_config={}", config.to_str().expect("a plain name"));
    let server = Kind::Ketch.start_with(&["-Y", path, "-o", &cluster_config]);
    let mut source = ClusterEndpoint::new([server.node()]);
    assert!(matches!(source.nodes(), Err(SourceError::SignIn)));
    let mut own = source.clone().login("ann", "wrong");
    source.adopt(&patient().login("ann", "secret"));
    assert_eq!(
        source.nodes().expect("a list"),
        [Node::new("a.example", 11211)]
    );
    own.adopt(&patient().login("ann", "secret"));
    assert!(matches!(own.nodes(), Err(SourceError::SignIn)));
    std::fs::remove_file(&file).expect("it is ours");
    std::fs::remove_file(&config).expect("it is ours");
}
