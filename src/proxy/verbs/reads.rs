//! Requests that read.

use bytes::Bytes;
use client_core::error::Error;
use client_core::operation::{Hit, Read};
use client_core::request::Wanted;
use protocol::reply::{self, CRLF, MetaCode};
use protocol::{BinaryGet, GetVerb, Key, Keys, MetaGet, ReplyMode, Status, binary};

use super::answers::{Out, bare, echo, exptime, has, only, put_value, refuse};
use super::serving::Serving;

impl Serving<'_> {
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

    pub(super) async fn get(&self, verb: GetVerb, keys: Keys<'_>, is_last: bool, out: &mut Out) {
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

    pub(super) async fn binary_get(&self, get: &BinaryGet<'_>, out: &mut Out) {
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

    pub(super) async fn meta_get(&self, get: &MetaGet<'_>, key: &[u8], out: &mut Out) {
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
}
