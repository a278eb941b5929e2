//! Threads of a run. One that the system does not give (a limit of tasks, no memory) costs time, not the run: the
//! thread that asked for it does the work itself.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

/// Work that was given to a thread of its own, or was done at once because there was none.
pub enum Started<'scope, T> {
    Beside(ScopedJoinHandle<'scope, Option<T>>),
    Done(Option<T>),
}

impl<T> Started<'_, T> {
    /// Waits for the end of it. None: it panicked.
    pub fn join(self) -> Option<T> {
        match self {
            Self::Beside(thread) => thread.join().ok().flatten(),
            Self::Done(value) => value,
        }
    }

    /// Waits for the end of it; a panic goes on here.
    pub fn join_or_panic(self) -> Option<T> {
        match self {
            Self::Beside(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Self::Done(value) => value,
        }
    }
}

/// Does some work beside the caller, or before this returns when there is no thread for it.
pub fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Started<'scope, T> {
    // A thread that cannot be started drops what it was given.
    let shared = Arc::new(Mutex::new(Some(work)));
    let take = |shared: &Mutex<Option<_>>| shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = Arc::clone(&shared);
    match Builder::new().spawn_scoped(scope, move || take(&theirs).map(|work| work())) {
        Ok(thread) => Started::Beside(thread),
        Err(_) => Started::Done(take(&shared).map(|work| work())),
    }
}

/// Does some work for each item, all at the same time. The results stand in the order of the items; a panic goes on
/// here.
pub fn for_each<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> T + Sync,
) -> Vec<T> {
    let work = &work;
    scope(|scope| {
        let started: Vec<_> = items.into_iter().map(|item| start(scope, move || work(item))).collect();
        started.into_iter().filter_map(Started::join_or_panic).collect()
    })
}

/// Reports whether this many threads could be started now.
pub fn are_available(count: u32) -> bool {
    let gate = Mutex::new(());
    let closed = gate.lock();
    scope(|scope| {
        let wait = || drop(gate.lock());
        let started: Result<Vec<_>, _> =
            (0..count).map(|_| Builder::new().spawn_scoped(scope, wait)).collect();
        drop(closed);
        started.is_ok()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        assert_eq!(for_each(0..20, |n| n * 2), (0..20).map(|n| n * 2).collect::<Vec<_>>());
        assert!(are_available(2));
    }
}
