//! The name of a new snapshot: its time is above every one that was given before, whatever the clock says.

use anyhow::{Context, Result};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::model::problem::{Fault, Problem};
use crate::model::snapshot::{Parent, SnapshotId};
use crate::store::Store;
use crate::sys::host::Host;
use crate::sys::json_file::JsonFile;
use crate::task::snapshots;

const FILE: &str = "last-name.json";
const FILE_MAX_BYTES: u64 = 4096;
/// Several runs in one second, and a clock that is set, are no reason to speak.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);

/// The newest name that this host has given.
#[derive(Serialize, Deserialize)]
struct LastName {
    id: SnapshotId,
}

fn file(host: &Host) -> JsonFile<LastName> {
    JsonFile::new(&host.state_dir(), FILE, FILE_MAX_BYTES)
}

/// Chooses the name of a new snapshot, and finds the newest one before it in the primary store, the first.
/// Errors: that store cannot be listed; the host's name cannot name a snapshot; there is no later time.
pub fn next(
    host: &Host,
    stores: &[Box<dyn Store>],
    problems: &mut Vec<Problem>,
) -> Result<(SnapshotId, Option<Parent>)> {
    let node = &host.facts.node;
    let now = SnapshotId::new(node, host.now)
        .with_context(|| format!("the host name '{node}' cannot be used for a snapshot"))?;
    let (primary, others) = stores.split_first().context("no store is configured")?;
    let found = primary.list(Some(node))?;
    let own = found.iter().filter(|found| found.stray.is_none()).map(|found| &found.id);
    let before = own.max().cloned();

    // One that is kept nowhere any more was given, too: a copy of it may lie on a stick.
    let given = given(host, others).into_iter().filter(|id| id.host() == node);
    let newest = given.chain(before.clone()).max();
    let mut id = newest.as_ref().filter(|newest| **newest >= now).map_or(now.clone(), SnapshotId::next);
    while found.iter().any(|found| found.id == id) && id.next() != id {
        id = id.next();
    }

    if let Some(newest) = newest.filter(|newest| *newest >= now) {
        if id <= newest {
            let message = format!("no snapshot can be newer than {newest}");
            let hint = "that time is wrong: remove the snapshot, or move it out of the store";
            return Err(Fault::failed(message).hint(hint).into());
        }
        if newest.at().duration_since(now.at()) > AHEAD_MAX {
            let what = format!("the clock says {}, but the newest snapshot is {newest}", now.at());
            let hint = "set the clock; until then snapshots are named by the second after the newest";
            problems.push(Problem::warning(what).hint(hint));
        }
    }
    Ok((id, before.and_then(|before| parent(primary.as_ref(), before, problems))))
}

/// The newest name that was given, as the state directory knows it; a host that was installed again asks the stores
/// beside the primary one. One that does not answer is told of when the snapshot is stored.
fn given(host: &Host, others: &[Box<dyn Store>]) -> Vec<SnapshotId> {
    match file(host).read() {
        Ok(Some(last)) => vec![last.id],
        _ => {
            let found = others.iter().filter_map(|store| store.list(Some(&host.facts.node)).ok()).flatten();
            found.filter(|found| found.stray.is_none()).map(|found| found.id).collect()
        }
    }
}

fn parent(primary: &dyn Store, before: SnapshotId, problems: &mut Vec<Problem>) -> Option<Parent> {
    match snapshots::head(primary, &before) {
        Ok(head) => Some(Parent { id: before, sha256: head.manifest_sha256 }),
        Err(error) => {
            problems.push(Problem::warning(format!("the snapshot before this one is damaged: {error:#}")));
            None
        }
    }
}

/// Remembers a name before it is seen anywhere. Where the state directory cannot be written, the stores are what is
/// known of names.
pub fn remember(host: &Host, id: &SnapshotId) {
    if host.own_state_dir().is_some()
        && let Err(error) = file(host).write(&LastName { id: id.clone() })
    {
        log::info!("{error:#}");
    }
}
