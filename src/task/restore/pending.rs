//! Restores that are not at their end: armed, half done, half undone; what `check` and `status` say of them.
//! Only looks.

use super::journal::{self, Journal, RestorePhase};
use super::pending_confirm;
use crate::model::problem::Problem;
use crate::sys::host::Host;
use crate::task::restore;

/// Lists restores that are not at their end; empty for users who may not look into the memory of restores.
pub fn restores(host: &Host) -> Vec<Problem> {
    let armed = pending_confirm::read(host);
    let ids = journal::ids(host);
    if ids.is_empty() {
        return Vec::new();
    }

    // A restore that is at work is not half done.
    let is_busy = restore::is_busy(host);
    let mut problems = Vec::new();
    for id in ids {
        match &armed {
            Some(armed) if armed.id == id => problems.push(waits(host, armed, is_busy)),
            _ if is_busy => {}
            _ => problems.extend(half(host, &id)),
        }
    }
    problems
}

fn waits(host: &Host, armed: &pending_confirm::PendingConfirm, is_busy: bool) -> Problem {
    let id = &armed.id;
    let phase = Journal::open(host, id).map(|journal| journal.phase);
    if armed.is_due() {
        let problem = Problem::error(format!("the restore {id} was not confirmed, and is not undone yet"));
        return problem.hint(format!("`pbx-config undo {id}` undoes it, and reports what prevents it"));
    }
    if let (Ok(phase @ (RestorePhase::Begun | RestorePhase::Written | RestorePhase::Undoing)), false) =
        (phase, is_busy)
    {
        let what =
            format!("the restore {id} was interrupted: {phase}; it is rolled back in {} s", armed.left());
        return Problem::error(what).hint(journal::ways(id, phase));
    }
    let what = format!("the restore {id} is rolled back in {} s", armed.left());
    Problem::notice(what).hint("`pbx-config confirm` in a new login session keeps it")
}

fn half(host: &Host, id: &str) -> Option<Problem> {
    let journal = match Journal::open(host, id) {
        Ok(journal) => journal,
        Err(error) => return Some(Problem::warning(format!("the restore {id}: {error:#}"))),
    };
    if let Some(why) = &journal.unread {
        return Some(Problem::warning(format!("the restore {id}: {why}")));
    }
    match journal.phase {
        RestorePhase::Begun | RestorePhase::Written => {
            let problem = Problem::error(format!("the restore {id} was interrupted: {}", journal.phase));
            Some(problem.hint(journal::ways(id, journal.phase)))
        }
        RestorePhase::Undoing => {
            let problem = Problem::error(format!("the restore {id} is {}", journal.phase));
            Some(problem.hint(format!("`pbx-config undo {id}` continues, and reports what is left")))
        }
        RestorePhase::Prepared | RestorePhase::Done | RestorePhase::Confirmed | RestorePhase::Undone => None,
    }
}
