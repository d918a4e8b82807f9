//! `ketchctl nodes`: who is in a ring, and how each of them is.

use std::thread;
use std::time::{Duration, Instant};

use getopts::Options;
use ketch_client::continuum::{Continuum, Placement};
use ketch_client::{Error, Node};

use crate::access::{self, Access};
use crate::failure::{self, Failure};
use crate::shift::place::Rings;
use crate::table::Table;
use crate::{cluster, words};

const USAGE: &str = "usage: ketchctl nodes --servers SOURCE [options]\n\n\
    A line a node: its address, name, zone, weight, version, time to answer in milliseconds, share of the keys, and state: up, down, or\n\
    standby for one that is registered and holds no keys (drained, or not filled yet). SOURCE is a list of nodes,\n\
    etcd://HOST:PORT[,HOST:PORT]/RING, consul://HOST:PORT/SERVICE, k8s://NAMESPACE/SERVICE[:PORT], dns://NAME:PORT, srv://NAME,\n\
    file:///PATH, or cluster://HOST:PORT for what a server answers to \"config get cluster\". The last line has a digest of the ring:\n\
    clients whose digests are equal place keys alike.\n\
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
    let (nodes, standby) = listed(&matches.opt_strs("servers"), &access)?;
    let holders = nodes.len();
    let nodes: Vec<Node> = nodes.into_iter().chain(standby).collect();
    let placement = cluster::placement(&matches)?;
    let states: Vec<State> = thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| ask(node, &access)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, State>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect()
    });
    let (mut shares, digest) = ring(placement, &nodes[..holders]);
    shares.resize(nodes.len(), 0.0);
    let heading = [
        "node", "name", "zone", "weight", "version", "ms", "share", "state",
    ];
    let mut table = Table::new(heading);
    for (at, ((node, state), share)) in nodes.iter().zip(&states).zip(shares).enumerate() {
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
            match (&state.version, at < holders) {
                (Err(_), _) => "down".to_owned(),
                (Ok(_), true) => "up".to_owned(),
                (Ok(_), false) => "standby".to_owned(),
            },
        ];
        table.row(node.address(), cells);
    }
    words::print(table)?;
    println!("ring {digest:016x}, {holders} nodes");
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

/// Who holds keys by all of these sources, and who stands by.
fn listed(sources: &[String], access: &Access) -> Result<(Vec<Node>, Vec<Node>), Failure> {
    let (mut nodes, mut standby) = (Vec::new(), Vec::new());
    for source in sources {
        let (more, others) = Rings::open(source, access)?.now()?;
        nodes.extend(more);
        standby.extend(others.into_iter().map(|(node, _)| node));
    }
    match (nodes.is_empty() && standby.is_empty(), sources.first()) {
        (false, _) => Ok((nodes, standby)),
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
