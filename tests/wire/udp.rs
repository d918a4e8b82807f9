//! UDP: frames, replies of several datagrams, what is not answered, and how much may come back for how little.
//!
//! One worker serves each server here, so that what is sent in order is answered in order by memcached as well.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ketch_testing::packet::{count, op::*, packet, store};
use ketch_testing::udp::{DATA, FRAME, UdpClient, connect_tcp_from, framed};
use ketch_testing::{PATIENCE, Rng, Server, escape, is_ketch, wait_within};

/// An address whose packets might come from anywhere, as far as the server knows.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const TOO_LARGE: &str = "SERVER_ERROR reply too large\r\n";
const BAD_CHUNK: &str = "CLIENT_ERROR bad data chunk\r\n";
const NOT_OVER_UDP: &str = "CLIENT_ERROR not allowed over UDP\r\n";
/// A status of the binary protocol.
const INVALID_ARGUMENTS: u16 = 4;

fn start(args: &[&str]) -> Server {
    Server::start(&[&["-U", "-1", "-t", "1"], args].concat())
}

fn value_of(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + (i / 7 % 26) as u8).collect()
}

fn value_reply(key: &str, value: &[u8]) -> Vec<u8> {
    let head = format!("VALUE {key} 0 {}\r\n", value.len());
    [head.as_bytes(), value, b"\r\nEND\r\n"].concat()
}

#[test]
fn text_and_meta_commands_are_answered() {
    let server = start(&[]);
    let (mut udp, mut tcp) = (UdpClient::connect(&server), server.connect());
    for (request, reply) in [
        ("get a\r\n", "END\r\n"),
        ("set a 0 0 1\r\nx\r\n", "STORED\r\n"),
        ("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n"),
        ("get a\n", "VALUE a 0 1\r\nx\r\nEND\r\n"),
        ("add a 0 0 1\r\ny\r\n", "NOT_STORED\r\n"),
        ("append a 0 0 1\r\ny\r\n", "STORED\r\n"),
        ("ms m 2\r\nxy\r\n", "HD\r\n"),
        ("mg m v s\r\n", "VA 2 s2\r\nxy\r\n"),
        ("mg none v\r\n", "EN\r\n"),
        ("md m\r\n", "HD\r\n"),
        ("set n 0 0 1\r\n5\r\n", "STORED\r\n"),
        ("incr n 3\r\n", "8\r\n"),
        ("ma n v\r\n", "VA 1\r\n9\r\n"),
        ("touch n 100\r\n", "TOUCHED\r\n"),
        ("delete n\r\n", "DELETED\r\n"),
        ("garbage\r\n", "ERROR\r\n"),
    ] {
        udp.round(request, reply);
    }
    tcp.round("get a\r\n", "VALUE a 0 2\r\nxy\r\nEND\r\n");
    for silent in [
        "set a 0 0 1 noreply\r\nz\r\n",
        "ms m 1 q\r\n5\r\n",
        "mg none v q\r\n",
    ] {
        udp.send(silent);
        udp.expect_nothing();
    }
    tcp.round("get a\r\n", "VALUE a 0 1\r\nz\r\nEND\r\n");
}

/// What a datagram's first byte says holds for the whole of it.
#[test]
fn binary_packets_are_answered() {
    let server = start(&[]);
    let (mut udp, mut tcp) = (UdpClient::connect(&server), server.connect());
    let mut reply = |request: &[u8]| {
        let data = udp.ask(request);
        assert_eq!((data[0], data[1]), (0x81, request[1]), "{}", escape(&data));
        (data[7], data[24..].to_vec())
    };
    let set = store(SET, "a", "value").bytes();
    assert_eq!(reply(&set), (0, vec![]));
    let get = packet(GETK, "a", "").bytes();
    assert_eq!(reply(&get), (0, b"\0\0\0\x07avalue".to_vec()));
    assert_eq!(
        reply(&packet(GET, "b", "").bytes()),
        (1, b"Not found".to_vec())
    );
    assert_eq!(
        reply(&count(INCR, "n", 1, 5, 0).bytes()),
        (0, 5_u64.to_be_bytes().to_vec())
    );
    assert_eq!(reply(&packet(0x99, "", "").bytes()).0, 0x81);
    assert_eq!(reply(&packet(GET, "", "").bytes()).0, 4);
    tcp.round("get a\r\n", "VALUE a 7 5\r\nvalue\r\nEND\r\n");
    if !is_ketch() {
        // memcached answers each packet of a datagram in a message of its own, quiet ones too, and waits for what is cut.
        return;
    }
    udp.send(packet(GETQ, "b", "").bytes());
    udp.expect_nothing();
    let both = [
        set.clone(),
        packet(GETQ, "b", "").bytes(),
        get.clone(),
        packet(QUIT, "", "").bytes(),
        get.clone(),
    ];
    let data = udp.ask(both.concat());
    assert_eq!(data.len(), 24 + (24 + 10) + 24, "{}", escape(&data));
    // Cut in the header: nobody to answer. Behind it: refused, and nothing stored.
    let cut = store(SET, "cut", "value").bytes();
    for len in [1, 23] {
        udp.send(&cut[..len]);
        udp.expect_nothing();
    }
    for len in [24, 30, 35, 36, cut.len() - 1] {
        let data = udp.ask(&cut[..len]);
        assert_eq!((data[1], data[7]), (SET, 4), "{}", escape(&data));
    }
    tcp.round("get cut\r\n", "END\r\n");
    // Larger than a reply may be: in the words of the protocol that asked.
    assert_eq!(tcp.set("large", &value_of(70_000)), "STORED");
    let data = udp.ask(packet(GET, "large", "").opaque(5).bytes());
    assert_eq!(
        (data[1], data[7], data[15]),
        (GET, 3, 5),
        "{}",
        escape(&data)
    );
    let mut stranger = UdpClient::connect_from(STRANGER, &server);
    assert_eq!(tcp.set("small", &value_of(200)), "STORED");
    let data = stranger.ask(packet(GET, "small", "").bytes());
    assert_eq!((data[1], data[7]), (GET, 3), "{}", escape(&data));
}

#[test]
fn a_listener_speaks_what_it_is_told_over_udp_too() {
    if !is_ketch() {
        // memcached looks at the first byte here, whatever -B says.
        return;
    }
    let noop = packet(NOOP, "", "").bytes();
    let server = start(&["-B", "ascii"]);
    let mut udp = UdpClient::connect(&server);
    let get = packet(GETQ, "", "").bytes();
    assert_eq!(udp.ask([&get[..], b"\r\n"].concat()), b"ERROR\r\n");
    let server = start(&["-B", "binary"]);
    let mut udp = UdpClient::connect(&server);
    udp.send("version\r\nversion\r\nversion\r\n");
    let id = udp.send(&noop);
    assert_eq!(udp.receive().0, id);
}

#[test]
fn commands_in_a_row_are_all_answered() {
    let server = start(&[]);
    let mut udp = UdpClient::connect(&server);
    udp.round(
        "set a 0 0 1\r\nx\r\nset b 0 0 2 noreply\r\nyy\r\nget a\r\nmg b v\r\nmn\r\n",
        "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\nVA 2\r\nyy\r\nMN\r\n",
    );
    // More than one turn's commands, and more than one datagram's replies.
    let many = 100;
    udp.round("mg a v\r\n".repeat(many), "VA 1\r\nx\r\n".repeat(many));
    if is_ketch() {
        udp.received_datagrams = 0;
        let replies = udp.ask("get a a\r\nget a\r\n".repeat(100));
        let reply = "VALUE a 0 1\r\nx\r\nVALUE a 0 1\r\nx\r\nEND\r\nVALUE a 0 1\r\nx\r\nEND\r\n"
            .repeat(100);
        assert_eq!(escape(&replies), escape(reply.as_bytes()));
        assert_eq!(udp.received_datagrams, reply.len().div_ceil(DATA));
    }
    udp.expect_nothing();
}

#[test]
fn large_replies_come_in_numbered_datagrams() {
    let server = start(&[]);
    let (mut udp, mut tcp) = (UdpClient::connect(&server), server.connect());
    // Around the ends of datagrams, and where values are no longer copied into the output.
    let head = "VALUE big 0 4096\r\n".len() + "\r\nEND\r\n".len();
    let mut lens: Vec<usize> = (1..4)
        .flat_map(|n| n * DATA - head - 1..=n * DATA - head + 1)
        .collect();
    lens.extend([4095, 4096, 4097, 30_000, 50_000]);
    for len in lens {
        let value = value_of(len);
        assert_eq!(tcp.set("big", &value), "STORED");
        let reply = value_reply("big", &value);
        udp.received_datagrams = 0;
        assert!(udp.ask("get big\r\n") == reply, "{len}");
        assert_eq!(udp.received_datagrams, reply.len().div_ceil(DATA), "{len}");
    }
    // In one datagram as a request, too.
    let value = value_of(60_000);
    let set = [&b"set up 0 0 60000\r\n"[..], &value, b"\r\n"].concat();
    udp.round(set, "STORED\r\n");
    assert!(tcp.get("up") == Some(value));
    let text = String::from_utf8(udp.ask("stats\r\n")).unwrap();
    assert!(
        text.starts_with("STAT pid ") && text.ends_with("\r\nEND\r\n"),
        "{text}"
    );
}

#[test]
fn replies_beyond_the_bound_are_replaced() {
    if !is_ketch() {
        // memcached sends on, and its socket drops what does not fit.
        return;
    }
    let server = start(&[]);
    let (mut udp, mut tcp) = (UdpClient::connect(&server), server.connect());
    let most = (64 << 10) - "VALUE big 0 65536\r\n\r\nEND\r\n".len();
    for (len, fits) in [
        (most, true),
        (most + 1, false),
        (200_000, false),
        (1 << 19, false),
    ] {
        let value = value_of(len);
        assert_eq!(tcp.set("big", &value), "STORED");
        let reply = udp.ask("get big\r\n");
        let want = if fits {
            value_reply("big", &value)
        } else {
            TOO_LARGE.into()
        };
        assert!(reply == want, "{len}: {} bytes", reply.len());
    }
    // All commands are executed, whether their replies were lost or not.
    let several = format!(
        "{}set after 0 0 1\r\nx\r\n",
        "get big big big\r\n".repeat(20)
    );
    udp.round(several, TOO_LARGE);
    assert_eq!(tcp.get("after"), Some(b"x".to_vec()));
    udp.round(format!("get{}\r\n", " big".repeat(10_000)), TOO_LARGE);
    udp.expect_nothing();
}

#[test]
fn only_whole_messages_are_read() {
    let server = start(&[]);
    let mut udp = UdpClient::connect(&server);
    udp.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let get = b"get a\r\n";
    for len in 0..=FRAME {
        udp.send_raw(&framed(1, 0, 1, 0, get)[..len]);
    }
    udp.expect_nothing();
    for total in [0, 2, 3, 0xffff] {
        for sequence in [0, 1] {
            udp.send_raw(&framed(2, sequence, total, 0, get));
        }
    }
    udp.expect_nothing();
    // Nobody looks at the other numbers.
    for (id, sequence, reserved) in [(0, 0, 0), (0xffff, 7, 0), (0x1234, 0xffff, 0xffff)] {
        udp.send_raw(&framed(id, sequence, 1, reserved, get));
        assert_eq!(udp.message(id), b"VALUE a 0 1\r\nx\r\nEND\r\n");
    }
}

#[test]
fn stores_that_are_cut_off_leave_nothing() {
    let server = start(&["-m", "64"]);
    let (mut udp, mut tcp) = (UdpClient::connect(&server), server.connect());
    tcp.round("set a 0 0 3\r\nold\r\n", "STORED\r\n");
    let before = tcp.stat("curr_items");
    let cut = [
        ("set a 0 0 10\r\nabc", true),
        ("set a 0 0 10\r\nabc\r\n", true),
        ("set a 0 0 3\r\nabc", true),
        ("set a 0 0 3\r\nabc\r", true),
        ("set a 0 0 3\r\n", true),
        ("set a 0 0 1048000\r\nabc\r\n", true),
        ("ms a 10\r\nabc\r\n", true),
        ("set a 0 0 10 noreply\r\nabc\r\n", false),
        ("append a 0 0 10\r\nabc\r\n", true),
    ];
    for (request, is_answered) in cut {
        if is_ketch() && is_answered {
            udp.round(request, BAD_CHUNK);
        } else {
            // memcached waits in vain, and refuses at the next datagram of the same socket.
            udp.send(request);
        }
        if is_ketch() {
            udp.expect_nothing();
        }
        tcp.round("get a\r\n", "VALUE a 0 3\r\nold\r\nEND\r\n");
    }
    if !is_ketch() {
        return;
    }
    // What they asked for is given back: far more than there is memory.
    for _ in 0..2000 {
        udp.round("set a 0 0 900000\r\nabc\r\n", BAD_CHUNK);
    }
    assert_eq!(tcp.stat("curr_items"), before);
    assert_eq!(tcp.set("large", &value_of(900_000)), "STORED");
    // A line that is cut off is no command.
    udp.round("get a", "ERROR\r\n");
    tcp.round("get a\r\n", "VALUE a 0 3\r\nold\r\nEND\r\n");
}

#[test]
fn lengths_that_lie_are_refused_as_over_tcp() {
    if !is_ketch() {
        // memcached looks for the rest of the block in the datagrams that follow.
        return;
    }
    let server = start(&[]);
    let (mut udp, mut tcp) = (UdpClient::connect(&server), server.connect());
    for request in [
        "set a 0 0 -1\r\nabc\r\n",
        "set a 0 0 99999999999\r\n",
        "set a 0 0 2147483647\r\n",
        "set a 0 0 x\r\n",
        "set a 0 0\r\n",
        "ms a x\r\n",
        "ms a\r\n",
        "set a 0 0 2000000\r\nabc\r\n",
    ] {
        let text = String::from_utf8(udp.ask(request)).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert!(first.contains("ERROR"), "{request:?}: {text:?}");
    }
    tcp.round("get a\r\n", "END\r\n");
}

#[test]
fn what_needs_a_connection_is_refused() {
    if !is_ketch() {
        // memcached is silent about dumps, and lets anybody shut it down.
        return;
    }
    let mut server = start(&["-A", "-o", "track_sizes"]);
    let mut udp = UdpClient::connect(&server);
    udp.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    for request in [
        "watch\r\n",
        "watch fetchers\r\n",
        "lru_crawler metadump all\r\n",
        "lru_crawler mgdump all\r\n",
        "stats cachedump 1 0\r\n",
        "stats sizes\r\n",
        "shutdown\r\n",
        "shutdown graceful\r\n",
    ] {
        udp.round(format!("{request}mn\r\n"), format!("{NOT_OVER_UDP}MN\r\n"));
    }
    assert!(server.is_alive());
    for group in ["sizes", "detail dump"] {
        let reply = udp.ask(packet(STAT, group, "").bytes());
        assert_eq!(status_of(&reply), INVALID_ARGUMENTS, "{group}");
    }
    // `quit` ends the datagram, and with it the conversation.
    udp.round("mn\r\nquit\r\nmn\r\n", "MN\r\n");
    udp.expect_nothing();
}

/// The status of the one packet that `reply` is.
fn status_of(reply: &[u8]) -> u16 {
    u16::from_be_bytes([reply[6], reply[7]])
}

/// Nobody can tell who has sent a datagram: it reads, stores and deletes, but it does not change the server or what all its
/// clients find there.
#[test]
fn what_changes_the_server_is_refused() {
    if !is_ketch() {
        // memcached obeys anybody.
        return;
    }
    let server = start(&["-A", "-vv", "-o", "debugtime"]);
    let (mut udp, mut tcp) = (UdpClient::connect(&server), server.connect());
    let mut stranger = UdpClient::connect_from(STRANGER, &server);
    tcp.round(
        "set a 0 0 1\r\nx\r\nget a\r\n",
        "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    );
    let settings = tcp.stats("settings");
    for request in [
        "flush_all",
        "flush_all 0",
        "flush_all 10",
        "cache_memlimit 8",
        "verbosity 0",
        "stats reset",
        "stats r",
        "stats detail on",
        "stats detail off",
        "stats detail dump",
        "stats d on",
        "lru_crawler disable",
        "lru_crawler enable",
        "lru_crawler sleep 1000000",
        "lru_crawler tocrawl 1",
        "lru_crawler crawl all",
        "slabs reassign 1 2",
        "slabs automove 0",
        "slabs automove ratio 0.1",
        "lru tune 10 10 0.1 2.0",
        "lru mode flat",
        "lru temp_ttl 1",
        "refresh_certs",
        "extstore free_memchunks 1 1",
        "debugtime 1000000",
        "debugtime p",
        "config delete cluster",
    ] {
        for udp in [&mut udp, &mut stranger] {
            udp.round(
                format!("{request}\r\nmn\r\n"),
                format!("{NOT_OVER_UDP}MN\r\n"),
            );
        }
    }
    for request in [
        "flush_all noreply",
        "verbosity 0 noreply",
        "cache_memlimit 8 noreply",
    ] {
        udp.round(format!("{request}\r\nmn\r\n"), "MN\r\n");
    }
    let packets = [
        packet(FLUSH, "", ""),
        packet(FLUSHQ, "", ""),
        packet(FLUSH, "", "").numbers(&[10]),
        packet(VERBOSITY, "", "").numbers(&[0]),
        packet(STAT, "reset", ""),
        packet(STAT, "detail on", ""),
        packet(STAT, "detail off", ""),
        packet(STAT, "detail dump", ""),
    ];
    for request in packets {
        let reply = udp.ask(request.bytes());
        assert_eq!(status_of(&reply), INVALID_ARGUMENTS, "{request:?}");
    }
    assert_eq!(tcp.stats("settings"), settings);
    assert_eq!((tcp.stat("cmd_set"), tcp.stat("cmd_flush")), (1, 0));
    assert_eq!(tcp.get("a"), Some(b"x".to_vec()));

    // What shows, and is no secret, is shown.
    for group in [
        "",
        " items",
        " slabs",
        " settings",
        " conns",
        " s",
        " sizes",
    ] {
        let reply = String::from_utf8(udp.ask(format!("stats{group}\r\n"))).expect("text");
        assert!(reply.ends_with("\r\nEND\r\n"), "{group}: {reply}");
    }
    udp.round(
        "version\r\n",
        format!("VERSION {}\r\n", tcp.stats("")["version"]),
    );
    tcp.round("config set cluster 0 1\r\nx\r\n", "STORED\r\n");
    let list = "CONFIG cluster 0 1\r\nx\r\nEND\r\n";
    udp.round("config get cluster\r\n", list);
    udp.round("delete a\r\n", "DELETED\r\n");
}

#[test]
fn no_reply_is_answered() {
    if !is_ketch() {
        // memcached answers ERROR, and so two of them can be set upon each other.
        return;
    }
    let server = start(&[]);
    let mut udp = UdpClient::connect(&server);
    // A value that reads like a command when its reply comes back as a request.
    udp.round("set a 0 0 7\r\nget a\r\n\r\n", "STORED\r\n");
    for request in [
        "get a\r\n",
        "gets a\r\n",
        "mg a v\r\n",
        "mg a k f\r\n",
        "mg none v\r\n",
        "me a\r\n",
        "mn\r\n",
        "set b 0 0 1\r\n1\r\n",
        "incr b 1\r\n",
        "incr a 1\r\n",
        "garbage\r\n",
        "version\r\n",
        "stats\r\n",
        "verbosity 0\r\n",
        "delete b\r\n",
        "cache_memlimit 1\r\n",
        "slabs reassign 1 1\r\n",
        "lru_crawler crawl 99\r\n",
        "stats reset\r\n",
    ] {
        let id = udp.send(request);
        let (_, sequence, total, data) = udp.receive();
        for _ in 1..total {
            udp.receive();
        }
        assert_eq!(sequence, 0);
        udp.send_raw(&framed(id, 0, 1, 0, &data));
        udp.expect_nothing();
    }
    for data in [
        &b"\r\n"[..],
        b"\n",
        b" get a\r\n",
        b"\0",
        b"\x80\0\0\0",
        b"\x81\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"GET / HTTP/1.0\r\n\r\n",
    ] {
        udp.send(data);
        udp.expect_nothing();
    }
}

#[test]
fn garbage_harms_nobody() {
    let server = start(&[]);
    let (mut udp, mut tcp) = (UdpClient::connect(&server), server.connect());
    let mut rng = Rng::from_env("garbage_harms_nobody");
    let words = [
        "get", "set", "ms", "mg", "a", "0", "1", "99999", "\r\n", "\n", " ", "noreply", "q", "v",
        "quit", "\0",
    ];
    // Nobody reads what comes back here.
    let deaf = UdpClient::connect(&server);
    for i in 0..3000 {
        let mut datagram = framed(rng.bits() as u16, 0, 1, 0, b"");
        if rng.bits().is_multiple_of(4) {
            datagram
                .iter_mut()
                .for_each(|byte| *byte = rng.bits() as u8);
        }
        for _ in 0..rng.bits() % 20 {
            if rng.bits().is_multiple_of(3) {
                datagram.push(rng.bits() as u8);
            } else {
                datagram.extend(words[rng.bits() as usize % words.len()].bytes());
                datagram.push(b' ');
            }
        }
        deaf.send_raw(&datagram);
        // Not more at a time than the server's receive buffer holds.
        if i % 50 == 0 && is_ketch() {
            udp.expect_nothing();
        }
    }
    if is_ketch() {
        // memcached may be waiting for a block, and take this for a part of it.
        udp.expect_nothing();
    }
    tcp.round("mn\r\n", "MN\r\n");
}

/// Sends `request`; gives datagrams and bytes that came back for it.
fn cost(udp: &mut UdpClient, request: &[u8]) -> (usize, usize) {
    (udp.received_datagrams, udp.received_bytes) = (0, 0);
    udp.send(request);
    // What follows on the same socket is answered after it.
    let marker = udp.send("mn\r\n");
    while udp.receive().0 != marker {}
    let of_marker = FRAME + "MN\r\n".len();
    (udp.received_datagrams - 1, udp.received_bytes - of_marker)
}

#[test]
fn strangers_get_little_more_than_they_sent() {
    if !is_ketch() {
        // memcached sends all to anybody.
        return;
    }
    let server = start(&[]);
    let mut tcp = server.connect();
    for len in [1, 10, 20, 30, 100, 1000, 4096, 60_000] {
        assert_eq!(tcp.set(&format!("k{len}"), &value_of(len)), "STORED");
    }
    let mut requests: Vec<String> = [
        "stats\r\n",
        "stats\n",
        "stats settings\r\n",
        "stats items\r\n",
        "version\r\n",
        "me k1\r\n",
        "mn\n",
        "x\n",
        "x",
        "flush_all 99999\r\n",
        "get",
        "set a 0 0 9\r\nabc",
        "gat 0 k4096\n",
        "watch\n",
        "mg k4096 v\n",
        "stats conns\n",
    ]
    .map(String::from)
    .into();
    for len in [1, 10, 20, 30, 100, 1000, 4096, 60_000] {
        requests.push(format!("get k{len}\r\n"));
        requests.push(format!("mg k{len} v k f t s\r\n"));
        requests.push(format!("get k1 k{len}\r\nget k{len}\r\n"));
    }
    for many in [2, 5, 50, 500, 5000] {
        requests.push("x\n".repeat(many));
        requests.push("mn\n".repeat(many));
        requests.push("get k1000\n".repeat(many));
        requests.push(format!("get{}\r\n", " k1000".repeat(many)));
    }
    let mut stranger = UdpClient::connect_from(STRANGER, &server);
    let mut friend = UdpClient::connect(&server);
    let (mut worst, mut worst_of_friend) = (0.0_f64, 0.0_f64);
    for request in &requests {
        let sent = FRAME + request.len();
        let (datagrams, bytes) = cost(&mut stranger, request.as_bytes());
        assert!(
            datagrams <= 1 && bytes <= 3 * sent,
            "{sent} bytes sent, {bytes} came: {request:?}"
        );
        worst = worst.max(bytes as f64 / sent as f64);
        let (_, bytes) = cost(&mut friend, request.as_bytes());
        worst_of_friend = worst_of_friend.max(bytes as f64 / sent as f64);
    }
    println!("bytes out / bytes in: a stranger {worst:.2}, who is proven {worst_of_friend:.2}");
    assert!(worst_of_friend > 100.0, "the requests should be tempting");

    // They are told why, and served what is small.
    stranger.round("get k1000\r\n", TOO_LARGE);
    stranger.round("stats\r\n", TOO_LARGE);
    stranger.round("get k1\r\n", "VALUE k1 0 1\r\na\r\nEND\r\n");
    stranger.round("set k1 0 0 1\r\nb\r\n", "STORED\r\n");
}

#[test]
fn a_tcp_connection_proves_its_address() {
    if !is_ketch() {
        return;
    }
    let server = start(&[]);
    let value = value_of(5000);
    assert_eq!(server.connect().set("big", &value), "STORED");
    let mut stranger = UdpClient::connect_from(STRANGER, &server);
    stranger.round("get big\r\n", TOO_LARGE);
    let mut tcp = connect_tcp_from(STRANGER, &server);
    tcp.round("mn\r\n", "MN\r\n");
    assert!(stranger.ask("get big\r\n") == value_reply("big", &value));
    // Not the neighbour's.
    let mut neighbour = UdpClient::connect_from(Ipv4Addr::new(127, 0, 0, 3), &server);
    neighbour.round("get big\r\n", TOO_LARGE);
    drop(tcp);
    wait_within("the address to be a stranger's again", PATIENCE, || {
        stranger.ask("get big\r\n") == TOO_LARGE.as_bytes()
    });
}

#[test]
fn a_flood_of_datagrams_does_not_starve_tcp() {
    let server = start(&[]);
    let mut tcp = server.connect();
    tcp.round("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let longest = thread::scope(|scope| {
        scope.spawn(|| {
            let mut udp = UdpClient::connect(&server);
            let request = "mg a v\r\n".repeat(150);
            while !stop.load(Relaxed) {
                udp.send(&request);
                sent.fetch_add(1, Relaxed);
            }
        });
        wait_within("the flood", PATIENCE, || sent.load(Relaxed) > 1000);
        let mut longest = Duration::ZERO;
        for _ in 0..300 {
            let start = Instant::now();
            tcp.round("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
            longest = longest.max(start.elapsed());
        }
        stop.store(true, Relaxed);
        longest
    });
    println!(
        "{} datagrams, longest wait of a TCP client {longest:?}",
        sent.load(Relaxed)
    );
    // Every turn between two of this connection's is a datagram or a few, far below a millisecond; the rest is for a busy
    // machine.
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[test]
fn counters_and_settings_tell_of_udp() {
    let server = start(&["-t", "3"]);
    let (mut udp, mut tcp) = (UdpClient::connect(&server), server.connect());
    let (read, written) = (tcp.stat("bytes_read"), tcp.stat("bytes_written"));
    udp.round("touch nothing 0\r\n", "NOT_FOUND\r\n");
    assert!(tcp.stat("bytes_read") >= read + 25);
    assert!(tcp.stat("bytes_written") >= written + 19);
    let settings = tcp.stats("settings");
    assert_eq!(settings["udpport"], "-1");
    assert_eq!(settings["num_threads_per_udp"], "3");
    // A socket for each worker.
    let conns: BTreeMap<_, _> = tcp.stats("conns");
    let address = format!("udp:127.0.0.1:{}", server.udp_port());
    let sockets = conns.values().filter(|value| **value == address).count();
    assert_eq!(sockets, 3, "{conns:?}");
    assert_eq!(conns.keys().filter(|key| key.ends_with(":UDP")).count(), 3);
}

#[test]
fn many_clients_are_each_answered_their_own() {
    let server = start(&["-t", "4"]);
    thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut udp = UdpClient::connect(server);
                for i in 0..300 {
                    let key = format!("c{client}k{}", i % 10);
                    let value = format!("{client}-{i}");
                    let set = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
                    udp.round(set, "STORED\r\n");
                    assert_eq!(
                        udp.ask(format!("get {key}\r\n")),
                        value_reply(&key, value.as_bytes())
                    );
                }
            });
        }
    });
}
