//! `config`: a node that tells clients about its cluster, as hosted memcached does. memcached itself has no such command.

use std::io::Write;

use ketch_testing::{Server, is_ketch, packet::packet};

const LIST: &str = "3\na.example|10.0.0.1|11211 b.example|10.0.0.2|11211\n";

fn shown(list: &str) -> String {
    format!("CONFIG cluster 0 {}\r\n{list}\r\nEND\r\n", list.len())
}

#[test]
fn what_one_connection_sets_another_reads() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let (mut one, mut other) = (server.connect(), server.connect());
    other.send("config get cluster\r\n");
    other.expect("ERROR\r\n");
    // A block that comes in pieces is waited for, and until it is whole nothing has changed.
    let (first, second) = LIST.split_at(20);
    one.send(format!("config set cluster 0 {}\r\n{first}", LIST.len()));
    other.send("config get cluster\r\n");
    other.expect("ERROR\r\n");
    one.send(format!("{second}\r\nconfig get cluster\r\n"));
    one.expect(format!("STORED\r\n{}", shown(LIST)));
    // Clients may end the line without \r, ask the version first, or ask the way servers before 1.4.14 understood.
    other.send("version\nconfig get cluster\nget AmazonElastiCache:cluster\r\n");
    other.expect(format!("VERSION 1.6.45\r\n{}", shown(LIST)));
    other.expect(shown(LIST).replace("CONFIG cluster", "VALUE AmazonElastiCache:cluster"));
    other.send("config delete cluster\r\nconfig get cluster\r\n");
    other.expect("DELETED\r\nERROR\r\n");
}

#[test]
fn the_block_of_a_refused_list_is_never_run() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let commands = "flush_all\r\n".repeat(40_000);
    conn.send(format!(
        "config set cluster 0 {}\r\n{commands}\r\nmn\r\n",
        commands.len()
    ));
    conn.expect("SERVER_ERROR object too large for cache\r\nMN\r\n");
    conn.send(format!(
        "config set nodes 0 {}\r\n{commands}\r\nmn\r\n",
        commands.len()
    ));
    conn.expect("CLIENT_ERROR bad command line format\r\nMN\r\n");
    assert_eq!(server.stat("cmd_flush"), 0);
}

#[test]
fn binary_clients_find_it_too() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut text = server.connect();
    let mut conn = server.connect();
    const CONFIG_GET: u8 = 0x60;
    conn.round_packet(&packet(CONFIG_GET, "cluster", ""), "60 01 v=Not found");
    text.send("config set cluster 5 4\r\n1\na\n\r\n");
    text.expect("STORED\r\n");
    conn.round_packet(
        &packet(CONFIG_GET, "cluster", ""),
        "60 00 x=\\x00\\x00\\x00\\x05 v=1\\na\\n",
    );
    // The rest is as unknown as in memcached.
    conn.round_packet(&packet(CONFIG_GET, "other", ""), "60 81 v=Unknown command");
    conn.round_packet(
        &packet(CONFIG_GET, "cluster", "x"),
        "60 81 v=Unknown command",
    );
}

/// Many connections that promise the largest list and never send it cost what connections cost.
#[test]
fn promises_hold_no_memory() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let before = server.rss_kb();
    let promises: Vec<_> = (0..500)
        .map(|_| {
            let mut conn = server.connect();
            conn.send("mn\r\nconfig set cluster 0 32768\r\nx");
            conn.expect("MN\r\n");
            conn
        })
        .collect();
    let grown = server.rss_kb().saturating_sub(before);
    assert!(
        grown < 500 * 16,
        "{grown} KB for {} promises",
        promises.len()
    );
}

#[test]
fn a_list_from_a_file_at_the_start() {
    if !is_ketch() {
        return;
    }
    let path = std::env::temp_dir().join(format!("ketch-config-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(LIST.as_bytes()).unwrap();
    let option = format!("cluster_config={}", path.display());
    let server = Server::start(&["-o", &option]);
    std::fs::remove_file(&path).unwrap();
    let mut conn = server.connect();
    conn.send("config get cluster\r\n");
    conn.expect(shown(LIST));
    // From then on it is like any other.
    conn.send(
        "config add cluster 0 0\r\n\r\nconfig set cluster 0 2\r\n4\n\r\nconfig get cluster\r\n",
    );
    conn.expect(format!("NOT_STORED\r\nSTORED\r\n{}", shown("4\n")));
}
