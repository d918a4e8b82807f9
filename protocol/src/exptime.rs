//! Expiry times as clients send them. All commands and both encodings read them here, so all read them alike.
//!
//! ```text
//!   below 0         0        1 ..= 2,592,000    .. 2^32 - 2,592,000    from there on
//!   over at once    never    seconds from now   a unix time            the low 32 bits, signed, decide
//! ```
//!
//! Clients that keep the number in 32 unsigned bits (libmemcached, and all that speak binary) send -1 as 4294967295. So
//! the last thirty days before 2^32 are what they are to memcached: negative. Unix times between 2^31 and there are
//! moments after January 2038.
//!
//! Source: memcached's protocol.txt, "Expiration times".

use std::fmt;

/// Up to here an expiry time counts from now, above it is a unix time: thirty days, in seconds.
pub const RELATIVE_MAX_S: u32 = 60 * 60 * 24 * 30;

/// The first number that is not what it looks like: as 32 signed bits it is negative, and no further from 0 than thirty days.
const NEGATIVE_FROM: u32 = RELATIVE_MAX_S.wrapping_neg();

/// An expiry time as the client sent it, in 32 bits: those from [`NEGATIVE_FROM`] on are negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exptime(u32);

/// When an item ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It does not.
    Never,
    /// It has ended already.
    AtOnce,
    /// In so many seconds.
    In(u32),
    /// At this unix time, in seconds.
    At(u32),
}

impl Exptime {
    /// 0.
    pub const NEVER: Exptime = Exptime(0);
    /// All negative numbers mean the same.
    pub const AT_ONCE: Exptime = Exptime(u32::MAX);

    /// When an item with it ends.
    #[inline]
    pub fn expiry(self) -> Expiry {
        match self.0 {
            0 => Expiry::Never,
            seconds @ 1..=RELATIVE_MAX_S => Expiry::In(seconds),
            NEGATIVE_FROM.. => Expiry::AtOnce,
            unix => Expiry::At(unix),
        }
    }
}

impl fmt::Display for Exptime {
    /// The number, -1 for all that are negative.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expiry() {
            Expiry::AtOnce => f.write_str("-1"),
            Expiry::Never | Expiry::In(_) | Expiry::At(_) => self.0.fmt(f),
        }
    }
}

impl From<u32> for Exptime {
    /// Of 32 bits without a sign, as binary has them.
    #[inline]
    fn from(number: u32) -> Self {
        Exptime(number)
    }
}

impl From<Exptime> for u32 {
    /// The same 32 bits.
    fn from(exptime: Exptime) -> Self {
        exptime.0
    }
}

impl From<i64> for Exptime {
    #[inline]
    fn from(number: i64) -> Self {
        match u32::try_from(number) {
            Ok(number) => Exptime(number),
            Err(_) if number < 0 => Exptime::AT_ONCE,
            Err(_) => u32::try_from(number as i32).map_or(Exptime::AT_ONCE, Exptime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Expiry::{At, AtOnce, In, Never};
    use super::*;

    #[test]
    fn numbers_mean_what_memcached_takes_them_for() {
        let vectors = [
            (0, Never),
            (1, In(1)),
            (2_592_000, In(2_592_000)),
            (2_592_001, At(2_592_001)),
            (2_147_483_647, At(2_147_483_647)),
            (2_147_483_648, At(2_147_483_648)),
            (4_292_375_295, At(4_292_375_295)),
            (4_292_375_296, AtOnce),
            (4_294_967_295, AtOnce),
            (4_294_967_296, Never),
            (4_294_967_396, In(100)),
            (4_294_967_296 + 2_000_000_000, At(2_000_000_000)),
            (4_294_967_296 + 2_147_483_648, AtOnce),
            (i64::MAX, AtOnce),
            (-1, AtOnce),
            (-4_294_967_296, AtOnce),
            (i64::MIN, AtOnce),
        ];
        for (number, expiry) in vectors {
            assert_eq!(Exptime::from(number).expiry(), expiry, "{number}");
            if let Ok(number) = u32::try_from(number) {
                assert_eq!(Exptime::from(number).expiry(), expiry, "{number}");
            }
        }
    }
}
