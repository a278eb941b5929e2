//! The chain of parents: each manifest names the one before it and its hash. What it can show: that a snapshot was
//! replaced by another, and that one is gone from stores that keep all. What it cannot: that the newest ones are gone,
//! for nothing is behind them that names them, nor whether retention or somebody took one that retention may take.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::snapshot::{Parent, SnapshotId};

/// A snapshot of one store, as its manifest tells.
#[derive(Debug, Clone)]
pub struct Link {
    pub store: String,
    pub id: SnapshotId,
    pub parent: Option<Parent>,
    /// Over its manifest; None when that cannot be read.
    pub sha256: Option<String>,
    /// Its store removes nothing.
    pub keeps_all: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Break {
    /// The snapshot in this store under the parent's name is not the one that the child names.
    Replaced,
    /// The snapshot is in no store, though an older one is there and the child's store keeps all.
    Gone,
}

/// Returns the places where chains are broken: the store, the child, its parent, and the kind of break.
pub fn breaks(links: &[Link]) -> Vec<(&str, &SnapshotId, &SnapshotId, Break)> {
    let mut there: BTreeSet<&SnapshotId> = BTreeSet::new();
    let mut hashes: BTreeMap<(&str, &SnapshotId), &str> = BTreeMap::new();
    for link in links {
        there.insert(&link.id);
        if let Some(sha256) = &link.sha256 {
            hashes.insert((&link.store, &link.id), sha256);
        }
    }

    let older = |than: &SnapshotId| there.iter().any(|id| id.host() == than.host() && id.at() < than.at());
    let mut broken = Vec::new();
    for link in links {
        let Some(parent) = &link.parent else { continue };
        let how = match hashes.get(&(link.store.as_str(), &parent.id)) {
            Some(hash) if *hash != parent.sha256 => Break::Replaced,
            None if link.keeps_all && !there.contains(&parent.id) && older(&parent.id) => Break::Gone,
            _ => continue,
        };
        broken.push((link.store.as_str(), &link.id, &parent.id, how));
    }
    broken
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(day: u8) -> SnapshotId {
        format!("pve1/2026-11-{day:02}T00:00:00Z").parse().unwrap()
    }

    /// Three days in a row in a store; the hash of a day is the day.
    fn chain(keeps_all: bool) -> Vec<Link> {
        let parent = |day: u8| (day > 1).then(|| Parent { id: id(day - 1), sha256: (day - 1).to_string() });
        let link = |day: u8| Link {
            store: "local".into(),
            id: id(day),
            parent: parent(day),
            sha256: Some(day.to_string()),
            keeps_all,
        };
        (1..=3).map(link).collect()
    }

    fn told(links: &[Link]) -> Vec<String> {
        let line = |(store, child, parent, how): (&str, &SnapshotId, &SnapshotId, Break)| {
            format!("{store} {} {} {how:?}", child.at().strftime("%d"), parent.at().strftime("%d"))
        };
        breaks(links).into_iter().map(line).collect()
    }

    #[test]
    fn a_whole_chain_and_one_whose_oldest_went_are_not_broken() {
        assert!(told(&chain(true)).is_empty());
        assert!(told(&chain(true)[1..]).is_empty());
    }

    #[test]
    fn a_link_that_was_replaced_shows_wherever_it_stands() {
        for keeps_all in [true, false] {
            let mut links = chain(keeps_all);
            links[0].sha256 = Some("other".into());
            assert_eq!(told(&links), ["local 02 01 Replaced"]);
        }
    }

    #[test]
    fn a_link_that_is_gone_shows_where_nothing_may_go() {
        let without = |keeps_all| {
            let mut links = chain(keeps_all);
            links.remove(1);
            links
        };
        assert_eq!(told(&without(true)), ["local 03 02 Gone"]);
        assert!(told(&without(false)).is_empty(), "retention may have taken it");
        // Another store still has it: it was away that night.
        let mut links = without(true);
        links.push(Link { store: "nas".into(), ..chain(true)[1].clone() });
        assert!(told(&links).is_empty(), "{:?}", told(&links));
    }
}
