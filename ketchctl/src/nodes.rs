//! `ketchctl nodes`: who is in a ring, and how each of them is.

use std::thread;
use std::time::{Duration, Instant};

use getopts::Options;
use ketch_client::continuum::{Continuum, Placement};
use ketch_client::topology::{RegisteredNodes, Source, SourceError};
use ketch_client::{Error, Node};

use crate::access::{self, Access};
use crate::failure::{self, Failure};
use crate::table::Table;
use crate::{cluster, words};

const USAGE: &str = "usage: ketchctl nodes --servers SOURCE [options]\n\n\
    A line a node: its address, name, zone, weight, version, time to answer in milliseconds, and share of the keys. SOURCE is a list\n\
    of nodes, etcd://HOST:PORT[,HOST:PORT]/RING, consul://HOST:PORT/SERVICE, or config://HOST:PORT for what a server answers\n\
    to \"config get cluster\". The last line has a digest of the ring: clients whose digests are equal place keys alike.\n\
    Exit status 1 if a node does not answer.";

/// Keys by which shares are counted.
const SAMPLE: usize = 20_000;

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optmulti("s", "servers", "where the nodes are listed", "SOURCE");
    cluster::placement_options(&mut options);
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 0, "nodes")?;
    let access = access::from(&matches)?;
    let nodes = listed(&matches.opt_strs("servers"), &access)?;
    let placement = cluster::placement(&matches)?;
    let states: Vec<State> = thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| ask(node, &access)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, State>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect()
    });
    let (shares, digest) = ring(placement, &nodes);
    let mut table = Table::new(["node", "name", "zone", "weight", "version", "ms", "share"]);
    for ((node, state), share) in nodes.iter().zip(&states).zip(shares) {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let cells = [
            or_dash(&node.name),
            or_dash(&node.zone),
            node.weight.to_string(),
            state.version.clone().unwrap_or_else(|_| "-".to_owned()),
            match &state.version {
                Ok(_) => format!("{:.3}", state.took.as_secs_f64() * 1000.0),
                Err(_) => "down".to_owned(),
            },
            format!("{:.1} %", share * 100.0),
        ];
        table.row(node.address(), cells);
    }
    words::print(table)?;
    println!("ring {digest:016x}, {} nodes", nodes.len());
    let mut failed = false;
    for (node, state) in nodes.iter().zip(&states) {
        if let Err(error) = &state.version {
            failed = true;
            failure::tell(&node.address(), error);
        }
    }
    if failed {
        return Err(Failure::Told);
    }
    Ok(())
}

/// The nodes of all sources.
fn listed(sources: &[String], access: &Access) -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    for source in sources {
        let told = |error: &dyn std::fmt::Display| Failure::failed(format!("{source}: {error}"));
        if RegisteredNodes::is_meant_by(source) {
            let usage = |error| Failure::usage(format!("--servers {source}: {error}"));
            let mut ring: RegisteredNodes = source.parse().map_err(usage)?;
            match ring.nodes() {
                Ok(members) => nodes.extend(members),
                // Told below, as of any list.
                Err(SourceError::Empty) => {}
                Err(error) => return Err(told(&error)),
            }
        } else if let Some(server) = source.strip_prefix("config://") {
            nodes.extend(access.cluster_of(server).map_err(|error| told(&error))?);
        } else {
            let usage = |error| Failure::usage(format!("--servers {source}: {error}"));
            nodes.extend(Node::list(source).map_err(usage)?);
        }
    }
    match (nodes.is_empty(), sources.first()) {
        (false, _) => Ok(nodes),
        (true, Some(source)) => Err(Failure::failed(format!("{source}: there are no nodes"))),
        (true, None) => Err(Failure::usage("--servers is missing")),
    }
}

/// How a node is.
struct State {
    version: Result<String, Error>,
    took: Duration,
}

fn ask(node: &Node, access: &Access) -> State {
    let client = access.client_of(node);
    let begin = Instant::now();
    let answer = client.version().pop().map(|(_, answer)| answer);
    State {
        version: answer.unwrap_or(Err(Error::NoNode)),
        took: begin.elapsed(),
    }
}

/// Each node's share of the keys, and a number that is the same wherever keys are placed alike.
fn ring(placement: Placement, nodes: &[Node]) -> (Vec<f64>, u64) {
    let continuum = Continuum::new(placement, nodes);
    let mut counts = vec![0usize; nodes.len()];
    // FNV-1a, over the names of the owners of the sample's keys.
    let mut digest: u64 = 0xcbf2_9ce4_8422_2325;
    for n in 0..SAMPLE {
        if let Some(owner) = continuum.locate(format!("key:{n}").as_bytes()) {
            counts[owner] += 1;
            let node = &nodes[owner];
            let name = node.name.clone().unwrap_or_else(|| node.address());
            for byte in name.bytes() {
                digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    let share = |count: usize| count as f64 / SAMPLE as f64;
    (counts.into_iter().map(share).collect(), digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_the_digest_is_of_names() {
        let named = |host: &str, name: &str| Node::new(host, 1).with_name(name);
        let nodes = [named("a", "one"), named("b", "two").with_weight(3)];
        let (shares, digest) = ring(Placement::default(), &nodes);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let moved = [named("c", "one"), named("d", "two").with_weight(3)];
        assert_eq!(
            ring(Placement::default(), &moved).1,
            digest,
            "addresses have no say"
        );
        assert_ne!(ring(Placement::default(), &moved[..1]).1, digest);
    }
}
