//! Who is asked: the store itself, in this process, or a server behind a socket.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ketch::cache::{At, Cache, Hit, ItemSpec, Maintainer, Policy, STEPS_PER_S};
use ketch::clock::RelTime;
use ketch::keyspace::whatif::{Deed, Kind, Measured, WhatIf};
use ketch::knobs::Knob;
use ketch::server;
use ketch::settings::Settings;

use super::load::fraction;

/// A hash that does not depend on what the cache drew.
fn hash_of(key: &str) -> u32 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (hash ^ hash >> 32) as u32
}

/// Requests that make a second of the store's clock, unless it is told: about what one connection to a server does.
pub const REQUESTS_PER_S: usize = 20_000;

/// Requests that a server gets at a time: a wait for each reply would take longer than all else.
const BATCH: usize = 32;

/// A cache to replay against.
pub trait Target {
    /// True if the key was there.
    fn get(&mut self, key: &str) -> bool;
    fn set(&mut self, key: &str, value_len: usize);
    /// How many keys are asked for at a time.
    fn batch(&self) -> usize {
        1
    }
    /// [`Target::get`] for each.
    fn get_many(&mut self, keys: &[String]) -> Vec<bool> {
        keys.iter().map(|key| self.get(key)).collect()
    }
    /// What the run has left behind, for people.
    fn report(&mut self) {}
}

/// The store without sockets, on a clock of its own.
pub struct Store {
    cache: Cache,
    maintainer: Maintainer,
    requests: usize,
    hits: usize,
    what_if: WhatIf,
    ttls: Option<Ttls>,
    requests_per_s: usize,
}

/// How long values live: drawn from these seconds for each key, each octave as likely, the same at each store.
#[derive(Debug, Clone, Copy)]
pub struct Ttls {
    pub least: f64,
    pub most: f64,
}

impl Ttls {
    fn of(self, key: &str) -> u32 {
        let drawn = fraction(u64::from(hash_of(key)));
        (self.least * (self.most / self.least).powf(drawn)) as u32
    }
}

impl Store {
    /// So many requests make a second of its clock.
    pub fn new(megabytes: usize, policy: &str, ttls: Option<Ttls>, requests_per_s: usize) -> Store {
        let policy =
            Policy::from_name(policy).unwrap_or_else(|| panic!("there is no policy {policy}"));
        let mut settings = Settings {
            memory_limit_bytes: megabytes << 20,
            ..Settings::default()
        };
        settings.knobs.set(Knob::Eviction, policy as u32);
        Store {
            cache: server::cache(&settings).expect("the system gives the memory"),
            maintainer: Maintainer::default(),
            requests: 0,
            hits: 0,
            what_if: WhatIf::default(),
            ttls,
            requests_per_s,
        }
    }

    /// Tells the small caches how large the large one is, as the server does once a second.
    fn shape(&mut self) {
        let full = self.cache.bytes_when_full(self.now());
        let kind = match self.cache.tuning.policy() {
            Policy::S3Fifo => Kind::S3Fifo,
            _ => Kind::Lru,
        };
        self.what_if.shape(full, kind);
    }

    fn now(&self) -> RelTime {
        RelTime(2 + (self.requests / self.requests_per_s) as u32)
    }
}

impl Target for Store {
    fn get(&mut self, key: &str) -> bool {
        let at = At::new(self.now());
        if self
            .requests
            .is_multiple_of(self.requests_per_s / STEPS_PER_S as usize)
        {
            self.maintainer.step(&self.cache, at);
        }
        self.requests += 1;
        let mut entry = self.cache.entry(self.cache.sought(key.as_bytes()), at);
        let bytes = entry.item().map(|item| item.item_bytes() as u32);
        let hit = entry.found().inspect(Hit::bump).is_some();
        drop(entry);
        self.hits += usize::from(hit);
        let deed = if hit { Deed::Hit } else { Deed::Miss };
        self.what_if
            .note(hash_of(key), deed, bytes.unwrap_or_default());
        if self.requests.is_multiple_of(self.requests_per_s) {
            self.shape();
        }
        hit
    }

    fn set(&mut self, key: &str, value_len: usize) {
        let (cache, at) = (&self.cache, At::new(self.now()));
        let ends = |ttls: Ttls| RelTime(at.now.0 + ttls.of(key));
        let spec = ItemSpec {
            key: key.as_bytes(),
            key_binary: false,
            client_flags: 0,
            expires_at: self.ttls.map_or(RelTime::NEVER, ends),
            value_len: value_len as u32 + 2,
        };
        let Ok(mut new) = cache.create(&spec, at) else {
            return;
        };
        while !new.spare().is_empty() {
            let len = new.spare().len();
            new.advance(len);
        }
        let mut entry = cache.entry(cache.sought(key.as_bytes()), at);
        let bytes = entry.put(new, None).item_bytes() as u32;
        drop(entry);
        self.what_if.note(hash_of(key), Deed::Store, bytes);
    }

    fn report(&mut self) {
        let (reads, hits) = (self.requests as f64, self.hits as f64);
        self.what_if.measure(Measured { reads, hits });
        for expected in self.what_if.expect().into_iter().flatten() {
            println!(
                "  with {:>4} times the memory {:.4} misses are to be expected",
                expected.times,
                1.0 - expected.hit_ratio
            );
        }
        println!("  {:?}", self.cache.move_stats());
        for report in self.cache.class_reports(self.now()) {
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
}

/// A server of its own for each run.
pub struct Server {
    child: Child,
    stream: BufReader<TcpStream>,
    value: Vec<u8>,
}

impl Server {
    pub fn start(program: &str, megabytes: usize, options: &[String]) -> Server {
        // A port that the system has just called free.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("there are free ports")
            .port();
        let mut command = Command::new(program);
        command.args(["-U", "0", "-l", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["-m", &megabytes.to_string()]);
        if program.ends_with("memcached") {
            // It does not start as root.
            command.args(["-u", "nobody"]);
        }
        let child = command.args(options).stderr(Stdio::inherit()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    panic!("{program} does not listen: {error}")
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        stream.set_nodelay(true).expect("a socket takes it");
        Server {
            child,
            stream: BufReader::new(stream),
            value: vec![b'v'; 2 << 20],
        }
    }

    fn send(&mut self, parts: &[&[u8]]) {
        let socket = self.stream.get_mut();
        socket.write_all(&parts.concat()).expect("the server reads");
    }

    /// A reply to `mg`: true for a hit.
    fn hit(&mut self) -> bool {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a reply comes");
        match line.trim() {
            "HD" => true,
            "EN" => false,
            other => panic!("no reply to mg: {other}"),
        }
    }
}

impl Target for Server {
    fn get(&mut self, key: &str) -> bool {
        self.get_many(&[key.to_owned()])[0]
    }

    fn batch(&self) -> usize {
        BATCH
    }

    fn get_many(&mut self, keys: &[String]) -> Vec<bool> {
        // Without flags it is a get that leaves the value away: a use like any other, in memcached too.
        let asked: String = keys.iter().map(|key| format!("mg {key}\r\n")).collect();
        self.send(&[asked.as_bytes()]);
        keys.iter().map(|_| self.hit()).collect()
    }

    fn set(&mut self, key: &str, value_len: usize) {
        let head = format!("set {key} 0 0 {value_len} noreply\r\n");
        let value = std::mem::take(&mut self.value);
        self.send(&[head.as_bytes(), &value[..value_len], b"\r\n"]);
        self.value = value;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
