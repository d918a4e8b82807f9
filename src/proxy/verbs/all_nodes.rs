//! Requests to all nodes of a pool.

use std::collections::HashMap;

use bytes::Bytes;
use client_core::error::Error;
use client_core::operation::ForEachNode;

use super::serving::Serving;

impl Serving<'_> {
    /// What the nodes say of themselves. Those that do not answer have no part in it.
    pub(super) async fn stats(&self, line: Bytes) -> Vec<(String, String)> {
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

    pub(super) async fn flush(&self, line: Bytes) -> Result<(), Error> {
        let each = ForEachNode::new(self.context(), line, true);
        let answers = self.carry(each).await.finish();
        let mut errors = answers.into_iter().filter_map(|(_, answer)| answer.err());
        errors.next().map_or(Ok(()), Err)
    }
}

/// A proxy's figures, those about items as the sums of what its nodes say.
pub(super) fn with_sums(
    own: Vec<(String, String)>,
    said: &[(String, String)],
) -> Vec<(String, String)> {
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
