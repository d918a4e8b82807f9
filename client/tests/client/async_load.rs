//! What only the async client's get_or_load has: tasks by the hundred, and callers that are dropped half way, against stock
//! memcached and ketch. What both clients have is in fronts/load.rs.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::as_node::AsNode;
use ketch_client::load::{LoadError, LoadOptions};
use ketch_client::{AsyncClient, ClientOptions, Item};
use ketch_testing::{KINDS, PATIENCE, Server, wait_until};
use tokio::runtime::Builder;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn client(server: &Server) -> AsyncClient {
    let options = ClientOptions::default()
        .request_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .connect_timeout(PATIENCE);
    AsyncClient::new([server.node()], options)
}

/// A lease that is lost is missed for longer than any test waits.
fn options() -> LoadOptions {
    LoadOptions::new(MINUTE).lease(2 * MINUTE).wait(2 * MINUTE)
}

fn found(value: &'static str) -> Result<Option<Item>, LoadError<Infallible>> {
    Ok(Some(value.into()))
}

async fn never() -> Result<Option<&'static str>, Infallible> {
    panic!("there is a value")
}

/// Gives up `work` instead of polling it for the so-manieth time.
async fn polled<T>(work: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut left = polls;
    let mut work = pin!(work);
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(cx).map(Some)
    })
    .await
}

const PROCESSES: usize = 4;
const TASKS: usize = 250;

/// The other side of `a_thousand_tasks_load_once`: a process of 250 tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_of_tasks() {
    let Ok(port) = std::env::var("KETCH_TEST_TASKS") else {
        return;
    };
    let node = format!("127.0.0.1:{port}").parse().expect("a node");
    let client = AsyncClient::new([node], ClientOptions::default().request_timeout(PATIENCE));
    // All begin together: the value is there until all are.
    client
        .incr_or_create("ready", 1, 1, None)
        .await
        .expect("up");
    while client.incr("ready", 0).await != Ok(Some(PROCESSES as u64))
        || client.get("hot").await == Ok(Some("old".into()))
    {
        yield_now().await;
    }
    let mut tasks = JoinSet::new();
    let begun = Arc::new(AtomicUsize::new(0));
    for _ in 0..TASKS {
        let (client, begun) = (client.clone(), begun.clone());
        tasks.spawn(async move {
            begun.fetch_add(1, Ordering::Relaxed);
            let value = client.get_or_load("hot", options(), async || {
                let counted = client.incr_or_create("loads", 1, 1, None).await;
                // All tasks of this process come before it is done.
                while begun.load(Ordering::Relaxed) < TASKS {
                    yield_now().await;
                }
                counted.map(|_| Some("new"))
            });
            assert_eq!(value.await, Ok(Some("new".into())));
        });
    }
    tasks.join_all().await;
    let answers = TASKS as u64;
    let counted = client.incr_or_create("answers", answers, answers, None);
    counted.await.expect("up");
}

#[tokio::test]
async fn a_thousand_tasks_load_once() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&server);
        client.set("hot", "old", S).await.expect("up");
        let program = std::env::current_exe().expect("a test has a path");
        let processes = (0..PROCESSES).map(|_| {
            let mut program = Command::new(&program);
            program.args(["--exact", "async_load::process_of_tasks"]);
            program.env("KETCH_TEST_TASKS", server.port().to_string());
            let spawned = program.stdout(Stdio::null()).spawn();
            spawned.expect("this program starts again")
        });
        for mut process in processes.collect::<Vec<_>>() {
            assert!(process.wait().expect("ours").success(), "{kind:?}");
        }
        assert_eq!(client.incr("loads", 0).await, Ok(Some(1)), "{kind:?}");
        let answers = (PROCESSES * TASKS) as u64;
        assert_eq!(client.incr("answers", 0).await, Ok(Some(answers)));
    }
}

/// A caller is dropped at its every poll in turn. Whoever waits for it, or comes after it, has a value at once.
#[tokio::test]
async fn the_place_of_a_dropped_caller_is_taken() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&server);
        for waits in [true, false] {
            let mut polls = 0;
            loop {
                let key = format!("{waits}:{polls}");
                let begun = Notify::new();
                let load = async |value| {
                    begun.notify_one();
                    for _ in 0..3 {
                        yield_now().await;
                    }
                    Ok::<_, Infallible>(Some(value))
                };
                let first = client.get_or_load(&key, options(), || load("first"));
                let first = polled(first, polls);
                let second = client.get_or_load(&key, options(), || load("second"));
                let (first, second) = if waits {
                    tokio::join!(first, timeout(PATIENCE, second))
                } else {
                    (first.await, timeout(PATIENCE, second).await)
                };
                let second = second.unwrap_or_else(|_| panic!("{kind:?} {key}: it hangs"));
                assert!(
                    [found("first"), found("second")].contains(&second),
                    "{kind:?} {key}: {second:?}"
                );
                // It is stored too, perhaps in a moment.
                let stored = async {
                    while client.get(&key).await == Ok(None) {
                        yield_now().await;
                    }
                };
                let stored = timeout(PATIENCE, stored).await;
                stored.unwrap_or_else(|_| panic!("{kind:?} {key}: it is not stored"));
                if first.is_some() {
                    break;
                }
                polls += 1;
            }
            assert!(polls > 4, "{kind:?}: {polls}");
        }
    }
}

/// Hundreds that give up after a while, a few that do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loaders_end_with_their_callers_and_run_one_at_a_time() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&server);
        let (running, ended) = (Arc::new(Semaphore::new(1)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..400_u64 {
            let (client, running, ended) = (client.clone(), running.clone(), ended.clone());
            tasks.spawn(async move {
                let load = client.get_or_load("k", options(), async || {
                    let running = running.try_acquire();
                    let _running = running.expect("one loader at a time");
                    // Longer than most have patience.
                    sleep(Duration::from_millis(60)).await;
                    ended.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, Infallible>(Some("v"))
                });
                let patience = match task % 40 {
                    0 => PATIENCE,
                    _ => Duration::from_millis(task % 50),
                };
                match timeout(patience, load).await {
                    Ok(value) => assert_eq!(value, found("v")),
                    Err(_) => assert!(task % 40 != 0, "it hangs"),
                }
            });
        }
        tasks.join_all().await;
        assert_eq!(ended.load(Ordering::Relaxed), 1, "{kind:?}");
        assert_eq!(client.get("k").await, Ok(Some("v".into())));
    }
}

/// Refreshing is left to the next caller, too.
#[tokio::test]
async fn a_dropped_refresh_is_done_by_the_next() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&server);
        let stale = options().stale(100 * S);
        client.set("k", "old", 50 * S).await.expect("up");
        let dropped = client.get_or_load("k", stale.clone(), || {
            pending::<Result<Option<&str>, Infallible>>()
        });
        assert!(timeout(S / 10, dropped).await.is_err());
        let value = client.get_or_load("k", stale.clone(), async || Ok(Some("new")));
        assert_eq!(value.await, found("new"), "{kind:?}");
        assert_eq!(client.get_or_load("k", stale, never).await, found("new"));
    }
}

/// Loads when the gate lets it.
async fn through(gate: Arc<Semaphore>) -> Result<Option<&'static str>, Infallible> {
    let _passed = gate.acquire().await;
    Ok(Some("new"))
}

/// What is loaded behind the callers is bounded: the others do it themselves.
#[tokio::test]
async fn detached_refreshes_are_bounded() {
    const MOST: usize = 64;
    for kind in KINDS {
        let server = kind.start();
        let client = client(&server);
        let stale = options().stale(100 * S);
        let gate = Arc::new(Semaphore::new(0));
        for key in 0..MOST + 1 {
            let key = format!("k{key}");
            client.set(&key, "old", 50 * S).await.expect("up");
        }
        for key in 0..MOST {
            let (key, gate) = (format!("k{key}"), gate.clone());
            let value = client.get_or_load_detached(key, stale.clone(), || through(gate));
            let value = value.await;
            assert_eq!(value, found("old"), "{kind:?}");
        }
        let last = format!("k{MOST}");
        let passes = gate.clone();
        let itself = client.get_or_load_detached(&last, stale.clone(), || through(passes));
        let mut itself = pin!(itself);
        assert!(timeout(S / 10, &mut itself).await.is_err(), "{kind:?}");
        gate.add_permits(1);
        assert_eq!(itself.await, found("new"));
        for key in 0..MOST {
            let key = format!("k{key}");
            let refreshed = async {
                while client.get(&key).await != Ok(Some("new".into())) {
                    yield_now().await;
                }
            };
            assert!(timeout(PATIENCE, refreshed).await.is_ok(), "{kind:?}");
        }
    }
}

/// A panic goes on in the caller's task, and the others go on without it.
#[tokio::test]
async fn a_loader_that_panics_in_a_task() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&server);
        let loads = client.clone();
        let task = tokio::spawn(async move {
            let load = async || {
                yield_now().await;
                panic!("as it does");
                #[expect(unreachable_code, reason = "gives the loader its type")]
                Ok::<Option<Item>, Infallible>(None)
            };
            loads.get_or_load("k", options(), load).await
        });
        assert!(task.await.expect_err("it panics").is_panic(), "{kind:?}");
        let value = client.get_or_load("k", options(), async || Ok(Some("v")));
        assert_eq!(value.await, found("v"));
    }
}

/// A runtime ends in the middle of a load; the client goes on in another.
#[test]
fn a_runtime_that_ends_leaves_its_lease() {
    for kind in KINDS {
        let server = kind.start();
        let client = client(&server);
        let runtime = || {
            let mut builder = Builder::new_multi_thread();
            let builder = builder.worker_threads(1).enable_all();
            builder.build().expect("a runtime")
        };
        let (first, second) = (runtime(), runtime());
        let (loads, loading) = (client.clone(), Arc::new(AtomicBool::new(false)));
        let begun = loading.clone();
        first.spawn(async move {
            let load = async || {
                begun.store(true, Ordering::Relaxed);
                pending::<Result<Option<Item>, Infallible>>().await
            };
            loads.get_or_load("k", options(), load).await
        });
        wait_until("it loads", || loading.load(Ordering::Relaxed));
        first.shutdown_timeout(PATIENCE);
        let value = second.block_on(async {
            let value = client.get_or_load("k", options(), async || Ok(Some("v")));
            timeout(PATIENCE, value).await
        });
        assert_eq!(value.expect("it does not hang"), found("v"), "{kind:?}");
    }
}
