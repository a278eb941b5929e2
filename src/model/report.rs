//! Report of a run: what happened, in one value that everyone reads. The problems in it are `problem`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::problem::{NOT_SAVED, Outcome, Problem};
use super::snapshot::{Snapshot, SnapshotId};

/// A file system that a store lies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Medium {
    /// `ext4`, `nfs4`, `vfat`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `/dev/sdb1`, `server:/export`.
    pub source: String,
    /// Bytes as `df` shows them, after the snapshot was written.
    pub free: Option<u64>,
}

/// Outcome of a snapshot on one store.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoredCopy {
    pub store: String,
    /// Its place now; None when it could not be put there.
    pub place: Option<String>,
    /// The file system, when it is one of this machine.
    pub medium: Option<Medium>,
    pub primary: bool,
    /// Number of snapshots of this host in the store now; None when retention was not looked at.
    pub kept: Option<usize>,
    pub removed: Vec<SnapshotId>,
}

/// Difference of a path from the last snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    Added,
    /// Contents, kind, target of a link or extended attributes.
    Changed,
    /// Mode or owner alone.
    Rights,
    Removed,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Rights => "rights",
            Self::Removed => "removed",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedPath {
    pub how: Difference,
    pub item: String,
    /// Relative to the root, readable and harmless on a terminal.
    pub path: String,
}

/// Differences from the snapshot before; names only, never a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub since: SnapshotId,
    pub added: usize,
    pub changed: usize,
    pub removed: usize,
    /// The first ones, by item.
    pub listed: Vec<ChangedPath>,
    /// Number of those not listed.
    pub more: usize,
}

impl Changes {
    pub fn is_none(&self) -> bool {
        self.count() == 0
    }

    pub fn count(&self) -> usize {
        self.added + self.changed + self.removed
    }

    /// "2 added, 1 changed", or "nothing".
    pub fn summary(&self) -> String {
        let parts = [(self.added, "added"), (self.changed, "changed"), (self.removed, "removed")];
        let parts: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }

    /// A line for each that is listed, and one for the others.
    pub fn lines(&self) -> Vec<String> {
        let line = |one: &ChangedPath| format!("{:<7} /{} ({})", one.how, one.path, one.item);
        let mut lines: Vec<String> = self.listed.iter().map(line).collect();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines
    }
}

/// Time that each phase of a backup took, in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Reading /etc/pve and what is needed before the first file.
    pub prepare: f64,
    /// Reading, hashing, compressing and writing, to the fsync.
    pub write: f64,
    /// Reading it back.
    pub verify: f64,
    /// Putting it on the stores.
    pub store: f64,
}

/// A whole run, for people (rendered) and programs (JSON).
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    pub verb: &'static str,
    pub host: String,
    /// The host in a line: products, versions, node, cluster.
    pub system: String,
    pub outcome: Outcome,
    pub snapshot: Option<Snapshot>,
    /// Bytes of the snapshot file.
    pub size: u64,
    pub stores: Vec<StoredCopy>,
    /// Since the last snapshot; None when there was none, or this one is of a part of the host.
    pub changes: Option<Changes>,
    /// Nothing had changed since this snapshot, and `skip-unchanged` is on: no new one was made.
    pub unchanged: Option<SnapshotId>,
    /// Seconds.
    pub took: f64,
    pub phases: Phases,
    pub problems: Vec<Problem>,
}

impl Report {
    /// Builds the report of a run with nothing to tell yet.
    pub fn blank(verb: &'static str, host: &Facts, took: f64) -> Self {
        Self {
            verb,
            host: host.node.clone(),
            system: host.summary(),
            outcome: super::problem::Outcome::Ok,
            snapshot: None,
            size: 0,
            stores: Vec::new(),
            changes: None,
            unchanged: None,
            took,
            phases: Phases::default(),
            problems: Vec::new(),
        }
    }

    /// Builds the report of a run that made no snapshot.
    pub fn failed(verb: &'static str, host: &Facts, took: f64, problem: Problem) -> Self {
        Self {
            outcome: super::problem::Outcome::Failed,
            problems: vec![problem],
            ..Self::blank(verb, host, took)
        }
    }

    /// Counts the files that were there and could not be taken.
    pub fn not_saved(&self) -> u64 {
        self.problems.iter().filter(|problem| problem.hint.as_deref() == Some(NOT_SAVED)).count() as u64
    }
}

/// Owner and mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rights {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Writes mode and owner in the style of `ls` and `chmod`: "0640 0:33".
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o} {}:{}", self.mode, self.uid, self.gid)
    }
}
