//! Checks replies as they come in, without keeping them: every key, length and byte of content.
//!
//! ```text
//!           head complete                 announced bytes and their end
//!   Head ------------------> head() ----------------------------------> Value --> Head
//!                              `-- no value follows: --> Head
//! ```
//!
//! A head is a line (text, meta) or 24 bytes with extras and key (binary). A reply is taken in as
//! the socket cuts it; only a head that is cut is kept. What a reply must be follows from the
//! commands that were sent, in order: their ids, and where each command ends.
//!
//! C1. `cursor` is the first id that is neither answered nor passed over; commands before
//!     `current` are complete.
//! C2. Everything is complete exactly when `current == commands.len()`, and then both lists are
//!     empty.

use std::mem;

use crate::dataset::Dataset;
use crate::dialect::{Dialect, NOOP, SET};

/// No head is longer: a key of 250 bytes and the words and numbers around it.
const HEAD_LEN_MAX: usize = 2048;

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Commands whose reply is complete.
    pub commands: u64,
    /// Keys of these commands: hits, misses, stores and errors together.
    pub keys: u64,
    /// Keys read that were there.
    pub hits: u64,
    /// Keys read that were not.
    pub misses: u64,
    /// Keys stored.
    pub stored: u64,
    /// Bytes of values that were read.
    pub hit_bytes: u64,
    /// Replies with another key than was asked for.
    pub wrong_key: u64,
    /// Values of another length than was stored.
    pub wrong_length: u64,
    /// Values with other bytes than were stored.
    pub wrong_content: u64,
    /// Commands answered by an error line or status.
    pub refused: u64,
    /// Connections that broke, sent what is no reply, or stopped answering.
    pub broken: u64,
    /// The first error in words.
    pub first_error: Option<String>,
}

impl Tally {
    /// All errors.
    pub fn errors(&self) -> u64 {
        self.wrong_key + self.wrong_length + self.wrong_content + self.refused + self.broken
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, other: &Tally) {
        self.commands += other.commands;
        self.keys += other.keys;
        self.hits += other.hits;
        self.misses += other.misses;
        self.stored += other.stored;
        self.hit_bytes += other.hit_bytes;
        self.wrong_key += other.wrong_key;
        self.wrong_length += other.wrong_length;
        self.wrong_content += other.wrong_content;
        self.refused += other.refused;
        self.broken += other.broken;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }

    /// The errors without the rest: what a warmup leaves.
    pub fn take_errors(&mut self) -> Tally {
        Tally {
            wrong_key: self.wrong_key,
            wrong_length: self.wrong_length,
            wrong_content: self.wrong_content,
            refused: self.refused,
            broken: self.broken,
            first_error: self.first_error.take(),
            ..Tally::default()
        }
    }

    /// Counts a broken connection.
    pub fn broke(&mut self, why: impl FnOnce() -> String) {
        self.broken += 1;
        self.first_error.get_or_insert_with(why);
    }
}

#[derive(Clone, Copy, Debug)]
struct Command {
    store: bool,
    /// Its last id stands before this place.
    end: usize,
    /// A line or packet of its own ends it, and its hits do not.
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Value {
        id: Option<u64>,
        at: usize,
        len: usize,
        tail: usize,
        good: bool,
    },
}

/// One connection's replies.
#[derive(Debug)]
pub struct Checker {
    dialect: Dialect,
    /// Without, only the framing is followed: for servers that answer anything.
    strict: bool,
    state: State,
    kept: Vec<u8>,
    ids: Vec<u64>,
    cursor: usize,
    commands: Vec<Command>,
    current: usize,
    missed: Option<Vec<u64>>,
}

impl Checker {
    /// For a fresh connection. Unless `strict`, keys, lengths and contents are not looked at.
    pub fn new(dialect: Dialect, strict: bool) -> Self {
        Checker {
            dialect,
            strict,
            state: State::Head,
            kept: Vec::new(),
            ids: Vec::new(),
            cursor: 0,
            commands: Vec::new(),
            current: 0,
            missed: None,
        }
    }

    /// The same, with a list of the ids that were missed.
    pub fn with_missed(self) -> Self {
        Checker {
            missed: Some(Vec::new()),
            ..self
        }
    }

    /// The ids missed since this was last called.
    pub fn take_missed(&mut self) -> Vec<u64> {
        self.missed.as_mut().map(mem::take).unwrap_or_default()
    }

    /// A command that stores `id` was sent.
    #[inline]
    pub fn expect_store(&mut self, id: u64) {
        self.ids.push(id);
        self.commands.push(Command {
            store: true,
            end: self.ids.len(),
            closed: true,
        });
    }

    /// The command that is being written reads `id`.
    #[inline]
    pub fn expect_key(&mut self, id: u64) {
        self.ids.push(id);
    }

    /// The command that reads the keys so far is written; `closed` if hits alone do not end it.
    #[inline]
    pub fn expect_end(&mut self, closed: bool) {
        let closed = closed || self.dialect == Dialect::Text;
        self.commands.push(Command {
            store: false,
            end: self.ids.len(),
            closed,
        });
    }

    /// The newest `n` ids.
    pub fn newest(&self, n: usize) -> &[u64] {
        &self.ids[self.ids.len() - n..]
    }

    /// Commands without a complete reply.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.commands.len() - self.current
    }

    /// Takes in what came from the server. An error ends the connection: where the next reply starts
    /// is not known any more.
    pub fn feed(&mut self, input: &[u8], data: &Dataset, tally: &mut Tally) -> Result<(), String> {
        let mut input = input;
        while !input.is_empty() {
            let used = match self.state {
                State::Head if self.kept.is_empty() => match self.head_len(input)? {
                    Some(len) if len <= input.len() => {
                        self.head(&input[..len], data, tally)?;
                        len
                    }
                    _ => {
                        self.kept.extend_from_slice(input);
                        input.len()
                    }
                },
                State::Head => self.kept_head(input, data, tally)?,
                State::Value { .. } => self.value(input, data, tally)?,
            };
            input = &input[used..];
        }
        Ok(())
    }

    /// The length of the head at the start of `bytes`, as far as they tell.
    #[inline]
    fn head_len(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let len = match self.dialect {
            Dialect::Binary if bytes.len() < 24 => None,
            Dialect::Binary => {
                let key = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                // The body of an error is text and is passed over like a value.
                let error = bytes[6..8] != [0, 0];
                Some(
                    24 + if error {
                        0
                    } else {
                        key + usize::from(bytes[4])
                    },
                )
            }
            _ => memchr::memchr(b'\n', bytes).map(|at| at + 1),
        };
        if len.unwrap_or(bytes.len()) > HEAD_LEN_MAX {
            return Err(format!("no reply: {}", excerpt(bytes)));
        }
        Ok(len)
    }

    /// Adds to a head that was cut; returns how much of `input` it took.
    #[cold]
    fn kept_head(
        &mut self,
        input: &[u8],
        data: &Dataset,
        tally: &mut Tally,
    ) -> Result<usize, String> {
        let before = self.kept.len();
        let wanted = match self.dialect {
            Dialect::Binary => self.head_len(&self.kept)?.unwrap_or(24) - before,
            _ => memchr::memchr(b'\n', input).map_or(input.len(), |at| at + 1),
        };
        let used = wanted.min(input.len());
        self.kept.extend_from_slice(&input[..used]);
        if self.head_len(&self.kept)? == Some(self.kept.len()) {
            let mut head = mem::take(&mut self.kept);
            let result = self.head(&head, data, tally);
            head.clear();
            self.kept = head;
            result?;
        }
        Ok(used)
    }

    #[inline]
    fn head(&mut self, head: &[u8], data: &Dataset, tally: &mut Tally) -> Result<(), String> {
        let Some(&command) = self.commands.get(self.current) else {
            return Err(format!(
                "nothing was asked, and the answer is {}",
                excerpt(head)
            ));
        };
        match self.dialect {
            Dialect::Binary => self.binary_head(head, command, data, tally),
            _ => self.line(head, command, data, tally),
        }
    }

    #[inline]
    fn line(
        &mut self,
        line: &[u8],
        command: Command,
        data: &Dataset,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let garbled = || Err(format!("no reply: {}", excerpt(line)));
        let Some(words) = line.strip_suffix(b"\r\n") else {
            return garbled();
        };
        let meta = self.dialect == Dialect::Meta;
        if command.store {
            if words == if meta { &b"HD"[..] } else { b"STORED" } {
                self.stored(tally);
                return Ok(());
            }
        } else if let Some(rest) = words.strip_prefix(if meta { &b"VA "[..] } else { b"VALUE " }) {
            let Some((key, len)) = (if meta {
                meta_value(rest)
            } else {
                text_value(rest)
            }) else {
                return garbled();
            };
            self.found(key, len, 2, command, data, tally);
            return Ok(());
        } else if words == end_line(meta, command.closed) {
            self.end(command, tally);
            return Ok(());
        }
        let error = [
            &b"ERROR"[..],
            b"SERVER_ERROR ",
            b"CLIENT_ERROR ",
            b"NOT_STORED",
            b"NS",
        ];
        if error.iter().any(|error| words.starts_with(error)) {
            self.refused(command, tally, || excerpt(line));
            return Ok(());
        }
        garbled()
    }

    fn binary_head(
        &mut self,
        head: &[u8],
        command: Command,
        data: &Dataset,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let (opcode, extras) = (head[1], usize::from(head[4]));
        let status = u16::from_be_bytes([head[6], head[7]]);
        let body = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
        if head[0] != 0x81 || head.len() - 24 > body && status == 0 {
            return Err(format!("no reply: {}", excerpt(head)));
        }
        if status != 0 {
            self.state = State::Value {
                id: None,
                at: 0,
                len: body,
                tail: 0,
                good: true,
            };
            self.refused(command, tally, || {
                format!("binary status {status:#x}, opcode {opcode:#x}")
            });
        } else if command.store && opcode == SET && body == 0 {
            self.stored(tally);
        } else if !command.store && opcode == NOOP && body == 0 {
            self.end(command, tally);
        } else if !command.store && opcode != NOOP {
            let key = &head[24 + extras..];
            self.found(key, body - (head.len() - 24), 0, command, data, tally);
        } else {
            return Err(format!(
                "another command's reply: opcode {opcode:#x}, body {body}"
            ));
        }
        if matches!(
            self.state,
            State::Value {
                len: 0,
                tail: 0,
                ..
            }
        ) {
            self.state = State::Head;
        }
        Ok(())
    }

    /// A value of `len` bytes and an end of `tail` bytes follows.
    #[inline]
    fn found(
        &mut self,
        key: &[u8],
        len: usize,
        tail: usize,
        command: Command,
        data: &Dataset,
        tally: &mut Tally,
    ) {
        self.state = State::Value {
            id: None,
            at: 0,
            len,
            tail,
            good: true,
        };
        let open = &self.ids[self.cursor..command.end];
        let place = if self.strict {
            let id = data.id_of(key);
            open.iter().position(|&expected| Some(expected) == id)
        } else {
            (!open.is_empty()).then_some(0)
        };
        let Some(place) = place else {
            tally.wrong_key += 1;
            tally.first_error.get_or_insert_with(|| {
                format!(
                    "wrong key: asked for {open:?}, the answer is for {}",
                    excerpt(key)
                )
            });
            return;
        };
        self.pass_over(place, tally);
        let id = self.ids[self.cursor];
        self.cursor += 1;
        tally.keys += 1;
        tally.hits += 1;
        tally.hit_bytes += len as u64;
        if !self.strict {
            return;
        }
        let expected = data.value_len(id);
        if len == expected {
            self.state = State::Value {
                id: Some(id),
                at: 0,
                len,
                tail,
                good: true,
            };
        } else {
            tally.wrong_length += 1;
            tally.first_error.get_or_insert_with(|| {
                format!("wrong length: key {id} has {expected} bytes, the answer {len}")
            });
        }
    }

    /// Takes in bytes of a value; returns how many.
    #[inline]
    fn value(&mut self, input: &[u8], data: &Dataset, tally: &mut Tally) -> Result<usize, String> {
        let State::Value {
            id,
            at,
            len,
            tail,
            good,
        } = &mut self.state
        else {
            unreachable!("only called in the middle of a value");
        };
        let part = input.len().min(len.saturating_sub(*at));
        if let Some(id) = *id {
            *good &= part == 0 || data.matches(id, *at, &input[..part]);
        }
        *at += part;
        let ending = (input.len() - part).min(*len + *tail - *at);
        if ending > 0 {
            let done = *at - *len;
            if input[part..part + ending] != b"\r\n"[done..done + ending] {
                return Err(format!(
                    "a value of {len} bytes does not end there: {}",
                    excerpt(&input[part..])
                ));
            }
            *at += ending;
        }
        if *at == *len + *tail {
            if !*good {
                tally.wrong_content += 1;
                let id = id.unwrap_or_default();
                tally
                    .first_error
                    .get_or_insert_with(|| format!("wrong content: key {id}"));
            }
            self.state = State::Head;
            // `VA` ends a single `mg`; an error's body belongs to a command that is over.
            if let Some(&command) = self.commands.get(self.current)
                && !command.store
                && !command.closed
            {
                self.end(command, tally);
            }
        }
        Ok(part + ending)
    }

    #[inline]
    fn stored(&mut self, tally: &mut Tally) {
        self.cursor += 1;
        tally.keys += 1;
        tally.stored += 1;
        self.complete(tally);
    }

    #[inline]
    fn end(&mut self, command: Command, tally: &mut Tally) {
        self.pass_over(command.end - self.cursor, tally);
        self.complete(tally);
    }

    #[cold]
    fn refused(&mut self, command: Command, tally: &mut Tally, why: impl FnOnce() -> String) {
        tally.refused += 1;
        tally
            .first_error
            .get_or_insert_with(|| format!("refused: {}", why()));
        tally.keys += (command.end - self.cursor) as u64;
        self.cursor = command.end;
        self.complete(tally);
    }

    #[inline]
    fn pass_over(&mut self, n: usize, tally: &mut Tally) {
        if n > 0 {
            if let Some(missed) = &mut self.missed {
                missed.extend_from_slice(&self.ids[self.cursor..self.cursor + n]);
            }
            tally.keys += n as u64;
            tally.misses += n as u64;
            self.cursor += n;
        }
    }

    #[inline]
    fn complete(&mut self, tally: &mut Tally) {
        tally.commands += 1;
        self.current += 1;
        if self.current == self.commands.len() {
            self.commands.clear();
            self.ids.clear();
            (self.current, self.cursor) = (0, 0);
        }
    }
}

/// What ends a read of text, of several metas, and of one meta that missed.
#[inline]
fn end_line(meta: bool, closed: bool) -> &'static [u8] {
    match (meta, closed) {
        (false, _) => b"END",
        (true, true) => b"MN",
        (true, false) => b"EN",
    }
}

/// `KEY FLAGS LEN` or `KEY FLAGS LEN CAS`.
#[inline]
fn text_value(words: &[u8]) -> Option<(&[u8], usize)> {
    let key_end = memchr::memchr(b' ', words)?;
    let rest = &words[key_end + 1..];
    let flags_end = rest.iter().position(|&byte| byte == b' ')?;
    let len = rest[flags_end + 1..].split(|&byte| byte == b' ').next()?;
    Some((&words[..key_end], number(len)?))
}

/// `LEN FLAGS..`, the flag `k` with the key among them.
#[inline]
fn meta_value(words: &[u8]) -> Option<(&[u8], usize)> {
    let mut words = words.split(|&byte| byte == b' ');
    let len = number(words.next()?)?;
    let key = words.find_map(|word| word.strip_prefix(b"k"))?;
    Some((key, len))
}

#[inline]
fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    digits.iter().try_fold(0usize, |n, &byte| {
        byte.is_ascii_digit()
            .then(|| n * 10 + usize::from(byte - b'0'))
    })
}

/// The start of some bytes, for a message.
fn excerpt(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(60)].escape_ascii().to_string();
    format!("\"{shown}\"{}", if bytes.len() > 60 { " .." } else { "" })
}

#[cfg(test)]
mod tests;
