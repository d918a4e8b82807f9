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
    /// Fewer copies were written than [`Ack`](crate::options::Ack) asks for.
    Copies {
        /// Copies that took the write.
        acknowledged: usize,
        /// Copies that had to.
        wanted: usize,
    },
    /// Other callers changed the value at each attempt of `update`.
    Conflict,
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

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// It has no bytes.
    Empty,
    /// It has more than 250 bytes.
    TooLong,
    /// It needs base64 (spaces, control characters), and is longer than 250 bytes in it, which stock memcached does not
    /// accept: see [`long_binary_keys`](crate::options::ClientOptions::long_binary_keys).
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
    /// True if time ran out: the operation's, or that of an attempt at the node that failed last.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Error::Timeout
                | Error::Node {
                    failure: Failure::Timeout,
                    ..
                }
        )
    }

    /// True if nodes are to blame, or the way to them: another attempt, later, may succeed. False if the key, the value or
    /// the node's settings are.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Error::NoNode | Error::Node { .. } | Error::Copies { .. } | Error::Timeout
        )
    }

    /// True if a write may have been carried out all the same.
    pub fn may_be_done(&self) -> bool {
        match self {
            Error::Node { failure, .. } => {
                !matches!(failure, Failure::Connect | Failure::SignIn | Failure::Busy)
            }
            Error::Copies { .. } | Error::Timeout => true,
            _ => false,
        }
    }

    /// True if the value is larger than its node accepts.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Error::TooLarge { .. })
    }

    /// The node that the error is about, as `host:port`.
    pub fn node(&self) -> Option<&str> {
        match self {
            Error::TooLarge { node }
            | Error::Full { node }
            | Error::Refused { node, .. }
            | Error::Node { node, .. } => Some(node),
            _ => None,
        }
    }
}

impl Failure {
    /// True if it speaks against the node.
    #[doc(hidden)]
    pub fn counts(self) -> bool {
        self != Failure::Busy
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Key(fault) => fault.fmt(f),
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
            Error::Conflict => f.write_str("other callers changed the value each time"),
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

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyFault::Empty => "the key is empty",
            KeyFault::TooLong => "the key has more than 250 bytes",
            KeyFault::TooLongInBase64 => "the binary key has more than 250 bytes in base64",
        })
    }
}

impl std::error::Error for KeyFault {}

impl std::error::Error for Failure {}

impl std::error::Error for SignInError {}

impl std::error::Error for Error {
    /// What is wrong with the key or the node, to be looked at: its words stand in this error's already.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Key(fault) => Some(fault),
            Error::Node {
                reason: Some(reason),
                ..
            } => Some(reason),
            Error::Node { failure, .. } => Some(failure),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_of_an_error() {
        let node = |failure| Error::Node {
            node: "a:1".into(),
            failure,
            reason: None,
        };
        for (error, timeout, unavailable, may_be_done) in [
            (Error::Key(KeyFault::Empty), false, false, false),
            (Error::NoNode, false, true, false),
            (Error::Timeout, true, true, true),
            (node(Failure::Timeout), true, true, true),
            (node(Failure::Connect), false, true, false),
            (node(Failure::Closed), false, true, true),
            (Error::NotANumber, false, false, false),
        ] {
            let asked = (
                error.is_timeout(),
                error.is_unavailable(),
                error.may_be_done(),
            );
            assert_eq!(asked, (timeout, unavailable, may_be_done), "{error}");
        }
        assert_eq!(node(Failure::Busy).node(), Some("a:1"));
        let source = std::error::Error::source(&node(Failure::Closed)).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("the connection was closed"));
    }
}
