//! What the keyspace knows, in the form that metrics and JSON are written from.

use crate::keyspace::hot_keys::HotKey;
use crate::keyspace::latency::{Group, Times};
use crate::keyspace::misses::{MISSES, Miss};
use crate::keyspace::slow::Slow;
use crate::state::Shared;

/// How long the requests of a group took.
#[derive(Debug, Clone)]
pub(super) struct GroupTimes {
    pub command: &'static str,
    pub times: Times,
}

/// A hot key.
#[derive(Debug, Clone)]
pub(super) struct Hot {
    /// `reads`, `writes` or `bytes`.
    pub by: &'static str,
    /// 0 is the hottest.
    pub rank: usize,
    /// As text; bytes that are none are replaced.
    pub key: String,
    pub count: u64,
    pub share_milli: u32,
}

/// A prefix.
#[derive(Debug, Clone)]
pub(super) struct PrefixFigures {
    pub name: String,
    pub reads: u64,
    pub hits: u64,
    pub stores: u64,
    pub misses: [u64; MISSES],
    /// Items, bytes, and the bytes nobody has read.
    pub held: Option<(u64, u64, u64)>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Insight {
    pub latency: Vec<GroupTimes>,
    pub wait: Times,
    pub misses: Vec<(&'static str, u64)>,
    pub hot: Vec<Hot>,
    pub prefixes: Vec<PrefixFigures>,
    /// Times the memory, and the hit ratio.
    pub what_if: Vec<(f64, f64)>,
    pub slow: Vec<Slow>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Insight {
    /// Reads all of it.
    pub fn read(shared: &Shared) -> Self {
        let keyspace = &shared.keyspace;
        let latency = Group::ALL.map(|group| GroupTimes {
            command: group.name(),
            times: keyspace.latency(group),
        });
        let list = keyspace.hot();
        let hot = |by, keys: &[HotKey]| -> Vec<Hot> {
            let hot = |(rank, key): (usize, &HotKey)| Hot {
                by,
                rank,
                key: text(&key.key),
                count: key.count,
                share_milli: key.share_milli,
            };
            keys.iter().enumerate().map(hot).collect()
        };
        let prefixes = keyspace.prefixes().into_iter().map(|prefix| PrefixFigures {
            name: text(&prefix.name),
            reads: prefix.counts.reads,
            hits: prefix.counts.hits,
            stores: prefix.counts.stores,
            misses: prefix.counts.misses,
            held: prefix
                .held
                .map(|held| (held.items, held.bytes, held.unread_bytes)),
        });
        let counts = shared.stats.read().general.misses();
        let expected = keyspace.expect();
        Insight {
            latency: latency.into(),
            wait: keyspace.wait(),
            misses: Miss::ALL.map(Miss::name).into_iter().zip(counts).collect(),
            hot: [
                hot("reads", &list.reads),
                hot("writes", &list.writes),
                hot("bytes", &list.bytes),
            ]
            .concat(),
            prefixes: prefixes.collect(),
            what_if: expected
                .into_iter()
                .flatten()
                .map(|point| (point.times, point.hit_ratio))
                .collect(),
            slow: keyspace.slow(),
        }
    }
}
