//! The options that name a cluster, which most commands share.

use getopts::{Matches, Options};
use ketch_client::continuum::{Distribution, Placement};
use ketch_client::topology::{self, SourceError};
use ketch_client::{COPIES_MAX, Node};

use crate::access::{self, Access};
use crate::failure::Failure;

/// Nodes and how keys are spread over them.
#[derive(Debug, PartialEq, Eq)]
pub struct Cluster {
    /// In the order of the command line, which counts.
    pub nodes: Vec<Node>,
    /// Distribution and its options.
    pub placement: Placement,
    /// On how many nodes a key lives.
    pub copies: usize,
}

impl Cluster {
    /// Nodes that are not asked by key.
    pub fn of(nodes: Vec<Node>) -> Self {
        Cluster {
            nodes,
            placement: Placement::default(),
            copies: 1,
        }
    }
}

/// Adds the options to those of a command.
pub fn options(options: &mut Options) {
    nodes_option(options, "s", "servers", "the nodes, in their order");
    placement_options(options);
}

/// An option that lists nodes.
pub fn nodes_option(options: &mut Options, short: &str, long: &str, about: &str) {
    options.optmulti(
        short,
        long,
        &format!("{about}; /PATH[:WEIGHT] is a unix socket; or a source that lists them, like etcd://HOST:PORT/RING"),
        "HOST[:PORT[:WEIGHT]],..",
    );
}

/// How keys are spread.
pub fn placement_options(options: &mut Options) {
    options
        .optopt(
            "d",
            "distribution",
            &format!("{} (default {})", names(), Distribution::default()),
            "NAME",
        )
        .optflag(
            "",
            "hash-tags",
            "only the part of a key in {braces} counts, if it has one",
        )
        .optflag(
            "",
            "keep-port",
            "ring labels keep port 11211, as spymemcached and hashring have it",
        );
}

fn names() -> String {
    Distribution::ALL.map(Distribution::name).join(", ")
}

/// The option for commands that ask by key.
pub fn copies_option(options: &mut Options) {
    options.optopt(
        "",
        "copies",
        "on how many nodes a key lives (default 1)",
        "N",
    );
}

/// What they were given.
pub fn from(matches: &Matches) -> Result<Cluster, Failure> {
    from_of(matches, "servers")
}

/// The nodes that this option lists.
pub fn nodes(matches: &Matches, option: &str) -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    for list in matches.opt_strs(option) {
        let told = |failure| match failure {
            Failure::Usage(why) => Failure::Usage(format!("--{option} {why}")),
            other => other,
        };
        nodes.extend(listed(&list, || asking(matches, option)).map_err(told)?);
    }
    if nodes.is_empty() {
        return Err(Failure::usage(format!("--{option} is missing")));
    }
    Ok(nodes)
}

/// Whether a text names a source of nodes; else it is a list of them.
pub fn is_source(text: &str) -> bool {
    text.contains("://")
}

/// The nodes in a list, or those that a source has listed now.
pub fn listed(
    text: &str,
    access: impl FnOnce() -> Result<Access, Failure>,
) -> Result<Vec<Node>, Failure> {
    if !is_source(text) {
        return Node::list(text).map_err(|error| Failure::usage(format!("{text}: {error}")));
    }
    let mut source = topology::source(text).map_err(Failure::Usage)?;
    access()?.adopt_in(&mut *source);
    match source.nodes() {
        Ok(nodes) if !nodes.is_empty() => Ok(nodes),
        Ok(_) | Err(SourceError::Empty) => {
            Err(Failure::failed(format!("{text}: there are no nodes")))
        }
        Err(error) => Err(Failure::failed(format!("{text}: {error}"))),
    }
}

/// How the nodes of this option are spoken to, of which one may be asked for the others.
fn asking(matches: &Matches, option: &str) -> Result<Access, Failure> {
    let own = format!("{option}-");
    match matches.opt_defined(&format!("{own}user")) {
        true => access::from_of(matches, &own),
        false => access::from(matches),
    }
}

/// How keys are spread, as the options say.
pub fn placement(matches: &Matches) -> Result<Placement, Failure> {
    let distribution = match matches.opt_str("distribution") {
        Some(name) => name
            .parse()
            .map_err(|error| Failure::usage(format!("--distribution {name}: {error}")))?,
        None => Distribution::default(),
    };
    Ok(Placement::from(distribution)
        .hash_tags(matches.opt_present("hash-tags"))
        .keep_port(matches.opt_present("keep-port")))
}

/// The cluster whose nodes this option lists.
pub fn from_of(matches: &Matches, option: &str) -> Result<Cluster, Failure> {
    let nodes = nodes(matches, option)?;
    let placement = placement(matches)?;
    let copies = match matches.opt_defined("copies") {
        true => matches.opt_str("copies"),
        false => None,
    };
    let copies = match copies {
        Some(text) => text
            .parse()
            .ok()
            .filter(|copies| (1..=COPIES_MAX).contains(copies))
            .ok_or_else(|| {
                Failure::usage(format!("--copies {text} is no number up to {COPIES_MAX}"))
            })?,
        None => 1,
    };
    Ok(Cluster {
        nodes,
        placement,
        copies,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Result<Cluster, Failure> {
        let mut options = Options::new();
        super::options(&mut options);
        from(&options.parse(words)?)
    }

    #[test]
    fn from_the_command_line() {
        let cluster = given(&[
            "-s",
            "a,b:1:2",
            "--servers",
            "[::1]",
            "--hash-tags",
            "-d",
            "jump",
        ])
        .unwrap();
        assert_eq!(
            cluster.nodes,
            [
                Node::new("a", 11211),
                Node::new("b", 1).with_weight(2),
                Node::new("::1", 11211)
            ]
        );
        assert_eq!(
            cluster.placement,
            Placement::from(Distribution::Jump).hash_tags(true)
        );
        assert_eq!(given(&["-s", "a"]).unwrap().placement, Placement::default());
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (words, told) in [
            (&[][..], "--servers is missing"),
            (&["--servers", ","], "--servers is missing"),
            (&["--servers", "a:0"], "--servers a:0: the port"),
            (
                &["-s", "a", "-d", "ring"],
                "--distribution ring: a distribution is one of ketama-weighted,",
            ),
            (&["-s", "a", "--colour"], "colour"),
        ] {
            match given(words) {
                Err(Failure::Usage(text)) => assert!(text.contains(told), "{text}"),
                other => panic!("{words:?}: {other:?}"),
            }
        }
    }
}
