//! Directories of a host and what lies in them. In another system below its root they are opened through no link, so
//! that nothing in its tree leads onto the machine that we run on; FIFOs and devices are never opened.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, mkdirat};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, geteuid, syncfs, unlinkat};

use super::fs::files::{self, retried};
use super::fs::leftovers;
use crate::model::problem::Problem;

const OPEN_DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);
/// Never a link, a wait for the other end of a FIFO, or a controlling terminal.
const OPEN_FILE: OFlag =
    OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);
const PRIVATE_FILE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// An open directory.
#[derive(Debug)]
pub struct HostDir {
    dir: File,
    path: PathBuf,
    /// False in another system.
    follows_links: bool,
}

/// The error of a directory of another system that a link leads to: below that root it is not there.
#[derive(Debug)]
struct LinkInTheWay;

impl std::error::Error for LinkInTheWay {}

impl fmt::Display for LinkInTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a link is in its way, which is not followed in another system")
    }
}

/// Reports whether this is the error of a directory that only a link leads to.
pub fn is_link_in_the_way(error: &anyhow::Error) -> bool {
    let inner = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<LinkInTheWay>())
            .is_some()
    };
    error.chain().any(inner)
}

impl HostDir {
    /// Opens a directory of the host. On the running system, whose root is `/`, links of root are followed.
    /// Errors: `NotFound`, also where a link is in the way; the user who owns a link's target may change it.
    pub fn open(root: &Path, path: &Path) -> io::Result<Self> {
        let shown = root.join(path.strip_prefix("/").unwrap_or(path));
        if root == Path::new("/") {
            let dir = File::from(retried(|| open(&shown, OPEN_DIR, Mode::empty()))?);
            let is_link = fs::symlink_metadata(&shown)?.is_symlink();
            return Self { dir, path: shown, follows_links: true }.of_root(is_link);
        }

        let dir = files::open_plain(root, path, OPEN_DIR).map_err(explained)?;
        Ok(Self { dir: dir.into(), path: shown, follows_links: false })
    }

    /// Opens a directory; what is not there of it is made. Errors: as `open`.
    pub fn make(root: &Path, path: &Path, mode: u32) -> io::Result<Self> {
        match Self::open(root, path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            opened => return opened,
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        Self::make(root, above, mode)?.make_dir_with(Path::new(name), Mode::from_bits_truncate(mode))
    }

    /// The path that people are told.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory in it. Errors: as `open`.
    pub fn dir(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        let name = one_name(name.as_ref())?;
        let follow = if self.follows_links { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let dir = retried(|| openat(&self.dir, name, OPEN_DIR | follow, Mode::empty()));
        let is_link = || Ok::<_, Errno>(self.stat(name)?.st_mode & libc::S_IFMT == libc::S_IFLNK);
        match dir {
            Err(Errno::ENOTDIR) if !self.follows_links && is_link()? => Err(explained(Errno::ELOOP.into())),
            dir => Self {
                dir: dir.map_err(|error| explained(error.into()))?.into(),
                path: self.path.join(name),
                follows_links: self.follows_links,
            }
            .of_root(self.follows_links && is_link()?),
        }
    }

    /// Opens a directory in it that is made, for its owner alone, when it is not there. Errors: as `open`.
    pub fn make_dir(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        self.make_dir_with(name.as_ref(), Mode::S_IRWXU)
    }

    fn make_dir_with(&self, name: &Path, mode: Mode) -> io::Result<Self> {
        match self.new_dir_with(name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.dir(name),
            done => done,
        }
    }

    /// Makes a new directory, for its owner alone. Errors: `AlreadyExists`.
    pub fn new_dir(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        self.new_dir_with(name.as_ref(), Mode::S_IRWXU)
    }

    fn new_dir_with(&self, name: &Path, mode: Mode) -> io::Result<Self> {
        let name = one_name(name)?;
        retried(|| mkdirat(&self.dir, name, mode))?;
        self.dir(name).inspect_err(|_| drop(self.remove_dir(name)))
    }

    /// Errors: another user could change what a link leads to.
    fn of_root(self, is_link: bool) -> io::Result<Self> {
        let owner = fstat(&self.dir)?.st_uid;
        if is_link && owner != 0 && owner != geteuid().as_raw() {
            let message = format!("it is a link to a directory of the user {owner}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(self)
    }

    /// Opens a regular file for reading.
    pub fn file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        self.open_file(name.as_ref(), OFlag::O_RDONLY)
    }

    /// Reads a regular file whole. Errors: `FileTooLarge` beyond `max` bytes.
    pub fn read(&self, name: impl AsRef<Path>, max: u64) -> io::Result<Vec<u8>> {
        files::read_whole(self.file(name)?, max)
    }

    /// Opens a regular file to write behind its end; a new one is for its owner alone.
    pub fn append(&self, name: impl AsRef<Path>) -> io::Result<File> {
        self.open_file(name.as_ref(), OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT)
    }

    /// Makes a new file to read and write, for its owner alone. Errors: `AlreadyExists`.
    pub fn new_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        self.open_file(name.as_ref(), OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    fn open_file(&self, name: &Path, flags: OFlag) -> io::Result<File> {
        let name = one_name(name)?;
        let file = File::from(retried(|| openat(&self.dir, name, flags | OPEN_FILE, PRIVATE_FILE))?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        Ok(file)
    }

    /// Replaces a file as `files::replace` does. Errors: with its path.
    pub fn replace(&self, name: impl AsRef<Path>, mode: u32, content: &[u8]) -> Result<()> {
        let name = name.as_ref();
        let written =
            one_name(name).and_then(|name| files::replace_at(&self.dir, name.as_os_str(), mode, content));
        written.with_context(|| format!("cannot write {}", self.path.join(name).display()))
    }

    /// The path by which this process reaches the open directory, whatever has its name by now; not for its children.
    pub fn here(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/.", self.dir.as_raw_fd()))
    }

    /// The same of what has this name in it.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.here().join(name)
    }

    /// Lists the names in it.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        fs::read_dir(self.here())?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    /// Returns the metadata of what has this name, links not followed.
    pub fn lstat(&self, name: impl AsRef<Path>) -> io::Result<fs::Metadata> {
        fs::symlink_metadata(self.at(one_name(name.as_ref())?))
    }

    fn stat(&self, name: &Path) -> nix::Result<FileStat> {
        fstatat(&self.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Removes the files that interrupted runs left, as `leftovers::sweep_files` does.
    pub fn sweep_files(&self, is_leftover: impl Fn(&OsStr) -> bool) -> io::Result<Vec<Problem>> {
        leftovers::sweep_files_in(&self.dir, &self.path, is_leftover)
    }

    /// Removes the directories that they left, as `leftovers::sweep_dirs` does.
    pub fn sweep_dirs(&self, is_leftover: impl Fn(&OsStr) -> bool) -> io::Result<Vec<Problem>> {
        leftovers::sweep_dirs_in(&self.dir, &self.path, is_leftover)
    }

    /// Removes a file or a link.
    pub fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        Ok(unlinkat(&self.dir, one_name(name.as_ref())?, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes a directory that is empty.
    pub fn remove_dir(&self, name: impl AsRef<Path>) -> io::Result<()> {
        Ok(unlinkat(&self.dir, one_name(name.as_ref())?, UnlinkatFlags::RemoveDir)?)
    }

    /// Removes a directory with all that is in it; of a link only the link.
    pub fn remove_dir_all(&self, name: impl AsRef<Path>) -> io::Result<()> {
        fs::remove_dir_all(self.at(one_name(name.as_ref())?))
    }

    /// Makes renames and unlinks in it survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        files::sync_folder(&self.dir)
    }

    /// Makes all on its file system survive a power cut.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(syncfs(self.dir.as_fd())?)
    }

    /// Reports whether this process may write into it; false on a file system that is mounted read-only.
    pub fn is_writable(&self) -> bool {
        faccessat(&self.dir, ".", AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok()
    }

    /// Returns the device that it lies on.
    pub fn device(&self) -> io::Result<u64> {
        Ok(self.dir.metadata()?.dev())
    }
}

/// Errors: `InvalidInput` for what is not a single name.
fn one_name(name: &Path) -> io::Result<&Path> {
    if name.file_name().is_none_or(|last| last != name.as_os_str()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(name)
}

fn explained(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ELOOP | libc::EXDEV) => io::Error::new(io::ErrorKind::NotFound, LinkInTheWay),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_opened_or_made_through_a_link_or_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, victim) = (dir.path().join("root"), dir.path().join("victim"));
        fs::create_dir_all(root.join("var/lib")).unwrap();
        fs::create_dir(&victim).unwrap();
        symlink(&victim, root.join("var/lib/out")).unwrap();
        symlink("lib", root.join("var/near")).unwrap();
        for path in ["/var/lib/out", "/var/lib/out/below", "/../victim", "/var/../../victim", "/var/near"] {
            let error = HostDir::make(&root, Path::new(path), 0o700).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}: {error}");
            assert!(is_link_in_the_way(&error.into()), "{path}");
        }
        assert!(fs::read_dir(&victim).unwrap().next().is_none());
        let made = HostDir::make(&root, Path::new("/var/lib/own/deep"), 0o700).unwrap();
        assert_eq!(made.path(), root.join("var/lib/own/deep"));
        made.replace("file", 0o600, b"text").unwrap();
        assert_eq!(fs::read(root.join("var/lib/own/deep/file")).unwrap(), b"text");
        assert!(made.is_writable() && made.read("file", 3).is_err());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("victim"), "x").unwrap();
        fs::create_dir(dir.path().join("own")).unwrap();
        let own = HostDir::open(dir.path(), Path::new("own")).unwrap();
        symlink("../victim", dir.path().join("own/link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("own/fifo"), Mode::S_IRWXU).unwrap();
        for name in ["link", "fifo", "../victim", "", ".."] {
            assert!(own.file(name).is_err() && own.append(name).is_err(), "{name}");
        }
        own.remove_dir_all("link").unwrap();
        assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"x");
    }
}
