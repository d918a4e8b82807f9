//! Keys over HTTP, for tools and for curl: the same items that the other protocols see.
//!
//! ```text
//!  GET /get?key=K      200 {key, value, ttl}, or the bytes as they are for Accept: application/octet-stream; 404
//!  PUT /set            {key, value, ttl?, encoding?} 200
//!  DELETE /delete?key=K    200, 404
//!  GET, PUT, DELETE /K     the bytes as they are; PUT /K?ttl=60
//! ```
//!
//! A `ttl` is in seconds from now on, however many; 0, -1 or none is for ever. What is read shows -1 for that. A value that
//! is no UTF-8 goes in base64, with `"encoding": "base64"`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ketch_http::{Method, Request, Response};
use protocol::KEY_LEN_MAX;
use serde_json::{Value, json};

use super::json::{error, ok};
use crate::cache::{AllocError, ItemSpec, Lookup, Segment};
use crate::clock::RelTime;
use crate::events::Cause;
use crate::state::{Ctx, Shared};

/// Answers a request for one key.
pub(super) fn answer(shared: &Shared, request: &Request, path: &str) -> Response {
    let ctx = shared.ctx(shared.settings.threads);
    let answered = match (path, request.method) {
        ("/get", Method::Get | Method::Head) => {
            key_parameter(request).map(|key| get(ctx, &key, accepts_bytes(request)))
        }
        ("/set", Method::Put | Method::Post) => set(ctx, &request.body),
        ("/delete", Method::Delete) => key_parameter(request).map(|key| delete(ctx, &key)),
        ("/get", _) => return not_allowed("GET, HEAD"),
        ("/set", _) => return not_allowed("PUT, POST"),
        ("/delete", _) => return not_allowed("DELETE"),
        (_, method) => key_of_path(request).and_then(|key| match method {
            Method::Get | Method::Head => Ok(get(ctx, &key, true)),
            Method::Put => {
                let ttl = ttl_parameter(request)?;
                store(ctx, &key, &request.body, ttl)
            }
            Method::Delete => Ok(delete(ctx, &key)),
            Method::Post | Method::Other => Ok(not_allowed("GET, HEAD, PUT, DELETE")),
        }),
    };
    ctx.settle();
    answered.unwrap_or_else(|refused| refused)
}

fn not_allowed(allowed: &'static str) -> Response {
    error(405, "this path does not know that method").with("Allow", allowed)
}

/// What is answered instead, when something is wrong with the request.
type Answered<T> = Result<T, Response>;

fn bad(reason: &str) -> Response {
    error(400, reason)
}

fn key_parameter(request: &Request) -> Answered<Vec<u8>> {
    let not_encoded = |_| bad("the query is not percent-encoded as it should be");
    let key = request.parameter("key").map_err(not_encoded)?;
    checked(key.ok_or_else(|| bad("the query must have key=KEY"))?)
}

fn key_of_path(request: &Request) -> Answered<Vec<u8>> {
    let key = request.decoded_path();
    checked(key.ok_or_else(|| bad("the path is not percent-encoded as it should be"))?)
}

/// A key that every protocol can name.
fn checked(key: Vec<u8>) -> Answered<Vec<u8>> {
    if key.is_empty() || key.len() > KEY_LEN_MAX {
        return Err(bad("a key has 1 to 250 bytes"));
    }
    if key.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
        return Err(bad("a key has no blanks and no control characters"));
    }
    Ok(key)
}

fn ttl_parameter(request: &Request) -> Answered<i64> {
    let not_encoded = |_| bad("the query is not percent-encoded as it should be");
    let Some(text) = request.parameter("ttl").map_err(not_encoded)? else {
        return Ok(0);
    };
    let number = str::from_utf8(&text)
        .ok()
        .and_then(|text| text.parse().ok());
    number.ok_or_else(|| bad(TTL_NUMBER))
}

const TTL_NUMBER: &str = "ttl must be a number of seconds, or 0 for ever";

fn accepts_bytes(request: &Request) -> bool {
    let accept = request.header("accept").unwrap_or_default();
    accept
        .split(|&byte| byte == b',')
        .any(|kind| kind.trim_ascii().starts_with(b"application/octet-stream"))
}

fn get(ctx: Ctx<'_>, key: &[u8], as_bytes: bool) -> Response {
    let found = read(ctx, key);
    let Some((value, expires_at)) = found else {
        return error(404, "there is no such key");
    };
    if as_bytes {
        return Response::new(200, "application/octet-stream", value)
            .with("X-Content-Type-Options", "nosniff");
    }
    let ttl = match expires_at {
        RelTime::NEVER => -1,
        at => i64::from(at.since(ctx.now)),
    };
    let mut body = json!({ "ttl": ttl });
    put_text(&mut body, "key", "key_encoding", key.to_vec());
    put_text(&mut body, "value", "encoding", value);
    ok(&body)
}

/// Adds bytes as text, or in base64 if they are none.
fn put_text(body: &mut Value, name: &str, encoding: &str, bytes: Vec<u8>) {
    match String::from_utf8(bytes) {
        Ok(text) => body[name] = text.into(),
        Err(error) => {
            body[name] = BASE64.encode(error.as_bytes()).into();
            body[encoding] = "base64".into();
        }
    }
}

/// The value and its end. A copy is taken, so that the key's stripe is let go at once.
fn read(ctx: Ctx<'_>, key: &[u8]) -> Option<(Vec<u8>, RelTime)> {
    let mut entry = ctx
        .cache
        .entry(ctx.cache.probe(key).of(key), ctx.at(Cause::Http));
    let general = &ctx.stats.general;
    general.cmd_get.inc();
    let Some(item) = entry.item() else {
        general.get_misses.inc();
        general.count_miss(entry.why_missing());
        match entry.lookup() {
            Lookup::Expired => general.get_expired.inc(),
            Lookup::Flushed => general.get_flushed.inc(),
            Lookup::Found | Lookup::Missing => {}
        }
        return None;
    };
    let class = &ctx.stats.classes[item.class().index()];
    class.get_hits.inc();
    match item.segment() {
        Segment::Hot => class.hits_to_hot.inc(),
        Segment::Warm => class.hits_to_warm.inc(),
        Segment::Cold => class.hits_to_cold.inc(),
        Segment::Temp => class.hits_to_temp.inc(),
    }
    let mut value = Vec::with_capacity(item.value_len());
    item.value_pieces()
        .for_each(|piece| value.extend_from_slice(piece));
    let expires_at = item.expires_at();
    if let Some(hit) = entry.found() {
        hit.bump();
    }
    Some((value, expires_at))
}

fn set(ctx: Ctx<'_>, body: &[u8]) -> Answered<Response> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| bad(&format!("the body is not JSON: {error}")))?;
    let Value::Object(fields) = &body else {
        return Err(bad("the body must be an object {key, value, ttl}"));
    };
    let known = ["key", "value", "ttl", "encoding", "key_encoding"];
    if let Some(unknown) = fields.keys().find(|name| !known.contains(&&name[..])) {
        return Err(bad(&format!("the body has an unknown field {unknown:?}")));
    }
    let key = checked(bytes_of(&body, "key", "key_encoding")?)?;
    let value = bytes_of(&body, "value", "encoding")?;
    let ttl = match &body["ttl"] {
        Value::Null => 0,
        number => number.as_i64().ok_or_else(|| bad(TTL_NUMBER))?,
    };
    store(ctx, &key, &value, ttl)
}

/// A field that is text, or bytes in base64.
fn bytes_of(body: &Value, name: &str, encoding: &str) -> Answered<Vec<u8>> {
    let Some(text) = body[name].as_str() else {
        return Err(bad(&format!("the body must have {name}, a string")));
    };
    match &body[encoding] {
        Value::Null => Ok(text.as_bytes().to_vec()),
        Value::String(name) if name == "utf-8" => Ok(text.as_bytes().to_vec()),
        Value::String(name) if name == "base64" => BASE64
            .decode(text)
            .map_err(|_| bad("the body has base64 that is none")),
        _ => Err(bad(&format!("{encoding} must be utf-8 or base64"))),
    }
}

fn store(ctx: Ctx<'_>, key: &[u8], value: &[u8], ttl: i64) -> Answered<Response> {
    let expires_at = match ttl {
        0 | -1 => RelTime::NEVER,
        1.. => {
            let seconds = u32::try_from(ttl).unwrap_or(u32::MAX);
            RelTime(ctx.now.0.saturating_add(seconds))
        }
        _ => return Err(bad(TTL_NUMBER)),
    };
    let too_large = || error(413, "the value is larger than -I lets an item be");
    let spec = ItemSpec {
        key,
        key_binary: false,
        client_flags: 0,
        expires_at,
        value_len: u32::try_from(value.len()).map_err(|_| too_large())?,
    };
    let general = &ctx.stats.general;
    let mut new = match ctx.cache.create(&spec, ctx.at(Cause::Http)) {
        Ok(new) => new,
        Err(refused) => {
            // As in the other protocols: what it was to replace would be stale.
            let probe = ctx.cache.probe(key);
            ctx.cache
                .entry(probe.of(key), ctx.at(Cause::Http))
                .remove_key(key);
            return Err(match refused {
                AllocError::TooLarge => {
                    general.store_too_large.inc();
                    too_large()
                }
                AllocError::OutOfMemory => {
                    general.store_no_memory.inc();
                    error(507, "there is no memory for the value")
                }
            });
        }
    };
    new.write(value);
    ctx.stats.classes[new.class().index()].cmd_set.inc();
    let probe = ctx.cache.probe(key);
    ctx.cache
        .entry(probe.of(key), ctx.at(Cause::Http))
        .put(new, None);
    Ok(ok(&json!({ "stored": true })))
}

fn delete(ctx: Ctx<'_>, key: &[u8]) -> Response {
    let probe = ctx.cache.probe(key);
    let mut entry = ctx.cache.entry(probe.of(key), ctx.at(Cause::Http));
    let Some(item) = entry.item() else {
        entry.remove_key(key);
        ctx.stats.general.delete_misses.inc();
        return error(404, "there is no such key");
    };
    ctx.stats.classes[item.class().index()].delete_hits.inc();
    entry.remove();
    ok(&json!({ "deleted": true }))
}
