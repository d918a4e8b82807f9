//! A ring that does not fall apart because its list does.
//!
//! An engine that lost its data, a network that is cut, a rollout gone wrong: the list says that most members have gone, and they
//! are there. Each one that leaves the ring sends its keys to others, cold. So at most a third of the ring leaves within
//! [`WINDOW`]; of the others the clients find out by themselves whether they answer. Who says goodbye leaves at once, and counts for nothing.

use std::time::{Duration, Instant};

use crate::Member;

/// The time in which a third may leave.
pub const WINDOW: Duration = Duration::from_secs(30);

/// The ring in force.
#[derive(Debug, Default)]
pub(crate) struct Steady {
    ring: Vec<Member>,
    /// Who is in the ring and not in the list, the one that has been so for longest first.
    missing: Vec<String>,
    /// When members left the ring.
    left: Vec<Instant>,
}

impl Steady {
    /// The ring after a list, which has members in it, and those that say goodbye.
    pub(crate) fn after(
        &mut self,
        list: Vec<Member>,
        leaving: &[Member],
        now: Instant,
    ) -> Vec<Member> {
        let leaves = |name: &str| leaving.iter().any(|member| member.name == name);
        self.ring.retain(|member| !leaves(&member.name));
        self.missing.retain(|name| !leaves(name));
        self.left.retain(|left| now.duration_since(*left) < WINDOW);
        let is_listed = |name: &str| list.iter().any(|member| member.name == name);
        self.missing.retain(|name| !is_listed(name));
        for member in &self.ring {
            if !is_listed(&member.name) && !self.missing.contains(&member.name) {
                self.missing.push(member.name.clone());
            }
        }
        let most = ((self.ring.len() + self.left.len()) / 3).max(1);
        let leave = most.saturating_sub(self.left.len()).min(self.missing.len());
        self.missing.drain(..leave);
        self.left.extend(std::iter::repeat_n(now, leave));
        let stays = |member: &Member| self.missing.contains(&member.name);
        let mut ring = list;
        ring.extend(self.ring.drain(..).filter(stays));
        ring.sort_by(|a, b| a.name.cmp(&b.name));
        self.ring = ring.clone();
        ring
    }

    /// How many are in the ring and not in the list.
    pub(crate) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// When the next may leave that are in the ring and not in the list.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        let oldest = self.left.iter().min().filter(|_| !self.missing.is_empty());
        oldest.map(|left| *left + WINDOW)
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
        ring.iter().map(|member| member.name.as_str()).collect()
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
