//! Writing a tree below a folder that nothing in its names can leave: every path is opened with openat2,
//! beneath the folder and through no link; what is there already is never touched.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat, renameat};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, syncfs, unlinkat};
use xattr::FileExt;

use super::files::{self, Stat};
use crate::model::index::{Mtime, Xattr};

/// An open folder below which a tree is made.
pub struct ContainedDir {
    dir: OwnedFd,
}

impl From<OwnedFd> for ContainedDir {
    fn from(dir: OwnedFd) -> Self {
        Self { dir }
    }
}

impl AsFd for ContainedDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl ContainedDir {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { dir: open(path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())? })
    }

    /// Makes all that was made here survive a power cut. One call for the whole file system: a journal is written
    /// once, where a sync of every file would write it for each.
    pub fn sync(&self) -> io::Result<()> {
        Ok(syncfs(&self.dir)?)
    }

    /// The same of every file system that one of these paths lies on.
    pub fn sync_around<'a>(&self, paths: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        let folders: HashSet<&Path> = paths.filter_map(Path::parent).collect();
        let mut synced = HashSet::new();
        for folder in folders {
            // One that is gone was removed from the first above it that is there.
            let there =
                folder.ancestors().find_map(|above| self.at(above, OFlag::O_DIRECTORY, Mode::empty()).ok());
            let there = there.map_or_else(|| self.dir.try_clone(), Ok)?;
            if synced.insert(fstat(&there)?.st_dev) {
                syncfs(&there)?;
            }
        }
        Ok(())
    }

    fn at(&self, path: &Path, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        Ok(files::retried(|| self.open_at(path, flags, mode))?)
    }

    fn open_at(&self, path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how =
            OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).mode(mode).resolve(resolve);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.dir, path, how)
    }

    /// The open folder of a path, and its last component.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let opened = self.at(parent, OFlag::O_DIRECTORY | OFlag::O_PATH, Mode::empty());
        let opened = opened.map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENOTDIR) => {
                io::Error::new(io::ErrorKind::NotADirectory, "its directory is a link or a file now")
            }
            _ => error,
        });
        Ok((opened?, name))
    }

    /// Makes a folder, private until it gets its mode. One that is there is fine.
    pub fn dir(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes all folders above a path.
    pub fn parents(&self, path: &Path) -> io::Result<()> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        above.reverse();
        above.into_iter().try_for_each(|parent| self.dir(parent))
    }

    /// Makes a new file, readable by its owner only.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        Ok(File::from(self.at(path, flags, Mode::S_IRUSR | Mode::S_IWUSR)?))
    }

    /// Makes a symbolic link; its target is stored, never followed.
    pub fn symlink(&self, path: &Path, target: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(symlinkat(OsStr::from_bytes(target), &parent, name)?)
    }

    /// Gives a file that was made here a second name.
    pub fn hard_link(&self, first: &Path, path: &Path) -> io::Result<()> {
        let (from, from_name) = self.parent(first)?;
        let (to, to_name) = self.parent(path)?;
        Ok(linkat(&from, from_name, &to, to_name, AtFlags::empty())?)
    }

    /// Opens what was made here, to give it its owner, mode and times. Not for links.
    pub fn reopen(&self, path: &Path) -> io::Result<File> {
        Ok(File::from(self.at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?))
    }

    /// Opens a regular file as `files::open_read` does.
    pub fn open_read(&self, path: &Path) -> io::Result<(File, Stat)> {
        files::open_read_with(|flags| self.open_at(path, flags, Mode::empty()))
    }

    /// Returns the state of a path, its last component not followed.
    pub fn lstat(&self, path: &Path) -> io::Result<Stat> {
        let file = File::from(self.at(path, OFlag::O_PATH, Mode::empty())?);
        Ok(Stat::from(&file.metadata()?))
    }

    /// Returns the extended attributes of a directory.
    pub fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>> {
        files::opened_xattrs(&self.at(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?)
    }

    /// Returns the target of a symbolic link.
    pub fn read_link(&self, path: &Path) -> io::Result<OsString> {
        Ok(readlinkat(self.at(path, OFlag::O_PATH, Mode::empty())?, "")?)
    }

    /// Gives what was made here the name of what it replaces.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, old_name) = self.parent(from)?;
        let (new, new_name) = self.parent(to)?;
        Ok(renameat(&old, old_name, &new, new_name)?)
    }

    /// Removes a file or a link.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes an empty folder.
    pub fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(unlinkat(&parent, name, UnlinkatFlags::RemoveDir)?)
    }

    /// Owner (when given) and time of a symbolic link.
    pub fn finish_link(&self, path: &Path, owner: Option<(u32, u32)>, mtime: Mtime) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        if let Some((uid, gid)) = owner {
            let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fchownat(&parent, name, ids.0, ids.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        let time = time_spec(mtime);
        Ok(utimensat(&parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
    }
}

/// Owner first (it takes setuid and capabilities away), then attributes (who is not root cannot set them on what
/// is read-only; an ACL changes the mode, and the mode's bits are its mask), then mode and time.
/// Attributes that cannot be kept come back.
pub fn finish(
    file: &File,
    owner: Option<(u32, u32)>,
    mode: u32,
    xattrs: &[Xattr],
    mtime: Mtime,
) -> io::Result<Vec<String>> {
    if let Some((uid, gid)) = owner {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    let lost = xattrs.iter().filter(|xattr| file.set_xattr(&xattr.name, &xattr.value).is_err());
    let lost = lost.map(|xattr| xattr.name.clone()).collect();
    // Without the owner, setuid would make a program run as the wrong one.
    let mode = if owner.is_some() { mode & 0o7777 } else { mode & 0o777 };
    fchmod(file.as_fd(), Mode::from_bits_truncate(mode))?;
    let time = time_spec(mtime);
    nix::sys::stat::futimens(file, &time, &time)?;
    Ok(lost)
}

/// The same of what is there already: attributes that it has beyond these go.
pub fn finish_exactly(
    file: &File,
    owner: Option<(u32, u32)>,
    mode: u32,
    xattrs: &[Xattr],
    mtime: Mtime,
) -> io::Result<Vec<String>> {
    for extra in files::file_xattrs(file)? {
        if !xattrs.iter().any(|wanted| wanted.name == extra.name) {
            // One of the kernel's own stays; the comparison afterwards tells.
            let _ = file.remove_xattr(&extra.name);
        }
    }
    finish(file, owner, mode, xattrs, mtime)
}

/// Sets the time of a folder or file, and nothing else.
pub fn set_time(file: &File, mtime: Mtime) -> io::Result<()> {
    let time = time_spec(mtime);
    Ok(nix::sys::stat::futimens(file, &time, &time)?)
}

fn time_spec(Mtime(seconds, nanos): Mtime) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanos.min(999_999_999)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_is_made_outside_or_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink(dir.path(), inside.join("out")).unwrap();
        let beneath = ContainedDir::open(&inside).unwrap();
        for path in ["../x", "out/x", "/tmp/x-of-pbx-test"] {
            assert!(beneath.file(Path::new(path)).is_err(), "{path}");
            assert!(beneath.dir(Path::new(path)).is_err(), "{path}");
            assert!(beneath.symlink(Path::new(path), b"y").is_err(), "{path}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "old").unwrap();
        let beneath = ContainedDir::open(dir.path()).unwrap();
        assert!(beneath.file(Path::new("a")).is_err());
        assert!(beneath.symlink(Path::new("a"), b"x").is_err());
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"old");
    }
}
