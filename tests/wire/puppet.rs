//! A process that takes over from a server and goes so far and no further, to be killed there or to hang: the other side of
//! a takeover, as the server's own code has it.

use std::process::{Child, Command, Stdio};

use ketch::handover::Predecessor;
use ketch::settings::{self, Settings, Start};
use ketch_testing::Server;

/// How far a puppet goes, and what it does there.
pub const STEPS: [&str; 6] = [
    "met",
    "taken",
    "attached",
    "told",
    "let-go",
    "attached-twice",
];

/// Not a test, but the process of one: a successor that goes so far and no further.
#[test]
fn puppet() {
    let Ok(step) = std::env::var("KETCH_TEST_PUPPET") else {
        return;
    };
    let hangs = std::env::var("KETCH_TEST_PUPPET_HANGS").is_ok();
    let stop_at = |at: &str| {
        if step == at {
            println!("at {at}");
            if hangs {
                std::thread::park();
            }
            // As by kill -9: nothing of its own is put away.
            std::process::abort();
        }
    };
    let args = std::env::var("KETCH_TEST_PUPPET_ARGS").expect("options");
    let parsed = settings::parse(args.split(' ').map(str::to_owned), &|_| None, None);
    let settings: Settings = match parsed {
        Ok(Start::Run(settings)) => *settings,
        other => panic!("{other:?}"),
    };
    let mut before = Predecessor::find(&settings)
        .expect("a server")
        .expect("it is there");
    stop_at("met");
    let _rest = before.take().expect("what is left").expect("no crash");
    stop_at("taken");
    let memory = before.estate.memory.take().expect("memory");
    let again = memory.try_clone().expect("a descriptor");
    let opened = ketch::server::take_over(&settings, memory, 0).expect("a cache");
    stop_at("attached");
    if step == "attached-twice" {
        drop(opened);
        assert!(ketch::server::take_over(&settings, again, 0).is_err());
        std::process::abort();
    }
    before.attached().expect("told");
    stop_at("told");
    before.await_go().expect("let go");
    stop_at("let-go");
    panic!("no such step");
}

/// Starts one that takes over from `server` as far as `step`, and ends there as by a crash, or hangs.
pub fn start(server: &Server, step: &str, hangs: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command
        .args(["--exact", "puppet::puppet", "--nocapture"])
        .env("KETCH_TEST_PUPPET", step)
        .env(
            "KETCH_TEST_PUPPET_ARGS",
            format!("-p {} -l 127.0.0.1 -m 64", server.port()),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if hangs {
        command.env("KETCH_TEST_PUPPET_HANGS", "1");
    }
    command.spawn().expect("this test's program")
}
