//! What every kind of store must do, written once and run for each.

use std::fs;
use std::path::Path;

use pbx_config::model::snapshot::SnapshotId;
use pbx_config::store::{FoundFile, Store};

use crate::kinds::{self, Place};

pub fn id(text: &str) -> SnapshotId {
    text.parse().unwrap()
}

/// Kinds whose snapshots lie as files in a tree: on the disk, in memory, and far away.
const TREES: [fn() -> Place; 5] = [
    || kinds::dir_in(&std::env::temp_dir()),
    || kinds::dir_in(Path::new("/dev/shm")),
    kinds::rclone_local,
    kinds::rclone_webdav,
    kinds::rclone_sftp,
];

fn each_kind(test: impl Fn(&dyn Store, &Path) + Sync) {
    each_of(&[&TREES[..], &[kinds::pbs, kinds::rclone_s3]].concat(), test);
}

fn each_tree(test: impl Fn(&dyn Store, &Path) + Sync) {
    each_of(&TREES, test);
}

fn each_of(kinds: &[fn() -> Place], test: impl Fn(&dyn Store, &Path) + Sync) {
    // Remotes mostly wait.
    std::thread::scope(|scope| {
        for kind in kinds {
            let test = &test;
            scope.spawn(move || {
                let place = kind();
                test(place.open().as_ref(), &place.root);
            });
        }
    });
}

fn each_folder(test: impl Fn(&dyn Store, &Path)) {
    for place in [kinds::dir_in(&std::env::temp_dir()), kinds::dir_in(Path::new("/dev/shm"))] {
        test(place.open().as_ref(), &place.root);
    }
}

pub fn spool(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    file
}

#[test]
fn a_store_that_was_never_written_to_is_empty() {
    each_kind(|store, _| assert_eq!(store.list(None).unwrap(), []));
}

#[test]
fn what_was_put_is_listed_and_comes_back() {
    each_kind(|store, _| {
        let id = id("pve1/2026-11-22T15:17:40Z");
        store.put(spool("hello").path(), &id).unwrap();
        assert_eq!(store.list(Some("pve1")).unwrap(), [FoundFile::new(id.clone(), 5)]);
        assert_eq!(store.head(&id, 2).unwrap(), b"he");
        assert_eq!(fs::read(store.get(&id).unwrap().path()).unwrap(), b"hello");
    });
}

#[test]
fn a_host_sees_only_its_own_when_asked_for() {
    each_kind(|store, _| {
        store.put(spool("a").path(), &id("pve1/2026-11-22T15:17:40Z")).unwrap();
        store.put(spool("b").path(), &id("pve2/2026-11-22T15:17:40Z")).unwrap();
        assert_eq!(store.list(Some("pve2")).unwrap().len(), 1);
        assert_eq!(store.list(Some("pve")).unwrap().len(), 0);
        assert_eq!(store.list(None).unwrap().len(), 2);
    });
}

#[test]
fn a_name_that_is_taken_is_never_replaced() {
    each_kind(|store, _| {
        let id = id("pve1/2026-11-22T15:17:40Z");
        store.put(spool("old").path(), &id).unwrap();
        assert!(store.put(spool("new").path(), &id).is_err());
        assert_eq!(fs::read(store.get(&id).unwrap().path()).unwrap(), b"old");
        assert_eq!(store.list(None).unwrap().len(), 1);
    });
}

#[test]
fn what_is_removed_is_gone_and_nothing_else() {
    each_kind(|store, _| {
        let (gone, stays) = (id("pve1/2026-11-22T15:17:40Z"), id("pve1/2026-11-22T15:17:41Z"));
        store.put(spool("a").path(), &gone).unwrap();
        store.put(spool("b").path(), &stays).unwrap();
        store.remove(&gone).unwrap();
        // A second time is fine, and so is a host that was never there.
        store.remove(&gone).unwrap();
        store.remove(&id("pve2/2026-11-22T15:17:40Z")).unwrap();
        assert_eq!(store.list(None).unwrap(), [FoundFile::new(stays, 1)]);
    });
}

#[test]
fn two_runs_that_remove_the_same_at_once_both_end_well() {
    each_kind(|store, _| {
        let ids: Vec<_> = (0..6).map(|n| id(&format!("pve1/2026-11-22T15:17:4{n}Z"))).collect();
        for id in &ids {
            store.put(spool("x").path(), id).unwrap();
        }
        std::thread::scope(|scope| {
            let remove = || store.remove_many(&ids[..5]).into_iter().for_each(|done| done.unwrap());
            let both = [scope.spawn(remove), scope.spawn(remove)];
            both.into_iter().for_each(|one| one.join().unwrap());
        });
        assert_eq!(store.list(None).unwrap(), [FoundFile::new(ids[5].clone(), 1)]);
    });
}

#[test]
fn the_file_that_was_put_may_change_afterwards() {
    each_kind(|store, _| {
        let id = id("pve1/2026-11-22T15:17:40Z");
        let file = spool("hello");
        store.put(file.path(), &id).unwrap();
        fs::remove_file(file.path()).unwrap();
        assert_eq!(fs::read(store.get(&id).unwrap().path()).unwrap(), b"hello");
    });
}

#[test]
fn foreign_and_half_written_files_are_not_told() {
    each_tree(|store, root| {
        fs::create_dir_all(root.join("pve1")).unwrap();
        for name in
            [".pve1_20261122T151740Z.pbx.tar.partial", "n1-backup-20260801-020000.tar.xz", "notes.txt"]
        {
            fs::write(root.join("pve1").join(name), "x").unwrap();
        }
        assert_eq!(store.list(None).unwrap(), []);
    });
}

#[test]
fn what_a_killed_run_left_half_copied_goes_with_the_next_put() {
    each_tree(|store, root| {
        let half = root.join("pve1/.pve1_20261122T151740Z.pbx.tar.partial");
        fs::create_dir_all(root.join("pve1")).unwrap();
        fs::write(&half, "x").unwrap();
        store.put(spool("a").path(), &id("pve1/2026-11-23T00:00:00Z")).unwrap();
        assert!(!half.exists());
    });
}

#[test]
fn a_store_that_cannot_be_written_names_itself() {
    each_tree(|store, root| {
        fs::write(root, "a file where the folder should be").unwrap();
        let error = store.put(spool("x").path(), &id("pve1/2026-11-22T15:17:40Z")).unwrap_err();
        assert!(error.to_string().contains("store '"), "{error}");
    });
}

#[test]
fn a_host_that_is_a_link_is_neither_listed_nor_written_through() {
    each_folder(|store, root| {
        let elsewhere = root.with_file_name("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::create_dir(root).unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("pve1")).unwrap();
        let error = store.put(spool("x").path(), &id("pve1/2026-11-22T15:17:40Z")).unwrap_err();
        assert!(error.to_string().contains("pve1: is a link"), "{error}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        fs::write(elsewhere.join("pve1_20261122T151740Z.pbx.tar"), "x").unwrap();
        assert_eq!(store.list(None).unwrap(), []);
    });
}
