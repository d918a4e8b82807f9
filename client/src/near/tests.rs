use super::*;
use crate::Node;
use std::sync::atomic::AtomicU64;

const S: Duration = Duration::from_secs(1);

/// Two nodes, and what goes between them.
struct World {
    ring: Ring,
    options: ClientOptions,
    near: Near,
    now: Instant,
    dropped: Arc<Dropped>,
}

#[derive(Debug, Default)]
struct Dropped(AtomicU64);

impl Metrics for Dropped {
    fn dropped_in_flight(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl World {
    fn new(options: NearCache) -> Self {
        let dropped = Arc::new(Dropped::default());
        let nodes = [Node::new("a", 1), Node::new("b", 1)];
        let client = ClientOptions::default();
        World {
            ring: Ring::new(&nodes, &client, 1),
            options: client,
            near: Near::new(options, Some(dropped.clone())),
            now: Instant::now(),
            dropped,
        }
    }

    fn route(&self) -> Route<'_> {
        Route {
            ring: &self.ring,
            options: &self.options,
        }
    }

    /// The identity of the node that has a key.
    fn home(&self, key: &str) -> u64 {
        let home = self.ring.takers(key.as_bytes(), &self.options).first();
        self.ring.members[home.expect("a node")].identity
    }

    /// The node that has a key says what it has.
    fn keep(&self, key: &str, value: &'static str, cas: u64, epoch: Epoch) {
        self.keep_from(self.home(key), key, value, cas, epoch);
    }

    fn keep_from(&self, node: u64, key: &str, value: &'static str, cas: u64, epoch: Epoch) {
        let item = Item::from(value);
        let found = Found {
            key: key.as_bytes(),
            item: &item,
            left: -1,
            unique: CasUnique { number: cas, node },
        };
        self.near.keep(&found, epoch, self.route(), self.now);
    }

    fn epoch(&self, key: &str) -> Epoch {
        self.near.epoch(key.as_bytes())
    }

    fn get(&self, key: &str) -> Option<String> {
        let item = self.near.get(key.as_bytes(), self.now)?;
        item.text().map(str::to_owned)
    }

    /// The feeds of both nodes.
    fn arm(&self) -> [Arc<Trust>; 2] {
        let armed = [0, 1].map(|at: usize| self.near.arm(self.ring.members[at].identity, 0));
        armed
            .iter()
            .for_each(|trust| self.near.believe(trust, self.now));
        armed
    }

    /// The feed of the node that has a key.
    fn feed_of<'t>(&self, key: &str, armed: &'t [Arc<Trust>; 2]) -> &'t Arc<Trust> {
        armed
            .iter()
            .find(|trust| trust.node == self.home(key))
            .expect("armed")
    }
}

#[test]
fn kept_for_the_shorter_time() {
    let world = World::new(NearCache::new(5 * S));
    let (near, now, item) = (&world.near, world.now, Item::from("v"));
    for (key, left, kept) in [("a", -1, 5), ("b", 60, 5), ("c", 2, 2), ("d", 0, 0)] {
        let key = key.as_bytes();
        let unique = CasUnique { number: 1, node: 1 };
        let item = &item;
        let found = Found {
            key,
            item,
            left,
            unique,
        };
        near.keep(&found, near.epoch(key), world.route(), now);
        let almost = now + S * kept - Duration::from_nanos(u64::from(kept > 0));
        assert_eq!(near.get(key, almost).is_some(), kept > 0);
        assert_eq!(near.get(key, now + S * kept), None);
    }
}

#[test]
fn a_write_between_read_and_keeping_wins() {
    let world = World::new(NearCache::new(S));
    let epoch = world.epoch("k");
    world.near.forget(b"k");
    world.keep("k", "old", 1, epoch);
    assert_eq!(world.get("k"), None);
    world.keep("k", "new", 1, world.epoch("k"));
    assert_eq!(world.get("k").as_deref(), Some("new"));
    let epoch = world.epoch("k");
    world.near.clear();
    assert_eq!(world.get("k"), None);
    world.keep("k", "old", 1, epoch);
    assert_eq!(world.get("k"), None);
    let dropped = world.dropped.0.load(Ordering::Relaxed);
    assert_eq!(dropped, 0, "these are not events");
}

#[test]
fn memory_is_bounded() {
    let bytes_max = 1 << 20;
    let world = World::new(NearCache::new(S).bytes_max(bytes_max).value_bytes_max(2000));
    let value: &'static str = "v".repeat(2001).leak();
    for i in 0..10_000_u32 {
        let key = i.to_string();
        world.keep(&key, &value[1..], 1, world.epoch(&key));
    }
    assert!(world.near.cache.weight() <= bytes_max);
    assert!(world.near.cache.len() > 300, "{}", world.near.cache.len());
    world.keep("large", value, 1, world.epoch("large"));
    assert_eq!(world.get("large"), None);
}

/// The worst moment: the node has answered, the event of a later write comes, and only then what it answered is kept.
#[test]
fn an_event_between_read_and_keeping_wins() {
    let world = World::new(NearCache::new(S).follow());
    let armed = world.arm();
    let feed = world.feed_of("k", &armed);
    let epoch = world.epoch("k");
    world.near.heard(feed, b"k", Some(2));
    world.keep("k", "old", 1, epoch);
    assert_eq!(world.get("k"), None);
    assert_eq!(world.dropped.0.load(Ordering::Relaxed), 1);
    // And the other way round.
    world.keep("k", "old", 1, world.epoch("k"));
    assert_eq!(world.get("k").as_deref(), Some("old"));
    world.near.heard(feed, b"k", Some(2));
    assert_eq!(world.get("k"), None);
    // By another node that has the key as well.
    let other = armed
        .iter()
        .find(|other| !Arc::ptr_eq(other, feed))
        .expect("two");
    world.keep("k", "v", 9, world.epoch("k"));
    world.near.heard(other, b"k", Some(3));
    assert_eq!(
        world.get("k"),
        None,
        "uniques of different nodes say nothing"
    );
}

#[test]
fn versions_of_a_node_only_grow() {
    let world = World::new(NearCache::new(S).follow());
    let armed = world.arm();
    let feed = world.feed_of("k", &armed);
    world.keep("k", "new", 7, world.epoch("k"));
    world.keep("k", "old", 6, world.epoch("k"));
    assert_eq!(world.get("k").as_deref(), Some("new"));
    // What is told is here already.
    world.near.heard(feed, b"k", Some(7));
    assert_eq!(world.get("k").as_deref(), Some("new"));
    // A unique that a client chose says nothing of what is later: neither does a smaller one, nor one of a repair.
    for (here, told) in [(7, 5), (1 << 63 | 7, 8), (1 << 63 | 7, 1 << 63 | 7)] {
        world.near.forget(b"k");
        world.keep("k", "old", here, world.epoch("k"));
        world.near.heard(feed, b"k", Some(told));
        assert_eq!(world.get("k"), None, "{here} {told}");
    }
    world.keep("k", "new", 7, world.epoch("k"));
    // A delete tells the old unique.
    world.near.heard(feed, b"k", None);
    assert_eq!(world.get("k"), None);
}

#[test]
fn nothing_is_kept_or_given_but_while_the_feed_is_fresh() {
    let bound = Duration::from_millis(500);
    let mut world = World::new(NearCache::new(60 * S).follow_within(bound));
    world.keep("k", "v", 1, world.epoch("k"));
    assert_eq!(world.get("k"), None, "no feed yet");
    let armed = world.arm();
    let feed = world.feed_of("k", &armed).clone();
    world.keep("k", "v", 1, world.epoch("k"));
    assert_eq!(world.get("k").as_deref(), Some("v"));
    let begun = world.now;
    world.now = begun + bound - Duration::from_nanos(1);
    assert_eq!(world.get("k").as_deref(), Some("v"));
    // Nobody has looked after the feed: the value is not believed all the same.
    world.now = begun + bound;
    assert_eq!(world.get("k"), None);
    world.keep("k", "v", 1, world.epoch("k"));
    assert_eq!(world.get("k"), None);
    armed
        .iter()
        .for_each(|trust| world.near.believe(trust, world.now));
    world.keep("k", "v", 1, world.epoch("k"));
    assert_eq!(world.get("k").as_deref(), Some("v"));
    // It is lost, and comes back: what was asked for before is not kept, what was kept before is not given.
    let epoch = world.epoch("k");
    feed.end();
    assert_eq!(world.get("k"), None);
    let again = world.near.arm(feed.node, 0);
    world.near.believe(&again, world.now);
    assert_eq!(world.get("k"), None);
    world.keep("k", "v", 1, epoch);
    assert_eq!(world.get("k"), None);
    world.keep("k", "v", 1, world.epoch("k"));
    assert_eq!(world.get("k").as_deref(), Some("v"));
    // An end that comes late ends the old one alone.
    feed.end();
    world.near.believe(&feed, world.now);
    assert_eq!(world.get("k").as_deref(), Some("v"));
    // A node without a feed is believed by time alone.
    world.near.arm(feed.node, Trust::WITHOUT_END);
    world.keep("k", "v", 1, world.epoch("k"));
    world.now += 59 * S;
    assert_eq!(world.get("k").as_deref(), Some("v"));
    world.near.part(feed.node);
    assert_eq!(world.get("k"), None);
}

/// What one node gives for another, whose feed tells nothing, is not kept; and what one gave is dropped when another is the
/// key's.
#[test]
fn nodes_that_change_take_what_they_gave_with_them() {
    let mut world = World::new(NearCache::new(S).follow());
    let armed = world.arm();
    let home = world.home("k");
    let other = armed
        .iter()
        .find(|trust| trust.node != home)
        .expect("two")
        .node;
    // Read where the key was before, and the new owner is armed.
    world.keep_from(other, "k", "v", 1, world.epoch("k"));
    assert_eq!(world.get("k").as_deref(), Some("v"));
    world.near.turn(world.route());
    assert_eq!(world.get("k"), None);
    world.keep("k", "v", 1, world.epoch("k"));
    let epoch = world.epoch("k");
    world.near.turn(world.route());
    assert_eq!(world.get("k").as_deref(), Some("v"));
    world.near.forget(b"k");
    world.keep("k", "v", 1, epoch);
    assert_eq!(world.get("k"), None, "asked for before the turn");
    world.feed_of("k", &armed).end();
    world.keep_from(other, "k", "v", 1, world.epoch("k"));
    assert_eq!(world.get("k"), None, "nobody tells of the owner");
    // One more node, of which nothing is told yet.
    let nodes = ["a", "b", "c"].map(|host| Node::new(host, 1));
    world.ring = world.ring.after(&nodes, &world.options, world.now);
    world.arm();
    let mut keys = (0..100).map(|n| format!("k{n}"));
    let moved = keys.find(|key| world.home(key) == world.ring.members[2].identity);
    let moved = moved.expect("some do");
    world.keep_from(home, &moved, "v", 1, world.epoch(&moved));
    assert_eq!(world.get(&moved), None);
}
