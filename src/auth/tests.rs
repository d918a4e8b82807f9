//! Users and passwords end to end, without a connection.

use std::fs;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;
use std::thread;

use super::*;

/// "right", by the argon2 program: 64 KB, one pass.
const ARGON2: &str =
    "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$jTb/3tBMMtrtgBlCu/7k64VopiAVsVwsoS+rSLMK+o8";
/// "right", by Python's hashlib.
const SCRYPT: &str =
    "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0$DuW8dJt6K0rJWWj5Y2Cuyfp6LvalVXuZUDDQqa1ioRk";

/// A visitor from an address that nobody came from before.
fn visitor() -> Visitor {
    static NEXT: AtomicU32 = AtomicU32::new(1 << 16);
    Visitor::new(Peer::V4(NEXT.fetch_add(1, Relaxed)))
}

/// What a client would get, and how many hashes that took.
fn ask(auth: &Auth, user: &str, password: &str) -> (bool, u64) {
    let before = auth.work.hashes.load(Relaxed);
    let right = match auth.check(&visitor(), user.as_bytes(), password.as_bytes()) {
        Check::Yes => true,
        Check::No => false,
        Check::Later(ticket) => {
            assert_eq!(ticket.answer(), None);
            auth.verify_queued();
            ticket.answer().expect("an answer") == Verdict::Right
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

/// Au1: whoever guesses wrong has the server do the same.
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
    let Check::Later(ticket) = auth.check(&visitor(), b"bob", b"new") else {
        panic!("ann's hash is computed in bob's place");
    };
    write("bob:new\n");
    assert_eq!(auth.reload(), Ok(1));
    auth.verify_queued();
    assert_eq!(ticket.answer(), Some(Verdict::Right));
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

/// Vf1.
#[test]
fn what_nobody_waits_for_is_not_computed() {
    let auth = Auth::of(&format!("ann:{ARGON2}"));
    let visitor = visitor();
    for _ in 0..10_000 {
        drop(auth.check(&visitor, b"ann", b"right"));
        assert!(auth.verifier.len() <= 64);
    }
    auth.verify_queued();
    assert_eq!(auth.work.hashes.load(Relaxed), 0);
}

/// Vf2.
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
                let Check::Later(ticket) = auth.check(&visitor(), b"ann", password.as_bytes())
                else {
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
                let want = if n.is_multiple_of(2) {
                    Verdict::Right
                } else {
                    Verdict::Wrong
                };
                assert_eq!(ticket.answer(), Some(want));
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

/// A ticket of a password that has to wait.
#[track_caller]
fn waiting(auth: &Auth, visitor: &Visitor, password: &str, now: Instant) -> Ticket {
    match auth.check_at(visitor, b"ann", password.as_bytes(), now) {
        Check::Later(ticket) => ticket,
        check => panic!("{password} is known at once: {check:?}"),
    }
}

/// How many passwords were looked at before the one that `ticket` waits for, and the time that addresses had to wait.
fn checks_until(auth: &Auth, ticket: &Ticket, start: Instant) -> (u32, Duration) {
    let (mut checks, mut now) = (0, start);
    while ticket.answer().is_none() {
        assert!(auth.verify_next(&mut now), "it is not forgotten");
        checks += 1;
    }
    assert_eq!(ticket.answer(), Some(Verdict::Right));
    (checks, now - start)
}

/// Vf3, Vf4: 800 strangers who guess, from wherever they like, keep one who knows their password waiting for a few checks, not
/// for 800.
#[test]
fn a_right_password_does_not_wait_for_all_the_wrong_ones() {
    let one_address = |_: u32| Peer::V4(1);
    let own_addresses = |n: u32| Peer::V6(u64::from(n));
    for (strangers, is_known, own) in [
        (
            "of one address",
            false,
            &one_address as &dyn Fn(u32) -> Peer,
        ),
        ("of one address that has guessed before", true, &one_address),
        ("of an address each", false, &own_addresses),
        (
            "of an address each that has guessed before",
            true,
            &own_addresses,
        ),
    ] {
        // The last comes from where the strangers come from.
        for peer in [Peer::V4(2), Peer::User(0), own(0)] {
            let auth = Auth::of(&format!("ann:{ARGON2}"));
            let start = Instant::now();
            if is_known {
                (0..800).for_each(|n| auth.verifier.note_wrong(own(n), start));
            }
            let start = start + Duration::from_secs(1);
            let guesses: Vec<_> = (0..800)
                .map(|n| waiting(&auth, &Visitor::new(own(n)), &format!("guess {n}"), start))
                .collect();
            let right = waiting(&auth, &Visitor::new(peer), "right", start);
            let (checks, waited) = checks_until(&auth, &right, start);
            println!("800 strangers {strangers}, {peer:?}: check {checks}, {waited:?}");
            assert!(checks <= 5, "{strangers}, {peer:?}: {checks} checks");
            assert!(
                waited < Duration::from_millis(500),
                "{strangers}, {peer:?}: {waited:?}"
            );
            // Nobody is forgotten, though.
            auth.verify_queued();
            assert!(
                guesses
                    .iter()
                    .all(|ticket| ticket.answer() == Some(Verdict::Wrong))
            );
        }
    }
}

/// Vf3: connections that have guessed before, and do so again as soon as they may, keep no new one of their address waiting.
#[test]
fn a_new_connection_does_not_wait_for_those_that_were_wrong() {
    let auth = Auth::of(&format!("ann:{ARGON2}"));
    let mut now = Instant::now();
    let mut guessing: Vec<_> = (0..100)
        .map(|_| {
            let mut visitor = Visitor::new(Peer::V4(1));
            visitor.note_wrong();
            (visitor, None::<Ticket>)
        })
        .collect();
    now += Duration::from_secs(1);
    let mut right = None::<Ticket>;
    for round in 0..60 {
        for (visitor, ticket) in &mut guessing {
            if ticket
                .as_ref()
                .is_none_or(|ticket| ticket.answer().is_some())
            {
                *ticket = Some(waiting(&auth, visitor, "wrong", now));
            }
        }
        match &right {
            None if round == 50 => {
                right = Some(waiting(&auth, &Visitor::new(Peer::V4(1)), "right", now));
            }
            Some(ticket) if ticket.answer() == Some(Verdict::Right) => return,
            _ => {}
        }
        assert!(auth.verify_next(&mut now));
    }
    panic!("ten checks, and not of the right one");
}

/// Vf6: those who share an address with one who guesses wait for wrong passwords alone, not for each other.
#[test]
fn right_passwords_of_one_address_do_not_slow_each_other() {
    let auth = Auth::of("ann:right\n");
    let (start, visitor) = (Instant::now(), Visitor::new(Peer::V4(1)));
    for _ in 0..20 {
        auth.verifier.note_wrong(visitor.peer, start);
    }
    let tickets: Vec<_> = (0..500)
        .map(|_| waiting(&auth, &visitor, "right", start))
        .collect();
    assert!(auth.verify_queued() < Duration::from_millis(100));
    assert!(
        tickets
            .iter()
            .all(|ticket| ticket.answer() == Some(Verdict::Right))
    );
}

/// Vf6: a guess a millisecond, each on a connection of its own, for ten seconds. How many passwords are looked at?
#[test]
fn an_address_has_few_guesses() {
    for waits in [false, true] {
        let auth = Auth::of("ann:right\n");
        let (start, visitor) = (Instant::now(), Visitor::new(Peer::V4(1)));
        let mut tickets = Vec::new();
        let (mut looked_at, mut now) = (0, start);
        for n in 0..10_000 {
            now = now.max(start + Duration::from_millis(n));
            match auth.check_at(&visitor, b"ann", b"wrong", now) {
                Check::No => looked_at += 1,
                Check::Later(ticket) if waits => tickets.push(ticket),
                Check::Later(_) => {}
                Check::Yes => panic!("it is wrong"),
            }
            let mut at = now;
            while let Now::Check(job) = auth.verifier.next_at(at) {
                auth.check_job(&job, || at);
                at = now;
                looked_at += 1;
            }
        }
        println!("10,000 guesses in ten seconds: {looked_at} looked at");
        assert!(
            (470..520).contains(&looked_at),
            "{looked_at}, waiting: {waits}"
        );
    }
}

/// Vf5.
#[test]
fn what_one_address_has_waiting_is_bounded() {
    let auth = Auth::of(&format!("ann:{ARGON2}"));
    let (start, visitor) = (Instant::now(), Visitor::new(Peer::V4(1)));
    let tickets: Vec<_> = (0..3000)
        .map(|_| waiting(&auth, &visitor, "wrong", start))
        .collect();
    assert_eq!(auth.verifier.len(), 1024);
    let (busy, rest) = tickets.split_at(3000 - 1024);
    assert!(
        busy.iter()
            .all(|ticket| ticket.answer() == Some(Verdict::Busy))
    );
    assert!(rest.iter().all(|ticket| ticket.answer().is_none()));
    // Another address has as much.
    let other = waiting(&auth, &Visitor::new(Peer::V4(2)), "right", start);
    assert_eq!(checks_until(&auth, &other, start).0, 1);
}

/// Vf6: a connection that was wrong waits for its time, and keeps no other waiting.
#[test]
fn a_connection_waits_after_each_wrong_password() {
    let auth = Auth::of("ann:right\nbob:right\n");
    let mut visitor = Visitor::new(Peer::V4(1));
    for _ in 0..8 {
        visitor.note_wrong();
    }
    assert!(!visitor.is_to_go());
    let now = Instant::now();
    let ticket = waiting(&auth, &visitor, "right", now);
    let other = auth.check_at(&Visitor::new(Peer::V4(1)), b"bob", b"right", now);
    assert!(matches!(other, Check::Yes), "{other:?}");
    let waited = auth.verify_queued();
    assert_eq!(ticket.answer(), Some(Verdict::Right));
    assert!(waited > Duration::from_millis(900), "{waited:?}");
    (0..2).for_each(|_| visitor.note_wrong());
    assert!(visitor.is_to_go());
}
