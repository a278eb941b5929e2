//! A directory that is filled beside its final place and takes it when it is complete. All is done through open
//! directories: whoever may rename what lies above them changes nothing of what root does.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, fchown, geteuid};

use super::contained_dir::ContainedDir;
use super::leftovers;
use crate::model::problem::Problem;

const OPEN_DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const PERMISSIONS: u32 = 0o7777;

/// A private directory on its way; one that does not become its target is removed.
pub struct Staging {
    parent: OwnedFd,
    dir: ContainedDir,
    name: OsString,
    target: OsString,
    is_done: bool,
    /// What became of those that killed runs left for the same target.
    pub problems: Vec<Problem>,
}

impl Staging {
    /// Makes it beside `target`. Errors: the parent directory or the target belongs to another user, who could exchange
    /// what is made there.
    pub fn new(target: &Path) -> io::Result<Self> {
        let above = target.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let target = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = open(above, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        check_owner(&fstat(&parent)?, "its parent directory")?;
        if let Some(there) = stat_at(&parent, target)? {
            check_owner(&there, "it")?;
        }

        let name = leftovers::own_name(target);
        let problems = sweep(above, target);
        mkdirat(&parent, name.as_os_str(), Mode::S_IRWXU)?;
        let dir = ContainedDir::from(openat(&parent, name.as_os_str(), OPEN_DIR, Mode::empty())?);
        Ok(Self { parent, dir, name, target: target.to_owned(), is_done: false, problems })
    }

    pub fn dir(&self) -> &ContainedDir {
        &self.dir
    }

    /// Takes the place of the target, with the group and the permissions of a directory that is there. It is durable
    /// before it has its name, and has it durably after.
    pub fn become_target(mut self) -> io::Result<()> {
        if let Some(there) = stat_at(&self.parent, &self.target)? {
            if there.st_gid != fstat(self.dir.as_fd())?.st_gid {
                fchown(self.dir.as_fd(), None, Some(Gid::from_raw(there.st_gid)))?;
            }
            fchmod(self.dir.as_fd(), Mode::from_bits_truncate(there.st_mode & PERMISSIONS))?;
        }
        self.dir.sync()?;

        self.check_is(&self.name)?;
        renameat(&self.parent, self.name.as_os_str(), &self.parent, self.target.as_os_str())?;
        self.is_done = true;
        self.check_is(&self.target)?;
        self.dir.sync()
    }

    /// Checks that a name leads to the directory that was filled.
    fn check_is(&self, name: &OsStr) -> io::Result<()> {
        let own = fstat(self.dir.as_fd())?;
        let is_own = |there: FileStat| (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino);
        if stat_at(&self.parent, name)?.is_some_and(is_own) {
            return Ok(());
        }
        Err(io::Error::other("somebody else put another directory in its place"))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.is_done && self.check_is(&self.name).is_ok() {
            let parent = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
            let _ = fs::remove_dir_all(parent.join(&self.name));
        }
    }
}

/// None: there is nothing of this name.
fn stat_at(parent: &OwnedFd, name: &OsStr) -> io::Result<Option<FileStat>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(nix::errno::Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_owner(stat: &FileStat, what: &str) -> io::Result<()> {
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        let message = format!("{what} belongs to the user {}, who could exchange it", stat.st_uid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if stat.st_mode & 0o002 != 0 && stat.st_mode & libc::S_ISVTX == 0 {
        let message = format!("every user may write to {what}, and could exchange it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Removes what killed runs left for the same target.
fn sweep(above: &Path, target: &OsStr) -> Vec<Problem> {
    // Our own number on a directory that we did not make yet was another's before.
    let is_leftover = |name: &OsStr| {
        let maker = leftovers::parse(name).filter(|(of, _)| *of == target).map(|(_, pid)| pid);
        maker.is_some_and(|pid| pid == std::process::id() || leftovers::is_dead(pid))
    };
    leftovers::sweep_dirs(above, is_leftover).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_dead_runs_left_for_this_target_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let (own, init) = (std::process::id(), 1);
        let stays = [
            format!(".out.{init}.partial"),
            format!(".other.{dead}.partial"),
            format!(".out.{dead}.partial.x"),
            format!(".out.x.{dead}.partial"),
            format!("out.{dead}.partial"),
            ".out.0.partial".to_owned(),
        ];
        for name in stays.iter().chain(&[format!(".out.{dead}.partial"), format!(".out.{own}.partial")]) {
            fs::create_dir_all(dir.path().join(name).join("etc")).unwrap();
        }
        let staging = Staging::new(&dir.path().join("out")).unwrap();
        assert_eq!(staging.problems.len(), 2, "{:?}", staging.problems);
        assert!(!dir.path().join(format!(".out.{dead}.partial")).exists());
        assert!(stays.iter().all(|name| dir.path().join(name).join("etc").exists()));
        drop(staging);
        assert!(!dir.path().join(format!(".out.{own}.partial")).exists());
    }

    #[test]
    fn a_directory_that_was_exchanged_gets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (target, victim) = (dir.path().join("out"), dir.path().join("victim"));
        fs::create_dir(&victim).unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();

        let staging = Staging::new(&target).unwrap();
        let own = dir.path().join(leftovers::own_name(OsStr::new("out")));
        fs::rename(&own, dir.path().join("away")).unwrap();
        std::os::unix::fs::symlink(&victim, &own).unwrap();
        assert!(staging.become_target().is_err());
        assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(own.is_symlink());
    }

    #[test]
    fn where_another_user_may_write_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Staging::new(&open.join("out")).is_err());
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        Staging::new(&open.join("out")).unwrap().become_target().unwrap();
        assert!(open.join("out").is_dir());
    }
}
