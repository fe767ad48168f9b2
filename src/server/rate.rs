//! How often an address may do something: a bucket of tokens each.
//!
//! A bucket holds as many as may be taken in a time, and fills within it, so a burst passes and a stream does not. An
//! address whose bucket is full again is forgotten, so the table holds those that took one within that time, and a few
//! more until it is next swept.

use crate::likes::sync::{Mutex, lock};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Addresses in the table before it is swept the first time.
const SWEEP_AT: usize = 1024;

/// What each address may do.
#[derive(Debug)]
pub(crate) struct Rate {
    most: f64,
    per_second: f64,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    buckets: HashMap<IpAddr, Bucket>,
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rate {
    /// `most` times `within` a time.
    pub(crate) fn new(most: u32, within: Duration) -> Self {
        let table = Table { buckets: HashMap::new(), sweep_at: SWEEP_AT };
        let most = f64::from(most);
        Self { most, per_second: most / within.as_secs_f64(), table: Mutex::new(table) }
    }

    /// Takes a token of an address; says whether there was one.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> bool {
        let mut table = lock(&self.table);
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.tokens + since * self.per_second).min(self.most)
        };
        if table.buckets.len() >= table.sweep_at {
            table.buckets.retain(|_, bucket| filled(bucket) < self.most);
            table.sweep_at = SWEEP_AT.max(2 * table.buckets.len());
        }
        let bucket = table.buckets.entry(subnet(address)).or_insert(Bucket { tokens: self.most, at: now });
        let tokens = filled(bucket);
        let taken = tokens >= 1.0;
        *bucket = Bucket { tokens: if taken { tokens - 1.0 } else { tokens }, at: now };
        taken
    }
}

/// Whoever holds one IPv6 address commonly holds its whole /64.
pub(crate) fn subnet(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_of_one_second_s_worth_passes_and_then_the_rate() {
        let rate = Rate::new(4, SECOND);
        let start = Instant::now();
        let address = "192.0.2.1".parse().unwrap();
        let passed = |at: Duration, tries: usize| (0..tries).filter(|_| rate.take(address, start + at)).count();
        assert_eq!(passed(Duration::ZERO, 10), 4);
        assert_eq!(passed(Duration::from_millis(500), 10), 2);
        assert_eq!(passed(Duration::from_secs(60), 10), 4);
    }

    #[test]
    fn a_bucket_of_an_hour_fills_within_an_hour() {
        let rate = Rate::new(20, 3600 * SECOND);
        let start = Instant::now();
        let address = "192.0.2.1".parse().unwrap();
        let passed = |at: u32, tries: usize| (0..tries).filter(|_| rate.take(address, start + at * SECOND)).count();
        assert_eq!(passed(0, 30), 20);
        assert_eq!(passed(181, 2), 1);
        assert_eq!(passed(7200, 30), 20);
    }

    #[test]
    fn addresses_do_not_share_a_bucket_but_an_ipv6_subnet_does() {
        let rate = Rate::new(1, SECOND);
        let now = Instant::now();
        let take = |address: &str| rate.take(address.parse().unwrap(), now);
        assert!(take("192.0.2.1"));
        assert!(take("192.0.2.2"));
        assert!(!take("::ffff:192.0.2.1"));
        assert!(take("2001:db8::1"));
        assert!(!take("2001:db8::2"));
        assert!(take("2001:db8:0:1::1"));
    }

    #[test]
    fn addresses_that_were_quiet_for_a_second_are_forgotten() {
        let rate = Rate::new(1, SECOND);
        let start = Instant::now();
        for (second, third) in (0..=255).flat_map(|second| (0..=15).map(move |third| (second, third))) {
            let at = start + Duration::from_secs(u64::from(second));
            assert!(rate.take(IpAddr::from([10, second, third, 1]), at));
        }
        assert!(lock(&rate.table).buckets.len() <= SWEEP_AT);
    }
}
