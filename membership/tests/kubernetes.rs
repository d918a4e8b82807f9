//! A stand-in for the API server of Kubernetes, which answers as the real one documents: lists with a version, watches in chunks from a
//! version, bookmarks, 410 for a version that is too old, a bearer token, TLS with a certificate of its own authority. Then what goes wrong.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ketch_membership::{ApiServer, Error, Member, Registry};
use ketch_testing::{PATIENCE, tls::Authority};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Documented,
    /// Takes requests and says nothing.
    Silent,
    /// Answers what is no JSON.
    Garbage,
    /// Lists, and refuses to watch.
    NoWatch,
    /// Answers each watch with an error event of the code 410.
    Gone,
    /// Answers each watch with the status 410.
    GoneAtOnce,
}

struct State {
    manner: Manner,
    version: u64,
    token: String,
    /// Endpoints as JSON, in one slice, or none.
    endpoints: Vec<String>,
    lists: u32,
    watches: u32,
    /// What watches asked for was seen.
    asked: Vec<String>,
}

struct Api {
    state: Arc<Mutex<State>>,
    folder: PathBuf,
    port: u16,
}

impl Api {
    fn start(name: &str) -> Api {
        let authority = Authority::new("kubernetes");
        let cert = authority.issue();
        let folder = std::env::temp_dir().join(format!("ketch-k8s-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("ca.crt"), authority.pem()).expect("a file");
        fs::write(folder.join("token"), "one\n").expect("a file");
        let chain =
            vec![CertificateDer::from_pem_slice(cert.cert.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(cert.key.as_bytes()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key);
        let config = Arc::new(config.expect("they fit"));
        let state = Arc::new(Mutex::new(State {
            manner: Manner::Documented,
            version: 1,
            token: "one".to_owned(),
            endpoints: Vec::new(),
            lists: 0,
            watches: 0,
            asked: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = state.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (state, config) = (shared.clone(), config.clone());
                thread::spawn(move || {
                    let session = rustls::ServerConnection::new(config).expect("a session");
                    // A client that leaves is no fault of ours.
                    let _ = serve(rustls::StreamOwned::new(session, socket), &state);
                });
            }
        });
        Api {
            state,
            folder,
            port,
        }
    }

    fn registry(&self, service: &str) -> Registry {
        let url = format!("https://localhost:{}", self.port);
        let api = ApiServer {
            url,
            account: self.folder.clone(),
        };
        Registry::in_kubernetes(service, api).expect("its files are there")
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        state.version += 1;
    }

    fn pods(&self, pods: &[(&str, &str, &str)]) {
        self.set(|state| {
            state.endpoints = pods
                .iter()
                .map(|(name, ip, more)| pod(name, ip, more))
                .collect()
        });
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn pod(name: &str, ip: &str, more: &str) -> String {
    format!(
        r#"{{"addresses":["{ip}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"targetRef":{{"kind":"Pod","name":"{name}"}}{more}}}"#
    )
}

fn slice(state: &State) -> String {
    format!(
        r#"{{"metadata":{{"name":"cache-x","resourceVersion":"{}"}},"addressType":"IPv4","endpoints":[{}],"ports":[{{"name":"metrics","port":9150,"protocol":"TCP"}},{{"name":"cache","port":11211,"protocol":"TCP"}}]}}"#,
        state.version,
        state.endpoints.join(",")
    )
}

fn respond(wire: &mut impl Write, status: &str, body: &str) -> io::Result<()> {
    write!(
        wire,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    wire.flush()
}

fn chunk(wire: &mut impl Write, text: &str) -> io::Result<()> {
    write!(wire, "{:x}\r\n{text}\r\n", text.len())?;
    wire.flush()
}

fn serve(
    wire: rustls::StreamOwned<rustls::ServerConnection, TcpStream>,
    state: &Mutex<State>,
) -> io::Result<()> {
    let mut wire = BufReader::new(wire);
    loop {
        let (mut head, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            if wire.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            head += &line;
        }
        let path = head.split(' ').nth(1).unwrap_or("").to_owned();
        let mut now = state.lock().unwrap();
        let bearer = format!("authorization: Bearer {}\r\n", now.token).to_lowercase();
        if now.manner == Manner::Silent {
            drop(now);
            thread::sleep(PATIENCE);
            return Ok(());
        }
        if !head.to_lowercase().contains(&bearer) {
            respond(
                wire.get_mut(),
                "401 Unauthorized",
                r#"{"kind":"Status","code":401}"#,
            )?;
            continue;
        }
        let wanted = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dcache";
        if !path.starts_with(wanted) {
            respond(
                wire.get_mut(),
                "404 Not Found",
                r#"{"kind":"Status","code":404}"#,
            )?;
            continue;
        }
        if now.manner == Manner::Garbage {
            respond(wire.get_mut(), "200 OK", "<html>no API here</html>")?;
            continue;
        }
        if !path.contains("watch=1") {
            now.lists += 1;
            let items = if now.endpoints.is_empty() {
                String::new()
            } else {
                slice(&now)
            };
            let list = format!(
                r#"{{"kind":"EndpointSliceList","metadata":{{"resourceVersion":"{}"}},"items":[{items}]}}"#,
                now.version
            );
            drop(now);
            respond(wire.get_mut(), "200 OK", &list)?;
            continue;
        }
        now.watches += 1;
        now.asked.push(path.clone());
        let parameter = |name: &str| {
            let (_, rest) = path.split_once(&format!("{name}="))?;
            rest.split('&').next()?.parse::<u64>().ok()
        };
        let from = parameter("resourceVersion").expect("a watch has a version");
        let until = Instant::now() + Duration::from_secs(parameter("timeoutSeconds").unwrap_or(60));
        let manner = now.manner;
        drop(now);
        let wire = wire.get_mut();
        match manner {
            Manner::NoWatch => {
                respond(wire, "403 Forbidden", r#"{"kind":"Status","code":403}"#)?;
                continue;
            }
            Manner::GoneAtOnce => {
                respond(wire, "410 Gone", r#"{"kind":"Status","code":410}"#)?;
                continue;
            }
            _ => {}
        }
        write!(
            wire,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        if manner == Manner::Gone {
            let event =
                r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
            chunk(wire, &format!("{event}\n"))?;
        } else {
            let bookmark = format!(
                r#"{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"{from}"}}}}}}"#
            );
            chunk(wire, &format!("{bookmark}\n"))?;
            while Instant::now() < until {
                let now = state.lock().unwrap();
                if now.version > from {
                    // In two pieces, as nobody promises that a line comes in one.
                    let event = format!("{{\"type\":\"MODIFIED\",\"object\":{}}}\n", slice(&now));
                    drop(now);
                    let (one, two) = event.split_at(event.len() / 2);
                    chunk(wire, one)?;
                    chunk(wire, two)?;
                    break;
                }
                drop(now);
                thread::sleep(Duration::from_millis(2));
            }
        }
        wire.write_all(b"0\r\n\r\n")?;
        wire.flush()?;
    }
}

fn written(registry: &mut Registry) -> String {
    let listing = registry.ring().expect("there is a ring");
    let members: Vec<String> = listing.members.iter().map(Member::to_string).collect();
    members.join(" ")
}

#[test]
fn ready_pods_by_name_and_zone() {
    let api = Api::start("ready");
    api.pods(&[
        ("cache-1", "10.0.0.2", r#","zone":"b","nodeName":"n2""#),
        ("cache-0", "10.0.0.1", r#","zone":"a""#),
    ]);
    api.set(|state| {
        state
            .endpoints
            .push(pod("cache-2", "10.0.0.3", "").replace("\"ready\":true", "\"ready\":false"));
        // It says nothing of its condition: that means ready. Nor does it name a pod.
        state
            .endpoints
            .push(r#"{"addresses":["10.0.0.4"]}"#.to_owned());
        state.endpoints.push(r#"{"addresses":[]}"#.to_owned());
    });
    for (service, port) in [
        ("shop/cache:cache", 11211),
        ("shop/cache:9150", 9150),
        ("shop/cache", 9150),
    ] {
        let told = written(&mut api.registry(service));
        let wanted = format!("10.0.0.4:{port} cache-0=10.0.0.1:{port}@a cache-1=10.0.0.2:{port}@b");
        assert_eq!(told, wanted, "{service}");
    }
    let none = api.registry("shop/cache:other").ring();
    assert!(matches!(none, Err(Error::Empty)), "{none:?}");
    let other = api.registry("shop/other").ring();
    assert!(
        matches!(&other, Err(Error::Refused(why)) if why.contains("404")),
        "{other:?}"
    );
}

#[test]
fn changes_are_told_when_they_come() {
    let api = Api::start("watch");
    api.pods(&[("cache-0", "10.0.0.1", ""), ("cache-1", "10.0.0.2", "")]);
    let mut registry = api.registry("shop/cache:cache");
    let first = registry.ring().unwrap();
    assert!(
        !registry
            .changed_since(first.revision, Duration::from_millis(300))
            .unwrap()
    );
    // A pod comes back at another address: it is the same node.
    let change = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let changed = registry.changed_since(first.revision, PATIENCE).unwrap();
            (changed, Instant::now())
        });
        thread::sleep(Duration::from_millis(200));
        let at = Instant::now();
        api.pods(&[("cache-0", "10.0.0.9", ""), ("cache-1", "10.0.0.2", "")]);
        let (changed, seen) = watch.join().expect("no panic");
        assert!(changed);
        seen - at
    });
    println!("change -> known: {change:?}");
    assert!(change < Duration::from_secs(2), "{change:?}");
    assert_eq!(
        written(&mut registry),
        "cache-0=10.0.0.9:11211 cache-1=10.0.0.2:11211"
    );
    // One that ends leaves at once, and counts for nothing.
    let ending = r#""ready":false,"serving":true,"terminating":true"#;
    api.set(|state| {
        for endpoint in &mut state.endpoints {
            *endpoint =
                endpoint.replace(r#""ready":true,"serving":true,"terminating":false"#, ending);
        }
        state.endpoints.push(pod("cache-2", "10.0.0.3", ""));
    });
    assert_eq!(written(&mut registry), "cache-2=10.0.0.3:11211");
    let asked = api.state.lock().unwrap().asked.join("\n");
    assert!(
        asked.contains("allowWatchBookmarks=true") && asked.contains("resourceVersion="),
        "{asked}"
    );
}

#[test]
fn a_version_that_is_too_old_is_listed_anew() {
    for manner in [Manner::Gone, Manner::GoneAtOnce, Manner::NoWatch] {
        let api = Api::start(&format!("{manner:?}"));
        api.pods(&[("cache-0", "10.0.0.1", "")]);
        api.set(|state| state.manner = manner);
        let mut registry = api.registry("shop/cache:cache");
        let begun = Instant::now();
        for _ in 0..2 {
            let listing = registry.ring().unwrap();
            assert!(
                registry.changed_since(listing.revision, PATIENCE).unwrap(),
                "{manner:?}"
            );
        }
        // It is not asked in a circle.
        let state = api.state.lock().unwrap();
        assert!(
            begun.elapsed() > Duration::from_millis(1500) && state.lists == 2,
            "{manner:?}: {}",
            state.lists
        );
    }
}

#[test]
fn the_token_is_read_again() {
    let api = Api::start("token");
    api.pods(&[("cache-0", "10.0.0.1", "")]);
    let mut registry = api.registry("shop/cache:cache");
    assert_eq!(written(&mut registry), "cache-0=10.0.0.1:11211");
    api.set(|state| state.token = "two".to_owned());
    assert!(matches!(registry.ring(), Err(Error::Refused(why)) if why.contains("401")));
    fs::write(api.folder.join("token"), "two").expect("a file");
    assert_eq!(written(&mut registry), "cache-0=10.0.0.1:11211");
    fs::remove_file(api.folder.join("token")).expect("it is there");
    assert!(matches!(registry.ring(), Err(Error::Refused(why)) if why.contains("token")));
}

#[test]
fn whoever_another_authority_has_signed_is_not_believed() {
    let (api, other) = (Api::start("own"), Api::start("other"));
    api.pods(&[("cache-0", "10.0.0.1", "")]);
    fs::copy(other.folder.join("ca.crt"), api.folder.join("ca.crt")).expect("a copy");
    assert!(matches!(
        api.registry("shop/cache").ring(),
        Err(Error::Unreachable(_))
    ));
    fs::write(api.folder.join("ca.crt"), "nothing").expect("a file");
    let account = api.folder.clone();
    let error = Registry::in_kubernetes(
        "shop/cache",
        ApiServer {
            url: "https://a:1".into(),
            account,
        },
    )
    .unwrap_err();
    assert!(error.contains("no certificate in it"), "{error}");
}

#[test]
fn silence_garbage_and_an_empty_list_change_nothing() {
    let api = Api::start("bad");
    api.pods(&[("cache-0", "10.0.0.1", ""), ("cache-1", "10.0.0.2", "")]);
    let mut registry = api.registry("shop/cache:cache");
    let both = "cache-0=10.0.0.1:11211 cache-1=10.0.0.2:11211";
    assert_eq!(written(&mut registry), both);
    api.set(|state| state.manner = Manner::Garbage);
    assert!(matches!(registry.ring(), Err(Error::Malformed(_))));
    api.set(|state| state.manner = Manner::Silent);
    let begun = Instant::now();
    assert!(matches!(registry.ring(), Err(Error::Unreachable(_))));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    api.set(|state| state.manner = Manner::Documented);
    let endpoints = std::mem::take(&mut api.state.lock().unwrap().endpoints);
    assert!(matches!(registry.ring(), Err(Error::Empty)));
    api.set(|state| state.endpoints = endpoints);
    assert_eq!(written(&mut registry), both);
    // Half of it vanishes: one may go, and as long as the window lasts no other.
    api.pods(&[("cache-9", "10.0.0.9", "")]);
    let ring = registry.ring().unwrap();
    assert_eq!(ring.members.len(), 2, "{ring:?}");
}
