//! Policies as their papers have them, by bytes and with one order for all sizes: what ketch's are held against.
//!
//! ```text
//!  LRU      [0] newest .. oldest          SIEVE  [0] with a hand           SLRU  [0] probation  [1] protected, 80 %
//!  S3-FIFO  [0] small, 10 %   [1] main    ghost of 90 %                    W-TinyLFU  [0] window, 1 %  [1] probation  [2] protected
//! ```
//!
//! They have no headers, no slab classes and no locks, and all of their room holds keys and values.

use std::collections::{HashMap, VecDeque};

use super::target::Target;

/// The names, as `--policy` takes them.
pub const NAMES: [&str; 5] = ["LRU", "SLRU", "SIEVE", "S3-FIFO", "W-TinyLFU"];

const NONE: usize = usize::MAX;

struct Node {
    key: String,
    bytes: usize,
    list: usize,
    newer: usize,
    older: usize,
    uses: u8,
}

#[derive(Clone, Copy)]
struct List {
    newest: usize,
    oldest: usize,
    bytes: usize,
}

/// A cache without memory: it only knows what would be in it.
pub struct Reference {
    policy: &'static str,
    room: usize,
    nodes: Vec<Node>,
    unused: Vec<usize>,
    at: HashMap<String, usize>,
    lists: [List; 3],
    hand: usize,
    ghost: HashMap<String, usize>,
    /// Keys and bytes; of a key that was taken out of `ghost` since, the bytes count on.
    ghost_order: VecDeque<(String, usize)>,
    ghost_bytes: usize,
    counts: HashMap<String, u8>,
    counted: usize,
}

impl Reference {
    pub fn new(megabytes: usize, name: &str) -> Option<Reference> {
        let empty = List {
            newest: NONE,
            oldest: NONE,
            bytes: 0,
        };
        Some(Reference {
            policy: NAMES.into_iter().find(|&known| known == name)?,
            room: megabytes << 20,
            nodes: Vec::new(),
            unused: Vec::new(),
            at: HashMap::new(),
            lists: [empty; 3],
            hand: NONE,
            ghost: HashMap::new(),
            ghost_order: VecDeque::new(),
            ghost_bytes: 0,
            counts: HashMap::new(),
            counted: 0,
        })
    }

    fn bytes(&self) -> usize {
        self.lists.iter().map(|list| list.bytes).sum()
    }

    fn push(&mut self, node: usize, list: usize) {
        let newest = self.lists[list].newest;
        (self.nodes[node].list, self.nodes[node].newer) = (list, NONE);
        self.nodes[node].older = newest;
        match newest {
            NONE => self.lists[list].oldest = node,
            newest => self.nodes[newest].newer = node,
        }
        self.lists[list].newest = node;
        self.lists[list].bytes += self.nodes[node].bytes;
    }

    fn take(&mut self, node: usize) {
        let Node {
            list,
            newer,
            older,
            bytes,
            ..
        } = self.nodes[node];
        match newer {
            NONE => self.lists[list].newest = older,
            newer => self.nodes[newer].older = older,
        }
        match older {
            NONE => self.lists[list].oldest = newer,
            older => self.nodes[older].newer = newer,
        }
        self.lists[list].bytes -= bytes;
        if self.hand == node {
            self.hand = newer;
        }
    }

    fn shift(&mut self, node: usize, list: usize) {
        self.take(node);
        self.push(node, list);
    }

    fn remove(&mut self, node: usize) {
        self.take(node);
        self.at.remove(&self.nodes[node].key);
        self.unused.push(node);
    }

    fn is_over(&self, list: usize, part: f64) -> bool {
        self.lists[list].bytes as f64 > self.room as f64 * part
    }

    fn remember(&mut self, node: usize) {
        let (key, bytes) = (self.nodes[node].key.clone(), self.nodes[node].bytes);
        self.ghost.insert(key.clone(), bytes);
        self.ghost_order.push_back((key, bytes));
        self.ghost_bytes += bytes;
        while self.ghost_bytes * 10 > self.room * 9
            && let Some((key, bytes)) = self.ghost_order.pop_front()
        {
            self.ghost_bytes -= bytes;
            self.ghost.remove(&key);
        }
    }

    fn count(&mut self, key: &str) {
        let count = self.counts.entry(key.to_owned()).or_default();
        *count = (*count + 1).min(15);
        self.counted += 1;
        if self.counted >= 10 * self.at.len().max(100) {
            self.counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
            self.counted /= 2;
        }
    }

    fn counted(&self, node: usize) -> u8 {
        self.counts.get(&self.nodes[node].key).copied().unwrap_or(0)
    }

    /// Something is in the cache that must give way.
    fn make_room(&mut self) {
        let [first, second, third] = self.lists.map(|list| list.oldest);
        match self.policy {
            "LRU" => self.remove(first),
            "SLRU" => self.remove(if first == NONE { second } else { first }),
            "SIEVE" => loop {
                let at = if self.hand == NONE {
                    self.lists[0].oldest
                } else {
                    self.hand
                };
                self.hand = self.nodes[at].newer;
                if self.nodes[at].uses == 0 {
                    return self.remove(at);
                }
                self.nodes[at].uses = 0;
            },
            "S3-FIFO" => {
                let from_small = first != NONE && (self.is_over(0, 0.1) || second == NONE);
                let oldest = if from_small { first } else { second };
                let uses = self.nodes[oldest].uses;
                if from_small && uses >= 2 {
                    self.nodes[oldest].uses = 0;
                    self.shift(oldest, 1);
                } else if from_small {
                    self.remember(oldest);
                    self.remove(oldest);
                } else if uses > 0 {
                    self.nodes[oldest].uses -= 1;
                    self.shift(oldest, 1);
                } else {
                    self.remove(oldest);
                }
            }
            _ => {
                let incumbent = if second == NONE { third } else { second };
                if first == NONE || !self.is_over(0, 0.01) {
                    self.remove(if incumbent == NONE { first } else { incumbent });
                } else if incumbent == NONE || self.counted(first) <= self.counted(incumbent) {
                    self.remove(first);
                } else {
                    self.remove(incumbent);
                    self.shift(first, 1);
                }
            }
        }
    }

    /// Keeps the shares of segments while nobody has to go.
    fn settle(&mut self) {
        let protected = match self.policy {
            "SLRU" => 1,
            "W-TinyLFU" => 2,
            _ => return,
        };
        while self.is_over(protected, 0.8) {
            self.shift(self.lists[protected].oldest, protected - 1);
        }
        while protected == 2 && self.is_over(0, 0.01) && self.bytes() < self.room / 2 {
            self.shift(self.lists[0].oldest, 1);
        }
    }
}

impl Target for Reference {
    fn get(&mut self, key: &str) -> bool {
        if self.policy == "W-TinyLFU" {
            self.count(key);
        }
        let Some(&node) = self.at.get(key) else {
            return false;
        };
        match (self.policy, self.nodes[node].list) {
            ("LRU" | "W-TinyLFU", list @ (0 | 2)) => self.shift(node, list),
            ("SLRU", _) => self.shift(node, 1),
            ("W-TinyLFU", _) => self.shift(node, 2),
            _ => self.nodes[node].uses = (self.nodes[node].uses + 1).min(3),
        }
        self.settle();
        true
    }

    fn set(&mut self, key: &str, value_len: usize) {
        if let Some(&old) = self.at.get(key) {
            self.remove(old);
        }
        let bytes = key.len() + value_len;
        if bytes > self.room {
            return;
        }
        while self.bytes() + bytes > self.room {
            self.make_room();
        }
        let list = usize::from(self.ghost.remove(key).is_some());
        let node = Node {
            key: key.to_owned(),
            bytes,
            list,
            newer: NONE,
            older: NONE,
            uses: 0,
        };
        let number = match self.unused.pop() {
            Some(number) => {
                self.nodes[number] = node;
                number
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.at.insert(key.to_owned(), number);
        self.push(number, list);
        self.settle();
    }
}
