//! `ketchctl record`: the last ten minutes of a node, second by second.

use getopts::Options;

use crate::failure::{self, Failure};
use crate::{access, cluster, words};

const USAGE: &str = "usage: ketchctl record --servers NODE [options]\n\n\
    The last ten minutes of one node, a line a second with commas: what was counted in that second, and what there was at\n\
    its end. The node keeps them in memory, whether anybody asks or not. It must be ketch.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optopt("o", "output", "write to this file", "FILE");
    cluster::nodes_option(&mut options, "s", "servers", "the node");
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 0, "record")?;
    let nodes = cluster::nodes(&matches, "servers")?;
    if nodes.len() != 1 {
        return Err(Failure::usage("--servers must name one node"));
    }
    let client = access::from(&matches)?.client(&cluster::Cluster::of(nodes));
    for (node, answer) in client.stats("record") {
        let lines = answer.map_err(|error| Failure::failed(failure::of_node(&node, &error)))?;
        let text: String = lines
            .iter()
            .map(|(key, value)| format!("{key},{}\n", value.replace(' ', ",")))
            .collect();
        match matches.opt_str("output") {
            Some(path) => std::fs::write(&path, text)
                .map_err(|error| Failure::failed(format!("{path}: {error}")))?,
            None => words::print(text)?,
        }
    }
    Ok(())
}
