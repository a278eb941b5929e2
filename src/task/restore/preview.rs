//! The preview of an undo and of a resumed restore: what would be written, path by path, by looking only.
//! Not here: the plan of a restore that was not begun (`task::restore::prepare`).

use anyhow::Result;
use serde::Serialize;

use super::apply;
use super::journal::{self, Journal, RestorePhase};
use super::undo::{self, UndoAction};
use crate::model::index::Name;
use crate::model::snapshot::SnapshotId;
use crate::plan::restore::Action;
use crate::plan::restore::stage::{self, Services, Stage};
use crate::sys::host::Host;
use crate::task::restore;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Preview {
    pub id: String,
    pub snapshot: SnapshotId,
    pub phase: RestorePhase,
    /// Paths in the order in which they are done.
    pub paths: Vec<Path>,
    /// Stages in the order they are done; only units that ran, and none of a stage that has nothing to do.
    #[serde(flatten, with = "stage::by_name")]
    pub stages: Vec<Stage>,
}

#[derive(Debug, Serialize)]
pub struct Path {
    pub path: Name,
    pub does: Does,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Does {
    Back(UndoAction),
    Write(Action),
}

impl std::fmt::Display for Does {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Write(how) => return how.fmt(f),
            Self::Back(UndoAction::PutBack) => "put back",
            Self::Back(UndoAction::Remove) => "remove",
            Self::Back(UndoAction::Overwrite) => "overwrite",
            Self::Back(UndoAction::Changed) => "leave",
            Self::Back(UndoAction::AsBefore) => "nothing",
        })
    }
}

/// Errors: not root, `NotFound`, the host cannot be looked at.
pub fn undo(host: &Host, id: Option<&str>, force: bool) -> Result<Preview> {
    restore::check_root()?;
    let journal = journal::find(host, id)?;
    if journal.phase == RestorePhase::Undone && !(force && id.is_some()) {
        return Ok(preview(&journal, Vec::new(), |_| false));
    }
    let paths = undo::look(host, &journal, force)?.into_iter();
    let paths = paths.map(|(path, back)| Path { path, does: Does::Back(back) }).collect();
    Ok(preview(&journal, paths, |stage| journal.has_begun(stage)))
}

/// Errors: not root, `NotFound`, `Usage` when nothing is left to be done, the host cannot be looked at.
pub fn resume(host: &Host, id: &str) -> Result<Preview> {
    restore::check_root()?;
    let journal = journal::find(host, Some(id))?;
    restore::check_unfinished(&journal)?;
    let paths = apply::look(host, &journal)?.into_iter();
    let does = |how: Option<Action>| how.map_or(Does::Back(UndoAction::Changed), Does::Write);
    let paths = paths.map(|(path, how)| Path { path, does: does(how) }).collect();
    Ok(preview(&journal, paths, |stage| journal.steps_of(stage).next().is_some()))
}

fn preview(journal: &Journal, paths: Vec<Path>, is_touched: impl Fn(&Stage) -> bool) -> Preview {
    let record = &journal.record;
    let ran = |units: &[String]| -> Vec<String> {
        units.iter().filter(|unit| record.running.contains(unit)).cloned().collect()
    };
    let seen_to = |stage: &Stage| {
        let Services { stop, run, restart, .. } = &stage.services;
        let services =
            Services { stop: ran(stop), run: run.clone(), restart: ran(restart), start: Vec::new() };
        let services = if is_touched(stage) { services } else { Services::default() };
        Stage { services, ..stage.clone() }
    };

    Preview {
        id: record.id.clone(),
        snapshot: record.snapshot.clone(),
        phase: journal.phase,
        paths,
        stages: record.stages.iter().map(seen_to).collect(),
    }
}
