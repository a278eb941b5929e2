//! `decrypt SNAP --to DIR`: writes the content of a snapshot file in the clear, as files that tar and its codec's
//! tool open. The snapshot is proven first, and the directory appears when it is complete.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{ChosenSnapshot, extract, verify};
use crate::archive::legacy::Manifest;
use crate::archive::reader::Archive;
use crate::archive::seal::SEALED_EXT;
use crate::archive::writer::{HOWTO_NAME, MANIFEST_NAME, howto_beside};
use crate::model::index::Name;
use crate::model::legacy;
use crate::model::problem::Problem;
use crate::model::snapshot::{Payload, Snapshot, SnapshotId};
use crate::sys::fs::contained_dir::ContainedDir;
use crate::sys::fs::staging::Staging;

const BUFFER_BYTES: usize = 256 * 1024;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Decrypted {
    pub id: SnapshotId,
    pub to: Name,
    /// False: it was in the clear before.
    pub was_sealed: bool,
    /// The files in the directory now, with their size in bytes.
    pub files: Vec<(String, u64)>,
    /// Files of the host in it.
    pub host_files: u64,
    pub problems: Vec<Problem>,
}

/// Errors: `Usage` for a target that is not empty, `Unseal`, `Verification`.
pub fn run(chosen: &ChosenSnapshot, to: &Path) -> Result<Decrypted> {
    let target = extract::resolve(to).map_err(|error| extract::cannot_make(to, error))?;
    extract::check_target(&target)?;

    let proven = verify::verify(chosen)?;
    let mut staging = Staging::new(&target).map_err(|error| extract::cannot_make(&target, error))?;
    let problems = std::mem::take(&mut staging.problems);
    let (snapshot, files) = fill(&mut chosen.open()?, &chosen.path, staging.dir())?;
    staging.become_target().map_err(|error| extract::cannot_make(&target, error))?;

    Ok(Decrypted {
        id: snapshot.id.clone(),
        to: to.into(),
        was_sealed: snapshot.sealed.is_some(),
        files,
        host_files: proven.snapshot.counts.files,
        problems,
    })
}

/// Writes the files that the legacy program leaves: the archive, its manifest, its checksum.
fn fill_old(
    archive: &mut Archive,
    old: &Manifest,
    path: &Path,
    staging: &ContainedDir,
) -> Result<(Snapshot, Vec<(String, u64)>)> {
    let before = archive.snapshot().clone();
    let name = before.payload.name.strip_suffix(SEALED_EXT).unwrap_or(&before.payload.name);
    let mut made = (0, String::new());
    make(staging, name, |file| {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        made = archive.unseal(path, &mut out)?;
        Ok(out.flush()?)
    })?;

    let (size, sha256) = made;
    let manifest = serde_json::to_vec_pretty(&old.cleared(name, size, &sha256))?;
    let checksum = format!("{sha256}  {name}\n").into_bytes();
    let mut files = vec![(name.to_owned(), size)];
    for (ending, text) in [(legacy::METADATA, manifest), (legacy::SHA256, checksum)] {
        let name = format!("{name}{ending}");
        make(staging, &name, |mut file| Ok(file.write_all(&text)?))?;
        files.push((name, text.len() as u64));
    }
    Ok((before, files))
}

/// Three files. The manifest is the snapshot's, but of the clear payload.
fn fill(
    archive: &mut Archive,
    path: &Path,
    staging: &ContainedDir,
) -> Result<(Snapshot, Vec<(String, u64)>)> {
    if let Some(old) = archive.old.clone() {
        return fill_old(archive, &old, path, staging);
    }

    let before = archive.snapshot().clone();
    let name = before.payload.name.strip_suffix(SEALED_EXT).unwrap_or(&before.payload.name);
    let mut clear = Snapshot { sealed: None, howto: None, ..before.clone() };
    make(staging, name, |file| {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let (size, sha256) = archive.unseal(path, &mut out)?;
        clear.payload = Payload { name: name.to_owned(), size, sha256 };
        Ok(out.flush()?)
    })?;

    let mut files = vec![(name.to_owned(), clear.payload.size)];
    let mut manifest = serde_json::to_vec_pretty(&clear)?;
    manifest.push(b'\n');
    for (name, text) in [(MANIFEST_NAME, manifest), (HOWTO_NAME, howto_beside(&clear)?.into_bytes())] {
        make(staging, name, |mut file| Ok(file.write_all(&text)?))?;
        files.push((name.to_owned(), text.len() as u64));
    }
    Ok((before, files))
}

/// A file that only its owner reads, durable when it is done.
fn make(dir: &ContainedDir, name: &str, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let file = dir.file(Path::new(name)).with_context(|| format!("cannot write {name}"))?;
    write(&file).with_context(|| format!("cannot write {name}"))?;
    file.sync_all().with_context(|| format!("cannot write {name}"))
}
