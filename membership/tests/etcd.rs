//! Against a real etcd: what is listed, what is learnt in time, and what an engine that is away, wiped or begun anew changes.

use std::time::{Duration, Instant};

use ketch_membership::{Enrolment, Error, Member, Registry};
use ketch_testing::{Etcd, PATIENCE, wait_within};

const LEASE: Duration = Duration::from_secs(2);

fn names(registry: &mut Registry) -> String {
    let listing = registry.members().expect("etcd answers");
    let names: Vec<&str> = listing.members.iter().map(|member| &*member.name).collect();
    names.join(" ")
}

fn enrol(etcd: &Etcd, name: &str) -> Enrolment {
    let registry = etcd.url("ring").parse().unwrap();
    Enrolment::begin(registry, Member::new(name, "10.0.0.7", 11211), LEASE).unwrap()
}

#[test]
fn members_come_and_go() {
    let etcd = Etcd::start();
    let mut registry: Registry = etcd.url("ring").parse().unwrap();
    assert_eq!(names(&mut registry), "");
    assert!(matches!(registry.ring(), Err(Error::Empty)));
    let begin = registry.members().unwrap().revision;
    let nothing = registry
        .changed_since(begin, Duration::from_millis(200))
        .unwrap();
    assert!(!nothing, "nothing has changed");

    // Whoever waits learns of a change when it comes, and of one that came before at once.
    let a = enrol(&etcd, "a");
    assert!(registry.changed_since(begin, PATIENCE).unwrap());
    assert!(registry.changed_since(begin, PATIENCE).unwrap());
    assert_eq!(names(&mut registry), "a");

    // A ring of the same beginning, and its neighbours, are other rings.
    let other: Registry = etcd.url("ring-2").parse().unwrap();
    let other = Enrolment::begin(other, Member::new("z", "h", 1), LEASE).unwrap();
    let within: Registry = etcd.url("rin").parse().unwrap();
    let within = Enrolment::begin(within, Member::new("y", "h", 1), LEASE).unwrap();
    let b = enrol(&etcd, "b");
    wait_within("both are there", PATIENCE, || names(&mut registry) == "a b");

    // One that goes is gone at once, not when its lease has ended.
    let before = registry.members().unwrap().revision;
    let began = Instant::now();
    drop(a);
    assert!(registry.changed_since(before, PATIENCE).unwrap());
    assert_eq!(names(&mut registry), "b");
    assert!(began.elapsed() < LEASE, "{:?}", began.elapsed());
    drop((b, other, within));
    assert_eq!(names(&mut registry), "");
}

#[test]
fn who_stays_is_kept_alive() {
    let etcd = Etcd::start();
    let mut registry: Registry = etcd.url("ring").parse().unwrap();
    let _stays = enrol(&etcd, "stays");
    wait_within("it is there", PATIENCE, || names(&mut registry) == "stays");
    std::thread::sleep(LEASE + LEASE / 2);
    assert_eq!(names(&mut registry), "stays", "it is kept alive");
}

#[test]
fn an_engine_that_was_away_or_wiped_is_told_again() {
    let mut etcd = Etcd::start();
    let mut registry: Registry = etcd.url("ring").parse().unwrap();
    let _a = enrol(&etcd, "a");
    wait_within("it is there", PATIENCE, || names(&mut registry) == "a");
    let revision = registry.members().unwrap().revision;
    etcd.kill();
    assert!(matches!(registry.members(), Err(Error::Unreachable(_))));
    assert!(
        registry
            .changed_since(revision, Duration::from_secs(1))
            .is_err()
    );
    etcd.restart();
    wait_within("it is there again", PATIENCE, || {
        names(&mut registry) == "a"
    });

    etcd.kill();
    etcd.wipe();
    // Nobody was away for long enough to notice but the lease is another engine's.
    etcd.restart();
    wait_within("it is there once more", PATIENCE, || {
        registry
            .members()
            .is_ok_and(|listing| listing.members.len() == 1)
    });
}

#[test]
fn what_others_write_by_hand() {
    let etcd = Etcd::start();
    let put = |key: &str, value: &str| {
        let url = etcd
            .url("")
            .replace("etcd", "http")
            .trim_end_matches('/')
            .to_owned();
        let status = std::process::Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &url, "put", key, value])
            .output();
        assert!(
            status
                .expect("etcdctl is installed (Debian: etcd-client)")
                .status
                .success()
        );
    };
    put("ring/b", "10.0.0.8:11211");
    put(
        "ring/a",
        r#"{"address":"[::1]:11212","weight":3,"zone":"left"}"#,
    );
    put("ring/bad", "no address");
    put("ring/with space", "10.0.0.9:1");
    let mut registry: Registry = etcd.url("ring").parse().unwrap();
    let listing = registry.ring().unwrap();
    let written: Vec<String> = listing.members.iter().map(Member::to_string).collect();
    assert_eq!(written, ["a=[::1]:11212:3@left", "b=10.0.0.8:11211"]);
}
