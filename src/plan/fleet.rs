//! State of the backups of many hosts in one store: each by its newest snapshot, and the members of their clusters
//! that never sent one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::status::{Level, age, late};
use crate::model::problem::Outcome;
use crate::model::snapshot::{Snapshot, UNCHANGED_MAX};

/// A host that stores have snapshots of.
#[derive(Debug, Clone)]
pub struct Reported {
    pub host: String,
    pub snapshots: usize,
    /// Those that have any of it.
    pub stores: Vec<String>,
    /// The manifest of its newest whole one; None when none can be read.
    pub newest: Option<Snapshot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FleetHost {
    pub host: String,
    pub cluster: Option<String>,
    pub last: Option<Timestamp>,
    pub outcome: Option<Outcome>,
    pub snapshots: usize,
    pub stores: Vec<String>,
    pub level: Level,
    pub why: String,
}

/// Every host, and every member of a cluster that is none of them, by name.
pub fn judge(reported: &[Reported], now: Timestamp, max_age: SignedDuration) -> Vec<FleetHost> {
    let clusters = clusters(reported);
    let mut members: BTreeMap<String, FleetHost> =
        reported.iter().map(|one| (one.host.clone(), member(one, &clusters, now, max_age))).collect();

    for cluster in &clusters {
        for node in &cluster.members {
            members.entry(node.clone()).or_insert_with(|| FleetHost {
                host: node.clone(),
                cluster: Some(cluster.name.clone()),
                last: None,
                outcome: None,
                snapshots: 0,
                stores: Vec::new(),
                level: Level::Critical,
                why: format!("has no snapshot, though it is a node of cluster {}", cluster.name),
            });
        }
    }
    members.into_values().collect()
}

fn member(one: &Reported, clusters: &[Cluster], now: Timestamp, max_age: SignedDuration) -> FleetHost {
    let last = one.newest.as_ref().map(|snapshot| snapshot.id.at());
    let cluster = one.newest.as_ref().and_then(|snapshot| snapshot.cluster.as_ref());

    let left = clusters
        .iter()
        .find(|known| cluster.is_some_and(|own| known.is(own)))
        .filter(|known| !known.members.contains(&one.host));
    let (level, why) = match (&one.newest, left) {
        (None, _) => (Level::Critical, "none of its manifests can be read".to_owned()),
        (Some(_), Some(cluster)) => (Level::Ok, format!("no longer a node of cluster {}", cluster.name)),
        // A host that is late is what the question is after.
        (Some(snapshot), None) if is_late(snapshot, now, max_age) => {
            (Level::Critical, format!("late: {} old", age(now, snapshot.id.at())))
        }
        (Some(snapshot @ Snapshot { outcome: Outcome::Ok, .. }), None)
            if late(now.duration_since(snapshot.id.at()), max_age).is_some() =>
        {
            (Level::Ok, format!("ok: nothing changed, or no run, for {}", age(now, snapshot.id.at())))
        }
        (Some(Snapshot { outcome: Outcome::Ok, .. }), None) => (Level::Ok, "ok".to_owned()),
        (Some(_), None) => (Level::Warning, "with problems".to_owned()),
    };

    FleetHost {
        host: one.host.clone(),
        cluster: cluster.map(|cluster| cluster.name.clone()),
        last,
        outcome: one.newest.as_ref().map(|snapshot| snapshot.outcome),
        snapshots: one.snapshots,
        stores: one.stores.clone(),
        level,
        why,
    }
}

/// A host that skips what is unchanged has a new snapshot after `UNCHANGED_MAX` at the latest; nothing in a store tells
/// sooner that it runs no more.
fn is_late(snapshot: &Snapshot, now: Timestamp, max_age: SignedDuration) -> bool {
    let unchanged = if snapshot.skips_unchanged { UNCHANGED_MAX } else { SignedDuration::ZERO };
    late(now.duration_since(snapshot.id.at()), max_age.saturating_add(unchanged)).is_some()
}

/// A cluster as its newest manifest tells it. Two of one name are told apart by their nodes.
struct Cluster {
    name: String,
    members: BTreeSet<String>,
    /// All nodes that its manifests ever named, as far as they hang together.
    ever: BTreeSet<String>,
}

impl Cluster {
    fn is(&self, other: &crate::model::facts::Cluster) -> bool {
        self.name == other.name && other.nodes.iter().any(|node| self.ever.contains(node))
    }
}

fn clusters(reported: &[Reported]) -> Vec<Cluster> {
    let mut manifests: Vec<&Snapshot> = reported.iter().filter_map(|one| one.newest.as_ref()).collect();
    manifests.sort_by(|a, b| b.id.cmp(&a.id));
    let mut clusters: Vec<Cluster> = Vec::new();
    for own in manifests.iter().filter_map(|manifest| manifest.cluster.as_ref()) {
        if let Some(known) = clusters.iter_mut().find(|known| known.is(own)) {
            known.ever.extend(own.nodes.iter().cloned());
            continue;
        }
        let members: BTreeSet<String> = own.nodes.iter().cloned().collect();
        clusters.push(Cluster { name: own.name.clone(), ever: members.clone(), members });
    }
    clusters
}
