//! `ketchctl relay` as a process, between rings of ketch.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::audit::number;
use super::copy::{client, list};
use super::run::told;
use ketch_client::Client;
use ketch_testing::{Kind, PATIENCE, Server, wait_until};

/// A directory of a test's own.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ketch-relay-{}-{}",
            std::process::id(),
            MADE.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Dir(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A relay that runs, and what it says.
struct Relay {
    child: Child,
    said: Arc<Mutex<String>>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    fn start(words: &[&str]) -> Relay {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ketchctl"));
        command.arg("relay").args(words);
        Relay::spawn(command)
    }

    /// In a shell that has done `before`.
    fn start_after(before: &str, words: &[&str]) -> Relay {
        let mut command = Command::new("bash");
        let script = format!("{before}; exec \"$@\"");
        command.args([
            "-c",
            &script,
            "relay",
            env!("CARGO_BIN_EXE_ketchctl"),
            "relay",
        ]);
        command.args(words);
        Relay::spawn(command)
    }

    fn spawn(mut command: Command) -> Relay {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ketchctl starts");
        let (said, lines) = (
            Arc::<Mutex<String>>::default(),
            Arc::<Mutex<Vec<_>>>::default(),
        );
        let (to_said, to_lines) = (said.clone(), lines.clone());
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut said = to_said.lock().expect("no panic");
                said.push_str(&line);
                said.push('\n');
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                to_lines.lock().expect("no panic").push(line);
            }
        });
        Relay { child, said, lines }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    #[track_caller]
    fn wait_to_say(&self, words: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.said().contains(words) {
            assert!(Instant::now() < until, "{words}: {}", self.said());
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill is there").success());
    }

    fn kill(mut self) {
        self.child.kill().expect("ours");
        self.child.wait().expect("ours");
    }

    /// SIGTERM, and its end.
    fn stop(mut self) -> (ExitStatus, String) {
        self.signal("-TERM");
        let status = self.child.wait().expect("ours");
        // What it said last is read by then, or soon.
        thread::sleep(Duration::from_millis(20));
        (status, self.said())
    }

    #[track_caller]
    fn ends_well(self) -> String {
        let (status, said) = self.stop();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A way to a server that can be cut: then bytes stay where they are, and nobody is told.
struct Link {
    port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Link {
    fn to(server: &Server) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (port, target) = (listener.local_addr().expect("bound").port(), server.port());
        let is_cut = Arc::<AtomicBool>::default();
        let cut = is_cut.clone();
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else {
                    continue;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                        continue;
                    };
                    let cut = cut.clone();
                    thread::spawn(move || pass(from, to, &cut));
                }
            }
        });
        Link { port, is_cut }
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Relaxed);
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        while is_cut.load(Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

fn ring(count: usize, more: &[&str]) -> Vec<Server> {
    (0..count)
        .map(|_| Kind::Ketch.start_with(&[&["-m", "64"], more].concat()))
        .collect()
}

fn key(n: u32) -> String {
    match n % 10 {
        0 => format!("user {n} \u{e4}"),
        _ => format!("user:{n}"),
    }
}

/// Stores `value` and the key's number under each key.
#[track_caller]
fn fill(client: &Client, keys: std::ops::Range<u32>, value: &str) {
    let keys: Vec<u32> = keys.collect();
    for some in keys.chunks(500) {
        let entries = some.iter().map(|&n| (key(n), (format!("{value} {n}"), n)));
        let stored = client.set_multi(entries, None);
        assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    }
}

/// More events than a ring of a megabyte and the buffers of sockets hold.
fn much(client: &Client) {
    let tail = "x".repeat(200);
    for turn in 0..60 {
        let keys: Vec<String> = (0..2000).map(|n| format!("{turn}:{n}:{tail}")).collect();
        assert!(client.delete_multi(&keys).iter().all(Result::is_ok));
    }
}

fn held(client: &Client, keys: std::ops::Range<u32>) -> usize {
    let keys: Vec<String> = keys.map(key).collect();
    let found = client.get_multi(&keys);
    found
        .into_iter()
        .filter(|found| found.as_ref().expect("up").is_some())
        .count()
}

/// Waits until the relay carries over what happens now on each node.
#[track_caller]
fn carries(from: &[Server], to: &Client) {
    for server in from {
        let name = format!("sentinel:{}", server.port());
        wait_until("a sentinel goes", || {
            if to.get(&name).expect("up").is_none() {
                to.set(&name, "old", None).expect("up");
            }
            server.ask(&format!("set {name} 0 0 3\r\nold\r\n"), "STORED\r\n");
            let until = Instant::now() + Duration::from_millis(100);
            while Instant::now() < until {
                match to.get(&name).expect("up") {
                    Some(item) if item.value[..] == b"old"[..] => {}
                    _ => return true,
                }
                thread::sleep(Duration::from_millis(2));
            }
            false
        });
    }
}

/// With values, the sentinel comes back as it was; so the value is another each time.
#[track_caller]
fn carries_values(from: &[Server], to: &Client) {
    let mut turn = 0;
    for server in from {
        let name = format!("sentinel:{}", server.port());
        wait_until("a sentinel comes", || {
            turn += 1;
            let value = format!("{turn:04}");
            server.ask(&format!("set {name} 0 0 4\r\n{value}\r\n"), "STORED\r\n");
            let until = Instant::now() + Duration::from_millis(100);
            while Instant::now() < until {
                let item = to.get(&name).expect("up");
                if item.is_some_and(|item| item.value[..] == *value.as_bytes()) {
                    return true;
                }
                thread::sleep(Duration::from_millis(2));
            }
            false
        });
    }
}

/// No key of the second ring is older than that of the first.
#[track_caller]
fn nothing_is_stale(from: &str, to: &str) -> String {
    let rings = format!("{},{}", from.replace(',', "+"), to.replace(',', "+"));
    let (status, report, errors) = told(&[
        "audit", "--rings", &rings, "--prefix", "user", "--pause", "50ms", "--json",
    ]);
    assert_eq!((status, errors.as_str()), (0, ""), "{report}");
    assert_eq!(number(&report, "differ"), 0, "{report}");
    report
}

#[test]
fn deletes_and_stores_there_delete_here() {
    let (from, to) = (ring(2, &[]), ring(2, &[]));
    let (source, target) = (client(&from), client(&to));
    fill(&source, 0..1000, "one");
    fill(&target, 0..1000, "one");
    target.set("other:1", "one", None).expect("up");
    let relay = Relay::start(&["--from", &list(&from), "--to", &list(&to)]);
    relay.wait_to_say("no cursor");
    carries(&from, &target);
    // Untouched, or touched in what is no change of the value.
    source.touch(key(0), Duration::from_secs(1000)).expect("up");
    for n in 100..200 {
        source.delete(key(n)).expect("up");
    }
    fill(&source, 200..300, "two");
    source.append(key(300), "more").expect("up");
    source.set(key(301), 7, None).expect("up");
    source.incr(key(301), 1).expect("up");
    // Marked as stale: that is an invalidation.
    let owner = from.iter().find(|server| server.holds(&key(302)).is_some());
    let stale = owner
        .expect("one has it")
        .ask(&format!("md {} I T30\r\n", key(302)), "\r\n");
    assert_eq!(stale, "HD\r\n");
    wait_until("all is carried over", || held(&target, 100..303) == 0);
    assert_eq!(held(&target, 0..1000), 797);
    let said = relay.ends_well();
    assert!(!said.contains("GAP"), "{said}");
    nothing_is_stale(&list(&from), &list(&to));
}

#[test]
fn a_prefix_and_deletes_only() {
    let (from, to) = (ring(1, &[]), ring(1, &[]));
    let (source, target) = (client(&from), client(&to));
    let lists = (list(&from), list(&to));
    let words = [
        "--from", &lists.0, "--to", &lists.1, "--prefix", "sentinel", "--every", "0",
    ];
    let prefixed = Relay::start(&words);
    carries(&from, &target);
    for name in ["sentinel a", "user:1"] {
        target.set(name, "old", None).expect("up");
        source.set(name, "new", None).expect("up");
    }
    wait_until("it goes", || {
        target.get("sentinel a").expect("up").is_none()
    });
    assert!(target.get("user:1").expect("up").is_some());
    // A flush takes what has the prefix, here.
    target.set("sentinel b", "old", None).expect("up");
    let _ = source.flush_all();
    wait_until("it goes", || {
        target.get("sentinel b").expect("up").is_none()
    });
    assert!(target.get("user:1").expect("up").is_some());
    prefixed.ends_well();

    let only = Relay::start(&["--from", &lists.0, "--to", &lists.1, "--deletes-only"]);
    only.wait_to_say("no cursor");
    wait_until("a delete is carried over", || {
        target.set("a", "old", None).expect("up");
        source.delete("a").expect("up");
        thread::sleep(Duration::from_millis(20));
        target.get("a").expect("up").is_none()
    });
    source.set("user:1", "filled again", None).expect("up");
    target.set("a", "old", None).expect("up");
    source.delete("a").expect("up");
    wait_until("it goes", || target.get("a").expect("up").is_none());
    assert!(
        target.get("user:1").expect("up").is_some(),
        "a store is no delete"
    );
}

#[test]
fn values_come_with_flags_and_time_to_live() {
    let (from, to) = (ring(2, &[]), ring(3, &[]));
    let (source, target) = (client(&from), client(&to));
    fill(&source, 0..500, "before");
    fill(&target, 0..500, "before");
    let relay = Relay::start(&["--from", &list(&from), "--to", &list(&to), "--values"]);
    carries_values(&from, &target);
    let entries = (0..300).map(|n| {
        let ttl = (n % 3 > 0).then(|| Duration::from_secs(u64::from(n % 3) * 5000));
        (key(n), (format!("two {n}"), n + 7), ttl)
    });
    let stored = source.fill_multi(entries, true);
    assert!(stored.iter().all(Result::is_ok));
    for n in 300..350 {
        source.delete(key(n)).expect("up");
    }
    source
        .touch(key(400), Duration::from_secs(777))
        .expect("up");
    source.append(key(401), " more").expect("up");
    source.set(key(402), vec![b'x'; 500_000], None).expect("up");
    source
        .set(key(600), "new", Duration::from_secs(9999))
        .expect("up");
    let is_there = |n: u32, value: &[u8]| {
        let item = target.get(key(n)).expect("up");
        item.is_some_and(|item| item.value[..] == *value)
    };
    wait_until("values come", || {
        is_there(299, b"two 299") && is_there(600, b"new") && is_there(401, b"before 401 more")
    });
    relay.ends_well();
    let report = nothing_is_stale(&list(&from), &list(&to));
    for (name, expected) in [("alone", 0), ("ttl_differs", 0), ("agree", 451)] {
        assert_eq!(number(&report, name), expected, "{name}: {report}");
    }
    let item = target.get(key(8)).expect("up").expect("it came");
    assert_eq!(item.flags, 15);
}

/// What one carries over, the other leaves alone; also a flush, which has no origin.
#[test]
fn two_relays_do_not_echo() {
    for values in [false, true] {
        let (one, other) = (ring(1, &[]), ring(1, &[]));
        let (in_one, in_other) = (client(&one), client(&other));
        let more: &[&str] = if values { &["--values"] } else { &[] };
        let start = |from: &[Server], to: &[Server]| {
            Relay::start(&[&["--from", &list(from), "--to", &list(to)], more].concat())
        };
        let relays = [start(&one, &other), start(&other, &one)];
        match values {
            true => {
                carries_values(&one, &in_other);
                carries_values(&other, &in_one);
            }
            false => {
                carries(&one, &in_other);
                carries(&other, &in_one);
            }
        }
        fill(&in_one, 0..500, "one");
        fill(&in_other, 500..1000, "other");
        let _ = in_one.flush_all();
        in_one.set("last", "1", None).expect("up");
        in_other.set("last too", "1", None).expect("up");
        let events = |server: &Server| {
            let stats = server.ask("stats\r\n", "END\r\n");
            let line = stats
                .lines()
                .find(|line| line.contains(" ketch_feed_events "));
            let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            count.unwrap_or_else(|| panic!("no count: {stats}"))
        };
        // It becomes quiet: nothing happens for much longer than an echo takes.
        let mut before = (0, 0);
        wait_until("nothing happens any more", || {
            thread::sleep(Duration::from_millis(300));
            let now = (events(&one[0]), events(&other[0]));
            std::mem::replace(&mut before, now) == now
        });
        // Each event was carried over once, and once purged.
        assert!(before.0 < 6000 && before.1 < 6000, "{before:?}");
        for relay in relays {
            relay.ends_well();
        }
        nothing_is_stale(&list(&one), &list(&other));
    }
}

/// Who has written away from home reads there until the relay has carried it over, and no longer.
#[test]
fn markers_go_with_their_change() {
    let (from, to) = (ring(1, &[]), ring(2, &[]));
    let links: Vec<Link> = to.iter().map(Link::to).collect();
    let addresses: Vec<String> = links.iter().map(Link::address).collect();
    let (from_list, to_list) = (list(&from), addresses.join(","));
    let words = [
        "--from",
        &from_list,
        "--to",
        &to_list,
        "--markers",
        "-t",
        "1",
    ];
    let relay = Relay::start(&words);
    // Placement goes by the names of the nodes, which are those of the links here: so it asks each node.
    let holds = |key: &str| to.iter().find_map(|server| server.holds(key));
    let put = |key: &str, value: &str, cas: u64| {
        for server in &to {
            let len = value.len();
            server.ask(&format!("ms {key} {len} E{cas}\r\n{value}\r\n"), "HD\r\n");
        }
    };
    wait_until("it follows", || {
        put("first", "old", 1);
        from[0].ask("set first 0 0 3\r\nnew\r\n", "STORED\r\n");
        thread::sleep(Duration::from_millis(20));
        to.iter().any(|server| server.holds("first").is_none())
    });
    links.iter().for_each(|link| link.cut(true));
    let cas = |key: &str| {
        let told = from[0].ask(&format!("ms {key} 3 c\r\nnew\r\n"), "\r\n");
        let cas = told
            .trim_end()
            .strip_prefix("HD c")
            .and_then(|cas| cas.parse::<u64>().ok());
        cas.unwrap_or_else(|| panic!("{told}"))
    };
    let (ours, theirs) = (cas("user:1"), cas("user:2"));
    put("user:1~away", "", ours);
    put("user:2~away", "", theirs + 1000);
    // On the node that owns it alone the relay takes it away.
    links.iter().for_each(|link| link.cut(false));
    wait_until("the marker goes", || {
        to.iter()
            .any(|server| server.holds("user:1~away").is_none())
    });
    relay.ends_well();
    assert!(
        to.iter()
            .all(|server| server.holds("user:2~away").is_some())
    );
    // A marker is no change of its own: it is not carried to other regions.
    assert!(holds("user:1~away").is_some());
}

/// Both regions write the same keys while the lines are cut: when all is quiet both have one of the two values, the same one. What does not
/// cross is not settled: there the last one counts.
#[test]
fn both_regions_agree_on_what_both_have_written() {
    const KEYS: u32 = 400;
    let (east, west) = (ring(1, &[]), ring(1, &[]));
    let (in_east, in_west) = (client(&east), client(&west));
    let links = [Link::to(&west[0]), Link::to(&east[0])];
    let start = |from: &[Server], link: &Link| {
        Relay::start(&[
            "--from",
            &list(from),
            "--to",
            &link.address(),
            "--values",
            "-t",
            "1",
        ])
    };
    let relays = [start(&east, &links[0]), start(&west, &links[1])];
    carries_values(&east, &in_west);
    carries_values(&west, &in_east);
    let values = |client: &Client| -> Vec<Option<String>> {
        let found = client.get_multi(&(0..KEYS).map(key).collect::<Vec<_>>());
        let text = |found: ketch_client::Result<Option<ketch_client::Item>>| {
            let item = found.expect("up")?;
            item.text().map(str::to_owned)
        };
        found.into_iter().map(text).collect()
    };
    for turn in 0..3 {
        links.iter().for_each(|link| link.cut(true));
        fill(&in_east, 0..KEYS, &format!("east {turn}"));
        fill(&in_west, 0..KEYS, &format!("west {turn}"));
        links.iter().for_each(|link| link.cut(false));
        let mut agreed = Vec::new();
        wait_until("both have the same", || {
            let (east, west) = (values(&in_east), values(&in_west));
            // They might be about to be exchanged.
            let same = east == west;
            let is_quiet = std::mem::replace(&mut agreed, east) == west;
            thread::sleep(Duration::from_millis(100));
            same && is_quiet
        });
        for (n, value) in agreed.iter().enumerate() {
            let value = value.as_deref().expect("it is there");
            let (east, west) = (format!("east {turn} {n}"), format!("west {turn} {n}"));
            assert!(value == east || value == west, "{n}: {value}");
        }
    }
    // What comes later is later, whoever has won before.
    for (writes, reads, value) in [
        (&in_east, &in_west, "last"),
        (&in_west, &in_east, "very last"),
    ] {
        fill(writes, 0..KEYS, value);
        let wanted: Vec<_> = (0..KEYS).map(|n| Some(format!("{value} {n}"))).collect();
        wait_until("it comes", || values(reads) == wanted);
        assert_eq!(values(writes), wanted);
    }
    for relay in relays {
        relay.ends_well();
    }
}

/// The client's side of it, with a real relay between the regions.
#[test]
fn who_writes_at_home_reads_there_until_the_relay_has_passed() {
    let (home, here) = (ring(1, &[]), ring(1, &[]));
    let (at_home, locally) = (client(&home), client(&here));
    let link = Link::to(&here[0]);
    let (from, to) = (list(&home), link.address());
    let words = ["--from", &from, "--to", &to, "--markers", "-t", "1"];
    let relay = Relay::start(&words);
    carries(&home, &locally);
    let regions = locally.remote_marker(&at_home, Duration::from_secs(1000));
    let read = || {
        let item = regions.get("user:1").expect("up");
        item.and_then(|item| item.text().map(str::to_owned))
    };
    for turn in 0..3 {
        locally.set("user:1", "old", None).expect("up");
        assert_eq!(read().as_deref(), Some("old"), "it is read here");
        link.cut(true);
        let new = format!("new {turn}");
        regions.set("user:1", new.as_str(), None).expect("up");
        assert_eq!(here[0].holds("user:1").as_deref(), Some("old"));
        assert_eq!(read(), Some(new), "it is read at home");
        link.cut(false);
        wait_until("the relay has passed", || {
            here[0].holds("user:1~away").is_none()
        });
        assert_eq!(here[0].holds("user:1"), None, "the old value went before");
        assert_eq!(read(), None, "it is read here again");
    }
    relay.ends_well();
}

/// Feeds of the sources and connections to the target go through TLS, and strangers are not believed.
#[test]
fn feeds_and_targets_speak_tls() {
    let dir = Dir::new();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["cache.test".to_owned()]).expect("a certificate");
    let (cert_file, key_file) = (dir.file("cert.pem"), dir.file("key.pem"));
    fs::write(&cert_file, cert.pem()).expect("a file");
    fs::write(&key_file, signing_key.serialize_pem()).expect("a file");
    let files = format!("ssl_chain_cert={cert_file},ssl_key={key_file}");
    let tls = ["-Z", "-o", &files];
    let (from, to) = (ring(1, &tls), ring(1, &tls));
    let (from_list, to_list) = (list(&from), list(&to));
    let words = |from_name| {
        let to = [
            "--to",
            &to_list,
            "--ca",
            &cert_file,
            "--tls-name",
            "cache.test",
        ];
        let from_tls = ["--from-ca", &cert_file, "--from-tls-name", from_name];
        [&["--from", from_list.as_str()][..], &to[..], &from_tls[..]].concat()
    };
    let stranger = Relay::start(&words("other.test"));
    stranger.wait_to_say("the node does not let us in");
    stranger.kill();
    let ask = |words: &[&str], node: &str| {
        let tls = ["-s", node, "--ca", &cert_file, "--tls-name", "cache.test"];
        told(&[words, &tls].concat())
    };
    for more in [&[][..], &["--values"]] {
        let relay = Relay::start(&[&words("cache.test"), more].concat());
        let mut turn = 0;
        wait_until("it is carried over", || {
            turn += 1;
            let value = format!("new {turn}");
            assert_eq!(ask(&["set", "k", "old"], &to_list).0, 0);
            assert_eq!(ask(&["set", "k", &value], &from_list).0, 0);
            let until = Instant::now() + Duration::from_millis(300);
            while Instant::now() < until {
                let (status, found, _) = ask(&["get", "k"], &to_list);
                match more.is_empty() {
                    true if status != 0 => return true,
                    false if found == value => return true,
                    _ => {}
                }
            }
            false
        });
        relay.ends_well();
    }
}

/// Writes versions of keys, over and over, until it is told to stop.
fn write_on(source: &Client, over: &AtomicBool) -> u32 {
    let mut turn = 0;
    while !over.load(Relaxed) {
        turn += 1;
        // What waits at the end must be through in the patience of a test.
        thread::sleep(Duration::from_millis(10));
        let first = turn % 20 * 100;
        let entries = (first..first + 100).map(|n| (key(n), (format!("turn {turn} {n}"), n)));
        let stored = source.set_multi(entries, None);
        assert!(stored.iter().all(Result::is_ok));
        if turn % 3 == 0 {
            let keys: Vec<String> = (first..first + 30).map(key).collect();
            let _ = source.delete_multi(&keys);
        }
    }
    turn
}

#[test]
fn a_link_that_is_cut_loses_nothing() {
    for values in [false, true] {
        let dir = Dir::new();
        let (from, to) = (ring(1, &[]), ring(1, &[]));
        let (source, target) = (client(&from), client(&to));
        for client in [&source, &target] {
            fill(client, 0..2000, "before");
        }
        let link = Link::to(&to[0]);
        let (spool, cursor) = (dir.file("spool,64"), dir.file("cursor"));
        let (from_list, address) = (list(&from), link.address());
        let mut words = vec![
            "--from", &from_list, "--to", &address, "--spool", &spool, "--cursor", &cursor,
            "--memory", "0.1", "-t", "500ms", "--every", "200ms",
        ];
        if values {
            words.push("--values");
        }
        let relay = Relay::start(&words);
        match values {
            true => carries_values(&from, &target),
            false => carries(&from, &target),
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| write_on(&source, &over));
            for _ in 0..2 {
                thread::sleep(Duration::from_millis(200));
                link.cut(true);
                thread::sleep(Duration::from_millis(2500));
                link.cut(false);
            }
            over.store(true, Relaxed);
            assert!(writer.join().expect("no panic") > 10);
        });
        match values {
            true => carries_values(&from, &target),
            false => carries(&from, &target),
        }
        wait_until("the spool is empty", || {
            fs::read_dir(dir.file("spool"))
                .expect("it is there")
                .count()
                == 0
        });
        let said = relay.ends_well();
        assert!(!said.contains("GAP") && !said.contains("LOST"), "{said}");
        let report = nothing_is_stale(&from_list, &list(&to));
        if values {
            assert_eq!(number(&report, "alone"), 0, "{report}");
        }
    }
}

#[test]
fn a_relay_that_is_killed_goes_on_at_its_cursor() {
    for values in [false, true] {
        let dir = Dir::new();
        let (from, to) = (ring(2, &[]), ring(2, &[]));
        let (source, target) = (client(&from), client(&to));
        for client in [&source, &target] {
            fill(client, 0..2000, "before");
        }
        let (from_list, to_list, cursor) = (list(&from), list(&to), dir.file("cursor"));
        let mut words = vec!["--from", &from_list, "--to", &to_list, "--cursor", &cursor];
        if values {
            words.push("--values");
        }
        let start = || Relay::start(&words);
        let mut relay = start();
        match values {
            true => carries_values(&from, &target),
            false => carries(&from, &target),
        }
        wait_until("there is a cursor", || Path::new(&cursor).exists());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| write_on(&source, &over));
            for pause_ms in [50, 700, 1300] {
                thread::sleep(Duration::from_millis(pause_ms));
                std::mem::replace(&mut relay, start()).kill();
            }
            thread::sleep(Duration::from_millis(100));
            over.store(true, Relaxed);
            writer.join().expect("no panic");
        });
        match values {
            true => carries_values(&from, &target),
            false => carries(&from, &target),
        }
        let said = relay.ends_well();
        assert!(
            !said.contains("GAP") && !said.contains("no cursor"),
            "{said}"
        );
        nothing_is_stale(&from_list, &to_list);
        let text = fs::read_to_string(&cursor).expect("it is there");
        assert!(
            text.starts_with("ketch relay cursor 1\npurge no\n127.0.0.1:"),
            "{text}"
        );
    }
}

/// What cannot be known any more is deleted, and it is said.
#[test]
fn a_ring_that_overflows_is_a_gap() {
    let dir = Dir::new();
    let (from, to) = (ring(1, &["-o", "feed_ring=1"]), ring(2, &[]));
    let (source, target) = (client(&from), client(&to));
    let (from_list, to_list, cursor) = (list(&from), list(&to), dir.file("cursor"));
    let words = ["--from", &from_list, "--to", &to_list, "--cursor", &cursor];
    let relay = Relay::start(&words);
    carries(&from, &target);
    for client in [&source, &target] {
        fill(client, 0..2000, "before");
    }
    // What another region wrote after it is kept until the gap.
    wait_until("the cursor follows", || {
        fill(&target, 0..2000, "before");
        thread::sleep(Duration::from_millis(50));
        held(&target, 0..2000) == 2000
    });
    relay.signal("-STOP");
    fill(&source, 0..100, "missed");
    much(&source);
    relay.signal("-CONT");
    relay.wait_to_say("GAP at 127.0.0.1");
    relay.wait_to_say("what was missed is deleted there");
    carries(&from, &target);
    assert_eq!(held(&target, 0..2000), 0);
    relay.ends_well();
    nothing_is_stale(&from_list, &to_list);

    // Who wants to look first stops.
    let words = [&words[..], &["--on-gap", "stop"]].concat();
    let mut relay = Relay::start(&words);
    carries(&from, &target);
    let before = fs::read_to_string(&cursor).expect("it is there");
    relay.signal("-STOP");
    much(&source);
    relay.signal("-CONT");
    let status = relay.child.wait().expect("ours");
    assert_eq!(status.code(), Some(1));
    let place = |text: &str| {
        text.lines().nth(2).and_then(|line| {
            line.split(' ')
                .nth(1)?
                .split_once(':')?
                .1
                .parse::<u64>()
                .ok()
        })
    };
    let after = fs::read_to_string(&cursor).expect("it is there");
    let moved = place(&after).expect("a place") - place(&before).expect("a place");
    assert!(moved < 100_000, "{before} {after}");
}

#[test]
fn a_node_that_starts_again_is_a_gap() {
    let dir = Dir::new();
    let (mut from, to) = (ring(2, &[]), ring(1, &[]));
    let target = client(&to);
    let (from_list, to_list, cursor) = (list(&from), list(&to), dir.file("cursor"));
    let words = ["--from", &from_list, "--to", &to_list, "--cursor", &cursor];
    let relay = Relay::start(&words);
    carries(&from, &target);
    fill(&target, 0..1000, "before");
    from[1].kill();
    relay.wait_to_say("trying again");
    // The other node is followed meanwhile.
    carries(&from[..1], &target);
    assert_eq!(held(&target, 0..1000), 1000);
    from[1].restart();
    relay.wait_to_say("GAP at ");
    wait_until("all is deleted", || held(&target, 0..1000) == 0);
    carries(&from, &target);
    let said = relay.ends_well();
    assert_eq!(said.matches("GAP at ").count(), 1, "{said}");
    // The same while the relay is away.
    fill(&target, 0..1000, "before");
    from[0].kill();
    from[0].restart();
    let relay = Relay::start(&words);
    relay.wait_to_say("GAP at ");
    wait_until("all is deleted", || held(&target, 0..1000) == 0);
    relay.ends_well();
}

#[test]
fn a_spool_that_is_full_or_cannot_be_written_is_said_and_made_good() {
    for (before, size, memory) in [
        ("true", "1", "0.1"),
        // No file may be larger than 200 KB, as on a disk that is full.
        ("trap '' XFSZ; ulimit -f 200", "64", "0.1"),
    ] {
        let dir = Dir::new();
        let (from, to) = (ring(1, &[]), ring(1, &[]));
        let (source, target) = (client(&from), client(&to));
        let link = Link::to(&to[0]);
        let (spool, cursor) = (format!("{},{size}", dir.file("spool")), dir.file("cursor"));
        let words = [
            "--from",
            &list(&from),
            "--to",
            &link.address(),
            "--spool",
            &spool,
            "--cursor",
            &cursor,
            "--memory",
            memory,
            "-t",
            "500ms",
            "--every",
            "0",
        ];
        let relay = Relay::start_after(before, &words);
        carries(&from, &target);
        fill(&target, 0..60_000, "before");
        link.cut(true);
        fill(&source, 0..60_000, "after");
        relay.wait_to_say("SPOOL LOST");
        wait_until("the cursor says so", || {
            fs::read_to_string(&cursor).is_ok_and(|text| text.contains("purge yes"))
        });
        // Killed by then, another one knows of it.
        relay.kill();
        let relay = Relay::start(&words);
        relay.wait_to_say("something was missed");
        link.cut(false);
        relay.wait_to_say("what was missed is deleted there");
        assert_eq!(held(&target, 0..60_000), 0);
        relay.ends_well();
        nothing_is_stale(&list(&from), &list(&to));
        let text = fs::read_to_string(&cursor).expect("it is there");
        assert!(text.contains("purge no"), "{text}");
    }
}

#[test]
fn a_cursor_that_cannot_be_written_is_said_and_costs_nothing() {
    let dir = Dir::new();
    let (from, to) = (ring(1, &[]), ring(1, &[]));
    let (from_list, to_list, cursor) = (list(&from), list(&to), dir.file("cursor"));
    let target = client(&to);
    let words = ["--from", &from_list, "--to", &to_list, "--cursor", &cursor];
    let relay = Relay::start_after("trap '' XFSZ; ulimit -f 0", &words);
    carries(&from, &target);
    relay.wait_to_say("CURSOR NOT WRITTEN");
    carries(&from, &target);
    let (status, said) = relay.stop();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!Path::new(&cursor).exists());
    // One that is no cursor is not taken for one.
    fs::write(&cursor, "ketch relay cursor 1\npurge no\n127.0.0.1:1 x").expect("a file");
    let mut relay = Relay::start(&words);
    assert_eq!(relay.child.wait().expect("ours").code(), Some(1));
    relay.wait_to_say("it is no cursor of a relay");
}

#[test]
fn garbage_of_a_node_is_no_event() {
    let (from, to) = (ring(1, &[]), ring(1, &[]));
    let target = client(&to);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        let answers: [&[u8]; 4] = [
            b"OK\r\nFEED 0000000000000001 5\n1 6 delete md user:1",
            b"OK\r\nFEED 0000000000000001 5\n2 7 delete md user:1 0 0\n",
            b"\x80\0\0\0 garbage \xff\xff\n\n\n",
            b"OK\r\nFEED x y\n",
        ];
        for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let (mut stream, answer) = (stream, answers[n % answers.len()]);
            let _ = stream.write_all(answer);
            let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
            let _ = stream.read(&mut [0; 100]);
        }
    });
    let rings = format!("{},{address}", list(&from));
    let relay = Relay::start(&["--from", &rings, "--to", &list(&to), "--every", "0"]);
    relay.wait_to_say(&format!("{address}: "));
    fill(&target, 0..10, "before");
    carries(&from, &target);
    relay.wait_to_say("trying again");
    assert_eq!(held(&target, 0..10), 10);
    relay.ends_well();
}

#[test]
fn lines_of_json_with_and_without_a_target() {
    let dir = Dir::new();
    let (from, to) = (ring(1, &[]), ring(1, &[]));
    let (source, target) = (client(&from), client(&to));
    let (from_list, to_list, cursor) = (list(&from), list(&to), dir.file("cursor"));
    let words = ["--from", &from_list, "--json", "--cursor", &cursor];
    let seen = |relay: &Relay, key: &str| {
        let lines = relay.lines.lock().expect("no panic").clone();
        let parsed = lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let found: Vec<serde_json::Value> = parsed.collect();
        found
            .into_iter()
            .filter(|line| line["key"] == key)
            .collect::<Vec<_>>()
    };
    let relay = Relay::start(&words);
    wait_until("it follows", || {
        source.set("first", "1", None).expect("up");
        thread::sleep(Duration::from_millis(10));
        !seen(&relay, "first").is_empty()
    });
    source.set("user \u{e4} \"1\"", "x", None).expect("up");
    source.delete("user:2").expect("up");
    source
        .touch("user \u{e4} \"1\"", Duration::from_secs(9))
        .expect("up");
    wait_until("three lines", || {
        seen(&relay, "user \u{e4} \"1\"").len() == 2 && seen(&relay, "user:2").len() == 1
    });
    let line = seen(&relay, "user:2").remove(0);
    assert_eq!(
        (line["event"].as_str(), line["origin"].as_u64()),
        (Some("delete"), Some(0))
    );
    assert_eq!(line["node"].as_str(), Some(from_list.as_str()));
    relay.ends_well();
    // What happens while it is away comes when it is back, once.
    source.set("meanwhile", "x", None).expect("up");
    let words = [&words[..], &["--to", &to_list]].concat();
    let relay = Relay::start(&words);
    target.set("also here", "old", None).expect("up");
    source.set("also here", "new", None).expect("up");
    wait_until("it goes there", || {
        target.get("also here").expect("up").is_none()
    });
    wait_until("lines", || !seen(&relay, "also here").is_empty());
    assert_eq!(seen(&relay, "meanwhile").len(), 1);
    assert!(seen(&relay, "user:2").is_empty());
    relay.ends_well();
}

#[test]
fn nodes_that_come_and_go_are_followed() {
    let dir = Dir::new();
    let (from, to) = (ring(2, &[]), ring(2, &[]));
    let (from_file, to_file) = (dir.file("from"), dir.file("to"));
    let write = |file: &str, servers: &[Server]| {
        let text = list(servers).replace(',', "\n") + "\n";
        fs::write(file, text).expect("a file");
    };
    write(&from_file, &from[..1]);
    write(&to_file, &to[..1]);
    let (from_ring, to_ring) = (format!("file://{from_file}"), format!("file://{to_file}"));
    let relay = Relay::start(&["--from", &from_ring, "--to", &to_ring]);
    let first = client(&to[..1]);
    carries(&from[..1], &first);
    first.set("user:1", "x", None).expect("up");
    write(&from_file, &from);
    relay.wait_to_say("has joined the ring");
    // What was written on it before is not known.
    relay.wait_to_say("what was missed is deleted there");
    assert!(first.get("user:1").expect("up").is_none());
    carries(&from, &first);
    write(&to_file, &to);
    relay.wait_to_say("the target has 2 nodes now");
    carries(&from, &client(&to));
    write(&from_file, &from[1..]);
    relay.wait_to_say("has left the ring");
    carries(&from[1..], &client(&to));
    relay.ends_well();
}

#[test]
fn a_target_that_is_down_is_tried_until_it_is_back() {
    let (from, mut to) = (ring(1, &[]), ring(2, &[]));
    let source = client(&from);
    let relay = Relay::start(&["--from", &list(&from), "--to", &list(&to), "-t", "1"]);
    carries(&from, &client(&to));
    let lanes: HashMap<bool, Vec<u32>> = {
        let target = client(&to);
        fill(&target, 0..100, "before");
        let mut lanes = HashMap::<bool, Vec<u32>>::new();
        for n in (0..100).filter(|n| n % 10 > 0) {
            let there = to[1].holds(&key(n)).is_some();
            lanes.entry(there).or_default().push(n);
        }
        lanes
    };
    to[1].freeze(true);
    fill(&source, 0..100, "after");
    // The other node's keys do not wait for it.
    wait_until("the living node has its deletes", || {
        lanes[&false]
            .iter()
            .all(|n| to[0].holds(&key(*n)).is_none())
    });
    to[1].freeze(false);
    wait_until("and the other one too", || {
        lanes[&true].iter().all(|n| to[1].holds(&key(*n)).is_none())
    });
    relay.ends_well();
    to[0].kill();
}

#[test]
fn refusals_say_what_is_wrong() {
    for (words, why) in [
        (&["relay"][..], "--from is missing"),
        (&["relay", "--from", "a"], "--to is missing, or --json"),
        (
            &["relay", "--from", "a", "--to", "b", "--spool", "x"],
            "--spool x",
        ),
        (
            &["relay", "--from", "a", "--to", "b", "--on-gap", "x"],
            "--on-gap x",
        ),
        (
            &["relay", "--from", "a", "--to", "b", "--origin", "0"],
            "--origin 0",
        ),
        (&["relay", "--from", "a:0", "--to", "b"], "--from a:0"),
        (
            &[
                "relay",
                "--from",
                "a",
                "--to",
                "b",
                "--values",
                "--deletes-only",
            ],
            "do not go together",
        ),
        (
            &[
                "relay", "--from", "a", "--to", "b", "--on-gap", "flush", "--prefix", "x",
            ],
            "--on-gap flush",
        ),
    ] {
        let (status, _, errors) = told(words);
        assert_eq!(status, 2, "{errors}");
        assert!(errors.contains(why), "{words:?}: {errors}");
    }
    let (status, help, _) = told(&["relay", "--help"]);
    assert_eq!(status, 0);
    for option in [
        "--values", "--prefix", "--cursor", "--spool", "--rate", "--origin", "--json", "etcd://",
    ] {
        assert!(help.contains(option), "{option}: {help}");
    }
}
