//! Time: the system's monotonic clocks, and the processor's counter, which is read in a few instructions.
//!
//! ```text
//!  each turn of a connection:  ticks()     compared with ticks alone
//!  now and then:               monotonic_ns()     ns_of(ticks), by the rate that TickMeter measures once a second
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds of the monotonic clock: what spans of time within the process are measured with. Straight from libc:
/// `Instant` takes twice the instructions.
#[inline]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the struct is ours and of the type asked for; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

/// Milliseconds since the machine was started, time asleep included: no clock that anybody sets.
pub fn boot_ms() -> u64 {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the struct is ours and of the type asked for; this clock is always there.
    unsafe { libc::clock_gettime(CLOCK, &mut now) };
    (now.tv_sec as u64).wrapping_mul(1000) + now.tv_nsec as u64 / 1_000_000
}

/// A number for this start of the machine, another after each; 0 where the system has no name for it.
pub fn boot_id() -> u64 {
    let name = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits = name.chars().filter_map(|digit| digit.to_digit(16));
    digits.fold(0, |id: u64, digit| id.rotate_left(4) ^ u64::from(digit))
}

/// The processor's counter. Its rate is what [`ns_of`] goes by. Two threads' readings may differ by a little, and old or
/// odd machines change the rate: it is for spans, and an odd one is to be looked at again by the clock.
#[inline(always)]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has the instruction; it reads a register and touches no memory.
    let ticks = unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(target_arch = "aarch64")]
    let ticks = {
        let ticks: u64;
        // SAFETY: the register may be read by every program; no memory is touched.
        unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack)) };
        ticks
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let ticks = monotonic_ns();
    ticks
}

/// Nanoseconds of a tick, in units of 2^-32; 0 before it was measured.
static TICK_NS: AtomicU64 = AtomicU64::new(0);
/// How long the first measurement takes, once in a process: it is right to a thousandth.
const FIRST_NS: u64 = 1_000_000;

/// So many ticks in nanoseconds.
pub fn ns_of(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(TICK_NS.load(Relaxed))) >> 32) as u64
}

/// So many nanoseconds in ticks.
pub fn ticks_of(ns: u64) -> u64 {
    let tick_ns = u128::from(TICK_NS.load(Relaxed)).max(1);
    u64::try_from((u128::from(ns) << 32) / tick_ns).unwrap_or(u64::MAX)
}

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Moment {
    ticks: u64,
    ns: u64,
}

impl Moment {
    /// Of some readings the one that was interrupted least.
    fn now() -> Self {
        let read = || {
            let (before, ns, after) = (ticks(), monotonic_ns(), ticks());
            let spread = after.wrapping_sub(before);
            let ticks = before.wrapping_add(spread / 2);
            (spread, Moment { ticks, ns })
        };
        let readings = [read(), read(), read()];
        let best = readings.into_iter().min_by_key(|&(spread, _)| spread);
        best.expect("there are readings").1
    }
}

/// Measures the rate of [`ticks`].
#[derive(Debug)]
pub struct TickMeter {
    since: Moment,
}

impl Default for TickMeter {
    /// Begins to measure. The first in a process waits for a thousandth of a second, so that [`ns_of`] is right from now on.
    fn default() -> Self {
        let mut meter = TickMeter {
            since: Moment::now(),
        };
        if TICK_NS.load(Relaxed) == 0 {
            while monotonic_ns().wrapping_sub(meter.since.ns) < FIRST_NS {
                std::hint::spin_loop();
            }
            meter.measure();
        }
        meter
    }
}

impl TickMeter {
    /// Takes the rate since the last time for that of the time to come.
    pub fn measure(&mut self) {
        let now = Moment::now();
        let ns = now.ns.wrapping_sub(self.since.ns);
        let ticks = now.ticks.wrapping_sub(self.since.ticks);
        let tick_ns = (u128::from(ns) << 32).checked_div(ticks.into());
        // A counter that stood still or jumped back tells nothing.
        if let Some(tick_ns @ 1..) = tick_ns.and_then(|tick_ns| u64::try_from(tick_ns).ok()) {
            TICK_NS.store(tick_ns, Relaxed);
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_measure_what_the_clock_does() {
        let mut meter = TickMeter::default();
        let (from_ns, from) = (monotonic_ns(), ticks());
        while monotonic_ns() - from_ns < 5_000_000 {
            std::hint::spin_loop();
        }
        let (took, to_ns) = (ticks() - from, monotonic_ns());
        meter.measure();
        let (by_ticks, by_clock) = (ns_of(took) as f64, (to_ns - from_ns) as f64);
        // Between two readings the thread may have to wait, once in a long while for long.
        assert!(
            (by_ticks - by_clock).abs() < 0.05 * by_clock,
            "{by_ticks} {by_clock}"
        );
        let there_and_back = ns_of(ticks_of(10_000_000)) as f64;
        assert!((there_and_back - 1e7).abs() < 1e4, "{there_and_back}");
    }
}
