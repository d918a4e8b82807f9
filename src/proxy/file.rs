//! The file of routes: TOML to pools and routes. A fault is told with its word, the reason and the way out.

use std::path::Path;
use std::time::Duration;

use client_core::continuum::{Distribution, Placement};
use client_core::node::Node;
use client_core::options::ClientOptions;
use ketch_client::topology;
use toml::{Table, Value};

/// The most connections of a worker to a node.
const CONNECTIONS_MAX: usize = 64;

/// What the file says.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) pools: Vec<PoolSpec>,
    /// The longest prefix first.
    pub(super) routes: Vec<RouteSpec>,
}

/// `[pools.NAME]`.
#[derive(Debug, Clone)]
pub(super) struct PoolSpec {
    pub(super) name: String,
    pub(super) from: From,
    /// Connections of each worker to each node.
    pub(super) connections: usize,
    /// A read whose nodes do not answer is a miss.
    pub(super) misses: bool,
    pub(super) dual_read: Duration,
    pub(super) options: ClientOptions,
    /// As it was written.
    pub(super) table: Table,
}

/// Where a pool's nodes come from.
#[derive(Debug, Clone)]
pub(super) enum From {
    List(Vec<Node>),
    Source(String),
}

/// `[[routes]]`.
#[derive(Debug, Clone)]
pub(super) struct RouteSpec {
    pub(super) prefix: Vec<u8>,
    /// The pool's place in the list.
    pub(super) pool: usize,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<File, String> {
    let told = |what: String| format!("{}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
    if is_lua(path, &text) {
        return Err(told("this is Lua, and routes are TOML here: \"ketchctl routes\" and docs/proxy.md tell how they are written".to_owned()));
    }
    parse(&text).map_err(told)
}

/// True for what memcached's own proxy reads.
fn is_lua(path: &Path, text: &str) -> bool {
    let is_word = |line: &str| {
        let line = line.trim_start();
        [
            "function ",
            "local ",
            "--",
            "pools{",
            "routes{",
            "mcp.",
            "require",
        ]
        .iter()
        .any(|word| line.starts_with(word))
    };
    path.extension().is_some_and(|extension| extension == "lua") || text.lines().any(is_word)
}

/// Reads the text of a file.
pub(super) fn parse(text: &str) -> Result<File, String> {
    let mut table: Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| {
            text[..span.start.min(text.len())].matches('\n').count() + 1
        });
        format!("line {line}: {}", error.message())
    })?;
    let pools = match table.remove("pools") {
        Some(Value::Table(pools)) if !pools.is_empty() => pools,
        Some(Value::Table(_)) | None => {
            return Err("no pool: there must be one, [pools.main] with nodes = [\"HOST:PORT\", ..] or source = \"..\"".to_owned());
        }
        Some(_) => return Err("pools: must be tables, [pools.NAME]".to_owned()),
    };
    let routes = match table.remove("routes") {
        Some(Value::Array(routes)) => routes,
        None => Vec::new(),
        Some(_) => return Err("routes: must be tables, [[routes]] with prefix and pool".to_owned()),
    };
    nothing_left("", &table, "pools, routes")?;
    let pools: Vec<PoolSpec> = pools
        .into_iter()
        .map(|(name, pool)| self::pool(name, pool))
        .collect::<Result<_, _>>()?;
    let mut routes: Vec<RouteSpec> = routes
        .into_iter()
        .enumerate()
        .map(|(at, route)| self::route(at + 1, route, &pools))
        .collect::<Result<_, _>>()?;
    if routes.is_empty() {
        let [_only] = &pools[..] else {
            return Err(
                "no route: with several pools there must be [[routes]] with prefix and pool"
                    .to_owned(),
            );
        };
        routes.push(RouteSpec {
            prefix: Vec::new(),
            pool: 0,
        });
    }
    if let Some(twice) = routes.iter().enumerate().find_map(|(at, route)| {
        let is_same = |other: &RouteSpec| other.prefix == route.prefix;
        routes[..at].iter().any(is_same).then_some(&route.prefix)
    }) {
        let prefix = String::from_utf8_lossy(twice);
        return Err(format!(
            "routes: prefix {prefix:?} is there twice: one of the two must go"
        ));
    }
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
    Ok(File { pools, routes })
}

fn nothing_left(of: &str, table: &Table, known: &str) -> Result<(), String> {
    match table.keys().next() {
        None => Ok(()),
        Some(word) => Err(format!(
            "{of}{word}: no word of this file; known are {known}"
        )),
    }
}

/// Takes a word out of a table, if it is there.
fn take<T>(
    of: &str,
    table: &mut Table,
    word: &str,
    wanted: &str,
    read: impl FnOnce(Value) -> Option<T>,
) -> Result<Option<T>, String> {
    let Some(value) = table.remove(word) else {
        return Ok(None);
    };
    match read(value) {
        None => Err(format!("{of}{word}: must be {wanted}")),
        value => Ok(value),
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn within(range: std::ops::RangeInclusive<i64>) -> impl FnOnce(Value) -> Option<i64> {
    move |value| value.as_integer().filter(|number| range.contains(number))
}

fn pool(name: String, value: Value) -> Result<PoolSpec, String> {
    let of = format!("pools.{name}.");
    let Value::Table(mut table) = value else {
        return Err(format!("pools.{name}: must be a table, [pools.{name}]"));
    };
    let whole = table.clone();
    let table = &mut table;
    let list = match table.remove("nodes") {
        None => None,
        Some(value) => {
            let nodes = value.try_into::<Vec<Node>>();
            let nodes = nodes.map_err(|error| {
                format!(
                    "{of}nodes: {}: must be a list, [\"HOST:PORT\", ..]",
                    error.message().trim_end()
                )
            })?;
            Some(nodes)
        }
    };
    let source = take(
        &of,
        table,
        "source",
        "a text, \"etcd://HOST:PORT/RING\"",
        text,
    )?;
    let from = match (list, source) {
        (Some(nodes), None) if nodes.is_empty() => {
            return Err(format!("{of}nodes: the list is empty: a pool needs a node"));
        }
        (Some(nodes), None) => From::List(nodes),
        (None, Some(source)) => {
            topology::source(&source).map_err(|reason| format!("{of}source: {reason}"))?;
            From::Source(source)
        }
        (None, None) => {
            return Err(format!(
                "{of}nodes: is not there: a pool needs nodes = [..] or source = \"..\""
            ));
        }
        (Some(_), Some(_)) => {
            return Err(format!(
                "{of}source: goes without nodes: one of the two must go"
            ));
        }
    };
    let connections = take(
        &of,
        table,
        "connections",
        "a number from 1 to 64",
        within(1..=CONNECTIONS_MAX as i64),
    )?;
    let misses = take(
        &of,
        table,
        "on_failure",
        "\"error\" or \"miss\"",
        |value| match value.as_str()? {
            "error" => Some(false),
            "miss" => Some(true),
            _ => None,
        },
    )?;
    let dual_read_s = take(&of, table, "dual_read_s", "seconds", within(0..=1_000_000))?;
    let distribution = take(
        &of,
        table,
        "distribution",
        &format!(
            "one of {}",
            Distribution::ALL.map(Distribution::name).join(", ")
        ),
        |value| value.as_str()?.parse::<Distribution>().ok(),
    )?;
    let hash_tags = take(&of, table, "hash_tags", "true or false", |value| {
        value.as_bool()
    })?;
    for (word, why) in [
        ("prefix", "keys are passed on as they are"),
        ("default_ttl_s", "times to live are passed on as they are"),
        ("ttl_jitter", "times to live are passed on as they are"),
        ("hash_long_keys", "keys are passed on as they are"),
        (
            "errors_as_misses",
            "on_failure = \"miss\" is the word for that",
        ),
    ] {
        if table.contains_key(word) {
            return Err(format!("{of}{word}: has no place in a proxy: {why}"));
        }
    }
    let options = table.clone().try_into::<ClientOptions>();
    let mut options = options.map_err(|error| {
        let own = "nodes, source, connections, on_failure, dual_read_s, distribution, hash_tags";
        format!("pools.{name}: {}; and {own}", error.message().trim_end())
    })?;
    let mut placement = Placement::from(distribution.unwrap_or_default());
    if let Some(on) = hash_tags {
        placement = placement.hash_tags(on);
    }
    options = options.placement(placement);
    Ok(PoolSpec {
        name,
        from,
        connections: connections.unwrap_or(1) as usize,
        misses: misses.unwrap_or(false),
        dual_read: Duration::from_secs(dual_read_s.unwrap_or(300) as u64),
        options,
        table: whole,
    })
}

fn route(at: usize, value: Value, pools: &[PoolSpec]) -> Result<RouteSpec, String> {
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
    let named = take(&of, table, "pool", "the name of a pool", text)?;
    let named =
        named.ok_or_else(|| format!("{of}pool: is not there: a route needs the name of a pool"))?;
    let Some(pool) = pools.iter().position(|pool| pool.name == named) else {
        let names: Vec<&str> = pools.iter().map(|pool| &pool.name[..]).collect();
        return Err(format!(
            "{of}pool: there is no pool {named:?}; pools are {}",
            names.join(", ")
        ));
    };
    nothing_left(&of, table, "prefix, pool")?;
    Ok(RouteSpec {
        prefix: prefix.unwrap_or_default().into_bytes(),
        pool,
    })
}
