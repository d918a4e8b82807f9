//! `ketchctl ping`: which nodes answer, and how fast.

use std::thread;
use std::time::{Duration, Instant};

use getopts::Options;
use ketch_client::{Error, Node};

use crate::access::{self, Access};
use crate::failure::{self, Failure};
use crate::table::Table;
use crate::{cluster, units, words};

const USAGE: &str = "usage: ketchctl ping --servers LIST [options]\n\n\
    Asks every node for its version: first on a new connection (the column connect, with name look-up, TLS and login),\n\
    then --count times on the same. Times in milliseconds. Exit status 1 if a node did not answer each time.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options
        .optopt("c", "count", "how often (default 3)", "N")
        .optopt("i", "interval", "pause between two (default 0.1s)", "TIME");
    cluster::nodes_option(&mut options, "s", "servers", "the nodes");
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 0, "ping")?;
    let count: u32 = words::option(&matches, "count", 3, |text| text.parse().ok())?;
    let pause = Duration::from_millis(100);
    let pause = words::option(&matches, "interval", pause, units::duration)?;
    let nodes = cluster::nodes(&matches, "servers")?;
    let access = access::from(&matches)?;
    // Side by side: one that does not answer holds up no other.
    let pongs: Vec<Pong> = thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| ping(node, &access, count, pause)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Pong>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect()
    });
    let mut table = Table::new(["node", "version", "connect", "min", "mean", "max", "lost"]);
    for (node, pong) in nodes.iter().zip(&pongs) {
        table.row(node.address(), pong.cells());
    }
    words::print(table)?;
    let mut failed = false;
    for (node, pong) in nodes.iter().zip(&pongs) {
        if let Some(error) = &pong.error {
            failed = true;
            failure::tell(&node.address(), error);
        }
    }
    if failed {
        return Err(Failure::Told);
    }
    Ok(())
}

/// What became of a node's pings.
#[derive(Debug, Default)]
struct Pong {
    version: Option<String>,
    connect: Option<Duration>,
    trips: Vec<Duration>,
    lost: u32,
    /// The last.
    error: Option<Error>,
}

fn ping(node: &Node, access: &Access, count: u32, pause: Duration) -> Pong {
    let client = access.client_of(node);
    let mut pong = Pong::default();
    for turn in 0..=count {
        if turn > 1 {
            thread::sleep(pause);
        }
        let begin = Instant::now();
        let answer = client.version().pop().map(|(_, answer)| answer);
        let took = begin.elapsed();
        match answer.unwrap_or(Err(Error::NoNode)) {
            Ok(version) => {
                pong.version = Some(version);
                match turn {
                    0 => pong.connect = Some(took),
                    _ => pong.trips.push(took),
                }
            }
            Err(error) => {
                pong.lost += 1;
                pong.error = Some(error);
            }
        }
    }
    pong
}

impl Pong {
    fn cells(&self) -> Vec<String> {
        let trips = &self.trips;
        let mean = match trips.len() {
            0 => None,
            count => Some(trips.iter().sum::<Duration>() / count as u32),
        };
        let (min, max) = (trips.iter().min().copied(), trips.iter().max().copied());
        let mut cells = vec![self.version.clone().unwrap_or_else(|| "-".to_owned())];
        cells.extend([self.connect, min, mean, max].map(milliseconds));
        let asked = trips.len() as u32 + u32::from(self.connect.is_some()) + self.lost;
        cells.push(format!("{} of {asked}", self.lost));
        cells
    }
}

fn milliseconds(time: Option<Duration>) -> String {
    match time {
        Some(time) => format!("{:.3}", time.as_secs_f64() * 1000.0),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_a_node() {
        let ms = Duration::from_millis;
        let pong = Pong {
            version: Some("1.6".to_owned()),
            connect: Some(ms(5)),
            trips: vec![ms(1), ms(3), ms(2)],
            ..Pong::default()
        };
        assert_eq!(
            pong.cells(),
            ["1.6", "5.000", "1.000", "2.000", "3.000", "0 of 4"]
        );
        let dead = Pong {
            lost: 4,
            ..Pong::default()
        };
        assert_eq!(dead.cells(), ["-", "-", "-", "-", "-", "4 of 4"]);
    }
}
