//! `check`: looks at the host, at what of ours is on it and at its stores. What is seen becomes findings in
//! `plan::check`; only `mend` changes anything.

mod host;
mod network;
mod own;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::keys::{self, key_check};
use super::runs::{metrics, notify as told};
use super::scan::coverage;
use super::scan::sources::Sources;
use crate::config::{Config, Preflight};
use crate::model::problem::{Fault, Problem};
use crate::model::section::Section;
use crate::model::snapshot::SnapshotId;
use crate::model::units::counted;
use crate::notify;
use crate::plan::check::{self, Area, CheckFinding, CheckState};
use crate::plan::select::Selection;
use crate::store::Store;
use crate::sys::error_hint;
use crate::sys::fs::{free_space, permissions};
use crate::sys::host::Host;
use crate::sys::process::forked::{self, CarriedError, ChildResult};

pub use host::host;
pub use network::network;
pub use own::own;

/// A store in a directory; others have limits of their own.
const STORE_LIMIT: Duration = Duration::from_secs(20);
/// A new snapshot may be larger than the last one, and lies beside it while it is written.
const MARGIN: u64 = 3;
/// The room that is wanted when there is no last one.
const FIRST_BYTES: u64 = 16 << 20;

/// Runs the quick and local checks before each backup and returns the problems of its report.
/// Errors: with `stop`, when something must be repaired first.
pub fn preflight(host: &Host, config: &Config) -> Result<Vec<Problem>> {
    if config.backup.preflight == Preflight::Off {
        return Ok(Vec::new());
    }
    let mut findings = own(host);
    findings.extend(own::identities(host, &own::FEW_PLACES));
    findings.extend(host::var_space(host));
    let worst = findings.iter().find(|finding| finding.state == CheckState::Problem);
    if let Some(worst) = worst.filter(|_| config.backup.preflight == Preflight::Stop) {
        let fault = Fault::failed(format!("no backup until this is fixed: {}", worst.what));
        let hint = worst.hint.as_deref().unwrap_or("see `pbx-config check`");
        return Err(fault
            .hint(format!("{hint}; with `preflight warn` under 'backup: main' the backup is made anyway"))
            .into());
    }
    Ok(findings.iter().filter_map(CheckFinding::problem).collect())
}

/// Each store: reached, with room for the next snapshot, its snapshots in nobody else's hands.
pub fn stores(host: &Host, stores: &[Box<dyn Store>]) -> Vec<CheckFinding> {
    let mut findings = Vec::new();
    for store in stores {
        let name = format!("store '{}': {}", store.name(), store.place());
        match list(store.as_ref(), &host.facts.node) {
            Err(error) => findings.push(failed(Area::Stores, &error)),
            Ok(found) => {
                let what = format!("{name}: {} of this host", counted(found.len(), "snapshot"));
                findings.push(CheckFinding::new(Area::Stores, CheckState::Ok, what));
                let newest = found.iter().max();
                let need = newest.map_or(FIRST_BYTES, |(_, size)| size.saturating_mul(MARGIN));
                if let Some(room) = store.folder().and_then(free_space::of) {
                    findings.push(check::room(&name, room.bytes, room.files, need));
                }
                findings.extend(own::store_rights(host, store.as_ref()));
            }
        }
    }

    findings
}

type Sizes = Vec<(SnapshotId, u64)>;

/// A share that hangs must not hang us.
fn list(store: &dyn Store, node: &str) -> Result<Sizes> {
    let sizes = || -> Result<Sizes> {
        Ok(store.list(Some(node))?.into_iter().map(|found| (found.id, found.size)).collect())
    };
    if store.folder().is_none() {
        return sizes();
    }

    let shown = || format!("store '{}': {}", store.name(), store.place());
    match forked::run(STORE_LIMIT, || sizes().map_err(CarriedError::from)).with_context(shown)? {
        ChildResult::Finished(sizes) => sizes.map_err(anyhow::Error::from),
        ChildResult::TimedOut => {
            let what = format!("{}: no answer within {} s", shown(), STORE_LIMIT.as_secs());
            let fault = Fault::failed(what);
            Err(fault.hint("is its share or disk there? `findmnt` shows what is mounted").into())
        }
    }
}

/// An error, with what it says is to be done.
pub fn failed(area: Area, error: &anyhow::Error) -> CheckFinding {
    let hint = error_hint::own(error);
    CheckFinding { hint, ..CheckFinding::new(area, CheckState::Problem, format!("{error:#}")) }
}

/// Checks the settings: snapshots are encrypted, every channel is as its section says, metrics have their place.
pub fn settings(host: &Host, config: &Config) -> Vec<CheckFinding> {
    let mut findings = Vec::new();
    let keys = |state, what: String| CheckFinding::new(Area::Keys, state, what);

    match keys::recipients(host, config) {
        Err(error) => findings.push(failed(Area::Keys, &error)),
        Ok(all) if all.is_empty() => {
            let finding = keys(CheckState::Notice, "snapshots are not encrypted".into());
            findings.push(finding.hint("`pbx-config key setup` sets it up"));
        }
        Ok(all) => {
            findings.push(keys(
                CheckState::Ok,
                format!("snapshots are encrypted to {}", counted(all.len(), "recipient")),
            ));
            findings.push(match (key_check::overdue(host, &all), key_check::proof(host)) {
                (Some(problem), _) => check::of_problem(Area::Keys, problem),
                (None, Some(proof)) => {
                    keys(CheckState::Ok, format!("the key that opens them was checked on {}", proof.at))
                }
                (None, None) => keys(CheckState::Notice, "the key that opens them was never checked".into()),
            });
        }
    }

    findings.extend(channels(host, config));
    for (name, section) in &config.prometheus {
        let found = metrics::folder(host, section);
        findings.push(match found {
            Ok(folder) => CheckFinding::new(
                Area::Channels,
                CheckState::Ok,
                format!("prometheus '{name}': {}", folder.path().display()),
            ),
            Err(error) => {
                let finding = failed(Area::Channels, &error);
                let what = format!("prometheus '{name}': {}", finding.what);
                CheckFinding { what, state: CheckState::Warning, ..finding }
            }
        });
    }
    findings
}

/// Lists the channels that a run notifies. Nothing is sent.
fn channels(host: &Host, config: &Config) -> Vec<CheckFinding> {
    let finding = |state, what: &str| CheckFinding::new(Area::Channels, state, what);
    let sections = told::sections(host, &config.channels);
    if sections.is_empty() && host.exec.is_of_host() {
        return vec![
            finding(
                CheckState::Notice,
                "no notification is sent when a backup fails: no channel is configured",
            )
            .hint("pbx-config.cfg(5), CHANNELS; a line `sendmail: root` mails to root"),
        ];
    }

    let one = |section: &Section| match notify::open(section) {
        Ok(target) => {
            let place = target.channel.place();
            finding(CheckState::Ok, &format!("{} '{}': {place}", section.kind, section.id))
        }
        Err(error) => failed(Area::Channels, &error),
    };
    sections.iter().map(one).collect()
}

/// A line about completeness; `check --complete` has the list.
pub fn coverage(host: &Host, config: &Config, stores: &[Box<dyn Store>]) -> Result<Vec<CheckFinding>> {
    let sources = Sources::new(host, config, stores, &Selection::default())?;
    let Some(coverage) = coverage::of_host(host, &sources)? else { return Ok(Vec::new()) };
    let finding = |state, what: String| CheckFinding::new(Area::Coverage, state, what);
    Ok(vec![match coverage.unexplained {
        0 => finding(CheckState::Ok, format!("all {} checked files are accounted for", coverage.files)),
        n => finding(CheckState::Notice, format!("in no backup: {} of this host", counted(n, "file")))
            .hint("`pbx-config check --complete` lists them"),
    }])
}

/// Permission bits by which others than root read a file, and those that directories have.
const READ: u32 = 0o044;
const EXECUTE: u32 = 0o111;

/// Carries out every fix; what could be mended is a notice afterwards.
pub fn mend(host: &Host, findings: &mut [CheckFinding]) {
    for finding in findings {
        let Some(fix) = &mut finding.fix else { continue };
        let path: PathBuf = fix.path.as_path().to_owned();
        let done = permissions::of(host.root(), &path).and_then(|held| {
            if held.rights == fix.before {
                permissions::set(host.root(), &path, &held, fix.after.mode)
            } else {
                Err(std::io::Error::other("has changed during the run"))
            }
        });
        let shown = path.display();
        match done {
            Ok(()) => {
                fix.done = true;
                finding.state = CheckState::Notice;
                finding.what = format!("{shown}: was {}, is {} now", fix.before, fix.after);
                // A mode that is mended takes back nothing that was read before.
                let is_file = fix.before.mode & EXECUTE == 0;
                let was_read = is_file && fix.before.mode & READ != 0 && fix.after.mode & READ == 0;
                finding.hint =
                    was_read.then(|| "others could read it until now: replace the secrets in it".to_owned());
            }
            Err(error) => finding.hint = Some(format!("{shown} could not be repaired: {error}")),
        }
    }
}
