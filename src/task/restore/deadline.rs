//! The deadline of a part of a restore as a whole: each of its commands and steps has a limit, their sum has none.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::model::problem::{Fault, FaultKind};

/// Pause between two tries, and two looks at what is waited for.
pub const POLL: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<(Instant, Duration)>);

impl Deadline {
    pub const NONE: Self = Self(None);

    /// Starts the time limit now.
    pub fn of(whole: Duration) -> Self {
        Self(Some((Instant::now(), whole)))
    }

    /// Returns a limit of a part's own, cut to what is left of the whole; zero when nothing is.
    pub fn cut(self, own: Duration) -> Duration {
        self.0.map_or(own, |(since, whole)| own.min(whole.saturating_sub(since.elapsed())))
    }

    /// Errors: `Failed` when nothing is left.
    pub fn check(self) -> std::result::Result<(), Fault> {
        match self.0 {
            Some((since, whole)) if since.elapsed() >= whole => {
                let seconds = whole.as_secs();
                let what = format!("the steps that may cut your connection were not done within {seconds} s");
                Err(Fault::new(FaultKind::Failed, what).hint("see the journal for what took so long"))
            }
            _ => Ok(()),
        }
    }
}

/// Tries again until it works or `limit` is over. Errors: the last one.
pub fn patiently<T>(limit: Duration, acquire: impl Fn() -> Result<T>) -> Result<T> {
    let since = Instant::now();
    loop {
        match acquire() {
            Err(_) if since.elapsed() < limit => std::thread::sleep(POLL),
            acquired => return acquired,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_gets_what_is_left_of_the_whole() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        assert_eq!(Deadline::NONE.cut(hour), hour);
        assert_eq!(Deadline::of(hour).cut(second), second);
        assert!(Deadline::of(second).cut(hour) <= second && Deadline::of(hour).check().is_ok());
        let over = Deadline::of(Duration::ZERO);
        assert!(over.cut(second).is_zero() && over.check().is_err());
    }
}
