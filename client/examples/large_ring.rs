//! A ring of many nodes, computed: how long placement and a change of the list take, how even it is, what a change moves, and who
//! takes over from a node that fails. No node is spoken to.
//!
//! ```text
//! cargo run --release --example large_ring
//! ```

use std::time::Instant;

use ketch_client::Node;
use ketch_client::continuum::{Continuum, Distribution};

const KEYS: usize = 100_000;

fn nodes(count: usize) -> Vec<Node> {
    let node = |at: usize| {
        let host = format!("10.{}.{}.{}", at >> 16 & 255, at >> 8 & 255, at & 255);
        Node::new(host, 11211).with_name(format!("cache-{at}"))
    };
    (0..count).map(node).collect()
}

fn owners(ring: &Continuum, keys: &[&[u8]]) -> Vec<usize> {
    let mut owners = Vec::with_capacity(keys.len());
    ring.locate_each(keys, |owner| owners.push(owner));
    owners
}

/// How many keys each node has.
fn loads(owners: &[usize], nodes: usize) -> Vec<usize> {
    let mut loads = vec![0; nodes];
    owners.iter().for_each(|&owner| loads[owner] += 1);
    loads
}

fn percent(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of as f64
}

fn main() {
    let keys: Vec<String> = (0..KEYS).map(|at| format!("user:{at}:profile")).collect();
    let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();

    let list = nodes(2000);
    let (mut best_list, mut best_keys) = (f64::MAX, f64::MAX);
    for _ in 0..5 {
        let begun = Instant::now();
        let ring = Continuum::new(Distribution::KetamaWeighted, &list);
        best_list = best_list.min(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let _ = owners(&ring, &keys);
        best_keys = best_keys.min(begun.elapsed().as_secs_f64());
    }
    println!(
        "2,000 nodes: the ring of a list in {:.1} ms, {KEYS} keys placed in {:.1} ms",
        best_list * 1e3,
        best_keys * 1e3
    );

    let list = nodes(1001);
    let all = Continuum::new(Distribution::KetamaWeighted, &list);
    let before = Continuum::new(Distribution::KetamaWeighted, &list[..1000]);
    let (new, old) = (owners(&all, &keys), owners(&before, &keys));
    let moved = || new.iter().zip(&old).filter(|(new, old)| new != old);
    let astray = moved().filter(|(new, _)| **new != 1000).count();
    println!(
        "1,000 nodes and one more: {} of {KEYS} keys move ({:.2} %; a fair share is {:.2} %), {astray} of them not to the new node",
        moved().count(),
        percent(moved().count(), KEYS),
        100.0 / 1001.0
    );

    let loads = loads(&old, 1000);
    let mean = KEYS / 1000;
    let most = loads.iter().max().copied().unwrap_or_default();
    let least = loads.iter().min().copied().unwrap_or_default();
    println!(
        "balance of 1,000 nodes: the fullest has {:.2} of the mean, the emptiest {:.2}",
        most as f64 / mean as f64,
        least as f64 / mean as f64
    );

    // Each of 100 nodes fails in turn: its keys go to the next nodes of their walks.
    let (mut heirs, mut worst) = (0, 0);
    for failed in 0..100 {
        let mut taken = vec![0_usize; 1000];
        let mut of_failed = 0;
        for (key, _) in keys.iter().zip(&old).filter(|(_, owner)| **owner == failed) {
            of_failed += 1;
            if let Some(heir) = before.walk(key).nth(1) {
                taken[heir] += 1;
            }
        }
        heirs += taken.iter().filter(|taken| **taken > 0).count();
        let most = taken.iter().max().copied().unwrap_or_default();
        worst = worst.max(most * 100 / of_failed.max(1));
    }
    println!(
        "a node fails: {} others share its keys on the mean; no one takes more than {worst} % of them",
        heirs / 100
    );
}
