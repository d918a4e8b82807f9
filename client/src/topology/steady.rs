//! A source whose nodes do not leave faster than a ring may lose them, as those of a registry do not.

use std::time::{Duration, Instant};

use ketch_membership::{Named, Steady};

use super::{Source, SourceError};
use crate::{ClientOptions, Node};

/// See the module.
pub(super) struct SteadySource<S> {
    source: S,
    steady: Steady<Listed>,
}

/// A node by its name, or its address.
#[derive(Clone)]
struct Listed {
    name: String,
    node: Node,
}

impl Named for Listed {
    fn name(&self) -> &str {
        &self.name
    }
}

impl<S: Source> SteadySource<S> {
    pub(super) fn new(source: S) -> Self {
        SteadySource {
            source,
            steady: Steady::default(),
        }
    }
}

impl<S: Source> Source for SteadySource<S> {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        let listed = |node: Node| {
            let name = match &node.name {
                Some(name) => name.clone(),
                None => format!("{}:{}", node.host, node.port),
            };
            Listed { name, node }
        };
        let list: Vec<Listed> = self.source.nodes()?.into_iter().map(listed).collect();
        if list.is_empty() {
            return Err(SourceError::Empty);
        }
        let before = self.steady.missing();
        let ring = self.steady.after(list, &[], Instant::now());
        let missing = self.steady.missing();
        if missing > before {
            log::warn!(
                "{missing} nodes more than may leave at once are not in the list; they stay for now"
            );
        }
        Ok(ring.into_iter().map(|listed| listed.node).collect())
    }

    fn interval(&self) -> Option<Duration> {
        self.source.interval()
    }

    fn wait(&mut self, at_most: Duration) -> Option<bool> {
        self.source.wait(at_most)
    }

    fn leave_share(&mut self, share: f64) {
        self.steady.leave_share(share);
    }

    fn adopt(&mut self, options: &ClientOptions) {
        self.source.adopt(options);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers these lists, one after the other.
    struct Lists(std::vec::IntoIter<&'static str>);

    impl Source for Lists {
        fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
            let list = self.0.next().expect("asked no more often than it is long");
            Ok(Node::list(list).expect("a list"))
        }

        fn interval(&self) -> Option<Duration> {
            None
        }
    }

    #[test]
    fn a_third_leaves_unless_more_may() {
        for (share, left) in [
            (None, "b f e d"),
            (Some(0.0), "b f e d c"),
            (Some(1.0), "b f"),
        ] {
            let lists = vec!["a,b,c,d,e,f", "b,f", ""];
            let mut source = SteadySource::new(Lists(lists.into_iter()));
            if let Some(share) = share {
                source.leave_share(share);
            }
            let names = |nodes: Vec<Node>| {
                let mut names: Vec<String> = nodes.into_iter().map(|node| node.host).collect();
                // Who is listed comes first, in the order of the list.
                names[2..].sort_by(|a, b| b.cmp(a));
                names.join(" ")
            };
            assert_eq!(names(source.nodes().expect("a list")), "a b f e d c");
            assert_eq!(names(source.nodes().expect("a list")), left, "{share:?}");
            assert!(matches!(source.nodes(), Err(SourceError::Empty)));
        }
    }
}
