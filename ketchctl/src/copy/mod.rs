//! `ketchctl copy`: fills nodes with what other nodes have.
//!
//! ```text
//!  each source:  lister --keys--> [4 batches] --> workers: pace -> fetch (mg, pipelined) -> the targets' client (ms ME)
//!                lru_crawler metadump hash
//! ```
//!
//! Y1. Memory is bounded by the batches under way: those that wait, and one a worker, none larger than [`batch::MAX`]
//!     unless it is a single item.
//! Y2. Every key that was listed is counted once in [`tally::Tally`].

pub mod batch;
pub mod pace;
pub mod progress;
pub mod source;
pub mod tally;
pub mod transfer;

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use getopts::Options;
use ketch_client::Client;
use ketch_client::continuum::Continuum;

use crate::access::{self, Access};
use crate::cluster::{self, Cluster};
use crate::failure::{self, Failure};
use crate::figures::Figures;
use crate::{units, words};
use pace::Pace;
use tally::Tally;
use transfer::Transfer;

const USAGE: &str = "usage: ketchctl copy --from LIST --to LIST [options]\n\n\
    Copies the items of the nodes --from to the cluster --to, each to the nodes that own it there, with its client flags and\n\
    the time to live that is left. What a target has already stays: it is newer. The sources need lru_crawler metadump and\n\
    meta commands (ketch, memcached 1.6); their statistics count the reads, their LRU does not. What is written on a source\n\
    meanwhile may be missed, and what is deleted there may come along.\n\
    Not copied: what is stale or being computed anew by a lease. The first to read what is stale is asked to compute it anew.\n\
    Where that is us, it is given back at once (by md with I, so the item has another CAS unique): for a round trip, others are\n\
    told that somebody is at it.\n\
    A source may be among the targets, as when a cluster grows: what stays where it is is not read.\n\
    Exit status 1 if something could not be copied; running it again does no harm.";

/// The longest a request takes unless said otherwise: batches take longer than a key.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that read from each source.
const WORKERS: usize = 2;

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    cluster::nodes_option(&mut options, "", "from", "the nodes to copy from");
    cluster::nodes_option(
        &mut options,
        "",
        "to",
        "the nodes to copy to, in their order",
    );
    cluster::placement_options(&mut options);
    cluster::copies_option(&mut options);
    options
        .optflag("", "overwrite", "what a target has already gives way")
        .optopt("", "prefix", "only keys that begin so", "TEXT")
        .optopt(
            "",
            "rate",
            "at most so many items in a second, like 5000 or 20k",
            "N",
        )
        .optopt(
            "",
            "byte-rate",
            "at most so many bytes in a second, like 10m",
            "N",
        )
        .optopt(
            "",
            "workers",
            &format!("connections that read from each source (default {WORKERS})"),
            "N",
        )
        .optflag(
            "",
            "progress",
            "print progress even if there is no terminal",
        );
    access::options(&mut options);
    access::options_of(&mut options, "from-");
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 0, "copy")?;
    let rate = |name: &str, step: f64| {
        words::option(&matches, name, None, |text| {
            let rate = units::quantity(text, step).filter(|rate| *rate >= 1.0);
            rate.map(Some)
        })
    };
    let pace = Pace::new(rate("rate", 1000.0)?, rate("byte-rate", 1024.0)?);
    let workers = words::option(&matches, "workers", WORKERS, |text| {
        text.parse()
            .ok()
            .filter(|workers| (1..=64).contains(workers))
    })?;
    let overwrite = matches.opt_present("overwrite");
    let sources = cluster::nodes(&matches, "from")?;
    let target = cluster::from_of(&matches, "to")?;
    let both = |node: &ketch_client::Node| {
        let mut targets = target.nodes.iter();
        targets.any(|target| target.address() == node.address())
    };
    if overwrite && target.copies > 1 && sources.iter().any(both) {
        return Err(Failure::usage(
            "--overwrite with --copies cannot have a node on both sides: it would undo what is written meanwhile",
        ));
    }
    let to = access::from(&matches)?.or_within(&matches, TIMEOUT);
    let from = access::from_of(&matches, "from-")?.or_within(&matches, TIMEOUT);

    let tally = Tally::default();
    let expected = expected(&Cluster::of(sources.clone()), &from);
    let transfer = Transfer {
        continuum: Continuum::new(target.placement, &target.nodes),
        batch_limit: pace.batch_limit(),
        client: client(&target, &to),
        target,
        access: from,
        prefix: matches.opt_str("prefix").unwrap_or_default().into_bytes(),
        pace: Mutex::new(pace),
        workers,
        overwrite,
        tally,
    };
    let progress = matches.opt_present("progress") || io::stderr().is_terminal();
    let begun = Instant::now();
    progress::around(&transfer.tally, expected, progress, || {
        transfer.run(&sources)
    });
    let tally = transfer.tally;
    words::print(format!("{}\n", tally.summary(begun.elapsed())))?;
    let complaints = tally.complaints();
    complaints
        .iter()
        .for_each(|line| eprintln!("ketchctl: {line}"));
    match complaints.is_empty() {
        true => Ok(()),
        false => Err(Failure::Told),
    }
}

/// How many items the sources have, about. One that does not answer will say so again when it is listed.
pub fn expected(sources: &Cluster, access: &Access) -> u64 {
    let answers = access.client(sources).stats("").into_iter();
    let items = answers.filter_map(|(_, answer)| answer.ok());
    items
        .map(|stats| Figures::new(stats).number("curr_items") as u64)
        .sum()
}

/// The targets' client.
pub fn client(target: &Cluster, access: &Access) -> Client {
    let answers = access.client(target).stats("");
    let mut ketch = true;
    for (node, answer) in answers {
        match answer {
            Ok(stats) => ketch &= Figures::new(stats).text("ketch_version").is_some(),
            Err(error) => failure::tell(&node, &error),
        }
    }
    // Stock memcached cannot take the longest of binary keys.
    // Nor is each of many batches to wait for a node that is down.
    let options = access.options(target).retries(2).eject_after(3);
    Client::new(target.nodes.clone(), options.long_binary_keys(ketch))
}
