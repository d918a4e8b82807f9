//! get_or_load, near cache, types, compression and metrics, against stock memcached and ketch.

use std::collections::HashSet;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::codec::{Codec, Fault, Raw};
use ketch_client::compression::{COMPRESSED_FLAG, Compression};
use ketch_client::load::{LoadError, LoadOptions, NEGATIVE_FLAGS};
use ketch_client::metrics::{Loaded, Recorder};
use ketch_client::near::NearCache;
use ketch_client::{ClientOptions, Error, Item};

use super::{Client, test_name};
use crate::as_node::AsNode;
use crate::patience::patient;
use ketch_testing::{KINDS, PATIENCE, Server, wait_until};

const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn client(servers: &[&Server], options: ClientOptions) -> Client {
    Client::new(servers.iter().map(|server| server.node()), options)
}

fn found(value: &str) -> Result<Option<Item>, LoadError<Infallible>> {
    Ok(Some(Item::from(value.to_owned())))
}

/// A loader that must not be called.
fn never() -> Result<Option<String>, Infallible> {
    panic!("there is a value")
}

fn loads(value: &str) -> Result<Option<String>, Infallible> {
    Ok(Some(value.to_owned()))
}

const PROCESSES: usize = 4;
const THREADS: usize = 250;

/// The other side of `a_thousand_callers_load_once`: a process of 250 callers.
#[test]
fn process_of_callers() {
    let Ok(port) = std::env::var("KETCH_TEST_CALLERS") else {
        return;
    };
    let node = format!("127.0.0.1:{port}").parse().expect("a node");
    let client = Client::new([node], patient());
    // All begin together: the value is there until all are.
    client.incr_or_create("ready", 1, 1, None).expect("up");
    wait_until("all processes are ready", || {
        client.incr("ready", 0).expect("up") == Some(PROCESSES as u64)
            && client.get("hot") != Ok(Some("old".into()))
    });
    let options = LoadOptions::new(MINUTE).lease(PATIENCE).wait(PATIENCE);
    let begun = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begun.fetch_add(1, Ordering::Relaxed);
                let value = client.get_or_load("hot", options.clone(), || {
                    client
                        .incr_or_create("loads", 1, 1, None)
                        .map_err(|error| error.to_string())?;
                    wait_until("all callers of this process have come", || {
                        begun.load(Ordering::Relaxed) == THREADS as u32
                    });
                    Ok::<_, String>(Some("new"))
                });
                assert_eq!(value, Ok(Some("new".into())));
                client.incr_or_create("answers", 1, 1, None).expect("up");
            });
        }
    });
}

#[test]
fn a_thousand_callers_load_once() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        client.set("hot", "old", S).expect("up");
        let program = std::env::current_exe().expect("a test has a path");
        let mut callers: Vec<_> = (0..PROCESSES)
            .map(|_| {
                Command::new(&program)
                    .args(["--exact", &test_name(module_path!(), "process_of_callers")])
                    .env("KETCH_TEST_CALLERS", server.port().to_string())
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("this program starts again")
            })
            .collect();
        for caller in &mut callers {
            assert!(caller.wait().expect("ours").success(), "{kind:?}");
        }
        assert_eq!(client.incr("loads", 0), Ok(Some(1)), "{kind:?}");
        let answers = (PROCESSES * THREADS) as u64;
        assert_eq!(client.incr("answers", 0), Ok(Some(answers)));
    }
}

#[test]
fn loads_what_is_missing_and_keeps_it_plain() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        assert_eq!(
            client.get_or_load("k", MINUTE, || loads("v")),
            found("v"),
            "{kind:?}"
        );
        assert_eq!(client.get_or_load("k", MINUTE, never), found("v"));
        assert_eq!(client.get("k"), Ok(Some("v".into())));
        assert_eq!(server.holds("k").as_deref(), Some("v"));
        let with_flags = || Ok::<_, Infallible>(Some(Item::new("w", 7)));
        let item = client.get_or_load("l", None, with_flags);
        assert_eq!(item, Ok(Some(Item::new("w", 7))));
        assert_eq!(client.get("l"), Ok(Some(Item::new("w", 7))));
        // An empty value is a value.
        assert_eq!(client.get_or_load("e", MINUTE, || loads("")), found(""));
        assert_eq!(client.get_or_load("e", MINUTE, never), found(""));
        assert!(matches!(
            client.get_or_load("", MINUTE, never),
            Err(LoadError::Cache(Error::Key(_)))
        ));
    }
}

#[test]
fn nothing_is_remembered_only_if_asked() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        let calls = AtomicU32::new(0);
        let nothing = || {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok::<Option<String>, Infallible>(None)
        };
        for _ in 0..3 {
            assert_eq!(
                client.get_or_load("k", MINUTE, nothing),
                Ok(None),
                "{kind:?}"
            );
        }
        assert_eq!(
            (calls.load(Ordering::Relaxed), server.holds("k")),
            (3, None)
        );
        let options = LoadOptions::new(MINUTE).negative(MINUTE);
        for _ in 0..3 {
            assert_eq!(client.get_or_load("k", options.clone(), nothing), Ok(None));
        }
        assert_eq!(calls.load(Ordering::Relaxed), 4);
        assert_eq!(client.get("k"), Ok(None));
        assert_eq!(client.get_multi(&["k"]), [Ok(None)]);
        let raw = server.ask("get k\r\n", "END\r\n");
        assert_eq!(raw, format!("VALUE k {NEGATIVE_FLAGS} 0\r\n\r\nEND\r\n"));
    }
}

#[test]
fn a_loader_that_fails_or_panics_gives_its_lease_back() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        let options = || LoadOptions::new(MINUTE).lease(MINUTE).wait(PATIENCE);
        let failed = client.get_or_load("k", options(), || Err::<Option<String>, _>("no"));
        assert_eq!(failed, Err(LoadError::Loader("no")), "{kind:?}");
        let panicked = AssertUnwindSafe(|| client.get_or_load("k", options(), never));
        let panicked = std::panic::catch_unwind(panicked);
        assert!(panicked.is_err());
        // The lease would be longer than the wait.
        assert_eq!(
            client.get_or_load("k", options(), || loads("v")),
            found("v")
        );
    }
}

#[test]
fn callers_that_wait_for_a_failing_loader_fail_with_it() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        let waiting = AtomicU32::new(0);
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                client.get_or_load("k", MINUTE, || {
                    let all = || waiting.load(Ordering::Relaxed) == 8;
                    wait_until("the others come", all);
                    // They are on their way to the flight: nothing tells when they are on it.
                    thread::sleep(S / 5);
                    Err::<Option<String>, _>("broken")
                })
            });
            wait_until("the first has won", || server.holds("k").is_some());
            for _ in 0..8 {
                scope.spawn(|| {
                    waiting.fetch_add(1, Ordering::Relaxed);
                    match client.get_or_load("k", MINUTE, || Err::<Option<String>, _>("late")) {
                        Err(LoadError::Elsewhere(words)) => {
                            assert!(["broken", "late"].contains(&&*words))
                        }
                        // It was too late for the flight.
                        other => assert_eq!(other, Err(LoadError::Loader("late"))),
                    }
                });
            }
            let first = first.join().expect("it does not panic");
            assert_eq!(first, Err(LoadError::Loader("broken")), "{kind:?}");
        });
    }
}

#[test]
fn a_lease_of_a_dead_caller_ends() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        // Somebody wins, and is never heard of again.
        assert!(server.ask("mg k v N4\r\n", "\r\n\r\n").contains(" W"));
        assert_eq!(client.get("k"), Ok(None), "{kind:?}: no value");
        let impatient = LoadOptions::new(MINUTE).wait(S / 20);
        assert_eq!(
            client.get_or_load("k", impatient, never),
            Err(LoadError::Timeout)
        );
        let waited = client.get_or_load("k", MINUTE, || loads("v"));
        assert_eq!(waited, found("v"));

        // And with a value: it is used, and after the lease somebody else refreshes it.
        client.set("stale", "old", 10 * S).expect("up");
        assert!(server.ask("mg stale v R100\r\n", "old\r\n").contains(" W"));
        let options = LoadOptions::new(S).stale(100 * S).lease(S);
        wait_until("the lease is over", || {
            let value = client.get_or_load("stale", options.clone(), || loads("new"));
            value == found("new")
        });
    }
}

/// The other side of `a_process_killed_while_it_loads`: it loads for ever.
#[test]
fn process_that_loads() {
    let Ok(port) = std::env::var("KETCH_TEST_LOADER") else {
        return;
    };
    let node = format!("127.0.0.1:{port}").parse().expect("a node");
    let client = Client::new([node], patient());
    let options = LoadOptions::new(MINUTE).lease(2 * S);
    let loaded = client.get_or_load("k", options, || {
        client.set("loading", "yes", None).expect("up");
        loop {
            thread::park();
        }
        #[expect(unreachable_code, reason = "gives the loader its type")]
        loads("")
    });
    panic!("{loaded:?}");
}

#[test]
fn a_process_killed_while_it_loads() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        let program = std::env::current_exe().expect("a test has a path");
        let mut loader = Command::new(&program)
            .args(["--exact", &test_name(module_path!(), "process_that_loads")])
            .env("KETCH_TEST_LOADER", server.port().to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("this program starts again");
        wait_until("it loads", || {
            client.get("loading") == Ok(Some("yes".into()))
        });
        loader.kill().expect("ours");
        loader.wait().expect("ours");
        let options = LoadOptions::new(MINUTE).wait(PATIENCE);
        let begun = Instant::now();
        assert_eq!(
            client.get_or_load("k", options, || loads("v")),
            found("v"),
            "{kind:?}"
        );
        // The lease, and what the clocks of the node and a busy machine add.
        assert!(begun.elapsed() < 10 * S);
        assert_eq!(server.holds("k").as_deref(), Some("v"));
    }
}

#[test]
fn what_was_written_meanwhile_stays() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        let value = client.get_or_load("k", MINUTE, || {
            client.set("k", "newer", MINUTE).expect("up");
            loads("v")
        });
        assert_eq!(value, found("v"), "{kind:?}: it had begun before");
        assert_eq!(client.get("k"), Ok(Some("newer".into())));
        let value = client.get_or_load("l", MINUTE, || {
            client.delete("l").expect("up");
            loads("v")
        });
        assert_eq!(value, found("v"));
        assert_eq!(
            client.get("l"),
            Ok(None),
            "what was loaded may be older than the delete"
        );
    }
}

#[test]
fn stale_values_are_used_while_one_refreshes() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        // Stored with a second to live, and so stale at once as 100 s of stale time go.
        client.set("k", "old", 50 * S).expect("up");
        let options = LoadOptions::new(MINUTE).stale(100 * S);
        let value = client.get_or_load("k", options.clone(), || {
            for _ in 0..3 {
                let other = client.get_or_load("k", options.clone(), never);
                assert_eq!(other, found("old"), "{kind:?}");
            }
            loads("new")
        });
        assert_eq!(value, found("new"));
        assert_eq!(
            client.get_or_load("k", options.clone(), never),
            found("new")
        );
        let left = server.ask("mg k t\r\n", "\r\n");
        assert!(
            left.starts_with("HD t15") || left.starts_with("HD t160"),
            "{left}"
        );

        // A refresh that fails is no error, and is not tried again at once.
        client.set("k", "old", 50 * S).expect("up");
        let failing = client.get_or_load("k", options.clone(), || Err::<Option<String>, _>("no"));
        assert_eq!(failing, Ok(Some("old".into())));
        assert_eq!(
            client.get_or_load("k", options.clone(), never),
            found("old")
        );

        // What is gone is deleted.
        client.set("k", "old", 50 * S).expect("up");
        let gone = client.get_or_load("k", options.clone(), || {
            Ok::<Option<String>, Infallible>(None)
        });
        assert_eq!(gone, Ok(None));
        assert_eq!(client.get("k"), Ok(None));

        // Behind the caller.
        client.set("k", "old", 50 * S).expect("up");
        let value = client.get_or_load_detached("k", options.clone(), || loads("new"));
        assert_eq!(value, found("old"));
        wait_until("the thread has refreshed", || {
            client.get("k") == Ok(Some("new".into()))
        });
    }
}

#[test]
fn expensive_values_are_loaded_early() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        let options = LoadOptions::new(10 * S).beta(1e12);
        let slow = |value| {
            thread::sleep(S / 20);
            loads(value)
        };
        assert_eq!(
            client.get_or_load("k", options.clone(), || slow("1")),
            found("1")
        );
        // 50 ms that many times over: surely more than 10 s.
        assert_eq!(
            client.get_or_load("k", options.clone(), || slow("2")),
            found("2"),
            "{kind:?}"
        );
        let eager = options.clone().beta(0.0);
        assert_eq!(client.get_or_load("k", eager, never), found("2"));
        // What never ends is never refreshed.
        let endless = LoadOptions::new(None).beta(1e12);
        assert_eq!(
            client.get_or_load("e", endless.clone(), || slow("1")),
            found("1")
        );
        assert_eq!(client.get_or_load("e", endless, never), found("1"));
    }
}

#[test]
fn without_nodes_the_loader_is_asked() {
    for kind in KINDS {
        let mut server = kind.start();
        let recorder = Arc::new(Recorder::default());
        let options = ClientOptions::default()
            .probe_after(S / 10)
            .metrics(recorder.clone());
        let client = client(&[&server], options);
        server.kill();
        for _ in 0..5 {
            assert_eq!(
                client.get_or_load("k", MINUTE, || loads("v")),
                found("v"),
                "{kind:?}"
            );
        }
        let name = format!("127.0.0.1:{}", server.port());
        assert_eq!(recorder.ejections(&name), 0, "the last is asked on");
        assert!(recorder.requests().1 >= 3);
        server.restart();
        wait_until("the node is back", || {
            client.get_or_load("k", MINUTE, || loads("v")) == found("v")
                && server.holds("k").is_some_and(|held| held == "v")
        });
        assert!(
            recorder
                .render()
                .contains(&format!("ketch_client_ejected{{node=\"{name}\"}} 0"))
        );
    }
}

#[test]
fn with_copies_the_first_decides() {
    for kind in KINDS {
        let servers: Vec<Server> = (0..3).map(|_| kind.start()).collect();
        let nodes: Vec<&Server> = servers.iter().collect();
        let client = client(&nodes, patient().copies(2));
        for i in 0..20 {
            let key = format!("k{i}");
            assert_eq!(
                client.get_or_load(&key, MINUTE, || loads("v")),
                found("v"),
                "{kind:?}"
            );
            let holders: Vec<_> = servers
                .iter()
                .filter(|server| server.holds(&key).is_some())
                .collect();
            assert_eq!(holders.len(), 2);
            // Another copy has it still: it is carried over, not loaded.
            for holder in holders {
                client.set(&key, "v", MINUTE).expect("up");
                holder.ask(&format!("md {key}\r\n"), "\r\n");
                assert_eq!(client.get_or_load(&key, MINUTE, never), found("v"));
            }
            // An empty item for a lease is no value, on whichever copy.
            client.delete(&key).expect("up");
            servers
                .iter()
                .for_each(|server| drop(server.ask(&format!("mg {key} v N9\r\n"), "\r\n\r\n")));
            assert_eq!(client.get(&key), Ok(None));
            client.set("empty", "", MINUTE).expect("up");
            let batch = client.get_multi(&["empty", &key, "none"]);
            assert_eq!(batch, [Ok(Some("".into())), Ok(None), Ok(None)]);
        }
    }
}

#[test]
fn near_values() {
    for kind in KINDS {
        let server = kind.start();
        let recorder = Arc::new(Recorder::default());
        let near = patient()
            .near_cache(NearCache::new(MINUTE))
            .metrics(recorder.clone());
        let (client, other) = (client(&[&server], near), client(&[&server], patient()));
        client.set("a", "1", MINUTE).expect("up");
        assert_eq!(client.get("a"), Ok(Some("1".into())), "{kind:?}");
        // Others' writes are not seen, own ones are.
        other.set("a", "2", MINUTE).expect("up");
        assert_eq!(client.get("a"), Ok(Some("1".into())));
        client.set("b", "1", MINUTE).expect("up");
        let both = client.get_multi(&["a", "b", "c"]);
        assert_eq!(both, [Ok(Some("1".into())), Ok(Some("1".into())), Ok(None)]);
        assert_eq!(recorder.near_lookups(), (2, 3));
        assert_eq!(recorder.lookups(), (2, 1));
        assert_eq!(client.get_or_load("a", MINUTE, never), found("1"));
        assert_eq!(client.get_or_load("l", MINUTE, || loads("1")), found("1"));
        assert_eq!(client.get_or_load("l", MINUTE, never), found("1"));
        other.delete("l").expect("up");
        assert_eq!(
            client.get_or_load("l", MINUTE, never),
            found("1"),
            "kept near by the read before"
        );
        type Write = fn(&Client);
        let writes: [(Write, Option<&str>); 5] = [
            (|client| client.set("a", "3", None).expect("up"), Some("3")),
            (
                |client| assert_eq!(client.append("a", "0"), Ok(true)),
                Some("30"),
            ),
            (
                |client| assert_eq!(client.incr("a", 5), Ok(Some(35))),
                Some("35"),
            ),
            (
                |client| assert_eq!(client.delete_multi(&["a"]), [Ok(true)]),
                None,
            ),
            (
                |client| assert_eq!(client.add("a", "4", None), Ok(true)),
                Some("4"),
            ),
        ];
        for (write, value) in writes {
            write(&client);
            for _ in 0..2 {
                assert_eq!(
                    client.get("a"),
                    Ok(value.map(|value| Item::from(value.to_owned())))
                );
            }
        }
        // Not longer than on the node.
        client.set("short", "1", S).expect("up");
        assert!(client.get("short").is_ok());
        wait_until("it expires", || client.get("short") == Ok(None));
        let _ = client.flush_all();
        assert_eq!(client.get("a"), Ok(None));
        // What is filled in is written too.
        client.set("a", "1", MINUTE).expect("up");
        assert_eq!(client.get("a"), Ok(Some("1".into())));
        let filled = client.fill_multi([("a", "2", None)], true);
        assert_eq!(filled, [Ok(true)]);
        assert_eq!(client.get("a"), Ok(Some("2".into())));
    }
}

/// Who has seen a write return sees it, or a later one.
#[test]
fn near_values_are_never_older_than_an_own_write() {
    const WRITES: u32 = 2000;
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient().near_cache(NearCache::new(MINUTE)));
        let written = AtomicU32::new(0);
        client.set("k", "0", None).expect("up");
        thread::scope(|scope| {
            for reader in 0..3 {
                let (client, written) = (&client, &written);
                scope.spawn(move || {
                    while written.load(Ordering::SeqCst) < WRITES {
                        let least = written.load(Ordering::SeqCst);
                        let item = if reader == 0 {
                            client.get_or_load("k", None, never).expect("up")
                        } else {
                            client.get("k").expect("up")
                        };
                        let value =
                            String::from_utf8_lossy(&item.expect("stored").value).parse::<u32>();
                        assert!(value.expect("a number") >= least, "{kind:?}");
                    }
                });
            }
            for write in 1..=WRITES {
                client.set("k", write.to_string(), None).expect("up");
                written.store(write, Ordering::SeqCst);
            }
        });
    }
}

#[test]
fn values_with_types() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        let texts = client.typed(Raw);
        let text = |value: &str| Ok(Some(value.to_owned()));
        assert_eq!(texts.set("a", &"1".to_owned(), None), Ok(()), "{kind:?}");
        assert_eq!(texts.add("a", &"2".to_owned(), None), Ok(false));
        assert_eq!(texts.get::<String>("a"), text("1"));
        assert_eq!(client.get("a"), Ok(Some("1".into())));
        client.set("bytes", b"\xff", None).expect("up");
        assert_eq!(texts.get("bytes"), Ok(Some(vec![0xff])));
        let all = texts.get_multi::<String, _>(&["a", "bytes", "none"]);
        assert_eq!((&all[0], &all[2]), (&text("1"), &Ok(None)));
        assert!(matches!(all[1], Err(Error::Value(_))));
        let loaded = texts.get_or_load("l", MINUTE, || loads("v"));
        assert_eq!(loaded, Ok(Some("v".to_owned())));
        assert_eq!(texts.get_or_load("l", MINUTE, never), loaded);
        let failed = texts.get_or_load("f", MINUTE, || Err::<Option<String>, _>("no"));
        assert_eq!(failed, Err(LoadError::Loader("no")));
        assert!(matches!(
            texts.get_or_load("bytes", MINUTE, never),
            Err(LoadError::Cache(Error::Value(_)))
        ));
        // A codec that fails is not the loader's fault.
        let nothing = client.typed(Nothing);
        assert!(matches!(
            nothing.get_or_load("n", MINUTE, || loads("v")),
            Err(LoadError::Cache(Error::Value(_)))
        ));
        assert_eq!(client.get("n"), Ok(None));
    }
}

/// It knows no value.
#[derive(Clone)]
struct Nothing;

impl Codec<String> for Nothing {
    fn encode(&self, _: &String) -> Result<(Vec<u8>, u32), Fault> {
        Err("no bytes".into())
    }

    fn decode(&self, _: &[u8], _: u32) -> Result<String, Fault> {
        Err("no value".into())
    }
}

#[test]
fn compressed_values() {
    for kind in KINDS {
        let server = kind.start();
        let (plain, small) = (
            client(&[&server], patient()),
            client(&[&server], patient().compression(Compression::default())),
        );
        let text = "all work and no play ".repeat(1000);
        small.set("k", (&text, 7), None).expect("up");
        assert_eq!(
            small.get("k"),
            Ok(Some(Item::new(text.clone(), 7))),
            "{kind:?}"
        );
        let stored = plain.get("k").expect("up").expect("stored");
        assert!(stored.value.len() < text.len() / 10);
        assert_eq!(stored.flags, 7 | COMPRESSED_FLAG);
        let (item, unique) = small.gets("k").expect("up").expect("stored");
        assert_eq!(item.value, text);
        assert!(small.cas("k", "short", unique, None).is_ok());
        assert_eq!(plain.get("k"), Ok(Some("short".into())));
        assert!(small.set_multi([("l", &text)], None)[0].is_ok());
        assert_eq!(small.get_multi(&["l"]), [Ok(Some(text.clone().into()))]);
        let loaded = small.get_or_load("m", MINUTE, || loads(&text));
        assert_eq!(loaded, found(&text));
        assert_eq!(small.get("m"), Ok(Some(text.clone().into())));
        plain
            .set("bomb", (b"\xff\xff\xff\xff\x00", COMPRESSED_FLAG), None)
            .expect("up");
        assert!(matches!(small.get("bomb"), Err(Error::Value(_))));
    }
}

#[test]
fn what_the_recorder_counts() {
    for kind in KINDS {
        let server = kind.start();
        let recorder = Arc::new(Recorder::default());
        let client = client(&[&server], patient().metrics(recorder.clone()));
        client.set("k", "v", None).expect("up");
        assert!(client.get("k").is_ok() && client.get("none").is_ok());
        let keys: HashSet<_> = client
            .get_multi(&["k", "none"])
            .into_iter()
            .map(|found| found.is_ok())
            .collect();
        assert_eq!(keys.len(), 1);
        assert_eq!(recorder.requests(), (4, 0), "{kind:?}");
        assert_eq!(recorder.lookups(), (2, 2));
        assert_eq!(client.get_or_load("l", MINUTE, || loads("v")), found("v"));
        assert_eq!(recorder.loads(Loaded::Missing), 1);
        let name = format!("127.0.0.1:{}", server.port());
        assert!(recorder.latency(&name, 0.5) > Duration::ZERO);
        let text = recorder.render();
        assert!(
            text.contains(&format!("{{node=\"{name}\",op=\"get\",outcome=\"ok\"}} 3")),
            "{text}"
        );
    }
}

#[test]
fn a_mark_that_there_is_nothing_is_no_stale_value() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        let calls = AtomicU32::new(0);
        let nothing = || {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok::<Option<String>, Infallible>(None)
        };
        let options = LoadOptions::new(MINUTE).stale(5 * MINUTE).lease(S);
        for negative in [5 * MINUTE, MINUTE, 2 * S] {
            let options = options.clone().negative(negative);
            calls.store(0, Ordering::Relaxed);
            for _ in 0..100 {
                let found = client.get_or_load("k", options.clone(), nothing);
                assert_eq!(found, Ok(None), "{kind:?}");
            }
            assert_eq!(calls.load(Ordering::Relaxed), 1, "{kind:?} {negative:?}");
            if negative > 2 * S {
                assert_eq!(client.delete("k"), Ok(true));
            }
        }
        // It lives for its own time, without a stale one.
        wait_until("the mark ends", || server.holds("k").is_none());
        assert_eq!(
            client.get_or_load("k", options.clone(), || loads("v")),
            found("v")
        );
        // Who invalidates it has it loaded anew.
        let options = options.negative(MINUTE);
        client.delete("k").expect("up");
        assert_eq!(client.get_or_load("k", options.clone(), nothing), Ok(None));
        server.ask("md k I T60\r\n", "\r\n");
        assert_eq!(
            client.get_or_load("k", options.clone(), || loads("w")),
            found("w")
        );
    }
}

#[test]
fn what_no_node_takes_keeps_nobody_waiting() {
    for kind in KINDS {
        let server = kind.start();
        let recorder = Arc::new(Recorder::default());
        let client = client(&[&server], patient().metrics(recorder.clone()));
        let options = || LoadOptions::new(MINUTE).stale(MINUTE).lease(MINUTE).wait(S);
        let large = "x".repeat(2 << 20);
        for calls in 1..=3 {
            let value = client.get_or_load("k", options(), || loads(&large));
            assert!(value == found(&large), "{kind:?}");
            assert_eq!(server.holds("k"), None, "{kind:?}: the lease is given back");
            assert_eq!(recorder.loads(Loaded::NotStored), calls);
        }
        assert_eq!(recorder.loads(Loaded::Missing), 3);
        // An old value goes with it: it would be refreshed by nobody until its end.
        client.set("k", "old", MINUTE).expect("up");
        let value = client.get_or_load("k", options(), || loads(&large));
        assert!(value == found(&large), "{kind:?}");
        assert_eq!(server.holds("k"), None, "{kind:?}");
        assert_eq!(recorder.loads(Loaded::NotStored), 4);
        let value = client.get_or_load("k", options(), || loads("small"));
        assert_eq!(value, found("small"));
    }
}

#[test]
fn a_loader_that_asks_for_its_own_key_fails_at_once() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&[&server], patient());
        let clone = client.clone();
        let begun = Instant::now();
        let own = client.get_or_load("k", MINUTE, || clone.get_or_load("k", MINUTE, never));
        assert_eq!(own, Err(LoadError::Loader(LoadError::OwnKey)), "{kind:?}");
        // By way of another key, and of a loader behind its caller.
        let circle = client.get_or_load("a", MINUTE, || {
            let b = clone.get_or_load_detached("b", MINUTE, {
                let clone = clone.clone();
                move || clone.get_or_load("a", MINUTE, never)
            });
            b.map_err(|error| error.to_string())
        });
        let words = "the loader asks for the key that it loads".to_owned();
        assert_eq!(circle, Err(LoadError::Loader(words)));
        assert!(begun.elapsed() < 5 * S, "{kind:?}: the wait would be 10 s");
        // The next caller is none of them, and other clients and keys are others.
        let other = Client::new([server.node()], patient());
        let value = client.get_or_load("k", MINUTE, || {
            let near = clone.get_or_load("near", MINUTE, || loads("v"));
            assert_eq!(near, found("v"));
            let timely = LoadOptions::new(MINUTE).wait(S / 20);
            let waits = other.get_or_load("k", timely, never);
            assert_eq!(waits, Err(LoadError::Timeout));
            loads("v")
        });
        assert_eq!(value, found("v"));
    }
}
