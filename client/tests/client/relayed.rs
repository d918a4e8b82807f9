//! A relay of bytes before a server, which can be told to misbehave with the connections that follow its feed, and with those alone.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ketch_client::Node;

/// See the module.
#[derive(Clone)]
pub struct Relayed(Arc<Shared>);

struct Shared {
    port: u16,
    server: u16,
    /// Feeds get nothing.
    is_paused: AtomicBool,
    /// Bytes that feeds get each millisecond; 0 for all.
    trickle: AtomicU32,
    /// Feeds find nobody.
    is_cut: AtomicBool,
    feeds: Mutex<Vec<TcpStream>>,
}

impl Relayed {
    /// Before the server at this port.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let relayed = Relayed(Arc::new(Shared {
            port: listener.local_addr().expect("an address").port(),
            server,
            is_paused: AtomicBool::new(false),
            trickle: AtomicU32::new(0),
            is_cut: AtomicBool::new(false),
            feeds: Mutex::default(),
        }));
        let shared = relayed.0.clone();
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || shared.carry(client));
            }
        });
        relayed
    }

    pub fn node(&self) -> Node {
        Node::new("127.0.0.1", self.0.port)
    }

    pub fn pause(&self, is_paused: bool) {
        self.0.is_paused.store(is_paused, SeqCst);
    }

    pub fn trickle(&self, bytes_a_ms: u32) {
        self.0.trickle.store(bytes_a_ms, SeqCst);
    }

    pub fn cut(&self, is_cut: bool) {
        self.0.is_cut.store(is_cut, SeqCst);
        if is_cut {
            for feed in self.0.feeds.lock().expect("whole").drain(..) {
                let _ = feed.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Shared {
    fn carry(self: Arc<Self>, mut client: TcpStream) -> Option<()> {
        let mut server = TcpStream::connect(("127.0.0.1", self.server)).ok()?;
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let mut buffer = vec![0; 16 << 10];
        let n = client.read(&mut buffer).ok().filter(|n| *n > 0)?;
        let is_feed = buffer.starts_with(b"watch feed");
        if is_feed {
            if self.is_cut.load(SeqCst) {
                return None;
            }
            let mut feeds = self.feeds.lock().expect("whole");
            feeds.extend([client.try_clone().ok()?, server.try_clone().ok()?]);
        }
        server.write_all(&buffer[..n]).ok()?;
        let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        loop {
            let n = server.read(&mut buffer).unwrap_or(0);
            let mut rest = &buffer[..n];
            while is_feed && self.is_paused.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            while is_feed && !rest.is_empty() {
                let trickle = self.trickle.load(SeqCst) as usize;
                if trickle == 0 {
                    break;
                }
                let (some, more) = rest.split_at(trickle.min(rest.len()));
                client.write_all(some).ok()?;
                rest = more;
                thread::sleep(Duration::from_millis(1));
            }
            if n == 0 || client.write_all(rest).is_err() {
                let _ = client.shutdown(Shutdown::Both);
                return None;
            }
        }
    }
}
