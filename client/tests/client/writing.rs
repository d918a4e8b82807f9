//! Writing through, writing behind and warming, against stock memcached and ketch, with a store that can be told to fail or to wait.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::as_node::AsNode;
use ketch_client::write::{
    AsyncWriteBehind, AsyncWriteThrough, AsyncWriter, Change, WriteBehind, WriteBehindOptions,
    WriteError, WriteThrough, Writer,
};
use ketch_client::{AsyncClient, Client, ClientOptions, Error, Item, WarmOptions, Warmed};
use ketch_testing::{KINDS, Kind, PATIENCE, Server, wait_until};

const MS: Duration = Duration::from_millis(1);

fn patient() -> ClientOptions {
    ClientOptions::default()
        .request_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .connect_timeout(PATIENCE)
}

/// A table in memory.
#[derive(Clone, Default)]
struct Store(Arc<Table>);

#[derive(Default)]
struct Table {
    rows: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    calls: Mutex<Vec<usize>>,
    /// Calls that fail yet; they panic if `panics`.
    failures: Mutex<u32>,
    panics: bool,
    /// Calls wait while this is set.
    held: Mutex<bool>,
    let_go: Condvar,
}

impl Store {
    fn row(&self, key: &str) -> Option<String> {
        let rows = self.0.rows.lock().unwrap();
        let row = rows.get(key.as_bytes());
        row.map(|row| String::from_utf8(row.clone()).unwrap())
    }

    fn calls(&self) -> Vec<usize> {
        self.0.calls.lock().unwrap().clone()
    }

    fn fail(&self, times: u32) {
        *self.0.failures.lock().unwrap() = times;
    }

    fn hold(&self, held: bool) {
        *self.0.held.lock().unwrap() = held;
        self.0.let_go.notify_all();
    }
}

impl Writer for Store {
    type Error = String;

    fn write(&self, changes: &[Change]) -> Result<(), String> {
        let table = &self.0;
        table.calls.lock().unwrap().push(changes.len());
        drop(
            table
                .let_go
                .wait_while(table.held.lock().unwrap(), |held| *held),
        );
        {
            let mut failures = table.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                drop(failures);
                assert!(!table.panics, "the store panics");
                return Err("the store is down".to_owned());
            }
        }
        let mut rows = table.rows.lock().unwrap();
        for Change { key, item } in changes {
            match item {
                Some(item) => rows.insert(key.to_vec(), item.value.to_vec()),
                None => rows.remove(&key[..]),
            };
        }
        Ok(())
    }
}

impl AsyncWriter for Store {
    type Error = String;

    async fn write(&self, changes: &[Change]) -> Result<(), String> {
        while *self.0.held.lock().unwrap() {
            tokio::time::sleep(MS).await;
        }
        Writer::write(self, changes)
    }
}

fn quick() -> WriteBehindOptions {
    WriteBehindOptions::default()
        .delay(20 * MS)
        .retry_pause(MS, 10 * MS)
        .full_timeout(PATIENCE)
        .close_timeout(PATIENCE)
}

/// The value that the cache has, seen by another client.
fn cached(server: &Server, key: &str) -> Option<String> {
    let client = Client::new([server.node()], patient());
    let item = client.get(key).expect("the node is up");
    item.map(|item| String::from_utf8(item.value.to_vec()).unwrap())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn through_the_cache_into_the_store() {
    for kind in KINDS {
        let mut server = kind.start();
        let store = Store::default();
        let users = WriteThrough::new(Client::new([server.node()], patient()), store.clone());
        assert_eq!(users.set("u", "1", None), Ok(()));
        assert_eq!(
            (store.row("u"), cached(&server, "u")),
            (some("1"), some("1"))
        );
        // What the store refuses is not in the cache either.
        store.fail(1);
        let refused = Err(WriteError::Store("the store is down".to_owned()));
        assert_eq!(users.set("u", "2", None), refused);
        assert_eq!(
            (store.row("u"), cached(&server, "u")),
            (some("1"), some("1"))
        );
        assert_eq!(users.delete("u"), Ok(()));
        assert_eq!((store.row("u"), cached(&server, "u")), (None, None));
        // Many threads, one key: store and cache end with the same value.
        thread::scope(|scope| {
            for thread in 0..8 {
                let users = users.clone();
                scope.spawn(move || {
                    for i in 0..50 {
                        users
                            .set("hot", format!("{thread}:{i}"), None)
                            .expect("both are up");
                    }
                });
            }
        });
        assert_eq!(store.row("hot"), cached(&server, "hot"));
        server.kill();
        let failed = users.set("u", "3", None);
        assert!(
            matches!(failed, Err(WriteError::Cache(Error::Node { .. }))),
            "{failed:?}"
        );
        assert_eq!(store.row("u"), some("3"), "the store comes first");
    }
}

#[test]
fn behind_the_cache_newest_first_and_in_batches() {
    for kind in KINDS {
        let server = kind.start();
        let store = Store::default();
        store.hold(true);
        let seen = WriteBehind::new(
            Client::new([server.node()], patient()),
            store.clone(),
            quick(),
        );
        seen.set("first", "0", None).expect("room");
        // The store takes its time with the first; meanwhile a thousand changes of ten keys come together.
        wait_until("the first is out", || store.calls() == [1]);
        for i in 0..1000 {
            seen.set(format!("k{}", i % 10), i.to_string(), None)
                .expect("room");
        }
        assert_eq!(cached(&server, "k9"), some("999"));
        assert_eq!((store.row("first"), store.row("k9")), (None, None));
        store.hold(false);
        seen.flush();
        assert_eq!(store.calls(), [1, 10]);
        assert_eq!(
            (store.row("first"), store.row("k9")),
            (some("0"), some("999"))
        );
        seen.delete("k9").expect("room");
        let stats = seen.close();
        assert_eq!((store.row("k9"), cached(&server, "k9")), (None, None));
        assert_eq!(
            (stats.changes, stats.coalesced, stats.written),
            (1002, 990, 12)
        );
        assert_eq!((stats.lost, stats.waiting), (0, 0));
        assert_eq!(seen.set("k", "v", None), Err(WriteError::Closed));
    }
}

/// What waits is read as it will be, though the cache has lost it and the store has the old value.
#[test]
fn what_waits_is_read() {
    let server = Kind::Ketch.start();
    let store = Store::default();
    let seen = WriteBehind::new(
        Client::new([server.node()], patient()),
        store.clone(),
        quick(),
    );
    seen.set("k", "old", None).expect("room");
    seen.flush();
    store.hold(true);
    seen.set("k", "new", None).expect("room");
    seen.set("gone", "v", None).expect("room");
    seen.delete("gone").expect("room");
    Client::new([server.node()], patient())
        .delete("k")
        .expect("up");
    assert_eq!(seen.get("k"), Ok(Some(Item::from("new"))));
    let from_store = || Ok::<_, Infallible>(store.row("k"));
    let loaded = seen.get_or_load("k", 60 * 1000 * MS, from_store);
    assert_eq!(loaded.ok(), Some(Some(Item::from("new"))));
    assert_eq!(cached(&server, "k"), some("new"));
    let loaded = seen.get_or_load("gone", 60 * 1000 * MS, || Ok::<_, Infallible>(Some("v")));
    assert_eq!(loaded.ok(), Some(None), "it is deleted");
    store.hold(false);
    seen.flush();
    assert_eq!(store.row("k"), some("new"));
}

#[test]
fn a_store_that_is_down_gets_it_later() {
    for panics in [false, true] {
        let server = Kind::Ketch.start();
        let store = Store(Arc::new(Table {
            panics,
            ..Table::default()
        }));
        store.fail(4);
        let client = Client::new([server.node()], patient());
        let seen = WriteBehind::new(client, store.clone(), quick());
        for key in ["a", "b", "c"] {
            seen.set(key, "v", None).expect("room");
        }
        // Dropping the last handle waits for the store.
        let stats = {
            let seen = seen;
            seen.flush();
            seen.stats()
        };
        assert_eq!((stats.written, stats.failures, stats.lost), (3, 4, 0));
        assert_eq!(store.row("c"), some("v"));
    }
}

#[test]
fn dropped_it_writes_what_waits() {
    let server = Kind::Ketch.start();
    let store = Store::default();
    let client = Client::new([server.node()], patient());
    let options = quick().delay(PATIENCE * 10);
    let seen = WriteBehind::new(client.clone(), store.clone(), options);
    seen.clone().set("k", "v", None).expect("room");
    drop(seen);
    assert_eq!(store.row("k"), some("v"));
    // A store that does not come back is waited for no longer than was asked, and what is lost is counted.
    store.fail(u32::MAX);
    let seen = WriteBehind::new(
        client,
        store.clone(),
        quick().close_timeout(30 * MS).attempts(1000),
    );
    seen.set("k", "lost", None).expect("room");
    let stats = seen.close();
    assert_eq!((stats.written, stats.lost, stats.waiting), (0, 1, 0));
    assert_eq!(store.row("k"), some("v"));
}

#[test]
fn a_full_queue_waits_and_then_refuses() {
    let server = Kind::Ketch.start();
    let store = Store::default();
    store.hold(true);
    let client = Client::new([server.node()], patient());
    let options = quick().queue_max(2).delay(MS).full_timeout(20 * MS);
    let seen = WriteBehind::new(client.clone(), store.clone(), options);
    seen.set("a", "1", None).expect("room");
    seen.set("b", "1", None).expect("room");
    assert_eq!(seen.set("c", "1", None), Err(WriteError::Full));
    assert_eq!(cached(&server, "c"), None, "nothing was done");
    store.hold(false);
    seen.flush();
    // One that waits goes on as soon as there is room.
    store.hold(true);
    let options = quick().queue_max(1).delay(MS);
    let seen = WriteBehind::new(client, store.clone(), options);
    seen.set("a", "2", None).expect("room");
    thread::scope(|scope| {
        let waits = scope.spawn(|| seen.set("c", "2", None));
        store.hold(false);
        assert_eq!(waits.join().expect("no panic"), Ok(()));
    });
    seen.flush();
    assert_eq!((store.row("a"), store.row("c")), (some("2"), some("2")));
}

#[tokio::test]
async fn the_same_for_tasks() {
    let mut server = Kind::Ketch.start();
    let store = Store::default();
    let client = AsyncClient::new([server.node()], patient());
    let users = AsyncWriteThrough::new(client.clone(), store.clone());
    assert_eq!(users.set("u", "1", None).await, Ok(()));
    store.fail(1);
    let refused = Err(WriteError::Store("the store is down".to_owned()));
    assert_eq!(users.set("u", "2", None).await, refused);
    assert_eq!(
        (store.row("u"), cached(&server, "u")),
        (some("1"), some("1"))
    );
    assert_eq!(users.delete("u").await, Ok(()));
    assert_eq!((store.row("u"), cached(&server, "u")), (None, None));

    store.hold(true);
    let seen = AsyncWriteBehind::new(client.clone(), store.clone(), quick().queue_max(20));
    for i in 0..1000 {
        let key = format!("k{}", i % 10);
        seen.set(&key, i.to_string(), None).await.expect("room");
    }
    client.delete("k9").await.expect("up");
    assert_eq!(seen.get("k9").await, Ok(Some(Item::from("999"))));
    let loaded = seen.get_or_load("k9", 60 * 1000 * MS, async || {
        Ok::<_, Infallible>(Some("old"))
    });
    assert_eq!(loaded.await.ok(), Some(Some(Item::from("999"))));
    store.fail(2);
    store.hold(false);
    seen.flush().await;
    assert_eq!(store.row("k9"), some("999"));
    let stats = seen.stats();
    assert_eq!((stats.changes, stats.lost, stats.waiting), (1000, 0, 0));
    assert_eq!(stats.coalesced + stats.written, 1000);

    // A full queue; then the end.
    store.hold(true);
    let full = quick().queue_max(1).delay(MS).full_timeout(20 * MS);
    let narrow = AsyncWriteBehind::new(client.clone(), store.clone(), full);
    narrow.set("a", "1", None).await.expect("room");
    assert_eq!(narrow.set("b", "1", None).await, Err(WriteError::Full));
    store.hold(false);
    let stats = narrow.close().await;
    assert_eq!((stats.written, stats.lost), (1, 0));
    assert_eq!(narrow.delete("a").await, Err(WriteError::Closed));
    // Dropped, the task goes on.
    seen.set("late", "v", None).await.expect("room");
    drop(seen);
    while store.row("late").is_none() {
        tokio::time::sleep(MS).await;
    }
    server.kill();
    let failed = users.set("u", "3", None).await;
    assert!(matches!(failed, Err(WriteError::Cache(_))), "{failed:?}");
    assert_eq!(store.row("u"), some("3"));
}

#[test]
fn warming_fills_what_is_missing() {
    for kind in KINDS {
        let server = kind.start();
        let client = Client::new([server.node()], patient());
        for i in 0..10 {
            client.set(format!("k{i}"), "there", None).expect("up");
        }
        let mut asked = Vec::new();
        let keys = || (0..250).map(|i| format!("k{i}"));
        let warmed = client.warm(keys(), WarmOptions::default(), |missing| {
            asked.push(missing.len());
            // Somebody else is quicker with one; there is no value for another.
            client
                .set("k77", "quicker", None)
                .map_err(|error| error.to_string())?;
            let value = |key: &bytes::Bytes| (&key[..] != b"k100").then(|| key.to_vec());
            Ok::<_, String>(missing.iter().map(value).collect())
        });
        let all = Warmed {
            present: 11,
            stored: 238,
            absent: 1,
            failed: 0,
        };
        assert_eq!(warmed, Ok(all));
        assert_eq!(asked, [90, 100, 50]);
        for (key, value) in [
            ("k0", some("there")),
            ("k77", some("quicker")),
            ("k249", some("k249")),
        ] {
            assert_eq!(cached(&server, key), value);
        }
        assert_eq!(cached(&server, "k100"), None);
        // An error of the loader ends it; and what is there need not be loaded.
        let loader = |_: &[bytes::Bytes]| Err::<Vec<Option<&str>>, _>("down");
        assert_eq!(
            client
                .warm(["k0"], WarmOptions::default(), loader)
                .map(|w| w.present),
            Ok(1)
        );
        assert_eq!(
            client.warm(["k100"], WarmOptions::default(), loader),
            Err("down")
        );
    }
}

#[tokio::test]
async fn warming_from_a_task_keeps_its_rate() {
    let server = Kind::Ketch.start();
    let client = AsyncClient::new([server.node()], patient());
    let options = WarmOptions::default().batch(10).rate(500.0);
    let begun = std::time::Instant::now();
    let loader = async |missing: &[bytes::Bytes]| {
        Ok::<_, Infallible>(missing.iter().map(|key| Some(key.to_vec())).collect())
    };
    let keys = (0..60).map(|i| format!("k{i}"));
    let warmed = client.warm(keys, options, loader).await.expect("no error");
    assert_eq!((warmed.stored, cached(&server, "k59")), (60, some("k59")));
    assert!(
        begun.elapsed() >= 100 * MS,
        "the last batch is not due before"
    );
}
