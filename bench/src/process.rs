//! What the server process costs, as the kernel counts it: for servers on this machine.

use std::fs;

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// CPU time of all living threads, user and system, in nanoseconds.
    ///
    /// A thread that ends while they are counted is left out: only a process that is gone has no time at all.
    pub fn cpu_ns(self) -> Option<u64> {
        fs::read_dir(format!("/proc/{}/task", self.0))
            .ok()?
            .filter_map(|task| {
                let times = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
                times.split(' ').next()?.parse::<u64>().ok()
            })
            .reduce(|total, thread| total + thread)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kb: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kb * 1024)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn this_process_has_memory_and_cpu_time() {
        let own = Process(std::process::id());
        assert!(own.resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(own.cpu_ns().is_some());
    }

    #[test]
    fn threads_that_end_meanwhile_are_left_out() {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Relaxed) {
                    std::thread::scope(|short| {
                        short.spawn(|| ());
                    });
                }
            });
            let own = Process(std::process::id());
            let counted = (0..500).all(|_| own.cpu_ns().is_some());
            ended.store(true, Relaxed);
            assert!(counted);
        });
    }

    #[test]
    fn a_process_that_is_gone_has_no_time() {
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        assert_eq!(Process(gone.id()).cpu_ns(), None);
    }
}
