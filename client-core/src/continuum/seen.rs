//! Which nodes a walk has passed: a bitmap, without allocation for up to 128 nodes.

/// A set of indices below the number it was made for.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The first 128.
    near: u128,
    /// The others, 64 a word.
    far: Vec<u64>,
}

impl Seen {
    /// No node seen yet, of `nodes`.
    pub fn new(nodes: usize) -> Self {
        Seen {
            near: 0,
            far: vec![0; nodes.saturating_sub(128).div_ceil(64)],
        }
    }

    /// True if `node` was not seen before.
    pub fn insert(&mut self, node: usize) -> bool {
        let before = self.contains(node);
        match node.checked_sub(128) {
            None => self.near |= 1 << node,
            Some(far) => self.far[far / 64] |= 1 << (far % 64),
        }
        !before
    }

    /// True if `node` was seen.
    pub fn contains(&self, node: usize) -> bool {
        match node.checked_sub(128) {
            None => self.near >> node & 1 == 1,
            Some(far) => self.far[far / 64] >> (far % 64) & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn each_once() {
        for nodes in [1, 127, 128, 129, 192, 193, 1000] {
            let mut seen = Seen::new(nodes);
            for node in 0..nodes {
                assert!(!seen.contains(node), "{node} of {nodes}");
                assert!(seen.insert(node));
                assert!(!seen.insert(node));
            }
        }
    }
}
