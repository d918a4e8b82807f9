//! What a node says of itself (`stats`), as numbers.

use std::collections::HashMap;

/// The statistics of a node.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    by_key: HashMap<String, String>,
}

/// The commands, by what is counted of them. Some meta commands that do nothing are not among them.
const OPS: [&str; 9] = [
    "cmd_get",
    "cmd_set",
    "cmd_touch",
    "delete_hits",
    "delete_misses",
    "incr_hits",
    "incr_misses",
    "decr_hits",
    "decr_misses",
];

impl Figures {
    /// Of what `stats` gave.
    pub fn new(stats: Vec<(String, String)>) -> Self {
        Figures {
            by_key: stats.into_iter().collect(),
        }
    }

    /// As the node wrote it.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.by_key.get(key).map(String::as_str)
    }

    /// A number; 0 if the node does not tell it.
    pub fn number(&self, key: &str) -> f64 {
        let number = self.text(key).and_then(|text| text.parse().ok());
        number.filter(|n: &f64| n.is_finite()).unwrap_or(0.0)
    }

    /// How many commands there were.
    pub fn ops(&self) -> f64 {
        OPS.iter().map(|key| self.number(key)).sum()
    }

    /// memcached's version, and ketch's if it is one.
    pub fn version(&self) -> String {
        let version = self.text("version").unwrap_or("?");
        match self.text("ketch_version") {
            Some(ketch) => format!("{version} (ketch {ketch})"),
            None => version.to_owned(),
        }
    }

    /// All nodes as one: the sums of what both tell as whole numbers.
    pub fn add(&mut self, other: &Figures) {
        for (key, text) in &other.by_key {
            let Ok(more) = text.parse::<u64>() else {
                continue;
            };
            let sum = self.by_key.entry(key.clone()).or_default();
            *sum = (sum.parse().unwrap_or(0) + u128::from(more)).to_string();
        }
    }
}

/// A share in percent; `-` of nothing.
pub fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 {
        format!("{:.1} %", 100.0 * part / whole)
    } else {
        "-".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sums() {
        let stats = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            Figures::new(pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect())
        };
        let a = stats(&[("cmd_get", "7"), ("decr_hits", "2"), ("version", "1.6")]);
        let b = stats(&[("cmd_get", "5"), ("ketch_version", "0.1"), ("bytes", "nan")]);
        assert_eq!((a.ops(), b.number("bytes")), (9.0, 0.0));
        assert_eq!(
            (a.version(), b.version()),
            ("1.6".into(), "? (ketch 0.1)".into())
        );
        let mut sum = Figures::default();
        sum.add(&a);
        sum.add(&b);
        assert_eq!((sum.number("cmd_get"), sum.text("version")), (12.0, None));
        assert_eq!(
            (percent(1.0, 4.0), percent(0.0, 0.0)),
            ("25.0 %".into(), "-".into())
        );
    }
}
