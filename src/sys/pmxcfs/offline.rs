//! A snapshot's config.db made ready for a host whose pmxcfs is stopped: checked for what pmxcfs refuses, its rows
//! written again into the daemon's own schema, so that nothing but them comes along. In memory; it opens no file, and
//! what it gives is put in place like any other file.
//! Not here: reading a live tree (the module above), what a restore decides.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use super::database::daemon;
use super::{
    DATABASE, DIR, FILE, LOGS, MAX_FILE_BYTES, MAX_NAMED, MAX_ROWS, MAX_TREE_BYTES, QUERY_LIMIT, bytes,
    check_is_table, limited, mounted, with_suffix,
};
use crate::model::problem::{Fault, FaultKind};
use crate::sys::guests::config_path;
use crate::sys::host::Host;
use crate::sys::process::processes;

/// The table, as pmxcfs makes it.
const SCHEMA: &str = "CREATE TABLE tree (\
    inode INTEGER PRIMARY KEY NOT NULL, \
    parent INTEGER NOT NULL CHECK(typeof(parent)=='integer'), \
    version INTEGER NOT NULL CHECK(typeof(version)=='integer'), \
    writer INTEGER NOT NULL CHECK(typeof(writer)=='integer'), \
    mtime INTEGER NOT NULL CHECK(typeof(mtime)=='integer'), \
    type INTEGER NOT NULL CHECK(typeof(type)=='integer'), \
    name TEXT NOT NULL, \
    data BLOB)";
const INSERT: &str = "INSERT INTO tree (inode, parent, version, writer, mtime, type, name, data) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const SELECT: &str = "SELECT inode, parent, version, writer, mtime, type, name, data FROM tree";
/// The row of the whole tree's version.
const ROOT: i64 = 0;
const ROOT_NAME: &[u8] = b"__version__";
/// Makes a node a member of a cluster.
const COROSYNC: &[u8] = b"corosync.conf";
/// After its unmount pmxcfs lives on for some seconds.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// What holds guests below a node, and is unique by id.
const GUEST_DIRS: [&str; 3] = ["qemu-server", "lxc", "openvz"];

/// A file's contents as they come back: its path below /etc/pve, and what it holds.
type Rewrite<'a> = Box<dyn Fn(&str, &[u8]) -> Vec<u8> + 'a>;

/// What becomes of the tree on its way.
pub struct Edit<'a> {
    pub leave_cluster: bool,
    /// The node OLD is NEW.
    pub node: Option<(&'a str, &'a str)>,
    pub contents: Rewrite<'a>,
}

/// A database that pmxcfs starts on.
#[derive(Debug)]
pub struct Ready {
    pub database: Vec<u8>,
    /// The names below nodes/.
    pub nodes: BTreeSet<String>,
    /// It makes its host a member of a cluster.
    pub is_member: bool,
    /// What an admin should know; nothing keeps pmxcfs from starting.
    pub notes: Vec<String>,
}

struct Row {
    parent: i64,
    version: i64,
    writer: i64,
    mtime: i64,
    kind: i64,
    name: Vec<u8>,
    data: Vec<u8>,
}

type Rows = BTreeMap<i64, Row>;

/// Errors: `Failed`, with all that pmxcfs would refuse.
pub fn prepare(database: &[u8], edit: &Edit) -> Result<Ready> {
    let (mut rows, found) = read(database).context("the snapshot's config.db")?;
    let paths = check(&rows)?;
    let mut notes = Vec::new();
    if edit.leave_cluster {
        let before = rows.len();
        rows.retain(|_, row| !(row.parent == ROOT && row.name == COROSYNC));
        if rows.len() == before {
            notes.push("it names no cluster: there is nothing to leave".to_owned());
        }
    }

    if let Some((old, new)) = edit.node {
        rename_node(&mut rows, &paths, old, new)?;
    }
    for (inode, row) in rows.iter_mut().filter(|(_, row)| row.kind == FILE) {
        let Some(path) = paths.get(inode).and_then(|path| std::str::from_utf8(path).ok()) else { continue };
        row.data = (edit.contents)(path, &row.data);
        if row.data.len() as u64 > MAX_FILE_BYTES {
            notes.push(format!("/etc/pve/{path} is larger than the 1 MiB that can be written there"));
        }
    }

    // Every inode is a version of the past: a lower counter would give one of them away again.
    let newest = rows.iter().map(|(inode, row)| (*inode).max(row.version)).max().unwrap_or_default();
    let version = found.max(newest).max(1) + 1;
    let folders = rows.values().filter(|row| row.kind == DIR && is_nodes_child(row, &rows));
    let names = folders.map(|row| String::from_utf8_lossy(&row.name).into_owned()).collect();
    let is_member = rows.values().any(|row| row.parent == ROOT && row.name == COROSYNC);
    let database = write(&rows, version).context("cannot build the new database")?;
    Ok(Ready { database, nodes: names, is_member, notes })
}

fn is_nodes_child(row: &Row, rows: &Rows) -> bool {
    rows.get(&row.parent).is_some_and(|above| above.parent == ROOT && above.name == b"nodes")
}

/// All rows but the root's, and its version.
fn read(database: &[u8]) -> Result<(Rows, i64)> {
    ensure!(
        database.len() <= MAX_TREE_BYTES,
        "has {} bytes, more than any cluster file system",
        database.len()
    );
    let mut plain = database.to_vec();

    // Told as a rollback-journal file: memory has no log.
    if let Some(versions) = plain.get_mut(18..20) {
        versions.fill(1);
    }

    let mut db = memory()?;
    let size = plain.len();
    db.deserialize_read_exact("main", Cursor::new(plain), size, true).context("is not a database")?;
    limited(&db, QUERY_LIMIT, |db| {
        check_is_table(db)?;
        let sound = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        let sound = sound.context("is damaged")?;
        ensure!(sound == "ok", "is damaged: {sound}");
        let mut query = db.prepare(SELECT)?;
        let mut found = query.query([])?;
        let (mut rows, mut version, mut size) = (Rows::new(), 0, 0);
        while let Some(row) = found.next()? {
            let inode: i64 = row.get(0)?;
            let new = Row {
                parent: row.get(1)?,
                version: row.get(2)?,
                writer: row.get(3)?,
                mtime: row.get(4)?,
                kind: row.get(5)?,
                name: bytes(row.get_ref(6)?),
                data: bytes(row.get_ref(7)?),
            };
            size += new.name.len() + new.data.len();
            ensure!(size <= MAX_TREE_BYTES, "holds more bytes than any cluster file system");
            if inode == ROOT {
                ensure!(new.name == ROOT_NAME, "entry 0 has another name than '__version__'");
                version = new.version;
            } else {
                rows.insert(inode, new);
                ensure!(rows.len() <= MAX_ROWS, "has more than {MAX_ROWS} entries");
            }
        }
        Ok((rows, version))
    })
}

/// The paths of all entries. Errors: what keeps pmxcfs from starting, all of it.
fn check(rows: &Rows) -> Result<HashMap<i64, Vec<u8>>> {
    let mut wrong = Vec::new();
    let mut children = children(rows, &mut wrong);
    let paths = paths(rows, &mut children, &mut wrong);

    // What no folder led to.
    for (parent, inodes) in children {
        let why = match rows.get(&parent) {
            None => "has no parent",
            Some(row) if row.kind == FILE => "lies in a file",
            Some(_) => "is in a loop of directories",
        };
        wrong.extend(inodes.into_iter().map(|inode| format!("entry {inode} {why}")));
    }

    if wrong.is_empty() {
        return Ok(paths);
    }
    wrong.sort();

    let more = wrong.len().saturating_sub(MAX_NAMED);
    wrong.truncate(MAX_NAMED);
    if more > 0 {
        wrong.push(format!("{more} more"));
    }

    let fault = Fault::new(FaultKind::Failed, format!("pmxcfs would not start on it: {}", wrong.join("; ")));
    Err(fault.hint("restore without --database: file by file through the mount").into())
}

/// The entries of each folder, both by inode; without those that cannot be.
fn children(rows: &Rows, wrong: &mut Vec<String>) -> HashMap<i64, Vec<i64>> {
    let mut children: HashMap<i64, Vec<i64>> = HashMap::new();
    for (inode, row) in rows {
        let shown = String::from_utf8_lossy(&row.name);
        let name = row.name.as_slice();
        if name.is_empty() || matches!(name, b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
            wrong.push(format!("entry {inode} has the name {shown:?}"));
        } else if !matches!(row.kind, DIR | FILE) {
            wrong.push(format!("'{shown}' (entry {inode}) is of the unknown type {}", row.kind));
        } else if row.kind == DIR && !row.data.is_empty() {
            wrong.push(format!("the directory '{shown}' (entry {inode}) has contents"));
        } else {
            children.entry(row.parent).or_default().push(*inode);
        }
    }
    children
}

/// Walks from the root down; what stays in `children` is reached from nowhere.
fn paths(
    rows: &Rows,
    children: &mut HashMap<i64, Vec<i64>>,
    wrong: &mut Vec<String>,
) -> HashMap<i64, Vec<u8>> {
    let mut paths = HashMap::with_capacity(rows.len());
    let mut guests: HashMap<u32, String> = HashMap::new();
    let mut todo = vec![(ROOT, Vec::new())];
    while let Some((folder, path)) = todo.pop() {
        let mut names = HashSet::new();
        for inode in children.remove(&folder).unwrap_or_default() {
            let Some(row) = rows.get(&inode) else { continue };
            let path = if path.is_empty() { row.name.clone() } else { [&path[..], &row.name].join(&b'/') };
            let shown = String::from_utf8_lossy(&path).into_owned();
            if !names.insert(row.name.as_slice()) {
                wrong.push(format!("'{shown}' is in it twice"));
            }
            if let Some(id) = guest(&path).filter(|_| row.kind == FILE)
                && let Some(other) = guests.insert(id, shown.clone())
            {
                wrong.push(format!("guest {id} is in it twice: {other} and {shown}"));
            }
            if row.kind == DIR {
                todo.push((inode, path.clone()));
            }
            paths.insert(inode, path);
        }
    }
    paths
}

/// The id that must be unique: `nodes/NODE/{qemu-server,lxc,openvz}/ID.conf`.
fn guest(path: &[u8]) -> Option<u32> {
    let (node, directory, id) = config_path(Path::new(OsStr::from_bytes(path)))?;
    let is_label = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    (GUEST_DIRS.contains(&directory) && node.bytes().all(is_label)).then_some(id)
}

fn rename_node(rows: &mut Rows, paths: &HashMap<i64, Vec<u8>>, old: &str, new: &str) -> Result<()> {
    let place = |node: &str| {
        let wanted = format!("nodes/{node}").into_bytes();
        paths.iter().find(|(_, path)| **path == wanted).map(|(inode, _)| *inode)
    };
    let usage = |what: String| Fault::new(FaultKind::Usage, what);
    ensure!(place(new).is_none(), usage(format!("the database has a node '{new}' already")));
    let inode = place(old).ok_or_else(|| usage(format!("the database has no node '{old}'")))?;
    if let Some(row) = rows.get_mut(&inode) {
        row.name = new.as_bytes().to_vec();
    }
    Ok(())
}

/// A name may be any bytes; SQLite keeps them as text all the same.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

fn memory() -> Result<Connection> {
    Ok(Connection::open_in_memory()?)
}

fn write(rows: &Rows, version: i64) -> Result<Vec<u8>> {
    let mut db = memory()?;
    db.execute_batch(SCHEMA)?;

    let all = db.transaction()?;
    {
        let mut insert = all.prepare(INSERT)?;
        let newest = rows.values().map(|row| row.mtime).max().unwrap_or_default();
        insert.execute((ROOT, ROOT, version, 0, newest, FILE, Text(ROOT_NAME), None::<&[u8]>))?;
        for (inode, row) in rows {
            // An empty file has no contents at all.
            let data = Some(row.data.as_slice()).filter(|data| !data.is_empty());
            let name = Text(&row.name);
            insert.execute((inode, row.parent, row.version, row.writer, row.mtime, row.kind, name, data))?;
        }
    }
    all.commit()?;
    Ok(db.serialize("main")?.to_vec())
}

/// Returns the files that SQLite keeps beside the database; none for any other path.
pub fn logs(path: &Path) -> Vec<PathBuf> {
    let is_it = path.strip_prefix("/").unwrap_or(path) == Path::new(DATABASE.trim_start_matches('/'));
    LOGS.iter().filter(|_| is_it).map(|end| with_suffix(path, end)).collect()
}

/// The database, and what stands beside it while it is used.
pub fn is_database(path: &Path) -> bool {
    let name = path.strip_prefix("/").unwrap_or(path).as_os_str();
    let database = DATABASE.trim_start_matches('/');
    LOGS.iter().chain([&""]).any(|end| name == OsStr::new(&format!("{database}{end}")))
}

/// Waits until `check_stopped` passes, at most `STOP_LIMIT`: a daemon that is told to end takes a moment.
pub fn wait_stopped(host: &Host) -> Result<(), Fault> {
    let since = Instant::now();
    loop {
        match check_stopped(host) {
            Err(_) if since.elapsed() < STOP_LIMIT => thread::sleep(POLL),
            checked => return checked,
        }
    }
}

/// Nobody has the database: no mount, no daemon, no other process with it or its log open.
/// Errors: `Failed`, with how to stop them.
pub fn check_stopped(host: &Host) -> Result<(), Fault> {
    let what = if mounted(host) {
        "/etc/pve is mounted: the database belongs to the running pmxcfs".to_owned()
    } else if let Some((pid, name)) = process_with_database(host) {
        format!("the process {pid} ({name}) has the database of /etc/pve open")
    } else {
        return Ok(());
    };
    Err(Fault::new(FaultKind::Failed, what).hint(
        "`systemctl stop pve-cluster` (first pvedaemon, pveproxy, pvestatd, pvescheduler, pve-firewall, \
         pve-ha-lrm and pve-ha-crm), then try again",
    ))
}

/// Finds the daemon, or another process that has the database or its log open: its PID and name.
fn process_with_database(host: &Host) -> Option<(u32, String)> {
    let found = ["", "-wal"].map(|end| host.metadata(with_suffix(Path::new(DATABASE), end)));
    let files = found.iter().flatten().map(file_id).collect();
    let daemon = daemon(host);

    for pid in processes::pids(Path::new("/proc")) {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let is_daemon = name.trim_ascii_end() == b"pmxcfs" && (daemon == Some(pid) || host.is_live());
        if is_daemon || has_open(Path::new(&format!("/proc/{pid}")), &files) {
            return Some((pid, String::from_utf8_lossy(name.trim_ascii_end()).into_owned()));
        }
    }
    None
}

/// Device and inode.
type FileId = (u64, u64);

fn file_id(meta: &fs::Metadata) -> FileId {
    (meta.dev(), meta.ino())
}

/// Reports whether a process, named by its directory in /proc, has one of the files open.
fn has_open(process: &Path, files: &HashSet<FileId>) -> bool {
    let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut links = fds.filter_map(|fd| Some((fd.path(), fs::read_link(fd.path()).ok()?)));
    links.any(|(fd, link)| {
        // Only what is named so is looked at: a file of a dead network mount would be waited for.
        let is_named = link.file_name().is_some_and(|name| name.as_bytes().starts_with(b"config.db"));
        is_named && fs::metadata(fd).is_ok_and(|meta| files.contains(&file_id(&meta)))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    type Entry = (i64, i64, i64, &'static str, Option<&'static str>);

    const TREE: [Entry; 8] = [
        (1, 0, FILE, "storage.cfg", Some("dir: local\n\tnodes old\n")),
        (2, 0, FILE, "corosync.conf", Some("totem {}")),
        (3, 0, DIR, "nodes", None),
        (4, 3, DIR, "old", None),
        (5, 4, DIR, "qemu-server", None),
        (6, 5, FILE, "100.conf", Some("name: a")),
        (7, 0, FILE, "empty", None),
        (9, 4, DIR, "lxc", None),
    ];

    fn database(more: &[Entry]) -> Vec<u8> {
        let db = memory().unwrap();
        db.execute_batch("CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL, \
            version INTEGER NOT NULL, writer INTEGER NOT NULL, mtime INTEGER NOT NULL, type INTEGER NOT NULL, \
            name TEXT NOT NULL, data BLOB); CREATE TRIGGER evil AFTER UPDATE ON tree BEGIN DELETE FROM tree; END; \
            CREATE TABLE more (x); INSERT INTO tree VALUES (0, 0, 3, 0, 1, 8, '__version__', NULL)").unwrap();
        for (inode, parent, kind, name, data) in TREE.iter().chain(more) {
            db.execute(INSERT, (inode, parent, inode, 1, 1_700_000_000, kind, name, data)).unwrap();
        }
        db.serialize("main").unwrap().to_vec()
    }

    fn nothing() -> Edit<'static> {
        Edit { leave_cluster: false, node: None, contents: Box::new(|_, data| data.to_vec()) }
    }

    fn entries(database: &[u8]) -> Vec<(i64, String, String)> {
        let (rows, _) = read(database).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        rows.iter().map(|(inode, row)| (*inode, text(&row.name), text(&row.data))).collect()
    }

    #[test]
    fn rows_come_anew_into_the_daemons_schema_and_nothing_else_does() {
        let ready = prepare(&database(&[]), &nothing()).unwrap();
        assert_eq!(entries(&ready.database), entries(&database(&[])));
        assert!(ready.is_member);
        assert_eq!(ready.nodes, BTreeSet::from(["old".to_owned()]));
        let mut db = memory().unwrap();
        let size = ready.database.len();
        db.deserialize_read_exact("main", Cursor::new(ready.database), size, true).unwrap();
        let schema: Vec<String> = db
            .prepare("SELECT sql FROM sqlite_schema")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(schema, [SCHEMA]);
        // The counter was below the inodes.
        let version =
            db.query_row("SELECT version FROM tree WHERE inode = 0", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(version, 10);
        let empty = db
            .query_row("SELECT data IS NULL FROM tree WHERE name = 'empty'", [], |row| row.get::<_, bool>(0));
        assert!(empty.unwrap());
    }

    #[test]
    fn a_tree_leaves_its_cluster_and_its_name() {
        let contents = |path: &str, data: &[u8]| match path {
            "storage.cfg" => String::from_utf8_lossy(data).replace("old", "new").into_bytes(),
            _ => data.to_vec(),
        };
        let edit = Edit { leave_cluster: true, node: Some(("old", "new")), contents: Box::new(contents) };
        let ready = prepare(&database(&[]), &edit).unwrap();
        assert!(!ready.is_member);
        assert_eq!(ready.nodes, BTreeSet::from(["new".to_owned()]));
        let entries = entries(&ready.database);
        assert!(
            entries.contains(&(1, "storage.cfg".into(), "dir: local\n\tnodes new\n".into())),
            "{entries:?}"
        );
        assert!(!entries.iter().any(|(_, name, _)| name == "corosync.conf"));
        assert!(prepare(&database(&[]), &Edit { node: Some(("x", "y")), ..edit }).is_err());
    }

    #[test]
    fn all_that_pmxcfs_refuses_is_named() {
        for (more, said) in [
            ((20, 0, FILE, "storage.cfg", None), "'storage.cfg' is in it twice"),
            ((20, 99, FILE, "x", None), "entry 20 has no parent"),
            ((20, 1, FILE, "x", None), "entry 20 lies in a file"),
            ((20, 20, DIR, "x", None), "entry 20 is in a loop"),
            ((20, 0, 5, "x", None), "is of the unknown type 5"),
            ((20, 0, FILE, "", None), "has the name \"\""),
            ((20, 0, FILE, "a/b", None), "has the name \"a/b\""),
            ((20, 0, DIR, "x", Some("y")), "the directory 'x' (entry 20) has contents"),
            ((20, 9, FILE, "100.conf", None), "guest 100 is in it twice"),
        ] {
            let error = format!("{:#}", prepare(&database(&[more]), &nothing()).unwrap_err());
            assert!(error.contains(said), "{said}: {error}");
        }
        for fine in [
            (20, 9, FILE, "0100.conf", None),
            (20, 3, FILE, "100.conf", None),
            (20, 9, DIR, "100.conf", None),
        ] {
            assert!(prepare(&database(&[fine]), &nothing()).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn the_database_is_told_by_its_path() {
        for path in ["/var/lib/pve-cluster/config.db", "var/lib/pve-cluster/config.db-wal"] {
            assert!(is_database(Path::new(path)), "{path}");
        }
        assert!(!is_database(Path::new("var/lib/pve-cluster/config.db.bak")));
    }

    #[test]
    fn what_is_no_database_is_refused() {
        for bytes in [&b""[..], b"SQLite format 3\0", &[0xff; 4096], &database(&[])[..5000]] {
            assert!(prepare(bytes, &nothing()).is_err());
        }
    }
}
