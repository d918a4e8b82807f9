//! Stand-ins for engines that Debian does not have, which answer as the real ones document, in plain HTTP.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// An agent of Consul: services with checks that end unless they are passed in time, and blocking queries
/// (<https://developer.hashicorp.com/consul/api-docs>).
#[derive(Debug)]
pub struct Consul {
    port: u16,
    agent: Arc<(Mutex<Agent>, Condvar)>,
}

#[derive(Debug, Default)]
struct Agent {
    /// Grows with each change.
    index: u64,
    services: BTreeMap<String, Instance>,
    /// Requests are taken, and not answered.
    is_silent: bool,
}

#[derive(Debug)]
struct Instance {
    service: String,
    /// What was registered, as JSON.
    text: String,
    ttl: Duration,
    until: Instant,
}

impl Consul {
    /// One that knows nothing.
    pub fn start() -> Consul {
        let agent: Arc<(Mutex<Agent>, Condvar)> = Arc::default();
        agent.0.lock().expect("nobody panics with it").index = 1;
        let port = listen({
            let agent = agent.clone();
            move |request, wire| serve_consul(&agent, request, wire)
        });
        let ticking = Arc::downgrade(&agent);
        thread::spawn(move || {
            // Checks that were not passed in time.
            while let Some(agent) = ticking.upgrade() {
                agent.0.lock().expect("nobody panics with it").expire();
                agent.1.notify_all();
                drop(agent);
                thread::sleep(Duration::from_millis(10));
            }
        });
        Consul { port, agent }
    }

    /// `consul://127.0.0.1:PORT/SERVICE`.
    pub fn url(&self, service: &str) -> String {
        format!("consul://127.0.0.1:{}/{service}", self.port)
    }

    /// It begins anew, and knows nothing of before.
    pub fn wipe(&self) {
        let mut agent = self.lock();
        agent.services.clear();
        agent.index = 1;
    }

    /// It takes requests and does not answer, or answers again.
    pub fn silence(&self, is_silent: bool) {
        self.lock().is_silent = is_silent;
    }

    fn lock(&self) -> MutexGuard<'_, Agent> {
        self.agent.0.lock().expect("nobody panics with it")
    }
}

impl Agent {
    fn expire(&mut self) {
        let (before, now) = (self.services.len(), Instant::now());
        self.services.retain(|_, instance| instance.until > now);
        self.index += u64::from(self.services.len() < before);
    }
}

fn serve_consul(
    agent: &(Mutex<Agent>, Condvar),
    request: &Request,
    wire: &mut TcpStream,
) -> io::Result<()> {
    let (lock, changed) = agent;
    let mut agent = lock.lock().expect("nobody panics with it");
    while agent.is_silent {
        agent = changed.wait(agent).expect("nobody panics with it");
    }
    let path = request.path.split('?').next().unwrap_or_default();
    if path == "/v1/agent/service/register" {
        let body = &request.body;
        let ttl = text(body, "TTL").trim_end_matches("ms").to_owned();
        let ttl = Duration::from_millis(ttl.parse().expect("a TTL in milliseconds"));
        let instance = Instance {
            service: text(body, "Name"),
            text: body.clone(),
            ttl,
            until: Instant::now() + ttl,
        };
        agent.services.insert(text(body, "ID"), instance);
        agent.index += 1;
        changed.notify_all();
        return respond(wire, "200 OK", "", "{}");
    }
    if let Some(name) = path.strip_prefix("/v1/agent/check/pass/service:") {
        let Some(instance) = agent.services.get_mut(name) else {
            return respond(wire, "404 Not Found", "", "Unknown check ID");
        };
        instance.until = Instant::now() + instance.ttl;
        return respond(wire, "200 OK", "", "{}");
    }
    let Some(service) = path.strip_prefix("/v1/health/service/") else {
        return respond(wire, "404 Not Found", "", "");
    };
    let asked: u64 = query(&request.path, "index").parse().unwrap_or(0);
    let wait = query(&request.path, "wait");
    let wait = wait.trim_end_matches("ms").parse().unwrap_or(0);
    let until = Instant::now() + Duration::from_millis(wait);
    while agent.index == asked && Instant::now() < until {
        let turn = Duration::from_millis(10);
        agent = changed
            .wait_timeout(agent, turn)
            .expect("nobody panics with it")
            .0;
    }
    let listed = agent.services.values();
    let listed = listed.filter(|instance| instance.service == service);
    let listed: Vec<String> = listed
        .map(|instance| {
            format!(
                r#"{{"Node":{{"Address":"127.0.0.1"}},"Service":{}}}"#,
                instance.text
            )
        })
        .collect();
    let head = format!("X-Consul-Index: {}\r\n", agent.index);
    drop(agent);
    respond(wire, "200 OK", &head, &format!("[{}]", listed.join(",")))
}

/// The API server of Kubernetes behind `kubectl proxy`: the EndpointSlices of one service, listed with a version, and watched from it.
#[derive(Debug)]
pub struct Kubernetes {
    port: u16,
    slice: Arc<(Mutex<Slice>, Condvar)>,
}

#[derive(Debug, Default)]
struct Slice {
    version: u64,
    /// Names and ports.
    pods: Vec<(String, u16)>,
    /// Those that went with the last change.
    gone: Vec<(String, u16)>,
}

impl Kubernetes {
    /// One whose service has no pods.
    pub fn start() -> Kubernetes {
        let slice: Arc<(Mutex<Slice>, Condvar)> = Arc::default();
        let shared = slice.clone();
        let port = listen(move |request, wire| serve_kubernetes(&shared, request, wire));
        Kubernetes { port, slice }
    }

    /// What a process is to have in its environment.
    pub fn environment(&self) -> (&'static str, String) {
        ("KETCH_K8S_API", format!("http://127.0.0.1:{}", self.port))
    }

    /// From now on these are the pods that are ready, at 127.0.0.1. (In a cluster they have addresses of their own, and one port.)
    pub fn pods(&self, pods: &[(&str, u16)]) {
        let mut slice = self.slice.0.lock().expect("nobody panics with it");
        let pods: Vec<(String, u16)> = pods
            .iter()
            .map(|(name, port)| ((*name).to_owned(), *port))
            .collect();
        let mut gone = std::mem::replace(&mut slice.pods, pods);
        gone.retain(|pod| !slice.pods.contains(pod));
        slice.gone = gone;
        slice.version += 1;
        self.slice.1.notify_all();
    }
}

impl Slice {
    /// One slice for each port, as slices have their ports in common.
    fn items(&self, pods: &[(String, u16)]) -> Vec<String> {
        let item = |(name, port): &(String, u16)| {
            format!(
                r#"{{"metadata":{{"name":"slice-{name}","resourceVersion":"{}"}},"addressType":"IPv4","endpoints":[{{"addresses":["127.0.0.1"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"targetRef":{{"kind":"Pod","name":"{name}"}}}}],"ports":[{{"name":"cache","port":{port},"protocol":"TCP"}}]}}"#,
                self.version
            )
        };
        pods.iter().map(item).collect()
    }
}

fn serve_kubernetes(
    slice: &(Mutex<Slice>, Condvar),
    request: &Request,
    wire: &mut TcpStream,
) -> io::Result<()> {
    let (lock, changed) = slice;
    let mut slice = lock.lock().expect("nobody panics with it");
    if !request.path.contains("watch=") {
        let body = format!(
            r#"{{"kind":"EndpointSliceList","metadata":{{"resourceVersion":"{}"}},"items":[{}]}}"#,
            slice.version,
            slice.items(&slice.pods).join(",")
        );
        drop(slice);
        return respond(wire, "200 OK", "", &body);
    }
    let from: u64 = query(&request.path, "resourceVersion").parse().unwrap_or(0);
    let seconds = query(&request.path, "timeoutSeconds").parse().unwrap_or(30);
    let until = Instant::now() + Duration::from_secs(seconds);
    write!(
        wire,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )?;
    while slice.version == from && Instant::now() < until {
        let turn = Duration::from_millis(100);
        slice = changed
            .wait_timeout(slice, turn)
            .expect("nobody panics with it")
            .0;
    }
    for (kind, pods) in [("DELETED", &slice.gone), ("MODIFIED", &slice.pods)] {
        for item in slice.items(pods) {
            let event = format!("{{\"type\":\"{kind}\",\"object\":{item}}}\n");
            write!(wire, "{:x}\r\n{event}\r\n", event.len())?;
        }
    }
    drop(slice);
    wire.write_all(b"0\r\n\r\n")
}

/// A request as far as these have to know it.
struct Request {
    path: String,
    body: String,
}

/// Serves each connection's only request on a thread of its own; gives the port.
fn listen(
    serve: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for mut wire in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || {
                // A client that leaves is no fault of ours.
                let _ = read(&wire).and_then(|request| serve(&request, &mut wire));
            });
        }
    });
    port
}

fn read(wire: &TcpStream) -> io::Result<Request> {
    let mut reader = BufReader::new(wire);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut len = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        let header = header.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            len = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok(Request { path, body })
}

fn respond(wire: &mut TcpStream, status: &str, head: &str, body: &str) -> io::Result<()> {
    write!(
        wire,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n{head}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A text of a JSON object, by its name: the first.
fn text(json: &str, name: &str) -> String {
    let begin = format!("\"{name}\":\"");
    let rest = json.split(&begin).nth(1).unwrap_or_default();
    rest.split('"').next().unwrap_or_default().to_owned()
}

fn query(path: &str, name: &str) -> String {
    let words = path.split(['?', '&']).skip(1);
    let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    values.next().unwrap_or_default().to_owned()
}
