//! The last ten minutes, second by second, kept whether anybody asks or not.
//!
//! Rc1. There are at most [`SECONDS`] rows of [`COLUMNS`]: 70 KB.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Rows that are kept.
pub const SECONDS: usize = 600;

/// What a row tells: first what was counted in its second, then what there was at its end.
pub const COLUMNS: [&str; 15] = [
    "get_hits",
    "get_misses",
    "cmd_set",
    "deletes",
    "cmd_touch",
    "evictions",
    "bytes_read",
    "bytes_written",
    "total_connections",
    "conn_yields",
    "requests_timed",
    "p99_ns",
    "curr_connections",
    "curr_items",
    "bytes",
];

/// A second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// Seconds since 1970.
    pub unix_s: i64,
    /// In the order of [`COLUMNS`].
    pub values: [u64; COLUMNS.len()],
}

/// The rows.
#[derive(Debug, Default)]
pub struct Record(Mutex<VecDeque<Row>>);

impl Record {
    /// Adds a second; the oldest makes room.
    pub fn push(&self, row: Row) {
        let mut rows = self.0.lock();
        if rows.len() == SECONDS {
            rows.pop_front();
        }
        rows.push_back(row);
    }

    /// Up to `most` rows that are later than `unix_s`, the oldest first.
    pub fn after(&self, unix_s: i64, most: usize) -> Vec<Row> {
        let rows = self.0.lock();
        let later = rows.iter().filter(|row| row.unix_s > unix_s);
        later.take(most).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_reading_goes_on() {
        let record = Record::default();
        for unix_s in 0..SECONDS as i64 + 50 {
            let mut row = Row {
                unix_s,
                ..Row::default()
            };
            row.values[0] = unix_s as u64 * 2;
            record.push(row);
        }
        let first = record.after(-1, 100);
        assert_eq!(
            (first.len(), first[0].unix_s, first[0].values[0]),
            (100, 50, 100)
        );
        let (mut at, mut rows) = (-1, 0);
        loop {
            let some = record.after(at, 60);
            let Some(last) = some.last() else {
                break;
            };
            (at, rows) = (last.unix_s, rows + some.len());
        }
        assert_eq!((at, rows), (SECONDS as i64 + 49, SECONDS));
    }
}
