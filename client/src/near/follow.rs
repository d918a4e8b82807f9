//! The thread that follows the feeds of all nodes for a near cache.
//!
//! ```text
//!  set_nodes --ring--> [ a Feed a node ] --poll--> events -> Near::heard | arm | believe
//!                            '-- Lost: the node's trust ends, the feed connects again
//! ```
//!
//! Nf1. The thread does not keep the client alive: it ends when [`Follower`] is dropped.
//! Nf2. Within a poll, what a feed has told is carried out before the near cache believes it any longer.
//! Nf3. A feed is not gone on with where it was: what it had told is dropped at its end, so there is nothing to make up for.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::{Near, Route, Trust};
use crate::feed::{Ask, Event, Feed, Key, Lost, What, timespec};
use client_core::health::Member;
use client_core::metrics::Followed;
use client_core::options::ClientOptions;
use client_core::routing::Ring;

/// Events of one node before the others have their turn.
const TURN: u64 = 4096;
/// The longest pause before a feed connects again: a node that is back is soon heard of.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What thread and client have in common.
struct Wishes {
    /// The nodes to follow, if they are others.
    ring: Mutex<Option<Arc<Ring>>>,
    is_over: AtomicBool,
    bell: OwnedFd,
}

impl Wishes {
    fn ring_bell(&self) {
        // It fails only if it has not been heard 2^64 times.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

/// Held by the client; the thread ends with it.
pub(crate) struct Follower(Arc<Wishes>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.ring_bell();
    }
}

impl Follower {
    /// Begins to follow the nodes of `ring`.
    pub(crate) fn start(
        near: Arc<Near>,
        ring: Arc<Ring>,
        options: Arc<ClientOptions>,
    ) -> std::io::Result<Self> {
        let wishes = Arc::new(Wishes {
            ring: Mutex::new(Some(ring.clone())),
            is_over: AtomicBool::new(false),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let mut following = Following {
            near,
            ring,
            options,
            nodes: Vec::new(),
        };
        let of_thread = wishes.clone();
        let thread = thread::Builder::new().name("ketch-near".to_owned());
        thread.spawn(move || following.run(&of_thread))?;
        Ok(Follower(wishes))
    }

    /// The nodes are those of `ring` now.
    pub(crate) fn turn(&self, ring: &Arc<Ring>) {
        let mut wish = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        *wish = Some(ring.clone());
        drop(wish);
        self.0.ring_bell();
    }
}

/// A node that is followed.
struct Node {
    member: Arc<Member>,
    feed: Feed,
    told: Told,
    /// It was asked when that was looked at last.
    was_in: bool,
    /// Its feed may have something to tell.
    is_ready: bool,
}

/// What a node's feed has told the near cache.
pub(super) struct Told {
    /// The node's.
    identity: u64,
    trust: Arc<Trust>,
    state: State,
}

impl Told {
    pub(super) fn new(near: &Near, identity: u64) -> Self {
        Told {
            identity,
            trust: near.arm(identity, 0),
            state: State::Awaited,
        }
    }

    /// Carries out what the feed tells; gives why something is lost, if it is.
    pub(super) fn hear(&mut self, event: Event<'_>, near: &Near) -> Option<Lost> {
        match event {
            Event::Change(change) => match change.key {
                Key::Text(key) => {
                    let stored = (change.what == What::Set).then_some(change.cas);
                    near.heard(&self.trust, key, stored);
                }
                Key::Hash(_) | Key::All => {
                    let until_ns = self.trust.until_ns.load(Ordering::Acquire);
                    self.trust = near.arm(self.identity, until_ns);
                }
            },
            Event::Began(_) => {
                self.trust = near.arm(self.identity, 0);
                self.state = State::Armed;
            }
            Event::Lost(why) => {
                match (why, self.state) {
                    (Lost::NoFeed | Lost::Connect, State::None) => {}
                    (Lost::NoFeed, _) => {
                        self.trust = near.arm(self.identity, Trust::WITHOUT_END);
                        self.state = State::None;
                    }
                    _ if why.is_over() => {
                        self.trust.end();
                        self.state = State::Awaited;
                    }
                    _ => self.trust = near.arm(self.identity, 0),
                }
                return Some(why);
            }
            Event::Beat(_) => {}
        }
        None
    }

    /// All that happened at the node before this moment was told, and carried out.
    pub(super) fn believe(&self, known_until: Option<Instant>, near: &Near) {
        if self.state == State::Armed
            && let Some(known) = known_until
        {
            near.believe(&self.trust, known);
        }
    }
}

/// What is known of a node's feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing yet, or nothing any more.
    Awaited,
    Armed,
    /// The node has none.
    None,
}

struct Following {
    near: Arc<Near>,
    ring: Arc<Ring>,
    options: Arc<ClientOptions>,
    nodes: Vec<Node>,
}

impl Following {
    fn run(&mut self, wishes: &Wishes) {
        while !wishes.is_over.load(Ordering::Acquire) {
            let mut wish = wishes.ring.lock().unwrap_or_else(PoisonError::into_inner);
            let ring = wish.take();
            drop(wish);
            if let Some(ring) = ring {
                self.adopt(ring);
            }
            self.look_at_members();
            let now = Instant::now();
            for node in &mut self.nodes {
                if node.is_ready || node.feed.due_at() <= now {
                    node.is_ready = node.read(&self.near, &self.options);
                }
            }
            self.wait(wishes);
        }
    }

    /// Follows these nodes, and no others.
    fn adopt(&mut self, ring: Arc<Ring>) {
        let is_there = |node: &Node| {
            let mut members = ring.members.iter();
            members.any(|member| Arc::ptr_eq(member, &node.member))
        };
        let parted = self.nodes.extract_if(.., |node| !is_there(node));
        for node in parted {
            self.near.part(node.member.identity);
        }
        let bound = self.options.near_cache.and_then(|near| near.follow);
        let bound = bound.unwrap_or_default();
        for member in &ring.members {
            let mut nodes = self.nodes.iter();
            if nodes.any(|node| Arc::ptr_eq(&node.member, member)) {
                continue;
            }
            let ask = Ask::default()
                .prefix(&self.options.prefix)
                .silence(bound)
                .behind(bound);
            self.nodes.push(Node {
                feed: Feed::new(member.node.clone(), &self.options, ask)
                    .anew()
                    .pause_at_most(PAUSE_MAX),
                told: Told::new(&self.near, member.identity),
                is_ready: true,
                was_in: member.is_in(),
                member: member.clone(),
            });
        }
        self.ring = ring;
    }

    /// A node that is asked again has what others wrote there meanwhile: what stood in for it is dropped.
    fn look_at_members(&mut self) {
        let mut is_back = false;
        for node in &mut self.nodes {
            let is_in = node.member.is_in();
            if is_in && !node.was_in {
                is_back = true;
                node.feed.hurry();
            }
            node.was_in = is_in;
        }
        if is_back {
            self.near.turn(Route {
                ring: &self.ring,
                options: &self.options,
            });
        }
    }

    /// Waits for one of the feeds, or for a wish.
    fn wait(&mut self, wishes: &Wishes) {
        let due_at = self.nodes.iter().map(|node| node.feed.due_at()).min();
        let left = due_at.map(|at| at.saturating_duration_since(Instant::now()));
        let is_ready = self.nodes.iter().any(|node| node.is_ready);
        let left = if is_ready { Some(Duration::ZERO) } else { left };
        let sockets = self.nodes.iter().filter_map(|node| node.feed.socket());
        let bell = PollFd::new(&wishes.bell, PollFlags::IN);
        let mut fds: Vec<PollFd<'_>> = sockets.chain([bell]).collect();
        // An error (a signal) is as good as nothing ready.
        let _ = poll(&mut fds, left.map(timespec).as_ref());
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let connected = self
            .nodes
            .iter_mut()
            .filter(|node| node.feed.socket().is_some());
        for (node, is_ready) in connected.zip(ready) {
            node.is_ready |= is_ready;
        }
        // It fails if nobody has rung.
        let _ = rustix::io::read(&wishes.bell, &mut [0; 8]);
    }
}

impl Node {
    /// Carries out what its feed tells; true if there may be more.
    fn read(&mut self, near: &Near, options: &ClientOptions) -> bool {
        let metrics = options.metrics.as_deref();
        let tell = |what| {
            if let Some(metrics) = metrics {
                metrics.followed(&self.member.name, what);
            }
        };
        let mut events = 0;
        while events < TURN && self.feed.has_next() {
            let Some(event) = self.feed.take() else {
                continue;
            };
            events += u64::from(matches!(event, Event::Change(_)));
            let began = matches!(event, Event::Began(_));
            let before = self.told.state;
            let lost = self.told.hear(event, near);
            let name = &self.member.name;
            if began {
                log::debug!("{name}: its feed is followed");
                tell(Followed::Armed);
            }
            let Some(why) = lost else { continue };
            // What was told is told to the end.
            if before != State::Awaited || why != Lost::Connect {
                tell(Followed::Lost(why));
            }
            if why == Lost::NoFeed && before != State::None {
                log::warn!(
                    "{name}: {why}: what others write there is seen after the near cache's time"
                );
            } else if why.is_over() && before == State::Armed {
                log::info!("{name}: its feed is lost: {why}");
            }
        }
        if events > 0 {
            tell(Followed::Events(events));
        }
        self.told.believe(self.feed.known_until(), near);
        events == TURN
    }
}
