//! The ways to reach the threads of this room, and what is told them.

use std::sync::Arc;

use crossbeam::channel::Sender;
use mio::Waker;

use super::carried::Carried;
use super::stream::Stream;
use crate::settings::WireProtocol;
use crate::state::{ConnId, ConnInfo};

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A new connection.
    Serve(Stream, Arc<ConnInfo>, WireProtocol),
    /// A connection of another process, to go on with.
    GoOn(Carried),
    /// To give this connection a turn: what it waits for has come.
    Wake(ConnId),
    /// Data blocks that do not move are to give back what they hold.
    GiveWay,
    /// To end.
    Stop,
    /// To end, and to leave the connections to another process.
    Leave,
}

/// The way to reach a worker.
#[derive(Debug, Clone)]
pub struct Handle {
    sender: Sender<Message>,
    waker: Arc<Waker>,
}

impl Handle {
    pub(super) fn new(sender: Sender<Message>, waker: Arc<Waker>) -> Self {
        Handle { sender, waker }
    }

    /// Tells the worker something, and wakes it.
    pub(super) fn send(&self, message: Message) {
        // A worker that has ended needs no message.
        if self.sender.send(message).is_ok() {
            let _ = self.waker.wake();
        }
    }

    /// Ends the worker, which leaves its connections: [`Worker::run`](super::Worker::run) gives them.
    pub fn leave(&self) {
        self.send(Message::Leave);
    }

    /// Gives the worker a connection of another process.
    pub fn go_on(&self, carried: Carried) {
        self.send(Message::GoOn(carried));
    }

    /// Ends the worker: what it is doing is finished, and replies that its peers take are sent.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }
}

/// The way to wake the thread that accepts.
#[derive(Debug, Clone)]
pub struct ListenerHandle(Arc<Waker>);

impl ListenerHandle {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        ListenerHandle(waker)
    }

    /// Lets it look again whether to accept or to end.
    pub fn wake(&self) {
        // It fails only when the thread has ended.
        let _ = self.0.wake();
    }
}
