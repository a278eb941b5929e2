//! `prune` and `store`: what stores have, keep and let go.

use anyhow::Result;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{Words, args, render};
use crate::config::Config;
use crate::model::keep::Keep;
use crate::model::report::{Exit, Outcome, Problem};
use crate::store::Store;
use crate::task::prune::{self, Done, Plan};

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
    /// Of them, those of this host.
    of_this_host: Option<usize>,
    error: Option<String>,
}

impl Words<'_> {
    pub(super) fn prune(&mut self, args: &args::Prune) -> Result<Exit> {
        let config = self.config()?;
        let stores = self.kept(&config, &args.stores)?;
        let zone = TimeZone::system();
        if args.dry_run {
            let plans =
                stores.iter().map(|(store, keep)| prune::plan(&self.host, store.as_ref(), *keep, &zone));
            let plans = plans.collect::<Result<Vec<_>>>()?;
            self.print(&plans, |plans| plans.iter().map(table).collect())?;
            return Ok(exit(plans.iter().map(|plan| &plan.problems[..])));
        }
        self.noted("prune", |words, record| {
            let progress = words.progress();
            let show = |plan: &Plan| {
                plan.removed().for_each(|one| progress.say(&format!("{}: removing {}", plan.store, one.id)));
            };
            let done = prune::run(&words.host, &stores, &zone, args.accept, &show)?;
            progress.clear();
            record.stores = done.iter().map(Done::place).collect();
            record.problems = done.iter().flat_map(|done| done.plan.problems.iter().cloned()).collect();
            words.print(&done, |done| done.iter().map(summary).collect())?;
            Ok(exit(done.iter().map(|done| &done.plan.problems[..])))
        })
    }

    fn kept(&self, config: &Config, args: &args::Stores) -> Result<Vec<(Box<dyn Store>, Keep)>> {
        let stores = self.stores(config, args)?;
        Ok(stores
            .into_iter()
            .map(|store| {
                let keep = config.keep(store.name());
                (store, keep)
            })
            .collect())
    }

    pub(super) fn store_verb(&mut self, args: &args::Store) -> Result<Exit> {
        let config = self.config()?;
        match args {
            args::Store::List => {
                let stores = self.kept(&config, &args::Stores { names: Vec::new() })?;
                let rows: Vec<Row> =
                    stores.iter().map(|(store, keep)| self.row(store.as_ref(), *keep)).collect();
                self.print(&rows, |rows| rows.iter().map(line).collect())?;
                Ok(if rows.iter().any(|row| row.error.is_some()) { Exit::Problems } else { Exit::Ok })
            }
            args::Store::Adopt { stores } => {
                let adopted = prune::adopt(&self.host, &self.stores(&config, stores)?)?;
                self.print(&adopted, |adopted| {
                    let line = |(id, count): &(String, usize)| {
                        format!("adopted {count} snapshots of machine {id}\n")
                    };
                    match &adopted[..] {
                        [] => "nothing to adopt: all snapshots are of this machine\n".to_owned(),
                        all => all.iter().map(line).collect(),
                    }
                })?;
                Ok(Exit::Ok)
            }
        }
    }

    fn row(&self, store: &dyn Store, keep: Keep) -> Row {
        let listed = store.list(None);
        let own = |found: &crate::store::Found| found.id.host() == self.host.facts.node;
        Row {
            store: store.name().to_owned(),
            place: store.place(),
            keep,
            snapshots: listed.as_ref().ok().map(Vec::len),
            of_this_host: listed.as_ref().ok().map(|all| all.iter().filter(|found| own(found)).count()),
            error: listed.err().map(|error| format!("{error:#}")),
        }
    }
}

fn exit<'a>(problems: impl Iterator<Item = &'a [Problem]>) -> Exit {
    problems.map(Outcome::of).max().unwrap_or(Outcome::Ok).into()
}

/// Every snapshot with its reason.
fn table(plan: &Plan) -> String {
    let head = format!("store {}\n", plan.store);
    let line = |one: &crate::plan::prune::Marked| {
        format!("  {}  {}  {}\n", if one.keep { "keep  " } else { "remove" }, one.id, one.reason)
    };
    head + &plan.snapshots.iter().map(line).collect::<String>() + &render::problems(&plan.problems)
}

fn summary(done: &Done) -> String {
    let mut text = String::new();
    done.removed.iter().for_each(|id| text.push_str(&format!("removed  {id}\n")));
    let kept = done.kept();
    let line = format!("store {}: {kept} kept, {} removed\n", done.plan.store, done.removed.len());
    text + &line + &render::problems(&done.plan.problems)
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
        (error, ..) => render::one_line(error.as_deref().unwrap_or_default()),
    };
    format!("{}: {}\n    {has}; {keep}\n", row.store, row.place)
}
