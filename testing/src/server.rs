//! A server process of a test's own: started on a free port, waited for, killed when dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::{Conn, Kind, PATIENCE, START_PATIENCE, Version, binary, tls, wait_until};

/// A running server. Dropping it kills the process and removes its directory.
pub struct Server {
    child: Child,
    /// The connection that showed that the server is ready; the first one that is asked for.
    first: Mutex<Option<Conn>>,
    address: Address,
    dir: Dir,
    launch: Launch,
}

/// What a server was started with, to start it again.
#[derive(Clone)]
struct Launch {
    program: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    /// The tests' TLS is put under its connections ([`tls_for_all`]).
    tls: bool,
}

/// Whether the thread with this directory in /proc is neither stopped nor gone.
fn runs(thread: &Path) -> bool {
    // Its name stands before its state, in brackets, and may hold brackets too.
    let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    !matches!(state, None | Some("T" | "Z"))
}

/// A directory that is removed with what is in it.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

static STARTED: AtomicU32 = AtomicU32::new(0);

impl Kind {
    /// A server of this kind on a free TCP port of the loopback.
    #[track_caller]
    pub fn start(self) -> Server {
        self.start_with(&[])
    }

    /// As [`Kind::start`], with more options.
    #[track_caller]
    pub fn start_with(self, args: &[&str]) -> Server {
        let args = [&["-t", "2"], args].concat();
        Server::spawn_tcp(Launch::new(self.program(), &args, &[], false))
    }

    /// A server of this kind on a unix socket.
    #[track_caller]
    pub fn start_unix(self) -> Server {
        let dir = new_dir();
        let path = dir.0.join("socket");
        Server::spawn_unix(dir, path, Launch::new(self.program(), &[], &[], false))
    }
}

impl Launch {
    fn new(program: &Path, args: &[&str], environment: &[(&str, &str)], tls: bool) -> Launch {
        let owned = |text: &str| text.to_owned();
        Launch {
            program: program.to_owned(),
            args: args.iter().map(|arg| owned(arg)).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| (owned(name), owned(value)))
                .collect(),
            tls,
        }
    }

    #[track_caller]
    fn spawn_unix(&self, dir: &Dir, path: &Path) -> Child {
        let child = command(&self.program, &dir.0)
            .arg("-s")
            .arg(path)
            .args(&self.args)
            .spawn();
        child.unwrap_or_else(|e| panic!("{}: {e}", self.program.display()))
    }

    /// Starts the process on `port`, with its files in `dir`.
    #[track_caller]
    fn spawn(&self, dir: &Dir, port: &str) -> Child {
        let mut command = command(&self.program, &dir.0);
        command.args(["-p", port, "-l", "127.0.0.1", "-U", "0"]);
        if self.tls {
            command.args(tls_for_all().map_or(&[][..], |all| &all.options));
        }
        command.args(&self.args);
        command.env("MEMCACHED_PORT_FILENAME", dir.0.join("port"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let child = command.spawn();
        child.unwrap_or_else(|e| {
            panic!(
                "{}: {e}; scripts/test installs memcached",
                self.program.display()
            )
        })
    }
}

impl Server {
    /// A server on a free TCP port of the loopback, with `args` behind the test's own.
    #[track_caller]
    pub fn start(args: &[&str]) -> Server {
        Server::start_program(&binary(), args)
    }

    /// As [`Server::start`], of a program that is not the one under test.
    #[track_caller]
    pub fn start_program(program: &Path, args: &[&str]) -> Server {
        Server::spawn_tcp(Launch::new(program, args, &[], true))
    }

    /// As [`Server::start`], with more in its environment.
    #[track_caller]
    pub fn start_in(environment: &[(&str, &str)], args: &[&str]) -> Server {
        Server::spawn_tcp(Launch::new(&binary(), args, environment, true))
    }

    #[track_caller]
    fn spawn_tcp(launch: Launch) -> Server {
        let dir = new_dir();
        let mut server = Server {
            child: launch.spawn(&dir, "-1"),
            first: Mutex::new(None),
            // Filled in as soon as it is known; until then drop only has to kill.
            address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
            dir,
            launch,
        };
        server.wait_for_port();
        server
    }

    /// Waits until the server says which port it has, and takes a connection.
    #[track_caller]
    fn wait_for_port(&mut self) {
        let port_file = self.dir.0.join("port");
        self.wait_for("a line `TCP INET: port` in its port file", |server| {
            let text = fs::read_to_string(&port_file).unwrap_or_default();
            let port = text
                .lines()
                .find_map(|line| line.strip_prefix("TCP INET: "));
            let Some(port) = port.and_then(|port| port.trim().parse().ok()) else {
                return false;
            };
            server.address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
            true
        });
        self.wait_for("a connection", Server::connect_first);
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
        self.first = Mutex::new(None);
    }

    /// Starts a server that has ended again: empty, on its port.
    #[track_caller]
    pub fn restart(&mut self) {
        let _ = fs::remove_file(self.dir.0.join("port"));
        self.child = self.launch.spawn(&self.dir, &self.port().to_string());
        self.wait_for_port();
    }

    /// Another process of the program, with more options, that is to take over from this one.
    pub fn successor(&self, more: &[&str]) -> Child {
        let mut launch = self.launch.clone();
        launch.args.push("--takeover".to_owned());
        launch.args.extend(more.iter().map(|&arg| arg.to_owned()));
        match &self.address {
            Address::Tcp(address) => launch.spawn(&self.dir, &address.port().to_string()),
            Address::Unix(path) => launch.spawn_unix(&self.dir, path),
        }
    }

    /// Has another process take over, with more options, and waits until this one has ended. From then on it is the other.
    #[track_caller]
    pub fn take_over(&mut self, more: &[&str]) {
        let successor = self.successor(more);
        self.is_taken_over_by(successor);
    }

    /// Waits until `successor` has taken over and this process has ended. From then on it is the other.
    #[track_caller]
    pub fn is_taken_over_by(&mut self, mut successor: Child) {
        let until = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                assert!(status.success(), "{status}; {}", self.last_words());
                break;
            }
            if let Some(status) = successor.try_wait().expect("the child is ours") {
                panic!("the successor has ended: {status}; {}", self.last_words());
            }
            assert!(
                Instant::now() < until,
                "nobody takes over; {}",
                self.last_words()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        self.becomes(successor);
    }

    /// From now on it is this process, on the same port.
    pub fn becomes(&mut self, process: Child) {
        self.child = process;
        self.first = Mutex::new(None);
    }

    /// What the server and those that followed have written to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.0.join("stderr")).unwrap_or_default()
    }

    /// Another server on a port of its own, with this one's program and options.
    #[track_caller]
    pub fn sibling(&self) -> Server {
        Server::spawn_tcp(self.launch.clone())
    }

    /// Stops the process (`true`), or lets it go on. When this returns, none of its threads runs: the signal alone leaves those
    /// on other cores time for a reply.
    #[track_caller]
    pub fn freeze(&self, stop: bool) {
        if !stop {
            return self.signal(libc::SIGCONT);
        }
        self.signal(libc::SIGSTOP);
        let threads = format!("/proc/{}/task", self.pid());
        wait_until("no thread runs", || {
            let mut threads = fs::read_dir(&threads).expect("the threads of a child");
            !threads.any(|thread| runs(&thread.expect("a thread").path()))
        });
    }

    /// What it answers to `request` on a connection of its own, up to and with the first `end`.
    #[track_caller]
    pub fn ask(&self, request: &str, end: &str) -> String {
        let mut conn = self.try_connect().expect("the server takes connections");
        conn.send(request);
        String::from_utf8(conn.read_until(end.as_bytes())).expect("text")
    }

    /// What it holds for `key`, as `mg` tells it.
    #[track_caller]
    pub fn holds(&self, key: &str) -> Option<String> {
        let answer = self.ask(&format!("mg {key} v\r\nmn\r\n"), "MN\r\n");
        let value = answer.strip_suffix("\r\nMN\r\n").expect("it ends so");
        if value == "EN" {
            return None;
        }
        Some(value.split_once("\r\n").expect("a value").1.to_owned())
    }

    /// A server on a unix socket in its own directory.
    #[track_caller]
    pub fn start_unix(args: &[&str]) -> Server {
        let dir = new_dir();
        let path = dir.0.join("socket");
        Server::spawn_unix(dir, path, Launch::new(&binary(), args, &[], true))
    }

    /// A server on the unix socket `path`, which another one may have left behind.
    #[track_caller]
    pub fn start_unix_at(path: &Path, args: &[&str]) -> Server {
        Server::spawn_unix(
            new_dir(),
            path.to_path_buf(),
            Launch::new(&binary(), args, &[], true),
        )
    }

    #[track_caller]
    fn spawn_unix(dir: Dir, path: PathBuf, launch: Launch) -> Server {
        let child = launch.spawn_unix(&dir, &path);
        let mut server = Server {
            child,
            first: Mutex::new(None),
            address: Address::Unix(path),
            dir,
            launch,
        };
        server.wait_for("a connection", Server::connect_first);
        server
    }

    /// A new connection.
    #[track_caller]
    pub fn connect(&self) -> Conn {
        let first = self.first.lock().ok().and_then(|mut first| first.take());
        first
            .or_else(|| self.try_connect())
            .unwrap_or_else(|| panic!("cannot connect; {}", self.last_words()))
    }

    fn connect_first(&mut self) -> bool {
        self.first = Mutex::new(self.try_connect());
        self.first.get_mut().is_ok_and(|first| first.is_some())
    }

    /// A new connection, or none when the server does not take it.
    pub fn try_connect(&self) -> Option<Conn> {
        match &self.address {
            Address::Tcp(address) => {
                if self.launch.tls
                    && let Some(all) = tls_for_all()
                {
                    return tls::connect(address.port(), &all.client).ok();
                }
                let stream = TcpStream::connect_timeout(address, PATIENCE).ok()?;
                Some(Conn::tcp(stream, &format!("server {address}")))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).ok()?;
                Some(Conn::unix(stream, &format!("server {}", path.display())))
            }
        }
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        match self.address {
            Address::Tcp(address) => address.port(),
            Address::Unix(_) => 0,
        }
    }

    /// The TCP ports of a server that listens on several, in the order of its options.
    pub fn ports(&self) -> Vec<u16> {
        let text = fs::read_to_string(self.dir.0.join("port")).expect("the port file");
        let ports = text
            .lines()
            .filter_map(|line| line.strip_prefix("TCP INET: "));
        ports.map(|port| port.parse().expect("a port")).collect()
    }

    /// The UDP port, of a server that was started with one.
    #[track_caller]
    pub fn udp_port(&self) -> u16 {
        let text = fs::read_to_string(self.dir.0.join("port")).expect("a port file");
        let port = text
            .lines()
            .find_map(|line| line.strip_prefix("UDP INET: "));
        let port = port.unwrap_or_else(|| panic!("no UDP port in {text:?}"));
        port.trim().parse().expect("a port")
    }

    /// The port of `--http`, of a server that was started with it.
    #[track_caller]
    pub fn http_port(&self) -> u16 {
        let text = fs::read_to_string(self.dir.0.join("port")).expect("a port file");
        let port = text
            .lines()
            .find_map(|line| line.strip_prefix("HTTP INET: "));
        let port = port.unwrap_or_else(|| panic!("no HTTP port in {text:?}"));
        port.trim().parse().expect("a port")
    }

    /// The socket's path, for a server on a unix socket.
    pub fn socket_path(&self) -> Option<&Path> {
        match &self.address {
            Address::Tcp(_) => None,
            Address::Unix(path) => Some(path),
        }
    }

    /// True for ketch, and for a memcached as new as that whose surface ketch has.
    #[track_caller]
    pub fn is_current(&self) -> bool {
        self.version() >= Version::FOLLOWED
    }

    /// The version that it says it has.
    #[track_caller]
    pub fn version(&self) -> Version {
        let line = self.connect().ask("version\r\n");
        Version::parse(&line).unwrap_or_else(|| panic!("no version: {line:?}"))
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KB.
    pub fn rss_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("status of a running process");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        let kb = line.trim().strip_suffix("kB").expect("in kB");
        kb.trim().parse().expect("a number")
    }

    /// Lets the server have `count` more open files than it has now.
    pub fn allow_more_files(&self, count: u64) {
        let pid = self.pid() as libc::pid_t;
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: both calls read or write the one struct they are given, which lives on this stack.
        let result = unsafe {
            libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &mut limit);
            limit.rlim_cur = self.open_files() as u64 + count;
            libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut())
        };
        assert_eq!(result, 0, "a limit of open files");
    }

    /// Lets the server have so many bytes of addresses more than it has now: the system refuses it memory beyond.
    pub fn allow_more_memory(&self, bytes: u64) {
        let status = fs::read_to_string(format!("/proc/{}/statm", self.pid()));
        let status = status.expect("statm of a running process");
        let pages = status
            .split(' ')
            .next()
            .and_then(|pages| pages.parse().ok());
        let now = pages
            .map(|pages: u64| pages * 4096)
            .expect("a number of pages");
        let limit = libc::rlimit {
            rlim_cur: now + bytes,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: reads the one struct it is given, which lives on this stack.
        let result = unsafe {
            libc::prlimit(
                self.pid() as libc::pid_t,
                libc::RLIMIT_AS,
                &limit,
                std::ptr::null_mut(),
            )
        };
        assert_eq!(result, 0, "a limit of addresses");
    }

    /// Lets the server write no file beyond so many bytes, as if the disk were full.
    pub fn allow_file_bytes(&self, bytes: u64) {
        let pid = self.pid() as libc::pid_t;
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: reads the one struct it is given, which lives on this stack.
        let result =
            unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
        assert_eq!(result, 0, "a limit of file sizes");
    }

    /// How many files and sockets the server has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a running process")
            .count()
    }

    /// How many files of each kind the server has open: `socket`, `anon_inode`, or a path.
    #[track_caller]
    pub fn open_files_by_kind(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a running process");
        for entry in entries.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let kind = target
                .to_string_lossy()
                .split(":[")
                .next()
                .map(str::to_owned);
            *kinds.entry(kind.unwrap_or_default()).or_default() += 1;
        }
        kinds
    }

    /// `stats GROUP` on a connection of its own.
    #[track_caller]
    pub fn stats(&self, group: &str) -> BTreeMap<String, String> {
        self.connect().stats(group)
    }

    /// One number of `stats`.
    #[track_caller]
    pub fn stat(&self, key: &str) -> u64 {
        self.connect().stat(key)
    }

    /// Sends a signal to the process that serves now, which a connection tells of: it may have taken over by itself.
    pub fn signal_whoever_serves(conn: &mut Conn, signal: libc::c_int) {
        let pid = conn.stat("pid");
        // SAFETY: kill takes two numbers; the process is the server's that has just answered.
        let result = unsafe { libc::kill(pid as libc::pid_t, signal) };
        assert_eq!(result, 0, "kill({pid}, {signal})");
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill takes two numbers; the child is ours and has not been waited for, so its pid is not reused.
        let result = unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
        assert_eq!(result, 0, "kill({}, {signal})", self.pid());
    }

    /// Waits for the server to end by itself.
    #[track_caller]
    pub fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                return status;
            }
            assert!(
                Instant::now() < until,
                "still running after {patience:?}; {}",
                self.last_words()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process has not ended.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("wait for a child").is_none()
    }

    /// What the server wrote to its standard error.
    pub fn stderr(&self) -> String {
        let bytes = fs::read(self.dir.0.join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn last_words(&self) -> String {
        let text = self.stderr();
        let from = text.len().saturating_sub(2000);
        let tail = text.get(from..).unwrap_or(&text);
        format!("the server wrote: {tail:?}")
    }

    #[track_caller]
    fn wait_for(&mut self, what: &str, mut ready: impl FnMut(&mut Server) -> bool) {
        let until = Instant::now() + START_PATIENCE;
        while !ready(self) {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                panic!(
                    "ended with {status} before it had {what}; {}",
                    self.last_words()
                );
            }
            assert!(
                Instant::now() < until,
                "no {what} in time; {}",
                self.last_words()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that has already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}

/// TLS under every TCP connection, when `KETCH_TEST_TLS` is set: the tests must hold there as well.
struct TlsForAll {
    options: Vec<String>,
    client: Arc<ClientConfig>,
}

fn tls_for_all() -> Option<&'static TlsForAll> {
    static ALL: OnceLock<Option<TlsForAll>> = OnceLock::new();
    let make = || {
        std::env::var_os("KETCH_TEST_TLS")?;
        let authority = tls::Authority::new("test root");
        // Left behind, as nothing is told of the end of a test program.
        let dir = std::env::temp_dir().join(format!("ketch-test-{}-tls", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        authority.issue().write(&dir);
        let dir = dir.display();
        let files = format!("ssl_chain_cert={dir}/cert.pem,ssl_key={dir}/key.pem");
        Some(TlsForAll {
            options: vec!["-Z".into(), "-o".into(), files],
            client: authority.client(tls::BOTH, None),
        })
    };
    ALL.get_or_init(make).as_ref()
}

/// Raises this process's limit of open files to `count`; servers started later inherit it.
pub fn allow_files(count: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the one struct they are given, which lives on this stack.
    let result = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_cur.max(count);
        limit.rlim_max = limit.rlim_max.max(count);
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit)
    };
    assert_eq!(result, 0, "this test needs {count} open files (ulimit -n)");
}

fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    // A server that takes over from one in the same directory writes behind it.
    let stderr = File::options()
        .append(true)
        .create(true)
        .open(dir.join("stderr"))
        .expect("a file in the test's own directory");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    // SAFETY: geteuid has no arguments and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        command.args(["-u", "root"]);
    }
    command
}

fn new_dir() -> Dir {
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let name = format!("ketch-test-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).expect("a temporary directory");
    Dir(dir)
}
