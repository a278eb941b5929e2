//! `hook`: turns the hooks of vzdump and apt on and off, shows how they stand, and answers them when they run.

use std::io;
use std::time::Duration;

use anyhow::Result;

use crate::cli::{App, args, render};
use crate::config::Config;
use crate::model::problem::{Exit, Outcome, without_errno};
use crate::sys::process::exec;
use crate::task::setup::hook::{self, HookSite, HookState};

impl App<'_> {
    pub(in crate::cli) fn hook(&mut self, args: args::HookCommand) -> Result<Exit> {
        match args {
            args::HookCommand::Enable { hook } => {
                let changed = hook::enable(&self.host, place(hook))?;
                self.switched(place(hook), changed)
            }
            args::HookCommand::Disable { hook } => {
                let changed = hook::disable(&self.host, place(hook))?;
                self.switched(place(hook), changed)
            }
            args::HookCommand::Status => {
                let states = HookSite::ALL
                    .iter()
                    .map(|place| hook::status(&self.host, *place))
                    .collect::<Result<Vec<_>>>()?;
                self.shown(&states)
            }
            // Whoever called is not failed by us, whatever happens.
            args::HookCommand::Run { phase, more } if phase == HookSite::Apt.name() && more.is_empty() => {
                let note = hook::packages_note(&mut io::stdin().lock());
                let primary = |config: Config| config.stores.first().map(|store| store.id.clone());
                let line = match self.config().map(primary) {
                    Ok(store) => hook::before_packages(&self.host, &store.unwrap_or_default(), &note),
                    Err(error) => Some(format!("no backup before this change: {error:#}")),
                };
                let _ = self.write(line.map(|line| said(&line)).unwrap_or_default().as_bytes());
                Ok(Exit::Ok)
            }
            args::HookCommand::Run { phase, more } => {
                // A configuration that does not stand is the backup's to tell.
                let debounce = self.config().map(|config| config.hook).unwrap_or_default().debounce;
                let debounce = Duration::from_secs(u64::from(debounce) * 60);
                let done = hook::vzdump_phase(&self.host, &phase, debounce);
                let lines: String = done.lines.iter().map(|line| said(line)).collect();
                let _ = self.write(lines.as_bytes());
                if let Some(chained) = done.chained {
                    let mut words = vec![phase.into()];
                    words.extend(more);
                    let error = exec::become_program(&chained, &words);
                    let _ = self.write(said(&format!("{}: {error}", chained.display())).as_bytes());
                }
                Ok(Exit::Ok)
            }
        }
    }

    fn switched(&mut self, place: HookSite, changed: bool) -> Result<Exit> {
        let state = hook::status(&self.host, place)?;
        if !changed && !self.quiet {
            log::info!("nothing to change in {}", state.file);
        }
        self.shown(&[state])
    }

    fn shown(&mut self, states: &[HookState]) -> Result<Exit> {
        self.print(&states, |states| states.iter().map(render::hook).collect())?;
        let outcome = states.iter().map(|state| Outcome::of(&state.problems)).max();
        Ok(outcome.unwrap_or(Outcome::Ok).into())
    }
}

fn place(word: args::HookName) -> HookSite {
    match word {
        args::HookName::Vzdump => HookSite::Vzdump,
        args::HookName::Apt => HookSite::Apt,
    }
}

/// A line of a task log tells who speaks.
fn said(line: &str) -> String {
    format!("pbx-config: {}\n", render::one_line(&without_errno(line)))
}
