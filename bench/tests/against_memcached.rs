//! The program against the original memcached (see `ketch_testing::memcached`):
//! every workload runs without an error, every mode's result is JSON and adds up.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ketch_testing::{Kind, Server, free_port, wait_until};
use serde_json::Value;

/// A memcached with one thread.
fn memcached(options: &[&str]) -> Server {
    Server::start_program(
        ketch_testing::memcached(),
        &[&["-t", "1"], options].concat(),
    )
}

fn address(server: &Server) -> String {
    match server.socket_path() {
        Some(path) => path.to_str().expect("a plain name").to_owned(),
        None => format!("127.0.0.1:{}", server.port()),
    }
}

fn bench(addr: impl AsRef<OsStr>, words: &str) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ketch-bench"));
    command
        .args(words.split_whitespace())
        .args(["-q", "-j", "-", "-s"])
        .arg(addr);
    command.output().expect("the program starts")
}

/// The JSON of a run that must succeed.
fn result(addr: impl AsRef<OsStr>, words: &str) -> Value {
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
    let server = memcached(&[]);
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
        let value = result(address(&server), &format!("{common} -k {keys} {load}"));
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
    let server = memcached(&[]);
    let page = std::env::temp_dir().join(format!("ketch-bench-{}.html", std::process::id()));
    let words = format!(
        "-w get -d 8 -T 1.2 -f --pid {} --html {}",
        server.pid(),
        page.display()
    );
    let value = result(address(&server), &words);
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
    let server = memcached(&[]);
    let value = result(address(&server), "-w mget -m 10 -r 20000 -T 0.5 -t 2 -f");
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
    let server = Kind::Memcached.start_unix();
    let value = result(address(&server), "-w mixed -v 50000 -k 100 -d 4 -n 2000 -f");
    assert_eq!(
        (&value["operations"], &value["errors"], &value["misses"]),
        (&2000.into(), &0.into(), &0.into())
    );
}

#[test]
fn an_exact_number_of_keys_and_known_misses() {
    let server = memcached(&[]);
    for load in ["-w get -d 7", "-w mget -m 9", "-w getkq"] {
        let value = result(
            address(&server),
            &format!("-k 1000 -n 5003 -t 2 -f --misses 0.25 {load}"),
        );
        assert_eq!(
            (&value["operations"], &value["errors"]),
            (&5003.into(), &0.into())
        );
        assert_eq!(
            result(address(&server), &format!("-n 1 {load}"))["operations"],
            1
        );
        let ratio = value["hit_ratio"].as_f64().expect("keys were read");
        assert!((0.7..0.8).contains(&ratio), "{ratio}");
    }
}

#[test]
fn what_another_wrote_is_an_error_and_shown() {
    let server = memcached(&[]);
    let load = "-w get -k 1 --key-size 5 -v 5 -c 1 -n 1";
    let mut peer = TcpStream::connect(address(&server)).expect("the server answers");
    for (value, error) in [("wrong", "wrong_content"), ("longer", "wrong_length")] {
        peer.write_all(format!("set key:0 0 0 {}\r\n{value}\r\n", value.len()).as_bytes())
            .expect("it is up");
        peer.read_exact(&mut [0; 8]).expect("STORED");
        let output = bench(address(&server), load);
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
    let server = memcached(&["-m", "8"]);
    let value = result(
        address(&server),
        &format!("fill -k 3000 -v 1000 --pid {}", server.pid()),
    );
    assert_eq!(
        (&value["stored"], &value["resident"]),
        (&3000.into(), &3000.into())
    );
    assert_eq!(value["payload_bytes"], 3000 * 1020);
    let value = result(address(&server), "fill -k 30000 -v 1000");
    let resident = value["resident"].as_u64().expect("a count");
    assert!(
        (3000..8500).contains(&resident),
        "{resident} items of 1 KB in 8 MB"
    );
    assert!(value["limit_bytes_an_item"].as_f64() > Some(1000.0));
}

#[test]
fn a_replay_counts_hits() {
    let server = memcached(&[]);
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
            address(&server),
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
    let server = memcached(&[]);
    let value = result(
        address(&server),
        &format!("idle -c 200 -T 0 --pid {}", server.pid()),
    );
    assert_eq!(value["connections"], 200);
    assert!(value["bytes_each"].is_number());
}

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
            .args(["floor", "-s", &port.to_string()])
            .args(load.split(' '))
            .stdout(Stdio::null());
        let floor = Ended(command.spawn().expect("the program starts"));
        let addr = format!("127.0.0.1:{port}");
        wait_until("the floor takes connections", || {
            TcpStream::connect(&addr).is_ok()
        });
        let value = result(&addr, &format!("--unchecked -c 4 -n 20000 {load}"));
        assert_eq!(
            (&value["operations"], &value["errors"]),
            (&20_000.into(), &0.into()),
            "{load}"
        );
        drop(floor);
    }
}
