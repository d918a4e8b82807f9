use super::*;
use std::time::Duration;

/// `nodes` as `name@zone`, and on how many of them a key lives.
fn ring(nodes: &[&str], copies: usize) -> (Ring, ClientOptions, Vec<Node>) {
    let nodes: Vec<Node> = nodes.iter().map(|node| node.parse().unwrap()).collect();
    let options = ClientOptions::default().copies(copies);
    (Ring::new(&nodes, &options, 1), options, nodes)
}

fn keys() -> impl Iterator<Item = Vec<u8>> {
    (0..500).map(|i| format!("key{i}").into_bytes())
}

/// The names of the nodes that take a write of `key`.
fn homes(ring: &Ring, options: &ClientOptions, key: &[u8]) -> Vec<String> {
    let writers = ring.writers(key, Instant::now(), options);
    let names = writers.iter().map(|node| ring.members[node].name.clone());
    names.map(|name| name.to_string()).collect()
}

/// The zones of the nodes that take a write of `key`.
fn zones(ring: &Ring, options: &ClientOptions, key: &[u8]) -> Vec<Option<String>> {
    let writers = ring.writers(key, Instant::now(), options);
    let zones = writers
        .iter()
        .map(|node| ring.members[node].node.zone.clone());
    zones.collect()
}

fn distinct<T: Ord + Clone>(all: &[T]) -> usize {
    let mut all = all.to_vec();
    all.sort();
    all.dedup();
    all.len()
}

#[test]
fn copies_share_the_reads_of_a_hot_key() {
    let (ring, options, _) = ring(&["a", "b", "c", "d"], 3);
    let now = Instant::now();
    let firsts = |key: &[u8], options: &ClientOptions, now| {
        let first = |_| ring.readers_of_value(key, now, options).order.first();
        distinct(&(0..100).map(first).collect::<Vec<_>>())
    };
    assert_eq!(firsts(b"k", &options, now), 1);
    ring.note_hot(b"k", now);
    assert_eq!(firsts(b"k", &options, now), 3);
    assert_eq!(firsts(b"other", &options, now), 1);
    assert_eq!(firsts(b"k", &options, now + Duration::from_secs(3)), 1);
    // One that waits for fewer copies might miss there what it wrote.
    assert_eq!(firsts(b"k", &options.clone().ack(Ack::Quorum), now), 1);
    // Who asks for more than the value asks the first copy.
    let first = |_| ring.readers(b"k", now, &options).order.first();
    assert_eq!(distinct(&(0..100).map(first).collect::<Vec<_>>()), 1);
}

#[test]
fn reads_of_values_ask_the_own_zone_first() {
    let (ring, options, _) = ring(&["a1@a", "a2@a", "b1@b", "b2@b", "c1@c"], 3);
    let now = Instant::now();
    let zoned = options.clone().zone("b");
    let zone_of = |node: usize| ring.members[node].node.zone.clone();
    for key in keys() {
        let order = ring.readers_of_value(&key, now, &zoned).order;
        assert_eq!(order.len(), 3);
        assert_eq!(zone_of(order.first().unwrap()).as_deref(), Some("b"));
        // Uniques and changes are the deciding node's.
        let first = |options| ring.readers(&key, now, options).order.first();
        assert_eq!(first(&zoned), first(&options));
    }
}

#[test]
fn at_most_a_share_is_ejected_and_never_the_last() {
    for (nodes, share, out) in [
        (1, 0.5, 0),
        (2, 0.5, 1),
        (3, 0.5, 1),
        (5, 0.5, 2),
        (4, 1.0, 3),
    ] {
        let names: Vec<String> = (0..nodes).map(|at| format!("n{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (ring, options, _) = ring(&names, 1);
        let options = options.eject_share(share);
        let now = Instant::now();
        for _ in 0..5 {
            (0..nodes).for_each(|node| {
                ring.failed(node, now, &options);
            });
        }
        let is_out = |member: &&Arc<Member>| !member.is_in();
        assert_eq!(ring.members.iter().filter(is_out).count(), out, "{nodes}");
        for key in keys() {
            assert_eq!(
                ring.readers(&key, now, &options).order.len(),
                1,
                "one is tried"
            );
        }
    }
}

#[test]
fn copies_are_in_as_many_zones_as_there_are() {
    let racks = ["a1@a", "a2@a", "a3@a", "b1@b", "c1@c", "c2@c"];
    for copies in 1..=6 {
        let (ring, options, _) = ring(&racks, copies);
        for key in keys() {
            let homes = homes(&ring, &options, &key);
            assert_eq!(
                (homes.len(), distinct(&homes)),
                (copies, copies),
                "{homes:?}"
            );
            let zones = zones(&ring, &options, &key);
            assert_eq!(distinct(&zones), copies.min(3), "{zones:?}");
            assert_eq!(
                distinct(&zones[..copies.min(3)]),
                copies.min(3),
                "other zones first: {zones:?}"
            );
        }
    }
}

#[test]
fn a_node_without_a_zone_is_a_zone_of_its_own() {
    let (ring, options, _) = ring(&["a1@a", "a2@a", "x", "y"], 3);
    for key in keys() {
        let zones = zones(&ring, &options, &key);
        let in_a = zones.iter().filter(|zone| zone.is_some()).count();
        assert_eq!(in_a, 1, "{zones:?}");
    }
}

#[test]
fn the_owner_is_the_same_with_zones_and_without() {
    let (zoned, options, _) = ring(&["n1@a", "n2@a", "n3@b", "n4@b"], 2);
    let (plain, _, _) = ring(&["n1", "n2", "n3", "n4"], 2);
    let mut others = 0;
    for key in keys() {
        let (zoned, plain) = (homes(&zoned, &options, &key), homes(&plain, &options, &key));
        assert_eq!(zoned[0], plain[0]);
        others += usize::from(zoned[1] != plain[1]);
    }
    assert!(
        others > 50,
        "{others}: zones change where the second copy is"
    );
}

/// With zones, a node that joins takes keys, and what does not go to it stays where it was.
#[test]
fn a_node_that_joins_moves_copies_to_itself_only() {
    let old = ["a1@a", "a2@a", "b1@b", "b2@b", "c1@c", "c2@c"];
    let (before, options, nodes) = ring(&old, 2);
    let mut grown = nodes;
    grown.push("b3@b".parse().unwrap());
    let after = before.after(&grown, &options, Instant::now());
    let mut moved = 0;
    for key in keys() {
        let (was, is) = (
            homes(&before, &options, &key),
            homes(&after, &options, &key),
        );
        let new: Vec<&String> = is.iter().filter(|node| !was.contains(node)).collect();
        moved += new.len();
        // Beside the new node only a copy that has to leave its zone to it: one at most.
        assert!(
            new.is_empty() || is.iter().any(|node| node.starts_with("b3:")),
            "{was:?} {is:?}"
        );
        assert!(new.len() <= 2 && zones(&after, &options, &key).len() == 2);
    }
    // Of 1,000 copies a seventh, and those that left.
    assert!((70..300).contains(&moved), "{moved} of 1000 copies moved");
}

#[test]
fn an_ejected_node_is_stood_in_for_from_its_zone_or_another() {
    let (ring, options, _) = ring(&["a1@a", "a2@a", "b1@b", "b2@b"], 2);
    let now = Instant::now();
    for _ in 0..options.eject_after {
        ring.members[0].failed(now, &options, 0, || true);
    }
    assert!(!ring.members[0].is_in());
    for key in keys() {
        let homes = homes(&ring, &options, &key);
        assert_eq!(distinct(&homes), 2);
        assert!(!homes.iter().any(|node| node.starts_with("a1:")));
        let zones = zones(&ring, &options, &key);
        assert_eq!(distinct(&zones), 2, "still in two zones: {homes:?}");
    }
}

#[test]
fn members_stay_through_a_change_and_places_before_are_known_for_a_while() {
    let (ring, options, nodes) = ring(&["n1", "n2", "n3", "n4"], 1);
    let now = Instant::now();
    let until = now + Duration::from_secs(60);
    let mut fewer = nodes.clone();
    let gone = fewer.remove(0);
    let after = ring.after(&fewer, &options, until);
    assert!(after.members.iter().all(|member| {
        let old = ring.members.iter();
        old.filter(|other| Arc::ptr_eq(other, member)).count() == 1
    }));
    for key in keys() {
        let was = ring.writers(&key, now, &options).first().unwrap();
        let was = &ring.members[was].name;
        let before = after.before(&key, now, &options).first().unwrap();
        assert_eq!(&after.members[before].name, was);
        let readers = after.readers(&key, now, &options);
        let moved = **was == gone.address();
        assert_eq!(readers.order.len(), 1 + usize::from(moved));
        assert_eq!(readers.has_before(), moved);
        assert_eq!(after.readers(&key, until, &options).order.len(), 1);
    }
    assert_eq!(after.everywhere(now).len(), 4);
    assert_eq!(after.everywhere(until).len(), 3);
    // The same list again, without a window: what is gone is let go.
    let settled = after.after(&fewer, &options, now);
    assert_eq!(settled.everywhere(now).len(), 3);
    assert_eq!(settled.members.len(), 3);
}
