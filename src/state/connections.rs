//! The open connections, as `stats conns` shows them and as the limit `-c` counts them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnState {
    /// Accepts clients.
    Listening = 0,
    /// Waits for a command.
    Read = 1,
    /// Waits for a body.
    Nread = 2,
    /// Waits for its peer to take replies.
    Write = 3,
    /// Waits for its peer to close.
    Closing = 4,
    /// Has its commands executed.
    Parse = 5,
}

impl ConnState {
    /// memcached's name of it.
    pub fn name(self) -> &'static str {
        match self {
            ConnState::Listening => "conn_listening",
            ConnState::Read => "conn_read",
            ConnState::Nread => "conn_nread",
            ConnState::Write => "conn_mwrite",
            ConnState::Closing => "conn_closing",
            ConnState::Parse => "conn_parse_cmd",
        }
    }
}

/// One connection or listener.
#[derive(Debug)]
pub struct ConnInfo {
    /// File descriptor.
    pub fd: i32,
    /// The peer, as `tcp:ip:port` or `unix:path`.
    pub addr: Box<str>,
    /// The listener it came from.
    pub listen_addr: Arc<str>,
    state: AtomicU8,
    /// The second of the last command.
    pub last_command: AtomicU32,
}

impl ConnInfo {
    /// A connection that has just come in.
    pub fn new(fd: i32, addr: Box<str>, listen_addr: Arc<str>, state: ConnState, now: u32) -> Self {
        let (state, last_command) = (AtomicU8::new(state as u8), AtomicU32::new(now));
        ConnInfo {
            fd,
            addr,
            listen_addr,
            state,
            last_command,
        }
    }

    /// What it is doing.
    pub fn state(&self) -> ConnState {
        let states = [
            ConnState::Listening,
            ConnState::Read,
            ConnState::Nread,
            ConnState::Write,
            ConnState::Closing,
            ConnState::Parse,
        ];
        states[usize::from(self.state.load(Relaxed))]
    }

    /// Notes what it is doing.
    pub fn set_state(&self, state: ConnState) {
        self.state.store(state as u8, Relaxed);
    }
}

/// All connections and their counts.
#[derive(Debug, Default)]
#[allow(
    missing_docs,
    reason = "the counts are the `stats` keys of their names"
)]
pub struct Registry {
    open: Mutex<BTreeMap<i32, Arc<ConnInfo>>>,
    pub curr_connections: AtomicUsize,
    pub total_connections: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub listen_disabled_num: AtomicU64,
    pub time_in_listen_disabled_us: AtomicU64,
    pub accepting_conns: AtomicUsize,
    /// Bytes of input kept for connections in the middle of a command.
    pub read_buf_bytes: AtomicUsize,
    /// Connections that have such bytes.
    pub read_buf_count: AtomicUsize,
    /// Bytes of replies kept for peers that do not take them.
    pub reply_bytes: AtomicUsize,
}

/// Bytes that one connection keeps from one turn to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of input.
    pub input: usize,
    /// Of replies.
    pub replies: usize,
}

impl Registry {
    /// Adds a connection or listener.
    pub fn add(&self, info: Arc<ConnInfo>) {
        self.open.lock().insert(info.fd, info);
    }

    /// Takes a connection out.
    pub fn remove(&self, info: &Arc<ConnInfo>) {
        let mut open = self.open.lock();
        // The descriptor may have been given out again already.
        if open
            .get(&info.fd)
            .is_some_and(|known| Arc::ptr_eq(known, info))
        {
            open.remove(&info.fd);
        }
    }

    /// Counts a change of what one connection keeps.
    #[inline]
    pub fn count_kept(&self, before: Kept, after: Kept) {
        if before == after {
            return;
        }
        let change = |count: &AtomicUsize, before: usize, after: usize| {
            count.fetch_add(after.wrapping_sub(before), Relaxed);
        };
        change(&self.read_buf_bytes, before.input, after.input);
        change(
            &self.read_buf_count,
            usize::from(before.input > 0),
            usize::from(after.input > 0),
        );
        change(&self.reply_bytes, before.replies, after.replies);
    }

    /// The next `count` of them by descriptor, from `first` on.
    pub fn list_from(&self, first: usize, count: usize) -> Vec<Arc<ConnInfo>> {
        let Ok(first) = i32::try_from(first) else {
            return Vec::new();
        };
        let open = self.open.lock();
        open.range(first..)
            .take(count)
            .map(|(_, info)| info.clone())
            .collect()
    }
}
