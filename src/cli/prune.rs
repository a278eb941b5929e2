//! `prune`: what stores let go.

use anyhow::Result;
use jiff::tz::TimeZone;

use super::{Words, args, render};
use crate::config::Config;
use crate::model::keep::Keep;
use crate::model::report::{Exit, Outcome, Problem};
use crate::store::Store;
use crate::task::prune::{self, Done, Plan};

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

    pub(super) fn kept(&self, config: &Config, args: &args::Stores) -> Result<Vec<(Box<dyn Store>, Keep)>> {
        let stores = self.stores(config, args)?;
        Ok(stores
            .into_iter()
            .map(|store| {
                let keep = config.keep(store.name());
                (store, keep)
            })
            .collect())
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
