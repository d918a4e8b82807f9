//! Rate limits that many processes share: counters of time, on the nodes.
//!
//! ```text
//!  fixed:    | window 7            | window 8      ^now  |       allowed while the window's counter is at most the limit
//!  sliding:  | 0 | 1 | 2 | 3 | .. | 9 | 10    ^now           ten parts and the one that has begun: allowed while their sum is
//!              '-------- at least one window ------'
//! ```
//!
//! A1. Who is allowed has counted before it looked. Of all that are allowed within a window, the last to count has seen the others;
//!     so there are never more than the limit, however many callers there are.
//! A2. Who is refused takes back what it counted from a sliding window. Until then it may have others refused as well.
//!
//! All callers of a limit need clocks that agree, up to a part of the window. An evicted counter begins at 0.

use std::time::{Duration, SystemTime};

use ketch_client_macros::both;

use crate::Client;
use crate::front::{Front, call};
use crate::keys;
use client_core::calls;
use client_core::error::Result;
use client_core::value::Item;

#[cfg(feature = "tokio")]
use crate::AsyncClient;

/// The parts of a sliding window. The more there are, the fewer are refused too many, and the more counters are read.
const PARTS: u64 = 10;

/// How often something may be done within a time: see [`Client::rate_limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    limit: u64,
    window: Duration,
    sliding: bool,
}

impl RateLimit {
    /// At most `limit` in each window: windows follow each other, as the minutes of a clock do. Around the end of one there may be twice
    /// as many within its length. One request to a node.
    pub fn fixed(limit: u64, window: Duration) -> Self {
        RateLimit {
            limit,
            window,
            sliding: false,
        }
    }

    /// At most `limit` in any time that is as long as the window, wherever it begins. What is older than the window may count for
    /// a tenth of it longer. Two requests.
    pub fn sliding(limit: u64, window: Duration) -> Self {
        RateLimit {
            limit,
            window,
            sliding: true,
        }
    }
}

/// Whether something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "whether it may be done is to be looked at"]
pub struct Allowance {
    /// It may.
    pub allowed: bool,
    /// How many more may be done now.
    pub left: u64,
    /// If it may not: how long to wait at least before it is asked again. Zero if it may.
    pub wait: Duration,
}

/// Counts one more under `key`, as it is sent, at `unix_ms`.
async fn take<F: Front>(
    front: &F,
    key: &[u8],
    limit: RateLimit,
    unix_ms: u64,
) -> Result<Allowance> {
    let window_ms = (limit.window.as_millis() as u64).max(1);
    let part_ms = match limit.sliding {
        true => window_ms.div_ceil(PARTS),
        false => window_ms,
    };
    let part = unix_ms / part_ms;
    let name = |part: u64| {
        let end = format!(
            ":{}{window_ms}:{part}",
            if limit.sliding { "s" } else { "f" }
        );
        [key, end.as_bytes()].concat()
    };
    let own = name(part);
    // Until nobody looks at it any more, by clocks that differ a little.
    let kept = Duration::from_millis(window_ms + 2 * part_ms) + Duration::from_secs(2);
    let create = Some((1, Some(kept)));
    let up = |context| calls::count(context, &own, false, 1, create);
    let mut count = call(front, up).await?.unwrap_or(1);
    if limit.sliding {
        let older: Vec<_> = (1..=PARTS)
            .map(|back| name(part.saturating_sub(back)))
            .collect();
        let older = older.iter().map(|key| &key[..]).collect();
        for found in call(front, |context| calls::get_multi(context, older)).await {
            count += found?.as_ref().and_then(Item::number::<u64>).unwrap_or(0);
        }
    }
    let allowed = count <= limit.limit;
    if !allowed && limit.sliding {
        let down = |context| calls::count(context, &own, true, 1, None);
        // Else it is counted for nothing, which is on the safe side.
        let _ = call(front, down).await;
    }
    let wait_ms = if allowed {
        0
    } else {
        part_ms - unix_ms % part_ms
    };
    Ok(Allowance {
        allowed,
        left: limit.limit.saturating_sub(count),
        wait: Duration::from_millis(wait_ms),
    })
}

#[both]
impl AsyncClient {
    /// Counts one more of what `key` stands for, and tells whether that is within `limit`. With an error nobody knows: whether to go on
    /// then is for the caller to say.
    ///
    /// ```example
    /// use ketch_client::RateLimit;
    ///
    /// let logins = RateLimit::sliding(3, Duration::from_secs(60));
    /// for _ in 0..3 {
    ///     assert!(client.rate_limit("login:10.0.0.7", logins).await?.allowed);
    /// }
    /// assert!(!client.rate_limit("login:10.0.0.7", logins).await?.allowed);
    /// assert!(client.rate_limit("login:10.0.0.8", logins).await?.allowed);
    /// ```
    pub async fn rate_limit(&self, key: impl AsRef<[u8]>, limit: RateLimit) -> Result<Allowance> {
        let key = keys::sent(key.as_ref(), self.options());
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix_ms = unix.unwrap_or_default().as_millis() as u64;
        self.run(take(self, &key, limit, unix_ms)).await
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::ClientOptions;
    use crate::front::done;
    use crate::testing::TestNode;

    /// Whatever the times are, no window has more than the limit; and windows that are over free their part of it.
    #[test]
    fn windows_that_slide() {
        let node = TestNode::start();
        let client = Client::new([node.node()], ClientOptions::default());
        let limit = RateLimit::sliding(5, Duration::from_millis(1000));
        let mut chance = crate::topology::jitter::Jitter::seeded(3);
        let mut now_ms = 1_700_000_000_000;
        let mut allowed: Vec<u64> = Vec::new();
        for _ in 0..2000 {
            now_ms += chance.next() % 150;
            let taken = done(take(&client, b"k", limit, now_ms)).expect("up");
            if taken.allowed {
                allowed.push(now_ms);
            } else {
                assert!((1..=100).contains(&(taken.wait.as_millis() as u64)));
            }
        }
        for five in allowed.windows(6) {
            assert!(five[5] - five[0] >= 1000, "{five:?}");
        }
        // In 150 s there may be 750; a tenth of the window more is given away at each end.
        assert!(allowed.len() > 600, "{}", allowed.len());
    }

    #[test]
    fn windows_that_follow_each_other() {
        let node = TestNode::start();
        let client = Client::new([node.node()], ClientOptions::default());
        let limit = RateLimit::fixed(3, Duration::from_secs(10));
        let take = |now_ms| done(take(&client, b"k", limit, now_ms)).expect("up");
        let lefts: Vec<_> = (0..5)
            .map(|at| (take(100_000 + at).allowed, take(100_000).left))
            .collect();
        assert_eq!(
            lefts,
            [(true, 1), (true, 0), (false, 0), (false, 0), (false, 0)]
        );
        assert_eq!(take(109_000).wait, Duration::from_secs(1));
        let next = take(110_000);
        assert_eq!(
            (next.allowed, next.left, next.wait),
            (true, 2, Duration::ZERO)
        );
    }
}
