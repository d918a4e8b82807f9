//! Rings as options name them: a list of nodes, or where the list is kept.

use std::time::Duration;

use ketch_client::topology::{self, RegisteredNodes, Source, SourceError};
use ketch_client::{ClientOptions, Node};

use crate::access::Access;
use crate::cluster;
use crate::failure::Failure;

/// What is told of a RING in the usage of a command.
pub const ABOUT: &str = "A RING is a list of nodes with commas between them, or a source that lists them, like etcd://HOST:PORT/RING,\n\
    consul://HOST:PORT/SERVICE, cluster://HOST:PORT for what a server answers to \"config get cluster\", file:///PATH, dns://NAME:PORT.";

/// A source of nodes, whichever it is.
pub struct Ring(Box<dyn Source>);

impl Source for Ring {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        self.0.nodes()
    }

    fn interval(&self) -> Option<Duration> {
        self.0.interval()
    }

    fn wait(&mut self, at_most: Duration) -> Option<bool> {
        self.0.wait(at_most)
    }

    fn adopt(&mut self, options: &ClientOptions) {
        self.0.adopt(options);
    }
}

/// The ring that `text`, given to `option`, names. It is not asked yet.
pub fn ring(text: &str, option: &str, access: &Access) -> Result<Ring, Failure> {
    if cluster::is_source(text) {
        let source = topology::source(text);
        let mut source = source.map_err(|why| Failure::usage(format!("--{option} {why}")))?;
        access.adopt_in(&mut *source);
        return Ok(Ring(source));
    }
    match Node::list(text) {
        Ok(nodes) if !nodes.is_empty() => Ok(Ring(Box::new(nodes))),
        Ok(_) => Err(Failure::usage(format!(
            "--{option} {text}: there are no nodes in it"
        ))),
        Err(error) => Err(Failure::usage(format!("--{option} {text}: {error}"))),
    }
}

/// The nodes that a ring has now.
pub fn nodes(text: &str, option: &str, access: &Access) -> Result<Vec<Node>, Failure> {
    let told = |failure| match failure {
        Failure::Usage(why) => Failure::Usage(format!("--{option} {why}")),
        other => other,
    };
    cluster::listed(text, || Ok(access.clone())).map_err(told)
}

/// The rings of `--rings`. Given once, commas stand between rings, and `+` between the nodes of one; given more than once, each is
/// a ring. A ring of one node has no copies: with `copies`, a mere list of nodes is one ring.
pub fn split(given: &[String], copies: usize) -> Vec<String> {
    let joined = |text: &str| text.replace('+', ",");
    if given.len() > 1 {
        return given.iter().map(|text| joined(text)).collect();
    }
    let mut rings: Vec<String> = Vec::new();
    for piece in given.iter().flat_map(|text| text.split(',')) {
        // etcd://A:1,B:2/RING has a comma of its own.
        let open = rings.last_mut().filter(|ring| {
            let hosts = ring.split_once("://").map(|(_, rest)| rest);
            hosts.is_some_and(|hosts| {
                RegisteredNodes::is_meant_by(ring) && !hosts.contains('/') && !piece.is_empty()
            })
        });
        match open {
            Some(ring) => ring.extend([",", piece]),
            None if piece.is_empty() => {}
            None => rings.push(piece.to_owned()),
        }
    }
    let is_node = |ring: &String| !ring.contains('+') && !cluster::is_source(ring);
    if copies > 1 && rings.iter().all(is_node) {
        return vec![rings.join(",")];
    }
    rings.iter().map(|ring| joined(ring)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_of_an_option() {
        for (given, copies, rings) in [
            (&["a,b"][..], 1, &["a", "b"][..]),
            (&["a:1+b:2,c"], 1, &["a:1,b:2", "c"]),
            (&["a,b", "c"], 1, &["a,b", "c"]),
            (&["a,b,c"], 2, &["a,b,c"]),
            (&["a+b,c+d"], 2, &["a,b", "c,d"]),
            (&["a,b", "c,d"], 2, &["a,b", "c,d"]),
            (
                &["etcd://h:1,i:2/x,etcd://j:3/y"],
                2,
                &["etcd://h:1,i:2/x", "etcd://j:3/y"],
            ),
            (
                &["file:///f,cluster://h:1"],
                1,
                &["file:///f", "cluster://h:1"],
            ),
            (&["a,,b,"], 1, &["a", "b"]),
            (&[""], 1, &[]),
        ] {
            let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(split(&given, copies), rings, "{given:?}");
        }
    }
}
