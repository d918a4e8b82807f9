//! A server with a memory file (`-e`), ended in any way, and the one that goes on with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ketch_testing::{Conn, Server};

const END_PATIENCE: Duration = Duration::from_secs(10);

/// A path of a test's own, on a tmpfs where there is one, whose file is removed.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ketch-wire-{}-{}",
            std::process::id(),
            MADE.fetch_add(1, Relaxed)
        );
        let shm = PathBuf::from("/dev/shm");
        let dir = if shm.is_dir() {
            shm
        } else {
            std::env::temp_dir()
        };
        Place(dir.join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    fn server(&self, more: &[&str]) -> Server {
        Server::start(&[&["-e", self.path()], more].concat())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn value(n: usize, version: u64) -> String {
    format!("{n}:{version}:").repeat(1 + n % 40)
}

#[track_caller]
fn end(server: &mut Server, signal: libc::c_int) {
    server.signal(signal);
    server.wait_exit(END_PATIENCE);
}

fn fill(conn: &mut Conn, keys: usize) {
    for n in 0..keys {
        assert_eq!(conn.set(&format!("k{n}"), value(n, 0).as_bytes()), "STORED");
    }
}

/// How many keys are there, each with the value it was stored with.
fn count(conn: &mut Conn, keys: usize) -> usize {
    let there = |&n: &usize| match conn.get(&format!("k{n}")) {
        Some(bytes) => {
            assert_eq!(bytes, value(n, 0).into_bytes(), "k{n}");
            true
        }
        None => false,
    };
    (0..keys).filter(there).count()
}

/// Why a server does not start.
#[track_caller]
fn refusal(args: &[&str]) -> String {
    let out = Command::new(ketch_testing::binary())
        .args(["-p", "-1", "-u", "root"])
        .args(args)
        .output()
        .expect("the server's program");
    assert!(!out.status.success(), "{args:?}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

const KEYS: usize = 2000;

#[test]
fn every_signal_that_ends_a_server_leaves_its_items() {
    let place = Place::new();
    let mut server = place.server(&[]);
    let mut conn = server.connect();
    fill(&mut conn, KEYS);
    assert_eq!(server.stats("restart")["memory_file"], "cold");
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
        end(&mut server, signal);
        // Within the same second.
        server = place.server(&[]);
        let told = server.stats("restart");
        assert_eq!(told["memory_file"], "attached", "signal {signal}: {told:?}");
        assert_eq!(told["memory_file_items"], KEYS.to_string());
        assert_eq!(count(&mut server.connect(), KEYS), KEYS);
        let settings = server.stats("settings");
        assert_eq!(settings["memory_file"], place.path());
    }
}

/// Killed as soon as it has acknowledged something.
#[test]
fn a_server_that_is_killed_at_once_has_kept_what_it_acknowledged() {
    for _ in 0..20 {
        let place = Place::new();
        let mut server = place.server(&[]);
        server.connect().round("set a 0 0 1\r\n1\r\n", "STORED\r\n");
        server.kill();
        server.restart();
        assert_eq!(server.stats("restart")["memory_file"], "walked");
        assert_eq!(server.connect().get("a"), Some(b"1".to_vec()));
    }
}

#[test]
fn other_options_find_the_items() {
    let place = Place::new();
    let mut server = place.server(&["-m", "64"]);
    let mut conn = server.connect();
    fill(&mut conn, KEYS);
    assert_eq!(conn.ask("set ends 5 1000 1\r\nx\r\n"), "STORED");
    let unique = conn.cas_of("ends");
    for (options, how) in [
        (&["-m", "128"][..], "attached"),
        (&["-m", "32"], "attached"),
        (&["-t", "1"], "attached"),
        (&["-o", "eviction=lru"], "attached"),
        (&["-I", "2m"], "attached"),
        (&["-m", "1024"], "imported"),
        (&["-f", "1.5"], "imported"),
        (&["-n", "100"], "imported"),
    ] {
        end(&mut server, libc::SIGTERM);
        server = place.server(options);
        let told = server.stats("restart");
        assert_eq!(told["memory_file"], how, "{options:?}: {told:?}");
        let mut conn = server.connect();
        assert_eq!(count(&mut conn, KEYS), KEYS, "{options:?}");
        assert_eq!(conn.cas_of("ends"), unique, "{options:?}");
        let told = conn.ask("mg ends t f\r\n");
        let ttl = told
            .strip_prefix("HD t")
            .and_then(|told| told.strip_suffix(" f5"));
        let ttl: u32 = ttl
            .and_then(|ttl| ttl.parse().ok())
            .expect("HD t<seconds> f5");
        assert!((900..=1000).contains(&ttl), "{ttl}");
    }
}

#[test]
fn after_kill_under_load_no_value_is_wrong_and_almost_all_are_there() {
    const WRITERS: usize = 3;
    const KEYS_EACH: usize = 1500;
    let place = Place::new();
    let mut server = place.server(&["-m", "64"]);
    // Of each key the version that was acknowledged last, and the last one that was sent.
    let acked: Vec<AtomicU64> = (0..WRITERS * KEYS_EACH)
        .map(|_| AtomicU64::new(0))
        .collect();
    let sent: Vec<AtomicU64> = (0..WRITERS * KEYS_EACH)
        .map(|_| AtomicU64::new(0))
        .collect();
    let mut version = 0;
    for round in 0..4 {
        let stop = AtomicBool::new(false);
        version += 1_000_000;
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let mut conn = server.connect();
                let (acked, sent, stop) = (&acked, &sent, &stop);
                scope.spawn(move || {
                    for step in 0.. {
                        let n = writer * KEYS_EACH + step * 7 % KEYS_EACH;
                        let version = version + step as u64;
                        let value = value(n, version);
                        sent[n].store(version, Relaxed);
                        let request = format!("set k{n} 0 0 {}\r\n{value}\r\n", value.len());
                        if stop.load(Relaxed) || conn.try_send(&request).is_err() {
                            break;
                        }
                        // The server is killed somewhere in between.
                        let answer = catch_unwind(AssertUnwindSafe(|| conn.expect_line()));
                        match answer {
                            Ok(line) if line == "STORED" => acked[n].store(version, Relaxed),
                            _ => break,
                        }
                    }
                });
            }
            let mut other = server.connect();
            ketch_testing::wait_within("the load is on", Duration::from_secs(30), || {
                other.stat("cmd_set") > 6000
            });
            server.kill();
            stop.store(true, Relaxed);
        });
        server = place.server(&["-m", "64"]);
        let told = server.stats("restart");
        assert_eq!(told["memory_file"], "walked", "{told:?}");
        let mut conn = server.connect();
        let mut there = 0;
        for n in 0..WRITERS * KEYS_EACH {
            let Some(bytes) = conn.get(&format!("k{n}")) else {
                continue;
            };
            there += 1;
            let (acked, sent) = (acked[n].load(Relaxed), sent[n].load(Relaxed));
            // What was on its way when the server was killed may have been stored or not.
            assert!(
                [acked, sent]
                    .iter()
                    .any(|&version| bytes == value(n, version).into_bytes()),
                "round {round}: k{n} is neither version {acked} nor {sent}"
            );
        }
        let stored = acked.iter().filter(|acked| acked.load(Relaxed) > 0).count();
        assert!(
            there * 100 >= stored * 99,
            "round {round}: {there} of {stored}"
        );
    }
}

/// Whatever a start has come to when it is killed, attaching or walking, the next one finds all items.
#[test]
fn a_server_that_is_killed_while_it_starts_loses_nothing() {
    let place = Place::new();
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let mut server = place.server(&["-m", "64"]);
        fill(&mut server.connect(), KEYS);
        end(&mut server, signal);
        for round in 0..12 {
            let mut start = Command::new(ketch_testing::binary())
                .args(["-p", "-1", "-u", "root", "-m", "64", "-e", place.path()])
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("the server's program");
            // Another step each time: a start takes some ten milliseconds.
            std::thread::sleep(Duration::from_millis(round * 4));
            start.kill().expect("it is ours");
            start.wait().expect("it is ours");
        }
        let mut server = place.server(&["-m", "64"]);
        let told = server.stats("restart");
        assert_ne!(told["memory_file"], "cold", "{told:?}");
        assert_eq!(count(&mut server.connect(), KEYS), KEYS);
        end(&mut server, libc::SIGTERM);
    }
}

#[test]
fn two_servers_do_not_share_a_file() {
    let place = Place::new();
    let server = place.server(&[]);
    let mut conn = server.connect();
    fill(&mut conn, 10);
    let refused = refusal(&["-e", place.path()]);
    assert!(refused.contains("another process has it open"), "{refused}");
    assert_eq!(count(&mut conn, 10), 10);
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let place = Place::new();
    std::fs::write(&place.0, "a letter").expect("written");
    let refused = refusal(&["-e", place.path()]);
    assert!(
        refused.contains("there is something else in it"),
        "{refused}"
    );
    assert_eq!(
        std::fs::read_to_string(&place.0).expect("still there"),
        "a letter"
    );
}

#[test]
fn without_space_the_start_is_refused() {
    let place = Place::new();
    // More than any machine's tmpfs has, and less than `-m` allows.
    let refused = refusal(&["-e", place.path(), "-m", "262144"]);
    assert!(refused.contains("MB left"), "{refused}");
}

/// The memory file is taken while it is warm; where it is gone, the snapshot and the log have all of it.
#[test]
fn with_a_snapshot_beside_it_the_memory_file_comes_first() {
    let place = Place::new();
    let dir = std::env::temp_dir().join(format!("ketch-both-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let options = format!("snapshot={0}/snapshot,log={0}/log", dir.display());
    let options = ["-o", &options];
    let mut server = place.server(&options);
    fill(&mut server.connect(), KEYS);
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        server.signal(signal);
        server.wait_exit(END_PATIENCE);
        server = place.server(&options);
        let told = server.stats("restart");
        let how = if signal == libc::SIGKILL {
            "walked"
        } else {
            "attached"
        };
        assert_eq!(
            (&*told["memory_file"], &*told["snapshot"]),
            (how, "not needed")
        );
        let mut conn = server.connect();
        assert_eq!(count(&mut conn, KEYS), KEYS);
        ketch_testing::wait_within("what was warm is written down", END_PATIENCE, || {
            conn.stat("ketch_snapshot_written") == 1
        });
    }
    // What changes now is in the log alone, if the memory is lost.
    let mut conn = server.connect();
    assert_eq!(conn.set("k0", b"newer"), "STORED");
    assert_eq!(conn.ask("delete k1\r\n"), "DELETED");
    server.kill();
    std::fs::remove_file(place.path()).expect("it is there");
    server = place.server(&options);
    let told = server.stats("restart");
    assert_eq!(
        (&*told["memory_file"], &*told["snapshot"]),
        ("cold", "loaded")
    );
    let mut conn = server.connect();
    assert_eq!(conn.get("k0"), Some(b"newer".to_vec()));
    assert_eq!(conn.get("k1"), None);
    assert_eq!(conn.set("k0", value(0, 0).as_bytes()), "STORED");
    assert_eq!(count(&mut conn, KEYS), KEYS - 1);
    drop(server);
    std::fs::remove_dir_all(&dir).expect("it is ours");
}
