//! A node in memory, for the tests of programs that use the client (feature `testing`): no server is needed.
//!
//! It speaks memcached's text and meta commands over a loopback socket, so that both clients, and any other, take it for a real one.
//! Its clock can be moved, it can be cut off, and what it holds can be looked at.
//!
//! ```
//! use std::time::Duration;
//! use ketch_client::{Client, ClientOptions, testing::TestNode};
//!
//! let node = TestNode::start();
//! let client = Client::new([node.node()], ClientOptions::default());
//! client.set("session:7", "ann", 60)?;
//! assert_eq!(node.value("session:7").as_deref(), Some(&b"ann"[..]));
//!
//! node.pass(Duration::from_secs(61));
//! assert_eq!(client.get("session:7")?, None);
//! # Ok::<(), ketch_client::Error>(())
//! ```
//!
//! Several are a cluster, of which one may fail:
//!
//! ```
//! use ketch_client::{Client, ClientOptions, testing::TestNode};
//!
//! let nodes = [TestNode::start(), TestNode::start(), TestNode::start()];
//! let client = Client::new(nodes.iter().map(TestNode::node), ClientOptions::default().copies(2));
//! client.set("k", "v", 60)?;
//! nodes[0].cut_off();
//! assert_eq!(client.get("k")?, Some("v".into()));
//! # Ok::<(), ketch_client::Error>(())
//! ```
//!
//! What it has not: memory limits and evictions, the binary protocol, TLS, logins, UDP. Values have at most 1 MiB, as in memcached.
//!
//! ```text
//!  TestNode --- Shared { store, connections }      store: keys -> items, and what each command does to them
//!      |            ^
//!   listener --> a thread a connection: bytes -> protocol::text -> store -> bytes
//! ```

mod store;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use protocol::{ErrorLine, Fault, GetVerb, Parsed, Request, Skip, text};

use crate::Node;
use store::{Store, VALUE_LEN_MAX};

/// A node in memory: see the [module](self). It ends when it is dropped.
#[derive(Debug)]
pub struct TestNode {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    store: Mutex<Store>,
    state: Mutex<State>,
    /// Commands that were carried out.
    commands: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// By number, so that each can be taken out when it ends.
    connections: HashMap<u64, TcpStream>,
    next: u64,
    cut_off: bool,
    ended: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TestNode {
    /// An empty node on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// If this machine lets no socket be opened there.
    pub fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port on 127.0.0.1 is free");
        let address = socket.local_addr().expect("it is bound");
        let shared = Arc::<Shared>::default();
        let own = shared.clone();
        TestNode {
            address,
            shared,
            listener: Some(thread::spawn(move || own.listen(&socket))),
        }
    }

    /// What names it to a client.
    pub fn node(&self) -> Node {
        Node::new(self.address.ip().to_string(), self.address.port())
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of `key`, if it is there; without counting as a request.
    pub fn value(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        lock(&self.shared.store).value(key.as_ref())
    }

    /// The seconds that `key` has left: `None` if it is not there, and -1 if it lives without end.
    pub fn seconds_left(&self, key: impl AsRef<[u8]>) -> Option<i64> {
        lock(&self.shared.store).seconds_left(key.as_ref())
    }

    /// Its keys, in no order.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        lock(&self.shared.store).keys()
    }

    /// How many commands it has carried out, a key of a `get` counted as one.
    pub fn commands(&self) -> u64 {
        self.shared.commands.load(Ordering::Relaxed)
    }

    /// Lets time pass for it: what has no more left to live is gone.
    pub fn pass(&self, time: Duration) {
        lock(&self.shared.store).pass(time);
    }

    /// Forgets everything, as a restart does.
    pub fn clear(&self) {
        lock(&self.shared.store).clear();
    }

    /// Closes all connections and every new one at once, until [`come_back`](Self::come_back). What it holds stays.
    pub fn cut_off(&self) {
        let mut state = lock(&self.shared.state);
        state.cut_off = true;
        state.hang_up();
    }

    /// Ends [`cut_off`](Self::cut_off).
    pub fn come_back(&self) {
        lock(&self.shared.state).cut_off = false;
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.ended = true;
        state.hang_up();
        drop(state);
        // The listener looks up when somebody comes.
        let reached = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok();
        if let Some(listener) = self.listener.take()
            && reached
        {
            // If it has panicked, so be it: this may be a panic's end itself.
            let _ = listener.join();
        }
    }
}

impl State {
    fn hang_up(&mut self) {
        for (_, connection) in self.connections.drain() {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn listen(self: Arc<Self>, socket: &TcpListener) {
        for connection in socket.incoming() {
            let mut state = lock(&self.state);
            if state.ended {
                return;
            }
            let Ok(connection) = connection else { continue };
            if state.cut_off {
                continue;
            }
            let Ok(other) = connection.try_clone() else {
                continue;
            };
            let number = state.next;
            state.next += 1;
            state.connections.insert(number, other);
            drop(state);
            let shared = self.clone();
            thread::spawn(move || {
                // The peer's end of it is an end like any other.
                let _ = shared.serve(connection);
                lock(&shared.state).connections.remove(&number);
            });
        }
    }

    fn serve(&self, mut peer: TcpStream) -> std::io::Result<()> {
        peer.set_nodelay(true)?;
        let mut session = Session::default();
        let mut room = vec![0; 64 << 10];
        loop {
            let read = match peer.read(&mut room) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            session.input.extend_from_slice(&room[..read]);
            let open = session.answer(self);
            peer.write_all(&session.output)?;
            session.output.clear();
            if !open {
                return Ok(());
            }
        }
    }
}

/// A connection's conversation, without its socket.
#[derive(Debug, Default)]
struct Session {
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes to come that belong to a request that was refused.
    skip: u64,
    /// The rest of the line is skipped.
    skip_line: bool,
    /// In the middle of a list of keys, and whether there was one so far.
    list: Option<(GetVerb, bool)>,
}

impl Session {
    /// Answers what has come; false if the connection ends.
    fn answer(&mut self, shared: &Shared) -> bool {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        let open = loop {
            let skipped = (self.skip.min(rest.len() as u64)) as usize;
            rest = &rest[skipped..];
            self.skip -= skipped as u64;
            if self.skip_line {
                let end = rest.iter().position(|&byte| byte == b'\n');
                rest = end.map_or(&[], |end| &rest[end + 1..]);
                self.skip_line = end.is_none();
            }
            if rest.is_empty() {
                break true;
            }
            let parsed = match self.list {
                Some((verb, any)) => text::parse_keys(verb, any, rest),
                None => text::parse(rest),
            };
            match parsed {
                Parsed::Incomplete => break true,
                Parsed::HangUp => break false,
                Parsed::Invalid {
                    error,
                    quiet,
                    consumed,
                    skip,
                } => {
                    self.list = None;
                    rest = &rest[consumed..];
                    if let (Fault::Line(error), false) = (error, quiet) {
                        self.output.extend_from_slice(error.line());
                    }
                    match skip {
                        Skip::None => {}
                        Skip::Bytes(bytes) => self.skip = bytes,
                        Skip::Line => self.skip_line = true,
                        Skip::All => break false,
                    }
                }
                Parsed::Complete { request, consumed } => {
                    let behind = &rest[consumed..];
                    let mut block = &b""[..];
                    let mut taken = consumed;
                    if let Request::Store(store) = &request {
                        let len = store.block_len();
                        if store.value_len > VALUE_LEN_MAX {
                            lock(&shared.store).refuse(store, &mut self.output);
                            self.skip = len;
                            rest = behind;
                            continue;
                        }
                        let len = len as usize;
                        if behind.len() < len {
                            break true;
                        }
                        if !behind[..len].ends_with(b"\r\n") {
                            self.output
                                .extend_from_slice(ErrorLine::BadDataChunk.line());
                            rest = &behind[len..];
                            self.skip_line = true;
                            continue;
                        }
                        block = &behind[..len - 2];
                        taken += len;
                    }
                    if let Request::ConfigSet(config) = &request {
                        self.output.extend_from_slice(ErrorLine::Error.line());
                        self.skip = config.block_len();
                        rest = behind;
                        continue;
                    }
                    let keys = match &request {
                        Request::Get(get) => get.keys.iter().count() as u64,
                        _ => 1,
                    };
                    let any = keys > 0 || self.list.is_some_and(|(_, any)| any);
                    self.list = match &request {
                        Request::Get(get) if !get.last => Some((get.verb, any)),
                        _ => None,
                    };
                    shared.commands.fetch_add(keys, Ordering::Relaxed);
                    if !lock(&shared.store).execute(&request, block, &mut self.output) {
                        break false;
                    }
                    rest = &rest[taken..];
                }
            }
        };
        self.input = rest.to_vec();
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(pieces: &[&[u8]]) -> String {
        let shared = Shared::default();
        let mut session = Session::default();
        for piece in pieces {
            session.input.extend_from_slice(piece);
            session.answer(&shared);
        }
        String::from_utf8(session.output).expect("text")
    }

    /// As memcached answers, however the bytes come.
    #[test]
    fn commands_and_answers() {
        for (request, answer) in [
            (
                "set k 3 0 1\r\nv\r\nget k x\r\n",
                "STORED\r\nVALUE k 3 1\r\nv\r\nEND\r\n",
            ),
            ("gets k\r\n", "END\r\n"),
            (
                "add k 0 0 1\r\n1\r\nadd k 0 0 1\r\n2\r\nincr k 4\r\n",
                "STORED\r\nNOT_STORED\r\n5\r\n",
            ),
            (
                "decr k 1\r\ntouch k 1\r\ndelete k\r\n",
                "NOT_FOUND\r\nNOT_FOUND\r\nNOT_FOUND\r\n",
            ),
            (
                "set k 0 0 1 noreply\r\nv\r\nappend k 0 0 1\r\nw\r\nprepend k 0 0 1\r\nu\r\nget k\r\n",
                "STORED\r\nSTORED\r\nVALUE k 0 3\r\nuvw\r\nEND\r\n",
            ),
            (
                "set k 0 0 1\r\nv\r\ngets k\r\ncas k 0 0 1 1\r\nw\r\ncas k 0 0 1 1\r\nx\r\ncas j 0 0 1 1\r\nx\r\n",
                "STORED\r\nVALUE k 0 1 1\r\nv\r\nEND\r\nSTORED\r\nEXISTS\r\nNOT_FOUND\r\n",
            ),
            ("set k 0 -1 1\r\nv\r\nget k\r\n", "STORED\r\nEND\r\n"),
            (
                "set k 0 0 1\r\nv\r\nflush_all\r\nget k\r\nversion\r\n",
                "STORED\r\nOK\r\nEND\r\nVERSION 1.6.45\r\n",
            ),
            (
                "set k 0 0 1\r\nv\r\nincr k 1\r\n",
                "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
            ),
            ("nonsense\r\nmn\r\n", "ERROR\r\nMN\r\n"),
            (
                "set k 0 0 1\r\nvvv\r\nmn\r\n",
                "CLIENT_ERROR bad data chunk\r\nMN\r\n",
            ),
            // Meta.
            ("mg k v\r\nmg k v q\r\nmn\r\n", "EN\r\nMN\r\n"),
            (
                "ms k 1 F7 T60 c Oab k\r\nv\r\nmg k v f t s c k Oab\r\n",
                "HD c1 Oab kk\r\nVA 1 f7 t60 s1 c1 kk Oab\r\nv\r\n",
            ),
            (
                "ms k 1 ME\r\nv\r\nms k 1 ME\r\nw\r\nms j 1 MR\r\nw\r\n",
                "HD\r\nNS\r\nNS\r\n",
            ),
            (
                "ms k 1 E9\r\nv\r\nms k 1 C8\r\nw\r\nms k 1 C9\r\nw\r\n",
                "HD\r\nEX\r\nHD\r\n",
            ),
            (
                "ms azE= 1 b\r\nv\r\nmg k1 v\r\nmg azE= k b\r\n",
                "HD\r\nVA 1\r\nv\r\nHD kazE= b\r\n",
            ),
            (
                "ms k 1 I\r\nv\r\nmd k C7\r\nmd k q\r\nmd k q\r\nmn\r\n",
                "HD\r\nEX\r\nMN\r\n",
            ),
            (
                "ma k\r\nma k N0 J5 v\r\nma k D3 MD v t\r\nma k q\r\n",
                "NF\r\nVA 1\r\n5\r\nVA 1 t-1\r\n2\r\n",
            ),
            // The lease: won once, lost by others, over with the next store.
            (
                "mg k v N30 t\r\nmg k v N30\r\nms k 1\r\nv\r\nmg k v N30\r\n",
                "VA 0 t30 W\r\n\r\nVA 0 Z\r\n\r\nHD\r\nVA 1\r\nv\r\n",
            ),
            (
                "ms k 1 T10\r\nv\r\nmg k R9\r\nmg k R20\r\nmg k R20\r\n",
                "HD\r\nHD\r\nHD W\r\nHD Z\r\n",
            ),
            (
                "ms k 1\r\nv\r\nmd k I T30\r\nmg k v t\r\nmg k\r\n",
                "HD\r\nHD\r\nVA 1 t30 X W\r\nv\r\nHD Z X\r\n",
            ),
        ] {
            let whole = talk(&[request.as_bytes()]);
            assert_eq!(whole, answer, "{request:?}");
            let bytes: Vec<&[u8]> = request.as_bytes().chunks(1).collect();
            assert_eq!(talk(&bytes), answer, "{request:?} byte by byte");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_and_what_was_there_is_gone() {
        let large = "x".repeat(VALUE_LEN_MAX as usize + 1);
        let request = format!(
            "set k 0 0 1\r\nv\r\nms k {} T0\r\n{large}\r\nmg k\r\n",
            large.len()
        );
        let answer = "STORED\r\nSERVER_ERROR object too large for cache\r\nEN\r\n";
        assert_eq!(talk(&[request.as_bytes()]), answer);
    }
}
