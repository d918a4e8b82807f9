use super::*;

/// All replies of `wire`, fed in pieces of at most `step` bytes.
fn replies(wire: &[u8], step: usize) -> Result<Vec<Reply>, Broken> {
    let mut inbox = Inbox::default();
    let (mut found, mut wire) = (Vec::new(), wire);
    loop {
        while let Some(reply) = inbox.next_reply()? {
            found.push(reply);
        }
        if wire.is_empty() {
            return Ok(found);
        }
        let space = inbox.space();
        let count = space.len().min(step).min(wire.len());
        space[..count].copy_from_slice(&wire[..count]);
        wire = &wire[count..];
        inbox.filled(count);
    }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn ok(value: &'static str, meta: Meta) -> Reply {
    let value = bytes(value);
    Reply::Ok(Meta { value, ..meta })
}

fn vectors() -> Vec<(&'static str, Reply)> {
    let none = Meta::default;
    vec![
        ("VA 5\r\nhello\r\n", ok("hello", none())),
        ("VA 0 f0\r\n\r\n", ok("", none())),
        ("VA 2\r\n\r\n\r\n", ok("\r\n", none())),
        (
            "VA 1 f7 c18446744073709551615 t-1 O12 W X Z s1 kkey\r\nv\r\n",
            ok(
                "v",
                Meta {
                    flags: 7,
                    cas: u64::MAX,
                    ttl: Some(-1),
                    tag: Some(12),
                    won: true,
                    stale: true,
                    won_by_other: true,
                    others: Some(b" s1 kkey"[..].into()),
                    ..none()
                },
            ),
        ),
        (
            "VA 2  t30 \r\n42\r\n",
            ok(
                "42",
                Meta {
                    ttl: Some(30),
                    ..none()
                },
            ),
        ),
        (
            "VALUE key 7 5\r\nhello\r\n",
            Reply::Value(Classic {
                text: bytes("keyhello"),
                key_len: 3,
                value_at: 3,
                flags: 7,
            }),
        ),
        ("HD\r\n", ok("", none())),
        ("HD c9\r\n", ok("", Meta { cas: 9, ..none() })),
        ("EN\r\n", Reply::Missing),
        ("NF O1\r\n", Reply::Missing),
        ("NS\r\n", Reply::NotStored),
        ("EX\r\n", Reply::Exists),
        ("MN\r\n", Reply::Noop),
        ("STAT pid 1 2\r\n", Reply::Stat(bytes("pid 1 2"))),
        ("END\r\n", Reply::End),
        ("OK\r\n", Reply::Line(bytes("OK"))),
        ("VERSION 1.6.18\r\n", Reply::Line(bytes("VERSION 1.6.18"))),
        ("STORED\r\n", Reply::Line(bytes("STORED"))),
        (
            "SERVER_ERROR object too large for cache\r\n",
            Reply::Refused(Refusal::TooLarge),
        ),
        (
            "SERVER_ERROR out of memory storing object\r\n",
            Reply::Refused(Refusal::Full),
        ),
        (
            "SERVER_ERROR odd\r\n",
            Reply::Refused(Refusal::Server(bytes("SERVER_ERROR odd"))),
        ),
        (
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
            Reply::Refused(Refusal::NotANumber),
        ),
        ("ERROR\r\n", Reply::Refused(Refusal::Client(bytes("ERROR")))),
        (
            "CLIENT_ERROR unauthenticated\r\n",
            Reply::Refused(Refusal::Client(bytes("CLIENT_ERROR unauthenticated"))),
        ),
    ]
}

#[test]
fn each_reply_alone_and_split_at_each_byte() {
    for (wire, reply) in vectors() {
        for split in 1..=wire.len() {
            assert_eq!(
                replies(wire.as_bytes(), split),
                Ok(vec![reply.clone()]),
                "{wire}"
            );
        }
        // A prefix is no reply and no error.
        for end in 0..wire.len() {
            assert_eq!(replies(&wire.as_bytes()[..end], 1000), Ok(vec![]), "{wire}");
        }
    }
}

#[test]
fn replies_in_a_row() {
    let vectors = vectors();
    let wire: String = vectors.iter().map(|(wire, _)| *wire).collect();
    let expected: Vec<Reply> = vectors.into_iter().map(|(_, reply)| reply).collect();
    for step in 1..=wire.len() {
        assert_eq!(replies(wire.as_bytes(), step).as_ref(), Ok(&expected));
    }
}

#[test]
fn values_of_all_sizes_across_the_buffer() {
    let mut wire = Vec::new();
    let mut lens = Vec::new();
    for len in [
        0,
        1,
        100,
        LARGE - 1,
        LARGE,
        LARGE + 1,
        BUFFER_LEN - 9,
        BUFFER_LEN,
        300_000,
    ] {
        for len in [len, 10, len] {
            let value: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            wire.extend(format!("VA {len} f{len}\r\n").into_bytes());
            wire.extend(value);
            wire.extend(b"\r\n");
            lens.push(len);
        }
    }
    for step in [7, 1000, 65_536, usize::MAX] {
        let found = replies(&wire, step).expect("all are replies");
        assert_eq!(found.len(), lens.len());
        for (reply, &len) in found.iter().zip(&lens) {
            let Reply::Ok(meta) = reply else {
                panic!("{reply:?}")
            };
            assert_eq!((meta.value.len(), meta.flags as usize), (len, len));
            assert!(
                meta.value
                    .iter()
                    .enumerate()
                    .all(|(i, &byte)| byte == (i % 251) as u8)
            );
        }
    }
}

#[test]
fn what_is_no_reply() {
    let long = "x".repeat(LINE_LEN_MAX + 1);
    for wire in [
        "\r\n",
        "hello\r\n",
        "EN\n",
        "VA\r\n",
        "VA x\r\n",
        "VA -1\r\n",
        "VA 3\r\nlong\r\n",
        "VA 1 fx\r\nv\r\n",
        "VA 1 f4294967296\r\nv\r\n",
        "VA 1 f99999999999999999999\r\nv\r\n",
        "HD O1x\r\n",
        "EN O\r\n",
        "VA 99999999999999999999\r\n",
        "VA 1073741825\r\n",
        "HD c\r\n",
        "VALUE k 0\r\nv\r\n",
        "VALUE k\r\n",
        "VALUE k x 1\r\nv\r\n",
        "MN\r\nSTOREDX\r\n",
        long.as_str(),
    ] {
        for step in [1, usize::MAX] {
            assert_eq!(replies(wire.as_bytes(), step), Err(Broken), "{wire}");
        }
    }
}
