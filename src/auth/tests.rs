//! Users and passwords end to end, without a connection.

use std::fs;
use std::sync::mpsc;
use std::thread;

use super::*;

/// "right", by the argon2 program: 64 KB, one pass.
const ARGON2: &str =
    "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$jTb/3tBMMtrtgBlCu/7k64VopiAVsVwsoS+rSLMK+o8";
/// "right", by Python's hashlib.
const SCRYPT: &str =
    "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0$DuW8dJt6K0rJWWj5Y2Cuyfp6LvalVXuZUDDQqa1ioRk";

/// What a client would get, and how many hashes that took.
fn ask(auth: &Auth, user: &str, password: &str) -> (bool, u64) {
    let before = auth.work.hashes.load(Relaxed);
    let right = match auth.check(user.as_bytes(), password.as_bytes()) {
        Check::Yes => true,
        Check::No => false,
        Check::Later(ticket) => {
            assert_eq!(ticket.answer(), None);
            auth.verify_queued();
            ticket.answer().expect("an answer")
        }
    };
    (right, auth.work.hashes.load(Relaxed) - before)
}

#[test]
fn plain_passwords_need_no_hash() {
    let auth = Auth::of("ann:one\nann:two\nbob:three");
    for (user, password, right) in [
        ("ann", "one", true),
        ("ann", "two", true),
        ("bob", "three", true),
        ("ann", "three", false),
        ("ann", "", false),
        ("annone", "", false),
        ("an", "none", false),
        ("eve", "one", false),
    ] {
        assert_eq!(ask(&auth, user, password), (right, 0), "{user} {password}");
    }
    assert_eq!(auth.work.digests.load(Relaxed), 8);
}

#[test]
fn hashed_passwords_are_computed_until_they_are_known() {
    let auth = Auth::of(&format!("ann:{ARGON2}\nbob:{SCRYPT}\n"));
    for user in ["ann", "bob"] {
        assert_eq!(ask(&auth, user, "wrong"), (false, 1));
        assert_eq!(ask(&auth, user, "right"), (true, 1));
        assert_eq!(ask(&auth, user, "right"), (true, 0), "known by now");
        assert_eq!(ask(&auth, user, "wrong"), (false, 1));
    }
    assert_eq!(ask(&auth, "eve", "right"), (false, 1));
}

/// A1: whoever guesses wrong has the server do the same.
#[test]
fn a_wrong_guess_takes_the_same_work_for_every_user() {
    let auth = Auth::of(&format!("ann:{ARGON2}\nbob:plain\n"));
    for (user, password) in [("ann", "x"), ("bob", "x"), ("eve", "x"), ("eve", "right")] {
        let digests = auth.work.digests.load(Relaxed);
        assert_eq!(ask(&auth, user, password), (false, 1), "{user} {password}");
        assert_eq!(auth.work.digests.load(Relaxed) - digests, 1);
    }
    assert_eq!(ask(&auth, "bob", "plain"), (true, 0));
}

#[test]
fn a_hash_is_as_long_as_the_file_says_and_no_password_itself() {
    let auth = Auth::of(&format!("ann:{ARGON2}"));
    assert_eq!(ask(&auth, "ann", ARGON2), (false, 1));
    assert!(!format!("{auth:?}").contains("right"));
}

#[test]
fn nobody_can_log_in_without_users() {
    let auth = Auth::nobody();
    assert_eq!(ask(&auth, "", ""), (false, 0));
    assert_eq!(auth.reload(), Ok(0));
}

#[test]
fn a_file_is_read_again_and_a_broken_one_is_not_taken() {
    let path = std::env::temp_dir().join(format!("ketch-users-{}", std::process::id()));
    let write = |text: &str| fs::write(&path, text).expect("a temporary file");
    write(&format!("ann:{ARGON2}\n"));
    let auth = Auth::open(&path, Format::AuthFile).expect("a good file");
    assert_eq!(ask(&auth, "ann", "right"), (true, 1));
    // What waits is checked against the users there are when its turn comes.
    let Check::Later(ticket) = auth.check(b"bob", b"new") else {
        panic!("ann's hash is computed in bob's place");
    };
    write("bob:new\n");
    assert_eq!(auth.reload(), Ok(1));
    auth.verify_queued();
    assert_eq!(ticket.answer(), Some(true));
    assert_eq!(
        ask(&auth, "ann", "right"),
        (false, 0),
        "forgotten with its line"
    );

    write("bob:new\n\n");
    let name = path.display();
    assert_eq!(
        auth.reload(),
        Err(format!("{name}:2: must be user:password"))
    );
    assert_eq!(ask(&auth, "bob", "new"), (true, 0));
    fs::remove_file(&path).expect("our file");
    let gone = auth.reload().expect_err("there is no file");
    assert!(
        gone.starts_with(&format!("{name}: cannot be read: ")),
        "{gone}"
    );
    assert_eq!(ask(&auth, "bob", "new"), (true, 0));
    assert!(Auth::open(&path, Format::AuthFile).is_err());
}

/// V1.
#[test]
fn what_nobody_waits_for_is_not_computed() {
    let auth = Auth::of(&format!("ann:{ARGON2}"));
    for _ in 0..10_000 {
        drop(auth.check(b"ann", b"right"));
        assert!(auth.verifier.len() <= 64);
    }
    auth.verify_queued();
    assert_eq!(auth.work.hashes.load(Relaxed), 0);
}

/// V2.
#[test]
fn the_verifier_wakes_each_who_waits() {
    let auth = Auth::of(&format!("ann:{ARGON2}"));
    let (send, woken) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| auth.run_verifier());
        let tickets: Vec<_> = (0..20)
            .map(|n: u32| {
                let password = if n.is_multiple_of(2) {
                    "right"
                } else {
                    "wrong"
                };
                let send = send.clone();
                let Check::Later(ticket) = auth.check(b"ann", password.as_bytes()) else {
                    return None;
                };
                ticket.when_answered(Box::new(move || send.send(n).expect("we listen")));
                Some(ticket)
            })
            .collect();
        let mut seen: Vec<u32> = (0..tickets.iter().flatten().count())
            .map(|_| woken.recv().expect("each is answered"))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), tickets.iter().flatten().count());
        for (n, ticket) in tickets.iter().enumerate() {
            if let Some(ticket) = ticket {
                assert_eq!(ticket.answer(), Some(n % 2 == 0));
                // Late, so at once.
                let send = send.clone();
                ticket.when_answered(Box::new(move || send.send(99).expect("we listen")));
                assert_eq!(woken.recv(), Ok(99));
            }
        }
        auth.close();
    });
    assert!(auth.work.hashes.load(Relaxed) <= 11, "the right one once");
}
