//! The file of an armed restore, `armed.json`: whose it is, and until when it waits to be confirmed. It is there before
//! the first step that may cut a connection, and goes with the confirmation or the rollback.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::journal::{self, Journal, RestorePhase};
use super::probe::Probe;
use crate::sys::fs::files;
use crate::sys::host::Host;
use crate::sys::process::session::{self, LoginSession};
use crate::task::restore;

const FILE: &str = "armed.json";
const MAX_BYTES: u64 = 64 << 10;
/// A restore that still is not done so long after it should have undone itself (`restore::ARMED_LIMIT`) hangs, and is
/// ended.
pub const HANG_GRACE: Duration = Duration::from_secs(60);
/// Time that the waiting process may take to begin after the end of its time; then the watching process does it.
const WATCH_GRACE: Duration = Duration::from_secs(5);
/// A copy of the program in the directory of a restore. systemd starts it again and again, whatever an upgrade makes of the
/// installed one.
pub const PROGRAM: &str = "pbx-config";

/// The file on the disk while a restore is armed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PendingConfirm {
    pub id: String,
    pub boot: String,
    /// Seconds of uptime, of the arming.
    #[serde(default)]
    pub at: f64,
    /// Seconds of uptime. While it is applied, of one that is killed or hangs; set again when all is done.
    pub deadline: f64,
    /// Seconds from there on.
    #[serde(default)]
    pub within: f64,
    /// Seconds after its last step in which its probes may fail.
    #[serde(default)]
    pub probe_grace: f64,
    /// The login session that applied it.
    pub session: LoginSession,
    pub probes: Vec<Probe>,
}

impl PendingConfirm {
    pub fn is_due(&self) -> bool {
        self.boot != session::boot_id() || session::uptime() >= self.deadline
    }

    pub fn has_probes(&self) -> bool {
        !self.probes.is_empty()
    }

    /// Returns the time by which it is done or rolled back, in seconds of uptime of this boot.
    pub fn done_by(&self) -> Option<f64> {
        (self.boot == session::boot_id())
            .then_some(self.at + (restore::ARMED_LIMIT + HANG_GRACE).as_secs_f64())
    }

    pub fn is_overdue(&self) -> bool {
        self.is_due() && session::uptime() >= self.deadline + WATCH_GRACE.as_secs_f64()
    }

    /// Seconds until it undoes itself.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded
    pub fn left(&self) -> u64 {
        (self.deadline - session::uptime()).clamp(0.0, 1e9) as u64
    }
}

/// Reads the armed restore. A file that cannot be read counts as due, for the last restore that it can belong to: an
/// admin who cannot log in must not be shut out by a broken file.
pub fn read(host: &Host) -> Option<PendingConfirm> {
    let text = match journal::folder(host).and_then(|folder| folder.read(FILE, MAX_BYTES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        // Who may not look has nothing that waits for him.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !files::is_root() => {
            return None;
        }
        text => text.ok(),
    };
    text.and_then(|text| serde_json::from_slice(&text).ok()).or_else(|| unreadable(host))
}

fn unreadable(host: &Host) -> Option<PendingConfirm> {
    let ids = journal::ids(host).into_iter().rev();
    let mut journals = ids.filter_map(|id| Journal::open(host, &id).ok());
    let journal = journals.find(|journal| {
        let may_cut = journal.begun.iter().any(|n| journal.record.steps[*n].may_disconnect);
        may_cut && !matches!(journal.phase, RestorePhase::Undone | RestorePhase::Confirmed)
    })?;
    #[allow(clippy::cast_precision_loss)] // seconds
    let is_of_this_boot = journal.record.at as f64 >= host.now.as_second() as f64 - session::uptime();

    Some(PendingConfirm {
        id: journal.record.id,
        boot: if is_of_this_boot { session::boot_id() } else { String::new() },
        // Of one that is applied just now nobody says that it hangs.
        at: session::uptime(),
        deadline: 0.0,
        within: 0.0,
        probe_grace: 0.0,
        session: LoginSession::current(),
        probes: Vec::new(),
    })
}

/// Writes the file.
pub fn write(host: &Host, armed: &PendingConfirm) -> Result<()> {
    journal::folder(host)?.replace(FILE, 0o600, &serde_json::to_vec(armed)?)
}

/// Removes the file, so that nothing undoes it any more.
pub fn disarm(host: &Host, id: &str) -> Result<()> {
    let folder = journal::folder(host).context("cannot disarm")?;
    let _ = folder.dir(id).and_then(|dir| dir.remove(PROGRAM));
    match folder.remove(FILE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("cannot disarm"),
        _ => Ok(folder.sync()?),
    }
}

/// Ends the waiting after an undo by hand.
pub fn forget(host: &Host, id: &str) -> Result<()> {
    match read(host) {
        Some(armed) if armed.id == id => disarm(host, id),
        _ => Ok(()),
    }
}
