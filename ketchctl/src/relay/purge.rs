//! What is done where something was missed: the keys concerned are deleted in the target.
//!
//! ```text
//!  wanted 4, begun 3, done 3  --a node can be reached-->  begun 4  --its keys are listed and deleted, on all nodes-->  done 4
//! ```
//!
//! Pu1. Whatever an item of the target was made of before a purge began is gone when it is done. So what is missed before the begin of
//!      a purge needs no other one.
//! Pu2. What is on its way to the target may be older than what was missed: a purge begins when it has arrived.
//! Pu3. A node that fails is tried again until it works: a purge is never given up.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::Node;

use super::{OnGap, Relay};
use crate::copy::source::{Line, Source};

/// Keys that are deleted with one request.
const BATCH: usize = 500;
/// Before a node that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait for a node whose crawler is busy, and how often to ask.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// How many purges were wanted, begun, and done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Purge {
    pub wanted: u64,
    pub begun: u64,
    pub done: u64,
    /// A flush is to be carried over, which must be done key by key.
    pub by_key: bool,
}

impl Purge {
    /// Something was missed up to now.
    pub fn want(&mut self, by_key: bool) {
        self.by_key |= by_key;
        if self.begun == self.wanted {
            self.wanted += 1;
        }
    }

    /// True if something is still to be deleted.
    pub fn is_owed(self) -> bool {
        self.done < self.wanted
    }

    /// True if what happens now is covered by a purge that is yet to begin.
    pub fn covers_now(self) -> bool {
        self.begun < self.wanted
    }
}

/// Carries out purges until the relay ends.
pub fn run(relay: &Relay) {
    // Nodes that are done, of which purge.
    let (mut of, mut clean) = (0, HashSet::new());
    while !relay.is_over() {
        let purge = relay.lock().purge;
        if !purge.is_owed() {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        if of != purge.wanted {
            (of, clean) = (purge.wanted, HashSet::new());
        }
        let Some(to) = &relay.to else { return };
        let done = match relay.settings.on_gap {
            OnGap::Flush if !purge.by_key => flush(relay, of),
            _ => {
                let nodes = relay.lock().routes.nodes.clone();
                let left: Vec<&Node> = nodes
                    .iter()
                    .filter(|node| !clean.contains(&node.address()))
                    .collect();
                let cleaned: Vec<Option<String>> = thread::scope(|scope| {
                    let threads: Vec<_> = left
                        .into_iter()
                        .map(|node| {
                            scope.spawn(move || match delete_all(relay, to, node, of) {
                                Ok(()) => Some(node.address()),
                                Err(why) => {
                                    let address = node.address();
                                    relay.tell(&address, &format!("cannot be purged: {why}"));
                                    None
                                }
                            })
                        })
                        .collect();
                    let join =
                        |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
                    threads.into_iter().map(join).collect()
                });
                clean.extend(cleaned.into_iter().flatten());
                let now = relay.lock().routes.nodes.clone();
                now.iter().all(|node| clean.contains(&node.address()))
            }
        };
        if done {
            let mut state = relay.lock();
            if state.purge.wanted == of {
                state.purge.done = of;
                state.purge.by_key = false;
            }
            drop(state);
            relay.counts.purges.fetch_add(1, Relaxed);
            relay.say("what was missed is deleted there");
        } else {
            relay.rest(PAUSE);
        }
    }
}

/// The purge of this number takes place from now on (Pu2).
fn begin(relay: &Relay, number: u64) {
    let mut state = relay.lock();
    while state.purge.begun < number {
        state.held = true;
        if state.queue.flights() == 0 || relay.is_over() {
            state.purge.begun = number;
            state.held = false;
            relay.work.notify_all();
        } else {
            drop(state);
            thread::sleep(Duration::from_millis(2));
            state = relay.lock();
        }
    }
}

fn flush(relay: &Relay, number: u64) -> bool {
    let Some(to) = &relay.to else { return true };
    begin(relay, number);
    let mut done = true;
    for (node, flushed) in to.client.flush_all() {
        if let Err(error) = flushed {
            relay.tell(&node, &error.to_string());
            done = false;
        }
    }
    done
}

/// Deletes all keys with the prefix that a node has.
fn delete_all(relay: &Relay, to: &super::To, node: &Node, number: u64) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let mut source = Source::connect(node, &to.access, true).map_err(told)?;
    begin(relay, number);
    // Where a key is, it is deleted, whoever is its owner: so each node by a client of its own.
    let client = to.client_of(node, relay.settings.origin);
    let patient_until = Instant::now() + BUSY_PATIENCE;
    let mut keys = Vec::new();
    let mut count = 0u64;
    let delete = |keys: &mut Vec<Vec<u8>>| -> Result<u64, String> {
        for result in client.delete_multi(keys) {
            // A key that cannot be sent is no key that the relay carries over.
            match result {
                Err(error) if error.is_unavailable() => return Err(error.to_string()),
                Err(error) => relay.tell(&node.address(), &error.to_string()),
                Ok(_) => {}
            }
        }
        let count = keys.len() as u64;
        keys.clear();
        Ok(count)
    };
    source.list().map_err(told)?;
    loop {
        if relay.is_over() {
            return Err("the relay ends".to_owned());
        }
        match source.next().map_err(told)? {
            Line::Key(listed) if listed.key.starts_with(&relay.settings.prefix) => {
                keys.push(listed.key);
                if keys.len() >= BATCH {
                    count += delete(&mut keys)?;
                }
            }
            Line::Key(_) => {}
            Line::Busy if Instant::now() < patient_until => {
                thread::sleep(BUSY_PAUSE);
                source.list().map_err(told)?;
            }
            Line::Busy => return Err("its crawler is busy".to_owned()),
            Line::End => break,
        }
    }
    count += delete(&mut keys)?;
    relay.counts.purged.fetch_add(count, Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_purge_covers_what_is_missed_before_it_begins() {
        let mut purge = Purge::default();
        assert!(!purge.is_owed() && !purge.covers_now());
        purge.want(false);
        purge.want(false);
        assert_eq!(purge.wanted, 1);
        assert!(purge.is_owed() && purge.covers_now());
        purge.begun = 1;
        assert!(purge.is_owed() && !purge.covers_now());
        // Missed after it began: another one.
        purge.want(true);
        assert_eq!((purge.wanted, purge.by_key), (2, true));
    }
}
