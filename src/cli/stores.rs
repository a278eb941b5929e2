//! `store`: the stores there are, whether they work, and whose snapshots count as ours.

use anyhow::Result;
use serde::Serialize;

use super::{App, args, render};
use crate::config::Config;
use crate::model::keep::Keep;
use crate::model::problem::{Exit, Outcome, without_errno};
use crate::store::Store;
use crate::sys::process::signals::check_stopped;
use crate::task::error;
use crate::task::runs::prune;
use crate::task::snapshots::store_test::{self, Tried};

/// A store as `store list` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    store: String,
    place: String,
    #[serde(flatten)]
    keep: Keep,
    /// None when it cannot be listed.
    snapshots: Option<usize>,
    /// Those of them that are of this host.
    of_this_host: Option<usize>,
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl App<'_> {
    pub(super) fn store_verb(&mut self, args: &args::StoreCommand) -> Result<Exit> {
        let config = self.config()?;

        match args {
            args::StoreCommand::List => {
                let stores = self.kept(&config, &super::common_args::Stores { names: Vec::new() })?;
                let rows: Vec<Row> =
                    stores.iter().map(|(store, keep)| self.row(store.as_ref(), *keep)).collect();
                self.print(&rows, |rows| rows.iter().map(line).collect())?;
                Ok(if rows.iter().any(|row| row.error.is_some()) { Exit::Problems } else { Exit::Ok })
            }
            args::StoreCommand::Test { names } => self.store_test(&config, names),
            args::StoreCommand::Adopt { stores } => {
                let (adopted, problems) = prune::adopt(&self.host, &self.stores(&config, stores)?)?;
                self.print(&adopted, |adopted| {
                    let line = |(id, count): &(String, usize)| {
                        format!("adopted {count} snapshots of machine {id}\n")
                    };
                    match &adopted[..] {
                        [] if problems.is_empty() => {
                            "nothing to adopt: all snapshots are of this machine\n".to_owned()
                        }
                        [] => "nothing to adopt in what could be read\n".to_owned(),
                        all => all.iter().map(line).collect(),
                    }
                })?;
                self.tell(&problems);
                Ok(Outcome::of(&problems).into())
            }
        }
    }

    fn row(&self, store: &dyn Store, keep: Keep) -> Row {
        let listed = store.list(None);
        let own = |found: &crate::store::FoundFile| found.id.host() == self.host.facts.node;
        Row {
            store: store.name().to_owned(),
            place: store.place(),
            keep,
            snapshots: listed.as_ref().ok().map(Vec::len),
            of_this_host: listed.as_ref().ok().map(|all| all.iter().filter(|found| own(found)).count()),
            hint: listed.as_ref().err().and_then(error::hint),
            error: listed.err().map(|error| format!("{error:#}")),
        }
    }

    fn store_test(&mut self, config: &Config, names: &[String]) -> Result<Exit> {
        let stores = self.stores(config, &super::common_args::Stores { names: names.to_vec() })?;
        let progress = self.progress();
        let mut all = Vec::new();
        for store in &stores {
            progress.say(&format!("trying store {}", store.name()));
            all.push(store_test::run(&self.host, store.as_ref()));
            check_stopped()?;
        }
        progress.clear();
        self.print(&all, |all| all.iter().map(tried).collect())?;
        Ok(if all.iter().all(Tried::is_ok) { Exit::Ok } else { Exit::Failed })
    }
}

/// Each step with its time.
fn tried(tried: &Tried) -> String {
    let mut text = format!("store {}: {}\n", tried.store, tried.place);
    for step in &tried.steps {
        let word = if step.error.is_none() { "ok    " } else { "FAILED" };
        let said =
            step.error.as_ref().or(step.note.as_ref()).map(|said| format!("  {}", render::one_line(said)));
        let line = format!("  {word}  {:<6}  {:>6.2} s{}", step.step, step.seconds, said.unwrap_or_default());
        text.push_str(&format!("{line}\n"));
        if let Some(hint) = &step.hint {
            text.push_str(&format!("  hint: {}\n", render::one_line(hint)));
        }
    }
    if let Some(medium) = &tried.medium {
        text.push_str(&format!("  is on {}\n", render::medium(medium)));
    }
    text + &render::problems(&tried.problems)
}

fn line(row: &Row) -> String {
    let keep = &row.keep;
    let words = Keep::KEYS.iter().zip([
        keep.keep_last,
        keep.keep_hourly,
        keep.keep_daily,
        keep.keep_weekly,
        keep.keep_monthly,
        keep.keep_yearly,
    ]);
    let words: Vec<String> = words.filter(|(_, n)| *n > 0).map(|(key, n)| format!("{key} {n}")).collect();
    let keep = if words.is_empty() { "keeps all".to_owned() } else { words.join(", ") };

    let has = match (&row.error, row.snapshots, row.of_this_host) {
        (None, Some(all), Some(own)) => format!("{all} snapshots, {own} of this host"),
        (error, ..) => render::one_line(&without_errno(error.as_deref().unwrap_or_default())),
    };
    let hint = row.hint.iter().map(|hint| format!("    hint: {}\n", render::one_line(hint)));
    let hint: String = hint.collect();
    format!("{}: {}\n    {has}; {keep}\n{hint}", row.store, row.place)
}
