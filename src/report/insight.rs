//! `stats latency`, `slow`, `hotkeys`, `prefixes`, `misses` and `whatif`: what goes on among the keys, a line each.
//!
//! Keys and prefixes are percent-encoded where they are not visible ASCII, as in `lru_crawler metadump`.

use std::fmt::Write;

use super::figures::Figures;
use super::sink::{Of, Sink};
use crate::events::Cause;
use crate::keyspace::hot_keys::HotKey;
use crate::keyspace::latency::{Group, Times};
use crate::keyspace::misses::Miss;
use crate::state::{COLUMNS, Ctx};

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insight {
    /// How long requests take, by group of commands, in microseconds.
    Latency,
    /// The slow requests, the newest first.
    Slow,
    /// The hottest keys by reads, by writes and by bytes.
    HotKeys,
    /// What is done by prefix, the most asked for first.
    Prefixes,
    /// Reads that missed, by why.
    Misses,
    /// Hit ratios to be expected with so many times the memory.
    WhatIf,
}

impl Insight {
    /// The group of `stats` with this name.
    pub(crate) fn of_word(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"latency" => Insight::Latency,
            b"slow" => Insight::Slow,
            b"hotkeys" => Insight::HotKeys,
            b"prefixes" => Insight::Prefixes,
            b"misses" => Insight::Misses,
            b"whatif" => Insight::WhatIf,
            _ => return None,
        })
    }

    pub(super) fn write(self, ctx: Ctx<'_>, sink: &mut dyn Sink) {
        let figures = &mut Figures {
            of: Of::Server,
            sink,
        };
        match self {
            Insight::Latency => latency(ctx, figures),
            Insight::Slow => slow(ctx, figures),
            Insight::HotKeys => hot_keys(ctx, figures),
            Insight::Prefixes => prefixes(ctx, figures),
            Insight::Misses => misses(ctx, figures),
            Insight::WhatIf => what_if(ctx, figures),
        }
    }
}

/// Keys shown of each list.
const HOT_SHOWN: usize = 20;
/// Slow requests shown, the newest.
const SLOW_SHOWN: usize = 100;

/// Bytes as one word of a line.
fn word(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String takes it");
        }
    }
    text
}

fn us(ns: u64) -> String {
    format!("{:.3}", ns as f64 / 1000.0)
}

fn latency(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let keyspace = &ctx.shared.keyspace;
    let mut show = |name: &str, times: &Times| {
        let count = times.count();
        figures.count(&format!("{name}:count"), count);
        let times_ns = [
            ("mean_us", times.sum_ns / count.max(1)),
            ("p50_us", times.quantile(0.5)),
            ("p99_us", times.quantile(0.99)),
            ("p999_us", times.quantile(0.999)),
            ("max_us", times.max_ns()),
        ];
        for (figure, ns) in times_ns {
            figures.ratio(&format!("{name}:{figure}"), ns as f64 / 1000.0, 3);
        }
    };
    for group in Group::ALL {
        show(group.name(), &keyspace.latency(group));
    }
    show("wait", &keyspace.wait());
}

fn slow(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let all = ctx.shared.keyspace.slow();
    for (n, slow) in all.iter().rev().take(SLOW_SHOWN).enumerate() {
        let (ago_s, command) = (ctx.now.0.saturating_sub(slow.at_s), slow.group.name());
        let (took, stage, stage_us) = (us(slow.total_ns), slow.stage.name(), us(slow.stage_ns));
        let line = match &slow.line[..] {
            b"" => "-".to_owned(),
            line => word(line),
        };
        let text = format!(
            "ago_s={ago_s} command={command} us={took} stage={stage} stage_us={stage_us} line={line}"
        );
        figures.text(&n.to_string(), &text);
    }
}

fn hot_keys(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let list = ctx.shared.keyspace.hot();
    let mut show = |by: &str, keys: &[HotKey]| {
        for (n, hot) in keys.iter().take(HOT_SHOWN).enumerate() {
            let (key, share) = (word(&hot.key), f64::from(hot.share_milli) / 1000.0);
            let count = hot.count;
            let text = format!("key={key} share={share:.3} count={count}");
            figures.text(&format!("{by}:{n}"), &text);
        }
    };
    show("reads", &list.reads);
    show("writes", &list.writes);
    show("bytes", &list.bytes);
}

fn prefixes(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    for prefix in ctx.shared.keyspace.prefixes() {
        let (counts, held) = (prefix.counts, prefix.held.unwrap_or_default());
        let mut value = format!(
            "reads={} hits={} stores={} items={} bytes={} unread_bytes={}",
            counts.reads, counts.hits, counts.stores, held.items, held.bytes, held.unread_bytes
        );
        for (miss, count) in Miss::ALL.iter().zip(counts.misses) {
            write!(value, " {}={count}", miss.name()).expect("a String takes it");
        }
        let name = match &prefix.name[..] {
            b"" => "-".to_owned(),
            name => word(name),
        };
        figures.text(&name, &value);
    }
}

fn misses(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let counts = ctx.shared.stats.read().general.misses();
    for (miss, count) in Miss::ALL.iter().zip(counts) {
        figures.count(miss.name(), count);
    }
}

fn what_if(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    for point in ctx.shared.keyspace.expect().into_iter().flatten() {
        figures.ratio(&format!("{}:hit_ratio", point.times), point.hit_ratio, 4);
    }
}

/// Up to `most` seconds of the record, those after the given one; before the first the names of the columns. Gives the last one
/// that was told, and the same again when there are no more.
pub(super) fn record(
    ctx: Ctx<'_>,
    after: Option<i64>,
    most: usize,
    sink: &mut dyn Sink,
) -> Option<i64> {
    let figures = &mut Figures {
        of: Of::Server,
        sink,
    };
    if after.is_none() {
        figures.text("time", &COLUMNS.join(" "));
    }
    let rows = ctx.shared.record.after(after.unwrap_or(i64::MIN), most);
    for row in &rows {
        let values = row.values.map(|value| value.to_string());
        figures.text(&row.unix_s.to_string(), &values.join(" "));
    }
    // A first step that finds nothing is over after the next, which finds as much.
    Some(
        rows.last()
            .map_or(after.unwrap_or(i64::MIN), |row| row.unix_s),
    )
}

/// What is known of one key: `there`, or why it is not.
pub(crate) fn why(ctx: Ctx<'_>, key: &[u8]) -> &'static str {
    let entry = ctx
        .cache
        .entry(ctx.cache.probe(key).of(key), ctx.at(Cause::Get));
    match entry.item() {
        Some(_) => "there",
        None => entry.why_missing().name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_word_whatever_its_bytes() {
        assert_eq!(word(b"user:1"), "user:1");
        assert_eq!(word(b"a b\r\n100%\xff"), "a%20b%0D%0A100%25%FF");
    }
}
