//! What 6 connections saw of a few keys that they all use at once, pipelined, in text and meta, with and without memory to
//! spare: each key's history must be one story (`ketch_testing::linear`). `KETCH_HISTORIES` says how many keys are tried
//! with each set of options.

use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ketch_testing::linear::{Answer, Ask, OPS_MAX, Op, Value, is_linear, token_bytes};
use ketch_testing::{Conn, PATIENCE, Rng, Server, is_ketch, wait_within};

const CLIENTS: usize = 6;
/// Keys that are in use at one time: the even ones hold text, the odd ones counters.
const KEYS: usize = 4;
/// Requests of a client to the keys of one round.
const REQUESTS: usize = 24;

fn histories() -> usize {
    let given = std::env::var("KETCH_HISTORIES").ok();
    given.map_or(600, |text| {
        text.parse().expect("KETCH_HISTORIES is a number")
    })
}

/// The sizes of tokens.
const SIZES: [usize; 6] = [9, 30, 300, 2100, 9000, 40_000];

/// What a value says; whatever nobody stored ends the test.
fn value_of(bytes: &[u8]) -> Value {
    let shown = || bytes[..bytes.len().min(60)].escape_ascii().to_string();
    if !bytes.ends_with(b";") {
        let text = std::str::from_utf8(bytes).unwrap_or_else(|_| panic!("{}", shown()));
        let number = text.trim_end_matches(' ').parse();
        return Value::Number(number.unwrap_or_else(|_| panic!("no counter: {}", shown())));
    }
    let (mut rest, mut tokens) = (bytes, Vec::new());
    while !rest.is_empty() {
        let number = rest
            .get(..8)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let token: u32 = number
            .unwrap_or_else(|| panic!("no token at {}: {}", bytes.len() - rest.len(), shown()));
        let whole = token_bytes(token, &SIZES);
        assert!(rest.starts_with(&whole), "token {token} is cut or torn");
        rest = &rest[whole.len()..];
        tokens.push(token);
    }
    Value::Tokens(tokens)
}

/// How a request is written, and so how its reply reads.
#[derive(Clone, Copy, PartialEq)]
enum Tongue {
    Text,
    Meta,
}

struct Client<'a> {
    conn: Conn,
    connect: &'a (dyn Fn() -> Option<Conn> + Sync),
    /// Servers end, and others go on with what they had.
    may_end: bool,
    rng: Rng,
    number: usize,
    tokens: &'a AtomicU32,
    start: Instant,
    with_cas: bool,
    /// The unique that this client saw last, by key.
    seen: Vec<Option<u64>>,
}

impl Client<'_> {
    /// What to ask of a key.
    fn ask(&mut self, key: usize) -> Ask {
        let counter = key % 2 == 1;
        let value = if counter {
            Value::Number(self.rng.below(100))
        } else {
            Value::Tokens(vec![self.tokens.fetch_add(1, Relaxed)])
        };
        match self.rng.below(16) {
            0..=2 => Ask::Set(value),
            3 => Ask::Add(value),
            4 => Ask::Replace(value),
            5 | 6 if counter => Ask::Incr(1 + self.rng.below(9)),
            7 if counter => Ask::Decr(1 + self.rng.below(9)),
            5 | 6 => Ask::Append(self.tokens.fetch_add(1, Relaxed)),
            7 => Ask::Prepend(self.tokens.fetch_add(1, Relaxed)),
            8 | 9 => match self.seen[key].filter(|_| self.with_cas) {
                Some(unique) => Ask::Cas(value, unique),
                None => Ask::Get,
            },
            10 => Ask::Touch,
            11 | 12 => Ask::Delete,
            _ => Ask::Get,
        }
    }

    /// The request as bytes.
    fn write(&mut self, key: &str, ask: &Ask, tongue: Tongue) -> Vec<u8> {
        let meta = tongue == Tongue::Meta;
        let store = |verb: &str, mode: &str, bytes: &[u8], unique: Option<u64>| {
            let len = bytes.len();
            let mut request = match (meta, unique) {
                (true, Some(unique)) => format!("ms {key} {len} c M{mode} C{unique}\r\n"),
                (true, None) => format!("ms {key} {len} c M{mode}\r\n"),
                (false, Some(unique)) => format!("cas {key} 0 0 {len} {unique}\r\n"),
                (false, None) => format!("{verb} {key} 0 0 {len}\r\n"),
            }
            .into_bytes();
            request.extend_from_slice(bytes);
            request.extend_from_slice(b"\r\n");
            request
        };
        match ask {
            Ask::Set(value) => store("set", "S", &value.bytes(&SIZES), None),
            Ask::Add(value) => store("add", "E", &value.bytes(&SIZES), None),
            Ask::Replace(value) => store("replace", "R", &value.bytes(&SIZES), None),
            Ask::Append(token) => store("append", "A", &token_bytes(*token, &SIZES), None),
            Ask::Prepend(token) => store("prepend", "P", &token_bytes(*token, &SIZES), None),
            Ask::Cas(value, unique) => store("cas", "S", &value.bytes(&SIZES), Some(*unique)),
            Ask::Get if meta => format!("mg {key} v c\r\n").into(),
            Ask::Get if self.rng.one_in(4) => format!("gats 1000 {key}\r\n").into(),
            Ask::Get => format!("gets {key}\r\n").into(),
            Ask::Touch if meta => format!("mg {key} T1000\r\n").into(),
            Ask::Touch => format!("touch {key} 1000\r\n").into(),
            Ask::Delete if meta => format!("md {key}\r\n").into(),
            Ask::Delete => format!("delete {key}\r\n").into(),
            Ask::Incr(by) if meta => format!("ma {key} D{by} v\r\n").into(),
            Ask::Incr(by) => format!("incr {key} {by}\r\n").into(),
            Ask::Decr(by) if meta => format!("ma {key} MD D{by} v\r\n").into(),
            Ask::Decr(by) => format!("decr {key} {by}\r\n").into(),
        }
    }

    /// Reads the reply; none if the server has ended.
    fn read(&mut self, ask: &Ask) -> Option<Answer> {
        let line = self.conn.try_line()?;
        let words: Vec<_> = line.split(' ').collect();
        let unique = || {
            words
                .iter()
                .skip(1)
                .find_map(|word| word.strip_prefix('c')?.parse().ok())
        };
        Some(match words[0] {
            "STORED" => Answer::Stored(None),
            "HD" => match ask {
                Ask::Touch | Ask::Delete => Answer::Done,
                _ => Answer::Stored(unique().filter(|_| self.with_cas)),
            },
            "NOT_STORED" | "NS" => Answer::NotStored,
            "EXISTS" | "EX" => Answer::Exists,
            "NOT_FOUND" | "EN" | "NF" | "END" => Answer::Missing,
            "DELETED" | "TOUCHED" => Answer::Done,
            "VALUE" => {
                let len: usize = words[3].parse().expect("a length");
                let bytes = self.block(len, "\r\nEND\r\n")?;
                let unique = words[4].parse().expect("a unique");
                Answer::Found(value_of(&bytes), self.with_cas.then_some(unique))
            }
            "VA" => {
                let bytes = self.block(words[1].parse().expect("a length"), "\r\n")?;
                match ask {
                    Ask::Get => Answer::Found(value_of(&bytes), unique().filter(|_| self.with_cas)),
                    _ => match value_of(&bytes) {
                        Value::Number(number) => Answer::Number(number),
                        Value::Tokens(_) => panic!("a counter became a text"),
                    },
                }
            }
            "SERVER_ERROR" if line.contains("memory") || line.contains("too large") => {
                Answer::NoMemory
            }
            number => match number.parse() {
                Ok(number) => Answer::Number(number),
                Err(_) => panic!("{ask:?} was answered {line:?}"),
            },
        })
    }

    /// A value, with `end` behind it.
    fn block(&mut self, len: usize, end: &str) -> Option<Vec<u8>> {
        let mut bytes = self.conn.try_take(len + end.len())?;
        assert_eq!(bytes.split_off(len), end.as_bytes(), "behind a value");
        Some(bytes)
    }

    /// One round: some requests a write, all to the keys of the round.
    fn round(&mut self, round: usize, room: &[AtomicUsize]) -> Vec<(usize, Op)> {
        let mut done = Vec::new();
        self.seen = vec![None; KEYS];
        let mut left = REQUESTS;
        while left > 0 {
            let depth = (1 + self.rng.below(3) as usize).min(left);
            left -= depth;
            let (mut asked, mut bytes) = (Vec::new(), Vec::new());
            for _ in 0..depth {
                let key = self.rng.below(KEYS as u64) as usize;
                if room[key].fetch_add(1, Relaxed) >= OPS_MAX {
                    continue;
                }
                let tongue = if self.rng.one_in(2) {
                    Tongue::Meta
                } else {
                    Tongue::Text
                };
                let ask = self.ask(key);
                bytes.extend(self.write(&format!("h{round}-{key}"), &ask, tongue));
                asked.push((key, ask));
            }
            let called_ns = self.start.elapsed().as_nanos() as u64;
            let mut ended = self.conn.try_send(&bytes).is_err();
            for (key, ask) in asked {
                let answer = if ended { None } else { self.read(&ask) };
                ended |= answer.is_none();
                assert!(!ended || self.may_end, "the server has ended");
                let answer = answer.unwrap_or(Answer::Unknown);
                if let Answer::Found(_, Some(unique)) | Answer::Stored(Some(unique)) = answer {
                    self.seen[key] = Some(unique);
                }
                let returned_ns = self.start.elapsed().as_nanos() as u64;
                let client = self.number;
                done.push((
                    key,
                    Op {
                        client,
                        called_ns,
                        returned_ns,
                        ask,
                        answer,
                    },
                ));
            }
            if ended {
                self.conn = first(self.connect);
            }
        }
        done
    }
}

/// How histories are recorded.
struct Trial<'a> {
    options: &'a [&'a str],
    with_cas: bool,
    /// Other items fill the cache meanwhile.
    pressure: bool,
    /// Done to the server again and again: another goes on with its items.
    trouble: Option<fn(&mut Server)>,
    /// It takes its connections with it.
    may_end: bool,
    /// Items may go by themselves: there is pressure, or what a crash meets half written is dropped.
    may_vanish: bool,
    histories: usize,
}

impl Trial<'_> {
    fn check(&self) {
        /// So many are kept at a time.
        const BATCH: usize = 500;
        let mut server = Server::start(self.options);
        let (mut seeds, tokens) = (Rng::from_env("histories"), AtomicU32::new(1));
        let rounds = self.histories.div_ceil(KEYS);
        for first in (0..rounds).step_by(BATCH) {
            let rounds = first..rounds.min(first + BATCH);
            let by_key = self.record(&mut server, &mut seeds, &tokens, rounds.clone());
            let mut met = 0;
            for (key, ops) in by_key.iter().enumerate() {
                met += ops.iter().filter(|op| op.answer != Answer::Missing).count();
                let told = || ops.iter().map(|op| format!("{op:?}\n")).collect::<String>();
                assert!(
                    is_linear(ops, self.may_vanish),
                    "{:?}: key {key}\n{}",
                    self.options,
                    told()
                );
            }
            let asked = rounds.len() * CLIENTS * REQUESTS;
            assert!(met > asked / 4, "most of {asked} found nothing: {met} did");
        }
    }

    /// What the clients saw of the keys of these rounds, by key.
    fn record(
        &self,
        server: &mut Server,
        seeds: &mut Rng,
        tokens: &AtomicU32,
        rounds: Range<usize>,
    ) -> Vec<Vec<Op>> {
        let (start, over) = (Instant::now(), AtomicBool::new(false));
        let room: Vec<Vec<AtomicUsize>> = rounds
            .clone()
            .map(|_| (0..KEYS).map(|_| AtomicUsize::new(0)).collect())
            .collect();
        let barrier = Barrier::new(CLIENTS);
        let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
            Some(Conn::tcp(stream, "server"))
        };
        let work = |number: usize, seed: u64| {
            let mut client = Client {
                conn: first(&connect),
                connect: &connect,
                may_end: self.may_end,
                rng: Rng::new(seed),
                number,
                tokens,
                start,
                with_cas: self.with_cas,
                seen: Vec::new(),
            };
            let mut all = Vec::new();
            for (round, room) in room.iter().enumerate() {
                barrier.wait();
                let done = client.round(rounds.start + round, room);
                all.extend(done.into_iter().map(|(key, op)| (round * KEYS + key, op)));
            }
            all
        };
        let mut by_key: Vec<Vec<Op>> = vec![Vec::new(); rounds.len() * KEYS];
        thread::scope(|scope| {
            if self.pressure {
                let (connect, rng, over) = (&connect, Rng::new(seeds.bits()), &over);
                scope.spawn(move || press(connect, rng, over));
            }
            let mut clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let (seed, work) = (seeds.bits(), &work);
                    scope.spawn(move || work(number, seed))
                })
                .collect();
            if let Some(trouble) = self.trouble {
                while clients.iter().any(|client| !client.is_finished()) {
                    thread::sleep(Duration::from_millis(20 + seeds.below(120)));
                    trouble(server);
                }
            }
            let mut failed = None;
            for client in clients.drain(..) {
                match client.join() {
                    Ok(all) => all.into_iter().for_each(|(key, op)| by_key[key].push(op)),
                    Err(panic) => failed = Some(panic),
                }
            }
            over.store(true, Relaxed);
            if let Some(panic) = failed {
                std::panic::resume_unwind(panic);
            }
        });
        by_key
    }
}

/// A connection, to the next server if this one has just ended.
fn first(connect: &dyn Fn() -> Option<Conn>) -> Conn {
    let mut conn = None;
    wait_within("a server to go on with", PATIENCE, || {
        conn = connect();
        conn.is_some()
    });
    conn.expect("it was waited for")
}

/// Stores other items until it is over: classes run dry in turn, as their sizes change all the time.
fn press(connect: &dyn Fn() -> Option<Conn>, mut rng: Rng, over: &AtomicBool) {
    let mut conn = None;
    while !over.load(Relaxed) {
        let Some(open) = conn.as_mut() else {
            conn = connect();
            continue;
        };
        let len = [20, 200, 2000, 9000, 40_000][rng.below(5) as usize];
        let value = "x".repeat(len);
        let stores: String = (0..8)
            .map(|_| format!("set p{} 0 0 {len}\r\n{value}\r\n", rng.below(4000)))
            .collect();
        let answered = open.try_send(stores).is_ok() && (0..8).all(|_| open.try_line().is_some());
        if !answered {
            conn = None;
        }
    }
}

/// With these options, and memory to spare or not.
fn check(options: &[&str], with_cas: bool, pressure: bool) {
    Trial {
        options,
        with_cas,
        pressure,
        trouble: None,
        may_end: false,
        may_vanish: pressure,
        histories: histories(),
    }
    .check();
}

/// While one process after the other takes over: no connection ends, and nothing goes.
fn check_through_takeovers(pressure: bool) {
    if !is_ketch() {
        return;
    }
    let megabytes = if pressure { "4" } else { "64" };
    Trial {
        options: &["-t", "4", "-m", megabytes],
        with_cas: true,
        pressure,
        trouble: Some(|server| server.take_over(&[])),
        may_end: false,
        may_vanish: pressure,
        histories: histories() / 3,
    }
    .check();
}

/// With a memory file, while this befalls the server.
fn check_through(trouble: fn(&mut Server), name: &str, pressure: bool) {
    if !is_ketch() {
        // memcached keeps nothing over a crash.
        return;
    }
    let file =
        std::path::Path::new("/dev/shm").join(format!("ketch-test-{}-{name}", std::process::id()));
    let path = file.display().to_string();
    let megabytes = if pressure { "4" } else { "64" };
    Trial {
        options: &["-t", "4", "-m", megabytes, "-e", &path],
        with_cas: true,
        pressure,
        trouble: Some(trouble),
        may_end: true,
        may_vanish: pressure || name == "crashes",
        histories: histories() / 3,
    }
    .check();
    let _ = std::fs::remove_file(&file);
}

fn end_and_start(server: &mut Server) {
    server.signal(libc::SIGTERM);
    server.wait_exit(PATIENCE);
    server.restart();
}

fn crash_and_start(server: &mut Server) {
    server.kill();
    server.restart();
}

#[test]
fn through_takeovers() {
    check_through_takeovers(false);
}

#[test]
fn through_takeovers_with_evictions() {
    check_through_takeovers(true);
}

#[test]
fn through_clean_restarts() {
    check_through(end_and_start, "ends", false);
}

#[test]
fn through_clean_restarts_with_evictions() {
    check_through(end_and_start, "ends-full", true);
}

#[test]
fn through_crashes() {
    check_through(crash_and_start, "crashes", false);
}

#[test]
fn through_crashes_with_evictions() {
    check_through(crash_and_start, "crashes-full", true);
}

#[test]
fn with_memory_to_spare() {
    check(&["-t", "4", "-m", "256"], true, false);
}

#[test]
fn with_evictions_at_every_moment() {
    check(&["-t", "4", "-m", "4"], true, true);
}

#[test]
fn with_evictions_and_short_chains() {
    check(
        &["-t", "4", "-m", "4", "-o", "eviction=slru,slab_chunk_max=4"],
        true,
        true,
    );
}

#[test]
fn without_evictions_when_memory_is_full() {
    check(&["-t", "4", "-m", "4", "-M"], true, true);
}

#[test]
fn without_uniques() {
    check(
        &["-t", "4", "-m", "4", "-C", "-n", "48", "-f", "1.25"],
        false,
        true,
    );
}
