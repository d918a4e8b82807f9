//! Servers under mixed load for as long as one likes, while they restart, leave the list and meet bad clients: nothing that
//! they say may be wrong, and what they take must not grow.
//!
//! ```text
//!  main: starts three nodes and a proxy before them, does one thing after the other to them, takes a sample a second, judges, draws
//!    |-- raw workers: text, meta and binary, each with keys of its own at one node     (truth.rs: what a read may give)
//!    |-- the same through the proxy, with two copies
//!    |-- watchers: the feed, whose numbers have no holes, and lines for people
//!    |-- ring workers: a ketch_client with two copies over all nodes
//!    '-- rude clients: come and go, send halves, read nothing
//! ```
//!
//! `scripts/soak` builds and runs it.

mod raw;
mod ring;
mod rude;
mod samples;
mod truth;
mod watchers;
mod wire;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ketch_client::{Ack, Client, ClientOptions, Node};
use ketch_testing::{Server, allow_files};

use self::raw::Tongue;
use self::samples::Sample;

/// What all threads share.
pub struct Run {
    start: Instant,
    over: AtomicBool,
    operations: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    events: AtomicU64,
    broken: AtomicU64,
    ring_errors: AtomicU64,
    last_ring_error: Mutex<String>,
    faults: Mutex<Vec<String>>,
    pause: Duration,
}

impl Run {
    fn new(pause: Duration) -> Run {
        Run {
            start: Instant::now(),
            over: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            events: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            ring_errors: AtomicU64::new(0),
            last_ring_error: Mutex::default(),
            faults: Mutex::default(),
            pause,
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Leaves the machine some room between two steps of a worker.
    fn pause(&self) {
        std::thread::sleep(self.pause);
    }

    fn count(&self, operations: u64) {
        self.operations.fetch_add(operations, Relaxed);
    }

    fn count_connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    fn failed(&self, key: &str, ask: &raw::Ask) {
        if self.failed.fetch_add(1, Relaxed) < 20 {
            println!(
                "{:.1} s: no answer through the proxy: {key}: {ask:?}",
                self.start.elapsed().as_secs_f64()
            );
        }
    }

    fn count_event(&self) {
        self.events.fetch_add(1, Relaxed);
    }

    fn broken(&self) {
        self.broken.fetch_add(1, Relaxed);
    }

    fn ring_error(&self, error: &ketch_client::Error) {
        self.ring_errors.fetch_add(1, Relaxed);
        if let Ok(mut last) = self.last_ring_error.lock() {
            *last = error.to_string();
        }
    }

    fn ring_fault(&self, what: String) {
        self.fault(format!("ring: {what}"));
    }

    fn fault(&self, what: String) {
        let mut faults = self.faults.lock().unwrap_or_else(|e| e.into_inner());
        if faults.len() < 20 {
            eprintln!("{:.1} s: FAULT {what}", self.start.elapsed().as_secs_f64());
        }
        faults.push(what);
    }
}

/// What is done to the nodes, one after the other.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A clean end and a new start of this node.
    Restart(usize),
    /// Another process takes over, with all connections.
    TakeOver(usize),
    /// As a crash, and a new start.
    Kill(usize),
    /// The process stands still for half a second.
    Freeze(usize),
    /// This node leaves the list, and comes back.
    Leave(usize),
    /// Clients that read nothing.
    ReadNothing(usize),
}

/// Between two events: what a client knows of one is over before the next (docs/client.md).
const GAP: Duration = Duration::from_secs(5);
const NAMES: [&str; 4] = ["plain", "memory file", "snapshot and log", "proxy"];
const EVENTS: [Event; 14] = [
    Event::TakeOver(0),
    Event::Restart(1),
    Event::ReadNothing(0),
    Event::Kill(2),
    Event::TakeOver(2),
    Event::Leave(0),
    Event::Freeze(1),
    Event::Kill(1),
    Event::TakeOver(1),
    Event::ReadNothing(2),
    Event::Restart(2),
    Event::Freeze(0),
    Event::Restart(0),
    Event::Leave(2),
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let minutes: f64 = args
        .get(1)
        .map_or(10.0, |text| text.parse().expect("minutes"));
    let out = std::path::PathBuf::from(args.get(2).expect("a directory for the results"));
    std::fs::create_dir_all(&out).expect("the directory for the results");
    allow_files(4096);
    let files = tempdir();
    let path = |name: &str| files.join(name).display().to_string();
    let memory = path("memory");
    let log = format!(
        "snapshot={},snapshot_interval=20,log={},log_sync=second",
        path("snapshot"),
        path("log")
    );
    let common = ["-m", "64", "-t", "2", "-c", "2000"];
    let mut nodes = [
        Server::start(&common),
        Server::start(&[&common[..], &["-e", &memory]].concat()),
        Server::start(&[&common[..], &["-o", &log]].concat()),
    ];
    let ports: Vec<u16> = nodes.iter().map(Server::port).collect();
    let routes = path("routes.toml");
    let listed: Vec<String> = ports
        .iter()
        .map(|port| format!("\"127.0.0.1:{port}\""))
        .collect();
    let pool = format!(
        "[pools.main]\nnodes = [{}]\ncopies = 2\nack = \"all\"\nsettle_ms = 500\nprobe_after_max_ms = 500\n",
        listed.join(", ")
    );
    std::fs::write(&routes, pool).expect("a file of routes");
    let proxy = Server::start(&["-t", "2", "-o", &format!("proxy_config={routes}")]);
    let run = Run::new(Duration::from_millis(2));
    let options = ClientOptions::default()
        .copies(2)
        .ack(Ack::All)
        .settle(Duration::from_millis(500))
        .probe_after_max(Duration::from_millis(500))
        .request_timeout(Duration::from_secs(5));
    let ring = |left_out: Option<usize>| -> Vec<Node> {
        let listed = (0..ports.len()).filter(|at| Some(*at) != left_out);
        listed.map(|at| Node::new("127.0.0.1", ports[at])).collect()
    };
    let client = Client::new(ring(None), options);
    let total = Duration::from_secs_f64(minutes * 60.0);
    let start = run.start;
    let mut all = Vec::new();
    let mut marks: Vec<(f64, String)> = Vec::new();
    // A server that has answered has opened all that it needs for itself.
    let files_at_first = nodes.each_ref().map(|node| {
        node.stat("pid");
        node.open_files()
    });
    std::thread::scope(|scope| {
        let mut number = 0;
        for &port in &ports {
            for tongue in [Tongue::Text, Tongue::Meta, Tongue::Binary] {
                let (run, this) = (&run, number);
                scope.spawn(move || raw::work(run, port, tongue, this));
                number += 1;
            }
        }
        for tongue in [Tongue::Text, Tongue::Meta, Tongue::Binary] {
            let (run, this, port) = (&run, number, proxy.port());
            scope.spawn(move || raw::work(run, port, tongue, this));
            number += 1;
        }
        for &port in &ports {
            let run = &run;
            scope.spawn(move || watchers::follow(run, port));
            scope.spawn(move || watchers::watch(run, port));
        }
        for this in 0..2 {
            let (run, client) = (&run, &client);
            scope.spawn(move || ring::work(run, client, this));
        }
        scope.spawn(|| rude::churn(&run, &ports));

        let mut events = EVENTS.into_iter().cycle();
        let mut next_event = start + GAP;
        let mut before = (start, 0);
        while start.elapsed() < total {
            std::thread::sleep(Duration::from_millis(1000));
            let now = Instant::now();
            let operations = run.operations.load(Relaxed);
            let rate = (operations - before.1) as f64 / (now - before.0).as_secs_f64();
            before = (now, operations);
            for (at, node) in nodes.iter().chain([&proxy]).enumerate() {
                if let Some(sample) = sample(at, node, start, rate) {
                    all.push(sample);
                }
            }
            if now < next_event {
                continue;
            }
            let event = events.next().expect("they cycle");
            marks.push((start.elapsed().as_secs_f64(), format!("{event:?}")));
            match event {
                Event::Restart(at) => {
                    nodes[at].signal(libc::SIGTERM);
                    nodes[at].wait_exit(Duration::from_secs(30));
                    nodes[at].restart();
                }
                Event::TakeOver(at) => {
                    let broken = run.broken.load(Relaxed);
                    nodes[at].take_over(&[]);
                    if run.broken.load(Relaxed) > broken {
                        run.fault(format!("{event:?}: connections ended"));
                    }
                }
                Event::Kill(at) => {
                    nodes[at].kill();
                    nodes[at].restart();
                }
                Event::Freeze(at) => {
                    nodes[at].freeze(true);
                    std::thread::sleep(Duration::from_millis(500));
                    nodes[at].freeze(false);
                }
                Event::Leave(at) => {
                    client.set_nodes(ring(Some(at)), Duration::from_secs(1));
                    std::thread::sleep(Duration::from_millis(1500));
                    // What it was not told of meanwhile must not come back with it (docs/client.md).
                    nodes[at].connect().round("flush_all\r\n", "OK\r\n");
                    client.set_nodes(ring(None), Duration::from_secs(1));
                }
                Event::ReadNothing(at) => {
                    rude::read_nothing(&run, ports[at], 30, Duration::from_secs(2))
                }
            }
            println!(
                "{:.1} s: {event:?}, done after {:.1} s",
                marks[marks.len() - 1].0,
                start.elapsed().as_secs_f64() - marks[marks.len() - 1].0
            );
            next_event = Instant::now() + GAP;
        }
        run.over.store(true, Relaxed);
    });
    client.close();
    // It is a client of the nodes too.
    drop(proxy);
    settle(&run, &nodes, files_at_first);
    judge_growth(&run, &all);
    for port in &ports {
        match samples::adds_up(*port) {
            Ok(wrong) => wrong.into_iter().for_each(|what| run.fault(what)),
            Err(error) => run.fault(format!("port {port}: {error}")),
        }
    }
    std::fs::write(out.join("samples.csv"), samples::table(&all)).expect("samples.csv");
    std::fs::write(out.join("soak.svg"), samples::plot(&all, &NAMES, &marks)).expect("soak.svg");
    let _ = std::fs::remove_dir_all(&files);
    drop(nodes);
    report(&run, start, marks.len(), &all);
}

fn tempdir() -> std::path::PathBuf {
    let place = ["/dev/shm", "/tmp"]
        .into_iter()
        .find(|place| std::path::Path::new(place).is_dir());
    let path = std::path::Path::new(place.expect("a place for files"))
        .join(format!("ketch-soak-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory for the nodes' files");
    path
}

fn sample(at: usize, node: &Server, start: Instant, rate: f64) -> Option<Sample> {
    let stats = samples::stats(node.port(), "").ok()?;
    // The proxy has no items; it tells the nodes' sum.
    let pages = if at < 3 {
        let slabs = samples::stats(node.port(), "slabs").ok()?;
        samples::number(&slabs, "total_malloced")
    } else {
        0
    };
    Some(Sample {
        at_s: start.elapsed().as_secs_f64(),
        node: at,
        resident_mb: node.rss_kb() as f64 / 1024.0,
        pages_mb: pages as f64 / 1048576.0,
        files: node.open_files(),
        connections: samples::number(&stats, "curr_connections"),
        items: samples::number(&stats, "curr_items"),
        rate,
    })
}

/// Waits until the servers have let go of all that clients held.
fn settle(run: &Run, nodes: &[Server; 3], files_at_first: [usize; 3]) {
    for (node, at_first) in nodes.iter().zip(files_at_first) {
        let until = Instant::now() + Duration::from_secs(20);
        // One is this question's own, and a log may have another segment open.
        while node.open_files() > at_first + 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let now = node.open_files();
        if now > at_first + 2 {
            run.fault(format!(
                "port {}: {now} files open without clients, {at_first} at first: {:?}",
                node.port(),
                node.open_files_by_kind()
            ));
        }
    }
}

/// What a server takes beside the pages of its items must not grow on, and these pages not beyond their limit.
fn judge_growth(run: &Run, all: &[Sample]) {
    let end = all.last().map_or(0.0, |sample| sample.at_s);
    for (node, name) in NAMES.iter().enumerate() {
        let most = |from: f64, to: f64, figure: fn(&Sample) -> f64| {
            let within = all
                .iter()
                .filter(|s| s.node == node && s.at_s >= end * from && s.at_s < end * to);
            within.map(figure).fold(0.0, f64::max)
        };
        let beside = |sample: &Sample| sample.resident_mb - sample.pages_mb;
        let (middle, last) = (most(0.3, 0.65, beside), most(0.65, 1.0, beside));
        let resident = most(0.0, 1.0, |sample| sample.resident_mb);
        println!(
            "{name}: {resident:.0} MB at most; beside pages of items {middle:.0} MB at most in the middle of the run, \
             {last:.0} MB towards its end"
        );
        if last > middle * 1.15 + 8.0 {
            run.fault(format!(
                "{name}: memory beside pages grows, from {middle:.0} to {last:.0} MB"
            ));
        }
        if resident > 64.0 * 2.5 {
            run.fault(format!("{name}: {resident:.0} MB for a cache of 64 MB"));
        }
    }
}

fn report(run: &Run, start: Instant, events: usize, all: &[Sample]) {
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    let operations = count(&run.operations);
    println!(
        "{operations} operations in {:.0} s, {events} events, {} connections, {} of them ended by a server; \
         {} stores refused; {} events followed; {} answers missing through the proxy; ring: {} errors{}; {} samples",
        start.elapsed().as_secs_f64(),
        count(&run.connections),
        count(&run.broken),
        count(&run.refused),
        count(&run.events),
        count(&run.failed),
        count(&run.ring_errors),
        run.last_ring_error
            .lock()
            .map_or_else(|_| String::new(), |last| format!(" (the last: {last})")),
        all.len(),
    );
    let faults = run.faults.lock().unwrap_or_else(|e| e.into_inner());
    if operations == 0 {
        println!("nothing was asked");
        std::process::exit(1);
    }
    if !faults.is_empty() {
        println!("FAIL: {} faults, the first: {}", faults.len(), faults[0]);
        std::process::exit(1);
    }
    println!("all that was read was right, and nothing grew");
}
