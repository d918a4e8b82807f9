//! `ketchctl rebalance`: a new node is filled with the keys that will be its own, then takes its share.

use ketch_client::Node;
use ketch_membership::Order;

use super::place::{Rings, find};
use super::plan::{name, same};
use super::{Changed, Given, Shift, listed, options, say};
use crate::copy::source::Source;
use crate::copy::transfer::plain;
use crate::failure::Failure;
use crate::words;

const USAGE: &str = "usage: ketchctl rebalance [NODE] --servers SOURCE [options]\n\n\
    Fills a node with the keys that will be its own, then gives it its share of the ring: no client misses what the others have.\n\
    In a ring of etcd:// or consul:// a server that starts with -o node_weight=0 waits for it; without NODE, all that wait are filled\n\
    together. NODE is a name or an address; it may be one that was drained, or one that is in the ring already, cold. In any other\n\
    list people add it: the command says when, and waits until it is there (--wait).\n\
    A node that waits holds nothing that counts: it is flushed first. What has moved is deleted where it was, in the end.\n\
    Broken off (Ctrl-C) before the ring has changed it takes back what it has stored; running it again does no harm.\n\
    Exit status 1 if something could not be copied: the ring stays as it was then.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = options();
    options.optopt(
        "",
        "weight",
        "the new node's share relative to the others (default: what it was started with, or 1)",
        "N",
    );
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 1, "rebalance")?;
    let weight = words::option(&matches, "weight", None, |text| {
        let weight = text.parse().ok().filter(|&weight: &u32| weight > 0);
        weight.map(Some)
    })?;
    let given = Given::from(&matches)?;
    let mut rings = listed(&given)?;
    let (nodes, standby) = rings.now()?;
    let word = matches.free.first();
    // Those that are to come in, and whether they wait outside.
    let (new, wait): (Vec<Node>, bool) = match word {
        None => {
            let waits = standby
                .iter()
                .filter(|(_, member)| member.weight == 0 && !member.leaving);
            (waits.map(|(node, _)| node.clone()).collect(), true)
        }
        Some(word) => match (
            find(standby.iter().map(|(node, _)| node), word),
            find(&nodes, word),
        ) {
            (Some(node), _) => (vec![node.clone()], true),
            (None, Some(node)) => (vec![node.clone()], false),
            (None, None) if !matches!(rings, Rings::Registry(_)) => {
                let node = word
                    .parse()
                    .map_err(|error| Failure::usage(format!("{word}: {error}")))?;
                (vec![node], true)
            }
            (None, None) => {
                return Err(Failure::failed(format!(
                    "{word} is not registered in {}; a server that is to be filled starts with -o node_weight=0",
                    given.source
                )));
            }
        },
    };
    if new.is_empty() {
        return say(&format!(
            "{}: no node waits to be filled; NODE fills one that is in the ring",
            given.source
        ));
    }
    // Those that stand by are listed with the weight that they have now.
    let weighed = |node: &Node| match wait && matches!(rings, Rings::Registry(_)) {
        true => node
            .clone()
            .with_weight(weight.unwrap_or(node.weight.max(1))),
        false => node.clone(),
    };
    let new: Vec<Node> = new.iter().map(weighed).collect();
    let is_new = |node: &Node| new.iter().any(|one| same(one, node));
    let before: Vec<Node> = nodes.iter().filter(|node| !is_new(node)).cloned().collect();
    let mut after = before.clone();
    after.extend(new.iter().cloned());
    let names: Vec<String> = new.iter().map(name).collect();
    let names = names.join(", ");
    if before.is_empty() {
        return Err(Failure::failed(format!(
            "there is nobody to fill {names} from: \"config ring join\" on it puts it into the ring as it is"
        )));
    }
    say(&format!(
        "{}: {} nodes, {} with {names}",
        given.source,
        before.len(),
        after.len()
    ))?;
    if wait && matches!(rings, Rings::Registry(_)) && !given.dry_run {
        new.iter().try_for_each(|node| flush(node, &given))?;
    }
    let shift = Shift {
        sources: before.clone(),
        overwrite: wait && matches!(rings, Rings::Registry(_)),
        clean: true,
        given: &given,
        before,
        after,
    };
    shift.run(|stop| {
        if !wait {
            return Ok(Changed::Done);
        }
        let mut changed = Changed::Done;
        for node in &new {
            changed = rings.change(node, Order::Join(weight), (&given.access, given.wait), stop)?;
        }
        Ok(changed)
    })
}

/// What a node holds that stands by is from another time.
fn flush(node: &Node, given: &Given) -> Result<(), Failure> {
    let answer =
        Source::connect(node, &given.access, false).and_then(|mut server| server.ask("flush_all"));
    match answer {
        Ok(answer) if answer == "OK" => Ok(()),
        Ok(answer) => Err(Failure::failed(format!(
            "{}: flush_all: {answer}",
            name(node)
        ))),
        Err(error) => Err(Failure::failed(format!(
            "{}: {}",
            name(node),
            plain(&error)
        ))),
    }
}
