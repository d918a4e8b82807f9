//! A session's replies do not depend on how its input was cut (D1), nor on when its peer takes them.

use super::{Next, Session};
use crate::auth::Peer;
use crate::cache::testing::Rng;
use crate::command::output::Output;
use crate::command::testing::Server;
use crate::packing::{Packer, Unpacker};
use crate::state::Ctx;

/// How one run cuts its input, hands out turns and takes replies.
#[derive(Clone, Copy)]
struct Manner {
    /// The most bytes given at once.
    piece_max: usize,
    /// The most commands of one drive.
    budget_max: usize,
    /// Whether values are read straight into their chunks.
    direct: bool,
    /// Whether another process goes on after every drive.
    carried: bool,
}

/// The conversation and what it has not written, as another process finds them.
fn carried<'c>(
    ctx: Ctx<'c>,
    session: Session<'c>,
    mut out: Output<'c>,
) -> (Session<'c>, Output<'c>) {
    let mut packer = Packer::default();
    session.pack(ctx, &mut out, &mut packer);
    out.pack(&mut packer);
    let bytes = packer.into_bytes();
    let mut from = Unpacker::new(&bytes);
    let session = Session::unpack(ctx, Peer::Unknown, false, &mut from).expect("a conversation");
    let out = Output::unpack(ctx.cache, &mut from).expect("replies");
    (session, out)
}

/// Feeds `input` to a new connection of a new server.
fn replies(input: &[u8], manner: Manner, rng: &mut Rng) -> Vec<u8> {
    replies_of(&Server::start(), input, manner, rng)
}

fn replies_of(server: &Server, input: &[u8], manner: Manner, rng: &mut Rng) -> Vec<u8> {
    let ctx = server.shared.ctx(0);
    let (mut session, mut out) = (Session::new(), Output::new());
    let (mut replies, mut held, mut rest) = (Vec::new(), Vec::new(), input);
    loop {
        let mut piece = rest.len().min(1 + rng.below(manner.piece_max));
        if manner.direct
            && held.is_empty()
            && let Some(spare) = session.spare()
        {
            let n = piece.min(spare.len());
            spare[..n].copy_from_slice(&rest[..n]);
            session.advance(n);
            rest = &rest[n..];
            piece -= n;
        }
        let may_foresee = held.is_empty() && session.expects_one();
        held.extend_from_slice(&rest[..piece]);
        rest = &rest[piece..];
        if may_foresee {
            session.foresee(ctx, &held);
            session.fetch_foreseen(ctx);
        }
        loop {
            let mut budget = 1 + rng.below(manner.budget_max) as u32;
            let drive = session.drive(ctx, &held, &mut budget, &mut out);
            held.drain(..drive.consumed);
            take(&mut out, &mut replies, rng);
            if manner.carried {
                (session, out) = carried(ctx, session, out);
            }
            match drive.next {
                Next::Close | Next::HangUp => return replies,
                Next::Read => break,
                Next::Flush | Next::Yield => {}
                Next::Place | Next::Watch => panic!("no dump runs, and nobody watches"),
                Next::Command | Next::Answers => panic!("this is no proxy"),
                Next::Verify => {
                    server.shared.auth.as_ref().expect("users").verify_queued();
                }
            }
        }
        assert!(held.len() <= 4096, "an unfinished command stays short");
        if rest.is_empty() {
            return replies;
        }
    }
}

/// The peer takes everything, in pieces of any size.
fn take(out: &mut Output<'_>, replies: &mut Vec<u8>, rng: &mut Rng) {
    while !out.is_empty() {
        let mut slices = Vec::new();
        out.slices(&mut slices);
        let offered: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        drop(slices);
        let taken = 1 + rng.below(offered.len());
        replies.extend_from_slice(&offered[..taken]);
        out.advance(taken);
    }
}

fn value(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| b"abc \r\n"[rng.below(6)]).collect()
}

/// A conversation with everything in it that a parser or a session could trip over.
fn conversation(rng: &mut Rng) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..60 {
        let key = format!("key{}", rng.below(8));
        let other = format!("key{}", rng.below(8));
        let line = match rng.below(16) {
            0..4 => {
                let size = [0, 3, 100, 5000, 200_000][rng.below(5)];
                let verb = ["set", "add", "append", "prepend", "replace"][rng.below(5)];
                let noreply = ["", " noreply"][rng.below(2)];
                input.extend(format!("{verb} {key} {size} 0 {size}{noreply}\r\n").bytes());
                let mut body = value(rng, size);
                body.extend_from_slice([&b"\r\n"[..], b"\r\n", b"\r\n", b"!?"][rng.below(4)]);
                input.extend(body);
                continue;
            }
            4 => {
                let size = rng.below(9000);
                input.extend(format!("ms {key} {size} T0 c k Oq{size}\r\n").bytes());
                input.extend(value(rng, size));
                "".to_owned()
            }
            5 => format!("get {key} {other} none {key}"),
            6 => format!("gets {}", format!("{key} {other} ").repeat(400)),
            7 => format!("get {key} {} {other}", "x".repeat(251)),
            8 => format!("mg {key} s v t f Oabc k"),
            9 => format!("delete {key}"),
            10 => format!("incr {key} 5"),
            11 => format!("ma {key} N0 J13 v"),
            12 => format!("set {key} bad 0 14\r\nflush_all\r\n  \r"),
            13 => format!("set {key} 0 0 1048576\r\n{}", "y".repeat(1_048_576)),
            14 => "nonsense".to_owned(),
            _ => "mn".to_owned(),
        };
        input.extend(line.bytes());
        input.extend_from_slice(b"\r\n");
    }
    input
}

/// A binary packet. What its lengths say is true.
fn packet(opcode: u8, cas: u64, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let body_len = extras.len() + key.len() + value.len();
    let mut packet = vec![
        0x80,
        opcode,
        0,
        key.len() as u8,
        extras.len() as u8,
        0,
        0,
        0,
    ];
    packet.extend_from_slice(&(body_len as u32).to_be_bytes());
    packet.extend_from_slice(&[0xca, 0xfe, 0, opcode]);
    packet.extend_from_slice(&cas.to_be_bytes());
    [&packet, extras, key, value].concat()
}

/// The same in binary, with batches of quiet gets.
fn binary_conversation(rng: &mut Rng) -> Vec<u8> {
    use protocol::binary::opcode::*;
    let mut input = Vec::new();
    for _ in 0..80 {
        let key = format!("key {}\r\n", rng.below(8)).into_bytes();
        let (opcode, cas) = (
            |from: &[u8], rng: &mut Rng| from[rng.below(from.len())],
            rng.below(9) / 8,
        );
        let (exptime, count) = ([0; 4], [0, 0, 0, 0, 0, 0, 0, 5].repeat(2));
        input.extend(match rng.below(12) {
            0..3 => {
                let size = [0, 3, 100, 5000, 200_000, 1_048_576][rng.below(6)];
                let opcode = opcode(&[SET, SETQ, ADD, ADDQ, REPLACE, REPLACEQ], rng);
                packet(opcode, cas as u64, &[7; 8], &key, &value(rng, size))
            }
            3 => {
                let size = [0, 3, 100, 5000][rng.below(4)];
                let opcode = opcode(&[APPEND, APPENDQ, PREPEND, PREPENDQ], rng);
                packet(opcode, 0, b"", &key, &value(rng, size))
            }
            4 => packet(opcode(&[DELETE, DELETEQ], rng), cas as u64, b"", &key, b""),
            5 => packet(
                opcode(&[TOUCH, GAT, GATQ, GATK, GATKQ], rng),
                0,
                &exptime,
                &key,
                b"",
            ),
            6 => {
                let extras = [&count[..], &exptime].concat();
                packet(
                    opcode(&[INCREMENT, INCREMENTQ, DECREMENT], rng),
                    0,
                    &extras,
                    b"n",
                    b"",
                )
            }
            7 => packet(0x30 + rng.below(9) as u8, 0, b"four", &key, b"body"),
            8 => packet(
                opcode(&[SASL_AUTH, SASL_STEP], rng),
                0,
                b"",
                b"PLAIN",
                b"\0user\0pass",
            ),
            9 => packet(opcode(&[NOOP, VERSION], rng), 0, b"", b"", b""),
            _ => (0..1 + rng.below(30))
                .flat_map(|_| {
                    let key = format!("key {}\r\n", rng.below(12)).into_bytes();
                    packet(opcode(&[GET, GETQ, GETKQ, GETKQ], rng), 0, b"", &key, b"")
                })
                .collect(),
        });
    }
    // What is not well formed ends it.
    input.extend(packet(GET, 0, b"", b"", b""));
    input.extend(packet(NOOP, 0, b"", b"", b""));
    input
}

#[test]
fn replies_are_the_same_however_the_input_is_cut() {
    same_replies_however_cut(conversation);
}

#[test]
fn binary_replies_are_the_same_however_the_input_is_cut() {
    same_replies_however_cut(binary_conversation);
}

fn same_replies_however_cut(conversation: fn(&mut Rng) -> Vec<u8>) {
    let manners = [
        Manner {
            piece_max: 1 << 22,
            budget_max: 3,
            direct: false,
            carried: false,
        },
        Manner {
            piece_max: 16 << 10,
            budget_max: 50,
            direct: true,
            carried: false,
        },
        Manner {
            piece_max: 2000,
            budget_max: 20,
            direct: false,
            carried: false,
        },
        Manner {
            piece_max: 300,
            budget_max: 5,
            direct: true,
            carried: false,
        },
        Manner {
            piece_max: 300,
            budget_max: 5,
            direct: true,
            carried: true,
        },
        Manner {
            piece_max: 30_000,
            budget_max: 5,
            direct: false,
            carried: true,
        },
    ];
    for seed in 1..=u64::from(ketch_testing::rounds(3, 8)) {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let input = conversation(&mut rng);
        let whole = Manner {
            piece_max: 1 << 22,
            budget_max: 1000,
            direct: false,
            carried: false,
        };
        let want = replies(&input, whole, &mut rng);
        assert!(want.len() > 1000);
        // To carry one over takes longer than to go on.
        let few = seed <= u64::from(ketch_testing::rounds(1, 3));
        for manner in manners.into_iter().filter(|manner| few || !manner.carried) {
            let got = replies(&input, manner, &mut rng);
            let differs = got.iter().zip(&want).position(|(got, want)| got != want);
            assert!(got == want, "piece {}: byte {differs:?}", manner.piece_max);
        }
    }
}

/// What was looked for ahead is good for the request that was read ahead, and for no other.
#[test]
fn a_request_that_was_read_ahead_hands_on_what_was_found() {
    let server = Server::start();
    let ctx = server.shared.ctx(0);
    let (mut session, mut out) = (Session::new(), Output::new());
    let mut ask = |input: &[u8], ahead: bool| {
        if ahead {
            assert!(session.expects_one());
            session.foresee(ctx, input);
            session.fetch_foreseen(ctx);
        }
        let drive = session.drive(ctx, input, &mut 9, &mut out);
        assert_eq!(drive.consumed, input.len());
        std::mem::take(&mut out.buf).escape_ascii().to_string()
    };
    let stored = r"STORED\r\n";
    assert_eq!(ask(b"set a 0 0 1\r\nx\r\n", false), stored);
    assert_eq!(ask(b"set b 0 0 1\r\ny\r\n", true), stored);
    let (a, b) = (
        r"VALUE a 0 1\r\nx\r\nEND\r\n",
        r"VALUE b 0 1\r\ny\r\nEND\r\n",
    );
    assert_eq!(ask(b"get a\r\n", true), a);
    assert_eq!(ask(b"get b\r\n", false), b);
    assert_eq!(ask(b"get b\r\nget a\r\n", true), format!("{b}{a}"));
    server.shared.cache.check_invariants();
}

#[test]
fn a_value_sent_byte_by_byte_arrives() {
    let mut rng = Rng::new(3);
    let one = Manner {
        piece_max: 1,
        budget_max: 1,
        direct: true,
        carried: false,
    };
    let got = replies(
        b"set a 0 0 5\r\nhello\r\nget a\r\nms b 2 \r\nok\r\nmg b v\r\n",
        one,
        &mut rng,
    );
    assert_eq!(
        got,
        b"STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\nHD\r\nVA 2\r\nok\r\n"
    );
    let input = [
        packet(0x11, 0, &[0; 8], b"a", b"hello"),
        packet(0x00, 0, b"", b"a", b""),
    ];
    let got = replies(&input.concat(), one, &mut rng);
    assert!(got.len() == 33 && got.ends_with(b"\0\0\0\0hello"));
}

#[test]
fn a_full_output_stops_the_session_and_loses_nothing() {
    let server = Server::start();
    let ctx = server.shared.ctx(0);
    let (mut session, mut out) = (Session::new(), Output::new());
    let value = "v".repeat(900_000);
    let mut input = format!("set big 0 0 {}\r\n{value}\r\n", value.len());
    input += &"get big\r\n".repeat(10);
    let first = session.drive(ctx, input.as_bytes(), &mut 1000, &mut out);
    assert_eq!(first.next, Next::Flush);
    assert!(out.buf.len() < 1000, "a large value is not copied");
    let mut replies = Vec::new();
    let mut at = first.consumed;
    while at < input.len() || !out.is_empty() {
        take(&mut out, &mut replies, &mut Rng::new(1));
        at += session
            .drive(ctx, &input.as_bytes()[at..], &mut 1000, &mut out)
            .consumed;
    }
    let one = format!("VALUE big 0 {}\r\n{value}\r\nEND\r\n", value.len());
    assert!(replies == format!("STORED\r\n{}", one.repeat(10)).into_bytes());
}

#[test]
fn a_long_list_of_keys_counts_for_many_commands() {
    let server = Server::start();
    let ctx = server.shared.ctx(0);
    let (mut session, mut out) = (Session::new(), Output::new());
    // As a worker reads it: so many bytes at a time.
    let part = " key".repeat(4 << 10);
    let mut budget = 20;
    let first = session.drive(ctx, format!("get{part}").as_bytes(), &mut budget, &mut out);
    assert_eq!((first.next, budget), (Next::Read, 19));
    let second = session.drive(ctx, part.as_bytes(), &mut budget, &mut out);
    assert_eq!(
        (second.next, budget),
        (Next::Yield, 0),
        "others have their turn"
    );
    assert!(second.consumed > part.len() - 300, "{}", second.consumed);
}

/// "right", by the argon2 program: 64 KB, one pass.
const ARGON2: &str =
    "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$jTb/3tBMMtrtgBlCu/7k64VopiAVsVwsoS+rSLMK+o8";

/// Everything that can be said before a login, the login, and a command; the replies; and the counters.
fn sign_in() -> (Vec<u8>, Vec<u8>) {
    let long = "x".repeat(16_385);
    let longest = "y".repeat(16_384 - 4);
    let rounds = [
        ("get a\r\n".to_owned(), "CLIENT_ERROR unauthenticated"),
        (
            "set k 0 0 2\r\nhi\r\n".to_owned(),
            "CLIENT_ERROR bad authentication token format",
        ),
        (
            "set k 0 0 8\r\nann left\r\n".to_owned(),
            "CLIENT_ERROR authentication failure",
        ),
        (
            "set k 0 0 9\r\nann righty!".to_owned(),
            "CLIENT_ERROR bad command line termination",
        ),
        (
            format!("set k 0 0 16385\r\n{long}\r\n"),
            "CLIENT_ERROR auth token too long",
        ),
        (
            format!("set k 0 0 16384\r\nann {longest}\r\n"),
            "CLIENT_ERROR authentication failure",
        ),
        ("flush_all\n".to_owned(), "CLIENT_ERROR unauthenticated"),
        ("\r\n".to_owned(), "CLIENT_ERROR unauthenticated"),
        ("set k 0 0 9\r\nann right\r\n".to_owned(), "STORED"),
        ("set a 0 0 9\r\nann right\r\n".to_owned(), "STORED"),
        ("get k a\r\n".to_owned(), "VALUE a 0 9\r\nann right\r\nEND"),
    ];
    let input: String = rounds.iter().map(|(request, _)| request.as_str()).collect();
    let want: String = rounds
        .iter()
        .flat_map(|(_, reply)| [*reply, "\r\n"])
        .collect();
    (input.into_bytes(), want.into_bytes())
}

#[test]
fn a_login_is_the_same_however_it_is_cut() {
    let (input, want) = sign_in();
    for users in ["ann:right", &format!("bob:x\nann:{ARGON2}")] {
        for (piece_max, budget_max) in [(1 << 20, 100), (1 << 20, 1), (3000, 3), (1, 1)] {
            let server = Server::with_users(users);
            let manner = Manner {
                piece_max,
                budget_max,
                direct: true,
                carried: false,
            };
            let got = replies_of(&server, &input, manner, &mut Rng::new(5));
            assert_eq!(
                String::from_utf8_lossy(&got),
                String::from_utf8_lossy(&want)
            );
            let sums = server.shared.stats.read();
            let counts = sums.general;
            assert_eq!((counts.auth_cmds, counts.auth_errors), (3, 2));
            assert_eq!(
                (sums.over_classes().cmd_set, counts.cmd_get),
                (1, 2),
                "after the login alone"
            );
        }
    }
}

#[test]
fn a_session_waits_for_its_password_without_reading_on() {
    let server = Server::with_users(&format!("ann:{ARGON2}"));
    let ctx = server.shared.ctx(0);
    let (mut session, mut out) = (Session::new(), Output::new());
    assert!(!session.is_authenticated());
    let input = b"set k 0 0 9\r\nann right\r\nmn\r\n";
    let waits = session.drive(ctx, input, &mut 100, &mut out);
    assert_eq!((waits.consumed, waits.next), (24, Next::Verify));
    for _ in 0..3 {
        let again = session.drive(ctx, &input[24..], &mut 100, &mut out);
        assert_eq!((again.consumed, again.next), (0, Next::Verify));
    }
    assert!(session.has_own_work() && !session.is_authenticated() && out.is_empty());
    server.shared.auth.as_ref().expect("users").verify_queued();
    session.drive(ctx, &input[24..], &mut 100, &mut out);
    assert!(session.is_authenticated());
    assert_eq!(out.plain(), Some(&b"STORED\r\nMN\r\n"[..]));
}

/// Whatever is said without the password: refusals are all that is answered, and nothing is done.
#[test]
fn nothing_but_the_password_leads_past_the_gate() {
    let refusals = [
        "CLIENT_ERROR unauthenticated",
        "CLIENT_ERROR authentication failure",
        "CLIENT_ERROR bad authentication token format",
        "CLIENT_ERROR bad command line termination",
        "CLIENT_ERROR auth token too long",
    ];
    for seed in 1..=20 {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let server = Server::with_users(&format!("ann:secret\nbob:{ARGON2}"));
        let manner = Manner {
            piece_max: 1 + rng.below(9000),
            budget_max: 50,
            direct: true,
            carried: false,
        };
        // Text, and noise in which a packet's first byte is as likely as any other.
        let mut input = conversation(&mut rng);
        for _ in 0..rng.below(4) {
            let at = rng.below(input.len());
            let noise: Vec<u8> = (0..200).map(|_| rng.below(256) as u8).collect();
            input.splice(at..at, noise);
        }
        let got = replies_of(&server, &input, manner, &mut rng);
        let text = String::from_utf8(got).expect("lines");
        for line in text.split_terminator("\r\n") {
            assert!(refusals.contains(&line), "{line}");
        }
        let sums = server.shared.stats.read();
        let (all, classes) = (sums.general, sums.over_classes());
        assert_eq!(all.auth_cmds, all.auth_errors);
        assert_eq!((all.cmd_get, all.cmd_flush, all.cmd_meta), (0, 0, 0));
        assert_eq!(classes.cmd_set, 0);
    }
}
