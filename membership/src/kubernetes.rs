//! Kubernetes by its HTTP interface (<https://kubernetes.io/docs/reference/using-api/api-concepts/>): the ready endpoints of a service, from
//! its EndpointSlices, listed and then watched from the version of the list.
//!
//! In a pod, the API server and what it trusts stand where the kubelet puts them (`KUBERNETES_SERVICE_HOST`, the service account's folder).
//! Elsewhere `KETCH_K8S_API` names it, `http://127.0.0.1:8001` of `kubectl proxy` for instance, and `KETCH_K8S_ACCOUNT` a folder with `token` and `ca.crt`.

use std::collections::HashSet;
use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{Http, Trust};
use crate::{Engine, Error, Member};

/// Where a pod finds its token and whom to trust.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The pause after a watch that brought nothing at once: whatever refuses it is not asked in a circle.
const PAUSE: Duration = Duration::from_secs(1);

/// An API server of Kubernetes, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServer {
    /// `https://HOST:PORT`, or `http://HOST:PORT` of somebody who passes it on, as `kubectl proxy` does.
    pub url: String,
    /// A folder with `token`, which is read for each request, and `ca.crt`. Of use for https alone.
    pub account: PathBuf,
}

impl ApiServer {
    /// The one of the cluster that this program is a pod of, or that the environment names. The error says what is missing there.
    pub fn from_env() -> Result<Self, String> {
        let account =
            env::var_os("KETCH_K8S_ACCOUNT").map_or_else(|| ACCOUNT.into(), PathBuf::from);
        if let Ok(url) = env::var("KETCH_K8S_API") {
            return Ok(ApiServer { url, account });
        }
        let host = env::var("KUBERNETES_SERVICE_HOST").map_err(|_| {
            "this is no pod of Kubernetes (KUBERNETES_SERVICE_HOST is not set); elsewhere KETCH_K8S_API=http://HOST:PORT names the API \
             server, as \"kubectl proxy\" has it"
        })?;
        let port = env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".to_owned());
        let url = match host.contains(':') {
            true => format!("https://[{host}]:{port}"),
            false => format!("https://{host}:{port}"),
        };
        Ok(ApiServer { url, account })
    }
}

/// A service of a namespace.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    http: Http,
    path: String,
    port: Port,
    /// The version of the last list, or of the last bookmark behind it. Its owner alone knows what it means.
    version: String,
    /// How many lists there have been, for those who want a number that grows.
    lists: u64,
}

/// Which of an endpoint's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Port {
    /// The only one, or the first.
    Any,
    Number(u16),
    Name(String),
}

impl Port {
    /// What stands behind the colon of `k8s://NAMESPACE/SERVICE:PORT`.
    pub(crate) fn read(text: &str) -> Option<Port> {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match text.parse::<u16>() {
            Ok(0) => None,
            Ok(port) => Some(Port::Number(port)),
            Err(_) if text.is_empty() || text.len() > 63 || !text.contains(char::is_alphabetic) => {
                None
            }
            Err(_) => text
                .chars()
                .all(is_name)
                .then(|| Port::Name(text.to_owned())),
        }
    }

    /// The number in a slice's list of ports.
    fn of(&self, ports: &Value) -> Option<u16> {
        let ports = ports.as_array().map_or(&[][..], Vec::as_slice);
        let number = |port: &Value| {
            u16::try_from(port["port"].as_u64()?)
                .ok()
                .filter(|&port| port > 0)
        };
        let is_tcp = |port: &&Value| matches!(port["protocol"].as_str(), None | Some("TCP"));
        let mut tcp = ports.iter().filter(is_tcp);
        match self {
            Port::Number(port) => Some(*port),
            Port::Any => number(tcp.next()?),
            Port::Name(name) => number(tcp.find(|port| port["name"].as_str() == Some(name))?),
        }
    }
}

impl Kubernetes {
    /// What it trusts is read now: an error says what is missing.
    pub(crate) fn new(
        namespace: &str,
        service: &str,
        port: Port,
        api: &ApiServer,
    ) -> Result<Self, String> {
        let url = api.url.trim_end_matches('/');
        let (server, is_tls) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(server), _) => (server, true),
            (None, Some(server)) => (server, false),
            (None, None) => {
                return Err(format!(
                    "{url} must be http://HOST:PORT or https://HOST:PORT"
                ));
            }
        };
        let trust = Trust {
            ca: is_tls.then(|| api.account.join("ca.crt")),
            // Who speaks without TLS speaks to somebody who has a token.
            token: is_tls.then(|| api.account.join("token")),
        };
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}"
        );
        Ok(Kubernetes {
            http: Http::trusting(vec![server.to_owned()], trust)?,
            path,
            port,
            version: String::new(),
            lists: 0,
        })
    }
}

/// The members in a list of EndpointSlices, and its version.
pub(crate) fn listed(answer: &Value, wanted: &Port) -> Result<(Vec<Member>, String), Error> {
    let malformed =
        |what: &str| Error::Malformed(format!("the list of EndpointSlices has no {what}"));
    let version = answer["metadata"]["resourceVersion"].as_str();
    let version = version.ok_or_else(|| malformed("resourceVersion"))?;
    // An empty list is written as null by some.
    let slices = match &answer["items"] {
        Value::Array(slices) => &slices[..],
        Value::Null => &[],
        _ => return Err(malformed("items")),
    };
    let mut members = Vec::new();
    // A pod with two families of addresses is in two slices: the first family counts.
    for family in ["IPv4", "IPv6", "FQDN"] {
        for slice in slices
            .iter()
            .filter(|slice| slice["addressType"] == *family)
        {
            let Some(port) = wanted.of(&slice["ports"]) else {
                continue;
            };
            let endpoints = slice["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
            members.extend(
                endpoints
                    .iter()
                    .filter_map(|endpoint| member(endpoint, port)),
            );
        }
    }
    // While it is moved, an endpoint may be in two slices: what is ready is believed.
    members.sort_by_key(|member| !member.holds_keys());
    let mut seen = HashSet::new();
    members.retain(|member| seen.insert(member.name.clone()));
    Ok((members, version.to_owned()))
}

/// One endpoint of a slice.
fn member(endpoint: &Value, port: u16) -> Option<Member> {
    let conditions = &endpoint["conditions"];
    // What nobody says is so: a missing condition is true, but for that of the end.
    let is_ready = conditions["ready"].as_bool().unwrap_or(true);
    let is_ending = conditions["terminating"].as_bool().unwrap_or(false);
    if !is_ready && !is_ending {
        return None;
    }
    let host = endpoint["addresses"][0].as_str()?;
    let target = &endpoint["targetRef"];
    let pod = target["name"]
        .as_str()
        .filter(|_| target["kind"].as_str() == Some("Pod"));
    let name = pod.or_else(|| endpoint["hostname"].as_str());
    let mut member = Member::new("", host, port);
    member.name = name.map_or_else(|| member.address(), str::to_owned);
    member.zone = endpoint["zone"].as_str().map(str::to_owned);
    member.leaving = !is_ready;
    // It goes through the gate that all others go through.
    Member::read(&member.name, &member.to_json().to_string())
}

impl Engine for Kubernetes {
    fn list(&mut self) -> Result<(Vec<Member>, u64), Error> {
        let path = self.path.clone();
        let answer = self.http.get(&path, Duration::ZERO, "")?.json;
        let (members, version) = listed(&answer, &self.port)?;
        self.version = version;
        self.lists += 1;
        Ok((members, self.lists))
    }

    fn changed_since(&mut self, revision: u64, at_most: Duration) -> Result<bool, Error> {
        if revision != self.lists {
            return Ok(true);
        }
        let path = format!(
            "{}&watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
            self.path,
            self.version,
            at_most.as_secs().max(1)
        );
        let (begun, version) = (Instant::now(), &mut self.version);
        let watched = self
            .http
            .watch(&path, at_most, |event| match event["type"].as_str() {
                Some("BOOKMARK") => {
                    let at = event["object"]["metadata"]["resourceVersion"].as_str();
                    if let Some(at) = at {
                        at.clone_into(version);
                    }
                    None
                }
                // A change, or an ERROR: with the code 410 the version is too old to be watched from. Either way all is listed anew.
                _ => Some(event["type"] != "ERROR"),
            });
        let pause = || thread::sleep(PAUSE.min(at_most).saturating_sub(begun.elapsed()));
        match watched {
            Ok(Some(true)) => Ok(true),
            Ok(Some(false)) => {
                pause();
                Ok(true)
            }
            // It ends by itself after a while.
            Ok(None) => {
                pause();
                Ok(false)
            }
            // A version that is too old, or a role that may list but not watch: the list is asked for again, no more often than this.
            Err(Error::Refused(_)) => {
                pause();
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn takes_members(&self) -> bool {
        false
    }

    fn register(&mut self, _: &Member, _: Duration) -> Result<(), Error> {
        Err(refused())
    }

    fn keep(&mut self) -> Result<bool, Error> {
        Err(refused())
    }

    fn leave(&mut self, _: &Member) -> Result<(), Error> {
        Err(refused())
    }

    fn rewrite(&mut self, _: &Member) -> Result<(), Error> {
        Err(refused())
    }
}

fn refused() -> Error {
    Error::Refused("Kubernetes lists the pods of a service itself".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_by_number_and_by_name() {
        let ports = json!([
            { "name": "stats", "port": 9150, "protocol": "UDP" },
            { "name": "cache", "port": 11211, "protocol": "TCP" },
            { "name": "tls", "port": 11212 },
            { "name": "none" },
        ]);
        for (text, port) in [
            ("", Some(11211)),
            ("7", Some(7)),
            ("tls", Some(11212)),
            ("cache", Some(11211)),
            ("stats", None),
            ("none", None),
            ("other", None),
        ] {
            let wanted = match text {
                "" => Port::Any,
                text => Port::read(text).expect("a port"),
            };
            assert_eq!(wanted.of(&ports), port, "{text}");
        }
        assert_eq!(Port::Any.of(&Value::Null), None);
        for bad in ["0", "65536", "Cache", "a b", "a_b", "", "-1"] {
            assert_eq!(Port::read(bad), None, "{bad}");
        }
    }
}
