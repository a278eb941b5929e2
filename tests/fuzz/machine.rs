//! A whole host: its small files, its configuration, its tree of names, its config.db. Whatever they hold, a
//! backup of it is made, is sound and comes out again, and what the program says is text.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pbx_config::archive::reader::Archive;
use pbx_config::archive::writer::{Members, Protection, Writer};
use pbx_config::cli::{self, AppEnv};
use pbx_config::model::index::{Entry, EntryKind, Name, is_harmful};
use pbx_config::model::problem::Exit;
use pbx_config::model::snapshot::{Snapshot, SnapshotId};
use pbx_config::sys::fs::owners::Owners;
use pbx_config::sys::host::Host;
use pbx_config::sys::pmxcfs;
use pbx_config::sys::pmxcfs::offline::{self, Edit};
use pbx_config::sys::process::exec::NoTools;
use tempfile::TempDir;

use super::tree::{assert_same, picture};
use super::{Script, parts};

/// A folder with a root in it, gone with everything in /run when it is dropped.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let dir = scratch();
        fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        Self(dir)
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.0.path().join("root").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn host(&self) -> Host {
        Host::detect(self.path("root"), now(), Box::new(NoTools))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.host().run_dir());
    }
}

/// A folder in memory where there is some: a snapshot is synced to its disk.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("pbx-fuzz-").tempdir_in(base).unwrap()
}

/// Reports whether a case is one of the few that run the whole program: that takes a hundred times as long as the
/// readers alone.
fn is_whole(data: &[u8]) -> bool {
    const ONE_OF: u64 = 200;
    // FNV-1a: the same case is always the same kind of case.
    let hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % ONE_OF == 0
}

thread_local! {
    /// The place that all cases of a thread use, one after the other.
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

fn in_place(run: impl FnOnce(&Place)) {
    PLACE.with_borrow_mut(|place| run(place.get_or_insert_with(Place::new)));
}

pub fn now() -> Timestamp {
    Timestamp::from_second(1_795_360_660).unwrap()
}

/// Runs a verb on the place's host; what it says is lines of text, and an error is one of them.
#[track_caller]
pub fn said(place: &Place, words: &[&str]) -> (Exit, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let root = place.path("root");
    let head = ["pbx-config", "--quiet", "--root", root.to_str().unwrap()];
    let args = head.iter().chain(words).map(OsString::from);
    let world = AppEnv { exec: Some(Box::new(NoTools)), now: now(), out: &mut out, err: &mut err };
    let exit = cli::run(args, world);
    let (out, err) = (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"));
    for text in [&out, &err] {
        let bad = text.chars().find(|c| is_harmful(*c) && !"\n\t".contains(*c));
        assert_eq!(bad, None, "{words:?}: {text:?}");
    }
    let errors = err.lines().filter(|line| !line.starts_with("hint: ")).count();
    // `verify` tells of a bad one in its table.
    let told =
        matches!(exit, Exit::Ok | Exit::Problems) || err.starts_with("error: ") || words[0] == "verify";
    assert!(errors <= 1 && told, "{words:?}: {exit:?} {err}");
    (exit, out)
}

/// A backup that must be made, proven, and taken out again; where it was taken to.
#[track_caller]
fn saved(place: &Place) -> PathBuf {
    let (exit, out) = said(place, &["backup"]);
    assert!(matches!(exit, Exit::Ok | Exit::Problems), "{exit:?} {out}");
    // Which proves it, too.
    let (exit, out) = said(place, &["show", "latest", "--files"]);
    assert_eq!(exit, Exit::Ok, "{out}");
    let to = place.path("to");
    let (exit, out) = said(place, &["restore", "latest", "--to", to.to_str().unwrap()]);
    assert!(matches!(exit, Exit::Ok | Exit::Problems), "{exit:?} {out}");
    to
}

/// In the order in which their contents stand in the input.
pub const HOST_FILES: [&str; 9] = [
    "etc/hostname",
    "etc/machine-id",
    "usr/lib/os-release",
    "var/lib/dpkg/status",
    "etc/corosync/corosync.conf",
    "etc/passwd",
    "etc/group",
    "etc/fstab",
    "etc/crypttab",
];

/// The small files that tell what host it is.
pub fn host(data: &[u8]) {
    if is_whole(data) {
        let place = Place::new();
        place.write("etc/issue", b"there is something to save");
        read_host(&place, data);
        let host = place.host();
        if host.facts.products.is_empty() && host.facts.os.is_none() && !host.has_name() {
            assert_eq!(said(&place, &["backup"]).0, Exit::Usage);
        } else {
            saved(&place);
        }
    } else {
        in_place(|place| read_host(place, data));
    }
}

fn read_host(place: &Place, data: &[u8]) {
    let mut parts = parts(data).into_iter();
    for path in HOST_FILES {
        place.write(path, parts.next().unwrap_or_default());
    }
    let _ = symlink("../usr/lib/os-release", place.path("root/etc/os-release"));
    let host = place.host();
    let facts = &host.facts;
    assert!(SnapshotId::new(&facts.node, host.now).is_some(), "{:?}", facts.node);
    let text = serde_json::to_string(facts).unwrap();
    assert_eq!(&serde_json::from_str::<pbx_config::model::facts::Facts>(&text).unwrap(), facts);
    let owners = Owners::of(host.root());
    assert!(owners.users.values().chain(owners.groups.values()).all(|name| !name.contains([':', '\n'])));
}

/// The node's own configuration, and its secrets.
pub fn config(data: &[u8]) {
    let place = Place::new();
    let mut parts = parts(data).into_iter();
    place.write("etc/hostname", b"tiny\n");
    let (public, secret) = (parts.next().unwrap_or_default(), parts.next());
    place.write("etc/proxmox-backup-extra/pbx-config.cfg", public);
    if let Some(secret) = secret {
        let path = "etc/proxmox-backup-extra/secrets.cfg";
        place.write(path, secret);
        fs::set_permissions(place.path("root").join(path), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (checked, out) = said(&place, &["config", "check"]);
    let (shown, text) = said(&place, &["config", "show"]);
    assert!(matches!(checked, Exit::Ok | Exit::Usage), "{checked:?} {out}");
    assert!(shown == Exit::Ok || checked == shown, "{checked:?} {shown:?}");
    let secret = String::from_utf8_lossy(secret.unwrap_or_default());
    let public = String::from_utf8_lossy(public);
    for line in secret.lines().filter(|line| line.starts_with(['\t', ' '])) {
        let value = line.trim().split_once([' ', '\t']).map_or("", |(_, value)| value.trim());
        // Long enough not to be there by chance.
        assert!(value.len() < 12 || public.contains(value) || !text.contains(value), "{value}");
    }
    if checked == Exit::Ok {
        said(&place, &["backup", "--dry-run"]);
    }
}

/// A tree of names of any bytes, links to anywhere, modes, kinds: in a snapshot, and now and then on a disk.
pub fn names(data: &[u8]) {
    if is_whole(data) {
        names_on_disk(data);
    } else {
        in_place(|place| names_in_snapshot(place, data));
    }
}

fn names_in_snapshot(place: &Place, data: &[u8]) {
    let mut script = Script(data);
    let mut should: BTreeMap<Name, (Entry, Vec<u8>)> = BTreeMap::new();
    let mut folders = vec![b"srv".to_vec()];
    let mut files: Vec<Name> = Vec::new();
    let snap = place.path("tiny_20261122T151740Z.pbx.tar");
    let _ = fs::remove_file(&snap);
    let file = fs::File::options().read(true).write(true).create_new(true).open(&snap).unwrap();
    let mut writer = Writer::new(file, draft(), Protection::default()).unwrap();
    while !script.done() && should.len() < 60 {
        let folder = &folders[usize::from(script.byte()) % folders.len()];
        let path = Name::new([folder, &b"/"[..], script.bytes()].concat());
        let kind = match script.byte() % 4 {
            0 => EntryKind::Dir,
            1 => EntryKind::Symlink,
            2 if !files.is_empty() => EntryKind::Hardlink,
            _ => EntryKind::File,
        };
        let link = match kind {
            EntryKind::Symlink => Some(Name::new(script.bytes())),
            EntryKind::Hardlink => Some(files[usize::from(script.byte()) % files.len()].clone()),
            _ => None,
        };
        let content = if kind == EntryKind::File { script.bytes() } else { &[] };
        let is_bad = |name: &Name| name.as_bytes().is_empty() || name.as_bytes().contains(&0);
        if !path.is_safe() || should.contains_key(&path) || link.as_ref().is_some_and(is_bad) {
            continue;
        }
        match kind {
            EntryKind::Dir => folders.push(path.as_bytes().to_vec()),
            EntryKind::File => files.push(path.clone()),
            _ => {}
        }
        let mode = u32::from(script.number()) & 0o7777;
        let entry = entry(&path, kind, mode, link.as_ref(), content.len());
        writer.append(entry.clone(), &mut &*content).unwrap();
        should.insert(path, (entry, content.to_vec()));
    }
    let index = serde_json::json!({
        "format": 1, "id": "tiny/2026-11-22T15:17:40Z", "facts": { "node": "tiny", "products": {} },
        "entries": [], "outputs": [], "absent": [], "problems": [],
    });
    writer.finish(serde_json::from_value(index).unwrap()).unwrap();
    let mut seen = 0;
    let mut archive = Archive::open(&snap).expect("what we write we read");
    let index = archive.read(&snap, &mut |member, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!(should[&member.path].1, bytes, "{}", member.path);
        seen += 1;
        Ok(())
    });
    let index = index.expect("what we write we read");
    assert_eq!((seen, index.entries.len()), (should.len(), should.len()));
    for mut entry in index.entries {
        entry.sha256.clear();
        assert_eq!(entry, should[&entry.path].0);
    }
}

/// The manifest of a snapshot before anything is in it.
fn draft() -> Snapshot {
    let manifest = serde_json::json!({
        "format": 1, "id": "tiny/2026-11-22T15:17:40Z", "node": "tiny", "products": {}, "tool": "0",
        "codec": { "name": "none", "level": 0, "threads": 1 },
        "payload": { "name": "", "size": 0, "sha256": "" },
        "counts": { "entries": 0, "files": 0, "bytes": 0, "absent": 0, "problems": 0 },
        "outcome": "ok", "trigger": "manual",
    });
    serde_json::from_value(manifest).unwrap()
}

fn entry(path: &Name, kind: EntryKind, mode: u32, link: Option<&Name>, size: usize) -> Entry {
    let entry = serde_json::json!({
        "item": "include", "path": path, "kind": kind, "mode": mode, "uid": 0, "gid": 0, "mtime": [1, 0],
        "size": size, "link": link,
    });
    serde_json::from_value(entry).unwrap()
}

fn names_on_disk(data: &[u8]) {
    let place = Place::new();
    place.write("etc/hostname", b"tiny\n");
    place.write(
        "etc/proxmox-backup-extra/pbx-config.cfg",
        b"backup: main\n\tcompression none\n\tinclude /srv\n",
    );
    let srv = place.path("root/srv");
    fs::create_dir(&srv).unwrap();
    let mut script = Script(data);
    let mut folders = vec![srv.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while !script.done() && folders.len() + files.len() < 60 {
        let folder = &folders[usize::from(script.byte()) % folders.len()];
        let name: Vec<u8> = script.bytes().iter().copied().filter(|byte| !b"/\0".contains(byte)).collect();
        if name.is_empty() || name == b"." || name == b".." {
            continue;
        }
        let path = folder.join(OsStr::from_bytes(&name));
        // Two of one name: the first one stays.
        let made = match script.byte() % 6 {
            0 => fs::create_dir(&path).map(|()| folders.push(path)),
            1 => {
                let target: Vec<u8> = script.bytes().iter().copied().filter(|byte| *byte != 0).collect();
                symlink(OsStr::from_bytes(&target), &path)
            }
            2 if !files.is_empty() => {
                fs::hard_link(&files[usize::from(script.byte()) % files.len()], &path).map(drop)
            }
            3 => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).map_err(Into::into),
            _ if path.symlink_metadata().is_ok() => Ok(()),
            _ => {
                fs::write(&path, script.bytes()).unwrap();
                let mode = u32::from(script.number()) & 0o7777;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map(|()| files.push(path))
            }
        };
        drop(made);
    }
    let mut should = picture(&place.path("root"), "srv");
    should.retain(|_, seen| seen.kind != "special");
    let to = saved(&place);
    assert_same(&picture(&to, "srv"), &should);
    // The host is as it was, too.
    let mut after = picture(&place.path("root"), "srv");
    after.retain(|_, seen| seen.kind != "special");
    assert_same(&after, &should);
}

/// pmxcfs's database of a dead node.
pub fn database(data: &[u8]) {
    if is_whole(data) {
        database_of_a_host(data);
    } else {
        in_place(|place| {
            place.write("usr/bin/pmxcfs", b"");
            place.write("var/lib/pve-cluster/config.db", data);
            fs::create_dir_all(place.path("root/etc/pve")).unwrap();
            if let Ok(picture) = pmxcfs::read(&place.host()) {
                assert!(picture.nodes.iter().all(|node| Name::from(node.path.as_path()).is_safe()));
            }
        });
    }
    let left = || Edit { leave_cluster: true, node: None, contents: Box::new(|_, data| data.to_vec()) };
    if let Ok(ready) = offline::prepare(data, &left()) {
        assert!(!ready.is_member);
        let again = offline::prepare(&ready.database, &left()).expect("what we write we read");
        assert_eq!(again.nodes, ready.nodes);
    }
}

fn database_of_a_host(data: &[u8]) {
    let place = Place::new();
    place.write("etc/hostname", b"pve1\n");
    place.write("usr/bin/pmxcfs", b"");
    place.write("var/lib/pve-cluster/config.db", data);
    fs::create_dir_all(place.path("root/etc/pve")).unwrap();
    let (exit, out) = said(&place, &["backup"]);
    // Its cluster's configuration is in there too, and a mistake in that is told before anything is read.
    if exit != Exit::Usage {
        assert!(matches!(exit, Exit::Ok | Exit::Problems), "{exit:?} {out}");
        assert_eq!(said(&place, &["verify", "latest"]).0, Exit::Ok);
    }
    assert_eq!(fs::read(place.path("root/var/lib/pve-cluster/config.db")).unwrap(), data);
}
