//! Servers for the client's tests: Debian's memcached, and ketch as this workspace builds it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ketch_client::Node;

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the tests run against.
pub const KINDS: [Kind; 2] = [Kind::Memcached, Kind::Ketch];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memcached,
    Ketch,
}

impl Kind {
    fn program(self) -> PathBuf {
        match self {
            Kind::Memcached => "memcached".into(),
            Kind::Ketch => ketch().clone(),
        }
    }
}

/// The server of this workspace, in the profile of the tests, built once a test program.
fn ketch() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // target/debug/deps/this-test -> target/debug/ketch
        let mut path = std::env::current_exe().expect("a test has a path");
        path.pop();
        path.pop();
        let mut build = Command::new(env!("CARGO"));
        // What cargo tells a test of its package would look like a change to some build scripts.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
                build.env_remove(name);
            }
        }
        build.args(["build", "-q", "-p", "ketch", "--bin", "ketch"]);
        build
            .arg("--target-dir")
            .arg(path.parent().expect("target"));
        if path.ends_with("release") {
            build.arg("--release");
        }
        // What cargo tells this test of its package would have build scripts run again, and all built anew.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST") {
                build.env_remove(&*name);
            }
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(
            built.expect("cargo starts").success(),
            "ketch does not build"
        );
        path.push("ketch");
        path
    })
}

/// A server on loopback, ended with the test.
pub struct Server {
    child: Child,
    program: PathBuf,
    options: Vec<String>,
    pub kind: Kind,
    pub port: u16,
}

impl Server {
    pub fn start(kind: Kind) -> Server {
        Server::start_with(kind, &[])
    }

    pub fn start_with(kind: Kind, options: &[&str]) -> Server {
        // Someone else may take the port between the choice and the bind: then the server ends at once.
        for _ in 0..3 {
            if let Some(server) = Server::try_start(kind, options) {
                return server;
            }
        }
        panic!("{kind:?} does not start");
    }

    /// A server on a unix socket, without a port.
    pub fn start_unix(kind: Kind) -> Server {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ketch-client-{}-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let path = path.to_str().expect("text").to_owned();
        let options = vec!["-s".to_owned(), path.clone(), "-u".into(), "root".into()];
        let program = kind.program();
        let child = Command::new(&program).args(&options).spawn();
        let server = Server {
            child: child.expect("it starts"),
            program,
            options,
            kind,
            port: 0,
        };
        wait_until("the socket is there", || UnixStream::connect(&path).is_ok());
        server
    }

    fn try_start(kind: Kind, options: &[&str]) -> Option<Server> {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = socket.local_addr().expect("it is bound").port();
        drop(socket);
        let program = kind.program();
        let options: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
        let mut server = Server {
            child: spawn(&program, port, &options),
            program,
            options,
            kind,
            port,
        };
        server.answers().then_some(server)
    }

    /// Waits until it answers; false if it ended.
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        // A server with TLS or a login answers as well, if not with a version.
        let plain = !self.options.iter().any(|word| word == "-Z" || word == "-Y");
        while Instant::now() < deadline {
            if self.child.try_wait().expect("the child is ours").is_some() {
                return false;
            }
            if let Ok(mut peer) = TcpStream::connect(("127.0.0.1", self.port)) {
                let mut line = [0; 8];
                if !plain {
                    return true;
                }
                if peer.write_all(b"version\r\n").is_ok() && peer.read_exact(&mut line).is_ok() {
                    return &line == b"VERSION ";
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }

    /// Starts it again, empty, on its port.
    pub fn restart(&mut self) {
        self.child = spawn(&self.program, self.port, &self.options);
        assert!(self.answers(), "the server does not start again");
    }

    /// Stops it (`true`) or lets it go on.
    pub fn freeze(&self, stop: bool) {
        let signal = if stop { "-STOP" } else { "-CONT" };
        let kill = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(kill.expect("kill starts").success());
    }

    pub fn node(&self) -> Node {
        if self.port == 0 {
            return Node::unix(&self.options[1]);
        }
        Node::new("127.0.0.1", self.port)
    }

    /// What it answers to `request`, up to and with a line that is `end`.
    pub fn ask(&self, request: &str, end: &str) -> String {
        let mut peer = TcpStream::connect(("127.0.0.1", self.port)).expect("the server answers");
        peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
        peer.write_all(request.as_bytes())
            .expect("the server reads");
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(end.as_bytes()) {
            peer.read_exact(&mut byte)
                .expect("the server answers to the end");
            answer.push(byte[0]);
        }
        String::from_utf8(answer).expect("text")
    }

    /// What it holds for `key`, as `mg` tells it.
    pub fn holds(&self, key: &str) -> Option<String> {
        let answer = self.ask(&format!("mg {key} v\r\nmn\r\n"), "MN\r\n");
        let value = answer.strip_suffix("\r\nMN\r\n").expect("it ends so");
        if value == "EN" {
            return None;
        }
        Some(value.split_once("\r\n").expect("a value").1.to_owned())
    }
}

fn spawn(program: &PathBuf, port: u16, options: &[String]) -> Child {
    let mut command = Command::new(program);
    command.args([
        "-l",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-U",
        "0",
        "-u",
        "root",
        "-t",
        "2",
    ]);
    command.args(options).stderr(Stdio::null());
    let child = command.spawn();
    child.unwrap_or_else(|error| panic!("{}: {error}; scripts/test installs it", program.display()))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.port == 0 {
            let _ = std::fs::remove_file(&self.options[1]);
        }
    }
}

/// Waits until `fact` holds.
#[track_caller]
pub fn wait_until(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
