//! `ketchctl cluster up`: a cluster on this machine, for a try.
//!
//! ```text
//!  ketchctl -- servers, perhaps an etcd and a proxy, each a process with a folder for all of them
//!     '------- keeper: a shell that reads their pids from a pipe. When the pipe ends, however ketchctl did, it ends them
//! ```

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use getopts::Options;
use ketch_client::COPIES_MAX;

use crate::failure::Failure;
use crate::{signals, words};

const USAGE: &str = "usage: ketchctl cluster up [options] [-- COMMAND [WORD..]]\n\n\
    Starts servers on free ports of this machine, prints their addresses, and ends them when it ends itself: by Ctrl-C, by\n\
    SIGTERM, or killed. What they hold is lost. With COMMAND, it runs that with the addresses in its environment, and ends with\n\
    its exit status: KETCH_SERVERS (a list for --servers), KETCH_SOURCE (with --etcd its URL, else the list), KETCH_PROXY (with\n\
    --proxy its address).\n\
    The server is the ketch that KETCH_SERVER names, else the one beside ketchctl, else the one in PATH.";

const NODES: usize = 3;
const NODES_MAX: usize = 100;
/// How long a process may take to take connections, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);
/// How long a process may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// Ends what it was told to as soon as nobody is left who could tell it more.
const KEEPER: &str = "trap '' INT TERM HUP; IFS= read -r folder; pids=; while read -r pid; do pids=\"$pids $pid\"; done; \
    [ -z \"$pids\" ] || kill -9 $pids; rm -rf \"$folder\"";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options
        .optopt(
            "n",
            "nodes",
            &format!("how many servers (default {NODES})"),
            "N",
        )
        .optflag("", "proxy", "a proxy before them")
        .optflag(
            "",
            "etcd",
            "an etcd in which they are registered (Debian: etcd-server)",
        )
        .optopt(
            "",
            "copies",
            "on how many nodes the proxy keeps a key (default 1)",
            "N",
        )
        .optopt("m", "memory", "MB of each server (default 64)", "MB");
    let (own, command) = match given.iter().position(|word| word == "--") {
        Some(at) => (&given[..at], &given[at + 1..]),
        None => (given, &[][..]),
    };
    let matches = words::parse(own, options, USAGE)?;
    match matches.free.first().map(String::as_str) {
        Some("up") => {}
        Some(word) => {
            return Err(Failure::usage(format!(
                "cluster: what is {word}? There is cluster up"
            )));
        }
        None => return Err(Failure::usage("cluster: there is cluster up")),
    }
    words::none_but(&matches, 1, "cluster up")?;
    let number = |name: &str, default: usize, most: usize| {
        words::option(&matches, name, default, |text| {
            text.parse()
                .ok()
                .filter(|number| (1..=most).contains(number))
        })
    };
    let count = number("nodes", NODES, NODES_MAX)?;
    let copies = number("copies", 1, COPIES_MAX)?;
    let memory = number("memory", 64, 1 << 20)?;
    let stop = signals::seen()?;
    let mut cluster = Cluster::begin()?;
    let result = cluster
        .start(
            count,
            memory,
            matches.opt_present("etcd"),
            matches.opt_present("proxy").then_some(copies),
        )
        .and_then(|()| match command {
            [] => cluster.stay(&stop),
            [program, words @ ..] => cluster.run(program, words, &stop),
        });
    cluster.end();
    match result? {
        Some(status) => {
            std::process::exit(status.code().unwrap_or(128 + status.signal().unwrap_or(0)))
        }
        None => Ok(()),
    }
}

/// What runs.
struct Cluster {
    folder: PathBuf,
    processes: Vec<(String, Child)>,
    keeper: Child,
    /// The keeper's ear; it is open as long as we are there.
    told: Option<ChildStdin>,
    servers: Vec<String>,
    etcd: Option<String>,
    proxy: Option<String>,
}

impl Cluster {
    fn begin() -> Result<Cluster, Failure> {
        let folder = std::env::temp_dir().join(format!("ketchctl-cluster-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Nobody ends it with us.
            .process_group(0)
            .spawn();
        let mut keeper = keeper.map_err(|error| Failure::failed(format!("sh: {error}")))?;
        let mut told = keeper.stdin.take().expect("it is piped");
        writeln!(told, "{}", folder.display())?;
        Ok(Cluster {
            folder,
            processes: Vec::new(),
            keeper,
            told: Some(told),
            servers: Vec::new(),
            etcd: None,
            proxy: None,
        })
    }

    fn start(
        &mut self,
        count: usize,
        memory: usize,
        etcd: bool,
        proxy: Option<usize>,
    ) -> Result<(), Failure> {
        let ketch = ketch();
        if etcd {
            let (port, peers) = (free_port()?, free_port()?);
            let (clients, peers) = (
                format!("http://127.0.0.1:{port}"),
                format!("http://127.0.0.1:{peers}"),
            );
            let mut command = Command::new("etcd");
            command
                .arg("--data-dir")
                .arg(self.folder.join("etcd"))
                .args([
                    "--listen-client-urls",
                    &clients,
                    "--advertise-client-urls",
                    &clients,
                ])
                .args([
                    "--listen-peer-urls",
                    &peers,
                    "--initial-advertise-peer-urls",
                    &peers,
                ])
                .args([
                    "--initial-cluster",
                    &format!("default={peers}"),
                    "--unsafe-no-fsync",
                ]);
            self.process("etcd", command, port)?;
            self.etcd = Some(format!("etcd://127.0.0.1:{port}/ring"));
        }
        let mut ports = Vec::new();
        for at in 1..=count {
            let port = free_port()?;
            let name = format!("node-{at}");
            let mut command = server(&ketch, port);
            command.args(["-m", &memory.to_string()]);
            if let Some(url) = &self.etcd {
                command.args(["-o", &format!("register={url},node_name={name}")]);
            }
            self.spawn(&name, command)?;
            ports.push(port);
        }
        for (at, port) in ports.into_iter().enumerate() {
            let name = format!("node-{}", at + 1);
            self.wait_for(&name, port)?;
            self.servers.push(format!("127.0.0.1:{port}"));
            words::print(format!("{name:10} 127.0.0.1:{port}\n"))?;
        }
        if let Some(url) = &self.etcd {
            words::print(format!("{:10} {url}\n", "etcd"))?;
        }
        if let Some(copies) = proxy {
            let nodes = match &self.etcd {
                Some(url) => format!("source = \"{url}\""),
                None => format!("nodes = {:?}", self.servers),
            };
            let file = self.folder.join("routes.toml");
            fs::write(&file, format!("[pools.main]\n{nodes}\ncopies = {copies}\n"))?;
            let port = free_port()?;
            let mut command = server(&ketch, port);
            command.args(["-o", &format!("proxy_config={}", file.display())]);
            self.process("proxy", command, port)?;
            words::print(format!("{:10} 127.0.0.1:{port}\n", "proxy"))?;
            self.proxy = Some(format!("127.0.0.1:{port}"));
        }
        Ok(())
    }

    /// Starts a process, which ends with us.
    fn spawn(&mut self, name: &str, mut command: Command) -> Result<(), Failure> {
        let log = fs::File::create(self.folder.join(format!("{name}.log")))?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us: we end them in our order.
            .process_group(0)
            .spawn();
        let child = child.map_err(|error| Failure::failed(format!("{program}: {error}")))?;
        if let Some(told) = &mut self.told {
            writeln!(told, "{}", child.id())?;
        }
        self.processes.push((name.to_owned(), child));
        Ok(())
    }

    fn process(&mut self, name: &str, command: Command, port: u16) -> Result<(), Failure> {
        self.spawn(name, command)?;
        self.wait_for(name, port)
    }

    /// Waits until a process takes connections.
    fn wait_for(&mut self, name: &str, port: u16) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(how) = self.ended(name) {
                let log =
                    fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it says nothing").to_owned();
                return Err(Failure::failed(format!("{name} has ended ({how}): {last}")));
            }
            if Instant::now() >= until {
                return Err(Failure::failed(format!("{name} takes no connections")));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn ended(&mut self, name: &str) -> Option<ExitStatus> {
        let mut processes = self.processes.iter_mut();
        let (_, child) = processes.find(|(other, _)| other == name)?;
        child.try_wait().ok().flatten()
    }

    /// Says which processes have ended.
    fn look(&mut self) {
        self.processes
            .retain_mut(|(name, child)| match child.try_wait() {
                Ok(Some(status)) => {
                    eprintln!("ketchctl: {name} has ended ({status})");
                    false
                }
                _ => true,
            });
    }

    /// Stays until it is told to end.
    fn stay(&mut self, stop: &AtomicBool) -> Result<Option<ExitStatus>, Failure> {
        words::print("Ctrl-C ends them; what they hold is lost\n")?;
        while !stop.load(Relaxed) {
            self.look();
            thread::sleep(PAUSE);
        }
        Ok(None)
    }

    /// Runs a command until it ends, or we are told to.
    fn run(
        &mut self,
        program: &str,
        words: &[String],
        stop: &AtomicBool,
    ) -> Result<Option<ExitStatus>, Failure> {
        let servers = self.servers.join(",");
        let mut command = Command::new(program);
        command
            .args(words)
            .env("KETCH_SERVERS", &servers)
            .env("KETCH_SOURCE", self.etcd.as_ref().unwrap_or(&servers));
        if let Some(proxy) = &self.proxy {
            command.env("KETCH_PROXY", proxy);
        }
        let child = command.spawn();
        let mut child = child.map_err(|error| Failure::failed(format!("{program}: {error}")))?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if stop.load(Relaxed) {
                end(&mut child)?;
                return Ok(None);
            }
            self.look();
            thread::sleep(PAUSE);
        }
    }

    /// Ends all of them, those that were started last first.
    fn end(&mut self) {
        for (_, child) in self.processes.iter_mut().rev() {
            // One that has ended already is what was wanted.
            let _ = end(child);
        }
        // The keeper finds nothing left to end: it is not to hit whoever has these numbers next.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        drop(self.told.take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Asks a process to end, and kills it if it does not.
fn end(child: &mut Child) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    let until = Instant::now() + GRACE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The server's program.
fn ketch() -> PathBuf {
    if let Some(path) = std::env::var_os("KETCH_SERVER") {
        return path.into();
    }
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("ketch"));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| "ketch".into())
}

/// A server or proxy on a port of this machine.
fn server(ketch: &Path, port: u16) -> Command {
    let mut command = Command::new(ketch);
    command.args(["-l", "127.0.0.1", "-p", &port.to_string()]);
    // As root it wants to be told whom to become.
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        command.args(["-u", "root"]);
    }
    command
}

/// A port that nobody listens on.
fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
