//! Check that what `--node`, `--storage` and `--bridge` name is there: a word that meets nothing is a typing error.
//! Not here: what becomes of the names (`references`).

use std::collections::BTreeSet;

use super::references::Moves;
use crate::catalog::objects::NODES;
use crate::model::index::Name;
use crate::model::nearest::nearest;
use crate::model::problem::{Fault, FaultKind};
use crate::plan::restore::guest_conf::{self, NamedFile};
use crate::plan::restore::objects::object_names::guest_id;
use crate::plan::restore::{Advice, HostState, RestoreRequest, SelectedEntries};

/// The item that storages and bridges are named in.
const GUESTS: &str = "pve-guests";

/// The node of a path below `etc/pve/nodes`.
pub fn node_of(path: &Name) -> Option<&str> {
    let rest = std::str::from_utf8(path.as_bytes()).ok()?.strip_prefix(NODES)?;
    rest.split('/').next().filter(|node| !node.is_empty())
}

/// Errors: `Usage` for an old name that the snapshot does not have, and for a new one that no node here has.
pub fn check_nodes(picked: &SelectedEntries, here: &HostState, moves: &Moves) -> Result<(), Fault> {
    let mut there: BTreeSet<&str> =
        picked.folders.keys().chain(picked.contents.keys()).filter_map(node_of).collect();
    there.insert(&picked.facts.node);

    let mut live: BTreeSet<&str> = here.live.keys().filter_map(node_of).collect();
    live.extend(here.facts.cluster.iter().flat_map(|cluster| cluster.nodes.iter().map(String::as_str)));
    live.insert(&here.facts.node);
    for (old, new) in &moves.nodes {
        let known = |word: &str, names: &BTreeSet<&str>, place: &str| {
            if names.contains(word) {
                return Ok(());
            }
            let names: Vec<&str> = names.iter().copied().collect();
            let hint = nearest(word, &names).map_or_else(
                || format!("the nodes {place} are: {}", names.join(", ")),
                |near| format!("did you mean '{near}'?"),
            );
            let what = format!("--node {old}={new}: there is no node '{word}' {place}");
            Err(Fault::new(FaultKind::Usage, what).hint(hint))
        };
        known(old, &there, "in the snapshot")?;
        known(new, &live, "here")?;
    }
    Ok(())
}

/// Returns advice on names of `--storage` and `--bridge` that no wanted guest uses.
pub fn unmet(picked: &SelectedEntries, request: &RestoreRequest) -> Vec<Advice> {
    let wanted: BTreeSet<&Name> = picked.wanted.iter().map(|selected| &selected.entry.path).collect();
    let is_wanted = |path: &Name| {
        let id = std::str::from_utf8(path.as_bytes()).ok().and_then(guest_id);
        let is_object = |id: &str| request.objects.iter().any(|word| word.rsplit('/').next() == Some(id));
        id.is_some_and(|id| wanted.contains(path) || is_object(&id))
    };
    let guests = picked.contents.iter().filter(|(path, _)| is_wanted(path));
    let texts: Vec<&str> = guests.filter_map(|(_, text)| std::str::from_utf8(text).ok()).collect();
    let (mut storages, mut bridges) = (BTreeSet::new(), BTreeSet::new());

    for text in texts {
        for named in guest_conf::entries(text).iter().flat_map(guest_conf::GuestConfEntry::names) {
            match named {
                NamedFile::Bridge(at) => bridges.insert(&text[at]),
                NamedFile::Disk { storage, .. } | NamedFile::File { storage, .. } => {
                    storages.insert(&text[storage])
                }
            };
        }
    }

    let mut told = Vec::new();
    for (option, pairs, names) in
        [("--storage", &request.storage, storages), ("--bridge", &request.bridge, bridges)]
    {
        let names: Vec<&str> = names.into_iter().collect();
        for (old, new) in pairs.iter().filter(|(old, _)| !names.contains(&old.as_str())) {
            let text = format!("{option} {old}={new} changes nothing: no restored guest uses '{old}'");
            let text = match nearest(old, &names) {
                Some(near) => format!("{text}; did you mean '{near}'?"),
                None if names.is_empty() => text,
                None => format!("{text}; they use {}", names.join(", ")),
            };
            told.push(Advice { item: GUESTS.to_owned(), text, commands: Vec::new() });
        }
    }
    told
}
