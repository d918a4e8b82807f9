//! `ketchctl ring`: reads keys, one a line, and prints `key<TAB>host:port`.

use std::io::{self, BufRead, BufWriter, Write};

use getopts::Options;
use ketch_client::continuum::Continuum;

use crate::access;
use crate::cluster::{self, Cluster};
use crate::failure::Failure;

pub fn run(words: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optflag("h", "help", "print this");
    cluster::options(&mut options);
    access::options(&mut options);
    let matches = options.parse(words)?;
    if matches.opt_present("help") {
        let brief = "usage: ketchctl ring --servers LIST [options] < KEYS\n\n\
                     Reads keys, one a line, any bytes, and prints each with the node that owns it: key<TAB>host:port.";
        return Err(Failure::Help(options.usage(brief)));
    }
    if let Some(word) = matches.free.first() {
        return Err(Failure::usage(format!(
            "ring takes keys from standard input, not {word}"
        )));
    }
    let cluster = cluster::from(&matches)?;
    place(&cluster, io::stdin().lock(), io::stdout().lock())?;
    Ok(())
}

/// Answers each line of `keys` by a line. A key is everything before the line feed.
fn place(cluster: &Cluster, mut keys: impl BufRead, out: impl Write) -> io::Result<()> {
    let continuum = Continuum::new(cluster.placement, &cluster.nodes);
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.address()).collect();
    let mut out = BufWriter::new(out);
    let mut line = Vec::new();
    while keys.read_until(b'\n', &mut line)? > 0 {
        let key = line.strip_suffix(b"\n").unwrap_or(&line);
        let owner = continuum.locate(key).expect("a cluster has nodes");
        out.write_all(key)?;
        writeln!(out, "\t{}", addresses[owner])?;
        line.clear();
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_client::Node;
    use ketch_client::continuum::Placement;

    #[test]
    fn a_line_for_a_line() {
        let cluster = Cluster {
            nodes: vec![Node::new("::1", 11211).with_weight(7)],
            placement: Placement::default(),
            copies: 1,
        };
        let mut out = Vec::new();
        place(&cluster, &b"a\n\nb c\r\n\xff\x00\nlast"[..], &mut out).unwrap();
        let node = b"\t[::1]:11211\n";
        let expected = [
            &b"a"[..],
            node,
            b"",
            node,
            b"b c\r",
            node,
            b"\xff\x00",
            node,
            b"last",
            node,
        ]
        .concat();
        assert_eq!(out, expected);
    }
}
