//! What the server counts about itself, and the text that a Prometheus server reads.

use std::{
    fmt::{Display, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Why a peer was refused: the values of the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// More connections than the limit, or no thread for one more.
    Connections,
    /// A request that breaks HTTP, or a handshake that breaks WebSocket; a parameter that is not understood.
    BadRequest,
    /// A request that did not arrive in time.
    Timeout,
    /// A host name that is not ours.
    Host,
    /// A page of another origin.
    Origin,
    /// A post that is none of those that may exist.
    Post,
    /// A like past a limit.
    Rate,
    /// A like while likes cannot be saved, or an upgrade while shutting down.
    Unavailable,
    /// A WebSocket client that broke the protocol or sent what is no like.
    BadMessage,
}

const REASONS: [(Refused, &str); 9] = [
    (Refused::Connections, "connections"),
    (Refused::BadRequest, "bad_request"),
    (Refused::Timeout, "timeout"),
    (Refused::Host, "host"),
    (Refused::Origin, "origin"),
    (Refused::Post, "post"),
    (Refused::Rate, "rate"),
    (Refused::Unavailable, "unavailable"),
    (Refused::BadMessage, "bad_message"),
];

/// Whom a server has refused, by reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; REASONS.len()]);

impl Refusals {
    pub(crate) fn add(&self, reason: Refused) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }
}

/// What a store counts that several servers share.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    round_trips: AtomicU64,
    reconnects: AtomicU64,
    gaps: AtomicU64,
    changes: AtomicU64,
}

#[cfg(feature = "redis")]
impl Remote {
    pub(crate) fn asked(&self) {
        self.round_trips.fetch_add(1, Relaxed);
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Relaxed);
    }

    pub(crate) fn missed(&self) {
        self.gaps.fetch_add(1, Relaxed);
    }

    pub(crate) fn heard(&self, changes: usize) {
        self.changes.fetch_add(changes as u64, Relaxed);
    }
}

/// What has become of changes: the values of the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Became {
    /// It is saved, and the count is another.
    Counted,
    /// It is saved, and changed nothing: the visitor had said so already, or something later.
    Unchanged,
    /// The store does not take it: it has no room for a further post or visitor.
    Refused,
}

const OUTCOMES: [(Became, &str); 3] =
    [(Became::Counted, "counted"), (Became::Unchanged, "unchanged"), (Became::Refused, "refused")];

/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 16] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How often something took how long.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Each counted once, in the smallest that it fits into. The last has no bound.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.buckets[BUCKETS.partition_point(|bound| *bound < seconds)].fetch_add(1, Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(read).sum()
    }
}

/// Counters of a ledger, that only rise. Relaxed is enough: each is read alone.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    saves: Histogram,
    saves_failed: AtomicU64,
    rounds: Histogram,
    frames: AtomicU64,
    changes: [AtomicU64; OUTCOMES.len()],
    remote: OnceLock<Arc<Remote>>,
}

impl Metrics {
    pub(crate) fn measure(&self, remote: Arc<Remote>) {
        let _ = self.remote.set(remote);
    }

    pub(crate) fn saved(&self, took: Duration) {
        self.saves.add(took);
    }

    pub(crate) fn save_failed(&self) {
        self.saves_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn round(&self, frames: u64, took: Duration) {
        self.rounds.add(took);
        self.frames(frames);
    }

    pub(crate) fn frames(&self, frames: u64) {
        self.frames.fetch_add(frames, Relaxed);
    }

    pub(crate) fn became(&self, outcome: Became, changes: u64) {
        self.changes[outcome as usize].fetch_add(changes, Relaxed);
    }
}

/// What is counted elsewhere and only told here.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) likes: u64,
    pub(crate) healthy: bool,
    pub(crate) connections: usize,
    pub(crate) max_connections: usize,
    pub(crate) watching: usize,
    /// By transport.
    pub(crate) watchers: Vec<(&'static str, usize)>,
    pub(crate) behind: usize,
    pub(crate) dropped: usize,
    pub(crate) queues: Queues,
    /// Seconds since 1970.
    pub(crate) started: f64,
    pub(crate) process: Process,
}

/// What waits in a ledger.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub(crate) unsaved: u64,
    /// How long the oldest has waited.
    pub(crate) unsaved_age: Duration,
    pub(crate) unshown_age: Duration,
    /// Changes that could not be saved so far, and do not count.
    pub(crate) not_saved: u64,
}

/// What the system says of the process. What it does not say is left out.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) resident: Option<u64>,
    pub(crate) cpu: Option<f64>,
    pub(crate) descriptors: Option<u64>,
    pub(crate) max_descriptors: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) max_threads: Option<u64>,
}

/// The text exposition format, version 0.0.4.
///
/// What changes by itself is written as long each time, so that HEAD is told the length that GET has.
pub(crate) fn render(metrics: &Metrics, refusals: &Refusals, gauges: &Gauges) -> String {
    let mut text = Text(String::with_capacity(8192));
    let process = &gauges.process;

    text.head("live_likes_build_info", "gauge", "The version that runs, and its stores.");
    let stores = [("text", true), ("sqlite", cfg!(feature = "sqlite")), ("redis", cfg!(feature = "redis"))];
    let stores = stores.iter().filter(|(_, is_built)| *is_built).map(|(name, _)| *name).collect::<Vec<_>>().join(",");
    let labels = format!("{{version=\"{}\",stores=\"{stores}\"}}", env!("CARGO_PKG_VERSION"));
    text.sample("live_likes_build_info", &labels, 1);
    text.gauge("live_likes_start_time_seconds", "When the server was started, since 1970.", gauges.started);
    text.gauge("live_likes_healthy", "1 while /healthz answers 200, else 0.", u8::from(gauges.healthy));

    text.gauge("live_likes_likes", "The count of the default counter.", gauges.likes);
    text.head("live_likes_changes_total", "counter", "Likes, and likes taken back, by what has become of them.");
    let changes = OUTCOMES.map(|(outcome, name)| (name, read(&metrics.changes[outcome as usize])));
    for (outcome, number) in changes.into_iter().chain([("not_saved", gauges.queues.not_saved)]) {
        text.sample("live_likes_changes_total", &format!("{{outcome=\"{outcome}\"}}"), number);
    }
    text.gauge("live_likes_unsaved", "Likes that are taken and not saved yet.", gauges.queues.unsaved);
    let help = "How long the oldest like that is not saved has waited; 0 without one.";
    text.gauge("live_likes_unsaved_age_seconds", help, seconds(gauges.queues.unsaved_age));
    let help = "Successful saves, each of all likes that came meanwhile, and the time they took.";
    text.histogram("live_likes_save_seconds", help, &metrics.saves);
    text.counter("live_likes_saves_failed_total", "Saves that failed.", read(&metrics.saves_failed));

    text.gauge("live_likes_connections", "Connections held.", gauges.connections);
    let help = "Connections that are held at most: the limit, or fewer where the system allows fewer.";
    text.gauge("live_likes_max_connections", help, gauges.max_connections);
    text.gauge("live_likes_watching", "Counters shown, to clients and subscribers each.", gauges.watching);
    text.head("live_likes_watchers", "gauge", "Connected clients that are shown counts, by transport.");
    for (transport, clients) in &gauges.watchers {
        text.sample("live_likes_watchers", &format!("{{transport=\"{transport}\"}}"), clients);
    }
    text.gauge("live_likes_behind", "Clients that have not been sent all there is.", gauges.behind);
    text.counter("live_likes_dropped_total", "Clients dropped because they did not read.", gauges.dropped);
    text.counter("live_likes_rounds_total", "Fan-outs over all clients.", metrics.rounds.count());
    text.histogram("live_likes_round_seconds", "Fan-outs, and the time they took.", &metrics.rounds);
    let help = "How long the oldest change that is saved and not shown has waited; 0 without one.";
    text.gauge("live_likes_unshown_age_seconds", help, seconds(gauges.queues.unshown_age));
    text.counter("live_likes_frames_total", "Counts sent to clients.", read(&metrics.frames));
    text.head("live_likes_refused_total", "counter", "Requests, likes and connections refused, by reason.");
    for (reason, name) in REASONS {
        let labels = format!("{{reason=\"{name}\"}}");
        text.sample("live_likes_refused_total", &labels, read(&refusals.0[reason as usize]));
    }

    if let Some(remote) = metrics.remote.get() {
        text.counter("live_likes_redis_round_trips_total", "Requests to Redis.", read(&remote.round_trips));
        let help = "Connections to Redis after the first.";
        text.counter("live_likes_redis_reconnects_total", help, read(&remote.reconnects));
        let help = "Times that changes of others were missed and read.";
        text.counter("live_likes_redis_gaps_total", help, read(&remote.gaps));
        text.counter("live_likes_redis_changes_total", "Changes heard of that others made.", read(&remote.changes));
    }

    text.some_gauge("process_resident_memory_bytes", "Memory that is resident.", process.resident.map(wide));
    if let Some(cpu) = process.cpu {
        text.counter("process_cpu_seconds_total", "CPU time, of user and system.", format_args!("{cpu:.2}"));
    }
    text.some_gauge("process_open_fds", "Open descriptors.", process.descriptors.map(wide));
    text.some_gauge("process_max_fds", "Descriptors that may be open.", process.max_descriptors);
    text.some_gauge("live_likes_threads", "Threads of the process.", process.threads.map(wide));
    let help = "Threads that there may be, by the user's limit, the control group's and the kernel's.";
    text.some_gauge("live_likes_max_threads", help, process.max_threads);
    text.0
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// As long for every number.
fn wide(number: u64) -> String {
    format!("{number:.6e}")
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn some_gauge(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.gauge(name, help, value);
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.sample(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let (bucket, mut sum) = (format!("{name}_bucket"), 0);
        let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, counter) in bounds.zip(&histogram.buckets) {
            sum += read(counter);
            self.sample(&bucket, &format!("{{le=\"{bound}\"}}"), sum);
        }
        self.sample(&format!("{name}_sum"), "", read(&histogram.micros) as f64 / 1e6);
        self.sample(&format!("{name}_count"), "", sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(metrics: &Metrics, refusals: &Refusals) -> String {
        render(metrics, refusals, &Gauges::default())
    }

    #[test]
    fn every_reason_and_every_outcome_is_counted_under_its_own_name() {
        for (index, (reason, name)) in REASONS.into_iter().enumerate() {
            let refusals = Refusals::default();
            refusals.add(reason);
            let text = told(&Metrics::default(), &refusals);
            assert_eq!(reason as usize, index);
            assert!(text.contains(&format!("live_likes_refused_total{{reason=\"{name}\"}} 1\n")), "{text}");
            assert_eq!(text.matches("} 1\n").count(), 2, "besides the build: {text}");
        }
        for (index, (outcome, name)) in OUTCOMES.into_iter().enumerate() {
            let metrics = Metrics::default();
            metrics.became(outcome, 3);
            let text = told(&metrics, &Refusals::default());
            assert_eq!(outcome as usize, index);
            assert!(text.contains(&format!("live_likes_changes_total{{outcome=\"{name}\"}} 3\n")), "{text}");
            assert_eq!(text.matches("} 3\n").count(), 1, "{text}");
        }
    }

    #[test]
    fn a_histogram_counts_what_is_within_each_bound() {
        let metrics = Metrics::default();
        for micros in [100, 101, 1_000, 10_000_000, 10_000_001] {
            metrics.saved(Duration::from_micros(micros));
        }
        let text = told(&metrics, &Refusals::default());
        for (bound, count) in
            [("0.0001", 1), ("0.00025", 2), ("0.0005", 2), ("0.001", 3), ("5", 3), ("10", 4), ("+Inf", 5)]
        {
            let line = format!("live_likes_save_seconds_bucket{{le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(text.contains("live_likes_save_seconds_sum 20.001202\nlive_likes_save_seconds_count 5\n"), "{text}");
    }

    #[test]
    fn what_the_system_does_not_say_is_left_out() {
        let text = told(&Metrics::default(), &Refusals::default());
        assert!(!text.contains("process_") && !text.contains("threads"), "{text}");
    }
}
