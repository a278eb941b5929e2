//! Does what a record says, step by step, each in the journal before it is begun. What is there already as it is to
//! be is passed over, so that the same goes on where a run was killed.

use std::time::Duration;

use anyhow::{Context, Result};

use super::deadline::Deadline;
use super::journal::Journal;
use super::target::{StepWrite, Targets};
use crate::model::index::{EntryKind, Name};
use crate::model::problem::{Fault, FaultKind, Problem};
use crate::plan::restore::stage::Stage;
use crate::plan::restore::{Action, LivePath, RestoreStep, TargetKind};
use crate::sys::host::Host;
use crate::sys::process::signals::check_stopped;

/// Does the steps of one stage.
/// Errors: of the first step that cannot be done, with its path; of the limit.
pub fn stage(
    host: &Host,
    journal: &mut Journal,
    stage: &Stage,
    lock_wait: Duration,
    limit: Deadline,
) -> Result<Vec<Problem>> {
    let targets = Targets::open(host, std::iter::empty())?;
    let mut problems = Vec::new();
    let mut ended = None;
    let remaining: Vec<usize> = journal.steps_of(stage).filter(|n| !journal.finished.contains(n)).collect();
    for n in remaining {
        check_stopped()?;
        limit.check()?;
        let is_in_flight = journal.begun.contains(&n);
        // The end of one and the beginning of the next are one write to the disk.
        let end = ended.take().map(|last| format!("end {last}\n")).unwrap_or_default();
        journal.write(&format!("{end}begin {n}\n"))?;
        let path = &journal.record.steps[n].path;
        let lost = apply_step(&targets, journal, n, is_in_flight, limit.cut(lock_wait))
            .with_context(|| format!("cannot put back /{path}"))?;
        let lost = lost.into_iter().map(|name| format!("/{path}: {name}: this attribute cannot be set"));
        problems.extend(lost.map(Problem::notice));
        ended = Some(n);
    }

    if let Some(last) = ended {
        journal.write(&format!("end {last}\n"))?;
    }
    Ok(problems)
}

/// Does one step; attributes that cannot be kept come back.
fn apply_step(
    targets: &Targets,
    journal: &Journal,
    n: usize,
    is_in_flight: bool,
    lock_wait: Duration,
) -> Result<Vec<String>> {
    let step = &journal.record.steps[n];
    targets.wait_free(step)?;

    // /etc/pve compares for itself, while its lock is held.
    if step.via == TargetKind::Disk {
        match ahead(step, &targets.state(step)?, is_in_flight) {
            Ahead::IsThere => return Ok(Vec::new()),
            Ahead::Changed => {
                return Err(Fault::new(FaultKind::Failed, "it was changed during the run").into());
            }
            Ahead::Write => {}
        }
    }
    if step.how == Action::Remove {
        return targets.remove_for_good(step.path.as_path()).map(|()| Vec::new());
    }

    let before = step.before.as_ref().map(|before| before.sha256.as_str());
    targets.write(&StepWrite {
        step,
        to: &step.after,
        copy: journal.after(n),
        temp: journal.temp(n),
        expect: &[before, Some(&step.after.sha256)],
        lock_wait,
        keeps_time: false,
    })
}

enum Ahead {
    IsThere,
    Write,
    /// It is neither what it was nor what it is to be.
    Changed,
}

fn ahead(step: &RestoreStep, live: &LivePath, is_in_flight: bool) -> Ahead {
    let is_there = match live {
        LivePath::Absent => step.how == Action::Remove,
        LivePath::There { print, .. } => step.how != Action::Remove && step.via.same(print, &step.after),
        LivePath::Blocked(_) => false,
    };
    if is_there {
        return Ahead::IsThere;
    }

    let is_as_planned = match (&step.before, live) {
        (None, LivePath::Absent) => true,
        (Some(before), LivePath::There { print, .. }) => step.via.same(before, print),
        _ => false,
    };

    // A directory of a disk may have been made and not yet have its mode.
    let is_half = is_in_flight && step.after.kind == EntryKind::Dir && step.via == TargetKind::Disk;
    if is_as_planned || is_half { Ahead::Write } else { Ahead::Changed }
}

/// Lists the steps left to be written, by looking only. None: somebody changed that path during the run; the restore
/// would end there.
/// Errors: the host cannot be looked at.
pub fn look(host: &Host, journal: &Journal) -> Result<Vec<(Name, Option<Action>)>> {
    let record = &journal.record;
    let targets = Targets::open(host, record.steps.iter())?;
    targets.check()?;
    let mut left = Vec::new();

    for n in record.stages.iter().flat_map(|stage| journal.steps_of(stage)) {
        let step = &record.steps[n];
        let live = targets.state(step).with_context(|| format!("/{}", step.path))?;
        match ahead(step, &live, journal.begun.contains(&n)) {
            Ahead::IsThere => {}
            Ahead::Write => left.push((step.path.clone(), Some(step.how))),
            Ahead::Changed => left.push((step.path.clone(), None)),
        }
    }
    Ok(left)
}

/// Ends the last step: new directories get the time that the snapshot says, and all of it survives a power cut.
pub fn settle(host: &Host, journal: &mut Journal) -> Result<()> {
    let targets = Targets::open(host, std::iter::empty())?;
    for step in journal.record.steps.iter().rev() {
        if step.via == TargetKind::Disk && step.after.kind == EntryKind::Dir && step.before.is_none() {
            targets.set_mtime(&step.path, step.after.mtime, "")?;
        }
    }
    targets.sync(&journal.record)?;
    journal.write("written\n")
}
