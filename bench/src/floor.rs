//! The server that does nothing: reads requests, looks at none, answers each with the same bytes.
//!
//! What it reaches is what sockets and epoll allow on this machine; no cache is faster. All requests
//! of a workload with one size of keys and values have the same length, so counting bytes counts
//! requests. Replies are canned: their key and value are those of id 0, which is why the load has to
//! run `--unchecked` against it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::conn::Target;
use crate::dataset::Dataset;
use crate::dialect::{Dialect, GETKQ, NOOP, SET, retrieve, store};
use crate::run::Plan;
use crate::sizes::Sizes;
use crate::workload::Workload;

const LISTENER: Token = Token(usize::MAX);

/// A request's length and its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canned {
    request_len: usize,
    reply: Vec<u8>,
}

impl Canned {
    /// For a workload whose requests are all of one length.
    pub fn new(workload: &Workload, data: &Dataset) -> Result<Self, String> {
        if !matches!(data.sizes(), Sizes::Fixed(_)) {
            return Err("floor needs one size of values".to_owned());
        }
        let (mut request, mut reply) = (Vec::new(), Vec::new());
        if workload.writes >= 1.0 {
            store(workload.dialect, data, 0, &mut request);
            match workload.dialect {
                Dialect::Text => reply.extend_from_slice(b"STORED\r\n"),
                Dialect::Meta => reply.extend_from_slice(b"HD\r\n"),
                Dialect::Binary => packet(SET, &[], &[], &[], &mut reply),
            }
        } else if workload.writes > 0.0 {
            return Err("floor answers reads or stores, not a mixture".to_owned());
        } else {
            let ids = vec![0; workload.multi];
            retrieve(workload.dialect, data, &ids, &mut request);
            let (mut key, mut value) = (Vec::new(), Vec::new());
            data.key_into(0, &mut key);
            data.value_into(0, &mut value);
            for _ in 0..workload.multi {
                match workload.dialect {
                    Dialect::Text => reply.extend_from_slice(b"VALUE "),
                    Dialect::Meta => {
                        reply.extend_from_slice(format!("VA {} k", value.len()).as_bytes())
                    }
                    Dialect::Binary => packet(GETKQ, &[0; 4], &key, &value, &mut reply),
                }
                if workload.dialect != Dialect::Binary {
                    reply.extend_from_slice(&key);
                    if workload.dialect == Dialect::Text {
                        reply.extend_from_slice(format!(" 0 {}", value.len()).as_bytes());
                    }
                    reply.extend_from_slice(b"\r\n");
                    reply.extend_from_slice(&value);
                    reply.extend_from_slice(b"\r\n");
                }
            }
            match workload.dialect {
                Dialect::Text => reply.extend_from_slice(b"END\r\n"),
                Dialect::Meta if workload.multi > 1 => reply.extend_from_slice(b"MN\r\n"),
                Dialect::Meta => {}
                Dialect::Binary => packet(NOOP, &[], &[], &[], &mut reply),
            }
        }
        Ok(Canned {
            request_len: request.len(),
            reply,
        })
    }
}

fn packet(opcode: u8, extras: &[u8], key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let body = extras.len() + key.len() + value.len();
    let mut head = [0; 24];
    head[..2].copy_from_slice(&[0x81, opcode]);
    head[2..4].copy_from_slice(&(key.len() as u16).to_be_bytes());
    head[4] = extras.len() as u8;
    head[8..12].copy_from_slice(&(body as u32).to_be_bytes());
    out.extend([&head[..], extras, key, value].concat());
}

struct Peer {
    stream: TcpStream,
    /// Bytes of a request that is not complete.
    partial: usize,
    /// Replies owed.
    owed: usize,
    /// Bytes of the first of them that are sent.
    sent: usize,
}

/// A server with its socket bound.
#[derive(Debug)]
pub struct Floor {
    listener: TcpListener,
    canned: Canned,
}

impl Floor {
    /// Binds the first server address of `plan`.
    pub fn bind(plan: &Plan) -> Result<Self, String> {
        let canned = Canned::new(&plan.workload, &plan.data)?;
        let Target::Tcp(addr) = plan.targets[0] else {
            return Err("floor listens on TCP only".to_owned());
        };
        let listener = TcpListener::bind(addr).map_err(|error| format!("{addr}: {error}"))?;
        Ok(Floor { listener, canned })
    }

    /// Where it listens.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process is ended.
    pub fn serve(mut self) -> io::Result<()> {
        let mut poll = Poll::new()?;
        poll.registry()
            .register(&mut self.listener, LISTENER, Interest::READABLE)?;
        let mut events = Events::with_capacity(256);
        let mut peers: Vec<Option<Peer>> = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        // Whole replies in a row, so that many go out in one write.
        let row = (256 * 1024 / self.canned.reply.len()).clamp(1, 64);
        let replies = self.canned.reply.repeat(row);
        loop {
            poll.poll(&mut events, None)?;
            for event in &events {
                if event.token() == LISTENER {
                    while let Ok((mut stream, _)) = self.listener.accept() {
                        stream.set_nodelay(true)?;
                        let both = Interest::READABLE | Interest::WRITABLE;
                        poll.registry()
                            .register(&mut stream, Token(peers.len()), both)?;
                        peers.push(Some(Peer {
                            stream,
                            partial: 0,
                            owed: 0,
                            sent: 0,
                        }));
                    }
                    continue;
                }
                let at = event.token().0;
                if let Some(peer) = &mut peers[at]
                    && peer.turn(&self.canned, &replies, &mut buffer).is_err()
                {
                    peers[at] = None;
                }
            }
        }
    }
}

impl Peer {
    fn turn(&mut self, canned: &Canned, replies: &[u8], buffer: &mut [u8]) -> io::Result<()> {
        loop {
            self.pay(canned, replies)?;
            let n = match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.partial += n;
            self.owed += self.partial / canned.request_len;
            self.partial %= canned.request_len;
            if n < buffer.len() {
                return self.pay(canned, replies);
            }
        }
    }

    /// Sends what is owed, as far as the socket takes it.
    fn pay(&mut self, canned: &Canned, replies: &[u8]) -> io::Result<()> {
        let len = canned.reply.len();
        while self.owed > 0 {
            let whole = (self.owed * len).min(replies.len());
            match self.stream.write(&replies[self.sent..whole]) {
                Ok(n) => {
                    self.sent += n;
                    self.owed -= self.sent / len;
                    self.sent %= len;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Checker, Tally};

    /// The canned reply is one that the checker takes for the request.
    #[test]
    fn canned_replies_are_replies() {
        let data = Dataset::new(10, 8, Sizes::Fixed(20)).expect("lengths fit");
        for (name, multi) in [
            ("get", 1),
            ("mget", 5),
            ("mg", 1),
            ("mg", 5),
            ("getkq", 5),
            ("set", 1),
            ("ms", 1),
            ("bset", 1),
        ] {
            let workload = Workload {
                multi,
                ..Workload::named(name).expect("a known name")
            };
            let canned = Canned::new(&workload, &data).expect("one size");
            let mut checker = Checker::new(workload.dialect, false);
            if workload.writes > 0.0 {
                checker.expect_store(0);
            } else {
                (0..multi).for_each(|_| checker.expect_key(0));
                checker.expect_end(multi > 1 || workload.dialect == Dialect::Binary);
            }
            let mut tally = Tally::default();
            checker
                .feed(&canned.reply, &data, &mut tally)
                .expect("it is a reply");
            assert_eq!(
                (checker.outstanding(), tally.errors(), tally.keys),
                (0, 0, multi as u64)
            );
        }
        let mixed = Workload::named("mixed").expect("a known name");
        assert!(Canned::new(&mixed, &data).is_err());
    }
}
