//! Search for snapshots in all stores, by the words people use for them.

pub mod decrypt;
pub mod extract;
pub mod legacy;
pub mod signature;
pub mod store_test;
pub mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::error;
use crate::archive::keys::Keys;
use crate::archive::reader::{Archive, HEAD_BYTES, Head};
use crate::model::legacy::LegacyName;
use crate::model::problem::{Fault, FaultKind, Problem};
use crate::model::snapshot::{SUFFIX, Snapshot, SnapshotId};
use crate::store::{Fetched, FoundFile, Store, Stray};
use crate::sys::process::threads;

/// The first read of a snapshot; reaches over nearly every manifest.
const FIRST_READ_BYTES: usize = 4096;
/// Manifests read at a time: the waits for a cold disk or a network overlap.
const READERS: usize = 8;
/// More would fill the memory with first reads.
const READ_AT_ONCE: usize = 2048;
/// Fewer are read sooner than a thread begins.
const READ_ALONE: usize = 32;
const CANDIDATES_SHOWN: usize = 5;
const LATEST: &str = "latest";

/// A snapshot and where it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    pub id: SnapshotId,
    pub size: u64,
    /// Names of the stores that have it.
    pub stores: Vec<String>,
    /// None when its manifest cannot be read.
    pub snapshot: Option<Snapshot>,
    /// Set when no store has it as its own: it is never the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stray: Option<&'static str>,
    /// The file's name, when it is a legacy archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub legacy: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Listing {
    /// Newest first.
    pub snapshots: Vec<Listed>,
    pub problems: Vec<Problem>,
}

/// Lists every store: of one host, or of those that are wanted. A store that cannot be reached or a snapshot that
/// cannot be read is a problem; errors only when no store could be reached at all.
pub fn list(stores: &[Box<dyn Store>], host: Option<&str>, wanted: &dyn Fn(&str) -> bool) -> Result<Listing> {
    let mut problems = Vec::new();
    let mut all: BTreeMap<SnapshotId, Listed> = BTreeMap::new();
    let mut reached: Vec<&dyn Store> = Vec::new();
    let mut last_error = None;

    for store in stores {
        let found = match store.list(host) {
            Ok(found) => found,
            Err(error) => {
                problems.push(error::error(&error));
                last_error = Some(error);
                continue;
            }
        };
        reached.push(store.as_ref());
        let mut fresh = Vec::new();
        for found in found.into_iter().filter(|found| wanted(found.id.host())) {
            match all.get_mut(&found.id) {
                Some(listed) => {
                    listed.stores.push(store.name().to_owned());
                    listed.stray = listed.stray.filter(|_| found.stray.is_some());
                }
                None => fresh.push(found),
            }
        }
        // Mostly the order in which they were written, and so how they lie on a disk.
        fresh.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let heads = heads(store.as_ref(), &fresh);
        for (found, head) in fresh.into_iter().zip(heads) {
            let head = head.inspect_err(|error| problems.push(Problem::warning(format!("{error:#}"))));
            let (id, stores) = (found.id, vec![store.name().to_owned()]);
            let snapshot = head.ok().map(|head| head.snapshot);
            let stray = found.stray.map(Stray::reason);
            all.insert(id.clone(), Listed { id, size: found.size, stores, snapshot, stray, legacy: None });
        }
    }

    match last_error {
        Some(error) if reached.is_empty() => Err(error),
        _ => {
            let (old, unread) = legacy::list(&reached, host);
            problems.extend(unread);
            let old = old.into_iter().filter(|old| wanted(old.id.host()));
            let mut snapshots: Vec<Listed> = all.into_values().chain(old).collect();
            snapshots.sort_by(|a, b| b.id.cmp(&a.id));
            Ok(Listing { snapshots, problems })
        }
    }
}

/// The manifest of each, in their order.
pub fn heads(store: &dyn Store, found: &[FoundFile]) -> Vec<Result<Head>> {
    if found.len() > READ_AT_ONCE {
        return found.chunks(READ_AT_ONCE).flat_map(|part| heads(store, part)).collect();
    }
    if let Some(firsts) = store.heads(found, FIRST_READ_BYTES) {
        return found.iter().zip(firsts).map(|(found, first)| known(store, &found.id, first)).collect();
    }

    let readers = found.len().div_ceil(READ_ALONE).clamp(1, READERS);
    let read = |part: &[FoundFile]| part.iter().map(|found| head(store, &found.id)).collect::<Vec<_>>();
    if readers == 1 {
        return read(found);
    }
    threads::for_each(found.chunks(found.len().div_ceil(readers)), read).into_iter().flatten().collect()
}

/// Reads a head from its first bytes, or asks the store again when they are too few.
fn known(store: &dyn Store, id: &SnapshotId, first: Result<Vec<u8>>) -> Result<Head> {
    let first = first?;
    match Head::parse(&first) {
        Ok(head) if head.snapshot.id == *id => Ok(head),
        _ => head(store, id),
    }
}

/// The manifest of a snapshot in a store; errors name the snapshot.
pub fn head(store: &dyn Store, id: &SnapshotId) -> Result<Head> {
    let mut bytes = store.head(id, FIRST_READ_BYTES)?;
    if Head::needed(&bytes).is_some_and(|needed| needed > bytes.len()) {
        bytes = store.head(id, HEAD_BYTES)?;
    }
    let head = Head::parse(&bytes).map_err(|error| match error.downcast::<Fault>() {
        Ok(fault) => fault.at(id).into(),
        Err(error) => error.context(format!("{id} in store '{}'", store.name())),
    })?;
    anyhow::ensure!(
        head.snapshot.id == *id,
        "{id} in store '{}': is {} according to its manifest",
        store.name(),
        head.snapshot.id
    );
    Ok(head)
}

/// A snapshot that a word named.
#[derive(Debug)]
pub struct ChosenSnapshot {
    /// The store that it is taken from; None for a file.
    pub store: Option<String>,
    /// The id that the store gives it. None: it is a file.
    pub id: Option<SnapshotId>,
    /// A local file, as long as this value lives: a downloaded copy goes with it.
    pub path: PathBuf,
    /// The path where it lies, for people.
    pub place: PathBuf,
    /// The keys that open it when it is encrypted.
    pub keys: Keys,
    _held: Option<Fetched>,
}

impl ChosenSnapshot {
    /// A file that somebody named, also by a link to it.
    pub fn file(place: &Path) -> Self {
        let path = std::fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
        Self { store: None, id: None, path, place: place.to_owned(), keys: Keys::default(), _held: None }
    }

    /// Downloads it when the store is elsewhere.
    pub fn take(store: &dyn Store, id: &SnapshotId) -> Result<Self> {
        let fetched = store.get(id)?;
        let (path, place) = (fetched.path().to_owned(), fetched.place().to_owned());
        let (store, id) = (Some(store.name().to_owned()), Some(id.clone()));
        Ok(Self { store, id, path, place, keys: Keys::default(), _held: Some(fetched) })
    }

    /// The same of a legacy archive.
    fn take_old(store: &dyn Store, old: &legacy::Old) -> Result<Self> {
        let fetched = store.relic_get(&old.relic)?;
        let (path, place) = (fetched.path().to_owned(), fetched.place().to_owned());
        let (store, id) = (Some(store.name().to_owned()), Some(old.id.clone()));
        Ok(Self { store, id, path, place, keys: Keys::default(), _held: Some(fetched) })
    }

    pub fn open(&self) -> Result<Archive> {
        Ok(Archive::open(&self.path)?.with_keys(self.keys.clone()).with_item_lookup(legacy::item_of))
    }

    #[must_use]
    pub fn with_keys(self, keys: &Keys) -> Self {
        Self { keys: keys.clone(), ..self }
    }
}

/// True for a word that means a file: its ending or a path says so, or it is one with a directory before it.
pub fn is_file_word(word: &str) -> bool {
    let path = Path::new(word);
    let clear =
        word.ends_with(SUFFIX) || path.is_absolute() || word.starts_with("./") || word.starts_with("../");
    // `latest` stays a word, whatever lies in the current directory.
    clear || (word.contains('/') || LegacyName::parse(word).is_some()) && path.is_file()
}

/// Finds the one snapshot that `word` means: a file, `HOST/TIME` or a unique beginning of it,
/// `latest`, `latest~2`, `HOST/latest`. A bare time or `latest` is of the node `here`.
/// Errors: `NotFound`, with what there is.
pub fn choose(stores: &[Box<dyn Store>], here: &str, word: &str) -> Result<ChosenSnapshot> {
    let path = Path::new(word);
    if is_file_word(word) {
        if !path.is_file() {
            return Err(Fault::not_found(format!("{word}: no such file")).into());
        }
        return Ok(ChosenSnapshot::file(path));
    }

    let mut ids: BTreeMap<SnapshotId, (&dyn Store, Option<Stray>)> = BTreeMap::new();
    let mut unreachable = None;
    for store in stores {
        match store.list(None) {
            // One of a store's own comes before a stray of its name in another store.
            Ok(found) => found.into_iter().for_each(|found| match ids.get(&found.id) {
                Some((_, known)) if known.is_none() || found.stray.is_some() => {}
                _ => drop(ids.insert(found.id, (store.as_ref(), found.stray))),
            }),
            Err(error) => unreachable = Some(error),
        }
    }

    let all: Vec<&SnapshotId> = if is_latest(word) {
        ids.iter().filter(|(_, (_, stray))| stray.is_none()).map(|(id, _)| id).collect()
    } else {
        ids.keys().collect()
    };
    let id = match pick(&all, here, word) {
        Ok(id) => id,
        Err(fault) => {
            if let Some(old) = choose_old(stores, here, word)? {
                return Ok(old);
            }
            let stray = newest_stray(&ids, here, word);
            let fault = stray.into_iter().fold(fault, Fault::hint);
            // What is missing may lie in the store that did not answer.
            return Err(match unreachable {
                Some(error) => {
                    let (hint, kind) = (error::hint(&error), FaultKind::Failed);
                    let message = format!("{} in what could be read", fault.message);
                    error.context(Fault { kind, message, hint })
                }
                None => fault.into(),
            });
        }
    };
    if let Some(error) = unreachable.filter(|_| is_latest(word)) {
        log::warn!("{error:#}: it may have a newer one");
    }

    let (store, stray) = *ids.get(id).context("listed")?;
    if stray == Some(Stray::Owner) {
        let message = format!("{id} in store '{}': {}", store.name(), Stray::Owner.reason());
        let hint = "when you know that it is good, name the file itself: ./FILE or /DIR/FILE";
        return Err(Fault::failed(message).hint(hint).into());
    }
    ChosenSnapshot::take(store, id)
}

/// Returns the hint on the newest snapshot of a host that no store has as its own, where the latest is asked for.
fn newest_stray(
    ids: &BTreeMap<SnapshotId, (&dyn Store, Option<Stray>)>,
    here: &str,
    word: &str,
) -> Option<String> {
    let host = word.split_once('/').map_or(here, |(host, _)| host);
    let mut of_host = ids.iter().rev().filter(|(id, _)| id.host() == host && is_latest(word));
    let (id, reason) = of_host.find_map(|(id, (_, stray))| Some((id, (*stray)?.reason())))?;
    Some(format!("{id} is there, but {reason}: name it, it is never the latest"))
}

fn is_latest(word: &str) -> bool {
    word.rsplit('/').next().is_some_and(|word| word.starts_with(LATEST))
}

/// The archive of the legacy program that a word names: the name of its file or the beginning of it, and the words
/// that snapshots have, where the short name of a host stands for its full one. None: there is none.
fn choose_old(stores: &[Box<dyn Store>], here: &str, word: &str) -> Result<Option<ChosenSnapshot>> {
    let old = legacy::Candidates::of(stores);
    let named = match &old.by_file(word)[..] {
        [one] if !word.is_empty() => Some(*one),
        _ => {
            let (host, rest) = word.split_once('/').unwrap_or((here, word));
            let (host, here) = (old.host(host), old.host(here));
            let word = if word.contains('/') { format!("{host}/{rest}") } else { word.to_owned() };
            let mut ids: Vec<&SnapshotId> = old.all.iter().map(|(_, old)| &old.id).collect();
            ids.sort();
            ids.dedup();
            match pick(&ids, here, &word) {
                Ok(id) => old.all.iter().find(|(_, old)| old.id == *id),
                // Several are told; that there is none is told of the snapshots.
                Err(fault) if fault.message.contains(MATCHES) => return Err(fault.into()),
                Err(_) => None,
            }
        }
    };

    named.map(|(store, old)| ChosenSnapshot::take_old(*store, old)).transpose()
}

/// Marks the message of a word that more than one snapshot has.
const MATCHES: &str = ": matches ";

/// Decides by names alone. `all` is sorted, oldest first.
fn pick<'a>(all: &[&'a SnapshotId], here: &str, word: &str) -> Result<&'a SnapshotId, Fault> {
    let (host, rest) = word.split_once('/').unwrap_or((here, word));
    if let Some(back) = rest.strip_prefix(LATEST) {
        let back: usize = match back.strip_prefix('~') {
            None if back.is_empty() => 0,
            Some(number) => number.parse().map_err(|_| bad_word(word))?,
            None => return Err(bad_word(word)),
        };
        let of_host: Vec<_> = all.iter().filter(|id| id.host() == host).collect();
        let chosen = of_host.iter().rev().nth(back);
        return chosen.map(|id| **id).ok_or_else(|| match of_host.len() {
            0 => none_of(host, all),
            n => {
                let what = format!(
                    "{word}: of {host} there {}",
                    if n == 1 { "is only 1 snapshot".to_owned() } else { format!("are only {n} snapshots") }
                );
                Fault::not_found(what).hint("`pbx-config list` shows them")
            }
        });
    }

    let matching: Vec<_> = all.iter().filter(|id| is_prefix(id, here, word)).collect();
    match matching.as_slice() {
        [] if all.iter().any(|id| id.host() == host) => {
            Err(Fault::not_found(format!("{word}: no such snapshot")).hint("`pbx-config list` shows them"))
        }
        [] => Err(none_of(host, all)),
        [one] => Ok(**one),
        many => {
            let shown: Vec<String> =
                many.iter().rev().take(CANDIDATES_SHOWN).map(ToString::to_string).collect();
            let message = format!("{word}{MATCHES}{} snapshots", many.len());
            Err(Fault::not_found(message).hint(format!("use one of: {}", shown.join(", "))))
        }
    }
}

fn is_prefix(id: &SnapshotId, here: &str, word: &str) -> bool {
    let file = id.file_name();
    id.to_string().starts_with(word)
        || file.starts_with(word)
        || id.host() == here
            && (id.at().to_string().starts_with(word) || file[here.len() + 1..].starts_with(word))
}

fn bad_word(word: &str) -> Fault {
    Fault::usage(format!("'{word}' is not a snapshot"))
        .hint("use HOST/TIME or its beginning, latest, latest~1, or a file")
}

fn none_of(host: &str, all: &[&SnapshotId]) -> Fault {
    let mut hosts: Vec<&str> = all.iter().map(|id| id.host()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let fault = Fault::not_found(format!("there is no snapshot of {host}"));
    if hosts.is_empty() {
        fault.hint("create one with `pbx-config backup`")
    } else {
        fault.hint(format!("there are snapshots of {}; name one as {}/latest", hosts.join(", "), hosts[0]))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn picked(word: &str) -> Result<String, String> {
        let ids: Vec<SnapshotId> =
            ["a/2026-01-01T00:00:00Z", "b/2026-01-01T00:00:00Z", "a/2026-01-02T00:00:00Z"]
                .iter()
                .map(|id| id.parse().unwrap())
                .collect();
        let mut all: Vec<&SnapshotId> = ids.iter().collect();
        all.sort();
        pick(&all, "a", word).map(ToString::to_string).map_err(|fault| fault.message)
    }

    #[test]
    fn latest_counts_back_from_the_newest_of_this_host() {
        assert_eq!(picked("latest").unwrap(), "a/2026-01-02T00:00:00Z");
        assert_eq!(picked("latest~1").unwrap(), "a/2026-01-01T00:00:00Z");
        assert_eq!(picked("b/latest").unwrap(), "b/2026-01-01T00:00:00Z");
        assert_eq!(picked("latest~2").unwrap_err(), "latest~2: of a there are only 2 snapshots");
        assert!(picked("latest~x").is_err());
    }

    #[test]
    fn a_beginning_is_enough_when_it_is_unique() {
        assert_eq!(picked("a/2026-01-02").unwrap(), "a/2026-01-02T00:00:00Z");
        assert_eq!(picked("2026-01-01").unwrap(), "a/2026-01-01T00:00:00Z");
        assert_eq!(picked("20260102").unwrap(), "a/2026-01-02T00:00:00Z");
        assert_eq!(picked("a_20260102").unwrap(), "a/2026-01-02T00:00:00Z");
        assert_eq!(picked("a/2026").unwrap_err(), "a/2026: matches 2 snapshots");
        assert_eq!(picked("c/2026").unwrap_err(), "there is no snapshot of c");
    }
}
