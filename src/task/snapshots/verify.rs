//! `verify`: reads a snapshot to the last byte; and `show` and `cat`, which look into one.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::ChosenSnapshot;
use crate::archive::keys::Keys;
use crate::archive::reader::Archive;
use crate::archive::sign::Signers;
use crate::model::index::{Entry, EntryKind, Index, Name};
use crate::model::legacy::LegacyName;
use crate::model::nearest::nearest;
use crate::model::problem::{Fault, FaultKind, Problem};
use crate::model::record::Verification;
use crate::model::snapshot::{Snapshot, SnapshotId};
use crate::plan::manifest_chain::{self, Break};
use crate::store::Store;
use crate::sys::process::signals::check_stopped;
use crate::task::{error, snapshots};

/// The message when the output takes no more.
pub const NO_OUTPUT: &str = "cannot write to standard output";

/// A snapshot that was read whole and is what it says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Proven {
    pub snapshot: Snapshot,
    /// Fingerprint of the key whose signature the manifest has.
    pub signed_by: Option<String>,
    #[serde(skip)]
    pub index: Index,
}

/// Errors: `Verification` with what differs.
pub fn verify(chosen: &ChosenSnapshot) -> Result<Proven> {
    let mut archive = chosen.open()?;
    let index = archive.read(&chosen.path, &mut |_, _| check_stopped())?;
    Ok(proven(archive, index))
}

fn proven(archive: Archive, index: Index) -> Proven {
    Proven { snapshot: archive.head.snapshot, signed_by: archive.signed_by, index }
}

/// The outcome of one of several verifications.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verified {
    /// None for a file.
    pub store: Option<String>,
    pub id: Option<SnapshotId>,
    pub path: Name,
    pub entries: u64,
    pub ok: bool,
    /// False: it is encrypted, and only its payload's hash was proven.
    pub contents: bool,
    /// Fingerprint of the key whose signature its manifest has; None when it has none.
    pub signed_by: Option<String>,
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// It was read and is not what it says; else it could not be read.
    #[serde(skip)]
    pub kind: Option<FaultKind>,
    /// It is what it says, but none of those signed it who were named: no damage.
    #[serde(skip)]
    pub unsigned: bool,
}

impl Verified {
    /// A legacy archive, which proves nothing of the store's snapshots.
    fn is_old(&self) -> bool {
        let name = self.path.as_path().file_name().and_then(std::ffi::OsStr::to_str);
        name.and_then(LegacyName::parse).is_some()
    }

    /// One that proves nothing yet, of a copy that lies at `path`.
    fn blank(store: Option<String>, id: Option<SnapshotId>, path: Name) -> Self {
        Self {
            store,
            id,
            path,
            entries: 0,
            ok: false,
            contents: false,
            signed_by: None,
            error: None,
            hint: None,
            kind: None,
            unsigned: false,
        }
    }

    /// A store whose copies could not even be listed.
    pub fn unreachable(store: &dyn Store, error: &anyhow::Error) -> Self {
        Self {
            error: Some(format!("{error:#}")),
            hint: error::hint(error),
            kind: Some(FaultKind::Failed),
            ..Self::blank(Some(store.name().to_owned()), None, Name::new(store.place()))
        }
    }

    /// Adds the result of reading it.
    fn read(self, looked: Result<Looked>) -> Self {
        match looked {
            Ok(Looked::Into(proven)) => {
                let Proven { snapshot, signed_by, .. } = *proven;
                Self { contents: true, ..self.good(snapshot, signed_by) }
            }
            Ok(Looked::At(snapshot, signed_by)) => self.good(*snapshot, signed_by),
            Err(error) => {
                let hint = error::hint(&error);
                let fault = error.downcast_ref::<Fault>().cloned();
                let fault = fault.unwrap_or_else(|| Fault::failed(format!("{error:#}")));
                Self { error: Some(fault.message), hint, kind: Some(fault.kind), ..self }
            }
        }
    }

    fn good(self, snapshot: Snapshot, signed_by: Option<String>) -> Self {
        let entries = snapshot.counts.entries;
        Self { id: Some(snapshot.id), entries, ok: true, signed_by, ..self }
    }

    /// Returns the problem as it is shown and recorded. None: the snapshot is good.
    pub fn problem(&self) -> Option<Problem> {
        let error = self.error.as_ref()?;
        Some(Problem { hint: self.hint.clone(), ..Problem::error(error) })
    }
}

/// The result of looking at a snapshot without asking anybody for a key.
pub enum Looked {
    Into(Box<Proven>),
    /// It is encrypted, and nothing that is there opens it: its payload is as the manifest says.
    At(Box<Snapshot>, Option<String>),
}

/// `verify`, as far as the keys reach. Errors: `Verification`, a plugin that refuses.
pub fn look(chosen: &ChosenSnapshot) -> Result<Looked> {
    let mut archive = chosen.open()?;
    if archive.is_open(&chosen.path)? {
        let index = archive.read(&chosen.path, &mut |_, _| check_stopped())?;
        return Ok(Looked::Into(Box::new(proven(archive, index))));
    }
    archive.check_payload(&chosen.path)?;
    Ok(Looked::At(Box::new(archive.head.snapshot), archive.signed_by))
}

/// A copy to be verified, or why it cannot be had.
pub struct WantedFile {
    pub store: Option<String>,
    pub id: Option<SnapshotId>,
    pub chosen: Result<ChosenSnapshot>,
}

impl From<ChosenSnapshot> for WantedFile {
    fn from(chosen: ChosenSnapshot) -> Self {
        Self { store: chosen.store.clone(), id: chosen.id.clone(), chosen: Ok(chosen) }
    }
}

impl WantedFile {
    /// Downloads it when the store is elsewhere.
    pub fn take(store: &dyn Store, id: &SnapshotId, keys: &Keys) -> Self {
        let name = Some(store.name().to_owned());
        let chosen = ChosenSnapshot::take(store, id).map(|chosen| chosen.with_keys(keys));
        Self { store: name, id: Some(id.clone()), chosen }
    }
}

/// The demands on each snapshot beyond that it is what it says.
#[derive(Default)]
pub struct Demand {
    /// An encrypted one that nothing opens is an error, after a person was asked.
    pub deep: bool,
    /// One that none of these signed is an error.
    pub signers: Option<Signers>,
}

impl Demand {
    fn check(&self, path: &Path, signed_by: Option<&str>) -> Result<()> {
        let Some(signers) = &self.signers else { return Ok(()) };
        let what = match signed_by {
            Some(print) if signers.has(print) => return Ok(()),
            Some(print) => format!("{}: is signed by {print}, who is not one of the signers", path.display()),
            None => format!("{}: is not signed", path.display()),
        };
        let hint =
            "the signer is the SSH host key of the machine that made it; a reinstallation creates a new key";
        Err(Fault::new(FaultKind::Verification, what).hint(hint).into())
    }
}

/// Verifies each; a bad one does not keep the others from being looked at.
pub fn verify_all(
    wanted: impl IntoIterator<Item = WantedFile>,
    demand: &Demand,
    say: &dyn Fn(&str),
) -> Result<Vec<Verified>> {
    let mut results = Vec::new();
    for WantedFile { store, id, chosen } in wanted {
        check_stopped()?;
        let place = chosen.as_ref().map(|one| one.place.clone()).unwrap_or_default();
        say(&place.display().to_string());
        let mut unsigned = false;
        let looked = chosen.and_then(|one| {
            let looked = if demand.deep { Looked::Into(Box::new(verify(&one)?)) } else { look(&one)? };
            let signed_by = match &looked {
                Looked::Into(proven) => &proven.signed_by,
                Looked::At(_, signed_by) => signed_by,
            };
            demand.check(&one.place, signed_by.as_deref()).inspect_err(|_| unsigned = true)?;
            Ok(looked)
        });
        // A stop in the middle says nothing of the snapshot.
        check_stopped()?;
        let blank = Verified { unsigned, ..Verified::blank(store, id, place.as_path().into()) };
        results.push(blank.read(looked));
    }

    Ok(results)
}

/// Builds the verifications, by store, as they are kept. `whole`: every copy of these stores was looked at.
pub fn verifications(results: &[Verified], node: &str, whole: bool) -> Vec<Verification> {
    let mut stores: Vec<Verification> = Vec::new();
    for one in results {
        let Some(store) = one.store.as_ref().filter(|_| !one.is_old()) else { continue };
        let place = stores.iter().position(|known| known.store == *store).unwrap_or_else(|| {
            stores.push(Verification { store: store.clone(), whole, ..Verification::default() });
            stores.len() - 1
        });
        let known = &mut stores[place];
        match (&one.id, one.ok) {
            (Some(id), true) => {
                known.good += 1;
                if id.host() == node {
                    known.newest = known.newest.take().max(Some(id.clone()));
                }
                if !whole {
                    known.proven.push(id.clone());
                }
            }
            (Some(id), false) if one.kind == Some(FaultKind::Verification) && !one.unsigned => {
                known.damaged.push(id.clone());
            }
            _ => known.unread += 1,
        }
    }

    stores
}

/// Writes one file of a snapshot to `out`. The whole snapshot is proven before the first byte is written.
/// Errors: `NotFound` for a path that is not in it or is no file, with the nearest one.
pub fn cat(chosen: &ChosenSnapshot, path: &str, out: &mut dyn Write) -> Result<()> {
    let wanted = Name::new(path.trim_start_matches('/'));
    let index = verify(chosen)?.index;
    let entry = find(&index, &wanted)?;
    let wanted = match (entry.kind, &entry.link) {
        (EntryKind::Hardlink, Some(first)) => first.clone(),
        _ => wanted,
    };
    drop(index);
    chosen.open()?.read(&chosen.path, &mut |entry, content| {
        if entry.path == wanted {
            io::copy(content, out).context(NO_OUTPUT)?;
        }
        check_stopped()
    })?;
    out.flush().context(NO_OUTPUT)
}

fn find<'a>(index: &'a Index, wanted: &Name) -> Result<&'a Entry> {
    let not_found = |message: String| Fault::not_found(message);
    let Some(entry) = index.entries.iter().find(|entry| entry.path == *wanted) else {
        let names: Vec<String> = index.entries.iter().map(|entry| entry.path.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hint = nearest(&wanted.to_string(), &names).map_or_else(
            || "`pbx-config show SNAP --files` lists them".to_owned(),
            |near| format!("did you mean '{near}'?"),
        );
        return Err(not_found(format!("{wanted}: is not in {}", index.id)).hint(hint).into());
    };

    match (entry.kind, &entry.link) {
        (EntryKind::File | EntryKind::Hardlink, _) => Ok(entry),
        (EntryKind::Symlink, Some(target)) => {
            Err(not_found(format!("{wanted}: is a link to {target}")).into())
        }
        _ => Err(not_found(format!("{wanted}: is a directory"))
            .hint(format!(
                "see `pbx-config show SNAP --files` for the contents of {}",
                Path::new(&wanted.to_string()).display()
            ))
            .into()),
    }
}

/// Finds where the chains of these stores are broken, by reading their manifests once more: a copy that was swapped
/// between two listings shows, too. What cannot be read now is reported, unless it is among `told` already.
pub fn broken_chains(
    stores: &[Box<dyn Store>],
    keeps_all: &dyn Fn(&str) -> bool,
    told: &[Verified],
) -> Vec<Verified> {
    let (mut links, mut unread) = (Vec::new(), Vec::new());
    let is_told = |store: &dyn Store, id: Option<&SnapshotId>| {
        told.iter().any(|one| !one.ok && one.store.as_deref() == Some(store.name()) && one.id.as_ref() == id)
    };

    for store in stores {
        let found = match store.list(None) {
            Ok(found) => found,
            Err(error) => {
                if !is_told(store.as_ref(), None) {
                    unread.push(Verified::unreachable(store.as_ref(), &error));
                }
                continue;
            }
        };
        let heads = snapshots::heads(store.as_ref(), &found);
        links.extend(found.into_iter().zip(heads).map(|(found, head)| {
            if let (Err(error), false) = (&head, is_told(store.as_ref(), Some(&found.id))) {
                let unreachable = Verified::unreachable(store.as_ref(), error);
                unread.push(Verified { id: Some(found.id.clone()), ..unreachable });
            }
            let (parent, sha256) =
                head.map_or((None, None), |head| (head.snapshot.parent, Some(head.manifest_sha256)));
            let (store, keeps_all) = (store.name().to_owned(), keeps_all(store.name()));
            manifest_chain::Link { store, id: found.id, parent, sha256, keeps_all }
        }));
    }

    let broken = manifest_chain::breaks(&links).into_iter().map(|(store, child, parent, how)| {
        let what = match how {
            Break::Replaced => {
                format!(
                    "{parent}: is not the snapshot that {child} names as the one before it: it was replaced"
                )
            }
            Break::Gone => format!("{parent}: is missing, though {child} names it and this store keeps all"),
        };
        Verified {
            error: Some(format!("store '{store}': {what}")),
            kind: Some(FaultKind::Verification),
            ..Verified::blank(Some(store.to_owned()), Some(parent.clone()), Name::new(store))
        }
    });
    unread.into_iter().chain(broken).collect()
}
