//! A member that stays in the list for as long as its program runs.
//!
//! ```text
//!  register --> keep, every third of the lease --the lease is gone--> register
//!     |  '- not reached: again, ever slower up to a second
//!     '- told to leave: say goodbye, end
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
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Enrolment {
    /// Registers `member` from a thread, and keeps it there under a lease of `lease`: that long after the program was killed
    /// the others know. An engine that is not there yet is waited for.
    pub fn begin(registry: Registry, member: Member, lease: Duration) -> io::Result<Self> {
        let (end, told) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("ketch-enrol".to_owned());
        let thread = thread.spawn(move || {
            let Registry {
                mut engine, url, ..
            } = registry;
            let engine = &mut *engine;
            let mut is_in = false;
            let mut pause = Duration::ZERO;
            let mut complaint = String::new();
            while told.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                match stay(engine, &member, lease, &mut is_in) {
                    Ok(registered) => {
                        if registered {
                            log::info!("{url}: registered as {member}");
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
                ..member.clone()
            };
            if let Err(error) = engine.leave(&goodbye) {
                log::warn!("{url}: {member} cannot say goodbye, and ends with its lease: {error}");
            }
        })?;
        Ok(Enrolment {
            end: Some(end),
            thread: Some(thread),
        })
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
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been told already.
            let _ = thread.join();
        }
    }
}
