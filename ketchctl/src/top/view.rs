//! Two samples to a table.

use super::Sample;
use crate::figures::{Figures, percent};
use crate::table::Table;
use crate::units;

const HEADING: [&str; 13] = [
    "node", "up", "ops/s", "get/s", "set/s", "hits", "evict/s", "items", "memory", "used", "conns",
    "in/s", "out/s",
];

/// What happened on a node between two samples.
struct Span<'a> {
    before: Option<&'a Figures>,
    now: &'a Figures,
    seconds: f64,
}

/// A row for each node, and one for all that answered if there are several.
pub fn table(before: &Sample, now: &Sample) -> Table {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    let mut table = Table::new(HEADING);
    let (mut sum_before, mut sum_now) = (Figures::default(), Figures::default());
    for (at, (node, answer)) in now.nodes.iter().enumerate() {
        let figures = match answer {
            Ok(figures) => figures,
            Err(error) => {
                let told = error.to_string();
                let told = told.strip_prefix(&format!("{node}: ")).unwrap_or(&told);
                table.row(format!("{node}  {told}"), []);
                continue;
            }
        };
        let earlier = before
            .nodes
            .get(at)
            .and_then(|(_, answer)| answer.as_ref().ok());
        // Counters that begin anew have no rate yet.
        let earlier = earlier.filter(|b| b.number("uptime") <= figures.number("uptime"));
        let span = Span {
            before: earlier,
            now: figures,
            seconds,
        };
        let up = units::seconds(figures.number("uptime") as u64);
        table.row(node.clone(), span.cells(up));
        if let Some(earlier) = earlier {
            sum_before.add(earlier);
        } else {
            // Counted as if nothing had happened on it.
            sum_before.add(figures);
        }
        sum_now.add(figures);
    }
    if now.nodes.len() > 1 {
        let span = Span {
            before: Some(&sum_before),
            now: &sum_now,
            seconds,
        };
        table.row("all", span.cells(String::new()));
    }
    table
}

impl Span<'_> {
    fn cells(&self, up: String) -> Vec<String> {
        let now = |key: &str| self.now.number(key);
        let count = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), units::count);
        let bytes = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), units::bytes);
        let ops = self.rate(Figures::ops);
        let hits = self.grown(|f| f.number("get_hits")).unwrap_or(0.0);
        let misses = self.grown(|f| f.number("get_misses")).unwrap_or(0.0);
        vec![
            up,
            count(ops),
            count(self.rate_of("cmd_get")),
            count(self.rate_of("cmd_set")),
            percent(hits, hits + misses),
            count(self.rate_of("evictions")),
            units::count(now("curr_items")),
            units::bytes(now("bytes")),
            percent(now("bytes"), now("limit_maxbytes")),
            units::count(now("curr_connections")),
            bytes(self.rate_of("bytes_read")),
            bytes(self.rate_of("bytes_written")),
        ]
    }

    fn grown(&self, read: impl Fn(&Figures) -> f64) -> Option<f64> {
        // `stats reset` makes counters smaller.
        Some((read(self.now) - read(self.before?)).max(0.0))
    }

    fn rate(&self, read: impl Fn(&Figures) -> f64) -> Option<f64> {
        Some(self.grown(read)? / self.seconds.max(1e-3))
    }

    fn rate_of(&self, key: &str) -> Option<f64> {
        self.rate(|figures| figures.number(key))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ketch_client::Error;

    use super::*;

    fn node(uptime: u32, gets: u32, hits: u32) -> Figures {
        let stats = [
            ("uptime", uptime),
            ("cmd_get", gets),
            ("get_hits", hits),
            ("get_misses", gets - hits),
            ("bytes", 512),
            ("limit_maxbytes", 1024),
        ];
        Figures::new(stats.map(|(k, v)| (k.into(), v.to_string())).into())
    }

    #[test]
    fn rates_of_each_node_and_all() {
        let at = Instant::now();
        let name = |index: usize| format!("n{index}:1");
        let sample = |at, nodes: Vec<Result<Figures, Error>>| Sample {
            at,
            nodes: nodes
                .into_iter()
                .enumerate()
                .map(|(i, n)| (name(i), n))
                .collect(),
        };
        let before = sample(
            at,
            vec![
                Ok(node(10, 100, 100)),
                Ok(node(99, 1000, 0)),
                Ok(node(5, 7, 7)),
            ],
        );
        let now = sample(
            at + Duration::from_secs(2),
            vec![
                Ok(node(12, 300, 250)),
                // It was started anew.
                Ok(node(1, 50, 0)),
                Err(Error::Timeout),
            ],
        );
        let table = table(&before, &now).to_string();
        let cells: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(cells[1][..5], ["n0:1", "12s", "100", "100", "0"]);
        assert_eq!(cells[1][5..7], ["75.0", "%"]);
        assert_eq!(cells[2][..6], ["n1:1", "1s", "-", "-", "-", "-"]);
        assert_eq!(cells[3].join(" "), "n2:1 the deadline passed");
        assert_eq!(cells[4][..3], ["all", "100", "100"]);
    }
}
