//! `undo`: puts back what a restore touched, from its copies: bytes, owner, mode, attributes and times; and removes
//! what it made. It looks at what is there now, so it may be run twice, after a kill, and on a restore that is half
//! done. What somebody changed since is left and told, unless it is forced: then a copy of that is kept.

use std::collections::HashSet;
use std::io;

use anyhow::{Context, Result};
use serde::Serialize;

use super::journal::{Journal, RestorePhase};
use super::target::{StepWrite, Targets};
use crate::model::index::{EntryKind, Name};
use crate::model::problem::Problem;
use crate::model::snapshot::SnapshotId;
use crate::plan::restore::{FileState, LivePath, RestoreStep, TargetKind};
use crate::sys::host::Host;
use crate::sys::pmxcfs::offline;
use crate::sys::pmxcfs::write::LOCK_OUTLIVED;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Undone {
    pub id: String,
    pub snapshot: SnapshotId,
    /// Paths that are again what they were.
    pub put_back: usize,
    /// Paths that still are not.
    pub left: usize,
    /// Paths among them whose copies are damaged.
    #[serde(skip)]
    pub damaged: usize,
    /// Paths that were changed since and are put back all the same: a copy of each is kept.
    pub kept: usize,
    /// It was undone before.
    pub already: bool,
    /// Then the last restore before it that is not.
    pub older: Option<String>,
    pub problems: Vec<Problem>,
    /// Paths that were put back just now.
    #[serde(skip)]
    pub restored_paths: Vec<Name>,
}

impl Undone {
    fn nothing_of(journal: &Journal) -> Self {
        Self {
            id: journal.record.id.clone(),
            snapshot: journal.record.snapshot.clone(),
            put_back: 0,
            left: 0,
            damaged: 0,
            kept: 0,
            already: false,
            older: None,
            problems: Vec::new(),
            restored_paths: Vec::new(),
        }
    }

    /// Counts the result of the step at this path, and says what remains of it.
    fn add(&mut self, path: &Name, result: Result<StepResult>) {
        match result {
            Ok(StepResult::AsBefore) => {}
            Ok(StepResult::Restored) => {
                self.put_back += 1;
                self.restored_paths.push(path.clone());
            }
            Ok(StepResult::HasForeignChildren) => {
                let what = format!("/{path}: is kept, because other files were put into it");
                self.problems.push(Problem::notice(what));
            }
            Ok(StepResult::Changed) => {
                self.left += 1;
                let problem =
                    Problem::warning(format!("/{path}: was changed after the restore, and is skipped"));
                self.problems.push(
                    problem.hint(
                        "check it; --force puts back the old file, and keeps a copy of the current one",
                    ),
                );
            }
            Err(error) => {
                self.left += 1;
                let problem = Problem::error(format!("/{path}: cannot be put back: {error:#}"));
                let cause = error.downcast_ref::<io::Error>().map(io::Error::kind);
                let is_damaged = cause == Some(io::ErrorKind::InvalidData);
                self.damaged += usize::from(is_damaged);
                let fix = if is_damaged {
                    format!("put it back by hand, as with `pbx-config cat SNAP /{path}`")
                } else {
                    "fix that".to_owned()
                };
                self.problems.push(problem.hint(fix + ", then run the same undo again"));
            }
        }
    }

    /// Writes lines to the journal. What it does not take is told once: an undo goes on without it.
    fn note(&mut self, journal: &mut Journal, lines: &str) {
        let Err(error) = journal.write(lines) else { return };
        let problem = Problem::warning(format!("{error:#}: what is undone is not noted there"));
        let problem = problem.hint("see to its disk, then run the same undo again");
        if self.problems.iter().all(|known| known.hint != problem.hint) {
            self.problems.push(problem);
        }
    }

    pub fn already(journal: &Journal) -> Self {
        Self { already: true, ..Self::nothing_of(journal) }
    }
}

/// The action of an undo at one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndoAction {
    /// It was another never, or is no more.
    AsBefore,
    PutBack,
    Remove,
    /// Somebody changed it after us: it is left.
    Changed,
    /// The same, and it is put back all the same.
    Overwrite,
}

/// The result of one step.
enum StepResult {
    AsBefore,
    /// It is again what it was.
    Restored,
    /// A directory that was made, and has something of somebody else in it now.
    HasForeignChildren,
    Changed,
}

/// Puts files back; the caller sees to services. Goes on past what cannot be put back.
pub fn files(host: &Host, journal: &mut Journal, force: bool) -> Result<Undone> {
    let mut undone = Undone::nothing_of(journal);
    let begun = last_first(journal);
    if journal.phase == RestorePhase::Undone && !force {
        return Ok(undone);
    }

    if begun.is_empty() {
        undone.note(journal, "undone\n");
        return Ok(undone);
    }
    if let Some(why) = &journal.unread {
        let what = format!("{why}: every path of the restore is looked at");
        undone.problems.push(Problem::warning(what));
    }

    undone.note(journal, "undoing\n");
    let targets = Targets::open(host, begun.iter().map(|n| &journal.record.steps[*n]))?;
    for n in begun {
        let result = undo_step(&targets, journal, n, force, &mut undone);
        undone.add(&journal.record.steps[n].path, result);
    }

    put_times_back(&targets, journal, &mut undone.problems);
    targets.sync(&journal.record)?;
    if undone.left == 0 {
        undone.note(journal, "undone\n");
    }
    Ok(undone)
}

fn live_state(targets: &Targets, step: &RestoreStep) -> Result<Option<FileState>> {
    match targets.state(step)? {
        LivePath::Absent => Ok(None),
        LivePath::There { print, .. } => Ok(Some(print)),
        LivePath::Blocked(why) => anyhow::bail!("{why}"),
    }
}

/// Decides the undo of step `n`.
fn action(journal: &Journal, n: usize, live: Option<&FileState>, force: bool) -> UndoAction {
    let step = &journal.record.steps[n];
    let is_as_before = match (live, &step.before) {
        (None, None) => true,
        (Some(live), Some(before)) => step.via.same_with_time(live, before),
        _ => false,
    };
    if is_as_before {
        return UndoAction::AsBefore;
    }
    let is_dir = step.after.kind == EntryKind::Dir && live.is_some_and(|live| live.kind == EntryKind::Dir);
    // A directory may be between two modes; a file is the old or the new one.
    let is_half = is_dir && !journal.finished.contains(&n);
    let is_either = |live: &FileState| {
        let mut both = step.before.iter().chain([&step.after]);
        both.any(|known| step.via.same(live, known))
    };
    // pmxcfs writes into its database as soon as it starts: that is no change of anybody's.
    let is_expected = is_half || live.is_some_and(is_either) || offline::is_database(step.path.as_path());

    match (is_expected, step.before.is_some(), force) {
        (false, _, false) => UndoAction::Changed,
        (false, _, true) => UndoAction::Overwrite,
        (true, true, _) => UndoAction::PutBack,
        (true, false, _) => UndoAction::Remove,
    }
}

fn undo_step(
    targets: &Targets,
    journal: &mut Journal,
    n: usize,
    force: bool,
    undone: &mut Undone,
) -> Result<StepResult> {
    let step = journal.record.steps[n].clone();
    let temp = journal.temp(n);
    targets.wait_free(&step)?;
    targets.remove_temp(&step, &temp);
    let live = live_state(targets, &step)?;
    let action = action(journal, n, live.as_ref(), force);
    match action {
        UndoAction::AsBefore => {
            if !journal.finished.contains(&n) {
                targets.finish_as_before(&step, &temp)?;
            }
            return Ok(StepResult::AsBefore);
        }
        UndoAction::Changed => return Ok(StepResult::Changed),
        UndoAction::Overwrite => {
            let kept = live.as_ref().and_then(|live| keep_overwritten(targets, journal, n, live));
            undone.kept += usize::from(kept.is_some());
            undone.problems.extend(kept);
        }
        UndoAction::PutBack | UndoAction::Remove => {}
    }

    let hash = live.as_ref().map(|live| live.sha256.clone());
    let write = StepWrite {
        step: &step,
        to: step.before.as_ref().or(live.as_ref()).unwrap_or(&step.after),
        copy: journal.before(n),
        temp,
        expect: &[hash.as_deref()],
        lock_wait: LOCK_OUTLIVED,
        keeps_time: step.before.is_some(),
    };
    if step.before.is_none() {
        let is_removed = !has_foreign_children(targets, journal, &step) && targets.remove(&write)?;
        return Ok(if is_removed { StepResult::Restored } else { StepResult::HasForeignChildren });
    }

    // A file of /etc/pve is the old or the new one.
    if step.via == TargetKind::Disk {
        undone.note(journal, &format!("begin {n}\nundoing\n"));
    }
    // The log of the new database must not be beside the old one, not even at a power cut; its own comes later.
    let logs = offline::logs(step.path.as_path());
    if !logs.is_empty() {
        write.check_copy()?;
    }
    for log in logs {
        targets.remove_for_good(&log)?;
    }
    targets.write(&write)?;
    Ok(StepResult::Restored)
}

/// Keeps a copy of what somebody put there since. Failing to is no reason to leave it: it was forced.
fn keep_overwritten(targets: &Targets, journal: &Journal, n: usize, live: &FileState) -> Option<Problem> {
    let step = &journal.record.steps[n];
    let shown = format!("/{}: was changed after the restore", step.path);
    match (live.kind, &live.link) {
        (EntryKind::File, _) => {}
        (_, Some(link)) => return Some(Problem::notice(format!("{shown}; it was a link to {link}"))),
        _ => return None,
    }

    let copy = journal.new_found(n).and_then(|(path, mut file)| {
        let copied = targets.read(step).and_then(|mut content| io::copy(&mut content, &mut file));
        copied.and_then(|_| file.sync_all()).context("cannot be read or copied")?;
        Ok(path)
    });
    Some(match copy {
        Ok(path) => Problem::notice(format!("{shown}; a copy of that is {}", path.display())),
        Err(error) => Problem::warning(format!("{shown}; no copy of that could be kept: {error:#}")),
    })
}

/// Reports whether this directory of /etc/pve has something that no step made. Nothing of ours is in it any more,
/// unless it remains.
fn has_foreign_children(targets: &Targets, journal: &Journal, step: &RestoreStep) -> bool {
    let made: HashSet<&Name> = journal.begun.iter().map(|n| &journal.record.steps[*n].path).collect();
    targets.below(step).any(|path| !made.contains(path))
}

/// Lists the actions of an undo by looking only: only paths at which something is to be done, in the order of the
/// undo.
/// Errors: the host cannot be looked at.
pub fn look(host: &Host, journal: &Journal, force: bool) -> Result<Vec<(Name, UndoAction)>> {
    let begun = last_first(journal);
    let targets = Targets::open(host, begun.iter().map(|n| &journal.record.steps[*n]))?;
    targets.check()?;
    let mut all = Vec::new();
    for n in begun {
        let step = &journal.record.steps[n];
        let live = live_state(&targets, step).with_context(|| format!("/{}", step.path))?;
        all.push((step.path.clone(), action(journal, n, live.as_ref(), force)));
    }

    all.retain(|(_, action)| *action != UndoAction::AsBefore);
    Ok(all)
}

fn last_first(journal: &Journal) -> Vec<usize> {
    let mut begun: Vec<usize> = journal.begun.iter().copied().collect();
    begun.sort_unstable_by(|a, b| b.cmp(a));
    begun
}

/// Gives directories the times back that they had before anything was put into them.
fn put_times_back(targets: &Targets, journal: &Journal, problems: &mut Vec<Problem>) {
    for (name, mtime) in journal.record.folders.iter().rev() {
        if TargetKind::of(name.as_path()) == TargetKind::Pmxcfs && targets.check().is_err() {
            continue;
        }
        if let Err(error) = targets.set_mtime(name, *mtime, &journal.temp(0)) {
            problems.push(Problem::notice(format!("/{name}: its time cannot be put back: {error:#}")));
        }
    }
}
