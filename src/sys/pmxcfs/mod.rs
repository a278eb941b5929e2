//! The cluster file system: is it mounted, alive, quorate; and its tree as one consistent picture.
//!
//! Where config.db is read, `database` opens it; where that cannot be, a private `copy` of the database and its
//! write-ahead log is read, or the `mount`. `offline` makes a database for a pmxcfs that is stopped, in memory.

mod copy;
mod database;
mod mount;
pub mod offline;
pub mod write;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rusqlite::Connection;

use self::copy::{private_copy, sweep};
use self::database::{DIR, FILE, Open, bytes, check_is_table, contents, limited, row_data};
use self::mount::{some_through_mount, through_mount};
use super::fs::mounts;
use super::host::Host;
use super::process::forked::{self, ChildResult};
use crate::model::facts::{PmxcfsState, Product};
use crate::model::problem::Problem;

/// Mount point of pmxcfs.
pub const MOUNT: &str = "/etc/pve";
/// Its database.
pub const DATABASE: &str = "/var/lib/pve-cluster/config.db";
/// What stands beside it while it is used; after a clean stop neither is there.
pub const LOGS: [&str; 2] = ["-wal", "-shm"];
/// Runs pmxcfs.
pub const UNIT: &str = "pve-cluster";
/// Written by pmxcfs itself, however it was started.
const PID_FILE: &str = "/run/pve-cluster.pid";

const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// Who hung a moment ago is not waited for again by the next who asks.
const FROZEN_FOR: Duration = Duration::from_secs(30);
const TRIES: usize = 5;
/// What a query may take: a hostile schema can make one endless.
const QUERY_LIMIT: Duration = Duration::from_secs(30);
/// pmxcfs documents 128 MiB and does not enforce it. Names and contents, and the database that holds them.
const MAX_TREE_BYTES: usize = 512 << 20;
/// pmxcfs documents 262144.
const MAX_ROWS: usize = 1_000_000;
/// Number of broken entries that are named one by one.
const MAX_NAMED: usize = 100;
/// The largest file pmxcfs takes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Entries that the daemon makes up in its root; not in the database.
pub const VIRTUAL: [&str; 10] = [
    ".version",
    ".members",
    ".vmlist",
    ".clusterlog",
    ".rrd",
    ".debug",
    "local",
    "qemu-server",
    "lxc",
    "openvz",
];

/// The way that the tree was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureSource {
    /// One read transaction over the running daemon's database.
    Database,
    /// A private copy of the database and its log.
    Copy,
    /// File by file through the mount.
    Mount,
}

impl std::fmt::Display for PictureSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Database => "its database",
            Self::Copy => "a copy of its database",
            Self::Mount => "the mount",
        })
    }
}

/// A file or folder of the tree; `data` is None for a folder. The path is relative to /etc/pve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PmxcfsNode {
    pub path: PathBuf,
    pub mtime: i64,
    pub data: Option<Vec<u8>>,
}

impl PmxcfsNode {
    /// The mode that a quorate pmxcfs shows: decided by the path alone.
    pub fn mode(&self) -> u32 {
        let mut parts = self.path.iter().map(OsStrExt::as_bytes);
        let private = matches!(
            (parts.next(), parts.next(), parts.next()),
            (Some(b"priv"), ..) | (Some(b"nodes"), Some(_), Some(b"priv"))
        );
        match (private, self.data.is_some()) {
            (true, true) => 0o600,
            (true, false) => 0o700,
            (false, true) => 0o640,
            (false, false) => 0o755,
        }
    }
}

/// The whole tree at one moment, parents before children, names in byte order.
#[derive(Debug)]
pub struct PmxcfsPicture {
    pub nodes: Vec<PmxcfsNode>,
    /// A database file holding just this picture; None when it came through the mount.
    pub database: Option<Vec<u8>>,
    pub how: PictureSource,
    pub state: PmxcfsState,
    pub problems: Vec<Problem>,
}

/// Looks at the mount without ever waiting on it in this process.
pub fn state(host: &Host) -> PmxcfsState {
    if !mounted(host) {
        return PmxcfsState::NotMounted;
    }
    if host.hangs.was_met_within(FROZEN_FOR) {
        return PmxcfsState::Frozen;
    }
    let mount = host.path(MOUNT);

    // A stat may be answered from the kernel's cache for a second after the daemon's death; a read is not.
    let answer = forked::run_raw(PROBE_LIMIT, |pipe| {
        if fs::read(mount.join(".version")).is_ok() {
            let mode = fs::symlink_metadata(mount.join("local")).map_or(0, |meta| meta.mode());
            // Root's access(2) lies on FUSE; the daemon takes the write bits away without quorum.
            let _ = pipe.write_all(if mode & 0o200 == 0 { b"r" } else { b"w" });
        }
    });

    match answer {
        Ok(ChildResult::Finished(data)) => match data.first() {
            Some(b'w') => PmxcfsState::Live { quorate: true },
            Some(_) => PmxcfsState::Live { quorate: false },
            None => PmxcfsState::Dead,
        },
        Ok(ChildResult::TimedOut) | Err(_) => {
            host.hangs.meet();
            PmxcfsState::Frozen
        }
    }
}

fn mounted(host: &Host) -> bool {
    // Only the root is resolved: touching the mount itself could hang.
    let root = fs::canonicalize(host.root()).unwrap_or_else(|_| host.root().to_owned());
    let point = root.join(MOUNT.trim_start_matches('/'));
    mounts::mounts().iter().any(|(path, kind)| *path == point && kind.starts_with("fuse"))
}

/// Reads the whole tree. Errors only when there is no way to it at all.
pub fn read(host: &Host) -> Result<PmxcfsPicture> {
    let left = sweep(&host.run_dir());
    let mut picture = read_in(host, state(host))?;
    picture.problems.splice(0..0, left);
    Ok(picture)
}

fn read_in(host: &Host, state: PmxcfsState) -> Result<PmxcfsPicture> {
    let mut problems = state_problems(host, state);
    let shared = match state {
        PmxcfsState::NotMounted => None,
        _ => Some(Connection::open_shared(host).and_then(|db| contents(&db))),
    };

    let (how, contents) = match (shared, state) {
        (Some(Ok(contents)), _) => (PictureSource::Database, contents),
        (Some(Err(error)), PmxcfsState::Live { .. }) => match through_mount(host) {
            Ok((nodes, more)) => {
                let what = format!("{DATABASE}: {error:#}; /etc/pve was read from the mount instead");
                problems.push(
                    Problem::warning(what).hint("`systemctl restart pve-cluster` repairs its database"),
                );
                problems.extend(more);
                return Ok(PmxcfsPicture {
                    nodes,
                    database: None,
                    how: PictureSource::Mount,
                    state,
                    problems,
                });
            }
            Err(mount) => {
                problems.push(
                    Problem::warning(format!("{mount:#}; its contents were taken from config.db"))
                        .hint("see `systemctl status pve-cluster`"),
                );
                problems.push(behind(&error));
                let copy = private_copy(host);
                (
                    PictureSource::Copy,
                    copy.with_context(|| format!("{mount:#}, and its database cannot be read"))?,
                )
            }
        },
        (shared, _) => {
            if let (Some(Err(error)), PmxcfsState::Frozen) = (&shared, state) {
                problems.push(behind(error));
            }
            let copy = private_copy(host);
            (PictureSource::Copy, copy.with_context(|| format!("{state}, and its database cannot be read"))?)
        }
    };

    problems.extend(contents.problems);
    Ok(PmxcfsPicture { nodes: contents.nodes, database: Some(contents.database), how, state, problems })
}

/// Nobody can be asked, and the disk is not known to have everything.
fn behind(error: &anyhow::Error) -> Problem {
    Problem::warning(format!("{DATABASE}: {error:#}; recent changes may be missing"))
        .hint("run the backup again when /etc/pve answers")
}

fn state_problems(host: &Host, state: PmxcfsState) -> Vec<Problem> {
    let hint = match state {
        // A system that is only mounted here has nobody to run pmxcfs.
        PmxcfsState::NotMounted if host.is_live() => "see `systemctl status pve-cluster`",
        PmxcfsState::Dead => "`systemctl restart pve-cluster`",
        PmxcfsState::Frozen => {
            "see `systemctl status pve-cluster`; `systemctl restart pve-cluster` when it hangs"
        }
        // A backup lacks nothing, but the admin of a node that takes no changes wants to know.
        PmxcfsState::Live { quorate: false } => {
            return vec![Problem::notice(state.to_string()).hint("see `pvecm status`")];
        }
        PmxcfsState::NotMounted | PmxcfsState::Live { quorate: true } => return Vec::new(),
    };
    vec![Problem::warning(format!("{state}; its contents were taken from config.db")).hint(hint)]
}

/// Some files of the tree, without reading all of it. None for what is not there, or when this is no PVE host.
pub fn files(host: &Host, paths: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
    let nothing = || vec![None; paths.len()];
    if !host.facts.has(Product::Pve) {
        return Ok(nothing());
    }

    let mut no_answer = None;
    if mounted(host) {
        let rows = Connection::open_shared(host).and_then(|db| {
            limited(&db, QUERY_LIMIT, |db| paths.iter().map(|path| row_data(db, path)).collect())
        });
        if let Ok(rows) = rows {
            return Ok(rows);
        }
        match some_through_mount(&host.path(MOUNT), paths) {
            Ok(found) => return Ok(found),
            Err(error) => no_answer = Some(error),
        }
    }

    if host.metadata(DATABASE).is_err() {
        return no_answer.map_or_else(|| Ok(nothing()), Err);
    }
    Ok(pick(private_copy(host)?.nodes, paths))
}

/// The contents of those of the nodes that are asked for.
fn pick(nodes: Vec<PmxcfsNode>, paths: &[&str]) -> Vec<Option<Vec<u8>>> {
    let mut found: HashMap<PathBuf, Option<Vec<u8>>> =
        nodes.into_iter().map(|node| (node.path, node.data)).collect();
    paths.iter().map(|path| found.remove(Path::new(path)).flatten()).collect()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// A host without a mount, and a database that is not the one its "pmxcfs" (this test) has open.
    fn host(dir: &Path) -> Host {
        for folder in ["etc/pve", "var/lib/pve-cluster", "run"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(dir.join(&PID_FILE[1..]), std::process::id().to_string()).unwrap();
        let db =
            Connection::open_with_flags(dir.join(&DATABASE[1..]), rusqlite::OpenFlags::default()).unwrap();
        db.execute_batch(
            "CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL, \
             version INTEGER NOT NULL, writer INTEGER NOT NULL, mtime INTEGER NOT NULL, \
             type INTEGER NOT NULL, name TEXT NOT NULL, data BLOB); \
             INSERT INTO tree VALUES (0, 0, 2, 0, 1, 8, '__version__', NULL), (2, 0, 2, 0, 1, 8, 'a.cfg', 'x')",
        )
        .unwrap();
        Host::detect(dir.to_owned(), jiff::Timestamp::default(), Box::new(crate::sys::process::exec::NoTools))
    }

    #[test]
    fn where_database_and_mount_fail_the_copy_is_read_and_both_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let picture = read_in(&host(dir.path()), PmxcfsState::Live { quorate: true }).unwrap();
        assert_eq!(picture.how, PictureSource::Copy);
        assert_eq!(picture.nodes.len(), 1);
        let said: Vec<_> = picture.problems.iter().map(|problem| problem.what.as_str()).collect();
        let [mount, database] = said[..] else { panic!("{said:?}") };
        assert!(mount.contains("not mounted any more"), "{mount}");
        assert!(database.contains("may be missing"), "{database}");
    }

    #[test]
    fn modes_follow_the_path() {
        let mode = |path: &str, file: bool| {
            PmxcfsNode { path: path.into(), mtime: 0, data: file.then(Vec::new) }.mode()
        };
        assert_eq!(mode("storage.cfg", true), 0o640);
        assert_eq!(mode("priv", false), 0o700);
        assert_eq!(mode("priv/storage/nas.pw", true), 0o600);
        assert_eq!(mode("nodes/pve1/priv/x", true), 0o600);
        assert_eq!(mode("nodes/pve1/qemu-server", false), 0o755);
    }
}
