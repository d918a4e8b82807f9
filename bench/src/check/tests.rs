use super::*;
use crate::sizes::Sizes;

fn data() -> Dataset {
    Dataset::new(1000, 8, Sizes::Fixed(11)).expect("lengths fit")
}

fn key(id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    data().key_into(id, &mut out);
    out
}

fn value(id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    data().value_into(id, &mut out);
    out
}

fn hit(dialect: Dialect, id: u64, value: &[u8]) -> Vec<u8> {
    let (key, len) = (key(id), value.len());
    match dialect {
        Dialect::Text => [
            b"VALUE ",
            &key[..],
            format!(" 0 {len}\r\n").as_bytes(),
            value,
            b"\r\n",
        ]
        .concat(),
        Dialect::Meta => [
            format!("VA {len} k").as_bytes(),
            &key,
            b"\r\n",
            value,
            b"\r\n",
        ]
        .concat(),
        Dialect::Binary => packet(0x0d, 0, &[0; 4], &key, value),
    }
}

fn packet(opcode: u8, status: u16, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = extras.len() + key.len() + value.len();
    let mut head = vec![0x81, opcode, 0, key.len() as u8, extras.len() as u8, 0];
    head.extend(status.to_be_bytes());
    head.extend((body as u32).to_be_bytes());
    head.extend([0; 12]);
    [&head[..], extras, key, value].concat()
}

fn end(dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Text => b"END\r\n".to_vec(),
        Dialect::Meta => b"MN\r\n".to_vec(),
        Dialect::Binary => packet(0x0a, 0, &[], &[], &[]),
    }
}

fn stored(dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Text => b"STORED\r\n".to_vec(),
        Dialect::Meta => b"HD\r\n".to_vec(),
        Dialect::Binary => packet(0x01, 0, &[], &[], &[]),
    }
}

const DIALECTS: [Dialect; 3] = [Dialect::Text, Dialect::Meta, Dialect::Binary];

/// A read of keys 1, 2 and 3, a store of key 4, and a read of 5 and 6.
fn asked(dialect: Dialect) -> Checker {
    let mut checker = Checker::new(dialect, true);
    (1..=3).for_each(|id| checker.expect_key(id));
    checker.expect_end(true);
    checker.expect_store(4);
    (5..=6).for_each(|id| checker.expect_key(id));
    checker.expect_end(true);
    checker
}

/// Feeds `reply` whole, byte by byte, and cut in two at each place; the counts must agree.
fn fed(reply: &[u8], asked: impl Fn() -> Checker) -> (Tally, Result<usize, String>) {
    let data = data();
    let run = |pieces: &[&[u8]]| {
        let (mut checker, mut tally) = (asked(), Tally::default());
        let result = pieces
            .iter()
            .try_for_each(|piece| checker.feed(piece, &data, &mut tally));
        (tally, result.map(|()| checker.outstanding()))
    };
    let whole = run(&[reply]);
    let same = |other: &(Tally, Result<usize, String>)| {
        let counts = |t: &Tally| {
            (
                t.commands,
                t.keys,
                t.hits,
                t.misses,
                t.stored,
                t.errors(),
                t.hit_bytes,
            )
        };
        counts(&whole.0) == counts(&other.0) && whole.1.is_ok() == other.1.is_ok()
    };
    assert!(
        same(&run(&reply.chunks(1).collect::<Vec<_>>())),
        "byte by byte: {}",
        excerpt(reply)
    );
    for at in 0..=reply.len() {
        let cut = run(&[&reply[..at], &reply[at..]]);
        assert!(same(&cut), "cut at {at}: {whole:?} {cut:?}");
    }
    whole
}

#[test]
fn good_replies_pass_however_they_are_cut() {
    for dialect in DIALECTS {
        let reply = [
            hit(dialect, 1, &value(1)),
            hit(dialect, 3, &value(3)),
            end(dialect),
            stored(dialect),
            end(dialect),
        ];
        let (tally, left) = fed(&reply.concat(), || asked(dialect));
        assert_eq!((left, tally.errors()), (Ok(0), 0), "{tally:?}");
        assert_eq!((tally.commands, tally.keys, tally.hits), (3, 6, 2));
        assert_eq!((tally.misses, tally.stored, tally.hit_bytes), (3, 1, 22));
    }
}

#[test]
fn a_single_mg_ends_with_its_hit_or_en() {
    let asked = || {
        let mut checker = Checker::new(Dialect::Meta, true).with_missed();
        for id in [1, 2] {
            checker.expect_key(id);
            checker.expect_end(false);
        }
        checker
    };
    let reply = [&hit(Dialect::Meta, 1, &value(1))[..], b"EN\r\n"].concat();
    let (tally, left) = fed(&reply, asked);
    assert_eq!(
        (left, tally.commands, tally.hits, tally.misses),
        (Ok(0), 2, 1, 1)
    );
    let mut checker = asked();
    checker
        .feed(&reply, &data(), &mut Tally::default())
        .expect("a good reply");
    assert_eq!(checker.take_missed(), [2]);
}

#[test]
fn a_wrong_key_length_or_content_is_found() {
    for dialect in DIALECTS {
        let rest = [end(dialect), stored(dialect), end(dialect)].concat();
        let errors = |value: &[u8], id| {
            let (tally, left) = fed(&[hit(dialect, id, value), rest.clone()].concat(), || {
                asked(dialect)
            });
            assert_eq!(left, Ok(0), "the replies behind it are understood");
            assert!(tally.first_error.is_some());
            (tally.wrong_key, tally.wrong_length, tally.wrong_content)
        };
        assert_eq!(errors(&value(9), 9), (1, 0, 0));
        assert_eq!(errors(&value(5), 5), (1, 0, 0), "a key of the next command");
        assert_eq!(errors(&value(1)[1..], 1), (0, 1, 0));
        assert_eq!(errors(b"", 1), (0, 1, 0));
        assert_eq!(errors(&value(2), 1), (0, 0, 1));
        for at in 0..11 {
            let mut wrong = value(1);
            wrong[at] ^= 0x20;
            assert_eq!(errors(&wrong, 1), (0, 0, 1), "byte {at}");
        }
    }
}

#[test]
fn keys_out_of_order_or_twice_are_wrong() {
    for dialect in DIALECTS {
        for ids in [[2, 1], [1, 1]] {
            let reply = [
                hit(dialect, ids[0], &value(ids[0])),
                hit(dialect, ids[1], &value(ids[1])),
                end(dialect),
            ];
            let (tally, _) = fed(&reply.concat(), || asked(dialect));
            assert_eq!(tally.wrong_key, 1);
        }
    }
}

#[test]
fn refusals_are_counted_and_passed_over() {
    for dialect in DIALECTS {
        let refusal = match dialect {
            Dialect::Binary => packet(0x01, 0x82, &[], &[], b"Out of memory"),
            _ => b"SERVER_ERROR out of memory storing object\r\n".to_vec(),
        };
        let reply = [end(dialect), refusal, end(dialect)].concat();
        let (tally, left) = fed(&reply, || asked(dialect));
        assert_eq!((left, tally.refused, tally.keys), (Ok(0), 1, 6));
    }
}

#[test]
fn what_is_no_reply_ends_the_connection() {
    let text: [&[u8]; 7] = [
        b"HELLO\r\n",
        b"END\n",
        b"STORED\r\n",
        b"VALUE key:0001 0 x\r\n",
        b"VALUE key:0001 0\r\n",
        b"VALUE key:0001 0 1\r\nxyzend",
        b"END\r\nSTORED\r\nEND\r\nEND\r\n",
    ];
    for reply in text {
        let (_, result) = fed(reply, || asked(Dialect::Text));
        assert!(result.is_err(), "{}", excerpt(reply));
    }
    let (_, result) = fed(&[0; 24], || asked(Dialect::Binary));
    assert!(result.is_err());
    let endless = vec![b'x'; HEAD_LEN_MAX + 1];
    let result = asked(Dialect::Text).feed(&endless, &data(), &mut Tally::default());
    assert!(result.is_err());
}

#[test]
fn without_strictness_only_the_framing_is_followed() {
    for dialect in DIALECTS {
        let reply = [
            hit(dialect, 9, b"other"),
            end(dialect),
            stored(dialect),
            end(dialect),
        ];
        let (mut tally, mut checker) = (Tally::default(), asked(dialect));
        checker.strict = false;
        checker
            .feed(&reply.concat(), &data(), &mut tally)
            .expect("the framing is right");
        assert_eq!(
            (checker.outstanding(), tally.errors(), tally.hits),
            (0, 0, 1)
        );
    }
}
