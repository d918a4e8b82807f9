//! Two clients, real servers, and everything that can befall them: what the client's promises are worth.
//!
//! ```text
//!  chaos run: starts nodes and two workers, does one trouble after the other, prints a table
//!    |  board (a file): phase and list of nodes for the workers; of each key, what was written last, and when
//!    '- chaos worker A, B: each sets and deletes its own keys, reads all, and judges what it reads by the board
//! ```
//!
//! `scripts/chaos` builds and runs it. With network namespaces each node and each worker has an address of its own, and links are
//! cut, slowed and made to lose packets by the kernel. Where that has no netem, small proxies slow them; on loopback the phases that
//! need links are left out.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ketch_client::{Ack, Client, ClientOptions, Error, Node, Reads};

/// Nodes that run; the list begins with the first of them.
const NODES: usize = 7;
const LISTED: usize = 5;
const PORT: u16 = 11211;
/// Threads a worker, and keys a thread.
const THREADS: usize = 2;
const KEYS: usize = 60;
/// For how long docs/client.md lets another client see what was overwritten around a node that only one of them cannot reach, and what was
/// deleted during a repair.
const NAMED: Duration = Duration::from_secs(2);
/// The first of a failure, in which reads may be slow.
const SHOCK: Duration = Duration::from_millis(500);
/// How long after the return of all nodes operations that begin may still fail (docs/client.md).
const BACK: Duration = Duration::from_millis(500);

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("after 1970").as_micros() as u64
}

// ---- the board ----

/// What all processes know: a file of numbers.
struct Board(File);

/// Numbers at the start of the board.
#[derive(Clone, Copy)]
enum Word {
    /// The phase that counts, from 1; 0 before and between.
    Phase,
    /// When the present failure began.
    Shock,
    /// The nodes in the list, as bits.
    List,
    /// Workers end.
    End,
    /// Workers write all their keys anew when it changes.
    Anew,
    /// A copy may be missing from now on.
    Loss,
    /// When all nodes had returned that were down together.
    Returned,
    /// What the nodes' proxies do, from here on by node: see [`proxy`].
    Proxies,
}

/// Of a key: numbers of its writes, which are even for deletes.
const BEGUN: u64 = 0;
const ACKED: u64 = 1;
const LAST_DELETE: u64 = 2;
/// The last write that failed.
const FAILED: u64 = 3;
/// When the writes of the last numbers were acknowledged.
const TIMES: u64 = 8;
const TIMES_COUNT: u64 = 56;
const HEAD: u64 = 32;

impl Board {
    fn open(path: &str) -> Board {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        Board(file.expect("the board opens"))
    }

    fn read_at(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0
            .read_exact_at(&mut bytes, at * 8)
            .expect("the board is as large as it was made");
        u64::from_ne_bytes(bytes)
    }

    fn write_at(&self, at: u64, number: u64) {
        self.0
            .write_all_at(&number.to_ne_bytes(), at * 8)
            .expect("the board takes it");
    }

    fn get(&self, word: Word) -> u64 {
        self.read_at(word as u64)
    }

    fn put(&self, word: Word, number: u64) {
        self.write_at(word as u64, number);
    }

    fn key(key: usize, word: u64) -> u64 {
        HEAD + key as u64 * (TIMES + TIMES_COUNT) + word
    }

    fn of(&self, key: usize, word: u64) -> u64 {
        self.read_at(Board::key(key, word))
    }

    fn set(&self, key: usize, word: u64, number: u64) {
        self.write_at(Board::key(key, word), number);
    }

    fn acked_at(&self, key: usize, number: u64) -> u64 {
        self.of(key, TIMES + number % TIMES_COUNT)
    }
}

const ALL_KEYS: usize = 2 * THREADS * KEYS;

// ---- workers ----

/// Ends this process when the one that has started it is gone: a run that was killed leaves no load behind.
fn end_with_parent() {
    let parent = std::os::unix::process::parent_id();
    std::thread::spawn(move || {
        while std::os::unix::process::parent_id() == parent {
            std::thread::sleep(Duration::from_millis(500));
        }
        std::process::exit(1);
    });
}

/// What a thread counted in a phase.
#[derive(Default, Clone)]
struct Tally {
    operations: u64,
    errors: u64,
    full: u64,
    lost: u64,
    own_old: u64,
    others_old: u64,
    named: u64,
    back: u64,
    wrong: u64,
    reads_us: Vec<u32>,
    /// The longest time after the return of all nodes at which an operation began that failed.
    late_us: u64,
    story: String,
}

fn node(host: &str, at: usize) -> Node {
    match host.strip_prefix("loop:") {
        Some(base) => Node::new(
            "127.0.0.1",
            base.parse::<u16>().expect("a port") + at as u16,
        ),
        None => Node::new(format!("{host}{}", 10 + at), PORT),
    }
}

fn nodes(host: &str, bits: u64) -> Vec<Node> {
    let listed = (0..NODES).filter(|at| bits >> at & 1 == 1);
    listed.map(|at| node(host, at)).collect()
}

fn worker(name: &str, host: &str, path: &str, window_ms: u64) {
    end_with_parent();
    let board = Arc::new(Board::open(path));
    let bits = board.get(Word::List);
    let options = ClientOptions::default()
        .copies(2)
        .ack(Ack::All)
        .reads(Reads::Hedged(Duration::from_millis(5)))
        .request_timeout(Duration::from_secs(2))
        .attempt_timeout(Duration::from_millis(200))
        .connect_timeout(Duration::from_millis(100))
        // The next trouble is to find this node settled.
        .settle(Duration::from_millis(window_ms / 6))
        .probe_after_max(Duration::from_millis(500));
    let client = Client::new(nodes(host, bits), options);
    let who = usize::from(name == "B");
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (client, board) = (client.clone(), board.clone());
            std::thread::spawn(move || work(&client, &board, who * THREADS + thread))
        })
        .collect();
    let mut listed = bits;
    while board.get(Word::End) == 0 {
        let bits = board.get(Word::List);
        if bits != listed {
            listed = bits;
            client.set_nodes(nodes(host, bits), Duration::from_millis(window_ms));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut sum: BTreeMap<u64, Tally> = BTreeMap::new();
    for thread in threads {
        for (phase, tally) in thread.join().expect("a thread ends well") {
            let all = sum.entry(phase).or_default();
            all.operations += tally.operations;
            all.errors += tally.errors;
            all.full += tally.full;
            all.lost += tally.lost;
            all.own_old += tally.own_old;
            all.others_old += tally.others_old;
            all.named += tally.named;
            all.back += tally.back;
            all.wrong += tally.wrong;
            all.reads_us.extend(tally.reads_us);
            all.late_us = all.late_us.max(tally.late_us);
            if all.story.is_empty() {
                all.story = tally.story;
            }
        }
    }
    for (phase, tally) in sum {
        let Tally {
            operations,
            errors,
            full,
            lost,
            own_old,
            others_old,
            named,
            back,
            wrong,
            mut reads_us,
            late_us,
            story,
        } = tally;
        reads_us.sort_unstable();
        // Every hundredth is enough for a quantile of both workers.
        let step = (reads_us.len() / 1000).max(1);
        let some: Vec<String> = reads_us
            .iter()
            .skip(step / 2)
            .step_by(step)
            .map(u32::to_string)
            .collect();
        println!(
            "{phase} {operations} {errors} {full} {lost} {own_old} {others_old} {named} {back} {wrong} {} {step} {late_us}|{story}",
            some.join(",")
        );
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// One thread's work until the end: its tallies by phase.
fn work(client: &Client, board: &Board, thread: usize) -> BTreeMap<u64, Tally> {
    let mut tallies: BTreeMap<u64, Tally> = BTreeMap::new();
    let mut chance = Chance(now_us() | (1 + thread as u64));
    let own = thread * KEYS..(thread + 1) * KEYS;
    let mut seen = (u64::MAX, 0);
    while board.get(Word::End) == 0 {
        let phase = board.get(Word::Phase);
        let tally = tallies.entry(phase).or_default();
        let anew = (phase, board.get(Word::Anew));
        if anew != seen {
            // What lost a copy is whole again before the next trouble.
            seen = anew;
            own.clone()
                .for_each(|key| write(client, board, key, false, tally));
            continue;
        }
        let key = match chance.below(2) {
            0 => own.start + chance.below(KEYS as u64) as usize,
            _ => chance.below(ALL_KEYS as u64) as usize,
        };
        match chance.below(10) {
            0 | 1 if own.contains(&key) => write(client, board, key, chance.below(3) == 0, tally),
            _ => read(client, board, key, own.contains(&key), tally),
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    tallies
}

fn write(client: &Client, board: &Board, key: usize, delete: bool, tally: &mut Tally) {
    // Odd numbers are values, even ones deletes.
    let begun = board.of(key, BEGUN);
    let is_next = begun.is_multiple_of(2) != delete;
    let number = begun + if is_next { 1 } else { 2 };
    if delete {
        board.set(key, LAST_DELETE, number);
    }
    // Numbers that are left out were never acknowledged.
    (begun + 1..=number).for_each(|one| board.set(key, TIMES + one % TIMES_COUNT, 0));
    board.set(key, BEGUN, number);
    let name = format!("key:{key}");
    let begun_us = now_us();
    let result = if delete {
        client.delete(&name).map(|_| ())
    } else {
        client.set(
            &name,
            format!("{name}={number}").as_str(),
            Duration::from_secs(600),
        )
    };
    tally.operations += 1;
    match result {
        Ok(()) => {
            board.set(key, TIMES + number % TIMES_COUNT, now_us());
            board.set(key, ACKED, number);
        }
        Err(error) => {
            board.set(key, FAILED, number);
            if matches!(error, Error::Full { .. }) {
                tally.full += 1;
            } else {
                count_error(board, begun_us, tally);
                tell(tally, || format!("write of {name}: {error}"));
            }
        }
    }
}

/// An operation that began then has failed.
fn count_error(board: &Board, begun_us: u64, tally: &mut Tally) {
    tally.errors += 1;
    let returned = board.get(Word::Returned);
    if returned > 0 {
        tally.late_us = tally.late_us.max(begun_us.saturating_sub(returned));
    }
}

fn tell(tally: &mut Tally, story: impl FnOnce() -> String) {
    if tally.story.is_empty() {
        tally.story = story();
    }
}

fn read(client: &Client, board: &Board, key: usize, own: bool, tally: &mut Tally) {
    let (acked, failed) = (board.of(key, ACKED), board.of(key, FAILED));
    let begun = Instant::now();
    let begun_us = now_us();
    let name = format!("key:{key}");
    let result = client.get(&name);
    let took = begun.elapsed();
    tally.operations += 1;
    if begun_us > board.get(Word::Shock) + SHOCK.as_micros() as u64 {
        tally.reads_us.push(took.as_micros() as u32);
    }
    let found = match result {
        Ok(found) => found,
        Err(error) => {
            count_error(board, begun_us, tally);
            return tell(tally, || format!("read of {name}: {error}"));
        }
    };
    let last = board.of(key, BEGUN);
    let Some(item) = found else {
        let deleted = board.of(key, LAST_DELETE);
        let lost = acked > 0 && deleted < acked && failed < acked && last == acked;
        if lost && board.get(Word::Loss) == 0 {
            tally.lost += 1;
            tell(tally, || format!("{name} is lost, was {acked}"));
        }
        return;
    };
    let text = String::from_utf8_lossy(&item.value).into_owned();
    let number = text
        .strip_prefix(&format!("{name}="))
        .and_then(|number| number.parse().ok());
    let Some(number): Option<u64> = number else {
        tally.wrong += 1;
        return tell(tally, || format!("{name} is {text}"));
    };
    if number >= acked && number <= last {
        return;
    }
    // When did it end to be what is there?
    let ended = (number + 1..=acked).take(TIMES_COUNT as usize - 8);
    let ended = ended.map(|one| board.acked_at(key, one)).find(|&at| at > 0);
    let ago = ended.map_or(u64::MAX, |at| begun_us.saturating_sub(at));
    let (deleted, named) = (acked % 2 == 0, ago <= NAMED.as_micros() as u64);
    match (own, deleted) {
        _ if named && !own => tally.named += 1,
        (true, true) | (false, true) => tally.back += 1,
        (true, false) => tally.own_old += 1,
        (false, false) => tally.others_old += 1,
    }
    if own || !named {
        tell(tally, || {
            format!("{name} is {number}, was {acked}, {ago} us after (own: {own})")
        });
    }
}

// ---- servers that are none ----

fn fake(kind: &str, address: &str) {
    let listener = TcpListener::bind(address).expect("the node's place is free");
    for stream in listener.incoming().flatten() {
        let kind = kind.to_owned();
        std::thread::spawn(move || answer(&kind, stream));
    }
}

fn answer(kind: &str, mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(1..) = stream.read(&mut bytes) {
        let sent = match kind {
            "garbage" => stream.write_all(b"\x00\xff garbage \r\n\r\nVALUE 1 2 3 4\r\n"),
            "http" => stream.write_all(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            ),
            // Silence.
            _ => Ok(()),
        };
        if sent.is_err() || kind == "http" {
            return;
        }
    }
}

// ---- what the kernel may not be able to do ----

/// Stands before a node where the kernel cannot slow packets or lose them (no netem): bytes that go to clients are late by 100 ms,
/// or, one piece of ten, by the 200 ms after which TCP sends again what was lost.
fn proxy(listen: &str, target: &str, path: &str, at: u64) {
    end_with_parent();
    let listener = TcpListener::bind(listen).expect("the node's place is free");
    let board = Arc::new(Board::open(path));
    for client in listener.incoming().flatten() {
        let Ok(node) = TcpStream::connect(target) else {
            continue;
        };
        let _ = (client.set_nodelay(true), node.set_nodelay(true));
        let copy = |stream: &TcpStream| stream.try_clone().expect("there are descriptors");
        for (mut from, mut to, delayed) in [
            (copy(&client), copy(&node), false),
            (copy(&node), copy(&client), true),
        ] {
            let board = board.clone();
            std::thread::spawn(move || {
                let mut chance = Chance(now_us() | 1);
                let mut bytes = [0; 65536];
                while let Ok(count @ 1..) = from.read(&mut bytes) {
                    match board.read_at(Word::Proxies as u64 + at) {
                        1 if chance.below(10) == 0 => rest(Duration::from_millis(200)),
                        2 if delayed => rest(Duration::from_millis(100)),
                        _ => {}
                    }
                    if to.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    }
}

// ---- the cluster ----

/// Where nodes and workers live.
enum Net {
    Loopback {
        port: u16,
    },
    /// Names of namespaces begin with this.
    Spaces {
        name: String,
        netem: bool,
    },
}

fn sh(line: &str) -> bool {
    let status = Command::new("sh")
        .args(["-c", line])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

impl Net {
    /// Namespaces, a bridge and links; `None` where they cannot be had.
    fn spaces() -> Option<Net> {
        let name = format!("kc{}", std::process::id() % 10_000);
        let net = Net::Spaces {
            name: name.clone(),
            netem: false,
        };
        let mut lines = vec![
            format!("ip netns add {name}h"),
            format!("ip -n {name}h link add br0 type bridge"),
            format!("ip -n {name}h link set br0 up"),
        ];
        for (at, space) in net.places().into_iter().enumerate() {
            let address = match at {
                0..NODES => 10 + at,
                _ => 100 + at - NODES,
            };
            lines.extend([
                format!("ip netns add {space}"),
                format!("ip -n {space} link set lo up"),
                format!("ip link add v{at} netns {name}h type veth peer name eth0 netns {space}"),
                format!("ip -n {name}h link set v{at} master br0 up"),
                format!("ip -n {space} addr add 10.77.0.{address}/24 dev eth0"),
                format!("ip -n {space} link set eth0 up"),
            ]);
        }
        if !lines.iter().all(|line| sh(line)) {
            return None;
        }
        let device = format!("-n {name}h qdisc add dev v0 root netem delay 1ms");
        let netem =
            sh(&format!("tc {device}")) && sh(&format!("tc -n {name}h qdisc del dev v0 root"));
        // Dropped, it would take the namespaces with it.
        std::mem::forget(net);
        Some(Net::Spaces { name, netem })
    }

    fn places(&self) -> Vec<String> {
        let Net::Spaces { name, .. } = self else {
            return Vec::new();
        };
        let nodes = (0..NODES).map(|at| format!("{name}n{at}"));
        nodes
            .chain([format!("{name}A"), format!("{name}B")])
            .collect()
    }

    fn host(&self) -> String {
        match self {
            Net::Loopback { port } => format!("loop:{port}"),
            Net::Spaces { .. } => "10.77.0.".to_owned(),
        }
    }

    fn command(&self, place: usize, program: &str) -> Command {
        match self {
            Net::Loopback { .. } => Command::new(program),
            Net::Spaces { .. } => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &self.places()[place], program]);
                command
            }
        }
    }

    fn address(&self, at: usize) -> (String, u16) {
        match self {
            Net::Loopback { port } => ("127.0.0.1".to_owned(), port + at as u16),
            Net::Spaces { .. } => (format!("10.77.0.{}", 10 + at), PORT),
        }
    }

    fn has_netem(&self) -> bool {
        matches!(self, Net::Spaces { netem: true, .. })
    }

    /// Has the kernel treat all packets of a node so (netem); empty: as usual.
    fn shape(&self, at: usize, how: &str) {
        let Net::Spaces { name, .. } = self else {
            return;
        };
        let spaces = [
            (format!("{name}h"), format!("v{at}")),
            (self.places()[at].clone(), "eth0".into()),
        ];
        for (space, device) in spaces {
            sh(&format!("tc -n {space} qdisc del dev {device} root"));
            if !how.is_empty() {
                sh(&format!(
                    "tc -n {space} qdisc add dev {device} root netem {how}"
                ));
            }
        }
    }

    fn link(&self, at: usize, up: bool) {
        if let Net::Spaces { name, .. } = self {
            let how = if up { "up" } else { "down" };
            sh(&format!("ip -n {name}h link set v{at} {how}"));
        }
    }

    /// The worker cannot reach the node, which can be reached by the other: what the node answers it is dropped.
    fn cut(&self, at: usize, worker: usize, cut: bool) {
        if let Net::Spaces { .. } = self {
            let how = if cut { "add" } else { "del" };
            let space = &self.places()[at];
            let address = 100 + worker;
            sh(&format!(
                "ip -n {space} route {how} blackhole 10.77.0.{address}/32"
            ));
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Net::Spaces { name, .. } = self {
            let hub = format!("{name}h");
            for space in self.places().into_iter().chain([hub]) {
                sh(&format!("ip netns del {space}"));
            }
        }
    }
}

struct Cluster {
    net: Net,
    server: String,
    board: String,
    nodes: Vec<Option<Child>>,
    proxies: Vec<Option<Child>>,
}

impl Cluster {
    fn start(&mut self, at: usize, options: &[&str]) {
        let (host, public) = self.net.address(at);
        // Behind its proxy, if it has one.
        let proxied = !self.net.has_netem();
        let port = if proxied { public + 1000 } else { public };
        if proxied {
            let program = std::env::current_exe().expect("it runs");
            let mut command = self.net.command(at, program.to_str().expect("text"));
            let (listen, target) = (format!("{host}:{public}"), format!("{host}:{port}"));
            command.args(["proxy", &listen, &target, &self.board, &at.to_string()]);
            self.proxies[at] = Some(spawn(command));
        }
        let port = port.to_string();
        let mut command = self.net.command(at, &self.server);
        command
            .args([
                "-u", "root", "-U", "0", "-l", &host, "-p", &port, "-t", "1", "-m", "64",
            ])
            .args(options);
        self.nodes[at] = Some(spawn(command));
        self.wait(&host, &port, at);
        self.wait(&host, &public.to_string(), at);
    }

    /// Waits until it listens.
    fn wait(&self, host: &str, port: &str, at: usize) {
        let until = Instant::now() + Duration::from_secs(20);
        let program = std::env::current_exe().expect("it runs");
        let program = program.to_str().expect("text");
        while Instant::now() < until {
            // From the node's own place, so that links that are cut do not matter.
            let mut command = self.net.command(at, program);
            let asked = command.args(["ask", &format!("{host}:{port}")]).status();
            if asked.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("node {at} does not listen on {host}:{port}");
    }

    fn fake(&mut self, at: usize, kind: &str) {
        let (host, port) = self.net.address(at);
        let program = std::env::current_exe().expect("it runs");
        let mut command = self.net.command(at, program.to_str().expect("text"));
        command.args(["fake", kind, &format!("{host}:{port}")]);
        self.nodes[at] = Some(spawn(command));
    }

    fn kill(&mut self, at: usize) {
        for children in [&mut self.nodes, &mut self.proxies] {
            if let Some(mut child) = children[at].take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    fn signal(&self, at: usize, signal: &str) {
        if let Some(child) = &self.nodes[at] {
            sh(&format!("kill -{signal} {}", child.id()));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..NODES {
            self.kill(at);
        }
    }
}

fn spawn(mut command: Command) -> Child {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.expect("it starts")
}

// ---- phases ----

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Nothing,
    Kill,
    Stop,
    Packets,
    CutLink,
    Loss,
    Slow,
    Asymmetric,
    Garbage,
    Silence,
    Http,
    Full,
    Add,
    Remove,
    ReplaceTwo,
    Flap,
    AddAndLose,
    AllDown,
}

use Trouble::*;

const TROUBLES: [(Trouble, &str); 18] = [
    (Nothing, "nothing"),
    (Kill, "kill"),
    (Stop, "stop"),
    (Packets, "drop"),
    (CutLink, "cut link"),
    (Loss, "10 % loss"),
    (Slow, "+100 ms"),
    (Asymmetric, "asymmetric cut"),
    (Garbage, "garbage"),
    (Silence, "silence"),
    (Http, "HTTP answer"),
    (Full, "full node"),
    (Add, "add"),
    (Remove, "remove"),
    (ReplaceTwo, "replace two"),
    (Flap, "flap"),
    (AddAndLose, "add and lose one"),
    (AllDown, "all down"),
];

/// True if a node loses what it held. Clients believe a node that was away last for as long as there are notices about it
/// (docs/client.md): what only such a node holds is missing until then.
fn forgets(trouble: Trouble) -> bool {
    matches!(trouble, Kill | Garbage | Silence | Http | Full | AddAndLose)
}

/// How long after a node's return there are notices about it, with the time that its probe takes.
const FORGIVEN: Duration = Duration::from_millis(4300);

fn needs_spaces(trouble: Trouble) -> bool {
    matches!(trouble, Packets | CutLink | Asymmetric)
}

fn rest(span: Duration) {
    std::thread::sleep(span);
}

/// Does one phase: trouble for `span`, and then time to recover. Tells when the trouble was over.
fn phase(
    trouble: Trouble,
    at: usize,
    cluster: &mut Cluster,
    board: &Board,
    span: Duration,
) -> Instant {
    let list = board.get(Word::List);
    let spare = (0..NODES)
        .find(|&node| list >> node & 1 == 0)
        .expect("there are spares");
    let other = (0..NODES)
        .rev()
        .find(|&node| node != at && list >> node & 1 == 1)
        .expect("there are more");
    let bit = |node: usize| 1u64 << node;
    board.put(Word::Shock, now_us());
    let full = ["-M", "-m", "8"];
    match trouble {
        Nothing => rest(span),
        Kill | Full | Garbage | Silence | Http => {
            cluster.kill(at);
            match trouble {
                Full => {
                    cluster.start(at, &full);
                    fill(cluster, at);
                }
                Garbage => cluster.fake(at, "garbage"),
                Silence => cluster.fake(at, "silence"),
                Http => cluster.fake(at, "http"),
                _ => {}
            }
            rest(span);
            cluster.kill(at);
            cluster.start(at, &[]);
        }
        Stop => {
            cluster.signal(at, "STOP");
            rest(span);
            cluster.signal(at, "CONT");
        }
        Packets => {
            for worker in 0..2 {
                cluster.net.cut(at, worker, true);
            }
            rest(span);
            for worker in 0..2 {
                cluster.net.cut(at, worker, false);
            }
        }
        CutLink => {
            cluster.net.link(at, false);
            rest(span);
            cluster.net.link(at, true);
        }
        Loss | Slow => {
            let (how, proxied) = match trouble {
                Loss => ("loss 10%", 1),
                _ => ("delay 50ms", 2),
            };
            let word = Word::Proxies as u64 + at as u64;
            board.write_at(word, proxied);
            if cluster.net.has_netem() {
                cluster.net.shape(at, how);
            }
            rest(span);
            if cluster.net.has_netem() {
                cluster.net.shape(at, "");
            }
            board.write_at(word, 0);
        }
        Asymmetric => {
            cluster.net.cut(at, 0, true);
            rest(span);
            cluster.net.cut(at, 0, false);
        }
        Add => {
            board.put(Word::List, list | bit(spare));
            rest(span);
        }
        Remove => {
            board.put(Word::List, list & !bit(at));
            rest(span);
        }
        ReplaceTwo => {
            let mut new = list & !bit(at) & !bit(other);
            for node in (0..NODES).filter(|&node| list >> node & 1 == 0).take(2) {
                new |= bit(node);
            }
            board.put(Word::List, new);
            rest(span);
        }
        AddAndLose => {
            // One that died is replaced.
            cluster.kill(at);
            rest(span / 4);
            board.put(Word::List, (list | bit(spare)) & !bit(at));
            rest(span * 3 / 4);
            cluster.start(at, &[]);
        }
        Flap => {
            let until = Instant::now() + span;
            while Instant::now() < until {
                cluster.signal(at, "STOP");
                rest(span / 8);
                cluster.signal(at, "CONT");
                rest(span / 8);
            }
        }
        AllDown => {
            board.put(Word::Loss, 1);
            (0..NODES).for_each(|node| cluster.kill(node));
            rest(span / 2);
            (0..NODES).for_each(|node| cluster.start(node, &[]));
            board.put(Word::Returned, now_us());
            rest(span / 2);
        }
    }
    let healed = Instant::now();
    // The end of a failure is a change as well.
    board.put(Word::Shock, now_us());
    if list != board.get(Word::List) {
        // What moves away, and back by a later change, is old if nobody wrote it in the window (docs/client.md).
        board.put(Word::Anew, board.get(Word::Anew) + 1);
    }
    rest(span);
    if list != board.get(Word::List) {
        // Who left is empty before it comes again.
        for node in (0..NODES)
            .filter(|&node| list >> node & 1 == 1 && board.get(Word::List) >> node & 1 == 0)
        {
            cluster.kill(node);
            cluster.start(node, &[]);
        }
    }
    healed
}

/// Fills a node until it takes no more.
fn fill(cluster: &Cluster, at: usize) {
    let (host, port) = cluster.net.address(at);
    let program = std::env::current_exe().expect("it runs");
    let mut command = cluster.net.command(at, program.to_str().expect("text"));
    let _ = command.args(["fill", &format!("{host}:{port}")]).status();
}

fn fill_node(address: &str) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    for size in [4000, 500, 100, 20, 1] {
        for number in 0..20_000 {
            let line = format!(
                "ms fill:{size}:{number} {size} q\r\n{}\r\n",
                "x".repeat(size)
            );
            if stream.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"mn\r\n");
        // Errors come without being asked for; what matters is the end.
        let mut bytes = [0; 65536];
        let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if bytes[..count].ends_with(b"MN\r\n") {
                break;
            }
        }
    }
}

fn run(arguments: &[String]) -> bool {
    let server = arguments.first().expect("the server's path").clone();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let span = arguments
        .iter()
        .rev()
        .find_map(|argument| argument.strip_prefix("--phase-ms="));
    let span = span.map_or(800, |ms| ms.parse().expect("a number of milliseconds"));
    let span = Duration::from_millis(if has("--long") { 12_000 } else { span });
    let value = |name: &str| {
        arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(name))
    };
    let only: Option<Vec<&str>> = value("--only=").map(|names| names.split(',').collect());
    let repeat = value("--repeat=").map_or(1, |times| times.parse().expect("a number of times"));
    let net = if has("--loopback") {
        None
    } else {
        Net::spaces()
    };
    let net = net.unwrap_or_else(|| {
        let port = 20_000 + (std::process::id() % 20_000) as u16;
        Net::Loopback { port }
    });
    let spaced = matches!(net, Net::Spaces { .. });
    println!(
        "{}",
        if spaced {
            "in network namespaces"
        } else {
            "on loopback"
        }
    );
    let path = format!("/dev/shm/ketch-chaos-{}", std::process::id());
    let board = Board::open(&path);
    board
        .0
        .set_len(Board::key(ALL_KEYS, 0) * 8)
        .expect("there is room");
    board.put(Word::List, (1 << LISTED) - 1);
    let mut cluster = Cluster {
        net,
        server,
        board: path.clone(),
        nodes: (0..NODES).map(|_| None).collect(),
        proxies: (0..NODES).map(|_| None).collect(),
    };
    (0..NODES).for_each(|at| cluster.start(at, &[]));
    let program = std::env::current_exe().expect("it runs");
    // Longer than a phase with a change of the list.
    let window_ms = (3 * span).as_millis().to_string();
    let workers: Vec<Child> = ["A", "B"]
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let mut command = cluster
                .net
                .command(NODES + number, program.to_str().expect("text"));
            command.args(["worker", name, &cluster.net.host(), &path, &window_ms]);
            command.stdout(Stdio::piped()).spawn().expect("it starts")
        })
        .collect();
    rest(Duration::from_millis(300));
    let mut done = Vec::new();
    let chosen = |name: &str| only.as_ref().is_none_or(|only| only.contains(&name));
    let rounds = (0..repeat).flat_map(|_| TROUBLES.into_iter().filter(|(_, name)| chosen(name)));
    let mut healed = None;
    for (number, (trouble, name)) in rounds.enumerate() {
        if needs_spaces(trouble) && !spaced {
            println!("{name}: left out, it needs network namespaces");
            continue;
        }
        if forgets(trouble)
            && let Some(healed) = healed
        {
            rest(FORGIVEN.saturating_sub(Instant::now() - healed));
        }
        let list = board.get(Word::List);
        let listed: Vec<usize> = (0..NODES).filter(|node| list >> node & 1 == 1).collect();
        board.put(Word::Phase, number as u64 + 1);
        // Workers write all their keys anew.
        rest(Duration::from_millis(300));
        let at = listed[number % listed.len()];
        healed = Some(phase(trouble, at, &mut cluster, &board, span));
        done.push((number as u64 + 1, name));
    }
    board.put(Word::Phase, 0);
    board.put(Word::End, 1);
    let mut lines: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for worker in workers {
        let output = worker.wait_with_output().expect("a worker ends");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (phase, rest) = line.split_once(' ').expect("a line of a worker");
            lines
                .entry(phase.parse().expect("a phase"))
                .or_default()
                .push(rest.to_owned());
        }
    }
    let _ = std::fs::remove_file(&path);
    table(&done, &lines)
}

/// Prints what became of it; true if it is as promised.
fn table(done: &[(u64, &str)], lines: &BTreeMap<u64, Vec<String>>) -> bool {
    let mut good = true;
    println!(
        "{:<17} {:>10} {:>7} {:>6} {:>5} {:>9} {:>12} {:>8} {:>12} {:>9} {:>10}",
        "phase",
        "operations",
        "errors",
        "(full)",
        "lost",
        "own stale",
        "other's stale",
        "(named)",
        "resurrected",
        "wrong key",
        "p99 reads"
    );
    let mut stories = HashSet::new();
    for &(number, name) in done {
        let mut sums = [0u64; 9];
        let mut reads: Vec<(u32, u32)> = Vec::new();
        let mut late_us = 0u64;
        for line in lines.get(&number).into_iter().flatten() {
            let (figures, story) = line.split_once('|').expect("figures and a story");
            let words: Vec<&str> = figures.split(' ').collect();
            for (sum, word) in sums.iter_mut().zip(&words) {
                *sum += word.parse::<u64>().expect("a number");
            }
            let weight = words[10].parse().expect("a number");
            late_us = late_us.max(words[11].parse().expect("a number"));
            let times = words[9].split(',').filter_map(|time| time.parse().ok());
            reads.extend(times.map(|time: u32| (time, weight)));
            if !story.is_empty() {
                stories.insert(format!("{name}: {story}"));
            }
        }
        reads.sort_unstable();
        let total: u64 = reads.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let mut below = 0;
        let p99 = reads.iter().find(|&&(_, weight)| {
            below += u64::from(weight);
            below * 100 >= total * 99
        });
        let p99_us = p99.map_or(0, |&(time, _)| time);
        let [
            operations,
            errors,
            full,
            lost,
            own,
            others,
            named,
            back,
            wrong,
        ] = sums;
        println!(
            "{name:<17} {operations:>10} {errors:>7} {full:>6} {lost:>5} {own:>9} {others:>12} {named:>8} {back:>12} {wrong:>9} {:>7}.{} ms",
            p99_us / 1000,
            p99_us / 100 % 10
        );
        let down = name == "all down";
        if down {
            println!(
                "{:17} the last operation that failed began {} ms after all nodes were back",
                "",
                late_us / 1000
            );
            good &= late_us <= BACK.as_micros() as u64;
        }
        good &= own + others + back + wrong == 0 && (down || errors + lost == 0);
        // A measure, not a promise: the machine may be busy with something else.
        if !down && p99_us >= 25_000 {
            stories.insert(format!("{name}: p99 of reads above 25 ms"));
        }
    }
    for story in stories {
        println!("  {story}");
    }
    println!(
        "{}",
        if good {
            "as promised"
        } else {
            "NOT AS PROMISED"
        }
    );
    good
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["worker", name, host, path, window_ms] => {
            worker(name, host, path, window_ms.parse().expect("milliseconds"));
        }
        ["fake", kind, address] => fake(kind, address),
        ["proxy", listen, target, path, at] => {
            proxy(listen, target, path, at.parse().expect("a number"));
        }
        ["fill", address] => fill_node(address),
        ["ask", address] => {
            let code = i32::from(TcpStream::connect(address).is_err());
            std::process::exit(code);
        }
        ["run", ..] => {
            if !run(&arguments[1..]) {
                std::process::exit(1);
            }
        }
        _ => {
            eprintln!(
                "usage: chaos run SERVER [--long | --phase-ms=N] [--loopback] [--only=PHASE,..] [--repeat=N]"
            )
        }
    }
}
