//! `ketchctl why KEY`: why a key is not there.

use getopts::Options;

use crate::failure::{self, Failure};
use crate::{access, cluster, words};

const USAGE: &str = "usage: ketchctl why --servers LIST [options] KEY\n\n\
    What each node knows of a key: it is there, or it was evicted, expired, deleted or flushed lately, or the node has not\n\
    seen it, or not for long. Nodes must be ketch. Nothing is counted or touched.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    cluster::nodes_option(&mut options, "s", "servers", "the nodes");
    words::key_option(&mut options);
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    let key = words::first_key(&matches, "why")?;
    words::none_but(&matches, 1, "why")?;
    let Ok(key) = String::from_utf8(key) else {
        return Err(Failure::usage("the key must be text"));
    };
    let nodes = cluster::nodes(&matches, "servers")?;
    let client = access::from(&matches)?.client(&cluster::Cluster::of(nodes));
    let mut failed = false;
    for (node, answer) in client.stats(&format!("misses {key}")) {
        match answer {
            Ok(lines) => {
                let reason = lines.iter().find(|(name, _)| name == "reason");
                let told = match reason.map(|(_, reason)| &reason[..]) {
                    Some("there") => "it is there",
                    Some("evicted") => {
                        "evicted: it gave way to others; more memory, or shorter times to live, would keep it (ketchctl stats whatif)"
                    }
                    Some("expired") => "expired: its time to live is over",
                    Some("deleted") => {
                        "deleted, or a store of it was refused for its size or for want of memory"
                    }
                    Some("flushed") => "flushed: there was a flush_all",
                    Some("never_seen") => {
                        "not seen: it was never stored here, or it is gone for long"
                    }
                    _ => "the node does not tell; is it ketch?",
                };
                words::print(format!("{node}: {told}\n"))?;
            }
            Err(error) => {
                failure::tell(&node, &error);
                failed = true;
            }
        }
    }
    if failed {
        return Err(Failure::Told);
    }
    Ok(())
}
