//! What an audit has found, and how it is told.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::compare::{self, Verdict};
use super::places::Places;
use crate::copy::source::Found;
use crate::table::Table;
use crate::{json, units};

/// The most different errors that are remembered.
const ERRORS_MAX: usize = 16;

/// Counts of keys. Each key that was looked at is in one of them, those beside `keys` apart.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Looked at.
    pub keys: u64,
    pub agree: u64,
    pub differ: u64,
    /// Only one place has it.
    pub alone: u64,
    /// They were written during each look.
    pub changing: u64,
    pub unfinished: u64,
    /// Gone before they could be compared.
    pub gone: u64,
    /// They could not be read.
    pub failed: u64,
    /// Of those that agree: they do not live equally long.
    pub ttl_differs: u64,
    /// On a node that does not own them; not among `keys`.
    pub strays: u64,
    /// By place: keys that another place has and this does not.
    pub missing: Vec<u64>,
}

/// A key whose copies differ, and what each place has: address, and the item in a few words.
#[derive(Debug, Clone)]
pub struct Different {
    pub key: Vec<u8>,
    pub copies: Vec<(String, String)>,
}

/// What has been found so far; all threads write to it.
#[derive(Debug)]
pub struct Tally {
    inner: Mutex<Inner>,
    show: usize,
}

#[derive(Debug, Default)]
struct Inner {
    counts: Counts,
    different: Vec<Different>,
    errors: Vec<String>,
}

impl Tally {
    /// `show` is how many keys that differ are named.
    pub fn new(places: usize, show: usize) -> Self {
        let tally = Tally {
            inner: Mutex::default(),
            show,
        };
        tally.lock().counts.missing = vec![0; places];
        tally
    }

    /// A key's verdict, but [`Verdict::Differ`], which is looked at again.
    pub fn count(&self, verdict: Verdict, of_key: &[usize], found: &[Found]) {
        let mut inner = self.lock();
        let counts = &mut inner.counts;
        counts.keys += 1;
        match verdict {
            Verdict::Gone => counts.gone += 1,
            Verdict::Alone => counts.alone += 1,
            Verdict::Agree { ttl_differs } => {
                counts.agree += 1;
                counts.ttl_differs += u64::from(ttl_differs);
            }
            Verdict::Differ => counts.differ += 1,
            Verdict::Unfinished => counts.unfinished += 1,
            Verdict::Refused => counts.failed += 1,
        }
        if verdict != Verdict::Gone {
            for (&place, found) in of_key.iter().zip(found) {
                counts.missing[place] += u64::from(*found == Found::Gone);
            }
        }
        let refusal = found.iter().find_map(|found| match found {
            Found::Refused(line) => Some(line.clone()),
            _ => None,
        });
        drop(inner);
        if let Some(line) = refusal {
            self.error(format!("a node refuses a key: {line}"));
        }
    }

    /// A key that differs in both looks.
    pub fn different(&self, places: &Places, key: &[u8], of_key: &[usize], found: &[Found]) {
        self.count(Verdict::Differ, of_key, found);
        let mut inner = self.lock();
        if inner.different.len() < self.show {
            let place = |&place: &usize| places.places[place].address.clone();
            let copies = of_key.iter().map(place).zip(found.iter().map(words));
            inner.different.push(Different {
                key: key.to_vec(),
                copies: copies.collect(),
            });
        }
    }

    /// A key that was written during each look.
    pub fn changing(&self) {
        let mut inner = self.lock();
        inner.counts.keys += 1;
        inner.counts.changing += 1;
    }

    /// Keys that could not be read, and why.
    pub fn failed(&self, keys: usize, why: String) {
        {
            let mut inner = self.lock();
            inner.counts.keys += keys as u64;
            inner.counts.failed += keys as u64;
        }
        self.error(why);
    }

    pub fn stray(&self) {
        self.lock().counts.strays += 1;
    }

    /// Something went wrong.
    pub fn error(&self, why: String) {
        let mut inner = self.lock();
        if inner.errors.len() < ERRORS_MAX && !inner.errors.contains(&why) {
            inner.errors.push(why);
        }
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    pub fn different_keys(&self) -> Vec<Different> {
        self.lock().different.clone()
    }

    pub fn errors(&self) -> Vec<String> {
        self.lock().errors.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An item in a few words: what differs can be seen from them, but not the value.
fn words(found: &Found) -> String {
    match found {
        Found::Item {
            value,
            flags,
            ttl,
            cas,
        } => {
            let ttl = ttl.map_or("-1".to_owned(), |ttl| ttl.as_secs().to_string());
            format!(
                "bytes={} hash={:08x} flags={flags} ttl={ttl} cas={cas}",
                value.len(),
                hash(value)
            )
        }
        Found::Gone => "missing".to_owned(),
        Found::Unfinished => "stale".to_owned(),
        Found::Refused(_) => "refused".to_owned(),
    }
}

/// Of a value, so that equal lengths can be told apart: FNV-1a, folded.
fn hash(value: &[u8]) -> u32 {
    let hash = compare::fnv(value);
    (hash ^ (hash >> 32)) as u32
}

/// A key as a line can hold it: percent encoded, as in dumps.
pub fn encoded(key: &[u8]) -> String {
    let mut text = String::new();
    for &byte in key {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// How many nines agree, in words.
fn nines(counts: &Counts) -> String {
    match compare::nines(counts.agree, counts.differ) {
        _ if counts.agree + counts.differ == 0 => "nothing to compare".to_owned(),
        None => "all of them".to_owned(),
        Some(1) => "1 nine".to_owned(),
        Some(nines) => format!("{nines} nines"),
    }
}

/// The share that agrees, in percent, rounded down: never 100 where something differs.
fn percent(counts: &Counts) -> String {
    let compared = u128::from(counts.agree) + u128::from(counts.differ);
    if compared == 0 {
        return "-".to_owned();
    }
    // In billionths.
    let share = u128::from(counts.agree) * 100_0000000 / compared;
    let text = format!("{}.{:07}", share / 1_0000000, share % 1_0000000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

/// The report for people.
pub fn report(
    places: &Places,
    rings: &[String],
    tally: &Tally,
    share: f64,
    took: Duration,
) -> String {
    let counts = tally.counts();
    let of = match share {
        share if share >= 1.0 => "all keys".to_owned(),
        share => format!("a sample of 1 key in {:.0}", 1.0 / share),
    };
    let mut text = format!(
        "{} of {}: {} keys looked at in {:.1}s\n",
        of,
        rings.join(" and "),
        units::grouped(counts.keys),
        took.as_secs_f64()
    );
    let mut table = Table::new(["", "keys", ""]);
    let row = |table: &mut Table, name: &str, count: u64, remark: String| {
        table.row(name, [units::grouped(count), remark]);
    };
    let agree = format!("{} ({})", percent(&counts), nines(&counts));
    row(&mut table, "agree", counts.agree, agree);
    row(&mut table, "differ", counts.differ, String::new());
    row(&mut table, "only in one place", counts.alone, String::new());
    for (name, count) in [
        ("time to live differs", counts.ttl_differs),
        ("written during each look", counts.changing),
        ("stale or leased", counts.unfinished),
        ("gone meanwhile", counts.gone),
        ("could not be read", counts.failed),
        ("on a node that does not own them", counts.strays),
    ] {
        if count > 0 {
            row(&mut table, name, count, String::new());
        }
    }
    for (place, &count) in places.places.iter().zip(&counts.missing) {
        if count > 0 {
            let name = format!("missing on {}", place.address);
            row(&mut table, &name, count, String::new());
        }
    }
    text.push_str(&table.to_string());
    let different = tally.different_keys();
    for one in &different {
        text.push_str(&format!("differs: {}\n", encoded(&one.key)));
        for (address, words) in &one.copies {
            text.push_str(&format!("  {address}  {words}\n"));
        }
    }
    let more = counts.differ.saturating_sub(different.len() as u64);
    if more > 0 && !different.is_empty() {
        text.push_str(&format!("and {} more (--show N)\n", units::grouped(more)));
    }
    text
}

/// The same as one line of JSON.
pub fn report_json(
    places: &Places,
    rings: &[String],
    tally: &Tally,
    share: f64,
    took: Duration,
) -> String {
    let counts = tally.counts();
    let number = |number: u64| number.to_string();
    let named = |name: &str, value: String| (name.to_owned(), value);
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    let missing = places.places.iter().zip(&counts.missing);
    let missing = missing.map(|(place, &count)| (place.address.clone(), number(count)));
    let different = tally.different_keys().into_iter().map(|one| {
        let copies = one.copies.iter();
        let copies = copies.map(|(address, words)| (address.clone(), json::string(words)));
        json::object([
            named("key", json::string(&encoded(&one.key))),
            named("copies", json::object(copies)),
        ])
    });
    let compared = counts.agree + counts.differ;
    let object = json::object([
        named(
            "rings",
            list(rings.iter().map(|ring| json::string(ring)).collect()),
        ),
        named("sample", format!("{share}")),
        named("seconds", format!("{:.3}", took.as_secs_f64())),
        named("keys", number(counts.keys)),
        named("compared", number(compared)),
        named("agree", number(counts.agree)),
        named("differ", number(counts.differ)),
        named(
            "nines",
            match compare::nines(counts.agree, counts.differ) {
                Some(nines) => nines.to_string(),
                None => "null".to_owned(),
            },
        ),
        named("alone", number(counts.alone)),
        named("ttl_differs", number(counts.ttl_differs)),
        named("changing", number(counts.changing)),
        named("unfinished", number(counts.unfinished)),
        named("gone", number(counts.gone)),
        named("failed", number(counts.failed)),
        named("strays", number(counts.strays)),
        named("missing", json::object(missing)),
        named("different", list(different.collect())),
        named(
            "errors",
            list(
                tally
                    .errors()
                    .iter()
                    .map(|error| json::string(error))
                    .collect(),
            ),
        ),
    ]);
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_never_rounded_up() {
        let of = |agree, differ| {
            let counts = Counts {
                agree,
                differ,
                ..Counts::default()
            };
            format!("{} ({})", percent(&counts), nines(&counts))
        };
        assert_eq!(of(10, 0), "100 % (all of them)");
        assert_eq!(of(0, 0), "- (nothing to compare)");
        assert_eq!(of(9, 1), "90 % (1 nine)");
        assert_eq!(of(9_999_999_999, 1), "99.9999999 % (10 nines)");
        assert_eq!(of(2, 1), "66.6666666 % (0 nines)");
    }

    #[test]
    fn keys_as_lines_hold_them() {
        assert_eq!(encoded(b"user:1/a b%\n\xff"), "user:1/a%20b%25%0A%FF");
    }
}
