//! `log`: shows what the program did on this host, a line each or one in full.

use anyhow::Result;
use clap::Args;
use jiff::tz::TimeZone;

use super::{App, render};
use crate::model::problem::{Exit, without_errno};
use crate::model::record::{RunRecord, Stats, StoreResult, Verification};
use crate::model::report::Phases;
use crate::model::units::counted;
use crate::task::restore::audit_log;
use crate::task::runs::records;

/// Show the runs of this program on this host
///
/// Every backup, prune and verification is recorded, also if it failed. The newest 500 records are kept.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config log                         list the runs, newest first
  pbx-config log --runs --json
  pbx-config log --restores              list who restored, undid and confirmed what
  pbx-config log latest                  show the last run in full
  pbx-config log 20261122T151740Z-backup")]
pub struct Log {
    /// Show this run in full, by its ID or the beginning of it; `latest` is the newest. A restore is shown as its lines
    #[arg(value_name = "ID", conflicts_with = "runs")]
    pub id: Option<String>,
    /// List the runs, one per line (the default)
    #[arg(long)]
    pub runs: bool,
    /// List who restored, undid and confirmed what, newest first
    #[arg(long, conflicts_with_all = ["id", "runs"])]
    pub restores: bool,
}

impl App<'_> {
    pub(super) fn log(&mut self, args: &Log) -> Result<Exit> {
        if let Some(id) = &args.id {
            let found = records::find(&self.host, id);
            // A restore has an id, too, and no record of a run.
            let lines: Vec<_> = match &found {
                Ok(_) => Vec::new(),
                Err(_) => audit_log::lines(&self.host)?.into_iter().filter(|line| line.id == *id).collect(),
            };
            if lines.is_empty() {
                self.print(&found?, full)?;
            } else {
                self.print(&lines, |lines| restores(lines))?;
            }
            return Ok(Exit::Ok);
        }

        if args.restores {
            let mut lines = audit_log::lines(&self.host)?;
            lines.reverse();
            self.print(&lines, |lines| restores(lines))?;
            return Ok(Exit::Ok);
        }

        let records = records::all(&self.host)?;
        self.print(&records, |records| {
            if records.is_empty() {
                return "no runs\n".to_owned();
            }
            let rows: Vec<_> = records.iter().map(row).collect();
            render::table(&["ID", "LOCAL TIME", "RESULT", "SECONDS", "WHAT"], &rows)
        })?;
        Ok(Exit::Ok)
    }
}

fn restores(lines: &[audit_log::Line]) -> String {
    if lines.is_empty() {
        return "no restores\n".to_owned();
    }

    let who = |line: &audit_log::Line| {
        let login = line.who.login_uid.map(|uid| format!(", login {uid}")).unwrap_or_default();
        let sudo = line.who.sudo_user.as_ref().map(|user| format!(", sudo by {user}")).unwrap_or_default();
        format!("uid {}{login}{sudo}", line.who.uid)
    };
    let row = |line: &audit_log::Line| {
        let plan = line.plan.chars().take(12).collect();
        let (id, steps) = (line.id.clone(), line.steps.to_string());
        vec![
            line.at.clone(),
            line.verb.clone(),
            id,
            line.snapshot.clone(),
            plan,
            steps,
            who(line),
            line.result.clone(),
        ]
    };
    let rows: Vec<_> = lines.iter().map(row).collect();
    render::table(&["TIME", "WHAT", "ID", "SNAPSHOT", "PLAN", "PATHS", "WHO", "RESULT"], &rows)
}

fn row(record: &RunRecord) -> Vec<String> {
    let local = record.began.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string();
    vec![record.id.clone(), local, record.outcome.to_string(), format!("{:.1}", record.took), what(record)]
}

/// Returns the result of a run in a few words.
fn what(record: &RunRecord) -> String {
    if let Some(problem) = record.problems.first().filter(|_| !record.is_success()) {
        return without_errno(&problem.what);
    }

    let mut parts = Vec::new();
    if let (Some(id), Some(stats)) = (&record.snapshot, &record.stats) {
        parts.push(format!("{id}, {} files, {}", stats.files, render::size(stats.size)));
    }
    parts.extend(record.unchanged.as_ref().map(|id| format!("unchanged since {id}")));
    parts.extend(record.changes.as_ref().map(|changes| format!("{} since the last", changes.summary())));

    let removed: usize = record.stores.iter().map(|store| store.removed).sum();
    if removed > 0 || record.verb == "prune" {
        parts.push(format!("{removed} removed"));
    }
    for one in &record.verified {
        let bad = one.damaged.len() + one.unread;
        let bad = if bad > 0 { format!(", {bad} bad") } else { String::new() };
        parts.push(format!("{}: {} good{bad}", one.store, one.good));
    }

    if !record.problems.is_empty() {
        parts.push(counted(record.problems.len(), "problem"));
    }
    parts.join("; ")
}

fn full(record: &RunRecord) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("run", record.id.clone()),
        ("host", record.system.clone()),
        ("began", format!("{:.0}", record.began)),
        ("result", format!("{} (exit {})", record.outcome, record.exit)),
        ("time", format!("{:.2} s", record.took)),
        ("written by", format!("proxmox-backup-extra {}", record.tool)),
    ];
    lines.extend(record.snapshot.as_ref().map(|id| ("snapshot", id.to_string())));
    lines.extend(record.unchanged.as_ref().map(|id| ("unchanged", format!("since {id}"))));
    lines.extend(record.stats.iter().flat_map(stats_lines));

    if let Some(changes) = &record.changes {
        lines.push(("changes", format!("{} since {}", changes.summary(), changes.since)));
        lines.extend(changes.lines().into_iter().map(|line| ("", line)));
    }
    lines.extend(record.stores.iter().map(|store| ("store", store_line(&record.verb, store))));
    lines.extend(record.verified.iter().map(|store| ("verified", verified_line(store))));

    let line = |(key, value): (&str, String)| format!("{key:<11}{}", render::one_line(&value));
    let text = lines.into_iter().map(line).collect::<Vec<_>>().join("\n") + "\n";
    text + &render::problems(&record.problems)
}

fn stats_lines(stats: &Stats) -> [(&'static str, String); 3] {
    let failed = match stats.files_failed {
        0 => String::new(),
        n => format!(", {n} could not be read"),
    };
    let read = render::size(stats.bytes);
    let files = format!("{} ({read} before compression), {} absent items{failed}", stats.files, stats.absent);

    let codec = render::compression(&stats.compression);
    let (stored, threads) = (render::size(stats.size), stats.compression.threads);
    let size = format!("{stored} ({codec}, {threads} threads, ratio {:.2})", stats.ratio);

    let Phases { prepare, write, verify, store } = &stats.phases;
    let phases =
        format!("prepare {prepare:.2} s, write {write:.2} s, verify {verify:.2} s, store {store:.2} s");
    [("files", files), ("size", size), ("phases", phases)]
}

fn store_line(verb: &str, store: &StoreResult) -> String {
    let place = match &store.place {
        Some(place) => place.clone(),
        None if verb == "backup" => "FAILED".to_owned(),
        None => String::new(),
    };
    let kept = store.kept.map(|kept| format!("{kept} kept, {} removed", store.removed)).unwrap_or_default();
    let joint = if place.is_empty() || kept.is_empty() { "" } else { "; " };
    format!("{}: {place}{joint}{kept}", store.store)
}

fn verified_line(store: &Verification) -> String {
    let mut text = format!("{}: {} good", store.store, store.good);
    store.damaged.iter().for_each(|id| text.push_str(&format!(", {id} is damaged")));
    if store.unread > 0 {
        text.push_str(&format!(", {} could not be read", store.unread));
    }
    text
}
