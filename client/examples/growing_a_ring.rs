//! What the addition of a node costs in misses: a cache-aside load of Zipf keys on 4 nodes, then on 5, with and without the
//! dual read. `cargo run --release --example growing_a_ring`

mod servers;

use std::time::Duration;

use ketch_client::{Client, ClientOptions, Node};
use servers::Server;

const KEYS: usize = 20_000;
/// Requests in one line of the table.
pub const SLICE: usize = 10_000;
/// Lines on 4 nodes.
pub const SLICES_BEFORE: usize = 2;
/// Lines on 5 nodes.
pub const SLICES_AFTER: usize = 6;
const TTL: Duration = Duration::from_secs(600);

/// Keys by rank, the first the most popular: rank r is asked for in proportion to 1 / r.
struct Zipf {
    sums: Vec<f64>,
    seed: u64,
}

impl Zipf {
    fn new(count: usize) -> Self {
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += 1.0 / rank as f64;
            sum
        };
        Zipf {
            sums: (1..=count).map(add).collect(),
            seed: 1,
        }
    }

    fn next(&mut self) -> usize {
        // Any simple generator does (xorshift64).
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let part = (self.seed >> 11) as f64 / (1_u64 << 53) as f64;
        let at = part * self.sums[self.sums.len() - 1];
        self.sums.partition_point(|sum| *sum < at)
    }
}

/// The percentage of hits, slice by slice, while the last of `nodes` joins after [`SLICES_BEFORE`] slices.
pub fn hit_ratios(nodes: &[Node], dual_read: Duration, options: ClientOptions) -> Vec<f64> {
    let (joining, first) = nodes.split_last().expect("some nodes");
    let client = Client::new(first.to_vec(), options);
    let keys: Vec<String> = (0..KEYS).map(|rank| format!("user:{rank}")).collect();
    for result in client.set_multi(keys.iter().map(|key| (key, &[b'x'; 100])), TTL) {
        result.expect("the nodes are up");
    }
    let mut zipf = Zipf::new(KEYS);
    let mut slice = || {
        let mut hits = 0;
        for _ in 0..SLICE {
            let key = &keys[zipf.next()];
            if client.get(key).expect("the nodes are up").is_some() {
                hits += 1;
            } else {
                // Here the value would be read from the database.
                let stored = client.set(key, &[b'x'; 100], TTL);
                stored.expect("the nodes are up");
            }
        }
        100.0 * hits as f64 / SLICE as f64
    };
    let mut ratios: Vec<f64> = (0..SLICES_BEFORE).map(|_| slice()).collect();
    let grown: Vec<Node> = first.iter().chain([joining]).cloned().collect();
    client.set_nodes(grown, dual_read);
    ratios.extend((0..SLICES_AFTER).map(|_| slice()));
    ratios
}

/// The table: requests so far, hits without, hits with the dual read.
fn main() {
    let measure = |dual_read| {
        let servers: Vec<Server> = (0..5).map(|_| Server::start()).collect();
        let nodes: Vec<Node> = servers.iter().map(|server| server.node.clone()).collect();
        hit_ratios(&nodes, dual_read, ClientOptions::default())
    };
    let without = measure(Duration::ZERO);
    let with = measure(Duration::from_secs(300));
    println!("requests | nodes | hits without dual read | hits with dual read");
    for (at, (without, with)) in without.iter().zip(&with).enumerate() {
        let (requests, nodes) = ((at + 1) * SLICE, 4 + usize::from(at >= SLICES_BEFORE));
        println!("{requests:8} | {nodes:5} | {without:20.2} % | {with:17.2} %");
    }
}
