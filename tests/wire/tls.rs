//! TLS: the same conversations through encrypted sockets, who is let in, and certificates that change.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ketch_testing::tls::{self, Authority, BOTH, Cert, TLS12, TLS13};
use ketch_testing::{Conn, PATIENCE, Rng, Server, wait_within};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

/// A server with TLS on its first port and without on its second, its files, and who signed them.
struct Setup {
    server: Server,
    authority: Authority,
    dir: Files,
}

/// A directory with `cert.pem`, `key.pem` and `ca.pem`.
pub(crate) struct Files(pub(crate) PathBuf);

static MADE: AtomicU32 = AtomicU32::new(0);

impl Files {
    pub(crate) fn of(authority: &Authority) -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ketch-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        authority.issue().write(&dir);
        fs::write(dir.join("ca.pem"), authority.pem()).expect("a file");
        Files(dir)
    }

    /// `-o` with the files, `ca.pem` for clients, and `more`.
    pub(crate) fn options(&self, more: &str) -> String {
        let dir = self.0.display();
        let comma = if more.is_empty() { "" } else { "," };
        format!(
            "ssl_chain_cert={dir}/cert.pem,ssl_key={dir}/key.pem,ssl_ca_cert={dir}/ca.pem{comma}{more}"
        )
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Setup {
    fn start(options: &str) -> Self {
        Setup::start_with(options, &[])
    }

    #[track_caller]
    fn start_with(options: &str, args: &[&str]) -> Self {
        let authority = Authority::new("test root");
        let dir = Files::of(&authority);
        let options = dir.options(options);
        let own = ["-Z", "-l", "notls:127.0.0.1:0", "-o", &options];
        let server = Server::start(&[&own, args].concat());
        Setup {
            server,
            authority,
            dir,
        }
    }

    fn port(&self) -> u16 {
        self.server.ports()[0]
    }

    #[track_caller]
    fn connect(&self) -> Conn {
        let config = self.authority.client(BOTH, None);
        tls::connect(self.port(), &config).expect("a connection")
    }

    /// A connection to the listener without TLS.
    fn plain(&self) -> Conn {
        plain(self.server.ports()[1])
    }

    fn stat(&self, key: &str) -> u64 {
        self.plain().stat(key)
    }
}

fn plain(port: u16) -> Conn {
    Conn::tcp(socket(port), &format!("port {port}"))
}

fn socket(port: u16) -> TcpStream {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    socket.set_nodelay(true).expect("TCP_NODELAY");
    socket
}

/// Whether a client is let in: a refusal can come after its side of the handshake is done.
fn is_served(port: u16, config: &Arc<ClientConfig>) -> bool {
    let Ok((tls, socket)) = tls::handshake(port, config) else {
        return false;
    };
    let mut stream = StreamOwned::new(tls, socket);
    let mut reply = [0; 4];
    stream.write_all(b"mn\r\n").is_ok()
        && stream.read_exact(&mut reply).is_ok()
        && &reply == b"MN\r\n"
}

#[test]
fn values_of_all_sizes_in_both_versions() {
    for (wbuf, versions) in [("", &TLS12), ("", &TLS13), ("ssl_wbuf_size=1", &TLS13)] {
        let setup = Setup::start(wbuf);
        let config = setup.authority.client(&[versions], None);
        let mut conn = tls::connect(setup.port(), &config).unwrap();
        let mut rng = Rng::new(7);
        for size in [
            0,
            1,
            2,
            1000,
            4095,
            16_383,
            16_384,
            16_385,
            100_000,
            900 << 10,
        ] {
            let value: Vec<u8> = (0..size).map(|_| rng.below(256) as u8).collect();
            assert_eq!(conn.set("key", &value), "STORED", "{size}");
            assert!(conn.get("key") == Some(value), "{size} bytes");
        }
        assert_eq!(conn.stat("ssl_handshake_errors"), 0);
        assert_eq!(conn.stat("ssl_proto_errors"), 0);
    }
}

#[test]
fn many_commands_in_one_go() {
    let setup = Setup::start("");
    let mut conn = setup.connect();
    let (mut commands, mut replies) = (String::new(), String::new());
    for i in 0..20_000 {
        commands += &format!("set k{i} 0 0 4\r\n{:04}\r\nget k{i}\r\n", i % 10_000);
        replies += &format!("STORED\r\nVALUE k{i} 0 4\r\n{:04}\r\nEND\r\n", i % 10_000);
    }
    let mut writer = conn.clone_for_writing();
    let writing = std::thread::spawn(move || writer.send(commands));
    conn.expect(&replies);
    writing.join().unwrap();
}

/// Writes `bytes` as one record each time, and in pieces of `piece` bytes of the record.
fn send_in_pieces(tls: &mut ClientConnection, socket: &mut TcpStream, piece: usize) {
    let mut records = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut records).unwrap();
    }
    for piece in records.chunks(piece) {
        socket.write_all(piece).unwrap();
    }
}

#[test]
fn records_of_one_byte_and_records_that_come_by_the_byte() {
    let setup = Setup::start("");
    for version in [&TLS12, &TLS13] {
        let config = setup.authority.client(&[version], None);
        let mut socket = socket(setup.port());
        let mut tls = tls::client(&config);
        while tls.is_handshaking() {
            send_in_pieces(&mut tls, &mut socket, 1);
            if tls.wants_read() {
                tls.read_tls(&mut socket).unwrap();
                tls.process_new_packets().unwrap();
            }
        }
        send_in_pieces(&mut tls, &mut socket, 1);
        let text = b"set key 0 0 5\r\nvalue\r\nget key\r\nmn\r\n";
        for byte in text {
            tls.writer().write_all(&[*byte]).unwrap();
            send_in_pieces(&mut tls, &mut socket, 1);
        }
        let mut stream = StreamOwned::new(tls, socket);
        let expected = b"STORED\r\nVALUE key 0 5\r\nvalue\r\nEND\r\nMN\r\n";
        let mut reply = [0; 39];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, expected);
    }
}

#[test]
fn replies_come_after_the_client_has_said_its_last() {
    let setup = Setup::start("");
    let value = vec![b'v'; 200_000];
    // Said by TLS, or by the socket alone.
    for by_tls in [true, false] {
        let (mut tls, mut socket) =
            tls::handshake(setup.port(), &setup.authority.client(BOTH, None)).unwrap();
        let head = format!("set half 0 0 {}\r\n", value.len());
        let text = [
            head.as_bytes(),
            &value,
            b"\r\nget half\r\nget half\r\nmn\r\n",
        ]
        .concat();
        tls.writer().write_all(&text).unwrap();
        if by_tls {
            tls.send_close_notify();
        }
        while tls.wants_write() {
            tls.write_tls(&mut socket).unwrap();
        }
        socket.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        // The server's own last word makes this a clean end.
        StreamOwned::new(tls, socket).read_to_end(&mut got).unwrap();
        let head = format!("VALUE half 0 {}\r\n", value.len());
        let one = [head.as_bytes(), &value, b"\r\nEND\r\n"].concat();
        assert!(got == [b"STORED\r\n", &one[..], &one, b"MN\r\n"].concat());
    }
    wait_within("both are closed", PATIENCE, || {
        // This one, and the one that the start made.
        setup.stat("curr_connections") <= 2
    });
}

#[test]
fn a_client_that_reads_late_gets_all_and_costs_little() {
    let setup = Setup::start("");
    let mut conn = setup.connect();
    let value = vec![b'v'; 500_000];
    assert_eq!(conn.set("big", &value), "STORED");
    let before = setup.server.rss_kb();
    let (mut tls, mut socket) =
        tls::handshake(setup.port(), &setup.authority.client(BOTH, None)).unwrap();
    tls.writer()
        .write_all("get big\r\n".repeat(100).as_bytes())
        .unwrap();
    tls.writer().write_all(b"mn\r\nquit\r\n").unwrap();
    while tls.wants_write() {
        tls.write_tls(&mut socket).unwrap();
    }
    // The server has written what the socket takes; 50 MB are still to come.
    let sent = setup.stat("bytes_written");
    wait_within("the server waits for its reader", PATIENCE, || {
        setup.stat("bytes_written") > sent
    });
    assert_eq!(conn.set("other", b"x"), "STORED");
    let mut stream = StreamOwned::new(tls, socket);
    let mut one = vec![0; value.len() + "VALUE big 0 500000\r\n\r\nEND\r\n".len()];
    for _ in 0..100 {
        stream.read_exact(&mut one).unwrap();
        assert!(one.starts_with(b"VALUE big 0 500000\r\nvvv") && one.ends_with(b"v\r\nEND\r\n"));
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"MN\r\n");
    let grown = setup.server.rss_kb().saturating_sub(before);
    assert!(grown < 8 << 10, "grew by {grown} KB");
}

#[test]
fn certificates_of_clients_let_them_in_or_not() {
    let authority = Authority::new("test root");
    let dir = Files::of(&authority);
    let options = dir.options("ssl_verify_mode=1");
    let server = Server::start(&[
        "-Z",
        "-o",
        &options,
        "-l",
        "mtls:127.0.0.1:0",
        "-l",
        "btls:127.0.0.1:0",
        "-l",
        "notls:127.0.0.1:0",
    ]);
    let [optional, required, ignored, open] = server.ports()[..] else {
        panic!("four listeners")
    };
    let stranger = Authority::new("stranger").issue();
    let own = authority.issue();
    for version in [&TLS12, &TLS13] {
        let client = |cert| authority.client(&[version], cert);
        let served: Vec<_> = [None, Some(&own), Some(&stranger)]
            .map(client)
            .iter()
            .flat_map(|config| [optional, required, ignored].map(|port| is_served(port, config)))
            .collect();
        let expected = [
            [true, false, true],
            [true, true, true],
            [false, false, true],
        ];
        assert_eq!(served, expected.as_flattened(), "{version:?}");
    }
    assert_eq!(plain(open).stat("ssl_handshake_errors"), 6);
    // Without `-o ssl_verify_mode=1` the first of them would not have asked.
    for (mode, lets_in_strangers) in [("ssl_verify_mode=0", true), ("ssl_verify_mode=2", false)] {
        let options = dir.options(mode);
        let server = Server::start(&["-Z", "-o", &options]);
        assert_eq!(
            is_served(server.port(), &authority.client(BOTH, None)),
            lets_in_strangers
        );
        assert!(is_served(
            server.port(),
            &authority.client(BOTH, Some(&own))
        ));
    }
}

#[test]
fn versions_below_the_least_are_refused() {
    for (option, serves_1_2) in [
        ("", true),
        ("ssl_min_version=2", true),
        ("ssl_min_version=3", false),
    ] {
        let setup = Setup::start(option);
        let is_served =
            |version| is_served(setup.port(), &setup.authority.client(&[version], None));
        assert_eq!(
            (is_served(&TLS12), is_served(&TLS13)),
            (serves_1_2, true),
            "{option}"
        );
        assert_eq!(setup.stat("ssl_handshake_errors"), u64::from(!serves_1_2));
    }
}

/// The certificate that a new connection is shown.
fn shown(setup: &Setup) -> Vec<u8> {
    let config = setup.authority.client(BOTH, None);
    let (tls, _) = tls::handshake(setup.port(), &config).expect("a handshake");
    tls.peer_certificates().expect("a certificate")[0].to_vec()
}

#[test]
fn certificates_change_under_open_connections() {
    let setup = Setup::start("");
    let dir: &Path = &setup.dir.0;
    let mut old = setup.connect();
    assert_eq!(old.set("key", b"value"), "STORED");
    let first = shown(&setup);

    setup.authority.issue().write(dir);
    assert_eq!(shown(&setup), first, "nobody has asked to read them again");
    old.send("refresh_certs\r\n");
    old.expect("OK\r\n");
    let second = shown(&setup);
    assert_ne!(second, first);
    assert_eq!(
        old.get("key").as_deref(),
        Some(&b"value"[..]),
        "an open connection goes on"
    );
    assert!(old.stat("time_since_server_cert_refresh") <= 5);

    // A key that does not fit, a file that is none, a file that is gone: the good ones stay.
    for (file, text, reply) in [
        (
            "key.pem",
            Some(setup.authority.issue().key),
            "Error validating the certificate: {*}\r\n".to_owned(),
        ),
        (
            "key.pem",
            Some("x".to_owned()),
            format!(
                "Error loading the key: {}/key.pem : {{*}}\r\n",
                dir.display()
            ),
        ),
        (
            "ca.pem",
            Some(String::new()),
            format!(
                "Error loading the CA certificate: {}/ca.pem : {{*}}\r\n",
                dir.display()
            ),
        ),
        (
            "cert.pem",
            None,
            format!(
                "Error loading the certificate chain: {}/cert.pem : {{*}}\r\n",
                dir.display()
            ),
        ),
    ] {
        let path = dir.join(file);
        let good = fs::read(&path).unwrap();
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        old.send("refresh_certs\r\nmn\r\n");
        old.expect_like(&(reply + "MN\r\n"));
        assert_eq!(shown(&setup), second, "{file}");
        fs::write(&path, good).unwrap();
    }

    setup.authority.issue().write(dir);
    setup.server.signal(libc::SIGHUP);
    wait_within("the third certificate", PATIENCE, || {
        shown(&setup) != second
    });
    assert_eq!(old.get("key").as_deref(), Some(&b"value"[..]));
    assert_eq!(setup.stat("ssl_handshake_errors"), 0);
}

#[test]
fn sessions_come_back_with_the_cache_alone() {
    for version in [&TLS12, &TLS13] {
        for (option, kind) in [
            ("", HandshakeKind::Full),
            ("ssl_session_cache", HandshakeKind::Resumed),
        ] {
            let setup = Setup::start(option);
            let config = setup.authority.client(&[version], None);
            let mut kinds = Vec::new();
            for _ in 0..3 {
                let (tls, socket) = tls::handshake(setup.port(), &config).unwrap();
                let mut stream = StreamOwned::new(tls, socket);
                // With the reply come the tickets.
                stream.write_all(b"mn\r\n").unwrap();
                stream.read_exact(&mut [0; 4]).unwrap();
                kinds.push(stream.conn.handshake_kind().unwrap());
            }
            assert_eq!(
                kinds,
                [HandshakeKind::Full, kind, kind],
                "{version:?} {option}"
            );
            let stats = setup.plain().stats("");
            let counted = stats.get("ssl_new_sessions").map(String::as_str);
            assert_eq!(counted, (!option.is_empty()).then_some("1"));
        }
    }
}

#[test]
fn plain_text_is_not_understood_and_tls_is_not_taken_for_text() {
    let setup = Setup::start("");
    let mut conn = plain(setup.port());
    conn.send("set key 0 0 1\r\nx\r\nversion\r\n");
    // An alert, then the end.
    assert!(conn.read_to_end().len() < 16);
    assert_eq!(setup.stat("ssl_handshake_errors"), 1);
    assert_eq!(setup.plain().get("key"), None);

    // Bytes that no key has made, inside of a connection that was good until then.
    let (tls, mut socket) =
        tls::handshake(setup.port(), &setup.authority.client(BOTH, None)).unwrap();
    socket
        .write_all(b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
        .unwrap();
    let mut stream = StreamOwned::new(tls, socket);
    stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(setup.stat("ssl_proto_errors"), 1);

    setup.plain().send("stats reset\r\n");
    wait_within("reset", PATIENCE, || setup.stat("ssl_proto_errors") == 0);
    assert_eq!(setup.stat("ssl_handshake_errors"), 0);

    let config = setup.authority.client(BOTH, None);
    assert!(!is_served(setup.server.ports()[1], &config));
}

#[test]
fn both_kinds_of_listener_serve_one_cache() {
    let setup = Setup::start("");
    let (mut secret, mut open) = (setup.connect(), setup.plain());
    assert_eq!(secret.set("key", b"from tls"), "STORED");
    assert_eq!(open.get("key").as_deref(), Some(&b"from tls"[..]));
    open.send("refresh_certs\r\nversion\r\n");
    open.expect_like("OK\r\nVERSION {*}\r\n");
    let stats = secret.stats("settings");
    let dir = setup.dir.0.display();
    for (key, value) in [
        ("ssl_enabled", "yes"),
        ("ssl_chain_cert", &format!("{dir}/cert.pem")),
        ("ssl_key", &format!("{dir}/key.pem")),
        ("ssl_verify_mode", "0"),
        ("ssl_keyformat", "1"),
        ("ssl_ciphers", "NULL"),
        ("ssl_ca_cert", &format!("{dir}/ca.pem")),
        ("ssl_wbuf_size", "16384"),
        ("ssl_session_cache", "no"),
        ("ssl_kernel_tls", "no"),
        ("ssl_min_version", "tlsv1.2"),
    ] {
        assert_eq!(stats[key], value, "{key}");
    }
}

#[test]
fn without_tls_there_is_nothing_to_refresh() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.send("refresh_certs\r\n");
    conn.expect("Error TLS not enabled\r\n");
    assert_eq!(conn.stats("settings")["ssl_enabled"], "no");
    assert!(!conn.stats("").contains_key("ssl_handshake_errors"));
}

/// Clients that begin a handshake and stop: silent ones, half a hello, a hello whose answer is never read, and a record
/// that never ends.
fn stopped(setup: &Setup, count: usize) -> Vec<TcpStream> {
    let mut hello = Vec::new();
    tls::client(&setup.authority.client(BOTH, None))
        .write_tls(&mut hello)
        .unwrap();
    let endless = [&b"\x16\x03\x01\x40\x00\x01\x00\xff\xff"[..], &[0; 8000]].concat();
    let openings = [&hello[..0], &hello[..hello.len() / 2], &hello, &endless];
    (0..count)
        .map(|i| {
            let mut socket = socket(setup.port());
            socket.write_all(openings[i % openings.len()]).unwrap();
            socket
        })
        .collect()
}

/// Reads until the server closes.
#[track_caller]
fn is_closed(socket: &mut TcpStream) {
    match io::copy(socket, &mut io::sink()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn clients_that_never_end_their_handshake_hold_nobody_up() {
    let setup = Setup::start_with("", &["-o", "idle_timeout=2"]);
    let before = setup.server.rss_kb();
    let mut stopped = stopped(&setup, 200);
    let mut conn = setup.connect();
    for i in 0..100 {
        assert_eq!(conn.set(&format!("k{i}"), b"value"), "STORED");
    }
    let grown = setup.server.rss_kb().saturating_sub(before);
    assert!(grown < 200 * 64, "{grown} KB for 200 of them");
    // They are idle like others.
    for socket in &mut stopped {
        is_closed(socket);
    }
    assert!(setup.stat("idle_kicks") >= 200);
}

/// A handshake has a minute, whatever `idle_timeout` says, and however busy the client seems.
#[test]
fn a_handshake_has_its_time() {
    let setup = Setup::start_with("", &["-o", "debugtime"]);
    let mut clock = setup.plain();
    let mut old = setup.connect();
    old.expect_nothing();
    let mut stopped = stopped(&setup, 40);
    let mut hello = Vec::new();
    tls::client(&setup.authority.client(BOTH, None))
        .write_tls(&mut hello)
        .unwrap();
    let mut dribbles = socket(setup.port());
    for byte in &hello[..50] {
        dribbles.write_all(&[*byte]).unwrap();
        // All of them have been accepted when the clock moves, and the one that the server was waited for with.
        wait_within("all are there", PATIENCE, || {
            clock.stat("curr_connections") == 44
        });
        clock.round("debugtime 1\r\n", "OK\r\n");
    }
    assert_eq!(clock.stat("ssl_handshake_errors"), 0);
    let mut new = setup.connect();
    clock.round("debugtime 12\r\n", "OK\r\n");
    for socket in stopped.iter_mut().chain([&mut dribbles]) {
        is_closed(socket);
    }
    wait_within("they are counted", PATIENCE, || {
        clock.stat("ssl_handshake_errors") == 42
    });
    // Those whose handshake is over may be silent for as long as they like, with TLS or without.
    clock.round("debugtime 1000\r\n", "OK\r\n");
    new.expect_nothing();
    old.expect_nothing();
    assert_eq!(clock.stat("curr_connections"), 3);
}

#[test]
fn idle_is_the_same_with_tls() {
    let setup = Setup::start_with("", &["-o", "idle_timeout=1"]);
    let mut idle = setup.connect();
    idle.expect_nothing();
    let mut works = setup.connect();
    works.send("set a 0 0 10\r\n01234");
    let mut busy = setup.connect();
    // There are those that the server was waited for with, too.
    wait_within("no more idle ones", PATIENCE, || {
        busy.expect_nothing();
        busy.stat("curr_connections") == 2
    });
    idle.closed();
    assert!(busy.stat("idle_kicks") > 0);
    let uptime = busy.stat("uptime");
    wait_within("time goes on", PATIENCE, || {
        busy.stat("uptime") > uptime + 2
    });
    // Who owes a body is not idle.
    works.round("56789\r\n", "STORED\r\n");
}

/// Who is hung up on with much to say still hears the answer, and who is not let in hears why.
#[test]
fn the_last_words_arrive() {
    let setup = Setup::start("");
    for round in 0..20 {
        let mut conn = setup.connect();
        conn.note = format!("round {round}");
        let request = [&b"mn\r\nGET / HTTP/1.1\r\n"[..], &[b'j'; 300_000]].concat();
        conn.send(request);
        conn.expect("MN\r\n");
        conn.ended();
        // Plain text is answered with an alert: unexpected message, or a failed handshake.
        let mut text = plain(setup.port());
        text.send(vec![b'g'; 300_000]);
        let alert = text.read_to_end();
        assert_eq!(
            (alert.len(), &alert[..2]),
            (7, &b"\x15\x03"[..]),
            "{alert:?}"
        );
    }
    wait_within("the places are free", PATIENCE, || {
        setup.stat("curr_connections") <= 2
    });
}

#[test]
fn files_that_cannot_be_used_end_the_start() {
    let authority = Authority::new("test root");
    let dir = Files::of(&authority);
    fs::write(dir.0.join("empty.pem"), "").unwrap();
    let path = dir.0.display();
    for (options, told) in [
        (
            format!("ssl_chain_cert={path}/none.pem"),
            format!("Error loading the certificate chain: {path}/none.pem"),
        ),
        (
            format!("ssl_chain_cert={path}/empty.pem"),
            format!("Error loading the certificate chain: {path}/empty.pem"),
        ),
        (
            format!("ssl_chain_cert={path}/cert.pem"),
            format!("Error loading the key: {path}/cert.pem : no private key in it"),
        ),
        (
            format!(
                "ssl_chain_cert={path}/cert.pem,ssl_key={path}/key.pem,ssl_ca_cert={path}/key.pem"
            ),
            format!("Error loading the CA certificate: {path}/key.pem : no certificate in it"),
        ),
    ] {
        let out = Command::new(ketch_testing::binary())
            .args(["-u", "root", "-p", "-1", "-Z", "-o", &options])
            .output()
            .unwrap();
        let err = String::from_utf8(out.stderr).unwrap();
        assert!(
            !out.status.success() && err.starts_with(&format!("ketch: {told}")),
            "{err}"
        );
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    // Certificate and key in one file are enough.
    let both = fs::read_to_string(dir.0.join("cert.pem")).unwrap()
        + &fs::read_to_string(dir.0.join("key.pem")).unwrap();
    fs::write(dir.0.join("both.pem"), both).unwrap();
    let server = Server::start(&["-Z", "-o", &format!("ssl_chain_cert={path}/both.pem")]);
    assert!(is_served(server.port(), &authority.client(BOTH, None)));
}

#[test]
fn idle_connections_are_kept_small() {
    const COUNT: usize = 200;
    let setup = Setup::start("");
    let config = setup.authority.client(BOTH, None);
    let value = vec![b'v'; 100_000];
    let large = [b"set k 0 0 100000\r\n", &value[..], b"\r\nget k\r\n"].concat();
    let large_reply = "STORED\r\nVALUE k 0 100000\r\n\r\nEND\r\n".len() + value.len();
    let idle = |count: usize, request: &[u8], reply: usize| -> Vec<_> {
        (0..count)
            .map(|_| {
                let (tls, socket) = tls::handshake(setup.port(), &config).unwrap();
                let mut stream = StreamOwned::new(tls, socket);
                stream.write_all(request).unwrap();
                stream.read_exact(&mut vec![0; reply]).unwrap();
                stream
            })
            .collect()
    };
    // The first ones bring in code and arenas.
    let mut kept = idle(20, &large, large_reply);
    for (request, reply) in [(&b"mn\r\n"[..], 4), (&large, large_reply)] {
        let before = setup.server.rss_kb();
        kept.extend(idle(COUNT, request, reply));
        let each = setup.server.rss_kb().saturating_sub(before) / COUNT as u64;
        println!("{each} KB each after requests of {} bytes", request.len());
        assert!(each < 16, "{each} KB");
    }
}

/// One DER element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut all = vec![tag];
    match content.len() {
        len @ 0..=0x7f => all.push(len as u8),
        len => {
            let bytes = (len as u32).to_be_bytes();
            let from = bytes
                .iter()
                .position(|byte| *byte != 0)
                .expect("it is not 0");
            all.push(0x80 | (bytes.len() - from) as u8);
            all.extend_from_slice(&bytes[from..]);
        }
    }
    all.extend_from_slice(content);
    all
}

/// The elements in a DER sequence's content, whole.
fn elements(mut content: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let [_, first, rest @ ..] = content {
        let count = usize::from(first.saturating_sub(0x80));
        let len = match first {
            0..=0x7f => usize::from(*first),
            _ => rest[..count]
                .iter()
                .fold(0, |len, byte| len << 8 | usize::from(*byte)),
        };
        let (whole, after) = content.split_at(2 + count + len);
        all.push(whole);
        content = after;
    }
    all
}

fn content(element: &[u8]) -> &[u8] {
    let head = 2 + usize::from(element[1].saturating_sub(0x80));
    &element[head..]
}

/// The certificate as version 1: without its version and its extensions, signed again by `authority`.
fn as_version_1(cert: &Cert, authority: &Authority) -> Cert {
    let der_of = CertificateDer::from_pem_slice(cert.cert.as_bytes()).unwrap();
    let parts = elements(content(&der_of));
    let fields = elements(content(parts[0]));
    let is_plain = |field: &&&[u8]| !matches!(field[0], 0xa0 | 0xa3);
    let fields: Vec<_> = fields.iter().filter(is_plain).copied().collect();
    let signed = der(0x30, &fields.concat());
    let signature = [&[0], &authority.sign(&signed)[..]].concat();
    let whole = der(0x30, &[&signed, parts[1], &der(0x03, &signature)].concat());
    Cert {
        cert: tls::pem("CERTIFICATE", &whole),
        key: cert.key.clone(),
    }
}

/// What OpenSSL takes and rustls alone does not: the file of the roots has a client's own certificate in it, or the root
/// has signed one of version 1. What neither takes leaves a line in the log.
#[test]
fn client_certificates_hold_as_for_openssl() {
    let authority = Authority::new("test root");
    let stranger = Authority::new("stranger");
    let dir = Files::of(&authority);
    let own = tls::self_signed(2000, 2100);
    let expired = tls::self_signed(2000, 2001);
    let roots = [authority.pem(), own.cert.clone(), expired.cert.clone()].concat();
    fs::write(dir.0.join("ca.pem"), roots).unwrap();
    let options = dir.options("ssl_verify_mode=2");
    let server = Server::start(&["-Z", "-o", &options]);
    let version_1 = as_version_1(&authority.issue(), &authority);
    let forged = as_version_1(&authority.issue(), &stranger);
    let table = [
        ("issued", Some(authority.issue()), true, ""),
        ("listed", Some(own), true, ""),
        ("version 1", Some(version_1), true, ""),
        ("expired", Some(expired), false, "expired"),
        (
            "of a stranger",
            Some(stranger.issue()),
            false,
            "no root of ssl_ca_cert has signed it",
        ),
        (
            "unlisted",
            Some(tls::self_signed(2000, 2100)),
            false,
            "client certificate refused",
        ),
        (
            "version 1 of a stranger",
            Some(forged),
            false,
            "openssl x509",
        ),
        ("none", None, false, "it has shown none"),
    ];
    for (name, cert, is_let_in, told) in &table {
        for version in [&TLS12, &TLS13] {
            let before = server.stderr().len();
            let config = authority.client(&[version], cert.as_ref());
            assert_eq!(is_served(server.port(), &config), *is_let_in, "{name}");
            if !is_let_in {
                wait_within("a line in the log", PATIENCE, || {
                    let log = server.stderr();
                    log[before..].contains("client certificate refused")
                });
                let log = server.stderr();
                assert!(log[before..].contains(told), "{name}: {}", &log[before..]);
            }
        }
    }
}

#[test]
fn without_roots_no_client_certificate_holds() {
    let authority = Authority::new("test root");
    let dir = Files::of(&authority);
    let own = authority.issue();
    let path = dir.0.display();
    for (mode, without, with) in [(1, true, false), (2, false, false)] {
        let files =
            format!("ssl_chain_cert={path}/cert.pem,ssl_key={path}/key.pem,ssl_verify_mode={mode}");
        // A listener that asks for none shows that the server is ready.
        let server = Server::start(&["-Z", "-l", "notls:127.0.0.1:0", "-o", &files]);
        let port = server.ports()[0];
        let is_let_in = |cert| is_served(port, &authority.client(BOTH, cert));
        assert_eq!(
            (is_let_in(None), is_let_in(Some(&own))),
            (without, with),
            "{mode}"
        );
        assert!(server.stderr().contains("ssl_ca_cert"), "{mode}");
    }
}

/// Keys and certificates under other names, and a chain of version 1, which is for the client to judge.
#[test]
fn files_are_read_as_openssl_writes_them() {
    let authority = Authority::new("test root");
    let dir = Files::of(&authority);
    let path = dir.0.display();
    let good = authority.issue();
    let trusted = CertificateDer::from_pem_slice(good.cert.as_bytes()).unwrap();
    let trusted = [&trusted[..], &der(0x30, &der(0x0c, b"a name"))].concat();
    let rsa = |name: &str| good.key.replace("PRIVATE KEY", name);
    for (name, cert, key) in [
        ("RSA", good.cert.clone(), rsa("RSA PRIVATE KEY")),
        ("EC", good.cert.clone(), rsa("EC PRIVATE KEY")),
        (
            "trusted",
            tls::pem("TRUSTED CERTIFICATE", &trusted),
            good.key.clone(),
        ),
        (
            "X509",
            good.cert.replace("CERTIFICATE", "X509 CERTIFICATE"),
            good.key.clone(),
        ),
    ] {
        fs::write(dir.0.join("cert.pem"), cert).unwrap();
        fs::write(dir.0.join("key.pem"), key).unwrap();
        let server = Server::start(&["-Z", "-o", &dir.options("")]);
        assert!(
            is_served(server.port(), &authority.client(BOTH, None)),
            "{name}"
        );
    }
    let old = as_version_1(&good, &authority);
    old.write(&dir.0);
    let server = Server::start(&["-Z", "-l", "notls:127.0.0.1:0", "-o", &dir.options("")]);
    let mut hello = socket(server.ports()[0]);
    let mut client = tls::client(&authority.client(BOTH, None));
    client.write_tls(&mut hello).unwrap();
    let mut record = [0];
    hello.read_exact(&mut record).unwrap();
    assert_eq!(record, [22], "a record of a handshake, not an alert");

    // What cannot be taken says how to convert it.
    for (key, told) in [
        (
            rsa("ENCRYPTED PRIVATE KEY"),
            "decrypt it: openssl pkey -in ",
        ),
        (
            tls::pem("PRIVATE KEY", &key_on_curve(b"\x2b\x81\x04\x00\x23")),
            "P-521",
        ),
        (
            tls::pem("EC PRIVATE KEY", &key_on_curve(b"\x2b\x81\x04\x00\x0a")),
            "secp256k1",
        ),
        (
            tls::pem("RSA PRIVATE KEY", &small_rsa_key()),
            "2048 to 4096 bits",
        ),
        ("no PEM".to_owned(), "no private key in it (-o ssl_key)"),
        // DER begins with the character 0.
        ("0 is DER".to_owned(), "openssl pkey -inform DER -in "),
        (authority.issue().key, "Error validating the certificate"),
    ] {
        fs::write(dir.0.join("key.pem"), &key).unwrap();
        let out = Command::new(ketch_testing::binary())
            .args(["-u", "root", "-p", "-1", "-Z", "-o", &dir.options("")])
            .output()
            .unwrap();
        let err = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && err.contains(told), "{told}: {err}");
        if !told.starts_with("Error") {
            let file = format!("ketch: Error loading the key: {path}/key.pem : ");
            assert!(
                err.starts_with(&file) && err.contains("(-o ssl_key)"),
                "{err}"
            );
        }
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

/// PKCS#1 of 1024 bits, with numbers that are none of RSA's.
fn small_rsa_key() -> Vec<u8> {
    let number = |len| der(0x02, &vec![0x7f; len]);
    let halves = [64, 64, 64, 64, 64].map(number).concat();
    let numbers = [number(1), number(128), number(3), number(128), halves];
    der(0x30, &numbers.concat())
}

/// PKCS#8 of an elliptic curve by its object identifier, with a secret that is none.
fn key_on_curve(identifier: &[u8]) -> Vec<u8> {
    let ec = der(0x06, b"\x2a\x86\x48\xce\x3d\x02\x01");
    let algorithm = der(0x30, &[ec, der(0x06, identifier)].concat());
    let secret = der(0x30, &[der(0x02, &[1]), der(0x04, &[7; 66])].concat());
    der(
        0x30,
        &[der(0x02, &[0]), algorithm, der(0x04, &secret)].concat(),
    )
}

#[test]
fn ciphers_are_those_that_were_listed() {
    let authority = Authority::new("test root");
    let dir = Files::of(&authority);
    let list = "ECDHE-ECDSA-AES128-GCM-SHA256:AES128-SHA";
    let server = Server::start(&["-Z", "-o", &dir.options(&format!("ssl_ciphers={list}"))]);
    let suite = |version| {
        let (tls, _) = tls::handshake(server.port(), &authority.client(&[version], None)).unwrap();
        format!("{:?}", tls.negotiated_cipher_suite().unwrap().suite())
    };
    assert_eq!(suite(&TLS12), "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    assert!(suite(&TLS13).starts_with("TLS13_"));
    let log = server.stderr();
    assert!(
        log.contains("AES128-SHA") && log.contains("left out"),
        "{log}"
    );
    let config = authority.client(BOTH, None);
    let settings = tls::connect(server.port(), &config)
        .unwrap()
        .stats("settings");
    assert_eq!(settings["ssl_ciphers"], list);

    let out = Command::new(ketch_testing::binary())
        .args([
            "-u",
            "root",
            "-p",
            "-1",
            "-Z",
            "-o",
            &dir.options("ssl_ciphers=RC4-SHA"),
        ])
        .output()
        .unwrap();
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(
        err.starts_with("ketch: -o ssl_ciphers=RC4-SHA: none of these"),
        "{err}"
    );
}

/// `--http-tls`: what `--http` serves, with the server's certificates, to curl that checks them; plain HTTP gets nothing.
#[test]
fn http_with_the_servers_certificates() {
    let setup = Setup::start_with("", &["--http", "0", "--http-tls"]);
    let port = setup.server.http_port();
    let curl = |ca: &Path, url: &str, more: &[&str]| {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "20", "--resolve"])
            .arg(format!("localhost:{port}:127.0.0.1"))
            .arg("--cacert")
            .arg(ca)
            .args(more)
            .arg(url)
            .output();
        output.expect("curl is installed")
    };
    let ca = setup.dir.0.join("ca.pem");
    let at = |path: &str| format!("https://localhost:{port}{path}");
    let health = curl(&ca, &at("/health"), &[]);
    assert_eq!(health.stdout, b"{\"status\":\"ok\"}\n", "{health:?}");
    let stored = curl(
        &ca,
        &at("/key?ttl=60"),
        &["-X", "PUT", "--data-binary", "value"],
    );
    assert!(stored.status.success(), "{stored:?}");
    assert_eq!(curl(&ca, &at("/key"), &[]).stdout, b"value");
    // Larger than one record, and more than a socket takes at once.
    let metrics = curl(&ca, &at("/metrics"), &[]);
    assert!(metrics.stdout.len() > 20_000 && metrics.stdout.ends_with(b"\n"));

    // Another authority's clients see that it is not theirs.
    let other = Files::of(&Authority::new("another root"));
    let told = curl(&other.0.join("ca.pem"), &at("/health"), &[]);
    assert_eq!(told.status.code(), Some(60), "{told:?}");
    let plain = curl(&ca, &format!("http://localhost:{port}/health"), &[]);
    assert!(
        !plain.status.success() && plain.stdout.is_empty(),
        "{plain:?}"
    );
    // What is no TLS costs the others nothing.
    let mut stranger = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stranger.write_all(&[0x16; 100]).expect("it reads");
    assert_eq!(
        curl(&ca, &at("/health"), &[]).stdout,
        b"{\"status\":\"ok\"}\n"
    );
}

/// A connection that watches is handed over to another thread, with all that TLS keeps for it.
#[test]
fn watching_over_tls() {
    let setup = Setup::start("");
    let (mut conn, mut lines, mut feed) = (setup.connect(), setup.connect(), setup.connect());
    lines.round("get a\r\nwatch mutations\r\n", "END\r\nOK\r\n");
    feed.round("watch feed heartbeat=20\r\n", "OK\r\n");
    assert!(feed.read_until(b"\n").starts_with(b"FEED "));
    let key = "k".repeat(200);
    // Fewer than a worker's buffer of lines holds (64 KB): whoever is slow loses none.
    const COUNT: usize = 150;
    for n in 0..COUNT {
        conn.send(format!("set {key}{n} 0 0 1 noreply\r\nx\r\n"));
    }
    conn.expect_nothing();
    for n in 0..COUNT {
        let line = String::from_utf8(lines.read_until(b"\n")).expect("text");
        assert!(
            line.contains(&format!(" type=item_store key={key}{n} ")),
            "{line}"
        );
        let event = loop {
            let line = String::from_utf8(feed.read_until(b"\n")).expect("text");
            if !line.starts_with("HB ") {
                break line;
            }
        };
        assert!(event.contains(&format!(" set set {key}{n} ")), "{event}");
    }
    // What they send is not listened to, and they go when they like.
    lines.send("get a\r\n");
    drop((lines, feed));
    wait_within("they are gone", PATIENCE, || conn.stat("log_watchers") == 0);
    conn.round("get a\r\n", "END\r\n");
}

/// What was agreed on with a client cannot leave the process: it is told the end, and comes again.
#[cfg(target_os = "linux")]
#[test]
fn a_takeover_ends_connections_in_good_order_and_takes_new_ones() {
    let mut setup = Setup::start("");
    let (mut secret, mut plain) = (setup.connect(), setup.plain());
    assert_eq!(secret.set("a", b"1"), "STORED");
    plain.send("set b 0 0 5\r\nhe");
    setup.server.take_over(&[]);
    secret.closed();
    plain.round("llo\r\n", "STORED\r\n");
    let mut again = setup.connect();
    assert_eq!(again.get("a"), Some(b"1".to_vec()));
    assert_eq!(again.get("b"), Some(b"hello".to_vec()));
    let told = plain.stats("restart");
    // This one, and the one by which the test has seen that the server is there.
    assert_eq!(told["takeover_connections_ended"], "2");
}
