//! Nodes added and removed at their source while load runs: no request fails for it.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::as_node::AsNode;
use crate::patience::patient;
use ketch_client::topology::{
    ClusterEndpoint, DnsAddresses, DnsServices, FollowOptions, NodeFile, Source, SourceError,
};
use ketch_client::{Client, Node};
use ketch_testing::{KINDS, Kind, Server, wait_until};

fn quick(dual_read: Duration) -> FollowOptions {
    FollowOptions::default()
        .refresh_every(Duration::from_millis(20))
        .dual_read(dual_read)
}

fn servers(kind: Kind, count: usize) -> Vec<Server> {
    (0..count).map(|_| kind.start()).collect()
}

fn list(servers: &[Server]) -> String {
    let lines = servers.iter().map(|server| format!("{}\n", server.node()));
    lines.collect()
}

fn connections(server: &Server) -> usize {
    let stats = server.ask("stats\r\n", "END\r\n");
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("STAT curr_connections "));
    line.expect("it counts them").parse().expect("a number")
}

/// Adds a node and takes one away, by `publish`, while threads write and read their own keys.
fn change_under_load(
    mut servers: Vec<Server>,
    client: &Client,
    publish: impl Fn(&[Server]),
    label: &str,
) {
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let nodes_are = |servers: &[Server]| {
        let nodes: Vec<String> = servers
            .iter()
            .map(|server| server.node().to_string())
            .collect();
        let mut now: Vec<String> = client.nodes().iter().map(Node::to_string).collect();
        now.sort();
        nodes.iter().all(|node| now.contains(node)) && now.len() == nodes.len()
    };
    // Nodes hold connections of their own or for our question: what one without clients has.
    let idle = connections(&Kind::Ketch.start()).max(connections(&Kind::Memcached.start()));
    thread::scope(|scope| {
        let load = |thread: usize| {
            let (client, stop, rounds) = (client.clone(), &stop, &rounds);
            move || {
                let mut last: Vec<Option<String>> = vec![None; 200];
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let at = i % last.len();
                    let key = format!("{label}:{thread}:{at}");
                    let found = client.get(&key).expect("no request fails");
                    if let Some(item) = found {
                        let value = String::from_utf8(item.value.to_vec()).expect("text");
                        assert_eq!(Some(value), last[at], "{label}: an old value");
                    }
                    if i % 3 == 0 {
                        client.delete(&key).expect("no request fails");
                        last[at] = None;
                    } else {
                        let value = format!("{key}={i}");
                        let stored = client.set(&key, &value, Duration::from_secs(60));
                        stored.expect("no request fails");
                        last[at] = Some(value);
                    }
                    let batch: Vec<String> =
                        (0..10).map(|n| format!("{label}:{thread}:{n}")).collect();
                    let found = client.get_multi(&batch);
                    assert!(found.iter().all(Result::is_ok), "no request fails");
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let threads: Vec<_> = (0..3).map(|thread| scope.spawn(load(thread))).collect();
        let more = |count: usize| {
            let goal = rounds.load(Ordering::Relaxed) + count;
            wait_until("the load goes on", || {
                rounds.load(Ordering::Relaxed) >= goal || threads.iter().any(|t| t.is_finished())
            });
        };
        more(300);
        servers.push(servers[0].sibling());
        publish(&servers);
        wait_until("the node is there", || nodes_are(&servers));
        more(300);
        let mut removed = servers.remove(0);
        publish(&servers);
        wait_until("the node is gone", || nodes_are(&servers));
        more(300);
        // Once the client has let it go, it may end.
        wait_until("the node is let go", || connections(&removed) <= idle);
        removed.kill();
        more(300);
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no request fails, no value is old");
        }
    });
}

/// A file that is gone with the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "ketch-nodes-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let file = TempFile(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    /// As it is to be done: another file, renamed.
    fn write(&self, text: &str) {
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, text).expect("a temporary file");
        std::fs::rename(&fresh, &self.0).expect("the same folder");
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn by_a_file() {
    for kind in KINDS {
        let servers = servers(kind, 3);
        let file = TempFile::new(&list(&servers));
        let follow = quick(Duration::from_millis(500));
        let client =
            Client::follow(NodeFile::new(&file.0), patient(), follow).expect("there is a list");
        change_under_load(
            servers,
            &client,
            |servers| file.write(&list(servers)),
            "file",
        );
    }
}

#[test]
fn by_config_set_cluster() {
    // One node keeps the list; it is none of the nodes that come and go.
    let keeper = Kind::Ketch.start();
    let version = AtomicUsize::new(0);
    let publish = |servers: &[Server]| {
        let places: Vec<String> = servers
            .iter()
            .map(|server| format!("127.0.0.1|127.0.0.1|{}", server.port()))
            .collect();
        let version = version.fetch_add(1, Ordering::Relaxed) + 1;
        let value = format!("{version}\n{}\n", places.join(" "));
        let request = format!("config set cluster 0 {}\r\n{value}\r\n", value.len());
        assert_eq!(keeper.ask(&request, "\r\n"), "STORED\r\n");
    };
    let servers = servers(Kind::Ketch, 3);
    publish(&servers);
    let source = ClusterEndpoint::new([keeper.node()]);
    let follow = quick(Duration::from_millis(500));
    let client = Client::follow(source, patient(), follow).expect("there is a list");
    change_under_load(servers, &client, publish, "config");
}

/// A name server for one name, which answers with the SRV records it was given.
fn name_server(ports: Arc<Mutex<Vec<u16>>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let address = socket.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((len, peer)) = socket.recv_from(&mut packet) {
            let ports = ports.lock().expect("no test panics with it");
            // Header: the question's id, a response, one question, so many answers.
            let mut answer = packet[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, ports.len() as u8, 0, 0, 0, 0]);
            answer.extend(&packet[12..len]);
            for port in ports.iter() {
                let target = b"\x03127\x010\x010\x011\x00";
                // The question's name, SRV, IN, 1 second, length; priority 0, weight 1.
                answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 1, 0, 6 + target.len() as u8]);
                answer.extend([0, 0, 0, 1]);
                answer.extend(port.to_be_bytes());
                answer.extend(target);
            }
            let _ = socket.send_to(&answer, peer);
        }
    });
    address
}

#[test]
fn by_srv_records() {
    let servers = servers(Kind::Ketch, 3);
    let ports = |servers: &[Server]| servers.iter().map(|server| server.port()).collect();
    let records = Arc::new(Mutex::new(ports(&servers)));
    let name_server = name_server(Arc::clone(&records));
    let source = DnsServices::new("_memcache._tcp.cache.example").servers([name_server]);
    let follow = quick(Duration::from_millis(500));
    let client = Client::follow(source, patient(), follow).expect("there is a list");
    let publish = |servers: &[Server]| *records.lock().expect("it lives") = ports(servers);
    change_under_load(servers, &client, publish, "srv");
}

#[test]
fn by_a_name_and_by_a_list() {
    let server = Kind::Ketch.start();
    let name = DnsAddresses::new("127.0.0.1", server.port());
    let clients = [
        Client::follow(name, patient(), FollowOptions::default()),
        Client::follow(vec![server.node()], patient(), FollowOptions::default()),
    ];
    for client in clients {
        let client = client.expect("there is a list");
        assert_eq!(client.nodes(), [server.node()]);
        client.set("key", "value", None).expect("up");
    }
}

/// A source that counts how often it is asked.
struct Asked<S> {
    source: S,
    times: Arc<AtomicUsize>,
}

impl<S: Source> Source for Asked<S> {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.source.nodes()
    }

    fn interval(&self) -> Option<Duration> {
        self.source.interval()
    }
}

#[test]
fn what_is_no_list_changes_nothing() {
    let servers = servers(Kind::Ketch, 2);
    let file = TempFile::new(&list(&servers));
    let asked = Arc::new(AtomicUsize::new(0));
    let source = Asked {
        source: NodeFile::new(&file.0),
        times: Arc::clone(&asked),
    };
    let client = Client::follow(source, patient(), quick(Duration::ZERO)).expect("there is a list");
    let nodes = client.nodes();
    // The source is asked again and again. Once it is asked for the second time, the first answer has been dealt with.
    let dealt_with = || {
        let goal = asked.load(Ordering::Relaxed) + 3;
        wait_until("the source is asked", || {
            asked.load(Ordering::Relaxed) >= goal
        });
    };
    for text in ["", "# none\n", "host:port\n", "a\nb\n:1\n"] {
        file.write(text);
        dealt_with();
        assert_eq!(client.nodes(), nodes, "{text:?}");
    }
    std::fs::remove_file(&file.0).expect("it is there");
    dealt_with();
    assert_eq!(client.nodes(), nodes);
    file.write(&list(&servers[..1]));
    wait_until("a good list is taken", || client.nodes() == nodes[..1]);
    assert!(matches!(
        Client::follow(
            NodeFile::new("/nonexistent"),
            patient(),
            FollowOptions::default()
        ),
        Err(SourceError::Io(_))
    ));
}

#[test]
fn the_thread_ends_with_the_last_client() {
    struct Counted {
        _token: Arc<()>,
    }
    impl Source for Counted {
        fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
            Ok(vec![Node::new("127.0.0.1", 1)])
        }
        fn interval(&self) -> Option<Duration> {
            Some(Duration::from_secs(3600))
        }
    }
    let token = Arc::new(());
    let source = Counted {
        _token: Arc::clone(&token),
    };
    let client = Client::follow(source, patient(), FollowOptions::default()).expect("a list");
    let clone = client.clone();
    drop(client);
    assert_eq!(Arc::strong_count(&token), 2);
    drop(clone);
    wait_until("the thread ends", || Arc::strong_count(&token) == 1);
}
