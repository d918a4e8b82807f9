//! Routes as they are now: what the file says of one, and what has become of it since.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use protocol::Request;

use super::file::{Migration, RouteSpec, Shadow};
use super::frame::mark;
use super::rates::Bucket;

/// How long before a key moves to another pool its writes are told there: for proxies whose clock is so much ahead.
const AHEAD_MS: u64 = 5000;

/// See the module.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) spec: RouteSpec,
    pub(super) bucket: Option<Arc<Bucket>>,
    begun: Instant,
    /// When a gutter pool was used last, in milliseconds from `begun` and one; 0 for never.
    in_gutter: AtomicU64,
}

/// Where a key is that moves from one pool to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moving {
    /// In the old pool, as all keys that do not move.
    Stays,
    /// In the old pool, but proxies whose clock is ahead may know it in the new one.
    Soon,
    /// In the new pool; what is not there may be in the old one.
    Moved,
}

impl Route {
    /// One that begins, or goes on with what is known of it as it was before.
    pub(super) fn new(spec: RouteSpec, before: Option<&Route>) -> Self {
        let known = before.and_then(|before| before.bucket.clone());
        let bucket = spec.rate.map(|rate| match known {
            Some(known) if known.rate == rate => known,
            _ => Arc::new(Bucket::new(rate)),
        });
        Route {
            spec,
            bucket,
            begun: before.map_or_else(Instant::now, |before| before.begun),
            in_gutter: AtomicU64::new(before.map_or(0, |before| before.in_gutter.load(Relaxed))),
        }
    }

    /// True if a read, or a write, is what its key's node says, while that node is well.
    #[inline]
    pub(super) fn is_direct(&self, writes: bool) -> bool {
        let spec = &self.spec;
        let reads = spec.warm.is_none() && spec.migration.is_none() && spec.split.is_none();
        reads && !(writes && self.guides_writes())
    }

    /// True if writes take several steps.
    #[inline]
    pub(super) fn guides_writes(&self) -> bool {
        let spec = &self.spec;
        spec.gutter.is_some()
            || spec.warm.is_some()
            || spec.migration.is_some()
            || spec.split.is_some()
            || (spec.delete_ack && !spec.delete_to.is_empty())
    }

    /// True if other pools are told of this, as a delete.
    pub(super) fn tells(&self, request: &Request<'_>) -> bool {
        !self.spec.delete_to.is_empty()
            && match request {
                Request::Delete(_) => true,
                Request::Store(_) | Request::Arith(_) => self.spec.delete_on_store,
                _ => false,
            }
    }

    /// The gutter pool is used now.
    pub(super) fn falls_into_gutter(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.begun).as_millis() as u64;
        self.in_gutter.fetch_max(ms + 1, Relaxed);
    }

    /// True if something that was stored in the gutter pool may be there yet.
    pub(super) fn has_gutter_items(&self, now: Instant) -> bool {
        let Some(gutter) = &self.spec.gutter else {
            return false;
        };
        match self.in_gutter.load(Relaxed) {
            0 => false,
            ms => {
                let used = self.begun + Duration::from_millis(ms - 1);
                now < used + Duration::from_secs(u64::from(gutter.ttl_s) + 1)
            }
        }
    }

    /// Where a key is at this time.
    #[inline]
    pub(super) fn moving(&self, key: &[u8], unix_ms: u64) -> Moving {
        match &self.spec.migration {
            None => Moving::Stays,
            Some(migration) => {
                let at = migration.of(key);
                match unix_ms {
                    now if now >= at => Moving::Moved,
                    now if now + AHEAD_MS >= at => Moving::Soon,
                    _ => Moving::Stays,
                }
            }
        }
    }

    /// The pool that is to be sent the same, if the key is among its share.
    #[inline]
    pub(super) fn shadow(&self, key: &[u8]) -> Option<usize> {
        let Shadow { pool, percent } = self.spec.shadow?;
        // Others are chosen than those that move first.
        let at = mark(key).wrapping_mul(0x9e37_79b1) ^ 0x5bd1_e995;
        let share = f64::from(at) / (f64::from(u32::MAX) + 1.0);
        (share * 100.0 < percent).then_some(pool)
    }
}

impl Migration {
    /// When a key moves, in Unix milliseconds: after the begin, and not after the end.
    fn of(&self, key: &[u8]) -> u64 {
        let span = u128::from(self.end_ms - self.begin_ms);
        let at = span * (u128::from(mark(key)) + 1);
        self.begin_ms + (at >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::file;

    fn route(words: &str) -> Route {
        let text = format!(
            "[pools.a]\nnodes = [\"h:1\"]\n[pools.b]\nnodes = [\"h:2\"]\n[[routes]]\npool = \"a\"\n{words}\n"
        );
        let file = file::parse(&text).expect("it is a file of routes");
        Route::new(file.routes[0].clone(), None)
    }

    fn keys() -> impl Iterator<Item = String> {
        (0..2000).map(|at| format!("user:{at}"))
    }

    #[test]
    fn keys_move_in_proportion_and_stay_moved() {
        let route = route(
            "migrate_to = \"b\"\nmigrate_begin = 1970-01-01T01:00:00Z\nmigrate_end = 1970-01-01T02:00:00Z",
        );
        let moved = |ms: u64| {
            let moved = keys().filter(|key| route.moving(key.as_bytes(), ms) == Moving::Moved);
            moved.collect::<Vec<_>>()
        };
        let hour = 3_600_000;
        assert_eq!(moved(hour - 1).len(), 0);
        assert_eq!(moved(2 * hour).len(), 2000);
        let (quarter, half) = (moved(hour + hour / 4), moved(hour + hour / 2));
        assert!((400..600).contains(&quarter.len()), "{}", quarter.len());
        assert!((900..1100).contains(&half.len()), "{}", half.len());
        assert!(quarter.iter().all(|key| half.contains(key)));
        let soon = |ms| keys().any(|key| route.moving(key.as_bytes(), ms) == Moving::Soon);
        assert!(soon(hour + 1) && !soon(hour - 6000) && !soon(2 * hour));
    }

    #[test]
    fn a_shadow_has_its_share() {
        for percent in [0, 10, 100] {
            let route = route(&format!("shadow = \"b\"\nshadow_percent = {percent}"));
            let share = keys().filter(|key| route.shadow(key.as_bytes()) == Some(1));
            let share = share.count() as i64;
            assert!((share - 20 * percent).abs() <= 60, "{share} of {percent} %");
            assert!(percent % 100 != 0 || share == 20 * percent);
        }
    }
}
