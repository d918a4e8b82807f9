//! The options that name a cluster, which most commands share.

use getopts::{Matches, Options};
use ketch_client::Node;
use ketch_client::continuum::{Distribution, Placement};

use crate::failure::Failure;

/// Nodes and how keys are spread over them.
#[derive(Debug, PartialEq, Eq)]
pub struct Cluster {
    /// In the order of the command line, which counts.
    pub nodes: Vec<Node>,
    /// Distribution and its options.
    pub placement: Placement,
}

/// Adds the options to those of a command.
pub fn options(options: &mut Options) {
    options
        .optmulti(
            "s",
            "servers",
            "the nodes, in their order",
            "HOST[:PORT[:WEIGHT]],..",
        )
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

/// What they were given.
pub fn from(matches: &Matches) -> Result<Cluster, Failure> {
    let mut nodes = Vec::new();
    for list in matches.opt_strs("servers") {
        let more = Node::list(&list)
            .map_err(|error| Failure::usage(format!("--servers {list}: {error}")))?;
        nodes.extend(more);
    }
    if nodes.is_empty() {
        return Err(Failure::usage("--servers is missing"));
    }
    let distribution = match matches.opt_str("distribution") {
        Some(name) => name
            .parse()
            .map_err(|error| Failure::usage(format!("--distribution {name}: {error}")))?,
        None => Distribution::default(),
    };
    let placement = Placement::from(distribution)
        .hash_tags(matches.opt_present("hash-tags"))
        .keep_port(matches.opt_present("keep-port"));
    Ok(Cluster { nodes, placement })
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
