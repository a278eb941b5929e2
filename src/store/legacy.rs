//! The predecessor's archives in a folder: they lie flat in it, or one folder deeper, beside what is ours.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};

use super::check_count;
use crate::model::legacy::{LegacyName, SIDECARS};
use crate::sys::fs::files;

/// An archive of the predecessor as a listing tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relic {
    /// Below the store's folder.
    pub path: String,
    pub name: LegacyName,
    pub size: u64,
    /// Endings of the files that belong to it, when it is loose.
    pub beside: Vec<&'static str>,
}

/// Those among file names with their sizes. A loose archive that lies in a bundle too is told once.
pub fn among(files: &BTreeMap<String, u64>) -> Vec<Relic> {
    let mut relics = Vec::new();
    for (path, size) in files {
        let (folder, file) =
            path.rsplit_once('/').map_or(("", path.as_str()), |(folder, file)| (folder, file));
        let Some(name) = LegacyName::parse(file) else { continue };
        let bundle = format!("{path}.bundle.tar");
        if !name.bundle && files.contains_key(&bundle) || folder.contains('/') {
            continue;
        }
        let there = |ending: &&&'static str| files.contains_key(&format!("{path}{ending}"));
        let beside = SIDECARS.iter().filter(|_| !name.bundle).filter(there).copied().collect();
        relics.push(Relic { path: path.clone(), name, size: *size, beside });
    }
    relics
}

/// Files of a folder and of the folders right below it. One that may not be read holds none of ours.
pub fn files(top: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let mut folders = Vec::new();

    let entries = match fs::read_dir(top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            folders.push(name);
            check_count(folders.len())?;
        } else if kind.is_file() && is_part(&name) {
            found.insert(name, entry.metadata()?.len());
            check_count(found.len())?;
        }
    }

    for folder in folders {
        let entries = match fs::read_dir(top.join(&folder)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_part(&name) && entry.file_type()?.is_file() {
                found.insert(format!("{folder}/{name}"), entry.metadata()?.len());
                check_count(found.len())?;
            }
        }
    }
    Ok(found)
}

/// An archive or what belongs to one.
fn is_part(name: &str) -> bool {
    let archive = SIDECARS.iter().rev().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    LegacyName::parse(archive).is_some()
}

/// The first bytes of a file of the folder.
pub fn head(top: &Path, path: &str, len: usize) -> Result<Vec<u8>> {
    let file = top.join(path);
    let mut bytes = Vec::with_capacity(len);
    files::open_read(&file)
        .and_then(|(file, _)| file.take(len as u64).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", file.display()))?;
    Ok(bytes)
}

/// Removes an archive, and what belongs to it after it: what is left of a stop is no archive.
pub fn remove(top: &Path, relic: &Relic) -> Result<()> {
    let archive = top.join(&relic.path);
    let beside = relic.beside.iter().map(|ending| top.join(format!("{}{ending}", relic.path)));
    for path in std::iter::once(archive.clone()).chain(beside) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("cannot remove {}", path.display()))?,
        }
    }
    Ok(files::sync_dir(archive.parent().unwrap_or(top))?)
}
