//! `config`: the list of a cluster's nodes, kept for clients that ask a node for all the others (auto discovery of hosted
//! memcached).
//!
//! ```text
//!  config get cluster                    CONFIG cluster FLAGS LEN\r\n the value \r\nEND\r\n, ERROR if none is set, as memcached
//!  get AmazonElastiCache:cluster         the same value as an item: what servers before 1.4.14 had, and clients still ask
//!  binary opcode 0x60, key "cluster"     flags as extras and the value; "Not found" if none is set
//!  config set|add cluster FLAGS LEN      STORED; add: NOT_STORED if one is set
//!  config delete cluster                 DELETED, or NOT_FOUND
//!
//!  value:  VERSION\nHOST|IP|PORT HOST|IP|PORT\n      the version is a number that grows when the nodes change
//! ```
//!
//! The server keeps the value as it came, and knows nothing of other nodes: who changes the cluster tells each node.
//! An item that a client stored under the old key goes before the list.
//!
//! F1. The list is whole: it changes when the last byte of a new one is there, for all connections at once.
//! F2. It is outside of item memory: no eviction, no `flush_all`. It has [`CONFIG_LEN_MAX`] bytes at most.
//! F3. A list on its way holds no more memory than has come of it, and that is part of what bodies may hold together.

use std::sync::{PoisonError, RwLock};

use protocol::{BinaryHead, ConfigSet, ErrorLine, Fault, Status, binary, reply};

use super::body::Fed;
use super::budget::Hold;
use super::output::Output;
use super::shared::Ctx;

/// The longest list, in bytes: some hundred nodes with names of a hosted service.
pub const CONFIG_LEN_MAX: usize = 32 << 10;
/// The name of the list.
const NAME: &[u8] = b"cluster";
/// The key under which servers before 1.4.14 had it.
pub(super) const OLD_KEY: &[u8] = b"AmazonElastiCache:cluster";

/// The list, if there is one.
#[derive(Debug, Default)]
pub struct ClusterConfig(RwLock<Option<Value>>);

#[derive(Debug)]
struct Value {
    client_flags: u32,
    bytes: Box<[u8]>,
}

impl ClusterConfig {
    /// Takes a list. With `add` only if there is none: false then.
    pub fn set(&self, client_flags: u32, bytes: &[u8], add: bool) -> bool {
        let value = Value {
            client_flags,
            bytes: bytes.into(),
        };
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if add && held.is_some() {
            return false;
        }
        *held = Some(value);
        true
    }

    /// Forgets the list; false if there was none.
    fn delete(&self) -> bool {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        held.take().is_some()
    }

    /// What `config get` answers, but for `END`; false if there is no list.
    fn show(&self, out: &mut Output<'_>) -> bool {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*held {
            reply::config_head(&mut out.buf, NAME, value.client_flags, value.bytes.len());
            out.bytes(&value.bytes);
            out.bytes(reply::CRLF);
        }
        held.is_some()
    }

    /// What `get` answers to [`OLD_KEY`], but for `END`.
    #[cold]
    pub(super) fn show_as_item(&self, with_cas: bool, out: &mut Output<'_>) {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*held {
            let cas = with_cas.then_some(0);
            let (flags, len) = (value.client_flags, value.bytes.len() as u32);
            reply::value_head(&mut out.buf, OLD_KEY, flags, len, cas);
            out.bytes(&value.bytes);
            out.bytes(reply::CRLF);
        }
    }
}

/// Answers the binary `config get`. Any other name is as unknown as the opcode is to memcached.
pub(super) fn get_binary(ctx: Ctx<'_>, head: BinaryHead, name: &[u8], out: &mut Output<'_>) {
    let cluster = &ctx.shared.cluster;
    let held = cluster.0.read().unwrap_or_else(PoisonError::into_inner);
    match &*held {
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
        [b"get", name] if *name == NAME && ctx.shared.cluster.show(out) => {
            return out.bytes(reply::END);
        }
        [b"delete", name] if *name == NAME && ctx.shared.cluster.delete() => {
            log::info!("config delete: the list of nodes is gone");
            reply::DELETED
        }
        [b"delete", _] => reply::NOT_FOUND,
        _ => ErrorLine::Error.line(),
    };
    if !noreply {
        out.bytes(line);
    }
}

/// A list that is coming.
#[derive(Debug)]
pub(super) struct ConfigBody<'c> {
    client_flags: u32,
    add: bool,
    noreply: bool,
    /// Bytes of the value.
    value_len: usize,
    /// What has come of the block.
    bytes: Vec<u8>,
    hold: Hold<'c>,
}

impl<'c> ConfigBody<'c> {
    /// Makes ready for the data block of `set`.
    pub(super) fn begin(ctx: Ctx<'c>, set: &ConfigSet<'_>) -> Result<Self, ErrorLine> {
        let value_len = set.value_len as usize;
        if set.name != NAME {
            return Err(ErrorLine::BadFormat);
        }
        if value_len > CONFIG_LEN_MAX {
            return Err(ErrorLine::TooLarge);
        }
        Ok(ConfigBody {
            client_flags: set.client_flags,
            add: set.add,
            noreply: set.noreply,
            value_len,
            bytes: Vec::new(),
            hold: Hold::new(ctx),
        })
    }

    /// Takes bytes of the block from `input`; when it is complete, keeps the list and answers.
    pub(super) fn feed(
        &mut self,
        ctx: Ctx<'c>,
        input: &[u8],
        out: &mut Output<'c>,
    ) -> (usize, Fed) {
        let left = self.value_len + reply::CRLF.len() - self.bytes.len();
        let part = &input[..input.len().min(left)];
        self.hold.came(ctx, part.len());
        if !self.hold.stage(ctx, part.len()) {
            return (0, Fed::Refused(left as u64, self.refusal()));
        }
        self.bytes.extend_from_slice(part);
        if part.len() < left {
            return (part.len(), Fed::More);
        }
        let line = match self.bytes.strip_suffix(reply::CRLF) {
            None => ErrorLine::BadDataChunk.line(),
            Some(value) if ctx.shared.cluster.set(self.client_flags, value, self.add) => {
                log::info!("config set: a list of nodes, {} bytes", value.len());
                reply::STORED
            }
            Some(_) => reply::NOT_STORED,
        };
        self.answer(line, out);
        (part.len(), Fed::Done)
    }

    /// Ends it, if it holds what others need and does not move: what is left of it, and the answer.
    pub(super) fn give_way(&self) -> Option<(u64, Option<Fault>)> {
        let left = self.value_len + reply::CRLF.len() - self.bytes.len();
        let must_go = self.hold.must_go();
        must_go.then(|| (left as u64, self.refusal()))
    }

    fn refusal(&self) -> Option<Fault> {
        (!self.noreply).then_some(Fault::Line(ErrorLine::OutOfMemoryStoring))
    }

    fn answer(&self, line: &[u8], out: &mut Output<'_>) {
        if !self.noreply {
            out.bytes(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::session::{Next, Session};
    use crate::command::testing::Server;

    const LIST: &str = "12\nnode1.example|10.0.0.1|11211 node2.example|10.0.0.2|11212\n";

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
