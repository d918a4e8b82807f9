//! A run's outcome as text and as JSON. The page with plots is in `html`.

use crate::json::Object;
use crate::options::Options;
use crate::run::{Outcome, Sample};

/// The quantiles that are shown, with their names.
pub const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
];

impl Outcome {
    /// Keys per second.
    pub fn keys_per_s(&self) -> f64 {
        self.tally.keys as f64 / self.seconds
    }

    /// Hits among the keys that were read.
    pub fn hit_ratio(&self) -> Option<f64> {
        let read = self.tally.hits + self.tally.misses;
        (read > 0).then(|| self.tally.hits as f64 / read as f64)
    }

    /// CPU time of the server for one key, in microseconds.
    pub fn server_cpu_us(&self) -> Option<f64> {
        let ns = self.server_cpu_ns.filter(|_| self.tally.keys > 0)?;
        Some(ns as f64 / 1000.0 / self.tally.keys as f64)
    }
}

/// The line of one second.
pub fn progress(sample: &Sample) -> String {
    let hits = sample.hit_ratio.map_or(String::new(), |ratio| {
        format!(" hits {:6.2} %", ratio * 100.0)
    });
    format!(
        "{:6.1} s {:>11.0} ops/s{hits}  slowest {}  errors {}",
        sample.at_s,
        sample.keys_per_s,
        time(sample.max_us),
        sample.errors
    )
}

/// A time with its unit.
pub fn time(us: f64) -> String {
    if us < 1000.0 {
        format!("{us:.0} us")
    } else if us < 1_000_000.0 {
        format!("{:.2} ms", us / 1000.0)
    } else {
        format!("{:.2} s", us / 1_000_000.0)
    }
}

/// The workload in words.
pub fn load(options: &Options) -> String {
    let plan = &options.plan;
    let mut text = options.workload_name.clone();
    if plan.workload.multi > 1 {
        text += &format!(" of {}", plan.workload.multi);
    }
    if plan.workload.writes > 0.0 && plan.workload.writes < 1.0 {
        text += &format!(", {} % writes", plan.workload.writes * 100.0);
    }
    text += &format!(
        "; {} keys of {} bytes, values {:?}, {:?}; {} connections, depth {}, {} threads",
        plan.keys,
        plan.data.key_len(),
        plan.data.sizes(),
        plan.popularity,
        plan.connections,
        plan.depth,
        plan.threads
    );
    match plan.rate {
        Some(rate) => text + &format!(", open loop at {rate} ops/s"),
        None => text + ", closed loop",
    }
}

/// The result in lines.
pub fn human(options: &Options, outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    let mut lines = vec![load(options)];
    lines.push(format!(
        "{:.0} ops/s: {} keys, {} commands in {:.3} s",
        outcome.keys_per_s(),
        tally.keys,
        tally.commands,
        outcome.seconds
    ));
    if let Some(ratio) = outcome.hit_ratio() {
        lines.push(format!(
            "hits {} misses {} ({:.3} % hits)",
            tally.hits,
            tally.misses,
            ratio * 100.0
        ));
    }
    if tally.stored > 0 {
        lines.push(format!("stored {}", tally.stored));
    }
    let latency = &outcome.latency;
    let mut line = "latency of a command:".to_owned();
    for (name, quantile) in QUANTILES {
        line += &format!(" {name} {},", time(latency.quantile_us(quantile)));
    }
    lines.push(format!("{line} max {}", time(latency.max_us())));
    if let Some(us) = outcome.server_cpu_us() {
        let share = outcome.server_cpu_ns.unwrap_or_default() as f64 / 1e9 / outcome.seconds;
        lines.push(format!(
            "server CPU {us:.3} us/op, {:.0} % of a core",
            share * 100.0
        ));
    }
    if let Some(bytes) = outcome.server_resident_bytes {
        lines.push(format!(
            "server memory {:.1} MB resident",
            bytes as f64 / 1e6
        ));
    }
    lines.push(errors(outcome));
    lines.join("\n") + "\n"
}

fn errors(outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    let mut line = format!("errors {}", tally.errors());
    if tally.errors() > 0 {
        line += &format!(
            ": wrong key {}, length {}, content {}, refused {}, connections {}",
            tally.wrong_key, tally.wrong_length, tally.wrong_content, tally.refused, tally.broken
        );
    }
    if let Some(first) = &tally.first_error {
        line += &format!("\nfirst error: {first}");
    }
    line
}

/// The result as JSON.
pub fn json(options: &Options, outcome: &Outcome) -> String {
    let (tally, latency) = (&outcome.tally, &outcome.latency);
    let mut object = Object::default()
        .text("command", &options.command)
        .text("load", &load(options))
        .number("seconds", outcome.seconds, 6)
        .count("operations", tally.keys)
        .count("commands", tally.commands)
        .number("ops_per_s", outcome.keys_per_s(), 1)
        .count("hits", tally.hits)
        .count("misses", tally.misses)
        .number("hit_ratio", outcome.hit_ratio(), 6)
        .count("hit_bytes", tally.hit_bytes)
        .count("stored", tally.stored)
        .count("errors", tally.errors())
        .count("wrong_key", tally.wrong_key)
        .count("wrong_length", tally.wrong_length)
        .count("wrong_content", tally.wrong_content)
        .count("refused", tally.refused)
        .count("broken_connections", tally.broken);
    object = match &tally.first_error {
        Some(first) => object.text("first_error", first),
        None => object.raw("first_error", "null"),
    };
    object = object.number("mean_us", latency.mean_us(), 3);
    for (name, quantile) in QUANTILES {
        object = object.number(&format!("{name}_us"), latency.quantile_us(quantile), 3);
    }
    let samples: Vec<String> = outcome
        .samples
        .iter()
        .map(|s| {
            format!(
                "[{:.3}, {:.0}, {:.1}, {}]",
                s.at_s, s.keys_per_s, s.max_us, s.errors
            )
        })
        .collect();
    object
        .number("max_us", latency.max_us(), 3)
        .number(
            "server_cpu_ns",
            outcome.server_cpu_ns.map(|ns| ns as f64),
            0,
        )
        .number("server_cpu_us_per_op", outcome.server_cpu_us(), 4)
        .number(
            "server_resident_bytes",
            outcome.server_resident_bytes.map(|b| b as f64),
            0,
        )
        .raw(
            "sample_columns",
            "[\"at_s\", \"ops_per_s\", \"max_us\", \"errors\"]",
        )
        .raw("samples", &format!("[{}]", samples.join(", ")))
        .finish()
}
