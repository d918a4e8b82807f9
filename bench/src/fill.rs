//! How many items stay: stores all keys in order, reads all of them, counts the hits.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use crate::conn::Target;
use crate::json::Object;
use crate::options::Options;
use crate::process::Process;
use crate::run::{Limit, Outcome, Plan, Sample, run};
use crate::workload::{Popularity, Workload};

/// Keys a command names when all are read back; fewer where the values are long.
const KEYS_PER_GET: usize = 50;
/// Bytes of values that a batch brings at most, about.
const BATCH_BYTES: usize = 256 * 1024;

/// Stores every key on each server, in order. Stores that a full server refuses are counted; any
/// other error ends it.
pub fn store_all(plan: &Plan, mut progress: impl FnMut(&Sample)) -> Result<Outcome, String> {
    let mut outcome = None;
    for target in &plan.targets {
        let stored = run(&walk(plan, target, plan.workload.store()), &mut progress)?;
        if stored.tally.errors() > stored.tally.refused {
            let error = stored.tally.first_error.unwrap_or_default();
            return Err(format!("filling {target}: {error}"));
        }
        outcome = Some(stored);
    }
    outcome.ok_or_else(|| "no server".to_owned())
}

fn walk(plan: &Plan, target: &Target, workload: Workload) -> Plan {
    let value = plan.data.value_len_max() + 100;
    Plan {
        targets: vec![target.clone()],
        workload,
        popularity: Popularity::Sequential,
        limit: Limit::Keys(plan.keys),
        warmup: Duration::ZERO,
        rate: None,
        connections: plan.connections.min(8),
        depth: (BATCH_BYTES / value / workload.multi).clamp(1, 32),
        ..plan.clone()
    }
}

/// What is resident after a fill.
#[derive(Clone, Debug)]
pub struct Residents {
    /// Items stored.
    pub stored: u64,
    /// Stores that the server refused: some say so rather than evict under a fast writer.
    pub refused: u64,
    /// Items found.
    pub resident: u64,
    /// Bytes of their keys and values.
    pub payload_bytes: u64,
    /// `limit_maxbytes` of the server.
    pub limit_bytes: Option<u64>,
    /// Resident memory of its process, before and after.
    pub rss_bytes: Option<(u64, u64)>,
    /// Errors in replies.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
}

/// Fills the first server and counts.
pub fn fill(plan: &Plan, mut progress: impl FnMut(&Sample)) -> Result<Residents, String> {
    let target = &plan.targets[0];
    let only = Plan {
        targets: vec![target.clone()],
        ..plan.clone()
    };
    let rss = || plan.server.and_then(Process::resident_bytes);
    let before = rss();
    let stored = store_all(&only, &mut progress)?;
    let after = rss();
    let mut read = Workload {
        writes: 0.0,
        misses: 0.0,
        ..plan.workload
    };
    read.multi = (BATCH_BYTES / (plan.data.value_len_max() + 100)).clamp(1, KEYS_PER_GET);
    let found = run(&walk(plan, target, read), &mut progress)?.tally;
    Ok(Residents {
        stored: stored.tally.stored,
        refused: stored.tally.refused,
        resident: found.hits,
        payload_bytes: found.hit_bytes + found.hits * plan.data.key_len() as u64,
        limit_bytes: stat(target, "limit_maxbytes"),
        rss_bytes: before.zip(after),
        errors: found.errors(),
        first_error: found.first_error,
    })
}

/// A number from the server's `stats`, where it has them.
fn stat(target: &Target, name: &str) -> Option<u64> {
    let mut peer = target.connect().ok()?;
    peer.write_all(b"stats\r\n").ok()?;
    let prefix = format!("STAT {name} ");
    BufReader::new(peer)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| line.starts_with("STAT "))
        .find_map(|line| line.strip_prefix(&prefix)?.parse().ok())
}

impl Residents {
    /// Bytes of the limit for one resident item.
    pub fn limit_bytes_an_item(&self) -> Option<f64> {
        self.limit_bytes
            .filter(|_| self.resident > 0)
            .map(|b| b as f64 / self.resident as f64)
    }

    /// Growth of the process for one resident item.
    pub fn rss_bytes_an_item(&self) -> Option<f64> {
        let (before, after) = self.rss_bytes.filter(|_| self.resident > 0)?;
        Some(after.saturating_sub(before) as f64 / self.resident as f64)
    }

    /// In lines.
    pub fn human(&self) -> String {
        let payload = self.payload_bytes as f64 / self.resident.max(1) as f64;
        let mut text = format!(
            "stored {}, refused {}, resident {} ({:.2} %), key and value {payload:.1} bytes an item\n",
            self.stored,
            self.refused,
            self.resident,
            self.resident as f64 * 100.0 / self.stored.max(1) as f64
        );
        if let (Some(limit), true) = (self.limit_bytes_an_item(), self.resident < self.stored) {
            text += &format!("the limit allows {limit:.1} bytes an item\n");
        }
        if let (Some((_, after)), Some(each)) = (self.rss_bytes, self.rss_bytes_an_item()) {
            text += &format!(
                "server memory {:.1} MB resident, {each:.1} bytes an item\n",
                after as f64 / 1e6
            );
        }
        text += &format!("errors {}\n", self.errors);
        if let Some(first) = &self.first_error {
            text += &format!("first error: {first}\n");
        }
        text
    }

    /// As JSON.
    pub fn json(&self, options: &Options) -> String {
        Object::default()
            .text("command", &options.command)
            .count("stored", self.stored)
            .count("refused", self.refused)
            .count("resident", self.resident)
            .count("payload_bytes", self.payload_bytes)
            .number("limit_bytes", self.limit_bytes.map(|b| b as f64), 0)
            .number("limit_bytes_an_item", self.limit_bytes_an_item(), 2)
            .number(
                "server_resident_bytes",
                self.rss_bytes.map(|(_, b)| b as f64),
                0,
            )
            .number("rss_bytes_an_item", self.rss_bytes_an_item(), 2)
            .count("errors", self.errors)
            .finish()
    }
}
