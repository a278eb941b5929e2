//! `undo`: puts back what a restore touched, from its copies: bytes, owner, mode, attributes and times; and removes
//! what it made. It looks at what is there now, so it may be run twice, after a kill, and on a restore that is half
//! done. What somebody changed since is left and told, unless it is forced: then a copy of that is kept.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::journal::{Journal, RestorePhase};
use super::observe;
use super::target::{NodeState, PmxcfsTree, below, hold_guest, meta, sum_now, sum_of, tree};
use crate::model::index::{EntryKind, Name};
use crate::model::problem::Problem;
use crate::model::snapshot::SnapshotId;
use crate::plan::restore::{FileState, LivePath, PVE, RestoreStep, TargetKind};
use crate::sys::fs::contained_dir::ContainedDir;
use crate::sys::fs::{files, replace};
use crate::sys::host::Host;
use crate::sys::pmxcfs::offline;
use crate::sys::pmxcfs::write::{self, Change, Desired, LOCK_OUTLIVED};

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Undone {
    pub id: String,
    pub snapshot: SnapshotId,
    /// Paths that are again what they were.
    pub put_back: usize,
    /// Paths that still are not.
    pub left: usize,
    /// Paths that were changed since and are put back all the same: a copy of each is kept.
    pub kept: usize,
    /// It was undone before.
    pub already: bool,
    /// Then the last restore before it that is not.
    pub older: Option<String>,
    pub problems: Vec<Problem>,
    /// Which were put back just now.
    #[serde(skip)]
    pub again: Vec<Name>,
}

impl Undone {
    fn nothing_of(journal: &Journal) -> Self {
        Self {
            id: journal.record.id.clone(),
            snapshot: journal.record.snapshot.clone(),
            put_back: 0,
            left: 0,
            kept: 0,
            already: false,
            older: None,
            problems: Vec::new(),
            again: Vec::new(),
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
    Again,
    /// A directory that was made, and has something of somebody else in it now.
    Holds,
    Changed,
}

/// Files only; services are seen to by the caller. Goes on past what cannot be put back.
pub fn files(host: &Host, journal: &mut Journal, force: bool) -> Result<Undone> {
    let mut undone = Undone::nothing_of(journal);
    let mut begun: Vec<usize> = journal.begun.iter().copied().collect();
    begun.sort_unstable_by(|a, b| b.cmp(a));
    if journal.phase == RestorePhase::Undone && !force {
        return Ok(undone);
    }

    if begun.is_empty() {
        journal.write("undone\n")?;
        return Ok(undone);
    }

    journal.write("undoing\n")?;
    let root = ContainedDir::open(host.root())?;
    let tree = tree(host, journal, begun.iter().copied());
    for n in begun {
        let step = &journal.record.steps[n];
        let shown = format!("/{}", step.path);
        let mut kept = Vec::new();
        let back = match (step.via, &tree) {
            (TargetKind::Disk, _) => disk(host, &root, journal, n, force, &mut kept),
            (TargetKind::Pmxcfs, Ok(tree)) => node(host, tree, journal, n, force, &mut kept),
            (TargetKind::Pmxcfs, Err(why)) => Err(anyhow::anyhow!("{why}")),
        };
        undone.kept += usize::from(!kept.is_empty());
        undone.problems.extend(kept);
        match back {
            Ok(StepResult::AsBefore) => {}
            Ok(StepResult::Again) => {
                undone.put_back += 1;
                undone.again.push(journal.record.steps[n].path.clone());
            }
            Ok(StepResult::Holds) => {
                let problem = Problem::notice(format!("{shown}: stays, for somebody put something into it"));
                undone.problems.push(problem);
            }
            Ok(StepResult::Changed) => {
                undone.left += 1;
                let problem =
                    Problem::warning(format!("{shown}: was changed after the restore, and is left"));
                undone.problems.push(problem.hint(
                    "look at it; --force puts back what was there before, and keeps a copy of what is there now",
                ));
            }
            Err(error) => {
                undone.left += 1;
                let problem = Problem::error(format!("{shown}: cannot be put back: {error:#}"));
                undone.problems.push(problem.hint("mend that, then run the same undo again"));
            }
        }
    }

    times(host, &root, journal, tree.is_ok(), &mut undone.problems);
    super::target::sync(&root, &journal.record)?;
    if undone.left == 0 {
        journal.write("undone\n")?;
    }
    Ok(undone)
}

fn live_at(host: &Host, path: &Path) -> Result<Option<FileState>> {
    match observe::look(&host.path(Path::new("/").join(path)))? {
        LivePath::Absent => Ok(None),
        LivePath::There { print, .. } => Ok(Some(print)),
        LivePath::Blocked(why) => anyhow::bail!("{why}"),
    }
}

/// Decides the undo of step `n`, which lies on a disk.
fn back_on_disk(journal: &Journal, n: usize, live: Option<&FileState>, force: bool) -> UndoAction {
    let step = &journal.record.steps[n];
    if live == step.before.as_ref() {
        return UndoAction::AsBefore;
    }
    let is_dir = step.after.kind == EntryKind::Dir && live.is_some_and(|live| live.kind == EntryKind::Dir);
    // A directory may be between two modes; a file is the old or the new one.
    let is_half = is_dir && !journal.finished.contains(&n);
    let is_ours = live.is_some_and(|live| live.same(&step.after));
    let is_old = matches!((live, &step.before), (Some(live), Some(before)) if live.same(before));
    // pmxcfs writes into it as soon as it starts: that is no change of anybody's.
    let is_expected = is_ours || is_old || is_half || offline::is_database(step.path.as_path());
    back(is_expected, step.before.is_some(), force)
}

fn back(is_expected: bool, was_there: bool, force: bool) -> UndoAction {
    match (is_expected, was_there, force) {
        (false, _, false) => UndoAction::Changed,
        (false, _, true) => UndoAction::Overwrite,
        (true, true, _) => UndoAction::PutBack,
        (true, false, _) => UndoAction::Remove,
    }
}

fn disk(
    host: &Host,
    root: &ContainedDir,
    journal: &mut Journal,
    n: usize,
    force: bool,
    kept: &mut Vec<Problem>,
) -> Result<StepResult> {
    let step = &journal.record.steps[n];
    let path = step.path.as_path();
    if offline::is_database(path) {
        offline::wait_stopped(host)?;
    }

    // What a killed run wrote beside it.
    let _ = root.remove(&path.with_file_name(journal.temp(n)));
    let live = live_at(host, path)?;
    match back_on_disk(journal, n, live.as_ref(), force) {
        UndoAction::AsBefore => return Ok(StepResult::AsBefore),
        UndoAction::Changed => return Ok(StepResult::Changed),
        UndoAction::Overwrite => {
            kept.extend(live.as_ref().and_then(|live| keep_file(host, journal, n, live)));
        }
        UndoAction::PutBack | UndoAction::Remove => {}
    }

    let Some(before) = step.before.clone() else {
        let kind = live.map_or(step.after.kind, |live| live.kind);
        return Ok(if replace::remove(root, path, kind)? { StepResult::Again } else { StepResult::Holds });
    };
    journal.write(&format!("begin {n}\nundoing\n"))?;
    let temp = journal.temp(n);
    let path = journal.record.steps[n].path.as_path();

    // The log of the new database must not be beside the old one, not even at a power cut; its own comes later.
    for log in offline::logs(path) {
        replace::remove(root, &log, EntryKind::File)?;
        root.sync_around([&*log].into_iter())?;
    }

    match (before.kind, &before.link) {
        (EntryKind::Symlink, Some(link)) => replace::symlink(root, path, &temp, link, &meta(&before))?,
        (EntryKind::Dir, _) => drop(replace::dir(root, path, &meta(&before))?),
        _ => {
            replace::file(root, path, &temp, &mut File::open(journal.before(n))?, &meta(&before))?;
        }
    }
    Ok(StepResult::Again)
}

/// A copy of what somebody put there since, told. That there can be none is no reason to leave it: it was forced.
fn keep_file(host: &Host, journal: &Journal, n: usize, live: &FileState) -> Option<Problem> {
    let path = &journal.record.steps[n].path;
    let shown = format!("/{path}: was changed after the restore");
    match (live.kind, &live.link) {
        (EntryKind::File, _) => Some(kept_as(journal, n, &shown, &mut |to| {
            let (mut file, _) = files::open_read(&host.path(Path::new("/").join(path.as_path())))?;
            io::copy(&mut file, to).map(drop)
        })),
        (_, Some(link)) => Some(Problem::notice(format!("{shown}; it was a link to {link}"))),
        _ => None,
    }
}

fn kept_as(
    journal: &Journal,
    n: usize,
    shown: &str,
    fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> Problem {
    let copy = journal.new_found(n).and_then(|(path, mut file)| {
        fill(&mut file).and_then(|()| file.sync_all()).context("cannot be read or copied")?;
        Ok(path)
    });
    match copy {
        Ok(path) => Problem::notice(format!("{shown}; a copy of that is {}", path.display())),
        Err(error) => Problem::warning(format!("{shown}; no copy of that could be kept: {error:#}")),
    }
}

/// Decides the undo of a step that lies in /etc/pve.
fn back_in_tree(step: &RestoreStep, live: Option<&NodeState>, force: bool) -> UndoAction {
    let before = step.before.as_ref().map(sum_of);
    if live == before.as_ref() {
        return UndoAction::AsBefore;
    }
    back(live == Some(&sum_of(&step.after)), before.is_some(), force)
}

fn node(
    host: &Host,
    tree: &PmxcfsTree,
    journal: &Journal,
    n: usize,
    force: bool,
    kept: &mut Vec<Problem>,
) -> Result<StepResult> {
    let step = &journal.record.steps[n];
    let now = tree.get(&step.path);
    let (live, before) = (now.map(sum_now), step.before.as_ref().map(sum_of));
    let back = back_in_tree(step, live.as_ref(), force);
    let temp = journal.temp(n);
    let content = if before.as_ref().is_some_and(|(is_dir, _)| !is_dir) {
        fs::read(journal.before(n))?
    } else {
        Vec::new()
    };
    let hash = live.as_ref().map(|(_, sha256)| sha256.as_str());
    let change = Change {
        path: below(step),
        temp: &temp,
        // Nothing is changed of what is as it was.
        lock: step.lock.as_deref().filter(|_| live != before),
        lock_wait: LOCK_OUTLIVED,
        expect: &[hash],
        to: match &before {
            _ if live == before => Desired::AsItIs,
            None => Desired::Absent,
            Some((true, _)) => Desired::Dir,
            Some((false, _)) => Desired::File(&content),
        },
        mtime: step.before.as_ref().map(|before| before.mtime.0),
    };
    if live == before {
        // What a killed run wrote beside it goes, and its time is what it was.
        if !journal.finished.contains(&n) {
            write::put(host, &change)?;
        }
        return Ok(StepResult::AsBefore);
    }

    if back == UndoAction::Changed {
        return Ok(StepResult::Changed);
    }
    if before.is_none()
        && live.as_ref().is_some_and(|(is_dir, _)| *is_dir)
        && holds(tree, journal, &step.path)
    {
        return Ok(StepResult::Holds);
    }

    if let (UndoAction::Overwrite, Some(data)) = (back, now.and_then(|node| node.data.as_deref())) {
        let shown = format!("/{}: was changed after the restore", step.path);
        kept.push(kept_as(journal, n, &shown, &mut |to| to.write_all(data)));
    }

    let _guest = hold_guest(host, step)?;
    write::put(host, &change)?;
    Ok(StepResult::Again)
}

/// Something that no step made is in this directory. Nothing of ours is in it any more, unless it is left.
fn holds(tree: &PmxcfsTree, journal: &Journal, folder: &Name) -> bool {
    let made: HashSet<&Name> = journal.begun.iter().map(|n| &journal.record.steps[*n].path).collect();
    let below = |path: &Name| path != folder && path.as_path().starts_with(folder.as_path());
    tree.keys().any(|path| below(path) && !made.contains(path))
}

/// Lists the actions of an undo by looking only: only paths at which something is to be done, in the order of the
/// undo.
/// Errors: the host cannot be looked at.
pub fn look(host: &Host, journal: &Journal, force: bool) -> Result<Vec<(Name, UndoAction)>> {
    let mut begun: Vec<usize> = journal.begun.iter().copied().collect();
    begun.sort_unstable_by(|a, b| b.cmp(a));

    let tree = tree(host, journal, begun.iter().copied()).map_err(anyhow::Error::msg)?;
    let mut all = Vec::new();
    for n in begun {
        let step = &journal.record.steps[n];
        let shown = || format!("/{}", step.path);
        let back = match step.via {
            TargetKind::Disk => {
                let live = live_at(host, step.path.as_path()).with_context(shown)?;
                back_on_disk(journal, n, live.as_ref(), force)
            }
            TargetKind::Pmxcfs => back_in_tree(step, tree.get(&step.path).map(sum_now).as_ref(), force),
        };
        all.push((step.path.clone(), back));
    }

    all.retain(|(_, back)| *back != UndoAction::AsBefore);
    Ok(all)
}

/// Folders get the times back that they had before anything was put into them.
fn times(host: &Host, root: &ContainedDir, journal: &Journal, has_tree: bool, problems: &mut Vec<Problem>) {
    for (name, mtime) in journal.record.folders.iter().rev() {
        let path = name.as_path();
        let set = if let Ok(below) = path.strip_prefix(PVE) {
            if !has_tree {
                continue;
            }
            write::put(
                host,
                &Change {
                    path: below,
                    temp: &journal.temp(0),
                    lock: None,
                    lock_wait: std::time::Duration::ZERO,
                    expect: &[],
                    to: Desired::AsItIs,
                    mtime: Some(mtime.0),
                },
            )
        } else {
            replace::set_time(root, path, *mtime).map_err(Into::into)
        };
        if let Err(error) = set {
            problems.push(Problem::notice(format!("/{name}: its time cannot be put back: {error:#}")));
        }
    }
}
