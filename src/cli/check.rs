//! `check`: the findings: what was looked at, how it stands, and what to do.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;

use super::{App, render};
use crate::config::{CheckConfig as Allowed, Config};
use crate::model::problem::{Exit, without_errno};
use crate::plan::check::{self, Area, CheckFinding, CheckState};
use crate::plan::coverage::{Coverage, UnsavedPlace};
use crate::plan::select::Selection;
use crate::store::Store;
use crate::task::check as look;
use crate::task::restore::pending;
use crate::task::scan::coverage;
use crate::task::scan::sources::Sources;

/// Check the host, the stores and this program's own files, and say what to do
///
/// Exit status: 0 nothing to do, 3 warnings, 1 problems. Nothing is changed without --fix.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config check
  pbx-config check --fix           repair the modes of this program's files
  pbx-config check --network       check open ports, the firewall and running programs
  pbx-config check --complete      list every file that is in no backup, and why it should be")]
pub struct CheckArgs {
    /// Repair the modes of this program's own files; links are not followed, and no owner is changed
    #[arg(long)]
    pub fix: bool,
    /// Also check open ports, the firewall and running programs
    #[arg(long)]
    pub network: bool,
    /// Only list the files of this host that are neither saved nor excluded by name
    #[arg(long, conflicts_with_all = ["fix", "network"])]
    pub complete: bool,
}

impl App<'_> {
    pub(super) fn check(&mut self, args: &CheckArgs) -> Result<Exit> {
        if args.complete {
            return self.check_complete();
        }

        // First of all: with the wrong mode of its secrets the configuration does not load.
        let mut findings = look::own(&self.host);
        if args.fix {
            look::mend(&self.host, &mut findings);
        }
        match self.config() {
            Ok(config) => findings.extend(self.check_config(args, &config)?),
            Err(error) => {
                findings.push(look::failed(Area::Configuration, &error));
                if args.network {
                    findings.extend(look::network(&self.host, &Allowed::default()));
                }
            }
        }

        let restores = pending::restores(&self.host).into_iter();
        findings.extend(restores.map(|problem| check::of_problem(Area::Restores, problem)));
        findings.extend(look::host(&self.host));
        findings.sort_by_key(|finding| finding.area);

        let outcome = check::outcome(&findings);
        let quiet = self.quiet;
        self.print(&serde_json::json!({ "outcome": outcome, "findings": findings }), |_| {
            text(&findings, quiet)
        })?;
        Ok(outcome.into())
    }

    /// Checks a configuration that loads, and all that it names: stores, keys, channels, coverage.
    fn check_config(&self, args: &CheckArgs, config: &Config) -> Result<Vec<CheckFinding>> {
        let mut findings = Vec::new();
        let (stores, wrong) = self.configured(config);
        let is_valid = wrong.is_empty();
        if is_valid {
            let files = if config.files.is_empty() {
                "none; the defaults are in force".into()
            } else {
                config.files.join(", ")
            };
            findings.push(CheckFinding::new(Area::Configuration, CheckState::Ok, format!("valid: {files}")));
        }
        findings.extend(wrong);
        let problems = config.problems.iter().cloned();
        findings.extend(problems.map(|problem| check::of_problem(Area::Configuration, problem)));

        let mut of_stores = look::stores(&self.host, &stores);
        if args.fix {
            look::mend(&self.host, &mut of_stores);
        }
        findings.extend(of_stores);
        findings.extend(look::settings(&self.host, config));
        if args.network {
            findings.extend(look::network(&self.host, &config.check));
        }
        // A store that is not known is no store that may be left out.
        if is_valid {
            findings.extend(look::coverage(&self.host, config, &stores)?);
        }
        Ok(findings)
    }

    /// The stores that a run would open, and what is wrong with its settings: one mistake does not keep the rest
    /// from being looked at.
    fn configured(&self, config: &Config) -> (Vec<Box<dyn Store>>, Vec<CheckFinding>) {
        let (mut stores, mut wrong) = (Vec::new(), Vec::new());
        let failed = |error: anyhow::Error| look::failed(Area::Configuration, &error);
        wrong.extend(super::settings(config).err().map(failed));
        for section in &config.stores {
            match self.open(section) {
                Ok(store) => stores.push(store),
                Err(error) => wrong.push(failed(error)),
            }
        }
        (stores, wrong)
    }

    fn check_complete(&mut self) -> Result<Exit> {
        let config = self.config()?;
        let stores = self.stores(&config, &super::common_args::Stores { names: Vec::new() })?;
        let sources = Sources::new(&self.host, &config, &stores, &Selection::default())?;
        let Some(coverage) = coverage::of_host(&self.host, &sources)? else {
            self.print(&serde_json::Value::Null, |_| {
                "dpkg is not installed here: missing files cannot be found\n".to_owned()
            })?;
            return Ok(Exit::Ok);
        };
        self.print(&coverage, covered)?;
        Ok(if coverage.unexplained > 0 { Exit::Problems } else { Exit::Ok })
    }
}

/// A line each with its hint; under `--quiet` only what is to be acted on, and what was done.
fn text(findings: &[CheckFinding], quiet: bool) -> String {
    let mut text = String::new();
    let mended = |finding: &CheckFinding| finding.fix.as_ref().is_some_and(|fix| fix.done);
    for finding in findings.iter().filter(|one| !quiet || one.state >= CheckState::Warning || mended(one)) {
        let what = render::one_line(&without_errno(&finding.what));
        let _ = writeln!(text, "{:<8} {:<14} {what}", finding.state, finding.area);
        if let Some(hint) = &finding.hint {
            let _ = writeln!(text, "{:<23} hint: {}", "", render::one_line(hint));
        }
    }
    text
}

fn covered(coverage: &Coverage) -> String {
    let Coverage { files, saved, packaged, unexplained, .. } = coverage;
    let mut text =
        format!("files        {files}\nsaved        {saved}\nof packages  {packaged}, unchanged\n");
    let _ = writeln!(text, "unexplained  {unexplained}");
    if coverage.truncated {
        text.push_str("             too many to check all of them; use `exclude` for files that are not configuration\n");
    }
    if coverage.places.is_empty() {
        return text;
    }

    let row = |place: &UnsavedPlace| {
        let slash = if place.files > 1 { "/" } else { "" };
        let by = place.by.as_ref().map(|by| format!("  (by {by})")).unwrap_or_default();
        vec![place.why.to_string(), place.files.to_string(), format!("/{}{slash}{by}", place.path)]
    };
    text.push('\n');
    text.push_str(&render::table(
        &["WHY", "FILES", "PATH"],
        &coverage.places.iter().map(row).collect::<Vec<_>>(),
    ));
    text + "hint: under 'backup: main', `include PATH` saves a file and `exclude PATH` skips it\n"
}
