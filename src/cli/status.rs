//! `status`: how well this host, or a fleet in one store, is backed up; for a person and for a monitor.

use anyhow::Result;
use clap::Args;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use super::{App, Format, render};
use crate::model::problem::{Exit, Fault, FaultKind, Severity, without_errno};
use crate::model::units::counted;
use crate::plan::fleet::FleetHost;
use crate::plan::status as plan;
use crate::plan::status::{Level, StatusFinding, StoreState, Timer};
use crate::sys::mask::mask;
use crate::task::runs::fleet::{self, Fleet};
use crate::task::runs::status::{self, HostStatus};

/// Show how well this host is backed up
///
/// Exit status for monitors: 0 ok, 1 warning, 2 critical.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config status
  pbx-config status --max-age 8d --quick     from a monitor, every minute
  pbx-config status --fleet --max-age 26h    every host in the stores, and cluster nodes without a snapshot

EXIT STATUS:
  0 ok   1 warning   2 critical, or the configuration is wrong")]
pub struct StatusArgs {
    /// Maximum age of the last success of each store: 26h, 2d, 90m
    #[arg(long, value_name = "TIME", default_value = "26h", value_parser = duration)]
    pub max_age: SignedDuration,
    /// Do not read the host to compare it with the last snapshot; implied by --store
    #[arg(long)]
    pub quick: bool,
    /// Check all hosts in the stores and all nodes of their clusters; `skip-unchanged` allows a week more
    #[arg(long, conflicts_with = "quick")]
    pub fleet: bool,
    #[command(flatten)]
    pub stores: super::common_args::Stores,
}

/// `26h`, `2d`, `1w 2d`: days of 24 hours.
fn duration(text: &str) -> Result<SignedDuration, String> {
    let span: Span =
        text.parse().map_err(|_| format!("'{text}' is not a valid time; use 90m, 26h, 2d or 1w"))?;
    let whole = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok();
    let whole = whole.filter(|whole| *whole > SignedDuration::ZERO);
    whole.ok_or_else(|| format!("'{text}' is not a valid time; use 90m, 26h, 2d or 1w"))
}

impl App<'_> {
    /// A monitor shows the first line of standard output, and takes an exit status of 1 for a warning: also that
    /// nothing could be looked at is told there, as critical.
    pub(super) fn status(&mut self, args: &StatusArgs) -> Result<Exit> {
        let error = match self.look(args) {
            Err(error) => error,
            done => return done,
        };
        let fault = error.downcast_ref::<Fault>();
        let hint = fault.and_then(|fault| fault.hint.clone());
        let kind = fault.map(|fault| fault.kind).filter(|kind| *kind != FaultKind::Failed);
        let kind = kind.unwrap_or(FaultKind::Usage);
        let what = mask(&format!("{error:#}")).into_owned();
        if self.format != Format::Text {
            return Err(Fault { hint, ..Fault::new(kind, what) }.into());
        }

        let head = format!(
            "{}: {}: {}",
            Level::Critical.word(),
            self.host.facts.node,
            render::one_line(&without_errno(&what))
        );
        let hint = hint.map(|hint| format!("    hint: {}\n", render::one_line(&hint))).unwrap_or_default();
        self.print(&(), |()| format!("{head}\n{hint}"))?;
        Ok(kind.into())
    }

    fn look(&mut self, args: &StatusArgs) -> Result<Exit> {
        let config = self.config()?;
        let stores = self.stores(&config, &args.stores)?;
        if args.fleet {
            let fleet = fleet::fleet(&stores, self.host.now, args.max_age)?;
            self.print(&fleet, fleet_text)?;
            return Ok(exit(fleet.level));
        }
        let with_drift = !args.quick && args.stores.names.is_empty();
        let progress = self.progress();
        progress.say("looking at the stores");
        let status = status::status(&self.host, &config, &stores, args.max_age, with_drift)?;
        progress.clear();
        self.print(&status, text)?;
        Ok(exit(status.level))
    }
}

/// A monitor's scale, which is not the other verbs'.
fn exit(level: Level) -> Exit {
    match level {
        Level::Ok => Exit::Ok,
        Level::Warning => Exit::Failed,
        Level::Critical => Exit::Usage,
    }
}

fn text(status: &HostStatus) -> String {
    // The first line is what a monitor shows.
    let head = match status.findings.iter().max_by_key(|finding| finding.level) {
        Some(worst) => without_errno(&worst.what),
        None => well(status),
    };
    let mut text = format!("{}: {}: {}\n\n", status.level.word(), status.host, render::one_line(&head));
    let rows: Vec<Vec<String>> = status.stores.iter().map(|store| row(store, status.now)).collect();
    text.push_str(&render::table(&["STORE", "LAST SUCCESS", "AGE", "KEPT", "VERIFIED", "STATE"], &rows));
    text.push('\n');

    let mut line =
        |key: &str, value: String| text.push_str(&format!("{key:<11}{}\n", render::one_line(&value)));
    match &status.last_run {
        Some(run) => line(
            "last run",
            format!("{}  {}, {}  {}", local(run.at), run.outcome, counted(run.problems, "problem"), run.id),
        ),
        None => line("last run", "none is recorded".to_owned()),
    }

    line("next run", next(&status.timer, status.now));
    match status.key_proved {
        Some(at) => line("key", format!("checked {}, {} ago", local(at), plan::age(status.now, at))),
        None if status.sealed => line("key", "never checked".to_owned()),
        None => line("key", "none: snapshots are not encrypted".to_owned()),
    }

    if let Some(drift) = &status.drift {
        line("drift", format!("{} since {}", drift.summary(), drift.since));
        drift.lines().into_iter().for_each(|change| line("", change));
    }
    text + &findings(&status.findings)
}

fn fleet_text(fleet: &Fleet) -> String {
    let bad: Vec<String> = fleet
        .members
        .iter()
        .filter(|member| member.level > Level::Ok)
        .map(|member| format!("{} {}", member.host, member.why))
        .collect();
    let all = fleet.members.len();

    let head = match &bad[..] {
        [] if all == 0 => "no host has a snapshot".to_owned(),
        [] => counted(all, "host"),
        bad => format!("{} of {}: {}", bad.len(), counted(all, "host"), bad.join(", ")),
    };

    // What made it critical stands in the line that a monitor shows.
    let away = fleet.problems.iter().filter(|problem| problem.severity == Severity::Error);
    let away = away.map(|problem| without_errno(&problem.what));
    let head = std::iter::once(head).chain(away).collect::<Vec<_>>().join("; ");
    let mut text = format!("{}: {}\n", fleet.level.word(), render::one_line(&head));
    let none = || "-".to_owned();
    let row = |member: &FleetHost| {
        vec![
            member.host.clone(),
            member.cluster.clone().unwrap_or_else(none),
            member.last.map_or_else(none, local),
            member.last.map_or_else(none, |at| plan::age(fleet.now, at)),
            member.snapshots.to_string(),
            member.stores.join(","),
            member.why.clone(),
        ]
    };
    if all > 0 {
        let rows: Vec<_> = fleet.members.iter().map(row).collect();
        let head = ["HOST", "CLUSTER", "LAST SNAPSHOT", "AGE", "KEPT", "STORES", "STATE"];
        text.push_str(&format!("\n{}", render::table(&head, &rows)));
    }
    text + &render::problems(&fleet.problems)
}

fn well(status: &HostStatus) -> String {
    let newest = status.stores.iter().filter_map(|store| store.last_success).max();
    newest.map_or_else(
        || "no store".to_owned(),
        |at| format!("the last backup is {} old", plan::age(status.now, at)),
    )
}

fn row(store: &StoreState, now: Timestamp) -> Vec<String> {
    let none = || "-".to_owned();
    let state = match (&store.error, store.damaged.len()) {
        (Some(_), _) => "cannot be reached".to_owned(),
        (None, 0) => "ok".to_owned(),
        (None, damaged) => format!("{damaged} damaged"),
    };
    vec![
        store.store.clone(),
        store.last_success.map_or_else(none, local),
        store.last_success.map_or_else(none, |at| plan::age(now, at)),
        store.error.as_ref().map_or_else(|| store.kept.to_string(), |_| none()),
        store.verified_at.map_or_else(|| "never".to_owned(), local),
        state,
    ]
}

fn next(timer: &Timer, now: Timestamp) -> String {
    match timer {
        Timer::Unknown => "not known: systemd was not asked".to_owned(),
        Timer::Off => "none, the timer is not active".to_owned(),
        Timer::Next(at) => format!("{}, in {}", local(*at), plan::age(*at, now)),
    }
}

fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

fn findings(findings: &[StatusFinding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let what = render::one_line(&without_errno(&finding.what));
        text.push_str(&format!("{}: {what}\n", finding.level.word().to_lowercase()));
        if let Some(hint) = &finding.hint {
            text.push_str(&format!("    hint: {}\n", render::one_line(hint)));
        }
    }
    text
}
