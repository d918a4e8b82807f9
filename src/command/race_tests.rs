//! Verbs that make a new item from the one they find, while memory is short: another client may do anything to the key
//! before they go on, and none of it may be lost, mixed up, or joined with what nobody stored.
//!
//! ```text
//!  races            threads and a full cache: each trial must be explained by some order of its commands
//!  interruptions    every verb that makes an item, and between its turns every other verb on the same key
//! ```
//!
//! `KETCH_RACE_TRIALS=100000 cargo test --release -p ketch --lib races -- --nocapture` is the long form of the first.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex};

use super::testing::Server;
use crate::cache::Policy;
use crate::cache::testing::{self, Rng, small_cache, small_cache_with};
use crate::knobs::Knob;
use crate::settings::Settings;

/// One command on the key of a race.
#[derive(Debug, Clone)]
enum Op {
    Set(Vec<u8>),
    /// `ms` with a unique of the client's own, always the same.
    SetAs55(Vec<u8>),
    Delete,
    Append(Vec<u8>),
    Prepend(Vec<u8>),
    /// `ms MA N0`.
    AppendOrBegin(Vec<u8>),
    Incr(u64),
    Decr(u64),
    /// `md x`.
    DropValue,
}

type Value = Option<Vec<u8>>;

impl Op {
    fn request(&self, key: &str) -> Vec<u8> {
        let block =
            |line: String, value: &[u8]| [line.as_bytes(), b"\r\n", value, b"\r\n"].concat();
        match self {
            Op::Set(value) => block(format!("set {key} 0 0 {}", value.len()), value),
            Op::SetAs55(value) => block(format!("ms {key} {} E55", value.len()), value),
            Op::Delete => format!("delete {key}\r\n").into(),
            Op::Append(value) => block(format!("append {key} 0 0 {}", value.len()), value),
            Op::Prepend(value) => block(format!("prepend {key} 0 0 {}", value.len()), value),
            Op::AppendOrBegin(value) => block(format!("ms {key} {} MA N0", value.len()), value),
            Op::Incr(by) => format!("incr {key} {by}\r\n").into(),
            Op::Decr(by) => format!("decr {key} {by}\r\n").into(),
            Op::DropValue => format!("md {key} x\r\n").into(),
        }
    }

    /// What it may answer to a key of this value, and what it leaves: done, or refused for want of memory.
    fn outcomes(&self, value: &Value) -> Vec<(String, Value)> {
        let no_memory = |left: &Value| ("SERVER_ERROR".to_string(), left.clone());
        let joined = |parts: [&[u8]; 2]| Some(parts.concat());
        match (self, value) {
            (Op::Set(new), _) => vec![("STORED".into(), Some(new.clone())), no_memory(&None)],
            (Op::SetAs55(new), _) => vec![("HD".into(), Some(new.clone())), no_memory(&None)],
            (Op::Delete, Some(_)) => vec![("DELETED".into(), None)],
            (Op::Delete | Op::Incr(_) | Op::Decr(_), None) => vec![("NOT_FOUND".into(), None)],
            (Op::DropValue, None) => vec![("NF".into(), None)],
            (Op::DropValue, Some(_)) => vec![("HD".into(), Some(vec![])), no_memory(value)],
            (Op::Append(_) | Op::Prepend(_), None) => vec![("NOT_STORED".into(), None)],
            (Op::Append(new), Some(old)) => vec![
                ("STORED".into(), joined([old, new])),
                ("NOT_STORED".into(), value.clone()),
            ],
            (Op::Prepend(new), Some(old)) => vec![
                ("STORED".into(), joined([new, old])),
                ("NOT_STORED".into(), value.clone()),
            ],
            (Op::AppendOrBegin(new), None) => vec![("HD".into(), Some(new.clone()))],
            (Op::AppendOrBegin(new), Some(old)) => {
                vec![
                    ("HD".into(), joined([old, new])),
                    ("NS".into(), value.clone()),
                ]
            }
            (Op::Incr(by), Some(old)) => counted(old, |number| number + by),
            (Op::Decr(by), Some(old)) => counted(old, |number| number.saturating_sub(*by)),
        }
    }
}

fn counted(old: &[u8], count: impl Fn(u64) -> u64) -> Vec<(String, Value)> {
    let refused = |why: &str| (why.to_string(), Some(old.to_vec()));
    let text = std::str::from_utf8(old).expect("text").trim();
    let Ok(number) = text.parse() else {
        return vec![refused("CLIENT_ERROR")];
    };
    let digits = count(number).to_string();
    let new = format!("{digits:<0$}", old.len()).into_bytes();
    vec![(digits, Some(new)), refused("SERVER_ERROR")]
}

/// A client's commands, and what it was answered.
type Told<'t> = &'t [(Op, String)];

/// True if some order of the commands gives these replies and this value in the end; at any moment the item may be evicted.
fn explains(value: &Value, clients: [Told<'_>; 2], left: &Value) -> bool {
    if clients.iter().all(|told| told.is_empty()) {
        return value == left || left.is_none();
    }
    (0..2).any(|nth| {
        let Some(((op, reply), rest)) = clients[nth].split_first() else {
            return false;
        };
        let mut after = clients;
        after[nth] = rest;
        let mut outcomes = op.outcomes(value);
        outcomes.extend(op.outcomes(&None));
        outcomes
            .into_iter()
            .any(|(told, value)| reply.starts_with(&told) && explains(&value, after, left))
    })
}

struct Race {
    server: Server,
    key: String,
    /// Values, and bytes of each, that go in between two trials: they take back every page that a trial was given.
    refill: (usize, usize),
    /// Trials may end without a value.
    may_vanish: bool,
    setup: Op,
    /// What two clients do at the same time.
    clients: [Vec<Op>; 2],
}

impl Race {
    fn new(megabytes: usize, refill: (usize, usize), setup: Op, clients: [Vec<Op>; 2]) -> Self {
        Race {
            server: Server::over(Settings::default(), small_cache(megabytes)),
            key: "k".into(),
            refill,
            may_vanish: clients[1].iter().all(|op| matches!(op, Op::Delete)),
            setup,
            clients,
        }
    }

    fn without_cas(mut self) -> Self {
        self.server = Server::over(Settings::default(), small_cache_with(8, false));
        self
    }

    fn with_policy(self, policy: Policy) -> Self {
        let tuning = &self.server.shared.cache.tuning;
        tuning.set(Knob::Eviction, policy as u32);
        self
    }

    /// The shortest key with which a number of three digits needs a larger chunk than one of two.
    fn with_key_before_a_class(mut self) -> Self {
        let class = |key: &str, number: u32| {
            let digits = number.to_string();
            let set = format!(
                "set {key} 0 0 {}\r\n{digits}\r\nme {key}\r\ndelete {key}\r\n",
                digits.len()
            );
            let told = self.server.ask(&set);
            let (_, class) = told.split_once("cls=").expect("me tells the class");
            class.split(' ').next().expect("a number").to_string()
        };
        let key = (1..250)
            .map(|len| "c".repeat(len))
            .find(|key| class(key, 99) != class(key, 100));
        self.key = key.expect("some length is the last of its class");
        self
    }

    fn ask(&self, worker: usize, op: &Op) -> String {
        let reply = self.server.ask_worker(worker, &op.request(&self.key));
        String::from_utf8(reply)
            .expect("text")
            .trim_end()
            .to_string()
    }

    fn value(&self) -> Value {
        let got = self
            .server
            .ask_worker(0, format!("mg {} v\r\n", self.key).as_bytes());
        let line_end = got.iter().position(|&byte| byte == b'\n').expect("a line");
        let has_value = got.starts_with(b"VA ");
        has_value.then(|| got[line_end + 1..got.len() - 2].to_vec())
    }

    fn run(&self, name: &str) {
        let trials: u64 = std::env::var("KETCH_RACE_TRIALS").map_or(TRIALS, |trials| {
            trials.parse().expect("KETCH_RACE_TRIALS is a number")
        });
        let (refill, filler_len) = self.refill;
        let filler = "S".repeat(filler_len);
        let set_filler = |worker, n: usize| {
            let set = format!("set f{n} 0 0 {filler_len} noreply\r\n{filler}\r\n");
            self.server.ask_worker(worker, set.as_bytes());
        };
        // Each under a new key: what replaced another would take no memory.
        let mut filled = 0;
        let mut fill = |count: usize| {
            (filled..filled + count).for_each(|n| set_filler(0, n));
            filled += count;
        };
        fill(self.server.shared.cache.limit_bytes() / filler_len + 100);
        let (begun, ended, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let told_by_other = Mutex::new(Vec::new());
        let mut rng = Rng::new(1);
        let (mut wrong, mut evicted, mut refused) = (0, 0, 0);
        let turns_before = testing::turns_repeated();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut rng = Rng::new(2);
                for trial in 1.. {
                    while begun.load(Acquire) < trial {
                        if done.load(Acquire) {
                            return;
                        }
                        std::thread::yield_now();
                    }
                    pause(&mut rng);
                    let told = self.clients[1]
                        .iter()
                        .map(|op| (op.clone(), self.ask(1, op)));
                    *told_by_other.lock().unwrap() = told.collect();
                    ended.store(trial, Release);
                }
            });
            scope.spawn(|| {
                let mut rng = Rng::new(3);
                while !done.load(Acquire) {
                    set_filler(2, rng.below(1000));
                    std::thread::yield_now();
                }
            });
            for trial in 1..=trials {
                fill(refill);
                self.ask(0, &Op::Delete);
                self.ask(0, &self.setup);
                fill(refill.min(16));
                let value = self.value();
                begun.store(trial, Release);
                pause(&mut rng);
                let told = self.clients[0]
                    .iter()
                    .map(|op| (op.clone(), self.ask(0, op)));
                let told: Vec<_> = told.collect();
                while ended.load(Acquire) < trial {
                    std::thread::yield_now();
                }
                let other = std::mem::take(&mut *told_by_other.lock().unwrap());
                let left = self.value();
                let has_no_memory = |(_, reply): &(Op, String)| reply.starts_with("SERVER_ERROR");
                refused += u64::from(told.iter().chain(&other).any(has_no_memory));
                evicted += u64::from(value.is_none() || left.is_none());
                if !explains(&value, [&told, &other], &left) {
                    wrong += 1;
                    if wrong < 4 {
                        let replies: Vec<_> =
                            told.iter().chain(&other).map(|(_, reply)| reply).collect();
                        println!(
                            "{name}, trial {trial}: {replies:?} and then {}",
                            short(&left)
                        );
                    }
                }
            }
            done.store(true, Release);
        });
        let turns = testing::turns_repeated() - turns_before;
        println!(
            "{name}: {trials} trials, {turns} further turns, {evicted} evicted, {refused} refused, {wrong} wrong"
        );
        assert_eq!(wrong, 0, "{name}");
        assert!(
            turns > trials / 100,
            "{name}: memory was not short, nothing was tried"
        );
        assert!(
            self.may_vanish || evicted + refused < trials / 10,
            "{name}: the key did not last"
        );
        self.server.shared.cache.check_invariants();
    }
}

/// Trials of each race, unless the environment says otherwise: a second or two.
const TRIALS: u64 = 1500;

/// Lets a client begin somewhat later than the other.
fn pause(rng: &mut Rng) {
    for _ in 0..rng.below(4000) {
        std::hint::spin_loop();
    }
}

fn short(value: &Value) -> String {
    let Some(value) = value else {
        return "no value".into();
    };
    let mut runs: Vec<(u8, usize)> = Vec::new();
    for &byte in value {
        match runs.last_mut() {
            Some((last, count)) if *last == byte => *count += 1,
            _ => runs.push((byte, 1)),
        }
    }
    let shown = runs
        .iter()
        .take(12)
        .map(|(byte, count)| format!("{count}x{}", byte.escape_ascii()));
    format!(
        "{} bytes: {}",
        value.len(),
        shown.collect::<Vec<_>>().join(" ")
    )
}

fn bytes(letter: u8, len: usize) -> Vec<u8> {
    vec![letter; len]
}

mod races {
    use super::*;

    /// A value of 6000 that is extended by 19,900, beside others who replace it. What is added has the size of those that
    /// fill the cache, so that it is made at once; what comes of both is of a class without a page.
    fn extended(op: fn(Vec<u8>) -> Op, others: Vec<Op>) -> Race {
        let setup = Op::Set(bytes(b'a', 6000));
        Race::new(
            8,
            (8, 20_000),
            setup,
            [vec![op(bytes(b't', 19_900))], others],
        )
    }

    fn replaced(len: usize) -> Vec<Op> {
        vec![Op::Delete, Op::Set(bytes(b'b', len))]
    }

    #[test]
    fn append_beside_a_shorter_value() {
        extended(Op::Append, replaced(5700)).run("append, shorter");
    }

    #[test]
    fn append_beside_a_longer_value() {
        extended(Op::Append, replaced(8100)).run("append, longer");
    }

    #[test]
    fn append_beside_a_value_in_one_chunk_that_becomes_small() {
        extended(Op::Append, replaced(100)).run("append, small");
    }

    #[test]
    fn prepend_beside_another_value() {
        extended(Op::Prepend, replaced(5700)).run("prepend, shorter");
    }

    #[test]
    fn append_without_cas_uniques() {
        extended(Op::Append, replaced(5700))
            .without_cas()
            .run("append, -C");
    }

    #[test]
    fn append_under_slru() {
        extended(Op::Append, replaced(5700))
            .with_policy(Policy::Slru)
            .run("append, slru");
    }

    #[test]
    fn append_beside_a_value_with_the_same_unique() {
        let others = vec![Op::Delete, Op::SetAs55(bytes(b'b', 5700))];
        let mut race = extended(Op::Append, others);
        race.setup = Op::SetAs55(bytes(b'a', 6000));
        race.run("append, E55");
    }

    #[test]
    fn append_or_begin_beside_delete() {
        extended(Op::AppendOrBegin, vec![Op::Delete]).run("ms MA N0, delete");
    }

    #[test]
    fn append_beside_append() {
        extended(Op::Append, vec![Op::Append(bytes(b'u', 3500))]).run("append, append");
    }

    #[test]
    fn incr_beside_decr() {
        let setup = Op::Set(b"99".to_vec());
        Race::new(
            8,
            (8, 20_000),
            setup,
            [vec![Op::Incr(1)], vec![Op::Decr(10)]],
        )
        .with_key_before_a_class()
        .run("incr, decr");
    }

    #[test]
    fn incr_beside_decr_without_cas_uniques() {
        let setup = Op::Set(b"99".to_vec());
        Race::new(
            8,
            (8, 20_000),
            setup,
            [vec![Op::Incr(1)], vec![Op::Decr(10)]],
        )
        .without_cas()
        .with_key_before_a_class()
        .run("incr, decr, -C");
    }

    #[test]
    fn a_value_dropped_beside_another() {
        let setup = Op::Set(bytes(b'a', 6000));
        Race::new(8, (8, 20_000), setup, [vec![Op::DropValue], replaced(5700)]).run("md x");
    }
}

mod interruptions {
    use super::*;

    const SIZES: [usize; 5] = [1, 900, 6000, 40_000, 600_000];

    fn block(line: &str, value: &str) -> Vec<u8> {
        format!("{line}\r\n{value}\r\n").into_bytes()
    }

    fn set(value: &str) -> Vec<u8> {
        block(&format!("ms k {} F7 T500 E55", value.len()), value)
    }

    /// A binary request about the key `k`.
    fn packet(opcode: u8, extras: &[u8], value: &[u8]) -> Vec<u8> {
        let body_len = (extras.len() + 1 + value.len()) as u32;
        let mut packet = vec![0x80, opcode, 0, 1, extras.len() as u8, 0, 0, 0];
        packet.extend(body_len.to_be_bytes());
        packet.extend([0; 12]);
        [&packet, extras, b"k", value].concat()
    }

    fn counting(delta: u64, initial: u64, exptime: u32) -> Vec<u8> {
        [
            &delta.to_be_bytes()[..],
            &initial.to_be_bytes(),
            &exptime.to_be_bytes(),
        ]
        .concat()
    }

    /// What the key may be before.
    fn setups() -> Vec<Vec<u8>> {
        let mut setups = vec![b"delete k\r\n".to_vec(), set("99"), set("9999999999")];
        setups.extend(SIZES.map(|len| set(&"a".repeat(len))));
        setups.push([set("99"), b"md k I T30\r\n".to_vec()].concat());
        setups.push([set("99"), b"mg k R600\r\n".to_vec()].concat());
        setups
    }

    /// The verbs that make an item from what they find.
    fn makers() -> Vec<Vec<u8>> {
        let mut makers = vec![
            b"incr k 1\r\n".to_vec(),
            b"decr k 1\r\n".to_vec(),
            b"ma k N40 J5 E9 t v\r\n".to_vec(),
            b"ma k C55 D100000000 t v k\r\n".to_vec(),
            b"md k x\r\n".to_vec(),
            b"md k x I T30 E77\r\n".to_vec(),
            b"md k x C55 q\r\n".to_vec(),
            b"mg k N30 t v s f\r\n".to_vec(),
            block("ms k 3 MA C55", "ttt"),
            block("ms k 3 MA N60", "ttt"),
            block("ms k 3 MP N60 E66", "ttt"),
            packet(0x05, &counting(1, 7, 0), b""),
            packet(0x05, &counting(1, 7, u32::MAX), b""),
            packet(0x06, &counting(1, 7, 0), b""),
            packet(0x0e, b"", b"ttt"),
            packet(0x0f, b"", b"ttt"),
        ];
        for len in [3, 3000, 50_000] {
            let tail = "t".repeat(len);
            makers.push(block(&format!("append k 0 0 {len}"), &tail));
            makers.push(block(&format!("prepend k 0 0 {len}"), &tail));
        }
        makers
    }

    /// What another client may do in between.
    fn others() -> Vec<Vec<u8>> {
        let delete = || b"delete k\r\n".to_vec();
        let mut others = vec![
            delete(),
            b"get k\r\n".to_vec(),
            b"gat 77 k\r\n".to_vec(),
            b"touch k 0\r\n".to_vec(),
            b"touch k -1\r\n".to_vec(),
            b"mg k T99 N3 v\r\n".to_vec(),
            b"incr k 1\r\n".to_vec(),
            b"decr k 90\r\n".to_vec(),
            b"ma k N50 J9\r\n".to_vec(),
            b"md k I\r\n".to_vec(),
            b"md k x\r\n".to_vec(),
            b"md k x E55\r\n".to_vec(),
            b"flush_all\r\n".to_vec(),
            [delete(), set("89")].concat(),
            [delete(), set("no number")].concat(),
            block("append k 0 0 2", "uu"),
            block("prepend k 0 0 3000", &"u".repeat(3000)),
            block("add k 3 0 5", "added"),
            block("replace k 4 0 8", "replaced"),
            block("cas k 5 0 2 55", "12"),
            block("ms k 2 MA N0", "34"),
            block("ms k 2 ME", "56"),
            block("ms k 2 MR", "78"),
            block("ms k 2 C54 I", "90"),
            packet(0x04, b"", b""),
        ];
        for len in SIZES {
            others.push(set(&"b".repeat(len)));
            others.push([delete(), set(&"c".repeat(len))].concat());
        }
        others
    }

    fn full_server() -> Server {
        let server = Server::over(Settings::default(), small_cache(8));
        for n in 0..500 {
            server.ask(&format!(
                "set f{n} 0 0 20000 noreply\r\n{}\r\n",
                "s".repeat(20_000)
            ));
        }
        server
    }

    /// Without the unique of a binary reply, which the server chose.
    fn without_unique(mut reply: Vec<u8>) -> Vec<u8> {
        if reply.first() == Some(&0x81) {
            reply[16..24].fill(0);
        }
        reply
    }

    /// The item, but for its unique.
    fn state(server: &Server) -> Vec<u8> {
        server.ask_worker(0, b"mg k k s v f t h\r\n")
    }

    /// Whatever happens to the key between two turns of a verb, it is as if the verb had come behind it.
    #[test]
    fn by_every_other_verb() {
        let short = Arc::new(full_server());
        let roomy = Server::over(Settings::default(), small_cache(64));
        let mut count = 0;
        for setup in setups() {
            for maker in makers() {
                for other in others() {
                    roomy.ask_worker(0, &setup);
                    let other_expected = roomy.ask_worker(0, &other);
                    let reply_expected = without_unique(roomy.ask_worker(0, &maker));
                    let expected = (reply_expected, Some(other_expected), state(&roomy));

                    short.ask_worker(0, &setup);
                    let told = Arc::new(Mutex::new(None));
                    let interrupt = {
                        let (short, told, other) = (short.clone(), told.clone(), other.clone());
                        move || *told.lock().unwrap() = Some(short.ask_worker(1, &other))
                    };
                    testing::set_between_turns(interrupt);
                    let reply = without_unique(short.ask_worker(0, &maker));
                    testing::clear_between_turns();
                    let told = told.lock().unwrap().take();
                    if told.is_some() {
                        count += 1;
                    } else {
                        // It made no item, so that nothing came in between: the other comes behind.
                        short.ask_worker(1, &other);
                        continue;
                    }
                    let got = (reply, told, state(&short));
                    assert!(
                        got == expected,
                        "{} | {} | {}\n{} instead of {}",
                        head(&setup),
                        head(&maker),
                        head(&other),
                        head(&got.0),
                        head(&expected.0),
                    );
                }
            }
            short.shared.cache.check_invariants();
        }
        println!("{count} interruptions");
        assert!(count > 3000, "{count}");
    }

    fn head(request: &[u8]) -> String {
        request[..request.len().min(60)].escape_ascii().to_string()
    }

    /// Another client changes the value's size again and again: the verb ends, as there is memory.
    #[test]
    fn again_and_again() {
        let server = Arc::new(full_server());
        for len in [100, 6000, 100_000] {
            server.ask_worker(0, &set(&"a".repeat(len)));
            let interrupt = {
                let (server, mut turn) = (server.clone(), 0);
                move || {
                    turn += 1;
                    let value = "b".repeat(len * (turn % 3 + 1) + turn);
                    server.ask_worker(1, &set(&value));
                    for n in 0..30 {
                        server.ask(&format!(
                            "set f{n} 0 0 20000 noreply\r\n{}\r\n",
                            "s".repeat(20_000)
                        ));
                    }
                }
            };
            let turns = testing::turns_repeated();
            testing::set_between_turns(interrupt);
            let reply = server.ask(&format!("append k 0 0 10\r\n{}\r\n", "t".repeat(10)));
            testing::clear_between_turns();
            let left = server.ask("mg k v\r\n");
            println!(
                "{len}: {} turns, {reply:?}",
                testing::turns_repeated() - turns
            );
            assert_eq!(reply, "STORED\r\n");
            let value = left.split("\r\n").nth(1).expect("a value");
            assert!(value.ends_with(&"t".repeat(10)));
            assert!(value.trim_end_matches('t').bytes().all(|byte| byte == b'b'));
        }
    }
}
