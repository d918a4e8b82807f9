//! `ketchctl cluster up` as a process: what runs, and that nothing is left.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::run::{stdout, told};
use ketch_testing::{PATIENCE, ketch, wait_within};

fn up(words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ketchctl"))
        .args(["cluster", "up"])
        .args(words)
        .env("KETCH_SERVER", ketch())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// Reads what it prints until it stays: the addresses by their names.
fn addresses(child: &mut Child) -> Vec<(String, String)> {
    let out = BufReader::new(child.stdout.as_mut().expect("it is piped"));
    let lines = out.lines().map(|line| line.expect("text"));
    let lines = lines.take_while(|line| !line.starts_with("Ctrl-C"));
    let pair = |line: String| {
        let (name, address) = line.split_once(' ').expect("a name and an address");
        (name.to_owned(), address.trim().to_owned())
    };
    lines.map(pair).collect()
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.expect("there is kill").success());
}

#[test]
fn all_of_it_ends_with_it() {
    for how in ["-INT", "-TERM", "-KILL"] {
        let mut child = up(&["-n", "2", "--proxy", "--etcd", "--copies", "2"]);
        let all = addresses(&mut child);
        let names: Vec<&str> = all.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["node-1", "node-2", "etcd", "proxy"]);
        let proxy = &all[3].1;
        // Until it knows both, a value is on one of them.
        wait_within("the proxy knows the nodes", PATIENCE, || {
            told(&["set", "-s", proxy, "k", "v"]).0 == 0
                && all[..2]
                    .iter()
                    .all(|(_, node)| told(&["get", "-s", node, "k"]).0 == 0)
        });
        for (_, node) in &all[..2] {
            assert_eq!(stdout(&["get", "-s", node, "k"], ""), "v", "both have it");
        }
        let nodes = stdout(&["nodes", "-s", &all[2].1], "");
        assert!(
            nodes.contains("node-1") && nodes.contains(", 2 nodes"),
            "{nodes}"
        );
        let folder = std::env::temp_dir().join(format!("ketchctl-cluster-{}", child.id()));
        assert!(folder.exists());
        signal(&child, how);
        let status = child.wait().expect("it ends");
        assert_eq!(status.success(), how != "-KILL", "{how}: {status}");
        let etcd = all[2].1.replace("etcd://", "").replace("/ring", "");
        for address in [&all[0].1, &all[1].1, proxy, &etcd] {
            wait_within("nobody is left", PATIENCE, || {
                TcpStream::connect(address.as_str()).is_err()
            });
        }
        wait_within("no file is left", PATIENCE, || !folder.exists());
    }
}

#[test]
fn a_command_is_run_against_it() {
    let script = "echo $KETCH_SERVERS; [ \"$KETCH_SOURCE\" = \"$KETCH_SERVERS\" ] && [ -n \"$KETCH_PROXY\" ] || exit 9; exit 7";
    let mut child = up(&["-n", "1", "--proxy", "--", "sh", "-c", script]);
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(7));
    let mut out = String::new();
    child
        .stdout
        .take()
        .expect("it is piped")
        .read_to_string(&mut out)
        .expect("text");
    let last = out.lines().last().expect("the command's line");
    assert!(last.starts_with("127.0.0.1:"), "{out}");
    assert!(TcpStream::connect(last).is_err(), "it has ended");
}

#[test]
fn wrong_words() {
    for (words, told_of) in [
        (&["cluster"][..], "there is cluster up"),
        (&["cluster", "down"], "what is down?"),
        (&["cluster", "up", "-n", "0"], "--nodes 0"),
        (&["cluster", "up", "--copies", "99"], "--copies 99"),
        (&["cluster", "up", "x"], "what is x?"),
    ] {
        let (status, _, error) = told(words);
        assert!(status == 2 && error.contains(told_of), "{words:?}: {error}");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_ketchctl"));
    let output = child
        .args(["cluster", "up"])
        .env("KETCH_SERVER", "/nowhere/ketch")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("/nowhere/ketch: "),
        "{output:?}"
    );
}
