//! Requests that change something.

use bytes::Bytes;
use client_core::error::Error;
use client_core::meta::MetaRequest;
use client_core::operation::{Ask, Command, Decision, Entry, Verdict, ViaDecider, Write};
use client_core::reply::Reply;
use client_core::request::{Count, StoreMode};
use client_core::value::Payload;
use protocol::reply::{self, CRLF, MetaCode};
use protocol::{Arith, Delete, ReplyMode, Status, Store, Touch, binary};

use super::answers::{Out, bare, echo, has, only, refuse, stored};
use super::serving::Serving;

impl Serving<'_> {
    pub(super) async fn store(&self, store: &Store<'_>, key: &[u8], value: Bytes, out: &mut Out) {
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
        let exptime = self.exptime(store.exptime);
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
                let verdict = self.set(entry, exptime).await;
                self.note_verdict(&verdict);
                return stored(out, store, verdict, 0);
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
                let verdict = self.set(entry, exptime).await;
                self.note_verdict(&verdict);
                stored(out, store, verdict, 0);
            }
            verdict => {
                self.note_verdict(&verdict);
                stored(out, store, verdict, unique);
            }
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

    pub(super) async fn delete(&self, delete: &Delete<'_>, key: &[u8], out: &mut Out) {
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
        self.note_verdict(&verdict);
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
    pub(super) async fn delete_beside(&self, key: &[u8], decider: usize) {
        let context = self.context();
        if context.ring.copies(&context.options) > 1 {
            let command = Command::Delete { compare: None };
            let write = Write::beside(context, Entry::key(key), command, decider);
            // What fails is deleted when its node answers again.
            self.carry(write).await;
        }
    }

    pub(super) async fn count(&self, arith: &Arith<'_>, key: &[u8], out: &mut Out) {
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
            create: arith.vivify.map(|at| (arith.initial, self.exptime(at))),
        });
        let decide = ViaDecider::new(self.context(), Entry::key(key), decision).with_unique();
        let decide = self.carry(decide).await;
        let unique = self.unique_of(&decide);
        let verdict = decide.finish();
        self.note_verdict(&verdict);
        let verdict = match verdict {
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

    pub(super) async fn touch(&self, touch: &Touch<'_>, key: &[u8], out: &mut Out) {
        let decision = Decision::Touch {
            exptime: self.exptime(touch.exptime),
        };
        let decide = ViaDecider::new(self.context(), Entry::key(key), decision);
        let verdict = self.carry(decide).await.finish();
        self.note_verdict(&verdict);
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
}
