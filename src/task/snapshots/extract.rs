//! `restore --to DIR`: takes a snapshot's files out into a new directory. The whole snapshot is proven first, and the
//! directory appears only when it is complete.

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{ChosenSnapshot, verify};
use crate::archive::tar::TarMember;
use crate::model::index::{Entry, EntryKind, Index, Name};
use crate::model::problem::{Fault, Problem};
use crate::model::snapshot::SnapshotId;
use crate::plan::select::Selection;
use crate::sys::fs::contained_dir::{self, ContainedDir};
use crate::sys::fs::files;
use crate::sys::fs::glob::Pattern;
use crate::sys::fs::staging::Staging;
use crate::sys::process::signals::check_stopped;

pub struct ExtractRequest {
    pub selection: Selection,
    /// Globs; empty means every path.
    pub paths: Vec<Pattern>,
    pub to: PathBuf,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Extracted {
    pub id: SnapshotId,
    pub to: Name,
    pub entries: u64,
    pub bytes: u64,
    pub problems: Vec<Problem>,
}

/// Returns the entries that would be taken out.
pub fn plan<'a>(index: &'a Index, request: &ExtractRequest) -> Vec<&'a Entry> {
    let wanted = |entry: &&Entry| {
        request.selection.takes(&entry.item)
            && (request.paths.is_empty()
                || request.paths.iter().any(|glob| glob.covers(entry.path.as_path())))
    };
    let chosen: Vec<&Entry> = index.entries.iter().filter(wanted).collect();

    // A second name of a file is nothing without the file, and a file is nothing without its directories' modes.
    let mut needed: HashSet<&Name> = chosen.iter().map(|entry| &entry.path).collect();
    needed.extend(
        chosen
            .iter()
            .filter(|entry| entry.kind == EntryKind::Hardlink)
            .filter_map(|entry| entry.link.as_ref()),
    );

    let above: HashSet<Name> =
        needed.iter().flat_map(|name| name.as_path().ancestors().skip(1)).map(Name::from).collect();
    index.entries.iter().filter(|entry| needed.contains(&entry.path) || above.contains(&entry.path)).collect()
}

/// A directory that is there keeps its owner and mode, though it is another one then.
pub fn run(chosen: &ChosenSnapshot, request: &ExtractRequest) -> Result<Extracted> {
    request.selection.check()?;
    let to = resolve(&request.to).map_err(|error| cannot_make(&request.to, error))?;
    check_target(&to)?;

    let index = verify::verify(chosen)?.index;
    let keys = RandomState::new();
    let wanted: HashSet<u64> =
        plan(&index, request).into_iter().map(|entry| keys.hash_one(&entry.path)).collect();
    if wanted.is_empty() {
        let fault = Fault::not_found(format!("nothing in {} is selected", index.id));
        return Err(fault.hint("see `pbx-config show SNAP --files`").into());
    }
    // It is read once more, with an index of its own; until then, hashes are all that is kept of the names.
    drop(index);

    let is_current = is_current(&to);
    let mut staging = Staging::new(&to).map_err(|error| cannot_make(&to, error))?;
    let mut problems = std::mem::take(&mut staging.problems);
    let (index, met) = fill(chosen, staging.dir(), &to, &|path| wanted.contains(&keys.hash_one(path)))?;
    staging.become_target().map_err(|error| cannot_make(&to, error))?;
    problems.extend(met);
    if is_current {
        let what = format!("{}: was replaced, and is your current directory", to.display());
        problems.push(Problem::notice(what).hint("run `cd .` to enter the new one"));
    }

    Ok(Extracted {
        id: index.id,
        to: request.to.as_path().into(),
        entries: index.entries.len() as u64,
        bytes: index.entries.iter().map(|entry| entry.size).sum(),
        problems,
    })
}

/// The path whose last component is the directory's own name: not `.`, not a link to it.
/// Any other is left as it is; the directories above it may be none that we can read.
pub(crate) fn resolve(to: &Path) -> io::Result<PathBuf> {
    // Without a slash or dot at its end, behind which a link would not be seen.
    let plain: PathBuf = to.components().collect();
    let link = fs::symlink_metadata(&plain).is_ok_and(|meta| meta.is_symlink());
    if plain.file_name().is_none() || link { fs::canonicalize(to) } else { Ok(plain) }
}

fn is_current(to: &Path) -> bool {
    let place = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!((place(to), place(Path::new("."))), (Ok(target), Ok(current)) if target == current)
}

pub(crate) fn check_target(to: &Path) -> Result<()> {
    let used = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(cannot_make(to, error)),
    };
    if used {
        let fault = Fault::usage(format!("{}: is not empty", to.display()));
        return Err(fault.hint("use an empty or a new directory").into());
    }
    Ok(())
}

pub(crate) fn cannot_make(to: &Path, error: io::Error) -> anyhow::Error {
    let fault = Fault::failed(format!("cannot create {}", to.display()));
    let fault = match error.kind() {
        io::ErrorKind::ResourceBusy => fault.hint("it is a mount point; use a directory below it"),
        io::ErrorKind::NotFound if to.is_symlink() => fault.hint("it is a link to nothing; remove it"),
        io::ErrorKind::PermissionDenied if error.get_ref().is_some() => {
            fault.hint("name a directory where only you and root may write, such as one below /root")
        }
        io::ErrorKind::NotFound => fault.hint("its parent directory must exist"),
        _ => fault,
    };
    anyhow::Error::from(error).context(fault)
}

/// Writes the entries; returns an index of those that were made, and the problems on the way.
fn fill(
    chosen: &ChosenSnapshot,
    target: &ContainedDir,
    to: &Path,
    is_wanted: &dyn Fn(&Name) -> bool,
) -> Result<(Index, Vec<Problem>)> {
    let mut left_out: HashSet<Name> = HashSet::new();
    let mut problems = Vec::new();
    let mut archive = chosen.open()?;
    let id = archive.snapshot().id.clone();

    let mut index = archive.read(&chosen.path, &mut |entry, content| {
        check_stopped()?;
        if !is_wanted(&entry.path) {
            return Ok(());
        }
        let first_left_out = entry.kind == EntryKind::Hardlink
            && entry.link.as_ref().is_some_and(|link| left_out.contains(link));
        match make(target, entry, content) {
            // pmxcfs takes names that no disk does. One of them must not cost all the others.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename || first_left_out => {
                let what = format!("{}: its name is too long here, skipped", entry.path);
                let hint = format!("`pbx-config cat {id} PATH` writes a file under another name");
                problems.push(Problem::error(what).hint(hint));
                left_out.insert(entry.path.clone());
                Ok(())
            }
            // As it will be called, not as it is while it is staged.
            made => made.with_context(|| format!("cannot write {}", to.join(entry.path.as_path()).display())),
        }
    })?;
    index.entries.retain(|entry| is_wanted(&entry.path) && !left_out.contains(&entry.path));
    problems.extend(finish(target, to, &index.entries)?);
    Ok((index, problems))
}

fn make(target: &ContainedDir, entry: &TarMember, content: &mut dyn Read) -> io::Result<()> {
    let path = entry.path.as_path();
    target.parents(path)?;
    match (entry.kind, &entry.link) {
        (EntryKind::Dir, _) => target.dir(path),
        (EntryKind::File, _) => io::copy(content, &mut target.file(path)?).map(drop),
        (EntryKind::Symlink, Some(link)) => target.symlink(path, link.as_bytes()),
        (EntryKind::Hardlink, Some(first)) => target.hard_link(first.as_path(), path),
        _ => Ok(()),
    }
}

/// Owners, modes, attributes and times, directories last: writing into one would change its time again.
fn finish(target: &ContainedDir, to: &Path, entries: &[Entry]) -> Result<Vec<Problem>> {
    let root = files::is_root();
    let mut lost = Vec::new();
    for entry in entries.iter().rev() {
        let path = entry.path.as_path();
        let owner = root.then_some((entry.uid, entry.gid));
        let what = || format!("cannot set owner and mode of {}", to.join(path).display());
        match entry.kind {
            EntryKind::Symlink => target.finish_link(path, owner, entry.mtime).with_context(what)?,
            EntryKind::Hardlink => {}
            EntryKind::File | EntryKind::Dir => {
                let file = target.reopen(path).with_context(what)?;
                let names = contained_dir::finish(&file, owner, entry.mode, &entry.xattrs, entry.mtime)
                    .with_context(what)?;
                lost.extend(names.into_iter().map(|name| format!("{}: {name}", entry.path)));
            }
        }
    }

    let problem = |what| Problem::notice(format!("{what}: this attribute cannot be set here"));
    Ok(lost.into_iter().map(problem).collect())
}
