//! A server goes on in another process (`--takeover`, SIGUSR2), and whoever fails in it leaves the other one serving.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ketch_testing::packet::{count, op, packet, store};
use ketch_testing::udp::UdpClient;
use ketch_testing::{Conn, Server, wait_within};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::puppet;

const PATIENCE: Duration = Duration::from_secs(30);

/// The longest pause that clients may notice, in milliseconds.
const PAUSE_MS_MAX: f64 = 100.0;

#[track_caller]
fn pause_ms(server: &Server) -> f64 {
    let told = &server.stats("restart")["takeover_pause_time"];
    told.parse::<f64>().expect("seconds") * 1000.0
}

#[track_caller]
fn connections(server: &Server) -> u64 {
    let told = &server.stats("restart")["takeover_connections"];
    told.parse().expect("a number")
}

/// One of the connections of the load: what it does again and again, and what must come of it.
struct Client {
    conn: Conn,
    nth: usize,
    rounds: u64,
}

impl Client {
    fn round(&mut self) {
        self.rounds += 1;
        let (nth, n) = (self.nth, self.rounds);
        let conn = &mut self.conn;
        let value = format!("{nth}:{n}:").repeat(1 + (n as usize * 7 + nth) % 60);
        let len = value.len();
        match nth % 4 {
            0 => {
                let set = format!("set t{nth} 3 0 {len}\r\n{value}\r\nget t{nth}\r\n");
                conn.round(
                    set,
                    format!("STORED\r\nVALUE t{nth} 3 {len}\r\n{value}\r\nEND\r\n"),
                );
            }
            1 => {
                let set = format!("ms m{nth} {len} T0 F7\r\n{value}\r\nmg m{nth} v f\r\n");
                conn.round(set, format!("HD\r\nVA {len} f7\r\n{value}\r\n"));
            }
            2 => {
                let key = format!("b{nth}");
                let stored = conn.ask_packet(&store(op::SET, &key, &value));
                assert_eq!(stored.status, 0);
                let got = conn.ask_packet(&packet(op::GET, &key, ""));
                assert_eq!((got.status, got.value), (0, value.into_bytes()));
            }
            _ => {
                conn.round(format!("incr c{nth} 1\r\n"), format!("{n}\r\n"));
            }
        }
    }
}

#[test]
fn ten_takeovers_in_a_row_under_load_lose_nothing() {
    const CONNS: usize = 100;
    const THREADS: usize = 5;
    let mut server = Server::start(&["-m", "64", "-t", "2"]);
    let mut setup = server.connect();
    for nth in 0..CONNS {
        assert_eq!(setup.set(&format!("c{nth}"), b"0"), "STORED");
    }
    let (stop, rounds, met) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut pauses = Vec::new();
    std::thread::scope(|scope| {
        let mut clients: Vec<Client> = (0..CONNS)
            .map(|nth| Client {
                conn: server.connect(),
                nth,
                rounds: 0,
            })
            .collect();
        let (stop, rounds, met) = (&stop, &rounds, &met);
        let loads: Vec<_> = (0..THREADS)
            .map(|_| {
                let mut share = clients.split_off(clients.len() - CONNS / THREADS);
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        for client in &mut share {
                            client.round();
                            rounds.fetch_add(1, Relaxed);
                        }
                    }
                    share
                })
            })
            .collect();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.port()));
        let newcomers = scope.spawn(move || {
            while !stop.load(Relaxed) {
                let stream = std::net::TcpStream::connect(address).expect("nobody is refused");
                let mut conn = Conn::tcp(stream, "a newcomer");
                assert_eq!(conn.ask("mn\r\n"), "MN");
                met.fetch_add(1, Relaxed);
            }
        });
        for _ in 0..10 {
            let (before, met_before) = (rounds.load(Relaxed), met.load(Relaxed));
            server.take_over(&[]);
            pauses.push(pause_ms(&server));
            assert!(connections(&server) >= CONNS as u64);
            wait_within("the load goes on", PATIENCE, || {
                rounds.load(Relaxed) > before + 3 * CONNS as u64
                    && met.load(Relaxed) > met_before + 3
            });
        }
        stop.store(true, Relaxed);
        newcomers.join().expect("no newcomer is refused");
        for load in loads {
            for client in load.join().expect("no client sees an error") {
                // Of a counter all increments that were acknowledged, and no other.
                if client.nth % 4 == 3 {
                    let mut conn = server.connect();
                    let count = conn.get(&format!("c{}", client.nth));
                    assert_eq!(count, Some(client.rounds.to_string().into_bytes()));
                }
            }
        }
    });
    println!(
        "pauses in ms: {pauses:.1?}, {} rounds",
        rounds.load(Relaxed)
    );
    pauses.sort_by(f64::total_cmp);
    // Of a busy machine the median.
    assert!(pauses[pauses.len() / 2] <= PAUSE_MS_MAX, "{pauses:?}");
}

/// A conversation in text, about keys that begin with `name`.
fn text_conversation(name: &str) -> Vec<u8> {
    let long = "v".repeat(5000);
    let requests = [
        format!("set {name} 5 0 6\r\nabc\r\nd\r\n"),
        format!("get {name} missing\r\n"),
        format!("append {name} 0 0 2 noreply\r\nXY\r\n"),
        format!("ms {name}m 5 T90 F3 Oq k\r\nhello\r\n"),
        format!("mg {name}m v f\r\nmn\r\n"),
        format!("set {name} 0 0 3\r\nabcde\r\n"),
        format!("set {name}x 0 0 9000000\r\nmn\r\n").replace("9000000", "x"),
        format!("set {name}l 0 0 5000\r\n{long}\r\n"),
        "nonsense\r\n".to_owned(),
        format!("get {name}l\r\nmn\r\n"),
    ];
    requests.concat().into_bytes()
}

/// What is answered to it, as a connection that nobody cuts shows it.
fn text_answer(conn: &mut Conn) -> String {
    conn.send(text_conversation("k9999"));
    let mut answer = conn.read_until(b"MN\r\n");
    answer.extend(conn.read_until(b"MN\r\n"));
    answer.extend(conn.read_until(b"MN\r\n"));
    String::from_utf8(answer).expect("text")
}

fn binary_conversation(name: &str) -> (Vec<u8>, usize) {
    let mut asked = store(op::SET, name, "some value").bytes();
    asked.extend(packet(op::GETQ, "missing", "").bytes());
    asked.extend(count(op::INCR, &format!("{name}n"), 3, 10, 0).bytes());
    asked.extend(store(op::SET, format!("{name}l"), "w".repeat(600)).bytes());
    asked.extend(packet(op::GETK, name, "").bytes());
    asked.extend(packet(op::NOOP, "", "").bytes());
    (asked, 5)
}

#[test]
fn commands_cut_at_any_byte_go_on() {
    let mut server = Server::start(&["-m", "64", "-t", "2", "-c", "4096"]);
    let len = text_conversation("k0000").len();
    let answer = text_answer(&mut server.connect());
    // Of the long value some places are as good as all.
    let cuts: Vec<usize> = (0..=len)
        .filter(|cut| *cut < 330 || *cut > len - 60 || cut.is_multiple_of(97))
        .collect();
    let mut texts: Vec<(Conn, Vec<u8>, Vec<u8>, usize)> = cuts
        .into_iter()
        .map(|cut| {
            let name = format!("k{cut:04}");
            let answered = answer.replace("k9999", &name).into_bytes();
            (server.connect(), text_conversation(&name), answered, cut)
        })
        .collect();
    let len = binary_conversation("b0000").0.len();
    let mut packets: Vec<(Conn, Vec<u8>, usize, usize)> = (0..=len)
        .map(|cut| {
            let (asked, answers) = binary_conversation(&format!("b{cut:04}"));
            (server.connect(), asked, answers, cut)
        })
        .collect();
    for (conn, asked, _, cut) in &mut texts {
        conn.send(&asked[..*cut]);
    }
    for (conn, asked, _, cut) in &mut packets {
        conn.send(&asked[..*cut]);
    }
    // All of it has come when the workers have answered what came behind it.
    for _ in 0..4 {
        server.connect().round("mn\r\n", "MN\r\n");
    }
    server.take_over(&[]);
    assert!(connections(&server) as usize >= texts.len() + packets.len());
    for (conn, asked, answered, cut) in &mut texts {
        conn.note = format!("cut at {cut}");
        conn.send(&asked[*cut..]);
        conn.expect(&*answered);
    }
    for (conn, asked, answers, cut) in &mut packets {
        conn.note = format!("cut at {cut}");
        conn.send(&asked[*cut..]);
        for nth in 0..*answers {
            let reply = conn.expect_packet();
            assert_eq!(reply.status, 0, "cut at {cut}, reply {nth}");
            if reply.opcode == op::GETK {
                assert_eq!(reply.value, b"some value");
            }
        }
    }
}

#[test]
fn values_on_their_way_in_and_out_arrive() {
    let mut server = Server::start(&["-m", "64", "-t", "1"]);
    let value: Vec<u8> = (0..900_000u32).map(|n| (n / 7) as u8).collect();
    let mut writer = server.connect();
    writer.send("set half 0 0 900000\r\n");
    writer.send(&value[..400_000]);
    let mut other = server.connect();
    assert_eq!(other.set("big", &value), "STORED");
    let mut reader = server.connect();
    // More than the sockets between take: the rest waits in the server, the last of it unread.
    reader.send("get big\r\n".repeat(12));
    wait_within("replies wait", PATIENCE, || {
        other
            .stats("conns")
            .values()
            .any(|state| state == "conn_mwrite")
    });
    // It goes from the cache, but not from those who read it.
    other.round("set big 0 0 3\r\nnew\r\n", "STORED\r\n");
    server.take_over(&[]);
    server.take_over(&[]);
    let head = b"VALUE big 0 900000\r\n";
    let old = [&head[..], &value, b"\r\nEND\r\n"].concat();
    let first = reader.take(old.len());
    assert!(first == old, "the first reply is the value as it was");
    for _ in 1..12 {
        let line = reader.expect_line();
        if line == "VALUE big 0 3" {
            reader.expect("new\r\nEND\r\n");
        } else {
            assert_eq!(line, "VALUE big 0 900000");
            let rest = reader.take(value.len() + 7);
            assert!(rest[..value.len()] == value);
        }
    }
    writer.send(&value[400_000..]);
    writer.round("\r\n", "STORED\r\n");
    assert!(other.get("half") == Some(value));
}

#[test]
fn other_options_hold_from_then_on() {
    let mut server = Server::start(&["-m", "64", "-t", "2"]);
    let mut conn = server.connect();
    for n in 0..500 {
        assert_eq!(
            conn.set(&format!("k{n}"), format!("v{n}").as_bytes()),
            "STORED"
        );
    }
    for (options, name, value) in [
        (&["-m", "128"][..], "maxbytes", "134217728"),
        (&["-m", "32"], "maxbytes", "33554432"),
        (&["-t", "1"], "num_threads", "1"),
        (&["-t", "3"], "num_threads", "3"),
        (&["-o", "eviction=lru"], "ketch_eviction", "lru"),
        (&["-I", "2m"], "item_size_max", "2097152"),
    ] {
        server.take_over(options);
        let settings = conn.stats("settings");
        assert_eq!(
            settings.get(name).map(String::as_str),
            Some(value),
            "{options:?}"
        );
        for n in 0..500 {
            assert_eq!(
                conn.get(&format!("k{n}")),
                Some(format!("v{n}").into_bytes())
            );
        }
    }
}

#[test]
fn the_memory_file_passes_over_with_its_lock() {
    let dir = PathBuf::from("/dev/shm");
    if !dir.is_dir() {
        return;
    }
    let path = dir.join(format!("ketch-takeover-{}", std::process::id()));
    let path = path.to_str().expect("a path in UTF-8");
    let mut server = Server::start(&["-e", path]);
    let mut conn = server.connect();
    assert_eq!(conn.set("a", b"1"), "STORED");
    server.take_over(&[]);
    assert_eq!(conn.get("a"), Some(b"1".to_vec()));
    // Another server is kept away all the while.
    let other = Command::new(ketch_testing::binary())
        .args(["-p", "-1", "-u", "root", "-e", path])
        .output()
        .expect("the server's program");
    let told = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(told.contains("another process has it open"), "{told}");
    server.kill();
    server.restart();
    assert_eq!(server.stats("restart")["memory_file"], "walked");
    assert_eq!(server.connect().get("a"), Some(b"1".to_vec()));
    drop(server);
    std::fs::remove_file(path).expect("it is there");
}

#[test]
fn sigusr2_has_the_program_take_over_from_itself() {
    let mut server = Server::start(&["-t", "2"]);
    let mut conn = server.connect();
    assert_eq!(conn.set("a", b"1"), "STORED");
    let before = conn.stat("pid");
    server.signal(libc::SIGUSR2);
    assert!(server.wait_exit(PATIENCE).success());
    assert_eq!(conn.get("a"), Some(b"1".to_vec()));
    let pid = conn.stat("pid");
    assert_ne!(pid, before);
    // The one that followed does the same.
    Server::signal_whoever_serves(&mut conn, libc::SIGUSR2);
    wait_within("it has followed itself", PATIENCE, || {
        conn.stat("pid") != pid
    });
    assert_eq!(conn.get("a"), Some(b"1".to_vec()));
    Server::signal_whoever_serves(&mut conn, libc::SIGTERM);
    conn.closed();
}

#[test]
fn unix_socket_udp_http_and_pid_file_pass_over() {
    let dir = std::env::temp_dir().join(format!("ketch-takeover-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let pid_file = dir.join("pid");
    let pid_of = || {
        std::fs::read_to_string(&pid_file)
            .expect("a pid")
            .trim()
            .to_owned()
    };
    let pid_arg = pid_file.to_str().expect("UTF-8");
    let mut server = Server::start_unix(&["-P", pid_arg]);
    let mut conn = server.connect();
    assert_eq!(conn.set("a", b"1"), "STORED");
    server.take_over(&[]);
    wait_within("the pid is the new one's", PATIENCE, || {
        pid_of() == server.pid().to_string()
    });
    assert_eq!(conn.get("a"), Some(b"1".to_vec()));
    assert_eq!(server.connect().get("a"), Some(b"1".to_vec()));
    let path = server.socket_path().expect("a unix socket").to_owned();
    server.signal(libc::SIGTERM);
    assert!(server.wait_exit(PATIENCE).success());
    assert!(
        !path.exists() && !pid_file.exists(),
        "the last one puts them away"
    );
    std::fs::remove_dir_all(&dir).expect("it is ours");

    let mut server = Server::start(&["-U", "-1", "--http", "127.0.0.1:0", "-t", "2"]);
    let mut udp = UdpClient::connect(&server);
    udp.round("set u 0 0 1\r\nx\r\n", "STORED\r\n");
    let (udp_port, http_port) = (server.udp_port(), server.http_port());
    for threads in ["1", "3"] {
        server.take_over(&["-t", threads]);
        assert_eq!(
            (server.udp_port(), server.http_port()),
            (udp_port, http_port)
        );
        udp.round("get u\r\n", "VALUE u 0 1\r\nx\r\nEND\r\n");
        let mut http = std::net::TcpStream::connect(("127.0.0.1", http_port)).expect("HTTP");
        std::io::Write::write_all(&mut http, b"GET /health HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        http.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn who_has_logged_in_stays_so_and_who_has_not_does_not() {
    let dir = std::env::temp_dir().join(format!("ketch-takeover-users-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let users = dir.join("users");
    std::fs::write(&users, "ann:secret\n").expect("written");
    let users_arg = users.to_str().expect("UTF-8");
    let mut server = Server::start(&["-Y", users_arg]);
    let mut ann = server.connect();
    ann.round("set x 0 0 10\r\nann secret\r\n", "STORED\r\n");
    ann.round("set a 0 0 1\r\n1\r\n", "STORED\r\n");
    let mut half = server.connect();
    half.send("set x 0 0 10\r\nann sec");
    let mut nobody = server.connect();
    nobody.round("get a\r\n", "CLIENT_ERROR unauthenticated\r\n");
    server.take_over(&[]);
    ann.round("get a\r\n", "VALUE a 0 1\r\n1\r\nEND\r\n");
    half.round("ret\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n");
    nobody.round("get a\r\n", "CLIENT_ERROR unauthenticated\r\n");
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn a_log_goes_on_in_its_segment_and_a_snapshot_begins_anew() {
    let dir = std::env::temp_dir().join(format!("ketch-takeover-log-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let options = format!(
        "snapshot={0}/snapshot,log={0}/log,snapshot_rate=1",
        dir.display()
    );
    let mut server = Server::start(&["-o", &options]);
    let mut conn = server.connect();
    let mut stored = 0;
    let store_some = |conn: &mut Conn, stored: &mut usize| {
        for _ in 0..200 {
            let value = vec![b'a' + (*stored % 26) as u8; 2000];
            assert_eq!(conn.set(&format!("k{stored}"), &value), "STORED");
            *stored += 1;
        }
    };
    store_some(&mut conn, &mut stored);
    let segment = conn.stat("ketch_log_segment");
    for _ in 0..3 {
        server.take_over(&[]);
        assert_eq!(conn.stat("ketch_log_segment"), segment);
        assert_eq!(conn.stat("ketch_log_on"), 1);
        store_some(&mut conn, &mut stored);
    }
    // In the middle of a snapshot, which takes longer than a second.
    assert_eq!(conn.ask("snapshot\r\n"), "OK");
    wait_within("it is being written", PATIENCE, || {
        conn.stat("ketch_snapshot_running") == 1
    });
    server.take_over(&[]);
    store_some(&mut conn, &mut stored);
    wait_within("it is written all the same", PATIENCE, || {
        conn.stat("ketch_snapshot_written") == 1
    });
    store_some(&mut conn, &mut stored);
    server.kill();
    server.restart();
    let told = server.stats("restart");
    assert_eq!(
        (&*told["snapshot"], &*told["log_gaps"]),
        ("loaded", "0"),
        "{told:?}"
    );
    let mut conn = server.connect();
    for n in 0..stored {
        let value = vec![b'a' + (n % 26) as u8; 2000];
        assert!(conn.get(&format!("k{n}")) == Some(value), "k{n}");
    }
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

// ---- systemd ------------------------------------------------------------------------------------------------------------

/// A service manager, as far as a server knows it.
struct Manager {
    socket: UnixDatagram,
    dir: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ketch-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let socket = UnixDatagram::bind(dir.join("notify")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        Manager { socket, dir }
    }

    fn address(&self) -> String {
        let path = self.dir.join("notify");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// The next state that it is told, and what it is given.
    fn hear(&self) -> (String, Vec<OwnedFd>) {
        let mut bytes = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let heard = recvmsg(&self.socket, &mut slices, &mut control, flags).expect("a state");
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                fds.extend(given);
            }
        }
        let state = String::from_utf8_lossy(&bytes[..heard.bytes]).into_owned();
        (state, fds)
    }

    /// What it is given with the first state that begins so.
    fn hear_of(&self, begin: &str) -> (String, Vec<OwnedFd>) {
        loop {
            let (state, fds) = self.hear();
            if state.starts_with(begin) {
                return (state, fds);
            }
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_service_manager_keeps_the_memory_over_a_crash() {
    let manager = Manager::new("keeps");
    let address = manager.address();
    let mut server = Server::start_in(&[("NOTIFY_SOCKET", &address)], &["-t", "2"]);
    manager.hear_of("READY=1");
    let (state, mut fds) = manager.hear_of("FDSTORE=1");
    assert!(state.contains("FDNAME=ketch-memory"), "{state}");
    let memory = fds.pop().expect("the memory");
    let mut conn = server.connect();
    for n in 0..500 {
        let value = format!("{n}:").repeat(1 + n);
        assert_eq!(conn.set(&format!("k{n}"), value.as_bytes()), "STORED");
    }
    for (signal, how) in [(libc::SIGKILL, "walked"), (libc::SIGTERM, "attached")] {
        Server::signal_whoever_serves(&mut conn, signal);
        conn.ended();
        server.wait_exit(PATIENCE);
        let port = server.port();
        let line = format!(
            "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=ketch-memory exec {} -l 127.0.0.1 -p {port} -u root",
            ketch_testing::binary().display()
        );
        let next = Command::new("sh")
            .args(["-c", &line])
            .env("NOTIFY_SOCKET", &address)
            .stdin(memory.try_clone().expect("a descriptor"))
            .spawn();
        server.becomes(next.expect("a shell"));
        manager.hear_of("READY=1");
        conn = server.connect();
        assert_eq!(conn.stats("restart")["memory_file"], how);
        for n in 0..500 {
            let value = format!("{n}:").repeat(1 + n);
            assert_eq!(conn.get(&format!("k{n}")), Some(value.into_bytes()), "k{n}");
        }
    }
}

#[test]
fn a_service_manager_hears_whom_to_watch() {
    let manager = Manager::new("watches");
    let address = manager.address();
    let mut server = Server::start_in(&[("NOTIFY_SOCKET", &address)], &["-t", "2"]);
    let mut conn = server.connect();
    manager.hear_of("READY=1");
    for _ in 0..2 {
        Server::signal_whoever_serves(&mut conn, libc::SIGUSR2);
        let (state, _) = manager.hear_of("MAINPID=");
        assert_eq!(state, format!("MAINPID={}", conn.stat("pid")));
    }
    assert!(server.wait_exit(PATIENCE).success());
    Server::signal_whoever_serves(&mut conn, libc::SIGTERM);
    manager.hear_of("STOPPING=1");
}

// ---- failures -----------------------------------------------------------------------------------------------------------

/// A server with a client in the middle of a value, which has to find it serving.
struct Survivor {
    server: Server,
    idle: Conn,
    half: Conn,
}

impl Survivor {
    fn start(options: &[&str]) -> Self {
        let server = Server::start(options);
        let (mut idle, mut half) = (server.connect(), server.connect());
        assert_eq!(idle.set("a", b"1"), "STORED");
        half.send(format!("set half 0 0 100000\r\n{}", "x".repeat(40_000)));
        idle.round("mn\r\n", "MN\r\n");
        Survivor { server, idle, half }
    }

    /// It serves, by the same process, with all its clients.
    #[track_caller]
    fn check(&mut self, what: &str) {
        self.idle.note = what.to_owned();
        self.half.note = what.to_owned();
        assert!(self.server.is_alive(), "{what}");
        assert_eq!(
            self.idle.stat("pid"),
            u64::from(self.server.pid()),
            "{what}"
        );
        assert_eq!(self.idle.get("a"), Some(b"1".to_vec()), "{what}");
        self.half.send("x".repeat(10_000));
        self.server
            .connect()
            .round("get a\r\n", "VALUE a 0 1\r\n1\r\nEND\r\n");
        for n in 0..300 {
            assert_eq!(
                self.idle.set(&format!("k{n}"), &vec![b'y'; n * 20]),
                "STORED"
            );
        }
        assert_eq!(self.idle.get("k299"), Some(vec![b'y'; 299 * 20]));
    }

    /// What was half there is there in the end, `sent` bytes after the first.
    #[track_caller]
    fn finish(mut self, sent: usize) {
        self.half.send("x".repeat(60_000 - sent));
        self.half.round("\r\n", "STORED\r\n");
        assert_eq!(self.idle.get("half"), Some(vec![b'x'; 100_000]));
        self.server.take_over(&[]);
        assert_eq!(self.idle.get("half"), Some(vec![b'x'; 100_000]));
    }
}

/// The status of a successor that does not take over.
#[track_caller]
fn end_of(mut successor: Child) -> std::process::ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = successor.try_wait().expect("the child is ours") {
            return status;
        }
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_successor_that_cannot_start_leaves_the_server_serving() {
    let mut survivor = Survivor::start(&["-m", "64"]);
    let mut sent = 0;
    for (options, told) in [
        (&["--no-such-option"][..], "no-such-option"),
        (&["-l", "192.0.2.1"], "192.0.2.1"),
        (&["-f", "1.5"], "the chunk sizes are others"),
        (&["-e", "/dev/shm/ketch-of-nobody"], "name the same"),
        (&["-Y", "/no/such/file"], "/no/such/file"),
        (
            &["-o", "snapshot=/no/such/directory/file"],
            "/no/such/directory",
        ),
    ] {
        let status = end_of(survivor.server.successor(options));
        assert!(!status.success(), "{options:?}");
        let log = survivor.server.log();
        assert!(log.contains(told), "{options:?}: {log}");
        survivor.check(&format!("{options:?}"));
        sent += 10_000;
        if sent == 50_000 {
            break;
        }
    }
    survivor.finish(sent);
}

#[test]
fn a_successor_that_is_killed_at_any_step_leaves_the_server_serving() {
    let mut survivor = Survivor::start(&["-m", "64"]);
    let mut sent = 0;
    for step in puppet::STEPS {
        let status = end_of(puppet::start(&survivor.server, step, false));
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{step}: {status}");
        survivor.check(step);
        sent += 10_000;
    }
    survivor.finish(sent);
}

#[test]
fn a_successor_that_hangs_at_any_step_is_killed_and_the_server_serves_on() {
    let mut survivor = Survivor::start(&["-m", "64"]);
    let mut sent = 0;
    for step in ["taken", "attached", "told", "let-go"] {
        let status = end_of(puppet::start(&survivor.server, step, true));
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{step}: {status}");
        survivor.check(step);
        sent += 10_000;
    }
    survivor.finish(sent);
}

/// Whoever comes second waits its turn or is told so: one server is left, and its clients notice nothing.
#[test]
fn of_several_successors_at_once_one_serves() {
    for round in 0..6u64 {
        let server = Server::start(&["-m", "64", "-t", "2"]);
        let mut client = Client {
            conn: server.connect(),
            nth: 0,
            rounds: 0,
        };
        client.round();
        let mut all: Vec<Child> = Vec::new();
        for nth in 0..3 {
            all.push(server.successor(&[]));
            if nth < 2 {
                std::thread::sleep(Duration::from_millis(round * 7));
            }
        }
        if round % 2 == 1 {
            server.signal(libc::SIGUSR2);
            server.signal(libc::SIGUSR2);
        }
        // Half-way through a value when they come.
        let mut half = server.connect();
        half.send("set half 0 0 6\r\nabc");
        let until = Instant::now() + Duration::from_millis(700);
        while Instant::now() < until {
            client.round();
            server.connect().round("mn\r\n", "MN\r\n");
        }
        half.round("def\r\n", "STORED\r\n");
        client
            .conn
            .round("get half\r\n", "VALUE half 0 6\r\nabcdef\r\nEND\r\n");
        let pid = client.conn.stat("pid");
        for _ in 0..20 {
            assert_eq!(
                server.connect().stat("pid"),
                pid,
                "round {round}: two serve"
            );
        }
        assert!(
            !server.log().contains("has crashed"),
            "round {round}: {}",
            server.log()
        );
        // Whoever did not take over has ended, and so has whoever was followed.
        wait_within("one is left", PATIENCE, || {
            let pid = client.conn.stat("pid");
            all.iter_mut().all(|successor| {
                u64::from(successor.id()) == pid
                    || successor.try_wait().expect("the child is ours").is_some()
            })
        });
        Server::signal_whoever_serves(&mut client.conn, libc::SIGTERM);
        client.conn.closed();
        for successor in all {
            end_of(successor);
        }
        wait_within("nobody serves any more", PATIENCE, || {
            server.try_connect().is_none()
        });
    }
}

/// Those who watch cannot be handed over. They see that they have missed something, and their server is followed all the same.
#[test]
fn whoever_watches_knows_that_another_serves() {
    let mut server = Server::start(&["-m", "64"]);
    let mut conn = server.connect();
    let (mut sights, mut feed) = (server.connect(), server.connect());
    sights.round("watch mutations\r\n", "OK\r\n");
    feed.round("watch feed\r\n", "OK\r\n");
    let place = String::from_utf8(feed.read_until(b"\n")).expect("text");
    let words: Vec<&str> = place.trim_end().split(' ').collect();
    let (epoch, seq) = (words[1].to_owned(), words[2].to_owned());
    conn.round("set a 0 0 1\r\n1\r\n", "STORED\r\n");
    server.take_over(&[]);
    conn.round("set a 0 0 1\r\n2\r\n", "STORED\r\n");
    // The rest of what was sent, and then the end.
    sights.read_to_end();
    feed.read_to_end();
    let mut again = server.connect();
    again.round(format!("watch feed from={epoch}:{seq}\r\n"), "OK\r\n");
    let place = String::from_utf8(again.read_until(b"\n")).expect("text");
    assert!(!place.contains(&epoch), "{place}");
    let gap = String::from_utf8(again.read_until(b"\n")).expect("text");
    assert!(gap.starts_with("GAP "), "{gap}");
    let mut sights = server.connect();
    sights.round("watch mutations\r\n", "OK\r\n");
    conn.round("set b 0 0 1\r\n3\r\n", "STORED\r\n");
    let line = String::from_utf8(sights.read_until(b"\n")).expect("text");
    assert!(line.contains("key=b"), "{line}");
    assert_eq!(conn.get("a"), Some(b"2".to_vec()));
}

/// Whoever is killed whenever it is: somebody serves in the end, and nothing that is there is wrong.
#[test]
fn a_server_that_is_killed_at_any_moment_of_it_is_followed_all_the_same() {
    const KEYS: usize = 300;
    let value = |n: usize| format!("{n}:").repeat(1 + n % 200).into_bytes();
    let (mut warm, mut taken) = (0, 0);
    for round in 0..16u64 {
        let mut server = Server::start(&["-m", "64", "-t", "2"]);
        let mut conn = server.connect();
        for n in 0..KEYS {
            assert_eq!(conn.set(&format!("k{n}"), &value(n)), "STORED");
        }
        let mut successor = server.successor(&[]);
        // From before it knocks to after it has taken over.
        std::thread::sleep(Duration::from_millis(round * 4));
        server.kill();
        wait_within("somebody serves", PATIENCE, || {
            if let Ok(Some(status)) = successor.try_wait() {
                panic!("round {round}: {status}; {}", server.log());
            }
            server.try_connect().is_some_and(|mut conn| {
                conn.try_send("mn\r\n").is_ok() && conn.try_line().as_deref() == Some("MN")
            })
        });
        let mut conn = server.try_connect().expect("it serves");
        let mut there = 0;
        for n in 0..KEYS {
            if let Some(found) = conn.get(&format!("k{n}")) {
                assert_eq!(found, value(n), "k{n}");
                there += 1;
            }
        }
        taken += usize::from(conn.stats("restart").contains_key("takeover_connections"));
        warm += usize::from(there == KEYS);
        assert!(there == KEYS || there == 0, "round {round}: {there}");
        successor.kill().expect("the child is ours");
        successor.wait().expect("the child is ours");
    }
    println!("warm {warm} of 16, taken over in good order {taken}");
    assert!(
        warm > 0 && taken < 16,
        "the moments are too early or too late"
    );
}
