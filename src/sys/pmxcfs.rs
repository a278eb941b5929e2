//! The cluster file system: is it mounted, alive, quorate; and its tree as one consistent picture.
//!
//! The only place that opens config.db. The daemon holds no SQLite locks (it opens before it forks), so every
//! ordinary open, even a read-only one, makes the running daemon lose later writes or die; only
//! `mode=ro&readonly_shm=1` is harmless. Where that cannot be, a private copy of the database and its
//! write-ahead log is read, or the mount. `offline` makes a database for a pmxcfs that is stopped, in memory.

pub mod offline;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::child::{self, Answer};
use super::files;
use super::host::Host;
use super::lock::private_dir;
use crate::model::facts::Product;
use crate::model::report::Problem;

/// Where pmxcfs mounts.
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
const READ_LIMIT: Duration = Duration::from_secs(60);
const BUSY_LIMIT: Duration = Duration::from_secs(2);
const TRIES: usize = 5;
/// What a query may take: a hostile schema can make one endless.
const QUERY_LIMIT: Duration = Duration::from_secs(30);
/// pmxcfs documents 128 MiB and does not enforce it. Names and contents, and the database that holds them.
const MAX_TREE_BYTES: usize = 512 << 20;
/// The database and its log on the disk, of which a copy is made.
const MAX_COPY_BYTES: u64 = 1 << 30;
/// pmxcfs documents 262144.
const MAX_ROWS: usize = 1_000_000;
/// `PATH_MAX` without /etc/pve/ and the NUL.
const MAX_PATH_BYTES: usize = 4096 - MOUNT.len() - 2;
const MAX_PATHS_BYTES: usize = 256 << 20;
/// As many broken entries are named one by one.
const MAX_NAMED: usize = 100;
const MAX_DEPTH: usize = 1024;
/// The largest file pmxcfs takes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// One FUSE request answers at most this much from one locked copy of a file.
const REQUEST_BYTES: usize = 128 * 1024;
/// The folder of a private copy, followed by the pid of who reads it.
const COPY: &str = "pmxcfs-";
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    NotMounted,
    Live {
        quorate: bool,
    },
    /// Mounted, but the daemon is gone.
    Dead,
    /// Mounted, but nothing comes back.
    Frozen,
}

/// How the tree was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// One read transaction over the running daemon's database.
    Database,
    /// A private copy of the database and its log.
    Copy,
    /// File by file through the mount.
    Mount,
}

impl std::fmt::Display for How {
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
pub struct Node {
    pub path: PathBuf,
    pub mtime: i64,
    pub data: Option<Vec<u8>>,
}

impl Node {
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
pub struct Picture {
    pub nodes: Vec<Node>,
    /// A database file holding just this picture; None when it came through the mount.
    pub database: Option<Vec<u8>>,
    pub how: How,
    pub state: State,
    pub problems: Vec<Problem>,
}

/// Looks at the mount without ever waiting on it in this process.
pub fn state(host: &Host) -> State {
    if !mounted(host) {
        return State::NotMounted;
    }
    if host.hangs.was_met_within(FROZEN_FOR) {
        return State::Frozen;
    }
    let mount = host.path(MOUNT);
    // A stat may be answered from the kernel's cache for a second after the daemon's death; a read is not.
    let answer = child::run(PROBE_LIMIT, |pipe| {
        if fs::read(mount.join(".version")).is_ok() {
            let mode = fs::symlink_metadata(mount.join("local")).map_or(0, |meta| meta.mode());
            // Root's access(2) lies on FUSE; the daemon takes the write bits away without quorum.
            let _ = pipe.write_all(if mode & 0o200 == 0 { b"r" } else { b"w" });
        }
    });
    match answer {
        Ok(Answer::Done(data)) => match data.first() {
            Some(b'w') => State::Live { quorate: true },
            Some(_) => State::Live { quorate: false },
            None => State::Dead,
        },
        Ok(Answer::Stuck) | Err(_) => {
            host.hangs.meet();
            State::Frozen
        }
    }
}

fn mounted(host: &Host) -> bool {
    // Only the root is resolved: touching the mount itself could hang.
    let root = fs::canonicalize(host.root()).unwrap_or_else(|_| host.root().to_owned());
    let point = root.join(MOUNT.trim_start_matches('/'));
    files::mounts().iter().any(|(path, kind)| *path == point && kind.starts_with("fuse"))
}

/// Reads the whole tree. Errors only when there is no way to it at all.
pub fn read(host: &Host) -> Result<Picture> {
    let left = sweep(&host.run_dir());
    let mut picture = read_in(host, state(host))?;
    picture.problems.splice(0..0, left);
    Ok(picture)
}

fn read_in(host: &Host, state: State) -> Result<Picture> {
    let mut problems = state_problems(host, state);
    let shared = match state {
        State::NotMounted => None,
        _ => Some(Connection::open_shared(host).and_then(|db| contents(&db))),
    };
    let (how, contents) = match (shared, state) {
        (Some(Ok(contents)), _) => (How::Database, contents),
        (Some(Err(error)), State::Live { .. }) => match through_mount(host) {
            Ok((nodes, more)) => {
                let what = format!("{DATABASE}: {error:#}; /etc/pve was read from the mount instead");
                problems.push(
                    Problem::warning(what)
                        .hint("`systemctl restart pve-cluster` makes its database whole again"),
                );
                problems.extend(more);
                return Ok(Picture { nodes, database: None, how: How::Mount, state, problems });
            }
            Err(mount) => {
                problems.push(
                    Problem::warning(format!("{mount:#}; its contents were taken from config.db"))
                        .hint("see `systemctl status pve-cluster`"),
                );
                problems.push(behind(&error));
                let copy = private_copy(host);
                (How::Copy, copy.with_context(|| format!("{mount:#}, and its database cannot be read"))?)
            }
        },
        (shared, _) => {
            if let (Some(Err(error)), State::Frozen) = (&shared, state) {
                problems.push(behind(error));
            }
            let copy = private_copy(host);
            (How::Copy, copy.with_context(|| format!("{}, and its database cannot be read", shown(state)))?)
        }
    };
    problems.extend(contents.problems);
    Ok(Picture { nodes: contents.nodes, database: Some(contents.database), how, state, problems })
}

/// Nobody can be asked, and the disk is not known to have everything.
fn behind(error: &anyhow::Error) -> Problem {
    Problem::warning(format!("{DATABASE}: {error:#}; what was changed lately may be missing"))
        .hint("run the backup again when /etc/pve answers")
}

fn shown(state: State) -> &'static str {
    match state {
        State::NotMounted => "it is not mounted",
        State::Live { .. } => "it is mounted",
        State::Dead => "pmxcfs is dead",
        State::Frozen => "it does not answer",
    }
}

fn state_problems(host: &Host, state: State) -> Vec<Problem> {
    let problem = match state {
        // A system that is only mounted here has nobody to run pmxcfs.
        State::NotMounted if host.is_live() => {
            Problem::warning("/etc/pve is not mounted; its contents were taken from config.db")
                .hint("see `systemctl status pve-cluster`")
        }
        State::Dead => Problem::warning(
            "/etc/pve is mounted, but pmxcfs is dead; its contents were taken from config.db",
        )
        .hint("`systemctl restart pve-cluster`"),
        State::Frozen => Problem::warning("/etc/pve does not answer; its contents were taken from config.db")
            .hint("see `systemctl status pve-cluster`; `systemctl restart pve-cluster` when it hangs"),
        // A backup lacks nothing, but the admin of a node that takes no changes wants to know.
        State::Live { quorate: false } => {
            Problem::notice("the cluster has no quorum; /etc/pve is read-only now").hint("see `pvecm status`")
        }
        State::NotMounted | State::Live { quorate: true } => return Vec::new(),
    };
    vec![problem]
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
    if !host.path(DATABASE).exists() {
        return no_answer.map_or_else(|| Ok(nothing()), Err);
    }
    Ok(pick(private_copy(host)?.nodes, paths))
}

/// The contents of those of the nodes that are asked for.
fn pick(nodes: Vec<Node>, paths: &[&str]) -> Vec<Option<Vec<u8>>> {
    let mut found: HashMap<PathBuf, Option<Vec<u8>>> =
        nodes.into_iter().map(|node| (node.path, node.data)).collect();
    paths.iter().map(|path| found.remove(Path::new(path)).flatten()).collect()
}

fn row_data(db: &Connection, path: &str) -> Result<Option<Vec<u8>>> {
    let mut parent = 0_i64;
    let mut data = None;
    for name in path.split('/') {
        let row = db.query_row(
            "SELECT inode, data FROM tree WHERE parent = ?1 AND name = ?2 AND inode != 0",
            (parent, name),
            |row| Ok((row.get(0)?, bytes(row.get_ref(1)?))),
        );
        match row {
            Ok((inode, content)) => (parent, data) = (inode, Some(content)),
            Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(None),
            Err(error) => return Err(error).context(DATABASE),
        }
    }
    Ok(data)
}

// ---- the database

trait OpenShared: Sized {
    fn open_shared(host: &Host) -> Result<Self>;
}

impl OpenShared for Connection {
    /// The one harmless way into the database of a running pmxcfs (measured; see the head of this file).
    fn open_shared(host: &Host) -> Result<Self> {
        let mut uri = String::from("file:");
        for byte in host.path(DATABASE).as_os_str().as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                    uri.push(char::from(*byte));
                }
                _ => uri.push_str(&format!("%{byte:02X}")),
            }
        }
        uri.push_str("?mode=ro&readonly_shm=1");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let db = Self::open_with_flags(uri, flags).context("cannot be opened")?;
        db.busy_timeout(BUSY_LIMIT)?;
        // The first read tells whether the log and its index are there (error 14 when they are not).
        limited(&db, QUERY_LIMIT, check_is_table).context("cannot be read beside the running pmxcfs")?;
        // Only now: what is the daemon's after it was opened, was so when it was opened.
        check_owned_by_daemon(host)?;
        Ok(db)
    }
}

/// The database and the log on the disk must be the files that pmxcfs has open. An ordinary close beside it
/// deletes the log; without one, or with the next careless tool's, an old tree would read without an error.
fn check_owned_by_daemon(host: &Host) -> Result<()> {
    let pid = fs::read_to_string(host.path(PID_FILE)).ok().and_then(|pid| pid.trim().parse::<u32>().ok());
    let Some(fds) = pid.and_then(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok()) else {
        // A dead one has nothing but what is on the disk.
        return Ok(());
    };
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let held: HashSet<_> = fds.flatten().filter_map(|fd| id(&fd.path()).ok()).collect();
    let database = host.path(DATABASE);
    let log = with_suffix(&database, "-wal");
    for (path, name) in [(database, "it"), (log, "its log")] {
        let ours = id(&path).is_ok_and(|id| held.contains(&id));
        ensure!(ours, "{name} was replaced or deleted under the running pmxcfs");
    }
    Ok(())
}

struct Contents {
    nodes: Vec<Node>,
    database: Vec<u8>,
    problems: Vec<Problem>,
}

/// All rows and the database itself in one read transaction.
fn contents(db: &Connection) -> Result<Contents> {
    limited(db, QUERY_LIMIT, |db| {
        // Ends with the connection.
        db.execute_batch("BEGIN")?;
        check_is_table(db)?;
        let number = |pragma: &str| db.query_row(pragma, [], |row| row.get::<_, u32>(0));
        let size = u64::from(number("PRAGMA page_count")?) * u64::from(number("PRAGMA page_size")?);
        ensure!(size <= MAX_TREE_BYTES as u64, "has {size} bytes, more than any cluster file system");
        let (nodes, problems) = nodes(db)?;
        let mut database = db.serialize("main")?.to_vec();
        // The copy stands alone: told as a rollback-journal file, it needs no log beside it.
        if let Some(versions) = database.get_mut(18..20) {
            versions.fill(1);
        }
        Ok(Contents { nodes, database, problems })
    })
}

/// Ends the queries of `work` at the limit.
fn limited<T>(db: &Connection, limit: Duration, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    const AGAIN: Duration = Duration::from_millis(50);
    let handle = db.get_interrupt_handle();
    let (done, waiting) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let dog = scope.spawn(move || {
            let mut late = false;
            // An interruption between two queries is lost, so it is repeated.
            while waiting.recv_timeout(if late { AGAIN } else { limit }) == Err(RecvTimeoutError::Timeout) {
                late = true;
                handle.interrupt();
            }
            late
        });
        let result = work(db);
        drop(done);
        let late = dog.join().unwrap_or_default();
        if late { result.with_context(|| format!("took longer than {} s", limit.as_secs())) } else { result }
    })
}

/// A view or a virtual table of this name could compute without end and without a limit.
fn check_is_table(db: &Connection) -> Result<()> {
    // What SQLite made of the schema; the columns of sqlite_schema are only what the file says of itself.
    let kind = db.query_row("PRAGMA main.table_list(tree)", [], |row| row.get::<_, String>("type"));
    match kind {
        Ok(kind) if kind == "table" => {}
        Ok(kind) => bail!("its 'tree' is a {kind}, not a table"),
        Err(rusqlite::Error::QueryReturnedNoRows) => bail!("has no table 'tree'"),
        Err(error) => return Err(error.into()),
    }
    let mut columns = db.prepare("PRAGMA main.table_xinfo(tree)")?;
    let mut columns = columns.query([])?;
    while let Some(column) = columns.next()? {
        ensure!(column.get::<_, i64>("hidden")? == 0, "its 'tree' has columns that are computed");
    }
    Ok(())
}

struct Row {
    parent: i64,
    version: i64,
    mtime: i64,
    kind: i64,
    name: Vec<u8>,
    data: Option<Vec<u8>>,
}

const DIR: i64 = 4;
const FILE: i64 = 8;

fn nodes(db: &Connection) -> Result<(Vec<Node>, Vec<Problem>)> {
    let mut tree = rows(db)?;
    let (paths, mut broken) = paths(&tree)?;
    let mut nodes = Vec::with_capacity(paths.len());
    for (inode, path) in paths {
        if let Some(row) = tree.get_mut(&inode) {
            nodes.push((row.version, Node { path, mtime: row.mtime, data: row.data.take() }));
        }
    }
    // Of entries with the same path the first stays: a folder for what is in it, else the newest.
    nodes.sort_unstable_by(|(version_a, a), (version_b, b)| {
        let by_path = a.path.cmp(&b.path);
        by_path.then(a.data.is_some().cmp(&b.data.is_some())).then(version_b.cmp(version_a))
    });
    nodes.dedup_by(|(_, later), (_, first)| {
        let double = later.path == first.path;
        if double {
            broken.push(format!("{MOUNT}/{} stands in it twice; only one was kept", first.path.display()));
        }
        double
    });
    let more = broken.len().saturating_sub(MAX_NAMED);
    broken.truncate(MAX_NAMED);
    if more > 0 {
        broken.push(format!("{more} more of its entries are broken, too"));
    }
    let problem = |what| {
        Problem::warning(format!("{DATABASE}: {what}"))
            .hint("pmxcfs will not start on such a database; see `journalctl -u pve-cluster`")
    };
    Ok((nodes.into_iter().map(|(_, node)| node).collect(), broken.into_iter().map(problem).collect()))
}

fn rows(db: &Connection) -> Result<HashMap<i64, Row>> {
    let mut query =
        db.prepare("SELECT inode, parent, version, mtime, type, name, data FROM tree WHERE inode != 0")?;
    let mut rows = query.query([])?;
    let mut tree: HashMap<i64, Row> = HashMap::new();
    let mut size = 0;
    while let Some(row) = rows.next()? {
        let kind = row.get(4)?;
        let new = Row {
            parent: row.get(1)?,
            version: row.get(2)?,
            mtime: row.get(3)?,
            kind,
            name: bytes(row.get_ref(5)?),
            data: if kind == DIR { None } else { Some(bytes(row.get_ref(6)?)) },
        };
        // Counted row by row: rows of a hostile file can share their pages.
        size += new.name.len() + new.data.as_ref().map_or(0, Vec::len);
        ensure!(size <= MAX_TREE_BYTES, "holds more bytes than any cluster file system");
        tree.insert(row.get(0)?, new);
        ensure!(tree.len() <= MAX_ROWS, "has more than {MAX_ROWS} entries");
    }
    Ok(tree)
}

/// By inode.
type Paths = Vec<(i64, PathBuf)>;

/// The paths of all entries that have one, and what is wrong with the others. From the root down, so that it
/// takes no longer than the paths are long, whatever the rows say of each other.
fn paths(tree: &HashMap<i64, Row>) -> Result<(Paths, Vec<String>)> {
    let mut children: HashMap<i64, Vec<i64>> = HashMap::new();
    for (inode, row) in tree {
        children.entry(row.parent).or_default().push(*inode);
    }
    let mut paths = Vec::with_capacity(tree.len());
    let mut broken = Vec::new();
    let mut size = 0;
    let mut folders = vec![(0, Vec::new())];
    while let Some((folder, path)) = folders.pop() {
        for inode in children.remove(&folder).unwrap_or_default() {
            let Some(row) = tree.get(&inode) else { continue };
            if let Err(error) = check_row(row, path.len()) {
                broken.push((inode, error));
                continue;
            }
            let path = if path.is_empty() { row.name.clone() } else { [&path[..], &row.name].join(&b'/') };
            size += path.len();
            ensure!(size <= MAX_PATHS_BYTES, "has paths longer than any cluster file system");
            if row.kind == DIR {
                folders.push((inode, path.clone()));
            }
            paths.push((inode, PathBuf::from(std::ffi::OsString::from_vec(path))));
        }
    }
    // Whom nobody led to.
    for (parent, inodes) in children {
        let why = match tree.get(&parent) {
            None => "has no parent",
            Some(row) if row.kind == FILE => "lies in a file",
            Some(_) => "stands in a loop of folders, or below one that was left out",
        };
        broken.extend(inodes.into_iter().map(|inode| (inode, anyhow!(why))));
    }
    broken.sort_unstable_by_key(|(inode, _)| *inode);
    let said = broken.into_iter().map(|(inode, why)| format!("entry {inode} {why}; it was left out"));
    Ok((paths, said.collect()))
}

fn check_row(row: &Row, parent_bytes: usize) -> Result<()> {
    let name = row.name.as_slice();
    ensure!(matches!(row.kind, DIR | FILE), "is of the unknown type {}", row.kind);
    ensure!(parent_bytes + 1 + name.len() <= MAX_PATH_BYTES, "has a path longer than Linux takes");
    ensure!(
        !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0),
        "has the name {:?}",
        String::from_utf8_lossy(name)
    );
    Ok(())
}

fn bytes(value: ValueRef) -> Vec<u8> {
    match value {
        ValueRef::Blob(data) | ValueRef::Text(data) => data.to_vec(),
        _ => Vec::new(),
    }
}

// ---- a private copy

/// Reads a copy made of the database and its log, so that the original is never opened.
fn private_copy(host: &Host) -> Result<Contents> {
    let source = host.path(DATABASE);
    let run_dir = host.run_dir();
    let dir = run_dir.join(format!("{COPY}{}", std::process::id()));
    let result = copy_stable(&source, &dir).and_then(|copy| {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let db = Connection::open_with_flags(&copy, flags).context("cannot be opened")?;
        contents(&db)
    });
    let _ = remove_copy(&dir);
    // Nothing of ours stays in /run; the folder of a run that holds its lock is not empty and does.
    let _ = fs::remove_dir(&run_dir);
    result.with_context(|| source.display().to_string())
}

/// Removes the copies of killed processes: they hold all the keys of the cluster. Only the reading of the whole
/// tree does it, which can say so.
fn sweep(run_dir: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    for entry in fs::read_dir(run_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(COPY)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            problems.push(files::left(&entry.path(), fs::remove_dir_all(entry.path())));
        }
    }
    problems
}

/// Copies both files again until neither changed meanwhile: a checkpoint in between would mix two states.
fn copy_stable(source: &Path, dir: &Path) -> Result<PathBuf> {
    let wal = with_suffix(source, "-wal");
    let copy = dir.join("config.db");
    for _ in 0..TRIES {
        // A log left from the try before, or from a dead process of the same number, would be replayed into
        // this database.
        remove_copy(dir)?;
        private_dir(dir)?;
        check_size(source, &wal)?;
        let before = (stamp(source)?, wal_head(&wal));
        fs::copy(source, &copy)?;
        match fs::copy(&wal, with_suffix(&copy, "-wal")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        if before == (stamp(source)?, wal_head(&wal)) {
            return Ok(copy);
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

/// The copies go to /run, which is memory.
fn check_size(source: &Path, wal: &Path) -> Result<()> {
    let mut size = 0;
    for path in [source, wal] {
        if let Ok(meta) = fs::metadata(path) {
            // A pipe would be waited for.
            ensure!(meta.is_file(), "{} is no file", path.display());
            size += meta.len();
        }
    }
    ensure!(size <= MAX_COPY_BYTES, "has {size} bytes, more than any cluster file system");
    Ok(())
}

fn stamp(path: &Path) -> Result<(i64, i64, u64)> {
    let meta = fs::metadata(path)?;
    Ok((meta.mtime(), meta.mtime_nsec(), meta.size()))
}

fn wal_head(path: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(32).read_to_end(&mut head);
    }
    head
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

// ---- the mount

#[derive(Serialize, Deserialize)]
enum Frame {
    Node { path: Vec<u8>, mtime: i64, size: Option<u64> },
    Failed { path: Vec<u8>, error: String },
    End,
}

/// Files of the mount, all of them within one limit.
fn some_through_mount(mount: &Path, paths: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
    let (nodes, problems) = from_child(PROBE_LIMIT, |out| {
        for path in paths {
            send_file(mount, Path::new(path), 0, out)?;
        }
        Ok(())
    })?;
    if let Some(problem) = problems.into_iter().next() {
        bail!(problem.what);
    }
    Ok(pick(nodes, paths))
}

/// What `work` sends from a child that is killed at the limit.
fn from_child(
    limit: Duration,
    work: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
) -> Result<(Vec<Node>, Vec<Problem>)> {
    let answer = child::run(limit, |pipe| {
        let mut out = BufWriter::new(pipe);
        let _ = work(&mut out).and_then(|()| send(&mut out, &Frame::End)).and_then(|()| out.flush());
    })?;
    match answer {
        Answer::Done(data) => receive(&data),
        Answer::Stuck => bail!("{MOUNT}: no answer within {} s", limit.as_secs()),
    }
}

/// Reads the mount in a child, again while the daemon's change counters move.
fn through_mount(host: &Host) -> Result<(Vec<Node>, Vec<Problem>)> {
    let mount = host.path(MOUNT);
    // A daemon that ends well leaves an empty folder behind, which is no tree.
    let version = || -> Result<Vec<u8>> {
        let found = some_through_mount(&mount, &[".version"])?.pop().flatten();
        found.with_context(|| format!("{MOUNT} is not mounted any more"))
    };
    let mut last = None;
    for _ in 0..TRIES {
        let before = version()?;
        let (nodes, problems) = from_child(READ_LIMIT, |out| send_folder(&mount, Path::new(""), 0, out))?;
        let unchanged = before == version()?;
        last = Some((nodes, problems));
        if unchanged {
            break;
        }
        if let Some((_, problems)) = &mut last {
            problems.push(Problem::warning("/etc/pve changed while it was read file by file"));
        }
    }
    last.context("/etc/pve: nothing read")
}

/// Sends a folder's entries, open and closed one by one: an open file would block the daemon's restart.
fn send_folder(mount: &Path, at: &Path, depth: usize, out: &mut impl Write) -> std::io::Result<()> {
    let dir = match fs::read_dir(mount.join(at)) {
        Ok(dir) => dir,
        Err(error) => return send(out, &failed(at, &error)),
    };
    let mut names = Vec::new();
    for entry in dir {
        match entry {
            Ok(entry) => names.push(entry.file_name()),
            // What is listed after it would be missing without a word.
            Err(error) => send(out, &failed(at, &error))?,
        }
    }
    names.sort_unstable();
    for name in names {
        let hidden = name.as_bytes().starts_with(b".fuse_hidden");
        if hidden || depth == 0 && VIRTUAL.iter().any(|known| name == *known) {
            continue;
        }
        let path = at.join(name);
        let bytes = path.as_os_str().as_bytes().to_vec();
        match patiently(|| fs::symlink_metadata(mount.join(&path))) {
            Ok(meta) if meta.is_dir() => {
                send(out, &Frame::Node { path: bytes, mtime: meta.mtime(), size: None })?;
                if depth < MAX_DEPTH {
                    send_folder(mount, &path, depth + 1, out)?;
                } else {
                    send(out, &failed(&path, &std::io::Error::other("its contents lie too deep")))?;
                }
            }
            Ok(meta) => send_file(mount, &path, meta.mtime(), out)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => send(out, &failed(&path, &error))?,
        }
    }
    Ok(())
}

fn send_file(mount: &Path, path: &Path, mtime: i64, out: &mut impl Write) -> std::io::Result<()> {
    match read_small(&mount.join(path)) {
        Ok(data) => {
            let (path, size) = (path.as_os_str().as_bytes().to_vec(), Some(data.len() as u64));
            send(out, &Frame::Node { path, mtime, size })?;
            out.write_all(&data)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => send(out, &failed(path, &error)),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Frame {
    Frame::Failed { path: path.as_os_str().as_bytes().to_vec(), error: error.to_string() }
}

/// One request where the file allows it.
fn read_small(path: &Path) -> std::io::Result<Vec<u8>> {
    patiently(|| {
        let file = File::open(path)?;
        let mut data = Vec::with_capacity(REQUEST_BYTES);
        file.take(MAX_FILE_BYTES).read_to_end(&mut data)?;
        Ok(data)
    })
}

/// Asks again when a rename over the file hides it for a moment.
fn patiently<T>(work: impl Fn() -> std::io::Result<T>) -> std::io::Result<T> {
    let mut tries = 0;
    loop {
        tries += 1;
        match work() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries < 10 => {
                thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

fn send(out: &mut impl Write, frame: &Frame) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, frame)?;
    out.write_all(b"\n")
}

fn receive(mut data: &[u8]) -> Result<(Vec<Node>, Vec<Problem>)> {
    let mut nodes = Vec::new();
    let mut problems = Vec::new();
    loop {
        let mut line = Vec::new();
        data.read_until(b'\n', &mut line)?;
        match serde_json::from_slice(&line).context("/etc/pve: the reader died")? {
            Frame::End => break,
            Frame::Failed { path, error } => {
                problems
                    .push(Problem::warning(format!("/etc/pve/{}: {error}", String::from_utf8_lossy(&path))));
            }
            Frame::Node { path, mtime, size } => {
                let path = PathBuf::from(std::ffi::OsString::from_vec(path));
                let content = size.map(|size| {
                    let (content, rest) =
                        data.split_at_checked(usize::try_from(size)?).context("cut short")?;
                    data = rest;
                    Ok::<_, anyhow::Error>(content.to_vec())
                });
                nodes.push(Node { path, mtime, data: content.transpose()? });
            }
        }
    }
    nodes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok((nodes, problems))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_copy_holds_no_log_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let (source, copies) = (dir.path().join("config.db"), dir.path().join("copies"));
        fs::write(&source, "new").unwrap();
        fs::create_dir(&copies).unwrap();
        fs::write(copies.join("config.db-wal"), "old").unwrap();
        let copy = copy_stable(&source, &copies).unwrap();
        assert_eq!(fs::read(copy).unwrap(), b"new");
        assert!(!copies.join("config.db-wal").exists());
        fs::write(dir.path().join("config.db-wal"), "its own").unwrap();
        copy_stable(&source, &copies).unwrap();
        assert_eq!(fs::read(copies.join("config.db-wal")).unwrap(), b"its own");
    }

    /// A host without a mount, and a database that is not the one its "pmxcfs" (this test) has open.
    fn host(dir: &Path) -> Host {
        for folder in ["etc/pve", "var/lib/pve-cluster", "run"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(dir.join(&PID_FILE[1..]), std::process::id().to_string()).unwrap();
        let db = Connection::open_with_flags(dir.join(&DATABASE[1..]), OpenFlags::default()).unwrap();
        db.execute_batch(
            "CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL, \
             version INTEGER NOT NULL, writer INTEGER NOT NULL, mtime INTEGER NOT NULL, \
             type INTEGER NOT NULL, name TEXT NOT NULL, data BLOB); \
             INSERT INTO tree VALUES (0, 0, 2, 0, 1, 8, '__version__', NULL), (2, 0, 2, 0, 1, 8, 'a.cfg', 'x')",
        )
        .unwrap();
        Host::detect(dir.to_owned(), jiff::Timestamp::default(), Box::new(crate::sys::exec::NoTools))
    }

    #[test]
    fn where_database_and_mount_fail_the_copy_is_read_and_both_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let picture = read_in(&host(dir.path()), State::Live { quorate: true }).unwrap();
        assert_eq!(picture.how, How::Copy);
        assert_eq!(picture.nodes.len(), 1);
        let said: Vec<_> = picture.problems.iter().map(|problem| problem.what.as_str()).collect();
        let [mount, database] = said[..] else { panic!("{said:?}") };
        assert!(mount.contains("not mounted any more"), "{mount}");
        assert!(database.contains("may be missing"), "{database}");
    }

    #[test]
    fn a_folder_that_cannot_be_listed_or_lies_too_deep_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        let mut sent = Vec::new();
        send_folder(dir.path(), Path::new("gone"), 1, &mut sent).unwrap();
        send_folder(dir.path(), Path::new(""), MAX_DEPTH, &mut sent).unwrap();
        send(&mut sent, &Frame::End).unwrap();
        let (nodes, problems) = receive(&sent).unwrap();
        assert_eq!(nodes.len(), 1);
        let [gone, deep] = &problems[..] else { panic!("{problems:?}") };
        assert!(gone.what.contains("/etc/pve/gone: No such file"), "{}", gone.what);
        assert!(deep.what.contains("/etc/pve/deep: its contents lie too deep"), "{}", deep.what);
    }

    #[test]
    fn an_endless_query_ends_at_the_limit() {
        let db = Connection::open_with_flags(":memory:", OpenFlags::default()).unwrap();
        let endless =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let query = |db: &Connection| Ok(db.query_row(endless, [], |row| row.get::<_, i64>(0))?);
        let error = limited(&db, Duration::from_millis(100), query).unwrap_err();
        assert!(format!("{error:#}").contains("interrupt"), "{error:#}");
        assert_eq!(limited(&db, Duration::from_secs(60), |_| Ok(1)).unwrap(), 1);
    }

    #[test]
    fn modes_follow_the_path() {
        let mode =
            |path: &str, file: bool| Node { path: path.into(), mtime: 0, data: file.then(Vec::new) }.mode();
        assert_eq!(mode("storage.cfg", true), 0o640);
        assert_eq!(mode("priv", false), 0o700);
        assert_eq!(mode("priv/storage/nas.pw", true), 0o600);
        assert_eq!(mode("nodes/pve1/priv/x", true), 0o600);
        assert_eq!(mode("nodes/pve1/qemu-server", false), 0o755);
    }
}
