//! `ketchctl stats`: the statistics of all nodes beside each other.

use getopts::Options;
use ketch_client::PerNode;

use crate::failure::{self, Failure};
use crate::figures::{Figures, percent};
use crate::table::Table;
use crate::{access, cluster, json, units, words};

const USAGE: &str = "usage: ketchctl stats --servers LIST [options] [GROUP]\n\n\
    A column for each node, and one for all of them. With GROUP (items, slabs, settings, sizes, conns, ..) the nodes' own\n\
    keys and values. Exit status 1 if a node did not answer; the others are shown.";

/// A row: its name, how it is read, and whether it means something for all nodes together.
type Row = (&'static str, fn(&Figures) -> String, bool);

const ROWS: &[Row] = &[
    ("version", Figures::version, false),
    (
        "uptime",
        |node| units::seconds(node.number("uptime") as u64),
        false,
    ),
    ("curr_items", |node| whole(node, "curr_items"), true),
    ("bytes", |node| units::bytes(node.number("bytes")), true),
    (
        "limit_maxbytes",
        |node| units::bytes(node.number("limit_maxbytes")),
        true,
    ),
    (
        "used",
        |node| percent(node.number("bytes"), node.number("limit_maxbytes")),
        true,
    ),
    (
        "hit ratio",
        |node| {
            let hits = node.number("get_hits");
            percent(hits, hits + node.number("get_misses"))
        },
        true,
    ),
    ("evictions", |node| whole(node, "evictions"), true),
    ("ops", |node| units::grouped(node.ops() as u64), true),
    ("cmd_get", |node| whole(node, "cmd_get"), true),
    ("cmd_set", |node| whole(node, "cmd_set"), true),
    (
        "ops/s since the start",
        |node| units::count(node.ops() / node.number("uptime").max(1.0)),
        false,
    ),
    (
        "curr_connections",
        |node| whole(node, "curr_connections"),
        true,
    ),
    (
        "bytes_read",
        |node| units::bytes(node.number("bytes_read")),
        true,
    ),
    (
        "bytes_written",
        |node| units::bytes(node.number("bytes_written")),
        true,
    ),
    ("threads", |node| whole(node, "threads"), true),
];

fn whole(node: &Figures, key: &str) -> String {
    units::grouped(node.number(key) as u64)
}

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options
        .optflag("a", "all", "every key, as the nodes write it")
        .optflag(
            "j",
            "json",
            "an object: node to {\"stats\": {..}} or {\"error\": \"..\"}",
        );
    cluster::nodes_option(&mut options, "s", "servers", "the nodes");
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    let group = matches.free.join(" ");
    let nodes = cluster::nodes(&matches, "servers")?;
    let client = access::from(&matches)?.client(&cluster::Cluster::of(nodes));
    let answers = client.stats(&group);
    let told = answers.iter().any(|(_, answer)| answer.is_ok());
    words::print(if matches.opt_present("json") {
        format!("{}\n", as_json(&answers))
    } else if !told {
        String::new()
    } else if group.is_empty() && !matches.opt_present("all") {
        overview(&answers).to_string()
    } else {
        side_by_side(&answers).to_string()
    })?;
    let mut failed = false;
    for (node, answer) in &answers {
        if let Err(error) = answer {
            failure::tell(node, error);
            failed = true;
        }
    }
    if failed {
        return Err(Failure::Told);
    }
    Ok(())
}

type Answers = PerNode<Vec<(String, String)>>;

fn as_json(answers: &Answers) -> String {
    json::object(answers.iter().map(|(node, answer)| {
        let member = match answer {
            Ok(stats) => {
                let stats = stats.iter();
                let stats = stats.map(|(key, text)| (key.clone(), json::value(text)));
                ("stats".to_owned(), json::object(stats))
            }
            Err(error) => ("error".to_owned(), json::string(&error.to_string())),
        };
        (node.to_string(), json::object([member]))
    }))
}

fn heading(answers: &Answers) -> Vec<String> {
    let mut heading = vec![String::new()];
    heading.extend(answers.iter().map(|(node, _)| node.to_string()));
    heading
}

/// What one wants to know first.
fn overview(answers: &Answers) -> Table {
    let nodes: Vec<Option<Figures>> = answers
        .iter()
        .map(|(_, answer)| answer.clone().ok().map(Figures::new))
        .collect();
    let mut heading = heading(answers);
    let total = (nodes.len() > 1).then(|| {
        heading.push("all".to_owned());
        let mut total = Figures::default();
        nodes.iter().flatten().for_each(|node| total.add(node));
        total
    });
    let mut table = Table::new(heading);
    for (name, read, of_all) in ROWS {
        let cell = |node: &Option<Figures>| node.as_ref().map_or_else(|| "-".to_owned(), read);
        let mut cells: Vec<String> = nodes.iter().map(cell).collect();
        if let Some(total) = &total {
            cells.push(if *of_all { read(total) } else { String::new() });
        }
        table.row(*name, cells);
    }
    table
}

/// Keys and values as they came, in the order of the first node that has them.
fn side_by_side(answers: &Answers) -> Table {
    let mut keys: Vec<&str> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (_, answer) in answers {
        for (key, _) in answer.iter().flatten() {
            if seen.insert(key.as_str()) {
                keys.push(key);
            }
        }
    }
    let nodes: Vec<Figures> = answers
        .iter()
        .map(|(_, answer)| Figures::new(answer.clone().unwrap_or_default()))
        .collect();
    let mut table = Table::new(heading(answers));
    for key in keys {
        let cells = nodes
            .iter()
            .map(|node| node.text(key).unwrap_or("-").to_owned());
        table.row(key, cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_client::Error;

    fn answers() -> Answers {
        let stats = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            Ok(pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect())
        };
        vec![
            (
                "a:1".into(),
                stats(&[("get_hits", "9"), ("get_misses", "1")]),
            ),
            ("b:2".into(), Err(Error::Timeout)),
            (
                "c:3".into(),
                stats(&[("get_misses", "5"), ("bytes", "2048")]),
            ),
        ]
    }

    #[test]
    fn a_column_for_each_node_and_one_for_all() {
        let text = overview(&answers()).to_string();
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let cells = line.expect("a row")[name.len()..].split_whitespace();
            cells.map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text.lines().next().unwrap().split_whitespace().count(), 4);
        assert_eq!(row("hit ratio"), "90.0 % - 0.0 % 60.0 %");
        assert_eq!(row("bytes "), "0 B - 2.0 KB 2.0 KB");
    }

    #[test]
    fn keys_side_by_side_and_in_json() {
        let table = side_by_side(&answers());
        let lines: Vec<Vec<String>> = table
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        assert_eq!(lines[2], ["get_misses", "1", "-", "5"]);
        assert_eq!(lines[3], ["bytes", "-", "-", "2048"]);
        assert_eq!(
            as_json(&answers()[1..].to_vec()),
            r#"{"b:2":{"error":"the deadline passed"},"c:3":{"stats":{"get_misses":5,"bytes":2048}}}"#
        );
    }
}
