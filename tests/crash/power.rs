//! Power cuts. What a run asked of the kernel is replayed on a disk that keeps only what was synced, and may or
//! may not keep the rest: whatever can be seen after a cut at any moment must be whole, and what the run called
//! done must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::Bench;
use crate::strace::{Call, changes};

/// The strictest disk that POSIX allows. What was there before the run is not in it, and is safe.
#[derive(Default)]
struct Disk {
    names: BTreeMap<PathBuf, Name>,
    /// By number; true when content, owner, mode and attributes are as they were synced.
    clean: Vec<bool>,
}

#[derive(Clone, Copy)]
struct Name {
    inode: usize,
    durable: bool,
}

impl Disk {
    fn make(&mut self, path: &Path, clean: bool) {
        self.clean.push(clean);
        self.names.insert(path.to_owned(), Name { inode: self.clean.len() - 1, durable: false });
    }

    fn dirty(&mut self, path: &Path) {
        if let Some(name) = self.names.get(path) {
            self.clean[name.inode] = false;
        }
    }

    fn sync(&mut self, path: &Path) {
        if let Some(name) = self.names.get(path) {
            self.clean[name.inode] = true;
        }
        let here = |name: &Path| name.parent() == Some(path);
        self.names.iter_mut().filter(|(name, _)| here(name)).for_each(|(_, name)| name.durable = true);
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let below: Vec<PathBuf> = self.names.keys().filter(|name| name.starts_with(from)).cloned().collect();
        for old in below {
            let name = self.names.remove(&old).unwrap();
            let rest = old.strip_prefix(from).unwrap();
            let top = rest.as_os_str().is_empty();
            let new = if top { to.to_owned() } else { to.join(rest) };
            self.names.insert(new, Name { durable: name.durable && !top, ..name });
        }
    }

    fn replay(&mut self, call: &Call) {
        let paths = call.paths();
        let first = call.path();
        match call.name.as_str() {
            "open" | "openat" | "openat2" | "creat" => {
                if !self.names.contains_key(&first) {
                    self.make(&first, false);
                }
            }
            "mkdir" | "mkdirat" => self.make(&first, true),
            // Nobody can sync a link: it is as durable as its name.
            "symlink" | "symlinkat" => self.make(paths.last().unwrap(), true),
            "link" | "linkat" => {
                let inode = self.names.get(&paths[0]).map(|name| name.inode);
                let name = Name { inode: inode.expect("made in this run"), durable: false };
                self.names.insert(paths[1].clone(), name);
            }
            "rename" | "renameat" | "renameat2" => self.rename(&paths[0], &paths[1]),
            "unlink" | "unlinkat" | "rmdir" => drop(self.names.remove(&first)),
            "fsync" | "fdatasync" => self.sync(&first),
            "syncfs" => {
                self.clean.fill(true);
                self.names.values_mut().for_each(|name| name.durable = true);
            }
            "copy_file_range" | "splice" => self.dirty(paths.last().unwrap()),
            "write" | "pwrite64" | "writev" | "sendfile" | "ftruncate" | "fallocate" | "chmod" | "fchmod"
            | "chown" | "fchown" | "fchownat" | "fsetxattr" | "setxattr" | "utimensat" => self.dirty(&first),
            "flock" | "ioctl" => {}
            _ => panic!("tests/crash/power.rs: what does it do? {call}"),
        }
    }

    /// What of a published path, and of all below it, a cut could take away while the name stays.
    fn unsafe_below(&self, published: &Path) -> Vec<&Path> {
        let lost = |(path, name): &(&PathBuf, &Name)| {
            path.starts_with(published)
                && (!self.clean[name.inode] || !name.durable && path.as_path() != published)
        };
        self.names.iter().filter(lost).map(|(path, _)| path.as_path()).collect()
    }

    /// The path or the first folder above it that a cut could take away.
    fn forgotten<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.ancestors().find(|above| self.names.get(*above).is_some_and(|name| !name.durable))
    }
}

/// The first moment at which a cut shows something half, or what was promised and would be gone.
fn fault(calls: &[Call], published: &dyn Fn(&Path) -> bool, promised: &Path) -> Option<String> {
    let mut disk = Disk::default();
    for call in calls {
        disk.replay(call);
        for path in disk.names.keys().filter(|path| published(path)) {
            if let Some(lost) = disk.unsafe_below(path).first() {
                return Some(format!("{} may be half: {} after {call}", path.display(), lost.display()));
            }
        }
    }
    if !disk.names.contains_key(promised) {
        return Some(format!("{} was never made", promised.display()));
    }
    disk.forgotten(promised).map(|path| format!("{} may be gone", path.display()))
}

/// Every sync below `folder` is needed: the model notices when a file or a folder on the way to what was promised is
/// not synced. Notes (what is remembered beside the snapshots) are whole, but no promise: their folders may be late.
fn each_sync_counts(
    calls: &[Call],
    folder: &Path,
    published: &dyn Fn(&Path) -> bool,
    promised: &Path,
    at_least: usize,
) {
    let is_sync = |call: &&Call| call.name.contains("sync") && call.touches(folder);
    let synced: BTreeSet<PathBuf> = calls.iter().filter(is_sync).map(Call::path).collect();
    let counts = |path: &&PathBuf| !path.is_dir() || promised.starts_with(path) || path.starts_with(promised);
    let counting: Vec<&PathBuf> = synced.iter().filter(counts).collect();
    for path in &counting {
        let kept = |call: &&Call| !(is_sync(call) && call.path() == **path);
        let without: Vec<Call> = calls.iter().filter(kept).cloned().collect();
        assert!(
            fault(&without, published, promised).is_some(),
            "nothing is lost without a sync of {}",
            path.display()
        );
    }
    assert!(counting.len() >= at_least, "{counting:?}");
}

/// A snapshot in a store, or a note that the program reads again.
fn is_read_again(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_in = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
    // The one in the work folder is no promise.
    name.ends_with(".pbx.tar") && is_in("store")
        || is_in("proxmox-backup-extra")
            && name.contains('.')
            && !name.starts_with('.')
            && !is_in("work")
            && !is_in("store")
}

fn survives(bench: &Bench, syncs: usize) {
    let before = bench.files_in_store();
    let calls = bench.changes_of_a_backup();
    let new: Vec<PathBuf> =
        bench.files_in_store().into_iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(new.len(), 1);
    assert_eq!(fault(&calls, &is_read_again, &new[0]), None);
    each_sync_counts(&calls, &bench.host.root, &is_read_again, &new[0], syncs);
}

#[test]
fn a_power_cut_leaves_whole_snapshots_and_the_one_that_was_called_done() {
    // The file, its folder, and the folders up to the root of the host: store, state, lib, var, root.
    survives(&Bench::first_run(), 7);
}

#[test]
fn a_power_cut_leaves_the_copy_on_another_disk() {
    let bench = Bench::other_disk();
    let calls = bench.changes_of_a_backup();
    let new = bench.files_in_store().pop().unwrap();
    assert_eq!(fault(&calls, &is_read_again, &new), None);
    let folder = bench.folder();
    let synced: Vec<_> = calls.iter().filter(|call| call.name == "fsync" && call.touches(&folder)).collect();
    assert!(synced.len() >= 2, "{synced:?}");
    each_sync_counts(&calls, &folder, &is_read_again, &new, 2);
}

#[test]
fn what_a_killed_run_made_and_did_not_sync_is_synced_by_the_next() {
    let bench = Bench::first_run();
    for call in bench.changes_of_a_backup() {
        bench.reset();
        let inject = format!("inject={}:signal=KILL:when={}", call.name, call.nth);
        let killed = bench.watched(&["-e", "trace=all", "-e", &inject], &["backup"]);
        assert!(killed.was_killed(), "{call}");
        let before = bench.files_in_store();
        let next = bench.watched(&[], &["backup"]).ok();
        let new = bench.files_in_store().into_iter().find(|path| !before.contains(path)).unwrap();
        let both = [changes(&killed.calls, &[]), changes(&next.calls, &[])].concat();
        assert_eq!(fault(&both, &is_read_again, &new), None, "killed at {call}");
    }
}

#[test]
fn a_power_cut_leaves_no_target_of_an_extraction_or_a_whole_one() {
    let bench = Bench::first_run().with_old_snapshot();
    let target = bench.host.beside("target");
    for empty_folder in [false, true] {
        let _ = fs::remove_dir_all(&target);
        if empty_folder {
            fs::create_dir(&target).unwrap();
        }
        let done = bench.watched(&[], &["restore", "latest", "--to", target.to_str().unwrap()]).ok();
        let calls = changes(&done.calls, &[&bench.host.beside("")]);
        assert!(calls.iter().any(|call| call.name.starts_with("rename")), "{calls:?}");
        let published = |path: &Path| path == target;
        assert_eq!(fault(&calls, &published, &target), None);
        each_sync_counts(&calls, &bench.host.beside(""), &published, &target, 2);
    }
}
