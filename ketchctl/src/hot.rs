//! `ketchctl hot`: the keys that are asked for, written and carried most, now.

use getopts::Options;

use crate::failure::{self, Failure};
use crate::table::Table;
use crate::{access, cluster, words};

const USAGE: &str = "usage: ketchctl hot --servers LIST [options]\n\n\
    The hottest keys of each node in the last second or two, by reads, by writes and by bytes. Nodes must be ketch.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optopt("n", "number", "keys of each list (default 10)", "N");
    cluster::nodes_option(&mut options, "s", "servers", "the nodes");
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 0, "hot")?;
    let number = words::option(&matches, "number", 10, |text| text.parse().ok())?;
    let nodes = cluster::nodes(&matches, "servers")?;
    let client = access::from(&matches)?.client(&cluster::Cluster::of(nodes));
    let mut table = Table::new(["key", "share", "count", "by", "node"]);
    let mut failed = false;
    for (node, answer) in client.stats("hotkeys") {
        match answer {
            Ok(lines) => {
                for (key, value) in lines {
                    if let Some(hot) = Hot::of(&key, &value)
                        && hot.rank < number
                    {
                        let share = format!("{:.1} %", hot.share * 100.0);
                        let cells = [share, hot.count, hot.by, node.to_string()];
                        table.row(hot.key, cells);
                    }
                }
            }
            Err(error) => {
                failure::tell(&node, &error);
                failed = true;
            }
        }
    }
    words::print(table)?;
    if failed {
        return Err(Failure::Told);
    }
    Ok(())
}

/// A line of `stats hotkeys`.
#[derive(Debug, PartialEq)]
pub struct Hot {
    /// `reads`, `writes` or `bytes`.
    pub by: String,
    /// 0 is the hottest.
    pub rank: usize,
    /// Percent-encoded.
    pub key: String,
    /// Of all, from 0 to 1.
    pub share: f64,
    pub count: String,
}

impl Hot {
    pub fn of(key: &str, value: &str) -> Option<Self> {
        let (by, rank) = key.split_once(':')?;
        let word = |name: &str| {
            let mut words = value.split(' ');
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        Some(Hot {
            by: by.to_owned(),
            rank: rank.parse().ok()?,
            key: word("key")?.to_owned(),
            share: word("share")?.parse().ok()?,
            count: word("count")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let hot = Hot::of("reads:3", "key=user:1 share=0.250 count=77").expect("a line");
        assert_eq!(
            (&hot.by[..], hot.rank, &hot.key[..]),
            ("reads", 3, "user:1")
        );
        assert_eq!((hot.share, &hot.count[..]), (0.25, "77"));
        assert_eq!(Hot::of("reads:3", "share=0.250 count=77"), None);
        assert_eq!(Hot::of("reads", "key=a share=0.250 count=77"), None);
    }
}
