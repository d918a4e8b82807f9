//! This server's place in a ring, as an engine has it written down (`-o register`): it registers itself, and hands the ring it sees
//! to clients that ask for it by `config get cluster`.
//!
//! ```text
//!  etcd, Consul <--register, keep, say goodbye-- Enrolment (a thread of the crate)
//!        |                            '-- "config ring leave", "config ring join": what an operator wants (state::Place)
//!        '--ring, changes--> watcher (a thread here) --> state: the node list of `config get cluster`, figures
//! ```
//!
//! Ms1. The server serves whether or not the engine can be reached: no client waits for it.
//! Ms2. While the engine is away, or tells of nobody, the list stays as it was (`ketch_ring_frozen`).

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use ketch_membership::{Enrolment, Member, Order, Registry};

use crate::settings::Register;
use crate::state::{CONFIG_LEN_MAX, ClusterConfig, Place, PlaceOrder};

/// How long one question for a change may wait, and how long the watcher pauses after an error.
const WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

/// A server that is registered; dropping it leaves the ring.
#[derive(Debug)]
pub struct Membership {
    _enrolment: Enrolment,
    stop: Arc<AtomicBool>,
}

impl Membership {
    /// Registers the server that listens on `addrs`, and follows the ring.
    pub fn begin(
        register: &Register,
        addrs: &[SocketAddr],
        cluster: Arc<ClusterConfig>,
    ) -> Result<Self, String> {
        let registry = || register.url.parse::<Registry>();
        let enrolling = registry()?;
        let member = member(register, addrs, enrolling.servers())?;
        let lease = Duration::from_secs(register.lease_s.into());
        let failed = |error: io::Error| format!("cannot start a thread: {error}");
        let configured = member.clone();
        let enrolment = Enrolment::begin(enrolling, member, lease).map_err(failed)?;
        let orders = enrolment.orders();
        let weight = |member: &Member| u64::from(member.weight) * u64::from(!member.leaving);
        cluster.ring.weight.store(weight(&configured), Relaxed);
        let of_server = Arc::downgrade(&cluster);
        let place = move |order| {
            let order = match order {
                PlaceOrder::Leave => Order::Leave,
                PlaceOrder::Join(weight) => Order::Join(weight),
            };
            if let Some(cluster) = of_server.upgrade() {
                let weight = weight(&order.apply(&configured));
                cluster.ring.weight.store(weight, Relaxed);
            }
            orders.give(order);
        };
        // A process has one place.
        let _ = cluster.ring.place.set(Place(Box::new(place)));
        let stop = Arc::new(AtomicBool::new(false));
        let (mut registry, told) = (registry()?, stop.clone());
        if let Some(share) = register.leave_share {
            registry.leave_share(share);
        }
        let watcher = thread::Builder::new().name("ring".to_owned());
        watcher
            .spawn(move || follow(registry, &cluster, &told))
            .map_err(failed)?;
        Ok(Membership {
            _enrolment: enrolment,
            stop,
        })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// What is written down.
fn member(register: &Register, addrs: &[SocketAddr], servers: &[String]) -> Result<Member, String> {
    let (host, port) = match &register.address {
        Some(address) => address.clone(),
        None => {
            let addr = addrs.iter().find(|addr| !addr.ip().is_loopback());
            let addr = addr
                .or(addrs.first())
                .ok_or("without a TCP port there is nothing to register")?;
            let ip = match addr.ip().is_unspecified() {
                true => own_address(servers).ok_or(
                    "no address of this machine leads to it; node_address=HOST:PORT says which one clients are to use",
                )?,
                false => addr.ip(),
            };
            (ip.to_string(), addr.port())
        }
    };
    let mut member = Member::new("", host, port);
    member.name = register.name.clone().unwrap_or_else(|| member.address());
    member.weight = register.weight;
    member.zone.clone_from(&register.zone);
    member.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    Ok(member)
}

/// The address from which this machine reaches the engine: others reach it there, too, unless it stands behind a translation.
fn own_address(servers: &[String]) -> Option<IpAddr> {
    let reached = |server: &String| {
        let to = server.to_socket_addrs().ok()?.next()?;
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        // Nothing is sent: the system only chooses the way.
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    servers.iter().find_map(reached)
}

/// Keeps the node list at what the engine says, until it is told to stop.
fn follow(mut registry: Registry, cluster: &ClusterConfig, stop: &AtomicBool) {
    let ring = &cluster.ring;
    let mut version = 0;
    let mut held: Vec<Member> = Vec::new();
    let mut complaint = String::new();
    while !stop.load(Relaxed) {
        let listed = registry.ring().and_then(|listing| {
            if listing.members != held {
                // It grows, even if the engine has begun anew.
                version = listing.revision.max(version + 1);
                hand_out(cluster, version, &listing.members);
                held = listing.members;
            }
            ring.frozen.store(false, Relaxed);
            complaint.clear();
            registry.changed_since(listing.revision, WAIT)
        });
        if let Err(error) = listed {
            ring.frozen.store(true, Relaxed);
            let error = error.to_string();
            if error != complaint {
                log::warn!("{}: the ring stays as it is: {error}", registry.url());
                complaint = error;
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Makes the members the list that clients get.
fn hand_out(cluster: &ClusterConfig, version: u64, members: &[Member]) {
    let mut list = format!("{version}\n");
    for (i, member) in members.iter().enumerate() {
        let ip = match member.host.parse::<IpAddr>() {
            Ok(_) => &member.host,
            Err(_) => "",
        };
        let blank = if i > 0 { " " } else { "" };
        write!(list, "{blank}{}|{ip}|{}", member.host, member.port)
            .expect("a String takes everything");
    }
    list.push('\n');
    cluster.ring.members.store(members.len() as u64, Relaxed);
    if list.len() > CONFIG_LEN_MAX {
        log::warn!(
            "the ring's {} members do not fit into \"config get cluster\"",
            members.len()
        );
        return;
    }
    cluster.set(0, list.as_bytes(), false);
    let names: Vec<String> = members.iter().map(Member::to_string).collect();
    log::info!("the ring is now {}", names.join(", "));
}
