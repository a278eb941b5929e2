//! Doubts about who made a snapshot: where a host signs its snapshots, one that it did not sign is told.

use std::collections::BTreeSet;

use anyhow::Result;

use super::ChosenSnapshot;
use crate::archive::reader::{self, SIGNED_HEAD_BYTES};
use crate::model::problem::Problem;
use crate::model::snapshot::{Snapshot, SnapshotId};
use crate::model::units::counted;
use crate::store::Store;
use crate::sys::host::Host;
use crate::task::keys;
use crate::task::runs::installation;

/// The number of snapshots of the same host that a snapshot is compared with, the nearest in time.
const NEIGHBOURS: usize = 5;
const HINT: &str = "`pbx-config verify SNAP --signer FILE` compares it with a key that you know; take another \
                    snapshot if you do not know why";

/// Returns the reason to doubt that a snapshot was made by the host that it names: it is not signed, or by another key
/// than its neighbours in the store, or than that of this host, when it is of this host and this host signs.
/// None: there is no such reason. Errors: the snapshot cannot be read.
pub fn doubt(
    host: &Host,
    signs: bool,
    store: Option<&dyn Store>,
    chosen: &ChosenSnapshot,
) -> Result<Option<Problem>> {
    let archive = chosen.open()?;
    if archive.old.is_some() {
        return Ok(None);
    }

    let (snapshot, signer) = (archive.snapshot(), archive.signed_by.as_deref());
    let own = keys::own_signer(host).filter(|_| signs && is_of(host, snapshot));
    if own.is_some() && own.as_deref() == signer {
        return Ok(None);
    }
    let neighbours = match store.map(|store| signers(store, &snapshot.id)).transpose() {
        Ok(neighbours) => neighbours.unwrap_or_default(),
        Err(error) => {
            let what = format!("{}: its signature cannot be compared with others: {error:#}", snapshot.id);
            return Ok(Some(Problem::warning(what).hint(HINT)));
        }
    };
    let known: BTreeSet<&str> = neighbours.iter().map(String::as_str).collect();
    let by = match signer {
        None if neighbours.is_empty() && own.is_none() => return Ok(None),
        Some(signer) if own.is_none() && (known.is_empty() || known.contains(signer)) => return Ok(None),
        None => "is not signed".to_owned(),
        Some(signer) => format!("is signed by {signer}"),
    };

    let mut others: Vec<String> = own.iter().map(|own| format!("this host signs with {own}")).collect();
    if !known.is_empty() {
        let keys: Vec<&str> = known.into_iter().collect();
        let of = counted(neighbours.len(), "neighbour");
        others.push(format!("{of} of it in the store signed by {}", keys.join(", ")));
    }
    Ok(Some(Problem::warning(format!("{} {by}; {}", snapshot.id, others.join("; "))).hint(HINT)))
}

/// Reports whether a snapshot says that it is of this very installation.
fn is_of(host: &Host, snapshot: &Snapshot) -> bool {
    let installation = installation::id(host);
    snapshot.id.host() == host.facts.node
        && installation::ours(host, installation.as_deref(), &[]).has(snapshot)
}

/// Returns who signed the nearest neighbours of a snapshot, of each that is signed. A damaged one says nothing.
/// Errors: the store cannot be read.
fn signers(store: &dyn Store, id: &SnapshotId) -> Result<Vec<String>> {
    let mut found = store.list(Some(id.host()))?;
    found.retain(|found| found.stray.is_none() && found.id != *id);
    found.sort_by_key(|found| found.id.at().duration_since(id.at()).abs());
    found.truncate(NEIGHBOURS);

    let mut signers = Vec::new();
    for found in found {
        let head = store.head(&found.id, SIGNED_HEAD_BYTES)?;
        signers.extend(reader::signer(&head).ok().flatten());
    }
    Ok(signers)
}
