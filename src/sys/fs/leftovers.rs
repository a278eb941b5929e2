//! Temporary files and folders: how they are named, and how the leftovers of killed runs are removed.
//!
//! A temporary file or folder lies beside what it becomes. Where several processes may write at the same time its
//! name is `.NAME.PID.partial`, and it is a leftover when that process has ended; where a lock lets in only one it is
//! `.NAME.partial`, and who holds the lock finds only leftovers. Older names are listed where they are swept.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, UnlinkatFlags, geteuid, unlinkat};

use crate::model::problem::Problem;

const SUFFIX: &[u8] = b".partial";

/// Builds the temporary name of this process for a file or folder called `target`.
pub fn own_name(target: &OsStr) -> OsString {
    let mut name = OsString::from(".");
    name.push(target);
    name.push(format!(".{}", std::process::id()));
    name.push(OsStr::from_bytes(SUFFIX));
    name
}

/// Builds the temporary name for `target` where a lock keeps all other processes out.
pub fn locked_name(target: &str) -> String {
    format!(".{target}.partial")
}

/// Returns the target and the process of a name that `own_name` made.
pub fn parse(name: &OsStr) -> Option<(&OsStr, u32)> {
    let inner = name.as_bytes().strip_prefix(b".")?.strip_suffix(SUFFIX)?;
    let dot = inner.iter().rposition(|byte| *byte == b'.')?;
    let pid = std::str::from_utf8(&inner[dot + 1..]).ok()?.parse().ok()?;
    Some((OsStr::from_bytes(&inner[..dot]), pid))
}

/// Returns the target of a name that `locked_name` made.
pub fn parse_locked(name: &OsStr) -> Option<&str> {
    name.to_str()?.strip_prefix('.')?.strip_suffix(".partial")
}

/// Reports whether a temporary name belongs to a process that has ended.
pub fn is_of_dead(name: &OsStr) -> bool {
    parse(name).is_some_and(|(_, pid)| is_dead(pid))
}

/// Reports whether no process has this number.
pub fn is_dead(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| pid > 0 && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

/// Removes the files of `dir` whose names are those of leftovers, and returns what became of each: a notice, or a
/// warning for one that stays. In a folder that is itself a link, which may lead anywhere, nothing is removed.
/// Errors: the folder cannot be read; none when it is not there.
pub fn sweep_files(dir: &Path, is_leftover: impl Fn(&OsStr) -> bool) -> io::Result<Vec<Problem>> {
    open_dir(dir)?.map_or(Ok(Vec::new()), |open| sweep_files_in(&open, dir, is_leftover))
}

/// The same of an open directory, whose path is told as `shown`.
pub fn sweep_files_in(
    dir: &File,
    shown: &Path,
    is_leftover: impl Fn(&OsStr) -> bool,
) -> io::Result<Vec<Problem>> {
    let is_file = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| !kind.is_dir());
    sweep(dir, shown, &|entry| is_leftover(&entry.file_name()) && is_file(entry), &|entry| {
        Ok(unlinkat(dir, entry.file_name().as_os_str(), UnlinkatFlags::NoRemoveDir)?)
    })
}

/// The same of directories with all that is in them; only those that this user made.
pub fn sweep_dirs(dir: &Path, is_leftover: impl Fn(&OsStr) -> bool) -> io::Result<Vec<Problem>> {
    open_dir(dir)?.map_or(Ok(Vec::new()), |open| sweep_dirs_in(&open, dir, is_leftover))
}

/// The same of an open directory, whose path is told as `shown`.
pub fn sweep_dirs_in(
    dir: &File,
    shown: &Path,
    is_leftover: impl Fn(&OsStr) -> bool,
) -> io::Result<Vec<Problem>> {
    let is_own_dir = |entry: &DirEntry| {
        entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw())
    };
    sweep(dir, shown, &|entry| is_leftover(&entry.file_name()) && is_own_dir(entry), &|entry| {
        fs::remove_dir_all(entry.path())
    })
}

/// None: it is not there, or is a link.
fn open_dir(dir: &Path) -> io::Result<Option<File>> {
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(meta) if meta.is_dir() => {}
        _ => return Ok(None),
    }
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(dir).map(Some)
}

fn sweep(
    dir: &File,
    shown: &Path,
    is_leftover: &dyn Fn(&DirEntry) -> bool,
    remove: &dyn Fn(&DirEntry) -> io::Result<()>,
) -> io::Result<Vec<Problem>> {
    let here = format!("/proc/self/fd/{}/.", dir.as_raw_fd());
    let entries = fs::read_dir(here)?.collect::<io::Result<Vec<_>>>()?;
    let leftovers = entries.iter().filter(|entry| is_leftover(entry));
    Ok(leftovers.map(|entry| problem(&shown.join(entry.file_name()), remove(entry))).collect())
}

/// Makes the problem that tells whether a leftover of an interrupted run was removed.
fn problem(path: &Path, removed: io::Result<()>) -> Problem {
    let path = path.display();
    match removed {
        Ok(()) => Problem::notice(format!("{path}: removed what an interrupted run left")),
        Err(error) => {
            Problem::warning(format!("{path}: an interrupted run left it, and it cannot be removed: {error}"))
                .hint("remove it by hand")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys::test_trees::tree;

    /// No process has such a number: the kernel's limit is 2^22.
    const DEAD: u32 = 4_999_999;

    #[test]
    fn only_what_dead_processes_left_is_swept() {
        let own = own_name(OsStr::new("d.json")).into_string().unwrap();
        let stays = [".a.json", ".b.partial", ".c.0.partial", ".c.1.partial", ".c.x.partial", &own, "a.json"];
        let dir = tree(&stays);
        fs::write(dir.path().join(format!(".a.json.{DEAD}.partial")), "").unwrap();
        fs::create_dir_all(dir.path().join(format!(".b.{DEAD}.partial/etc"))).unwrap();
        assert_eq!(sweep_files(dir.path(), is_of_dead).unwrap().len(), 1);
        assert_eq!(sweep_dirs(dir.path(), is_of_dead).unwrap().len(), 1);
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        let mut stays = stays.map(str::to_owned);
        stays.sort();
        assert_eq!(names, stays);
    }

    #[test]
    fn nothing_is_swept_through_a_link() {
        let name = format!(".a.{DEAD}.partial");
        let dir = tree(&[&format!("real/{name}"), "outside"]);
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::os::unix::fs::symlink("real", &link).unwrap();
        assert!(sweep_files(&link, |_| true).unwrap().is_empty() && real.join(&name).exists());
        // Of a leftover that is a link only the link goes.
        std::os::unix::fs::symlink(dir.path().join("outside"), real.join("out")).unwrap();
        assert!(sweep_dirs(&real, |_| true).unwrap().is_empty());
        assert_eq!(sweep_files(&real, |_| true).unwrap().len(), 2);
        assert!(dir.path().join("outside").exists() && fs::read_dir(real).unwrap().next().is_none());
        assert!(sweep_files(&dir.path().join("none"), |_| true).unwrap().is_empty());
    }
}
