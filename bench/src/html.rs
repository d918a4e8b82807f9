//! A run's outcome as one page that needs nothing else: numbers, and plots as inline SVG.
//!
//! The latencies are drawn over the share of commands that were slower, so that each step to the
//! right, to 1 in 10, in 100, in 1000, has the same width; time is logarithmic too.

use crate::latency::Latency;
use crate::options::Options;
use crate::report;
use crate::run::{Outcome, Sample};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 10.0;

/// The page.
pub fn page(options: &Options, outcome: &Outcome) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ketch-bench</title><style>\n\
         body {{ font: 15px sans-serif; max-width: 800px; margin: 2em auto; }}\n\
         pre {{ background: #f3f3f3; padding: 1em; white-space: pre-wrap; }}\n\
         svg text {{ font: 12px sans-serif; fill: #444; }} .grid {{ stroke: #ddd; }}\n\
         .line {{ fill: none; stroke: #06c; stroke-width: 2; }}\n\
         </style></head><body>\n<h1>ketch-bench</h1>\n<pre>{}\n\n{}</pre>\n\
         <h2>Operations per second</h2>\n{}\
         <h2>Slowest command of each second</h2>\n{}\
         <h2>Latency, by the share of commands that were not slower</h2>\n{}</body></html>\n",
        escaped(&options.command),
        escaped(&report::human(options, outcome)),
        over_time(&outcome.samples, |sample| sample.keys_per_s, thousands),
        over_time(&outcome.samples, |sample| sample.max_us, report::time),
        by_share(&outcome.latency),
    )
}

/// A number of each second, from 0 up.
fn over_time(
    samples: &[Sample],
    number: impl Fn(&Sample) -> f64,
    label: impl Fn(f64) -> String,
) -> String {
    let last_s = samples.last().map_or(1.0, |sample| sample.at_s);
    let top = samples.iter().map(&number).fold(1.0, f64::max) * 1.1;
    let axes = Axes {
        x: ticks(last_s)
            .into_iter()
            .map(|s| (s / last_s, format!("{s} s")))
            .collect(),
        y: ticks(top)
            .into_iter()
            .map(|n| (n / top, label(n)))
            .collect(),
    };
    // A sample is of the second before it, so the first one also stands at the start.
    let start = samples.first().map(|first| (0.0, number(first) / top));
    let points = samples
        .iter()
        .map(|sample| (sample.at_s / last_s, number(sample) / top));
    plot(&axes, &start.into_iter().chain(points).collect::<Vec<_>>())
}

/// Quantiles, both axes logarithmic.
fn by_share(latency: &Latency) -> String {
    let nines = (latency.count().max(10) as f64).log10().min(6.0);
    let quantiles: Vec<(f64, f64)> = (0..=200)
        .map(|step| f64::from(step) / 200.0)
        .map(|x| {
            (
                x,
                latency.quantile_us(1.0 - 10f64.powf(-x * nines)).max(1.0),
            )
        })
        .collect();
    let low = quantiles[0].1.log10().floor();
    let high = latency.max_us().max(10.0).log10().ceil().max(low + 1.0);
    let y = |log: f64| (log - low) / (high - low);
    let axes = Axes {
        x: (0..=nines as i32)
            .map(|n| (f64::from(n) / nines, share(n)))
            .collect(),
        y: (low as i32..=high as i32)
            .map(|log| (y(f64::from(log)), report::time(10f64.powi(log))))
            .collect(),
    };
    let points: Vec<_> = quantiles
        .iter()
        .map(|&(x, us)| (x, y(us.log10())))
        .collect();
    plot(&axes, &points)
}

/// Places of grid lines, 0 to 1, with their labels.
struct Axes {
    x: Vec<(f64, String)>,
    y: Vec<(f64, String)>,
}

fn plot(axes: &Axes, points: &[(f64, f64)]) -> String {
    let x = |at: f64| LEFT + at * (WIDTH - LEFT - 20.0);
    let y = |at: f64| HEIGHT - BOTTOM - at * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
    let line = |x1: f64, y1: f64, x2: f64, y2: f64| {
        format!(
            "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        )
    };
    let text = |x: f64, y: f64, anchor: &str, label: &str| {
        format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
            escaped(label)
        )
    };
    for (at, label) in &axes.x {
        svg += &line(x(*at), y(0.0), x(*at), y(1.0));
        svg += &text(x(*at), HEIGHT - BOTTOM + 20.0, "middle", label);
    }
    for (at, label) in &axes.y {
        svg += &line(x(0.0), y(*at), x(1.0), y(*at));
        svg += &text(LEFT - 8.0, y(*at) + 4.0, "end", label);
    }
    svg += "<polyline class=\"line\" points=\"";
    for &(px, py) in points {
        svg += &format!("{:.1},{:.1} ", x(px), y(py));
    }
    svg + "\"/>\n</svg>\n"
}

/// Round numbers from 0 to at most `top`, four to ten of them.
fn ticks(top: f64) -> Vec<f64> {
    let decade = 10f64.powf(top.log10().floor());
    let step = [0.1, 0.2, 0.25, 0.5].map(|part| part * decade).into_iter();
    let step = step
        .chain([decade])
        .find(|step| top / step <= 10.0)
        .unwrap_or(decade);
    (0..=(top / step) as u32)
        .map(|i| f64::from(i) * step)
        .collect()
}

fn thousands(n: f64) -> String {
    if n >= 1000.0 {
        format!("{} k", n / 1000.0)
    } else {
        format!("{n}")
    }
}

/// The share of commands that are not slower than all but 1 in 10^n.
fn share(n: i32) -> String {
    match n {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        n => format!("99.{} %", "9".repeat(n as usize - 2)),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_and_reach_the_top() {
        for top in [0.3, 1.0, 7.0, 10.0, 12.0, 99.0, 123_456.0, 3_000_000.0] {
            let ticks = ticks(top);
            assert!((4..=11).contains(&ticks.len()), "{top}: {ticks:?}");
            assert!(ticks.iter().all(|&tick| tick <= top));
        }
    }
}
