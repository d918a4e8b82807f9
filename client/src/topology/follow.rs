//! A thread that keeps a client at what its source says.
//!
//! ```text
//!  sleep until the source is due  ->  Topology::refresh  --another list-->  apply(nodes, dual_read)
//!        |         ^  '-- an error: the last good list stays                    |
//!        |         '---- the window of the dual read is over: apply(nodes, 0) <-'   (the old nodes are let go)
//!        '-- the last client is gone: end
//! ```
//!
//! Fw1. The thread does not keep the client alive: it ends when [`Following`] is dropped, at once if it sleeps, else after the
//!     question to the source that is under way, which takes some seconds at most.
//! Fw2. Only whole, good lists with nodes in them are applied, in the order in which the source told them (To1).

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::Topology;
use crate::Node;

/// The longest that the thread waits for a source that tells of changes before it looks whether its client is there.
const WAIT: Duration = Duration::from_secs(2);

/// How a client follows its source of nodes. The default: the source's own interval, a dual read of 5 minutes.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    pub(crate) refresh_every: Option<Duration>,
    pub(crate) dual_read: Duration,
}

impl Default for FollowOptions {
    fn default() -> Self {
        FollowOptions {
            refresh_every: None,
            dual_read: Duration::from_secs(300),
        }
    }
}

impl FollowOptions {
    /// How often the source is asked, give or take a tenth, instead of at its own interval.
    pub fn refresh_every(mut self, interval: Duration) -> Self {
        self.refresh_every = Some(interval);
        self
    }

    /// For how long after a change of the nodes a miss asks where the key was before (5 minutes). Zero: not at all.
    pub fn dual_read(mut self, window: Duration) -> Self {
        self.dual_read = window;
        self
    }
}

/// Held by the client that follows; the thread ends with it.
#[derive(Debug)]
pub(crate) struct Following {
    _sender: Sender<()>,
}

/// Makes the guard that the client is to hold, and the thread's end of it.
pub(crate) fn guard() -> (Following, Receiver<()>) {
    let (sender, receiver) = mpsc::channel();
    (Following { _sender: sender }, receiver)
}

/// Follows `topology` in a thread until the guard is dropped. A list that never changes needs none.
pub(crate) fn spawn(
    topology: Topology,
    dual_read: Duration,
    gone: Receiver<()>,
    apply: impl FnMut(&[Node], Duration) + Send + 'static,
) -> io::Result<()> {
    if topology.due_at().is_some() {
        let thread = thread::Builder::new().name("ketch-topology".to_owned());
        thread.spawn(move || run(topology, dual_read, &gone, apply))?;
    }
    Ok(())
}

fn run(
    mut topology: Topology,
    dual_read: Duration,
    gone: &Receiver<()>,
    mut apply: impl FnMut(&[Node], Duration),
) {
    let mut complaint = String::new();
    let mut window_ends = None;
    loop {
        let due_at = topology.due_at().into_iter().chain(window_ends).min();
        let pause = due_at.map_or(Duration::MAX, |at| {
            at.saturating_duration_since(Instant::now())
        });
        let is_gone = match topology.wait(pause.min(WAIT)) {
            Some(_) => gone.try_recv() != Err(TryRecvError::Empty),
            None => gone.recv_timeout(pause) != Err(RecvTimeoutError::Timeout),
        };
        if is_gone {
            return;
        }
        let now = Instant::now();
        if window_ends.is_some_and(|at| now >= at) {
            window_ends = None;
            apply(topology.nodes(), Duration::ZERO);
        }
        match topology.refresh(now) {
            Ok(true) => {
                let names: Vec<String> = topology.nodes().iter().map(Node::to_string).collect();
                log::info!("the nodes are now {}", names.join(", "));
                apply(topology.nodes(), dual_read);
                window_ends = Instant::now().checked_add(dual_read);
                complaint.clear();
            }
            Ok(false) => complaint.clear(),
            Err(error) => {
                let error = error.to_string();
                // A source that fails each second is one line in the log.
                if error != complaint {
                    log::warn!("the nodes stay as they are: {error}");
                    complaint = error;
                }
            }
        }
    }
}
