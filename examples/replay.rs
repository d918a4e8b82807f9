//! Replays access traces against the store, or against a server, and counts misses: how eviction policies are judged.
//!
//! ```text
//!  replay TRACE.. [--room 5,20] [--sizes fixed,mixed] [--mb 16] [--policy NAME,..] [--server PROGRAM [--options ..]]
//! ```
//!
//! A trace has one object id a line (`.xz` is read through `xzcat`). Each request is a get, and after a miss a set: so
//! an application uses a cache. `--room` is the memory limit in percent of the bytes of all objects. Sizes come from
//! the id alone: all the same, or log-uniform over a factor of 80; they are scaled so that 5 % of all bytes are `--mb`
//! megabytes, since memory goes to slab classes in whole pages. Without `--server` the store itself is driven, in this
//! process; with it, PROGRAM is started for each run and spoken to over a socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ketch::cache::{Cache, ItemSpec, Lookup, Maintainer, Policy, STEPS_PER_S};
use ketch::clock::RelTime;
use ketch::server;
use ketch::settings::Settings;

/// Requests that make a second of the store's clock: about what one connection to a server does.
const REQUESTS_PER_S: usize = 20_000;
/// The largest over the smallest of mixed sizes.
const MIXED_FACTOR: f64 = 80.0;

struct Options {
    traces: Vec<String>,
    rooms: Vec<usize>,
    sizes: Vec<String>,
    mb: usize,
    policies: Vec<String>,
    server: Option<String>,
    server_options: Vec<String>,
}

fn options() -> Options {
    let mut options = Options {
        traces: Vec::new(),
        rooms: vec![5, 20],
        sizes: vec!["fixed".into(), "mixed".into()],
        mb: 16,
        policies: vec!["slru".into()],
        server: None,
        server_options: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        match arg.as_str() {
            "--room" => {
                options.rooms = list(value())
                    .iter()
                    .map(|room| room.parse().expect("percent"))
                    .collect()
            }
            "--sizes" => options.sizes = list(value()),
            "--mb" => options.mb = value().parse().expect("megabytes"),
            "--policy" => options.policies = list(value()),
            "--server" => options.server = Some(value()),
            "--options" => options.server_options = value().split(' ').map(str::to_owned).collect(),
            _ => options.traces.push(arg),
        }
    }
    options
}

fn read_trace(path: &str) -> Vec<u32> {
    let mut text = String::new();
    if path.ends_with(".xz") {
        let xzcat = Command::new("xzcat")
            .arg(path)
            .output()
            .expect("xzcat runs");
        text = String::from_utf8(xzcat.stdout).expect("a trace is text");
    } else {
        let mut file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        file.read_to_string(&mut text).expect("a trace is text");
    }
    text.lines()
        .map(|line| line.trim().parse().expect("an object id"))
        .collect()
}

/// A number from 0 to 1 that depends on the id alone.
fn fraction(id: u32) -> f64 {
    let mut x = u64::from(id).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

fn key(id: u32) -> String {
    format!("key:{id:08}")
}

/// The length of each object's value, and the sum of keys and values.
fn value_lens(trace: &[u32], mixed: bool, mb: usize) -> (Vec<u32>, usize) {
    let objects = 1 + *trace.iter().max().expect("a trace has requests") as usize;
    let mut there = vec![false; objects];
    trace.iter().for_each(|&id| there[id as usize] = true);
    let shape = |id: usize| {
        if mixed {
            MIXED_FACTOR.powf(fraction(id as u32))
        } else {
            1.0
        }
    };
    let sum: f64 = (0..objects).filter(|&id| there[id]).map(shape).sum();
    let scale = (mb << 20) as f64 * 20.0 / sum;
    let lens: Vec<u32> = (0..objects).map(|id| (shape(id) * scale) as u32).collect();
    let bytes = (0..objects)
        .filter(|&id| there[id])
        .map(|id| lens[id] as usize + key(id as u32).len())
        .sum();
    (lens, bytes)
}

fn new_cache(megabytes: usize, policy: &str) -> Cache {
    let settings = Settings {
        memory_limit_bytes: megabytes << 20,
        eviction: Policy::from_name(policy)
            .unwrap_or_else(|| panic!("{policy} is no policy"))
            .name(),
        ..Settings::default()
    };
    server::cache(&settings).expect("the system gives the memory")
}

/// Misses of the store itself.
fn replay_store(trace: &[u32], lens: &[u32], megabytes: usize, policy: &str) -> usize {
    let cache = new_cache(megabytes, policy);
    let mut maintainer = Maintainer::default();
    let mut misses = 0;
    for (n, &id) in trace.iter().enumerate() {
        let now = RelTime(2 + (n / REQUESTS_PER_S) as u32);
        if n % (REQUESTS_PER_S / STEPS_PER_S as usize) == 0 {
            maintainer.step(&cache, now);
        }
        let key = key(id);
        let hash = cache.hash(key.as_bytes());
        let mut entry = cache.entry(key.as_bytes(), hash, now);
        if entry.lookup() == Lookup::Found {
            entry.bump();
            continue;
        }
        drop(entry);
        misses += 1;
        let spec = ItemSpec {
            key: key.as_bytes(),
            key_binary: false,
            client_flags: 0,
            expires_at: RelTime::NEVER,
            value_len: lens[id as usize] + 2,
        };
        let Ok(mut new) = cache.create(&spec, now) else {
            continue;
        };
        while !new.spare().is_empty() {
            let len = new.spare().len();
            new.advance(len);
        }
        cache
            .entry(key.as_bytes(), hash, now)
            .put(new, cache.next_cas());
    }
    if std::env::var_os("REPORT").is_some() {
        println!("{:?}", cache.move_stats());
        for report in cache.class_reports(RelTime(100)) {
            println!(
                "  class {:>2} {:>7} B {:>4} pages {:>6} items {:>6} evicted {:?}",
                report.class.get(),
                report.slabs.chunk_bytes,
                report.slabs.total_pages,
                report.slabs.used_chunks,
                report.lru.evicted,
                report.counts
            );
        }
    }
    misses
}

struct Server {
    child: Child,
    stream: BufReader<TcpStream>,
}

impl Server {
    fn start(program: &str, megabytes: usize, options: &[String]) -> Server {
        static RUN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let port = 20_000
            + (std::process::id() * 7 + RUN.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                % 12_000;
        let child = Command::new(program)
            .args([
                "-p",
                &port.to_string(),
                "-U",
                "0",
                "-l",
                "127.0.0.1",
                "-m",
                &megabytes.to_string(),
            ])
            .args(if program.ends_with("memcached") {
                &["-u", "nobody"][..]
            } else {
                &[]
            })
            .args(options)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port as u16)) {
                Ok(stream) => break stream,
                Err(error) => assert!(
                    Instant::now() < deadline,
                    "{program} does not listen: {error}"
                ),
            }
        };
        stream
            .set_nodelay(true)
            .expect("a socket takes TCP_NODELAY");
        Server {
            child,
            stream: BufReader::with_capacity(1 << 20, stream),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream
            .read_line(&mut line)
            .expect("the server answers");
        line
    }

    /// True if the key was there.
    fn get(&mut self, key: &str) -> bool {
        self.stream
            .get_mut()
            .write_all(format!("get {key}\r\n").as_bytes())
            .expect("the server reads");
        let line = self.line();
        if line.starts_with("END") {
            return false;
        }
        let len: usize = line
            .trim()
            .rsplit(' ')
            .next()
            .and_then(|len| len.parse().ok())
            .expect("VALUE key flags len");
        let mut left = len + "\r\nEND\r\n".len();
        while left > 0 {
            let there = self
                .stream
                .fill_buf()
                .expect("the server sends the value")
                .len();
            let take = there.min(left);
            self.stream.consume(take);
            left -= take;
        }
        true
    }

    fn set(&mut self, key: &str, value: &[u8]) {
        let mut command = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
        command.extend_from_slice(value);
        command.extend_from_slice(b"\r\n");
        self.stream
            .get_mut()
            .write_all(&command)
            .expect("the server reads");
        self.line();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Misses of a server.
fn replay_server(
    trace: &[u32],
    lens: &[u32],
    megabytes: usize,
    program: &str,
    options: &[String],
) -> usize {
    let mut server = Server::start(program, megabytes, options);
    let value = vec![b'v'; 2 << 20];
    let mut misses = 0;
    for &id in trace {
        let key = key(id);
        if !server.get(&key) {
            misses += 1;
            server.set(&key, &value[..lens[id as usize] as usize]);
        }
    }
    misses
}

fn main() {
    let options = options();
    for path in &options.traces {
        let trace = read_trace(path);
        let name = path
            .rsplit('/')
            .next()
            .and_then(|name| name.split('.').next())
            .unwrap_or(path);
        for sizes in &options.sizes {
            let (lens, bytes) = value_lens(&trace, sizes == "mixed", options.mb);
            for &room in &options.rooms {
                let megabytes =
                    ((bytes * room) as f64 / 100.0 / f64::from(1 << 20)).round() as usize;
                let policies = if options.server.is_some() {
                    &["server".to_owned()][..]
                } else {
                    &options.policies
                };
                for policy in policies {
                    let start = Instant::now();
                    let misses = match &options.server {
                        Some(program) => replay_server(
                            &trace,
                            &lens,
                            megabytes,
                            program,
                            &options.server_options,
                        ),
                        None => replay_store(&trace, &lens, megabytes, policy),
                    };
                    println!(
                        "{name:<9} {sizes:<5} {room:>2} % {megabytes:>4} MB  {policy:<8} {misses:>7} misses  {:.4}  {:.1} s",
                        misses as f64 / trace.len() as f64,
                        start.elapsed().as_secs_f64()
                    );
                }
            }
        }
    }
}
