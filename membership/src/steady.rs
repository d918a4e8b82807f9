//! A ring that does not fall apart because its list does.
//!
//! An engine that lost its data, a network that is cut, a rollout gone wrong: the list says that most members have gone, and they
//! are there. Each one that leaves the ring sends its keys to others, cold. So at most a third of the ring leaves within
//! [`WINDOW`], unless another share is said; of the others the clients find out by themselves whether they answer. Who says goodbye leaves at once, and counts for nothing.

use std::time::{Duration, Instant};

use crate::Member;

/// The time in which a third may leave.
pub const WINDOW: Duration = Duration::from_secs(30);

/// The share of a ring that may leave within [`WINDOW`], unless another is said.
pub const SHARE: f64 = 1.0 / 3.0;

/// How long nobody leaves once a list is there again that was not: until then those may not have registered anew whose leases
/// ended meanwhile.
const GRACE: Duration = Duration::from_secs(5);

/// What has a name, by which it is the same in two lists.
pub trait Named {
    /// The name.
    fn name(&self) -> &str;
}

impl Named for Member {
    fn name(&self) -> &str {
        &self.name
    }
}

/// The ring in force.
#[derive(Debug)]
pub struct Steady<T> {
    ring: Vec<T>,
    share: f64,
    /// There was no list when it was asked for last; there is one again, and nobody leaves until then.
    is_troubled: bool,
    held_until: Option<Instant>,
    /// Who is in the ring and not in the list, the one that has been so for longest first.
    missing: Vec<String>,
    /// When members left the ring.
    left: Vec<Instant>,
}

impl<T> Default for Steady<T> {
    fn default() -> Self {
        Steady {
            ring: Vec::new(),
            share: SHARE,
            is_troubled: false,
            held_until: None,
            missing: Vec::new(),
            left: Vec::new(),
        }
    }
}

impl<T: Named + Clone> Steady<T> {
    /// From now on this share may leave, 0 to 1; but one may always.
    pub fn leave_share(&mut self, share: f64) {
        self.share = share.clamp(0.0, 1.0);
    }

    /// There is no list, or an empty one.
    pub fn no_list(&mut self) {
        // Before the first list nobody is in the ring who could leave.
        self.is_troubled |= !self.ring.is_empty();
    }

    /// The ring after a list, which has members in it, and those that say goodbye: the list, and behind it who stays though it is not in it.
    pub fn after(&mut self, list: Vec<T>, leaving: &[T], now: Instant) -> Vec<T> {
        let leaves = |name: &str| leaving.iter().any(|member| member.name() == name);
        self.ring.retain(|member| !leaves(member.name()));
        self.missing.retain(|name| !leaves(name));
        self.left.retain(|left| now.duration_since(*left) < WINDOW);
        let is_listed = |name: &str| list.iter().any(|member| member.name() == name);
        self.missing.retain(|name| !is_listed(name));
        for member in &self.ring {
            let name = member.name();
            if !is_listed(name) && !self.missing.iter().any(|other| other == name) {
                self.missing.push(name.to_owned());
            }
        }
        let all = self.ring.len() + self.left.len();
        // A third of three is one, whatever floats make of it.
        let most = ((all as f64 * self.share + 1e-9) as usize).max(1);
        if std::mem::take(&mut self.is_troubled) {
            self.held_until = Some(now + GRACE);
        }
        self.held_until = self.held_until.filter(|until| now < *until);
        let leave = match self.held_until {
            Some(_) => 0,
            None => most.saturating_sub(self.left.len()).min(self.missing.len()),
        };
        self.missing.drain(..leave);
        self.left.extend(std::iter::repeat_n(now, leave));
        let stays = |member: &T| self.missing.iter().any(|name| name == member.name());
        let mut ring = list;
        ring.extend(self.ring.drain(..).filter(stays));
        self.ring = ring.clone();
        ring
    }

    /// How many are in the ring and not in the list.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// When the next may leave that are in the ring and not in the list.
    pub fn due_at(&self) -> Option<Instant> {
        if self.missing.is_empty() {
            return None;
        }
        let oldest = self.left.iter().min();
        self.held_until.or(oldest.map(|left| *left + WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &str) -> Vec<Member> {
        let one = |name: char| Member::new(name.to_string(), "h", 1);
        names.chars().map(one).collect()
    }

    fn names(ring: &[Member]) -> String {
        let mut names: Vec<&str> = ring.iter().map(|member| member.name.as_str()).collect();
        names.sort_unstable();
        names.concat()
    }

    #[test]
    fn a_third_leaves_in_a_window() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut steady = Steady::default();
        let mut step = |now, listed| names(&steady.after(list(listed), &[], at(now)));
        assert_eq!(step(0, "abcdef"), "abcdef");
        assert_eq!(step(1, "bcdefg"), "bcdefg", "one of six");
        assert_eq!(
            step(2, "g"),
            "cdefg",
            "the other of the two that may go, and no more"
        );
        assert_eq!(step(20, "g"), "cdefg");
        assert_eq!(
            step(31, "g"),
            "defg",
            "one has left within the last half minute"
        );
        assert_eq!(step(33, "eg"), "defg", "who comes back stays");
        assert_eq!(step(100, "eg"), "efg", "one of four");
        assert_eq!(step(131, "eg"), "eg");
    }

    #[test]
    fn one_may_always_leave() {
        let now = Instant::now();
        let mut steady = Steady::default();
        steady.after(list("ab"), &[], now);
        assert_eq!(names(&steady.after(list("a"), &[], now)), "a");
        assert_eq!(steady.due_at(), None);
        assert_eq!(names(&steady.after(list("x"), &[], now)), "ax");
        assert_eq!((steady.missing(), steady.due_at()), (1, Some(now + WINDOW)));
        assert_eq!(names(&steady.after(list("x"), &[], now + WINDOW)), "x");
    }

    #[test]
    fn nobody_leaves_right_after_an_outage() {
        let now = Instant::now();
        let mut steady = Steady::default();
        steady.after(list("abc"), &[], now);
        steady.no_list();
        // One after the other registers again.
        assert_eq!(names(&steady.after(list("b"), &[], now)), "abc");
        assert_eq!(steady.due_at(), Some(now + GRACE));
        assert_eq!(names(&steady.after(list("bc"), &[], now)), "abc");
        let later = now + GRACE;
        assert_eq!(names(&steady.after(list("bc"), &[], later)), "bc");
    }

    #[test]
    fn another_share_may_be_said() {
        let now = Instant::now();
        for (share, left) in [(0.0, "bcdef"), (0.5, "def"), (1.0, "f"), (7.0, "f")] {
            let mut steady = Steady::default();
            steady.leave_share(share);
            steady.after(list("abcdef"), &[], now);
            assert_eq!(names(&steady.after(list("f"), &[], now)), left, "{share}");
        }
    }

    #[test]
    fn who_says_goodbye_may_go() {
        let now = Instant::now();
        let mut steady = Steady::default();
        steady.after(list("abcdef"), &[], now);
        assert_eq!(names(&steady.after(list("ef"), &list("abcd"), now)), "ef");
        assert_eq!(
            names(&steady.after(list("f"), &[], now)),
            "f",
            "one has vanished"
        );
    }

    #[test]
    fn another_address_is_no_leaving() {
        let now = Instant::now();
        let mut steady = Steady::default();
        steady.after(list("abc"), &[], now);
        let moved: Vec<Member> = "abc"
            .chars()
            .map(|name| Member::new(name, "other", 2))
            .collect();
        assert_eq!(steady.after(moved.clone(), &[], now), moved);
    }
}
