//! Nodes that ask for a login (`-Y`), behind a proxy that has one, for clients of each protocol.

use ketch_testing::packet::{count, op, packet, store};
use ketch_testing::{Server, is_ketch};

use crate::proxy::{file, pool, proxy};

#[test]
fn clients_of_each_protocol_are_served_by_nodes_with_a_login() {
    if !is_ketch() {
        return;
    }
    let users = file("ann:right\n");
    let users = users.to_str().expect("a path in text");
    let login = "user = \"ann\"\npassword = \"right\"";
    for copies in [1, 2] {
        let nodes = [(); 2].map(|()| Server::start(&["-t", "1", "-Y", users]));
        let more = format!("copies = {copies}\n{login}");
        let proxy = proxy(&pool(&nodes, &more), &[]);
        let (mut text, mut binary) = (proxy.connect(), proxy.connect());
        for at in 0..20 {
            // What one stores the others read.
            let key = format!("k{at}");
            assert_eq!(text.set(&key, b"text"), "STORED");
            let got = binary.ask_packet(&packet(op::GETK, &key, ""));
            assert_eq!((got.status, &got.value[..]), (0, &b"text"[..]));
            let set = binary.ask_packet(&store(op::SET, &key, "7"));
            assert_eq!((set.status, text.cas_of(&key)), (0, set.cas));
            let sum = binary.ask_packet(&count(op::INCR, &key, 3, 0, 0));
            assert_eq!((sum.status, text.get(&key)), (0, Some(b"10".to_vec())));
            binary.send(store(op::SETQ, &key, "quiet").bytes());
            assert_eq!(binary.packets_before_noop(), Vec::new());
            text.round(format!("mg {key} v\r\n"), "VA 5\r\nquiet\r\n");
            // Too large: refused in a packet, and the old value is deleted.
            let large = store(op::SET, &key, vec![b'x'; 2 << 20]);
            assert_eq!(binary.ask_packet(&large).status, 3);
            assert_eq!(text.get(&key), None);
        }
    }
}

#[test]
fn a_login_that_is_refused_is_told_in_each_protocol() {
    if !is_ketch() {
        return;
    }
    let users = file("ann:right\n");
    let users = users.to_str().expect("a path in text");
    let node = Server::start(&["-t", "1", "-Y", users]);
    for login in ["", "user = \"ann\"\npassword = \"wrong\""] {
        let proxy = proxy(&pool([&node], login), &[]);
        let (mut text, mut binary) = (proxy.connect(), proxy.connect());
        assert_ne!(text.set("k", b"v"), "STORED", "{login}");
        assert_ne!(
            binary.ask_packet(&store(op::SET, "k", "v")).status,
            0,
            "{login}"
        );
        assert_ne!(
            binary.ask_packet(&packet(op::GET, "k", "")).status,
            0,
            "{login}"
        );
        // What is no matter of nodes is answered.
        text.round("mn\r\n", "MN\r\n");
        assert_eq!(binary.ask_packet(&packet(op::NOOP, "", "")).status, 0);
    }
}
