//! `config`: the list of a cluster's nodes, kept for clients that ask a node for all the others (auto discovery of hosted
//! memcached).
//!
//! ```text
//!  config get cluster                    CONFIG cluster FLAGS LEN\r\n the value \r\nEND\r\n, ERROR if none is set, as memcached
//!  get AmazonElastiCache:cluster         the same value as an item: what servers before 1.4.14 had, and clients still ask
//!  binary opcode 0x60, key "cluster"     flags as extras and the value; "Not found" if none is set
//!  config set|add cluster FLAGS LEN      STORED; add: NOT_STORED if one is set
//!  config delete cluster                 DELETED, or NOT_FOUND
//!  config ring leave                     OK: from now on the ring that the server has joined does not count on it; it goes on serving
//!  config ring join [WEIGHT]             OK: it counts on it again, with this weight or the server's own
//!
//!  value:  VERSION\nHOST|IP|PORT HOST|IP|PORT\n      the version is a number that grows when the nodes change
//! ```
//!
//! The server keeps the value as it came, and knows nothing of other nodes: who changes the cluster tells each node.
//! An item that a client stored under the old key goes before the list. What the list is: `state::ClusterConfig`; how a new
//! one comes: `session::config_body`.

use protocol::{BinaryHead, ErrorLine, Status, binary, reply};

use super::output::Output;
use crate::state::{ClusterConfig, Ctx, PlaceOrder};

/// The name of the list.
pub(super) const NAME: &[u8] = b"cluster";
/// The key under which servers before 1.4.14 had it.
pub(super) const OLD_KEY: &[u8] = b"AmazonElastiCache:cluster";

/// What `config get` answers, but for `END`; false if there is no list.
fn show(cluster: &ClusterConfig, out: &mut Output<'_>) -> bool {
    let held = cluster.read();
    if let Some(list) = &*held {
        reply::config_head(&mut out.buf, NAME, list.client_flags, list.bytes.len());
        out.bytes(&list.bytes);
        out.bytes(reply::CRLF);
    }
    held.is_some()
}

/// What `get` answers to [`OLD_KEY`], but for `END`.
#[cold]
pub(super) fn show_as_item(ctx: Ctx<'_>, with_cas: bool, out: &mut Output<'_>) {
    if let Some(list) = &*ctx.shared.cluster.read() {
        let cas = with_cas.then_some(0);
        let (flags, len) = (list.client_flags, list.bytes.len() as u32);
        reply::value_head(&mut out.buf, OLD_KEY, flags, len, cas);
        out.bytes(&list.bytes);
        out.bytes(reply::CRLF);
    }
}

/// Answers the binary `config get`. Any other name is as unknown as the opcode is to memcached.
pub(super) fn get_binary(ctx: Ctx<'_>, head: BinaryHead, name: &[u8], out: &mut Output<'_>) {
    match &*ctx.shared.cluster.read() {
        _ if name != NAME => binary::error(&mut out.buf, head, Status::UnknownCommand),
        None => binary::error(&mut out.buf, head, Status::NotFound),
        Some(value) => {
            let (flags, len) = (value.client_flags, value.bytes.len() as u32);
            binary::value_head(&mut out.buf, head, flags, b"", len, 0);
            out.bytes(&value.bytes);
        }
    }
}

/// Executes what has no data block, and answers.
pub(super) fn execute(ctx: Ctx<'_>, words: &[&[u8]], noreply: bool, out: &mut Output<'_>) {
    let line = match words {
        [b"get", name] if *name == NAME && show(&ctx.shared.cluster, out) => {
            return out.bytes(reply::END);
        }
        [b"delete", name] if *name == NAME && ctx.shared.cluster.delete() => {
            log::info!("config delete: the list of nodes is gone");
            reply::DELETED
        }
        [b"delete", _] => reply::NOT_FOUND,
        [b"ring", order @ ..] => ring(&ctx.shared.cluster, order),
        _ => ErrorLine::Error.line(),
    };
    if !noreply {
        out.bytes(line);
    }
}

/// Has the server's place in its ring changed. The reply does not wait for the engine that keeps the ring.
fn ring(cluster: &ClusterConfig, words: &[&[u8]]) -> &'static [u8] {
    const NO_RING: &[u8] = b"CLIENT_ERROR the server has joined no ring (-o register)\r\n";
    const NO_WEIGHT: &[u8] = b"CLIENT_ERROR the weight is a number from 1\r\n";
    let order = match words {
        [b"leave"] => PlaceOrder::Leave,
        [b"join"] => PlaceOrder::Join(None),
        [b"join", weight] => {
            let weight = str::from_utf8(weight)
                .ok()
                .and_then(|text| text.parse().ok());
            match weight.filter(|&weight: &u32| weight > 0) {
                Some(weight) => PlaceOrder::Join(Some(weight)),
                None => return NO_WEIGHT,
            }
        }
        _ => return ErrorLine::Error.line(),
    };
    match cluster.ring.place.get() {
        Some(place) => {
            log::info!("config ring: {order:?}");
            (place.0)(order);
            reply::OK
        }
        None => NO_RING,
    }
}

#[cfg(test)]
mod tests {
    use protocol::reply;

    use crate::command::output::Output;
    use crate::command::session::{Next, Session};
    use crate::command::testing::Server;
    use crate::state::CONFIG_LEN_MAX;

    const LIST: &str = "12\nnode1.example|10.0.0.1|11211 node2.example|10.0.0.2|11212\n";

    #[test]
    fn a_place_in_a_ring() {
        let server = Server::start();
        server.check(&[
            (
                "config ring leave",
                "CLIENT_ERROR the server has joined no ring (-o register)|",
            ),
            (
                "config ring join 0",
                "CLIENT_ERROR the weight is a number from 1|",
            ),
            (
                "config ring join x",
                "CLIENT_ERROR the weight is a number from 1|",
            ),
            ("config ring join 1 2", "ERROR|"),
            ("config ring", "ERROR|"),
            ("config ring leave noreply", ""),
        ]);
    }

    #[test]
    fn set_and_get() {
        let server = Server::start();
        let (len, list) = (LIST.len(), LIST);
        assert_eq!(server.ask("config get cluster\r\n"), "ERROR\r\n");
        assert_eq!(
            server.ask(&format!("config set cluster 0 {len}\r\n{list}\r\n")),
            "STORED\r\n"
        );
        // As clients read it: by lines, "\n" behind the version and the nodes, "\r\n" behind the value, END.
        let shown = format!("CONFIG cluster 0 {len}\r\n{list}\r\nEND\r\n");
        assert_eq!(server.ask("config get cluster\r\n"), shown);
        let item = format!("VALUE AmazonElastiCache:cluster 0 {len}\r\n{list}\r\nEND\r\n");
        assert_eq!(server.ask("get AmazonElastiCache:cluster\r\n"), item);
        assert_eq!(
            server.ask("gets a AmazonElastiCache:cluster b\r\n"),
            item.replace(&format!("0 {len}"), &format!("0 {len} 0"))
        );
        server.check(&[
            ("flush_all", "OK|"),
            ("config add cluster 0 2|33", "NOT_STORED|"),
            ("config set cluster 7 1 noreply|x", ""),
            ("config get cluster", "CONFIG cluster 7 1|x|END|"),
            // A client may have an item of that name, as where the list is one.
            ("set AmazonElastiCache:cluster 0 0 1|y", "STORED|"),
            (
                "get AmazonElastiCache:cluster",
                "VALUE AmazonElastiCache:cluster 0 1|y|END|",
            ),
            ("config delete cluster", "DELETED|"),
            ("config delete cluster", "NOT_FOUND|"),
            ("config get cluster", "ERROR|"),
            ("config add cluster 0 0|", "STORED|"),
            ("config get cluster", "CONFIG cluster 0 0||END|"),
        ]);
    }

    #[test]
    fn what_is_refused_is_swallowed() {
        let too_long = CONFIG_LEN_MAX + 1;
        let server = Server::start();
        let body = "x".repeat(too_long);
        assert_eq!(
            server.ask(&format!(
                "config set cluster 0 {too_long}\r\n{body}\r\nmn\r\n"
            )),
            "SERVER_ERROR object too large for cache\r\nMN\r\n"
        );
        server.check(&[
            ("config", "ERROR|"),
            ("config get", "ERROR|"),
            ("config get cluster twice", "ERROR|"),
            ("config dance cluster", "ERROR|"),
            ("config get other", "ERROR|"),
            ("config delete other", "NOT_FOUND|"),
            (
                "config set cluster 0",
                "CLIENT_ERROR bad command line format|",
            ),
            (
                "config set other 0 4|quit|mn",
                "CLIENT_ERROR bad command line format|MN|",
            ),
            ("config set other 0 4 noreply|quit|mn", "MN|"),
            (
                "config set cluster x 4|quit|mn",
                "CLIENT_ERROR bad command line format|MN|",
            ),
            (
                "config set cluster 0 4|quitxxmn",
                "CLIENT_ERROR bad data chunk|MN|",
            ),
            ("config get cluster", "ERROR|"),
        ]);
        // A length that nobody would believe is no reason to hold memory, nor to wait.
        assert_eq!(
            server.ask("config set cluster 0 2147483645\r\nx"),
            "SERVER_ERROR object too large for cache\r\n"
        );
    }

    /// The largest list, byte by byte: nothing changes before the last one, and it holds what has come.
    #[test]
    fn half_a_list_waits() {
        let server = Server::start();
        let ctx = server.shared.ctx(0);
        let (mut session, mut out) = (Session::new(), Output::new());
        let head = format!("config set cluster 0 {CONFIG_LEN_MAX}\r\n");
        assert_eq!(
            session.drive(ctx, head.as_bytes(), &mut 100, &mut out).next,
            Next::Read
        );
        for came in 0..CONFIG_LEN_MAX + 2 {
            assert_eq!(server.shared.staged(), came);
            assert!(out.is_empty() && session.is_waiting_for_body());
            let byte = match came.checked_sub(CONFIG_LEN_MAX) {
                None => b"x",
                Some(0) => b"\r",
                Some(_) => b"\n",
            };
            let drive = session.drive(ctx, byte, &mut 100, &mut out);
            assert_eq!((drive.consumed, drive.next), (1, Next::Read));
        }
        assert_eq!(out.plain(), Some(reply::STORED));
        assert_eq!(server.shared.staged(), 0);
        // One that never ends gives back what it held.
        let input = b"config set cluster 0 100\r\nhalf";
        session.drive(ctx, input, &mut 100, &mut out);
        assert_eq!(server.shared.staged(), 4);
        drop(session);
        assert_eq!(server.shared.staged(), 0);
    }

    #[test]
    fn a_datagram_only_reads() {
        let server = Server::start();
        let ask = |input: &str| {
            let (mut session, mut out) = (
                Session::of_datagram(crate::settings::WireProtocol::Auto),
                Output::new(),
            );
            session.drive(server.shared.ctx(0), input.as_bytes(), &mut 100, &mut out);
            session.end_of_datagram(b"", &mut out);
            String::from_utf8(out.plain().expect("no large value").to_vec()).unwrap()
        };
        let refused = "CLIENT_ERROR not allowed over UDP\r\n";
        assert_eq!(
            ask("config set cluster 0 1\r\nx\r\nmn\r\n"),
            format!("{refused}MN\r\n")
        );
        assert_eq!(ask("config delete cluster\r\n"), refused);
        assert_eq!(ask("config get cluster\r\n"), "ERROR\r\n");
    }
}
