//! Changes of /etc/pve through the mount, by its rules: contents written beside the file and renamed over it, never
//! an owner or a mode, and shared files under their cluster lock as Proxmox takes it. Each change runs in a child
//! that is killed at its limit, so that a daemon that hangs hangs nobody else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use nix::errno::Errno;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::MOUNT;
use crate::model::problem::{Fault, FaultKind};
use crate::sys::fs::hash::sha256;
use crate::sys::host::Host;
use crate::sys::process::forked::{self, ChildResult};

/// Folder of the cluster locks: one folder for each lock that is held.
pub const LOCKS: &str = "priv/lock";
/// Time to wait for a lock, as long as Proxmox does.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Time beyond the 120 s after which the daemon takes the lock of a holder that died.
pub const LOCK_OUTLIVED: Duration = Duration::from_secs(130);
const LOCK_POLL: Duration = Duration::from_millis(250);
/// Time limit of the change itself: a quorate cluster answers in milliseconds, one that forms again in seconds.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);

/// One change of one path.
#[derive(Debug)]
pub struct Change<'a> {
    /// Relative to /etc/pve.
    pub path: &'a Path,
    /// The name beside it that it is written under first.
    pub temp: &'a str,
    pub lock: Option<&'a str>,
    pub lock_wait: Duration,
    /// Hashes of the contents that may be there now, None for nothing there; empty for any.
    pub expect: &'a [Option<&'a str>],
    pub to: Desired<'a>,
    /// Seconds since 1970, set afterwards.
    pub mtime: Option<i64>,
}

#[derive(Debug)]
pub enum Desired<'a> {
    File(&'a [u8]),
    Dir,
    /// Neither file nor folder; a folder only when it is empty.
    Absent,
    /// The entry as it is: only its time is set.
    AsItIs,
}

const CHANGED: &str = "changed during the run";
const LOCKED: &str = "locked";

/// Errors: `Locked` when another holds the lock, `Failed` for what was changed by somebody else, for the daemon's
/// own refusals, and when nothing came back. None says the path: callers do.
pub fn put(host: &Host, put: &Change) -> Result<()> {
    let mount = host.path(MOUNT);
    let limit = CHANGE_LIMIT + if put.lock.is_some() { put.lock_wait } else { Duration::ZERO };
    let answer = forked::run(limit, || locked(&mount, put).map_err(|error| error.to_string()));

    match answer? {
        ChildResult::Finished(Ok(())) => Ok(()),
        ChildResult::Finished(Err(said)) if said == LOCKED => {
            let lock = put.lock.unwrap_or_default();
            let fault = Fault::new(FaultKind::Locked, format!("something else holds the lock '{lock}'"));
            Err(fault.hint("a task of the cluster is changing it: wait until it ends, then try again").into())
        }
        ChildResult::Finished(Err(said)) if said == CHANGED => {
            Err(Fault::new(FaultKind::Failed, "it was changed during the run").into())
        }
        ChildResult::Finished(Err(said)) => Err(anyhow!(said)),
        ChildResult::TimedOut => {
            let message = format!("pmxcfs did not answer within {} s", limit.as_secs());
            Err(Fault::new(FaultKind::Failed, message).hint("see `systemctl status pve-cluster`").into())
        }
    }
}

fn locked(mount: &Path, put: &Change) -> io::Result<()> {
    let Some(name) = put.lock else { return change(mount, put) };
    let lock = take(mount, name, put.lock_wait)?;
    let changed = change(mount, put);
    let _ = fs::remove_dir(&lock);
    changed
}

fn take(mount: &Path, name: &str, wait: Duration) -> io::Result<PathBuf> {
    let folder = mount.join(LOCKS);
    if let Err(error) = fs::create_dir(&folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }

    let lock = folder.join(name);
    let since = Instant::now();
    loop {
        match fs::create_dir(&lock) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| lock),
        }
        // Asks the daemon to take it from a holder that is dead; that it is gone then is the success.
        let zero = TimeSpec::new(0, 0);
        let asked = utimensat(nix::fcntl::AT_FDCWD, &lock, &zero, &zero, UtimensatFlags::NoFollowSymlink);
        if asked == Err(Errno::ENOENT) {
            continue;
        }
        if since.elapsed() >= wait {
            return Err(io::Error::other(LOCKED));
        }
        std::thread::sleep(LOCK_POLL);
    }
}

fn change(mount: &Path, put: &Change) -> io::Result<()> {
    let path = mount.join(put.path);
    let temp = path.with_file_name(put.temp);
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };

    // Of a run that was killed.
    gone(fs::remove_file(&temp))?;
    if !put.expect.is_empty() {
        let now = match fs::read(&path) {
            Ok(content) => Some(sha256(&content)),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Some(String::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if !put.expect.contains(&now.as_deref()) {
            return Err(io::Error::other(CHANGED));
        }
    }

    match put.to {
        Desired::File(content) => {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&temp)?;
            let written = file.write_all(content).and_then(|()| file.sync_all());
            drop(file);
            if let Err(error) = written.and_then(|()| fs::rename(&temp, &path)) {
                let _ = fs::remove_file(&temp);
                return Err(error);
            }
        }
        Desired::Dir => match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made?,
        },
        Desired::Absent if path.is_dir() => gone(fs::remove_dir(&path))?,
        Desired::Absent => gone(fs::remove_file(&path))?,
        Desired::AsItIs => {}
    }

    if let Some(seconds) = put.mtime {
        // The root has no time of its own; nobody loses anything by a newer one.
        let _ = File::open(&path).and_then(|file| {
            crate::sys::fs::contained_dir::set_time(&file, crate::model::index::Mtime(seconds, 0))
        });
    }
    Ok(())
}
