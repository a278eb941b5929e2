//! Message about a run: made once from its Report, the same for every channel. Holds no secret.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::problem::{Outcome, Problem, Severity};
use super::units::{size, span};

/// A run, ready to be told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Message {
    /// One line, no control character, of bounded length.
    pub subject: String,
    /// Lines for people; of bounded length.
    pub text: String,
    #[serde(skip)]
    pub html: String,
    /// The last lines of the run's log, of bounded length.
    #[serde(skip)]
    pub log: String,
    #[serde(flatten)]
    pub details: Details,
}

/// The same for programs. Every text is one harmless line of bounded length.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Details {
    pub verb: String,
    pub outcome: Outcome,
    /// Severity in Proxmox's words: info, warning, error.
    pub severity: &'static str,
    pub host: String,
    /// The host in a line.
    pub system: String,
    /// pve, pbs, pve+pbs; empty elsewhere.
    pub product: String,
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    pub version: &'static str,
    pub snapshot: Option<String>,
    /// Nothing had changed since this snapshot, and no new one was made.
    pub unchanged: Option<String>,
    /// Bytes of the snapshot file.
    pub size: u64,
    pub files: u64,
    /// Bytes of the files in it.
    pub bytes: u64,
    /// Seconds.
    pub duration: f64,
    pub stores: Vec<PlacedCopy>,
    pub problems: Vec<Problem>,
    /// Problems beyond those that are named.
    pub more_problems: usize,
    /// The number of paths that differ, and the snapshot before; None when that is not known.
    pub since: Option<String>,
    /// Those paths, a line each.
    pub changes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlacedCopy {
    pub store: String,
    /// None: the snapshot could not be put there.
    pub place: Option<String>,
    pub kept: Option<usize>,
    pub removed: usize,
}

fn as_text<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

impl Message {
    /// The verb of a message that tells of no run: `notify test`.
    pub const TEST: &'static str = "test";

    pub fn is_test(&self) -> bool {
        self.details.verb == Self::TEST
    }

    /// The names that templates may use.
    pub const VARIABLES: [&'static str; 21] = [
        "subject",
        "text",
        "html",
        "log",
        "verb",
        "outcome",
        "severity",
        "host",
        "system",
        "product",
        "at",
        "timestamp",
        "version",
        "snapshot",
        "size",
        "files",
        "bytes",
        "duration",
        "errors",
        "warnings",
        "problems",
    ];

    /// None: there is no such name.
    pub fn variable(&self, name: &str) -> Option<String> {
        let details = &self.details;

        Some(match name {
            "subject" => self.subject.clone(),
            "text" => self.text.clone(),
            "html" => self.html.clone(),
            "log" => self.log.clone(),
            "verb" => details.verb.clone(),
            "outcome" => details.outcome.to_string(),
            "severity" => details.severity.to_owned(),
            "host" => details.host.clone(),
            "system" => details.system.clone(),
            "product" => details.product.clone(),
            "at" => details.at.to_string(),
            "timestamp" => details.at.as_second().to_string(),
            "version" => details.version.to_owned(),
            "snapshot" => details.snapshot.clone().unwrap_or_default(),
            "size" => details.size.to_string(),
            "files" => details.files.to_string(),
            "bytes" => details.bytes.to_string(),
            "duration" => format!("{:.1}", details.duration),
            "errors" => details.count(Severity::Error).to_string(),
            "warnings" => details.count(Severity::Warning).to_string(),
            "problems" => {
                let lines: Vec<String> =
                    details.problems.iter().map(|one| format!("{}: {}", one.severity, one.what)).collect();
                lines.join("\n")
            }
            _ => return None,
        })
    }
}

impl Details {
    /// The labelled facts of a run, for the text, the page and cards.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("Host", self.system.clone())];
        if let Some(snapshot) = &self.snapshot {
            rows.push(("Snapshot", snapshot.clone()));
            let contents = format!("{} files, {}", self.files, size(self.bytes));
            rows.push(("Size", format!("{} ({contents})", size(self.size))));
        }

        if let Some(last) = &self.unchanged {
            rows.push(("Last", last.clone()));
        }
        if let Some(since) = &self.since {
            rows.push(("Changes", since.clone()));
        }
        if self.duration > 0.0 {
            rows.push(("Time", span(self.duration)));
        }
        for store in &self.stores {
            let mut text = format!("{}: {}", store.store, store.place.as_deref().unwrap_or("FAILED"));
            if let Some(kept) = store.kept {
                let _ = write!(text, " ({kept} kept, {} removed)", store.removed);
            }
            rows.push(("Store", text));
        }
        rows
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_has_a_value_and_no_other_name_has() {
        let details = Details {
            verb: "backup".into(),
            outcome: Outcome::Ok,
            severity: "info",
            host: "h".into(),
            system: "s".into(),
            product: String::new(),
            at: Timestamp::UNIX_EPOCH,
            version: "1",
            snapshot: None,
            unchanged: None,
            since: None,
            size: 0,
            files: 0,
            bytes: 0,
            duration: 0.0,
            stores: Vec::new(),
            problems: Vec::new(),
            more_problems: 0,
            changes: Vec::new(),
        };
        let empty = String::new;
        let message = Message { subject: empty(), text: empty(), html: empty(), log: empty(), details };
        for name in Message::VARIABLES {
            assert!(message.variable(name).is_some(), "{name}");
        }
        assert_eq!(message.variable("password"), None);
    }
}
