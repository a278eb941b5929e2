//! The end of every run, also of one that failed: its record is written. What goes wrong here is a problem of the run
//! and never its end.

use anyhow::Result;

use super::records;
use crate::model::problem::{Exit, Fault, Outcome, Problem};
use crate::model::record::RunRecord;
use crate::model::report::Report;
use crate::model::snapshot::Trigger;
use crate::sys::error_hint;
use crate::sys::host::Host;
use crate::sys::host_dir::is_link_in_the_way;

/// A run that ended in an error, as a report.
pub fn failure(host: &Host, verb: &'static str, took: f64, error: &anyhow::Error) -> Report {
    Report::failed(verb, &host.facts, took, problem(error))
}

fn problem(error: &anyhow::Error) -> Problem {
    Problem { hint: error_hint::own(error), ..Problem::error(crate::sys::mask::mask(&format!("{error:#}"))) }
}

/// Keeps what a backup came to.
pub fn backup(host: &Host, report: &mut Report, trigger: Trigger, done: &Result<Report>) {
    let exit = done.as_ref().map_or_else(exit, |_| report.outcome.into());
    // The run that holds the lock tells of itself.
    if exit == Exit::Locked {
        return;
    }
    let record = RunRecord::of(report, host.now, exit as i32, Some(trigger));
    if let Some(problem) = keep(host, record) {
        report.problems.push(problem);
        report.outcome = report.outcome.max(Outcome::Warned);
    }
}

/// The part that every record has.
pub fn blank(host: &Host, verb: &'static str) -> RunRecord {
    RunRecord::of(&Report::blank(verb, &host.facts, 0.0), host.now, 0, None)
}

/// Keeps what another verb came to; not a word that named nothing, nor files outside of stores.
pub fn other(host: &Host, mut record: RunRecord, done: &Result<Exit>) {
    let exit = match done {
        Ok(exit) => *exit,
        Err(error) => exit(error),
    };
    let of_stores = !record.stores.is_empty() || !record.verified.is_empty();
    if matches!(exit, Exit::Locked | Exit::NotFound) || done.is_ok() && !of_stores {
        return;
    }
    if let Err(error) = done {
        record.problems.push(problem(error));
    }
    record.exit = exit as i32;
    record.outcome = match exit {
        Exit::Ok => Outcome::Ok,
        Exit::Problems => Outcome::Warned,
        _ => Outcome::Failed,
    };

    if let Some(problem) = keep(host, record) {
        log::warn!("{}", problem.what);
    }
}

fn exit(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Fault>().map_or(Exit::Failed, |fault| fault.kind.into())
}

fn keep(host: &Host, record: RunRecord) -> Option<Problem> {
    let error = records::keep(host, record).err()?;
    // Another system may be read-only; nobody looks for records of it.
    let may_be_kept = is_link_in_the_way(&error) || host.state().is_ok_and(|state| state.is_writable());
    (host.is_live() || may_be_kept).then(|| {
        Problem::warning(format!("this run was not recorded: {error:#}"))
            .hint("`pbx-config status` and `pbx-config log` do not show it")
    })
}
