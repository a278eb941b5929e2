//! Private folders for passing copies of snapshots. One is removed with its holder; what a killed process left
//! is removed by the next one that needs such a folder. A lock on the folder tells the living from the dead.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::lock::private_dir;

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
        const ATTEMPTS: usize = 100;
        let mut gone = None;
        for _ in 0..ATTEMPTS {
            private_dir(base)?;
            match Self::make(base) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => gone = Some(error),
                made => return made.with_context(|| format!("cannot make a folder in {}", base.display())),
            }
        }
        Err(gone.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
            .with_context(|| format!("cannot make a folder in {}", base.display()))
    }

    fn make(base: &Path) -> io::Result<Self> {
        // Nobody may take a folder for dead that is made and not yet locked.
        let all = File::open(base)?;
        all.lock()?;
        sweep_locked(base)?;
        for number in 0.. {
            let path = base.join(format!("{}.{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made?;
                    let held = File::open(&path)?;
                    held.lock()?;
                    return Ok(Self { path, _held: held });
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        // Goes only where it is empty.
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

/// Removes what dead processes left below `base`, which need not be there.
pub fn sweep(base: &Path) -> io::Result<()> {
    let all = match File::open(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        all => all?,
    };
    all.lock()?;
    sweep_locked(base)?;
    let _ = fs::remove_dir(base);
    Ok(())
}

fn sweep_locked(base: &Path) -> io::Result<()> {
    for entry in fs::read_dir(base)? {
        match sweep_one(&entry?.path()) {
            // Just removed by its holder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            swept => swept?,
        }
    }
    Ok(())
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
