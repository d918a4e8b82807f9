//! The program against Debian's memcached (from PATH, or the server named by KETCH_TEST_SERVER):
//! every workload runs without an error, every mode's result is JSON and adds up.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A server on loopback, ended with the test.
struct Server {
    child: Child,
    addr: String,
}

impl Server {
    fn start(options: &[&str]) -> Server {
        let program = std::env::var("KETCH_TEST_SERVER").unwrap_or_else(|_| "memcached".to_owned());
        // Someone else may take the port between the choice and the bind: then the server ends at once.
        for _ in 0..3 {
            let port = free_port();
            let mut command = Command::new(&program);
            command
                .args(["-l", "127.0.0.1", "-p", &port, "-U", "0", "-u", "root"])
                .args(options);
            let child = command.stderr(Stdio::null()).spawn();
            let child = child
                .unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs it"));
            let mut server = Server {
                child,
                addr: format!("127.0.0.1:{port}"),
            };
            if server.answers() {
                return server;
            }
        }
        panic!("{program} does not start");
    }

    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if self.child.try_wait().expect("the child is ours").is_some() {
                return false;
            }
            let mut line = [0; 8];
            if let Ok(mut peer) = TcpStream::connect(&self.addr)
                && peer.write_all(b"version\r\n").is_ok()
                && peer.read_exact(&mut line).is_ok()
            {
                return &line == b"VERSION ";
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    socket.local_addr().expect("it is bound").port().to_string()
}

fn bench(addr: &str, words: &str) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ketch-bench"));
    command
        .args(words.split_whitespace())
        .args(["-q", "-j", "-", "-s", addr]);
    command.output().expect("the program starts")
}

/// The JSON of a run that must succeed.
fn result(addr: &str, words: &str) -> Value {
    let output = bench(addr, words);
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {why}{text}");
    let value: Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words}: {e}\n{text}"));
    value
}

#[test]
fn every_workload_runs_without_errors() {
    let server = Server::start(&["-t", "1"]);
    let common = "run -c 6 -t 2 -T 0.15 -f";
    for (load, read, stored) in [
        ("-w get", true, false),
        ("-w get -d 32 -p zipf:0.99", true, false),
        ("-w mget -m 20 -v uniform:0-3000", true, false),
        ("-w mget -d 3", true, false),
        ("-w set -d 32", false, true),
        ("-w mixed -d 8 -v weighted:10@5,500@2,9000@1", true, true),
        ("-w mg -d 32", true, false),
        ("-w mmg", true, false),
        ("-w ms -d 32", false, true),
        ("-w meta -d 4", true, true),
        ("-w getkq", true, false),
        ("-w getkq -d 2 -v uniform:0-300", true, false),
        ("-w bset -d 8", false, true),
        ("-w binary -m 4 -d 4", true, true),
        ("-w get -v 100000 -d 2", true, false),
        ("-w set -v 100000 -d 10", false, true),
        ("-w mixed -r 3000", true, true),
        ("-w get -d 8 -W 0.1", true, false),
    ] {
        let keys = if load.contains("100000") { 100 } else { 2000 };
        let value = result(&server.addr, &format!("{common} -k {keys} {load}"));
        assert_eq!(value["errors"], 0, "{load}");
        assert_eq!(value["hits"].as_u64() > Some(0), read, "{load}");
        assert_eq!(value["stored"].as_u64() > Some(0), stored, "{load}");
        assert_eq!(value["misses"], 0, "{load}");
        assert!(
            value["p50_us"].as_f64() <= value["p99_us"].as_f64(),
            "{load}"
        );
        assert!(
            value["p99_us"].as_f64() <= value["max_us"].as_f64(),
            "{load}"
        );
    }
}

#[test]
fn a_run_has_samples_cpu_time_and_a_page() {
    let server = Server::start(&["-t", "1"]);
    let page = std::env::temp_dir().join(format!("ketch-bench-{}.html", std::process::id()));
    let words = format!(
        "-w get -d 8 -T 1.2 -f --pid {} --html {}",
        server.pid(),
        page.display()
    );
    let value = result(&server.addr, &words);
    assert_eq!(value["samples"].as_array().map(Vec::len), Some(1));
    assert!(value["server_cpu_us_per_op"].as_f64() > Some(0.0));
    assert!(value["server_resident_bytes"].as_f64() > Some(1e6));
    let html = fs::read_to_string(&page).expect("the page was written");
    fs::remove_file(&page).expect("it is ours");
    assert_eq!(html.matches("<svg").count(), 3);
    assert!(!html.contains("NaN") && !html.contains("http"));
}

#[test]
fn an_open_loop_asks_no_faster_than_its_rate() {
    let server = Server::start(&["-t", "1"]);
    let value = result(&server.addr, "-w mget -m 10 -r 20000 -T 0.5 -t 2 -f");
    let operations = value["operations"].as_u64().expect("a count");
    // What falls due at the very start, once a thread, comes on top.
    assert!((1..=10_020).contains(&operations), "{operations}");
}

/// A server that stalls once has stalled for all requests that fell due meanwhile.
#[test]
fn a_stall_shows_in_every_command_that_it_delayed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("it is bound").to_string();
    let server = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("the load connects");
        let mut request = [0; "get key:0000000000000000\r\n".len()];
        let mut first = true;
        while peer.read_exact(&mut request).is_ok() {
            if std::mem::take(&mut first) {
                std::thread::sleep(Duration::from_millis(300));
            }
            peer.write_all(b"END\r\n").expect("the load reads");
        }
    });
    let load = "-w get -c 1 --key-size 20 -T 0.5";
    let value = result(&addr, &format!("{load} -r 1000"));
    assert_eq!(value["hits"], 0);
    // 500 fall due; the first 300 wait from 300 ms down to none.
    assert!(value["p50_us"].as_f64() > Some(20_000.0), "{value}");
    server.join().expect("the server ends with its peer");
}

#[test]
fn a_unix_socket_will_do() {
    let path = std::env::temp_dir().join(format!("ketch-bench-{}.sock", std::process::id()));
    let path = path.to_str().expect("a plain name");
    let child = Command::new("memcached")
        .args(["-s", path, "-u", "root"])
        .spawn();
    let child = child.expect("memcached is installed by scripts/test");
    let server = Server {
        child,
        addr: path.to_owned(),
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::os::unix::net::UnixStream::connect(path).is_err() {
        assert!(Instant::now() < deadline, "the server does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    let value = result(&server.addr, "-w mixed -v 50000 -k 100 -d 4 -n 2000 -f");
    assert_eq!(
        (&value["operations"], &value["errors"], &value["misses"]),
        (&2000.into(), &0.into(), &0.into())
    );
    let _ = fs::remove_file(path);
}

#[test]
fn an_exact_number_of_keys_and_known_misses() {
    let server = Server::start(&["-t", "1"]);
    for load in ["-w get -d 7", "-w mget -m 9", "-w getkq"] {
        let value = result(
            &server.addr,
            &format!("-k 1000 -n 5003 -t 2 -f --misses 0.25 {load}"),
        );
        assert_eq!(
            (&value["operations"], &value["errors"]),
            (&5003.into(), &0.into())
        );
        assert_eq!(
            result(&server.addr, &format!("-n 1 {load}"))["operations"],
            1
        );
        let ratio = value["hit_ratio"].as_f64().expect("keys were read");
        assert!((0.7..0.8).contains(&ratio), "{ratio}");
    }
}

#[test]
fn what_another_wrote_is_an_error_and_shown() {
    let server = Server::start(&["-t", "1"]);
    let load = "-w get -k 1 --key-size 5 -v 5 -c 1 -n 1";
    let mut peer = TcpStream::connect(&server.addr).expect("the server answers");
    for (value, error) in [("wrong", "wrong_content"), ("longer", "wrong_length")] {
        peer.write_all(format!("set key:0 0 0 {}\r\n{value}\r\n", value.len()).as_bytes())
            .expect("it is up");
        peer.read_exact(&mut [0; 8]).expect("STORED");
        let output = bench(&server.addr, load);
        assert_eq!(output.status.code(), Some(1));
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            (&found[error], &found["errors"]),
            (&1.into(), &1.into()),
            "{found}"
        );
        assert!(
            found["first_error"]
                .as_str()
                .is_some_and(|text| text.contains("key 0"))
        );
    }
    assert_eq!(
        bench("127.0.0.1:1", load).status.code(),
        Some(2),
        "nobody listens there"
    );
}

#[test]
fn a_fill_counts_residents() {
    let server = Server::start(&["-t", "1", "-m", "8"]);
    let value = result(
        &server.addr,
        &format!("fill -k 3000 -v 1000 --pid {}", server.pid()),
    );
    assert_eq!(
        (&value["stored"], &value["resident"]),
        (&3000.into(), &3000.into())
    );
    assert_eq!(value["payload_bytes"], 3000 * 1020);
    let value = result(&server.addr, "fill -k 30000 -v 1000");
    let resident = value["resident"].as_u64().expect("a count");
    assert!(
        (3000..8500).contains(&resident),
        "{resident} items of 1 KB in 8 MB"
    );
    assert!(value["limit_bytes_an_item"].as_f64() > Some(1000.0));
}

#[test]
fn a_replay_counts_hits() {
    let server = Server::start(&["-t", "1"]);
    let path: PathBuf =
        std::env::temp_dir().join(format!("ketch-bench-{}.trace", std::process::id()));
    // Four passes over 500 objects, all of which fit.
    let trace: String = (0..2000).map(|i| format!("{}\n", i % 500)).collect();
    fs::write(&path, trace).expect("a temporary file");
    for (load, cached) in [
        ("-w get", false),
        ("-w mg -d 16", true),
        ("-w getkq -d 7", true),
    ] {
        let value = result(
            &server.addr,
            &format!("replay {} -k 1000 {load}", path.display()),
        );
        // The first finds nothing, the others everything.
        let misses = if cached { 0 } else { 500 };
        assert_eq!(
            (&value["requests"], &value["misses"]),
            (&2000.into(), &misses.into()),
            "{load}"
        );
        assert_eq!(value["errors"], 0);
        assert_eq!(
            value["hit_ratio"], value["byte_hit_ratio"],
            "all values are alike"
        );
    }
    fs::remove_file(&path).expect("it is ours");
}

#[test]
fn idle_connections_are_held() {
    let server = Server::start(&["-t", "1"]);
    let value = result(
        &server.addr,
        &format!("idle -c 200 -T 0 --pid {}", server.pid()),
    );
    assert_eq!(value["connections"], 200);
    assert!(value["bytes_each"].is_number());
}

#[test]
fn the_floor_answers_every_workload() {
    for load in [
        "-w get -d 32",
        "-w mget -v 3000",
        "-w mg",
        "-w getkq -d 2",
        "-w set -d 32",
        "-w ms -v 100000",
        "-w bset",
    ] {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ketch-bench"));
        command
            .args(["floor", "-s", &port])
            .args(load.split(' '))
            .stdout(Stdio::null());
        let child = command.spawn().expect("the program starts");
        let server = Server {
            child,
            addr: format!("127.0.0.1:{port}"),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&server.addr).is_err() {
            assert!(Instant::now() < deadline, "the floor does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let value = result(&server.addr, &format!("--unchecked -c 4 -n 20000 {load}"));
        assert_eq!(
            (&value["operations"], &value["errors"]),
            (&20_000.into(), &0.into()),
            "{load}"
        );
    }
}
