//! Guests at run time: the lock of one's configuration as Proxmox takes it, and whether one runs.
//! Not here: where these lie (`catalog::guests`).

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};

use super::fs::files;
use super::process::signals::check_stopped;
use crate::model::problem::{Fault, FaultKind};

const POLL: Duration = Duration::from_millis(100);
/// Mode of the lock's file, as Proxmox makes it.
const MODE: Mode = Mode::from_bits_truncate(0o644);
const PID_MAX_BYTES: u64 = 64;
const COMMAND_LINE_MAX_BYTES: u64 = 2 << 20;
/// A line of a hundred bytes for each socket.
const SOCKETS_MAX_BYTES: u64 = 64 << 20;
const SOCKETS: &str = "/proc/net/unix";

/// Splits `nodes/NODE/DIRECTORY/ID.conf`, relative to /etc/pve, into the node, the directory and the guest's id.
pub fn config_path(path: &Path) -> Option<(&str, &str, u32)> {
    let mut parts = path.iter().map(|part| part.to_str());
    let (Some(Some("nodes")), Some(Some(node)), Some(Some(directory)), Some(Some(file)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let digits = file.strip_suffix(".conf")?;
    let is_id = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    Some((node, directory, is_id.then(|| digits.parse().ok())??))
}

/// The lock of one guest's configuration, until it is dropped.
pub struct GuestLock {
    _file: File,
}

/// Takes the lock that `path` (absolute) is, below `root`; it stays there unlocked, as Proxmox leaves it. None where
/// its folder is not: nothing that takes it is installed.
///
/// Errors: `Locked` when something else holds it longer than `wait`; what lies there is no file.
pub fn lock(root: &Path, path: &str, wait: Duration) -> Result<Option<GuestLock>> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = match files::open_plain(root, Path::new(folder), OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        folder => folder.with_context(|| path.to_owned())?,
    };
    let since = Instant::now();

    loop {
        check_stopped()?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&folder, name, flags, MODE).with_context(|| format!("cannot open {path}"))?;
        let file = File::from(file);
        match file.try_lock() {
            Ok(()) if is_named(&file, &folder, name) => return Ok(Some(GuestLock { _file: file })),
            // Removed between our opening and our locking it.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if since.elapsed() >= wait {
                    let message = format!("something else holds the lock {path}");
                    let fault = Fault::new(FaultKind::Locked, message);
                    return Err(fault
                        .hint("a task of this guest is changing it: wait until it ends, then try again")
                        .into());
                }
                std::thread::sleep(POLL);
            }
            Err(TryLockError::Error(error)) => return Err(error).context(format!("cannot lock {path}")),
        }
    }
}

fn is_named(file: &File, folder: &impl AsFd, name: &str) -> bool {
    match (file.metadata(), fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.st_dev, named.st_ino),
        _ => false,
    }
}

/// The process in the file `pid_file` lives and was started with `argument`. Both absolute, below `root`.
pub fn has_process(root: &Path, pid_file: &str, argument: &str) -> bool {
    let pid = files::read_small(root, pid_file, PID_MAX_BYTES).unwrap_or_default();
    let Some(pid) = std::str::from_utf8(&pid).ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
        return false;
    };
    let line = files::read_small(root, format!("/proc/{pid}/cmdline"), COMMAND_LINE_MAX_BYTES);
    line.unwrap_or_default().split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
}

/// Something has the socket of this name, as the kernel shows it: `@` for an abstract one.
pub fn has_socket(root: &Path, name: &str) -> bool {
    let table = files::read_small(root, SOCKETS, SOCKETS_MAX_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&table).lines().any(|line| line.split_whitespace().last() == Some(name))
}
