//! A private copy of config.db and its write-ahead log, read in place of the original where that must not be opened.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rusqlite::Connection;

use super::database::{Contents, Open, contents};
use super::{DATABASE, TRIES};
use crate::model::problem::Problem;
use crate::sys::fs::leftovers;
use crate::sys::host::Host;
use crate::sys::host_dir::HostDir;
use crate::sys::process::lock::private_dir;

const NAME: &str = "config.db";
const LOG: &str = "config.db-wal";
/// The database and its log on the disk, of which a copy is made.
const MAX_COPY_BYTES: u64 = 1 << 30;
/// The temporary folder of a copy in the folder of the run.
const COPY: &str = "pmxcfs";
/// How version 0.1.0 called it, followed by the pid of who reads it.
const OLD_COPY: &str = "pmxcfs-";

/// Reads a copy made of the database and its log, so that the original is never opened.
pub(super) fn private_copy(host: &Host) -> Result<Contents> {
    let database = Path::new(DATABASE);
    let run_dir = host.run_dir();
    let dir = run_dir.join(leftovers::own_name(OsStr::new(COPY)));
    let source = host.dir_of(database).map_err(anyhow::Error::from);
    let result = source.and_then(|source| copy_stable(&source, &dir)).and_then(|copy| {
        let db = Connection::open_copy(&copy)?;
        contents(&db)
    });
    let _ = remove_copy(&dir);
    // Nothing of ours stays in /run; the folder of a run that holds its lock is not empty and does.
    let _ = fs::remove_dir(&run_dir);
    result.with_context(|| host.path(database).display().to_string())
}

/// Removes the copies of killed processes: they hold all the keys of the cluster. Only the reading of the whole
/// tree does it, which can say so.
pub(super) fn sweep(run_dir: &Path) -> Vec<Problem> {
    let is_leftover = |name: &OsStr| {
        let old = name.to_str().and_then(|name| name.strip_prefix(OLD_COPY)?.parse().ok());
        let new = leftovers::parse(name).filter(|(target, _)| *target == COPY).map(|(_, pid)| pid);
        old.or(new).is_some_and(leftovers::is_dead)
    };
    leftovers::sweep_dirs(run_dir, is_leftover).unwrap_or_default()
}

/// Copies both files again until neither changed meanwhile: a checkpoint in between would mix two states.
fn copy_stable(source: &HostDir, dir: &Path) -> Result<PathBuf> {
    for _ in 0..TRIES {
        // A log left from the try before, or from a dead process of the same number, would be replayed into
        // this database.
        remove_copy(dir)?;
        private_dir(dir)?;
        let before = state(source)?;
        let mut left = MAX_COPY_BYTES;
        for name in [NAME, LOG] {
            let mut file = match source.file(name) {
                Err(error) if error.kind() == ErrorKind::NotFound && name == LOG => continue,
                file => file.with_context(|| name.to_owned())?,
            };
            // The copies go to /run, which is memory.
            let copied = io::copy(&mut file.by_ref().take(left + 1), &mut File::create_new(dir.join(name))?)?;
            let size = file.metadata()?.len();
            let what = format!("has {size} bytes, more than any cluster file system");
            left = left.checked_sub(copied).context(what)?;
        }
        if before == state(source)? {
            return Ok(dir.join(NAME));
        }
    }
    bail!("changed under every one of {TRIES} copies")
}

fn remove_copy(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What changes with every write: time and size of the database, the beginning of its log.
type State = (i64, i64, u64, Vec<u8>);

fn state(source: &HostDir) -> Result<State> {
    let meta = source.file(NAME)?.metadata()?;
    let mut head = Vec::new();
    if let Ok(file) = source.file(LOG) {
        let _ = file.take(32).read_to_end(&mut head);
    }
    Ok((meta.mtime(), meta.mtime_nsec(), meta.size(), head))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_copy_holds_no_log_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let (source, copies) = (dir.path().join("config.db"), dir.path().join("copies"));
        fs::write(&source, "new").unwrap();
        fs::create_dir(&copies).unwrap();
        fs::write(copies.join("config.db-wal"), "old").unwrap();
        let opened = HostDir::open(dir.path(), Path::new("/")).unwrap();
        let copy = copy_stable(&opened, &copies).unwrap();
        assert_eq!(fs::read(copy).unwrap(), b"new");
        assert!(!copies.join("config.db-wal").exists());
        fs::write(dir.path().join("config.db-wal"), "its own").unwrap();
        copy_stable(&opened, &copies).unwrap();
        assert_eq!(fs::read(copies.join("config.db-wal")).unwrap(), b"its own");
    }
}
