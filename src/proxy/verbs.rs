//! Requests as operations of the client's core: where a key has copies, or its nodes have just changed.
//!
//! What the core has no operation for (a meta command with flags such as `I` or `h`) is asked of the node that decides for the key;
//! where that changes something, the other copies are deleted, so that they are read anew.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use client_core::error::Error;
use client_core::meta::{MetaOutcome, MetaReply, MetaRequest};
use client_core::operation::{
    Ask, Command, Context, Decision, Entry, ForEachNode, Hit, Read, Verdict, ViaDecider, Write,
};
use client_core::reply::Reply;
use client_core::request::{Count, StoreMode, Wanted};
use client_core::value::{CasUnique, Payload};
use protocol::reply::{self, CRLF, MetaCode, MetaLine};
use protocol::{
    Arith, BinaryGet, BinaryHead, Delete, ErrorLine, Exptime, GetVerb, Key, KeyBuf, Keys, MetaGet,
    MetaTokens, Parsed, ReplyMode, Request, Status, Store, Touch, binary, text,
};

use super::carry::{Over, Seat, carry};
use super::replies::LARGE;
use crate::command::Output;

/// What a client asks for, as it outlives the buffer it was read into.
#[derive(Debug)]
pub(super) enum Job {
    /// A whole request, with its data block.
    Text(Bytes),
    Packet(Bytes),
    /// A list of keys, or a piece of it.
    Keys {
        verb: GetVerb,
        keys: Bytes,
        is_last: bool,
    },
    /// To all nodes of these pools too: this line, which empties them. A packet with this head asked for it.
    Flush {
        line: Bytes,
        others: Vec<Over>,
        head: Option<BinaryHead>,
    },
    /// What all nodes of these pools count together, in the place of what `own` says of that; as packets, if one asked.
    Stats {
        own: Vec<(String, String)>,
        /// Of a group only what nodes say, one after the other.
        group: Option<String>,
        others: Vec<Over>,
        head: Option<BinaryHead>,
    },
}

/// Reads that find no node that answers are misses, if the pool says so.
#[derive(Debug, Clone, Copy)]
struct Policy {
    misses: bool,
}

/// Does what a client asks for; gives its reply.
pub(super) async fn serve(seat: Rc<Seat>, over: Over, job: Job) -> Output<'static> {
    let mut out = Output::new();
    let serving = Serving {
        seat: &seat,
        over: &over,
        policy: Policy {
            misses: over.pool.spec.misses,
        },
    };
    match job {
        Job::Keys {
            verb,
            keys,
            is_last,
        } => serving.get(verb, Keys(&keys), is_last, &mut out).await,
        Job::Flush { line, others, head } => {
            let mut result = serving.flush(line.clone()).await;
            for over in &others {
                let other = Serving { over, ..serving };
                result = result.and(other.flush(line.clone()).await);
            }
            match (result, head) {
                (Ok(()), None) => out.bytes(reply::OK),
                (Ok(()), Some(head)) if head.quiet => {}
                (Ok(()), Some(head)) => binary::ok(&mut out.buf, head, 0),
                (Err(error), None) => refuse(&mut out, ReplyMode::Text, &error),
                (Err(error), Some(head)) => refuse(&mut out, ReplyMode::Binary(head), &error),
            }
        }
        Job::Stats {
            own,
            group,
            others,
            head,
        } => {
            let line = format!("stats {}\r\n", group.as_deref().unwrap_or_default());
            let line = Bytes::from(line.replace(" \r", "\r"));
            let mut said = serving.stats(line.clone()).await;
            for over in &others {
                said.extend(Serving { over, ..serving }.stats(line.clone()).await);
            }
            let figures = match group {
                Some(_) => said,
                None => with_sums(own, &said),
            };
            for (key, value) in &figures {
                match head {
                    None => reply::stat(&mut out.buf, key, value),
                    Some(head) => {
                        binary::stat(&mut out.buf, head, key.as_bytes(), value.as_bytes());
                    }
                }
            }
            match head {
                None => out.bytes(reply::END),
                Some(head) => binary::stat_end(&mut out.buf, head),
            }
        }
        Job::Text(bytes) => {
            let parsed = text::parse(&bytes);
            serving.request(parsed, &bytes, &mut out).await;
        }
        Job::Packet(bytes) => {
            let parsed = binary::parse(&bytes);
            serving.request(parsed, &bytes, &mut out).await;
        }
    }
    out
}

#[derive(Clone, Copy)]
struct Serving<'a> {
    seat: &'a Seat,
    over: &'a Over,
    policy: Policy,
}

type Out = Output<'static>;

impl Serving<'_> {
    fn context(&self) -> Context {
        self.seat.context(self.over)
    }

    async fn carry<O: client_core::Operation>(&self, mut operation: O) -> O {
        carry(self.seat, self.over, &mut operation).await;
        operation
    }

    async fn request(&self, parsed: Parsed<'_>, bytes: &Bytes, out: &mut Out) {
        let Parsed::Complete { request, consumed } = parsed else {
            // It was whole before.
            return out.error(ErrorLine::Backend);
        };
        let block = bytes.slice(consumed..);
        let mut room: KeyBuf = [0; protocol::KEY_LEN_MAX];
        match request {
            Request::Get(get) => self.get(get.verb, get.keys, get.last, out).await,
            Request::BinaryGet(get) => self.binary_get(&get, out).await,
            Request::MetaGet(get) => self.meta_get(&get, get.key.bytes(&mut room), out).await,
            Request::Store(store) => {
                let value = block.slice(..store.value_len as usize);
                self.store(&store, store.key.bytes(&mut room), value, out)
                    .await;
            }
            Request::Delete(delete) => {
                self.delete(&delete, delete.key.bytes(&mut room), out).await;
            }
            Request::Arith(arith) => self.count(&arith, arith.key.bytes(&mut room), out).await,
            Request::Touch(touch) => self.touch(&touch, touch.key.bytes(&mut room), out).await,
            // No other comes here.
            _ => out.error(ErrorLine::Backend),
        }
    }

    async fn read(&self, keys: Vec<&[u8]>, wanted: Wanted) -> Vec<Result<Option<Hit>, Error>> {
        let mut context = self.context();
        if wanted.cas && context.options.reads != client_core::options::Reads::First {
            // The unique is worth something on the node alone that decides.
            let options = (*context.options).clone();
            let options = options.reads(client_core::options::Reads::First);
            context.options = options.into();
        }
        let read = self.carry(Read::new(context, keys, wanted)).await;
        read.finish().collect()
    }

    /// The CAS unique of a node as a client is told it: worth nothing for another node.
    fn unique(&self, number: u64, node: usize) -> u64 {
        number ^ self.salt(node)
    }

    fn salt(&self, node: usize) -> u64 {
        // Few bits, as nodes count from 1 and some programs keep 32.
        const BITS: u64 = (1 << 24) - 1;
        match self.over.pool.options.copies {
            1 => 0,
            _ => self.over.now.ring.members[node].identity & BITS,
        }
    }

    /// What a client compares, at the node that decides now.
    fn compared(&self, key: &[u8], unique: u64) -> CasUnique {
        let ring = &self.over.now.ring;
        let decider = ring.writers(key, self.seat.now(), &self.over.pool.options);
        let decider = decider.first().unwrap_or(0);
        let members = &ring.members;
        CasUnique {
            number: unique ^ self.salt(decider.min(members.len().saturating_sub(1))),
            node: members.get(decider).map_or(0, |member| member.identity),
        }
    }

    async fn get(&self, verb: GetVerb, keys: Keys<'_>, is_last: bool, out: &mut Out) {
        let wanted = Wanted {
            cas: verb.with_cas,
            touch: verb.touch.map(exptime),
            ..Wanted::default()
        };
        let keys: Vec<&[u8]> = keys.iter().collect();
        let found = self.read(keys.clone(), wanted).await;
        if !self.policy.misses
            && let Some(error) = found.iter().find_map(|found| found.as_ref().err())
        {
            return refuse(out, ReplyMode::Text, error);
        }
        for (key, found) in keys.iter().zip(found) {
            if let Ok(Some(hit)) = found {
                let cas = verb.with_cas.then(|| self.unique(hit.cas, hit.node));
                let value = hit.item.value;
                reply::value_head(&mut out.buf, key, hit.item.flags, value.len() as u32, cas);
                put_value(out, value);
                out.bytes(CRLF);
            }
        }
        if is_last {
            out.bytes(reply::END);
        }
    }

    async fn binary_get(&self, get: &BinaryGet<'_>, out: &mut Out) {
        let key = get.key.text;
        let wanted = Wanted {
            cas: true,
            touch: get.touch.map(exptime),
            ..Wanted::default()
        };
        let found = self.read(vec![key], wanted).await.pop();
        match found {
            Some(Ok(Some(hit))) => {
                let cas = self.unique(hit.cas, hit.node);
                let value = match get.want_value {
                    true => hit.item.value,
                    false => Bytes::new(),
                };
                let key = if get.want_key { key } else { b"" };
                let len = value.len() as u32;
                binary::value_head(&mut out.buf, get.head, hit.item.flags, key, len, cas);
                put_value(out, value);
            }
            Some(Err(error)) if !self.policy.misses => {
                refuse(out, ReplyMode::Binary(get.head), &error);
            }
            _ if get.head.quiet => {}
            _ if get.want_key => binary::missing(&mut out.buf, get.head, key),
            _ => binary::error(&mut out.buf, get.head, Status::NotFound),
        }
    }

    async fn meta_get(&self, get: &MetaGet<'_>, key: &[u8], out: &mut Out) {
        let tokens = get.tokens;
        if !only(tokens, b"vfctskOqbT") {
            let changes = get.touch.is_some() || get.vivify.is_some() || get.recache.is_some();
            let asked = (get.want_value, changes || has(tokens, b'E'));
            return self
                .ask("mg", (get.key, key), tokens, None, asked, out)
                .await;
        }
        let wanted = Wanted {
            cas: has(tokens, b'c'),
            ttl: has(tokens, b't'),
            touch: get.touch.map(exptime),
            ..Wanted::default()
        };
        let hit = match self.read(vec![key], wanted).await.pop() {
            Some(Ok(Some(hit))) => hit,
            Some(Err(error)) if !self.policy.misses => {
                return refuse(out, ReplyMode::Meta(tokens), &error);
            }
            _ if tokens.quiet => return,
            _ => return bare(out, MetaCode::EN, tokens, get.key),
        };
        let value = hit.item.value;
        let code = match get.want_value {
            true => MetaCode::VA(value.len() as u32),
            false => MetaCode::HD,
        };
        // An item's key is given back as nodes have it: in base64 if it needs to be.
        let stored = match Key::plain(key).needs_base64() {
            true => get.key,
            false => Key::plain(key),
        };
        echo(out, code, tokens, stored, |line, flag| match flag {
            b'f' => line.number(b'f', hit.item.flags),
            b'c' => line.number(b'c', self.unique(hit.cas, hit.node)),
            b't' => line.number(b't', hit.ttl.unwrap_or(-1)),
            b's' => line.number(b's', value.len()),
            _ => {}
        });
        if get.want_value {
            put_value(out, value);
            out.bytes(CRLF);
        }
    }

    async fn store(&self, store: &Store<'_>, key: &[u8], value: Bytes, out: &mut Out) {
        if let ReplyMode::Meta(tokens) = store.reply
            && !only(tokens, b"TFMOkqbCsc")
        {
            let ask = self.ask(
                "ms",
                (store.key, key),
                tokens,
                Some(value),
                (false, true),
                out,
            );
            return ask.await;
        }
        let exptime = exptime(store.exptime);
        let payload = Payload {
            bytes: &value,
            flags: store.client_flags,
        };
        let entry = Entry {
            key,
            value: payload,
        };
        let wants_unique = match store.reply {
            ReplyMode::Meta(tokens) => has(tokens, b'c'),
            ReplyMode::Binary(head) => !head.quiet,
            ReplyMode::Text | ReplyMode::NoReply => false,
        };
        let decision = match (store.compare_cas, store.mode) {
            (Some(unique), _) => Decision::Cas {
                unique: self.compared(key, unique),
                exptime,
            },
            (None, protocol::StoreMode::Set) if !wants_unique => {
                return stored(out, store, self.set(entry, exptime).await, 0);
            }
            (None, mode) => Decision::Store {
                mode: match mode {
                    protocol::StoreMode::Add => StoreMode::Add,
                    protocol::StoreMode::Append => StoreMode::Append,
                    protocol::StoreMode::Prepend => StoreMode::Prepend,
                    protocol::StoreMode::Replace => StoreMode::Replace,
                    // By the decider too, which tells the unique.
                    protocol::StoreMode::Set => StoreMode::Set,
                },
                exptime,
            },
        };
        let mut decide = ViaDecider::new(self.context(), entry, decision);
        if wants_unique {
            decide = decide.with_unique();
        }
        let decide = self.carry(decide).await;
        let unique = self.unique_of(&decide);
        match decide.finish() {
            // A value may be set once more, which needs no decider; then nobody knows its unique.
            Err(Error::Node { .. } | Error::Timeout)
                if store.compare_cas.is_none() && store.mode == protocol::StoreMode::Set =>
            {
                stored(out, store, self.set(entry, exptime).await, 0);
            }
            verdict => stored(out, store, verdict, unique),
        }
    }

    /// Sets a value on all copies.
    async fn set(&self, entry: Entry<'_>, exptime: i32) -> Result<Verdict, Error> {
        let mode = StoreMode::Set;
        let write = Write::new(
            self.context(),
            vec![entry],
            Command::Store { mode, exptime },
        );
        match self.carry(write).await.finish().next() {
            Some(Ok(_)) => Ok(Verdict::Done(0)),
            Some(Err(error)) => Err(error),
            None => Err(Error::Timeout),
        }
    }

    /// The unique of what was stored, as clients are told it.
    fn unique_of(&self, decide: &ViaDecider<'_>) -> u64 {
        match decide.unique() {
            (0, _) => 0,
            (number, node) => self.unique(number, node),
        }
    }

    async fn delete(&self, delete: &Delete<'_>, key: &[u8], out: &mut Out) {
        if let ReplyMode::Meta(tokens) = delete.reply
            && !only(tokens, b"Okqb")
        {
            let ask = self.ask("md", (delete.key, key), tokens, None, (false, true), out);
            return ask.await;
        }
        let verdict = match delete.compare_cas {
            Some(unique) => self.delete_compared(key, unique).await,
            None => {
                let command = Command::Delete { compare: None };
                let write = Write::new(self.context(), vec![Entry::key(key)], command);
                let written = self.carry(write).await.finish().next();
                match written.unwrap_or(Err(Error::Timeout)) {
                    Ok(written) if written.done => Ok(Verdict::Done(0)),
                    Ok(_) => Ok(Verdict::Missing),
                    Err(error) => Err(error),
                }
            }
        };
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => return refuse(out, delete.reply, &error),
        };
        let found = matches!(verdict, Verdict::Done(_));
        match (delete.reply, verdict) {
            (ReplyMode::NoReply, _) => {}
            (ReplyMode::Text, Verdict::Done(_)) => out.bytes(reply::DELETED),
            (ReplyMode::Text, _) => out.bytes(reply::NOT_FOUND),
            (ReplyMode::Meta(tokens), _) if found && tokens.quiet => {}
            (ReplyMode::Meta(tokens), _) if found => bare(out, MetaCode::HD, tokens, delete.key),
            (ReplyMode::Meta(tokens), _) => bare(out, MetaCode::NF, tokens, delete.key),
            (ReplyMode::Binary(head), Verdict::Done(_)) if head.quiet => {}
            (ReplyMode::Binary(head), Verdict::Done(_)) => binary::ok(&mut out.buf, head, 0),
            (ReplyMode::Binary(head), Verdict::Missing) => {
                binary::error(&mut out.buf, head, Status::NotFound);
            }
            (ReplyMode::Binary(head), _) => binary::error(&mut out.buf, head, Status::Exists),
        }
    }

    /// Deletes what has this unique at the node that decides, and then the other copies.
    async fn delete_compared(&self, key: &[u8], unique: u64) -> Result<Verdict, Error> {
        let unique = self.compared(key, unique);
        let request = MetaRequest::delete(key).flag(format!("C{}", unique.number));
        let ask = self.carry(Ask::new(self.context(), &request, None)).await;
        match ask.finish()? {
            (Reply::Ok(_), decider) => {
                self.delete_beside(key, decider).await;
                Ok(Verdict::Done(0))
            }
            (Reply::Exists, _) => Ok(Verdict::Conflict),
            _ => Ok(Verdict::Missing),
        }
    }

    /// The other copies of a key that was changed at `decider` alone.
    async fn delete_beside(&self, key: &[u8], decider: usize) {
        let context = self.context();
        if context.ring.copies(&context.options) > 1 {
            let command = Command::Delete { compare: None };
            let write = Write::beside(context, Entry::key(key), command, decider);
            // What fails is deleted when its node answers again.
            self.carry(write).await;
        }
    }

    async fn count(&self, arith: &Arith<'_>, key: &[u8], out: &mut Out) {
        if let ReplyMode::Meta(tokens) = arith.reply
            && !only(tokens, b"OkqbDJNMvc")
        {
            let asked = (arith.want_value, true);
            return self
                .ask("ma", (arith.key, key), tokens, None, asked, out)
                .await;
        }
        let decision = Decision::Count(Count {
            down: arith.decrement,
            delta: arith.delta,
            create: arith.vivify.map(|at| (arith.initial, exptime(at))),
        });
        let decide = ViaDecider::new(self.context(), Entry::key(key), decision).with_unique();
        let decide = self.carry(decide).await;
        let unique = self.unique_of(&decide);
        let verdict = match decide.finish() {
            Ok(verdict) => verdict,
            Err(error) => return refuse(out, arith.reply, &error),
        };
        let number = match verdict {
            Verdict::Done(number) => Some(number),
            _ => None,
        };
        match (arith.reply, number) {
            (ReplyMode::NoReply, _) => {}
            (ReplyMode::Text, None) => out.bytes(reply::NOT_FOUND),
            (ReplyMode::Text, Some(number)) => {
                reply::number(&mut out.buf, number);
                out.bytes(CRLF);
            }
            (ReplyMode::Binary(head), Some(_)) if head.quiet => {}
            (ReplyMode::Binary(head), Some(number)) => {
                binary::number(&mut out.buf, head, number, unique);
            }
            (ReplyMode::Binary(head), None) => {
                binary::error(&mut out.buf, head, Status::NotFound);
            }
            (ReplyMode::Meta(tokens), None) => bare(out, MetaCode::NF, tokens, arith.key),
            (ReplyMode::Meta(tokens), Some(_)) if tokens.quiet => {}
            (ReplyMode::Meta(tokens), Some(number)) => {
                let number = number.to_string();
                let code = match arith.want_value {
                    true => MetaCode::VA(number.len() as u32),
                    false => MetaCode::HD,
                };
                echo(out, code, tokens, arith.key, |line, flag| {
                    if flag == b'c' {
                        line.number(b'c', unique);
                    }
                });
                if arith.want_value {
                    out.bytes(number.as_bytes());
                    out.bytes(CRLF);
                }
            }
        }
    }

    async fn touch(&self, touch: &Touch<'_>, key: &[u8], out: &mut Out) {
        let decision = Decision::Touch {
            exptime: exptime(touch.exptime),
        };
        let decide = ViaDecider::new(self.context(), Entry::key(key), decision);
        let verdict = self.carry(decide).await.finish();
        let mode = match touch.noreply {
            true => ReplyMode::NoReply,
            false => ReplyMode::Text,
        };
        match (verdict, mode) {
            (Err(error), _) => refuse(out, mode, &error),
            (_, ReplyMode::NoReply) => {}
            (Ok(Verdict::Done(_)), _) => out.bytes(reply::TOUCHED),
            (Ok(_), _) => out.bytes(reply::NOT_FOUND),
        }
    }

    /// A meta command as it is, asked of the node that decides.
    async fn ask(
        &self,
        verb: &'static str,
        (key, bytes): (Key<'_>, &[u8]),
        tokens: MetaTokens<'_>,
        value: Option<Bytes>,
        (want_value, changes): (bool, bool),
        out: &mut Out,
    ) {
        let mut request = MetaRequest::get(bytes);
        (request.verb, request.value) = (verb, value);
        for (flag, token) in tokens.iter() {
            // The key's form and the opaque are those of the exchange.
            if !b"bkOq".contains(&flag) {
                let mut token = token;
                let unique;
                if flag == b'C'
                    && let Some(number) = number(token)
                {
                    unique = self.compared(bytes, number).number.to_string();
                    token = unique.as_bytes();
                }
                request.flags.push(' ');
                request.flags.push(char::from(flag));
                request.flags.push_str(&String::from_utf8_lossy(token));
            }
        }
        let ask = self.carry(Ask::new(self.context(), &request, None)).await;
        let (reply, decider) = match ask.finish() {
            Ok(answer) => answer,
            Err(error) => return refuse(out, ReplyMode::Meta(tokens), &error),
        };
        let reply = match reply {
            Reply::Ok(mut meta) => {
                if meta.cas != 0 {
                    meta.cas = self.unique(meta.cas, decider);
                }
                request.reply(meta)
            }
            Reply::NotStored => MetaReply::without_item(MetaOutcome::NotStored),
            Reply::Exists => MetaReply::without_item(MetaOutcome::Exists),
            _ => MetaReply::without_item(MetaOutcome::Missing),
        };
        if changes && reply.outcome == MetaOutcome::Done {
            self.delete_beside(bytes, decider).await;
        }
        let code = match reply.outcome {
            MetaOutcome::Missing if verb == "mg" => MetaCode::EN,
            MetaOutcome::NotStored => MetaCode::NS,
            MetaOutcome::Exists => MetaCode::EX,
            // Who knows the unique is given no value.
            MetaOutcome::Done if want_value && !(has(tokens, b'C') && reply.value.is_empty()) => {
                MetaCode::VA(reply.value.len() as u32)
            }
            MetaOutcome::Done => MetaCode::HD,
            _ => MetaCode::NF,
        };
        let hushed = match verb {
            "mg" => MetaOutcome::Missing,
            _ => MetaOutcome::Done,
        };
        if tokens.quiet && reply.outcome == hushed {
            return;
        }
        let mut line = MetaLine::new(&mut out.buf, code);
        for (flag, token) in tokens.iter() {
            match flag {
                b'O' => line.bytes(b'O', token),
                b'k' => line.key(key),
                b'b' | b'q' => {}
                _ => {
                    if let Some(said) = reply.flag(char::from(flag))
                        && b"hltfsc".contains(&flag)
                    {
                        line.bytes(flag, said.as_bytes());
                    }
                }
            }
        }
        for mark in *b"ZXW" {
            if reply.flag(char::from(mark)) == Some("") {
                line.mark(mark);
            }
        }
        line.end();
        if let MetaCode::VA(_) = code {
            put_value(out, reply.value);
            out.bytes(CRLF);
        }
    }

    /// What the nodes say of themselves. Those that do not answer have no part in it.
    async fn stats(&self, line: Bytes) -> Vec<(String, String)> {
        let each = ForEachNode::new(self.context(), line, false);
        let answers = self.carry(each).await.finish();
        let lines = answers.into_iter().filter_map(|(_, answer)| answer.ok());
        let figure = |line: Bytes| {
            let line = String::from_utf8_lossy(&line);
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.to_owned()))
        };
        lines.flatten().filter_map(figure).collect()
    }

    async fn flush(&self, line: Bytes) -> Result<(), Error> {
        let each = ForEachNode::new(self.context(), line, true);
        let answers = self.carry(each).await.finish();
        let mut errors = answers.into_iter().filter_map(|(_, answer)| answer.err());
        errors.next().map_or(Ok(()), Err)
    }
}

/// The reply to a store.
fn stored(out: &mut Out, store: &Store<'_>, verdict: Result<Verdict, Error>, unique: u64) {
    use protocol::StoreMode::{Add, Append, Prepend, Replace, Set};
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(error) => return refuse(out, store.reply, &error),
    };
    let compares = store.compare_cas.is_some();
    match (store.reply, verdict) {
        (ReplyMode::NoReply, _) => {}
        (ReplyMode::Text, verdict) => out.bytes(match verdict {
            Verdict::Done(_) => reply::STORED,
            Verdict::Conflict => reply::EXISTS,
            Verdict::Missing if compares => reply::NOT_FOUND,
            Verdict::Missing | Verdict::Exists => reply::NOT_STORED,
        }),
        (ReplyMode::Meta(tokens), verdict) => {
            let code = match verdict {
                Verdict::Done(_) if tokens.quiet => return,
                Verdict::Done(_) => MetaCode::HD,
                Verdict::Conflict => MetaCode::EX,
                Verdict::Missing if compares => MetaCode::NF,
                Verdict::Missing | Verdict::Exists => MetaCode::NS,
            };
            // As on a server, what was not stored has no unique.
            let unique = if code == MetaCode::HD { unique } else { 0 };
            echo(out, code, tokens, store.key, |line, flag| match flag {
                b's' => line.number(b's', store.value_len),
                b'c' => line.number(b'c', unique),
                _ => {}
            });
        }
        (ReplyMode::Binary(head), verdict) => {
            let status = match (verdict, store.mode) {
                (Verdict::Done(_), _) if head.quiet => return,
                (Verdict::Done(_), _) => return binary::ok(&mut out.buf, head, unique),
                (Verdict::Conflict | Verdict::Exists, _) | (_, Add) => Status::Exists,
                (Verdict::Missing, Replace | Set) => Status::NotFound,
                (Verdict::Missing, Append | Prepend) => Status::NotStored,
            };
            binary::error(&mut out.buf, head, status);
        }
    }
}

/// A proxy's figures, those about items as the sums of what its nodes say.
fn with_sums(own: Vec<(String, String)>, said: &[(String, String)]) -> Vec<(String, String)> {
    let mut sums: HashMap<&str, u64> = HashMap::new();
    for (key, value) in said.iter().filter(|(key, _)| is_of_items(key)) {
        if let Ok(value) = value.parse::<u64>() {
            let sum = sums.entry(key).or_default();
            *sum = sum.saturating_add(value);
        }
    }
    let own = own.into_iter();
    let summed = own.map(|(key, value)| match sums.get(&key[..]) {
        Some(sum) => (key, sum.to_string()),
        None => (key, value),
    });
    summed.collect()
}

/// True for the figures of `stats` that are about items and the commands that touch them: nodes have these, a proxy has none.
fn is_of_items(key: &str) -> bool {
    const BEGIN: [&str; 17] = [
        "cmd_", "get_", "delete_", "incr_", "decr_", "cas_", "touch_", "store_", "slab", "lru",
        "crawler_", "moves_", "evict", "expired_", "bytes_of", "direct_", "hash_",
    ];
    const WHOLE: [&str; 6] = [
        "curr_items",
        "total_items",
        "bytes",
        "limit_maxbytes",
        "reclaimed",
        "malloc_fails",
    ];
    let is_setting = key.contains("running") || key == "hash_power_level" || key.contains("is_exp");
    !is_setting && (WHOLE.contains(&key) || BEGIN.iter().any(|begin| key.starts_with(begin)))
}

/// The line of an error, in the encoding of the request.
fn refuse(out: &mut Out, mode: ReplyMode<'_>, error: &Error) {
    let line = match error {
        Error::TooLarge { .. } => ErrorLine::TooLarge,
        Error::Full { .. } => ErrorLine::OutOfMemoryStoring,
        Error::NotANumber => ErrorLine::NonNumeric,
        Error::Key(_) => ErrorLine::BadFormat,
        Error::Refused { line, .. } if matches!(mode, ReplyMode::Text | ReplyMode::Meta(_)) => {
            out.bytes(line.as_bytes());
            return out.bytes(CRLF);
        }
        _ => ErrorLine::Backend,
    };
    match mode {
        ReplyMode::NoReply => {}
        ReplyMode::Binary(head) => binary::error(&mut out.buf, head, line.into()),
        ReplyMode::Text | ReplyMode::Meta(_) => out.error(line),
    }
}

/// A meta reply that tells of no item.
fn bare(out: &mut Out, code: MetaCode, tokens: MetaTokens<'_>, key: Key<'_>) {
    echo(out, code, tokens, key, |_, _| {});
}

/// A meta reply with the opaque and the key given back, and what `tell` says to the other flags.
fn echo(
    out: &mut Out,
    code: MetaCode,
    tokens: MetaTokens<'_>,
    key: Key<'_>,
    tell: impl Fn(&mut MetaLine<'_>, u8),
) {
    let mut line = MetaLine::new(&mut out.buf, code);
    for (flag, token) in tokens.iter() {
        match flag {
            b'O' => line.bytes(b'O', token),
            b'k' => line.key(key),
            _ => tell(&mut line, flag),
        }
    }
    line.end();
}

fn put_value(out: &mut Out, value: Bytes) {
    match value.len() {
        LARGE.. => out.shared(value),
        _ => out.bytes(&value),
    }
}

fn has(tokens: MetaTokens<'_>, letter: u8) -> bool {
    tokens.iter().any(|(flag, _)| flag == letter)
}

fn only(tokens: MetaTokens<'_>, letters: &[u8]) -> bool {
    tokens.iter().all(|(flag, _)| letters.contains(&flag))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An expiry time as the core sends it.
fn exptime(exptime: Exptime) -> i32 {
    match exptime.to_string().parse::<i64>() {
        Ok(number) => i32::try_from(number).unwrap_or(i32::MAX),
        Err(_) => 0,
    }
}
