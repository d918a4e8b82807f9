//! `-o snapshot`: what a server keeps over its end, and what of it another one takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use ketch_testing::{Rng, Server, rounds, wait_within};

/// How long a server may take to end, and to write its snapshot before.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let nth = COUNT.fetch_add(1, Relaxed);
        let name = format!("ketch-wire-snapshot-{}-{nth}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("snapshot")
    }

    fn option(&self) -> String {
        format!("snapshot={}", self.file().display())
    }

    fn start(&self, args: &[&str]) -> Server {
        let option = self.option();
        Server::start(&[&["-o", &option], args].concat())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn end(server: &mut Server, signal: libc::c_int) {
    server.signal(signal);
    let status = server.wait_exit(END_PATIENCE);
    assert_eq!(status.code(), Some(0), "{status}");
}

/// Asks for a snapshot and waits until it is there.
#[track_caller]
fn snapshot(server: &Server) {
    let before = server.stat("ketch_snapshot_written");
    server.connect().round("snapshot\r\n", "OK\r\n");
    wait_within("the snapshot is written", END_PATIENCE, || {
        server.stat("ketch_snapshot_written") > before
    });
}

fn restart_figure(server: &Server, name: &str) -> u64 {
    let figures = server.stats("restart");
    figures
        .get(name)
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name} in {figures:?}"))
}

/// Fails unless the item has about so many seconds left.
#[track_caller]
fn check_ttl(conn: &mut ketch_testing::Conn, key: &str, about: i64) {
    let line = conn.ask(format!("mg {key} t u\r\n"));
    let left = line.split(" t").nth(1).and_then(|rest| {
        let digits = rest.split(' ').next()?;
        digits.parse::<i64>().ok()
    });
    let left = left.unwrap_or_else(|| panic!("{key}: {line}"));
    assert!((about - 60..=about).contains(&left), "{key}: {left}");
}

#[test]
fn each_clean_end_keeps_the_cache() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
        let folder = Folder::new();
        let mut server = folder.start(&["-m", "64"]);
        let mut conn = server.connect();
        conn.round(
            "ms a 5 F7 T1000 E123456|hello|".replace('|', "\r\n"),
            "HD\r\n",
        );
        conn.round("set b 0 0 1\r\nx\r\n", "STORED\r\n");
        conn.round("ms YQBi 2 b|hi|".replace('|', "\r\n"), "HD\r\n");
        conn.round("md b I\r\n", "HD\r\n");
        let big: Vec<u8> = (0..900_000u32).map(|n| (n >> 8) as u8).collect();
        assert_eq!(conn.set("big", &big), "STORED");
        conn.round("set gone 0 0 1\r\nx\r\n", "STORED\r\n");
        conn.round("delete gone\r\n", "DELETED\r\n");
        let cas = conn.cas_of("b");
        end(&mut server, signal);

        // Another size, number of threads, policy and largest item.
        let again = folder.start(&["-m", "128", "-t", "3", "-I", "2m", "-o", "eviction=lru"]);
        let mut conn = again.connect();
        conn.round_like("mg a v f c t\r\n", "VA 5 f7 c123456 t{n}\r\nhello\r\n");
        conn.round("mg YQBi b v k\r\n", "VA 2 kYQBi b\r\nhi\r\n");
        conn.round("mg b v c\r\n", format!("VA 1 c{cas} X W\r\nx\r\n"));
        assert_eq!(conn.get("big").as_deref(), Some(&big[..]));
        conn.round("get gone\r\n", "END\r\n");
        assert_eq!(restart_figure(&again, "snapshot_items"), 4);
        assert_eq!(restart_figure(&again, "snapshot_blocks_lost"), 0);
        assert_eq!(again.stat("curr_items"), 4);
        conn.round("set c 0 0 1\r\nx\r\n", "STORED\r\n");
        assert!(conn.cas_of("c") > cas);
    }
}

#[test]
fn the_command_says_what_it_did() {
    let plain = Server::start(&[]);
    plain.connect().round(
        "snapshot\r\n",
        "CLIENT_ERROR snapshots are off, start the server with -o snapshot=FILE\r\n",
    );
    let folder = Folder::new();
    // Slow enough to be met at work.
    let server = folder.start(&["-m", "64", "-o", "snapshot_rate=1"]);
    let mut conn = server.connect();
    let value = vec![b'v'; 100_000];
    for n in 0..100 {
        assert_eq!(conn.set(&format!("k{n}"), &value), "STORED");
    }
    conn.round("snapshot\r\n", "OK\r\n");
    conn.round("snapshot\r\n", "BUSY a snapshot is being written\r\n");
    wait_within("it is seen at work", END_PATIENCE, || {
        server.stat("ketch_snapshot_running") == 1
    });
    assert_eq!(server.stat("ketch_snapshot_written"), 0);
    // The end does not wait for what is slow, and still writes all.
    let mut server = server;
    end(&mut server, libc::SIGTERM);
    let again = folder.start(&["-m", "64"]);
    assert_eq!(restart_figure(&again, "snapshot_items"), 100);
}

#[test]
fn snapshots_come_by_themselves() {
    let folder = Folder::new();
    let mut server = folder.start(&[
        "-m",
        "64",
        "-o",
        "snapshot_interval=1,snapshot_compress=lz4",
    ]);
    let mut conn = server.connect();
    assert_eq!(conn.set("a", &vec![b'a'; 500_000]), "STORED");
    let before = server.stat("ketch_snapshot_written");
    wait_within("two snapshots", END_PATIENCE, || {
        server.stat("ketch_snapshot_written") >= before + 2
    });
    server.kill();
    assert!(
        fs::metadata(folder.file()).unwrap().len() < 100_000,
        "compressed"
    );
    let again = folder.start(&["-m", "64"]);
    assert_eq!(
        again.connect().get("a").map(|value| value.len()),
        Some(500_000)
    );
}

/// A value that says which it is, so that no other can pass for it.
fn value_of(key: u32, version: u32) -> Vec<u8> {
    let text = format!("<{key}/{version}>");
    let repeated = 1 + (key as usize * 31 + version as usize * 7) % 60;
    let repeated = if key.is_multiple_of(50) {
        repeated * 300
    } else {
        repeated
    };
    text.repeat(repeated).into_bytes()
}

#[track_caller]
fn version_of(key: u32, value: &[u8]) -> u32 {
    let text = std::str::from_utf8(value).expect("text");
    let first = text.split('>').next().unwrap_or_default();
    let version = first
        .strip_prefix(&format!("<{key}/"))
        .unwrap_or_else(|| panic!("another's value for {key}: {first}"));
    let version = version.parse().expect("a number");
    assert!(
        value == value_of(key, version),
        "key {key}, version {version}"
    );
    version
}

/// Stores all the time while `during` runs.
fn under_load<R>(server: &Server, keys: u32, during: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2u32 {
            let stop = &stop;
            let mut conn = server.connect();
            scope.spawn(move || {
                let mut version = 0;
                while !stop.load(Relaxed) {
                    version += 1;
                    for key in (worker..keys).step_by(2) {
                        let value = value_of(key, version);
                        let mut command =
                            format!("set k{key} 0 0 {} noreply\r\n", value.len()).into_bytes();
                        command.extend_from_slice(&value);
                        command.extend_from_slice(b"\r\n");
                        if conn.try_send(&command).is_err() {
                            return;
                        }
                    }
                }
            });
        }
        let done = during();
        stop.store(true, Relaxed);
        done
    })
}

#[track_caller]
fn check_all(server: &Server, keys: u32) -> u32 {
    let mut conn = server.connect();
    let mut found = 0;
    for key in 0..keys {
        if let Some(value) = conn.get(&format!("k{key}")) {
            version_of(key, &value);
            found += 1;
        }
    }
    found
}

const KEYS: u32 = 3000;

fn fill(server: &Server) {
    let mut conn = server.connect();
    for key in 0..KEYS {
        assert_eq!(conn.set(&format!("k{key}"), &value_of(key, 0)), "STORED");
    }
}

#[test]
fn a_snapshot_under_load_holds_every_key_and_no_wrong_value() {
    let folder = Folder::new();
    let mut server = folder.start(&["-m", "64", "-t", "2"]);
    fill(&server);
    under_load(&server, KEYS, || (0..3).for_each(|_| snapshot(&server)));
    server.kill();
    let again = folder.start(&["-m", "100", "-t", "4", "-o", "eviction=slru"]);
    assert_eq!(check_all(&again, KEYS), KEYS);
}

/// A crash at any moment of a snapshot leaves the last one.
#[test]
fn a_crash_during_a_snapshot_leaves_the_one_before() {
    let folder = Folder::new();
    let mut rng = Rng::from_env("snapshot");
    let mut server = folder.start(&["-m", "64", "-t", "2"]);
    fill(&server);
    snapshot(&server);
    for _ in 0..rounds(3, 20) {
        under_load(&server, KEYS, || {
            server.connect().send("snapshot\r\nsnapshot\r\n");
            std::thread::sleep(Duration::from_micros(rng.below(30_000)));
            server.signal(libc::SIGKILL);
        });
        server.wait_exit(END_PATIENCE);
        server.restart();
        assert_eq!(restart_figure(&server, "snapshot_blocks_lost"), 0);
        assert_eq!(restart_figure(&server, "snapshot_cut"), 0);
        assert_eq!(check_all(&server, KEYS), KEYS);
        assert!(!Path::new(&format!("{}.new", folder.file().display())).exists());
    }
}

#[test]
fn a_cut_or_damaged_file_is_told_of_and_gives_no_wrong_value() {
    let folder = Folder::new();
    let mut server = folder.start(&["-m", "64"]);
    fill(&server);
    end(&mut server, libc::SIGTERM);
    let whole = fs::read(folder.file()).unwrap();
    let mut rng = Rng::from_env("snapshot");
    for round in 0..rounds(6, 60) {
        let mut damaged = whole.clone();
        let cut = round % 2 == 0;
        if cut {
            damaged.truncate(64 + rng.below(whole.len() as u64 - 64) as usize);
        } else {
            let at = 64 + rng.below(whole.len() as u64 - 64) as usize;
            damaged[at] ^= 1 << rng.below(8);
        }
        fs::write(folder.file(), &damaged).unwrap();
        let mut again = folder.start(&["-m", "64"]);
        let found = check_all(&again, KEYS);
        assert_eq!(u64::from(found), again.stat("curr_items"));
        let told =
            restart_figure(&again, "snapshot_cut") + restart_figure(&again, "snapshot_blocks_lost");
        assert!(told > 0, "round {round}");
        assert!(again.stderr().contains(if cut { "it is cut" } else { "" }));
        again.kill();
    }
}

#[test]
fn another_programs_file_is_left_out_with_a_reason() {
    let folder = Folder::new();
    fs::write(folder.file(), vec![b'#'; 5000]).unwrap();
    let mut server = folder.start(&[]);
    assert_eq!(server.stat("curr_items"), 0);
    let told = server.stats("restart")["snapshot"].clone();
    assert!(
        told.contains("neither a snapshot nor a log of ketch"),
        "{told}"
    );
    assert!(
        server
            .stderr()
            .contains("neither a snapshot nor a log of ketch")
    );
    server.kill();
    fs::remove_file(folder.file()).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.file()).unwrap();
    let server = folder.start(&[]);
    assert!(server.stats("restart")["snapshot"].contains("link"));
}

/// Where the disk is full the last snapshot stays, and the server goes on.
#[test]
fn a_full_disk_leaves_the_last_snapshot() {
    let folder = Folder::new();
    let mut server = folder.start(&["-m", "64"]);
    let mut conn = server.connect();
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    snapshot(&server);
    server.allow_file_bytes(300_000);
    for n in 0..50 {
        assert_eq!(conn.set(&format!("k{n}"), &vec![b'v'; 100_000]), "STORED");
    }
    conn.round("snapshot\r\n", "OK\r\n");
    wait_within("it fails", END_PATIENCE, || {
        server.stat("ketch_snapshot_failed") == 1
    });
    let error = server.stats("")["ketch_snapshot_last_error"].clone();
    assert!(error.contains("large"), "{error}");
    assert_eq!(conn.get("k3").map(|value| value.len()), Some(100_000));
    server.kill();
    let again = folder.start(&["-m", "64"]);
    assert_eq!(again.connect().get("a").as_deref(), Some(&b"x"[..]));
    assert_eq!(restart_figure(&again, "snapshot_items"), 1);
}

#[test]
fn two_servers_do_not_share_a_file() {
    let folder = Folder::new();
    let server = folder.start(&[]);
    let option = folder.option();
    let second = std::process::Command::new(ketch_testing::binary())
        .args(["-p", "-1", "-l", "127.0.0.1", "-u", "root", "-o", &option])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(71));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("another server uses it"), "{told}");
    server.connect().round("get a\r\n", "END\r\n");
}

/// Options of a server that logs into `folder`.
fn logging(folder: &Folder, sync: &str) -> String {
    let log = folder.0.join("log");
    format!("{},log={},log_sync={sync}", folder.option(), log.display())
}

/// Kills the server as a crash does, and starts it again.
#[track_caller]
fn crash(server: &mut Server) {
    server.kill();
    server.restart();
}

/// What the `nth` command about a key does: most store, some delete, some count up what was stored before.
fn command_of(key: u32, nth: u64) -> String {
    match nth % 5 {
        4 => format!("delete k{key}\r\n"),
        3 => format!("append k{key} 0 0 1\r\n+\r\n"),
        _ => {
            let value = format!("{key}/{nth}/{}", "v".repeat(nth as usize * 37 % 400));
            format!("set k{key} 0 0 {}\r\n{value}\r\n", value.len())
        }
    }
}

/// What is there after it, if all before it were executed.
fn state_after(key: u32, nth: u64) -> Option<String> {
    match nth % 5 {
        4 => None,
        3 => state_after(key, nth - 1).map(|value| value + "+"),
        _ => Some(format!(
            "{key}/{nth}/{}",
            "v".repeat(nth as usize * 37 % 400)
        )),
    }
}

/// Keys of one connection, and for each how many commands were sent and how many acknowledged.
struct Ledger {
    first: u32,
    sent: Vec<u64>,
    acknowledged: Vec<u64>,
}

const LEDGER_KEYS: u32 = 40;

impl Ledger {
    fn new(worker: u32) -> Self {
        Ledger {
            first: worker * LEDGER_KEYS,
            sent: vec![0; LEDGER_KEYS as usize],
            acknowledged: vec![0; LEDGER_KEYS as usize],
        }
    }

    /// Sends commands, a batch at a time, until the server is gone.
    fn run(&mut self, mut conn: ketch_testing::Conn, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            let mut batch = String::new();
            for at in 0..LEDGER_KEYS {
                self.sent[at as usize] += 1;
                batch += &command_of(self.first + at, self.sent[at as usize] - 1);
            }
            if conn.try_send(&batch).is_err() {
                return;
            }
            for at in 0..LEDGER_KEYS {
                let Some(line) = conn.try_line() else {
                    return;
                };
                assert!(line == "STORED" || line == "DELETED", "{line}");
                self.acknowledged[at as usize] += 1;
            }
        }
    }

    /// Nothing acknowledged is lost: each key is as one of the commands left it that may have been the last.
    #[track_caller]
    fn check(&mut self, server: &Server) {
        let mut conn = server.connect();
        for at in 0..LEDGER_KEYS as usize {
            let key = self.first + at as u32;
            let found = conn
                .get(&format!("k{key}"))
                .map(|value| String::from_utf8(value).unwrap());
            let (acknowledged, sent) = (self.acknowledged[at], self.sent[at]);
            let state = |done: u64| done.checked_sub(1).and_then(|nth| state_after(key, nth));
            let is = (acknowledged..=sent).find(|&done| state(done) == found);
            let Some(done) = is else {
                panic!("k{key}: {found:?}, with {acknowledged} of {sent} commands acknowledged");
            };
            // From here on it goes on; a count that leads to the same state will do.
            (self.sent[at], self.acknowledged[at]) = (done, done);
        }
    }
}

#[track_caller]
fn crashes_lose_nothing_acknowledged(sync: &str, crashes: u32) {
    let folder = Folder::new();
    let option = logging(&folder, sync);
    let mut server = Server::start(&["-m", "64", "-t", "2", "-o", &option]);
    let mut rng = Rng::from_env("crashes");
    let mut ledgers: Vec<Ledger> = (0..4).map(Ledger::new).collect();
    for round in 0..crashes {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for ledger in &mut ledgers {
                let conn = server.connect();
                let stop = &stop;
                scope.spawn(move || ledger.run(conn, stop));
            }
            std::thread::sleep(Duration::from_millis(50 + rng.below(200)));
            if round % 2 == 1 {
                // In the middle of a snapshot, or behind it.
                server.connect().send("snapshot\r\n");
                std::thread::sleep(Duration::from_micros(rng.below(20_000)));
            }
            server.signal(libc::SIGKILL);
            stop.store(true, Relaxed);
        });
        server.wait_exit(END_PATIENCE);
        server.restart();
        assert_eq!(restart_figure(&server, "log_gaps"), 0);
        for ledger in &mut ledgers {
            ledger.check(&server);
        }
    }
    let commands: u64 = ledgers.iter().flat_map(|ledger| &ledger.acknowledged).sum();
    println!("{sync}: {commands} commands acknowledged over {crashes} crashes");
    assert!(commands > 100);
}

#[test]
fn a_crash_loses_nothing_acknowledged() {
    crashes_lose_nothing_acknowledged("second", rounds(3, 20));
}

#[test]
fn a_crash_loses_nothing_that_is_synced_before_it_is_acknowledged() {
    crashes_lose_nothing_acknowledged("always", rounds(2, 5));
}

/// Many workers count up few keys: what is replayed is the last count, not one that another worker wrote later.
#[test]
fn counts_of_many_workers_are_replayed_in_order() {
    let folder = Folder::new();
    let option = logging(&folder, "none");
    let mut server = Server::start(&["-m", "64", "-t", "4", "-o", &option]);
    let mut conn = server.connect();
    for key in 0..3 {
        conn.round(format!("set n{key} 0 0 1\r\n0\r\n"), "STORED\r\n");
    }
    let (sent, acknowledged) = (AtomicU32::new(0), AtomicU32::new(0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let mut conn = server.connect();
            let (sent, acknowledged, stop) = (&sent, &acknowledged, &stop);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    sent.fetch_add(15, Relaxed);
                    if conn
                        .try_send("incr n0 1\r\nincr n1 1\r\nincr n2 1\r\n".repeat(5))
                        .is_err()
                    {
                        return;
                    }
                    for _ in 0..15 {
                        if conn.try_line().is_none() {
                            return;
                        }
                    }
                    acknowledged.fetch_add(15, Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(400));
        server.signal(libc::SIGKILL);
        stop.store(true, Relaxed);
    });
    server.wait_exit(END_PATIENCE);
    server.restart();
    let mut conn = server.connect();
    let (sent, acknowledged) = (sent.load(Relaxed) / 3, acknowledged.load(Relaxed) / 3);
    for key in 0..3 {
        let value = conn.get(&format!("n{key}")).expect("it was stored");
        let count: u32 = std::str::from_utf8(&value).unwrap().trim().parse().unwrap();
        assert!(
            (acknowledged..=sent).contains(&count),
            "{acknowledged} to {sent}: {count}"
        );
    }
    assert!(acknowledged > 100, "{acknowledged}");
}

#[test]
fn all_kinds_of_changes_are_replayed() {
    let folder = Folder::new();
    let option = logging(&folder, "second");
    let mut server = Server::start(&[
        "-m",
        "64",
        "-I",
        "4m",
        "-o",
        &option,
        "--http",
        "127.0.0.1:0",
    ]);
    let mut conn = server.connect();
    let stored = |conn: &mut ketch_testing::Conn, key: &str| {
        conn.round(format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
    };
    for key in [
        "deleted", "flushed", "touched", "stale", "longer", "gat", "md",
    ] {
        stored(&mut conn, key);
    }
    conn.round("flush_all\r\n", "OK\r\n");
    for key in ["deleted", "touched", "stale", "longer", "gat", "md"] {
        stored(&mut conn, key);
    }
    conn.round("delete deleted\r\n", "DELETED\r\n");
    conn.round("touch touched 1000\r\n", "TOUCHED\r\n");
    conn.round_like("gat 2000 gat\r\n", "VALUE gat 0 1\r\nx\r\nEND\r\n");
    conn.round("md stale I\r\n", "HD\r\n");
    conn.round("md md x T500\r\n", "HD\r\n");
    conn.round("append longer 0 0 2\r\nyz\r\n", "STORED\r\n");
    conn.round("ms count 1 T300 F5\r\n9\r\n", "HD\r\n");
    conn.round("incr count 1\r\n", "10\r\n");
    conn.round("mg vivified N60 E77\r\n", "HD W\r\n");
    conn.round("ms older 1 E5\r\nx\r\n", "HD\r\n");
    conn.round("ms older 1 E3\r\ny\r\n", "HD\r\n");
    let big: Vec<u8> = (0..3_500_000u32).map(|n| (n >> 9) as u8).collect();
    assert_eq!(conn.set("big", &big), "STORED");
    conn.round("set ended 0 -1 1\r\nx\r\n", "STORED\r\n");
    let cas = conn.cas_of("longer");
    crash(&mut server);
    let mut conn = server.connect();
    conn.round("get deleted flushed ended\r\n", "END\r\n");
    conn.round_like("mg touched t v\r\n", "VA 1 t{n}\r\nx\r\n");
    conn.round_like("mg gat t v\r\n", "VA 1 t{n}\r\nx\r\n");
    conn.round("mg stale v\r\n", "VA 1 X W\r\nx\r\n");
    conn.round_like("mg md v t\r\n", "VA 0 t{n}\r\n\r\n");
    conn.round("mg longer v c\r\n", format!("VA 3 c{cas}\r\nxyz\r\n"));
    conn.round_like("mg count v t f\r\n", "VA 2 t{n} f5\r\n10\r\n");
    conn.round_like("mg vivified c t\r\n", "HD c77 t{n} Z\r\n");
    for (key, about) in [
        ("touched", 1000),
        ("gat", 2000),
        ("md", 500),
        ("count", 300),
        ("vivified", 60),
    ] {
        check_ttl(&mut conn, key, about);
    }
    conn.round("mg older v c\r\n", "VA 1 c3\r\ny\r\n");
    assert_eq!(conn.get("big").as_deref(), Some(&big[..]));
    stored(&mut conn, "new");
    assert!(conn.cas_of("new") > cas);
    assert_eq!(restart_figure(&server, "log_gaps"), 0);
    // And once more, with a snapshot between.
    snapshot(&server);
    conn.round("delete longer\r\n", "DELETED\r\n");
    crash(&mut server);
    let mut conn = server.connect();
    conn.round(
        "get longer flushed new\r\n",
        "VALUE new 0 1\r\nx\r\nEND\r\n",
    );
    assert_eq!(conn.get("big").as_deref(), Some(&big[..]));
    // A clean end leaves one segment, and nothing in it.
    end(&mut server, libc::SIGTERM);
    server.restart();
    assert_eq!(restart_figure(&server, "log_events"), 0);
    server
        .connect()
        .round("get new\r\n", "VALUE new 0 1\r\nx\r\nEND\r\n");
}

/// The log's segments, by number.
fn segments(folder: &Folder) -> Vec<PathBuf> {
    let mut all: Vec<(u64, PathBuf)> = fs::read_dir(&folder.0)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name.strip_prefix("log.")?.parse().ok()?, path))
        })
        .collect();
    all.sort();
    all.into_iter().map(|(_, path)| path).collect()
}

#[test]
fn a_torn_tail_is_dropped_and_a_hole_drops_what_may_be_outdated() {
    let folder = Folder::new();
    // Each command in a block of its own.
    let option = logging(&folder, "always");
    let mut server = Server::start(&["-m", "64", "-o", &option]);
    let mut conn = server.connect();
    for n in 0..20 {
        conn.round(format!("set k{n} 0 0 3\r\nold\r\n"), "STORED\r\n");
    }
    conn.round("set k5 0 0 3\r\nnew\r\n", "STORED\r\n");
    conn.round("set last 0 0 4\r\nlast\r\n", "STORED\r\n");
    server.kill();
    let path = segments(&folder).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    // Torn: the last store is dropped, all before it is there; and again, when the server has gone on.
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    server.restart();
    let mut conn = server.connect();
    conn.round("get k5 last\r\n", "VALUE k5 0 3\r\nnew\r\nEND\r\n");
    assert_eq!(server.stat("curr_items"), 20);
    assert!(restart_figure(&server, "log_torn_bytes") > 0);
    conn.round("set after 0 0 1\r\nx\r\n", "STORED\r\n");
    crash(&mut server);
    assert_eq!(
        (
            server.stat("curr_items"),
            restart_figure(&server, "log_gaps")
        ),
        (21, 0)
    );
    server.kill();
    for path in segments(&folder) {
        fs::remove_file(path).unwrap();
    }
    // A hole where the new value was: the old one must not come back.
    let mut holed = whole.clone();
    let at = whole
        .windows(3)
        .position(|window| window == b"new")
        .unwrap();
    holed[at] ^= 1;
    fs::write(&path, &holed).unwrap();
    server.restart();
    assert!(restart_figure(&server, "log_gaps") > 0);
    let mut conn = server.connect();
    conn.round("get k5 k6 last\r\n", "VALUE last 0 4\r\nlast\r\nEND\r\n");
    assert!(server.stderr().contains("events are missing"));
}

/// The log stops where the disk is full; a snapshot that finds room again begins it anew.
#[test]
fn a_full_disk_stops_the_log_and_not_the_cache() {
    let folder = Folder::new();
    let option = logging(&folder, "second");
    let mut server = Server::start(&["-m", "64", "-o", &option]);
    let mut conn = server.connect();
    conn.round("set a 0 0 3\r\nold\r\n", "STORED\r\n");
    assert_eq!(server.stat("ketch_log_on"), 1);
    server.allow_file_bytes(200_000);
    for n in 0..50 {
        assert_eq!(conn.set(&format!("k{n}"), &vec![b'v'; 10_000]), "STORED");
    }
    wait_within("the log stops", END_PATIENCE, || {
        server.stat("ketch_log_on") == 0
    });
    assert_eq!(server.stat("ketch_log_stops"), 1);
    assert!(server.stderr().contains("the cache goes on"));
    conn.round("set a 0 0 3\r\nnew\r\n", "STORED\r\n");
    server.allow_file_bytes(u64::MAX);
    snapshot(&server);
    assert_eq!(server.stat("ketch_log_on"), 1);
    conn.round("set b 0 0 1\r\nx\r\n", "STORED\r\n");
    crash(&mut server);
    let mut conn = server.connect();
    conn.round(
        "get a b\r\n",
        "VALUE a 0 3\r\nnew\r\nVALUE b 0 1\r\nx\r\nEND\r\n",
    );
    assert_eq!(server.stat("curr_items"), 52);
}

/// Where a snapshot cannot be written either, what comes behind the hole counts alone.
#[test]
fn what_was_not_logged_leaves_no_outdated_value_behind() {
    let folder = Folder::new();
    let option = logging(&folder, "second");
    let mut server = Server::start(&["-m", "64", "-o", &option]);
    let mut conn = server.connect();
    conn.round("set a 0 0 3\r\nold\r\n", "STORED\r\n");
    server.allow_file_bytes(1000);
    for n in 0..50 {
        assert_eq!(conn.set(&format!("k{n}"), &vec![b'v'; 1000]), "STORED");
    }
    conn.round("set a 0 0 3\r\nnew\r\n", "STORED\r\n");
    wait_within("the log stops", END_PATIENCE, || {
        server.stat("ketch_log_on") == 0
    });
    // The log has room, the snapshot has not.
    conn.round("snapshot\r\n", "OK\r\n");
    wait_within("it fails", END_PATIENCE, || {
        server.stat("ketch_snapshot_failed") == 1
    });
    conn.round("set b 0 0 1\r\nx\r\n", "STORED\r\n");
    crash(&mut server);
    let mut conn = server.connect();
    conn.round("get a b\r\n", "VALUE b 0 1\r\nx\r\nEND\r\n");
    assert!(restart_figure(&server, "log_gaps") > 0);
}

/// What is done to the files of a log while no server runs.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Removed(usize),
    /// A byte, at so many thousandths of its length.
    Flipped(usize, usize),
    /// To so many thousandths of its length.
    Cut(usize, usize),
    AllRemoved,
    RingHead(usize),
}

/// A log of several segments that lost events anywhere: each key has its last value or none, in the server that finds it and in the
/// one behind that.
#[test]
fn events_that_any_of_several_segments_lost_leave_no_outdated_value() {
    const KEYS: u64 = 60;
    const SEGMENTS: u64 = 4;
    for with_snapshot in [true, false] {
        let folder = Folder::new();
        let option = logging(&folder, "second");
        let mut server = Server::start(&["-m", "64", "-o", &option]);
        let mut last = vec![None; KEYS as usize];
        for round in 0..SEGMENTS {
            let mut conn = server.connect();
            let mut bytes = segment_bytes(&folder);
            for step in 0..KEYS {
                // Each round leaves out some keys, and deletes others.
                let key = (step * 7) % KEYS;
                if (key + round) % 4 == 3 {
                    continue;
                }
                if (key + round) % 5 == 4 {
                    conn.ask(format!("delete k{key}\r\n"));
                    last[key as usize] = None;
                } else {
                    let value = format!("{round}:{key}");
                    assert_eq!(conn.set(&format!("k{key}"), value.as_bytes()), "STORED");
                    last[key as usize] = Some(value.into_bytes());
                }
                // Several blocks a segment.
                if step % 20 == 19 {
                    wait_within("it is in a segment", END_PATIENCE, || {
                        segment_bytes(&folder) > bytes
                    });
                    bytes = segment_bytes(&folder);
                }
            }
            if with_snapshot && round == 0 {
                snapshot(&server);
            }
            match round + 1 < SEGMENTS {
                true => crash(&mut server),
                false => server.kill(),
            }
        }
        let whole: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(&folder.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .collect();
        let paths = segments(&folder);
        assert!(paths.len() as u64 >= SEGMENTS - 1, "{paths:?}");
        let mut harms = vec![Harm::AllRemoved];
        for nth in 0..paths.len() {
            harms.push(Harm::Removed(nth));
            harms.extend([100, 500, 900, 985].map(|at| Harm::Flipped(nth, at)));
            harms.extend([10, 500, 900].map(|at| Harm::Cut(nth, at)));
        }
        harms.extend([0, 9, 13, 33, 41].map(Harm::RingHead));
        let mut outdated = Vec::new();
        for harm in harms {
            for path in fs::read_dir(&folder.0).unwrap() {
                fs::remove_file(path.unwrap().path()).unwrap();
            }
            for (path, bytes) in &whole {
                fs::write(path, bytes).unwrap();
            }
            let change = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
                let mut bytes = fs::read(path).unwrap();
                change(&mut bytes);
                fs::write(path, bytes).unwrap();
            };
            match harm {
                Harm::Removed(nth) => fs::remove_file(&paths[nth]).unwrap(),
                Harm::AllRemoved => paths.iter().for_each(|path| fs::remove_file(path).unwrap()),
                Harm::Flipped(nth, at) => change(&paths[nth], &|bytes| {
                    let at = bytes.len() * at / 1000;
                    bytes[at] ^= 4;
                }),
                Harm::Cut(nth, at) => change(&paths[nth], &|bytes| {
                    bytes.truncate(bytes.len() * at / 1000);
                }),
                Harm::RingHead(at) => change(&folder.0.join("log.ring"), &|bytes| bytes[at] ^= 4),
            }
            for start in ["the first", "the second"] {
                server.restart();
                let mut conn = server.connect();
                for (key, wanted) in last.iter().enumerate() {
                    let found = conn.get(&format!("k{key}"));
                    if found.is_some() && found != *wanted {
                        outdated.push(format!("{harm:?}, {start} start, k{key}"));
                        break;
                    }
                }
                if start == "the first" {
                    conn.round("set new 0 0 1\r\nx\r\n", "STORED\r\n");
                } else {
                    assert_eq!(conn.get("new"), Some(b"x".to_vec()), "{harm:?}");
                }
                server.kill();
            }
        }
        assert!(
            outdated.is_empty(),
            "snapshot {with_snapshot}: {outdated:#?}"
        );
    }
}

/// Bytes of all segments.
fn segment_bytes(folder: &Folder) -> u64 {
    let bytes = |path: PathBuf| fs::metadata(path).map_or(0, |file| file.len());
    segments(folder).into_iter().map(bytes).sum()
}
