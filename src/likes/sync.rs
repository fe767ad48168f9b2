//! The locks and threads that the concurrent core is built of, in one place, so that a model checker can stand in
//! for the standard library's.
//!
//! A panic in one connection must end that connection alone, so a lock that a panicking thread held is taken all the
//! same: nothing of ours is left half-changed under a lock.

#[cfg(shuttle)]
use shuttle as scheduled;
#[cfg(not(shuttle))]
use std as scheduled;

pub(crate) use scheduled::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};
pub(crate) use std::sync::Arc;
#[cfg(not(shuttle))]
pub(crate) use std::sync::OnceLock;

use std::{sync::PoisonError, time::Duration};

/// Takes a lock, also one that a panicking thread let go.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits to be notified.
pub(crate) fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits to be notified, for `time` at most. `mutex` is the guard's own.
#[cfg(not(shuttle))]
pub(crate) fn wait_for<'a, T>(
    condition: &Condvar,
    _mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    time: Duration,
) -> MutexGuard<'a, T> {
    condition.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
}

/// The model scheduler knows no time. A wait of a minute or more never times out, so that a notification that nobody
/// sends is found; a shorter one ends by a notification or by a timer, whichever happens to come first.
#[cfg(shuttle)]
pub(crate) fn wait_for<'a, T>(
    condition: &Condvar,
    _mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    time: Duration,
) -> MutexGuard<'a, T> {
    if time >= Duration::from_secs(60) {
        return wait(condition, guard);
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::yield_now();
            condition.notify_all();
        });
        wait(condition, guard)
    })
}

/// What the standard library's has and shuttle lacks: a value that is set once, and waited for.
#[cfg(shuttle)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    lock: Mutex<()>,
    set: Condvar,
}

#[cfg(shuttle)]
impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self { value: std::sync::OnceLock::new(), lock: Mutex::new(()), set: Condvar::new() }
    }
}

#[cfg(shuttle)]
impl<T> OnceLock<T> {
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _guard = lock(&self.lock);
        let result = self.value.set(value);
        self.set.notify_all();
        result
    }

    pub(crate) fn wait(&self) -> &T {
        let mut guard = lock(&self.lock);
        loop {
            match self.value.get() {
                Some(value) => return value,
                None => guard = wait(&self.set, guard),
            }
        }
    }
}
