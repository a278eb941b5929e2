//! Private folders for passing copies of snapshots. One is removed with its holder; what a killed process left
//! is removed by the next one that needs such a folder. A lock on the folder tells the living from the dead.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::sys::process::lock::{is_gone, private_dir};

/// A folder of its own for one copy, mode 0700.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Locked as long as the folder is used.
    _held: File,
}

impl Scratch {
    /// Makes one below `base`, after removing what dead processes left there.
    pub fn new(base: &Path) -> Result<Self> {
        /// Each time another process took the empty base away just then.
        const ATTEMPTS: usize = 1000;
        for _ in 0..ATTEMPTS {
            match private_dir(base) {
                Err(error) if is_gone(&error) => continue,
                made => made?,
            }
            let made = Base::lock(base).and_then(|base| base.map(|base| base.make()).transpose());
            if let Some(made) =
                made.with_context(|| format!("cannot create a directory in {}", base.display()))?
            {
                return Ok(made);
            }
        }
        Err(anyhow!("{}: is replaced again and again", base.display()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        if let Some(Ok(Some(base))) = self.path.parent().map(Base::lock) {
            base.remove_empty();
        }
    }
}

/// Removes what dead processes left below `base`, which need not be there.
pub fn sweep(base: &Path) -> io::Result<()> {
    if let Some(base) = Base::lock(base)? {
        base.sweep()?;
        base.remove_empty();
    }
    Ok(())
}

/// The folder of the folders. Who has it locked makes and removes in it, and itself.
struct Base<'a> {
    path: &'a Path,
    _held: File,
}

impl<'a> Base<'a> {
    /// None when it is not there, or was taken away before it was locked.
    fn lock(path: &'a Path) -> io::Result<Option<Self>> {
        let held = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            held => held?,
        };
        held.lock()?;
        let of = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let current = fs::symlink_metadata(path).map(of).ok() == Some(of(held.metadata()?));
        Ok(current.then_some(Self { path, _held: held }))
    }

    /// Nobody may take a folder for dead that is made and not yet locked.
    fn make(&self) -> io::Result<Scratch> {
        self.sweep()?;
        let own = |number: u64| self.path.join(format!("{}.{number}", std::process::id()));
        let path = (0..u64::MAX).map(own).find(|path| !path.exists()).ok_or(io::ErrorKind::AlreadyExists)?;
        DirBuilder::new().mode(0o700).create(&path)?;
        let held = File::open(&path)?;
        held.lock()?;
        Ok(Scratch { path, _held: held })
    }

    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path)? {
            match sweep_one(&entry?.path()) {
                // Just removed by its holder.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                swept => swept?,
            }
        }
        Ok(())
    }

    fn remove_empty(&self) {
        let _ = fs::remove_dir(self.path);
    }
}

fn sweep_one(path: &Path) -> io::Result<()> {
    if !path.symlink_metadata()?.is_dir() {
        return Ok(());
    }
    match File::open(path)?.try_lock() {
        Ok(()) => fs::remove_dir_all(path),
        // Somebody's.
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_goes_with_its_holder_and_a_dead_one_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("download");
        let dead = base.join("1.0");
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join("file"), "x").unwrap();
        let (one, two) = (Scratch::new(&base).unwrap(), Scratch::new(&base).unwrap());
        assert!(!dead.exists());
        assert_ne!(one.path(), two.path());
        fs::write(two.path().join("file"), "x").unwrap();
        drop(one);
        assert!(two.path().join("file").is_file());
        drop(two);
        assert!(!base.exists());
        sweep(&base).unwrap();
    }

    #[test]
    fn many_come_and_go_without_meeting() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("download");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let scratch = Scratch::new(&base).unwrap();
                        fs::write(scratch.path().join("file"), "x").unwrap();
                        assert!(scratch.path().join("file").is_file());
                    }
                });
            }
        });
        assert!(!base.exists());
    }
}
