//! A server without sockets: real commands over a real, small store, whose clock stands still until it is told.

use ketch::cache::{At, Maintainer};
use ketch::command::{Next, Output, Session};
use ketch::settings::{self, Settings, Start};
use ketch::state::Shared;

/// Settings for the words of a command line that must be right.
pub fn settings(line: &str) -> Settings {
    let words = line.split_whitespace().map(str::to_owned);
    match settings::parse(words, &|_| None, None) {
        Ok(Start::Run(settings)) => *settings,
        Ok(Start::Print(_)) | Err(_) => panic!("{line}: no settings"),
    }
}

/// The server.
pub fn server(line: &str) -> Shared {
    let settings = settings(line);
    let cache = ketch::server::cache(&settings).expect("memory");
    let shared = Shared::new(settings, cache, |_| {});
    shared.clock.pause(true);
    shared
}

/// One client: what it sent and the server has not read, and the replies that it has not taken.
pub struct Client<'c> {
    session: Session<'c>,
    unread: Vec<u8>,
    out: Output<'c>,
    /// All replies taken so far.
    pub replies: Vec<u8>,
    /// The server has closed the connection.
    pub closed: bool,
}

impl Default for Client<'_> {
    fn default() -> Self {
        Client {
            session: Session::new(),
            unread: Vec::new(),
            out: Output::new(),
            replies: Vec::new(),
            closed: false,
        }
    }
}

impl<'c> Client<'c> {
    /// Sends bytes; in the middle of a value they go straight to where it lies, as a socket's do.
    pub fn send(&mut self, mut bytes: &[u8]) {
        if self.unread.is_empty()
            && let Some(room) = self.session.spare()
        {
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            self.session.advance(n);
            bytes = &bytes[n..];
        }
        self.unread.extend_from_slice(bytes);
    }

    /// One turn of the server for this client, of so many commands. True if it has more to do without any input.
    pub fn turn(&mut self, shared: &'c Shared, worker: usize, commands: u32) -> bool {
        if self.closed {
            return false;
        }
        let mut budget = commands;
        let drive =
            self.session
                .drive(shared.ctx(worker), &self.unread, &mut budget, &mut self.out);
        assert!(drive.consumed <= self.unread.len(), "more taken than came");
        self.unread.drain(..drive.consumed);
        match drive.next {
            Next::Close | Next::HangUp => {
                self.closed = true;
                false
            }
            Next::Read => false,
            Next::Place => false,
            _ => true,
        }
    }

    /// Takes up to `most` bytes of the replies.
    pub fn take(&mut self, most: usize) {
        let mut slices = Vec::new();
        self.out.slices(&mut slices);
        let mut taken = 0;
        for slice in slices {
            let n = slice.len().min(most - taken);
            self.replies.extend_from_slice(&slice[..n]);
            taken += n;
        }
        self.out.advance(taken);
    }

    /// Has the server give up the data block that is coming in, as it does for want of memory.
    pub fn give_way(&mut self, shared: &'c Shared, worker: usize) {
        self.session.give_way(shared.ctx(worker));
    }

    /// Turns and takes until nothing is left to do. A client that never ends is a fault.
    pub fn settle(&mut self, shared: &'c Shared, worker: usize) {
        for _ in 0..100_000 {
            let more = self.turn(shared, worker, 64);
            let held = !self.out.is_empty();
            self.take(usize::MAX);
            if !more && !held {
                return;
            }
        }
        panic!("a client that never ends");
    }
}

/// Ten steps a second of the background work, as the server's thread does them.
#[derive(Default)]
pub struct Background(Maintainer);

impl Background {
    /// One step.
    pub fn step(&mut self, shared: &Shared) {
        let now = shared.clock.now();
        self.0.step(&shared.cache, At::new(now));
    }
}
