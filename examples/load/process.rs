//! What the kernel tells about a process: CPU time, memory, threads and descriptors, from `/proc` (so on Linux only).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

/// User space sees clock ticks of 10 ms on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// A process to look at.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

/// CPU time that a process had used at one moment.
pub struct Cpu {
    /// All threads, those that have ended too, but only to 10 ms.
    total: Duration,
    /// Each thread that is alive, to the nanosecond.
    threads: HashMap<u32, Duration>,
}

impl Cpu {
    /// The time used since `earlier`: as the threads tell it, unless some have come and gone whose time only the total
    /// holds, which may be wrong by a tick at either end.
    pub fn since(&self, earlier: &Self) -> Duration {
        let used =
            |(id, now): (&u32, &Duration)| now.saturating_sub(earlier.threads.get(id).copied().unwrap_or_default());
        let threads = self.threads.iter().map(used).sum();
        let total = self.total.saturating_sub(earlier.total);
        if total > threads + 2 * TICK { total } else { threads }
    }
}

/// Memory in bytes, and what else a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Holdings {
    pub resident: u64,
    pub page_tables: u64,
    /// Of the whole machine: the kernel does not tell it by process.
    pub kernel_stacks: u64,
    pub threads: u64,
    pub descriptors: u64,
}

impl Process {
    /// CPU time used so far.
    ///
    /// # Errors
    ///
    /// When there is no such process, or no `/proc`.
    pub fn cpu(self) -> io::Result<Cpu> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let total = TICK * ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let entry = entry?;
            // A thread may end between the listing and the look.
            let Ok(schedstat) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let nanos = schedstat.split(' ').next().and_then(|field| field.parse().ok());
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(id), Some(nanos)) = (id, nanos) {
                threads.insert(id, Duration::from_nanos(nanos));
            }
        }
        Ok(Cpu { total, threads })
    }

    /// What the process holds now.
    ///
    /// # Errors
    ///
    /// When there is no such process, or no `/proc`.
    pub fn holdings(self) -> io::Result<Holdings> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let machine = fs::read_to_string("/proc/meminfo")?;
        let number = |text: &str, name| field(text, name).ok_or(io::ErrorKind::InvalidData);
        Ok(Holdings {
            resident: number(&status, "VmRSS")? * 1024,
            page_tables: number(&status, "VmPTE")? * 1024,
            kernel_stacks: number(&machine, "KernelStack")? * 1024,
            threads: number(&status, "Threads")?,
            descriptors: fs::read_dir(format!("/proc/{}/fd", self.0))?.count() as u64,
        })
    }
}

/// Bytes in the buffers of all TCP sockets of the machine.
///
/// # Errors
///
/// When there is no `/proc`.
pub fn socket_memory() -> io::Result<u64> {
    let sockets = fs::read_to_string("/proc/net/sockstat")?;
    Ok(pages(&sockets).ok_or(io::ErrorKind::InvalidData)? * rustix::param::page_size() as u64)
}

/// The pages that the line of TCP tells in `/proc/net/sockstat`.
fn pages(sockets: &str) -> Option<u64> {
    let mut fields = sockets.lines().find_map(|line| line.strip_prefix("TCP:"))?.split_ascii_whitespace();
    fields.find(|field| *field == "mem")?;
    fields.next()?.parse().ok()
}

/// User and system time from `/proc/PID/stat`. The second field is the program's name, which may hold anything.
fn ticks(stat: &str) -> Option<u32> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let user: u32 = fields.nth(11)?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The number on the line `name:`.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "77 (a) S 1) R 1 2 3 4 5 6 7 8 9 10 250 50 13 14";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "VmRSSold:\t1 kB\nVmRSS:\t  2048 kB\nThreads:\t3\n";
        assert_eq!(field(status, "VmRSS"), Some(2048));
        assert_eq!(field(status, "Threads"), Some(3));
        assert_eq!(field(status, "VmPTE"), None);
    }

    #[test]
    fn the_pages_of_sockets_are_those_of_tcp() {
        let sockets = "sockets: used 290\nTCP: inuse 4 orphan 0 tw 2 alloc 7 mem 31\nUDP: inuse 1 mem 2\n";
        assert_eq!(pages(sockets), Some(31));
        assert_eq!(pages("UDP: inuse 1 mem 2\n"), None);
    }

    #[test]
    fn the_better_source_of_cpu_time_wins() {
        let cpu = |total, threads: &[(u32, u64)]| Cpu {
            total: Duration::from_millis(total),
            threads: threads.iter().map(|&(id, micros)| (id, Duration::from_micros(micros))).collect(),
        };
        let earlier = cpu(20, &[(1, 20_100), (2, 300)]);
        assert_eq!(cpu(20, &[(1, 22_600), (3, 400)]).since(&earlier), Duration::from_micros(2_900));
        assert_eq!(cpu(30, &[(1, 21_100)]).since(&earlier), Duration::from_micros(1_000));
        assert_eq!(cpu(90, &[(1, 21_100)]).since(&earlier), Duration::from_millis(70));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_very_process_can_be_read() {
        let this = Process(std::process::id());
        let earlier = this.cpu().unwrap();
        while this.cpu().unwrap().since(&earlier) < Duration::from_millis(20) {}
        let holdings = this.holdings().unwrap();
        assert!(holdings.resident > 100_000 && holdings.threads >= 1 && holdings.descriptors >= 3, "{holdings:?}");
    }
}
