//! `[pools.NAME]`: nodes that share keys, and how they are spoken to.

use std::path::PathBuf;
use std::time::Duration;

use client_core::continuum::{Distribution, Placement};
use client_core::node::Node;
use client_core::options::ClientOptions;
use ketch_client::topology;
use toml::{Table, Value};

use super::words::{take, text, within};

/// The words of a pool, beside those of the client.
pub(super) const WORDS: &str = "nodes, source, leave_share, connections, on_failure, dual_read_s, distribution, hash_tags, tls, tls_ca, tls_name, tls_cert, tls_key";

/// The most connections of a worker to a node.
const CONNECTIONS_MAX: usize = 64;

/// `[pools.NAME]`.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct PoolSpec {
    pub(in crate::proxy) name: String,
    pub(in crate::proxy) from: From,
    /// Which share of the source's nodes may leave within half a minute, if it is said.
    pub(in crate::proxy) leave_share: Option<f64>,
    /// Connections of each worker to each node.
    pub(in crate::proxy) connections: usize,
    /// A read whose nodes do not answer is a miss.
    pub(in crate::proxy) misses: bool,
    pub(in crate::proxy) dual_read: Duration,
    /// How nodes are spoken to by TLS, if they are.
    pub(in crate::proxy) tls: Option<NodeTls>,
    pub(in crate::proxy) options: ClientOptions,
    /// As it was written.
    pub(in crate::proxy) table: Table,
}

/// TLS to the nodes of a pool.
#[derive(Debug, Clone)]
pub struct NodeTls {
    /// Who has signed their certificates: a file.
    pub ca: PathBuf,
    /// What these are to be for; else the node's host.
    pub name: Option<String>,
    /// What is shown to them: the files of a certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Where a pool's nodes come from.
#[derive(Debug, Clone)]
pub(in crate::proxy) enum From {
    List(Vec<Node>),
    Source(String),
}

/// Reads a pool. `zone` is that of this proxy, if the pool has no word of its own about it.
pub(super) fn read(name: String, value: Value, zone: Option<&str>) -> Result<PoolSpec, String> {
    let of = format!("pools.{name}.");
    let Value::Table(mut table) = value else {
        return Err(format!("pools.{name}: must be a table, [pools.{name}]"));
    };
    if let Some(zone) = zone {
        let own = table.entry("zone");
        own.or_insert_with(|| Value::String(zone.to_owned()));
    }
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
    let leave_share = take(&of, table, "leave_share", "a number from 0 to 1", |value| {
        let share = value
            .as_float()
            .or(value.as_integer().map(|whole| whole as f64))?;
        (0.0..=1.0).contains(&share).then_some(share)
    })?;
    if leave_share.is_some() && matches!(from, From::List(_)) {
        return Err(format!("{of}leave_share: has no meaning without a source"));
    }
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
    let tls = self::tls(&of, table)?;
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
    let mut options = options
        .map_err(|error| format!("pools.{name}: {}; and {WORDS}", error.message().trim_end()))?;
    let mut placement = Placement::from(distribution.unwrap_or_default());
    if let Some(on) = hash_tags {
        placement = placement.hash_tags(on);
    }
    // Clients that speak to one server know nothing of copies that are fewer than they should be.
    options = options.placement(placement).ack_live(true);
    Ok(PoolSpec {
        name,
        from,
        leave_share,
        connections: connections.unwrap_or(1) as usize,
        misses: misses.unwrap_or(false),
        dual_read: Duration::from_secs(dual_read_s.unwrap_or(300) as u64),
        tls,
        options,
        table: whole,
    })
}

/// The words about TLS.
fn tls(of: &str, table: &mut Table) -> Result<Option<NodeTls>, String> {
    let is_on = take(of, table, "tls", "true or false", |value| value.as_bool())?;
    let mut word = |word, wanted| take(of, table, word, wanted, text);
    let ca = word("tls_ca", "the path of a file")?;
    let name = word("tls_name", "the name that certificates are for")?;
    let cert = word("tls_cert", "the path of a file")?;
    let key = word("tls_key", "the path of a file")?;
    if is_on != Some(true) {
        let words = [
            ("tls_ca", &ca),
            ("tls_name", &name),
            ("tls_cert", &cert),
            ("tls_key", &key),
        ];
        return match words.iter().find(|(_, value)| value.is_some()) {
            Some((word, _)) => Err(format!("{of}{word}: has no meaning without tls = true")),
            None => Ok(None),
        };
    }
    let ca = ca.ok_or_else(|| {
        format!("{of}tls_ca: is not there: with tls = true it must name the file of who has signed the nodes' certificates")
    })?;
    let own = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert.into(), key.into())),
        (None, None) => None,
        _ => {
            return Err(format!(
                "{of}tls_cert: goes with tls_key: both must be there, or none"
            ));
        }
    };
    let ca = ca.into();
    Ok(Some(NodeTls { ca, name, own }))
}
