//! JSON: errors, and the figures that the page draws.
//!
//! ```text
//!  { "general": {key: value ..}, "settings": {..}, "items": {class: {..}}, "slabs": {class: {..}},
//!    "latency": [{command, count, mean_us, p50_us, p99_us, p999_us, max_us}], "misses": {reason: count},
//!    "hot": [{by, key, count, share}], "prefixes": [{prefix, reads, hits, stores, misses, items, bytes, unread_bytes}],
//!    "what_if": [{memory, hit_ratio}], "slow": [{second, command, line, us, stage, stage_us}] }
//! ```

use ketch_http::Response;
use serde_json::{Map, Value, json};

use super::figures::{Figures, Group, Told};
use super::insight::Insight;
use crate::keyspace::latency::Times;
use crate::keyspace::misses::Miss;

const JSON: &str = "application/json";

/// A reply with this body.
pub(super) fn ok(body: &Value) -> Response {
    Response::new(200, JSON, line(body))
}

/// An error, with its reason for whoever asked.
pub(super) fn error(status: u16, reason: &str) -> Response {
    Response::new(status, JSON, line(&json!({ "error": reason })))
}

fn line(body: &Value) -> Vec<u8> {
    let mut text = body.to_string().into_bytes();
    text.push(b'\n');
    text
}

/// A value of `stats`: a number if it is one.
fn value(text: &str) -> Value {
    if let Ok(number) = text.parse::<u64>() {
        return number.into();
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => number.into(),
        _ => text.into(),
    }
}

fn object(group: &Group) -> Value {
    let pairs = group
        .iter()
        .map(|(key, text)| (key.to_owned(), value(text)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn by_class(told: &Told) -> Value {
    let pairs = told
        .classes
        .iter()
        .map(|(class, group)| (class.to_string(), object(group)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn microseconds(ns: u64) -> Value {
    (ns as f64 / 1000.0).into()
}

fn times(times: &Times) -> Value {
    let count = times.count();
    json!({
        "count": count,
        "mean_us": microseconds(times.sum_ns / count.max(1)),
        "p50_us": microseconds(times.quantile(0.5)),
        "p99_us": microseconds(times.quantile(0.99)),
        "p999_us": microseconds(times.quantile(0.999)),
        "max_us": microseconds(times.max_ns()),
    })
}

/// What `/stats.json` says.
pub(super) fn stats(figures: &Figures, insight: &Insight) -> Value {
    let latency = insight.latency.iter().map(|group| {
        let mut one = times(&group.times);
        one["command"] = group.command.into();
        one
    });
    let misses = insight
        .misses
        .iter()
        .map(|&(reason, count)| (reason.to_owned(), count.into()));
    let hot = insight.hot.iter().map(|hot| {
        json!({
            "by": hot.by,
            "key": hot.key,
            "count": hot.count,
            "share": f64::from(hot.share_milli) / 1000.0,
        })
    });
    let prefixes = insight.prefixes.iter().map(|prefix| {
        let misses = Miss::ALL.iter().zip(prefix.misses);
        let misses = misses.map(|(miss, count)| (miss.name().to_owned(), count.into()));
        json!({
            "prefix": prefix.name,
            "reads": prefix.reads,
            "hits": prefix.hits,
            "stores": prefix.stores,
            "misses": Value::Object(misses.collect()),
            "items": prefix.held.map(|held| held.0),
            "bytes": prefix.held.map(|held| held.1),
            "unread_bytes": prefix.held.map(|held| held.2),
        })
    });
    let what_if = insight
        .what_if
        .iter()
        .map(|&(memory, hit_ratio)| json!({ "memory": memory, "hit_ratio": hit_ratio }));
    let slow = insight.slow.iter().map(|slow| {
        json!({
            "second": slow.at_s,
            "command": slow.group.name(),
            "line": String::from_utf8_lossy(&slow.line),
            "us": microseconds(slow.total_ns),
            "stage": slow.stage.name(),
            "stage_us": microseconds(slow.stage_ns),
        })
    });
    json!({
        "general": object(&figures.general),
        "settings": object(&figures.settings),
        "items": by_class(&figures.items),
        "slabs": by_class(&figures.slabs),
        "slabs_total": {
            "active_slabs": figures.slabs.server.number("active_slabs"),
            "total_malloced": figures.slabs.server.number("total_malloced"),
        },
        "latency": latency.collect::<Vec<_>>(),
        "wait": times(&insight.wait),
        "misses": Value::Object(misses.collect()),
        "hot": hot.collect::<Vec<_>>(),
        "prefixes": prefixes.collect::<Vec<_>>(),
        "what_if": what_if.collect::<Vec<_>>(),
        "slow": slow.collect::<Vec<_>>(),
    })
}
