//! A server: what it holds, and what it answers to the requests that the client has.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use bytes::Bytes;
use protocol::{Arith, Delete, Expiry, Exptime, Parsed, ReplyMode, Request, Store, StoreMode};

/// How a node fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It answers.
    #[default]
    Up,
    /// Refuses connections; what it held is lost.
    Crashed,
    /// Refuses connections; what it held is there when it is back.
    CutOff,
    /// Takes requests and answers when it is up again, to nobody.
    Hung,
}

/// What a node holds under a key.
pub struct Item {
    /// The bytes.
    pub value: Vec<u8>,
    /// The client flags.
    pub flags: u32,
    /// Unix time; 0 never.
    pub expires_at: u64,
    /// The CAS unique.
    pub cas: u64,
    /// Somebody has won the right to compute it anew.
    pub won: bool,
}

/// A node: a map, and how it fares.
#[derive(Default)]
pub struct SimulatedNode {
    /// By key.
    pub items: BTreeMap<Vec<u8>, Item>,
    /// How it fares.
    pub mode: Mode,
    /// Requests that wait for a hung node.
    pub waiting: Vec<Bytes>,
    /// The last CAS unique that it gave.
    pub cas: u64,
    /// It does not know how to be given one (flag `E`), as old memcached.
    pub is_old: bool,
}

impl SimulatedNode {
    /// Fares so from now on.
    pub fn set_mode(&mut self, mode: Mode, now_s: u64) {
        match mode {
            Mode::Crashed => {
                self.items.clear();
                self.waiting.clear();
            }
            Mode::Up => {
                for request in std::mem::take(&mut self.waiting) {
                    self.execute(&request, now_s);
                }
            }
            Mode::CutOff | Mode::Hung => {}
        }
        self.mode = mode;
    }

    /// What it holds under a key, if its time is not over.
    pub fn live(&mut self, key: &[u8], now_s: u64) -> Option<&mut Item> {
        let ended = |item: &Item| item.expires_at != 0 && item.expires_at <= now_s;
        if self.items.get(key).is_some_and(ended) {
            self.items.remove(key);
        }
        self.items.get_mut(key)
    }

    /// What a server answers to `requests`, each with the opaque of its request.
    pub fn execute(&mut self, mut requests: &[u8], now_s: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        while !requests.is_empty() {
            let Parsed::Complete { request, consumed } = protocol::text::parse(requests) else {
                panic!("no request: {:?}", String::from_utf8_lossy(requests));
            };
            let block = match &request {
                Request::Store(store) => store.block_len() as usize,
                _ => 0,
            };
            let (this, rest) = requests.split_at(consumed + block);
            requests = rest;
            let mark = match &request {
                Request::Store(store) => store.new_cas,
                _ => None,
            };
            if self.is_old && mark.is_some() {
                out.extend(b"CLIENT_ERROR invalid flag\r\n");
                continue;
            }
            let begin = out.len();
            self.execute_one(&request, &this[consumed..], now_s, &mut out);
            let end = out[begin..].windows(2).position(|pair| pair == b"\r\n");
            if let (Some(opaque), Some(end)) = (opaque(&request), end) {
                // Behind the line is the value, if there is one.
                let end = begin + end;
                let word = [&b" O"[..], opaque].concat();
                out.splice(end..end, word);
            }
        }
        out
    }

    fn execute_one(&mut self, request: &Request, block: &[u8], now_s: u64, out: &mut Vec<u8>) {
        let expires_at = |exptime: Exptime| match exptime.expiry() {
            Expiry::Never => 0,
            Expiry::AtOnce => 1,
            Expiry::In(seconds) => now_s + u64::from(seconds),
            Expiry::At(unix_s) => unix_s.into(),
        };
        let mut room = protocol::KeyBuf::default();
        self.cas += 1;
        let cas = self.cas;
        match request {
            Request::MetaGet(get) => {
                let key = get.key.bytes(&mut room);
                let mut wins = false;
                if let (None, Some(exptime)) = (self.live(key, now_s), get.vivify) {
                    wins = true;
                    let empty = Item {
                        value: Vec::new(),
                        flags: 0,
                        expires_at: expires_at(exptime),
                        cas,
                        won: false,
                    };
                    self.items.insert(key.to_vec(), empty);
                }
                let Some(item) = self.live(key, now_s) else {
                    if !get.tokens.quiet {
                        out.extend(b"EN\r\n");
                    }
                    return;
                };
                if let Some(exptime) = get.touch {
                    item.expires_at = expires_at(exptime);
                }
                if let Some(exptime) = get.recache {
                    wins |= item.expires_at != 0 && item.expires_at < expires_at(exptime);
                }
                if get.want_value {
                    put(out, format_args!("VA {}", item.value.len()));
                } else {
                    out.extend(b"HD");
                }
                match (item.won, wins) {
                    (true, _) => out.extend(b" Z"),
                    (_, true) => out.extend(b" W"),
                    _ => {}
                }
                item.won |= wins;
                for (flag, _) in get.tokens.iter() {
                    match flag {
                        b'f' => put(out, format_args!(" f{}", item.flags)),
                        b'c' => put(out, format_args!(" c{}", item.cas)),
                        b't' if item.expires_at == 0 => out.extend(b" t-1"),
                        b't' => put(out, format_args!(" t{}", item.expires_at - now_s)),
                        _ => {}
                    }
                }
                out.extend(b"\r\n");
                if get.want_value {
                    out.extend_from_slice(&item.value);
                    out.extend(b"\r\n");
                }
            }
            Request::Get(get) => {
                for key in get.keys.iter() {
                    if let Some(item) = self.live(key, now_s) {
                        let (flags, len) = (item.flags, item.value.len());
                        out.extend(b"VALUE ");
                        out.extend_from_slice(key);
                        put(out, format_args!(" {flags} {len}\r\n"));
                        out.extend_from_slice(&item.value);
                        out.extend(b"\r\n");
                    }
                }
                out.extend(b"END\r\n");
            }
            Request::Store(store) => {
                let value = &block[..store.value_len as usize];
                let key = store.key.bytes(&mut room);
                let cas = store.new_cas.unwrap_or(cas);
                let answer = match (self.live(key, now_s), store.mode, store.compare_cas) {
                    (None, _, Some(_)) => "NF",
                    (Some(item), _, Some(unique)) if item.cas != unique => "EX",
                    (Some(_), StoreMode::Add, _) => "NS",
                    (None, StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, _) => "NS",
                    (Some(item), StoreMode::Append, _) => {
                        item.value.extend_from_slice(value);
                        item.cas = cas;
                        "HD"
                    }
                    (Some(item), StoreMode::Prepend, _) => {
                        item.value.splice(..0, value.iter().copied());
                        item.cas = cas;
                        "HD"
                    }
                    (there, ..) => {
                        let new = Item {
                            value: value.to_vec(),
                            flags: store.client_flags,
                            expires_at: expires_at(store.exptime),
                            cas,
                            won: false,
                        };
                        match there {
                            Some(item) => *item = new,
                            None => drop(self.items.insert(key.to_vec(), new)),
                        }
                        "HD"
                    }
                };
                let ReplyMode::Meta(tokens) = store.reply else {
                    panic!("no meta command")
                };
                out.extend(answer.bytes());
                if answer == "HD" && tokens.iter().any(|(flag, _)| flag == b'c') {
                    put(out, format_args!(" c{cas}"));
                }
                out.extend(b"\r\n");
            }
            Request::Delete(delete) => {
                let key = delete.key.bytes(&mut room);
                let there = self.live(key, now_s).map(|item| item.cas);
                let answer = match (there, delete.compare_cas) {
                    (None, _) => "NF\r\n",
                    (Some(cas), Some(unique)) if cas != unique => "EX\r\n",
                    _ => {
                        self.items.remove(key);
                        "HD\r\n"
                    }
                };
                out.extend(answer.bytes());
            }
            Request::Arith(count) => {
                let key = count.key.bytes(&mut room);
                let (number, expires_at) = match self.live(key, now_s) {
                    Some(item) => {
                        let old = std::str::from_utf8(&item.value).expect("text");
                        let old: u64 = old.parse().expect("a number");
                        let new = if count.decrement {
                            old.saturating_sub(count.delta)
                        } else {
                            old.wrapping_add(count.delta)
                        };
                        item.value = new.to_string().into_bytes();
                        item.cas = cas;
                        (new, item.expires_at)
                    }
                    None => {
                        let Some(exptime) = count.vivify else {
                            out.extend(b"NF\r\n");
                            return;
                        };
                        let new = Item {
                            value: count.initial.to_string().into_bytes(),
                            flags: 0,
                            expires_at: expires_at(exptime),
                            cas,
                            won: false,
                        };
                        let expires_at = new.expires_at;
                        self.items.insert(key.to_vec(), new);
                        (count.initial, expires_at)
                    }
                };
                let left = match expires_at {
                    0 => -1,
                    at => at as i64 - now_s as i64,
                };
                let number = number.to_string();
                put(
                    out,
                    format_args!("VA {} t{left}\r\n{number}\r\n", number.len()),
                );
            }
            Request::MetaNoop => out.extend(b"MN\r\n"),
            Request::Admin(_) if self.is_old => out.extend(b"VERSION 1.6.18\r\n"),
            Request::Admin(_) => out.extend(b"VERSION 1.6.45\r\n"),
            other => panic!("not simulated: {other:?}"),
        }
    }
}

fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("there is room");
}

/// What the reply repeats.
fn opaque<'b>(request: &Request<'b>) -> Option<&'b [u8]> {
    let tokens = match request {
        Request::MetaGet(get) => get.tokens,
        Request::Store(Store { reply, .. })
        | Request::Delete(Delete { reply, .. })
        | Request::Arith(Arith { reply, .. }) => match reply {
            ReplyMode::Meta(tokens) => *tokens,
            _ => return None,
        },
        _ => return None,
    };
    let opaque = tokens.iter().find(|(flag, _)| *flag == b'O');
    opaque.map(|(_, opaque)| opaque)
}
