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
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! | word | option |
//! | --- | --- |
//! | `copies`, `retries`, `eject_after`, `missed_keys_max`, `pool_connections_max` | numbers, as the method of that name |
//! | `request_timeout_ms`, `attempt_timeout_ms`, `connect_timeout_ms`, `retry_pause_ms`, `eject_window_ms`, `probe_after_ms`, `probe_after_max_ms`, `settle_ms` | milliseconds, as the method without `_ms` |
//! | `ack` | `none`, `one`, `quorum`, `all` |
//! | `on_ejection` | `rehash`, `fail_fast` |
//! | `reads` | `first`, `spread`; with `hedge_after_ms`, [`Reads::Hedged`] |
//! | `read_repair`, `long_binary_keys`, `hash_long_keys`, `errors_as_misses` | true or false |
//! | `default_ttl_s` | seconds |
//! | `ttl_jitter` | 0 to 1 |
//! | `prefix` | text |
//! | `user`, `password` | [`ClientOptions::login`] |

use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::node::Node;
use crate::options::{Ack, ClientOptions, OnEjection, Reads};

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

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum AckWord {
    None,
    One,
    Quorum,
    All,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReadsWord {
    First,
    Spread,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum EjectionWord {
    Rehash,
    FailFast,
}

/// See the module.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    copies: Option<usize>,
    ack: Option<AckWord>,
    reads: Option<ReadsWord>,
    hedge_after_ms: Option<u64>,
    read_repair: Option<bool>,
    on_ejection: Option<EjectionWord>,
    request_timeout_ms: Option<u64>,
    attempt_timeout_ms: Option<u64>,
    connect_timeout_ms: Option<u64>,
    retries: Option<u32>,
    retry_pause_ms: Option<u64>,
    eject_after: Option<u32>,
    eject_window_ms: Option<u64>,
    probe_after_ms: Option<u64>,
    probe_after_max_ms: Option<u64>,
    settle_ms: Option<u64>,
    missed_keys_max: Option<usize>,
    pool_connections_max: Option<usize>,
    long_binary_keys: Option<bool>,
    hash_long_keys: Option<bool>,
    errors_as_misses: Option<bool>,
    default_ttl_s: Option<u64>,
    ttl_jitter: Option<f64>,
    prefix: Option<String>,
    user: Option<String>,
    password: Option<String>,
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
        as_they_are!(copies read_repair retries eject_after missed_keys_max pool_connections_max);
        as_they_are!(long_binary_keys errors_as_misses ttl_jitter prefix);
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
        match (table.user, table.password) {
            (Some(user), Some(password)) => options = options.login(user, password),
            (None, None) => {}
            _ => return Err(D::Error::custom("user and password go together")),
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
