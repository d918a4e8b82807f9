//! What several clients saw of keys that they all use at once, with two copies of each on real nodes: for what docs/client.md promises,
//! each key's history must be one story (`ketch_testing::linear`). Every client is one of its own, as in another process.
//!
//! ```text
//!  many writers of keys that are there ......... one story, told by the copy that decides
//!  set, get, delete without read repair ........ one story too: nothing comes back
//!  locks by add, with readers that repair ...... never two holders
//!  one writer, nodes that stop and go on, or die  reads what it wrote last, or nothing
//! ```
//!
//! Left out is what docs/client.md excepts: what the other copy says where the first lacks the key, as copies have no order between
//! them, with it a deleted value in the moment of its repair, and an `add` that is taken back. `KETCH_HISTORIES` says how many
//! keys are tried in each test.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::{Cas, CasUnique, Client, ClientOptions};
use ketch_testing::linear::{Answer, Ask, OPS_MAX, Op, Value, is_linear, token_bytes};
use ketch_testing::{Kind, Rng, Server};

use crate::as_node::AsNode;
use crate::patience::patient;

const CLIENTS: usize = 5;
/// Keys that are in use at one time: the even ones hold text, the odd ones counters.
const KEYS: usize = 4;
/// How long a node may take before another is asked, where nodes stop.
const AWAY: Duration = Duration::from_millis(60);
/// Operations of a client on one key.
const OPS: usize = OPS_MAX / CLIENTS;

fn histories() -> usize {
    let given = std::env::var("KETCH_HISTORIES").ok();
    given.map_or(120, |text| {
        text.parse().expect("KETCH_HISTORIES is a number")
    })
}

/// The sizes of tokens.
const SIZES: [usize; 4] = [9, 60, 2100, 9000];

/// What a value says; one that nobody stored ends the test.
fn value_of(bytes: &[u8]) -> Value {
    let text = std::str::from_utf8(bytes).expect("text was stored");
    let Some(tokens) = text.strip_suffix(';') else {
        return Value::Number(text.trim_end_matches(' ').parse().expect("a counter"));
    };
    let tokens = tokens.split(';').map(|token| {
        let number: u32 = token[..8].parse().expect("a token begins with its number");
        assert!(
            token_bytes(number, &SIZES) == format!("{token};").into_bytes(),
            "token {number} is cut or torn"
        );
        number
    });
    Value::Tokens(tokens.collect())
}

/// A unique and the node that it is of, as one number.
fn told(unique: CasUnique) -> u64 {
    unique.number << 16 | node_of(unique.node)
}

fn node_of(unique: u64) -> u64 {
    unique & 0xffff
}

/// Of a key's uniques, those of the node that decides say whether its value has changed. A read that misses there, and then finds the
/// value on the other copy, was told another: `cas` with that is a conflict.
fn keep_uniques_of_the_decider(ops: &mut [Op]) {
    let uniques = ops.iter().filter_map(|op| match op.answer {
        Answer::Found(_, Some(unique)) => Some(node_of(unique)),
        _ => None,
    });
    let mut seen = BTreeMap::new();
    for node in uniques {
        *seen.entry(node).or_insert(0) += 1;
    }
    let decider = seen.into_iter().max_by_key(|(_, count)| *count);
    for op in ops {
        if let Answer::Found(_, unique) = &mut op.answer {
            *unique = unique.filter(|unique| Some(node_of(*unique)) == decider.map(|it| it.0));
        }
    }
}

/// One client of a trial.
struct Caller<'a> {
    client: &'a Client,
    number: usize,
    rng: Rng,
    tokens: &'a AtomicU32,
    start: Instant,
    /// What it saw last of each key.
    seen: [Option<CasUnique>; KEYS],
}

impl Caller<'_> {
    /// Asks it of the key. `None` for a read that failed, which tells nothing.
    fn do_one(&mut self, key: &str, at: usize, ask: Ask) -> Option<Op> {
        let called_ns = self.start.elapsed().as_nanos() as u64;
        let client = self.client;
        let stored = |done: bool| match done {
            true => Answer::Stored(None),
            false => Answer::NotStored,
        };
        let number = |counted: Option<u64>| counted.map_or(Answer::Missing, Answer::Number);
        let done = |done: bool| if done { Answer::Done } else { Answer::Missing };
        let answer = match &ask {
            Ask::Set(value) => client
                .set(key, value.bytes(&SIZES), None)
                .map(|()| stored(true)),
            Ask::Add(value) => client.add(key, value.bytes(&SIZES), None).map(stored),
            Ask::Replace(value) => client.replace(key, value.bytes(&SIZES), None).map(stored),
            Ask::Append(token) => client.append(key, token_bytes(*token, &SIZES)).map(stored),
            Ask::Prepend(token) => client.prepend(key, token_bytes(*token, &SIZES)).map(stored),
            Ask::Incr(by) => client.incr(key, *by).map(number),
            Ask::Decr(by) => client.decr(key, *by).map(number),
            Ask::Touch => client.touch(key, Duration::from_secs(1000)).map(done),
            // It may have met the value of a `set` under way on the other copy alone.
            Ask::Delete => client.delete(key).map(|found| match found {
                true => Answer::Gone,
                false => Answer::Missing,
            }),
            Ask::Cas(value, _) => {
                let unique = self.seen[at].expect("it was seen");
                client
                    .cas(key, value.bytes(&SIZES), unique, None)
                    .map(|cas| match cas {
                        Cas::Stored => Answer::Stored(None),
                        Cas::Conflict => Answer::Exists,
                        Cas::Missing => Answer::Missing,
                    })
            }
            // Without a unique any copy may be asked, as the options have it.
            Ask::Get if self.rng.one_in(2) => client.get(key).map(|found| match found {
                Some(item) => Answer::Found(value_of(&item.value), None),
                None => Answer::Missing,
            }),
            Ask::Get => client.gets(key).map(|found| match found {
                Some((item, unique)) => {
                    self.seen[at] = Some(unique);
                    Answer::Found(value_of(&item.value), Some(told(unique)))
                }
                None => Answer::Missing,
            }),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if matches!(ask, Ask::Get) => return None,
            // Done before its client knew that it may not be, or never.
            Err(_) => Answer::Unknown,
        };
        Some(Op {
            client: self.number,
            called_ns,
            returned_ns: self.start.elapsed().as_nanos() as u64,
            ask,
            answer,
        })
    }

    fn text(&self) -> Value {
        Value::Tokens(vec![self.tokens.fetch_add(1, Relaxed)])
    }

    /// What to ask of a key.
    fn ask(&mut self, at: usize, asks: Asks) -> Ask {
        let counter = at % 2 == 1;
        let value = match counter {
            true => Value::Number(self.rng.below(100)),
            false => self.text(),
        };
        if let Asks::Deletes = asks {
            return match self.rng.below(6) {
                0 | 1 => Ask::Set(value),
                2 => Ask::Delete,
                _ => Ask::Get,
            };
        }
        match self.rng.below(13) {
            0..=2 => Ask::Set(value),
            3 => Ask::Replace(value),
            4 | 5 if counter => Ask::Incr(1 + self.rng.below(9)),
            6 if counter => Ask::Decr(1 + self.rng.below(9)),
            4 | 5 => Ask::Append(self.tokens.fetch_add(1, Relaxed)),
            6 => Ask::Prepend(self.tokens.fetch_add(1, Relaxed)),
            7 | 8 => match self.seen[at] {
                Some(unique) => Ask::Cas(value, told(unique)),
                None => Ask::Get,
            },
            9 => Ask::Touch,
            _ => Ask::Get,
        }
    }
}

/// What the clients of a trial ask.
#[derive(Clone, Copy)]
enum Asks {
    /// All that changes an item that is there.
    Updates,
    /// `set`, `get` and `delete`.
    Deletes,
}

/// The nodes of a ring.
fn ring() -> Vec<Server> {
    (0..3).map(|_| Kind::Ketch.start()).collect()
}

fn client(servers: &[Server], options: &ClientOptions) -> Client {
    Client::new(servers.iter().map(Server::node), options.clone())
}

/// Records what `CLIENTS` clients see of `keys` keys, `KEYS` at a time, as `round` has them ask, until all are done.
fn record(
    servers: &[Server],
    options: &ClientOptions,
    rounds: usize,
    round: impl Fn(&mut Caller<'_>, usize) -> Vec<(usize, Op)> + Sync,
) -> Vec<Vec<Op>> {
    let (tokens, start, barrier) = (AtomicU32::new(1), Instant::now(), Barrier::new(CLIENTS));
    let mut seeds = Rng::from_env("client histories");
    let mut by_key: Vec<Vec<Op>> = vec![Vec::new(); rounds * KEYS];
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (seed, tokens, barrier, round) = (seeds.bits(), &tokens, &barrier, &round);
                scope.spawn(move || {
                    let client = client(servers, options);
                    let mut all = Vec::new();
                    let mut caller = Caller {
                        client: &client,
                        number,
                        rng: Rng::new(seed),
                        tokens,
                        start,
                        seen: [None; KEYS],
                    };
                    for nth in 0..rounds {
                        caller.seen = [None; KEYS];
                        barrier.wait();
                        let done = round(&mut caller, nth);
                        all.extend(done.into_iter().map(|(at, op)| (nth * KEYS + at, op)));
                    }
                    all
                })
            })
            .collect();
        for caller in callers {
            let all = caller
                .join()
                .expect("a caller that saw only what was stored");
            all.into_iter().for_each(|(key, op)| by_key[key].push(op));
        }
    });
    by_key
}

#[track_caller]
fn assert_linear(by_key: &[Vec<Op>], may_vanish: bool) {
    for (key, ops) in by_key.iter().enumerate() {
        let told = || ops.iter().map(|op| format!("{op:?}\n")).collect::<String>();
        assert!(is_linear(ops, may_vanish), "key {key}\n{}", told());
    }
}

/// All clients ask all keys of a round, in orders of their own.
fn check_many_writers(options: &ClientOptions, asks: Asks) {
    let servers = ring();
    let rounds = histories().div_ceil(KEYS);
    let ready = Barrier::new(CLIENTS);
    let mut by_key = record(&servers, options, rounds, |caller, nth| {
        let mut done = Vec::new();
        let key = |at: usize| format!("h{nth}-{at}");
        if let (Asks::Updates, 0) = (asks, caller.number) {
            for at in 0..KEYS {
                let first = match at % 2 {
                    0 => caller.text(),
                    _ => Value::Number(0),
                };
                let op = caller.do_one(&key(at), at, Ask::Set(first));
                done.push((at, op.expect("no read")));
            }
        }
        ready.wait();
        let mut left = [OPS; KEYS];
        while left.iter().any(|left| *left > 0) {
            let at = caller.rng.below(KEYS as u64) as usize;
            if left[at] == 0 {
                continue;
            }
            left[at] -= 1;
            let ask = caller.ask(at, asks);
            let op = caller.do_one(&key(at), at, ask);
            let op = op.expect("the nodes are up");
            assert!(op.answer != Answer::Unknown, "the nodes are up");
            done.push((at, op));
        }
        done
    });
    let met = by_key.iter().flatten();
    let met = met.filter(|op| op.answer != Answer::Missing).count();
    let asked = rounds * KEYS * OPS * CLIENTS;
    assert!(met > asked / 4, "most of {asked} found nothing: {met} did");
    for ops in &mut by_key {
        keep_uniques_of_the_decider(ops);
    }
    assert_linear(&by_key, false);
}

#[test]
fn many_writers_see_one_story() {
    check_many_writers(&patient().copies(2), Asks::Updates);
}

#[test]
fn what_is_deleted_is_gone_for_all() {
    check_many_writers(&patient().copies(2).read_repair(false), Asks::Deletes);
}

/// Locks taken by `add`, let go by `delete`, while others read them, and give them to copies that lack them.
#[test]
fn a_lock_has_one_holder() {
    let servers = ring();
    let rounds = histories().div_ceil(KEYS);
    let by_key = record(&servers, &patient().copies(2), rounds, |caller, nth| {
        let mut done = Vec::new();
        for _ in 0..OPS * KEYS / 2 {
            let at = caller.rng.below(KEYS as u64) as usize;
            let key = format!("l{nth}-{at}");
            let add = Ask::Add(caller.text());
            let taken = caller.do_one(&key, at, add).expect("no read");
            let has_it = taken.answer == Answer::Stored(None);
            done.push((at, taken));
            if caller.rng.one_in(2) {
                caller.do_one(&key, at, Ask::Get);
            }
            if has_it {
                let released = caller.do_one(&key, at, Ask::Delete).expect("no read");
                done.push((at, released));
            }
        }
        done
    });
    let mut taken = 0;
    for (key, ops) in by_key.iter().enumerate() {
        // From when a caller knew that it had the lock, to when it let it go.
        let mut held = Vec::new();
        for client in 0..CLIENTS {
            let own: Vec<&Op> = ops.iter().filter(|op| op.client == client).collect();
            for pair in own.windows(2) {
                if pair[0].answer == Answer::Stored(None) {
                    held.push((pair[0].returned_ns, pair[1].called_ns, client));
                }
            }
        }
        held.sort_unstable();
        taken += held.len();
        for pair in held.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "key {key}: two holders: {pair:?}");
        }
    }
    assert!(taken > rounds * KEYS, "few locks were taken: {taken}");
}

/// Each key has one client that writes it, while one node after the other is away: stopped, with what it had when it goes on, or killed, and
/// empty when it comes back.
#[test]
fn one_writer_reads_what_it_wrote_whatever_dies() {
    let mut servers = ring();
    let nodes: Vec<_> = servers.iter().map(Server::node).collect();
    let options = ClientOptions::default()
        .copies(2)
        .attempt_timeout(AWAY)
        .settle(Duration::from_millis(200))
        .probe_after(Duration::from_millis(50));
    let over = AtomicBool::new(false);
    let (tokens, start) = (AtomicU32::new(1), Instant::now());
    let mut seeds = Rng::from_env("client histories while nodes die");
    let keys = (histories() / CLIENTS).max(20);
    let histories: Vec<Vec<Op>> = thread::scope(|scope| {
        let writers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (seed, tokens, nodes, options) = (seeds.bits(), &tokens, &nodes, &options);
                scope.spawn(move || {
                    let client = Client::new(nodes.clone(), options.clone());
                    let mut caller = Caller {
                        client: &client,
                        number,
                        rng: Rng::new(seed),
                        tokens,
                        start,
                        seen: [None; KEYS],
                    };
                    let mut all = Vec::new();
                    for nth in 0..keys {
                        let key = format!("w{number}-{nth}");
                        let mut ops = Vec::new();
                        for _ in 0..OPS_MAX {
                            let ask = match caller.rng.below(8) {
                                0 | 1 => Ask::Set(caller.text()),
                                2 => Ask::Delete,
                                _ => Ask::Get,
                            };
                            let op = caller.do_one(&key, 0, ask);
                            ops.extend(op.map(without_unique));
                            thread::sleep(Duration::from_micros(caller.rng.below(1000)));
                        }
                        all.push(ops);
                    }
                    all
                })
            })
            .collect();
        let trouble = scope.spawn(|| {
            let mut victims = Rng::new(start.elapsed().as_nanos() as u64);
            let mut kills = 0;
            while !over.load(Relaxed) {
                let victim = victims.below(3) as usize;
                let away = Duration::from_millis(200 + victims.below(500));
                if victims.one_in(2) {
                    servers[victim].freeze(true);
                    thread::sleep(away);
                    servers[victim].freeze(false);
                } else {
                    servers[victim].kill();
                    thread::sleep(away);
                    servers[victim].restart();
                }
                kills += 1;
                thread::sleep(Duration::from_millis(100 + victims.below(500)));
            }
            kills
        });
        let all = writers.into_iter().map(|writer| writer.join());
        let all: Vec<_> = all.collect();
        over.store(true, Relaxed);
        let kills: u32 = trouble.join().expect("nodes come back");
        assert!(kills > 0, "no node was away");
        let whole = all
            .into_iter()
            .map(|one| one.expect("only what was stored"));
        whole.flatten().collect()
    });
    let found = histories.iter().flatten();
    let found = found.filter(|op| matches!(op.answer, Answer::Found(..)));
    assert!(
        found.count() > histories.len() * OPS_MAX / 8,
        "few values were found"
    );
    // Both copies may be lost: then there is none.
    let histories: Vec<_> = histories.into_iter().map(without_what_may_be).collect();
    assert_linear(&histories, true);
}

/// Leaves out reads that tell nothing, as docs/client.md has it. What a stopped node had received and not answered it may carry out when it
/// goes on, after all that was done around it: so a value may come back whose `set` waited in vain for a node. And where one
/// copy is away and the other empty, a value is missing until the first is believed again.
fn without_what_may_be(ops: Vec<Op>) -> Vec<Op> {
    let waited = |op: &&Op| op.returned_ns - op.called_ns >= AWAY.as_nanos() as u64;
    let late: Vec<Value> = ops
        .iter()
        .filter(waited)
        .filter_map(|op| match &op.ask {
            Ask::Set(value) => Some(value.clone()),
            _ => None,
        })
        .collect();
    let tells = |op: &Op| match &op.answer {
        Answer::Found(value, _) => !late.contains(value),
        answer => !matches!((&op.ask, answer), (Ask::Get, Answer::Missing)),
    };
    ops.into_iter().filter(tells).collect()
}

/// A copy that has been given a value has a unique of its own for it.
fn without_unique(mut op: Op) -> Op {
    if let Answer::Found(_, unique) = &mut op.answer {
        *unique = None;
    }
    op
}
