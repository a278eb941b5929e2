//! The audit log: who restored, undid and confirmed each restore, one line each, kept for ever.

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::journal::RestoreRecord;
use crate::model::problem::Problem;
use crate::sys::host::Host;
use crate::sys::process::session::Who;

const FILE: &str = "restores.jsonl";
/// The beginning of its audit line.
pub const BY_ITSELF: &str = "rolled back automatically";
/// A line has a few hundred bytes.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// Time in RFC 3339.
    pub at: String,
    /// restore, resume, undo, confirm.
    pub verb: String,
    pub id: String,
    pub snapshot: String,
    /// Digest of the plan.
    pub plan: String,
    pub steps: usize,
    pub who: Who,
    /// "ok", "armed", "undone by itself: nobody confirmed it" ...
    pub result: String,
}

/// Appends a line. Errors are a problem of the record, never of what was done.
pub fn note(host: &Host, verb: &str, record: &RestoreRecord, result: &str) -> Option<Problem> {
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or(host.now);
    let line = Line {
        at: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        verb: verb.to_owned(),
        id: record.id.clone(),
        snapshot: record.snapshot.to_string(),
        plan: record.digest.clone(),
        steps: record.steps.len(),
        who: Who::current(),
        result: result.to_owned(),
    };
    log::info!("{verb} {}: {result}", record.id);
    let problem = |error| Problem::warning(format!("the audit line cannot be written: {error:#}"));
    append(host, &line).err().map(problem)
}

fn append(host: &Host, line: &Line) -> Result<()> {
    let file = host.make_state()?.append(FILE);
    let mut file = file.with_context(|| format!("cannot open {}", path(host).display()))?;
    let text = serde_json::to_string(line)? + "\n";
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_data())
        .with_context(|| path(host).display().to_string())
}

fn path(host: &Host) -> PathBuf {
    host.state_path().join(FILE)
}

/// Reads all lines, oldest first. A line that a power cut left half is passed over.
pub fn lines(host: &Host) -> Result<Vec<Line>> {
    let text = match host.state().and_then(|state| state.read(FILE, MAX_BYTES)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("cannot read {}", path(host).display()))?,
    };
    Ok(text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Returns why an armed restore undid itself. None: somebody undid it.
pub fn why_undone(host: &Host, id: &str) -> Option<String> {
    let lines = lines(host).ok()?;
    let last = lines.into_iter().rev().find(|line| line.id == id && line.verb == "undo")?;
    last.result.starts_with(BY_ITSELF).then_some(last.result)
}
