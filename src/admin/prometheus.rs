//! Prometheus' text format: families of samples, each with its help and its type.
//!
//! Pr1. A family is written once, with its samples behind it. Samples are finite numbers.

use std::fmt::{Display, Write};

/// What a family's numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, see [`Text::histogram`].
    Histogram,
    /// A counter whose name, which dashboards know, lacks the ending that `promtool` asks of counters.
    Untyped,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Untyped => "untyped",
        }
    }
}

/// A text in the making.
#[derive(Debug, Default)]
pub(super) struct Text {
    out: String,
    family: &'static str,
}

/// A label and its value, of any bytes.
pub(super) type Label<'l> = (&'static str, &'l str);

impl Text {
    /// Begins a family.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.family = name;
        let kind = kind.name();
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("a String takes it");
    }

    /// A sample of the family that was begun last.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, value);
    }

    /// A family of one sample.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// A histogram of the family that was begun last: how many were at most so large, and all of them added up.
    pub fn histogram(
        &mut self,
        labels: &[Label<'_>],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        for (bound, at_most) in buckets {
            let bound = bound.to_string();
            let mut with_bound = labels.to_vec();
            with_bound.push(("le", &bound));
            self.line("_bucket", &with_bound, at_most);
        }
        let mut all = labels.to_vec();
        all.push(("le", "+Inf"));
        self.line("_bucket", &all, count);
        self.line("_sum", labels, sum);
        self.line("_count", labels, count);
    }

    fn line(&mut self, ending: &str, labels: &[Label<'_>], value: impl Display) {
        let out = &mut self.out;
        out.push_str(self.family);
        out.push_str(ending);
        for (n, (name, value)) in labels.iter().enumerate() {
            out.push(if n == 0 { '{' } else { ',' });
            out.push_str(name);
            out.push_str("=\"");
            for char in value.chars() {
                match char {
                    '\\' => out.push_str("\\\\"),
                    '"' => out.push_str("\\\""),
                    '\n' => out.push_str("\\n"),
                    char => out.push(char),
                }
            }
            out.push('"');
        }
        if !labels.is_empty() {
            out.push('}');
        }
        writeln!(out, " {value}").expect("a String takes it");
    }

    /// The text.
    pub fn finish(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_labels() {
        let mut text = Text::default();
        text.single("up", Kind::Gauge, "Whether it is there.", 1);
        text.family("a_total", Kind::Counter, "All.");
        text.sample(&[("key", "q\"b\\s\nn"), ("b", "")], 2.5);
        text.family("t_seconds", Kind::Histogram, "Times.");
        text.histogram(&[("c", "get")], [(0.001, 1), (1.0, 3)], 4, 0.25);
        assert_eq!(
            text.finish(),
            "# HELP up Whether it is there.\n# TYPE up gauge\nup 1\n\
             # HELP a_total All.\n# TYPE a_total counter\na_total{key=\"q\\\"b\\\\s\\nn\",b=\"\"} 2.5\n\
             # HELP t_seconds Times.\n# TYPE t_seconds histogram\n\
             t_seconds_bucket{c=\"get\",le=\"0.001\"} 1\nt_seconds_bucket{c=\"get\",le=\"1\"} 3\n\
             t_seconds_bucket{c=\"get\",le=\"+Inf\"} 4\nt_seconds_sum{c=\"get\"} 0.25\n\
             t_seconds_count{c=\"get\"} 4\n"
        );
    }
}
