//! The lanes to one node, and how many exchanges may be outstanding on them.
//!
//! ```text
//!  submit: the lane with the least to do, if that is little; else a new lane; else, at the bound, the least busy after all
//! ```
//!
//! A lane is shared by all tasks: few lanes mean few system calls, since what is ready at the same time goes in one write. More of
//! them keep small exchanges from waiting behind large ones.
//!
//! P1. An exchange holds a permit from its submission to its last reply, unless it is alone on its lane: what is queued or
//!     in flight is bounded.
//! P2. A lane that the node has closed retires all lanes made before: they finish what they have and take no more.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use ::tokio::time::timeout_at;
use bytes::Bytes;

use super::lane::{self, Connect, Job, Line, Others};
use super::mailbox::{Event, Gauge, Mailbox, Ticket, Times, What};
use super::resolve::Resolver;
use super::solo::Solo;
use super::stream::Stream;
use crate::snapshot::NodePool;
use client_core::Exchange;
use client_core::error::Failure;
use client_core::expect::Expect;
use client_core::health::Member;
use client_core::options::ClientOptions;
use client_core::request;
use client_core::routing::Ring;

/// Weight on a lane above which another is made: exchanges, and kilobytes of requests.
const LANE_LOAD: usize = 32;
/// For how long exchanges do not share lanes, if there may be as many, after one was late: the next may be too.
const SPREAD: Duration = Duration::from_secs(2);
/// Exchanges that may be outstanding, for each lane that may be open.
const OUTSTANDING_A_LANE: usize = 64;

/// See the module.
pub(crate) struct Pool {
    pub(super) member: Arc<Member>,
    options: Arc<ClientOptions>,
    resolver: Arc<Resolver>,
    permits: Arc<Semaphore>,
    /// Permits there are, held or not.
    outstanding: usize,
    lanes: Arc<Lanes>,
}

/// The lanes of a node.
pub(super) struct Lanes {
    list: Mutex<Vec<Lane>>,
    max: usize,
    begun: Instant,
    /// Until when exchanges are spread over as many lanes as there may be, in milliseconds since `begun`: one was late.
    spread_until_ms: AtomicU64,
}

impl Lanes {
    fn list(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.begun).as_millis() as u64
    }

    /// How much a lane is given before another is made.
    fn load_max(&self) -> usize {
        let until = self.spread_until_ms.load(Ordering::Relaxed);
        if until == 0 {
            return LANE_LOAD;
        }
        if self.ms(super::now()) < until {
            return 1;
        }
        self.spread_until_ms.store(0, Ordering::Relaxed);
        LANE_LOAD
    }
}

impl Others for Lanes {
    fn divert(&self, now: Instant) -> bool {
        let until = self.ms(now + SPREAD);
        self.spread_until_ms.store(until, Ordering::Relaxed);
        let list = self.list();
        list.len() < self.max || list.iter().any(|lane| !lane.gauge.is_stalled())
    }
}

/// The callers' half of a lane.
struct Lane {
    jobs: mpsc::UnboundedSender<Job>,
    gauge: Arc<Gauge>,
    line: Arc<Mutex<Line>>,
}

/// An exchange that was given to a lane.
pub(super) struct Submitted {
    pub(super) gauge: Arc<Gauge>,
    /// It is its caller's to drive.
    pub(super) solo: Option<Solo>,
}

impl NodePool for Pool {
    fn new(member: Arc<Member>, options: Arc<ClientOptions>) -> Self {
        let outstanding = options.pool_connections_max.max(1) * OUTSTANDING_A_LANE;
        let outstanding = outstanding.min(Semaphore::MAX_PERMITS);
        let (moved, its_options) = (member.clone(), options.clone());
        let on_move = move || moved.hurry(&its_options);
        let resolver = Resolver::new(&member.node.host, member.node.port, on_move);
        Pool {
            resolver: Arc::new(resolver),
            permits: Arc::new(Semaphore::new(outstanding)),
            outstanding,
            lanes: Arc::new(Lanes {
                list: Mutex::default(),
                max: options.pool_connections_max.max(1),
                begun: super::now(),
                spread_until_ms: AtomicU64::new(0),
            }),
            member,
            options,
        }
    }

    fn member(&self) -> &Arc<Member> {
        &self.member
    }

    fn part(&self) {
        // To close them would be to end the parent's watch over its sockets: it is the same to the kernel.
        std::mem::forget(std::mem::take(&mut *self.lanes.list()));
        let held = self.outstanding - self.permits.available_permits();
        self.permits.add_permits(held);
        self.resolver.part();
    }
}

impl Pool {
    /// One of the exchanges that may be outstanding, if there is one left.
    pub(super) fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// Waits for one.
    pub(super) async fn permit(self: Arc<Self>) -> OwnedSemaphorePermit {
        let permit = self.permits.clone().acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Sends `exchange`, whose events go to `mailbox`, if a lane has nothing else to do and the caller can drive it.
    pub(super) fn begin_solo(
        &self,
        exchange: &Exchange,
        times: Times,
        mailbox: &Arc<Mailbox>,
        now: Instant,
    ) -> Option<Submitted> {
        let lanes = self.lanes.list();
        let idle = lanes.iter().find(|lane| lane.gauge.is_idle())?;
        let (line, gauge) = (idle.line.clone(), idle.gauge.clone());
        drop(lanes);
        let ticket = || ticket(exchange, times, None, mailbox, &gauge);
        let solo = Some(Solo::begin(line, exchange, ticket, now)?);
        Some(Submitted { gauge, solo })
    }

    /// Sends `exchange`, whose events go to `mailbox`.
    pub(super) fn submit(
        &self,
        exchange: &Exchange,
        times: Times,
        permit: OwnedSemaphorePermit,
        mailbox: &Arc<Mailbox>,
    ) -> Submitted {
        let load_max = self.lanes.load_max();
        let mut lanes = self.lanes.list();
        lanes.retain(|lane| !lane.jobs.is_closed() && !lane.gauge.is_condemned());
        let load = |lane: &Lane| lane.gauge.load.load(Ordering::Relaxed);
        // One that stalls is worse than any other.
        let worth = |lane: &Lane| (lane.gauge.is_stalled(), load(lane));
        let least = (0..lanes.len()).min_by_key(|&at| worth(&lanes[at]));
        let at = match least {
            Some(at) if worth(&lanes[at]) < (false, load_max) => at,
            Some(at) if lanes.len() >= self.lanes.max => at,
            _ => {
                lanes.push(self.open(false));
                lanes.len() - 1
            }
        };
        lanes[at].send(exchange, times, permit, mailbox)
    }

    /// A new lane. What it is given waits until it is connected.
    fn open(&self, is_probe: bool) -> Lane {
        let (sender, jobs) = mpsc::unbounded_channel();
        let gauge = Arc::new(Gauge::default());
        let login = self.options.login.as_ref();
        let login = login.map(|login| Bytes::from(request::login(&login.user, &login.password)));
        let lanes = Arc::downgrade(&self.lanes);
        let of = (self.member.clone(), self.options.clone());
        let connect = self.connect(is_probe);
        let line = Line::new(jobs, gauge.clone(), connect, login, lanes.clone(), of);
        let line = Arc::new(Mutex::new(line));
        ::tokio::spawn(lane::run(line.clone(), move || {
            if let Some(lanes) = lanes.upgrade() {
                lanes.list().clear();
            }
        }));
        Lane {
            jobs: sender,
            gauge,
            line,
        }
    }

    fn connect(&self, is_probe: bool) -> Connect {
        let (resolver, options) = (self.resolver.clone(), self.options.clone());
        let member = self.member.clone();
        Box::pin(async move {
            let now = super::now();
            if !is_probe && member.is_shut(now) {
                return Err(Failure::SignIn);
            }
            let connect = async {
                let stream = match member.node.socket_path() {
                    Some(path) => Stream::connect_unix(path).await,
                    None => {
                        let addr = resolver.next(now).await.ok_or(Failure::Connect)?;
                        Stream::connect(addr, &member.node.host, &options).await
                    }
                };
                stream.map_err(|error| {
                    log::debug!("{}: {error}", member.name);
                    match error.kind() {
                        io::ErrorKind::InvalidInput => member.no_tls(&error, &options, now),
                        _ => Failure::Connect,
                    }
                })
            };
            let connected = timeout_at((now + options.connect_timeout).into(), connect).await;
            let connected = connected.unwrap_or(Err(Failure::Connect));
            if matches!(connected, Err(Failure::Connect)) {
                resolver.doubt();
            }
            connected
        })
    }

    /// Begins a probe that is due, in a task of its own and on a lane of its own.
    pub(super) fn probe(&self, ring: &Arc<Ring>, node: usize, now: Instant) {
        ring.tend(node, now, &self.options);
        if !self.member.is_in() {
            self.resolver.follow(now);
        }
        let Some(request) = self.member.probe_due(now) else {
            return;
        };
        let probe = Probe {
            ring: ring.clone(),
            node,
            options: self.options.clone(),
            answered: false,
        };
        let exchange = Exchange {
            id: 0,
            node,
            request,
            expect: Expect::Noop,
            deadline: now + self.options.connect_timeout + self.options.attempt_timeout,
            repeatable: true,
            must_send: true,
        };
        let mailbox = Arc::new(Mailbox::default());
        // A probe's lane comes on top of the others, and so does its permit.
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned();
        let permit = permit.expect("it has one");
        let times = Times {
            patience: exchange.patience(now),
            limit: exchange.deadline,
            movable: false,
        };
        self.open(true).send(&exchange, times, permit, &mailbox);
        ::tokio::spawn(async move {
            // All of it, not a field.
            let mut probe = probe;
            let events = mailbox.take().await;
            let what = events.into_iter().next().map(|Event { what, .. }| what);
            probe.answered = matches!(what, Some(What::Reply(_) | What::Replies(_)));
        });
    }
}

impl Lane {
    fn send(
        &self,
        exchange: &Exchange,
        times: Times,
        permit: OwnedSemaphorePermit,
        mailbox: &Arc<Mailbox>,
    ) -> Submitted {
        let job = Job {
            request: exchange.request.clone(),
            expect: exchange.expect,
            must_send: exchange.must_send,
            repeatable: exchange.repeatable,
            ticket: ticket(exchange, times, Some(permit), mailbox, &self.gauge),
        };
        // A lane that has just ended, perhaps before it was given anything: nothing was sent.
        if let Err(mpsc::error::SendError(mut job)) = self.jobs.send(job) {
            match lane::lock(&self.line).ended_by() {
                Some(failure) => job.ticket.fail(failure),
                None => job.ticket.lose(false),
            }
        }
        let gauge = self.gauge.clone();
        Submitted { gauge, solo: None }
    }
}

fn ticket(
    exchange: &Exchange,
    times: Times,
    permit: Option<OwnedSemaphorePermit>,
    mailbox: &Arc<Mailbox>,
    gauge: &Arc<Gauge>,
) -> Ticket {
    let weight = 1 + exchange.request.len() / 256;
    let facts = (exchange.id, weight, times);
    Ticket::new(mailbox.clone(), gauge.clone(), permit, facts)
}

/// A probe under way. Dropped, with its runtime perhaps, it tells how it went.
struct Probe {
    ring: Arc<Ring>,
    node: usize,
    options: Arc<ClientOptions>,
    answered: bool,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let now = super::now();
        if self.answered {
            let back = self.ring.probe_answered(self.node, now, &self.options);
            if back && let Some(metrics) = &self.options.metrics {
                metrics.returned(&self.ring.members[self.node].name);
            }
        } else {
            self.ring.probe_failed(self.node, now, &self.options);
        }
    }
}
