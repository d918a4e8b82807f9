//! A server as the engine has it written down.

use std::fmt;

use serde_json::{Value, json};

/// A server of the ring.
///
/// Its value in the engine is JSON, `{"address":"10.0.0.7:11211","weight":1,"zone":"a","version":"0.1.0"}`, of which the address alone
/// must be there; or, for those who write it by hand, the address by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// What placement calls it: it keeps its keys under another address.
    pub name: String,
    /// A name or an address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Share of the keys relative to the others; 0 for one that waits to be filled.
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<String>,
    /// The version of the program.
    pub version: Option<String>,
    /// It says goodbye: it is to be asked no more. It is drained, or its lease ends soon.
    pub leaving: bool,
}

impl fmt::Display for Member {
    /// As a node of a client is written: `[name=]host:port[:weight][@zone]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name != self.address() {
            write!(f, "{}=", self.name)?;
        }
        f.write_str(&self.address())?;
        if self.weight != 1 {
            write!(f, ":{}", self.weight)?;
        }
        match &self.zone {
            Some(zone) => write!(f, "@{zone}"),
            None => Ok(()),
        }
    }
}

impl Member {
    /// A member of weight 1 in no zone.
    pub fn new(name: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        Member {
            name: name.into(),
            host: host.into(),
            port,
            weight: 1,
            zone: None,
            version: None,
            leaving: false,
        }
    }

    /// Whether it is in the ring, or stands by: it has said goodbye, or waits to be filled.
    pub fn holds_keys(&self) -> bool {
        self.weight > 0 && !self.leaving
    }

    /// `host:port`, an IPv6 address in brackets.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The two parts of `host:port`, where an IPv6 address stands in brackets.
    pub fn split_address(address: &str) -> Option<(&str, u16)> {
        let (host, port) = address.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (is_word(host) && !host.contains(['/', '[', ']'])).then_some((host, port))
    }

    /// The value in the engine.
    pub(crate) fn to_json(&self) -> Value {
        let mut value = json!({ "address": self.address(), "weight": self.weight });
        if self.leaving {
            value["leaving"] = json!(true);
        }
        for (name, text) in [("zone", &self.zone), ("version", &self.version)] {
            if let Some(text) = text {
                value[name] = json!(text);
            }
        }
        value
    }

    /// Reads the value that stands under a name.
    pub(crate) fn read(name: &str, value: &str) -> Option<Member> {
        let value = value.trim();
        let json: Value = match value.starts_with('{') {
            true => serde_json::from_str(value).ok()?,
            false => json!({ "address": value }),
        };
        let (host, port) = Member::split_address(json["address"].as_str()?)?;
        let text = |key: &str| json[key].as_str().filter(|text| is_word(text));
        let weight = match &json["weight"] {
            Value::Null => 1,
            weight => u32::try_from(weight.as_u64()?).ok()?,
        };
        // Written before its address, such a name would be read as the path of a socket.
        let is_path = name.starts_with('/') || name.starts_with("unix:/");
        (is_word(name) && !is_path).then(|| Member {
            weight,
            zone: text("zone").map(str::to_owned),
            version: text("version").map(str::to_owned),
            leaving: json["leaving"] == json!(true),
            ..Member::new(name, host, port)
        })
    }
}

/// What may stand in a client's list of nodes.
fn is_word(text: &str) -> bool {
    let has = |c: char| c.is_control() || c.is_whitespace() || ",|@=".contains(c);
    !text.is_empty() && text.len() <= 255 && !text.contains(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let member = Member {
            weight: 3,
            zone: Some("rack-1".into()),
            version: Some("0.1.0".into()),
            leaving: true,
            ..Member::new("a", "::1", 11212)
        };
        let text = member.to_json().to_string();
        assert_eq!(Member::read("a", &text), Some(member.clone()));
        assert_eq!(member.to_string(), "a=[::1]:11212:3@rack-1");
        let by_hand = Member::read("b", "10.0.0.7:11211\n").unwrap();
        assert_eq!(by_hand, Member::new("b", "10.0.0.7", 11211));
    }

    #[test]
    fn what_is_no_member_is_left_out() {
        for value in [
            "",
            "{",
            "{}",
            "10.0.0.7",
            ":11211",
            "a:0",
            "a:65536",
            "::1:11211",
            "[::1:11211",
            "a b:1",
            "a/b:1",
            "a=b:1",
            r#"{"address":7}"#,
            r#"{"address":"a:1","weight":-1}"#,
        ] {
            assert_eq!(Member::read("a", value), None, "{value}");
        }
        for name in ["a,b", "/tmp/a", "unix:/tmp/a"] {
            assert_eq!(Member::read(name, "a:1"), None, "{name}");
        }
    }
}
