//! The open connections, as `stats conns` shows them and as the limit `-c` counts them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::stats::shared_counts;

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
    /// Watches what happens.
    Watch = 6,
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
            ConnState::Watch => "conn_watch",
        }
    }
}

/// Names a connection of a worker to other threads, as long as it lasts and never afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnId {
    /// Where its worker keeps it; others are kept there later.
    pub slot: usize,
    /// Tells it from those.
    pub generation: u32,
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
            ConnState::Watch,
        ];
        states[usize::from(self.state.load(Relaxed))]
    }

    /// Notes what it is doing.
    pub fn set_state(&self, state: ConnState) {
        self.state.store(state as u8, Relaxed);
    }
}

shared_counts! {
    /// What is counted of the connections.
    ConnCounts, ConnNumbers {
        curr_connections: kept,
        total_connections: reset,
        rejected_connections: reset,
        listen_disabled_num: reset,
        time_in_listen_disabled_us: reset,
        /// 1 while clients are accepted.
        accepting_conns: kept,
        /// Bytes of input kept for connections in the middle of a command.
        read_buf_bytes: kept,
        /// Connections that have such bytes.
        read_buf_count: kept,
        /// Bytes of replies kept for peers that do not take them.
        reply_bytes: kept,
    }
}

/// All connections and their counts.
#[derive(Debug, Default)]
pub struct Registry {
    open: Mutex<BTreeMap<i32, Arc<ConnInfo>>>,
    /// The counts.
    pub counts: ConnCounts,
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
        let change = |count: &AtomicU64, before: usize, after: usize| {
            count.fetch_add((after as u64).wrapping_sub(before as u64), Relaxed);
        };
        let (counts, has_input) = (&self.counts, |kept: Kept| usize::from(kept.input > 0));
        change(&counts.read_buf_bytes, before.input, after.input);
        change(&counts.read_buf_count, has_input(before), has_input(after));
        change(&counts.reply_bytes, before.replies, after.replies);
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
