//! `dir`: a folder, one sub-folder a host. Snapshots appear by rename, so a listing never shows half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Fetched, Found, Placed, Store};
use crate::model::report::{Fault, FaultKind, Problem};
use crate::model::section::Section;
use crate::model::snapshot::SnapshotId;
use crate::sys::files;
use crate::sys::host::Host;
use crate::sys::lock::check_stopped;

/// Between two pieces of a copy a signal is looked for.
const COPY_STEP_BYTES: u64 = 4 << 20;

/// `dir: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    path: String,
    /// The path must be a mount point, so that a disk that is not there is not taken for an empty one.
    #[serde(default)]
    mountpoint: bool,
}

pub(super) struct Dir {
    name: String,
    path: PathBuf,
    mountpoint: bool,
}

pub(super) fn open(section: &Section, host: &Host) -> Result<Box<dyn Store>> {
    let usage = |error: crate::model::section::SyntaxError| {
        let mut fault = Fault::new(FaultKind::Usage, error.to_string());
        fault.hint = error.hint().map(str::to_owned);
        fault
    };
    let options: Options = section.read().map_err(usage)?;
    if !options.path.starts_with('/') {
        return Err(usage(section.error_at("path", "path: must be absolute")).into());
    }
    Ok(Box::new(Dir {
        name: section.id.clone(),
        path: host.path(options.path),
        mountpoint: options.mountpoint,
    }))
}

impl Dir {
    pub(super) fn folder(path: &Path) -> Self {
        Self { name: path.display().to_string(), path: path.to_owned(), mountpoint: false }
    }

    fn file(&self, id: &SnapshotId) -> PathBuf {
        self.path.join(id.host()).join(id.file_name())
    }

    /// A bare folder of snapshots (a stick, a download) works as well as a store's tree.
    fn existing(&self, id: &SnapshotId) -> PathBuf {
        let bare = self.path.join(id.file_name());
        if bare.is_file() { bare } else { self.file(id) }
    }

    fn check_mounted(&self) -> Result<()> {
        if !self.mountpoint || is_mountpoint(&self.path) {
            return Ok(());
        }
        let shown = self.path.display();
        let fault =
            Fault::new(FaultKind::Failed, format!("store '{}': nothing is mounted on {shown}", self.name));
        Err(fault.hint(format!("mount it, or see why it is not: `mount {shown}`")).into())
    }

    fn trouble(&self, what: &str, path: &Path) -> String {
        format!("store '{}': cannot {what} {}", self.name, path.display())
    }

    /// What was being written to may be a share or a stick that is not there any more.
    fn cannot_write(&self, target: &Path, error: anyhow::Error) -> anyhow::Error {
        let message = self.trouble("write", target);
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => error.context(
                Fault::new(FaultKind::Failed, message)
                    .hint("it went away meanwhile; is its disk or share still mounted?"),
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
            let message = format!("{}: is a link, not a folder of this store", self.trouble("write", dir));
            let fault = Fault::new(FaultKind::Failed, message);
            return Err(fault.hint("replace it by the folder; the store's path itself may be a link").into());
        }
        let problems = sweep(dir).with_context(|| self.trouble("read", dir))?;
        place(file, target, dir).map_err(|error| self.cannot_write(target, error))?;
        Ok(problems)
    }
}

impl Store for Dir {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn put(&self, file: &Path, id: &SnapshotId) -> Result<Placed> {
        self.check_mounted()?;
        let target = self.file(id);
        let dir = target.parent().unwrap_or(&self.path);
        let not_there = |path: &&Path| matches!(path.try_exists(), Ok(false));
        let missing: Vec<&Path> = dir.ancestors().take_while(not_there).collect();
        let placed = self.put_into(dir, file, &target);
        if placed.is_err() {
            // Goes only where it is empty.
            missing.into_iter().for_each(|made| drop(fs::remove_dir(made)));
        }
        Ok(Placed { problems: placed?, place: target.display().to_string() })
    }

    fn list(&self, host: Option<&str>) -> Result<Vec<Found>> {
        self.check_mounted()?;
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries.with_context(|| self.trouble("read", &self.path))?,
        };
        for entry in entries {
            let entry = entry.with_context(|| self.trouble("read", &self.path))?;
            let name = entry.file_name();
            let wanted = host.is_none_or(|host| name == host) && !name.as_encoded_bytes().starts_with(b".");
            if wanted && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let dir = entry.path();
                match scan(&dir, host, &mut found) {
                    // lost+found and other people's folders are none of ours.
                    Err(error) if host.is_none() && error.kind() == io::ErrorKind::PermissionDenied => {}
                    scanned => scanned.with_context(|| self.trouble("read", &dir))?,
                }
            }
        }
        scan(&self.path, host, &mut found).with_context(|| self.trouble("read", &self.path))?;
        Ok(found)
    }

    fn head(&self, id: &SnapshotId, len: usize) -> Result<Vec<u8>> {
        let path = self.existing(id);
        // All of it at once: a listing is as fast as its reads are few.
        let mut head = Vec::with_capacity(len);
        File::open(&path)
            .and_then(|file| file.take(len as u64).read_to_end(&mut head))
            .with_context(|| self.trouble("read", &path))?;
        Ok(head)
    }

    fn remove(&self, id: &SnapshotId) -> Result<()> {
        self.check_mounted()?;
        let path = self.existing(id);
        let removed = fs::remove_file(&path).and_then(|()| {
            let folder = path.parent().unwrap_or(&self.path);
            files::sync_folder(&File::open(folder)?)
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| self.trouble("remove", &path)),
        }
    }

    fn get(&self, id: &SnapshotId) -> Result<Fetched> {
        Ok(Fetched::in_place(self.existing(id)))
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
    let partial = dir.join(format!(".{name}.partial"));
    let placed = link_or_copy(file, &partial).and_then(|()| {
        // Opened before: after the rename nothing shall fail that need not.
        let folder = File::open(dir)?;
        files::rename_new(&partial, target).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::new(error.kind(), "a snapshot of this name is there"),
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
    let mut problems = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let half = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".partial"));
        if half.is_some_and(|name| SnapshotId::from_file_name(name).is_some()) {
            problems.push(files::left(&entry.path(), fs::remove_file(entry.path())));
        }
    }
    Ok(problems)
}

/// The snapshots that lie directly in a folder.
fn scan(dir: &Path, host: Option<&str>, found: &mut Vec<Found>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(SnapshotId::from_file_name) else { continue };
        if host.is_some_and(|host| host != id.host()) {
            continue;
        }
        let meta = entry.metadata()?;
        if meta.is_file() {
            found.push(Found::new(id, meta.size()));
        }
    }
    Ok(())
}

/// A second name costs nothing; where the file system is another one, a durable copy.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let mut source = File::open(from)?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    while io::copy(&mut source.by_ref().take(COPY_STEP_BYTES), &mut copy)? > 0 {
        check_stopped()?;
    }
    Ok(copy.sync_all()?)
}

/// Told from the kernel's table; the path itself is not touched, it may hang.
fn is_mountpoint(path: &Path) -> bool {
    let resolved = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => fs::canonicalize(parent).map(|parent| parent.join(name)),
        _ => Ok(path.to_owned()),
    };
    resolved.is_ok_and(|path| files::mounts().iter().any(|(point, _)| *point == path))
}
