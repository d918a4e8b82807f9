//! `ketchctl` as a process.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs it with these words and this input.
pub fn ketchctl(words: &[&str], input: Vec<u8>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ketchctl"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ketchctl starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // Beside reading: neither side waits for a full pipe. A command that refuses its words reads nothing.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    feeder.join().expect("it only writes");
    output
}

/// What it prints, which must go well.
#[track_caller]
pub fn stdout(words: &[&str], input: &str) -> String {
    let output = ketchctl(words, input.as_bytes().to_vec());
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("the keys were UTF-8")
}

/// Runs it without input: its exit status, standard output and standard error.
pub fn told(words: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = ketchctl(words, Vec::new());
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        status.code().expect("it ends by itself"),
        text(stdout),
        text(stderr),
    )
}
