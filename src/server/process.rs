//! What the system says of this process: its memory, its descriptors and its threads, and how many there may be.

use crate::metrics::Process;
use rustix::{
    process::{Resource, getrlimit, getuid},
    time::{ClockId, clock_gettime},
};
use std::{fs, path::Path};

pub(crate) fn process() -> Process {
    let status = read("/proc/self/status");
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Process {
        resident: field(&status, "VmRSS:").map(|kib| kib * 1024),
        cpu: Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9),
        // The one that is open for this does not count.
        descriptors: fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1)),
        max_descriptors: getrlimit(Resource::Nofile).current,
        threads: field(&status, "Threads:"),
        max_threads: most_threads(),
    }
}

/// A file of the system's, empty where there is none.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A number of `/proc/self/status`; of memory, in KiB.
pub(crate) fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

/// The lowest of the limits on threads. Those of the user and of the control group are shared with other processes.
fn most_threads() -> Option<u64> {
    // Root has none of its own (setrlimit(2)).
    let of_user = if getuid().is_root() { None } else { getrlimit(Resource::Nproc).current };
    let of_kernel = ["threads-max", "pid_max"].map(|name| number(Path::new("/proc/sys/kernel").join(name)));
    of_user.into_iter().chain(of_kernel.into_iter().flatten()).chain(of_group()).min()
}

/// The lowest limit of the control groups that the process is in.
fn of_group() -> Option<u64> {
    let groups = read("/proc/self/cgroup");
    groups.lines().filter_map(|line| limit_of(line, Path::new("/sys/fs/cgroup"))).min()
}

/// The lowest limit of a group, a line of `/proc/self/cgroup`, and those that it is in.
fn limit_of(line: &str, root: &Path) -> Option<u64> {
    let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
    let root = match controllers {
        "" => root.to_owned(),
        _ if controllers.split(',').any(|controller| controller == "pids") => root.join("pids"),
        _ => return None,
    };
    let group = root.join(group.trim_start_matches('/'));
    group
        .ancestors()
        .take_while(|above| above.starts_with(&root))
        .filter_map(|above| number(above.join("pids.max")))
        .min()
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_descriptors_and_threads() {
        let process = process();
        let (Some(open), Some(most)) = (process.descriptors, process.max_descriptors) else { return };
        assert!((3..=most).contains(&open), "{process:?}");
        assert!(process.threads.is_some_and(|threads| threads >= 2), "{process:?}");
        assert!(process.resident.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(process.max_threads.is_some_and(|most| most > process.threads.unwrap_or(0)), "{process:?}");
        assert!(process.cpu.is_some_and(|seconds| seconds > 0.0), "{process:?}");
    }

    #[test]
    fn the_limit_of_a_control_group_is_the_lowest_of_those_above_it() {
        let root = std::env::temp_dir().join(format!("live-likes-groups-{}", std::process::id()));
        for group in ["a/b", "pids/c"] {
            fs::create_dir_all(root.join(group)).unwrap();
        }
        fs::write(root.join("a/pids.max"), "70\n").unwrap();
        fs::write(root.join("a/b/pids.max"), "max\n").unwrap();
        fs::write(root.join("pids/c/pids.max"), "90\n").unwrap();
        assert_eq!(limit_of("0::/a/b", &root), Some(70));
        assert_eq!(limit_of("0::/", &root), None);
        assert_eq!(limit_of("8:cpu,pids:/c", &root), Some(90));
        assert_eq!(limit_of("4:memory:/c", &root), None);
        assert_eq!(limit_of("no group", &root), None);
        fs::remove_dir_all(root).unwrap();
    }
}
