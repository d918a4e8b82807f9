//! The binary protocol over a socket.

use ketch_testing::packet::{Packet, count, op::*, packet, store};
use ketch_testing::{Conn, Rng, Server, escape, is_ketch};

/// Requests and the replies to them, on empty items.
type Conversation = Vec<(Packet, &'static str)>;

fn conversations() -> Vec<Conversation> {
    let binary_key = b"a key\r\n\x00\xff";
    vec![
        // Retrievals, and what they hide.
        vec![
            (packet(GET, "k", ""), "00 01 v=Not found"),
            (packet(GETK, "k", ""), "0c 01 k=k"),
            (packet(GETQ, "k", ""), ""),
            (packet(GETKQ, "k", ""), ""),
            (store(SET, "k", "value"), "01 00 c"),
            (packet(GET, "k", ""), r"00 00 c x=\x00\x00\x00\x07 v=value"),
            (packet(GETQ, "k", ""), r"09 00 c x=\x00\x00\x00\x07 v=value"),
            (
                packet(GETK, "k", ""),
                r"0c 00 c x=\x00\x00\x00\x07 k=k v=value",
            ),
            (
                packet(GETKQ, "k", ""),
                r"0d 00 c x=\x00\x00\x00\x07 k=k v=value",
            ),
            (store(SET, "k", ""), "01 00 c"),
            (packet(GETK, "k", ""), r"0c 00 c x=\x00\x00\x00\x07 k=k"),
        ],
        // Stores by mode.
        vec![
            (store(REPLACE, "k", "x"), "03 01 v=Not found"),
            (store(REPLACEQ, "k", "x"), "13 01 v=Not found"),
            (packet(APPEND, "k", "x"), "0e 05 v=Not stored."),
            (packet(PREPENDQ, "k", "x"), "1a 05 v=Not stored."),
            (store(ADD, "k", "x"), "02 00 c"),
            (store(ADD, "k", "y"), "02 02 v=Data exists for key."),
            (store(ADDQ, "k", "y"), "12 02 v=Data exists for key."),
            (packet(APPENDQ, "k", ">"), ""),
            (packet(PREPEND, "k", "<"), "0f 00 c"),
            (packet(GET, "k", ""), r"00 00 c x=\x00\x00\x00\x07 v=<x>"),
            (store(REPLACEQ, "k", "y"), ""),
            (store(SETQ, "l", "line\r\n"), ""),
            (store(ADDQ, "m", "\r"), ""),
            (packet(GET, "k", ""), r"00 00 c x=\x00\x00\x00\x07 v=y"),
            (
                packet(GET, "l", ""),
                r"00 00 c x=\x00\x00\x00\x07 v=line\r\n",
            ),
            (packet(GET, "m", ""), r"00 00 c x=\x00\x00\x00\x07 v=\r"),
        ],
        // delete.
        vec![
            (packet(DELETE, "k", ""), "04 01 v=Not found"),
            (packet(DELETEQ, "k", ""), "14 01 v=Not found"),
            (store(SET, "k", "x"), "01 00 c"),
            (packet(DELETE, "k", ""), "04 00"),
            (store(SET, "k", "x"), "01 00 c"),
            (packet(DELETEQ, "k", ""), ""),
            (packet(GETQ, "k", ""), ""),
        ],
        // Counting.
        vec![
            (count(INCR, "n", 1, 9, u32::MAX), "05 01 v=Not found"),
            (count(DECRQ, "n", 1, 9, u32::MAX), "16 01 v=Not found"),
            (
                count(INCR, "n", 1, 9, 0),
                r"05 00 c v=\x00\x00\x00\x00\x00\x00\x00\t",
            ),
            (
                count(INCR, "n", 1, 9, 0),
                r"05 00 c v=\x00\x00\x00\x00\x00\x00\x00\n",
            ),
            (count(INCRQ, "n", 250, 0, 0), ""),
            (
                count(DECR, "n", 2, 0, 0),
                r"06 00 c v=\x00\x00\x00\x00\x00\x00\x01\x02",
            ),
            (
                count(DECR, "n", 300, 0, 0),
                r"06 00 c v=\x00\x00\x00\x00\x00\x00\x00\x00",
            ),
            (
                count(DECR, "o", 1, u64::MAX >> 1, 0),
                r"06 00 c v=\x7f\xff\xff\xff\xff\xff\xff\xff",
            ),
            (
                packet(GET, "o", ""),
                r"00 00 c x=\x00\x00\x00\x00 v=9223372036854775807",
            ),
            (store(SET, "w", "word"), "01 00 c"),
            (
                count(INCR, "w", 1, 0, 0),
                "05 06 v=Non-numeric server-side value for incr or decr",
            ),
            (
                count(DECRQ, "w", 1, 0, 0),
                "16 06 v=Non-numeric server-side value for incr or decr",
            ),
            // It was created for no time at all.
            (count(INCRQ, "p", 1, 0, 1), ""),
        ],
        // touch and its kin.
        vec![
            (packet(TOUCH, "k", "").numbers(&[100]), "1c 01 v=Not found"),
            (packet(GAT, "k", "").numbers(&[100]), "1d 01 v=Not found"),
            (packet(GATK, "k", "").numbers(&[100]), "23 01 k=k"),
            (packet(GATQ, "k", "").numbers(&[100]), ""),
            (packet(GATKQ, "k", "").numbers(&[100]), ""),
            (store(SET, "k", "x"), "01 00 c"),
            (
                packet(TOUCH, "k", "").numbers(&[100]),
                r"1c 00 c x=\x00\x00\x00\x07",
            ),
            (
                packet(GAT, "k", "").numbers(&[100]),
                r"1d 00 c x=\x00\x00\x00\x07 v=x",
            ),
            (
                packet(GATQ, "k", "").numbers(&[0]),
                r"1e 00 c x=\x00\x00\x00\x07 v=x",
            ),
            (
                packet(GATK, "k", "").numbers(&[0]),
                r"23 00 c x=\x00\x00\x00\x07 k=k v=x",
            ),
            (
                packet(GATKQ, "k", "").numbers(&[0]),
                r"24 00 c x=\x00\x00\x00\x07 k=k v=x",
            ),
            // Far in the past.
            (
                packet(TOUCH, "k", "").numbers(&[2_592_001]),
                r"1c 00 c x=\x00\x00\x00\x07",
            ),
            (packet(GETQ, "k", ""), ""),
            (packet(SET, "k", "x").numbers(&[0, 2_592_001]), "01 00 c"),
            (packet(GETQ, "k", ""), ""),
            // After January 2038.
            (
                packet(SET, "k", "x").numbers(&[0, 3_000_000_000]),
                "01 00 c",
            ),
            (packet(GETQ, "k", ""), r"09 00 c x=\x00\x00\x00\x00 v=x"),
        ],
        // A key is any bytes.
        vec![
            (store(SET, binary_key, "x"), "01 00 c"),
            (packet(APPENDQ, binary_key, "y"), ""),
            (
                packet(GETK, binary_key, ""),
                r"0c 00 c x=\x00\x00\x00\x07 k=a key\r\n\x00\xff v=xy",
            ),
            (packet(DELETE, binary_key, ""), "04 00"),
            (packet(GETK, binary_key, ""), r"0c 01 k=a key\r\n\x00\xff"),
        ],
        // The server itself.
        vec![
            (packet(NOOP, "", ""), "0a 00"),
            (store(SETQ, "k", "x"), ""),
            (packet(FLUSHQ, "", ""), ""),
            (packet(GETQ, "k", ""), ""),
            (store(SETQ, "k", "x"), ""),
            (packet(FLUSH, "", "").numbers(&[0]), "08 00"),
            (packet(GETQ, "k", ""), ""),
            (store(SETQ, "k", "x"), ""),
            (packet(FLUSH, "", "").numbers(&[1000]), "08 00"),
            (packet(GETQ, "k", ""), r"09 00 c x=\x00\x00\x00\x07 v=x"),
            (packet(0x30, "", ""), "30 81 v=Unknown command"),
            (packet(SASL_LIST, "", ""), "20 81 v=Unknown command"),
            (packet(STAT, "no-such-group", ""), "10 01 v=Not found"),
        ],
    ]
}

/// Each conversation in one write, in two at each byte, and a byte at a time.
#[test]
fn conversations_however_they_are_cut() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    for (number, conversation) in conversations().iter().enumerate() {
        let mut input = Vec::new();
        for (at, (request, _)) in conversation.iter().enumerate() {
            input.extend(request.clone().opaque(at as u32 + 1).bytes());
        }
        let want: Vec<String> = conversation
            .iter()
            .enumerate()
            .filter(|(_, (_, reply))| !reply.is_empty())
            .map(|(at, (_, reply))| format!("{}: {reply}", at + 1))
            .collect();
        let mut run = |how: &str, parts: &[&[u8]]| {
            conn.round_packet(&packet(FLUSH, "", ""), "08 00");
            for part in parts {
                conn.send(part);
            }
            let replies = conn.packets_before_noop();
            let got: Vec<String> = replies
                .iter()
                .map(|reply| format!("{}: {}", reply.opaque, reply.show()))
                .collect();
            assert_eq!(got, want, "conversation {number}, {how}");
        };
        run("whole", &[&input]);
        for at in 1..input.len() {
            let (first, second) = input.split_at(at);
            run(&format!("cut at {at}"), &[first, second]);
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        run("byte by byte", &bytes);
    }
}

/// libmemcached sends -1 as what it is in 32 bits, in binary as in text. memcached reads that as a date there.
#[test]
fn the_last_thirty_days_of_32_bits_are_negative() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut conn = server.connect();
    for exptime in [u32::MAX, u32::MAX - 2_591_999] {
        conn.round_packet(&packet(SET, "k", "x").numbers(&[0, exptime]), "01 00 c");
        conn.round_packet(&packet(GET, "k", ""), "00 01 v=Not found");
        conn.round_packet(&store(SET, "k", "x"), "01 00 c");
        let touch = packet(TOUCH, "k", "").numbers(&[exptime]);
        conn.round_packet(&touch, r"1c 00 c x=\x00\x00\x00\x07");
        conn.round_packet(&packet(GET, "k", ""), "00 01 v=Not found");
    }
    let last_date = u32::MAX - 2_592_000;
    conn.round_packet(&packet(SET, "k", "x").numbers(&[0, last_date]), "01 00 c");
    conn.round_packet(&packet(GET, "k", ""), r"00 00 c x=\x00\x00\x00\x00 v=x");
}

#[test]
fn a_cas_unique_is_given_and_compared() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let exists = |opcode: u8| format!("{opcode:02x} 02 v=Data exists for key.");
    let first = conn.round_packet(&store(SET, "k", "1"), "01 00 c");
    let found = conn.ask_packet(&packet(GET, "k", ""));
    assert_eq!(found.cas, first);
    assert_eq!(
        conn.ask_packet(&packet(TOUCH, "k", "").numbers(&[0])).cas,
        first
    );
    let second = conn.round_packet(&store(SET, "k", "2").cas(first), "01 00 c");
    assert_ne!(first, second);
    for opcode in [SET, SETQ, ADD, REPLACE, REPLACEQ] {
        conn.round_packet(&store(opcode, "k", "3").cas(first), &exists(opcode));
    }
    for opcode in [APPEND, PREPENDQ, DELETE, DELETEQ] {
        let value = if [DELETE, DELETEQ].contains(&opcode) {
            ""
        } else {
            "+"
        };
        conn.round_packet(&packet(opcode, "k", value).cas(first), &exists(opcode));
    }
    conn.round_packet(&count(INCR, "k", 1, 0, 0).cas(first), &exists(INCR));
    // With a unique a missing item is not created, whatever the opcode.
    for opcode in [SET, ADD, REPLACE] {
        let reply = format!("{opcode:02x} 01 v=Not found");
        conn.round_packet(&store(opcode, "none", "3").cas(first), &reply);
    }
    let third = conn.round_packet(&store(ADD, "k", "30").cas(second), "02 00 c");
    let fourth = conn.round_packet(
        &count(DECR, "k", 1, 0, 0).cas(third),
        r"06 00 c v=\x00\x00\x00\x00\x00\x00\x00\x1d",
    );
    assert_eq!(conn.ask_packet(&packet(GET, "k", "")).cas, fourth);
    let fifth = conn.round_packet(&packet(APPEND, "k", "!").cas(fourth), "0e 00 c");
    assert_eq!(conn.ask_packet(&packet(GET, "k", "")).cas, fifth);
    conn.round_packet(&packet(DELETE, "k", "").cas(fifth), "04 00");
}

#[test]
fn both_protocols_share_the_items() {
    let server = Server::start(&[]);
    let (mut binary, mut text) = (server.connect(), server.connect());
    let cas = binary.round_packet(&store(SET, "k", "value"), "01 00 c");
    text.round(
        "gets k\r\n",
        format!("VALUE k 7 5 {cas}\r\nvalue\r\nEND\r\n"),
    );
    text.round("set k 9 0 2\r\nhi\r\n", "STORED\r\n");
    let found = binary.ask_packet(&packet(GET, "k", ""));
    assert_eq!(found.show(), r"00 00 c x=\x00\x00\x00\t v=hi");
    assert_eq!(text.cas_of("k"), found.cas);
    // What text cannot name by itself it can in base64.
    binary.round_packet(&store(SET, b"a b", "x"), "01 00 c");
    text.round("mg YSBi b v\r\n", "VA 1\r\nx\r\n");
    if is_ketch() {
        // memcached prints it as it was stored, space and all.
        text.round("mg YSBi b v k\r\n", "VA 1 kYSBi b\r\nx\r\n");
        text.send("lru_crawler mgdump all\r\n");
        let dump = String::from_utf8(text.read_until(b"EN\r\n")).expect("text");
        assert!(dump.contains("mg YSBi b\r\n"), "{dump}");
    }
}

#[test]
fn large_values_come_and_go() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let value: Vec<u8> = (0..900_000u32).map(|at| (at * 7 / 3) as u8).collect();
    conn.round_packet(&store(SET, "big", &value), "01 00 c");
    // Many at once: they wait as references until we take them.
    let mut input = Vec::new();
    for opaque in 1..=20 {
        input.extend(packet(GETKQ, "big", "").opaque(opaque).bytes());
        input.extend(packet(GETKQ, "none", "").opaque(opaque).bytes());
    }
    conn.send(input);
    let replies = conn.packets_before_noop();
    assert_eq!(replies.len(), 20);
    for (reply, opaque) in replies.iter().zip(1..) {
        assert_eq!((reply.opaque, reply.key.as_slice()), (opaque, &b"big"[..]));
        assert!(reply.value == value);
    }
}

#[test]
fn what_is_too_large_is_swallowed() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let huge = vec![b'x'; 1 << 20];
    for opcode in [SET, SETQ, ADD, REPLACE] {
        conn.round_packet(
            &store(opcode, "k", &huge),
            &format!("{opcode:02x} 03 v=Too large."),
        );
    }
    for opcode in [APPEND, PREPENDQ] {
        conn.round_packet(
            &packet(opcode, "k", &huge),
            &format!("{opcode:02x} 03 v=Too large."),
        );
    }
    conn.round_packet(&store(SET, "k", "old"), "01 00 c");
    conn.round_packet(&store(SET, "k", &huge), "01 03 v=Too large.");
    conn.round_packet(&packet(GET, "k", ""), "00 01 v=Not found");
    if is_ketch() {
        // memcached counts it in text alone.
        assert_eq!(server.connect().stat("store_too_large"), 7);
    }
}

/// Where memcached drops what a store that is too large was to replace: set, whatever unique it compares.
#[test]
fn what_is_too_large_takes_the_old_value_of_a_set() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let huge = vec![b'x'; 1 << 20];
    for (opcode, is_dropped) in [
        (SET, true),
        (SETQ, true),
        (ADD, false),
        (ADDQ, false),
        (REPLACE, false),
        (REPLACEQ, false),
        (APPEND, false),
        (PREPENDQ, false),
    ] {
        for cas in [0, 999_999] {
            conn.round_packet(&store(SET, "k", "old"), "01 00 c");
            let too_large = match opcode {
                APPEND | PREPENDQ => packet(opcode, "k", &huge),
                _ => store(opcode, "k", &huge),
            };
            conn.round_packet(
                &too_large.cas(cas),
                &format!("{opcode:02x} 03 v=Too large."),
            );
            let reply = conn.ask_packet(&packet(GET, "k", ""));
            assert_eq!(reply.status == 1, is_dropped, "{opcode:02x} {cas}");
        }
    }
}

/// The answer comes when the block is in: libraries that write all before they read lose step otherwise.
#[test]
fn a_refusal_follows_the_packet() {
    // One worker, so that who asks next is answered next.
    let server = Server::start(&["-t", "1"]);
    let (mut conn, mut other) = (server.connect(), server.connect());
    let huge = vec![b'x'; 1 << 20];
    let unknown = packet(0x60 + 0x17, "", &huge);
    for (request, reply) in [
        (store(SET, "k", &huge), "01 03 v=Too large."),
        (store(SETQ, "k", &huge), "11 03 v=Too large."),
        (store(ADD, "k", &huge), "02 03 v=Too large."),
        (packet(APPENDQ, "k", &huge), "19 03 v=Too large."),
        (unknown, "77 81 v=Unknown command"),
    ] {
        let bytes = request.bytes();
        for part in [&bytes[..600_000], &bytes[600_000..bytes.len() - 1]] {
            conn.send(part);
            other.expect_nothing();
            assert!(conn.is_quiet(), "{reply}: answered before the end");
        }
        conn.send(&bytes[bytes.len() - 1..]);
        assert_eq!(conn.expect_packet().show(), reply);
    }
}

/// As memcached: nobody waits for more than any item can have.
#[test]
fn a_length_that_nobody_can_mean_ends_the_connection() {
    let server = Server::start(&[]);
    if !server.is_current() {
        return println!("1.6.18 waits");
    }
    for opcode in [SET, SETQ, GET, NOOP, 0x77] {
        for len in [(1 << 30) + 1, u32::MAX] {
            let mut conn = server.connect();
            let mut bytes = store(opcode, "k", "").bytes();
            bytes[8..12].copy_from_slice(&len.to_be_bytes());
            conn.send(bytes);
            let want = format!("{opcode:02x} 04 v=Invalid arguments");
            assert_eq!(conn.expect_packet().show(), want);
            conn.closed();
        }
    }
}

#[test]
fn an_unknown_opcode_takes_its_body_with_it() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let body = packet(0x30, "", "five!");
    conn.round_packet(&body, "30 81 v=Unknown command");
    conn.round_packet(&packet(NOOP, "", ""), "0a 00");
    if is_ketch() {
        // memcached takes the key and the extras twice.
        conn.round_packet(
            &packet(0x3c, "key", "value").numbers(&[1]),
            "3c 81 v=Unknown command",
        );
        for opcode in [SASL_AUTH, SASL_STEP] {
            let reply = format!("{opcode:02x} 81 v=Unknown command");
            conn.round_packet(&packet(opcode, "PLAIN", b"\0user\0pass"), &reply);
        }
        // memcached does not know it, though the protocol does.
        conn.round_packet(&packet(VERBOSITY, "", "").numbers(&[1]), "1b 00");
    }
    conn.round_packet(&packet(NOOP, "", ""), "0a 00");
}

/// What cannot be right is answered, and the connection ended.
#[test]
fn malformed_packets_end_the_connection() {
    let server = Server::start(&[]);
    let refused = |request: Vec<u8>, reply: &str| {
        let mut conn = server.connect();
        conn.note = escape(&request[..request.len().min(60)]);
        conn.send(&request);
        assert_eq!(conn.expect_packet().show(), reply, "{}", conn.note);
        conn.closed();
    };
    let invalid = "Invalid arguments";
    for request in [
        packet(GET, "", ""),
        packet(GET, "k", "").numbers(&[1]),
        packet(GET, "k", "v"),
        packet(SET, "k", "v"),
        store(SET, "", "v"),
        packet(APPEND, "k", "v").numbers(&[1, 2]),
        packet(DELETE, "k", "v"),
        packet(INCR, "k", "").numbers(&[1]),
        packet(TOUCH, "k", ""),
        packet(NOOP, "", "v"),
        packet(VERSION, "k", ""),
        packet(QUIT, "k", ""),
        packet(FLUSH, "", "").numbers(&[1, 2]),
        packet(SASL_LIST, "k", ""),
        packet(GET, "k".repeat(251), ""),
        packet(GETK, "k".repeat(4000), ""),
    ] {
        refused(
            request.bytes(),
            &format!("{:02x} 04 v={invalid}", request.opcode),
        );
    }
    let get = packet(GET, "", "");
    for (lens, body) in [
        ((0, 2, 1), "kk"),
        ((4, 1, 4), "1234k"),
        ((8, 0, 7), "12345678"),
    ] {
        refused(
            get.bytes_lying(lens, body.as_bytes()),
            "00 81 v=Unknown command",
        );
    }
}

#[test]
fn quit_ends_the_connection() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round_packet(&packet(QUIT, "", ""), "07 00");
    conn.closed();
    let mut conn = server.connect();
    conn.send([store(SETQ, "k", "v").bytes(), packet(QUITQ, "", "").bytes()].concat());
    conn.closed();
    assert_eq!(server.connect().get("k"), Some(b"v".to_vec()));
}

#[test]
fn a_connection_keeps_to_its_first_byte() {
    let server = Server::start(&[]);
    // Text, then binary: a line that is not known.
    let mut conn = server.connect();
    conn.round(
        "version\r\n",
        format!("{}\r\n", server.connect().ask("version\r\n")),
    );
    conn.send([packet(GETQ, "", "").bytes(), b"\r\n".to_vec()].concat());
    conn.expect("ERROR\r\n");
    // Binary, then text: hung up on, at the latest when a header could have come.
    let mut conn = server.connect();
    conn.round_packet(&packet(NOOP, "", ""), "0a 00");
    conn.send("version\r\nversion\r\nversion\r\n");
    conn.closed();
}

#[test]
fn a_listener_speaks_what_it_is_told() {
    let server = Server::start(&["-B", "ascii"]);
    let mut conn = server.connect();
    conn.send([packet(GETQ, "", "").bytes(), b"\r\n".to_vec()].concat());
    conn.expect("ERROR\r\n");
    let server = Server::start(&["-B", "binary"]);
    let mut conn = server.connect();
    conn.round_packet(&packet(NOOP, "", ""), "0a 00");
    let settings = stats(&mut conn, "settings");
    let protocol = settings.iter().find(|(key, _)| key == "binding_protocol");
    assert_eq!(protocol.map(|(_, value)| value.as_str()), Some("binary"));
    let mut conn = server.connect();
    conn.send("version\r\nversion\r\nversion\r\n");
    conn.closed();
}

/// The lines of `stat`, until the empty one.
#[track_caller]
fn stats(conn: &mut Conn, group: &str) -> Vec<(String, String)> {
    conn.send(packet(STAT, group, "").opaque(99).bytes());
    let mut lines = Vec::new();
    loop {
        let line = conn.expect_packet();
        assert_eq!(
            (line.opcode, line.status, line.opaque, line.cas),
            (STAT, 0, 99, 0)
        );
        if line.key.is_empty() {
            assert_eq!(line.show(), "10 00");
            return lines;
        }
        let text = |bytes| String::from_utf8(bytes).expect("text");
        lines.push((text(line.key), text(line.value)));
    }
}

#[test]
fn stats_come_in_packets() {
    let server = Server::start(&["-o", "track_sizes"]);
    let (mut conn, mut text) = (server.connect(), server.connect());
    conn.round_packet(&store(SET, "a:b", "x"), "01 00 c");
    for group in ["", "settings", "items", "slabs", "sizes"] {
        let mut keys: Vec<String> = stats(&mut conn, group)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let want: Vec<String> = text.stats(group).into_keys().collect();
        keys.sort_unstable();
        assert_eq!(keys, want, "{group}");
        assert!(!keys.is_empty(), "{group}");
    }
    let version = conn.ask_packet(&packet(VERSION, "", ""));
    let line = text.ask("version\r\n");
    assert_eq!(
        line.as_bytes(),
        [b"VERSION ".as_slice(), &version.value].concat()
    );
    assert_eq!(stats(&mut conn, "detail on"), []);
    conn.round_packet(&packet(GET, "a:b", ""), r"00 00 c x=\x00\x00\x00\x07 v=x");
    conn.round_packet(
        &packet(GAT, "a:none", "").numbers(&[0]),
        "1d 01 v=Not found",
    );
    let detail = stats(&mut conn, "detail dump");
    let counts = "PREFIX a get 2 hit 1 set 0 del 0\r\nEND\r\n";
    assert_eq!(detail, [("detailed".to_owned(), counts.to_owned())]);
    assert_eq!(stats(&mut conn, "detail off"), []);
    assert_eq!(stats(&mut conn, "reset"), []);
    assert_eq!(text.stat("cmd_set"), 0);
}

#[test]
fn commands_are_counted_as_in_text() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    for request in [
        store(SET, "k", "5"),
        store(ADD, "k", "5"),
        store(SET, "k", "5").cas(1 << 60),
        store(SET, "none", "5").cas(9),
        packet(GET, "k", ""),
        packet(GETK, "none", ""),
        packet(TOUCH, "k", "").numbers(&[0]),
        packet(GAT, "k", "").numbers(&[0]),
        packet(GATK, "none", "").numbers(&[0]),
        count(INCR, "k", 1, 0, 0),
        count(DECR, "k", 1, 0, 0),
        count(INCR, "none", 1, 0, u32::MAX),
        count(DECR, "none", 1, 0, u32::MAX),
        count(INCR, "new", 1, 0, 0),
        packet(DELETE, "k", "").cas(9),
        packet(DELETE, "none", ""),
        packet(DELETE, "k", ""),
        packet(FLUSH, "", ""),
    ] {
        conn.ask_packet(&request);
    }
    let stats = server.connect().stats("");
    for (key, want) in [
        ("cmd_get", 2),
        ("cmd_set", 4),
        ("cmd_flush", 1),
        ("cmd_touch", 3),
        ("get_hits", 1),
        ("get_misses", 1),
        ("delete_misses", 1),
        ("delete_hits", 1),
        ("incr_misses", 1),
        ("incr_hits", 1),
        ("decr_misses", 1),
        ("decr_hits", 1),
        ("cas_misses", 1),
        ("cas_hits", 0),
        ("cas_badval", 1),
        ("touch_hits", 2),
        ("touch_misses", 1),
    ] {
        assert_eq!(stats[key], want.to_string(), "{key}");
    }
}

#[test]
fn flush_may_be_forbidden() {
    let server = Server::start(&["-F"]);
    let mut conn = server.connect();
    conn.round_packet(&packet(FLUSH, "", ""), "08 20 v=Auth failure.");
    conn.round_packet(&packet(FLUSHQ, "", ""), "18 20 v=Auth failure.");
    let delayed = packet(FLUSH, "", "").numbers(&[1]);
    conn.round_packet(&delayed, "08 20 v=Auth failure.");
    // memcached counts those of text alone.
    assert_eq!(server.stat("cmd_flush"), 0);
}

#[test]
fn dumps_may_be_forbidden() {
    let server = Server::start(&["-X"]);
    let mut conn = server.connect();
    for group in ["cachedump", "cachedump 1 1"] {
        conn.round_packet(&packet(STAT, group, ""), "10 01 v=Not found");
    }
    if is_ketch() {
        // memcached forgets the binary ones.
        for group in ["detail dump", "detail on", "detail off"] {
            conn.round_packet(&packet(STAT, group, ""), "10 20 v=Auth failure.");
        }
    }
    let settings = stats(&mut conn, "settings");
    assert!(settings.contains(&("dump_enabled".to_string(), "no".to_string())));
}

#[test]
fn without_memory_a_store_is_refused_and_swallowed() {
    let server = Server::start(&["-M", "-m", "8"]);
    let mut conn = server.connect();
    let value = vec![b'x'; 100_000];
    let refused = (0..200).find_map(|at| {
        let reply = conn.ask_packet(&store(SET, format!("k{at}"), &value));
        (reply.status != 0).then_some(reply)
    });
    let refused = refused.expect("a store beyond the limit is refused");
    assert_eq!((refused.status, refused.cas), (0x82, 0));
    assert!(refused.value.starts_with(b"Out of memory"));
    // With the body in one read, and with one that comes later.
    let bytes = store(SETQ, "k", &value).opaque(7).bytes();
    conn.send(&bytes);
    conn.send(&bytes[..1000]);
    assert_eq!(conn.expect_packet().status, 0x82);
    conn.send(&bytes[1000..]);
    assert_eq!(conn.expect_packet().status, 0x82);
    conn.round_packet(&packet(NOOP, "", ""), "0a 00");
}

#[test]
fn without_uniques_there_are_none() {
    let server = Server::start(&["-C"]);
    let mut conn = server.connect();
    conn.round_packet(&store(SET, "k", "1"), "01 00");
    conn.round_packet(&packet(GET, "k", ""), r"00 00 x=\x00\x00\x00\x07 v=1");
}

/// Whatever is sent, the server is there afterwards, and what it answers are packets.
#[test]
fn random_bytes_do_no_harm() {
    let mut rng = Rng::from_env("random_bytes_do_no_harm");
    let server = Server::start(&["-m", "16"]);
    for _ in 0..300 {
        let mut conn = server.connect();
        let mut input = Vec::new();
        for _ in 0..rng.below(6) {
            let body = (rng.below(40) as usize, rng.below(20) as usize);
            let mut random = packet(rng.below(0x40) as u8, "", "").cas(rng.below(3));
            random.key = rng.bytes(body.1);
            random.value = rng.bytes(body.0);
            let extras_len = *rng.pick(&[&0, &4, &8, &20, &3]);
            random.extras = rng.bytes(extras_len);
            let mut bytes = random.bytes();
            for _ in 0..rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.bits() as u8;
            }
            input.extend(bytes);
        }
        // A refused connection is closed with bytes unread, which may reach us as a reset.
        let _ = conn.try_send(&input);
        conn.end_of_input();
        let replies = conn.read_to_end();
        if input.first() == Some(&0x80) {
            assert!(
                replies.is_empty() || replies[0] == 0x81,
                "{}",
                escape(&input)
            );
        }
    }
    let mut conn = server.connect();
    conn.round_packet(&store(SET, "k", "1"), "01 00 c");
}

/// A client that promises a body and does not send it keeps no memory that others need.
#[test]
fn promised_bodies_do_not_crowd_out_others() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&["-m", "16"]);
    let mut promising: Vec<Conn> = Vec::new();
    for at in 0..200 {
        let mut conn = server.connect();
        let head = store(SET, format!("k{at}"), vec![0; 500_000]).bytes();
        conn.send(&head[..100]);
        promising.push(conn);
    }
    let mut conn = server.connect();
    conn.round_packet(&store(SET, "k", vec![b'x'; 100_000]), "01 00 c");
    assert_eq!(conn.ask_packet(&packet(GET, "k", "")).value.len(), 100_000);
}
