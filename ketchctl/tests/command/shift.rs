//! `ketchctl drain` and `rebalance` as processes: rings of real servers in a real etcd, with clients at work meanwhile.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::run::{stdout, told};
use crate::as_node::AsNode;
use ketch_client::topology::{FollowOptions, RegisteredNodes};
use ketch_client::{Client, ClientOptions};
use ketch_testing::{Etcd, Kind, PATIENCE, Server, wait_within};

fn join(url: &str, name: &str, more: &str) -> Server {
    let option = format!("register={url},node_name={name}{more}");
    Kind::Ketch.start_with(&["-m", "128", "-o", &option])
}

/// A client that follows the ring, and never asks where a key was before: what the tools leave out it misses.
fn client(url: &str, copies: usize) -> Client {
    let ring: RegisteredNodes = url.parse().expect("a ring");
    let options = ClientOptions::default()
        .copies(copies)
        .request_timeout(PATIENCE)
        .attempt_timeout(PATIENCE);
    let follow = FollowOptions::default().dual_read(Duration::ZERO);
    Client::follow(ring, options, follow).expect("there are nodes")
}

fn wait_for_nodes(url: &str, count: usize) {
    wait_within("the ring is as it should be", PATIENCE, || {
        let (_, out, _) = told(&["nodes", "-s", url]);
        out.contains(&format!(", {count} nodes"))
    });
}

/// Clients at work on keys that each of them has alone: they read what they wrote, change it, delete it.
struct Load {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn begin(url: &str, copies: usize) -> Load {
        let (stop, reads) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let client = client(url, copies);
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = RUNS.fetch_add(1, Relaxed);
        let thread = |at: usize| {
            let (client, stop, reads) = (client.clone(), stop.clone(), reads.clone());
            thread::spawn(move || {
                let mut model: Vec<Option<u64>> = vec![None; 500];
                let mut wrong = Vec::new();
                let mut random = ketch_testing::Rng::new(at as u64 + 1);
                let mut count = 0;
                let begun = std::time::Instant::now();
                while !stop.load(Relaxed) {
                    let n = random.below(model.len() as u64) as usize;
                    let key = format!("load:{run}:{at}:{n}");
                    count += 1;
                    let done = match random.below(10) {
                        0 => client.delete(&key).map(|_| model[n] = None),
                        1 | 2 => client
                            .set(&key, count.to_string(), None)
                            .map(|()| model[n] = Some(count)),
                        _ => client.get(&key).map(|found| {
                            reads.fetch_add(1, Relaxed);
                            let found = found
                                .map(|value| String::from_utf8_lossy(&value.value).into_owned());
                            let wanted = model[n].map(|n| n.to_string());
                            if found != wanted {
                                wrong.push(format!(
                                    "{:?}: {key}: {found:?} for {wanted:?}",
                                    begun.elapsed()
                                ));
                                model[n] = None;
                                let _ = client.delete(&key);
                            }
                        }),
                    };
                    if let Err(error) = done {
                        wrong.push(format!("{key}: {error}"));
                    }
                }
                wrong
            })
        };
        let threads = (0..3).map(thread).collect();
        Load {
            stop,
            reads,
            threads,
        }
    }

    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Relaxed);
        let wrong = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"));
        (self.reads.load(Relaxed), wrong.collect())
    }
}

fn fill(url: &str, copies: usize, count: usize) {
    let client = client(url, copies);
    for n in 0..count {
        let ttl = (n % 3 == 0).then_some(Duration::from_secs(3600));
        client
            .set(format!("key:{n}"), format!("value:{n}"), ttl)
            .expect("it is stored");
    }
}

fn misses(url: &str, copies: usize, count: usize) -> usize {
    let client = client(url, copies);
    let is_right = |n: &usize| {
        let found = client.get(format!("key:{n}")).expect("no error");
        found.is_some_and(|value| *value.value == *format!("value:{n}").as_bytes())
    };
    (0..count).filter(|n| !is_right(n)).count()
}

#[test]
fn a_node_is_drained_under_load() {
    let etcd = Etcd::start();
    let url = etcd.url("drain");
    let mut servers = ["a", "b", "c"].map(|name| join(&url, name, ""));
    wait_for_nodes(&url, 3);
    fill(&url, 1, 5000);
    let load = Load::begin(&url, 1);
    let dry = stdout(&["drain", "b", "-s", &url, "--dry-run"], "");
    assert!(
        dry.contains("would copy ")
            && dry.contains("from b to a")
            && dry.contains("nothing was changed"),
        "{dry}"
    );
    let done = stdout(&["drain", "b", "-s", &url, "--settle", "500ms"], "");
    assert!(
        done.contains("b leaves the ring") && done.contains("it may be stopped"),
        "{done}"
    );
    println!("{done}");
    wait_for_nodes(&url, 2);
    servers[1].kill();
    assert_eq!(misses(&url, 1, 5000), 0);
    let (reads, wrong) = load.end();
    assert!(wrong.is_empty(), "of {reads}: {wrong:?}");
    assert!(reads > 100, "{reads}");
    // What lives for a while still does: the copies have their times.
    let owner = stdout(&["ring", "-s", &url], "key:0\n");
    let address = owner.trim().rsplit('\t').next().expect("a node");
    let (_, verbose, _) = told(&["get", "-v", "-s", address, "key:0"]);
    assert!(!verbose.is_empty());
}

#[test]
fn a_new_node_is_filled_under_load() {
    let etcd = Etcd::start();
    let url = etcd.url("grow");
    let _servers = ["a", "b", "c"].map(|name| join(&url, name, ""));
    wait_for_nodes(&url, 3);
    fill(&url, 1, 5000);
    let load = Load::begin(&url, 1);
    let nothing = stdout(&["rebalance", "-s", &url], "");
    assert!(nothing.contains("no node waits"), "{nothing}");
    let d = join(&url, "d", ",node_weight=0");
    wait_within("it waits", PATIENCE, || {
        stdout(&["rebalance", "-s", &url, "--dry-run"], "").contains(" to d")
    });
    // What it holds from another time is not believed.
    d.connect()
        .round("set key:1 0 0 3\r\nold\r\n", "STORED\r\n");
    let done = stdout(&["rebalance", "-s", &url, "--settle", "500ms"], "");
    println!("{done}");
    assert!(done.contains("d takes its share"), "{done}");
    wait_for_nodes(&url, 4);
    assert_eq!(misses(&url, 1, 5000), 0);
    assert!(d.connect().stat("curr_items") > 800);
    let begun = std::time::Instant::now();
    let (reads, wrong) = load.end();
    assert!(wrong.is_empty(), "of {reads}: {wrong:?}");
    // Out, and in again. (Another client: one that was there before sends deletes to where keys were, and believes nothing from
    // there until they are answered.)
    let load = Load::begin(&url, 1);
    println!(
        "{:?} {}",
        begun.elapsed(),
        stdout(&["drain", "d", "-s", &url, "--settle", "100ms"], "")
    );
    wait_for_nodes(&url, 3);
    assert_eq!(misses(&url, 1, 5000), 0);
    let (reads, wrong) = load.end();
    assert!(wrong.is_empty(), "of {reads}: {wrong:?}");
    let load = Load::begin(&url, 1);
    println!(
        "{:?} {}",
        begun.elapsed(),
        stdout(&["rebalance", "d", "-s", &url, "--settle", "100ms"], "")
    );
    println!("{:?}", begun.elapsed());
    wait_for_nodes(&url, 4);
    assert_eq!(misses(&url, 1, 5000), 0);
    let (reads, wrong) = load.end();
    assert!(wrong.is_empty(), "of {reads}: {wrong:?}");
}

/// Five nodes are restarted one after the other, as an upgrade does it, while a client reads.
#[test]
fn five_nodes_are_restarted_one_after_the_other() {
    let etcd = Etcd::start();
    let url = etcd.url("rolling");
    let names = ["a", "b", "c", "d", "e"];
    let mut servers = names.map(|name| join(&url, name, ""));
    wait_for_nodes(&url, 5);
    fill(&url, 1, 5000);
    let reader = Reader::begin(&url, 5000);
    for (server, name) in servers.iter_mut().zip(names) {
        stdout(&["drain", name, "-s", &url, "--settle", "200ms"], "");
        server.kill();
        *server = join(&url, name, ",node_weight=0");
        wait_within("it waits", PATIENCE, || {
            told(&["nodes", "-s", &url]).1.contains(" standby")
        });
        stdout(&["rebalance", name, "-s", &url, "--settle", "200ms"], "");
        wait_for_nodes(&url, 5);
    }
    let (reads, misses, errors) = reader.end();
    println!(
        "rolling restart: {reads} reads, {misses} misses, {} errors",
        errors.len()
    );
    assert!(
        errors.is_empty() && misses == 0,
        "of {reads}: {misses} misses, {errors:?}"
    );
    assert_eq!(self::misses(&url, 1, 5000), 0);
}

/// What a new node costs: filled before it takes its share, and as it is.
#[test]
fn growth_with_and_without() {
    for is_filled in [true, false] {
        let etcd = Etcd::start();
        let url = etcd.url("growth");
        let _servers = ["a", "b", "c"].map(|name| join(&url, name, ""));
        wait_for_nodes(&url, 3);
        fill(&url, 1, 5000);
        let reader = Reader::begin(&url, 5000);
        let _d = match is_filled {
            true => {
                let d = join(&url, "d", ",node_weight=0");
                wait_within("it waits", PATIENCE, || {
                    stdout(&["nodes", "-s", &url], "").contains(" standby")
                });
                stdout(&["rebalance", "-s", &url, "--settle", "200ms"], "");
                d
            }
            false => join(&url, "d", ""),
        };
        wait_for_nodes(&url, 4);
        let missed = misses(&url, 1, 5000);
        let (reads, misses, errors) = reader.end();
        println!(
            "3 -> 4, filled: {is_filled}: {misses} of {reads} reads missed, {missed} of 5000 keys"
        );
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(
            (missed == 0, misses == 0),
            (is_filled, is_filled),
            "{missed}, {misses} of {reads}"
        );
    }
}

/// Reads the keys of [`fill`] over and over, as a client that asks for a key where it lives, and nowhere else.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<(u64, u64, Vec<String>)>,
}

impl Reader {
    fn begin(url: &str, count: usize) -> Reader {
        let (client, stop) = (client(url, 1), Arc::new(AtomicBool::new(false)));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let (mut reads, mut misses, mut errors) = (0, 0, Vec::new());
            while !told.load(Relaxed) {
                match client.get(format!("key:{}", reads as usize % count)) {
                    Ok(Some(_)) => {}
                    Ok(None) => misses += 1,
                    Err(error) => errors.push(error.to_string()),
                }
                reads += 1;
            }
            (reads, misses, errors)
        });
        Reader { stop, thread }
    }

    fn end(self) -> (u64, u64, Vec<String>) {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("no panic")
    }
}

#[test]
fn with_copies() {
    let etcd = Etcd::start();
    let url = etcd.url("copies");
    let mut servers = ["a", "b", "c", "d"].map(|name| join(&url, name, ""));
    wait_for_nodes(&url, 4);
    fill(&url, 2, 3000);
    stdout(
        &[
            "drain", "a", "-s", &url, "--copies", "2", "--settle", "100ms",
        ],
        "",
    );
    servers[0].kill();
    assert_eq!(misses(&url, 2, 3000), 0);
    // Each key is on two nodes again: one of them may go.
    servers[1].kill();
    assert_eq!(misses(&url, 2, 3000), 0);
}

/// Broken off before the ring has changed, nothing is left of it.
#[test]
fn broken_off_it_takes_back_what_it_stored() {
    let etcd = Etcd::start();
    let url = etcd.url("off");
    let servers = ["a", "b"].map(|name| join(&url, name, ""));
    wait_for_nodes(&url, 2);
    fill(&url, 1, 5000);
    let items = servers[0].connect().stat("curr_items");
    let words = ["drain", "b", "-s", &url, "--rate", "500", "--workers", "1"];
    let child = Command::new(env!("CARGO_BIN_EXE_ketchctl"))
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    wait_within("it has begun", PATIENCE, || {
        servers[0].connect().stat("curr_items") > items + 50
    });
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status();
    assert!(sent.expect("there is kill").success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("the ring is as it was"), "{text}");
    assert_eq!(servers[0].connect().stat("curr_items"), items);
    wait_for_nodes(&url, 2);
}

/// A list that only people change: the command says when, and waits.
#[test]
fn a_list_that_people_keep() {
    for kind in ketch_testing::KINDS {
        let servers = [0, 1, 2].map(|_| kind.start_with(&["-m", "64"]));
        let addresses = servers.each_ref().map(|server| server.node().address());
        let file =
            std::env::temp_dir().join(format!("ketch-shift-{}-{kind:?}", std::process::id()));
        let write = |count: usize| {
            let draft = file.with_extension("new");
            std::fs::write(&draft, addresses[..count].join("\n")).expect("a file");
            std::fs::rename(&draft, &file).expect("it is renamed");
        };
        write(3);
        let source = format!("file://{}", file.display());
        let client = |count: usize| {
            let options = ClientOptions::default()
                .request_timeout(PATIENCE)
                .attempt_timeout(PATIENCE);
            Client::new(
                servers[..count]
                    .iter()
                    .map(AsNode::node)
                    .collect::<Vec<_>>(),
                options,
            )
        };
        let all = client(3);
        for n in 0..2000 {
            all.set(format!("key:{n}"), "v", None)
                .expect("it is stored");
        }
        let child = Command::new(env!("CARGO_BIN_EXE_ketchctl"))
            .args(["drain", &addresses[2], "-s", &source, "--settle", "100ms"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let two = client(2);
        wait_within("all is copied", PATIENCE, || {
            (0..2000).all(|n| two.get(format!("key:{n}")).expect("no error").is_some())
        });
        // What changes until the list does.
        let moved: Vec<String> = (0..2000)
            .map(|n| format!("key:{n}"))
            .filter(|key| {
                let owner = stdout(&["ring", "-s", &source], &format!("{key}\n"));
                owner.contains(&addresses[2])
            })
            .take(20)
            .collect();
        all.set(&moved[0], "changed", None).expect("it is stored");
        all.delete(&moved[1]).expect("it is deleted");
        thread::sleep(Duration::from_millis(300));
        write(2);
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        assert!(
            text.contains(&format!("now take {} out of {source}", addresses[2])),
            "{text}"
        );
        let found = |key: &str| {
            two.get(key)
                .expect("no error")
                .map(|value| value.value.to_vec())
        };
        assert_eq!(
            found(&moved[0]).as_deref(),
            Some(&b"changed"[..]),
            "{kind:?}: {text}"
        );
        assert_eq!(found(&moved[1]), None, "{kind:?}: {text}");
        assert_eq!(found(&moved[2]).as_deref(), Some(&b"v"[..]), "{kind:?}");
        std::fs::remove_file(&file).expect("it is there");
    }
}

#[test]
fn wrong_words() {
    for (words, status, told_of) in [
        (&["drain"][..], 2, "which node?"),
        (&["drain", "a"], 2, "--servers is missing"),
        (
            &["drain", "z", "-s", "127.0.0.1:1,127.0.0.1:2"],
            1,
            "z is no node",
        ),
        (
            &["drain", "127.0.0.1:1", "-s", "127.0.0.1:1"],
            1,
            "the only node",
        ),
        (&["rebalance", "a", "b", "-s", "x"], 2, "what is b?"),
        (&["rebalance", "-s", "x", "--weight", "0"], 2, "--weight 0"),
    ] {
        let (code, _, error) = told(words);
        assert_eq!(code, status, "{words:?}: {error}");
        assert!(error.contains(told_of), "{words:?}: {error}");
    }
}
