//! What the machine has, and what of it this process uses.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// The memory that this process can have, in bytes, and who says so: the machine, or a control group it is in. `None` where
/// the system does not tell.
pub fn memory_limit() -> Option<(u64, &'static str)> {
    memory_limit_by(Path::new("/"))
}

fn memory_limit_by(root: &Path) -> Option<(u64, &'static str)> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kb: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some((kb << 10, "the machine has"))
    });
    let groups = read("proc/self/cgroup").unwrap_or_default();
    // Version 2 has one hierarchy, `0::/path`, version 1 one for memory, `4:memory:/path`.
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or("-"), fields.next().unwrap_or("/"));
        let (base, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // A group has no more than those above it. In a container its own is the root.
        let group = Path::new(group.trim_start_matches('/'));
        let limits = group.ancestors().filter_map(|group| {
            let path = root.join(base).join(group).join(file);
            fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        });
        limits
            .map(|limit| (limit, "its control group allows"))
            .collect()
    });
    limits.chain(machine).min()
}

/// How long a thread has waited for a processor that others had.
#[derive(Debug)]
pub struct Queueing {
    /// None where the system does not tell.
    told: Option<File>,
}

impl Queueing {
    /// That of the calling thread.
    pub fn of_this_thread() -> Self {
        Queueing {
            told: File::open("/proc/thread-self/schedstat").ok(),
        }
    }

    /// Since the thread began; zero where the system does not tell.
    pub fn waited(&self) -> Duration {
        let mut text = [0; 64];
        let told = self.told.as_ref();
        let len = told.and_then(|told| told.read_at(&mut text, 0).ok());
        // Nanoseconds on a processor, nanoseconds waiting for one, turns.
        let waited = str::from_utf8(&text[..len.unwrap_or(0)]).ok();
        let waited = waited.and_then(|text| text.split(' ').nth(1)?.parse().ok());
        Duration::from_nanos(waited.unwrap_or(0))
    }
}

/// What this process has used.
#[derive(Clone, Copy, Debug)]
pub struct Rusage {
    /// Time in our own code.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// Largest resident size so far.
    pub rss_bytes_max: u64,
}

/// The usage so far, of all threads.
pub fn rusage() -> Rusage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the struct is ours; the call fills it in, and all zeros are a value of it as well.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    // Kilobytes, but for macOS.
    let rss_unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Rusage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        rss_bytes_max: usage.ru_maxrss as u64 * rss_unit,
    }
}

/// What tells that this process runs in a container; `None` if nothing does. systemd, Podman and LXC set `container`,
/// Kubernetes `KUBERNETES_SERVICE_HOST`; Docker and Podman leave a file, and cgroups of version 1 carry the engine's name.
pub fn container() -> Option<&'static str> {
    container_by(
        &|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()),
        Path::new("/"),
    )
}

fn container_by(is_set: &dyn Fn(&str) -> bool, root: &Path) -> Option<&'static str> {
    for name in ["KUBERNETES_SERVICE_HOST", "container"] {
        if is_set(name) {
            return Some(name);
        }
    }
    for file in ["/.dockerenv", "/run/.containerenv"] {
        if root.join(&file[1..]).exists() {
            return Some(file);
        }
    }
    let cgroup = fs::read_to_string(root.join("proc/1/cgroup")).unwrap_or_default();
    ["docker", "kubepods", "libpod", "containerd", "lxc"]
        .into_iter()
        .any(|engine| cgroup.contains(engine))
        .then_some("/proc/1/cgroup")
}

/// Bytes of this process's memory that are resident; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    memory().map(|(resident, _)| resident)
}

/// Bytes of this process's memory that are resident, and those of its address space; `None` where the system does not
/// tell.
pub fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kb: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kb << 10)
    };
    Some((bytes("VmRSS:")?, bytes("VmSize:")?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A path of this test alone.
    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ketch-machine-{}-{name}", std::process::id()))
    }

    #[test]
    fn memory_is_bounded_by_the_machine_and_the_control_groups() {
        let root = scratch("memory");
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(memory_limit_by(&root), None);
        write("proc/meminfo", "MemTotal:       4096 kB\nMemFree: 1 kB\n");
        assert_eq!(memory_limit_by(&root), Some((4 << 20, "the machine has")));
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(memory_limit_by(&root), Some((4 << 20, "the machine has")));
        write("sys/fs/cgroup/a/memory.max", "2097152\n");
        let group = "its control group allows";
        assert_eq!(memory_limit_by(&root), Some((2 << 20, group)));
        write("proc/self/cgroup", "5:cpu:/\n4:memory,x:/c\n0::/\n");
        write("sys/fs/cgroup/memory/c/memory.limit_in_bytes", "1048576\n");
        assert_eq!(memory_limit_by(&root), Some((1 << 20, group)));
        write(
            "sys/fs/cgroup/memory/c/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        assert_eq!(memory_limit_by(&root), Some((4 << 20, "the machine has")));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_container_tells_of_itself() {
        let root = scratch("root");
        fs::create_dir_all(root.join("proc/1")).unwrap();
        fs::create_dir_all(root.join("run")).unwrap();
        let by = |set: &str| container_by(&|name| name == set, &root);
        fs::write(root.join("proc/1/cgroup"), "0::/init.scope\n").unwrap();
        assert_eq!(by(""), None);
        assert_eq!(by("container"), Some("container"));
        assert_eq!(
            by("KUBERNETES_SERVICE_HOST"),
            Some("KUBERNETES_SERVICE_HOST")
        );
        for group in ["1:cpu:/docker/ab", "0::/kubepods/besteffort/pod1"] {
            fs::write(root.join("proc/1/cgroup"), group).unwrap();
            assert_eq!(by(""), Some("/proc/1/cgroup"), "{group}");
        }
        for file in ["run/.containerenv", ".dockerenv"] {
            fs::write(root.join(file), "").unwrap();
            assert_eq!(by(""), Some(&*format!("/{file}")));
        }
        fs::remove_dir_all(&root).unwrap();
    }

    /// With more threads than processors each has to wait.
    #[cfg(target_os = "linux")]
    #[test]
    fn who_waits_for_a_processor_learns_of_it() {
        use std::time::{Duration, Instant};
        let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let (queueing, began) = (Queueing::of_this_thread(), Instant::now());
                    let before = queueing.waited();
                    while queueing.waited() - before < Duration::from_millis(1) {
                        assert!(began.elapsed() < Duration::from_secs(30), "nobody waits");
                    }
                });
            }
        });
    }

    #[test]
    fn rusage_counts_up() {
        let before = rusage();
        assert!(before.rss_bytes_max > 100 << 10, "{before:?}");
        let mut sum = 0u64;
        while rusage().user == before.user {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(rusage().user > before.user);
    }
}
