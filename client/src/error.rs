//! What can go wrong. A miss, a key that was there already and a CAS conflict are no errors but results.

use std::fmt;
use std::sync::Arc;

/// The result of everything that asks a node.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation has no result.
///
/// After [`Node`](Error::Node), [`Timeout`](Error::Timeout) and [`Copies`](Error::Copies) a write may have been carried
/// out or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The key cannot be sent; no node was asked.
    Key(KeyFault),
    /// The client has no node, or all that this key may live on are ejected.
    NoNode,
    /// The value is larger than the node accepts. What the key held before is gone.
    TooLarge {
        /// The node, as `host:port`.
        node: Arc<str>,
    },
    /// The node has no memory for the value and evicts nothing. What the key held before is gone.
    Full {
        /// The node, as `host:port`.
        node: Arc<str>,
    },
    /// The value is no decimal number below 2^64, so that it cannot be counted with.
    NotANumber,
    /// The value cannot be encoded, decoded or unpacked: why.
    Value(Arc<str>),
    /// The node refuses for another reason.
    Refused {
        /// The node, as `host:port`.
        node: Arc<str>,
        /// Its words.
        line: Arc<str>,
    },
    /// The node is broken: no connection, no answer, or no answer that makes sense.
    Node {
        /// The node, as `host:port`.
        node: Arc<str>,
        /// What is wrong with it.
        failure: Failure,
        /// Why it does not let the client in, if that is what is wrong.
        reason: Option<SignInError>,
    },
    /// Fewer copies were written than [`Ack`](crate::Ack) asks for.
    Copies {
        /// Copies that took the write.
        acknowledged: usize,
        /// Copies that had to.
        wanted: usize,
    },
    /// The deadline of the operation passed.
    Timeout,
}

/// Why a node does not let the client in. Passwords are not told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignInError {
    /// TLS: the certificate, its authority or name, or that the node speaks none.
    Tls {
        /// The name that the certificate was to be for.
        name: Arc<str>,
        /// What is wrong, in the words of the TLS library.
        reason: Arc<str>,
    },
    /// The login.
    Login {
        /// Who was to be logged in.
        user: Arc<str>,
        /// The node's words.
        line: Arc<str>,
    },
}

impl fmt::Display for SignInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignInError::Tls { name, reason } => write!(f, "TLS with {name:?}: {reason}"),
            SignInError::Login { user, line } => write!(f, "login as {user:?}: {line}"),
        }
    }
}

impl std::error::Error for SignInError {}

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// It has no bytes.
    Empty,
    /// It has more than 250 bytes.
    TooLong,
    /// It needs base64 (spaces, control characters), and is longer than 250 bytes in it, which stock memcached does not
    /// accept: see [`long_binary_keys`](crate::ClientOptions::long_binary_keys).
    TooLongInBase64,
}

/// How an exchange with a node failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// Its name does not resolve, it refuses the connection, or does not accept it in time.
    Connect,
    /// TLS or the login failed.
    SignIn,
    /// It closed the connection.
    Closed,
    /// It did not answer in time.
    Timeout,
    /// It answered what is no answer to what was asked.
    Garbage,
    /// All connections that the pool may hold were busy: the client's fault, not the node's.
    Busy,
}

impl Error {
    /// True if the nodes are at fault, whatever the key.
    pub(crate) fn is_of_nodes(&self) -> bool {
        matches!(
            self,
            Error::NoNode | Error::Node { .. } | Error::Copies { .. } | Error::Timeout
        )
    }
}

impl Failure {
    /// True if it speaks against the node.
    pub(crate) fn counts(self) -> bool {
        self != Failure::Busy
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Key(KeyFault::Empty) => f.write_str("the key is empty"),
            Error::Key(KeyFault::TooLong) => f.write_str("the key has more than 250 bytes"),
            Error::Key(KeyFault::TooLongInBase64) => {
                f.write_str("the binary key has more than 250 bytes in base64")
            }
            Error::NoNode => f.write_str("no node is left for the key"),
            Error::TooLarge { node } => write!(f, "{node}: the value is too large"),
            Error::Full { node } => write!(f, "{node}: out of memory"),
            Error::NotANumber => f.write_str("the value is not a number"),
            Error::Value(why) => f.write_str(why),
            Error::Refused { node, line } => write!(f, "{node}: {line}"),
            Error::Node {
                node,
                reason: Some(reason),
                ..
            } => write!(f, "{node}: {reason}"),
            Error::Node { node, failure, .. } => write!(f, "{node}: {failure}"),
            Error::Copies {
                acknowledged,
                wanted,
            } => write!(f, "{acknowledged} copies written instead of {wanted}"),
            Error::Timeout => f.write_str("the deadline passed"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Connect => "cannot connect",
            Failure::SignIn => "TLS or the login failed",
            Failure::Closed => "the connection was closed",
            Failure::Timeout => "no answer in time",
            Failure::Garbage => "not an answer to what was asked",
            Failure::Busy => "all connections are busy",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Node { reason, .. } => reason.as_ref().map(|reason| reason as _),
            _ => None,
        }
    }
}
