//! What a connection costs while it does nothing: opens many, asks each once, and holds them.

use std::io::{self, Read, Write};
use std::thread;

use crate::conn::Blocking;
use crate::json::Object;
use crate::options::Options;
use crate::process::Process;
use crate::run::{Limit, Plan};

/// Connections held, and the server's memory.
#[derive(Clone, Debug)]
pub struct Held {
    /// How many.
    pub connections: usize,
    /// Resident memory of the server's process, before and with them.
    pub rss_bytes: Option<(u64, u64)>,
}

/// Opens the connections and holds them for the time of `plan`.
pub fn hold(plan: &Plan) -> Result<Held, String> {
    let rss = || plan.server.and_then(Process::resident_bytes);
    let before = rss();
    let mut held = Vec::new();
    for i in 0..plan.connections {
        let target = &plan.targets[i % plan.targets.len()];
        let peer = target.connect().and_then(greeted);
        held.push(peer.map_err(|error| format!("{target}, connection {}: {error}", i + 1))?);
    }
    let with = rss();
    if let Limit::Time(time) = plan.limit {
        thread::sleep(time);
    }
    Ok(Held {
        connections: held.len(),
        rss_bytes: before.zip(with),
    })
}

/// A command and its answer: the server has seen this connection.
fn greeted(mut peer: Blocking) -> io::Result<Blocking> {
    peer.write_all(b"get nothing\r\n")?;
    let mut answer = [0; 5];
    peer.read_exact(&mut answer)?;
    if answer != *b"END\r\n" {
        return Err(io::Error::other(format!(
            "answered {}",
            answer.escape_ascii()
        )));
    }
    Ok(peer)
}

impl Held {
    /// Memory of the server's process for one connection.
    pub fn bytes_each(&self) -> Option<f64> {
        let (before, with) = self.rss_bytes?;
        Some(with.saturating_sub(before) as f64 / self.connections as f64)
    }

    /// In a line.
    pub fn human(&self) -> String {
        match (self.rss_bytes, self.bytes_each()) {
            (Some((before, with)), Some(each)) => format!(
                "{} connections: server memory {:.1} MB -> {:.1} MB resident, {each:.0} bytes each\n",
                self.connections,
                before as f64 / 1e6,
                with as f64 / 1e6
            ),
            _ => format!(
                "{} connections held (--pid PID shows the server's memory)\n",
                self.connections
            ),
        }
    }

    /// As JSON.
    pub fn json(&self, options: &Options) -> String {
        Object::default()
            .text("command", &options.command)
            .count("connections", self.connections as u64)
            .number(
                "server_resident_bytes",
                self.rss_bytes.map(|(_, with)| with as f64),
                0,
            )
            .number("bytes_each", self.bytes_each(), 1)
            .finish()
    }
}
