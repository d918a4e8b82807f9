//! etcd 3 by its JSON gateway (<https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>): keys and values in base64, 64-bit
//! numbers as strings.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::Http;
use crate::{Engine, Error, Member};

/// A ring in etcd: the keys `ring/NAME`.
#[derive(Debug)]
pub(crate) struct Etcd {
    http: Http,
    /// With the slash behind it.
    prefix: String,
    lease: Option<String>,
}

impl Etcd {
    pub(crate) fn new(servers: Vec<String>, ring: String) -> Self {
        Etcd {
            http: Http::new(servers),
            prefix: ring + "/",
            lease: None,
        }
    }

    /// Writes a member down under a lease.
    fn put(&mut self, member: &Member, lease: &str) -> Result<(), Error> {
        let key = STANDARD.encode(format!("{}{}", self.prefix, member.name));
        let value = STANDARD.encode(member.to_json().to_string());
        let put = json!({ "key": key, "value": value, "lease": lease });
        self.http.post("/v3/kv/put", &put).map(drop)
    }

    /// Beginning and end of the ring's keys.
    fn range(&self) -> (String, String) {
        // The byte behind the slash: what comes after all that begins with the prefix.
        let end = format!("{}0", self.prefix.trim_end_matches('/'));
        (STANDARD.encode(&self.prefix), STANDARD.encode(end))
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

fn decoded(value: &Value) -> Option<String> {
    String::from_utf8(STANDARD.decode(value.as_str()?).ok()?).ok()
}

fn malformed(what: &str) -> Error {
    Error::Malformed(format!("etcd's answer has no {what}"))
}

/// The members in the answer to a question for a range, and the moment.
pub(crate) fn listed(answer: &Value, prefix: &str) -> Result<(Vec<Member>, u64), Error> {
    let revision = number(&answer["header"]["revision"]).ok_or_else(|| malformed("revision"))?;
    let pairs = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice);
    let mut members = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let key = decoded(&pair["key"]).unwrap_or_default();
        let Some(name) = key.strip_prefix(prefix) else {
            continue;
        };
        match decoded(&pair["value"]).and_then(|value| Member::read(name, &value)) {
            Some(member) => members.push(member),
            // One bad key is no reason to lose the others.
            None => log::warn!("etcd: {key:?} is no member and is left out"),
        }
    }
    Ok((members, revision))
}

impl Engine for Etcd {
    fn list(&mut self) -> Result<(Vec<Member>, u64), Error> {
        let (key, range_end) = self.range();
        let answer = self.http.post(
            "/v3/kv/range",
            &json!({ "key": key, "range_end": range_end }),
        )?;
        listed(&answer, &self.prefix)
    }

    fn changed_since(&mut self, revision: u64, at_most: Duration) -> Result<bool, Error> {
        let (key, range_end) = self.range();
        let from = (revision + 1).to_string();
        let create = json!({ "key": key, "range_end": range_end, "start_revision": from });
        let body = json!({ "create_request": create });
        let changed = self.http.stream("/v3/watch", &body, at_most, |answer| {
            let result = &answer["result"];
            let has_events = result["events"]
                .as_array()
                .is_some_and(|all| !all.is_empty());
            // It can end a watch, for instance because the revision was compacted: then the list is asked for anew.
            let has_ended = result["canceled"] == json!(true) || answer.get("error").is_some();
            (has_events || has_ended).then_some(true)
        })?;
        Ok(changed.unwrap_or(false))
    }

    fn register(&mut self, member: &Member, lease: Duration) -> Result<(), Error> {
        let old = self.lease.take();
        let seconds = lease.as_secs().max(1);
        let granted = self
            .http
            .post("/v3/lease/grant", &json!({ "TTL": seconds }))?;
        let id = granted["ID"]
            .as_str()
            .ok_or_else(|| malformed("ID"))?
            .to_owned();
        self.lease = Some(id.clone());
        self.put(member, &id)?;
        if let Some(old) = old {
            // The key has the new lease by now; the old one would end by itself.
            let _ = self.http.post("/v3/lease/revoke", &json!({ "ID": old }));
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<bool, Error> {
        let Some(id) = &self.lease else {
            return Ok(false);
        };
        let answer = self
            .http
            .post("/v3/lease/keepalive", &json!({ "ID": id }))?;
        // Without a time to live the lease is no more.
        Ok(number(&answer["result"]["TTL"]).is_some_and(|ttl| ttl > 0))
    }

    fn rewrite(&mut self, member: &Member) -> Result<(), Error> {
        let key = STANDARD.encode(format!("{}{}", self.prefix, member.name));
        let value = STANDARD.encode(member.to_json().to_string());
        // A key that is gone meanwhile does not come back by it.
        let put = json!({ "key": key, "value": value, "ignore_lease": true });
        self.http.post("/v3/kv/put", &put).map(drop)
    }

    fn leave(&mut self, member: &Member) -> Result<(), Error> {
        match self.lease.take() {
            Some(id) => self.put(member, &id),
            None => Ok(()),
        }
    }
}
