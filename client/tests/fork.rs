//! A process that forks while its client has connections: parent and child have their own from then on.
//!
//! This is a program of its own, since only a process without other threads may go on after a fork.

use std::time::Duration;

use ketch_client::{AsyncClient, Client, ClientOptions, Node};
use ketch_testing::Kind;

const ROUNDS: usize = 300;

/// Runs `work` here and in a child; how many times it gave another key's value, or none, in both.
fn in_two(work: impl Fn(usize) -> bool) -> usize {
    // SAFETY: there is no other thread.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    let wrong = (0..ROUNDS).filter(|&round| !work(round)).count();
    if child == 0 {
        std::process::exit(wrong.min(255) as i32);
    }
    let mut status = 0;
    // SAFETY: `status` is ours, and `child` a child of ours.
    let ended = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(ended, child, "waitpid");
    assert!(libc::WIFEXITED(status), "the child ends by itself");
    wrong + libc::WEXITSTATUS(status) as usize
}

/// Which process, and which round: no two gets are alike.
fn key(round: usize) -> String {
    format!("{}", (std::process::id() as usize * 7 + round) % 50)
}

fn main() {
    let server = Kind::Memcached.start();
    let nodes = || [Node::new("127.0.0.1", server.port())];
    let options = || {
        let patience = Duration::from_secs(20);
        ClientOptions::default()
            .request_timeout(patience)
            .attempt_timeout(patience)
            .connect_timeout(patience)
    };

    let client = Client::new(nodes(), options());
    for round in 0..50 {
        client.set(key(round), key(round), None).expect("up");
    }
    let wrong = in_two(|round| {
        let found = client.get(key(round)).expect("up").expect("it is there");
        found.value == key(round).as_bytes()
    });
    assert_eq!(wrong, 0, "blocking");

    // The parent's runtime is of no use to a child, which makes its own.
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let parent = (std::process::id(), runtime());
    let client = AsyncClient::new(nodes(), options());
    for round in 0..50 {
        let found = parent.1.block_on(client.get(key(round)));
        assert!(found.expect("up").is_some());
    }
    let child = std::cell::OnceCell::new();
    let wrong = in_two(|round| {
        let runtime = match std::process::id() == parent.0 {
            true => &parent.1,
            false => child.get_or_init(runtime),
        };
        let found = runtime.block_on(client.get(key(round)));
        found.expect("up").expect("it is there").value == key(round).as_bytes()
    });
    assert_eq!(wrong, 0, "async");
}
