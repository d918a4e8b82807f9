//! Nodes and options in configuration files (feature `serde`).
//!
//! A node is text, as [`Node`] is written. Options are a table; what is left out has its default, and a word that is none is an error:
//!
//! ```
//! # // JSON here, and whatever else serde reads.
//! use ketch_client::{ClientOptions, Node};
//!
//! let options: ClientOptions = serde_json::from_str(r#"{
//!     "copies": 2,
//!     "ack": "quorum",
//!     "request_timeout_ms": 250,
//!     "default_ttl_s": 3600,
//!     "prefix": "shop:"
//! }"#)?;
//! let nodes: Vec<Node> = serde_json::from_str(r#"["cache1:11211", "cache2:11211:2@rack-b"]"#)?;
//! assert_eq!(serde_json::to_string(&nodes)?, r#"["cache1:11211","cache2:11211:2@rack-b"]"#);
//! assert!(serde_json::from_str::<ClientOptions>(r#"{"copys": 2}"#).is_err());
//!
//! // As PHP with libmemcached's consistent hashing off, and with values kept near for half a second.
//! let words = r#"{"placement": "modula", "near_cache_ttl_ms": 500, "compress_above_bytes": 4096}"#;
//! let other: ClientOptions = serde_json::from_str(words)?;
//! assert_eq!(serde_json::to_value(&other)?["placement"], "modula");
//!
//! // What is written is read again; a login is not written.
//! let written = serde_json::to_value(&options)?;
//! assert_eq!((&written["ack"], &written["copies"]), (&"quorum".into(), &2.into()));
//! let again: ClientOptions = serde_json::from_value(written.clone())?;
//! assert_eq!(serde_json::to_value(&again)?, written);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! | word | option |
//! | --- | --- |
//! | `copies`, `retries`, `eject_after`, `missed_keys_max`, `pool_connections_max`, `origin` | numbers, as the method of that name |
//! | `request_timeout_ms`, `attempt_timeout_ms`, `connect_timeout_ms`, `retry_pause_ms`, `eject_window_ms`, `probe_after_ms`, `probe_after_max_ms`, `settle_ms` | milliseconds, as the method without `_ms` |
//! | `ack` | `none`, `one`, `quorum`, `all` |
//! | `on_ejection` | `rehash`, `fail_fast` |
//! | `reads` | `first`, `spread`; with `hedge_after_ms`, [`Reads::Hedged`] |
//! | `read_repair`, `long_binary_keys`, `hash_long_keys`, `errors_as_misses` | true or false |
//! | `default_ttl_s` | seconds |
//! | `ttl_jitter`, `eject_share` | 0 to 1 |
//! | `prefix` | text |
//! | `placement` | a [`Distribution`], as it is called in quotes there; with `keep_port` and `hash_tags`, true or false, as the methods of [`Placement`] |
//! | `near_cache_ttl_ms` | milliseconds: turns the [`NearCache`] on; with it `near_cache_bytes_max` and `near_cache_value_bytes_max`, as its methods |
//! | `compress_above_bytes` | turns compression on (feature `lz4`), for values of more bytes |
//! | `user`, `password` | [`ClientOptions::login`] |

use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::continuum::{Distribution, Placement};
use crate::node::Node;
use crate::options::{Ack, ClientOptions, NearCache, OnEjection, Reads};

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a node: host[:port[:weight]][@zone]")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Node, E> {
                let node = text.parse();
                node.map_err(|error| E::custom(format_args!("{text}: {error}")))
            }
        }

        from.deserialize_str(Text)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AckWord {
    None,
    One,
    Quorum,
    All,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReadsWord {
    First,
    Spread,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EjectionWord {
    Rehash,
    FailFast,
}

/// See the module.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(skip_serializing_if = "Option::is_none")]
    copies: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<AckWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reads: Option<ReadsWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hedge_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_repair: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_ejection: Option<EjectionWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_pause_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eject_after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eject_window_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eject_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_after_max_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settle_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed_keys_max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_connections_max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    long_binary_keys: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_long_keys: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors_as_misses: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_ttl_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_jitter: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_port: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_tags: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    near_cache_ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    near_cache_bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    near_cache_value_bytes_max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compress_above_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

/// All words but the login, whose password belongs in no file that is written by chance. TLS, metrics and the observer of nodes have no
/// word, nor has the bit of compressed values.
impl Serialize for ClientOptions {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let ms = |time: Duration| Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        #[cfg(feature = "long-keys")]
        let hash_long_keys = Some(self.hash_long_keys);
        #[cfg(not(feature = "long-keys"))]
        let hash_long_keys = None;
        let (reads, hedge_after_ms) = match self.reads {
            Reads::First => (Some(ReadsWord::First), None),
            Reads::Spread => (Some(ReadsWord::Spread), None),
            Reads::Hedged(after) => (None, ms(after)),
        };
        let prefix = std::str::from_utf8(&self.prefix)
            .map_err(|_| serde::ser::Error::custom("the prefix is no text"))?;
        let (distribution, keep_port, hash_tags) = self.placement.words();
        #[cfg(feature = "lz4")]
        let compress_above_bytes = self.compression.as_ref().map(|one| one.threshold_bytes);
        #[cfg(not(feature = "lz4"))]
        let compress_above_bytes = None;
        let table = Table {
            copies: Some(self.copies),
            ack: Some(match self.ack {
                Ack::None => AckWord::None,
                Ack::One => AckWord::One,
                Ack::Quorum => AckWord::Quorum,
                Ack::All => AckWord::All,
            }),
            reads,
            hedge_after_ms,
            zone: self.zone.as_deref().map(str::to_owned),
            read_repair: Some(self.read_repair),
            on_ejection: Some(match self.on_ejection {
                OnEjection::Rehash => EjectionWord::Rehash,
                OnEjection::FailFast => EjectionWord::FailFast,
            }),
            request_timeout_ms: ms(self.request_timeout),
            attempt_timeout_ms: ms(self.attempt_timeout),
            connect_timeout_ms: ms(self.connect_timeout),
            retries: Some(self.retries),
            retry_pause_ms: ms(self.retry_pause),
            eject_after: Some(self.eject_after),
            eject_window_ms: ms(self.eject_window),
            eject_share: Some(self.eject_share),
            probe_after_ms: ms(self.probe_after),
            probe_after_max_ms: ms(self.probe_after_max),
            settle_ms: ms(self.settle),
            missed_keys_max: Some(self.missed_keys_max),
            pool_connections_max: Some(self.pool_connections_max),
            long_binary_keys: Some(self.long_binary_keys),
            hash_long_keys,
            errors_as_misses: Some(self.errors_as_misses),
            origin: Some(self.origin),
            default_ttl_s: self.default_ttl.map(|ttl| ttl.as_secs()),
            ttl_jitter: Some(self.ttl_jitter),
            prefix: Some(prefix.to_owned()),
            placement: Some(distribution.to_string()),
            keep_port: Some(keep_port),
            hash_tags: Some(hash_tags),
            near_cache_ttl_ms: self.near_cache.and_then(|near| ms(near.ttl)),
            near_cache_bytes_max: self.near_cache.map(|near| near.bytes_max),
            near_cache_value_bytes_max: self.near_cache.map(|near| near.value_bytes_max),
            compress_above_bytes,
            user: None,
            password: None,
        };
        table.serialize(to)
    }
}

impl<'de> Deserialize<'de> for ClientOptions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let table = Table::deserialize(from)?;
        let mut options = ClientOptions::default();
        macro_rules! as_they_are {
            ($($word:ident)*) => {
                $(if let Some(value) = table.$word {
                    options = options.$word(value);
                })*
            };
        }
        macro_rules! milliseconds {
            ($($word:ident $name:ident,)*) => {
                $(if let Some(ms) = table.$word {
                    options = options.$name(Duration::from_millis(ms));
                })*
            };
        }
        as_they_are!(copies read_repair retries eject_after eject_share missed_keys_max pool_connections_max);
        as_they_are!(long_binary_keys errors_as_misses origin ttl_jitter prefix);
        milliseconds! {
            request_timeout_ms request_timeout,
            attempt_timeout_ms attempt_timeout,
            connect_timeout_ms connect_timeout,
            retry_pause_ms retry_pause,
            eject_window_ms eject_window,
            probe_after_ms probe_after,
            probe_after_max_ms probe_after_max,
            settle_ms settle,
        }
        if let Some(seconds) = table.default_ttl_s {
            options = options.default_ttl(Duration::from_secs(seconds));
        }
        options = options.ack(match table.ack {
            Some(AckWord::None) => Ack::None,
            Some(AckWord::One) => Ack::One,
            Some(AckWord::Quorum) => Ack::Quorum,
            Some(AckWord::All) | None => Ack::All,
        });
        options = options.on_ejection(match table.on_ejection {
            Some(EjectionWord::FailFast) => OnEjection::FailFast,
            Some(EjectionWord::Rehash) | None => OnEjection::Rehash,
        });
        options = options.reads(match (table.reads, table.hedge_after_ms) {
            (None, Some(ms)) => Reads::Hedged(Duration::from_millis(ms)),
            (Some(_), Some(_)) => {
                return Err(D::Error::custom("hedge_after_ms goes without reads"));
            }
            (Some(ReadsWord::Spread), None) => Reads::Spread,
            (Some(ReadsWord::First) | None, None) => Reads::First,
        });
        if let Some(zone) = table.zone {
            options = options.zone(zone);
        }
        match (table.user, table.password) {
            (Some(user), Some(password)) => options = options.login(user, password),
            (None, None) => {}
            _ => return Err(D::Error::custom("user and password go together")),
        }
        let distribution = match table.placement.as_deref() {
            None => Distribution::default(),
            Some(name) => name.parse().map_err(|_| {
                let all = Distribution::ALL.map(|one| one.to_string()).join(", ");
                D::Error::custom(format_args!("placement {name:?} is none of {all}"))
            })?,
        };
        let placement = Placement::from(distribution)
            .keep_port(table.keep_port == Some(true))
            .hash_tags(table.hash_tags == Some(true));
        options = options.placement(placement);
        if let Some(ms) = table.near_cache_ttl_ms {
            let mut near = NearCache::new(Duration::from_millis(ms));
            near.bytes_max = table.near_cache_bytes_max.unwrap_or(near.bytes_max);
            let value_bytes_max = table.near_cache_value_bytes_max;
            near.value_bytes_max = value_bytes_max.unwrap_or(near.value_bytes_max);
            options = options.near_cache(near);
        } else if table.near_cache_bytes_max.is_some() || table.near_cache_value_bytes_max.is_some()
        {
            return Err(D::Error::custom("the near cache needs near_cache_ttl_ms"));
        }
        #[cfg(feature = "lz4")]
        if let Some(bytes) = table.compress_above_bytes {
            let compression = crate::compression::Compression::default();
            options = options.compression(compression.threshold_bytes(bytes));
        }
        #[cfg(not(feature = "lz4"))]
        if table.compress_above_bytes.is_some() {
            return Err(D::Error::custom(
                "compress_above_bytes needs the feature lz4",
            ));
        }
        #[cfg(feature = "long-keys")]
        if let Some(hash) = table.hash_long_keys {
            options = options.hash_long_keys(hash);
        }
        #[cfg(not(feature = "long-keys"))]
        if table.hash_long_keys == Some(true) {
            return Err(D::Error::custom(
                "hash_long_keys needs the feature long-keys",
            ));
        }
        Ok(options)
    }
}
