//! The threads of a server: started behind a gate, and ended in order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::admin::Admin;
use crate::cache::{At, Maintainer, STEPS_PER_S};
use crate::net::{
    Bound, Carried, Handle, Left, Listener, ListenerHandle, Tls, Watchers, WatchersHandle, Worker,
};
use crate::proxy::Control;
use crate::snapshot::{Keeper, Log};
use crate::state::{Shared, Watcher};
use crate::sys;

/// How often the clock is read: a second is never more than this late.
const CLOCK_TICK: Duration = Duration::from_millis(50);
/// How often what the workers follow is taken from them.
const WATCH_TICK: Duration = Duration::from_millis(100);

/// Something that threads wait for.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_open: AtomicBool,
    waiting: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn open(&self) {
        let _waiting = self.waiting.lock();
        self.is_open.store(true, Relaxed);
        self.opened.notify_all();
    }

    /// Waits until it is open.
    fn wait(&self) {
        while !self.wait_for(Duration::MAX) {}
    }

    /// Waits until it is open, but no longer than this; true if it is.
    fn wait_for(&self, longest: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        if !self.is_open.load(Relaxed) {
            match Instant::now().checked_add(longest) {
                Some(until) => _ = self.opened.wait_until(&mut waiting, until),
                None => self.opened.wait(&mut waiting),
            }
        }
        self.is_open.load(Relaxed)
    }
}

/// All threads of a server.
#[derive(Debug)]
pub(super) struct Threads {
    /// Opened when the threads are to begin.
    pub(super) gate: Arc<Gate>,
    /// Opened when the helpers are to end, and the clock.
    end_helpers: Arc<Gate>,
    end_clock: Arc<Gate>,
    /// Set when the listener is to end.
    stop: Arc<AtomicBool>,
    listener_handle: ListenerHandle,
    watchers_handle: WatchersHandle,
    watchers: JoinHandle<()>,
    listener: JoinHandle<Bound>,
    handles: Vec<Handle>,
    workers: Vec<JoinHandle<Left>>,
    clock: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    admin: Option<JoinHandle<Admin>>,
    /// What the threads that have ended gave back.
    admin_left: Option<Admin>,
    /// False if a thread has panicked.
    all_well: bool,
}

/// What threads leave that have ended.
pub(super) struct Stopped {
    pub(super) bound: Bound,
    pub(super) admin: Option<Admin>,
    pub(super) conns: Vec<Carried>,
    pub(super) ended: usize,
}

impl Threads {
    /// All threads, behind the gate. They go on with `conns`.
    pub(super) fn start(
        shared: Arc<Shared>,
        mut bound: Bound,
        tls: Option<Arc<Tls>>,
        admin: Option<Admin>,
        (keeper, log): (Option<Arc<Keeper>>, Option<Arc<Log>>),
        conns: Vec<Carried>,
        proxy: Option<Arc<Control>>,
    ) -> io::Result<Self> {
        // A machine that has no more than this has no room for clients either.
        sys::refill();
        let [gate, end_helpers, end_clock] = [(); 3].map(|()| Arc::new(Gate::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let named = |name: String| thread::Builder::new().name(name);
        // Does something again and again, until it is to end.
        let repeat = |name: &str,
                      every: Duration,
                      end: &Arc<Gate>,
                      mut step: Box<dyn FnMut(&Shared) + Send>| {
            let (shared, gate, end) = (shared.clone(), gate.clone(), end.clone());
            named(name.into()).spawn(move || {
                gate.wait();
                loop {
                    step(&shared);
                    if end.wait_for(every) {
                        return;
                    }
                }
            })
        };
        let mut helpers = Vec::new();
        let clock = repeat(
            "clock",
            CLOCK_TICK,
            &end_clock,
            Box::new(|shared| {
                shared.clock.tick();
                if sys::is_short() {
                    shared.unread.wake_all();
                    if sys::refill() {
                        log::warn!(
                            "memory was short: connections that hold some are closed (response_obj_oom, read_buf_oom)"
                        );
                    }
                }
                shared.note_time();
            }),
        )?;
        let mut maintainer = Maintainer::default();
        helpers.push(repeat(
            "maintainer",
            Duration::from_secs(1) / STEPS_PER_S,
            &end_helpers,
            Box::new(move |shared| {
                maintainer.step(&shared.cache, At::new(shared.clock.now()));
            }),
        )?);
        let mut watcher = Watcher::default();
        helpers.push(repeat(
            "watcher",
            WATCH_TICK,
            &end_helpers,
            Box::new(move |shared| watcher.step(shared)),
        )?);
        if let Some(log) = log {
            let (shared, gate, end) = (shared.clone(), gate.clone(), end_helpers.clone());
            helpers.push(named("log".into()).spawn(move || {
                gate.wait();
                log.run(&shared, &|| end.is_open.load(Relaxed));
            })?);
        }
        let admin = admin.map(|mut admin| {
            let (shared, gate, end) = (shared.clone(), gate.clone(), end_helpers.clone());
            named("http".into()).spawn(move || {
                gate.wait();
                if let Err(error) = admin.run(&shared, &end.is_open) {
                    log::error!("http: {error}");
                }
                admin
            })
        });
        if let Some(keeper) = keeper {
            let (shared, gate) = (shared.clone(), gate.clone());
            helpers.push(named("snapshot".into()).spawn(move || {
                gate.wait();
                keeper.run(&shared);
            })?);
        }
        if shared.auth.is_some() {
            let (shared, gate) = (shared.clone(), gate.clone());
            helpers.push(named("verifier".into()).spawn(move || {
                gate.wait();
                shared.auth.as_ref().inspect(|auth| auth.run_verifier());
            })?);
        }
        let listener = Listener::new()?;
        let listener_handle = listener.handle();
        let watchers = Watchers::new()?;
        let watchers_handle = watchers.handle();
        let (watching, gate_of_watchers) = (
            (shared.clone(), listener_handle.clone(), stop.clone()),
            gate.clone(),
        );
        let watchers = named("watchers".into()).spawn(move || {
            gate_of_watchers.wait();
            let (shared, listener, stop) = watching;
            let ended = watchers.run(&shared, &listener, &stop);
            ended.expect("a poll only fails by our own fault");
        })?;
        let (mut handles, mut workers) = (Vec::new(), Vec::new());
        for index in 0..shared.settings.threads {
            let (mut worker, handle) =
                Worker::new(index, listener_handle.clone(), watchers_handle.clone())?;
            worker.take_udp(&mut bound, &shared)?;
            worker.take_proxy(proxy.clone());
            let (shared, gate) = (shared.clone(), gate.clone());
            handles.push(handle);
            workers.push(named(format!("worker {index}")).spawn(move || {
                gate.wait();
                worker
                    .run(&shared)
                    .expect("a poll only fails by our own fault")
            })?);
        }
        for (nth, conn) in conns.into_iter().enumerate() {
            handles[nth % handles.len()].go_on(conn);
        }
        let (to, stop_listener, gate_of_all) = (handles.clone(), stop.clone(), gate.clone());
        let listener = named("listener".into()).spawn(move || {
            gate_of_all.wait();
            bound.claim();
            let ended = listener.run(&shared, bound, tls.as_deref(), &to, &stop_listener);
            ended.expect("a poll only fails by our own fault")
        })?;
        Ok(Threads {
            gate,
            end_helpers,
            end_clock,
            stop,
            listener_handle,
            watchers_handle,
            watchers,
            listener,
            handles,
            workers,
            clock,
            helpers,
            admin: admin.transpose()?,
            admin_left: None,
            all_well: true,
        })
    }

    /// Ends the threads that no client waits for.
    pub(super) fn end_helpers(&mut self) {
        self.end_helpers.open();
        for helper in std::mem::take(&mut self.helpers) {
            helper.thread().unpark();
            self.all_well &= join(helper).is_some();
        }
        if let Some(admin) = self.admin.take() {
            self.admin_left = join(admin);
            self.all_well &= self.admin_left.is_some();
        }
    }

    /// Ends the others, the workers by `end`, so that nobody is served any more. None if a thread has panicked: then nobody knows
    /// in what state it left the rest.
    pub(super) fn end(mut self, end: impl Fn(&Handle)) -> Option<Stopped> {
        self.stop.store(true, Relaxed);
        self.listener_handle.wake();
        // It ends first, so that workers have been told of all that it has accepted.
        let bound = join(self.listener);
        self.handles.iter().for_each(end);
        let mut left: Vec<Left> = Vec::new();
        for worker in std::mem::take(&mut self.workers) {
            match join(worker) {
                Some(worker) => left.push(worker),
                None => self.all_well = false,
            }
        }
        // Its connections are not carried over: who reads has to learn that it is another server.
        self.watchers_handle.wake();
        self.all_well &= join(self.watchers).is_some();
        self.end_clock.open();
        self.all_well &= join(self.clock).is_some();
        let mut bound = bound.filter(|_| self.all_well)?;
        left.iter_mut().for_each(|left| bound.take_back(left));
        Some(Stopped {
            bound,
            admin: self.admin_left,
            ended: left.iter().map(|left| left.ended).sum(),
            conns: left.into_iter().flat_map(|left| left.conns).collect(),
        })
    }
}

/// Waits for a thread; none if it has panicked.
fn join<R>(thread: JoinHandle<R>) -> Option<R> {
    let left = thread.join();
    if left.is_err() {
        log::error!("a thread has panicked");
    }
    left.ok()
}
