use super::super::unawaited::{Does, Unawaited};
use super::*;

fn member() -> Member {
    Member::new(Node::new("a", 1))
}

const MS: Duration = Duration::from_millis(1);

/// What a probe sends, without its tags.
fn probe(member: &Member, now: Instant) -> Option<String> {
    let probe = String::from_utf8(member.probe_due(now)?.to_vec()).expect("text");
    let words = probe.split_inclusive("\r\n").map(|line| {
        let tag = line.find(" O").unwrap_or(line.len() - 2);
        format!("{}\r\n", &line[..tag])
    });
    Some(words.collect())
}

#[test]
fn failures_in_a_row_eject_and_probes_bring_back() {
    let options = ClientOptions::default().settle(100 * MS);
    let (member, mut now) = (member(), Instant::now());
    for _ in 0..2 {
        member.failed(now, &options, 0, || true);
        member.failed(now, &options, 0, || true);
        assert_eq!(member.standing(now), Standing::Live);
        member.worked(&options);
    }
    for _ in 0..3 {
        member.failed(now, &options, 0, || true);
    }
    assert_eq!(member.standing(now), Standing::Ejected);
    // Three quarters of 200, 400, ... ms, and never more than 10 s.
    for pause in [150, 300, 600, 1200, 2400, 4800, 7500, 7500] {
        assert_eq!(member.probe_due(now + (pause - 1) * MS), None);
        now += pause * MS;
        assert_eq!(member.probe_due(now).as_deref(), Some(&b"mn\r\n"[..]));
        assert_eq!(member.probe_due(now), None, "one at a time");
        member.probe_failed(now, &options, 0, Duration::MAX);
    }
    now += 7500 * MS;
    assert!(member.probe_due(now).is_some());
    member.probe_answered(now, &options);
    assert_eq!(member.standing(now), Standing::Settling);
    assert_eq!(member.standing(now + 100 * MS), Standing::Live);
    assert!(!member.is_unwell());
}

#[test]
fn failures_outside_the_window_do_not_add_up() {
    let options = ClientOptions::default();
    let (member, mut now) = (member(), Instant::now());
    for _ in 0..10 {
        member.failed(now, &options, 0, || true);
        now += options.eject_window;
        member.failed(now, &options, 0, || true);
        now += MS;
    }
    assert_eq!(member.standing(now), Standing::Live);
}

#[test]
fn what_was_missed_is_deleted_before_the_node_is_back() {
    let options = ClientOptions::default().missed_keys_max(2);
    let (member, mut now) = (member(), Instant::now());
    for _ in 0..3 {
        member.failed(now, &options, 0, || true);
    }
    member.missed(b"k", now, &options);
    member.missed(b"k", now, &options);
    now += 200 * MS;
    let sent = probe(&member, now);
    assert_eq!(sent.as_deref(), Some("md k\r\nmn\r\n"));
    member.missed(b"l", now, &options);
    member.missed(b"one too many", now, &options);
    member.probe_answered(now, &options);
    assert_eq!(member.standing(now), Standing::Ejected, "l came meanwhile");
    let sent = probe(&member, now);
    assert_eq!(sent.as_deref(), Some("md l\r\nmn\r\n"));
    // Perhaps written on the node behind the probe's back. Without the node it may be written as often as it likes.
    member.unsure(b"l", now, &options);
    member.probe_answered(now, &options);
    assert_eq!(member.standing(now), Standing::Ejected);
    assert!(member.probe_due(now).is_some());
    member.missed(b"l", now, &options);
    member.probe_answered(now, &options);
    assert_eq!(member.standing(now), Standing::Settling);
}

#[test]
fn failures_that_nobody_waited_for_count_when_they_are_noticed() {
    let options = ClientOptions::default().eject_after(2);
    let (member, now) = (member(), Instant::now());
    let member = Arc::new(member);
    let watch = || {
        let options = Arc::new(options.clone());
        Unawaited::new(
            member.clone(),
            options,
            Does::Writes,
            [&b"k"[..]].into_iter(),
        )
    };
    watch().answered();
    assert!(!member.is_unwell());
    drop(watch());
    assert!(
        member.is_unwell()
            && !member.tend(now, &options, || member.failed(now, &options, 0, || true))
    );
    let now = now + options.probe_after;
    let sent = probe(&member, now);
    assert_eq!(sent.as_deref(), Some("md k\r\nmn\r\n"));
    member.probe_answered(now, &options);
    assert!(!member.is_unwell());
    drop((watch(), watch()));
    member.worked(&options);
    assert!(
        member.tend(now, &options, || member.failed(now, &options, 0, || true)) && !member.is_in()
    );
}

#[test]
fn a_write_that_a_delete_overtook_is_undone_when_it_is_answered() {
    let options = ClientOptions::default();
    let (member, now) = (Arc::new(member()), Instant::now());
    let watch = || {
        let options = Arc::new(options.clone());
        Unawaited::new(
            member.clone(),
            options,
            Does::Writes,
            [&b"k"[..]].into_iter(),
        )
    };
    let later = now + options.probe_after;
    let (first, second) = (watch(), watch());
    member.overtakes(b"l");
    first.answered();
    assert!(!member.is_unwell());
    member.overtakes(b"k");
    assert!(!member.is_unwell());
    second.answered();
    assert!(!member.tend(now, &options, || member.failed(now, &options, 0, || true)));
    let sent = probe(&member, later);
    assert_eq!(sent.as_deref(), Some("md k\r\nmn\r\n"));
    member.probe_answered(later, &options);
    member.overtakes(b"k");
    assert!(!member.is_unwell());
}

/// A key that has left a node is neither read nor written there before its delete is answered: it may come back.
#[test]
fn what_a_key_has_left_is_cleared_before_it_comes_back() {
    let options = ClientOptions::default();
    let (member, now) = (Arc::new(member()), Instant::now());
    let watch = |does| {
        let options = Arc::new(options.clone());
        Unawaited::new(member.clone(), options, does, [&b"k"[..]].into_iter())
    };
    let clearing = watch(Does::Clears);
    assert!(member.owes(b"k") && !member.is_cleared(b"k") && member.is_cleared(b"l"));
    // Another delete may overtake it, and does no harm.
    member.overtakes(b"k");
    clearing.answered();
    assert!(!member.owes(b"k") && member.is_cleared(b"k") && !member.is_unwell());
    // It was not answered: then it is owed, and paid by what is written there.
    drop(watch(Does::Clears));
    assert!(member.owes(b"k") && member.is_cleared(b"k"));
    let debt = member.debt(b"k").expect("it is owed");
    member.paid(b"k", debt);
    assert!(!member.owes(b"k") && probe(&member, now).is_none());
}

/// What is written pays what was owed before it was sent, unless an earlier value may still come, or a delete is under way.
#[test]
fn what_is_written_pays_what_was_owed() {
    let options = ClientOptions::default();
    let (member, now) = (member(), Instant::now());
    member.missed(b"k", now, &options);
    let debt = member.debt(b"k").expect("it is owed");
    member.unsure(b"k", now, &options);
    assert_eq!(member.debt(b"k"), None, "a value may come");
    member.paid(b"k", debt);
    assert!(member.owes(b"k"));
    let later = now + options.probe_after;
    let sent = probe(&member, later);
    assert_eq!(sent.as_deref(), Some("md k\r\nmn\r\n"));
    assert!(!member.is_cleared(b"k"));
    // What is owed while the probe is under way is deleted by the next.
    member.unsure(b"k", later, &options);
    member.probe_answered(later, &options);
    assert!(member.owes(b"k"));
}
