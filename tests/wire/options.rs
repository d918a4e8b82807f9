//! The program's start and end, seen from outside: what it prints, refuses, writes, and how signals end it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// The longest a start or an end may take before a test gives up. The server itself stops within two seconds.
const DEADLINE: Duration = Duration::from_secs(10);
const EX_USAGE: i32 = 64;
const EX_OSERR: i32 = 71;

fn ketch(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ketch"));
    command
        .args(args)
        .env_remove("MEMCACHED_PORT_FILENAME")
        .env_remove("KETCH_LISTEN")
        .stdin(Stdio::null());
    command
}

/// What a start says that ends by itself; one that does not fails the test.
fn output(line: &str) -> Output {
    let child = ketch(&line.split_whitespace().collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut server = Server(child.unwrap());
    let status = until(line, || server.0.try_wait().unwrap());
    // It has ended, and what it has said fits the pipes.
    let mut out = Output {
        status,
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    let (stdout, stderr) = (server.0.stdout.take(), server.0.stderr.take());
    stdout.unwrap().read_to_end(&mut out.stdout).unwrap();
    stderr.unwrap().read_to_end(&mut out.stderr).unwrap();
    out
}

/// A directory of one test, removed with what is in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("ketch-options-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server in the foreground, killed if a test leaves it.
struct Server(Child);

impl Server {
    /// Started on free ports, which it writes to `ports`.
    fn start(args: &str, ports: &Path) -> Self {
        let args: Vec<_> = args.split_whitespace().collect();
        let mut command = ketch(&args);
        command
            .env("MEMCACHED_PORT_FILENAME", ports)
            .stderr(Stdio::null());
        Server(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        signal(self.0.id(), name);
    }

    fn wait(mut self) -> ExitStatus {
        until("the server to end", || self.0.try_wait().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -s {name} {pid}");
}

/// Asks `done` until it answers, or panics at the deadline.
fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = done() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn text_of(path: &Path) -> String {
    until(&path.display().to_string(), || {
        fs::read_to_string(path).ok()
    })
}

/// The port of the first `TCP INET` line.
fn tcp_port(ports: &Path) -> u16 {
    let text = text_of(ports);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("TCP INET: "));
    line.unwrap_or_else(|| panic!("no TCP port in {text:?}"))
        .parse()
        .unwrap()
}

#[test]
fn help_version_and_license_go_to_standard_output() {
    for (line, word) in [
        ("-h", "unix-socket"),
        ("-V", "ketch "),
        ("-i", "Redistribution"),
        ("-h -t 0", "threads"),
    ] {
        let out = output(line);
        assert_eq!(out.status.code(), Some(0), "{line}");
        assert!(
            String::from_utf8(out.stdout).unwrap().contains(word),
            "{line}"
        );
        assert!(out.stderr.is_empty(), "{line}");
    }
}

#[test]
fn refusals_are_one_line_and_an_exit_code() {
    let table = [
        ("-l fooble", "-l fooble"),
        ("-I 1000", "-I 1000"),
        ("-I 256m -m 64", "-I 256m"),
        ("-m 0", "-m 0"),
        ("-c 0", "-c 0"),
        ("-c -1", "-c -1"),
        ("-t 0", "-t 0"),
        ("-f 1", "-f 1"),
        ("-p 65536", "-p 65536"),
        ("-B http", "-B http"),
        ("-S -B ascii", "-S"),
        ("-S -B auto", "-S"),
        ("-S -Y /etc/auth -B ascii", "-S"),
        ("-S -Y /etc/auth -B binary", "-Y /etc/auth"),
        ("-Y /etc/auth -B auto", "-Y /etc/auth"),
        ("-Z", "-Z"),
        ("-o ext_path=x:1g", "-o ext_path=x:1g"),
        ("-o proxy_arg=x", "-o proxy_arg=x"),
        ("-o ssl_keyformat=DER", "-o ssl_keyformat=DER"),
        ("-o ssl_min_version=4", "-o ssl_min_version=4"),
        ("-o ssl_ciphers", "-o ssl_ciphers"),
        ("-o eviction=mru", "-o eviction=mru"),
        ("-o foo", "-o foo"),
        ("-o slab_automove=3", "-o slab_automove=3"),
        ("-l btls:127.0.0.1", "-l btls:127.0.0.1"),
        ("--config /no/such/file", "--config /no/such/file"),
        ("-q", "-q"),
        ("-m", "-m"),
        ("--threads=0", "--threads=0"),
        ("-d start", "start"),
        ("-o modern, track_sizes", "track_sizes"),
        ("--memroy-limit=64", "--memroy-limit=64"),
        ("--mem 64", "--mem"),
        ("-port 11211", "-port"),
        ("-o modren", "-o modren"),
        ("-m x", "-m x"),
        ("--print html", "--print html"),
        ("-d -t 0", "-t 0"),
    ];
    for (line, named) in table {
        let out = output(line);
        let err = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(EX_USAGE), "{line}: {err}");
        assert!(
            err.starts_with(&format!("ketch: {named}: ")),
            "{line}: {err}"
        );
        assert!(
            err.ends_with('\n') && err.lines().count() == 1,
            "{line}: {err}"
        );
        assert!(out.stdout.is_empty(), "{line}");
    }
}

#[test]
fn a_config_file_is_read_and_its_errors_tell_the_line() {
    let scratch = Scratch::new("config");
    let (conf, ports) = (scratch.path("conf"), scratch.path("ports"));
    fs::write(&conf, "# a test\n-p -1\n-u root\n").unwrap();
    let server = Server::start(&format!("--config {}", conf.display()), &ports);
    TcpStream::connect(("127.0.0.1", tcp_port(&ports))).unwrap();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));

    fs::write(&conf, "# a test\n-t 0\n").unwrap();
    let out = output(&format!("--config {}", conf.display()));
    assert_eq!(out.status.code(), Some(EX_USAGE));
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        format!(
            "ketch: {}:2: -t 0: threads must be 1 to 256\n",
            conf.display()
        )
    );
}

#[test]
fn each_listener_has_its_own_protocol() {
    /// A binary no-op, which in text is a line that is not known.
    const NOOP: &[u8] = b"\x80\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const LINE: &[u8] = b"version of the server\r\n";
    let scratch = Scratch::new("protocols");
    let ports = scratch.path("ports");
    let listen = "proto[ascii]:127.0.0.1,proto[binary]:127.0.0.1,proto[auto]:127.0.0.1";
    let server = Server::start(&format!("-p -1 -u root -l {listen}"), &ports);
    let text = text_of(&ports);
    let ports: Vec<u16> = text
        .lines()
        .filter_map(|line| line.strip_prefix("TCP INET: ")?.parse().ok())
        .collect();
    let first_byte = |port: u16, request: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request).unwrap();
        let mut byte = [0];
        // Hung up on, cleanly or with the rest of the request unread.
        let read = stream.read(&mut byte).unwrap_or(0);
        (read == 1).then_some(byte[0])
    };
    let answers: Vec<_> = ports
        .iter()
        .map(|&port| (first_byte(port, NOOP), first_byte(port, LINE)))
        .collect();
    let (line, packet) = (b'V', 0x81);
    assert_eq!(
        answers,
        [
            (Some(b'C'), Some(line)),
            (Some(packet), None),
            (Some(packet), Some(line))
        ]
    );
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn signals_end_the_server_well_but_for_hup() {
    let scratch = Scratch::new("signals");
    for name in ["INT", "TERM", "USR1"] {
        let (ports, pid) = (scratch.path("ports"), scratch.path("pid"));
        let args = format!(
            "-p -1 -U 0 -u root -o relaxed_privileges -P {}",
            pid.display()
        );
        let server = Server::start(&args, &ports);
        let port = tcp_port(&ports);
        assert_eq!(text_of(&pid).trim(), server.0.id().to_string());
        server.signal("HUP");
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        server.signal(name);
        assert_eq!(server.wait().code(), Some(0), "{name}");
        assert!(!pid.exists(), "{name}");
        fs::remove_file(&ports).unwrap();
    }
}

#[test]
fn a_daemon_is_ready_when_its_parent_returns() {
    let scratch = Scratch::new("daemon");
    let (ports, pid_file) = (scratch.path("ports"), scratch.path("pid"));
    let mut command = ketch(&["-d", "-p", "-1", "-u", "root", "-P"]);
    // `output` waits for the end of the pipes, so it also shows that the daemon has let go of them.
    let out = command
        .arg(&pid_file)
        .env("MEMCACHED_PORT_FILENAME", &ports)
        .output()
        .unwrap();
    assert_eq!(
        out.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );

    let pid = fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let connected = TcpStream::connect(("127.0.0.1", tcp_port(&ports)));
    signal(pid, "TERM");
    connected.unwrap();
    until("the pid file to go", || (!pid_file.exists()).then_some(()));
}

#[test]
fn a_daemon_that_cannot_start_says_so() {
    let scratch = Scratch::new("daemon-fails");
    let ports = scratch.path("ports");
    let server = Server::start("-l 127.0.0.1 -p -1 -u root", &ports);
    let out = output(&format!("-d -u root -l 127.0.0.1 -p {}", tcp_port(&ports)));
    assert_eq!(out.status.code(), Some(EX_OSERR));
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(
        err.starts_with("ketch: ") && err.lines().count() == 1,
        "{err}"
    );
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_unix_socket_has_its_mask_and_takes_the_place_of_tcp() {
    let scratch = Scratch::new("unix");
    let (ports, socket) = (scratch.path("ports"), scratch.path("socket"));
    let server = Server::start(&format!("-u root -a 640 -s {}", socket.display()), &ports);
    until("a connection", || UnixStream::connect(&socket).ok());
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(
        !fs::read_to_string(&ports)
            .unwrap_or_default()
            .contains("TCP")
    );
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(!socket.exists());
}

/// The ports of all lines `TRANSPORT FAMILY: port`.
fn ports_of(ports: &Path, transport: &str) -> Vec<u16> {
    let text = text_of(ports);
    let lines = text.lines().filter(|line| line.starts_with(transport));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn udp_listens_on_every_address_and_takes_tcp_along() {
    let scratch = Scratch::new("udp");
    let start = |args: &str, name: &str| {
        let ports = scratch.path(name);
        let server = Server::start(&format!("-u root -t 2 {args}"), &ports);
        text_of(&ports);
        (server, ports)
    };
    let (_off, ports) = start("-p -1", "off");
    assert!(ports_of(&ports, "UDP").is_empty());

    let (_both, ports) = start("-U -1 -l 127.0.0.1,127.0.0.2", "both");
    let udp = ports_of(&ports, "UDP INET:");
    assert_eq!((ports_of(&ports, "TCP INET:").len(), udp.len()), (2, 2));
    for (ip, port) in [("127.0.0.1", udp[0]), ("127.0.0.2", udp[1])] {
        let client = UdpSocket::bind((ip, 0)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
            .send_to(b"\0\x01\0\0\0\x01\0\0mn\r\n", (ip, port))
            .unwrap();
        let mut reply = [0; 100];
        let (len, from) = client.recv_from(&mut reply).unwrap();
        assert_eq!(&reply[..len], b"\0\x01\0\0\0\x01\0\0MN\r\n");
        assert_eq!(from, SocketAddr::new(ip.parse().unwrap(), port));
    }

    let free = until("a port that is free for both", || {
        let udp = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        TcpListener::bind(udp).is_ok().then_some(udp)
    });
    let args = format!("-U {} -l 127.0.0.1", free.port());
    let (_moved, ports) = start(&args, "moved");
    assert_eq!(ports_of(&ports, "UDP"), [free.port()]);
    assert_eq!(ports_of(&ports, "TCP"), [free.port()]);

    // Nobody else gets it, as for TCP.
    let out = output(&format!("-u root {args} -p 0"));
    assert_eq!(out.status.code(), Some(EX_OSERR));
    let err = String::from_utf8(out.stderr).unwrap();
    let want = format!("ketch: cannot listen on UDP {free}: ");
    assert!(err.starts_with(&want) && err.lines().count() == 1, "{err}");

    let socket = scratch.path("socket");
    let (_unix, ports) = start(&format!("-U -1 -s {}", socket.display()), "unix");
    assert_eq!(text_of(&ports), "");
}

#[test]
fn the_log_goes_where_it_is_sent() {
    let scratch = Scratch::new("log");
    let (ports, log) = (scratch.path("ports"), scratch.path("log"));
    let args = format!("-l 127.0.0.1 -p -1 -u root --logfile {}", log.display());
    let server = Server::start(&args, &ports);
    tcp_port(&ports);
    until("the server to take its log", || {
        server.signal("HUP");
        fs::read_to_string(&log)
            .is_ok_and(|text| text.contains("SIGHUP"))
            .then_some(())
    });
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_unknown_user_ends_the_start_of_root() {
    if !is_root() {
        // Without root there is no other user to become, and -u is read over.
        return;
    }
    let out = output("-l 127.0.0.1 -p -1 -u no-such-user");
    assert_eq!(out.status.code(), Some(EX_OSERR));
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        "ketch: -u no-such-user: no such user\n"
    );
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// The user and group `nobody`, whose directories these tests make.
const NOBODY: u32 = 65534;

/// Starts servers that are to make `name` in a directory of nobody's, while nobody puts a link to a file of root's there, now
/// before the server looks, now over what it has just made; nobody must neither get the file nor write to it.
fn root_does_not_follow(name: &str, option: &str, starts: u32) {
    if !is_root() {
        // What nobody may not do, only root can be made to do for them.
        return;
    }
    let scratch = Scratch::new(&format!("links-{name}"));
    let secret = scratch.path("secret");
    fs::write(&secret, "secret\n").unwrap();
    let theirs = scratch.path("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let target = theirs.join(name);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let link = theirs.join("link");
            while !stop.load(Relaxed) {
                let _ = std::os::unix::fs::symlink(&secret, &link);
                let _made = (0..5000).find(|_| fs::symlink_metadata(&target).is_ok());
                let _ = fs::rename(&link, &target);
                thread::sleep(Duration::from_millis(2));
                let _ = fs::remove_file(&target);
            }
        });
        for start in 0..starts {
            let ports = scratch.path(&format!("ports-{start}"));
            let args = format!("-t 1 -u nobody -l 127.0.0.1 {option} {}", target.display());
            let mut server = Server::start(&args, &ports);
            // It comes up, or it does not, for the link may be where its file was to be.
            until("the start", || {
                let ended = server.0.try_wait().unwrap().is_some();
                (ended || ports.exists()).then_some(())
            });
            if server.0.try_wait().unwrap().is_none() {
                // It has something to say in its log.
                server.signal("HUP");
                server.signal("TERM");
                server.wait();
            }
            let found = fs::metadata(&secret).unwrap();
            let text = fs::read_to_string(&secret).unwrap();
            if found.uid() != 0 || text != "secret\n" {
                stop.store(true, Relaxed);
                panic!("start {start}: user {} has {text:?}", found.uid());
            }
        }
        stop.store(true, Relaxed);
    });
}

#[test]
fn root_gives_no_file_away_for_a_unix_socket() {
    root_does_not_follow("socket", "-s", 40);
}

#[test]
fn root_writes_no_log_through_a_link() {
    root_does_not_follow("log", "-p -1 --logfile", 20);
}

#[test]
fn root_writes_no_pid_through_a_link() {
    root_does_not_follow("pid.tmp", "-p -1 -P", 10);
}

/// What root leaves to the user of `-u`, that user must be able to do.
#[test]
fn what_the_user_may_not_make_is_named() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("not-theirs");
    let (socket, roots) = (scratch.path("socket"), scratch.path("roots"));
    let out = output(&format!("-u nobody -s {}", socket.display()));
    assert_eq!(out.status.code(), Some(EX_OSERR));
    let err = String::from_utf8(out.stderr).unwrap();
    let dir = scratch.0.display();
    let want = format!(
        "ketch: cannot listen on {}: Permission denied (os error 13): user {NOBODY} may not write to the directory {dir}\n",
        socket.display()
    );
    assert_eq!(err, want);

    // A directory that is everybody's, and a file in it that is not.
    fs::create_dir(&roots).unwrap();
    fs::set_permissions(&roots, fs::Permissions::from_mode(0o1777)).unwrap();
    let log = roots.join("log");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
    let out = output(&format!(
        "-u nobody -l 127.0.0.1 -p -1 --logfile {}",
        log.display()
    ));
    assert_eq!(out.status.code(), Some(EX_OSERR));
    let err = String::from_utf8(out.stderr).unwrap();
    let want = format!("user {NOBODY} may not write to this file\n");
    assert!(err.ends_with(&want), "{err}");
}

/// Where root alone can make files, as in `/var/log`, root opens the log for the user of `-u`; but no link.
#[test]
fn root_opens_a_log_among_files_of_its_own() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("roots-log");
    let (ports, log) = (scratch.path("ports"), scratch.path("log"));
    let args = format!("-l 127.0.0.1 -p -1 -u nobody --logfile {}", log.display());
    let server = Server::start(&args, &ports);
    tcp_port(&ports);
    until("the server to take its log", || {
        server.signal("HUP");
        let text = fs::read_to_string(&log);
        text.is_ok_and(|text| text.contains("SIGHUP")).then_some(())
    });
    assert_eq!(fs::metadata(&log).unwrap().uid(), 0);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));

    let link = scratch.path("link");
    std::os::unix::fs::symlink(&log, &link).unwrap();
    let out = output(&format!(
        "-u nobody -l 127.0.0.1 -p -1 --logfile {}",
        link.display()
    ));
    assert_eq!(out.status.code(), Some(EX_OSERR));
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(err.contains("it is a link"), "{err}");
}

/// The user of `-u` owns the socket, with the bits of `-a`, and removes it in the end; so does the next server with one
/// that was left behind.
#[test]
fn a_unix_socket_is_made_by_the_user() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("unix-user");
    let theirs = scratch.path("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let socket = theirs.join("socket");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let args = format!("-u nobody -a 640 -s {}", socket.display());
    let server = Server::start(&args, &scratch.path("ports"));
    until("a connection", || UnixStream::connect(&socket).ok());
    let found = fs::metadata(&socket).unwrap();
    assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY));
    assert_eq!(found.permissions().mode() & 0o777, 0o640);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(!socket.exists());
}

/// A server with its log in a file, started by a shell that says `before` first.
fn start_by_shell(before: &str, args: &str, scratch: &Scratch) -> Server {
    let log = fs::File::create(scratch.path("stderr")).unwrap();
    let line = format!("{before} exec {} {args}", env!("CARGO_BIN_EXE_ketch"));
    let mut command = Command::new("sh");
    command
        .args(["-c", &line])
        .env("MEMCACHED_PORT_FILENAME", scratch.path("ports"))
        .env_remove("KETCH_LISTEN")
        .stdin(Stdio::null())
        .stderr(log);
    Server(command.spawn().unwrap())
}

/// What a new connection on the port answers to a no-op, in one read.
fn ask(port: u16) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // Who is refused may be closed before it has said anything.
    let _ = stream.write_all(b"mn\r\n");
    let mut reply = [0; 64];
    let len = stream.read(&mut reply).unwrap_or(0);
    let reply = String::from_utf8_lossy(&reply[..len]).into_owned();
    (stream, reply)
}

fn stat_of(port: u16, command: &str, key: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!("{command}\r\nquit\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = format!("STAT {key} ");
    let value = text.lines().find_map(|told| told.strip_prefix(&line));
    value
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .to_owned()
}

#[test]
fn a_socket_that_answers_is_not_taken_over_and_one_of_another_not_removed() {
    let scratch = Scratch::new("taken");
    let socket = scratch.path("socket");
    let args = format!("-u root -s {}", socket.display());
    let first = Server::start(&args, &scratch.path("ports"));
    until("a connection", || UnixStream::connect(&socket).ok());
    let out = output(&args);
    assert_eq!(out.status.code(), Some(EX_OSERR));
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        format!(
            "ketch: cannot listen on {}: another server answers there; end it, or name another path\n",
            socket.display()
        )
    );
    UnixStream::connect(&socket).unwrap();

    // Another server has put its own socket there meanwhile.
    fs::remove_file(&socket).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(0));
    UnixStream::connect(&socket).expect("it is still there");

    // Left behind by one that has gone, it is taken.
    drop(other);
    assert!(socket.exists());
    let next = Server::start(&args, &scratch.path("ports"));
    until("a connection", || UnixStream::connect(&socket).ok());
    next.signal("TERM");
    assert_eq!(next.wait().code(), Some(0));
    assert!(!socket.exists());

    // What is no socket stays what it is.
    fs::write(&socket, "a file").unwrap();
    assert_eq!(output(&args).status.code(), Some(EX_OSERR));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "a file");
}

#[test]
fn fewer_descriptors_than_asked_for_are_fewer_clients() {
    let scratch = Scratch::new("descriptors");
    // More than any machine has, so that root cannot raise the limit either.
    let args = "-c 16m -t 1 -p -1 -l 127.0.0.1 -u root";
    let _server = start_by_shell("ulimit -n 100;", args, &scratch);
    let port = tcp_port(&scratch.path("ports"));
    let most: usize = stat_of(port, "stats", "max_connections").parse().unwrap();
    assert!((40..100).contains(&most), "{most}");
    let log = fs::read_to_string(scratch.path("stderr")).unwrap();
    let told = format!("the limit is 100: {most} clients at one time");
    assert!(
        log.contains("-c 16000000: needs ") && log.contains(&told),
        "{log}"
    );
    // The connections that asked before may still be on their way out.
    until("all places to be free", || {
        (stat_of(port, "stats", "curr_connections") == "1").then_some(())
    });
    let mut served = Vec::new();
    until("no more places", || {
        let (stream, reply) = ask(port);
        if reply == "MN\r\n" {
            served.push(stream);
            return None;
        }
        // What was sent to a closed connection may take the line with it.
        let told = reply.starts_with("ERROR Too many open connections");
        assert!(told || reply.is_empty(), "{reply}");
        Some(())
    });
    let mut refused = TcpStream::connect(("127.0.0.1", port)).unwrap();
    refused.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut line = String::new();
    refused.read_to_string(&mut line).unwrap();
    assert_eq!(line, "ERROR Too many open connections\r\n");
    assert!(
        most - 1 <= served.len() && served.len() <= most,
        "{} of {most}",
        served.len()
    );
    for _ in 0..20 {
        assert!(ask(port).1.starts_with("ERROR Too many open connections"));
    }
    served.pop();
    until("a place that has become free", || {
        (ask(port).1 == "MN\r\n").then_some(())
    });

    let out = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -n 20; exec {} {args}", env!("CARGO_BIN_EXE_ketch")),
        ])
        .output()
        .unwrap();
    let err = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(EX_OSERR), "{err}");
    assert!(
        err.starts_with("ketch: -c 16000000: the limit on open files is 20"),
        "{err}"
    );
}

#[test]
fn memory_that_is_not_there_is_warned_of_with_numbers() {
    let scratch = Scratch::new("memory");
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kb: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .map(|rest| rest.trim().trim_end_matches("kB").trim().parse().unwrap())
        .unwrap();
    let (too_much, enough) = ((kb >> 10) + 1024, 64);
    for (mb, is_warned) in [
        (too_much.min(256 << 10), too_much < 256 << 10),
        (enough, false),
    ] {
        let args = format!("-m {mb} -p -1 -l 127.0.0.1 -u root");
        let server = start_by_shell("", &args, &scratch);
        tcp_port(&scratch.path("ports"));
        let log = fs::read_to_string(scratch.path("stderr")).unwrap();
        let told = format!("-m: {mb} MB for items, and ");
        assert_eq!(log.contains(&told), is_warned, "{mb}: {log}");
        drop(server);
        fs::remove_file(scratch.path("ports")).unwrap();
    }
}

/// Who may lock memory is not told of a limit that does not hold for them.
#[test]
fn locked_memory_is_locked_or_warned_of() {
    let scratch = Scratch::new("locked");
    let server = start_by_shell("", "-k -m 64 -p -1 -l 127.0.0.1 -u root", &scratch);
    // The port is told before there is a cache.
    let (_conn, answer) = ask(tcp_port(&scratch.path("ports")));
    assert_eq!(answer, "MN\r\n");
    let log = fs::read_to_string(scratch.path("stderr")).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", server.0.id())).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let locked: u64 = locked
        .unwrap()
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap();
    assert_eq!(
        locked > 64 << 10,
        !log.contains("-k: "),
        "{locked} kB locked: {log}"
    );
}

#[test]
fn a_log_that_was_moved_away_is_opened_anew() {
    let scratch = Scratch::new("rotated");
    let (ports, log, old) = (
        scratch.path("ports"),
        scratch.path("log"),
        scratch.path("old"),
    );
    let args = format!("-l 127.0.0.1 -p -1 -u root --logfile {}", log.display());
    let server = Server::start(&args, &ports);
    tcp_port(&ports);
    until("the server to take its log", || {
        server.signal("HUP");
        text_of(&log).contains("SIGHUP").then_some(())
    });
    fs::rename(&log, &old).unwrap();
    server.signal("HUP");
    until("a new log", || {
        let text = fs::read_to_string(&log).ok()?;
        text.contains("the log goes on in").then_some(())
    });
    let kept = fs::read_to_string(&old).unwrap();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(
        fs::read_to_string(&old).unwrap(),
        kept,
        "nothing is written there any more"
    );
}

#[test]
fn a_node_list_that_no_client_could_read_ends_the_start() {
    let scratch = Scratch::new("nodes");
    let list = scratch.path("list");
    fs::write(&list, "1\na|10.0.0.1|11211\nb|10.0.0.2|11211\n").unwrap();
    let out = output(&format!(
        "-u root -p -1 -o cluster_config={}",
        list.display()
    ));
    assert_eq!(out.status.code(), Some(EX_OSERR));
    let err = String::from_utf8(out.stderr).unwrap();
    let told = format!(
        "ketch: -o cluster_config: {}: all nodes must be in line 2",
        list.display()
    );
    assert!(err.starts_with(&told) && err.lines().count() == 1, "{err}");
}

#[test]
fn a_default_address_that_is_taken_is_passed_over() {
    if TcpListener::bind("[::1]:0").is_err() {
        // Without IPv6 there is only one default address.
        return;
    }
    let scratch = Scratch::new("default");
    let start = |_| {
        let taken = TcpListener::bind("[::1]:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut server = start_by_shell("", &format!("-p {port} -u root"), &scratch);
        let runs = until("a server that listens or gives up", || {
            let gives_up = server.0.try_wait().unwrap().map(|_| false);
            gives_up.or_else(|| scratch.path("ports").exists().then_some(true))
        });
        runs.then_some((taken, port, server))
    };
    // On the other address somebody else may have the port.
    let started = (0..10).find_map(start);
    let (_taken, port, _server) = started.expect("one of ten ports is free on the other address");
    assert_eq!(ports_of(&scratch.path("ports"), "TCP"), [port]);
    assert_eq!(ask(port).1, "MN\r\n");
    let log = fs::read_to_string(scratch.path("stderr")).unwrap();
    assert!(
        log.contains("cannot listen on [::") && log.contains("going on without it"),
        "{log}"
    );

    // One that was asked for is not.
    let out = output(&format!("-u root -l 127.0.0.2:{port} -l [::1]:{port}"));
    assert_eq!(out.status.code(), Some(EX_OSERR));
}

#[test]
fn a_container_listens_on_all_addresses_and_says_so_once() {
    let scratch = Scratch::new("container");
    for (variables, inter, told) in [
        ("KUBERNETES_SERVICE_HOST=10.0.0.1", "NULL", 1),
        (
            "KUBERNETES_SERVICE_HOST=10.0.0.1 KETCH_LISTEN=127.0.0.1",
            "127.0.0.1",
            0,
        ),
    ] {
        let server = start_by_shell(&format!("export {variables};"), "-p -1 -u root", &scratch);
        let text = text_of(&scratch.path("ports"));
        let port = tcp_port(&scratch.path("ports"));
        assert_eq!(ask(port).1, "MN\r\n");
        assert_eq!(stat_of(port, "stats settings", "inter"), inter);
        let log = fs::read_to_string(scratch.path("stderr")).unwrap();
        let sign = "in a container (KUBERNETES_SERVICE_HOST)";
        assert_eq!(log.matches(sign).count(), told, "{log}");
        let conns = Command::new("sh")
            .args(["-c", "cat /proc/net/tcp"])
            .output()
            .unwrap();
        let conns = String::from_utf8(conns.stdout).unwrap();
        let any = format!(" 00000000:{port:04X} ");
        assert_eq!(conns.contains(&any), told == 1, "{text}");
        drop(server);
        fs::remove_file(scratch.path("ports")).unwrap();
    }
}

/// What systemd does for a unit of `Type=notify`, with sockets of its own.
#[test]
fn a_service_manager_hands_sockets_over_and_hears_when_the_server_is_ready() {
    let scratch = Scratch::new("manager");
    let notices = scratch.path("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&notices).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let heard = || {
        loop {
            let mut state = [0; 64];
            let len = manager.recv(&mut state).unwrap();
            let state = String::from_utf8(state[..len].to_vec()).unwrap();
            // Memory to keep is another test's matter.
            if !state.starts_with("FDSTORE") {
                return state;
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Connected before the server is there, and answered when it is.
    let mut early = TcpStream::connect(("127.0.0.1", port)).unwrap();
    early.set_read_timeout(Some(DEADLINE)).unwrap();
    early.write_all(b"mn\r\n").unwrap();

    // `-d` would lose the process that the manager knows.
    let line = format!(
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 NOTIFY_SOCKET={} exec {} -d -l 127.0.0.5:1 -u root",
        notices.display(),
        env!("CARGO_BIN_EXE_ketch")
    );
    let log = fs::File::create(scratch.path("stderr")).unwrap();
    let child = Command::new("sh")
        .args(["-c", &line])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stderr(log)
        .spawn()
        .unwrap();
    let server = Server(child);
    assert_eq!(heard(), "READY=1");
    let mut reply = [0; 4];
    early.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"MN\r\n");
    let log = fs::read_to_string(scratch.path("stderr")).unwrap();
    assert!(log.contains("-d has no effect"), "{log}");
    server.signal("TERM");
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(server.wait().code(), Some(0));
}
