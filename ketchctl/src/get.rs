//! `ketchctl get`: the value of a key, as it is.

use std::io::{self, IsTerminal, Write};

use getopts::Options;
use ketch_client::continuum::Continuum;

use crate::failure::Failure;
use crate::{access, cluster, words};

const USAGE: &str = "usage: ketchctl get --servers LIST [options] KEY\n\n\
    Writes the value of the key to standard output, as it is, and a line end only if that is a terminal.\n\
    Exit status 3 if the key is not there.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optflag(
        "v",
        "verbose",
        "tell node, client flags and length on standard error",
    );
    words::key_option(&mut options);
    cluster::options(&mut options);
    cluster::copies_option(&mut options);
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 1, "get")?;
    let key = words::first_key(&matches, "get")?;
    let cluster = cluster::from(&matches)?;
    let client = access::from(&matches)?.client(&cluster);
    let Some(item) = client.get(&key)? else {
        return Err(Failure::Missed("the key is not there".to_owned()));
    };
    if matches.opt_present("verbose") {
        let continuum = Continuum::new(cluster.placement, &cluster.nodes);
        let owner = continuum.locate(&key).expect("a cluster has nodes");
        let address = cluster.nodes[owner].address();
        eprintln!(
            "node {address}, client flags {}, {} bytes",
            item.flags,
            item.value.len()
        );
    }
    let mut out = io::stdout().lock();
    out.write_all(&item.value)?;
    if out.is_terminal() {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}
