//! Retention of this host's snapshots, store by store: plan, show, do. What an admin confirmed is kept in a small
//! file: machines whose snapshots were taken over, and the snapshot whose smaller size was accepted.

use anyhow::{Context, Result};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{installation, records, status};
use crate::model::keep::Keep;
use crate::model::problem::{Fault, Problem};
use crate::model::record::StoreResult;
use crate::model::snapshot::SnapshotId;
use crate::plan::prune::{self, Candidate, Marked};
use crate::store::Store;
use crate::sys::host::Host;
use crate::sys::json_file::JsonFile;
use crate::sys::process::lock::Lock;
use crate::sys::process::signals::check_stopped;
use crate::task::{error, snapshots};

const CONFIRMED: &str = "confirmed.json";
const CONFIRMED_MAX_BYTES: u64 = 1 << 20;
/// Names of seconds to come: of several runs in a second, and after a clock was set.
pub const NAMES_AHEAD: SignedDuration = SignedDuration::from_mins(5);
const DAMAGED: &str = "damaged, as its last verification found";

/// The confirmations of an admin on this host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Confirmed {
    /// Machine ids whose snapshots of this host's name count as its own.
    pub adopted: Vec<String>,
    /// The first snapshot that later ones are measured against.
    pub accepted: Option<SnapshotId>,
}

impl Confirmed {
    fn file(host: &Host) -> JsonFile<'_, Self> {
        JsonFile::new(host, CONFIRMED, CONFIRMED_MAX_BYTES)
    }

    /// Errors when the file is there and cannot be understood: then nothing may be removed.
    pub fn load(host: &Host) -> Result<Self> {
        Ok(Self::file(host).read()?.unwrap_or_default())
    }

    fn save(&self, host: &Host) -> Result<()> {
        Self::file(host).write_pretty(self)
    }
}

/// The plan of retention on one store.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PrunePlan {
    pub store: String,
    pub keep: Keep,
    /// False: it could not be looked at, and the problems tell why.
    pub reached: bool,
    /// Newest first.
    pub snapshots: Vec<Marked>,
    /// Why nothing is removed, although the numbers say so.
    pub frozen: Option<String>,
    pub problems: Vec<Problem>,
}

impl PrunePlan {
    pub fn removed(&self) -> impl Iterator<Item = &Marked> {
        let frozen = self.frozen.is_some();
        self.snapshots.iter().filter(move |one| !one.keep && !frozen)
    }
}

/// Looks at what the store has of this host.
/// Errors: the store cannot be listed, what was confirmed cannot be read.
pub fn plan(host: &Host, store: &dyn Store, keep: Keep, zone: &TimeZone) -> Result<PrunePlan> {
    let confirmed = Confirmed::load(host)?;
    let mut problems = Vec::new();
    let mut candidates = Vec::new();
    let damaged = status::damaged(store.name(), &records::all(host)?);
    let found = store.list(Some(&host.facts.node))?;
    let heads = snapshots::heads(store, &found);
    check_stopped()?;
    for (found, head) in found.into_iter().zip(heads) {
        let head = head.inspect_err(|error| problems.push(Problem::warning(format!("{error:#}"))));
        let snapshot = head.ok().map(|head| head.snapshot);
        // What was found to be damaged never takes the place of a good one; it stays for an admin to look at.
        let back = found.held_back().or_else(|| damaged.contains(&found.id).then_some(DAMAGED));
        candidates.push(Candidate { id: found.id, snapshot, held: back });
    }

    let installation = installation::id(host);
    let ours = installation::ours(host, installation.as_deref(), &confirmed.adopted);
    let snapshots = prune::prune(&candidates, &keep, ours, zone);
    let foreign =
        candidates.iter().filter_map(|one| one.snapshot.as_ref()).filter(|one| !ours.has(one)).count();
    if foreign > 0 && !keep.keeps_all() {
        let what = format!(
            "store '{}': {foreign} snapshots of {} are of another machine and are kept",
            store.name(),
            host.facts.node
        );
        problems.push(
            Problem::notice(what)
                .hint("if this host was reinstalled: `pbx-config store adopt` takes them over"),
        );
    }

    let mut frozen = None;
    if snapshots.iter().any(|one| !one.keep) {
        let now = host.now + NAMES_AHEAD;
        let nothing = format!("store '{}': nothing is removed, because", store.name());
        if let Some(why) = prune::ahead(&candidates, ours, now) {
            problems.push(Problem::warning(format!("{nothing} {why}")).hint(
                "set the clock; if it is right, the snapshot was made with a wrong clock: move its file out of the store",
            ));
            frozen = Some(why);
        } else if let Some(why) = prune::shrunk(&candidates, ours, confirmed.accepted.as_ref()) {
            let what = format!("{nothing} the host seems to have lost many files: {why}");
            problems.push(
                Problem::warning(what)
                    .hint("check what is missing; if that is intended: `pbx-config prune --accept`"),
            );
            frozen = Some(why);
        }
    }

    let store = store.name().to_owned();
    Ok(PrunePlan { store, keep, reached: true, snapshots, frozen, problems })
}

/// Every store with its plan; one that cannot be looked at is told in its own, and does not keep the others from
/// theirs. Errors: none can, what was confirmed cannot be read, a stop.
pub fn plans(host: &Host, stores: &[(Box<dyn Store>, Keep)], zone: &TimeZone) -> Result<Vec<PrunePlan>> {
    Confirmed::load(host)?;
    each(
        stores.iter(),
        |(store, keep)| plan(host, store.as_ref(), *keep, zone),
        |(store, keep), problem| PrunePlan {
            store: store.name().to_owned(),
            keep: *keep,
            reached: false,
            snapshots: Vec::new(),
            frozen: None,
            problems: vec![problem],
        },
    )
}

/// Calls `look` on each store; for a store where it fails, `or` makes the result from the problem. Errors: it fails
/// on every store; a stop.
pub fn each<S, T>(
    stores: impl Iterator<Item = S>,
    look: impl Fn(&S) -> Result<T>,
    or: impl Fn(&S, Problem) -> T,
) -> Result<Vec<T>> {
    let (mut all, mut reached, mut last) = (Vec::new(), false, None);
    for store in stores {
        all.push(match look(&store) {
            Ok(found) => {
                reached = true;
                found
            }
            Err(error) => {
                check_stopped()?;
                let told = or(&store, error::error(&error));
                last = Some(error);
                told
            }
        });
    }

    match last {
        Some(error) if !reached => Err(error),
        _ => Ok(all),
    }
}

/// Removes what the plan says; what could not be removed is a problem. Returns what is really gone.
pub fn carry_out(store: &dyn Store, plan: &PrunePlan, _: &Lock) -> (Vec<SnapshotId>, Vec<Problem>) {
    let (mut gone, mut problems) = (Vec::new(), Vec::new());
    let ids: Vec<SnapshotId> = plan.removed().map(|marked| marked.id.clone()).collect();
    let removed = store.remove_many(&ids);
    for (id, removed) in ids.into_iter().zip(removed) {
        match removed {
            Ok(()) => gone.push(id),
            Err(error) => problems.push(Problem::warning(format!("{error:#}"))),
        }
    }
    (gone, problems)
}

/// The result of retention on one store.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Done {
    #[serde(flatten)]
    pub plan: PrunePlan,
    pub removed: Vec<SnapshotId>,
}

impl Done {
    pub fn kept(&self) -> usize {
        self.plan.snapshots.len() - self.removed.len()
    }

    /// Returns the result as it is recorded.
    pub fn place(&self) -> StoreResult {
        let (kept, removed) = (self.plan.reached.then(|| self.kept()), self.removed.len());
        StoreResult { store: self.plan.store.clone(), primary: false, place: None, kept, removed }
    }
}

/// Every store with its plan, and done. `accept` makes the newest snapshot the measure first.
/// Errors: as `plans`.
pub fn run(
    host: &Host,
    stores: &[(Box<dyn Store>, Keep)],
    zone: &TimeZone,
    accept: bool,
    show: &dyn Fn(&PrunePlan),
) -> Result<Vec<Done>> {
    let lock = Lock::acquire(&host.run_dir())?;
    if accept {
        accept_newest(host, stores)?;
    }
    let mut all = Vec::new();
    for ((store, _), mut plan) in stores.iter().zip(plans(host, stores, zone)?) {
        show(&plan);
        let (removed, problems) = carry_out(store.as_ref(), &plan, &lock);
        plan.problems.extend(problems);
        all.push(Done { plan, removed });
    }
    Ok(all)
}

/// Accepts the newest snapshot of the stores that answer; the plans report the others.
fn accept_newest(host: &Host, stores: &[(Box<dyn Store>, Keep)]) -> Result<()> {
    let mut confirmed = Confirmed::load(host)?;
    let list = |(store, _): &&(Box<dyn Store>, Keep)| store.list(Some(&host.facts.node));
    let found = each(stores.iter(), list, |_, _| Vec::new())?;
    let found = found.into_iter().flatten().filter(|found| found.stray.is_none());
    let newest = found.map(|found| found.id).max();
    let newest = newest.with_context(|| Fault::not_found("there are no snapshots"))?;
    confirmed.accepted = Some(newest);
    confirmed.save(host)
}

/// Machine ids that are new, with how many snapshots each.
pub type Adopted = Vec<(String, usize)>;

/// Takes over the snapshots that stores have under this host's name from another machine, and tells which stores did
/// not answer. Errors: none did.
pub fn adopt(host: &Host, stores: &[Box<dyn Store>]) -> Result<(Adopted, Vec<Problem>)> {
    let _lock = Lock::acquire(&host.run_dir())?;
    let mut confirmed = Confirmed::load(host)?;
    let mut adopted: Adopted = Vec::new();
    let machines = |store: &&dyn Store| -> Result<(Vec<String>, Vec<Problem>)> {
        let found = store.list(Some(&host.facts.node))?;
        let (mut machines, mut problems) = (Vec::new(), Vec::new());
        for head in snapshots::heads(*store, &found) {
            match head {
                Ok(head) => machines.extend(head.snapshot.machine_id.or(head.snapshot.installation)),
                Err(error) => problems.push(error::warning(&error)),
            }
        }
        Ok((machines, problems))
    };
    let looked = each(stores.iter().map(AsRef::as_ref), machines, |_, problem| (Vec::new(), vec![problem]))?;
    check_stopped()?;

    let (machines, problems): (Vec<_>, Vec<_>) = looked.into_iter().unzip();
    let known = |id: &String| Some(id) == host.facts.machine_id.as_ref() || confirmed.adopted.contains(id);
    for id in machines.into_iter().flatten().filter(|id| !known(id)) {
        match adopted.iter_mut().find(|(known, _)| *known == id) {
            Some((_, count)) => *count += 1,
            None => adopted.push((id, 1)),
        }
    }

    if !adopted.is_empty() {
        confirmed.adopted.extend(adopted.iter().map(|(id, _)| id.clone()));
        confirmed.save(host)?;
    }
    Ok((adopted, problems.into_iter().flatten().collect()))
}
