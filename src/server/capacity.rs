//! How many connections the process has room for.
//!
//! A thread maps memory of its own after `spawn` has returned, and aborts the process where it cannot. So connections
//! stop short of what the system allows, whatever the limit says. An eighth is kept for everything else: the store's
//! files, refused connections and those to the metrics, the threads of a fan-out, threads that are just ending.

use crate::{
    limits::Limits,
    server::process::{field, read},
};
use rustix::process::{Resource, getrlimit};
use std::fs;

/// Memory maps of a thread: its stack and its signal stack, each with a guard page.
const MAPS: u64 = 4;

/// How many a process may have, where Linux does not say.
const MOST_MAPS: u64 = 65_530;

/// Address space that glibc takes at once for each of its heaps.
const HEAP: u64 = 64 << 20;

/// How many connections fit into what the system allows, and what that is.
type Fit = (u64, String);

/// Connections, with a thread of such a stack each, that fit into what the system allows, besides those that are held.
/// Where these are fewer than the limit, it is logged what to raise.
pub(crate) fn capacity(limits: &Limits, stack: usize, held: usize) -> usize {
    // What is held of a request, or of a message twice, whole and in frames; and a buffer that grows is twice as large.
    let request = limits.head_bytes as u64 + limits.body_bytes;
    let each = 2 * stack as u64 + 2 * request.max(2 * limits.message_bytes as u64);
    let more_heaps = "ulimit -v; MALLOC_ARENA_MAX=2 saves some of it";
    let fits = [
        descriptors(),
        maps(),
        memory(Resource::As, more_heaps, "VmSize:", each, heaps()),
        memory(Resource::Data, "ulimit -d", "VmData:", each, 0),
    ];
    let Some((fit, allowed)) = fits.into_iter().flatten().min_by_key(|(fit, _)| *fit) else { return usize::MAX };
    let fit = held.saturating_add(fit.try_into().unwrap_or(usize::MAX));
    if fit < limits.connections {
        log::warn!("at most {fit} connections are held, not {}: {allowed}", limits.connections);
    }
    fit
}

fn descriptors() -> Option<Fit> {
    let limit = getrlimit(Resource::Nofile).current?;
    let used = fs::read_dir("/dev/fd").map_or(0, Iterator::count);
    Some((free(limit, used as u64, 128), format!("a process may open {limit} files (ulimit -n)")))
}

fn maps() -> Option<Fit> {
    let used = read("/proc/self/maps").lines().count() as u64;
    let limit = read("/proc/sys/vm/max_map_count").trim().parse().unwrap_or(MOST_MAPS);
    let fit = free(limit, used, 1024) / MAPS;
    (used > 0).then(|| {
        (fit, format!("a process may have {limit} memory maps, a thread takes {MAPS} (sysctl vm.max_map_count)"))
    })
}

/// Under a limit of memory of which the process uses what `/proc/self/status` says, and will use so many heaps.
fn memory(limit: Resource, name: &str, used: &str, each: u64, heaps: u64) -> Option<Fit> {
    let limit = getrlimit(limit).current?;
    let used = field(&read("/proc/self/status"), used).unwrap_or(0) * 1024;
    let free = free(limit, used, 64 << 20);
    // Each thread has a heap of its own, until there are as many as there may be.
    let fit = (free.saturating_sub(heaps * HEAP) / each).max(heaps.min(free / (HEAP + each)));
    Some((fit, format!("a process may have {limit} bytes of memory ({name})")))
}

/// How many heaps glibc makes at most (mallopt(3), M_ARENA_MAX).
fn heaps() -> u64 {
    let told = std::env::var("MALLOC_ARENA_MAX").ok().and_then(|most| most.parse().ok()).filter(|most| *most > 0);
    told.unwrap_or_else(|| {
        // The last number of a list such as `0-3,6`: this counts also those that the process may not use.
        let online = read("/sys/devices/system/cpu/online");
        8 * (1 + online.trim().rsplit(['-', ',']).next().and_then(|last| last.parse().ok()).unwrap_or(63))
    })
}

/// What connections may take: all that is free but an eighth, or what is kept at least, or half of it.
fn free(limit: u64, used: u64, kept: u64) -> u64 {
    let free = limit.saturating_sub(used);
    free - (free / 8).max(kept).min(free / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::acceptor::STACK;

    #[test]
    fn an_eighth_is_kept_but_no_less_than_is_needed_and_no_more_than_half() {
        assert_eq!(free(80_100, 100, 128), 70_000);
        assert_eq!(free(1100, 100, 200), 800);
        assert_eq!(free(110, 10, 200), 50);
        assert_eq!(free(10, 100, 200), 0);
    }

    #[test]
    fn a_thread_takes_as_many_memory_maps_as_is_reckoned_with() {
        let Some(before) = std::num::NonZero::new(read("/proc/self/maps").lines().count()) else { return };
        const THREADS: usize = 300;
        let barrier = std::sync::Barrier::new(THREADS + 1);
        let wait = || {
            barrier.wait();
            barrier.wait();
        };
        let during = std::thread::scope(|scope| {
            for _ in 0..THREADS {
                std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, wait).unwrap();
            }
            barrier.wait();
            let during = read("/proc/self/maps").lines().count();
            barrier.wait();
            during
        });
        // Other tests start a few threads at the same time, and a heap of its own takes two more.
        assert!(during - before.get() < THREADS * MAPS as usize + 200, "{before} and then {during}");
    }
}
