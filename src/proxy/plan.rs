//! What is to be done with requests: pools of nodes, and the routes to them. Shared by all workers.
//!
//! ```text
//!  Control -- Plan -- routes: prefix -> pool
//!             '------ Pool -- PoolNow: the ring, and the nodes' addresses     <-- a thread that follows the source
//! ```
//!
//! Pl1. A plan is swapped as a whole; of pools that are in the new one as they were, health, ring and connections stay.
//! Pl2. A ring never becomes empty by what a source says: an error or an empty list changes nothing.
//! Pl3. Whoever works with a plan or a ring looks at its version first, which changes after it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use client_core::addresses::{Addresses, MOVED};
use client_core::node::Node;
use client_core::options::{ClientOptions, OnEjection};
use client_core::routing::Ring;
use ketch_client::topology::{self, Source};
use parking_lot::Mutex;

use super::file::{self, File, From, LoadTls, PoolSpec, RouteSpec};
use super::rates::Bucket;
use super::routes::Route;
use crate::state::Proxying;

/// How long a source is waited for at a time.
const WAIT: Duration = Duration::from_millis(500);
/// For how long a trace of another proxy is not passed on again, and how many are remembered.
const TRACE_AGAIN: Duration = Duration::from_secs(1);
const TRACES_MAX: usize = 256;
/// How soon a source is asked again that has not said anything yet.
const AGAIN: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    load_tls: LoadTls,
    plan: Mutex<Arc<Plan>>,
    version: AtomicU64,
    pub(super) counts: Counts,
    /// Tells this proxy from others.
    pub(super) id: u64,
    /// Proxies whose traces have passed here, and when.
    seen: Mutex<Vec<(u64, Instant)>>,
}

/// What all workers count together.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Requests passed on, and those that were answered with an error since their nodes did not answer.
    pub(super) requests: AtomicU64,
    /// Requests under way.
    pub(super) active: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) misses_made: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) lanes_opened: AtomicU64,
    pub(super) lanes_failed: AtomicU64,
    pub(super) garbage: AtomicU64,
    pub(super) loops: AtomicU64,
    pub(super) reloads: AtomicU64,
    pub(super) reload_fails: AtomicU64,
    /// Connections that failed in TLS, or in the login.
    pub(super) sign_in_fails: AtomicU64,
    /// Reads that were asked anew, since their connection was lost.
    pub(super) repeated: AtomicU64,
    /// Requests that a gutter pool answered; values found in a pool that was there before.
    pub(super) gutter: AtomicU64,
    pub(super) warm_hits: AtomicU64,
    /// Requests to shadow pools, and deletes to other pools that nobody waits for; and those of both that were left out, since too
    /// many were under way.
    pub(super) shadowed: AtomicU64,
    pub(super) shadow_dropped: AtomicU64,
    pub(super) fanned_out: AtomicU64,
    pub(super) fan_out_dropped: AtomicU64,
    /// Requests refused since too many came, and since they change something.
    pub(super) limited: AtomicU64,
    pub(super) read_only: AtomicU64,
}

/// Pools and routes.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) pools: Vec<Arc<Pool>>,
    /// The longest prefix first.
    pub(super) routes: Vec<Arc<Route>>,
    /// What users may ask.
    pub(super) users: Vec<(String, Arc<Bucket>)>,
    /// Some requests may be refused; some are sent to shadow pools; some pools are told deletes.
    pub(super) judges: bool,
    pub(super) shadows: bool,
    pub(super) tells: bool,
}

/// Nodes that share keys.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) spec: PoolSpec,
    pub(super) options: Arc<ClientOptions>,
    /// The same for routes that have another pool to ask when a node fails: that is done at once.
    pub(super) hasty: Arc<ClientOptions>,
    now: Mutex<Arc<PoolNow>>,
    version: AtomicU64,
}

/// A pool at one moment.
#[derive(Debug)]
pub(super) struct PoolNow {
    pub(super) ring: Arc<Ring>,
    /// As the ring's members.
    addresses: Vec<Arc<Mutex<Addresses>>>,
    nodes: Vec<Node>,
}

/// Where a node is.
#[derive(Debug, Clone)]
pub enum Target {
    /// A host.
    Tcp(SocketAddr),
    /// A path of this machine.
    Unix(PathBuf),
}

impl Control {
    /// Reads the file of routes, and begins to follow the sources of its pools. The error is why it cannot be.
    pub fn open(path: PathBuf, load_tls: LoadTls) -> Result<Arc<Self>, String> {
        let plan = Plan::new(file::read(&path, load_tls)?, None);
        Ok(Arc::new(Control {
            path,
            load_tls,
            plan: Mutex::new(Arc::new(plan)),
            version: AtomicU64::new(1),
            counts: Counts::default(),
            id: rand(),
            seen: Mutex::default(),
        }))
    }

    /// Reads the file again. After an error all stays as it was.
    pub fn reload(&self) -> Result<(), String> {
        let read = file::read(&self.path, self.load_tls);
        let file = read.inspect_err(|_| {
            self.counts.reload_fails.fetch_add(1, Ordering::Relaxed);
        })?;
        let mut plan = self.plan.lock();
        *plan = Arc::new(Plan::new(file, Some(&plan)));
        self.version.fetch_add(1, Ordering::Release);
        self.counts.reloads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that a trace of another proxy passes; false if it did a moment ago.
    pub(super) fn passes(&self, id: u64) -> bool {
        let (mut seen, now) = (self.seen.lock(), Instant::now());
        seen.retain(|(_, at)| now.duration_since(*at) < TRACE_AGAIN);
        let is_new = seen.len() < TRACES_MAX && seen.iter().all(|(other, _)| *other != id);
        if is_new {
            seen.push((id, now));
        }
        is_new
    }

    /// Requests that a gutter pool has answered.
    pub(super) fn count_gutter(&self, count: u64) {
        self.counts.gutter.fetch_add(count, Ordering::Relaxed);
    }

    /// Values that were found in a pool of before.
    pub(super) fn count_warm_hits(&self, count: u64) {
        self.counts.warm_hits.fetch_add(count, Ordering::Relaxed);
    }

    /// A delete that another pool is told.
    pub(super) fn count_fan_out(&self) {
        self.counts.fanned_out.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn plan(&self) -> Arc<Plan> {
        self.plan.lock().clone()
    }
}

impl Proxying for Control {
    fn reload(&self) -> Result<(), String> {
        Control::reload(self)
    }

    fn figures(&self) -> Vec<(String, u64)> {
        let counts = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let plan = self.plan();
        let rings: Vec<_> = plan.pools.iter().map(|pool| pool.now()).collect();
        let nodes = || {
            rings
                .iter()
                .flat_map(|now| now.ring.current().map(|at| &now.ring.members[at]))
        };
        let out = nodes().filter(|member| !member.is_in()).count();
        let mut figures = vec![
            ("conn_requests".to_owned(), read(&counts.requests)),
            ("conn_errors".to_owned(), read(&counts.errors)),
            ("conn_oom".to_owned(), 0),
            ("misses_made".to_owned(), read(&counts.misses_made)),
            ("timeouts".to_owned(), read(&counts.timeouts)),
            ("req_active".to_owned(), read(&counts.active)),
            ("lanes_opened".to_owned(), read(&counts.lanes_opened)),
            ("backend_marked_bad".to_owned(), read(&counts.lanes_failed)),
            ("garbage".to_owned(), read(&counts.garbage)),
            ("request_failed_depth".to_owned(), read(&counts.loops)),
            ("config_reloads".to_owned(), read(&counts.reloads)),
            ("config_reload_fails".to_owned(), read(&counts.reload_fails)),
            ("node_sign_in_fails".to_owned(), read(&counts.sign_in_fails)),
            ("reads_repeated".to_owned(), read(&counts.repeated)),
            ("gutter_requests".to_owned(), read(&counts.gutter)),
            ("warm_hits".to_owned(), read(&counts.warm_hits)),
            ("shadow_requests".to_owned(), read(&counts.shadowed)),
            ("shadow_dropped".to_owned(), read(&counts.shadow_dropped)),
            ("fan_out_deletes".to_owned(), read(&counts.fanned_out)),
            ("fan_out_dropped".to_owned(), read(&counts.fan_out_dropped)),
            ("limited".to_owned(), read(&counts.limited)),
            ("read_only_refused".to_owned(), read(&counts.read_only)),
            ("backend_total".to_owned(), nodes().count() as u64),
            ("backend_failed".to_owned(), out as u64),
        ];
        for (pool, now) in plan.pools.iter().zip(&rings) {
            for member in now.ring.current().map(|at| &now.ring.members[at]) {
                let name = format!("{}:{}:is_in", pool.spec.name, member.name);
                figures.push((name, u64::from(member.is_in())));
            }
        }
        for route in &plan.routes {
            if let Some(bucket) = &route.bucket
                && let Ok(prefix) = std::str::from_utf8(&route.spec.prefix)
            {
                let prefix = prefix.replace(|letter: char| !letter.is_ascii_graphic(), "?");
                figures.push((format!("route:{prefix}:limited"), read(&bucket.refused)));
            }
        }
        for (name, bucket) in &plan.users {
            let name = name.replace(|letter: char| !letter.is_ascii_graphic(), "?");
            figures.push((format!("user:{name}:limited"), read(&bucket.refused)));
        }
        figures
    }
}

impl Plan {
    fn new(file: File, before: Option<&Plan>) -> Self {
        let known = |spec: &PoolSpec| {
            let mut pools = before?.pools.iter();
            let same =
                |pool: &&Arc<Pool>| pool.spec.name == spec.name && pool.spec.table == spec.table;
            pools.find(same).cloned()
        };
        let pools = file.pools.into_iter();
        let any = |is: fn(&RouteSpec) -> bool| file.routes.iter().any(is);
        let judges = any(|spec| spec.read_only || spec.rate.is_some()) || !file.users.is_empty();
        let shadows = any(|spec| spec.shadow.is_some());
        let tells = any(|spec| !spec.delete_to.is_empty());
        let routes = file.routes.into_iter().map(|spec| {
            let known = before.and_then(|before| {
                let mut routes = before.routes.iter();
                routes.find(|route| route.spec.prefix == spec.prefix)
            });
            Arc::new(Route::new(spec, known.map(|route| &**route)))
        });
        let users = file.users.into_iter().map(|(name, rate)| {
            let known = before.and_then(|before| {
                let mut users = before.users.iter();
                let same = |(other, bucket): &&(String, Arc<Bucket>)| {
                    *other == name && bucket.rate == rate
                };
                users.find(same).map(|(_, bucket)| bucket.clone())
            });
            (name, known.unwrap_or_else(|| Arc::new(Bucket::new(rate))))
        });
        Plan {
            pools: pools
                .map(|spec| known(&spec).unwrap_or_else(|| Pool::begin(spec)))
                .collect(),
            routes: routes.collect(),
            users: users.collect(),
            judges,
            shadows,
            tells,
        }
    }
}

impl Pool {
    fn begin(spec: PoolSpec) -> Arc<Self> {
        let nodes = match &spec.from {
            From::List(nodes) => nodes.clone(),
            From::Source(_) => Vec::new(),
        };
        let ring = Ring::new(&nodes, &spec.options, rand());
        let mut now = PoolNow {
            ring: Arc::new(ring),
            addresses: Vec::new(),
            nodes,
        };
        now.addresses = now.addresses_of(None);
        // A gutter pool takes what a node has not.
        let hasty = spec
            .options
            .clone()
            .on_ejection(OnEjection::FailFast)
            .ack_live(false);
        let pool = Arc::new(Pool {
            options: Arc::new(spec.options.clone()),
            hasty: Arc::new(hasty.retries(0)),
            now: Mutex::new(Arc::new(now)),
            version: AtomicU64::new(1),
            spec,
        });
        let needs_thread = match &pool.spec.from {
            From::Source(_) => true,
            From::List(nodes) => nodes.iter().any(is_name),
        };
        if needs_thread {
            let pool = Arc::downgrade(&pool);
            let spawned = thread::Builder::new()
                .name("proxy pool".to_owned())
                .spawn(move || follow(&pool));
            if let Err(error) = spawned {
                log::error!("proxy: no thread follows the nodes: {error}");
            }
        }
        pool
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn now(&self) -> Arc<PoolNow> {
        self.now.lock().clone()
    }

    fn put(&self, change: impl FnOnce(&PoolNow) -> PoolNow) {
        let mut now = self.now.lock();
        *now = Arc::new(change(&now));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// From now on these are the nodes.
    fn set_nodes(&self, nodes: Vec<Node>) {
        self.put(|before| {
            let until = Instant::now() + self.spec.dual_read;
            let ring = match before.nodes.is_empty() || self.spec.dual_read.is_zero() {
                true => before
                    .ring
                    .after(&nodes, &self.options, Instant::now())
                    .settled(),
                false => before.ring.after(&nodes, &self.options, until),
            };
            let mut now = PoolNow {
                ring: Arc::new(ring),
                addresses: Vec::new(),
                nodes,
            };
            now.addresses = now.addresses_of(Some(before));
            now
        });
    }

    /// The places before a change are not asked any more.
    fn settle(&self) {
        let now = self.now();
        if now.ring.has_before() && now.ring.is_settled(Instant::now()) {
            self.put(|before| {
                let mut now = PoolNow {
                    ring: Arc::new(before.ring.settled()),
                    addresses: Vec::new(),
                    nodes: before.nodes.clone(),
                };
                now.addresses = now.addresses_of(Some(before));
                now
            });
        }
    }
}

impl PoolNow {
    fn addresses_of(&self, before: Option<&PoolNow>) -> Vec<Arc<Mutex<Addresses>>> {
        let members = self.ring.members.iter();
        members
            .map(|member| {
                let known = before.and_then(|before| {
                    let mut members = before.ring.members.iter();
                    let at = members.position(|other| Arc::ptr_eq(other, member))?;
                    before.addresses.get(at).cloned()
                });
                known.unwrap_or_else(|| {
                    let Node { host, port, .. } = &member.node;
                    Arc::new(Mutex::new(Addresses::new(host, *port)))
                })
            })
            .collect()
    }

    /// Where to connect to for this node, if that is known.
    pub(super) fn target(&self, node: usize) -> Option<Target> {
        let member = &self.ring.members[node];
        if let Some(path) = member.node.socket_path() {
            return Some(Target::Unix(path.into()));
        }
        let addr = self.addresses[node].lock().next_address();
        addr.map(Target::Tcp)
    }

    /// A connection to it could not be made.
    pub(super) fn doubt(&self, node: usize) {
        self.addresses[node].lock().doubt();
    }

    /// Looks up the names that are due.
    fn look_up(&self) {
        for (member, addresses) in self.ring.members.iter().zip(&self.addresses) {
            let fresh = if member.is_in() { Duration::MAX } else { MOVED };
            let begins = addresses.lock().begin_look_up(Instant::now(), fresh);
            if begins {
                let Node { host, port, .. } = &member.node;
                let answer = (host.as_str(), *port).to_socket_addrs();
                addresses.lock().found(host, answer.map(Iterator::collect));
            }
        }
    }
}

/// True if a node is named by a name.
fn is_name(node: &Node) -> bool {
    let host = node.host.trim_start_matches('[').trim_end_matches(']');
    node.socket_path().is_none() && host.parse::<std::net::IpAddr>().is_err()
}

/// Keeps a pool at what its source says, and its names looked up, as long as there is the pool.
fn follow(pool: &Weak<Pool>) {
    let mut source: Option<Box<dyn Source>> = None;
    let (mut due, mut complaint) = (Instant::now(), String::new());
    loop {
        let Some(pool) = pool.upgrade() else {
            return;
        };
        if source.is_none()
            && let From::Source(text) = &pool.spec.from
        {
            // It was read before.
            source = topology::source(text).ok().map(|mut source| {
                source.adopt(&pool.options);
                if let Some(share) = pool.spec.leave_share {
                    source.leave_share(share);
                }
                source
            });
        }
        if let Some(source) = &mut source
            && Instant::now() >= due
        {
            let asked = source.nodes();
            let is_first = pool.now().nodes.is_empty();
            match asked {
                Ok(nodes) if !nodes.is_empty() => {
                    complaint.clear();
                    if nodes != pool.now().nodes {
                        let names: Vec<String> = nodes.iter().map(Node::to_string).collect();
                        log::info!(
                            "proxy: pool {}: the nodes are {}",
                            pool.spec.name,
                            names.join(", ")
                        );
                        pool.set_nodes(nodes);
                    }
                    due = Instant::now() + source.interval().unwrap_or(Duration::from_secs(3600));
                }
                other => {
                    let error = match other {
                        Err(error) => error.to_string(),
                        Ok(_) => "no nodes".to_owned(),
                    };
                    if error != complaint {
                        log::warn!(
                            "proxy: pool {}: the nodes stay as they are: {error}",
                            pool.spec.name
                        );
                        complaint = error;
                    }
                    let pause = match is_first {
                        true => AGAIN,
                        false => source
                            .interval()
                            .unwrap_or(WAIT)
                            .min(Duration::from_secs(1)),
                    };
                    due = Instant::now() + pause;
                }
            }
        }
        pool.settle();
        pool.now().look_up();
        drop(pool);
        let left = due.saturating_duration_since(Instant::now()).min(WAIT);
        match source.as_mut().and_then(|source| source.wait(left)) {
            Some(true) => due = Instant::now(),
            Some(false) => {}
            None => {
                thread::sleep(left.clamp(Duration::from_millis(20), Duration::from_millis(100)))
            }
        }
    }
}

/// Where chance begins.
fn rand() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::desk::{Clients, Desk};
    use crate::proxy::relay;
    use crate::proxy::replies::Owed;
    use crate::state::ConnId;

    struct Nobody;

    impl<'c> Clients<'c> for Nobody {
        fn owed(&mut self, _conn: ConnId) -> Option<&mut Owed<'c>> {
            None
        }
    }

    /// A request may come before the name of its node is known: it goes out when that is.
    #[test]
    fn a_lane_waits_for_a_name_no_longer_than_that_is_looked_up() {
        let name = format!("ketch-plan-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = "[pools.main]\nnodes = [\"node.invalid:11211\"]\nconnect_timeout_ms = 60000\n";
        std::fs::write(&path, file).expect("the file is written");
        let control = Control::open(path.clone(), |_, options| Ok(options));
        let control = control.expect("the file is right");
        std::fs::remove_file(path).expect("it was written");
        let mut desk = Desk::new(control.clone(), 1);
        let conn = ConnId {
            slot: 0,
            generation: 0,
        };
        let lane = desk.lane_to(0, 0, conn, false);
        let from = desk.out(lane).buf.len();
        let get = protocol::GetVerb {
            with_cas: false,
            touch: None,
        };
        let passed = relay::get(desk.out(lane), get, [&b"k"[..]].into_iter());
        desk.passed(lane, passed, (conn, 0), None, from);
        assert_eq!(desk.take_dirty(), [lane]);
        assert!(desk.begins(lane) && desk.target(lane).is_none());
        let addr: SocketAddr = "10.0.0.7:11211".parse().expect("an address");
        let pool = control.plan().pools[0].clone();
        let found = pool.now().addresses[0].clone();
        found.lock().found("node.invalid", Ok(vec![addr]));
        let end = Instant::now() + Duration::from_secs(20);
        while desk.take_dirty().is_empty() {
            assert!(Instant::now() < end, "the lane is not asked for again");
            thread::sleep(Duration::from_millis(5));
            desk.wake();
            desk.tick(&mut Nobody);
        }
        assert!(desk.begins(lane));
        assert!(matches!(desk.target(lane), Some(Target::Tcp(to)) if to == addr));
        assert!(!desk.begins(lane), "it is being connected");
    }
}
