//! `backup`: makes a snapshot and notifies, or only plans it.

use std::time::Instant;

use anyhow::Result;

use super::{App, args, render, selection, worth};
use crate::config::Config;
use crate::model::problem::{Exit, Outcome};
use crate::model::report::Report;
use crate::model::snapshot::Trigger;
use crate::model::units::counted;
use crate::store::Store;
use crate::task::backup;
use crate::task::runs::finish;
use crate::task::runs::notify::{Channels, Lines};

impl App<'_> {
    pub(super) fn backup(&mut self, args: args::BackupArgs) -> Result<Exit> {
        if args.dry_run {
            let config = self.config()?;
            let (stores, request) = self.backup_request(&config, args)?;
            let plan = backup::plan(&self.host, &config, &stores, &request)?;
            self.print(&plan, render::plan)?;
            return Ok(Outcome::of(&plan.problems).into());
        }

        let (clock, trigger) = (Instant::now(), trigger(args.trigger));
        let config = self.config();
        let channels = Channels::open(&self.host, config.as_ref().ok());
        let lines = Lines::default();
        let (done, begun) = channels.around(&self.host, || self.make_backup(&config?, args, &lines));
        let mut report = match &done {
            Ok(report) => report.clone(),
            Err(error) => {
                log::info!("backup failed: {error:#}");
                finish::failure(&self.host, "backup", clock.elapsed().as_secs_f64(), error)
            }
        };
        let own = report.problems.len();
        report.problems.extend(begun);
        channels.tell_backup(&self.host, &mut report, &lines, &done, trigger);
        finish::backup(&self.host, &mut report, trigger, &done);
        report.problems.extend(self.metrics());
        report.outcome = report.outcome.max(Outcome::of(&report.problems));
        if let Err(error) = done {
            self.tell(&report.problems[own..]);
            return Err(error);
        }

        let quiet = self.quiet;
        self.print(&report, |report| {
            if quiet { render::problems(&worth(&report.problems)) } else { render::report(report) }
        })?;
        Ok(report.outcome.into())
    }

    fn make_backup(&self, config: &Config, args: args::BackupArgs, lines: &Lines) -> Result<Report> {
        let (stores, request) = self.backup_request(config, args)?;
        log::info!("backup of {} begins", self.host.facts.summary());
        let progress = self.progress();
        let report = backup::run(&self.host, config, &stores, &request, &|what| {
            lines.add(what);
            progress.say(what);
        })?;
        progress.clear();
        let (id, outcome) =
            (report.snapshot.as_ref().map(|snapshot| snapshot.id.to_string()), report.outcome);
        let id = id.as_deref().unwrap_or("of what is unchanged");
        log::info!("backup {id}: {outcome}, {}", counted(report.problems.len(), "problem"));
        Ok(report)
    }

    #[allow(clippy::type_complexity)] // two things that a backup takes
    fn backup_request(
        &self,
        config: &Config,
        args: args::BackupArgs,
    ) -> Result<(Vec<Box<dyn Store>>, backup::BackupRequest)> {
        let stores = self.open_all(config, &args.stores)?;
        let request = backup::BackupRequest {
            selection: selection(args.selected),
            note: args.note.map(|note| render::one_line(&note)),
            protect: args.protect,
            trigger: trigger(args.trigger),
        };
        backup::compression(config)?;
        Ok((stores, request))
    }
}

fn trigger(word: args::TriggerArg) -> Trigger {
    match word {
        args::TriggerArg::Manual => Trigger::Manual,
        args::TriggerArg::Timer => Trigger::Timer,
        args::TriggerArg::Vzdump => Trigger::Vzdump,
        args::TriggerArg::Apt => Trigger::Apt,
    }
}
