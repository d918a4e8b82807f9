//! `get_or_load` of several processes over a simulated cluster, where callers are dropped at every point.
//!
//! ```text
//!  World: the cluster, its clock, timers; tasks of all processes, polled one at a time, by chance
//!  Process: a client; a Front whose futures wait before and after what they do
//! ```
//!
//! A task is polled only when it was woken, and time passes only when none is: who waits for what nobody brings is found.
//! Leases last longer than any test, so that one that is lost is found too.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::{LoadError, LoadOptions, get_or_load, get_or_load_detached};
use crate::Node;
use crate::front::Front;
use crate::shared::Shared;
use crate::snapshot::{NodePool, Snapshot};
use crate::topology::jitter::Jitter;
use client_core::Operation;
use client_core::health::Member;
use client_core::options::ClientOptions;
use client_core::routing::Ring;
use client_core::simulation::node::{Item as Stored, Mode};
use client_core::simulation::{EPOCH_S, Simulation};
use client_core::value::Item;

const MS: u64 = 1000;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// All that is outside of the processes.
struct World {
    state: Mutex<State>,
    chance: Mutex<Jitter>,
    /// Operations of all processes.
    asked: AtomicU32,
}

struct State {
    cluster: Simulation,
    timers: BTreeMap<(u64, u64), Waker>,
    timers_set: u64,
    /// Work that tasks have left behind.
    behind: Vec<Work>,
}

struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    work: Work,
    alarm: Arc<Alarm>,
    /// Dropped instead of polled for the so-manieth time.
    polls: u32,
}

impl Task {
    fn new(work: impl Future<Output = ()> + Send + 'static, polls: u32) -> Self {
        Task {
            work: Box::pin(work),
            alarm: Arc::new(Alarm(AtomicBool::new(true))),
            polls,
        }
    }
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(World {
            state: Mutex::new(State {
                cluster: Simulation::new(seed, 1, options()),
                timers: BTreeMap::new(),
                timers_set: 0,
                behind: Vec::new(),
            }),
            chance: Mutex::new(Jitter::seeded(seed)),
            asked: AtomicU32::new(0),
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().expect("no test panics with it"))
    }

    fn chance(&self, below: u64) -> u64 {
        self.chance.lock().expect("nobody panics with it").next() % below
    }

    fn now_us(&self) -> u64 {
        self.with(|state| state.cluster.now_us)
    }

    fn stored(&self, key: &str) -> Option<String> {
        self.with(|state| {
            let item = state.cluster.nodes[0].items.get(key.as_bytes())?;
            Some(String::from_utf8(item.value.clone()).expect("text"))
        })
    }

    async fn until_us(&self, at: u64) {
        poll_fn(|cx| {
            self.with(|state| {
                if state.cluster.now_us >= at {
                    return Poll::Ready(());
                }
                state.timers_set += 1;
                let timer = (at, state.timers_set);
                state.timers.insert(timer, cx.waker().clone());
                Poll::Pending
            })
        })
        .await
    }

    async fn sleep_us(&self, us: u64) {
        self.until_us(self.now_us() + us).await;
    }

    /// Runs all tasks, and what they leave behind, to their ends.
    fn run(&self, mut tasks: Vec<Task>) {
        loop {
            let behind = self.with(|state| std::mem::take(&mut state.behind));
            tasks.extend(behind.into_iter().map(|work| Task::new(work, u32::MAX)));
            if tasks.is_empty() {
                return;
            }
            let woken: Vec<usize> = (0..tasks.len())
                .filter(|&at| tasks[at].alarm.0.load(Ordering::Relaxed))
                .collect();
            if woken.is_empty() {
                let timer = self.with(|state| {
                    let ((at, _), waker) = state.timers.pop_first()?;
                    state.cluster.pass(at);
                    Some(waker)
                });
                timer.expect("somebody waits for what nobody brings").wake();
                continue;
            }
            let at = woken[self.chance(woken.len() as u64) as usize];
            let task = &mut tasks[at];
            task.alarm.0.store(false, Ordering::Relaxed);
            let waker = Waker::from(task.alarm.clone());
            let ends = task.polls == 0
                || (task.work.as_mut())
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready();
            task.polls = task.polls.saturating_sub(1);
            if ends {
                drop(tasks.swap_remove(at));
            }
        }
    }
}

/// Lets the others run.
async fn pause() {
    let mut paused = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

struct NoPool(Arc<Member>);

impl NodePool for NoPool {
    fn new(member: Arc<Member>, _options: Arc<ClientOptions>) -> Self {
        NoPool(member)
    }

    fn member(&self) -> &Arc<Member> {
        &self.0
    }

    fn part(&self) {}
}

/// A client of the world.
#[derive(Clone)]
struct Process {
    world: Arc<World>,
    shared: Arc<Shared<NoPool>>,
    /// Loaders that run now, in this process and those that it must not interfere with.
    loading: Arc<AtomicU32>,
}

impl Process {
    fn new(world: &Arc<World>) -> Self {
        Process {
            world: world.clone(),
            shared: Shared::new(&[Node::new("node0", 11211)], options()),
            loading: Arc::default(),
        }
    }

    /// Processes that have one loader at a time among them.
    fn several(world: &Arc<World>, count: usize) -> Vec<Self> {
        let loading: Arc<AtomicU32> = Arc::default();
        let process = || Process {
            loading: loading.clone(),
            ..Process::new(world)
        };
        (0..count).map(|_| process()).collect()
    }
}

impl Front for Process {
    type Pool = NoPool;

    const REFRESHES_MAX: usize = 2;

    fn shared(&self) -> &Shared<NoPool> {
        &self.shared
    }

    fn now(&self) -> Instant {
        self.world
            .with(|state| state.cluster.at(state.cluster.now_us))
    }

    fn tend(_: &NoPool, _: &Arc<Ring>, _: usize, _: Instant) {}

    async fn drive<O: Operation + Send>(&self, operation: &mut O, _: &Snapshot<NoPool>) {
        pause().await;
        self.world.asked.fetch_add(1, Ordering::Relaxed);
        self.world.with(|state| state.cluster.drive(operation));
        pause().await;
    }

    async fn until<T: Send>(
        &self,
        at: Instant,
        event: impl Future<Output = T> + Send,
    ) -> Option<T> {
        let at = self.world.with(|state| state.cluster.us(at));
        let (mut event, mut late) = (pin!(event), pin!(self.world.until_us(at)));
        poll_fn(|cx| match event.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => late.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        Finish {
            world: self.world.clone(),
            work: Some(Box::pin(work)),
            begun: false,
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.world.with(|state| state.behind.push(Box::pin(work)));
    }
}

struct Finish<T: Send + 'static> {
    world: Arc<World>,
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    begun: bool,
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        let work = self.work.as_mut().expect("not polled after its end");
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        if let (Some(work), true) = (self.work.take(), self.begun) {
            let work = Box::pin(async { drop(work.await) });
            self.world.with(|state| state.behind.push(work));
        }
    }
}

fn options() -> ClientOptions {
    ClientOptions::default()
}

/// A lease that is lost is not over before the test is.
fn load_options() -> LoadOptions {
    let hour = Duration::from_secs(3600);
    LoadOptions::new(Duration::from_secs(100))
        .lease(hour)
        .wait(2 * hour)
}

/// Takes 20 ms, and is the only one. Of `luck` loaders, one fails.
async fn loader(process: Process, luck: u64) -> Result<Option<Item>, &'static str> {
    struct Running(Arc<AtomicU32>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let before = process.loading.fetch_add(1, Ordering::Relaxed);
    let running = Running(process.loading.clone());
    assert_eq!(before, 0, "one loader at a time");
    process.world.sleep_us(20 * MS).await;
    drop(running);
    match process.world.chance(luck) {
        0 if luck > 1 => Err("no luck"),
        _ => Ok(Some("new".into())),
    }
}

/// Loads until it has what loaders bring. Others' failures are for others to try again.
async fn insist(process: Process, options: LoadOptions, luck: u64) {
    loop {
        let loader = loader(process.clone(), luck);
        match get_or_load(&process, b"k", options.clone(), loader).await {
            Ok(Some(item)) if item.value == "new" => return,
            Ok(Some(item)) => assert_eq!(item.value, "old"),
            Ok(None) => panic!("loaders bring something"),
            Err(LoadError::Loader("no luck")) => {}
            Err(LoadError::Elsewhere(words)) => assert_eq!(&*words, "no luck"),
            Err(error) => panic!("{error:?}"),
        }
        process.world.sleep_us(5 * MS).await;
    }
}

/// Callers of each process, of whom one is not dropped.
fn callers<W: Future<Output = ()> + Send + 'static>(
    processes: &[Process],
    mut call: impl FnMut(Process, usize) -> W,
) -> Vec<Task> {
    let mut tasks = Vec::new();
    for process in processes {
        for caller in 0..6 {
            let world = process.world.clone();
            let polls = match caller {
                0 => u32::MAX,
                _ => world.chance(24) as u32,
            };
            let (begins, work) = (world.chance(60 * MS), call(process.clone(), caller));
            let work = async move {
                world.sleep_us(begins).await;
                work.await;
            };
            tasks.push(Task::new(work, polls));
        }
    }
    tasks
}

fn check_end(world: &World, processes: &[Process], seed: u64) {
    let took_ms = world.now_us() / MS;
    assert!(took_ms < 10_000, "seed {seed}: {took_ms} ms");
    for process in processes {
        let loads = &process.shared.values.loads;
        assert!(loads.flights.is_empty(), "seed {seed}");
        assert_eq!(loads.refreshes.load(Ordering::Relaxed), 0, "seed {seed}");
    }
}

/// One caller after another is dropped; one of each process stays.
#[test]
fn whoever_is_dropped_the_others_have_their_value() {
    for seed in 0..2000 {
        let world = World::new(seed);
        let processes = Process::several(&world, 3);
        world.run(callers(&processes, |process, _| {
            insist(process, load_options(), 8)
        }));
        assert_eq!(world.stored("k").as_deref(), Some("new"), "seed {seed}");
        check_end(&world, &processes, seed);
    }
}

/// Without a node that answers, each process has one loader at a time.
#[test]
fn whoever_is_dropped_without_a_node() {
    for seed in 0..500 {
        let world = World::new(seed);
        world.with(|state| state.cluster.nodes[0].mode = Mode::Crashed);
        let processes = [Process::new(&world), Process::new(&world)];
        world.run(callers(&processes, |process, _| {
            insist(process, load_options(), 8)
        }));
        check_end(&world, &processes, seed);
    }
}

/// Once a caller of a process loads, the others of that process wait for it, and ask nothing.
#[test]
fn those_that_wait_for_their_own_process_ask_no_node() {
    let world = World::new(1);
    let process = Process::new(&world);
    let tasks = (0..40).map(|_| {
        let process = process.clone();
        let work = async move {
            let load = async {
                process.world.sleep_us(5000 * MS).await;
                Ok::<_, &str>(Some("v".into()))
            };
            let value = get_or_load(&process, b"k", load_options(), load).await;
            assert_eq!(value, Ok(Some("v".into())));
        };
        Task::new(work, u32::MAX)
    });
    world.run(tasks.collect());
    // Each once at most, and what is stored. One that went on asking would do so fifty times.
    let asked = world.asked.load(Ordering::Relaxed);
    assert!(asked <= 41, "{asked}");
}

/// The same with an old value, which one refreshes. (A refresh that failed would not be tried again before the lease is over.)
#[test]
fn whoever_is_dropped_the_old_value_is_refreshed() {
    for seed in 0..1000 {
        let world = World::new(seed);
        let old = Stored {
            value: b"old".to_vec(),
            flags: 0,
            expires_at: EPOCH_S + 50,
            cas: 0,
            won: false,
        };
        world.with(|state| state.cluster.nodes[0].items.insert(b"k".to_vec(), old));
        // What has 50 seconds left is stale since 50 seconds.
        let stale = load_options().stale(Duration::from_secs(100));
        let processes = Process::several(&world, 2);
        world.run(callers(&processes, |process, caller| {
            let options = stale.clone();
            async move {
                if caller % 2 == 0 {
                    return insist(process, options, 1).await;
                }
                let loader = loader(process.clone(), 1);
                let value = get_or_load_detached(&process, b"k", options, loader).await;
                assert!(matches!(value, Ok(Some(_))), "{value:?}");
            }
        }));
        assert_eq!(world.stored("k").as_deref(), Some("new"), "seed {seed}");
        check_end(&world, &processes, seed);
    }
}

/// A caller is dropped at its every poll in turn; one that waits, or comes after, loads at once in its place.
#[test]
fn the_place_of_a_dropped_caller_is_taken_at_once() {
    for waits in [true, false] {
        let mut polls = 0;
        loop {
            let world = World::new(7);
            let process = Process::new(&world);
            let has_ended = Arc::new(AtomicBool::new(false));
            let (first, ended) = (process.clone(), has_ended.clone());
            let first = async move {
                let loader = async { Ok::<_, &str>(Some("first".into())) };
                let load = async {
                    first.world.sleep_us(20 * MS).await;
                    loader.await
                };
                let value = get_or_load(&first, b"k", load_options(), load).await;
                assert_eq!(value, Ok(Some("first".into())));
                ended.store(true, Ordering::Relaxed);
            };
            let second = process.clone();
            let other = async move {
                second.world.sleep_us(10 * MS).await;
                let load = async { Ok::<_, &str>(Some("second".into())) };
                let value = get_or_load(&second, b"k", load_options(), load).await;
                let value = value.expect("loaded").expect("loaded").value;
                assert!(value == "first" || value == "second", "{value:?}");
            };
            if waits {
                world.run(vec![Task::new(first, polls), Task::new(other, u32::MAX)]);
            } else {
                world.run(vec![Task::new(first, polls)]);
                world.run(vec![Task::new(other, u32::MAX)]);
            }
            let took_ms = world.now_us() / MS;
            assert!(took_ms < 200, "{polls} polls: {took_ms} ms");
            assert!(world.stored("k").is_some_and(|value| !value.is_empty()));
            assert!(process.shared.values.loads.flights.is_empty());
            if has_ended.load(Ordering::Relaxed) {
                break;
            }
            polls += 1;
        }
        assert!(polls > 5, "{polls}");
    }
}

#[test]
fn a_loader_that_panics_is_one_that_failed() {
    let world = World::new(1);
    let process = Process::new(&world);
    let (first, second) = (process.clone(), process.clone());
    let panics = async move {
        let load = async {
            first.world.sleep_us(20 * MS).await;
            if first.world.now_us() > 0 {
                panic!("as it does");
            }
            Ok::<Option<Item>, &str>(None)
        };
        drop(get_or_load(&first, b"k", load_options(), load).await);
        unreachable!("the panic goes on");
    };
    let waits = async move {
        second.world.sleep_us(10 * MS).await;
        let load = async { Ok::<Option<Item>, &str>(None) };
        let value = get_or_load(&second, b"k", load_options(), load).await;
        assert_eq!(
            value,
            Err(LoadError::Elsewhere("the loader panicked".into()))
        );
    };
    let tasks = vec![
        Task::new(caught(panics), u32::MAX),
        Task::new(waits, u32::MAX),
    ];
    world.run(tasks);
    assert_eq!(world.stored("k"), None, "the lease is given back");
    assert!(process.shared.values.loads.flights.is_empty());
}

async fn caught(work: impl Future<Output = ()>) {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        polled.unwrap_or(Poll::Ready(()))
    })
    .await;
}
