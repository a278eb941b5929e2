//! Where snapshots are kept. A kind of store is one file here plus one line in `KINDS`.
//! What lies in a snapshot is not known here; a store moves whole files.

mod bounded;
mod dir;
mod legacy;
mod pbs;
mod rclone;
mod remote;
mod tool;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::model::problem::{Fault, Problem};
use crate::model::report::Medium;
use crate::model::section::Section;
use crate::model::snapshot::SnapshotId;
use crate::sys::fs::scratch::Scratch;
use crate::sys::host::Host;
use crate::sys::process::signals::check_stopped;
use crate::sys::process::threads;

pub use crate::store::legacy::Relic;

pub trait Store: Sync {
    /// The id of its section.
    fn name(&self) -> &str;

    /// Returns the place of the store, for people.
    fn place(&self) -> String;

    /// Copies a finished snapshot file into the store. It becomes visible under its name only when it is whole
    /// and durable; a name that is taken is an error, never replaced.
    fn put(&self, file: &Path, id: &SnapshotId) -> Result<PutResult>;

    /// Every snapshot of `host`, or of all hosts, in no order. What is not a snapshot of ours is not told.
    /// A store that was never written to is empty; one that cannot be reached is an error.
    fn list(&self, host: Option<&str>) -> Result<Vec<FoundFile>>;

    /// The first bytes of a snapshot, at most `len`.
    fn head(&self, id: &SnapshotId, len: usize) -> Result<Vec<u8>>;

    /// The same of several, where that is cheaper than one by one; empty where it must be asked for alone.
    fn heads(&self, _: &[FoundFile], _: usize) -> Option<Vec<Result<Vec<u8>>>> {
        None
    }

    /// Removes a snapshot for good. One that is not there is fine.
    fn remove(&self, id: &SnapshotId) -> Result<()>;

    /// A local file with the whole snapshot.
    fn get(&self, id: &SnapshotId) -> Result<Fetched>;

    /// Archives of the predecessor, in no order. A kind of store that never had any has none.
    fn relics(&self) -> Result<Vec<Relic>> {
        Ok(Vec::new())
    }

    /// The first bytes of a file that `relics` told of, or of one that lies beside it.
    fn relic_head(&self, path: &str, _: usize) -> Result<Vec<u8>> {
        bail!("store '{}': {path} is not there", self.name())
    }

    /// A local file with all of it, and with what belongs to it beside it.
    fn relic_get(&self, relic: &Relic) -> Result<Fetched> {
        bail!("store '{}': {} is not there", self.name(), relic.path)
    }

    /// Removes it and what belongs to it.
    fn relic_remove(&self, relic: &Relic) -> Result<()> {
        bail!("store '{}': {} is not there", self.name(), relic.path)
    }

    /// The folder of this machine that it is, when it is one.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Removes several; what became of each, in their order. A stop ends it early.
    fn remove_many(&self, ids: &[SnapshotId]) -> Vec<Result<()>> {
        ids.iter().take_while(|_| check_stopped().is_ok()).map(|id| self.remove(id)).collect()
    }
}

/// A snapshot as a local file; a downloaded one is removed when this is dropped.
#[derive(Debug)]
pub struct Fetched {
    path: PathBuf,
    place: PathBuf,
    _scratch: Option<Scratch>,
}

impl Fetched {
    /// The store's own file.
    fn in_place(path: PathBuf) -> Self {
        Self { place: path.clone(), path, _scratch: None }
    }

    fn downloaded(path: PathBuf, place: PathBuf, scratch: Scratch) -> Self {
        Self { path, place, _scratch: Some(scratch) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the place of the file in the store, for people.
    pub fn place(&self) -> &Path {
        &self.place
    }
}

/// The place of a snapshot, and the leftovers of interrupted runs that were removed on the way.
#[derive(Debug)]
pub struct PutResult {
    pub place: String,
    /// The file system, when it is one of this machine.
    pub medium: Option<Medium>,
    pub problems: Vec<Problem>,
}

/// A snapshot as a listing tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    pub id: SnapshotId,
    /// Bytes of the file.
    pub size: u64,
    /// Why the store itself does not let it go: such a snapshot is never removed.
    pub held: Option<&'static str>,
    /// Set for a file that anybody may have put there.
    pub stray: Option<Stray>,
}

impl FoundFile {
    pub fn new(id: SnapshotId, size: u64) -> Self {
        Self { id, size, held: None, stray: None }
    }

    /// The reason why retention has no say in it.
    pub fn held_back(&self) -> Option<&'static str> {
        self.held.or(self.stray.map(Stray::reason))
    }
}

/// Why a file in a store is not one of the store's own: it is listed, and taken when it is named, but it is never the
/// `latest`, never removed and never the parent of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stray {
    /// It lies beside the directories of the hosts.
    Bare,
    /// Its owner, or that of its directory, is neither root nor the owner of the store.
    Owner,
}

impl Stray {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Bare => "is not in the directory of its host",
            Self::Owner => "belongs to a user who is neither root nor the owner of the store",
        }
    }
}

pub struct StoreKind {
    /// The word before the colon in a section's header.
    pub name: &'static str,
    pub help: &'static str,
    /// Reads the section's keys. Touches nothing outside; errors are the section's.
    pub open: fn(&Section, &Host) -> Result<Box<dyn Store>>,
}

/// The kind that runs nothing and connects to nothing.
pub const FOLDER: &str = "dir";

pub const KINDS: &[StoreKind] = &[
    StoreKind { name: FOLDER, help: "a directory: local disk, NFS, CIFS, USB", open: dir::open },
    StoreKind { name: "pbs", help: "a Proxmox Backup Server", open: pbs::open },
    StoreKind {
        name: "rclone",
        help: "a remote of rclone: S3, WebDAV, SFTP and many more",
        open: rclone::open,
    },
];

pub fn kind_names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}

/// Opens the store of a section.
pub fn open(section: &Section, host: &Host) -> Result<Box<dyn Store>> {
    match KINDS.iter().find(|kind| kind.name == section.kind) {
        Some(kind) => (kind.open)(section, host),
        None => Err(Fault::usage(format!("{}: unknown kind of store", section.kind)).into()),
    }
}

/// Snapshots of a store at most: of a thousand hosts, two hundred each.
const SNAPSHOTS_MAX: usize = 200_000;

/// Errors: there are more of them than any store has.
fn check_count(count: usize) -> io::Result<()> {
    if count > SNAPSHOTS_MAX {
        return Err(io::Error::other(format!("has more than {SNAPSHOTS_MAX} entries, more than any store")));
    }
    Ok(())
}

/// A folder named on the command line, as a store of its own.
pub fn folder(path: &Path, host: &Host) -> Box<dyn Store> {
    Box::new(dir::Dir::folder(path, host))
}

/// Reads several batches at a time; the answers stand in the order of the batches. Once one of them fails as a whole,
/// the rest is not tried: it would wait as long.
fn in_batches(
    batches: &[Vec<&FoundFile>],
    readers: usize,
    read: impl Fn(&[&FoundFile]) -> Result<Vec<Result<Vec<u8>>>> + Sync,
) -> Vec<Result<Vec<u8>>> {
    let mut all: Vec<Option<Vec<Result<Vec<u8>>>>> = batches.iter().map(|_| None).collect();
    let (next, failed) = (AtomicUsize::new(0), OnceLock::new());
    let work = || {
        let mut done = Vec::new();
        while let Some((n, batch)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, batches.get(n)?)))
        {
            if failed.get().is_some() || check_stopped().is_err() {
                break;
            }
            match read(batch) {
                Ok(heads) => done.push((n, heads)),
                Err(error) => drop(failed.set(format!("{error:#}"))),
            }
        }
        done
    };
    for (n, heads) in threads::for_each(0..readers.min(batches.len()), |_| work()).into_iter().flatten() {
        all[n] = Some(heads);
    }

    let why = failed.get().map_or("stopped by a signal", String::as_str);
    let not_read = |batch: &Vec<&FoundFile>| batch.iter().map(|_| Err(anyhow!(why.to_owned()))).collect();
    all.into_iter().zip(batches).flat_map(|(heads, batch)| heads.unwrap_or_else(|| not_read(batch))).collect()
}
