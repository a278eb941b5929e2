//! `backup`: reads the host once into a snapshot, reads the snapshot back and puts it on every store.

pub mod readahead;
mod upload;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use jiff::SignedDuration;

use self::readahead::ReadaheadProgress;
use self::upload::Upload;
use super::keys::{self, key_check};
use super::runs::{records, status};
use super::scan::archiver::Archiver;
use super::scan::baseline::Baseline;
use super::scan::commands::{self, Inquiry};
use super::scan::sources::{self, Planned, Sources};
use super::scan::{coverage, walk};
use super::{check, snapshots};
use crate::archive::codec;
use crate::archive::keys::Keys;
use crate::archive::reader::{Archive, Head};
use crate::archive::recipient::Recipient;
use crate::archive::writer::{Protection, Writer, Written};
use crate::config::{BackupConfig, Config};
use crate::model::index::Index;
use crate::model::problem::{Fault, FaultKind, Outcome, Problem, Severity};
use crate::model::report::{Changes, Phases, Report};
use crate::model::snapshot::{
    Compression, Counts, FORMAT, Parent, Payload, Snapshot, SnapshotId, Trigger, UNCHANGED_MAX,
};
use crate::plan::baseline::Memory;
use crate::plan::select::Selection;
use crate::store::Store;
use crate::sys::fs::{files, scratch};
use crate::sys::host::Host;
use crate::sys::process::lock::{Lock, private_dir};
use crate::sys::process::signals::check_stopped;

/// How a line of talk begins that tells of a step, not of a detail.
pub const STEP: &str = "step ";
/// To look, to read, to read back, to store; the stores take it side by side.
const STEPS: usize = 4;
/// When the configuration leaves it to us: more would cost memory and gain nothing on a few MB.
const THREADS_MAX: u32 = 4;
const THREADS_LIMIT: u32 = 64;

pub struct BackupRequest {
    pub selection: Selection,
    pub note: Option<String>,
    pub protect: bool,
    pub trigger: Trigger,
}

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
    let primary = stores.first().context("no store is configured")?;
    let step = |n: usize, what: &str| say(&format!("{STEP}{n}/{STEPS} {what}"));
    step(1, "looking at the host");
    let recipients = keys::recipients(host, config)?;
    let mut advice: Vec<Problem> = key_check::overdue(host, &recipients).into_iter().collect();
    let protection = keys::protection(host, &recipients, config, &mut advice)?;
    // A copy, for reading back.
    let held = protection.seal.as_ref().and_then(|seal| seal.held.clone());
    let mut sources = Sources::new(host, config, stores, &request.selection)?;
    let mut problems = std::mem::take(&mut sources.problems);
    problems.append(&mut advice);
    problems.extend(check::preflight(host, config)?);
    let work = Work::new(host, &mut problems)?;
    let (id, parent) = next_id(host, primary.as_ref(), &mut problems)?;
    let spool = work.path.join(id.file_name());
    let mut phases = Phases { prepare: start.elapsed().as_secs_f64(), ..Phases::default() };

    let mut lap = Instant::now();
    let mut draft = draft(host, config, request, id, parent)?;
    draft.counts.pmxcfs = sources.pmxcfs_files();
    let whole = request.selection.only.is_empty();
    step(2, "reading and packing");
    let Written { snapshot, read } = write(host, &sources, (draft, protection), &spool, problems, whole, say)
        .map_err(|error| cannot_write(&spool, error))?;
    phases.write = lap.elapsed().as_secs_f64();
    step(3, "reading it back");
    lap = Instant::now();
    let index = read_back(&spool, held.map(Keys::of_run).unwrap_or_default(), read)?;
    phases.verify = lap.elapsed().as_secs_f64();
    lap = Instant::now();
    let size = fs::metadata(&spool)?.len();
    let picture = picture(host, &snapshot, size, &index);
    let mut problems = index.problems;
    let before = picture.as_ref().and_then(Baseline::before);
    let changes = picture.as_ref().zip(before.as_ref()).map(|(picture, before)| picture.since(before));
    if config.backup.skip_unchanged
        && let (Some(before), Some(changes)) = (&before, &changes)
        && may_skip(host, stores, request, &snapshot, (before, changes), &mut problems)
    {
        return Ok(Report {
            outcome: Outcome::of(&problems),
            changes: Some(changes.clone()),
            unchanged: Some(before.id.clone()),
            phases,
            problems,
            ..Report::blank("backup", &host.facts, start.elapsed().as_secs_f64())
        });
    }
    let names: Vec<&str> = stores.iter().map(|store| store.name()).collect();
    step(STEPS, &format!("storing in {}", names.join(", ")));
    let delivery = Upload { host, config, lock: &lock, spool: &spool, id: &snapshot.id };
    let done = delivery.to_all(stores, &mut problems, say)?;
    phases.store = lap.elapsed().as_secs_f64();
    if let Some(Err(error)) = picture.map(|picture| picture.keep()) {
        let what = format!("what this snapshot holds was not noted: {error:#}");
        problems.push(Problem::warning(what).hint("the next run tells changes since an older one"));
    }
    Ok(Report {
        outcome: Outcome::of(&problems),
        snapshot: Some(snapshot),
        size,
        stores: done,
        changes,
        phases,
        problems,
        ..Report::blank("backup", &host.facts, start.elapsed().as_secs_f64())
    })
}

/// True when the last snapshot says all that a new one would, and lies in every store that can be reached. The
/// primary store must have it, readable.
fn may_skip(
    host: &Host,
    stores: &[Box<dyn Store>],
    request: &BackupRequest,
    snapshot: &Snapshot,
    (before, changes): (&Memory, &Changes),
    problems: &mut Vec<Problem>,
) -> bool {
    let age = host.now.duration_since(before.id.at());
    let asked_for = request.protect || request.note.is_some() || !request.selection.words().is_empty();
    if !changes.is_none() || asked_for || age < SignedDuration::ZERO || age > UNCHANGED_MAX {
        return false;
    }

    let Ok(records) = records::all(host) else { return false };
    let mut away = Vec::new();
    for (n, store) in stores.iter().enumerate() {
        if status::damaged(store.name(), &records).contains(&before.id) {
            return false;
        }
        match store.list(Some(&host.facts.node)) {
            Ok(found) => {
                let newest = found.iter().max_by(|a, b| a.id.cmp(&b.id));
                if newest.is_none_or(|newest| newest.id != before.id || newest.size != before.size) {
                    return false;
                }
            }
            Err(_) if n == 0 => return false,
            Err(error) => {
                away.push(Problem::error(format!("{error:#}")).hint("the other stores have the last one"));
            }
        }
    }

    // Who can open it is as much of it as what is in it.
    let same = |head: Head| head.snapshot.sealed == snapshot.sealed;
    let readable =
        stores.first().is_some_and(|primary| snapshots::head(primary.as_ref(), &before.id).is_ok_and(same));
    if readable {
        problems.extend(away);
    }
    readable
}

/// Builds the baseline of this snapshot, to be remembered. None: only a part of the host was saved, or nothing can be
/// kept.
fn picture(host: &Host, snapshot: &Snapshot, size: u64, index: &Index) -> Option<Baseline> {
    let made =
        snapshot.selection.is_empty().then(|| Baseline::of(host, &snapshot.id, size, &index.entries))?;
    made.inspect_err(|error| log::info!("changes are not told: {error:#}")).ok()
}

/// `read`: what came of reading it while it was written; then the file is proven by its hash, for nobody here can
/// open it any more.
/// Errors: `Verification` for whatever it is, even when nothing of it can be recognised.
fn read_back(spool: &Path, keys: Keys, read: Option<Result<Index>>) -> Result<Index> {
    let read = Archive::open(spool).and_then(|archive| {
        let mut archive = archive.with_keys(keys);
        match read {
            None => archive.read(spool, &mut |_, _| check_stopped()),
            Some(read) => archive.check_payload(spool).and(read),
        }
    });

    check_stopped()?;
    read.map_err(|error| match cause(&error) {
        Some(io::ErrorKind::NotFound) => went_away(spool, error),
        _ => error.context(
            Fault::new(
                FaultKind::Verification,
                "the snapshot that was just written does not read back; it was discarded",
            )
            .hint("check the memory and the disk of this host"),
        ),
    })
}

fn cause(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.downcast_ref::<io::Error>().map(io::Error::kind)
}

fn cannot_write(spool: &Path, error: anyhow::Error) -> anyhow::Error {
    match cause(&error) {
        Some(io::ErrorKind::NotFound) => went_away(spool, error),
        Some(_) => error.context(format!("cannot write {}", spool.display())),
        None => error,
    }
}

fn went_away(spool: &Path, error: anyhow::Error) -> anyhow::Error {
    let fault = Fault::new(FaultKind::Failed, format!("{}: went away while it was used", spool.display()));
    error.context(fault.hint("run it again, and let nothing else clean up that folder"))
}

/// A private directory for the file while it is written; the file that a killed run left there is removed first.
struct Work {
    path: PathBuf,
}

impl Work {
    fn new(host: &Host, problems: &mut Vec<Problem>) -> Result<Self> {
        let beside_state = host.state_dir().join("work");
        // Another system may be read-only, or lead out of its root by a link; /run is memory, a snapshot is small.
        let path = if host.may_write(&beside_state) { beside_state } else { host.run_dir().join("work") };
        private_dir(&path)?;
        let work = Self { path };
        problems.extend(work.sweep());
        // Copies that a killed `verify` or `restore` had downloaded.
        let downloads = host.download_dir();
        if let Err(error) = scratch::sweep(&downloads) {
            let what = format!("{}: cannot be cleaned up: {error}", downloads.display());
            problems.push(Problem::warning(what).hint("remove the folders in it by hand"));
        }
        Ok(work)
    }

    /// Removes snapshot files and nothing else.
    fn sweep(&self) -> Vec<Problem> {
        let entries: Vec<fs::DirEntry> = match fs::read_dir(&self.path).and_then(Iterator::collect) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let what = format!("{}: cannot be cleaned up: {error}", self.path.display());
                return vec![Problem::warning(what).hint("remove the files in it by hand")];
            }
        };
        let is_spool =
            |entry: &&fs::DirEntry| entry.file_name().to_str().and_then(SnapshotId::from_file_name).is_some();
        let spools = entries.iter().filter(is_spool);
        spools.map(|entry| files::left(&entry.path(), fs::remove_file(entry.path()))).collect()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        for problem in self.sweep().iter().filter(|problem| problem.severity > Severity::Notice) {
            log::warn!("{}", problem.what);
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// A root that holds no system is a disk that is not mounted, not a host without configuration.
fn check_is_system(host: &Host) -> Result<()> {
    if host.facts.products.is_empty() && host.facts.os.is_none() && !host.has_name() {
        let message = format!(
            "{}: there is no system here: no product, no os-release, no host name",
            host.root().display()
        );
        return Err(Fault::new(FaultKind::Usage, message).hint("is it mounted?").into());
    }
    Ok(())
}

/// A name that the primary store does not have, and the newest snapshot of this host there.
fn next_id(
    host: &Host,
    primary: &dyn Store,
    problems: &mut Vec<Problem>,
) -> Result<(SnapshotId, Option<Parent>)> {
    let mut id = SnapshotId::new(&host.facts.node, host.now)
        .with_context(|| format!("the host name '{}' cannot name a snapshot", host.facts.node))?;
    let ids: Vec<SnapshotId> = primary.list(Some(id.host()))?.into_iter().map(|found| found.id).collect();
    while ids.contains(&id) {
        id = id.next();
    }

    let Some(before) = ids.into_iter().max() else { return Ok((id, None)) };
    if before > id {
        let what = format!("the clock says {}, but the newest snapshot is {before}", id.at());
        problems
            .push(Problem::warning(what).hint("set the clock; until then this snapshot is not the `latest`"));
    }

    let parent = match snapshots::head(primary, &before) {
        Ok(head) => Some(Parent { id: before, sha256: head.manifest_sha256 }),
        Err(error) => {
            problems.push(Problem::warning(format!("the snapshot before this one is damaged: {error:#}")));
            None
        }
    };
    Ok((id, parent))
}

fn draft(
    host: &Host,
    config: &Config,
    request: &BackupRequest,
    id: SnapshotId,
    parent: Option<Parent>,
) -> Result<Snapshot> {
    let facts = &host.facts;

    Ok(Snapshot {
        format: FORMAT,
        id,
        node: facts.node.clone(),
        machine_id: facts.machine_id.clone(),
        products: facts.products.clone(),
        cluster: facts.cluster.clone(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        codec: compression(config)?,
        sealed: None,
        payload: Payload::default(),
        counts: Counts::default(),
        outcome: Outcome::Ok,
        trigger: request.trigger,
        parent,
        note: request.note.clone(),
        selection: request.selection.words(),
        protected: request.protect,
        skips_unchanged: config.backup.skip_unchanged,
        legacy: None,
    })
}

/// The codec as it will really run. Errors: `Usage`, in the words of the configuration.
pub fn compression(config: &Config) -> Result<Compression> {
    let BackupConfig { compression, compression_mode, compression_level, compression_threads, .. } =
        &config.backup;
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = match compression_threads {
        0 => u32::try_from(processors).unwrap_or(1).min(THREADS_MAX),
        n => (*n).min(THREADS_LIMIT),
    };
    codec::settle(compression, compression_mode.as_deref(), *compression_level, threads).map_err(|error| {
        match error.downcast::<Fault>() {
            Ok(fault) => Fault { message: format!("backup 'main': {fault}"), ..fault }.into(),
            Err(error) => error,
        }
    })
}

fn write(
    host: &Host,
    sources: &Sources,
    (draft, protection): (Snapshot, Protection),
    spool: &Path,
    problems: Vec<Problem>,
    whole: bool,
    say: &dyn Fn(&str),
) -> Result<Written> {
    let id = draft.id.clone();
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(spool)?;
    let mut intake = Archiver::new(host, Writer::new(file, draft, protection)?, problems);
    let inquiry = Inquiry::new(&sources.items, host, &sources.apis);
    let (scan, progress) = (&sources.scan(host), &ReadaheadProgress::default());
    let left = thread::scope(|scope| {
        let mut ahead = false;
        for _ in 0..inquiry.workers() {
            scope.spawn(|| inquiry.work());
        }
        let mut last = "";
        let left = walk::walk(scan, &sources.items, &mut |item, piece| {
            progress.passed(piece);
            if intake.is_cold && !ahead {
                ahead = true;
                scope.spawn(move || readahead::run(scan, &sources.items, progress));
            }
            if last != item.id {
                last = item.id;
                say(item.title);
            }
            intake.take(item, piece)
        });
        progress.end();
        if left.is_err() {
            inquiry.stop();
        }
        left
    })?;

    // Of a part, everything else would be missing.
    if whole {
        let coverage = coverage::look(scan, &sources.items, &left)?;
        intake.writer.unexplained(coverage.map(|coverage| coverage.unexplained));
    }

    let outputs = intake.outputs(inquiry, host.now.as_second())?;
    intake.problems.extend(left.problems);
    walk::shorten(&mut intake.problems);
    if intake.writer.entries() == 0 {
        let fault =
            Fault::new(FaultKind::Usage, "nothing on this host is selected; there is nothing to save");
        return Err(fault.hint("`pbx-config catalog` shows what each item finds here").into());
    }

    let index = Index {
        format: FORMAT,
        id,
        facts: host.facts.clone(),
        entries: Vec::new(),
        outputs,
        absent: left.absent,
        problems: intake.problems,
    };
    intake.writer.finish(index)
}
