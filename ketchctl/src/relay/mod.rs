//! `ketchctl relay`: carries what changes in one region over to another.
//!
//! ```text
//!  feed of each source --follow--> queue: each key once --send--> client of the target (batches, several on their way)
//!                        |            ^                             a delete, or the value that the source has by then
//!                        |  no room   | room again
//!                        '--------> spool                           gap, flush, spool lost --> purge: list and delete
//!
//!  cursor: below the lowest event of each source that is not yet done
//! ```
//!
//! Re1. An event is done when the target has acknowledged what was done about its key after the event was read. Until then the cursor
//!      stays before it, so that a relay that is killed does it again.
//! Re2. Whatever may be missed ends in a purge, of which the cursor tells until it is done. Nothing is missed in silence.
//! Re3. What the relay does in the target is marked with its origin, and what is marked is not carried over: two relays do not echo.
//! Re4. Memory is bounded by the queue, disk by the spool. Without a spool the sources' own rings keep what finds no room.
//!
//! docs/regions.md says what is promised, and how to run it.

mod cursor;
mod follow;
mod purge;
mod queue;
mod report;
mod send;
mod spool;
mod state;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use getopts::{Matches, Options};
use ketch_client::continuum::Placement;
use ketch_client::topology::{Source as _, SourceError, Topology};
use ketch_client::{Client, ClientOptions, Error, Node};

use crate::access::{self, Access};
use crate::audit::fnv;
use crate::cluster::{self, Cluster};
use crate::copy::pace::Pace;
use crate::failure::Failure;
use crate::{rings, signals, units, words};
use cursor::Cursor;
use follow::Carries;
use report::{Counts, Figures};
use spool::Spool;
use state::{MEMORY_MAX, Routes, State};

const USAGE: &str = "usage: ketchctl relay --from RING --to RING [options]\n\n\
    Follows the feeds of the nodes --from, and deletes in the ring --to what changes there, or stores the new values (--values).\n\
    Runs until it is told to stop (SIGTERM, SIGINT): then it carries out what is under way, and writes its cursor.\n\
    With --json, and with or without --to, it writes the events to standard output, a line of JSON each.\n\
    What it cannot follow without a gap it deletes there as a whole, and says so. docs/regions.md has what is promised.";

/// The longest a request takes unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Threads that write to the target: batches that are on their way.
const SENDERS: usize = 48;
/// How often the cursor is written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often a line of progress is written, unless said otherwise.
const EVERY: Duration = Duration::from_secs(10);
/// How long a node that has left the ring is still followed: not everybody learns of it at once.
const LEAVE_AFTER: Duration = Duration::from_secs(30);
/// How long what is under way may take when the relay is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// The same complaint is not repeated before this has passed.
const QUIET: Duration = Duration::from_secs(10);
/// What the relay's changes are marked with, unless said otherwise.
const ORIGIN: u16 = 1;

/// What is done where something was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGap {
    /// All keys of the target with the prefix are listed and deleted.
    DeletePrefix,
    /// The target is flushed.
    Flush,
    /// Nothing: the relay ends.
    Stop,
}

/// How the relay is to work.
pub struct Settings {
    prefix: Vec<u8>,
    carries: Carries,
    on_gap: OnGap,
    origin: u16,
    rate: Option<f64>,
    json: bool,
    /// Markers of what has been carried over are taken away.
    markers: bool,
}

/// The target.
pub struct To {
    client: Client,
    placement: Placement,
    copies: usize,
    access: Access,
    from_access: Access,
    pace: Option<Mutex<Pace>>,
}

impl To {
    /// A client of one node, whose writes are marked.
    fn client_of(&self, node: &Node, origin: u16) -> Client {
        let cluster = Cluster::of(vec![node.clone()]);
        Client::new([node.clone()], options(&self.access, &cluster, origin))
    }
}

/// A relay, as all its threads see it.
pub struct Relay {
    settings: Settings,
    /// How feeds are read.
    from_options: ClientOptions,
    to: Option<To>,
    state: Mutex<State>,
    /// There may be something to send.
    work: Condvar,
    counts: Counts,
    /// No more is read.
    stopping: AtomicBool,
    /// Nothing more is done.
    over: AtomicBool,
    /// Why it cannot go on.
    failure: Mutex<Option<String>>,
    told: Mutex<HashMap<String, Instant>>,
}

impl Relay {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// It cannot go on.
    fn fail(&self, why: String) {
        lock(&self.failure).get_or_insert(why);
        self.stopping.store(true, Relaxed);
    }

    fn say(&self, text: &str) {
        eprintln!("ketchctl: {text}");
    }

    /// A complaint about a node, which is not repeated all the time.
    fn tell(&self, node: &str, text: &str) {
        let text = match text.strip_prefix(&format!("{node}: ")) {
            Some(_) => text.to_owned(),
            None => format!("{node}: {text}"),
        };
        self.complain(text);
    }

    fn tell_error(&self, error: &Error) {
        self.complain(error.to_string());
    }

    fn complain(&self, text: String) {
        let mut told = lock(&self.told);
        let now = Instant::now();
        told.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        if let Entry::Vacant(new) = told.entry(text) {
            eprintln!("ketchctl: {}", new.key());
            new.insert(now);
        }
    }

    /// Sleeps, unless the relay ends.
    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.is_over() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes lines of JSON, in full or never again.
    fn write_lines(&self, lines: &str) {
        let mut out = io::stdout().lock();
        let written = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = written {
            self.fail(format!("standard output: {error}"));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Options of clients of the target.
fn options(access: &Access, cluster: &Cluster, origin: u16) -> ClientOptions {
    let options = access.options(cluster);
    // Each batch that is on its way has a connection. Which keys a server takes, it says itself.
    options
        .pool_connections_max(SENDERS + 2)
        .long_binary_keys(true)
        .origin(origin)
}

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options
        .optmulti("", "from", "the ring whose changes are carried over", "RING")
        .optmulti("", "to", "the ring that they are carried to", "RING")
        .optflag("", "values", "store the new values, and do not only delete the old ones")
        .optflag("", "deletes-only", "leave what was stored alone, and carry over what was deleted or marked as stale")
        .optopt("", "prefix", "only keys that begin so", "TEXT")
        .optopt("", "cursor", "the file that says how far the relay is, to go on there", "FILE")
        .optopt("", "spool", "a directory for what waits while the target cannot be reached, and the most it may take", "DIR,MB")
        .optopt("", "memory", "memory for what waits, in megabytes (default 64)", "MB")
        .optopt("", "rate", "change at most so many keys in a second", "N")
        .optopt("", "origin", &format!("what its changes are marked with: 1 to 65535, or a name that stands for such a number (default {ORIGIN})"), "NAME")
        .optopt("", "on-gap", "what to do there when something was missed: delete-prefix (default), flush, stop", "WAY")
        .optflag("", "markers", "take away the markers of clients (remote_marker) whose change is carried over")
        .optflag("", "json", "write the events to standard output, a line of JSON each")
        .optopt("", "every", "how often to write a line of progress, 0 for never (default 10s)", "TIME")
        .optopt("", "metrics", "write figures into this file, for the textfile collector of Prometheus' node exporter", "FILE");
    cluster::placement_options(&mut options);
    cluster::copies_option(&mut options);
    access::options(&mut options);
    access::options_of(&mut options, "from-");
    let usage = format!("{USAGE}\n{}", rings::ABOUT);
    let matches = words::parse(given, options, &usage)?;
    words::none_but(&matches, 0, "relay")?;
    let mut settings = settings(&matches)?;
    let from_access = access::from_of(&matches, "from-")?.or_within(&matches, TIMEOUT);
    let to_access = access::from(&matches)?.or_within(&matches, TIMEOUT);
    let from = ring(&matches, "from")?.ok_or_else(|| Failure::usage("--from is missing"))?;
    let to = ring(&matches, "to")?;
    if to.is_none() && !settings.json {
        return Err(Failure::usage(
            "--to is missing, or --json to write the events",
        ));
    }
    if to.is_none() {
        // Whoever reads the lines is told, and deals with it.
        settings.on_gap = OnGap::DeletePrefix;
    }
    let every = words::option(&matches, "every", EVERY, units::duration)?;
    let spool = match matches.opt_str("spool") {
        Some(text) => {
            let (dir, bytes) = state::parse_spool(&text).ok_or_else(|| {
                Failure::usage(format!(
                    "--spool {text}: it is DIR,MB, like /var/spool/relay,512"
                ))
            })?;
            let opened = Spool::open(dir, bytes);
            Some(opened.map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?)
        }
        None => None,
    };
    let memory_max = words::option(&matches, "memory", MEMORY_MAX, |text| {
        let mb: f64 = text.parse().ok().filter(|mb| (0.01..=1e6).contains(mb))?;
        Some((mb * f64::from(1 << 20)) as usize)
    })?;
    let path = matches.opt_str("cursor").map(PathBuf::from);
    let cursor = match &path {
        Some(path) => Cursor::load(path)
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?,
        None => None,
    };

    let told = |ring: &str| {
        let ring = ring.to_owned();
        move |error: SourceError| Failure::failed(format!("{ring}: {error}"))
    };
    let now = Instant::now();
    let mut source = rings::ring(&from, "from", &from_access)?;
    source.adopt(&from_access.options(&Cluster::of(Vec::new())));
    let sources = Topology::new(source, now).map_err(told(&from))?;
    let placement = cluster::placement(&matches)?;
    let copies = words::option(&matches, "copies", 1, |text| {
        let copies = text.parse().ok();
        copies.filter(|copies| (1..=ketch_client::COPIES_MAX).contains(copies))
    })?;
    let mut targets = None;
    let target = match &to {
        None => None,
        Some(to) => {
            let ring = rings::ring(to, "to", &to_access)?;
            let topology = Topology::new(ring, now).map_err(told(to))?;
            let nodes = topology.nodes().to_vec();
            targets = Some(topology);
            let cluster = Cluster {
                nodes,
                placement,
                copies,
            };
            let options = self::options(&to_access, &cluster, settings.origin);
            Some(To {
                client: Client::new(cluster.nodes, options),
                placement,
                copies,
                access: to_access,
                from_access: from_access.clone(),
                pace: settings
                    .rate
                    .map(|rate| Mutex::new(Pace::new(Some(rate), None))),
            })
        }
    };
    let routes = targets
        .as_ref()
        .map_or(Vec::new(), |targets| targets.nodes().to_vec());
    let (spool, whole) = spool.map_or((None, true), |(spool, whole)| (Some(spool), whole));
    let mut state = State::new(
        Routes::new(placement, copies, routes),
        spool,
        memory_max,
        settings.carries.values,
    );
    if !whole {
        state.overflow(&"its files are damaged");
    }
    let is_first = cursor.is_none();
    if is_first {
        eprintln!(
            "ketchctl: no cursor: the relay begins with what happens from now on; ketchctl audit tells what differs already"
        );
    }
    let cursor = cursor.unwrap_or_default();
    if cursor.purge {
        eprintln!("ketchctl: the cursor says that something was missed: it is deleted now");
        state.purge.want(true);
    }
    for node in sources.nodes().iter() {
        let place = cursor.places.get(&node.address()).copied();
        state.source(node.clone(), place, place.is_none() && !is_first);
    }
    let relay = Relay {
        settings,
        from_options: from_access.options(&Cluster::of(Vec::new())),
        to: target,
        state: Mutex::new(state),
        work: Condvar::new(),
        counts: Counts::default(),
        stopping: AtomicBool::new(false),
        over: AtomicBool::new(false),
        failure: Mutex::new(None),
        told: Mutex::default(),
    };
    let files = Files {
        cursor: path,
        metrics: matches.opt_str("metrics").map(PathBuf::from),
        every,
    };
    carry_on(&relay, &files, sources, targets)
}

fn settings(matches: &Matches) -> Result<Settings, Failure> {
    let settings = Settings {
        prefix: matches.opt_str("prefix").unwrap_or_default().into_bytes(),
        carries: Carries {
            values: matches.opt_present("values"),
            deletes_only: matches.opt_present("deletes-only"),
        },
        on_gap: words::option(matches, "on-gap", OnGap::DeletePrefix, |text| match text {
            "delete-prefix" => Some(OnGap::DeletePrefix),
            "flush" => Some(OnGap::Flush),
            "stop" => Some(OnGap::Stop),
            _ => None,
        })?,
        origin: words::option(matches, "origin", ORIGIN, origin)?,
        rate: words::option(matches, "rate", None, |text| {
            let rate = units::quantity(text, 1000.0).filter(|rate| *rate >= 1.0);
            rate.map(Some)
        })?,
        json: matches.opt_present("json"),
        markers: matches.opt_present("markers"),
    };
    if settings.carries.values && settings.carries.deletes_only {
        return Err(Failure::usage(
            "--values and --deletes-only do not go together",
        ));
    }
    if settings.on_gap == OnGap::Flush && !settings.prefix.is_empty() {
        return Err(Failure::usage(
            "--on-gap flush would empty more than --prefix says; --on-gap delete-prefix does not",
        ));
    }
    Ok(settings)
}

/// A number, or one that stands for a name: the same for the same name.
fn origin(text: &str) -> Option<u16> {
    if text.is_empty() {
        return None;
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|&number| number > 0);
    }
    Some((fnv(text.as_bytes()) % u64::from(u16::MAX)) as u16 + 1)
}

/// The ring that an option names; lists of several are one.
fn ring(matches: &Matches, option: &str) -> Result<Option<String>, Failure> {
    let given = matches.opt_strs(option);
    match &given[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several if !several.iter().any(|ring| cluster::is_source(ring)) => {
            Ok(Some(several.join(",")))
        }
        _ => Err(Failure::usage(format!(
            "--{option} names more than one ring"
        ))),
    }
}

/// What the main thread writes.
struct Files {
    cursor: Option<PathBuf>,
    metrics: Option<PathBuf>,
    every: Duration,
}

/// What the threads that watch rings tell the main thread.
enum Changed {
    Sources(Vec<Node>),
    Targets(Vec<Node>),
}

fn carry_on(
    relay: &Relay,
    files: &Files,
    sources: Topology,
    targets: Option<Topology>,
) -> Result<(), Failure> {
    let stop = signals::seen()?;
    let (changes, changed) = mpsc::channel();
    let saved = thread::scope(|scope| {
        let count = relay.lock().sources.len();
        for id in 0..count {
            scope.spawn(move || follow::run(relay, id));
        }
        if let Some(to) = &relay.to {
            for _ in 0..SENDERS {
                scope.spawn(|| send::run(relay, to));
            }
            scope.spawn(|| purge::run(relay));
        }
        let to_main = changes.clone();
        scope.spawn(move || {
            watch(relay, sources, |nodes| {
                to_main.send(Changed::Sources(nodes)).is_ok()
            })
        });
        if let Some(targets) = targets {
            scope.spawn(move || {
                watch(relay, targets, |nodes| {
                    changes.send(Changed::Targets(nodes)).is_ok()
                })
            });
        }
        let mut clerk = Clerk::new(relay, files);
        while !relay.is_stopping() {
            if stop.load(Relaxed) {
                relay.stopping.store(true, Relaxed);
            }
            for change in changed.try_iter() {
                match change {
                    Changed::Targets(nodes) => {
                        relay.say(&format!("the target has {} nodes now", nodes.len()));
                        retarget(relay, nodes);
                    }
                    Changed::Sources(nodes) => {
                        for id in resource(relay, &nodes) {
                            scope.spawn(move || follow::run(relay, id));
                        }
                    }
                }
            }
            let now = Instant::now();
            let refilled = {
                let mut state = relay.lock();
                for source in &mut state.sources {
                    source.is_gone |= source.leaves_at.is_some_and(|at| now >= at);
                }
                state.settle_doubts(now, false) | state.refill(now)
            };
            if refilled {
                relay.work.notify_all();
            }
            clerk.tick(now);
            thread::sleep(Duration::from_millis(if refilled { 2 } else { 20 }));
        }
        // What is under way is carried out; what the spool has stays there.
        let until = Instant::now() + DRAIN;
        while relay.to.is_some() && Instant::now() < until {
            let mut state = relay.lock();
            state.settle_doubts(Instant::now(), true);
            if state.queue.len() == 0 {
                break;
            }
            drop(state);
            relay.work.notify_all();
            thread::sleep(Duration::from_millis(5));
        }
        relay.over.store(true, Relaxed);
        relay.work.notify_all();
        clerk.end()
    });
    let left = relay.lock().queue.len();
    if left > 0 {
        relay.say(&format!(
            "{} keys are not carried over; {}",
            units::grouped(left as u64),
            match files.cursor {
                Some(_) => "the cursor stands before them",
                None => "without a cursor they are lost",
            }
        ));
    }
    match lock(&relay.failure).take() {
        Some(why) => Err(Failure::failed(why)),
        None if !saved => Err(Failure::Told),
        None => Ok(()),
    }
}

/// Tells of other nodes of a ring until the relay ends.
fn watch(relay: &Relay, mut topology: Topology, tell: impl Fn(Vec<Node>) -> bool) {
    const STEP: Duration = Duration::from_millis(200);
    if topology.due_at().is_none() {
        return;
    }
    while !relay.is_stopping() {
        if topology.wait(STEP).is_none() {
            thread::sleep(STEP);
        }
        match topology.refresh(Instant::now()) {
            Ok(true) => {
                if !tell(topology.nodes().to_vec()) {
                    return;
                }
            }
            Ok(false) => {}
            Err(error) => relay.complain(format!("the list of nodes: {error}")),
        }
    }
}

/// The target's nodes are others.
fn retarget(relay: &Relay, nodes: Vec<Node>) {
    let Some(to) = &relay.to else { return };
    // What was under way to where a key was goes there; nothing is looked for there.
    to.client.set_nodes(nodes.clone(), Duration::ZERO);
    let routes = Routes::new(to.placement, to.copies, nodes);
    relay.lock().set_routes(routes, Instant::now());
    relay.work.notify_all();
}

/// The sources are others; gives the numbers of those to follow that are new.
fn resource(relay: &Relay, nodes: &[Node]) -> Vec<usize> {
    let mut state = relay.lock();
    let mut new = Vec::new();
    for node in nodes {
        let address = node.address();
        let known = state.sources.iter_mut();
        match known
            .filter(|one| !one.is_gone)
            .find(|one| one.address == address)
        {
            Some(known) => known.leaves_at = None,
            None => {
                eprintln!("ketchctl: {address} has joined the ring");
                new.push(state.source(node.clone(), None, true));
            }
        }
    }
    let at = Instant::now() + LEAVE_AFTER;
    for source in &mut state.sources {
        let stays = nodes.iter().any(|node| node.address() == source.address);
        if !stays && !source.is_gone && source.leaves_at.is_none() {
            eprintln!("ketchctl: {} has left the ring", source.address);
            source.leaves_at = Some(at);
        }
    }
    new
}

/// Writes cursor, figures and progress.
struct Clerk<'r> {
    relay: &'r Relay,
    files: &'r Files,
    saved: Cursor,
    /// What failed last is told once.
    fails: bool,
    save_at: Instant,
    tell_at: Instant,
    told_at: Instant,
    applied: u64,
}

impl<'r> Clerk<'r> {
    fn new(relay: &'r Relay, files: &'r Files) -> Self {
        let now = Instant::now();
        Clerk {
            relay,
            files,
            saved: Cursor::default(),
            fails: false,
            save_at: now,
            tell_at: now + files.every,
            told_at: now,
            applied: 0,
        }
    }

    fn tick(&mut self, now: Instant) {
        if now >= self.save_at {
            self.save();
            self.save_at = now + SAVE_EVERY;
        }
        if !self.files.every.is_zero() && now >= self.tell_at {
            self.progress(now);
            self.tell_at = now + self.files.every;
        }
    }

    fn end(&mut self) -> bool {
        let saved = self.save();
        if !self.files.every.is_zero() {
            self.progress(Instant::now());
        }
        saved
    }

    fn progress(&mut self, now: Instant) {
        let Relay { counts, .. } = self.relay;
        let figures = Figures::of(&self.relay.lock(), now);
        let since = now.saturating_duration_since(self.told_at);
        let line = report::line(counts, &figures, self.applied, since);
        eprintln!("ketchctl: {line}");
        self.applied = report::applied(counts);
        self.told_at = now;
    }

    /// The cursor, if it says something new, and the figures; false if the cursor could not be written.
    fn save(&mut self) -> bool {
        let Relay { counts, .. } = self.relay;
        if let Some(path) = &self.files.metrics {
            let figures = Figures::of(&self.relay.lock(), Instant::now());
            if let Err(error) = report::save_metrics(path, counts, &figures) {
                self.relay.complain(format!("{}: {error}", path.display()));
            }
        }
        let (cursor, spool) = {
            let mut state = self.relay.lock();
            let flushed = state.spool.as_mut().map_or(Ok(()), Spool::flush);
            if let Err(error) = flushed {
                counts.overflows.fetch_add(1, Relaxed);
                state.overflow(&error);
            }
            let spool = state.spool.as_ref().map_or(Ok(None), Spool::to_sync);
            let mut cursor = state.cursor();
            // Without a target there is nothing to delete.
            cursor.purge &= self.relay.to.is_some();
            (cursor, spool)
        };
        let Some(path) = &self.files.cursor else {
            return true;
        };
        if cursor == self.saved {
            return !self.fails;
        }
        // What was spooled is kept before the cursor leaves it behind.
        let synced = spool.and_then(|file| file.map_or(Ok(()), |file| file.sync_data()));
        match synced.and_then(|()| cursor.save(path)) {
            Ok(()) => {
                if std::mem::take(&mut self.fails) {
                    self.relay.say("the cursor is written again");
                }
                self.saved = cursor;
                true
            }
            Err(error) => {
                counts.cursor_failures.fetch_add(1, Relaxed);
                if !self.fails {
                    eprintln!(
                        "ketchctl: CURSOR NOT WRITTEN: {}: {error}; a relay that starts now begins further back",
                        path.display()
                    );
                }
                self.fails = true;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        assert_eq!(origin("7"), Some(7));
        assert_eq!(origin("65535"), Some(65_535));
        for wrong in ["", "0", "65536", "99999999999"] {
            assert_eq!(origin(wrong), None, "{wrong}");
        }
        let (east, west) = (origin("east"), origin("west"));
        assert!(east.is_some() && west.is_some() && east != west);
        assert_eq!(east, origin("east"));
    }
}
