//! `ketchctl top`: what the nodes are doing now.
//!
//! ```text
//!  Sample (stats of all nodes at a time) --two of them--> view: a row of rates a node --> screen: a terminal, or lines
//! ```

mod screen;
mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use getopts::Options;
use ketch_client::{Client, Error};

use crate::failure::Failure;
use crate::figures::Figures;
use crate::{access, cluster, units, words};

const USAGE: &str = "usage: ketchctl top --servers LIST [options]\n\n\
    Shows, for each node and all of them: commands, reads, writes and evictions in a second, the hit ratio of that time,\n\
    items, memory, connections, and bytes over the network in a second. On a terminal it goes on until q is pressed;\n\
    elsewhere, or with --count, it prints a table after each interval.";

/// What the nodes told at one time.
pub struct Sample {
    at: Instant,
    nodes: Vec<(String, Result<Figures, Error>)>,
}

impl Sample {
    fn take(client: &Client) -> Sample {
        let answers = client.stats("").into_iter();
        Sample {
            nodes: answers
                .map(|(node, answer)| (node.to_string(), answer.map(Figures::new)))
                .collect(),
            at: Instant::now(),
        }
    }
}

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options
        .optopt(
            "i",
            "interval",
            "the time between two looks (default 1s)",
            "TIME",
        )
        .optopt("c", "count", "print so many tables, and end", "N")
        .optflag("1", "once", "--count 1");
    cluster::nodes_option(&mut options, "s", "servers", "the nodes");
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 0, "top")?;
    let interval = words::option(&matches, "interval", Duration::from_secs(1), |text| {
        units::duration(text).filter(|interval| *interval >= Duration::from_millis(10))
    })?;
    let count: Option<u64> =
        words::option(&matches, "count", None, |text| text.parse().ok().map(Some))?;
    let count = if matches.opt_present("once") {
        Some(1)
    } else {
        count
    };
    let nodes = cluster::nodes(&matches, "servers")?;
    // A node that hangs must not hold up the view of the others for long.
    let access = access::from(&matches)?.or_within(&matches, Duration::from_secs(1));
    let client = access.client(&cluster::Cluster::of(nodes));
    match count {
        None if io::stdout().is_terminal() => screen::run(&client, interval),
        _ => lines(&client, interval, count),
    }
}

/// Prints a table after each interval.
fn lines(client: &Client, interval: Duration, count: Option<u64>) -> Result<(), Failure> {
    let mut before = Sample::take(client);
    let mut printed = 0;
    while count.is_none_or(|count| printed < count) {
        std::thread::sleep(interval);
        let now = Sample::take(client);
        let gap = if printed > 0 { "\n" } else { "" };
        words::print(format!("{gap}{}", view::table(&before, &now)))?;
        before = now;
        printed += 1;
    }
    let down = before.nodes.iter().filter(|(_, answer)| answer.is_err());
    match down.count() {
        0 => Ok(()),
        _ => Err(Failure::Told),
    }
}
