//! A pool, as requests are carried out over it.

use std::cell::Cell;

use client_core::error::Error;
use client_core::operation::{Context, Verdict};
use client_core::value::{CasUnique, exptime_s};
use protocol::{Expiry, Exptime};

use super::answers::exptime;
use crate::proxy::carry::{Over, Seat, carry};
use crate::proxy::course::Course;
use crate::proxy::uniques::Uniques;

/// What became of a request that is no plain read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Done,
    /// There is no such key.
    Missing,
    /// Something else was said.
    Refused,
    /// The nodes did not answer.
    Unavailable,
}

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Serving<'a> {
    pub(super) seat: &'a Seat,
    pub(super) course: &'a Course,
    /// The pool.
    pub(super) over: &'a Over,
    /// Times to live are cut to that, in seconds.
    pub(super) ttl_max: Option<u32>,
    /// What the last request came to.
    pub(super) said: &'a Cell<Said>,
}

impl<'a> Serving<'a> {
    /// Over another pool.
    pub(super) fn at(&self, over: &'a Over) -> Self {
        Serving { over, ..*self }
    }

    /// Reads that find no node that answers are misses.
    pub(super) fn misses(&self) -> bool {
        self.course.main.pool.spec.misses
    }

    pub(super) fn note(&self, said: Said) {
        self.said.set(said);
    }

    pub(super) fn note_verdict(&self, verdict: &Result<Verdict, Error>) {
        self.note(match verdict {
            Ok(Verdict::Done(_)) => Said::Done,
            Ok(Verdict::Missing) => Said::Missing,
            Ok(Verdict::Exists | Verdict::Conflict) => Said::Refused,
            Err(error) => Said::of(error),
        });
    }

    /// An expiry time as the core sends it, cut to what values live here at most.
    pub(super) fn exptime(&self, asked: Exptime) -> i32 {
        match self.ttl_max {
            None => exptime(asked),
            Some(ttl) => exptime(cut(asked, ttl, self.seat.unix_s())),
        }
    }

    /// The same of seconds that are left, -1 for no end.
    pub(super) fn exptime_of(&self, left: Option<i64>) -> i32 {
        match left {
            Some(left @ 0..) => exptime_s(left.max(1).unsigned_abs(), self.seat.unix_s()),
            _ => 0,
        }
    }

    pub(super) fn context(&self) -> Context {
        self.seat.context(self.over)
    }

    pub(super) async fn carry<O: client_core::Operation>(&self, mut operation: O) -> O {
        carry(self.seat, self.over, &mut operation).await;
        operation
    }

    /// The CAS unique of a node as a client is told it.
    pub(super) fn unique(&self, number: u64, node: usize) -> u64 {
        let member = self.over.now.ring.members.get(node);
        member.map_or(number, |member| Uniques::of(member).shown(number))
    }

    /// What a client compares, at the node that decides now.
    pub(super) fn compared(&self, key: &[u8], unique: u64) -> CasUnique {
        let ring = &self.over.now.ring;
        let decider = ring.writers(key, self.seat.now(), &self.over.pool.options);
        let decider = decider.first().unwrap_or(0);
        let member = ring.members.get(decider);
        CasUnique {
            number: member.map_or(unique, |member| Uniques::of(member).asked(unique)),
            node: member.map_or(0, |member| member.identity),
        }
    }
}

impl Said {
    pub(super) fn of(error: &Error) -> Self {
        match error.is_unavailable() {
            true => Said::Unavailable,
            false => Said::Refused,
        }
    }
}

/// An expiry time that is not later than in `ttl` seconds.
pub(super) fn cut(asked: Exptime, ttl: u32, unix_s: u64) -> Exptime {
    let left = match asked.expiry() {
        Expiry::Never => u64::MAX,
        Expiry::AtOnce => return asked,
        Expiry::In(seconds) => seconds.into(),
        Expiry::At(unix) => match u64::from(unix).saturating_sub(unix_s) {
            0 => return asked,
            left => left,
        },
    };
    match left > ttl.into() {
        true => Exptime::from(ttl),
        false => asked,
    }
}
