//! The option that a mistyped word was meant to be.

use super::extended::EXTENDED;
use super::options::OPTIONS;

/// The option whose name is nearest to `word`, with the dashes or the `-o` it needs; `None` if none is near.
pub(super) fn nearest(word: &str) -> Option<String> {
    let word = plain(word.split(['=', ' ']).next()?);
    let names = OPTIONS.iter().map(|opt| ("--", opt));
    let names = names.chain(EXTENDED.iter().map(|opt| ("-o ", opt)));
    let far = word.chars().count() / 3;
    names
        .filter(|(_, opt)| !opt.is_hidden())
        .map(|(dashes, opt)| (distance(&word, &plain(opt.long)), dashes, opt.long))
        .filter(|&(distance, ..)| distance <= far)
        .min_by_key(|&(distance, ..)| distance)
        .map(|(_, dashes, name)| format!("{dashes}{name}"))
}

/// Without what people confuse: upper and lower case, dashes and underscores, dashes in front.
fn plain(word: &str) -> String {
    word.trim_start_matches('-')
        .to_lowercase()
        .replace('_', "-")
}

/// How many characters must be put in, taken away, changed or swapped with the next one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    // rows[i][j]: from the first i of a to the first j of b.
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (a, b, count) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "", 3),
            ("memory", "memroy", 1),
            ("modem", "modern", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), count, "{a} {b}");
            assert_eq!(distance(b, a), count, "{b} {a}");
        }
    }

    #[test]
    fn slips_of_the_pen_are_known() {
        for (word, name) in [
            ("memory-limt", Some("--memory-limit")),
            ("memory_limit", Some("--memory-limit")),
            ("modren", Some("-o modern")),
            ("MODERN", Some("-o modern")),
            ("slab-reassign", Some("-o slab_reassign")),
            ("--trakc_sizes=1", Some("-o track_sizes")),
            ("x", None),
            ("frobnicate", None),
        ] {
            assert_eq!(nearest(word).as_deref(), name, "{word}");
        }
    }
}
