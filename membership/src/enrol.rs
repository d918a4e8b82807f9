//! A member that stays in the list for as long as its program runs.
//!
//! ```text
//!  register --> keep, every third of the lease --the lease is gone--> register
//!     |  |- not reached: again, ever slower up to a second
//!     |  '- an order: register as it says
//!     '- told to end: say goodbye, end
//! ```

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Engine, Error, Member, Registry};

/// The first and the longest pause after an error.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Keeps a member registered; dropping it says goodbye for it.
#[derive(Debug)]
pub struct Enrolment {
    told: Sender<Told>,
    thread: Option<JoinHandle<()>>,
}

/// What an operator wants of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Hold no keys, but stay: clients move to others, and what is held can still be read.
    Leave,
    /// Hold keys, with this weight or the one it was begun with (1 if that is 0).
    Join(Option<u32>),
}

/// Gives orders to an enrolment. After the enrolment's end nobody takes them.
#[derive(Debug, Clone)]
pub struct Orders(Sender<Told>);

#[derive(Debug)]
enum Told {
    Order(Order),
    End,
}

impl Orders {
    /// The member is registered anew, as the order says, as soon as the engine can be reached.
    pub fn give(&self, order: Order) {
        // Where nobody takes it, the server is about to end.
        let _ = self.0.send(Told::Order(order));
    }
}

impl Order {
    /// The member that it makes of one that was begun as `configured`.
    pub fn apply(self, configured: &Member) -> Member {
        let (leaving, weight) = match self {
            Order::Leave => (true, configured.weight),
            Order::Join(weight) => (false, weight.unwrap_or(configured.weight.max(1))),
        };
        Member {
            leaving,
            weight,
            ..configured.clone()
        }
    }
}

impl Enrolment {
    /// Registers `member` from a thread, and keeps it there under a lease of `lease`: that long after the program was killed
    /// the others know. An engine that is not there yet is waited for.
    pub fn begin(registry: Registry, member: Member, lease: Duration) -> io::Result<Self> {
        let (sender, told) = mpsc::channel::<Told>();
        let thread = thread::Builder::new().name("ketch-enrol".to_owned());
        let thread = thread.spawn(move || {
            let Registry {
                mut engine, url, ..
            } = registry;
            let engine = &mut *engine;
            let configured = member;
            let mut member = configured.clone();
            let mut is_in = false;
            let mut pause = Duration::ZERO;
            let mut complaint = String::new();
            loop {
                match told.recv_timeout(pause) {
                    Ok(Told::Order(order)) => {
                        member = order.apply(&configured);
                        is_in = false;
                        pause = Duration::ZERO;
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => break,
                }
                match stay(engine, &member, lease, &mut is_in) {
                    Ok(registered) => {
                        if registered {
                            let how = if member.holds_keys() {
                                ""
                            } else {
                                ", without keys"
                            };
                            log::info!("{url}: registered as {member}{how}");
                        }
                        complaint.clear();
                        pause = lease / 3;
                    }
                    Err(error) => {
                        let error = error.to_string();
                        // An engine that is away is one line in the log.
                        if error != complaint {
                            log::warn!("{url}: cannot register {member}: {error}");
                            complaint = error;
                        }
                        pause = (pause * 2).clamp(PAUSES.0, PAUSES.1).min(lease / 3);
                    }
                }
            }
            let goodbye = Member {
                leaving: true,
                ..member
            };
            if let Err(error) = engine.leave(&goodbye) {
                log::warn!("{url}: {goodbye} cannot say goodbye, and ends with its lease: {error}");
            }
        })?;
        Ok(Enrolment {
            told: sender,
            thread: Some(thread),
        })
    }

    /// What gives orders to it.
    pub fn orders(&self) -> Orders {
        Orders(self.told.clone())
    }
}

/// Renews the lease, or registers anew if there is none; true if it has registered.
fn stay(
    engine: &mut dyn Engine,
    member: &Member,
    lease: Duration,
    is_in: &mut bool,
) -> Result<bool, Error> {
    let began = Instant::now();
    if *is_in && engine.keep()? && began.elapsed() < lease {
        return Ok(false);
    }
    *is_in = false;
    engine.register(member, lease)?;
    *is_in = true;
    Ok(true)
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        let _ = self.told.send(Told::End);
        if let Some(thread) = self.thread.take() {
            // A panic there has been told already.
            let _ = thread.join();
        }
    }
}
