//! `ketchctl copy` as a process, from and to stock memcached and ketch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::run::{stdout, told};
use crate::as_node::AsNode;
use ketch_client::continuum::{Continuum, Distribution};
use ketch_client::{Client, ClientOptions, Node};
use ketch_testing::{KINDS, Kind, PATIENCE, Server};

pub fn servers(kind: Kind, count: usize) -> Vec<Server> {
    (0..count)
        .map(|_| kind.start_with(&["-m", "128"]))
        .collect()
}

pub fn nodes(servers: &[Server]) -> Vec<Node> {
    servers.iter().map(Server::node).collect()
}

pub fn list(servers: &[Server]) -> String {
    let addresses = servers.iter().map(|server| server.node().address());
    addresses.collect::<Vec<_>>().join(",")
}

pub fn client(servers: &[Server]) -> Client {
    let options = ClientOptions::default()
        .request_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .connect_timeout(PATIENCE);
    Client::new(nodes(servers), options)
}

/// Every tenth key is binary.
pub fn key(index: u32) -> Vec<u8> {
    match index % 10 {
        0 => [&index.to_be_bytes()[..], b" \0\n%"].concat(),
        _ => format!("user:{index}").into_bytes(),
    }
}

pub fn value(index: u32) -> Vec<u8> {
    let len = if index % 5000 == 1 {
        300_000
    } else {
        index % 300
    };
    index
        .to_be_bytes()
        .into_iter()
        .cycle()
        .take(len as usize)
        .collect()
}

/// A third for ever, the others for hours or months.
pub fn ttl(index: u32) -> Option<Duration> {
    let hours = [0, 2, 24 * 90][index as usize % 3];
    (hours > 0).then(|| Duration::from_secs(hours * 3600))
}

/// The time to live that a server tells of an item is that of its key.
#[track_caller]
pub fn check_ttl(server: &Server, index: u32) {
    let text = format!("user:{index}");
    let told = server.ask(&format!("mg {text} t\r\nmn\r\n"), "MN\r\n");
    let Some(left) = told.strip_prefix("HD t") else {
        return;
    };
    let left: i64 = left.split("\r\n").next().unwrap().parse().expect("seconds");
    match ttl(index) {
        None => assert_eq!(left, -1),
        Some(ttl) => {
            let lost = ttl.as_secs() as i64 - left;
            // Above 30 days they are points in time, by clocks that tick apart.
            assert!((-2..=120).contains(&lost), "{index}: {left} of {ttl:?}");
        }
    }
}

const ITEMS: u32 = 50_000;

pub fn fill(client: &Client, items: u32) {
    let indices: Vec<u32> = (0..items).collect();
    for some in indices.chunks(500) {
        let values: Vec<Vec<u8>> = some.iter().map(|&index| value(index)).collect();
        let entries = some.iter().zip(&values);
        let entries = entries.map(|(&index, value)| (key(index), (value, index), ttl(index)));
        for stored in client.fill_multi(entries, true) {
            assert_eq!(stored, Ok(true));
        }
    }
}

pub fn count_of(summary: &str, before: &str) -> u64 {
    let at = summary.find(before).expect("a count");
    let word = summary[..at].split_whitespace().last().expect("a count");
    word.replace(',', "").parse().expect("a count")
}

/// From two nodes to three, of the other kind, while the sources are in use.
#[test]
fn fifty_thousand_items_from_two_nodes_to_three() {
    for (from, to) in [
        (Kind::Memcached, Kind::Ketch),
        (Kind::Ketch, Kind::Memcached),
    ] {
        let (sources, targets) = (servers(from, 2), servers(to, 3));
        let source = client(&sources);
        fill(&source, ITEMS);
        let target = client(&targets);
        // What is there is newer.
        target.set("user:1", "newer", None).expect("up");
        let over = AtomicBool::new(false);
        let summary = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut turn = 0u32;
                while !over.load(Ordering::Relaxed) {
                    turn += 1;
                    let other = format!("load:{}", turn % 1000);
                    source.set(&other, turn.to_string(), None).expect("up");
                    source.get(key(turn % ITEMS)).expect("up");
                }
                turn
            });
            let (from, to) = (list(&sources), list(&targets));
            let result = told(&["copy", "--from", &from, "--to", &to, "-t", "20"]);
            over.store(true, Ordering::Relaxed);
            assert!(load.join().expect("no panic") > 0);
            let (status, summary, error) = result;
            assert_eq!((status, error.as_str()), (0, ""), "{summary}");
            summary
        });
        let copied = count_of(&summary, " items,");
        assert!(copied >= u64::from(ITEMS) - 1, "{summary}");
        assert_eq!(count_of(&summary, " were there"), 1, "{summary}");
        assert_eq!(count_of(&summary, " failed"), 0, "{summary}");

        let mut missing = 0;
        let indices: Vec<u32> = (0..ITEMS).collect();
        for some in indices.chunks(500) {
            let keys: Vec<Vec<u8>> = some.iter().map(|&index| key(index)).collect();
            for (&index, found) in some.iter().zip(target.get_multi(&keys)) {
                match found.expect("up") {
                    None => missing += 1,
                    Some(item) if index == 1 => assert_eq!(&item.value[..], b"newer"),
                    Some(item) => {
                        assert!(item.value[..] == value(index)[..], "{index}");
                        assert_eq!(item.flags, index);
                    }
                }
            }
        }
        assert_eq!(missing, 0, "{from:?}");
        // Times to live, as the node that owns the key tells them.
        let ring = Continuum::new(Distribution::default(), &nodes(&targets));
        for index in (1..ITEMS).filter(|index| index % 10 != 0 && index % 997 == 2) {
            let text = format!("user:{index}");
            let owner = &targets[ring.locate(text.as_bytes()).expect("nodes")];
            check_ttl(owner, index);
        }
        // Again: everything is there, but for what was written meanwhile.
        let again = stdout(
            &["copy", "--from", &list(&sources), "--to", &list(&targets)],
            "",
        );
        assert!(count_of(&again, " items,") <= 1000, "{again}");
    }
}

#[test]
fn a_cluster_that_grows_by_a_node_of_its_own() {
    let kinds = [Kind::Ketch, Kind::Memcached, Kind::Ketch];
    let all: Vec<Server> = kinds.into_iter().map(Kind::start).collect();
    let before = client(&all[..2]);
    for index in 0..3000 {
        before
            .set(format!("k{index}"), index.to_string(), None)
            .expect("up");
    }
    let words = [
        "copy",
        "--from",
        &list(&all[..2]),
        "--to",
        &list(&all),
        "--workers",
        "1",
    ];
    let summary = stdout(&words, "");
    let (moved, stay) = (count_of(&summary, " items,"), count_of(&summary, " stay"));
    assert_eq!(moved + stay, 3000, "{summary}");
    assert!((600..1400).contains(&moved), "{summary}");
    let after = client(&all);
    for index in 0..3000 {
        assert!(
            after.get(format!("k{index}")).expect("up").is_some(),
            "k{index}"
        );
    }
}

#[test]
fn what_is_not_to_be_copied() {
    for kind in KINDS {
        let (source, target) = (kind.start(), kind.start());
        let request = "set a 0 0 1\r\nA\r\nset b:1 0 100 2\r\nB1\r\nset b:2 3 0 2\r\nB2\r\n\
                       set b:stale 0 0 1\r\nS\r\nmd b:stale I T300\r\nmg b:lease N300 v\r\nmn\r\n";
        source.ask(request, "MN\r\n");
        target.ask("set b:2 0 0 3\r\nnew\r\nmn\r\n", "MN\r\n");
        let (from, to) = (source.node().address(), target.node().address());
        let words = ["copy", "--from", &from, "--to", &to, "--prefix", "b:"];
        let summary = stdout(&words, "");
        assert_eq!(count_of(&summary, " items,"), 1, "{kind:?}: {summary}");
        assert_eq!(count_of(&summary, " were there"), 1, "{summary}");
        assert_eq!(count_of(&summary, " stale or leased"), 2, "{summary}");
        assert_eq!(target.holds("b:2").as_deref(), Some("new"));
        assert_eq!(target.holds("a"), None);
        stdout(&[&words[..], &["--overwrite"]].concat(), "");
        assert_eq!(target.holds("b:2").as_deref(), Some("B2"));
        // What is stale is so still, and the right to compute it anew is not taken.
        let told = source.ask("mg b:stale v t\r\nmg b:lease v\r\nmn\r\n", "MN\r\n");
        let lines: Vec<&str> = told.split("\r\n").collect();
        assert!(
            lines[0].ends_with(" X W") || lines[0].ends_with(" W X"),
            "{kind:?}: {told}"
        );
        assert!(lines[0].starts_with("VA 1 t") && lines[1] == "S", "{told}");
        assert_eq!(lines[2], "VA 0 Z", "{told}");
    }
}

#[test]
fn a_copy_keeps_its_pace() {
    let (source, target) = (Kind::Ketch.start(), Kind::Ketch.start());
    let filler = client(std::slice::from_ref(&source));
    for index in 0..300 {
        filler
            .set(format!("k{index}"), "v".repeat(1000), None)
            .expect("up");
    }
    let (from, to) = (source.node().address(), target.node().address());
    for limit in [["--rate", "250"], ["--byte-rate", "256k"]] {
        target.ask("flush_all\r\nmn\r\n", "MN\r\n");
        let begun = Instant::now();
        let words = [
            &["copy", "--from", &from, "--to", &to, "--progress"][..],
            &limit,
        ]
        .concat();
        let (status, summary, progress) = told(&words);
        assert_eq!(status, 0);
        assert!(summary.starts_with("copied 300 items"), "{summary}");
        assert!(progress.contains("] 100 %  300 of about 300"), "{progress}");
        assert!(
            begun.elapsed() > Duration::from_millis(1000),
            "{limit:?}: {summary}"
        );
    }
}

#[test]
fn nodes_that_are_down() {
    let source = Kind::Memcached.start();
    let mut targets = servers(Kind::Memcached, 2);
    let filler = client(std::slice::from_ref(&source));
    for index in 0..1000 {
        filler.set(format!("k{index}"), "v", None).expect("up");
    }
    let (from, to) = (source.node().address(), list(&targets));
    targets[1].kill();
    let (status, summary, error) = told(&["copy", "--from", &from, "--to", &to]);
    assert_eq!(status, 1);
    let (copied, failed) = (count_of(&summary, " items,"), count_of(&summary, " failed"));
    assert_eq!(copied + failed, 1000, "{summary}");
    assert!(copied > 200 && failed > 200, "{summary}");
    assert!(error.contains(": cannot connect"), "{error}");
    // A source that is down does not keep the other from being copied.
    let dead = targets[1].node().address();
    let sources = format!("{dead},{from}");
    targets[0].ask("flush_all\r\nmn\r\n", "MN\r\n");
    let (status, summary, error) = told(&[
        "copy",
        "--from",
        &sources,
        "--to",
        &targets[0].node().address(),
    ]);
    assert_eq!(status, 1);
    assert!(summary.starts_with("copied 1,000 items"), "{summary}");
    let told_of_it =
        format!("ketchctl: {dead}: its keys could not all be listed: cannot connect\n");
    assert_eq!(error, told_of_it);
    // Nobody to copy to: it does not read all of the source for nothing.
    let (status, summary, _) = told(&["copy", "--from", &from, "--to", &dead, "--rate", "500"]);
    assert_eq!(status, 1);
    assert!(summary.starts_with("copied 0 items"), "{summary}");
    assert!(count_of(&summary, " failed") > 0, "{summary}");
}

#[test]
fn each_copy_on_a_node_of_its_own() {
    let source = Kind::Memcached.start();
    let targets = servers(Kind::Ketch, 3);
    let filler = client(std::slice::from_ref(&source));
    for index in 0..500 {
        filler.set(format!("k{index}"), "v", None).expect("up");
    }
    let (from, to) = (source.node().address(), list(&targets));
    let words = ["copy", "--from", &from, "--to", &to, "--copies", "2"];
    let summary = stdout(&words, "");
    assert!(summary.starts_with("copied 500 items"), "{summary}");
    let held_twice = || {
        for index in 0..500 {
            let key = format!("k{index}");
            let holders = targets.iter().filter(|target| target.holds(&key).is_some());
            assert_eq!(holders.count(), 2, "{key}");
        }
    };
    held_twice();
    // A copy that is lost is filled from the source again, beside the one that is there.
    targets[0].ask("flush_all\r\nmn\r\n", "MN\r\n");
    stdout(&words, "");
    held_twice();
}

#[test]
fn from_and_to_unix_sockets() {
    for kind in KINDS {
        let servers = [kind.start_unix(), kind.start_unix()];
        let source = client(&servers[..1]);
        fill(&source, 1000);
        let (from, to) = (list(&servers[..1]), servers[1].node().host);
        let (status, summary, error) = told(&["copy", "--from", &from, "--to", &to]);
        assert_eq!((status, error.as_str()), (0, ""), "{kind:?}: {summary}");
        assert_eq!(count_of(&summary, " items,"), 1000, "{kind:?}: {summary}");
        let target = client(&servers[1..]);
        let found = target.get(key(7)).expect("up").expect("copied");
        assert_eq!((&found.value[..], found.flags), (&value(7)[..], 7));
        let (status, told, _) = told(&["ping", "-s", &to, "-c", "1"]);
        assert!(status == 0 && told.contains("unix:/"), "{told}");
    }
}
