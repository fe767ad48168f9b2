//! A few connections that all threads share, since each costs descriptors and memory.

use crate::error::{Error, Result};
use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Connections at once.
pub(super) const MOST: usize = 8;

/// How long a free one is waited for.
const FREE_WITHIN: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5000 });

#[derive(Debug)]
pub(super) struct Pool<C> {
    state: Mutex<State<C>>,
    free: Condvar,
}

#[derive(Debug)]
struct State<C> {
    idle: Vec<C>,
    /// How many places are taken, by a connection in use or an idle one.
    open: usize,
    closed: bool,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { state: Mutex::new(State { idle: Vec::new(), open: 0, closed: false }), free: Condvar::new() }
    }
}

impl<C> Pool<C> {
    pub(super) fn lend(&self) -> Result<Lent<'_, C>> {
        let deadline = Instant::now() + FREE_WITHIN;
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(Error::Closed);
            }
            let connection = state.idle.pop();
            if connection.is_some() || state.open < MOST {
                state.open += usize::from(connection.is_none());
                return Ok(Lent { pool: self, connection });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::NotRead(format!("{MOST} others have been reading for {FREE_WITHIN:?}")));
            }
            state = self.free.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Closes those that are idle, and each other once it has read.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
        self.free.notify_all();
    }

    /// How many are idle, and how many places are taken.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.idle.len(), state.open)
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the connections, and one of them unless it is still to be opened or has failed.
pub(super) struct Lent<'p, C> {
    pool: &'p Pool<C>,
    connection: Option<C>,
}

impl<C> Lent<'_, C> {
    pub(super) fn take(&mut self) -> Option<C> {
        self.connection.take()
    }

    /// Has it used again. One that has failed is not put back.
    pub(super) fn put_back(&mut self, connection: C) {
        self.connection = Some(connection);
    }
}

impl<C> Drop for Lent<'_, C> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        match self.connection.take() {
            Some(connection) if !state.closed => state.idle.push(connection),
            none => {
                state.open -= 1;
                drop(state);
                drop(none);
            }
        }
        self.pool.free.notify_one();
    }
}
