//! Consul by its HTTP interface (<https://developer.hashicorp.com/consul/api-docs>): a service with a check that the member
//! itself passes, and blocking queries.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Http;
use crate::{Engine, Error, Member};

/// A ring in Consul: the instances of a service.
#[derive(Debug)]
pub(crate) struct Consul {
    http: Http,
    service: String,
    registered: Option<(String, Duration)>,
}

impl Consul {
    pub(crate) fn new(servers: Vec<String>, service: String) -> Self {
        Consul {
            http: Http::new(servers),
            service,
            registered: None,
        }
    }

    fn health(&mut self, index: u64, at_most: Duration) -> Result<(Value, u64), Error> {
        let path = format!(
            "/v1/health/service/{}?passing=true&index={index}&wait={}ms",
            self.service,
            at_most.as_millis()
        );
        let answer = self.http.get(&path, at_most, "X-Consul-Index")?;
        let index = answer.header.and_then(|index| index.parse().ok());
        let index = index.ok_or_else(|| Error::Malformed("Consul tells no index".to_owned()))?;
        Ok((answer.json, index))
    }
}

/// The members in an answer about a service's health.
pub(crate) fn listed(answer: &Value) -> Vec<Member> {
    let entries = answer.as_array().map_or(&[][..], Vec::as_slice);
    entries.iter().filter_map(member).collect()
}

/// One instance of a service.
fn member(entry: &Value) -> Option<Member> {
    let service = &entry["Service"];
    let name = service["ID"].as_str()?;
    let host = service["Address"].as_str().filter(|host| !host.is_empty());
    let host = host.or_else(|| entry["Node"]["Address"].as_str())?;
    let port = service["Port"].as_u64()?;
    let meta = &service["Meta"];
    let weight = meta["weight"]
        .as_str()
        .and_then(|weight| weight.parse().ok());
    let leaving = meta["leaving"] == json!("true");
    let mut value = json!({ "leaving": leaving, "weight": weight.unwrap_or(1u32), "zone": meta["zone"], "version": meta["version"] });
    value["address"] = match host.contains(':') {
        true => json!(format!("[{host}]:{port}")),
        false => json!(format!("{host}:{port}")),
    };
    Member::read(name, &value.to_string())
}

impl Engine for Consul {
    fn list(&mut self) -> Result<(Vec<Member>, u64), Error> {
        let (entries, revision) = self.health(0, Duration::ZERO)?;
        Ok((listed(&entries), revision))
    }

    fn changed_since(&mut self, revision: u64, at_most: Duration) -> Result<bool, Error> {
        let (_, index) = self.health(revision, at_most)?;
        // An index that falls is one that began anew: the list is asked for again.
        Ok(index != revision)
    }

    fn register(&mut self, member: &Member, lease: Duration) -> Result<(), Error> {
        let mut meta =
            json!({ "weight": member.weight.to_string(), "leaving": member.leaving.to_string() });
        for (name, text) in [("zone", &member.zone), ("version", &member.version)] {
            if let Some(text) = text {
                meta[name] = json!(text);
            }
        }
        let check = json!({
            "CheckID": format!("service:{}", member.name),
            "TTL": format!("{}ms", lease.as_millis()),
            "Status": "passing",
            // Consul's least.
            "DeregisterCriticalServiceAfter": "1m",
        });
        let service = json!({
            "ID": member.name, "Name": self.service, "Address": member.host, "Port": member.port,
            "Meta": meta, "Check": check,
        });
        self.http.put("/v1/agent/service/register", &service)?;
        self.registered = Some((member.name.clone(), lease));
        Ok(())
    }

    fn keep(&mut self) -> Result<bool, Error> {
        let Some((name, _)) = &self.registered else {
            return Ok(false);
        };
        match self
            .http
            .put(&format!("/v1/agent/check/pass/service:{name}"), &json!({}))
        {
            Ok(_) => Ok(true),
            // An agent that was begun anew does not know the check.
            Err(Error::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rewrite(&mut self, member: &Member) -> Result<(), Error> {
        Err(Error::Refused(format!(
            "{} is not ketch, so whoever has registered it at its agent takes it out: consul services deregister -id {}",
            member.name, member.name
        )))
    }

    fn leave(&mut self, member: &Member) -> Result<(), Error> {
        match self.registered.take() {
            // When the check is not passed any more, the entry is not listed, and a minute later it is gone.
            Some((_, lease)) => self.register(member, lease),
            None => Ok(()),
        }
    }
}
