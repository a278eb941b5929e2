//! `undo` and `confirm`: go back to what was before a restore, or keep one that is armed.

use anyhow::Result;
use clap::Args;

use crate::cli::App;
use crate::cli::render::plan;
use crate::model::problem::{Exit, Outcome};
use crate::task::restore::probe::Probe;
use crate::task::restore::{self, auto_rollback, confirm, preview};

/// Undo a restore: put back exactly what it changed
///
/// Contents, owners, modes, attributes and times are put back; what the restore created is removed. It can be run again,
/// and on an interrupted restore. What was changed after the restore is skipped and reported.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config undo                      the last restore
  pbx-config undo 20261122T151740Z
  pbx-config undo --dry-run            show what it would put back, and what was changed since
  pbx-config undo --force              also put back files that were changed since")]
#[allow(clippy::struct_excessive_bools)] // flags
pub struct Undo {
    /// Id of the restore, as `restore` printed it [default: the last restore]
    pub id: Option<String>,
    /// Also put back what was changed after the restore; a copy of the changed file is kept
    #[arg(long)]
    pub force: bool,
    /// Show what would be put back, without writing anything
    #[arg(long, conflicts_with = "armed")]
    pub dry_run: bool,
    /// Only an armed restore whose time is over: what the unit at boot does
    #[arg(long, hide = true, conflicts_with = "id")]
    pub armed: bool,
    /// Wait until it is confirmed or its time is over
    #[arg(long, hide = true, requires = "armed")]
    pub wait: bool,
    /// Probes of a system that is only mounted here
    #[arg(long = "probe", hide = true, requires = "wait")]
    pub probes: Vec<Probe>,
}

/// Confirm a restore that waits for it, before it is rolled back
///
/// It must be typed in a new login session, which proves that a login still works: not in the session that restored,
/// not in an older session (also of tmux or screen), and not from outside of a container.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config confirm")]
pub struct Confirm {
    /// Id of the restore, as `restore` printed it
    pub id: Option<String>,
}

impl App<'_> {
    pub(in crate::cli) fn undo(&mut self, args: &Undo) -> Result<Exit> {
        if args.armed {
            let apis = self.apis();
            let ended = if args.wait {
                auto_rollback::wait(&self.host, &apis, &args.probes)?
            } else {
                auto_rollback::undo_due(&self.host, &apis)?
            };
            log::info!("armed restore: {ended:?}");
            return Ok(Exit::Ok);
        }

        if args.dry_run {
            let ahead = preview::undo(&self.host, args.id.as_deref(), args.force)?;
            self.print(&ahead, plan::preview)?;
            return Ok(Exit::Ok);
        }

        let undone = restore::undo(&self.host, args.id.as_deref(), &self.apis(), args.force)?;
        let outcome = Outcome::of(&undone.problems);
        let exit = match (undone.damaged, undone.left) {
            (0, 0) => outcome.into(),
            (0, _) => Exit::Problems,
            _ => Exit::Failed,
        };
        self.print(&undone, plan::undone)?;
        Ok(exit)
    }

    pub(in crate::cli) fn confirm(&mut self, args: &Confirm) -> Result<Exit> {
        let (id, problem) = confirm::confirm_from_here(&self.host, args.id.as_deref())?;
        let problems: Vec<_> = problem.into_iter().collect();
        let value = serde_json::json!({ "id": id, "confirmed": true, "problems": problems });
        self.print(&value, |_| {
            format!("{id}: confirmed, it is kept; `pbx-config undo {id}` can still undo it\n")
        })?;
        self.tell(&problems);
        Ok(Outcome::of(&problems).into())
    }
}
