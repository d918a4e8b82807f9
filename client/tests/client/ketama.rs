//! Placement held against what libmemcached itself chose: see data/ketama/README.md and data/ketama-more. `KETAMA_VECTORS` names a directory
//! of further lists, if there are any.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ketch_client::Node;
use ketch_client::continuum::{Continuum, Distribution};

/// The columns of the lists and the distributions they show.
const MODES: [(&str, Distribution); 5] = [
    ("weighted", Distribution::KetamaWeighted),
    ("weighted_default", Distribution::KetamaWeightedDefault),
    ("ketama", Distribution::Ketama),
    ("ketama_md5", Distribution::KetamaMd5),
    ("modula", Distribution::Modula),
];

/// Keys behind each share of the tables.
const SAMPLE: f64 = 20_000.0;

struct List {
    /// The file's name without its number and ending, as the tables call it.
    name: String,
    nodes: Vec<Node>,
    columns: Vec<String>,
    /// A key and the nodes of its columns.
    rows: Vec<(String, Vec<usize>)>,
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/ketama")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(directory().join(name)).expect("the vectors are part of the crate")
}

fn list(file: &Path) -> List {
    let text = std::fs::read_to_string(file).expect("a list");
    let file = file
        .file_stem()
        .and_then(|name| name.to_str())
        .expect("a name");
    let mut nodes = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields[0] == "#server" {
            assert_eq!(
                fields[1].parse(),
                Ok(nodes.len()),
                "{file}: nodes are in order"
            );
            let weight = fields[4].parse().expect("a weight");
            let node = Node::new(fields[2], fields[3].parse().expect("a port"));
            let node = match fields.get(5) {
                Some(ip) => node.with_java_name(ip.parse().expect("an address")),
                None => node,
            };
            nodes.push(node.with_weight(weight));
        } else if !line.starts_with('#') {
            lines.push(fields);
        }
    }
    let columns = lines.remove(0)[1..]
        .iter()
        .map(|s| (*s).to_owned())
        .collect();
    let rows = lines.into_iter().map(|fields| {
        let cells = fields[1..]
            .iter()
            .map(|cell| cell.parse().expect("an index"));
        (fields[0].to_owned(), cells.collect())
    });
    let (_, name) = file.split_once('-').expect("number-name");
    List {
        name: name.to_owned(),
        nodes,
        columns,
        rows: rows.collect(),
    }
}

fn lists(directory: &Path) -> Vec<List> {
    let entries = std::fs::read_dir(directory).expect("a directory of vectors");
    let files = entries.map(|entry| entry.expect("a directory of vectors").path());
    let mut files: Vec<PathBuf> = files
        .filter(|file| {
            let name = file.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| {
                name.ends_with(".tsv") && name.starts_with(|c: char| c.is_ascii_digit())
            })
        })
        .collect();
    files.sort();
    files.iter().map(|file| list(file)).collect()
}

/// A table with a heading: each row by the names of its columns.
fn table(name: &str) -> Vec<HashMap<String, String>> {
    let text = read(name);
    let mut lines = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t'));
    let heading: Vec<&str> = lines.next().expect("a heading").collect();
    let row = |cells: std::str::Split<'_, char>| {
        heading
            .iter()
            .map(|s| (*s).to_owned())
            .zip(cells.map(str::to_owned))
            .collect()
    };
    lines.map(row).collect()
}

/// The part of the circle that each node owns.
fn arcs(continuum: &Continuum) -> Vec<f64> {
    if continuum.len() == 1 {
        return vec![1.0];
    }
    let points: Vec<(u32, usize)> = continuum.points().collect();
    let mut arcs = vec![0.0; continuum.len()];
    // The first point's arc begins behind the last one.
    let mut before = i64::from(points[points.len() - 1].0) - (1 << 32);
    for (value, node) in points {
        arcs[node] += (i64::from(value) - before) as f64 / (1_u64 << 32) as f64;
        before = i64::from(value);
    }
    arcs
}

/// Whether a share of the sampled keys can be that of the circle: five standard deviations, and the table's last digit.
fn plausible(sampled: f64, exact: f64) -> bool {
    (sampled - exact).abs() <= 5.0 * (exact * (1.0 - exact) / SAMPLE).sqrt() + 0.00006
}

#[test]
fn every_key_of_every_list_in_every_mode() {
    let mut all = lists(&directory());
    all.extend(lists(&directory().with_file_name("ketama-more")));
    assert_eq!(all.len(), 9 + 5);
    if let Some(more) = std::env::var_os("KETAMA_VECTORS") {
        all.extend(lists(Path::new(&more)));
    }
    for list in all {
        assert_eq!(list.rows.len(), 1000, "{}", list.name);
        for (column, distribution) in MODES {
            let Some(cell) = list.columns.iter().position(|c| c == column) else {
                assert_eq!(column, "modula", "{}: a column for each mode", list.name);
                continue;
            };
            let continuum = Continuum::new(distribution, &list.nodes);
            for (key, cells) in &list.rows {
                assert_eq!(
                    continuum.locate(key.as_bytes()),
                    Some(cells[cell]),
                    "{}, {distribution}: {key}",
                    list.name
                );
                assert_eq!(continuum.walk(key.as_bytes()).next(), Some(cells[cell]));
            }
        }
    }
}

/// The clients that fleets migrate from: see data/others/README.md.
#[test]
fn every_key_as_other_clients_place_it() {
    let lists = lists(&directory().with_file_name("others"));
    assert_eq!(lists.len(), 7);
    for list in lists {
        assert_eq!(
            (list.rows.len(), list.columns.len()),
            (1000, 5),
            "{}",
            list.name
        );
        for (cell, column) in list.columns.iter().enumerate() {
            let distribution: Distribution = column.parse().expect("a distribution of that name");
            // Names are spymemcached's; the others know the address alone.
            let mut nodes = list.nodes.clone();
            if distribution != Distribution::Spymemcached {
                nodes.iter_mut().for_each(|node| node.name = None);
            }
            let continuum = Continuum::new(distribution, &nodes);
            for (key, cells) in &list.rows {
                let owner = continuum.locate(key.as_bytes());
                assert_eq!(owner, Some(cells[cell]), "{}, {column}: {key}", list.name);
                assert_eq!(continuum.walk(key.as_bytes()).next(), owner);
            }
        }
    }
}

#[test]
fn every_point_of_a_weighted_ring() {
    let list = list(&directory().join("05-three-weighted.tsv"));
    let points: Vec<(u32, usize)> = table("points-three-weighted.tsv")
        .iter()
        .map(|row| {
            (
                row["point"].parse().unwrap(),
                row["server"].parse().unwrap(),
            )
        })
        .collect();
    assert_eq!(points.len(), 480);
    let ring = Continuum::new(Distribution::KetamaWeighted, &list.nodes);
    assert_eq!(ring.points().collect::<Vec<_>>(), points);
}

/// The shares of keys that libmemcached gave each server are those of its arcs on our circle.
#[test]
fn shares_of_the_circle() {
    let lists = lists(&directory());
    let rows = table("shares.tsv");
    assert!(rows.len() > 100);
    for row in rows {
        let list = lists
            .iter()
            .find(|list| list.name == row["list"])
            .expect("a list of that name");
        let (_, distribution) = MODES
            .into_iter()
            .find(|(mode, _)| *mode == row["mode"])
            .expect("a mode");
        let node: usize = row["server"].parse().unwrap();
        assert_eq!(list.nodes[node].address(), row["address"]);
        let exact = arcs(&Continuum::new(distribution, &list.nodes))[node];
        let sampled: f64 = row["share"].parse().unwrap();
        assert!(
            plausible(sampled, exact),
            "{row:?}: the circle says {exact}"
        );
    }
}

/// How many keys moved when the last server was removed, and how many of them although they were not on it.
#[test]
fn what_moves_when_the_last_node_leaves() {
    let lists = lists(&directory());
    for row in table("balance.tsv")
        .iter()
        .filter(|row| row["moved_when_last_removed"] != "-")
    {
        let list = lists
            .iter()
            .find(|list| list.name == row["list"])
            .expect("a list of that name");
        let (_, distribution) = MODES
            .into_iter()
            .find(|(mode, _)| *mode == row["mode"])
            .expect("a mode");
        let last = list.nodes.len() - 1;
        let before = Continuum::new(distribution, &list.nodes);
        let after = Continuum::new(distribution, &list.nodes[..last]);
        let (mut moved, mut not_on_it) = (0, 0);
        for i in 0..100_000_u32 {
            let key = format!("other:{i}");
            let was = before.locate(key.as_bytes());
            if was != after.locate(key.as_bytes()) {
                moved += 1;
                not_on_it += u32::from(was != Some(last));
            }
        }
        for (column, moved) in [
            ("moved_when_last_removed", moved),
            ("moved_though_not_on_it", not_on_it),
        ] {
            let sampled: f64 = row[column].parse().unwrap();
            assert!(
                plausible(sampled, f64::from(moved) / 100_000.0),
                "{row:?}: {column} is {moved} of 100,000"
            );
        }
        let equal = list
            .nodes
            .iter()
            .all(|node| node.weight == list.nodes[0].weight);
        assert!(
            !equal || not_on_it == 0,
            "equal weights: the others' keys stay"
        );
    }
}
