//! The same random binary packets to the server under test and to the original memcached: the same replies, byte for
//! byte, but for the CAS uniques, of which only is compared whether there is one.
//!
//! A packet with a CAS unique carries, to each server, the one which that server has given.
//!
//! The reference is what distributions ship, 1.6.18. The generator keeps away from these, each of which has its test in
//! `binary.rs`:
//!
//! - Unknown opcodes with a key or extras: memcached takes those twice and so loses the next packet.
//! - touch, gat and stat with a value: memcached reads the value as the next packet; ketch refuses them.
//! - verbosity: memcached does not know it. stat, version: other words.
//! - append beyond the largest item: whether it fits depends on the size of a header.
//! - flush with a delay: it would strike in the middle of a run.
//! - Values that only begin with a number, as "1 2": memcached counts them and drops the rest, ketch refuses.
//! - Exptimes in the last thirty days before 2^32: dates to memcached, in binary alone; negative to ketch.
//! - The padding of numbers: whether memcached changes a number in place depends on who else holds the item just then.
//! - Numbers of 2^63 and more: 1.6.18 takes them for negative ones if a `-` is found behind the value in its memory.

use ketch_testing::packet::{Packet, count, op::*, packet, store};
use ketch_testing::{Conn, Rng, Server, escape, is_ketch, memcached, rounds};

use crate::proxy::{pool, proxy};

/// Which unique a packet carries.
#[derive(Clone, Copy, PartialEq)]
enum Unique {
    None,
    Own,
    Another,
}

#[derive(Clone)]
struct Step {
    packet: Packet,
    unique: Unique,
}

const KEYS: &[&str] = &["a", "b", "key:with:colons", "with space\r\n", "\0", "c"];
const NUMBER_KEYS: &[&str] = &["n0", "n1", "n2"];
const EXPTIMES: &[&u32] = &[&0, &0, &0, &100, &2_592_000, &2_592_001, &3_000_000_000];

struct Generator {
    rng: Rng,
}

impl Generator {
    fn value(&mut self) -> Vec<u8> {
        let len = match self.rng.below(40) {
            0..4 => 0,
            4 => 2000,
            5 => 20_000,
            6 if self.rng.one_in(4) => 600_000,
            7 if self.rng.one_in(4) => 1 << 20,
            _ => 1 + self.rng.below(60) as usize,
        };
        self.rng.bytes(len)
    }

    fn exptime(&mut self) -> u32 {
        *self.rng.pick(EXPTIMES)
    }

    fn unique(&mut self) -> Unique {
        match self.rng.below(10) {
            0 | 1 => Unique::Own,
            2 => Unique::Another,
            _ => Unique::None,
        }
    }

    fn step(&mut self) -> Step {
        let key = self.rng.pick(KEYS);
        let mut unique = self.unique();
        let packet = match self.rng.below(20) {
            0..5 => {
                let opcode = self.opcode(&[SET, SET, SETQ, ADD, ADDQ, REPLACE, REPLACEQ]);
                let value = self.value();
                let flags = self.rng.bits() as u32;
                let exptime = self.exptime();
                store(opcode, key, value).numbers(&[flags, exptime])
            }
            5 | 6 => {
                let opcode = self.opcode(&[APPEND, APPENDQ, PREPEND, PREPENDQ]);
                let mut value = self.value();
                value.truncate(500);
                packet(opcode, key, value)
            }
            7..12 => packet(self.opcode(&[GET, GETQ, GETK, GETKQ]), key, ""),
            12 | 13 => {
                let opcode = self.opcode(&[TOUCH, GAT, GATQ, GATK, GATKQ]);
                let exptime = self.exptime();
                packet(opcode, key, "").numbers(&[exptime])
            }
            14 => packet(self.opcode(&[DELETE, DELETEQ]), key, ""),
            15 | 16 => self.number(),
            17 => {
                let body = self.value();
                unique = Unique::None;
                packet(0x25 + self.rng.below(0x100 - 0x25) as u8, "", body)
            }
            18 if self.rng.one_in(4) => packet(self.opcode(&[FLUSH, FLUSHQ]), "", ""),
            _ => packet(NOOP, "", ""),
        };
        if packet.key.is_empty() {
            unique = Unique::None;
        }
        let opaque = self.rng.bits() as u32 >> 1;
        Step {
            packet: packet.opaque(opaque),
            unique,
        }
    }

    fn opcode(&mut self, opcodes: &[u8]) -> u8 {
        opcodes[self.rng.below(opcodes.len() as u64) as usize]
    }

    /// What is asked of a counter.
    fn number(&mut self) -> Packet {
        let key = self.rng.pick(NUMBER_KEYS);
        let small = |rng: &mut Rng| rng.bits() >> (2 + rng.below(62));
        match self.rng.below(8) {
            0 => packet(self.opcode(&[GET, GETKQ]), key, ""),
            1 => packet(DELETE, key, ""),
            2 => {
                let odd = ["x", "12abc", "-5", "18446744073709551616", "1.5", "007", ""];
                let value = self.rng.pick(&odd).to_owned();
                store(SET, key, value)
            }
            3 => store(SETQ, key, small(&mut self.rng).to_string()),
            _ => {
                let opcode = self.opcode(&[INCR, INCRQ, DECR, DECRQ]);
                let (delta, initial) = (small(&mut self.rng), small(&mut self.rng));
                // Now and then down to 0, so that counting up stays below 2^63.
                let delta = delta.min(1 << 50);
                count(opcode, key, delta, initial.min(1 << 60), self.exptime())
            }
        }
    }
}

/// One of the two servers, or a proxy with its nodes, with a connection to it.
struct Side {
    conn: Conn,
    _servers: Vec<Server>,
}

impl Side {
    fn new(server: Server) -> Side {
        Side {
            conn: server.connect(),
            _servers: vec![server],
        }
    }

    fn proxy(count: usize) -> Side {
        let mut servers: Vec<Server> = (0..count)
            .map(|_| Server::start(&["-m", "256", "-t", "1"]))
            .collect();
        let proxy = proxy(&pool(&servers, ""), &[]);
        let conn = proxy.connect();
        servers.push(proxy);
        Side {
            conn,
            _servers: servers,
        }
    }

    fn fill_in(&mut self, step: &Step) -> Vec<u8> {
        let mut packet = step.packet.clone();
        if step.unique != Unique::None {
            let get = ketch_testing::packet::packet(GET, &packet.key, "");
            // Of a missing key, one that nothing has: what the same pipeline stores first may get the unique 1.
            let own = match self.conn.ask_packet(&get).cas {
                0 => 1 << 41,
                own => own,
            };
            packet.cas = if step.unique == Unique::Own {
                own
            } else {
                own + (1 << 40)
            };
        }
        packet.bytes()
    }

    /// All replies, with what may differ taken out.
    fn answer(&mut self, request: &[u8], pieces: &[usize]) -> Vec<Packet> {
        let mut rest = request;
        for &piece in pieces {
            let (first, second) = rest.split_at(piece.min(rest.len()));
            self.conn.send(first);
            rest = second;
        }
        self.conn.send(rest);
        let mut replies = self.conn.packets_before_noop();
        for reply in &mut replies {
            reply.cas = reply.cas.min(1);
            while reply.value.ends_with(b" ") {
                reply.value.pop();
            }
        }
        replies
    }
}

#[track_caller]
fn compare(
    (subject, reference): &mut (Side, Side),
    steps: &[Step],
    pieces: &[usize],
    history: &mut Vec<String>,
) {
    let mut requests = (Vec::new(), Vec::new());
    for step in steps {
        requests.0.extend(subject.fill_in(step));
        requests.1.extend(reference.fill_in(step));
        let mut short = step.packet.clone();
        short.value.truncate(60);
        let unique = ["", ", its own unique", ", another unique"][step.unique as usize];
        history.push(format!("{}{unique}", short.show()));
    }
    let got = subject.answer(&requests.0, pieces);
    let want = reference.answer(&requests.1, pieces);
    if got != want {
        let at = got.iter().zip(&want).position(|(got, want)| got != want);
        let at = at.unwrap_or(got.len().min(want.len()));
        let show = |replies: &[Packet]| {
            let shown = replies
                .get(at)
                .map(|reply| format!("{:x}: {}", reply.opaque, reply.show()));
            shown.map(|line| line.chars().take(400).collect::<String>())
        };
        let from = history.len().saturating_sub(12.max(steps.len() + 2));
        panic!(
            "reply {at} differs\n  under test: {:?}\n  reference:  {:?}\nlast packets:\n  {}",
            show(&got),
            show(&want),
            history[from..].join("\n  ")
        );
    }
}

fn sides() -> (Side, Side) {
    let subject = Server::start(&["-m", "256"]);
    let reference = Server::start_program(memcached(), &["-m", "256"]);
    (Side::new(subject), Side::new(reference))
}

#[test]
fn one_packet_after_the_other() {
    let mut sides = sides();
    let rng = Rng::from_env("one_packet_after_the_other");
    let mut generator = Generator { rng };
    let mut history = Vec::new();
    for _ in 0..rounds(8_000, 20_000) {
        let step = generator.step();
        compare(&mut sides, &[step], &[], &mut history);
    }
}

fn compare_pipelines(sides: &mut (Side, Side), rng: Rng, count: u32) {
    let mut generator = Generator { rng };
    let mut history = Vec::new();
    for _ in 0..count {
        let count = 1 + generator.rng.below(30);
        let steps: Vec<Step> = (0..count).map(|_| generator.step()).collect();
        let len: usize = steps.iter().map(|step| step.packet.bytes().len()).sum();
        let pieces: Vec<usize> = (0..generator.rng.below(4))
            .map(|_| 1 + generator.rng.below(len as u64) as usize)
            .collect();
        compare(sides, &steps, &pieces, &mut history);
    }
}

#[test]
fn pipelines_cut_anywhere() {
    let rng = Rng::from_env("pipelines_cut_anywhere");
    compare_pipelines(&mut sides(), rng, rounds(600, 1500));
}

/// What a proxy answers is what its nodes would.
#[test]
fn a_proxy_is_like_its_nodes() {
    if !is_ketch() {
        return;
    }
    for nodes in [1, 3] {
        let reference = Side::new(Server::start(&["-m", "256", "-t", "1"]));
        let rng = Rng::from_env("a_proxy_is_like_its_nodes");
        let mut sides = (Side::proxy(nodes), reference);
        compare_pipelines(&mut sides, rng, rounds(150, 600));
    }
}

/// All that a server says to `requests` on a connection of their own.
fn answer(server: &Server, requests: &[u8]) -> Vec<u8> {
    let mut conn = server.connect();
    conn.send(requests);
    conn.end_of_input();
    let mut answer = conn.read_to_end();
    // The uniques are not the same.
    if answer.len() >= 24 {
        answer[16..24].fill(0);
    }
    answer
}

/// Every opcode, with no body and with one that is no key; places that nobody looks at; and what is no request.
#[test]
fn every_opcode_and_every_magic() {
    let (subject, reference) = (Server::start(&[]), Server::start_program(memcached(), &[]));
    let mut rng = Rng::from_env("every_opcode_and_every_magic");
    let noop = packet(NOOP, "", "").opaque(1).bytes();
    for opcode in 0..=u8::MAX {
        for value in ["", "five!"] {
            if [VERBOSITY, STAT, VERSION].contains(&opcode) {
                continue;
            }
            let mut bytes = packet(opcode, "", value).opaque(2).bytes();
            // Data type and vbucket.
            bytes[5..8].copy_from_slice(&rng.bytes(3));
            let requests = [&noop[..], &bytes, &noop].concat();
            let (got, want) = (answer(&subject, &requests), answer(&reference, &requests));
            assert_eq!(escape(&got), escape(&want), "{}", escape(&bytes));
        }
    }
    for magic in (0..=u8::MAX).filter(|magic| *magic != 0x80) {
        let mut other = noop.clone();
        other[0] = magic;
        let requests = [&noop[..], &other, &noop].concat();
        let (got, want) = (answer(&subject, &requests), answer(&reference, &requests));
        assert_eq!(escape(&got), escape(&want), "magic {magic:#x}");
    }
}

/// Lengths that do not fit the opcode or each other: the same last words, and then the end.
#[test]
fn malformed_packets() {
    let (subject, reference) = (Server::start(&[]), Server::start_program(memcached(), &[]));
    let mut rng = Rng::from_env("malformed_packets");
    let mut refused = 0;
    let count = rounds(400, 1000);
    for _ in 0..count {
        let mut random = packet(rng.below(0x25) as u8, "", "").opaque(rng.bits() as u32);
        let extras_len = *rng.pick(&[&0, &0, &4, &8, &20, &1]);
        let key_len = *rng.pick(&[&0, &1, &1, &3, &250, &251]);
        let value_len = *rng.pick(&[&0, &0, &0, &1, &10]);
        random.extras = rng.bytes(extras_len);
        random.key = rng.bytes(key_len);
        random.value = rng.bytes(value_len);
        let is_known = random.opcode <= 0x24 && ![VERBOSITY, 0x1f].contains(&random.opcode);
        let takes_surplus = matches!(random.opcode, STAT | TOUCH | GAT | GATQ | GATK | GATKQ);
        let is_sasl = matches!(random.opcode, SASL_AUTH | SASL_STEP);
        if !is_known || is_sasl || takes_surplus && !random.value.is_empty() {
            continue;
        }
        // Other words where nothing is wrong, and a moment nobody waits for.
        if matches!(random.opcode, STAT | VERSION | FLUSH | FLUSHQ) && random.key.len() < 251 {
            continue;
        }
        let lens = (
            random.extras.len(),
            random.key.len(),
            random.extras.len() + random.key.len(),
        );
        let body = [&random.extras[..], &random.key, &random.value].concat();
        let bytes = if lens.2 > 0 && rng.one_in(4) {
            let short = rng.below(lens.2 as u64) as usize;
            random.bytes_lying((lens.0, lens.1, short), &body[..lens.2])
        } else {
            random.bytes()
        };
        let requests = [&bytes[..], &packet(NOOP, "", "").bytes()].concat();
        let (got, want) = (answer(&subject, &requests), answer(&reference, &requests));
        assert_eq!(escape(&got), escape(&want), "{}", escape(&bytes));
        refused += u32::from(got.len() > 7 && got[7] == 4);
    }
    assert!(refused > count / 5, "{refused} of {count}");
}
