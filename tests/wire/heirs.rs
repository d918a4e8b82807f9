//! What a server leaves to the one that follows it, whichever way that comes about: killed or ended with a memory file, killed with a
//! log, ended with a snapshot, followed by a takeover.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::clock::FakeClock;
use ketch_testing::{Conn, Rng, Server, is_ketch, wait_within};

const PATIENCE: Duration = Duration::from_secs(20);
/// A memory file begins with so many bytes that say what it is.
const MAGIC_BYTES: u64 = 8;

/// How one server follows another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    KilledWithFile,
    EndedWithFile,
    /// Its table is built anew: another layout.
    Imported,
    KilledWithLog,
    /// Killed with a log that begins behind a snapshot.
    KilledBehindSnapshot,
    EndedWithSnapshot,
    TakenOver,
}

const WAYS: [Way; 7] = [
    Way::KilledWithFile,
    Way::EndedWithFile,
    Way::Imported,
    Way::KilledWithLog,
    Way::KilledBehindSnapshot,
    Way::EndedWithSnapshot,
    Way::TakenOver,
];

/// A server that another will follow, and where its files lie.
struct Line {
    way: Way,
    server: Server,
    folder: PathBuf,
}

impl Line {
    fn start(way: Way) -> Line {
        Line::start_in(way, &[])
    }

    fn start_in(way: Way, environment: &[(&str, &str)]) -> Line {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let nth = COUNT.fetch_add(1, Relaxed);
        let shm = Path::new("/dev/shm");
        let base = match shm.is_dir() {
            true => shm.to_owned(),
            false => std::env::temp_dir(),
        };
        let folder = base.join(format!("ketch-heirs-{}-{nth}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let at = |name: &str| folder.join(name).display().to_string();
        let args: Vec<String> = match way {
            Way::KilledWithFile | Way::EndedWithFile | Way::Imported => {
                vec!["-e".into(), at("memory")]
            }
            Way::KilledWithLog | Way::KilledBehindSnapshot => {
                let (snapshot, log) = (at("snapshot"), at("log"));
                let options = format!("snapshot={snapshot},log={log},log_sync=second");
                vec!["-o".into(), options]
            }
            Way::EndedWithSnapshot => vec!["-o".into(), format!("snapshot={}", at("snapshot"))],
            Way::TakenOver => Vec::new(),
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let args = [&["-m", "64", "-t", "2"], &*args].concat();
        let server = Server::start_in(environment, &args);
        Line {
            way,
            server,
            folder,
        }
    }

    /// Has another server follow.
    #[track_caller]
    fn follow(&mut self) {
        let server = &mut self.server;
        match self.way {
            Way::KilledWithFile | Way::KilledWithLog | Way::KilledBehindSnapshot => server.kill(),
            Way::EndedWithFile | Way::Imported | Way::EndedWithSnapshot => {
                server.signal(libc::SIGTERM);
                assert!(server.wait_exit(PATIENCE).success(), "{:?}", self.way);
            }
            Way::TakenOver => return server.take_over(&[]),
        }
        if self.way == Way::Imported {
            let file = self.folder.join("memory").display().to_string();
            let options = ["-m", "64", "-f", "1.5", "-t", "1", "-e", &file];
            *server = Server::start(&options);
            assert_eq!(server.stats("restart")["memory_file"], "imported");
            return;
        }
        server.restart();
    }

    /// Takes a snapshot where the way has one in its midst.
    fn midway(&self) {
        if self.way != Way::KilledBehindSnapshot {
            return;
        }
        let before = self.server.stat("ketch_snapshot_written");
        self.server.connect().round("snapshot\r\n", "OK\r\n");
        wait_within("the snapshot is written", PATIENCE, || {
            self.server.stat("ketch_snapshot_written") > before
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn each_way(test: impl Fn(Line) + Sync) {
    if !is_ketch() {
        return;
    }
    // At once: most of each is waiting.
    let test = &test;
    std::thread::scope(|scope| {
        for way in WAYS {
            scope.spawn(move || test(Line::start(way)));
        }
    });
}

/// Whoever has read a key's unique before must not be taken for one who has read what was stored since.
#[test]
fn no_unique_comes_again() {
    each_way(|mut line| {
        let keys: Vec<String> = (0..300).map(|n| format!("k{n}")).collect();
        let mut conn = line.server.connect();
        for key in &keys {
            conn.set(key, b"1");
        }
        line.midway();
        // The largest that each has had belongs to nothing that is there.
        let mut before = Vec::new();
        for key in &keys {
            conn.set(key, b"2");
            conn.set(key, b"3");
            before.push(conn.cas_of(key));
            conn.round(format!("delete {key}\r\n"), "DELETED\r\n");
        }
        line.follow();
        let mut conn = line.server.connect();
        for (key, unique) in keys.iter().zip(before) {
            assert_eq!(conn.get(key), None, "{:?}: {key}", line.way);
            conn.set(key, b"4");
            let now = conn.cas_of(key);
            assert!(
                now > unique,
                "{:?}: {key} had {unique}, has {now}",
                line.way
            );
        }
    });
}

/// The time of a flush that is ahead passes over.
#[test]
fn a_delayed_flush_comes_when_it_is_due() {
    each_way(|mut line| {
        let mut conn = line.server.connect();
        conn.set("before", b"1");
        let asked = Instant::now();
        conn.round("flush_all 3\r\n", "OK\r\n");
        conn.set("between", b"2");
        line.midway();
        line.follow();
        let mut conn = line.server.connect();
        // It is in whole seconds of a clock that may be at its end.
        let found = (conn.get("before"), conn.get("between"));
        if asked.elapsed() < Duration::from_millis(1900) {
            let wanted = (Some(b"1".to_vec()), Some(b"2".to_vec()));
            assert_eq!(found, wanted, "{:?}", line.way);
        }
        wait_within("the flush comes", PATIENCE, || {
            conn.get("before").is_none() && conn.get("between").is_none()
        });
        assert!(asked.elapsed() > Duration::from_millis(1900));
        conn.set("behind", b"3");
        assert_eq!(conn.get("behind"), Some(b"3".to_vec()));
    });
}

/// An item that was marked as stale is not taken for a fresh one, and one that stands for a load under way not for a value.
#[test]
fn marks_of_items_pass_over() {
    each_way(|mut line| {
        let mut conn = line.server.connect();
        conn.set("stale", b"old");
        conn.set("won", b"old");
        conn.set("touched", b"old");
        conn.set("counted", b"41");
        line.midway();
        conn.round("md stale I T300\r\n", "HD\r\n");
        conn.round("md won I T300\r\n", "HD\r\n");
        conn.round("mg won v\r\n", "VA 3 X W\r\nold\r\n");
        conn.round("mg loading v N300\r\n", "VA 0 W\r\n\r\n");
        conn.round("touch touched 500\r\n", "TOUCHED\r\n");
        conn.round("incr counted 1\r\n", "42\r\n");
        conn.round("ms forced 1 E77 F9\r\nx\r\n", "HD\r\n");
        line.follow();
        let mut conn = line.server.connect();
        let way = line.way;
        let mut shows = |request: &str, wanted: &[&str]| {
            let line = conn.ask(request);
            if line.starts_with("VA ") {
                conn.expect_line();
            }
            assert!(wanted.contains(&&*line), "{way:?}: {request:?}: {line:?}");
        };
        // The client that has won may be gone with its server, so another may win. Nobody takes it for fresh.
        shows("mg stale v\r\n", &["VA 3 X W"]);
        shows("mg won v\r\n", &["VA 3 X Z", "VA 3 Z X", "VA 3 X W"]);
        shows("mg loading v N300\r\n", &["VA 0 Z", "VA 0 W"]);
        shows("mg counted v\r\n", &["VA 2"]);
        shows("mg forced c f v\r\n", &["VA 1 c77 f9"]);
        let left = ttl(&mut conn, "touched");
        assert!((480..=500).contains(&left), "{way:?}: {left}");
        let left = ttl(&mut conn, "stale");
        assert!((280..=300).contains(&left), "{way:?}: {left}");
    });
}

#[track_caller]
fn ttl(conn: &mut Conn, key: &str) -> i64 {
    let line = conn.ask(format!("mg {key} t\r\n"));
    let left = line.split(' ').find_map(|word| word.strip_prefix('t'));
    left.and_then(|left| left.parse().ok())
        .unwrap_or_else(|| panic!("{key}: {line}"))
}

/// A memory file that was cut anywhere, or has become longer, is refused with a reason or gives right values: it never ends the server.
#[test]
fn a_memory_file_that_was_cut_is_refused_or_right() {
    if !is_ketch() {
        return;
    }
    let mut line = Line::start(Way::EndedWithFile);
    let value = |n: usize| format!("{n}:").repeat(1 + n * 7 % 3000).into_bytes();
    let mut conn = line.server.connect();
    for n in 0..2000 {
        assert_eq!(conn.set(&format!("k{n}"), &value(n)), "STORED");
    }
    for is_clean in [true, false] {
        match is_clean {
            true => {
                line.server.signal(libc::SIGTERM);
                line.server.wait_exit(PATIENCE);
            }
            false => line.server.kill(),
        }
        let file = line.folder.join("memory");
        let whole = fs::metadata(&file).expect("it is there").len();
        let kept = line.folder.join("kept");
        fs::rename(&file, &kept).expect("renamed");
        let mut rng = Rng::from_env("KETCH_CUT_SEED");
        let mut cuts = vec![
            0,
            1,
            511,
            4095,
            4096,
            4097,
            whole - 4096,
            whole - 1,
            whole + 1,
            whole + 4096,
        ];
        cuts.extend(
            (0..ketch_testing::rounds(6, 1000)).map(|nth| match nth % 3 {
                0 => rng.below(whole),
                1 => rng.below(whole / 4096) * 4096,
                _ => rng.below(1 << 20),
            }),
        );
        let mut warm = 0;
        for cut in cuts {
            fs::copy(&kept, &file).expect("copied");
            let cut_file = fs::OpenOptions::new().write(true).open(&file);
            cut_file.and_then(|file| file.set_len(cut)).expect("cut");
            // What does not say what it is may be another program's.
            if cut > 0 && cut < MAGIC_BYTES {
                let args = [
                    "-p",
                    "-1",
                    "-u",
                    "root",
                    "-e",
                    file.to_str().expect("UTF-8"),
                ];
                let tried = Command::new(ketch_testing::binary()).args(args).output();
                let tried = tried.expect("the server's program");
                let told = String::from_utf8_lossy(&tried.stderr).into_owned();
                assert!(!tried.status.success(), "cut at {cut}: {told}");
                assert!(told.contains("name another file"), "cut at {cut}: {told}");
                continue;
            }
            line.server.restart();
            let told = line.server.stats("restart");
            let mut conn = line.server.connect();
            for n in (0..2000).step_by(7) {
                if let Some(found) = conn.get(&format!("k{n}")) {
                    assert_eq!(found, value(n), "cut at {cut}: k{n}");
                    warm += 1;
                }
            }
            if told["memory_file"] == "cold" {
                let log = line.server.log();
                assert!(
                    log.contains("starting without items"),
                    "cut at {cut}: {log}"
                );
            }
            // It serves all the same.
            for n in 0..500 {
                assert_eq!(conn.set(&format!("n{n}"), &value(n)), "STORED");
            }
            assert_eq!(conn.get("n499"), Some(value(499)));
            line.server.kill();
        }
        println!("clean {is_clean}: {warm} values found in cut files");
        fs::rename(&kept, &file).expect("renamed");
        line.server.restart();
        assert_eq!(line.server.connect().get("k1"), Some(value(1)));
    }
}

/// The clock is set between two servers: memory that outlives the process counts what has passed, files count by dates.
#[test]
fn a_clock_that_is_set_meanwhile_means_what_docs_say() {
    if !is_ketch() {
        return;
    }
    let clock = FakeClock::new("heirs");
    for way in [
        Way::KilledWithFile,
        Way::EndedWithFile,
        Way::KilledWithLog,
        Way::KilledBehindSnapshot,
        Way::EndedWithSnapshot,
    ] {
        clock.set(0);
        let mut line = Line::start_in(way, &clock.environment());
        let mut conn = line.server.connect();
        for (key, exptime) in [("short", 1000), ("long", 100_000), ("never", 0)] {
            conn.round(format!("set {key} 0 {exptime} 1\r\n1\r\n"), "STORED\r\n");
        }
        line.midway();
        // Memory of this boot goes by the boot's clock: nobody served for no time that is worth a word. Files go by dates.
        let by_boot = matches!(way, Way::KilledWithFile | Way::EndedWithFile);
        for hours in [1, -1] {
            clock.set(hours);
            line.follow();
            let mut conn = line.server.connect();
            assert_eq!(conn.get("never"), Some(b"1".to_vec()), "{way:?}");
            let late_s = if by_boot { 0 } else { hours * 3600 };
            // What was over once may be written down no more.
            if by_boot || hours > 0 {
                let is_over = late_s > 1000;
                assert_eq!(conn.get("short").is_none(), is_over, "{way:?}");
            }
            let left = ttl(&mut conn, "long");
            let wanted = 100_000 - late_s;
            assert!(
                (wanted - 100..=wanted).contains(&left),
                "{way:?} {hours:+} h: {left}"
            );
        }
    }
}
