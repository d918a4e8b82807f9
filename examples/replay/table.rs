//! The figures of many runs side by side, and a file of those that take long to get: `--table`, `--known`.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;

use super::reference;

/// What was replayed against whom.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Run {
    pub trace: String,
    pub sizes: String,
    pub room: usize,
    /// The memory limit.
    pub megabytes: usize,
    /// Who was asked.
    pub name: String,
}

impl Run {
    fn line(&self) -> String {
        let Run {
            trace,
            sizes,
            room,
            megabytes,
            name,
        } = self;
        format!("{trace} {sizes} {room} {megabytes} {name}")
    }
}

/// Misses that were counted before.
pub struct Known {
    path: Option<String>,
    misses: HashMap<String, usize>,
}

impl Known {
    /// What the file says, if there is one.
    pub fn read(path: Option<String>) -> Known {
        let text = path
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok());
        let line = |line: &str| {
            let (run, misses) = line.rsplit_once(' ')?;
            Some((run.to_owned(), misses.parse().ok()?))
        };
        let misses = text
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(line)
            .collect();
        Known { path, misses }
    }

    pub fn get(&self, run: &Run) -> Option<usize> {
        self.misses.get(&run.line()).copied()
    }

    /// Adds a line to the file.
    pub fn note(&self, run: &Run, misses: usize) {
        let Some(path) = &self.path else {
            return;
        };
        let file = OpenOptions::new().create(true).append(true).open(path);
        let mut file = file.unwrap_or_else(|error| panic!("{path}: {error}"));
        writeln!(file, "{} {misses}", run.line()).expect("the file takes a line");
    }
}

/// All runs: a row for each load and limit, a column for each who was asked.
#[derive(Default)]
pub struct Table {
    names: Vec<String>,
    /// By the number of the row: its first columns, and the miss ratio of each name.
    rows: BTreeMap<usize, (Run, HashMap<String, f64>)>,
}

impl Table {
    pub fn add(&mut self, run: &Run, miss_ratio: f64) {
        if !self.names.contains(&run.name) {
            self.names.push(run.name.clone());
        }
        let is_same = |other: &Run| {
            let name = run.name.clone();
            Run {
                name,
                ..other.clone()
            } == *run
        };
        let found = self.rows.iter().find(|(_, (other, _))| is_same(other));
        let at = found.map_or(self.rows.len(), |(&at, _)| at);
        let row = self
            .rows
            .entry(at)
            .or_insert_with(|| (run.clone(), HashMap::new()));
        row.1.insert(run.name.clone(), miss_ratio);
    }

    /// Prints misses of all, and in brackets against the yardstick's: that of `server`, if one was asked. The column `best` is
    /// the model that misses least.
    pub fn print(&self, servers: &[String]) {
        let is_model = |name: &&String| reference::NAMES.contains(&name.as_str());
        let is_server = |name: &&String| servers.contains(name);
        let yardstick = self.names.iter().find(is_server);
        let stores: Vec<&String> = self.names.iter().filter(|name| !is_model(name)).collect();
        let has_models = self.names.iter().any(|name| is_model(&name));
        let mut head = vec!["trace", "sizes", "room", "-m"];
        head.extend(stores.iter().map(|name| name.as_str()));
        if has_models {
            head.push("best model");
        }
        println!("\n| {} |", head.join(" | "));
        println!("|{}", " --- |".repeat(head.len()));
        // Of each store, misses against the server's and against the best model's.
        let mut against: HashMap<(&str, bool), Vec<f64>> = HashMap::new();
        for (run, ratios) in self.rows.values() {
            let models = ratios.iter().filter(|(name, _)| is_model(name));
            let best = models.min_by(|a, b| a.1.total_cmp(b.1));
            let mut row = vec![
                run.trace.clone(),
                run.sizes.clone(),
                format!("{} %", run.room),
                run.megabytes.to_string(),
            ];
            for &name in &stores {
                let Some(&ratio) = ratios.get(name) else {
                    row.push(String::new());
                    continue;
                };
                let mut text = format!("{ratio:.3}");
                if let Some(base) = yardstick.filter(|&base| base != name)
                    && let Some(base) = ratios.get(base)
                {
                    text += &format!(" ({:+.1} %)", (ratio / base - 1.0) * 100.0);
                    against
                        .entry((name, false))
                        .or_default()
                        .push(ratio / base - 1.0);
                }
                if let Some((_, best)) = best {
                    against
                        .entry((name, true))
                        .or_default()
                        .push(ratio / best - 1.0);
                }
                row.push(text);
            }
            row.extend(best.map(|(name, ratio)| {
                let own = stores.first().and_then(|&name| ratios.get(name));
                let own = own.map_or(0.0, |own| (own / ratio - 1.0) * 100.0);
                format!("{name} {ratio:.3} ({own:+.1} %)")
            }));
            println!("| {} |", row.join(" | "));
        }
        println!();
        for (yard, text) in [(false, "the server's"), (true, "the best model's")] {
            for &name in &stores {
                let Some(all) = against.get(&(name.as_str(), yard)) else {
                    continue;
                };
                let mean = all.iter().sum::<f64>() / all.len() as f64;
                let most = all.iter().copied().fold(f64::MIN, f64::max);
                println!(
                    "{name}: misses against {text}: mean {:+.1} %, most {:+.1} %, of {} rows",
                    mean * 100.0,
                    most * 100.0,
                    all.len()
                );
            }
        }
    }
}
