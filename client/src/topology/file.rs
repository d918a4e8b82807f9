//! A file with one node a line.
//!
//! ```text
//!  # cache nodes of the west side
//!  10.0.0.1
//!  10.0.0.2:11212:2      # twice the memory
//!  cache-c@rack-3
//! ```
//!
//! It is read whole each time, which costs no more than a look at its date and misses nothing. Whoever changes it writes
//! another file and renames it: a file that is read while it is written may be a good list that lacks its last nodes.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use super::{Source, SourceError};
use crate::Node;

/// The largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file with one node a line: `host[:port[:weight]][@zone]`, comments behind `#`, empty lines left out.
#[derive(Debug, Clone)]
pub struct NodeFile {
    path: PathBuf,
}

impl NodeFile {
    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        NodeFile { path: path.into() }
    }
}

impl Source for NodeFile {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        let mut text = String::new();
        let file = File::open(&self.path)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(SourceError::TooLarge);
        }
        parse_nodes(&text)
    }

    fn interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

/// The nodes of a text in the format of [`NodeFile`].
pub fn parse_nodes(text: &str) -> Result<Vec<Node>, SourceError> {
    let lines = text.lines().enumerate().map(|(i, line)| {
        let node = line.split('#').next().unwrap_or("").trim();
        (i + 1, node)
    });
    lines
        .filter(|(_, node)| !node.is_empty())
        .map(|(at, node)| {
            node.parse()
                .map_err(|error| SourceError::Node { at, error })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeError;
    use crate::topology::Topology;
    use std::time::Instant;

    #[test]
    fn lines() {
        let text = "# west\n\n10.0.0.1\r\n  10.0.0.2:11212:2 # twice\n[::1]:1@z\n#10.0.0.3\n";
        let nodes: Vec<String> = parse_nodes(text)
            .unwrap()
            .iter()
            .map(Node::to_string)
            .collect();
        assert_eq!(nodes, ["10.0.0.1:11211", "10.0.0.2:11212:2", "[::1]:1@z"]);
        assert!(parse_nodes("# none\n").unwrap().is_empty());
        assert!(matches!(
            parse_nodes("a\n\nb:0\n"),
            Err(SourceError::Node {
                at: 3,
                error: NodeError::Port
            })
        ));
    }

    /// A real file through its changes.
    #[test]
    fn a_file_is_followed() {
        let dir = std::env::temp_dir().join(format!("ketch-client-nodes-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("nodes");
        let mut now = Instant::now();
        assert!(matches!(
            Topology::new(NodeFile::new(&path), now),
            Err(SourceError::Io(_))
        ));
        std::fs::write(&path, "a\nb\n").unwrap();
        let mut topology = Topology::new(NodeFile::new(&path), now).unwrap();
        let mut step = |change: &dyn Fn()| {
            change();
            now = topology.due_at().unwrap();
            let changed = topology.refresh(now).map_err(|error| error.to_string());
            (changed, topology.version(), topology.nodes().len())
        };
        assert_eq!(step(&|| ()), (Ok(false), 1, 2));
        // Same length, same second.
        assert_eq!(
            step(&|| std::fs::write(&path, "a\nc\n").unwrap()),
            (Ok(true), 2, 2)
        );
        let comment = || std::fs::write(&path, "# two\na\nc\n").unwrap();
        assert_eq!(step(&comment), (Ok(false), 2, 2));
        let broken = || std::fs::write(&path, "a\nc:x\n").unwrap();
        let told = "node 2: the port is a number from 1 to 65535".to_owned();
        assert_eq!(step(&broken), (Err(told), 2, 2));
        let gone = || std::fs::remove_file(&path).unwrap();
        assert!(matches!(step(&gone), (Err(_), 2, 2)));
        let large = || std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
        assert!(matches!(step(&large), (Err(_), 2, 2)));
        let renamed = || {
            std::fs::write(dir.join("new"), "a\nb\nc\n").unwrap();
            std::fs::rename(dir.join("new"), &path).unwrap();
        };
        assert_eq!(step(&renamed), (Ok(true), 3, 3));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
