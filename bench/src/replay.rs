//! Replays a trace as cache-aside: each object is read, and stored on a miss.
//!
//! A trace is a text of object ids, whole numbers, one a line; what follows the id on its line is
//! ignored, and so are empty lines and lines that start with `#`. One connection, in the trace's
//! order. With `depth` above 1 that many reads are sent together and their misses stored after
//! them, which is faster and, for objects that come twice in a batch, less exact.

use std::io::{self, BufRead, Read, Write};
use std::time::{Duration, Instant};

use crate::check::{Checker, Tally};
use crate::conn::Blocking;
use crate::dataset::Dataset;
use crate::dialect::{Dialect, retrieve, store};
use crate::json::Object;
use crate::options::Options;
use crate::run::Plan;
use crate::workload::Workload;

/// What came out of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Reads, hits, misses, errors.
    pub tally: Tally,
    /// Stores.
    pub stored: u64,
    /// Bytes of all values that were asked for.
    pub asked_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// The ids of a trace, in order.
pub fn ids(trace: impl BufRead) -> impl Iterator<Item = Result<u64, String>> {
    trace.lines().enumerate().filter_map(|(at, line)| {
        let line = match line {
            Ok(line) => line,
            Err(error) => return Some(Err(format!("line {}: {error}", at + 1))),
        };
        let word = line
            .split([' ', '\t', ','])
            .next()
            .unwrap_or_default()
            .trim();
        if word.is_empty() || word.starts_with('#') {
            return None;
        }
        Some(
            word.parse()
                .map_err(|_| format!("line {}: {word} is no object id", at + 1)),
        )
    })
}

/// Replays `trace` on the first server of `plan`.
pub fn replay(
    plan: &Plan,
    trace: impl Iterator<Item = Result<u64, String>>,
) -> Result<Replayed, String> {
    let target = &plan.targets[0];
    let workload = Workload {
        multi: 1,
        ..plan.workload
    };
    let mut peer = Peer {
        stream: target
            .connect()
            .map_err(|error| format!("{target}: {error}"))?,
        checker: Checker::new(workload.dialect, plan.strict).with_missed(),
        buffer: vec![0; 64 * 1024],
        out: Vec::new(),
        tally: Tally::default(),
    };
    let (started, mut asked_bytes) = (Instant::now(), 0);
    let mut trace = trace.peekable();
    while trace.peek().is_some() {
        for id in trace.by_ref().take(plan.depth) {
            let id = id?;
            if id >= plan.keys {
                return Err(format!(
                    "object {id} does not fit -k {}: ids start at 0",
                    plan.keys
                ));
            }
            asked_bytes += plan.data.value_len(id) as u64;
            peer.checker.expect_key(id);
            peer.checker.expect_end(workload.dialect == Dialect::Binary);
            retrieve(workload.dialect, &plan.data, &[id], &mut peer.out);
        }
        peer.exchange(&plan.data)
            .map_err(|error| format!("{target}: {error}"))?;
        let mut missed = peer.checker.take_missed();
        missed.sort_unstable();
        missed.dedup();
        for id in missed {
            peer.checker.expect_store(id);
            store(workload.dialect, &plan.data, id, &mut peer.out);
        }
        peer.exchange(&plan.data)
            .map_err(|error| format!("{target}: {error}"))?;
    }
    let stored = peer.tally.stored;
    Ok(Replayed {
        tally: peer.tally,
        stored,
        asked_bytes,
        took: started.elapsed(),
    })
}

struct Peer {
    stream: Blocking,
    checker: Checker,
    buffer: Vec<u8>,
    out: Vec<u8>,
    tally: Tally,
}

impl Peer {
    /// Sends what was written and waits for all replies.
    fn exchange(&mut self, data: &Dataset) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        while self.checker.outstanding() > 0 {
            let n = self.stream.read(&mut self.buffer)?;
            if n == 0 {
                return Err(io::Error::other("the server hung up"));
            }
            let fed = self.checker.feed(&self.buffer[..n], data, &mut self.tally);
            fed.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Replayed {
    /// Hits by requests.
    pub fn hit_ratio(&self) -> f64 {
        self.tally.hits as f64 / (self.tally.hits + self.tally.misses).max(1) as f64
    }

    /// Hits by bytes of values.
    pub fn byte_hit_ratio(&self) -> f64 {
        self.tally.hit_bytes as f64 / self.asked_bytes.max(1) as f64
    }

    /// In lines.
    pub fn human(&self) -> String {
        let mut text = format!(
            "{} requests in {:.2} s: hits {}, misses {}, stored {}\nhit ratio {:.3} % of requests, {:.3} % of bytes\nerrors {}\n",
            self.tally.hits + self.tally.misses,
            self.took.as_secs_f64(),
            self.tally.hits,
            self.tally.misses,
            self.stored,
            self.hit_ratio() * 100.0,
            self.byte_hit_ratio() * 100.0,
            self.tally.errors()
        );
        if let Some(first) = &self.tally.first_error {
            text += &format!("first error: {first}\n");
        }
        text
    }

    /// As JSON.
    pub fn json(&self, options: &Options) -> String {
        Object::default()
            .text("command", &options.command)
            .number("seconds", self.took.as_secs_f64(), 3)
            .count("requests", self.tally.hits + self.tally.misses)
            .count("hits", self.tally.hits)
            .count("misses", self.tally.misses)
            .number("hit_ratio", self.hit_ratio(), 6)
            .number("byte_hit_ratio", self.byte_hit_ratio(), 6)
            .count("errors", self.tally.errors())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_line_by_line() {
        let read = |text: &str| ids(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        assert_eq!(
            read("0\n17 100\n\n# note\n3,4\r\n5\r\n"),
            Ok(vec![0, 17, 3, 5])
        );
        assert_eq!(read("1\nx\n"), Err("line 2: x is no object id".to_owned()));
    }
}
