//! `restore` onto the live system, up to its first write: proves the snapshot, looks at this host, makes the plan;
//! saves a plan and takes it again only when it would be made the same today.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::database;
use super::observe;
use super::picked;
use super::snapshots::Chosen;
use super::surroundings;
use crate::model::index::{Mtime, Name};
use crate::model::report::{Fault, FaultKind};
use crate::model::snapshot::SnapshotId;
use crate::plan::restore::{self, How, Picked, Request, RestorePlan, Step};
use crate::plan::shape;
use crate::sys::files;
use crate::sys::hash::sha256;
use crate::sys::host::Host;

/// Of a saved plan; a later one may be written otherwise.
const FORMAT: u32 = 1;
/// Of a saved plan: a hundred thousand steps.
const PLAN_MAX_BYTES: u64 = 64 << 20;
const CHANGES_SHOWN: usize = 5;

/// A plan and what it was made from.
pub struct Prepared {
    pub plan: RestorePlan,
    pub request: Request,
    /// Where the snapshot lies now: what came from afar goes again.
    pub path: PathBuf,
    pub store: Option<String>,
    pub manifest_sha256: String,
    /// The same when the snapshot, the request, this host and every byte that would be replaced are the same.
    pub digest: String,
    pub picked: Picked,
}

/// Errors: `Verification`, `Usage`, `NotFound`, as the picking says.
pub fn prepare(host: &Host, chosen: &Chosen, request: &Request) -> Result<Prepared> {
    let (mut picked, manifest_sha256) = picked::pick(chosen, request)?;
    let by_hand = database::take(host, &mut picked, request)?;
    let observed = observe::observe(host, &picked)?;
    let here = observed.here(host);
    let world = surroundings::look(host, &picked);
    let advice = shape::shape(&mut picked, &here, &world, request)?;
    let mut plan = restore::plan(&picked, &here, request);
    plan.advice.extend(advice.into_iter().chain(by_hand));
    database::start(&mut plan);
    let digest = digest(&plan, request, &manifest_sha256)?;
    Ok(Prepared {
        plan,
        request: request.clone(),
        path: chosen.path.clone(),
        store: chosen.store.clone(),
        manifest_sha256,
        digest,
        picked,
    })
}

fn digest(plan: &RestorePlan, request: &Request, manifest: &str) -> Result<String> {
    let mut plan = plan.clone();
    // What is shown of a change is not the change.
    plan.steps.iter_mut().for_each(|step| step.diff = None);
    Ok(sha256(&serde_json::to_vec(&(plan, request, manifest))?))
}

/// A plan in a file. It holds no contents and no hash of a single file, which for a short secret is the secret:
/// it names the snapshot, and is made again from it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Saved {
    format: u32,
    pub snapshot: SnapshotId,
    /// None: it is the file below.
    pub store: Option<String>,
    snapshot_file: Name,
    manifest_sha256: String,
    pub request: Request,
    steps: Vec<SavedStep>,
    digest: String,
    /// Over all of the above.
    integrity: String,
}

/// For people, and to tell what changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedStep {
    item: String,
    path: Name,
    how: How,
    /// Size and time of what is there now.
    before: Option<(u64, Mtime)>,
}

impl From<&Step> for SavedStep {
    fn from(step: &Step) -> Self {
        Self {
            item: step.item.clone(),
            path: step.path.clone(),
            how: step.how,
            before: step.before.as_ref().map(|before| (before.size, before.mtime)),
        }
    }
}

impl Saved {
    pub fn of(prepared: &Prepared) -> Result<Self> {
        let mut saved = Self {
            format: FORMAT,
            snapshot: prepared.plan.snapshot.clone(),
            store: prepared.store.clone(),
            snapshot_file: prepared.path.as_path().into(),
            manifest_sha256: prepared.manifest_sha256.clone(),
            request: prepared.request.clone(),
            steps: prepared.plan.steps.iter().map(SavedStep::from).collect(),
            digest: prepared.digest.clone(),
            integrity: String::new(),
        };
        saved.integrity = sha256(&serde_json::to_vec(&saved)?);
        Ok(saved)
    }

    /// What names its snapshot on a command line.
    pub fn word(&self) -> String {
        match &self.store {
            Some(_) => self.snapshot.to_string(),
            None => self.snapshot_file.as_path().to_string_lossy().into_owned(),
        }
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        files::replace(&std::path::absolute(path)?, 0o600, &serde_json::to_vec_pretty(self)?)
    }

    /// Errors: `Usage` for what is no plan or was edited.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let absolute = std::path::absolute(path)?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        let name = absolute.file_name().unwrap_or_default();
        let text = files::read_small(folder, name, PLAN_MAX_BYTES);
        let text = text.with_context(|| format!("cannot read {shown}"))?;
        let mut saved: Self = serde_json::from_slice(&text).map_err(|error| {
            Fault::new(FaultKind::Usage, format!("{shown}: is no plan: {error}"))
                .hint("`pbx-config restore SNAP --plan FILE` writes one")
        })?;
        if saved.format != FORMAT {
            let message =
                format!("{shown}: is a plan of format {}, this version knows {FORMAT}", saved.format);
            return Err(Fault::new(FaultKind::Usage, message).hint("make the plan anew").into());
        }
        let integrity = std::mem::take(&mut saved.integrity);
        if sha256(&serde_json::to_vec(&saved)?) != integrity {
            let fault = Fault::new(FaultKind::Usage, format!("{shown}: was changed after it was written"));
            return Err(fault.hint("choose with --only, --skip and --path, and make the plan anew").into());
        }
        saved.integrity = integrity;
        Ok(saved)
    }

    /// Errors: `Failed` when the plan of today is another one, with what changed.
    pub fn check(&self, today: &Prepared) -> Result<()> {
        let anew = "make the plan anew, and look at it again";
        if self.manifest_sha256 != today.manifest_sha256 {
            let message = format!("{} is not the snapshot that the plan was made from", today.path.display());
            return Err(Fault::new(FaultKind::Failed, message).hint(anew).into());
        }
        if self.digest == today.digest {
            return Ok(());
        }
        let now: Vec<SavedStep> = today.plan.steps.iter().map(SavedStep::from).collect();
        let differs = |from: &[SavedStep], to: &[SavedStep]| -> Vec<String> {
            let differing = from.iter().filter(|step| !to.contains(step));
            differing.map(|step| format!("/{}", step.path)).collect()
        };
        let mut changed = differs(&self.steps, &now);
        changed.extend(differs(&now, &self.steps));
        changed.sort();
        changed.dedup();
        let more = changed.len().saturating_sub(CHANGES_SHOWN);
        changed.truncate(CHANGES_SHOWN);
        let what = match (changed.is_empty(), more) {
            (true, _) => "this host".to_owned(),
            (false, 0) => changed.join(", "),
            (false, more) => format!("{} and {more} more", changed.join(", ")),
        };
        let message = format!("changed since the plan was made: {what}");
        Err(Fault::new(FaultKind::Failed, message).hint(anew).into())
    }
}
