//! `prune`: removes the snapshots that retention does not keep.

use anyhow::Result;
use jiff::tz::TimeZone;

use super::{App, args, render};
use crate::config::Config;
use crate::model::keep::Keep;
use crate::model::problem::{Exit, Fault, FaultKind, Outcome, Problem};
use crate::model::record::StoreResult;
use crate::model::section;
use crate::store::Store;
use crate::sys::process::lock::Lock;
use crate::task::runs::prune::{self, Done, PrunePlan};
use crate::task::snapshots::legacy::{self, OldPlan};

impl App<'_> {
    pub(super) fn prune(&mut self, args: &args::Prune) -> Result<Exit> {
        let config = self.config()?;
        let stores = self.kept(&config, &args.stores)?;
        let zone = TimeZone::system();
        if let Some(words) = &args.legacy {
            return self.prune_legacy(&stores, words, args.dry_run, &zone);
        }
        if args.dry_run {
            let plans = prune::plans(&self.host, &stores, &zone)?;
            self.print(&plans, |plans| plans.iter().map(table).collect())?;
            return Ok(exit(plans.iter().map(|plan| &plan.problems[..])));
        }

        self.noted("prune", |words, record| {
            let progress = words.progress();
            let show = |plan: &PrunePlan| {
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

    /// Prunes legacy archives only, only of this host, only by what is said here.
    fn prune_legacy(
        &mut self,
        stores: &[(Box<dyn Store>, Keep)],
        words: &str,
        dry_run: bool,
        zone: &TimeZone,
    ) -> Result<Exit> {
        let keep = keep_words(words)?;
        if dry_run {
            let plans = self.old_plans(stores, &keep, zone)?;
            return self.print_old(&plans, true);
        }

        self.noted("prune", |me, record| {
            let lock = Lock::acquire(&me.host.run_dir())?;
            let mut plans = me.old_plans(stores, &keep, zone)?;
            for ((store, _), plan) in stores.iter().zip(&mut plans) {
                legacy::carry_out(store.as_ref(), plan, &lock);
                let (store, removed) = (plan.store.clone(), plan.removed.len());
                let what = format!("store '{store}': {removed} legacy archives removed (--legacy {words})");
                record.stores.push(StoreResult { store, primary: false, place: None, kept: None, removed });
                record.problems.extend((removed > 0).then(|| Problem::notice(what)));
                record.problems.extend(plan.problems.iter().cloned());
            }
            me.print_old(&plans, false)
        })
    }

    fn old_plans(
        &self,
        stores: &[(Box<dyn Store>, Keep)],
        keep: &Keep,
        zone: &TimeZone,
    ) -> Result<Vec<OldPlan>> {
        let plan = |store: &&dyn Store| legacy::plan(&self.host, *store, keep, zone);
        let each = stores.iter().map(|(store, _)| store.as_ref());
        prune::each(each, plan, |store, problem| OldPlan::unreached(*store, problem))
    }

    fn print_old(&mut self, plans: &[OldPlan], dry_run: bool) -> Result<Exit> {
        self.print(&plans, |plans| plans.iter().map(|plan| legacy_table(plan, dry_run)).collect())?;
        Ok(exit(plans.iter().map(|plan| &plan.problems[..])))
    }

    pub(super) fn kept(
        &self,
        config: &Config,
        args: &super::common_args::Stores,
    ) -> Result<Vec<(Box<dyn Store>, Keep)>> {
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

/// `keep-last=3,keep-monthly=12`. Errors: `Usage`; nothing kept would be nothing left.
fn keep_words(words: &str) -> Result<Keep> {
    const TITLE: &str = "prune 'legacy': ";
    let lines: Vec<String> = words.split(',').map(|word| word.trim().replacen('=', " ", 1)).collect();
    let text = format!("prune: legacy\n\t{}\n", lines.join("\n\t"));
    let usage = |what: &str, hint: Option<&str>| {
        let usual = format!("for example --legacy keep-last=3; the options are: {}", Keep::KEYS.join(", "));
        Fault::new(FaultKind::Usage, format!("--legacy '{words}': {what}")).hint(hint.unwrap_or(&usual))
    };
    let sections = section::parse("--legacy", &text).unwrap_or_default();
    match sections.first().map(section::Section::read::<Keep>) {
        Some(Ok(keep)) if !keep.keeps_all() => Ok(keep),
        Some(Err(error)) => Err(usage(error.message.trim_start_matches(TITLE), error.hint()).into()),
        _ => Err(usage("keeps nothing", None).into()),
    }
}

fn legacy_table(plan: &OldPlan, dry_run: bool) -> String {
    let mut text = format!("store {}\n", plan.store);
    for (one, file) in plan.archives.iter().zip(&plan.files) {
        let word = match (one.keep, dry_run, plan.removed.contains(file)) {
            (true, ..) => "keep   ",
            (false, true, _) => "remove ",
            (false, false, true) => "removed",
            (false, false, false) => "left   ",
        };
        text.push_str(&format!("  {word}  {}  {}  {}\n", one.id, one.reason, render::one_line(file)));
    }
    if plan.others > 0 {
        text.push_str(&format!("  {} archives of other hosts are kept\n", plan.others));
    }
    text + &render::problems(&plan.problems)
}

/// Every snapshot with its reason.
fn table(plan: &PrunePlan) -> String {
    let head = format!("store {}\n", plan.store);
    let line = |one: &crate::plan::prune::Marked| {
        format!("  {}  {}  {}\n", if one.keep { "keep  " } else { "remove" }, one.id, one.reason)
    };
    head + &plan.snapshots.iter().map(line).collect::<String>() + &render::problems(&plan.problems)
}

fn summary(done: &Done) -> String {
    let mut text = String::new();
    done.removed.iter().for_each(|id| text.push_str(&format!("removed  {id}\n")));
    let line = if done.plan.reached {
        format!("store {}: {} kept, {} removed\n", done.plan.store, done.kept(), done.removed.len())
    } else {
        format!("store {}: FAILED\n", done.plan.store)
    };
    text + &line + &render::problems(&done.plan.problems)
}
