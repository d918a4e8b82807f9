//! `ketchctl audit`: whether the copies of keys are the same, within a ring or over several.
//!
//! ```text
//!  each place (a node of a ring):  lister --keys of the sample--> [batches] --> workers: fetch from all places of each key
//!                                  lru_crawler metadump                            |  agree, alone, ..: counted
//!                                                                                  '- differ: looked at again, after a pause
//! ```
//!
//! Au1. A key is dealt with by the first of its places that has it, so that it is counted once, however many list it.
//! Au2. The content decides: bytes and client flags. A CAS unique is compared only with an earlier one of the same node, and tells
//!      whether the key has changed between two looks.
//! Au3. A key is called different only if no place wrote it between two looks, in both of which it differed.

mod compare;
pub use compare::fnv;
mod places;
mod result;
mod walk;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use getopts::Options;
use ketch_client::COPIES_MAX;

use crate::cluster::{self, Cluster};
use crate::copy::pace::Pace;
use crate::failure::Failure;
use crate::figures::Figures;
use crate::{access, rings, units, words};
use places::Places;
use result::Tally;
use walk::Walk;

const USAGE: &str = "usage: ketchctl audit --rings A,B [options]\n\n\
    Compares what the rings have for the same keys, and prints how many nines of them agree, and which do not. Commas stand\n\
    between rings and + between the nodes of one; given more than once, each --rings is a ring, with commas between its nodes.\n\
    Of one ring with --copies N the copies are compared: --rings LIST --copies 2.\n\
    Keys are listed with lru_crawler metadump, and read with mg without changing the order in the LRU. The content decides,\n\
    bytes and client flags; keys that differ are looked at again after a pause, and those that were written meanwhile once more.\n\
    A key that one place alone has is no difference: caches miss.\n\
    Exit status 0 if all that could be compared is the same, else 1.";

/// The longest a request takes unless said otherwise: batches take longer than a key.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Keys that are named, unless said otherwise.
const SHOW: usize = 20;
/// How long to wait before a key that differs is looked at again, unless said otherwise: a relay may be about to bring it.
const PAUSE: Duration = Duration::from_secs(1);

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options
        .optmulti("", "rings", "the rings to compare", "RING,..")
        .optopt(
            "",
            "sample",
            "look at about so many keys, like 10000 or 50k, the same ones everywhere (default: all)",
            "N",
        )
        .optopt("", "prefix", "only keys that begin so", "TEXT")
        .optopt(
            "",
            "pause",
            "how long to wait before a key that differs is looked at again (default 1s)",
            "TIME",
        )
        .optopt(
            "",
            "show",
            &format!("name at most so many keys that differ (default {SHOW})"),
            "N",
        )
        .optopt("", "rate", "look at most at so many keys in a second", "N")
        .optflag("", "json", "print one object of JSON");
    cluster::placement_options(&mut options);
    cluster::copies_option(&mut options);
    access::options(&mut options);
    let usage = format!("{USAGE}\n{}", rings::ABOUT);
    let matches = words::parse(given, options, &usage)?;
    words::none_but(&matches, 0, "audit")?;
    let copies = words::option(&matches, "copies", 1, |text| {
        let copies = text.parse().ok();
        copies.filter(|copies| (1..=COPIES_MAX).contains(copies))
    })?;
    let sample = words::option(&matches, "sample", None, |text| {
        let keys = units::quantity(text, 1000.0).filter(|keys| *keys >= 1.0);
        keys.map(Some)
    })?;
    let pause = words::option(&matches, "pause", PAUSE, units::duration)?;
    let show = words::option(&matches, "show", SHOW, |text| text.parse().ok())?;
    let rate = words::option(&matches, "rate", None, |text| {
        let rate = units::quantity(text, 1000.0).filter(|rate| *rate >= 1.0);
        rate.map(Some)
    })?;
    let named = rings::split(&matches.opt_strs("rings"), copies);
    match named.len() {
        0 => return Err(Failure::usage("--rings is missing")),
        1 if copies == 1 => {
            return Err(Failure::usage(
                "--rings names one ring: give another one to compare it with, or --copies N to compare its copies",
            ));
        }
        _ => {}
    }
    let access = access::from(&matches)?.or_within(&matches, TIMEOUT);
    let lists: Vec<_> = named
        .iter()
        .map(|ring| rings::nodes(ring, "rings", &access))
        .collect::<Result<_, _>>()?;
    if let [nodes] = &lists[..]
        && nodes.len() < 2
    {
        return Err(Failure::usage("--copies needs a ring of two nodes or more"));
    }
    let places = Places::new(&lists, cluster::placement(&matches)?, copies);
    let share = match sample {
        None => 1.0,
        // The largest ring has all keys, as far as any has.
        Some(sample) => {
            let items = lists.iter().map(|nodes| items(nodes.clone(), &access));
            let keys = items.fold(0.0, f64::max) / copies as f64;
            if keys > sample { sample / keys } else { 1.0 }
        }
    };
    let pace = Pace::new(rate, None);
    let walk = Walk {
        tally: Tally::new(places.places.len(), show),
        down: places.places.iter().map(|_| false.into()).collect(),
        places,
        access,
        share,
        prefix: matches.opt_str("prefix").unwrap_or_default().into_bytes(),
        pause,
        limit: pace.batch_limit(),
        pace: Mutex::new(pace),
        suspects: Mutex::default(),
    };
    let begun = Instant::now();
    walk.run();
    let report = match matches.opt_present("json") {
        true => result::report_json,
        false => result::report,
    };
    let text = report(&walk.places, &named, &walk.tally, share, begun.elapsed());
    words::print(text)?;
    let errors = walk.tally.errors();
    errors.iter().for_each(|line| eprintln!("ketchctl: {line}"));
    let counts = walk.tally.counts();
    match errors.is_empty() && counts.differ + counts.failed == 0 {
        true => Ok(()),
        false => Err(Failure::Told),
    }
}

/// How many items a ring has, about. A node that does not answer says so again when it is listed.
fn items(nodes: Vec<ketch_client::Node>, access: &access::Access) -> f64 {
    let answers = access.client(&Cluster::of(nodes)).stats("").into_iter();
    let items = answers.filter_map(|(_, answer)| answer.ok());
    items
        .map(|stats| Figures::new(stats).number("curr_items"))
        .sum()
}
