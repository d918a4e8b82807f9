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
    port: u16,
    peer_port: u16,
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
            port: quiet_port(),
            peer_port: quiet_port(),
        };
        etcd.restart();
        etcd
    }

    /// `etcd://127.0.0.1:PORT/RING`.
    pub fn url(&self, ring: &str) -> String {
        format!("etcd://127.0.0.1:{}/{ring}", self.port)
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
            format!("http://127.0.0.1:{}", self.port),
            format!("http://127.0.0.1:{}", self.peer_port),
        );
        let child = Command::new("etcd")
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
            let health = format!("http://127.0.0.1:{}/health", self.port);
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
    }
}
