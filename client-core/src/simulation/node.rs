//! A server: what it holds, and what it answers to the requests that the client has.

use std::collections::HashMap;

use bytes::Bytes;
use protocol::{Expiry, Exptime, Parsed, Request, StoreMode};

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
    pub items: HashMap<Vec<u8>, Item>,
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
        let mut out = Vec::new();
        while !requests.is_empty() {
            let Parsed::Complete { request, consumed } = protocol::text::parse(requests) else {
                panic!("no request: {:?}", String::from_utf8_lossy(requests));
            };
            let block = match &request {
                Request::Store(store) => store.block_len() as usize,
                _ => 0,
            };
            let line = String::from_utf8_lossy(&requests[..consumed]).into_owned();
            let one;
            (one, requests) = requests.split_at(consumed + block);
            let marked = line.split_ascii_whitespace().skip(2).any(|word| {
                let digits = word.strip_prefix('E').unwrap_or("");
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
            });
            if marked && self.is_old {
                out.extend(b"CLIENT_ERROR invalid flag\r\n");
                continue;
            }
            let mut answer = self.execute_one(one, now_s);
            let opaque = line.split_ascii_whitespace().find(|word| {
                let digits = word.strip_prefix('O').unwrap_or("");
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
            });
            if let Some(opaque) = opaque
                && let Some(end) = answer.windows(2).position(|pair| pair == b"\r\n")
            {
                answer.splice(end..end, format!(" {opaque}").into_bytes());
            }
            out.extend(answer);
        }
        out
    }

    fn execute_one(&mut self, mut request: &[u8], now_s: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let expires_at = |exptime: Exptime| match exptime.expiry() {
            Expiry::Never => 0,
            Expiry::AtOnce => 1,
            Expiry::In(seconds) => now_s + u64::from(seconds),
            Expiry::At(unix_s) => unix_s.into(),
        };
        let mut room = [0; protocol::KEY_LEN_MAX];
        while !request.is_empty() {
            let Parsed::Complete {
                request: parsed,
                consumed,
            } = protocol::text::parse(request)
            else {
                panic!("no request: {:?}", String::from_utf8_lossy(request));
            };
            request = &request[consumed..];
            self.cas += 1;
            let cas = self.cas;
            match parsed {
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
                        continue;
                    };
                    if let Some(exptime) = get.touch {
                        item.expires_at = expires_at(exptime);
                    }
                    let mut tokens = String::new();
                    if let Some(exptime) = get.recache {
                        wins |= item.expires_at != 0 && item.expires_at < expires_at(exptime);
                    }
                    match (item.won, wins) {
                        (true, _) => tokens += " Z",
                        (_, true) => tokens += " W",
                        _ => {}
                    }
                    item.won |= wins;
                    for (flag, _) in get.tokens.iter() {
                        match flag {
                            b'f' => tokens += &format!(" f{}", item.flags),
                            b'c' => tokens += &format!(" c{}", item.cas),
                            b't' if item.expires_at == 0 => tokens += " t-1",
                            b't' => tokens += &format!(" t{}", item.expires_at - now_s),
                            _ => {}
                        }
                    }
                    if get.want_value {
                        out.extend(format!("VA {}{tokens}\r\n", item.value.len()).into_bytes());
                        out.extend_from_slice(&item.value);
                        out.extend(b"\r\n");
                    } else {
                        out.extend(format!("HD{tokens}\r\n").into_bytes());
                    }
                }
                Request::Get(get) => {
                    for key in get.keys.iter() {
                        if let Some(item) = self.live(key, now_s) {
                            let key = std::str::from_utf8(key).expect("text");
                            let (flags, len) = (item.flags, item.value.len());
                            out.extend(format!("VALUE {key} {flags} {len}\r\n").into_bytes());
                            out.extend_from_slice(&item.value);
                            out.extend(b"\r\n");
                        }
                    }
                    out.extend(b"END\r\n");
                }
                Request::Store(store) => {
                    let value = request[..store.value_len as usize].to_vec();
                    request = &request[store.block_len() as usize..];
                    let key = store.key.bytes(&mut room).to_vec();
                    let cas = store.new_cas.unwrap_or(cas);
                    let new = Item {
                        value,
                        flags: store.client_flags,
                        expires_at: expires_at(store.exptime),
                        cas,
                        won: false,
                    };
                    let answer = match (self.live(&key, now_s), store.mode, store.compare_cas) {
                        (None, _, Some(_)) => "NF",
                        (Some(item), _, Some(unique)) if item.cas != unique => "EX",
                        (Some(_), StoreMode::Add, _) => "NS",
                        (None, StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, _) => {
                            "NS"
                        }
                        (Some(item), StoreMode::Append, _) => {
                            item.value.extend(new.value);
                            item.cas = cas;
                            "HD"
                        }
                        (Some(item), StoreMode::Prepend, _) => {
                            item.value.splice(..0, new.value);
                            item.cas = cas;
                            "HD"
                        }
                        _ => {
                            self.items.insert(key, new);
                            "HD"
                        }
                    };
                    let protocol::ReplyMode::Meta(tokens) = store.reply else {
                        panic!("no meta command")
                    };
                    let told = tokens.iter().any(|(flag, _)| flag == b'c');
                    let told = if told && answer == "HD" {
                        format!(" c{cas}")
                    } else {
                        String::new()
                    };
                    out.extend(format!("{answer}{told}\r\n").into_bytes());
                }
                Request::Delete(delete) => {
                    let key = delete.key.bytes(&mut room).to_vec();
                    let answer = match (
                        self.live(&key, now_s).map(|item| item.cas),
                        delete.compare_cas,
                    ) {
                        (None, _) => "NF\r\n",
                        (Some(cas), Some(unique)) if cas != unique => "EX\r\n",
                        _ => {
                            self.items.remove(&key);
                            "HD\r\n"
                        }
                    };
                    out.extend(answer.bytes());
                }
                Request::Arith(count) => {
                    let key = count.key.bytes(&mut room).to_vec();
                    let number = match self.live(&key, now_s) {
                        Some(item) => {
                            let old: u64 = std::str::from_utf8(&item.value)
                                .expect("text")
                                .parse()
                                .expect("a number");
                            let new = if count.decrement {
                                old.saturating_sub(count.delta)
                            } else {
                                old.wrapping_add(count.delta)
                            };
                            item.value = new.to_string().into_bytes();
                            item.cas = cas;
                            new
                        }
                        None => {
                            let Some(exptime) = count.vivify else {
                                out.extend(b"NF\r\n");
                                continue;
                            };
                            let value = count.initial.to_string().into_bytes();
                            let expires_at = expires_at(exptime);
                            self.items.insert(
                                key,
                                Item {
                                    value,
                                    flags: 0,
                                    expires_at,
                                    cas,
                                    won: false,
                                },
                            );
                            count.initial
                        }
                    };
                    let number = number.to_string();
                    out.extend(format!("VA {} t-1\r\n{number}\r\n", number.len()).into_bytes());
                }
                Request::MetaNoop => out.extend(b"MN\r\n"),
                Request::Admin(_) if self.is_old => out.extend(b"VERSION 1.6.18\r\n"),
                Request::Admin(_) => out.extend(b"VERSION 1.6.45\r\n"),
                other => panic!("not simulated: {other:?}"),
            }
        }
        out
    }
}
