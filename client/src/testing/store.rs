//! What a node in memory holds, and what commands do to it.
//!
//! The order of what a meta command gives back is the order of its flags, then `W`, `X` and `Z`, as in memcached.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use protocol::reply::{self, MetaCode, MetaLine};
use protocol::{
    AdminVerb, Arith, Delete, ErrorLine, Expiry, Exptime, Get, Key, MetaGet, MetaTokens, ReplyMode,
    Request, StoreMode,
};

/// The longest value, in bytes: memcached's item size limit, the item's head and key taken off.
pub(super) const VALUE_LEN_MAX: u32 = (1 << 20) - 512;

#[derive(Debug, Clone, Default)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    /// Milliseconds of the node's clock; `None` without end.
    expires_ms: Option<u64>,
    cas: u64,
    stale: bool,
    /// Somebody was told to compute it anew.
    won: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    items: HashMap<Vec<u8>, Item>,
    cas: u64,
    begun: Instant,
    passed: Duration,
    /// When all that is there is to be forgotten.
    flush_ms: Option<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            items: HashMap::new(),
            cas: 0,
            begun: Instant::now(),
            passed: Duration::ZERO,
            flush_ms: None,
        }
    }
}

/// What a store or delete came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    NotFound,
    NotStored,
    Exists,
}

impl Store {
    pub(super) fn pass(&mut self, time: Duration) {
        self.passed += time;
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
    }

    pub(super) fn keys(&mut self) -> Vec<Vec<u8>> {
        let keys: Vec<_> = self.items.keys().cloned().collect();
        keys.into_iter()
            .filter(|key| self.find(key).is_some())
            .collect()
    }

    pub(super) fn value(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        Some(self.find(key)?.value.clone())
    }

    pub(super) fn seconds_left(&mut self, key: &[u8]) -> Option<i64> {
        let now_ms = self.now_ms();
        Some(self.find(key)?.left_s(now_ms))
    }

    fn now_ms(&self) -> u64 {
        (self.begun.elapsed() + self.passed).as_millis() as u64
    }

    /// When it is over by the node's clock.
    fn expires_ms(&self, exptime: Exptime) -> Option<u64> {
        let now_ms = self.now_ms();
        match exptime.expiry() {
            Expiry::Never => None,
            Expiry::AtOnce => Some(now_ms),
            Expiry::In(seconds) => Some(now_ms + u64::from(seconds) * 1000),
            Expiry::At(unix_s) => {
                let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let unix_ms = (unix.unwrap_or_default() + self.passed).as_millis() as u64;
                Some(now_ms + (u64::from(unix_s) * 1000).saturating_sub(unix_ms))
            }
        }
    }

    /// The item of `key`, if it lives.
    fn find(&mut self, key: &[u8]) -> Option<&mut Item> {
        let now_ms = self.now_ms();
        if self.flush_ms.is_some_and(|at| at <= now_ms) {
            self.flush_ms = None;
            self.items.clear();
        }
        let expires_ms = self.items.get(key)?.expires_ms;
        if expires_ms.is_some_and(|at| at <= now_ms) {
            self.items.remove(key);
        }
        self.items.get_mut(key)
    }

    fn next_cas(&mut self) -> u64 {
        self.cas += 1;
        self.cas
    }

    /// Carries out a request, whose data block is `block`; false if the connection ends with it.
    pub(super) fn execute(
        &mut self,
        request: &Request<'_>,
        block: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        match request {
            Request::Get(get) => self.get(get, out),
            Request::Store(store) => self.store(store, block, out),
            Request::Delete(delete) => self.delete(delete, out),
            Request::Arith(arith) => self.arith(arith, out),
            Request::Touch(touch) => {
                let expires_ms = self.expires_ms(touch.exptime);
                let mut room = protocol::KeyBuf::default();
                let found = self.find(touch.key.bytes(&mut room));
                let line = match found {
                    Some(item) => {
                        item.expires_ms = expires_ms;
                        reply::TOUCHED
                    }
                    None => reply::NOT_FOUND,
                };
                if !touch.noreply {
                    out.extend_from_slice(line);
                }
            }
            Request::MetaGet(get) => self.meta_get(get, out),
            Request::MetaDebug(key) => {
                let mut room = protocol::KeyBuf::default();
                match self.find(key.bytes(&mut room)) {
                    Some(item) => {
                        let (cas, len) = (item.cas, item.value.len());
                        out.extend_from_slice(b"ME ");
                        out.extend_from_slice(key.text);
                        out.extend_from_slice(format!(" cas={cas} size={len}\r\n").as_bytes());
                    }
                    None => out.extend_from_slice(b"EN\r\n"),
                }
            }
            Request::MetaNoop => out.extend_from_slice(reply::MN),
            Request::Admin(admin) => match admin.verb {
                AdminVerb::Quit => return false,
                AdminVerb::Version => reply::version(out, "1.6.45"),
                AdminVerb::FlushAll => {
                    let delay = admin.args.iter().next();
                    let delay = delay.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
                    match self.expires_ms(Exptime::from(delay.unwrap_or(0_i64))) {
                        None => self.items.clear(),
                        at => self.flush_ms = at,
                    }
                    if !admin.noreply {
                        out.extend_from_slice(reply::OK);
                    }
                }
                AdminVerb::Stats => {
                    if admin.args.iter().next().is_none() {
                        reply::stat(out, "version", "1.6.45");
                        reply::stat(out, "curr_items", self.keys().len());
                    }
                    out.extend_from_slice(reply::END);
                }
                AdminVerb::Verbosity if !admin.noreply => out.extend_from_slice(reply::OK),
                AdminVerb::Verbosity => {}
                _ => out.extend_from_slice(ErrorLine::Error.line()),
            },
            // The parser of text makes none of these, and `config` was answered before.
            Request::BinaryGet(_)
            | Request::BinaryAdmin(_)
            | Request::Sasl(_)
            | Request::ConfigSet(_) => out.extend_from_slice(ErrorLine::Error.line()),
        }
        true
    }

    fn get(&mut self, get: &Get<'_>, out: &mut Vec<u8>) {
        let touched = get.verb.touch.map(|exptime| self.expires_ms(exptime));
        for key in get.keys.iter() {
            let Some(item) = self.find(key) else { continue };
            if let Some(expires_ms) = touched {
                item.expires_ms = expires_ms;
            }
            let cas = get.verb.with_cas.then_some(item.cas);
            reply::value_head(out, key, item.flags, item.value.len() as u32, cas);
            out.extend_from_slice(&item.value);
            out.extend_from_slice(reply::CRLF);
        }
        if get.last {
            out.extend_from_slice(reply::END);
        }
    }

    /// A store of more than [`VALUE_LEN_MAX`]: what was there is gone.
    pub(super) fn refuse(&mut self, store: &protocol::Store<'_>, out: &mut Vec<u8>) {
        let mut room = protocol::KeyBuf::default();
        let key = store.key.bytes(&mut room).to_vec();
        if store.mode == StoreMode::Set {
            self.items.remove(&key);
        }
        if store.reply != ReplyMode::NoReply {
            out.extend_from_slice(ErrorLine::TooLarge.line());
        }
    }

    fn store(&mut self, store: &protocol::Store<'_>, block: &[u8], out: &mut Vec<u8>) {
        let mut room = protocol::KeyBuf::default();
        let key = store.key.bytes(&mut room).to_vec();
        let cas = match store.new_cas {
            Some(cas) => cas,
            None => self.next_cas(),
        };
        let new = Item {
            value: block.to_vec(),
            flags: store.client_flags,
            expires_ms: self.expires_ms(store.exptime),
            cas,
            ..Item::default()
        };
        let vivified = store.vivify.map(|exptime| self.expires_ms(exptime));
        let outcome = match (self.find(&key), store.compare_cas, store.mode) {
            (None, Some(_), _) => Outcome::NotFound,
            (Some(old), Some(cas), _) if old.cas != cas && !(store.invalidate && cas < old.cas) => {
                Outcome::Exists
            }
            (Some(_), _, StoreMode::Add) => Outcome::NotStored,
            (Some(old), compare, StoreMode::Set | StoreMode::Replace) => {
                let stale = compare.is_some_and(|cas| cas != old.cas);
                *old = Item { stale, ..new };
                Outcome::Done
            }
            (Some(old), _, StoreMode::Append) => {
                old.value.extend_from_slice(block);
                old.cas = cas;
                Outcome::Done
            }
            (Some(old), _, StoreMode::Prepend) => {
                old.value.splice(..0, block.iter().copied());
                old.cas = cas;
                Outcome::Done
            }
            (None, _, StoreMode::Set | StoreMode::Add) => {
                self.items.insert(key, new);
                Outcome::Done
            }
            (None, _, StoreMode::Append | StoreMode::Prepend) if vivified.is_some() => {
                let expires_ms = vivified.flatten();
                self.items.insert(key, Item { expires_ms, ..new });
                Outcome::Done
            }
            (None, ..) => Outcome::NotStored,
        };
        match store.reply {
            ReplyMode::Meta(tokens) => {
                let cas = (outcome == Outcome::Done).then_some(cas);
                meta_line(out, outcome, tokens, store.key, cas);
            }
            ReplyMode::Text => out.extend_from_slice(match outcome {
                Outcome::Done => reply::STORED,
                Outcome::NotFound => reply::NOT_FOUND,
                Outcome::NotStored => reply::NOT_STORED,
                Outcome::Exists => reply::EXISTS,
            }),
            ReplyMode::NoReply | ReplyMode::Binary(_) => {}
        }
    }

    fn delete(&mut self, delete: &Delete<'_>, out: &mut Vec<u8>) {
        let mut room = protocol::KeyBuf::default();
        let key = delete.key.bytes(&mut room).to_vec();
        let touched = delete.touch.map(|exptime| self.expires_ms(exptime));
        let cas = match delete.new_cas {
            Some(cas) => cas,
            None => self.next_cas(),
        };
        let outcome = match (self.find(&key), delete.compare_cas) {
            (None, _) => Outcome::NotFound,
            (Some(item), Some(cas)) if item.cas != cas => Outcome::Exists,
            (Some(item), _) if delete.invalidate || delete.drop_value => {
                if delete.drop_value {
                    (item.value, item.flags) = (Vec::new(), 0);
                }
                if delete.invalidate {
                    (item.stale, item.won) = (true, false);
                    item.expires_ms = touched.unwrap_or(item.expires_ms);
                }
                item.cas = cas;
                Outcome::Done
            }
            _ => {
                self.items.remove(&key);
                Outcome::Done
            }
        };
        match delete.reply {
            // Quiet hides that there was nothing, too.
            ReplyMode::Meta(tokens) if tokens.quiet && outcome == Outcome::NotFound => {}
            ReplyMode::Meta(tokens) => meta_line(out, outcome, tokens, delete.key, None),
            ReplyMode::Text => out.extend_from_slice(match outcome {
                Outcome::Done => reply::DELETED,
                _ => reply::NOT_FOUND,
            }),
            ReplyMode::NoReply | ReplyMode::Binary(_) => {}
        }
    }

    fn arith(&mut self, arith: &Arith<'_>, out: &mut Vec<u8>) {
        let mut room = protocol::KeyBuf::default();
        let key = arith.key.bytes(&mut room).to_vec();
        let touched = arith.touch.map(|exptime| self.expires_ms(exptime));
        let vivified = arith.vivify.map(|exptime| self.expires_ms(exptime));
        let cas = match arith.new_cas {
            Some(cas) => cas,
            None => self.next_cas(),
        };
        let now_ms = self.now_ms();
        let mut number = Err(Outcome::NotFound);
        match (self.find(&key), arith.compare_cas) {
            (Some(item), Some(cas)) if item.cas != cas => number = Err(Outcome::Exists),
            (Some(item), _) => {
                let text = std::str::from_utf8(&item.value).unwrap_or("");
                let Ok(old) = text.trim_end().parse::<u64>() else {
                    if arith.reply != ReplyMode::NoReply {
                        out.extend_from_slice(ErrorLine::NonNumeric.line());
                    }
                    return;
                };
                let new = match arith.decrement {
                    true => old.saturating_sub(arith.delta),
                    false => old.wrapping_add(arith.delta),
                };
                item.value = new.to_string().into_bytes();
                item.cas = cas;
                item.expires_ms = touched.unwrap_or(item.expires_ms);
                number = Ok(new);
            }
            (None, _) => {
                if let Some(expires_ms) = vivified {
                    let item = Item {
                        value: arith.initial.to_string().into_bytes(),
                        expires_ms,
                        cas,
                        ..Item::default()
                    };
                    self.items.insert(key.clone(), item);
                    number = Ok(arith.initial);
                }
            }
        }
        match (arith.reply, number) {
            (ReplyMode::Meta(tokens), Err(Outcome::NotFound)) if tokens.quiet => {}
            (ReplyMode::Meta(tokens), Err(outcome)) => {
                meta_line(out, outcome, tokens, arith.key, None);
            }
            (ReplyMode::Meta(tokens), Ok(_)) if tokens.quiet => {}
            (ReplyMode::Meta(tokens), Ok(number)) => {
                let text = number.to_string();
                let code = match arith.want_value {
                    true => MetaCode::VA(text.len() as u32),
                    false => MetaCode::HD,
                };
                let mut line = MetaLine::new(out, code);
                if let Some(item) = self.find(&key) {
                    show(&mut line, tokens, arith.key, item, now_ms);
                }
                line.end();
                if arith.want_value {
                    out.extend_from_slice(text.as_bytes());
                    out.extend_from_slice(reply::CRLF);
                }
            }
            (ReplyMode::Text, Ok(number)) => {
                reply::number(out, number);
                out.extend_from_slice(reply::CRLF);
            }
            (ReplyMode::Text, Err(_)) => out.extend_from_slice(reply::NOT_FOUND),
            (ReplyMode::NoReply | ReplyMode::Binary(_), _) => {}
        }
    }

    fn meta_get(&mut self, get: &MetaGet<'_>, out: &mut Vec<u8>) {
        let mut room = protocol::KeyBuf::default();
        let key = get.key.bytes(&mut room).to_vec();
        let now_ms = self.now_ms();
        let mut won = false;
        if let Some(exptime) = get.vivify
            && self.find(&key).is_none()
        {
            let item = Item {
                expires_ms: self.expires_ms(exptime),
                cas: get.new_cas.unwrap_or(self.cas + 1),
                ..Item::default()
            };
            self.cas += 1;
            self.items.insert(key.clone(), item);
            won = true;
        }
        let touched = get.touch.map(|exptime| self.expires_ms(exptime));
        let recache_ms = get.recache.and_then(|exptime| self.expires_ms(exptime));
        let Some(item) = self.find(&key) else {
            if !get.tokens.quiet {
                meta_tokens(MetaLine::new(out, MetaCode::EN), get.tokens, get.key, None);
            }
            return;
        };
        if let Some(expires_ms) = touched {
            item.expires_ms = expires_ms;
        }
        let soon = |at: u64| recache_ms.is_some_and(|before| at < before);
        won |= !item.won && (item.stale || item.expires_ms.is_some_and(soon));
        let code = match get.want_value {
            true => MetaCode::VA(item.value.len() as u32),
            false => MetaCode::HD,
        };
        let mut line = MetaLine::new(out, code);
        show(&mut line, get.tokens, get.key, item, now_ms);
        if item.won {
            line.mark(b'Z');
        }
        if item.stale {
            line.mark(b'X');
        }
        if won {
            line.mark(b'W');
            item.won = true;
        }
        line.end();
        if get.want_value {
            out.extend_from_slice(&item.value);
            out.extend_from_slice(reply::CRLF);
        }
    }
}

impl Item {
    /// Seconds left, a begun one counted; -1 without end.
    fn left_s(&self, now_ms: u64) -> i64 {
        match self.expires_ms {
            None => -1,
            Some(at) => at.saturating_sub(now_ms).div_ceil(1000) as i64,
        }
    }
}

/// What the flags of a request ask to be shown of an item.
fn show(line: &mut MetaLine<'_>, tokens: MetaTokens<'_>, key: Key<'_>, item: &Item, now_ms: u64) {
    for (flag, token) in tokens.iter() {
        match flag {
            b'O' => line.bytes(b'O', token),
            b'k' => line.key(key),
            b'c' => line.number(b'c', item.cas),
            b'f' => line.number(b'f', item.flags),
            b's' => line.number(b's', item.value.len()),
            b't' => line.number(b't', item.left_s(now_ms)),
            _ => {}
        }
    }
}

/// The reply to a store or delete.
fn meta_line(
    out: &mut Vec<u8>,
    outcome: Outcome,
    tokens: MetaTokens<'_>,
    key: Key<'_>,
    cas: Option<u64>,
) {
    let code = match outcome {
        Outcome::Done if tokens.quiet => return,
        Outcome::Done => MetaCode::HD,
        Outcome::NotFound => MetaCode::NF,
        Outcome::NotStored => MetaCode::NS,
        Outcome::Exists => MetaCode::EX,
    };
    meta_tokens(MetaLine::new(out, code), tokens, key, cas);
}

/// What is given back without an item.
fn meta_tokens(mut line: MetaLine<'_>, tokens: MetaTokens<'_>, key: Key<'_>, cas: Option<u64>) {
    for (flag, token) in tokens.iter() {
        match (flag, cas) {
            (b'O', _) => line.bytes(b'O', token),
            (b'k', _) => line.key(key),
            (b'c', Some(cas)) => line.number(b'c', cas),
            _ => {}
        }
    }
    line.end();
}
