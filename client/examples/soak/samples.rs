//! What the servers take over time, and whether it stays within bounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use crate::wire::Wire;

/// What one server held in one second.
pub struct Sample {
    pub at_s: f64,
    pub node: usize,
    pub resident_mb: f64,
    /// Of it, the pages that items lie in.
    pub pages_mb: f64,
    pub files: usize,
    pub connections: u64,
    pub items: u64,
    /// Operations of all workers in the second before.
    pub rate: f64,
}

pub fn stats(port: u16, group: &str) -> io::Result<BTreeMap<String, String>> {
    let mut wire = Wire::connect(port)?;
    wire.send(format!("stats {group}").trim_end().as_bytes())?;
    wire.send(b"\r\n")?;
    let mut stats = BTreeMap::new();
    loop {
        let line = wire.line()?;
        let Some(rest) = line.strip_prefix("STAT ") else {
            return Ok(stats);
        };
        let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
        stats.insert(name.to_owned(), value.to_owned());
    }
}

pub fn number(stats: &BTreeMap<String, String>, name: &str) -> u64 {
    stats
        .get(name)
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

/// Counters of a server that nobody asks anything any more; what does not add up.
pub fn adds_up(port: u16) -> io::Result<Vec<String>> {
    let general = stats(port, "")?;
    let of = |name: &str| number(&general, name);
    let mut wrong = Vec::new();
    let mut same = |what: &str, one: u64, other: u64| {
        if one != other {
            wrong.push(format!("port {port}: {what}: {one} and {other}"));
        }
    };
    same(
        "cmd_get, and hits and misses",
        of("cmd_get"),
        of("get_hits") + of("get_misses"),
    );
    same(
        "cmd_touch, and hits and misses",
        of("cmd_touch"),
        of("touch_hits") + of("touch_misses"),
    );
    let classes = stats(port, "items")?;
    let items: u64 = classes
        .iter()
        .filter(|(name, _)| name.ends_with(":number"))
        .map(|(_, value)| value.parse().unwrap_or(0))
        .sum();
    same(
        "curr_items, and items of all classes",
        of("curr_items"),
        items,
    );
    let mut wire = Wire::connect(port)?;
    wire.send(b"lru_crawler metadump all\r\n")?;
    let mut dumped = 0;
    loop {
        match wire.line()?.as_str() {
            "END" => break,
            line => dumped += u64::from(line.starts_with("key=")),
        }
    }
    // Nothing is stored meanwhile, but time goes on.
    let left = number(&stats(port, "")?, "curr_items");
    if !(left..=of("curr_items")).contains(&dumped) {
        wrong.push(format!(
            "port {port}: {dumped} items in a dump of {} to {left}",
            of("curr_items")
        ));
    }
    Ok(wrong)
}

pub fn table(samples: &[Sample]) -> String {
    let mut text = "seconds,node,resident_mb,files,connections,items,operations_s\n".to_owned();
    for s in samples {
        let _ = writeln!(
            text,
            "{:.1},{},{:.1},{},{},{},{:.0}",
            s.at_s, s.node, s.resident_mb, s.files, s.connections, s.items, s.rate
        );
    }
    text
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 150.0;
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];

/// What a panel shows of a sample.
type Shown = fn(&Sample) -> f64;

/// A panel a figure, a line a node; `marks` are the times of what befell them.
pub fn plot(samples: &[Sample], nodes: &[&str], marks: &[(f64, String)]) -> String {
    let panels: [(&str, Shown); 4] = [
        ("resident memory, MB", |s| s.resident_mb),
        ("open files and sockets", |s| s.files as f64),
        ("items", |s| s.items as f64),
        ("operations a second, all workers", |s| s.rate),
    ];
    let end = samples.last().map_or(1.0, |s| s.at_s);
    let x = |at: f64| 60.0 + at / end * (WIDTH - 70.0);
    let height = panels.len() as f64 * (HEIGHT + 40.0) + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (at, (title, shown)) in panels.iter().enumerate() {
        let top = 30.0 + at as f64 * (HEIGHT + 40.0);
        let most = samples.iter().map(shown).fold(1.0, f64::max);
        let y = |value: f64| top + HEIGHT * (1.0 - value / most);
        let _ = writeln!(
            svg,
            "<text x=\"60\" y=\"{}\" font-weight=\"bold\">{title}</text>",
            top - 8.0
        );
        for part in [0.0, 0.5, 1.0] {
            let _ = writeln!(
                svg,
                "<path d=\"M60 {0:.1}H{1}\" stroke=\"#ddd\"/><text x=\"54\" y=\"{2:.1}\" text-anchor=\"end\">{3:.0}</text>",
                y(most * part),
                WIDTH - 10.0,
                y(most * part) + 4.0,
                most * part
            );
        }
        for (when, what) in marks {
            let _ = writeln!(
                svg,
                "<path d=\"M{0:.1} {top:.1}v{HEIGHT}\" stroke=\"#999\" stroke-dasharray=\"2 3\"><title>{what}</title></path>",
                x(*when)
            );
        }
        for (node, name) in nodes.iter().enumerate() {
            let points: Vec<String> = samples
                .iter()
                .filter(|s| s.node == node)
                .map(|s| format!("{:.1},{:.1}", x(s.at_s), y(shown(s))))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{1}\" stroke-width=\"1.5\"/>",
                points.join(" "),
                COLOURS[node % COLOURS.len()]
            );
            if at == 0 {
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{}\" fill=\"{}\">{name}</text>",
                    300 + node * 110,
                    top - 8.0,
                    COLOURS[node % COLOURS.len()]
                );
            }
        }
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{end:.0} seconds</text>",
        WIDTH - 10.0,
        height - 12.0
    );
    svg + "</svg>\n"
}
