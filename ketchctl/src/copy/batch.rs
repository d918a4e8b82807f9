//! Keys as a source lists them, and how many of them are dealt with at once.

use protocol::{KEY_LEN_MAX, Key, base64};

/// The most of anything in a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Keys.
    pub items: f64,
    /// Bytes of their items on the source.
    pub bytes: f64,
}

/// 256 KB take less than a second on a slow line.
pub const MAX: Limit = Limit {
    items: 256.0,
    bytes: 256.0 * 1024.0,
};
/// Bytes of the requests: less than the smallest buffer of a socket, so that the source takes all of them before we read.
const REQUEST_LEN_MAX: usize = 12 * 1024;

/// A key that a source has, the bytes of its item, when it was last asked for, and whether it was read since it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: Vec<u8>,
    pub size: u64,
    pub accessed_unix_s: u32,
    pub fetched: bool,
}

impl Listed {
    /// A key of which no more is known.
    pub fn named(key: Vec<u8>) -> Listed {
        Listed {
            key,
            size: 0,
            accessed_unix_s: 0,
            fetched: false,
        }
    }

    /// A line of a metadump, `key=a%20b exp=-1 la=.. cas=.. fetch=.. cls=.. size=..`.
    pub fn parse(line: &[u8]) -> Option<Listed> {
        let mut words = line.split(|&b| b == b' ');
        let key = decode(words.next()?.strip_prefix(b"key=")?)?;
        if !(1..=KEY_LEN_MAX).contains(&key.len()) {
            return None;
        }
        let mut listed = Listed {
            key,
            size: 0,
            accessed_unix_s: 0,
            fetched: false,
        };
        // memcached ends each line with a blank.
        for word in words.filter(|word| !word.is_empty()) {
            let (name, value) = std::str::from_utf8(word).ok()?.split_once('=')?;
            match name {
                "size" => listed.size = value.parse().unwrap_or(0),
                "la" => listed.accessed_unix_s = value.parse().unwrap_or(0),
                "fetch" => listed.fetched = value == "yes",
                _ => {}
            }
        }
        Some(listed)
    }
}

/// Undoes percent encoding.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    Some(out)
}

/// Keys that are fetched with one write.
#[derive(Debug, Default)]
pub struct Batch {
    pub keys: Vec<Vec<u8>>,
    /// Bytes of their items, as listed.
    pub bytes: u64,
    /// One `mg` a key, its index as opaque.
    pub request: Vec<u8>,
}

impl Batch {
    /// Takes `listed`, unless the batch would grow beyond `limit`; an empty one takes any.
    pub fn push(&mut self, listed: Listed, limit: Limit) -> Result<(), Listed> {
        let full = (self.keys.len() + 1) as f64 > limit.items
            || (self.bytes + listed.size) as f64 > limit.bytes
            || self.request.len() > REQUEST_LEN_MAX;
        if full && !self.keys.is_empty() {
            return Err(listed);
        }
        // Value, client flags, time to live, CAS unique; `u`: the LRU of the source is for its clients.
        let flags = format!("v f t c u O{}", self.keys.len());
        put_command(&mut self.request, "mg", &listed.key, &flags);
        self.bytes += listed.size;
        self.keys.push(listed.key);
        Ok(())
    }
}

/// A meta command for `key`.
pub fn put_command(out: &mut Vec<u8>, verb: &str, key: &[u8], flags: &str) {
    out.extend_from_slice(verb.as_bytes());
    out.push(b' ');
    let binary = Key::plain(key).needs_base64();
    if binary {
        base64::encode(key, out);
    } else {
        out.extend_from_slice(key);
    }
    out.push(b' ');
    out.extend_from_slice(flags.as_bytes());
    out.extend_from_slice(if binary { b" b\r\n" } else { b"\r\n" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_metadump() {
        let listed = |line: &str| Listed::parse(line.as_bytes());
        let some = |key: &[u8], size| {
            Some(Listed {
                key: key.to_vec(),
                size,
                accessed_unix_s: if size == 65 { 7 } else { 0 },
                fetched: size == 1,
            })
        };
        for (line, expected) in [
            (
                "key=a exp=-1 la=7 cas=1 fetch=no cls=1 size=65 flags=0 ",
                some(b"a", 65),
            ),
            (
                "key=%01%C3%a9%25 exp=5 fetch=yes size=1 flags=3",
                some(b"\x01\xc3\xa9%", 1),
            ),
            ("key=a+b", some(b"a+b", 0)),
            ("key=", None),
            ("key=%0", None),
            ("key=%zz", None),
            ("exp=1 key=a", None),
            ("", None),
        ] {
            assert_eq!(listed(line), expected, "{line}");
        }
        assert_eq!(listed(&format!("key={}", "k".repeat(251))), None);
    }

    #[test]
    fn batches_are_bounded() {
        let listed = |key: &[u8], size| Listed {
            key: key.to_vec(),
            size,
            accessed_unix_s: 0,
            fetched: false,
        };
        let mut batch = Batch::default();
        let limit = Limit {
            items: 2.0,
            bytes: 100.0,
        };
        batch.push(listed(b"large", 1000), limit).unwrap();
        batch.push(listed(b"b", 1), limit).unwrap_err();
        let mut batch = Batch::default();
        batch.push(listed(b"a", 1), limit).unwrap();
        batch.push(listed(b"b b", 99), limit).unwrap();
        batch.push(listed(b"c", 0), limit).unwrap_err();
        assert_eq!(
            batch.request,
            b"mg a v f t c u O0\r\nmg YiBi v f t c u O1 b\r\n"
        );
        assert_eq!(batch.bytes, 100);
        let mut batch = Batch::default();
        let mut key = vec![0; KEY_LEN_MAX];
        while batch.push(listed(&key, 1), MAX).is_ok() {
            key[0] += 1;
        }
        assert!(batch.request.len() < 13 * 1024 && batch.keys.len() > 30);
    }
}
