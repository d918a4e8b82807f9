//! Meta commands as the caller writes them, for what the methods have no word for, and the replies to them.

use std::fmt::{self, Write as _};

use bytes::Bytes;

use crate::reply::Meta;

/// The flags that the client sets itself: the key's encoding, the tag by which it knows the reply, and that there is one.
const OWN_FLAGS: [char; 4] = ['b', 'O', 'k', 'q'];

/// A meta command: `mg`, `ms`, `md` or `ma`. See `Client::meta`.
#[doc(alias = "Raw")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it is to be sent"]
pub struct MetaRequest {
    #[doc(hidden)]
    pub verb: &'static str,
    #[doc(hidden)]
    pub key: Vec<u8>,
    /// Each with a space before it.
    #[doc(hidden)]
    pub flags: String,
    /// Of `ms`.
    #[doc(hidden)]
    pub value: Option<Bytes>,
    #[doc(hidden)]
    pub fault: Option<String>,
}

impl MetaRequest {
    fn new(verb: &'static str, key: impl AsRef<[u8]>, value: Option<Bytes>) -> Self {
        MetaRequest {
            verb,
            key: key.as_ref().to_vec(),
            flags: String::new(),
            value,
            fault: None,
        }
    }

    /// `mg`: reads, touches, takes a lease.
    pub fn get(key: impl AsRef<[u8]>) -> Self {
        MetaRequest::new("mg", key, None)
    }

    /// `ms`: stores.
    pub fn set(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        MetaRequest::new("ms", key, Some(value.into()))
    }

    /// `md`: deletes, or marks as stale.
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        MetaRequest::new("md", key, None)
    }

    /// `ma`: counts.
    pub fn arithmetic(key: impl AsRef<[u8]>) -> Self {
        MetaRequest::new("ma", key, None)
    }

    /// With this flag, and what stands right behind its letter: `v`, `T60`. `b`, `O`, `k` and `q` are the client's own.
    pub fn flag(mut self, flag: impl AsRef<str>) -> Self {
        let flag = flag.as_ref();
        let mut letters = flag.chars();
        let good = letters
            .next()
            .is_some_and(|letter| letter.is_ascii_alphabetic() && !OWN_FLAGS.contains(&letter))
            && letters.all(|letter| letter.is_ascii_graphic());
        if good {
            self.flags.push(' ');
            self.flags.push_str(flag);
        } else {
            let fault = self.fault.get_or_insert_default();
            // Writing into a String cannot fail.
            let _ = write!(fault, "{flag:?} is no flag that a caller may set. ");
        }
        self
    }

    /// The reply that `meta` is to it.
    #[doc(hidden)]
    pub fn reply(&self, meta: Meta) -> MetaReply {
        let mut flags = String::new();
        let mut show = |shown: fmt::Arguments<'_>| {
            // Writing into a String cannot fail.
            let _ = flags.write_fmt(shown);
        };
        for flag in self.flags.split(' ') {
            match flag {
                "f" => show(format_args!(" f{}", meta.flags)),
                "c" => show(format_args!(" c{}", meta.cas)),
                "t" => show(format_args!(" t{}", meta.ttl.unwrap_or(-1))),
                _ => {}
            }
        }
        if let Some(others) = &meta.others {
            show(format_args!("{}", String::from_utf8_lossy(others)));
        }
        for (mark, set) in [("W", meta.won), ("X", meta.stale), ("Z", meta.won_by_other)] {
            if set {
                show(format_args!(" {mark}"));
            }
        }
        MetaReply {
            outcome: MetaOutcome::Done,
            value: meta.value,
            flags,
        }
    }

    /// True if doing it twice does no harm.
    #[doc(hidden)]
    pub fn is_repeatable(&self) -> bool {
        self.verb == "mg"
    }
}

/// What became of a meta command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetaOutcome {
    /// `HD`, or `VA` if there is a value.
    Done,
    /// `EN` or `NF`: the key is not there.
    Missing,
    /// `NS`.
    NotStored,
    /// `EX`: the CAS unique is another one.
    Exists,
}

/// The reply to a [`MetaRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaReply {
    /// What became of it.
    pub outcome: MetaOutcome,
    /// The value, if `v` asked for it; as it is stored, packed if the client compresses.
    pub value: Bytes,
    #[doc(hidden)]
    pub flags: String,
}

impl MetaReply {
    #[doc(hidden)]
    pub fn without_item(outcome: MetaOutcome) -> Self {
        MetaReply {
            outcome,
            value: Bytes::new(),
            flags: String::new(),
        }
    }

    /// What stands behind this letter in the reply: `""` for a mark alone (`W`, `X`, `Z`), `None` if it is not there.
    pub fn flag(&self, letter: char) -> Option<&str> {
        let mut flags = self.flags.split(' ');
        flags.find_map(|flag| flag.strip_prefix(letter))
    }
}
