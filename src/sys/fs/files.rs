//! The host's files: read without following a link, written whole or not at all. Not here: which are met (`walk`).

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, OFlag, OpenHow, PosixFadviseAdvice, RenameFlags, ResolveFlag, open, openat, openat2,
    posix_fadvise, renameat, renameat2,
};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::leftovers;
use crate::model::index::{EntryKind, Mtime, Xattr};

/// What a path is, beside the kinds that a payload can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileNode {
    Kept(EntryKind),
    /// A FIFO, socket or device: named, never read.
    Special(&'static str),
}

#[derive(Debug, Clone)]
pub struct Stat {
    pub node: FileNode,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    pub size: u64,
    pub nlink: u64,
    pub dev: u64,
    pub ino: u64,
}

impl From<&fs::Metadata> for Stat {
    fn from(meta: &fs::Metadata) -> Self {
        let node = match meta.mode() & libc::S_IFMT {
            libc::S_IFREG => FileNode::Kept(EntryKind::File),
            libc::S_IFDIR => FileNode::Kept(EntryKind::Dir),
            libc::S_IFLNK => FileNode::Kept(EntryKind::Symlink),
            libc::S_IFIFO => FileNode::Special("a FIFO"),
            libc::S_IFSOCK => FileNode::Special("a socket"),
            _ => FileNode::Special("a device"),
        };

        Self {
            node,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: Mtime(meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap_or(0)),
            size: meta.size(),
            nlink: meta.nlink(),
            dev: meta.dev(),
            ino: meta.ino(),
        }
    }
}

/// Follows nothing, not even the last component.
pub fn lstat(path: &Path) -> io::Result<Stat> {
    fs::symlink_metadata(path).map(|meta| Stat::from(&meta))
}

/// Opens a regular file for reading; never follows a link, never waits on a FIFO, leaves the access time alone.
pub fn open_read(path: &Path) -> io::Result<(File, Stat)> {
    open_read_with(|flags| open(path, flags, Mode::empty()))
}

/// The same by another call that opens.
pub fn open_read_with(open: impl Fn(OFlag) -> nix::Result<OwnedFd>) -> io::Result<(File, Stat)> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // Only the owner and root may ask for O_NOATIME.
    let file = retried(|| open(flags | OFlag::O_NOATIME)).or_else(|error| match error {
        Errno::EPERM => retried(|| open(flags)),
        _ => Err(error),
    })?;
    let file = File::from(file);
    let stat = Stat::from(&file.metadata()?);
    if stat.node != FileNode::Kept(EntryKind::File) {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, stat))
}

/// Calls again what a signal interrupted, as a share may let it.
pub fn retried<T>(call: impl Fn() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// False when reading the beginning of the file would wait for a disk. True when that cannot be told.
#[allow(unsafe_code)] // nix has no preadv2
pub fn is_cached(file: &File) -> bool {
    let mut byte = [0_u8];
    let part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: one buffer, alive for the call, of the length that is told.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, 0, libc::RWF_NOWAIT) };
    read >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
}

/// Has the kernel read the beginning of a file, without waiting for the contents.
pub fn fetch(file: &File, max: u64) {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let _ = posix_fadvise(file, 0, max, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
}

/// Reads one small file of the host whole: `/etc/hostname`, the dpkg status, a configuration.
///
/// `path` is as the host says it (`/etc/fstab`; relative is the same). Its links are followed, because
/// `/etc/os-release` is one, but within `root`: a link that is absolute or climbs stays inside, as it would if the
/// host ran. What is no regular file is refused before a byte is read, so a FIFO, a device or a folder neither
/// hangs nor flows; no more than `max` bytes are ever held.
///
/// Errors: `NotFound` as any open; `FileTooLarge` ("larger than ... bytes") and others with the cause alone.
/// The path is for the caller to name.
pub fn read_small(root: &Path, path: impl AsRef<Path>, max: u64) -> io::Result<Vec<u8>> {
    let file = File::from(open_in_root(root, path.as_ref(), OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    read_whole(file, max)
}

/// Reads an open file to its end. Errors: `FileTooLarge` beyond `max` bytes.
pub fn read_whole(file: File, max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // The size of a file in /proc is 0, and any file may grow while it is read: what counts is what comes.
    file.take(max.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(too_large(max));
    }
    Ok(content)
}

/// Builds the error of a file that has more than `max` bytes.
pub fn too_large(max: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {max} bytes"))
}

/// The same of a file that lies where its path says: a link in it, which may lead onto a mount that hangs, is an
/// error.
pub fn read_plain(root: &Path, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = File::from(open_plain(root, path, OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut content = Vec::new();
    file.take(max).read_to_end(&mut content)?;
    Ok(content)
}

/// True when something lies where `path` (relative to the root) says, and no link is on the way.
pub fn is_plain(root: &Path, path: &Path) -> bool {
    open_plain(root, path, OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok()
}

/// Opens what lies below `root`, through no link.
pub fn open_plain(root: &Path, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(retried(|| openat2(&root, path, how))?)
}

/// True when the host has something at `path`; its links are followed within `root`.
pub fn is_there(root: &Path, path: impl AsRef<Path>) -> bool {
    open_in_root(root, path.as_ref(), OFlag::O_PATH).is_ok()
}

/// Looks at what `path` leads to; its links are followed within `root`.
pub fn metadata(root: &Path, path: &Path) -> io::Result<fs::Metadata> {
    File::from(open_in_root(root, path, OFlag::O_PATH)?).metadata()
}

/// Returns the path below `root` of what `path` leads to; its links are followed within `root`.
pub fn real_path(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let name = |fd: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let real = name(&open_in_root(root, path, OFlag::O_PATH)?)?;
    let root = name(&open_in_root(root, Path::new("/"), OFlag::O_PATH)?)?;
    real.strip_prefix(root).map(Path::to_owned).map_err(|_| io::ErrorKind::NotFound.into())
}

fn open_in_root(root: &Path, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    /// The kernel gives up on `..` while something is renamed or mounted anywhere.
    const ATTEMPTS: usize = 64;
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 1..ATTEMPTS {
        match openat2(&root, path, how) {
            Err(Errno::EAGAIN) => {}
            opened => return Ok(opened?),
        }
    }
    Ok(openat2(&root, path, how)?)
}

/// Extended attributes of an open file, ACLs and capabilities among them. Empty where the file system has none.
pub fn file_xattrs(file: &File) -> io::Result<Vec<Xattr>> {
    use xattr::FileExt;
    gather(file.list_xattr(), |name| file.get_xattr(name))
}

/// The same by path, without following a link.
pub fn path_xattrs(path: &Path) -> io::Result<Vec<Xattr>> {
    gather(xattr::list(path), |name| xattr::get(path, name))
}

/// The same of what is open as a path only, for which nobody needs to read it.
pub fn opened_xattrs(opened: &OwnedFd) -> io::Result<Vec<Xattr>> {
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    gather(xattr::list_deref(&path), |name| xattr::get_deref(&path, name))
}

fn gather(
    names: io::Result<xattr::XAttrs>,
    get: impl Fn(&std::ffi::OsStr) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Vec<Xattr>> {
    let names = match names {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    names
        .map(|name| {
            Ok(Xattr { value: get(&name)?.unwrap_or_default(), name: name.to_string_lossy().into_owned() })
        })
        .collect()
}

/// Replaces `path` by `content`: written beside it, fsynced, renamed over it, folder fsynced. The umask narrows no
/// mode here: a service's own would hide what is meant for others.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file has a directory")?;
    let written =
        File::open(dir).and_then(|dir| replace_at(&dir, path.file_name().unwrap_or_default(), mode, content));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The same of the file `target` in an open directory.
pub fn replace_at(dir: &File, target: &OsStr, mode: u32, content: &[u8]) -> io::Result<()> {
    let is_leftover = |name: &OsStr| {
        leftovers::parse(name).is_some_and(|(of, pid)| of == target && leftovers::is_dead(pid))
    };
    let _ = leftovers::sweep_files_in(dir, Path::new(""), is_leftover);

    let partial = leftovers::own_name(target);
    let partial = partial.as_os_str();
    let _ = unlinkat(dir, partial, UnlinkatFlags::NoRemoveDir);
    let written = write_and_rename(dir, partial, target, mode, content);
    if written.is_err() {
        let _ = unlinkat(dir, partial, UnlinkatFlags::NoRemoveDir);
    }
    written
}

fn write_and_rename(
    dir: &File,
    partial: &OsStr,
    target: &OsStr,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut file = File::from(retried(|| openat(dir, partial, flags, Mode::from_bits_truncate(mode)))?);
    // A file system without modes refuses; nobody is let in by that.
    let _ = file.set_permissions(fs::Permissions::from_mode(mode));
    file.write_all(content)?;
    file.sync_all()?;
    // What was begun is a moment from its end.
    retried(|| renameat(dir, partial, dir, target))?;
    sync_folder(dir)
}

/// Gives a file its name, never in place of another. Errors: `AlreadyExists`.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // Network file systems cannot; then a race is all that is left open.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        renamed => Ok(renamed?),
    }
}

/// Makes a folder that only its owner reads, parents included.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.or_else(|error| match error.kind() {
        // Said too where it is a folder that could not be looked at.
        io::ErrorKind::AlreadyExists if fs::metadata(path)?.is_dir() => Ok(()),
        _ => Err(error),
    })
}

/// Makes renames and unlinks in a folder survive a power cut.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    sync_folder(&File::open(dir)?)
}

/// The same of an open folder. Some network file systems have no such call for folders; there is nothing to do then.
pub fn sync_folder(folder: &File) -> io::Result<()> {
    match folder.sync_all() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP | libc::ENOSYS)) => {
            Ok(())
        }
        synced => synced,
    }
}

/// True for an error of the device itself, not of what was asked of it.
pub fn is_device_error(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EREMOTEIO | libc::ENXIO | libc::ENODEV))
}

/// True when this process may do everything to files.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns the user that runs this process.
pub fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Says that a link is in the way.
pub const LOOP: i32 = libc::ELOOP;

/// Reports whether only root, or who runs this, can read a file.
pub fn is_private(meta: &fs::Metadata) -> bool {
    let owner = meta.uid() == 0 || meta.uid() == nix::unistd::geteuid().as_raw();
    owner && meta.mode() & 0o077 == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys::test_trees::tree;

    #[test]
    fn a_small_file_is_read_within_its_root() {
        use std::os::unix::fs::symlink;
        let dir = tree(&["outside", "root/usr/lib/os-release", "root/etc/plain"]);
        let root = dir.path().join("root");
        symlink("../usr/lib/os-release", root.join("etc/os-release")).unwrap();
        symlink("/usr/lib/os-release", root.join("etc/absolute")).unwrap();
        symlink("../../../../../outside", root.join("etc/climbs")).unwrap();
        symlink(dir.path().join("outside"), root.join("etc/leaves")).unwrap();
        for path in ["/etc/plain", "etc/plain", "/etc/os-release", "/etc/absolute"] {
            assert_eq!(read_small(&root, path, 10).unwrap(), b"x", "{path}");
        }
        for path in ["/etc/climbs", "/etc/leaves", "/../outside", "/etc/none"] {
            let error = read_small(&root, path, 10).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
            assert!(!is_there(&root, path), "{path}");
        }
        assert!(is_there(&root, "/etc/absolute"));
    }

    #[test]
    fn only_a_regular_file_of_bounded_size_is_small() {
        let dir = tree(&["etc/hosts"]);
        nix::unistd::mkfifo(&dir.path().join("etc/fifo"), Mode::S_IRWXU).unwrap();
        for path in ["/etc/fifo", "/etc"] {
            assert_eq!(read_small(dir.path(), path, 10).unwrap_err().to_string(), "not a regular file");
        }
        assert!(read_small(Path::new("/"), "/dev/zero", 10).is_err());
        fs::write(dir.path().join("etc/hosts"), "12345").unwrap();
        assert_eq!(read_small(dir.path(), "/etc/hosts", 5).unwrap(), b"12345");
        let error = read_small(dir.path(), "/etc/hosts", 4).unwrap_err();
        assert_eq!(error.to_string(), "larger than 4 bytes");
    }

    #[test]
    fn a_replaced_file_is_the_old_or_the_new_one() {
        let dir = tree(&["a"]);
        let path = dir.path().join("a");
        let left =
            path.with_file_name(format!(".{}.4999999.partial", path.file_name().unwrap().to_string_lossy()));
        fs::write(&left, "a killed process left it").unwrap();
        replace(&path, 0o600, b"new").unwrap();
        assert!(!left.exists());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(lstat(&path).unwrap().mode, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_name_never_takes_an_old_one() {
        let dir = tree(&["new"]);
        let (from, to) = (dir.path().join("new"), dir.path().join("taken"));
        std::os::unix::fs::symlink("nowhere", &to).unwrap();
        assert_eq!(rename_new(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_link(&to).unwrap(), Path::new("nowhere"));
        rename_new(&from, &dir.path().join("free")).unwrap();
        assert!(!from.exists());
    }
}
