//! Looks at the live side of a restore: what stands at every path it may touch, the state of /etc/pve and its
//! guests, the numbers of users, the mounts of datastores. Reads only, and waits for nothing that may hang.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::select::SMALL_BYTES;
use crate::catalog::guests::GuestPath;
use crate::catalog::{PBS_DIR, RestoreRule, Source};
use crate::model::facts::{PmxcfsState, Product};
use crate::model::index::{EntryKind, Mtime, Name};
use crate::plan::restore::skip_rules::SkipReason;
use crate::plan::restore::{Content, FileState, HostState, LivePath, PVE, SelectedEntries};
use crate::sys::fs::files::{self, FileNode};
use crate::sys::fs::flags::{self, Flag};
use crate::sys::fs::hash::{Hasher, sha256};
use crate::sys::fs::mounts;
use crate::sys::fs::owners::Owners;
use crate::sys::host::Host;
use crate::sys::host_dir::HostDir;
use crate::sys::{mask, pmxcfs};

/// All that a plan asks of this host.
pub struct Observed {
    /// None: no Proxmox VE.
    pub tree: Option<PmxcfsState>,
    pub guests: BTreeMap<u32, Name>,
    pub live: HashMap<Name, LivePath>,
    pub users: HashMap<String, u32>,
    pub groups: HashMap<String, u32>,
    pub datastores: BTreeSet<String>,
    pub fixed: HashMap<Name, SkipReason>,
}

impl Observed {
    pub fn here<'a>(&'a self, host: &'a Host) -> HostState<'a> {
        HostState {
            facts: &host.facts,
            tree: self.tree,
            guests: &self.guests,
            live: &self.live,
            users: &self.users,
            groups: &self.groups,
            datastores: &self.datastores,
            fixed: &self.fixed,
            sha256: |bytes| sha256(bytes),
            mask: mask::mask_line,
        }
    }
}

pub fn observe(host: &Host, picked: &SelectedEntries) -> Result<Observed> {
    let owners = Owners::of(host.root());
    let by_name = |names: HashMap<u32, String>| names.into_iter().map(|(id, name)| (name, id)).collect();
    let mut observed = Observed {
        tree: None,
        guests: BTreeMap::new(),
        live: HashMap::new(),
        users: by_name(owners.users),
        groups: by_name(owners.groups),
        datastores: datastores(host, picked),
        fixed: HashMap::new(),
    };
    observe_tree(host, &mut observed)?;

    let mut look =
        Look { root: host.root(), foreign: mounts::foreign_mounts(host.root()), seen: HashMap::new() };
    for selected in picked.wanted.iter().chain(&picked.parts) {
        let path = selected.entry.path.as_path();
        // Of a running pmxcfs the database is not opened like any other file, not even to be compared. Whoever puts
        // one in place has seen that none runs, and has made it again.
        let is_live_database = matches!(selected.item.source, Source::Database)
            && !matches!(selected.content, Content::Bytes(_));
        if path.starts_with(PVE) || is_live_database {
            continue;
        }
        let merges = selected.item.restore == RestoreRule::AddLines;
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            let live = look.at(above, None);
            observed.live.entry(Name::from(above)).or_insert(live);
        }
        let live = look.at(path, Some((&selected.entry.sha256, merges)));
        observed.live.entry(selected.entry.path.clone()).or_insert(live);
    }

    observed.fixed = unchangeable(host, picked, &observed);
    Ok(observed)
}

/// Reads the whole tree at one moment, when there is one that takes writes.
fn observe_tree(host: &Host, observed: &mut Observed) -> Result<()> {
    if !host.facts.has(Product::Pve) {
        return Ok(());
    }

    let state = pmxcfs::state(host);
    observed.tree = Some(state);
    if !matches!(state, PmxcfsState::Live { .. }) {
        return Ok(());
    }
    for folder in ["etc", PVE] {
        observed.live.insert(Name::new(folder), there(tree_print(0, None), None));
    }
    for node in pmxcfs::read(host)?.nodes {
        let path = Path::new(PVE).join(&node.path);
        let print = node_state(&node);
        if let Some(guest) = GuestPath::of(&path) {
            observed.guests.insert(guest.id, path.as_path().into());
        }
        observed.live.insert(path.as_path().into(), there(print, node.data));
    }
    Ok(())
}

fn there(print: FileState, content: Option<Vec<u8>>) -> LivePath {
    LivePath::There { print, content, is_linked: false }
}

/// Returns the state of a path in /etc/pve.
pub fn node_state(node: &pmxcfs::PmxcfsNode) -> FileState {
    FileState { mode: node.mode(), ..tree_print(node.mtime, node.data.as_deref()) }
}

fn tree_print(mtime: i64, data: Option<&[u8]>) -> FileState {
    FileState {
        kind: if data.is_some() { EntryKind::File } else { EntryKind::Dir },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Mtime(mtime, 0),
        size: data.map_or(0, |data| data.len() as u64),
        sha256: data.map(sha256).unwrap_or_default(),
        link: None,
        xattrs: Vec::new(),
    }
}

struct Look<'a> {
    root: &'a Path,
    foreign: HashMap<PathBuf, String>,
    /// Folders that were looked at: None when it is one, else what is in the way.
    seen: HashMap<PathBuf, Option<LivePath>>,
}

impl Look<'_> {
    /// `wanted` is the hash that the content is kept for when it differs, and whether it is kept in any case.
    fn at(&mut self, path: &Path, wanted: Option<(&str, bool)>) -> LivePath {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
            && let Some(in_the_way) = self.folder(parent)
        {
            return in_the_way;
        }
        if let Some(kind) = self.foreign.get(path) {
            return LivePath::Blocked(format!("/{} is a mount of type {kind}", shown(path)));
        }
        seen(self.root, path, wanted).unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => LivePath::Absent,
            _ => LivePath::Blocked(format!("cannot be checked: {error}")),
        })
    }

    fn folder(&mut self, path: &Path) -> Option<LivePath> {
        if let Some(known) = self.seen.get(path) {
            return known.clone();
        }
        let in_the_way = match self.at(path, None) {
            LivePath::There { print, .. } if print.kind == EntryKind::Dir => None,
            LivePath::There { print, .. } => {
                let what = if print.kind == EntryKind::Symlink { "link" } else { "file" };
                Some(LivePath::Blocked(format!("its directory /{} is a {what} here", shown(path))))
            }
            other => Some(other),
        };
        self.seen.insert(path.to_owned(), in_the_way.clone());
        in_the_way
    }
}

fn shown(path: &Path) -> Name {
    path.into()
}

/// Reads the state of one path of a disk now (relative to its root), with its hash but without its content.
pub fn look(host: &Host, path: &Path) -> io::Result<LivePath> {
    match seen(host.root(), path, Some(("", false))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LivePath::Absent),
        Ok(LivePath::There { print, is_linked, .. }) => {
            Ok(LivePath::There { print, content: None, is_linked })
        }
        looked => looked,
    }
}

fn seen(root: &Path, path: &Path, wanted: Option<(&str, bool)>) -> io::Result<LivePath> {
    let dir = HostDir::open(root, path.parent().unwrap_or(Path::new("")))?;
    let full = &dir.at(path.file_name().unwrap_or_default());
    let stat = files::lstat(full)?;
    let kind = match stat.node {
        FileNode::Kept(kind) => kind,
        FileNode::Special(what) => {
            return Ok(LivePath::Blocked(format!("there is {what} of this name here")));
        }
    };

    let mut print = FileState {
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        size: 0,
        sha256: String::new(),
        link: None,
        xattrs: Vec::new(),
    };
    let mut content = None;

    match (kind, wanted) {
        (EntryKind::Symlink, _) => print.link = Some(Name::new(fs::read_link(full)?.as_os_str().as_bytes())),
        (EntryKind::File, Some((sha256, always))) => {
            let (file, stat) = files::open_read(full)?;
            print.xattrs = files::file_xattrs(&file)?;
            let (size, hash, bytes) = hash(file, stat.size <= SMALL_BYTES)?;
            (print.size, print.sha256) = (size, hash);
            content = bytes.filter(|_| always || print.sha256 != sha256);
        }
        (EntryKind::Dir, _) => print.xattrs = files::path_xattrs(full)?,
        _ => {}
    }
    Ok(LivePath::There { print, content, is_linked: kind == EntryKind::File && stat.nlink > 1 })
}

/// Returns size, hash, and the bytes when they are few.
fn hash(mut file: fs::File, keep: bool) -> io::Result<(u64, String, Option<Vec<u8>>)> {
    if keep {
        let mut bytes = Vec::new();
        file.by_ref().take(SMALL_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= SMALL_BYTES {
            return Ok((bytes.len() as u64, sha256(&bytes), Some(bytes)));
        }
    }
    let mut hasher = Hasher::default();
    file.seek(io::SeekFrom::Start(0))?;
    let size = io::copy(&mut file, &mut hasher)?;
    Ok((size, hasher.hex(), None))
}

/// Lists the directories of the snapshot's datastores that are really here: mounted, or with chunks in them.
fn datastores(host: &Host, picked: &SelectedEntries) -> BTreeSet<String> {
    let name = Name::new(format!("{}/datastore.cfg", PBS_DIR.trim_start_matches('/')));
    let text = picked.contents.get(&name).map(|text| String::from_utf8_lossy(text)).unwrap_or_default();
    let paths = text.lines().filter_map(|line| line.trim().strip_prefix("path ")).map(str::trim);
    let root = fs::canonicalize(host.root()).unwrap_or_else(|_| host.root().to_owned());
    let mounts: HashSet<PathBuf> = mounts::mounts().into_iter().map(|(point, _)| point).collect();
    let is_here = |path: &&str| {
        let point = root.join(path.trim_start_matches('/'));
        // A mount is not touched: it may hang.
        mounts.contains(&point) || files::is_there(host.root(), Path::new(path).join(".chunks"))
    };
    paths.filter(is_here).map(str::to_owned).collect()
}

/// Lists the paths that cannot be changed, each with the reason and a hint. Only paths that were looked at, and none
/// that nobody can answer for.
fn unchangeable(host: &Host, picked: &SelectedEntries, observed: &Observed) -> HashMap<Name, SkipReason> {
    let live = &observed.live;
    let mut folders: HashMap<Name, Option<SkipReason>> = HashMap::new();
    let mut fixed = HashMap::new();

    for selected in picked.wanted.iter().chain(&picked.parts) {
        let path = selected.entry.path.as_path();
        let is_there = match live.get(&selected.entry.path) {
            _ if path.starts_with(PVE) => continue,
            None | Some(LivePath::Blocked(_)) => continue,
            Some(LivePath::There { .. }) => true,
            Some(LivePath::Absent) => false,
        };
        let own = is_there.then(|| flagged(host, path, "it")).flatten();
        let is_folder =
            |folder: &&Path| matches!(live.get(&Name::from(*folder)), Some(LivePath::There { .. }));
        let above = path.ancestors().skip(1).find(is_folder).unwrap_or(Path::new(""));
        let above = || folders.entry(above.into()).or_insert_with(|| of_folder(host, above)).clone();
        if let Some(skip_reason) = own.or_else(above) {
            fixed.insert(selected.entry.path.clone(), skip_reason);
        }
    }
    fixed
}

/// Returns why a path cannot be changed; `what` names it beside the path that is wanted.
fn flagged(host: &Host, path: &Path, what: &str) -> Option<SkipReason> {
    let shown = Path::new("/").join(path);
    let dir = host.dir_of(&shown).ok()?;
    let (how, letter) = match flags::flag(&dir.at(path.file_name().unwrap_or_default())).ok()?? {
        Flag::Immutable => ("immutable", 'i'),
        Flag::AppendOnly => ("append-only", 'a'),
    };
    let shown = Name::from(shown.as_path());
    Some(SkipReason::new(
        format!("{what} is {how}"),
        format!("if you want to change it: `chattr -{letter} {shown}`, then restore again"),
    ))
}

fn of_folder(host: &Host, path: &Path) -> Option<SkipReason> {
    let shown = Path::new("/").join(path);
    let is_read_only = host.dir(&shown).is_ok_and(|dir| flags::is_read_only(&dir.here()).unwrap_or(false));
    let shown = Name::from(shown.as_path());
    let read_only = || {
        SkipReason::new(
            format!("the file system of {shown} is mounted read-only"),
            format!("`findmnt -T {shown}` shows it; `mount -o remount,rw` and its mount point"),
        )
    };
    flagged(host, path, &format!("its directory {shown}")).or_else(|| is_read_only.then(read_only))
}
