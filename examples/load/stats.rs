//! Percentiles of measured times.

use std::time::Duration;

use serde_json::{Value, json};

/// The `percent`th percentile by nearest rank: the smallest time that at least that many percent of all do not
/// exceed. `sorted` must be sorted; zero when it is empty.
pub fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// p50, p99 and the largest of the times, in microseconds.
pub fn summary(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let micros = |percent| round(percentile(&times, percent).as_secs_f64() * 1e6);
    json!({ "p50": micros(50.0), "p99": micros(99.0), "max": micros(100.0) })
}

/// A number with three decimals at most, for people's eyes.
pub fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(times: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        times.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = millis(1..=100);
        assert_eq!(percentile(&times, 50.0), Duration::from_millis(50));
        assert_eq!(percentile(&times, 99.0), Duration::from_millis(99));
        assert_eq!(percentile(&times, 100.0), Duration::from_millis(100));
        assert_eq!(percentile(&times, 0.0), Duration::from_millis(1));
    }

    #[test]
    fn a_few_times_are_enough() {
        assert_eq!(percentile(&[], 50.0), Duration::ZERO);
        assert_eq!(percentile(&millis([7]), 50.0), Duration::from_millis(7));
        assert_eq!(percentile(&millis([7]), 99.0), Duration::from_millis(7));
        assert_eq!(percentile(&millis([1, 2, 3]), 50.0), Duration::from_millis(2));
        assert_eq!(percentile(&millis([1, 2, 3, 4]), 50.0), Duration::from_millis(2));
        assert_eq!(percentile(&millis([1, 2, 3, 4]), 99.0), Duration::from_millis(4));
    }

    #[test]
    fn a_summary_sorts_and_speaks_microseconds() {
        let times = millis([30, 10, 20]);
        assert_eq!(summary(times), json!({ "p50": 20_000.0, "p99": 30_000.0, "max": 30_000.0 }));
    }
}
