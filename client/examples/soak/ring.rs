//! Workers that use the nodes as one cache, with two copies, while nodes restart and leave the list.

use std::time::Duration;

use ketch_client::Client;
use ketch_testing::Rng;

use crate::Run;
use crate::truth::{Truth, value};

const KEYS: usize = 100;
const TTL: Duration = Duration::from_secs(3600);

/// Sets, reads and deletes its own keys until the end.
pub fn work(run: &Run, client: &Client, number: usize) {
    let mut rng = Rng::new(1000 + number as u64);
    let mut keys: Vec<Truth> = (0..KEYS)
        .map(|key| Truth::new(format!("r{number}:{key}")))
        .collect();
    while !run.is_over() {
        let key = &mut keys[rng.below(KEYS as u64) as usize];
        run.count(1);
        match rng.below(8) {
            0 | 1 => {
                let version = key.next();
                key.asked(Some(version));
                match client.set(&key.name, value(&key.name, version), TTL) {
                    Ok(()) => key.is(Some(version)),
                    Err(error) => run.ring_error(&error),
                }
            }
            2 => {
                key.asked(None);
                match client.delete(&key.name) {
                    Ok(_) => key.is(None),
                    Err(error) => run.ring_error(&error),
                }
            }
            _ => match client.get(&key.name) {
                Ok(Some(item)) => {
                    if let Err(why) = key.allows(&item.value) {
                        run.ring_fault(why);
                    }
                }
                Ok(None) => {}
                Err(error) => run.ring_error(&error),
            },
        }
        run.pause();
    }
}
