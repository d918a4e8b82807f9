//! SIGTERM, SIGINT, SIGUSR1 end the server in good order; SIGHUP and SIGPIPE do not end it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ketch_testing::Server;

/// How long a server may take to end, whatever its clients do.
const END_PATIENCE: Duration = Duration::from_secs(2);

#[track_caller]
fn ends_under_load(signal: libc::c_int) {
    let mut server = Server::start(&["-m", "64"]);
    let stop = AtomicBool::new(false);
    // Idle ones, one in the middle of a body, one that does not read, one busy writer.
    let _idle: Vec<_> = (0..50).map(|_| server.connect()).collect();
    let mut half = server.connect();
    half.send("set half 0 0 100000\r\nonly the first bytes");
    let mut deaf = server.connect();
    assert_eq!(deaf.set("big", &vec![b'b'; 500_000]), "STORED");
    deaf.send("get big\r\n".repeat(200));
    let mut busy = server.connect();
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            let batch = "set k 0 0 5 noreply\r\nabcde\r\n".repeat(100);
            while !stop.load(Ordering::Relaxed) {
                // The server hangs up when it ends.
                if busy.try_send(&batch).is_err() {
                    break;
                }
            }
        });
        let mut other = server.connect();
        ketch_testing::wait_within("the load is on", Duration::from_secs(10), || {
            other.stat("cmd_set") > 1000
        });
        let begin = Instant::now();
        server.signal(signal);
        let status = server.wait_exit(END_PATIENCE);
        println!("signal {signal}: ended after {:?}", begin.elapsed());
        stop.store(true, Ordering::Relaxed);
        status
    });
    assert_eq!(status.code(), Some(0), "signal {signal}: {status}");
}

#[test]
fn sigterm() {
    ends_under_load(libc::SIGTERM);
}

#[test]
fn sigint() {
    ends_under_load(libc::SIGINT);
}

#[test]
fn sigusr1() {
    ends_under_load(libc::SIGUSR1);
}

#[test]
fn sighup_and_sigpipe_do_not_end_it() {
    let mut server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    server.signal(libc::SIGHUP);
    server.signal(libc::SIGPIPE);
    conn.round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    server
        .connect()
        .round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    assert!(server.is_alive());
}

/// The unix socket's file goes with the server that made it, or is taken over by the next one.
#[test]
fn a_unix_socket_can_be_opened_again() {
    let mut server = Server::start_unix(&[]);
    let mut conn = server.connect();
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let path = server.socket_path().expect("a unix socket").to_path_buf();
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait_exit(END_PATIENCE).code(), Some(0));
    let mut again = Server::start_unix_at(&path, &[]);
    assert!(again.is_alive());
    again.connect().round("get a\r\n", "END\r\n");
}
