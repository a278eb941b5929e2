//! The whole tree in memory, written through to the database, and the rules of the real daemon:
//! modes by path, errnos, locks, guest ids. All by path, as libfuse's high-level API asks.

use crate::db::Db;
use crate::dotfiles::{FILES, Guest, LINKS, Status, is_virtual};
use anyhow::{Result, bail};
use nix::errno::Errno;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub type List = Vec<(Vec<u8>, Kind)>;
pub type Res<T> = Result<T, Errno>;

const MAX_FILE: usize = 1 << 20;
const BLOCKS: u64 = 32768;
const INODES: u64 = 262_144;
pub const BLOCK: u64 = 4096;

#[derive(Clone, Debug)]
pub enum Body {
    Dir,
    File(Vec<u8>),
    /// An empty file truncated upward: a size, but nothing behind it (bug B2 of the real daemon).
    Hollow(usize),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub inode: i64,
    pub parent: i64,
    pub version: i64,
    pub mtime: u32,
    pub name: Vec<u8>,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dir,
    File,
    Link,
}

#[derive(Debug)]
pub struct Stat {
    pub kind: Kind,
    pub perm: u16,
    pub size: u64,
    pub mtime: u32,
}

pub fn now() -> u32 {
    seconds(UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()).cast_signed())
}

/// The one time stamp there is: whole seconds, 32 bit; -1 becomes 4294967295 (pmxcfs.md 1).
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn seconds(time: i64) -> u32 {
    time as u32
}

fn parts(path: &[u8]) -> Vec<&[u8]> {
    path.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect()
}

/// The parent's path and the last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// At or below `priv` or `nodes/X/priv`.
pub fn is_private(path: &[u8]) -> bool {
    matches!(parts(path).as_slice(), [b"priv", ..] | [b"nodes", _, b"priv", ..])
}

/// `priv/lock/NAME`; whether it is a directory, the tree knows.
fn is_lock(path: &[u8]) -> bool {
    matches!(parts(path).as_slice(), [b"priv", b"lock", _])
}

/// The mode shown: by path alone, and without the w bits when there is no quorum.
pub fn mode(path: &[u8], kind: Kind, quorate: bool) -> u16 {
    let full = match kind {
        Kind::File if is_private(path) => 0o600,
        Kind::File => 0o640,
        Kind::Dir if is_private(path) => 0o700,
        _ => 0o755,
    };
    // The root directory keeps its mode.
    if quorate || path.is_empty() { full } else { full & !0o222 }
}

/// The guest a path configures. No leading zero, fits 32 bit, the node's name a host name.
pub fn guest(path: &[u8]) -> Option<Guest> {
    let [b"nodes", node, kind, file] = parts(path)[..] else { return None };
    let kind = match kind {
        b"qemu-server" => "qemu",
        b"lxc" => "lxc",
        b"openvz" => "openvz",
        _ => return None,
    };
    let id = str::from_utf8(file.strip_suffix(b".conf")?).ok()?;
    let node = str::from_utf8(node).ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let host = node.bytes().all(plain) && !node.starts_with('-') && !node.ends_with('-');
    let digits = id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0');
    let id = id.parse().ok().filter(|_| host && digits)?;
    Some(Guest { id, node: node.to_owned(), kind })
}

impl Entry {
    fn size(&self) -> usize {
        match &self.body {
            Body::Dir => 0,
            Body::File(data) => data.len(),
            Body::Hollow(size) => *size,
        }
    }

    fn kind(&self) -> Kind {
        if matches!(self.body, Body::Dir) { Kind::Dir } else { Kind::File }
    }
}

pub struct Tree {
    entries: HashMap<i64, Entry>,
    names: BTreeMap<(i64, Vec<u8>), i64>,
    /// When each lock directory was taken or refreshed, by this daemon's clock.
    locks: HashMap<i64, Instant>,
    /// None once closed or after a failed transaction: EIO from then on (proxmox.md 1.8).
    db: Option<Db>,
    version: i64,
    pub status: Status,
    pub quorate: bool,
    pub lock_time: Duration,
}

impl Tree {
    /// Reads the database; refuses duplicates and orphans as the real daemon does.
    pub fn load(db: Db, status: Status) -> Result<Self> {
        let (rows, version) = db.load()?;
        let (locks, lock_time) = (HashMap::new(), Duration::from_secs(120));
        let (entries, names) = (HashMap::new(), BTreeMap::new());
        let db = Some(db);
        let mut tree = Self { entries, names, locks, db, version, status, quorate: true, lock_time };
        for entry in rows {
            let key = (entry.parent, entry.name.clone());
            if tree.names.insert(key, entry.inode).is_some() {
                let name = String::from_utf8_lossy(&entry.name);
                bail!("found entry with duplicate name '{name}'");
            }
            tree.entries.insert(entry.inode, entry);
        }
        let all: Vec<(i64, Vec<u8>)> =
            tree.entries.keys().map(|i| Ok((*i, tree.path(*i)?))).collect::<Result<_>>()?;
        for (inode, path) in all {
            let Some(guest) = guest(&path).filter(|_| tree.entries[&inode].kind() == Kind::File) else {
                if is_lock(&path) {
                    // A restart gives every lock its full time again.
                    tree.locks.insert(inode, Instant::now());
                }
                continue;
            };
            if tree.status.guest(guest.id).is_some() {
                bail!("detected duplicate VMID {}", guest.id);
            }
            tree.status.guests_changed(None, Some(guest));
        }
        Ok(tree)
    }

    fn path(&self, inode: i64) -> Result<Vec<u8>> {
        let (mut names, mut at) = (Vec::new(), inode);
        while let Some(entry) = self.entries.get(&at).filter(|_| names.len() <= self.entries.len()) {
            names.insert(0, entry.name.as_slice());
            at = entry.parent;
            if at == 0 {
                return Ok(names.join(&b'/'));
            }
            if self.entries.get(&at).is_none_or(|parent| parent.kind() != Kind::Dir) {
                break;
            }
        }
        bail!("entry {inode} has no parent directory")
    }

    fn find(&self, path: &[u8]) -> Res<i64> {
        parts(path).iter().try_fold(0, |at, name| {
            if at != 0 && self.entries[&at].kind() != Kind::Dir {
                return Err(Errno::ENOTDIR);
            }
            self.names.get(&(at, name.to_vec())).copied().ok_or(Errno::ENOENT)
        })
    }

    fn children(&self, inode: i64) -> impl Iterator<Item = &Entry> {
        let range = (inode, Vec::new())..(inode + 1, Vec::new());
        self.names.range(range).map(|(_, child)| &self.entries[child])
    }

    pub fn stat(&mut self, path: &[u8]) -> Res<Stat> {
        let none = |kind, perm, size| Ok(Stat { kind, perm, size, mtime: 0 });
        if let Some(size) = self.status.refresh(path) {
            return none(Kind::File, if path == b".debug" { 0o640 } else { 0o440 }, size as u64);
        }
        if let Some(target) = self.status.link(path) {
            return none(Kind::Link, mode(path, Kind::Link, self.quorate), target.len() as u64);
        }
        match self.find(path)? {
            0 => none(Kind::Dir, mode(path, Kind::Dir, self.quorate), 0),
            inode => {
                let entry = &self.entries[&inode];
                let perm = mode(path, entry.kind(), self.quorate);
                Ok(Stat { kind: entry.kind(), perm, size: entry.size() as u64, mtime: entry.mtime })
            }
        }
    }

    pub fn list(&self, path: &[u8]) -> Res<List> {
        let own: &[&str] = if path.is_empty() { &FILES } else { &[] };
        let links: &[&str] = if path.is_empty() { &LINKS } else { &[] };
        let made = |names: &[&str], kind| -> Vec<_> {
            names.iter().map(|n| (n.as_bytes().to_vec(), kind)).collect()
        };
        let stored = self.children(self.find(path)?).map(|e| (e.name.clone(), e.kind()));
        Ok([made(&[".", ".."], Kind::Dir), made(own, Kind::File), made(links, Kind::Link)]
            .concat()
            .into_iter()
            .chain(stored)
            .collect())
    }

    pub fn read(&mut self, path: &[u8], offset: usize, size: usize) -> Res<Vec<u8>> {
        let inode = self.find(path);
        let data = match self.status.read(path) {
            Some(data) => data,
            None => match &self.entries.get(&inode?).ok_or(Errno::EISDIR)?.body {
                Body::Dir => return Err(Errno::EISDIR),
                Body::File(data) => data,
                // The real daemon dies here with SIGSEGV (B2): ECONNABORTED for the reader.
                Body::Hollow(_) => std::process::abort(),
            },
        };
        let start = offset.min(data.len());
        Ok(data[start..data.len().min(start.saturating_add(size))].to_vec())
    }

    /// Blocks, free blocks, inodes, free inodes; may wrap below zero as in reality (B4).
    pub fn statfs(&self) -> (u64, u64, u64, u64) {
        let used = self.entries.values().map(Entry::size).sum::<usize>() as u64;
        let free = BLOCKS.wrapping_sub(used.div_ceil(BLOCK));
        (BLOCKS, free, INODES, INODES.wrapping_sub(self.entries.len() as u64))
    }

    pub fn mkdir(&mut self, path: &[u8]) -> Res<()> {
        self.add(path, Body::Dir, now())
    }

    pub fn create(&mut self, path: &[u8]) -> Res<()> {
        self.add(path, Body::File(Vec::new()), now())
    }

    /// A new entry, with all it has.
    pub fn add(&mut self, path: &[u8], body: Body, mtime: u32) -> Res<()> {
        self.writable(&[path])?;
        let (dir, name) = split(path);
        let parent = self.find(dir)?;
        if parent != 0 && self.entries[&parent].kind() != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        if self.find(path).is_ok() {
            return Err(Errno::EEXIST);
        }
        let inode = self.version + 1;
        let entry = Entry { inode, parent, version: 0, mtime, name: name.to_vec(), body };
        if entry.size() > MAX_FILE {
            return Err(Errno::EFBIG);
        }
        if entry.kind() == Kind::Dir {
            self.commit(Some(entry), &[])?;
            if is_lock(path) {
                self.locks.insert(inode, Instant::now());
            }
        } else {
            self.unique(path, None)?;
            self.commit(Some(entry), &[])?;
            self.written(path);
        }
        Ok(())
    }

    pub fn write(&mut self, path: &[u8], offset: usize, new: &[u8]) -> Res<()> {
        if is_virtual(path) {
            return self.status.write(path, new);
        }
        self.rewrite(
            path,
            |mut data| {
                let end = offset + new.len();
                data.resize(data.len().max(end), 0);
                data[offset..end].copy_from_slice(new);
                Body::File(data)
            },
            offset + new.len(),
        )
    }

    pub fn truncate(&mut self, path: &[u8], size: usize) -> Res<()> {
        if is_virtual(path) {
            return if path == b".debug" { Ok(()) } else { Err(Errno::EIO) };
        }
        self.rewrite(
            path,
            |mut data| {
                if data.is_empty() && size > 0 {
                    return Body::Hollow(size);
                }
                data.resize(size, 0);
                Body::File(data)
            },
            size,
        )
    }

    fn rewrite(&mut self, path: &[u8], f: impl FnOnce(Vec<u8>) -> Body, end: usize) -> Res<()> {
        self.writable(&[])?;
        let mut entry = self.entries.get(&self.find(path)?).ok_or(Errno::EISDIR)?.clone();
        if end > MAX_FILE {
            return Err(Errno::EFBIG);
        }
        entry.body = match entry.body {
            Body::Dir => return Err(Errno::EISDIR),
            Body::File(data) => f(data),
            Body::Hollow(size) => f(vec![0; size]),
        };
        entry.mtime = now();
        self.commit(Some(entry), &[])?;
        self.written(path);
        Ok(())
    }

    /// Sets the time; on a lock directory it refreshes the lock, or asks for its end.
    pub fn utime(&mut self, path: &[u8], mtime: u32) -> Res<()> {
        self.writable(&[path])?;
        let inode = self.find(path)?;
        let mut entry = self.entries.get(&inode).ok_or(Errno::EACCES)?.clone();
        if is_lock(path) && entry.kind() == Kind::Dir {
            let young = self.locks.get(&inode).is_some_and(|t| t.elapsed() < self.lock_time);
            if mtime == 0 && !young {
                return self.remove(path);
            }
            if mtime < entry.mtime {
                return Err(Errno::EACCES);
            }
            self.locks.insert(inode, Instant::now());
        }
        entry.mtime = mtime;
        self.commit(Some(entry), &[])?;
        self.status.changed(path);
        Ok(())
    }

    /// unlink and rmdir; which one fits, the kernel has checked.
    pub fn remove(&mut self, path: &[u8]) -> Res<()> {
        self.writable(&[path])?;
        let inode = self.find(path)?;
        let file = self.entries.get(&inode).ok_or(Errno::EACCES)?.kind() == Kind::File;
        if self.children(inode).next().is_some() {
            return Err(Errno::ENOTEMPTY);
        }
        self.commit(None, &[inode])?;
        self.locks.remove(&inode);
        if file {
            self.status.changed(path);
            self.status.guests_changed(guest(path).as_ref(), None);
        }
        Ok(())
    }

    /// Replaces the target in the same transaction; keeps the inode, stamps the time.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Res<()> {
        self.writable(&[from, to])?;
        let mut entry = self.entries.get(&self.find(from)?).ok_or(Errno::EACCES)?.clone();
        let dir = entry.kind() == Kind::Dir;
        if dir && (is_lock(from) || is_lock(to)) {
            return Err(Errno::EACCES);
        }
        let (parent, name) = split(to);
        (entry.parent, entry.name) = (self.find(parent)?, name.to_vec());
        let target = self.find(to).ok();
        if target.is_some_and(|target| self.children(target).next().is_some()) {
            return Err(Errno::ENOTEMPTY);
        }
        if self.children(entry.inode).next().is_some() {
            // Bug B3 of the real daemon: the target is gone from memory, and stays in the database.
            if let Some(target) = target {
                self.forget(target);
            }
            return Err(Errno::ENOTEMPTY);
        }
        let (old, new) = (guest(from).filter(|_| !dir), guest(to).filter(|_| !dir));
        if !dir {
            self.unique(to, old.as_ref())?;
        }
        entry.mtime = now();
        self.commit(Some(entry), target.as_slice())?;
        self.status.changed(from);
        self.status.changed(to);
        self.status.guests_changed(old.as_ref(), new);
        Ok(())
    }

    /// EEXIST when another file configures the same guest; `moved` is the guest that may go along.
    fn unique(&self, path: &[u8], moved: Option<&Guest>) -> Res<()> {
        let Some(new) = guest(path) else { return Ok(()) };
        let clash = self.status.guest(new.id).is_some_and(|old| *old != new);
        if clash && moved.is_none_or(|m| m.id != new.id) { Err(Errno::EEXIST) } else { Ok(()) }
    }

    fn written(&mut self, path: &[u8]) {
        self.status.changed(path);
        self.status.guests_changed(None, guest(path));
    }

    /// Without quorum every change is EACCES at once, and so is one of a virtual entry.
    fn writable(&self, paths: &[&[u8]]) -> Res<()> {
        if !self.quorate || paths.iter().any(|p| p.is_empty() || is_virtual(p)) {
            return Err(Errno::EACCES);
        }
        if self.db.is_some() { Ok(()) } else { Err(Errno::EIO) }
    }

    /// Disk first, then memory; the global version and the row's grow together.
    fn commit(&mut self, put: Option<Entry>, gone: &[i64]) -> Res<()> {
        self.version += 1;
        let put = put.map(|entry| Entry { version: self.version, ..entry });
        let db = self.db.as_mut().ok_or(Errno::EIO)?;
        if db.store(put.as_ref(), gone, self.version).is_err() {
            self.db = None;
            return Err(Errno::EIO);
        }
        for inode in gone {
            self.forget(*inode);
        }
        if let Some(entry) = put {
            self.forget(entry.inode);
            self.names.insert((entry.parent, entry.name.clone()), entry.inode);
            self.entries.insert(entry.inode, entry);
        }
        Ok(())
    }

    fn forget(&mut self, inode: i64) {
        if let Some(old) = self.entries.remove(&inode) {
            self.names.remove(&(old.parent, old.name));
        }
    }

    pub fn close(&mut self) {
        if let Some(db) = self.db.take() {
            db.close();
        }
    }
}

/// Whole seconds of a time that may lie before 1970.
pub fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs().cast_signed(),
        Err(before) => -before.duration().as_secs().cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::load(Db::memory(), Status::new("pve1", 1)).unwrap();
        for dir in "nodes nodes/a nodes/a/qemu-server nodes/b nodes/b/lxc priv priv/lock".split(' ') {
            tree.mkdir(dir.as_bytes()).unwrap();
        }
        tree
    }

    #[test]
    fn modes_follow_the_path_and_the_quorum() {
        assert_eq!(mode(b"storage.cfg", Kind::File, true), 0o640);
        assert_eq!(mode(b"priv/shadow.cfg", Kind::File, false), 0o400);
        assert_eq!(mode(b"nodes/x/priv", Kind::Dir, true), 0o700);
        assert_eq!(mode(b"nodes/priv", Kind::Dir, false), 0o555);
        assert_eq!(mode(b"", Kind::Dir, false), 0o755);
    }

    #[test]
    fn only_well_formed_names_are_guests() {
        let id = |path: &str| guest(path.as_bytes()).map(|guest| guest.id);
        assert_eq!(id("nodes/a/qemu-server/50.conf"), Some(50));
        assert_eq!(id("nodes/a/lxc/4294967295.conf"), Some(4_294_967_295));
        for other in ["a/qemu-server/0100", "bad_name/lxc/100", "a/lxc/99999999999", "a/lxc/x", "a/lxc/+1"] {
            assert_eq!(id(&format!("nodes/{other}.conf")), None, "{other}");
        }
    }

    #[test]
    fn a_guest_id_is_taken_until_its_file_moves_or_goes() {
        let (a, b) = (b"nodes/a/qemu-server/100.conf", b"nodes/b/lxc/100.conf");
        let mut tree = tree();
        tree.create(a).unwrap();
        tree.create(b"nodes/b/lxc/100.conf.tmp.7").unwrap();
        assert_eq!(tree.create(b), Err(Errno::EEXIST));
        assert_eq!(tree.rename(b"nodes/b/lxc/100.conf.tmp.7", b), Err(Errno::EEXIST));
        assert_eq!(tree.rename(a, b), Ok(()));
        assert_eq!(tree.create(a), Err(Errno::EEXIST));
        assert_eq!(tree.remove(b), Ok(()));
        assert_eq!(tree.create(a), Ok(()));
    }

    #[test]
    fn a_lock_is_given_up_only_when_old() {
        let mut tree = tree();
        tree.mkdir(b"priv/lock/x").unwrap();
        assert_eq!(tree.mkdir(b"priv/lock/x"), Err(Errno::EEXIST));
        assert_eq!(tree.rename(b"priv/lock/x", b"priv/lock/y"), Err(Errno::EACCES));
        assert_eq!(tree.utime(b"priv/lock/x", 0), Err(Errno::EACCES));
        assert_eq!(tree.utime(b"priv/lock/x", now()), Ok(()));
        tree.lock_time = Duration::ZERO;
        assert_eq!(tree.utime(b"priv/lock/x", 0), Ok(()));
        assert_eq!(tree.stat(b"priv/lock/x").map(|_| ()), Err(Errno::ENOENT));
    }

    #[test]
    fn without_quorum_nothing_changes() {
        let mut tree = tree();
        tree.create(b"f").unwrap();
        let version = tree.version;
        tree.quorate = false;
        assert_eq!(tree.write(b"f", 0, b"x"), Err(Errno::EACCES));
        assert_eq!(tree.truncate(b"f", 0), Err(Errno::EACCES));
        assert_eq!(tree.rename(b"f", b"g"), Err(Errno::EACCES));
        assert_eq!(tree.utime(b"f", 1), Err(Errno::EACCES));
        assert_eq!(tree.mkdir(b"d"), Err(Errno::EACCES));
        assert_eq!(tree.version, version);
    }
}
