//! A load generator for one server on this machine, in one file without dependencies, so that
//! `rustc -O` builds it in seconds and it costs little beside the server that it measures.
//!
//! ```text
//! load PORT MODE [MILLISECONDS [CONNECTIONS [THREADS]]]     prints: operations seconds
//! ```
//!
//! MODE is `fill`, which stores every key once, or one of
//!
//! ```text
//! get1   get K                      one key, one reply, then the next
//! get30  get K, 30 times            pipelined in one write
//! mget50 get K K K ..               50 keys in one command
//! set1   set K 0 0 100              set30: 30 of them pipelined in one write
//! ```
//!
//! Keys are 100 000, of 12 bytes, drawn uniformly; values have 100 bytes. An operation is a key.
//! Each thread goes round its connections: it reads the whole answer of one, sends the next batch
//! there and goes on to the next connection, so all the others are in flight meanwhile. Every key
//! is there and every reply has a known length, so an answer is complete after so many bytes, and
//! a wrong one (a miss, an error) shows in its last bytes or never arrives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::exit;
use std::time::{Duration, Instant};

const KEYS: u64 = 100_000;
const VALUE_LEN: usize = 100;
/// "key:" and 8 digits.
const KEY_LEN: usize = 12;

/// What one batch looks like on the wire.
#[derive(Clone, Copy)]
struct Mode {
    store: bool,
    commands: usize,
    keys_per_command: usize,
}

impl Mode {
    fn named(name: &str) -> Option<Mode> {
        let (store, commands, keys_per_command) = match name {
            "get1" => (false, 1, 1),
            "get30" => (false, 30, 1),
            "mget50" => (false, 1, 50),
            "set1" => (true, 1, 1),
            "set30" => (true, 30, 1),
            _ => return None,
        };
        Some(Mode {
            store,
            commands,
            keys_per_command,
        })
    }

    fn operations(&self) -> u64 {
        (self.commands * self.keys_per_command) as u64
    }

    /// The request with every key as key 0, and where in it the digits of the keys start.
    fn request(&self) -> (Vec<u8>, Vec<usize>) {
        let (mut request, mut digits) = (Vec::new(), Vec::new());
        for _ in 0..self.commands {
            request.extend_from_slice(if self.store { b"set" } else { b"get" });
            for _ in 0..self.keys_per_command {
                request.extend_from_slice(b" key:");
                digits.push(request.len());
                request.extend_from_slice(b"00000000");
            }
            if self.store {
                request.extend_from_slice(format!(" 0 0 {VALUE_LEN}\r\n").as_bytes());
                request.extend_from_slice(&[b'v'; VALUE_LEN]);
            }
            request.extend_from_slice(b"\r\n");
        }
        (request, digits)
    }

    /// The length of a command's reply.
    fn reply_len(&self) -> usize {
        if self.store {
            return "STORED\r\n".len();
        }
        let head = "VALUE ".len() + KEY_LEN + format!(" 0 {VALUE_LEN}\r\n").len();
        self.keys_per_command * (head + VALUE_LEN + 2) + "END\r\n".len()
    }

    fn check(&self, answer: &[u8]) {
        let end: &[u8] = if self.store {
            b"STORED\r\n"
        } else {
            b"\r\nEND\r\n"
        };
        for reply in answer.chunks(self.reply_len()) {
            if !reply.ends_with(end) {
                fail(&format!(
                    "an answer that is none: {:?}",
                    String::from_utf8_lossy(reply)
                ));
            }
        }
    }
}

fn fail(why: &str) -> ! {
    eprintln!("load: {why}");
    exit(1)
}

fn connect(port: u16) -> TcpStream {
    let peer = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| fail(&e.to_string()));
    peer.set_nodelay(true)
        .expect("a fresh socket takes options");
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .expect("the duration is not zero");
    peer
}

fn send(peer: &mut TcpStream, bytes: &[u8]) {
    peer.write_all(bytes)
        .unwrap_or_else(|e| fail(&format!("writing: {e}")));
}

fn receive(peer: &mut TcpStream, answer: &mut [u8]) {
    let mut filled = 0;
    while filled < answer.len() {
        match peer.read(&mut answer[filled..]) {
            Ok(0) => fail("the server hung up"),
            Ok(n) => filled += n,
            Err(e) => fail(&format!(
                "{e} after {:?}",
                String::from_utf8_lossy(&answer[..filled.min(200)])
            )),
        }
    }
}

fn write_digits(at: &mut [u8], mut number: u64) {
    for digit in at.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// xorshift64*: keys need to be spread, not unpredictable.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) * limit) >> 32
    }
}

fn fill(port: u16) -> u64 {
    let mode = Mode {
        store: true,
        commands: 100,
        keys_per_command: 1,
    };
    let (mut request, digits) = mode.request();
    let mut answer = vec![0; mode.commands * mode.reply_len()];
    let mut peer = connect(port);
    for first in (0..KEYS).step_by(mode.commands) {
        for (i, &at) in digits.iter().enumerate() {
            write_digits(&mut request[at..at + 8], first + i as u64);
        }
        send(&mut peer, &request);
        receive(&mut peer, &mut answer);
        mode.check(&answer);
    }
    KEYS
}

/// One thread's share; ends with the first answer after `end`, and returns its operations.
fn drive(port: u16, mode: Mode, connections: usize, end: Instant, seed: u64) -> u64 {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (mut request, digits) = mode.request();
    let mut answer = vec![0; mode.commands * mode.reply_len()];
    let mut peers: Vec<TcpStream> = (0..connections).map(|_| connect(port)).collect();
    let mut send_batch = |peer: &mut TcpStream| {
        for &at in &digits {
            write_digits(&mut request[at..at + 8], random.below(KEYS));
        }
        send(peer, &request);
    };
    peers.iter_mut().for_each(&mut send_batch);
    let mut operations = 0;
    while Instant::now() < end {
        for peer in &mut peers {
            receive(peer, &mut answer);
            mode.check(&answer);
            operations += mode.operations();
            send_batch(peer);
        }
    }
    for peer in &mut peers {
        receive(peer, &mut answer);
        operations += mode.operations();
    }
    operations
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| match words.get(at) {
        Some(word) => word
            .parse()
            .unwrap_or_else(|_| fail(&format!("{word} is no number"))),
        None => default,
    };
    let (Some(mode), port) = (words.get(1), number(0, 0) as u16) else {
        fail("usage: load PORT MODE [MILLISECONDS [CONNECTIONS [THREADS]]]")
    };
    let started = Instant::now();
    let operations = if mode == "fill" {
        fill(port)
    } else {
        let mode = Mode::named(mode).unwrap_or_else(|| fail(&format!("no mode {mode}")));
        let (milliseconds, connections, threads) = (number(2, 2000), number(3, 16), number(4, 1));
        let end = started + Duration::from_millis(milliseconds);
        let share = connections.div_ceil(threads) as usize;
        let threads: Vec<_> = (0..threads)
            .map(|i| std::thread::spawn(move || drive(port, mode, share, end, i + 1)))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| exit(1)))
            .sum()
    };
    println!("{operations} {:.6}", started.elapsed().as_secs_f64());
}
