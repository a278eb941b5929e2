//! Legacy archives beside our snapshots: listed, found by the same words, given their items of the catalogue, and
//! removed only on request.

use std::collections::HashMap;

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Listed;
use crate::archive::legacy::{self, HEAD_BYTES, ITEM, Manifest};
use crate::catalog::matcher::CatalogMatcher;
use crate::model::index::Name;
use crate::model::keep::Keep;
use crate::model::legacy::{MANIFEST, METADATA};
use crate::model::problem::Problem;
use crate::model::snapshot::{Snapshot, SnapshotId};
use crate::plan::prune::{self, Candidate, Marked, Ours};
use crate::store::{Relic, Store};
use crate::sys::host::Host;
use crate::sys::process::lock::Lock;
use crate::sys::process::signals::check_stopped;
use crate::sys::process::threads;
use crate::task::error;

/// A manifest beside a loose archive is never larger.
const SIDECAR_MAX_BYTES: usize = 64 * 1024;
/// A manifest that the first read did not reach over.
const LONG_HEAD_BYTES: usize = 512 + SIDECAR_MAX_BYTES;
/// Manifests read at a time.
const READERS: usize = 8;
const READ_ALONE: usize = 32;

/// An archive in a store, with what its manifest tells.
pub struct Old {
    pub relic: Relic,
    pub id: SnapshotId,
    /// None when its manifest cannot be read.
    pub snapshot: Option<Snapshot>,
}

/// Those of a store, those of one host when it is named; what cannot be read of one is a problem of it.
pub fn of_store(store: &dyn Store, host: Option<&str>) -> Result<(Vec<Old>, Vec<Problem>)> {
    let relics = store.relics()?;
    let zone = TimeZone::system();
    let readers = relics.len().div_ceil(READ_ALONE).clamp(1, READERS);
    let read = |part: &[Relic]| part.iter().map(|relic| told(store, relic, &zone)).collect::<Vec<_>>();
    let told: Vec<Result<Snapshot>> = if readers == 1 {
        read(&relics)
    } else {
        threads::for_each(relics.chunks(relics.len().div_ceil(readers)), read).into_iter().flatten().collect()
    };
    check_stopped()?;

    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for (relic, told) in relics.into_iter().zip(told) {
        let told = told.inspect_err(|error| problems.push(unreadable(store, &relic, error))).ok();
        let id = told.as_ref().map(|snapshot| snapshot.id.clone()).or_else(|| named(&relic, &zone));
        let Some(id) = id.filter(|id| host.is_none_or(|host| is_of(id, host))) else { continue };
        found.push(Old { relic, id, snapshot: told });
    }
    Ok((found, problems))
}

fn unreadable(store: &dyn Store, relic: &Relic, error: &anyhow::Error) -> Problem {
    let hint = if relic.name.bundle {
        "it is a legacy bundle, and its beginning is damaged or missing"
    } else {
        "it is a legacy archive; its .metadata must be in the same directory"
    };
    Problem::warning(format!("store '{}': {}: {error:#}", store.name(), relic.path)).hint(hint)
}

/// Builds the id of an archive from its name alone.
fn named(relic: &Relic, zone: &TimeZone) -> Option<SnapshotId> {
    SnapshotId::new(relic.name.host.as_deref().unwrap_or("unknown"), relic.name.local(zone)?)
}

/// The old tool knew hosts by their full names.
fn is_of(id: &SnapshotId, host: &str) -> bool {
    id.host() == host || id.host().strip_prefix(host).is_some_and(|rest| rest.starts_with('.'))
}

/// Only the head is read.
fn told(store: &dyn Store, relic: &Relic, zone: &TimeZone) -> Result<Snapshot> {
    let manifest = if relic.name.bundle {
        let bytes = store.relic_head(&relic.path, HEAD_BYTES)?;
        match legacy::head(&bytes) {
            Some(manifest) => manifest?,
            None => legacy::head(&store.relic_head(&relic.path, LONG_HEAD_BYTES)?)
                .context("its manifest cannot be read")??,
        }
    } else {
        let ending = [METADATA, MANIFEST].into_iter().find(|ending| relic.beside.contains(ending));
        let ending = ending.context("its manifest is missing")?;
        Manifest::parse(&store.relic_head(&format!("{}{ending}", relic.path), SIDECAR_MAX_BYTES)?)?
    };
    legacy::told(&relic.name, &manifest, relic.size, zone)
}

/// Lists the archives of the stores. What cannot be looked at is a problem.
pub fn list(stores: &[&dyn Store], host: Option<&str>) -> (Vec<Listed>, Vec<Problem>) {
    let (mut all, mut problems): (Vec<Listed>, Vec<Problem>) = (Vec::new(), Vec::new());
    for store in stores {
        let (found, unread) = match of_store(*store, host) {
            Ok(found) => found,
            Err(error) => {
                problems.push(error::error(&error));
                continue;
            }
        };
        problems.extend(unread);
        for old in found {
            let name = old.relic.path.rsplit('/').next().unwrap_or_default().to_owned();
            let same = |one: &&mut Listed| one.id == old.id && one.legacy.as_deref() == Some(&name);
            match all.iter_mut().find(same) {
                Some(listed) => listed.stores.push(store.name().to_owned()),
                None => all.push(Listed {
                    stray: None,
                    id: old.id,
                    size: old.relic.size,
                    stores: vec![store.name().to_owned()],
                    snapshot: old.snapshot,
                    legacy: Some(name),
                }),
            }
        }
    }

    (all, problems)
}

/// The one that a word names: `HOST/TIME`, `HOST/latest`, or the beginning of its file's name.
pub struct Candidates<'a> {
    pub all: Vec<(&'a dyn Store, Old)>,
}

impl<'a> Candidates<'a> {
    pub fn of(stores: &'a [Box<dyn Store>]) -> Self {
        let of_one = |store: &'a dyn Store| {
            let (found, _) = of_store(store, None).unwrap_or_default();
            found.into_iter().map(move |old| (store, old))
        };
        Self { all: stores.iter().flat_map(|store| of_one(store.as_ref())).collect() }
    }

    /// Finds archives by their file name: the exact name, else every name that begins with the word.
    pub fn by_file(&self, word: &str) -> Vec<&(&'a dyn Store, Old)> {
        let name = |old: &Old| old.relic.path.rsplit('/').next().unwrap_or_default().to_owned();
        let exact: Vec<_> = self.all.iter().filter(|(_, old)| name(old) == word).collect();
        if exact.is_empty() {
            self.all.iter().filter(|(_, old)| name(old).starts_with(word)).collect()
        } else {
            exact
        }
    }

    /// The full name under which the old tool knew a host.
    pub fn host<'b>(&'b self, short: &'b str) -> &'b str {
        let known = self.all.iter().map(|(_, old)| &old.id).find(|id| is_of(id, short));
        known.map_or(short, |id| id.host())
    }
}

// Retention

/// The plan of retention: the archives that would be removed, and why the others stay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OldPlan {
    pub store: String,
    /// Newest first.
    pub archives: Vec<Marked>,
    /// File names, in the same order.
    pub files: Vec<String>,
    /// The number of archives of other hosts, which stay.
    pub others: usize,
    pub removed: Vec<String>,
    pub problems: Vec<Problem>,
    #[serde(skip)]
    relics: Vec<Relic>,
}

/// Our words over the archives of this host, and of nothing else.
pub fn plan(host: &Host, store: &dyn Store, keep: &Keep, zone: &TimeZone) -> Result<OldPlan> {
    let (found, problems) = of_store(store, None)?;
    let (mut ours, others): (Vec<Old>, Vec<Old>) =
        found.into_iter().partition(|old| is_of(&old.id, &host.facts.node));
    ours.sort_by(|a, b| b.id.cmp(&a.id).then_with(|| a.relic.path.cmp(&b.relic.path)));

    // A bundle and what was decrypted of it, say: one backup, and its copies stay or go together.
    let mut candidates: Vec<Candidate> = Vec::new();
    for old in ours.iter().filter(|old| old.snapshot.is_some()) {
        if candidates.last().is_none_or(|last| last.id != old.id) {
            candidates.push(Candidate { id: old.id.clone(), snapshot: old.snapshot.clone(), held: None });
        }
    }

    // Old archives tell no machine; of this host's name is all that can be said.
    let marked =
        prune::prune(&candidates, keep, Ours { machine_id: None, installation: None, adopted: &[] }, zone);
    let marks: HashMap<&SnapshotId, &Marked> = marked.iter().map(|one| (&one.id, one)).collect();
    let archives = ours.iter().map(|old| match marks.get(&old.id).filter(|_| old.snapshot.is_some()) {
        Some(mark) => (*mark).clone(),
        None => Marked { id: old.id.clone(), keep: true, reason: "its manifest cannot be read".to_owned() },
    });
    let archives = archives.collect();
    let files = ours.iter().map(|old| old.relic.path.clone()).collect();
    let relics = ours.into_iter().map(|old| old.relic).collect();

    Ok(OldPlan {
        store: store.name().to_owned(),
        archives,
        files,
        others: others.len(),
        removed: Vec::new(),
        problems,
        relics,
    })
}

impl OldPlan {
    /// Builds the plan of a store that cannot be looked at.
    pub fn unreached(store: &dyn Store, problem: Problem) -> Self {
        Self {
            store: store.name().to_owned(),
            archives: Vec::new(),
            files: Vec::new(),
            others: 0,
            removed: Vec::new(),
            problems: vec![problem],
            relics: Vec::new(),
        }
    }
}

/// Removes what the plan says; what could not be removed is a problem.
pub fn carry_out(store: &dyn Store, plan: &mut OldPlan, _: &Lock) {
    let going = plan.archives.iter().zip(&plan.relics).filter(|(marked, _)| !marked.keep);
    for relic in going.map(|(_, relic)| relic) {
        if check_stopped().is_err() {
            break;
        }
        match store.relic_remove(relic) {
            Ok(()) => plan.removed.push(relic.path.clone()),
            Err(error) => plan.problems.push(error::warning(&error)),
        }
    }
}

// Items of paths

/// Finds the catalogue's item of a path, and whether it is secret. A path that no item claims is one that the admin added.
pub fn item_of(path: &Name) -> (&'static str, bool) {
    const ADDED: (&str, bool) = ("include", true);
    let owner = CatalogMatcher::get().owner_of(path.as_path());
    owner.map_or(ADDED, |item| (item.id, item.secret))
}

/// The item of outputs, which the archives' reader uses too.
pub const OUTPUTS: &str = ITEM;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_old_archives_have_the_rows_that_would_collect_them_today() {
        for (path, expected) in [
            ("etc/pve/storage.cfg", "pve-storage"),
            ("etc/pve/nodes/n1/qemu-server/100.conf", "pve-guests"),
            ("etc/pve/user.cfg", "pve-users"),
            ("etc/pve/something.new", "pve-other"),
            ("etc/proxmox-backup/datastore.cfg", "pbs-datastores"),
            ("etc/network/interfaces", "network"),
            ("etc/hosts", "hosts"),
            ("etc/shadow", "accounts"),
            ("etc/ssh/ssh_host_rsa_key", "ssh-host"),
            ("etc/ssl/private/x.key", "ssl-private"),
            ("usr/local/bin/x", "local"),
            ("root/.ssh/id_rsa", "ssh-root"),
            ("var/lib/pve-cluster/config.db", "pve-database"),
            ("home/mara/.bashrc", "include"),
            ("srv/x", "include"),
        ] {
            assert_eq!(item_of(&Name::new(path)).0, expected, "{path}");
        }
        assert!(CatalogMatcher::get().patterns(OUTPUTS).is_some());
    }
}
