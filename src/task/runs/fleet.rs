//! `status --fleet`: all hosts that the stores have, by the newest manifest of each.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::model::problem::Problem;
use crate::model::snapshot::{Snapshot, SnapshotId};
use crate::plan::fleet::{self, FleetHost, Reported};
use crate::plan::status::Level;
use crate::store::{FoundFile, Store};
use crate::task::{error, snapshots};

/// The number of a host's snapshots that are looked at for a complete one that can be read.
const TRIES: usize = 5;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fleet {
    pub level: Level,
    pub now: Timestamp,
    pub members: Vec<FleetHost>,
    pub problems: Vec<Problem>,
}

/// Reads a listing of each store and one manifest of each host. A store that cannot be reached is critical; errors
/// when none can.
pub fn fleet(stores: &[Box<dyn Store>], now: Timestamp, max_age: SignedDuration) -> Result<Fleet> {
    let mut hosts: BTreeMap<String, Reported> = BTreeMap::new();
    let (mut problems, mut reached, mut unreached) = (Vec::new(), 0, None);
    for store in stores {
        match store.list(None) {
            Ok(found) => {
                reached += 1;
                look(store.as_ref(), found, &mut hosts, &mut problems);
            }
            Err(error) => {
                problems.push(error::error(&error));
                unreached = Some(error);
            }
        }
    }

    if let Some(error) = unreached.filter(|_| reached == 0) {
        return Err(error);
    }
    let reported: Vec<Reported> = hosts.into_values().collect();
    let members = fleet::judge(&reported, now, max_age);
    let away = if reached < stores.len() { Level::Critical } else { Level::Ok };
    let level = members.iter().map(|member| member.level).max().unwrap_or(Level::Critical).max(away);
    Ok(Fleet { level, now, members, problems })
}

/// Adds what a store has of each host; the newest of all stores counts.
fn look(
    store: &dyn Store,
    found: Vec<FoundFile>,
    hosts: &mut BTreeMap<String, Reported>,
    problems: &mut Vec<Problem>,
) {
    let mut by_host: BTreeMap<String, Vec<FoundFile>> = BTreeMap::new();
    for one in found {
        by_host.entry(one.id.host().to_owned()).or_default().push(one);
    }
    by_host.values_mut().for_each(|all| all.sort_unstable_by(|a, b| b.id.cmp(&a.id)));

    let newest: Vec<FoundFile> = by_host.values().filter_map(|all| all.first().cloned()).collect();
    let heads = snapshots::heads(store, &newest);
    for ((host, all), head) in by_host.into_iter().zip(heads) {
        let head = head.inspect_err(|error| problems.push(Problem::warning(format!("{error:#}"))));
        let first = head.ok().map(|head| head.snapshot).filter(is_whole);
        let snapshot = first.or_else(|| further(store, &all[1..]));
        let known = hosts.entry(host.clone()).or_insert_with(|| Reported {
            host,
            snapshots: 0,
            stores: Vec::new(),
            newest: None,
        });
        known.snapshots = known.snapshots.max(all.len());
        known.stores.push(store.name().to_owned());
        let at = |one: &Option<Snapshot>| one.as_ref().map(|snapshot| snapshot.id.at());
        if at(&snapshot) > at(&known.newest) {
            known.newest = snapshot;
        }
    }
}

fn is_whole(snapshot: &Snapshot) -> bool {
    snapshot.selection.is_empty()
}

fn further(store: &dyn Store, older: &[FoundFile]) -> Option<Snapshot> {
    let ids = older.iter().take(TRIES).map(|found| &found.id);
    let read = |id: &SnapshotId| snapshots::head(store, id).ok().map(|head| head.snapshot);
    ids.filter_map(read).find(is_whole)
}
