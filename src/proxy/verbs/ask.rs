//! Meta commands that the core has no operation for.

use bytes::Bytes;
use client_core::meta::{MetaOutcome, MetaReply, MetaRequest};
use client_core::operation::Ask;
use client_core::reply::Reply;
use protocol::reply::{CRLF, MetaCode, MetaLine};
use protocol::{Exptime, Key, MetaTokens, ReplyMode};

use super::answers::{Out, has, number, put_value, refuse};
use super::serving::{Said, Serving, cut};

impl Serving<'_> {
    /// A meta command as it is, asked of the node that decides.
    pub(super) async fn ask(
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
        let mut has_ttl = false;
        for (flag, token) in tokens.iter() {
            // The key's form and the opaque are those of the exchange.
            if !b"bkOq".contains(&flag) {
                let mut token = token;
                let unique;
                if matches!(flag, b'C' | b'E')
                    && let Some(number) = number(token)
                {
                    unique = self.compared(bytes, number).number.to_string();
                    token = unique.as_bytes();
                }
                let ttl;
                if let (b'T' | b'N', Some(max)) = (flag, self.ttl_max)
                    && let Some(asked) = signed(token)
                {
                    has_ttl |= flag == b'T';
                    ttl = cut(Exptime::from(asked), max, self.seat.unix_s()).to_string();
                    token = ttl.as_bytes();
                }
                request.flags.push(' ');
                request.flags.push(char::from(flag));
                request.flags.push_str(&String::from_utf8_lossy(token));
            }
        }
        if let Some(max) = self.ttl_max
            && verb == "ms"
            && !has_ttl
        {
            request.flags.push_str(&format!(" T{max}"));
        }
        let ask = self.carry(Ask::new(self.context(), &request, None)).await;
        let (reply, decider) = match ask.finish() {
            Ok(answer) => answer,
            Err(error) => {
                self.note(Said::of(&error));
                return refuse(out, ReplyMode::Meta(tokens), &error);
            }
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
        self.note(match reply.outcome {
            MetaOutcome::Done => Said::Done,
            MetaOutcome::Missing => Said::Missing,
            _ => Said::Refused,
        });
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
}

fn signed(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
