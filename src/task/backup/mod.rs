//! `backup`: reads the host once into a snapshot, reads the snapshot back and puts it on every store.

mod name;
mod prepare;
pub mod readahead;
mod spool;
mod unchanged;
mod upload;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use self::prepare::{Preparation, check_is_system};
use self::upload::Upload;
use super::keys;
use super::scan::baseline::Baseline;
use super::scan::commands;
use super::scan::sources::{self, Planned, Sources};
use super::scan::walk;
use crate::archive::recipient::Recipient;
use crate::archive::writer::Written;
use crate::config::Config;
use crate::model::problem::{Outcome, Problem};
use crate::model::report::Report;
use crate::model::snapshot::SnapshotId;
use crate::store::Store;
use crate::sys::host::Host;
use crate::sys::process::lock::Lock;

pub use self::prepare::{BackupRequest, compression};

/// The beginning of a progress line that tells of a step, not of a detail.
pub const STEP: &str = "step ";
/// The number of steps: look, read, read back, store in all stores at the same time.
const STEPS: usize = 4;

/// The plan of a run: all it would read and write. Nothing was read but names and sizes.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackupPlan {
    pub system: String,
    pub snapshot: SnapshotId,
    pub items: Vec<Planned>,
    pub commands: Vec<String>,
    pub stores: Vec<String>,
    /// Fingerprints of who can open it; empty when it is not sealed.
    pub sealed_to: Vec<String>,
    pub problems: Vec<Problem>,
}

pub fn plan(
    host: &Host,
    config: &Config,
    stores: &[Box<dyn Store>],
    request: &BackupRequest,
) -> Result<BackupPlan> {
    check_is_system(host)?;

    let recipients = keys::recipients(host, config)?;
    let sources = Sources::new(host, config, stores, &request.selection)?;
    let (items, left) = sources::count(host, &sources)?;
    let mut problems = sources.problems;
    problems.extend(left.problems);
    walk::shorten(&mut problems);
    Ok(BackupPlan {
        system: host.facts.summary(),
        snapshot: SnapshotId::new(&host.facts.node, host.now).context("a node name")?,
        items,
        commands: commands::questions(&sources.items, host, &sources.apis),
        stores: stores.iter().map(|store| format!("{}: {}", store.name(), store.place())).collect(),
        sealed_to: recipients.iter().map(Recipient::fingerprint).collect(),
        problems,
    })
}

/// Makes a snapshot and puts it on every store; the first one is the primary.
/// Errors: the lock, the primary store, no space, a snapshot that does not read back.
pub fn run(
    host: &Host,
    config: &Config,
    stores: &[Box<dyn Store>],
    request: &BackupRequest,
    say: &dyn Fn(&str),
) -> Result<Report> {
    let start = Instant::now();
    check_is_system(host)?;
    let lock = Lock::acquire(&host.run_dir())?;
    let step = |n: usize, what: &str| say(&format!("{STEP}{n}/{STEPS} {what}"));
    let mut report = Report::blank("backup", &host.facts, 0.0);

    step(1, "checking the host");
    let prepared = Preparation::new(host, config, stores, request, lock)?;
    let spool = prepared.spool.as_path();
    let mut lap = start;
    report.phases.prepare = next_lap(&mut lap);

    step(2, "reading and packing");
    let written = prepared.work.new_file(spool);
    let written = written.and_then(|file| spool::write(host, &prepared.sources, prepared.draft, file, say));
    let Written { snapshot, read } = written.map_err(|error| spool::cannot_write(spool, error))?;
    report.phases.write = next_lap(&mut lap);

    step(3, "reading it back");
    let index = spool::read_back(spool, prepared.keys, read)?;
    report.phases.verify = next_lap(&mut lap);

    let size = fs::metadata(spool)?.len();
    let baseline = unchanged::baseline(host, &snapshot, size, &index);
    let before = baseline.as_ref().and_then(Baseline::before);
    let both = baseline.as_ref().zip(before.as_ref());
    report.changes = both.map(|(baseline, before)| baseline.since(before));
    report.problems = index.problems;
    let last = before.as_ref().zip(report.changes.as_ref()).filter(|_| config.backup.skip_unchanged);

    if let Some(last) = last
        && unchanged::may_skip(host, stores, request, &snapshot, last, &mut report.problems)
    {
        report.unchanged = Some(last.0.id.clone());
    } else {
        let names: Vec<&str> = stores.iter().map(|store| store.name()).collect();
        name::remember(host, &snapshot.id);
        step(STEPS, &format!("storing in {}", names.join(", ")));
        let upload = Upload { host, config, lock: &prepared.lock, spool, id: &snapshot.id };
        report.stores = upload.to_all(stores, &mut report.problems, say)?;
        report.phases.store = next_lap(&mut lap);
        report.problems.extend(baseline.as_ref().and_then(keep));
        (report.snapshot, report.size) = (Some(snapshot), size);
    }

    report.outcome = Outcome::of(&report.problems);
    report.took = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Returns the seconds since `lap`, which begins again.
fn next_lap(lap: &mut Instant) -> f64 {
    let now = Instant::now();
    now.duration_since(std::mem::replace(lap, now)).as_secs_f64()
}

/// Keeps the baseline for the next run. Returns the problem when it cannot.
fn keep(baseline: &Baseline) -> Option<Problem> {
    let error = baseline.keep().err()?;
    let what = format!("the contents of this snapshot were not recorded: {error:#}");
    Some(Problem::warning(what).hint("the next run reports changes since an older one"))
}
