//! Replays access traces against the store, or against a server, and counts misses: how eviction policies are judged.
//!
//! ```text
//!  replay TRACE.. [--room 5,20] [--sizes fixed,mixed] [--mb 64] [--policy NAME,..] [--server PROGRAM [--options ..]]
//!         [--old kept,written,renewed] [--ttl LEAST-MOST] [--per-second N] [--slices N] [--svg FILE] [--report] [--table] [--known FILE]
//!  replay --sweep 8,16,64 [--sizes 200,1000,100-8000] [--policy NAME,..] [--server PROGRAM] [--svg FILE] [--report]
//! ```
//!
//! A trace has one object id a line (`.xz` is read through `xzcat`), or is drawn: `zipf:OBJECTS:THETA:REQUESTS`, or
//! `family:NAME` (families.rs; `families` for all of them). Each request is a get, and after a miss a set: so an application
//! uses a cache.
//!
//! `--room` is the memory limit in percent of the bytes of all objects. Sizes come from the id alone: all the same, or
//! log-uniform over a factor of 80; they are scaled so that 5 % of all bytes are `--mb` megabytes, since memory goes to
//! slab classes in whole pages. `--sizes 100-300/1000-4000` takes them as they are, log-uniform from 100 to 300 bytes in
//! the first half of the trace and from 1000 to 4000 in the other, and then `--mb` is the memory limit itself. `--old`
//! says what becomes of values with the sizes of the part before: they stay hits until they are evicted, or one request
//! in ten is a set whether the key is there or not, or the objects of each part have keys of their own.
//!
//! With `--ttl` values live for so many seconds, drawn for each key, each octave as likely; in the store alone. `--per-second` says
//! how many requests make a second of its clock.
//!
//! `--policy` drives the store itself, in this process, or with a name in capitals (LRU, SLRU, SIEVE, S3-FIFO, W-TinyLFU) a model
//! of that policy by bytes, to hold the store against; `--server` starts PROGRAM for each run and speaks to it over a
//! socket. `--sweep` fills caches of so many megabytes with values of each of `--sizes`, and tells which part of the memory
//! limit holds keys and values then. `--table` prints all misses side by side at the end, against the first server's and the best
//! model's; `--known` names a file that keeps what servers and models missed, so that nobody is asked twice. `--svg` draws the hit ratio over the room, or with `--slices` the misses in each of N parts of the trace.

mod families;
mod load;
mod plot;
mod reference;
mod sweep;
mod table;
mod target;

use std::time::Instant;

use ketch::cache::Policy;
use load::{Lens, Sizes, Trace, key};
use plot::Panel;
use reference::Reference;
use table::{Known, Run, Table};
use target::{REQUESTS_PER_S, Server, Store, Target, Ttls};

struct Options {
    traces: Vec<String>,
    rooms: Vec<usize>,
    sizes: Vec<String>,
    mbs: Vec<usize>,
    policies: Vec<String>,
    servers: Vec<String>,
    server_options: Vec<String>,
    old: Vec<String>,
    slices: usize,
    /// How long values live in the store; else for ever.
    ttls: Option<Ttls>,
    requests_per_s: usize,
    svg: Option<String>,
    report: bool,
    table: bool,
    known: Option<String>,
    /// The memory limits of a sweep; none if traces are replayed.
    limits: Vec<usize>,
    sweep_sizes: Vec<String>,
}

fn options() -> Options {
    let mut options = Options {
        traces: Vec::new(),
        rooms: vec![5, 20],
        sizes: vec!["fixed".into(), "mixed".into()],
        mbs: vec![64],
        policies: Vec::new(),
        servers: Vec::new(),
        server_options: Vec::new(),
        old: vec!["kept".into()],
        slices: 1,
        ttls: None,
        requests_per_s: REQUESTS_PER_S,
        svg: None,
        report: false,
        table: false,
        known: None,
        limits: Vec::new(),
        sweep_sizes: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let number = |text: String| text.parse::<usize>().expect("a number");
        match arg.as_str() {
            "--room" => options.rooms = list(value()).into_iter().map(number).collect(),
            "--sizes" => {
                options.sizes = list(value());
                options.sweep_sizes.clone_from(&options.sizes);
            }
            "--sweep" => options.limits = list(value()).into_iter().map(number).collect(),
            "--mb" => options.mbs = list(value()).into_iter().map(number).collect(),
            "--policy" => options.policies = list(value()),
            "--server" => options.servers = list(value()),
            "--options" => options.server_options = value().split(' ').map(str::to_owned).collect(),
            "--old" => options.old = list(value()),
            "--ttl" => {
                let text = value();
                let (least, most) = text.split_once('-').expect("LEAST-MOST");
                let seconds = |text: &str| text.parse().expect("seconds");
                let (least, most) = (seconds(least), seconds(most));
                options.ttls = Some(Ttls { least, most });
            }
            "--per-second" => options.requests_per_s = number(value()),
            "--slices" => options.slices = number(value()),
            "--svg" => options.svg = Some(value()),
            "--report" => options.report = true,
            "--table" => options.table = true,
            "--known" => options.known = Some(value()),
            "families" => {
                let all = families::NAMES.iter().map(|name| format!("family:{name}"));
                options.traces.extend(all);
            }
            _ => options.traces.push(arg),
        }
    }
    if options.policies.is_empty() && options.servers.is_empty() {
        options.policies.push("s3fifo".into());
    }
    options
}

/// Makes a target with so many megabytes.
type Start<'o> = Box<dyn Fn(usize) -> Box<dyn Target> + 'o>;

impl Options {
    /// Each amount of bytes with each kind of sizes and what becomes of old values.
    fn kinds(&self) -> impl Iterator<Item = (&usize, &String, &String)> {
        let with_old = |mb, sizes| self.old.iter().map(move |old| (mb, sizes, old));
        let with_sizes = move |mb| self.sizes.iter().flat_map(move |sizes| with_old(mb, sizes));
        self.mbs.iter().flat_map(with_sizes)
    }

    /// Names of those who are asked, as the plot shows them, and how to get one of such a memory limit.
    fn targets(&self) -> Vec<(String, Start<'_>)> {
        let mut targets: Vec<(String, Start<'_>)> = Vec::new();
        for policy in &self.policies {
            let new = |megabytes| -> Box<dyn Target> {
                match Reference::new(megabytes, policy) {
                    Some(reference) => Box::new(reference),
                    None => Box::new(Store::new(
                        megabytes,
                        policy,
                        self.ttls,
                        self.requests_per_s,
                    )),
                }
            };
            targets.push((policy.clone(), Box::new(new)));
        }
        for program in &self.servers {
            let new = |megabytes| {
                Box::new(Server::start(program, megabytes, &self.server_options)) as Box<dyn Target>
            };
            let name = program.rsplit('/').next().unwrap_or(program);
            targets.push((name.to_owned(), Box::new(new)));
        }
        targets
    }
}

/// Misses in each of so many equal parts of the trace.
fn replay(
    trace: &Trace,
    lens: &Lens,
    old: &str,
    slices: usize,
    target: &mut dyn Target,
) -> Vec<usize> {
    let (write_pct, renewed) = match old {
        "kept" => (0, false),
        "written" => (10, false),
        "renewed" => (0, true),
        _ => panic!("old values are kept, written or renewed, not {old}"),
    };
    let mut misses = vec![0; slices];
    let requests = trace.requests.len();
    let key = |n: usize| key(if renewed { lens.part(n) } else { 0 }, trace.requests[n]);
    let mut n = 0;
    while n < requests {
        // What is asked for at a time is all different, so that a miss is stored before it is asked for again.
        let mut keys: Vec<String> = Vec::new();
        while keys.len() < target.batch() && n + keys.len() < requests {
            let next = key(n + keys.len());
            if keys.contains(&next) {
                break;
            }
            keys.push(next);
        }
        let hits = target.get_many(&keys);
        for (key, hit) in keys.iter().zip(hits) {
            misses[n * slices / requests] += usize::from(!hit);
            // Spread evenly, and prime to whatever period a trace has.
            if !hit || n * 7919 % 100 < write_pct {
                target.set(key, lens.of(trace.requests[n], lens.part(n)));
            }
            n += 1;
        }
    }
    misses
}

fn percent(part: usize, of: usize) -> f64 {
    part as f64 * 100.0 / of as f64
}

fn main() {
    let options = options();
    let mut panels = if options.limits.is_empty() {
        Vec::new()
    } else {
        sweep::sweep(&options)
    };
    let known = Known::read(options.known.clone());
    let mut table = Table::default();
    for source in &options.traces {
        let trace = Trace::read(source);
        let requests = trace.requests.len();
        for (&mb, sizes, old) in options.kinds() {
            let kind = Sizes::parse(sizes);
            let lens = Lens::new(&trace, &kind, mb);
            let rooms: Vec<usize> = match kind {
                Sizes::Ranges(_) => vec![percent(mb << 20, lens.bytes) as usize],
                _ => options.rooms.clone(),
            };
            let over_time = options.slices > 1;
            let mut panel = Panel {
                title: trace.name.clone(),
                ..Panel::default()
            };
            if over_time {
                panel.title += &format!(", old values {old}: misses");
                panel.x_label = "requests, % of the trace".into();
                panel.x_marks = (0..=10).map(|n| f64::from(n * 10)).collect();
            } else {
                panel.title += &format!(", {sizes} sizes: hits");
                panel.x_label = "room, % of the bytes of all objects".into();
                panel.x_marks = rooms.iter().map(|&room| room as f64).collect();
                panel.by_rank = true;
            }
            for (name, start) in options.targets() {
                let mut points = Vec::new();
                for &room in &rooms {
                    let megabytes = match kind {
                        Sizes::Ranges(_) => mb,
                        _ => (lens.bytes as f64 * room as f64 / 100.0 / f64::from(1 << 20)).round()
                            as usize,
                    };
                    let run = Run {
                        trace: trace.name.clone(),
                        sizes: sizes.clone(),
                        room,
                        megabytes,
                        name: name.clone(),
                    };
                    let is_ours = Policy::from_name(&name).is_some();
                    if let Some(misses) = known.get(&run).filter(|_| !is_ours) {
                        table.add(&run, misses as f64 / requests as f64);
                        points.push((room as f64, 100.0 - percent(misses, requests)));
                        continue;
                    }
                    let started = Instant::now();
                    let mut target = start(megabytes);
                    let misses = replay(&trace, &lens, old, options.slices, &mut *target);
                    let sum: usize = misses.iter().sum();
                    table.add(&run, sum as f64 / requests as f64);
                    if !is_ours {
                        known.note(&run, sum);
                    }
                    println!(
                        "{:<9} {sizes:<5} {room:>2} % {megabytes:>4} MB  {name:<9} {sum:>7} misses  {:.4}  {:.1} s",
                        trace.name,
                        sum as f64 / requests as f64,
                        started.elapsed().as_secs_f64()
                    );
                    if options.report {
                        target.report();
                    }
                    if over_time {
                        let of_slice = |&misses| percent(misses, requests / options.slices);
                        let shares: Vec<f64> = misses.iter().map(of_slice).collect();
                        let text: Vec<String> =
                            shares.iter().map(|share| format!("{share:.1}")).collect();
                        println!("  % of each slice: {}", text.join(" "));
                        let middle = |n: usize| (n as f64 + 0.5) * 100.0 / options.slices as f64;
                        points.extend(
                            shares
                                .iter()
                                .enumerate()
                                .map(|(n, &share)| (middle(n), share)),
                        );
                    } else {
                        points.push((room as f64, 100.0 - percent(sum, requests)));
                    }
                }
                panel.lines.push((name, points));
            }
            panels.push(panel);
        }
    }
    if options.table {
        let file = |program: &String| program.rsplit('/').next().unwrap_or(program).to_owned();
        let servers: Vec<String> = options.servers.iter().map(file).collect();
        table.print(&servers);
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, plot::svg(&panels)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
