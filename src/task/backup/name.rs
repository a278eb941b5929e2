//! The name of a new snapshot: its time is above every one that was given before, whatever the clock says.

use std::collections::HashSet;

use anyhow::{Context, Result};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::model::problem::{Fault, Problem};
use crate::model::snapshot::{Parent, SnapshotId};
use crate::store::Store;
use crate::sys::host::Host;
use crate::sys::json_file::JsonFile;
use crate::task::runs::prune::NAMES_AHEAD;
use crate::task::snapshots;

const FILE: &str = "last-name.json";
const FILE_MAX_BYTES: u64 = 4096;
/// A name that is further ahead of the clock is itself the wrong one, when older ones are not ahead.
const WRONG_AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The newest name that this host has given.
#[derive(Serialize, Deserialize)]
struct LastName {
    id: SnapshotId,
}

fn file(host: &Host) -> JsonFile<'_, LastName> {
    JsonFile::new(host, FILE, FILE_MAX_BYTES)
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
    let mut names: Vec<SnapshotId> =
        found.iter().filter(|found| found.stray.is_none()).map(|found| found.id.clone()).collect();
    names.extend(given(host, others).into_iter().filter(|id| id.host() == node));
    let mut id = above(&names, &now);
    let taken: HashSet<&SnapshotId> = found.iter().map(|found| &found.id).collect();
    while taken.contains(&id) && id.next() != id {
        id = id.next();
    }

    if names.contains(&id) {
        let message = format!("no snapshot can be newer than {id}");
        let hint = "its time is wrong: remove it, or move it out of the store";
        return Err(Fault::failed(message).hint(hint).into());
    }
    if let Some(newest) = names.iter().max().filter(|newest| newest.at() > now.at() + NAMES_AHEAD) {
        let what = format!("the clock says {}, but the newest snapshot is {newest}", now.at());
        let hint = format!("set the clock, or move that snapshot out of the store; this one is {id}");
        problems.push(Problem::warning(what).hint(hint));
    }
    Ok((id, before.and_then(|before| parent(primary.as_ref(), before, problems))))
}

/// Returns the first name from `now` on that is above the names that were given.
fn above(names: &[SnapshotId], now: &SnapshotId) -> SnapshotId {
    let is_wrong = |id: &&SnapshotId| id.at().duration_since(now.at()) > WRONG_AHEAD;
    let clock_is_known = names.iter().any(|id| id <= now);
    let newest = names.iter().filter(|id| !(clock_is_known && is_wrong(id))).max();
    newest.filter(|newest| *newest >= now).map_or_else(|| now.clone(), SnapshotId::next)
}

/// The newest name that was given, as the state directory knows it; a host that was installed again asks the stores
/// beside the primary one. One that does not answer is told of when the snapshot is stored.
fn given(host: &Host, others: &[Box<dyn Store>]) -> Vec<SnapshotId> {
    if let Ok(Some(last)) = file(host).read() {
        return vec![last.id];
    }
    let found = others.iter().filter_map(|store| store.list(Some(&host.facts.node)).ok()).flatten();
    found.filter(|found| found.stray.is_none()).map(|found| found.id).collect()
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
    if let Err(error) = file(host).write(&LastName { id: id.clone() }) {
        log::info!("{error:#}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_follows_the_newest_unless_that_one_is_wrong() {
        let id = |at: &str| format!("a/{at}").parse::<SnapshotId>().unwrap();
        let now = "2026-11-22T12:00:00Z";
        for (names, should) in [
            (&[][..], now),
            (&["2026-11-22T11:00:00Z"], now),
            (&[now], "2026-11-22T12:00:01Z"),
            (&["2026-11-22T12:30:00Z"], "2026-11-22T12:30:01Z"),
            // The battery was empty: all are ahead.
            (&["2031-01-01T00:00:00Z", "2030-01-01T00:00:00Z"], "2031-01-01T00:00:01Z"),
            // One run had a wrong clock.
            (&["2026-11-21T12:00:00Z", "2031-01-01T00:00:00Z"], now),
            (
                &["2026-11-21T12:00:00Z", "2026-11-22T13:00:00Z", "2031-01-01T00:00:00Z"],
                "2026-11-22T13:00:01Z",
            ),
        ] {
            let names: Vec<SnapshotId> = names.iter().map(|at| id(at)).collect();
            assert_eq!(above(&names, &id(now)), id(should), "{names:?}");
        }
    }
}
