//! `status`: gathers the facts about this host from the stores, the records, the timer and the change memory, for a
//! judgement.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{installation, records};
use crate::catalog::hooks::TIMER;
use crate::config::Config;
use crate::model::problem::Severity;
use crate::model::record::RunRecord;
use crate::model::report::Changes;
use crate::model::snapshot::SnapshotId;
use crate::plan::prune::Ours;
use crate::plan::status::{self, LastRun, Level, StatusFinding, StoreState, Timer};
use crate::store::Store;
use crate::sys::host::Host;
use crate::sys::process::exec::{Cmd, ToolStatus as Ended};
use crate::task::keys::{self, key_check};
use crate::task::restore::pending;
use crate::task::scan::drift;
use crate::task::{error, snapshots};

/// The time limit of `systemctl list-timers`.
const TIMER_LIMIT: Duration = Duration::from_secs(5);
/// The number of the newest manifests that are read to find the newest complete one of this machine.
const HEADS_MAX: usize = 30;
pub const BACKUP: &str = "backup";
const VERIFY: &str = "verify";

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostStatus {
    pub host: String,
    pub level: Level,
    pub now: Timestamp,
    pub last_run: Option<LastRun>,
    pub timer: Timer,
    pub stores: Vec<StoreState>,
    /// Snapshots are encrypted.
    pub sealed: bool,
    /// The time when the offline key last opened what is encrypted to it.
    pub key_proved: Option<Timestamp>,
    /// None: not looked at, or there is nothing to compare with.
    pub drift: Option<Changes>,
    pub findings: Vec<StatusFinding>,
}

/// Reads the stores' listings and a manifest of each. For the drift they must be all that are configured: what they
/// hold is no part of the host. Errors: the records cannot be listed.
pub fn status(
    host: &Host,
    config: &Config,
    boxes: &[Box<dyn Store>],
    max_age: SignedDuration,
    with_drift: bool,
) -> Result<HostStatus> {
    let records = records::all(host)?;
    let last_run = last_run(&records);
    let timer = timer(host);
    let mut findings = status::judge_run(last_run.as_ref(), &timer);
    let primary = config.stores.first().map(|section| section.id.as_str());
    let stores: Vec<StoreState> = boxes
        .iter()
        .map(|store| state(host, store.as_ref(), primary == Some(store.name()), &records))
        .collect();
    findings.extend(stores.iter().flat_map(|store| status::judge_store(store, host.now, max_age)));

    let recipients = keys::recipients(host, config)?;
    findings.extend(key_check::overdue(host, &recipients).map(|problem| StatusFinding {
        level: Level::Warning,
        what: problem.what,
        hint: problem.hint,
    }));

    // One that waits to be confirmed is in its admin's hands.
    let cut_short = pending::restores(host).into_iter().filter(|problem| problem.severity > Severity::Notice);
    findings.extend(cut_short.map(|problem| StatusFinding {
        level: Level::Critical,
        what: problem.what,
        hint: problem.hint,
    }));

    let mut changes = None;
    if with_drift {
        let looked = drift::drift(host, config, boxes);
        changes = looked.unwrap_or_else(|error| {
            let hint = "see `pbx-config backup --dry-run`";
            findings.push(StatusFinding::new(
                Level::Warning,
                format!("drift cannot be determined: {error:#}"),
                hint,
            ));
            None
        });
    }

    Ok(HostStatus {
        host: host.facts.node.clone(),
        level: status::worst(&findings),
        now: host.now,
        last_run,
        timer,
        stores,
        sealed: !recipients.is_empty(),
        key_proved: key_check::proof(host).map(|proof| proof.at),
        drift: changes,
        findings,
    })
}

pub fn last_run(records: &[RunRecord]) -> Option<LastRun> {
    let last = records.iter().find(|record| record.verb == BACKUP)?;
    Some(LastRun {
        id: last.id.clone(),
        at: last.began,
        outcome: last.outcome,
        problems: last.problems.len(),
        error: last.problems.first().filter(|_| !last.is_success()).map(|problem| problem.what.clone()),
    })
}

fn state(host: &Host, store: &dyn Store, primary: bool, records: &[RunRecord]) -> StoreState {
    let mut state = StoreState {
        store: store.name().to_owned(),
        place: store.place(),
        primary,
        error: None,
        hint: None,
        newest: None,
        oldest: None,
        last_success: None,
        kept: 0,
        verified_at: None,
        verified: None,
        damaged: Vec::new(),
    };

    let mut ids: Vec<SnapshotId> = match store.list(Some(&host.facts.node)) {
        Ok(found) => found.into_iter().filter(|found| found.stray.is_none()).map(|found| found.id).collect(),
        Err(error) => {
            state.hint = error::hint(&error);
            state.error = Some(format!("{error:#}"));
            return state;
        }
    };
    ids.sort_unstable();
    state.kept = ids.len();
    state.oldest = ids.first().cloned();
    let installation = installation::id(host);
    let ours = installation::ours(host, installation.as_deref(), &[]);
    state.newest = ids.iter().rev().take(HEADS_MAX).find(|id| is_whole(ours, store, id)).cloned();
    state.last_success = last_success(state.newest.as_ref(), records);
    if let Some((at, verified)) = last_verification(store.name(), records) {
        (state.verified_at, state.verified) = (Some(at), Some(verified.clone()));
    }

    let damaged = damaged(store.name(), records);
    state.damaged = ids.into_iter().filter(|id| damaged.contains(id)).collect();
    state
}

/// Reports whether a snapshot is of this machine, and of all of it.
fn is_whole(ours: Ours, store: &dyn Store, id: &SnapshotId) -> bool {
    snapshots::head(store, id)
        .is_ok_and(|head| ours.has(&head.snapshot) && head.snapshot.selection.is_empty())
}

/// The newest snapshot, or the last run that found nothing to add to it.
fn last_success(newest: Option<&SnapshotId>, records: &[RunRecord]) -> Option<Timestamp> {
    let newest = newest?;
    let looked = records.iter().find(|record| record.unchanged.as_ref() == Some(newest));
    Some(looked.map_or(newest.at(), |record| record.began.max(newest.at())))
}

/// Returns the time of the last verification of a store's copies, all of them or some.
pub fn last_verification<'a>(
    store: &str,
    records: &'a [RunRecord],
) -> Option<(Timestamp, &'a crate::model::record::Verification)> {
    records.iter().filter(|record| record.verb == VERIFY).find_map(|record| {
        let of_store = record.verified.iter().find(|one| one.store == store && one.good > 0)?;
        Some((record.began, of_store))
    })
}

/// Copies of a store whose last verification found them to be damaged. `records` are newest first.
pub fn damaged(store: &str, records: &[RunRecord]) -> HashSet<SnapshotId> {
    let mut damaged = HashSet::new();
    for verified in records.iter().rev().flat_map(|record| &record.verified).filter(|one| one.store == store)
    {
        // A store that could not be read tells nothing of its copies.
        if verified.whole && verified.unread == 0 {
            damaged.clear();
        }
        damaged.retain(|id| !verified.proven.contains(id));
        damaged.extend(verified.damaged.iter().cloned());
    }
    damaged
}

/// Asks systemd for the time of the next run.
fn timer(host: &Host) -> Timer {
    let argv = ["systemctl", "list-timers", "--all", "--no-pager", "-o", "json", TIMER];
    match host.exec.run(&Cmd::new(argv, TIMER_LIMIT)) {
        Ok(Some(said)) if said.status == Ended::Exit(0) => next(&said.stdout),
        Ok(Some(said)) => {
            log::debug!("systemctl list-timers: {}", said.status);
            Timer::Unknown
        }
        Ok(None) => Timer::Unknown,
        Err(error) => {
            log::debug!("systemctl list-timers: {error:#}");
            Timer::Unknown
        }
    }
}

/// Reads `[{"next": MICROSECONDS, "unit": …}]`; an inactive timer has no entry, or no time in it.
fn next(json: &[u8]) -> Timer {
    let Ok(timers) = serde_json::from_slice::<Vec<serde_json::Value>>(json) else { return Timer::Unknown };
    let next = timers.iter().find(|timer| timer["unit"] == TIMER).and_then(|timer| timer["next"].as_i64());
    let next = next.filter(|next| *next > 0).and_then(|next| Timestamp::from_microsecond(next).ok());
    next.map_or(Timer::Off, Timer::Next)
}
