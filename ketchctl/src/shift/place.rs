//! A node's place in its ring: who is in it, who stands by, and how that is changed.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::Node;
use ketch_client::topology::{self, Source as NodeSource};
use ketch_membership::{Member, Order, Registry};

use super::plan::{name, same};
use super::{Changed, say};
use crate::access::Access;
use crate::cluster;
use crate::copy::source::Source;
use crate::copy::transfer::plain;
use crate::failure::Failure;

/// How long a server may take to change its entry.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(10);
/// How often a list that others keep is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Where the nodes are listed.
pub enum Rings {
    /// An engine, in which each has an entry.
    Registry(Registry),
    /// What can only be read.
    Other(String, Box<dyn NodeSource>),
    /// A list of the command line.
    List(Vec<Node>),
}

/// The nodes that hold keys, and those that stand by, with their entries.
pub type Listed = (Vec<Node>, Vec<(Node, Member)>);

impl Rings {
    pub fn open(text: &str, access: &Access) -> Result<Rings, Failure> {
        if !cluster::is_source(text) {
            let nodes = Node::list(text);
            return nodes
                .map(Rings::List)
                .map_err(|error| Failure::usage(format!("--servers {text}: {error}")));
        }
        let usage = |why| Failure::Usage(format!("--servers {why}"));
        if Registry::is_meant_by(text) {
            let registry: Registry = text
                .parse()
                .map_err(|why| usage(format!("{text}: {why}")))?;
            if registry.takes_members() {
                return Ok(Rings::Registry(registry));
            }
        }
        let mut source = topology::source(text).map_err(usage)?;
        access.adopt_in(&mut *source);
        Ok(Rings::Other(text.to_owned(), source))
    }

    /// Who is listed.
    pub fn now(&mut self) -> Result<Listed, Failure> {
        match self {
            Rings::List(nodes) => Ok((nodes.clone(), Vec::new())),
            Rings::Other(text, source) => {
                let nodes = source.nodes();
                let nodes = nodes.map_err(|error| Failure::failed(format!("{text}: {error}")))?;
                Ok((nodes, Vec::new()))
            }
            Rings::Registry(registry) => {
                let url = registry.url().to_owned();
                let listing = registry.members();
                let listing =
                    listing.map_err(|error| Failure::failed(format!("{url}: {error}")))?;
                let entry = |member: Member| Some((member.to_string().parse().ok()?, member));
                let standby = listing.standby.into_iter().filter_map(entry).collect();
                let members = listing.members.into_iter().filter_map(entry);
                Ok((members.map(|(node, _)| node).collect(), standby))
            }
        }
    }

    /// Has a node leave the ring or join it, and waits until the list says so.
    pub fn change(
        &mut self,
        node: &Node,
        order: Order,
        (access, wait): (&Access, Duration),
        stop: &AtomicBool,
    ) -> Result<Changed, Failure> {
        let (what, is_in) = match order {
            Order::Leave => ("leaves the ring", false),
            Order::Join(_) => ("takes its share of the keys", true),
        };
        let called = name(node);
        match self {
            Rings::Registry(registry) => {
                say(&format!("{called} {what}"))?;
                give(registry, node, order, access)?;
                let until = Instant::now() + PATIENCE;
                while self.has(node)? != is_in {
                    if Instant::now() >= until {
                        return Err(Failure::failed(format!(
                            "{called} was told, but the ring is as it was: does it reach the engine that keeps the ring?"
                        )));
                    }
                    thread::sleep(PAUSE);
                }
                Ok(Changed::Done)
            }
            Rings::Other(text, _) => {
                let text = text.clone();
                let done = match is_in {
                    true => format!("now put {called} into {text}"),
                    false => format!("now take {called} out of {text}"),
                };
                say(&format!("{done}; what changes until then is copied"))?;
                let until = Instant::now() + wait;
                while self.has(node)? != is_in {
                    if Instant::now() >= until || stop.load(Relaxed) {
                        let done = done.trim_start_matches("now ");
                        return Ok(Changed::NotSeen(format!(
                            "the list is as it was: {done}, then run this again"
                        )));
                    }
                    thread::sleep(LOOK);
                }
                Ok(Changed::Done)
            }
            Rings::List(_) => {
                let done = match is_in {
                    true => format!("put {called} into the list of every client"),
                    false => format!("take {called} out of the list of every client"),
                };
                say(&format!(
                    "now {done}; what changes is copied for {}, or until Ctrl-C",
                    super::seconds(wait)
                ))?;
                let until = Instant::now() + wait;
                while Instant::now() < until && !stop.load(Relaxed) {
                    thread::sleep(PAUSE);
                }
                Ok(Changed::NotSeen(format!(
                    "if it was too short a time: {done}, then run this again"
                )))
            }
        }
    }

    fn has(&mut self, node: &Node) -> Result<bool, Failure> {
        let (nodes, _) = self.now()?;
        Ok(nodes.iter().any(|one| same(one, node)))
    }
}

/// The node that a word of the command line means: by its name or its address.
pub fn find<'n>(nodes: impl IntoIterator<Item = &'n Node>, word: &str) -> Option<&'n Node> {
    let is_meant = |node: &&Node| {
        let parsed = word.parse::<Node>().ok();
        name(node) == word
            || node.address() == word
            || parsed.is_some_and(|parsed| parsed.address() == node.address())
    };
    nodes.into_iter().find(is_meant)
}

/// Tells the server, which has registered itself; what others have written down is changed for them.
fn give(
    registry: &mut Registry,
    node: &Node,
    order: Order,
    access: &Access,
) -> Result<(), Failure> {
    let command = match order {
        Order::Leave => "config ring leave".to_owned(),
        Order::Join(None) => "config ring join".to_owned(),
        Order::Join(Some(weight)) => format!("config ring join {weight}"),
    };
    let called = name(node);
    let answer = Source::connect(node, access, false).and_then(|mut server| server.ask(&command));
    match answer {
        Ok(answer) if answer == "OK" => Ok(()),
        // It has registered nowhere: somebody has written it down.
        Ok(answer) if answer == "ERROR" || answer.starts_with("CLIENT_ERROR") => {
            let failed = |error| Failure::failed(format!("{}: {error}", called));
            let listing = registry.members().map_err(failed)?;
            let all = listing.members.into_iter().chain(listing.standby);
            let entry = all
                .into_iter()
                .find(|member| member.name == called || member.address() == node.address());
            let entry =
                entry.ok_or_else(|| Failure::failed(format!("{called} is gone from the ring")))?;
            registry.rewrite(&order.apply(&entry)).map_err(failed)
        }
        Ok(answer) => Err(Failure::failed(format!("{called}: {answer}"))),
        Err(error) => Err(Failure::failed(format!("{called}: {}", plain(&error)))),
    }
}
