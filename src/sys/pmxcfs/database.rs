//! The one door to config.db, and its rows as a tree: checked, bounded, whatever the file says of itself.
//! The daemon holds no SQLite locks (it opens before it forks), so every ordinary open, even a read-only one, makes
//! the running daemon lose later writes or die; only `mode=ro&readonly_shm=1` is harmless.
//! Not here: how a private copy is made, which is opened here too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{
    DATABASE, MAX_NAMED, MAX_ROWS, MAX_TREE_BYTES, MOUNT, PID_FILE, PmxcfsNode, QUERY_LIMIT, with_suffix,
};
use crate::model::problem::Problem;
use crate::sys::fs::files;
use crate::sys::host::Host;

const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// `PATH_MAX` without /etc/pve/ and the NUL.
const MAX_PATH_BYTES: usize = 4096 - MOUNT.len() - 2;
const MAX_PATHS_BYTES: usize = 256 << 20;

pub(super) trait Open: Sized {
    fn open_shared(host: &Host) -> Result<Self>;
    fn open_copy(copy: &Path) -> Result<Self>;
}

impl Open for Connection {
    /// The one harmless way into the database of a running pmxcfs (measured; see the head of this file).
    fn open_shared(host: &Host) -> Result<Self> {
        check_files(host)?;
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
        let mut flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        if !host.is_live() {
            flags |= OpenFlags::SQLITE_OPEN_NOFOLLOW;
        }
        let db = Self::open_with_flags(uri, flags).context("cannot be opened")?;
        db.busy_timeout(BUSY_LIMIT)?;

        // The first read tells whether the log and its index are there (error 14 when they are not).
        limited(&db, QUERY_LIMIT, check_is_table).context("cannot be read beside the running pmxcfs")?;
        // Only now: what is the daemon's after it was opened, was so when it was opened.
        check_owned_by_daemon(host)?;
        Ok(db)
    }

    /// A file of ours alone, so that its log is replayed into it.
    fn open_copy(copy: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        Self::open_with_flags(copy, flags).context("cannot be opened")
    }
}

/// Errors: the database or one of its companions is not a regular file: a FIFO would be waited for.
fn check_files(host: &Host) -> Result<()> {
    for end in ["", "-wal", "-shm"] {
        match host.metadata(with_suffix(Path::new(DATABASE), end)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(meta) if !meta.is_file() => bail!("config.db{end} is not a regular file"),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the process that pmxcfs wrote down.
pub(super) fn daemon(host: &Host) -> Option<u32> {
    const PID_MAX_BYTES: u64 = 64;
    let pid = files::read_small(host.root(), PID_FILE, PID_MAX_BYTES).ok()?;
    std::str::from_utf8(&pid).ok()?.trim().parse().ok()
}

/// The database and the log on the disk must be the files that pmxcfs has open. An ordinary close beside it
/// deletes the log; without one, or with the next careless tool's, an old tree would read without an error.
fn check_owned_by_daemon(host: &Host) -> Result<()> {
    let Some(fds) = daemon(host).and_then(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok()) else {
        // A dead one has nothing but what is on the disk.
        return Ok(());
    };
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let held: HashSet<_> = fds.flatten().filter_map(|fd| fs::metadata(fd.path()).ok().map(id)).collect();
    for (end, name) in [("", "it"), ("-wal", "its log")] {
        let meta = host.metadata(with_suffix(Path::new(DATABASE), end));
        let ours = meta.is_ok_and(|meta| held.contains(&id(meta)));
        ensure!(ours, "{name} was replaced or deleted under the running pmxcfs");
    }
    Ok(())
}

pub(super) struct Contents {
    pub nodes: Vec<PmxcfsNode>,
    pub database: Vec<u8>,
    pub problems: Vec<Problem>,
}

/// All rows and the database itself in one read transaction.
pub(super) fn contents(db: &Connection) -> Result<Contents> {
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
pub(super) fn limited<T>(
    db: &Connection,
    limit: Duration,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    const STEPS: std::ffi::c_int = 1000;
    let end = Instant::now() + limit;
    db.progress_handler(STEPS, Some(move || Instant::now() >= end))?;
    let result = work(db);
    db.progress_handler(0, None::<fn() -> bool>)?;
    if Instant::now() < end {
        return result;
    }
    result.with_context(|| format!("took longer than {} s", limit.as_secs()))
}

/// A view or a virtual table of this name could compute without end and without a limit.
pub(super) fn check_is_table(db: &Connection) -> Result<()> {
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

pub(super) const DIR: i64 = 4;
pub(super) const FILE: i64 = 8;

fn nodes(db: &Connection) -> Result<(Vec<PmxcfsNode>, Vec<Problem>)> {
    let mut tree = rows(db)?;
    let (paths, mut broken) = paths(&tree)?;
    let mut nodes = Vec::with_capacity(paths.len());
    for (inode, path) in paths {
        if let Some(row) = tree.get_mut(&inode) {
            nodes.push((row.version, PmxcfsNode { path, mtime: row.mtime, data: row.data.take() }));
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
            broken.push(format!("{MOUNT}/{} is in it twice; only one was kept", first.path.display()));
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

/// Inodes with their paths.
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
            Some(_) => "is in a loop of directories, or below one that was skipped",
        };
        broken.extend(inodes.into_iter().map(|inode| (inode, anyhow!(why))));
    }

    broken.sort_unstable_by_key(|(inode, _)| *inode);
    let said = broken.into_iter().map(|(inode, why)| format!("entry {inode} {why}; it was skipped"));
    Ok((paths, said.collect()))
}

fn check_row(row: &Row, parent_bytes: usize) -> Result<()> {
    let name = row.name.as_slice();
    ensure!(matches!(row.kind, DIR | FILE), "is of the unknown type {}", row.kind);
    ensure!(parent_bytes + 1 + name.len() <= MAX_PATH_BYTES, "has a path longer than Linux allows");
    ensure!(
        !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0),
        "has the name {:?}",
        String::from_utf8_lossy(name)
    );
    Ok(())
}

pub(super) fn bytes(value: ValueRef) -> Vec<u8> {
    match value {
        ValueRef::Blob(data) | ValueRef::Text(data) => data.to_vec(),
        _ => Vec::new(),
    }
}

/// The contents of one file, by its path. None: it is not there.
pub(super) fn row_data(db: &Connection, path: &str) -> Result<Option<Vec<u8>>> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
}
