//! What the server process costs, as the kernel counts it: for servers on this machine.

use std::fs;

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// CPU time of all living threads, user and system, in nanoseconds.
    pub fn cpu_ns(self) -> Option<u64> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0)).ok()? {
            let times = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            total += times.split(' ').next()?.parse::<u64>().ok()?;
        }
        Some(total)
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
    use super::*;

    #[test]
    fn this_process_has_memory_and_cpu_time() {
        let own = Process(std::process::id());
        assert!(own.resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(own.cpu_ns().is_some());
    }
}
