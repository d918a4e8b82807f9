//! Requests that read.

use bytes::Bytes;
use client_core::request::Wanted;
use protocol::reply::{self, CRLF, MetaCode};
use protocol::{BinaryGet, GetVerb, Key, Keys, MetaGet, ReplyMode, Status, binary};

use super::answers::{Out, bare, echo_marked, has, put_value, refuse};
use super::serving::Serving;

impl Serving<'_> {
    pub(super) async fn get(&self, verb: GetVerb, keys: Keys<'_>, is_last: bool, out: &mut Out) {
        let wanted = Wanted {
            cas: verb.with_cas,
            touch: verb.touch.map(|touch| self.exptime(touch)),
            ..Wanted::default()
        };
        let keys: Vec<&[u8]> = keys.iter().collect();
        let found = self.read(&keys, wanted).await;
        if !self.misses()
            && let Some(error) = found.iter().find_map(|found| found.as_ref().err())
        {
            return refuse(out, ReplyMode::Text, error);
        }
        for (key, found) in keys.iter().zip(found) {
            if let Ok(Some(hit)) = found {
                let cas = verb.with_cas.then_some(hit.cas);
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
            touch: get.touch.map(|touch| self.exptime(touch)),
            ..Wanted::default()
        };
        let found = self.read(&[key], wanted).await.pop();
        match found {
            Some(Ok(Some(hit))) => {
                let cas = hit.cas;
                let value = match get.want_value {
                    true => hit.item.value,
                    false => Bytes::new(),
                };
                let key = if get.want_key { key } else { b"" };
                let len = value.len() as u32;
                binary::value_head(&mut out.buf, get.head, hit.item.flags, key, len, cas);
                put_value(out, value);
            }
            Some(Err(error)) if !self.misses() => {
                refuse(out, ReplyMode::Binary(get.head), &error);
            }
            _ if get.head.quiet => {}
            _ if get.want_key => binary::missing(&mut out.buf, get.head, key),
            _ => binary::error(&mut out.buf, get.head, Status::NotFound),
        }
    }

    pub(super) async fn meta_get(&self, get: &MetaGet<'_>, key: &[u8], out: &mut Out) {
        let tokens = get.tokens;
        let wanted = Wanted {
            cas: has(tokens, b'c'),
            ttl: has(tokens, b't'),
            touch: get.touch.map(|touch| self.exptime(touch)),
            ..Wanted::default()
        };
        let hit = match self.read(&[key], wanted).await.pop() {
            Some(Ok(Some(hit))) => hit,
            Some(Err(error)) if !self.misses() => {
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
        let said = hit.recache;
        echo_marked(out, code, tokens, stored, said, |line, flag| match flag {
            b'f' => line.number(b'f', hit.item.flags),
            b'c' => line.number(b'c', hit.cas),
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
