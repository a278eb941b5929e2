//! The database behind the tree: the real daemon's schema, pragmas and one transaction per change.
//! Measured in pmxcfs.md 7: WAL, synchronous NORMAL, mode 0600, no index but the key.

use crate::tree::{Body, Entry};
use anyhow::{Context, Result, bail};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS tree (\
    inode INTEGER PRIMARY KEY NOT NULL, \
    parent INTEGER NOT NULL CHECK(typeof(parent)=='integer'), \
    version INTEGER NOT NULL CHECK(typeof(version)=='integer'), \
    writer INTEGER NOT NULL CHECK(typeof(writer)=='integer'), \
    mtime INTEGER NOT NULL CHECK(typeof(mtime)=='integer'), \
    type INTEGER NOT NULL CHECK(typeof(type)=='integer'), \
    name TEXT NOT NULL, \
    data BLOB);";
const PUT: &str = "INSERT OR REPLACE INTO tree \
    (inode, parent, version, writer, mtime, type, name, data) VALUES (?,?,?,?,?,?,?,?)";
pub const DIR: i64 = 4;
pub const FILE: i64 = 8;
pub const VERSION_ROW: &[u8] = b"__version__";

/// A name may be any bytes; `SQLite` stores them as text all the same.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

pub struct Db(Connection);

impl Db {
    /// Opens or creates the file; tells whether it is new.
    pub fn open(path: &Path) -> Result<(Self, bool)> {
        let mut create = OpenOptions::new();
        create.write(true).create_new(true).mode(0o600);
        let new = create.open(path).is_ok();
        let conn = Connection::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok((Self::setup(conn)?, new))
    }

    #[cfg(test)]
    pub fn memory() -> Self {
        Self::setup(Connection::open_in_memory().unwrap()).unwrap()
    }

    fn setup(conn: Connection) -> Result<Self> {
        // Not busy_timeout(): it needs sqlite3_set_clientdata, which Debian 12's 3.40 has not.
        conn.query_row("PRAGMA busy_timeout=10000", [], |_| Ok(()))?;
        conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).context("unable to set WAL mode")?;
        conn.execute_batch("PRAGMA synchronous=NORMAL")?;
        conn.execute_batch(SCHEMA)?;
        let first = params![0, 0, 1, 0, crate::tree::now(), FILE, Text(VERSION_ROW), None::<&[u8]>];
        conn.execute(&PUT.replace("OR REPLACE", "OR IGNORE"), first)?;
        Ok(Self(conn))
    }

    /// All entries, and the global version of row 0; refuses what the real daemon refuses row by row.
    pub fn load(&self) -> Result<(Vec<Entry>, i64)> {
        let mut statement = self
            .0
            .prepare("SELECT inode, parent, version, mtime, type, name, data FROM tree ORDER BY inode")?;
        let mut rows = statement.query([])?;
        let (mut entries, mut version) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let inode: i64 = row.get(0)?;
            let bytes = |column| match row.get_ref(column)? {
                ValueRef::Text(b) | ValueRef::Blob(b) => Ok::<_, rusqlite::Error>(b.to_vec()),
                _ => Ok(Vec::new()),
            };
            let (kind, name, data): (i64, _, _) = (row.get(4)?, bytes(5)?, bytes(6)?);
            let shown = String::from_utf8_lossy(&name).into_owned();
            if inode == 0 {
                version = row.get(2)?;
                if name != VERSION_ROW {
                    bail!("inode 0 has unexpected name '{shown}'");
                }
                continue;
            }
            let body = match kind {
                _ if name.is_empty() => bail!("inode {inode} has an empty name"),
                DIR if data.is_empty() => Body::Dir,
                DIR => bail!("directory '{shown}' (inode {inode}) has data"),
                FILE => Body::File(data),
                other => bail!("'{shown}' (inode {inode}) has unknown type {other}"),
            };
            // The column is 32 bit in the daemon's structure, whatever a hand-made database says.
            let mtime = crate::tree::seconds(row.get(3)?);
            let (parent, version) = (row.get(1)?, row.get(2)?);
            entries.push(Entry { inode, parent, version, mtime, name, body });
        }
        Ok((entries, version))
    }

    /// One change: the rows that go, the row that is (re)written whole, and row 0, together.
    pub fn store(&mut self, put: Option<&Entry>, gone: &[i64], version: i64) -> rusqlite::Result<()> {
        let change = self.0.transaction()?;
        for inode in gone {
            change.execute("DELETE FROM tree WHERE inode=?", params![inode])?;
        }
        if let Some(e) = put {
            let (kind, data) = match &e.body {
                Body::Dir => (DIR, None),
                // An empty file's data is NULL (pmxcfs.md 7).
                Body::File(data) => (FILE, Some(data.as_slice()).filter(|d| !d.is_empty())),
                Body::Hollow(_) => (FILE, None),
            };
            let name = Text(&e.name);
            change.execute(PUT, params![e.inode, e.parent, e.version, 0, e.mtime, kind, name, data])?;
        }
        let now = crate::tree::now();
        let none = None::<&[u8]>;
        change.execute(PUT, params![0, 0, version, 0, now, FILE, Text(VERSION_ROW), none])?;
        change.commit()
    }

    /// The last connection's normal close: checkpoint, and -wal and -shm go.
    pub fn close(self) {
        self.0.close().ok();
    }
}
