//! State of a host's backups, judged from what its stores and records tell. Facts in, a level and its reasons out.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::model::problem::Outcome;
use crate::model::record::Verification;
use crate::model::snapshot::SnapshotId;

/// The package verifies every week, with a delay of three hours.
pub const VERIFIED_MAX: SignedDuration = SignedDuration::from_hours(10 * 24);
/// Factor on the permitted age of the last success, beyond which it is critical.
const CRITICAL_FACTOR: i32 = 3;

/// Levels as monitors count them: 0, 1, 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok = 0,
    Warning = 1,
    Critical = 2,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

/// The state of this host's snapshots in a store.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoreState {
    pub store: String,
    pub place: String,
    pub primary: bool,
    /// Why it cannot be looked at.
    pub error: Option<String>,
    /// The advice about that.
    #[serde(skip)]
    pub hint: Option<String>,
    /// The newest whole snapshot of this machine.
    pub newest: Option<SnapshotId>,
    pub oldest: Option<SnapshotId>,
    /// The last time a run found this store up to date: it wrote there, or there was nothing new.
    pub last_success: Option<Timestamp>,
    pub kept: usize,
    /// The last time its copies were read again, and what that showed.
    pub verified_at: Option<Timestamp>,
    pub verified: Option<Verification>,
    /// Copies that are known to be damaged and are still there.
    pub damaged: Vec<SnapshotId>,
}

/// The end of the last run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LastRun {
    pub id: String,
    pub at: Timestamp,
    pub outcome: Outcome,
    pub problems: usize,
    /// The first error of a failed one.
    pub error: Option<String>,
}

/// The state of the nightly run's timer, as systemd tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Timer {
    /// Nobody could be asked.
    Unknown,
    Off,
    Next(Timestamp),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusFinding {
    pub level: Level,
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl StatusFinding {
    pub fn new(level: Level, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level, what: what.into(), hint: Some(hint.into()) }
    }
}

pub fn worst(findings: &[StatusFinding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

/// Returns what is wrong with one store.
pub fn judge_store(store: &StoreState, now: Timestamp, max_age: SignedDuration) -> Vec<StatusFinding> {
    let name = &store.store;
    let grave = if store.primary { Level::Critical } else { Level::Warning };
    if let Some(error) = &store.error {
        let usual = || "check that it can be reached; see `pbx-config store list`".to_owned();
        return vec![StatusFinding::new(grave, error.clone(), store.hint.clone().unwrap_or_else(usual))];
    }

    let mut findings = Vec::new();
    match store.last_success {
        None => {
            let what = format!("store '{name}': no snapshot of this host");
            findings.push(StatusFinding::new(grave, what, "create one with `pbx-config backup`"));
        }
        Some(at) => findings.extend(late(now.duration_since(at), max_age).map(|level| {
            let what = format!("store '{name}': the last success is {} old", age(now, at));
            StatusFinding::new(level, what, "see `pbx-config log` and `journalctl -u proxmox-backup-extra`")
        })),
    }

    if let Some(first) = store.damaged.first() {
        let what = format!("store '{name}': {} damaged, {first} among them", copies(store.damaged.len()));
        let hint =
            "create a new one with `pbx-config backup`, check the disk, and remove the damaged file by hand";
        findings.push(StatusFinding::new(Level::Critical, what, hint));
    }

    let since = store.verified_at.or(store.oldest.as_ref().map(SnapshotId::at));
    if let Some(since) = since.filter(|since| now.duration_since(*since) > VERIFIED_MAX) {
        let what = format!("store '{name}': nothing was verified for {}", age(now, since));
        let hint =
            "run `pbx-config verify --all`, and check that proxmox-backup-extra-verify.timer is enabled";
        findings.push(StatusFinding::new(Level::Warning, what, hint));
    }
    findings
}

pub fn judge_run(last: Option<&LastRun>, timer: &Timer) -> Vec<StatusFinding> {
    let mut findings = Vec::new();
    if let Some(last) = last.filter(|last| last.outcome == Outcome::Failed) {
        let why = last.error.as_deref().unwrap_or("it does not say why");
        let what = format!("the last run failed: {why}");
        findings.push(StatusFinding::new(Level::Warning, what, format!("`pbx-config log {}`", last.id)));
    }
    if *timer == Timer::Off {
        let hint = "`systemctl enable --now proxmox-backup-extra.timer`";
        findings.push(StatusFinding::new(
            Level::Warning,
            "no nightly run is planned: the timer is not active",
            hint,
        ));
    }
    findings
}

/// None: young enough.
pub fn late(age: SignedDuration, max_age: SignedDuration) -> Option<Level> {
    if age <= max_age {
        return None;
    }
    let critical = max_age.checked_mul(CRITICAL_FACTOR).is_some_and(|limit| age > limit);
    Some(if critical { Level::Critical } else { Level::Warning })
}

fn copies(n: usize) -> String {
    if n == 1 { "one copy is".to_owned() } else { format!("{n} copies are") }
}

/// Between two times, in the two largest units that matter: "3 d 4 h".
pub fn age(now: Timestamp, then: Timestamp) -> String {
    span(now.duration_since(then).as_secs())
}

/// Seconds in words, negative ones as none.
pub fn span(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (days, 0, _) if days > 0 => format!("{days} d"),
        (days, hours, _) if days > 0 => format!("{days} d {hours} h"),
        (_, hours, 0) if hours > 0 => format!("{hours} h"),
        (_, hours, minutes) if hours > 0 => format!("{hours} h {minutes} min"),
        _ => format!("{} min", minutes.max(0)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn store(newest: Option<&str>) -> StoreState {
        let newest: Option<SnapshotId> = newest.map(|time| format!("pve1/{time}").parse().unwrap());
        StoreState {
            store: "nas".to_owned(),
            place: "/mnt".to_owned(),
            primary: true,
            error: None,
            hint: None,
            last_success: newest.as_ref().map(SnapshotId::at),
            oldest: newest.clone(),
            newest,
            kept: 1,
            verified_at: None,
            verified: None,
            damaged: Vec::new(),
        }
    }

    fn level(store: &StoreState) -> Level {
        worst(&judge_store(store, at(NOW), SignedDuration::from_hours(26)))
    }

    #[test]
    fn age_makes_a_warning_and_three_times_the_age_a_critical_one() {
        assert_eq!(level(&store(Some("2026-11-21T11:00:00Z"))), Level::Ok);
        assert_eq!(level(&store(Some("2026-11-21T09:00:00Z"))), Level::Warning);
        assert_eq!(level(&store(Some("2026-11-19T05:00:00Z"))), Level::Critical);
        assert_eq!(level(&store(None)), Level::Critical);
        assert_eq!(level(&StoreState { primary: false, ..store(None) }), Level::Warning);
    }

    #[test]
    fn a_run_that_looked_and_found_nothing_new_is_a_success() {
        let old = StoreState {
            last_success: Some(at("2026-11-22T01:00:00Z")),
            ..store(Some("2026-11-18T01:00:00Z"))
        };
        assert_eq!(level(&old), Level::Ok);
    }

    #[test]
    fn what_was_never_verified_is_told_only_when_it_is_time() {
        let long = StoreState {
            oldest: Some("pve1/2026-11-01T00:00:00Z".parse().unwrap()),
            ..store(Some("2026-11-22T01:00:00Z"))
        };
        assert_eq!(level(&long), Level::Warning);
        assert_eq!(
            level(&StoreState { verified_at: Some(at("2026-11-15T00:00:00Z")), ..long.clone() }),
            Level::Ok
        );
        let bad = vec!["pve1/2026-11-01T00:00:00Z".parse().unwrap()];
        assert_eq!(level(&StoreState { damaged: bad, ..long }), Level::Critical);
    }

    #[test]
    fn a_failed_run_and_a_timer_that_is_off_are_warnings() {
        let failed =
            LastRun { id: "x".to_owned(), at: at(NOW), outcome: Outcome::Failed, problems: 1, error: None };
        assert_eq!(worst(&judge_run(Some(&failed), &Timer::Unknown)), Level::Warning);
        assert_eq!(worst(&judge_run(None, &Timer::Off)), Level::Warning);
        assert_eq!(worst(&judge_run(None, &Timer::Next(at(NOW)))), Level::Ok);
    }

    #[test]
    fn ages_are_told_in_two_units() {
        let words: Vec<String> = [59, 3600, 3660, 86_400, 90_000, -5].map(span).into();
        assert_eq!(words, ["0 min", "1 h", "1 h 1 min", "1 d", "1 d 1 h", "0 min"]);
    }
}
