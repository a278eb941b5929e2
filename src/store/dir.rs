//! `dir`: a folder, one sub-folder a host. Snapshots appear by rename, so a listing never shows half of one.
//! On a file system that may hang every call has a limit (`bounded`); on a local one it is made here.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::legacy::{self, Relic};
use super::tool::{transfer_limit, usage};
use super::{Fetched, FoundFile, PutResult, Store, Stray, bounded, check_count, in_batches};
use crate::model::problem::{Fault, Problem};
use crate::model::report::Medium;
use crate::model::section::Section;
use crate::model::snapshot::SnapshotId;
use crate::sys::fs::scratch::Scratch;
use crate::sys::fs::{files, free_space, leftovers, mounts};
use crate::sys::host::Host;
use crate::sys::process::signals::check_stopped;

/// The bytes of a copy between two looks for a signal.
const COPY_STEP_BYTES: u64 = 4 << 20;
/// A copy to a share that is slower is given up.
const SLOWEST_BYTES_PER_SECOND: u64 = 256 << 10;
/// Manifests that one child reads, and such children at a time.
const HEADS_AT_ONCE: usize = 64;
/// Between two batches of removals a signal is looked for.
const REMOVED_AT_ONCE: usize = 512;
const READERS: usize = 8;

/// `dir: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    path: String,
    /// The path must be a mount point, so that a disk that is not there is not taken for an empty one.
    #[serde(default)]
    mountpoint: bool,
    /// Seconds that a call may last where it may hang; a copy lasts longer as its bytes want it.
    #[serde(default = "one_minute")]
    timeout: u64,
}

fn one_minute() -> u64 {
    60
}

pub(super) struct Dir {
    name: String,
    path: PathBuf,
    mountpoint: bool,
    timeout: Duration,
    downloads: PathBuf,
    /// The name of this host, whose directory must be readable.
    node: String,
    /// True when the file system may hang; looked at once.
    may_hang: OnceLock<bool>,
}

pub(super) fn open(section: &Section, host: &Host) -> Result<Box<dyn Store>> {
    let options: Options = section.read().map_err(usage)?;
    if !options.path.starts_with('/') {
        return Err(usage(section.error_at("path", "path: must be absolute")));
    }
    if options.timeout == 0 {
        let error =
            section.error_at("timeout", "timeout: without a limit a share that hangs would stop all runs");
        return Err(usage(error.hinted("set a number of seconds")));
    }

    let folder = Dir::folder(&host.path(options.path), host);
    Ok(Box::new(Dir {
        name: section.id.clone(),
        mountpoint: options.mountpoint,
        timeout: Duration::from_secs(options.timeout),
        ..folder
    }))
}

impl Dir {
    pub(super) fn folder(path: &Path, host: &Host) -> Self {
        Self {
            name: path.display().to_string(),
            path: path.to_owned(),
            mountpoint: false,
            timeout: Duration::from_secs(one_minute()),
            downloads: host.download_dir(),
            node: host.facts.node.clone(),
            may_hang: OnceLock::new(),
        }
    }

    fn may_hang(&self) -> bool {
        *self.may_hang.get_or_init(|| mounts::resolve(&self.path).1.is_some_and(|mount| mount.may_hang()))
    }

    /// Does it here, or where it can be given up.
    fn within<T: Serialize + DeserializeOwned>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.may_hang() {
            bounded::run(&self.name, &self.path.display().to_string(), limit, work)
        } else {
            work()
        }
    }

    fn copy_limit(&self, bytes: u64) -> Duration {
        transfer_limit(self.timeout, bytes, SLOWEST_BYTES_PER_SECOND, 1)
    }

    fn file(&self, id: &SnapshotId) -> PathBuf {
        self.path.join(id.host()).join(id.file_name())
    }

    /// A bare folder of snapshots (a stick, a download) works as well as a store's tree, but what lies there never
    /// stands for a snapshot in the directory of its host.
    fn existing(&self, id: &SnapshotId) -> PathBuf {
        let (own, bare) = (self.file(id), self.path.join(id.file_name()));
        let is_bare = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_file());
        if own.symlink_metadata().is_err() && is_bare(&bare) { bare } else { own }
    }

    fn check_mounted(&self) -> Result<()> {
        let (path, mount) = mounts::resolve(&self.path);
        if !self.mountpoint || mount.is_some_and(|mount| mount.point == path) {
            return Ok(());
        }
        let shown = self.path.display();
        let fault = Fault::failed(format!("store '{}': nothing is mounted on {shown}", self.name));
        Err(fault.hint(format!("mount it, or see why it is not: `mount {shown}`")).into())
    }

    fn trouble(&self, what: &str, path: &Path) -> String {
        format!("store '{}': cannot {what} {}", self.name, path.display())
    }

    /// Explains a failed write: the share or the USB stick may not be there any more.
    fn cannot_write(&self, target: &Path, error: anyhow::Error) -> anyhow::Error {
        let message = self.trouble("write", target);
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => error.context(
                Fault::failed(message)
                    .hint("it disappeared during the run; is its disk or share still mounted?"),
            ),
            _ => error.context(message),
        }
    }
}

impl Dir {
    /// Into the folder of its host. What was met there.
    fn put_into(&self, dir: &Path, file: &Path, target: &Path) -> Result<Vec<Problem>> {
        make_dir(dir).with_context(|| self.trouble("make", dir))?;
        // `list` enters no link: it may lead anywhere.
        if dir.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            let message = format!("{}: is a link, not a directory of this store", self.trouble("write", dir));
            let fault = Fault::failed(message);
            return Err(fault
                .hint("replace it by the directory; the path of the store itself may be a link")
                .into());
        }
        let owner = dir.symlink_metadata().with_context(|| self.trouble("read", dir))?.uid();
        if !self.owners().with_context(|| self.trouble("read", &self.path))?.trust(owner, owner) {
            let message =
                format!("{}: the directory belongs to the user {owner}", self.trouble("write", dir));
            let fault = Fault::failed(message);
            return Err(fault
                .hint("give it to root, once you know what lies in it: `chown root DIR`")
                .into());
        }
        let problems = sweep(dir).with_context(|| self.trouble("read", dir))?;
        place(file, target, dir).map_err(|error| self.cannot_write(target, error))?;
        Ok(problems)
    }

    /// Copies the file. Returns the problems on the way and the free bytes that remain.
    fn put_here(&self, file: &Path, target: &Path) -> Result<(Vec<Problem>, Option<u64>)> {
        let dir = target.parent().unwrap_or(&self.path);
        let not_there = |path: &&Path| matches!(path.try_exists(), Ok(false));
        let missing: Vec<&Path> = dir.ancestors().take_while(not_there).collect();
        let placed = self.put_into(dir, file, target);
        if placed.is_err() {
            // Goes only where it is empty.
            missing.into_iter().for_each(|made| drop(fs::remove_dir(made)));
        }
        Ok((placed?, free_space::now(dir).ok().map(|space| space.bytes)))
    }

    fn list_here(&self, host: Option<&str>) -> Result<Vec<FoundFile>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries.with_context(|| self.trouble("read", &self.path))?,
        };
        let owners = self.owners().with_context(|| self.trouble("read", &self.path))?;

        for entry in entries {
            let entry = entry.with_context(|| self.trouble("read", &self.path))?;
            let name = entry.file_name();
            let wanted = host.is_none_or(|host| name == host) && !name.as_encoded_bytes().starts_with(b".");
            if wanted && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let dir = entry.path();
                match scan(&dir, name.to_str(), &owners, &mut found) {
                    // lost+found and other people's directories are none of ours.
                    Err(error)
                        if host.is_none()
                            && name != *self.node
                            && error.kind() == io::ErrorKind::PermissionDenied =>
                    {
                        log::info!("{}: {error}", self.trouble("read", &dir));
                    }
                    scanned => scanned.with_context(|| self.trouble("read", &dir))?,
                }
            }
        }

        let own: BTreeSet<SnapshotId> = found.iter().map(|found| found.id.clone()).collect();
        let mut bare = Vec::new();
        scan(&self.path, host, &owners, &mut bare).with_context(|| self.trouble("read", &self.path))?;
        let bare = bare.into_iter().filter(|bare| !own.contains(&bare.id));
        found.extend(bare.map(|bare| FoundFile { stray: bare.stray.or(Some(Stray::Bare)), ..bare }));
        Ok(found)
    }

    /// Returns the users whose files count: those who may do anything to the store.
    fn owners(&self) -> io::Result<Owners> {
        let meta = fs::metadata(&self.path)?;
        // A share may make another user of root; with the directory closed to others nobody else comes in as him.
        let is_closed = meta.mode() & 0o002 == 0;
        Ok(Owners { store: meta.uid(), own: files::uid(), squashes: is_closed && self.may_hang() })
    }

    fn head_here(&self, id: &SnapshotId, len: usize) -> Result<Vec<u8>> {
        let path = self.existing(id);
        // All of it at once: a listing is as fast as its reads are few.
        let mut head = Vec::with_capacity(len);
        files::open_read(&path)
            .and_then(|(file, _)| file.take(len as u64).read_to_end(&mut head))
            .with_context(|| self.trouble("read", &path))?;
        Ok(head)
    }

    /// Removes snapshots and returns the result of each. Their directories are synced once, which takes longest.
    fn remove_here(&self, ids: &[SnapshotId]) -> Result<Vec<Result<(), String>>> {
        let mut folders = BTreeSet::new();
        let mut removed = Vec::with_capacity(ids.len());
        for id in ids {
            let path = self.file(id);
            removed.push(match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(format!("{}: {error}", self.trouble("remove", &path))),
                Ok(()) => {
                    folders.extend(path.parent().map(Path::to_owned));
                    Ok(())
                }
            });
        }

        for folder in folders {
            File::open(&folder)
                .and_then(|folder| files::sync_folder(&folder))
                .with_context(|| self.trouble("write", &folder))?;
            if folder != self.path {
                // Goes only where it is empty.
                let _ = fs::remove_dir(&folder);
            }
        }
        Ok(removed)
    }
}

impl Store for Dir {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn put(&self, file: &Path, id: &SnapshotId) -> Result<PutResult> {
        self.check_mounted()?;
        let target = self.file(id);
        let limit = self.copy_limit(fs::metadata(file)?.len());
        let (problems, free) = self.within(limit, || self.put_here(file, &target))?;
        // Only now it is sure to be mounted.
        let medium = mounts::resolve(&self.path).1.map(|mount| Medium {
            kind: mount.kind,
            source: mount.source,
            free,
        });
        Ok(PutResult { problems, place: target.display().to_string(), medium })
    }

    fn list(&self, host: Option<&str>) -> Result<Vec<FoundFile>> {
        self.check_mounted()?;
        if !self.may_hang() {
            return self.list_here(host);
        }
        let plain = |found: FoundFile| (found.id, found.size, found.stray);
        let found = self
            .within(self.timeout, || Ok(self.list_here(host)?.into_iter().map(plain).collect::<Vec<_>>()))?;
        let full = |(id, size, stray)| FoundFile { stray, ..FoundFile::new(id, size) };
        Ok(found.into_iter().map(full).collect())
    }

    fn head(&self, id: &SnapshotId, len: usize) -> Result<Vec<u8>> {
        self.within(self.timeout, || self.head_here(id, len))
    }

    fn heads(&self, found: &[FoundFile], len: usize) -> Option<Vec<Result<Vec<u8>>>> {
        if !self.may_hang() {
            return None;
        }
        let batches = found.chunks(HEADS_AT_ONCE).map(|batch| batch.iter().collect());
        Some(in_batches(&batches.collect::<Vec<_>>(), READERS, |batch| {
            let read = |one: &&FoundFile| self.head_here(&one.id, len).map_err(|error| format!("{error:#}"));
            let heads = self.within(self.timeout, || Ok(batch.iter().map(read).collect::<Vec<_>>()))?;
            Ok(heads.into_iter().map(|head| head.map_err(anyhow::Error::msg)).collect())
        }))
    }

    fn remove(&self, id: &SnapshotId) -> Result<()> {
        self.remove_many(std::slice::from_ref(id)).pop().unwrap_or_else(check_stopped)
    }

    fn remove_many(&self, ids: &[SnapshotId]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(ids.len());
        for batch in ids.chunks(REMOVED_AT_ONCE) {
            let removed = check_stopped().and_then(|()| self.check_mounted());
            match removed.and_then(|()| self.within(self.timeout, || self.remove_here(batch))) {
                Ok(removed) => results.extend(removed.into_iter().map(|one| one.map_err(anyhow::Error::msg))),
                // The rest would fail the same way.
                Err(error) => {
                    results.push(Err(error));
                    break;
                }
            }
        }
        results
    }

    fn get(&self, id: &SnapshotId) -> Result<Fetched> {
        if !self.may_hang() {
            return Ok(Fetched::in_place(self.existing(id)));
        }
        // Whoever reads it must not be stopped by a share that hangs.
        let (place, size) = self.within(self.timeout, || {
            let place = self.existing(id);
            let (_, stat) = files::open_read(&place).with_context(|| self.trouble("read", &place))?;
            Ok((place, stat.size))
        })?;
        let scratch = Scratch::new(&self.downloads)?;
        let copy = scratch.path().join(id.file_name());
        self.within(self.copy_limit(size), || {
            copy_file(&place, &copy).with_context(|| self.trouble("read", &place))
        })?;
        Ok(Fetched::downloaded(copy, place, scratch))
    }

    fn relics(&self) -> Result<Vec<Relic>> {
        self.check_mounted()?;
        let files = self.within(self.timeout, || {
            legacy::files(&self.path).with_context(|| self.trouble("read", &self.path))
        })?;
        Ok(legacy::among(&files))
    }

    fn relic_head(&self, path: &str, len: usize) -> Result<Vec<u8>> {
        self.within(self.timeout, || legacy::head(&self.path, path, len))
    }

    fn relic_get(&self, relic: &Relic) -> Result<Fetched> {
        let place = self.path.join(&relic.path);
        if !self.may_hang() {
            return Ok(Fetched::in_place(place));
        }

        let scratch = Scratch::new(&self.downloads)?;
        let copy = scratch.path().join(place.file_name().unwrap_or_default());
        self.within(self.copy_limit(relic.size), || {
            for ending in std::iter::once("").chain(relic.beside.iter().copied()) {
                let named = |path: &Path| {
                    PathBuf::from({
                        let mut named = path.as_os_str().to_owned();
                        named.push(ending);
                        named
                    })
                };
                copy_file(&named(&place), &named(&copy)).with_context(|| self.trouble("read", &place))?;
            }
            Ok(())
        })?;
        Ok(Fetched::downloaded(copy, place, scratch))
    }

    fn relic_remove(&self, relic: &Relic) -> Result<()> {
        self.check_mounted()?;
        self.within(self.timeout, || legacy::remove(&self.path, relic))
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

/// Makes a folder and what is missing above it, so that a power cut does not take it away again. What is there
/// may be the work of a run that was killed before it came to that, so the whole way up is synced every time.
fn make_dir(dir: &Path) -> io::Result<()> {
    files::make_private_dir(dir)?;
    let dir = fs::canonicalize(dir)?;
    let device = fs::metadata(&dir)?.dev();
    for above in dir.ancestors().skip(1) {
        // What we made we can open; what lies above the mount point is not part of the store.
        let Ok(folder) = File::open(above) else { break };
        if folder.metadata()?.dev() != device {
            break;
        }
        files::sync_folder(&folder)?;
    }
    Ok(())
}

/// Writes beside the final name, then renames; the folder is synced so that a power cut keeps it.
fn place(file: &Path, target: &Path, dir: &Path) -> Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();

    // A lister ignores it: it begins with a dot and does not end like a snapshot.
    let partial = dir.join(leftovers::locked_name(&name));
    let placed = link_or_copy(file, &partial, dir).and_then(|()| {
        // Opened before: after the rename nothing shall fail that need not.
        let folder = File::open(dir)?;
        files::rename_new(&partial, target).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::new(error.kind(), "a snapshot of this name exists"),
            _ => error,
        })?;
        Ok(files::sync_folder(&folder)?)
    });
    if placed.is_err() {
        let _ = fs::remove_file(&partial);
    }
    placed
}

/// Removes what a killed run left half copied. A host's folder is written by one run at a time.
fn sweep(dir: &Path) -> io::Result<Vec<Problem>> {
    leftovers::sweep_files(dir, |name| {
        leftovers::parse_locked(name).and_then(SnapshotId::from_file_name).is_some()
    })
}

/// Those whose files a store takes for its own.
struct Owners {
    store: u32,
    own: u32,
    /// Set where the owner of a host's directory counts, too.
    squashes: bool,
}

impl Owners {
    /// `dir` is the owner of the directory of a host, and what lies in it is judged by `file`.
    fn trust(&self, dir: u32, file: u32) -> bool {
        let is_known = |uid| uid == 0 || uid == self.store || uid == self.own;
        is_known(file) && is_known(dir) || self.squashes && file == dir
    }
}

/// Finds the snapshots of a host that lie directly in a folder. `host`: None for those of all.
fn scan(dir: &Path, host: Option<&str>, owners: &Owners, found: &mut Vec<FoundFile>) -> io::Result<()> {
    let dir_owner = fs::symlink_metadata(dir)?.uid();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(SnapshotId::from_file_name) else { continue };
        if host.is_some_and(|host| host != id.host()) {
            continue;
        }
        let meta = entry.metadata()?;
        if meta.is_file() {
            let stray = (!owners.trust(dir_owner, meta.uid())).then_some(Stray::Owner);
            found.push(FoundFile { stray, ..FoundFile::new(id, meta.size()) });
            check_count(found.len())?;
        }
    }
    Ok(())
}

/// A second name costs nothing; where the file system is another one, a durable copy.
fn link_or_copy(from: &Path, to: &Path, dir: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let size = fs::metadata(from)?.len();
    // A file system that does not know says nothing, or 0 of 0.
    if let Some(free) =
        free_space::now(dir).ok().map(|space| space.ours).filter(|free| (1..size).contains(free))
    {
        let message = format!("no space left on device: it needs {size} bytes, and {free} are free");
        return Err(io::Error::new(io::ErrorKind::StorageFull, message).into());
    }
    copy_file(from, to)
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let (mut source, _) = files::open_read(from)?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    while io::copy(&mut source.by_ref().take(COPY_STEP_BYTES), &mut copy)? > 0 {
        check_stopped()?;
    }
    Ok(copy.sync_all()?)
}
