//! The same random commands to the server under test and to the original memcached: byte for byte the same answers.
//!
//! ```text
//!            Generator (printed seed) -- one command -->  subject (ketch)      -- reply --+
//!                  |                                                                     |-- masked, equal
//!                  +--------------------- one command -->  reference (memcached) -- reply --+
//! ```
//!
//! Masked is what cannot be equal: CAS uniques, sizes and classes in `me`, seconds by one, and the order of the marks
//! W, X and Z, which memcached's documentation leaves open. A `cas` or a flag C carries, to each server, the unique
//! which that server has given.
//!
//! The reference is what distributions ship, 1.6.18; the rules are those of newer ones. The generator therefore keeps
//! away from these, each of which has its vectors in the file of its family:
//!
//! - Lines with too few words, of one letter, empty, or begun with a blank: 1.6.18 has other words for them.
//! - Stores with bad flags, exptime, CAS unique, too many words or a key too long: 1.6.18 runs their bodies.
//! - A key too long in a pipeline: memcached drops the replies before it. Alone in a line it is generated.
//! - Client flags and lengths beyond 32 bits: 1.6.18 cuts them.
//! - Meta flags E and x, s on ms, N with append: 1.6.18 does not know them; C without a number in md, a repeated or
//!   unknown flag in md, modes of other than one letter, more than 20 flags: 1.6.18 words them otherwise.
//! - ma with q and N: 1.6.18 answers to what it creates. me of an item with an exptime: 1.6.18 turns the sign.
//! - t before N on a miss: memcached prints the time to live that the new item has before N sets it.
//! - t beside T with a time in the past: memcached prints a number that has wrapped.
//! - Values that only begin with a number, as "1 2": memcached counts them and drops the rest, ketch refuses.
//! - Numbers of 2^63 and more: 1.6.18 takes them for negative ones if a `-` is found behind the value in its memory.
//! - ma with a key that is too long: newer ones say that its flags are wrong, as of all faults of ma.
//! - ma with an opaque that is too long: memcached counts first and refuses then.
//! - ma with C on an empty value: memcached finds fault with the value before it compares the unique.
//! - mg with an opaque that is too long, of an item: memcached counts it as fetched all the same.
//! - append beyond the largest item: memcached says NOT_STORED, for want of memory as for want of an item.
//! - Base64 keys without b: memcached prints a key as it was stored, not as it was asked for. With b and N on a miss it
//!   prints the decoded bytes.
//! - delete with more than a key, shutdown, stats, dumps: other words, or nothing to compare.
//! - Keys with control characters: memcached takes them, ketch does not.
//! - Arithmetic on items with marks, with T, before append and inside a pipeline: whether memcached changes a number
//!   in place, and so keeps its marks, its padding and its old exptime, depends on who else, its LRU thread among them,
//!   holds the item just then. The padding of numbers is masked for the same reason.

use ketch_testing::{Conn, PATIENCE, Rng, Server, escape, memcached, rounds};

/// A command as the generator thinks of it: `{cas}` stands for the unique that a server gave for the key.
#[derive(Clone)]
struct Step {
    text: Vec<u8>,
    /// The key whose unique replaces `{cas}`, or one of another age.
    cas: Option<(String, Age)>,
}

/// What is appended: not so much that an item grows beyond the largest one.
fn short(value: &[u8]) -> &[u8] {
    &value[..value.len().min(2000)]
}

/// A CAS unique beside the item's.
#[derive(Clone, Copy)]
enum Age {
    Own,
    Older,
    Newer,
}

struct Generator {
    rng: Rng,
}

const KEYS: &[&str] = &[
    "a",
    "b",
    "c",
    "key:with:colons",
    "a-rather-long-key-that-is-used-less-often-than-others",
    "d",
    "{e}",
];
const NUMBER_KEYS: &[&str] = &["n0", "n1", "n2"];
/// "foo", "a b" and three bytes that are no text.
const BASE64_KEYS: &[&str] = &["Zm9v", "YSBi", "gP8A"];
const EXPTIMES: &[&str] = &[
    "0", "0", "0", "1000", "100", "-1", "2592000", "2592001", "-100000",
];

impl Generator {
    fn key(&mut self) -> String {
        self.rng.pick(KEYS).to_string()
    }

    fn flags(&mut self) -> String {
        self.rng
            .pick(&["0", "0", "1", "65535", "4294967295"])
            .to_string()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.rng.below(40) {
            0 => 0,
            1 => 2000,
            2 => 20_000,
            3 if self.rng.one_in(4) => 600_000,
            _ => 1 + self.rng.below(60),
        };
        let mut value = Vec::with_capacity(len as usize);
        for _ in 0..len {
            value.push(b"abcdefgh 0123\r\n\x00\xff"[self.rng.below(17) as usize]);
        }
        value
    }

    /// What arithmetic may meet.
    fn number(&mut self) -> Vec<u8> {
        let odd = ["x", "12abc", "-5", "18446744073709551616", "1.5", "007"];
        if self.rng.one_in(6) {
            return self.rng.pick(&odd).as_bytes().to_vec();
        }
        let shift = 2 + self.rng.below(62);
        (self.rng.bits() >> shift).to_string().into_bytes()
    }

    fn own_or_newer(&mut self) -> Age {
        if self.rng.one_in(3) {
            Age::Newer
        } else {
            Age::Own
        }
    }

    fn noreply(&mut self) -> &'static str {
        if self.rng.one_in(8) { " noreply" } else { "" }
    }

    /// A body with its end; now and then longer than it was announced, by a word of its own.
    fn body(&mut self, value: &[u8]) -> Vec<u8> {
        if self.rng.one_in(40) && !value.ends_with(b"\r") {
            let mut body = value.to_vec();
            body.extend_from_slice(b"!!surplus\r\n");
            return body;
        }
        [value, b"\r\n"].concat()
    }

    fn store(&mut self, verbs: &[&'static str], key: &str, value: &[u8]) -> Step {
        let verb = self.rng.pick(verbs);
        let value = if ["append", "prepend"].contains(&verb) {
            short(value)
        } else {
            value
        };
        let (flags, exptime, noreply) = (self.flags(), self.rng.pick(EXPTIMES), self.noreply());
        let (unique, cas) = if verb == "cas" {
            (" {cas}", Some((key.to_string(), self.own_or_newer())))
        } else {
            ("", None)
        };
        let line = format!(
            "{verb} {key} {flags} {exptime} {}{unique}{noreply}\r\n",
            value.len()
        );
        Step {
            text: [line.as_bytes(), &self.body(value)].concat(),
            cas,
        }
    }

    fn plain(text: impl Into<Vec<u8>>) -> Step {
        Step {
            text: text.into(),
            cas: None,
        }
    }

    /// A command that is safe inside a pipeline.
    fn step(&mut self) -> Step {
        let key = self.key();
        match self.rng.below(24) {
            0..=4 => {
                let value = self.value();
                self.store(
                    &["set", "set", "add", "replace", "append", "prepend", "cas"],
                    &key,
                    &value,
                )
            }
            5..=7 => {
                let verb = self.rng.pick(&[
                    "get", "gets", "get", "gat 1000", "gats 0", "gat -1", "gat x",
                ]);
                let count = if self.rng.one_in(20) {
                    60
                } else {
                    1 + self.rng.below(4)
                };
                let mut line = verb.to_string();
                for _ in 0..count {
                    line += " ";
                    line += &self.key();
                }
                Self::plain(line + "\r\n")
            }
            8 => Self::plain(format!("delete {key}{}\r\n", self.noreply())),
            9 => {
                let exptime = self.rng.pick(&["0", "1000", "-1", "x", "2592001"]);
                Self::plain(format!("touch {key} {exptime}{}\r\n", self.noreply()))
            }
            10..=12 => self.meta_get(&key),
            13..=15 => self.meta_set(&key),
            16 => self.meta_delete(&key),
            17 => {
                let key = self.rng.pick(BASE64_KEYS);
                let value = self.value();
                let line = match self.rng.below(3) {
                    0 => format!("ms {key} {} b k\r\n", value.len()),
                    1 => return Self::plain(format!("mg {key} b k v s f\r\n")),
                    _ => return Self::plain(format!("md {key} k b\r\n")),
                };
                Self::plain([line.as_bytes(), &value, b"\r\n"].concat())
            }
            18 => self.fault(),
            19 if self.rng.one_in(8) => Self::plain(format!("flush_all{}\r\n", self.noreply())),
            20 => Self::plain("mn\r\n"),
            21 if self.rng.one_in(20) => {
                let line = format!("set {key} 0 0 1048576\r\n");
                Self::plain([line.as_bytes(), &vec![b'x'; 1 << 20], b"\r\n"].concat())
            }
            _ => Self::plain(format!("get {key}\r\n")),
        }
    }

    /// A command that must be alone: what came before it has been answered and let go.
    fn step_alone(&mut self) -> Step {
        let key = self.rng.pick(NUMBER_KEYS);
        match self.rng.below(10) {
            0..=1 => {
                let value = self.number();
                self.store(&["set", "add", "cas", "replace"], key, &value)
            }
            2..=4 => {
                let verb = self.rng.pick(&["incr", "decr"]);
                let delta = self.rng.pick(&[
                    "1",
                    "0",
                    "5",
                    "1000",
                    "1000000000000",
                    "x",
                    "-1",
                    "18446744073709551616",
                ]);
                Self::plain(format!("{verb} {key} {delta}{}\r\n", self.noreply()))
            }
            5..=7 => {
                let mut line = format!("ma {key}");
                let mut cas = None;
                let vivify = self.rng.one_in(3);
                for flag in [
                    " v",
                    " t",
                    " k",
                    " O12",
                    " D7",
                    " D1000000000000",
                    " MD",
                    " MI",
                    " M+",
                    " M-",
                ] {
                    let letter = flag.trim_start().chars().next().expect("a letter");
                    if self.rng.one_in(4) && !line.contains(&format!(" {letter}")) {
                        line += flag;
                    }
                }
                if vivify {
                    line += " N0 J42";
                } else if self.rng.one_in(4) {
                    line += " q";
                } else if self.rng.one_in(6) {
                    line += " C{cas}";
                    cas = Some((key.to_string(), self.own_or_newer()));
                }
                if self.rng.one_in(15) {
                    line += self.rng.pick(&[" MX", " Dx", " Jx", " Tx", " ?"]);
                }
                Step {
                    text: (line + "\r\n").into_bytes(),
                    cas,
                }
            }
            8 => Self::plain(format!("get {key}\r\n")),
            _ => {
                let long = "k".repeat(251);
                let line = match self.rng.below(5) {
                    0 => format!("get {long}"),
                    1 => format!("delete {long}"),
                    2 => format!("touch {long} 0"),
                    3 => format!("incr {long} 1"),
                    _ => format!("mg {long} v"),
                };
                Self::plain(line + "\r\n")
            }
        }
    }

    fn meta_get(&mut self, key: &str) -> Step {
        let mut line = format!("mg {key}");
        let past = self.rng.one_in(12);
        if !past && self.rng.one_in(6) {
            line += " N30";
        }
        for flag in [
            "v", "v", "s", "f", "t", "c", "h", "k", "q", "u", "O77", "Oabc",
        ] {
            let letter = &flag[..1];
            if self.rng.one_in(3)
                && !line.contains(&format!(" {letter}"))
                && !(past && letter == "t")
            {
                line += " ";
                line += flag;
            }
        }
        for flag in [" T1000", " R50", " R5000"] {
            if !past && self.rng.one_in(6) && !line.contains(&flag[..2]) {
                line += flag;
            }
        }
        if past {
            line += " T-1";
        }
        Self::plain(line + "\r\n")
    }

    fn meta_set(&mut self, key: &str) -> Step {
        let value = self.value();
        let mut line = format!("ms {key} {{len}}");
        let mut cas = None;
        for flag in [
            " T1000", " T0", " T-1", " F9", " F0", " q", " k", " O5", " c", " MS", " ME", " MR",
            " MA", " MP",
        ] {
            if self.rng.one_in(6) && !line.contains(&flag[..2]) {
                line += flag;
            }
        }
        if self.rng.one_in(4) {
            line += " C{cas}";
            let age = if self.rng.one_in(4) {
                Age::Older
            } else {
                self.own_or_newer()
            };
            cas = Some((key.to_string(), age));
            if self.rng.one_in(2) {
                line += " I";
            }
        }
        let value = if line.contains(" MA") || line.contains(" MP") {
            short(&value)
        } else {
            &value
        };
        line = line.replace("{len}", &value.len().to_string()) + "\r\n";
        Step {
            text: [line.as_bytes(), &self.body(value)].concat(),
            cas,
        }
    }

    fn meta_delete(&mut self, key: &str) -> Step {
        let mut line = format!("md {key}");
        let mut cas = None;
        for flag in [" I", " I", " T1000", " q", " k", " O8"] {
            if self.rng.one_in(3) && !line.contains(&flag[..2]) {
                line += flag;
            }
        }
        if self.rng.one_in(5) {
            line += " C{cas}";
            cas = Some((key.to_string(), self.own_or_newer()));
        }
        Step {
            text: (line + "\r\n").into_bytes(),
            cas,
        }
    }

    /// Lines that are wrong in a way in which both agree.
    fn fault(&mut self) -> Step {
        let faults = [
            "nonsense\r\n",
            "nonsense with words\r\n",
            "GET a\r\n",
            "get/a\r\n",
            "mx a\r\n",
            "gets\u{1}a\r\n",
            "mg a ?\r\n",
            "mg a k k\r\n",
            "mg a Tx\r\n",
            "mg none-such O12345678901234567890123456789012\r\n",
            "mg a*b b\r\n",
            "ms a 2 MX\r\nxx\r\n",
            "ms a 2 k k\r\nxx\r\n",
            "ms a 2 ?\r\nxx\r\n",
            "ms a 2 Tx\r\nxx\r\n",
            "ms a 2 Fx\r\nxx\r\n",
            "ms a 2 Cx\r\nxx\r\n",
            "ms a*b 2 b\r\nxx\r\n",
            "ms a 2 O12345678901234567890123456789012\r\nxx\r\n",
            "ms a -1\r\n",
            "md a O12345678901234567890123456789012\r\n",
            "set a 0 0 -1\r\n",
            "touch a x\r\n",
            "flush_all x\r\n",
            "verbosity x\r\n",
            "lru_crawler foo\r\n",
            "lru foo\r\n",
            "slabs foo\r\n",
            "cache_memlimit x\r\n",
            "cache_memlimit 1\r\n",
            "stats nonsense\r\n",
        ];
        Self::plain(self.rng.pick(&faults))
    }
}

/// One server, its connection, and the uniques it has given.
struct Side {
    conn: Conn,
    asker: Conn,
    _server: Server,
}

impl Side {
    fn new(server: Server) -> Side {
        let mut asker = server.connect();
        // The unique 1 is what an older item had ([`Age::Older`]), whatever a server begins with.
        asker.round("set first 0 0 1\r\n1\r\n", "STORED\r\n");
        asker.round("delete first\r\n", "DELETED\r\n");
        Side {
            conn: server.connect(),
            asker,
            _server: server,
        }
    }

    /// The bytes of `step` for this server.
    fn fill_in(&mut self, step: &Step) -> Vec<u8> {
        let Some((key, age)) = &step.cas else {
            return step.text.clone();
        };
        self.asker.send(format!("gets {key}\r\n"));
        let line = self.asker.expect_line();
        let mut unique: u64 = 1;
        if line != "END" {
            let words: Vec<&str> = line.split(' ').collect();
            self.asker.take(words[3].parse().expect("a length"));
            self.asker.expect("\r\nEND\r\n");
            unique = words[4].parse().expect("a unique");
        }
        let unique = match age {
            Age::Own => unique,
            Age::Older => 1,
            Age::Newer => u64::MAX,
        };
        let unique = unique.to_string();
        let at = step
            .text
            .windows(5)
            .position(|window| window == b"{cas}")
            .expect("a place for it");
        [&step.text[..at], unique.as_bytes(), &step.text[at + 5..]].concat()
    }

    /// All that is answered to `request`, up to the answer of the no-op behind it.
    fn answer(&mut self, request: &[u8], pieces: &[usize]) -> Vec<u8> {
        const END: &[u8] = b"mg the-end-of-this-round k Ozz\r\n";
        const ANSWER: &[u8] = b"EN kthe-end-of-this-round Ozz\r\n";
        let whole = [request, END].concat();
        let mut rest = whole.as_slice();
        for &piece in pieces {
            let (first, second) = rest.split_at(piece.min(rest.len()));
            self.conn.send(first);
            rest = second;
        }
        self.conn.send(rest);
        let mut reply = self.conn.read_until(ANSWER);
        reply.truncate(reply.len() - ANSWER.len());
        reply
    }
}

/// Takes out of a reply what the two cannot have in common. Values are left as they are.
fn masked(reply: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(reply.len());
    let mut rest = reply;
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let (line, after) = rest.split_at(end);
        rest = &after[2..];
        let text = String::from_utf8_lossy(line).into_owned();
        let mut words: Vec<String> = text.split(' ').map(str::to_string).collect();
        let mut value_len = None;
        match words[0].as_str() {
            "VALUE" if words.len() >= 4 => {
                value_len = words[3].parse::<usize>().ok();
                if words.len() == 5 {
                    words[4] = "<cas>".to_string();
                }
                if NUMBER_KEYS.contains(&words[1].as_str()) {
                    words[3].clear();
                }
            }
            "VA" | "HD" => {
                let first = if words[0] == "VA" { 2 } else { 1 };
                if first == 2 {
                    value_len = words[1].parse::<usize>().ok();
                }
                let mut marks = Vec::new();
                let mut kept: Vec<String> = words[..first].to_vec();
                for word in &words[first..] {
                    let number = word.get(1..).and_then(|digits| digits.parse::<u64>().ok());
                    match (word.chars().next(), number) {
                        (Some('c'), Some(_)) => kept.push("c<cas>".to_string()),
                        // The second may turn between one server's answer and the other's.
                        (Some('t'), Some(seconds)) => {
                            kept.push(format!("t~{}", (seconds + 5) / 10))
                        }
                        _ if ["W", "X", "Z"].contains(&word.as_str()) => marks.push(word.clone()),
                        _ => kept.push(word.clone()),
                    }
                }
                marks.sort_unstable();
                kept.extend(marks);
                words = kept;
            }
            _ => {}
        }
        out.extend_from_slice(words.join(" ").as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(len) = value_len {
            let len = (len + 2).min(rest.len());
            if words
                .get(1)
                .is_some_and(|key| NUMBER_KEYS.contains(&key.as_str()))
            {
                let shown = rest[..len].trim_ascii_end();
                out.truncate(out.len() - 2);
                out.extend_from_slice(format!(", {} without padding\r\n", shown.len()).as_bytes());
                out.extend_from_slice(shown);
                out.extend_from_slice(b"\r\n");
            } else {
                out.extend_from_slice(&rest[..len]);
            }
            rest = &rest[len..];
        }
    }
    out.extend_from_slice(rest);
    out
}

#[track_caller]
fn compare(
    subject: &mut Side,
    reference: &mut Side,
    steps: &[Step],
    pieces: &[usize],
    history: &mut Vec<String>,
) {
    let mut requests = (Vec::new(), Vec::new());
    for step in steps {
        requests.0.extend_from_slice(&subject.fill_in(step));
        requests.1.extend_from_slice(&reference.fill_in(step));
        let text: Vec<u8> = step.text.iter().copied().take(160).collect();
        history.push(escape(&text));
    }
    let got = masked(&subject.answer(&requests.0, pieces));
    let want = masked(&reference.answer(&requests.1, pieces));
    if got != want {
        let at = (0..got.len().min(want.len())).find(|&i| got[i] != want[i]);
        let at = at.unwrap_or(got.len().min(want.len()));
        let window = |bytes: &[u8]| {
            escape(&bytes[at.saturating_sub(100).min(bytes.len())..bytes.len().min(at + 300)])
        };
        let from = history.len().saturating_sub(12.max(steps.len() + 2));
        panic!(
            "different from byte {at}\n  under test: {}\n  memcached:  {}\nlast commands:\n  {}",
            window(&got),
            window(&want),
            history[from..].join("\n  ")
        );
    }
}

fn sides() -> (Side, Side) {
    let subject = Server::start(&["-m", "256"]);
    let reference = Server::start_program(memcached(), &["-m", "256"]);
    let mut sides = (Side::new(subject), Side::new(reference));
    sides.0.conn.set_patience(PATIENCE);
    sides
}

#[test]
fn one_command_after_the_other() {
    let (mut subject, mut reference) = sides();
    let mut generator = Generator {
        rng: Rng::from_env("one_command_after_the_other"),
    };
    let mut history = Vec::new();
    for _ in 0..rounds(15_000, 40_000) {
        let step = if generator.rng.one_in(3) {
            generator.step_alone()
        } else {
            generator.step()
        };
        compare(&mut subject, &mut reference, &[step], &[], &mut history);
    }
}

#[test]
fn commands_cut_anywhere() {
    let (mut subject, mut reference) = sides();
    let mut generator = Generator {
        rng: Rng::from_env("commands_cut_anywhere"),
    };
    let mut history = Vec::new();
    for _ in 0..rounds(4_000, 10_000) {
        let step = if generator.rng.one_in(3) {
            generator.step_alone()
        } else {
            generator.step()
        };
        let len = step.text.len() as u64;
        let pieces: Vec<usize> = (0..generator.rng.below(5))
            .map(|_| 1 + generator.rng.below(len.min(40)) as usize)
            .collect();
        compare(&mut subject, &mut reference, &[step], &pieces, &mut history);
    }
}

#[test]
fn pipelines() {
    let (mut subject, mut reference) = sides();
    let mut generator = Generator {
        rng: Rng::from_env("pipelines"),
    };
    let mut history = Vec::new();
    for _ in 0..rounds(600, 1500) {
        // A unique is asked for before the pipeline begins, and both get one of the same age.
        let count = 1 + generator.rng.below(30);
        let steps: Vec<Step> = (0..count).map(|_| generator.step()).collect();
        let len: usize = steps.iter().map(|step| step.text.len()).sum();
        let pieces: Vec<usize> = (0..generator.rng.below(4))
            .map(|_| 1 + generator.rng.below(len as u64) as usize)
            .collect();
        compare(&mut subject, &mut reference, &steps, &pieces, &mut history);
    }
}

/// What is left in the cache at the end is the same as well.
#[test]
fn the_same_items_are_left() {
    let (mut subject, mut reference) = sides();
    let mut generator = Generator {
        rng: Rng::from_env("the_same_items_are_left"),
    };
    let mut history = Vec::new();
    for _ in 0..40 {
        let steps: Vec<Step> = (0..100).map(|_| generator.step()).collect();
        compare(&mut subject, &mut reference, &steps, &[], &mut history);
        let mut look = String::new();
        for key in KEYS {
            look += &format!("mg {key} k v f s t u\r\n");
        }
        for key in BASE64_KEYS {
            look += &format!("mg {key} b k v f s t u\r\n");
        }
        compare(
            &mut subject,
            &mut reference,
            &[Generator::plain(look)],
            &[],
            &mut history,
        );
    }
}
