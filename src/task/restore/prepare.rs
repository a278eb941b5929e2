//! `restore` onto the live system, up to its first write: proves the snapshot, looks at this host, makes the plan;
//! saves a plan and takes it again only when it would be made the same today.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{database, hardware, observe, select};
use crate::model::index::{Mtime, Name};
use crate::model::problem::{Fault, FaultKind};
use crate::model::snapshot::SnapshotId;
use crate::plan::restore::{
    self, Action, RestorePlan, RestoreRequest, RestoreStep, SelectedEntries, adapt, guest_advice,
};
use crate::sys::fs::files;
use crate::sys::fs::hash::sha256;
use crate::sys::host::Host;
use crate::task::snapshots::ChosenSnapshot;

/// The format of a saved plan; a later one may be written otherwise.
const FORMAT: u32 = 1;
/// The size limit of a saved plan: a hundred thousand steps.
const PLAN_MAX_BYTES: u64 = 64 << 20;
const CHANGES_SHOWN: usize = 5;
const ANEW: &str = "create the plan again, and check it";

/// A plan and what it was made from.
pub struct Prepared {
    pub plan: RestorePlan,
    pub request: RestoreRequest,
    /// The path of the snapshot now. A copy fetched from a remote store is removed again.
    pub path: PathBuf,
    pub store: Option<String>,
    pub manifest_sha256: String,
    /// The same when the snapshot, the request, this host and every byte that would be replaced are the same.
    pub digest: String,
    pub picked: SelectedEntries,
}

/// Errors: `Verification`, `Usage`, `NotFound`, as the picking says.
pub fn prepare(host: &Host, chosen: &ChosenSnapshot, request: &RestoreRequest) -> Result<Prepared> {
    let (mut picked, manifest_sha256) = select::pick(chosen, request)?;
    let world = hardware::look(host, &picked, request);
    let by_hand = database::take(host, &mut picked, &world, request)?;
    let observed = observe::observe(host, &picked)?;
    let here = observed.here(host);
    let advice = adapt::shape(&mut picked, &here, &world, request)?;
    let mut plan = restore::plan(&picked, &here, request);
    plan.advice.extend(advice.into_iter().chain(by_hand));
    database::start(host, &mut plan, &picked, request)?;

    let digest = digest(&plan, request, &manifest_sha256)?;
    // Hints that come and go with what runs: the plan is the same without them.
    let running = hardware::running(host, &plan.steps);
    let hints: Vec<_> = guest_advice::advice(&plan.steps, &picked, &host.facts.node, &running).collect();
    plan.advice.extend(hints);
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

fn digest(plan: &RestorePlan, request: &RestoreRequest, manifest: &str) -> Result<String> {
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
    /// The host that it is for.
    node: String,
    machine_id: Option<String>,
    pub snapshot: SnapshotId,
    /// None: it is the file below.
    pub store: Option<String>,
    snapshot_file: Name,
    manifest_sha256: String,
    pub request: RestoreRequest,
    steps: Vec<SavedStep>,
    digest: String,
    /// Over all of the above.
    integrity: String,
}

/// A step of a saved plan, for people and to find what changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedStep {
    item: String,
    path: Name,
    how: Action,
    /// Size and time of what is there now.
    before: Option<(u64, Mtime)>,
}

impl From<&RestoreStep> for SavedStep {
    fn from(step: &RestoreStep) -> Self {
        Self {
            item: step.item.clone(),
            path: step.path.clone(),
            how: step.how,
            before: step.before.as_ref().map(|before| (before.size, before.mtime)),
        }
    }
}

impl Saved {
    pub fn of(host: &Host, prepared: &Prepared) -> Result<Self> {
        let mut saved = Self {
            format: FORMAT,
            node: host.facts.node.clone(),
            machine_id: host.facts.machine_id.clone(),
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

    /// Returns the word that names its snapshot on a command line.
    pub fn word(&self) -> String {
        match &self.store {
            Some(_) => self.snapshot.to_string(),
            None => self.snapshot_file.as_path().to_string_lossy().into_owned(),
        }
    }

    /// Errors: `Usage` for a name that is taken by something else than a file: a device would be replaced.
    pub fn write(&self, path: &Path) -> Result<()> {
        if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
            let what = format!("cannot write the plan: {} is not a file", path.display());
            return Err(Fault::new(FaultKind::Usage, what).hint("use a new file").into());
        }
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
        let no_plan = |error: serde_json::Error| {
            Fault::new(FaultKind::Usage, format!("{shown}: is not a plan: {error}"))
                .hint("create one with `pbx-config restore SNAP --plan FILE`")
        };
        let value: Value = serde_json::from_slice(&text).map_err(no_plan)?;

        // Another format may have other fields.
        if let Some(format) = value.get("format").filter(|format| **format != FORMAT) {
            let message = format!("{shown}: is a plan of format {format}, this version reads {FORMAT}");
            return Err(Fault::new(FaultKind::Usage, message).hint("create the plan again").into());
        }

        let saved: Self = serde_json::from_slice(&text).map_err(no_plan)?;
        let unsigned = Self { integrity: String::new(), ..saved };
        let is_whole =
            sha256(&serde_json::to_vec(&unsigned)?) == value["integrity"].as_str().unwrap_or_default();
        let saved =
            Self { integrity: value["integrity"].as_str().unwrap_or_default().to_owned(), ..unsigned };

        // Nor is there anything in it that would not be read, or that was left out.
        if !is_whole || serde_json::to_value(&saved)? != value {
            let fault = Fault::new(FaultKind::Usage, format!("{shown}: was changed after it was written"));
            return Err(fault
                .hint("select with --only, --skip and --path, and create the plan again")
                .into());
        }
        Ok(saved)
    }

    /// Checks the host before anything is looked for: another host may not even have the snapshot.
    /// Errors: `Failed` for a plan of another host.
    pub fn check_host(&self, host: &Host) -> Result<(), Fault> {
        let shown = |node: &str, machine: &Option<String>| {
            format!("{node} (machine {})", machine.as_deref().unwrap_or("unknown"))
        };
        let here = &host.facts;
        if self.node == here.node && self.machine_id == here.machine_id {
            return Ok(());
        }
        let (of, this) = (shown(&self.node, &self.machine_id), shown(&here.node, &here.machine_id));
        let fault = Fault::new(FaultKind::Failed, format!("the plan is for {of}, this is {this}"));
        Err(fault.hint("create a plan on this host, and check it"))
    }

    /// Checks the snapshot before it is read as a whole.
    /// Errors: `Failed` when another one has its name now; `Verification`.
    pub fn check_snapshot(&self, chosen: &ChosenSnapshot) -> Result<()> {
        if chosen.open()?.head.manifest_sha256 == self.manifest_sha256 {
            return Ok(());
        }
        Err(self.swapped(chosen).into())
    }

    /// Turns an error of the search for its snapshot into the error of the plan.
    pub fn without_snapshot(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast_ref::<Fault>() {
            Some(fault) if fault.kind == FaultKind::NotFound => {
                let message = format!("the plan is of {}: {}", self.snapshot, fault.message);
                Fault::new(FaultKind::NotFound, message)
                    .hint("put the snapshot back in its place, or create a plan with another one")
                    .into()
            }
            _ => error,
        }
    }

    fn swapped(&self, chosen: &ChosenSnapshot) -> Fault {
        let place = chosen.place.display();
        let message = format!("{place}: is not the {} that the plan was made from", self.snapshot);
        Fault::new(FaultKind::Failed, message).hint(ANEW)
    }

    /// Errors: `Failed` when the plan of today is another one, with what changed.
    pub fn check(&self, chosen: &ChosenSnapshot, today: &Prepared) -> Result<()> {
        if self.manifest_sha256 != today.manifest_sha256 {
            return Err(self.swapped(chosen).into());
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
        Err(Fault::new(FaultKind::Failed, message).hint(ANEW).into())
    }
}
