//! Runs a workload: threads, each with one epoll loop and its share of the connections.
//!
//! ```text
//!             batch of `depth` commands, one write
//!   idle ---------------------------------------------> in flight
//!    ^   closed loop: at once; open loop: when due         |
//!    `-----------------------------------------------------'  replies read, checked, all complete
//! ```
//!
//! In a closed loop a connection sends its next batch as soon as the last one is answered, and a
//! command's latency counts from the write of its batch. In an open loop batches fall due at a fixed
//! rate whether or not the server keeps up; a batch that finds no idle connection waits, and its
//! latency counts from when it was due, so that a stall shows in every command it delayed.
//!
//! Nothing is allocated for a request: bytes are built in one buffer a thread, expectations in lists
//! that the connection keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::check::{Checker, Tally};
use crate::conn::{Conn, PATIENCE, Target};
use crate::dataset::Dataset;
use crate::latency::Latency;
use crate::process::Process;
use crate::workload::{Picker, Popularity, Workload, batch};

/// Bytes a read may take at once.
const READ_BYTES: usize = 128 * 1024;
/// The poll's clock has milliseconds: what is due sooner is waited for by asking again at once.
const POLL_STEP: Duration = Duration::from_millis(2);
/// How often is looked whether all threads have ended.
const WATCH_STEP: Duration = Duration::from_millis(10);

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// After this time, not counting the warmup.
    Time(Duration),
    /// After this many keys.
    Keys(u64),
}

/// Everything a run needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Connections go round the servers; each server gets all keys.
    pub targets: Vec<Target>,
    /// The commands.
    pub workload: Workload,
    /// Keys and values.
    pub data: Arc<Dataset>,
    /// Ids are in `0..keys`.
    pub keys: u64,
    /// Which key is next.
    pub popularity: Popularity,
    /// Connections of all threads together.
    pub connections: usize,
    /// Commands a connection sends at once.
    pub depth: usize,
    /// Threads, each with its own event loop.
    pub threads: usize,
    /// When to end.
    pub limit: Limit,
    /// At the start, not counted.
    pub warmup: Duration,
    /// Keys per second for an open loop.
    pub rate: Option<f64>,
    /// Whether keys, lengths and contents are checked.
    pub strict: bool,
    /// For random keys.
    pub seed: u64,
    /// The server's process, whose CPU time is read.
    pub server: Option<Process>,
}

/// One second of a run, of all threads together.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Seconds since the start, the warmup included.
    pub at_s: f64,
    /// Keys per second.
    pub keys_per_s: f64,
    /// Hits among the keys that were read, in this second.
    pub hit_ratio: Option<f64>,
    /// The slowest command of this second.
    pub max_us: f64,
    /// Errors so far.
    pub errors: u64,
}

/// What came out of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Seconds that were counted.
    pub seconds: f64,
    /// Counts of these seconds; errors also of the warmup.
    pub tally: Tally,
    /// Latency of each command.
    pub latency: Latency,
    /// One a second.
    pub samples: Vec<Sample>,
    /// CPU time of the server's process during these seconds.
    pub server_cpu_ns: Option<u64>,
    /// Resident memory of the server's process at the end.
    pub server_resident_bytes: Option<u64>,
}

/// What a thread shows while it runs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Gauge {
    keys: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    /// Reset by who reads it.
    max_ns: AtomicU64,
}

/// Runs `plan`; `progress` is called once a second. An error is one that kept it from starting.
pub fn run(plan: &Plan, mut progress: impl FnMut(&Sample)) -> Result<Outcome, String> {
    let threads = plan.threads.min(plan.connections).max(1);
    let mut drivers = Vec::new();
    for index in 0..threads {
        drivers.push(Driver::new(plan, index, threads)?);
    }
    let started = Instant::now();
    let gauges: Vec<Arc<Gauge>> = drivers.iter().map(|driver| driver.gauge.clone()).collect();
    let workers: Vec<_> = drivers
        .into_iter()
        .map(|driver| {
            let plan = plan.clone();
            thread::spawn(move || driver.drive(&plan, started))
        })
        .collect();
    let cpu = || plan.server.and_then(Process::cpu_ns);
    let mut cpu_before = cpu();
    let mut watch = Watch {
        gauges,
        last: [0; 3],
        last_at: started,
        started,
    };
    let mut samples = Vec::new();
    let mut warm = plan.warmup.is_zero();
    while !workers.iter().all(|worker| worker.is_finished()) {
        let mut next = watch.last_at + Duration::from_secs(1);
        let counted_from = started + plan.warmup;
        if !warm {
            next = next.min(counted_from);
        }
        thread::sleep(
            next.saturating_duration_since(Instant::now())
                .min(WATCH_STEP),
        );
        let now = Instant::now();
        if !warm && now >= counted_from {
            warm = true;
            cpu_before = cpu();
        }
        if now >= watch.last_at + Duration::from_secs(1) {
            let sample = watch.sample(now);
            progress(&sample);
            samples.push(sample);
        }
    }
    let server_cpu_ns = cpu()
        .zip(cpu_before)
        .map(|(after, before)| after.saturating_sub(before));
    let mut outcome = Outcome {
        seconds: 0.0,
        tally: Tally::default(),
        latency: Latency::default(),
        samples,
        server_cpu_ns,
        server_resident_bytes: plan.server.and_then(Process::resident_bytes),
    };
    for worker in workers {
        let (tally, latency, seconds) = worker.join().map_err(|_| "a thread panicked")?;
        outcome.tally.add(&tally);
        outcome.latency.add(&latency);
        outcome.seconds = outcome.seconds.max(seconds);
    }
    Ok(outcome)
}

/// Reads the gauges.
struct Watch {
    gauges: Vec<Arc<Gauge>>,
    last: [u64; 3],
    last_at: Instant,
    started: Instant,
}

impl Watch {
    fn sample(&mut self, now: Instant) -> Sample {
        let sum = |f: fn(&Gauge) -> &AtomicU64| -> u64 {
            self.gauges.iter().map(|gauge| f(gauge).load(Relaxed)).sum()
        };
        let all = [sum(|g| &g.keys), sum(|g| &g.hits), sum(|g| &g.misses)];
        let [keys, hits, misses] = [0, 1, 2].map(|i| all[i].saturating_sub(self.last[i]) as f64);
        let max_ns = self
            .gauges
            .iter()
            .map(|g| g.max_ns.swap(0, Relaxed))
            .max()
            .unwrap_or(0);
        let sample = Sample {
            at_s: (now - self.started).as_secs_f64(),
            keys_per_s: keys / (now - self.last_at).as_secs_f64(),
            hit_ratio: (hits + misses > 0.0).then(|| hits / (hits + misses)),
            max_us: max_ns as f64 / 1000.0,
            errors: sum(|g| &g.errors),
        };
        (self.last, self.last_at) = (all, now);
        sample
    }
}

/// One thread.
struct Driver {
    poll: Poll,
    /// By token; a connection that broke is gone.
    conns: Vec<Option<Conn>>,
    gauge: Arc<Gauge>,
    picker: Picker,
    /// Keys that may still be asked for.
    left: u64,
    idle: Vec<usize>,
    in_flight: usize,
    tally: Tally,
    /// What was counted during the warmup.
    warmup: Tally,
    latency: Latency,
    out: Vec<u8>,
    /// Between two batches of an open loop.
    interval: Option<Duration>,
}

impl Driver {
    fn new(plan: &Plan, index: usize, threads: usize) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let mut conns = Vec::new();
        for i in (index..plan.connections).step_by(threads) {
            let target = &plan.targets[i % plan.targets.len()];
            let checker = Checker::new(plan.workload.dialect, plan.strict);
            let mut conn = Conn::connect(target, checker).map_err(|e| format!("{target}: {e}"))?;
            let both = Interest::READABLE | Interest::WRITABLE;
            let registered = poll
                .registry()
                .register(conn.source(), Token(conns.len()), both);
            registered.map_err(|error| format!("epoll: {error}"))?;
            conns.push(Some(conn));
        }
        let [index, count] = [index as u64, threads as u64];
        let picker = Picker::new(&plan.popularity, plan.keys, plan.seed, index, count);
        let left = match plan.limit {
            Limit::Time(_) => u64::MAX,
            // A walk over all keys is cut where the threads' parts meet, not into equal counts.
            Limit::Keys(n) if n == plan.keys && picker.share().is_some() => {
                picker.share().unwrap_or_default()
            }
            Limit::Keys(n) => n / count + u64::from(index < n % count),
        };
        let interval = plan.rate.map(|rate| {
            let keys = plan.depth as f64 * keys_per_command(&plan.workload);
            Duration::from_secs_f64(keys * threads as f64 / rate)
        });
        Ok(Driver {
            poll,
            idle: (0..conns.len()).rev().collect(),
            conns,
            gauge: Arc::default(),
            picker,
            left,
            in_flight: 0,
            tally: Tally::default(),
            warmup: Tally::default(),
            latency: Latency::default(),
            out: Vec::new(),
            interval,
        })
    }

    fn drive(mut self, plan: &Plan, started: Instant) -> (Tally, Latency, f64) {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; READ_BYTES];
        let mut counted_from = started;
        let mut warm = plan.warmup.is_zero();
        let end = match plan.limit {
            Limit::Time(time) => Some(started + plan.warmup + time),
            Limit::Keys(_) => None,
        };
        let mut due = started;
        let mut heard = started;
        loop {
            let now = Instant::now();
            if !warm && now >= started + plan.warmup {
                warm = true;
                counted_from = now;
                self.start_counting();
            }
            let over = self.left == 0 || end.is_some_and(|end| now >= end);
            if over && self.in_flight == 0 || self.conns.iter().all(Option::is_none) {
                break;
            }
            let mut timeout = Duration::from_millis(100);
            if !over {
                match self.interval {
                    None => {
                        while self.left > 0
                            && let Some(token) = self.idle.pop()
                        {
                            self.begin(plan, token, Instant::now());
                        }
                    }
                    Some(interval) => {
                        while due <= now
                            && self.left > 0
                            && let Some(token) = self.idle.pop()
                        {
                            self.begin(plan, token, due);
                            due += interval;
                        }
                        if !self.idle.is_empty() {
                            timeout = due.saturating_duration_since(now).min(timeout);
                            timeout = timeout.saturating_sub(POLL_STEP);
                        }
                    }
                }
            }
            if let Err(error) = self.poll.poll(&mut events, Some(timeout)) {
                if error.kind() == std::io::ErrorKind::Interrupted {
                    continue;
                }
                self.tally.broke(|| format!("epoll: {error}"));
                break;
            }
            for event in &events {
                self.turn(plan, event.token().0, &mut buffer, end);
            }
            if !events.is_empty() {
                self.publish();
                heard = Instant::now();
            } else if self.in_flight > 0 && heard.elapsed() > PATIENCE {
                let waiting = self.in_flight;
                self.tally.broken += waiting as u64 - 1;
                self.tally
                    .broke(|| format!("{waiting} connections have had no answer for {PATIENCE:?}"));
                break;
            } else if self.in_flight == 0 {
                heard = Instant::now();
            }
        }
        self.publish();
        let seconds = counted_from.elapsed().as_secs_f64();
        (self.tally, self.latency, seconds)
    }

    /// The warmup is over: what was counted so far is not part of the result, but its errors are.
    fn start_counting(&mut self) {
        let errors = self.tally.take_errors();
        self.warmup = std::mem::replace(&mut self.tally, errors);
        self.latency.clear();
    }

    fn begin(&mut self, plan: &Plan, token: usize, begun: Instant) {
        let Some(conn) = &mut self.conns[token] else {
            return;
        };
        self.out.clear();
        let size = (plan.depth, self.left);
        let (picker, checker) = (&mut self.picker, &mut conn.checker);
        self.left -= batch(
            &plan.workload,
            &plan.data,
            picker,
            size,
            checker,
            &mut self.out,
        );
        conn.begun = begun;
        self.in_flight += 1;
        if let Err(error) = conn.send(&self.out) {
            self.lose(token, &error.to_string());
        }
    }

    /// Reads what there is on a connection, and begins its next batch if that is to be at once.
    fn turn(&mut self, plan: &Plan, token: usize, buffer: &mut [u8], end: Option<Instant>) {
        let Some(conn) = &mut self.conns[token] else {
            return;
        };
        if let Err(error) = conn.flush() {
            return self.lose(token, &error.to_string());
        }
        loop {
            let n = match conn.receive(buffer) {
                Ok(Some(n)) => n,
                Ok(None) => return,
                Err(error) => return self.lose(token, &error.to_string()),
            };
            let before = self.tally.commands;
            let waiting = conn.checker.outstanding() > 0;
            if let Err(why) = conn.checker.feed(&buffer[..n], &plan.data, &mut self.tally) {
                return self.lose(token, &why);
            }
            let now = Instant::now();
            let took = now.saturating_duration_since(conn.begun);
            let done = self.tally.commands - before;
            if done > 0 {
                self.latency.record(took, done);
                self.gauge.max_ns.fetch_max(took.as_nanos() as u64, Relaxed);
            }
            if waiting && conn.checker.outstanding() == 0 {
                self.in_flight -= 1;
                if self.interval.is_none() && self.left > 0 && end.is_none_or(|end| now < end) {
                    self.begin(plan, token, now);
                } else {
                    self.idle.push(token);
                }
                // Nothing more is on its way: what was just asked is not answered yet.
                return;
            }
            // Less than there was room for: the socket is empty, and the poll will tell of more.
            if n < buffer.len() {
                return;
            }
        }
    }

    #[cold]
    fn lose(&mut self, token: usize, why: &str) {
        let Some(conn) = self.conns[token].take() else {
            return;
        };
        if conn.checker.outstanding() > 0 {
            self.in_flight -= 1;
        }
        self.idle.retain(|&idle| idle != token);
        self.tally.broke(|| why.to_owned());
    }

    fn publish(&self) {
        self.gauge
            .keys
            .store(self.warmup.keys + self.tally.keys, Relaxed);
        self.gauge
            .hits
            .store(self.warmup.hits + self.tally.hits, Relaxed);
        self.gauge
            .misses
            .store(self.warmup.misses + self.tally.misses, Relaxed);
        self.gauge.errors.store(self.tally.errors(), Relaxed);
    }
}

/// The mean number of keys in a command.
fn keys_per_command(workload: &Workload) -> f64 {
    workload.writes + (1.0 - workload.writes) * workload.multi as f64
}
