//! Loads that are drawn, for what no recorded trace here stands for: `family:NAME`.
//!
//! | name     | like | what it has |
//! | ---      | ---  | --- |
//! | files    | a network file system | strong recency: reuse by depth in an LRU stack; files read from end to end, some again and again |
//! | cdn      | a content network | Zipf with drift, and a third of requests for what is never asked for again |
//! | batch    | an object mapper at night | batches that walk over a table once or twice, between lookups by Zipf |
//! | search   | a blog search | Zipf whose ranks drift slowly |
//! | sessions | a shop's sessions | an id is asked for a few times within a while, then never again; some come back the next day |
//! | bursts   | news | Zipf, and each while some ids that are asked for often, for a short time |
//! | loops    | a report | rounds over more than fits, beside a Zipf |
//! | zipf     | | Zipf, and no change |
//!
//! The same name and the same seed draw the same requests.

use super::load::fraction;

/// The names.
pub const NAMES: [&str; 8] = [
    "files", "cdn", "batch", "search", "sessions", "bursts", "loops", "zipf",
];

const REQUESTS: usize = 200_000;

/// A stream of numbers that looks like chance.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 += 1;
        fraction(self.0)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.roll() * n as f64) as usize).min(n - 1)
    }

    /// A rank below `n`, in proportion to 1 / (rank + 1)^theta, theta not 1.
    fn zipf(&mut self, n: usize, theta: f64) -> usize {
        let power = 1.0 - theta;
        let whole = ((n + 1) as f64).powf(power) - 1.0;
        let at = (self.roll() * whole + 1.0).powf(1.0 / power) - 1.0;
        (at as usize).min(n - 1)
    }
}

/// The requests of a family; `NAME` or `NAME:SEED`.
pub fn draw(name: &str) -> Vec<u32> {
    let (name, seed) = name.split_once(':').unwrap_or((name, "1"));
    let seed: u64 = seed.parse().expect("family:NAME:SEED");
    let mut dice = Dice(seed << 32);
    let requests = match name {
        "files" => files(&mut dice),
        "cdn" => cdn(&mut dice),
        "batch" => batch(&mut dice),
        "search" => search(&mut dice),
        "sessions" => sessions(&mut dice),
        "bursts" => bursts(&mut dice),
        "loops" => loops(&mut dice),
        "zipf" => (0..REQUESTS)
            .map(|_| dice.zipf(20_000, 0.85) as u32)
            .collect(),
        _ => panic!("there is no family {name}: {NAMES:?}"),
    };
    number(requests)
}

/// Ids in the order of their first appearance.
fn number(mut requests: Vec<u32>) -> Vec<u32> {
    let mut names = std::collections::HashMap::new();
    for id in &mut requests {
        let next = names.len() as u32;
        *id = *names.entry(*id).or_insert(next);
    }
    requests
}

fn files(dice: &mut Dice) -> Vec<u32> {
    // Blocks lie in files of 1 to 100 blocks; the stack is one of files.
    let mut stack: Vec<(u32, u32)> = Vec::new();
    let (mut next, mut requests) = (0, Vec::new());
    while requests.len() < REQUESTS {
        let is_new = stack.len() < 10 || dice.roll() < 0.035;
        let (first, blocks) = if is_new {
            let blocks = 100f64.powf(dice.roll().powi(2)) as u32;
            next += blocks;
            (next - blocks, blocks)
        } else {
            let depth = dice.zipf(stack.len(), 1.15);
            let at = stack.len() - 1 - depth;
            stack.remove(at)
        };
        stack.push((first, blocks));
        let times = if dice.roll() < 0.03 {
            1 + dice.below(4)
        } else {
            1
        };
        for _ in 0..times {
            requests.extend(first..first + blocks);
        }
    }
    requests
}

fn cdn(dice: &mut Dice) -> Vec<u32> {
    const OBJECTS: usize = 16_000;
    let mut names: Vec<u32> = (0..OBJECTS as u32).collect();
    let mut next = OBJECTS as u32;
    let mut requests = Vec::new();
    for n in 0..REQUESTS {
        if n % 12 == 0 {
            // What is new takes some rank, and what was there is forgotten.
            let rank = dice.zipf(OBJECTS, 0.6);
            names[rank] = next;
            next += 1;
        }
        if dice.roll() < 0.15 {
            requests.push(next);
            next += 1;
        } else {
            requests.push(names[dice.zipf(OBJECTS, 0.9)]);
        }
    }
    requests
}

fn batch(dice: &mut Dice) -> Vec<u32> {
    const TABLE: usize = 12_000;
    let mut requests = Vec::new();
    while requests.len() < REQUESTS {
        let len = 500 + dice.below(6000);
        let first = TABLE + dice.below(20_000 - len);
        let times = 1 + dice.below(2);
        for _ in 0..times {
            for row in 0..len {
                requests.push((first + row) as u32);
                // What a row refers to, twice: once to look at it, once to use it.
                while dice.roll() < 0.6 {
                    let other = dice.zipf(TABLE, 0.95) as u32;
                    requests.push(other);
                    if dice.roll() < 0.5 {
                        requests.push(other);
                    }
                }
            }
        }
    }
    requests.truncate(REQUESTS);
    requests
}

fn search(dice: &mut Dice) -> Vec<u32> {
    const OBJECTS: usize = 20_000;
    let mut names: Vec<u32> = (0..OBJECTS as u32).collect();
    let mut requests = Vec::new();
    for n in 0..REQUESTS {
        if n % 10 == 0 {
            let (a, b) = (dice.below(OBJECTS), dice.below(OBJECTS));
            names.swap(a, b);
        }
        requests.push(names[dice.zipf(OBJECTS, 0.8)]);
    }
    requests
}

fn sessions(dice: &mut Dice) -> Vec<u32> {
    // Those who are there, and how often each will still ask.
    let mut live: Vec<(u32, usize)> = Vec::new();
    let mut gone: Vec<u32> = Vec::new();
    let (mut next, mut requests) = (0, Vec::new());
    while requests.len() < REQUESTS {
        if live.len() < 1500 {
            let id = if !gone.is_empty() && dice.roll() < 0.2 {
                gone.swap_remove(dice.below(gone.len()))
            } else {
                next += 1;
                next
            };
            live.push((id, 1 + (1.0 / (0.02 + dice.roll())) as usize * 2));
        }
        let at = dice.below(live.len());
        let (id, left) = live[at];
        requests.push(id);
        if left == 1 {
            live.swap_remove(at);
            gone.push(id);
        } else {
            live[at].1 = left - 1;
        }
    }
    requests
}

fn bursts(dice: &mut Dice) -> Vec<u32> {
    const OBJECTS: usize = 15_000;
    let mut news: Vec<u32> = Vec::new();
    let mut next = OBJECTS as u32;
    let mut requests = Vec::new();
    for n in 0..REQUESTS {
        if n % 20 == 0 {
            news.push(next);
            next += 1;
            if news.len() > 150 {
                news.remove(0);
            }
        }
        if dice.roll() < 0.35 {
            requests.push(news[dice.below(news.len())]);
        } else {
            requests.push(dice.zipf(OBJECTS, 0.85) as u32);
        }
    }
    requests
}

fn loops(dice: &mut Dice) -> Vec<u32> {
    const OBJECTS: usize = 8000;
    let mut requests = Vec::new();
    let mut at = 0;
    for n in 0..REQUESTS {
        let round = 2000 + n / (REQUESTS / 4) * 1500;
        if dice.roll() < 0.5 {
            requests.push((OBJECTS + at % round) as u32);
            at += 1;
        } else {
            requests.push(dice.zipf(OBJECTS, 0.9) as u32);
        }
    }
    requests
}
