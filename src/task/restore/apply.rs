//! Does what a record says, step by step, each in the journal before it is begun. What is there already as it is to
//! be is passed over, so that the same goes on where a run was killed.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};

use super::deadline::Deadline;
use super::journal::Journal;
use super::observe;
use super::target::{below, hold_guest, meta, sync};
use crate::model::index::{EntryKind, Name};
use crate::model::problem::{Fault, FaultKind, Problem};
use crate::plan::restore::stage::Stage;
use crate::plan::restore::{Action, LivePath, RestoreStep, TargetKind};
use crate::sys::fs::contained_dir::ContainedDir;
use crate::sys::fs::replace;
use crate::sys::host::Host;
use crate::sys::pmxcfs::offline;
use crate::sys::pmxcfs::write::{self, Change, Desired};
use crate::sys::process::signals::check_stopped;

/// Does the steps of one stage.
/// Errors: of the first step that cannot be done, with its path; of the limit.
pub fn stage(
    host: &Host,
    journal: &mut Journal,
    stage: &Stage,
    lock_wait: std::time::Duration,
    limit: Deadline,
) -> Result<Vec<Problem>> {
    let root = ContainedDir::open(host.root())?;
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
        let step = &journal.record.steps[n];
        let lost = one(host, &root, journal, n, is_in_flight, limit.cut(lock_wait))
            .with_context(|| format!("cannot put back /{}", step.path))?;
        let lost =
            lost.into_iter().map(|name| format!("/{}: {name}: this attribute cannot be kept", step.path));
        problems.extend(lost.map(Problem::notice));
        ended = Some(n);
    }

    if let Some(last) = ended {
        journal.write(&format!("end {last}\n"))?;
    }
    Ok(problems)
}

fn one(
    host: &Host,
    root: &ContainedDir,
    journal: &Journal,
    n: usize,
    is_in_flight: bool,
    lock_wait: std::time::Duration,
) -> Result<Vec<String>> {
    let step = &journal.record.steps[n];
    let path = step.path.as_path();

    match step.via {
        TargetKind::Pmxcfs => tree(host, journal, n, lock_wait).map(|()| Vec::new()),
        TargetKind::Disk => {
            if offline::is_database(path) {
                offline::wait_stopped(host)?;
            }
            let live = observe::look(&host.path(Path::new("/").join(path)))?;
            match ahead(step, &live, is_in_flight) {
                Ahead::IsThere => return Ok(Vec::new()),
                Ahead::Changed => {
                    return Err(Fault::new(FaultKind::Failed, "it was changed meanwhile").into());
                }
                Ahead::Write => {}
            }
            let after = &step.after;
            let temp = journal.temp(n);
            if step.how == Action::Remove {
                replace::remove(root, path, after.kind)?;
                // It must not come back after a power cut, beside what is written next.
                root.sync_around([path].into_iter())?;
                return Ok(Vec::new());
            }
            Ok(match (after.kind, &after.link) {
                (EntryKind::Symlink, Some(link)) => {
                    replace::symlink(root, path, &temp, link, &meta(after)).map(|()| Vec::new())?
                }
                (EntryKind::Dir, _) => replace::dir(root, path, &meta(after))?,
                _ => replace::file(root, path, &temp, &mut File::open(journal.after(n))?, &meta(after))?,
            })
        }
    }
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
        LivePath::There { print, .. } => step.how != Action::Remove && print.same(&step.after),
        LivePath::Blocked(_) => false,
    };
    if is_there {
        return Ahead::IsThere;
    }

    let is_as_planned = match (&step.before, live) {
        (None, LivePath::Absent) => true,
        (Some(before), LivePath::There { print, .. }) => before.same(print),
        _ => false,
    };

    // A directory may have been made and not yet have its mode.
    let is_half = is_in_flight && step.after.kind == EntryKind::Dir;
    if is_as_planned || is_half { Ahead::Write } else { Ahead::Changed }
}

/// Lists the steps left to be written, by looking only. None: somebody changed that path during the run; the restore
/// would end there.
/// Errors: the host cannot be looked at.
pub fn look(host: &Host, journal: &Journal) -> Result<Vec<(Name, Option<Action>)>> {
    let record = &journal.record;
    let tree = super::target::tree(host, journal, 0..record.steps.len()).map_err(anyhow::Error::msg)?;
    let mut left = Vec::new();

    for stage in &record.stages {
        for n in journal.steps_of(stage) {
            let step = &record.steps[n];
            let ahead = match step.via {
                TargetKind::Disk => {
                    let live = observe::look(&host.path(Path::new("/").join(step.path.as_path())))
                        .with_context(|| format!("/{}", step.path))?;
                    ahead(step, &live, journal.begun.contains(&n))
                }
                TargetKind::Pmxcfs => {
                    let live = tree.get(&step.path).map(super::target::sum_now);
                    let before = step.before.as_ref().map(super::target::sum_of);
                    match live {
                        live if live == Some(super::target::sum_of(&step.after)) => Ahead::IsThere,
                        live if live == before => Ahead::Write,
                        _ => Ahead::Changed,
                    }
                }
            };
            match ahead {
                Ahead::IsThere => {}
                Ahead::Write => left.push((step.path.clone(), Some(step.how))),
                Ahead::Changed => left.push((step.path.clone(), None)),
            }
        }
    }
    Ok(left)
}

fn tree(host: &Host, journal: &Journal, n: usize, lock_wait: std::time::Duration) -> Result<()> {
    let step = &journal.record.steps[n];
    let content = if step.after.kind == EntryKind::File { fs::read(journal.after(n))? } else { Vec::new() };
    let before = step.before.as_ref().map(|before| before.sha256.as_str());
    let change = Change {
        path: below(step),
        temp: &journal.temp(n),
        lock: step.lock.as_deref(),
        lock_wait,
        expect: &[before, Some(&step.after.sha256)],
        to: if step.after.kind == EntryKind::File { Desired::File(&content) } else { Desired::Dir },
        mtime: None,
    };
    let _guest = hold_guest(host, step)?;
    write::put(host, &change)
}

/// After the last step: new directories have the time that the snapshot says, and all of it survives a power cut.
pub fn settle(host: &Host, journal: &mut Journal) -> Result<()> {
    let root = ContainedDir::open(host.root())?;
    for step in journal.record.steps.iter().rev() {
        if step.via == TargetKind::Disk && step.after.kind == EntryKind::Dir && step.before.is_none() {
            replace::set_time(&root, step.path.as_path(), step.after.mtime)?;
        }
    }
    sync(&root, &journal.record)?;
    journal.write("written\n")
}
