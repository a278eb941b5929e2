//! One run at a time: a lock that dies with its holder, and signals that end a run cleanly.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::processes;
use crate::model::problem::{Fault, FaultKind};
use crate::sys::fs::files;

/// Of every run.
const RUN: &str = "lock";
/// Who only looks whether it is held takes it for an instant: that is no run.
const LOOK_LIMIT: Duration = Duration::from_millis(200);
/// Of an open.
const NO_WAIT: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
const PID_MAX_BYTES: u64 = 64;
const LOOK_POLL: Duration = Duration::from_millis(10);

/// Held while a run writes; the kernel releases it however the process ends.
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Errors: `Locked` when another run holds it, with that run's pid.
    pub fn acquire(run_dir: &Path) -> Result<Self> {
        Self::acquire_named(run_dir, RUN)
    }

    /// One beside that of every run. Errors: as of `acquire`.
    pub fn acquire_named(run_dir: &Path, name: &str) -> Result<Self> {
        /// Runs that end just now; so many in a row is something else.
        const ATTEMPTS: usize = 1000;

        let path = run_dir.join(name);
        let mut gone = None;
        for _ in 0..ATTEMPTS {
            // The run before us may have removed the folder before we opened the file in it,
            // or the file between our opening and our locking it.
            match private_dir(run_dir).and_then(|()| Self::flock(&path)) {
                Err(error) if is_gone(&error) => gone = Some(error),
                Err(error) => {
                    // Goes only where nobody has a lock in it.
                    let _ = fs::remove_dir(run_dir);
                    return Err(error);
                }
                Ok(file) => {
                    let mut lock = Self { file, path: path.clone() };
                    if lock.is_current() {
                        lock.sign().with_context(|| format!("cannot write {}", path.display()))?;
                        return Ok(lock);
                    }
                }
            }
        }
        Err(gone.unwrap_or_else(|| anyhow!("{}: is replaced again and again", path.display())))
    }

    /// Reports whether the lock is held now. Creates nothing.
    pub fn is_held(run_dir: &Path, name: &str) -> bool {
        let file = OpenOptions::new().read(true).custom_flags(NO_WAIT).open(run_dir.join(name));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Ends the process that holds it, which can do nothing against that; its pid. None: nobody else does, or it
    /// cannot be seen from here.
    pub fn kill_holder(run_dir: &Path, name: &str) -> Option<u32> {
        let path = run_dir.join(name);
        let pid = files::read_small(run_dir, name, PID_MAX_BYTES).ok()?;
        let pid: u32 = std::str::from_utf8(&pid).ok()?.trim().parse().ok()?;
        // The number may be another's by now: its holder has the file open.
        let holds = Self::is_held(run_dir, name) && processes::has_open(pid, &path);
        let target = Pid::from_raw(i32::try_from(pid).ok()?);
        (holds && pid != std::process::id() && kill(target, Signal::SIGKILL).is_ok()).then_some(pid)
    }

    fn flock(path: &Path) -> Result<File> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NO_WAIT)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        ensure!(file.metadata()?.is_file(), "{}: is not a regular file", path.display());
        let since = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if since.elapsed() < LOOK_LIMIT => {
                    std::thread::sleep(LOOK_POLL);
                }
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(error)) => {
                    return Err(error).context(format!("cannot lock {}", path.display()));
                }
            }
        }

        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        let message = format!("another run (pid {}) holds the lock", pid.trim());
        Err(Fault::new(FaultKind::Locked, message).hint("wait until it ends, then try again").into())
    }

    /// Tells others who holds it.
    fn sign(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(format!("{}\n", std::process::id()).as_bytes())
    }

    fn is_current(&self) -> bool {
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }
}

impl Drop for Lock {
    /// Nothing stays in /run, where every root has a folder of its own.
    fn drop(&mut self) {
        if self.is_current() {
            let _ = fs::remove_file(&self.path);
            let _ = self.path.parent().map(fs::remove_dir);
        }
    }
}

/// Reports whether another run removed the directory while it was made or opened.
pub(crate) fn is_gone(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists))
}

/// Makes a folder that only its owner reads, parents included.
pub fn private_dir(path: &Path) -> Result<()> {
    files::make_private_dir(path).with_context(|| format!("cannot create {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn runs_that_come_and_go_meet_a_lock_or_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run/root-1");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Err(error) = Lock::acquire(&run_dir) {
                            let kind = error.downcast_ref::<Fault>().map(|fault| fault.kind);
                            assert_eq!(kind, Some(FaultKind::Locked), "{error:#}");
                        }
                    }
                });
            }
        });
        assert!(!run_dir.exists());
    }

    #[test]
    fn who_only_looks_is_no_run_and_two_locks_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        private_dir(&run_dir).unwrap();
        // On a busy machine the one who looks may be slow to let go.
        let is_taken = || {
            let looker = File::create(run_dir.join("other")).unwrap();
            looker.try_lock_shared().unwrap();
            let looks = std::thread::spawn(move || {
                std::thread::sleep(LOOK_LIMIT / 4);
                drop(looker);
            });
            let other = Lock::acquire_named(&run_dir, "other");
            looks.join().unwrap();
            other
        };
        let other = (0..50).find_map(|_| is_taken().ok()).unwrap();
        let lock = Lock::acquire(&run_dir).unwrap();
        assert!(Lock::is_held(&run_dir, "other"));
        drop((other, lock));
        assert!(!run_dir.exists());
    }

    #[test]
    fn a_holder_is_ended_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let held = dir.path().join("held");
        let mut child = std::process::Command::new("flock");
        let mut child = child.arg("--no-fork").arg(&held).args(["sleep", "60"]).spawn().unwrap();
        let pid = child.id();
        let since = Instant::now();
        while !Lock::is_held(dir.path(), "held") {
            assert!(since.elapsed() < Duration::from_secs(30));
            std::thread::sleep(LOOK_POLL);
        }
        // A number that is another's, and one that is none.
        for wrong in [std::process::id().to_string(), "1".to_owned(), String::new()] {
            fs::write(&held, wrong).unwrap();
            assert_eq!(Lock::kill_holder(dir.path(), "held"), None);
        }
        fs::write(&held, format!("{pid}\n")).unwrap();
        assert_eq!(Lock::kill_holder(dir.path(), "held"), Some(pid));
        assert!(!child.wait().unwrap().success());
        assert_eq!(Lock::kill_holder(dir.path(), "none"), None);
    }
}
