//! Confirmation of an armed restore, from a new login or by its probes: it stays.

use std::time::Duration;

use anyhow::Result;

use super::audit_log;
use super::deadline::patiently;
use super::journal::{self, Journal, RestorePhase};
use super::pending_confirm::{self, PendingConfirm};
use crate::model::problem::{Fault, FaultKind, Problem};
use crate::sys::host::Host;
use crate::sys::process::session::{LoginSession, Newness};
use crate::task::restore;

/// Wait of `confirm` for the restore to do its last, or for an undo to end.
pub const CONFIRM_WAIT: Duration = Duration::from_secs(20);

/// Keeps the armed restore. Errors: `NotFound` when none is armed, `Usage` from the session that applied it,
/// `Unconfirmed` when its time is over or it is not whole.
pub fn confirm_from_here(host: &Host, id: Option<&str>) -> Result<(String, Option<Problem>)> {
    restore::check_root()?;
    let nothing = || Fault::new(FaultKind::NotFound, "no restore waits for a confirmation");
    let armed = pending_confirm::read(host).ok_or_else(nothing)?;
    if let Some(word) = id.filter(|word| *word != armed.id) {
        let message = format!("'{word}' does not wait for a confirmation");
        return Err(Fault::new(FaultKind::NotFound, message).hint(format!("{} does", armed.id)).into());
    }
    if armed.is_due() {
        return Err(too_late(host, &armed.id).into());
    }

    let (what, hint) = match LoginSession::current().newness(&armed.session, armed.at) {
        Newness::New => ("", ""),
        Newness::Same => (
            "cannot confirm: this is the session that applied it, which does not prove that a login works",
            "log in again (not in a window of tmux or screen), and confirm there",
        ),
        Newness::Older => (
            "cannot confirm: this session is older than the restore, which does not prove that a login works",
            "log in again, and confirm there: an open connection can continue where a new login fails",
        ),
        Newness::NoLogin => (
            "cannot confirm: this is not a login to this system",
            "log in to the system itself (ssh, console, web shell), not from outside of its container and not from a \
             service, and confirm there; if that is not possible, restore with --probe, which confirms automatically",
        ),
    };
    if !what.is_empty() {
        let back = format!("{hint}; `pbx-config undo {}` undoes it", armed.id);
        return Err(Fault::new(FaultKind::Usage, what).hint(back).into());
    }

    let problem = confirm(host, &armed, "from a new session")?;
    Ok((armed.id, problem))
}

/// Keeps an armed restore once nobody applies it any more. Errors: as `confirm_from_here`.
pub fn confirm(host: &Host, armed: &PendingConfirm, how: &str) -> Result<Option<Problem>> {
    // Until it is confirmed nobody undoes it, and nobody still applies it.
    let _alone = patiently(CONFIRM_WAIT, || restore::lock_restore(host))?;
    if pending_confirm::read(host).is_none_or(|now| now.id != armed.id || now.is_due()) {
        return Err(too_late(host, &armed.id).into());
    }
    let mut journal = journal::find(host, Some(&armed.id))?;
    if !matches!(journal.phase, RestorePhase::Done | RestorePhase::Confirmed) {
        let message = format!("{}: it is {}, and cannot be confirmed in this state", armed.id, journal.phase);
        return Err(Fault::new(FaultKind::Unconfirmed, message)
            .hint(journal::ways(&armed.id, journal.phase))
            .into());
    }
    journal.write("confirmed\n")?;
    pending_confirm::disarm(host, &armed.id)?;
    Ok(audit_log::note(host, "confirm", &journal.record, how))
}

/// Builds the error for a restore that no longer waits or is out of time: it says the present state.
fn too_late(host: &Host, id: &str) -> Fault {
    let phase = Journal::open(host, id).map(|journal| journal.phase);
    let (is, hint) = match phase {
        Ok(RestorePhase::Undone) => match audit_log::why_undone(host, id) {
            Some(why) => (why, "restore again, with a longer --confirm-within or other probes".to_owned()),
            None => ("it is undone, by `pbx-config undo`".to_owned(), "restore again".to_owned()),
        },
        Ok(RestorePhase::Confirmed) => {
            ("it was confirmed".to_owned(), format!("`pbx-config undo {id}` can still undo it"))
        }
        _ => (
            "its time is over, it is not undone yet".to_owned(),
            format!("`pbx-config undo {id}` undoes it now, and reports what prevents it"),
        ),
    };
    Fault::new(FaultKind::Unconfirmed, format!("{id}: {is}")).hint(hint)
}
