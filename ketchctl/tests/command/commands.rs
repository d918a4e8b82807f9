//! The commands but `ring` and `copy`, as processes, against stock memcached and ketch.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::run::{ketchctl, stdout, told};
use crate::as_node::AsNode;
use ketch_testing::{Etcd, KINDS, Kind, PATIENCE, Server, nobody, wait_within};

fn list(servers: &[Server]) -> String {
    let addresses = servers.iter().map(|server| server.node().address());
    addresses.collect::<Vec<_>>().join(",")
}

/// An address where nobody listens.

#[test]
fn values_in_and_out() {
    for kind in KINDS {
        let servers = [kind.start(), kind.start()];
        let nodes = list(&servers);
        let run = |words: &[&str]| told(&[&[words[0], "-s", &nodes][..], &words[1..]].concat());
        let done = |out: &str| (0, out.to_owned(), String::new());
        let missed = |text: &str| (3, String::new(), format!("ketchctl: {text}\n"));

        assert_eq!(
            run(&["get", "k"]),
            missed("the key is not there"),
            "{kind:?}"
        );
        assert_eq!(
            run(&["set", "k", "v", "--flags", "7", "--ttl", "1h"]),
            done("")
        );
        assert_eq!(run(&["get", "k"]), done("v"));
        let (_, _, verbose) = run(&["get", "-v", "k"]);
        assert!(verbose.contains("client flags 7, 1 bytes"), "{verbose}");
        let add = ["set", "k", "w", "--mode", "add"];
        assert_eq!(run(&add), missed("the key is there already"));
        assert_eq!(run(&["set", "k", "+", "--mode", "append"]), done(""));
        assert_eq!(run(&["get", "k"]), done("v+"));
        let replace = ["set", "none", "w", "--mode", "replace"];
        assert_eq!(run(&replace), missed("the key is not there"));

        // Any bytes, from standard input, under any key.
        let value: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let set = ["set", "-s", &nodes, "--base64", "AAEg"];
        assert!(ketchctl(&set, value.clone()).status.success());
        let get = ["get", "-s", &nodes, "--base64", "AAEg"];
        assert_eq!(ketchctl(&get, Vec::new()).stdout, value);

        assert_eq!(run(&["incr", "n"]), missed("the key is not there"));
        assert_eq!(
            run(&["incr", "n", "--create", "40", "--ttl", "60"]),
            done("40\n")
        );
        assert_eq!(run(&["incr", "n"]), done("41\n"));
        assert_eq!(run(&["decr", "n", "40"]), done("1\n"));
        let (status, _, error) = run(&["incr", "k"]);
        assert_eq!(status, 1);
        assert_eq!(error, "ketchctl: the value is not a number\n");

        assert_eq!(run(&["touch", "k", "--ttl", "90"]), done(""));
        let left = |key: &str| {
            let told = servers
                .iter()
                .map(|server| server.ask(&format!("mg {key} t\r\nmn\r\n"), "MN\r\n"));
            told.filter(|told| told.starts_with("HD"))
                .collect::<String>()
        };
        assert!(left("k").starts_with("HD t90") || left("k").starts_with("HD t8"));
        assert_eq!(
            run(&["touch", "none", "--ttl", "0"]),
            missed("the key is not there")
        );

        assert_eq!(run(&["delete", "k"]), done(""));
        assert_eq!(run(&["delete", "k"]), missed("the key is not there"));
        assert_eq!(
            run(&["delete", "k", "n"]),
            missed("1 of 2 keys are not there")
        );
    }
}

#[test]
fn a_dead_node_is_an_error_and_no_miss() {
    let nobody = nobody();
    for words in [
        &["get", "k"][..],
        &["set", "k", "v"],
        &["delete", "k"],
        &["incr", "k"],
        &["touch", "k", "--ttl", "1"],
    ] {
        let (status, out, error) = told(&[words, &["-s", &nobody]].concat());
        assert_eq!((status, out.as_str()), (1, ""), "{words:?}");
        assert!(error.contains("cannot connect"), "{words:?}: {error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn statistics_with_a_node_that_is_down() {
    let servers = KINDS.map(Kind::start);
    let nodes = format!("{},{}", list(&servers), nobody());
    stdout(&["set", "-s", &servers[1].node().address(), "k", "v"], "");
    let (status, table, error) = told(&["stats", "-s", &nodes]);
    assert_eq!(status, 1);
    assert!(
        error.ends_with(": cannot connect\n") && error.lines().count() == 1,
        "{error}"
    );
    let row = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name));
        let cells = line.expect("a row")[name.len()..].split_whitespace();
        cells.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("curr_items"), ["0", "1", "-", "1"]);
    assert_eq!(row("cmd_set"), ["0", "1", "-", "1"]);
    assert!(table.contains("(ketch "), "{table}");

    let (status, json, _) = told(&["stats", "--json", "-s", &nodes]);
    assert_eq!(status, 1);
    assert!(
        json.contains(r#""curr_items":1,"#) && json.contains(r#"{"error":"#),
        "{json}"
    );
    let raw = stdout(&["stats", "-s", &list(&servers), "settings"], "");
    assert!(
        raw.lines().any(|line| line.starts_with("maxbytes ")),
        "{raw}"
    );
    let all = stdout(&["stats", "-s", &list(&servers), "--all"], "");
    assert!(
        all.lines().any(|line| line.starts_with("rusage_user ")),
        "{all}"
    );
}

#[test]
fn ping_tells_who_is_down() {
    let servers = KINDS.map(Kind::start);
    let nodes = list(&servers);
    let up = stdout(&["ping", "-s", &nodes, "--count", "2", "-i", "10ms"], "");
    assert_eq!(up.matches("0 of 3").count(), 2, "{up}");
    let nobody = nobody();
    let nodes = format!("{nodes},{nobody}");
    let (status, table, error) = told(&["ping", "-s", &nodes, "-c", "1", "-i", "0"]);
    assert_eq!(status, 1);
    assert_eq!(error, format!("ketchctl: {nobody}: cannot connect\n"));
    assert!(
        table.contains("0 of 2") && table.contains("2 of 2"),
        "{table}"
    );
    // One that takes connections and says nothing.
    servers[0].freeze(true);
    let begun = Instant::now();
    let (status, table, _) = told(&["ping", "-s", &nodes, "-c", "1", "-t", "300ms"]);
    assert_eq!(status, 1);
    assert_eq!(table.matches("2 of 2").count(), 2, "{table}");
    assert!(begun.elapsed() < PATIENCE);
    servers[0].freeze(false);
}

#[test]
fn nodes_of_a_ring_in_etcd() {
    let etcd = Etcd::start();
    let joins =
        |name: &str, more: &str| format!("register={},node_name={name}{more}", etcd.url("ring"));
    let servers = [
        Server::start(&["-o", &joins("one", ",node_zone=left")]),
        Server::start(&["-o", &joins("two", ",node_weight=3")]),
    ];
    let url = etcd.url("ring");
    let lines = || {
        let (status, table, _) = told(&["nodes", "-s", &url]);
        (status, table.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    wait_within("both are listed", PATIENCE, || lines().1.len() == 4);
    let (status, table) = lines();
    assert_eq!(status, 0, "{table:?}");
    for (server, told) in servers
        .iter()
        .zip([["one", "left", "1"], ["two", "-", "3"]])
    {
        let address = format!("127.0.0.1:{}", server.port());
        let line = table.iter().find(|line| line.starts_with(&address));
        let words: Vec<&str> = line.expect("a line a node").split_whitespace().collect();
        assert_eq!(words[1..4], told, "{table:?}");
        assert!(
            words[6].parse::<f64>().is_ok_and(|share| share > 10.0),
            "{table:?}"
        );
    }
    assert!(table[3].starts_with("ring "), "{table:?}");
    assert!(
        table[1].trim_end().ends_with(" up") && table[2].trim_end().ends_with(" up"),
        "{table:?}"
    );
    // One that holds no keys is there as well.
    let order = |words: &str| servers[0].connect().round(words, "OK\r\n");
    order("config ring leave\r\n");
    wait_within("it stands by", PATIENCE, || {
        let (_, table) = lines();
        let standby = table
            .iter()
            .find(|line| line.trim_end().ends_with(" standby"));
        standby.is_some_and(|line| line.contains(" one ") && line.contains(" 0.0 % "))
            && table[3].ends_with(", 1 nodes")
    });
    order("config ring join\r\n");
    // What a server hands out is the same ring by its addresses.
    let config = format!("config://127.0.0.1:{}", servers[0].port());
    wait_within("the server knows both", PATIENCE, || {
        told(&["nodes", "-s", &config]).1.lines().count() == 4
    });
    for (bad, says) in [
        ("etcd://nowhere/", "it is written"),
        (&*etcd.url("empty"), "there are no nodes"),
        (&*format!("etcd://{}/ring", nobody()), "not reached"),
    ] {
        let (status, _, error) = told(&["nodes", "-s", bad]);
        assert!(status != 0 && error.contains(says), "{bad}: {error}");
    }
}

#[test]
fn top_without_a_terminal() {
    let servers = KINDS.map(Kind::start);
    let nodes = list(&servers);
    let table = stdout(&["top", "--once", "-i", "50ms", "-s", &nodes], "");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("node ") && lines[3].starts_with("all "));
    let nodes = format!("{nodes},{}", nobody());
    let (status, tables, _) = told(&["top", "--count", "2", "-i", "50ms", "-s", &nodes]);
    assert_eq!(status, 1);
    assert_eq!(tables.matches("cannot connect").count(), 2, "{tables}");
    assert_eq!(
        tables
            .lines()
            .filter(|line| line.starts_with("node "))
            .count(),
        2
    );
}

/// A shell on a terminal, which runs `command` and then tells how the terminal is set.
struct Terminal {
    child: Child,
    shown: Vec<u8>,
}

impl Terminal {
    fn start(command: &str) -> Terminal {
        // `script` gives its status to who asks for it by -e.
        let command = format!("stty rows 24 cols 120; {command}; echo status $?; stty -a");
        let child = Command::new("timeout")
            .args(["60", "script", "-qec", &command, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Terminal {
            child: child.expect("script, of bsdutils, starts"),
            shown: Vec::new(),
        }
    }

    /// Waits until `text` is shown.
    fn wait_for(&mut self, text: &str) {
        let out = self.child.stdout.as_mut().expect("it is piped");
        let mut room = [0; 4096];
        while !String::from_utf8_lossy(&self.shown).contains(text) {
            let count = out.read(&mut room).expect("a pipe");
            assert!(
                count > 0,
                "it ended: {}",
                String::from_utf8_lossy(&self.shown)
            );
            self.shown.extend_from_slice(&room[..count]);
        }
    }

    /// All that was shown, behind the end. The terminal must be as it was.
    fn end(mut self) -> String {
        let mut out = self.child.stdout.take().expect("it is piped");
        out.read_to_end(&mut self.shown).expect("a pipe");
        assert!(self.child.wait().expect("it ends").success());
        let shown = String::from_utf8_lossy(&self.shown).into_owned();
        assert!(shown.contains("\x1b[?1049h"), "{shown}");
        let (_, behind) = shown.rsplit_once("\x1b[?1049l").expect("it is left");
        assert!(
            behind.contains(" icanon") && behind.contains(" echo "),
            "{shown}"
        );
        shown
    }
}

/// On a terminal it goes on until `q`, and gives the terminal back.
#[test]
fn top_on_a_terminal() {
    let server = Kind::Ketch.start();
    let program = env!("CARGO_BIN_EXE_ketchctl");
    let command = format!("{program} top -i 50ms -s {}", server.node().address());
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("evict/s");
    let mut stdin = terminal.child.stdin.take().expect("it is piped");
    stdin.write_all(b"q").expect("it reads");
    let shown = terminal.end();
    assert!(shown.contains("1 nodes, 0 down"), "{shown}");
    assert!(shown.contains("status 0"), "{shown}");
}

/// A signal ends it as it would have, but the terminal is given back first.
#[test]
fn top_that_is_ended_by_a_signal() {
    let server = Kind::Ketch.start();
    let program = env!("CARGO_BIN_EXE_ketchctl");
    for (signal, status) in [("TERM", 143), ("INT", 130), ("HUP", 129), ("QUIT", 131)] {
        let command = format!(
            "sh -c 'ulimit -c 0; echo pid $$.; exec {program} top -i 50ms -s {}'",
            server.node().address()
        );
        let mut terminal = Terminal::start(&command);
        terminal.wait_for("evict/s");
        let shown = String::from_utf8_lossy(&terminal.shown).into_owned();
        let pid = shown.split("pid ").nth(1).expect("it is told");
        let pid = pid.split('.').next().expect("a number").to_owned();
        let kill = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(kill.expect("kill starts").success());
        let shown = terminal.end();
        assert!(
            shown.contains(&format!("status {status}")),
            "{signal}: {shown}"
        );
    }
}

#[test]
fn a_login_and_tls() {
    let dir = std::env::temp_dir().join(format!("ketchctl-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a place for files");
    let file = |name: &str, text: &str| {
        let path = dir.join(name).to_str().expect("UTF-8").to_owned();
        std::fs::write(&path, text).expect("it can be written");
        path
    };
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["cache.test".to_owned()]).expect("a certificate");
    let cert = file("cert.pem", &cert.pem());
    let key = file("key.pem", &signing_key.serialize_pem());
    let users = file("users", "ann:right\n");
    let chain = format!("ssl_chain_cert={cert},ssl_key={key}");
    let server = Kind::Ketch.start_with(&["-Z", "-o", &chain, "-Y", &users]);
    let node = server.node().address();
    let run = |password: &str, words: &[&str]| {
        let login = ["--user", "ann", "--password", password];
        let tls = ["--ca", &cert, "--tls-name", "cache.test"];
        told(&[words, &["-s", &node], &login, &tls].concat())
    };
    assert_eq!(run("right", &["set", "k", "v"]).0, 0);
    assert_eq!(
        run("right", &["get", "k"]),
        (0, "v".to_owned(), String::new())
    );
    assert_eq!(run("right", &["ping", "-c", "1"]).0, 0);
    let (status, _, error) = run("wrong", &["get", "k"]);
    assert_eq!(status, 1);
    assert!(error.contains("login"), "{error}");
    // A copy speaks so on both sides.
    let plain = Kind::Memcached.start();
    let to = plain.node().address();
    let (status, out, error) = told(&[
        "copy",
        "--from",
        &node,
        "--to",
        &to,
        "--from-user",
        "ann",
        "--from-password",
        "right",
        "--from-ca",
        &cert,
        "--from-tls-name",
        "cache.test",
    ]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(out.starts_with("copied 1 items, 1 B "), "{out}");
    assert_eq!(plain.holds("k").as_deref(), Some("v"));
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn wrong_words() {
    for words in [
        &["get", "-s", "a"][..],
        &["get", "k"],
        &["get", "-s", "a", "k", "l"],
        &["get", "-s", "a", "--base64", "?"],
        &["set", "-s", "a", "k", "v", "--ttl", "soon"],
        &["set", "-s", "a", "k", "v", "--mode", "cas"],
        &["incr", "-s", "a", "k", "one"],
        &["incr", "-s", "a", "k", "--ttl", "5"],
        &["touch", "-s", "a", "k"],
        &["get", "-s", "a", "k", "--copies", "0"],
        &["ping"],
        &["top", "-s", "a", "-i", "0"],
        &["copy", "--from", "a"],
        &["copy", "--to", "a"],
        &["copy", "--from", "a", "--to", "b", "--rate", "0"],
        &[
            "copy",
            "--from",
            "a",
            "--to",
            "a,b",
            "--overwrite",
            "--copies",
            "2",
        ],
    ] {
        let (status, out, error) = told(words);
        assert_eq!((status, out.as_str()), (2, ""), "{words:?}");
        assert!(
            error.starts_with("ketchctl: ") && error.lines().count() == 1,
            "{error}"
        );
    }
    let help = stdout(&["--help"], "");
    for command in [
        "get", "set", "delete", "incr", "decr", "touch", "ring", "stats", "top", "copy", "ping",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        assert!(stdout(&[command, "--help"], "").contains("--servers") || command == "copy");
    }
    assert!(help.contains("Exit status"), "{help}");
}

/// A listener that treats each connection so.
fn peer(treat: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || treat(stream));
        }
    });
    address
}

/// Each command says which peer it is, and what is wrong, and ends soon.
#[test]
fn peers_that_are_no_servers() {
    let good = Kind::Memcached.start();
    let good = good.node().address();
    stdout(&["set", "-s", &good, "k", "v"], "");
    let silent = peer(|mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let other = peer(|mut stream| {
        let _ = stream.read(&mut [0; 1000]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let closing = peer(drop);
    for (peer, wrong) in [
        (silent, "no answer in time"),
        (other, "not an answer to what was asked"),
        (closing, "the connection was closed"),
        (nobody(), "cannot connect"),
        ("/nonexistent/socket".to_owned(), ""),
    ] {
        let name = match peer.starts_with('/') {
            true => format!("unix:{peer}"),
            false => peer.clone(),
        };
        let begun = Instant::now();
        for words in [
            &["get", "-s", &peer, "k"][..],
            &["set", "-s", &peer, "k", "v"],
            &["delete", "-s", &peer, "k"],
            &["incr", "-s", &peer, "k"],
            &["touch", "-s", &peer, "k", "--ttl", "1"],
            &["stats", "-s", &peer],
            &["ping", "-s", &peer, "-c", "1"],
            &["copy", "--from", &peer, "--to", &good],
            &["copy", "--from", &good, "--to", &peer],
        ] {
            let (status, _, error) = told(&[words, &["-t", "400ms"]].concat());
            assert_eq!(status, 1, "{words:?}: {error}");
            assert!(
                error.contains(&name) && error.contains(wrong),
                "{words:?}: {error}"
            );
        }
        assert!(begun.elapsed() < PATIENCE, "{peer}");
    }
    let long = "k".repeat(251);
    assert_eq!(told(&["get", "-s", &good, &long]).0, 2);
}

/// Keys that another program writes, line by line: each is deleted when its line is there, and none has to be there.
#[test]
fn keys_to_delete_come_from_a_pipe() {
    let servers = [Kind::Ketch.start(), Kind::Ketch.start()];
    let nodes = list(&servers);
    let is_there = |key: &str| servers.iter().any(|server| server.holds(key).is_some());
    let set = |key: &str| assert_eq!(told(&["set", "-s", &nodes, key, "v"]).0, 0);
    ["a b", "c", "d", "kept"].iter().for_each(|key| set(key));
    let mut child = Command::new(env!("CARGO_BIN_EXE_ketchctl"))
        .args(["delete", "-s", &nodes, "--stdin"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ketchctl starts");
    let mut pipe = child.stdin.take().expect("it is piped");
    for key in ["c", "d"] {
        pipe.write_all(format!("none\n{key}\r\n\n").as_bytes())
            .expect("it reads");
        wait_within("it is deleted", PATIENCE, || !is_there(key));
    }
    drop(pipe);
    assert!(child.wait().expect("it ends").success());
    let many: String = (0..3000).map(|n| format!("many:{n}\n")).collect();
    assert_eq!(stdout(&["delete", "-s", &nodes, "--stdin"], &many), "");
    assert!(is_there("kept"));
    // Any key, in base64; what is no key ends it, and so does who gives keys in both ways.
    let base64 = ["delete", "-s", &nodes, "--stdin", "--base64"];
    assert!(ketchctl(&base64, b"a2VwdA==".to_vec()).status.success());
    assert!(!is_there("kept"));
    assert_eq!(ketchctl(&base64, b"?\n".to_vec()).status.code(), Some(2));
    let long = vec![b'k'; 600];
    let lines = ["delete", "-s", &nodes, "--stdin"];
    assert_eq!(ketchctl(&lines, long).status.code(), Some(2));
    assert_eq!(told(&[&lines[..], &["k"]].concat()).0, 2);
    // Nobody is there.
    let down = ["delete", "-s", "127.0.0.1:1", "--stdin"];
    assert_eq!(ketchctl(&down, b"k\n".to_vec()).status.code(), Some(1));
}
