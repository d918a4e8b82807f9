//! `-Y`: nothing is answered before a login, and what makes one. `-S`: the same in binary, by SASL.
//!
//! The text part holds for a reference memcached too, where a line says nothing else.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ketch_testing::udp::connect_tcp_from;
use ketch_testing::{Conn, Server, binary, is_ketch, wait_within};

/// "right", by the argon2 program: 64 KB and one pass; 19 MB and two.
const ARGON2: &str =
    "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$jTb/3tBMMtrtgBlCu/7k64VopiAVsVwsoS+rSLMK+o8";
const ARGON2_SLOW: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$VkcMeJqniqytDsfZdc9X6vtjm2D6Hqx6XO+Zr91HMMg";
/// "right", by Python's hashlib.
const SCRYPT: &str =
    "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0$DuW8dJt6K0rJWWj5Y2Cuyfp6LvalVXuZUDDQqa1ioRk";

const UNAUTHENTICATED: &str = "CLIENT_ERROR unauthenticated\r\n";
const FAILURE: &str = "CLIENT_ERROR authentication failure\r\n";
const FORMAT: &str = "CLIENT_ERROR bad authentication token format\r\n";
const TERMINATION: &str = "CLIENT_ERROR bad command line termination\r\n";

/// How long a signal may take to do its work.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(10);

/// A file of users, removed when dropped.
struct Users(PathBuf);

impl Users {
    fn new(text: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("ketch-users-{}-{number}", std::process::id());
        let users = Users(std::env::temp_dir().join(name));
        users.write(text);
        users
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("a temporary file");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in text")
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn start(users: &Users) -> Server {
    Server::start(&["-Y", users.path()])
}

/// A `set` that shows this token.
fn token(token: &str) -> String {
    format!("set auth 0 0 {}\r\n{token}\r\n", token.len())
}

#[track_caller]
fn log_in(server: &Server, user: &str, password: &str) -> Conn {
    let mut conn = server.connect();
    conn.note = format!("{user} {password}");
    conn.round(token(&format!("{user} {password}")), "STORED\r\n");
    conn
}

#[track_caller]
fn is_refused(server: &Server, user: &str, password: &str) {
    let mut conn = server.connect();
    conn.note = format!("{user} {password}");
    conn.round(token(&format!("{user} {password}")), FAILURE);
}

/// One of each command, none with a body, that would change or tell something.
const COMMANDS: &[&str] = &[
    "get a",
    "gets a",
    "gat 0 a",
    "gats 0 a",
    "delete a",
    "incr a 1",
    "decr a 1",
    "touch a 0",
    "flush_all",
    "flush_all noreply",
    "version",
    "verbosity 1",
    "stats",
    "stats settings",
    "stats conns",
    "stats reset",
    "watch",
    "watch fetchers",
    "shutdown",
    "cache_memlimit 64",
    "refresh_certs",
    "slabs reassign 1 2",
    "slabs automove 1",
    "lru mode flat",
    "lru_crawler metadump all",
    "lru_crawler mgdump all",
    "lru_crawler crawl all",
    "extstore item_size 1",
    "mg a v",
    "mg a N60 v",
    "md a",
    "ma a N0",
    "me a",
    "mn",
    "mn q",
    "debugtime 1",
    "GET a",
    "",
    "set a 0 0",
    "set a 0 0 x",
    "SET a 0 0 9",
    "nonsense",
    "get a\t",
    "set",
];

#[test]
fn nothing_is_answered_before_a_login() {
    let users = Users::new("ann:right\n");
    let server = Server::start(&["-Y", users.path(), "-A"]);
    log_in(&server, "ann", "right").round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let mut conn = server.connect();
    for command in COMMANDS {
        conn.note = format!("{command:?}");
        for end in ["\r\n", "\n"] {
            // A reference waits for two bytes.
            if !(command.is_empty() && end == "\n" && !is_ketch()) {
                conn.round(format!("{command}{end}"), UNAUTHENTICATED);
            }
        }
    }
    // Their blocks are lines like any others.
    if is_ketch() {
        for store in [
            "add a 0 0 3\r\nabc",
            "cas a 0 0 3 1\r\nabc",
            "ms a 3\r\nabc",
            "append a 0 0 3\r\nget",
        ] {
            conn.round(format!("{store}\r\n"), UNAUTHENTICATED.repeat(2));
        }
    }
    conn.round("mn\r\n", UNAUTHENTICATED);
    let mut ann = log_in(&server, "ann", "right");
    ann.round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    ann.round("mn\r\n", "MN\r\n");
}

/// Before and behind it in one write; only what is behind is run.
#[test]
fn a_login_in_the_middle_of_a_pipeline() {
    if !is_ketch() {
        return println!("a reference answers only once for several refused lines");
    }
    let users = Users::new("ann:right\n");
    let server = start(&users);
    let mut conn = server.connect();
    for command in COMMANDS {
        conn.send(format!("{command}\r\nset k 0 0 1\r\nx\r\n"));
    }
    conn.send(token("ann wrong") + &token("ann right") + "set k 0 0 1\r\ny\r\nget k\r\nget a\r\n");
    for _ in COMMANDS {
        conn.expect(UNAUTHENTICATED);
        conn.expect(FORMAT);
    }
    conn.expect(FAILURE);
    conn.expect("STORED\r\nSTORED\r\nVALUE k 0 1\r\ny\r\nEND\r\nEND\r\n");
    conn.expect_nothing();
    assert_eq!((conn.stat("cmd_set"), conn.stat("cmd_get")), (1, 2));
    assert_eq!((conn.stat("auth_cmds"), conn.stat("auth_errors")), (2, 1));
}

#[test]
fn tokens_right_and_wrong() {
    let users = Users::new("ann:right\nbob:x\nbob:y:z\r\nlast:one");
    let server = start(&users);
    let right = ["ann right", "bob x", "bob y:z", "last one"];
    for text in right {
        let mut conn = server.connect();
        conn.note = text.to_owned();
        conn.round(token(text), "STORED\r\n");
        conn.round("get none\r\n", "END\r\n");
    }
    let mut conn = server.connect();
    for (text, reply) in [
        ("ann wrong", FAILURE),
        ("ann righ", FAILURE),
        ("ann right1", FAILURE),
        ("an nright", FAILURE),
        ("Ann right", FAILURE),
        ("bob one", FAILURE),
        ("eve right", FAILURE),
        (": :", FAILURE),
        (" ann right", FAILURE),
        ("ann  right", FAILURE),
        ("ann right ", FAILURE),
        ("ann ", FAILURE),
        ("  ", FAILURE),
        ("ann", FORMAT),
        ("ann:right", FORMAT),
        ("", FORMAT),
    ] {
        // One of its own each: ketch closes after ten wrong passwords.
        let mut conn = server.connect();
        conn.note = text.to_owned();
        conn.round(token(text), reply);
        conn.round("get none\r\n", UNAUTHENTICATED);
    }
    conn.round("set k 0 0 9\r\nann right\n\n", TERMINATION);
    conn.round("set k 0 0 8\r\nann right\r", TERMINATION);
    conn.round(
        "\nget none\r\n",
        UNAUTHENTICATED.repeat(if is_ketch() { 2 } else { 1 }),
    );
    // Flags, exptime and what stands behind the length do not count.
    for line in [
        "set k x y 9",
        " set  k 0 0 9",
        "set k 0 0 09 noreply",
        "set k 0 0 9 a b c",
        "set \u{1} -1 -1 9",
    ] {
        let mut conn = server.connect();
        conn.note = line.to_owned();
        conn.round(format!("{line}\nann right\r\n"), "STORED\r\n");
    }
}

#[test]
fn a_password_may_have_spaces() {
    if !is_ketch() {
        return println!("a reference takes the first word alone");
    }
    let users = Users::new("ann:two words\n");
    let server = start(&users);
    log_in(&server, "ann", "two words");
    is_refused(&server, "ann", "two");
    is_refused(&server, "ann", "words");
}

/// What is announced is taken in and not run, whatever its size.
#[test]
fn tokens_that_are_too_long() {
    if !is_ketch() {
        return println!("a reference of this version waits for ever");
    }
    let users = Users::new("ann:right\n");
    let server = start(&users);
    let mut conn = server.connect();
    let inside = token("ann right");
    for len in [16_385, 20_000, 3_000_000] {
        conn.send(format!("set k 0 0 {len}\r\n"));
        conn.expect("CLIENT_ERROR auth token too long\r\n");
        let body = inside.repeat(len / inside.len() + 1);
        conn.send(&body[..len]);
        conn.round("\r\nget a\r\n", UNAUTHENTICATED);
    }
    conn.round(token(&format!("ann {}", "x".repeat(16_380))), FAILURE);
    conn.round("mn\r\n", UNAUTHENTICATED);
}

/// Nobody waits for gigabytes: they are not coming, so that the next line is a line.
#[test]
fn tokens_that_nobody_can_mean() {
    let users = Users::new("ann:right\n");
    let server = start(&users);
    for len in [1_073_741_825u32, 2_147_483_646, u32::MAX] {
        let mut conn = server.connect();
        let line = format!("set k 0 0 {len}\r\n");
        conn.round(&line, "CLIENT_ERROR auth token too long\r\n");
        conn.round(
            "set a 0 0 1\r\nx\r\n",
            "CLIENT_ERROR bad authentication token format\r\n",
        );
        conn.round(&line, "CLIENT_ERROR auth token too long\r\n");
        conn.round(token("ann right"), "STORED\r\n");
        conn.round("mn\r\n", "MN\r\n");
    }
}

#[test]
fn quit_before_a_login_closes() {
    let users = Users::new("ann:right\n");
    let server = start(&users);
    let mut conn = server.connect();
    conn.send("quit\r\n");
    conn.closed();
}

/// Blanks are part of a password, wherever they stand.
#[test]
fn blanks_count() {
    let users = Users::new("ann:right\nbob:right \ncarl: two  words\n");
    let server = start(&users);
    log_in(&server, "ann", "right");
    log_in(&server, "bob", "right ");
    log_in(&server, "carl", " two  words");
    for (user, password) in [
        ("ann", " right"),
        ("ann", "right "),
        ("", "ann right"),
        ("ann", ""),
        ("bob", "right"),
        ("carl", "two  words"),
        ("carl", " two words"),
    ] {
        is_refused(&server, user, password);
    }
}

/// As memcached has it: the users of `-Y` log in in text, whatever `-S` says.
#[test]
fn with_both_options_the_login_is_that_of_the_file() {
    if !is_ketch() {
        return println!("a reference may have been built without SASL");
    }
    let users = Users::new("ann:right\n");
    let server = Server::start(&["-S", "-Y", users.path()]);
    let mut conn = log_in(&server, "ann", "right");
    conn.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let settings = conn.stats("settings");
    assert_eq!(settings["auth_enabled_sasl"], "yes");
    assert_eq!(settings["auth_enabled_ascii"], users.path());
    assert_eq!(settings["binding_protocol"], "ascii");
    let mut conn = server.connect();
    conn.round("get a\r\n", UNAUTHENTICATED);
}

#[test]
fn lines_without_end_are_hung_up_on() {
    let users = Users::new("ann:right\n");
    let server = start(&users);
    for junk in [
        "x".repeat(2049),
        format!("get {}", "k ".repeat(1100)),
        "set k 0 0 ".to_owned() + &"0".repeat(3000),
    ] {
        let mut conn = server.connect();
        conn.send(junk);
        conn.closed();
    }
    let mut conn = server.connect();
    conn.send("x".repeat(2047));
    log_in(&server, "ann", "right");
    assert!(conn.is_quiet());
    conn.round("\r\n", UNAUTHENTICATED);
}

#[test]
fn a_login_may_be_cut_anywhere() {
    let secret = if is_ketch() { ARGON2 } else { "right" };
    let users = Users::new(&format!("ann:right\nbob:{secret}\n"));
    let server = start(&users);
    for user in ["ann", "bob"] {
        let (wrong, right) = (format!("{user} wrong"), format!("{user} right"));
        for cut in 1..token(&right).len() {
            let mut conn = server.connect();
            conn.note = format!("{user}, cut at {cut}");
            for (shown, reply) in [(&wrong, FAILURE), (&right, "STORED\r\n")] {
                let input = token(shown);
                conn.send(&input[..cut]);
                conn.round(&input[cut..], reply);
            }
            conn.round("mn\r\n", "MN\r\n");
        }
        let mut conn = server.connect();
        conn.note = "byte by byte".to_owned();
        for (shown, reply) in [(&wrong, FAILURE), (&right, "STORED\r\n")] {
            for byte in token(shown).as_bytes() {
                conn.send([*byte]);
            }
            conn.expect(reply);
        }
        conn.round("mn\r\n", "MN\r\n");
    }
}

/// A peer that has said all it will say still gets its answers.
#[test]
fn a_login_with_the_end_of_the_input_behind_it() {
    for secret in ["right", ARGON2_SLOW] {
        if !is_ketch() && secret != "right" {
            continue;
        }
        let users = Users::new(&format!("ann:{secret}\n"));
        let server = start(&users);
        for _ in 0..3 {
            let mut conn = server.connect();
            conn.send(token("ann right") + "mn\r\n");
            conn.end_of_input();
            conn.expect("STORED\r\nMN\r\n");
            conn.closed();
        }
    }
}

#[test]
fn hashed_passwords() {
    if !is_ketch() {
        return println!("a reference knows plain passwords alone");
    }
    let users = Users::new(&format!("ann:{ARGON2}\nbob:{SCRYPT}\nbob:plain\n"));
    let server = start(&users);
    for round in 0..2 {
        for (user, password) in [("ann", "right"), ("bob", "right"), ("bob", "plain")] {
            let mut conn = log_in(&server, user, password);
            conn.round("mn\r\n", "MN\r\n");
            is_refused(&server, user, &format!("wrong{round}"));
        }
        is_refused(&server, "eve", "right");
        is_refused(&server, "ann", "plain");
        is_refused(&server, "ann", ARGON2);
    }
}

/// Clients that guess without end, wherever they come from, delay a right first login by a few checks.
#[test]
fn guesses_do_not_delay_a_right_login() {
    if !is_ketch() {
        return println!("a reference knows plain passwords alone");
    }
    let users = Users::new(&format!("ann:{ARGON2_SLOW}\nbob:quick\n"));
    for (own_addresses, from) in [
        (false, Ipv4Addr::new(127, 0, 1, 1)),
        (false, Ipv4Addr::LOCALHOST),
        (true, Ipv4Addr::new(127, 0, 1, 1)),
    ] {
        let server = start(&users);
        let mut served = connect_tcp_from(from, &server);
        served.round(token("bob quick"), "STORED\r\n");
        let mut guessing = Vec::new();
        for n in 0..200 {
            let address = if own_addresses {
                Ipv4Addr::new(127, 0, 2, n)
            } else {
                Ipv4Addr::LOCALHOST
            };
            let mut conn = connect_tcp_from(address, &server);
            conn.send(token(&format!("ann {n}")).repeat(5));
            guessing.push(conn);
        }
        wait_within("the guessing", SIGNAL_PATIENCE, || {
            served.stat("auth_errors") > 0
        });
        let errors = served.stat("auth_errors");
        let mut ann = connect_tcp_from(from, &server);
        ann.round(token("ann right"), "STORED\r\n");
        let checks = ann.stat("auth_errors") - errors;
        println!(
            "own addresses {own_addresses}, ann from {from}: {checks} checks before the right one"
        );
        assert!(
            checks <= 20,
            "own addresses {own_addresses}, ann from {from}: {checks}"
        );
        assert!(!guessing.is_empty());
    }
}

/// Ten wrong passwords on one connection, and it is closed, with its last answer; not what the tenth is followed by.
#[test]
fn ten_wrong_passwords_end_a_connection() {
    if !is_ketch() {
        return println!("a reference lets anybody guess");
    }
    let users = Users::new(&format!("ann:right\nbob:{ARGON2}\n"));
    std::thread::scope(|scope| {
        for user in ["ann", "bob", "eve"] {
            let users = &users;
            scope.spawn(move || {
                let server = start(users);
                let mut conn = server.connect();
                conn.note = user.to_owned();
                conn.send(
                    token(&format!("{user} wrong")).repeat(10) + &token("ann right") + "mn\r\n",
                );
                conn.expect(FAILURE.repeat(10));
                conn.closed();
                // Others go on, from the same address.
                log_in(&server, "ann", "right");
                log_in(&server, "bob", "right");

                let server = start_sasl(users).expect("it is ketch");
                let mut conn = server.connect();
                conn.note = format!("{user} in binary");
                let wrong = packet(AUTH, "PLAIN", &format!("\0{user}\0wrong"));
                conn.send([wrong.repeat(10), packet(AUTH, "PLAIN", "\0ann\0right")].concat());
                conn.expect(answer(AUTH, AUTH_ERROR, "Auth failure.").repeat(10));
                conn.closed();
                let mut conn = server.connect();
                conn.round(
                    packet(AUTH, "PLAIN", "\0ann\0right"),
                    answer(AUTH, 0, "Authenticated"),
                );
            });
        }
        // Over a unix socket as well.
        scope.spawn(|| {
            let server = Server::start_unix(&["-Y", users.path()]);
            let mut conn = server.connect();
            conn.send(token("ann wrong").repeat(10));
            conn.expect(FAILURE.repeat(10));
            conn.closed();
            log_in(&server, "ann", "right");
        });
    });
}

/// Plain passwords are no faster to guess, though a check of one takes a microsecond: from one address, on as many
/// connections as you like.
#[test]
fn plain_passwords_cannot_be_tried_in_bulk() {
    if !is_ketch() {
        return println!("a reference lets anybody guess");
    }
    let users = Users::new("ann:right\n");
    let server = start(&users);
    let mut conn = log_in(&server, "ann", "right");
    let begin = Instant::now();
    let mut guessing: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for conn in &mut guessing {
        conn.send(token("ann wrong").repeat(9));
    }
    wait_within("a hundred guesses", SIGNAL_PATIENCE, || {
        conn.stat("auth_errors") >= 100
    });
    let (guesses, took) = (conn.stat("auth_errors"), begin.elapsed());
    // One in 20 ms, but for the first five.
    let most = 6 + took.as_millis() as u64 / 20;
    assert!(guesses <= most, "{guesses} guesses in {took:?}");
    // In the middle of that.
    log_in(&server, "ann", "right");
    assert!(conn.stat("auth_errors") < 9 * 50);
}

/// A worker serves others while a password is checked, and who goes away takes the check along.
#[test]
fn guesses_at_hashed_passwords_keep_nobody_waiting() {
    if !is_ketch() {
        return println!("a reference knows plain passwords alone");
    }
    let users = Users::new(&format!("ann:{ARGON2_SLOW}\nbob:quick\n"));
    let server = Server::start(&["-Y", users.path(), "-t", "1"]);
    let mut served = log_in(&server, "bob", "quick");
    let mut guessing: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for (n, conn) in guessing.iter_mut().enumerate() {
        conn.send(token(&format!("ann {n}")).repeat(3));
    }
    let errors = served.stat("auth_errors");
    for _ in 0..200 {
        served.round("mn\r\n", "MN\r\n");
    }
    log_in(&server, "bob", "quick").round("mn\r\n", "MN\r\n");
    let after = served.stat("auth_errors");
    assert!(after - errors < 100, "{after} guesses were answered first");
    drop(guessing);
    // Its turn comes at once: nobody is left before it.
    let mut ann = log_in(&server, "ann", "right");
    ann.round("mn\r\n", "MN\r\n");
    assert!(ann.stat("auth_errors") < 200);
}

#[test]
fn sighup_reads_the_users_again() {
    let users = Users::new("ann:right\n");
    let server = start(&users);
    let mut ann = log_in(&server, "ann", "right");
    let knows = |password: &str| {
        let mut conn = server.connect();
        conn.ask(token(&format!("ann {password}"))) == "STORED"
    };

    users.write("ann:other\nbob:new\n");
    is_refused(&server, "bob", "new");
    server.signal(libc::SIGHUP);
    wait_within("the new users", SIGNAL_PATIENCE, || knows("other"));
    is_refused(&server, "ann", "right");
    log_in(&server, "bob", "new");
    ann.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");

    // A broken file is told, and changes nothing. So does an empty one, as a careless `>` leaves it.
    for (text, line, reason) in [
        ("ann:third\n\n", 2, "must be user:password"),
        ("", 1, "has no user; a line is user:password"),
    ] {
        if !is_ketch() && text.is_empty() {
            continue;
        }
        users.write(text);
        server.signal(libc::SIGHUP);
        if is_ketch() {
            let told = format!("{}:{line}: {reason}", users.path());
            wait_within("a word about it", SIGNAL_PATIENCE, || {
                server.stderr().contains(&told)
            });
        }
        log_in(&server, "ann", "other");
        is_refused(&server, "ann", "third");
    }
    ann.round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    assert!(!server.stderr().contains("third"), "no password in the log");

    users.write("ann:fourth\n");
    server.signal(libc::SIGHUP);
    wait_within("the new users", SIGNAL_PATIENCE, || knows("fourth"));
}

#[test]
fn stats_tell_of_logins() {
    let users = Users::new("ann:right\n");
    let server = start(&users);
    is_refused(&server, "ann", "wrong");
    let mut conn = log_in(&server, "ann", "right");
    assert_eq!((conn.stat("auth_cmds"), conn.stat("auth_errors")), (2, 1));
    let settings = conn.stats("settings");
    assert_eq!(settings["auth_enabled_ascii"], users.path());
    assert_eq!(settings["auth_enabled_sasl"], "no");
    assert_eq!(settings["binding_protocol"], "ascii");
    let open = Server::start(&[]).stats("settings");
    assert_eq!(open["auth_enabled_ascii"], "no");
    assert_eq!(open["auth_enabled_sasl"], "no");
}

/// Starts a server that must not start.
fn refusal(args: &[&str]) -> String {
    let out = Command::new(binary())
        .args(["-p", "-1", "-u", "root"])
        .args(args)
        .output()
        .expect("the server's program");
    assert!(!out.status.success(), "{args:?}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_broken_file_ends_the_start() {
    let missing = Path::new("/no/such/users").to_str().expect("text");
    let said = refusal(&["-U", "0", "-Y", missing]);
    assert!(said.contains(missing), "{said}");
    for (text, line, reason) in [
        ("ann:right\n\n", 2, "must be user:password"),
        ("ann right\n", 1, "must be user:password"),
        ("ann:x\n# note\n", 2, "must be user:password"),
        ("", 1, "has no user; a line is user:password"),
    ] {
        let users = Users::new(text);
        let said = refusal(&["-U", "0", "-Y", users.path()]);
        if is_ketch() {
            let want = format!("ketch: -Y {}:{line}: {reason}\n", users.path());
            assert_eq!(said, want);
        } else {
            assert!(said.contains(users.path()), "{said}");
        }
    }
    let users = Users::new("ann:right\n");
    for args in [
        &["-B", "auto"][..],
        &["-B", "binary"],
        &["-S", "-B", "ascii"],
        &["-U", "11999"],
    ] {
        let mut all = vec!["-Y", users.path()];
        all.extend(args);
        refusal(&all);
    }
    if is_ketch() {
        let users =
            Users::new("ann:$argon2id$v=19$m=1048576,t=4,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAA\n");
        let said = refusal(&["-Y", users.path()]);
        assert!(said.contains(":1: this hash costs too much: "), "{said}");
    }
}

/// A packet of the binary protocol without extras.
fn packet(opcode: u8, key: &str, value: &str) -> Vec<u8> {
    let mut packet = vec![0x80, opcode, 0, key.len() as u8, 0, 0, 0, 0];
    packet.extend(((key.len() + value.len()) as u32).to_be_bytes());
    packet.extend(*b"1234\0\0\0\0\0\0\0\0");
    packet.extend(key.bytes().chain(value.bytes()));
    packet
}

/// A reply without extras, key and CAS unique.
fn answer(opcode: u8, status: u8, value: &str) -> Vec<u8> {
    let mut packet = vec![0x81, opcode, 0, 0, 0, 0, 0, status];
    packet.extend((value.len() as u32).to_be_bytes());
    packet.extend(*b"1234\0\0\0\0\0\0\0\0");
    packet.extend(value.bytes());
    packet
}

const GET: u8 = 0x00;
const NOOP: u8 = 0x0a;
const VERSION: u8 = 0x0b;
const STAT: u8 = 0x10;
const LIST: u8 = 0x20;
const AUTH: u8 = 0x21;
const STEP: u8 = 0x22;
const AUTH_ERROR: u8 = 0x20;
const CONTINUE: u8 = 0x21;

/// SASL's part holds for a reference only with a database that this test cannot make.
fn start_sasl(users: &Users) -> Option<Server> {
    if is_ketch() {
        let environment = [("MEMCACHED_SASL_PWDB", users.path())];
        Some(Server::start_in(&environment, &["-S"]))
    } else {
        println!("a reference has other users");
        None
    }
}

#[test]
fn sasl_opens_the_binary_protocol() {
    let users = Users::new(&format!("ann:right\nbob:{ARGON2}\n"));
    let Some(server) = start_sasl(&users) else {
        return;
    };
    let auth_error = |opcode| answer(opcode, AUTH_ERROR, "Auth failure.");
    for (user, secret) in [("ann", "right"), ("bob", "right")] {
        let mut conn = server.connect();
        conn.note = user.to_owned();
        conn.round(packet(LIST, "", ""), answer(LIST, 0, "PLAIN"));
        conn.round(packet(VERSION, "", ""), answer(VERSION, 0, "1.6.45"));
        for (mechanism, message) in [
            ("PLAIN", format!("\0{user}\0wrong")),
            ("PLAIN", format!("\0eve\0{secret}")),
            ("PLAIN", format!("eve\0{user}\0{secret}")),
            ("PLAIN", format!("{user}\0{secret}")),
            ("PLAIN", format!("\0{user}\0")),
            ("CRAM-MD5", format!("\0{user}\0{secret}")),
            ("plain", format!("\0{user}\0{secret}")),
        ] {
            conn.round(packet(AUTH, mechanism, &message), auth_error(AUTH));
        }
        let message = format!("\0{user}\0{secret}");
        conn.round(packet(STEP, "PLAIN", &message), auth_error(STEP));
        let long = "X".repeat(33);
        conn.round(
            packet(AUTH, &long, &message),
            answer(AUTH, 4, "Invalid arguments"),
        );
        conn.round(
            packet(AUTH, "PLAIN", &message),
            answer(AUTH, 0, "Authenticated"),
        );
        conn.round(packet(NOOP, "", ""), answer(NOOP, 0, ""));
        conn.round(packet(GET, "none", ""), answer(GET, 1, "Not found"));

        // Once more, now in two steps, and everything at once.
        let mut conn = server.connect();
        conn.send(
            [
                packet(AUTH, "PLAIN", ""),
                packet(STEP, "PLAIN", &message),
                packet(NOOP, "", ""),
            ]
            .concat(),
        );
        conn.expect(answer(AUTH, CONTINUE, ""));
        conn.expect(answer(STEP, 0, "Authenticated"));
        conn.expect(answer(NOOP, 0, ""));
        conn.round(packet(NOOP, "", ""), answer(NOOP, 0, ""));
    }
}

#[test]
fn whoever_fails_to_sign_in_again_is_signed_out() {
    let users = Users::new("ann:right\n");
    let Some(server) = start_sasl(&users) else {
        return;
    };
    let mut conn = server.connect();
    let right = packet(AUTH, "PLAIN", "\0ann\0right");
    conn.round(&right, answer(AUTH, 0, "Authenticated"));
    conn.round(packet(LIST, "", ""), answer(LIST, 0, "PLAIN"));
    conn.round(packet(NOOP, "", ""), answer(NOOP, 0, ""));
    conn.round(&right, answer(AUTH, 0, "Authenticated"));
    conn.round(packet(NOOP, "", ""), answer(NOOP, 0, ""));
    let wrong = packet(AUTH, "PLAIN", "\0ann\0wrong");
    conn.round(wrong, answer(AUTH, AUTH_ERROR, "Auth failure."));
    conn.round(
        packet(NOOP, "", ""),
        answer(NOOP, AUTH_ERROR, "Auth failure."),
    );
    conn.closed();
}

#[test]
fn no_binary_command_runs_before_sasl() {
    let users = Users::new("ann:right\n");
    let Some(server) = start_sasl(&users) else {
        return;
    };
    for opcode in (0x00..=0xff).filter(|opcode| ![VERSION, LIST, AUTH, STEP].contains(opcode)) {
        let mut conn = server.connect();
        conn.note = format!("opcode {opcode:#x}");
        // Each once well formed and once not.
        let extras: u8 = match opcode {
            0x01..=0x03 | 0x11..=0x13 => 8,
            0x05 | 0x06 | 0x15 | 0x16 => 20,
            0x1c..=0x1e | 0x23 | 0x24 => 4,
            _ => 0,
        };
        let mut well_formed = packet(opcode, "k", &"\0".repeat(extras.into()));
        well_formed[4] = extras;
        well_formed.extend(packet(NOOP, "", ""));
        conn.send(well_formed);
        conn.expect(answer(opcode, AUTH_ERROR, "Auth failure."));
        conn.closed();
        let mut conn = server.connect();
        conn.round(
            packet(opcode, "", ""),
            answer(opcode, AUTH_ERROR, "Auth failure."),
        );
        conn.closed();
    }
    // Text is no way around it.
    for text in ["get a\r\n", "set k 0 0 9\r\nann right\r\n", "\x01"] {
        let mut conn = server.connect();
        conn.send(text);
        conn.closed();
    }
    let mut conn = server.connect();
    conn.round(
        packet(AUTH, "PLAIN", "\0ann\0right"),
        answer(AUTH, 0, "Authenticated"),
    );
    conn.send(packet(STAT, "", ""));
    let stats = conn.read_until(&answer(STAT, 0, ""));
    let stats = String::from_utf8_lossy(&stats).into_owned();
    for told in ["cmd_get0", "cmd_set0", "auth_cmds1", "auth_errors0"] {
        assert!(stats.contains(told), "{told}: {stats}");
    }
}

#[test]
fn a_sasl_login_may_be_cut_anywhere() {
    let users = Users::new(&format!("ann:{ARGON2}\n"));
    let Some(server) = start_sasl(&users) else {
        return;
    };
    let input = [packet(AUTH, "PLAIN", "\0ann\0right"), packet(NOOP, "", "")].concat();
    for at in 1..input.len() {
        let mut conn = server.connect();
        conn.note = format!("cut at {at}");
        conn.send(&input[..at]);
        conn.send(&input[at..]);
        conn.expect(answer(AUTH, 0, "Authenticated"));
        conn.expect(answer(NOOP, 0, ""));
    }
}
