//! What methods take, and what they make of it: values, times to live, keys, changes; against a node in memory, stock memcached and
//! ketch.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, UnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use ketch_client::testing::TestNode;
use ketch_client::{
    Ack, Cas, ClientOptions, Error, Item, KeyFault, MetaOutcome, MetaRequest, Node, Ttl,
};

use super::Client;
use crate::patience::{against_all, patient};
use ketch_testing::wait_until;

const S: Duration = Duration::from_secs(1);

#[test]
fn whatever_is_a_value_is_stored() {
    against_all(|node| {
        let client = Client::new([node], patient());
        let text = String::from("text");
        client.set("a", &text, 60).expect("up");
        client.set("b", text, 60_u32).expect("up");
        client.set("c", vec![0, 13, 10, 255], 60_i64).expect("up");
        client
            .set("d", Item::new("flags", 7), Ttl::NEVER_ENDS)
            .expect("up");
        client.set("e", 41, None).expect("up");
        client.set("f", (vec![1], 9), S).expect("up");
        let keys = ["a", "b", "c", "d", "e", "f"];
        let found: Vec<_> = client
            .get_multi(&keys)
            .into_iter()
            .map(|found| found.expect("up"))
            .collect();
        assert_eq!(
            found,
            [
                Some("text".into()),
                Some("text".into()),
                Some(vec![0, 13, 10, 255].into()),
                Some(Item::new("flags", 7)),
                Some("41".into()),
                Some(Item::new(vec![1], 9)),
            ]
        );
        assert_eq!(client.incr("e", 1), Ok(Some(42)));
        assert_eq!(
            client.get("e").expect("up").and_then(|item| item.number()),
            Some(42_u64)
        );
        client.set("g", "over", -1).expect("up");
        assert_eq!(client.get("g"), Ok(None));
    });
}

#[test]
fn times_to_live_have_a_default_and_jitter() {
    let node = TestNode::start();
    let left = |key: &str| node.seconds_left(key);
    let minute = ClientOptions::default().default_ttl(60 * S);
    let client = Client::new([node.node()], minute.clone());
    client.set("default", 1, None).expect("up");
    client.set("own", 1, 30).expect("up");
    client.set("endless", 1, 0).expect("up");
    client.add("added", 1, None).expect("up");
    let _ = client.set_multi([("many", 1)], None);
    client.incr_or_create("counter", 1, 1, None).expect("up");
    client.fill_multi([("filled", 1, None::<Duration>)], true);
    let all = [
        "default", "own", "endless", "added", "many", "counter", "filled",
    ];
    assert_eq!(all.map(left), [60, 30, -1, 60, 60, 60, -1].map(Some));
    client.touch("own", None).expect("up");
    assert_eq!(left("own"), Some(60));

    let client = Client::new([node.node()], minute.ttl_jitter(0.2));
    let keys: Vec<String> = (0..200).map(|i| format!("k{i}")).collect();
    let _ = client.set_multi(keys.iter().map(|key| (key, "v")), None);
    for i in 0..200 {
        client.set(format!("one{i}"), "v", 600).expect("up");
    }
    let spread = |lefts: Vec<i64>, least, most| {
        assert!(
            lefts.iter().all(|left| (least..=most).contains(left)),
            "{lefts:?}"
        );
        let different: HashSet<_> = lefts.iter().collect();
        assert!(different.len() > 5, "{lefts:?}");
    };
    spread(
        keys.iter().map(|key| left(key).expect("there")).collect(),
        48,
        60,
    );
    spread(
        (0..200)
            .map(|i| left(&format!("one{i}")).expect("there"))
            .collect(),
        480,
        600,
    );
}

#[test]
fn keys_have_a_prefix_and_long_ones_are_hashed() {
    against_all(|node| {
        let plain = Client::new([node.clone()], patient());
        let options = patient().prefix("shop:").hash_long_keys(true);
        let shop = Client::new([node], options);
        let cart = shop.with_prefix("cart:");
        cart.set("7", "apples", 60).expect("up");
        assert_eq!(plain.get("shop:cart:7"), Ok(Some("apples".into())));
        assert_eq!(
            shop.get_multi(&["cart:7", "7"]),
            [Ok(Some("apples".into())), Ok(None)]
        );
        assert_eq!(plain.get("7"), Ok(None));
        // Every method has it.
        let loads = || Ok::<_, std::convert::Infallible>(Some("loaded"));
        assert_eq!(shop.get_or_load("l", 60, loads), Ok(Some("loaded".into())));
        assert_eq!(plain.get("shop:l"), Ok(Some("loaded".into())));
        assert_eq!(shop.delete_multi(&["l", "m"]), [Ok(true), Ok(false)]);
        assert_eq!(plain.get("shop:l"), Ok(None));

        let [long, longer] = [250, 251].map(|len| "k".repeat(len));
        assert_eq!(
            plain.set(&longer, 1, 60),
            Err(Error::Key(KeyFault::TooLong))
        );
        shop.set(&long, "a", 60).expect("up");
        shop.set(&longer, "b", 60).expect("up");
        assert_eq!(shop.get(&long), Ok(Some("a".into())));
        assert_eq!(shop.get(&longer), Ok(Some("b".into())));
        assert_eq!(shop.get(""), Err(Error::Key(KeyFault::Empty)));
    });
}

#[test]
fn errors_are_misses_if_that_is_wanted() {
    let node = TestNode::start();
    let hasty = ClientOptions::default().retry_pause(S / 1000);
    let strict = Client::new([node.node()], hasty.clone());
    let lenient = Client::new([node.node()], hasty.errors_as_misses(true));
    lenient.set("k", "v", 60).expect("up");
    node.cut_off();
    assert!(strict.get("k").is_err_and(|error| error.is_unavailable()));
    assert_eq!(lenient.get("k"), Ok(None));
    assert_eq!(lenient.get_multi(&["k", "l"]), [Ok(None), Ok(None)]);
    assert!(matches!(lenient.gets("k"), Ok(None)));
    assert_eq!(lenient.get_and_touch("k", 60), Ok(None));
    assert!(lenient.set("k", "w", 60).is_err(), "a write is no read");
    assert_eq!(lenient.get(""), Err(Error::Key(KeyFault::Empty)));
}

/// Changes of many callers add up, from nothing on.
#[test]
fn changes_add_up() {
    const CALLERS: usize = 8;
    const CHANGES: usize = 25;
    against_all(|node| {
        let client = Client::new([node], patient());
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let client = client.clone();
                scope.spawn(move || {
                    for change in 0..CHANGES {
                        let added = client.update("list", 60, |old| {
                            let old = old.map_or("", |item| item.text().expect("text"));
                            Some(format!("{old} {caller}/{change}"))
                        });
                        let added = added.expect("nobody waits that long").expect("it is there");
                        let own = format!(" {caller}/{change}");
                        assert!(added.text().is_some_and(|text| text.ends_with(&own)));
                    }
                });
            }
        });
        let list = client.get("list").expect("up").expect("there");
        let words: Vec<_> = list.text().expect("text").split_whitespace().collect();
        let different: HashSet<_> = words.iter().collect();
        assert_eq!(
            (words.len(), different.len()),
            (CALLERS * CHANGES, CALLERS * CHANGES)
        );
        // What is left alone is told, and stays.
        let seen = client.update("list", 60, |_| None::<Item>);
        assert_eq!(seen, Ok(Some(list.clone())));
        assert_eq!(client.update("none", 60, |_| None::<Item>), Ok(None));
        // Who never comes through is told so.
        let never = client.update("list", 60, |_| {
            client.set("list", "busy", 60).expect("up");
            Some("mine")
        });
        assert_eq!(never, Err(Error::Conflict));
    });
}

#[test]
fn only_the_version_that_was_read_is_deleted() {
    against_all(|node| {
        for copies in [1, 2] {
            let other = TestNode::start();
            let nodes = [node.clone(), other.node()];
            let client = Client::new(nodes.into_iter().take(copies), patient().copies(copies));
            client.set("k", "old", 60).expect("up");
            let (_, old) = client.gets("k").expect("up").expect("there");
            client.set("k", "new", 60).expect("up");
            assert_eq!(client.delete_if("k", old), Ok(false));
            let (item, new) = client.gets("k").expect("up").expect("there");
            assert_eq!(item, "new".into());
            assert_eq!(client.delete_if("k", new), Ok(true));
            assert_eq!(client.get("k"), Ok(None), "on no copy");
            assert_eq!(client.delete_if("k", new), Ok(false));
        }
    });
}

#[test]
fn many_keys_at_once() {
    against_all(|node| {
        let client = Client::new([node], patient());
        let keys: Vec<String> = (0..100).map(|i| format!("k{i}")).collect();
        let stored = client.set_multi(keys.iter().map(|key| (key, 1)), 60);
        assert!(stored.iter().all(Result::is_ok));
        client.delete("k50").expect("up");
        let there = |at: usize| at != 50;
        let counted = client.incr_multi(&keys, 4);
        let touched = client.touch_multi(&keys, 600);
        let got = client.get_and_touch_multi(&keys, 600);
        let versions = client.gets_multi(&keys);
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(counted[at], Ok(there(at).then_some(5)));
            assert_eq!(touched[at], Ok(there(at)));
            assert_eq!(got[at], Ok(there(at).then(|| 5.into())));
            match &versions[at] {
                Ok(Some((item, version))) => {
                    assert_eq!(item, &5.into());
                    assert_eq!(client.cas(key, "new", *version, 60), Ok(Cas::Stored));
                }
                other => assert_eq!((other, there(at)), (&Ok(None), false)),
            }
        }
    });
}

/// A deadline for one call, and writes that nobody waits for, beside a client that waits: its connections and its near cache.
#[test]
fn views_of_a_client() {
    // Nobody answers here.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let client = Client::new([Node::new("127.0.0.1", port)], patient());
    let begun = std::time::Instant::now();
    let late = client.with_timeout(S / 20).get("k");
    assert!(late.is_err_and(|error| error.is_timeout()));
    client
        .with_ack(Ack::None)
        .set("k", "v", 60)
        .expect("it is sent");
    assert_eq!(client.with_ack(Ack::None).delete("k"), Ok(true));
    assert!(begun.elapsed() < 5 * S);

    against_all(|node| {
        let client = Client::new([node], patient());
        let hurried = client.with_ack(Ack::None);
        let keys: Vec<String> = (0..50).map(|i| format!("k{i}")).collect();
        for key in &keys {
            hurried.set(key, key, 60).expect("it is sent");
        }
        let _ = hurried.set_multi(keys.iter().map(|key| (format!("m{key}"), key)), 60);
        wait_until("all are there", || {
            let found = client.get_multi(&keys);
            let more: Vec<_> = keys.iter().map(|key| format!("m{key}")).collect();
            let found_more = client.get_multi(&more);
            let all = found.iter().chain(&found_more);
            all.filter(|found| matches!(found, Ok(Some(_)))).count() == 100
        });
        let added = hurried.add("k0", "other", 60);
        assert_eq!(added, Ok(false), "it asks the node");
    });
}

#[test]
fn a_closed_client_has_no_node_and_no_connection() {
    let node = TestNode::start();
    let client = Client::new([node.node()], patient());
    let reached = client.warm_up();
    assert!(reached.len() == 1 && reached[0].1.is_ok());
    let clone = client.clone();
    client.close();
    assert_eq!(clone.get("k"), Err(Error::NoNode));
    clone.set_nodes([node.node()], Duration::ZERO);
    assert_eq!(clone.get("k"), Err(Error::NoNode), "for good");
    node.cut_off();
    let reached = Client::new([node.node()], ClientOptions::default()).warm_up();
    assert!(reached[0].1.is_err());
}

#[test]
fn a_client_survives_a_panic() {
    fn is_unwind_safe<T: UnwindSafe>() {}
    is_unwind_safe::<ketch_client::Client>();
    is_unwind_safe::<&ketch_client::AsyncClient>();
    let node = TestNode::start();
    let client = Client::new([node.node()], patient());
    client.set("k", "v", 60).expect("up");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        client.update("k", 60, |_| -> Option<Item> { panic!("no") })
    }));
    assert!(panicked.is_err());
    assert_eq!(client.get("k"), Ok(Some("v".into())));
    let client: ketch_client::Client = node.node().to_string().parse().expect("a node");
    assert!(format!("{client:?}").contains(&node.address().port().to_string()));
}

#[test]
fn meta_commands_as_they_are_written() {
    against_all(|node| {
        let client = Client::new([node], patient().prefix("p:"));
        let meta = |request: MetaRequest| client.meta(request).expect("up");
        for key in ["k", "a key in base64"] {
            let missing = meta(MetaRequest::get(key).flag("v"));
            assert_eq!(
                (missing.outcome, missing.flag('W')),
                (MetaOutcome::Missing, None)
            );
            let set = || MetaRequest::set(key, "v\r\nw").flag("T60").flag("F7");
            assert_eq!(meta(set().flag("MR")).outcome, MetaOutcome::NotStored);
            let stored = meta(set().flag("c"));
            let unique = stored.flag('c').expect("asked for").to_owned();
            let found = meta(
                MetaRequest::get(key)
                    .flag("v")
                    .flag("f")
                    .flag("s")
                    .flag("t")
                    .flag("c"),
            );
            assert_eq!(&found.value[..], b"v\r\nw");
            assert_eq!(
                (found.flag('f'), found.flag('s'), found.flag('c')),
                (Some("7"), Some("4"), Some(&*unique))
            );
            assert!(
                found
                    .flag('t')
                    .is_some_and(|left| ["59", "60"].contains(&left))
            );
            assert_eq!(client.get(key), Ok(Some(Item::new("v\r\nw", 7))));
            assert_eq!(
                meta(MetaRequest::delete(key).flag("C987654321")).outcome,
                MetaOutcome::Exists
            );
            assert_eq!(
                meta(MetaRequest::delete(key).flag(format!("C{unique}"))).outcome,
                MetaOutcome::Done
            );
            let counted = meta(
                MetaRequest::arithmetic(key)
                    .flag("N60")
                    .flag("J5")
                    .flag("v"),
            );
            assert_eq!(&counted.value[..], b"5");
        }
        // What would break the conversation is not sent.
        for flag in ["q", "O1", "k", "b", "", "v\r\nflush_all", "T 1", "\u{e9}"] {
            let refused = client.meta(MetaRequest::get("k").flag(flag));
            assert!(matches!(refused, Err(Error::Value(_))), "{flag:?}");
        }
        assert!(matches!(
            client.meta(MetaRequest::get("")),
            Err(Error::Key(_))
        ));
        assert_eq!(client.get("none"), Ok(None), "the connection goes on");
    });
}
