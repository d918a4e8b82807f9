//! `ketchctl drain`: a node is taken out of its ring, and its keys go to others first.

use ketch_membership::Order;

use super::place::find;
use super::{Given, Shift, listed, options, plan, say};
use crate::failure::Failure;
use crate::words;

const USAGE: &str = "usage: ketchctl drain NODE --servers SOURCE [options]\n\n\
    Takes a node out of a ring without a miss: its keys are copied to the nodes that will have them, with their times to live and\n\
    client flags; then it leaves the ring; and what changes meanwhile follows. NODE is its name or its address.\n\
    In a ring of etcd:// or consul:// it leaves by itself, serves what it has, and may be stopped then; \"ketchctl rebalance NODE\"\n\
    or a new start puts it back. In any other list people take it out: the command says when, and waits until it is out (--wait).\n\
    Broken off (Ctrl-C) before the ring has changed it takes back what it has stored; running it again does no harm.\n\
    A newer value at a new owner stays. Not copied: what is stale, or being computed anew by a lease.\n\
    Changes are followed by the feed of ketch; on stock memcached the keys are listed again instead.\n\
    Exit status 1 if something could not be copied: the node stays in the ring then.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let matches = words::parse(given, options(), USAGE)?;
    words::none_but(&matches, 1, "drain")?;
    let word = matches.free.first();
    let word = word.ok_or_else(|| Failure::usage("drain: which node? its name or its address"))?;
    let given = Given::from(&matches)?;
    let mut rings = listed(&given)?;
    let (nodes, standby) = rings.now()?;
    // One that has left already is looked at once more: it may have been broken off.
    let left = standby.iter().map(|(node, _)| node);
    let node = match (find(&nodes, word), find(left, word)) {
        (Some(node), _) => node.clone(),
        (None, Some(node)) => node.clone(),
        (None, None) => {
            let names: Vec<String> = nodes.iter().map(plan::name).collect();
            return Err(Failure::failed(format!(
                "{word} is no node of {}; there are {}",
                given.source,
                names.join(", ")
            )));
        }
    };
    let is_in = nodes.iter().any(|one| plan::same(one, &node));
    let after: Vec<_> = nodes
        .iter()
        .filter(|one| !plan::same(one, &node))
        .cloned()
        .collect();
    if after.is_empty() {
        return Err(Failure::failed(format!(
            "{word} is the only node that holds keys: there is nobody to give them to"
        )));
    }
    let mut before = after.clone();
    before.push(node.clone());
    say(&format!(
        "{}: {} nodes, {} without {}",
        given.source,
        before.len(),
        after.len(),
        plan::name(&node)
    ))?;
    let is_registry = matches!(rings, super::Rings::Registry(_));
    let shift = Shift {
        // With copies, a key that the node holds may be another's to give.
        sources: match given.copies {
            1 => vec![node.clone()],
            _ => before.clone(),
        },
        overwrite: is_registry && is_in,
        clean: false,
        given: &given,
        before,
        after,
    };
    shift.run(|stop| match is_in {
        true => rings.change(&node, Order::Leave, (&given.access, given.wait), stop),
        false => Ok(super::Changed::Done),
    })?;
    match given.dry_run {
        true => Ok(()),
        false => say(&format!(
            "{} holds no keys that anybody looks for: it may be stopped",
            plan::name(&node)
        )),
    }
}
