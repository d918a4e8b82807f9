//! A real etcd, in a folder of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::{PATIENCE, quiet_port, wait_within};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One member of etcd, which ends when it is dropped.
#[derive(Debug)]
pub struct Etcd {
    child: Option<Child>,
    folder: PathBuf,
    host: String,
    port: u16,
    peer_port: u16,
    apart: Option<Apart>,
}

/// Where it stands behind a link that can be cut.
#[derive(Debug)]
enum Apart {
    /// A network namespace, and this side's end of the link to it.
    Space { name: String, link: String },
    /// Who may make none: the process is stopped instead, so that it is as silent.
    Stopped,
}

impl Etcd {
    /// Starts one with nothing in it. Panics where there is no etcd (Debian: etcd-server).
    pub fn start() -> Etcd {
        let name = format!(
            "ketch-etcd-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Relaxed)
        );
        let mut etcd = Etcd {
            child: None,
            folder: std::env::temp_dir().join(name),
            host: "127.0.0.1".to_owned(),
            port: quiet_port(),
            peer_port: quiet_port(),
            apart: None,
        };
        etcd.restart();
        etcd
    }

    /// Starts one behind a link that [`Etcd::cut`] cuts: in a network namespace of its own, where that may be made.
    pub fn start_apart() -> Etcd {
        let count = COUNT.fetch_add(1, Relaxed);
        let id = std::process::id();
        let (name, link) = (format!("ketch-{id}-{count}"), format!("ke{id}x{count}"));
        // A net of four addresses, by the process.
        let net = format!("10.78.{}.{}", id >> 6 & 255, (id & 63) << 2);
        let (near, far) = (address(&net, 1), address(&net, 2));
        let steps = [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name eth0 netns {name}"),
            format!("addr add {near}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add {far}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ];
        let is_apart = steps.iter().all(|step| ip(step));
        let mut etcd = Etcd {
            child: None,
            folder: std::env::temp_dir().join(format!("ketch-etcd-apart-{id}-{count}")),
            host: "127.0.0.1".to_owned(),
            port: quiet_port(),
            peer_port: quiet_port(),
            apart: Some(Apart::Stopped),
        };
        if is_apart {
            etcd.host = far;
            etcd.apart = Some(Apart::Space { name, link });
        }
        etcd.restart();
        etcd
    }

    /// From now on nothing comes from it, and nothing comes to it; nor is a connection ended.
    pub fn cut(&self) {
        self.set_link(false);
    }

    /// It is there again, with what has become of it meanwhile.
    pub fn mend(&self) {
        self.set_link(true);
    }

    fn set_link(&self, up: bool) {
        match (&self.apart, &self.child) {
            (Some(Apart::Space { link, .. }), _) => {
                let state = if up { "up" } else { "down" };
                assert!(ip(&format!("link set {link} {state}")), "{link} {state}");
            }
            (Some(Apart::Stopped), Some(child)) => {
                let signal = if up { "-CONT" } else { "-STOP" };
                let kill = Command::new("kill")
                    .args([signal, &child.id().to_string()])
                    .status();
                assert!(kill.is_ok_and(|status| status.success()), "kill {signal}");
            }
            _ => panic!("it was not started apart, or does not run"),
        }
    }

    /// `etcd://HOST:PORT/RING`.
    pub fn url(&self, ring: &str) -> String {
        format!("etcd://{}:{}/{ring}", self.host, self.port)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it was there");
            child.wait().expect("it ends");
        }
    }

    /// Takes away all that it knows; it must not run.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "it runs");
        std::fs::remove_dir_all(&self.folder).expect("its folder can be removed");
    }

    /// Starts it anew with what it knows.
    pub fn restart(&mut self) {
        self.kill();
        let (client, peer) = (
            format!("http://{}:{}", self.host, self.port),
            format!("http://{}:{}", self.host, self.peer_port),
        );
        let mut command = match &self.apart {
            Some(Apart::Space { name, .. }) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, "etcd"]);
                command
            }
            _ => Command::new("etcd"),
        };
        let child = command
            .arg("--data-dir")
            .arg(&self.folder)
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .arg("--initial-cluster")
            .arg(format!("default={peer}"))
            // Quick, and lost with the machine.
            .args([
                "--unsafe-no-fsync",
                "--heartbeat-interval=20",
                "--election-timeout=200",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("etcd is installed (Debian: etcd-server)"));
        wait_within("etcd answers", PATIENCE, || {
            let health = format!("http://{}:{}/health", self.host, self.port);
            let asked = Command::new("curl")
                .args(["-fsS", "-m", "1", &health])
                .output();
            asked.is_ok_and(|output| output.stdout.windows(4).any(|part| part == b"true"))
        });
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
        if let Some(Apart::Space { name, .. }) = &self.apart {
            // With its end of the link goes the other.
            ip(&format!("netns del {name}"));
        }
    }
}

/// An address of a net that is written as its first one.
fn address(net: &str, at: u32) -> String {
    let (net, first) = net.rsplit_once('.').expect("an address");
    let first: u32 = first.parse().expect("a number");
    format!("{net}.{}", first + at)
}

/// True if `ip` has done what these words say.
fn ip(words: &str) -> bool {
    let ip = Command::new("ip")
        .args(words.split(' '))
        .stderr(Stdio::null())
        .status();
    ip.is_ok_and(|status| status.success())
}
