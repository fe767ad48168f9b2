//! What the server counts about itself, and the text that a Prometheus server reads.

use std::{
    fmt::Write,
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

/// Counters that only rise. Relaxed is enough: each is read alone.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    saves: AtomicU64,
    saves_failed: AtomicU64,
    save_micros: AtomicU64,
    rounds: AtomicU64,
    frames: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
    remote: OnceLock<Arc<Remote>>,
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

/// What is counted elsewhere and only told here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    pub(crate) likes: u64,
    pub(crate) connections: usize,
    pub(crate) watching: usize,
    pub(crate) behind: usize,
    pub(crate) dropped: usize,
}

impl Metrics {
    pub(crate) fn measure(&self, remote: Arc<Remote>) {
        let _ = self.remote.set(remote);
    }

    pub(crate) fn saved(&self, took: Duration) {
        self.saves.fetch_add(1, Relaxed);
        self.save_micros.fetch_add(took.as_micros() as u64, Relaxed);
    }

    pub(crate) fn save_failed(&self) {
        self.saves_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn round(&self, frames: u64) {
        self.rounds.fetch_add(1, Relaxed);
        self.frames.fetch_add(frames, Relaxed);
    }

    pub(crate) fn frames(&self, frames: u64) {
        self.frames.fetch_add(frames, Relaxed);
    }

    pub(crate) fn refused(&self, reason: Refused) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    /// The text exposition format, version 0.0.4.
    pub(crate) fn render(&self, gauges: Gauges) -> String {
        let mut text = String::with_capacity(2048);
        let mut metric = |name: &str, kind: &str, help: &str, samples: &[(&str, f64)]| {
            let _ = write!(text, "# HELP live_likes_{name} {help}\n# TYPE live_likes_{name} {kind}\n");
            for (suffix, value) in samples {
                let _ = writeln!(text, "live_likes_{name}{suffix} {value}");
            }
        };
        let read = |counter: &AtomicU64| counter.load(Relaxed) as f64;

        metric("likes", "gauge", "The count.", &[("", gauges.likes as f64)]);
        metric("connections", "gauge", "Connections held.", &[("", gauges.connections as f64)]);
        metric(
            "watching",
            "gauge",
            "Clients and subscribers that are shown the count.",
            &[("", gauges.watching as f64)],
        );
        metric("behind", "gauge", "Clients that have not been sent all there is.", &[("", gauges.behind as f64)]);
        metric(
            "dropped_total",
            "counter",
            "Clients dropped because they did not read.",
            &[("", gauges.dropped as f64)],
        );
        metric(
            "save_seconds",
            "summary",
            "Successful saves, each of all likes that came meanwhile, and the time they took.",
            &[("_sum", read(&self.save_micros) / 1e6), ("_count", read(&self.saves))],
        );
        metric("saves_failed_total", "counter", "Saves that failed.", &[("", read(&self.saves_failed))]);
        metric("rounds_total", "counter", "Fan-outs over all clients.", &[("", read(&self.rounds))]);
        metric("frames_total", "counter", "Counts sent to clients.", &[("", read(&self.frames))]);
        if let Some(remote) = self.remote.get() {
            metric("redis_round_trips_total", "counter", "Requests to Redis.", &[("", read(&remote.round_trips))]);
            metric(
                "redis_reconnects_total",
                "counter",
                "Connections to Redis after the first.",
                &[("", read(&remote.reconnects))],
            );
            metric(
                "redis_gaps_total",
                "counter",
                "Times that changes of others were missed and read.",
                &[("", read(&remote.gaps))],
            );
            metric(
                "redis_changes_total",
                "counter",
                "Changes heard of that others made.",
                &[("", read(&remote.changes))],
            );
        }
        let refused =
            REASONS.map(|(reason, name)| (format!("{{reason=\"{name}\"}}"), read(&self.refused[reason as usize])));
        let refused = refused.each_ref().map(|(label, value)| (label.as_str(), *value));
        metric("refused_total", "counter", "Requests, likes and connections refused.", &refused);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_own_name() {
        for (index, (reason, name)) in REASONS.into_iter().enumerate() {
            let metrics = Metrics::default();
            metrics.refused(reason);
            let gauges = Gauges { likes: 16, connections: 3, watching: 2, behind: 1, dropped: 0 };
            let text = metrics.render(gauges);
            assert_eq!(reason as usize, index);
            assert!(text.contains(&format!("live_likes_refused_total{{reason=\"{name}\"}} 1\n")), "{text}");
            assert_eq!(text.matches("} 1\n").count(), 1, "{text}");
        }
    }
}
