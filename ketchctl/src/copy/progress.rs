//! The line that shows how far a copy is.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::tally::Tally;
use crate::units;

/// How often a terminal is written to, and how often anything else.
const PERIODS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
const BAR_LEN: usize = 24;

/// Does `work` while the progress of `tally`, of about `expected` items, is shown on standard error.
pub fn around(tally: &Tally, expected: u64, show: bool, work: impl FnOnce()) {
    if !show {
        return work();
    }
    let terminal = io::stderr().is_terminal();
    let period = PERIODS[usize::from(!terminal)];
    let (done, over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let begun = Instant::now();
            let mut going = true;
            while going {
                going = over.recv_timeout(period) == Err(RecvTimeoutError::Timeout);
                // In the end all there was is done, whatever was expected.
                let expected = if going { expected } else { 0 };
                let line = line(tally, expected, begun.elapsed());
                // A terminal that is gone is no reason to stop.
                let _ = match terminal {
                    true => write!(io::stderr(), "\r{line}\x1b[K"),
                    false => writeln!(io::stderr(), "{line}"),
                };
            }
            if terminal {
                let _ = writeln!(io::stderr());
            }
        });
        work();
        drop(done);
    });
}

fn line(tally: &Tally, expected: u64, elapsed: Duration) -> String {
    let done = tally.done();
    let seconds = elapsed.as_secs_f64().max(1e-3);
    // The sources change meanwhile: what was expected is only about what comes.
    let all = expected.max(done).max(1);
    let filled = (BAR_LEN as u64 * done / all) as usize;
    let speed = done as f64 / seconds;
    let left = match done {
        0 => "?".to_owned(),
        _ => units::seconds(((all - done) as f64 / speed) as u64),
    };
    format!(
        "[{}{}] {:3} %  {} of about {}  {}/s  {}/s  failed {}  left {left}",
        "#".repeat(filled),
        ".".repeat(BAR_LEN - filled),
        100 * done / all,
        units::grouped(done),
        units::grouped(all),
        units::count(speed),
        units::bytes(tally.bytes.load(Relaxed) as f64 / seconds),
        units::grouped(tally.failed.load(Relaxed)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress() {
        let tally = Tally::default();
        let second = Duration::from_secs(1);
        assert!(line(&tally, 0, second).contains("  0 %  0 of about 1 "));
        Tally::add(&tally.copied, 1500);
        Tally::add(&tally.bytes, 2048);
        assert_eq!(
            line(&tally, 3000, second),
            "[############............]  50 %  1,500 of about 3,000  1.5k/s  2.0 KB/s  failed 0  left 1s"
        );
        assert!(line(&tally, 10, second).contains("100 %  1,500 of about 1,500"));
    }
}
