//! Text in columns: the first to the left, the others to the right.

use std::fmt;

/// Rows of cells, as wide as their widest.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this heading.
    pub fn new<T: Into<String>>(heading: impl IntoIterator<Item = T>) -> Self {
        let heading = heading.into_iter().map(Into::into).collect();
        Table {
            rows: vec![heading],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = String>) {
        let mut row = vec![name.into()];
        row.extend(cells);
        self.rows.push(row);
    }

    /// The lines, without what a terminal would take for orders.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        // A row of one cell is a remark, and may stick out.
        let full = || self.rows.iter().filter(|row| row.len() > 1);
        let width = |column: usize| {
            let cells = full().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        self.rows.iter().map(move |row| {
            let mut line = String::new();
            for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match at {
                    0 => line.push_str(&format!("{cell:width$}")),
                    _ => line.push_str(&format!("  {cell:>width$}")),
                }
            }
            line.replace(|c: char| c.is_control(), "?")
                .trim_end()
                .to_owned()
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_each_other() {
        let mut table = Table::new(["", "a:1", "b"]);
        table.row("items", ["7".into(), "12345".into()]);
        table.row("größe", ["\x1b[2J".into()]);
        assert_eq!(
            table.to_string(),
            "        a:1      b\nitems     7  12345\ngröße  ?[2J\n"
        );
    }
}
