//! Does what a record says, step by step, each in the journal before it is begun. What is there already as it is to
//! be is passed over, so that the same goes on where a run was killed.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::deadline::Limit;
use super::journal::{Journal, Record};
use super::observe;
use super::undo;
use crate::catalog::guests::Guest;
use crate::model::index::{Kind, Name};
use crate::model::report::{Fault, FaultKind, Problem};
use crate::plan::restore::{Fingerprint, How, Live, PVE, Step, Via};
use crate::sys::fs::contained_dir::Beneath;
use crate::sys::fs::replace::{self, Meta};
use crate::sys::guests;
use crate::sys::host::Host;
use crate::sys::pmxcfs::offline;
use crate::sys::pmxcfs::write::{self, Put, To};
use crate::sys::process::lock::check_stopped;

/// One half of the steps: those that risk nothing, or those that may cut the admin's connection.
/// Errors: of the first step that cannot be done, with its path; of the limit.
pub fn half(
    host: &Host,
    journal: &mut Journal,
    session: bool,
    lock_wait: std::time::Duration,
    limit: Limit,
) -> Result<Vec<Problem>> {
    let root = Beneath::open(host.root())?;
    let mut problems = Vec::new();
    let mut ended = None;
    for n in 0..journal.record.steps.len() {
        if journal.record.steps[n].session != session || journal.finished.contains(&n) {
            continue;
        }
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
    root: &Beneath,
    journal: &Journal,
    n: usize,
    is_in_flight: bool,
    lock_wait: std::time::Duration,
) -> Result<Vec<String>> {
    let step = &journal.record.steps[n];
    let path = step.path.as_path();
    match step.via {
        Via::Pmxcfs => tree(host, journal, n, lock_wait).map(|()| Vec::new()),
        Via::Disk => {
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
            if step.how == How::Remove {
                replace::remove(root, path, after.kind)?;
                // It must not come back after a power cut, beside what is written next.
                root.sync_around([path].into_iter())?;
                return Ok(Vec::new());
            }
            Ok(match (after.kind, &after.link) {
                (Kind::Symlink, Some(link)) => {
                    replace::symlink(root, path, &temp, link, &meta(after)).map(|()| Vec::new())?
                }
                (Kind::Dir, _) => replace::dir(root, path, &meta(after))?,
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

fn ahead(step: &Step, live: &Live, is_in_flight: bool) -> Ahead {
    let is_there = match live {
        Live::Absent => step.how == How::Remove,
        Live::There { print, .. } => step.how != How::Remove && print.same(&step.after),
        Live::Blocked(_) => false,
    };
    if is_there {
        return Ahead::IsThere;
    }
    let is_as_planned = match (&step.before, live) {
        (None, Live::Absent) => true,
        (Some(before), Live::There { print, .. }) => before.same(print),
        _ => false,
    };
    // A folder may have been made and not yet have its mode.
    let is_half = is_in_flight && step.after.kind == Kind::Dir;
    if is_as_planned || is_half { Ahead::Write } else { Ahead::Changed }
}

/// What is left to be written, by looking only; None at a path that somebody changed meanwhile, where it would end.
/// Errors: the host cannot be looked at.
pub fn look(host: &Host, journal: &Journal) -> Result<Vec<(Name, Option<How>)>> {
    let steps = &journal.record.steps;
    let tree = undo::tree(host, journal, 0..steps.len()).map_err(anyhow::Error::msg)?;
    let mut left = Vec::new();
    // Those that may cut a connection come last.
    for session in [false, true] {
        for (n, step) in steps.iter().enumerate().filter(|(_, step)| step.session == session) {
            let ahead = match step.via {
                Via::Disk => {
                    let live = observe::look(&host.path(Path::new("/").join(step.path.as_path())))
                        .with_context(|| format!("/{}", step.path))?;
                    ahead(step, &live, journal.begun.contains(&n))
                }
                Via::Pmxcfs => {
                    let live = tree.get(&step.path).map(undo::sum_now);
                    let before = step.before.as_ref().map(undo::sum_of);
                    match live {
                        live if live == Some(undo::sum_of(&step.after)) => Ahead::IsThere,
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

pub fn meta(print: &Fingerprint) -> Meta<'_> {
    Meta { owner: (print.uid, print.gid), mode: print.mode, xattrs: &print.xattrs, mtime: print.mtime }
}

fn tree(host: &Host, journal: &Journal, n: usize, lock_wait: std::time::Duration) -> Result<()> {
    let step = &journal.record.steps[n];
    let content = if step.after.kind == Kind::File { fs::read(journal.after(n))? } else { Vec::new() };
    let before = step.before.as_ref().map(|before| before.sha256.as_str());
    let change = Put {
        path: below(step),
        temp: &journal.temp(n),
        lock: step.lock.as_deref(),
        lock_wait,
        expect: &[before, Some(&step.after.sha256)],
        to: if step.after.kind == Kind::File { To::File(&content) } else { To::Dir },
        mtime: None,
    };
    let _guest = hold_guest(host, step)?;
    write::put(host, &change)
}

/// While the configuration of a guest of this node is changed, nothing else of this node changes it. None: the step
/// is no guest's, or nobody here takes such a lock. Errors: `Locked`.
pub fn hold_guest(host: &Host, step: &Step) -> Result<Option<guests::Held>> {
    let guest = Guest::of(step.path.as_path()).filter(|guest| guest.node == host.facts.node);
    let held = guest.map(|guest| guests::lock(host.root(), &guest.lock(), write::LOCK_WAIT));
    Ok(held.transpose()?.flatten())
}

/// Relative to /etc/pve.
pub fn below(step: &Step) -> &Path {
    step.path.as_path().strip_prefix(PVE).unwrap_or(step.path.as_path())
}

/// After the last step: new folders have the time that the snapshot says, and all of it survives a power cut.
pub fn settle(host: &Host, journal: &mut Journal) -> Result<()> {
    let root = Beneath::open(host.root())?;
    for step in journal.record.steps.iter().rev() {
        if step.via == Via::Disk && step.after.kind == Kind::Dir && step.before.is_none() {
            replace::set_time(&root, step.path.as_path(), step.after.mtime)?;
        }
    }
    sync(&root, &journal.record)?;
    journal.write("written\n")
}

/// All that steps did on disks survives a power cut; pmxcfs sees to its own.
pub fn sync(root: &Beneath, record: &Record) -> io::Result<()> {
    root.sync_around(record.steps.iter().filter(|step| step.via == Via::Disk).map(|step| step.path.as_path()))
}
