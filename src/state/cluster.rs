//! The list of a cluster's nodes, kept for clients that ask one node for all the others. The server knows nothing of what is
//! in it.
//!
//! Cl1. The list is whole: it changes when the last byte of a new one is there, for all connections at once.
//! Cl2. It is outside of item memory: no eviction, no `flush_all`. It has [`CONFIG_LEN_MAX`] bytes at most.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

/// The longest list, in bytes: some hundred nodes with names of a hosted service.
pub const CONFIG_LEN_MAX: usize = 32 << 10;
/// The list, if there is one.
#[derive(Debug, Default)]
pub struct ClusterConfig {
    list: RwLock<Option<NodeList>>,
    /// Of the ring that the server has joined, if it has.
    pub ring: RingFigures,
}

/// What is known of the ring.
#[derive(Debug, Default)]
pub struct RingFigures {
    /// How many there are in it.
    pub members: AtomicU64,
    /// It stays as it is: the engine is away, or tells of nobody.
    pub frozen: AtomicBool,
    /// The server's own weight in it; 0 while it stands by.
    pub weight: AtomicU64,
    /// Takes what an operator wants of the server's place in it, if it has one.
    pub place: OnceLock<Place>,
}

/// What an operator wants of the server's place in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceOrder {
    /// Hold no keys, but stay.
    Leave,
    /// Hold keys, with this weight or its own.
    Join(Option<u32>),
}

/// Whoever carries out a [`PlaceOrder`].
pub struct Place(pub Box<dyn Fn(PlaceOrder) + Send + Sync>);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

/// A list of nodes, as it came.
#[derive(Debug)]
pub struct NodeList {
    /// Opaque to the server.
    pub client_flags: u32,
    /// The list itself.
    pub bytes: Box<[u8]>,
}

impl ClusterConfig {
    /// Takes a list. With `add` only if there is none: false then.
    pub fn set(&self, client_flags: u32, bytes: &[u8], add: bool) -> bool {
        let value = NodeList {
            client_flags,
            bytes: bytes.into(),
        };
        let mut held = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if add && held.is_some() {
            return false;
        }
        *held = Some(value);
        true
    }

    /// Forgets the list; false if there was none.
    pub fn delete(&self) -> bool {
        let mut held = self.list.write().unwrap_or_else(PoisonError::into_inner);
        held.take().is_some()
    }

    /// The list, if there is one. It does not change while it is looked at.
    pub fn read(&self) -> RwLockReadGuard<'_, Option<NodeList>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }
}
