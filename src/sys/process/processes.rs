//! What runs, as /proc tells it. Read in a child process: the file of a program may lie on a share that hangs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::forked::{self, ChildResult};
use crate::model::exposure::{Process, Program};

const LIMIT: Duration = Duration::from_secs(10);
/// `pid_max` of a 64-bit kernel is four million; a host has a few thousand.
const PROCESSES_MAX: usize = 100_000;
const DESCRIPTORS_MAX: usize = 65_536;
/// `PF_KTHREAD` of the kernel.
const KERNEL_THREAD: u32 = 0x0020_0000;
const DELETED: &[u8] = b" (deleted)";

/// All processes that `root`'s /proc shows. Errors: none is mounted there; it took too long.
pub fn all(root: &Path) -> Result<Vec<Process>> {
    match forked::run(LIMIT, || look(root)).context("/proc")? {
        ChildResult::Finished(found) => Ok(found),
        ChildResult::TimedOut => bail!("/proc: no answer within {} s", LIMIT.as_secs()),
    }
}

fn look(root: &Path) -> Vec<Process> {
    let proc = root.join("proc");
    let own = fs::read_link(proc.join("self/ns/pid")).ok();
    // Not the one that looks.
    let own_pids = [std::process::id(), std::os::unix::process::parent_id()];
    let others = pids(&proc).take(PROCESSES_MAX).filter(|pid| !own_pids.contains(pid));
    others.filter_map(|pid| one(root, &proc.join(pid.to_string()), pid, own.as_deref())).collect()
}

/// The numbers of all processes in a /proc; none where none is mounted.
pub fn pids(proc: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Reports whether a process has the file of this path open. Files of another name are not looked at: one of
/// a dead network mount would be waited for.
pub fn has_open(pid: u32, path: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let Some(wanted) = id(path) else { return false };
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut fds = entries.take(DESCRIPTORS_MAX).map(|entry| entry.path());
    fds.any(|fd| {
        let is_named = fs::read_link(&fd).is_ok_and(|link| link.file_name() == path.file_name());
        is_named && id(&fd) == Some(wanted)
    })
}

/// None: it has ended since.
fn one(root: &Path, dir: &Path, pid: u32, own_namespace: Option<&Path>) -> Option<Process> {
    let (name, state, flags) = parse_stat(&fs::read(dir.join("stat")).ok()?)?;
    let kernel = flags & KERNEL_THREAD != 0;
    let namespace = fs::read_link(dir.join("ns/pid")).ok();
    let line = fs::read(dir.join("cmdline")).unwrap_or_default();
    let title = line.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Process {
        pid,
        name,
        title: String::from_utf8_lossy(title).into_owned(),
        kernel,
        zombie: state == 'Z',
        contained: namespace.is_some() && own_namespace.is_some() && namespace.as_deref() != own_namespace,
        program: if kernel { None } else { program(root, dir) },
        sockets: if kernel { Vec::new() } else { sockets(dir) },
    })
}

/// `pid (name) state ppid pgrp session tty tpgid flags …`; a name may hold anything.
fn parse_stat(stat: &[u8]) -> Option<(String, char, u32)> {
    let text = String::from_utf8_lossy(stat);
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut words = rest.split_whitespace();
    let state = words.next()?.chars().next()?;
    Some((name, state, words.nth(5)?.parse().ok()?))
}

fn program(root: &Path, dir: &Path) -> Option<Program> {
    let link = dir.join("exe");
    let told = fs::read_link(&link).ok()?;
    let bytes = told.as_os_str().as_bytes();
    let (path, deleted) = match bytes.strip_suffix(DELETED) {
        Some(path) => (Path::new(OsStr::from_bytes(path)), true),
        None => (told.as_path(), false),
    };
    let inside = path.strip_prefix("/").unwrap_or(path);

    Some(Program {
        replaced: deleted && path.is_absolute() && fs::symlink_metadata(root.join(inside)).is_ok(),
        // Through the link: the file that runs, wherever it is now.
        world_writable: fs::metadata(&link).is_ok_and(|meta| meta.permissions().mode() & 0o002 != 0),
        // For people, and through JSON: a name of any bytes must not hide its program.
        path: PathBuf::from(path.to_string_lossy().into_owned()),
        deleted,
    })
}

fn sockets(dir: &Path) -> Vec<u64> {
    let entries = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().take(DESCRIPTORS_MAX);
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    entries.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_read_whole() {
        let stat = b"12 (a) b (c) S 1 12 12 0 -1 2129984 0 0";
        assert_eq!(parse_stat(stat), Some(("a) b (c".to_owned(), 'S', 2_129_984)));
        assert_eq!(parse_stat(b"12 (a"), None);
    }

    #[test]
    fn a_process_is_seen_with_its_file_and_its_sockets_and_the_one_that_looks_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = PathBuf::from(format!("/proc/{}", std::process::id()));
        let own = one(Path::new("/"), &dir, std::process::id(), None).unwrap();
        let program = own.program.unwrap();
        assert_eq!(program.path, std::env::current_exe().unwrap());
        assert!(!own.kernel && !own.contained && !program.deleted && !program.world_writable);
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener));
        let link = fs::read_link(link).unwrap();
        assert!(own.sockets.iter().any(|inode| link == Path::new(&format!("socket:[{inode}]"))));
        let all = all(Path::new("/")).unwrap();
        assert!(all.len() > 1 && all.iter().all(|process| process.pid != std::process::id()));
    }
}
