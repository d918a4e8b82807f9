//! What clients are promised (docs/client.md), held against the simulated cluster.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::node::{Mode, SimulatedNode};
use super::{EPOCH_S, Simulation};
use crate::calls;
use crate::error::{Error, Failure};
use crate::node::Node;
use crate::operation::Entry;
use crate::options::{Ack, ClientOptions, OnEjection, Reads};
use crate::request::StoreMode;
use crate::value::{Cas, Payload};

/// What a key may hold: one value that is known, or several after a write whose result is not.
#[derive(Default, Clone)]
struct Known(HashSet<Option<String>>);

impl Known {
    fn is(&mut self, value: Option<String>) {
        self.0 = HashSet::from([value]);
    }

    fn may_be(&mut self, value: Option<String>) {
        self.0.insert(value);
    }
}

/// One client, one bad node at a time: nothing that was acknowledged is lost, and nothing old comes back.
#[test]
fn an_acknowledged_write_outlives_any_one_node() {
    for seed in 1..400 {
        let reads = [
            Reads::First,
            Reads::Spread,
            Reads::Hedged(Duration::from_millis(2)),
        ][seed as usize % 3];
        let options = ClientOptions::default()
            .copies(2)
            .reads(reads)
            .settle(Duration::from_secs(10));
        let mut cluster = Simulation::new(seed, 5, options);
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        for round in 0..6 {
            let bad = cluster.chance(5) as usize;
            let mode = [Mode::Crashed, Mode::CutOff, Mode::Hung][cluster.chance(3) as usize];
            let from = cluster.now_us + cluster.chance(30_000);
            let until = from + 500_000 + cluster.chance(3_000_000);
            cluster.changes = vec![(from, bad, mode), (until, bad, Mode::Up)];
            for step in 0..60 {
                let key = format!("k{}", cluster.chance(8));
                let known = known
                    .entry(key.clone())
                    .or_insert_with(|| Known(HashSet::from([None])));
                match cluster.chance(4) {
                    0 => {
                        let value = format!("{key}:{round}:{step}");
                        match cluster.set(&key, &value) {
                            Ok(()) => known.is(Some(value)),
                            Err(_) => known.may_be(Some(value)),
                        }
                    }
                    1 => match cluster.run(|context| calls::delete(context, key.as_bytes())) {
                        Ok(_) => known.is(None),
                        Err(_) => known.may_be(None),
                    },
                    _ => {
                        if let Ok(found) = cluster.get(&key) {
                            assert!(
                                known.0.contains(&found),
                                "seed {seed} round {round} step {step} {mode:?}: {key} is {found:?}, may be {:?}",
                                known.0
                            );
                        }
                    }
                }
                let pause = cluster.chance(100_000);
                cluster.pass(cluster.now_us + pause);
            }
            // Once all are back, every key is read while the node settles, and after: copies are whole again.
            cluster.rest(until.saturating_sub(cluster.now_us) / 1000);
            while !cluster.ring.members.iter().all(|member| member.is_in()) {
                cluster.rest(10);
            }
            for reading in 0..10 {
                for (key, known) in &mut known {
                    let found = cluster.get(key).expect("all nodes are up");
                    assert!(
                        known.0.contains(&found),
                        "seed {seed} round {round}/{reading} {mode:?}: {key} is {found:?}, may be {:?}",
                        known.0
                    );
                }
                cluster.rest(300);
            }
            // A restart so short that the node was not ejected is not noticed by reads of the first copy: what the other has
            // lost comes with the next write.
            for (key, known) in &mut known {
                if cluster.holders(key).len() == 1
                    && let Some(value) = cluster.get(key).expect("all nodes are up")
                {
                    cluster.set(key, &value).expect("all nodes are up");
                    known.is(Some(value));
                }
            }
            cluster.rest(10_000);
        }
    }
}

/// A batch whose values take their time on the line is done when its repairs are, which take as much: else what a node is given that has
/// come back would end after a moment, and be missing there when the other copy is lost.
#[test]
fn a_batch_is_done_when_what_it_gave_back_stays() {
    let options = ClientOptions::default()
        .copies(2)
        .settle(Duration::from_secs(10));
    let mut cluster = Simulation::new(3, 5, options);
    let keys: Vec<String> = (0..300).map(|i| format!("key{i}")).collect();
    let value = "v".repeat(1000);
    for key in &keys {
        cluster.set(key, &value).expect("up");
    }
    cluster.nodes[0].set_mode(Mode::Crashed, EPOCH_S);
    while cluster.ring.members[0].is_in() {
        keys.iter().for_each(|key| drop(cluster.get(key)));
    }
    cluster.nodes[0].set_mode(Mode::Up, EPOCH_S);
    while !cluster.ring.members[0].is_in() {
        cluster.rest(10);
    }
    // Sixty milliseconds for what one node has of them.
    cluster.ns_per_byte = 1000;
    let asked: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let found = cluster.run(|context| calls::get_multi(context, asked.clone()));
    assert!(found.iter().all(|one| matches!(one, Ok(Some(_)))));
    cluster.ns_per_byte = 0;
    cluster.rest(3_000);
    let owned = |key: &&String| cluster.homes(key).contains(&0);
    let given: Vec<&String> = keys.iter().filter(owned).collect();
    assert!(given.len() > 80, "{}", given.len());
    for key in given {
        let now_s = cluster.now_s();
        let held = cluster.nodes[0].live(key.as_bytes(), now_s);
        assert!(held.is_some(), "{key}");
    }
}

/// The error rate returns to 0 as soon as the node is ejected, and reads stay errorless all along.
#[test]
fn a_killed_node_is_hardly_noticed() {
    for mode in [Mode::Crashed, Mode::CutOff, Mode::Hung] {
        let mut cluster = Simulation::new(7, 5, ClientOptions::default().copies(2));
        let keys: Vec<String> = (0..200).map(|i| format!("key{i}")).collect();
        for key in &keys {
            cluster.set(key, key).expect("all are up");
            assert_eq!(cluster.holders(key).len(), 2);
        }
        cluster.nodes[0].set_mode(mode, EPOCH_S);
        let killed = cluster.now_us;
        let mut errors = 0;
        for key in keys.iter().cycle().take(2000) {
            assert_eq!(cluster.get(key), Ok(Some(key.clone())), "{mode:?}");
            if let Err(error) = cluster.set(key, key) {
                assert!(cluster.now_us - killed < 2_000_000, "{mode:?}: {error}");
                errors += 1;
            }
        }
        assert!(errors <= 1, "{mode:?}: {errors}");
        cluster.nodes[0].set_mode(Mode::Up, EPOCH_S);
        while !cluster.ring.members[0].is_in() {
            cluster.rest(10);
        }
        for key in &keys {
            assert_eq!(cluster.get(key), Ok(Some(key.clone())));
            assert!(
                cluster
                    .homes(key)
                    .iter()
                    .all(|home| cluster.holders(key).contains(home)),
                "{key} is repaired"
            );
        }
    }
}

/// A failed attempt is repeated after a short pause, not at the deadline.
#[test]
fn a_single_copy_is_asked_again_after_a_pause() {
    let mut cluster = Simulation::new(1, 1, ClientOptions::default());
    cluster.set("k", "v").expect("up");
    cluster.nodes[0].set_mode(Mode::CutOff, EPOCH_S);
    let back = cluster.now_us + 5_000;
    cluster.changes = vec![(back, 0, Mode::Up)];
    let begun = cluster.now_us;
    assert_eq!(cluster.get("k"), Ok(Some("v".to_owned())));
    assert!(cluster.now_us - begun < 50_000);
    cluster.nodes[0].set_mode(Mode::CutOff, EPOCH_S);
    let begun = cluster.now_us;
    assert!(cluster.get("k").is_err());
    assert!(cluster.now_us - begun < 100_000);
}

#[test]
fn batches_find_their_way_around_failures() {
    for seed in 1..100 {
        let reads = [
            Reads::First,
            Reads::Spread,
            Reads::Hedged(Duration::from_millis(1)),
        ][seed as usize % 3];
        let mut cluster = Simulation::new(seed, 5, ClientOptions::default().copies(3).reads(reads));
        cluster.spoilt = 30;
        let keys: Vec<String> = (0..100).map(|i| format!("key{i}")).collect();
        for round in 0..10 {
            let value = format!("{round}");
            let values: Vec<String> = keys.iter().map(|key| format!("{key}={value}")).collect();
            let entries = keys.iter().zip(&values).map(|(key, value)| Entry {
                key: key.as_bytes(),
                value: Payload::from(value),
            });
            let entries: Vec<_> = entries.collect();
            let stored = cluster.run(|context| calls::set_multi(context, entries, None));
            let asked: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            let found = cluster.run(|context| calls::get_multi(context, asked));
            assert_eq!((stored.len(), found.len()), (100, 100));
            for ((value, stored), found) in values.iter().zip(stored).zip(found) {
                if let (Ok(()), Ok(found)) = (stored, found) {
                    let found = found
                        .unwrap_or_else(|| panic!("seed {seed} round {round}: {value} is lost"));
                    assert_eq!(found.value, value.as_bytes(), "seed {seed} round {round}");
                }
            }
        }
    }
}

/// A copy that nobody waited for, and that was not written, does not keep what it held before: once all nodes are back it
/// has the last value or none, whatever was done to the key. And what was deleted in the end is nowhere, even if what nobody
/// waited for comes behind what was done after it.
#[test]
fn what_nobody_waited_for_leaves_nothing_old() {
    let mut whole = 0;
    for seed in 1..600 {
        let deletes = seed % 4 < 2;
        let ack = [Ack::One, Ack::Quorum][seed as usize % 2];
        let options = ClientOptions::default()
            .copies(3)
            .ack(ack)
            .settle(Duration::from_secs(10));
        let mut cluster = Simulation::new(seed, 5, options);
        cluster.unordered = deletes;
        let keys = ["a", "b", "c", "d"];
        for round in 0..6 {
            cluster.spoilt = 100;
            let bad = cluster.chance(5) as usize;
            let mode = [Mode::CutOff, Mode::Hung][cluster.chance(2) as usize];
            let from = cluster.now_us + cluster.chance(30_000);
            let until = from + 100_000 + cluster.chance(1_000_000);
            cluster.changes = vec![(from, bad, mode), (until, bad, Mode::Up)];
            let key = keys[cluster.chance(4) as usize];
            for _ in 0..30 {
                match cluster.chance(4) {
                    0 => drop(cluster.run(|context| calls::delete(context, key.as_bytes()))),
                    1 => drop(cluster.run(|context| {
                        calls::count(context, key.as_bytes(), false, 1, Some((5000, None)))
                    })),
                    _ => drop(cluster.set(key, &round.to_string())),
                }
                // Half of them follow at once.
                let pause = cluster.chance(100_000) * cluster.chance(2);
                cluster.pass(cluster.now_us + pause);
            }
            cluster.spoilt = 300;
            let last = format!("{round}00000");
            if deletes {
                let key = key.as_bytes();
                while cluster.run(|context| calls::delete(context, key)).is_err() {
                    cluster.rest(10);
                }
            } else {
                while cluster.set(key, &last).is_err() {
                    cluster.rest(10);
                }
            }
            cluster.spoilt = 0;
            cluster.rest(until.saturating_sub(cluster.now_us) / 1000 + 1_000);
            while !cluster.ring.members.iter().all(|member| member.is_in()) {
                cluster.rest(10);
            }
            cluster.rest(1_000);
            for home in 0..5 {
                if let Some(item) = cluster.nodes[home].items.get(key.as_bytes()) {
                    assert!(!deletes, "seed {seed} round {round}: {key} on {home}");
                    assert_eq!(
                        String::from_utf8_lossy(&item.value),
                        last,
                        "seed {seed} round {round}: {key} on {home}"
                    );
                }
            }
            whole += usize::from(cluster.get(key) == Ok(Some(last)));
            cluster.rest(10_000);
        }
    }
    assert!(whole > 1200, "{whole} of 1800 were found at all");
}

/// Whatever fails, and whoever notices it first: no operation waits for what cannot come. Where nodes refuse at once instead
/// of saying nothing, all ends long before the deadline.
#[test]
fn nothing_waits_without_a_cause() {
    for seed in 1..1500 {
        let mut cluster = Simulation::new(seed, 4, ClientOptions::default());
        let reads = [
            Reads::First,
            Reads::Spread,
            Reads::Hedged(Duration::from_millis(cluster.chance(20))),
        ][cluster.chance(3) as usize];
        let on_ejection = [OnEjection::Rehash, OnEjection::FailFast][cluster.chance(2) as usize];
        let options = ClientOptions::default()
            .copies(1 + cluster.chance(3) as usize)
            .ack([Ack::One, Ack::Quorum, Ack::All][cluster.chance(3) as usize])
            .reads(reads)
            .read_repair(cluster.chance(4) != 0)
            .on_ejection(on_ejection)
            .retries(cluster.chance(4) as u32)
            .eject_after(1 + cluster.chance(4) as u32)
            .settle(Duration::from_millis(500));
        let quick = cluster.chance(2) == 0;
        let mut cluster = Simulation::new(seed, 4, options);
        (cluster.crowded, cluster.spoilt) = (seed % 2 == 0, 20);
        if cluster.chance(3) == 0 {
            cluster.grow("new", 2_000);
        }
        for step in 0..40 {
            let modes = [Mode::Up, Mode::Up, Mode::Crashed, Mode::CutOff, Mode::Hung];
            let mode = modes[cluster.chance(modes.len() as u64 - u64::from(quick)) as usize];
            let (at, node) = (cluster.chance(20_000), cluster.chance(4) as usize);
            cluster.changes.push((cluster.now_us + at, node, mode));
            let key = format!("k{}", cluster.chance(4));
            let key = key.as_bytes();
            match cluster.chance(8) {
                0 => drop(cluster.run(|context| calls::set(context, key, "1".into(), None))),
                1 => drop(cluster.run(|context| calls::delete(context, key))),
                2 => drop(cluster.run(|context| calls::touch(context, key, None))),
                3 => {
                    drop(cluster.run(|context| {
                        calls::store(context, key, "1".into(), StoreMode::Add, None)
                    }))
                }
                4 => drop(
                    cluster.run(|context| calls::count(context, key, false, 1, Some((1, None)))),
                ),
                5 => drop(
                    cluster
                        .run(|context| calls::get_multi(context, vec![b"k0", b"k1", b"k2", b"k3"])),
                ),
                _ => drop(cluster.run(|context| calls::get(context, key))),
            }
            assert!(
                !quick || cluster.took < Duration::from_millis(400),
                "seed {seed} step {step}: {:?}",
                cluster.took
            );
            let pause = cluster.chance(30_000);
            cluster.pass(cluster.now_us + pause);
        }
    }
}

/// At the deadline, what is known is told: a miss where a copy has missed, else the node that failed.
#[test]
fn the_deadline_brings_what_is_known() {
    let options = ClientOptions::default().attempt_timeout(Duration::from_secs(2));
    let mut cluster = Simulation::new(1, 1, options.clone());
    cluster.nodes[0].set_mode(Mode::Hung, EPOCH_S);
    let failure = Failure::Timeout;
    assert!(matches!(cluster.get("k"), Err(Error::Node { failure: f, .. }) if f == failure));
    assert!(matches!(cluster.set("k", "v"), Err(Error::Node { failure: f, .. }) if f == failure));
    let mut cluster = Simulation::new(1, 4, options.copies(2));
    let second = cluster.homes("none")[1];
    cluster.nodes[second].set_mode(Mode::Hung, EPOCH_S);
    assert_eq!(cluster.get("none"), Ok(None));
}

/// The node that failed is ejected, and all others miss: that is the answer, and it comes at once.
#[test]
fn a_miss_beside_a_node_that_was_ejected_meanwhile_does_not_wait_for_it() {
    for read_repair in [true, false] {
        let options = ClientOptions::default()
            .copies(2)
            .eject_after(1)
            .read_repair(read_repair);
        let mut cluster = Simulation::new(1, 4, options);
        let first = cluster.homes("none")[0];
        cluster.nodes[first].set_mode(Mode::CutOff, EPOCH_S);
        assert_eq!(cluster.get("none"), Ok(None));
        assert!(
            cluster.took < Duration::from_millis(20),
            "{:?}",
            cluster.took
        );
    }
    let options = ClientOptions::default()
        .eject_after(1)
        .on_ejection(OnEjection::FailFast);
    let mut cluster = Simulation::new(1, 2, options);
    let first = cluster.homes("none")[0];
    cluster.nodes[first].set_mode(Mode::CutOff, EPOCH_S);
    assert!(matches!(cluster.get("none"), Err(Error::Node { .. })));
    assert!(
        cluster.took < Duration::from_millis(20),
        "{:?}",
        cluster.took
    );
}

#[test]
fn a_hedged_read_waits_no_longer_than_the_delay_for_a_hung_node() {
    let options = ClientOptions::default()
        .copies(2)
        .reads(Reads::Hedged(Duration::from_millis(5)))
        .eject_after(1000);
    let mut cluster = Simulation::new(3, 3, options);
    cluster.set("k", "v").expect("up");
    let first = cluster.homes("k")[0];
    cluster.nodes[first].set_mode(Mode::Hung, EPOCH_S);
    for _ in 0..20 {
        let begun = cluster.now_us;
        assert_eq!(cluster.get("k"), Ok(Some("v".to_owned())));
        assert!(
            // And for what witnesses say of nodes.
            cluster.now_us - begun < 16_000,
            "{} us",
            cluster.now_us - begun
        );
    }
}

#[test]
fn a_missing_copy_is_repaired_with_the_time_that_is_left() {
    let mut cluster = Simulation::new(3, 4, ClientOptions::default().copies(2));
    for (ttl, left) in [(None, 0), (Some(100), 60), (Some(3_000_000), 2_999_960)] {
        let ttl = ttl.map(Duration::from_secs);
        let set_s = cluster.now_s();
        cluster
            .run(|context| {
                calls::set(
                    context,
                    b"k",
                    Payload {
                        bytes: b"v",
                        flags: 9,
                    },
                    ttl,
                )
            })
            .expect("up");
        cluster.rest(40_000);
        let homes = cluster.homes("k");
        cluster.nodes[homes[0]].items.clear();
        assert_eq!(cluster.get("k"), Ok(Some("v".to_owned())));
        let item = &cluster.nodes[homes[0]].items[&b"k"[..]];
        let expires_at = if left == 0 { 0 } else { set_s + 40 + left };
        assert_eq!((item.flags, item.expires_at), (9, expires_at));
    }
    let mut cluster = Simulation::new(3, 4, ClientOptions::default().copies(2).read_repair(false));
    cluster.set("k", "v").expect("up");
    let first = cluster.homes("k")[0];
    cluster.nodes[first].items.clear();
    assert_eq!(
        cluster.get("k"),
        Ok(None),
        "without repair a miss is a miss"
    );
}

#[test]
fn acknowledgements_say_when_a_write_is_done() {
    for (ack, worst) in [
        (Ack::One, 5_000),
        (Ack::Quorum, 5_000),
        (Ack::All, 1_000_000),
    ] {
        let options = ClientOptions::default()
            .copies(3)
            .ack(ack)
            .eject_after(1000);
        let mut cluster = Simulation::new(1, 5, options);
        let last = cluster.homes("k")[2];
        cluster.nodes[last].set_mode(Mode::Hung, EPOCH_S);
        let begun = cluster.now_us;
        let result = cluster.set("k", "v");
        assert_eq!(result.is_ok(), ack != Ack::All, "{ack:?}: {result:?}");
        assert!(cluster.now_us - begun <= worst, "{ack:?}");
        assert!(cluster.holders("k").len() >= 2);
    }
}

#[test]
fn the_keys_of_an_ejected_node_fail_at_once_if_they_are_to() {
    let options = ClientOptions::default().on_ejection(OnEjection::FailFast);
    let mut cluster = Simulation::new(1, 3, options);
    let home = cluster.homes("k")[0];
    cluster.nodes[home].set_mode(Mode::CutOff, EPOCH_S);
    assert!(cluster.set("k", "v").is_err());
    let begun = cluster.now_us;
    assert_eq!(cluster.set("k", "v"), Err(Error::NoNode));
    assert_eq!(cluster.get("k"), Err(Error::NoNode));
    assert_eq!(cluster.incr("k"), Err(Error::NoNode));
    assert_eq!(cluster.now_us, begun);
    let mut cluster = Simulation::new(1, 3, ClientOptions::default());
    cluster.nodes[home].set_mode(Mode::CutOff, EPOCH_S);
    assert_eq!(cluster.set("k", "v"), Ok(()));
    assert_eq!(cluster.get("k"), Ok(Some("v".to_owned())));
}

#[test]
fn counters_agree_on_all_copies_and_go_on_after_a_crash() {
    for seed in 1..100 {
        let mut cluster = Simulation::new(seed, 4, ClientOptions::default().copies(2));
        assert_eq!(cluster.incr("n"), Ok(None));
        let begin = |context| calls::count(context, b"n", false, 1, Some((10, None)));
        assert_eq!(cluster.run(begin), Ok(Some(10)));
        let homes = cluster.homes("n");
        let mut expected = 10;
        for crash in [homes[0], homes[1], homes[0]] {
            for _ in 0..5 {
                expected += 1;
                assert_eq!(cluster.incr("n"), Ok(Some(expected)), "seed {seed}");
            }
            for home in &homes {
                assert_eq!(
                    cluster.nodes[*home].items[&b"n"[..]].value,
                    expected.to_string().as_bytes()
                );
            }
            // Restarted at once: nobody noticed, but it is empty. It is not where the counter begins anew.
            cluster.nodes[crash].items.clear();
            expected += 1;
            let counted = match seed % 2 {
                0 => cluster.incr("n"),
                _ => cluster.run(begin),
            };
            assert_eq!(counted, Ok(Some(expected)), "seed {seed}");
        }
        // Dead: the next copy decides.
        cluster.nodes[homes[0]].set_mode(Mode::Crashed, EPOCH_S);
        assert_eq!(cluster.incr("n"), Ok(Some(expected + 1)));
        assert_eq!(cluster.incr("n"), Ok(Some(expected + 2)));
        cluster.nodes[homes[0]].set_mode(Mode::Up, EPOCH_S);
        cluster.rest(20_000);
        assert_eq!(cluster.incr("n"), Ok(Some(expected + 3)));
    }
}

/// A step whose answer is lost is not repeated: a counter counts each call at most once.
#[test]
fn counting_is_never_done_twice() {
    for seed in 1..200 {
        let mut cluster = Simulation::new(seed, 3, ClientOptions::default().eject_after(1000));
        cluster.set("n", "0").expect("up");
        cluster.spoilt = 200;
        let (mut calls, mut done) = (0, 0);
        for _ in 0..50 {
            calls += 1;
            if let Ok(Some(number)) = cluster.incr("n") {
                done += 1;
                assert!(
                    number <= calls && number >= done,
                    "seed {seed}: {number} after {calls} calls"
                );
            }
        }
    }
}

#[test]
fn compare_and_swap_with_copies() {
    let mut cluster = Simulation::new(5, 4, ClientOptions::default().copies(2));
    cluster.set("k", "1").expect("up");
    let homes = cluster.homes("k");
    let gets = |cluster: &mut Simulation| {
        cluster
            .run(|context| calls::gets(context, b"k"))
            .expect("up")
            .expect("stored")
            .1
    };
    let cas = |cluster: &mut Simulation, value: &str, unique| {
        cluster
            .run(|context| calls::cas(context, b"k", value.into(), unique, None))
            .expect("up")
    };
    let unique = gets(&mut cluster);
    assert_eq!(cas(&mut cluster, "2", unique), Cas::Stored);
    assert_eq!(cas(&mut cluster, "3", unique), Cas::Conflict);
    for home in &homes {
        assert_eq!(cluster.nodes[*home].items[&b"k"[..]].value, b"2");
    }
    // The next copy decides when the first is gone; what the first gave is worth nothing there.
    let unique = gets(&mut cluster);
    cluster.nodes[homes[0]].set_mode(Mode::CutOff, EPOCH_S);
    for _ in 0..3 {
        assert_eq!(cluster.get("k"), Ok(Some("2".to_owned())));
    }
    assert_eq!(cas(&mut cluster, "3", unique), Cas::Conflict);
    let unique = gets(&mut cluster);
    assert_eq!(cas(&mut cluster, "4", unique), Cas::Stored);
    // And the first does not come back with the old value.
    cluster.nodes[homes[0]].set_mode(Mode::Up, EPOCH_S);
    cluster.rest(20_000);
    assert_eq!(cluster.get("k"), Ok(Some("4".to_owned())));
}

#[test]
fn add_sees_what_any_copy_has() {
    let mut cluster = Simulation::new(5, 4, ClientOptions::default().copies(2));
    let add = |cluster: &mut Simulation| {
        let mode = StoreMode::Add;
        cluster
            .run(|context| calls::store(context, b"lock", "mine".into(), mode, None))
            .expect("up")
    };
    assert!(add(&mut cluster));
    assert!(!add(&mut cluster));
    let homes = cluster.homes("lock");
    for lost in homes {
        cluster.nodes[lost].items.clear();
        assert!(!add(&mut cluster), "the other copy has it");
        assert_eq!(cluster.get("lock"), Ok(Some("mine".to_owned())));
    }
}

/// A delete looks at all copies again, whatever each had: a read may have given it what another still had. Not if none had it.
#[test]
fn a_delete_looks_at_all_copies_again() {
    for (lacking, expected) in [(0..0, 2), (0..1, 2), (1..2, 2), (0..2, 1)] {
        let mut cluster = Simulation::new(5, 4, ClientOptions::default().copies(2));
        cluster.set("k", "a").expect("up");
        let homes = cluster.homes("k");
        for lacks in lacking.clone() {
            cluster.nodes[homes[lacks]].items.clear();
        }
        // Each request of a node takes a CAS unique.
        let requests = |cluster: &Simulation| [0, 1].map(|home| cluster.nodes[homes[home]].cas);
        let before = requests(&cluster);
        let deleted = cluster.run(|context| calls::delete(context, b"k"));
        assert_eq!(deleted, Ok(lacking.len() < 2));
        for (before, after) in before.into_iter().zip(requests(&cluster)) {
            assert_eq!(after - before, expected, "{lacking:?}");
        }
    }
}

/// Also where reads ask any copy: what one has, the one that decides is given.
#[test]
fn appending_finds_a_copy_however_others_are_read() {
    for seed in 1..20 {
        let options = ClientOptions::default().copies(2).reads(Reads::Spread);
        let mut cluster = Simulation::new(seed, 4, options);
        cluster.set("k", "a").expect("up");
        let homes = cluster.homes("k");
        cluster.nodes[homes[0]].items.clear();
        let mode = StoreMode::Append;
        let appended = cluster.run(|context| calls::store(context, b"k", "b".into(), mode, None));
        assert_eq!(appended, Ok(true), "seed {seed}");
        for home in homes {
            assert_eq!(
                cluster.nodes[home].items[&b"k"[..]].value,
                b"ab",
                "seed {seed}"
            );
        }
    }
}

#[test]
fn appending_and_touching_look_for_a_copy_first() {
    let mut cluster = Simulation::new(5, 4, ClientOptions::default().copies(2));
    cluster.set("k", "a").expect("up");
    let homes = cluster.homes("k");
    cluster.nodes[homes[0]].items.clear();
    let mode = StoreMode::Append;
    assert_eq!(
        cluster.run(|context| calls::store(context, b"k", "b".into(), mode, None)),
        Ok(true)
    );
    for home in &homes {
        assert_eq!(cluster.nodes[*home].items[&b"k"[..]].value, b"ab");
    }
    cluster.nodes[homes[0]].items.clear();
    let minute = Some(Duration::from_secs(60));
    assert_eq!(
        cluster.run(|context| calls::touch(context, b"k", minute)),
        Ok(true)
    );
    let expiries: Vec<u64> = homes
        .iter()
        .map(|&home| cluster.nodes[home].items[&b"k"[..]].expires_at)
        .collect();
    assert_eq!(expiries, [cluster.now_s() + 60; 2]);
    let hour = Some(Duration::from_secs(3600));
    assert!(
        cluster
            .run(|context| calls::get_and_touch(context, b"k", hour))
            .expect("up")
            .is_some()
    );
    let expiries: Vec<u64> = homes
        .iter()
        .map(|&home| cluster.nodes[home].items[&b"k"[..]].expires_at)
        .collect();
    assert_eq!(expiries, [cluster.now_s() + 3600; 2]);
    assert_eq!(
        cluster.run(|context| calls::touch(context, b"none", minute)),
        Ok(false)
    );
}

/// Without copies: a key written to a stand-in does not come back old with its node.
#[test]
fn a_node_that_was_cut_off_does_not_bring_back_what_was_overwritten() {
    let mut cluster = Simulation::new(9, 3, ClientOptions::default());
    for key in ["a", "b", "c", "d", "e", "f"] {
        cluster.set(key, "old").expect("up");
        let home = cluster.homes(key)[0];
        cluster.nodes[home].set_mode(Mode::CutOff, EPOCH_S);
        cluster.set(key, "new").expect("the next node takes it");
        assert_eq!(cluster.get(key), Ok(Some("new".to_owned())));
        cluster.nodes[home].set_mode(Mode::Up, EPOCH_S);
        cluster.rest(20_000);
        assert_eq!(cluster.homes(key)[0], home);
        assert_eq!(cluster.get(key), Ok(None));
    }
}

#[test]
fn a_grown_ring_finds_what_lies_on_the_old_nodes() {
    let mut cluster = Simulation::new(2, 3, ClientOptions::default());
    let keys: Vec<String> = (0..300).map(|i| format!("key{i}")).collect();
    for key in &keys {
        cluster.set(key, key).expect("up");
    }
    cluster.grow("new", 60_000);
    let (deleted, rest) = keys.split_at(100);
    for key in deleted {
        assert_eq!(
            cluster
                .run(|context| calls::delete(context, key.as_bytes()))
                .map(|_| ()),
            Ok(())
        );
        assert_eq!(
            cluster.get(key),
            Ok(None),
            "a deleted key is not found where it was"
        );
    }
    for key in rest {
        assert_eq!(cluster.get(key), Ok(Some(key.clone())));
    }
    cluster.rest(61_000);
    for key in rest {
        assert_eq!(
            cluster.get(key),
            Ok(Some(key.clone())),
            "it was carried over"
        );
    }
}

/// A node that does not answer takes a write's time. Others are told of it before it is ejected, so that the write need not wait any
/// longer; what is left no time for that is an error.
#[test]
fn a_write_around_a_node_is_done_when_others_know() {
    for (eject_after, timeout_ms, done) in [(3, 1000, true), (2, 1000, true), (2, 700, false)] {
        let options = ClientOptions::default()
            .copies(2)
            .eject_after(eject_after)
            .request_timeout(Duration::from_millis(timeout_ms));
        let mut cluster = Simulation::new(5, 4, options);
        cluster.set("k", "1").expect("up");
        let home = cluster.homes("k")[1];
        cluster.nodes[home].set_mode(Mode::Hung, EPOCH_S);
        let written = cluster.set("k", "2");
        assert!(!cluster.ring.members[home].is_in());
        assert_eq!(written.is_ok(), done, "{eject_after} {timeout_ms}");
        let notices = cluster.nodes.iter().flat_map(|node| node.items.keys());
        let notices = notices.filter(|key| key.starts_with(b"ketch:out:"));
        assert_eq!(notices.count(), 3);
        // It waits once, and again when others have not been told for long.
        for (pause_ms, held) in [(200, false), (5_000, true)] {
            cluster.pass(cluster.now_us + pause_ms * 1000);
            cluster.set("k", "3").expect("its stand-in takes it");
            assert_eq!(cluster.took >= Duration::from_millis(140), held);
        }
    }
}

/// While a change is fresh, nothing that was overwritten or deleted is found again where it was, whatever the new owner
/// forgets; and what was there counts for `add` and counters.
#[test]
fn a_grown_ring_brings_back_nothing_old() {
    type Deed = fn(&mut Simulation, &str) -> Option<&'static str>;
    let minute = Some(Duration::from_secs(60));
    let deeds: [(&str, Deed); 8] = [
        ("set", |cluster, key| {
            cluster.set(key, "2").expect("up");
            Some("2")
        }),
        ("delete", |cluster, key| {
            let deleted = cluster.run(|context| calls::delete(context, key.as_bytes()));
            assert_eq!(deleted, Ok(true), "it was there");
            None
        }),
        ("add", |cluster, key| {
            let mode = StoreMode::Add;
            let added = cluster
                .run(|context| calls::store(context, key.as_bytes(), "2".into(), mode, None));
            assert_eq!(added, Ok(false), "it is there");
            Some("1")
        }),
        ("replace", |cluster, key| {
            let mode = StoreMode::Replace;
            let done = cluster
                .run(|context| calls::store(context, key.as_bytes(), "2".into(), mode, None));
            assert_eq!(done, Ok(true));
            Some("2")
        }),
        ("append", |cluster, key| {
            let mode = StoreMode::Append;
            let done = cluster
                .run(|context| calls::store(context, key.as_bytes(), "2".into(), mode, None));
            assert_eq!(done, Ok(true));
            Some("12")
        }),
        ("count", |cluster, key| {
            let create = Some((7, None));
            let number =
                cluster.run(|context| calls::count(context, key.as_bytes(), false, 1, create));
            assert_eq!(number, Ok(Some(2)), "it goes on from what it was");
            Some("2")
        }),
        ("cas", |cluster, key| {
            // The unique of the old owner is worth nothing on the new one, which has the value by then.
            let read = |cluster: &mut Simulation| {
                let found = cluster.run(|context| calls::gets(context, key.as_bytes()));
                found.expect("up").expect("it is there").1
            };
            let swap = |cluster: &mut Simulation, unique| {
                cluster.run(|context| calls::cas(context, key.as_bytes(), "2".into(), unique, None))
            };
            let unique = read(cluster);
            let swapped = swap(cluster, unique);
            let moved = cluster.homes(key) == [0];
            assert_eq!(swapped, Ok(if moved { Cas::Conflict } else { Cas::Stored }));
            if moved {
                let unique = read(cluster);
                assert_eq!(swap(cluster, unique), Ok(Cas::Stored));
            }
            Some("2")
        }),
        ("set_multi", |cluster, key| {
            let entry = Entry {
                key: key.as_bytes(),
                value: "2".into(),
            };
            let done = cluster.run(|context| calls::set_multi(context, vec![entry; 2], None));
            assert_eq!(done, [Ok(()), Ok(())]);
            Some("2")
        }),
    ];
    for (seed, (name, deed)) in deeds.into_iter().enumerate() {
        let mut cluster = Simulation::new(seed as u64 + 20, 3, ClientOptions::default());
        let keys: Vec<String> = (0..60).map(|i| format!("key{i}")).collect();
        for key in &keys {
            cluster
                .run(|context| calls::set(context, key.as_bytes(), "1".into(), minute))
                .expect("up");
        }
        cluster.grow("new", 60_000);
        let mut moved = 0;
        for key in &keys {
            let value = deed(&mut cluster, key);
            assert_eq!(cluster.get(key).expect("up").as_deref(), value, "{name}");
            if cluster.homes(key) == [0] && name != "add" {
                moved += 1;
                cluster.nodes[0].items.remove(key.as_bytes());
                assert_eq!(cluster.get(key), Ok(None), "{name}: the old value is gone");
            }
        }
        assert!(moved > 3 || name == "add", "{name}: {moved}");
    }
}

/// Nodes that just joined decide by what the others had, though nothing is known of them yet: not even whether they take marks.
#[test]
fn a_counter_goes_on_where_nodes_just_joined() {
    let count = |cluster: &mut Simulation, key: &str| {
        let create = Some((1, None));
        cluster.run(|context| calls::count(context, key.as_bytes(), false, 1, create))
    };
    for seed in 1..20 {
        let mut cluster = Simulation::new(seed, 3, ClientOptions::default().copies(2));
        let keys: Vec<String> = (0..12).map(|i| format!("key{i}")).collect();
        for key in &keys {
            assert_eq!(count(&mut cluster, key), Ok(Some(1)));
        }
        // What nodes tell of themselves is asked ten times a second: it was, a moment ago.
        cluster.rest(200);
        cluster.get("other").expect("up");
        let names = ["new0", "new1"].map(|name| Node::new(name, 11211));
        let until = cluster.at(cluster.now_us + 60_000_000);
        cluster.ring = Arc::new(cluster.ring.after(&names, &cluster.options, until));
        cluster
            .nodes
            .splice(..0, names.map(|_| SimulatedNode::default()));
        for key in &keys {
            assert_eq!(count(&mut cluster, key), Ok(Some(2)), "seed {seed}: {key}");
        }
    }
}

/// A delete is not acknowledged while the place before may still show the value; once its node is ejected, it is, and the
/// node comes back without it.
#[test]
fn a_delete_reaches_the_place_before_or_says_that_it_did_not() {
    let mut cluster = Simulation::new(31, 3, ClientOptions::default());
    let keys: Vec<String> = (0..60).map(|i| format!("key{i}")).collect();
    for key in &keys {
        cluster.set(key, "1").expect("up");
    }
    let old: Vec<usize> = keys.iter().map(|key| cluster.homes(key)[0] + 1).collect();
    cluster.grow("new", 60_000);
    let at = (0..keys.len())
        .find(|&at| cluster.homes(&keys[at]) == [0])
        .expect("some move");
    let moved: Vec<&String> = keys
        .iter()
        .zip(&old)
        .filter(|(key, home)| **home == old[at] && cluster.homes(key) == [0])
        .map(|(key, _)| key)
        .collect();
    cluster.nodes[old[at]].set_mode(Mode::CutOff, EPOCH_S);
    let mut refused = 0;
    for key in &moved {
        let deleted = cluster.run(|context| calls::delete(context, key.as_bytes()));
        refused += usize::from(deleted.is_err());
    }
    assert!(refused <= 1, "{refused} of {}", moved.len());
    cluster.nodes[old[at]].set_mode(Mode::Up, EPOCH_S);
    cluster.rest(20_000);
    for key in &moved {
        assert_eq!(cluster.get(key), Ok(None), "it does not come back");
    }
}
