//! `[[routes]]`: what is done with keys of a prefix; `[users.NAME]`: what a user may ask.

use toml::value::Datetime;
use toml::{Table, Value};

use super::pool::PoolSpec;
use super::words::{nothing_left, take, text, within};

/// The longest time that a word may say, in seconds: beyond it servers take a time to live for a date.
const SECONDS_MAX: i64 = 60 * 60 * 24 * 30;
/// How long a value lives in a gutter pool, and a copy of a key that is split.
const GUTTER_TTL_S: u32 = 10;
const SPLIT_TTL_S: u32 = 60;
/// The most names of one key.
const SPLIT_MAX: i64 = 64;

/// The words of a route.
pub(super) const WORDS: &str = "prefix, pool, gutter, gutter_ttl_s, warm, migrate_to, migrate_begin, migrate_end, split, split_ttl_s, \
    delete_to, delete_on_store, delete_ack, shadow, shadow_percent, requests_per_s, burst, read_only, allow_deletes";

/// `[[routes]]`. Pools are named by their places in the list.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::proxy) struct RouteSpec {
    pub(in crate::proxy) prefix: Vec<u8>,
    pub(in crate::proxy) pool: usize,
    /// Where keys are whose nodes do not answer.
    pub(in crate::proxy) gutter: Option<Gutter>,
    /// Where values may be yet that the pool lacks.
    pub(in crate::proxy) warm: Option<usize>,
    pub(in crate::proxy) migration: Option<Migration>,
    pub(in crate::proxy) split: Option<Split>,
    /// Pools that are told deletes; and stores too, as deletes; and whether they are waited for.
    pub(in crate::proxy) delete_to: Vec<usize>,
    pub(in crate::proxy) delete_on_store: bool,
    pub(in crate::proxy) delete_ack: bool,
    pub(in crate::proxy) shadow: Option<Shadow>,
    pub(in crate::proxy) rate: Option<Rate>,
    pub(in crate::proxy) read_only: bool,
    pub(in crate::proxy) allow_deletes: bool,
}

/// A pool for keys whose nodes do not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Gutter {
    pub(in crate::proxy) pool: usize,
    /// How long what is stored there lives at most.
    pub(in crate::proxy) ttl_s: u32,
}

/// Keys move to another pool, by and by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Migration {
    pub(in crate::proxy) to: usize,
    /// From when on, and until all have; Unix milliseconds.
    pub(in crate::proxy) begin_ms: u64,
    pub(in crate::proxy) end_ms: u64,
}

/// A key has several names, which share its reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Split {
    pub(in crate::proxy) names: u32,
    /// How long a copy under another name lives at most.
    pub(in crate::proxy) ttl_s: u32,
}

/// A pool that is sent a share of what is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::proxy) struct Shadow {
    pub(in crate::proxy) pool: usize,
    /// Of 100.
    pub(in crate::proxy) percent: f64,
}

/// How much may be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::proxy) struct Rate {
    pub(in crate::proxy) per_s: f64,
    /// Requests that may come at once.
    pub(in crate::proxy) burst: f64,
}

impl RouteSpec {
    /// All keys to this pool.
    pub(super) fn to(pool: usize) -> Self {
        RouteSpec {
            prefix: Vec::new(),
            pool,
            gutter: None,
            warm: None,
            migration: None,
            split: None,
            delete_to: Vec::new(),
            delete_on_store: false,
            delete_ack: false,
            shadow: None,
            rate: None,
            read_only: false,
            allow_deletes: false,
        }
    }
}

impl RouteSpec {
    /// True if keys of this route may be in a pool.
    pub(in crate::proxy) fn uses(&self, pool: usize) -> bool {
        self.pool == pool
            || self.gutter.is_some_and(|gutter| gutter.pool == pool)
            || self.warm == Some(pool)
            || self.migration.is_some_and(|migration| migration.to == pool)
            || self.delete_to.contains(&pool)
            || self.shadow.is_some_and(|shadow| shadow.pool == pool)
    }
}

/// Takes the name of a pool out of a table.
fn pool_named(
    of: &str,
    table: &mut Table,
    word: &str,
    pools: &[PoolSpec],
) -> Result<Option<usize>, String> {
    let Some(named) = take(of, table, word, "the name of a pool", text)? else {
        return Ok(None);
    };
    place(of, word, &named, pools).map(Some)
}

fn place(of: &str, word: &str, named: &str, pools: &[PoolSpec]) -> Result<usize, String> {
    let place = pools.iter().position(|pool| pool.name == named);
    place.ok_or_else(|| {
        let names: Vec<&str> = pools.iter().map(|pool| &pool.name[..]).collect();
        format!(
            "{of}{word}: there is no pool {named:?}; pools are {}",
            names.join(", ")
        )
    })
}

/// Reads a route, the `at`th.
pub(super) fn read(at: usize, value: Value, pools: &[PoolSpec]) -> Result<RouteSpec, String> {
    let of = format!("routes, the {at}th: ");
    let Value::Table(mut table) = value else {
        return Err(format!("{of}must be a table, [[routes]]"));
    };
    let table = &mut table;
    let prefix = take(
        &of,
        table,
        "prefix",
        "a text, what its keys begin with",
        text,
    )?;
    let pool = pool_named(&of, table, "pool", pools)?;
    let pool =
        pool.ok_or_else(|| format!("{of}pool: is not there: a route needs the name of a pool"))?;
    let mut route = RouteSpec {
        prefix: prefix.unwrap_or_default().into_bytes(),
        ..RouteSpec::to(pool)
    };
    let gutter = pool_named(&of, table, "gutter", pools)?;
    let gutter_ttl_s = seconds(&of, table, "gutter_ttl_s")?;
    belongs(
        &of,
        "gutter_ttl_s",
        gutter_ttl_s.is_some(),
        "gutter",
        gutter.is_some(),
    )?;
    route.gutter = gutter.map(|pool| Gutter {
        pool,
        ttl_s: gutter_ttl_s.unwrap_or(GUTTER_TTL_S),
    });
    route.warm = pool_named(&of, table, "warm", pools)?;
    route.migration = migration(&of, table, pools)?;
    if route.warm.is_some() && route.migration.is_some() {
        return Err(format!(
            "{of}warm: goes without migrate_to, which asks the old pool anyhow: one of the two must go"
        ));
    }
    let names = take(
        &of,
        table,
        "split",
        "a number from 2 to 64",
        within(2..=SPLIT_MAX),
    )?;
    let split_ttl_s = seconds(&of, table, "split_ttl_s")?;
    belongs(
        &of,
        "split_ttl_s",
        split_ttl_s.is_some(),
        "split",
        names.is_some(),
    )?;
    route.split = names.map(|names| Split {
        names: names as u32,
        ttl_s: split_ttl_s.unwrap_or(SPLIT_TTL_S),
    });
    deletes(&of, table, pools, &mut route)?;
    let shadow = pool_named(&of, table, "shadow", pools)?;
    let percent = take(
        &of,
        table,
        "shadow_percent",
        "a number from 0 to 100",
        number,
    )?;
    belongs(
        &of,
        "shadow_percent",
        percent.is_some(),
        "shadow",
        shadow.is_some(),
    )?;
    if percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        return Err(format!(
            "{of}shadow_percent: must be a number from 0 to 100"
        ));
    }
    route.shadow = shadow.map(|pool| Shadow {
        pool,
        percent: percent.unwrap_or(100.0),
    });
    route.rate = rate(&of, table)?;
    route.read_only = flag(&of, table, "read_only")?.unwrap_or(false);
    let allow_deletes = flag(&of, table, "allow_deletes")?;
    belongs(
        &of,
        "allow_deletes",
        allow_deletes.is_some(),
        "read_only = true",
        route.read_only,
    )?;
    route.allow_deletes = allow_deletes.unwrap_or(false);
    for (word, other) in [
        ("gutter", gutter),
        ("warm", route.warm),
        ("migrate_to", route.migration.map(|migration| migration.to)),
        ("shadow", shadow),
    ] {
        if other == Some(pool) {
            return Err(format!(
                "{of}{word}: is the pool of the route itself: name another one"
            ));
        }
    }
    nothing_left(&of, table, WORDS)?;
    Ok(route)
}

/// Reads what a user may ask.
pub(super) fn user(name: String, value: Value) -> Result<(String, Rate), String> {
    let of = format!("users.{name}.");
    let Value::Table(mut table) = value else {
        return Err(format!("users.{name}: must be a table, [users.{name}]"));
    };
    let rate = rate(&of, &mut table)?;
    nothing_left(&of, &table, "requests_per_s, burst")?;
    let rate = rate.ok_or_else(|| format!("{of}requests_per_s: is not there: it is the limit"))?;
    Ok((name, rate))
}

fn deletes(
    of: &str,
    table: &mut Table,
    pools: &[PoolSpec],
    route: &mut RouteSpec,
) -> Result<(), String> {
    let names = take(of, table, "delete_to", "a list of pools", |value| {
        value.try_into::<Vec<String>>().ok()
    })?;
    let on_store = flag(of, table, "delete_on_store")?;
    let ack = flag(of, table, "delete_ack")?;
    belongs(
        of,
        "delete_on_store",
        on_store.is_some(),
        "delete_to",
        names.is_some(),
    )?;
    belongs(
        of,
        "delete_ack",
        ack.is_some(),
        "delete_to",
        names.is_some(),
    )?;
    for name in names.unwrap_or_default() {
        let other = place(of, "delete_to", &name, pools)?;
        if other == route.pool {
            return Err(format!(
                "{of}delete_to: {name:?} is the pool of the route itself, where deletes go anyhow: leave it out"
            ));
        }
        route.delete_to.push(other);
    }
    route.delete_on_store = on_store.unwrap_or(false);
    route.delete_ack = ack.unwrap_or(false);
    Ok(())
}

fn migration(of: &str, table: &mut Table, pools: &[PoolSpec]) -> Result<Option<Migration>, String> {
    let to = pool_named(of, table, "migrate_to", pools)?;
    let form = "a date and time with its offset, 2026-12-01T06:00:00Z";
    let begin = take(of, table, "migrate_begin", form, instant)?;
    let end = take(of, table, "migrate_end", form, instant)?;
    belongs(
        of,
        "migrate_begin",
        begin.is_some(),
        "migrate_to",
        to.is_some(),
    )?;
    belongs(of, "migrate_end", end.is_some(), "migrate_to", to.is_some())?;
    match (to, begin, end) {
        (None, ..) => Ok(None),
        (Some(to), Some(begin_ms), Some(end_ms)) if begin_ms < end_ms => Ok(Some(Migration {
            to,
            begin_ms,
            end_ms,
        })),
        (Some(_), Some(_), Some(_)) => {
            Err(format!("{of}migrate_end: must be later than migrate_begin"))
        }
        (Some(_), None, _) => Err(format!(
            "{of}migrate_begin: is not there: it must be {form}"
        )),
        (Some(_), _, None) => Err(format!("{of}migrate_end: is not there: it must be {form}")),
    }
}

fn rate(of: &str, table: &mut Table) -> Result<Option<Rate>, String> {
    let wanted = "a number above 0, up to a thousand million";
    let good = |value: Value| number(value).filter(|number| (0.001..=1e9).contains(number));
    let per_s = take(of, table, "requests_per_s", wanted, good)?;
    let wanted = "a number from 1, up to a thousand million";
    let good = |value: Value| number(value).filter(|number| (1.0..=1e9).contains(number));
    let burst = take(of, table, "burst", wanted, good)?;
    belongs(
        of,
        "burst",
        burst.is_some(),
        "requests_per_s",
        per_s.is_some(),
    )?;
    Ok(per_s.map(|per_s| Rate {
        per_s,
        burst: burst.unwrap_or(per_s.max(1.0)),
    }))
}

/// A word that says more of another one, which has to be there.
fn belongs(
    of: &str,
    word: &str,
    is_there: bool,
    other: &str,
    other_is: bool,
) -> Result<(), String> {
    match is_there && !other_is {
        true => Err(format!("{of}{word}: has no meaning without {other}")),
        false => Ok(()),
    }
}

fn seconds(of: &str, table: &mut Table, word: &str) -> Result<Option<u32>, String> {
    let seconds = take(
        of,
        table,
        word,
        "seconds, from 1 to 30 days",
        within(1..=SECONDS_MAX),
    )?;
    Ok(seconds.map(|seconds| seconds as u32))
}

fn flag(of: &str, table: &mut Table, word: &str) -> Result<Option<bool>, String> {
    take(of, table, word, "true or false", |value| value.as_bool())
}

fn number(value: Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(number as f64),
        Value::Float(number) => Some(number),
        _ => None,
    }
}

/// A date and time with its offset, as Unix milliseconds.
fn instant(value: Value) -> Option<u64> {
    let Value::Datetime(Datetime {
        date: Some(date),
        time: Some(time),
        offset: Some(offset),
    }) = value
    else {
        return None;
    };
    let minutes = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    // Days from the civil calendar, counted from March, when leap days come last.
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day) - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let of_day = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60;
    let seconds = days * 86_400 + of_day + i64::from(time.second.unwrap_or(0)) - minutes * 60;
    let ms = seconds * 1000 + i64::from(time.nanosecond.unwrap_or(0) / 1_000_000);
    u64::try_from(ms).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_unix_milliseconds() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00.250Z", 951_825_600_250),
            ("2026-12-01T01:00:00+01:00", 1_796_083_200_000),
            ("2026-11-30T19:00:00-05:00", 1_796_083_200_000),
        ] {
            let table: Table = toml::from_str(&format!("at = {text}")).expect("it is a date");
            assert_eq!(instant(table["at"].clone()), Some(ms), "{text}");
        }
        let table: Table = toml::from_str("at = 2026-12-01T01:00:00").expect("it is a date");
        assert_eq!(instant(table["at"].clone()), None, "where?");
    }
}
