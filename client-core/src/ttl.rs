//! How long values live.

use std::time::Duration;

/// How long a value lives. Methods take whatever makes one: a `Duration`, whole seconds as a number, or `None`.
///
/// ```
/// use std::time::Duration;
/// use ketch_client::Ttl;
///
/// assert_eq!(Ttl::from(60), Ttl::from(Duration::from_secs(60)));
/// assert_eq!(Ttl::from(0), Ttl::NEVER_ENDS);
/// assert_eq!(Ttl::from(None), Ttl::default());
/// ```
///
/// | given | the value lives |
/// | --- | --- |
/// | a `Duration` or a number of seconds | so long; fractions of a second are rounded up |
/// | zero, or [`NEVER_ENDS`](Self::NEVER_ENDS) | until it is deleted or evicted |
/// | `None` | for [`ClientOptions::default_ttl`](crate::options::ClientOptions::default_ttl), without end if there is none |
/// | a negative number | not at all: it is over before it begins |
///
/// More than 30 days are sent as the absolute time at which they end, by this machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ttl(Span);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Span {
    #[default]
    Default,
    Endless,
    /// Not zero.
    For(Duration),
    Over,
}

impl Ttl {
    /// Without end, whatever the default is.
    pub const NEVER_ENDS: Ttl = Ttl(Span::Endless);

    /// The time, `None` without end. What is over lives for the shortest there is.
    #[doc(hidden)]
    pub fn duration(self) -> Option<Duration> {
        match self.0 {
            Span::Default | Span::Endless => None,
            Span::For(time) => Some(time),
            Span::Over => Some(Duration::from_nanos(1)),
        }
    }

    /// With `default` for `None`, and then shorter by up to the part `jitter` (0 to 1), of which `chance` (0 to 1) is taken.
    #[doc(hidden)]
    pub fn resolve(self, default: Option<Duration>, jitter: f64, chance: f64) -> Ttl {
        match self.0 {
            Span::Default => match default {
                Some(time) => Ttl::from(time).resolve(None, jitter, chance),
                None => Ttl::NEVER_ENDS,
            },
            Span::For(time) if jitter > 0.0 => {
                let time = time.mul_f64(1.0 - jitter * chance);
                Ttl(Span::For(time.max(Duration::from_nanos(1))))
            }
            _ => self,
        }
    }

    /// The expiry time to send at the unix time `unix_s`: 0 (never) without end, above 30 days an absolute time, at most what
    /// 31 bits hold, and below 0 what is over.
    #[doc(hidden)]
    pub fn exptime(self, unix_s: u64) -> i32 {
        match self.0 {
            Span::Default | Span::Endless => 0,
            Span::For(time) => exptime_s(whole_seconds(time), unix_s),
            Span::Over => -1,
        }
    }
}

/// Whole seconds, rounded up.
#[doc(hidden)]
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// The longest time that memcached takes as seconds from now; what is longer is sent as an absolute unix time.
const RELATIVE_S_MAX: u64 = 60 * 60 * 24 * 30;

/// The expiry time to send for whole seconds.
#[doc(hidden)]
pub fn exptime_s(seconds: u64, unix_s: u64) -> i32 {
    let sent = if seconds > RELATIVE_S_MAX {
        unix_s.saturating_add(seconds)
    } else {
        seconds
    };
    i32::try_from(sent).unwrap_or(i32::MAX)
}

impl From<Duration> for Ttl {
    fn from(time: Duration) -> Self {
        if time.is_zero() {
            return Ttl::NEVER_ENDS;
        }
        Ttl(Span::For(time))
    }
}

impl From<Option<Duration>> for Ttl {
    fn from(time: Option<Duration>) -> Self {
        time.map_or(Ttl::default(), Ttl::from)
    }
}

macro_rules! seconds {
    ($($type:ty)*) => {
        $(
            /// Whole seconds.
            impl From<$type> for Ttl {
                fn from(seconds: $type) -> Self {
                    match u64::try_from(seconds) {
                        Ok(seconds) => Ttl::from(Duration::from_secs(seconds)),
                        Err(_) => Ttl(Span::Over),
                    }
                }
            }
        )*
    };
}

seconds!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_as_they_are_sent() {
        let now = 1_700_000_000;
        for (ttl, sent) in [
            (Ttl::from(None), 0),
            (Duration::ZERO.into(), 0),
            (0.into(), 0),
            (Ttl::NEVER_ENDS, 0),
            (Duration::from_nanos(1).into(), 1),
            (Duration::from_millis(1000).into(), 1),
            (Some(Duration::from_millis(1001)).into(), 2),
            (2_592_000.into(), 2_592_000),
            (2_592_001_u32.into(), 1_702_592_001),
            (Duration::MAX.into(), i32::MAX),
            (u64::MAX.into(), i32::MAX),
            ((-1).into(), -1),
            (i64::MIN.into(), -1),
            (60_usize.into(), 60),
        ] {
            assert_eq!(ttl.exptime(now), sent, "{ttl:?}");
        }
    }

    #[test]
    fn defaults_and_jitter() {
        let minute = Duration::from_secs(60);
        let resolved = |ttl: Ttl, chance| ttl.resolve(Some(minute), 0.1, chance).duration();
        assert_eq!(resolved(None.into(), 0.0), Some(minute));
        assert_eq!(resolved(None.into(), 1.0), Some(Duration::from_secs(54)));
        assert_eq!(resolved(100.into(), 0.5), Some(Duration::from_secs(95)));
        assert_eq!(resolved(0.into(), 0.5), None);
        assert_eq!(Ttl::default().resolve(None, 0.1, 0.5), Ttl::NEVER_ENDS);
        let all = Ttl::from(1).resolve(None, 1.0, 1.0);
        assert_eq!(all.exptime(0), 1, "it ends all the same");
        assert_eq!(Ttl::from(-1).resolve(Some(minute), 0.1, 0.5).exptime(0), -1);
    }
}
