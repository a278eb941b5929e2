//! An error that does not end the run, as a problem that still says what to do.

use crate::model::problem::Problem;
use crate::sys::error_hint;

/// Returns the hint of an error: its own, or the usual one for its cause.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error_hint::own(error).or_else(|| error_hint::hint(error).map(str::to_owned))
}

pub fn error(error: &anyhow::Error) -> Problem {
    Problem { hint: hint(error), ..Problem::error(format!("{error:#}")) }
}

pub fn warning(error: &anyhow::Error) -> Problem {
    Problem { hint: hint(error), ..Problem::warning(format!("{error:#}")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;

    use anyhow::Context;

    use super::*;
    use crate::model::problem::Fault;

    #[test]
    fn a_problem_says_what_helps_as_its_error_would() {
        let full =
            || Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull)).context("store 'nas'").unwrap_err();
        assert!(warning(&full()).hint.is_some_and(|hint| hint.starts_with("free some space there")));
        let own = full().context(Fault::failed("x").hint("take a larger one"));
        assert_eq!(error(&own).hint.as_deref(), Some("take a larger one"));
        assert_eq!(error(&anyhow::anyhow!("odd")).hint, None);
    }
}
