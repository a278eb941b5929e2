//! Record of a run: how it went, for the log, for status and for metrics. Never a secret, never a content.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::problem::{Outcome, Problem};
use super::report::{Changes, Phases, Report};
use super::snapshot::{Compression, SnapshotId, Trigger};

/// One run of `backup`, `prune` or `verify`, also one that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunRecord {
    /// Begin and verb, `20261122T151740Z-backup`; unique on this host. Given when it is kept.
    #[serde(default)]
    pub id: String,
    pub verb: String,
    pub host: String,
    #[serde(default)]
    pub system: String,
    pub began: Timestamp,
    /// Seconds.
    pub took: f64,
    pub outcome: Outcome,
    /// The exit code of the command.
    pub exit: i32,
    /// Version of the program.
    pub tool: String,
    #[serde(default)]
    pub trigger: Option<Trigger>,
    #[serde(default)]
    pub snapshot: Option<SnapshotId>,
    /// A part of the host was asked for: whatever came of it, the host was not saved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub part: bool,
    /// Nothing had changed since this one, and no new one was made.
    #[serde(default)]
    pub unchanged: Option<SnapshotId>,
    #[serde(default)]
    pub stats: Option<Stats>,
    #[serde(default)]
    pub stores: Vec<StoreResult>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<Verification>,
    #[serde(default)]
    pub changes: Option<Changes>,
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// Contents of a snapshot in numbers, and its cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stats {
    /// Entries, directories and links included.
    pub entries: u64,
    pub files: u64,
    /// Files that were found and could not be taken.
    pub files_failed: u64,
    /// Items of the catalogue that found nothing here.
    pub absent: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Bytes of the payload as stored.
    pub payload: u64,
    /// Bytes of the snapshot file.
    pub size: u64,
    /// Payload by bytes read.
    pub ratio: f64,
    /// Compression, with the threads that were really used.
    pub compression: Compression,
    pub sealed: bool,
    /// Files of the host that are in no backup, without a reason; None when that was not looked at.
    #[serde(default)]
    pub unexplained: Option<u64>,
    pub phases: Phases,
}

/// A store after a backup or a prune.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoreResult {
    pub store: String,
    #[serde(default)]
    pub primary: bool,
    /// Place of the snapshot; None when it could not be put there, and after a prune.
    #[serde(default)]
    pub place: Option<String>,
    /// Snapshots of this host after retention; None when that was not looked at.
    #[serde(default)]
    pub kept: Option<usize>,
    #[serde(default)]
    pub removed: usize,
}

/// Result of reading a store's copies again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verification {
    pub store: String,
    /// Every copy in the store was looked at.
    pub whole: bool,
    pub good: usize,
    /// The newest one of this host that is what it says.
    #[serde(default)]
    pub newest: Option<SnapshotId>,
    /// Those of a run that did not look at all; of one that did, every copy that is not bad is good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proven: Vec<SnapshotId>,
    /// Copies that are not what they say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<SnapshotId>,
    /// Copies that could not be looked at, or the store as a whole.
    #[serde(default)]
    pub unread: usize,
}

impl RunRecord {
    pub fn of(report: &Report, began: Timestamp, exit: i32, trigger: Option<Trigger>) -> Self {
        let stats = report.snapshot.as_ref().map(|snapshot| Stats {
            entries: snapshot.counts.entries,
            files: snapshot.counts.files,
            files_failed: report.not_saved(),
            absent: snapshot.counts.absent,
            bytes: snapshot.counts.bytes,
            payload: snapshot.payload.size,
            size: report.size,
            ratio: ratio(snapshot.payload.size, snapshot.counts.bytes),
            compression: snapshot.codec.clone(),
            sealed: snapshot.sealed.is_some(),
            unexplained: snapshot.counts.unexplained,
            phases: report.phases,
        });

        let place = |stored: &super::report::StoredCopy| StoreResult {
            store: stored.store.clone(),
            primary: stored.primary,
            place: stored.place.clone(),
            kept: stored.kept,
            removed: stored.removed.len(),
        };

        Self {
            id: String::new(),
            verb: report.verb.to_owned(),
            host: report.host.clone(),
            system: report.system.clone(),
            began,
            took: report.took,
            outcome: report.outcome,
            exit,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            trigger,
            snapshot: report.snapshot.as_ref().map(|snapshot| snapshot.id.clone()),
            part: report.snapshot.as_ref().is_some_and(|snapshot| !snapshot.selection.is_empty()),
            unchanged: report.unchanged.clone(),
            stats,
            stores: report.stores.iter().map(place).collect(),
            verified: Vec::new(),
            changes: report.changes.clone(),
            problems: report.problems.clone(),
        }
    }

    pub fn is_success(&self) -> bool {
        self.outcome != Outcome::Failed
    }
}

#[allow(clippy::cast_precision_loss)] // a ratio
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}
