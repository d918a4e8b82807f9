//! Binary vectors: a packet, and what the parser makes of it. Each is fed whole, cut at each byte, and with another
//! packet behind it.

use super::fuzz::Random;
use super::{consumed, show};
use crate::binary::{HEADER_LEN, MAGIC_REPLY, MAGIC_REQUEST, opcode::*, parse};
use crate::{BinaryHead, ErrorLine, Parsed, Status, binary};

/// A packet whose header tells the truth; its opaque is 0xfeed.
fn packet(opcode: u8, cas: u64, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let body_len = extras.len() + key.len() + value.len();
    lying(
        opcode,
        cas,
        (extras.len(), key.len(), body_len),
        &[extras, key, value].concat(),
    )
}

/// A packet with any lengths in its header.
fn lying(opcode: u8, cas: u64, lens: (usize, usize, usize), body: &[u8]) -> Vec<u8> {
    let (extras_len, key_len, body_len) = lens;
    let mut packet = vec![MAGIC_REQUEST, opcode];
    packet.extend_from_slice(&(key_len as u16).to_be_bytes());
    // Data type and vbucket are not looked at.
    packet.extend_from_slice(&[extras_len as u8, 0xd7, 0x1b, 0x2b]);
    packet.extend_from_slice(&(body_len as u32).to_be_bytes());
    packet.extend_from_slice(&0xfeed_u32.to_be_bytes());
    packet.extend_from_slice(&cas.to_be_bytes());
    packet.extend_from_slice(body);
    packet
}

/// `value` bytes are not the parser's to take.
fn check(packet: &[u8], value_len: usize, answer: &str) {
    let name = packet.escape_ascii();
    let parsed = parse(packet);
    assert_eq!(show(parsed), answer, "{name}");
    let head_len = packet.len() - value_len;
    if let Parsed::Complete { consumed, .. } = parsed {
        assert_eq!(consumed, head_len, "{name}");
    }
    for cut in 0..head_len {
        let part = parse(&packet[..cut]);
        // A refusal needs the header alone.
        let judged = cut >= HEADER_LEN && matches!(parsed, Parsed::Invalid { .. });
        assert!(
            part == if judged { parsed } else { Parsed::Incomplete },
            "{name} cut at {cut}"
        );
    }
    let batch = [packet, &lying(NOOP, 0, (0, 0, 0), b"")].concat();
    assert_eq!(parse(&batch), parsed, "{name} with a packet behind it");
    if matches!(parsed, Parsed::Complete { .. }) {
        assert_eq!(show(parse(&batch[packet.len()..])), "Noop [0a feed]");
    }
}

const SET_EXTRAS: &[u8] = b"\x00\x00\x00\x07\x00\x00\x00\x1e";

#[test]
fn retrievals() {
    let touch = b"\x00\x00\x00\x1e";
    for (opcode, extras, answer) in [
        (GET, &b""[..], "get key=k value [00 feed]"),
        (GETQ, b"", "get key=k value [09 feed quiet]"),
        (GETK, b"", "get key=k value want_key [0c feed]"),
        (GETKQ, b"", "get key=k value want_key [0d feed quiet]"),
        (TOUCH, touch, "get key=k touch=30 [1c feed]"),
        (GAT, touch, "get key=k touch=30 value [1d feed]"),
        (GATQ, touch, "get key=k touch=30 value [1e feed quiet]"),
        (GATK, touch, "get key=k touch=30 value want_key [23 feed]"),
        (
            GATKQ,
            touch,
            "get key=k touch=30 value want_key [24 feed quiet]",
        ),
    ] {
        check(&packet(opcode, 0, extras, b"k", b""), 0, answer);
        // Their CAS unique says nothing.
        check(&packet(opcode, 9, extras, b"k", b""), 0, answer);
    }
    let key = [b"\x00 \r\n\xff".as_slice(), &[b'x'; 245]].concat();
    let answer = format!(
        "get key=\\x00 \\r\\n\\xff{} value [00 feed]",
        "x".repeat(245)
    );
    check(&packet(GET, 0, b"", &key, b""), 0, &answer);
    check(
        &packet(TOUCH, 0, b"\xff\xff\xff\xff", b"k", b""),
        0,
        "get key=k touch=-1 [1c feed]",
    );
}

#[test]
fn stores() {
    for (opcode, cas, answer) in [
        (SET, 0, "Set key=k flags=7 exptime=30 len=2 [01 feed]"),
        (
            SET,
            5,
            "Set key=k flags=7 exptime=30 len=2 compare=5 [01 feed]",
        ),
        (
            SETQ,
            0,
            "Set key=k flags=7 exptime=30 len=2 [11 feed quiet]",
        ),
        (ADD, 0, "Add key=k flags=7 exptime=30 len=2 [02 feed]"),
        (
            ADDQ,
            0,
            "Add key=k flags=7 exptime=30 len=2 [12 feed quiet]",
        ),
        (
            REPLACE,
            0,
            "Replace key=k flags=7 exptime=30 len=2 [03 feed]",
        ),
        (
            REPLACEQ,
            0,
            "Replace key=k flags=7 exptime=30 len=2 [13 feed quiet]",
        ),
        // With a unique all of them are cas.
        (
            ADD,
            5,
            "Set key=k flags=7 exptime=30 len=2 compare=5 [02 feed]",
        ),
        (
            REPLACE,
            5,
            "Set key=k flags=7 exptime=30 len=2 compare=5 [03 feed]",
        ),
    ] {
        check(&packet(opcode, cas, SET_EXTRAS, b"k", b"hi"), 2, answer);
    }
    for (opcode, cas, answer) in [
        (APPEND, 0, "Append key=k flags=0 exptime=0 len=2 [0e feed]"),
        (
            APPENDQ,
            0,
            "Append key=k flags=0 exptime=0 len=2 [19 feed quiet]",
        ),
        (
            PREPEND,
            0,
            "Prepend key=k flags=0 exptime=0 len=2 [0f feed]",
        ),
        (
            PREPENDQ,
            6,
            "Prepend key=k flags=0 exptime=0 len=2 compare=6 [1a feed quiet]",
        ),
    ] {
        check(&packet(opcode, cas, b"", b"k", b"hi"), 2, answer);
    }
    check(
        &packet(SET, 0, SET_EXTRAS, b"k", b""),
        0,
        "Set key=k flags=7 exptime=30 len=0 [01 feed]",
    );
    check(
        &lying(SET, 0, (8, 1, 1 << 30), &[SET_EXTRAS, b"k"].concat()),
        0,
        "Set key=k flags=7 exptime=30 len=1073741815 [01 feed]",
    );
}

#[test]
fn what_needs_no_value() {
    let count = [
        &5u64.to_be_bytes()[..],
        &13u64.to_be_bytes(),
        &30u32.to_be_bytes(),
    ]
    .concat();
    let keep = [&count[..16], b"\xff\xff\xff\xff"].concat();
    for (opcode, cas, extras, key, answer) in [
        (DELETE, 0, &b""[..], "k", "delete key=k [04 feed]"),
        (
            DELETEQ,
            3,
            b"",
            "k",
            "delete key=k compare=3 [14 feed quiet]",
        ),
        (
            INCREMENT,
            0,
            &count,
            "k",
            "incr key=k delta=5 vivify=30 initial=13 value [05 feed]",
        ),
        (
            DECREMENTQ,
            8,
            &keep,
            "k",
            "decr key=k delta=5 initial=13 compare=8 value [16 feed quiet]",
        ),
        (QUIT, 0, b"", "", "Quit [07 feed]"),
        (QUITQ, 0, b"", "", "Quit [17 feed quiet]"),
        (FLUSH, 0, b"", "", "Flush(Exptime(0)) [08 feed]"),
        (
            FLUSHQ,
            0,
            b"\x00\x00\x00\x0a",
            "",
            "Flush(Exptime(10)) [18 feed quiet]",
        ),
        (NOOP, 0, b"", "", "Noop [0a feed]"),
        (VERSION, 0, b"", "", "Version [0b feed]"),
        (
            VERBOSITY,
            0,
            b"\x00\x00\x00\x02",
            "",
            "Verbosity(2) [1b feed]",
        ),
        (STAT, 0, b"", "", "Stat([]) [10 feed]"),
        (STAT, 0, b"", "ab", "Stat([97, 98]) [10 feed]"),
        (SASL_LIST, 0, b"", "", "List mechanism= len=0 [20 feed]"),
        (CONFIG_GET, 0, b"", "c", "ConfigGet([99]) [60 feed]"),
        (CONFIG_GET, 0, b"", "", "UnknownCommand [60 feed]"),
    ] {
        check(&packet(opcode, cas, extras, key.as_bytes(), b""), 0, answer);
    }
    check(
        &packet(SASL_AUTH, 0, b"", b"PLAIN", b"\0u\0p"),
        4,
        "Auth mechanism=PLAIN len=4 [21 feed]",
    );
    check(
        &packet(SASL_STEP, 0, b"", b"PLAIN", b""),
        0,
        "Step mechanism=PLAIN len=0 [22 feed]",
    );
}

#[test]
fn malformed_packets_end_the_connection() {
    for (opcode, extras, key, value) in [
        (GET, "", "", ""),
        (GET, "1234", "k", ""),
        (GET, "", "k", "v"),
        (GAT, "", "k", ""),
        (GAT, "1234", "", ""),
        (TOUCH, "1234", "k", "v"),
        (SET, "", "k", "v"),
        (SET, "1234567", "k", "v"),
        (SET, "12345678", "", "v"),
        (APPEND, "1234", "k", "v"),
        (APPEND, "", "", "v"),
        (DELETE, "", "", ""),
        (DELETE, "1234", "k", ""),
        (DELETE, "", "k", "v"),
        (INCREMENT, "", "k", ""),
        (INCREMENT, "12345678901234567890", "", ""),
        (INCREMENT, "12345678901234567890", "k", "v"),
        (NOOP, "", "k", ""),
        (NOOP, "", "", "v"),
        (VERSION, "x", "", ""),
        (QUIT, "", "", "v"),
        (FLUSH, "12", "", ""),
        (FLUSH, "1234", "k", ""),
        (FLUSH, "", "", "v"),
        (STAT, "1234", "", ""),
        (STAT, "", "", "v"),
        (SASL_LIST, "", "k", ""),
        (SASL_AUTH, "", "", "v"),
    ] {
        let packet = packet(
            opcode,
            0,
            extras.as_bytes(),
            key.as_bytes(),
            value.as_bytes(),
        );
        let answer = format!("InvalidArguments [{opcode:02x} feed] skip all");
        check(&packet, 0, &answer);
    }
    check(
        &packet(GET, 0, b"", &[b'k'; 251], b""),
        0,
        "InvalidArguments [00 feed] skip all",
    );
    // Before the opcode is looked at.
    check(
        &packet(0x77, 0, b"", &[b'k'; 251], b""),
        0,
        "InvalidArguments [77 feed] skip all",
    );
    // More than any item can be, whatever is asked for.
    for opcode in [SET, GET, NOOP, 0x77] {
        check(
            &lying(opcode, 0, (8, 1, (1 << 30) + 1), b""),
            0,
            &format!("InvalidArguments [{opcode:02x} feed] skip all"),
        );
    }
    for lens in [(0, 1, 0), (8, 1, 8), (4, 0, 3), (255, 65535, 1000)] {
        check(
            &lying(GET, 0, lens, b"abcdefgh"),
            0,
            "UnknownCommand [00 feed] skip all",
        );
    }
}

#[test]
fn unknown_opcodes_take_their_body_with_them() {
    for opcode in [0x1f, 0x25, 0x30, 0x3c, 0x80, 0xff] {
        let answer = format!("UnknownCommand [{opcode:02x} feed]");
        check(&packet(opcode, 0, b"", b"", b""), 0, &answer);
        check(
            &packet(opcode, 0, b"1234", b"key", b"value"),
            0,
            &format!("{answer} skip 12"),
        );
    }
}

#[test]
fn another_first_byte_is_hung_up_on() {
    for first in [0, b'g', 0x81, 0xff] {
        assert_eq!(parse(&[first]), Parsed::HangUp);
        assert_eq!(
            parse(&[[first].as_slice(), &[0; 40]].concat()),
            Parsed::HangUp
        );
    }
}

#[test]
fn random_packets() {
    let mut random = Random::new();
    for _ in 0..20_000 {
        let mut buf: Vec<u8> = (0..random.below(80)).map(|_| random.next() as u8).collect();
        for (at, byte) in buf.iter_mut().take(HEADER_LEN).enumerate() {
            // Mostly small lengths, else all is refused.
            match at {
                0 => *byte = MAGIC_REQUEST,
                1 => *byte %= 0x28,
                4 => *byte = random.pick(&[0, 0, 4, 8, 20, 21]),
                2 | 8..=10 if !random.next().is_multiple_of(8) => *byte = 0,
                3 | 11 => *byte %= 40,
                _ => {}
            }
        }
        let whole = parse(&buf);
        match whole {
            Parsed::Complete { .. } | Parsed::Invalid { .. } => {
                assert!((1..=buf.len()).contains(&consumed(whole)));
            }
            Parsed::Incomplete => assert!(buf.len() < HEADER_LEN + 20 + crate::KEY_LEN_MAX),
            Parsed::HangUp => panic!("the magic is right"),
        }
        for cut in 0..buf.len() {
            let part = parse(&buf[..cut]);
            assert!(
                part == Parsed::Incomplete || part == whole,
                "{}",
                buf.escape_ascii()
            );
        }
    }
}

#[test]
fn replies() {
    let head = BinaryHead {
        opcode: 0x0c,
        quiet: false,
        opaque: 0x0102_0304,
    };
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = b"before|".to_vec();
        write(&mut out);
        assert_eq!(
            &out[..9],
            [b"before|".as_slice(), &[MAGIC_REPLY, 0x0c]].concat()
        );
        assert_eq!(out[19..23], [1, 2, 3, 4]);
        // Key, extras, type, status, body, CAS; then the rest.
        let numbers = (
            out[9..11].to_vec(),
            out[11],
            out[12],
            out[14],
            out[15..19].to_vec(),
        );
        let cas = u64::from_be_bytes(out[23..31].try_into().expect("eight bytes"));
        (
            format!("{numbers:?} {cas}"),
            out[31..].escape_ascii().to_string(),
        )
    };
    let pair = |numbers: &str, rest: &str| (numbers.to_owned(), rest.to_owned());
    assert_eq!(
        written(&|out| binary::ok(out, head, 77)),
        pair("([0, 0], 0, 0, 0, [0, 0, 0, 0]) 77", "")
    );
    assert_eq!(
        written(&|out| binary::error(out, head, Status::NotFound)),
        pair("([0, 0], 0, 0, 1, [0, 0, 0, 9]) 0", "Not found")
    );
    assert_eq!(
        written(&|out| binary::number(out, head, 258, 5)),
        pair(
            "([0, 0], 0, 0, 0, [0, 0, 0, 8]) 5",
            "\\x00\\x00\\x00\\x00\\x00\\x00\\x01\\x02"
        )
    );
    assert_eq!(
        written(&|out| binary::value_head(out, head, 9, b"key", 70_000, 1 << 40)),
        pair(
            "([0, 3], 4, 0, 0, [0, 1, 17, 119]) 1099511627776",
            "\\x00\\x00\\x00\\tkey"
        )
    );
    assert_eq!(
        written(&|out| binary::missing(out, head, b"key")),
        pair("([0, 3], 0, 0, 1, [0, 0, 0, 3]) 0", "key")
    );
    assert_eq!(
        written(&|out| binary::stat(out, head, b"pid", b"7")),
        pair("([0, 3], 0, 0, 0, [0, 0, 0, 4]) 0", "pid7")
    );
}

#[test]
fn lines_have_their_status() {
    for (line, status) in [
        (ErrorLine::TooLarge, Status::TooLarge),
        (ErrorLine::OutOfMemoryStoring, Status::OutOfMemory),
        (ErrorLine::NonNumeric, Status::NonNumeric),
        (ErrorLine::FlushNotAllowed, Status::AuthError),
    ] {
        assert_eq!(Status::from(line), status);
    }
}
