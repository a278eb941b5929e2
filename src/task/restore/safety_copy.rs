//! The safety copy before the first write: room for it, a copy of all that will be touched, all that will be put
//! there, and the record of both, on the disk. Until that is there nothing of the host is changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::journal::{self, Journal, RestoreRecord};
use super::prepare::Prepared;
use super::target::Targets;
use crate::model::index::{EntryKind, Mtime, Name};
use crate::model::problem::{Fault, FaultKind};
use crate::plan::restore::{Content, FileState, LivePath, RestoreStep, TargetKind};
use crate::sys::fs::free_space;
use crate::sys::fs::hash::Hasher;
use crate::sys::host::{Host, STATE_DIR};
use crate::sys::host_dir::HostDir;
use crate::task::snapshots::ChosenSnapshot;

/// Room for the record, the journal, and what a file system takes for itself.
const SPARE_BYTES: u64 = 4 << 20;

/// Errors: `Failed` when there is no room or the host changed since the plan; nothing was written then.
pub fn keep(
    host: &Host,
    chosen: &ChosenSnapshot,
    prepared: &Prepared,
    running: Vec<String>,
) -> Result<Journal> {
    let steps = &prepared.plan.steps;
    check_room(host, steps)?;

    let (id, dir) = journal::new_folder(host)?;
    let kept = fill(host, &dir, chosen, prepared).and_then(|folders| {
        let record = RestoreRecord {
            format: RestoreRecord::FORMAT,
            id: id.clone(),
            snapshot: prepared.plan.snapshot.clone(),
            digest: prepared.digest.clone(),
            at: host.now.as_second(),
            steps: steps.iter().map(|step| RestoreStep { diff: None, ..step.clone() }).collect(),
            folders,
            stages: prepared.plan.stages.clone(),
            running,
        };
        Journal::create(dir, record)
    });
    kept.inspect_err(|_| drop(journal::remove(host, &id)))
}

fn check_room(host: &Host, steps: &[RestoreStep]) -> Result<()> {
    let size = |print: Option<&FileState>| print.map_or(0, |print| print.size);
    let mut needed: BTreeMap<u64, (HostDir, u64)> = BTreeMap::new();
    let mut need = |path: &Path, bytes: u64| -> Result<()> {
        let dir = path.ancestors().find_map(|above| host.dir(above).ok());
        let dir = dir.map_or_else(|| host.dir("/"), Ok)?;
        needed.entry(dir.device()?).or_insert((dir, SPARE_BYTES)).1 += bytes;
        Ok(())
    };
    let copies = steps.iter().map(|step| size(step.before.as_ref()) + size(Some(&step.after))).sum();
    need(Path::new(STATE_DIR), copies)?;
    for step in steps.iter().filter(|step| step.via == TargetKind::Disk && step.after.size > 0) {
        need(&Path::new("/").join(step.path.as_path()), step.after.size)?;
    }

    for (place, bytes) in needed.into_values() {
        let free = free_space::now(&place.here())?.ours;
        if free < bytes {
            let message =
                format!("{}: {bytes} bytes are needed there, {free} are free", place.path().display());
            let fault = Fault::new(FaultKind::Failed, message);
            return Err(fault.hint("free some space (see `df`), then try again; nothing was changed").into());
        }
    }
    Ok(())
}

/// Fills the directory; returns the times of the directories of the host that will change.
fn fill(
    host: &Host,
    dir: &HostDir,
    chosen: &ChosenSnapshot,
    prepared: &Prepared,
) -> Result<Vec<(Name, Mtime)>> {
    let steps = &prepared.plan.steps;
    let (before, after) = (dir.make_dir(journal::BEFORE)?, dir.make_dir(journal::AFTER)?);
    stage(chosen, prepared, &after)?;

    let targets = Targets::open(host, steps.iter())?;
    targets.check()?;
    for (n, step) in steps.iter().enumerate() {
        if !copy_live(&targets, step, &before, n)? {
            let fault = Fault::new(FaultKind::Failed, format!("/{}: changed since the plan", step.path));
            return Err(fault.hint("create a new plan; nothing was changed").into());
        }
    }

    dir.sync_file_system()?;
    directory_times(&targets, steps)
}

/// Writes all contents that will be put in place, each with the hash that the plan says.
fn stage(chosen: &ChosenSnapshot, prepared: &Prepared, after: &HostDir) -> Result<()> {
    let mut later: HashMap<&Name, Vec<usize>> = HashMap::new();
    let steps = &prepared.plan.steps;
    for (n, step) in steps.iter().enumerate() {
        match &step.content {
            Content::None => {}
            Content::Bytes(bytes) => stage_one(step, &mut &bytes[..], after, n)?,
            Content::Entry(name) => match prepared.picked.contents.get(name) {
                Some(bytes) => stage_one(step, &mut &bytes[..], after, n)?,
                None => later.entry(name).or_default().push(n),
            },
        }
    }

    if later.is_empty() {
        return Ok(());
    }
    let mut archive = chosen.open()?;
    archive.read(&chosen.path, &mut |member, content| {
        let Some(wanted) = later.remove(&member.path) else { return Ok(()) };
        stage_one(&steps[wanted[0]], content, after, wanted[0])?;
        for n in &wanted[1..] {
            stage_one(&steps[*n], &mut after.file(wanted[0].to_string())?, after, *n)?;
        }
        Ok(())
    })?;
    ensure!(later.is_empty(), "{} changed while it was read", chosen.path.display());
    Ok(())
}

fn stage_one(step: &RestoreStep, content: &mut dyn Read, after: &HostDir, n: usize) -> Result<()> {
    let sha256 = after.new_file(n.to_string()).and_then(|file| copy(content, file));
    let sha256 = sha256.with_context(|| format!("cannot write {}/{n}", after.path().display()))?;
    ensure!(sha256 == step.after.sha256, "/{}: differs from the file that the plan was made from", step.path);
    Ok(())
}

/// Copies into a new file; returns the hash of what went through.
fn copy(content: &mut dyn Read, mut file: File) -> io::Result<String> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = content.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.hex());
        }
        hasher.write_all(&buffer[..n])?;
        file.write_all(&buffer[..n])?;
    }
}

/// Copies what is there now. False when it is not what the plan saw.
fn copy_live(targets: &Targets, step: &RestoreStep, copies: &HostDir, n: usize) -> Result<bool> {
    let before = match (&step.before, targets.state(step)?) {
        (None, LivePath::Absent) => return Ok(true),
        (Some(before), LivePath::There { print, .. }) if step.via.same_with_time(before, &print) => before,
        _ => return Ok(false),
    };
    if before.kind != EntryKind::File {
        return Ok(true);
    }

    let mut content = targets.read(step).with_context(|| format!("cannot read /{}", step.path))?;
    let sha256 = copies.new_file(n.to_string()).and_then(|file| copy(&mut content, file));
    let sha256 = sha256.with_context(|| format!("cannot keep /{}", step.path))?;
    Ok(sha256 == before.sha256)
}

/// Returns the times of the directories that steps put something into.
fn directory_times(targets: &Targets, steps: &[RestoreStep]) -> Result<Vec<(Name, Mtime)>> {
    let mut times = Vec::new();
    let mut seen = HashSet::new();
    for parent in steps.iter().filter_map(|step| step.path.as_path().parent()).map(Name::from) {
        if seen.insert(parent.clone()) {
            let mtime = targets.mtime(&parent).with_context(|| format!("cannot read /{parent}"))?;
            times.extend(mtime.map(|mtime| (parent, mtime)));
        }
    }
    Ok(times)
}
