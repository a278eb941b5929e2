//! `store test`: a store is reached, written to, read and cleaned up, each timed. The probe has a separate host name,
//! so that it is never in a listing or a retention of this host.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::model::problem::Problem;
use crate::model::report::Medium;
use crate::model::snapshot::SnapshotId;
use crate::model::units::counted;
use crate::store::Store;
use crate::sys::fs::scratch::Scratch;
use crate::sys::host::Host;
use crate::sys::process::signals::check_stopped;
use crate::task::error;

/// More than a store's smallest unit, and soon sent.
const PROBE_BYTES: usize = 64 << 10;
/// The length limit of a node's name in the probe's name, which must be no longer than a host's may be.
const NODE_MAX_BYTES: usize = 50;

/// The result of the test of a store.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tried {
    pub store: String,
    pub place: String,
    /// The file system, when it is one of this machine.
    pub medium: Option<Medium>,
    /// The steps in their order, up to the one that failed.
    pub steps: Vec<TestStep>,
    pub problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TestStep {
    /// reach, write, read, remove
    pub step: &'static str,
    pub seconds: f64,
    /// A note of what was seen.
    pub note: Option<String>,
    pub error: Option<String>,
    pub hint: Option<String>,
}

impl Tried {
    pub fn is_ok(&self) -> bool {
        self.steps.iter().all(|step| step.error.is_none())
    }

    /// Notes a step with its time. None when it failed: what follows needs it.
    fn step<T>(
        &mut self,
        step: &'static str,
        work: impl FnOnce() -> Result<(T, Option<String>)>,
    ) -> Option<T> {
        let begun = Instant::now();
        let done = check_stopped().and_then(|()| work());
        let seconds = begun.elapsed().as_secs_f64();
        let mut entry = TestStep { step, seconds, note: None, error: None, hint: None };

        let value = match done {
            Ok((value, note)) => {
                entry.note = note;
                Some(value)
            }
            Err(error) => {
                entry.error = Some(format!("{error:#}"));
                entry.hint = error::hint(&error);
                None
            }
        };
        self.steps.push(entry);
        value
    }
}

/// Tries a store. Never errors: what fails is a step of the answer.
pub fn run(host: &Host, store: &dyn Store) -> Tried {
    let mut tried = Tried {
        store: store.name().to_owned(),
        place: store.place(),
        medium: None,
        steps: Vec::new(),
        problems: Vec::new(),
    };
    let _ = go(host, store, &mut tried);
    tried
}

/// None as soon as a step fails.
fn go(host: &Host, store: &dyn Store, tried: &mut Tried) -> Option<()> {
    let node = &host.facts.node;
    let name = format!("{}.probe", &node[..node.len().min(NODE_MAX_BYTES)]);

    let left = tried.step("reach", || {
        let own = counted(store.list(Some(node))?.len(), "snapshot");
        let left = store.list(Some(&name))?;
        Ok((left, Some(format!("{own} of this host"))))
    })?;
    let left: Vec<SnapshotId> = left.into_iter().map(|found| found.id).collect();
    let content = vec![b'.'; PROBE_BYTES];
    let (id, medium, problems) = tried.step("write", || {
        // Of a test that was killed.
        store.remove_many(&left).into_iter().collect::<Result<()>>()?;
        let id = SnapshotId::new(&name, host.now).context("a node name")?;
        let scratch = Scratch::new(&host.download_dir())?;
        let file = scratch.path().join(id.file_name());
        fs::write(&file, &content)?;
        let placed = store.put(&file, &id)?;
        Ok(((id, placed.medium, placed.problems), None))
    })?;
    tried.medium = medium;
    tried.problems = problems;

    let read = tried.step("read", || {
        let listed = store.list(Some(&name))?;
        ensure!(
            listed.iter().any(|found| found.id == id),
            "store '{}': does not list what it has",
            store.name()
        );
        let fetched = store.get(&id)?;
        ensure!(fs::read(fetched.path())? == content, "store '{}': gives back other bytes", store.name());
        Ok(((), None))
    });
    tried.step("remove", || {
        store.remove(&id)?;
        let listed = store.list(Some(&name))?;
        ensure!(
            listed.iter().all(|found| found.id != id),
            "store '{}': still lists what was removed",
            store.name()
        );
        Ok(((), None))
    })?;
    read
}
