//! One file, link or folder of a disk put in place of what has its name: made beside it, complete with owner, mode,
//! attributes and time, on the disk, and then renamed over it. Whoever looks sees the old one or the new one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::contained_dir::{self, ContainedDir};
use crate::model::index::{EntryKind, Mtime, Name, Xattr};

/// What it is to have beside its contents.
#[derive(Debug, Clone, Copy)]
pub struct Meta<'a> {
    pub owner: (u32, u32),
    pub mode: u32,
    pub xattrs: &'a [Xattr],
    pub mtime: Mtime,
}

/// `temp` is a name in the same folder; one that a killed run left goes first.
/// Attributes that cannot be kept come back.
pub fn file(
    root: &ContainedDir,
    path: &Path,
    temp: &str,
    content: &mut dyn Read,
    meta: &Meta,
) -> io::Result<Vec<String>> {
    let temp = beside(root, path, temp)?;
    let mut write = || -> io::Result<Vec<String>> {
        let mut file = root.file(&temp)?;
        io::copy(content, &mut file)?;
        let lost = contained_dir::finish(&file, Some(meta.owner), meta.mode, meta.xattrs, meta.mtime)?;
        file.sync_all()?;
        root.rename(&temp, path)?;
        Ok(lost)
    };
    write().inspect_err(|_| drop(root.remove(&temp)))
}

pub fn symlink(root: &ContainedDir, path: &Path, temp: &str, target: &Name, meta: &Meta) -> io::Result<()> {
    let temp = beside(root, path, temp)?;
    let write = || -> io::Result<()> {
        root.symlink(&temp, target.as_bytes())?;
        root.finish_link(&temp, Some(meta.owner), meta.mtime)?;
        root.rename(&temp, path)
    };
    write().inspect_err(|_| drop(root.remove(&temp)))
}

/// A folder that is there gets exactly this owner, mode and attributes.
pub fn dir(root: &ContainedDir, path: &Path, meta: &Meta) -> io::Result<Vec<String>> {
    root.dir(path)?;
    let folder: File = root.reopen(path)?;
    contained_dir::finish_exactly(&folder, Some(meta.owner), meta.mode, meta.xattrs, meta.mtime)
}

/// Removes what was made there. True when nothing is left of it: a folder with something in it stays.
pub fn remove(root: &ContainedDir, path: &Path, kind: EntryKind) -> io::Result<bool> {
    let removed = if kind == EntryKind::Dir { root.remove_dir(path) } else { root.remove(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// The time of a folder, where it is still there.
pub fn set_time(root: &ContainedDir, path: &Path, mtime: Mtime) -> io::Result<()> {
    match root.reopen(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => contained_dir::set_time(&opened?, mtime),
    }
}

fn beside(root: &ContainedDir, path: &Path, temp: &str) -> io::Result<PathBuf> {
    let temp = path.with_file_name(temp);
    match root.remove(&temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(temp),
    }
}
