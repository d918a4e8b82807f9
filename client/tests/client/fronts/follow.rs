//! Near caches that follow the feeds of their nodes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::feed::Lost;
use ketch_client::metrics::Recorder;
use ketch_client::near::NearCache;
use ketch_client::{ClientOptions, Item};
use ketch_testing::{Kind, PATIENCE, Rng, Server, wait_until, wait_within};

use super::Client;
use crate::as_node::AsNode;
use crate::patience::patient;
use crate::relayed::Relayed;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Options of a client that follows, and what it counts.
fn following(options: ClientOptions, bound: Duration) -> (ClientOptions, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let near = NearCache::new(HOUR).follow_within(bound);
    let options = options.near_cache(near).metrics(recorder.clone());
    (options, recorder)
}

/// A client that follows these nodes, all of them armed.
fn follows(servers: &[&Server], options: ClientOptions) -> (Client, Arc<Recorder>) {
    let (options, recorder) = following(options, PATIENCE);
    let client = Client::new(servers.iter().map(|server| server.node()), options);
    let nodes = servers.len() as u64;
    wait_until("feeds are armed", || recorder.feeds_armed() == nodes);
    (client, recorder)
}

/// Whether a read is answered near.
fn is_near(client: &Client, recorder: &Recorder, key: &str) -> bool {
    let (before, _) = recorder.near_lookups();
    client.get(key).expect("up");
    recorder.near_lookups().0 > before
}

/// Reads until what is read is near.
#[track_caller]
fn bring_near(client: &Client, recorder: &Recorder, key: &str) {
    wait_until("it is near", || is_near(client, recorder, key));
}

fn text(client: &Client, key: &str) -> Option<String> {
    let item = client.get(key).expect("up")?;
    item.text().map(str::to_owned)
}

#[test]
fn what_others_do_is_seen_at_once() {
    let server = Kind::Ketch.start();
    let (client, recorder) = follows(&[&server], patient());
    let other = Client::new([server.node()], patient());
    type Deed = fn(&Client);
    let deeds: [(Deed, Option<&str>); 7] = [
        (|other| other.set("k", "2", None).expect("up"), Some("2")),
        (|other| assert!(other.incr("k", 5).is_ok()), Some("7")),
        (
            |other| assert_eq!(other.append("k", "0"), Ok(true)),
            Some("70"),
        ),
        (|other| assert_eq!(other.delete("k"), Ok(true)), None),
        (
            |other| assert_eq!(other.add("k", "1", None), Ok(true)),
            Some("1"),
        ),
        (|other| drop(other.flush_all()), None),
        (
            |other| other.set("k", "last", None).expect("up"),
            Some("last"),
        ),
    ];
    client.set("k", "1", None).expect("up");
    for (deed, wanted) in deeds {
        if client.get("k").expect("up").is_some() {
            bring_near(&client, &recorder, "k");
        }
        deed(&other);
        wait_until("it is seen", || text(&client, "k").as_deref() == wanted);
    }
    wait_until("all is counted", || recorder.feeds() == (8, 1, 0));
    let said = recorder.render();
    let node = format!("{{node=\"{}\"}}", server.node().address());
    for line in [
        format!("ketch_client_feed_armed{node} 1"),
        format!("ketch_client_feed_armed_total{node} 1"),
        format!("ketch_client_feed_events_total{node} 8"),
        "# TYPE ketch_client_near_dropped_in_flight_total counter".to_owned(),
    ] {
        assert!(said.lines().any(|other| other == line), "{line}\n{said}");
    }
}

/// A time to live that others shorten holds here too.
#[test]
fn what_is_touched_is_asked_for_again() {
    let server = Kind::Ketch.start();
    let (client, recorder) = follows(&[&server], patient());
    let other = Client::new([server.node()], patient());
    client.set("k", "1", None).expect("up");
    bring_near(&client, &recorder, "k");
    assert_eq!(other.touch("k", Duration::from_secs(1)), Ok(true));
    wait_until("it is over", || text(&client, "k").is_none());
}

#[test]
fn a_client_with_a_prefix_follows_its_own_keys() {
    let server = Kind::Ketch.start();
    let (client, recorder) = follows(&[&server], patient().prefix("mine:ä "));
    let other = Client::new([server.node()], patient());
    client.set("k", "1", None).expect("up");
    bring_near(&client, &recorder, "k");
    wait_until("the own write is told", || recorder.feeds().0 == 1);
    let (events, ..) = recorder.feeds();
    for n in 0..100 {
        other.set(format!("theirs:{n}"), "x", None).expect("up");
    }
    other.set("mine:ä k", "2", None).expect("up");
    wait_until("it is seen", || text(&client, "k").as_deref() == Some("2"));
    assert_eq!(recorder.feeds().0, events + 1);
    // A view with a prefix of its own has keys among these.
    let view = client.with_prefix("view:");
    view.set("k", "1", None).expect("up");
    bring_near(&view, &recorder, "k");
    other.set("mine:ä view:k", "2", None).expect("up");
    wait_until("it is seen", || text(&view, "k").as_deref() == Some("2"));
    // A flush is for all.
    bring_near(&client, &recorder, "k");
    let _ = other.flush_all();
    wait_until("it is seen", || text(&client, "k").is_none());
}

/// Stock memcached, and a ketch that forbids it: the time of the near cache alone counts, and the metrics say so.
#[test]
fn nodes_without_a_feed_are_believed_for_the_time_to_live() {
    for server in [Kind::Memcached.start(), Kind::Ketch.start_with(&["-W"])] {
        let recorder = Arc::new(Recorder::default());
        let near = NearCache::new(1500 * MS).follow();
        let options = patient().near_cache(near).metrics(recorder.clone());
        let client = Client::new([server.node()], options);
        let other = Client::new([server.node()], patient());
        let node = server.node().address();
        wait_until("it is told", || recorder.feed_lost(&node, Lost::NoFeed) > 0);
        client.set("k", "1", None).expect("up");
        bring_near(&client, &recorder, "k");
        other.set("k", "2", None).expect("up");
        assert_eq!(text(&client, "k").as_deref(), Some("1"));
        wait_until("time is over", || {
            text(&client, "k").as_deref() == Some("2")
        });
        assert_eq!(recorder.feeds_armed(), 0);
        // It asks again, and says nothing new.
        let said = recorder.render();
        let line = format!("ketch_client_feed_lost_total{{node=\"{node}\",why=\"no_feed\"}}");
        assert!(said.contains(&line), "{said}");
    }
}

/// What is near is dropped with the feed, and comes back with it.
#[test]
fn a_feed_that_is_silent_cut_or_full_of_holes_takes_what_is_near_with_it() {
    let bound = 400 * MS;
    let server = Kind::Ketch.start_with(&["-o", "feed_ring=1"]);
    let link = Relayed::start(server.port());
    let (options, recorder) = following(patient(), bound);
    let client = Client::new([link.node()], options);
    let other = Client::new([server.node()], patient());
    let armed = || recorder.feeds_armed() == 1;
    wait_until("it is armed", armed);
    client.set("k", "0", None).expect("up");
    let mut value = 0;
    let mut check = |what: &str, disturb: &dyn Fn(), mend: &dyn Fn()| {
        wait_until("it is armed", armed);
        bring_near(&client, &recorder, "k");
        let (_, times, _) = recorder.feeds();
        disturb();
        let since = Instant::now();
        value += 1;
        other.set("k", value.to_string(), None).expect("up");
        let wanted = Some(value.to_string());
        wait_until(what, || text(&client, "k") == wanted);
        let took = since.elapsed();
        assert!(took < bound + 300 * MS, "{what}: stale for {took:?}");
        mend();
        wait_until("it is armed again", || {
            armed() && recorder.feeds().1 > times
        });
        bring_near(&client, &recorder, "k");
        assert_eq!(text(&client, "k"), wanted, "{what}");
    };
    check("paused", &|| link.pause(true), &|| {
        // All its words are there at once, and old.
        wait_until("it is noticed", || !armed());
        link.pause(false);
    });
    check("cut", &|| link.cut(true), &|| link.cut(false));
    // Slower than what happens: never silent, and ever further behind.
    check(
        "slow",
        &|| {
            link.trickle(1);
            for n in 0..300 {
                other.set(format!("filler-{n}"), "x", None).expect("up");
            }
        },
        &|| link.trickle(0),
    );
    let node = link.node().address();
    // Events may come behind the last heartbeat.
    let late = [Lost::Silent, Lost::Behind].map(|why| recorder.feed_lost(&node, why));
    assert!(late[0] + late[1] >= 2, "{}", recorder.render());
    assert!(recorder.feed_lost(&node, Lost::Closed) > 0);
    assert!(
        recorder.feed_lost(&node, Lost::Behind) > 0,
        "{}",
        recorder.render()
    );
}

#[test]
fn a_server_that_starts_again_takes_what_is_near_with_it() {
    let mut server = Kind::Ketch.start();
    let (options, recorder) = following(ClientOptions::default(), 400 * MS);
    let client = Client::new([server.node()], options);
    let armed = || recorder.feeds_armed() == 1;
    for _ in 0..2 {
        wait_until("it is armed", armed);
        client.set("k", "v", None).expect("up");
        bring_near(&client, &recorder, "k");
        server.kill();
        wait_until("it is noticed", || !armed());
        server.restart();
        wait_until("it is gone", || client.get("k") == Ok(None));
    }
    // Frozen, it says nothing.
    wait_until("it is armed", armed);
    client.set("k", "v", None).expect("up");
    bring_near(&client, &recorder, "k");
    server.freeze(true);
    wait_until("it is noticed", || client.get("k").is_err());
    server.freeze(false);
    wait_until("it is back", || {
        client.get("k") == Ok(Some(Item::from("v")))
    });
}

/// Nodes that come are followed, nodes that go are not, and no value is near that came from a node which is not the key's.
#[test]
fn the_ring_changes() {
    let servers: Vec<Server> = (0..3).map(|_| Kind::Ketch.start()).collect();
    let two = [&servers[0], &servers[1]];
    let (client, recorder) = follows(&two, patient());
    let keys: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
    for key in &keys {
        client.set(key, "1", None).expect("up");
        bring_near(&client, &recorder, key);
    }
    let all = servers.iter().map(|server| server.node());
    client.set_nodes(all.clone(), HOUR);
    let other = Client::new(all, patient());
    // At once: what has moved is not believed any more.
    for key in &keys {
        other.set(key, "2", None).expect("up");
    }
    for key in &keys {
        wait_until("it is seen", || text(&client, key).as_deref() == Some("2"));
    }
    wait_until("it is followed", || recorder.feeds_armed() == 3);
    for key in &keys {
        bring_near(&client, &recorder, key);
        other.set(key, "3", None).expect("up");
        wait_until("it is seen", || text(&client, key).as_deref() == Some("3"));
    }
    let readers = |server: &Server| server.stat("ketch_feed_readers");
    assert_eq!(servers.iter().map(readers).sum::<u64>(), 3);
    client.set_nodes([servers[2].node()], Duration::ZERO);
    wait_until("they are left", || {
        servers.iter().map(readers).sum::<u64>() == 1
    });
    client.close();
    wait_until("all are left", || {
        servers.iter().map(readers).sum::<u64>() == 0
    });
    drop(client);
}

/// With copies, any owner tells.
#[test]
fn copies_tell_as_well() {
    let servers: Vec<Server> = (0..3).map(|_| Kind::Ketch.start()).collect();
    let all: Vec<&Server> = servers.iter().collect();
    let (client, recorder) = follows(&all, patient().copies(2));
    let other = Client::new(
        servers.iter().map(|server| server.node()),
        patient().copies(2),
    );
    for n in 0..60 {
        let key = format!("k{n}");
        client.set(&key, "1", None).expect("up");
        bring_near(&client, &recorder, &key);
        other.set(&key, "2", None).expect("up");
        wait_until("it is seen", || text(&client, &key).as_deref() == Some("2"));
    }
}

/// Own writes are never hidden by what is near, whatever events come meanwhile.
#[test]
fn own_writes_are_seen() {
    let server = Kind::Ketch.start();
    let (client, recorder) = follows(&[&server], patient());
    let other = Client::new([server.node()], patient());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (client, is_over) = (&client, &is_over);
        scope.spawn(move || {
            while !is_over.load(SeqCst) {
                client.get("k").expect("up");
            }
        });
        scope.spawn(move || {
            while !is_over.load(SeqCst) {
                other.set("noise", "x", None).expect("up");
            }
        });
        for n in 0..1500_u32 {
            client.set("k", n, None).expect("up");
            for _ in 0..2 {
                assert_eq!(text(client, "k"), Some(n.to_string()));
            }
        }
        is_over.store(true, SeqCst);
    });
    assert!(recorder.near_lookups().0 > 0);
}

// ---- everything at once --------------------------------------------------------------------------------------------

/// How long the chaos lasts: `KETCH_CHAOS_S`, or a few seconds.
fn chaos_s() -> Duration {
    let given = std::env::var("KETCH_CHAOS_S").ok();
    Duration::from_secs(given.map_or(5, |text| text.parse().expect("seconds")))
}

/// When which value of a key was acknowledged, the newest last. Values grow.
#[derive(Default)]
struct History(Mutex<BTreeMap<u64, Instant>>);

impl History {
    fn note(&self, value: u64) {
        let mut history = self.0.lock().expect("whole");
        history.insert(value, Instant::now());
        while history.len() > 4096 {
            history.pop_first();
        }
    }

    /// How long before `asked` this value had another behind it.
    fn age(&self, value: u64, asked: Instant) -> Duration {
        let history = self.0.lock().expect("whole");
        let next = history.range(value + 1..).next();
        next.map_or(Duration::ZERO, |(_, at)| {
            asked.saturating_duration_since(*at)
        })
    }
}

/// Writers, flushes, links that pause, trickle and are cut, rings that overflow, frozen servers, kill -9 and restarts. While it
/// goes on, nothing near is older than the bound; when it is over, what is near is what the nodes have.
#[test]
fn near_caches_in_chaos() {
    const KEYS: u64 = 50;
    let bound = 500 * MS;
    // What a busy machine adds: a thread that is not run for a while.
    let slack = 1500 * MS;
    let mut rng = Rng::from_env("KETCH_SEED");
    let mut servers: Vec<Server> = (0..2)
        .map(|_| Kind::Ketch.start_with(&["-o", "feed_ring=1", "-t", "2"]))
        .collect();
    let links: Vec<Relayed> = servers.iter().map(|it| Relayed::start(it.port())).collect();
    let (options, recorder) =
        following(ClientOptions::default().eject_share(0.0).retries(0), bound);
    let client = Client::new(links.iter().map(Relayed::node), options);
    // The same nodes by the same names, without a near cache; what it writes goes by the relays too.
    let plain = Client::new(
        links.iter().map(Relayed::node),
        ClientOptions::default().eject_share(0.0),
    );
    let key = |n: u64| format!("key-{n}");
    let histories: Vec<History> = (0..KEYS).map(|_| History::default()).collect();
    let (is_over, oldest_us, reads) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let number = |item: Option<Item>| item.and_then(|item| item.number::<u64>());
    thread::scope(|scope| {
        let (is_over, histories, plain, client) = (&is_over, &histories, &plain, &client);
        let (oldest_us, reads, key) = (&oldest_us, &reads, &key);
        let number = &number;
        scope.spawn(move || {
            let mut value = 0;
            let mut rng = Rng::new(7);
            while !is_over.load(SeqCst) {
                value += 1;
                let n = rng.below(KEYS);
                let done = match rng.below(20) {
                    0 => plain.delete(key(n)).is_ok(),
                    _ => plain.set(key(n), value, None).is_ok(),
                };
                if done {
                    histories[n as usize].note(value);
                }
                thread::sleep(Duration::from_micros(rng.below(2000)));
            }
        });
        for seed in 0..2 {
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                while !is_over.load(SeqCst) {
                    let n = rng.below(KEYS);
                    let asked = Instant::now();
                    if let Ok(found) = client.get(key(n)) {
                        reads.fetch_add(1, SeqCst);
                        if let Some(value) = number(found) {
                            let age = histories[n as usize].age(value, asked);
                            oldest_us.fetch_max(age.as_micros() as u64, SeqCst);
                        }
                    }
                    if rng.one_in(50) {
                        thread::sleep(MS);
                    }
                }
            });
        }
        let begun = Instant::now();
        while begun.elapsed() < chaos_s() {
            let at = rng.below(2) as usize;
            let (server, link) = (&mut servers[at], &links[at]);
            let rest = MS * rng.below(900) as u32;
            match rng.below(8) {
                0 => {
                    link.pause(true);
                    thread::sleep(rest);
                    link.pause(false);
                }
                1 => {
                    link.cut(true);
                    thread::sleep(rest);
                    link.cut(false);
                }
                2 => {
                    link.trickle(1 + rng.below(40) as u32);
                    thread::sleep(rest);
                    link.trickle(0);
                }
                3 => {
                    server.freeze(true);
                    thread::sleep(rest);
                    server.freeze(false);
                }
                4 => {
                    server.kill();
                    thread::sleep(rest / 4);
                    server.restart();
                }
                5 => {
                    // More than the ring has, for who does not read.
                    link.pause(true);
                    let pairs = (0..30_000).map(|n| (format!("a-long-filler-key-{n:09}"), "x"));
                    let _ = plain.set_multi(pairs, None);
                    link.pause(false);
                }
                6 => drop(plain.flush_all()),
                _ => thread::sleep(rest),
            }
        }
        is_over.store(true, SeqCst);
    });
    let patience = Duration::from_secs(30);
    wait_within("all feeds are armed", patience, || {
        recorder.feeds_armed() == 2
    });
    for n in 0..KEYS {
        let mut seen = (None, None);
        let agrees = || {
            let (Ok(near), Ok(node)) = (client.get(key(n)), plain.get(key(n))) else {
                return false;
            };
            seen = (number(near), number(node));
            seen.0 == seen.1
        };
        wait_within("what is near is what the node has", patience, agrees);
    }
    let (events, armed, lost) = recorder.feeds();
    let (hits, misses) = recorder.near_lookups();
    let oldest = Duration::from_micros(oldest_us.load(SeqCst));
    eprintln!(
        "{} reads, {hits} near, {misses} not; {events} events, armed {armed} times, lost {lost} times, dropped in flight {}; the oldest value: {oldest:?}",
        reads.load(SeqCst),
        recorder.near_dropped_in_flight(),
    );
    assert!(oldest <= bound + slack, "a value was {oldest:?} old");
    assert!(hits > 0 && events > 0 && armed > 2 && lost > 0);
}
