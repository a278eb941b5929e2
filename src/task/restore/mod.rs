//! Does a plan and undoes it, services and all: one run at a time, everything in the journal, and back to where it
//! began when a step cannot be done.

pub mod apply;
pub mod audit_log;
pub mod auto_rollback;
pub mod confirm;
pub mod database;
pub mod deadline;
pub mod hardware;
pub mod journal;
pub mod observe;
pub mod pending;
pub mod pending_confirm;
pub mod prepare;
pub mod preview;
pub mod probe;
pub mod safety_copy;
pub mod select;
pub mod services;
pub mod target;
pub mod undo;

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use self::deadline::Deadline;
use self::journal::{Journal, RestorePhase};
use self::pending_confirm::PendingConfirm;
use self::prepare::Prepared;
use self::probe::Probe;
use self::undo::Undone;
use super::snapshots::ChosenSnapshot;
use crate::config::ApiConfig;
use crate::model::facts::Product;
use crate::model::problem::{Fault, FaultKind, Problem};
use crate::model::snapshot::SnapshotId;
use crate::model::units::counted;
use crate::plan::restore::RestorePlan;
use crate::plan::restore::stage::{Services, Stage};
use crate::sys::fs::files;
use crate::sys::host::Host;
use crate::sys::pmxcfs::write::{LOCK_OUTLIVED, LOCK_WAIT};
use crate::sys::process::lock::Lock;

/// Options of steps that may cut the admin's own connection.
#[derive(Debug, Clone)]
pub struct ConfirmOptions {
    pub within: Duration,
    pub probes: Vec<Probe>,
    /// Arms a system that is only mounted here, too.
    pub always: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Restored {
    pub id: String,
    pub snapshot: SnapshotId,
    /// Paths that changed.
    pub changed: usize,
    /// It undoes itself unless it is confirmed.
    #[serde(serialize_with = "seconds_left")]
    pub armed: Option<PendingConfirm>,
    pub phase: RestorePhase,
    pub problems: Vec<Problem>,
}

/// Writes how many seconds an armed restore still waits to be confirmed.
#[allow(clippy::ref_option)] // serde's signature
fn seconds_left<S: serde::Serializer>(armed: &Option<PendingConfirm>, to: S) -> Result<S::Ok, S::Error> {
    armed.as_ref().map(PendingConfirm::left).serialize(to)
}

/// Time limit of the stage that may cut the admin's own connection, its services and their commands included; then it
/// is undone. `ifreload` waits a minute for an address.
pub const ARMED_LIMIT: Duration = Duration::from_secs(5 * 60);
/// The lock below.
const RESTORE: &str = "restore.lock";

/// Held while files of the host are written or put back, beside the lock of every run: what undoes itself waits for
/// this one only, not for a backup that hangs.
pub type RestoreLock = Lock;

/// Errors: `Locked` while another restores or undoes.
pub fn lock_restore(host: &Host) -> Result<RestoreLock> {
    Lock::acquire_named(&host.run_dir(), RESTORE)
}

/// Reports whether a restore or an undo runs now.
pub fn is_busy(host: &Host) -> bool {
    Lock::is_held(&host.run_dir(), RESTORE)
}

/// Ends a restore that hangs: all it did is in its journal. None: nobody restores or undoes now.
pub fn kill(host: &Host) -> Option<u32> {
    Lock::kill_holder(&host.run_dir(), RESTORE)
}

/// Returns a notice, before an admin decides to go on, when arming will not work as asked: it is not needed, or a
/// probe already fails.
pub fn beforehand(host: &Host, plan: &RestorePlan, arming: &ConfirmOptions) -> Option<Problem> {
    if !plan.is_armed() {
        let is_asked_for = arming.always || !arming.probes.is_empty();
        return is_asked_for.then(|| {
            Problem::notice(
                "nothing of this can cut your connection: it is not armed, and probes are not used",
            )
            .hint("`pbx-config undo` can undo it at any time")
        });
    }
    let why = probe::ask(host, &arming.probes).err()?;
    let problem = Problem::notice(format!("this probe also failed before the restore: {why}"));
    Some(problem.hint("if it also fails afterwards, the restore is rolled back"))
}

/// Does what the plan says. `tell` hears the id before the first write.
/// Errors: `Locked`, no room, a step that cannot be done: then what was done before it is undone again.
pub fn run(
    host: &Host,
    chosen: &ChosenSnapshot,
    prepared: &Prepared,
    apis: &[(Product, ApiConfig)],
    arming: &ConfirmOptions,
    tell: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Restored> {
    check_root()?;
    let _lock = Lock::acquire(&host.run_dir())?;
    let _alone = lock_restore(host)?;
    check_not_armed(host, None)?;

    let mut problems = journal::sweep(host, None);
    let plan = &prepared.plan;
    problems.extend(plan.skipped.iter().filter(|skipped| skipped.named).map(|skipped| {
        let problem = Problem::warning(format!("/{}: skipped: {}", skipped.path, skipped.reason));
        Problem { hint: skipped.hint.clone(), ..problem }
    }));

    let services = || plan.stages.iter().map(|stage| &stage.services);
    let units = services().flat_map(|services| services.stop.iter().chain(&services.restart));
    let mut running = services::running(host, units);
    running.extend(services().flat_map(|services| services.start.iter().cloned()));

    let mut journal = safety_copy::keep(host, chosen, prepared, running)?;
    tell(&journal.record.id)?;
    // One that is killed says nothing afterwards.
    problems.extend(audit_log::note(host, "restore", &journal.record, "begun"));
    let done = apply_stages(host, &mut journal, apis, arming, LOCK_WAIT);
    finish_or_roll_back(host, &mut journal, apis, "restore", done).map(|mut restored| {
        restored.problems.splice(0..0, problems.drain(..));
        restored
    })
}

/// Goes on with a restore that was cut short. One that is armed already gets its whole time again.
pub fn resume(
    host: &Host,
    id: &str,
    apis: &[(Product, ApiConfig)],
    arming: &ConfirmOptions,
) -> Result<Restored> {
    check_root()?;
    let _lock = Lock::acquire(&host.run_dir())?;
    let _alone = lock_restore(host)?;
    let mut journal = journal::find(host, Some(id))?;
    check_not_armed(host, Some(id))?;
    check_unfinished(&journal)?;
    auto_rollback::go_on(host, id)?;
    // What a power cut took back although the journal has it is done again: all is looked at again.
    journal.finished.clear();
    let done = apply_stages(host, &mut journal, apis, arming, LOCK_OUTLIVED);
    finish_or_roll_back(host, &mut journal, apis, "resume", done)
}

/// Errors: `Usage` when nothing of it is left to be done.
pub fn check_unfinished(journal: &Journal) -> Result<()> {
    if let Some(why) = &journal.unread {
        let fault = Fault::new(FaultKind::Failed, format!("{}: {why}", journal.record.id));
        return Err(fault.hint(format!("`pbx-config undo {}` goes back", journal.record.id)).into());
    }
    let wrong = match journal.phase {
        RestorePhase::Prepared | RestorePhase::Begun | RestorePhase::Written => None,
        RestorePhase::Done | RestorePhase::Confirmed => Some("is already applied"),
        RestorePhase::Undoing | RestorePhase::Undone => Some("was undone"),
    };
    if let Some(wrong) = wrong {
        let fault = Fault::new(FaultKind::Usage, format!("{}: {wrong}", journal.record.id));
        return Err(fault.hint("create a new plan with `pbx-config restore SNAP`").into());
    }
    Ok(())
}

type Gone = Result<(Vec<Problem>, Option<PendingConfirm>)>;

fn apply_stages(
    host: &Host,
    journal: &mut Journal,
    apis: &[(Product, ApiConfig)],
    arming: &ConfirmOptions,
    wait: Duration,
) -> Gone {
    let running = journal.record.running.clone();
    let (mut problems, mut armed) = (Vec::new(), None);
    for stage in journal.record.stages.clone() {
        if journal.steps_of(&stage).next().is_none() {
            continue;
        }
        let mut limit = Deadline::NONE;
        if stage.may_disconnect && (host.exec.is_of_host() || arming.always) {
            armed = Some(auto_rollback::arm(host, &journal.record.id, arming.within, &arming.probes)?);
            limit = Deadline::of(ARMED_LIMIT);
        }
        problems.extend(services::stop(host, &stage.services, &running, limit));
        problems.extend(apply::stage(host, journal, &stage, wait, limit)?);
        problems.extend(services::settle(host, &stage.services, &running, apis, limit));
        limit.check()?;
    }

    apply::settle(host, journal)?;
    journal.write("done\n")?;
    Ok((problems, armed.map(|armed| auto_rollback::begin(host, armed)).transpose()?))
}

fn finish_or_roll_back(
    host: &Host,
    journal: &mut Journal,
    apis: &[(Product, ApiConfig)],
    verb: &str,
    done: Gone,
) -> Result<Restored> {
    let id = journal.record.id.clone();
    let error = match done {
        Ok((mut problems, armed)) => {
            let result = if armed.is_some() { "armed" } else { "ok" };
            problems.extend(audit_log::note(host, verb, &journal.record, result));
            return Ok(Restored {
                id,
                snapshot: journal.record.snapshot.clone(),
                changed: journal.record.steps.len(),
                armed,
                phase: journal.phase,
                problems,
            });
        }
        Err(error) => error,
    };

    if crate::sys::process::signals::check_stopped().is_err() {
        audit_log::note(host, verb, &journal.record, "stopped half-way");
        let fault = Fault::new(FaultKind::Failed, format!("stopped half-way: {error:#}"));
        let hint = format!("`pbx-config undo {id}` undoes it, `pbx-config restore --resume {id}` resumes it");
        return Err(fault.hint(hint).into());
    }

    let kind = error.downcast_ref::<Fault>().map_or(FaultKind::Failed, |fault| fault.kind);
    let hint = error.downcast_ref::<Fault>().and_then(|fault| fault.hint.clone());
    let (what, result, hint) = match roll_back(host, journal, apis, false) {
        Ok(undone) if undone.left == 0 => {
            let armed = pending_confirm::forget(host, &id).err().map(|error| format!("; {error:#}"));
            let what = "the steps that were done are undone again".to_owned() + &armed.unwrap_or_default();
            (what, "failed; undone".to_owned(), hint)
        }
        Ok(undone) => (
            format!("and {} could not be put back", counted(undone.left, "path")),
            format!("failed; {} could not be put back", counted(undone.left, "path")),
            Some(format!("`pbx-config undo {id}` reports which, and tries again")),
        ),
        Err(undo) => (
            format!("and undoing failed: {undo:#}"),
            format!("failed; undoing failed: {undo:#}"),
            Some(format!("`pbx-config undo {id}` tries again")),
        ),
    };
    audit_log::note(host, verb, &journal.record, &result);
    Err(Fault { kind, message: format!("{error:#}; {what}"), hint }.into())
}

/// Undoes a restore by hand. Errors: `NotFound`, `Locked`.
pub fn undo(host: &Host, id: Option<&str>, apis: &[(Product, ApiConfig)], force: bool) -> Result<Undone> {
    check_root()?;
    let _lock = Lock::acquire(&host.run_dir())?;
    let _alone = lock_restore(host)?;
    let mut journal = journal::find(host, id)?;
    if journal.phase == RestorePhase::Undone && !(force && id.is_some()) {
        pending_confirm::forget(host, &journal.record.id)?;
        return Ok(Undone { older: journal::older(host, &journal.record.id), ..Undone::already(&journal) });
    }

    let mut undone = roll_back(host, &mut journal, apis, force)?;
    // Whoever forces it sees what is left; it must not keep every later restore out.
    if undone.left == 0 || force {
        let forgotten = pending_confirm::forget(host, &journal.record.id);
        let still = |error| Problem::error(format!("{error:#}")).hint("see to its disk, then undo again");
        undone.problems.extend(forgotten.err().map(still));
    }

    let result =
        if undone.left == 0 { "ok".to_owned() } else { format!("{} left", counted(undone.left, "path")) };
    undone.problems.extend(audit_log::note(host, "undo", &journal.record, &result));
    Ok(undone)
}

/// Puts the files back, then starts the services that read them; the last stage first.
pub fn roll_back(
    host: &Host,
    journal: &mut Journal,
    apis: &[(Product, ApiConfig)],
    force: bool,
) -> Result<Undone> {
    let running = journal.record.running.clone();
    let stages: Vec<Stage> = journal.record.stages.iter().rev().cloned().collect();
    let stood: Vec<&String> = stages.iter().rev().flat_map(|stage| &stage.services.start).collect();
    let is_undone = journal.phase == RestorePhase::Undone;
    let begun: Vec<&Stage> = stages.iter().filter(|stage| !is_undone && journal.has_begun(stage)).collect();
    let was_prepared = journal.phase == RestorePhase::Prepared;

    // What the restore started for the first time is stopped, and stays so.
    let ran: Vec<String> = running.iter().filter(|unit| !stood.contains(unit)).cloned().collect();
    let mut problems = Vec::new();
    for stage in &begun {
        problems.extend(services::stop(host, &stage.services, &running, Deadline::NONE));
    }

    let mut undone = undo::files(host, journal, force)?;
    for stage in &begun {
        problems.extend(services::settle(host, &stage.services, &ran, apis, Deadline::NONE));
    }

    // A service that was stopped before the first step was begun.
    for stage in stages.iter().filter(|_| was_prepared) {
        let stopped = Services { stop: stage.services.stop.clone(), ..Services::default() };
        problems.extend(services::settle(host, &stopped, &ran, apis, Deadline::NONE));
    }

    if host.exec.is_of_host() && !begun.is_empty() {
        problems.extend(stood.iter().map(|unit| {
            let problem =
                Problem::notice(format!("{unit}: was stopped before the restore, and is stopped again"));
            problem.hint(format!("`systemctl start {unit}` starts it"))
        }));
    }
    undone.problems.extend(problems);
    Ok(undone)
}

pub fn check_root() -> Result<()> {
    if files::is_root() {
        return Ok(());
    }
    let fault = Fault::new(FaultKind::Failed, "only root can change this system");
    Err(fault.hint("run it as root; --dry-run and --to DIR need no root").into())
}

/// `own` is the one that goes on.
fn check_not_armed(host: &Host, own: Option<&str>) -> Result<()> {
    let Some(armed) = pending_confirm::read(host).filter(|armed| Some(armed.id.as_str()) != own) else {
        return Ok(());
    };
    let fault = Fault::new(FaultKind::Locked, format!("the restore {} waits for a confirmation", armed.id));
    Err(fault.hint(format!("`pbx-config confirm` keeps it, `pbx-config undo {}` undoes it", armed.id)).into())
}
