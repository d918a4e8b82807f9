//! A server process of a test's own: started on a free port, waited for, killed when dropped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use super::{Conn, PATIENCE, START_PATIENCE, tls};

/// A running server. Dropping it kills the process and removes its directory.
pub struct Server {
    child: Child,
    /// The connection that showed that the server is ready; the first one that is asked for.
    first: Mutex<Option<Conn>>,
    address: Address,
    dir: Dir,
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

impl Server {
    /// A server on a free TCP port of the loopback, with `args` behind the test's own.
    #[track_caller]
    pub fn start(args: &[&str]) -> Server {
        Server::start_program(&binary(), args)
    }

    /// As [`Server::start`], of a program that is not the one under test.
    #[track_caller]
    pub fn start_program(program: &Path, args: &[&str]) -> Server {
        Server::spawn_tcp(program, args, &[])
    }

    /// As [`Server::start`], with more in its environment.
    #[track_caller]
    pub fn start_in(environment: &[(&str, &str)], args: &[&str]) -> Server {
        Server::spawn_tcp(&binary(), args, environment)
    }

    #[track_caller]
    fn spawn_tcp(program: &Path, args: &[&str], environment: &[(&str, &str)]) -> Server {
        let dir = new_dir();
        let port_file = dir.0.join("port");
        let mut command = command(program, &dir.0);
        command
            .args(["-p", "-1", "-l", "127.0.0.1", "-U", "0"])
            .args(tls_for_all().map_or(&[][..], |all| &all.options))
            .args(args);
        command.env("MEMCACHED_PORT_FILENAME", &port_file);
        command.envs(environment.iter().copied());
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        // The address is filled in as soon as it is known; until then drop only has to kill.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server {
            child,
            first: Mutex::new(None),
            address: Address::Tcp(nowhere),
            dir,
        };
        server.wait_for("a line `TCP INET: port` in its port file", |server| {
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
        server.wait_for("a connection", Server::connect_first);
        server
    }

    /// A server on a unix socket in its own directory.
    #[track_caller]
    pub fn start_unix(args: &[&str]) -> Server {
        let dir = new_dir();
        let path = dir.0.join("socket");
        Server::spawn_unix(dir, path, args)
    }

    /// A server on the unix socket `path`, which another one may have left behind.
    #[track_caller]
    pub fn start_unix_at(path: &Path, args: &[&str]) -> Server {
        Server::spawn_unix(new_dir(), path.to_path_buf(), args)
    }

    #[track_caller]
    fn spawn_unix(dir: Dir, path: PathBuf, args: &[&str]) -> Server {
        let child = command(&binary(), &dir.0)
            .arg("-s")
            .arg(&path)
            .args(args)
            .spawn();
        let child = child.unwrap_or_else(|e| panic!("{}: {e}", binary().display()));
        let mut server = Server {
            child,
            first: Mutex::new(None),
            address: Address::Unix(path),
            dir,
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
                if let Some(all) = tls_for_all() {
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
        self.connect().ask("version\r\n") == "VERSION 1.6.45"
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

    /// How many files and sockets the server has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a running process")
            .count()
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

/// The program under test.
pub fn binary() -> PathBuf {
    // Cargo names the program for the tests of its own package; elsewhere the variable must.
    let built = option_env!("CARGO_BIN_EXE_ketch").map(OsString::from);
    let program = std::env::var_os("KETCH_TEST_SERVER").or(built);
    program.expect("KETCH_TEST_SERVER names a server").into()
}

/// The program under test is ketch, not a reference server.
pub fn is_ketch() -> bool {
    binary()
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains("ketch"))
}

/// Polls `done` until it is true; fails when that takes longer than `patience`.
#[track_caller]
pub fn wait_until(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < until, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
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
    let stderr = File::create(dir.join("stderr")).expect("a file in the test's own directory");
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
